"""The filter of llama.cpp for text in the middle of other text. B rows, V vocabulary."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import check_vocabulary
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import token_bytes
from minitx.validation import check_type

_END = 3.0  # how much more an end token counts than another
_LEAST = 0.2


@dataclass(frozen=True)
class Infill(LogitsProcessor):
    """Keeps the few tokens that fit into a gap, and ends early (llama.cpp's `infill` sampler).

    With n possible tokens, where the end tokens have the probability e and the others t:

    1. If 3 e n > t, only the end tokens are kept.
    2. From the most probable token on, each whose text begins that of another joins with it: the more
       probable of the two gets the probability of both, and the other is dropped.
    3. Tokens below 0.2 are dropped, but for end tokens. If there is no other left, the end tokens are kept;
       where these are banned, the most probable token.
    4. Of the k others left, those below 1 / (k + 1) of what is left are dropped.

    Kept logits are not changed: joined probabilities only decide what is kept. It is meant for a chain, after
    filters such as `TopK(40)`: the joining of a whole vocabulary takes long.

    Args:
        tokenizer: of the model, for the texts of its tokens.
    """

    tokenizer: Tokenizer

    def _check(self, value: Any) -> Any:
        return check_type(
            "tokenizer", value, Tokenizer, "a Tokenizer", "minitx.load_tokenizer(...) returns one"
        )

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        check_vocabulary("eos", context.eos, logits.shape[-1])
        ends, banned = frozenset(context.eos), torch.ones_like(logits, dtype=torch.bool)
        values, order = logits.double().softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        possible = (logits > -torch.inf).sum(dim=-1).tolist()
        for row, (count, tokens, p) in enumerate(zip(possible, order.tolist(), values.tolist(), strict=True)):
            if count:
                banned[row, self._kept(tokens[:count], p[:count], ends)] = False
        return logits.masked_fill(banned, -torch.inf)

    def _kept(self, tokens: list[int], p: list[float], ends: frozenset[int]) -> list[int]:
        """Returns the tokens to keep; they are sorted by their probabilities p."""
        possible_ends = [token for token in tokens if token in ends]
        end = sum(value for token, value in zip(tokens, p, strict=True) if token in ends)
        if _END * end * len(tokens) > sum(p) - end:
            return possible_ends
        joined = _joined([self._pieces[token] if token < len(self._pieces) else b"" for token in tokens], p)
        pairs = [(token, value) for token, value in zip(tokens, joined, strict=True) if token not in ends]
        left = [(token, value) for token, value in pairs if value >= _LEAST]
        if not left:
            return possible_ends or tokens[:1]
        total = end + sum(value for _, value in left)
        enough = [token for token, value in left if value / total >= 1 / (len(left) + 1)]
        return [*enough, *possible_ends]

    @cached_property
    def _pieces(self) -> list[bytes]:
        return token_bytes(self.tokenizer)


def _joined(pieces: Sequence[bytes], p: Sequence[float]) -> list[float]:
    """Returns the probabilities after the second step; 0 for tokens that are dropped.

    Args:
        pieces: the texts of the tokens, the most probable first.
        p: their probabilities.
    """
    joined, alive = list(p), [bool(piece) for piece in pieces]
    by_text = sorted((piece, place) for place, piece in enumerate(pieces) if piece)
    for place, piece in enumerate(pieces):
        if not alive[place]:
            continue
        following = by_text[bisect_left(by_text, (piece, -1)) :]
        begun = takewhile(lambda entry, text=piece: entry[0].startswith(text), following)  # type: ignore[misc]
        for other in sorted(number for _, number in begun):
            if other == place or not alive[other]:
                continue
            kept, dropped = (other, place) if joined[other] > joined[place] else (place, other)
            joined[kept] += joined[dropped]
            joined[dropped], alive[dropped] = 0.0, False
            if dropped == place:
                break
    return joined
