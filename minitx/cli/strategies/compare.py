"""`minitx compare`: one prompt, several strategies."""

from __future__ import annotations

from typing import Any

from minitx.cli.decoding import DEFAULT_LENGTH, head_of, model_of, set_languages
from minitx.cli.options import MODEL, Argument, command, group
from minitx.cli.render import emit
from minitx.cli.source import Source
from minitx.terminal import progress_bar

USUAL = (
    "Greedy()",
    "Sample()",
    "Sample(temperature=0.8, top_p=0.95)",
    "Sample(top_k=10)",
    "Beam(num_beams=4)",
)


@command(
    *(MODEL, Argument("prompt", "PROMPT", "the text to continue, or the input of an encoder")),
    *(*group("languages"), *group("the model")),
)
def compare(source: Source, prompt: str, strategies: tuple[str, ...], json: bool, **values: Any) -> None:
    """Prints the texts of several strategies side by side."""
    from minitx.pipelines.generation.compare import compare as comparison_of
    from minitx.pipelines.generation.expressions import strategy_from_text

    described = strategies or USUAL
    chosen = [_named(text, strategy_from_text) for text in described]
    folder = source.folder()
    tokenizer = source.tokenizer(folder)
    set_languages(tokenizer, values)
    model = model_of(source, folder, head_of(source, folder))
    length, seed = values["max_new_tokens"], values["seed"] or 0
    length = DEFAULT_LENGTH if length is None else length
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_new_tokens": length}
    with progress_bar(len(chosen), "comparing", "strategy", quiet=source.quiet) as progress:
        result = comparison_of(model, prompt, chosen, seed=seed, progress=progress, **options)
    emit(json, result.to_json(), str(result))


def _named(text: str, read: Any) -> Any:
    """Reads a strategy; an error names the option."""
    try:
        return read(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--strategy {text!r:.60}: {error}") from None
