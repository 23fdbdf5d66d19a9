"""Where a model's weights came from: what `save` needs to write them back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.architectures.declaration import Architecture
from minitx.checkpoint.files import GENERATION
from minitx.io import parse_json


@dataclass
class Checkpoint:
    """The record that `minitx.load` leaves on a model as `model.checkpoint`.

    Attributes:
        architecture: how the names translate.
        model_type: of config.json.
        config: config.json as read.
        folder: where the files lay; what the checkpoint says of sentence embeddings is read from there.
        generation_file: the bytes of generation_config.json, where there is one; `save` writes them back.
        names: parameters of one row of the weight table -> the names that the file used for them.
        kept: tensors of the file that the model has no place for (buffers, another task's head).
        dtype: of the word embedding when it was loaded; what is kept follows a later change of it.
        files: name -> file, where the checkpoint was sharded.
        metadata: free text of the safetensors header.
    """

    architecture: Architecture
    model_type: str
    config: Mapping[str, Any]
    folder: Path | None = None
    generation_file: bytes | None = None
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    files: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def generation(self) -> dict[str, Any] | None:
        """generation_config.json as read, None where there is none.

        It is parsed here and not by `load`: a damaged one is of no matter to whoever does not generate.

        Raises:
            ValueError: not JSON, or not an object.
        """
        if self.generation_file is None:
            return None
        return parse_json(self.generation_file, (self.folder or Path()) / GENERATION)
