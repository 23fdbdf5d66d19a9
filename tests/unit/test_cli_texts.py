"""`minitx chat`, `minitx score` and `minitx tokenize`."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx import Greedy, Sample
from minitx.cli import chat
from minitx.decoding.output import Event
from tests.unit.test_cli_generate import WORDS, Run, fails, folder, make, model, run, tokenizer
from tests.unit.test_cli_seq2seq import t5

__all__ = ["folder", "model", "run", "t5", "tokenizer"]  # fixtures


# --- chat ------------------------------------------------------------------------------------------


@pytest.fixture
def talk(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command on lines of stdin, which is no terminal."""

    def call(lines: str, *argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        return run("chat", folder, *argv)

    return call


def answers(out: str) -> list[str]:
    return [json.loads(line)["content"] for line in out.splitlines()]


def test_the_conversation_grows(talk: Run, model: Any, tokenizer: minitx.Tokenizer) -> None:
    """Each answer continues all messages before it, until /reset."""
    argv = ["--greedy", "--max-new-tokens", 4, "--ignore-eos"]
    code, out, err = talk("a b\nc\n/reset\na b\n", *argv, "--json", "--system", "s")
    assert (code, err) == (0, "")
    first, second, third = answers(out)

    def expected(*messages: str) -> str:
        roles = ["system", *["user", "assistant"] * 2]
        ids = tokenizer.encode_chat(
            [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]
        )
        stop = minitx.Stop(eos=())
        result = minitx.generate(model, [ids], Greedy(), max_new_tokens=4, tokenizer=tokenizer, stop=stop)
        assert result.texts is not None
        return result.texts[0]

    assert first == third == expected("s", "a b")
    assert second == expected("s", "a b", first, "c")
    shown = talk("a b\nc\n", *argv, "--system", "s")
    assert shown == (0, f"{first}\n{second}\n", "")


def test_commands_of_a_conversation(talk: Run) -> None:
    lines = "/strategy\n/strategy --greedy\n/strategy top_k=3 --max-new-tokens 7\n\n/help\n/quit\na b\n"
    code, out, err = talk(lines, "--temperature", 0.5)
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == [
        f"{Sample(temperature=0.5)}, 512 tokens at most",
        f"{Greedy()}, 512 tokens at most",
        f"{Sample(top_k=3)}, 7 tokens at most",
    ]
    assert out.endswith(f"{chat.HELP}\n")  # what follows /quit is no message


def test_mistakes_do_not_end_a_conversation(talk: Run) -> None:
    lines = (
        "/bogus\n/strategy top_p 0.9\n/strategy --top-p 2\n/strategy --beams 4\n/strategy --greedy --seed 1\n"
        + "a " * 90
    )
    code, out, err = talk(lines + "\na\n", "--greedy", "--max-new-tokens", 3, "--ignore-eos", "--json")
    assert code == 0
    assert len(answers(out)) == 1
    for line, part in zip(
        err.splitlines(),
        (
            "there is no command /bogus; /help lists the commands",
            "options begin with --, as in /strategy --top-p 0.9",
            "--top-p 2.0 must be in (0, 1]",
            "there is no option --beams; minitx generate has it",
            "--seed has no effect with --greedy",
            "80",  # positions of the model
        ),
        strict=True,
    ):
        assert line.startswith("minitx: error: ")
        assert part in line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_an_answer_can_be_interrupted(
    talk: Run, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Ctrl-C ends the answer, and what there is of it stays; SIGTERM ends the command."""

    def stream(*_: object, **__: object) -> Iterator[Event]:
        yield Event(0, 5, "begun")
        os.kill(os.getpid(), number)
        yield Event(0, 5, " more", "length")

    before = signal.getsignal(number)
    if before == signal.SIG_DFL:  # so that a failure of this test does not end the tests
        monkeypatch.setattr(signal, "SIG_DFL", signal.default_int_handler)
        signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr("minitx.pipelines.generation.conversation.stream", stream)
    try:
        found, out, _ = talk("a\n", "--json")
    finally:
        signal.signal(number, before)
    assert found == code
    assert answers(out) == ([] if code else ["begun"])


def test_a_model_without_template(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    assert "This tokenizer has no chat template" in fails(run, "chat", folder)


# --- score -----------------------------------------------------------------------------------------


def test_score(run: Run, folder: Path, model: Any, tokenizer: minitx.Tokenizer) -> None:
    expected = minitx.score(model, ["a b c", "d e"], tokenizer=tokenizer)
    code, out, err = run("score", folder, "a b c", "d e", "--json", "--batch-size", 1)
    assert (code, err) == (0, "")
    for row, text in enumerate(["a b c", "d e"]):
        found = json.loads(out.splitlines()[row])
        assert (found["text"], found["tokens"]) == (text, tokenizer.encode(text))
        assert found["perplexity"] == pytest.approx(float(expected.perplexities[row]))
        assert found["logprob"] == pytest.approx(float(expected.totals[row]))
        torch.testing.assert_close(torch.tensor(found["logprobs"]), expected.logprobs[row])
    code, out, err = run("score", folder, "a b c", "--tokens")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["perplexity", "log-prob", "tokens", "text"]
    assert out.splitlines()[1].endswith("       3  a b c")
    assert out.splitlines()[2].split() == ["a", "b", "c"]
    assert out.splitlines()[3].split()[1:] == [f"{p:.3f}" for p in expected.logprobs[0].exp().tolist()[1:]]
    assert json.loads(run("score", folder, "a", "--json")[1])["perplexity"] is None  # it predicts no token


def test_score_of_an_encoder_decoder(run: Run, t5: Path) -> None:
    expected = minitx.score(
        minitx.load(t5), ["a b", "c"], sources=["x", "y"], tokenizer=minitx.load_tokenizer(t5)
    )
    argv = ["score", t5, "a b", "c", "--source", "x", "--source", "y", "--json"]
    found = [json.loads(line) for line in run(*argv)[1].splitlines()]
    assert [each["logprob"] for each in found] == pytest.approx(expected.totals.tolist())
    assert [len(each["tokens"]) == len(each["logprobs"]) for each in found] == [True, True]
    assert "source" in fails(run, "score", t5, "a b")


# --- tokenize --------------------------------------------------------------------------------------


def test_tokenize(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("tokenize", folder, "a b", "c") == (0, "a b\n3 4\n\nc\n5\n", "")
    rows = [json.loads(line) for line in run("tokenize", folder, "a b", "c", "--json")[1].splitlines()]
    assert rows == [
        {"text": "a b", "ids": [3, 4], "tokens": ["a", "b"]},
        {"text": "c", "ids": [5], "tokens": ["c"]},
    ]
    assert run("tokenize", folder, "--ids", "3 4", "--ids", "5") == (0, "a b\nc\n", "")
    code, out, _ = run("tokenize", folder, " ".join(WORDS[3:] * 3))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert sum(line.split().count("a") for line in out.splitlines()) == 3
    assert "takes the place of texts" in fails(run, "tokenize", folder, "a", "--ids", "3")
    for path in folder.iterdir():  # no weights are needed
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert run("tokenize", tmp_path, "a b") == (0, "a b\n3 4\n", "")


def test_tokenize_without_special_tokens(run: Run, t5: Path) -> None:
    with_end, without = (run("tokenize", t5, "a", *more)[1] for more in ([], ["--no-special"]))
    assert without == "a\n2\n"
    assert with_end.startswith("a")
    assert run("tokenize", t5, "--ids", "2 1", "--no-special")[1] == "a\n"
