"""`OneToManyTask`: what the tasks share that compare a text with a list of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minitx.pipelines.text_task import TextOptionsT, TextTask
from minitx.validation import ArgumentValueError, check_choice


class OneToManyTask(TextTask[TextOptionsT]):
    """A task of two `fields`: a text, and a list of texts, the one of its `lists`."""

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """As `Task.arguments`; the text and the list may be two arguments."""
        if len(inputs) == 2 and not named:
            inputs, named = (), dict(zip(self.fields, inputs, strict=True))
        return super().arguments(inputs, named)

    def describe_inputs(self) -> str:
        """As `Task.describe_inputs`."""
        one, many = self.fields
        return f"a dict with {one!r}, a string, and {many!r}, a list of strings, or several"


def stated_prompt(prompt: str | None, name: str | None, prompts: Mapping[str, str | None]) -> str | None:
    """Returns the prefix of texts: a prompt, or that of a name among the checkpoint's; None without both.

    Raises:
        ArgumentValueError: a prompt that the checkpoint does not have.
    """
    if prompt is not None or name is None:
        return prompt
    if not prompts:
        hint = "the checkpoint has no prompts; prompt= states one"
        raise ArgumentValueError("prompt_name", name, "left out", hint)
    check_choice("prompt_name", name, prompts)
    return prompts[name]
