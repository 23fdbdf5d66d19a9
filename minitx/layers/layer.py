"""The transformer layer: attention, then feed-forward, each added to what came in."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.attention import Context, SelfAttention
from minitx.layers.feed_forward import Intermediate
from minitx.layers.norm import dropout, layer_norm


class Output(nn.Module):
    """The end of a branch: project to hidden_size, drop out, add the residual, norm.

    Serves both as `self_output` (after attention) and as `output` (after the feed-forward).
    """

    def __init__(self, config: StackConfig, size: int, *, bias: bool, drop: float | None) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size, bias=bias)
        self.layer_norm = layer_norm(
            config.hidden_size, config.layer_norm_eps, config.norm_bias, when=not config.pre_norm
        )
        self.dropout = dropout(drop)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(B, T, size), (B, T, E) -> (B, T, E)"""
        return self.layer_norm(self.dropout(self.dense(hidden)) + residual)


class Attention(nn.Module):
    """Self-attention with its output projection and residual sum."""

    def __init__(self, config: StackConfig, self_attention: type[nn.Module]) -> None:
        super().__init__()
        self.self_attention = self_attention(config)
        self.self_output = Output(
            config,
            config.num_attention_heads * config.head_dim,
            bias=config.attention_bias,
            drop=config.self_output_dropout,
        )

    def forward(self, hidden: Tensor, residual: Tensor, context: Context) -> Tensor:
        """(B, T, E), (B, T, E) -> (B, T, E)"""
        mixed: Tensor = self.self_output(self.self_attention(hidden, context), residual)
        return mixed


class Layer(nn.Module):
    """One layer, in either of two arrangements:

        post-norm (arXiv:1706.03762)          pre-norm (arXiv:2002.04745)

              x ──────────┐                         x ──────────┐
              │           │                   attention_norm    │
          attention       │                     attention       │
              +───────────┘                         +───────────┘
          layer_norm                                │───────────┐
              │───────────┐                  feed_forward_norm  │
         intermediate     │                    intermediate     │
            output        │                       output        │
              +───────────┘                         +───────────┘
          layer_norm                                │

    A norm that an arrangement does not have is an empty slot.
    """

    def __init__(
        self,
        config: StackConfig,
        index: int = 0,
        self_attention: type[nn.Module] = SelfAttention,
    ) -> None:
        super().__init__()
        size, eps, bias = config.hidden_size, config.layer_norm_eps, config.norm_bias
        normed = config.pre_norm and (index > 0 or config.first_attention_norm)
        self.attention_norm = layer_norm(size, eps, bias, when=normed)
        self.attention = Attention(config, self_attention)
        self.feed_forward_norm = layer_norm(size, eps, bias, when=config.pre_norm)
        self.intermediate = Intermediate(config)
        self.output = Output(
            config, config.intermediate_size, bias=config.mlp_bias, drop=config.output_dropout
        )

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        hidden = self.attention(self.attention_norm(hidden), hidden, context)
        inner = self.intermediate(self.feed_forward_norm(hidden))
        output: Tensor = self.output(inner, hidden)
        return output
