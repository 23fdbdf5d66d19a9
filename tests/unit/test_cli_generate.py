"""`minitx generate` and `minitx explain`: every option, every way to fail, and what is shown meanwhile."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import minitx
from minitx import (
    Alternatives,
    ArithmeticSample,
    Beam,
    BeamSample,
    ContrastiveSearch,
    DiverseBeam,
    Greedy,
    LexicalBeam,
    Sample,
    StochasticBeam,
    Stop,
)
from minitx.checkpoint.save import save
from minitx.cli import app as cli
from minitx.cli import decoding, decoding_options
from minitx.cli import generate as command
from minitx.decoding import KGW, ClassifierFree, ThinkingBudget, request
from minitx.decoding.output import Event
from minitx.habits import OPTIONS as NOT_HERE
from minitx.validation import ArgumentValueError

SPECIAL = ["<pad>", "<s>", "</s>"]
WORDS = [*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"]
CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": len(WORDS),
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 80,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.5,  # so that tokens differ in probability
}
TEMPLATE = "{% for m in messages %}{{ m.role[0] }} {{ m.content }} {% endfor %}z"
Run = Callable[..., tuple[int, str, str]]


def make(folder: Path, *, tokenizer: bool = True, **settings: Any) -> Path:
    """A small GPT-2, whose words are letters; `settings` are its generation_config.json."""
    save(minitx.from_config(CONFIG, seed=0), folder)
    if tokenizer:
        vocab = {word: index for index, word in enumerate(WORDS)}
        backend = Backend(models.WordLevel(vocab, unk_token="<pad>"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        backend.add_special_tokens(SPECIAL)
        backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    if settings:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> minitx.Tokenizer:
    return minitx.load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return minitx.load(folder)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def fails(run: Run, *argv: object) -> str:
    """The one line that a failure prints; usage errors have the usage before it."""
    code, out, err = run(*argv)
    assert code == 2
    assert out == ""
    assert err.count("\n") == (2 if err.startswith("usage: ") else 1)
    return err


def objects(run: Run, *argv: object) -> list[dict[str, Any]]:
    code, out, err = run("generate", *argv, "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


# --- every parameter is an option ------------------------------------------------------------------

# name: (the text of the option, the value of the field); flags have no text.
VALUES: dict[str, tuple[str | None, Any]] = {
    "temperature": ("0.5", 0.5),
    "top_k": ("7", 7),
    "top_p": ("0.9", 0.9),
    "min_p": ("0.1", 0.1),
    "typical_p": ("0.8", 0.8),
    "epsilon_cutoff": ("3e-4", 3e-4),
    "eta_cutoff": ("2e-3", 2e-3),
    "top_h": ("0.4", 0.4),
    "top_n_sigma": ("1.5", 1.5),
    "top_a": ("0.2", 0.2),
    "tfs": ("0.9", 0.9),
    "p_less": ("1", 1.0),
    "averaged_xtc": ("0.5,0.1", (0.5, 0.1)),
    "xtc": ("0.5,0.1", (0.5, 0.1)),
    "mirostat": ("5,0.1", (5.0, 0.1)),
    "mirostat_v1": ("5,0.1,50", (5.0, 0.1, 50)),
    "adaptive_p": ("0.5,0.9", (0.5, 0.9)),
    "dynamic_temperature": ("0.5,1.5", (0.5, 1.5)),
    "entropy_temperature": ("1.0,0.5", (1.0, 0.5)),
    "smoothing": ("0.3", (0.3,)),
    "prefix_bias": ("([3, 4], 0.5)", ((3, 4), 0.5)),
    "thinking_budget": (
        "ThinkingBudget(tokens=2, begin=[3], end=[4])",
        ThinkingBudget(tokens=2, begin=[3], end=[4]),
    ),
    "watermark": ("KGW(bias=3)", KGW(bias=3)),
    "skew": ("-0.5", -0.5),
    "entmax_alpha": ("1.5", 1.5),
    "order": ("llama.cpp", "llama.cpp"),
    "repetition_penalty": ("1.2", 1.2),
    "presence_penalty": ("-0.5", -0.5),
    "frequency_penalty": ("0.3", 0.3),
    "relative_frequency_penalty": ("5", 5.0),
    "penalty_window": ("64", 64),
    "dry": ("0.8,1.75,2", (0.8, 1.75, 2)),
    "dry_breakers": ("4 5", (4, 5)),
    "no_repeat_ngram_size": ("2", 2),
    "encoder_repetition_penalty": ("1.3", 1.3),
    "encoder_no_repeat_ngram_size": ("3", 3),
    "logit_bias": ("5=-5,6=2.5", {5: -5.0, 6: 2.5}),
    "sequence_bias": ("4 5=-5,6=-inf", {(4, 5): -5.0, (6,): -float("inf")}),
    "bad_words_ids": ("4 5,6", ((4, 5), (6,))),
    "allowed_token_ids": ("4,5 6", (4, 5, 6)),
    "suppress_tokens": ("4 5", (4, 5)),
    "begin_suppress_tokens": ("4", (4,)),
    "forced_bos_token_id": ("7", 7),
    "forced_eos_token_id": ("2,3", (2, 3)),
    "exponential_decay_length_penalty": ("5,1.1", (5, 1.1)),
    "min_length": ("9", 9),
    "remove_invalid_values": (None, True),
    "renormalize_logits": (None, True),
}
STOPS: dict[str, tuple[list[str], Any]] = {
    "eos": (["--eos", "4,5"], (4, 5)),
    "tokens": (["--stop-tokens", "4 5"], (4, 5)),
    "strings": (["--stop", "a b", "--stop", "c"], ("a b", "c")),
    "include_stop": (["--include-stop"], True),
    "regex": (["--stop-regex", r"\d+"], r"\d+"),
    "repetition": (["--stop-repetition", "8,4"], (8, 4)),
    "seconds": (["--seconds", "2.5"], 2.5),
}


def parse(name: str, *argv: str) -> dict[str, Any]:
    """The values of a command's options."""
    found = cli.app.get_command(click.Context(cli.app), name)
    return found.make_context(name, ["model", "text", *argv]).params


