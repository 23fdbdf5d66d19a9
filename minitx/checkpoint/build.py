"""Models from a config: architecture, sizes, and a model on the meta device or with fresh weights.

Nothing here reads weights; `load` fills the model that `empty_model` builds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.architectures import architecture as find_architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.native import model_class
from minitx.checkpoint.record import Checkpoint
from minitx.config import HeadConfig, ModelConfig, TextInputs
from minitx.habits import explain_arguments
from minitx.models import Model
from minitx.optimize.few_rows import few_rows
from minitx.validation import (
    ArgumentValueError,
    check_choice,
    check_dtype,
    check_flags,
    check_integer,
    check_optional_strings,
    check_type,
)


@explain_arguments("from_config")
def from_config(
    config: Mapping[str, Any],
    *,
    head: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    seed: int | None = None,
    strict: bool = False,
) -> Model:
    """Builds a model with random weights, in training mode.

    Args:
        config: the content of a config.json, `model_type` included.
        head: a task or "none"; None uses the class in config["architectures"], and no head without one.
        dtype: dtype of the parameters, such as torch.bfloat16 or "bfloat16".
        seed: seed of the weights; None draws from PyTorch's global generator.
        strict: raise an error for a key that minitx does not know, instead of a warning.

    Raises:
        TypeError: `config` is not a dict, or `seed` not an integer.
        ValueError: a key that is missing or has a value that minitx does not implement; a seed out of range.
    """
    check_flags(strict=strict)
    check_optional_strings(head=head)
    dtype = check_dtype("dtype", dtype)
    generator = seeded_generator(seed)
    check_type("config", config, Mapping, "a dict", "pass the content of a config.json")
    architecture, model_type = choose_architecture(config, None)
    model_config, heads = read_config(architecture, config, strict)
    names = class_names(config)
    task = head or next((t for name in names if (t := architecture.task_of(name))), None)
    if task is None and names:
        raise ValueError(f"config['architectures'] names {names[0]}, which minitx does not know; pass head=.")
    task = task or "none"
    model = empty_model(
        architecture, model_config, heads, task, pooler=task in architecture.tasks_with_pooler
    )
    model = model.to_empty(device="cpu").to(dtype).train()
    model.initialize(generator=generator)
    model.tie_weights()
    padding: dict[str, Any] = {}
    if isinstance(model_config.inputs, TextInputs):
        # Explicit, because the default of a missing key differs between architectures.
        padding["pad_token_id"] = model_config.inputs.pad_token_id
    model.checkpoint = Checkpoint(architecture, model_type, padding | dict(config))
    return few_rows(model.set_attention(model.checkpoint.attention))


def seeded_generator(seed: int | None) -> torch.Generator | None:
    """Returns a generator on the CPU; None, for PyTorch's global generator, without a seed.

    Raises:
        ArgumentTypeError, ArgumentValueError: not an integer, or out of range.
    """
    if seed is None:
        return None
    seed = check_integer("seed", seed, 0, 2**64 - 1, "None draws from torch's global generator")
    return torch.Generator().manual_seed(seed)


# --- config.json -----------------------------------------------------------------------------------


def choose_architecture(config: Mapping[str, Any], model_type: str | None) -> tuple[Architecture, str]:
    """Returns the architecture and `model_type` of a config.

    Args:
        config: the content of config.json.
        model_type: architecture for a config without `model_type`; None otherwise.

    Raises:
        ValueError: no `model_type`, an unknown one, or one that contradicts the argument.
    """
    stated = config.get("model_type")
    if model_type is not None and stated is not None and stated != model_type:
        raise ArgumentValueError(
            "model_type", model_type, f"{stated!r} as in config.json", "leave it out, or correct the file"
        )
    name = model_type or stated
    if not isinstance(name, str):
        raise ValueError('config.json has no "model_type"; set model_type to one such as "bert".')
    architecture = find_architecture(name)
    return architecture if architecture.composed is None else architecture.composed(config), name


def read_config(
    architecture: Architecture, config: Mapping[str, Any], strict: bool = False, *, quiet: bool = False
) -> tuple[ModelConfig, dict[str, HeadConfig]]:
    """Reads config.json: the config of the network, and that of each task's head.

    Raises:
        ValueError: quantised weights; with `strict`, keys that minitx does not know (else a warning).
    """
    if config.get("quantization_config") is not None:
        raise ValueError("config.json has a quantization_config; minitx reads unquantised weights only.")
    reader = ConfigReader(config)
    model_config, heads = architecture.read(reader), architecture.heads(reader)
    if unread := reader.unread():
        message = f"config.json: minitx does not know {', '.join(unread)}; ignored.{reader.suggestion()}"
        if strict:
            raise ValueError(message)
        if not quiet:
            warnings.warn(message, stacklevel=3)
    return model_config, heads


def class_names(config: Mapping[str, Any]) -> list[str]:
    """Returns config["architectures"], or an empty list if it is not a list of strings."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


# --- models ----------------------------------------------------------------------------------------


def empty_model(
    architecture: Architecture,
    model_config: ModelConfig,
    heads: Mapping[str, HeadConfig],
    task: str,
    *,
    pooler: bool,
) -> Model:
    """Builds the model of a task on the meta device: all names and shapes, no memory.

    Raises:
        ValueError: the architecture has no such head.
    """
    check_choice("head", task, (*heads, *architecture.headless))
    model_config = task_config(architecture, model_config, task, pooler=pooler)
    with torch.device("meta"):
        model = model_class(model_config)(model_config, heads.get(task)).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in architecture.frozen)
    return model


def task_config(
    architecture: Architecture, model_config: ModelConfig, task: str, *, pooler: bool
) -> ModelConfig:
    """Returns the config of a task's model: some tasks leave out the decoder, others the pooler."""
    if task in architecture.encoder_tasks:
        model_config = replace(model_config, decoder=None, decoder_inputs=None)
    return replace(model_config, pooler=pooler)


def task_of(model: Model, architecture: Architecture) -> str:
    """Returns the model's task; "none", or "encoder" for the encoder of an encoder-decoder without head."""
    if model.task is None and model.families == ("encoder",):
        return architecture.headless[-1]
    return model.task or "none"


def set_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Registers `tensor` as the parameter `name` without a copy; a new one keeps `requires_grad`."""
    module, _, leaf = name.rpartition(".")
    trained = model.get_parameter(name).requires_grad
    parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=trained)
    model.get_submodule(module).register_parameter(leaf, parameter)
