"""Lexically constrained beam search: sequences that contain required phrases.

Hokamp and Liu 2017, "Lexically Constrained Decoding for Sequence Generation Using Grid Beam Search",
arXiv:1704.07138, in the form of Post and Vilar 2018, "Fast Lexically Constrained Decoding with Dynamic Beam
Allocation", arXiv:1804.06609. Besides the most probable continuations of all beams, every beam that still
lacks a phrase offers the tokens that advance one, however improbable, and every beam that has them all its
best token. Candidates of equal progress form a bank, and the beams are allocated to the banks: the best of
each, from the most to the least advanced, then the second best of each, and so on.

Tokens and scores are those of transformers 4.53, which has this search (later versions do not), wherever it
works as intended; it ranks banks by a number that large log-probabilities outweigh, and loses track of
choices between phrases that begin alike and of interrupted phrases. `phrases.py` tracks the progress.

Where fewer than N hypotheses contain all phrases at max_new_tokens, transformers adds hypotheses that lack a
phrase if more are requested than there are, so that its best one depends on num_return_sequences. Here other
continuations of complete beams take these places, whatever num_samples is: the best hypothesis does not
depend on it, and its score is at least that of transformers.

P prompts, N beams, K most probable continuations, C = K + N candidates, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from minitx.decoding.parameters import check_vocabulary, parameter, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.search.base import ScoredSearch, num_candidates
from minitx.decoding.search.phrases import START, Progress, Words
from minitx.decoding.search.state import BeamState, Candidates, Kept
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentValueError, check_type


class _Candidate(NamedTuple):
    """A continuation of a beam by a token."""

    place: int  # in N * V, beam after beam
    sum: float
    progress: Progress  # including the token


_UNUSED = _Candidate(0, -math.inf, START)


class _State(BeamState):
    """Also holds the entries of `force_words_ids`, and the progress of each beam, per prompt.

    Attributes:
        continuations: (P, N, V), the sums of all continuations of this step.
    """

    words: Words
    progress: list[list[Progress]]
    continuations: Tensor

    def complete(self) -> Tensor:
        """Returns which beams contain all phrases: (P, N) bool."""
        complete = [[self.words.complete(progress) for progress in beams] for beams in self.progress]
        return torch.tensor(complete, device=self.sums.device)

    def unfinished(self) -> Tensor:
        """Returns `continuations` with -inf for tokens that end a sequence: (P, N, V)."""
        sums = self.continuations
        end = self.ends(torch.arange(sums.shape[-1], device=sums.device).expand(len(sums), -1))
        return sums.masked_fill(end[:, None], -torch.inf)


@dataclass(frozen=True, kw_only=True, repr=False)
class LexicalBeam(ScoredSearch):
    """Beam search for sequences that contain required phrases; `generate` returns `num_samples` per prompt.

    Each entry of `force_words_ids` is a phrase, a list of ids, or a list of phrases of which one suffices. A
    phrase must occur among the generated tokens, not in the prompt. Without `push_progress`, as in
    transformers, more probable beams that do not contain all phrases can displace those that do; phrases then
    come last, or the search ends without a hypothesis.
    """

    force_words_ids: Sequence[Any] = parameter(
        None, off=(), help='phrases that the output must contain, here two: "464 3290,50"', metavar="IDS"
    )
    push_progress: bool = parameter(
        None, off=True, help="beams that contain all phrases always offer their best token", metavar="YES"
    )

    _too_few: ClassVar[str] = (
        "only {number} hypotheses contain all phrases, fewer than num_samples={num_samples}; ask for "
        "fewer, or raise num_beams or max_new_tokens."
    )

    def begin(self, session: DecodingSession) -> _State:
        """Starts the session with beams that contain no phrase."""
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
        width, size = candidates.index.shape[1], self.num_beams
        finished = candidates.ends & state.complete().gather(1, candidates.parents)
        finished[:, size:] = False
        state.finished.add(candidates.scores.masked_fill(~finished, -torch.inf), state.codes[:width])
        done = self.is_done(state, candidates.sums[:, 0])
        unfinished = state.unfinished()
        beams = [self._choose(state, candidates, unfinished, at) for at in range(len(unfinished))]
        sums = self._append(state, candidates, beams)
        kept = torch.arange(width, width + size, device=sums.device).expand_as(sums)
        if state.at_limit:  # the beams end here
            complete = state.complete() & ~done[:, None]
            scores = candidates.scores[:, width:].masked_fill(~complete, -torch.inf)
            state.finished.add(scores, state.codes[width:])
            done = torch.ones_like(done)
        return Kept(kept, sums, done)

    def adapt(self, request: GenerationRequest) -> GenerationRequest:
        """Also checks that the phrases fit."""
        if request.stop.deadline is not None:
            raise ValueError(
                "LexicalBeam(...) cannot stop at seconds, as Beam(...) can: phrases may be missing when "
                "the time is over; use max_new_tokens."
            )
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
        check_type("push_progress", self.push_progress, bool, "True or False")

    def _choose(self, state: _State, candidates: Candidates, unfinished: Tensor, at: int) -> list[_Candidate]:
        """Returns the next beams of the prompt at this place of the batch, at most N."""
        words, beams, vocab_size = state.words, state.progress[at], unfinished.shape[-1]
        columns = zip(candidates.index[at].tolist(), candidates.ends[at].tolist(), strict=True)
        places = [place for place, end in columns if not end][: self.num_beams]
        best = unfinished[at].argmax(dim=-1).tolist()
        for beam, progress in enumerate(beams):
            if not words.complete(progress):
                places += [beam * vocab_size + token for token in words.next_tokens(progress)]
            elif self.push_progress:
                places.append(beam * vocab_size + best[beam])
        places = list(dict.fromkeys(places))
        sums = state.continuations[at].flatten()[places].tolist()
        continuations = [
            _Candidate(place, value, words.after(beams[place // vocab_size], place % vocab_size))
            for place, value in zip(places, sums, strict=True)
            if value > -math.inf
        ]
        allocated = self._allocate(words, continuations)
        return self._top_up(state, allocated, unfinished[at], at) if state.at_limit else allocated

    def _allocate(self, words: Words, candidates: list[_Candidate]) -> list[_Candidate]:
        """Returns N candidates: the best of each bank, the most advanced first, then the second of each."""
        ordered = sorted(candidates, key=lambda c: (-words.bank(c.progress), -c.sum))
        banks = groupby(ordered, lambda candidate: words.bank(candidate.progress))
        ranks = zip_longest(*(list(bank) for _, bank in banks))
        return [candidate for rank in ranks for candidate in rank if candidate is not None][: self.num_beams]

    def _top_up(
        self, state: _State, beams: list[_Candidate], unfinished: Tensor, at: int
    ) -> list[_Candidate]:
        """Returns the last beams: where fewer than N sequences are complete, more replace incomplete ones.

        N and not `num_samples`, so that the best sequence does not depend on the number that is returned.

        Args:
            state: of the search.
            beams: the next ones of a prompt.
            unfinished: (N, V), the sums of its continuations that do not end.
            at: its place in the batch.
        """
        whole = [candidate for candidate in beams if state.words.complete(candidate.progress)]
        missing = self.num_beams - len(whole) - len(state.finished.of(at))
        complete = state.complete()[at]
        if missing <= 0 or not bool(complete.any()):
            return beams
        sums = unfinished.masked_fill(~complete[:, None], -torch.inf).flatten()
        sums[[candidate.place for candidate in whole]] = -torch.inf
        best = sums.topk(min(missing, len(sums)))
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if value > -math.inf:
                whole.append(_Candidate(place, value, state.progress[at][place // unfinished.shape[-1]]))
        return whole[: self.num_beams]

    def _append(self, state: _State, candidates: Candidates, beams: list[list[_Candidate]]) -> Tensor:
        """Appends the next beams to the candidates; returns their sums, (P, N), -inf for unused ones."""
        padded = [[*prompt, *[_UNUSED] * (self.num_beams - len(prompt))] for prompt in beams]
        state.progress = [[beam.progress for beam in prompt] for prompt in padded]
        index = candidates.index.new_tensor([[beam.place for beam in prompt] for prompt in padded])
        sums = candidates.sums.new_tensor([[beam.sum for beam in prompt] for prompt in padded])
        candidates.index = torch.cat((candidates.index, index), dim=1)
        candidates.sums = torch.cat((candidates.sums, sums), dim=1)
        self.score(state, candidates)
        return sums
