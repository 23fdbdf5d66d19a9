"""`minitx trace`: the steps of a forward; and `minitx estimate`: sizes, memory and operations."""

from __future__ import annotations

from typing import Any

from minitx.cli.options import HUB, LANGUAGES, MODEL, Argument, command, group
from minitx.cli.render import colored_verdicts, emit
from minitx.cli.source import Source


@command(MODEL, *group("the model", *HUB[:3], "head", "dtype"))
def estimate(source: Source, json: bool, **options: Any) -> None:
    """Prints parameters, memory and operations of a model."""
    from minitx.checkpoint.formats.source import stored_config
    from minitx.checkpoint.hub import fetch_tokenizer
    from minitx.inspect.estimate import estimate as estimated

    source.calm_hub()
    config = stored_config(fetch_tokenizer(source.name, **source.hub))  # no weights
    result = estimated(config, dtype=source.dtype, **options)
    emit(json, result.to_json(), str(result))


@command(
    MODEL,
    Argument("text", "TEXT", "one text"),
    *group("languages"),
    *group("the model", *HUB, "head", "dtype", "device"),
)
def trace(source: Source, text: str, head: str | None, json: bool, **options: Any) -> int:
    """Prints the steps of a forward; returns 1 if one differs from its recomputation."""
    from minitx.inspect.trace import trace as traced

    folder, options["check"] = source.folder(), bool(options["check"])
    tokenizer = source.tokenizer(folder, **{name: options.pop(name) for name in LANGUAGES})
    result = traced(source.model(folder, head), text, tokenizer=tokenizer, **options)
    emit(json, result.to_json(), colored_verdicts(str(result)))
    return 0 if result.ok else 1
