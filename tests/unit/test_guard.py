"""Nothing is copied from outside a checkpoint, no escape sequence reaches a terminal, no error is bare."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.checkpoint.convert import convert
from minitx.cli.app import main
from minitx.tokenizer.chat import ChatTemplates
from tests.unit.test_bad_files import frugal
from tests.unit.test_cli import make

GPT2 = {"model_type": "gpt2", "vocab_size": 12, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
SECRET = b"-----BEGIN PRIVATE KEY-----"
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
POOLING = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint beside a folder with a secret."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_bytes(SECRET)
    (outside / "config.json").write_bytes(SECRET)
    source = tmp_path / "source"
    make(source)
    (source / "modules.json").write_text(json.dumps(MODULES))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    return source


def holds_secret(folder: Path) -> bool:
    return any(SECRET in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["NOTES.md", "1_Pooling/notes.txt", "1_Pooling/inner/notes.txt"])
def test_convert_copies_nothing_from_outside(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / "outside" / "key")
    try:
        result = convert(folder, tmp_path / "target")
    except ValueError as error:  # `load` keeps it
        assert f"{name} leads out of" in str(error)  # noqa: PT017
        assert not (tmp_path / "target").exists()
    else:
        assert name in result.not_copied
        assert not holds_secret(tmp_path / "target")


def test_links_inside_the_folder_are_copied(folder: Path, tmp_path: Path) -> None:
    (folder / "NOTES.md").symlink_to("1_Pooling/config.json")
    assert "NOTES.md" in convert(folder, tmp_path / "target").copied


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("1_Pooling", "../outside"),
        ("1_Pooling", "/"),
        ("1_Pooling/config.json", "../../outside/key"),
        ("1_Pooling/notes.txt", "../../outside/key"),
        ("sentence_bert_config.json", "../outside/key"),
        ("config_sentence_transformers.json", "../outside/key"),
        ("generation_config.json", "../outside/key"),
    ],
)
def test_load_keeps_no_file_from_outside(folder: Path, tmp_path: Path, name: str, target: str) -> None:
    path = folder / name
    if path.is_dir():
        path.rename(tmp_path / "moved")
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    with pytest.raises(ValueError, match=r"leads out of .*; put a copy of the file in its place"):
        minitx.load(folder)
    with pytest.raises(ValueError, match="leads out of"):
        convert(folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_chat_template_from_outside(folder: Path) -> None:
    (folder / "chat_template.jinja").symlink_to("../outside/key")
    with pytest.raises(ValueError, match="leads out of"):
        minitx.load_tokenizer(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"]
)
def test_json_and_vocabularies_from_outside(folder: Path, tmp_path: Path, name: str) -> None:
    """Their content would be saved with the tokenizer, or copied."""
    (folder / "special_tokens_map.json").write_text("{}")
    inside = folder / f"{name}.copy"
    shutil.copy(folder / name, inside)
    (folder / name).unlink()
    (folder / name).symlink_to(inside)
    minitx.load_tokenizer(folder)
    inside.rename(tmp_path / "outside" / name)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "outside" / name)
    if name != "config.json":
        minitx.load(folder)
    for call in (minitx.load_tokenizer, lambda source: convert(source, tmp_path / "target")):
        with pytest.raises(ValueError, match=rf"{name} leads out of .*; put a copy of the file in its place"):
            call(folder)
    assert not (tmp_path / "target").exists()


def test_weights_may_be_elsewhere(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "outside" / "model.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "outside" / "model.safetensors")
    assert convert(folder, tmp_path / "target").weights == ["model.safetensors"]
    assert not (tmp_path / "target" / "model.safetensors").is_symlink()


def test_links_of_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    repo = tmp_path / "models--some--one"
    snapshot = repo / "snapshots" / "abc"
    (repo / "blobs").mkdir(parents=True)
    (folder / "README.md").write_text("about")
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        place = snapshot / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(repo / "blobs" / f"{number:040}")
        place.symlink_to(os.path.relpath(repo / "blobs" / f"{number:040}", place.parent))
    result = convert(snapshot, tmp_path / "target")
    assert {"README.md", "1_Pooling/config.json"} <= {*result.copied}
    assert minitx.load_tokenizer(snapshot).encode("the cat")
    assert not any(path.is_symlink() for path in (tmp_path / "target").rglob("*"))


# --- names and errors ------------------------------------------------------------------------------


def test_long_names_of_modules(folder: Path) -> None:
    for path in ("a" * 5_000, "/".join(["a"] * 3_000)):
        long = {**MODULES[1], "path": path}
        (folder / "modules.json").write_text(json.dumps([MODULES[0], long]))
        with pytest.raises(ValueError, match=r"modules\.json: names a folder of \d+ characters"):
            minitx.pipelines.embedding_settings(folder)
        minitx.load(folder)


@pytest.mark.parametrize("names", [3, {"a": 1}, True, [3], "BertModel"])
def test_architectures_of_another_kind(folder: Path, tmp_path: Path, names: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": names}))
    minitx.save(minitx.load(folder, head="none"), tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["architectures"] == ["BertModel"]


def test_a_full_disk_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = minitx.load(folder, head="none")
    monkeypatch.setattr("minitx.checkpoint.save.write_tensors", full)
    with pytest.raises(OSError, match=str(tmp_path / "saved")):
        minitx.save(model, tmp_path / "saved")


def test_compiled_models(folder: Path, tmp_path: Path) -> None:
    model = minitx.load(folder, head="none")
    tokenizer = minitx.load_tokenizer(folder)
    compiled = torch.compile(model, backend="eager")
    for call in (
        lambda: minitx.save(compiled, tmp_path / "saved"),
        lambda: minitx.embed(compiled, ["a"], tokenizer=tokenizer),
        lambda: minitx.generate(compiled, [[1]]),
    ):
        with pytest.raises(TypeError, match=r"pass model\._orig_mod, or compile it in place"):
            call()
    vectors = minitx.embed(model, ["the cat"], tokenizer=tokenizer)
    model.compile(backend="eager")
    assert torch.allclose(minitx.embed(model, ["the cat"], tokenizer=tokenizer), vectors, atol=1e-6)
    minitx.save(model, tmp_path / "saved")


def test_the_meta_device_has_no_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(folder), "a", "--device", "meta"]) == 2
    assert "must be a device that this machine has; tensors there have no values" in capsys.readouterr().err


@pytest.mark.parametrize("template", ["{{ 'a' * 10**10 }}", "{{ 10**10 * [1] }}", "{{ 9 ** (9 ** 9) }}"])
def test_products_in_templates_are_bounded(template: str) -> None:
    """Jinja computes them when it compiles the template, in one operation that nothing interrupts."""
    templates = ChatTemplates({"default": template}, {})
    with frugal(), pytest.raises(ValueError, match=r"would be too large; the limit is"):
        templates.render([{"role": "user", "content": "a"}])
    small = ChatTemplates({"default": "{{ 'ab' * 3 }}{{ 3 * 4 }}{{ 2 ** 10 }}"}, {})
    assert small.render([{"role": "user", "content": "a"}]) == "ababab121024"


def test_json_files_have_a_limit(folder: Path) -> None:
    with (folder / "config.json").open("ab") as file:
        file.truncate(200_000_000)
    with (
        frugal(),
        pytest.raises(ValueError, match=r"config\.json: has 200000000 bytes; .* at most"),
    ):
        minitx.load(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{% if a %}" * 60 + "{% endif %}" * 60,
        "{% for a in b %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 500 + "a" + ")" * 500 + " }}",
        "{{ " + "a + " * 5_000 + "a }}",
        "{{ " + "-" * 20_000 + "a }}",
        "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
        "{{ a" + ".b" * 20_000 + " }}",
    ],
)
def test_templates_that_cannot_be_compiled(folder: Path, template: str) -> None:
    tokenizer = minitx.load_tokenizer(folder)
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], template=template)
    except ValueError as error:
        assert "chat template" in str(error)  # noqa: PT017 - or it is rendered, by another version


# --- the terminal ----------------------------------------------------------------------------------

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202egnp\x1b[31m\r\x08"


def test_control_characters_are_visible(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    calls = [
        ["inspect", f"{folder}/{HOSTILE}"],
        ["inspect", str(folder), HOSTILE],
        ["inspect", str(folder), f"--{HOSTILE}"],
        ["inspect", str(folder), "--head", HOSTILE],
        ["inspect", str(folder), "--head", HOSTILE, "--traceback"],
        [HOSTILE],
        ["tokenize", str(folder), HOSTILE],
        ["embed", str(folder), HOSTILE, "b"],
    ]
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        for changes in ({}, {HOSTILE: 1}, {"hidden_act": HOSTILE}, {"id2label": {"0": HOSTILE, "1": "b"}}):
            (folder / "config.json").write_text(json.dumps({**config, **changes}))
            for argv in calls:
                main(argv)
                printed = capsys.readouterr()
                text = (printed.out + printed.err).replace("\033[1;32m", "").replace("\033[0m", "")
                assert not {*text} & {*HOSTILE} - {*"]0;owned2Jgnp[31m"}, (argv, changes, text)


def test_only_one_place_prints() -> None:
    place = Path(minitx.__file__).parent / "cli"
    printing = [path.name for path in place.glob("*.py") if " print(" in path.read_text()]
    assert printing == ["render.py"]


@pytest.mark.parametrize("flag", ["add_prefix_space", "trim_offsets"])
def test_null_means_the_default(tmp_path: Path, flag: str) -> None:
    minitx.save(minitx.from_config(GPT2, seed=0), tmp_path)
    characters = [*"abcdefghi", "\u0120"]
    (tmp_path / "vocab.json").write_text(json.dumps({each: i for i, each in enumerate(characters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "GPT2Tokenizer"}
    ids = []
    for changes in ({}, {flag: None}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | changes))
        tokenizer = minitx.load_tokenizer(tmp_path)
        ids.append(tokenizer.encode("ab a"))
        tokenizer.save(tmp_path / "saved")
        (tmp_path / "saved" / "config.json").write_text((tmp_path / "config.json").read_text())
        path = tmp_path / "saved" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config | changes))
        ids.append(minitx.load_tokenizer(tmp_path / "saved").encode("ab a"))
    assert all(each == ids[0] for each in ids)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_files_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """They are not called damaged, nor missing."""
    path = folder / name
    path.touch()
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    opened = Path.open

    def refused(self: Path, *args: Any, **options: Any) -> Any:
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError, match=name):
        minitx.load_tokenizer(folder) if name == "tokenizer.json" else minitx.load(folder)