def parsed(*argv: str) -> tuple[Greedy | Sample, dict[str, Any]]:
    return decoding.settings_of(parse("generate", *argv), Path("model"))[:2]


@pytest.mark.parametrize("name", VALUES)
def test_each_option_is_its_field(name: str) -> None:
    text, value = VALUES[name]
    argv = [f"--{name.replace('_', '-')}", *([] if text is None else [text])]
    assert parsed(*argv)[0] == Sample(**{name: value})
    if name in {field.name for field in fields(Greedy)}:
        assert parsed("--greedy", *argv)[0] == Greedy(**{name: value})


@pytest.mark.parametrize("name", STOPS)
def test_each_option_of_stop_is_its_field(name: str) -> None:
    argv, value = STOPS[name]
    assert parsed(*argv)[1]["stop"] == Stop(**{name: value})


def test_no_parameter_is_without_option_or_reason(run: Run) -> None:
    """A new field of a strategy, of `Stop`, or argument of `generate` must get one of the two."""
    strategies = {field.name for kind in (Greedy, Sample) for field in fields(kind)}
    assert {name for name in strategies if decoding_options.shown(name) not in NOT_HERE} == VALUES.keys()
    assert STOPS.keys() == decoding_options.STOP.keys()
    assert {field.name for field in fields(Stop)} - STOPS.keys() == {"function"}
    assert "--stop-function" in NOT_HERE
    ours = {"model", "prompts", "prompt", "strategy", "stop", "options"}
    declared = getattr(request, "GenerationOptions", None)
    options = getattr(declared, "__annotations__", {})
    arguments = {*inspect.signature(minitx.generate).parameters, *options} - ours
    explained = {*inspect.signature(minitx.explain).parameters} - ours
    kinds = (Beam, BeamSample, DiverseBeam, LexicalBeam, StochasticBeam, ArithmeticSample, Alternatives)
    searches = {field.name for kind in kinds for field in fields(kind)}
    for name, wanted in (
        ("generate", arguments | strategies | searches),
        ("explain", explained | strategies),
    ):
        values = parse(name)
        for each in wanted:
            reason = NOT_HERE.get(decoding_options.shown(each))
            assert (each in values) != bool(reason), each
            if reason:
                assert reason in fails(run, name, "model", "text", decoding_options.shown(each), "1")


