"""Files, configs and inputs that are damaged, hostile or just wrong: each ends in a clear error.

What is allowed to come out of `minitx.load` is a ValueError, a FileNotFoundError, or a model that runs;
never another exception, a crash, a hang, or memory that no model of this size needs.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import resource
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.architectures import REGISTRY, architecture
from minitx.architectures.known_keys import known_keys
from minitx.checkpoint.write import write_values
from tests.parity.cases import CASES
from tests.unit.calls import run

MEGABYTES = 150  # a model of this file needs less than 1; the rest is for what Python loads meanwhile
SECONDS = 20.0  # of the processor, so that a busy machine does not count
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
WORD = "bert.embeddings.word_embeddings.weight"
fuzz = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


def peak() -> int:
    """The most memory that this process has held since `clear_peak`, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clear_peak() -> None:
    with contextlib.suppress(OSError):  # only Linux can; elsewhere the peak of the whole run must do
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextlib.contextmanager
def frugal() -> Iterator[None]:
    """Fails if the block takes much memory or time."""
    clear_peak()
    before, start = peak(), time.process_time()
    yield
    assert time.process_time() - start < SECONDS
    assert peak() - before < MEGABYTES * 2**20


def ids(rows: int = 2, length: int = 5) -> Tensor:
    return torch.arange(rows * length).reshape(rows, length) % 30 + 3


def survives(folder: Path, **kwargs: Any) -> Exception | None:
    """The error of loading; None if it worked, and then the model has to run too."""
    with frugal(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = minitx.load(folder, **kwargs)
        except (ValueError, FileNotFoundError) as error:
            return error
        out = model(ids())
        assert out.last_hidden_state.shape == (2, 5, model.config.encoder.hidden_size)
        return None


def write(path: Path, content: bytes) -> None:
    """A new file, not the old one overwritten: a model of an earlier try may still be mapped to that."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny BERT; nobody writes to it."""
    folder = tmp_path_factory.mktemp("original")
    minitx.save(minitx.from_config(CONFIG, seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def weights(original: Path) -> bytes:
    return (original / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def tensors(original: Path) -> dict[str, Tensor]:
    return load_file(original / "model.safetensors")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with only config.json, shared by the examples of a fuzz test."""
    return new_folder(tmp_path_factory.mktemp("scratch"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with only config.json."""
    return new_folder(tmp_path / "model")


def new_folder(folder: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def refuse(folder: Path, *parts: str, kind: type[Exception] = ValueError, **kwargs: Any) -> str:
    """Loading fails with that kind of error, whose message has all the parts."""
    error = survives(folder, **kwargs)
    assert isinstance(error, kind)
    for part in parts:
        assert part in str(error)
    return str(error)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "spiece.model", "1_Pooling/config.json"])
def test_named_pipes(folder: Path, name: str) -> None:
    """Opening one would wait for its writer for ever."""
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    refuse(folder, name, "is a named pipe, a socket or a device")
    with pytest.raises(ValueError, match=r"is a named pipe, a socket or a device"):
        minitx.load_tokenizer(folder)


def test_the_original_loads(original: Path) -> None:
    assert survives(original) is None


# --- safetensors -----------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


@fuzz
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
def test_truncated_safetensors(scratch: Path, weights: bytes, share: float) -> None:
    write(scratch / "model.safetensors", weights[: int(len(weights) * share)])
    refuse(scratch, "model.safetensors", "fetch it again")


@fuzz
@given(data=st.data())
def test_bytes_of_the_header_overwritten(scratch: Path, weights: bytes, data: st.DataObject) -> None:
    header = 8 + struct.unpack("<Q", weights[:8])[0]
    places = data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=8))
    content = bytearray(weights)
    for place in places:
        content[place] = data.draw(st.integers(0, 255))
    write(scratch / "model.safetensors", bytes(content))
    survives(scratch)


@fuzz
@given(data=st.data())
def test_any_bytes_overwritten(scratch: Path, weights: bytes, data: st.DataObject) -> None:
    content = bytearray(weights)
    for _ in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(content) - 1))
        part = data.draw(st.binary(min_size=1, max_size=40))
        content[place : place + len(part)] = part
    write(scratch / "model.safetensors", bytes(content[: len(weights)]))
    survives(scratch)


@fuzz
@given(content=st.binary(max_size=300))
def test_random_bytes_instead_of_safetensors(scratch: Path, content: bytes) -> None:
    write(scratch / "model.safetensors", content)
    refuse(scratch, "model.safetensors")


