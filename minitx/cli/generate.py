"""`minitx generate` and `minitx explain`: continue texts, and show how a token is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import minitx
from minitx.cli.decoding import Request, request_of
from minitx.cli.decoding_options import RENAMED, Values, is_used, strategy_options
from minitx.cli.options import MODEL, Argument, command, group
from minitx.cli.render import emit, note, show
from minitx.cli.source import Source
from minitx.decoding.generate import stream
from minitx.decoding.output import Event, FinishReason, Row
from minitx.decoding.search.base import Search
from minitx.habits import OPTIONS
from minitx.pictures.text import shorten_line
from minitx.pipelines import generate_batches, row_record
from minitx.terminal import WIDTH

# Why a text shows nothing.
EMPTY: dict[FinishReason, str] = {
    "eos": "the model ended its text at once.",
    "stop": "--stop, --stop-tokens or --stop-regex ended the text at once.",
    "time": "the time was over before there was text.",
    "length": "the text has special tokens alone, which are not shown; --json has their ids.",
}

CUT = "--max-new-tokens ended the text before its form was complete; allow more, or a shorter form."


@command(
    *(MODEL, Argument("texts", "[PROMPT ...]", "texts; none: lines of stdin")),
    *(*group("encoder-decoders"), *group("length and output"), *strategy_options(searches=True)),
    renamed=RENAMED,
    elsewhere=OPTIONS | {"--top": "minitx explain has it"},
)
def generate(source: Source, json: bool, **values: Any) -> None:
    """Prints continuations, a single one token by token."""
    if values["logprobs"] and not json:
        raise ValueError("--logprobs is shown with --json only.")
    if values["top_logprobs"] is not None and not values["logprobs"]:
        raise ValueError("--top-logprobs needs --logprobs raw or --logprobs processed.")
    if values["show_tree"] and json:
        raise ValueError("--show-tree is a drawing, and cannot be part of --json.")
    request = request_of(source, values)
    if values["show_tree"] and not isinstance(request.strategy, Search):
        raise ValueError("--show-tree is an option of searches; add --beams, such as --beams 4.")
    samples = request.num_samples
    if len(request.prompts) * samples == 1 and not json and not isinstance(request.strategy, Search):
        events = stream(request.model, request.inputs, request.strategy, **request.settings)
        show_as_it_comes(events, [], ids=request.settings["tokenizer"] is None, form=has_form(values))
        return
    for number, (row, tree) in enumerate(rows(request, values["batch_size"])):
        prompt, sample = divmod(number, samples)
        shown = "" if json else as_text(request, row, prompt, sample, samples)
        record = {"prompt": request.prompts[prompt], "sample": sample}
        record |= row_record(row, request.settings["tokenizer"]) if json else {}
        emit(json, record, shown, indent=None)
        if values["show_tree"] and sample == samples - 1:
            show(f"\n{tree}")
        if has_form(values) and row.finish_reason == "length":
            note(CUT)


@command(
    *(MODEL, Argument("texts", "[PROMPT ...]", "one text; none: the line of stdin")),
    *(*group("encoder-decoders"), *strategy_options(searches=False)),
    renamed=RENAMED,
    elsewhere={name: "minitx generate has it" for each in generate.params for name in each.opts} | OPTIONS,
)
def explain(source: Source, top: int, json: bool, **values: Any) -> None:
    """Prints how the next tokens are chosen."""
    request = request_of(source, values)
    if len(request.prompts) > 1:
        raise ValueError(f"explain takes one prompt, and there are {len(request.prompts)}.")
    result = minitx.explain(request.model, request.inputs[0], request.strategy, top=top, **request.settings)
    emit(json, result.to_json(), str(result))


def has_form(values: Values) -> bool:
    """Whether a grammar or a schema has the form of the text."""
    return is_used(values, "grammar") or is_used(values, "schema")


def show_as_it_comes(
    events: Iterator[Event], texts: list[str], *, ids: bool = False, quiet: bool = False, form: bool = False
) -> None:
    """Prints the text, or the id, of each token; the line ends even where it is interrupted.

    Args:
        events: of one row.
        texts: gets what is printed, token by token.
        ids: instead of texts.
        quiet: prints nothing.
        form: the text is to be complete; notes where it is not.
    """
    reason = None
    try:
        for event in events:
            texts.append(f"{event.token} " if ids else event.text)
            reason = event.finish_reason
            show("" if quiet else texts[-1], end="")
    finally:
        if any(texts) and not quiet:
            show("")
    if reason is not None and not any(texts) and not quiet:
        note(EMPTY[reason])
    elif reason == "length" and form:
        note(CUT)


def rows(request: Request, size: int) -> Iterator[tuple[Row, Any]]:
    """Yields the rows of all prompts in their order, each with the tree of its prompt's search.

    Args:
        request: what to generate.
        size: prompts at a time.
    """
    options = request.settings | {"num_samples": request.num_samples, "batch_size": size, "continuous": True}
    for result in generate_batches(request.model, request.inputs, request.strategy, **options):
        for number, row in enumerate(result):
            yield row, None if result.beams is None else result.beams[number // request.num_samples]


def as_text(request: Request, row: Row, prompt: int, sample: int, samples: int) -> str:
    """The text, after the number and the beginning of its prompt where there are several texts."""
    text = joined(row.tokens.tolist()) if row.text is None else row.text
    if len(request.prompts) * samples > 1:
        number = f"[{prompt + 1}, sample {sample + 1}]" if samples > 1 else f"[{prompt + 1}]"
        begin = shorten_line(joined(request.prompts[prompt]), WIDTH - len(number) - 1)
        return "\n" * bool(prompt or sample) + f"{number} {begin}".rstrip() + f"\n{text}"
    if not text and len(row.tokens):
        note(EMPTY[row.finish_reason])
    return text


def joined(prompt: str | list[int]) -> str:
    """A text as it is, ids separated by spaces."""
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
