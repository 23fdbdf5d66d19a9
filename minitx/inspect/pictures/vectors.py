"""Pictures of vectors: neighbours of token embeddings, and the path of hidden states through the layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.inspect.inputs import Subject
from minitx.inspect.pictures.kinds import picture_kind
from minitx.inspect.tokens import token_name, token_names
from minitx.pictures.maps import Map, Maps, Scale
from minitx.pictures.picture import PALETTE, Picture, compose
from minitx.pictures.scatter import Listing, Point, Points
from minitx.validation import check_integer

MOST_TOKENS = 12  # of a text, whose neighbours or paths are drawn


@picture_kind("neighbors", "tokens with the most similar embeddings")
def neighbors(subject: Subject, *, count: int = 5, side: str | None = None) -> Picture:
    """Draws the nearest neighbours of token embeddings: a list by cosine, and the plane of most variance.

    Args:
        subject: the model and its text, of whose tokens the first 12 different ones are drawn.
        count: number of neighbours per token.
        side: "encoder" or "decoder" of an encoder-decoder; None: the encoder.
    """
    side, model = subject.side(side), subject.model
    embedder: Any = model
    embedder = (
        embedder.decoder_embedder
        if subject.has_encoder_and_decoder and side == "decoder"
        else embedder.embedder
    )
    table = embedder.word_emb.weight.detach().float().cpu()
    count = check_integer("count", count, 1, len(table) - 1)
    special = {*subject.tokenizer.special_ids} if subject.tokenizer else set()
    ids = [*dict.fromkeys(subject.ids(side))]
    ids = ([id_ for id_ in ids if id_ not in special] or ids)[:MOST_TOKENS]
    nearest, cosines = nearest_tokens(table, ids, count, subject.tokenizer)
    places = [*dict.fromkeys([*ids, *(id_ for row in nearest for id_ in row)])]
    plane, share = principal_plane(F.normalize(table[places], dim=-1))
    colors = {id_: PALETTE[i % len(PALETTE)] for i, id_ in enumerate(ids)}
    for id_, row in zip(ids, nearest, strict=True):
        colors = dict.fromkeys(row, colors[id_]) | colors
    points = []
    for id_, (x, y) in zip(places, plane.tolist(), strict=True):
        style = (7.0, "s") if id_ in ids else (4.0, "o")
        points.append(Point(x, y, token_name(id_, subject.tokenizer), colors[id_], *style))
    rows = []
    for id_, row, values in zip(ids, nearest, cosines, strict=True):
        texts = zip(token_names(row, subject.tokenizer), (f"{value:.2f}" for value in values), strict=True)
        rows.append((token_name(id_, subject.tokenizer), colors[id_], [*texts]))
    axes = (f"first principal component, {share[0]:.0%} of the variance", f"second, {share[1]:.0%}")
    note = "squares: tokens of the text; dots: their neighbours; the list has cosine similarities"
    return compose(
        "Neighbours of the token embeddings", [Points(points=points, axes=axes), Listing(rows)], note
    )


def nearest_tokens(
    table: Tensor, ids: list[int], count: int, tokenizer: Any = None
) -> tuple[list[list[int]], list[list[float]]]:
    """Returns the tokens most similar to each token by cosine, and the cosines; most similar first.

    Args:
        table: (V, E).
        ids: N tokens.
        count: of the neighbours.
        tokenizer: its special tokens, and entries of the table without a token, are no neighbours.
    """
    lengths = table.norm(dim=-1).clamp(min=1e-12)  # and no second table, which may be large
    similarity = F.normalize(table[ids], dim=-1) @ table.T / lengths  # (N, V)
    similarity[torch.arange(len(ids)), ids] = -torch.inf
    if tokenizer is not None and len(tokenizer) - len(tokenizer.special_ids) > count:
        similarity[:, list(tokenizer.special_ids)] = -torch.inf
        similarity[:, len(tokenizer) :] = -torch.inf
    best = similarity.topk(count)
    return best.indices.tolist(), best.values.tolist()


def principal_plane(vectors: Tensor) -> tuple[Tensor, list[float]]:
    """Returns vectors in the plane of their two principal components, and its shares of the variance.

    (N, E) -> (N, 2)
    """
    centered = vectors - vectors.mean(dim=0)
    left, values, _ = torch.linalg.svd(centered, full_matrices=False)
    plane = F.pad(left[:, :2] * values[:2], (0, max(2 - len(values), 0)))
    share = values.square() / values.square().sum().clamp(min=1e-300)
    # The sign of a component is arbitrary; here the largest coordinate of each is positive.
    largest = plane.gather(0, plane.abs().argmax(dim=0, keepdim=True))
    return plane * torch.where(largest < 0, -1.0, 1.0), [*share.tolist(), 0.0][:2]


@picture_kind("path", "hidden states through the layers, and how similar these are")
def path(subject: Subject, *, side: str | None = None) -> Picture:
    """Draws hidden states after each layer in the plane of most variance, and the cosines between layers.

    The residual stream grows from layer to layer, so that directions are compared: every state has length 1.

    Args:
        subject: the model and its text; of a long one, the paths of 12 tokens are drawn.
        side: "encoder" or "decoder" of an encoder-decoder; None: the encoder.
    """
    side = subject.side(side)
    states = F.normalize(hidden_states(subject, side), dim=-1)  # (layers + 1, T, E)
    names = subject.names(side)
    step = (len(names) - 1) / max(MOST_TOKENS - 1, 1)
    chosen = (
        [round(i * step) for i in range(MOST_TOKENS)] if len(names) > MOST_TOKENS else [*range(len(names))]
    )
    plane, share = principal_plane(states[:, chosen].flatten(0, 1))
    ways = plane.view(-1, len(chosen), 2).transpose(0, 1).tolist()  # a path per token
    names = [names[i] for i in chosen]
    colors = [PALETTE[i % len(PALETTE)] for i in range(len(names))]
    points = [
        Point(way[-1][0], way[-1][1], name, color, 6.0)
        for way, name, color in zip(ways, names, colors, strict=True)
    ]
    starts = [
        Point(way[0][0], way[0][1], "", color, 5.0, "s") for way, color in zip(ways, colors, strict=True)
    ]
    axes = (f"first principal component, {share[0]:.0%} of the variance", f"second, {share[1]:.0%}")
    plot = Points(points=[*points, *starts], paths=[*zip(ways, colors, strict=True)], axes=axes, side=4.2)
    cosines = (states.transpose(0, 1) @ states.permute(1, 2, 0)).mean(dim=0)  # (layers + 1, layers + 1)
    layers = ["input", *(f"layer {i}" for i in range(len(states) - 1))]
    scale = Scale(-1.0, 1.0, "mean cosine of a token's states", "PuOr")
    maps = Maps(maps=[Map(cosines.tolist(), layers, layers)], scale=scale, axes=("", ""), square=False)
    some = f" (of {len(chosen)} tokens)" * (len(chosen) < states.shape[1])
    note = f"from the embedding, a square, to the last layer, a dot{some}; below: how similar the layers are"
    return compose("Hidden states through the layers", [plot, maps], note)


def hidden_states(subject: Subject, side: str) -> Tensor:
    """Returns the input of the first layer and the output of each: (layers + 1, T, E), float64."""
    _, seen = subject.run(f"{side}.layers.0.residual.before", f"{side}.layers.*.residual.after")
    return torch.stack([value[0].cpu().double() for value in seen.values()])