def test_lists_can_be_repeated_and_end_tokens_ignored() -> None:
    strategy, _ = parsed("--suppress-tokens", "1", "--suppress-tokens", "2,3", "--logit-bias", "1=1")
    assert strategy == Sample(suppress_tokens=[1, 2, 3], logit_bias={1: 1.0})
    assert parsed("--ignore-eos")[1]["stop"] == Stop(eos=())
    assert parsed()[1] == {"max_new_tokens": 64, "min_new_tokens": 0, "stop": Stop(), "seed": None}


# --- generate --------------------------------------------------------------------------------------


def test_help_fits_and_teaches(run: Run) -> None:
    for name in ("generate", "explain"):
        code, out, _ = run(name, "--help-all")
        assert code == 0
        assert "examples:" in out
        assert "in Python there can be one for each" in " ".join(out.split())
        assert '"1996 3103" is one phrase, "1996,3103" are two' in " ".join(out.split())
        assert "show the stop text, token or match that ended it\n" in out  # never an end token
        assert max(map(len, out.splitlines())) <= 80


def test_one_prompt_is_what_the_library_generates(
    run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer
) -> None:
    for argv, strategy, more in (
        (["--greedy"], Greedy(), {}),
        (["--top-k", 5, "--seed", 3], Sample(top_k=5), {"seed": 3}),
        (["--seed", 4, "--prefill-chunk", 1, "--dtype", "float32"], Sample(), {"seed": 4}),
    ):
        expected = minitx.generate(
            model, ["a b"], strategy, max_new_tokens=9, min_new_tokens=9, tokenizer=tokenizer, **more
        )
        assert expected.texts is not None
        found = run("generate", folder, "a b", "--max-new-tokens", 9, "--min-new-tokens", 9, *argv)
        assert found == (0, expected.texts[0] + "\n", "")
    assert run("generate", folder, "a", "--max-new-tokens", 0) == (0, "", "")


def test_a_text_that_shows_nothing(run: Run, folder: Path) -> None:
    """The output stays empty, and a line beside it says why."""
    argv = ["generate", folder, "a", "--max-new-tokens", 3, "--greedy"]
    ended = "minitx: the model ended its text at once.\n"
    for more, said in (
        (["--logit-bias", "2=100"], ended),
        (
            ["--logit-bias", "5=100", "--stop", " c"],
            "minitx: --stop, --stop-tokens or --stop-regex ended the text ",
        ),
        (["--logit-bias", "1=100"], "minitx: the text has special tokens alone, which are not shown; "),
    ):
        code, out, err = run(*argv, *more)
        assert (code, out) == (0, "")
        assert err.startswith(said)
    assert run(*argv[:-1], "--beams", 1, "--logit-bias", "2=100") == (0, "", ended)
    assert objects(run, *argv[1:], "--logit-bias", "2=100")[0]["text"] == ""


def test_without_a_seed_texts_differ(run: Run, folder: Path) -> None:
    first, second = (run("generate", folder, "a", "--ignore-eos")[1] for _ in range(2))
    assert first != second


def test_text_is_shown_as_it_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen:
        encoding = "utf-8"
        shown: list[str]

        def __init__(self) -> None:
            self.shown, self.waiting = [], ""

        def write(self, text: str) -> None:
            self.waiting += text

        def flush(self) -> None:
            self.shown.append(self.waiting)
            self.waiting = ""

    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    assert (
        cli.main(["generate", str(folder), "a", "--max-new-tokens", "8", "--ignore-eos", "--seed", "1"]) == 0
    )
    assert len([text for text in screen.shown if text.strip()]) >= 6


