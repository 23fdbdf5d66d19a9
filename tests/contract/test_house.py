"""Bounds on how much there is to read. They may be lowered, never raised."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import measure_house as house  # noqa: E402 - found by the line above

PACKAGE = ROOT / "minitx"
# What users call, and may take more than eight parameters.
PUBLIC_DOORS = {
    "checkpoint/load.py:load",
    "decoding/score.py:score",
    "inspect/analysis/patching/path.py:path_patching",
    "inspect/compare/verify.py:verify",
    "inspect/explain.py:explain",
    "inspect/taps/ablate.py:ablate",
    "models/decoder.py:forward",
    "models/encoder.py:forward",
    "models/encoder_decoder.py:forward",
    "pipelines/embedding/embed.py:embed",
    "pipelines/pipeline.py:pipeline",
    "tokenizer/tokenizer.py:__call__",
    "training/lora/adapt.py:add_lora",
    "training/session.py:train",
}


def test_docstrings_use_the_words_of_the_field() -> None:
    """Home-made words per 1,000 words of docstrings."""
    words, text = house.docstrings(PACKAGE)
    counts = {name: len(re.findall(p, text, re.IGNORECASE)) for name, p in house.WORDS.items()}
    assert 1000 * sum(counts.values()) / words <= 2.0, counts


def test_every_public_function_and_class_has_a_docstring() -> None:
    bare, opening = [], []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(house.tree_of(path)):
            if isinstance(node, ast.ClassDef | house.FUNCTION) and not node.name.startswith("_"):
                doc = ast.get_docstring(node)
                where = f"{path.relative_to(PACKAGE)}:{node.name}"
                bare += [] if doc else [where]
                opening += [where] if (doc or "").startswith("Raises") else []
    assert not bare
    assert not opening, "a docstring begins with what the function does"


def test_functions_are_short_and_take_few_parameters() -> None:
    long = [house.where(PACKAGE, f) for f in house.functions(PACKAGE) if house.code_lines(*f) > 60]
    wide = {house.where(PACKAGE, f) for f in house.functions(PACKAGE) if len(house.parameters(f[1])) > 8}
    assert not long
    assert wide <= PUBLIC_DOORS


def test_configs_are_small() -> None:
    sizes = {name: len(fields) for name, fields in house.config_classes(PACKAGE / "config").items()}
    assert max(sizes.values()) <= 14, sizes


def test_a_sampling_parameter_is_named_in_two_places() -> None:
    places = house.places_of(PACKAGE, "min_p", "MinP")
    assert len(places) == 2, places


def test_there_is_no_import_cycle() -> None:
    """Between modules and between rooms; imports for types and inside functions count too."""
    modules = house.import_graph(PACKAGE)
    assert not house.cycles(modules)
    assert not house.cycles(house.by_folder(modules))


def test_a_folder_can_be_taken_in() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        limit = 24 if folder.name in ("layers", "decoders") else 14
        assert len(files) <= limit, folder


ROOMS = {
    "decoding": 1_490,
    "decoding/__init__.py": 150,  # a line for each public name
    "decoding/answers": 590,
    "decoding/catalogue": 70,
    "decoding/continuous": 500,
    "decoding/grammar": 2_010,
    "decoding/guidance": 640,
    "decoding/parallel": 520,
    "decoding/prefix": 220,
    "decoding/presets": 50,
    "decoding/processors": 1_250,
    "decoding/rows": 90,
    "decoding/samplers": 340,
    "decoding/search": 1_050,
    "decoding/speculative": 880,
    "decoding/text": 570,
    "decoding/trees": 1_150,
    "decoding/watermark": 510,
    "cli": 960,
    "cli/bench.py": 90,
    "cli/inside": 200,
    "cli/strategies": 190,
    "cli/tasks": 245,
    "architectures/decoders/qwen3.py": 25,
}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_stay_small(room: str) -> None:
    """A room that has a bound of its own does not count in the one around it."""
    place = PACKAGE / room
    files = [place] if place.is_file() else place.rglob("*.py")
    inner = [PACKAGE / other for other in ROOMS if other.startswith(f"{room}/")]
    counted = [path for path in files if not any(path.is_relative_to(other) for other in inner)]
    assert sum(map(house.code_lines, counted)) <= ROOMS[room]


def test_a_forward_can_be_read_in_one_sitting() -> None:
    """BERT with a mask: files and lines of the functions that run, without and with construction."""
    for called, limits in zip(house.executed(ROOT), ((10, 250), (13, 420)), strict=True):
        files, lines = map(int, house.counted(called).split(" / "))
        assert files <= limits[0]
        assert lines <= limits[1]


def test_function_docstrings_begin_in_one_mood():
    """Third person, as PyTorch's do ("Returns", not "Return"); the help of commands is imperative."""
    first: dict[str, str] = {}
    for path in sorted((ROOT / "minitx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
                first.setdefault(text.split()[0].rstrip(".,:;"), f"{path.name}:{node.lineno}")
    third = {word: where for word, where in first.items() if word.endswith("s")}
    verbs = {word: where for word, where in first.items() if len(word) > 1}
    imperative = {where: word for word, where in verbs.items() if {f"{word}s", f"{word}es"} & third.keys()}
    assert not imperative
