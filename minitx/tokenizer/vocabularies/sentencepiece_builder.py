"""Builder of `tokenizers` objects from a sentencepiece model, shared by all families that have one.

A unigram model segments text into the pieces with the highest sum of scores (Kudo, "Subword Regularization",
2018). A BPE model starts from characters and repeatedly merges the neighbours with the highest score
(Sennrich et al., 2016).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minitx.tokenizer._sentencepiece_proto import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceModel,
    read_sentencepiece,
)
from minitx.tokenizer.files import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from tokenizers.decoders import Decoder
    from tokenizers.models import BPE, Unigram
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

SPACE = "▁"
_LAST_PRIVATE = 0x10FFFD
_ALL = 2**16


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
    if model.has_denormalizer:
        raise ValueError(
            f"{path} has a denormalizer_spec, rules that change decoded text, which are not implemented."
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
    settings: Settings,
    *,
    before: Sequence[Normalizer] = (),
    after: Sequence[Normalizer] = (),
    split: Sequence[PreTokenizer] | None = None,
    first_only: bool = False,
) -> Backend:
    """Builds the tokenizer of a sentencepiece model, without special tokens.

    Args:
        model: its type and normalization rules are used.
        pieces: (text, score) by id.
        unk_id: id of the unknown piece.
        settings: `add_prefix_space` replaces the model's `add_dummy_prefix`.
        before: normalizers before the model's rules.
        after: normalizers after them, of a model with sentencepiece's usual rules.
        split: pre-tokenizers before "▁" replaces spaces; None splits at white space.
        first_only: add the prefix space before the text only, not after each added token.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

    build = _byte_pair_model if model.model_type == "bpe" else _unigram_model
    backend = Tokenizer(build(model, pieces, unk_id))
    rules = _rules(model)
    if (first_only and split is None) or not _has_usual_spaces(model, settings):
        return _with_spaces(backend, model, settings, [*before, *rules], split, first_only)
    backend.normalizer = normalizers.Sequence([*before, *rules, *after])
    scheme: Literal["first", "always"] = "first" if first_only else "always"
    split = [pre_tokenizers.WhitespaceSplit()] if split is None else split
    symbols = _symbol_split(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.Metaspace(prepend_scheme=scheme), *symbols]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    if model.byte_fallback:
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), backend.decoder])
    return backend


