"""T5 (arXiv:1910.10683), with T5 1.1, Flan-T5, mT5, ByT5 and UMT5: one task format for every text task.

- pre-norm with RMS norms, no biases anywhere; scores are not divided by the root of head_dim
- no positions but a learned bias per head and distance, shared by the layers (UMT5: one per layer)
- dropout after the embedding and after the final norm too
- where the head is the word embedding, hidden states are scaled down before it; a UMT5 with
  tie_word_embeddings=false is not scaled, as it was trained, though transformers scales every UMT5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, attention_entries, either
from minitx.config import (
    HeadConfig,
    LayerConfig,
    ModelConfig,
    NormConfig,
    RelativeBias,
    StackConfig,
    TransformConfig,
    replace_in,
)
from minitx.layers.activation import ACTIVATIONS, CUSTOM
from minitx.models import Model
from minitx.models.initialization import Draw, Rules
from minitx.validation import check_choice


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    mt5, umt5 = (hf.get("model_type", None) == kind for kind in ("mt5", "umt5"))
    hf.expect("is_decoder", False)
    size, layers = hf.size("d_model"), hf.size("num_layers")
    decoder_layers = hf.get("num_decoder_layers", None)  # null: as in the encoder
    act, gated = activation(hf, "gated-gelu" if mt5 or umt5 else "relu")
    dropout, factor = hf.probability("dropout_rate", 0.1), hf.number("initializer_factor", 1.0)
    inputs = text_inputs(hf, size, pad=0, length=512, padding_is_trained=True, dropout=dropout)
    buckets = hf.size("relative_attention_num_buckets", 32, least=4)
    encoder = StackConfig(
        hidden_size=size,
        num_hidden_layers=layers,
        layer=LayerConfig(
            attention=attention(
                hf,
                size,
                hf.size("num_heads"),
                head_dim=hf.size("d_kv"),
                bias=False,
                output_bias=False,
                scale=1.0,
                dropout=dropout,
                output_dropout=dropout,
            ),
            feed_forward=feed_forward(
                hf.size("d_ff"),
                act,
                dropout,
                gated=gated,
                bias=False,
                dropout=dropout,
            ),
            norm=NormConfig(kind="rms_norm", eps=hf.number("layer_norm_epsilon", 1e-6)),
            norm_placement="pre",
        ),
        positions=RelativeBias(
            num_buckets=buckets,
            max_distance=hf.size("relative_attention_max_distance", 128, least=buckets // 2 + 1),
            per_layer=umt5,
        ),
        final_dropout=dropout,
    )
    decoder = replace(
        replace_in(encoder, "layer", cross_attention=True),
        causal=True,
        num_hidden_layers=layers if decoder_layers is None else hf.size("num_decoder_layers"),
    )
    return ModelConfig(
        initializer_range=factor,  # of the word embedding; `initialization` has the rest
        inputs=inputs,
        encoder=encoder,
        decoder_inputs=inputs,
        decoder=decoder,
        decoder_start_token_id=hf.token_id("decoder_start_token_id", 0),
        eos_token_id=hf.token_id("eos_token_id", 1),
    )


def activation(hf: ConfigReader, usual: str) -> tuple[str, bool]:
    """Returns the activation of the feed-forward networks, and whether they are gated.

    Raises:
        ArgumentValueError: no such form, or keys that contradict each other.
    """
    stored = hf.name("feed_forward_proj", usual)
    gate, _, act = stored.rpartition("-")
    if gate not in ("", "gated"):
        raise hf.error("feed_forward_proj", stored, "NAME or gated-NAME")
    act = "gelu_new" if stored == "gated-gelu" else act
    check_choice(f"{hf.where}: feed_forward_proj", act, ACTIVATIONS, CUSTOM)
    hf.expect("dense_act_fn", act)  # transformers derives both, and files repeat them
    hf.expect("is_gated_act", gate == "gated")
    return act, gate == "gated"


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    size, labels, dropout = hf.size("d_model"), hf.num_labels(), hf.probability("classifier_dropout", 0.0)
    # T5 1.1 and UMT5 have tie_word_embeddings=false, which here means only: not scaled. transformers
    # (5.23) takes every UMT5 for tied, and its logits are smaller by that factor.
    tied = hf.flag("tie_word_embeddings", True)
    scaled = hf.get("model_type", None) != "mt5" and hf.flag("scale_decoder_outputs", tied)
    return {
        "seq2seq-lm": HeadConfig(
            task="seq2seq-lm",
            num_labels=hf.size("vocab_size"),
            bias=False,
            tied=True,
            scale=size**-0.5 if scaled else None,
        ),
        "sequence-classification": HeadConfig(
            task="sequence-classification",
            num_labels=labels,
            pooling="last",
            input_dropout=dropout,
            transform=TransformConfig(size=size, hidden_act="tanh"),
            classifier_dropout=dropout,
            problem_type=hf.problem_type(),
        ),
        "token-classification": HeadConfig(
            task="token-classification", num_labels=labels, classifier_dropout=dropout
        ),
        "question-answering": HeadConfig(task="question-answering", num_labels=2),
    }


def initialization(model: Model) -> Rules:
    """Divides by the root of the number of inputs, for queries of head_dim too, as Mesh TensorFlow does."""
    stack, factor = model.config.encoder, model.config.initializer_range
    assert stack is not None
    size, inner = stack.hidden_size, stack.layer.feed_forward.intermediate_size
    heads, head_dim = stack.layer.attention.num_attention_heads, stack.layer.attention.head_dim
    words = Draw(std=factor, padding=True)
    by_inputs = Draw(std=factor * size**-0.5, padding=True)
    return {
        "*norm.weight": Draw(value=factor),
        "*.word_emb.weight": words,
        "head.projection.weight": words if model.task == "token-classification" else by_inputs,
        "*.Q.weight": Draw(std=factor * (size * head_dim) ** -0.5),
        "*_output.dense.weight": Draw(std=factor * (heads * head_dim) ** -0.5),
        "*.output.dense.weight": Draw(std=factor * inner**-0.5),
        "*.weight": by_inputs,
    }


def layer_names(stack: str, i: str, feed_forward: int) -> Table:
    """Returns the entries of one stack; `feed_forward` is the number of attentions before it in a layer."""
    layer, source = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
    dense = f"{source}.{feed_forward}.DenseReluDense"
    return {
        f"{layer}.attention_norm": f"{source}.0.layer_norm",
        f"{layer}.feed_forward_norm": f"{source}.{feed_forward}.layer_norm",
        f"{layer}.intermediate.gate": f"{dense}.wi_0",
        f"{layer}.intermediate.dense": either(f"{dense}.wi", f"{dense}.wi_1"),
        f"{layer}.output.dense": f"{dense}.wo",
        f"{stack}.relative_bias.{i}": f"{source}.0.SelfAttention.relative_attention_bias",
        f"{stack}.layer_norm": f"{stack}.final_layer_norm",
        **attention_entries(f"{layer}.attention", f"{source}.0.SelfAttention", "q k v o"),
    }


def fresh_names(names: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the last name of an entry, except the name that only a feed-forward without a gate has."""
    usual = "relu" if config["model_type"] == "t5" else "gated-gelu"
    gated = str(config.get("feed_forward_proj", usual)).startswith("gated")
    return names[:1] if names[0].endswith(".wi.weight") and not gated else names[-1:]


