"""Parameters by part, those that a token uses, and the bytes of the cache by kind."""

from __future__ import annotations

from typing import Any

from torch import nn

from minitx.config.model import SLIDING
from minitx.layers.embedder import Embedder
from minitx.layers.experts import MixtureOfExperts
from minitx.layers.norm import RMSNorm
from minitx.models import Model
from minitx.models.sizes import count

# Parts of a layer by the beginning of a parameter's name in it.
_LAYER = {"attention.": "self-attention", "cross_attention.": "cross-attention", "": "feed-forward"}


def parameters_by_part(model: Model) -> dict[str, int]:
    """Returns the number of parameters of each part; a tied parameter belongs to the first that has it."""
    owners = dict(model.named_modules())
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name, owners)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def part_of(name: str, owners: dict[str, nn.Module]) -> str:
    """Returns the part that a parameter belongs to.

    Args:
        name: of the parameter.
        owners: all modules of the model by path.
    """
    path, _, _ = name.rpartition(".")
    if isinstance(owners[path], nn.LayerNorm | RMSNorm):
        return "norms"
    first, _, rest = name.partition(".")
    if isinstance(owners[first], Embedder):
        return "embeddings"
    if not rest.startswith("layers."):
        return (
            "positions" if rest.startswith("relative_") else first if first in ("head", "pooler") else "other"
        )
    inner = rest.split(".", 2)[2]
    layer = path[: len(path) - len(inner.rpartition(".")[0]) - 1] if "." in inner else path
    if isinstance(owners.get(f"{layer}.intermediate"), MixtureOfExperts) and inner.startswith("intermediate"):
        return "experts"
    return next(part for start, part in _LAYER.items() if inner.startswith(start))


def active_parameters(model: Model) -> int:
    """Returns the number of parameters that one token uses: of the experts, those that it chooses."""
    idle = 0
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            total, chosen = module.config.num_experts, module.config.num_experts_per_tok
            idle += count(module.experts.parameters()) // total * (total - chosen)
    return model.num_parameters() - idle


def embedding_parameters(model: Model) -> int:
    """Returns the number of parameters of embedding tables, those of a tied head included."""
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    return count(tables.values())


def cache_bytes(model: Any, batch: int, length: int, source: int, size: int) -> dict[str, int]:
    """Returns the bytes of a full cache by kind: "full", "sliding window", "cross-attention".

    Args:
        model: with a decoder.
        batch: B.
        length: tokens of a row that it holds.
        source: tokens of the encoder.
        size: bytes of a number.
    """
    stack = model.config.stack
    attention = stack.layer.attention
    per_token = 2 * batch * attention.key_value_heads * attention.head_dim * size
    kinds: dict[str, int] = {}
    for kind in model.decoder.layer_kinds:
        slides = kind.layer_type == SLIDING and stack.sliding_window < length
        name, held = ("sliding window", stack.sliding_window) if slides else ("full", length)
        kinds[name] = kinds.get(name, 0) + per_token * held
    if stack.layer.cross_attention:
        kinds["cross-attention"] = per_token * source * len(model.decoder.layer_kinds)
    return kinds
