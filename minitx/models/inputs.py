"""Inputs of encoders and decoders: token ids or their embeddings, or those of another embedder.

The type of `ModelConfig.inputs` chooses the embedder (`register_inputs`). Text has token ids, token types and
positions; an embedder for anything else takes its inputs by name and returns one vector per position.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitx.config import CustomInputs, TextInputs
from minitx.habits import UnknownArgumentError, argument_hint
from minitx.layers.embedder import Embedder, text_embedder
from minitx.layers.masks import as_bool
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_shape,
    check_tensor,
    check_token_ids,
)

_EMBEDDERS: dict[type, Callable[[Any], nn.Module]] = {TextInputs: text_embedder}


def register_inputs(config: type[CustomInputs], embedder: Callable[[Any], nn.Module]) -> None:
    """Lets models embed inputs other than text.

    The forward of the model passes its inputs to the embedder, by name: arguments that it does not have
    itself, such as `pixel_values`, and those of text that the embedder takes, such as `position_ids`. Only
    `attention_mask` is not passed; it masks the vectors.

    Args:
        config: class of `ModelConfig.inputs`, a dataclass that extends `minitx.CustomInputs`.
        embedder: makes the embedder from such a config: a module whose forward takes tensors by name and
            returns vectors (B, T, E), positions included.

    Raises:
        ArgumentTypeError: not such a class, or not callable.

    Example:
        >>> minitx.register_inputs(PatchInputs, PatchEmbedder)
        >>> model = minitx.EncoderModel(ModelConfig(inputs=PatchInputs(hidden_size=24, ...), encoder=...))
        >>> model(pixel_values=images).last_hidden_state
    """
    if not (isinstance(config, type) and issubclass(config, CustomInputs)):
        raise ArgumentTypeError("config", config, "a subclass of minitx.CustomInputs")
    if not callable(embedder):
        raise ArgumentTypeError("embedder", embedder, "a class or function that makes an embedder")
    _EMBEDDERS[config] = partial(custom_embedder, embedder)


def make_embedder(config: Any) -> Any:
    """Returns the embedder of a `ModelConfig.inputs`.

    Raises:
        ArgumentTypeError: inputs of a class that is not registered.
    """
    if type(config) not in _EMBEDDERS:
        raise ArgumentTypeError("inputs", config, "of a registered class", "see minitx.register_inputs")
    return _EMBEDDERS[type(config)](config)


def custom_embedder(embedder: Callable[[Any], nn.Module], config: CustomInputs) -> nn.Module:
    """Returns the embedder that a registered function makes; its outputs are checked.

    Args:
        embedder: as for `register_inputs`.
        config: of the inputs.

    Raises:
        ArgumentTypeError: the function makes something other than a module.
    """
    module = embedder(config)
    if not isinstance(module, nn.Module):
        hint = f"minitx.register_inputs takes a class or function that makes one from {type(config).__name__}"
        raise ArgumentTypeError("embedder", module, "a module", hint)
    module.register_forward_hook(partial(check_vectors, config.hidden_size))
    return module


def check_vectors(hidden_size: int, embedder: nn.Module, inputs: Any, vectors: Any) -> None:
    """Checks the output of a custom embedder.

    Args:
        hidden_size: E.
        embedder: for its name in messages.
        inputs: of its forward.
        vectors: (B, T, E)

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: another shape.
    """
    name = f"the output of {type(embedder).__name__}"
    shape = tuple(check_tensor(name, vectors).shape)
    if len(shape) != 3 or shape[1] == 0 or shape[2] != hidden_size:
        raise ArgumentValueError(name, vectors, f"of shape (batch, time, {hidden_size}), not {shape}")


class Inputs(NamedTuple):
    """Inputs of one stack, as they were passed to a forward.

    Attributes:
        input_ids: (B, T).
        attention_mask: (B, T), or (B, T, T).
        token_type_ids: (B, T).
        position_ids: (1 or B, T).
        inputs_embeds: (B, T, W), instead of `input_ids`.
        others: inputs by name of an embedder for inputs other than text.
    """

    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    position_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    others: Mapping[str, Tensor] = {}

    @property
    def shape(self) -> torch.Size:
        """Shape of the tokens: (B, T), or (B, choices, T); () for inputs other than text."""
        ids, embeds = self.input_ids, self.inputs_embeds
        shape: torch.Size = getattr(ids if embeds is None else embeds, "shape", torch.Size())
        return shape if embeds is None else shape[:-1]

    def flatten_choices(self) -> Inputs:
        """Flattens the inputs of multiple choice: (B, choices, T) -> (B * choices, T).

        Raises:
            ArgumentValueError: tokens without a dimension of choices, or inputs of different shapes.
        """
        if len(self.shape) != 3:
            name = "input_ids" if self.inputs_embeds is None else "inputs_embeds"
            expected, hint = "of shape (batch, choices, time)", "input_ids[:, None] is one choice"
            raise ArgumentValueError(name, getattr(self, name), f"{expected} for this head", hint)
        flat: dict[str, Tensor | None] = {}
        for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids"):
            value = getattr(self, name)
            if value is not None:
                check_shape(name, value, tuple(self.shape))
            flat[name] = None if value is None else value.flatten(0, 1)
        embeds = self.inputs_embeds
        flat["inputs_embeds"] = None if embeds is None else embeds.flatten(0, 1)
        return Inputs(**flat, others=self.others)


class Embedded(NamedTuple):
    """Inputs of a stack.

    Attributes:
        hidden: (B, T, E).
        mask: (B, T) or (B, T, T) bool, True = attend; None: all.
        position_ids: (1 or B, T).
    """

    hidden: Tensor
    mask: Tensor | None
    position_ids: Tensor


def embed(embedder: nn.Module, inputs: Inputs) -> Embedded:
    """Embeds the inputs of an encoder.

    Raises:
        ArgumentTypeError, ArgumentValueError: inputs that do not fit the embedder.
        UnknownArgumentError: inputs that a text embedder does not have.
        ValueError: a sequence longer than the table of positions.
    """
    if inputs.others or not isinstance(embedder, Embedder):
        return embed_others(embedder, inputs)
    ids = token_ids(embedder, inputs)
    embedder.check_ids(ids, inputs.token_type_ids)
    position_ids = embedder.positions(ids, inputs.position_ids)
    mask = as_bool(inputs.attention_mask, *ids.shape)
    hidden = embedder(ids, inputs.token_type_ids, position_ids, inputs.inputs_embeds)
    return Embedded(hidden, mask, position_ids)


def embed_others(embedder: nn.Module, inputs: Inputs) -> Embedded:
    """Embeds inputs other than text; positions in attention scores are those of the vectors.

    Raises:
        ArgumentTypeError, ArgumentValueError: missing inputs, or a mask that does not fit them.
        UnknownArgumentError: the embedder has no such inputs.
    """
    check_others(embedder, inputs.others)
    named = {**inputs._asdict(), **inputs.others}
    named = {name: value for name, value in named.items() if value is not None}
    named.pop("others")
    mask = named.pop("attention_mask", None)
    check_names(embedder, named)
    hidden = embedder(**named)
    position_ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
    return Embedded(hidden, as_bool(mask, *hidden.shape[:2]), position_ids)


def check_names(embedder: nn.Module, named: Mapping[str, Any]) -> None:
    """Checks that the forward of a custom embedder takes these inputs, and no others.

    Raises:
        ArgumentTypeError: an input is missing.
        UnknownArgumentError: an input that the embedder does not have.
    """
    signature = inspect.signature(embedder.forward)
    try:
        signature.bind(**named)
    except TypeError:
        kind, known = type(embedder).__name__, list(signature.parameters)
        if unknown := [name for name in named if name not in known]:
            hint = f"{kind} takes {', '.join(known)}."
            raise UnknownArgumentError("forward", unknown[0], hint) from None
        missing = next(name for name in known if name not in named)
        raise ArgumentTypeError(missing, None, "a tensor", f"{kind} needs it") from None


def check_others(embedder: nn.Module, others: Mapping[str, Tensor]) -> None:
    """Checks that a text embedder has no inputs by other names.

    Raises:
        UnknownArgumentError: an input that a text embedder does not take.
    """
    known = (*Inputs._fields[:-1], "labels", "cache", "output_hidden_states", "output_attentions")
    for name in others if isinstance(embedder, Embedder) else ():
        raise UnknownArgumentError("forward", name, argument_hint("forward", name, known))


def token_ids(embedder: Embedder, inputs: Inputs) -> Tensor:
    """Returns the token ids, or placeholder ids that are not padding if `inputs_embeds` were passed.

    Args:
        embedder: for its width and padding id.
        inputs: with ids or embeddings.

    Returns:
        (B, T)

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: both or neither, or another shape.
    """
    ids = inputs.input_ids if inputs.inputs_embeds is None else placeholder_ids(embedder, inputs)
    return check_token_ids(f"{embedder.prefix}input_ids", ids)


def placeholder_ids(embedder: Embedder, inputs: Inputs) -> Tensor:
    """Returns ids in the place of embeddings, to number positions by; the arguments are those of `token_ids`.

    Returns:
        (B, T)

    Raises:
        ArgumentTypeError: not a tensor.
        ArgumentValueError: ids beside them, or another shape.
    """
    name, embeds = f"{embedder.prefix}inputs_embeds", inputs.inputs_embeds
    shape, width = tuple(check_tensor(name, embeds).shape), embedder.config.embedding_size
    if inputs.input_ids is not None:
        raise ArgumentValueError(name, embeds, f"None beside {embedder.prefix}input_ids", "pass one of them")
    if len(shape) != 3 or shape[1] == 0 or shape[2] != width:
        expected = f"a tensor of shape (batch, time, {width}) with at least one token per row, not {shape}"
        raise ArgumentValueError(name, embeds, expected)
    if not check_tensor(name, embeds).is_floating_point():
        raise ArgumentTypeError(name, embeds, "a tensor of floating point", "pass token ids as input_ids")
    real = 0 if embedder.config.pad_token_id != 0 else 1
    return torch.full(shape[:2], real, dtype=torch.long, device=check_tensor(name, embeds).device)
