"""Values of parameters from text, such as numbers, sizes and lists of token ids.

The message of a reader's ValueError has no full stop, so that it can follow the name of an option.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Reader = Callable[[str], Any]


def _converted(kind: Callable[[str], Any], description: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        hint = "; give one, for all prompts" if "," in text.strip(",") else ""
        raise ValueError(f"{text!r} is not {description}{hint}") from None


number = partial(_converted, float, "a number")  # "nan" and "inf" are numbers too
integer = partial(_converted, int, "an integer")


def filled(text: str) -> str:
    """Returns a text that is not empty."""
    if not text:
        raise ValueError("the value is empty; leave the option out")
    return text


def positive(text: str) -> int:
    """Returns an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not an integer of at least 1")
    return int(text)


def byte_size(text: str) -> int:
    """Returns a number of bytes: 500MB -> 500,000,000; decimal units, as Hugging Face uses them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)B?", text.strip().upper())
    size = int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " ")) if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is not a size such as 500MB or 5GB")
    return size


def ids(text: str) -> list[int]:
    """Returns token ids: "1,2 3" -> [1, 2, 3]."""
    return [integer(part) for part in filled(text.replace(",", " ").strip()).split()]


def integers(text: str) -> tuple[int, ...]:
    """Returns integers: "8,4" -> (8, 4)."""
    return tuple(ids(text))


def names(text: str) -> list[str]:
    """Returns names, as a row of CSV: "id,text" -> ["id", "text"]."""
    return [filled(name) for name in next(csv.reader([text], skipinitialspace=True), [""])]


def sequences(text: str) -> list[tuple[int, ...]]:
    """Returns sequences of token ids, separated by commas: "1 2,3" -> [(1, 2), (3,)]."""
    try:
        return [tuple(ids(part)) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{error}; minitx tokenize MODEL {text!r:.40} shows ids") from None


def sequence_biases(text: str) -> list[tuple[tuple[int, ...], float]]:
    """Returns biases of sequences: "1 2=-5,3=1" -> [((1, 2), -5), ((3,), 1)]."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{text!r} is not of the form ID=BIAS, such as 464=-5")
    return [(tuple(ids(sequence)), number(bias)) for sequence, _, bias in pairs]


def biases(text: str) -> list[tuple[int, float]]:
    """Returns biases of single tokens: "1=-5,3=1" -> [(1, -5), (3, 1)]."""
    pairs = sequence_biases(text)
    if any(len(sequence) != 1 for sequence, _ in pairs):
        raise ValueError(f"{text!r} is not of the form ID=BIAS; sequences: --sequence-bias")
    return [(sequence[0], bias) for sequence, bias in pairs]


def start_and_factor(text: str) -> tuple[int, float]:
    """Returns an integer and a number: "20,1.05" -> (20, 1.05)."""
    start, comma, factor = text.partition(",")
    if not comma:
        raise ValueError(f"{text!r} is not of the form START,FACTOR, such as 20,1.05")
    return integer(start), number(factor)


def numbers(text: str) -> tuple[float, ...]:
    """Returns a few numbers: "0.5,1.5" -> (0.5, 1.5)."""
    return tuple(number(part) for part in filled(text).split(","))


def json_text(text: str) -> str:
    """Returns JSON: the text itself if it is an object, else the content of the file of that name."""
    if filled(text).lstrip()[:1] == "{":
        return text
    try:
        return Path(text).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{text!r:.60} is neither a JSON object nor a file of text ({error})") from None


def switch(text: str) -> bool | str:
    """Reads true and false; other words stay: "true" -> True, "never" -> "never"."""
    return {"true": True, "false": False}.get(text.lower(), text)


# By the word for the value in the help.
READERS: dict[str, Reader] = {"COUNT": positive, "SIZE": byte_size, "START,FACTOR": start_and_factor}
READERS |= {"PATH": filled, "IDS": ids, "NAMES": names, "ID=BIAS": biases, "IDS=BIAS": sequence_biases}
READERS |= dict.fromkeys(("N", "K", "G", "ID"), integer) | dict.fromkeys(("X", "P", "ALPHA"), number)
READERS |= dict.fromkeys(("P,THRESHOLD", "LOW,HIGH", "T,THETA", "FACTOR,CURVE", "X,BASE,LENGTH,N"), numbers)
READERS |= dict.fromkeys(("TAU,ETA", "TAU,ETA,M", "TARGET,DECAY"), numbers)
READERS |= dict.fromkeys(("YES", "WHEN"), switch) | {"LENGTH,TIMES": integers}
# Those of lists, whose values are joined if an option is repeated.
LISTS = (biases, sequence_biases, sequences, ids, names)
