"""Activations of a corpus: one value of the model, text by text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.inspect.inputs import batches_of, ids_of, mask_of, prepare
from minitx.inspect.taps import record
from minitx.models import Model
from minitx.models.taps import match_places
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_choice, check_integer, check_strings

_POOL: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda value: value[-1:],
    "mean": lambda value: value.mean(dim=0, keepdim=True),
    "all": lambda value: value,
}


@dataclass(frozen=True, eq=False)
class TextActivations:
    """The activations of one text.

    Attributes:
        text: the text.
        ids: (T,), its tokens.
        values: (T, E), without padding.
    """

    text: str
    ids: Tensor
    values: Tensor


def collect_activations(
    model: Model,
    texts: Iterable[str],
    place: str,
    *,
    tokenizer: Tokenizer,
    pool: str = "last",
    batch_size: int = 16,
) -> Tensor:
    """Returns the activations of texts, for a probe or a steering vector.

    Args:
        model: the model.
        texts: any iterable of them.
        place: name of a value (B, T, E), such as "decoder.layers.3.residual.after".
        tokenizer: of the model.
        pool: "last": the last token of each text; "mean": the mean of its tokens; "all": all tokens.
        batch_size: texts in one forward.

    Returns:
        (N, E), one line for each text, or with "all" for each token.

    Raises:
        ArgumentTypeError, ArgumentValueError: no texts, a name that matches nothing or several values.

    Example:
        >>> place = "decoder.layers.3.residual.after"
        >>> joy = minitx.inspect.collect_activations(model, happy_texts, place, tokenizer=tokenizer)
    """
    check_choice("pool", pool, _POOL)
    rows = text_activations(model, texts, place, tokenizer, batch_size)
    values = [_POOL[pool](row.values) for row in rows]
    if not values:
        raise ArgumentValueError("texts", texts, "at least one text")
    return torch.cat(values)


def text_activations(
    model: Model, texts: Iterable[str], place: str, tokenizer: Tokenizer, batch_size: int
) -> Iterator[TextActivations]:
    """Yields the activations of each text; texts are read batch by batch.

    Raises:
        ArgumentTypeError, ArgumentValueError: as `collect_activations`.
    """
    check_integer("batch_size", batch_size, 1)
    check_strings(place=place)
    matched = match_places(model, place)
    if len(matched) > 1 or matched[0].is_per_head:
        expected = "the name of one value of shape (batch, time, features)"
        raise ArgumentValueError("place", place, expected, f"it matches {matched[0].name}")
    name, stack = matched[0].name, matched[0].stack or model.families[-1]
    if name.startswith("embedder"):
        stack = model.families[0]
    for batch in batches_of(texts, batch_size):
        padded = len(batch) > 1 and tokenizer.pad_token_id is not None
        for rows in [batch] if padded else [[text] for text in batch]:  # one by one without a padding token
            arguments = prepare(model, rows, tokenizer) if padded else prepare(model, rows[0], tokenizer)
            with record(model, name) as seen, torch.no_grad():
                model(**arguments)
            values, ids = seen.calls(name)[0], ids_of(model, arguments, stack)
            mask = mask_of(model, arguments, stack)
            if ids is None or values.shape[:2] != ids.shape:
                raise ArgumentValueError("place", place, f"a value of the shape of the tokens of the {stack}")
            for index, text in enumerate(rows):
                real = slice(None) if mask is None else mask[index]
                yield TextActivations(text, ids[index][real], values[index][real])
