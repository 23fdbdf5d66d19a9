"""Filters: which tokens stay possible.

Each sets the logits of some tokens to -inf. All of them keep at least one token, never revive one that
is -inf already, leave the kept logits bit for bit as they were, and look at each row by itself. What a
filter calls a probability is the softmax of what the steps before it left.

The sets are those of transformers 5.23 (min_tokens_to_keep=1), which the parity tests hold them to.
z logits, p = softmax(z), H entropy in nats; B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.checks import Integers, Numbers, column, integer, number, per_row, set_frozen
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context

# So many logits are sorted faster than searched. On a GPU sorting is fast, and a search waits for it.
_SORTABLE = 4096
# Each halves the range of logits in which the search looks.
_HALVINGS = 8
# No sum of a vocabulary's float32 probabilities is off by more than this part of it.
_ROUNDING = 1e-5
# Top-H looks at so many tokens, in the reference as here.
_TOP_H_TOKENS = 100


@dataclass(frozen=True)
class TopK(LogitsProcessor):
    """Keeps the k most probable tokens, and those that tie with the k-th (arXiv:1805.04833).

    vLLM keeps all ties too; llama.cpp and CTranslate2 keep exactly k, whichever come first.

    Args:
        top_k: k, one or per row; 0 keeps every token.
    """

    top_k: Integers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(self, top_k=integer("top_k", self.top_k, 0, "0 keeps every token"))

    @property
    def largest(self) -> int:
        """The largest k of the rows."""
        return self.top_k if isinstance(self.top_k, int) else int(max(self.top_k))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.largest == 0 or (isinstance(self.top_k, int) and self.top_k >= logits.shape[-1]):
            return logits
        best = logits.topk(min(self.largest, logits.shape[-1])).values
        return logits.masked_fill(logits < self._kth(best), -torch.inf)

    def survivors(self, logits: Tensor) -> Tensor | None:
        """(B, K) ids in vocabulary order, K the largest k, that hold all tokens this filter keeps.

        None where more than K are kept: a row without limit, or ties with the k-th. Needs K < V.
        """
        if self.largest == 0 or not (isinstance(self.top_k, int) or min(self.top_k)):
            return None
        best, ids = logits.topk(self.largest + 1)
        kth = self._kth(best[:, :-1])
        decided = (kth > best[:, -1:]) | (kth == -torch.inf)  # False too where NaN is among them
        return ids[:, :-1].sort(dim=-1).values if bool(decided.all()) else None

    def _kth(self, best: Tensor) -> Tensor:
        """(B, 1): each row's k-th largest logit, from the sorted largest; -inf for a row without limit."""
        if isinstance(self.top_k, int):
            return best[:, -1:]
        k = per_row("top_k", self.top_k, best, dtype=torch.long)[:, None]
        kth = best.gather(1, k.clamp(1, best.shape[-1]) - 1)
        return kth.masked_fill(k == 0, -torch.inf)


