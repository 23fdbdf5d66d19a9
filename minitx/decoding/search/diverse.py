"""Diverse beam search: groups of beams, each of which avoids the tokens that the groups before it chose.

Vijayakumar et al. 2016, "Diverse Beam Search", arXiv:1610.02424. At each step the groups of a prompt choose
one after the other, and a token loses `diversity_penalty` for each time that an earlier group has just chosen
it (Hamming diversity, section 4.2). Each group is a beam search with its own finished hypotheses; the best of
all groups are returned. Two groups may finish the same sequence, which is then returned twice: the penalty
separates groups but forbids nothing. Sums include the penalties.

Tokens and scores are those of transformers 4.53, which has this search; later versions do not.

P prompts, G groups, S beams of a group, N = G * S, C candidates of a group, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.decoding.parameters import NON_NEGATIVE, parameter, set_frozen
from minitx.decoding.search.base import ScoredSearch, num_candidates
from minitx.decoding.search.state import BeamHypotheses, BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentValueError, check_integer


class _State(BeamState):
    """Finished hypotheses are kept per group: (P * G, S).

    Attributes:
        closed: (P, G) bool, groups that are done.
    """

    closed: Tensor

    def finished_of(self, place: int, finished: BeamHypotheses) -> list[tuple[float, int]]:
        """Returns the hypotheses of all groups of a prompt, best first."""
        groups = self.closed.shape[1]
        hypotheses = (finished.of(place * groups + group) for group in range(groups))
        return sorted((pair for group in hypotheses for pair in group), reverse=True)


@dataclass(frozen=True, kw_only=True, repr=False)
class DiverseBeam(ScoredSearch):
    """Diverse beam search. `num_samples` of `generate` is the number of hypotheses returned, best first.

    `num_beams` is N, the beams of all groups together; a group keeps S hypotheses.
    """

    num_beam_groups: int = parameter(
        None, off=2, metavar="G", help="number of groups of beams, a divisor of num_beams"
    )
    diversity_penalty: float = parameter(
        None, off=0.5, metavar="X", help="subtracted for a token per earlier group that has just chosen it"
    )

    def begin(self, session: DecodingSession) -> _State:
        """Starts the session with one beam in each group."""
        groups, size = self.num_beam_groups, self.num_beams // self.num_beam_groups
        session.start(self.num_beams)
        width = num_candidates(session.request, size) * groups
        state = _State(session, width, size, groups)
        state.closed = torch.zeros(len(state.sums), groups, dtype=torch.bool, device=session.device)
        return state

    def propose(self, state: _State) -> Candidates:
        """Selects the C best continuations of each group in turn: (P, G * C), group after group."""
        logp, groups = state.session.log_probs, self.num_beam_groups
        sums = state.sums.view(len(state.sums), groups, -1)
        prompts, _, size = sums.shape
        width, vocab_size = state.record.width // groups, logp.shape[-1]
        counts = sums.new_zeros(prompts, 1, vocab_size)  # of the tokens that earlier groups chose
        penalty = sums.new_zeros(prompts, groups, size, vocab_size)
        processed = torch.empty_like(penalty)
        values, places = [], []
        for group in range(groups):
            penalty[:, group] = self.diversity_penalty * counts
            # Processors may read the history of any row, so they get all rows, and one group's are used.
            scores = state.session.process(logp - penalty.flatten(0, 2))
            processed[:, group] = scores.view_as(penalty)[:, group]
            continued = processed[:, group] + sums[:, group, :, None]
            best, index = continued.flatten(1).topk(width)  # (P, C)
            tokens = index % vocab_size
            beams, kept = best.masked_fill(state.ends(tokens), -torch.inf).topk(size)  # (P, S)
            chosen = (beams > -torch.inf) & ~state.closed[:, group, None]
            counts[:, 0].scatter_add_(1, tokens.gather(1, kept), chosen.float())
            values.append(best)
            places.append(index + group * size * vocab_size)
        return Candidates(processed.flatten(0, 2), torch.cat(places, dim=1), torch.cat(values, dim=1))

    def keep(self, state: _State, candidates: Candidates) -> Kept:
        """Each group finishes those of its best S that end; the best S of the others are its next beams."""
        groups = self.num_beam_groups
        size, width = self.num_beams // groups, state.record.width // groups
        shape = (len(state.sums) * groups, width)
        sums, scores, end = (x.view(shape) for x in (candidates.sums, candidates.scores, candidates.ends))
        closed = state.closed.flatten()[:, None]
        codes = state.codes.view(groups, width).repeat(len(state.sums), 1)
        beyond = torch.arange(width, device=sums.device) >= size
        state.finished.add(scores.masked_fill(closed | ~end | beyond, -torch.inf), codes)
        beams, kept = sums.masked_fill(end, -torch.inf).topk(size)  # (P * G, S)
        done = self.is_done(state, sums[:, 0])
        beams = beams.masked_fill(closed | done[:, None], -torch.inf)
        if state.at_limit:  # the beams end here
            continued = torch.zeros_like(end).scatter(1, kept, beams > -torch.inf)
            state.finished.add(scores.masked_fill(closed | ~continued, -torch.inf), codes)
            beams = torch.full_like(beams, -torch.inf)
        state.closed = state.closed | (beams[:, 0] == -torch.inf).view_as(state.closed)
        first = torch.arange(groups, device=sums.device)[:, None] * width
        kept = (kept.view(-1, groups, size) + first).flatten(1)
        return Kept(kept, beams.view(len(state.sums), -1))

    def _check(self) -> None:
        super()._check()
        hint = "1 is a search without groups"
        groups = check_integer("num_beam_groups", self.num_beam_groups, 1, hint=hint)
        if self.num_beams % groups:
            raise ArgumentValueError("num_beam_groups", groups, f"a divisor of num_beams={self.num_beams}")
        set_frozen(self, num_beam_groups=groups)
        self._check_number("diversity_penalty", NON_NEGATIVE, "0 makes all groups equal")
