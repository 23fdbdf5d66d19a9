"""A stack of layers, and what all of them share during one forward."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.config import StackConfig
from minitx.layers.attention import Context
from minitx.layers.layer import Layer
from minitx.layers.mask import padding_mask, sliding_mask, with_bias
from minitx.layers.norm import layer_norm
from minitx.layers.position import RelativeBias, rotary_table

FULL, SLIDING = "full_attention", "sliding_attention"


def schedule(config: StackConfig) -> list[int]:
    """Which of the stack's own layers runs at each step.

    Mostly 0, 1, 2, ...; where groups share parameters (arXiv:1909.11942, section 3.1) the steps are
    dealt out evenly to the groups, and each step runs its group's `inner_group_num` layers.
    """
    if config.num_hidden_groups is None:
        return list(range(config.num_hidden_layers))
    steps = []
    for i in range(config.num_hidden_layers):
        group = i * config.num_hidden_groups // config.num_hidden_layers
        steps += [group * config.inner_group_num + k for k in range(config.inner_group_num)]
    return steps


class Stack(nn.Module):
    """`layers`, run in order, and the final norm of a pre-norm stack."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = schedule(config)
        self.owned = (config.num_hidden_groups or config.num_hidden_layers) * config.inner_group_num
        self.layers = nn.ModuleList(Layer(config, index) for index in range(self.owned))
        self.layer_types = config.layer_types or (FULL,) * len(self.schedule)
        buckets, heads = config.relative_attention_num_buckets, config.num_attention_heads
        self.relative_bias = RelativeBias(buckets, heads) if buckets else None
        self.layer_norm = layer_norm(
            config.hidden_size, config.layer_norm_eps, config.norm_bias, when=config.pre_norm
        )

    def forward(self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor) -> Tensor:
        """(B, T, E), mask (B, T) or (B, T, S), positions (1 or B, T) -> (B, T, E)"""
        if len(self.layers) != self.owned:
            raise ValueError(
                f"the stack has {len(self.layers)} layers, its config says {self.owned}; make a model of "
                "another depth from a config that says so (minitx.from_config)."
            )
        attend = padding_mask(mask)
        contexts = {kind: self.context(kind, hidden, attend, position_ids) for kind in set(self.layer_types)}
        for index, kind in zip(self.schedule, self.layer_types, strict=True):
            hidden = self.layers[index](hidden, contexts[kind])
        return self.layer_norm(hidden)

    def context(self, kind: str, hidden: Tensor, attend: Tensor | None, position_ids: Tensor) -> Context:
        """The mask and position tables of one kind of layer, out of the padding mask (B, 1, 1 or T, S)."""
        time = hidden.shape[1]
        if kind == SLIDING and self.config.sliding_window is not None:
            attend = sliding_mask(attend, time, self.config.sliding_window, hidden.device)
        if self.relative_bias is not None:
            attend = with_bias(attend, self.relative_bias.scores(time))
        if self.config.rope_theta is None:
            return Context(attend)
        theta = self.config.rope_theta[kind]
        return Context(attend, rotary_table(position_ids, self.config.head_dim, theta, hidden.dtype))
