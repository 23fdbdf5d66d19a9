"""Subwords of a tokenizer: how tokens continue a word, and what each adds to a text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.tokenizer.tokenizer import Tokenizer

_SPACE = "\u2581"  # how SentencePiece writes a space
_Spelling = Callable[[str], bytes]


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


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Returns the bytes of UTF-8 that each id adds to a text; none for special tokens and unused ids.

    A token may hold a part of a character. The space before a word is part of its token, also where decoding
    drops it at the beginning of a text.

    Raises:
        ValueError: the decoder of the tokenizer is of a kind that does not add up tokens.
    """
    spelled, special = _spelling(tokenizer), frozenset(tokenizer.special_ids)
    vocab = tokenizer.vocab
    pieces = [b""] * (max(vocab.values(), default=-1) + 1)
    for token, index in vocab.items():
        if index not in special:
            pieces[index] = spelled(token)
    return pieces


def _spelling(tokenizer: Tokenizer) -> _Spelling:
    """Returns how the decoder spells a token within a text."""
    decoder = tokenizer._backends.decoder.decoder
    parts = [] if decoder is None else [*_parts(json.loads(decoder.__getstate__()))]
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return _byte_level()
    if kinds & {"Metaspace", "ByteFallback", "Replace"}:
        space = next((part["replacement"] for part in parts if part["type"] == "Metaspace"), _SPACE)
        bytes_have_names = "ByteFallback" in kinds
        return lambda token: _sentence_piece(token, space, bytes_have_names)
    if "BPEDecoder" in kinds:
        suffix = next(part["suffix"] for part in parts if part["type"] == "BPEDecoder")
        return lambda token: token.replace(suffix, " ").encode()
    if kinds <= {"WordPiece"}:
        prefix = subword_prefix(tokenizer) if kinds else ""
        return lambda token: (
            token[len(prefix) :].encode() if _goes_on(token, prefix) else f" {token}".encode()
        )
    raise ValueError(f"The tokens of a tokenizer with the decoder {type(decoder).__name__} have no texts.")


def _parts(state: Any) -> Iterator[dict[str, Any]]:
    """Yields a decoder's parts, each with its type."""
    for part in state.get("decoders", [state]):
        yield from _parts(part) if "decoders" in part else [part]


def _goes_on(token: str, prefix: str) -> bool:
    return bool(prefix) and token.startswith(prefix) and token != prefix


def _sentence_piece(token: str, space: str, bytes_have_names: bool) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token) if bytes_have_names else None
    return bytes.fromhex(byte[1]) if byte else token.replace(space, " ").encode()


def _byte_level() -> _Spelling:
    """Returns how byte-level BPE spells tokens: printable bytes as they are, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(256 + index): byte for index, byte in enumerate(others)}

    def _spelled(token: str) -> bytes:
        known = all(character in table for character in token)  # added tokens are plain text
        return bytes(table[character] for character in token) if known else token.encode()

    return _spelled
