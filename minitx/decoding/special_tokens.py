"""Token ids with a role in generation: end, start, begin and target-language tokens.

Each is looked up in generation_config.json, then config.json, then the tokenizer. `generation_config.py`
reads the sampling settings of the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from minitx.tokenizer import Tokenizer


def end_tokens(model: Any, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """Returns the end tokens: of generation_config.json, else of config.json, else of the tokenizer.

    A default of the architecture ranks with config.json.

    Raises:
        ValueError: a file holds something other than token ids.
    """
    for config in _configs(model):
        stated = config.get("eos_token_id")
        if stated is not None:
            return parse_end_tokens(stated) or ()
    default: int | None = model.config.eos_token_id
    if default is None and tokenizer is not None:
        default = tokenizer.eos_token_id
    return () if default is None else (default,)


def parse_end_tokens(stated: Any) -> tuple[int, ...] | None:
    """Returns the `eos_token_id` of a config as a tuple, without negative ids, which stand for none."""
    if stated is None:
        return None
    ids = stated if isinstance(stated, list) else [stated]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ValueError(f"eos_token_id={stated!r} of the checkpoint must be a token id or a list of them.")
    return tuple(token for token in ids if token >= 0)


def start_tokens(model: Any, tokenizer: Tokenizer | None) -> tuple[int | None, int | None]:
    """Returns the decoder start token of an encoder-decoder, and the target-language token that follows it.

    Where sequences begin with their language, that is the start token, and none follows. The start token is
    None if neither is known. The tokenizer's begin token is no substitute: where the language is the start,
    the model was not trained to continue it.
    """
    start: int | None = model.config.decoder_start_token_id
    names = ("decoder_start_token_id", "decoder_bos_token_id")
    stated = (config.get(name) for config in _configs(model) for name in names)
    start = next((token for token in stated if isinstance(token, int) and token >= 0), start)
    if tokenizer is None or tokenizer.tgt_lang is None:
        return start, None
    language = tokenizer.language_id(tokenizer.tgt_lang)
    if start is None or start in map(tokenizer.language_id, tokenizer.languages):
        return language, None
    return start, language


def begin_token(model: Any, tokenizer: Tokenizer | None) -> int | None:
    """Returns the token that sequences of a decoder begin with: of the tokenizer, else of config.json."""
    if tokenizer is not None and tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    checkpoint = getattr(model, "checkpoint", None)
    stated = None if checkpoint is None else checkpoint.config.get("bos_token_id")
    return stated if isinstance(stated, int) and stated >= 0 else None


def _configs(model: Any) -> Iterator[Mapping[str, Any]]:
    """The parsed generation_config.json and config.json of the model's checkpoint, if it has one."""
    checkpoint = getattr(model, "checkpoint", None)
    if checkpoint is not None:
        yield checkpoint.generation or {}
        yield checkpoint.config
