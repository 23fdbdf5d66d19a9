"""Prompts of conversations whose last message is continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError

# Follows the last message while the template is rendered; templates that strip messages remove its space.
_MARK = "\ue000END-OF-THE-LAST-MESSAGE\ue000"


def continues(messages: Sequence[Mapping[str, Any]], choice: bool | None) -> bool:
    """Returns whether the last message is continued; by default if it is the assistant's."""
    return messages[-1]["role"] == "assistant" if choice is None else choice


def continued_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
) -> str:
    """Returns the prompt of a conversation up to the end of its last message, which the model continues.

    Spaces at the end of the message stay if the template keeps them.

    Raises:
        ArgumentTypeError: a message that is not text.
        ValueError: as `ChatTemplates.render`, or a template that leaves out the end of the message.
    """
    last = messages[-1]
    if not isinstance(last["content"], str):
        raise ArgumentTypeError("content", last["content"], "a string, to be continued")
    marked = [*messages[:-1], {**last, "content": f"{last['content']}{_MARK} "}]
    prompt = tokenizer.chat.render(marked, add_generation_prompt=False, tools=tools, variables=variables)
    before, mark, after = prompt.rpartition(_MARK)
    if not mark:
        raise ValueError(
            "The chat template leaves out the end of the last message, so that it cannot be continued; "
            "pass continue_final_message=False."
        )
    return before if after.startswith(" ") else before.rstrip()
