"""Steps of the parts around attention: projections, norms, activations, feed-forward networks, layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minitx.inspect.flops import expert_flops, projection_flops
from minitx.inspect.trace import hand
from minitx.inspect.trace.step import Step, short
from minitx.inspect.trace.tracer import Tracer, count, quoted
from minitx.layers.activation import Activation
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.layer import ParallelLayer, after_norm

WIDTH = "batch tokens width"
INNER = "batch tokens inner_width"
ACTIVATION = {
    "gelu": "x (1 + erf(x / sqrt(2))) / 2",
    "quick_gelu": "x sigmoid(1.702 x)",
    "relu": "max(x, 0)",
    "silu": "x sigmoid(x)",
    "swish": "x sigmoid(x)",
    "mish": "x tanh(log(1 + exp(x)))",
    "tanh": "tanh(x)",
    "sigmoid": "1 / (1 + exp(-x))",
}
_TANH_GELU = "x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2"


def projection(
    t: Tracer, module: Any, path: str, x: Tensor, axes: str = WIDTH, letter: str = "W", source: str = "x"
) -> Step:
    """Describes a linear projection."""
    outputs, inputs = module.weight.shape
    bias = " + b" if module.bias is not None else ""
    adapter = " + adapter" if hasattr(module, "lora_A") else ""
    return t.step(
        path,
        f"{source} {letter}^T{bias}{adapter}, {letter} {outputs} x {inputs}",
        t.out(path),
        axes,
        lambda: hand.linear(x, hand.matrix(module), module.bias),
        parameters=count(module),
        flops=projection_flops(module, x.numel() // x.shape[-1]),
    )


def norm(t: Tracer, module: Any, path: str, x: Tensor, axes: str = WIDTH) -> Step:
    """Describes LayerNorm or RMSNorm."""
    weight = f"({short(module.offset)} + w)" if getattr(module, "offset", 0.0) else "w"
    centred = "(x - mean(x)) / sqrt(var(x)" if isinstance(module, nn.LayerNorm) else "x / sqrt(mean(x^2)"
    bias = " + b" if getattr(module, "bias", None) is not None else ""
    return t.step(
        path,
        f"{centred} + {module.eps:g}) {weight}{bias}",
        t.out(path),
        axes,
        lambda: hand.normalized(x, module),
        parameters=count(module),
    )


def activation(t: Tracer, module: Activation, path: str, x: Tensor, axes: str = INNER) -> Step:
    """Describes an activation function."""
    name = module.name
    formula = ACTIVATION.get(name) or (_TANH_GELU if name in hand.FORMULAS else "")
    text = f"{name}(x) = {formula}" if formula else f"{name}(x)"
    known = name in hand.FORMULAS
    return t.step(
        path,
        text,
        t.out(path),
        axes,
        (lambda: hand.activated(x, name)) if known else None,
        parameters=count(module),
    )


def feed_forward(t: Tracer, module: Any, path: str, x: Tensor) -> Step:
    """Describes the expanding half of a feed-forward network."""
    steps = [t.describe(module.dense, f"{path}.dense", x, INNER)]
    steps.append(t.describe(module.activation, f"{path}.activation", t.out(f"{path}.dense")))
    return t.group(path, f"{module.activation.name}(x W^T)", t.out(path), INNER, steps)


def gated_feed_forward(t: Tracer, module: Any, path: str, x: Tensor) -> Step:
    """Describes a gated feed-forward network."""
    steps = [
        t.describe(module.gate, f"{path}.gate", x, INNER, "G"),
        t.describe(module.activation, f"{path}.activation", t.out(f"{path}.gate")),
        t.describe(module.dense, f"{path}.dense", x, INNER),
    ]
    act, dense = t.out(f"{path}.activation"), t.out(f"{path}.dense")
    text = f"{module.activation.name}(x G^T) * (x W^T)"
    product = t.step(
        f"{path}.product",
        "activation * dense",
        t.out(path),
        INNER,
        lambda: hand.wide(act) * hand.wide(dense),
    )
    return t.group(path, text, t.out(path), INNER, [*steps, product])


def experts(t: Tracer, module: MixtureOfExperts, path: str, x: Tensor) -> Step:
    """Describes a mixture of experts: the routing, and the weighted sum of the chosen ones."""
    config = module.config
    most, total = config.num_experts_per_tok, config.num_experts
    logits = t.out(f"{path}.router")
    weights, indices = t.out(f"{path}.expert_weights"), t.out(f"{path}.expert_indices")

    def _weights() -> Tensor:
        chosen = hand.shares(logits.unsqueeze(1))[:, 0].gather(-1, indices)
        return chosen / chosen.sum(dim=-1, keepdim=True) if config.norm_topk_prob else chosen

    def _sum() -> Tensor:
        output = torch.zeros_like(hand.wide(x))
        for number in set(indices.flatten().tolist()):
            share = (hand.wide(weights) * (indices == number)).sum(dim=-1, keepdim=True)
            rows = share[..., 0] != 0
            output[rows] += share[rows] * hand.expert(x[rows], module.experts, number)
        return output

    rule = ", divided by their sum" if config.norm_topk_prob else ""
    routes = indices[0].tolist()
    chosen = [f"{quoted(t.names[0], 0, index)}: {row}" for index, row in enumerate(routes)]
    kind = (
        config.hidden_act
        if module.experts.limit is None
        else f"clamped SwiGLU, limit {module.experts.limit:g}"
    )
    steps = [
        t.describe(module.router, f"{path}.router", x, "batch tokens experts", "R"),
        t.step(
            f"{path}.expert_weights",
            f"the {most} largest of softmax(router) over {total} experts{rule}",
            weights,
            "batch tokens choices",
            _weights,
            note="experts " + ", ".join(chosen[:8]) + ", ..." * (len(chosen) > 8),
        ),
        t.step(
            f"{path}.experts",
            f"sum of weight_e expert_e(x) over {most} experts e, each gated ({kind})",
            t.out(path),
            WIDTH,
            _sum,
            parameters=count(module.experts),
            flops=expert_flops(module, indices.numel()),
        ),
    ]
    return t.group(path, f"{most} of {total} experts for each token", t.out(path), WIDTH, steps)


def branch_end(t: Tracer, module: Any, path: str, x: Tensor, residual: Tensor) -> Step:
    """Describes the end of a branch: projection, norms, residual connection."""
    steps, hidden = [], x
    if isinstance(module.dense, nn.Module):
        steps.append(t.describe(module.dense, f"{path}.dense", x))
        hidden = t.out(f"{path}.dense")
    if module.branch_norm is not None:
        steps.append(t.describe(module.branch_norm, f"{path}.branch_norm", hidden))
        hidden = t.out(f"{path}.branch_norm")
    scale = module.branch_scale
    normed = isinstance(module.layer_norm, nn.Module)
    total = torch.add(residual, hidden, alpha=scale) if normed else t.out(path)
    branch = "branch" if scale == 1 else f"{short(scale)} * branch"
    steps.append(
        t.step(
            f"{path}.residual",
            f"x + {branch}",
            total,
            WIDTH,
            lambda: hand.wide(residual) + scale * hand.wide(hidden),
        )
    )
    if normed:
        steps.append(t.describe(module.layer_norm, f"{path}.layer_norm", total))
    words = ["project" * isinstance(module.dense, nn.Module), "norm" * (module.branch_norm is not None)]
    text = ", ".join([*filter(None, words), f"x + {branch}", *["norm"] * normed])
    return t.group(path, text, t.out(path), WIDTH, steps)


def branch(
    t: Tracer, module: Any, path: str, x: Tensor, residual: Tensor, call: Any, parts: Sequence[str]
) -> Step:
    """Describes an attention branch: the attention, and the end of the branch."""
    inner, end = parts
    steps = [t.describe(getattr(module, inner), f"{path}.{inner}", x, call)]
    steps.append(t.describe(getattr(module, end), f"{path}.{end}", t.out(f"{path}.{inner}"), residual))
    scale = getattr(module, end).branch_scale
    text = "x + attention(...)" if scale == 1 else f"x + {short(scale)} * attention(...)"
    return t.group(path, text, t.out(path), WIDTH, steps)


def self_branch(t: Tracer, module: Any, path: str, x: Tensor, residual: Tensor, call: Any) -> Step:
    """Describes the branch of self-attention."""
    return branch(t, module, path, x, residual, call, ("self_attention", "self_output"))


def cross_branch(t: Tracer, module: Any, path: str, x: Tensor, residual: Tensor, call: Any) -> Step:
    """Describes the branch of cross-attention."""
    return branch(t, module, path, x, residual, call, ("cross_attention", "cross_output"))


def layer(t: Tracer, module: Any, path: str, x: Tensor, stack: str, number: int) -> Step:
    """Describes a layer: norms, attention, cross-attention, feed-forward network."""
    context, _, cross, *_ = (*t.calls.layers[stack][number], None, None, None)
    steps: list[Step] = []
    after = module.residual is after_norm

    def _normed(name: str, hidden: Tensor) -> Tensor:
        if not isinstance(slot := getattr(module, name), nn.Module):
            return hidden
        steps.append(t.describe(slot, f"{path}.{name}", hidden))
        return t.out(f"{path}.{name}")

    normed = _normed("attention_norm", x)
    residual = normed if after else x
    call = (stack, number, context)
    steps.append(t.describe(module.attention, f"{path}.attention", normed, residual, call))
    hidden = t.out(f"{path}.attention")
    if cross is not None:
        crossed = _normed("cross_attention_norm", hidden)
        call = (stack, number, cross)
        steps.append(t.describe(module.cross_attention, f"{path}.cross_attention", crossed, hidden, call))
        hidden = t.out(f"{path}.cross_attention")
    parallel = isinstance(module, ParallelLayer)
    source = hidden
    if parallel:
        source = normed if module.source is after_norm else x
    normed = _normed("feed_forward_norm", source)
    steps.append(t.describe(module.intermediate, f"{path}.intermediate", normed))
    residual = normed if after else hidden
    steps.append(t.describe(module.output, f"{path}.output", t.out(f"{path}.intermediate"), residual))
    after_layer = t.out(f"{path}.residual.after")
    return t.group(path, arrangement(module, parallel, cross is not None), after_layer, WIDTH, steps)


def arrangement(module: Any, parallel: bool, crosses: bool) -> str:
    """Returns the equation of a layer, such as "x + attention(norm(x)), x + feed_forward(norm(x))"."""
    scale = module.output.branch_scale
    factor = "" if scale == 1 else f"{short(scale)} * "

    def _branch(name: str, norm_name: str, end: Any) -> str:
        inner = "norm(x)" if isinstance(getattr(module, norm_name, None), nn.Module) else "x"
        text = f"{name}({inner})"
        if end.branch_norm is not None:
            text = f"norm({text})"
        residual = inner if module.residual is after_norm else "x"
        text = f"{residual} + {factor}{text}"
        return f"norm({text})" if isinstance(end.layer_norm, nn.Module) else text

    if parallel:
        return f"x + {factor}attention(norm(x)) + {factor}feed_forward(norm(x))"
    names = [_branch("attention", "attention_norm", module.attention.self_output)]
    if crosses:
        end = module.cross_attention.cross_output
        names.append(_branch("cross_attention", "cross_attention_norm", end))
    network = "experts" if isinstance(module.intermediate, MixtureOfExperts) else "feed_forward"
    names.append(_branch(network, "feed_forward_norm", module.output))
    return ", then ".join(names)


def root(number: float) -> str:
    """Returns a scale as text: 32 ** -0.5 -> " / sqrt(32)", 0.5 -> " * 0.5", 1 -> ""."""
    if number == 1:
        return ""
    square = 1 / number**2
    if number > 0 and math.isclose(square, round(square), rel_tol=1e-6) and round(square) > 1:
        return f" / sqrt({round(square)})"
    return f" * {short(number)}"