@dataclass(frozen=True)
class TopP(LogitsProcessor):
    """Keeps the fewest most probable tokens that have probability top_p (arXiv:1904.09751, section 3.1).

    The token that crosses top_p is kept; where a sum equals it exactly, no further one is. Among equal
    logits at the cut, those with the higher ids are kept; transformers leaves that to an unstable sort.

    Args:
        top_p: one or per row, in (0, 1]; 1.0 keeps every token.
    """

    top_p: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(self, top_p=number("top_p", self.top_p, "(0, 1]", "1.0 keeps every token"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.top_p == 1.0:
            return logits
        rest = 1 - self.top_p if isinstance(self.top_p, float) else [1 - p for p in self.top_p]
        removable: Tensor | float = column("top_p", rest, logits)  # the mass that may go
        if _searching_pays(logits):
            probabilities = logits.softmax(dim=-1)
            best = logits.amax(dim=-1, keepdim=True)
            # Tokens with at most this probability go: even all V together have less than the removable mass.
            improbable = torch.as_tensor(removable).clamp(min=1e-9) * (0.99 / logits.shape[-1])
            low = best + (improbable / probabilities.amax(dim=-1, keepdim=True)).log()
            ids, sums = _sums_around(removable, logits, probabilities, low, best)
        else:
            ids, sums = _sums(logits, logits)
        first_kept = _at(ids, (sums <= removable).sum(dim=-1, keepdim=True))
        least = logits.gather(1, first_kept)
        lower_ids = torch.arange(logits.shape[-1], device=logits.device) < first_kept
        removed = (logits < least) | ((logits == least) & lower_ids)
        if isinstance(removable, Tensor):
            removed &= removable > 0  # top_p=1 keeps even what has probability 0 in this precision
        return logits.masked_fill(removed, -torch.inf)


@dataclass(frozen=True)
class MinP(LogitsProcessor):
    """Keeps tokens with at least min_p times the probability of the most probable one (arXiv:2407.01082).

    Args:
        min_p: one or per row, in [0, 1]; 0.0 keeps every token.
    """

    min_p: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(self, min_p=number("min_p", self.min_p, "[0, 1]", "0.0 keeps every token"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.min_p == 0.0:
            return logits
        probabilities = logits.softmax(dim=-1)
        least = column("min_p", self.min_p, logits) * probabilities.amax(dim=-1, keepdim=True)
        return logits.masked_fill(probabilities < least, -torch.inf)


@dataclass(frozen=True)
class Typical(LogitsProcessor):
    """Keeps tokens whose surprise -ln p is nearest to H, up to probability typical_p (arXiv:2202.00666).

    The most probable token may go. The token that crosses typical_p and those as near to H are kept.

    Args:
        typical_p: one or per row, in (0, 1]; 1.0 keeps every token.
    """

    typical_p: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(self, typical_p=number("typical_p", self.typical_p, "(0, 1]", "1.0 keeps every token"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.typical_p == 1.0:
            return logits
        mass = column("typical_p", self.typical_p, logits)
        surprise = -logits.log_softmax(dim=-1)
        probabilities = (-surprise).exp()
        entropy = (surprise * probabilities).nansum(dim=-1, keepdim=True)  # inf * 0 of a banned token is NaN
        distance = (surprise - entropy).abs()
        if _searching_pays(logits):
            # Farther than H are only improbable tokens, and beyond `far` all of them have at most 1 - mass.
            far = -(torch.as_tensor(1 - mass).clamp(min=1e-9) / logits.shape[-1]).log() - entropy
            high = torch.maximum(entropy, far) + 0.01
            ids, sums = _sums_around(mass, distance, probabilities, torch.full_like(high, -1.0), high)
        else:
            ids, sums = _sums(distance, logits)
        last_kept = _at(ids, (sums < mass).sum(dim=-1, keepdim=True))
        removed = distance > distance.gather(1, last_kept)
        if isinstance(mass, Tensor):
            removed &= mass < 1
        return logits.masked_fill(removed, -torch.inf)


@dataclass(frozen=True)
class Epsilon(LogitsProcessor):
    """Keeps tokens with probability at least epsilon_cutoff, and the most probable (arXiv:2210.15191).

    Args:
        epsilon_cutoff: one or per row, in [0, 1); 0.0 keeps every token. The paper uses 3e-4 to 9e-4.
    """

    epsilon_cutoff: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(
            self,
            epsilon_cutoff=number("epsilon_cutoff", self.epsilon_cutoff, "[0, 1)", "0.0 keeps every token"),
        )

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.epsilon_cutoff == 0.0:
            return logits
        return _at_least(column("epsilon_cutoff", self.epsilon_cutoff, logits), logits)


@dataclass(frozen=True)
class Eta(LogitsProcessor):
    """`Epsilon` with the cutoff min(e, sqrt(e) exp(-H)): lower where the model is unsure (arXiv:2210.15191).

    Args:
        eta_cutoff: e, one or per row, in [0, 1); 0.0 keeps every token. The paper uses 3e-4 to 4e-3.
    """

    eta_cutoff: Numbers
    elementwise = True

    def __post_init__(self) -> None:
        set_frozen(self, eta_cutoff=number("eta_cutoff", self.eta_cutoff, "[0, 1)", "0.0 keeps every token"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        if self.eta_cutoff == 0.0:
            return logits
        epsilon = torch.as_tensor(
            column("eta_cutoff", self.eta_cutoff, logits), dtype=logits.dtype, device=logits.device
        )
        _, entropy = _probabilities_and_entropy(logits)
        return _at_least(torch.minimum(epsilon, epsilon.sqrt() * (-entropy).exp()), logits)


@dataclass(frozen=True)
class TopH(LogitsProcessor):
    """Keeps the most probable tokens whose terms -p ln p add up to at most top_h * H (arXiv:2509.02510).

    As in transformers, only the 100 most probable tokens take part, with their probabilities made to sum
    to 1, and all others go. The paper has no such limit. So no value of top_h keeps every token.

    Args:
        top_h: one or per row, in (0, 1].
    """

    top_h: Numbers
    # Not `elementwise`: with top_h=1 the last bit of a sum decides, and that depends on how many are summed.

    def __post_init__(self) -> None:
        set_frozen(self, top_h=number("top_h", self.top_h, "(0, 1]", "None, the default, keeps every token"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        best, ids = logits.topk(min(_TOP_H_TOKENS, logits.shape[-1]))
        probabilities, entropy = _probabilities_and_entropy(best)
        allowed = column("top_h", self.top_h, logits) * entropy
        # 0 * ln 0 is NaN, which is not at most anything: tokens with probability 0 go.
        kept = (-probabilities * probabilities.log()).cumsum(dim=-1) <= allowed
        kept[:, 0] = True
        return torch.full_like(logits, -torch.inf).scatter_(1, ids, best.masked_fill(~kept, -torch.inf))


def _searching_pays(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.shape[-1] > _SORTABLE


def _sums(keys: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens in ascending order of the keys, (B, V) ids, and the sums of their probabilities, (B, V)."""
    ids = keys.sort(dim=-1, stable=True).indices
    return ids, logits.gather(1, ids).softmax(dim=-1).cumsum(dim=-1)


def _sums_around(
    mass: Tensor | float, keys: Tensor, probabilities: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """The part of `_sums` in which the sum reaches a mass: ids (B, K) and sums (B, K), with K mostly small.

    Halving the range of keys needs a pass over the vocabulary each, together far less than sorting it.

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
        # What float32 cannot tell is left to the sums below.
        low = torch.where(below < mass * (1 - _ROUNDING), middle, low)
        high = torch.where(below > mass * (1 + _ROUNDING), middle, high)
    inside = (keys > low) & (keys <= high)
    size = int(inside.sum(dim=-1).max())
    # In vocabulary order, then stably by key. Rows with fewer tokens inside get others in front, which
    # weigh nothing here.
    inner = keys.masked_fill(~inside, -torch.inf)
    ids = inner.topk(max(size, 1), sorted=False).indices.sort(dim=-1).values
    ids = ids.gather(1, inner.gather(1, ids).sort(dim=-1, stable=True).indices)
    before = torch.where(keys <= low, probabilities, 0.0).sum(dim=-1, keepdim=True, dtype=torch.double)
    weights = probabilities.masked_fill(~inside, 0.0).gather(1, ids)
    # Summed in double precision and then rounded, as cumsum does it on a CPU.
    return ids, (before + weights.cumsum(dim=-1, dtype=torch.double)).to(keys.dtype)


def _at(ids: Tensor, place: Tensor) -> Tensor:
    """(B, 1): the id at each row's place (B, 1), or at the last place."""
    return ids.gather(1, place.clamp(max=ids.shape[-1] - 1))


def _at_least(cutoff: Tensor | float, logits: Tensor) -> Tensor:
    """Keeps what has at least the probability `cutoff`, and the most probable tokens."""
    improbable = logits.softmax(dim=-1) < cutoff
    return logits.masked_fill(improbable & (logits < logits.amax(dim=-1, keepdim=True)), -torch.inf)


def _probabilities_and_entropy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) -> softmax (B, N) and its entropy in nats, (B, 1)."""
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    probabilities = log_probabilities.softmax(dim=-1)
    finite = log_probabilities.clamp(min=torch.finfo(logits.dtype).min)  # -inf * 0 would be NaN
    return probabilities, -(finite * probabilities).sum(dim=-1, keepdim=True)
