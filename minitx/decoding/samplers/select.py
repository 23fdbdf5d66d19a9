"""Selectors: how one token is taken from the logits that the chain of processors left.

A selector is called `(logits, position) -> tokens`, with logits (B, V) and the number of tokens that
each row has generated before this one, an int or (B,). It hands back the tokens, (B,). A token whose
logit is -inf is never taken. V vocabulary, B rows.

Two of them sample, and both by a race: give each token i the waiting time E_i / p_i, where the E_i are
independent draws of an exponential distribution; the token that arrives first is i with probability
p_i. They differ in where the randomness comes from:

- `MultinomialSampler` draws from a `torch.Generator`, as `torch.multinomial` does inside: the same generator
  gives the same tokens as there. What a row gets depends on the rows beside it.
- `CounterGumbel` computes it from the row's key, the position and the token's id: a row gets the same
  tokens alone, in a batch, in another slot, and whatever was drawn before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF
# Logits with fewer tokens left than one in so many get noise for just those.
_SPARSE = 8
# Noise for about so many tokens at a time stays in a CPU's cache; twice as fast for batches.
_AT_ONCE = 2**16


class Sampler(Protocol):
    """Takes one token per row."""

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) logits and the rows' position, an int or (B,) -> (B,) token ids."""
        ...


class Argmax:
    """The most probable token: greedy decoding. Of equal ones the lowest id on a CPU (as in transformers)."""

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        return logits.argmax(dim=-1)


