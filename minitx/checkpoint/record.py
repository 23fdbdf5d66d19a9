"""`model.checkpoint`: the record that lets `minitx.save` write a model back as it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import NATIVE, Architecture
from minitx.architectures.mapping import entries
from minitx.architectures.native import native_config
from minitx.checkpoint.files import GENERATION
from minitx.checkpoint.generation import StatedSettings, stated_settings
from minitx.io import parse_json
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.models import Model
from minitx.models.resize import with_entries


@dataclass
class Checkpoint:
    """The origin of a model's weights, set by `minitx.load` and `minitx.from_config`.

    Attributes:
        architecture: the weight table and class names.
        model_type: `model_type` of config.json.
        config: config.json as read, `id2label` included.
        folder: folder of the checkpoint; None for `from_config`.
        generation_file: bytes of generation_config.json, or None; `save` writes them back unchanged.
        names: parameters of one entry of the weight table -> the names that the file used for them.
        untied: tied parameters for which the file had separate tensors.
        unused_tensors: tensors of the file that the model does not use (buffers, another task's head).
        dtype: dtype of the weights when loaded; `unused_tensors` follow a later change of it.
        dtypes: name -> dtype in the file and dtype of the parameter, of tensors for which they differ
            although none was asked for; `save` converts them back.
        files: name -> file, if the checkpoint was sharded.
        metadata: metadata of the safetensors header.
        ignored_keys: keys of config.json that were left out by `ignore_keys`.
        sentence_files: files of sentence-transformers, name -> content: `embed` follows them, and `save`
            writes them back.
    """

    architecture: Architecture
    model_type: str
    config: Mapping[str, Any]
    folder: Path | None = None
    generation_file: bytes | None = None
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    untied: frozenset[str] = frozenset()
    unused_tensors: dict[str, Tensor] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    dtypes: dict[str, tuple[torch.dtype, torch.dtype]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    ignored_keys: tuple[str, ...] = ()
    sentence_files: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_native(self) -> bool:
        """Whether config.json is minitx's own, with a `ModelConfig` under it."""
        return self.model_type == NATIVE

    @property
    def attention(self) -> str:
        """The name of the attention that the model was saved with; "sdpa" in files of other libraries."""
        return str(self.config.get("attention", "sdpa")) if self.is_native else "sdpa"

    @property
    def id2label(self) -> dict[int, str]:
        """The names of the labels by index; "LABEL_0", "LABEL_1", ... if config.json has none.

        Raises:
            ArgumentValueError: keys that are not indices.
        """
        names = self.config.get("id2label")
        if isinstance(names, Mapping) and names:
            if not all(str(index).isdecimal() for index in names):
                expected = "an object whose keys are the indices of the labels"
                raise ConfigReader(self.config).error("id2label", names, expected)
            return {int(index): str(name) for index, name in names.items()}
        return {index: f"LABEL_{index}" for index in range(ConfigReader(self.config).num_labels())}

    def resize_vocabulary(self, model: Model, side: str | None) -> None:
        """Writes the vocabulary size of a resized model into the config, and resizes unused tables too.

        Args:
            model: with its new size.
            side: "encoder" or "decoder" if only that side was resized.
        """
        config = dict(self.config)
        if self.is_native:
            head = None if model.head is None else model.head.config
            self.config = config | native_config(model.config, head)
            return
        sizes = {"encoder": model.config.text_inputs.vocab_size}
        sizes["decoder"] = getattr(model.config.decoder_inputs, "vocab_size", sizes["encoder"])
        resized: dict[int, int] = {}
        for part in ("encoder", "decoder") if side is None else (side,):
            half, size = config.get(part), sizes[part]
            place = dict(half) if isinstance(half, Mapping) else config
            key = (
                "decoder_vocab_size"
                if part == "decoder" and place.get("decoder_vocab_size")
                else "vocab_size"
            )
            resized[place.get(key, size)] = size
            place[key] = size
            if place is not config:
                config[part] = place
        self.config = config
        tables = self.vocabulary_tables()

        def _is_table(name: str) -> bool:
            bare = name.removeprefix(self.architecture.prefix)
            return bare in tables or bare.rpartition(".")[0] in tables

        self.unused_tensors = {
            name: with_entries(x, resized[len(x)]) if x.dim() and len(x) in resized and _is_table(name) else x
            for name, x in self.unused_tensors.items()
        }

    def vocabulary_tables(self) -> set[str]:
        """Returns the checkpoint's names of modules and tensors with one entry per token."""
        heads = (self.architecture.head_weights.get(task, {}) for task in VOCABULARY_TASKS)
        return {
            name
            for table in (self.architecture.weights, *heads)
            for left, stored in entries(table, [])
            if left[0].startswith(("embedder.word_emb", "decoder_embedder.word_emb", "head.projection"))
            for name in stored.names
        }

    @property
    def settings(self) -> StatedSettings | None:
        """The settings of generation, of generation_config.json or else of config.json; None without any.

        Raises:
            ValueError: as `generation`.
        """
        return stated_settings(self.generation_file, self.config, self.folder or Path())

    @property
    def generation(self) -> dict[str, Any] | None:
        """Parses generation_config.json; None if the checkpoint has none.

        `load` keeps the bytes only: a damaged file matters to generation alone.

        Raises:
            ValueError: not JSON, or not an object.
        """
        if self.generation_file is None:
            return None
        return parse_json(self.generation_file, (self.folder or Path()) / GENERATION)
