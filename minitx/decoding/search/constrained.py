"""Lexically constrained beam search: texts that hold given words.

Hokamp and Liu 2017, "Lexically Constrained Decoding for Sequence Generation Using Grid Beam Search",
arXiv:1704.07138, in the form of Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam
Allocation", arXiv:1804.06609. Besides the most probable continuations of all beams, every beam that still
lacks words offers the tokens that bring it forward, however improbable, and every beam that has them all its
best token. Candidates that have come equally far form a bank, and the beams are shared out among the banks:
the best of each, from the furthest bank to the first, then the second best of each, and so on.

Tokens and scores are those of transformers 4.53, which has this search (later versions do not), wherever it
does what it sets out to; it ranks banks by a number that large log-probabilities outweigh, and loses
track of choices between phrases that begin alike and of phrases that are broken off.

P prompts, N beams, K most probable continuations, C candidates, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.parameters import set_frozen
from minitx.decoding.search.base import Run, candidates_of
from minitx.decoding.search.phrases import START, Progress, Words
from minitx.decoding.search.rows import BeamHypotheses
from minitx.decoding.search.scored import ScoredSearch

_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True, repr=False)
class LexicalBeam(ScoredSearch):
    """Beam search for texts that hold words. `num_samples` of `generate` is how many of them it returns.

    Attributes:
        force_words_ids: the words, each the ids of a phrase, or a list of such phrases of which one will do.
            Only generated tokens count, not the prompt's.
        push_progress: whether beams that hold all words always offer their best token. Without, as in
            transformers, they are dropped for texts that were never bent to hold a word and so are more
            probable; then words come last in a text, or the search returns with none that holds them.
        length_penalty, early_stopping: as for `Beam`.
    """

    force_words_ids: Sequence[Any] = ()
    push_progress: bool = True

    def begin(self, call: Call) -> _Run:
        return _Run(self, call)

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        words = Words(self.force_words_ids)
        forced = self.forced_eos_token_id is not None  # takes the last place
        if words.shortest + forced > call.max_new_tokens > 0:
            raise ValueError(
                f"The words of force_words_ids have {words.shortest} tokens together, but max_new_tokens="
                f"{call.max_new_tokens}{', one of them the forced end' if forced else ''}."
            )
        ending = {*call.stop.eos, *call.stop.tokens}
        for token in (token for word in words.words for phrase in word for token in phrase):
            if token in ending:
                raise ValueError(f"force_words_ids holds {token}, which ends a text.")
            if call.model.head is not None and token >= call.model.head.config.num_labels:
                raise ValueError(
                    f"force_words_ids holds {token}, but the model's ids end at "
                    f"{call.model.head.config.num_labels - 1}."
                )

    def _check(self) -> None:
        super()._check()
        set_frozen(self, force_words_ids=Words(self.force_words_ids).words)
        if not isinstance(self.push_progress, bool):
            raise TypeError(f"push_progress={self.push_progress!r} must be True or False.")

    def short_of(self, found: int, wanted: int) -> str:
        return (
            f"only {found} hypotheses hold all words, fewer than num_samples={wanted}; ask for fewer, or "
            "raise num_beams or max_new_tokens."
        )


class _Candidate(NamedTuple):
    """A continuation of a beam by a token."""

    beam: int
    token: int
    sum: float
    progress: Progress  # with the token
    place: int | None  # among the K most probable ones


class _Run(Run[LexicalBeam]):
    """One search.

    The record of a step holds the K most probable continuations, and behind them those that were chosen for
    their words alone, N at most.
    """

    def __init__(self, strategy: LexicalBeam, call: Call) -> None:
        self._beams = strategy.num_beams
        self._most_probable = candidates_of(call, self._beams)  # K
        super().__init__(strategy, call, self._most_probable + self._beams)
        self._words = Words(strategy.force_words_ids)
        self._sums = self.first_sums()
        self._progress = [[START] * self._beams for _ in call.prompts]
        self._pool = BeamHypotheses(len(call.prompts), self._beams, self._sums)
        self._vocab_size = self.rows.logits.shape[-1]

    def step(self) -> None:
        call, length = self.call, self.length
        before = self._sums > -torch.inf
        processed = self.rows.processed(self.rows.log_probabilities)
        continued = processed.view(*before.shape, -1) + self._sums[:, :, None]
        sums, index = continued.flatten(1).topk(self._most_probable)  # (P, K)
        end = self.ends(index % self._vocab_size)
        finished = end & self._complete().gather(1, index // self._vocab_size)
        finished[:, self._beams :] = False
        self._finish(sums, finished)
        is_done = self.strategy.is_done(self._pool, sums[:, 0], length, call)

        chosen = self._choose(continued, sums.masked_fill(end, -torch.inf), index)
        if length == call.max_new_tokens:
            chosen = self._topped_up(chosen, continued)
        extra, kept = self._places(chosen)
        index = torch.cat((index, extra), dim=1)
        sums = torch.cat((sums, continued.flatten(1).gather(1, extra)), dim=1)
        end = torch.cat((end, torch.zeros_like(extra, dtype=torch.bool)), dim=1)
        counts = torch.tensor([[len(candidates)] for candidates in chosen], device=self.device)
        exists = torch.arange(self._beams, device=self.device) < counts
        self._sums = sums.gather(1, kept).masked_fill(~exists, -torch.inf)
        self._progress = [_filled([c.progress for c in each], START, self._beams) for each in chosen]
        if length == call.max_new_tokens:  # the beams end here
            hypotheses = exists & self._complete() & ~is_done[:, None]
            self._finish(sums, torch.zeros_like(sums).scatter_add_(1, kept, hypotheses.float()) > 0)
            end, is_done = torch.ones_like(end), torch.ones_like(is_done)
        scores = sums / self.strategy.norm(length)
        self.record(processed, index, sums, scores, end, self._sums, kept, self._pool.codes)
        alive = self._sums[:, 0] > -torch.inf
        self.check(before, alive | (self._pool.scores[:, 0] > -torch.inf))
        for prompt in (is_done | ~alive).nonzero().flatten().tolist():
            self.trace.done.setdefault(prompt, length)
        if not self.done:
            self.go_on()

    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        return self._pool.of(prompt)

    def _complete(self) -> Tensor:
        """(P, N) bool: which beams hold all words."""
        held = [[self._words.complete(progress) for progress in beams] for beams in self._progress]
        return torch.tensor(held, device=self.device)

    def _finish(self, sums: Tensor, finished: Tensor) -> None:
        """Offers candidates to the pool: their sums (P, C), and (P, C) bool, which of them are hypotheses."""
        done = torch.zeros(len(sums), 1, dtype=torch.bool, device=self.device)
        done[list(self.trace.done)] = True
        scores = (sums / self.strategy.norm(self.length)).masked_fill(~finished | done, -torch.inf)
        self._pool.add(scores, self.codes[: sums.shape[1]])

    def _choose(self, continued: Tensor, sums: Tensor, index: Tensor) -> list[list[_Candidate]]:
        """Per prompt the candidates that the next beams are, at most N.

        Args:
            continued: (P, N, V) sums of all continuations.
            sums, index: (P, K) of the most probable ones, -inf where they end; and their places in N * V.
        """
        most, place = sums.topk(self._beams)
        rows = (most.tolist(), index.gather(1, place).tolist(), place.tolist())
        pushed = self._best_tokens(continued) if self.strategy.push_progress else None
        found = []
        for prompt, progress in enumerate(self._progress):
            alive = self._sums[prompt].tolist()
            candidates: dict[tuple[int, int], tuple[float, int | None]] = {}
            for value, at, number in zip(*(row[prompt] for row in rows), strict=True):
                candidates[divmod(at, self._vocab_size)] = value, number
            offers = [
                (beam, token)
                for beam, state in enumerate(progress)
                if alive[beam] > -torch.inf
                for token in self._offered(state, None if pushed is None else pushed[prompt][beam])
                if (beam, token) not in candidates
            ]
            if offers:
                at_beam, at_token = torch.tensor(offers, device=self.device).unbind(dim=1)
                values = continued[prompt, at_beam, at_token].tolist()
                candidates |= {offer: (value, None) for offer, value in zip(offers, values, strict=True)}
            found.append(
                self._shared_out(
                    [
                        _Candidate(beam, token, value, self._words.after(progress[beam], token), number)
                        for (beam, token), (value, number) in candidates.items()
                        if value > -torch.inf
                    ]
                )
            )
        return found

    def _offered(self, progress: Progress, best: int | None) -> list[int]:
        """The tokens that a beam offers beside the most probable; `best` is its best that ends no text."""
        if not self._words.complete(progress):
            return self._words.next_tokens(progress)
        return [] if best is None else [best]

    def _best_tokens(self, continued: Tensor) -> list[list[int]]:
        """(P, N): the most probable token of each beam that does not end its text."""
        found: list[list[int]] = self._going_on(continued).argmax(dim=-1).tolist()
        return found

    def _going_on(self, continued: Tensor) -> Tensor:
        """(P, N, V) sums of continuations, -inf for those that end."""
        vocabulary = torch.arange(self._vocab_size, device=self.device).expand(len(continued), -1)
        end = self.ends(vocabulary)
        return continued.masked_fill(end[:, None], -torch.inf)

    def _shared_out(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """N of the candidates: the best of each bank, then the second of each, always the furthest first."""
        ranks: Counter[int] = Counter()
        ranked = []
        bank = {candidate: self._words.bank(candidate.progress) for candidate in candidates}
        for candidate in sorted(candidates, key=lambda c: (-bank[c], -c.sum)):
            ranked.append((ranks[bank[candidate]], candidate))
            ranks[bank[candidate]] += 1
        return [candidate for _, candidate in sorted(ranked, key=lambda pair: pair[0])[: self._beams]]

    def _topped_up(self, chosen: list[list[_Candidate]], continued: Tensor) -> list[list[_Candidate]]:
        """What the last beams are: where too few texts hold all words, those that do not make way for others.

        Args:
            chosen: per prompt.
            continued: (P, N, V) sums of all continuations.
        """
        complete = self._words.complete
        found = []
        for prompt, candidates in enumerate(chosen):
            whole = [c for c in candidates if complete(c.progress)]
            missing = self.call.num_samples - len(whole) - len(self._pool.of(prompt))
            beams = [beam for beam, state in enumerate(self._progress[prompt]) if complete(state)]
            if missing <= 0 or not beams:
                found.append(candidates)
                continue
            sums = self._going_on(continued)[prompt, beams]
            for candidate in whole:
                if candidate.beam in beams:
                    sums[beams.index(candidate.beam), candidate.token] = -torch.inf
            best = sums.flatten().topk(min(missing, sums.numel()))
            for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                beam, token = divmod(at, self._vocab_size)
                if value > -torch.inf:
                    whole.append(
                        _Candidate(beams[beam], token, value, self._progress[prompt][beams[beam]], None)
                    )
            found.append(whole[: self._beams])
        return found

    def _places(self, chosen: list[list[_Candidate]]) -> tuple[Tensor, Tensor]:
        """Twice (P, N): the candidates that are none of the most probable, as places in N * V; and where the
        chosen stand in the record.
        """
        extra, kept = [], []
        for candidates in chosen:
            others = [c.beam * self._vocab_size + c.token for c in candidates if c.place is None]
            behind = iter(range(self._most_probable, self.trace.width))
            places = [next(behind) if c.place is None else c.place for c in candidates]
            extra.append(_filled(others, 0, self._beams))
            kept.append(_filled(places, places[0] if places else 0, self._beams))
        return torch.tensor(extra, device=self.device), torch.tensor(kept, device=self.device)


def _filled(items: list[_Item], by: _Item, size: int) -> list[_Item]:
    return items + [by] * (size - len(items))
