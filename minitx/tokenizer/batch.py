"""Inputs and outputs of a tokenizer: rows of text, options, and the `Batch` of ids.

All arguments are checked here before they reach `tokenizers`, which panics on some mistakes and ignores
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
)

if TYPE_CHECKING:
    from tokenizers import Encoding

# English punctuation and contractions with the space that decoding leaves before them.
_CLEAN_UP = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)

Side = Literal["left", "right"]
Padding = bool | Literal["longest", "max_length"]
Truncation = bool | Literal["longest_first", "only_first", "only_second"]


class Batch(Mapping[str, Any]):
    """Rows of ids for `model(**batch)`: its keys are the inputs of the model.

    Keys (each also an attribute), torch.long of shape (B, T), or lists of lists with `as_tensors=False`:
        input_ids: token ids.
        attention_mask: 1 for a token, 0 for padding.
        token_type_ids: 0 for the first text, 1 for the second; only if the model uses it.

    Other attributes:
        word_ids: per row, the index of each token's word; None for a special token.
        sequence_ids: per row, 0 or 1 for the first or second text; None for a special token.
        offsets: per row, (start, end) in characters of the text (`return_offsets=True`).
        special_tokens_mask: like input_ids, 1 for a special token (`return_special_tokens_mask=True`).
        overflow_to_sample: the index of each row's text (`return_overflow=True`).
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
        if name.startswith("_"):  # copy asks for private names before __init__
            raise AttributeError(name)
        for values in (self._inputs, self._extras):
            if name in values:
                return values[name]
        raise AttributeError(
            f"This batch has no {name!r}; it has {', '.join([*self._inputs, *self._extras])}. Offsets, the "
            "special tokens mask and overflow are returned on request (return_...=True)."
        )

    def __repr__(self) -> str:
        return f"Batch({self._inputs!r})"

    @property
    def encodings(self) -> list[Encoding]:
        """Per row, the encoding of the `tokenizers` library, with tokens, offsets and words."""
        return self._encodings

    @property
    def word_ids(self) -> list[list[int | None]]:
        """Per row, the index of each token's word; None for a special token."""
        return [encoding.word_ids for encoding in self._encodings]

    @property
    def sequence_ids(self) -> list[list[int | None]]:
        """Per row, 0 or 1 for each token's text; None for a special token."""
        return [encoding.sequence_ids for encoding in self._encodings]

    def with_inputs(self, **inputs: Any) -> Batch:
        """Returns the batch with other or further inputs of the model."""
        return Batch(self._inputs | inputs, self._encodings, self._extras)

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with its tensors on a device."""

        def _moved(values: dict[str, Any]) -> dict[str, Any]:
            return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}

        return Batch(_moved(self._inputs), self._encodings, _moved(self._extras))


def to_rows(texts: Any, pairs: Any, *, is_split_into_words: bool) -> list[Any]:
    """Returns the rows of a batch: texts, or tuples of a text and its pair; a text is a str or list of words.

    Raises:
        TypeError: anything but text, or pairs in another form than the texts.
        ValueError: different numbers of texts and pairs, or text that is not valid Unicode.
    """
    check_flags(is_split_into_words=is_split_into_words)
    firsts = _to_texts("texts", texts, is_split_into_words)
    if pairs is None:
        return firsts
    if isinstance(texts, str) != isinstance(pairs, str):
        expected = "one text like texts" if isinstance(texts, str) else "a list of texts like texts"
        raise ArgumentTypeError("pairs", pairs, expected)
    seconds = _to_texts("pairs", pairs, is_split_into_words)
    if len(firsts) != len(seconds):
        raise ArgumentValueError("pairs", pairs, f"one per text, {len(firsts)} and not {len(seconds)}")
    return list(zip(firsts, seconds, strict=True))


def _to_texts(name: str, texts: Any, is_split_into_words: bool) -> list[Any]:
    """Returns a list of texts, a single text as a list of one; check each."""
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
        raise ArgumentTypeError(name, text, "a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has a lone surrogate, {text[error.start]!a}, at character {error.start}, which is half "
            "of a character. Decode the source again, or replace it with "
            "text.encode('utf-8', 'replace').decode()."
        ) from error


def check_tokens(tokens: Any) -> list[str]:
    """Returns new tokens as a list of texts; a single text as a list of one.

    Raises:
        TypeError: something other than texts.
        ValueError: an empty text, or one that is not valid Unicode.
    """
    if isinstance(tokens, str):
        tokens = [tokens]
    if not isinstance(tokens, list | tuple):
        raise ArgumentTypeError("tokens", tokens, "a list of strings")
    for index, token in enumerate(tokens):
        _check_text(f"tokens[{index}]", token)
        if not token:
            raise ArgumentValueError(f"tokens[{index}]", token, "a token with at least one character")
    return list(tokens)


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
    """Returns the arguments of `tokenizers.Tokenizer.enable_truncation`; {} for no truncation.

    Args:
        truncation, max_length, stride: arguments of the call.
        limit: the tokenizer's `model_max_length`.
        side: the side that is cut off.
        pair: rows are pairs.
        special: number of special tokens in each row.
    """
    check_choice("truncation", truncation, (False, True, "longest_first", "only_first", "only_second"))
    check_integer("stride", stride, 0)
    if truncation is False:
        if stride:
            raise ArgumentValueError("stride", stride, "0 without truncation", "pass truncation=True too")
        return {}
    if truncation == "only_second" and not pair:
        raise ArgumentValueError("truncation", truncation, "'only_first' without pairs", "or pass pairs=")
    length = _length("truncation", max_length, limit)
    # Below the number of special tokens, `tokenizers` would not truncate at all.
    if length < special or stride >= max(length - special, 1):
        hint = f"{special} tokens of each row are special, and stride={stride}"
        least = special + stride + 1 if stride else special
        raise ArgumentValueError("max_length", length, f"at least {least}", hint)
    strategy = "longest_first" if truncation is True else truncation
    return {"max_length": length, "stride": stride, "strategy": strategy, "direction": side}


def padding_options(
    padding: Padding,
    max_length: int | None,
    multiple: int | None,
    *,
    limit: int | None,
    side: Side,
    truncation: Mapping[str, Any],
    token: tuple[str | None, int | None],
) -> dict[str, Any]:
    """Returns the arguments of `tokenizers.Tokenizer.enable_padding`; {} for no padding.

    Args:
        padding, max_length, multiple: arguments of the call.
        limit: the tokenizer's `model_max_length`.
        side: the side that is padded.
        truncation: from `truncation_options`.
        token: the padding token and its id.
    """
    check_side("padding_side", side)
    check_choice("padding", padding, (False, True, "longest", "max_length"))
    if max_length is not None and not truncation and padding != "max_length":
        raise ArgumentValueError(
            "max_length",
            max_length,
            "None without truncation",
            'pass truncation=True to truncate, or padding="max_length" to pad to it',
        )
    if padding is False:
        if multiple is not None:
            raise ArgumentValueError(
                "pad_to_multiple_of", multiple, "None without padding", "pass padding=True too"
            )
        return {}
    text, index = token
    if text is None or index is None:
        raise ArgumentValueError(
            "padding", padding, "False", "this tokenizer has no pad_token; tokenize texts one by one"
        )
    if multiple is not None:
        check_integer("pad_to_multiple_of", multiple, 1)
        if truncation and truncation["max_length"] % multiple:
            raise ValueError(
                f"max_length={truncation['max_length']} is not a multiple of pad_to_multiple_of={multiple}; "
                "padding would make truncated rows longer again."
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
    """Returns `max_length` or the tokenizer's limit."""
    length = limit if max_length is None else max_length
    if length is None:
        hint = "the tokenizer's files have no model_max_length"
        raise ArgumentValueError("max_length", None, f"a number of tokens for {purpose}", hint)
    return check_integer("max_length", length, 1)


