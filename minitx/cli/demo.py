"""`minitx demo`: the three families at work; and `minitx models`, which lists the shipped checkpoints."""

from __future__ import annotations

from typing import Any

from minitx.cli.options import HUB, Argument, command, group
from minitx.cli.render import colored, emit, show
from minitx.cli.source import Source


@command(
    Argument("model", "[MODEL]", "sentence embeddings of this model alone; none: all parts"),
    *group("the model", *HUB),
)
def demo(source: Source, picture: str, json: bool) -> None:
    """Runs the shipped checkpoints, or embeds sentences with MODEL; prints the parts as they come."""
    from minitx.demo.tour import sentences_alone, tour

    source.dtype = "float32"
    read = lambda folder: (source.model(folder, "none"), source.tokenizer(folder))  # noqa: E731
    name = source.name
    parts = sentences_alone(source.folder(), name, read, picture, colored) if name else tour(picture, colored)
    record: dict[str, Any] = {}
    for number, part in enumerate(parts):
        record |= part.record
        if not json:
            show("\n" * (number > 0) + part.text)
    emit(json, record, "")


@command()
def models(source: Source, json: bool) -> None:
    """Lists the shipped checkpoints."""
    from minitx.pictures.text import human
    from minitx.shipped import SHIPPED

    for model in SHIPPED:
        size, license, count = model.num_bytes(), model.license(), model.num_parameters()
        record = {"name": model.name, "task": model.task, "parameters": count, "bytes": size}
        record |= {"license": license, "command": model.command}
        facts = f"{model.task}, {count / 1e6:.1f} M parameters, {human(size)}, {license}"
        emit(json, record, f"{colored(model.name)}\n  {facts}\n  {model.command}", indent=None)
