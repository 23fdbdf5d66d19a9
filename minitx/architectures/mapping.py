"""Weight tables: minitx's parameter names on the left, the checkpoint's tensor names on the right.

A table is data. Its names are modules (their `weight` and `bias` follow) or single parameters, and may hold
placeholders: `{i}` for a layer, `{j}` for a decoder layer of an encoder-decoder, `{e}` for an expert.
`expand` resolves a table for one model. Nothing is matched by pattern, so the order has no meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from minitx.architectures.operations import (
    AsRow,
    Copy,
    FromRow,
    Op,
    Rearrange,
    Split,
    StackExperts,
    Transposed,
)

COPY = Copy()


@dataclass(frozen=True)
class CheckpointEntry:
    """The right side of a table entry: stored names and the operation between tensors and parameters.

    Attributes:
        names: aliases; the first that a file has is loaded, a new model is saved under the last. If the
            operation takes `many` tensors: the names of all of them, in order.
        op: the operation.
        or_zero: files may leave the tensor out, which means zeros.
    """

    names: tuple[str, ...]
    op: Op = COPY
    or_zero: bool = False


Table = dict[str | tuple[str, ...], str | CheckpointEntry]


def either(*names: str) -> CheckpointEntry:
    """One tensor under any of these names: a file's first is loaded, the last is used for new models."""
    return CheckpointEntry(names)


def attention_entries(branch: str, source: str, names: str, kind: str = "self") -> Table:
    """Returns the entries of an attention branch: Q, K, V and the output projection.

    Args:
        branch: its name, such as "decoder.layers.{i}.attention".
        source: the checkpoint's module that holds all four.
        names: the checkpoint's names of the four in it, separated by spaces.
        kind: "self" or "cross".
    """
    q, k, v, output = names.split()
    return {
        f"{branch}.{kind}_attention.Q": f"{source}.{q}",
        f"{branch}.{kind}_attention.K": f"{source}.{k}",
        f"{branch}.{kind}_attention.V": f"{source}.{v}",
        f"{branch}.{kind}_output.dense": f"{source}.{output}",
    }


def split(name: str) -> CheckpointEntry:
    """One stored tensor for several modules, concatenated along its rows."""
    return CheckpointEntry((name,), Split())


def transposed(name: str) -> CheckpointEntry:
    """Returns an entry of a matrix stored as (inputs, outputs)."""
    return CheckpointEntry((name,), Transposed())


def split_transposed(name: str) -> CheckpointEntry:
    """One stored (inputs, outputs) matrix for several modules, concatenated along its columns."""
    return CheckpointEntry((name,), Transposed(Split()))


def split_heads(name: str) -> CheckpointEntry:
    """One stored tensor for Q, K and V, interleaved by head: Q, K and V of head 0, of head 1, ..."""
    return CheckpointEntry((name,), Rearrange("(heads part dim) ... -> part (heads dim) ..."))


def row_or_zero(name: str) -> CheckpointEntry:
    """A vector stored as a matrix of one row; zeros if the file lacks it."""
    return CheckpointEntry((name,), FromRow(), or_zero=True)


def as_row(name: str) -> CheckpointEntry:
    """A matrix of one row stored as a vector, or a vector of one number stored as that number."""
    return CheckpointEntry((name,), AsRow())


def stack_experts(name: str) -> CheckpointEntry:
    """One stored tensor per expert `{e}` for one parameter of all experts."""
    return CheckpointEntry((name,), StackExperts())


def renamed(table: Table, prefixes: Mapping[str, str], prefix: str) -> Table:
    """Renames a table for a model that is part of a larger one.

    Args:
        table: the part's own table.
        prefixes: of minitx's names -> in the larger model; placeholders become those of a decoder.
        prefix: prefix of the checkpoint's names in the larger model.
    """

    def _left(name: str) -> str:
        for start, other in prefixes.items():
            name = name.replace("{i}", "{j}")
            if name.startswith(start):
                return other + name.removeprefix(start)
        return name

    def _right(name: str) -> str:
        return prefix + (name.replace("{i}", "{j}") if prefixes else name)

    result: Table = {}
    for names, stored in table.items():
        key = _left(names) if isinstance(names, str) else tuple(map(_left, names))
        entry = CheckpointEntry((stored,)) if isinstance(stored, str) else stored
        result[key] = replace(entry, names=tuple(map(_right, entry.names)))
    return result


@dataclass(frozen=True)
class ResolvedEntry:
    """An entry of a weight table for one model: full parameter names and full stored names."""

    parameters: tuple[str, ...]
    names: tuple[str, ...]
    op: Op
    or_zero: bool = False


SUFFIXES = ("weight", "bias")


def entries(
    table: Table, layers: Sequence[Mapping[str, int]]
) -> Iterable[tuple[tuple[str, ...], CheckpointEntry]]:
    """Yields the entries of a table with their placeholders filled in."""
    for left, right in table.items():
        names = (left,) if isinstance(left, str) else left
        stored = CheckpointEntry((right,)) if isinstance(right, str) else right
        for values in places(names[0], layers):
            op = stored.op.bind(values)
            experts = range(values["experts"]) if op.many else range(1)
            filled = tuple(name.format(**values, e=e) for name in stored.names for e in experts)
            yield tuple(name.format(**values) for name in names), replace(stored, names=filled, op=op)


def places(name: str, layers: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, int]]:
    """Returns the values of a name's placeholder, one mapping per layer; one empty mapping without."""
    if "{" not in name:
        return ({},)
    return [values for values in layers if ("j" if "{j}" in name else "i") in values]


def expand(
    table: Table, layers: Sequence[Mapping[str, int]], parameters: Iterable[str]
) -> list[ResolvedEntry]:
    """Resolves a table for the parameters of a model.

    Args:
        table: entries of modules that the model does not have are left out.
        layers: the values of the placeholders, one mapping per layer.
        parameters: names that the entries must cover, each exactly once.

    Raises:
        ValueError: a parameter without an entry or with two, or a stored name in two entries.
    """
    names, resolved = set(parameters), []
    for left, stored in entries(table, layers):
        if set(left) <= names:
            resolved.append(ResolvedEntry(left, stored.names, stored.op, stored.or_zero))
            continue
        for suffix in SUFFIXES:
            full = tuple(f"{name}.{suffix}" for name in left)
            if set(full) <= names:
                resolved.append(ResolvedEntry(full, tuple(f"{n}.{suffix}" for n in stored.names), stored.op))
    covered = [name for entry in resolved for name in entry.parameters]
    claimed = [name for entry in resolved for name in entry.names]
    for kind, listed in (("parameter", covered), ("stored name", claimed)):
        if twice := sorted(name for name, count in Counter(listed).items() if count > 1):
            raise ValueError(f"weight table: {kind} in two entries: {', '.join(twice)}.")
    if bare := sorted(names - set(covered)):
        raise ValueError(f"weight table: no entry for {', '.join(bare)}.")
    return resolved
