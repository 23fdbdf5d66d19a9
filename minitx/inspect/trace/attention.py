"""Steps of attention: projections, rotation, scores, position bias, mask, softmax, weighted sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.config import Alibi, Disentangled, RelativeBias, RopeConfig, Rotary, StackConfig
from minitx.config.model import SLIDING
from minitx.inspect.flops import position_flops, product_flops, projection_flops
from minitx.inspect.trace import hand
from minitx.inspect.trace.parts import root
from minitx.inspect.trace.step import Step, short
from minitx.inspect.trace.tracer import Side, Tracer, count
from minitx.layers.attention import AttentionContext, CrossAttention, attention_scores
from minitx.layers.disentangled import DisentangledSelfAttention

HEADS = "batch heads tokens head_dim"
PAIRS = "batch heads queries keys"
Call = tuple[str, int, AttentionContext]  # stack, number of the layer, context


class Rules(NamedTuple):
    """The rules of one layer that decide which keys a query attends to, and how positions enter.

    Attributes:
        config: of the stack.
        rope: None: queries and keys are not rotated.
        causal: no later keys.
        window: keys less than this far away; None: all.
        table: number of the table of relative biases.
        side: of the keys.
        crosses: keys are those of the encoder.
    """

    config: StackConfig
    rope: RopeConfig | None
    causal: bool
    window: int | None
    table: int
    side: Side
    crosses: bool


class Bias(NamedTuple):
    """A position bias of scores.

    Attributes:
        equation: of the scores with the bias.
        value: (1 or B, H, 1 or T, S).
        recompute: the same by hand.
        parameters: their number.
        flops: operations of its matrix products.
    """

    equation: str
    value: Tensor
    recompute: Callable[[], Tensor]
    parameters: int = 0
    flops: int = 0


def rules_of(t: Tracer, module: Any, call: Call) -> Rules:
    """Returns the rules of a layer."""
    stack, number, _ = call
    config = getattr(t.model.config, stack)
    if isinstance(module, CrossAttention):
        return Rules(config, None, False, None, 0, t.sides["encoder"], True)
    side = t.sides[stack]
    kinds = getattr(t.model.get_submodule(stack), "layer_kinds", None)
    if kinds is None:
        return Rules(config, None, False, None, 0, side, False)
    kind, positions = kinds[number], config.positions
    rope = positions.ropes[kind.layer_type] if kind.uses_rope and isinstance(positions, Rotary) else None
    window = config.sliding_window if kind.layer_type == SLIDING else None
    return Rules(config, rope, config.causal, window, kind.bias_table, side, False)


def attention(t: Tracer, module: Any, path: str, x: Tensor, call: Call) -> Step:
    """Describes self-attention or cross-attention."""
    rules, context, before = rules_of(t, module, call), call[2], t.names
    source = x if context.encoder_hidden_states is None else context.encoder_hidden_states
    key_names = t.sides["encoder"].names if rules.crosses else before[0]
    steps = [*projected(t, module, f"{path}.query", x, call, rules)]
    t.names = (key_names, key_names)
    steps += projected(t, module, f"{path}.key", source, call, rules)
    steps += projected(t, module, f"{path}.value", source, call, rules)
    t.names = (before[0], key_names)
    steps += weighted(t, module, path, call, rules)
    t.names = before
    text = f"softmax(Q K^T{root(module.scale)}) V"
    value = t.out(f"{path}.mixed").transpose(1, 2).flatten(2)
    groups = getattr(module, "groups", 1)
    note = f"{groups} query heads share a key and value head" if groups > 1 else ""
    return t.group(path, text, value, "batch tokens width", steps, note)


def projected(t: Tracer, module: Any, path: str, x: Tensor, call: Call, rules: Rules) -> list[Step]:
    """Describes queries, keys or values: projection, norm, rotation."""
    place, _, kind = path.rpartition(".")
    letter = kind[0].upper()
    linear, size = getattr(module, letter), t.out(path).shape[-1]
    flat = t.describe(linear, f"{place}.{letter}", x, "batch tokens width", f"W_{letter}")
    value = hand.split(t.out(f"{place}.{letter}"), size).to(x.dtype)
    step = t.step(path, flat.equation, value, HEADS)
    step = replace(step, difference=flat.difference, relative=flat.relative)
    steps = [replace(step, parameters=flat.parameters, flops=flat.flops)]
    normed = getattr(module, f"{letter.lower()}_norm", None) if letter != "V" else None
    if normed is not None:
        name = f"{place}.{letter.lower()}_norm"
        inputs = t.out(f"{place}.{letter}")
        inputs = value.transpose(1, 2) if module.norm_per_head else inputs
        axes = "batch tokens heads head_dim" if module.norm_per_head else "batch tokens width"
        steps.append(t.describe(normed, name, inputs, axes))
        output = t.out(name)
        value = output.transpose(1, 2) if module.norm_per_head else hand.split(output, size).to(x.dtype)
    if rules.rope is not None and letter != "V":
        positions = t.calls.others[embedder_of(call[0], t)][2]
        rope = rules.rope
        steps.append(
            t.step(
                f"{path}_rotated",
                rotation(rope, size),
                t.out(path),
                HEADS,
                lambda: hand.rotated(value, positions, rope),
            )
        )
    return steps


def embedder_of(stack: str, t: Tracer) -> str:
    """Returns the name of the embedder of a stack."""
    return "decoder_embedder" if stack == "decoder" and "encoder" in t.sides else "embedder"


def rotation(rope: RopeConfig, size: int) -> str:
    """Returns the equation of RoPE."""
    pairs = "d, d + 1" if rope.interleaved else f"d, d + {rope.rotary_dim // 2}"
    part = "" if rope.rotary_dim == size else f", first {rope.rotary_dim} of {size} features"
    more = "" if rope.rope_type == "default" else f" ({rope.rope_type}, factor {short(rope.factor)})"
    angle = f"position * {short(rope.rope_theta)}^(-2i/{rope.rotary_dim}){more}"
    return f"rotate features ({pairs}) by {angle}{part}"


def weighted(t: Tracer, module: Any, path: str, call: Call, rules: Rules) -> list[Step]:
    """Describes scores, softcap, position bias, mask, softmax and the weighted sums."""
    query, key = t.out(f"{path}.query"), t.out(f"{path}.key")
    recorded, context = t.out(f"{path}.scores"), call[2]
    options = module.options(context)
    plain = replace(options, causal=False, softcap=None)
    product = attention_scores(query, key, None, plain)
    pairs = product.shape[0] * product.shape[2] * product.shape[3]
    flops = product_flops(pairs, product.shape[1], query.shape[3])
    steps = [
        t.step(
            f"{path}.scores",
            f"Q K^T{root(options.scale)}",
            product,
            PAIRS,
            lambda: hand.scores(query, key, options.scale),
            flops=flops,
        )
    ]
    if (cap := options.softcap) is not None:
        capped = attention_scores(query, key, None, replace(options, causal=False))
        before = product
        steps.append(
            t.step(
                f"{path}.softcap",
                f"{short(cap)} tanh(scores / {short(cap)})",
                capped,
                PAIRS,
                lambda: cap * hand.activated(hand.wide(before) / cap, "tanh"),
            )
        )
        product = capped
    steps += biased(t, module, path, product, (recorded, call, rules))
    weights, value = t.out(f"{path}.weights"), t.out(f"{path}.value")
    sink = " and a sink" if options.sinks is not None else ""
    steps.append(
        t.step(
            f"{path}.weights",
            f"exp(scores) / sum of exp(scores) over the keys{sink}",
            weights,
            PAIRS,
            lambda: hand.shares(recorded, options.sinks),
            parameters=0 if options.sinks is None else options.sinks.numel(),
        )
    )
    steps.append(
        t.step(
            f"{path}.mixed",
            "weights V",
            t.out(f"{path}.mixed"),
            HEADS,
            lambda: hand.mixed(weights, value),
            flops=flops,
        )
    )
    return steps


def biased(
    t: Tracer, module: Any, path: str, product: Tensor, rest: tuple[Tensor, Call, Rules]
) -> list[Step]:
    """Describes the position bias and the mask, if the layer has them."""
    recorded, call, rules = rest
    steps, sizes = [], (product.shape[2], product.shape[3])
    bias = position_bias(t, module, path, call, rules, sizes)
    if bias is not None:
        before, product, recompute = product, product + bias.value, bias.recompute
        steps.append(
            t.step(
                f"{path}.bias",
                bias.equation,
                product,
                PAIRS,
                lambda: hand.wide(before).cpu() + recompute(),
                parameters=bias.parameters,
                flops=bias.flops,
            )
        )
    visible = hidden_as_infinite(recorded, t.out(f"{path}.query").dtype)
    pairs = attended(rules, call[2], sizes)
    if bool(pairs.all()) and not bool(visible.isinf().any()):
        return steps
    lowest = torch.tensor(-torch.inf, dtype=torch.float64)
    steps.append(
        t.step(
            f"{path}.mask",
            f"-inf where {masked(rules, pairs)}",
            visible,
            PAIRS,
            lambda: torch.where(pairs[:, None], hand.wide(product).cpu(), lowest),
            note=f"{int(pairs.sum())} of {pairs.numel()} pairs of a query and a key attend",
        )
    )
    return steps


def hidden_as_infinite(recorded: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns scores with -inf where a mask of this dtype has put a large negative number: (B, H, T, S)."""
    return torch.where(recorded < torch.finfo(dtype).min / 4, -torch.inf, recorded)


