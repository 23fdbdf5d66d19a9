"""A GGUF file in the place of a folder: its config, and its tensors by the names of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minitx.checkpoint.gguf.config import read_config
from minitx.checkpoint.gguf.header import open_gguf
from minitx.checkpoint.gguf.rope import TABLES
from minitx.checkpoint.gguf.tensors import GgufTensors, checkpoint_tensors


def gguf_config(path: Path) -> dict[str, Any]:
    """Returns the content of the config.json that describes the model of a GGUF file.

    Raises:
        ValueError: as `open_gguf` and `read_config`.
    """
    return read_config(open_gguf(path))[0]


def gguf_tensors(path: Path, *, mapped: bool = True) -> GgufTensors:
    """Opens the tensors of a GGUF file.

    Args:
        path: of the file.
        mapped: map values that are stored as they are needed.

    Raises:
        ValueError: as `gguf_config`; tensors that the architecture does not have.
    """
    file = open_gguf(path)
    config, family = read_config(file)
    layers = config.get("num_hidden_layers") or config["n_layer"]
    heads = config.get("num_attention_heads") or config["n_head"]
    shared = config.get("num_key_value_heads", heads)
    return checkpoint_tensors(file, family, layers, (heads, shared), unused=TABLES, mapped=mapped)
