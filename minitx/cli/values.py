"""What the texts of decoding options become: numbers, token ids, lists of them.

Nothing heavy is imported here, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number{_of_all(text)}") from None


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number{_of_all(text)}") from None


def _of_all(text: str) -> str:
    """What to say where there are several numbers in the place of one."""
    return "; give one, for all prompts" if "," in text.strip(",") else ""


def ids(text: str) -> list[int]:
    """Token ids: "1,2 3" -> [1, 2, 3]."""
    return [whole(part) for part in text.replace(",", " ").split()]


def sequences(text: str) -> list[tuple[int, ...]]:
    """Sequences of token ids, with commas between them: "1 2,3" -> [(1, 2), (3,)]."""
    encode = f"minitx.load_tokenizer(MODEL).encode({text!r:.40}, add_special_tokens=False)"
    return _sequences(text, f"give ids: {encode}")


def phrases(text: str) -> list[tuple[int, ...]]:
    """The same, of phrases for which there is an option that takes text."""
    return _sequences(text, "--force-words takes ids, --force-text text")


def _sequences(text: str, hint: str) -> list[tuple[int, ...]]:
    try:
        return [tuple(ids(part)) for part in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; {hint}") from None


def sequence_biases(text: str) -> list[tuple[tuple[int, ...], float]]:
    """What is added to the last token of sequences: "1 2=-5,3=1" -> [((1, 2), -5), ((3,), 1)]."""
    found = []
    for part in text.split(","):
        sequence, equals, bias = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form ID=BIAS, such as 464=-5")
        found.append((tuple(ids(sequence)), number(bias)))
    return found


def biases(text: str) -> list[tuple[int, float]]:
    """What is added to single logits: "1=-5,3=1" -> [(1, -5), (3, 1)]."""
    found = sequence_biases(text)
    if any(len(sequence) != 1 for sequence, _ in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ID=BIAS; sequences: --sequence-bias")
    return [(sequence[0], bias) for sequence, bias in found]


def start_and_factor(text: str) -> tuple[int, float]:
    start, comma, factor = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form START,FACTOR, such as 20,1.05")
    return whole(start), number(factor)


def switch(text: str) -> bool:
    """A flag that is on unless it is turned off."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def stopping(text: str) -> bool | str:
    """When a search stops: "true" -> True, "never" -> "never"."""
    return {"true": True, "false": False}.get(text.lower(), text)


# Those of which several can be given, one after the other.
LISTS: tuple[Callable[[str], Any], ...] = (ids, sequences, phrases, sequence_biases, biases)
