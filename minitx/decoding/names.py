"""Suggestions for unknown names of arguments and of strategy fields."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Names in other libraries, and their counterparts here.
HABITS: Mapping[str, str] = {
    "do_sample": "Sample(...) draws tokens, Greedy() takes the most probable ones.",
    "eos_token_id": "End tokens belong to stop=Stop(eos=...).",
    "generation_config": 'strategy="checkpoint" uses generation_config.json.',
    "input_ids": "Prompts, texts or ids, are the second argument.",
    "inputs": "Prompts, texts or ids, are the second argument.",
    "logits_processor": "Processors belong to the strategy: Sample(processors=[...]).",
    "max_length": "max_new_tokens=... limits the new tokens alone.",
    "max_tokens": "It is called max_new_tokens here.",
    "n": "It is called num_samples here.",
    "num_return_sequences": "It is called num_samples here.",
    "output_scores": 'logprobs="raw" or "processed" asks for log-probabilities.',
    "pad_token_id": "No padding is needed; prompts may differ in length.",
    "stop_strings": "Stop strings belong to stop=Stop(strings=...).",
    "stop_token_ids": "Stop tokens belong to stop=Stop(tokens=...).",
    "stopping_criteria": "stop=Stop(...) ends a row; stream(...) can be left at any token.",
    "streamer": "minitx.stream(...) yields the tokens.",
}
# Arguments of `generate` that users expect to be fields of a strategy.
_OF_THE_CALL = frozenset(
    {
        "generator",
        "logprobs",
        "max_new_tokens",
        "min_new_tokens",
        "num_samples",
        "seed",
        "stop",
        "top_logprobs",
    }
)
# The strategy to suggest for each field of any strategy; `Strategy` registers its subclasses here.
_STRATEGY_OF: dict[str, str] = {}


def register(strategy: str, names: Iterable[str]) -> None:
    """Adds fields of a strategy to the suggestions; a field that is known already keeps its strategy."""
    for name in names:
        _STRATEGY_OF.setdefault(name, strategy)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns a sentence, after a space, about an unknown name; empty without a suggestion.

    Args:
        name: the unknown name.
        known: the names that exist.
    """
    if name in HABITS:
        return f" {HABITS[name]}"
    similar = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def field_suggestion(name: str, known: Iterable[str]) -> str:
    """`suggestion` for a name that is not a field of a strategy, whose fields are `known`."""
    if name in _OF_THE_CALL:
        return f" It is an argument of the call: generate(..., {name}=...)."
    return f" {_STRATEGY_OF[name]} has it." if name in _STRATEGY_OF else suggestion(name, known)


def argument_suggestion(name: str, known: Iterable[str]) -> str:
    """`suggestion` for a name that is not an argument of a function, whose arguments are `known`."""
    if name in _STRATEGY_OF:
        return f" It belongs to the strategy: {_STRATEGY_OF[name]}({name}=...)."
    return suggestion(name, known)


def names_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function so that its error for an unknown argument suggests another."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                raise TypeError(
                    f"{function.__name__} has no argument {name!r}.{argument_suggestion(name, known)}"
                )
        return function(*args, **options)

    return call
