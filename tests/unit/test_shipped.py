"""The checkpoints that ship with minitx, by name: everywhere a folder or a Hub id is, and never the Hub."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG
from minitx.cli.app import main
from minitx.pipelines.registry import SPECS, TASKS
from minitx.shipped import FOLDER, NAMES, SHIPPED, ShippedModel, shipped_folder, shipped_name
from minitx.training import add_lora, save_adapter
from tests.hub_server import HubServer, files_of
from tests.unit.test_hub import hub  # noqa: F401 - a fixture

QUESTION = {"question": "Who did it?", "context": "Ann did it in Paris."}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_loaded_without_the_hub(hub: HubServer, name: str) -> None:  # noqa: F811
    model, tokenizer = minitx.load(name), minitx.load_tokenizer(name)
    assert model.checkpoint is not None
    assert model.checkpoint.folder == shipped_folder(name)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert len(tokenizer) <= minitx.load(name, dtype="float32").state_dict()[_embedding(model)].shape[0]
    assert hub.requests == []


def _embedding(model: Any) -> str:
    """The name of the embedding of tokens."""
    return next(name for name, _ in model.named_parameters() if name.endswith("word_emb.weight"))


@pytest.mark.parametrize("call", [minitx.load, minitx.load_tokenizer, minitx.generation_settings])
def test_an_unknown_name_lists_the_known_ones(hub: HubServer, call: Any) -> None:  # noqa: F811
    with pytest.raises(FileNotFoundError, match="Did you mean minitx/tiny-decoder") as caught:
        call("minitx/tiny-decode")
    assert all(name in str(caught.value) for name in NAMES)
    with pytest.raises(FileNotFoundError, match="does not ship with minitx") as caught:
        call("minitx/unknown")
    assert "Did you mean" not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("slip", "name"),
    [
        ("MINITX/tiny-encoder", "minitx/tiny-encoder"),
        ("Minitx/Tiny-QA", "minitx/tiny-qa"),
        ("minitx/tiny-seq", "minitx/tiny-seq2seq"),
        ("minitx/tiny-class", "minitx/tiny-classifier"),
    ],
)
def test_a_slip_in_a_name_gets_the_name(hub: HubServer, slip: str, name: str) -> None:  # noqa: F811
    """The Hub is not asked, whose names do not differ in case alone."""
    with pytest.raises(FileNotFoundError, match=f"Did you mean {name}\\?"):
        minitx.load(slip)
    assert hub.requests == []


@pytest.mark.parametrize("name", [Path("minitx/tiny-qa"), 3, None])
def test_a_name_is_a_string(name: Any) -> None:
    with pytest.raises(TypeError, match=r"name=.* must be a string"):
        shipped_folder(name)


@pytest.mark.parametrize("call", [minitx.load, minitx.load_tokenizer])
def test_a_revision_is_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="revision='v2' must be 'main'; minitx/tiny-qa ships with minitx"):
        call("minitx/tiny-qa", revision="v2")
    assert call("minitx/tiny-qa", revision="main", offline=True) is not None


def test_a_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for Hub ids."""
    monkeypatch.chdir(tmp_path)
    minitx.save(minitx.load("minitx/tiny-qa", dtype="float32"), tmp_path / "minitx" / "tiny-encoder")
    assert minitx.load("minitx/tiny-encoder").task == "question-answering"


def test_a_path_is_not_a_name() -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        minitx.load(Path("minitx/tiny-qa"))


