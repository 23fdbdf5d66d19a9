"""The tiny configurations on which every architecture is held against transformers.

An architecture of the registry without a case here fails collection (`tests/contract`). Odd sizes are
deliberate: head counts that differ from layer counts, widths that are no power of two, dropout
probabilities that all differ, so that no two values can be swapped unseen.
"""

from __future__ import annotations

from tests.parity.case import DROPOUT, FULL, OTHER, SIZES, SLIDING, Case
from tests.parity.encoder_decoders import ENCODER_DECODERS
from tests.parity.layer_norm_decoders import LAYER_NORM_DECODERS
from tests.parity.rms_norm_decoders import RMS_NORM_DECODERS

BERT = {**SIZES, **DROPOUT, "type_vocab_size": 3, "classifier_dropout": 0.37, "layer_norm_eps": 1e-3}
ROBERTA = {**BERT, "pad_token_id": 1, "max_position_embeddings": 50, "type_vocab_size": 1}
MPNET = {**SIZES, **DROPOUT, "max_position_embeddings": 50, "layer_norm_eps": 1e-3}
ALBERT = {
    **SIZES,
    **DROPOUT,
    "embedding_size": 20,
    "type_vocab_size": 3,
    "num_hidden_layers": 4,
    "classifier_dropout_prob": 0.31,
}
MODERNBERT = {
    **SIZES,
    "num_hidden_layers": 4,
    "local_attention": 12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "attention_dropout": 0.13,
    "embedding_dropout": 0.17,
    "mlp_dropout": 0.29,
    "classifier_dropout": 0.37,
}
DEBERTA = {
    **SIZES,
    **DROPOUT,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "type_vocab_size": 0,
    "position_biased_input": False,
    "pooler_dropout": 0.31,
    "cls_dropout": 0.41,
    "pad_token_id": 0,
}

TAPAS = {
    **SIZES,
    **DROPOUT,
    "layer_norm_eps": 1e-3,
    "type_vocab_sizes": [3, 8, 9, 2, 5, 6, 7],
    "max_num_rows": 7,
    "max_num_columns": 6,
    "num_aggregation_labels": 4,
    "temperature": 0.7,
    "aggregation_loss_weight": 0.9,
    "num_labels": 3,
}
TAPAS_ANSWERS = {  # weak supervision
    **TAPAS,
    "use_answer_as_supervision": True,
    "cell_selection_preference": 0.207,
    "answer_loss_cutoff": 0.664,
    "answer_loss_importance": 0.8,
    "huber_loss_delta": 0.121,
    "allow_empty_column_selection": True,
    "aggregation_temperature": 0.6,
    "average_logits_per_cell": True,
    "init_cell_selection_weights_to_zero": True,
}

