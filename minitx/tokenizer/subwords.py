"""Subwords of a tokenizer: how tokens continue a word, and how they are joined to text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.tokenizer.tokenizer import Tokenizer


def subword_prefix(tokenizer: Tokenizer) -> str:
    """Returns the prefix of tokens that continue a word, such as "##"; "" if tokens do not show it."""
    vocabulary = tokenizer._backends.vocabulary.model
    return getattr(vocabulary, "continuing_subword_prefix", None) or ""


def join_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> str:
    """Joins tokens to text; unlike `Tokenizer.decode` it takes strings, not ids."""
    decoder = tokenizer._backends.decoder.decoder
    return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))


def decoder_settings(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Returns the decoder of a tokenizer as in tokenizer.json; None if it has none."""
    decoder = tokenizer._backends.decoder.decoder
    return None if decoder is None else dict(json.loads(decoder.__getstate__()))
