"""The transformer layer: attention, then feed-forward, each added to what came in."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.attention import AttentionContext, CrossAttention, SelfAttention
from minitx.layers.cache import CrossAttentionCache, LayerCache
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.feed_forward import GatedIntermediate, Intermediate
from minitx.layers.linear import Linear
from minitx.layers.norm import Slot, dropout, identity, norm

CheckpointEntry = LayerCache | CrossAttentionCache  # keys and values of the text itself, or of another one


class Output(nn.Module):
    """The end of a branch: project to hidden_size, drop out, add the residual, norm.

    Serves both as `self_output` (after attention) and as `output` (after the feed-forward). Where the
    branch has its final width already (`size` is None), there is nothing to project.
    """

    def __init__(self, config: StackConfig, size: int | None, *, bias: bool, drop: float | None) -> None:
        super().__init__()
        self.dense: Slot = identity if size is None else Linear(size, config.hidden_size, bias=bias)
        self.branch_norm = norm(config, when=config.norm_placement in ("sandwich", "branch"))
        self.layer_norm = norm(config, when=config.norm_placement == "post")
        self.dropout = dropout(drop)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(B, T, size), (B, T, E) -> (B, T, E)"""
        return self.layer_norm(self.dropout(self.branch_norm(self.dense(hidden))) + residual)


class Attention(nn.Module):
    """Attention with its output projection and residual sum: of a text to itself, or to another one."""

    def __init__(self, config: StackConfig, index: int, self_attention: type[nn.Module]) -> None:
        super().__init__()
        self.self_attention = self_attention(config, index)
        self.self_output = Output(
            config,
            config.num_attention_heads * config.head_dim,
            bias=config.attention_output_bias,
            drop=config.self_output_dropout,
        )

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor,
        context: AttentionContext,
        cache: CheckpointEntry | None = None,
    ) -> Tensor:
        """(B, T, E), (B, T, E) -> (B, T, E)"""
        mixed: Tensor = self.self_output(self.self_attention(hidden, context, cache), residual)
        return mixed


class Layer(nn.Module):
    """One layer, in one of these arrangements:

        post (arXiv:1706.03762)    pre (arXiv:2002.04745)    sandwich (arXiv:2105.13290)

           x ──────────┐              x ──────────┐              x ──────────┐
           │           │        attention_norm    │        attention_norm    │
       attention       │          attention       │          attention       │
           │           │              │           │         branch_norm      │
           +───────────┘              +───────────┘              +───────────┘
       layer_norm                     │                          │
           │───────────┐              │───────────┐              │───────────┐
           │           │      feed_forward_norm   │      feed_forward_norm   │
      intermediate     │         intermediate     │         intermediate     │
         output        │            output        │            output        │
           │           │              │           │         branch_norm      │
           +───────────┘              +───────────┘              +───────────┘
       layer_norm                     │                          │

    "branch" is the sandwich without its first norms (arXiv:2501.00656, section 3.3). With `parallel` both
    branches read x, and the sum is x + attention + feed-forward. With `residual_after_norm` the line on the
    right starts behind the norm. A norm that an arrangement does not have is an empty slot.

    The layer of a decoder with an encoder before it has a third branch between the two, arranged like
    them: cross-attention (arXiv:1706.03762, section 3.1), with its `cross_attention_norm`.
    """

    def __init__(
        self,
        config: StackConfig,
        index: int = 0,
        self_attention: type[nn.Module] = SelfAttention,
    ) -> None:
        super().__init__()
        normed = config.norm_placement in ("pre", "sandwich")
        self.attention_norm = norm(config, when=normed and (index > 0 or config.first_attention_norm))
        self.attention = Attention(config, index, self_attention)
        if config.cross_attention:
            self.cross_attention_norm = norm(config, when=normed)
            self.cross_attention = Attention(config, index, CrossAttention)
        self.feed_forward_norm = norm(config, when=normed and config.parallel != "one_norm")
        experts = config.experts if config.expert_layers is None or config.expert_layers[index] else None
        size: int | None = config.intermediate_size
        self.intermediate: nn.Module
        if experts is not None:
            self.intermediate, size = MixtureOfExperts(config, experts), None
        else:
            self.intermediate = GatedIntermediate(config) if config.gated else Intermediate(config)
        self.output = Output(config, size, bias=config.mlp_bias, drop=config.output_dropout)
        self.parallel = config.parallel
        self.residual_after_norm = config.residual_after_norm

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: LayerCache | None = None,
        cross_context: AttentionContext | None = None,
        memory: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        normed = self.attention_norm(hidden)
        attended = self.attention(normed, normed if self.residual_after_norm else hidden, context, cache)
        if cross_context is not None:
            attended = self.cross_attention(
                self.cross_attention_norm(attended), attended, cross_context, memory
            )
        source = {"none": attended, "one_norm": normed, "two_norms": hidden}[self.parallel]
        source = self.feed_forward_norm(source)
        output: Tensor = self.output(
            self.intermediate(source), source if self.residual_after_norm else attended
        )
        return output
