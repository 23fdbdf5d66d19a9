"""DeBERTa-v2 and v3 (arXiv:2006.03654, 2111.09543): content and position attend apart.

Differs from BERT: scores are the sum of content-to-content, content-to-position and position-to-content
(equation 4), with positions only relative, in buckets that widen with distance. That is a data flow of
its own, so this file brings its own attention and stack; the layer around them is the shared one. v2 adds
a convolution beside the first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture, usual_names
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, either
from minitx.config import HeadConfig, ModelConfig, StackConfig
from minitx.layers.activation import Activation
from minitx.layers.attention import AttentionContext, Backend, active_probability, attention_weights, sdpa
from minitx.layers.embedding import Embedding
from minitx.layers.layer import Layer
from minitx.layers.linear import Linear
from minitx.layers.masks import to_additive_mask
from minitx.layers.norm import layer_norm
from minitx.layers.recorder import Recorder


@dataclass(frozen=True, kw_only=True)
class DisentangledConfig(StackConfig):
    """What a disentangled stack has beyond the shared one."""

    relative_attention: bool  # False: no position-dependent scores at all
    max_relative_positions: int
    position_buckets: int  # 0: one embedding per distance
    pos_att_type: frozenset[str]  # of "c2p", "p2c"
    share_att_key: bool  # positions go through Q and K themselves
    position_dropout: float
    norm_rel_ebd: bool
    conv_kernel_size: int  # 0: no convolution
    conv_groups: int
    conv_act: str

    @property
    def span(self) -> int:
        """Embedded distances run from -span to span - 1."""
        return self.position_buckets or self.max_relative_positions


def log_bucket(distance: Tensor, buckets: int, most: int) -> Tensor:
    """Distances up to buckets / 2 as they are, farther ones logarithmically up to `most`."""
    middle = buckets // 2
    near = distance.abs() <= middle
    size = distance.abs().clamp(min=middle).float()
    # float32 throughout, in this order: at a bucket's edge the rounding decides, in training as here
    steps = torch.log(size / middle) / torch.log(torch.tensor((most - 1) / middle)) * (middle - 1)
    return torch.where(near, distance, (torch.ceil(steps).long() + middle) * distance.sign())


@dataclass(frozen=True)
class RelativeContext(AttentionContext):
    """Adds what the position scores need: embeddings (2 * span, E) and bucket of each pair (T, T)."""

    embeddings: Tensor | None = None
    bucket: Tensor | None = None


class DisentangledSelfAttention(nn.Module):
    """Self-attention whose score bias comes from queries and keys meeting relative positions."""

    def __init__(self, config: DisentangledConfig, index: int = 0) -> None:
        super().__init__()
        self.config = config
        size, width = config.hidden_size, config.num_attention_heads * config.head_dim
        self.Q = Linear(size, width)
        self.K = Linear(size, width)
        self.V = Linear(size, width)
        own = config.relative_attention and not config.share_att_key
        self.pos_K = Linear(size, width) if own and "c2p" in config.pos_att_type else None
        self.pos_Q = Linear(size, width) if own and "p2c" in config.pos_att_type else None
        self.dropout = nn.Dropout(config.attention_dropout)
        self.pos_dropout = nn.Dropout(config.position_dropout)
        # one share for content, one for each kind of position score; the root is float32's, as in training
        shares = 1 + len(config.pos_att_type)
        self.scale = (
            1 / torch.tensor(config.head_dim * shares, dtype=torch.float32, device="cpu").sqrt().item()
        )
        self.backend: Backend = sdpa

    def heads(self, x: Tensor) -> Tensor:
        """(..., T, H * D) -> (..., H, T, D)"""
        return x.view(*x.shape[:-1], self.config.num_attention_heads, self.config.head_dim).transpose(-3, -2)

    def forward(self, hidden: Tensor, context: RelativeContext, cache: None = None) -> Tensor:
        """(B, T, E) -> (B, T, H * D)"""
        query, key, value = (self.heads(project(hidden)) for project in (self.Q, self.K, self.V))
        mask = context.mask
        if context.embeddings is not None and context.bucket is not None:
            embeddings = self.pos_dropout(context.embeddings)
            mask = to_additive_mask(mask, self.position_scores(query, key, embeddings, context.bucket))
        if context.watch is not None:
            context.watch(attention_weights(query, key, mask, self.scale))
        dropout = active_probability(self.dropout)
        mixed = self.backend(query, key, value, mask, self.scale, dropout)
        return mixed.transpose(1, 2).flatten(2)

    def position_scores(self, query: Tensor, key: Tensor, embeddings: Tensor, bucket: Tensor) -> Tensor:
        """(B, H, T, D) twice, (2 * span, E), (T, T) -> (B, H, T, T)"""
        span = self.config.span
        scores = query.new_zeros(())
        if "c2p" in self.config.pos_att_type:
            position = self.heads((self.pos_K or self.K)(embeddings))  # (H, 2 * span, D)
            index = (bucket + span).clamp(0, 2 * span - 1)
            met = query @ position.transpose(-1, -2)  # (B, H, T, 2 * span)
            scores = scores + met.gather(-1, index.expand(*met.shape[:2], -1, -1)) * self.scale
        if "p2c" in self.config.pos_att_type:
            position = self.heads((self.pos_Q or self.Q)(embeddings))
            index = (span - bucket).clamp(0, 2 * span - 1)
            met = key @ position.transpose(-1, -2)
            turned = met.gather(-1, index.expand(*met.shape[:2], -1, -1)).transpose(-1, -2)
            scores = scores + turned * self.scale
        return scores


class Convolution(nn.Module):
    """Local mixing of the embeddings, added to the first layer's output."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        size, kernel = config.hidden_size, config.conv_kernel_size
        self.conv = nn.Conv1d(size, size, kernel, padding=(kernel - 1) // 2, groups=config.conv_groups)
        self.dropout = nn.Dropout(config.position_dropout)
        self.activation = Activation(config.conv_act)
        self.layer_norm = layer_norm(size, config.layer_norm_eps)

    def forward(self, embedded: Tensor, first: Tensor, real: Tensor) -> Tensor:
        """(B, T, E), (B, T, E), 1 at real tokens (B, T, 1) -> (B, T, E)"""
        mixed = self.conv(embedded.transpose(1, 2)).transpose(1, 2)
        mixed = self.activation(self.dropout(mixed * real))
        return self.layer_norm(first + mixed) * real


class DisentangledStack(nn.Module):
    """Layers that share one table of relative positions."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            Layer(config, index, DisentangledSelfAttention) for index in range(config.num_hidden_layers)
        )
        relative, size = config.relative_attention, config.hidden_size
        self.relative_emb = Embedding(2 * config.span, size) if relative else None
        self.relative_norm = layer_norm(size, config.layer_norm_eps, when=config.norm_rel_ebd)
        self.convolution = Convolution(config) if config.conv_kernel_size else None

    def forward(
        self, hidden: Tensor, mask: Tensor | None, position_ids: Tensor, *, record: Recorder | None = None
    ) -> Tensor:
        """(B, T, E), mask (B, T) or (B, T, S) -> (B, T, E)"""
        if record is not None:
            record.begin(len(self.layers))
        real = hidden.new_ones(*hidden.shape[:2], 1)  # (B, T, 1)
        if mask is not None:
            seen = mask if mask.dim() == 2 else mask.any(dim=1)
            real = seen[..., None].to(hidden.dtype)
        hidden = embedded = hidden * real
        shared = self.context(mask, hidden)
        for index, layer in enumerate(self.layers):
            context = shared if record is None else record.enter(index, hidden, shared)[0]
            hidden = layer(hidden, context)
            if index == 0 and self.convolution is not None:
                hidden = self.convolution(embedded, hidden, real)
        if record is not None:
            record.leave(hidden)
        return hidden

    def context(self, mask: Tensor | None, hidden: Tensor) -> RelativeContext:
        attend, config = mask, self.config
        if mask is not None and mask.dim() == 2:
            # Here padding is masked as a query too: it attends to everything alike.
            attend = mask[:, :, None] & mask[:, None, :]
        if attend is not None:
            attend = attend[:, None]  # (B, 1, T, S)
        if self.relative_emb is None or not config.pos_att_type:
            return RelativeContext(None if attend is None else to_additive_mask(attend, hidden.new_zeros(())))
        position = torch.arange(hidden.shape[1], device=hidden.device)
        distance = position[:, None] - position[None, :]  # (T, T), query minus key
        if config.position_buckets:
            distance = log_bucket(distance, config.position_buckets, config.max_relative_positions)
        embeddings = self.relative_norm(self.relative_emb.weight)
        return RelativeContext(attend, embeddings=embeddings, bucket=distance)


def read(hf: ConfigReader) -> ModelConfig:
    config = bert.read(hf, eps=1e-7)
    size, dropout = config.embedder.hidden_size, hf.probability("hidden_dropout_prob", 0.1)
    width = hf.size("embedding_size", size)
    written = hf.get("pos_att_type", None) or []
    named = written.lower().split("|") if isinstance(written, str) else written
    kinds = frozenset(str(kind).strip() for kind in named) - {""} if isinstance(named, list) else {"?"}
    if not kinds <= {"c2p", "p2c"}:
        raise ValueError(f"config.json: pos_att_type={written!r}; minitx has 'c2p' and 'p2c'.")
    kernel = hf.size("conv_kernel_size", 0, least=0)
    if kernel and kernel % 2 == 0:
        raise ValueError(f"config.json: conv_kernel_size={kernel} must be odd, to leave lengths as they are.")
    hf.expect("attention_head_size", config.stack.head_dim)
    norm = [part.strip() for part in hf.name("norm_rel_ebd", "none").lower().split("|")]
    rows = hf.size_or_none("max_relative_positions") or config.embedder.max_position_embeddings
    buckets = hf.size_or_none("position_buckets") or 0
    if buckets == 1 or (buckets and buckets // 2 >= rows - 1):
        raise ValueError(
            f"config.json: position_buckets={buckets} must be at least 2, and half of it less than "
            f"max_relative_positions={rows} - 1."
        )
    return replace(
        config,
        embedder=replace(
            config.embedder,
            embedding_size=width,
            projection="none" if width == size else "before_norm",
            position_embeddings=hf.flag("position_biased_input", True),
            type_vocab_size=hf.size("type_vocab_size", 0, least=0),
        ),
        encoder=DisentangledConfig(
            **asdict(config.stack),
            relative_attention=hf.flag("relative_attention", False),
            max_relative_positions=rows,
            position_buckets=buckets,
            pos_att_type=frozenset(kinds),
            share_att_key=hf.flag("share_att_key", False),
            position_dropout=dropout,
            norm_rel_ebd="layer_norm" in norm,
            conv_kernel_size=kernel,
            conv_groups=hf.size("conv_groups", 1),
            conv_act=hf.name("conv_act", "tanh"),
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    size, dropout = hf.size("hidden_size"), hf.probability("hidden_dropout_prob", 0.1)
    given = hf.get("cls_dropout", None)
    found = bert.label_heads(hf, dropout)
    for task in ("sequence-classification", "multiple-choice"):
        found[task] = replace(
            found[task],
            pooling="first",
            input_dropout=hf.probability("pooler_dropout", 0.0),
            dense_size=hf.size("pooler_hidden_size", size),
            hidden_act=hf.name("pooler_hidden_act", "gelu"),
            classifier_dropout=dropout if given is None else hf.probability("cls_dropout"),
        )
    found["sequence-classification"] = replace(found["sequence-classification"], soft_labels=True)
    activation, eps = hf.name("hidden_act", "gelu"), hf.number("layer_norm_eps", 1e-7)
    width = hf.size("embedding_size", size) if hf.flag("legacy", True) else size
    words = bert.word_head(hf, width, activation, eps)
    # the head of the original code has no projection of its own, whatever the config says of ties
    found["masked-lm"] = words if hf.flag("legacy", True) else replace(words, tied=True)
    return found


ATTENTION, LAYER = "encoder.layers.{i}.attention.self_attention", "encoder.layer.{i}.attention.self"
NAMES_OF_ITS_OWN: Table = {
    f"{ATTENTION}.Q": f"{LAYER}.query_proj",
    f"{ATTENTION}.K": f"{LAYER}.key_proj",
    f"{ATTENTION}.V": f"{LAYER}.value_proj",
    f"{ATTENTION}.pos_Q": f"{LAYER}.pos_query_proj",
    f"{ATTENTION}.pos_K": f"{LAYER}.pos_key_proj",
    "embedder.projection": "embeddings.embed_proj",
    "encoder.relative_emb": "encoder.rel_embeddings",
    "encoder.relative_norm": "encoder.LayerNorm",
    "encoder.convolution.conv": "encoder.conv.conv",
    "encoder.convolution.layer_norm": "encoder.conv.LayerNorm",
}
POOLED: Table = {"head.dense": "pooler.dense", "head.projection": "classifier"}
# v3 files name the masked-lm head as the original code did; Hugging Face calls its own names "legacy".
V3 = "lm_predictions.lm_head"


def fresh_names(names: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    if not names[0].startswith(V3):
        return usual_names(names, config)
    return names[:1] if config.get("legacy") is False else usual_names(names[1:], config)


ARCHITECTURE = Architecture(
    model_types={"deberta-v2": "DebertaV2"},
    read=read,
    heads=heads,
    prefix="deberta.",
    weights={k: v for k, v in bert.WEIGHTS.items() if k != "pooler.dense"} | NAMES_OF_ITS_OWN,
    head_weights=bert.LABEL_HEADS
    | {
        "sequence-classification": POOLED,
        "multiple-choice": POOLED,
        "masked-lm": {
            "head.dense": either(f"{V3}.dense", "cls.predictions.transform.dense"),
            "head.layer_norm": either(f"{V3}.LayerNorm", "cls.predictions.transform.LayerNorm"),
            "head.projection.weight": "cls.predictions.decoder.weight",
            "head.projection.bias": either(
                f"{V3}.bias", "cls.predictions.decoder.bias", "cls.predictions.bias"
            ),
        },
    },
    unused_tensors=(
        "embeddings.position_ids",
        "embeddings.position_embeddings",
        "mask_predictions.dense",
        "mask_predictions.classifier",
        "mask_predictions.LayerNorm",
    ),
    stack=DisentangledStack,
    canonical_names=fresh_names,
)
