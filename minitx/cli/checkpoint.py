"""`minitx inspect`, `minitx verify` and `minitx convert`: commands on a whole checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from minitx.cli.options import HUB, MODEL, Argument, command, group
from minitx.cli.render import colored_verdicts, emit
from minitx.cli.source import Source
from minitx.terminal import progress_bar


@command(MODEL, *group("the model", *HUB, "head"))
def inspect(source: Source, head: str | None, json: bool) -> None:
    """Prints the summary of a model."""
    from minitx.inspect.summary import render, summarize

    folder = source.folder()
    summary = summarize(source.model(folder, head), folder)
    emit(json, {"model": source.name, **asdict(summary)}, render(summary))


@command(MODEL, *group("the model", *HUB, "head", "device"))
def verify(source: Source, head: str | None, json: bool) -> int:
    """Prints the comparison with transformers; returns 1 if they differ."""
    from minitx.inspect.compare.report import render_report
    from minitx.inspect.compare.verify import verify as compare

    source.calm_hub()
    source.check_device()
    report = compare(source.name, head=head, device=source.device, **source.reading, **source.hub)
    emit(json, report.to_json(), colored_verdicts(render_report(report)))
    return 0 if report.ok else 1


@command(
    Argument("model", "SOURCE", "folder, GGUF file or Hub id"),
    Argument("destination", "DESTINATION", "a new or empty folder"),
    *group("the model", *HUB, "head", "dtype"),
)
def convert(source: Source, destination: str, json: bool, **options: Any) -> None:
    """Writes a checkpoint as safetensors."""
    from minitx.checkpoint.convert import convert as write
    from minitx.checkpoint.hub import fetch_tokenizer
    from minitx.pictures.text import human
    from minitx.tokenizer.load import gguf_contents

    folder, target = source.folder(), Path(destination)
    if not Path(source.name).is_dir():
        fetch_tokenizer(source.name, **source.hub)
    options["contents"] = gguf_contents(folder)
    options["progress"] = partial(progress_bar, title="writing", unit="B", quiet=json)
    result = write(folder, target, dtype=source.dtype, **source.reading, **source.hub, **options)
    count = len(result.weights)
    files = result.weights[0] if count == 1 else f"{count} safetensors files"
    lines = [f"{target}: {human(result.bytes)} of weights in {files}"]
    for title, names in (("copied", result.copied), ("not copied", result.not_copied)):
        lines += [f"{title}:", *(f"  {name}" for name in names)] if names else []
    emit(json, {"source": source.name, "destination": str(target), **asdict(result)}, "\n".join(lines))