def test_an_installation_without_the_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("minitx.shipped.FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="minitx/tiny-qa needs an installation with pip"):
        minitx.load("minitx/tiny-qa")
    assert main(["models"]) == 2
    assert "minitx/tiny-encoder needs an installation with pip" in capsys.readouterr().err


def test_the_name_of_a_folder(tmp_path: Path) -> None:
    assert [shipped_name(model.folder) for model in SHIPPED] == list(NAMES)
    assert shipped_name(FOLDER / "tiny-qa" / ".." / "tiny-qa") == "minitx/tiny-qa"
    for folder in (FOLDER, tmp_path, tmp_path / "tiny-qa"):
        assert shipped_name(folder) is None


def test_a_card_without_a_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.shipped.FOLDER", tmp_path)
    (tmp_path / "tiny-qa").mkdir()
    (tmp_path / "tiny-qa" / "README.md").write_text("---\ntags: a\n---\nlicense: mit\n")
    with pytest.raises(ValueError, match="states no license"):
        ShippedModel("minitx/tiny-qa", "", "").license()


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    """Not the folder of this installation, which another machine lacks."""
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    add_lora(model, rank=2)
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("minitx/tiny-decoder", None)
    assert minitx.load(tmp_path).task == "causal-lm"


def test_the_package_is_not_written_to(tmp_path: Path) -> None:
    """Another program of the same installation would load the changed checkpoint."""
    model, tokenizer = minitx.load("minitx/tiny-decoder", dtype="float32"), minitx.load_tokenizer(NAMES[0])
    link, folder = tmp_path / "link", shipped_folder("minitx/tiny-decoder")
    link.symlink_to(FOLDER)
    before = {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    error = pytest.raises(ValueError, match=r"folder=.* must be outside of the installed package")
    for place in (folder, FOLDER / "new", link / "tiny-decoder"):
        with error:
            minitx.save(model, place)
        with error:
            tokenizer.save(place)
    add_lora(model, rank=2)
    with error:
        save_adapter(model, folder)
    assert before == {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}


# --- tasks -----------------------------------------------------------------------------------------


def test_every_shipped_checkpoint_runs_its_task() -> None:
    for model in SHIPPED:
        assert minitx.pipeline(model.task, model.name, device="cpu").model.dtype == torch.bfloat16
        assert minitx.pipeline(model=model.name, device="cpu").task.spec.name == model.task
    named = {spec.shipped for spec in SPECS} - {""}
    assert named == {*NAMES} - {"minitx/tiny-instruct"}


def test_without_the_hub_a_task_uses_the_shipped_checkpoint(hub: HubServer) -> None:  # noqa: F811
    checkpoint = TASKS["question-answering"].checkpoint
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = minitx.pipeline("question-answering", device="cpu", offline=True)
    assert f"using {checkpoint}" in str(caught[0].message)
    assert f"{checkpoint!r} (revision 'main') is neither" in str(caught[1].message)
    assert "Using minitx/tiny-qa instead, a tiny model that ships with minitx." in str(caught[1].message)
    assert answer(**QUESTION)["answer"] in QUESTION["context"]
    assert hub.requests == []


def test_without_the_hub_the_cache_is_used_after_one_warning(hub: HubServer) -> None:  # noqa: F811
    hub.push(TASKS["question-answering"].checkpoint, files_of(shipped_folder("minitx/tiny-qa")))
    with pytest.warns(UserWarning, match="No model was named"):
        minitx.pipeline("question-answering", device="cpu")
    hub.broken = 503
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = minitx.pipeline("question-answering", device="cpu")
    texts = [str(warning.message) for warning in caught]
    assert len([text for text in texts if "Using the copy in the Hub cache" in text]) == 1
    assert not any("instead" in text for text in texts)
    assert answer(**QUESTION)["answer"] in QUESTION["context"]


def test_the_substitute_for_text_generation_is_not_for_chats(hub: HubServer) -> None:  # noqa: F811
    with (
        pytest.warns(UserWarning, match="No model was named"),
        pytest.warns(UserWarning, match=r"For chats, name minitx/tiny-instruct\.$"),
    ):
        minitx.pipeline("text-generation", device="cpu", offline=True)


@pytest.mark.filterwarnings("ignore:No model was named")
@pytest.mark.parametrize(("task", "revision"), [("summarization", "main"), ("question-answering", "v2")])
def test_there_is_no_other_substitute(task: str, revision: str) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        minitx.pipeline(task, revision=revision, offline=True)


# --- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["run", "fill-mask", "minitx/tiny-encoder", "The king of [MASK]."],
        ["run", "ner", "minitx/tiny-ner", "Ann lives in Paris.", "--json"],
        ["run", "question-answering", "usual", "Who?", "--context", "Ann did it."],
        ["generate", "minitx/tiny-decoder", "It was a", "--max-new-tokens", "2"],
        ["generate", "minitx/tiny-instruct", "What is a cat?", "--chat", "--max-new-tokens", "2"],
        ["generate", "minitx/tiny-seq2seq", "hello", "--beams", "2", "--max-new-tokens", "4"],
        ["inspect", "minitx/tiny-encoder"],
        ["tokenize", "minitx/tiny-seq2seq", "hello"],
        ["score", "minitx/tiny-decoder", "It was a king."],
        ["explain", "minitx/tiny-decoder", "It was a"],
        ["embed", "minitx/tiny-encoder", "a", "b"],
    ],
    ids=" ".join,
)
def test_commands_take_the_names(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
