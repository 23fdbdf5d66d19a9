"""Another process saves while a folder is read: the model, its tokenizer and its settings are of one save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.checkpoint import convert as conversion
from minitx.checkpoint import generation
from minitx.pipelines import text_task
from minitx.pipelines.embedding import settings as embedding
from tests.unit.pipelines.folders import VOCABULARY, bert_folder

SAVED = len(VOCABULARY) + 1  # tokens of the model that is saved meanwhile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = bert_folder(tmp_path / "model", "sequence-classification")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 1}')
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture
def save(folder: Path) -> Callable[[], None]:
    """Saves another model to the folder, when it is called for the first time."""
    model, tokenizer = minitx.load(folder), minitx.load_tokenizer(folder)
    tokenizer.add_tokens(["<new>"])
    model.resize_token_embeddings(SAVED)
    assert model.checkpoint is not None
    model.checkpoint.generation_file = b'{"max_new_tokens": 2}'
    calls = iter([lambda: minitx.save(model, folder, tokenizer=tokenizer)])
    return lambda: next(calls, lambda: None)()


def before(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    action: Callable[[], None],
    *,
    after: bool = False,
) -> None:
    """Calls `action` before a function of a module, or after it."""
    original = getattr(module, name)

    def call(*args: Any, **options: Any) -> Any:
        if not after:
            action()
        result = original(*args, **options)
        if after:
            action()
        return result

    monkeypatch.setattr(module, name, call)


def test_a_pipeline(folder: Path, save: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, text_task, "load_tokenizer_for", save)
    pipe = minitx.pipeline("text-classification", str(folder), device="cpu")
    assert len(pipe.tokenizer) == SAVED == pipe.model.config.inputs.vocab_size


def test_settings_of_generation(
    folder: Path, save: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before(monkeypatch, generation, "generation_folder", save, after=True)
    assert generation.fetch_settings(folder).settings == {"max_new_tokens": 2}
    content = {name: (folder / name).read_bytes() for name in ("generation_config.json", "config.json")}
    missing = iter([True])

    def restore() -> None:
        """Ends a save whose first half, in which the file is missing, the reader has seen."""
        if next(missing, False):
            (folder / "generation_config.json").write_bytes(content["generation_config.json"])

    (folder / "generation_config.json").unlink()
    before(monkeypatch, generation, "stated_settings", restore, after=True)
    assert generation.fetch_settings(folder).settings == {"max_new_tokens": 2}


def test_settings_of_embeddings(
    folder: Path, save: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def note(files: Any, config: dict[str, Any], place: Path) -> Any:
        sizes.append(config["vocab_size"])
        return original(files, config, place)

    original = embedding.read_settings
    monkeypatch.setattr(embedding, "read_settings", note)
    before(monkeypatch, embedding, "sentence_files", save)
    minitx.pipelines.embedding_settings(folder)
    assert sizes == [SAVED - 1, SAVED]


@pytest.mark.parametrize("moment", ["before loading", "while it is written"])
def test_a_conversion(
    folder: Path, save: Callable[[], None], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    @contextmanager
    def progress(size: int) -> Iterator[Callable[[int], None]]:
        yield lambda _: save() if moment == "while it is written" else None

    if moment == "before loading":
        before(monkeypatch, conversion, "load", save)
    target = folder.with_name("target")
    conversion.convert(folder, target, progress=progress)
    size = SAVED - (moment == "while it is written")
    assert minitx.load(target).config.inputs.vocab_size == len(minitx.load_tokenizer(target)) == size


def test_a_conversion_copies_all_chat_templates(folder: Path) -> None:
    target = folder.with_name("target")
    result = conversion.convert(folder, target)
    assert "additional_chat_templates/tool_use.jinja" in result.copied
    assert minitx.load_tokenizer(target).chat.templates == minitx.load_tokenizer(folder).chat.templates


def test_a_conversion_that_fails_leaves_no_folder(folder: Path) -> None:
    def fail(_: int) -> None:
        raise OSError("full")

    @contextmanager
    def progress(size: int) -> Iterator[Callable[[int], None]]:
        yield fail

    with pytest.raises(OSError, match="full"):
        conversion.convert(folder, folder.with_name("one") / "two", progress=progress)
    assert not folder.with_name("one").exists()


def test_an_encoder_in_a_subfolder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules lie above it, and are watched too."""
    from minitx.checkpoint import load as loading

    upper = folder.with_name("upper")
    upper.mkdir()
    folder.rename(upper / "0_Transformer")
    modules = [
        {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (upper / "modules.json").write_text(json.dumps(modules))
    (upper / "1_Pooling").mkdir()
    (upper / "1_Pooling" / "config.json").write_text("{}")
    calls = iter(["new"])

    def change() -> None:
        if (text := next(calls, None)) is not None:
            (upper / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"a": text}}))

    before(monkeypatch, loading, "load_parameters", change)
    files = minitx.load(upper, head="none").checkpoint.sentence_files  # type: ignore[union-attr]
    assert b"new" in files["config_sentence_transformers.json"]


def test_weights_of_a_model_stay_those_of_its_save(folder: Path, save: Callable[[], None]) -> None:
    model = minitx.load(folder)
    values = [parameter.clone() for parameter in model.parameters()]
    save()
    assert all(map(torch.equal, values, model.parameters()))
