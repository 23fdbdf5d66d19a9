"""Training: objectives, data, the loop, its schedules and optimizers, and checkpoints that resume it.

Names are imported at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below, for type checkers
    from minitx.training.config import TrainConfig as TrainConfig
    from minitx.training.data.blocks import TokenBlocks as TokenBlocks
    from minitx.training.data.blocks import TokenDocuments as TokenDocuments
    from minitx.training.data.blocks import write_tokens as write_tokens
    from minitx.training.data.files import read_texts as read_texts
    from minitx.training.data.labels import Labels as Labels
    from minitx.training.data.records import read_records as read_records
    from minitx.training.data.sampler import Sampler as Sampler
    from minitx.training.data.split import split as split
    from minitx.training.loop import Run as Run
    from minitx.training.lora import add_lora as add_lora
    from minitx.training.lora import load_adapter as load_adapter
    from minitx.training.lora import merge_lora as merge_lora
    from minitx.training.lora import remove_lora as remove_lora
    from minitx.training.lora import save_adapter as save_adapter
    from minitx.training.metrics import loss_curve as loss_curve
    from minitx.training.metrics import read_metrics as read_metrics
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
    from minitx.training.optimizer import make_optimizers as make_optimizers
    from minitx.training.recipe.end import TrainingEnd as TrainingEnd
    from minitx.training.recipe.file import Recipe as Recipe
    from minitx.training.recipe.file import read_recipe as read_recipe
    from minitx.training.recipe.plan import Plan as Plan
    from minitx.training.recipe.plan import plan_recipe as plan_recipe
    from minitx.training.recipe.run import run_recipe as run_recipe
    from minitx.training.schedules import learning_rate_factor as learning_rate_factor
    from minitx.training.session import Interrupted as Interrupted
    from minitx.training.session import TrainResult as TrainResult
    from minitx.training.session import train as train
    from minitx.training.tokenizers import train_tokenizer as train_tokenizer

_MODULES = {
    "AnswerSpans": "objectives.labelled",
    "CausalLM": "objectives.causal",
    "DPO": "objectives.preference",
    "Denoising": "objectives.denoising",
    "Distillation": "objectives.distillation",
    "GeneratorAndDiscriminator": "objectives.replaced",
    "Instruct": "objectives.instruct",
    "Interrupted": "session",
    "Labels": "data.labels",
    "Loss": "objectives.base",
    "MaskedLM": "objectives.masked",
    "Objective": "objectives.base",
    "Plan": "recipe.plan",
    "Recipe": "recipe.file",
    "ReplacedTokens": "objectives.replaced",
    "Run": "loop",
    "Sampler": "data.sampler",
    "SentencePairs": "objectives.contrastive",
    "Seq2SeqLM": "objectives.seq2seq",
    "SequenceLabels": "objectives.labelled",
    "SpanCorruption": "objectives.spans",
    "TokenBlocks": "data.blocks",
    "TokenDocuments": "data.blocks",
    "TokenLabels": "objectives.labelled",
    "TrainConfig": "config",
    "TrainResult": "session",
    "TrainingEnd": "recipe.end",
    "add_lora": "lora",
    "learning_rate_factor": "schedules",
    "load_adapter": "lora",
    "loss_curve": "metrics",
    "make_optimizers": "optimizer",
    "merge_lora": "lora",
    "read_metrics": "metrics",
    "plan_recipe": "recipe.plan",
    "read_recipe": "recipe.file",
    "read_records": "data.records",
    "read_texts": "data.files",
    "remove_lora": "lora",
    "run_recipe": "recipe.run",
    "save_adapter": "lora",
    "split": "data.split",
    "train": "session",
    "train_tokenizer": "tokenizers",
    "write_tokens": "data.blocks",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minitx.training' has no attribute {name!r}")
    return getattr(import_module(f"minitx.training.{_MODULES[name]}"), name)
