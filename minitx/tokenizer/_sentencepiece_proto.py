"""Parser of sentencepiece `.model` files, without the sentencepiece and protobuf packages.

The file is one protobuf message, `ModelProto`. Its encoding is a list of fields; a field is a key
(field number * 8 + wire type) followed by its value:

    wire type 0   varint: 7 bits per byte, lowest first; the top bit is set if another byte follows
    wire type 1   8 bytes             wire type 5   4 bytes
    wire type 2   a varint length, then that many bytes: text, bytes or a message in the message

Only the fields that change encoding or decoding are read (numbers as in sentencepiece's
`sentencepiece_model.proto`); all others are skipped: they configured the training of the vocabulary, name
pieces that the vocabulary holds too, or test the file. `unk_surface` is skipped since an unknown token is
decoded as its name, as in transformers. The file is untrusted input: every length is checked against the
number of bytes left.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # ModelProto.SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

_Value = int | bytes


class Piece(NamedTuple):
    """One entry of the vocabulary; its index is its id.

    Attributes:
        text: the piece, with "▁" for a space.
        score: natural logarithm of its probability (unigram models).
        kind: NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE.
    """

    text: str
    score: float
    kind: int


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """The content of a sentencepiece file.

    Attributes:
        pieces: the vocabulary in the order of its ids.
        unk_id: id of the piece of kind UNKNOWN.
        model_type: "unigram", "bpe", "word" or "char".
        byte_fallback: whether an unknown character becomes its UTF-8 bytes instead of the unknown piece.
        charsmap: the compiled normalization rules (a double-array trie and its replacement texts), or
            b"".
        add_dummy_prefix: whether a space is added to the text.
        remove_extra_whitespaces: whether spaces at both ends, and all but one of several, are removed.
        escape_whitespaces: whether a space is "▁" in pieces.
        whitespace_as_suffix: whether the added space follows the text, and a piece ends with its space.
        has_denormalizer: whether the file has rules that change decoded text.
    """

    pieces: tuple[Piece, ...]
    unk_id: int
    model_type: str
    byte_fallback: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    whitespace_as_suffix: bool
    has_denormalizer: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Reads one sentencepiece model.

    Args:
        path: the file, under any name (`spiece.model`, `sentencepiece.bpe.model`, `spm.model`).

    Raises:
        ValueError: the file is cut short, damaged, or no sentencepiece model; the message names it.
    """
    try:
        return _parse_model(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable sentencepiece model: {error}. It may be cut short, damaged, "
            "or a Git LFS pointer instead of the file itself; fetch it again."
        ) from error


def _parse_model(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: list[bytes] = []
    normalizer: list[bytes] = []
    denormalizer: list[bytes] = []
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_parse_piece(_as_bytes(value), len(pieces)))
        elif number == 2:
            trainer.append(_as_bytes(value))
        elif number == 3:
            normalizer.append(_as_bytes(value))
        elif number == 5:
            denormalizer.append(_as_bytes(value))

    unknown = [index for index, piece in enumerate(pieces) if piece.kind == UNKNOWN]
    if len(unknown) != 1:
        raise ValueError(f"it has {len(pieces)} pieces, {len(unknown)} of them unknown pieces instead of one")
    if len({piece.text for piece in pieces}) != len(pieces):
        raise ValueError("it has the same piece twice")

    # A message that occurs more than once is merged field by field; joining the bytes does so.
    training, rules = dict(_fields(b"".join(trainer))), dict(_fields(b"".join(normalizer)))
    model_type = _as_int(training.get(3, UNIGRAM))
    charsmap = _as_bytes(rules.get(2, b""))
    if model_type not in _MODEL_TYPES:
        raise ValueError(f"its model type is {model_type}, which is not one of {_MODEL_TYPES}")
    _check_charsmap(charsmap)
    return SentencePieceModel(
        pieces=tuple(pieces),
        unk_id=unknown[0],
        model_type=_MODEL_TYPES[model_type],
        byte_fallback=bool(_as_int(training.get(35, 0))),
        charsmap=charsmap,
        add_dummy_prefix=bool(_as_int(rules.get(3, 1))),
        remove_extra_whitespaces=bool(_as_int(rules.get(4, 1))),
        escape_whitespaces=bool(_as_int(rules.get(5, 1))),
        whitespace_as_suffix=bool(_as_int(training.get(24, 0))),
        has_denormalizer=bool(dict(_fields(b"".join(denormalizer))).get(2)),
    )


def _parse_piece(data: bytes, index: int) -> Piece:
    text, score, kind = b"", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _as_bytes(value)
        elif number == 2:
            (score,) = struct.unpack("<f", _as_bytes(value, length=4))
        elif number == 3:
            kind = _as_int(value)
    if not text or not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        raise ValueError(f"piece {index} has text {text!r}, score {score} and type {kind}")
    return Piece(text.decode("utf-8"), score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Yields (field number, value) of one message: an int for a varint, else the raw bytes."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            varint, position = _varint(data, position)
            yield number, varint
            continue
        if wire_type == 2:
            length, position = _varint(data, position)
        elif wire_type == 1:
            length = 8
        elif wire_type == 5:
            length = 4
        else:
            raise ValueError(f"byte {position} holds the unknown wire type {wire_type}")
        if number == 0 or length > end - position:
            raise ValueError(f"field {number} claims {length} bytes and {end - position} are left")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Reads one varint; returns it and the position after it."""
    if position < len(data) and data[position] < 0x80:  # one byte, as most are
        return data[position], position + 1
    value = 0
    for count in range(10):  # 10 * 7 bits hold the 64 bits that a varint may have
        if position + count >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise ValueError(f"the number at byte {position} has no end")


def _as_bytes(value: _Value, length: int | None = None) -> bytes:
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise ValueError(f"a field holds {value!r:.40} where {length or 'some'} bytes are expected")
    return value


def _as_int(value: _Value) -> int:
    if not isinstance(value, int):
        raise ValueError(f"a field holds {value!r:.40} where an integer is expected")
    return value


def _check_charsmap(charsmap: bytes) -> None:
    """Checks that no step through the trie of the normalization rules can leave its array.

    The layout is 4 bytes with the size of the trie, the trie (32-bit units), then the replacement
    texts, each ended by a zero byte. The tokenizers library does not check
    this, so that one wrong bit would crash the process while tokenizing; here it is an error at loading.
    """
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 4 or size % 4 or not 0 < size <= len(charsmap) - 4:
        raise ValueError(f"its normalization rules have {len(charsmap)} bytes and a trie of {size}")
    texts = charsmap[4 + size :]
    texts.decode("utf-8")
    count = size // 4
    for index, unit in enumerate(struct.unpack(f"<{count}I", charsmap[4 : 4 + size])):
        if unit >> 31:  # a leaf: the lower bits are the offset of its text
            start = unit & 0x7FFFFFFF
            valid = start < len(texts) and texts[start] & 0xC0 != 0x80
        else:  # a node: its children lie in one block of 256 units, which must be in the array
            offset = (unit >> 10) << ((unit & 0x200) >> 6)
            valid = (index ^ offset) | 0xFF < count
        if not valid:
            raise ValueError(f"unit {index} of its normalization rules points outside of them")
