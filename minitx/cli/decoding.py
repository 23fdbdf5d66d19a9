"""What the options of generate, explain and chat ask for: a `Request`.

The library checks the values; here are the checks of options against one another, and of those before the
model is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click

import minitx
from minitx.cli.decoding_options import BELONGS_TO, CHOICES, KINDS, STOP, Values, given, shown
from minitx.cli.source import Source, read_texts
from minitx.decoding import Strategy
from minitx.decoding.arguments import TASKS, decoder_prompts_of, remaining_tokens
from minitx.decoding.generation_config import generation_settings, read_settings
from minitx.decoding.prompts import read_prompts
from minitx.decoding.search.base import Search
from minitx.decoding.special_tokens import begin_token

DEFAULT_LENGTH = 64  # new tokens, where neither an option nor the checkpoint has the number
Tokenizer = minitx.Tokenizer | None


@dataclass(frozen=True)
class Request:
    """A model, prompts and arguments of `generate` and `explain`.

    Attributes:
        prompts: as typed, texts or ids.
        ids: the token ids of each prompt.
        settings: keyword arguments of `generate` and `explain` alike.
    """

    model: Any
    prompts: list[Any]
    ids: list[list[int]]
    strategy: Strategy
    settings: Values


def request_of(source: Source, values: Values) -> Request:
    """Reads and checks all options, the cheap checks before the model is loaded.

    Raises:
        ValueError: options that contradict one another; a model without a head for the next token, or a
            prompt without tokens.
    """
    prompts = typed_prompts(values)
    folder = source.folder()
    tokenizer = optional_tokenizer(source, folder, required=not values["ids"])
    set_languages(tokenizer, values)
    head = head_of(source, folder)
    strategy, settings, max_length = settings_of(values, folder, forced_phrases(tokenizer, values, head))
    texts = [encoded(tokenizer, prompt, values) for prompt in prompts]
    model = model_of(source, folder, head)
    size, bos = model.config.text_inputs.vocab_size, begin_token(model, tokenizer)
    ids = read_prompts(texts, vocab_size=size, bos=bos, parameter="ids" if values["ids"] else "prompts")
    starts = decoder_starts(model, values, len(ids), tokenizer)
    if max_length is not None and starts is not None:
        settings["max_new_tokens"] = remaining_tokens(max_length, starts)
    if values["min_new_tokens"] is None:  # that of the checkpoint may be more than the maximum
        settings["min_new_tokens"] = min(settings["min_new_tokens"], settings["max_new_tokens"])
    settings |= {"tokenizer": tokenizer, "decoder_prompts": starts}
    return Request(model, prompts, ids, strategy, settings)


def exclusive(values: Values, *names: str) -> None:
    """Checks that only one of these is given, else raises UsageError."""
    used = [shown(name) for name in names if given(values, name)]
    if len(used) > 1:
        raise click.UsageError(f"{used[0]} and {used[1]} exclude one another; leave one of them out")


def typed_prompts(values: Values) -> list[Any]:
    """The texts, or the ids, of the prompts."""
    if values["system"] is not None and not values["chat"]:
        raise ValueError("--system goes with --chat.")
    for name in ("texts", "file", "chat"):
        if values["ids"] and given(values, name):
            other = "a text" if name == "texts" else shown(name)
            raise ValueError(f"--ids is the prompt; {other} cannot be combined with it.")
    return list(values["ids"]) or read_texts(values["texts"], values["file"])


def optional_tokenizer(source: Source, folder: Path, *, required: bool) -> Tokenizer:
    """The tokenizer; where it is not required it may be missing, and texts are then shown as ids."""
    try:
        return source.tokenizer(folder)
    except ValueError as error:
        if required and hasattr(error, "parameter"):
            raise
        if required:
            raise ValueError(f'{error} Prompts can also be token ids: --ids "1 2 3".') from None
        warnings.warn(f"{error} Texts are shown as ids.", stacklevel=2)
        return None


def set_languages(tokenizer: Tokenizer, values: Values) -> None:
    """Sets the tokenizer's languages; raises ValueError for text options where there is no tokenizer."""
    for name in ("stop", "decoder_prompts", "force_text", "src_lang", "tgt_lang"):
        if tokenizer is None and given(values, name):
            needs = f"{shown(name)} is text, which needs a tokenizer"
            raise ValueError(f"{needs}; there are options that take ids.")
        try:
            if name.endswith("_lang") and given(values, name):
                setattr(tokenizer, name, values[name])
        except ValueError as error:
            raise error if hasattr(error, "parameter") else ValueError(f"{shown(name)}: {error}") from None


def forced_phrases(tokenizer: Tokenizer, values: Values, head: str) -> list[list[int]]:
    """The ids of the texts that --force-text asks for; raises ValueError for one with unknown tokens."""
    phrases = []
    for text in values.get("force_text") or ():
        assert tokenizer is not None  # `set_languages` has checked
        phrases.append(tokenizer.encode(text, add_special_tokens=False, as_target=head == "seq2seq-lm"))
        if not phrases[-1] or tokenizer.unk_token_id in phrases[-1]:
            raise ValueError(f"--force-text {text!r:.60}: the tokenizer has no tokens for it.")
    return phrases


def encoded(tokenizer: Tokenizer, prompt: str | list[int], values: Values) -> list[int]:
    """The token ids of one prompt."""
    if isinstance(prompt, list):
        return prompt
    assert tokenizer is not None  # else there would be no text
    if not values["chat"]:
        return tokenizer.encode(prompt)
    system = [] if values["system"] is None else [{"role": "system", "content": values["system"]}]
    return tokenizer.encode_chat([*system, {"role": "user", "content": prompt}])


