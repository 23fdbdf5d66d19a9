"""Processors that learn from the tokens that were drawn, and steer the following ones towards a target.

Each has a state per row, which the caller carries from step to step (`StatefulProcessor`): nothing is stored
on the processor. p are the probabilities of its input, surprise is -log2 p in bits. B rows, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitx.decoding.parameters import POSITIVE, check_size, set_frozen, to_plain
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.reshape import Shape
from minitx.decoding.processors.truncation import keep_best
from minitx.validation import Interval

_WIDTH, _PEAK, _SHARPNESS = 0.3, 5.0, 10.0  # of adaptive-p; llama.cpp's constants


@dataclass(frozen=True)
class _Mirostat(Shape):
    """Removes the tokens outside of a limit that rises and falls until the mean surprise is tau.

    The limit mu starts at 2 tau. After each token with the surprise s (by the distribution without the
    removed tokens) it becomes mu - eta (s - tau). A token that the processor had removed, and that a later
    step forced, leaves the limit as it is.
    """

    tau: float
    eta: float = 0.1
    min_tokens_to_keep: int = field(default=1, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        self._checked(tau=POSITIVE, eta=Interval(0, 1, open_low=True))

    def init(self, context: Context) -> Tensor:
        """Returns mu of each row before the first token, (B,) float64."""
        return torch.full_like(context.length, 2 * self.tau, dtype=torch.float64)

    def update(self, state: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
        """Returns mu of each row after a token; see `StatefulProcessor.update`."""
        left = self(logits, context, state).double().log_softmax(dim=-1)
        surprise = -left.gather(1, token[:, None]).squeeze(1) / math.log(2)
        return torch.where(surprise.isfinite(), state - self.eta * (surprise - self.tau), state)

    def __call__(self, logits: Tensor, context: Context, state: Tensor | None = None) -> Tensor:
        """(B, V) -> (B, V), with mu in the state, (B,)."""
        limit = self.init(context) if state is None else state
        filtered = logits.masked_fill(self.removed(logits, limit[:, None]), -torch.inf)
        return keep_best(logits, filtered, logits, self.min_tokens_to_keep)

    def removed(self, logits: Tensor, limit: Tensor) -> Tensor:
        """Returns which tokens are outside of the limit: (B, V), (B, 1) -> (B, V) bool."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mirostat(_Mirostat):
    """Removes tokens of more than mu bits of surprise, and adapts mu until the mean surprise is tau.

    Mirostat 2 (Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
    Perplexity", arXiv:2007.14966; this variant is llama.cpp's). Low surprise is dull and repetitive, high
    surprise incoherent. mu starts at 2 tau; after a token of surprise s it becomes mu - eta (s - tau). The
    most probable token always stays; where even the whole distribution has less surprise than tau, mu grows.

    Args:
        tau: the surprise to reach, in bits, above 0. llama.cpp: 5.0.
        eta: the learning rate, in (0, 1]. llama.cpp: 0.1.
        min_tokens_to_keep: the least number of tokens that are kept, the most probable ones.
    """

    parameter = "mirostat"

    def removed(self, logits: Tensor, limit: Tensor) -> Tensor:
        """(B, V), (B, 1) -> (B, V) bool."""
        return logits.double().log_softmax(dim=-1) < -limit * math.log(2)


