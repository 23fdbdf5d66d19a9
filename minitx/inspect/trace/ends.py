"""Steps at both ends: embeddings, pooler, head, probabilities; and those of a whole stack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minitx.config import LearnedPositions, SinusoidalPositions
from minitx.inspect.flops import convolution_flops
from minitx.inspect.trace import hand
from minitx.inspect.trace.parts import WIDTH
from minitx.inspect.trace.step import Step, short
from minitx.inspect.trace.tracer import Tracer, count
from minitx.layers.embedding import ScaledEmbedding, SummedEmbeddings
from minitx.layers.layer import Layer
from minitx.layers.pooling import POOLING
from minitx.models.taps import run_order
from minitx.validation import ArgumentValueError


def embeddings(t: Tracer, module: Any, path: str) -> Step:
    """Describes the embedder: words, types, positions, norm, projection."""
    config = module.config
    ids, types, positions, _ = (*t.calls.others[path], None, None, None, None)[:4]
    total = t.out(f"{path}.word_emb")
    scale = getattr(module.word_emb, "scale", None) or (
        config.embedding_scale if config.scale_inputs_embeds else None
    )
    steps = [words(t, module, path, ids)]
    terms = ["word[id]" if scale is None else f"{short(scale)} * word[id]"]
    if config.scale_inputs_embeds and scale is not None:
        total = scaled_words(total, module)

    def _project(place: str) -> None:
        nonlocal total
        if config.projection == place:
            steps.append(t.describe(module.projection, f"{path}.projection", total))
            total = t.out(f"{path}.projection")

    _project("words")
    if module.tok_type_emb is not None:
        types = torch.zeros_like(ids) if types is None else types
        if isinstance(module.tok_type_emb, SummedEmbeddings) and types.dim() == 2:
            types = types[..., None].expand(*types.shape, len(module.tok_type_emb))
        steps.append(token_types(t, module, path, types))
        total, terms = total + type_vectors(t, module, path), [*terms, "type"]
    if module.pos_emb is not None:
        steps.append(position_vectors(t, module, path, positions))
        total, terms = total + t.out(f"{path}.pos_emb").to(total.dtype), [*terms, "position"]
    if len(steps) > 1 and len(terms) > 1:
        steps.append(summed(t, module, path, total))
    _project("before_norm")
    if isinstance(module.layer_norm, nn.Module):
        steps.append(t.describe(module.layer_norm, f"{path}.layer_norm", total))
        total = t.out(f"{path}.layer_norm")
    _project("after_dropout")
    text = " + ".join(terms)
    text = f"norm({text})" if isinstance(module.layer_norm, nn.Module) else text
    text += "" if config.projection == "none" else f", projected to {config.hidden_size}"
    return t.group(path, text, t.out(path), WIDTH, steps)


def words(t: Tracer, module: Any, path: str, ids: Tensor) -> Step:
    """Describes the lookup of word embeddings."""
    table = module.word_emb.weight
    scale = getattr(module.word_emb, "scale", 1.0)
    if isinstance(module.word_emb, ScaledEmbedding) and module.word_emb.rounded:
        scale = float(torch.tensor(scale, dtype=torch.float32).to(table.dtype))
    factor = "" if scale == 1 else f"{short(scale)} * "
    return t.step(
        f"{path}.word_emb",
        f"{factor}row id of a table {table.shape[0]} x {table.shape[1]}",
        t.out(f"{path}.word_emb"),
        WIDTH,
        lambda: hand.wide(table)[ids] * scale,
        parameters=count(module.word_emb),
    )


def scaled_words(vectors: Tensor, module: Any) -> Tensor:
    """Scales the vectors as an embedder does that scales after the lookup: (B, T, E) -> (B, T, E)."""
    scale = 1.0 if module.config.embedding_scale is None else module.config.embedding_scale
    if module.config.rounded_scale:
        scale = float(torch.tensor(scale, dtype=torch.float32).to(vectors.dtype))
    return vectors * scale


def token_types(t: Tracer, module: Any, path: str, types: Tensor) -> Step:
    """Describes the embeddings of token types."""
    part = module.tok_type_emb
    tables = [*part] if isinstance(part, SummedEmbeddings) else [part]

    def _types() -> Tensor:
        kinds = types if types.dim() == 3 else types[..., None]
        return sum((hand.wide(table.weight)[kinds[..., i]] for i, table in enumerate(tables)), torch.zeros(1))

    sizes = ", ".join(str(table.num_embeddings) for table in tables)
    value = type_vectors(t, module, path)
    return t.step(
        f"{path}.tok_type_emb",
        f"row type of a table of {sizes}",
        value,
        WIDTH,
        _types,
        parameters=count(part),
    )


def type_vectors(t: Tracer, module: Any, path: str) -> Tensor:
    """Returns the vectors of the token types, the sum over several kinds: (B, T, E)."""
    place = f"{path}.tok_type_emb"
    if not isinstance(module.tok_type_emb, SummedEmbeddings):
        return t.out(place)
    return torch.stack([t.out(f"{place}.{kind}") for kind in range(len(module.tok_type_emb))]).sum(dim=0)


def position_vectors(t: Tracer, module: Any, path: str, positions: Tensor) -> Step:
    """Describes learned or sinusoidal position vectors."""
    part, config, value = module.pos_emb, module.config.positions, t.out(f"{path}.pos_emb")
    axes = "rows tokens width" if value.shape[0] == 1 else WIDTH

    def _positions() -> Tensor:
        if isinstance(config, LearnedPositions):
            return hand.wide(part.weight)[positions + config.offset]
        vectors = hand.sinusoids(part.kind, positions, part.size)
        if part.padding_idx is not None:
            vectors = vectors * (positions.cpu() != part.padding_idx)[..., None]
        return vectors

    text = f"sin and cos of position / wavelength ({getattr(part, 'kind', '')}), {value.shape[-1]} features"
    if not isinstance(config, SinusoidalPositions):
        first = f" + {config.offset}" if config.offset else ""
        text = f"row position{first} of a table {part.num_embeddings} x {value.shape[-1]}"
    return t.step(f"{path}.pos_emb", text, value, axes, _positions, parameters=count(part))


def summed(t: Tracer, module: Any, path: str, total: Tensor) -> Step:
    """Describes the sum of the embeddings."""
    first = "projection" if module.config.projection == "words" else "word_emb"
    vectors = t.out(f"{path}.{first}")

    def _sum() -> Tensor:
        result = hand.wide(vectors)
        if first == "word_emb" and module.config.scale_inputs_embeds:
            result = result * float(scaled_words(torch.ones(1, dtype=vectors.dtype), module))
        if module.tok_type_emb is not None:
            result = result + hand.wide(type_vectors(t, module, path))
        if module.pos_emb is not None:
            result = result + hand.wide(t.out(f"{path}.pos_emb"))
        return result

    return t.step(f"{path}.sum", "sum of the vectors", total, WIDTH, _sum)


def stack(t: Tracer, module: Any, path: str) -> list[Step]:
    """Describes the layers of a stack, and its ends."""
    order = run_order(module)
    steps = []
    for number, layer in enumerate(module.layers):
        if not isinstance(layer, Layer):
            expected = "a model whose layers are minitx.layers.layer.Layer"
            raise ArgumentValueError(f"model.{path}.layers[{number}]", layer, expected)
    for number, index in enumerate(order):
        place = f"{path}.layers.{number}"
        x = t.out(f"{place}.residual.before")
        step = t.describe(module.layers[index], place, x, path, number)
        steps.append(step)
        if number == 0 and getattr(module, "convolution", None) is not None:
            steps.append(t.describe(module.convolution, f"{path}.convolution", x))
    value = t.out(f"{path}.layers.{len(order) - 1}.residual.after")
    for name in ("layer_norm", "projection"):
        if isinstance(part := getattr(module, name, None), nn.Module):
            steps.append(t.describe(part, f"{path}.{name}", value))
            value = t.out(f"{path}.{name}")
    return steps


def convolution(t: Tracer, module: Any, path: str, embedded: Tensor) -> Step:
    """Describes the convolution of the embeddings, added to the output of the first layer."""
    stack_name = path.partition(".")[0]
    first = t.out(f"{stack_name}.layers.0.residual.after")
    mask = t.sides[stack_name].mask
    real = torch.ones(1) if mask is None else mask.cpu()[..., None].double()
    size, groups = module.conv.kernel_size[0], module.conv.groups

    def _convolved() -> Tensor:
        x, weight = hand.wide(embedded).cpu(), hand.wide(module.conv.weight).cpu()
        padded = nn.functional.pad(x, (0, 0, size // 2, size // 2))
        windows = padded.unfold(1, size, 1)  # (B, T, E, kernel)
        windows = windows.reshape(*windows.shape[:2], groups, -1, size)
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        total = torch.einsum("btgik,goik->btgo", windows, parts).flatten(2)
        total = total + hand.wide(module.conv.bias).cpu()
        total = hand.activated(total * real, module.activation.name)
        return hand.normalized(hand.wide(first).cpu() + total, module.layer_norm) * real

    text = f"norm(x + {module.activation.name}(convolution of {size} embeddings))"
    flops = convolution_flops(module, embedded.shape[0] * embedded.shape[1])
    return t.step(path, text, t.out(path), WIDTH, _convolved, parameters=count(module), flops=flops)


def pooler(t: Tracer, module: Any, path: str, hidden: Tensor) -> Step:
    """Describes the pooler."""
    steps = [t.describe(module.dense, f"{path}.dense", hidden[:, 0], "batch width", "W", "h")]
    dense = t.out(f"{path}.dense")
    steps.append(t.describe(module.activation, f"{path}.activation", dense, "batch width"))
    return t.group(path, "tanh(h W^T + b), h the first token", t.out(path), "batch width", steps)


def head(t: Tracer, module: Any, path: str, outputs: str) -> Step:
    """Describes a head: pooling, transform, projection, cap."""
    hidden, pooled, mask = t.calls.others[path]
    steps, config = [], module.config
    x = POOLING[config.pooling](hidden, pooled, mask)
    axes = WIDTH if x.dim() == 3 else "batch width"
    if config.pooling != "none":
        text = f"{config.pooling.replace('_', ' ')}: one vector of {hidden.shape[1]} tokens"
        steps.append(t.step(f"{path}.pool", text, x, axes, lambda: pooled_by_hand(config.pooling, t, path)))
    for name in ("dense", "activation", "layer_norm"):
        if isinstance(part := getattr(module, name), nn.Module):
            steps.append(t.describe(part, f"{path}.{name}", x, axes))
            x = t.out(f"{path}.{name}")
    if config.scale is not None:
        before, scale = x, config.scale
        x = x * scale
        steps.append(
            t.step(f"{path}.scale", f"{short(scale)} * x", x, axes, lambda: hand.wide(before) * scale)
        )
    axes = axes.replace("width", outputs)
    tied = " (the word embedding)" if config.tied else ""
    step = t.describe(module.projection, f"{path}.projection", x, axes)
    steps.append(step)
    if (cap := config.softcap) is not None:
        uncapped = t.out(f"{path}.projection")
        steps.append(
            t.step(
                f"{path}.softcap",
                f"{short(cap)} tanh(logits / {short(cap)})",
                t.out(path),
                axes,
                lambda: cap * hand.activated(hand.wide(uncapped) / cap, "tanh"),
            )
        )
    return t.group(path, f"logits = {step.equation}{tied}", t.out(path), axes, steps)


def pooled_by_hand(pooling: str, t: Tracer, path: str) -> Tensor:
    """Pools row by row: (B, T, E) -> (B, E)"""
    hidden, _, mask = t.calls.others[path]
    if pooling == "pooler":
        return hand.wide(t.out("pooler"))
    rows = []
    for row, vectors in enumerate(hand.wide(hidden)):
        kept = vectors if mask is None else vectors[mask[row].bool().to(vectors.device)]
        picked = {"first": vectors[0], "first_attended": kept[0], "last": kept[-1], "mean": kept.mean(dim=0)}
        rows.append(picked[pooling])
    return torch.stack(rows)