def check_side(name: str, side: Any) -> Side:
    """Returns "left" or "right".

    Raises:
        ArgumentValueError: any other value.
    """
    return "left" if check_choice(name, side, ("left", "right")) == "left" else "right"


def collect(
    encodings: list[Encoding],
    names: Sequence[str],
    to_vocabulary: Callable[[list[int]], list[int]],
    *,
    overflow: bool,
    offsets: bool,
    special_tokens_mask: bool,
    as_tensors: bool,
) -> Batch:
    """Collects encodings into a batch.

    Args:
        encodings: one per row.
        names: keys of the batch.
        to_vocabulary: maps the ids of an encoding to ids of the vocabulary.
        overflow: add truncated parts as further rows, and `overflow_to_sample`.
        offsets, special_tokens_mask: add these attributes.
        as_tensors: tensors instead of lists.
    """
    check_flags(return_offsets=offsets, return_special_tokens_mask=special_tokens_mask, as_tensors=as_tensors)
    extras: dict[str, Any] = {}
    if overflow:
        parts = [[encoding, *encoding.overflowing] for encoding in encodings]
        extras["overflow_to_sample"] = [index for index, part in enumerate(parts) for _ in part]
        encodings = [encoding for part in parts for encoding in part]
    columns: dict[str, Callable[[Encoding], list[int]]] = {
        "input_ids": lambda encoding: to_vocabulary(encoding.ids),
        "token_type_ids": lambda encoding: encoding.type_ids,
        "attention_mask": lambda encoding: encoding.attention_mask,
    }
    table = {name: [columns[name](encoding) for encoding in encodings] for name in names}
    if offsets:
        extras["offsets"] = [encoding.offsets for encoding in encodings]
    if special_tokens_mask:
        mask = [encoding.special_tokens_mask for encoding in encodings]
        extras["special_tokens_mask"] = to_tensor(mask) if as_tensors else mask
    inputs = {name: to_tensor(rows) for name, rows in table.items()} if as_tensors else table
    return Batch(inputs, encodings, extras)


