"""Configuration of a model: its inputs, stacks and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minitx.config.base import (
    Count,
    Finite,
    NonNegative,
    Probability,
    Size,
    ValidatedConfig,
)
from minitx.config.layer import ExpertsConfig, LayerConfig, NormConfig
from minitx.config.positions import (
    Alibi,
    AttentionPositions,
    Disentangled,
    EmbeddedPositions,
    LearnedPositions,
    Numbering,
    RelativeBias,
    Rotary,
)
from minitx.validation import ArgumentValueError, check_choice, check_integer

FULL, SLIDING = "full_attention", "sliding_attention"  # types of layers
# Where embeddings are projected to the width of the stack; "words": before positions are added
Projection = Literal["none", "words", "before_norm", "after_dropout"]


@dataclass(frozen=True, kw_only=True)
class StackConfig(ValidatedConfig):
    """A stack of layers of one kind.

    Attributes:
        hidden_size: E, width between the layers.
        num_hidden_layers: number of layers that run.
        layer: of every layer.
        causal: a token attends to itself and to earlier tokens only.
        positions: positions in the attention scores; None: none.
        layer_types: "full_attention" or "sliding_attention" per layer; None: all full.
        sliding_window: a sliding layer attends to keys less than this far away.
        expert_layers: whether each layer has the experts of `layer.feed_forward`, or its `dense` network;
            None: all.
        first_attention_norm: False: the first layer has no attention norm; the embedder's norm serves it.
        final_norm: whether a stack that does not end in a norm by its placement gets one.
        final_dropout: after the final norm; None: no dropout module.
        output_size: width to which the output is projected; None: no projection.
        num_hidden_groups: number of groups of layers that share parameters; None: no sharing.
        inner_group_num: layers per group.
    """

    hidden_size: Size
    num_hidden_layers: Size
    layer: LayerConfig
    causal: bool = False
    positions: AttentionPositions | None = None
    layer_types: tuple[str, ...] | None = None
    sliding_window: Size | None = None
    expert_layers: tuple[bool, ...] | None = None
    first_attention_norm: bool = True
    final_norm: bool = True
    final_dropout: Probability | None = None
    output_size: Size | None = None
    num_hidden_groups: Size | None = None
    inner_group_num: Size = 1

    def __post_init__(self) -> None:
        """Checks one entry per layer, a RoPE and a window per layer type, and a network per layer.

        Raises:
            ArgumentValueError: lists of other lengths, a layer type without RoPE or window,
                layers without experts whose config has no dense network, or more groups than layers.
        """
        super().__post_init__()
        self._check_lists()
        self._check_positions()
        self._check_windows()
        self._check_groups()

    def _check_lists(self) -> None:
        rotary = self.positions if isinstance(self.positions, Rotary) else None
        steps = self.num_hidden_layers * self.inner_group_num
        per_layer = {
            "layer_types": self.layer_types,
            "expert_layers": self.expert_layers,
            "positions.layers": rotary.layers if rotary else None,
        }
        for name, entries in per_layer.items():
            if entries is not None and len(entries) != steps:
                raise ArgumentValueError(
                    f"StackConfig.{name}", entries, f"one entry for each of {steps} layers"
                )
        for kind in self.layer_types or (FULL,):
            check_choice("StackConfig.layer_types", kind, (FULL, SLIDING))
            if rotary is not None and kind not in rotary.ropes:
                raise ArgumentValueError("StackConfig.positions", rotary, f"a Rotary with ropes[{kind!r}]")
        feed_forward = self.layer.feed_forward
        dense = feed_forward.dense if isinstance(feed_forward, ExpertsConfig) else None
        if self.expert_layers is not None and not all(self.expert_layers) and dense is None:
            raise ArgumentValueError(
                "StackConfig.expert_layers",
                self.expert_layers,
                "True for every layer",
                "or set layer.feed_forward=ExpertsConfig(dense=FeedForwardConfig(...)) for the others",
            )

    def _check_positions(self) -> None:
        positions, head_dim = self.positions, self.layer.attention.head_dim
        for rope in positions.ropes.values() if isinstance(positions, Rotary) else ():
            if rope.rotary_dim > head_dim or (rope.rotary_dim == head_dim and head_dim % 2):
                expected = f"at most head_dim={head_dim}, and even for a whole head"
                raise ArgumentValueError("RopeConfig.rotary_dim", rope.rotary_dim, expected)
        if isinstance(positions, Disentangled):
            self._check_disentangled(positions)

    def _check_disentangled(self, positions: Disentangled) -> None:
        if positions.conv_kernel_size and self.hidden_size % positions.conv_groups:
            expected = f"a divisor of hidden_size={self.hidden_size}"
            raise ArgumentValueError("Disentangled.conv_groups", positions.conv_groups, expected)
        unused = ("layer_types", "expert_layers", "final_dropout", "output_size", "num_hidden_groups")
        for name in ("causal", *unused):
            if value := getattr(self, name):
                expected = f"{False if name == 'causal' else None} with Disentangled positions"
                raise ArgumentValueError(f"StackConfig.{name}", value, expected)

    def _check_windows(self) -> None:
        if SLIDING not in (self.layer_types or ()):
            return
        if self.sliding_window is None:
            expected = "at least 1 with layers of sliding_attention"
            raise ArgumentValueError("StackConfig.sliding_window", self.sliding_window, expected)
        if isinstance(self.positions, Alibi | RelativeBias):
            expected = "a Rotary or None with layers of sliding_attention"
            raise ArgumentValueError("StackConfig.positions", self.positions, expected)

    def _check_groups(self) -> None:
        groups, most = self.num_hidden_groups, self.num_hidden_layers
        if groups is None:
            return
        check_integer("StackConfig.num_hidden_groups", groups, 1, most, "a layer has one group")
        if self.expert_layers is not None:
            expected = "None with num_hidden_groups"
            hint = "layers of a group share their parameters"
            raise ArgumentValueError("StackConfig.expert_layers", self.expert_layers, expected, hint)


@dataclass(frozen=True, kw_only=True)
class TextInputs(ValidatedConfig):
    """Token ids to vectors: sum of embeddings, norm, dropout, projection.

    Attributes:
        vocab_size: V, rows of the word embedding.
        embedding_size: width of the embeddings.
        hidden_size: width of the stack.
        pad_token_id: padding id; None: no padding id.
        padding_is_trained: whether the padding vector gets gradients.
        max_position_embeddings: rows of the position table; without one, the context length of the training.
        positions: positions added to the embeddings; None: none.
        type_vocab_size: number of token types; 0: no token type embedding. A tuple: of each of several kinds
            of token types; a token has one of each kind, and their embeddings are added.
        embedding_scale: multiplies the word embeddings; None: 1.
        scale_inputs_embeds: `inputs_embeds` are multiplied by it too, so they are vectors before the scaling.
        rounded_scale: round the scale to the weights' dtype first.
        norm: None: no norm.
        dropout: None: no dropout module.
        projection: where embeddings are projected to `hidden_size`: "none", "words" (before positions are
            added), "before_norm" or "after_dropout".
    """

    vocab_size: Size
    embedding_size: Size
    hidden_size: Size
    pad_token_id: Count | None
    padding_is_trained: bool = False
    max_position_embeddings: Size
    positions: EmbeddedPositions | None = None
    type_vocab_size: Count | tuple[Count, ...] = 0
    embedding_scale: Finite | None = None
    scale_inputs_embeds: bool = False
    rounded_scale: bool = False
    norm: NormConfig | None = None
    dropout: Probability | None = None
    projection: Projection = "none"

    def __post_init__(self) -> None:
        """Checks the padding id, the rows of the position table, and the width of the embeddings.

        Raises:
            ArgumentValueError: one that does not fit the other fields.
        """
        super().__post_init__()
        if self.pad_token_id is None and self.numbering == "padding":
            raise ArgumentValueError(
                "TextInputs.pad_token_id", None, "a token id", "positions are numbered from it"
            )
        if self.pad_token_id is not None:
            check_integer("TextInputs.pad_token_id", self.pad_token_id, 0, self.vocab_size - 1)
        if isinstance(self.positions, LearnedPositions):
            first = self.positions.offset
            if self.numbering == "padding" and self.pad_token_id is not None:
                first += self.pad_token_id + 1
            if self.max_position_embeddings <= first:
                expected = f"more than {first}, the row of the first position"
                raise ArgumentValueError(
                    "TextInputs.max_position_embeddings", self.max_position_embeddings, expected
                )
        if self.projection == "none" and self.embedding_size != self.hidden_size:
            expected = f"hidden_size={self.hidden_size} without a projection"
            raise ArgumentValueError("TextInputs.embedding_size", self.embedding_size, expected)
        self._check_types()

    def _check_types(self) -> None:
        sizes = self.type_vocab_size
        for index, size in enumerate(sizes if isinstance(sizes, tuple) else ()):
            check_integer(f"TextInputs.type_vocab_size[{index}]", size, 1)
        if self.numbering == "cell" and (not isinstance(sizes, tuple) or len(sizes) < 3):
            hint = "positions restart in each cell, whose column and row are the second and third kind"
            raise ArgumentValueError("TextInputs.type_vocab_size", sizes, "a tuple of three or more", hint)

    @property
    def numbering(self) -> Numbering:
        """Which tokens the positions count; "sequence" where none are added to the embeddings."""
        return "sequence" if self.positions is None else self.positions.numbering


@dataclass(frozen=True, kw_only=True)
class CustomInputs(ValidatedConfig):
    """Base of the inputs of an embedder for inputs other than text; see `minitx.models.inputs`.

    Attributes:
        hidden_size: width of the stack.
    """

    hidden_size: Size


Inputs = TextInputs | CustomInputs


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ValidatedConfig):
    """A model: inputs and stack of an encoder, of a decoder or of both, and the pooler.

    Attributes:
        inputs: of the encoder, or of a decoder without encoder.
        encoder: None: no encoder.
        decoder_inputs: of a decoder with encoder.
        decoder: None: no decoder.
        shared_embeddings: encoder and decoder share their word embedding.
        encoder_projection: project the encoder output to the decoder's hidden size.
        decoder_start_token_id: first decoder input; None: the last token of the labels.
        eos_token_id: its last occurrence is pooled by the classification head of an encoder-decoder.
        pooler: add a pooler: tanh of a projection of the first token.
        initializer_range: standard deviation of fresh weights, where the architecture has no rule of its own.
    """

    inputs: Inputs
    encoder: StackConfig | None = None
    decoder_inputs: Inputs | None = None
    decoder: StackConfig | None = None
    shared_embeddings: bool = True
    encoder_projection: bool = False
    decoder_start_token_id: Count | None = None
    eos_token_id: Count | None = None
    pooler: bool = False
    initializer_range: NonNegative = 0.02

    def __post_init__(self) -> None:
        """Checks that stacks and inputs fit each other, and that a decoder's inputs are text.

        Raises:
            ArgumentValueError: another width, other inputs, or a decoder that cannot attend to the encoder.
        """
        super().__post_init__()
        self._check_text()
        sides = {"encoder": "inputs", "decoder": "decoder_inputs" if self.decoder_inputs else "inputs"}
        for name, source in sides.items():
            stack, width = getattr(self, name), getattr(self, source).hidden_size
            if stack is not None and stack.hidden_size != width:
                raise ArgumentValueError(
                    f"ModelConfig.{name}.hidden_size",
                    stack.hidden_size,
                    f"{source}.hidden_size={width}",
                    f"replace both at once: dataclasses.replace(config, {source}=..., {name}=...)",
                )

        if self.encoder is not None and self.decoder is not None:
            self._check_cross_attention(self.encoder_size, self.decoder)

    def _check_cross_attention(self, encoder_size: int, decoder: StackConfig) -> None:
        if not decoder.layer.cross_attention:
            parameter = "ModelConfig.decoder.layer.cross_attention"
            raise ArgumentValueError(parameter, False, "True in a decoder with encoder")
        if encoder_size != decoder.hidden_size and not self.encoder_projection:
            expected = f"True for an encoder output of {encoder_size} and a decoder of {decoder.hidden_size}"
            raise ArgumentValueError("ModelConfig.encoder_projection", False, expected)

    def _check_text(self) -> None:
        if self.decoder is None:
            return
        name = "inputs" if self.decoder_inputs is None else "decoder_inputs"
        inputs = self.decoder_inputs or self.inputs
        if not isinstance(inputs, TextInputs):
            hint = "only an encoder has other inputs; set decoder_inputs=TextInputs(...) beside them"
            raise ArgumentValueError(f"ModelConfig.{name}", inputs, "a TextInputs for a decoder", hint)
        if self.shared_embeddings and not isinstance(self.inputs, TextInputs):
            hint = "inputs other than text have no word embedding"
            raise ArgumentValueError("ModelConfig.shared_embeddings", True, "False", hint)

    @property
    def text_inputs(self) -> TextInputs:
        """The inputs of a model of text.

        Raises:
            ArgumentValueError: inputs other than text, which have no token ids.
        """
        if not isinstance(self.inputs, TextInputs):
            hint = "this needs token ids; call the model itself with the inputs of its embedder"
            raise ArgumentValueError("ModelConfig.inputs", self.inputs, "a TextInputs", hint)
        return self.inputs

    @property
    def encoder_size(self) -> int:
        """Hidden size of the encoder output."""
        assert self.encoder is not None, "the model has an encoder"
        return self.encoder.output_size or self.encoder.hidden_size

    @property
    def stack(self) -> StackConfig:
        """The stack whose output the heads use: the decoder, or the encoder of a model without decoder."""
        stack = self.decoder or self.encoder
        assert stack is not None, "a model has an encoder or a decoder"
        return stack