def piece_decoder(model: SentencePieceModel, settings: Settings) -> Decoder:
    """Returns the decoder that joins pieces to text."""
    from tokenizers import decoders

    steps: list[Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.escape_whitespaces and model.remove_extra_whitespaces:
        steps.append(decoders.Strip(" ", _ALL, 0))
    elif model.escape_whitespaces and adds_prefix(model, settings):
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def adds_prefix(model: SentencePieceModel, settings: Settings) -> bool:
    """Whether a space is added to a text: the file's rule, unless tokenizer_config.json has another."""
    prefix = settings.flag("add_prefix_space", None)
    return model.add_dummy_prefix if prefix is None else bool(prefix)


def _has_usual_spaces(model: SentencePieceModel, settings: Settings) -> bool:
    """Whether words and spaces alternate in normalized text, as in most published files.

    Such a file has the components of the published tokenizer.json files, which split a text at white space.
    """
    from tokenizers import normalizers

    return (
        adds_prefix(model, settings)
        and model.remove_extra_whitespaces
        and model.escape_whitespaces
        and not model.whitespace_as_suffix
        and bool(model.charsmap)
        and normalizers.Precompiled(model.charsmap).normalize_str("\t\n") == "  "
        and not _crosses_spaces(model)
    )


def _with_spaces(
    backend: Backend,
    model: SentencePieceModel,
    settings: Settings,
    rules: list[Normalizer],
    split: Sequence[PreTokenizer] | None,
    first_only: bool,
) -> Backend:
    """Adds components that follow each white-space rule of the file, as sentencepiece does."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    space = SPACE if model.escape_whitespaces else " "
    prefix = adds_prefix(model, settings)
    steps = list(rules)
    if model.remove_extra_whitespaces:
        # With `first_only`, a space before the text is its prefix, and one after an added token stays.
        start = " " if first_only and prefix and not model.whitespace_as_suffix else ""
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex(r"\A "), start)]
    if model.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(rf"{space}+\z"), ""))
    parts = [*(split or ())]
    if prefix and model.whitespace_as_suffix:
        steps.append(normalizers.Replace(Regex(r"\z"), space))
    elif prefix and not (first_only or split):
        steps.append(normalizers.Prepend(space))
    elif prefix:
        # Metaspace adds no prefix before its own character; a text that begins with several spaces needs one.
        own = space if model.remove_extra_whitespaces else " "
        scheme: Literal["first", "always"] = "first" if first_only else "always"
        parts.append(pre_tokenizers.Metaspace(own, prepend_scheme=scheme, split=False))
        parts.append(pre_tokenizers.Metaspace(space, prepend_scheme="never", split=False))
    backend.normalizer = normalizers.Sequence(steps)

    # Words can be separated if no piece crosses them; otherwise the whole text is one word.
    if not _crosses_spaces(model):
        side: Literal["merged_with_previous", "merged_with_next"] = (
            "merged_with_previous" if model.whitespace_as_suffix else "merged_with_next"
        )
        parts.append(pre_tokenizers.Split(space, side))
    parts += _symbol_split(model)
    if parts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = piece_decoder(model, settings)
    return backend


def add_controls(model: SentencePieceModel, backend: Backend, settings: Settings) -> Backend:
    """Adds the control pieces without a name as special tokens (UMT5 has <s>)."""
    from tokenizers import AddedToken

    stated = [*settings.special_tokens_map.values(), *settings.extra, *settings.added.values()]
    known = {token.content for token in stated if token is not None}
    controls = [piece.text for piece in model.pieces if piece.kind == CONTROL and piece.text not in known]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return backend


def _crosses_spaces(model: SentencePieceModel) -> bool:
    """Whether a piece is part of more than one word, or a space without a word is unknown."""
    space = SPACE if model.escape_whitespaces else " "
    texts = [piece.text for piece in model.pieces if piece.kind in (NORMAL, USER_DEFINED, UNUSED)]
    inner = slice(None, -1) if model.whitespace_as_suffix else slice(1, None)
    return space not in texts or any(space in text[inner] for text in texts)


def _symbols(model: SentencePieceModel) -> list[str]:
    """Returns the user-defined pieces, longer ones first, so that the longest matches."""
    return sorted((piece.text for piece in model.pieces if piece.kind == USER_DEFINED), key=len, reverse=True)


def _rules(model: SentencePieceModel) -> list[Normalizer]:
    """Returns the normalization rules, which leave user-defined pieces in a text as they are."""
    from tokenizers import normalizers

    if not model.charsmap:
        return []
    rules = normalizers.Precompiled(model.charsmap)
    changed = [text for text in _symbols(model) if rules.normalize_str(text) != text]
    # Characters for private use at the end of Unicode, which no rule changes, stand for them meanwhile.
    marks = [(text, chr(_LAST_PRIVATE - index)) for index, text in enumerate(changed)]
    return [
        *(normalizers.Replace(text, mark) for text, mark in marks),
        rules,
        *(normalizers.Replace(mark, text) for text, mark in marks),
    ]


def _symbol_split(model: SentencePieceModel) -> list[PreTokenizer]:
    """Separates the user-defined pieces of a BPE model, which no merge builds."""
    from tokenizers import Regex, pre_tokenizers

    symbols = _symbols(model)
    if model.model_type != "bpe" or not symbols:
        return []
    return [pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated")]


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
    lengths = {len(text) for text in normal}
    # Only where both parts have the length of a piece: a very long piece has few such places.
    cuts = {size: [cut for cut in sorted(lengths) if size - cut in lengths] for size in lengths}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(normal, key=lambda text: -normal[text])
        for cut in cuts[len(text)]
        if text[:cut] in normal and text[cut:] in normal
    ]
    return models.BPE(
        vocabulary,
        merges,
        unk_token=pieces[unk_id][0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        ignore_merges=bool(_symbols(model)),  # a symbol, separated, is one word of the vocabulary
    )