def head_of(source: Source, folder: Path) -> str:
    """The task of the head for the next token, with an encoder or without."""
    architecture = source.architecture(folder)
    weights = () if architecture is None else architecture.head_weights
    return next((task for task in TASKS if task in weights), TASKS[0])


def model_of(source: Source, folder: Path, head: str) -> Any:
    """Loads the model with its head for the next token; raises ValueError if it has none."""
    try:
        return source.model(folder, head)
    except ValueError as error:
        if head not in str(error) and "the checkpoint lacks" not in str(error):
            raise
        raise ValueError(f"{source.name} cannot predict a next token: {error}") from None


def decoder_starts(model: Any, values: Values, prompts: int, tokenizer: Tokenizer) -> list[list[int]] | None:
    """The ids that the decoder continues for each prompt; None for a model without an encoder."""
    exclusive(values, "decoder_prompts", "decoder_ids")
    starts = values["decoder_prompts"] or values["decoder_ids"]
    if model.task == "seq2seq-lm":
        return decoder_prompts_of(model, list(starts) or None, prompts, tokenizer)
    if starts:
        option = shown("decoder_prompts" if values["decoder_prompts"] else "decoder_ids")
        raise ValueError(f"{option} is for models with an encoder; this one continues the prompt itself.")
    return None


def settings_of(
    values: Values, folder: Path, phrases: Sequence[list[int]] = ()
) -> tuple[Strategy, Values, int | None]:
    """The strategy and the other arguments: the checkpoint's if asked for, changed by the options.

    And its `max_length`, if nothing else limits the number of tokens.
    """
    exclusive(values, "greedy", "checkpoint")
    exclusive(values, "eos", "ignore_eos")
    base = generation_settings(folder) if values["checkpoint"] else read_settings({"do_sample": True})
    most, least = values["max_new_tokens"], values["min_new_tokens"]
    most = base.max_new_tokens if most is None else most
    ends = {field: values[name] for field, name in STOP.items() if given(values, name)}
    settings = {
        "max_new_tokens": DEFAULT_LENGTH if most is None else most,
        "min_new_tokens": base.min_new_tokens if least is None else least,
        "stop": replace(base.stop, **ends | ({"eos": ()} if values["ignore_eos"] else {})),
        "seed": values["seed"],
    }
    return strategy_of(values, base.strategy, phrases), settings, base.max_length if most is None else None


def strategy_of(values: Values, base: Strategy, phrases: Sequence[list[int]]) -> Strategy:
    """The strategy that the options choose, else that of the checkpoint or `Sample`, with their values.

    Raises:
        ValueError: options that have no effect with it.
    """
    kind = kind_of(values, base)
    check_effect(values, kind, base)
    names = names_of(kind)
    chosen = {field.name: getattr(base, field.name) for field in fields(base) if field.name in names}
    chosen |= {name: values[name] for name in names if values.get(name) is not None}
    chosen |= {name: dict(chosen[name]) for name in ("logit_bias", "sequence_bias") if chosen[name]}
    if phrases:
        chosen["force_words_ids"] = [*chosen.get("force_words_ids", ()), *phrases]
    if values.get("tgt_lang") is not None and values["forced_bos_token_id"] is None:
        chosen["forced_bos_token_id"] = None  # that of the checkpoint is of another language
    return kind(**chosen)


def kind_of(values: Values, base: Strategy) -> type[Strategy]:
    """The class of the strategy; raises UsageError if the options choose two, or a search without --beams."""
    names = [name for name in CHOICES if given(values, name)]
    chosen = CHOICES[names[0]] if names else None
    others = [name for name in names if CHOICES[name] is not chosen]
    searches = values.get("num_beams") is not None
    if searches and chosen is not None and not issubclass(chosen, Search):
        others.append("num_beams")
    exclusive(values, *names[:1], *others)
    if chosen is None and searches:
        return minitx.BeamSample if values["checkpoint"] and isinstance(base, minitx.Sample) else minitx.Beam
    return chosen or type(base)


def check_effect(values: Values, kind: type[Strategy], base: Strategy) -> None:
    """Checks that every option has an effect with this strategy, else raises ValueError."""
    searches = issubclass(kind, Search) and (given(values, "num_beams") or isinstance(base, Search))
    of_search = names_of(*KINDS[1:]) - names_of(minitx.Sample) | {"show_tree"}
    of_search |= {name for name, each in CHOICES.items() if issubclass(each, Search)}
    idle = names_of(*KINDS) - names_of(kind) - CHOICES.keys()
    idle |= {"num_samples"} if kind is minitx.Greedy else set()
    idle |= set() if issubclass(kind, minitx.Sample) else {"seed"}
    ways = [name for name in CHOICES if CHOICES[name] is kind and given(values, name)]
    ways.append("num_beams" if searches else "checkpoint")
    for name in sorted(name for name in of_search | idle if given(values, name)):
        if name in of_search and not searches:
            raise ValueError(f"{shown(name)} is an option of searches; add --beams, such as --beams 4.")
        if name in idle and name in BELONGS_TO:
            raise ValueError(f"{shown(name)} has no effect without {shown(BELONGS_TO[name])}; add it.")
        if name in idle:
            raise ValueError(f"{shown(name)} has no effect with {shown(ways[0])}; leave one out.")


def names_of(*kinds: type[Strategy]) -> set[str]:
    """The names of the fields of strategies."""
    return {field.name for kind in kinds for field in fields(kind)}
