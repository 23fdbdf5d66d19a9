"""Translation models whose pieces are looked up in a vocabulary of its own: M2M-100 and Marian.

A sentencepiece model cuts the text, and vocab.json says the id of a piece; a piece that it lacks is
unknown, though the sentencepiece model knows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer._spm_proto import BYTE, NORMAL, USER_DEFINED
from minitx.tokenizer.backends import Encoder, Engine
from minitx.tokenizer.files import CONFIG, Settings, read_json, wrong
from minitx.tokenizer.languages import M2M100, WMT21
from minitx.tokenizer.vocabularies.family import ANGLES, Source
from minitx.tokenizer.vocabularies.post_processors import ended
from minitx.tokenizer.vocabularies.spm_builder import build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_CODE = re.compile(">>.+<<")


def _read_ids(path: Path, settings: Settings) -> dict[str, int]:
    """Reads a JSON object with the id of each token."""
    vocabulary = read_json(path)
    if any(isinstance(index, bool) or not isinstance(index, int) for index in vocabulary.values()):
        raise ValueError(f"{path} must give each token a whole number, its id.")
    unk = settings.text("unk_token")
    if unk not in vocabulary:
        raise ValueError(f"{path} lacks the unknown token {unk!r}.")
    return vocabulary


def _words(vocabulary: dict[str, int], settings: Settings) -> Backend:
    """A tokenizer that names ids and joins pieces to text, but cuts none."""
    from tokenizers import Tokenizer, decoders, models

    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=settings.text("unk_token")))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return backend


def _added(words: Backend) -> list[AddedToken]:
    """The tokens that are found in a text as they are."""
    return [token for _, token in sorted(words.get_added_tokens_decoder().items())]


def _encoder(
    path: Path, vocabulary: Mapping[str, int], whole: list[AddedToken], settings: Settings, source: Source
) -> Encoder:
    """Cuts text by a sentencepiece model and takes the ids of a vocabulary.

    Args:
        path: the sentencepiece model.
        vocabulary: the id of each token.
        whole: tokens that are found in a text as they are.
        settings, source: say how a text is framed.
    """
    model = read_pieces(path)
    # What stands for no text must not be found in one: after the spaces have become "▁", nothing matches a
    # piece with a space.
    texts = (NORMAL, USER_DEFINED, BYTE)
    pieces = [
        (piece.text if piece.kind in texts else f" {piece.text}", piece.score) for piece in model.pieces
    ]
    backend = build_pieces(model, pieces, model.unk_id)
    backend.add_special_tokens([token for token in whole if token.special])
    backend.add_tokens([token for token in whole if not token.special])
    backend.post_processor = source.frame(settings, backend)
    unk_id = vocabulary[settings.text("unk_token")]
    tokens = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    return Encoder(backend=backend, ids=tuple(vocabulary.get(token, unk_id) for token, _ in tokens))


def _m2m100_tokens(settings: Settings) -> tuple[str, ...]:
    """The tokens of the languages, which stand behind vocab.json."""
    name = settings.config.get("language_codes") or "m2m100"
    lists = {"m2m100": M2M100, "wmt21": WMT21}
    if name not in lists:
        wrong(CONFIG, "language_codes", name, f"one of {', '.join(lists)}")
    return tuple(f"__{code}__" for code in lists[name])


def _m2m100_words(folder: Path, settings: Settings) -> Backend:
    vocabulary = _read_ids(folder / "vocab.json", settings)
    size = len(vocabulary)
    languages = {token: size + place for place, token in enumerate(_m2m100_tokens(settings))}
    return _words(vocabulary | languages, settings)


def _m2m100_engine(folder: Path, settings: Settings, words: Backend, source: Source) -> Engine:
    path = folder / "sentencepiece.bpe.model"
    encoder = _encoder(path, words.get_vocab(), _added(words), settings, source)
    files = {name: (folder / name).read_bytes() for name in source.files}
    return Engine(vocabulary=words, decoder=words, source=encoder, target=encoder, files=files)


def _marian_words(folder: Path, settings: Settings) -> Backend:
    return _words(_read_ids(folder / "vocab.json", settings), settings)


def _marian_engine(folder: Path, settings: Settings, words: Backend, source: Source) -> Engine:
    """source.spm for what is read, target.spm for what is written; one vocabulary, or one for each."""
    names, special = list(source.files), _added(words)
    read = words.get_vocab()
    written, decoder = read, words
    if settings.flag("separate_vocabs", False):
        names.append("target_vocab.json")
        if not (folder / names[-1]).is_file():
            raise ValueError(
                f"{folder} has no target_vocab.json, which separate_vocabs=true in {CONFIG} asks for."
            )
        # Special tokens have one id on both sides, that of the source: a model begins to write with the
        # id that pads its input. (As in transformers.)
        shared = {token.content: read[token.content] for token in special}
        written = _read_ids(folder / names[-1], settings) | shared
        taken = set(shared.values())
        named = {text: index for text, index in written.items() if index not in taken}
        decoder = _words(named | shared, settings)
        decoder.add_special_tokens([token for token in special if token.special])
        decoder.add_tokens([token for token in special if not token.special])
    return Engine(
        vocabulary=words,
        decoder=decoder,
        source=_encoder(folder / "source.spm", read, special + _codes(read), settings, source),
        target=_encoder(folder / "target.spm", written, special + _codes(written), settings, source),
        files={name: (folder / name).read_bytes() for name in names},
    )


def _codes(vocabulary: Mapping[str, int]) -> list[AddedToken]:
    """Tokens like ">>deu<<", with which a text begins that goes into one of several languages.

    They are no special tokens, and stay whole wherever they stand; transformers looks only at the start.
    """
    from tokenizers import AddedToken

    codes = sorted(token for token in vocabulary if _CODE.fullmatch(token))
    return [AddedToken(code, normalized=False, special=False) for code in codes]


M2M100_PIECES = Source(
    files=("vocab.json", "sentencepiece.bpe.model"),
    build=_m2m100_words,
    frame=ended,  # until the language is known
    roles={role: ANGLES[role] for role in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token")},
    special=_m2m100_tokens,
    cut=_m2m100_engine,
)
MARIAN = Source(
    files=("source.spm", "target.spm", "vocab.json"),
    build=_marian_words,
    frame=ended,
    roles={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    cut=_marian_engine,
)
