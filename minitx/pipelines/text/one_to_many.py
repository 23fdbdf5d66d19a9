"""`OneToManyTask`: what the tasks share that compare a text with a list of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minitx.pipelines.text_task import TextOptionsT, TextTask, check_list
from minitx.validation import ArgumentValueError, check_choice


class OneToManyTask(TextTask[TextOptionsT]):
    """A task of two `fields`: a text, and a list of texts."""

    def arguments(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """As `Task.arguments`; the text and the list may be two arguments."""
        if len(inputs) == 2 and not named:
            inputs, named = (), dict(zip(self.fields, inputs, strict=True))
        return super().arguments(inputs, named)

    def is_column(self, field: str, value: Any) -> bool:
        """As `Task.is_column`; the second field is a list already in one request."""
        if field == self.fields[1]:
            return isinstance(value, list | tuple) and any(isinstance(item, list | tuple) for item in value)
        return super().is_column(field, value)

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """As `TextTask.check_field`; the second field is a list."""
        is_list = field == self.fields[1]
        return check_list(field, value, name) if is_list else super().check_field(field, value, name)

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
