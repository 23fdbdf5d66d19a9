"""Keyed pseudo-random numbers of tokens and the tokens before them.

They are hashes of integers below 2^63, so that every device computes the same ones: a text that was marked on
a GPU is recognised on a CPU. N windows, H tokens of a context.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.counter import mixed
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.device import constant

_32_BITS = 0xFFFFFFFF
_WORDS = (0x243F6A88, 0x85A308D3)  # first digits of pi
LARGEST = 2**32  # one more than the largest hash


def context_keys(key: int, contexts: Tensor) -> Tensor:
    """Returns a 64-bit key for each context, whose order matters: (N, H) long -> (N,) long.

    Args:
        key: of the watermark.
        contexts: token ids; -1 for a token that the history lacks.
    """
    halves = constant((key & _32_BITS, key >> 32 & _32_BITS), torch.long, contexts.device)
    low = mixed(halves[0] ^ _WORDS[0])
    words = torch.stack([low, mixed(mixed(halves[1] ^ low) ^ _WORDS[1])]).expand(len(contexts), 2)
    for token in contexts.unbind(dim=1):
        words = mixed(words ^ (token & _32_BITS)[:, None])
    return words[:, 1] << 32 | words[:, 0]


def hashes(keys: Tensor, tokens: Tensor) -> Tensor:
    """Returns a number below 2^32 for each token under its key: (N,) keys, (N,) or (N, V) ids -> as ids."""
    start, stride = CounterGumbel(keys).counters(0)
    if tokens.dim() > 1:
        start, stride = start[:, None], stride[:, None]
    return mixed((start + tokens * stride) & _32_BITS)


def anchored_hashes(key: int, windows: Tensor) -> Tensor:
    """Returns the least hash of a window's last token under each of the window's tokens: (N, H) -> (N,).

    It changes less often than the hash of all tokens if the text is edited (arXiv:2306.04634, section 4).
    """
    anchor = windows[:, -1]
    per_token = [hashes(context_keys(key, token[:, None]), anchor) for token in windows.unbind(dim=1)]
    return mixed(torch.stack(per_token).amin(dim=0) ^ _WORDS[0])
