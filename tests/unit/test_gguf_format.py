"""The GGUF format: values of every type as ggml's, and damaged files, of which none may do harm."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.checkpoint.gguf.dequantize import dequantize
from minitx.checkpoint.gguf.header import open_gguf
from minitx.checkpoint.gguf.kinds import KINDS, OTHERS
from minitx.checkpoint.gguf.metadata import shortest
from tests.gguf_files import CONFIGS, write_gguf

QUANTISED = [number for number, kind in KINDS.items() if not kind.is_plain]


@pytest.mark.parametrize("number", QUANTISED, ids=lambda number: KINDS[number].name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_blocks_are_dequantised_bit_for_bit(number: int) -> None:
    """Random bytes are valid blocks of every type; those whose scale is not finite are left out."""
    kind = KINDS[number]
    assert (kind.name, gguf.GGML_QUANT_SIZES[Kind(number)]) == (Kind(number).name, (kind.block, kind.nbytes))
    raw = np.random.default_rng(number).integers(0, 256, (6_000, kind.nbytes), dtype=np.uint8)
    expected = gguf.quants.dequantize(raw, Kind(number))
    values = dequantize(torch.from_numpy(raw.reshape(-1)), kind).view(expected.shape).numpy()
    finite = np.isfinite(expected).all(axis=1)
    assert finite.mean() > 0.9
    assert np.array_equal(values.view(np.uint32)[finite], expected.view(np.uint32)[finite])


def test_the_other_types_are_known_by_name() -> None:
    assert {number: Kind(number).name for number in OTHERS} == OTHERS
    assert {number: kind.name for number, kind in KINDS.items() if kind.is_plain} == {
        number: Kind(number).name for number, kind in KINDS.items() if kind.is_plain
    }


@pytest.mark.parametrize("number", QUANTISED, ids=lambda number: KINDS[number].name)
def test_values_have_a_dtype_and_a_device_of_their_own(number: int) -> None:
    """Neither the default dtype nor the default device counts, but where the bytes are."""
    kind = KINDS[number]
    data = torch.arange(3 * kind.nbytes).to(torch.uint8)
    expected = dequantize(data, kind)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            values = dequantize(data, kind)
    finally:
        torch.set_default_dtype(default)
    assert values.dtype == torch.float32
    assert values.is_cpu
    assert torch.equal(values.view(torch.int32), expected.view(torch.int32))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8, np.int16, np.int32, np.int64])
def test_plain_values_are_as_stored(dtype: Any) -> None:
    values = np.arange(-8, 8).astype(dtype)
    kind = next(kind for kind in KINDS.values() if kind.is_plain and kind.dtype == _torch_dtype(dtype))
    read = dequantize(torch.from_numpy(values.view(np.uint8).copy()), kind)
    assert torch.equal(read, torch.from_numpy(values))


def _torch_dtype(dtype: Any) -> torch.dtype:
    return torch.from_numpy(np.zeros(1, dtype)).dtype


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_shortened_number_is_the_same_float32(value: float) -> None:
    assert np.float32(shortest(value)) == np.float32(value)


def test_numbers_are_as_short_as_they_were_written() -> None:
    written = (1e-5, 1e-6, 0.1, 500_000.0, 30.0)
    assert tuple(shortest(float(np.float32(value))) for value in written) == written
    assert shortest(0.1234567890123) == 0.1234567890123  # a double


# --- metadata ----------------------------------------------------------------------------------------


def test_every_type_of_value_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    values = {
        "uint8": 200,
        "int8": -3,
        "uint16": 60_000,
        "int16": -9,
        "uint32": 4_000_000_000,
        "int32": -7,
        "uint64": 2**63,
        "int64": -(2**62),
        "float32": 0.5,
        "float64": 0.1,
        "bool": True,
        "string": "▁é",
    }
    for name, value in values.items():
        getattr(writer, f"add_{name}")(f"x.{name}", value)
    lists: dict[str, list[Any]] = {
        "texts": ["a", "é", ""],
        "numbers": [3, -4],
        "floats": [0.5],
        "flags": [True],
    }
    for name, value in lists.items():
        writer.add_array(f"x.{name}", value)
    writer.add_custom_alignment(64)
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    _finish(writer)
    file = open_gguf(tmp_path / "a.gguf")
    assert {name: file.metadata[f"x.{name}"] for name in values} == values
    assert {name: [*file.metadata[f"x.{name}"]] for name in lists} == lists
    assert (file.version, file.tensors["t"].shape, file.tensors["t"].begin % 64) == (3, (2, 3), 0)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# --- damaged files -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a tiny GPT-2 with quantised weights."""
    folder = tmp_path_factory.mktemp("gpt2")
    config = {**CONFIGS["gpt2"], "n_layer": 1, "n_embd": 32, "vocab_size": 32}
    model = minitx.from_config({"model_type": "gpt2", **config}, head="causal-lm", seed=0)
    minitx.save(model, folder)
    write_gguf(folder / "a.gguf", "gpt2", config, folder, kind=Kind.Q8_0)
    return (folder / "a.gguf").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.gguf"


