"""What the numbers of a model are: frozen dataclasses with Hugging Face's field names and no behaviour.

An architecture file reads a `config.json` into these; the layers are built from these alone. A value
that only one architecture needs lives in that architecture's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["none", "first", "first_attended", "mean", "pooler"]  # what a head reads
Projection = Literal["none", "before_norm", "after_dropout"]  # where embeddings get their final width


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
    """Token ids to vectors: sum of embeddings, norm, dropout, projection."""

    vocab_size: int
    embedding_size: int  # width of the tables
    hidden_size: int  # width of the stack behind them
    pad_token_id: int | None
    max_position_embeddings: int  # rows of the position table; without one, what the model was made for
    position_embeddings: bool = True  # False: positions enter elsewhere (rotary, relative)
    positions_from_padding: bool = False  # count from pad_token_id + 1 and skip padding
    type_vocab_size: int = 0  # 0: no token types
    layer_norm_eps: float
    norm_bias: bool = True
    hidden_dropout_prob: float
    projection: Projection = "none"


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """A stack of equal layers, and everything one layer is built from."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    intermediate_size: int
    hidden_act: str
    gated: bool = False  # feed-forward is dense2(act(dense(x)) * gate(x))
    layer_norm_eps: float
    norm_bias: bool = True
    pre_norm: bool = False  # False: norm after each residual sum; True: before each branch, and at the end
    first_attention_norm: bool = True  # False: the embedder's norm serves the first layer
    attention_bias: bool = True
    mlp_bias: bool = True
    attention_dropout: float  # on the attention weights
    self_output_dropout: float | None  # on the attention branch, before its residual sum; None: no such place
    activation_dropout: float | None = None  # between the two feed-forward projections; None: no such place
    output_dropout: float | None  # on the feed-forward branch; None: no such place
    layer_types: tuple[str, ...] | None = None  # "full_attention" | "sliding_attention" per layer
    sliding_window: int | None = None  # a sliding layer sees keys at most this far away, either side
    rope_theta: Mapping[str, float] | None = None  # rotary base per layer type
    relative_attention_num_buckets: int = 0  # 0: no learned relative position bias
    num_hidden_groups: int | None = None  # parameters shared by runs of layers; None: every layer its own
    inner_group_num: int = 1  # layers inside a shared group


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
    tied: bool = False  # the projection is the word embedding
    soft_labels: bool = False  # labels per class are probabilities, negative labels do not count
    problem_type: str | None = None  # what the labels mean; None: decided by the labels


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model: embedder, stack, pooler and how fresh weights are drawn."""

    embedder: EmbedderConfig
    encoder: StackConfig
    pooler: bool = False  # tanh of a projection of the first token
    initializer_range: float = 0.02
