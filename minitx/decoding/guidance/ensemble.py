"""Ensembles: several models generate one text. R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.decoding.guidance.base import Companion, Guidance, GuidedCall, check_model, same_prompts
from minitx.decoding.parameters import POSITIVE, set_frozen
from minitx.decoding.processors.context import Context
from minitx.device import constant
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_choice, check_number


@dataclass(frozen=True, repr=False)
class Ensemble(Guidance):
    """The weighted mean of the model's distribution and those of further models.

    The mean of log-probabilities, sum w_i ln p_i, is the product of experts: a token needs the consent of
    all. The mean of probabilities, ln sum w_i p_i, is a mixture: a token needs that of one.

    Args:
        models: beside the one that generates; with the same tokenizer.
        weights: above 0, one per model, first that of the one that generates; they are divided by their sum.
            None weighs all models equally.
        mean: "log" or "probability".

    Raises:
        ArgumentTypeError, ArgumentValueError: not language models in eval mode, or weights that do not fit.
    """

    models: Sequence[Any]
    weights: Sequence[float] | None = None
    mean: Literal["log", "probability"] = "log"

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """The further models after the same prompts."""
        named = ((f"models[{number}]", model) for number, model in enumerate(self.models))
        return [(name, same_prompts(check_model(name, model), call)) for name, model in named]

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        table = torch.stack([logits, *others]).log_softmax(dim=-1)  # (models, R, V)
        weights = constant(tuple(self.weights or [1.0] * len(table)), table.dtype, table.device)[
            :, None, None
        ]
        weights = weights / weights.sum()
        if self.mean == "log":
            return (weights * table).sum(dim=0)
        return (weights.log() + table).logsumexp(dim=0)

    def _check(self) -> None:
        if not isinstance(self.models, tuple):
            raise ArgumentTypeError("models", self.models, "a list of models")
        if not self.models:
            raise ArgumentValueError("models", self.models, "at least one further model")
        for number, model in enumerate(self.models):
            check_model(f"models[{number}]", model)
        check_choice("mean", self.mean, ("log", "probability"))
        if self.weights is None:
            return
        count = len(self.models) + 1
        if not isinstance(self.weights, tuple) or len(self.weights) != count:
            hint = "first that of the model that generates"
            raise ArgumentValueError("weights", self.weights, f"{count} numbers", hint)
        named = ((f"weights[{number}]", weight) for number, weight in enumerate(self.weights))
        set_frozen(self, weights=tuple(check_number(name, weight, POSITIVE) for name, weight in named))
