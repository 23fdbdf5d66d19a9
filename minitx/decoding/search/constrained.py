"""Lexically constrained beam search: sequences that contain required words.

Hokamp and Liu 2017, "Lexically Constrained Decoding for Sequence Generation Using Grid Beam Search",
arXiv:1704.07138, in the form of Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam
Allocation", arXiv:1804.06609. Besides the most probable continuations of all beams, every beam that still
lacks words offers the tokens that advance them, however improbable, and every beam that has them all its best
token. Candidates of equal progress form a bank, and the beams are allocated to the banks in turn: the best of
each, from the most to the least advanced, then the second best of each, and so on.

Tokens and scores are those of transformers 4.53, which has this search (later versions do not), wherever it
works as intended; it ranks banks by a number that large log-probabilities outweigh, and loses track of
choices between phrases that begin alike and of interrupted phrases. `phrases.py` tracks the progress.

P prompts, N beams, K most probable continuations, C = K + N candidates, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from minitx.decoding.parameters import parameter, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.base import ScoredSearch, num_candidates
from minitx.decoding.search.phrases import START, Progress, Words
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentTypeError, ArgumentValueError

_Item = TypeVar("_Item")


class _Candidate(NamedTuple):
    """A continuation of a beam by a token."""

    beam: int
    token: int
    sum: float
    progress: Progress  # including the token
    place: int | None  # among the K most probable; None for one that is offered for its word


class _State(BeamState):
    """Also holds the words, and the progress of each beam, per prompt.

    Attributes:
        continued: (P, N, V), the sums of all continuations of this step.
    """

    words: Words
    progress: list[list[Progress]]
    continued: Tensor

    def complete(self) -> Tensor:
        """Returns which beams contain all words: (P, N) bool."""
        complete = [[self.words.complete(progress) for progress in beams] for beams in self.progress]
        return torch.tensor(complete, device=self.sums.device)

    def unfinished(self) -> Tensor:
        """Returns `continued` with -inf for tokens that end a sequence: (P, N, V)."""
        vocabulary = torch.arange(self.continued.shape[-1], device=self.sums.device)
        end = self.ends(vocabulary.expand(len(self.continued), -1))
        return self.continued.masked_fill(end[:, None], -torch.inf)


@dataclass(frozen=True, kw_only=True, repr=False)
class LexicalBeam(ScoredSearch):
    """Beam search for sequences that contain words. `num_samples` of `generate` hypotheses are returned.

    A word is the ids of a phrase, or a list of phrases of which one suffices. It must occur among the
    generated tokens, not in the prompt. Without `push_progress`, as in transformers, beams that contain all
    words are dropped for sequences that were never forced to contain a word and so are more probable; words
    then come last, or the search ends without a hypothesis.
    """

    force_words_ids: Sequence[Any] = parameter(
        None, off=(), help='phrases that the output must contain, here two: "464 3290,50"', metavar="IDS"
    )
    push_progress: bool = parameter(
        None, off=True, help="beams that contain all words always offer their best token", metavar="YES"
    )

    def begin(self, session: DecodingSession) -> _State:
        """Starts the session with beams that contain no words."""
        request, beams = session.request, self.num_beams
        session.start(beams)
        width = num_candidates(request, beams) + beams
        sums = self.first_sums(request, session.device)
        state = _State(session, width=width, sums=sums, places=beams)
        state.words = Words(self.force_words_ids)
        state.progress = [[START] * beams for _ in request.prompts]
        return state

    def propose(self, state: _State) -> Candidates:
        """Selects the K most probable continuations."""
        processed = state.session.process(state.session.log_probs)
        state.continued = processed.view(*state.sums.shape, -1) + state.sums[:, :, None]
        sums, index = state.continued.flatten(1).topk(state.record.width - self.num_beams)
        return Candidates(processed, index, sums)

    def keep(self, state: _State, candidates: Candidates) -> Kept:
        """Finishes complete sequences, and allocates the beams to the banks."""
        finished = candidates.ends & state.complete().gather(1, candidates.parents)
        finished[:, self.num_beams :] = False
        self._finish(state, candidates, finished)
        done = self.is_done(state.finished, candidates.sums[:, 0], state.length, state.request)
        chosen = self._choose(state, candidates)
        if state.at_limit:
            chosen = self._top_up(state, chosen)
        kept, exists = self._extend(state, candidates, chosen)
        sums = candidates.sums.gather(1, kept).masked_fill(~exists, -torch.inf)
        state.progress = [_filled([c.progress for c in each], START, self.num_beams) for each in chosen]
        if state.at_limit:  # the beams end here
            complete = exists & state.complete() & ~done[:, None]
            hypotheses = torch.zeros_like(candidates.sums).scatter_add_(1, kept, complete.float()) > 0
            self._finish(state, candidates, hypotheses)
            candidates.ends, done = torch.ones_like(candidates.ends), torch.ones_like(done)
        candidates.scores = candidates.sums / self.norm(state.length)
        return Kept(kept, sums, done)

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that the words fit."""
        words = Words(self.force_words_ids)
        forced = self.forced_eos_token_id is not None  # takes the last place
        if words.shortest + forced > request.max_new_tokens > 0:
            raise ArgumentValueError(
                "force_words_ids",
                words.words,
                f"at most max_new_tokens={request.max_new_tokens} tokens together"
                f"{', one of them the forced end' if forced else ''}",
                f"they have {words.shortest}",
            )
        ending = {*request.stop.eos, *request.stop.tokens}
        for token in (token for word in words.words for phrase in word for token in phrase):
            if token in ending:
                raise ArgumentValueError("force_words_ids", token, "tokens that do not end a sequence")
            if token >= request.vocab_size:
                raise ArgumentValueError("force_words_ids", token, f"ids up to {request.vocab_size - 1}")
        return super().adapt(request)

    def too_few(self, number: int, num_samples: int) -> str:
        """Returns the error message for too few hypotheses."""
        return (
            f"only {number} hypotheses contain all words, fewer than num_samples={num_samples}; ask for "
            "fewer, or raise num_beams or max_new_tokens."
        )

    def _check(self) -> None:
        super()._check()
        set_frozen(self, force_words_ids=Words(self.force_words_ids).words)
        if not isinstance(self.push_progress, bool):
            raise ArgumentTypeError("push_progress", self.push_progress, "True or False")

    def _finish(self, state: _State, candidates: Candidates, hypotheses: Tensor) -> None:
        """Adds candidates to the finished hypotheses: (P, C) bool, those that are some."""
        scores = (candidates.sums / self.norm(state.length)).masked_fill(~hypotheses, -torch.inf)
        state.finished.add(scores, state.codes[: scores.shape[1]])

    def _choose(self, state: _State, candidates: Candidates) -> list[list[_Candidate]]:
        """Returns per prompt the candidates that the next beams are, at most N."""
        vocab_size = state.continued.shape[-1]
        sums = candidates.sums.masked_fill(candidates.ends, -torch.inf)
        most, place = sums.topk(self.num_beams)
        rows = (most.tolist(), candidates.index.gather(1, place).tolist(), place.tolist())
        pushed = state.unfinished().argmax(dim=-1).tolist() if self.push_progress else None
        chosen = []
        for prompt, progress in enumerate(state.progress):
            exists = (state.sums[prompt] > -torch.inf).tolist()
            offers: dict[tuple[int, int], tuple[float, int | None]] = {}
            for value, at, number in zip(*(row[prompt] for row in rows), strict=True):
                offers[divmod(at, vocab_size)] = value, number
            forced = [
                (beam, token)
                for beam, words in enumerate(progress)
                if exists[beam]
                for token in self._offered(state, words, None if pushed is None else pushed[prompt][beam])
                if (beam, token) not in offers
            ]
            if forced:
                beams, tokens = torch.tensor(forced, device=sums.device).unbind(dim=1)
                values = state.continued[prompt, beams, tokens].tolist()
                offers |= {offer: (value, None) for offer, value in zip(forced, values, strict=True)}
            continuations = [
                _Candidate(beam, token, value, state.words.after(progress[beam], token), number)
                for (beam, token), (value, number) in offers.items()
                if value > -torch.inf
            ]
            chosen.append(self._allocate(state, continuations))
        return chosen

    def _offered(self, state: _State, progress: Progress, best: int | None) -> list[int]:
        """Returns the tokens that a beam offers besides the most probable ones; `best` is its best."""
        if not state.words.complete(progress):
            return state.words.next_tokens(progress)
        return [] if best is None else [best]

    def _allocate(self, state: _State, candidates: list[_Candidate]) -> list[_Candidate]:
        """Returns N candidates: the best of each bank, the most advanced first, then the second of each."""
        ranks: Counter[int] = Counter()
        ranked = []
        bank = {candidate: state.words.bank(candidate.progress) for candidate in candidates}
        for candidate in sorted(candidates, key=lambda c: (-bank[c], -c.sum)):
            ranked.append((ranks[bank[candidate]], candidate))
            ranks[bank[candidate]] += 1
        return [candidate for _, candidate in sorted(ranked, key=lambda pair: pair[0])[: self.num_beams]]

    def _top_up(self, state: _State, chosen: list[list[_Candidate]]) -> list[list[_Candidate]]:
        """Returns the last beams: where complete sequences are too few, they replace incomplete ones."""
        complete = state.words.complete
        topped_up = []
        for prompt, candidates in enumerate(chosen):
            whole = [c for c in candidates if complete(c.progress)]
            missing = state.request.num_samples - len(whole) - len(state.finished.of(prompt))
            beams = [beam for beam, words in enumerate(state.progress[prompt]) if complete(words)]
            if missing <= 0 or not beams:
                topped_up.append(candidates)
                continue
            sums = state.unfinished()[prompt, beams]
            for candidate in whole:
                if candidate.beam in beams:
                    sums[beams.index(candidate.beam), candidate.token] = -torch.inf
            best = sums.flatten().topk(min(missing, sums.numel()))
            for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                beam, token = divmod(at, sums.shape[-1])
                if value > -torch.inf:
                    progress = state.progress[prompt][beams[beam]]
                    whole.append(_Candidate(beams[beam], token, value, progress, None))
            topped_up.append(whole[: self.num_beams])
        return topped_up

    def _extend(
        self, state: _State, candidates: Candidates, chosen: list[list[_Candidate]]
    ) -> tuple[Tensor, Tensor]:
        """Appends the chosen ones that are not among the K most probable to the candidates.

        Returns:
            (P, N) long, where the chosen are among all candidates, and (P, N) bool, False for unused beams.
        """
        beams, vocab_size = self.num_beams, state.continued.shape[-1]
        extra, kept, exists = [], [], []
        for each in chosen:
            others = [c.beam * vocab_size + c.token for c in each if c.place is None]
            following = iter(range(state.record.width - beams, state.record.width))
            places = [next(following) if c.place is None else c.place for c in each]
            extra.append(_filled(others, 0, beams))
            kept.append(_filled(places, places[0] if places else 0, beams))
            exists.append(_filled([True] * len(each), False, beams))
        index = torch.tensor(extra, device=state.sums.device)
        candidates.index = torch.cat((candidates.index, index), dim=1)
        sums = state.continued.flatten(1).gather(1, index)
        candidates.sums = torch.cat((candidates.sums, sums), dim=1)
        candidates.ends = torch.cat((candidates.ends, torch.zeros_like(index, dtype=torch.bool)), dim=1)
        return torch.tensor(kept, device=index.device), torch.tensor(exists, device=index.device)


def _filled(items: list[_Item], by: _Item, size: int) -> list[_Item]:
    return items + [by] * (size - len(items))
