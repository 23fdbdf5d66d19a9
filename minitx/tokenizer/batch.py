"""What a tokenizer is given and what it hands back: rows of text, options, and the `Batch` of ids.

Everything that a person can get wrong is found here, before the text reaches `tokenizers`: that
package answers some of it with a panic and some with silence.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokenizers import Encoding

# English punctuation and contractions, and the spaces that decoding leaves before them.
_TIDY = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)

Side = Literal["left", "right"]
Padding = bool | Literal["longest", "max_length"]
Truncation = bool | Literal["longest_first", "only_first", "only_second"]


class Batch(Mapping[str, Any]):
    """Rows of ids, ready for `model(**batch)`: its keys are what the model takes, nothing more.

    Keys (each also an attribute), torch.long of shape (batch, time), or lists of lists when
    tensors were not asked for:
        input_ids: the tokens.
        attention_mask: 1 for a token, 0 for padding.
        token_type_ids: 0 for the first text, 1 for the second; only if the model takes it.

    Attributes that are no keys:
        word_ids: per row, the number of the word that each token comes from; None if special.
        sequence_ids: per row, 0 or 1 for the first or second text; None for a special token.
        offsets: per row, (start, end) in characters of the text (`return_offsets=True`).
        special_tokens_mask: as input_ids, 1 for a special token (`return_special_tokens_mask=True`).
        overflow_to_sample: the number of the text of each row (`return_overflow=True`).
    """

    def __init__(self, inputs: dict[str, Any], encodings: list[Encoding], extras: dict[str, Any]) -> None:
        self._inputs = inputs
        self._encodings = encodings
        self._extras = extras

    def __getitem__(self, key: str) -> Any:
        return self._inputs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying asks for private names before there is anything
            raise AttributeError(name)
        for values in (self._inputs, self._extras):
            if name in values:
                return values[name]
        raise AttributeError(
            f"This batch has no {name!r}; it has {', '.join([*self._inputs, *self._extras])}. Offsets, "
            "the special tokens mask and the overflow are there when asked for (return_...=True)."
        )

    def __repr__(self) -> str:
        return f"Batch({self._inputs!r})"

    @property
    def word_ids(self) -> list[list[int | None]]:
        """Per row, the number of the word that each token comes from; None for a special token."""
        return [encoding.word_ids for encoding in self._encodings]

    @property
    def sequence_ids(self) -> list[list[int | None]]:
        """Per row, 0 or 1 for the text that each token comes from; None for a special token."""
        return [encoding.sequence_ids for encoding in self._encodings]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device."""

        def moved(values: dict[str, Any]) -> dict[str, Any]:
            return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}

        return Batch(moved(self._inputs), self._encodings, moved(self._extras))


def to_rows(texts: Any, pairs: Any, *, is_split_into_words: bool) -> list[Any]:
    """The rows of a batch: texts, or tuples of two of them; a text is a str or a list of words.

    Raises:
        TypeError: something else than text, or pairs of another form than the texts.
        ValueError: another number of pairs than of texts, or text that is not valid Unicode.
    """
    firsts = _to_texts("texts", texts, is_split_into_words)
    if pairs is None:
        return firsts
    if isinstance(texts, str) != isinstance(pairs, str):
        raise TypeError("texts and pairs must both be one text, or both be lists of texts.")
    seconds = _to_texts("pairs", pairs, is_split_into_words)
    if len(firsts) != len(seconds):
        raise ValueError(f"There are {len(firsts)} texts and {len(seconds)} pairs; they go in twos.")
    return list(zip(firsts, seconds, strict=True))


def _to_texts(name: str, texts: Any, is_split_into_words: bool) -> list[Any]:
    """One text becomes a list of one; every text is checked."""
    if not isinstance(texts, list | tuple):
        texts = [texts]
        if is_split_into_words:
            raise TypeError(f"With is_split_into_words=True, {name} must be a list of words.")
    elif is_split_into_words and all(isinstance(word, str) for word in texts):
        texts = [texts]
    for row, text in enumerate(texts):
        if is_split_into_words and isinstance(text, list | tuple):
            for word in text:
                _check_text(f"a word of {name}[{row}]", word)
        else:
            _check_text(f"{name}[{row}]", None if is_split_into_words else text)
    return [text if isinstance(text, str) else list(text) for text in texts]


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r:.60} ({type(text).__name__}); a string was expected.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has a lone surrogate, {text[error.start]!a}, at character {error.start}: it is "
            "half of a character and no valid text. Decode its source again, or replace it with "
            "text.encode('utf-8', 'replace').decode()."
        ) from error


