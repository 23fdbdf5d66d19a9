"""`minitx.load`: a folder or Hub id to a model, without changing a value or holding a byte twice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitx.architectures import architecture as find_architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import ResolvedEntry
from minitx.checkpoint.files import GENERATION, Tensors, open_folder
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import (
    HEAD_PARTS,
    Names,
    any_of_head,
    bindings_of,
    check_complete,
    check_known,
    check_shapes,
    class_names,
    has_pooler,
    infer_task,
    is_tied,
    resolve_ties,
    stored_shape,
)
from minitx.config import HeadConfig, ModelConfig
from minitx.io import read_json
from minitx.models import DecoderModel, EncoderDecoderModel, EncoderModel, Model
from minitx.optimize.few_rows import few_rows


def load(
    name_or_folder: str | Path,
    *,
    head: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    model_type: str | None = None,
    strict: bool = False,
    init_head: bool = False,
    num_labels: int | None = None,
    attention: str = "sdpa",
) -> Model:
    """Loads a checkpoint in Hugging Face's layout, in eval mode.

    Args:
        name_or_folder: a folder with config.json and weights, or a Hub id such as "bert-base-uncased".
        head: None takes the checkpoint's own, and `save` gives back even what the model has no place for;
            "none" loads no head; else the name of a task, saved without what belongs to others.
        dtype: None keeps each tensor's own.
        device: where the parameters go.
        revision: Hub branch, tag or commit.
        token: Hub access token, for gated or private models.
        offline: use only what is in the Hub cache.
        model_type: the architecture, for a config.json that does not say.
        strict: a key of config.json that minitx does not know is an error instead of a warning.
        init_head: draw fresh weights for what the checkpoint lacks of the head.
        num_labels: labels of a fresh head, also in the place of one for another number of labels; with
            init_head only.
        attention: "sdpa" (fused) or "eager" (step by step).

    Raises:
        FileNotFoundError: no such folder or Hub repository, or no weights in it.
        ValueError: anything in the files that does not fit; the message says what and where.
    """
    from minitx.checkpoint.hub import fetch

    check_dtype(dtype)
    place_of_weights = check_device(device)
    folder = fetch(name_or_folder, revision=revision, token=token, offline=offline)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; is it a model in Hugging Face's layout?")
    config = read_json(folder / "config.json")
    if num_labels is not None:
        if not init_head:
            raise ValueError("num_labels= sizes a fresh head; it needs init_head=True.")
        names_of_labels = config.get("id2label")
        if not isinstance(names_of_labels, dict) or len(names_of_labels) != num_labels:
            of_other_labels = ("id2label", "label2id", "problem_type")
            config = {k: v for k, v in config.items() if k not in of_other_labels}
            config["num_labels"] = num_labels
    architecture, model_type = choose_architecture(config, model_type)
    numbers, heads = read_config(architecture, config, strict)
    tensors = open_folder(folder)
    names = Names(tensors.shapes, architecture.prefix)
    names.check_one_spelling()
    task = head or infer_task(architecture, config, heads, names)
    if head is None and task in heads and not any_of_head(architecture, task, heads[task], names):
        warnings.warn(
            f"config.json says {task!r}, but the file holds no such head; loaded without one.", stacklevel=2
        )
        task = "none"
    if init_head and head is None and task == "none":
        raise ValueError("init_head=True draws a head, but this checkpoint has none; say which with head=.")
    pooled = task in architecture.tasks_with_pooler and (task != "none" or has_pooler(architecture, names))
    model = empty_model(architecture, numbers, heads, task, pooled=pooled)

    bindings = bindings_of(architecture, model)
    sources = {binding: names.of(binding) for binding in bindings}
    if num_labels is not None:  # a projection to other labels is as good as none
        for binding in bindings:
            shape = stored_shape(model, binding)
            if binding.parameters[0].startswith("head.projection."):
                sources[binding] = tuple(n for n in sources[binding] if tensors.shapes[n].shape == shape)
    resolve_ties(sources, model)
    missing = [b for b in bindings if not sources[b] and not is_tied(b, model) and not b.or_zero]
    fresh = [b for b in missing if init_head and b.parameters[0].startswith(HEAD_PARTS)]
    check_complete([b for b in missing if b not in fresh], architecture, names, task)
    taken = {name for each in sources.values() for name in each}
    check_known(set(tensors.shapes) - taken, architecture, names, model_type, numbers, task)
    check_shapes(model, sources, tensors)

    model.checkpoint = Checkpoint(architecture, model_type, config, folder, metadata=tensors.metadata)
    if (folder / GENERATION).is_file():
        model.checkpoint.generation_file = (folder / GENERATION).read_bytes()
    if len(set(tensors.files.values())) > 1:
        model.checkpoint.files = tensors.files
    fill(model, sources, tensors, dtype, place_of_weights)
    draw(model, fresh)
    model.checkpoint.dtype = model.dtype
    named = [architecture.class_name(model_type, each) for each in (task, "none")]
    if head is None or (task in heads and named[0] == named[1]):  # Hugging Face has but one class
        # The checkpoint as it is: `save` gives back even what the model has no place for.
        used = {name for each in model.checkpoint.names.values() for name in each}
        used |= {name for binding in fresh for name in names.of(binding)}  # drawn anew in their place
        model.checkpoint.kept = {
            name: convert(tensors.read(name), dtype, torch.device("cpu"))
            for name in tensors.shapes
            if name not in used
        }
    return few_rows(model.set_attention(attention))


def from_config(
    config: Mapping[str, Any],
    *,
    head: str | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
    strict: bool = False,
) -> Model:
    """A model with fresh random weights, in training mode.

    Args:
        config: the content of a config.json, `model_type` included.
        head: a task or "none"; None takes the one that config["architectures"] names, else none.
        dtype: of the parameters.
        seed: for the same weights every time; None draws from PyTorch's global generator.
        strict: a key that minitx does not know is an error instead of a warning.

    Raises:
        ValueError: a key that is missing or has a value that minitx does not implement; a seed out of range.
        TypeError: a config that is no dict, a seed that is no whole number.
    """
    check_dtype(dtype)
    check_seed(seed)
    if not isinstance(config, Mapping):
        raise TypeError(
            f"config is a {type(config).__name__}; expected the content of a config.json, a dict."
        )
    architecture, model_type = choose_architecture(config, None)
    numbers, heads = read_config(architecture, config, strict)
    named = class_names(config)
    task = head or next((t for name in named if (t := architecture.task_of(name))), None)
    if task is None and named:
        raise ValueError(f"config['architectures'] names {named[0]}, which minitx does not know; give head=.")
    task = task or "none"
    model = empty_model(architecture, numbers, heads, task, pooled=task in architecture.tasks_with_pooler)
    model = model.to_empty(device="cpu").to(dtype).train()
    model.initialize(generator=None if seed is None else torch.Generator().manual_seed(int(seed)))
    model.tie_weights()
    # written out, because what a missing key means is not the same everywhere
    padding = {"pad_token_id": numbers.inputs.pad_token_id}
    model.checkpoint = Checkpoint(architecture, model_type, padding | dict(config))
    return few_rows(model)


# --- from config.json to an empty model ------------------------------------------------------------


def check_dtype(dtype: torch.dtype | None) -> None:
    known = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if dtype is not None and dtype not in known:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(map(str, known))}.")


def check_seed(seed: int | None) -> None:
    if seed is None:
        return
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed={seed!r:.60} must be a whole number, or None.")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed={seed!r:.60} must be from 0 to {2**64 - 1}.")


def check_device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} is not to be had here ({reason}).") from None
    return place


def choose_architecture(config: Mapping[str, Any], model_type: str | None) -> tuple[Architecture, str]:
    said = config.get("model_type")
    if model_type is not None and said is not None and said != model_type:
        raise ValueError(f"config.json says model_type {said!r}, but model_type={model_type!r} was passed.")
    kind = model_type or said
    if not isinstance(kind, str):
        raise ValueError('config.json has no "model_type"; say which it is, such as model_type="bert".')
    found = find_architecture(kind)
    return found if found.composed is None else found.composed(config), kind


def read_config(
    architecture: Architecture, config: Mapping[str, Any], strict: bool, *, quiet: bool = False
) -> tuple[ModelConfig, dict[str, HeadConfig]]:
    """The numbers of the network and of every head it could have."""
    if config.get("quantization_config") is not None:
        raise ValueError("config.json has a quantization_config; minitx reads unquantised weights only.")
    reader = ConfigReader(config)
    numbers, heads = architecture.read(reader), architecture.heads(reader)
    if unread := reader.unread():
        message = f"config.json: minitx does not know {', '.join(unread)}; without effect here."
        if strict:
            raise ValueError(message)
        if not quiet:
            warnings.warn(message, stacklevel=3)
    return numbers, heads


def empty_model(
    architecture: Architecture,
    numbers: ModelConfig,
    heads: Mapping[str, HeadConfig],
    task: str,
    *,
    pooled: bool,
) -> Model:
    """The model for a task on the meta device: every name and shape, no memory.

    Raises:
        ValueError: the architecture has no such head.
    """
    if task not in heads and task not in architecture.headless:
        known = ", ".join((*heads, *architecture.headless))
        raise ValueError(f"head={task!r} is not one of this architecture's: {known}.")
    if task in architecture.encoder_tasks:
        numbers = replace(numbers, decoder=None, decoder_inputs=None)
    if numbers.encoder is None:
        family: type[Model] = DecoderModel
    else:
        family = EncoderModel if numbers.decoder is None else EncoderDecoderModel
    with torch.device("meta"):
        model = family(replace(numbers, pooler=pooled), heads.get(task)).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in architecture.frozen)
    return model


# --- from tensors to parameters --------------------------------------------------------------------


def convert(tensor: Tensor, dtype: torch.dtype | None, device: torch.device) -> Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def place(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Makes `tensor` the parameter of that name, without copying it."""
    module, _, leaf = name.rpartition(".")
    trained = model.get_parameter(name).requires_grad
    parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=trained)
    model.get_submodule(module).register_parameter(leaf, parameter)


