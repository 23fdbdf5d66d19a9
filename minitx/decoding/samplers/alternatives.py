"""Alternatives: one continuation for each of the most probable first tokens.

The first row of a prompt begins with its most probable token, the second row with the second, and so on;
from there each takes what is most probable. CTranslate2 has it as `return_alternatives`; Wang and Zhou
2024, "Chain-of-Thought Reasoning without Prompting", arXiv:2402.10200, find reasoning among the rows.

B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.strategy import Strategy


@dataclass(frozen=True, kw_only=True, repr=False)
class Alternatives(Strategy):
    """Begins the `num_samples` rows of a prompt with its most probable tokens, best first; then as `Greedy`.

    What is most probable is decided behind the processors.
    """


class FirstRank:
    """The token of a row's rank at position 0, the most probable one at all others.

    Args:
        prompts: how many there are.
        num_samples: rows per prompt, of rank 0, 1, ...
        device: of the logits.
    """

    def __init__(self, prompts: int, num_samples: int, device: torch.device | str = "cpu") -> None:
        self._rank = torch.arange(num_samples, device=device).repeat(prompts)  # (B,)

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,). Of equal tokens the lowest id ranks first.

        Raises:
            ValueError: a row has fewer tokens that are possible than its rank asks for.
        """
        best = logits.argmax(dim=-1)
        first = torch.as_tensor(position, device=logits.device) == 0
        if not bool(first.any()):
            return best
        possible = (logits > -torch.inf).sum(dim=-1)
        # A row without any is for the loop to blame.
        short = (first & (self._rank >= possible) & (possible > 0)).nonzero()
        if len(short):
            row = int(short[0])
            raise ValueError(
                f"Row {row} is to begin with the token of rank {int(self._rank[row]) + 1}, but only "
                f"{int(possible[row])} are possible; ask for num_samples={int(possible[row])} at most."
            )
        ranked = logits.sort(dim=-1, descending=True, stable=True).indices
        rank = self._rank.clamp(max=logits.shape[-1] - 1)
        return torch.where(first, ranked.gather(1, rank[:, None]).squeeze(1), best)
