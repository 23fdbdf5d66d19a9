"""What is meant by an argument or a field that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

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
    "num_beams": "Each row is continued for itself, without a search.",
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
