"""The exact law of speculative decoding of a small model, by enumeration of everything that can happen.

The verification classes of the package decide; a stand-in for their random numbers makes every decision
happen once, and its probability is computed beside it. V tokens, K drafted tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.speculative.acceptance import block_accept_probabilities, block_weights
from minitx.decoding.speculative.draft import Proposal
from minitx.decoding.speculative.verification import Block, Match, TokenByToken, Verification, WholeBlock

Sequence = tuple[int, ...]
# the tokens so far -> the distribution (V,) of the next one
Model = Callable[[Sequence], Tensor]
Law = dict[Sequence, float]

SIZE, LENGTH, DRAFTED = 3, 4, 2
BELOW_ONE = 1 - 2.0**-53


def table_model(table: Tensor) -> Model:
    """A model whose distribution depends on the last two tokens: (V + 1, V + 1, V), with V for no token."""

    def _next(tokens: Sequence) -> Tensor:
        first, second = (SIZE, SIZE, *tokens)[-2:]
        return table[first, second]

    return _next


def plain_law(model: Model, length: int = LENGTH) -> Law:
    """The law of sequences that are drawn token by token."""
    law: Law = {(): 1.0}
    for _ in range(length):
        law = {
            (*tokens, token): mass * float(model(tokens)[token])
            for tokens, mass in law.items()
            for token in range(SIZE)
        }
    return law


@dataclass
class Script:
    """Random numbers that are given: which drafted tokens pass, and the tokens that are drawn."""

    uniforms: list[float]
    drawn: list[int]
    distributions: list[Tensor] = field(default_factory=list)
    draws: bool = True

    def uniform(self, counter: Tensor) -> Tensor:
        return torch.tensor([self.uniforms[int(counter)]], dtype=torch.float64)

    def sampler(self, stream: str) -> Callable[[Tensor, Any], Tensor]:
        def _draw(logits: Tensor, position: Any) -> Tensor:
            self.distributions.append(logits.softmax(dim=-1)[0])
            return torch.tensor([self.drawn[int(position)]])

        return _draw


@dataclass(frozen=True)
class Draft:
    """How tokens are drafted.

    Attributes:
        draws: the distribution that each token is drawn from.
        states: the distribution that the verification is told; None for `draws`.
        one_hot: the verification is told that nothing was drawn.
        count: (tokens) -> number of drafted tokens after them.
        memory: the number of last tokens that decide about the next block.
    """

    draws: Model
    states: Model | None = None
    one_hot: bool = False
    count: Callable[[Sequence], int] = lambda tokens: DRAFTED
    memory: int = 2


def speculative_law(model: Model, draft: Draft, verification: Verification, length: int = LENGTH) -> Law:
    """The law of sequences of this length, cut from the blocks of speculative decoding."""
    law: Law = {}
    running: Law = {(): 1.0}
    blocks: dict[Sequence, Law] = {}
    while running:
        tokens, mass = running.popitem()
        recent = tokens[-draft.memory :]
        if recent not in blocks:
            blocks[recent] = block_law(tokens, model, draft, verification)
        for block, probability in blocks[recent].items():
            longer, weight = (*tokens, *block)[:length], mass * probability
            target = law if len(longer) == length else running
            target[longer] = target.get(longer, 0.0) + weight
    return law


def block_law(tokens: Sequence, model: Model, draft: Draft, verification: Verification) -> Law:
    """The law of the tokens that one block appends."""
    law: Law = {}
    count = draft.count(tokens)
    for drafted in product(range(SIZE), repeat=DRAFTED):
        if any(drafted[count:]):
            continue  # tokens after the count are not drafted: 0
        mass = 1.0
        for index in range(count):
            mass *= float(draft.draws((*tokens, *drafted[:index]))[drafted[index]])
        if mass == 0:
            continue
        for outcome, probability in outcomes(tokens, drafted, count, model, draft, verification):
            law[outcome] = law.get(outcome, 0.0) + mass * probability
    return law


def outcomes(
    tokens: Sequence, drafted: Sequence, count: int, model: Model, draft: Draft, verification: Verification
) -> list[tuple[Sequence, float]]:
    """The tokens that a block of these drafted tokens can append, with their probabilities."""
    places = [(*tokens, *drafted[:index]) for index in range(DRAFTED + 1)]
    p = torch.stack([model(place) for place in places])
    q = torch.stack([(draft.states or draft.draws)(place) for place in places[:-1]])
    proposal = Proposal(
        torch.tensor([drafted]), torch.tensor([count]), None if draft.one_hot else q.log()[None]
    )

    def _run(uniforms: list[float], drawn: list[int]) -> tuple[int, int, Script]:
        script = Script(uniforms, drawn)
        zero = torch.tensor([0])
        block = Block(proposal, lambda index: p[index].log()[None], script, zero, zero)  # type: ignore[arg-type]
        accepted, token = verification(block)
        return int(accepted), int(token), script

    found = []
    if isinstance(verification, Match):
        for drawn in product(range(SIZE), repeat=count + 1):
            mass = float(torch.stack([p[i][y] for i, y in enumerate(drawn)]).prod())
            accepted, token, _ = _run([], [*drawn, 0, 0])
            found.append(((*drafted[:accepted], token), mass))
        return found
    passing = thresholds(p, q, proposal, verification)
    for passes in product((True, False), repeat=count):
        mass = 1.0
        for index, passed in enumerate(passes):
            mass *= passing[index] if passed else 1 - passing[index]
        if mass == 0:
            continue
        uniforms = [0.0 if passed else BELOW_ONE for passed in passes] + [0.0] * DRAFTED
        accepted, _, script = _run(uniforms, [0])
        for token, probability in enumerate(script.distributions[-1].tolist()):
            found.append(((*drafted[:accepted], token), mass * probability))
    return found


def thresholds(p: Tensor, q: Tensor, proposal: Proposal, verification: Verification) -> list[float]:
    """The probabilities that the tests of a block's tokens pass."""
    tokens = proposal.tokens[0]
    if proposal.logits is None:
        q = torch.nn.functional.one_hot(tokens, SIZE).to(q.dtype)
    if isinstance(verification, TokenByToken):
        return [float(verification.rule(p[i, None], q[i, None], tokens[i, None])[0]) for i in range(DRAFTED)]
    assert isinstance(verification, WholeBlock)
    weights = block_weights(p[:-1], q, tokens)
    return block_accept_probabilities(p[:-1], q, weights, proposal.counts[0]).tolist()


def distance(law: Law, expected: Law) -> float:
    """The largest difference of a probability."""
    keys = {*law, *expected}
    return max(abs(law.get(key, 0.0) - expected.get(key, 0.0)) for key in keys)