@pytest.mark.parametrize("length", [0, 1, 2**24, 10**9, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_length_of_the_header(folder: Path, weights: bytes, length: int) -> None:
    write(folder / "model.safetensors", struct.pack("<Q", length) + weights[8:])
    refuse(folder, "model.safetensors")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": F32, "b": F32}, 8),  # overlapping
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, 12),
        ({"a": {**F32, "data_offsets": [4, 12]}}, 12),  # a hole
        ({"a": {**F32, "data_offsets": [8, 0]}}, 8),  # backwards
        ({"a": {**F32, "data_offsets": [-8, 0]}}, 8),
        ({"a": {**F32, "data_offsets": [0, 2**64]}}, 8),
        ({"a": {**F32, "data_offsets": [0, 2**63]}}, 8),
        ({"a": {**F32, "data_offsets": [0]}}, 8),
        ({"a": {**F32, "data_offsets": "all"}}, 8),
        ({"a": {**F32, "shape": [3]}}, 8),  # more than there is
        ({"a": {**F32, "shape": [-2]}}, 8),
        ({"a": {**F32, "shape": [2**32, 2**32, 2**32]}}, 8),
        ({"a": {**F32, "shape": [2.5]}}, 8),
        ({"a": {**F32, "shape": 2}}, 8),
        ({"a": {**F32, "shape": [1] * 100_000 + [2]}}, 8),
        ({"a": {**F32, "dtype": "F33"}}, 8),
        ({"a": {**F32, "dtype": None}}, 8),
        ({"a": {**F32, "dtype": "F8_E4M3", "shape": [8]}}, 8),  # known to the format, not to minitx
        ({"a": 3}, 8),
        ({"a": {}}, 8),
        ([F32], 8),
        ("a", 8),
        (None, 8),
        ({"__metadata__": {"format": 1}, "a": F32}, 8),
        ({"__metadata__": [], "a": F32}, 8),
        ({}, 8),
    ],
)
def test_a_header_that_contradicts_itself(folder: Path, header: Any, size: int) -> None:
    write(folder / "model.safetensors", safetensors(header, b"\0" * size))
    refuse(folder)


