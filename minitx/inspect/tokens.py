"""Names of tokens, as the vocabulary spells them or as they are read, and the ids of named ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type

Token = int | str
TokenNames = tuple[tuple[str, ...], ...]


def token_names(ids: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """Returns tokens as pictures show them: "·" for a space before a word, "#" and the id without a text.

    Special tokens and the parts of WordPiece are spelled as in the vocabulary.
    """
    return [token_name(id_, tokenizer) for id_ in ids]


def token_name(token: int, tokenizer: Tokenizer | None) -> str:
    """Returns one token, as `token_names` does."""
    spelled = None if tokenizer is None else tokenizer.id_to_token(token)
    if tokenizer is None or not spelled:
        return f"#{token}"
    if token in tokenizer.special_ids or spelled.startswith("##"):
        return spelled
    text = tokenizer.decode([token], skip_special_tokens=False)
    if "\ufffd" in text:
        return spelled if spelled.startswith("<0x") else f"#{token}"
    marked = spelled[0] in "\u0120\u2581"  # of byte-level BPE and of SentencePiece
    return f"·{text.lstrip(' ')}" if marked else text or spelled


def names_of_rows(ids: Tensor | None, tokenizer: Tokenizer | None, shape: tuple[int, int]) -> TokenNames:
    """Returns the names of tokens, row by row: of the vocabulary, or "#" and the id, or the position.

    Args:
        ids: (B, T), or None.
        tokenizer: None: no names.
        shape: (B, T).
    """
    if ids is None or tuple(ids.shape) != shape:
        return (tuple(map(str, range(shape[1]))),) * shape[0]
    return tuple(tuple(spelling(token, tokenizer) for token in row) for row in ids.tolist())


def spelling(token: int, tokenizer: Tokenizer | None) -> str:
    """Returns a token as the vocabulary spells it, or "#" and the id."""
    name = None if tokenizer is None else tokenizer.id_to_token(token)
    return f"#{token}" if name is None else name


def token_id(parameter: str, token: Token, tokenizer: Tokenizer | None, size: int) -> int:
    """Returns the id of a token.

    Args:
        parameter: name in messages.
        token: its id, its spelling in the vocabulary, or a text that is one token.
        tokenizer: for spellings and texts.
        size: of the vocabulary.

    Raises:
        ArgumentTypeError, ArgumentValueError: an id outside the vocabulary, a text of several tokens, a text
            without a tokenizer.
    """
    if not isinstance(token, str):
        return check_integer(parameter, token, 0, size - 1)
    if tokenizer is None:
        raise ArgumentValueError(parameter, token, "an id without a tokenizer", "pass tokenizer= for texts")
    index = tokenizer.token_to_id(token)
    if index is not None:
        return index
    ids: list[int] = tokenizer(token, add_special_tokens=False, as_tensors=False)["input_ids"][0]
    if len(ids) != 1:
        pieces = [spelling(index, tokenizer) for index in ids]
        raise ArgumentValueError(parameter, token, "one token of the vocabulary", f"it is {pieces}")
    return int(ids[0])


def token_ids_of_rows(
    parameter: str, tokens: Token | Sequence[Token], tokenizer: Tokenizer | None, size: int, rows: int
) -> Tensor:
    """Returns the id of a token for each row: (B,); one for all, or a list with one for each."""
    if isinstance(tokens, Tensor):
        tokens = tokens.tolist()
    if isinstance(tokens, str | int):
        tokens = [tokens]
    check_type(parameter, tokens, Sequence, "a token, or a list with one for each row")
    if len(tokens) not in (1, rows):
        raise ArgumentValueError(parameter, tokens, f"one token, or one for each of the {rows} rows")
    ids = [token_id(parameter, token, tokenizer, size) for token in tokens]
    return torch.tensor(ids * (rows if len(ids) == 1 else 1))
