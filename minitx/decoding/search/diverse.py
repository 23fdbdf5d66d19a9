"""Diverse beam search: groups of beams, each of which keeps away from what the groups before it chose.

Vijayakumar et al. 2016, "Diverse Beam Search", arXiv:1610.02424. At each step the groups of a prompt choose
one after the other, and a token loses `diversity_penalty` for each time that an earlier group has just
chosen it (Hamming diversity, section 4.2). Each group is a beam search of its own, with its own finished
hypotheses; the best of all groups are returned. Two groups may finish the same text, and it is then
returned twice: the penalty pushes groups apart and forbids nothing. Sums carry the penalties on.

Tokens and scores are those of transformers 4.53, which has this search; later versions do not.

P prompts, G groups, S beams of a group, N = G * S, C candidates of a group, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.parameters import NON_NEGATIVE, set_frozen
from minitx.decoding.search.base import Run, candidates_of
from minitx.decoding.search.rows import BeamHypotheses
from minitx.decoding.search.scored import ScoredSearch
from minitx.validation import check_integer


@dataclass(frozen=True, kw_only=True, repr=False)
class DiverseBeam(ScoredSearch):
    """Diverse beam search. `num_samples` of `generate` is how many hypotheses it returns, the best first.

    Attributes:
        num_beams: N, the beams of all groups together.
        num_beam_groups: G, by which num_beams can be divided. As many groups as beams differ most.
        diversity_penalty: what a token loses per earlier choice, in nats, before the processors see it.
        length_penalty, early_stopping: as for `Beam`; a group keeps S hypotheses.
    """

    num_beam_groups: int = 2
    diversity_penalty: float = 0.5

    def begin(self, call: Call) -> _Run:
        return _Run(self, call)

    def _check(self) -> None:
        super()._check()
        hint = "1 is a beam search without groups"
        groups = check_integer("num_beam_groups", self.num_beam_groups, 1, hint=hint)
        if self.num_beams % groups:
            raise ValueError(
                f"num_beams={self.num_beams} cannot be divided into num_beam_groups={groups} of one size."
            )
        set_frozen(self, num_beam_groups=groups)
        self._settle_number("diversity_penalty", NON_NEGATIVE, "0 makes all groups equal")


@dataclass
class _Choice:
    """What one group chose at one step.

    Attributes:
        parents, tokens, sums, scores, ends: (P, C), its candidates; parents are beams of the group.
        kept: (P, S) long, which of them its beams go on with.
        counts: (P, S) bool, which of those the later groups keep away from.
    """

    parents: Tensor
    tokens: Tensor
    sums: Tensor
    scores: Tensor
    ends: Tensor
    kept: Tensor
    counts: Tensor


class _Run(Run[DiverseBeam]):
    """One search."""

    def __init__(self, strategy: DiverseBeam, call: Call) -> None:
        self._groups = strategy.num_beam_groups
        self._size = strategy.num_beams // self._groups
        self._width = candidates_of(call, self._size)  # C
        super().__init__(strategy, call, self._width * self._groups)
        prompts = len(call.prompts)
        self._sums = torch.full((prompts, self._groups, self._size), -torch.inf, device=self.device)
        self._sums[:, :, 0] = 0.0  # one beam per group to begin with: equal ones would give equal texts
        self._pools = [BeamHypotheses(prompts, self._size, self._sums) for _ in range(self._groups)]
        self._closed = torch.zeros(prompts, self._groups, dtype=torch.bool, device=self.device)

    def step(self) -> None:
        before = self._sums.flatten(1) > -torch.inf
        logp = self.rows.log_probabilities
        prompts, groups, size = self._sums.shape
        chosen = self._sums.new_zeros(prompts, 1, logp.shape[-1])  # how often, by the groups before
        minus = self._sums.new_zeros(prompts, groups, size, logp.shape[-1])
        processed = torch.empty_like(minus)
        choices = []
        for group in range(groups):
            minus[:, group] = self.strategy.diversity_penalty * chosen
            # Processors may ask for any row's history, so they get all rows, of which one group's are used.
            processed[:, group] = self.rows.processed(logp - minus.flatten(0, 2)).view_as(minus)[:, group]
            choice = self._choose(group, processed[:, group])
            chosen[:, 0].scatter_add_(1, choice.tokens.gather(1, choice.kept), choice.counts.float())
            choices.append(choice)
        self._write_down(choices, processed.flatten(0, 2))
        found = torch.cat([pool.scores for pool in self._pools], dim=1).amax(dim=1) > -torch.inf
        self.check(before, found | (self._sums > -torch.inf).flatten(1).any(dim=1))
        for prompt in self._closed.all(dim=1).nonzero().flatten().tolist():
            self.trace.done.setdefault(prompt, len(self.trace.steps))
        if not self.done:
            self.go_on()

    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        return sorted((each for pool in self._pools for each in pool.of(prompt)), reverse=True)

    def _choose(self, group: int, processed: Tensor) -> _Choice:
        """One group's turn. processed: (P, S, V) log-probabilities."""
        strategy, length = self.strategy, self.length
        pool, closed = self._pools[group], self._closed[:, group, None].clone()
        continued = processed + self._sums[:, group, :, None]
        sums, index = continued.flatten(1).topk(self._width)  # (P, C)
        parents, tokens = index // processed.shape[-1], index % processed.shape[-1]
        end, place = self.ends(tokens), torch.arange(self._width, device=self.device)
        codes = self.codes[group * self._width :][: self._width]
        scores = sums / strategy.norm(length)
        pool.add(scores.masked_fill(closed | ~end | (place >= self._size), -torch.inf), codes)
        beams, kept = sums.masked_fill(end, -torch.inf).topk(self._size)  # (P, S)
        # What a group chooses in the step that satisfies it still counts.
        counts = (beams > -torch.inf) & ~closed
        is_done = strategy.is_done(pool, sums[:, 0], length, self.call)
        beams = beams.masked_fill(closed | is_done[:, None], -torch.inf)
        if length == self.call.max_new_tokens:  # the beams end here
            going_on = torch.zeros_like(end).scatter(1, kept, beams > -torch.inf)
            pool.add(scores.masked_fill(closed | ~going_on, -torch.inf), codes)
            end = torch.ones_like(end)
            beams = torch.full_like(beams, -torch.inf)
        self._closed[:, group] |= beams[:, 0] == -torch.inf
        self._sums[:, group] = beams
        return _Choice(parents, tokens, sums, scores, end, kept, counts)

    def _write_down(self, choices: list[_Choice], processed: Tensor) -> None:
        """Records what the groups chose; their candidates stand one group behind the other."""
        group, vocab_size = torch.arange(self._groups, device=self.device), processed.shape[-1]
        parents = torch.cat([choice.parents for choice in choices], dim=1)
        parents = parents + group.repeat_interleave(self._width) * self._size
        tokens = torch.cat([choice.tokens for choice in choices], dim=1)
        kept = torch.stack([choice.kept for choice in choices], dim=1) + group[:, None] * self._width
        self.record(
            processed,
            parents * vocab_size + tokens,
            torch.cat([choice.sums for choice in choices], dim=1),
            torch.cat([choice.scores for choice in choices], dim=1),
            torch.cat([choice.ends for choice in choices], dim=1),
            self._sums.flatten(1),
            kept.flatten(1),
            torch.cat([pool.codes for pool in self._pools], dim=1),
        )
