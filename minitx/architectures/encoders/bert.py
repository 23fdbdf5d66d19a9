"""BERT (arXiv:1810.04805): the post-norm encoder that the other encoders are compared with.

- learned positions that count padding too, from 0; two token types; norm eps 1e-12
- a pooler, used by the heads that classify a sequence
- the projection of the masked-lm head is the word embedding, plus a bias
"""

from __future__ import annotations

from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, attention_entries, either
from minitx.config import (
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    StackConfig,
    TransformConfig,
)


def read(hf: ConfigReader, *, act: str = "gelu", eps: float = 1e-12, dropout: float = 0.1) -> ModelConfig:
    """Reads the keys that most relatives share; the parameters are their defaults for absent keys."""
    hf.reject_decoder_flags()
    hf.expect("position_embedding_type", "absolute")
    hf.expect("pruned_heads", {}, None)
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    norm = NormConfig(eps=hf.number("layer_norm_eps", eps))
    hidden_dropout = hf.probability("hidden_dropout_prob", dropout)
    table, types = LearnedPositions(), hf.size("type_vocab_size", 2, least=0)
    weights = hf.probability("attention_probs_dropout_prob", dropout)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(
            hf, size, pad=0, positions=table, type_vocab_size=types, norm=norm, dropout=hidden_dropout
        ),
        encoder=StackConfig(
            hidden_size=size,
            num_hidden_layers=hf.size("num_hidden_layers"),
            layer=LayerConfig(
                attention=attention(hf, size, heads, dropout=weights, output_dropout=hidden_dropout),
                feed_forward=feed_forward(
                    hf.size("intermediate_size"), hf.activation("hidden_act", act), hidden_dropout
                ),
                norm=norm,
            ),
        ),
    )


def classifier_dropout(hf: ConfigReader) -> float:
    """Returns `classifier_dropout`, or the dropout of the network."""
    if hf.get("classifier_dropout", None) is None:
        return hf.probability("hidden_dropout_prob", 0.1)
    return hf.probability("classifier_dropout")


def label_heads(hf: ConfigReader, dropout: float) -> dict[str, HeadConfig]:
    """Returns the heads that are one projection, of the pooled sequence or of every token."""
    labels = hf.num_labels()
    return {
        "sequence-classification": HeadConfig(
            task="sequence-classification",
            num_labels=labels,
            pooling="pooler",
            classifier_dropout=dropout,
            problem_type=hf.problem_type(),
        ),
        "token-classification": HeadConfig(
            task="token-classification", num_labels=labels, classifier_dropout=dropout
        ),
        "question-answering": HeadConfig(task="question-answering", num_labels=2),
        "multiple-choice": HeadConfig(
            task="multiple-choice", num_labels=1, pooling="pooler", classifier_dropout=dropout
        ),
    }


def word_head(hf: ConfigReader, size: int, activation: str, eps: float) -> HeadConfig:
    """Returns the masked-lm head: a transform of width `size`, then the word embedding."""
    return HeadConfig(
        task="masked-lm",
        num_labels=hf.size("vocab_size"),
        transform=TransformConfig(size=size, hidden_act=activation, norm=NormConfig(eps=eps)),
        tied=hf.flag("tie_word_embeddings", True),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    activation, eps = hf.activation("hidden_act", "gelu"), hf.number("layer_norm_eps", 1e-12)
    return label_heads(hf, classifier_dropout(hf)) | {
        "masked-lm": word_head(hf, hf.size("hidden_size"), activation, eps),
        "next-sentence": HeadConfig(task="next-sentence", num_labels=2, pooling="pooler"),
    }


LAYER_PREFIX, SOURCE_LAYER = "encoder.layers.{i}", "encoder.layer.{i}"
NAMES = "self.query self.key self.value output.dense"
CROSS, SOURCE_CROSS = f"{LAYER_PREFIX}.cross_attention", f"{SOURCE_LAYER}.crossattention"

WEIGHTS: Table = {
    "embedder.word_emb": "embeddings.word_embeddings",
    "embedder.pos_emb": "embeddings.position_embeddings",
    "embedder.tok_type_emb": "embeddings.token_type_embeddings",
    "embedder.layer_norm": "embeddings.LayerNorm",
    **attention_entries(f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attention", NAMES),
    f"{LAYER_PREFIX}.attention.self_output.layer_norm": f"{SOURCE_LAYER}.attention.output.LayerNorm",
    f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.intermediate.dense",
    f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.output.dense",
    f"{LAYER_PREFIX}.output.layer_norm": f"{SOURCE_LAYER}.output.LayerNorm",
    "pooler.dense": "pooler.dense",
}

CROSS_WEIGHTS: Table = {
    **attention_entries(CROSS, SOURCE_CROSS, NAMES, "cross"),
    f"{CROSS}.cross_output.layer_norm": f"{SOURCE_CROSS}.output.LayerNorm",
}

LABEL_HEADS: dict[str, Table] = {
    "sequence-classification": {"head.projection": "classifier"},
    "token-classification": {"head.projection": "classifier"},
    "question-answering": {"head.projection": "qa_outputs"},
    "multiple-choice": {"head.projection": "classifier"},
}

WORD_HEAD: Table = {
    "head.dense": "cls.predictions.transform.dense",
    "head.layer_norm": "cls.predictions.transform.LayerNorm",
    "head.projection.weight": "cls.predictions.decoder.weight",
    "head.projection.bias": either("cls.predictions.decoder.bias", "cls.predictions.bias"),
}

ARCHITECTURE = Architecture(
    model_types={"bert": "Bert"},
    read=read,
    heads=heads,
    prefix="bert.",
    weights=WEIGHTS,
    head_weights=LABEL_HEADS
    | {"masked-lm": WORD_HEAD, "next-sentence": {"head.projection": "cls.seq_relationship"}},
    tasks_with_pooler=frozenset({"none", "sequence-classification", "multiple-choice", "next-sentence"}),
    unused_tensors=("embeddings.position_ids", "embeddings.token_type_ids"),
    pretraining="masked-lm",
    cross_attention_weights=CROSS_WEIGHTS,
)
