"""The settings of adapter_config.json: a table of their types and choices, and the check."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minitx.checkpoint.lora.patterns import is_fast
from minitx.io import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
TASKS = {
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "CAUSAL_LM": "causal-lm",
    "SEQ_2_SEQ_LM": "seq2seq-lm",
}


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None and is_fast(value)
    except (re.error, RecursionError, OverflowError):
        return False


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _patterns_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def _checked(value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(_is_pattern, value)) and all(map(check, value.values()))

    return _checked


def _either(*checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(check(value) for check in checks)


def _one_of(*choices: Any) -> tuple[str, Callable[[Any], bool]]:
    return " or ".join(map(str, choices)), lambda value: value in choices


_FLAG = ("true or false", lambda value: isinstance(value, bool))
_NAMES = ("a list of names, a regular expression or null", _either(_list_of(_is_name), _is_pattern))
_TEXT = ("a string or null", _is_name)
# Setting -> what it must be, and the check. `null` is the same as an absent key where the text has it.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "peft_type": _one_of("LORA"),
    "r": ("a positive integer", _is_rank),
    "lora_alpha": ("a number", _is_number),
    "rank_pattern": ("an object of regular expressions and ranks, or null", _patterns_of(_is_rank)),
    "alpha_pattern": ("an object of regular expressions and numbers, or null", _patterns_of(_is_number)),
    "use_rslora": _FLAG,
    "use_dora": _FLAG,
    "fan_in_fan_out": _FLAG,  # the base model's layout decides it, as in PEFT
    "bias": _one_of("none", "all", "lora_only"),
    "lora_bias": _FLAG,
    "modules_to_save": ("a list of names or null", _list_of(_is_name)),
    "target_modules": _NAMES,
    "exclude_modules": _NAMES,
    "layers_to_transform": (
        "an integer, a list of integers or null",
        _either(lambda value: type(value) is int, _list_of(lambda value: type(value) is int)),
    ),
    "layers_pattern": (
        "a regular expression, a list of them or null",
        _either(_is_pattern, _list_of(_is_pattern)),
    ),
    "base_model_name_or_path": _TEXT,
    "revision": _TEXT,
    "task_type": (
        " or ".join([*TASKS, "FEATURE_EXTRACTION", "null"]),
        lambda value: value in (*TASKS, "FEATURE_EXTRACTION"),
    ),
}
# Of the training or of PEFT itself, without effect on the weights that the file holds.
RECORDS = {
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "lora_dropout",
    "lora_ga_config",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
}
# Initialisations that leave the base weights as they are; the others change them.
PLAIN_INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


def setting_error(
    path: Path, config: Mapping[str, Any], key: str, reason: str, hint: str = "merge it with PEFT first"
) -> ValueError:
    """Returns the error about a key of adapter_config.json."""
    return ValueError(f"{path}: {key}={config.get(key)!r} {reason}; {hint}.")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Reads adapter_config.json of a folder; None without one.

    Raises:
        ValueError: an adapter of another kind than LoRA, a setting that minitx does not merge, or a value
            that a setting cannot have.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    config = read_json(path)
    for key, (expected, check) in SETTINGS.items():
        value = config.get(key)
        absent = key not in config or (value is None and expected.endswith("null"))
        if not check(value) and (not absent or key == "peft_type"):
            hint = "merge it with PEFT first" if key == "peft_type" else "correct the file"
            if "regular expression" in expected:
                hint += " (repetitions of repetitions, and long chains of them, are refused too: use names)"
            raise setting_error(path, config, key, f"must be {expected}", hint)
    for key in sorted(set(config) - set(SETTINGS) - RECORDS - {"init_lora_weights"}):
        if config[key] not in (None, False, "", [], {}):
            raise setting_error(path, config, key, "is not merged by minitx")
    if config.get("init_lora_weights") not in PLAIN_INITIALIZATIONS:
        raise setting_error(path, config, "init_lora_weights", "changes the base weights too")
    return config
