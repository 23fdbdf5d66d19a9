"""Tiny random checkpoints: ordinary folders with float16 weights, a few tens of KB each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.deprecated.tapex.tokenization_tapex import TapexTokenizer

from pipeline_fixtures.builders import (
    byte_level,
    m2m_tokenizer,
    marian_tokenizer,
    pieces,
    tapas_tokenizer,
    word_piece,
)
from pipeline_fixtures.vocabularies import ALBERT, FAIRSEQ, T5, read_json, write_json

ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 130,
}
BART_SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 256,
}
FAIRSEQ_IDS = {
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
CONDITIONAL = transformers.AutoModelForSeq2SeqLM
QUESTIONS = transformers.AutoModelForQuestionAnswering
TABLES = transformers.AutoModelForTableQuestionAnswering


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One folder.

    Attributes:
        config: config.json, without `vocab_size` and `architectures`.
        tokenizer: writes the vocabulary files into a folder; returns the tokenizer.
        model: the auto class.
        generation: generation_config.json; None for no such file.
        std: standard deviation of the matrices.
        embedding: standard deviation of the token embeddings.
        end: bias of the logit of the end token; factor of its embedding where logits have no bias.
        seed: of the weights.
    """

    config: dict[str, Any]
    tokenizer: Callable[[Path], Any]
    model: Any
    generation: dict[str, Any] | None = None
    std: float = 1.0
    embedding: float = 0.6
    end: float = 0.0
    seed: int = 0


_T5_PARAMETERS = {
    "summarization": {
        "early_stopping": True,
        "length_penalty": 2.0,
        "max_length": 24,
        "min_length": 6,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "prefix": "summarize: ",
    },
    **{
        f"translation_en_to_{code}": {
            "early_stopping": True,
            "max_length": 20,
            "num_beams": beams,
            "prefix": f"translate English to {language}: ",
        }
        for code, language, beams in (("de", "German", 4), ("fr", "French", 3), ("ro", "Romanian", 2))
    },
}
_BART_PARAMETERS = {
    "summarization": {
        "length_penalty": 1.0,
        "max_length": 18,
        "min_length": 5,
        "num_beams": 3,
        "prefix": " ",
    },
    "summarization_cnn": {"length_penalty": 2.0, "max_length": 142, "min_length": 56, "num_beams": 4},
}
_SPECIAL = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "unk_token": "<unk>"}
_TAPAS = {**ENCODER, "max_position_embeddings": 256, "type_vocab_sizes": [3, 256, 256, 2, 256, 256, 10]}
_AGGREGATIONS = {"0": "NONE", "1": "SUM", "2": "AVERAGE", "3": "COUNT"}

CHECKPOINTS = {
    "bert": Checkpoint(
        config={"model_type": "bert", **ENCODER}, tokenizer=word_piece(lower=True), model=QUESTIONS
    ),
    "distilbert": Checkpoint(
        config={
            "model_type": "distilbert", "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
            "max_position_embeddings": 130,
        },
        tokenizer=word_piece(lower=False),
        model=QUESTIONS,
    ),
    "roberta": Checkpoint(
        config={"model_type": "roberta", **ENCODER, "type_vocab_size": 1, "pad_token_id": 1},
        tokenizer=byte_level(transformers.RobertaTokenizerFast),
        model=QUESTIONS,
    ),
    "xlm-roberta-left": Checkpoint(
        config={"model_type": "xlm-roberta", **ENCODER, "type_vocab_size": 1, "pad_token_id": 1},
        tokenizer=pieces(
            transformers.XLMRobertaTokenizerFast, "sentencepiece.bpe.model", FAIRSEQ, padding_side="left"
        ),
        model=QUESTIONS,
    ),
    "albert": Checkpoint(
        config={"model_type": "albert", **ENCODER, "embedding_size": 12, "hidden_act": "gelu_new"},
        tokenizer=pieces(transformers.AlbertTokenizerFast, "spiece.model", ALBERT, **_SPECIAL),
        model=QUESTIONS,
    ),
    "bart-summarization": Checkpoint(
        config={
            "model_type": "bart", **BART_SIZES, **FAIRSEQ_IDS, "length_penalty": 2.0, "min_length": 4,
            "max_length": 16, "num_beams": 2, "no_repeat_ngram_size": 3, "early_stopping": True,
            "task_specific_params": _BART_PARAMETERS,
        },
        tokenizer=byte_level(transformers.BartTokenizerFast),
        model=CONDITIONAL,
        end=7.0,
        seed=13,
    ),
    "bart": Checkpoint(
        config={"model_type": "bart", **BART_SIZES, **FAIRSEQ_IDS},
        generation={"max_length": 14, "no_repeat_ngram_size": 2},
        tokenizer=byte_level(transformers.BartTokenizerFast),
        model=CONDITIONAL,
        end=5.5,
        seed=2,
    ),
    "t5": Checkpoint(
        config={
            "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2,
            "num_decoder_layers": 2, "num_heads": 2, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20, "decoder_start_token_id": 0, "pad_token_id": 0,
            "eos_token_id": 1, "task_specific_params": _T5_PARAMETERS,
        },
        generation={"max_length": 22},
        tokenizer=pieces(transformers.T5TokenizerFast, "spiece.model", T5, extra_ids=20),
        model=CONDITIONAL,
        embedding=2.0,
        end=3.5,
        seed=15,
    ),
    "pegasus": Checkpoint(
        config={
            "model_type": "pegasus", **BART_SIZES, "scale_embedding": True, "pad_token_id": 0,
            "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1, "num_beams": 4,
            "length_penalty": 0.8, "max_length": 20,
        },
        tokenizer=pieces(transformers.PegasusTokenizerFast, "spiece.model", T5),
        model=CONDITIONAL,
        end=5.3,
    ),
    "marian": Checkpoint(
        config={
            "model_type": "marian", **BART_SIZES, "scale_embedding": True, "static_position_embeddings": True,
            "num_beams": 3, "max_length": 24,
        },
        tokenizer=marian_tokenizer(),
        model=CONDITIONAL,
        end=4.0,
        embedding=0.35,
        seed=8,
    ),
    "marian-multi": Checkpoint(
        config={
            "model_type": "marian", **BART_SIZES, "scale_embedding": True, "static_position_embeddings": True,
        },
        generation={"num_beams": 2, "max_length": 18},
        tokenizer=marian_tokenizer(">>deu<<", ">>fra<<", ">>zho_Hans<<"),
        model=CONDITIONAL,
        end=4.0,
        embedding=0.35,
        seed=8,
    ),
    "mbart": Checkpoint(
        config={
            "model_type": "mbart", **BART_SIZES, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "forced_eos_token_id": 2, "scale_embedding": True, "max_length": 21, "num_beams": 3,
        },
        tokenizer=pieces(transformers.MBartTokenizerFast, "sentencepiece.bpe.model", FAIRSEQ),
        model=CONDITIONAL,
        end=5.0,
        seed=10,
    ),
    "mbart50": Checkpoint(
        config={
            "model_type": "mbart", **BART_SIZES, **FAIRSEQ_IDS, "scale_embedding": True, "max_length": 21,
            "num_beams": 2,
        },
        tokenizer=pieces(transformers.MBart50TokenizerFast, "sentencepiece.bpe.model", FAIRSEQ),
        model=CONDITIONAL,
        end=4.5,
        seed=6,
    ),
    "m2m100": Checkpoint(
        config={
            "model_type": "m2m_100", **BART_SIZES, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 2, "scale_embedding": True, "max_length": 21, "num_beams": 3,
        },
        tokenizer=m2m_tokenizer,
        model=CONDITIONAL,
        end=3.0,
        seed=8,
    ),
    "nllb": Checkpoint(
        config={
            "model_type": "m2m_100", **BART_SIZES, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 2, "scale_embedding": True, "max_length": 21,
            "tokenizer_class": "NllbTokenizer",
        },
        tokenizer=pieces(transformers.NllbTokenizerFast, "sentencepiece.bpe.model", FAIRSEQ),
        model=CONDITIONAL,
        end=2.0,
        seed=2,
    ),
    "tapas-wtq": Checkpoint(
        config={
            "model_type": "tapas", **_TAPAS, "num_aggregation_labels": 4, "use_answer_as_supervision": True,
            "select_one_column": True, "average_logits_per_cell": False, "temperature": 0.7,
            "aggregation_labels": _AGGREGATIONS, "no_aggregation_label_index": 0,
        },
        tokenizer=tapas_tokenizer(),
        model=TABLES,
        embedding=1.0,
        seed=5,
    ),
    "tapas-sqa": Checkpoint(
        config={
            "model_type": "tapas", **_TAPAS, "select_one_column": True, "average_logits_per_cell": True,
            "temperature": 1.0, "aggregation_labels": None, "reset_position_index_per_cell": False,
        },
        tokenizer=tapas_tokenizer(cell_trim_length=3, model_max_length=64),
        model=TABLES,
        embedding=1.0,
        seed=2,
    ),
    "tapex": Checkpoint(
        config={"model_type": "bart", **BART_SIZES, **FAIRSEQ_IDS, "max_length": 12, "num_beams": 2},
        tokenizer=byte_level(TapexTokenizer, length=200),
        model=CONDITIONAL,
        end=6.0,
        seed=13,
    ),
}  # fmt: skip


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a folder: vocabulary, tokenizer_config.json, config.json, model.safetensors."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = checkpoint.tokenizer(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.json"):
        if path.name != "vocab.json":
            write_json(path, _without_paths(read_json(path)))
    config = {"torch_dtype": "float32", **_vocabulary(checkpoint.config, tokenizer), **checkpoint.config}
    write_json(folder / "config.json", config)
    if checkpoint.generation is not None:
        ids = {name: value for name, value in config.items() if name.endswith(("_token_id", "_words_ids"))}
        write_json(folder / "generation_config.json", {**ids, **checkpoint.generation})
    model = checkpoint.model.from_config(transformers.AutoConfig.from_pretrained(folder))
    _initialize(model, checkpoint)
    with_weights = folder / "with_weights"
    model.half().save_pretrained(with_weights)
    (with_weights / "model.safetensors").rename(folder / "model.safetensors")
    shutil.rmtree(with_weights)
    write_json(folder / "config.json", {"architectures": [type(model).__name__], **config})


