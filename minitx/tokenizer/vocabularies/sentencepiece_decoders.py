"""Sentencepiece vocabularies of decoders: tokenizer.model of Llama, Mistral and Gemma."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings
from minitx.tokenizer.vocabularies.declaration import ANGLES, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import optional_boundaries
from minitx.tokenizer.vocabularies.sentencepiece_builder import add_controls, build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _pieces(folder: Path, settings: Settings) -> Backend:
    """Builds the tokenizer of tokenizer.model: ids unchanged.

    Text after a special token has no prefix space, unless the file sets `legacy`. transformers 5 adds none
    before a text that begins with a space, and for Mistral none at all; sentencepiece, which the models were
    trained with, does.
    """
    model = read_pieces(folder / "tokenizer.model")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    first_only = not settings.flag("legacy", False)
    backend = build_pieces(model, pieces, model.unk_id, settings, first_only=first_only)
    return add_controls(model, backend, settings)


# The models were trained with <s> before each text; transformers 5 leaves it out unless the file states it.
LLAMA = VocabularyFiles(
    files=("tokenizer.model",),
    build=_pieces,
    post_processor=optional_boundaries(bos=True),
    special_tokens_map={name: ANGLES[name] for name in ("bos_token", "eos_token", "unk_token")},
)
GEMMA = VocabularyFiles(
    files=("tokenizer.model",),
    build=_pieces,
    post_processor=optional_boundaries(bos=True),
    special_tokens_map={
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    },
)
