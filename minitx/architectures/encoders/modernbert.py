"""ModernBERT (arXiv:2412.13663): an encoder with the decoders' progress of six years.

Differs from BERT: pre-norm (the embedder's norm serves layer 0) with a final norm; rotary positions, no
table; gated feed-forward; every third layer sees the whole text, the others a window, and the two kinds
turn at different bases; no biases unless the config says so; every head has its own transform.
"""

from __future__ import annotations

from typing import Any

from minitx.architectures._rope import WHERE, an_object, check_per_type
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, split
from minitx.config import EmbedderConfig, HeadConfig, ModelConfig, Pooling, RopeConfig, StackConfig
from minitx.layers.stack import FULL, SLIDING


def layer_types(hf: ConfigReader, layers: int) -> tuple[str, ...]:
    """Written out by newer configs; older ones give the distance between global layers."""
    every = hf.size("global_attn_every_n_layers", 3)
    written = hf.get("layer_types", None)
    if written is None:
        return tuple(SLIDING if i % every else FULL for i in range(layers))
    if (
        not isinstance(written, list)
        or len(written) != layers
        or any(kind not in (FULL, SLIDING) for kind in written)
    ):
        raise ValueError(f"config.json: layer_types must name {layers} layers, each {FULL!r} or {SLIDING!r}.")
    return tuple(written)


def rope_theta(hf: ConfigReader) -> dict[str, float]:
    """`rope_parameters` per kind of layer in newer configs, two plain numbers in older ones."""
    shared = hf.positive("global_rope_theta", 160_000.0)
    # null: the local layers turn like the global ones
    local = hf.positive_or_none("local_rope_theta", 10_000.0) or shared
    old = {FULL: shared, SLIDING: local}
    hf.expect("rope_scaling", None)
    written = an_object(WHERE, hf.get("rope_parameters", None))
    check_per_type(written, old)
    theta: dict[str, float] = {}
    for kind, base in old.items():
        where = f"{WHERE}[{kind!r}]"
        rope = ConfigReader(an_object(where, written.get(kind)), where)
        rope.expect("rope_type", "default")
        theta[kind] = rope.positive("rope_theta", base)
        if unknown := rope.unread():
            raise ValueError(f"{where} has {', '.join(unknown)}, which is not implemented.")
    return theta


def read(hf: ConfigReader) -> ModelConfig:
    # How its own code ran and trained; none of it changes a number here.
    hf.ignore("deterministic_flash_attn", "reference_compile", "repad_logits_with_grad")
    hf.ignore("sparse_prediction", "sparse_pred_ignore_index", "initializer_cutoff_factor")
    size, heads, vocab_size = (
        hf.size("hidden_size"),
        hf.size("num_attention_heads"),
        hf.size("vocab_size"),
    )
    if hf.head_dim(size, heads) % 2:
        raise ValueError(f"config.json: hidden_size={size} over {heads} heads is odd; rotary turns pairs.")
    layers, eps = hf.size("num_hidden_layers"), hf.number("norm_eps", 1e-5)
    dropout, norm_bias = hf.probability("attention_dropout", 0.0), hf.flag("norm_bias", False)
    attention_bias, head_dim = hf.flag("attention_bias", False), hf.head_dim(size, heads)
    hf.ignore("layer_norm_eps", "position_embedding_type")  # in older configs, and unused there too
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        embedder=EmbedderConfig(
            vocab_size=vocab_size,
            embedding_size=size,
            hidden_size=size,
            pad_token_id=hf.pad_token_id(vocab_size),
            max_position_embeddings=hf.size("max_position_embeddings"),
            position_embeddings=False,
            layer_norm_eps=eps,
            norm_bias=norm_bias,
            hidden_dropout_prob=hf.probability("embedding_dropout", 0.0),
        ),
        encoder=StackConfig(
            hidden_size=size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            head_dim=head_dim,
            intermediate_size=hf.size("intermediate_size"),
            hidden_act=hf.name("hidden_activation", "gelu"),
            gated=True,
            layer_norm_eps=eps,
            norm_bias=norm_bias,
            norm_placement="pre",
            first_attention_norm=False,
            attention_bias=attention_bias,
            attention_output_bias=attention_bias,
            mlp_bias=hf.flag("mlp_bias", False),
            attention_dropout=dropout,
            self_output_dropout=dropout,
            activation_dropout=hf.probability("mlp_dropout", 0.0),
            output_dropout=None,
            layer_types=layer_types(hf, layers),
            sliding_window=hf.size("local_attention", 128) // 2 + 1,  # as far to either side, and itself
            rope={
                kind: RopeConfig(rope_theta=theta, rotary_dim=head_dim)
                for kind, theta in rope_theta(hf).items()
            },
        ),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    pooling: Pooling = "mean" if hf.expect("classifier_pooling", "cls", "mean") == "mean" else "first"
    shared: dict[str, Any] = {
        "dense_size": hf.size("hidden_size"),
        "dense_bias": hf.flag("classifier_bias", False),
        "hidden_act": hf.name("classifier_activation", "gelu"),
        "layer_norm_eps": hf.number("norm_eps", 1e-5),
        "norm_bias": hf.flag("norm_bias", False),
    }
    words = HeadConfig(
        task="masked-lm",
        num_labels=hf.size("vocab_size"),
        bias=hf.flag("decoder_bias", True),
        tied=hf.flag("tie_word_embeddings", True),
        **shared,
    )
    shared["classifier_dropout"] = hf.probability("classifier_dropout", 0.0)
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
