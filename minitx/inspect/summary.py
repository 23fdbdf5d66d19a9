"""The module tree of a model with shapes, parameters and bytes: `summarize` as data, `render` as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minitx.checkpoint.formats.source import open_weights
from minitx.checkpoint.lora.base import base_folder
from minitx.models import Model
from minitx.models.compiled import check_not_compiled
from minitx.models.sizes import count, num_bytes
from minitx.pictures.text import human as human
from minitx.transaction import read_consistently
from minitx.validation import check_path, check_type


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One module, or a run of equal consecutive modules.

    Attributes:
        path: path of the module; of the first in a run.
        name: name in the tree: "Q", or "0-5" for a run.
        depth: depth in the tree; 0 for the parts of the model.
        kind: class of the module.
        repeat: number of modules in the run.
        runs: calls of these modules in one forward; more than `repeat` if layers share parameters.
        shapes: shapes of the module's direct parameters, by name.
        parameters: number of parameters in one module of the run, submodules included; a tied parameter is
            counted at its first occurrence.
        bytes: size of these parameters.
        dtypes: dtypes of these parameters.
        tied: direct parameters that are tied to others, by name: {"weight": "embedder.word_emb.weight"}.
    """

    path: str
    name: str
    depth: int
    kind: str
    repeat: int = 1
    runs: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    tied: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A tensor of the file that the model does not use."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A model's module tree and totals.

    Attributes:
        model_type: `model_type` of config.json; None for a model without a record of its origin.
        task: task of the head, or None.
        entries: the module tree, parents before children.
        parameters: number of parameters; tied ones are counted once.
        bytes: size of the parameters.
        dtypes: dtypes of the parameters, the most frequent first.
        kept: tensors of the file that are not used, but written back by `minitx.save`.
        ignored: tensors of the file that are neither used nor written back.
    """

    model_type: str | None
    task: str | None
    entries: tuple[ModuleEntry, ...]
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    kept: tuple[Unused, ...]
    ignored: tuple[Unused, ...]


def summarize(model: Model, folder: str | Path | None = None) -> Summary:
    """Summarizes the module tree of a model: shapes, parameters, bytes and dtypes.

    Args:
        model: any model of minitx.
        folder: folder that it was loaded from, to list the tensors that are ignored; None lists none.

    Raises:
        FileNotFoundError, ValueError: as `minitx.load`, about the weights in `folder`.
    """
    check_not_compiled(model)
    check_type("model", model, Model, "a model of minitx")
    folder = None if folder is None else check_path("folder", folder)
    owners: dict[int, str] = {}  # id of a parameter -> its first name
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), name)
    everything = [*model.parameters()]
    kept = {} if model.checkpoint is None else model.checkpoint.unused_tensors
    stored: dict[str, Tensor] = {}
    if folder is not None and model.checkpoint is not None:
        used = {name for names in model.checkpoint.names.values() for name in names} | set(kept)
        place = model.checkpoint.folder or base_folder(folder)
        tensors = read_consistently(place, lambda: open_weights(place))
        stored = {name: tensor for name, tensor in tensors.shapes.items() if name not in used}
    return Summary(
        model_type=None if model.checkpoint is None else model.checkpoint.model_type,
        task=model.task,
        entries=tuple(with_runs(tree(model, "", 0, owners), model)),
        parameters=count(everything),
        bytes=num_bytes(everything),
        dtypes=dtypes(everything),
        kept=unused(kept),
        ignored=unused(stored),
    )


# --- entries ------------------------------------------------------------------------------------------


def with_runs(entries: Iterable[ModuleEntry], model: Model) -> Iterable[ModuleEntry]:
    """Yields the entries with the number of calls of each layer."""
    orders = {
        f"{name}.layers": getattr(model.get_submodule(name), "layer_order", []) for name in model.families
    }
    for entry in entries:
        parent, _, index = entry.path.rpartition(".")
        if layer_order := orders.get(parent):
            members = range(int(index), int(index) + entry.repeat)
            yield replace(entry, runs=sum(layer_order.count(i) for i in members))
        else:
            yield replace(entry, runs=entry.repeat)


def tree(module: nn.Module, path: str, depth: int, owners: Mapping[int, str]) -> Iterable[ModuleEntry]:
    """Yields the entries of the submodules that have parameters."""
    for children in runs(module, path, owners):
        first_name, first = children[0]
        full = f"{path}.{first_name}" if path else first_name
        untied = untied_parameters(first, full, owners)
        everything = [*first.parameters()]
        if not everything:
            continue  # dropout, activation
        name = first_name if len(children) == 1 else f"{first_name}-{children[-1][0]}"
        here = {key: p for key, p in first._parameters.items() if p is not None}
        yield ModuleEntry(
            path=full,
            name=name,
            depth=depth,
            kind=type(first).__name__,
            repeat=len(children),
            shapes={key: tuple(p.shape) for key, p in here.items()},
            parameters=count(untied),
            bytes=num_bytes(untied),
            dtypes=dtypes(untied or everything),
            tied={key: owners[id(p)] for key, p in here.items() if owners[id(p)] != f"{full}.{key}"},
        )
        yield from tree(first, full, depth + 1, owners)


def runs(module: nn.Module, path: str, owners: Mapping[int, str]) -> Iterable[list[tuple[str, nn.Module]]]:
    """Groups the children: in a list of layers, equal neighbours together."""
    groups: list[list[tuple[str, nn.Module]]] = []
    previous = None
    for name, child in module.named_children():
        current = signature(child, f"{path}.{name}", owners) if isinstance(module, nn.ModuleList) else None
        if current is not None and current == previous:
            groups[-1].append((name, child))
        else:
            groups.append([(name, child)])
        previous = current
    return groups


def signature(module: nn.Module, path: str, owners: Mapping[int, str]) -> tuple[object, ...]:
    """Returns a value that is equal for modules with equal classes, shapes, dtypes and ties."""
    inside = tuple((name, type(child)) for name, child in module.named_modules())
    parameters = tuple(
        (name, p.shape, p.dtype, owners[id(p)] == f"{path}.{name}" or owners[id(p)])
        for name, p in module.named_parameters(remove_duplicate=False)
    )
    return inside, parameters


def untied_parameters(module: nn.Module, path: str, owners: Mapping[int, str]) -> list[nn.Parameter]:
    """Returns the parameters inside a module that are not tied to an earlier one."""
    named = module.named_parameters(remove_duplicate=False)
    return [p for name, p in named if owners[id(p)] == f"{path}.{name}"]


def dtypes(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """Returns the names of the dtypes, the most frequent first."""
    seen = Counter(dtype_name(tensor.dtype) for tensor in tensors)
    return tuple(name for name, _ in seen.most_common())


def dtype_name(dtype: torch.dtype) -> str:
    """Returns "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def unused(tensors: Mapping[str, Tensor]) -> tuple[Unused, ...]:
    """Lists tensors by name."""
    return tuple(
        Unused(name=name, shape=tuple(tensor.shape), dtype=dtype_name(tensor.dtype))
        for name, tensor in sorted(tensors.items())
    )


