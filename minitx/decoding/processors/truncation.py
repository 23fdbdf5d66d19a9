"""Filters: the tokens that stay possible.

Each sets the logits of some tokens to -inf. All of them keep at least one token, never revive one that is
-inf already, leave the kept logits bit for bit unchanged, and treat each row on its own. Probabilities are
the softmax of the filter's input.

The sets are those of transformers 5.23, which the parity tests compare them with.
z logits, p = softmax(z), H entropy in nats; B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import Integers, Numbers, Rule
from minitx.decoding.processors.base import NumericProcessor
from minitx.decoding.processors.context import Context
from minitx.validation import Interval

# The largest vocabulary that is sorted. Above it bisection is faster on a CPU; on a GPU it would synchronise.
_SORTABLE = 4096
# Bisection steps, each of which halves the range of logits.
_HALVINGS = 8
# Upper bound of the relative rounding error of a sum of a vocabulary's float32 probabilities.
_ROUNDING = 1e-5
# Number of tokens that top-H considers, as in transformers.
_TOP_H_TOKENS = 100
# Steps after top-k run on its survivors alone if the vocabulary has at least this many tokens per survivor.
_SPARSE = 8

_ALL = "0.0 keeps every token"
_MASS = Interval(0, 1, open_low=True)
_SHARE = Interval(0, 1, open_high=True)


@dataclass(frozen=True)
class Filter(NumericProcessor):
    """Base class of the filters.

    Args:
        min_tokens_to_keep: the least number of tokens that are kept, the best by the filter's measure.
    """

    min_tokens_to_keep: int = field(default=1, kw_only=True, repr=False)
    elementwise = True

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); the logits themselves if the filter is off."""
        filtered = super().__call__(logits, context)
        if self.min_tokens_to_keep == 1 or filtered is logits:
            return filtered
        return keep_best(logits, filtered, self.ratings(logits), self.min_tokens_to_keep)

    def ratings(self, logits: Tensor) -> Tensor:
        """(B, V) -> (B, V): the measure by which the filter prefers tokens."""
        return logits


@dataclass(frozen=True)
class TopK(Filter):
    """Keeps the k most probable tokens, and those that tie with the k-th (arXiv:1805.04833).

    vLLM keeps all ties too; llama.cpp and CTranslate2 keep exactly k, in an unspecified order.

    Args:
        top_k: k, one or per row; 0 keeps every token.
    """

    top_k: Integers
    rule = Rule("top_k", "0 keeps every token", off=0)

    @property
    def largest(self) -> int:
        """The largest k of the rows."""
        return self.top_k if isinstance(self.top_k, int) else int(max(self.top_k))

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.largest == 0 or (isinstance(self.top_k, int) and self.top_k >= logits.shape[-1]):
            return logits
        best = logits.topk(min(self.largest, logits.shape[-1])).values
        return logits.masked_fill(logits < self._kth(best), -torch.inf)

    def survivors(self, logits: Tensor) -> Tensor | None:
        """Returns ids (B, K) in vocabulary order that include all kept tokens, K the largest k.

        The following elementwise steps of a chain need only these: 50 logits instead of 50,000. None if that
        does not pay (many survivors, or a GPU, which would be synchronised), or if more than K tokens are
        kept: a row without limit, or ties with the k-th.
        """
        dense = self.largest * _SPARSE >= logits.shape[-1] or logits.device.type != "cpu"
        unlimited = self.largest == 0 or (isinstance(self.top_k, tuple) and min(self.top_k) == 0)
        if dense or unlimited or self.min_tokens_to_keep > 1:
            return None
        best, ids = logits.topk(self.largest + 1)
        kth = self._kth(best[:, :-1])
        decided = (kth > best[:, -1:]) | (kth == -torch.inf)  # False for NaN too
        return ids[:, :-1].sort(dim=-1).values if bool(decided.all()) else None

    def _kth(self, best: Tensor) -> Tensor:
        """Returns each row's k-th largest logit (B, 1) from the sorted largest; -inf without a limit."""
        if isinstance(self.top_k, int):
            return best[:, -1:]
        k: Tensor = self.column(best)
        kth = best.gather(1, k.clamp(1, best.shape[-1]) - 1)
        return kth.masked_fill(k == 0, -torch.inf)


