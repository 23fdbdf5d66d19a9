"""Conversations as inputs of text generation: their messages, and the prompt of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError

# Follows the last message while the template is rendered; templates that strip messages remove its space.
_MARK = "\ue000END-OF-THE-LAST-MESSAGE\ue000"


def is_chat(value: Any) -> bool:
    """Whether a value is a conversation: a list of messages."""
    listed = isinstance(value, list | tuple) and len(value) > 0
    return listed and all(isinstance(message, Mapping) and "role" in message for message in value)


def check_messages(messages: Sequence[Any], name: str) -> list[dict[str, Any]]:
    """Returns the messages of a conversation, else raises ArgumentTypeError."""
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ArgumentTypeError(f"{name}[{index}]", message, 'a dict with "role" and "content"')
    return [dict(message) for message in messages]


def check_no_chat(options: Any) -> None:
    """Checks that no option of conversations is stated for a text."""
    for name in ("continue_final_message", "tools", "documents", "template_variables"):
        value = getattr(options, name)
        if value not in (None, False):
            raise ArgumentValueError(
                name, value, "left out for texts", "a text is not put into the chat template"
            )


def chat_prompt(tokenizer: Tokenizer, messages: list[dict[str, Any]], options: Any) -> str:
    """Returns a conversation in the format of the model.

    Args:
        tokenizer: of the model.
        messages: of the conversation.
        options: of the call, `TextGenerationOptions`.
    """
    if options.prefix or not options.add_special_tokens:
        name = "prefix" if options.prefix else "add_special_tokens"
        hint = "the chat template gives the whole prompt"
        raise ArgumentValueError(name, getattr(options, name), "left out for conversations", hint)
    variables = dict(options.template_variables or {})
    if options.documents is not None:
        variables["documents"] = options.documents
    if continues(messages, options.continue_final_message):
        return continued_chat(tokenizer, messages, options.tools, variables)
    prompt: str = tokenizer.chat.render(messages, tools=options.tools, variables=variables)
    return prompt


def continues(messages: Sequence[Mapping[str, Any]], choice: bool | None) -> bool:
    """Returns whether the last message is continued; by default if it is the assistant's."""
    return messages[-1]["role"] == "assistant" if choice is None else choice


def extended(text: Any, answer: str, choice: bool | None) -> Any:
    """Returns a text, or a conversation, with the new text after it; `choice` as for `continues`."""
    if isinstance(text, str):
        return text + answer
    if continues(text, choice):
        return [*text[:-1], text[-1] | {"content": text[-1]["content"] + answer}]
    return [*text, {"role": "assistant", "content": answer}]


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
