"""Configuration of a model: frozen dataclasses, nested as the modules are, with Hugging Face's field names.

An architecture file reads a `config.json` into these; the layers are built from them alone. A choice between
alternatives (positions, feed-forward) is a union of small dataclasses, each with the fields of its kind only.
To try another arrangement, replace fields: `replace_in(config, "decoder.layer.attention", qk_norm="head")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from minitx.validation import ArgumentValueError, check_choice

Pooling = Literal["none", "first", "first_attended", "last", "mean", "pooler"]
# Where embeddings are projected to the width of the stack; "words": before positions are added
Projection = Literal["none", "words", "before_norm", "after_dropout"]
NormKind = Literal["layer_norm", "rms_norm"]
NormPlacement = Literal["post", "pre", "sandwich", "branch"]  # diagrams in layers/layer.py
QKNorm = Literal["none", "head", "width"]
# Both branches start from the input of the layer, through one shared norm or one norm each
Parallel = Literal["none", "one_norm", "two_norms"]
# Positions count all tokens, or tokens other than padding ids, or attended tokens
Numbering = Literal["sequence", "padding", "mask"]
Sinusoids = Literal["tensor2tensor", "fairseq"]
RopeType = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]


class ValidatedConfig:
    """Base of all configs: refuses values outside of a field's literals and parts of another type."""

    def __post_init__(self) -> None:
        """Check every field whose type hint is a bool, a Literal or a config.

        Raises:
            ArgumentValueError: a value that the type hint of its field excludes.
        """
        kind: Any = type(self)
        for name, choices in allowed_values(kind).items():
            check_choice(f"{kind.__name__}.{name}", getattr(self, name), choices)
        for name, parts in allowed_parts(kind).items():
            if not isinstance(getattr(self, name), parts):
                known = " or ".join("None" if part is type(None) else f"a {part.__name__}" for part in parts)
                raise ArgumentValueError(f"{kind.__name__}.{name}", getattr(self, name), known)


