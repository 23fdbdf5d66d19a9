"""Guidance by contrast: the distribution moves away from that of another prompt or of a weaker model.

z logits, l = log_softmax(z); c of the prompt, u of the other prompt, a of the amateur. R rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from minitx.decoding.guidance.base import (
    Companion,
    Guidance,
    GuidedCall,
    check_model,
    prompts_part,
    same_prompts,
)
from minitx.decoding.parameters import NON_NEGATIVE, POSITIVE, set_frozen
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import Prompts
from minitx.validation import ArgumentValueError, Interval, check_number

_ANY = Interval(-torch.inf, torch.inf, open_low=True, open_high=True)


@dataclass(frozen=True, repr=False)
class ClassifierFree(Guidance):
    """Classifier-free guidance: z' = lu + scale * (lc - lu) (Sanchez et al. 2023, arXiv:2306.17806).

    The model runs twice: after the prompts, and after negative or empty ones. A scale above 1 follows the
    prompt more closely than the model would, below 1 less; 0 follows the negative prompt.

    Args:
        scale: 1.0 changes nothing. The paper uses 1.25 to 1.75.
        negative_prompts: as prompts of `generate`, one for all or one per prompt. None is the last token of
            each prompt, as in transformers; with an encoder they are encoder inputs and required.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a finite number.
    """

    scale: float
    negative_prompts: Prompts | None = None

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """The model after the negative prompts."""
        if self.scale == 1:
            return []
        if self.negative_prompts is None and call.sources is not None:
            hint = "an encoder has no empty input; pass encoder inputs to move away from"
            raise ArgumentValueError("negative_prompts", None, "set for models with an encoder", hint)
        rows = [row[-1:] for row in call.prompts]
        if self.negative_prompts is not None:
            rows = call.read("negative_prompts", self.negative_prompts)
        return [("negative_prompts", _after(rows, call))]

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        return guided(logits, others[0], self.scale) if others else logits

    def part(self, prompts: slice) -> Self:
        """See `Guidance.part`."""
        return replace(self, negative_prompts=prompts_part(self.negative_prompts, prompts))

    def _check(self) -> None:
        set_frozen(self, scale=check_number("scale", self.scale, _ANY, "1.0 changes nothing"))


@dataclass(frozen=True, repr=False)
class ContextAware(Guidance):
    """Context-aware decoding: z' = (1 + alpha) * lc - alpha * lu (Shi et al. 2023, arXiv:2305.14739).

    The prompts contain a context, such as a document, and a question; the others the question alone. The
    output then relies on the context more than on the knowledge in the weights. It is `ClassifierFree` with
    scale 1 + alpha.

    Args:
        alpha: at least 0; 0.0 changes nothing. The paper uses 0.5.
        prompts_without_context: as prompts of `generate`, one for all or one per prompt; with an encoder they
            are encoder inputs.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a number in its range, or no prompts.
    """

    alpha: float
    prompts_without_context: Prompts

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """The model after the prompts without context."""
        if self.alpha == 0:
            return []
        name = "prompts_without_context"
        return [(name, _after(call.read(name, self.prompts_without_context), call))]

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        return guided(logits, others[0], 1 + self.alpha) if others else logits

    def part(self, prompts: slice) -> Self:
        """See `Guidance.part`."""
        return replace(self, prompts_without_context=prompts_part(self.prompts_without_context, prompts))

    def _check(self) -> None:
        set_frozen(self, alpha=check_number("alpha", self.alpha, NON_NEGATIVE, "0.0 changes nothing"))


@dataclass(frozen=True, repr=False)
class ContrastiveDecoding(Guidance):
    """Contrastive decoding: prefers tokens that the model finds more probable than a weaker model does.

    Of the plausible tokens, those with p >= alpha * max(p), the score is (1 + beta) * l - beta * la (O'Brien
    and Lewis 2023, arXiv:2309.09117), or with beta=None l - la (Li et al. 2022, arXiv:2210.15097). All others
    get -inf.

    Args:
        amateur_model: a smaller model with the same tokenizer.
        alpha: in (0, 1]; larger values leave fewer tokens.
        beta: at least 0, the strength; None for the score of the first paper.
        temperature: above 0, divides the amateur's logits. The first paper uses 0.5 for GPT-2.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a language model in eval mode, or numbers out of range.
    """

    amateur_model: Any
    alpha: float = 0.1
    beta: float | None = 0.5
    temperature: float = 1.0

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """The amateur after the same prompts."""
        check_model("amateur_model", self.amateur_model)
        return [("amateur_model", same_prompts(self.amateur_model, call))]

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        ours = logits.log_softmax(dim=-1)
        amateur = (others[0] / self.temperature).log_softmax(dim=-1)
        scores = ours - amateur if self.beta is None else guided(ours, amateur, 1 + self.beta)
        return scores.masked_fill(~plausible(ours, self.alpha), -torch.inf)

    def _check(self) -> None:
        check_model("amateur_model", self.amateur_model)
        hint = "the share of the best token's probability that a token needs"
        set_frozen(
            self,
            alpha=check_number("alpha", self.alpha, Interval(0, 1, open_low=True), hint),
            temperature=check_number("temperature", self.temperature, POSITIVE, "1.0 changes nothing"),
        )
        if self.beta is not None:
            set_frozen(self, beta=check_number("beta", self.beta, NON_NEGATIVE, "0.0 only filters"))


@dataclass(frozen=True, repr=False)
class Experts(Guidance):
    """Experts: z' = z + alpha * (z_expert - z_anti_expert).

    DExperts (Liu et al. 2021, arXiv:2105.03023): small models trained on wanted and unwanted
    texts. Proxy tuning (Liu et al. 2024, arXiv:2401.08565): a small model tuned and untuned, alpha=1.0; the
    large one then behaves as if it had been tuned.

    Args:
        expert, anti_expert: models with the same tokenizer; None in place of one is the model itself.
        alpha: 0.0 changes nothing.

    Raises:
        ArgumentTypeError, ArgumentValueError: not language models in eval mode, both None, or not a number.
    """

    expert: Any
    anti_expert: Any
    alpha: float = 1.0

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """Expert and anti-expert after the same prompts."""
        return [(name, same_prompts(check_model(name, model), call)) for name, model in self._models()]

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """See `Guidance.combine`."""
        expert = logits if self.expert is None else others[0]
        anti_expert = logits if self.anti_expert is None else others[-1]
        return keep_bans(logits + self.alpha * (expert - anti_expert), logits)

    def _models(self) -> list[tuple[str, Any]]:
        models = (("expert", self.expert), ("anti_expert", self.anti_expert))
        return [(name, model) for name, model in models if model is not None]

    def _check(self) -> None:
        for name, model in self._models():
            check_model(name, model)
        if not self._models():
            raise ArgumentValueError("expert", None, "a model, or anti_expert= one")
        set_frozen(self, alpha=check_number("alpha", self.alpha, _ANY, "0.0 changes nothing"))


def guided(logits: Tensor, other: Tensor, scale: float) -> Tensor:
    """Returns lu + scale * (lc - lu): (R, V), (R, V) -> (R, V). Banned tokens stay banned."""
    wanted, unwanted = logits.log_softmax(dim=-1), other.log_softmax(dim=-1)
    return keep_bans(scale * (wanted - unwanted) + unwanted, logits)


def plausible(logits: Tensor, share: float) -> Tensor:
    """Returns which tokens have at least this share of the largest probability: (R, V) -> (R, V) bool."""
    return logits >= logits.amax(dim=-1, keepdim=True) + math.log(share)


def keep_bans(combined: Tensor, logits: Tensor) -> Tensor:
    """Returns the combined logits with -inf for tokens that the model bans: (R, V), (R, V) -> (R, V)."""
    return combined.masked_fill(logits == -torch.inf, -torch.inf)


def _after(rows: list[list[int]], call: GuidedCall) -> Companion:
    """The model of the call after other prompts, or with other encoder inputs."""
    if call.sources is None:
        return Companion(call.model, rows, None)
    return Companion(call.model, call.prompts, rows)
