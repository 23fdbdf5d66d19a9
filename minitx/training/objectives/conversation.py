"""Conversations to ids and labels: a loss on the assistant's responses only.

A chat template marks the responses with `{% generation %}` ... `{% endgeneration %}`, or it is rendered twice
for each response, up to it and with it, and the difference is the response. The latter needs a template that
renders the beginning of a conversation as the beginning of its text; one that does not is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minitx.training.objectives.base import IGNORED
from minitx.training.objectives.causal import Document
from minitx.validation import ArgumentValueError, check_strings

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]
Characters = list[tuple[int, int]]  # start and end of each response in a text
_MARKED = "use a template with {% generation %} around the responses"


def response_characters(tokenizer: Tokenizer, messages: Messages, **options: Any) -> tuple[str, Characters]:
    """Renders a conversation and finds the assistant's responses in the text.

    Args:
        tokenizer: with a chat template.
        messages: dicts with "role" and "content".
        options: `tools`, `template` and `variables` of `Tokenizer.apply_chat_template`.

    Returns:
        The text, and start and end of each response in it.

    Raises:
        ImportError, TypeError, ValueError: as `apply_chat_template`; no response, or a template in which the
            responses cannot be found.
    """
    text, marked = tokenizer.chat.render_marked(messages, add_generation_prompt=False, **options)
    if marked:
        return text, marked
    responses: Characters = []
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        if index == 0:
            expected = "a conversation that does not begin with a response"
            raise ArgumentValueError("messages", messages, expected, _MARKED)
        before = tokenizer.chat.render(messages[:index], add_generation_prompt=True, **options)
        after = tokenizer.chat.render(messages[: index + 1], add_generation_prompt=False, **options)
        if not (after.startswith(before) and text.startswith(after)):
            expected = f"one whose text begins with that of the conversation up to messages[{index}]"
            raise ArgumentValueError("chat template", options.get("template"), expected, _MARKED)
        responses.append((len(before), len(after)))
    if not responses:
        raise ArgumentValueError("messages", messages, 'messages with one of role "assistant" to learn from')
    return text, responses


def encode_conversation(tokenizer: Tokenizer, messages: Messages, **options: Any) -> Document:
    """Tokenizes a conversation; its labels are the tokens of the responses.

    Args:
        tokenizer: with a chat template.
        messages: dicts with "role" and "content".
        options: as for `response_characters`.

    Raises:
        ImportError, TypeError, ValueError: as `response_characters`.
    """
    text, responses = response_characters(tokenizer, messages, **options)
    batch = tokenizer([text], add_special_tokens=False, return_offsets=True, as_tensors=False)
    ids, offsets = batch["input_ids"][0], batch.offsets[0]
    learned = [any(begin < end and last > start for start, end in responses) for begin, last in offsets]
    labels = [index if learn else IGNORED for index, learn in zip(ids, learned, strict=True)]
    return Document(ids, labels)


def encode_response(tokenizer: Tokenizer, prompt: str, response: str) -> Document:
    """Tokenizes a prompt and a response, texts without a chat template; the end token follows the response.

    Both are tokenized by themselves, as the prompt is when the model is used.

    Args:
        tokenizer: of the model.
        prompt: a text; without an end token after it.
        response: a text, whose tokens are the labels.

    Raises:
        ArgumentTypeError: something other than texts.
    """
    check_strings(prompt=prompt, response=response)
    end = tokenizer.eos_token_id
    first, ends = tokenizer.encode(prompt), [] if end is None else [end]
    first = first[:-1] if first[-1:] == ends and ends else first
    rest = [*tokenizer.encode(response, add_special_tokens=False), *ends]
    return Document([*first, *rest], [IGNORED] * len(first) + rest)
