"""BART (arXiv:1910.13461): the encoder-decoder of fairseq that its relatives say their difference from.

- post-norm, with a norm behind the embedding; learned positions, whose table begins with two spare rows
- encoder and decoder share their word embedding, which is the last projection too, with a bias
- a head that labels a text reads the decoder at the text's last end token
"""

from __future__ import annotations

from minitx.architectures.architecture import Architecture
from minitx.architectures.reader import Reader
from minitx.config import EmbedderConfig, HeadConfig, ModelConfig, NormPlacement, StackConfig
from minitx.weights.table import Table, either, row_or_zero


def read(
    hf: Reader,
    *,
    norm: NormPlacement = "post",
    embedding_norm: bool = True,
    spare_positions: int = 2,
    act: str = "gelu",
    scaled: bool = False,
    attention_dropout: float = 0.0,
    pad: int | None = 1,
    start: int | None = 2,
    eos: int = 2,
) -> ModelConfig:
    """The keys are those of the relatives too; where one is absent, each has a value of its own."""
    hf.only("is_decoder", False)
    # Layers that a training left out at random; names for what this file says of the architecture anyway.
    hf.ignore("encoder_layerdrop", "decoder_layerdrop", "num_hidden_layers", "add_bias_logits")
    hf.ignore("add_final_layer_norm", "normalize_before", "normalize_embedding", "static_position_embeddings")
    hf.ignore(
        "extra_pos_embeddings",
        "do_blenderbot_90_layernorm",
        "classif_dropout",
        "force_bos_token_to_be_generated",
    )
    size, vocab_size = hf.size("d_model"), hf.size("vocab_size")
    positions, dropout = hf.size("max_position_embeddings"), hf.probability("dropout", 0.1)
    embedder = EmbedderConfig(
        vocab_size=vocab_size,
        embedding_size=size,
        hidden_size=size,
        pad_token_id=hf.pad_token_id(vocab_size, pad),
        max_position_embeddings=positions + spare_positions,
        position_offset=spare_positions,
        embedding_scale=size**0.5 if hf.flag("scale_embedding", scaled) else None,
        layer_norm_eps=1e-5 if embedding_norm else None,
        hidden_dropout_prob=dropout,
    )

    def stack(name: str) -> StackConfig:
        heads = hf.size(f"{name}_attention_heads")
        return StackConfig(
            causal=name == "decoder",
            cross_attention=name == "decoder",
            hidden_size=size,
            num_hidden_layers=hf.size(f"{name}_layers"),
            num_attention_heads=heads,
            head_dim=hf.head_dim(size, heads),
            intermediate_size=hf.size(f"{name}_ffn_dim"),
            hidden_act=hf.name("activation_function", act),
            layer_norm_eps=1e-5,
            norm_placement=norm,
            attention_dropout=hf.probability("attention_dropout", attention_dropout),
            self_output_dropout=dropout,
            activation_dropout=hf.probability("activation_dropout", 0.0),
            output_dropout=dropout,
        )

    return ModelConfig(
        initializer_range=hf.number("init_std", 0.02),
        embedder=embedder,
        encoder=stack("encoder"),
        decoder_embedder=embedder,
        decoder=stack("decoder"),
        shared_embeddings=hf.flag("tie_word_embeddings", True),
        decoder_start_token_id=hf.token_id("decoder_start_token_id", start),
        eos_token_id=hf.token_id("eos_token_id", eos),
    )


def word_head(hf: Reader, *, bias: bool = True) -> dict[str, HeadConfig]:
    """The next word of the decoder's text."""
    return {
        "seq2seq-lm": HeadConfig(
            task="seq2seq-lm",
            num_labels=hf.size("vocab_size"),
            bias=bias,
            tied=hf.flag("tie_word_embeddings", True),
        )
    }


def heads(hf: Reader, *, labels: int = 3) -> dict[str, HeadConfig]:
    dropout = hf.probability("classifier_dropout", 0.0)
    return word_head(hf) | {
        "sequence-classification": HeadConfig(
            task="sequence-classification",
            num_labels=hf.num_labels(labels),
            pooling="last",
            input_dropout=dropout,
            dense_size=hf.size("d_model"),
            hidden_act="tanh",
            classifier_dropout=dropout,
            problem_type=hf.problem_type(),
        ),
        "question-answering": HeadConfig(task="question-answering", num_labels=2),
    }


def names(*, norm: NormPlacement = "post", embedding_norm: bool = True, positions: bool = True) -> Table:
    """The rows of both stacks."""
    table: Table = {
        "embedder.word_emb": either("encoder.embed_tokens", "shared"),
        "decoder_embedder.word_emb": "decoder.embed_tokens",
    }
    for stack, embedder, i in (("encoder", "embedder", "{i}"), ("decoder", "decoder_embedder", "{j}")):
        ours, theirs = f"{stack}.layers.{i}", f"{stack}.layers.{i}"
        branches = {"attention": "self_attn"} | (
            {"cross_attention": "encoder_attn"} if stack == "decoder" else {}
        )
        for branch, name in branches.items():
            norm_of_branch = f"{branch}.self_output.layer_norm" if norm == "post" else f"{branch}_norm"
            table |= {
                f"{ours}.{branch}.self_attention.Q": f"{theirs}.{name}.q_proj",
                f"{ours}.{branch}.self_attention.K": f"{theirs}.{name}.k_proj",
                f"{ours}.{branch}.self_attention.V": f"{theirs}.{name}.v_proj",
                f"{ours}.{branch}.self_output.dense": f"{theirs}.{name}.out_proj",
                f"{ours}.{norm_of_branch}": f"{theirs}.{name}_layer_norm",
            }
        table |= {
            f"{ours}.intermediate.dense": f"{theirs}.fc1",
            f"{ours}.output.dense": f"{theirs}.fc2",
            f"{ours}.{'output.layer_norm' if norm == 'post' else 'feed_forward_norm'}": f"{theirs}.final_layer_norm",
        }
        if positions:
            table[f"{embedder}.pos_emb"] = f"{stack}.embed_positions"
        if embedding_norm:
            table[f"{embedder}.layer_norm"] = f"{stack}.layernorm_embedding"
        if norm == "pre":
            table[f"{stack}.layer_norm"] = f"{stack}.layer_norm"
    return table


WORD_HEAD: Table = {
    "head.projection.weight": "lm_head.weight",
    "head.projection.bias": row_or_zero("final_logits_bias"),
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
    stored=("encoder.version", "decoder.version"),
)
