"""LoRA as a pass over a model: adapters added, merged and removed in place."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from minitx.checkpoint.build import seeded_generator
from minitx.checkpoint.lora.adapter import Adapter, names_module
from minitx.checkpoint.lora.merge import Update
from minitx.checkpoint.lora.settings import TASKS
from minitx.checkpoint.resolve import is_adapter, table_entries
from minitx.models import Model
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.training.lora.linear import LoraLinear, LoraOptions, attach, detach, fresh_matrices
from minitx.training.lora.stored import record_of, stored_modules, stored_name
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_choice,
    check_flags,
    check_integer,
    check_number,
    check_type,
)

Module = TypeVar("Module", bound=nn.Module)
ALL_LINEAR = "all-linear"
_LABELLED = ("sequence-classification", "token-classification", "question-answering")


@dataclass(frozen=True)
class LoraRecord:
    """What a model's adapters train beside A and B, in `model.lora`.

    Attributes:
        bias: "none", "lora_only" or "all".
        modules_to_save: modules that are trained whole, by Hugging Face's names.
        trained: names of the parameters of the model itself that are trained.
        trainable: names of the parameters that were trainable before.
    """

    bias: str
    modules_to_save: tuple[str, ...]
    trained: frozenset[str]
    trainable: frozenset[str]


def add_lora(
    model: Module,
    rank: int = 8,
    alpha: float = 16.0,
    *,
    targets: str | Sequence[str] = ("Q", "V"),
    dropout: float = 0.0,
    dora: bool = False,
    rslora: bool = False,
    bias: str = "none",
    modules_to_save: Sequence[str] | None = None,
    seed: int | None = None,
) -> Module:
    """Adds LoRA adapters (arXiv:2106.09685) to linear projections, in place; all else is frozen.

    The outputs stay as they are until the first step of training. Make the optimizer afterwards.

    Args:
        model: any module; `save_adapter` takes a model of minitx.
        rank: rank of the updates.
        alpha: scales an update by alpha / rank.
        targets: ends of the paths of projections, by their names in the model ("Q", "intermediate.dense") or
            in Hugging Face's ("q_proj", "c_attn"; the parts of a matrix that is one there share A, as in
            PEFT); a regular expression of whole paths; or "all-linear": every projection but those of head
            and pooler.
        dropout: probability for the inputs of the updates.
        dora: train the norm of every output's weights too (DoRA, arXiv:2402.09353).
        rslora: scale by alpha / sqrt(rank) (arXiv:2312.03732).
        bias: biases to train: "none", "lora_only" (of the adapted projections) or "all".
        modules_to_save: ends of the paths, in Hugging Face's model, of modules that are trained whole and
            saved with the adapter. None: the head, where it has labels and is new, as in PEFT: of
            sequence-classification, token-classification and question-answering.
        seed: of the random matrices A; None draws from PyTorch's global generator.

    Returns:
        The model.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value out of range, a name that no projection has, a
            projection that shares its weight, or a model that has adapters already.

    Example:
        >>> model = add_lora(minitx.load("gpt2"), rank=16, targets="all-linear")
        >>> model.num_parameters(trainable=True)
    """
    check_no_adapters(model)
    check_integer("rank", rank, 1)
    options = LoraOptions(
        alpha=check_number("alpha", alpha, Interval(0.0, math.inf, open_low=True, open_high=True)),
        dropout=check_number("dropout", dropout, Interval(0.0, 1.0, open_high=True)),
        dora=dora,
        rslora=rslora,
    )
    check_flags(dora=dora, rslora=rslora)
    check_choice("bias", bias, ("none", "lora_only", "all"))
    groups = select(model, targets)
    saved = (
        default_modules(model) if modules_to_save is None else names_of("modules_to_save", modules_to_save)
    )
    trained = trained_parameters(model, [path for group in groups for path in group], bias, saved)
    generator = seeded_generator(seed)
    start_training(model, bias, saved, trained)
    for group in groups:
        shared: nn.Parameter | None = None
        for path in group:
            module = model.get_submodule(path)
            assert isinstance(module, nn.Linear)
            A, B = map(nn.Parameter, fresh_matrices(module, module.out_features, rank, generator))
            shared = A if shared is None else shared
            attach(module, shared, B, options)
    return model


def merge_lora(model: Module) -> Module:
    """Merges the adapters into the weights, in place: W + s B A, by DoRA with the norms of its magnitudes.

    The model is then a plain one, which computes the same, may be saved, and trains all of its parameters.

    Args:
        model: with adapters.

    Returns:
        The model.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a module, or one without adapters.
    """
    for _, module in adapted_modules(model):
        magnitude = module.lora_magnitude
        update = Update(module.lora_A, module.lora_B, module.scale, magnitude=magnitude)
        with torch.no_grad():
            module.weight.copy_(update.apply(module.weight))
    return remove_lora(model)


def remove_lora(model: Module) -> Module:
    """Removes the adapters, in place; what was trained beside them (biases, heads) stays.

    Args:
        model: with adapters.

    Returns:
        The model; the parameters that were trainable before are so again.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a module, or one without adapters.
    """
    adapted = adapted_modules(model)
    record: LoraRecord = model.lora  # type: ignore[assignment]
    for _, module in adapted:
        detach(module)
    del model.lora
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in record.trainable)
    return mixed_dtypes(model)


def adapted_modules(model: nn.Module) -> list[tuple[str, LoraLinear]]:
    """Returns the projections with adapters, with their paths.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a module, or one without adapters.
    """
    check_type("model", model, nn.Module, "a module")
    adapted = [(path, module) for path, module in model.named_modules() if isinstance(module, LoraLinear)]
    if not adapted:
        raise ArgumentValueError("model", type(model), "a model with adapters", "add_lora adds them")
    return adapted


def has_adapters(model: nn.Module) -> bool:
    """Whether a projection of a model has an adapter."""
    return any(isinstance(module, LoraLinear) for module in model.modules())


def check_no_adapters(model: nn.Module) -> None:
    """Checks that a model has no adapters.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a module, or one with adapters.
    """
    if has_adapters(check_type("model", model, nn.Module, "a module")):
        hint = "merge_lora merges them, remove_lora removes them"
        raise ArgumentValueError("model", type(model), "a model without adapters", hint)


def start_training(model: nn.Module, bias: str, saved: Sequence[str], trained: Collection[str]) -> None:
    """Freezes a model except for some parameters, and leaves the record of its adapters."""
    trainable = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in trained:
        model.get_parameter(name).requires_grad_(True)
    object.__setattr__(model, "lora", LoraRecord(bias, tuple(saved), frozenset(trained), trainable))


# --- names -----------------------------------------------------------------------------------------


def names_of(parameter: str, names: Any) -> list[str]:
    """Returns a sequence of names as a list.

    Raises:
        ArgumentTypeError: anything else.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(type(n) is str for n in names):
        raise ArgumentTypeError(parameter, names, "a sequence of names", 'such as ("Q", "V")')
    return list(names)


