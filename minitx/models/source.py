"""Checks of the source of an encoder-decoder: ids, encoder output or cache, and masks and end tokens."""

from __future__ import annotations

from torch import Tensor

from minitx.layers.masks import as_bool, padding_mask
from minitx.models.inputs import Inputs
from minitx.validation import ArgumentValueError, check_tensor, values_unavailable


def check_one_source(source: Inputs, encoder_hidden_states: Tensor | None, cached: bool) -> None:
    """Checks that there is one source, and no other argument of an encoder that does not run.

    Args:
        source: inputs of the encoder.
        encoder_hidden_states: (B, S, E'), the encoder output, or None.
        cached: whether the cache has an encoder output.

    Raises:
        ArgumentValueError: an argument of the encoder without its ids.
        ValueError: no source, or more than one.
    """
    passed = {name: value for name, value in source._asdict().items() if value is not None}
    passed |= passed.pop("others")
    runs = bool(passed.keys() - {"attention_mask", "token_type_ids", "position_ids"})
    if runs + (encoder_hidden_states is not None) + cached != 1:
        raise ValueError(
            "pass exactly one source: input_ids, inputs_embeds, encoder_last_hidden_state, or a cache that "
            "was filled by model.encode_into."
        )
    if encoder_hidden_states is not None:
        passed.pop("attention_mask", None)
    if not runs and passed:
        name, value = next(iter(passed.items()))
        hint = "the decoder's arguments are decoder_attention_mask and decoder_position_ids"
        raise ArgumentValueError(name, value, "None when the source is encoded already", hint)


def source_mask(attention_mask: Tensor | None, encoder_hidden_states: Tensor) -> Tensor | None:
    """Returns the padding mask of the source in the shape that attention takes.

    Args:
        attention_mask: (B, S) or (B, S, S), of which the latter is refused; or None.
        encoder_hidden_states: (B, S, E')

    Returns:
        (B, 1, 1, S); None: attend to all.

    Raises:
        ArgumentValueError: another shape.
    """
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ArgumentValueError(
            "attention_mask",
            attention_mask,
            f"of shape (batch, time), not {tuple(attention_mask.shape)}",
            "the decoder attends to the whole source; model.encode alone takes a mask per query",
        )
    return padding_mask(as_bool(attention_mask, *encoder_hidden_states.shape[:2]))


def check_encoder_output(encoder_hidden_states: Tensor, size: int, rows: int) -> None:
    """Checks the encoder output.

    Args:
        encoder_hidden_states: (B, S, E')
        size: E', hidden size of the encoder.
        rows: B, number of rows of the target.

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: another width than the encoder's, or other rows than the target's.
    """
    name = "encoder_last_hidden_state"
    shape = tuple(check_tensor(name, encoder_hidden_states).shape)
    if len(shape) != 3 or shape[2] != size:
        expected = f"of shape (batch, time, {size}), not {shape}"
        raise ArgumentValueError(name, encoder_hidden_states, expected, "model.encode returns it")
    if shape[0] != rows:
        expected = f"of {rows} rows like decoder_input_ids, not {shape[0]}"
        raise ArgumentValueError(name, encoder_hidden_states, expected, "one source for each row")


def end_tokens(input_ids: Tensor | None, decoder_input_ids: Tensor | None, eos: int | None) -> Tensor:
    """Returns where the end tokens of the source are; the head pools the last one.

    Args:
        input_ids: (B, T) of the source.
        decoder_input_ids: (B, T)
        eos: the end token.

    Returns:
        (B, T) bool.

    Raises:
        ValueError: `input_ids` or `eos_token_id` is missing, or the shapes differ.
        ArgumentValueError: a row has no end token.
    """
    if (
        input_ids is None
        or decoder_input_ids is None
        or input_ids.shape != decoder_input_ids.shape
        or eos is None
    ):
        raise ValueError(
            "this head pools the decoder at the end of input_ids; pass input_ids, and decoder_input_ids "
            "of the same shape or none, and set eos_token_id in the config."
        )
    ends = input_ids == eos
    if not values_unavailable(ends) and not bool(ends.any(dim=1).all()):
        expected = f"rows that each have an end token ({eos})"
        raise ArgumentValueError("input_ids", input_ids, expected, "the head pools the decoder there")
    return ends
