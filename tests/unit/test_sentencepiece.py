"""The hand-written reader of sentencepiece files, against their protobuf schema and against damage."""

import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from minitx.tokenizer._sentencepiece_proto import read_sentencepiece
from minitx.tokenizer.files import Settings
from minitx.tokenizer.vocabularies.sentencepiece_builder import build_pieces, read_pieces

NO_SETTINGS = Settings(config={}, special_tokens_map={}, added={}, extra=())
SENTENCES = ["hello world, this is a small text", "the quick brown fox jumps over 13 lazy dogs", "ça été"]


def _train(**options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9),
        model_writer=model,
        vocab_size=options.pop("vocab_size", 70),
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


PLAIN = _train()
RICH = _train(
    model_type="unigram",
    byte_fallback=True,
    vocab_size=330,
    pad_id=0,
    unk_id=3,
    bos_id=-1,
    eos_id=1,
    unk_piece="[UNK]",
    control_symbols="<a>,<b>",
    user_defined_symbols="£,(",
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    treat_whitespace_as_suffix=True,
    normalization_rule_name="nmt_nfkc_cf",
)
BARE = _train(normalization_rule_name="identity", model_type="bpe")


def _schema(data: bytes) -> Any:
    message = sentencepiece_model_pb2.ModelProto()
    message.ParseFromString(data)
    return message


def _changed(change: Callable[[Any], object], data: bytes = PLAIN) -> bytes:
    message = _schema(data)
    change(message)
    return bytes(message.SerializePartialToString())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.model"


@pytest.mark.parametrize("data", [PLAIN, RICH, BARE], ids=["plain", "rich", "bare"])
def test_reads_what_the_schema_reads(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    model, message = read_sentencepiece(path), _schema(data)
    assert [tuple(piece) for piece in model.pieces] == [(p.piece, p.score, p.type) for p in message.pieces]
    assert model.unk_id == message.trainer_spec.unk_id
    assert model.byte_fallback == message.trainer_spec.byte_fallback
    assert model.model_type == {1: "unigram", 2: "bpe"}[message.trainer_spec.model_type]
    assert model.charsmap == message.normalizer_spec.precompiled_charsmap
    assert model.add_dummy_prefix == message.normalizer_spec.add_dummy_prefix
    assert model.remove_extra_whitespaces == message.normalizer_spec.remove_extra_whitespaces
    assert model.escape_whitespaces == message.normalizer_spec.escape_whitespaces
    assert model.whitespace_as_suffix == message.trainer_spec.treat_whitespace_as_suffix


def test_the_samples_differ_in_what_is_read() -> None:
    assert _schema(RICH).trainer_spec.unk_id == 3
    assert {piece.type for piece in _schema(RICH).pieces} == {1, 2, 3, 4, 6}
    assert not _schema(RICH).normalizer_spec.add_dummy_prefix
    assert _schema(BARE).normalizer_spec.precompiled_charsmap == b""


def test_defaults_of_the_schema_hold_where_a_field_is_missing(path: Path) -> None:
    def strip(message: Any) -> None:
        message.ClearField("trainer_spec")
        message.ClearField("normalizer_spec")
        for piece in message.pieces[3:]:
            piece.ClearField("type")
            piece.ClearField("score")

    path.write_bytes(_changed(strip))
    model = read_sentencepiece(path)
    assert (model.model_type, model.byte_fallback) == ("unigram", False)
    assert (model.charsmap, model.add_dummy_prefix) == (b"", True)
    assert {(piece.score, piece.kind) for piece in model.pieces[3:]} == {(0.0, 1)}


def test_unknown_fields_of_every_wire_type_are_stepped_over(path: Path) -> None:
    strange = bytes([120 << 3 & 0x7F | 0x80, 120 >> 4, 5])  # field 120, varint 5
    strange += b"\xc1\x3e12345678" + b"\xc5\x3e1234" + b"\xc2\x3e\x03abc"  # field 1000: 8, 4 and 3 bytes
    path.write_bytes(strange + PLAIN + strange)
    assert read_sentencepiece(path).pieces == _read(path, PLAIN).pieces


def _read(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return read_sentencepiece(path)


def test_a_message_in_two_parts_is_merged(path: Path) -> None:
    parts = _schema(RICH)
    first = _changed(lambda message: message.ClearField("normalizer_spec"), RICH)
    rules = sentencepiece_model_pb2.ModelProto()
    rules.normalizer_spec.precompiled_charsmap = parts.normalizer_spec.precompiled_charsmap
    prefix = sentencepiece_model_pb2.ModelProto()
    prefix.normalizer_spec.add_dummy_prefix = False
    prefix.normalizer_spec.remove_extra_whitespaces = False
    joined = first + rules.SerializePartialToString() + prefix.SerializePartialToString()
    assert _read(path, joined) == _read(path, RICH)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 760289\n",
        b"<!DOCTYPE html><html></html>",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a piece of 2**63 bytes
        b"\x0a" + b"\xff" * 40,  # a length that never ends
        b"\x0b\x0b\x0b",  # groups, which the format gave up
        b"\x02\x00",  # field number 0
        b"\x08\x01",  # a piece that is a number
        b"\x0a\x02\x08\x01",  # a piece whose text is a number
        b"\x0a\x03\x0a\x01\xff",  # a text that is no UTF-8
        b"\x0a\x03\x12\x01a",  # a score of one byte
        PLAIN[:-1],
        _changed(lambda message: message.pieces.add(piece="twice", type=2)),
        _changed(lambda message: message.pieces.add(piece=message.pieces[9].piece)),
        _changed(lambda message: message.pieces.add(piece="x" * 9, score=float("nan"))),
        _changed(lambda message: message.pieces.add(piece="x" * 9, score=float("-inf"))),
        _changed(lambda message: message.pieces.add(piece="")),
        _changed(lambda message: message.ClearField("pieces")),
    ],
)
def test_damage_is_an_error_that_names_the_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"some\.model is not a readable sentencepiece model"):
        read_sentencepiece(path)