def select(model: nn.Module, targets: str | Sequence[str]) -> list[list[str]]:
    """Returns the paths of the projections to adapt, in groups that share A.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `add_lora`.
    """
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    stored = {s.name: s.parts for s in stored_modules(model)} if isinstance(model, Model) else {}
    matched: list[Sequence[str]] = []
    if targets == ALL_LINEAR:
        matched = [[path] for path in linear if not path.startswith(("head.", "pooler."))]
    else:
        for name in [targets] if isinstance(targets, str) else names_of("targets", targets):
            own: list[Sequence[str]] = [[path] for path in linear if is_named(targets, name, path)]
            parts = own or [group for path, group in stored.items() if is_named(targets, name, path)]
            check_found(targets, parts, [*linear, *stored], names_other(model, name))
            matched += parts
    check_found(targets, matched, linear)
    seen: set[str] = set()
    groups = []
    for group in matched:
        groups.append([path for path in group if path not in seen])
        seen |= {*group}
    check_not_shared(model, "targets", [f"{path}.weight" for path in sorted(seen)])
    return [group for group in groups if group]


def is_named(targets: str | Sequence[str], name: str, path: str) -> bool:
    """Whether one of the targets, a regular expression if they are a string, means a path.

    Raises:
        ArgumentValueError: an invalid regular expression.
    """
    try:
        return names_module(name if isinstance(targets, str) else [name], path)
    except re.error as error:
        raise ArgumentValueError("targets", targets, "a valid regular expression", str(error)) from None


