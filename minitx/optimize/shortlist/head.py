"""An output head that computes some tokens of the vocabulary only.

The head of a translation model reads one row of weights per token of the vocabulary at every step, which in
a small model is as much as the rest of the decoder; a sentence needs a few hundred of them (Jean et al. 2014,
arXiv:1412.2007; CTranslate2's vocabulary maps). The rows are gathered once. The logits keep their size: all
other tokens are -inf, so that sampling, searches and processors see what they would if those were masked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minitx.layers.heads import VOCABULARY_TASKS, Head
from minitx.optimize.classes import InPlaceOf, Module, WeightIdentity, mix_in, take_out
from minitx.optimize.linear import FastLinear, linear
from minitx.optimize.mixed_dtypes import MixedLinear, wider
from minitx.optimize.packed import PackedLinear
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type

_LISTED, _ROWS = "listed_tokens", "listed_rows"
_PLAIN = (nn.Linear, FastLinear, MixedLinear, PackedLinear)


class _ListedProjection(InPlaceOf, nn.Linear):
    """Mixed into the class of a projection: it computes the listed outputs only."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., listed outputs)"""
        parameters = (self.weight, self.bias)
        records = torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in parameters)
        weight, bias = selected(self, listed_by(self)) if records else rows_of(self)
        return linear(x.to(weight.dtype), weight, bias)


class _ListedHead(InPlaceOf, nn.Module):
    """Mixed into the class of a head: the listed logits take their places, all others are -inf."""

    projection: nn.Linear

    def forward(self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, E), (B, E), (B, S) -> (B, T, V)"""
        listed: Tensor = super().forward(hidden, pooled, mask)
        index = vars(self.projection)[_LISTED].to(listed.device)
        logits = listed.new_full((*listed.shape[:-1], self.projection.out_features), -torch.inf)
        return logits.index_copy(-1, index, listed)


@dataclass(frozen=True)
class _Rows:
    """Copies of rows of a weight, (N, inputs), and of a bias, (N) or None, and what they are copies of."""

    weight: Tensor
    bias: Tensor | None
    sources: tuple[WeightIdentity, WeightIdentity]


def rows_of(projection: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Returns the listed rows of a projection's weight and bias, gathered anew after either has changed.

    Returns:
        (listed outputs, inputs), and (listed outputs) or None.
    """
    rows: _Rows = vars(projection)[_ROWS]
    weight, bias = projection.weight, projection.bias
    same_bias = rows.bias is None if bias is None else rows.sources[1].is_of(bias)
    if not (same_bias and rows.sources[0].is_of(weight)):
        rows = vars(projection)[_ROWS] = gathered(projection, listed_by(projection))
    return rows.weight, rows.bias


def listed_by(projection: nn.Linear) -> Tensor:
    """Returns the listed tokens, (N,), after it has dropped those that a smaller vocabulary has not."""
    listed: Tensor = vars(projection)[_LISTED]
    if listed[-1] >= projection.out_features:
        listed = listed[listed < projection.out_features]
        if len(listed) == 0:
            hint = "call vocabulary_shortlist with ids of the vocabulary as it is now"
            raise ArgumentValueError("ids", vars(projection)[_LISTED], "of tokens in the vocabulary", hint)
        vars(projection)[_LISTED] = listed
    return listed


