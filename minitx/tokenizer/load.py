"""`load_tokenizer`: a folder or Hub id to a `Tokenizer`."""

from __future__ import annotations

from pathlib import Path

from minitx.checkpoint.gguf.header import is_gguf
from minitx.checkpoint.hub import TOKENIZER, fetch_tokenizer
from minitx.checkpoint.lora.base import tokenizer_folder
from minitx.checkpoint.sentence import check_links
from minitx.habits import explain_arguments
from minitx.tokenizer.backends import TokenizerBackends
from minitx.tokenizer.files import (
    CONFIG,
    Settings,
    add_tokens,
    padding_defaults,
    read_backend,
    read_name,
    read_settings,
    read_templates,
    read_vocab_size,
)
from minitx.tokenizer.flags import apply_flags
from minitx.tokenizer.keys import check_keys
from minitx.tokenizer.languages import find_languages
from minitx.tokenizer.tables.tokenizer import TableTokenizer
from minitx.tokenizer.tokenizer import ANY_CLASS, Tokenizer
from minitx.tokenizer.vocabularies.bounds import check_parts
from minitx.tokenizer.vocabularies.declaration import WITHOUT_TYPES, MissingTokenizerError
from minitx.tokenizer.vocabularies.gguf import read_gguf
from minitx.tokenizer.vocabularies.registry import FAMILIES, build, needs_vocabulary_files
from minitx.transaction import read_consistently
from minitx.validation import ArgumentValueError, check_optional_strings, warn

# Key of config.json -> the number of tokens of a decoder
_CONTEXTS = ("max_position_embeddings", "n_positions", "seq_length")
_LEFT = ("llama", "gemma", "gemma2", "gemma3_text")  # whose SentencePiece tokenizers pad at the left
# Without a class of their own in transformers 5.
_OF_NO_CLASS = ("llama", "mistral", "mixtral", "modernbert", "phi3", "umt5")


@explain_arguments("load_tokenizer")
def load_tokenizer(
    name_or_folder: str | Path,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    model_type: str | None = None,
    pattern: str | None = None,
    src_lang: str | None = None,
    tgt_lang: str | None = None,
) -> Tokenizer:
    """Loads the tokenizer of a checkpoint, or that in a GGUF file.

    Args:
        name_or_folder: a folder, a GGUF file, or the id of a repository on the Hugging Face Hub. Of a LoRA
            adapter without tokenizer files, the tokenizer of its base model is loaded.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.
        offline: use only files in the Hub cache.
        model_type: the architecture ("bert"), for a folder without `model_type`.
        pattern: a regular expression for a vocab.txt of whole words: its matches are the words of a text,
            and the text between them is dropped.
        src_lang, tgt_lang: codes of source and target language of a translation model ("en_XX"); None for
            those of the files. Both can be set later.

    Raises:
        ConnectionError: no such folder, and the Hub cannot be reached.
        FileNotFoundError: no such folder, nor repository on the Hub or, offline, in its cache.
        PermissionError: a gated or private repository, or a token that the Hub refuses.
        TypeError: name_or_folder is neither a str nor a Path.
        ValueError: a damaged file, a link out of the folder, no vocabulary, an unknown architecture, or a
            language that the tokenizer does not have.
    """
    check_optional_strings(model_type=model_type, pattern=pattern, src_lang=src_lang, tgt_lang=tgt_lang)
    folder = fetch_tokenizer(name_or_folder, revision=revision, token=token, offline=offline)
    if is_gguf(folder):
        tokenizer = _load_gguf(folder, model_type, pattern)
    else:
        folder = tokenizer_folder(folder, token=token, offline=offline)
        check_links(folder, ("config.json", *TOKENIZER))
        tokenizer = read_consistently(folder, lambda: _load(folder, model_type, pattern))
    if src_lang is not None:
        tokenizer.src_lang = src_lang
    if tgt_lang is not None:
        tokenizer.tgt_lang = tgt_lang
    return tokenizer


def _load(folder: Path, model_type: str | None, pattern: str | None) -> Tokenizer:
    """Reads the files of a folder, all of them of one save."""
    model, family = _architectures(folder, model_type)
    rule = FAMILIES[family].languages if family in FAMILIES else None
    if (
        pattern is None
        and (folder / "tokenizer.json").is_file()
        and not needs_vocabulary_files(folder, family)
    ):
        backends, settings = _read(folder, model, family)
        if _is_general(folder, model) and not read_name(folder / CONFIG, "tokenizer_family"):
            rule = None  # the class has no languages
    else:
        backends, settings = build(folder, family, pattern)
    check_keys(settings.config)
    for encoder in (backends.source, backends.target):
        encoder.backend.encode_special_tokens = bool(settings.flag("split_special_tokens", False))
    usual_names = FAMILIES[model].model_input_names if model in FAMILIES else WITHOUT_TYPES
    tables = family == "tapas" and backends.files  # a tokenizer.json knows no tables
    tokenizer = (TableTokenizer if tables else Tokenizer)(
        backends,
        settings,
        model_input_names=settings.input_names() or usual_names,
        chat_templates=read_templates(folder),
        languages=None if rule is None else find_languages(rule, settings, backends.vocabulary),
        saved_as=_saved_as(family, backends, translates=rule is not None),
        model_vocab_size=read_vocab_size(folder),
    )
    if "padding_side" not in settings.config and _pads_left(folder, model, backends):
        tokenizer.padding_side = "left"
    return tokenizer


