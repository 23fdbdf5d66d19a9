"""Objectives: how examples become a batch, and a batch a loss; names are imported at first use.

An objective is a frozen dataclass of options; `objective(examples, generator)` returns a batch and
`objective.loss(model, batch)` its loss. Each file also has its steps as functions on tensors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below, for type checkers
    from minitx.training.objectives.base import Loss as Loss
    from minitx.training.objectives.base import Objective as Objective
    from minitx.training.objectives.causal import CausalLM as CausalLM
    from minitx.training.objectives.contrastive import SentencePairs as SentencePairs
    from minitx.training.objectives.denoising import Denoising as Denoising
    from minitx.training.objectives.distillation import Distillation as Distillation
    from minitx.training.objectives.instruct import Instruct as Instruct
    from minitx.training.objectives.labelled import AnswerSpans as AnswerSpans
    from minitx.training.objectives.labelled import SequenceLabels as SequenceLabels
    from minitx.training.objectives.labelled import TokenLabels as TokenLabels
    from minitx.training.objectives.masked import MaskedLM as MaskedLM
    from minitx.training.objectives.preference import DPO as DPO
    from minitx.training.objectives.replaced import GeneratorAndDiscriminator as GeneratorAndDiscriminator
    from minitx.training.objectives.replaced import ReplacedTokens as ReplacedTokens
    from minitx.training.objectives.seq2seq import Seq2SeqLM as Seq2SeqLM
    from minitx.training.objectives.spans import SpanCorruption as SpanCorruption

_MODULES = {
    "AnswerSpans": "labelled",
    "CausalLM": "causal",
    "DPO": "preference",
    "Denoising": "denoising",
    "Distillation": "distillation",
    "GeneratorAndDiscriminator": "replaced",
    "Instruct": "instruct",
    "Loss": "base",
    "MaskedLM": "masked",
    "Objective": "base",
    "ReplacedTokens": "replaced",
    "SentencePairs": "contrastive",
    "Seq2SeqLM": "seq2seq",
    "SequenceLabels": "labelled",
    "SpanCorruption": "spans",
    "TokenLabels": "labelled",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minitx.training.objectives' has no attribute {name!r}")
    return getattr(import_module(f"minitx.training.objectives.{_MODULES[name]}"), name)
