"""`minitx picture`: one command for every kind, and errors that name its options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minitx.inspect.pictures import KINDS
from tests.unit.test_cli import Run, fails, run  # noqa: F401 - a fixture

DECODER, SEQ2SEQ = "minitx/tiny-decoder", "minitx/tiny-seq2seq"


def test_help_lists_the_kinds(run: Run) -> None:  # noqa: F811
    code, out, _ = run("picture", "--help")
    assert code == 0
    for kind in KINDS.values():
        assert f"  {kind.name:<17}{kind.summary}\n" in out
    for kind in KINDS.values():
        for option in {*kind.options} - {"strategy"}:
            assert f"--{option.replace('_', '-')}" in out
    assert max(map(len, run("picture", "--help-all")[1].splitlines())) <= 80


def test_files(run: Run, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "new" / "a.svg"
    code, out, err = run(
        "picture", "attention", DECODER, "It was dark.", "--layer", 2, "--head", 1, "-o", path
    )
    assert (code, out, err) == (0, f"Attention: layer 2, head 1: {path}\n", "")
    assert "<svg" in path.read_text()
    path = tmp_path / "a.png"
    options = ("--temperature", 0.8, "--top-k", 20, "--seed", 3, "--output", path, "--width", 800, "--json")
    code, out, _ = run("picture", "chain", DECODER, "It was", *options)
    assert json.loads(out) == {"kind": "chain", "model": DECODER, "output": str(path)}
    assert int.from_bytes(path.read_bytes()[16:20], "big") == 800
    assert run("picture", "spectra", SEQ2SEQ, "--side", "decoder", "-o", path)[0] == 0
    assert run("picture", "mask", DECODER, "It was dark.", "It was.", "-o", path)[0] == 0
    assert run("picture", "beams", SEQ2SEQ, "cat", "--beams", 3, "--max-new-tokens", 4, "-o", path)[0] == 0
    options = ("--other", "The boat sat.", "--position", -1, "-o", path)
    assert run("picture", "patching", DECODER, "The king sat.", *options)[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["atention", DECODER, "x"], "kind='atention' must be one of 'attention'"),
        (["attention", DECODER, "x", "--layer", "9"], "--layer 9 must be from -6 to 5"),
        (["mask", DECODER, "x", "--layer", "2"], "--layer 2 must be left out for kind='mask'"),
        (["cross-attention", DECODER, "x"], "cross-attention needs an encoder-decoder"),
        (["attention", DECODER, "x", "--top-k", "2"], "must be left out for kind='attention'"),
        (["beams", DECODER, "x", "--top-k", "2"], "must be a search; such as minitx.Beam(num_beams=4)"),
        (["patching", DECODER, "x"], "--other must be passed for kind='patching'"),
        (["attention", DECODER, "x", "-o", "a.gif"], "-o 'a.gif' must be the name of"),
        (["lens", DECODER, "word " * 300], "of 1 to 256 tokens"),
    ],
)
def test_mistakes(run: Run, argv: list[str], message: str) -> None:  # noqa: F811
    assert message in fails(run, "picture", *argv)
