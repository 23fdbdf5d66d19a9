"""`minitx.checkpoint.hub` against a small Hub on the loopback, through the unmodified client.

Only the client's settings (read from the environment when it is imported) and its clock are replaced:
it waits between retries, and a test should not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import close_session, constants

import minitx
from minitx.checkpoint.hub import LONGEST_WAIT, fetch, fetch_tokenizer
from tests.hub_server import HubServer, files_of

ID = "someone/tiny"
CONFIG = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        settings = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "DOWNLOAD_CHUNK_SIZE": 512,  # so that a small file arrives in several pieces
        }
        for key, value in settings.items():
            monkeypatch.setattr(constants, key, value)
        for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(key, raising=False)
        clock = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr("minitx.checkpoint.hub.time", clock)
        monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
        monkeypatch.setattr("huggingface_hub.file_download.time", clock)
        close_session()
        yield server
        close_session()


def written(folder: Path, **kwargs: int) -> dict[str, bytes]:
    """The files of a tiny BERT."""
    minitx.save(minitx.from_config(CONFIG, seed=1), folder, **kwargs)
    return files_of(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("sharded"), max_shard_size=6_000)


def names(folder: Path) -> list[str]:
    return sorted(files_of(folder))


def cache_files(tmp_path: Path) -> list[str]:
    """Everything in the cache that could be taken for a file of a model."""
    cache = tmp_path / "cache"
    found = [p for kind in ("blobs", "snapshots") for p in cache.glob(f"*/{kind}/**/*")]
    return sorted(p.name for p in found if not p.is_dir())


# --- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("function", [fetch, fetch_tokenizer])
def test_a_folder_is_given_back_unchanged(tmp_path: Path, hub: HubServer, kind: type, function: type) -> None:
    assert function(kind(tmp_path)) == tmp_path
    assert hub.requests == []


def test_a_folder_is_not_looked_up_even_if_its_name_is_an_id(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "tiny").mkdir(parents=True)
    assert fetch(ID) == Path(ID)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["a/b/c", "two--dashes", "-name", "with space", "name.git", "x" * 97])
@pytest.mark.parametrize("function", [fetch, fetch_tokenizer])
def test_neither_folder_nor_id(hub: HubServer, name: str, function: type) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a valid Hub id"):
        function(name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["./missing", "../missing", "/no/such/folder", "~/missing", Path("no")])
def test_a_path_is_not_taken_for_an_id(hub: HubServer, name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder '"):
        minitx.load(name)
    assert hub.requests == []


def test_a_gguf_file_that_is_missing_is_not_taken_for_an_id(hub: HubServer) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file 'missing\.gguf'"):
        minitx.load("missing.gguf")
    assert hub.requests == []


def test_a_file_instead_of_its_folder(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="is a file; pass the folder"):
        minitx.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["", "  ", None, 3, ["bert"]])
def test_no_name_at_all(hub: HubServer, name: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        fetch(name)  # type: ignore[arg-type]
    assert hub.requests == []


# --- what is fetched -------------------------------------------------------------------------------


def test_load_by_id_equals_the_folder(hub: HubServer, bert: dict[str, bytes], tmp_path: Path) -> None:
    commit = hub.push(ID, {**bert, "README.md": b"# tiny", "onnx/model.onnx": b"0" * 100})
    model = minitx.load(ID)
    again = minitx.from_config(CONFIG, seed=1).state_dict()
    assert model.state_dict().keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    folder = fetch(ID)
    assert folder.name == commit
    assert folder.is_relative_to(tmp_path / "cache")
    assert files_of(folder) == bert  # byte for byte, and nothing else was fetched


def test_the_second_time_nothing_is_fetched(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    first = fetch(ID)
    assert sorted(hub.fetched()) == sorted(bert)
    hub.forget()
    assert fetch(ID) == first
    assert hub.fetched() == []
    assert len(hub.requests) == 2  # the list, and what the client asks to follow the branch


WEIGHTS = {
    "model.safetensors": b"1",
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}',
    "model-1.safetensors": b"2",
    "pytorch_model.bin": b"3",
    "pytorch_model.bin.index.json": b'{"weight_map": {"a": "part.bin", "b": "part.bin"}}',
    "part.bin": b"4",
}


@pytest.mark.parametrize(
    ("absent", "fetched"),
    [
        ([], ["model.safetensors"]),
        (["model.safetensors"], ["model.safetensors.index.json", "model-1.safetensors"]),
        (["model.safetensors", "model.safetensors.index.json"], ["pytorch_model.bin"]),
        (
            ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"],
            ["pytorch_model.bin.index.json", "part.bin"],
        ),
    ],
)
def test_one_format_only(hub: HubServer, absent: list[str], fetched: list[str]) -> None:
    hub.push(ID, {"config.json": b"{}"} | {k: v for k, v in WEIGHTS.items() if k not in absent})
    assert names(fetch(ID)) == sorted(["config.json", *fetched])


def test_shards(hub: HubServer, sharded: dict[str, bytes]) -> None:
    assert sum(name.endswith(".safetensors") for name in sharded) > 2
    hub.push(ID, {**sharded, "model-00099-of-00099.safetensors": b"of no index"})
    assert files_of(fetch(ID)) == sharded
    model, again = minitx.load(ID), minitx.from_config(CONFIG, seed=1)
    assert torch.equal(model.embedder.word_emb.weight, again.embedder.word_emb.weight)


def test_bin(hub: HubServer, bert: dict[str, bytes], tmp_path: Path) -> None:
    model = minitx.from_config(CONFIG, seed=1)
    minitx.save(model, tmp_path / "model")
    from safetensors.torch import load_file

    torch.save(load_file(tmp_path / "model" / "model.safetensors"), tmp_path / "pytorch_model.bin")
    content = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.push(ID, {"config.json": bert["config.json"], "pytorch_model.bin": content})
    loaded = minitx.load(ID).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


def test_the_files_that_say_how_a_model_is_used_come_along(hub: HubServer, bert: dict[str, bytes]) -> None:
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    modules += [{"type": "x.Dense", "path": "2_Dense"}]
    extra = {"modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": b"{}"}
    extra |= {"2_Dense/config.json": b"{}", "2_Dense/model.safetensors": b"3"}
    extra |= {"sentence_bert_config.json": b"{}", "generation_config.json": b"{}"}
    others = {
        "2_Dense/pytorch_model.bin": b"4",
        "2_Dense/onnx/model.onnx": b"5",
        "3_Dense/config.json": b"{}",
    }
    hub.push(ID, bert | extra | others)
    assert files_of(fetch(ID)) == bert | extra


def test_an_encoder_in_a_subfolder(hub: HubServer, bert: dict[str, bytes]) -> None:
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": place} for place, kind in kinds.items()
    ]
    files = {f"0_Transformer/{name}": content for name, content in bert.items()}
    files |= {"0_Transformer/vocab.txt": b"[UNK]", "0_Transformer/sentence_bert_config.json": b"{}"}
    files |= {
        "1_Pooling/config.json": b'{"pooling_mode": "cls"}',
        "modules.json": json.dumps(modules).encode(),
    }
    hub.push(ID, files | {"config.json": b'{"__version__": "0.3.0"}', "README.md": b""})
    folder = fetch(ID)
    assert folder.name == "0_Transformer"
    assert files_of(folder.parent) == {k: v for k, v in files.items() if not k.endswith("vocab.txt")} | {
        "config.json": b'{"__version__": "0.3.0"}'
    }
    assert fetch_tokenizer(ID) == folder
    assert (folder / "vocab.txt").read_bytes() == b"[UNK]"
    assert minitx.embedding_settings(ID).pooling == "first"
    assert minitx.embedding_settings(minitx.load(ID)).pooling == "first"


@pytest.mark.parametrize("shard", ["../x", "/etc/passwd", "sub/../../x.safetensors", "..", "", "a\\b"])
def test_an_index_that_points_outside_is_refused_before_anything_is_fetched(
    hub: HubServer, bert: dict[str, bytes], shard: str
) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": shard}}).encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": b"1"}
    hub.push(ID, files)
    with pytest.raises(ValueError, match="must be inside the folder"):
        fetch(ID)
    assert hub.fetched() == ["config.json", "model.safetensors.index.json"]


@pytest.mark.parametrize("index", [b"[]", b"{}", b'{"weight_map": []}', b'{"weight_map": {"a": 1}}', b"{"])
def test_a_damaged_index(hub: HubServer, index: bytes) -> None:
    hub.push(ID, {"config.json": b"{}", "model.safetensors.index.json": index})
    with pytest.raises(ValueError, match=r"index.json"):
        fetch(ID)


def test_a_shard_that_the_repository_lacks(hub: HubServer, sharded: dict[str, bytes]) -> None:
    gone = sorted(name for name in sharded if name.endswith(".safetensors"))[1]
    hub.push(ID, {name: content for name, content in sharded.items() if name != gone})
    with pytest.raises(FileNotFoundError, match=f"{ID} .* has no file {gone}"):
        fetch(ID)


def test_a_repository_without_weights(hub: HubServer) -> None:
    hub.push(ID, {"config.json": b"{}", "tf_model.h5": b"1"})
    with pytest.raises(FileNotFoundError, match=r"has no weights .* found config.json, tf_model.h5"):
        fetch(ID)
    assert hub.fetched() == ["config.json"]


def test_a_repository_without_config(hub: HubServer) -> None:
    hub.push(ID, {"model.safetensors": b"1"})
    with pytest.raises(FileNotFoundError, match=r"no config.json or modules.json; found model.safetensors"):
        fetch(ID)
    assert hub.fetched() == []


TOKENIZER = {
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"a": 1}',
    "special_tokens_map.json": b"{}",
    "added_tokens.json": b"{}",
    "vocab.txt": b"x",
    "vocab.json": b"{}",
    "merges.txt": b"y",
    "spiece.model": b"z",
    "spm.model": b"z",
    "source.spm": b"s",
    "target.spm": b"t",
    "target_vocab.json": b"{}",
    "sentencepiece.bpe.model": b"z",
    "chat_template.jinja": b"",
    "chat_template.json": b"{}",
    "additional_chat_templates/tools.jinja": b"",
}


@pytest.mark.parametrize(
    "present", [list(TOKENIZER), ["vocab.txt"], ["tokenizer.json", "tokenizer_config.json"], []]
)
def test_the_files_of_the_tokenizer(hub: HubServer, bert: dict[str, bytes], present: list[str]) -> None:
    expected = {"config.json": bert["config.json"]} | {name: TOKENIZER[name] for name in present}
    hub.push(ID, bert | expected | {"README.md": b""})
    assert files_of(fetch_tokenizer(ID)) == expected
    hub.forget()
    assert files_of(fetch_tokenizer(ID)) == expected
    assert hub.fetched() == []
    assert files_of(fetch_tokenizer(ID, offline=True)) == expected


def test_a_tokenizer_without_config(hub: HubServer) -> None:
    hub.push(ID, {"tokenizer.json": b"{}"})
    assert names(fetch_tokenizer(ID)) == ["tokenizer.json"]
    hub.push(ID, {"README.md": b""})
    with pytest.raises(FileNotFoundError, match=r"no config.json or tokenizer.json"):
        fetch_tokenizer(ID)


# --- revisions -------------------------------------------------------------------------------------


def test_revisions(hub: HubServer, bert: dict[str, bytes]) -> None:
    old = hub.push(ID, bert)
    new = hub.push(ID, {**bert, "config.json": b"{}"}, branch="refs/pr/1")
    assert fetch(ID).name == old
    assert fetch(ID, revision="refs/pr/1").name == new
    assert fetch(ID, revision=new).name == new
    assert fetch(ID, revision="refs/pr/1", offline=True).name == new
    with pytest.raises(FileNotFoundError, match=f"{ID} has no revision 'v9'"):
        fetch(ID, revision="v9")


def test_a_push_is_seen(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    fetch(ID)
    hub.forget()
    new = hub.push(ID, {**bert, "config.json": bert["config.json"] + b"\n"})
    assert fetch(ID).name == new
    assert hub.fetched() == ["config.json"]  # what did not change is not fetched again
    assert fetch(ID, offline=True).name == new


def test_a_push_between_two_requests_does_not_mix_commits(
    hub: HubServer, bert: dict[str, bytes], sharded: dict[str, bytes]
) -> None:
    hub.push(ID, bert)

    def push() -> None:
        hub.listed = None
        hub.push(ID, sharded)

    hub.listed = push
    assert files_of(fetch(ID)) == sharded


# --- access ----------------------------------------------------------------------------------------


def test_no_such_repository(hub: HubServer) -> None:
    for function in (fetch, fetch_tokenizer, minitx.load):
        with pytest.raises(FileNotFoundError) as caught:
            function("someone/else")
        message = str(caught.value)
        assert "'someone/else' is neither a folder nor a repository" in message
        assert "private" in message
        assert "a token" in message
        assert "HF_TOKEN" in message


def test_gated(
    hub: HubServer, bert: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.push(ID, bert)
    hub.repos[ID].gated, hub.repos[ID].token = True, "hf_right"
    for token in (None, "hf_wrong"):
        with pytest.raises(PermissionError, match=f"gated: ask for access at {hub.url}/{ID}.*a token"):
            minitx.load(ID, token=token)
        assert cache_files(tmp_path) == []
    assert files_of(fetch(ID, token="hf_right")) == bert
    # the token stays with the Hub: it does not go to the network that the content comes from
    sent = dict(zip((path.split("/")[1] for _, path in hub.requests), hub.tokens, strict=True))
    assert sent["content"] == ""
    assert sent["someone"] == "Bearer hf_right"
    hub.forget()
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.push(ID, {**bert, "config.json": b"{}"})
    fetch(ID)
    assert "config.json" in hub.fetched()


def test_private(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    hub.repos[ID].private, hub.repos[ID].token = True, "hf_right"
    with pytest.raises(FileNotFoundError, match=r"neither a folder nor a repository.*private"):
        fetch(ID)
    assert files_of(fetch(ID, token="hf_right")) == bert


def test_a_token_that_is_not_valid(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    with pytest.raises(PermissionError, match="token is not valid"):
        fetch(ID, token="hf_invalid")


# --- the line goes dead ----------------------------------------------------------------------------


def test_a_dropped_connection_is_resumed(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    hub.cut["model.safetensors"] = [3000, 0, 2000]
    hub.cut["config.json"] = [10]
    assert files_of(fetch(ID)) == bert
    assert hub.fetched().count("model.safetensors") == 4


def test_a_connection_that_stays_dead(hub: HubServer, bert: dict[str, bytes], tmp_path: Path) -> None:
    hub.push(ID, bert)
    hub.cut["model.safetensors"] = [3000, *[0] * 30]
    with pytest.raises(ConnectionError, match=r"could not get someone/tiny/model.safetensors .*offline, "):
        minitx.load(ID)
    etag = hashlib.sha1(bert["config.json"], usedforsecurity=False).hexdigest()
    assert cache_files(tmp_path) == sorted(["config.json", etag])  # nothing half, whatever its name
    with pytest.raises(FileNotFoundError, match="in the Hub cache has no weights"):
        fetch(ID, offline=True)
    hub.cut.clear()
    assert files_of(fetch(ID)) == bert


def test_a_shard_lost_on_the_way(hub: HubServer, sharded: dict[str, bytes]) -> None:
    last = max(name for name in sharded if name.endswith(".safetensors"))
    hub.push(ID, sharded)
    hub.cut[last] = [0] * 30
    with pytest.raises(ConnectionError, match=last):
        fetch(ID)
    with pytest.raises(FileNotFoundError, match=f"in the Hub cache has no file {last}; fetch it once"):
        fetch(ID, offline=True)
    hub.cut.clear()
    hub.forget()
    fetch(ID)
    assert hub.fetched() == [last]


def test_no_connection_and_nothing_in_the_cache(hub: HubServer) -> None:
    hub.stop()
    with pytest.raises(ConnectionError, match=r"could not get someone/tiny from .*offline, minitx uses"):
        fetch(ID)


@pytest.mark.parametrize("status", [500, 503, None])
def test_no_connection_but_in_the_cache(hub: HubServer, bert: dict[str, bytes], status: int | None) -> None:
    hub.push(ID, bert)
    before = fetch(ID)
    hub.broken = status
    if status is None:
        hub.stop()
        close_session()
    with pytest.warns(UserWarning, match="Using the copy in the Hub cache"):
        assert fetch(ID) == before


@pytest.mark.parametrize("answer", [b"<html>please log in</html>", b"[]", b"{}", b"null"])
def test_something_else_than_the_hub_answers(hub: HubServer, bert: dict[str, bytes], answer: bytes) -> None:
    hub.push(ID, bert)
    hub.answer = answer
    with pytest.raises((ConnectionError, FileNotFoundError), match=ID):
        fetch(ID)


def test_errors_of_the_disk_stay_what_they_are(
    hub: HubServer, bert: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(ID, bert)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(NotADirectoryError):
        fetch(ID)


# --- offline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_offline(
    hub: HubServer, sharded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    extra = {"modules.json": b"[]", "1_Pooling/config.json": b"{}"}
    hub.push(ID, sharded | extra)
    before = fetch(ID)
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", switch == "environment")
    offline = switch == "argument"
    assert fetch(ID, offline=offline) == before
    assert fetch(ID, offline=offline, revision=before.name) == before
    minitx.load(ID, offline=offline)
    reason = "minitx is offline" if offline else "HF_HUB_OFFLINE is set"
    for function in (fetch, fetch_tokenizer):
        with pytest.raises(FileNotFoundError, match=f"nor in the Hub cache, .*, and {reason}"):
            function("someone/else", offline=offline)
    with pytest.raises(FileNotFoundError, match=r"revision 'v2'.* nor in the Hub cache"):
        fetch(ID, offline=offline, revision="v2")
    assert hub.requests == []


def test_offline_with_a_link_to_nothing(hub: HubServer, bert: dict[str, bytes]) -> None:
    hub.push(ID, bert)
    (fetch(ID) / "model.safetensors").resolve().unlink()
    with pytest.raises(FileNotFoundError, match="in the Hub cache has no weights"):
        fetch(ID, offline=True)


# --- the client reads the environment itself -------------------------------------------------------

SCRIPT = """
import sys
import minitx
assert "huggingface_hub" not in sys.modules, "import minitx imports the client"
from minitx.checkpoint.hub import fetch
fetch(".")
assert "huggingface_hub" not in sys.modules, "a folder needs no client"
for offline in (False, True):
    sys.stdout.write(str(fetch("someone/tiny", offline=offline)) + "\\n")