CROSS, SOURCE_CROSS = "decoder.layers.{j}.cross_attention", "decoder.block.{j}.layer.1"

ARCHITECTURE = Architecture(
    model_types={"t5": "T5", "mt5": "MT5", "umt5": "UMT5"},
    read=read,
    heads=heads,
    initialization=initialization,
    prefix="transformer.",
    tasks_without_prefix=frozenset({"seq2seq-lm", "question-answering"}),
    encoder_tasks=frozenset({"encoder", "token-classification"}),
    weights={
        "embedder.word_emb": either("encoder.embed_tokens", "shared"),
        "decoder_embedder.word_emb": "decoder.embed_tokens",
        **layer_names("encoder", "{i}", 1),
        **layer_names("decoder", "{j}", 2),
        f"{CROSS}_norm": f"{SOURCE_CROSS}.layer_norm",
        **attention_entries(CROSS, f"{SOURCE_CROSS}.EncDecAttention", "q k v o", "cross"),
    },
    head_weights={
        "seq2seq-lm": {"head.projection": "lm_head"},
        "sequence-classification": {
            "head.dense": "classification_head.dense",
            "head.projection": "classification_head.out_proj",
        },
        "token-classification": {"head.projection": "classifier"},
        "question-answering": {"head.projection": "qa_outputs"},
    },
    canonical_names=fresh_names,
    float32_in_half=(".output.dense.",),
    unused_tensors=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias",),
)
