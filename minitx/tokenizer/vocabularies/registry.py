"""`FAMILIES`, the tokenizer of each architecture, and `build` for folders without tokenizer.json.

Older vocabulary files are lists of tokens: normalization, splitting, special tokens and ids were part of each
architecture's code. The modules of this folder declare them. Where transformers 5.23 reads a file differently
from how the published checkpoints were trained, the checkpoint decides, and a comment notes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minitx.tokenizer.backends import TokenizerBackends
from minitx.tokenizer.files import Settings, add_tokens, read_settings
from minitx.tokenizer.languages import LanguageRule
from minitx.tokenizer.vocabularies import (
    byte_level,
    sentencepiece_decoders,
    sentencepiece_encoders,
    sentencepiece_seq2seq,
    wordpiece,
)
from minitx.tokenizer.vocabularies import sentencepiece_with_vocabulary as with_vocabulary
from minitx.tokenizer.vocabularies.bounds import check_ids
from minitx.tokenizer.vocabularies.declaration import (
    WITH_TYPES,
    WITHOUT_TYPES,
    Family,
    MissingTokenizerError,
)


def build(folder: Path, family: str, pattern: str | None = None) -> tuple[TokenizerBackends, Settings]:
    """Builds the tokenizer of a family from the vocabulary files in a folder.

    Args:
        folder: folder of the files.
        family: a key of `FAMILIES`.
        pattern: None, or a regular expression whose matches are the words of vocab.txt.

    Returns:
        The tokenizer and its settings.

    Raises:
        MissingTokenizerError: no fitting vocabulary file.
        ValueError: a damaged one, or one that lacks a needed token.
    """
    present = sorted(entry.name for entry in folder.iterdir())
    listing = f"The folder holds {', '.join(present) or 'nothing'}."
    if family not in FAMILIES:
        raise MissingTokenizerError(
            f"{folder} has no tokenizer.json, and older vocabulary files are read for "
            f"{', '.join(FAMILIES)}, not for {family!r}; pass the model type if it is one of them. {listing}"
        )
    sources = FAMILIES[family].sources if pattern is None else (wordpiece.whole_words(pattern),)
    source = next((source for source in sources if set(source.files) <= set(present)), None)
    if source is None:
        expected = [" with ".join(source.files) for source in sources]
        if pattern is None:
            expected.insert(0, "tokenizer.json")
        raise MissingTokenizerError(
            f"{folder} has no vocabulary file of a {family!r} tokenizer: looked for "
            f"{' or '.join(expected)}. {listing}"
        )
    settings = read_settings(
        folder, defaults=source.special_tokens_map, mask_takes_space=source.mask_takes_space
    )
    backend = source.build(folder, settings)
    check_ids(backend, folder.joinpath(*source.files[:1]))
    add_tokens(backend, settings, source.special(settings) if source.special else ())
    if source.build_backends is not None:
        return source.build_backends(folder, settings, backend, source), settings
    backend.post_processor = source.post_processor(settings, backend)
    return TokenizerBackends.of(backend), settings


def needs_vocabulary_files(folder: Path, family: str) -> bool:
    """Whether the folder has the files of a tokenizer that tokenizer.json cannot hold."""
    sources = FAMILIES[family].sources if family in FAMILIES else ()
    return any(
        source.build_backends is not None and all((folder / name).is_file() for name in source.files)
        for source in sources
    )


_REGIONS = r"([a-z]{2,3}_[A-Z]{2})"  # "en_XX"
_SCRIPTS = r"([a-z]{3}_[A-Z][a-z]{3})"  # "eng_Latn"
_MBART = LanguageRule(pattern=_REGIONS, default="en_XX", in_front=False)
_MBART50 = LanguageRule(pattern=_REGIONS, default="en_XX", in_front=True)
_M2M100 = LanguageRule(pattern=r"__([a-z]{2,3})__", default="en", in_front=True)
_NLLB = LanguageRule(pattern=_SCRIPTS, default="eng_Latn", in_front=True)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("BertTokenizer", WITH_TYPES, (wordpiece.BERT,)),
    "distilbert": Family("DistilBertTokenizer", WITHOUT_TYPES, (wordpiece.BERT,)),
    "electra": Family("ElectraTokenizer", WITH_TYPES, (wordpiece.BERT,)),
    "tapas": Family("TapasTokenizer", WITH_TYPES, (wordpiece.TAPAS,)),
    "tapex": Family("TapexTokenizer", WITHOUT_TYPES, (byte_level.ROBERTA,)),
    "mpnet": Family("MPNetTokenizer", WITHOUT_TYPES, (wordpiece.MPNET,)),
    "roberta": Family("RobertaTokenizer", WITHOUT_TYPES, (byte_level.ROBERTA,)),
    "modernbert": Family("ModernBertTokenizer", WITHOUT_TYPES, ()),
    "xlm-roberta": Family("XLMRobertaTokenizer", WITHOUT_TYPES, (sentencepiece_encoders.XLM_ROBERTA,)),
    "camembert": Family("CamembertTokenizer", WITHOUT_TYPES, (sentencepiece_encoders.CAMEMBERT,)),
    # ALBERT learned both segments; that transformers 5 no longer marks them is an oversight there.
    "albert": Family("AlbertTokenizer", WITH_TYPES, (sentencepiece_encoders.ALBERT, wordpiece.ALBERT_WORDS)),
    "deberta-v2": Family("DebertaV2Tokenizer", WITH_TYPES, (sentencepiece_encoders.DEBERTA,)),
    "gpt2": Family("GPT2Tokenizer", WITHOUT_TYPES, (byte_level.GPT2,)),
    "gpt_neo": Family("GPT2Tokenizer", WITHOUT_TYPES, (byte_level.GPT2,)),
    "gptj": Family("GPT2Tokenizer", WITHOUT_TYPES, (byte_level.GPT2,)),
    "phi": Family("CodeGenTokenizer", WITHOUT_TYPES, (byte_level.GPT2,)),
    "gpt_neox": Family("GPTNeoXTokenizer", WITHOUT_TYPES, (byte_level.GPT_NEOX,)),
    **dict.fromkeys(
        ("qwen2", "qwen3", "qwen3_moe"), Family("Qwen2Tokenizer", WITHOUT_TYPES, (byte_level.QWEN2,))
    ),
    "opt": Family("GPT2Tokenizer", WITHOUT_TYPES, (byte_level.OPT,)),
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "phi3"),
        Family("LlamaTokenizer", WITHOUT_TYPES, (sentencepiece_decoders.LLAMA,)),
    ),
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text"),
        Family("GemmaTokenizer", WITHOUT_TYPES, (sentencepiece_decoders.GEMMA,)),
    ),
    "bart": Family("BartTokenizer", WITHOUT_TYPES, (byte_level.ROBERTA,)),
    "blenderbot": Family("BlenderbotTokenizer", WITHOUT_TYPES, (byte_level.BLENDERBOT,)),
    "t5": Family("T5Tokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.T5,)),
    "mt5": Family("MT5Tokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.MT5,)),
    "umt5": Family("UMT5Tokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.UMT5,)),
    "byt5": Family("ByT5Tokenizer", WITHOUT_TYPES, (byte_level.BYT5,)),
    "pegasus": Family("PegasusTokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.PEGASUS,)),
    "mbart": Family("MBartTokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.MBART_PIECES,), _MBART),
    "mbart50": Family("MBart50Tokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.MBART50_PIECES,), _MBART50),
    "m2m_100": Family("M2M100Tokenizer", WITHOUT_TYPES, (with_vocabulary.M2M100_PIECES,), _M2M100),
    "nllb": Family("NllbTokenizer", WITHOUT_TYPES, (sentencepiece_seq2seq.NLLB_PIECES,), _NLLB),
    "marian": Family("MarianTokenizer", WITHOUT_TYPES, (with_vocabulary.MARIAN,)),
}
