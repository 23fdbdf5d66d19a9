"""What the numbers of a model are: frozen dataclasses with Hugging Face's field names and no behaviour.

An architecture file reads a `config.json` into these; the layers are built from these alone. A value
that only one architecture needs lives in that architecture's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embeddings; the equations are in layers/rope.py."""

    rope_theta: float  # the base
    rotary_dim: int  # how many features of a head are turned; the first ones
    rope_type: str = "default"
    interleaved: bool = False  # pairs are neighbours (0, 1), (2, 3), ... instead of (d, d + rotary_dim / 2)
    factor: float = 1.0  # how many times longer than the original context
    attention_factor: float = 1.0  # cos and sin are multiplied by it
    original_max_position_embeddings: int = 0  # the context of the pre-training
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    truncate: bool = True  # yarn: its band ends at whole features
    short_factor: tuple[float, ...] = ()  # longrope, one per pair
    long_factor: tuple[float, ...] = ()  # longrope, beyond the original context


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of feed-forward networks, of which each token uses a few."""

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int  # of one expert
    norm_topk_prob: bool = True  # the chosen experts' weights sum to 1
    router_bias: bool = False
    bias: bool = False  # of the experts' projections
    swiglu_limit: float | None = None  # of a clamped SwiGLU; None: act(gate) * dense
    swiglu_alpha: float = 1.702  # steepness of its sigmoid


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
    """Token ids to vectors: sum of embeddings, norm, dropout, projection."""

    vocab_size: int
    embedding_size: int  # width of the tables
    hidden_size: int  # width of the stack behind them
    pad_token_id: int | None
    padding_is_trained: bool = False  # True: its vector gets gradients like any other
    max_position_embeddings: int  # rows of the position table; without one, what the model was made for
    position_embeddings: bool = True  # False: positions enter elsewhere (rotary, relative)
    sinusoids: Sinusoids = "none"  # of waves instead of a table
    position_offset: int = 0  # position 0 is this row of the table
    positions_from_padding: bool = False  # count from pad_token_id + 1 and skip padding
    positions_from_mask: bool = False  # count the attended tokens
    type_vocab_size: int = 0  # 0: no token types
    embedding_scale: float | None = None  # word embeddings are multiplied by it
    rounded_scale: bool = False  # as far as the type of the weights can say it
    layer_norm_eps: float | None  # None: no norm
    norm_bias: bool = True
    hidden_dropout_prob: float | None  # None: no such place
    projection: Projection = "none"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A stack of equal layers, and everything one layer is built from."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None  # fewer than heads: shared by groups of them; None: as many
    head_dim: int
    intermediate_size: int
    hidden_act: str
    causal: bool = False  # a token sees those before it, and itself
    cross_attention: bool = False  # and each layer looks at what an encoder made of another text
    gated: bool = False  # feed-forward is output(act(gate(x)) * dense(x)), else output(act(dense(x)))
    experts: ExpertsConfig | None = None
    expert_layers: tuple[bool, ...] | None = None  # which layers have the experts; None: all
    norm: Norm = "layer_norm"
    layer_norm_eps: float
    norm_bias: bool = True
    norm_offset: float = 0.0  # the norms' weights are stored as the difference from it
    norm_placement: NormPlacement = "post"
    residual_after_norm: bool = False  # what a norm gives is added to its branch, not what came into it
    first_attention_norm: bool = True  # False: the embedder's norm serves the first layer
    final_norm: bool = True  # of a stack that does not end in a norm by its placement
    parallel: Parallel = "none"
    attention_bias: bool = True  # of Q, K and V
    attention_output_bias: bool = True
    mlp_bias: bool = True
    attention_scale: float | None = None  # of the scores; None: head_dim ** -0.5
    scale_by_layer: bool = False  # and divided by the layer's number, from 1
    attention_softcap: float | None = None  # scores are softcap * tanh(scores / softcap)
    attention_sinks: bool = False  # a learned score per head that takes part in the softmax, and has no value
    qk_norm: QKNorm = "none"
    attention_dropout: float  # on the attention weights
    self_output_dropout: float | None  # on the attention branch, before its residual sum; None: no such place
    activation_dropout: float | None = None  # between the two feed-forward projections; None: no such place
    output_dropout: float | None  # on the feed-forward branch; None: no such place
    layer_types: tuple[str, ...] | None = None  # "full_attention" | "sliding_attention" per layer
    sliding_window: int | None = None  # a sliding layer sees keys less than this far away
    rope: Mapping[str, RopeConfig] | None = None  # per layer type; None: no rotary positions
    rope_layers: tuple[bool, ...] | None = None  # which layers turn queries and keys; None: all
    alibi: bool = False  # scores fall linearly with distance
    relative_attention_num_buckets: int = 0  # 0: no learned relative position bias
    relative_attention_max_distance: int = 128  # from here on all distances share a bucket
    relative_bias_per_layer: bool = False  # each layer has a bias of its own, else all share one
    num_hidden_groups: int | None = None  # parameters shared by runs of layers; None: every layer its own
    inner_group_num: int = 1  # layers inside a shared group
    final_dropout: float | None = None  # behind the final norm; None: no such place
    output_size: int | None = None  # hidden states are projected to it behind the last layer


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A task head: optional pooling and transform, then one projection."""

    task: str  # "masked-lm", "sequence-classification", ...
    num_labels: int
    pooling: Pooling = "none"
    input_dropout: float | None = None
    dense_size: int | None = None  # None: no transform before the projection
    dense_bias: bool = True
    hidden_act: str | None = None
    layer_norm_eps: float | None = None  # None: no norm in the transform
    norm_bias: bool = True
    classifier_dropout: float | None = None
    bias: bool = True
    fixed_bias: bool = False  # that of the projection is not trained
    tied: bool = False  # the projection is the word embedding
    scale: float | None = None  # hidden states are multiplied by it before the projection
    softcap: float | None = None  # logits are softcap * tanh(logits / softcap)
    soft_labels: bool = False  # labels per class are probabilities, negative labels do not count
    problem_type: str | None = None  # what the labels mean; None: decided by the labels


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model: embedder and stack, or two of each, pooler, and how fresh weights are drawn."""

    embedder: EmbedderConfig
    encoder: StackConfig | None = None
    decoder_embedder: EmbedderConfig | None = None  # of a decoder that has an encoder before it
    decoder: StackConfig | None = None
    shared_embeddings: bool = True  # encoder and decoder have one word embedding
    memory_projection: bool = False  # what the encoder made is projected to the width of the decoder
    decoder_start_token_id: int | None = None  # what a decoder's text begins with; None: its last token
    eos_token_id: int | None = None  # the token whose hidden state stands for the text, in classification
    pooler: bool = False  # tanh of a projection of the first token
    initializer_range: float = 0.02

    @property
    def stack(self) -> StackConfig:
        """The stack whose hidden states the heads read: the decoder's, or the encoder's if it is alone."""
        found = self.decoder or self.encoder
        assert found is not None, "a model has an encoder or a decoder"
        return found
