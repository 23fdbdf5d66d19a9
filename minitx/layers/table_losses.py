"""Losses of a head that selects cells of a table (arXiv:2004.02349, section 4).

With labels of cells and operations, the loss is the sum of both log-likelihoods. With the number that answers
a question instead of the operation (`use_answer_as_supervision`), a row of the batch either selects cells or
computes: then the expected number under all operations is compared with the answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import RelaxedBernoulli, RelaxedOneHotCategorical
from torch.nn import functional as F

from minitx.config import CellLoss, HeadConfig
from minitx.layers.cross_entropy import widened
from minitx.layers.losses import cross_entropy
from minitx.layers.pooling import check_flat
from minitx.layers.table_head import CellLogits
from minitx.layers.tables import ROW, TINY
from minitx.validation import ArgumentValueError, check_choice, check_shape

OPERATIONS = 3  # sum, average and count, in this order after "none"


class TableTargets(NamedTuple):
    """Token types and labels of a batch of tables.

    Attributes:
        types: (B, T, K) token types; None: all zero.
        labels: (B, T) 1 at the tokens of the answer; None: no loss.
        aggregation_labels: (B,) operations.
        float_answer: (B,) the answer if it is a number, else NaN.
        numeric_values: (B, T) number of each token's cell, else NaN.
        numeric_values_scale: (B, T) number of tokens of each token's cell.
        table_mask: (B, T) 1 at the tokens of cells; None: where the row is not 0.
    """

    types: Tensor | None = None
    labels: Tensor | None = None
    aggregation_labels: Tensor | None = None
    float_answer: Tensor | None = None
    numeric_values: Tensor | None = None
    numeric_values_scale: Tensor | None = None
    table_mask: Tensor | None = None

    def _expect(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Returns a target that the loss needs.

        Raises:
            ArgumentTypeError: it is missing.
            ArgumentValueError: another shape.
        """
        value: Tensor = getattr(self, name)
        check_shape(name, value, shape, like="the batch")
        return value


def table_loss(logits: CellLogits, targets: TableTargets, mask: Tensor | None, config: HeadConfig) -> Tensor:
    """Returns the loss of the selected cells and of the operation on them, with a mask (B, T) -> ().

    Raises:
        ArgumentTypeError, ArgumentValueError: targets that are missing or do not fit, or an option that is.
    """
    assert config.cells is not None, "the head has them"
    loss = config.cells.loss
    labels = targets._expect("labels", tuple(logits.tokens.shape))
    if logits.columns is None:
        selection = token_loss(logits.tokens, labels, mask, loss.positive_label_weight)
    else:
        selection = column_loss(logits, labels)
    selection = selection * (not loss.disable_per_token_loss)
    if logits.aggregation is None:
        return selection.mean()
    if loss.use_answer_as_supervision:
        return answer_loss(logits, selection, targets, config)
    operations = targets._expect("aggregation_labels", (len(labels),))
    return selection.mean() + loss.aggregation_loss_weight * cross_entropy(logits.aggregation, operations)


def token_loss(tokens: Tensor, labels: Tensor, mask: Tensor | None, weight: float) -> Tensor:
    """Returns the mean binary cross-entropy of the attended tokens: (B, T), (B, T), (B, T) -> (B,).

    Args:
        tokens: (B, T) logits.
        labels: (B, T)
        mask: (B, T), or None.
        weight: of the tokens whose label is not 0.
    """
    loss = F.binary_cross_entropy_with_logits(tokens, labels.to(tokens.dtype), reduction="none")
    loss = torch.where(labels == 0, loss, weight * loss)
    attended = torch.ones_like(tokens) if mask is None else check_flat(mask).to(tokens.dtype)
    return (loss * attended).sum(dim=1) / (attended.sum(dim=1) + TINY)


def column_loss(logits: CellLogits, labels: Tensor) -> Tensor:
    """Returns minus the log-likelihood of the column, and of its cells given the column: (B, T) -> (B,).

    The column is the one with most labels, or none (0) without labels, which then has no cells.
    """
    cells, columns = logits.cells, logits.columns
    assert columns is not None, "table_loss checks it"
    labels = labels.to(logits.tokens.dtype)
    zeros = labels.new_zeros(len(labels), len(cells.column))
    per_column = cells.sum_by_column(zeros.scatter_add(1, cells.index, labels))
    empty = per_column.amax(dim=1) == 0
    column = per_column.argmax(dim=1).masked_fill(empty, 0)
    column_term = F.cross_entropy(columns, column, reduction="none")
    per_cell = zeros.scatter_reduce(1, cells.index, labels, "amax", include_self=False)
    entropy = F.binary_cross_entropy_with_logits(cells.mean(logits.tokens), per_cell, reduction="none")
    weight = cells.present * (cells.column == column[:, None])
    cell_term = (entropy * weight).sum(dim=1) / (weight.sum(dim=1) + TINY)
    return column_term + cell_term.masked_fill(empty, 0.0)