class MultinomialSampler:
    """Samples with the randomness of a generator; tokens equal those of `torch.multinomial`.

    Equal bit for bit: `torch.multinomial(softmax(logits, -1), 1, generator=generator)` runs this race
    too, behind checks that wait for the device.

    Args:
        generator: on the device of the logits; None for torch's global one.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        probabilities = torch.softmax(logits, dim=-1)
        times = torch.empty_like(probabilities).exponential_(1, generator=self.generator)
        return probabilities.div_(times).argmax(dim=-1)


class CounterGumbel:
    """Samples with randomness that is a pure function of (row's key, position, token id).

    The race in logarithms, known as the Gumbel-max trick: argmax of logit_i - ln E_i. That needs no
    softmax, and leaves -inf at -inf.

    The noise comes from a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as
    easy as 1, 2, 3"): key and position give each row a start and a stride, token i stands at
    start + i * stride (mod 2^32), and a hash makes 32 random bits of that place. Only whole numbers
    below 2^63 are involved, so that every device computes the same.

    Args:
        keys: (B,) long, one per row; `row_keys` makes them.

    Raises:
        ValueError: keys of another shape or dtype.
    """

    def __init__(self, keys: Tensor) -> None:
        if keys.dim() != 1 or keys.dtype != torch.long:
            raise ValueError(
                f"keys has shape {tuple(keys.shape)} and dtype {keys.dtype}; one torch.long per row was "
                "expected, shape (B,)."
            )
        self.keys = keys
        # Both halves of a key reach both words, however alike two keys are: 0 and 1 will do.
        low = _mixed((keys & _32_BITS) ^ 0x5BD1E995)
        high = _mixed((keys >> 32 & _32_BITS) ^ low)
        self._words = torch.stack([_mixed(low ^ high), high], dim=1)  # (B, 2)

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        start, stride = self._counters(position)
        alive = logits > -torch.inf
        # Who wins is decided among the tokens that are left: after top-k, say, that is a handful.
        if logits.device.type == "cpu" and int(alive.sum()) * _SPARSE < alive.numel():
            row, token = alive.nonzero(as_tuple=True)
            noisy = torch.full_like(logits, -torch.inf)
            noisy[row, token] = logits[row, token] + _gumbel(token * stride[row] + start[row])
            return noisy.argmax(dim=-1)
        token = torch.arange(logits.shape[-1], device=logits.device)
        size = max(1, _AT_ONCE // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
        parts = zip(*(torch.split(rows, size) for rows in (logits, start, stride)), strict=True)
        drawn = [
            (part + _gumbel(token * step[:, None] + first[:, None])).argmax(dim=-1)
            for part, first, step in parts
        ]
        return torch.cat(drawn)

    def noise(self, places: int, position: int | Tensor) -> Tensor:
        """(B, places) Gumbel noise. Added to logits it makes their k largest k draws without replacement."""
        start, stride = self._counters(position)
        return _gumbel(torch.arange(places, device=start.device) * stride[:, None] + start[:, None])

    def _counters(self, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """The start and the odd stride of each row's counter at its position, (B,) each."""
        halves = torch.arange(2, device=self.keys.device)
        at = (position[:, None] if isinstance(position, Tensor) else position) * 2 + halves
        start, stride = _mixed(self._words ^ _mixed(at)).unbind(dim=1)
        return start, stride | 1


def row_keys(
    seed: int | Sequence[int] | Tensor,
    prompts: Sequence[Sequence[int]],
    num_samples: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The keys of `CounterGumbel` for a call: from each row's seed and prompt, not from its place.

    Equal prompts with equal seeds differ in how many of them came before in the same call, and so
    do the samples of one prompt. A row therefore draws the same tokens alone or in a batch, and yet
    no two rows draw the same noise.

    Args:
        seed: a whole number for all prompts, or one for each.
        prompts: the ids of each prompt, without padding.
        num_samples: rows per prompt; those of one prompt follow one another.
        device: where the keys go.

    Returns:
        (prompts * num_samples,) long.

    Raises:
        ValueError: another number of seeds than of prompts.
        TypeError: a seed that is no whole number.
    """
    given = seed.tolist() if hasattr(seed, "tolist") else seed  # of torch or numpy
    seeds = list(given) if isinstance(given, Sequence) else [given] * len(prompts)
    if len(seeds) != len(prompts):
        raise ValueError(
            f"seed has {len(seeds)} numbers, but there are {len(prompts)} prompts; give one number, or "
            "one for each prompt."
        )
    seen: Counter[tuple[int, ...]] = Counter()
    keys = []
    for number, prompt in zip(seeds, prompts, strict=True):
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise TypeError(f"seed={number!r} is no whole number.")
        source = (int(number), *prompt)
        for _ in range(num_samples):
            text = ",".join(map(str, (*source, seen[source])))
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            keys.append(int.from_bytes(digest, "little", signed=True))
            seen[source] += 1
    return torch.tensor(keys, dtype=torch.long, device=device)


def _mixed(number: Tensor) -> Tensor:
    """A bijective hash of whole numbers below 2^32: one bit changed changes each bit of it half the time.

    Two rounds of xor-shift and multiplication, with constants that an exhaustive search found to leave
    the least bias (C. Wellons, "Prospecting for hash functions", 2018). Both are below 2^31, so that a
    product fits into 63 bits.
    """
    number = number ^ number >> 16
    number = (number * 0x21F0AAAD).bitwise_and_(_32_BITS)
    number ^= number >> 15
    number = number.mul_(0x735A2D97).bitwise_and_(_32_BITS)
    number ^= number >> 15
    return number


def _gumbel(counter: Tensor) -> Tensor:
    """Gumbel noise -ln E, with E exponential, for whole numbers of which the low 32 bits count.

    E = -ln(1 - u) from a uniform u, by log1p: where u is small so is E, and those small E, of which
    all 32 bits of u show, are how a rare token wins. u lies in [2^-33, 1 - 2^-24], so that no noise
    is infinite: it could not be told from a token that is not to be drawn.
    """
    bits = _mixed(counter & _32_BITS)
    uniform = bits.to(torch.float32).mul_((1 - 2**-24) / 2**32).add_(2**-33)
    return uniform.neg_().log1p_().neg_().log_().neg_()
