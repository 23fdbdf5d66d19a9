"""DoLa: the last layer against an earlier one. R rows, V vocabulary, N candidate layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.guidance.base import Guidance, GuidedCall
from minitx.decoding.guidance.contrast import plausible
from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.processors.context import Context
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number

_DEEP, _SPAN = 40, 20  # of models with more layers, "low" and "high" are the first and last so many


@dataclass(frozen=True, repr=False)
class DoLa(Guidance):
    """DoLa: prefers tokens that become more probable in the upper layers (arXiv:2309.03883).

    The head is applied to the hidden states of candidate layers too, without the final norm. Of these the
    layer m is chosen whose distribution differs most from the last one's, by the Jensen-Shannon divergence as
    the authors compute it, with the halves KL(mean || p). The score is l - l_m for plausible tokens, those
    with p >= relative_top * max(p), and -inf for others.

    The layers are those of transformers 4.53. It chose one layer for the whole batch; here each row has its
    choice, so that rows do not depend on one another.

    Args:
        layers: candidates: "low" or "high" for every second layer of the lower or upper half, or numbers of
            hidden states: 0 are the embeddings, i the output of the i-th layer.
        relative_top: in (0, 1].

    Raises:
        ArgumentTypeError, ArgumentValueError: not layers, or a number out of range.
    """

    layers: Literal["low", "high"] | Sequence[int] = "low"
    relative_top: float = 0.1

    @property
    def early_layers(self) -> Sequence[int]:
        """The candidates, once they are numbers."""
        return () if isinstance(self.layers, str) else self.layers

    def resolved(self, call: GuidedCall) -> DoLa:
        """Returns the guidance with the candidates as numbers.

        Raises:
            ArgumentValueError: a model with an encoder, or a layer that it does not have.
        """
        if call.sources is not None:
            raise ArgumentValueError("guidance", self, "another one for a model with an encoder")
        model: Any = call.model
        count = len(model.decoder.layer_order)
        if isinstance(self.layers, str):
            return replace(self, layers=candidate_layers(self.layers, count, tied=model.head.config.tied))
        if max(self.layers) >= count:
            hint = f"the model has {count} layers, of which the last is compared with these"
            raise ArgumentValueError("layers", max(self.layers), f"at most {count - 1}", hint)
        return self

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        last, early = logits.log_softmax(dim=-1), torch.stack([*others]).log_softmax(dim=-1)  # (N, R, V)
        chosen = early[0]
        if len(early) > 1:
            mean = (last.exp() + early.exp()) / 2
            halves = (
                F.kl_div(table, mean, reduction="none").mean(dim=-1)
                for table in (last.expand_as(early), early)
            )
            layer = sum(halves).argmax(dim=0)  # type: ignore[union-attr]
            chosen = early[layer, torch.arange(len(layer), device=layer.device)]
        return (last - chosen).masked_fill(~plausible(last, self.relative_top), -torch.inf)

    def _check(self) -> None:
        hint = "the share of the best token's probability that a token needs"
        share = check_number("relative_top", self.relative_top, Interval(0, 1, open_low=True), hint)
        set_frozen(self, relative_top=share)
        if isinstance(self.layers, tuple):
            named = ((f"layers[{place}]", layer) for place, layer in enumerate(self.layers))
            set_frozen(self, layers=tuple(check_size(name, layer) for name, layer in named))
            if self.layers:
                return
        if self.layers not in ("low", "high"):
            kind = ArgumentValueError if isinstance(self.layers, str | tuple) else ArgumentTypeError
            raise kind("layers", self.layers, '"low", "high" or a list of layers')


def candidate_layers(part: str, count: int, *, tied: bool) -> tuple[int, ...]:
    """Returns the candidates of "low" or "high", as transformers 4.53 chose them.

    With tied embeddings "low" begins at layer 2, since a tied head recognises the embeddings themselves.

    Args:
        part: "low" or "high".
        count: number of layers.
        tied: whether the head has the weights of the embeddings.
    """
    half = count // 2
    if part == "high":
        return tuple(range(half if count <= _DEEP else count - _SPAN, count, 2))
    first = min(2, max(count - 1, 0)) if tied else 0
    layers = range(first, half if count <= _DEEP else _SPAN, 2)
    return tuple(layers) or (first,)
