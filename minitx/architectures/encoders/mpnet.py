"""MPNet (arXiv:2004.09297): masked and permuted pre-training.

Differs from BERT: a learned bias per head and distance, shared by all layers, in addition to learned
positions that start after the padding row; no token types; RoBERTa's sequence head.
"""

from __future__ import annotations

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert, roberta
from minitx.architectures.mapping import Table, attention_entries
from minitx.config import HeadConfig, LearnedPositions, ModelConfig, RelativeBias, replace_in

PADDING = 1  # fixed in this architecture: the position table's padding row, whatever the config


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    config = bert.read(hf)
    hf.expect("pad_token_id", PADDING, -1)
    inputs = config.text_inputs
    if min(inputs.vocab_size, inputs.max_position_embeddings - 1) <= PADDING:
        sizes = (inputs.vocab_size, inputs.max_position_embeddings)
        hint = f"the tables need rows after pad_token_id={PADDING}"
        raise hf.error("(vocab_size, max_position_embeddings)", sizes, "larger", hint)
    positions = LearnedPositions(numbering="padding")
    config = replace_in(config, "inputs", pad_token_id=PADDING, positions=positions, type_vocab_size=0)
    buckets = hf.expect("relative_attention_num_buckets", 32)  # its own code never uses another number
    return replace_in(config, "encoder", positions=RelativeBias(num_buckets=buckets))


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    size, dropout = hf.size("hidden_size"), hf.probability("hidden_dropout_prob", 0.1)
    by_task = bert.label_heads(hf, dropout)
    by_task["sequence-classification"] = roberta.first_token_head(
        by_task["sequence-classification"], size, "tanh", dropout
    )
    by_task["masked-lm"] = bert.word_head(hf, size, "gelu", hf.number("layer_norm_eps", 1e-12))
    return by_task


LAYER_PREFIX, SOURCE_LAYER = "encoder.layers.{i}", "encoder.layer.{i}"

WEIGHTS: Table = {
    "embedder.word_emb": "embeddings.word_embeddings",
    "embedder.pos_emb": "embeddings.position_embeddings",
    "embedder.layer_norm": "embeddings.LayerNorm",
    "encoder.relative_bias.0": "encoder.relative_attention_bias",
    **attention_entries(f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attention.attn", "q k v o"),
    f"{LAYER_PREFIX}.attention.self_output.layer_norm": f"{SOURCE_LAYER}.attention.LayerNorm",
    f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.intermediate.dense",
    f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.output.dense",
    f"{LAYER_PREFIX}.output.layer_norm": f"{SOURCE_LAYER}.output.LayerNorm",
    "pooler.dense": "pooler.dense",
}

ARCHITECTURE = Architecture(
    model_types={"mpnet": "MPNet"},
    read=read,
    heads=heads,
    prefix="mpnet.",
    weights=WEIGHTS,
    head_weights=roberta.HEAD_WEIGHTS,
    tasks_with_pooler=frozenset({"none", "multiple-choice"}),
    unused_tensors=("embeddings.position_ids",),
)
