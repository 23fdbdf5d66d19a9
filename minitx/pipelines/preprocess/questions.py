"""Questions that share a sequence with a context."""

from __future__ import annotations

from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError


def shorten_question(tokenizer: Tokenizer, question: str, most: int | None) -> tuple[str, int]:
    """Returns the part of a question that has at most `most` tokens, and their number."""
    batch = tokenizer([question], add_special_tokens=False, as_tensors=False)
    (encoding,) = batch.encodings
    if most is None or len(encoding) <= most:
        return question, len(encoding)
    return question[: encoding.offsets[most - 1][1]], most


def check_context_room(question: str, limit: int, room: int, name: str, stated: int | None) -> None:
    """Checks that a question leaves room for its context.

    Args:
        question: of the request.
        limit: most tokens of question and context.
        room: number of those that are left for the context.
        name: of the option that states the limit.
        stated: its value.

    Raises:
        ArgumentValueError: it does not; of the option, if that is the limit.
    """
    if room >= 1:
        return
    if stated == limit:
        hint = "max_question_len= cuts off a long question"
        raise ArgumentValueError(name, stated, f"more than {limit - room} for this question", hint)
    expected = f"shorter; of {limit} tokens it leaves none for the context"
    raise ArgumentValueError("question", question, expected, "max_question_len=64 cuts it off")
