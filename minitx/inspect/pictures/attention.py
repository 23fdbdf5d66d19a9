"""Pictures of attention: weights of heads, cross-attention, masks, and the routing to experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.inspect.inputs import Subject
from minitx.inspect.pictures.kinds import misfit, picture_kind
from minitx.inspect.tokens import token_names
from minitx.layers.experts import MixtureOfExperts
from minitx.models.taps import match_places
from minitx.pictures.heatmap import attention_picture, grid_picture
from minitx.pictures.maps import Map, Maps, Scale
from minitx.pictures.picture import BLUE, Picture, compose
from minitx.validation import ArgumentValueError, check_integer

SELF, CROSS = "attention.self_attention", "cross_attention.cross_attention"


@picture_kind("attention", "weights of a head, of a layer, or of all heads")
def attention(
    subject: Subject, *, layer: int | None = None, head: int | None = None, side: str | None = None
) -> Picture:
    """Draws self-attention weights.

    Args:
        subject: the model and its text.
        layer: one layer; None: all.
        head: one head; None: all.
        side: "encoder" or "decoder" of an encoder-decoder; None: the encoder.
    """
    side = subject.side(side)
    names = subject.names(side)
    return _heads(subject, (side, SELF, "Attention"), (names, names), layer, head)


@picture_kind("cross-attention", "likewise, of the decoder to the source")
def cross_attention(subject: Subject, *, layer: int | None = None, head: int | None = None) -> Picture:
    """Draws cross-attention weights; rows are decoder inputs, columns are the source.

    Args:
        subject: the model and its texts.
        layer: one layer; None: all.
        head: one head; None: all.
    """
    if not subject.has_encoder_and_decoder:
        hint = "attention draws the self-attention of any model"
        raise misfit("cross-attention", "an encoder-decoder", hint)
    names = (subject.names("decoder"), subject.names("encoder"))
    return _heads(subject, ("decoder", CROSS, "Cross-attention"), names, layer, head)


def _heads(
    subject: Subject,
    place: tuple[str, str, str],
    names: tuple[list[str], list[str]],
    layer: int | None,
    head: int | None,
) -> Picture:
    """Draws the weights of chosen layers and heads.

    Args:
        subject: the model and its texts.
        place: side, module in the layer, and title.
        names: of queries and keys.
        layer, head: chosen ones.
    """
    side, module, title = place
    layer = subject.layer(layer, side)
    _, seen = subject.run(f"{side}.layers.{'*' if layer is None else layer}.{module}.weights")
    weights = torch.stack([value[0].cpu() for value in seen.values()])  # (L, H, T, S)
    if head is not None:
        head = check_integer("head", head, -weights.shape[1], weights.shape[1] - 1) % weights.shape[1]
    of = f" of the {side}" * subject.has_encoder_and_decoder * (module == SELF)
    if layer is not None and head is not None:
        return attention_picture(weights[0, head], *names, title=f"{title}{of}: layer {layer}, head {head}")
    if layer is not None:
        return attention_picture(weights[0], *names, title=f"{title}{of}: layer {layer}")
    if head is None:
        return attention_picture(weights, *names, title=f"{title}{of}: all heads")
    maps = [Map(w[head].tolist(), *names, f"layer {number}") for number, w in enumerate(weights)]
    per_line = 2 if len(maps) <= 4 else 4
    block = Maps(maps=maps, scale=Scale(name="attention weight"), per_line=per_line)
    return compose(f"{title}{of}: head {head} of all layers", [block])


@picture_kind("mask", "keys that a query attends to: causal, window, padding, prefix", takes_several=True)
def mask(subject: Subject, *, prefix: int | None = None) -> Picture:
    """Draws the attention masks of a forward, as its scores have them.

    Args:
        subject: the model and its texts; the shorter ones of several are padded.
        prefix: a number of tokens that all queries attend to, while the others are causal; for encoders.
    """
    arguments = {} if prefix is None else {"attention_mask": _prefix_mask(subject, prefix)}
    _, seen = subject.run("**.scores", **arguments)
    maps = []
    for title, masks in _distinct_masks(seen).items():
        side = title.partition(" ")[0]
        is_cross = "cross-attention" in title
        for row, values in enumerate(masks):
            queries, keys = _row_names(subject, side, row), _row_names(subject, side, row)
            keys = _row_names(subject, "encoder", row) if is_cross else keys
            named = f"{title}, text {row + 1}" if len(masks) > 1 else title
            maps.append(Map(values.double().tolist(), queries, keys, named))
    from matplotlib.colors import ListedColormap

    scale = Scale(colors=ListedColormap(["#ededed", BLUE]))
    note = "blue: the query, a row, attends to the key, a column; grey: masked"
    return compose("Attention masks", [Maps(maps=maps, scale=scale, per_line=2)], note)


def mask_of(scores: Tensor) -> Tensor:
    """Returns which keys a query attends to by the scores: (B, H, T, S) -> (B, T, S).

    Masked scores are the lowest number, or half of it where a position bias is added.
    """
    return (scores > torch.finfo(scores.dtype).min / 4).any(dim=1)


def _distinct_masks(seen: Any) -> dict[str, Tensor]:
    """Returns the masks (B, T, S) of the layers by titles such as "decoder layers 0, 2"."""
    groups: list[tuple[str, Tensor, list[str]]] = []
    for name, scores in seen.items():
        side, _, layer, module = name.split(".")[:4]
        attends = mask_of(scores).cpu()
        title = f"{side} {'cross-attention' if module == 'cross_attention' else 'self-attention'}"
        for other, values, layers in groups:
            if other == title and torch.equal(values, attends):
                layers.append(layer)
                break
        else:
            groups.append((title, attends, [layer]))
    return {f"{title}, {_layers(layers)}": values for title, values, layers in groups}


def _layers(numbers: list[str]) -> str:
    """Returns the numbers of layers as text: those in a row as "0 to 5"."""
    first, last = int(numbers[0]), int(numbers[-1])
    if len(numbers) == 1:
        return f"layer {first}"
    if last - first + 1 == len(numbers):
        return f"layers {first} to {last}"
    return f"layers {', '.join(numbers[:4])}{', ...' * (len(numbers) > 4)}"


def _row_names(subject: Subject, side: str, row: int) -> list[str]:
    """Returns the tokens of a row of the batch, padding included."""
    key = "decoder_input_ids" if subject.has_encoder_and_decoder and side == "decoder" else "input_ids"
    ids = subject.arguments[key][row].tolist()
    real = len((subject.targets if key == "decoder_input_ids" else subject.sources)[row])
    names = token_names(ids[:real], subject.tokenizer)
    return [*names, *["[pad]"] * (len(ids) - real)]


def _prefix_mask(subject: Subject, prefix: int) -> Tensor:
    """Returns the mask of a prefix that all queries attend to: (B, T, T)."""
    prefix = check_integer("prefix", prefix, 0)
    if subject.model.families != ("encoder",):
        expected = "None for a model with a causal stack, in which no query attends to a later key"
        raise ArgumentValueError("prefix", prefix, expected)
    ids = subject.arguments["input_ids"]
    time = torch.arange(ids.shape[1], device=ids.device)
    attends = (time[None, :] < prefix) | (time[None, :] <= time[:, None])
    padding: Tensor = subject.arguments.get("attention_mask", torch.ones_like(ids))
    return attends[None] & padding[:, None, :].bool()


@picture_kind("experts", "experts that the router of each layer chooses")
def experts(subject: Subject, *, layer: int | None = None, side: str | None = None) -> Picture:
    """Draws the routing of a mixture of experts.

    Args:
        subject: the model and its text.
        layer: the weights of one layer's experts per token; None: the mean over the text of every layer.
        side: of an encoder-decoder; None: the first that has experts.
    """
    model = subject.model
    routed = [place for place in match_places(model, "**") if place.point == "expert_weights"]
    routed = [place for place in routed if side is None or place.stack == subject.side(side)]
    if not routed:
        raise misfit("experts", "layers with a mixture of experts")
    side = routed[0].stack
    layer = subject.layer(layer, side)
    places = [p for p in routed if p.stack == side and layer in (None, p.layer)]
    if not places:
        having = ", ".join(str(p.layer) for p in routed if p.stack == side)
        raise ArgumentValueError("layer", layer, f"one with experts: {having}")
    names = [place.name.removesuffix(".expert_weights") for place in places]
    _, seen = subject.run(
        *(f"{name}.{point}" for name in names for point in ("expert_weights", "expert_indices"))
    )
    shares = []
    for place, name in zip(places, names, strict=True):
        assert isinstance(place.module, MixtureOfExperts)
        weights, indices = seen[f"{name}.expert_weights"][0], seen[f"{name}.expert_indices"][0]
        dense = weights.new_full((len(weights), place.module.config.num_experts), torch.nan)
        shares.append(dense.scatter(1, indices, weights).cpu())  # (T, experts)
    columns = [f"{i}" for i in range(shares[0].shape[1])]
    if layer is not None:
        title, tokens = f"Experts of layer {layer}: weights, white if not chosen", subject.names(side)
        return grid_picture(
            shares[0].T, [f"expert {i}" for i in columns], tokens, title=title, quantity="weight"
        )
    means = torch.stack([share.nan_to_num().mean(dim=0) for share in shares])
    rows = [f"layer {place.layer}" for place in places]
    columns = [f"expert {i}" for i in columns]
    return grid_picture(means, rows, columns, title="Experts: mean weight over the text", quantity="weight")
