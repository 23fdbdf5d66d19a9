"""From a folder or Hub id to a `Tokenizer`."""

from __future__ import annotations

import errno
from pathlib import Path

from minitx.tokenizer.backends import Engine
from minitx.tokenizer.files import (
    CONFIG,
    add_tokens,
    apply_flags,
    read_backend,
    read_name,
    read_settings,
    read_templates,
)
from minitx.tokenizer.languages import find_languages
from minitx.tokenizer.tokenizer import ANY_CLASS, Tokenizer
from minitx.tokenizer.vocabularies.family import WITHOUT_TYPES
from minitx.tokenizer.vocabularies.registry import FAMILIES, build, goes_without_json
from minitx.validation import ArgumentValueError


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
    """Loads the tokenizer of a checkpoint.

    Args:
        name_or_folder: a folder, or the id of a repository on the Hugging Face Hub.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.
        offline: uses only what was fetched before.
        model_type: the architecture ("bert"), for a folder that does not say it.
        pattern: a regular expression; vocab.txt is then a list of whole words, and the words of a
            text are its matches, looked up as they are. What lies between them is dropped.
        src_lang, tgt_lang: codes of the languages that a translation model reads and writes ("en_XX");
            None for what the files say. Both can be set later.

    Raises:
        ConnectionError: no such folder, and the Hub, where it may be, is out of reach.
        FileNotFoundError: no such folder, and no such repository on the Hub or, offline, in its cache.
        PermissionError: a gated or private repository, or a token that the Hub refuses.
        TypeError: name_or_folder is neither a str nor a Path.
        ValueError: a damaged file, none that holds a vocabulary, an unknown architecture, or a language
            that the tokenizer lacks.
    """
    if not isinstance(name_or_folder, str | Path):
        raise TypeError(
            f"name_or_folder is {name_or_folder!r:.60} ({type(name_or_folder).__name__}); a str or Path "
            "was expected."
        )
    folder = Path(name_or_folder)
    try:
        there = str(name_or_folder) != "" and folder.is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise FileNotFoundError(
            f"{str(name_or_folder)[:60]!r}... is neither a folder nor a valid Hub id: the name has "
            f"{len(str(name_or_folder))} characters."
        ) from None
    if not there:
        from minitx.checkpoint.hub import fetch_tokenizer

        folder = fetch_tokenizer(name_or_folder, revision=revision, token=token, offline=offline)
    model, family = _architectures(folder, model_type)
    rule = FAMILIES[family].languages if family in FAMILIES else None
    if pattern is None and (folder / "tokenizer.json").is_file() and not goes_without_json(folder, family):
        backend = read_backend(folder)
        usual = FAMILIES[family].roles if family in FAMILIES else {}
        known = {role: text for role, text in usual.items() if backend.token_to_id(text) is not None}
        settings = read_settings(folder, defaults=known)
        apply_flags(backend, settings)
        # A language may stand in tokenizer.json as a mere piece.
        special = FAMILIES[family].special(settings) if rule is not None else ()
        add_tokens(backend, settings, [text for text in special if backend.token_to_id(text) is not None])
        engine = Engine.of(backend)
    else:
        engine, settings = build(folder, family, pattern)
    for encoder in (engine.source, engine.target):
        encoder.backend.encode_special_tokens = bool(settings.flag("split_special_tokens", False))
    usual_names = FAMILIES[model].model_input_names if model in FAMILIES else WITHOUT_TYPES
    tokenizer = Tokenizer(
        engine,
        settings,
        model_input_names=settings.input_names() or usual_names,
        chat_templates=read_templates(folder),
        languages=None if rule is None else find_languages(rule, settings, engine.vocabulary),
        saved_as=_saved_as(family, engine),
    )
    if src_lang is not None:
        tokenizer.src_lang = src_lang
    if tgt_lang is not None:
        tokenizer.tgt_lang = tgt_lang
    return tokenizer


def _saved_as(family: str, engine: Engine) -> dict[str, str]:
    """What a saved tokenizer_config.json says about the kind of the tokenizer."""
    if engine.files:
        return {"tokenizer_class": FAMILIES[family].tokenizer_class}
    kind = {"tokenizer_class": ANY_CLASS[0]}
    if family in FAMILIES and FAMILIES[family].languages is not None:
        kind["tokenizer_family"] = family  # where its languages stand; an mBART-50 is no mBART
    return kind


def _architectures(folder: Path, model_type: str | None) -> tuple[str, str]:
    """The architecture of the model, and the one whose tokenizer it uses: often, but not always, one.

    A Chinese RoBERTa, say, goes with BERT's tokenizer: config.json (or the `model_type` argument)
    names the first, `tokenizer_class` in tokenizer_config.json or else in config.json the second, and
    each stands in for the other where that is missing.
    """
    stated = read_name(folder / "config.json", "model_type")
    if stated and model_type and stated != model_type:
        expected = f"{stated!r}, as in {folder / 'config.json'}"
        raise ArgumentValueError("model_type", model_type, expected, "leave it out, or correct the file")
    model = stated or model_type or ""
    name = read_name(folder / CONFIG, "tokenizer_class")
    if not name and model not in ("mt5", "umt5"):  # which name T5's there, but have other sentinels
        name = read_name(folder / "config.json", "tokenizer_class")
    if not model and not name:
        raise ValueError(
            f"{folder} does not say which architecture it is for: neither config.json (model_type) "
            "nor tokenizer_config.json (tokenizer_class) does. Pass the model type, one of "
            f"{', '.join(FAMILIES)}."
        )
    if not name or name in ANY_CLASS:
        return model, read_name(folder / CONFIG, "tokenizer_family") or model
    families = {family.tokenizer_class: key for key, family in FAMILIES.items()}
    family = families.get(name.removesuffix("Fast"), name)
    return model or family, family
