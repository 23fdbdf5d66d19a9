"""The model, the prompts and the decoding arguments that the options of generate, explain and chat choose.

The library checks the values; here are the checks of options against one another, and of those before the
model is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

import minitx
from minitx.checkpoint.resolve import MissingTensorsError
from minitx.cli.decoding_options import CALLS, STOP, Values, is_used, shown
from minitx.cli.source import Source, read_texts
from minitx.decoding import Strategy
from minitx.decoding.generation_config import generation_settings, read_settings
from minitx.pipelines.generation.batches import remaining_tokens_of
from minitx.pipelines.generation.expressions import strategy_from_text
from minitx.pipelines.generation.strategies import NAMES, strategy_from_options
from minitx.tokenizer.vocabularies.declaration import MissingTokenizerError
from minitx.transaction import read_consistently

DEFAULT_LENGTH = 64  # new tokens, where neither an option nor the checkpoint has the number
Tokenizer = minitx.Tokenizer | None


@dataclass(frozen=True)
class Request:
    """A model, prompts and arguments of `generate` and `explain`.

    Attributes:
        prompts: as typed, texts or ids.
        inputs: texts or ids for the library.
        settings: keyword arguments of `generate` and `explain` alike.
        num_samples: rows per prompt.
    """

    model: Any
    prompts: list[Any]
    inputs: list[Any]
    strategy: Strategy
    settings: Values
    num_samples: int = 1


def request_of(source: Source, values: Values) -> Request:
    """Reads and checks all options, the cheap checks before the model is loaded.

    Raises:
        ValueError: options that contradict one another, or a model without a head for the next token.
    """
    prompts = typed_prompts(values)
    exclusive(values, "decoder_prompts", "decoder_ids")
    folder = source.folder()
    return read_consistently(folder, lambda: _read_request(source, folder, values, prompts))


def _read_request(source: Source, folder: Path, values: Values, prompts: list[Any]) -> Request:
    """Returns the request, with model, tokenizer and settings of one save."""
    tokenizer = optional_tokenizer(source, folder, required=not values["ids"])
    set_languages(tokenizer, values)
    head = head_of(source, folder)
    phrases = forced_phrases(tokenizer, values, head)
    strategy, settings, max_length = settings_of(values, folder, phrases, **source.hub)
    inputs = [message(tokenizer, text, values["system"]) for text in prompts] if values["chat"] else prompts
    model, starts = model_of(source, folder, head), list(values["decoder_prompts"] or values["decoder_ids"])
    if max_length is not None:
        settings["max_new_tokens"] = remaining_tokens_of(model, inputs, starts, tokenizer, max_length)
    if values["min_new_tokens"] is None:  # that of the checkpoint may be more than the maximum
        settings["min_new_tokens"] = min(settings["min_new_tokens"], settings["max_new_tokens"])
    settings |= {"tokenizer": tokenizer, "decoder_prompts": starts or None}
    settings |= {name: values[name] for name in CALLS if is_used(values, name)}
    stated = generation_settings(folder, **source.hub).num_samples if values["checkpoint"] else 1
    return Request(model, prompts, inputs, strategy, settings, values.get("num_samples") or stated)


def exclusive(values: Values, *names: str) -> None:
    """Checks that only one of these is used, else raises UsageError."""
    used = [shown(name) for name in names if is_used(values, name)]
    if len(used) > 1:
        raise click.UsageError(f"{used[0]} and {used[1]} exclude one another; leave one of them out")


def typed_prompts(values: Values) -> list[Any]:
    """Returns the texts, or the ids, of the prompts."""
    if values["system"] is not None and not values["chat"]:
        raise ValueError("--system goes with --chat.")
    for name in ("texts", "file", "chat"):
        if values["ids"] and is_used(values, name):
            other = "a text" if name == "texts" else shown(name)
            raise ValueError(f"--ids is the prompt; {other} cannot be combined with it.")
    return list(values["ids"]) or read_texts(values["texts"], values["file"])


def optional_tokenizer(source: Source, folder: Path, *, required: bool) -> Tokenizer:
    """Returns the tokenizer; where it is not required it may be missing, and texts are then shown as ids."""
    try:
        return source.tokenizer(folder)
    except ValueError as error:
        if required and not isinstance(error, MissingTokenizerError):
            raise
        if required:
            raise ValueError(f'{error} Prompts can also be token ids: --ids "1 2 3".') from None
        warnings.warn(f"{error} Texts are shown as ids.", stacklevel=2)
        return None


def set_languages(tokenizer: Tokenizer, values: Values) -> None:
    """Sets the tokenizer's languages; raises ValueError for text options where there is no tokenizer."""
    for name in ("stop", "stop_regex", "decoder_prompts", "force_text", "src_lang", "tgt_lang"):
        if tokenizer is None and is_used(values, name):
            raise ValueError(f"{shown(name)} is text, which needs a tokenizer; other options take ids.")
        try:
            if name.endswith("_lang") and is_used(values, name):
                setattr(tokenizer, name, values[name])
        except ValueError as error:
            raise error if hasattr(error, "parameter") else ValueError(f"{shown(name)}: {error}") from None


