"""What the numbers of a model are: frozen dataclasses with Hugging Face's field names and no behaviour.

An architecture file reads a `config.json` into these; the layers are built from these alone. A value
that only one architecture needs lives in that architecture's own file. To try another arrangement, replace
fields: `replace(config, encoder=replace(config.encoder, norm_placement="pre"))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

Pooling = Literal["none", "first", "first_attended", "last", "mean", "pooler"]  # what a head reads
# Where embeddings get the width of the stack; "words": before positions are added
Projection = Literal["none", "words", "before_norm", "after_dropout"]
Norm = Literal["layer_norm", "rms_norm"]
# Positions that are computed instead of learned: by the paper's formula, or by fairseq's reading of it
Sinusoids = Literal["none", "paper", "fairseq"]
# Where a layer's norms stand; the diagrams in layers/layer.py show them
NormPlacement = Literal["post", "pre", "sandwich", "branch"]
QKNorm = Literal["none", "head", "width"]  # norm of queries and keys: each head by itself, all together
# Both branches read what came into the layer, through one norm or through one each
Parallel = Literal["none", "one_norm", "two_norms"]


class ValidatedConfig:
    """Refuses a word that a field does not know: a misspelt one would quietly build another model.

    Raises:
        ValueError: a value that is not among those of its field.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, known in words(kind).items():
            value = getattr(self, name)
            if not any(type(value) is type(word) and value == word for word in known):
                raise ValueError(
                    f"{type(self).__name__}: {name}={value!r} must be one of {', '.join(map(repr, known))}."
                )