"""


def test_the_environment(hub: HubServer, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE, in a process of its own."""
    commit = hub.push(ID, {"config.json": b"{}", "model.safetensors": b"1"})
    hub.repos[ID].private, hub.repos[ID].token = True, "hf_right"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_right",
        "PYTHONPATH": str(Path(minitx.__file__).parents[1]),
    }
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    folders = run.stdout.split()
    snapshots = tmp_path / "home" / "hub" / "models--someone--tiny" / "snapshots"
    assert folders == [str(snapshots / commit)] * 2
    assert hub.fetched() == ["config.json", "model.safetensors"]
    hub.forget()
    environment["HF_HUB_OFFLINE"] = "1"
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True)
    assert hub.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_for_the_list_again(
    hub: HubServer, bert: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("minitx.checkpoint.hub.time.sleep", waits.append)
    hub.push(ID, bert)
    hub.busy = [(status, "7"), (status, ""), (status, "9" * 5_000)]
    assert names(fetch(ID)) == ["config.json", "model.safetensors"]
    assert waits == [7, 2, LONGEST_WAIT]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"../../other", b"main\0"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_damaged_reference_in_the_cache(
    hub: HubServer, bert: dict[str, bytes], content: bytes, offline: bool
) -> None:
    hub.push(ID, bert)
    path = fetch(ID).parent.parent / "refs" / "main"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"refs/main does not hold the name of a commit; it is damaged"):
        fetch(ID, offline=offline)
