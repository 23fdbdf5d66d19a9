"""Truncation before tokenization, so that the rest of a long text is not tokenized in vain.

It requires that no token crosses a space, as in BERT's tokenizers: cut at a space, a text keeps its first
tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

# Characters per token of the part that is tokenized first.
_CHARACTERS = 20


def splits_at_spaces(backend: Backend) -> bool:
    """Whether each token is part of one word without spaces."""
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


def pretruncate(backend: Backend, texts: list[str], length: int) -> list[str]:
    """Shortens long texts at a space, keeping their first `length` tokens.

    No word or added token crosses the space, so that the tokens of the shortened text are the first of the
    whole text. It must have more than `length` of them: the offsets of its last token can differ if an added
    token includes the space after it.
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
