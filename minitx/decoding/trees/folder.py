"""Folders of draft heads: a config.json and one file of tensors, as they are published."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.checkpoint.files import open_bin, open_files, summarize
from minitx.checkpoint.write import write_tensors
from minitx.io import parse_json
from minitx.transaction import transaction
from minitx.validation import ArgumentValueError, check_path


@dataclass(frozen=True, eq=False)
class HeadFolder:
    """What a folder of draft heads holds.

    Attributes:
        text: its config.json.
        config: the content of that.
        tensors: name -> tensor, as stored.
        file: name of the safetensors file to save them to.
        place: the folder, for errors.
    """

    text: bytes
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    file: str
    place: str

    @classmethod
    def read(cls, folder: Any, names: Sequence[str]) -> HeadFolder:
        """Reads a folder.

        Args:
            folder: path of the folder.
            names: file names of the tensors, safetensors or of torch.save, in the order of preference. Of the
                latter plain tensors are read and nothing in them is run.

        Raises:
            FileNotFoundError: no config.json, or none of the files.
            ValueError: a damaged file, or one that holds anything but tensors.
        """
        path = check_path("folder", folder)
        text = (path / "config.json").read_bytes()
        name = next((name for name in names if (path / name).is_file()), None)
        if name is None:
            raise FileNotFoundError(f"{path} has no weights of heads: expected {' or '.join(names)}.")
        if name.endswith(".safetensors"):
            stored = open_files(path, [name], mapped=False)
            tensors = {key: stored.read(key) for key in stored.shapes}
        else:
            tensors = open_bin(path / name)[0]
        stem = name.rpartition(".")[0].replace("pytorch_model", "model")
        return cls(text, parse_json(text, path), tensors, f"{stem}.safetensors", str(path))

    @classmethod
    def fresh(cls, config: dict[str, Any], tensors: dict[str, Tensor], file: str) -> HeadFolder:
        """Returns the folder of heads that were not read from one."""
        return cls(json.dumps(config, indent=2).encode(), config, tensors, file, "the heads")

    def check_keys(self, known: Collection[str]) -> None:
        """Checks that the config states nothing that would be ignored.

        Args:
            known: the keys that are obeyed, or change nothing.

        Raises:
            ValueError: an unknown key.
        """
        if unknown := sorted(set(self.config) - set(known)):
            raise ValueError(
                f"{self.place}/config.json: minitx does not know {summarize(unknown)}; it knows "
                f"{summarize(sorted(known), 40)}."
            )

    def check_names(self, expected: set[str], unused: str = "-") -> None:
        """Checks that the file holds these tensors and no others, but for those with an ending.

        Raises:
            ValueError: one is missing, or not expected.
        """
        others = {name for name in self.tensors if not name.endswith(unused)}
        for problem, names in (
            ("lacks", expected - set(self.tensors)),
            ("holds, beside those of its config,", others - expected),
        ):
            if names:
                raise ValueError(f"{self.place}: the file of the heads {problem} {summarize(sorted(names))}.")

    def check_shapes(self, expected: Mapping[str, Tensor], unused: str = "-") -> None:
        """Checks that the file holds tensors of these names and shapes; `unused` as for `check_names`.

        Raises:
            ArgumentValueError: one of another shape.
            ValueError: one is missing, or not expected.
        """
        self.check_names(set(expected), unused)
        for name, tensor in expected.items():
            if tensor.shape != self.tensors[name].shape:
                hint = f"{self.place}/config.json has its sizes"
                raise ArgumentValueError(name, self.tensors[name], f"of shape {tuple(tensor.shape)}", hint)

    def write(self, folder: Any, tensors: Mapping[str, Tensor]) -> None:
        """Writes config and tensors to a folder, replacing earlier ones.

        Raises:
            ArgumentValueError: tensors of other shapes than those that were read.
        """
        for name, tensor in tensors.items():
            if tensor.shape != self.tensors[name].shape:
                expected = f"of shape {tuple(self.tensors[name].shape)}, as in its config"
                raise ArgumentValueError(name, tensor, expected)
        tensors = self.tensors | dict(tensors)
        with transaction(check_path("folder", folder)) as files:
            files.write_all({"config.json": self.text})
            write_tensors({files.path(self.file): tensors}, tensors, [lambda: tensors], {"format": "pt"})


def dtype_of(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> torch.dtype:
    """Returns the dtype to compute in: the given one, else that of the first floating-point tensor."""
    if dtype is not None:
        return dtype
    return next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
