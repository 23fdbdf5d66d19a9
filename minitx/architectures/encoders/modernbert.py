"""ModernBERT (arXiv:2412.13663): an encoder with six years of progress in decoders.

Differs from BERT: pre-norm with a final norm, and the embedder's norm serves layer 0; RoPE, no position
table; gated feed-forward; full attention in every third layer and a window in the others, with two RoPE
bases; no biases by default; every head has its own transform.
"""

from __future__ import annotations

import math
from typing import Any

from minitx.architectures._decoder import layer_types
from minitx.architectures._rope import WHERE, an_object, check_per_type
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, split
from minitx.config import (
    HeadConfig,
    LayerConfig,
    ModelConfig,
    NormConfig,
    Pooling,
    RopeConfig,
    Rotary,
    StackConfig,
    TransformConfig,
)
from minitx.config.model import FULL, SLIDING
from minitx.models import Model
from minitx.models.initialization import Draw, Rules


def alternating_types(hf: ConfigReader, layers: int) -> tuple[str, ...]:
    """Returns the type of each layer; older configs give the distance between global layers."""
    every = hf.size("global_attn_every_n_layers", 3)
    return layer_types(hf, tuple(SLIDING if i % every else FULL for i in range(layers)))


def ropes(hf: ConfigReader, head_dim: int) -> dict[str, RopeConfig]:
    """Returns the RoPE of each layer type: `rope_parameters` of newer configs, two numbers of older ones."""
    shared = hf.positive("global_rope_theta", 160_000.0)
    local = hf.positive_or_none("local_rope_theta", 10_000.0) or shared  # null: the global one
    defaults = {FULL: shared, SLIDING: local}
    hf.expect("rope_scaling", None)
    stored = an_object(WHERE, hf.get("rope_parameters", None))
    check_per_type(stored, defaults)
    ropes = {}
    for kind, base in defaults.items():
        where = f"{WHERE}[{kind!r}]"
        values = ConfigReader(an_object(where, stored.get(kind)), where)
        values.expect("rope_type", "default")
        ropes[kind] = RopeConfig(rope_theta=values.positive("rope_theta", base), rotary_dim=head_dim)
        if unknown := values.unread():
            raise ValueError(f"{where} has {', '.join(unknown)}, which is not implemented.")
    return ropes


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    if hf.head_dim(size, heads) % 2:
        expected = f"an even multiple of the {heads} attention heads"
        raise hf.error("hidden_size", size, expected, "RoPE rotates pairs of features")
    layers, head_dim = hf.size("num_hidden_layers"), hf.head_dim(size, heads)
    norm = NormConfig(eps=hf.number("norm_eps", 1e-5), bias=hf.flag("norm_bias", False))
    dropout, bias = hf.probability("attention_dropout", 0.0), hf.flag("attention_bias", False)
    reach = hf.size("local_attention", 128) // 2
    hf.expect("sliding_window", reach)  # its second name
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, norm=norm, dropout=hf.probability("embedding_dropout", 0.0)),
        encoder=StackConfig(
            hidden_size=size,
            num_hidden_layers=layers,
            layer=LayerConfig(
                attention=attention(
                    hf, size, heads, bias=bias, output_bias=bias, dropout=dropout, output_dropout=dropout
                ),
                feed_forward=feed_forward(
                    hf.size("intermediate_size"),
                    hf.activation("hidden_activation", "gelu"),
                    gated=True,
                    bias=hf.flag("mlp_bias", False),
                    dropout=hf.probability("mlp_dropout", 0.0),
                ),
                norm=norm,
                norm_placement="pre",
            ),
            positions=Rotary(ropes=ropes(hf, head_dim)),
            first_attention_norm=False,
            layer_types=alternating_types(hf, layers),
            sliding_window=reach + 1,  # that many on either side, and itself
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    pooling: Pooling = "mean" if hf.expect("classifier_pooling", "cls", "mean") == "mean" else "first"
    transform = TransformConfig(
        size=hf.size("hidden_size"),
        bias=hf.flag("classifier_bias", False),
        hidden_act=hf.activation("classifier_activation", "gelu"),
        norm=NormConfig(eps=hf.number("norm_eps", 1e-5), bias=hf.flag("norm_bias", False)),
    )
    words = HeadConfig(
        task="masked-lm",
        num_labels=hf.size("vocab_size"),
        bias=hf.flag("decoder_bias", True),
        tied=hf.flag("tie_word_embeddings", True),
        transform=transform,
    )
    shared: dict[str, Any] = {
        "transform": transform,
        "classifier_dropout": hf.probability("classifier_dropout", 0.0),
    }
    labels, problem = hf.num_labels(), hf.problem_type()
    tasks: tuple[tuple[str, int, Pooling], ...] = (
        ("sequence-classification", labels, pooling),
        ("multiple-choice", 1, "mean" if pooling == "mean" else "first_attended"),
        ("token-classification", labels, "none"),
        ("question-answering", 2, "none"),
    )
    return {"masked-lm": words} | {
        task: HeadConfig(task=task, num_labels=size, pooling=pool, problem_type=problem, **shared)
        for task, size, pool in tasks
    }


def initialization(model: Model) -> Rules:
    """Truncated normals; smaller for the projections into the residual connections, larger for labels."""
    config, std = model.config, model.config.initializer_range
    cutoff = ConfigReader(model.checkpoint.config).number("initializer_cutoff_factor", 2.0)

    def _draw(std: float) -> Draw:
        return Draw(std=std, bound=std * cutoff, padding=True)

    residual = _draw(std / math.sqrt(2 * config.stack.num_hidden_layers))
    labels = _draw(config.stack.hidden_size**-0.5)
    return {
        "*norm.weight": Draw(value=1.0),
        "*output.dense.weight": residual,
        "head.dense.weight": residual,
        "head.projection.weight": residual if model.task == "masked-lm" else labels,
        "*.weight": _draw(std),
    }


ATTENTION = "encoder.layers.{i}.attention.self_attention"
HEAD: Table = {"head.dense": "head.dense", "head.layer_norm": "head.norm"}

WEIGHTS: Table = {
    "embedder.word_emb": "embeddings.tok_embeddings",
    "embedder.layer_norm": "embeddings.norm",
    "encoder.layers.{i}.attention_norm": "layers.{i}.attn_norm",
    (f"{ATTENTION}.Q", f"{ATTENTION}.K", f"{ATTENTION}.V"): split("layers.{i}.attn.Wqkv"),
    "encoder.layers.{i}.attention.self_output.dense": "layers.{i}.attn.Wo",
    "encoder.layers.{i}.feed_forward_norm": "layers.{i}.mlp_norm",
    ("encoder.layers.{i}.intermediate.gate", "encoder.layers.{i}.intermediate.dense"): split(
        "layers.{i}.mlp.Wi"
    ),
    "encoder.layers.{i}.output.dense": "layers.{i}.mlp.Wo",
    "encoder.layer_norm": "final_norm",
}

ARCHITECTURE = Architecture(
    model_types={"modernbert": "ModernBert"},
    read=read,
    heads=heads,
    initialization=initialization,
    prefix="model.",
    weights=WEIGHTS,
    head_weights={"masked-lm": HEAD | {"head.projection": "decoder"}}
    | {
        task: HEAD | {"head.projection": "classifier"}
        for task in (
            "sequence-classification",
            "multiple-choice",
            "token-classification",
            "question-answering",
        )
    },
)
