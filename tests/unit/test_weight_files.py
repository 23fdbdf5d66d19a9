"""Tensors that are read instead of mapped: the header once a file, and never less than a whole tensor."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import minitx
from minitx.checkpoint.files import open_folder
from tests.parity.cases import CASES

MIXTRAL: dict[str, Any] = next(
    {**case.config, "model_type": "mixtral"} for case in CASES if case.model_type == "mixtral"
)


@pytest.mark.parametrize("size", [None, 20_000])
def test_a_header_is_parsed_once_a_file(
    tmp_path: Path, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    minitx.save(minitx.from_config(MIXTRAL, seed=0), tmp_path, max_shard_size=size)
    parse, headers = json.loads, []

    def counted(content: Any, **options: Any) -> Any:
        if b"data_offsets" in bytes(content if isinstance(content, bytes) else b""):
            headers.append(content)
        return parse(content, **options)

    monkeypatch.setattr(json, "loads", counted)
    minitx.load(tmp_path)
    assert 0 < len(headers) == len(set(headers)) <= len(list(tmp_path.glob("*.safetensors")))


def test_every_tensor_as_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {
        f"t{i}": torch.randn(i + 1, 3).to(dtype) for i, dtype in enumerate((torch.float64, torch.half))
    }
    save_file({**tensors, "none": torch.empty(0, 3)}, tmp_path / "model.safetensors", {"format": "pt"})
    opened = open_folder(tmp_path)
    for name, tensor in tensors.items():
        assert torch.equal(opened.read(name, mapped=False), tensor)
        assert torch.equal(opened.read(name), tensor)
    assert opened.read("none", mapped=False).shape == (0, 3)


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(4)}, path)
    tensors = open_folder(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    assert torch.equal(tensors.read("a", mapped=False), torch.ones(4))
    with pytest.raises(
        ValueError, match=r"model.safetensors: not a complete .* ends within b\); fetch it again"
    ):
        tensors.read("b", mapped=False)


def test_shards_in_a_subfolder(tmp_path: Path) -> None:
    model = minitx.from_config(MIXTRAL, seed=0)
    minitx.save(model, tmp_path / "one", max_shard_size=20_000)
    index = json.loads((tmp_path / "one/model.safetensors.index.json").read_text())
    (tmp_path / "one/parts").mkdir()
    for file in set(index["weight_map"].values()):
        (tmp_path / "one" / file).rename(tmp_path / "one/parts" / file)
    index["weight_map"] = {name: f"parts/{file}" for name, file in index["weight_map"].items()}
    (tmp_path / "one/model.safetensors.index.json").write_text(json.dumps(index))
    loaded = minitx.load(tmp_path / "one")
    minitx.save(loaded, tmp_path / "two")
    again = minitx.load(tmp_path / "two")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
        assert torch.equal(again.state_dict()[name], tensor)
    assert sorted(path.name for path in tmp_path.glob("two/parts/*")) == sorted(
        path.name for path in tmp_path.glob("one/parts/*")
    )


def test_numbers_beside_the_tensors_of_a_bin(tmp_path: Path) -> None:
    model = minitx.from_config(MIXTRAL, seed=0)
    minitx.save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"step": 3, **tensors_of(model), "note": "x", "loss": 0.5}, tmp_path / "pytorch_model.bin")
    assert model.state_dict().keys() == minitx.load(tmp_path).state_dict().keys()
    torch.save({"step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected a state dict"):
        minitx.load(tmp_path)


def rewritten(path: Path, contents: dict[str, bytes]) -> None:
    """Writes an archive as torch does, with each record at a multiple of 64 bytes."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            record = zipfile.ZipInfo(name)
            padding = -(file.tell() + 34 + len(name)) % 64
            record.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(record, content)


def records_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


@pytest.mark.parametrize("mapped", [True, False])
def test_records_of_a_bin_have_the_sizes_of_its_tensors(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(4), "b": torch.zeros(50), "c": torch.zeros(3, dtype=torch.bfloat16)}, path)
    records = records_of(path)
    rewritten(path, records)
    assert torch.equal(open_folder(tmp_path, mapped=mapped).read("a"), torch.ones(4))
    first, second = "pytorch_model/data/0", "pytorch_model/data/1"
    rewritten(path, {**records, first: records[second], second: records[first]})
    with pytest.raises(ValueError, match=r"pytorch_model.bin: not a file of plain tensors, or damaged"):
        open_folder(tmp_path, mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False])
def test_records_of_a_bin_are_where_the_archive_states(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(4), "b": torch.zeros(4)}, path)
    content = bytearray(path.read_bytes())
    header = content.rfind(b"PK\3\4", 0, content.find(b"pytorch_model/data/0"))
    content[header + 28] += 8  # the length of what is before the values
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"record pytorch_model/data/0 is not where the archive states"):
        open_folder(tmp_path, mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_tensor_that_repeats_its_values(tmp_path: Path, mapped: bool) -> None:
    torch.save({"a": torch.ones(1).expand(10**6)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin: a repeats its values"):
        open_folder(tmp_path, mapped=mapped)


def tensors_of(model: minitx.DecoderModel) -> dict[str, torch.Tensor]:
    from minitx.checkpoint.save import stored_tensors

    _, groups = stored_tensors(model, model.checkpoint)
    return {name: tensor for group in groups for name, tensor in group().items()}