ENCODERS = [
    Case("bert", "bert", BERT),
    Case(
        "bert-one-head",
        "bert",
        {**BERT, "num_attention_heads": 1, "hidden_size": 7, "hidden_act": "relu", **OTHER},
    ),
    Case("bert-gelu-new", "bert", {**BERT, "hidden_act": "gelu_new", "classifier_dropout": None}),
    Case("bert-five-labels", "bert", {**BERT, "num_labels": 5, "tie_word_embeddings": False}),
    Case("roberta", "roberta", ROBERTA),
    Case("roberta-pad-0", "roberta", {**ROBERTA, "pad_token_id": 0, "num_labels": 3}),
    Case("xlm-roberta", "xlm-roberta", {**ROBERTA, "hidden_act": "silu"}),
    Case("camembert", "camembert", {**ROBERTA, "classifier_dropout": None}),
    Case(
        "distilbert",
        "distilbert",
        {
            "vocab_size": 99,
            "dim": 24,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 37,
            "max_position_embeddings": 48,
            "dropout": 0.11,
            "attention_dropout": 0.23,
            "qa_dropout": 0.31,
            "seq_classif_dropout": 0.37,
        },
    ),
    Case("electra", "electra", {**BERT, "embedding_size": 20, "summary_last_dropout": 0.43}),
    Case("electra-same-width", "electra", {**BERT, "embedding_size": 24, "classifier_dropout": None}),
    Case("albert", "albert", ALBERT),
    Case("albert-groups", "albert", {**ALBERT, "num_hidden_groups": 2, "inner_group_num": 3}),
    Case("albert-uneven-groups", "albert", {**ALBERT, "num_hidden_layers": 5, "num_hidden_groups": 2}),
    Case("albert-same-width", "albert", {**ALBERT, "embedding_size": 24}),
    Case("mpnet", "mpnet", MPNET, reference="eager"),
    Case("mpnet-three-heads", "mpnet", {**MPNET, "num_attention_heads": 3}, reference="eager"),
    Case(
        "mpnet-far",  # both sides of the last bucket's edge, 128 positions away
        "mpnet",
        {**MPNET, "max_position_embeddings": 150},
        lengths=(128, 129, 140),
        reference="eager",
    ),
    Case(
        "modernbert",
        "modernbert",
        MODERNBERT,
        lengths=(6, 7, 8, 13, 14),
    ),
    Case(
        "modernbert-biases",
        "modernbert",
        {
            **MODERNBERT,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "decoder_bias": False,
            "classifier_pooling": "mean",
            "layer_types": [SLIDING, FULL, FULL, SLIDING],
            "local_attention": 7,
            "rope_parameters": {
                FULL: {"rope_type": "default", "rope_theta": 500.0},
                SLIDING: {"rope_type": "default", "rope_theta": 30.0},
            },
        },
        lengths=(3, 4, 5),
    ),
    Case("deberta-v2", "deberta-v2", DEBERTA, reference="eager"),
    Case(
        "deberta-v3",
        "deberta-v2",
        {
            **DEBERTA,
            "position_buckets": 6,
            "max_relative_positions": 20,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
        lengths=(3, 4, 7, 8),
        reference="eager",
    ),
    Case(
        "deberta-v2-conv",
        "deberta-v2",
        {
            **DEBERTA,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
            "conv_groups": 2,
            "pos_att_type": "p2c",
            "position_biased_input": True,
            "type_vocab_size": 3,
            "embedding_size": 20,
            "cls_dropout": None,
        },
        reference="eager",
    ),
    Case(
        "deberta-v2-content-only",
        "deberta-v2",
        {**DEBERTA, "relative_attention": False, "legacy": False, "pos_att_type": ["c2p"]},
        reference="eager",
    ),
    Case("tapas", "tapas", TAPAS, reference="eager"),
    Case("tapas-answers", "tapas", TAPAS_ANSWERS, reference="eager"),
    Case(
        "tapas-normalized-answers",
        "tapas",
        {
            **TAPAS_ANSWERS,
            "use_normalized_answer_loss": True,
            "average_approximation_function": "first_order",
            "average_logits_per_cell": False,
            "disable_per_token_loss": True,
        },
        reference="eager",
    ),
    Case(
        "tapas-many-columns",
        "tapas",
        {
            **TAPAS_ANSWERS,
            "average_approximation_function": "second_order",
            "select_one_column": False,
            "positive_label_weight": 3.0,
            "reset_position_index_per_cell": False,
        },
        reference="eager",
    ),
    Case(
        "tapas-gumbel",
        "tapas",
        {**TAPAS_ANSWERS, "use_gumbel_for_cells": True, "use_gumbel_for_aggregation": True},
        reference="eager",
    ),
    Case(
        "tapas-no-operations",
        "tapas",
        {
            **TAPAS,
            "num_aggregation_labels": 0,
            "temperature": 1.0,
            "max_num_rows": 20,
            "max_num_columns": 30,
            "aggregation_loss_weight": 1.0,
            "select_one_column": False,
            "tie_word_embeddings": False,
        },
        reference="eager",
    ),
]

CASES = [*ENCODERS, *LAYER_NORM_DECODERS, *RMS_NORM_DECODERS, *ENCODER_DECODERS]
BY_NAME = {case.name: case for case in CASES}