@dataclass(frozen=True)
class TopP(Filter):
    """Keeps the fewest most probable tokens of total probability top_p (arXiv:1904.09751, section 3.1).

    The token that crosses top_p is kept; where a sum equals it exactly, no further one is. Among equal
    logits at the cut, those with the higher ids are kept; transformers leaves that to an unstable sort.

    Args:
        top_p: one or per row, in (0, 1]; 1.0 keeps every token.
    """

    top_p: Numbers
    rule = Rule("top_p", "1.0 keeps every token", _MASS, 1.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        removable = self.column(logits, lambda top_p: 1 - top_p)  # the probability that may be removed
        if _searching_pays(logits):
            probabilities = logits.softmax(dim=-1)
            best = logits.amax(dim=-1, keepdim=True)
            # Tokens of at most 0.99 / V of `rest` are removed: all V together have less than `rest`.
            rest = torch.as_tensor(removable, dtype=logits.dtype).clamp(min=1e-9)
            low = best + (rest * (0.99 / logits.shape[-1]) / probabilities.amax(dim=-1, keepdim=True)).log()
            ids, sums = _sums_around(removable, logits, probabilities, low, best)
        else:
            ids, sums = _sums(logits, logits)
        first_kept = _at(ids, (sums <= removable).sum(dim=-1, keepdim=True))
        least = logits.gather(1, first_kept)
        lower_ids = torch.arange(logits.shape[-1], device=logits.device) < first_kept
        removed = (logits < least) | ((logits == least) & lower_ids)
        if isinstance(removable, Tensor):
            removed &= removable > 0  # top_p=1 keeps even tokens whose probability rounds to 0
        return logits.masked_fill(removed, -torch.inf)


@dataclass(frozen=True)
class MinP(Filter):
    """Keeps tokens with at least min_p times the highest probability (arXiv:2407.01082).

    Args:
        min_p: one or per row, in [0, 1]; 0.0 keeps every token.
    """

    min_p: Numbers
    rule = Rule("min_p", _ALL, Interval(0, 1), 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        probabilities = logits.softmax(dim=-1)
        least = self.column(logits) * probabilities.amax(dim=-1, keepdim=True)
        return logits.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True)
class Typical(Filter):
    """Keeps tokens whose surprise -ln p is nearest to H, of total probability typical_p (arXiv:2202.00666).

    The most probable token may be removed. The token that crosses typical_p is kept, and all as near to H.

    Args:
        typical_p: one or per row, in (0, 1]; 1.0 keeps every token.
    """

    typical_p: Numbers
    rule = Rule("typical_p", "1.0 keeps every token", _MASS, 1.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        mass = self.column(logits)
        distance, probabilities, entropy = _typicality(logits)
        if _searching_pays(logits):
            # Tokens farther than H are improbable; beyond the other bound all of them have at most `rest`.
            rest = torch.as_tensor(1 - mass, dtype=logits.dtype).clamp(min=1e-9)
            high = torch.maximum(entropy, -(rest / logits.shape[-1]).log() - entropy) + 0.01
            ids, sums = _sums_around(mass, distance, probabilities, torch.full_like(high, -1.0), high)
        else:
            ids, sums = _sums(distance, logits)
        last_kept = _at(ids, (sums < mass).sum(dim=-1, keepdim=True))
        removed = distance > distance.gather(1, last_kept)
        if isinstance(mass, Tensor):
            removed &= mass < 1
        return logits.masked_fill(removed, -torch.inf)

    def ratings(self, logits: Tensor) -> Tensor:
        """(B, V) -> (B, V): the negative distance between surprise and entropy."""
        return -_typicality(logits)[0]


@dataclass(frozen=True)
class Epsilon(Filter):
    """Keeps tokens with probability at least epsilon_cutoff, and the most probable (arXiv:2210.15191).

    Args:
        epsilon_cutoff: one or per row, in [0, 1); 0.0 keeps every token. The paper uses 3e-4 to 9e-4.
    """

    epsilon_cutoff: Numbers
    rule = Rule("epsilon_cutoff", _ALL, _SHARE, 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        return _above(self.column(logits), logits)


@dataclass(frozen=True)
class Eta(Filter):
    """`Epsilon` with the cutoff min(e, sqrt(e) exp(-H)): lower at high entropy (arXiv:2210.15191).

    Args:
        eta_cutoff: e, one or per row, in [0, 1); 0.0 keeps every token. The paper uses 3e-4 to 4e-3.
    """

    eta_cutoff: Numbers
    rule = Rule("eta_cutoff", _ALL, _SHARE, 0.0)

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        epsilon = self.tensor(logits)
        _, entropy = _probabilities_and_entropy(logits)
        return _above(torch.minimum(epsilon, epsilon.sqrt() * (-entropy).exp()), logits)


@dataclass(frozen=True)
class TopH(Filter):
    """Keeps the most probable tokens whose terms -p ln p add up to at most top_h * H (arXiv:2509.02510).

    As in transformers, only the 100 most probable tokens are considered, with their probabilities normalised
    to 1, and all others are removed. The paper has no such limit. No value of top_h keeps every token.

    Args:
        top_h: one or per row, in (0, 1].
    """

    top_h: Numbers
    rule = Rule("top_h", "None, the default, keeps every token", _MASS)
    elementwise = False  # with top_h=1 the last bit of a sum decides, and depends on the number of terms

    def apply(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        best, ids = logits.topk(min(_TOP_H_TOKENS, logits.shape[-1]))
        probabilities, entropy = _probabilities_and_entropy(best)
        # 0 * ln 0 is NaN, for which the comparison is False: tokens with probability 0 are removed.
        kept = (-probabilities * probabilities.log()).cumsum(dim=-1) <= self.column(logits) * entropy
        kept[:, 0] = True
        return torch.full_like(logits, -torch.inf).scatter_(1, ids, best.masked_fill(~kept, -torch.inf))


def _typicality(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns |surprise - entropy| (B, V), probabilities (B, V) and entropy (B, 1)."""
    surprise = -logits.log_softmax(dim=-1)
    probabilities = (-surprise).exp()
    entropy = (surprise * probabilities).nansum(dim=-1, keepdim=True)  # inf * 0 of a banned token is NaN
    return (surprise - entropy).abs(), probabilities, entropy


def _searching_pays(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.shape[-1] > _SORTABLE


def _sums(keys: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the ids (B, V) in ascending order of the keys, and the cumulative probabilities (B, V)."""
    ids = keys.sort(dim=-1, stable=True).indices
    return ids, logits.gather(1, ids).softmax(dim=-1).cumsum(dim=-1)


def _sums_around(
    mass: Tensor | float, keys: Tensor, probabilities: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the part of `_sums` in which the sum reaches a mass: ids and sums (B, K), K usually small.

    Bisects the range of keys. Each step is a pass over the vocabulary, together far less than sorting it.
    The 1,024 largest with a full sort as fallback are as fast while these suffice, and 2 to 4 times slower
    otherwise (50,257 tokens, one core).

    Args:
        mass: a number or (B, 1).
        keys: (B, V).
        probabilities: (B, V).
        low: (B, 1), a key up to which the sum is certainly less than the mass.
        high: (B, 1), a key up to which it is not.
    """
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = torch.where(keys <= middle, probabilities, 0.0).sum(dim=-1, keepdim=True)
        # Differences below the rounding error are left to the exact sums.
        low = torch.where(below < mass * (1 - _ROUNDING), middle, low)
        high = torch.where(below > mass * (1 + _ROUNDING), middle, high)
    inside = (keys > low) & (keys <= high)
    size = int(inside.sum(dim=-1).max())
    # In vocabulary order, then stably by key. Rows with fewer tokens inside get others in front, of
    # probability 0.
    inner = keys.masked_fill(~inside, -torch.inf)
    ids = inner.topk(max(size, 1), sorted=False).indices.sort(dim=-1).values
    ids = ids.gather(1, inner.gather(1, ids).sort(dim=-1, stable=True).indices)
    before = torch.where(keys <= low, probabilities, 0.0).sum(dim=-1, keepdim=True, dtype=torch.double)
    weights = probabilities.masked_fill(~inside, 0.0).gather(1, ids)
    # Summed in double precision and then rounded, as cumsum does on a CPU.
    return ids, (before + weights.cumsum(dim=-1, dtype=torch.double)).to(keys.dtype)


def _at(ids: Tensor, index: Tensor) -> Tensor:
    """Returns the ids (B, 1) at an index (B, 1), or the last ids after the end."""
    return ids.gather(1, index.clamp(max=ids.shape[-1] - 1))


def _above(cutoff: Tensor | float, logits: Tensor) -> Tensor:
    """Keeps tokens of at least the probability `cutoff`, and the most probable ones."""
    improbable = logits.softmax(dim=-1) < cutoff
    return logits.masked_fill(improbable & (logits < logits.amax(dim=-1, keepdim=True)), -torch.inf)


def _probabilities_and_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) -> softmax (B, N) and its entropy in nats, (B, 1)."""
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    probabilities = log_probabilities.softmax(dim=-1)
    finite = log_probabilities.clamp(min=torch.finfo(logits.dtype).min)  # -inf * 0 would be NaN
    return probabilities, -(finite * probabilities).sum(dim=-1, keepdim=True)


def keep_best(logits: Tensor, filtered: Tensor, ratings: Tensor, count: int) -> Tensor:
    """Returns the filtered logits, but those of the `count` tokens with the best ratings; all (B, V)."""
    worst = ratings.topk(min(count, logits.shape[-1])).values[:, -1:]
    return torch.where(ratings >= worst, logits, filtered)


def keeping(processor: Any, count: int) -> Any:
    """Returns a filter that keeps at least `count` tokens; another processor is returned as it is."""
    fewer = getattr(processor, "min_tokens_to_keep", count) < count
    return replace(processor, min_tokens_to_keep=count) if fewer else processor
