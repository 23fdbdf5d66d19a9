"""Beam search: the N most probable beginnings of a text side by side, instead of the single best.

At each step the continuations of all beams of a prompt compete by the log-probability of the whole text.
The best K of them are the candidates, K = N * max(2, 1 + ending tokens), so that at least N of them go on.
Those that end are hypotheses if they are among the best N, and are kept in a pool, by their score

    score = log-probability / norm(number of tokens, the ending one counted),    norm(n) = n ** length_penalty

The best N of the others are the next beams. The order in which float32 numbers are added and divided is that
of transformers 5.23, so that tokens and scores are equal to its.

P prompts, N beams, K candidates, M places in the pool, V vocabulary, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from minitx.decoding.loop import Call
from minitx.decoding.parameters import NON_NEGATIVE, POSITIVE
from minitx.decoding.samplers.sample import MultinomialSampler
from minitx.decoding.search.base import Run, candidates_of
from minitx.decoding.search.rows import BeamHypotheses, BeamTexts
from minitx.decoding.search.scored import ScoredSearch

LengthNorm = Literal["power", "gnmt"]

_LARGEST_POOL = 2**16


@dataclass(frozen=True, kw_only=True, repr=False)
class Beam(ScoredSearch):
    """Beam search. `num_samples` of `generate` is how many hypotheses it returns, the best first.

    Log-probabilities are the model's, then changed by the processors, and not normalised again. A hypothesis
    is scored by their sum over its tokens, divided by a norm of their number.

    Attributes:
        num_beams: N, the beams per prompt.
        length_penalty: since sums are negative, above 0 favours long texts and below 0 short ones; 0 compares
            sums, 1 averages over the tokens.
        length_norm: "power" divides by n ** length_penalty, "gnmt" by ((5 + n) / 6) ** length_penalty
            (arXiv:1609.08144, equation 14).
        early_stopping: when a prompt that has as many hypotheses as it keeps is done, besides when none of
            its beams goes on.
            True: at once.
            False: when the best beam, were it to end now, would be no better than the worst of them. A guess:
                with length_penalty above 0 a beam may yet become better.
            "never": the same, but with length_penalty above 0 the beam is judged by the most tokens that it
                can come to.
            "exact": when no beam can come to be one of the `num_samples` best any more, whatever the sign of
                length_penalty. The proof needs sums that only fall. Where a processor may make a
                log-probability positive (a bias above 0, a negative presence penalty, one of your own),
                there is none, and the search goes on until its beams end or have `max_new_tokens`; with
                renormalize_logits=True sums fall whatever the others do.
        coverage_penalty: of an encoder-decoder, how much it counts against a hypothesis that it hardly looked
            at a token of the text that was read: its score gets coverage_penalty * sum over those tokens of
            log(min(looks, 1)), with the sum of the looks of all its tokens (arXiv:1609.08144, equation 14; by
            the last layer's cross-attention, the mean of its heads). Beams compete without it.
        patience: the pool has room for round(num_beams * patience) hypotheses (arXiv:2204.05424); with
            early_stopping=True, after so many the search stops.
    """

    length_norm: LengthNorm = "power"
    coverage_penalty: float = 0.0
    patience: float = 1.0

    _ways_to_stop: ClassVar[tuple[str, ...]] = ("never", "exact")
    _finds_strings: ClassVar[bool] = True

    def begin(self, call: Call) -> _Run:
        return _Run(self, call)

    def check_call(self, call: Call) -> None:
        super().check_call(call)
        if self.coverage_penalty and call.sources is None:
            raise ValueError(
                f"coverage_penalty={self.coverage_penalty:g} is for models with an encoder: it says how much "
                "of the text that was read a hypothesis looked at."
            )
        if call.num_samples > self.pool_size:
            raise ValueError(
                f"num_samples={call.num_samples} hypotheses cannot be returned: with num_beams="
                f"{self.num_beams} and patience={self.patience:g} only {self.pool_size} are kept; raise "
                "patience."
            )

    @property
    def pool_size(self) -> int:
        """M: how many finished hypotheses a prompt keeps."""
        return max(1, round(self.num_beams * self.patience))

    def size(self, length: int) -> float:
        return length if self.length_norm == "power" else (5 + length) / 6

    def is_done(self, pool: BeamHypotheses, best: Tensor, length: int, call: Call) -> Tensor:
        if self.early_stopping != "exact":
            return super().is_done(pool, best, length, call)
        if not call.chain.keeps_log_probs_nonpositive():
            return torch.zeros_like(best, dtype=torch.bool)
        # A sum below 0 that fell no further would look best under the largest norm, of the next token or the
        # last.
        attainable = best / max(self.norm(length + 1), self.norm(call.max_new_tokens))
        return pool.scores[:, call.num_samples - 1] >= attainable

    def candidates(
        self, sums: Tensor, count: int, call: Call, prompts: list[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """Which continuations to look at, the best of them.

        Args:
            sums: (P, N * V) log-probabilities of all continuations of all beams.
            count: K.
            call: of the search.
            prompts: the numbers of the P prompts.
            step: tokens generated before.

        Returns:
            Twice (P, K): their sums, and their places in N * V.
        """
        best = sums.topk(count)
        return best.values, best.indices

    def _check(self) -> None:
        self._settle_number("coverage_penalty", NON_NEGATIVE, "0 is none")
        self._settle_number("patience", POSITIVE, "1 keeps as many finished hypotheses as there are beams")
        if self.length_norm not in ("power", "gnmt"):
            raise ValueError(f'length_norm={self.length_norm!r} must be "power" or "gnmt".')
        super()._check()
        if self.num_beams * self.patience > _LARGEST_POOL:
            raise ValueError(
                f"patience={self.patience:g} with num_beams={self.num_beams} would keep more than "
                f"{_LARGEST_POOL} finished hypotheses per prompt; choose less of either."
            )


class _Run(Run[Beam]):
    """One beam search.

    A prompt that is done leaves the batch. Not so where all draw from one generator, since each then gets the
    numbers that it gets in transformers; nor where a processor knows rows by their places.
    """

    def __init__(self, strategy: Beam, call: Call) -> None:
        width = candidates_of(call, strategy.num_beams)
        super().__init__(strategy, call, width, watch=strategy.coverage_penalty > 0)
        self._done: dict[int, list[tuple[float, int]]] = {}
        self._sums = self.first_sums()
        self._pool = BeamHypotheses(len(call.prompts), strategy.pool_size, self._sums)
        self._may_leave = call.chain.batch_invariant and not isinstance(call.sampler, MultinomialSampler)
        self._coverage = (
            _Coverage(call, strategy.num_beams, self.device) if strategy.coverage_penalty else None
        )
        self._texts = BeamTexts(call, strategy.num_beams) if call.stop.strings else None

    def step(self) -> None:
        strategy, before = self.strategy, self._sums
        processed = self.rows.processed(self.rows.log_probabilities)
        vocab_size = processed.shape[-1]
        continued = processed.view(*before.shape, vocab_size) + before[:, :, None]
        best, index = strategy.candidates(
            continued.flatten(1), self.trace.width, self.call, self.prompts, self.length - 1
        )
        parents, tokens = index // vocab_size, index % vocab_size  # (P, K)
        ended = self._ended(parents, tokens)
        scores = self._scores(best, parents)
        hypotheses = scores.masked_fill(~ended, -torch.inf)
        hypotheses[:, strategy.num_beams :] = -torch.inf
        self._pool.add(hypotheses, self.codes)
        self._sums, kept = best.masked_fill(ended, -torch.inf).topk(strategy.num_beams)  # (P, N)
        self.record(processed, index, best, scores, ended, self._sums, kept, self._pool.codes)
        self._close(before)
        if not self.done:
            self._go_on()

    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        return self._done[prompt]

    def _ended(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """(P, K) bool: which candidates are the last of their text."""
        if self.length == self.call.max_new_tokens:
            return torch.ones_like(tokens, dtype=torch.bool)
        found = self.ends(tokens)
        return found if self._texts is None else self._texts.read(parents, tokens, found)

    def _scores(self, best: Tensor, parents: Tensor) -> Tensor:
        """(P, K): of the candidates as hypotheses, by their sums and the beams that they continue."""
        scores = best / self.strategy.norm(self.length)
        if self._coverage is None:
            return scores
        covered = self._coverage.look(self.rows.looks).gather(1, parents)
        return scores + self.strategy.coverage_penalty * covered

    def _close(self, before: Tensor) -> None:
        """Notes which prompts are done, and what they found. before: (P, N) sums before this step.

        Raises:
            ValueError: as `Run.check`.
        """
        length, best = len(self.trace.steps), self._sums[:, 0]
        alive = best > -torch.inf
        self.check(before > -torch.inf, alive | (self._pool.scores[:, 0] > -torch.inf))
        done = ~alive | self.strategy.is_done(self._pool, best, length, self.call)
        for place in done.nonzero().flatten().tolist():
            if (prompt := self.prompts[place]) not in self._done:
                self._done[prompt] = self._pool.of(place)
                self.trace.done[prompt] = length

    def _go_on(self) -> None:
        """The next step, of the prompts that are not done."""
        left = [place for place, prompt in enumerate(self.prompts) if prompt not in self._done]
        kept, staying = self.trace.steps[-1].kept, None
        if self._may_leave and len(left) < len(self.prompts):
            staying = torch.tensor(left, device=self.device)
            self.prompts = [self.prompts[place] for place in left]
            self._sums, kept = self._sums[staying], kept[staying]
            self._pool.select(staying)
        if self._texts is not None:
            self._texts.select(range(len(kept)) if staying is None else left, kept)
        rows = self.go_on(staying)
        if self._coverage is not None:
            self._coverage.select(rows)


class _Coverage:
    """How much the beams have looked at each token of the texts that were read.

    S source tokens.
    """

    def __init__(self, call: Call, beams: int, device: torch.device) -> None:
        sources = call.sources or []
        self._beams = beams
        self._sum = torch.zeros(len(sources) * beams, max(map(len, sources)), device=device)  # (R, S)
        lengths = torch.tensor([len(source) for source in sources], device=device).repeat_interleave(beams)
        self._real = torch.arange(self._sum.shape[1], device=device) < lengths[:, None]

    def look(self, looks: Tensor | None) -> Tensor:
        """The next token looks, (R, S); (P, N), how well each beam then covers its source, 0 at best."""
        assert looks is not None, "they were asked for"
        self._sum = self._sum + looks
        tiny = torch.finfo(self._sum.dtype).tiny  # a token that nothing looked at counts much, not infinitely
        covered = self._sum.clamp(tiny, 1.0).log().masked_fill(~self._real, 0.0)
        return covered.sum(dim=1).view(-1, self._beams)

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows. rows: (R',) long."""
        self._sum, self._real = self._sum[rows], self._real[rows]