def attended(rules: Rules, context: AttentionContext, sizes: tuple[int, int]) -> Tensor:
    """Returns which keys each query attends to: (1 or B, T, S) bool."""
    mask = rules.side.mask
    if isinstance(rules.config.positions, Disentangled) and not rules.crosses and mask is not None:
        return (mask[:, :, None] & mask[:, None, :]).cpu()  # padding does not attend either
    return hand.allowed(mask, sizes, rules.causal, rules.window)


def masked(rules: Rules, pairs: Tensor) -> str:
    """Returns in words which pairs are masked."""
    words = ["key > query"] if rules.causal and pairs.shape[1] > 1 else []
    if rules.window is not None and rules.window < pairs.shape[2]:
        words.append(f"|query - key| >= {rules.window}")
    if rules.side.mask is not None:
        words.append("the key is padding")
    return " or ".join(words)


def position_bias(
    t: Tracer, module: Any, path: str, call: Call, rules: Rules, sizes: tuple[int, int]
) -> Bias | None:
    """Returns the position bias of a layer; None: it has none."""
    positions, context = rules.config.positions, call[2]
    stack: Any = t.model.get_submodule(call[0])
    if rules.crosses or positions is None or isinstance(positions, Rotary):
        return None
    if isinstance(positions, Disentangled):
        return disentangled_bias(t, module, path, context)
    heads, causal, mask = module.Q.out_features // module.head_dim, rules.causal, rules.side.mask
    if isinstance(positions, RelativeBias):
        table: Any = stack.get_submodule(f"relative_bias.{rules.table}")
        places = torch.arange(max(sizes), device=table.weight.device)
        value = table.scores(places[: sizes[0]], places[: sizes[1]])
        most = f"{positions.num_buckets} buckets of distances up to {positions.max_distance}"

        def _bias() -> Tensor:
            return hand.bucket_bias(table.weight, sizes, positions.max_distance, causal).cpu()

        return Bias(f"scores + b[head, bucket(key - query)], {most}", value, _bias, table.weight.numel())
    assert isinstance(positions, Alibi)
    hidden = torch.empty(1, sizes[0], 1, dtype=t.out(f"{path}.query").dtype, device=t.model.device)
    attend = None if mask is None else mask[:, None, None, :]
    value = stack.score_bias(stack.layer_kinds[call[1]], attend, 0, hidden)
    slopes = value[0, :, 0, 1] if sizes[1] > 1 else value[0, :, 0, 0]
    text = f"scores + slope * key, slopes {short(float(slopes[0]))} to {short(float(slopes[-1]))}"
    return Bias(text, value, lambda: hand.linear_bias(heads, mask, sizes[1]))


def disentangled_bias(t: Tracer, module: DisentangledSelfAttention, path: str, context: Any) -> Bias | None:
    """Returns the scores of content and relative positions."""
    if context.embeddings is None:
        return None
    query, key = t.out(f"{path}.query"), t.out(f"{path}.key")
    value = module.position_scores(query, key, module.project_positions(context.embeddings), context.bucket)
    terms = {"c2p": "Q P_K^T[query - key]", "p2c": "K P_Q^T[query - key]"}
    names = [term for kind, term in terms.items() if kind in module.positions.pos_att_type]
    extra = [part for part in (module.pos_K, module.pos_Q) if part is not None]
    flops = position_flops(module, query.shape[0] * query.shape[2])
    return Bias(
        f"scores + ({' + '.join(names)}){root(module.scale)}, P of {2 * module.positions.span} distances",
        value,
        lambda: hand.disentangled(query, key, module, context.embeddings),
        sum(count(part) for part in extra),
        flops + sum(projection_flops(part, 2 * module.positions.span) for part in extra),
    )
