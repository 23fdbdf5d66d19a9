"""Pictures of positions: how the order of the tokens enters a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.config import Alibi, Disentangled, RelativeBias, RopeConfig, Rotary
from minitx.inspect.inputs import Subject
from minitx.inspect.pictures.kinds import misfit, picture_kind
from minitx.layers.disentangled import log_bucket
from minitx.layers.embedding import SinusoidalEmbedding
from minitx.layers.positions import alibi_slopes
from minitx.layers.rotary import FREQUENCIES
from minitx.pictures.maps import Scale
from minitx.pictures.picture import Block, Picture, compose
from minitx.pictures.plots import Field, Fields, Lines, Panel, line_colors
from minitx.validation import check_integer

TWO_SIDED = "PuOr"


@picture_kind("positions", "sinusoids, learned tables, RoPE, ALiBi, distance buckets", takes_text=False)
def positions(subject: Subject, *, count: int = 64, side: str | None = None) -> Picture:
    """Draws how positions enter a model.

    Tables of the embedder are drawn with the cosine similarities of their positions, RoPE by the cosines of
    its angles and by its wavelengths, biases of the scores by the distance of query and key.

    Args:
        subject: the model.
        count: number of positions, or of distances.
        side: "encoder" or "decoder" of an encoder-decoder; None: the encoder.
    """
    count = check_integer("count", count, 2)
    side = subject.side(side)
    parts = [*_embedded(subject, side, count), *_in_attention(subject, side, count)]
    if not parts:
        raise misfit("positions", "positions of a known kind, which this model does not have")
    titles, blocks = zip(*parts, strict=True)
    of = f" of the {side}" * subject.has_encoder_and_decoder
    return compose(f"Positions{of}: {', '.join(dict.fromkeys(titles))}", blocks)


def _embedded(subject: Subject, side: str, count: int) -> Iterator[tuple[str, Block]]:
    """Yields title and block of positions that are added to the word embeddings."""
    model: Any = subject.model
    is_target = subject.has_encoder_and_decoder and side == "decoder"
    embedder = model.decoder_embedder if is_target else model.embedder
    if getattr(embedder, "pos_emb", None) is None:
        return
    count = min(count, embedder.max_tokens)
    ids = torch.full((1, count), 1, device=model.device)
    padding = getattr(embedder.config, "pad_token_id", None)
    ids = ids + 1 if padding == 1 else ids
    with torch.inference_mode():
        places = embedder.number(ids, padding, 0, None)
        table = embedder.pos_emb(places)[0].float().cpu()  # (count, E)
    is_fixed = isinstance(embedder.pos_emb, SinusoidalEmbedding)
    title = "sinusoids" if is_fixed else "learned table"
    most = float(table.abs().quantile(0.99)) or 1.0
    scale = Scale(-most, most, "value", TWO_SIDED)
    axes = ("feature", "position")
    yield (
        title,
        Fields(fields=[Field("added to the word embeddings", table.T)], scale=scale, axes=axes, per_line=1),
    )
    units = F.normalize(table, dim=-1)
    field = Field("similarity of the positions", units @ units.T)
    scale = Scale(-1.0, 1.0, "cosine", TWO_SIDED)
    yield title, Fields(fields=[field], scale=scale, axes=("position", "position"), field_height=2.8)


def _in_attention(subject: Subject, side: str, count: int) -> Iterator[tuple[str, Block]]:
    """Yields title and block of positions that are part of the attention."""
    stack: Any = subject.model.get_submodule(side)
    declared = getattr(subject.model.config, side).positions
    if isinstance(declared, Rotary):
        named = {str(rope): (rope, name) for name, rope in reversed([*declared.ropes.items()])}
        for rope, name in named.values():  # layers of several kinds may share one
            yield from _rotary(rope, name, count)
    elif isinstance(declared, Alibi):
        yield "ALiBi", _alibi(getattr(subject.model.config, side).layer.attention.num_attention_heads, count)
    elif isinstance(declared, RelativeBias):
        yield from _relative(stack, count)
    elif isinstance(declared, Disentangled) and stack.relative_emb is not None:
        yield from _disentangled(stack, declared, count)


def _rotary(rope: RopeConfig, name: str, count: int) -> Iterator[tuple[str, Block]]:
    """Yields the cosines of RoPE's angles, and the wavelengths of its pairs."""
    places = torch.arange(count)[None]
    frequency = FREQUENCIES[rope.rope_type](rope, places).view(-1)  # (pairs,)
    cosines = (places[0, :, None] * frequency).cos()
    title = f"RoPE, theta {rope.rope_theta:g}" + f", {rope.rope_type}" * (rope.rope_type != "default")
    of = f" in layers of {name.replace('_', ' ')}"
    yield (
        title,
        Fields(
            fields=[Field(f"cosine of the angle{of}", cosines.T)],
            scale=Scale(-1.0, 1.0, "cosine", TWO_SIDED),
            axes=("pair of features", "position"),
            per_line=1,
        ),
    )
    waves = [(0.0, range(len(frequency)), (2 * math.pi / frequency).tolist())]
    panel = Panel("positions of a full rotation", waves)
    axes = ("pair of features", "positions, logarithmic")
    yield title, Lines(panels=[panel], scale=Scale(colors=line_colors()), axes=axes, per_line=1, log=True)


