"""Flags of tokenizer_config.json that change the components of tokenizer.json.

transformers applies them where tokenizer_config.json names the class of an architecture, which it builds
anew; of a general class (`PreTrainedTokenizerFast`), tokenizer.json is used as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from minitx.tokenizer.files import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def apply_flags(backend: Backend, settings: Settings) -> Backend:
    """Applies the flags of tokenizer_config.json to tokenizer.json, as transformers does.

    Absent flags are ignored. (transformers applies their defaults, which lower-cases a cased tokenizer.json.)
    """
    from tokenizers import normalizers, pre_tokenizers, processors

    # The parts are copies: each is changed and assigned again.
    normalizer, pre_tokenizer, post_processor = (
        backend.normalizer,
        backend.pre_tokenizer,
        backend.post_processor,
    )
    if isinstance(normalizer, normalizers.BertNormalizer):
        normalizer.lowercase = settings.switch("do_lower_case", normalizer.lowercase)
        normalizer.strip_accents = settings.flag("strip_accents", normalizer.strip_accents)
        normalizer.handle_chinese_chars = settings.switch(
            "tokenize_chinese_chars", normalizer.handle_chinese_chars
        )
        backend.normalizer = normalizer
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel):
        prefix = settings.switch("add_prefix_space", pre_tokenizer.add_prefix_space)
        pre_tokenizer.add_prefix_space = prefix
        backend.pre_tokenizer = pre_tokenizer
        if isinstance(post_processor, processors.RobertaProcessing):
            post_processor.add_prefix_space = prefix
            backend.post_processor = post_processor
        return backend
    return _with_prefix(backend, settings)


def _with_prefix(backend: Backend, settings: Settings) -> Backend:
    """Returns a tokenizer that adds a space before a text of sentencepiece's pieces, or does not."""
    prefix = settings.flag("add_prefix_space", None)
    if prefix is None:
        return backend
    scheme = "first" if not prefix or settings.flag("legacy", False) is False else "always"
    content = json.loads(backend.to_str())
    normalizer = _parts(content["normalizer"], "normalizers")
    pre_tokenizer = _parts(content["pre_tokenizer"], "pretokenizers")
    decoder = _parts(content["decoder"], "decoders")
    metaspaces = [part for part in (*pre_tokenizer, *decoder) if part["type"] == "Metaspace"]
    prepends = [part for part in normalizer if part["type"] == "Prepend" and part["prepend"] == "▁"]
    has_prefix = bool(prepends) or any(part["prepend_scheme"] != "never" for part in metaspaces)
    if prefix == has_prefix or not (metaspaces or prepends):
        return backend
    splits = any(part["type"] == "WhitespaceSplit" for part in pre_tokenizer)
    for part in metaspaces:
        part["prepend_scheme"] = ("always" if splits else scheme) if prefix else "never"
    if prefix:
        decoder += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    else:
        normalizer = [part for part in normalizer if part not in prepends]
        decoder = [part for part in decoder if part["type"] != "Strip"]
    if splits and not prefix:
        # That split drops the spaces between words, which are then part of no piece, as in transformers 5.
        pre_tokenizer = [part for part in pre_tokenizer if part["type"] != "WhitespaceSplit"]
        normalizer += [
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
    content["normalizer"] = {"type": "Sequence", "normalizers": normalizer}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": pre_tokenizer}
    content["decoder"] = {"type": "Sequence", "decoders": decoder}
    return type(backend).from_str(json.dumps(content))


def _parts(component: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Returns the parts of a component, which may be a sequence."""
    if component is None:
        return []
    parts: list[dict[str, Any]] = component[name] if component["type"] == "Sequence" else [component]
    return parts
