"""Direct preference optimization: prefer one response to another, relative to a reference model.

DPO (arXiv:2305.18290, equation 7) with label smoothing for labels that are wrong now and then (the
"conservative" variant of its authors, arXiv:2310.12036 section 5 discusses others).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.training.objectives.base import IGNORED, Batch, Example, Loss, Objective
from minitx.training.objectives.batching import (
    check_optional_integers,
    check_real,
    collate,
    entry,
    padding_id,
)
from minitx.training.objectives.causal import Document
from minitx.training.objectives.conversation import encode_conversation, encode_response
from minitx.validation import ArgumentTypeError, ArgumentValueError, Interval, check_number, check_type

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

REFERENCE = "reference_log_probabilities"
_STATED = ("reference_chosen", "reference_rejected")


def sequence_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the log-probability of each sequence: (B, T, V), (B, T) -> (B,).

    Args:
        logits: (B, T, V); those at a token predict the next.
        labels: (B, T), -100 is left out.
    """
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(wide.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")
    return -losses.sum(dim=1)


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Returns the DPO loss of each pair, from log-probabilities of the responses: (P,) each -> (P,).

    With h = beta * ((chosen - rejected) - (reference_chosen - reference_rejected)), it is
    -(1 - s) * log sigmoid(h) - s * log sigmoid(-h).

    Args:
        chosen, rejected: (P,) of the model.
        reference_chosen, reference_rejected: (P,) of the reference.
        beta: how closely the model follows the reference.
        label_smoothing: s, the probability that a pair is the wrong way around, below 0.5.
    """
    margin = beta * ((chosen - rejected) - (reference_chosen - reference_rejected))
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


@dataclass(frozen=True)
class DPO(Objective):
    """Direct preference optimization of decoders with head="causal-lm".

    Examples have a `prompt` and the responses `chosen` and `rejected`: texts, or messages each. Messages need
    no prompt if both begin with it; earlier responses of the assistant then cancel out.

    Attributes:
        tokenizer: with a chat template, for messages.
        reference: the model before training, in eval mode; None: each example has its log-probabilities
            `reference_chosen` and `reference_rejected`, which `reference_log_probabilities` computes.
        beta: how closely the model follows the reference.
        label_smoothing: probability that a pair is the wrong way around.
        max_length: maximum number of tokens of prompt and response; the end is cut off. None: all of them.
        template: name of a chat template, or one in Jinja; None: the tokenizer's.
    """

    task = "causal-lm"
    tokenizer: Tokenizer
    reference: nn.Module | None = field(default=None, repr=False)
    beta: float = 0.1
    label_smoothing: float = 0.0
    max_length: int | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        check_number("beta", self.beta, Interval(0, float("inf"), open_low=True, open_high=True))
        check_number("label_smoothing", self.label_smoothing, Interval(0, 0.5, open_high=True))
        check_optional_integers(2, max_length=self.max_length)
        if self.reference is not None and any(module.training for module in self.reference.modules()):
            expected = "in eval mode: dropout would change its log-probabilities"
            raise ArgumentValueError("reference", self.reference, expected, "call reference.eval()")

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns `input_ids`, `attention_mask` and `labels` (2P, T), the chosen responses first.

        Args:
            examples: one pair each.
            generator: not used.

        Raises:
            ImportError, TypeError, ValueError: as `response_characters`; an example without both responses.
        """
        for index, example in enumerate(examples):
            self.check(example, index)
        documents = [self.document(example, name) for name in ("chosen", "rejected") for example in examples]
        limit = self.max_length
        rows = [{"input_ids": x.ids[:limit], "labels": x.labels[:limit]} for x in documents]
        for number, row in enumerate(rows):
            if all(label == IGNORED for label in row["labels"][1:]):
                half, index = divmod(number, len(examples))
                name = f"examples[{index}][{('chosen', 'rejected')[half]!r}]"
                is_cut = len(documents[number].ids) > len(row["labels"])
                hint = f"max_length={limit} cuts it off" if is_cut else "it is empty"
                raise ArgumentValueError(name, examples[index], "a response with tokens", hint)
        batch = collate(rows, padding_id(self.tokenizer))
        if self.reference is None:
            stated = [self.stated(x, i, name) for name in _STATED for i, x in enumerate(examples)]
            batch[REFERENCE] = torch.tensor(stated)
        return batch

    def check(self, example: Example, index: int) -> None:
        """Checks the fields of a pair, else raises an argument's error; `index` is its place in the batch."""
        chosen, _ = (entry(example, name, index) for name in ("chosen", "rejected"))
        if isinstance(chosen, str):
            entry(example, "prompt", index)
        check_preference(example, lambda name: f"examples[{index}][{name!r}]")

    def stated(self, example: Example, index: int, name: str) -> float:
        """Returns a log-probability that an example has; `index` is its place in the batch, for messages."""
        path, value = f"examples[{index}][{name!r}]", entry(example, name, index)
        return check_real(path, value, "it is a log-probability of the reference")

    def document(self, example: Example, name: str) -> Document:
        """Returns one response after its prompt.

        Args:
            example: the pair, checked.
            name: "chosen" or "rejected".
        """
        response = example[name]
        if isinstance(response, str):
            return encode_response(self.tokenizer, example["prompt"], response)
        messages = [*example.get("prompt", ()), *response]
        return encode_conversation(self.tokenizer, messages, template=self.template)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the summed loss of the pairs.

        Args:
            model: a decoder.
            batch: from `__call__`, on the device of the model and of the reference.

        Raises:
            ArgumentValueError: a model without a head over the vocabulary.
        """
        self.check_task(model)
        policy = log_probabilities(model, batch).chunk(2)
        if self.reference is None:
            reference = batch[REFERENCE].to(policy[0].dtype)
        else:
            reference = reference_log_probabilities(self.reference, batch)
        losses = dpo_loss(*policy, *reference.chunk(2), beta=self.beta, label_smoothing=self.label_smoothing)
        return Loss(losses.sum(), torch.tensor(len(losses), device=losses.device))


def check_preference(example: Example, path: Callable[[str], str]) -> None:
    """Checks that prompt and responses are all texts or all messages.

    Args:
        example: with `chosen` and `rejected`; messages need no `prompt`.
        path: from the name of a field to that in messages.

    Raises:
        ArgumentTypeError: other values.
    """
    is_text, hint = isinstance(example["chosen"], str), "all three are texts, or messages"
    for name in ("chosen", "rejected", *(["prompt"] if is_text or "prompt" in example else [])):
        value = example.get(name)
        if is_text:
            check_type(path(name), value, str, "a string", hint)
        elif not isinstance(value, list | tuple) or not all(isinstance(part, Mapping) for part in value):
            expected = "a string or a list of messages" if name == "chosen" else "a list of messages"
            raise ArgumentTypeError(path(name), value, expected, hint)


def log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Returns the log-probabilities of the responses of a batch: (2P, T) -> (2P,)."""
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return sequence_log_probabilities(model(**inputs).logits, batch["labels"])


@torch.no_grad()
def reference_log_probabilities(model: nn.Module, batch: Batch) -> Tensor:
    """Returns the log-probabilities of the reference, without gradients: (2P, T) -> (2P,), chosen first.

    Args:
        model: the reference, in eval mode.
        batch: from `DPO.__call__`.
    """
    return log_probabilities(model, batch)
