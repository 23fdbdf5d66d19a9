"""Filters whose threshold follows from the distribution itself.

As all filters, they keep at least one token, never revive one that is -inf, and leave the kept logits bit for
bit unchanged. z logits, p = softmax(z); B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.parameters import NON_NEGATIVE, Numbers, Rule
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import Filter
from minitx.validation import Interval


@dataclass(frozen=True)
class TopNSigma(Filter):
    """Keeps tokens whose logit is at most n standard deviations below the largest (arXiv:2411.07641).

    z >= max(z) - n * std(z), the population's over the tokens that are not banned, as in llama.cpp. A
    temperature before or after it changes nothing, as both sides are divided by it.

    Args:
        top_n_sigma: n, at least 0, one or per row; 0.0 keeps every token. The paper uses 1.0.
    """

    top_n_sigma: Numbers
    rule = Rule("top_n_sigma", "0.0 keeps every token", NON_NEGATIVE, 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        distance = logits.amax(dim=-1, keepdim=True) - logits  # (B, V), inf for a banned token
        alive = distance < torch.inf
        count = alive.sum(dim=-1, keepdim=True)
        mean = torch.where(alive, distance, 0.0).sum(dim=-1, keepdim=True) / count
        squares = torch.where(alive, distance - mean, 0.0).square().sum(dim=-1, keepdim=True)
        most = self.column(logits) * (squares / count).sqrt()
        if isinstance(self.top_n_sigma, tuple):
            most = most.masked_fill(self.column(logits) == 0, torch.inf)
        return logits.masked_fill(distance > most, -torch.inf)


@dataclass(frozen=True)
class TopA(Filter):
    """Keeps tokens with at least a * max(p)^2: fewer, the more certain the model is.

    The definition is that of text-generation-webui and aphrodite.

    Args:
        top_a: a, one or per row, in [0, 1]; 0.0 keeps every token.
    """

    top_a: Numbers
    rule = Rule("top_a", "0.0 keeps every token", Interval(0, 1), 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        probabilities = logits.softmax(dim=-1)
        least = self.column(logits) * probabilities.amax(dim=-1, keepdim=True).square()
        return logits.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True)
class PLess(Filter):
    """Keeps tokens with at least the probability that two draws are equal, sum(p^2) (arXiv:2509.23234).

    Args:
        p_less: multiplies the threshold, one or per row, in [0, 1]; 1.0 is the paper's, 0.0 keeps all tokens.
    """

    p_less: Numbers
    rule = Rule("p_less", "0.0 keeps every token", Interval(0, 1), 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        probabilities = logits.softmax(dim=-1)
        least = self.column(logits) * probabilities.square().sum(dim=-1, keepdim=True)
        least = torch.minimum(least, probabilities.amax(dim=-1, keepdim=True))  # despite rounding
        return logits.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True)
class TailFree(Filter):
    """Cuts the tail where the curve of the sorted probabilities becomes flat (tail free sampling).

    The absolute second differences of the sorted probabilities, normalised to 1, are summed from the most
    probable token on; tokens after the one where the sum exceeds tfs are removed, as in
    text-generation-webui. Tokens that tie with the last kept one are kept.

    Args:
        tfs: one or per row, in (0, 1]; 1.0 keeps every token.
    """

    tfs: Numbers
    rule = Rule("tfs", "1.0 keeps every token", Interval(0, 1, open_low=True), 1.0)
    elementwise = False  # the differences at the end depend on the banned tokens after it

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if logits.shape[-1] < 3:
            return logits
        ordered = logits.sort(dim=-1, descending=True).values
        bends = ordered.softmax(dim=-1).diff(dim=-1).diff(dim=-1).abs()  # (B, V - 2)
        total = bends.sum(dim=-1, keepdim=True)
        sums = bends.cumsum(dim=-1) / total.clamp(min=torch.finfo(logits.dtype).tiny)
        share = self.column(logits)
        kept = 1 + (sums <= share).sum(dim=-1, keepdim=True)
        least = ordered.gather(1, kept.clamp(max=logits.shape[-1]) - 1)
        every = (total == 0) | (self.tensor(logits) == 1)
        return logits.masked_fill((logits < least) & ~every, -torch.inf)
