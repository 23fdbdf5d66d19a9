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
