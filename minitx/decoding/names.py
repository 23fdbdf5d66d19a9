"""What is meant by an argument or a field that there is not."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# What other libraries call things, and how they are said here.
_ELSEWHERE: Mapping[str, str] = {
    "do_sample": "Sample(...) draws tokens, Greedy() takes the most probable ones.",
    "eos_token_id": "End tokens belong to stop=Stop(eos=...).",
    "generation_config": 'strategy="checkpoint" takes what generation_config.json says.',
    "input_ids": "Prompts, texts or ids, are the second argument.",
    "inputs": "Prompts, texts or ids, are the second argument.",
    "logits_processor": "Processors belong to the strategy: Sample(processors=[...]).",
    "max_length": "max_new_tokens=... counts the new tokens alone.",
    "max_tokens": "It is called max_new_tokens here.",
    "n": "It is called num_samples here.",
    "num_beams": "It belongs to the strategy: Beam(num_beams=...).",
    "num_return_sequences": "It is called num_samples here.",
    "output_scores": 'logprobs="raw" or "processed" asks for log-probabilities.',
    "pad_token_id": "Nothing is to be padded; prompts may differ in length.",
    "stop_strings": "Stop strings belong to stop=Stop(strings=...).",
    "stop_token_ids": "Stop tokens belong to stop=Stop(tokens=...).",
    "stopping_criteria": "stop=Stop(...) says what ends a row; stream(...) can be left at any token.",
    "streamer": "minitx.stream(...) gives the tokens as they come.",
}


def meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name: a sentence with a space before it, or nothing.

    Args:
        name: as it was given.
        known: the names that there are.
    """
    if name in _ELSEWHERE:
        return f" {_ELSEWHERE[name]}"
    similar = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def names_explained(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function say, of an argument that it does not have, what has its place."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        for name in given:
            if name not in known:
                from minitx.decoding.strategy import owner  # which asks this file about its own names

                strategy = owner(name)
                hint = f" It belongs to the strategy: {strategy}({name}=...)." if strategy else None
                raise TypeError(f"{function.__name__} has no argument {name!r}.{hint or meant(name, known)}")
        return function(*args, **given)

    return call
