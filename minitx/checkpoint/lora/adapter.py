"""An adapter's settings and tensors, and the modules that they are for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from minitx.checkpoint.files import open_files
from minitx.checkpoint.lora.settings import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    TASKS,
    read_settings,
    setting_error,
)

# Modules that PEFT saves for a task, and that its early versions do not list in `modules_to_save`.
_HEAD_MODULES = {
    "sequence-classification": ("classifier", "score"),
    "token-classification": ("classifier", "score"),
    "question-answering": ("qa_outputs",),
}
_LONGEST_NAME = 200  # matching it against a pattern takes more time with its length


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        config: adapter_config.json.
        path: of that file.
        tensors: module paths and names of the base model -> tensors.
    """

    config: Mapping[str, Any]
    path: Path
    tensors: Mapping[str, Tensor]

    @property
    def task(self) -> str | None:
        """The task that the adapter was trained for, if it is stated."""
        return TASKS.get(str(self.config.get("task_type")))

    @property
    def num_labels(self) -> int | None:
        """The number of labels of the classifier that the adapter brings; None without one."""
        for name, tensor in self.tensors.items():
            last = re.search(r"(?:^|\.)(classifier|score|out_proj)\.weight$", name)
            if last and self.task in ("sequence-classification", "token-classification"):
                return len(tensor)
        return None

    def error(self, key: str, reason: str, hint: str = "merge it with PEFT first") -> ValueError:
        """Returns the error about a key of adapter_config.json."""
        return setting_error(self.path, self.config, key, reason, hint)

    def scale(self, module: str, rank: int) -> float:
        """Returns the factor of a module's update.

        Raises:
            ValueError: another rank than the config states.
        """
        stated = self.config.get("r", 8)
        if rank != (r := by_pattern(self.config.get("rank_pattern"), module, stated)):
            raise ValueError(f"{self.path}: the rank of {module} must be {rank} as in the weights, not {r}.")
        alpha = by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", 8))
        return float(alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank))

    def is_target(self, module: str) -> bool:
        """Whether the config lets the adapter change a module."""
        targets, excluded = self.config.get("target_modules"), self.config.get("exclude_modules")
        if excluded and names_module(excluded, module):
            return False
        if isinstance(targets, str):
            return targets == "all-linear" or names_module(targets, module)
        layers = self.config.get("layers_to_transform")
        if layers is not None and layers != []:
            patterns = self.config.get("layers_pattern") or r"[^.]*"
            patterns = [patterns] if isinstance(patterns, str) else patterns
            matches = (re.match(rf"(?:^|.*?\.)(?:{p})\.(\d+)\.", module) for p in patterns)
            index = next((int(match[match.lastindex or 1]) for match in matches if match), None)
            if index not in ([layers] if isinstance(layers, int) else layers):
                return False
        return targets is None or names_module(targets, module)

    def is_saved(self, module: str) -> bool:
        """Whether `modules_to_save` names a module or one that holds it, by the end of its path."""
        names = (*(self.config.get("modules_to_save") or ()), *_HEAD_MODULES.get(self.task or "", ()))
        parts = module.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return any(path.endswith(name) for path in paths for name in names)


def by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Returns the value of the first pattern that matches the end of a module's path."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def names_module(names: str | Iterable[str], module: str) -> bool:
    """Whether a regular expression matches a module's path, or one of several names ends it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in names)


def read_adapter(folder: Path) -> Adapter | None:
    """Reads the adapter of a folder; None without one.

    Raises:
        FileNotFoundError: adapter_config.json without the adapter's weights.
        ValueError: an adapter of another kind than LoRA, or a setting that minitx does not merge.
    """
    config = read_settings(folder)
    if config is None:
        return None
    file = next((name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has {ADAPTER_CONFIG} without {' or '.join(ADAPTER_FILES)}.")
    stored = open_files(folder, [file])
    # A module of `modules_to_save` replaces the original, which may lie beside it.
    names = [name for name in stored.shapes if ".original_module." not in name]
    if longest := next((name for name in names if len(name) > _LONGEST_NAME), None):
        raise ValueError(
            f"{folder / file}: a name of {len(longest)} characters, {longest:.60}..., is too long."
        )
    return Adapter(config, folder / ADAPTER_CONFIG, {plain_name(name): stored.read(name) for name in names})


def plain_name(name: str) -> str:
    """Returns a name of an adapter's file as the base model has it, with PEFT's wrappers left out."""
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.", ".")
    return name.replace(".default.", ".").replace(".base_layer.", ".")
