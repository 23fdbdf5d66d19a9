"""`minitx generate --beams`: the options of searches, the tree, and what does not go together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx import Alternatives, ArithmeticSample, Beam, BeamSample, DiverseBeam, LexicalBeam, StochasticBeam
from minitx.cli import decoding
from tests.unit.test_cli_generate import Run, fails, folder, make, model, objects, parse, run, tokenizer

__all__ = ["folder", "model", "run", "tokenizer"]  # fixtures

VALUES: dict[str, tuple[str, Any]] = {
    "num_beams": ("3", 3),
    "length_penalty": ("-0.5", -0.5),
    "length_norm": ("gnmt", "gnmt"),
    "early_stopping": ("true", True),
    "coverage_penalty": ("0.2", 0.2),
    "patience": ("2", 2.0),
    "num_beam_groups": ("2", 2),
    "diversity_penalty": ("0.7", 0.7),
    "force_words_ids": ("4 5,6", ((4, 5), (6,))),
    "push_progress": ("false", False),
}
# What chooses a search, and the search.
WAYS: dict[str, Any] = {
    "": Beam(),
    "--beam-sample": BeamSample(),
    "--beam-groups 2": DiverseBeam(),
    "--num-beam-groups 4 --diversity-penalty 0.2": DiverseBeam(num_beam_groups=4, diversity_penalty=0.2),
    "--force-words 4,5": LexicalBeam(force_words_ids=[[4], [5]]),
    "--force-words 4 --force-words-ids 5": LexicalBeam(force_words_ids=[[4], [5]]),
    "--stochastic-beam --top-k 5": StochasticBeam(num_beams=4, top_k=5),
}


def parsed(*argv: str, folder: Path = Path("model")) -> Any:
    return decoding.settings_of(parse("generate", *argv), folder)[0]


@pytest.mark.parametrize("name", VALUES)
def test_each_option_is_its_field(name: str) -> None:
    text, value = VALUES[name]
    kind, argv = Beam, []
    if name in ("num_beam_groups", "diversity_penalty"):
        kind, argv = DiverseBeam, ["--beam-groups", "4"]
    elif name in ("force_words_ids", "push_progress"):
        kind, argv = LexicalBeam, [] if name == "force_words_ids" else ["--force-words", "7"]
    expected: dict[str, Any] = (
        {"num_beams": 4, "num_beam_groups": 4} if kind is DiverseBeam else {"num_beams": 4}
    )
    expected |= {"force_words_ids": [[7]]} if kind is LexicalBeam else {}
    given = parsed("--beams", "4", *argv, f"--{name.replace('_', '-')}={text}")
    assert given == kind(**{**expected, name: value})


@pytest.mark.parametrize("argv", WAYS)
def test_each_search_has_its_options(argv: str, run: Run, folder: Path) -> None:
    assert parsed("--beams", "4", *argv.split()) == WAYS[argv]
    more = ["--beams", 4, "--max-new-tokens", 4, "--show-tree", "--num-samples", 2]
    code, out, err = run("generate", folder, "a b", *more, *argv.split())
    assert (code, err) == (0, "")
    assert "[1, sample 2] a b" in out


def test_when_it_stops() -> None:
    assert parsed("--num-beams", "4") == parsed("--beams", "4") == Beam()
    for text, value in (("false", False), ("never", "never"), ("exact", "exact")):
        assert parsed("--beams", "2", "--early-stopping", text) == Beam(num_beams=2, early_stopping=value)


def test_several_samples() -> None:
    assert parsed("--arithmetic", "--top-k", "5") == ArithmeticSample(top_k=5)
    assert parsed("--alternatives", "--bad-words-ids", "5") == Alternatives(bad_words_ids=[[5]])
    assert parsed("--beams", "4", "--beam-groups", "2", "--early-stopping", "never") == DiverseBeam(
        early_stopping="never"
    )


def test_other_options_work_inside() -> None:
    found = parsed("--beams", "4", "--no-repeat-ngram-size", "3")
    assert found == Beam(no_repeat_ngram_size=3)
    drawn = parsed("--beams", "4", "--beam-sample", "--top-k", "5")
    assert drawn == BeamSample(top_k=5)


def test_a_checkpoint_becomes_a_search(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    stated: dict[str, Any] = {"repetition_penalty": 1.5, "max_new_tokens": 5}
    for more, beams, expected in (
        ({}, ["--beams", "3"], Beam(num_beams=3, repetition_penalty=1.5)),
        ({"do_sample": True}, ["--beams", "3"], BeamSample(num_beams=3, repetition_penalty=1.5)),
        ({"num_beams": 2}, [], Beam(num_beams=2, repetition_penalty=1.5)),
        ({"num_beams": 2}, ["--patience", "2"], Beam(num_beams=2, repetition_penalty=1.5, patience=2.0)),
        ({"num_beams": 2}, ["--beams", "5"], Beam(num_beams=5, repetition_penalty=1.5)),
    ):
        (tmp_path / "generation_config.json").write_text(json.dumps(stated | more))
        assert parsed("--checkpoint", *beams, folder=tmp_path) == expected


def test_what_is_printed(run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer) -> None:
    expected = minitx.generate(
        model, ["a b", "c"], Beam(num_beams=3), max_new_tokens=5, num_samples=2, tokenizer=tokenizer
    )
    assert expected.texts is not None
    assert expected.beams is not None
    argv = ["generate", folder, "a b", "c", "--beams", "3", "--max-new-tokens", "5", "--num-samples", "2"]
    code, out, err = run(*argv, "--show-tree")
    assert (code, err) == (0, "")
    for text in (*expected.texts, *map(str, expected.beams)):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, err = run(*argv, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == expected.texts
    assert [row["score"] for row in rows] == pytest.approx(expected.scores)
    code, out, err = run("generate", folder, "a b", "--beams", "2", "--max-new-tokens", "3")
    assert (code, err) == (0, "")  # a single text, which could not be streamed
    assert out.count("\n") == 1
    code, out, err = run("generate", folder, "a b", "--beams", "2", "--max-new-tokens", "3", "--show-tree")
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == ""
    assert "score" in out.splitlines()[2]


MISTAKES = {
    "--greedy --beams 4": "--greedy and --beams exclude one another",
    "--beams 0": "must be (at least|from) 1",
    "--beams many": "'many' is not an integer",
    "--beams 4 --num-samples 5": "--num-samples 5 must be at most --beams 4; ",
    "--beams 4 --top-k 5": "--top-k has no effect with --beams",
    "--beams 4 --seed 5": "--seed has no effect with --beams",
    "--beams 4 --early-stopping soon": "early.stopping.'?soon'? must be",
    "--beams 4 --beam-groups 2 --early-stopping exact": "early.stopping.'?exact'? must be",
    "--beams 6 --beam-groups 3 --stop a": "cannot stop at strings",
    "--beams 4 --force-words cat": "'cat' is not an integer; minitx tokenize MODEL 'cat' shows ids",
    "--bad-words-ids cat": "'cat' is not an integer; minitx tokenize MODEL 'cat' shows ids",
    "--force-text a": "--force-text is an option of searches; add --beams",
    "--beams 4 --force-text a --top-k 5": "--top-k has no effect with --force-text",
    "--beams 4 --force-text a --force-words 5 --beam-groups 2": "--beam-groups and --force-words exclude",
    "--beams 4 --force-text a --beam-groups 2": "--beam-groups and --force-text exclude one another",
    "--beams 4 --force-text=": "--force-text '': the tokenizer has no tokens for it",
    "--beams 4 --show-tree --json": "--show-tree is a drawing",
    "--show-tree": "--show-tree is an option of searches; add --beams",
    "--beam-sample": "--beam-sample is an option of searches",
    "--beam-groups 2": "--beam-groups is an option of searches",
    "--force-words 5": "--force-words is an option of searches",
    "--stochastic-beam": "--stochastic-beam is an option of searches",
    "--diversity-penalty 2": "--diversity-penalty is an option of searches",
    "--beams 4 --diversity-penalty 2": "--diversity-penalty has no effect without --beam-groups",
    "--beams 4 --push-progress false": "--push-progress has no effect without --force-words",
    "--beams 4 --force-words 5 --push-progress 5": "push.progress.'?5'? must be True or False",
    "--beams 4 --beam-groups 2 --patience 2": "--patience has no effect with --beam-groups",
    "--beams 4 --beam-groups 3": "beam.groups.3",
    "--beams 4 --beam-groups 2 --beam-sample": "--beam-sample and --beam-groups exclude one another",
    "--beams 4 --beam-groups 2 --force-words 5": "--beam-groups and --force-words exclude one another",
    "--beams 4 --beam-groups 2 --seed 1": "--seed has no effect with --beam-groups",
    "--beams 4 --stochastic-beam --num-samples 4": "num.beams=5|beams 4 must be at least 5",
    "--beams 4 --arithmetic": "--arithmetic and --beams exclude one another",
    "--beams 4 --alternatives": "--alternatives and --beams exclude one another",
    "--greedy --alternatives": "--greedy and --alternatives exclude one another",
    "--alternatives --top-p 0.9": "--top-p has no effect with --alternatives; leave one out",
    "--alternatives --seed 1": "--seed has no effect with --alternatives",
    "--length-penalty 2": "--length-penalty is an option of searches",
    "--greedy --patience 2": "--patience is an option of searches",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_mistakes(run: Run, folder: Path, argv: str) -> None:
    assert re.search(MISTAKES[argv], fails(run, "generate", folder, "a", *argv.split()))


def test_explain_has_no_search(run: Run, folder: Path) -> None:
    assert "minitx generate has it" in fails(run, "explain", folder, "a", "--beams", "4")
    assert "minitx generate has it" in fails(run, "explain", folder, "a", "--force-text", "b")


def test_explain_names_the_command_that_shows_a_search(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path, num_beams=3)
    error = fails(run, "explain", folder, "a", "--checkpoint")
    assert "A search compares whole" in error
    (folder / "generation_config.json").write_text('{"num_beam_groups": 2, "num_beams": 4}')
    error = fails(run, "generate", folder, "a", "--checkpoint")
    assert "asks for num_beam_groups=2" in error


def test_weights_of_texts_that_were_drawn(run: Run, folder: Path, model: Any) -> None:
    expected = minitx.generate(
        model, [[3, 4]], StochasticBeam(num_beams=3), max_new_tokens=4, num_samples=2, seed=1
    )
    more = ["--max-new-tokens", 4, "--num-samples", 2]
    found = objects(run, folder, "--ids", "3 4", "--beams", 3, "--stochastic-beam", "--seed", 1, *more)
    assert [each["log_weight"] for each in found] == pytest.approx(expected.log_weights)
    assert "log_weight" not in objects(run, folder, "a b", "--beams", 3, *more)[0]


def test_phrases_as_text(run: Run, folder: Path) -> None:
    argv = [folder, "a", "--beams", 4, "--max-new-tokens", 8]
    forced = objects(run, *argv, "--force-words", "10,5 6")
    assert {10, 5, 6} <= {*forced[0]["tokens"]}
    assert forced == objects(run, *argv, "--force-text", "h", "--force-text", "c d")
    assert forced == objects(run, *argv, "--force-words", "10", "--force-text", "c d")
    bare = make(folder.parent / "without", tokenizer=False)
    _, _, err = run("generate", bare, "--ids", "5", "--beams", 4, "--force-text", "a")
    assert "--force-text is text, which needs a tokenizer; other options take ids." in err


def test_phrases_are_what_is_written(monkeypatch: pytest.MonkeyPatch, tokenizer: minitx.Tokenizer) -> None:
    """Of a translation, in the other language, whose pieces may be others."""
    asked: dict[str, Any] = {}

    def encode(text: str, **options: Any) -> list[int]:
        asked.update(options)
        return [5]

    monkeypatch.setattr(tokenizer, "encode", encode)
    assert decoding.forced_phrases(tokenizer, {"force_text": ["a"]}, "seq2seq-lm") == [[5]]
    assert asked == {"add_special_tokens": False, "as_target": True}
