"""Floating-point operations of a forward: those of its matrix products, as PyTorch's counter counts them.

A product of (n, k) and (k, m) takes 2 n k m: a multiplication and an addition for each of its terms. Sums of
vectors, norms, activations and softmax are left out; they take less than 1 % in a model of usual width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from minitx.config.model import SLIDING
from minitx.layers.attention import CrossAttention, SelfAttention
from minitx.layers.disentangled import Convolution, DisentangledSelfAttention
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.table_head import TableHead
from minitx.models import Model
from minitx.models.taps import run_order


@dataclass(frozen=True)
class Tokens:
    """The tokens of a forward.

    Attributes:
        rows: of the batch.
        new: tokens of each row that the last stack runs.
        past: tokens of each row before them, in the cache.
        source: tokens of the encoder of an encoder-decoder; it runs if there are no tokens in the cache.
        logits: tokens of each row that the head runs on; None: all.
    """

    rows: int
    new: int
    past: int = 0
    source: int = 0
    logits: int | None = None


def projection_flops(module: Any, rows: int) -> int:
    """Returns the operations of a linear projection of `rows` vectors, those of an adapter included."""
    outputs, inputs = module.weight.shape
    flops: int = 2 * rows * inputs * outputs
    if (down := getattr(module, "lora_A", None)) is not None:
        rank = len(down)
        flops += 2 * rows * rank * (inputs + outputs)
        if module.lora_magnitude is not None:  # a product more, and the norms of W + s B A
            flops += 2 * inputs * outputs * (rows + rank)
    return flops


def product_flops(pairs: int, heads: int, head_dim: int) -> int:
    """Returns the operations of Q K^T, or of the sums of values, for pairs of a query and a key."""
    return 2 * pairs * heads * head_dim


def expert_flops(module: MixtureOfExperts, choices: int) -> int:
    """Returns the operations of the experts: `choices` tokens, counted once for each expert they use."""
    inner, inputs = module.experts.gate.weight.shape[1:]
    return 3 * 2 * choices * inputs * inner


def position_flops(module: DisentangledSelfAttention, tokens: int) -> int:
    """Returns the operations of the position scores, without those of `pos_K` and `pos_Q`."""
    positions, config, total = module.positions, module.config, 0
    rows = 2 * positions.span  # embedded distances
    for kind, own in (("c2p", module.pos_K), ("p2c", module.pos_Q)):
        if positions.relative_attention and kind in positions.pos_att_type:
            total += product_flops(tokens * rows, config.num_attention_heads, config.head_dim)
            total += projection_flops(module.K, rows) if own is None else 0
    return total


def convolution_flops(module: Convolution, tokens: int) -> int:
    """Returns the operations of a convolution of `tokens` vectors."""
    outputs, inputs, kernel = module.conv.weight.shape
    return 2 * tokens * outputs * inputs * kernel


def forward_flops(model: Model, tokens: Tokens) -> int:
    """Returns the operations of a forward: of embedders, stacks, pooler and head."""
    two_stacks = len(model.families) > 1
    total = 0
    for name in model.families:
        encodes = two_stacks and name == "encoder"
        if encodes and tokens.past:
            continue
        time, past = (tokens.source, 0) if encodes else (tokens.new, tokens.past)
        embedder = "decoder_embedder" if two_stacks and not encodes else "embedder"
        total += _linear(model.get_submodule(embedder), tokens.rows * time)
        total += stack_flops(model.get_submodule(name), tokens, time, past)
    projection = getattr(model, "encoder_projection", None)
    if isinstance(projection, nn.Linear) and not tokens.past:
        total += projection_flops(projection, tokens.rows * tokens.source)
    if model.pooler is not None:
        total += _linear(model.pooler, tokens.rows)
    return total + head_flops(model, tokens)


def head_flops(model: Model, tokens: Tokens) -> int:
    """Returns the operations of the head."""
    head: Any = model.head
    if head is None:
        return 0
    kept = tokens.new if tokens.logits is None else min(tokens.logits, tokens.new)
    if isinstance(head, TableHead):
        every = projection_flops(head.cells, 1) + projection_flops(head.columns, 1)
        once = 0 if head.aggregation is None else projection_flops(head.aggregation, tokens.rows)
        return every * tokens.rows * kept + once
    return _linear(head, tokens.rows * (kept if head.config.pooling == "none" else 1))


def stack_flops(stack: Any, tokens: Tokens, time: int, past: int) -> int:
    """Returns the operations of a stack.

    Args:
        stack: the module.
        tokens: of the forward.
        time: tokens of each row that the stack runs.
        past: tokens of each row in its cache.
    """
    order = run_order(stack)
    total = 0
    for step, index in enumerate(order):
        total += layer_flops(stack.layers[index], tokens, time, past == 0)
        total += attention_flops(stack, step, tokens, time, past)
    if isinstance(part := getattr(stack, "convolution", None), Convolution):
        total += convolution_flops(part, tokens.rows * time)
    if isinstance(part := getattr(stack, "projection", None), nn.Linear):
        total += projection_flops(part, tokens.rows * time)
    return total


def layer_flops(layer: nn.Module, tokens: Tokens, time: int, first: bool) -> int:
    """Returns the operations of a layer without those of pairs of tokens.

    Args:
        layer: the module.
        tokens: of the forward.
        time: tokens of each row.
        first: whether the encoder output is projected to keys and values, which are not cached yet.
    """
    rows, total = tokens.rows * time, 0
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            crosses = leaf in "KV" and isinstance(layer.get_submodule(parent), CrossAttention)
            source = tokens.rows * tokens.source * first
            positions = leaf in ("pos_K", "pos_Q")
            part: Any = layer.get_submodule(parent)
            used = 2 * part.positions.span if positions else source if crosses else rows
            total += projection_flops(module, used)
        elif isinstance(module, MixtureOfExperts):
            total += expert_flops(module, rows * module.config.num_experts_per_tok)
        elif isinstance(module, DisentangledSelfAttention):
            total += position_flops(module, rows)
    return total


def attention_flops(stack: Any, step: int, tokens: Tokens, time: int, past: int) -> int:
    """Returns the operations of pairs of a query and a key, in the layer that runs at a step.

    Args:
        stack: the module.
        step: number of the layer, in the order in which they run.
        tokens: of the forward.
        time: tokens of each row.
        past: tokens of each row in the cache.
    """
    order = run_order(stack)
    kinds, keys, total = getattr(stack, "layer_kinds", None), past + time, 0
    if past and kinds is not None and kinds[step].layer_type == SLIDING:
        window = stack.config.sliding_window
        keys = min(keys, window if time == 1 else time + window - 1)
    for module in stack.layers[order[step]].modules():
        if isinstance(module, SelfAttention | DisentangledSelfAttention):
            seen = tokens.source if isinstance(module, CrossAttention) else keys
            width = module.V.out_features * getattr(module, "groups", 1)
            total += 2 * product_flops(tokens.rows * time * seen, 1, width)
    return total


def _linear(module: nn.Module, rows: int) -> int:
    """Returns the operations of all projections in a module, each of `rows` vectors."""
    return sum(projection_flops(part, rows) for part in module.modules() if isinstance(part, nn.Linear))
