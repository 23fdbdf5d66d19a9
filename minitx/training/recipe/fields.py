"""The fields of records that each objective reads, checked before a run; an error names file and line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from minitx.training.data.split import place
from minitx.training.objectives.batching import as_row
from minitx.training.objectives.preference import check_preference
from minitx.training.recipe.tables import check_keys
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_strings

Row = Mapping[str, Any]
_TEXT = (("text", "input_ids"),)
# Objective -> groups of fields, of each of which a record has exactly one.
FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "masked-lm": _TEXT,
    "causal-lm": _TEXT,
    "span-corruption": _TEXT,
    "denoising": _TEXT,
    "replaced-tokens": _TEXT,
    "seq2seq-lm": (*_TEXT, ("target", "labels")),
    "sequence-labels": (*_TEXT, ("label", "labels")),
    "token-labels": (("words", "input_ids"), ("label", "labels")),
    "answer-spans": (("question",), ("context",), ("answer", "answers")),
    "sentence-pairs": (("anchor",), ("positive",)),
    "instruct": (("messages", "prompt"), ("messages", "response")),
    "dpo": (("chosen",), ("rejected",)),
}
# Field, or objective -> further fields that a record may have.
_FURTHER = {
    "text": ("pair",),
    "input_ids": ("attention_mask", "token_type_ids", "document_ids"),
    "answer": ("start",),
    "messages": ("tools",),
    "sentence-pairs": ("negative",),
    "dpo": ("prompt", "reference_chosen", "reference_rejected"),
}


def check_columns(columns: Mapping[str, str], objective: str) -> None:
    """Checks that `data.columns` names fields of an objective alone, else raises ValueError."""
    names = [name for group in FIELDS[objective] for name in group]
    further = [name for key in (*names, objective) for name in _FURTHER.get(key, ())]
    check_keys(columns, dict.fromkeys([*names, *further]), "data.columns")


def check_records(rows: Sequence[Row], objective: str) -> None:
    """Checks that each record has the fields of an objective, with values of their types.

    Labels and answers are checked when they are converted.

    Args:
        rows: the records.
        objective: its name.

    Raises:
        ArgumentTypeError, ArgumentValueError: a field that is missing, of another type, or stated twice.
    """
    for index, row in enumerate(rows):
        where = place(rows, index)
        for group in FIELDS[objective]:
            _check_group(row, group, where, objective)
        if objective == "dpo":
            check_preference(row, partial("{}: {}".format, where))
            continue
        names = [name for group in FIELDS[objective] for name in group]
        for name in (*names, *_FURTHER.get(objective, ())):
            if name in row and name in _CHECKS:
                _CHECKS[name](f"{where}: {name}", row[name])
        if "text" in row and row.get("pair") is not None:
            _check_text(f"{where}: pair", row["pair"])


def _check_group(row: Row, group: Sequence[str], where: str, objective: str) -> None:
    """Checks that a record has exactly one of these fields."""
    stated = [name for name in group if name in row]
    if not stated:
        hint = f"data.columns = {{ {_columns(row, objective)} }} names the columns"
        expected = f"those of a record with {' or '.join(map(repr, group))}"
        raise ArgumentValueError(f"{where}: fields", list(row), expected, hint)
    if len(stated) > 1:
        hint = "data.columns = { field = column } chooses the fields"
        raise ArgumentValueError(f"{where}: fields", stated, "one of them, not both", hint)


def _columns(row: Row, objective: str) -> str:
    """Returns an example of `data.columns`: fields that a record lacks, and its columns of other names."""
    groups = FIELDS[objective]
    lacking = [group for group in groups if not any(name in row for name in group)]
    others = [name for name in row if not any(name in group for group in groups)]
    usual = 1 if objective == "instruct" and len(others) > 1 else 0  # a column each for prompt and response
    pairs = zip(dict.fromkeys(group[usual] for group in lacking), others, strict=False)
    return ", ".join(f"{field} = {json.dumps(name)}" for field, name in pairs) or "field = column"


def _check_text(name: str, value: Any) -> None:
    check_strings(**{name: value})


def _check_words(name: str, value: Any) -> None:
    """Checks words: a list of strings, or a string, in which spaces separate them."""
    is_list = isinstance(value, list) and all(isinstance(word, str) for word in value)
    if not is_list and not isinstance(value, str):
        raise ArgumentTypeError(name, value, "a list of words")


_TEXTS = ("text", "target", "question", "context", "anchor", "positive", "negative", "prompt", "response")
_CHECKS: dict[str, Callable[[str, Any], Any]] = dict.fromkeys(_TEXTS, _check_text)
_CHECKS |= {"input_ids": as_row, "words": _check_words}
