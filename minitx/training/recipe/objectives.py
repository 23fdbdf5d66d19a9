"""The objectives of recipes by name, and their options, which are the fields of their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from minitx.checkpoint.load import load
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.training.objectives.base import Objective
from minitx.training.objectives.causal import CausalLM
from minitx.training.objectives.contrastive import SentencePairs
from minitx.training.objectives.denoising import Denoising
from minitx.training.objectives.distillation import Distillation
from minitx.training.objectives.instruct import Instruct
from minitx.training.objectives.labelled import AnswerSpans, SequenceLabels, TokenLabels
from minitx.training.objectives.masked import MaskedLM
from minitx.training.objectives.preference import DPO
from minitx.training.objectives.replaced import ReplacedTokens
from minitx.training.objectives.seq2seq import Seq2SeqLM
from minitx.training.objectives.spans import SpanCorruption
from minitx.training.recipe.tables import check_keys
from minitx.validation import ArgumentValueError, check_choice, check_integer, check_type

OBJECTIVES: dict[str, type[Objective]] = {
    "masked-lm": MaskedLM,
    "causal-lm": CausalLM,
    "span-corruption": SpanCorruption,
    "denoising": Denoising,
    "replaced-tokens": ReplacedTokens,
    "seq2seq-lm": Seq2SeqLM,
    "instruct": Instruct,
    "dpo": DPO,
    "sequence-labels": SequenceLabels,
    "token-labels": TokenLabels,
    "answer-spans": AnswerSpans,
    "sentence-pairs": SentencePairs,
    "distillation": Distillation,
}
PAIR = "replaced-token-detection"  # head of the model that a pair of models is trained for
# Heads that are new where the checkpoint lacks them.
LABELLED = ("sequence-classification", "token-classification", "question-answering")
# Objectives of text, which is read from text files or the field `text`.
OF_TEXT = ("masked-lm", "causal-lm", "span-corruption", "denoising", "replaced-tokens")


@dataclasses.dataclass(frozen=True)
class ObjectiveTable:
    """The table [objective] of a recipe.

    Attributes:
        name: key of `OBJECTIVES`.
        options: fields of its class; of "dpo" also `reference`, of "distillation" `teacher`, the names of
            models.
        inner: of "distillation": the objective on the labels.
    """

    name: str
    options: Mapping[str, Any]
    inner: ObjectiveTable | None = None

    @property
    def task(self) -> ObjectiveTable:
        """The table of the objective that makes the batches: `inner`, or this one."""
        return self if self.inner is None else self.inner

    @property
    def head(self) -> str:
        """The head that the model needs."""
        if self.task.name == "replaced-tokens":
            return PAIR
        return OBJECTIVES[self.task.name].task or "none"

    @property
    def is_regression(self) -> bool:
        """Whether the label is a number."""
        return self.task.options.get("num_labels") == 1


def read_objective(values: Mapping[str, Any], name: str = "objective") -> ObjectiveTable:
    """Returns the table of an objective, with its names checked.

    Args:
        values: name and options.
        name: of the table, for messages.

    Raises:
        ArgumentTypeError, ArgumentValueError: an unknown objective or option.
    """
    if "name" not in values:
        names = ", ".join(map(repr, OBJECTIVES))
        raise ArgumentValueError(f"{name}.name", None, f"the name of an objective: one of {names}")
    kind = check_choice(f"{name}.name", values["name"], OBJECTIVES)
    check_keys(values, ["name", *options_of(kind)], name)
    options, inner = {key: value for key, value in values.items() if key != "name"}, None
    if kind == "distillation":
        expected = f"a table, [{name}.objective]"
        stated = check_type(f"{name}.objective", options.pop("objective", None), Mapping, expected)
        check_type(f"{name}.teacher", options.get("teacher"), str, "a folder or Hub id")
        inner = read_objective(stated, f"{name}.objective")
        if inner.name in ("distillation", "replaced-tokens", "sentence-pairs", "dpo"):
            expected = "an objective with one target per token or row"
            raise ArgumentValueError(f"{name}.objective.name", inner.name, expected)
    return ObjectiveTable(kind, options, inner)


def options_of(name: str) -> list[str]:
    """Returns the options of an objective in a recipe."""
    fields = dataclasses.fields(OBJECTIVES[name])  # type: ignore[arg-type]
    names = [field.name for field in fields if field.init and field.name != "tokenizer"]
    return [each for each in names if (name, each) != ("token-labels", "num_labels")]


def build_objective(
    stated: ObjectiveTable, model: nn.Module, tokenizer: Tokenizer, num_labels: int | None
) -> Objective:
    """Returns an objective.

    Args:
        stated: its table.
        model: to train, before its adapters; the reference of "dpo" is a copy of it unless one is named.
        tokenizer: of the model.
        num_labels: of the data, or None.

    Raises:
        ArgumentTypeError, ArgumentValueError: options out of bounds.
        OSError, ValueError: a teacher or reference that cannot be loaded.
    """
    options = dict(stated.options)
    if stated.inner is not None:
        teacher = load(options.pop("teacher"), head=stated.head, device=device_of(model)).eval()
        check_vocabulary(teacher, tokenizer, "objective.teacher")
        inner = build_objective(stated.inner, model, tokenizer, num_labels)
        return Distillation(inner, teacher, **options)
    if stated.name == "dpo":
        reference = options.pop("reference", None)
        if reference is None:
            options["reference"] = deepcopy(model).eval()
        else:
            check_type("objective.reference", reference, str, "a folder or Hub id")
            options["reference"] = load(reference, head="causal-lm", device=device_of(model)).eval()
    if num_labels is not None and stated.name in ("sequence-labels", "token-labels"):
        expected = options.setdefault("num_labels", num_labels)
        check_integer("objective.num_labels", expected, num_labels, num_labels, "the data has as many labels")
    kind: Callable[..., Objective] = OBJECTIVES[stated.name]
    limit = longest_input(model)
    for name in ("max_length", "length"):
        if name in options_of(stated.name) and limit is not None:
            options.setdefault(name, usual_length(stated.name, limit))
    return kind(tokenizer=tokenizer, **options)


def usual_length(name: str, limit: int) -> int:
    """Returns the length of the inputs of an objective without `max_length`, for a model's longest input."""
    usual = AnswerSpans.max_length if name == "answer-spans" else limit
    return min(usual, limit - (name == "span-corruption"))  # the end token is added


def longest_input(model: nn.Module) -> int | None:
    """Returns the number of tokens that a model takes, or was trained with; None if it is unknown."""
    part = getattr(model, "discriminator", model)
    longest = getattr(getattr(part, "embedder", None), "max_tokens", None)
    return longest if isinstance(longest, int) and longest > 2 else None


def device_of(model: nn.Module) -> Any:
    """Returns the device of a model's parameters."""
    return next(model.parameters()).device


def check_vocabulary(model: Any, tokenizer: Tokenizer, key: str) -> None:
    """Checks that a model has an embedding of every token.

    Raises:
        ArgumentValueError: the tokenizer has more tokens.
    """
    if not isinstance(model, Model):
        return
    size = getattr(model.config.inputs, "vocab_size", None)
    if size is not None and len(tokenizer) > size:
        hint = "take the tokenizer of the model, or set vocab_size"
        raise ArgumentValueError(key, f"{len(tokenizer)} tokens", f"at most the model's {size} tokens", hint)