def answer_loss(logits: CellLogits, selection: Tensor, targets: TableTargets, config: HeadConfig) -> Tensor:
    """Returns the loss where the operation is learned from the number that answers the question.

    Args:
        logits: of the head.
        selection: (B,) loss of the selected cells.
        targets: `float_answer`, and the numbers of the tokens.
        config: of the head.

    Returns:
        ()
    """
    assert config.cells is not None, "table_loss checks it"
    assert logits.aggregation is not None, "table_loss checks it"
    loss, operations = config.cells.loss, widened(logits.aggregation)
    check_choice("HeadConfig.num_labels", config.num_labels, (1 + OPERATIONS,), "the answer needs them")
    answer = targets._expect("float_answer", (len(selection),)).to(operations.dtype)
    probabilities = operations.softmax(dim=-1)
    some = probabilities[:, 1:].sum(dim=1)  # any operation but "none"
    preference = needed("cell_selection_preference", loss.cell_selection_preference)
    labels = targets._expect("labels", tuple(logits.tokens.shape))
    selects = (some <= preference) & (labels.sum(dim=1) > 0)
    computes = (~answer.isnan() & ~selects).to(operations.dtype)
    none = -operations.log_softmax(dim=-1)[:, 0]
    further = loss.aggregation_loss_weight * (none * (1 - computes) - some.log() * computes)
    error = number_error(
        _expected_number(logits, targets, loss, config.cells.temperature), answer, computes, loss
    )
    further = further + loss.answer_loss_importance * error * computes
    if loss.answer_loss_cutoff is not None:
        further = further * (error <= loss.answer_loss_cutoff)
    return (selection * (1 - computes)).mean() + further.mean()


def needed(name: str, value: float | None) -> float:
    """Returns an option of the loss that may be None in a model that is not trained.

    Raises:
        ArgumentValueError: it is None.
    """
    if value is None:
        raise ArgumentValueError(f"CellLoss.{name}", None, "a number", "use_answer_as_supervision needs it")
    return value


def number_error(expected: Tensor, answer: Tensor, computes: Tensor, loss: CellLoss) -> Tensor:
    """Returns the Huber loss of the expected number: (B,), (B,), (B,) -> (B,).

    Args:
        expected: (B,)
        answer: (B,), NaN where it is no number.
        computes: (B,) 1 where it is.
        loss: its options.
    """
    answer = answer.nan_to_num(nan=0.0)
    if not loss.use_normalized_answer_loss:
        delta = needed("huber_loss_delta", loss.huber_loss_delta)
        return F.huber_loss(expected * computes, answer * computes, reduction="none", delta=delta)
    size = (torch.maximum(expected.abs(), answer.abs()) + TINY).detach()
    return F.huber_loss(expected / size * computes, answer / size * computes, reduction="none")


def _expected_number(logits: CellLogits, targets: TableTargets, loss: CellLoss, temperature: float) -> Tensor:
    """Returns the expected result of all operations on the selected cells: (B,).

    Args:
        logits: of the head.
        targets: the numbers of the tokens.
        loss: its options.
        temperature: of the cells.
    """
    shape, dtype = tuple(logits.tokens.shape), logits.tokens.dtype
    scale = targets._expect("numeric_values_scale", shape).to(dtype)
    numbers = targets._expect("numeric_values", shape).to(dtype).nan_to_num(nan=0.0)
    if targets.table_mask is not None:
        in_table = targets._expect("table_mask", shape)
    elif targets.types is not None:
        in_table = targets.types[..., ROW] > 0
    else:
        in_table = torch.zeros_like(scale)
    p = logits.selected.sigmoid()
    if loss.use_gumbel_for_cells:
        draw = RelaxedBernoulli(torch.tensor(temperature), logits=logits.selected * temperature)
        p = draw.sample()  # type: ignore[no-untyped-call]
    p = p / scale * in_table
    total, count = (p * numbers).sum(dim=1), p.sum(dim=1)
    others = count[:, None] - p + 1  # expected number of cells if this one is selected
    if loss.average_approximation_function == "ratio":
        average = total / (count + TINY)
    elif loss.average_approximation_function == "first_order":
        average = (numbers * p / others).sum(dim=1)
    else:
        variance = p * (1 - p)
        variance = variance.sum(dim=1, keepdim=True) - variance
        average = (numbers * p * (variance / others.square() + 1) / others).sum(dim=1)
    assert logits.aggregation is not None, "answer_loss checks it"
    operations = widened(logits.aggregation)[:, 1:]
    weights = (operations / loss.aggregation_temperature).softmax(dim=-1)
    if loss.use_gumbel_for_aggregation:
        heat = torch.tensor(loss.aggregation_temperature)
        drawn = RelaxedOneHotCategorical(heat, logits=operations)
        weights = drawn.sample()  # type: ignore[no-untyped-call]
    return (torch.stack((total, average, count), dim=1) * weights).sum(dim=1)
