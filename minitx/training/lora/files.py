"""Adapters in PEFT's files: adapter_config.json and adapter_model.safetensors, written and read unmerged."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minitx.architectures.mapping import ResolvedEntry
from minitx.checkpoint.files import GENERATION, Tensors, summarize
from minitx.checkpoint.load import read_optional
from minitx.checkpoint.lora.adapter import Adapter, by_pattern, read_adapter
from minitx.checkpoint.lora.merge import Update, merge
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG, ADAPTER_FILES
from minitx.checkpoint.resolve import table_entries
from minitx.checkpoint.save import HasFiles, check_tokenizer, stored_names, stored_tensors
from minitx.checkpoint.write import write_tokenizer
from minitx.io import write_json
from minitx.models import Model
from minitx.shipped import shipped_name
from minitx.training.lora.adapt import (
    LoraRecord,
    adapted_modules,
    check_no_adapters,
    check_not_shared,
    parameter_names,
    start_training,
    task_type,
    trained_parameters,
)
from minitx.training.lora.linear import LoraOptions, attach
from minitx.training.lora.stored import Fused, StoredModule, divide, fuse, record_of, stored_modules
from minitx.transaction import transaction
from minitx.validation import check_path, check_type

_PREFIX = "base_model.model."
_BLOCKS = "minitx.blocks"  # metadata: modules of several adapters, their ranks and alpha


def save_adapter(
    model: Model, folder: str | Path, *, tokenizer: HasFiles | None = None, base: str | None = None
) -> None:
    """Saves the adapters of a model, and what was trained beside them, in PEFT's files.

    PEFT and `minitx.load` compute the same from them; `load_adapter` continues the training. Adapters of Q, K
    and V of a model that has them as one matrix in transformers, such as GPT-2, are written as one adapter of
    the sum of their ranks.

    Args:
        model: with adapters.
        folder: created if it does not exist.
        tokenizer: a tokenizer to save with the adapters.
        base: folder or Hub id of the base model, for `base_model_name_or_path`; None: the folder that the
            model was loaded from.

    Raises:
        ArgumentTypeError, ArgumentValueError: a model without adapters.
        ValueError: parts of one matrix whose adapters have several scales; a folder that ships with minitx.
    """
    check_type("model", model, Model, "a model of minitx")
    adapted_modules(model)
    if tokenizer is not None:
        check_tokenizer(tokenizer, model)
    folder = check_path("folder", folder)
    record: LoraRecord = model.lora
    modules = stored_modules(model)
    fused = {stored: adapter for stored in modules if (adapter := fuse(model, stored)) is not None}
    tensors: dict[str, Tensor] = {}
    for stored, adapter in fused.items():
        tensors[f"{stored.name}.lora_A.weight"] = adapter.down
        tensors[f"{stored.name}.lora_B.weight"] = adapter.up
        if adapter.magnitude is not None:
            tensors[f"{stored.name}.lora_magnitude_vector"] = adapter.magnitude
    tensors |= whole_tensors(model, record, {stored.name for stored in fused})
    by_name = {stored.name: adapter for stored, adapter in fused.items()}
    metadata = {"format": "pt"}
    blocks = {name: [list(a.ranks), a.part_alpha] for name, a in by_name.items() if a.ranks}
    if blocks:
        metadata[_BLOCKS] = json.dumps(blocks)
    config = adapter_config(model, record, by_name, [stored.name for stored in modules], base)
    with transaction(folder) as files:
        named = {_PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(named, files.path(ADAPTER_FILES[0]), metadata)
        write_json(files.path(ADAPTER_CONFIG), config)
        if (settings := new_settings(model)) is not None:
            files.path(GENERATION).write_bytes(settings)
        if tokenizer is not None:
            write_tokenizer(files, tokenizer.contents())


def new_settings(model: Model) -> bytes | None:
    """Returns generation_config.json of a model, if it differs from the file of the base model."""
    checkpoint = record_of(model)
    folder, content = checkpoint.folder, checkpoint.generation_file
    stated = None if folder is None else read_optional(folder / GENERATION)
    return None if content == stated else content


def whole_tensors(model: Model, record: LoraRecord, adapted: set[str]) -> dict[str, Tensor]:
    """Returns the tensors that are trained whole, by PEFT's names without its prefix."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    names, tensors = parameter_names(model), {}
    for entry in table_entries(record_of(model).architecture, model):
        if not record.trained.isdisjoint(entry.parameters):
            module, _, leaf = names[entry.parameters].rpartition(".")
            inner = ".base_layer" if module in adapted else ""
            stored = entry.op.save([parameters[name].detach() for name in entry.parameters])
            tensors[f"{module}{inner}.{leaf}".lstrip(".")] = stored[0].clone()
    return tensors


