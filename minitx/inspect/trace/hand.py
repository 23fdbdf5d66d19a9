"""The steps of a transformer once more in plain float64, to check a forward against.

Nothing here calls a module or a function of minitx.layers, but for the frequencies of stretched RoPE. Angles
and the edges of distance buckets are computed in float32, where models were trained so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import RopeConfig
from minitx.layers.rotary import FREQUENCIES

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "relu": lambda x: x * (x > 0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}
FORMULAS |= dict.fromkeys(
    ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"),
    lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
)


def wide(x: Tensor) -> Tensor:
    """Returns a tensor in float64: (...) -> (...)."""
    return x.detach().double()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: (..., inputs), (outputs, inputs), (outputs,) -> (..., outputs)"""
    y = torch.einsum("...i,oi->...o", wide(x), wide(weight))
    return y if bias is None else y + wide(bias)


def matrix(module: Any) -> Tensor:
    """The matrix of a projection, with that of its adapter, if it has one: (outputs, inputs)"""
    weight: Tensor = wide(module.weight)
    if (down := getattr(module, "lora_A", None)) is None:
        return weight
    weight = weight + module.lora_options.scale(len(down)) * (wide(module.lora_B) @ wide(down))
    if module.lora_magnitude is not None:
        lengths = (weight * weight).sum(dim=1, keepdim=True).sqrt()
        weight = wide(module.lora_magnitude)[:, None] * weight / lengths
    return weight


def normalized(x: Tensor, module: Any) -> Tensor:
    """LayerNorm or RMSNorm, by the attributes of the module: (..., E) -> (..., E)"""
    x = wide(x)
    if isinstance(module, nn.LayerNorm):
        x = x - x.mean(dim=-1, keepdim=True)
    x = x / ((x * x).mean(dim=-1, keepdim=True) + module.eps) ** 0.5
    x = x * (wide(module.weight) + getattr(module, "offset", 0.0))
    return x if getattr(module, "bias", None) is None else x + wide(module.bias)


def activated(x: Tensor, name: str) -> Tensor:
    """(...) -> (...), by a formula of `FORMULAS`"""
    return FORMULAS[name](wide(x))


def split(x: Tensor, size: int) -> Tensor:
    """Splits the last dimension into heads: (B, T, H * D) -> (B, H, T, D)"""
    return torch.stack(torch.split(wide(x), size, dim=-1), dim=1)


