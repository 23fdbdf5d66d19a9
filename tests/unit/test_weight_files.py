"""Tensors that are read instead of mapped: the header once a file, and never less than a whole tensor."""

from __future__ import annotations

import json
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


def tensors_of(model: minitx.DecoderModel) -> dict[str, torch.Tensor]:
    from minitx.checkpoint.save import stored_tensors

    _, groups = stored_tensors(model, model.checkpoint)
    return {name: tensor for group in groups for name, tensor in group().items()}