@pytest.mark.parametrize("depth", [200, 100_000, 3_000_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_header_nested_deeply(folder: Path, depth: int, brackets: tuple[bytes, bytes]) -> None:
    for close in (b"", b"1" + brackets[1] * depth):
        write(folder / "model.safetensors", safetensors(brackets[0] * depth + close))
        refuse(folder, "model.safetensors")


def test_a_name_twice_in_the_header(folder: Path, weights: bytes) -> None:
    """The second is the same, or is another: no third thing may come of it."""
    header, data = split(weights)
    for entry in (header[WORD], {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}):
        text = json.dumps(header)[:-1] + f', "{WORD}": {json.dumps(entry)}}}'
        write(folder / "model.safetensors", safetensors(text.encode(), data))
        error = survives(folder)
        assert entry == header[WORD] or isinstance(error, ValueError)


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E5M2", "U16", "C64"])
def test_every_dtype(folder: Path, tensors: dict[str, Tensor], dtype: str) -> None:
    kinds = {"F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16}
    kinds |= {"I64": torch.int64, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
    kinds |= {"F8_E5M2": torch.float8_e5m2, "U16": torch.uint16, "C64": torch.complex64}
    changed = {name: tensor.to(kinds[dtype]) for name, tensor in tensors.items()}
    save_file(changed, folder / "model.safetensors")
    if dtype in {"F64", "F16", "BF16"}:
        assert survives(folder) is None
    else:
        refuse(folder, "stored as")


def test_nan_and_infinity_among_the_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    word = tensors[WORD].clone()
    word[7], word[8] = math.nan, math.inf
    save_file({**tensors, WORD: word}, folder / "model.safetensors")
    model = minitx.load(folder)
    for token in (7, 8):
        assert model(torch.tensor([[5, token]])).last_hidden_state.isnan().any()
    assert model(torch.tensor([[5, 6]])).last_hidden_state.isfinite().all()


def test_tensors_of_no_elements(folder: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    empty = torch.zeros(1, 0, dtype=torch.int64)
    save_file({**tensors, "bert.embeddings.position_ids": empty}, folder / "model.safetensors")
    assert survives(folder) is None
    minitx.save(minitx.load(folder), tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again["bert.embeddings.position_ids"].shape == (1, 0)
    save_file({**tensors, "more": torch.zeros(0)}, folder / "model.safetensors")
    refuse(folder, "does not have", "more")
    save_file({**tensors, WORD: torch.zeros(0, 16)}, folder / "model.safetensors")
    refuse(folder, WORD, "(0, 16)", "(40, 16)")


def test_missing_and_unexpected_tensors_are_listed(folder: Path, tensors: dict[str, Tensor]) -> None:
    gone = ["bert.embeddings.LayerNorm.bias", "bert.encoder.layer.0.output.dense.weight"]
    save_file({k: v for k, v in tensors.items() if k not in gone}, folder / "model.safetensors")
    refuse(folder, "lacks 2 tensors", *gone)
    more = {"bert.encoder.layer.1.output.dense.bias": torch.zeros(16), "stranger": torch.zeros(1)}
    save_file({**tensors, **more}, folder / "model.safetensors")
    refuse(folder, "has 2 tensors", *more)


@pytest.mark.parametrize(
    ("key", "value", "name", "shapes"),
    [
        ("hidden_size", 18, WORD, ("(40, 16)", "(40, 18)")),
        ("vocab_size", 41, WORD, ("(40, 16)", "(41, 16)")),
        ("max_position_embeddings", 9, "bert.embeddings.position_embeddings.weight", ("(12, 16)", "(9, 16)")),
        ("hidden_size", 10_000_000, WORD, ("(40, 16)", "(40, 10000000)")),
        ("intermediate_size", 10_000_000, "intermediate.dense.weight", ("(24, 16)", "(10000000, 16)")),
    ],
)
def test_a_shape_that_does_not_fit(
    folder: Path, weights: bytes, key: str, value: int, name: str, shapes: tuple[str, str]
) -> None:
    write(folder / "model.safetensors", weights)
    new_folder(folder, {**CONFIG, key: value})
    refuse(folder, name, *shapes)


def test_no_weights(folder: Path) -> None:
    refuse(folder, "no weights", "found config.json", kind=FileNotFoundError)
    (folder / "model.safetensors").mkdir()
    refuse(folder, kind=FileNotFoundError)


# --- an index --------------------------------------------------------------------------------------


@pytest.fixture
def sharded(folder: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """A folder with two shards; the weight map of its index."""
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    write_index(folder, {"weight_map": weight_map})
    return weight_map


def write_index(folder: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def test_the_index_loads(folder: Path, sharded: dict[str, str]) -> None:
    assert survives(folder) is None


@pytest.mark.parametrize(
    "file",
    [
        "../x",
        "../model/model-00001-of-00002.safetensors",
        "",
        ".",
        "..",
        "sub/../../x",
        "sub//x",
        "sub/",
        "/etc/passwd",
    ],
)
def test_an_index_that_points_outside(folder: Path, sharded: dict[str, str], file: str) -> None:
    write_index(folder, {"weight_map": {**sharded, WORD: file}})
    refuse(folder, "index.json", repr(file), "must be inside the folder")


@pytest.mark.parametrize(
    "file",
    ["gone.safetensors", "gone.bin", "a\0b", "\ud800", "x" * 5000],
    ids=repr,
)
def test_an_index_that_names_a_file_that_is_not_there(
    folder: Path, sharded: dict[str, str], file: str
) -> None:
    write_index(folder, {"weight_map": {**sharded, WORD: file}})
    error = survives(folder)  # a ValueError where no file could have such a name
    assert isinstance(error, ValueError | FileNotFoundError)
    assert "index" in str(error)


def test_a_shard_is_missing(folder: Path, sharded: dict[str, str]) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    refuse(folder, "model-00002-of-00002.safetensors is missing", kind=FileNotFoundError)


def test_a_tensor_that_its_shard_lacks(folder: Path, sharded: dict[str, str]) -> None:
    write_index(folder, {"weight_map": {**sharded, "not.there": "model-00001-of-00002.safetensors"}})
    refuse(folder, "no shard holds", "not.there")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": null}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": null}}',
        '{"weight_map": {"a": ["b"]}}',
        '{"weight_map": {"a": {"b": "c"}}}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "config.json"}}',
        "[" * 100_000,
        '{"weight_map":' * 100_000,
        "\0" * 100,
    ],
)
def test_an_index_that_is_none(folder: Path, sharded: dict[str, str], content: str) -> None:
    write_index(folder, content)
    refuse(folder)


@settings(fuzz, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.recursive(st.none() | st.text() | st.integers(), lambda x: st.dictionaries(st.text(), x)))
def test_any_json_as_weight_map(folder: Path, content: Any) -> None:
    write_index(folder, {"weight_map": content})
    assert survives(folder) is not None


# --- .bin ------------------------------------------------------------------------------------------


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def save_bin(path: Path, content: Any, form: str) -> None:
    """In the zip form of today, the legacy form of before torch 1.6, or a plain pickle."""
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


BIN_FORMS = ["zip", "legacy"]


@pytest.mark.parametrize("form", [*BIN_FORMS, "pickle"])
@pytest.mark.parametrize("place", ["whole", "value", "key", "beside"])
def test_code_in_a_bin_is_not_run(
    folder: Path, tensors: dict[str, Tensor], tmp_path: Path, form: str, place: str
) -> None:
    evil = Evil(tmp_path / "was-here")
    content: Any = {
        "whole": evil,
        "value": {WORD: evil},
        "key": {evil: torch.zeros(1)},
        "beside": {**tensors, "extra": evil},
    }[place]
    save_bin(folder / "pytorch_model.bin", content, form)
    refuse(folder, "pytorch_model.bin", "Nothing in it was run")
    assert not evil.marker.exists()
    pickle.loads(pickle.dumps(evil))  # the bait is real
    assert evil.marker.exists()


@pytest.mark.parametrize("form", BIN_FORMS)
def test_a_whole_bin_loads(folder: Path, tensors: dict[str, Tensor], form: str) -> None:
    save_bin(folder / "pytorch_model.bin", tensors, form)
    assert survives(folder) is None
    assert torch.equal(minitx.load(folder).embedder.word_emb.weight, tensors[WORD])


@pytest.mark.parametrize("form", BIN_FORMS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_a_truncated_bin(folder: Path, tensors: dict[str, Tensor], form: str, share: float) -> None:
    path = folder / "pytorch_model.bin"
    save_bin(path, tensors, form)
    content = path.read_bytes()
    write(path, content[: int(len(content) * share)])
    refuse(folder, "pytorch_model.bin")


@pytest.fixture(scope="module")
def bins(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("bins") / "pytorch_model.bin"
    found = {}
    for form in BIN_FORMS:
        save_bin(path, tensors, form)
        found[form] = path.read_bytes()
    return found


@settings(fuzz, max_examples=80)
@given(data=st.data(), form=st.sampled_from(BIN_FORMS))
def test_bytes_of_a_bin_overwritten(
    tmp_path_factory: pytest.TempPathFactory, bins: dict[str, bytes], form: str, data: st.DataObject
) -> None:
    content = bytearray(bins[form])
    for _ in range(data.draw(st.integers(1, 6))):
        # half of the blows go where the pickle is, not the numbers
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 3000))
        part = data.draw(st.binary(min_size=1, max_size=20))
        content[place : place + len(part)] = part
    folder = new_folder(tmp_path_factory.mktemp("bin"))
    write(folder / "pytorch_model.bin", bytes(content[: len(bins[form])]))
    survives(folder)


@fuzz
@given(content=st.binary(max_size=200))
def test_random_bytes_instead_of_a_bin(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = new_folder(tmp_path_factory.mktemp("bin"))
    write(folder / "pytorch_model.bin", content)
    refuse(folder, "pytorch_model.bin")


STRANGE: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.zeros(3),
    "list": lambda: [torch.zeros(3)],
    "number": lambda: {"a": 1},
    "none": lambda: {"a": None},
    "nested": lambda: {"a": {"b": torch.zeros(1)}},
    "nested-list": lambda: {"a": [torch.zeros(1)]},
    "empty": dict,
    "nothing": lambda: None,
    "seven": lambda: 7,
    "text": lambda: "text",
    "key-number": lambda: {1: torch.zeros(1)},
    "key-none": lambda: {None: torch.zeros(1)},
    "key-tuple": lambda: {("a", "b"): torch.zeros(1)},
    "state-number": lambda: {"state_dict": 3},
    "state-of-numbers": lambda: {"state_dict": {"a": 3}},
    "state-empty": lambda: {"state_dict": {}},
    "sparse": lambda: {WORD: torch.eye(3).to_sparse()},
    "csr": lambda: {WORD: torch.eye(3).to_sparse_csr()},
    "huge-view": lambda: {WORD: torch.zeros(1).expand(10**9, 10**9)},
    "huge-buffer": lambda: {"bert.embeddings.position_ids": torch.zeros(1).expand(10**12)},
}


@pytest.mark.parametrize("form", BIN_FORMS)
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.filterwarnings("ignore:Sparse (invariant|CSR)")
def test_a_bin_of_something_else(folder: Path, kind: str, form: str) -> None:
    save_bin(folder / "pytorch_model.bin", STRANGE[kind](), form)
    refuse(folder)


@pytest.mark.parametrize("form", BIN_FORMS)
@pytest.mark.parametrize("kind", ["sparse", "csr", "complex", "float8", "meta", "int8"])
@pytest.mark.filterwarnings("ignore:Sparse (invariant|CSR)")
def test_one_tensor_of_a_bin_is_of_a_kind_that_no_weight_is(
    folder: Path, tensors: dict[str, Tensor], form: str, kind: str
) -> None:
    word = tensors[WORD]
    other = {
        "sparse": word.to_sparse,
        "csr": word.to_sparse_csr,
        "complex": lambda: word.to(torch.complex64),
        "float8": lambda: word.to(torch.float8_e4m3fn),
        "meta": lambda: word.to("meta"),
        "int8": lambda: word.to(torch.int8),
    }[kind]()
    save_bin(folder / "pytorch_model.bin", {**tensors, WORD: other}, form)
    refuse(folder)


@pytest.mark.parametrize("form", BIN_FORMS)
def test_tensors_under_state_dict(folder: Path, tensors: dict[str, Tensor], form: str) -> None:
    save_bin(folder / "pytorch_model.bin", {"state_dict": tensors, "epoch": 3}, form)
    assert survives(folder) is None


@pytest.mark.parametrize("form", BIN_FORMS)
def test_parameters_and_views(folder: Path, tensors: dict[str, Tensor], form: str) -> None:
    changed: dict[str, Tensor] = {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}
    changed[WORD] = torch.stack([tensors[WORD], tensors[WORD]], dim=1)[:, 0]  # a view with gaps
    save_bin(folder / "pytorch_model.bin", changed, form)
    assert survives(folder) is None
    assert torch.equal(minitx.load(folder).embedder.word_emb.weight, tensors[WORD])


@pytest.mark.parametrize("form", BIN_FORMS)
def test_a_bin_written_on_a_gpu(
    folder: Path, tensors: dict[str, Tensor], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = folder / "pytorch_model.bin"
    save_bin(path, tensors, form)
    monkeypatch.undo()
    assert b"cuda:0" in path.read_bytes()
    if form == "legacy":  # old files name the storage's class after the device too
        write(path, path.read_bytes().replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage"))
    assert survives(folder) is None
    assert torch.equal(minitx.load(folder).embedder.word_emb.weight, tensors[WORD])


def test_a_sharded_bin(folder: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    names = sorted(tensors)
    weight_map = {}
    for i, members in enumerate((names[:9], names[9:])):
        save_bin(folder / f"pytorch_model-{i}.bin", {name: tensors[name] for name in members}, "zip")
        weight_map |= dict.fromkeys(members, f"pytorch_model-{i}.bin")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    assert survives(folder) is None
    save_bin(folder / "pytorch_model-1.bin", Evil(tmp_path / "was-here"), "zip")
    refuse(folder, "pytorch_model-1.bin", "Nothing in it was run")


# --- config.json -----------------------------------------------------------------------------------

ONE_LAYER = {"num_hidden_layers": 1, "n_layers": 1}  # enough for a config, and quick
BY_TYPE = {
    case.model_type: {k: ONE_LAYER.get(k, v) for k, v in case.config.items()}
    | {"model_type": case.model_type}
    for case in reversed(CASES)
}
# one type for each file of `architectures`; the others differ from it in name only
ONE_OF_EACH = {REGISTRY[kind]: kind for kind in sorted(BY_TYPE, reverse=True)}.values()
BAD = [
    "text",
    "",
    "7",
    -1,
    -0.5,
    2.5,
    10**12,
    10**18,
    10**400,
    1e300,
    math.nan,
    math.inf,
    -math.inf,
    None,
    True,
    [],
    [1],
    [[1]],
    ["full_attention", ["x"]],
    {},
    {"a": 1},
    {"full_attention": 3},
    {"full_attention": {"rope_theta": "x"}},
    {"full_attention": {"rope_theta": -1}},
    {"full_attention": {"rope_theta": None}},
]
REQUIRED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
SIZES = (*REQUIRED, "type_vocab_size")


def builds(config: Mapping[str, Any], key: str, head: str | None = None) -> bool:
    """Whether a config makes a model that runs; if not, the error must name the key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = minitx.from_config(config, head=head, seed=0)
        except ValueError as error:
            message = str(error)
        else:
            message = ""
        if message:
            enough = "activation=", "attention heads", "pad_token_id"
            named = key in message or any(part in message for part in enough)
            assert named, f"does not name {key}: {message}"
            return False
        length = 1 if key in ("max_position_embeddings", "n_positions") else 4
        run(model.eval(), ids(1, length) % model.config.inputs.vocab_size)
        return True


def test_every_registered_architecture_is_here() -> None:
    assert set(BY_TYPE) == set(REGISTRY)


@pytest.mark.parametrize(
    ("model_type", "key"), [(kind, key) for kind, config in BY_TYPE.items() for key in config]
)
def test_a_key_is_missing(model_type: str, key: str) -> None:
    config = {k: v for k, v in BY_TYPE[model_type].items() if k != key}
    with frugal():
        built = builds(config, key)
    optional = {("gpt_neo", "intermediate_size")}
    required = key in (*REQUIRED, "dim", "n_layers", "n_heads", "hidden_dim", "model_type")
    if required and (model_type, key) not in optional:
        assert not built


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        (kind, key)
        for kind in ONE_OF_EACH
        for key in {**BY_TYPE[kind], "classifier_dropout": None, "pad_token_id": None}
        if key not in known_keys(kind)
    ]
    + [
        ("bert", key)
        for key in (
            "architectures",
            "id2label",
            "num_labels",
            "problem_type",
            "is_decoder",
            "tie_word_embeddings",
            "quantization_config",
            "dtype",
        )
    ]
    + [
        ("modernbert", key)
        for key in ("layer_types", "rope_parameters", "local_rope_theta", "global_rope_theta", "norm_bias")
    ]
    + [
        ("deberta-v2", key)
        for key in (
            "position_buckets",
            "max_relative_positions",
            "norm_rel_ebd",
            "conv_kernel_size",
            "conv_groups",
            "attention_head_size",
            "share_att_key",
            "legacy",
        )
    ]
    + [("albert", key) for key in ("num_hidden_groups", "inner_group_num")]
    + [("mpnet", "relative_attention_num_buckets")],
)
def test_a_value_of_the_wrong_kind(model_type: str, key: str) -> None:
    config = BY_TYPE[model_type]
    # of the right kind, but perhaps not one that fits the others
    numbers = [1, 2, 3, 5, 7, 26] if isinstance(config.get(key, 0), int) else []
    with frugal():
        for value in [*BAD, *numbers]:
            builds({**config, key: value}, key)


@pytest.mark.parametrize("key", SIZES)
def test_sizes_are_whole_numbers(original: Path, folder: Path, key: str) -> None:
    write(folder / "model.safetensors", (original / "model.safetensors").read_bytes())
    for value in [*BAD, *([0] if key in REQUIRED else []), 10**9, 1.0]:
        new_folder(folder, {**CONFIG, key: value})
        refuse(folder, key)


def test_a_table_that_the_config_has_no_place_for(folder: Path, weights: bytes) -> None:
    write(folder / "model.safetensors", weights)
    new_folder(folder, {**CONFIG, "type_vocab_size": 0})
    refuse(folder, "does not have", "token_type_embeddings.weight")


@pytest.mark.parametrize("key", ["hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"])
def test_numbers_are_numbers(folder: Path, key: str) -> None:
    for value in ["text", -1, math.nan, math.inf, -math.inf, 10**400, None, True, [], {}]:
        new_folder(folder, {**CONFIG, key: value})
        refuse(folder, key)


def test_a_billion_layers(original: Path, folder: Path) -> None:
    write(folder / "model.safetensors", (original / "model.safetensors").read_bytes())
    for count in (10**9, 10**18):
        new_folder(folder, {**CONFIG, "num_hidden_layers": count})
        refuse(folder, "num_hidden_layers", str(count))


@pytest.mark.parametrize("groups", [{"inner_group_num": 10**6}, {"num_hidden_groups": 10**6}, None])
def test_a_million_layers_in_groups(groups: dict[str, int] | None) -> None:
    both = {"inner_group_num": 1000, "num_hidden_groups": 1000}
    with frugal():
        assert not builds({**BY_TYPE["albert"], **(groups or both)}, "_group")


def test_heads_that_do_not_divide_the_width(folder: Path) -> None:
    new_folder(folder, {**CONFIG, "num_attention_heads": 3})
    refuse(folder, "hidden_size=16", "3 attention heads")


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("hidden_act", "gelu_42", ["config.json: hidden_act='gelu_42' must be one of", "gelu_new"]),
        ("position_embedding_type", "relative_key", ["position_embedding_type", "relative_key", "absolute"]),
        ("is_decoder", True, ["is_decoder"]),
        ("add_cross_attention", True, ["add_cross_attention"]),
        ("pruned_heads", {"0": [1]}, ["pruned_heads"]),
        ("quantization_config", {"bits": 4}, ["quantization_config", "unquantised"]),
        ("model_type", "bertt", ["'bertt'", "Did you mean 'bert'?", "distilbert"]),
        ("model_type", "xlnet", ["'xlnet'", "not supported"]),
        ("model_type", "", ["model_type"]),
        ("model_type", None, ["model_type", 'such as "bert"']),
        ("model_type", ["bert"], ["model_type"]),
        ("pad_token_id", 40, ["pad_token_id", "40"]),
        ("pad_token_id", "-1", ["pad_token_id"]),
    ],
)
def test_what_minitx_does_not_implement(
    folder: Path, weights: bytes, key: str, value: Any, parts: list[str]
) -> None:
    write(folder / "model.safetensors", weights)
    new_folder(folder, {**CONFIG, key: value})
    refuse(folder, *parts)


def test_no_model_type(original: Path, folder: Path) -> None:
    new_folder(folder, {k: v for k, v in CONFIG.items() if k != "model_type"})
    write(folder / "model.safetensors", (original / "model.safetensors").read_bytes())
    refuse(folder, "model_type", 'such as "bert"')
    assert survives(folder, model_type="bert") is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"3", b'"bert"', b"\xff\xfe\x00", b"\0" * 50, b"[" * 10**6]
)
def test_a_config_that_is_none(folder: Path, content: bytes) -> None:
    write(folder / "config.json", content)
    refuse(folder, "config.json")


def test_numbers_too_long_to_read(folder: Path) -> None:
    text = json.dumps({**CONFIG, "hidden_size": "HERE"}).replace('"HERE"', "9" * 10_000)
    write(folder / "config.json", text.encode())
    refuse(folder, "config.json")


@pytest.mark.parametrize("depth", [500, 5_000, 1_000_000])
def test_a_config_nested_deeply(folder: Path, depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        text = f'{{"model_type": "bert", "hidden_size": {opening * depth}1{closing * depth}}}'
        write(folder / "config.json", text.encode())
        refuse(folder)


@fuzz
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_config(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = new_folder(tmp_path_factory.mktemp("config"))
    content = (folder / "config.json").read_bytes()
    write(folder / "config.json", content[: int(len(content) * share)])
    refuse(folder, "config.json", "not valid JSON")


@settings(fuzz, max_examples=200)
@given(
    changes=st.dictionaries(
        st.sampled_from([*CONFIG, "num_labels", "id2label", "classifier_dropout", "problem_type"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_json_in_the_config(scratch: Path, weights: bytes, changes: dict[str, Any]) -> None:
    write(scratch / "model.safetensors", weights)
    new_folder(scratch, {**CONFIG, **changes})
    try:
        survives(scratch)
    finally:
        new_folder(scratch)


def test_config_is_missing(tmp_path: Path) -> None:
    refuse(tmp_path, "no config.json", kind=FileNotFoundError)


# --- saving ----------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "present",
    [
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model-1-of-2.safetensors",
    ],
)
def test_saving_beside_other_weights_is_refused(folder: Path, original: Path, present: str) -> None:
    (folder / present).write_bytes(b"mine")
    before = snapshot(folder)
    with pytest.raises(FileExistsError, match=present):
        minitx.save(minitx.load(original), folder)
    assert snapshot(folder) == before


def test_saving_shards_beside_one_file_is_refused(folder: Path, original: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"mine")
    before = snapshot(folder)
    with pytest.raises(FileExistsError, match=r"model\.safetensors"):
        minitx.save(minitx.load(original), folder, max_shard_size=4000)
    assert snapshot(folder) == before


class FullDisk:
    """Stands in for `write_values`: works `good` times, then the disk is full halfway through."""

    def __init__(self, good: int) -> None:
        self.good = good

    def __call__(self, file: BinaryIO, tensor: Tensor) -> int:
        self.good -= 1
        if self.good < 0:
            file.write(b"\0")
            raise OSError(28, "No space left on device")
        return write_values(file, tensor)


@pytest.mark.parametrize("shards", [None, 4000])
def test_a_disk_that_fills_up(
    tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch, shards: int | None
) -> None:
    """The old model is still there, whole: not a mixture of the old and the new, and no litter."""
    target = tmp_path / "target"
    minitx.save(minitx.load(original), target, max_shard_size=shards)
    before = snapshot(target)
    other = minitx.from_config(CONFIG, seed=9)
    monkeypatch.setattr("minitx.checkpoint.write.write_values", FullDisk(good=2))
    with pytest.raises(OSError, match="No space left"):
        minitx.save(other, target, max_shard_size=shards)
    after = snapshot(target)
    assert sorted(after) == sorted(before)
    assert after == before


def test_a_disk_that_fills_up_leaves_no_new_folder(
    tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.checkpoint.write.write_values", FullDisk(good=0))
    with pytest.raises(OSError, match="No space left"):
        minitx.save(minitx.load(original), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("shards", [None, 4000])
def test_saving_over_what_is_mapped(tmp_path: Path, original: Path, shards: int | None) -> None:
    """The tensors of a loaded model lie in the file; writing to it in place would end the process."""
    target = tmp_path / "target"
    minitx.save(minitx.load(original), target, max_shard_size=shards)
    before = snapshot(target)
    model = minitx.load(target)
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        minitx.save(model, target)
        assert snapshot(target) == before
        assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        model.embedder.word_emb.weight.add_(1)
    assert snapshot(target) == before, "changing the model changed the file"
    minitx.save(model, target)
    assert torch.equal(minitx.load(target).embedder.word_emb.weight, values["embedder.word_emb.weight"] + 1)


def test_saving_where_a_file_is(tmp_path: Path, original: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OSError, match="file"):
        minitx.save(minitx.load(original), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


# --- what a model is called with -------------------------------------------------------------------

# Those that are called with ids alone; what others are called with is in test_encoder_decoder.py.
HEADS = ("token-classification", "causal-lm")
MODELS = sorted(kind for kind in BY_TYPE if not set(HEADS).isdisjoint(architecture(kind).head_weights))


@pytest.fixture(scope="module")
def model(original: Path) -> minitx.EncoderModel:
    return minitx.load(original)


@pytest.fixture(scope="module", params=MODELS)
def any_model(request: pytest.FixtureRequest) -> minitx.EncoderModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tasks = architecture(request.param).head_weights
        head = next(task for task in HEADS if task in tasks)
        return minitx.from_config(BY_TYPE[request.param], head=head, seed=0).eval()


@pytest.mark.parametrize("bad", [-1, 99, 2**31, -(2**40)])
def test_ids_outside_the_vocabulary(any_model: minitx.EncoderModel, bad: int) -> None:
    tokens = ids()
    tokens[1, 2] = bad
    with pytest.raises(ValueError, match=f"input_ids={bad} must be from 0 to 98; does the tokenizer belong"):
        any_model(tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int16, torch.float16])
def test_ids_of_the_wrong_dtype(any_model: minitx.EncoderModel, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"input_ids=.* must be of dtype torch.long"):
        any_model(ids().to(dtype))


def test_int32_ids(any_model: minitx.EncoderModel) -> None:
    assert torch.equal(any_model(ids().int()).logits, any_model(ids()).logits)


@pytest.mark.parametrize("shape", [(), (5,), (2, 0), (0, 0), (1, 2, 5), (1, 1, 1, 5)])
def test_ids_of_the_wrong_shape(any_model: minitx.EncoderModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError,
        match=r"input_ids=.* must be a tensor of shape \(batch, time\).*, not",
    ):
        any_model(torch.full(shape, 5))


@pytest.mark.parametrize("mask", [False, True])
def test_a_batch_of_no_texts(any_model: minitx.EncoderModel, mask: bool) -> None:
    tokens = torch.zeros(0, 5, dtype=torch.long)
    out = any_model(tokens, attention_mask=torch.ones(0, 5) if mask else None)
    assert out.last_hidden_state.shape == (0, 5, any_model.config.stack.hidden_size)
    assert out.logits.shape[:2] == (0, 5)


def test_a_text_longer_than_the_positions(any_model: minitx.EncoderModel) -> None:
    embedder = any_model.embedder
    for length in (embedder.config.max_position_embeddings + 1, 500):
        if embedder.has_position_table:
            with pytest.raises(ValueError, match=f"has {length} tokens; pass truncation=True"):
                any_model(ids(1, length))
        else:  # only relative positions: no text is too long
            assert any_model(ids(1, length)).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("shape", [(2,), (2, 4), (2, 6), (1, 5), (2, 1, 5), (2, 1, 1, 5), (5, 2), (2, 5, 4)])
def test_a_mask_of_the_wrong_shape(any_model: minitx.EncoderModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"attention_mask=.* must be of shape"):
        any_model(ids(), attention_mask=torch.ones(shape))


@pytest.mark.parametrize("value", [-10000.0, -math.inf, math.nan, 0.5, 2, -1, torch.finfo(torch.float32).min])
def test_a_mask_of_other_values(any_model: minitx.EncoderModel, value: float) -> None:
    mask = torch.ones(2, 5)
    mask[0, 3:] = value
    with pytest.raises(ValueError, match=r"attention_mask=.* must be of the values 0 and 1"):
        any_model(ids(), attention_mask=mask)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.int32, torch.uint8, torch.float32, torch.float16]
)
def test_masks_of_every_dtype(any_model: minitx.EncoderModel, dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = any_model(ids(), attention_mask=mask).logits
    assert torch.equal(any_model(ids(), attention_mask=mask.to(dtype)).logits, expected)


def test_a_mask_of_nothing(any_model: minitx.EncoderModel) -> None:
    out = any_model(ids(), attention_mask=torch.tensor([[0] * 5, [1] * 5]))
    assert out.logits.isfinite().all()


@pytest.mark.parametrize("bad", [-1, 2, 10**9])
def test_token_types_out_of_range(model: minitx.EncoderModel, bad: int) -> None:
    types = torch.zeros(2, 5, dtype=torch.long)
    types[1, 4] = bad
    with pytest.raises(ValueError, match=f"token_type_ids={bad} must be from 0 to 1"):
        model(ids(), token_type_ids=types)


def test_token_types_of_the_wrong_shape_or_dtype(model: minitx.EncoderModel) -> None:
    for shape in ((2, 4), (1, 5), (5,), (2, 5, 1)):
        with pytest.raises(ValueError, match=r"token_type_ids=.* must be a tensor of shape .* like"):
            model(ids(), token_type_ids=torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match=r"token_type_ids=.* must be of dtype torch.long"):
        model(ids(), token_type_ids=torch.zeros(2, 5))


def test_positions_out_of_range_or_shape(model: minitx.EncoderModel) -> None:
    for bad in (-1, 12):
        with pytest.raises(ValueError, match=f"position_ids={bad} must be from 0 to 11"):
            model(ids(), position_ids=torch.full((2, 5), bad))
    for shape in ((5,), (2, 4), (3, 5)):
        with pytest.raises(ValueError, match=r"position_ids=.* must be a tensor of shape .* like"):
            model(ids(), position_ids=torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match=r"position_ids=.* must be of dtype torch.long"):
        model(ids(), position_ids=torch.zeros(2, 5))


def test_choices_of_other_shapes() -> None:
    choice = minitx.from_config(CONFIG, head="multiple-choice", seed=0).eval()
    tokens = ids(6).reshape(2, 3, 5)
    assert choice(tokens, attention_mask=torch.ones(2, 3, 5)).logits.shape == (2, 3)
    for shape in ((2,), (2, 5), (2, 3), (2, 2, 5), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"attention_mask=.* must be a tensor of shape"):
            choice(tokens, attention_mask=torch.ones(shape))
        with pytest.raises(ValueError, match=r"token_type_ids=.* must be a tensor of shape .* like"):
            choice(tokens, token_type_ids=torch.zeros(shape, dtype=torch.long))


def test_an_unknown_head_or_attention(original: Path) -> None:
    with pytest.raises(ValueError, match=r"head='masked' must be one of .*masked-lm"):
        minitx.load(original, head="masked")
    with pytest.raises(ValueError, match="attention='flash' must be one of 'eager', 'sdpa'"):
        minitx.load(original, attention="flash")
    with pytest.raises(ValueError, match="init_head=True"):
        minitx.load(original, num_labels=3)


@pytest.mark.parametrize("shards", [None, 4000])
def test_weights_in_memory_do_not_follow_the_file(tmp_path: Path, original: Path, shards: int | None) -> None:
    """`mmap=False`: another program may write into the files in place; the default follows them."""
    minitx.save(minitx.load(original), tmp_path / "model", max_shard_size=shards)
    mapped, read = minitx.load(tmp_path / "model"), minitx.load(tmp_path / "model", mmap=False)
    before = {name: tensor.clone() for name, tensor in read.state_dict().items()}
    for path in (tmp_path / "model").glob("*.safetensors"):
        with path.open("r+b") as file:
            header = int.from_bytes(file.read(8), "little")
            file.seek(8 + header)
            file.write(bytes(path.stat().st_size - 8 - header))
    assert all(torch.equal(tensor, before[name]) for name, tensor in read.state_dict().items())
    assert not all(torch.equal(tensor, before[name]) for name, tensor in mapped.state_dict().items())
