"""Logits of a head that selects cells to answers, and an answer to the inputs of the next question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.tokenizer.tables.table import Table

Cell = tuple[int, int]  # row, column, from 0
SEGMENT, COLUMN, ROW, PREVIOUS = 0, 1, 2, 3  # kinds of token types
LEAST = -88.7  # below it, exp(-logit) overflows in float32


@dataclass
class CellMemory:
    """The state of the questions of a request, one after another.

    Attributes:
        cells: of the answer to the last question that was answered.
    """

    cells: list[Cell] = field(default_factory=list)


class Turn(NamedTuple):
    """The place of a question in its conversation."""

    number: int
    conversation: CellMemory


def cell_probabilities(logits: Tensor, types: Tensor, mask: Tensor | None = None) -> dict[Cell, float]:
    """Returns the probability of each cell, the mean over its tokens.

    Args:
        logits: (T,) of the tokens.
        types: (T, K) token types.
        mask: (T,) 1 at tokens that are not padding; None: all.
    """
    probabilities = 1 / (1 + (-logits.float().clamp(min=LEAST)).exp())
    if mask is not None:
        probabilities = probabilities * mask
    tokens = defaultdict(list)
    for p, (segment, column, row) in zip(probabilities.tolist(), types[:, :PREVIOUS].tolist(), strict=True):
        if segment == 1 and column > 0 and row > 0:
            tokens[row - 1, column - 1].append(p)
    return {cell: sum(values) / len(values) for cell, values in tokens.items()}


def select_cells(
    logits: Tensor, types: Tensor, mask: Tensor | None = None, threshold: float = 0.5
) -> list[Cell]:
    """Returns the cells whose probability is above a threshold, by row and column.

    Args:
        logits: (T,) of the tokens.
        types: (T, K) token types.
        mask: (T,) 1 at tokens that are not padding; None: all.
        threshold: of the probability.
    """
    return sorted(cell for cell, p in cell_probabilities(logits, types, mask).items() if p > threshold)


def mark_previous(types: Tensor, cells: Collection[Cell]) -> Tensor:
    """Returns token types in which the cells of the answer to the previous question are marked.

    Args:
        types: (T, K) token types of a question about the same table.
        cells: of that answer.

    Returns:
        (T, K)
    """
    chosen = set(cells)
    marks = [
        int(segment == 1 and (row - 1, column - 1) in chosen)
        for segment, column, row in types[:, :PREVIOUS].tolist()
    ]
    types = types.clone()
    types[:, PREVIOUS] = torch.tensor(marks, dtype=types.dtype, device=types.device)
    return types


def aggregation_names(config: Mapping[str, Any]) -> tuple[dict[int, str], int | None]:
    """Returns the names of the operations by index, and the index of "no operation", of a config.json.

    Without names, the dict is empty: the answers of the model are cells.
    """
    names = config.get("aggregation_labels") if config.get("num_aggregation_labels") else None
    none = config.get("no_aggregation_label_index")
    return {int(index): str(name) for index, name in (names or {}).items()}, none


def table_answer(
    table: Table, cells: Sequence[Cell], operation: str = "", *, computes: bool = True
) -> dict[str, Any]:
    """Returns the answer to a question.

    Args:
        table: that has the cells.
        cells: selected cells, (row, column).
        operation: name of the operation on them; "" of a model without operations.
        computes: False for the operation that is none; its name is not part of the answer.

    Returns:
        "answer", the texts of the cells after the operation ("SUM > 1, 2"); "coordinates"; "cells", their
        texts; and "aggregator", the operation, if there is one.
    """
    texts = [table.rows[row][column] for row, column in cells]
    prefix = f"{operation} > " if operation and computes else ""
    answer: dict[str, Any] = {"answer": prefix + ", ".join(texts), "coordinates": list(cells), "cells": texts}
    return answer | ({"aggregator": operation} if operation else {})