@cache
def allowed_values(kind: type[ValidatedConfig]) -> dict[str, tuple[str | bool, ...]]:
    """Returns the values of each field of a config that has a closed set of them."""
    hints = get_type_hints(kind)
    flags = {name: (True, False) for name, hint in hints.items() if hint is bool}
    return flags | {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


@cache
def allowed_parts(kind: type[ValidatedConfig]) -> dict[str, tuple[type, ...]]:
    """Returns the classes of each field of a config that is a config itself, or one of several."""
    parts: dict[str, tuple[type, ...]] = {}
    for name, hint in get_type_hints(kind).items():
        classes = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if any(isinstance(part, type) and issubclass(part, ValidatedConfig) for part in classes):
            parts[name] = classes
    return parts


# --- positions -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LearnedPositions(ValidatedConfig):
    """A trained table of position embeddings, added to the word embeddings.

    Attributes:
        numbering: which tokens are counted. "sequence": all, from 0. "padding": ids other than pad_token_id,
            from pad_token_id + 1. "mask": attended tokens, from 0.
        offset: row of the table that holds position 0.
    """

    numbering: Numbering = "sequence"
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class SinusoidalPositions(ValidatedConfig):
    """Fixed sinusoidal position encodings, added to the word embeddings (arXiv:1706.03762, section 3.5).

    Attributes:
        kind: "tensor2tensor" or "fairseq"; the two space their wavelengths differently.
        numbering: as for `LearnedPositions`; with "padding", padding gets a zero vector.
    """

    kind: Sinusoids
    numbering: Numbering = "sequence"


@dataclass(frozen=True, kw_only=True)
class RopeConfig(ValidatedConfig):
    """RoPE of one layer type; the equations are in layers/rotary.py.

    Attributes:
        rope_theta: base of the frequencies.
        rotary_dim: number of leading features of each head that are rotated.
        rope_type: how the frequencies are stretched for longer contexts.
        interleaved: pairs are neighbours (0, 1), (2, 3), ... instead of (d, d + rotary_dim / 2).
        factor: extension of the context.
        attention_factor: multiplies cos and sin.
        original_max_position_embeddings: context length of the pre-training.
        low_freq_factor: llama3.
        high_freq_factor: llama3.
        beta_fast: yarn.
        beta_slow: yarn.
        truncate: yarn: round the ends of the ramp to whole features.
        short_factor: longrope, one divisor per pair.
        long_factor: longrope, for sequences beyond the original context.
    """

    rope_theta: float
    rotary_dim: int
    rope_type: RopeType = "default"
    interleaved: bool = False
    factor: float = 1.0
    attention_factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rotary(ValidatedConfig):
    """Rotary position embeddings of queries and keys (arXiv:2104.09864).

    Attributes:
        ropes: the RoPE of each layer type.
        layers: whether each layer uses RoPE; None: all do.
    """

    ropes: Mapping[str, RopeConfig]
    layers: tuple[bool, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RelativeBias(ValidatedConfig):
    """A learned attention bias per head and distance bucket (arXiv:1910.10683, section 2.1).

    Attributes:
        num_buckets: number of distance buckets.
        max_distance: distance from which all keys share the last bucket.
        per_layer: one table per layer instead of one for all layers.
    """

    num_buckets: int
    max_distance: int = 128
    per_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class Alibi(ValidatedConfig):
    """Attention biases that fall linearly with the distance (arXiv:2108.12409)."""


@dataclass(frozen=True, kw_only=True)
class Disentangled(ValidatedConfig):
    """Disentangled attention to content and relative positions (arXiv:2006.03654).

    Attributes:
        relative_attention: False: no position-dependent scores.
        max_relative_positions: largest embedded distance, or the one at which the buckets end.
        position_buckets: number of logarithmic buckets per direction; 0: one embedding per distance.
        pos_att_type: which scores are added: "c2p", "p2c" or both.
        share_att_key: project positions with the Q and K of the content.
        dropout: of the position embeddings and of the convolution.
        norm_rel_ebd: normalise the position embeddings.
        conv_kernel_size: kernel of the convolution beside the first layer; 0: no convolution.
        conv_groups: groups of the convolution.
        conv_act: activation of the convolution.
    """

    relative_attention: bool
    max_relative_positions: int
    position_buckets: int
    pos_att_type: frozenset[str]
    share_att_key: bool
    dropout: float
    norm_rel_ebd: bool
    conv_kernel_size: int
    conv_groups: int
    conv_act: str

    @property
    def span(self) -> int:
        """Embedded distances run from -span to span - 1."""
        return self.position_buckets or self.max_relative_positions


EmbeddedPositions = LearnedPositions | SinusoidalPositions  # added to the word embeddings
AttentionPositions = Rotary | RelativeBias | Alibi | Disentangled  # part of the attention scores
Positions = EmbeddedPositions | AttentionPositions

# --- parts of a layer ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NormConfig(ValidatedConfig):
    """A normalisation layer.

    Attributes:
        kind: "layer_norm" (arXiv:1607.06450) or "rms_norm" (arXiv:1910.07467).
        eps: added to the variance.
        bias: whether a LayerNorm has a bias.
        offset: added to the weight of an RMSNorm.
    """

    kind: NormKind = "layer_norm"
    eps: float
    bias: bool = True
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(ValidatedConfig):
    """Multi-head attention and its output projection.

    Attributes:
        num_attention_heads: H, number of query heads.
        num_key_value_heads: K, number of key/value heads, which must divide H; None: H.
        head_dim: D, features per head.
        bias: of the Q, K and V projections.
        output_bias: of the output projection.
        scale: multiplies the scores; None: head_dim ** -0.5.
        scale_by_layer: divide the scale by the layer's number, from 1.
        softcap: caps scores by softcap * tanh(scores / softcap); None: no cap.
        sinks: a learned score per head that joins the softmax and has no value.
        qk_norm: norm of queries and keys: "head" (each head by itself) or "width" (all heads together).
        dropout: of the attention weights.
        output_dropout: of the output projection; None: no dropout module.
    """

    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int
    bias: bool = True
    output_bias: bool = True
    scale: float | None = None
    scale_by_layer: bool = False
    softcap: float | None = None
    sinks: bool = False
    qk_norm: QKNorm = "none"
    dropout: float = 0.0
    output_dropout: float | None = None

    def __post_init__(self) -> None:
        """Check that the key/value heads divide the query heads."""
        super().__post_init__()
        if self.num_attention_heads % self.key_value_heads:
            raise ArgumentValueError(
                "AttentionConfig.num_key_value_heads",
                self.num_key_value_heads,
                f"a divisor of num_attention_heads={self.num_attention_heads}",
            )

    @property
    def key_value_heads(self) -> int:
        """K, the number of key/value heads."""
        return self.num_attention_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def width(self) -> int:
        """H * D, the width of all query heads."""
        return self.num_attention_heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig(ValidatedConfig):
    """A feed-forward network: output(act(dense(x))), or output(act(gate(x)) * dense(x)) if gated.

    Attributes:
        intermediate_size: F, the inner width.
        hidden_act: name of the activation; layers/activation.py has them all.
        gated: whether it has a gate.
        bias: of the projections.
        dropout: after the activation; None: no dropout module.
        output_dropout: after the output projection; None: no dropout module.
    """

    intermediate_size: int
    hidden_act: str
    gated: bool = False
    bias: bool = True
    dropout: float | None = None
    output_dropout: float | None = None


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig(ValidatedConfig):
    """A mixture of gated feed-forward networks, of which each token uses a few.

    Attributes:
        num_experts: number of experts.
        num_experts_per_tok: number of experts per token.
        intermediate_size: inner width of one expert.
        hidden_act: activation of the gate, unless `swiglu_limit` is set.
        norm_topk_prob: normalise the weights of the chosen experts to a sum of 1.
        router_bias: of the router's projection.
        bias: of the experts' projections.
        swiglu_limit: use a SwiGLU clamped to this limit; None: act(gate) * dense.
        swiglu_alpha: steepness of its sigmoid.
        output_dropout: after the experts; None: no dropout module.
        dense: feed-forward of the layers without experts (`StackConfig.expert_layers`).
    """

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    hidden_act: str = "silu"
    norm_topk_prob: bool = True
    router_bias: bool = False
    bias: bool = False
    swiglu_limit: float | None = None
    swiglu_alpha: float = 1.702
    output_dropout: float | None = None
    dense: FeedForwardConfig | None = None

    def __post_init__(self) -> None:
        """Check that a token does not use more experts than there are."""
        super().__post_init__()
        if self.num_experts_per_tok > self.num_experts:
            raise ArgumentValueError(
                "ExpertsConfig.num_experts_per_tok",
                self.num_experts_per_tok,
                f"at most num_experts={self.num_experts}",
            )


@dataclass(frozen=True, kw_only=True)
class LayerConfig(ValidatedConfig):
    """One transformer layer: attention, then feed-forward, each with a residual connection.

    Attributes:
        attention: of the self-attention, and of the cross-attention.
        feed_forward: one network, or a mixture of experts.
        norm: of all norms of the stack.
        norm_placement: "post", "pre", "sandwich" or "branch"; diagrams in layers/layer.py.
        residual_after_norm: take the residual after the norm instead of before it.
        parallel: attention and feed-forward both start from the layer's input, through "one_norm" or
            "two_norms".
        cross_attention: add cross-attention to the encoder output.
    """

    attention: AttentionConfig
    feed_forward: FeedForwardConfig | ExpertsConfig
    norm: NormConfig
    norm_placement: NormPlacement = "post"
    residual_after_norm: bool = False
    parallel: Parallel = "none"
    cross_attention: bool = False


# --- stack, inputs, heads, model -------------------------------------------------------------------


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

    hidden_size: int
    num_hidden_layers: int
    layer: LayerConfig
    causal: bool = False
    positions: AttentionPositions | None = None
    layer_types: tuple[str, ...] | None = None
    sliding_window: int | None = None
    expert_layers: tuple[bool, ...] | None = None
    first_attention_norm: bool = True
    final_norm: bool = True
    final_dropout: float | None = None
    output_size: int | None = None
    num_hidden_groups: int | None = None
    inner_group_num: int = 1

    def __post_init__(self) -> None:
        """Check that a stack with and without experts has a dense network for the latter."""
        super().__post_init__()
        feed_forward = self.layer.feed_forward
        dense = feed_forward.dense if isinstance(feed_forward, ExpertsConfig) else None
        if self.expert_layers is not None and not all(self.expert_layers) and dense is None:
            raise ArgumentValueError(
                "StackConfig.expert_layers",
                self.expert_layers,
                "True for every layer",
                "or set layer.feed_forward=ExpertsConfig(dense=FeedForwardConfig(...)) for the others",
            )


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
        type_vocab_size: number of token types; 0: no token type embedding.
        embedding_scale: multiplies the word embeddings; None: 1.
        rounded_scale: round the scale to the weights' dtype first.
        norm: None: no norm.
        dropout: None: no dropout module.
        projection: where embeddings are projected to `hidden_size`: "none", "words" (before positions are
            added), "before_norm" or "after_dropout".
    """

    vocab_size: int
    embedding_size: int
    hidden_size: int
    pad_token_id: int | None
    padding_is_trained: bool = False
    max_position_embeddings: int
    positions: EmbeddedPositions | None = None
    type_vocab_size: int = 0
    embedding_scale: float | None = None
    rounded_scale: bool = False
    norm: NormConfig | None = None
    dropout: float | None = None
    projection: Projection = "none"

    def __post_init__(self) -> None:
        """Check that positions counted from the padding id have one."""
        super().__post_init__()
        if self.pad_token_id is None and self.numbering == "padding":
            raise ArgumentValueError(
                "TextInputs.pad_token_id", None, "a token id", "positions are numbered from it"
            )

    @property
    def numbering(self) -> Numbering:
        """Which tokens the positions count; "sequence" where none are added to the embeddings."""
        return "sequence" if self.positions is None else self.positions.numbering


Inputs = TextInputs


@dataclass(frozen=True, kw_only=True)
class TransformConfig(ValidatedConfig):
    """The hidden layer of a task head: norm(act(dense(x))).

    Attributes:
        size: output width.
        hidden_act: name of the activation.
        bias: of the projection.
        norm: None: no norm.
    """

    size: int
    hidden_act: str
    bias: bool = True
    norm: NormConfig | None = None


@dataclass(frozen=True, kw_only=True)
class HeadConfig(ValidatedConfig):
    """A task head: optional pooling and transform, then one projection.

    Attributes:
        task: "masked-lm", "sequence-classification", ....
        num_labels: output width: number of labels or V; 1 for multiple choice.
        pooling: input of the head: every token ("none"), or "first", "first_attended", "last", "mean",
            "pooler".
        input_dropout: before the transform; None: no dropout module.
        transform: None: no transform.
        classifier_dropout: before the projection; None: no dropout module.
        bias: of the projection.
        tied: share the projection's weight with the word embedding.
        scale: multiplies the hidden states before the projection; None: 1.
        softcap: caps logits by softcap * tanh(logits / softcap); None: no cap.
        soft_labels: labels per class are probabilities, and negative labels are ignored.
        problem_type: loss of sequence classification; None: inferred from the labels.
    """

    task: str
    num_labels: int
    pooling: Pooling = "none"
    input_dropout: float | None = None
    transform: TransformConfig | None = None
    classifier_dropout: float | None = None
    bias: bool = True
    tied: bool = False
    scale: float | None = None
    softcap: float | None = None
    soft_labels: bool = False
    problem_type: str | None = None


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
        initializer_range: standard deviation of fresh weights.
    """

    inputs: Inputs
    encoder: StackConfig | None = None
    decoder_inputs: Inputs | None = None
    decoder: StackConfig | None = None
    shared_embeddings: bool = True
    encoder_projection: bool = False
    decoder_start_token_id: int | None = None
    eos_token_id: int | None = None
    pooler: bool = False
    initializer_range: float = 0.02

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


# --- replacing nested fields -----------------------------------------------------------------------

Config = TypeVar("Config", bound=ValidatedConfig)


def replace_in(config: Config, path: str, **changes: Any) -> Config:
    """Returns a copy of a config with fields of a nested part replaced.

        replace_in(config, "decoder.layer.attention", qk_norm="head")

    Args:
        config: any config.
        path: field names from `config` to the part, joined by dots; "" for the config itself.
        changes: fields of the part and their new values.

    Raises:
        ArgumentValueError: an unknown field name, or a part that is None.
    """
    name, _, rest = path.partition(".")
    for field in [name] if name else changes:
        _check_field(config, field)
    if not name:
        return replace(config, **changes)  # type: ignore[type-var] # every config is a dataclass
    part = getattr(config, name)
    if not isinstance(part, ValidatedConfig):
        raise ArgumentValueError(
            "path", path, "a chain of configs", f"{type(config).__name__}.{name} is {part!r:.60}"
        )
    return replace(config, **{name: replace_in(part, rest, **changes)})  # type: ignore[type-var]


def _check_field(config: Any, name: str) -> None:
    names = [field.name for field in fields(config)]
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.0)
        raise ArgumentValueError(
            "field", name, f"a field of {type(config).__name__}", f"the nearest is {nearest[0]!r}"
        )