def names_other(model: nn.Module, name: str) -> bool:
    """Whether a name means a module that is no projection, such as an embedding, or the experts."""
    own = {
        path for path, module in model.named_modules() if path and next(module.parameters(), None) is not None
    }
    paths = own | {stored.rpartition(".")[0] for stored in parameter_names(model).values()}
    return any(is_named([name], name, path) for path in paths)


def check_found(targets: Any, found: Sequence[Any], paths: Iterable[str], is_other: bool = False) -> None:
    """Checks that a target means some projection.

    Raises:
        ArgumentValueError: it means none.
    """
    if not found:
        if is_other:
            hint = "embeddings, norms and experts take no adapter; modules_to_save trains them whole"
            raise ArgumentValueError("targets", targets, "names of linear projections", hint)
        ends = sorted({path.rpartition(".")[2] for path in paths})
        expected = "ends of projections' paths, a regular expression of whole paths or 'all-linear'"
        raise ArgumentValueError("targets", targets, expected, f"the paths end with {', '.join(ends)}")


def check_not_shared(model: nn.Module, argument: str, names: Iterable[str]) -> None:
    """Checks that parameters are not tied to others, such as the projection of a head to the word embedding.

    Raises:
        ArgumentValueError: one is.
    """
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in names:
        if others := [other for other in owners[id(model.get_parameter(name))] if other != name]:
            hint = f"{name} is {others[0]} too, and an adapter's file cannot hold that"
            raise ArgumentValueError(argument, name, "modules with weights of their own", hint)


def default_modules(model: nn.Module) -> list[str]:
    """Returns the modules of Hugging Face's model that form a head with labels."""
    if not isinstance(model, Model) or model.task not in _LABELLED:
        return []
    record = record_of(model)
    entries = [e for e in table_entries(record.architecture, model) if e.parameters[0].startswith("head.")]
    return sorted({stored_name(entry, model, record).split(".")[0] for entry in entries})


def trained_parameters(
    model: nn.Module, adapted: Sequence[str], bias: str, modules_to_save: Sequence[str]
) -> set[str]:
    """Returns the names of the parameters that are trained beside the adapters.

    Args:
        model: before or after its adapters are added.
        adapted: paths of the adapted projections.
        bias: as for `add_lora`.
        modules_to_save: ends of the paths in Hugging Face's model, or of a plain module's own.

    Raises:
        ArgumentValueError: a name that no module has, or tied parameters.
    """
    trained: set[str] = set()
    unused = set(modules_to_save)
    for names, stored in parameter_names(model).items():
        module = stored.rpartition(".")[0]
        saved = {name for name in modules_to_save if ends_path(name, module)}
        unused -= saved
        own = {f"{path}.bias" for path in adapted}
        biased = "bias" in stored if bias == "all" else bias == "lora_only" and bool(own & {*names})
        if saved:
            check_not_shared(model, "modules_to_save", names)
        if saved or biased:
            trained |= set(names)
    if unused:
        hint = "names are those of Hugging Face's model, such as 'classifier'"
        raise ArgumentValueError("modules_to_save", sorted(unused)[0], "the end of a module's path", hint)
    return trained


def ends_path(name: str, module: str) -> bool:
    """Whether `modules_to_save` means a module or one that holds it by a name, as in PEFT."""
    return Adapter({"modules_to_save": [name]}, Path(), {}).is_saved(module)


def parameter_names(model: nn.Module) -> dict[tuple[str, ...], str]:
    """Returns Hugging Face's name of each tensor, by the parameters in it; a plain module's own names."""
    if isinstance(model, Model):
        record = record_of(model)
        return {
            entry.parameters: stored_name(entry, model, record)
            for entry in table_entries(record.architecture, model)
        }
    return {(name,): name for name, _ in model.named_parameters() if not is_adapter(name)}


def task_type(model: Model) -> str | None:
    """Returns PEFT's name of a model's task; None if it has none for it."""
    if model.task is None:
        return "FEATURE_EXTRACTION"
    return next((name for name, task in TASKS.items() if task == model.task), None)
