"""Builds the tokenizer of a sentencepiece model, without the sentencepiece package.

A model cuts text into pieces in one of two ways. A unigram model takes the cut with the highest sum of
scores (Kudo, "Subword Regularization", 2018). A BPE model starts from characters and joins, again and
again, the neighbours whose join has the highest score (Sennrich et al., 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer._spm_proto import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    read_sentencepiece,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE, Unigram
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer


def read_pieces(path: Path, reserved: int = 0) -> SentencePieceModel:
    """Reads a sentencepiece model of the types that `build_pieces` can use.

    Args:
        path: the file.
        reserved: how many pieces at the front must not be text ("<unk>", "<s>", "</s>").

    Raises:
        ValueError: no such model; the message names the file.
    """
    model = read_sentencepiece(path)
    if model.model_type not in ("unigram", "bpe"):
        raise ValueError(
            f"{path} is a sentencepiece model of type {model.model_type!r}; only 'unigram' and 'bpe' are "
            "implemented."
        )
    if model.model_type == "bpe" and any(piece.kind == USER_DEFINED for piece in model.pieces):
        raise ValueError(
            f"{path} is a sentencepiece model of type 'bpe' with user-defined pieces, which is not "
            "implemented; of type 'unigram' it could be read."
        )
    front = model.pieces[:reserved]
    if len(front) < reserved or any(piece.kind not in (UNKNOWN, CONTROL) for piece in front):
        raise ValueError(
            f"{path} begins with the pieces {[piece.text for piece in front]}; for this "
            f"architecture the first {reserved} must be unknown or control pieces, since their ids "
            "are replaced."
        )
    return model


def build_pieces(
    model: SentencePieceModel,
    pieces: list[tuple[str, float]],
    unk_id: int,
    *,
    add_prefix_space: bool | None = None,
    before: Sequence[Normalizer] = (),
    after: Sequence[Normalizer] = (),
    split: Sequence[PreTokenizer] | None = None,
    scheme: str | None = None,
) -> Backend:
    """The tokenizer of a sentencepiece model, without special tokens.

    Args:
        model: gives the rules of normalisation and how text is cut.
        pieces: (text, score) by id.
        unk_id: id of the unknown piece.
        add_prefix_space: whether a space is put before the text; None for what the model says.
        before: steps ahead of the model's own rules.
        after: steps behind them.
        split: what cuts the text before "▁" replaces its spaces; None for a cut at white space.
        scheme: where the space is put: "always" is at the start and behind each added token, "first"
            only at the start, "never" nowhere. None for "always" or "never", as `add_prefix_space`.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    build = _byte_pair_model if model.model_type == "bpe" else _unigram_model
    backend = Tokenizer(build(model, pieces, unk_id))
    rules = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    backend.normalizer = normalizers.Sequence([*before, *rules, *after])
    if add_prefix_space is None:
        add_prefix_space = model.add_dummy_prefix
    scheme = scheme or ("always" if add_prefix_space else "never")
    split = [pre_tokenizers.WhitespaceSplit()] if split is None else split
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.Metaspace(prepend_scheme=scheme)])
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    if model.byte_fallback:
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), backend.decoder])
    return backend


def _unigram_model(model: SentencePieceModel, pieces: list[tuple[str, float]], unk_id: int) -> Unigram:
    from tokenizers import models

    # transformers 5 turns byte fallback off, and gives the unknown token where sentencepiece gives
    # bytes. It also makes added tokens of user-defined symbols; here they stay pieces, as in
    # sentencepiece, since the text behind an added token gets a "▁" that is not there.
    return models.Unigram(pieces, unk_id=unk_id, byte_fallback=model.byte_fallback)


def _byte_pair_model(model: SentencePieceModel, pieces: list[tuple[str, float]], unk_id: int) -> BPE:
    """The file has no list of merges: every way to join two pieces into a third is one, by its score."""
    from tokenizers import models

    vocabulary = {text: index for index, (text, _) in enumerate(pieces)}
    normal = {piece.text: piece.score for piece in model.pieces if piece.kind == NORMAL}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(normal, key=lambda text: -normal[text])
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    return models.BPE(
        vocabulary,
        merges,
        unk_token=pieces[unk_id][0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )
