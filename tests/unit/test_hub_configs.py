"""config.json files as they stand on the Hub, with all their odd keys: read without a warning."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.known_keys import second_names, unknown_keys
from minitx.config import ModelConfig

# Sizes, flags and stray keys of well-known checkpoints, older and newer; the prose of them left out.
BERT = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}
NER = {
    "_num_labels": 9,
    "architectures": ["BertForTokenClassification"],
    "id2label": {str(i): f"L{i}" for i in range(9)},
    "label2id": {f"L{i}": i for i in range(9)},
    "max_length": 512,
    "output_past": True,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "directionality": "bidi",
}
ROBERTA = {
    **BERT,
    "architectures": ["RobertaForMaskedLM"],
    "model_type": "roberta",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 50265,
}
DISTILBERT = {
    "activation": "gelu",
    "architectures": ["DistilBertForSequenceClassification"],
    "attention_dropout": 0.1,
    "dim": 768,
    "dropout": 0.1,
    "finetuning_task": "sst-2",
    "hidden_dim": 3072,
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    "initializer_range": 0.02,
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
    "max_position_embeddings": 512,
    "model_type": "distilbert",
    "n_heads": 12,
    "n_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
    "vocab_size": 30522,
}
ELECTRA = {
    **BERT,
    "architectures": ["ElectraForPreTraining"],
    "model_type": "electra",
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
}
ALBERT = {
    **BERT,
    "architectures": ["AlbertForMaskedLM"],
    "model_type": "albert",
    "attention_probs_dropout_prob": 0,
    "hidden_dropout_prob": 0,
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "inner_group_num": 1,
    "net_structure_type": 0,
    "num_hidden_groups": 1,
    "num_memory_blocks": 0,
    "vocab_size": 30000,
}
MPNET = {
    **{
        key: value for key, value in BERT.items() if key not in ("type_vocab_size", "position_embedding_type")
    },
    "architectures": ["MPNetForMaskedLM"],
    "model_type": "mpnet",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
    "vocab_size": 30527,
}
MODERNBERT = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "reference_compile": True,
    "repad_logits_with_grad": False,
    "sep_token_id": 50282,
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
    "torch_dtype": "float32",
    "vocab_size": 50368,
}
DEBERTA_V3 = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
DEBERTA_V2 = {
    **DEBERTA_V3,
    "attention_head_size": 64,
    "conv_act": "gelu",
    "conv_kernel_size": 3,
    "hidden_size": 1536,
    "num_attention_heads": 24,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 1536,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert-base-uncased": BERT,
    "bert-base-NER": {**BERT, **NER},
    "cross-encoder": {**BERT, "num_labels": 1, "sbert_ce_default_activation_function": "x"},
    "roberta-base": ROBERTA,
    "roberta-base-squad2": {**ROBERTA, "language": "english", "name": "Roberta"},
    "xlm-roberta-base": {**ROBERTA, "model_type": "xlm-roberta", "output_past": True, "vocab_size": 250002},
    "camembert-base": {**ROBERTA, "model_type": "camembert", "vocab_size": 32005},
    "distilbert-sst-2": DISTILBERT,
    "electra-small-discriminator": ELECTRA,
    "albert-base-v2": ALBERT,
    "mpnet-base": MPNET,
    "ModernBERT-base": MODERNBERT,
    "deberta-v3-base": DEBERTA_V3,
    "deberta-v2-xlarge": DEBERTA_V2,
}


def read(config: dict[str, Any]) -> tuple[ModelConfig, list[str]]:
    found, reader = architecture(config["model_type"]), ConfigReader(config)
    reader.rename(second_names(config["model_type"]))
    numbers = found.read(reader)
    found.heads(reader)
    return numbers, unknown_keys(reader, config["model_type"])


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_of_a_real_config_is_overlooked(name: str) -> None:
    config = CONFIGS[name]
    numbers, unread = read(config)
    assert unread == []
    assert numbers.inputs.vocab_size == config["vocab_size"]
    assert numbers.encoder.layer.attention.head_dim == 64


def test_what_the_real_configs_mean() -> None:
    modern = read(MODERNBERT)[0].encoder
    assert modern.layer_types is not None
    assert modern.layer_types[:4] == (
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    )
    assert modern.sliding_window == 65  # 64 to either side, and itself
    assert {kind: rope.rope_theta for kind, rope in modern.positions.ropes.items()} == {
        "full_attention": 160000,
        "sliding_attention": 10000,
    }
    deberta = read(DEBERTA_V3)[0]
    assert deberta.inputs.positions is None
    assert deberta.encoder.positions.position_buckets == 256
    assert deberta.encoder.positions.max_relative_positions == 512
    assert read(ROBERTA)[0].inputs.numbering == "padding"
    assert read(ELECTRA)[0].inputs.projection == "after_dropout"


def test_whose_class_it_is() -> None:
    bert = architecture("bert")
    assert bert.task_of("BertModel") == "none"
    assert bert.task_of("BertForPreTraining") == "masked-lm"
    assert bert.task_of("BertForNextSentencePrediction") == "next-sentence"
    assert bert.task_of("BertLMHeadModel") is None  # a decoder's class: the tensors decide
    assert architecture("electra").task_of("ElectraForPreTraining") == "replaced-token-detection"
    assert architecture("camembert").class_name("camembert", "masked-lm") == "CamembertForMaskedLM"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"global_rope_theta": 0}, ["config.json: global_rope_theta=0", "positive"]),
        ({"local_rope_theta": 0}, ["config.json: local_rope_theta=0", "positive"]),
        (
            {"rope_parameters": {"rope_theta": 5e5}},
            ["rope_parameters has rope_theta", "each type of layer"],
        ),
        ({"rope_parameters": {"global": {}}}, ["has global", "full_attention, sliding_attention"]),
        ({"rope_parameters": {"full_attention": 3}}, ["rope_parameters['full_attention']=3", "an object"]),
        ({"rope_parameters": {"full_attention": {"rope_theta": 0}}}, ["rope_theta=0", "positive"]),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, ["rope_type='linear'", "default"]),
        ({"rope_parameters": {"full_attention": {"factor": 2.0}}}, ["has factor", "not implemented"]),
    ],
)
def test_rotary_values_of_modernbert_that_cannot_be(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(parts[0])) as refused:
        read({**MODERNBERT, **changes})
    assert parts[1] in str(refused.value)
