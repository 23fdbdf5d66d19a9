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

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.parameters import check_vocabulary, parameter, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.base import ScoredSearch, num_candidates
from minitx.decoding.search.phrases import START, Progress, Words
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentTypeError, ArgumentValueError


class _Candidate(NamedTuple):
    """A continuation of a beam by a token."""

    beam: int
    token: int
    sum: float
    progress: Progress  # including the token


class _State(BeamState):
    """Also holds the words, and the progress of each beam, per prompt.

    Attributes:
        continuations: (P, N, V), the sums of all continuations of this step.
    """

    words: Words
    progress: list[list[Progress]]
    continuations: Tensor

    def complete(self) -> Tensor:
        """Returns which beams contain all words: (P, N) bool."""
        complete = [[self.words.complete(progress) for progress in beams] for beams in self.progress]
        return torch.tensor(complete, device=self.sums.device)

    def unfinished(self) -> Tensor:
        """Returns `continuations` with -inf for tokens that end a sequence: (P, N, V)."""
        sums = self.continuations
        end = self.ends(torch.arange(sums.shape[-1], device=sums.device).expand(len(sums), -1))
        return sums.masked_fill(end[:, None], -torch.inf)


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

    _too_few: ClassVar[str] = (
        "only {number} hypotheses contain all words, fewer than num_samples={num_samples}; ask for "
        "fewer, or raise num_beams or max_new_tokens."
    )

    def begin(self, session: DecodingSession) -> _State:
        """Starts the session with beams that contain no words."""
        request, beams = session.request, self.num_beams
        session.start(beams)
        width = num_candidates(request, beams) + beams
        state = _State(session, width, beams)
        state.words = Words(self.force_words_ids)
        state.progress = [[START] * beams for _ in request.prompts]
        return state

    def propose(self, state: _State) -> Candidates:
        """Selects the K most probable continuations."""
        processed, state.continuations = state.continued()
        sums, index = state.continuations.flatten(1).topk(state.record.width - self.num_beams)
        return Candidates(processed, index, sums)

    def keep(self, state: _State, candidates: Candidates) -> Kept:
        """Finishes complete sequences, and allocates the beams to the banks."""
        finished = candidates.ends & state.complete().gather(1, candidates.parents)
        finished[:, self.num_beams :] = False
        self._finish(state, candidates, finished)
        done = self.is_done(state, candidates.sums[:, 0])
        chosen = self._choose(state, candidates)
        if state.at_limit:
            chosen = self._top_up(state, chosen)
        kept, exists = self._append(state, candidates, chosen)
        sums = candidates.sums.gather(1, kept).masked_fill(~exists, -torch.inf)
        unused = [START] * self.num_beams
        state.progress = [[*(c.progress for c in row), *unused[len(row) :]] for row in chosen]
        if state.at_limit:  # the beams end here
            complete = exists & state.complete() & ~done[:, None]
            self._finish(state, candidates, F.pad(complete, (finished.shape[1], 0)))
            candidates.ends, done = torch.ones_like(candidates.ends), torch.ones_like(done)
        candidates.scores = candidates.sums / self.norm(state.length)
        return Kept(kept, sums, done)

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that the words fit."""
        words = Words(self.force_words_ids)
        forced = self.forced_eos_token_id is not None  # takes the last place
        if words.shortest + forced > request.max_new_tokens > 0:
            end = ", one of them the forced end" if forced else ""
            expected = f"at most max_new_tokens={request.max_new_tokens} tokens together{end}"
            raise ArgumentValueError("force_words_ids", words.words, expected, f"they have {words.shortest}")
        tokens = [token for word in words.words for phrase in word for token in phrase]
        for token in tokens:
            if token in (*request.stop.eos, *request.stop.tokens):
                raise ArgumentValueError("force_words_ids", token, "tokens that do not end a sequence")
        check_vocabulary("force_words_ids", tokens, request.vocab_size)
        return super().adapt(request)

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
        words, chosen = state.words, []
        place = candidates.sums.masked_fill(candidates.ends, -torch.inf).topk(self.num_beams).indices
        parents, tokens, ends = (
            x.gather(1, place).tolist() for x in (candidates.parents, candidates.tokens, candidates.ends)
        )
        best = state.unfinished().argmax(dim=-1).tolist()
        for prompt, progress in enumerate(state.progress):
            columns = zip(parents[prompt], tokens[prompt], ends[prompt], strict=True)
            offers = [(beam, token) for beam, token, end in columns if not end]
            for beam in (state.sums[prompt] > -torch.inf).nonzero().flatten().tolist():
                if not words.complete(progress[beam]):
                    offers += [(beam, token) for token in words.next_tokens(progress[beam])]
                elif self.push_progress:
                    offers.append((beam, best[prompt][beam]))
            offers = list(dict.fromkeys(offers))
            beams, ids = torch.tensor(offers, dtype=torch.long, device=place.device).view(-1, 2).T
            continuations = [
                _Candidate(beam, token, value, words.after(progress[beam], token))
                for (beam, token), value in zip(
                    offers, state.continuations[prompt, beams, ids].tolist(), strict=True
                )
                if value > -torch.inf
            ]
            chosen.append(self._allocate(words, continuations))
        return chosen

    def _allocate(self, words: Words, candidates: list[_Candidate]) -> list[_Candidate]:
        """Returns N candidates: the best of each bank, the most advanced first, then the second of each."""
        bank = {candidate: words.bank(candidate.progress) for candidate in candidates}
        ordered = sorted(candidates, key=lambda c: (-bank[c], -c.sum))
        turns = zip_longest(*(list(group) for _, group in groupby(ordered, bank.__getitem__)))
        return [candidate for turn in turns for candidate in turn if candidate is not None][: self.num_beams]

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
            sums = state.unfinished()[prompt]
            sums[[beam for beam in range(self.num_beams) if beam not in beams]] = -torch.inf
            for candidate in whole:
                sums[candidate.beam, candidate.token] = -torch.inf
            best = sums.flatten().topk(min(missing, sums.numel()))
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                beam, token = divmod(index, sums.shape[-1])
                if value > -torch.inf:
                    whole.append(_Candidate(beam, token, value, state.progress[prompt][beam]))
            topped_up.append(whole[: self.num_beams])
        return topped_up

    def _append(
        self, state: _State, candidates: Candidates, chosen: list[list[_Candidate]]
    ) -> tuple[Tensor, Tensor]:
        """Appends the chosen ones to the candidates.

        Returns:
            (P, N) long, where the chosen are among all candidates, and (P, N) bool, False for unused beams.
        """
        first, vocab_size, device = candidates.sums.shape[1], state.continuations.shape[-1], state.sums.device
        sizes = torch.tensor([[len(row)] for row in chosen], device=device)
        exists = torch.arange(self.num_beams, device=device) < sizes
        index = torch.zeros_like(exists, dtype=torch.long)
        places = [c.beam * vocab_size + c.token for row in chosen for c in row]
        index[exists] = torch.tensor(places, dtype=torch.long, device=device)
        sums = state.continuations.flatten(1).gather(1, index)
        candidates.index = torch.cat((candidates.index, index), dim=1)
        candidates.sums = torch.cat((candidates.sums, sums), dim=1)
        candidates.ends = F.pad(candidates.ends, (0, self.num_beams))
        return torch.arange(first, first + self.num_beams, device=device).expand_as(index), exists