def truncation_options(
    truncation: Truncation,
    max_length: int | None,
    stride: int,
    *,
    limit: int | None,
    side: Side,
    pair: bool,
    special: int,
) -> dict[str, Any]:
    """The arguments of `tokenizers.Tokenizer.enable_truncation`; {} for no truncation.

    Args:
        truncation, max_length, stride: as the caller gave them.
        limit: the tokenizer's `model_max_length`.
        side: the end that is cut off.
        pair: whether rows are pairs.
        special: how many tokens of each row are special ones.
    """
    if truncation not in (False, True, "longest_first", "only_first", "only_second"):
        raise ValueError(
            f"truncation={truncation!r} must be False, True, 'longest_first', 'only_first' or 'only_second'."
        )
    _check_count("stride", stride, least=0)
    if truncation is False:
        if stride:
            raise ValueError(f"stride={stride} has no effect without truncation; pass it too.")
        return {}
    if truncation == "only_second" and not pair:
        raise ValueError("truncation='only_second' needs pairs=; only first texts were given.")
    length = _length("truncation", max_length, limit)
    # Below the number of special tokens the package would not cut at all.
    if length < special or stride >= max(length - special, 1):
        raise ValueError(
            f"max_length={length} and stride={stride} leave no room: {special} tokens of each row "
            "are special ones. Raise max_length or lower stride."
        )
    strategy = "longest_first" if truncation is True else truncation
    return {"max_length": length, "stride": stride, "strategy": strategy, "direction": side}


def padding_options(
    padding: Padding,
    max_length: int | None,
    multiple: int | None,
    *,
    limit: int | None,
    side: Side,
    cut: Mapping[str, Any],
    token: tuple[str | None, int | None],
) -> dict[str, Any]:
    """The arguments of `tokenizers.Tokenizer.enable_padding`; {} for no padding.

    Args:
        padding, max_length, multiple: as the caller gave them.
        limit: the tokenizer's `model_max_length`.
        side: the end that is filled up.
        cut: what `truncation_options` returned.
        token: the padding token and its id.
    """
    if padding not in (False, True, "longest", "max_length"):
        raise ValueError(f"padding={padding!r} must be False, True, 'longest' or 'max_length'.")
    if max_length is not None and not cut and padding != "max_length":
        raise ValueError(
            f"max_length={max_length} has no effect alone; pass truncation=True to cut to it, or "
            'padding="max_length" to fill up to it.'
        )
    if padding is False:
        if multiple is not None:
            raise ValueError(
                f"pad_to_multiple_of={multiple} has no effect without padding=True; pass it too."
            )
        return {}
    text, index = token
    if text is None or index is None:
        raise ValueError("This tokenizer has no pad_token to fill rows up with; pass one by one.")
    if multiple is not None:
        _check_count("pad_to_multiple_of", multiple, least=1)
        if cut and cut["max_length"] % multiple:
            raise ValueError(
                f"Rows are cut to max_length={cut['max_length']}, which is no multiple of "
                f"pad_to_multiple_of={multiple}; padding would make them longer again."
            )
    return {
        "length": _length("padding", max_length, limit) if padding == "max_length" else None,
        "direction": side,
        "pad_to_multiple_of": multiple,
        "pad_id": index,
        "pad_token": text,
        "pad_type_id": 0,
    }


def _length(purpose: str, max_length: int | None, limit: int | None) -> int:
    length = limit if max_length is None else max_length
    if length is None:
        raise ValueError(
            f"This {purpose} needs max_length=: the tokenizer's files state no model_max_length."
        )
    _check_count("max_length", length, least=1)
    return length


def _check_count(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")


def check_side(name: str, side: Any) -> Side:
    """Returns a side that is "left" or "right", and raises a ValueError for any other."""
    if side not in ("left", "right"):
        raise ValueError(f"{name}={side!r} must be 'left' or 'right'.")
    return "left" if side == "left" else "right"


def to_tensor(rows: list[list[int]]) -> Tensor:
    """Rows of one length as a tensor of shape (rows, length); (0, 0) for no rows.

    Raises:
        ValueError: rows of different lengths.
    """
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"The rows have from {lengths[0]} to {lengths[-1]} tokens and make no tensor; pass "
            "padding=True (with truncation=True, if it is to be max_length), or as_tensors=False."
        )
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), lengths[0] if lengths else 0)


def tidied(text: str) -> str:
    """Takes out the spaces that decoding leaves before English punctuation and contractions."""
    for spaced, mark in _TIDY:
        text = text.replace(spaced, mark)
    return text


def whole(index: Any) -> int:
    """An id as an int, if it is a whole number: of Python, of numpy, or a tensor without dimensions."""
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(f"{index!r:.60} ({type(index).__name__}) is no id; ids are whole numbers.") from None
