"""Builder of `tokenizers` objects from a sentencepiece model, shared by all families that have one.

A unigram model segments text into the pieces with the highest sum of scores (Kudo, "Subword Regularization",
2018). A BPE model starts from characters and repeatedly merges the neighbours with the highest score
(Sennrich et al., 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer._sentencepiece_proto import (
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
    """Reads a sentencepiece model of a type that `build_pieces` supports.

    Args:
        path: the file.
        reserved: number of pieces at the front that must not be text ("<unk>", "<s>", "</s>").

    Raises:
        ValueError: another type; the message names the file.
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
            "implemented; type 'unigram' is."
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
    """Builds the tokenizer of a sentencepiece model, without special tokens.

    Args:
        model: its type and normalization rules are used.
        pieces: (text, score) by id.
        unk_id: id of the unknown piece.
        add_prefix_space: add a space before the text; None for the model's `add_dummy_prefix`.
        before: normalizers before the model's rules.
        after: normalizers after them.
        split: pre-tokenizers before "▁" replaces spaces; None splits at white space.
        scheme: where the prefix space is added: "always" is before the text and after each added token,
            "first" before the text only, "never" nowhere. None for "always" or "never" by `add_prefix_space`.
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

    # transformers 5 disables byte fallback and uses the unknown token where sentencepiece uses bytes. It also
    # converts user-defined symbols to added tokens; here they stay pieces, as in sentencepiece, since text
    # after an added token would get a "▁" that it does not have.
    return models.Unigram(pieces, unk_id=unk_id, byte_fallback=model.byte_fallback)


def _byte_pair_model(model: SentencePieceModel, pieces: list[tuple[str, float]], unk_id: int) -> BPE:
    """Builds a BPE model; the file has no merges: each pair of pieces that forms a third is one, by score."""
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
