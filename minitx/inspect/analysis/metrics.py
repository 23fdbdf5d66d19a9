"""Metrics of a patching experiment: logits to one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minitx.inspect.inputs import positions_of_rows
from minitx.inspect.tokens import Token, token_ids_of_rows
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError

Metric = Callable[[Tensor], Tensor]  # of the logits (B, T, V) or (B, C), to (B,) or a scalar


def logit_difference(
    tokens: Token | Sequence[Token],
    against: Token | Sequence[Token] | None = None,
    *,
    position: int | Sequence[int] = -1,
    tokenizer: Tokenizer | None = None,
) -> Metric:
    """Returns a metric: the logit of a token minus that of another, at one position of each row.

    Args:
        tokens: ids, spellings in the vocabulary or texts of one token each; one for all rows, or a list.
        against: likewise; None: the logit alone.
        position: one for all rows, or one for each; negative ones are counted from the end of the logits,
            padding included.
        tokenizer: for spellings and texts.

    Returns:
        A function from logits (B, T, V) to (B,).

    Raises:
        ArgumentTypeError, ArgumentValueError: when it is called: tokens that are not in the vocabulary, a
            list of another length than the batch.

    Example:
        >>> metric = minitx.inspect.logit_difference(" Mary", " John", tokenizer=tokenizer)
        >>> minitx.inspect.patching_grid(model, clean, corrupted, metric)
    """

    def _metric(logits: Tensor) -> Tensor:
        if logits.dim() != 3:
            hint = "a classifier needs another metric, such as lambda logits: logits[:, 1]"
            raise ArgumentValueError("logits", logits, "of shape (batch, time, vocabulary)", hint)
        rows, time, size = logits.shape
        places = positions_of_rows(position, rows, time).to(logits.device)
        at = logits[torch.arange(rows, device=logits.device), places]  # (B, V)

        def _of(parameter: str, chosen: Token | Sequence[Token]) -> Tensor:
            ids = token_ids_of_rows(parameter, chosen, tokenizer, size, rows).to(logits.device)
            return at.gather(1, ids[:, None]).squeeze(1)

        return _of("tokens", tokens) if against is None else _of("tokens", tokens) - _of("against", against)

    return _metric


def mean_of(metric: Metric, logits: Tensor) -> Tensor:
    """Returns the mean of a metric over the rows: a scalar.

    Raises:
        ArgumentTypeError: the metric returns something other than a tensor.
        ArgumentValueError: it returns neither a number nor one for each row.
    """
    value = metric(logits)
    if not isinstance(value, Tensor):
        raise ArgumentTypeError("the value of the metric", value, "a tensor, (B,) or a scalar")
    if value.dim() > 1 or not value.is_floating_point():
        raise ArgumentValueError("the value of the metric", value, "floating-point, of shape (B,) or ()")
    return value.mean()
