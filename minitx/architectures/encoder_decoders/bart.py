"""BART (arXiv:1910.13461): fairseq's encoder-decoder, with which its relatives are compared.

- post-norm, with a norm after the embedding; learned positions, whose table begins with two spare rows
- encoder and decoder share their word embedding, which is the last projection too, with a bias
- the sequence head pools the decoder at the last end token
"""

from __future__ import annotations

from typing import Any

from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, attention_entries, either, row_or_zero
from minitx.config import (
    EmbeddedPositions,
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    NormPlacement,
    StackConfig,
    TransformConfig,
)

POSITIONS = LearnedPositions(offset=2)
# Values of keys that a config.json may lack.
DEFAULTS: dict[str, Any] = {
    "activation_function": "gelu",
    "scale_embedding": False,
    "attention_dropout": 0.0,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
    "eos_token_id": 2,
}


def read(
    hf: ConfigReader,
    *,
    norm: NormPlacement = "post",
    embedding_norm: bool = True,
    positions: EmbeddedPositions = POSITIONS,
    **defaults: Any,
) -> ModelConfig:
    """Reads the keys that most relatives share.

    Args:
        hf: the config.
        norm: placement of the norms.
        embedding_norm: whether a norm follows the embeddings.
        positions: added to the embeddings; the table has entries before the first position.
        defaults: values of absent keys, where they differ from `DEFAULTS`.
    """
    defaults = DEFAULTS | defaults
    hf.expect("is_decoder", False)
    size, dropout, norm_config = hf.size("d_model"), hf.probability("dropout", 0.1), NormConfig(eps=1e-5)
    inputs = text_inputs(
        hf,
        size,
        pad=defaults["pad_token_id"],
        length=hf.size("max_position_embeddings") + getattr(positions, "offset", 0),
        positions=positions,
        embedding_scale=size**0.5 if hf.flag("scale_embedding", defaults["scale_embedding"]) else None,
        norm=norm_config if embedding_norm else None,
        dropout=dropout,
    )

    def _stack(name: str) -> StackConfig:
        heads, width = hf.size(f"{name}_attention_heads"), hf.size(f"{name}_ffn_dim")
        act = hf.activation("activation_function", defaults["activation_function"])
        inner_dropout = hf.probability("activation_dropout", 0.0)
        weights = hf.probability("attention_dropout", defaults["attention_dropout"])
        layer = LayerConfig(
            attention=attention(hf, size, heads, dropout=weights, output_dropout=dropout),
            feed_forward=feed_forward(width, act, dropout, dropout=inner_dropout),
            norm=norm_config,
            norm_placement=norm,
            cross_attention=name == "decoder",
        )
        layers, causal = hf.size(f"{name}_layers"), name == "decoder"
        return StackConfig(hidden_size=size, num_hidden_layers=layers, layer=layer, causal=causal)

    return ModelConfig(
        initializer_range=hf.number("init_std", 0.02),
        inputs=inputs,
        encoder=_stack("encoder"),
        decoder_inputs=inputs,
        decoder=_stack("decoder"),
        shared_embeddings=hf.flag("tie_word_embeddings", True),
        decoder_start_token_id=hf.token_id("decoder_start_token_id", defaults["decoder_start_token_id"]),
        eos_token_id=hf.token_id("eos_token_id", defaults["eos_token_id"]),
    )


def word_head(hf: ConfigReader, *, bias: bool = True) -> dict[str, HeadConfig]:
    """Returns the language-modelling head of the decoder."""
    return {
        "seq2seq-lm": HeadConfig(
            task="seq2seq-lm",
            num_labels=hf.size("vocab_size"),
            bias=bias,
            tied=hf.flag("tie_word_embeddings", True),
        )
    }


def heads(hf: ConfigReader, *, labels: int = 3) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    dropout = hf.probability("classifier_dropout", 0.0)
    return word_head(hf) | {
        "sequence-classification": HeadConfig(
            task="sequence-classification",
            num_labels=hf.num_labels(labels),
            pooling="last",
            input_dropout=dropout,
            transform=TransformConfig(size=hf.size("d_model"), hidden_act="tanh"),
            classifier_dropout=dropout,
            problem_type=hf.problem_type(),
        ),
        "question-answering": HeadConfig(task="question-answering", num_labels=2),
    }


def names(*, norm: NormPlacement = "post", embedding_norm: bool = True, positions: bool = True) -> Table:
    """Returns the entries of both stacks."""
    return {
        "embedder.word_emb": either("encoder.embed_tokens", "shared"),
        "decoder_embedder.word_emb": "decoder.embed_tokens",
        **embedder_names("embedder", "encoder", embedding_norm, positions),
        **embedder_names("decoder_embedder", "decoder", embedding_norm, positions),
        **layer_names("encoder", "encoder.layers.{i}", norm),
        **branch_names("attention", "self_attn", "encoder.layers.{i}", norm),
        **layer_names("decoder", "decoder.layers.{j}", norm),
        **branch_names("attention", "self_attn", "decoder.layers.{j}", norm),
        **branch_names("cross_attention", "encoder_attn", "decoder.layers.{j}", norm),
    }


def embedder_names(embedder: str, stack: str, embedding_norm: bool, positions: bool) -> Table:
    """Returns the entries of one embedder, apart from the word embedding."""
    table: Table = {f"{embedder}.pos_emb": f"{stack}.embed_positions"} if positions else {}
    return table | ({f"{embedder}.layer_norm": f"{stack}.layernorm_embedding"} if embedding_norm else {})


def layer_names(stack: str, layer: str, norm: NormPlacement) -> Table:
    """Returns the entries of the feed-forward and of the norms of one stack."""
    table: Table = {f"{layer}.intermediate.dense": f"{layer}.fc1", f"{layer}.output.dense": f"{layer}.fc2"}
    if norm == "post":
        return table | {f"{layer}.output.layer_norm": f"{layer}.final_layer_norm"}
    return table | {
        f"{layer}.feed_forward_norm": f"{layer}.final_layer_norm",
        f"{stack}.layer_norm": f"{stack}.layer_norm",
    }


def branch_names(branch: str, source: str, layer: str, norm: NormPlacement) -> Table:
    """Returns the entries of an attention branch and its norm."""
    kind = "self" if branch == "attention" else "cross"
    table = attention_entries(f"{layer}.{branch}", f"{layer}.{source}", "q_proj k_proj v_proj out_proj", kind)
    branch_norm = f"{branch}.{kind}_output.layer_norm" if norm == "post" else f"{branch}_norm"
    return table | {f"{layer}.{branch_norm}": f"{layer}.{source}_layer_norm"}


BIAS = "head.projection.bias"  # a buffer to Hugging Face, which no training changes
WORD_HEAD: Table = {
    "head.projection.weight": "lm_head.weight",
    BIAS: row_or_zero("final_logits_bias"),
}
HEAD_WEIGHTS: dict[str, Table] = {
    "seq2seq-lm": WORD_HEAD,
    "sequence-classification": {
        "head.dense": "classification_head.dense",
        "head.projection": "classification_head.out_proj",
    },
    "question-answering": {"head.projection": "qa_outputs"},
}

ARCHITECTURE = Architecture(
    model_types={"bart": "Bart"},
    read=read,
    heads=heads,
    prefix="model.",
    weights=names(),
    head_weights=HEAD_WEIGHTS,
    unused_tensors=("encoder.version", "decoder.version"),
    frozen=(BIAS,),
)
