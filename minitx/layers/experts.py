"""A mixture of experts: many feed-forward networks, of which each token uses a few (arXiv:1701.06538)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import ExpertsConfig
from minitx.layers.activation import Activation

FEW_TOKENS = 256  # for which an accelerator takes the time of loading weights


class ExpertsLinear(nn.Module):
    """One linear projection per expert, stacked into one parameter."""

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def extra_repr(self) -> str:
        """Returns the arguments shown in the printout."""
        experts, outputs, inputs = self.weight.shape
        return (
            f"{experts} experts, in_features={inputs}, out_features={outputs}, bias={self.bias is not None}"
        )

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs), through one expert"""
        return F.linear(x, self.weight[expert], None if self.bias is None else self.bias[expert])

    def each(self, x: Tensor, experts: Tensor) -> Tensor:
        """(tokens, inputs), (tokens,) -> (tokens, outputs), each token through its own expert"""
        y = torch.bmm(self.weight[experts], x[:, :, None]).squeeze(-1)
        return y if self.bias is None else y + self.bias[experts]

    def all(self, x: Tensor) -> Tensor:
        """(tokens, inputs) or (experts, tokens, inputs) -> (experts, tokens, outputs), through all experts"""
        y = x @ self.weight.mT
        return y if self.bias is None else y + self.bias[:, None]


class Experts(nn.Module):
    """Gated feed-forward networks: output_e(act(gate_e(x)) * dense_e(x))."""

    def __init__(self, config: ExpertsConfig, hidden_size: int) -> None:
        super().__init__()
        inner, number = config.intermediate_size, config.num_experts
        self.dense = ExpertsLinear(number, hidden_size, inner, config.bias)
        self.gate = ExpertsLinear(number, hidden_size, inner, config.bias)
        self.output = ExpertsLinear(number, inner, hidden_size, config.bias)
        self.limit, self.alpha = config.swiglu_limit, config.swiglu_alpha
        if config.swiglu_limit is None:
            self.activation, self.glu = Activation(config.hidden_act), self.plain_glu
        else:
            self.glu = self.clamped_swiglu

    def plain_glu(self, gate: Tensor, dense: Tensor) -> Tensor:
        """Returns the gated product: twice (..., F) -> (..., F)."""
        activated: Tensor = self.activation(gate) * dense
        return activated

    def clamped_swiglu(self, gate: Tensor, dense: Tensor) -> Tensor:
        """Returns SwiGLU of clamped inputs, the linear one centred at 1: twice (..., F) -> (..., F)."""
        gate = gate.clamp(max=self.limit)
        dense = dense.clamp(min=-(self.limit or 0.0), max=self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (dense + 1)

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, E) -> (tokens, E), through one expert"""
        output: Tensor = self.output(self.glu(self.gate(x, expert), self.dense(x, expert)), expert)
        return output

    def each(self, x: Tensor, experts: Tensor) -> Tensor:
        """(tokens, E), (tokens,) -> (tokens, E), each token through its own expert"""
        output: Tensor = self.output.each(
            self.glu(self.gate.each(x, experts), self.dense.each(x, experts)), experts
        )
        return output

    def all(self, x: Tensor) -> Tensor:
        """(tokens, E) -> (experts, tokens, E), through all experts"""
        output: Tensor = self.output.all(self.glu(self.gate.all(x), self.dense.all(x)))
        return output


class MixtureOfExperts(nn.Module):
    """The weighted sum of the outputs of the chosen experts.

        weights, indices = topk(softmax(router(x)))
        sum over e in indices of weight_e * expert_e(x)

    It is a complete feed-forward network, so the layer's `output` after it has no projection.
    """

    def __init__(self, config: ExpertsConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.router = nn.Linear(hidden_size, config.num_experts, bias=config.router_bias)
        self.experts = Experts(config, hidden_size)

    def extra_repr(self) -> str:
        """Returns the numbers of experts, for the printout."""
        return f"{self.config.num_experts_per_tok} of {self.config.num_experts} experts for each token"

    def route(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Returns weights and indices of each token's experts: (B, T, E) -> (B * T, k) twice."""
        logits = self.router(hidden).flatten(0, -2)
        wide = torch.promote_types(logits.dtype, torch.float32)
        weights, indices = torch.softmax(logits, dim=-1, dtype=wide).topk(self.config.num_experts_per_tok)
        if self.config.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights, indices

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)"""
        weights, indices = self.route(hidden)
        if indices.is_meta:  # without values, the experts of a token are unknown
            return torch.zeros_like(hidden)
        tokens = hidden.flatten(0, -2)  # (B * T, E)
        if not tokens.is_cpu and len(tokens) <= FEW_TOKENS and not torch.is_grad_enabled():
            return self.mix_at_once(tokens, weights, indices).view_as(hidden)
        mixed = torch.zeros_like(tokens)
        for expert in torch.unique(indices).tolist():
            token, place = torch.where(indices == expert)
            weighted = self.experts(tokens[token], expert) * weights[token, place, None]
            mixed = mixed.index_add(0, token, weighted.to(mixed.dtype))
        return mixed.view_as(hidden)

    def mix_at_once(self, tokens: Tensor, weights: Tensor, indices: Tensor) -> Tensor:
        """Returns the weighted sums for few tokens, without asking an accelerator who goes where.

        The time is that of loading weights: of the chosen experts, or of all if most of them are chosen.

        Args:
            tokens: (N, E).
            weights: (N, k), of the chosen experts.
            indices: (N, k) long, the chosen experts.

        Returns:
            (N, E)
        """
        number, chosen = self.config.num_experts, indices.shape[1]
        if indices.numel() <= number:
            outputs = self.experts.each(tokens.repeat_interleave(chosen, dim=0), indices.flatten())
            mixed = (outputs.view(*indices.shape, -1) * weights[..., None]).sum(dim=1)
        else:
            share = weights.new_zeros(len(tokens), number).scatter(1, indices, weights)
            mixed = (self.experts.all(tokens) * share.t()[..., None]).sum(dim=0)
        return mixed.to(tokens.dtype)