def _without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer file without the places that its tokenizer was built from."""
    places = ("tokenizer_file", "name_or_path", "vocab_file", "sp_model_kwargs")
    return {name: value for name, value in content.items() if name not in places}


def _vocabulary(config: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """`vocab_size`, and the ids that the configs of Marian and of mBART's translation models have."""
    size = len(tokenizer)
    if isinstance(tokenizer, transformers.M2M100Tokenizer):
        size = len(tokenizer.encoder) + len(tokenizer.lang_token_to_id) + tokenizer.num_madeup_words
    if isinstance(tokenizer, transformers.MBartTokenizerFast):
        start = {"decoder_start_token_id": tokenizer.convert_tokens_to_ids("ro_RO")}
        return {"vocab_size": size, "task_specific_params": {"translation_en_to_ro": start}}
    if config["model_type"] != "marian":
        return {"vocab_size": size}
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = {
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": end,
        "forced_eos_token_id": end,
    }
    return {"vocab_size": size, "bad_words_ids": [[pad]], **ids}


def _initialize(model: Any, checkpoint: Checkpoint) -> None:
    """Draw weights so large that a rounding error rarely decides between two results."""
    torch.manual_seed(checkpoint.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not parameter.requires_grad:  # sinusoids
                continue
            noise = torch.randn(parameter.shape)
            if parameter.dim() > 1:
                parameter.copy_(noise * _scale(name, checkpoint))
            else:
                norm = name.endswith("weight") and "output_weights" not in name
                parameter.copy_(1 + 0.2 * noise if norm else 0.3 * noise)
        bias, end = getattr(model, "final_logits_bias", None), model.config.eos_token_id
        if bias is not None:
            bias[0, end] = checkpoint.end
        elif checkpoint.end:
            model.get_input_embeddings().weight[end] *= checkpoint.end


def _scale(name: str, checkpoint: Checkpoint) -> float:
    """Standard deviation of a matrix: small for columns and rows, so that cells differ."""
    if "token_type_embeddings" in name:
        return 0.4
    if "position" in name:
        return 2.0
    tokens = any(part in name for part in ("shared", "word_embeddings", "embed_tokens"))
    return checkpoint.embedding if tokens else checkpoint.std
