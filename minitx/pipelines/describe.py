"""Descriptions of tasks from their code: the lines of the docstrings of their options."""

from __future__ import annotations

import inspect
import re


def attributes_of(cls: type) -> dict[str, str]:
    """Returns the lines of the sections "Attributes" of a class and its bases, by name."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        lines = inspect.cleandoc(vars(base).get("__doc__") or "").partition("Attributes:\n")[2]
        for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", lines, re.MULTILINE):
            texts |= dict.fromkeys(names.split(", "), " ".join(text.split()).rstrip("."))
    return texts
