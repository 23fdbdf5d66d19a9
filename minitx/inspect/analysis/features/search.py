"""Search of a corpus for the texts that activate a neuron, or a feature of an autoencoder, most."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from minitx.inspect.analysis.features.autoencoder import SparseAutoencoder
from minitx.inspect.analysis.features.collect import text_activations
from minitx.inspect.analysis.table import number
from minitx.inspect.tokens import names_of_rows
from minitx.models import Model
from minitx.pictures.text import fill, shorten_line
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type

_AROUND = 8  # tokens on each side of the largest value that `print` shows


@dataclass(frozen=True, eq=False, kw_only=True)
class ActivatingText:
    """A text and the activations of its tokens.

    Attributes:
        text: the text.
        tokens: names of its tokens.
        values: (T,), of the neuron.
    """

    text: str
    tokens: tuple[str, ...]
    values: Tensor

    @property
    def position(self) -> int:
        """The position of the largest value."""
        return int(self.values.argmax())

    @property
    def value(self) -> float:
        """The largest value."""
        return float(self.values.max())

    def __str__(self) -> str:
        place = self.position
        first, end = max(place - _AROUND, 0), place + _AROUND + 1
        words = [
            f"[{name} {number(float(value))}]" if index == place else name
            for index, (name, value) in enumerate(zip(self.tokens, self.values, strict=True))
        ]
        shown = " ".join(words[first:end])
        return f"{number(self.value):>8}  {'… ' * (first > 0)}{shown}{' …' * (end < len(words))}"


@dataclass(frozen=True, eq=False, kw_only=True)
class NeuronSearch:
    """The texts that activate a neuron most, the strongest first; `print` shows the tokens around the peak.

    Attributes:
        place: name of the value.
        neuron: number of the neuron or feature.
        texts: the texts.
        searched: number of texts in the corpus.
    """

    place: str
    neuron: int
    texts: tuple[ActivatingText, ...]
    searched: int

    def __str__(self) -> str:
        title = f"{self.place}, neuron {self.neuron}: {len(self.texts)} of {self.searched} texts"
        return "\n".join([shorten_line(title, 80), *(fill(str(text), 80) for text in self.texts)])


def neuron_search(
    model: Model,
    texts: Iterable[str],
    place: str,
    neuron: int,
    *,
    tokenizer: Tokenizer,
    k: int = 10,
    autoencoder: SparseAutoencoder | None = None,
    batch_size: int = 16,
) -> NeuronSearch:
    """Finds the texts of a corpus that activate a neuron most.

    Args:
        model: the model.
        texts: any iterable of them, such as an open file; only the best are kept.
        place: name of a value (B, T, F), such as "decoder.layers.3.intermediate" for the neurons of a
            network.
        neuron: its number; with an autoencoder that of a feature.
        tokenizer: of the model.
        k: number of texts.
        autoencoder: whose features of the value are searched; None: the value itself.
        batch_size: texts in one forward.

    Returns:
        The texts, with their tokens and values.

    Raises:
        ArgumentTypeError, ArgumentValueError: no texts, a name that matches nothing or several values, a
            neuron that does not exist.

    Example:
        >>> print(minitx.inspect.neuron_search(
        ...     model, open("corpus.txt"), "decoder.layers.3.intermediate", 17, tokenizer=tokenizer
        ... ))
    """
    k = check_integer("k", k, 1)
    check_integer("neuron", neuron)
    check_type("autoencoder", autoencoder, SparseAutoencoder | None, "a SparseAutoencoder or None")
    best: list[tuple[float, int, ActivatingText]] = []
    searched = 0
    for row in text_activations(model, texts, place, tokenizer, batch_size):
        values = row.values if autoencoder is None else autoencoder.encode(row.values)
        check_integer("neuron", neuron, 0, values.shape[-1] - 1)
        searched += 1
        if not len(values):
            continue
        one = values[:, neuron].clone()
        names = names_of_rows(row.ids[None], tokenizer, (1, len(one)))[0]
        entry = ActivatingText(text=row.text, tokens=names, values=one)
        heapq.heappush(best, (entry.value, -searched, entry))
        if len(best) > k:
            heapq.heappop(best)
    if not searched:
        raise ArgumentValueError("texts", texts, "at least one text")
    ordered = tuple(entry for _, _, entry in sorted(best, key=lambda item: item[:2], reverse=True))
    return NeuronSearch(place=place, neuron=neuron, texts=ordered, searched=searched)
