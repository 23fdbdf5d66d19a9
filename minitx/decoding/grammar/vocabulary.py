"""The bytes of a tokenizer's tokens, as a tree that all tokens are read through at once.

V vocabulary of the model, N nodes of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.grammar.nodes import EVERY, Ranges, union
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import decoder_settings, token_bytes
from minitx.validation import ArgumentValueError

# The bytes of UTF-8; the others are in no text.
_USED = {*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5)}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The bytes that each token adds to the text.

    Attributes:
        pieces: of each of the V ids, its bytes; None for special tokens and for ids without a token.
        strips: decoding drops a space at the start of a text.
        first_only: tokens that lose more than a first space at the start of a text.
    """

    pieces: tuple[bytes | None, ...]
    strips: bool = False
    first_only: frozenset[int] = frozenset()

    @cached_property
    def complete(self) -> bool:
        """Whether there is a token of each byte, so that every text can be spelled from any place."""
        return {piece[0] for piece in self.pieces if piece and len(piece) == 1} >= _USED

    @cached_property
    def alphabet(self) -> Ranges:
        """The characters that single tokens spell; every one if there is a token of each byte."""
        if self.complete:
            return EVERY
        texts = (_text(piece) for piece in self.pieces if piece and _is_text(piece))
        codes = [ord(text) for text in texts if len(text) == 1]
        return union((code, code) for code in codes)

    @cached_property
    def texts(self) -> frozenset[int]:
        """The tokens that begin and end between characters."""
        return frozenset(token for token, piece in enumerate(self.pieces) if piece and _is_text(piece))

    @cached_property
    def spells_itself(self) -> bool:
        """Whether every token consists of characters of the alphabet, so that none leads to a dead end."""
        spelled = {code for low, high in self.alphabet for code in range(low, high + 1)}
        pieces = [piece for piece in self.pieces if piece]
        return all(_is_text(piece) and spelled.issuperset(map(ord, _text(piece))) for piece in pieces)

    @cached_property
    def tree(self) -> ByteTree:
        """The tree of the bytes of all tokens."""
        return ByteTree(self)


class ByteTree:
    """The bytes of all tokens, as a tree whose nodes are numbered level by level, from the root.

    Attributes:
        byte: (N,) long, the byte that leads to each node; of the root 0.
        levels: of each level after the root, its first node and, (M,) long, the places of the M nodes'
            parents in the level before.
        node: (V,) long, where the bytes of each token end; the root for tokens without bytes.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        ends: dict[bytes, list[int]] = {}
        for token, piece in enumerate(vocabulary.pieces):
            if piece:
                ends.setdefault(piece, []).append(token)
        self.node = torch.zeros(len(vocabulary.pieces), dtype=torch.long)
        self.levels: list[tuple[int, Tensor]] = []
        data, size, above = [0], 1, {b"": 0}
        for length in range(1, max(map(len, ends), default=0) + 1):
            level: dict[bytes, int] = {}
            for piece in ends:
                if len(piece) >= length:
                    level.setdefault(piece[:length], len(level))
            self.levels.append((size, torch.tensor([above[start[:-1]] for start in level])))
            data += [start[-1] for start in level]
            for piece in level.keys() & ends.keys():
                self.node[ends[piece]] = size + level[piece]
            size, above = size + len(level), level
        self.byte = torch.tensor(data)


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """Returns the bytes of the first `size` ids of a tokenizer.

    Raises:
        ArgumentValueError: a tokenizer whose tokens have no bytes of their own: WordPiece, words, or one that
            removes spaces around punctuation.
    """
    if tokenizer.tidies_spaces:
        hint = "it removes spaces when later tokens come; set tokenizer.tidies_spaces = False"
        raise ArgumentValueError("tokenizer", tokenizer, "one that adds text only at the end", hint)
    settings = decoder_settings(tokenizer) or {"type": "no decoder"}
    steps = settings["decoders"] if settings["type"] == "Sequence" else [settings]
    for step in steps:
        _check_step(tokenizer, step)
    named = [piece or None for piece in token_bytes(tokenizer)]
    pieces = [*named, *[None] * size][:size]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id < size:
        pieces[tokenizer.unk_token_id] = None
    kinds = {step["type"]: step for step in steps}
    drops = kinds.get("Metaspace", {}).get("prepend_scheme", "never") != "never"
    strips = drops or kinds.get("Strip", {}).get("start", 0) > 0
    odd = (token for token, piece in enumerate(pieces) if piece and b" " in piece[1:])
    return Vocabulary(tuple(pieces), strips, frozenset(odd if drops else ()))


def _check_step(tokenizer: Tokenizer, step: dict[str, Any]) -> None:
    kind = step["type"]
    known = kind in ("ByteLevel", "ByteFallback", "Fuse", "Metaspace")
    known |= kind == "Replace" and (step["pattern"].get("String"), step["content"]) == ("\u2581", " ")
    known |= kind == "Strip" and step["content"] == " " and step["start"] <= 1 and step["stop"] == 0
    if not known:
        hint = f"decoding joins tokens by {kind}, so that a token has no bytes of its own"
        expected = "byte-level BPE or SentencePiece, for a grammar"
        raise ArgumentValueError("tokenizer", tokenizer, expected, hint)


def _text(piece: bytes) -> str:
    return piece.decode(errors="replace")


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