def adapter_config(
    model: Model, record: LoraRecord, adapters: Mapping[str, Fused], modules: Sequence[str], base: str | None
) -> dict[str, Any]:
    """Returns the content of adapter_config.json.

    Args:
        model: with adapters.
        record: of them.
        adapters: path of each adapted module in Hugging Face's model -> its adapter.
        modules: paths of all that hold projections.
        base: the base model, or None.
    """
    options = adapted_modules(model)[0][1].lora_options
    ranks = {name: len(adapter.down) for name, adapter in adapters.items()}
    alphas = {name: whole_number(adapter.alpha) for name, adapter in adapters.items()}
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    others = {name.rpartition(".")[0] for name in parameter_names(model).values()} | {*modules}
    folder = record_of(model).folder
    source, revision = (base, None) if base is not None or folder is None else base_model(folder)
    return {
        "peft_type": "LORA",
        "task_type": task_type(model),
        "base_model_name_or_path": source,
        "revision": revision,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": patterns(ranks, rank),
        "alpha_pattern": patterns(alphas, alpha),
        "target_modules": shortest_names(adapters.keys(), others),
        "modules_to_save": list(record.modules_to_save) or None,
        "lora_dropout": options.dropout,
        "use_dora": options.dora,
        "use_rslora": options.rslora,
        "bias": record.bias,
        "fan_in_fan_out": any(s.transposed for s in stored_modules(model) if s.name in adapters),
        "init_lora_weights": True,
        "inference_mode": True,
    }


def base_model(folder: Path) -> tuple[str, str | None]:
    """Returns the Hub id and commit of a folder in the Hub's cache, or the name of one of this package.

    Of another folder returns the path, and None.
    """
    if shipped := shipped_name(folder):
        return shipped, None
    path = folder.absolute()
    repository, snapshots = path.parent.parent.name, path.parent.name
    if snapshots == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/"), path.name
    return str(path), None


def whole_number(value: float) -> float | int:
    """Returns an integral number as an int."""
    return int(value) if value.is_integer() else value


def shortest_names(adapted: Any, others: set[str]) -> list[str]:
    """Returns the shortest ends of paths that name the adapted modules and no others."""
    for length in range(1, 1 + max(name.count(".") + 1 for name in adapted)):
        ends = {".".join(name.split(".")[-length:]) for name in adapted}
        if not any(f".{other}".endswith(tuple(f".{end}" for end in ends)) for other in others - {*adapted}):
            return sorted(ends)
    return sorted(adapted)


