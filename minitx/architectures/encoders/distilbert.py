"""DistilBERT (arXiv:1910.01108): half of BERT's layers.

Differs from BERT: no token types, no pooler; other names in the config and in the checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, attention_entries
from minitx.config import (
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    StackConfig,
    TransformConfig,
)
from minitx.layers.embedding import sinusoids
from minitx.models import Model
from minitx.models.initialization import Draw, Rules

EPS = 1e-12  # fixed in this architecture, not in its config


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    hf.expect("pruned_heads", {}, None)
    size, heads, norm = hf.size("dim"), hf.size("n_heads"), NormConfig(eps=EPS)
    dropout = hf.probability("dropout", 0.1)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, pad=0, positions=LearnedPositions(), norm=norm, dropout=dropout),
        encoder=StackConfig(
            hidden_size=size,
            num_hidden_layers=hf.size("n_layers"),
            layer=LayerConfig(
                attention=attention(hf, size, heads, dropout=hf.probability("attention_dropout", 0.1)),
                feed_forward=feed_forward(
                    hf.size("hidden_dim"), hf.activation("activation", "gelu"), dropout
                ),
                norm=norm,
            ),
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    size = hf.size("dim")
    by_task = bert.label_heads(hf, hf.probability("dropout", 0.1))
    for task in ("sequence-classification", "multiple-choice"):
        by_task[task] = replace(
            by_task[task],
            pooling="first",
            transform=TransformConfig(size=size, hidden_act="relu"),
            classifier_dropout=hf.probability("seq_classif_dropout", 0.2),
        )
    by_task["question-answering"] = replace(
        by_task["question-answering"], classifier_dropout=hf.probability("qa_dropout", 0.1)
    )
    by_task["masked-lm"] = bert.word_head(hf, size, hf.activation("activation", "gelu"), EPS)
    return by_task


def initialization(model: Model) -> Rules:
    """Fills the position table with sinusoids if the config asks for it."""
    sinusoidal = ConfigReader(model.checkpoint.config).flag("sinusoidal_pos_embds", False)
    return {"embedder.pos_emb.weight": Draw(value=table)} if sinusoidal else {}


def table(parameter: Tensor) -> Tensor:
    """Returns the sinusoids of all positions, sines and cosines alternating: (P, E) -> (P, E)."""
    positions, size = parameter.shape
    halves = sinusoids("tensor2tensor", torch.arange(positions, device=parameter.device), size)
    features = torch.arange(size, device=parameter.device)
    return halves[:, features // 2 + features % 2 * ((size + 1) // 2)]


LAYER_PREFIX, SOURCE_LAYER = "encoder.layers.{i}", "transformer.layer.{i}"
FIRST_TOKEN: Table = {"head.dense": "pre_classifier", "head.projection": "classifier"}

ARCHITECTURE = Architecture(
    model_types={"distilbert": "DistilBert"},
    read=read,
    heads=heads,
    initialization=initialization,
    prefix="distilbert.",
    weights={
        "embedder.word_emb": "embeddings.word_embeddings",
        "embedder.pos_emb": "embeddings.position_embeddings",
        "embedder.layer_norm": "embeddings.LayerNorm",
        **attention_entries(
            f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attention", "q_lin k_lin v_lin out_lin"
        ),
        f"{LAYER_PREFIX}.attention.self_output.layer_norm": f"{SOURCE_LAYER}.sa_layer_norm",
        f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.ffn.lin1",
        f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.ffn.lin2",
        f"{LAYER_PREFIX}.output.layer_norm": f"{SOURCE_LAYER}.output_layer_norm",
    },
    head_weights=bert.LABEL_HEADS
    | {
        "sequence-classification": FIRST_TOKEN,
        "multiple-choice": FIRST_TOKEN,
        "masked-lm": {
            "head.dense": "vocab_transform",
            "head.layer_norm": "vocab_layer_norm",
            "head.projection": "vocab_projector",
        },
    },
    unused_tensors=("embeddings.position_ids",),
)