def forced_phrases(tokenizer: Tokenizer, values: Values, head: str) -> list[list[int]]:
    """Returns the ids of the texts of --force-text; raises ValueError for one with unknown tokens."""
    phrases = []
    for text in values.get("force_text") or ():
        assert tokenizer is not None  # `set_languages` has checked
        phrases.append(tokenizer.encode(text, add_special_tokens=False, as_target=head == "seq2seq-lm"))
        if not phrases[-1] or tokenizer.unk_token_id in phrases[-1]:
            raise ValueError(f"--force-text {text!r:.60}: the tokenizer has no tokens for it.")
    return phrases


def message(tokenizer: Any, text: str, system: str | None) -> list[int]:
    """Returns the token ids of a message to a chat model."""
    system_messages = [] if system is None else [{"role": "system", "content": system}]
    ids: list[int] = tokenizer.encode_chat([*system_messages, {"role": "user", "content": text}])
    return ids


def head_of(source: Source, folder: Path) -> str:
    """Returns the task of the head for the next token, with an encoder or without."""
    weights = getattr(source.architecture(folder), "head_weights", ())
    return next((task for task in ("causal-lm", "seq2seq-lm") if task in weights), "causal-lm")


def model_of(source: Source, folder: Path, head: str) -> Any:
    """Loads the model with its head for the next token; raises ValueError if it has none."""
    try:
        return source.model(folder, head)
    except ValueError as error:
        lacks = isinstance(error, MissingTensorsError)
        if not lacks and getattr(error, "parameter", "") != "head":
            raise
        reason = error if lacks else "models of its kind have no head for it; minitx embed may take it."
        raise ValueError(f"{source.name} cannot predict a next token: {reason}") from None


def settings_of(
    values: Values, folder: Path, phrases: Sequence[list[int]] = (), **hub: Any
) -> tuple[Strategy, Values, int | None]:
    """Returns the strategy and the other arguments: the checkpoint's if asked for, changed by the options.

    And its `max_length`, if nothing else limits the number of tokens.
    """
    exclusive(values, "greedy", "checkpoint")
    for name in NAMES - {"seed", "num_samples"} | {"checkpoint", "force_text"}:
        exclusive(values, "strategy", name)
    exclusive(values, "eos", "ignore_eos")
    base = generation_settings(folder, **hub) if values["checkpoint"] else read_settings({"do_sample": True})
    most, least = values["max_new_tokens"], values["min_new_tokens"]
    most = base.max_new_tokens if most is None else most
    ends = {field: values[name] for field, name in STOP.items() if is_used(values, name)}
    settings = {
        "max_new_tokens": DEFAULT_LENGTH if most is None else most,
        "min_new_tokens": base.min_new_tokens if least is None else least,
        "stop": replace(base.stop, **ends | ({"eos": ()} if values["ignore_eos"] else {})),
        "seed": values["seed"],
    }
    if base.guidance is not None:
        settings["guidance"] = base.guidance
    options = {name: value for name, value in values.items() if name in NAMES}
    if phrases:
        options["force_words_ids"] = [*(options["force_words_ids"] or ()), *phrases]
    start = base.strategy
    if is_used(values, "tgt_lang") and not is_used(values, "forced_bos_token_id"):
        start = replace(start, forced_bos_token_id=None)  # that of the checkpoint is of another language
    if values.get("strategy") is None:
        strategy = strategy_from_options(options, start if values["checkpoint"] else None)
    else:
        strategy = strategy_from_text(values["strategy"])
    return strategy, settings, base.max_length if most is None else None
