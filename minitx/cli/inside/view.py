"""`minitx view`: a page of a model at work on a text; and `minitx lab`: the same page with the live model."""

from __future__ import annotations

import webbrowser
from typing import Any

import click

import minitx
from minitx.cli.decoding_options import field_options, is_used
from minitx.cli.options import HUB, LANGUAGES, MODEL, Argument, command, group, option
from minitx.cli.render import emit, note
from minitx.cli.source import Source
from minitx.inspect.lab import lab as serve
from minitx.inspect.page import view as make_page
from minitx.validation import check_output

_FILE = "-o,--output PATH  .html file (default: page.html)"
_CHOOSING = [*field_options("choosing a token", minitx.Sample), *field_options("penalties", minitx.Sample)]
_OPTIONS: list[click.Parameter] = [
    *_CHOOSING,
    *group("languages"),
    *group("the model", *HUB, "head", "dtype", "device"),
]


def _strategy(values: dict[str, Any]) -> minitx.Sample:
    """Takes the options of `Sample` out of the values."""
    names = [declared.name for declared in _CHOOSING if declared.name is not None]
    return minitx.Sample(**{name: value for name in names if (value := values.pop(name)) is not None})


@command(MODEL, Argument("text", "TEXT", "one text"), option(_FILE), *_OPTIONS, renamed={"path": "output"})
def view(source: Source, text: str, head: str | None, output: str, json: bool, **values: Any) -> None:
    """Writes the page, and prints where it is."""
    path = check_output("path", output, (".html",))
    strategy, languages = _strategy(values), {name: values.pop(name) for name in LANGUAGES}
    options = {name: value for name, value in values.items() if is_used(values, name)}
    folder = source.folder()
    tokenizer = source.tokenizer(folder, **languages)
    page = make_page(source.model(folder, head), text, tokenizer=tokenizer, strategy=strategy, **options)
    page.save(path)
    emit(
        json,
        {"model": source.name, "output": str(path), "notes": page.data["notes"]},
        f"{page.title}: {path}",
    )


@command(MODEL, Argument("text", "[TEXT]", "that the page begins with"), *_OPTIONS)
def lab(source: Source, text: str | None, head: str | None, port: int, json: bool, **values: Any) -> None:
    """Serves the page until Ctrl-C."""
    strategy, languages = _strategy(values), {name: values.pop(name) for name in LANGUAGES}
    folder = source.folder()
    tokenizer = source.tokenizer(folder, **languages)
    mask = tokenizer.mask_token
    begin = f"The cat sat on the {mask}." if mask else "The cat sat on the mat and the"
    model = source.model(folder, head)
    with serve(model, text or begin, tokenizer=tokenizer, strategy=strategy, port=port) as running:
        emit(json, {"url": running.url}, f"{running.url}\nfor this machine only; Ctrl-C ends it")
        if values["open"] is not False and not json and not webbrowser.open(running.url):
            note("no browser was found; open the address above in one on this machine")
        running.wait()
