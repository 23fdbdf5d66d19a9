"""The output of every model."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from minitx.layers.cache import Cache
from minitx.validation import values_unavailable

Attentions = tuple[Tensor | None, ...]  # per layer; None for a layer that was not asked for


class ModelOutput(NamedTuple):
    """Output of a forward, in Hugging Face's field names; fields that do not apply are None.

    Fields are reached by attribute, by name (`out["logits"]`) or by number.

    Attributes:
        last_hidden_state: (B, T, E)
        pooler_output: (B, E)
        logits: (B, T, V) masked-lm, causal-lm and seq2seq-lm; (B, C) sequence-classification and
            next-sentence; (B, T, C) token-classification; (B, choices) multiple-choice; (B, T)
            replaced-token-detection and table-question-answering.
        start_logits: (B, T) question-answering: first token of the answer.
        end_logits: (B, T) question-answering: last token of the answer.
        loss: scalar, with labels.
        cache: the one that was passed, with these tokens added.
        encoder_last_hidden_state: (B, S, E') of an encoder-decoder; None if only the cache has it.
        cross_attentions: per layer (B, H, T, S), attention of each token to each of the source.
        hidden_states: (B, T, E) before the first layer and after each, the last one after the final norm.
        attentions: per layer (B, H, T, S), before dropout.
        encoder_hidden_states: `hidden_states` of the encoder of an encoder-decoder.
        decoder_hidden_states: of its decoder.
        encoder_attentions: `attentions` of the encoder of an encoder-decoder.
        decoder_attentions: of its decoder.
        logits_aggregation: (B, C) table-question-answering: the operation on the selected cells.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    loss: Tensor | None = None
    cache: Cache | None = None
    encoder_last_hidden_state: Tensor | None = None
    cross_attentions: Attentions | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: Attentions | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: Attentions | None = None
    decoder_attentions: Attentions | None = None
    logits_aggregation: Tensor | None = None

    def __repr__(self) -> str:
        """Returns the fields that are not None, tensors by their shapes."""
        fields = {name: value for name, value in zip(self._fields, self, strict=True) if value is not None}
        room = max(map(len, fields))
        return "\n".join(["ModelOutput", *(f"  {n:<{room}}  {shape_of(v)}" for n, v in fields.items())])

    def __getitem__(self, key: Any) -> Any:
        """Returns a field by name, or by number as of a tuple.

        Raises:
            KeyError: no field of that name.
        """
        if not isinstance(key, str):
            return tuple.__getitem__(self, key)
        if key not in self._fields:
            raise KeyError(f"ModelOutput has no field {key!r}; it has {', '.join(self._fields)}.")
        return getattr(self, key)


def shape_of(value: Any) -> str:
    """Returns shape and dtype of a tensor as text, a scalar's number, or what a tuple holds of each layer."""
    if isinstance(value, tuple):
        tensors = [part for part in value if part is not None]
        shapes = [*dict.fromkeys(shape_of(part) for part in tensors)]
        return f"{len(tensors)} x {' and '.join(shapes)}"
    if not isinstance(value, Tensor):
        return repr(value)
    if value.dim() == 0 and not values_unavailable(value):
        return f"{value.item():.6g}"
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
