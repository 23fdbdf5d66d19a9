"""`minitx fill` and `minitx detect`: masks filled in any order, and watermarks found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from minitx.cli.options import HUB, MODEL, Argument, command, group
from minitx.cli.render import emit, paragraph
from minitx.cli.source import Source


@command(
    *(MODEL, Argument("text", "TEXT", "a text with [MASK], or the mask of the tokenizer")),
    *group("the model"),
)
def fill(source: Source, text: str, schedule: str, seed: int | None, json: bool, **values: Any) -> None:
    """Fills the masks of a text step by step."""
    from minitx.decoding.parallel.fill import fill as filled
    from minitx.decoding.parallel.schedule import FillStrategy
    from minitx.pipelines.generation.expressions import object_from_text
    from minitx.validation import check_type

    kind = "a schedule such as Remasking() or MaskPredict(steps=4)"
    chosen = check_type("schedule", object_from_text(schedule), FillStrategy, kind)
    folder = source.folder()
    options: dict[str, Any] = {"tokenizer": source.tokenizer(folder), "seed": seed}
    model: Any = source.model(folder, "masked-lm")
    result = filled(model, text, chosen, max_new_tokens=values["masks"] or 0, **options)
    steps = [row.tolist() for row in result.steps[0]]
    emit(json, {"text": (result.texts or [""])[0], "steps": steps}, result.table())


@command(MODEL, Argument("text", "TEXT", "the text without its prompt"), *group("the model", *HUB[:-1]))
def detect(source: Source, text: str, watermark: str, json: bool, **values: Any) -> None:
    """Finds the watermark of a text; needs the tokenizer alone, no weights."""
    from minitx.decoding.watermark.base import Watermark
    from minitx.pipelines.generation.expressions import object_from_text
    from minitx.validation import check_type

    kind = "a watermark such as KGW(key=5) or SynthID(keys=[3, 5])"
    mark: Any = check_type("watermark", object_from_text(watermark), Watermark, kind)
    source.calm_hub()
    found = mark.detect(source.tokenizer().encode(text, add_special_tokens=False))
    emit(json, asdict(found) | {"watermarked": found.watermarked}, paragraph(str(found)))
