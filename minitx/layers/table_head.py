"""The head that selects cells of a table and an operation on them (arXiv:2004.02349, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from minitx.config import HeadConfig
from minitx.layers.cross_entropy import widened
from minitx.layers.norm import dropout
from minitx.layers.pooling import check_flat
from minitx.layers.tables import ROW, Cells, column_logits, select_column


class CellLogits(NamedTuple):
    """Logits of a batch of tables, in float32 at least.

    Attributes:
        selected: (B, T) output: a token is part of the answer.
        tokens: (B, T) the same before a column is selected.
        columns: (B, columns) the answer is in a column; None: cells of several columns can be selected.
        aggregation: (B, C) the operation on the cells, which has the dtype of the model; None: no operation.
        cells: of the tables.
    """

    selected: Tensor
    tokens: Tensor
    columns: Tensor | None
    aggregation: Tensor | None
    cells: Cells


class TableHead(nn.Module):
    """Scores tokens and columns by one projection each, and operations on the cells from the pooled vector.

    Args:
        config: of the head.
        hidden_size: E.
    """

    def __init__(self, config: HeadConfig, hidden_size: int) -> None:
        super().__init__()
        assert config.cells is not None, "head_class checks it"
        self.config, self.selection = config, config.cells
        self.dropout = dropout(config.classifier_dropout)
        self.cells = nn.Linear(hidden_size, 1)
        self.columns = nn.Linear(hidden_size, 1)
        self.aggregation = nn.Linear(hidden_size, config.num_labels) if config.num_labels else None

    def forward(
        self, hidden: Tensor, pooled: Tensor, mask: Tensor | None, types: Tensor | None = None
    ) -> CellLogits:
        """(B, T, E), (B, E), (B, T), token types (B, T, K) -> logits"""
        config, (batch, time, _) = self.selection, hidden.shape
        x = self.dropout(hidden)
        tokens = widened(self.cells(x).squeeze(-1)) / config.temperature
        by_column = widened(self.columns(x).squeeze(-1))
        types = x.new_zeros(batch, time, ROW + 1, dtype=torch.long) if types is None else types
        attended = torch.ones_like(types[..., 0]) if mask is None else check_flat(mask)
        cells = Cells.of(types, attended, config)
        if config.select_one_column or config.average_logits_per_cell:
            per_cell = cells.mean(tokens)
        selected, columns = tokens, None
        if config.average_logits_per_cell:
            selected = tokens = cells.to_tokens(per_cell)
        if config.select_one_column:
            columns = column_logits(by_column, cells, allow_empty=config.allow_empty_column_selection)
            selected = cells.to_tokens(select_column(per_cell, columns, cells))
        aggregation = None if self.aggregation is None else self.aggregation(pooled)
        return CellLogits(selected, tokens, columns, aggregation, cells)
