"""Alternatives: one continuation for each of the most probable first tokens.

The first row of a prompt starts with its most probable token, the second row with the second, and so on; each
continues greedily. CTranslate2 has it as `return_alternatives`; Wang and Zhou 2024, "Chain-of-Thought
Reasoning without Prompting", arXiv:2402.10200, find reasoning among the rows.

B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.samplers.base import Device, Sampler, SamplerArguments
from minitx.decoding.strategy import Strategy
from minitx.device import as_tensor
from minitx.validation import ArgumentValueError


@dataclass(frozen=True, kw_only=True, repr=False)
class Alternatives(Strategy):
    """Starts the `num_samples` rows of a prompt with its most probable tokens, best first; then as `Greedy`.

    Tokens are ranked after the processors.
    """

    def _sampler(self, call: SamplerArguments) -> Sampler:
        self._check_draws_nothing(seed=call.seed, generator=call.generator)
        return FirstRank(len(call.prompts), call.num_samples, call.device)


class FirstRank:
    """The token of a row's rank at position 0, the most probable one at all others.

    Args:
        num_prompts: number of prompts.
        num_samples: rows per prompt, of rank 0, 1, ...
        device: of the logits.
    """

    def __init__(self, num_prompts: int, num_samples: int, device: Device = "cpu") -> None:
        self._rank = torch.arange(num_samples, device=device).repeat(num_prompts)  # (B,)

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,). Of equal tokens the lowest id ranks first.

        Raises:
            ArgumentValueError: a row has fewer possible tokens than its rank needs.
        """
        best = logits.argmax(dim=-1)
        first = as_tensor(position, logits.device) == 0
        if not (bool(first.any()) if isinstance(position, Tensor) else position == 0):
            return best
        possible = (logits > -torch.inf).sum(dim=-1)
        # The loop raises the error for rows without any possible token.
        short = (first & (self._rank >= possible) & (possible > 0)).nonzero()
        if len(short):
            row = int(short[0])
            hint = f"row {row} has no more possible tokens to start with"
            num_samples = int(self._rank.max()) + 1
            raise ArgumentValueError("num_samples", num_samples, f"at most {int(possible[row])}", hint)
        ranked = logits.sort(dim=-1, descending=True, stable=True).indices
        rank = self._rank.clamp(max=logits.shape[-1] - 1)
        return torch.where(first, ranked.gather(1, rank[:, None]).squeeze(1), best)
