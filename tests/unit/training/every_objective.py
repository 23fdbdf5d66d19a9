"""Every objective with a tiny model and examples for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import minitx
from minitx.tokenizer import Tokenizer
from minitx.training import (
    DPO,
    AnswerSpans,
    CausalLM,
    Denoising,
    Distillation,
    GeneratorAndDiscriminator,
    Instruct,
    MaskedLM,
    Objective,
    ReplacedTokens,
    SentencePairs,
    Seq2SeqLM,
    SequenceLabels,
    SpanCorruption,
    TokenLabels,
)
from tests.unit.training.words import TALK, WORDS

_SIZES = {"vocab_size": 90, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3}
_BERT = {"model_type": "bert", **_SIZES, "intermediate_size": 20, "max_position_embeddings": 64}
_ELECTRA = {**_BERT, "model_type": "electra", "embedding_size": 8}
_GPT2 = {"model_type": "gpt2", "vocab_size": 90, "n_embd": 12, "n_layer": 1, "n_head": 3, "n_positions": 64}
_T5 = {"model_type": "t5", "vocab_size": 90, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 1}
_T5 |= {"num_heads": 3, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
_BART = {"model_type": "bart", "vocab_size": 90, "d_model": 12, "max_position_embeddings": 64}
_BART |= {
    f"{half}_{name}": n for half in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 20))
}
_BART |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3}
_DROPOUT = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "electra": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "t5": ("dropout_rate",),
    "bart": ("dropout", "attention_dropout"),
}

TEXTS: list[dict[str, Any]] = [{"text": " ".join(WORDS[n : n + 6 + n % 5])} for n in range(0, 35, 5)]
PAIRS = [{"text": x["text"], "target": f"w{n} w{n + 1}"} for n, x in enumerate(TEXTS)]
CHOICES = [{"prompt": f"w{n}", "chosen": "w3 w4", "rejected": f"w{n + 5}"} for n in range(7)]
KNOWN = [x | {"reference_chosen": -3.0, "reference_rejected": -2.0} for x in CHOICES]
ANSWERS = [
    {
        "question": f"w{n}",
        "context": " ".join(WORDS[10 : 20 + n]),
        "answers": {"text": ["w12 w13"], "answer_start": [8]},
    }
    for n in range(7)
]


def model(config: dict[str, Any], head: str, *, dropout: float, dtype: str, seed: int = 0) -> Any:
    rates = dict.fromkeys(_DROPOUT[config["model_type"]], dropout)
    return minitx.from_config(config | rates | {"num_labels": 3}, head=head, seed=seed, dtype=dtype)


def both_models(config: dict[str, Any], head: str, *, dropout: float, dtype: str) -> Any:
    heads = ("masked-lm", "replaced-token-detection")
    return GeneratorAndDiscriminator(*(model(config, head, dropout=dropout, dtype=dtype) for head in heads))


def teacher(head: str = "causal-lm") -> Any:
    """Computes in float32, whatever the student does."""
    return model(_GPT2, head, dropout=0.0, dtype="float32", seed=1).eval()


@dataclass(frozen=True)
class Case:
    """An objective with its model and its data.

    Attributes:
        make: the objective, from a tokenizer.
        config: of the model.
        head: of the model.
        examples: seven of them.
        build: the model, from config, head, dropout and dtype.
    """

    make: Callable[[Tokenizer], Objective]
    config: dict[str, Any]
    head: str
    examples: list[dict[str, Any]]
    build: Callable[..., Any] = model

    def model(self, dropout: float = 0.1, dtype: str = "float32") -> torch.nn.Module:
        network: torch.nn.Module = self.build(self.config, self.head, dropout=dropout, dtype=dtype)
        return network


CASES = {
    "masked": Case(lambda t: MaskedLM(t, 0.4), _BERT, "masked-lm", TEXTS),
    "causal": Case(CausalLM, _GPT2, "causal-lm", TEXTS),
    "packed": Case(lambda t: CausalLM(t, length=40), _GPT2, "causal-lm", TEXTS),
    "spans": Case(SpanCorruption, _T5, "seq2seq-lm", TEXTS),
    "denoising": Case(Denoising, _BART, "seq2seq-lm", TEXTS),
    "replaced": Case(lambda t: ReplacedTokens(t, 0.4), _ELECTRA, "", TEXTS, both_models),
    "seq2seq": Case(lambda t: Seq2SeqLM(t, label_smoothing=0.1), _T5, "seq2seq-lm", PAIRS),
    "instruct": Case(Instruct, _GPT2, "causal-lm", [{"messages": TALK[n % 2 :]} for n in range(7)]),
    "preferences": Case(lambda t: DPO(t, teacher()), _GPT2, "causal-lm", CHOICES),
    "known preferences": Case(DPO, _GPT2, "causal-lm", KNOWN),
    "sequences": Case(
        lambda t: SequenceLabels(t, 3),
        _BERT,
        "sequence-classification",
        [x | {"labels": n % 3} for n, x in enumerate(TEXTS)],
    ),
    "several labels": Case(
        lambda t: SequenceLabels(t, 3, multiple=True),
        _BERT,
        "sequence-classification",
        [x | {"labels": [1, n % 2, 0.5]} for n, x in enumerate(TEXTS)],
    ),
    "tokens": Case(
        lambda t: TokenLabels(t, 3),
        _BERT,
        "token-classification",
        [{"words": WORDS[: n + 2], "labels": [k % 3 for k in range(n + 2)]} for n in range(7)],
    ),
    "answers": Case(lambda t: AnswerSpans(t, 16, 4), _BERT, "question-answering", ANSWERS),
    "pairs": Case(
        SentencePairs,
        _BERT,
        "none",
        [{"anchor": f"w{n}", "positive": f"w{n} w{n + 1}"} for n in range(0, 35, 5)],
    ),
    "distillation": Case(lambda t: Distillation(CausalLM(t), teacher()), _GPT2, "causal-lm", TEXTS),
}