def attempt(place: Path, content: bytes) -> str:
    """Loads these bytes; returns the message of the error, or "" without one. Anything else is a failure."""
    place.write_bytes(content)
    message = ""
    try:
        minitx.load(place)
    except ValueError as error:
        message = str(error)
    assert not message or str(place) in message or "config.json" in message
    return message


def first_value(place: Path) -> int:
    """Returns the length of the header."""
    return min(tensor.begin for tensor in open_gguf(place).tensors.values())


def test_a_file_that_is_cut_short_is_refused(content: bytes, place: Path) -> None:
    assert attempt(place, content) == ""
    header = first_value(place)
    for size in [*range(0, header, 31), *range(header, len(content), 3_001)]:
        assert attempt(place, content[:size]), size


def test_version_2_is_read_too(content: bytes, place: Path) -> None:
    assert attempt(place, content[:4] + struct.pack("<I", 2) + content[8:]) == ""


@pytest.mark.parametrize(
    ("at", "new", "words"),
    [
        (0, b"GGML", "no GGUF file"),
        (4, struct.pack("<I", 1), "version 1"),
        (4, struct.pack("<I", 4), "version 4"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**63 - 1), "more than its"),
        (8, struct.pack("<Q", 2**64 - 1), "more than its"),
        (16, struct.pack("<Q", 2**60), "more than its"),
        (24, struct.pack("<Q", 2**63), "cut short or damaged"),
        (24, struct.pack("<Q", 2**64 - 1), "cut short or damaged"),
    ],
)
def test_a_false_header_is_refused(at: int, new: bytes, words: str, content: bytes, place: Path) -> None:
    assert words in attempt(place, content[:at] + new + content[at + len(new) :])


def _table_entry(content: bytes, name: bytes) -> int:
    """Returns where the number of dimensions of a tensor lies."""
    return content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)


@pytest.mark.parametrize(
    ("field", "new", "words"),
    [
        (0, struct.pack("<I", 5), "5 dimensions"),
        (0, struct.pack("<I", 0), "0 dimensions"),
        (4, struct.pack("<Q", 33), "the shape"),
        (4, struct.pack("<Q", 2**63), "the shape"),
        (4, struct.pack("<Q", 2**32), "ends at byte"),
        (12, struct.pack("<Q", 0), "the shape"),
        (12, struct.pack("<Q", 2**63 + 1), "the shape"),
        (20, struct.pack("<I", 16), "IQ2_XXS"),
        (20, struct.pack("<I", 4), "number 4"),
        (24, struct.pack("<Q", 7), "no multiple of 32"),
        (24, struct.pack("<Q", 2**63), "ends at byte"),
        (24, struct.pack("<Q", 2**64 - 32), "ends at byte"),
    ],
)
def test_a_false_tensor_is_refused(field: int, new: bytes, words: str, content: bytes, place: Path) -> None:
    at = _table_entry(content, b"token_embd.weight") + field
    assert words in attempt(place, content[:at] + new + content[at + len(new) :])


def test_tensors_that_overlap_or_repeat_are_refused(content: bytes, place: Path) -> None:
    first, second = (
        _table_entry(content, name) + 24 for name in (b"blk.0.ffn_up.weight", b"blk.0.attn_qkv.weight")
    )
    overlapping = content[:first] + content[second : second + 8] + content[first + 8 :]
    assert "overlap" in attempt(place, overlapping)
    assert "twice" in attempt(place, content.replace(b"blk.0.ffn_down.bias", b"blk.0.attn_qkv.bias"))


def test_a_vocabulary_cannot_be_larger_than_the_file(content: bytes, place: Path) -> None:
    key = b"tokenizer.ggml.bos_token_id"
    at = content.index(key) + len(key)
    for inner, count in ((8, 2**40), (8, 2**64 - 1), (4, 2**62), (9, 1), (77, 1)):
        value = struct.pack("<IIQ", 9, inner, count)
        assert attempt(place, content[:at] + value + content[at + len(value) :])


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_flipped_bytes_of_the_header_do_no_harm(
    changes: list[tuple[float, int]], content: bytes, place: Path
) -> None:
    """A file loads or is refused by a ValueError; no number in it leads to a large allocation."""
    place.write_bytes(content)
    damaged, length = bytearray(content), first_value(place)
    for share, byte in changes:
        damaged[int(share * length)] = byte
    attempt(place, bytes(damaged))


def test_a_file_that_shrinks_after_it_was_opened_is_noticed(content: bytes, place: Path) -> None:
    from minitx.checkpoint.gguf.checkpoint import gguf_tensors

    place.write_bytes(content)
    tensors = gguf_tensors(place)
    header = first_value(place)
    with place.open("r+b") as file:
        file.truncate(header)
    with pytest.raises(ValueError, match="fetch it again"):
        tensors.read("transformer.h.0.mlp.c_fc.weight")
