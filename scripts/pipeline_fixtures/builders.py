"""Builders of the tokenizers: each writes vocabulary files into a folder and returns the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from pipeline_fixtures import vocabularies
from pipeline_fixtures.vocabularies import BERT_SPECIALS, FAIRSEQ, MARIAN


def word_piece(lower: bool, **settings: Any) -> Callable[[Path], Any]:
    """BERT's, lower-cased with BERT's class and cased with DistilBERT's."""

    def build(folder: Path) -> Any:
        vocabularies.word_pieces(folder / "vocab.txt", 340, lower, *BERT_SPECIALS)
        path = str(folder / "vocab.txt")
        kind = transformers.BertTokenizerFast if lower else transformers.DistilBertTokenizerFast
        return kind(path, do_lower_case=lower, model_max_length=128, **settings)

    return build


def byte_level(kind: Any, length: int = 128) -> Callable[[Path], Any]:
    """Byte-level BPE with BART's special tokens."""

    def build(folder: Path) -> Any:
        vocabularies.byte_pairs(folder, 380)
        files = str(folder / "vocab.json"), str(folder / "merges.txt")
        return kind(*files, model_max_length=length)

    return build


def pieces(kind: Any, file: str, specials: dict[str, Any], **settings: Any) -> Callable[[Path], Any]:
    """A sentencepiece model in `file`, of a class whose only vocabulary file it is."""

    def build(folder: Path) -> Any:
        rules = folder / "rules.tsv"
        vocabularies.sentencepiece_model(folder / file, rules, 320, **specials)
        rules.unlink()
        return kind(str(folder / file), **{"model_max_length": 128} | settings)

    return build


def marian_tokenizer(*languages: str) -> Callable[[Path], Any]:
    """Marian's, with tokens of target languages."""

    def build(folder: Path) -> Any:
        rules = folder / "rules.tsv"
        for name, size in (("source.spm", 300), ("target.spm", 260)):
            vocabularies.sentencepiece_model(folder / name, rules, size, **MARIAN)
        rules.unlink()
        vocabularies.marian_vocabulary(folder, languages)
        files = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
        paths = {name: str(folder / file) for name, file in files.items()}
        target = "mul" if languages else "fr"
        return transformers.MarianTokenizer(
            **paths, source_lang="en", target_lang=target, model_max_length=128, separate_vocabs=False
        )

    return build


def m2m_tokenizer(folder: Path) -> Any:
    """M2M-100's."""
    rules = folder / "rules.tsv"
    vocabularies.sentencepiece_model(folder / "sentencepiece.bpe.model", rules, 300, **FAIRSEQ)
    rules.unlink()
    vocabularies.m2m_vocabulary(folder)
    files = str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    bare = transformers.M2M100Tokenizer(*files)
    # As in the published files; the class alone leaves them out.
    languages = list(bare.lang_token_to_id)
    return transformers.M2M100Tokenizer(*files, model_max_length=128, additional_special_tokens=languages)


def tapas_tokenizer(**settings: Any) -> Callable[[Path], Any]:
    """TAPAS'."""

    def build(folder: Path) -> Any:
        vocabularies.word_pieces(folder / "vocab.txt", 340, True, *BERT_SPECIALS, "[EMPTY]")
        path = str(folder / "vocab.txt")
        return transformers.TapasTokenizer(
            path, **{"model_max_length": 128, "cell_trim_length": -1} | settings
        )

    return build
