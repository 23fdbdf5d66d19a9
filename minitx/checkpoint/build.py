"""Models from a config: architecture, sizes, and a model on the meta device or with fresh weights.

Nothing here reads weights; `load` fills the model that `empty_model` builds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from minitx.architectures import architecture as find_architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.known_keys import check_keys, has_table, second_names
from minitx.architectures.native import model_class
from minitx.checkpoint.record import Checkpoint
from minitx.config import HeadConfig, ModelConfig, TextInputs
from minitx.habits import explain_arguments
from minitx.models import Model
from minitx.optimize.linear import fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_dtype,
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
    ignore_keys: Sequence[str] = (),
) -> Model:
    """Builds a model with random weights, in training mode.

    Args:
        config: the content of a config.json, `model_type` included.
        head: a task or "none"; None uses the class in config["architectures"], and no head without one.
        dtype: dtype of the parameters, such as torch.bfloat16 or "bfloat16".
        seed: seed of the weights; None draws from PyTorch's global generator.
        ignore_keys: keys of `config` to leave out, such as one that minitx does not know.

    Raises:
        TypeError: `config` is not a dict, or `seed` not an integer.
        ValueError: a key that is missing or has a value that minitx does not implement; a seed out of range.
        MemoryError: parameters that do not fit into the memory of this machine.
    """
    dtype = check_dtype("dtype", dtype)
    generator = seeded_generator(seed)
    model, checkpoint = meta_model(config, head=head, dtype=dtype, ignore_keys=ignore_keys)
    check_memory(model, dtype)
    model = model.to_empty(device="cpu").train()
    model.checkpoint = checkpoint
    model.initialize(generator=generator)
    model.tie_weights()
    return mixed_dtypes(fast_linear(model.set_attention(model.checkpoint.attention)))


def meta_model(
    config: Mapping[str, Any],
    *,
    head: str | None = None,
    dtype: torch.dtype = torch.float32,
    ignore_keys: Sequence[str] = (),
) -> tuple[Model, Checkpoint]:
    """Builds the model of a config on the meta device, in eval mode, and the record of the config.

    Arguments and errors are those of `from_config`. The record is not yet the model's.
    """
    check_optional_strings(head=head)
    check_type("config", config, Mapping, "a dict", "pass the content of a config.json")
    architecture, model_type = choose_architecture(config, None)
    ignore_keys = check_keys_to_ignore(ignore_keys)
    model_config, heads = read_config(architecture, model_type, config, ignore_keys)
    names = class_names(config)
    task = head
    if task is None:
        task = next((t for name in names if (t := architecture.task_of(name))), None)
    if task is None and names:
        raise ValueError(f"config['architectures'] names {names[0]}, which minitx does not know; pass head=.")
    task = "none" if task is None else task
    model = empty_model(
        architecture, model_config, heads, task, pooler=task in architecture.tasks_with_pooler
    ).to(dtype)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.to(parameter_dtype(architecture, name, dtype))
    padding: dict[str, Any] = {}
    if isinstance(model_config.inputs, TextInputs):
        # Explicit, because the default of a missing key differs between architectures.
        padding["pad_token_id"] = model_config.inputs.pad_token_id
    record = Checkpoint(architecture, model_type, padding | dict(config), ignored_keys=ignore_keys)
    return model, record


def check_memory(model: Model, dtype: torch.dtype) -> None:
    """Checks that the parameters fit into the memory of this machine.

    Raises:
        MemoryError: they do not.
    """
    size = model.num_parameters() * dtype.itemsize
    names = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= names.keys():
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            raise MemoryError(
                f"the parameters of this config take {size / 2**30:,.1f} GB in {dtype}, and this machine has "
                f"{memory / 2**30:,.1f} GB; correct the sizes in the config."
            )


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
    architecture: Architecture, model_type: str, config: Mapping[str, Any], ignore_keys: Sequence[str] = ()
) -> tuple[ModelConfig, dict[str, HeadConfig]]:
    """Reads config.json: the config of the network, and that of each task's head.

    Args:
        architecture: that of the file.
        model_type: that of the file.
        config: content of the file.
        ignore_keys: keys to leave out; "encoder.key" is a key of an inner config.

    Raises:
        ValueError: quantised weights, a key that minitx does not know, or a value that it does not implement.
    """
    for key in ignore_keys:
        config = without_key(config, key)
    if (quantized := config.get("quantization_config")) is not None:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else None
        raise ValueError(
            f"config.json has a quantization_config of method {method!r}; minitx reads unquantised weights, "
            "GGUF files, and torchao's integers of 8 bits or fewer."
        )
    reader = ConfigReader(config)
    table = model_type if has_table(model_type) else architecture.key_table
    reader.rename(second_names(table))
    model_config, heads = architecture.read(reader), architecture.heads(reader)
    check_keys(reader, table)
    return model_config, heads


def check_keys_to_ignore(ignore_keys: Sequence[str]) -> tuple[str, ...]:
    """Returns `ignore_keys` as a tuple.

    Raises:
        ArgumentTypeError: not a sequence of strings.
    """
    listed = isinstance(ignore_keys, Sequence) and not isinstance(ignore_keys, str)
    if not listed or not all(isinstance(key, str) for key in ignore_keys):
        raise ArgumentTypeError("ignore_keys", ignore_keys, "a sequence of strings", 'such as ("name",)')
    return tuple(ignore_keys)


def without_key(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns a config without one key.

    Raises:
        ArgumentValueError: the config does not have it.
    """
    outer, _, inner = key.partition(".")
    if key in config:
        return {name: value for name, value in config.items() if name != key}
    if isinstance(config.get(outer), Mapping):
        return {**config, outer: without_key(config[outer], inner)}
    near = get_close_matches(key, config, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    raise ArgumentValueError("ignore_keys", key, "a key of config.json", hint)


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
    table = architecture.head_weights.get(task, {})
    for name, parameter in model.named_parameters():
        belongs = not name.startswith("head.") or name in table  # heads of several tasks have equal names
        parameter.requires_grad_(not (belongs and name in architecture.frozen))
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


def parameter_dtype(architecture: Architecture, name: str, dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype of a parameter in a model of `dtype`; some stay in float32 in a float16 model."""
    return torch.float32 if dtype == torch.float16 and architecture.stays_in_float32(name) else dtype


def set_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Registers `tensor` as the parameter `name` without a copy; a new one keeps `requires_grad`."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    trained = getattr(module, leaf).requires_grad
    parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=trained)
    module.register_parameter(leaf, parameter)