def selected(projection: nn.Linear, listed: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns copies of some rows of weight and bias in one dtype: (N,) -> (N, inputs), (N) or None."""
    weight, bias = projection.weight, projection.bias
    index, dtype = listed.to(weight.device), wider(weight, bias)
    rows = weight.index_select(0, index).to(dtype)
    return rows, None if bias is None else bias.index_select(0, index).to(dtype)


@torch.no_grad()
def gathered(projection: nn.Linear, listed: Tensor) -> _Rows:
    """Returns copies of some rows, and what they are copies of: (N,) -> (N, inputs), (N) or None."""
    sources = WeightIdentity(projection.weight), WeightIdentity(projection.bias)
    return _Rows(*selected(projection, listed), sources)


def vocabulary_shortlist(model: Module, ids: Iterable[int] | Tensor) -> Module:
    """Lets the output head compute these tokens only; the logits of all others are -inf.

    Changes the classes of the head and its projection in place; parameters, names and hooks stay, and `save`
    writes the model as it was. The rows of the weight are copied, and copied again when it has changed; at
    every step if it was made in inference mode, as PyTorch then does not count changes, and where gradients
    are recorded. A list replaces an earlier one. An end token that is not in it cannot be generated. Tokens
    that `resize_token_embeddings` drops leave the list.

    Args:
        model: a model of minitx in eval mode with a head for the tokens of a vocabulary.
        ids: the tokens, in any order.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a model with such a head, or ids that are no integers.
        ArgumentValueError: a model in training mode, no ids, ids outside the vocabulary, or a projection
            whose weights are quantised or adapted.
    """
    head = vocabulary_head(model)
    projection = head.projection
    if model.training:
        raise ArgumentValueError("model", type(model), "in eval mode", "call model.eval() first")
    if not _is_listed(projection):
        _check_plain(projection)
    listed = _checked_ids(ids, projection.out_features)
    vars(projection)[_LISTED], vars(projection)[_ROWS] = listed, gathered(projection, listed)
    if not _is_listed(projection):
        mix_in(projection, _ListedProjection)
        mix_in(head, _ListedHead)
    return model


def undo_vocabulary_shortlist(model: Module) -> Module:
    """Undoes `vocabulary_shortlist`: the head computes all tokens again. Returns the model.

    Raises:
        ArgumentTypeError: not a model with a head for the tokens of a vocabulary.
    """
    head = vocabulary_head(model)
    if _is_listed(head.projection):
        for name in (_LISTED, _ROWS):
            del vars(head.projection)[name]
        take_out(head.projection, _ListedProjection)
        take_out(head, _ListedHead)
    return model


@contextmanager
def shortlisted(model: Module, ids: Iterable[int] | Tensor) -> Iterator[Module]:
    """Applies `vocabulary_shortlist` for a `with` block; an earlier list is in force again afterwards.

    Args:
        model: as for `vocabulary_shortlist`.
        ids: the tokens.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `vocabulary_shortlist`.
    """
    projection = vocabulary_head(model).projection
    earlier = vars(projection).get(_LISTED)
    vocabulary_shortlist(model, ids)
    try:
        yield model
    finally:
        undo_vocabulary_shortlist(model)
        if earlier is not None:
            vocabulary_shortlist(model, earlier)


def vocabulary_head(model: Any) -> Head:
    """Returns the head of a model that scores the tokens of a vocabulary.

    Raises:
        ArgumentTypeError: any other model, or no model.
    """
    check_type("model", model, nn.Module, "a module")
    head = getattr(model, "head", None)
    if not isinstance(head, Head) or head.config.task not in VOCABULARY_TASKS:
        hint = 'load a decoder with head="causal-lm", or an encoder-decoder with head="seq2seq-lm"'
        raise ArgumentTypeError("model", type(model), "with a head for the tokens of a vocabulary", hint)
    return head


def _is_listed(projection: nn.Module) -> bool:
    return isinstance(projection, _ListedProjection)


def _check_plain(projection: nn.Linear) -> None:
    """Checks that a projection is W x + b, whichever product computes it."""
    if type(projection) not in _PLAIN or projection.weight.is_meta:
        hint = "apply the shortlist before passes such as quantization, or undo those first"
        raise ArgumentValueError("model", type(projection), "with a plain projection in its head", hint)


def _checked_ids(ids: Iterable[int] | Tensor, size: int) -> Tensor:
    """Returns the distinct ids in ascending order, (N,) long."""
    listed = ids.flatten().tolist() if isinstance(ids, Tensor) else ids
    if isinstance(listed, str | bytes) or not isinstance(listed, Iterable):
        raise ArgumentTypeError("ids", ids, "integers")
    distinct = sorted({*_integers(listed)})
    if not distinct or distinct[0] < 0 or distinct[-1] >= size:
        shown = [index for index in distinct if not 0 <= index < size][:5]
        raise ArgumentValueError("ids", shown, f"at least one id, each from 0 to {size - 1}")
    return torch.tensor(distinct)


def _integers(values: Iterable[Any]) -> Iterator[int]:
    """Yields ids as integers; those of numpy have an index too."""
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ArgumentTypeError("ids", value, "integers")
        yield value.__index__()
