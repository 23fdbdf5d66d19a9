"""Cutting early: a text of which little is kept is not tokenized to its end.

Possible where no token reaches across a space, as with BERT's tokenizers. A text is then cut at a space
where its first tokens are sure to be the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# A text that is to be cut to some number of tokens is first tried as its first so many characters each.
_CHARACTERS = 20


def words_apart(backend: Backend) -> bool:
    """Whether this is a tokenizer that looks at no more than one word, and no word has a space in it."""
    return (
        type(backend.normalizer).__name__ == "BertNormalizer"
        and type(backend.pre_tokenizer).__name__ == "BertPreTokenizer"
        and type(backend.model).__name__ == "WordPiece"
        and not any(
            character.isspace()
            for token in backend.get_added_tokens_decoder().values()
            for character in token.content + backend.normalizer.normalize_str(token.content)
        )
    )


def starts(backend: Backend, texts: list[str], length: int) -> list[str]:
    """The texts, long ones cut where their first `length` tokens are sure to be the same.

    No word and no added token reaches across the space at which a text is cut, so that the tokens of the
    text begin with those of its start, if they are more than `length`: of the last one alone the offsets
    could differ, where an added token swallows the space behind it.
    """
    cut = {}
    for index, text in enumerate(texts):
        if len(text) > length * _CHARACTERS:
            cut[index] = text[: max(text.rfind(" ", 0, length * _CHARACTERS), 0)]
    if not cut:
        return texts
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch(list(cut.values()), add_special_tokens=False)
    enough = {
        index: start
        for (index, start), encoding in zip(cut.items(), encodings, strict=True)
        if len(encoding) > length
    }
    return [enough.get(index, text) for index, text in enumerate(texts)]
