"""The weight table of an architecture: our names on the left, the checkpoint's on the right.

A table is data. Its names are of modules (their `weight` and `bias` are implied) or of single parameters, and
may hold placeholders: `{i}` is a layer, `{j}` a layer of the decoder of an encoder-decoder, `{e}` an expert.
`expand` fills them in for one model; nothing is matched by pattern, so the order of the entries does not
matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from minitx.architectures.operations import Copy, FromRow, Op, Rearrange, Split, StackExperts, Transposed

COPY = Copy()


@dataclass(frozen=True)
class CheckpointEntry:
    """The right side of an entry: the names in checkpoints, and the operation.

    If a checkpoint has several of the names, the first is loaded. A fresh model is saved under the last. If
    the operation takes `many` tensors, the names are those of all of them, in order. With `or_zero`
    checkpoints may lack the tensor, which means zeros.
    """

    names: tuple[str, ...]
    op: Op = COPY
    or_zero: bool = False


Table = dict[str | tuple[str, ...], str | CheckpointEntry]


def either(*names: str) -> CheckpointEntry:
    """Returns an entry with several names: the first found is loaded, a fresh model has the last."""
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
    """Returns an entry of one stored tensor for several modules, concatenated in its rows."""
    return CheckpointEntry((name,), Split())


def transposed(name: str) -> CheckpointEntry:
    """Returns an entry of a matrix stored as (inputs, outputs)."""
    return CheckpointEntry((name,), Transposed())


def split_transposed(name: str) -> CheckpointEntry:
    """Returns an entry of one stored (inputs, outputs) matrix for several modules, side by side."""
    return CheckpointEntry((name,), Transposed(Split()))


def split_heads(name: str) -> CheckpointEntry:
    """Returns an entry of one stored tensor for Q, K and V, head by head: those of head 0, of head 1, ..."""
    return CheckpointEntry((name,), Rearrange("(heads part dim) ... -> part (heads dim) ..."))


def row_or_zero(name: str) -> CheckpointEntry:
    """Returns an entry of a vector stored as a matrix with one row; zeros if the checkpoint lacks it."""
    return CheckpointEntry((name,), FromRow(), or_zero=True)


def stack_experts(name: str) -> CheckpointEntry:
    """Returns an entry of one stored tensor per expert `{e}`, stacked into one parameter."""
    return CheckpointEntry((name,), StackExperts())


def renamed(table: Table, ours: Mapping[str, str], prefix: str) -> Table:
    """Returns the table of an architecture that is a part of a larger model.

    Args:
        table: of the part as a separate model.
        ours: prefix of our names -> their prefix in the larger model. If not empty, layers are those of a
            decoder.
        prefix: added to the checkpoint's names.
    """

    def left(name: str) -> str:
        for begin, other in ours.items():
            name = name.replace("{i}", "{j}")
            if name.startswith(begin):
                return other + name.removeprefix(begin)
        return name

    def right(name: str) -> str:
        return prefix + (name.replace("{i}", "{j}") if ours else name)

    combined: Table = {}
    for names, row in table.items():
        key = left(names) if isinstance(names, str) else tuple(map(left, names))
        stored = CheckpointEntry((row,)) if isinstance(row, str) else row
        combined[key] = replace(stored, names=tuple(map(right, stored.names)))
    return combined


@dataclass(frozen=True)
class ResolvedEntry:
    """One entry with full parameter names and full stored names."""

    parameters: tuple[str, ...]
    names: tuple[str, ...]
    op: Op
    or_zero: bool = False


SUFFIXES = ("weight", "bias")


def rows(
    table: Table, layers: Sequence[Mapping[str, int]]
) -> Iterable[tuple[tuple[str, ...], CheckpointEntry]]:
    """Returns the entries of a table with the placeholders filled in."""
    for left, right in table.items():
        names = (left,) if isinstance(left, str) else left
        stored = CheckpointEntry((right,)) if isinstance(right, str) else right
        for values in places(names[0], layers):
            op = stored.op.bind(values)
            experts = range(values["experts"]) if op.many else range(1)
            filled = tuple(name.format(**values, e=e) for name in stored.names for e in experts)
            yield tuple(name.format(**values) for name in names), replace(stored, names=filled, op=op)


def places(name: str, layers: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, int]]:
    """Returns the values of a name's placeholder; one empty mapping if it has none."""
    if "{" not in name:
        return ({},)
    return [values for values in layers if ("j" if "{j}" in name else "i") in values]


def expand(
    table: Table, layers: Sequence[Mapping[str, int]], parameters: Iterable[str]
) -> list[ResolvedEntry]:
    """Returns the entries of a table for the parameters of a model.

    Args:
        table: the entries; those of modules that the model does not have are skipped.
        layers: the values of the placeholders, one mapping per layer.
        parameters: names that the entries must cover, exactly once.

    Raises:
        ValueError: a parameter without an entry or with two, or one stored name in two entries.
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
    for kind, names in (("parameter", covered), ("stored name", claimed)):
        if twice := sorted({name for name, count in Counter(names).items() if count > 1}):
            raise ValueError(f"weight table: {kind} in two entries: {', '.join(twice)}.")
    if bare := sorted(wanted - set(covered)):
        raise ValueError(f"weight table: no entry for {', '.join(bare)}.")
    return bindings
