"""How far a quantised model is from the one that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.validation import ArgumentTypeError, ArgumentValueError, check_type


@dataclass(frozen=True)
class Quality:
    """Differences of two language models on the same tokens. `print` shows them.

    Attributes:
        perplexity: of the model.
        reference_perplexity: of the reference.
        agreement: share of positions at which both have the same first choice.
        kl: mean divergence KL(reference || model) of the next token, in nats.
        tokens: number of predicted tokens.
    """

    perplexity: float
    reference_perplexity: float
    agreement: float
    kl: float
    tokens: int

    @property
    def change(self) -> float:
        """The relative change of the perplexity: 0.01 is one percent more."""
        return self.perplexity / self.reference_perplexity - 1

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:.3f}, reference {self.reference_perplexity:.3f} "
            f"({100 * self.change:+.2f} %)\n"
            f"same first choice {100 * self.agreement:.1f} %, KL {self.kl:.5f} nats, {self.tokens} tokens"
        )


@torch.inference_mode()
def quality(model: nn.Module, reference: nn.Module, ids: Any) -> Quality:
    """Compares a quantised language model with a reference, on tokens of a real text.

    Args:
        model: with head="causal-lm", such as a quantised one.
        reference: with the same vocabulary, such as the same checkpoint loaded once more.
        ids: (B, T) token ids, or a list of lists or tensors (T), which are run one at a time; at least two
            tokens each.

    Raises:
        ArgumentTypeError: not a module, or not token ids.
        ArgumentValueError: a model without logits of the next token, no sequences, or one of one token.
    """
    sums = torch.zeros(4, dtype=torch.float64)  # losses of both, equal first choices, KL
    tokens = 0
    for parameter, each in (("model", model), ("reference", reference)):
        check_type(parameter, each, nn.Module, "a module")
        if getattr(each, "task", None) != "causal-lm":
            hint = 'load it with head="causal-lm"'
            raise ArgumentValueError(parameter, each, "a language model", hint)
    device = next(model.parameters()).device
    for batch in _batches(ids):
        target = batch[:, 1:].flatten().to(device)
        both = [_log_probabilities(each, batch).to(device) for each in (model, reference)]
        losses = [F.nll_loss(each, target, reduction="sum").double() for each in both]
        same = (both[0].argmax(-1) == both[1].argmax(-1)).sum()
        divergence = F.kl_div(both[0], both[1], reduction="sum", log_target=True)
        sums += torch.stack([*losses, same.double(), divergence.double()]).cpu()
        tokens += len(target)
    loss, reference_loss, same_choices, kl = (sums / tokens).tolist()
    return Quality(math.exp(loss), math.exp(reference_loss), same_choices, kl, tokens)


def _batches(ids: Any) -> Iterable[Tensor]:
    """Yields token ids (B, T)."""
    if isinstance(ids, Sequence) and not isinstance(ids, str):
        if not ids:
            raise ArgumentValueError("ids", ids, "at least one list of token ids, and it is empty")
        batches = [row[None] if isinstance(row, Tensor) else torch.tensor([row]) for row in ids]
    elif isinstance(ids, Tensor):
        batches = [ids]
    else:
        raise ArgumentTypeError("ids", ids, "a tensor (B, T), or lists or tensors of token ids")
    for batch in batches:
        if batch.dim() != 2 or batch.shape[1] < 2 or batch.is_floating_point():
            raise ArgumentValueError("ids", batch, "token ids of shape (B, T) with T of at least 2")
        yield batch


def _log_probabilities(model: nn.Module, ids: Tensor) -> Tensor:
    """Returns those of the next tokens in float32: (B, T) -> (B * (T - 1), V)."""
    device = next(model.parameters()).device
    logits = model(ids.to(device)).logits[:, :-1]
    return F.log_softmax(logits.float(), dim=-1).flatten(0, 1)
