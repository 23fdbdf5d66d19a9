"""The weight table of an architecture: our names on the left, the checkpoint's on the right.

A table is data. Its names are of modules (their `weight` and `bias` follow) or of single parameters, and
may hold placeholders: `{i}` is a layer, `{j}` a layer of a decoder behind an encoder, `{e}` an expert.
`expand` writes it out for one model; nothing is matched by pattern, so the order of the rows means nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from minitx.architectures.operations import Copy, FromRow, Op, Rearrange, Split, StackExperts, Transposed

COPY = Copy()


@dataclass(frozen=True)
class CheckpointEntry:
    """The right side of a row: the names that files use for it, and the operation.

    A file may hold several of the names: the first is read. A fresh model is written under the last.
    Where the operation takes `many` tensors, the names are those of all of them, in order. With `or_zero`
    files may lack it, which means zeros.
    """

    names: tuple[str, ...]
    op: Op = COPY
    or_zero: bool = False


Table = dict[str | tuple[str, ...], str | CheckpointEntry]


def either(*names: str) -> CheckpointEntry:
    """Any of these names: the first that a file has is read, a fresh model is written under the last."""
    return CheckpointEntry(names)


def attention_entries(ours: str, theirs: str, names: str, kind: str = "self") -> Table:
    """Returns the entries of an attention branch: Q, K, V and the output projection.

    Args:
        ours: the branch, such as "decoder.layers.{i}.attention".
        theirs: the checkpoint's module that holds all four.
        names: the checkpoint's names of the four in it, separated by spaces.
        kind: "self" or "cross".
    """
    q, k, v, output = names.split()
    return {
        f"{ours}.{kind}_attention.Q": f"{theirs}.{q}",
        f"{ours}.{kind}_attention.K": f"{theirs}.{k}",
        f"{ours}.{kind}_attention.V": f"{theirs}.{v}",
        f"{ours}.{kind}_output.dense": f"{theirs}.{output}",
    }


def split(name: str) -> CheckpointEntry:
    """One stored tensor for several of our modules, one after the other in its rows."""
    return CheckpointEntry((name,), Split())


def transposed(name: str) -> CheckpointEntry:
    """A matrix stored as (inputs, outputs)."""
    return CheckpointEntry((name,), Transposed())


def split_transposed(name: str) -> CheckpointEntry:
    """One stored (inputs, outputs) matrix for several of our modules, one after the other in its columns."""
    return CheckpointEntry((name,), Transposed(Split()))


def split_heads(name: str) -> CheckpointEntry:
    """One stored tensor for Q, K and V, head by head: Q, K and V of head 0, then those of head 1, ..."""
    return CheckpointEntry((name,), Rearrange("(heads part dim) ... -> part (heads dim) ..."))


def row_or_zero(name: str) -> CheckpointEntry:
    """A vector stored as a matrix of one row; zeros in files that lack it."""
    return CheckpointEntry((name,), FromRow(), or_zero=True)


def stack_experts(name: str) -> CheckpointEntry:
    """One stored tensor per expert `{e}` for the one parameter of all of them."""
    return CheckpointEntry((name,), StackExperts())


def renamed(table: Table, ours: Mapping[str, str], prefix: str) -> Table:
    """A table for a part of a larger model.

    Args:
        table: of the part as a model of its own.
        ours: how our names begin -> how they begin there. With it, layers are those of a decoder.
        prefix: what the checkpoint's names have in front there.
    """

    def left(name: str) -> str:
        for begin, other in ours.items():
            name = name.replace("{i}", "{j}")
            if name.startswith(begin):
                return other + name.removeprefix(begin)
        return name

    def right(name: str) -> str:
        return prefix + (name.replace("{i}", "{j}") if ours else name)

    found: Table = {}
    for names, row in table.items():
        key = left(names) if isinstance(names, str) else tuple(map(left, names))
        stored = CheckpointEntry((row,)) if isinstance(row, str) else row
        found[key] = replace(stored, names=tuple(map(right, stored.names)))
    return found


@dataclass(frozen=True)
class ResolvedEntry:
    """One row, written out: full parameter names and full stored names."""

    parameters: tuple[str, ...]
    names: tuple[str, ...]
    op: Op
    or_zero: bool = False


SUFFIXES = ("weight", "bias")


def rows(
    table: Table, layers: Sequence[Mapping[str, int]]
) -> Iterable[tuple[tuple[str, ...], CheckpointEntry]]:
    """The rows of a table with the placeholders filled in."""
    for left, right in table.items():
        names = (left,) if isinstance(left, str) else left
        stored = CheckpointEntry((right,)) if isinstance(right, str) else right
        for values in places(names[0], layers):
            op = stored.op.bind(values)
            experts = range(values["experts"]) if op.many else range(1)
            filled = tuple(name.format(**values, e=e) for name in stored.names for e in experts)
            yield tuple(name.format(**values) for name in names), replace(stored, names=filled, op=op)


def places(name: str, layers: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, int]]:
    """The values that a name's placeholder takes; a single one without values where it has none."""
    if "{" not in name:
        return ({},)
    return [values for values in layers if ("j" if "{j}" in name else "i") in values]


def expand(
    table: Table, layers: Sequence[Mapping[str, int]], parameters: Iterable[str]
) -> list[ResolvedEntry]:
    """A table written out for the parameters that a model has.

    Args:
        table: the rows; those of modules that the model does not have fall away.
        layers: the values of the placeholders, one mapping per layer.
        parameters: names that the rows must cover, each exactly once.

    Raises:
        ValueError: a parameter without a row or with two, or one stored name for two rows.
    """
    wanted, bindings = set(parameters), []
    for left, stored in rows(table, layers):
        if set(left) <= wanted:
            bindings.append(ResolvedEntry(left, stored.names, stored.op, stored.or_zero))
            continue
        for suffix in SUFFIXES:
            full = tuple(f"{name}.{suffix}" for name in left)
            if set(full) <= wanted:
                bindings.append(ResolvedEntry(full, tuple(f"{n}.{suffix}" for n in stored.names), stored.op))
    covered = [name for binding in bindings for name in binding.parameters]
    claimed = [name for binding in bindings for name in binding.names]
    for what, names in (("parameter", covered), ("stored name", claimed)):
        if twice := sorted({name for name, count in Counter(names).items() if count > 1}):
            raise ValueError(f"weight table: {what} in two rows: {', '.join(twice)}.")
    if bare := sorted(wanted - set(covered)):
        raise ValueError(f"weight table: no row for {', '.join(bare)}.")
    return bindings
