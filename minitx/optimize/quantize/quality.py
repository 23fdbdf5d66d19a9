"""How far a quantised model is from the one that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
        error: standard error of `change`, as if tokens were independent; infinite for one token.
    """

    perplexity: float
    reference_perplexity: float
    agreement: float
    kl: float
    tokens: int
    error: float

    @property
    def change(self) -> float:
        """The relative change of the perplexity: 0.01 is one percent more."""
        return self.perplexity / self.reference_perplexity - 1

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:.3f}, reference {self.reference_perplexity:.3f} "
            f"({100 * self.change:+.2f} % ± {100 * self.error:.2f})\n"
            f"same first choice {100 * self.agreement:.1f} %, KL {self.kl:.5f} nats, {self.tokens} tokens"
        )


@torch.inference_mode()
def quality(model: nn.Module, reference: nn.Module, ids: Any) -> Quality:
    """Compares a quantised language model with a reference, on tokens of a real text.

    Take some thousand tokens or more: of a few hundred, the change of the perplexity is mostly chance, and
    `error` is as large as the change itself. A text with more tokens than the model has positions is divided
    into parts, which are run one by one.

    Args:
        model: with head="causal-lm", such as a quantised one.
        reference: with the same vocabulary, such as the same checkpoint loaded once more.
        ids: (B, T) token ids, or a list of lists or tensors (T), which are run one at a time; at least two
            tokens each.

    Raises:
        ArgumentTypeError: not a module, or not token ids.
        ArgumentValueError: a model without logits of the next token, no sequences, or one of one token.
    """
    sums = torch.zeros(5, dtype=torch.float64)  # losses of both, equal first choices, KL, squared differences
    tokens = 0
    for parameter, each in (("model", model), ("reference", reference)):
        check_type(parameter, each, nn.Module, "a module")
        if getattr(each, "task", None) != "causal-lm":
            hint = 'load it with head="causal-lm"'
            raise ArgumentValueError(parameter, each, "a language model", hint)
    device = next(model.parameters()).device
    for batch in _parts(ids, (model, reference)):
        target = batch[:, 1:].flatten().to(device)
        both = [_log_probabilities(each, batch).to(device) for each in (model, reference)]
        each_loss = [F.nll_loss(each, target, reduction="none").double() for each in both]
        same = (both[0].argmax(-1) == both[1].argmax(-1)).sum()
        divergence = F.kl_div(both[0], both[1], reduction="sum", log_target=True)
        squares = (each_loss[0] - each_loss[1]).square().sum()
        losses = [each.sum() for each in each_loss]
        sums += torch.stack([*losses, same.double(), divergence.double(), squares]).cpu()
        tokens += len(target)
    loss, reference_loss, same_choices, kl, square = (sums / tokens).tolist()
    difference = loss - reference_loss
    variance = max(0.0, square - difference**2) / (tokens - 1) if tokens > 1 else math.inf
    error = math.exp(difference) * math.sqrt(variance)
    return Quality(math.exp(loss), math.exp(reference_loss), same_choices, kl, tokens, error)


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


def _parts(ids: Any, models: Sequence[Any]) -> Iterator[Tensor]:
    """Yields token ids (B, T) of at most as many tokens as the models have positions."""
    longest = min(model.decoder_embedder.max_tokens for model in models)
    for batch in _batches(ids):
        for start in range(0, batch.shape[1] - 1, longest):
            part = batch[:, start : start + longest]
            if part.shape[1] > 1:  # the first token of a part is not predicted
                yield part


def _log_probabilities(model: nn.Module, ids: Tensor) -> Tensor:
    """Returns those of the next tokens in float32: (B, T) -> (B * (T - 1), V)."""
    device = next(model.parameters()).device
    logits = model(ids.to(device)).logits[:, :-1]
    return F.log_softmax(logits.float(), dim=-1).flatten(0, 1)