def rotated(x: Tensor, positions: Tensor, rope: RopeConfig) -> Tensor:
    """RoPE as a product of complex numbers: (B, H, T, D), (1 or B, T) -> (B, H, T, D)"""
    size = rope.rotary_dim
    frequency = 1.0 / rope.rope_theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    if rope.rope_type == "linear":
        frequency = frequency / rope.factor
    elif rope.rope_type != "default":
        frequency = FREQUENCIES[rope.rope_type](rope, positions.cpu())
    angle = positions.cpu()[:, None, :, None].float() * frequency.view(-1, 1, 1, size // 2)
    unit = torch.complex(wide(angle.cos() * rope.attention_factor), wide(angle.sin() * rope.attention_factor))
    x = wide(x)
    real, imaginary = x[..., : size // 2], x[..., size // 2 : size]
    if rope.interleaved:
        real, imaginary = x[..., 0:size:2], x[..., 1:size:2]
    pairs = torch.complex(real, imaginary) * unit.to(x.device)
    if rope.interleaved:
        return torch.cat((torch.view_as_real(pairs).flatten(-2), x[..., size:]), dim=-1)
    return torch.cat((pairs.real, pairs.imag, x[..., size:]), dim=-1)


def scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """scale * Q K^T, key heads shared by groups: (B, H, T, D), (B, K, S, D) -> (B, H, T, S)"""
    group = query.shape[1] // key.shape[1]
    shared = wide(key)[:, [head // group for head in range(query.shape[1])]]
    return torch.einsum("bhtd,bhsd->bhts", wide(query), shared) * scale


def shares(scores: Tensor, sinks: Tensor | None = None) -> Tensor:
    """Softmax over the keys, and a sink per head: (B, H, T, S), (H,) -> (B, H, T, S)"""
    exponents = wide(scores)
    largest = exponents.amax(dim=-1, keepdim=True)
    if sinks is not None:
        largest = torch.maximum(largest, wide(sinks)[None, :, None, None])
    powers = torch.exp(exponents - largest)
    total = powers.sum(dim=-1, keepdim=True)
    if sinks is not None:
        total = total + torch.exp(wide(sinks)[None, :, None, None] - largest)
    return powers / total


def mixed(weights: Tensor, value: Tensor) -> Tensor:
    """Sums of values by weights: (B, H, T, S), (B, K, S, D) -> (B, H, T, D)"""
    group = weights.shape[1] // value.shape[1]
    shared = wide(value)[:, [head // group for head in range(weights.shape[1])]]
    return torch.einsum("bhts,bhsd->bhtd", wide(weights), shared)


def allowed(mask: Tensor | None, sizes: tuple[int, int], causal: bool, window: int | None) -> Tensor:
    """Which keys each query attends to: (B, S) or None -> (1 or B, T, S) bool

    A query without any key attends to all of them.
    """
    queries, keys = torch.arange(sizes[0])[:, None], torch.arange(sizes[1])[None]
    pairs = torch.ones(1, *sizes, dtype=torch.bool)
    if causal:
        pairs = pairs & (keys <= queries)
    if window is not None:
        pairs = pairs & ((queries - keys).abs() < window)
    if mask is not None:
        pairs = pairs & mask.cpu().bool()[:, None, :]
    return pairs | ~pairs.any(dim=-1, keepdim=True)


def linear_bias(heads: int, mask: Tensor | None, keys: int) -> Tensor:
    """ALiBi, slope * number of the key, padding aside: (B, S) or None -> (1 or B, H, 1, S)"""
    power = 2 ** math.floor(math.log2(heads))
    base = torch.tensor(2 ** (-8 / power), dtype=torch.float32)
    more = torch.tensor(2 ** (-4 / power), dtype=torch.float32)
    slopes = [base**n for n in range(1, power + 1)] + [more ** (2 * n + 1) for n in range(heads - power)]
    numbers = torch.arange(keys)[None] if mask is None else (mask.cpu().long().cumsum(1) - 1).clamp(min=0)
    return wide(torch.stack(slopes)[None, :, None, None] * numbers[:, None, None, :])


def bucket_bias(table: Tensor, sizes: tuple[int, int], most: int, causal: bool) -> Tensor:
    """The relative bias of T5: (buckets, H) -> (1, H, T, S)"""
    far, rows = torch.tensor(float(most)), []
    count = len(table) if causal else len(table) // 2
    exact = count // 2
    for query in range(sizes[0]):
        row = []
        for key in range(sizes[1]):
            distance = max(query - key, 0) if causal else abs(query - key)
            number = distance
            if distance >= exact:
                ratio = torch.log(torch.tensor(float(distance)) / exact) / math.log(far.item() / exact)
                number = min(exact + int(ratio * (count - exact)), count - 1)
            row.append(number + (count if not causal and key > query else 0))
        rows.append(row)
    return wide(table)[torch.tensor(rows)].permute(2, 0, 1)[None]


def log_distance(distance: int, buckets: int, most: int) -> int:
    """The bucket of a distance in DeBERTa: exact up to half of the buckets, then logarithmic."""
    half = buckets // 2
    if not buckets or abs(distance) <= half:
        return distance
    ratio = torch.log(torch.tensor(float(abs(distance))) / half)
    largest = torch.log(torch.tensor((most - 1) / half, dtype=torch.float32))
    steps = int(torch.ceil(ratio / largest * (half - 1))) + half
    return steps if distance > 0 else -steps


def disentangled(query: Tensor, key: Tensor, module: Any, embeddings: Tensor) -> Tensor:
    """Content to position and position to content, pair by pair: (B, H, T, D) twice -> (B, H, T, T)"""
    positions, size, time = module.positions, query.shape[-1], query.shape[2]
    span, total = positions.span, torch.zeros(*query.shape[:2], time, time, dtype=torch.float64)
    for kind, own, shared, content in (("c2p", "pos_K", "K", query), ("p2c", "pos_Q", "Q", key)):
        if kind not in positions.pos_att_type:
            continue
        projection = getattr(module, own) or getattr(module, shared)
        table = linear(embeddings, matrix(projection), projection.bias).view(2 * span, -1, size)
        for t in range(time):
            for s in range(time):
                bucket = log_distance(t - s, positions.position_buckets, positions.max_relative_positions)
                row = table[min(max(bucket + span, 0), 2 * span - 1)]  # (H, D)
                vectors = wide(content[:, :, t if kind == "c2p" else s])  # (B, H, D)
                total[:, :, t, s] += ((vectors * row).sum(-1) * module.scale).cpu()
    return total


def sinusoids(kind: str, positions: Tensor, size: int) -> Tensor:
    """Sines, then cosines, of position / wavelength: (1 or B, T) -> (1 or B, T, E)"""
    half, positions = size // 2, positions.cpu()
    if kind == "tensor2tensor":
        waves = [10_000 ** (-2 * i / size) for i in range((size + 1) // 2)]
        angle = positions[..., None] * torch.tensor(waves, dtype=torch.float64)
    else:
        steps = torch.arange(half).float() * -(math.log(10_000) / (half - 1))
        angle = positions[..., None].float() * torch.exp(steps)
    parts = [angle.sin(), angle[..., :half].cos()]
    parts += [torch.zeros_like(angle[..., :1])] if kind != "tensor2tensor" and size % 2 else []
    return wide(torch.cat(parts, dim=-1).float())


def expert(x: Tensor, module: Any, number: int) -> Tensor:
    """One expert of a mixture: (..., E) -> (..., E)"""

    def _linear(x: Tensor, part: Any) -> Tensor:
        return linear(x, part.weight[number], None if part.bias is None else part.bias[number])

    gate, dense = _linear(x, module.gate), _linear(x, module.dense)
    if module.limit is None:
        product = activated(gate, module.activation.name) * dense
    else:
        gate = torch.minimum(gate, torch.tensor(module.limit))
        dense = torch.clamp(dense, -module.limit, module.limit)
        product = gate / (1 + torch.exp(-module.alpha * gate)) * (dense + 1)
    return _linear(product, module.output)
