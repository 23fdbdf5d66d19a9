"""Logits of the tokens of a sequence to `Token`s, with their places in the text of the request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor

from minitx.pipelines.postprocess.entities import Token, continues_word
from minitx.pipelines.text_task import TextInput
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import subword_prefix


def tokens_of(
    item: TextInput, logits: Tensor, text: str, words: Sequence[int], tokenizer: Tokenizer
) -> list[Token]:
    """Returns the tokens of a sequence without special tokens.

    Args:
        item: the sequence.
        logits: (T, C)
        text: of the request.
        words: start of each word in the text, if the request is a list of words.
        tokenizer: of the sequence.
    """
    assert item.encoding is not None
    specials = item.encoding.special_tokens_mask
    prefix, unknown = subword_prefix(tokenizer), tokenizer.unk_token_id
    scores, word_ids, tokens = logits.softmax(dim=-1).tolist(), item.encoding.word_ids, []
    for index, (special, (start, end)) in enumerate(zip(specials, item.offsets, strict=True)):
        if special:
            continue
        shift = words[word_ids[index] or 0] if words else 0
        start, end = start + shift, end + shift
        word = tokenizer.id_to_token(item.input_ids[index]) or ""
        known = item.input_ids[index] != unknown
        tokens.append(
            Token(
                word=word if known else text[start:end],
                scores=scores[index],
                start=start,
                end=end,
                index=index + (item.label or 0),
                continues=known and continues_word(word, start, end, text, prefix),
            )
        )
    return tokens


def join_words(text: str | Sequence[str], delimiter: str) -> tuple[str, list[int]]:
    """Returns the text of a request, and the start of each word if it is a list of words."""
    if isinstance(text, str):
        return text, []
    return delimiter.join(text), list(accumulate((len(w) + len(delimiter) for w in text[:-1]), initial=0))
