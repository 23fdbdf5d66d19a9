"""Candidate labels to hypotheses, for models of natural language inference."""

from __future__ import annotations

from typing import Any

from minitx.validation import ArgumentValueError, check_type


def hypothesis(template: str, label: str) -> str:
    """Returns the hypothesis of a label.

    Raises:
        ArgumentValueError: a template with other fields than {}.
    """
    try:
        return template.format(label)
    except (LookupError, AttributeError, ValueError):
        expected = "a sentence with one {} for the label"
        hint = "other braces are doubled: {{ and }}"
        raise ArgumentValueError("hypothesis_template", template, expected, hint) from None


def parse_labels(name: str, labels: Any) -> list[str]:
    """Returns the labels of a list, or of one string that separates them by commas; "a, b," has two.

    Raises:
        TypeError, ValueError: no labels, an empty or repeated one, or something else than strings.
    """
    value = labels
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    check_type(name, labels, list | tuple, "a list of labels, or a string, 'politics, sports'")
    for index, label in enumerate(labels):
        check_type(f"{name}[{index}]", label, str, "a string")
    if not labels or not all(labels) or len(set(labels)) < len(labels):
        raise ArgumentValueError(name, value, "at least one label, none empty and none twice")
    return list(labels)
