"""The `minitx` command: every command and option, every way to fail, and what is on disk afterwards."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import minitx
from minitx.checkpoint.save import save
from minitx.cli import app as cli
from minitx.cli import options, render
from minitx.demo.families import CHATS, QUESTION, STRATEGIES
from minitx.demo.families import WORDS as WORDS_TO_PRONOUNCE
from minitx.demo.tour import one_thread
from minitx.extras import missing_extra
from minitx.inspect.compare import verify as compare
from minitx.pictures import similarity
from minitx.pictures.grids import Matrix
from minitx.pictures.text import columns_of
from minitx.pipelines import example
from minitx.pipelines.embedding.vectors import write_vectors
from minitx.shipped import NAMES, SHIPPED
from minitx.values import byte_size
from tests.hub_server import HubServer, files_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "b", "c", "cat", "dog", "sat", "the", "on", "mat", "rates", "rose"]
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
Run = Callable[..., tuple[int, str, str]]


def make(folder: Path, **more: Any) -> Path:
    """A small BERT with a tokenizer, as the Hub would hold it."""
    save(minitx.from_config({**CONFIG, **more}, seed=0), folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "README.md").write_text("# A model\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "80")

    def call(*argv: object) -> tuple[int, str, str]:
        code = cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        lines = [line for line in out.splitlines() if "/" not in line]  # paths are as long as they are
        assert "--json" in argv or max(map(len, lines), default=0) <= 80
        return code, out, err

    return call


def fails(run: Run, *argv: object) -> str:
    """The one line that a failure prints."""
    code, out, err = run(*argv)
    assert code == 2
    assert out == ""
    assert err.startswith("minitx: error: ")
    assert err.count("\n") == 1
    return err


# --- the command itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *cli.app.list_commands()])
def test_help_fits_and_teaches(run: Run, command: str) -> None:
    code, out, _ = run(*filter(None, [command]), "--help")
    assert code == 0
    assert "usage: minitx" in out
    assert "examples:" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["generate", "explain", "chat"])
def test_help_of_many_options_has_the_usual_ones(run: Run, command: str) -> None:
    short, full = run(command, "--help")[1], run(command, "--help-all")[1]
    usual = ("--temperature X", "--greedy", "--max-new-tokens", "--optimize", "--compile")
    for option in (*usual, "--help-all", "-h, --help"):
        assert option in short
        assert option in full
    assert "--eta-cutoff" not in short
    assert "as --epsilon-cutoff, but" in full  # an option, and not the name in Python
    assert short.count("\n") <= 56 < full.count("\n")
    assert max(map(len, full.splitlines())) <= 80
    assert "there is no option --help-all" in run("embed", "m", "--help-all")[2]


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"minitx {minitx.__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("inspect",),
        ("inspect", "m", "extra"),
        ("embed", "m", "text", "--wrong"),
        ("embed", "m", "--pooling", "median"),
        ("embed", "m", "--batch-size", "0"),
        ("convert", "a", "b", "--max-shard-size", "big"),
        ("convert", "a", "b", "--max-shard-size", "0MB"),
        ("convert", "a", "b", "--dtype", "int8"),
    ],
)
def test_wrong_usage(run: Run, argv: tuple[str, ...]) -> None:
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert "usage: minitx" in err
    assert "error: " in err


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("1.5gb", 1_500_000_000), ("12", 12), ("7 KB", 7000), ("9B", 9)],
)
def test_sizes(text: str, size: int) -> None:
    assert byte_size(text) == size


def test_errors_are_one_line(run: Run, folder: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for command in (["inspect"], ["verify"], ["demo"], ["embed"], ["convert"]):
        more = {"embed": ["text"], "convert": [tmp_path / "new"]}.get(command[0], [])
        assert "missing" in fails(run, *command, missing, *more)
    assert "no config.json" in fails(run, "inspect", tmp_path)
    assert "must be one of 'sequence" in fails(run, "inspect", folder, "--head", "nonsense")
    assert "error: --head 'a must be b' must be one of" in fails(
        run, "inspect", folder, "--head", "a must be b"
    )
    assert not (tmp_path / "new").exists()


def test_errors_wrap_at_the_width_of_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["inspect", "no/such/folder/with/a/long/name", "--head", "x"]
    line = run(*argv)[2]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for columns in (80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        wrapped = run(*argv)[2]
        assert max(map(len, wrapped.splitlines())) <= columns
        assert " ".join(wrapped.split()) == line.strip()
    assert wrapped.count("\n") > 1


def test_interrupted_before_it_begins() -> None:
    """Ctrl-C while the command itself is imported."""
    code = """if True:
        import runpy, sys
        class Stop:
            def find_spec(self, name, *_):
                if name == "minitx.cli.app":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Stop())
        runpy.run_module("minitx", run_name="__main__")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_unforeseen_errors(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise KeyError("odd")

    monkeypatch.setattr("minitx.checkpoint.hub.fetch", fail)
    assert fails(run, "inspect", folder) == "minitx: error: KeyError: 'odd' (--traceback shows where)\n"
    assert cli.main(["inspect", str(folder), "--traceback"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    monkeypatch.setenv("MINITX_TRACEBACK", "1")
    assert cli.main(["inspect", str(folder)]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupted(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("minitx.checkpoint.hub.fetch", stop)
    assert run("inspect", folder) == (130, "", "minitx: interrupted\n")


def test_warnings_are_one_line(run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertForTokenClassification"]})
    )
    code, out, err = run("inspect", tmp_path)
    assert code == 0
    assert re.fullmatch(r"minitx: warning: config.json names the task [^\n]*; loaded without a head\.\n", err)
    assert "warning" not in out


def test_keys_of_a_config_are_ignored_on_request(run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "novelty": 1, "news": 2}))
    code, out, err = run("inspect", tmp_path, "--ignore-key", "news")
    assert (code, out) == (2, "")
    assert "has 'novelty', unknown to minitx" in err
    assert "--ignore-key novelty loads without" in " ".join(err.split())
    ignored = ("--ignore-key", "novelty", "--ignore-key", "news")
    code, out, err = run("inspect", tmp_path, *ignored)
    assert (code, err) == (0, "")
    assert run("convert", tmp_path, tmp_path / "two", *ignored)[0] == 0
    assert json.loads((tmp_path / "two" / "config.json").read_text())["novelty"] == 1
    assert run("inspect", tmp_path, "--ignore-key", "nothing")[0] == 2


def process(*argv: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minitx", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_help_without_docstrings() -> None:
    """`python -OO` drops the docstrings that declare the options."""
    for argv in (["--help"], ["generate", "--help"]):
        plain, optimized = (
            subprocess.run([sys.executable, *flags, "-m", "minitx", *argv], capture_output=True, check=False)
            for flags in ([], ["-OO"])
        )
        assert (optimized.returncode, optimized.stdout) == (0, plain.stdout)


def test_as_a_process(folder: Path) -> None:
    done = process("embed", folder, "--json", input="the cat\nthe dog\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["texts"] == ["the cat", "the dog"]
    done = process("nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "\nminitx: error: there is no command nonsense; minitx --help lists the commands\n"
    )


def test_reader_that_leaves() -> None:
    command = [sys.executable, "-m", "minitx", "--help"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait() == 141


ALL = ">&- 2>&- <&-"
CLOSED = {">&-": ["stdout"], "2>&-": ["stderr"], "<&-": ["stdin"], ALL: ["stdin", "stdout", "stderr"]}


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams(folder: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ["--version", "nonsense", *([f'embed "{folder}" a b'] if closed == ALL else [])]
    for command in commands:
        line = f'"{sys.executable}" -m minitx {command} {closed}'
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, input="a\n", check=False)
        assert done.returncode == (2 if command == "nonsense" else 0)
        assert "Traceback" not in done.stderr
        assert "AttributeError" not in done.stderr
    for argv, code in (
        ([folder, "a", "b"], 0),
        ([f"{folder}.missing", "a"], 2),
        ([folder], 2 if "<" in closed else 0),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
        for name in CLOSED[closed]:
            monkeypatch.setattr(sys, name, None)  # as Python starts without that stream
        assert cli.main(["embed", *map(str, argv)]) == code
        for name in CLOSED[closed]:
            getattr(sys, name).close()


def test_encodings_that_lack_characters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(encoding: str, *argv: object) -> tuple[int, str, str]:
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = cli.main([str(arg) for arg in argv])
        texts = []
        for stream in streams.values():
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
        return code, *texts

    for encoding in ("ascii", "latin-1"):
        code, out, err = printed(encoding, "embed", folder, "caf\u00e9 \u65e5", "b")
        assert (code, err) == (0, "")
        assert "\\u65e5" in out
        code, out, err = printed(encoding, "embed", folder, "caf\u00e9 \u65e5 \U0001f600", "--json")
        assert out.isascii()
        assert json.loads(out)["texts"] == ["caf\u00e9 \u65e5 \U0001f600"]
        code, out, err = printed(encoding, "inspect", "\u65e5/missing")
        assert code == 2
        assert err.count("\n") == 1
    assert "\u65e5" in printed("utf-8", "embed", folder, "\u65e5", "--json")[1]


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_clean_up(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    if before == signal.SIG_DFL:  # so that a failure of this test does not end the tests
        monkeypatch.setattr(signal, "SIG_DFL", signal.default_int_handler)
        signal.signal(number, signal.default_int_handler)
    try:
        assert run("convert", folder, tmp_path / "target") == (code, "", f"minitx: {word}\n")
    finally:
        signal.signal(number, before)
    assert not list(tmp_path.iterdir())


def ended_by(number: int, script: str, *argv: object) -> tuple[int | None, str]:
    """Exit code and stderr of a process that gets a signal when its script prints a line."""
    lines = (
        f"import os, sys, minitx.cli.app, minitx.__main__\n{script}\nraise SystemExit(minitx.__main__.main())"
    )
    command = [sys.executable, "-c", lines, *map(str, argv)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "now\n"
        child.send_signal(number)
        return child.wait(60), child.communicate()[1]


SIGNALS = [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_signals_during_an_import_that_catches_everything(number: int, code: int, word: str) -> None:
    script = """if True:
        class Catching:
            def find_spec(self, name, *_):
                if name == "minitx.checkpoint.load":
                    print("now", flush=True)
                    try:
                        import time
                        time.sleep(60)
                    except BaseException:
                        pass
        sys.meta_path.insert(0, Catching())
    """
    code_and_text = ended_by(number, script, "inspect", "missing")
    assert code_and_text == (code, f"minitx: {word}\n")


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_signals_during_a_native_call(number: int, code: int, word: str) -> None:
    script = """if True:
        import hashlib, minitx.checkpoint.hub as hub
        def busy(*_, **__):
            print("now", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
        hub.fetch = busy
    """
    assert ended_by(number, script, "inspect", "m") == (code, f"minitx: {word}\n")


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_signal_that_is_swallowed(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    def swallow(*_: object, **__: object) -> Path:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise ValueError("went on")

    monkeypatch.setattr("minitx.checkpoint.hub.fetch", swallow)
    before = signal.getsignal(number)
    if before == signal.SIG_DFL:
        monkeypatch.setattr(signal, "SIG_DFL", signal.default_int_handler)
        signal.signal(number, signal.default_int_handler)
    try:
        assert run("inspect", "m") == (code, "", f"minitx: {word}\n")
    finally:
        signal.signal(number, before)


def test_signals_at_any_time(folder: Path) -> None:
    """At ten times of a whole run, early and late; none is lost."""
    for number in range(10):
        command = [sys.executable, "-m", "minitx", "inspect", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            time.sleep(0.06 * number + 0.02)
            child.send_signal(signal.SIGTERM)
            out = child.communicate()[0]
            # before Python reaches our code, the system ends the process; one that is over has its output
            assert child.returncode in (143, -signal.SIGTERM) or (child.returncode == 0 and out)


def test_interruption_that_an_import_disguises(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy failed") from None
        return 0

    monkeypatch.setattr("minitx.checkpoint.hub.fetch", stop)
    assert run("inspect", folder) == (130, "", "minitx: interrupted\n")


def test_interrupted_while_options_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.App, "get_command", stop)
    assert run("inspect", "m") == (130, "", "minitx: interrupted\n")


def test_errors_name_options(run: Run, folder: Path) -> None:
    error = fails(run, "inspect", folder, "--head", "masked-lm")
    assert "none" in error


def test_help_imports_nothing_heavy() -> None:
    for argv in (["--help"], ["inspect", "--help"]):
        code = (
            f"import sys; from minitx.cli.app import main; main({argv}); "
            "heavy = {'torch', 'transformers', 'huggingface_hub', 'matplotlib', 'tqdm'} & set(sys.modules); "
            "commands = {'minitx.cli.decoding', 'minitx.cli.texts'} & set(sys.modules); "
            "sys.exit(repr(heavy | commands) if heavy | commands else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_without_a_command_it_prints_its_help(run: Run) -> None:
    assert run() == run("--help")


def test_commands_that_there_are_not(run: Run) -> None:
    assert "there is no command generat; did you mean generate?" in run("generat")[2]


HUB = "--revision --token --offline --model-type --json --traceback -h --help"
DECODING = """
    --file --ids --chat --system --src-lang --tgt-lang --decoder-prompt --decoder-ids --max-new-tokens
    --min-new-tokens --greedy --checkpoint --seed --temperature --top-k --top-p --min-p --typical-p
    --epsilon-cutoff --eta-cutoff --top-h --order --repetition-penalty --presence-penalty --frequency-penalty
    --no-repeat-ngram-size --encoder-repetition-penalty --encoder-no-repeat-ngram-size --logit-bias
    --sequence-bias --bad-words-ids --allowed-token-ids --suppress-tokens --begin-suppress-tokens
    --forced-bos-token-id --forced-eos-token-id --exponential-decay-length-penalty --min-length
    --remove-invalid-values --renormalize-logits --stop --eos --ignore-eos --stop-tokens --include-stop
    --dtype --device
"""
# The options that commands have had from the beginning on.
OPTIONS = {
    "demo": "--picture",
    "inspect": "--head",
    "verify": "--head --device",
    "embed": """
        --file --output --pooling --normalize --no-normalize --max-length --batch-size --dtype --device
    """,
    "convert": "--max-shard-size --head --dtype",
    "explain": f"{DECODING} --top",
    "generate": f"""
        {DECODING} --num-samples --logprobs --top-logprobs --batch-size --prefill-chunk --show-tree --beams
        --num-beams --length-penalty --length-norm --early-stopping --coverage-penalty --patience
        --beam-groups --num-beam-groups --diversity-penalty --force-words --force-words-ids --push-progress
        --force-text --beam-sample --stochastic-beam --arithmetic --alternatives
    """,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_is_lost(name: str) -> None:
    ctx = click.Context(cli.app)
    command = cli.app.get_command(ctx, name)
    assert command is not None
    params = command.get_params(click.Context(command, **options.CONTEXT))
    spellings = {each for param in params for each in [*param.opts, *param.secondary_opts]}
    assert spellings >= {*OPTIONS[name].split(), *HUB.split()}


def test_colours_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    report = "EQUAL: all 3 calls\nDIFFERENT, first in x"
    assert render.colored_verdicts(report) == report
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    green, red = render.colored_verdicts(report).splitlines()
    assert green == "\033[1;32mEQUAL\033[0m: all 3 calls"
    assert red == "\033[1;31mDIFFERENT\033[0m, first in x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert render.colored_verdicts(report) == report


def test_extras_of_a_clone_and_of_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEP 610: direct_url.json is there only where a folder or an address was installed."""

    class Installed:
        def __init__(self, text: str | None) -> None:
            self.text = text

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.text

    clone = '{"url": "file:///home/me/minitx", "dir_info": {"editable": true}}'
    for text, command in (
        (clone, "pip install -e '.[verify]'"),
        (None, "pip install 'minitx[verify]'"),
        ('{"url": "https://example.org/minitx.whl"}', "pip install 'minitx[verify]'"),
    ):
        monkeypatch.setattr("minitx.extras.distribution", lambda _, text=text: Installed(text))
        assert missing_extra("verify") == command


# --- inspect ---------------------------------------------------------------------------------------


def test_inspect(run: Run, folder: Path) -> None:
    code, out, err = run("inspect", folder)
    assert (code, err) == (0, "")
    assert out.startswith("bert: ")
    assert "0-1: 2 x" in out
    code, out, _ = run("inspect", folder, "--json", "--offline", "--head", "none")
    summary = json.loads(out)
    assert summary["parameters"] == sum(p.numel() for p in minitx.load(folder).parameters())
    assert summary["entries"][0]["path"] == "embedder"


def test_inspect_model_type(run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert 'config.json has no "model_type"; ' in fails(run, "inspect", tmp_path)
    assert run("inspect", tmp_path, "--model-type", "bert")[0] == 0


# --- trace and estimate ----------------------------------------------------------------------------


def test_trace(run: Run, folder: Path) -> None:
    code, out, err = run("trace", folder, "the cat sat")
    assert (code, err) == (0, "")
    assert "encoder.layers.1  norm(x + attention(x))" in out
    assert "check" not in out
    code, out, _ = run("trace", folder, "the cat sat", "--check", "--dtype", "float64", "--at", "encoder")
    assert code == 0
    assert "OK: " in out
    assert "weights" in out
    assert "weights" not in run("trace", folder, "the cat sat", "--at", "encoder", "--depth", 2)[1]
    code, out, _ = run("trace", folder, "the cat sat", "--check", "--json")
    trace = json.loads(out)
    assert trace["ok"] is True
    assert trace["steps"][0]["note"] == "'[CLS]' 'the' 'cat' 'sat' '[SEP]'"
    assert "similar: encoder.layers.1" in fails(run, "trace", folder, "the cat", "--at", "encoder.layer.1")
    assert "--target" in fails(run, "trace", folder, "the cat", "--target", "a")


def test_trace_finds_a_difference(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minitx.inspect.trace import hand

    monkeypatch.setattr(hand, "mixed", lambda weights, value: 1.01 * (weights @ value).double())
    code, out, _ = run("trace", folder, "the cat sat", "--check")
    assert code == 1
    assert "DIFFERENT: " in out


def test_estimate_reads_the_config_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    code, out, err = run("estimate", tmp_path, "--length", 10)
    assert (code, err) == (0, "")
    number = minitx.load(folder).num_parameters()
    assert f"{number:,}" in out
    code, out, _ = run("estimate", tmp_path, "--length", 10, "--dtype", "bfloat16", "--json")
    assert json.loads(out)["parameter_bytes"] == 2 * number
    assert "--length 17 must be such that at most 16" in fails(run, "estimate", tmp_path, "--length", 17)


# --- verify ----------------------------------------------------------------------------------------


def test_verify(run: Run, folder: Path) -> None:
    code, out, err = run("verify", folder, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "EQUAL: all" in out
    assert "real text" in out
    code, out, _ = run("verify", folder, "--json", "--head", "none")
    assert (code, json.loads(out)["ok"]) == (0, True)


def test_verify_finds_a_difference(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = compare.load_reference

    def altered(*args: Any) -> torch.nn.Module:
        reference = original(*args)
        with torch.no_grad():
            reference.get_parameter("encoder.layer.1.output.dense.bias")[3] += 0.01
        return reference

    monkeypatch.setattr(compare, "load_reference", altered)
    code, out, _ = run("verify", folder)
    assert code == 1
    assert "DIFFERENT, first in encoder.layers.1.output.dense:" in out
    code, out, _ = run("verify", folder, "--json")
    assert (code, json.loads(out)["culprit"]) == (1, ["encoder.layers.1.output.dense"])


def test_verify_of_nan(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path)
    model = minitx.load(folder)
    with torch.no_grad():
        model.get_parameter("encoder.layers.1.output.dense.bias")[3] = float("nan")
    save(model, folder)
    code, out, _ = run("verify", folder)
    assert code == 1
    assert "NOT FINITE: the outputs hold NaN or infinity, first in encoder.layers.1.output.dense." in (
        out.replace("\n", " ")
    )
    code, out, _ = run("verify", folder, "--json")
    result = json.loads(out)
    assert (code, result["ok"], result["first_difference"]) == (1, False, None)
    assert result["first_not_finite"] == "encoder.layers.1.output.dense"


def test_verify_without_transformers(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert missing_extra("verify") in fails(run, "verify", folder)


# --- embed -----------------------------------------------------------------------------------------


def test_embed_shows_a_table(run: Run, folder: Path) -> None:
    code, out, err = run("embed", folder, "the cat sat", "the dog sat", "rates rose")
    assert (code, err) == (0, "")
    assert "3 vectors of 12 numbers (mean pooling, length 1)" in out
    assert "  1  the cat sat" in out
    code, out, _ = run("embed", folder, "the cat sat")
    assert code == 0
    assert "1 vector of 12" in out
    assert "begins " in out


def test_embed_json_and_options(run: Run, folder: Path) -> None:
    def vectors(*options: object) -> torch.Tensor:
        code, out, err = run("embed", folder, "--json", *options, "the cat sat on the mat", "a b")
        assert (code, err) == (0, "")
        return torch.tensor(json.loads(out)["embeddings"])

    plain = vectors()
    assert plain.shape == (2, 12)
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(2))
    assert not torch.allclose(vectors("--no-normalize").norm(dim=1), torch.ones(2))
    for argv in (("--pooling", "first"), ("--pooling", "pooler"), ("--max-length", 4)):
        assert not torch.allclose(vectors(*argv), plain)
    torch.testing.assert_close(vectors("--batch-size", 1), plain)
    torch.testing.assert_close(vectors("--dtype", "float64"), plain)
    torch.testing.assert_close(vectors("--dtype", "bfloat16"), plain, rtol=0.1, atol=0.05)
    torch.testing.assert_close(vectors("--device", "cpu", "--revision", "main", "--token", "x"), plain)


def test_embed_writes_every_format(run: Run, folder: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("the cat\n\nthe dog\nrates rose\n", encoding="utf-8")
    found = []
    for kind in ("npy", "safetensors", "json"):
        path = tmp_path / f"out.{kind}"
        code, out, _ = run("embed", folder, "--file", lines, "--output", path)
        assert code == 0
        assert "4 vectors of 12 numbers in" in out
        if kind == "npy":
            found.append(torch.from_numpy(np.load(path)))
        elif kind == "safetensors":
            found.append(load_file(path)["embeddings"])
        else:
            found.append(torch.tensor(json.loads(path.read_text())["embeddings"]))
    assert all(torch.equal(each, found[0]) for each in found)
    code, out, _ = run("embed", folder, "--file", lines, "--output", tmp_path / "again.npy", "--json")
    assert json.loads(out)["shape"] == [4, 12]
    assert "embeddings" not in json.loads(out)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"lines.txt", "out.npy", "out.safetensors", "out.json", "again.npy"}


def test_line_i_is_text_i(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "lines.txt"
    content = "\ufeffthe cat\u2028sat\r\n\n  \na\x85b\x0cc\r\n\nrates rose".encode()
    texts = ["the cat\u2028sat", "", "  ", "a\x85b\x0cc", "", "rates rose"]
    for ending, more in ((b"", []), (b"\n", []), (b"\n\n", [""])):
        lines.write_bytes(content + ending)
        _, out, _ = run("embed", folder, "--file", lines, "--json")
        assert json.loads(out)["texts"] == texts + more
        with lines.open() as opened:
            monkeypatch.setattr("sys.stdin", opened)
            _, out, _ = run("embed", folder, "--json")
        assert json.loads(out)["texts"] == texts + more


def test_vectors_that_are_not_finite(run: Run, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    model = minitx.load(folder)
    with torch.no_grad():
        model.embedder.word_emb.weight[WORDS.index("rates")] = float("nan")
    save(model, folder)
    output = tmp_path / "out.json"
    for more in ([], ["--json"], ["--output", output]):
        assert "error: text 1 (from 0) has no finite vector" in fails(
            run, "embed", folder, "a", "rates", "b", *more
        )
    assert not output.exists()
    assert "has no finite vector" in fails(run, "embed", folder, "rates")
    with torch.no_grad():
        model.embedder.get_parameter("pos_emb.weight")[:] = float("nan")
    save(model, folder)
    for more in ([], ["--json"]):
        assert "has no finite vector" in fails(run, "demo", folder, "--picture", tmp_path / "p.png", *more)


def test_output_is_checked_first(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.checkpoint.load.load", None)  # nothing is loaded for it
    (tmp_path / "x.npy").mkdir()
    assert "must be the name of a file; x.npy is a folder" in fails(
        run, "embed", folder, "a", "--output", tmp_path / "x.npy"
    )
    monkeypatch.setattr("os.access", lambda *_: False)
    error = fails(run, "embed", folder, "a", "--output", tmp_path / "y.npy")
    assert "y.npy: nothing can be written into" in error


def test_embed_without_a_padding_token(run: Run, tmp_path: Path) -> None:
    """Texts are then embedded one by one."""
    make(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    both, one = (
        json.loads(run("embed", tmp_path, *texts, "--json")[1]) for texts in (["a", "cat sat"], ["a"])
    )
    assert both["embeddings"][0] == pytest.approx(one["embeddings"][0], abs=1e-6)


def test_max_length_without_room(run: Run, folder: Path) -> None:
    for length in (1, 2):
        error = fails(run, "embed", folder, "a", "--max-length", length)
        assert f"--max-length {length} must be at least 3; the tokenizer adds 2 special tokens" in error
    assert run("embed", folder, "a", "--max-length", 3)[0] == 0


def test_embed_writes_all_or_nothing(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("os.replace", full)
    assert "No space left" in fails(run, "embed", folder, "a", "--output", path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.npy"]


def test_embed_mistakes(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"\xff\xfe")
    assert "give one of them" in fails(run, "embed", folder, "a", "--file", lines)
    assert "not UTF-8" in fails(run, "embed", folder, "--file", lines)
    lines.write_text("\n \n")
    assert "holds no text" in fails(run, "embed", folder, "--file", lines)
    assert "No such file" in fails(run, "embed", folder, "--file", tmp_path / "none.txt")
    assert "--output FILE or --json" in fails(run, "embed", folder, *["a"] * 11)
    assert "the name of a .npy or" in fails(run, "embed", folder, "a", "--output", tmp_path / "x.txt")
    assert "is a file, not a folder" in fails(run, "embed", folder, "a", "--output", lines / "x.npy")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert "no text: give texts" in fails(run, "embed", folder)


def test_device_that_is_not_there(run: Run, folder: Path) -> None:
    for command in (["embed", folder, "a"], ["verify", folder]):
        for device in ("nonsense", "cuda:99"):
            error = fails(run, *command, "--device", device)
            assert f"--device '{device}' must be a device that this machine has; " in error


def test_embed_takes_the_checkpoints_settings(run: Run, tmp_path: Path) -> None:
    make(tmp_path)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert "1_Pooling" in fails(run, "embed", tmp_path, "a", "--json")  # its config.json is missing
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    _, out, _ = run("embed", tmp_path, "a", "--json")
    assert json.loads(out)["normalize"] is False
    _, out, _ = run("embed", tmp_path, "a", "--json", "--normalize")
    assert json.loads(out)["normalize"] is True


def test_progress_is_shown_at_a_terminal_only(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("embed", folder, "a", "b")[2] == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "embedding" in run("embed", folder, "a", "b")[2]
    assert run("embed", folder, "a", "b", "--json")[2] == ""


def test_npy_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, folder: Path) -> None:
    for shape in ((1, 2), (12, 0), (3, 384)):
        vectors = torch.rand(shape, dtype=torch.float64)
        write_vectors(tmp_path / "x.npy", vectors, {})
        assert np.array_equal(np.load(tmp_path / "x.npy"), vectors.numpy())
        header = (tmp_path / "x.npy").stat().st_size - 8 * vectors.numel()
        assert header % 64 == 0
    monkeypatch.setitem(sys.modules, "numpy", None)
    error = fails(run, "embed", folder, "a", "--output", tmp_path / "y.npy")
    assert missing_extra("numpy") in error
    assert run("embed", folder, "a", "--output", tmp_path / "y.json")[0] == 0


def test_table() -> None:
    matrix = torch.tensor([[1.0, 0.456, -0.001], [0.456, 1.0, -0.5], [-0.001, -0.5, 1.0]])
    lines = Matrix(["one", "two " * 40, "three\nlines"], matrix.tolist()).text().splitlines()
    assert lines[1].endswith("     ·  0.46  0.00")
    assert lines[2].endswith("  0.46     · -0.50")
    assert "…" in lines[2]
    assert all(len(line) <= 80 for line in lines)
    assert similarity.nearest(matrix) == [1, 0, 0]
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 0.1]] * 5)
    lines = similarity.vectors_table(["text " * 9] * 10, vectors).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith("·")


# --- convert ---------------------------------------------------------------------------------------


def test_convert_from_bin(run: Run, folder: Path, tmp_path: Path) -> None:
    source, target = make(tmp_path / "source"), tmp_path / "made" / "target"
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    (source / "training_args.bin").write_bytes(b"a pickle")
    (source / ".git").mkdir()
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (source / "modules.json").write_text(json.dumps(modules))
    code, out, err = run("convert", source, target)
    assert (code, err) == (0, "")
    assert "training_args.bin" in out.partition("not copied")[2]
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert names == {
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "modules.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    stored = load_file(target / "model.safetensors")
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    assert run("embed", target, "the cat", "a", "--json")[0] == 0
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert target.stat().st_mode == plain.stat().st_mode


def sentence_model(folder: Path, *places: str) -> Path:
    """With modules in those folders."""
    make(folder)
    listed = [{"idx": i, "name": str(i), "path": place, "type": "x.Any"} for i, place in enumerate(places)]
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize("place", ["", ".", "./", "./."])
def test_convert_of_a_module_in_the_folder_itself(run: Run, tmp_path: Path, place: str) -> None:
    source, target = sentence_model(tmp_path / "source", place), tmp_path / "target"
    assert run("convert", source, target, "--dtype", "bfloat16")[0] == 0
    assert minitx.load(target).embedder.word_emb.weight.dtype == torch.bfloat16
    assert load_file(target / "model.safetensors").keys() == load_file(source / "model.safetensors").keys()
    assert {path.name for path in target.iterdir()} == {path.name for path in source.iterdir()}


def test_convert_leaves_pickles_of_modules(run: Run, tmp_path: Path) -> None:
    source, target = sentence_model(tmp_path / "source", "", "2_Dense"), tmp_path / "target"
    (source / "2_Dense").mkdir()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        (source / "2_Dense" / name).write_bytes(b"{}")
    result = json.loads(run("convert", source, target, "--json")[1])
    assert result["not_copied"] == ["2_Dense/pytorch_model.bin"]
    assert sorted(path.name for path in (target / "2_Dense").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("there", [False, True])
def test_convert_into_the_source(run: Run, tmp_path: Path, there: bool) -> None:
    source = sentence_model(tmp_path / "source", "./", "sub")
    target = source / "sub" / "inside"
    (target if there else target.parent).mkdir(parents=True)
    (source / "sub" / "config.json").write_text("{}")
    if there:
        (target / "notes.txt").write_text("mine")
    result = json.loads(run("convert", source, target, "--json")[1])
    expected = ["README.md", "modules.json", "sub/config.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(result["copied"]) == expected
    assert not list(source.rglob("*.tmp"))


def test_convert_replaces_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "vocab.txt").write_text("mine")
    (target / "config.json").symlink_to("nowhere")
    error = fails(run, "convert", folder, target)
    assert "already has config.json, vocab.txt, which would be replaced" in error
    assert (target / "vocab.txt").read_text() == "mine"
    assert {path.name for path in target.iterdir()} == {"vocab.txt", "config.json"}


def test_convert_that_fails_while_it_moves(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = sentence_model(tmp_path / "source", "", "1_Pooling"), tmp_path / "target"
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    original = os.replace

    def fail_at_weights(path: Path, to: Path) -> None:
        if to == target / "model.safetensors":
            raise OSError("disk full")
        original(path, to)

    monkeypatch.setattr("os.replace", fail_at_weights)
    assert "disk full" in fails(run, "convert", source, target)
    assert not (target / "model.safetensors").exists()
    monkeypatch.undo()
    assert minitx.load(target).num_parameters() == minitx.load(source).num_parameters()
    names = {path.relative_to(source) for path in source.rglob("*")} | {Path("notes.txt")}
    assert {path.relative_to(target) for path in target.rglob("*")} == names
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}


def test_convert_dtype_shards_and_json(run: Run, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    code, out, err = run(
        "convert", folder, target, "--dtype", "bfloat16", "--max-shard-size", "2KB", "--json"
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert len(result["weights"]) > 1
    assert result["copied"] == ["README.md", "tokenizer_config.json", "vocab.txt"]
    assert (target / "model.safetensors.index.json").is_file()
    assert minitx.load(target).embedder.word_emb.weight.dtype == torch.bfloat16
    assert result["bytes"] == 2 * sum(p.numel() for p in minitx.load(target).parameters())


def test_convert_head(run: Run, tmp_path: Path) -> None:
    source = make(tmp_path / "source", architectures=["BertForTokenClassification"])
    assert run("convert", source, tmp_path / "target", "--head", "none")[0] == 0
    assert minitx.load(tmp_path / "target").task is None


def test_convert_into_a_folder_that_exists(run: Run, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    assert run("convert", folder, target)[0] == 0
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "model.safetensors").is_file()
    assert "already holds weights" in fails(run, "convert", folder, target)
    assert "is the source itself" in fails(run, "convert", folder, folder)
    assert "is a file" in fails(run, "convert", folder, target / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("there", [False, True])
def test_convert_all_or_nothing(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    target = tmp_path / "target"
    if there:
        target.mkdir()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    assert "disk full" in fails(run, "convert", folder, target)
    assert [path.name for path in tmp_path.iterdir()] == (["target"] if there else [])
    assert not there or not list(target.iterdir())


def test_from_the_hub(folder: Path, tmp_path: Path) -> None:
    """A Hub id brings the tokenizer along, and the client's bars stay away from a pipe."""
    settings = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    target = tmp_path / "target"
    code = (
        "import sys; from minitx.cli.app import main; "
        "first = main(['convert', 'someone/tiny', sys.argv[1], '--json', '--revision', 'main']); "
        "sys.exit(first or main(['embed', 'someone/tiny', 'the cat', '--json', '--offline']))"
    )
    with HubServer() as server:
        server.push("someone/tiny", files_of(folder))
        online = {**os.environ, **settings, "HF_ENDPOINT": server.url}
        online.pop("HF_HUB_DISABLE_PROGRESS_BARS")
        command = [sys.executable, "-c", code, str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=online)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"config.json", "model.safetensors", "vocab.txt"} <= {path.name for path in target.iterdir()}


# --- demo ------------------------------------------------------------------------------------------


def test_demo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three families and the picture, where only minitx and matplotlib are installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(example, "PACKAGE", "gt_no_such_package")
    code, out, err = run("demo")
    assert (code, err) == (0, "")
    names = re.findall(r"^(minitx/tiny-[a-z0-9]+), an? [a-z-]+ of", out, re.MULTILINE)
    assert names == [f"minitx/tiny-{name}" for name in ("encoder", "decoder", "qa", "instruct", "seq2seq")]
    for words in ("The king of [MASK]", *STRATEGIES, QUESTION, *CHATS, *WORDS_TO_PRONOUNCE):
        assert words in " ".join(out.split())
    assert "pip install --no-deps gt-no-such-package" in " ".join(out.split())
    assert "Picture: demo-output/picture.png" in out
    assert (tmp_path / "demo-output" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(columns_of, out.splitlines())) <= 80


def test_demo_does_not_wait_with_its_results(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bool] = []

    def compare_later(*_: object) -> None:
        assert flushed

    monkeypatch.setattr("minitx.inspect.compare.embeddings.compare_embeddings", compare_later)
    monkeypatch.setattr("sys.stdout.flush", lambda: flushed.append(True))
    assert run("demo", folder, "--picture", tmp_path / "p.svg")[0] == 0


def test_demo_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("demo", "--json", "--picture", tmp_path / "p.svg")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [len(tokens) for tokens in result["masks"].values()] == [5, 5]
    assert list(result["continuations"]) == list(STRATEGIES)
    assert result["answer"]["answer"] in result["answer"]["context"]
    assert list(result["replies"]) == list(CHATS)
    assert [row["word"] for row in result["pronunciations"]] == list(WORDS_TO_PRONOUNCE)
    assert result["nearest"][:4] == [1, 0, 3, 2]  # paraphrases find each other
    assert result["parity"]["embeddings"] <= 1e-6
    assert result["parity"]["hidden_states"] <= 3e-4  # inside feed-forwards; the order of sums differs
    assert "<svg" in Path(result["picture"]).read_text()


def test_demo_leaves_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with suppress(KeyError), one_thread():
        raise KeyError
    assert threads == [1, 3]


def test_demo_checks_the_picture_first(run: Run, folder: Path) -> None:
    for more in ([], [folder]):
        assert "--picture" in fails(run, "demo", *more, "--picture", "p.gif")


def test_demo_of_another_model(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("demo", folder, "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")
    for words in ("million parameters", "Nearest neighbours", "Against transformers", "Picture:"):
        assert words in out
    assert "tiny-" not in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_demo_of_another_model_without_extras(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, out, err = run("demo", folder, "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")
    assert missing_extra("verify") in out
    assert missing_extra("pictures") in out
    assert not (tmp_path / "p.png").exists()


def test_models(run: Run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in run("models", "--json")[1].splitlines()]
    assert [record["name"] for record in records] == list(NAMES)
    for model, record in zip(SHIPPED, records, strict=True):
        assert model.command in out
        assert record["parameters"] == sum(p.numel() for p in minitx.load(model.name).parameters())
        assert record["bytes"] == sum(map(len, files_of(model.folder).values()))
        assert record["license"] in out