def _alibi(heads: int, count: int) -> Block:
    """Returns the bias of each head by distance."""
    distance = torch.arange(count)
    biases = -alibi_slopes(heads)[:, None] * distance
    lines = [(float(head), distance.tolist(), bias.tolist()) for head, bias in enumerate(biases)]
    scale = Scale(0.0, max(heads - 1.0, 1.0), "head", line_colors())
    axes = ("positions from the query back to the key", "added to the score")
    return Lines(
        panels=[Panel("bias of each head", lines)], scale=scale, axes=axes, per_line=1, panel_height=2.6
    )


def _relative(stack: Any, count: int) -> Iterator[tuple[str, Block]]:
    """Yields T5's bucket of each distance, and the learned bias of each head by distance."""
    table = stack.relative_bias[0]
    first, end = -2 * table.max_distance, 1 if table.causal else 2 * table.max_distance + 1
    distance = torch.arange(first, end)
    line = (0.0, distance.tolist(), table.bucket(distance).tolist())
    axes = ("key's position minus query's", "bucket")
    plain = Scale(colors=line_colors())
    yield (
        "distance buckets",
        Lines(panels=[Panel("bucket of a distance", [line])], scale=plain, axes=axes, per_line=1),
    )
    end = 0 if table.causal else count
    with torch.inference_mode():
        distance = torch.arange(-count, end + 1, device=table.weight.device)
        fields = []
        for number, layer in enumerate(stack.relative_bias):
            bias = layer(layer.bucket(distance)).T.float().cpu()  # (H, distances)
            of = f" of layer {number}" * (len(stack.relative_bias) > 1)
            fields.append(Field(f"learned bias{of}", bias, -count))
    most = max(float(field.values.abs().max()) for field in fields) or 1.0
    scale = Scale(-most, most, "added to the score", TWO_SIDED)
    axes = ("head", "key's position minus query's")
    yield (
        "distance buckets",
        Fields(fields=fields, scale=scale, axes=axes, per_line=1 if len(fields) == 1 else 2),
    )


def _disentangled(stack: Any, declared: Disentangled, count: int) -> Iterator[tuple[str, Block]]:
    """Yields the bucket of each distance, and the similarities of the embeddings of the buckets."""
    distance = torch.arange(-declared.max_relative_positions, declared.max_relative_positions + 1)
    buckets = distance
    if declared.position_buckets:
        buckets = log_bucket(distance, declared.position_buckets, declared.max_relative_positions)
    line = (0.0, distance.tolist(), buckets.clamp(-declared.span, declared.span - 1).tolist())
    axes = ("query's position minus key's", "bucket")
    title, plain = "relative positions", Scale(colors=line_colors())
    yield title, Lines(panels=[Panel("bucket of a distance", [line])], scale=plain, axes=axes, per_line=1)
    with torch.inference_mode():
        embeddings: Tensor = F.normalize(stack.relative_norm(stack.relative_emb.weight).float(), dim=-1).cpu()
    near = embeddings[max(declared.span - count, 0) : declared.span + count]
    field = Field("similarity of the embeddings", near @ near.T, -min(count, declared.span))
    yield (
        title,
        Fields(
            fields=[field],
            scale=Scale(-1.0, 1.0, "cosine", TWO_SIDED),
            axes=("bucket, from the lowest", "bucket"),
            field_height=2.8,
        ),
    )
