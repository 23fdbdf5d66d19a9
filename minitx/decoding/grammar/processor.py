"""The processor of a grammar: bans every token after which no text of the grammar can follow.

B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.grammar.masks import TokenAutomaton
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context


@dataclass(frozen=True, eq=False)
class GrammarMask(LogitsProcessor):
    """Bans the tokens that a grammar forbids; the others keep their logits.

    The state of a row is an integer, (B,) long: the state of the automaton after the row's new tokens.

    Args:
        automaton: the grammar, for the tokens of the model.
        name: of the grammar, in tables and errors.
    """

    automaton: TokenAutomaton
    name: str = "Grammar"

    @property
    def __name__(self) -> str:
        """The name that `explain` shows."""
        return self.name

    def init(self, context: Context) -> Tensor:
        """Returns the state of each row before its first new token: (B,) long."""
        automaton = self.automaton
        if automaton.start == automaton.start_of_text:
            return torch.full_like(context.prompt_length, automaton.start)
        pieces = automaton.vocabulary.pieces
        states = []
        for tokens, size in zip(context.tokens.tolist(), context.prompt_length.tolist(), strict=True):
            has_text = any(token < len(pieces) and pieces[token] for token in tokens[:size])
            states.append(automaton.start if has_text else automaton.start_of_text)
        return torch.tensor(states, device=context.length.device)

    def update(self, state: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
        """Returns the states after `token` (B,)."""
        pairs = zip(state.tolist(), token.tolist(), strict=True)
        return state.new_tensor([self.automaton.advance(*pair) for pair in pairs])

    def __call__(self, logits: Tensor, context: Context, state: Tensor | None = None) -> Tensor:
        """(B, V) -> (B, V)."""
        states = (self.init(context) if state is None else state).tolist()
        allowed = torch.stack([self.automaton.allowed(number) for number in states]).to(logits.device)
        return torch.where(allowed, logits, -torch.inf)
