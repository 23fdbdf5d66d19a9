"""TAPAS (arXiv:2004.02349): BERT for questions about a table.

- seven kinds of token types, each with its own table: segment, column, row, previous answer, rank and inverse
  rank of a number in its column, relation to the numbers of the question
- positions restart in each cell
- a head that selects cells and an operation on them, such as a sum
"""

from __future__ import annotations

from typing import get_args

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.encoders import bert
from minitx.architectures.mapping import Table, as_row
from minitx.config import (
    AverageApproximation,
    CellLoss,
    CellSelection,
    HeadConfig,
    LearnedPositions,
    ModelConfig,
    replace_in,
)

KINDS = 7  # of token types


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    sizes = hf.get("type_vocab_sizes", [3, 256, 256, 2, 256, 256, 10])
    if not isinstance(sizes, list | tuple) or len(sizes) != KINDS or not all(map(is_size, sizes)):
        raise hf.error("type_vocab_sizes", sizes, f"a list of {KINDS} integers of at least 1")
    per_cell = hf.flag("reset_position_index_per_cell", True)
    config = bert.read(hf.with_values(type_vocab_size=0))
    return replace_in(
        config,
        "inputs",
        type_vocab_size=tuple(sizes),
        positions=LearnedPositions(numbering="cell" if per_cell else "sequence"),
    )


def is_size(value: object) -> bool:
    """Whether a value is an integer of at least 1, and not above the size of a real table."""
    return type(value) is int and 1 <= value <= 2**16


def cell_loss(hf: ConfigReader) -> CellLoss:
    """Returns the loss of the head that selects cells."""
    return hf.build(
        CellLoss,
        positive_label_weight=hf.number("positive_label_weight", 10.0),
        aggregation_loss_weight=hf.number("aggregation_loss_weight", 1.0),
        use_answer_as_supervision=bool(hf.expect("use_answer_as_supervision", False, True)),
        answer_loss_importance=hf.number("answer_loss_importance", 1.0),
        use_normalized_answer_loss=hf.flag("use_normalized_answer_loss", False),
        huber_loss_delta=hf.positive_or_none("huber_loss_delta"),
        aggregation_temperature=hf.positive("aggregation_temperature", 1.0),
        use_gumbel_for_cells=hf.flag("use_gumbel_for_cells", False),
        use_gumbel_for_aggregation=hf.flag("use_gumbel_for_aggregation", False),
        average_approximation_function=hf.expect(
            "average_approximation_function", *get_args(AverageApproximation)
        ),
        cell_selection_preference=hf.number_or_none("cell_selection_preference"),
        answer_loss_cutoff=hf.number_or_none("answer_loss_cutoff"),
        disable_per_token_loss=hf.flag("disable_per_token_loss", False),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    dropout = hf.probability("hidden_dropout_prob", 0.1)
    activation, eps = hf.activation("hidden_act", "gelu"), hf.number("layer_norm_eps", 1e-12)
    labels = bert.label_heads(hf, dropout)
    return {
        "sequence-classification": labels["sequence-classification"],
        "masked-lm": bert.word_head(hf, hf.size("hidden_size"), activation, eps),
        "table-question-answering": HeadConfig(
            task="table-question-answering",
            num_labels=hf.size("num_aggregation_labels", 0, least=0) or None,
            pooling="pooler",
            classifier_dropout=dropout,
            cells=hf.build(
                CellSelection,
                temperature=hf.positive("temperature", 1.0),
                select_one_column=hf.flag("select_one_column", True),
                allow_empty_column_selection=hf.flag("allow_empty_column_selection", False),
                average_logits_per_cell=hf.flag("average_logits_per_cell", False),
                max_num_rows=hf.size("max_num_rows", 64),
                max_num_columns=hf.size("max_num_columns", 32),
                zero_weights=hf.flag("init_cell_selection_weights_to_zero", False),
                loss=cell_loss(hf),
            ),
        ),
    }


TYPES: Table = {
    f"embedder.tok_type_emb.{kind}": f"embeddings.token_type_embeddings_{kind}" for kind in range(KINDS)
}

ARCHITECTURE = Architecture(
    model_types={"tapas": "Tapas"},
    read=read,
    heads=heads,
    prefix="tapas.",
    weights={k: v for k, v in bert.WEIGHTS.items() if k != "embedder.tok_type_emb"} | TYPES,
    head_weights={
        "sequence-classification": bert.LABEL_HEADS["sequence-classification"],
        "masked-lm": bert.WORD_HEAD,
        "table-question-answering": {
            "head.cells.weight": as_row("output_weights"),
            "head.cells.bias": as_row("output_bias"),
            "head.columns.weight": as_row("column_output_weights"),
            "head.columns.bias": as_row("column_output_bias"),
            "head.aggregation": "aggregation_classifier",
        },
    },
    tasks_with_pooler=frozenset({"none", "sequence-classification", "table-question-answering"}),
    unused_tensors=("embeddings.position_ids",),
    classes={"table-question-answering": "TapasForQuestionAnswering"},
)