def to_tensor(rows: list[list[int]]) -> Tensor:
    """Returns rows of one length as a tensor (B, T); (0, 0) for no rows.

    Raises:
        ValueError: rows of different lengths.
    """
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"The rows have from {lengths[0]} to {lengths[-1]} tokens, which is no tensor; pass padding=True "
            "(and truncation=True to limit their length), or as_tensors=False for lists."
        )
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), lengths[0] if lengths else 0)


def clean_up_tokenization(text: str) -> str:
    """Removes the spaces that decoding leaves before English punctuation and contractions."""
    for spaced, mark in _CLEAN_UP:
        text = text.replace(spaced, mark)
    return text


def as_id(parameter: str, index: Any) -> int:
    """Returns an id as an int, from an integer of Python or numpy or a tensor without dimensions.

    Raises:
        ArgumentTypeError: anything else.
    """
    if isinstance(index, Tensor) and index.dim() == 0:
        index = index.item()
    if isinstance(index, bool) or not isinstance(index, Integral):
        raise ArgumentTypeError(parameter, index, "an integer")
    return int(index)


def pad(rows: Sequence[Sequence[Any]], value: int) -> Tensor:
    """Pads rows of integers on the right with a value: B rows -> (B, T), or (B, T, N) of lists of N."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)


def collate(rows: Sequence[Mapping[str, Sequence[Any]]], **padding: int) -> dict[str, Tensor]:
    """Pads the entries of rows to one length, on the right, and adds `attention_mask`.

    Args:
        rows: at least one, with `input_ids`, and all with the same entries.
        **padding: value that pads an entry; 0 for the others.
    """
    full = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {name: pad([row[name] for row in full], padding.get(name, 0)) for name in full[0]}