@cache
def words(kind: Any) -> dict[str, tuple[str | bool, ...]]:
    """The values that the fields of a config know, of those that take no others."""
    hints = get_type_hints(kind)
    flags = {name: (True, False) for name, hint in hints.items() if hint is bool}
    return flags | {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


@dataclass(frozen=True, kw_only=True)
class RopeConfig(ValidatedConfig):
    """Rotary position embeddings; the equations are in layers/rope.py.

    Attributes:
        rope_theta: the base.
        rotary_dim: how many features of a head are turned; the first ones.
        rope_type: "default", "linear", "dynamic", "yarn", "llama3" or "longrope".
        interleaved: pairs are neighbours (0, 1), (2, 3), ... instead of (d, d + rotary_dim / 2).
        factor: how many times longer than the original context.
        attention_factor: cos and sin are multiplied by it.
        original_max_position_embeddings: the context of the pre-training.
        low_freq_factor: llama3.
        high_freq_factor: llama3.
        beta_fast: yarn.
        beta_slow: yarn.
        truncate: yarn: its band ends at whole features.
        short_factor: longrope, one per pair.
        long_factor: longrope, beyond the original context.
    """

    rope_theta: float
    rotary_dim: int
    rope_type: str = "default"
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
class ExpertsConfig(ValidatedConfig):
    """A mixture of feed-forward networks, of which each token uses a few.

    Attributes:
        num_experts: how many there are.
        num_experts_per_tok: how many a token uses.
        intermediate_size: of one expert.
        norm_topk_prob: the chosen experts' weights sum to 1.
        router_bias: of the projection that chooses them.
        bias: of the experts' projections.
        swiglu_limit: of a clamped SwiGLU; None: act(gate) * dense.
        swiglu_alpha: steepness of its sigmoid.
    """

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    norm_topk_prob: bool = True
    router_bias: bool = False
    bias: bool = False
    swiglu_limit: float | None = None
    swiglu_alpha: float = 1.702


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig(ValidatedConfig):
    """Token ids to vectors: sum of embeddings, norm, dropout, projection.

    Attributes:
        vocab_size: rows of the word table.
        embedding_size: width of the tables.
        hidden_size: width of the stack behind them.
        pad_token_id: the id that fills, None where there is none.
        padding_is_trained: True: its vector gets gradients like any other.
        max_position_embeddings: rows of the position table; without one, what the model was made for.
        position_embeddings: False: positions enter elsewhere (rotary, relative).
        sinusoids: of waves instead of a table.
        position_offset: position 0 is this row of the table.
        positions_from_padding: count from pad_token_id + 1 and skip padding.
        positions_from_mask: count the attended tokens.
        type_vocab_size: 0: no token types.
        embedding_scale: word embeddings are multiplied by it.
        rounded_scale: as far as the type of the weights can say it.
        layer_norm_eps: None: no norm.
        norm_bias: whether the norm has one.
        hidden_dropout_prob: None: no such place.
        projection: where embeddings get the width of the stack: "none", "words" (before positions are added),
            "before_norm" or "after_dropout".
    """

    vocab_size: int
    embedding_size: int
    hidden_size: int
    pad_token_id: int | None
    padding_is_trained: bool = False
    max_position_embeddings: int
    position_embeddings: bool = True
    sinusoids: Sinusoids = "none"
    position_offset: int = 0
    positions_from_padding: bool = False
    positions_from_mask: bool = False
    type_vocab_size: int = 0
    embedding_scale: float | None = None
    rounded_scale: bool = False
    layer_norm_eps: float | None
    norm_bias: bool = True
    hidden_dropout_prob: float | None
    projection: Projection = "none"


@dataclass(frozen=True, kw_only=True)
class StackConfig(ValidatedConfig):
    """A stack of equal layers, and everything one layer is built from.

    Attributes:
        hidden_size: E, the width between the layers.
        num_hidden_layers: how many layers run.
        num_attention_heads: H, the heads of the queries.
        num_key_value_heads: fewer than heads: shared by groups of them; None: as many.
        head_dim: D, the features of a head.
        intermediate_size: F, the width inside the feed-forward network.
        hidden_act: "gelu", "silu", "relu", ...: layers/activation.py has them all.
        causal: a token sees those before it, and itself.
        cross_attention: and each layer looks at what an encoder made of another text.
        gated: feed-forward is output(act(gate(x)) * dense(x)), else output(act(dense(x))).
        experts: a mixture of feed-forward networks; None: one.
        expert_layers: which layers have the experts; None: all.
        norm: "layer_norm" or "rms_norm".
        layer_norm_eps: added to the variance.
        norm_bias: whether norms have one.
        norm_offset: the norms' weights are stored as the difference from it.
        norm_placement: "post", "pre", "sandwich" or "branch"; the diagrams in layers/layer.py show them.
        residual_after_norm: what a norm gives is added to its branch, not what came into it.
        first_attention_norm: False: the embedder's norm serves the first layer.
        final_norm: of a stack that does not end in a norm by its placement.
        parallel: "none"; or both branches read what came into the layer, through "one_norm" or "two_norms".
        attention_bias: of Q, K and V.
        attention_output_bias: of the projection behind attention.
        mlp_bias: of the feed-forward projections.
        attention_scale: of the scores; None: head_dim ** -0.5.
        scale_by_layer: and divided by the layer's number, from 1.
        attention_softcap: scores are softcap * tanh(scores / softcap).
        attention_sinks: a learned score per head that takes part in the softmax, and has no value.
        qk_norm: norm of queries and keys: "none", "head" (each by itself) or "width" (all together).
        attention_dropout: on the attention weights.
        self_output_dropout: on the attention branch, before its residual sum; None: no such place.
        activation_dropout: between the two feed-forward projections; None: no such place.
        output_dropout: on the feed-forward branch; None: no such place.
        layer_types: "full_attention" | "sliding_attention" per layer.
        sliding_window: a sliding layer sees keys less than this far away.
        rope: per layer type; None: no rotary positions.
        rope_layers: which layers turn queries and keys; None: all.
        alibi: scores fall linearly with distance.
        relative_attention_num_buckets: 0: no learned relative position bias.
        relative_attention_max_distance: from here on all distances share a bucket.
        relative_bias_per_layer: each layer has a bias of its own, else all share one.
        num_hidden_groups: parameters shared by runs of layers; None: every layer its own.
        inner_group_num: layers inside a shared group.
        final_dropout: behind the final norm; None: no such place.
        output_size: hidden states are projected to it behind the last layer.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int
    intermediate_size: int
    hidden_act: str
    causal: bool = False
    cross_attention: bool = False
    gated: bool = False
    experts: ExpertsConfig | None = None
    expert_layers: tuple[bool, ...] | None = None
    norm: Norm = "layer_norm"
    layer_norm_eps: float
    norm_bias: bool = True
    norm_offset: float = 0.0
    norm_placement: NormPlacement = "post"
    residual_after_norm: bool = False
    first_attention_norm: bool = True
    final_norm: bool = True
    parallel: Parallel = "none"
    attention_bias: bool = True
    attention_output_bias: bool = True
    mlp_bias: bool = True
    attention_scale: float | None = None
    scale_by_layer: bool = False
    attention_softcap: float | None = None
    attention_sinks: bool = False
    qk_norm: QKNorm = "none"
    attention_dropout: float
    self_output_dropout: float | None
    activation_dropout: float | None = None
    output_dropout: float | None
    layer_types: tuple[str, ...] | None = None
    sliding_window: int | None = None
    rope: Mapping[str, RopeConfig] | None = None
    rope_layers: tuple[bool, ...] | None = None
    alibi: bool = False
    relative_attention_num_buckets: int = 0
    relative_attention_max_distance: int = 128
    relative_bias_per_layer: bool = False
    num_hidden_groups: int | None = None
    inner_group_num: int = 1
    final_dropout: float | None = None
    output_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class HeadConfig(ValidatedConfig):
    """A task head: optional pooling and transform, then one projection.

    Attributes:
        task: "masked-lm", "sequence-classification", ....
        num_labels: what the last projection gives: labels, words, 1 per choice.
        pooling: what is read: "none" (every token), "first", "first_attended", "last", "mean" or "pooler".
        input_dropout: before the transform; None: no such place.
        dense_size: None: no transform before the projection.
        dense_bias: of the transform.
        hidden_act: of the transform; None: none.
        layer_norm_eps: None: no norm in the transform.
        norm_bias: of the transform's norm.
        classifier_dropout: before the last projection; None: no such place.
        bias: of the last projection.
        tied: the projection is the word embedding.
        scale: hidden states are multiplied by it before the projection.
        softcap: logits are softcap * tanh(logits / softcap).
        soft_labels: labels per class are probabilities, negative labels do not count.
        problem_type: what the labels mean; None: decided by the labels.
    """

    task: str
    num_labels: int
    pooling: Pooling = "none"
    input_dropout: float | None = None
    dense_size: int | None = None
    dense_bias: bool = True
    hidden_act: str | None = None
    layer_norm_eps: float | None = None
    norm_bias: bool = True
    classifier_dropout: float | None = None
    bias: bool = True
    tied: bool = False
    scale: float | None = None
    softcap: float | None = None
    soft_labels: bool = False
    problem_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ValidatedConfig):
    """One model: embedder and stack, or two of each, pooler, and how fresh weights are drawn.

    Attributes:
        embedder: of the text that is read, or gone on with.
        encoder: the stack of an encoder.
        decoder_embedder: of a decoder that has an encoder before it.
        decoder: the stack of a decoder.
        shared_embeddings: encoder and decoder have one word embedding.
        memory_projection: what the encoder made is projected to the width of the decoder.
        decoder_start_token_id: what a decoder's text begins with; None: its last token.
        eos_token_id: the token whose hidden state stands for the text, in classification.
        pooler: tanh of a projection of the first token.
        initializer_range: standard deviation of fresh weights.
    """

    embedder: EmbedderConfig
    encoder: StackConfig | None = None
    decoder_embedder: EmbedderConfig | None = None
    decoder: StackConfig | None = None
    shared_embeddings: bool = True
    memory_projection: bool = False
    decoder_start_token_id: int | None = None
    eos_token_id: int | None = None
    pooler: bool = False
    initializer_range: float = 0.02

    @property
    def encoder_size(self) -> int:
        """The width of what the encoder makes."""
        assert self.encoder is not None, "the model has an encoder"
        return self.encoder.output_size or self.encoder.hidden_size

    @property
    def stack(self) -> StackConfig:
        """The stack whose hidden states the heads read: the decoder's, or the encoder's if it is alone."""
        found = self.decoder or self.encoder
        assert found is not None, "a model has an encoder or a decoder"
        return found