def patterns(values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
    """Returns pattern -> value of the modules whose value is not the usual one.

    A pattern is the last part of the paths if all modules that end with it have the value.
    """
    result = {}
    for name, value in values.items():
        end = name.rpartition(".")[2]
        alike = {v for other, v in values.items() if other.rpartition(".")[2] == end} == {value}
        if value != usual:
            result[end if alike else name.replace(".", r"\.")] = value
    return result


# --- reading ---------------------------------------------------------------------------------------


def load_adapter(model: Model, folder: str | Path) -> Model:
    """Adds the LoRA adapter of a folder to a model, unmerged, to continue its training; in place.

    `minitx.load(folder)` merges it instead. Projections that are one matrix in transformers share A, unless
    `save_adapter` wrote adapters of their own.

    Args:
        model: the base model, without adapters.
        folder: with adapter_config.json and adapter_model.safetensors, of minitx or PEFT.

    Returns:
        The model; only the adapters, and what the file holds whole, require gradients.

    Raises:
        ArgumentTypeError, ArgumentValueError: a model with adapters.
        FileNotFoundError: no adapter in the folder.
        ValueError: an adapter of another kind or for another model, or a part of it that minitx merges only:
            of an embedding, of experts, or with a bias.
    """
    check_no_adapters(check_type("model", model, Model, "a model of minitx"))
    folder = check_path("folder", folder)
    adapter = read_adapter(folder)
    if adapter is None:
        raise FileNotFoundError(f"{folder} has no {ADAPTER_CONFIG}; is it an adapter in PEFT's format?")
    checkpoint = record_of(model)
    shapes, _ = stored_tensors(model, checkpoint)
    base = Tensors(shapes, dict.fromkeys(shapes, ADAPTER_FILES[0]), folder=folder)
    merged = merge(base, adapter, checkpoint.architecture, model.config)
    updates: Mapping[str, Update] = getattr(merged, "updates", {})
    replaced: Mapping[str, Tensor] = getattr(merged, "replaced", {})
    entries = {name: entry for entry, names in stored_names(model, checkpoint).items() for name in names}
    whole = whole_parameters(model, adapter, replaced, entries)
    places = {entries[name].parameters: (name, update) for name, update in updates.items()}
    by_parts = {tuple(f"{part}.weight" for part in stored.parts): stored for stored in stored_modules(model)}
    if odd := [
        name for key, (name, update) in places.items() if key not in by_parts or update.bias is not None
    ]:
        raise ValueError(f"{adapter.path}: minitx merges the adapter of {odd[0]} only; minitx.load does.")
    adapted = [part for key in places for part in by_parts[key].parts]
    check_not_shared(model, "folder", [f"{part}.weight" for part in adapted])
    bias, saved = str(adapter.config.get("bias") or "none"), adapter.config.get("modules_to_save") or ()
    trained = {*whole} | trained_parameters(model, adapted, bias, [])
    start_training(model, bias, saved, trained)
    for name, parameter in whole.items():
        model.get_parameter(name).data.copy_(parameter)
    blocks = read_blocks(folder)
    for key, (name, update) in places.items():
        attach_parts(model, by_parts[key], name.rpartition(".")[0], update, adapter, blocks)
    return model


def whole_parameters(
    model: Model, adapter: Adapter, replaced: Mapping[str, Tensor], entries: Mapping[str, ResolvedEntry]
) -> dict[str, Tensor]:
    """Returns the values of the parameters that an adapter's file holds whole.

    Raises:
        ValueError: tensors that the model has no place for, or of another shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if unknown := sorted(name for name in replaced if name not in entries or entries[name].op.many):
        hint = (
            f"load it with head={adapter.task!r}" if adapter.task != model.task else "minitx.load merges them"
        )
        raise ValueError(f"{adapter.path}: the model has no place for {summarize(unknown)}; {hint}.")
    values: dict[str, Tensor] = {}
    for stored, tensor in replaced.items():
        entry = entries[stored]
        rows = [len(parameters[name]) for name in entry.parameters]
        check_not_shared(model, "folder", entry.parameters)
        for name, value in zip(entry.parameters, entry.op.load([tensor], rows), strict=True):
            if value.shape != parameters[name].shape:
                shapes = f"{tuple(value.shape)}, but in the model {tuple(parameters[name].shape)}"
                raise ValueError(
                    f"{adapter.path}: {stored} has shape {shapes}; load the model with num_labels=."
                )
            values[name] = value
    return values


def attach_parts(
    model: Model,
    stored: StoredModule,
    name: str,
    update: Update,
    adapter: Adapter,
    blocks: Mapping[str, tuple[list[int], float]],
) -> None:
    """Adds the adapter of one stored module to its projections."""
    parts = [model.get_submodule(path) for path in stored.parts]
    assert update.down is not None
    assert update.up is not None
    first = parts[0]
    assert isinstance(first, nn.Linear)
    device, dtype = first.weight.device, torch.promote_types(first.weight.dtype, torch.float32)
    rank, rslora = len(update.down), bool(adapter.config.get("use_rslora"))
    ranks, alpha = blocks.get(stored.name, ([], 0.0))
    if not ranks:
        alpha = by_pattern(adapter.config.get("alpha_pattern"), name, adapter.config.get("lora_alpha", 8))
    options = LoraOptions(
        alpha=float(alpha),
        dropout=float(adapter.config.get("lora_dropout") or 0.0),
        dora=update.magnitude is not None,
        rslora=rslora,
    )
    if not ranks and not math.isclose(options.scale(rank), update.scale):
        raise adapter.error("alpha_pattern", f"gives {name} another alpha with its prefix than without")
    sizes = [len(part.weight) for part in parts if isinstance(part, nn.Linear)]
    down, up = (tensor.to(device, dtype) for tensor in (update.down, update.up))
    magnitudes: list[Tensor | None] = [None] * len(parts)
    if update.magnitude is not None:
        magnitudes = [*stored.by_output.load([update.magnitude.flatten().to(device, dtype)], sizes)]
    for part, pair, magnitude in zip(parts, divide(stored, sizes, down, up, ranks), magnitudes, strict=True):
        assert isinstance(part, nn.Linear)
        if pair is not None:
            module = attach(part, *pair, options)
            if magnitude is not None:
                module.lora_magnitude = nn.Parameter(magnitude.clone())


def read_blocks(folder: Path) -> dict[str, tuple[list[int], float]]:
    """Returns the ranks and alpha of modules that `save_adapter` wrote as blocks, by their stored names."""
    path = folder / ADAPTER_FILES[0]
    if not path.is_file():
        return {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    return {name: (ranks, alpha) for name, (ranks, alpha) in json.loads(metadata.get(_BLOCKS, "{}")).items()}
