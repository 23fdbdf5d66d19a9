"""ALBERT (arXiv:1909.11942): few parameters, used many times.

Differs from BERT: layers share their parameters in groups; embeddings are narrow and projected; the
feed-forward branch has no dropout.
"""

from __future__ import annotations

from minitx.architectures.config_reader import MOST_LAYERS, ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, attention_entries, either
from minitx.config import HeadConfig, ModelConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    # Records of the original implementation, always at these values where they stand in a file.
    hf.expect("net_structure_type", 0)
    hf.expect("gap_size", 0)
    hf.expect("num_memory_blocks", 0)
    hf.expect("down_scale_factor", 1)
    config = bert.read(hf, act="gelu_new", dropout=0.0)
    width = hf.size("embedding_size")
    config = replace_in(config, "inputs", embedding_size=width, projection="after_dropout")
    config = replace_in(config, "encoder.layer.feed_forward", output_dropout=None)
    groups, inner = hf.size("num_hidden_groups", 1), hf.size("inner_group_num", 1)
    if groups > config.stack.num_hidden_layers or groups * inner > MOST_LAYERS:
        expected = f"at most {config.stack.num_hidden_layers}, with inner_group_num={inner} layers each"
        raise hf.error("num_hidden_groups", groups, expected)
    return replace_in(config, "encoder", num_hidden_groups=groups, inner_group_num=inner)


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    by_task = bert.label_heads(hf, hf.probability("classifier_dropout_prob", 0.1))
    eps, activation = hf.number("layer_norm_eps", 1e-12), hf.activation("hidden_act", "gelu_new")
    by_task["masked-lm"] = bert.word_head(hf, hf.size("embedding_size"), activation, eps)
    return by_task


def layers(config: ModelConfig) -> list[dict[str, int]]:
    """Returns the placeholders: layer {i} is layer {k} of group {g}."""
    groups, inner = config.stack.num_hidden_groups or 1, config.stack.inner_group_num
    return [{"i": g * inner + k, "g": g, "k": k} for g in range(groups) for k in range(inner)]


LAYER_PREFIX, SOURCE_LAYER = "encoder.layers.{i}", "encoder.albert_layer_groups.{g}.albert_layers.{k}"

WEIGHTS: Table = {
    "embedder.word_emb": "embeddings.word_embeddings",
    "embedder.pos_emb": "embeddings.position_embeddings",
    "embedder.tok_type_emb": "embeddings.token_type_embeddings",
    "embedder.layer_norm": "embeddings.LayerNorm",
    "embedder.projection": "encoder.embedding_hidden_mapping_in",
    **attention_entries(f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attention", "query key value dense"),
    f"{LAYER_PREFIX}.attention.self_output.layer_norm": f"{SOURCE_LAYER}.attention.LayerNorm",
    f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.ffn",
    f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.ffn_output",
    f"{LAYER_PREFIX}.output.layer_norm": f"{SOURCE_LAYER}.full_layer_layer_norm",
    "pooler.dense": "pooler",
}

ARCHITECTURE = Architecture(
    model_types={"albert": "Albert"},
    read=read,
    heads=heads,
    prefix="albert.",
    weights=WEIGHTS,
    head_weights=bert.LABEL_HEADS
    | {
        "masked-lm": {
            "head.dense": "predictions.dense",
            "head.layer_norm": "predictions.LayerNorm",
            "head.projection.weight": "predictions.decoder.weight",
            "head.projection.bias": either("predictions.decoder.bias", "predictions.bias"),
        },
    },
    tasks_with_pooler=frozenset({"none", "sequence-classification", "multiple-choice"}),
    unused_tensors=("embeddings.position_ids", "embeddings.token_type_ids", "sop_classifier.classifier"),
    layers=layers,
    pretraining="masked-lm",
)
