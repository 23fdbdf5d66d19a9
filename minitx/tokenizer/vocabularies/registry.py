"""Builds a tokenizer from the vocabulary files that came before tokenizer.json.

Such a file is only a list of tokens. How text is cleaned and cut, which tokens frame it, and how
ids are counted lay in the code of each architecture; `families/` writes that down, and `FAMILIES` lists
it, one entry per architecture. Where transformers 5.23 reads an old file differently from what
the published checkpoints were trained with, the checkpoint decides, and a comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minitx.tokenizer.backends import Engine
from minitx.tokenizer.files import Settings, add_tokens, read_settings
from minitx.tokenizer.languages import LanguageRule
from minitx.tokenizer.vocabularies import byte_level, translation
from minitx.tokenizer.vocabularies import sentencepiece as sentencepieces
from minitx.tokenizer.vocabularies import spm_vocab as look_up
from minitx.tokenizer.vocabularies import wordpiece as words
from minitx.tokenizer.vocabularies.family import WITH_TYPES, WITHOUT_TYPES, Family


def build(folder: Path, family: str, pattern: str | None = None) -> tuple[Engine, Settings]:
    """Builds the tokenizer of one family from the vocabulary files in a folder.

    Args:
        folder: holds the files.
        family: a key of `FAMILIES`.
        pattern: None, or a regular expression whose matches are the words of vocab.txt.

    Returns:
        The tokenizer and the settings that it was built with.

    Raises:
        ValueError: no fitting vocabulary file, a damaged one, or one that lacks a needed token.
    """
    there = sorted(entry.name for entry in folder.iterdir())
    listing = f"The folder holds {', '.join(there) or 'nothing'}."
    if family not in FAMILIES:
        raise ValueError(
            f"{folder} has no tokenizer.json, and older vocabulary files are read for "
            f"{', '.join(FAMILIES)}, not for {family!r}; pass the model type if it is one of them. {listing}"
        )
    sources = FAMILIES[family].sources if pattern is None else (words.words(pattern),)
    source = next((source for source in sources if set(source.files) <= set(there)), None)
    if source is None:
        wanted = [" with ".join(source.files) for source in sources]
        if pattern is None:
            wanted.insert(0, "tokenizer.json")
        raise ValueError(
            f"{folder} has no vocabulary file of a {family!r} tokenizer: looked for "
            f"{' or '.join(wanted)}. {listing}"
        )
    settings = read_settings(folder, defaults=source.roles, mask_takes_space=source.mask_takes_space)
    backend = source.build(folder, settings)
    add_tokens(backend, settings, source.special(settings) if source.special else ())
    if source.cut is not None:
        return source.cut(folder, settings, backend, source), settings
    backend.post_processor = source.frame(settings, backend)
    return Engine.of(backend), settings


def goes_without_json(folder: Path, family: str) -> bool:
    """Whether the folder holds the files of a tokenizer that no tokenizer.json can hold."""
    sources = FAMILIES[family].sources if family in FAMILIES else ()
    return any(
        source.cut is not None and all((folder / name).is_file() for name in source.files)
        for source in sources
    )


_REGIONS = r"([a-z]{2,3}_[A-Z]{2})"  # "en_XX"
_SCRIPTS = r"([a-z]{3}_[A-Z][a-z]{3})"  # "eng_Latn"
_MBART = LanguageRule(pattern=_REGIONS, default="en_XX", in_front=False)
_MBART50 = LanguageRule(pattern=_REGIONS, default="en_XX", in_front=True)
_M2M100 = LanguageRule(pattern=r"__([a-z]{2,3})__", default="en", in_front=True)
_NLLB = LanguageRule(pattern=_SCRIPTS, default="eng_Latn", in_front=True)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("BertTokenizer", WITH_TYPES, (words.BERT,)),
    "distilbert": Family("DistilBertTokenizer", WITHOUT_TYPES, (words.BERT,)),
    "electra": Family("ElectraTokenizer", WITH_TYPES, (words.BERT,)),
    "mpnet": Family("MPNetTokenizer", WITHOUT_TYPES, (words.MPNET,)),
    "roberta": Family("RobertaTokenizer", WITHOUT_TYPES, (byte_level.ROBERTA,)),
    "modernbert": Family("ModernBertTokenizer", WITHOUT_TYPES, ()),
    "xlm-roberta": Family("XLMRobertaTokenizer", WITHOUT_TYPES, (sentencepieces.XLM_ROBERTA,)),
    "camembert": Family("CamembertTokenizer", WITHOUT_TYPES, (sentencepieces.CAMEMBERT,)),
    # ALBERT learned both segments; that transformers 5 no longer marks them is an oversight there.
    "albert": Family("AlbertTokenizer", WITH_TYPES, (sentencepieces.ALBERT, words.ALBERT_WORDS)),
    "deberta-v2": Family("DebertaV2Tokenizer", WITH_TYPES, (sentencepieces.DEBERTA,)),
    "gpt2": Family("GPT2Tokenizer", WITHOUT_TYPES, (byte_level.GPT2,)),
    "bart": Family("BartTokenizer", WITHOUT_TYPES, (byte_level.ROBERTA,)),
    "blenderbot": Family("BlenderbotTokenizer", WITHOUT_TYPES, (byte_level.BLENDERBOT,)),
    "t5": Family("T5Tokenizer", WITHOUT_TYPES, (translation.T5,)),
    "mt5": Family("MT5Tokenizer", WITHOUT_TYPES, (translation.MT5,)),
    "umt5": Family("UMT5Tokenizer", WITHOUT_TYPES, (translation.UMT5,)),
    "byt5": Family("ByT5Tokenizer", WITHOUT_TYPES, (byte_level.BYT5,)),
    "pegasus": Family("PegasusTokenizer", WITHOUT_TYPES, (translation.PEGASUS,)),
    "mbart": Family("MBartTokenizer", WITHOUT_TYPES, (translation.MBART_PIECES,), _MBART),
    "mbart50": Family("MBart50Tokenizer", WITHOUT_TYPES, (translation.MBART50_PIECES,), _MBART50),
    "m2m_100": Family("M2M100Tokenizer", WITHOUT_TYPES, (look_up.M2M100_PIECES,), _M2M100),
    "nllb": Family("NllbTokenizer", WITHOUT_TYPES, (translation.NLLB_PIECES,), _NLLB),
    "marian": Family("MarianTokenizer", WITHOUT_TYPES, (look_up.MARIAN,)),
}