@dataclass(frozen=True)
class MirostatV1(_Mirostat):
    """Keeps the k most probable tokens, where k follows from mu and an estimate of the distribution's tail.

    Mirostat 1 (arXiv:2007.14966, algorithm 1, in the variant of llama.cpp). The probabilities are taken as
    those of Zipf's law with an exponent s, which is estimated from the m most probable tokens (equation 30);
    with e = s - 1, k = (e 2^mu / (1 - V^-e))^(1 / s), rounded down, at least 1. Tokens that tie with the k-th
    are kept. mu is adapted as by `Mirostat`. The authors' code rounds k, adds 1, and measures the surprise
    before the removal.

    Args:
        tau: the surprise to reach, in bits, above 0. llama.cpp: 5.0.
        eta: the learning rate, in (0, 1]. llama.cpp: 0.1.
        m: number of tokens for the estimate, at least 2. llama.cpp: 100.
        min_tokens_to_keep: the least number of tokens that are kept, the most probable ones.
    """

    m: int = 100
    parameter = "mirostat_v1"
    elementwise = False  # the whole vocabulary enters the formula

    def __post_init__(self) -> None:
        super().__post_init__()
        m = to_plain(self.m)
        m = int(m) if isinstance(m, float) and m.is_integer() else m  # of a command line
        set_frozen(self, m=check_size("mirostat_v1: m", m, 2))

    def removed(self, logits: Tensor, limit: Tensor) -> Tensor:
        """(B, V), (B, 1) -> (B, V) bool."""
        ordered, size = logits.sort(dim=-1, descending=True).values, logits.shape[-1]
        best = ordered[:, : self.m].double()
        place = torch.arange(1, best.shape[-1], dtype=torch.float64, device=logits.device)
        t, b = ((place + 1) / place).log(), best[:, :-1] - best[:, 1:]  # b: ln of the ratio of probabilities
        possible = best[:, 1:] > -torch.inf
        products = torch.where(possible, t * b, 0.0).sum(dim=-1, keepdim=True)
        squares = torch.where(possible, t * t, 0.0).sum(dim=-1, keepdim=True)
        s = (products / squares.clamp(min=1e-12)).clamp(min=1e-12)
        excess, log_size = s - 1, math.log(max(size, 2))
        # e / (1 - V^-e), which is 1 / ln V at e = 0.
        scale = torch.where(excess.abs() < 1e-9, 1 / log_size, excess / -torch.expm1(-excess * log_size))
        k = ((scale.log() + limit * math.log(2)) / s).exp().clamp(1, size)
        return logits < ordered.gather(1, k.long() - 1)


@dataclass(frozen=True)
class AdaptiveP(Shape):
    """Prefers tokens whose probability is near a target, and moves it so that the mean of the chosen is it.

    With a the mean of p of the tokens so far (decaying, in which the target counts as the past before the
    first token), t = 2 target - a, from 0 to 1, and d = |p - t| / 0.3, the new logits are
    5 - 10 d^2 / (1 + d) (llama.cpp, pull request 17927). They depend on the probabilities alone, so that in
    a large vocabulary the many improbable tokens together outweigh the others: a filter has to come before.

    Args:
        target: in [0, 1].
        decay: in [0, 0.99]; the mean is over about 1 / (1 - decay) tokens. llama.cpp: 0.9.
    """

    target: float
    decay: float = 0.9
    parameter = "adaptive_p"

    def __post_init__(self) -> None:
        self._checked(target=Interval(0, 1), decay=Interval(0, 0.99))

    def init(self, context: Context) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum of p of the past and the sum of the weights, (B,) float64 each."""
        weight = torch.full_like(context.length, 1 / (1 - self.decay), dtype=torch.float64)
        return self.target * weight, weight

    def update(
        self, state: tuple[Tensor, Tensor], context: Context, token: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the sums after a token; see `StatefulProcessor.update`."""
        chosen = logits.double().softmax(dim=-1).gather(1, token[:, None]).squeeze(1)
        total, weight = state
        return chosen + self.decay * total, 1 + self.decay * weight

    def __call__(
        self, logits: Tensor, context: Context, state: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """(B, V) -> (B, V), with the sums in the state."""
        total, weight = self.init(context) if state is None else state
        wanted = (2 * self.target - total / weight).clamp(0, 1)[:, None]
        distance = (logits.double().softmax(dim=-1) - wanted).abs() / _WIDTH
        changed = (_PEAK - _SHARPNESS * distance.square() / (1 + distance)).to(logits.dtype)
        return changed.masked_fill(logits == -torch.inf, -torch.inf)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return False