def _load_gguf(path: Path, model_type: str | None, pattern: str | None) -> Tokenizer:
    """Reads the tokenizer in a GGUF file."""
    if pattern is not None:
        raise ArgumentValueError("pattern", pattern, "None for a GGUF file", "it is for a vocab.txt of words")
    backends, settings, config = read_gguf(path)
    if model_type not in (None, config["model_type"]):
        expected = f"{config['model_type']!r}, as in {path}"
        raise ArgumentValueError("model_type", model_type, expected, "leave it out")
    tokenizer = Tokenizer(
        backends,
        settings,
        model_input_names=WITHOUT_TYPES,
        chat_templates={},
        model_vocab_size=config["vocab_size"],
    )
    tokenizer.model_max_length = next(config[key] for key in _CONTEXTS if key in config)
    if type(backends.decoder.decoder).__name__ != "ByteLevel" and config["model_type"] in _LEFT:
        tokenizer.padding_side = "left"
    return tokenizer


def gguf_contents(path: Path) -> dict[str, str | bytes]:
    """Returns the files of the tokenizer in a GGUF file, name -> content; of another checkpoint none.

    None either, with a warning, if the file has no tokenizer that minitx can build.

    Raises:
        ValueError: a damaged file.
    """
    if not is_gguf(path):
        return {}
    try:
        return _load_gguf(path, None, None).contents()
    except MissingTokenizerError as error:
        warn(f"{error} The tokenizer is not written.")
        return {}


def _read(folder: Path, model: str, family: str) -> tuple[TokenizerBackends, Settings]:
    """Reads tokenizer.json, and the special tokens and options of the other files."""
    backend = read_backend(folder)
    general = _is_general(folder, model)
    usual = FAMILIES[family].special_tokens_map if family in FAMILIES and not general else {}
    known = {name: text for name, text in usual.items() if backend.token_to_id(text) is not None}
    settings = read_settings(folder, defaults=known | padding_defaults(backend))
    if not general:
        backend = apply_flags(backend, settings)
    # In tokenizer.json a language may be an ordinary piece.
    translates = family in FAMILIES and FAMILIES[family].languages is not None and not general
    special = FAMILIES[family].special(settings) if translates else ()
    add_tokens(backend, settings, [text for text in special if backend.token_to_id(text) is not None])
    check_parts(backend, folder / "tokenizer.json")
    return TokenizerBackends.of(backend), settings


def _is_general(folder: Path, model: str) -> bool:
    """Whether transformers uses tokenizer.json as it is, without special tokens that no file names."""
    stated = read_name(folder / CONFIG, "tokenizer_class")
    if model == "qwen2":  # has its own class, whatever the file states
        return False
    return stated in ANY_CLASS or (not stated and model in _OF_NO_CLASS)


def _pads_left(folder: Path, model: str, backends: TokenizerBackends) -> bool:
    """Whether the class pads at the left unless a file states a side, as in transformers 5."""
    stated = read_name(folder / CONFIG, "tokenizer_class").removesuffix("Fast")
    if stated == "LlamaTokenizer":  # Llama 3 and Mistral have a general class, whatever the file states
        return model in ("llama", "") and type(backends.decoder.decoder).__name__ != "ByteLevel"
    return stated == "GemmaTokenizer" or (not stated and model.startswith("gemma"))


def _saved_as(family: str, backends: TokenizerBackends, *, translates: bool) -> dict[str, str]:
    """Returns the entries of tokenizer_config.json for the class of the tokenizer."""
    if backends.files:
        return {"tokenizer_class": FAMILIES[family].tokenizer_class}
    kind = {"tokenizer_class": ANY_CLASS[0]}
    if translates:
        kind["tokenizer_family"] = family  # mBART and mBART-50 place languages differently
    return kind


def _architectures(folder: Path, model_type: str | None) -> tuple[str, str]:
    """Returns the architecture of the model, and the architecture whose tokenizer it uses.

    They can differ: a Chinese RoBERTa uses BERT's tokenizer. config.json (or the `model_type` argument) names
    the first, `tokenizer_class` in tokenizer_config.json or else in config.json the second; each is the
    default of the other.
    """
    stated = read_name(folder / "config.json", "model_type")
    if stated and model_type and stated != model_type:
        expected = f"{stated!r}, as in {folder / 'config.json'}"
        raise ArgumentValueError("model_type", model_type, expected, "leave it out, or correct the file")
    model = stated or model_type or ""
    name = read_name(folder / CONFIG, "tokenizer_class")
    if not name and model not in (
        "mt5",
        "umt5",
    ):  # they name T5's class, but have other sentinels
        name = read_name(folder / "config.json", "tokenizer_class")
    if not model and not name:
        raise ValueError(
            f"{folder} does not say which architecture it is for: neither config.json (model_type) "
            "nor tokenizer_config.json (tokenizer_class) does. Pass the model type, one of "
            f"{', '.join(FAMILIES)}."
        )
    if not name or name in ANY_CLASS:
        return model, read_name(folder / CONFIG, "tokenizer_family") or model
    usual = name.removesuffix("Fast")
    if model in FAMILIES and FAMILIES[model].tokenizer_class == usual:
        return model, model  # several architectures have this class
    family = next((key for key, family in FAMILIES.items() if family.tokenizer_class == usual), name)
    return model or family, family
