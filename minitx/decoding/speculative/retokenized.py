"""Drafts by a model with another tokenizer: the text is encoded for it, and its text is encoded again.

The universal assisted generation of transformers. A drafted text is one certain proposal for each of its
tokens, whatever drew it, so that verification stays exact; where the two tokenizers join text differently,
fewer tokens are accepted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minitx.decoding.processors.context import Context
from minitx.decoding.speculative.draft import Proposal
from minitx.layers.cache import Cache
from minitx.models import CausalModel
from minitx.tokenizer import Tokenizer

_HALF = "\ufffd"  # stands for bytes that are no character, or not yet
_CONTEXTS = (8, 4, 2, 1, 0)  # last tokens of the row that are encoded again with the drafted text


class RetokenizedDrafter:
    """Drafts the most probable text of a model, one row after the other.

    Args:
        model: the draft model.
        tokenizer: of the draft model.
        target: of the verifying model.
        rows: number of rows.
        confidence: as for `DraftCall`.
    """

    def __init__(
        self, model: CausalModel, tokenizer: Tokenizer, target: Tokenizer, rows: int, confidence: float
    ) -> None:
        self._model, self._tokenizer, self._target = model, tokenizer, target
        self._confidence = confidence
        self._rows: list[tuple[Cache, list[int]]] = [(model.make_cache(spare=0), []) for _ in range(rows)]

    def propose(self, context: Context, most: Tensor, counter: Tensor) -> Proposal:
        """Returns the drafted text of each row as tokens of the verifying model."""
        rows = zip(context.tokens.tolist(), context.length.tolist(), most.tolist(), strict=True)
        drafted = [
            self._draft(number, tokens[:length], limit)[:limit] if limit else []
            for number, (tokens, length, limit) in enumerate(rows)
        ]
        return Proposal.padded(drafted, context.tokens.device)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows."""
        self._rows = [self._rows[row] for row in rows.tolist()]

    def _draft(self, number: int, tokens: list[int], most: int) -> list[int]:
        text = self._target.decode(tokens, skip_special_tokens=True)
        ids = self._tokenizer.encode(text)
        if not ids or text.endswith(_HALF):
            return []
        new = self._continue(number, ids, most)
        longer = self._tokenizer.decode([*ids, *new], skip_special_tokens=True).rstrip(_HALF)
        known = self._tokenizer.decode(ids, skip_special_tokens=True)
        return self._encode(tokens, longer.removeprefix(known)) if longer.startswith(known) else []

    def _continue(self, number: int, ids: list[int], most: int) -> list[int]:
        """Returns the most probable tokens of the draft model after ids."""
        cache, old = self._rows[number]
        try:
            cache.crop(min(_common(old, ids), len(ids) - 1))
        except ValueError:  # a ring buffer has lost tokens
            cache = self._model.make_cache()
        new: list[int] = []
        waiting = ids[cache.length :]
        limit = self._model.decoder_embedder
        while len(new) < most and not (limit.has_position_table and len(ids) + len(new) > limit.max_tokens):
            batch = torch.tensor([waiting], device=self._model.device)
            logits = self._model.decode(batch, cache=cache, logits_to_keep=1).logits
            assert logits is not None, "a language model has logits"
            probability, token = logits[0, -1].float().softmax(dim=-1).max(dim=-1)
            waiting = [int(token)]
            new += waiting
            if float(probability) < self._confidence:
                break
        self._rows[number] = (cache, [*ids, *new][: cache.length])
        return new

    def _encode(self, tokens: list[int], text: str) -> list[int]:
        """Returns the tokens of a text that continues others, joined to the last of them where possible."""
        for size in _CONTEXTS:
            last = tokens[len(tokens) - size :] if size <= len(tokens) else tokens
            start = self._target.decode(last, skip_special_tokens=True) if last else ""
            ids = self._target.encode(start + text, add_special_tokens=False)
            if ids[: len(last)] == last:
                return ids[len(last) :]
        return []


def _common(first: list[int], second: list[int]) -> int:
    """Returns the number of tokens at the start that are the same."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
