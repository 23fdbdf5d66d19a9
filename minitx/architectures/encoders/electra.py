"""ELECTRA (arXiv:2003.10555): a generator that fills masks, a discriminator that detects replaced tokens.

Differs from BERT: embeddings with their own width, projected if it differs; no pooler; a head that detects
for each token whether it was replaced.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert, roberta
from minitx.architectures.mapping import Table
from minitx.config import HeadConfig, ModelConfig, Projection, TransformConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = bert.read(hf)
    size, hidden = hf.size("embedding_size", 128), config.inputs.hidden_size
    projection: Projection = "none" if size == hidden else "after_dropout"
    return replace_in(config, "inputs", embedding_size=size, projection=projection)


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    hf.expect("summary_type", "first")
    hf.expect("summary_use_proj", True)
    size, dropout = hf.size("hidden_size"), bert.classifier_dropout(hf)
    by_task = bert.label_heads(hf, dropout)
    by_task["sequence-classification"] = roberta.first_token_head(
        by_task["sequence-classification"], size, "gelu", dropout
    )
    by_task["multiple-choice"] = replace(
        by_task["multiple-choice"],
        pooling="first",
        transform=TransformConfig(size=size, hidden_act=hf.activation("summary_activation", "gelu")),
        classifier_dropout=hf.probability("summary_last_dropout", 0.1),
    )
    eps, activation = hf.number("layer_norm_eps", 1e-12), hf.activation("hidden_act", "gelu")
    by_task["masked-lm"] = bert.word_head(hf, hf.size("embedding_size", 128), "gelu", eps)
    transform = TransformConfig(size=size, hidden_act=activation)
    by_task["replaced-token-detection"] = HeadConfig(
        task="replaced-token-detection", num_labels=1, transform=transform
    )
    return by_task


WEIGHTS: Table = {name: source for name, source in bert.WEIGHTS.items() if name != "pooler.dense"} | {
    "embedder.projection": "embeddings_project"
}

ARCHITECTURE = Architecture(
    model_types={"electra": "Electra"},
    read=read,
    heads=heads,
    prefix="electra.",
    weights=WEIGHTS,
    head_weights=bert.LABEL_HEADS
    | {
        "sequence-classification": roberta.HEAD_WEIGHTS["sequence-classification"],
        "multiple-choice": {
            "head.dense": "sequence_summary.summary",
            "head.projection": "classifier",
        },
        "masked-lm": {
            "head.dense": "generator_predictions.dense",
            "head.layer_norm": "generator_predictions.LayerNorm",
            "head.projection": "generator_lm_head",
        },
        "replaced-token-detection": {
            "head.dense": "discriminator_predictions.dense",
            "head.projection": "discriminator_predictions.dense_prediction",
        },
    },
    unused_tensors=("embeddings.position_ids", "embeddings.token_type_ids"),
    pretraining="replaced-token-detection",
)
