"""BERT (arXiv:1810.04805): the post-norm encoder that the other files here say their difference from.

- learned positions counted from 0, padding included; two token types; norm eps 1e-12
- a pooler, read by the heads that label a whole text
- the masked-lm head ends in the word embedding, with a bias of its own
"""

from __future__ import annotations

from minitx.architectures._text import text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import Table, either
from minitx.config import (
    AttentionConfig,
    FeedForwardConfig,
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    StackConfig,
    TransformConfig,
)


def read(hf: ConfigReader, *, act: str = "gelu", eps: float = 1e-12, dropout: float = 0.1) -> ModelConfig:
    """The keys are those of most relatives too; where one is absent, each has a value of its own."""
    hf.reject_decoder_flags()
    hf.expect("position_embedding_type", "absolute")
    hf.expect("pruned_heads", {}, None)
    size, heads = hf.size("hidden_size"), hf.size("num_attention_heads")
    norm = NormConfig(eps=hf.number("layer_norm_eps", eps))
    hidden_dropout = hf.probability("hidden_dropout_prob", dropout)
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(
            hf,
            size,
            pad=0,
            positions=LearnedPositions(),
            type_vocab_size=hf.size("type_vocab_size", 2, least=0),
            norm=norm,
            dropout=hidden_dropout,
        ),
        encoder=StackConfig(
            hidden_size=size,
            num_hidden_layers=hf.size("num_hidden_layers"),
            layer=LayerConfig(
                attention=AttentionConfig(
                    num_attention_heads=heads,
                    head_dim=hf.head_dim(size, heads),
                    dropout=hf.probability("attention_probs_dropout_prob", dropout),
                    output_dropout=hidden_dropout,
                ),
                feed_forward=FeedForwardConfig(
                    intermediate_size=hf.size("intermediate_size"),
                    hidden_act=hf.name("hidden_act", act),
                    output_dropout=hidden_dropout,
                ),
                norm=norm,
            ),
        ),
    )


def classifier_dropout(hf: ConfigReader) -> float:
    """`classifier_dropout`, else the dropout of the network."""
    if hf.get("classifier_dropout", None) is None:
        return hf.probability("hidden_dropout_prob", 0.1)
    return hf.probability("classifier_dropout")


def label_heads(hf: ConfigReader, dropout: float) -> dict[str, HeadConfig]:
    """The heads that are one projection, of the pooled text or of every token."""
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
    """Masked-lm: a transform of width `size`, then the word embedding."""
    return HeadConfig(
        task="masked-lm",
        num_labels=hf.size("vocab_size"),
        transform=TransformConfig(size=size, hidden_act=activation, norm=NormConfig(eps=eps)),
        tied=hf.flag("tie_word_embeddings", True),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    activation, eps = hf.name("hidden_act", "gelu"), hf.number("layer_norm_eps", 1e-12)
    return label_heads(hf, classifier_dropout(hf)) | {
        "masked-lm": word_head(hf, hf.size("hidden_size"), activation, eps),
        "next-sentence": HeadConfig(task="next-sentence", num_labels=2, pooling="pooler"),
    }


WEIGHTS: Table = {
    "embedder.word_emb": "embeddings.word_embeddings",
    "embedder.pos_emb": "embeddings.position_embeddings",
    "embedder.tok_type_emb": "embeddings.token_type_embeddings",
    "embedder.layer_norm": "embeddings.LayerNorm",
    "encoder.layers.{i}.attention.self_attention.Q": "encoder.layer.{i}.attention.self.query",
    "encoder.layers.{i}.attention.self_attention.K": "encoder.layer.{i}.attention.self.key",
    "encoder.layers.{i}.attention.self_attention.V": "encoder.layer.{i}.attention.self.value",
    "encoder.layers.{i}.attention.self_output.dense": "encoder.layer.{i}.attention.output.dense",
    "encoder.layers.{i}.attention.self_output.layer_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder.layers.{i}.intermediate.dense": "encoder.layer.{i}.intermediate.dense",
    "encoder.layers.{i}.output.dense": "encoder.layer.{i}.output.dense",
    "encoder.layers.{i}.output.layer_norm": "encoder.layer.{i}.output.LayerNorm",
    "pooler.dense": "pooler.dense",
}

CROSS, SOURCE = "encoder.layers.{i}.cross_attention", "encoder.layer.{i}.crossattention"
CROSS_WEIGHTS: Table = {
    f"{CROSS}.cross_attention.Q": f"{SOURCE}.self.query",
    f"{CROSS}.cross_attention.K": f"{SOURCE}.self.key",
    f"{CROSS}.cross_attention.V": f"{SOURCE}.self.value",
    f"{CROSS}.cross_output.dense": f"{SOURCE}.output.dense",
    f"{CROSS}.cross_output.layer_norm": f"{SOURCE}.output.LayerNorm",
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
    cross_weights=CROSS_WEIGHTS,
)
