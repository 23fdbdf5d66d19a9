"""RoBERTa (arXiv:1907.11692), XLM-R (1911.02116) and CamemBERT (1911.03894), one network.

Differs from BERT: positions start at pad_token_id + 1 and skip padding; norm eps 1e-5; the sequence head has
a transform of the first token in place of the pooler.
"""

from __future__ import annotations

from dataclasses import replace

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, either
from minitx.config import HeadConfig, LearnedPositions, ModelConfig, TransformConfig, replace_in


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = bert.read(hf)
    pad = hf.pad_token_id(config.text_inputs.vocab_size, 1)
    if hf.config.get("pad_token_id") == -1:  # no token is padding, and positions are counted from 0
        return replace_in(config, "inputs", pad_token_id=None)
    if pad is None:
        raise hf.error(
            "pad_token_id", hf.config["pad_token_id"], "a token id", "positions are counted from it"
        )
    if pad >= config.text_inputs.max_position_embeddings - 1:
        expected = f"more than pad_token_id={pad} + 1"
        raise hf.error("max_position_embeddings", config.text_inputs.max_position_embeddings, expected)
    return replace_in(config, "inputs", pad_token_id=pad, positions=LearnedPositions(numbering="padding"))


def first_token_head(head: HeadConfig, size: int, activation: str, dropout: float) -> HeadConfig:
    """Returns a head of the first token: dropout, a transform, and dropout again."""
    return replace(
        head,
        pooling="first",
        input_dropout=dropout,
        transform=TransformConfig(size=size, hidden_act=activation),
        classifier_dropout=dropout,
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    size, dropout = hf.size("hidden_size"), bert.classifier_dropout(hf)
    by_task = bert.label_heads(hf, dropout)
    # The pooled choice head uses the dropout of the network.
    by_task["multiple-choice"] = replace(
        by_task["multiple-choice"], classifier_dropout=hf.probability("hidden_dropout_prob", 0.1)
    )
    by_task["sequence-classification"] = first_token_head(
        by_task["sequence-classification"], size, "tanh", dropout
    )
    by_task["masked-lm"] = bert.word_head(hf, size, "gelu", hf.number("layer_norm_eps", 1e-12))
    return by_task


HEAD_WEIGHTS: dict[str, Table] = bert.LABEL_HEADS | {
    "sequence-classification": {
        "head.dense": "classifier.dense",
        "head.projection": "classifier.out_proj",
    },
    "masked-lm": {
        "head.dense": "lm_head.dense",
        "head.layer_norm": "lm_head.layer_norm",
        "head.projection.weight": "lm_head.decoder.weight",
        "head.projection.bias": either("lm_head.decoder.bias", "lm_head.bias"),
    },
}

ARCHITECTURE = Architecture(
    model_types={"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"},
    read=read,
    heads=heads,
    prefix="roberta.",
    weights=bert.WEIGHTS,
    head_weights=HEAD_WEIGHTS,
    tasks_with_pooler=frozenset({"none", "multiple-choice"}),
    unused_tensors=("embeddings.position_ids", "embeddings.token_type_ids"),
    cross_attention_weights=bert.CROSS_WEIGHTS,
)
