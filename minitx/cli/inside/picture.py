"""`minitx picture`: a picture of a model at work on a text."""

from __future__ import annotations

from typing import Any

from minitx.cli.decoding_options import is_used, strategy_options
from minitx.cli.options import LANGUAGES, MODEL, SOURCE, Argument, command, group, option
from minitx.cli.render import emit
from minitx.cli.source import Source, read_texts
from minitx.inspect.pictures import KINDS
from minitx.inspect.pictures import picture as draw
from minitx.pictures.drawings import check_drawing_path
from minitx.pipelines.generation.strategies import NAMES, strategy_from_options
from minitx.validation import check_choice

_FILE = "-o,--output PATH  .png, .svg or .html file (default: picture.png)"


@command(
    *(Argument("kind", "KIND", "one of the kinds above"), MODEL),
    *(Argument("texts", "[TEXT ...]", "a text; none: lines of stdin"), option(_FILE)),
    *group("languages"),
    *(param for param in strategy_options(searches=True) if param.name in {*NAMES, *SOURCE}),
    renamed={"path": "output"},
)
def picture(
    source: Source, kind: str, texts: tuple[str, ...], output: str, json: bool, **values: Any
) -> None:
    """Draws a picture, and prints where it is."""
    takes_text = KINDS[check_choice("kind", kind, KINDS, "minitx picture --help lists them")].takes_text
    path, width = check_drawing_path(output), values.pop("width")
    lines = read_texts(texts, None) if texts or takes_text else []
    choosing = {name: values[name] for name in NAMES & values.keys() if is_used(values, name)}
    languages = {name: values.pop(name) for name in LANGUAGES if lines}
    options = {name: value for name, value in values.items() if name not in NAMES and is_used(values, name)}
    options |= {"seed": choosing["seed"]} if "seed" in choosing else {}
    options |= {"strategy": strategy_from_options(choosing)} if choosing.keys() - {"seed"} else {}
    folder = source.folder()
    tokenizer = source.tokenizer(folder, **languages) if lines else None
    text = lines[0] if len(lines) == 1 else lines or None
    drawn = draw(kind, source.model(folder, None), text, tokenizer=tokenizer, **options)
    drawn.save(path, width=width)
    emit(json, {"kind": kind, "model": source.name, "output": str(path)}, f"{drawn.title}: {path}")


_LINES = "\n".join(f"  {kind.name:<17}{kind.summary}" for kind in KINDS.values())
picture.help = str(picture.help).replace("KINDS", _LINES)