def test_interrupted_while_streaming(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Event]:
        yield Event(0, 5, " begun")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "stream", interrupted)
    assert run("generate", folder, "a") == (130, " begun\n", "minitx: interrupted\n")


def test_reader_that_leaves_while_streaming(folder: Path) -> None:
    argv = [sys.executable, "-m", "minitx", "generate", str(folder), "a", "--ignore-eos"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 141


def test_several_texts_are_shown_whole(
    run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = minitx.generate(model, ["a b", "c"], Greedy(), max_new_tokens=4, tokenizer=tokenizer).texts
    assert expected is not None
    shown = f"[1] a b\n{expected[0]}\n\n[2] c\n{expected[1]}\n"
    lines = tmp_path / "lines.txt"
    lines.write_text("a b\nc\n")
    greedy = ["--greedy", "--max-new-tokens", 4]
    assert run("generate", folder, "a b", "c", *greedy) == (0, shown, "")
    assert run("generate", folder, *greedy, "a b", "c") == (0, shown, "")
    assert run("generate", folder, *greedy, "--file", lines) == (0, shown, "")
    with lines.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        assert run("generate", folder, *greedy) == (0, shown, "")
    code, out, _ = run("generate", folder, "a b", "--num-samples", 2)
    assert code == 0
    assert "[1, sample 1] a b\n" in out
    assert "\n\n[1, sample 2] a b\n" in out


def test_json_is_one_object_per_row(run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer) -> None:
    expected = minitx.generate(
        model, ["a b", "c"], Sample(top_k=2), max_new_tokens=5, num_samples=2, tokenizer=tokenizer, seed=3,
        logprobs="processed", top_logprobs=3,
    )  # fmt: skip
    argv = ["a b", "c", "--top-k", 2, "--max-new-tokens", 5, "--num-samples", 2, "--seed", 3]
    found = objects(run, folder, *argv, "--logprobs", "processed", "--top-logprobs", 3)
    assert [(each["prompt"], each["sample"]) for each in found] == [
        ("a b", 0),
        ("a b", 1),
        ("c", 0),
        ("c", 1),
    ]
    for each, row in zip(found, expected, strict=True):
        assert each["tokens"] == row.tokens.tolist()
        assert (each["text"], each["finish_reason"]) == (row.text, row.finish_reason)
        assert row.logprobs is not None
        assert row.top_logprobs is not None
        torch.testing.assert_close(torch.tensor(each["logprobs"]), row.logprobs)
        assert [[one["token"] for one in place] for place in each["top_logprobs"]] == (
            row.top_logprobs.ids.tolist()
        )
        assert all(place[2]["logprob"] is None for place in each["top_logprobs"])  # top-k left two
        assert all(one["text"] == WORDS[one["token"]] for place in each["top_logprobs"] for one in place)
    plain = objects(run, folder, *argv)
    assert [each["tokens"] for each in plain] == [each["tokens"] for each in found]
    assert "logprobs" not in plain[0]
    one_by_one = objects(run, folder, *argv, "--batch-size", 1)
    assert one_by_one == plain


def test_the_next_prompt_takes_the_place_of_one_that_has_ended(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []

    def _spy(*arguments: Any, **options: Any) -> Any:
        rows.append(options["rows"])
        return minitx.generate_many(*arguments, **options)

    monkeypatch.setattr("minitx.pipelines.generation.batches.generate_many", _spy)
    argv = [folder, "a b", "c", "d e f", "--greedy", "--max-new-tokens", 4, "--batch-size", 2]
    found = objects(run, *argv)
    assert rows == [2]
    assert found == objects(run, *argv, "--seconds", 100)  # of each batch
    assert rows == [2]


def test_ends(run: Run, folder: Path) -> None:
    argv = [folder, "a", "--greedy", "--max-new-tokens", 12]
    (free,) = objects(run, *argv, "--ignore-eos")
    tokens = free["tokens"]
    assert (len(tokens), free["finish_reason"]) == (12, "length")
    third = next(token for token in tokens if tokens.index(token) >= 1)
    upto = tokens[: tokens.index(third) + 1]
    for option, reason in (("--eos", "eos"), ("--stop-tokens", "stop")):
        (ended,) = objects(run, *argv, option, third, *(["--ignore-eos"] if reason == "stop" else []))
        assert (ended["tokens"], ended["finish_reason"]) == (upto, reason)
    (ended,) = objects(run, *argv, "--ignore-eos", "--stop", WORDS[third])
    assert (ended["tokens"], ended["finish_reason"]) == (upto, "stop")
    assert WORDS[third] not in ended["text"]
    (ended,) = objects(run, *argv, "--ignore-eos", "--stop", WORDS[third], "--include-stop")
    assert ended["text"].endswith(WORDS[third])


def test_ids_need_no_tokenizer(run: Run, folder: Path, tmp_path: Path) -> None:
    argv = ["--greedy", "--max-new-tokens", 5, "--ids", "3 4"]
    bare = make(tmp_path / "bare", tokenizer=False)
    (with_text,) = objects(run, folder, *argv)
    (from_text,) = objects(run, folder, *argv[:-2], "a b")
    assert with_text["prompt"] == [3, 4]
    assert with_text["tokens"] == from_text["tokens"]
    shown = " ".join(map(str, with_text["tokens"]))
    code, out, err = run("generate", bare, *argv)
    assert (code, out.split()) == (0, shown.split())
    assert err.startswith(f"minitx: warning: {bare} has no vocabulary file")
    assert err.endswith(" Texts are shown as ids.\n")
    code, out, _ = run("generate", bare, *argv, "--ids", "3,4")
    assert out == f"[1] 3 4\n{shown}\n\n[2] 3 4\n{shown}\n"
    assert run("explain", bare, "--ids", "3")[0] == 0
    assert fails(run, "generate", bare, "a").endswith(' Prompts can also be token ids: --ids "1 2 3".\n')
    damaged = make(tmp_path / "damaged")
    (damaged / "tokenizer.json").write_text("{")
    assert "--ids" not in fails(run, "generate", damaged, "a")
    code, out, err = run("generate", bare, *argv, "--stop", "a")
    assert (code, out) == (2, "")
    assert "--stop is text, which needs a tokenizer" in err


def test_chat(run: Run, folder: Path) -> None:
    argv = ["--greedy", "--max-new-tokens", 4]
    (chat,) = objects(run, folder, "a b", "--chat", *argv)
    assert chat["tokens"] == objects(run, folder, "u a b z", *argv)[0]["tokens"]
    (chat,) = objects(run, folder, "a b", "--chat", "--system", "c", *argv)
    assert chat["tokens"] == objects(run, folder, "s c u a b z", *argv)[0]["tokens"]
    assert "--system goes with --chat" in fails(run, "generate", folder, "a", "--system", "c")


def test_chat_with_a_model_that_has_no_template_or_several(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    for templates, message in (
        (None, "base models have none. Write the prompt as text, or pass a template in Jinja."),
        (
            [{"name": name, "template": TEMPLATE} for name in "xy"],
            "must be one of this tokenizer's: 'x', 'y'; or a template in Jinja.",
        ),
    ):
        file.write_text(json.dumps({**config, "chat_template": templates}))
        assert fails(run, "generate", folder, "a", "--chat").endswith(f"{message}\n")


def test_checkpoint(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = make(
        tmp_path / "sampling", do_sample=True, top_k=2, eos_token_id=5, max_new_tokens=7, min_new_tokens=3
    )
    strategy, settings, _ = decoding.settings_of(parse("generate", "--checkpoint"), sampling)
    assert strategy == Sample(top_k=2)
    assert settings == {"max_new_tokens": 7, "min_new_tokens": 3, "stop": Stop(eos=5), "seed": None}
    values = parse("generate", "--checkpoint", "--top-k", "4", "--top-p", ".5", "--stop", "x")
    strategy, settings, _ = decoding.settings_of(values, sampling)
    assert strategy == Sample(top_k=4, top_p=0.5)
    assert settings["stop"] == Stop(eos=5, strings="x")
    assert run("explain", sampling, "a", "--checkpoint")[0] == 0  # one token, for all that the file says
    greedy = make(tmp_path / "greedy", do_sample=False)
    assert len(objects(run, greedy, "a", "--checkpoint", "--ignore-eos")[0]["tokens"]) == 64
    error = fails(run, "generate", greedy, "a", "--checkpoint", "--top-p", ".5")
    assert "--top-p has no effect with --checkpoint; leave one out" in error
    assert "exclude one another" in fails(run, "generate", greedy, "a", "--checkpoint", "--greedy")
    guided = make(tmp_path / "guided", guidance_scale=2.0, penalty_alpha=0.5, top_k=3, max_new_tokens=5)
    strategy, settings, _ = decoding.settings_of(parse("generate", "--checkpoint", "--top-k", "2"), guided)
    assert strategy == ContrastiveSearch(penalty_alpha=0.5, top_k=2)
    assert settings["guidance"] == ClassifierFree(2.0)
    result = minitx.generate(minitx.load(guided), [[5, 6]], "checkpoint", stop=Stop(eos=()))
    found = objects(run, guided, "--ids", "5 6", "--checkpoint", "--ignore-eos")
    assert found[0]["tokens"] == result.sequences[0].tolist()


def test_seed_of_equal_prompts(run: Run, folder: Path) -> None:
    """In a batch they differ; a row does not depend on what is beside it."""
    argv = [folder, "--seed", 1, "--max-new-tokens", 12, "--ignore-eos"]
    first, second = objects(run, *argv, "a", "a")
    assert first["tokens"] != second["tokens"]
    assert objects(run, *argv, "b", "a")[1]["tokens"] == first["tokens"]


def test_equal_prompts_differ_in_batches_of_any_size(run: Run, folder: Path) -> None:
    argv = [folder, "--seed", 1, "--max-new-tokens", 12, "--ignore-eos", "--num-samples", 2, "a", "b", "a"]
    found = objects(run, *argv)
    assert len({tuple(each["tokens"]) for each in found}) == 6
    for size in (1, 2):
        assert objects(run, *argv, "--batch-size", size) == found


# --- explain ---------------------------------------------------------------------------------------


def test_explain(run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer) -> None:
    expected = minitx.explain(
        model, "a b", Sample(temperature=0.5, top_k=4), max_new_tokens=2, top=3, tokenizer=tokenizer, seed=1
    )
    argv = ["explain", folder, "a b", "--temperature", ".5", "--top-k", 4, "--top", 3, "--seed", 1]
    code, out, err = run(*argv, "--max-new-tokens", 2)
    assert (code, out, err) == (0, f"{expected}\n", "")
    assert "TopK 4" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run(*argv, "--max-new-tokens", 2, "--json")
    assert json.loads(out) == json.loads(json.dumps(expected.to_json()))
    code, out, _ = run(*argv, "--json")
    assert len(json.loads(out)["positions"]) == 1


# --- mistakes --------------------------------------------------------------------------------------

MISTAKES = {
    "--greedy --top-p 0.9": "--top-p has no effect with --greedy",
    "--greedy --order vllm": "--order has no effect with --greedy",
    "--greedy --seed 1": "--seed has no effect with --greedy",
    "--greedy --num-samples 2": "--num-samples has no effect with --greedy",
    "--top-p 1.2": "--top-p 1.2 must be in (0, 1]",
    "--top-k -1": "--top-k -1 must be at least 0",
    "--temperature 0": "--temperature 0.0 must be above 0; greedy",
    "--temperature nan": "--temperature nan must be in",
    "--temperature hot": "error: --temperature: 'hot' is not a number\n",
    "--temperature 0.5,0.7": "'0.5,0.7' is not a number; give one, for all prompts",
    "--top-k 1.5": "error: --top-k: '1.5' is not an integer\n",
    "--top-k 1,2": "'1,2' is not an integer; give one, for all prompts",
    "--top-h 2": "--top-h 2.0 must be in (0, 1]; ",
    "--suppress-tokens a": "'a' is not an integer",
    "--suppress-tokens 999": "--suppress-tokens 999 must be from 0 to 28",
    "--stop-tokens 999": "--stop-tokens 999 must be from 0 to 28",
    "--suppress-tokens=": "error: --suppress-tokens: the value is empty",
    "--begin-suppress-tokens=,": "error: --begin-suppress-tokens: the value is empty",
    "--allowed-token-ids=": "error: --allowed-token-ids: the value is empty",
    "--forced-eos-token-id=": "error: --forced-eos-token-id: the value is empty",
    "--file=": "error: --file: the value is empty",
    "--revision --json": "error: --revision needs a value; if it is --json: --revision=--json\n",
    "--stop --json": "error: --stop needs a value; if it is --json: --stop=--json\n",
    "--stop --top-p=0.9": "error: --stop needs a value; if it is --top-p=0.9: --stop=--top-p=0.9\n",
    "--stop=": "error: --stop ('',) must be ",
    "--logit-bias 5": "'5' is not of the form ID=BIAS",
    "--logit-bias 5:6=1": "is not an integer",
    "--logit-bias 5=200": "--logit-bias[5] 200.0 must be in",
    "--logit-bias=-5=1": "a key of --logit-bias -5 must be at least 0",
    "--logit-bias -5=1": "a key of --logit-bias -5 must be at least 0",
    "--sequence-bias 4=nan": "--sequence-bias[(4,)] nan must be in",
    "--sequence-bias=5=1,4=nan": "--sequence-bias[(4,)] nan must be in",
    "--exponential-decay-length-penalty 5": "is not of the form START,FACTOR",
    "--exponential-decay-length-penalty 5,0": "--exponential-decay-length-penalty[1] 0.0 must be in",
    "--exponential-decay-length-penalty=-5,1": "--exponential-decay-length-penalty[0] -5 must be",
    "--allowed-token-ids 5 --suppress-tokens 5": "SuppressTokens left no token",
    "--logprobs raw": "--logprobs is shown with --json only",
    "--top-logprobs 2 --json": "--top-logprobs needs --logprobs",
    "--eos 2 --ignore-eos": "--eos and --ignore-eos exclude one another",
    "--checkpoint": "has no generation_config.json",
    "--ids 5": "--ids is the prompt; a text cannot be combined with it",
    "--ids 999 --batch-size 0": "'0' is not an integer of at least 1",
    "--topp 0.9": "minitx generate: error: there is no option --topp; did you mean --top-p?",
    "--temprature=1": "did you mean --temperature?",
    "--top 4": "minitx explain has it",
    "--do-sample": "sampling is the default",
    "--processors x": "Python functions",
    "--model-type zz": "error: --model-type 'zz' must be 'gpt2', as in ",
    "--temp 1": "did you mean --temperature?",
    "--max-tokens 1": "did you mean --max-new-tokens?",
    "--head none": "--head; it is always the one for the next token",
    "--n 2": "it is called --num-samples",
    "--zzz": "--help lists",
    "--hi": "there is no option --hi",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_mistakes(run: Run, folder: Path, argv: str) -> None:
    assert MISTAKES[argv] in fails(run, "generate", folder, "a", *argv.split())


NUMBERS = {
    "--max-new-tokens -1": r"max.new.tokens.-1 must be at least 0",
    "--max-new-tokens 99": r"max.new.tokens.99 .*80 positions|max.new.tokens.99 need 99 positions",
    "--min-new-tokens 65": r"min.new.tokens.65 .*max.new.tokens.64",
    "--top-logprobs 99 --logprobs raw --json": r"top.logprobs.99 must be from 0 to 29",
}


@pytest.mark.parametrize("argv", NUMBERS)
def test_numbers_that_do_not_fit(run: Run, folder: Path, argv: str) -> None:
    assert re.search(NUMBERS[argv], fails(run, "generate", folder, "a", *argv.split()))


def test_mistakes_with_prompts(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = fails(run, "generate", folder, "a", "")
    assert re.search(r"rompts?.1\W", error)  # counted from 0
    assert "begin with token 1" in error
    for bad in ("999", "-1"):
        error = fails(run, "generate", folder, "--batch-size", "1", "--ids", "5", f"--ids={bad}")
        assert f"error: --ids[1] {bad} must be token ids from 0 to 28" in error
    assert "'0' is not an integer of at least 1" in fails(run, "explain", folder, "a", "--max-new-tokens", 0)
    assert "explain takes one prompt, and there are 2" in fails(run, "explain", folder, "a", "b")
    error = fails(run, "explain", folder, "a", "--num-samples", "2")
    assert "there is no option --num-samples; minitx generate has it" in error
    for name in ("generate", "explain", "embed"):  # the text may come from stdin
        assert run(name)[2].endswith("error: MODEL is missing\n")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert "no text: give texts" in fails(run, "generate", folder)


def test_errors_name_the_option_that_was_used() -> None:
    error = ArgumentValueError("force_words_ids[0]", [5], "shorter")
    for used, option in (("--force-text", "--force-text"), ("--force-words", "--force-words")):
        with command.generate.make_context("generate", ["model", used, "5"]):
            assert command.generate.in_options(error) == f"{option}[0] [5] must be shorter."


def test_values_may_be_options(run: Run, folder: Path) -> None:
    code, out, _ = run("generate", folder, "a", "--greedy", "--max-new-tokens", 1, "--stop=--json")
    assert (code, out.count("\n")) == (0, 1)


def test_texts_that_look_like_options(run: Run, folder: Path) -> None:
    for argv in (["--json", "--", "--a"], ["--", "--a"]):
        code, out, _ = run("generate", folder, "--max-new-tokens", 1, *argv)
        assert code == 0
        assert "--json" not in argv or json.loads(out)["prompt"] == "--a"


def test_models_that_do_not_continue_texts(run: Run, tmp_path: Path) -> None:
    config = {
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30, "hidden_size": 12,
        "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20,
        "max_position_embeddings": 16,
    }  # fmt: skip
    save(minitx.from_config(config, seed=0), tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    for name in ("generate", "explain"):
        message = fails(run, name, tmp_path, "a")
        assert "cannot predict a next token: models of its kind have no head for it" in message


def test_a_decoder_without_its_head(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    save(minitx.from_config(CONFIG | {"tie_word_embeddings": False}, head="none", seed=0), folder)
    assert "cannot predict a next token: head='causal-lm' must" in fails(run, "generate", folder, "a")


def test_model_with_nan(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    model = minitx.load(folder)
    with torch.no_grad():
        model.embedder.word_emb.weight[5] = float("nan")
    save(model, folder)
    argv = ["generate", folder, "c"]
    error = fails(run, *argv)
    assert re.search("the model's logits (contain|hold) NaN", error)
    assert "continue anyway with --remove-invalid-values, which" in error
    assert run(*argv, "--remove-invalid-values", "--max-new-tokens", 2)[0] == 0


def test_max_length_of_the_checkpoint_includes_the_prompt(run: Run, folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copy")
    (copied / "generation_config.json").write_text('{"max_length": 9}')
    code, out, err = run("generate", copied, "--ids", "5 6 7", "--checkpoint", "--ignore-eos", "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["tokens"]) == 6
    code, out, err = run("generate", copied, "--ids", "5 6 7 5 6 7 5 6 7", "--checkpoint")
    assert code == 2
    assert "max_length=9 leaves none after a prompt of 9 tokens" in " ".join(err.split())