def test_a_file_that_is_cut_anywhere_is_read_or_refused(path: Path) -> None:
    whole = _read(path, BARE)
    refused = 0
    for end in range(len(BARE)):
        path.write_bytes(BARE[:end])
        try:
            assert read_sentencepiece(path) != whole or end > len(BARE) - 40
        except ValueError:
            refused += 1
    assert refused > len(BARE) * 0.8  # a cut between two pieces leaves a smaller, sound model


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.model"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a readable"):
        read_sentencepiece(path)


def test_flipped_bytes_never_do_worse_than_an_error(path: Path) -> None:
    """Also no panic in `tokenizers`, which follows the trie of the normalisation rules unchecked."""
    draw = random.Random(0)
    start = PLAIN.index(_schema(PLAIN).normalizer_spec.precompiled_charsmap)
    used = 0
    for round_ in range(60):
        data = bytearray(PLAIN)
        low, high = (start, len(data)) if round_ % 2 else (0, start)
        for _ in range(draw.choice((1, 3, 30))):
            data[draw.randrange(low, high)] = draw.randrange(256)
        path.write_bytes(bytes(data))
        try:
            model = read_pieces(path)
        except ValueError:
            continue
        pieces = [(piece.text, piece.score) for piece in model.pieces]
        backend = build_pieces(model, pieces, model.unk_id, NO_SETTINGS)
        backend.encode(
            "héllo ｗｏｒｌｄ ① ㎏ ﬁ e\u0301 \u0000\u200b한글 ﷺ " + "".join(map(chr, range(32, 3000)))
        )
        used += 1
    assert used > 0


def _charsmap(*units: int, texts: bytes = b"a\0") -> bytes:
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts


@pytest.mark.parametrize(
    "charsmap",
    [
        b"\x01",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff" + b"aaaa",
        b"\x03\x00\x00\x00aaa",
        _charsmap(*[0] * 256, texts=b"\xff"),
        _charsmap(*[0] * 255),  # children of the root would lie outside
        _charsmap(*[0] * 255, 5 << 30 & 0x7FFFFFFF),
        _charsmap(*[0] * 255, 1 << 31 | 2),  # a text behind the last
        _charsmap(*[0] * 255, 1 << 31 | 1, texts="é\0".encode()),  # a text from the middle of a character
    ],
)
def test_rules_that_point_outside_of_themselves_are_refused(path: Path, charsmap: bytes) -> None:
    def swap(message: Any) -> None:
        message.normalizer_spec.precompiled_charsmap = charsmap

    path.write_bytes(_changed(swap))
    with pytest.raises(ValueError, match="not a readable sentencepiece model"):
        read_sentencepiece(path)


def test_many_tiny_fields_take_no_longer_than_their_number(path: Path) -> None:
    path.write_bytes(b"\x12\x02\x18\x01" * 300_000)  # trainer_spec, again and again
    start = time.perf_counter()
    with pytest.raises(ValueError, match="0 pieces"):
        read_sentencepiece(path)
    assert time.perf_counter() - start < 10


def test_only_models_that_can_be_built_with_the_expected_front_are_read(path: Path) -> None:
    path.write_bytes(_train(model_type="char"))
    with pytest.raises(ValueError, match=r"some\.model.*'char'.*only 'unigram' and 'bpe'"):
        read_pieces(path)
    path.write_bytes(
        _changed(lambda message: setattr(message.denormalizer_spec, "precompiled_charsmap", b"abc"))
    )
    with pytest.raises(ValueError, match=r"some\.model has a denormalizer_spec, .* not implemented"):
        read_pieces(path)
    path.write_bytes(PLAIN)
    assert read_pieces(path, reserved=3).unk_id == 0
    with pytest.raises(ValueError, match="first 4 must be unknown or control"):
        read_pieces(path, reserved=4)
