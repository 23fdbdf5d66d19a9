"""DeBERTa-v2 and v3 (arXiv:2006.03654, 2111.09543): content and position attend apart.

Differs from BERT: scores are the sum of content-to-content, content-to-position and position-to-content
(equation 4), with positions only relative, in buckets that widen with distance. v2 adds a convolution beside
the first layer. Its attention and stack are in layers/disentangled.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture, usual_names
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, either
from minitx.config import Disentangled, HeadConfig, LearnedPositions, ModelConfig, TransformConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = bert.read(hf, eps=1e-7)
    size = config.inputs.hidden_size
    width = hf.size("embedding_size", size)
    stored = hf.get("pos_att_type", None) or []
    named = stored.lower().split("|") if isinstance(stored, str) else stored
    kinds = frozenset(str(kind).strip() for kind in named) - {""} if isinstance(named, list) else {"?"}
    hf.expect("attention_head_size", config.stack.layer.attention.head_dim)
    norm = [part.strip() for part in hf.name("norm_rel_ebd", "none").lower().split("|")]
    rows = hf.size_or_none("max_relative_positions") or config.text_inputs.max_position_embeddings
    buckets = hf.size_or_none("position_buckets") or 0
    positions = hf.build(
        Disentangled,
        relative_attention=hf.flag("relative_attention", False),
        max_relative_positions=rows,
        position_buckets=buckets,
        pos_att_type=frozenset(kinds),
        share_att_key=hf.flag("share_att_key", False),
        dropout=hf.probability("hidden_dropout_prob", 0.1),
        norm_rel_ebd="layer_norm" in norm,
        conv_kernel_size=hf.size("conv_kernel_size", 0, least=0),
        conv_groups=hf.size("conv_groups", 1),
        conv_act=hf.activation("conv_act", "tanh"),
    )
    config = replace_in(
        config,
        "inputs",
        embedding_size=width,
        projection="none" if width == size else "before_norm",
        positions=LearnedPositions() if hf.flag("position_biased_input", True) else None,
        type_vocab_size=hf.size("type_vocab_size", 0, least=0),
    )
    return replace_in(config, "encoder", positions=positions)


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    size, dropout = hf.size("hidden_size"), hf.probability("hidden_dropout_prob", 0.1)
    cls_dropout = hf.get("cls_dropout", None)
    by_task = bert.label_heads(hf, dropout)
    for task in ("sequence-classification", "multiple-choice"):
        by_task[task] = replace(
            by_task[task],
            pooling="first",
            input_dropout=hf.probability("pooler_dropout", 0.0),
            transform=TransformConfig(
                size=hf.size("pooler_hidden_size", size),
                hidden_act=hf.activation("pooler_hidden_act", "gelu"),
            ),
            classifier_dropout=dropout if cls_dropout is None else hf.probability("cls_dropout"),
        )
    by_task["sequence-classification"] = replace(by_task["sequence-classification"], soft_labels=True)
    activation, eps = hf.activation("hidden_act", "gelu"), hf.number("layer_norm_eps", 1e-7)
    width = hf.size("embedding_size", size) if hf.flag("legacy", True) else size
    words = bert.word_head(hf, width, activation, eps)
    # the head of the original code is always tied, whatever tie_word_embeddings is
    by_task["masked-lm"] = words if hf.flag("legacy", True) else replace(words, tied=True)
    return by_task


ATTENTION, SOURCE_ATTENTION = (
    f"{bert.LAYER_PREFIX}.attention.self_attention",
    f"{bert.SOURCE_LAYER}.attention.self",
)
RELATIVE_WEIGHTS: Table = {
    f"{ATTENTION}.Q": f"{SOURCE_ATTENTION}.query_proj",
    f"{ATTENTION}.K": f"{SOURCE_ATTENTION}.key_proj",
    f"{ATTENTION}.V": f"{SOURCE_ATTENTION}.value_proj",
    f"{ATTENTION}.pos_Q": f"{SOURCE_ATTENTION}.pos_query_proj",
    f"{ATTENTION}.pos_K": f"{SOURCE_ATTENTION}.pos_key_proj",
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
    """Returns the name under which a fresh model saves an entry."""
    if not names[0].startswith(V3):
        return usual_names(names, config)
    return names[:1] if config.get("legacy") is False else usual_names(names[1:], config)


ARCHITECTURE = Architecture(
    model_types={"deberta-v2": "DebertaV2"},
    read=read,
    heads=heads,
    prefix="deberta.",
    weights={k: v for k, v in bert.WEIGHTS.items() if k != "pooler.dense"} | RELATIVE_WEIGHTS,
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
    canonical_names=fresh_names,
)
