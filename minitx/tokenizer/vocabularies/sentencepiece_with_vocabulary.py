"""Sentencepiece models with ids in a separate vocab.json: M2M-100 and Marian.

The sentencepiece model segments the text, and vocab.json maps a piece to its id; a piece that it lacks is
unknown even if the sentencepiece model has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer._sentencepiece_proto import BYTE, NORMAL, USER_DEFINED
from minitx.tokenizer.backends import TextEncoder, TokenizerBackends
from minitx.tokenizer.files import CONFIG, Settings, read_json, wrong
from minitx.tokenizer.languages import M2M100, WMT21
from minitx.tokenizer.vocabularies.declaration import ANGLES, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import eos_at_end
from minitx.tokenizer.vocabularies.sentencepiece_builder import build_pieces, piece_decoder, read_pieces

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_CODE = re.compile(">>.+<<")


def _read_ids(path: Path, settings: Settings) -> dict[str, int]:
    """Reads a JSON object with the id of each token."""
    vocabulary = read_json(path)
    if any(isinstance(index, bool) or not isinstance(index, int) for index in vocabulary.values()):
        raise ValueError(f"{path} must map each token to an integer, its id.")
    unk = settings.text("unk_token")
    if unk not in vocabulary:
        raise ValueError(f"{path} lacks the unknown token {unk!r}.")
    return vocabulary


def _vocabulary(vocabulary: dict[str, int], settings: Settings, pieces: Path) -> Backend:
    """Builds a tokenizer that maps ids and joins the pieces of a file to text, but does not segment."""
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=settings.text("unk_token")))
    backend.decoder = piece_decoder(read_pieces(pieces), settings)
    return backend


def _added(words: Backend) -> list[AddedToken]:
    """Returns the added tokens, which are matched in a text as they are."""
    return [token for _, token in sorted(words.get_added_tokens_decoder().items())]


def _encoder(
    path: Path,
    vocabulary: Mapping[str, int],
    added: list[AddedToken],
    settings: Settings,
    source: VocabularyFiles,
) -> TextEncoder:
    """Builds an encoder that segments text by a sentencepiece model and uses the ids of a vocabulary.

    Args:
        path: the sentencepiece model.
        vocabulary: token -> id.
        added: tokens that are matched in a text as they are.
        settings, source: define the post-processor.
    """
    model = read_pieces(path)
    # Control pieces must not match text: after spaces have become "▁", a piece with a space matches nothing.
    texts = (NORMAL, USER_DEFINED, BYTE)
    pieces = [
        (piece.text if piece.kind in texts else f" {piece.text}", piece.score) for piece in model.pieces
    ]
    backend = build_pieces(model, pieces, model.unk_id, settings)
    backend.add_special_tokens([token for token in added if token.special])
    backend.add_tokens([token for token in added if not token.special])
    backend.post_processor = source.post_processor(settings, backend)
    unk_id = vocabulary[settings.text("unk_token")]
    tokens = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    return TextEncoder(backend=backend, ids=tuple(vocabulary.get(token, unk_id) for token, _ in tokens))


def _m2m100_tokens(settings: Settings) -> tuple[str, ...]:
    """Returns the language tokens, whose ids follow those of vocab.json."""
    name = settings.config.get("language_codes") or "m2m100"
    lists = {"m2m100": M2M100, "wmt21": WMT21}
    if name not in lists:
        wrong(CONFIG, "language_codes", name, f"one of {', '.join(lists)}")
    return tuple(f"__{code}__" for code in lists[name])


def _m2m100_words(folder: Path, settings: Settings) -> Backend:
    vocabulary = _read_ids(folder / "vocab.json", settings)
    size = len(vocabulary)
    languages = {token: size + place for place, token in enumerate(_m2m100_tokens(settings))}
    return _vocabulary(vocabulary | languages, settings, folder / "sentencepiece.bpe.model")


def _m2m100_backends(
    folder: Path, settings: Settings, words: Backend, source: VocabularyFiles
) -> TokenizerBackends:
    """One sentencepiece model for source and target."""
    path = folder / "sentencepiece.bpe.model"
    encoder = _encoder(path, words.get_vocab(), _added(words), settings, source)
    files = {name: (folder / name).read_bytes() for name in source.files}
    return TokenizerBackends(vocabulary=words, decoder=words, source=encoder, target=encoder, files=files)


def _marian_words(folder: Path, settings: Settings) -> Backend:
    return _vocabulary(_read_ids(folder / "vocab.json", settings), settings, folder / "target.spm")


def _marian_backends(
    folder: Path, settings: Settings, words: Backend, source: VocabularyFiles
) -> TokenizerBackends:
    """source.spm for source texts, target.spm for target texts; one vocabulary, or one for each."""
    names, special = list(source.files), _added(words)
    source_ids = words.get_vocab()
    target_ids, decoder = source_ids, words
    if settings.flag("separate_vocabs", False):
        names.append("target_vocab.json")
        if not (folder / names[-1]).is_file():
            raise ValueError(
                f"{folder} has no target_vocab.json, which separate_vocabs=true in {CONFIG} requires."
            )
        # Special tokens have their source id on both sides, as in transformers: the decoder starts from the
        # padding id of the encoder.
        shared = {token.content: source_ids[token.content] for token in special}
        target_ids = _read_ids(folder / names[-1], settings) | shared
        taken = set(shared.values())
        named = {text: index for text, index in target_ids.items() if index not in taken}
        decoder = _vocabulary(named | shared, settings, folder / "target.spm")
        decoder.add_special_tokens([token for token in special if token.special])
        decoder.add_tokens([token for token in special if not token.special])
    return TokenizerBackends(
        vocabulary=words,
        decoder=decoder,
        source=_encoder(folder / "source.spm", source_ids, special + _codes(source_ids), settings, source),
        target=_encoder(folder / "target.spm", target_ids, special + _codes(target_ids), settings, source),
        files={name: (folder / name).read_bytes() for name in names},
    )


def _codes(vocabulary: Mapping[str, int]) -> list[AddedToken]:
    """Returns tokens such as ">>deu<<", which set the target language at the start of a text.

    They are not special tokens and match anywhere in a text; transformers matches them at the start only.
    """
    from tokenizers import AddedToken

    codes = sorted(token for token in vocabulary if _CODE.fullmatch(token))
    return [AddedToken(code, normalized=False, special=False) for code in codes]


M2M100_PIECES = VocabularyFiles(
    files=("vocab.json", "sentencepiece.bpe.model"),
    build=_m2m100_words,
    post_processor=eos_at_end,  # until the language is known
    special_tokens_map={
        name: ANGLES[name] for name in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token")
    },
    special=_m2m100_tokens,
    build_backends=_m2m100_backends,
)
MARIAN = VocabularyFiles(
    files=("source.spm", "target.spm", "vocab.json"),
    build=_marian_words,
    post_processor=eos_at_end,
    special_tokens_map={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    build_backends=_marian_backends,
)
