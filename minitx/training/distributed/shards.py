"""Tensors in shards, written and read by PyTorch's distributed checkpoints (DCP).

The shards are stored in safetensors files, DCP's storage for Hugging Face's format: `shard-00001-...` holds
those of the first process, and their places in the full tensors. DCP's usual storage has a pickled
`.metadata` instead, and reading that runs code of whoever wrote it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes the shards of this process; all processes must call it.

    Args:
        folder: on a file system that all processes share.
        tensors: by name. Those that are not distributed are equal in all processes that have them.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(dict(tensors), storage_writer=writer)


def read_shards(folder: Path, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Reads tensors from their shards, whatever the number of processes that wrote them.

    Args:
        folder: of `write_shards`.
        parameters: of the model by name. All processes call this, and each gets its shards of the parameters
            and of the states of their optimizer. None: one process reads full tensors alone.
    """
    reader = HuggingFaceStorageReader(str(folder))
    tensors: dict[str, Tensor] = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(stored, TensorStorageMetadata), "the reader has tensors alone"
        dtype, like = stored.properties.dtype, owner(name, stored.size, parameters or {})
        empty = torch.empty(stored.size, dtype=dtype)
        tensors[name] = empty if like is None else torch.empty_like(like, dtype=dtype)
    reader = HuggingFaceStorageReader(str(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # it may be
        load(tensors, storage_reader=reader, no_dist=parameters is None)
    return tensors


def read_full(path: Path, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the shards of this process from the file of one process.

    Args:
        path: of a safetensors file.
        parameters: of the model by name, as for `read_shards`.
    """
    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            tensor = file.get_tensor(name)
            like = owner(name, tensor.shape, parameters)
            if isinstance(like, DTensor):
                tensor = tensor.to(like.device)
                tensor = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
            tensors[name] = tensor
    return tensors


def owner(name: str, shape: torch.Size, parameters: Mapping[str, Tensor]) -> Tensor | None:
    """Returns the parameter that a tensor of a checkpoint is distributed like; None: it is not.

    Args:
        name: "model.PARAMETER", "optimizer.KEY.PARAMETER", or another.
        shape: of the tensor; states such as a number of steps have another than their parameter.
        parameters: by name.
    """
    kind, _, rest = name.partition(".")
    if kind not in ("model", "optimizer"):
        return None
    parameter = parameters.get(rest if kind == "model" else rest.partition(".")[2])
    return parameter.detach() if parameter is not None and parameter.shape == shape else None
