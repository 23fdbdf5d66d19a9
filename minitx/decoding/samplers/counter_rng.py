"""Counter-based randomness: samples that do not depend on the batch.

The noise of a token is a pure function of (key of the row, position, token id), used in the Gumbel-max
trick: with independent uniform u_i, argmax_i of logit_i - ln(-ln(1 - u_i)) is a draw from softmax(logits).
No softmax is needed, and a logit of -inf stays -inf.

The u_i come from a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"). Key and position are hashed to a start and an odd stride, and token i gets 32 random bits, the hash of
start + i * stride (mod 2^32). Why this is correct:

- An odd stride and a bijective hash make the bits of two tokens of a row and position different up to 2^32
  tokens.
- Rows and positions differ in start and in stride, so that their sequences are not shifted copies.
- Only integers below 2^63 are involved, so that every device computes the same bits.
- All 32 bits of a small u survive in float32, where rare tokens win; no noise is infinite.

The tests check the distribution by chi-square, independence between rows, positions and bits of the key, and
that these tests detect a wrong law. B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from minitx.counter import counters, key_words, mixed
from minitx.decoding.parameters import to_plain
from minitx.decoding.samplers.base import Device, Seed
from minitx.validation import ArgumentTypeError, ArgumentValueError

_32_BITS = 0xFFFFFFFF
# If fewer tokens are possible than one in so many, noise is computed for these alone.
_SPARSE = 8
# Noise for about so many tokens at a time fits into a CPU's cache; twice as fast for batches.
_AT_ONCE = 2**16


class CounterGumbel:
    """Samples with noise that is a pure function of (key of the row, position, token id).

    Args:
        keys: (B,) long, one per row, from `row_keys`.

    Raises:
        ArgumentValueError: keys of another shape or dtype.
    """

    def __init__(self, keys: Tensor) -> None:
        if keys.dim() != 1 or keys.dtype != torch.long:
            raise ArgumentValueError("keys", keys, "one torch.long per row, of shape (B,)")
        self.keys = keys
        self._words = key_words(keys)

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        start, stride = self.counters(position)
        alive = logits > -torch.inf
        # Only possible tokens can win: after top-k a handful.
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

    def noise(self, size: int, position: int | Tensor) -> Tensor:
        """Returns Gumbel noise (B, size). The k largest of logits + noise are k draws without replacement."""
        start, stride = self.counters(position)
        return _gumbel(torch.arange(size, device=start.device) * stride[:, None] + start[:, None])

    def uniform(self, position: int | Tensor) -> Tensor:
        """Returns one float64 in [0, 1) for each (key, position), (B,)."""
        start, stride = self.counters(position)  # 32 random bits, and 31 above one that is set
        return (start * 2**21 + (stride >> 11)).double() * 2.0**-53

    def counters(self, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """Returns the start and the odd stride of each row's counter at its position, (B,) each."""
        return counters(self._words, position)


class RepeatedSeed(int):
    """A seed whose prompt occurred `earlier` times in batches before this one."""

    earlier = 0


def row_keys(
    seed: Seed, prompts: Sequence[Sequence[int]], num_samples: int = 1, device: Device = "cpu"
) -> Tensor:
    """Returns the keys of `CounterGumbel`, from each row's seed and prompt and not from its index.

    Repeated prompts with equal seeds are numbered within the call, and so are the samples of a prompt. So a
    row draws the same tokens alone or in a batch, and yet no two rows share their noise.

    Args:
        seed: an integer for all prompts, or one per prompt.
        prompts: the ids of each prompt, without padding.
        num_samples: rows per prompt; those of one prompt are adjacent.
        device: of the keys.

    Returns:
        (prompts * num_samples,) long.

    Raises:
        ArgumentValueError: not one seed per prompt.
        ArgumentTypeError: a seed that is not an integer.
    """
    plain = to_plain(seed)
    seeds = list(plain) if isinstance(plain, Sequence) else [plain] * len(prompts)
    if len(seeds) != len(prompts):
        raise ArgumentValueError("seed", seed, f"an integer, or one for each of the {len(prompts)} prompts")
    seen: Counter[tuple[int, ...]] = Counter()
    keys = []
    for number, prompt in zip(seeds, prompts, strict=True):
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise ArgumentTypeError("seed", number, "an integer")
        source = (int(number), *prompt)
        seen[source] = seen[source] or getattr(number, "earlier", 0) * num_samples
        for _ in range(num_samples):
            text = ",".join(map(str, (*source, seen[source])))
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            keys.append(int.from_bytes(digest, "little", signed=True))
            seen[source] += 1
    return torch.tensor(keys, dtype=torch.long, device=device)


def _gumbel(counter: Tensor) -> Tensor:
    """Returns Gumbel noise -ln E, with E exponential, for the low 32 bits of integers.

    E = -ln(1 - u) for a uniform u, by log1p: a small u gives a small E with all 32 bits of u, by which rare
    tokens win. u lies in [2^-33, 1 - 2^-24], so that no noise is infinite: -inf would look like a ban.
    """
    bits = mixed(counter & _32_BITS)
    uniform = bits.to(torch.float32).mul_((1 - 2**-24) / 2**32).add_(2**-33)
    return uniform.neg_().log1p_().neg_().log_().neg_()