# --- text ------------------------------------------------------------------------------------------


def render(summary: Summary) -> str:
    """Renders the summary in at most 80 columns."""
    check_type("summary", summary, Summary, "the result of summarize")
    title = " ".join(filter(None, [summary.model_type, summary.task])) or "model"
    lines = [
        f"{title}: {summary.parameters:,} parameters, {human(summary.bytes)}, {' + '.join(summary.dtypes)}",
        "",
        line("module", "shape", "parameters", "bytes", "dtype"),
        "-" * 80,
    ]
    for entry in summary.entries:
        times = f": {entry.repeat} x" if entry.repeat > 1 else ""
        times += f", run {entry.runs} x" if entry.runs > entry.repeat else ""
        shape = " + ".join(" x ".join(map(str, s)) for n, s in entry.shapes.items() if n not in entry.tied)
        kind = entry.dtypes[0] if len(entry.dtypes) == 1 else "mixed"
        name = "  " * entry.depth + entry.name + times
        lines.append(line(name, shape, f"{entry.parameters:,}", human(entry.bytes), kind))
        for key, owner in entry.tied.items():
            lines.append(f"{'  ' * (entry.depth + 1)}{key} is {owner}, counted there")
    lines += ["-" * 80, line("total", "", f"{summary.parameters:,}", human(summary.bytes), "")]
    lines += listing("In the file, not used, kept for saving:", summary.kept)
    lines += listing("In the file, not used:", summary.ignored)
    return "\n".join(text.rstrip() for text in lines)


def line(name: str, shape: str, parameters: str, size: str, dtype: str) -> str:
    """Renders five columns in 80 characters; a long name extends into the empty part of the next column."""
    shape = shape.rjust(max(0, 46 - len(name) - 1))
    return f"{name} {shape:}"[:46].ljust(46) + f"{parameters:>15} {size:>9} {dtype:>8}"


def listing(title: str, tensors: tuple[Unused, ...]) -> list[str]:
    """Renders unused tensors under a title."""
    if not tensors:
        return []
    shown = [f"  {t.name}  {' x '.join(map(str, t.shape)) or 'one number'}  {t.dtype}" for t in tensors]
    return ["", title, *shown]
