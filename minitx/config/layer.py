"""Configuration of one layer: norms, attention, and a feed-forward network or experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minitx.config.base import Finite, NonNegative, Positive, Probability, Size, ValidatedConfig
from minitx.validation import ArgumentValueError

NormKind = Literal["layer_norm", "rms_norm"]
NormPlacement = Literal["post", "pre", "sandwich", "branch"]  # diagrams in layers/layer.py
QKNorm = Literal["none", "head", "width"]
# Both branches start from the input of the layer, through one shared norm or one norm each
Parallel = Literal["none", "one_norm", "two_norms"]


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
    eps: NonNegative
    bias: bool = True
    offset: Finite = 0.0


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

    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size
    bias: bool = True
    output_bias: bool = True
    scale: Finite | None = None
    scale_by_layer: bool = False
    softcap: Positive | None = None
    sinks: bool = False
    qk_norm: QKNorm = "none"
    dropout: Probability = 0.0
    output_dropout: Probability | None = None

    def __post_init__(self) -> None:
        """Checks that the key/value heads divide the query heads.

        Raises:
            ArgumentValueError: they do not.
        """
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

    intermediate_size: Size
    hidden_act: str
    gated: bool = False
    bias: bool = True
    dropout: Probability | None = None
    output_dropout: Probability | None = None


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
        dense: feed-forward of the layers without experts (`StackConfig.expert_layers`).
    """

    num_experts: Size
    num_experts_per_tok: Size
    intermediate_size: Size
    hidden_act: str = "silu"
    norm_topk_prob: bool = True
    router_bias: bool = False
    bias: bool = False
    swiglu_limit: Positive | None = None
    swiglu_alpha: Finite = 1.702
    dense: FeedForwardConfig | None = None

    def __post_init__(self) -> None:
        """Checks that a token does not use more experts than there are.

        Raises:
            ArgumentValueError: it uses more.
        """
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
        branch_scale: multiplies the output of each branch before the residual is added.
        parallel: attention and feed-forward both start from the layer's input, through "one_norm" or
            "two_norms".
        cross_attention: add cross-attention to the encoder output.
    """

    attention: AttentionConfig
    feed_forward: FeedForwardConfig | ExpertsConfig
    norm: NormConfig
    norm_placement: NormPlacement = "post"
    residual_after_norm: bool = False
    branch_scale: Finite = 1.0
    parallel: Parallel = "none"
    cross_attention: bool = False

    def __post_init__(self) -> None:
        """Checks options that exclude one another.

        Checks that parallel layers have no cross-attention, and that `parallel` and `residual_after_norm` are
        not used with norm_placement='post'.

        Raises:
            ArgumentValueError: one of these combinations.
        """
        super().__post_init__()
        if self.parallel != "none" and self.cross_attention:
            raise ArgumentValueError(
                "LayerConfig.parallel", self.parallel, "'none' with cross_attention=True"
            )
        if self.norm_placement == "post" and (self.parallel != "none" or self.residual_after_norm):
            name = "residual_after_norm" if self.parallel == "none" else "parallel"
            raise ArgumentValueError(
                "LayerConfig.norm_placement", "post", f"another with {name}={getattr(self, name)!r}"
            )