def fill(
    model: Model,
    sources: Mapping[ResolvedEntry, tuple[str, ...]],
    tensors: Tensors,
    dtype: torch.dtype | None,
    device: torch.device,
) -> None:
    """Reads every tensor into its place, and records under which names the file had it."""
    assert model.checkpoint is not None
    for binding, names in sources.items():
        if not names and binding.or_zero:
            model.checkpoint.names[binding.parameters] = ()
            for name in binding.parameters:
                zeros = torch.zeros_like(model.get_parameter(name), dtype=dtype, device=device)
                place(model, name, zeros)
        if not names:
            continue  # tied, or drawn afterwards
        if binding.op.many:
            model.checkpoint.names[binding.parameters] = names
            stored = [tensors.read(name, mapped=False) for name in names]
        else:
            first, *others = names
            stored = [tensors.read(first, mapped=not binding.op.copies)]
            same = [name for name in others if identical(tensors.read(name), stored[0])]
            model.checkpoint.names[binding.parameters] = (first, *same)
        rows = [model.get_parameter(name).shape[0] for name in binding.parameters]
        parts = binding.op.load(stored, rows)
        for name, part in zip(binding.parameters, parts, strict=True):
            place(model, name, convert(part, dtype, device))
    for name, other in model.ties.items():
        own = model.get_parameter(name)
        if own.is_meta or identical(own, model.get_parameter(other)):  # else the file has untied them
            place(model, name, model.get_parameter(other))


def identical(a: Tensor, b: Tensor) -> bool:
    """Bit for bit: 0 and -0 differ, a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def draw(model: Model, fresh: list[ResolvedEntry]) -> None:
    """Fresh weights for what a checkpoint lacks of its head."""
    names = {name for binding in fresh for name in binding.parameters}
    for name in names:
        place(
            model,
            name,
            torch.empty_like(model.get_parameter(name), device=model.device, dtype=model.dtype),
        )
    model.initialize(names)
