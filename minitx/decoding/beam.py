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
from typing import Literal

import torch
from torch import Tensor

from minitx.decoding.bounds import never_raises
from minitx.decoding.checks import number, settle
from minitx.decoding.loop import Call
from minitx.decoding.result import Result
from minitx.decoding.search import Pool, Rows, Search, Texts, logprobs_of, nothing, result_of, row_blind
from minitx.decoding.tree import Link, Step, Trace

EarlyStopping = bool | Literal["never", "exact"]
LengthNorm = Literal["power", "gnmt"]

_LARGEST_POOL = 2**16
_LARGEST_PENALTY = 40  # n ** length_penalty stays what a float can hold


@dataclass(frozen=True, kw_only=True, repr=False)
class Beam(Search):
    """Beam search. `num_samples` of `generate` is how many hypotheses it returns, the best first.

    Log-probabilities are the model's, then changed by the processors, and not normalised again. A hypothesis
    is scored by their sum over its tokens, divided by a norm of their number.

    Attributes:
        num_beams: N, the beams per prompt.
        length_penalty: since sums are negative, above 0 favours long texts and below 0 short ones; 0 compares
            sums, 1 averages over the tokens.
        length_norm: "power" divides by n ** length_penalty, "gnmt" by ((5 + n) / 6) ** length_penalty
            (arXiv:1609.08144, equation 14).
        early_stopping: when a prompt is done, besides when none of its beams goes on.
            True: as soon as its pool is full.
            False: when the pool is full and the best beam, were it to end now, would be no better than the
                worst in there. A guess: with length_penalty above 0 a beam may yet become better.
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

    length_penalty: float = 1.0
    length_norm: LengthNorm = "power"
    early_stopping: EarlyStopping = False
    coverage_penalty: float = 0.0
    patience: float = 1.0

    @torch.inference_mode()
    def search(self, call: Call) -> Result:
        """Runs the call; raises as `Search.search`."""
        self.check_call(call)
        if call.max_new_tokens == 0:
            return nothing(call)
        run = _Run(self, call)
        while run.going_on:
            run.step()
        return result_of(call, run.trace, run.found(), self.norm)

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

    def norm(self, length: int) -> float:
        """What the sum of the log-probabilities of so many tokens is divided by."""
        base = length if self.length_norm == "power" else (5 + length) / 6
        return float(base**self.length_penalty)

    def hope(self, sums: Tensor, length: int, most: int, *, sums_fall: bool) -> Tensor:
        """The score that beams are still believed to be able to come to.

        Args:
            sums: any shape, of their log-probabilities.
            length: how many tokens they have.
            most: how many they can come to.
            sums_fall: no processor makes a log-probability positive.
        """
        if self.early_stopping != "exact":
            longest = self.early_stopping == "never" and self.length_penalty > 0
            return sums / self.norm(most if longest else length)
        if not sums_fall:
            return torch.where(sums == -torch.inf, sums, torch.inf)
        # A sum below 0 that fell no further would look best under the largest norm, of the next token or the
        # last.
        return sums / max(self.norm(length + 1), self.norm(most))

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
        limit = f"[-{_LARGEST_PENALTY}, {_LARGEST_PENALTY}]"
        numbers = {
            "length_penalty": (limit, "0 compares sums, above 0 favours longer texts"),
            "coverage_penalty": ("[0, inf)", "0 is none"),
            "patience": ("(0, inf)", "1 keeps as many finished hypotheses as there are beams"),
        }
        for name, (interval, meaning) in numbers.items():
            value = number(name, getattr(self, name), interval, meaning)
            if isinstance(value, tuple):
                raise TypeError(f"{name}={getattr(self, name)!r} must be one number.")
            settle(self, **{name: value})
        if self.length_norm not in ("power", "gnmt"):
            raise ValueError(f'length_norm={self.length_norm!r} must be "power" or "gnmt".')
        if not isinstance(self.early_stopping, bool) and self.early_stopping not in ("never", "exact"):
            raise ValueError(
                f'early_stopping={self.early_stopping!r} must be True, False, "never" or "exact".'
            )
        super()._check()
        if self.num_beams * self.patience > _LARGEST_POOL:
            raise ValueError(
                f"patience={self.patience:g} with num_beams={self.num_beams} would keep more than "
                f"{_LARGEST_POOL} finished hypotheses per prompt; choose less of either."
            )


class _Run:
    """One search, step by step.

    A prompt that is done leaves the batch. Not so where all draw from one generator, since each then gets the
    numbers that it gets in transformers; nor where a processor knows rows by their places.

    A beam that does not exist has the sum -inf.
    """

    def __init__(self, strategy: Beam, call: Call) -> None:
        self._strategy, self._call = strategy, call
        self._device = call.model.decoder_embedder.word_emb.weight.device
        assert call.model.head is not None  # its task says so
        vocab_size, beams = call.model.head.config.num_labels, strategy.num_beams
        ending = len({*call.stop.eos, *call.stop.tokens})
        self.trace = Trace(min(max(2, 1 + ending), vocab_size) * beams)
        self._prompts = list(range(len(call.prompts)))  # those in the batch
        self._done: dict[int, list[tuple[float, int]]] = {}  # scores and codes of what they found
        self._sums = torch.full((len(call.prompts), beams), -torch.inf, device=self._device)
        self._sums[:, 0] = 0.0  # one beam to begin with: equal ones would give equal texts
        self._pool = Pool(len(call.prompts), strategy.pool_size, self._device)
        self._sums_fall = never_raises(call.chain)
        self._may_leave = row_blind(call.chain) and not strategy.shares_randomness(call)
        self._may_stop = torch.tensor(call.min_new_tokens, device=self._device)[:, None]
        self._rows = Rows(call, beams, watch=strategy.coverage_penalty > 0)
        self._coverage = _Coverage(call, beams, self._device) if strategy.coverage_penalty else None
        self._texts = Texts(call, beams) if call.stop.strings else None

    @property
    def going_on(self) -> bool:
        """Whether a prompt is still searched."""
        return len(self._done) < len(self._call.prompts)

    def step(self) -> None:
        """Every beam gets a token, or ends."""
        strategy, number, before = self._strategy, len(self.trace.steps), self._sums
        processed = self._rows.log_probabilities()
        vocab_size = processed.shape[-1]
        continued = processed.view(*before.shape, vocab_size) + before[:, :, None]
        best, index = strategy.candidates(
            continued.flatten(1), self.trace.width, self._call, self._prompts, number
        )
        parents, tokens = index // vocab_size, index % vocab_size  # (P, K)
        ends = self._ends(parents, tokens)
        covered = None if self._coverage is None else self._coverage.look(self._rows.looks)
        self._finish(best, ends, 0.0 if covered is None else covered.gather(1, parents))
        self._sums, kept = best.masked_fill(ends, -torch.inf).topk(strategy.num_beams)  # (P, N)
        # A beam that does not exist repeats the best: its text, too, is one that processors can read.
        kept = torch.where(self._sums > -torch.inf, kept, kept[:, :1])
        logprobs = logprobs_of(self._call, self._rows.logits, processed, index)
        self.trace.add(Step(self._prompts, parents, tokens, best, ends, kept, self._pool.codes, logprobs))
        self._close(best, before)
        if self.going_on:
            self._go_on(parents.gather(1, kept), tokens.gather(1, kept), kept)

    def found(self) -> list[list[tuple[float, Link]]]:
        """Per prompt, score and last candidate of the `num_samples` best hypotheses, the best first.

        Raises:
            ValueError: the chain left fewer texts than that.
        """
        wanted = self._call.num_samples
        for prompt, pool in sorted(self._done.items()):
            if len(pool) < wanted:
                raise ValueError(
                    f"Prompt {prompt}: {len(pool)} of the num_samples={wanted} hypotheses were found; the "
                    "processors ban all other texts."
                )
        return [
            [(score, self.trace.link(code)) for score, code in self._done[prompt][:wanted]]
            for prompt in range(len(self._call.prompts))
        ]

    def _ends(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """(P, K) bool: which candidates are the last of their text."""
        call, length = self._call, len(self.trace.steps) + 1
        if length == call.max_new_tokens:
            return torch.ones_like(tokens, dtype=torch.bool)
        ends = torch.zeros_like(tokens, dtype=torch.bool)
        for token in call.stop.eos:
            ends |= tokens == token
        for token in call.stop.tokens:
            ends |= (tokens == token) & (length >= self._may_stop)
        return ends if self._texts is None else self._texts.read(parents, tokens, ends)

    def _finish(self, best: Tensor, ends: Tensor, covered: Tensor | float) -> None:
        """Offers the pool what ends among the best N; covered: (P, K), how well each covers its source."""
        number, width = len(self.trace.steps), self.trace.width
        scores = best / self._strategy.norm(number + 1) + self._strategy.coverage_penalty * covered
        scores = scores.masked_fill(~ends, -torch.inf)
        scores[:, self._strategy.num_beams :] = -torch.inf
        self._pool.add(scores, torch.arange(number * width, (number + 1) * width, device=self._device))

    def _close(self, best: Tensor, before: Tensor) -> None:
        """Notes which prompts are done, and what they found.

        Args:
            best: (P, K) sums of the candidates.
            before: (P, N) sums of the beams before this step.

        Raises:
            ValueError: a prompt whose numbers are unusable, or with neither a beam nor a hypothesis.
        """
        call, strategy, length = self._call, self._strategy, len(self.trace.steps)
        scores = self._pool.scores
        alive = self._sums[:, 0] > -torch.inf
        unusable = ~(best.amax(dim=1) < torch.inf) | ~(alive | (scores[:, 0] > -torch.inf))
        if strategy.early_stopping is True:
            still = alive & (scores[:, -1] == -torch.inf)
        else:
            place = call.num_samples if strategy.early_stopping == "exact" else strategy.pool_size
            most = call.max_new_tokens
            hope = strategy.hope(self._sums[:, 0], length, most, sums_fall=self._sums_fall)
            still = alive & (hope > scores[:, place - 1])
        for place, (going_on, bad) in enumerate(zip(still.tolist(), unusable.tolist(), strict=True)):
            prompt = self._prompts[place]
            if prompt in self._done:
                continue
            if bad:
                rows = torch.zeros_like(before, dtype=torch.bool)
                rows[place] = before[place] > -torch.inf
                self._rows.blame(rows.flatten())
            if not going_on:
                self._done[prompt] = self._pool.of(place)
                self.trace.done[prompt] = length

    def _go_on(self, parents: Tensor, tokens: Tensor, kept: Tensor) -> None:
        """The beams of the next step: (P, N) beams they continue, tokens, and which candidates they are."""
        beams = parents.shape[1]
        first = torch.arange(0, parents.numel(), beams, device=self._device)[:, None]
        rows = parents + first
        left = [place for place, prompt in enumerate(self._prompts) if prompt not in self._done]
        leaving = len(left) < len(self._prompts) and self._may_leave
        if leaving:
            at = torch.tensor(left, device=self._device)
            rows, tokens, kept = rows[at], tokens[at], kept[at]
            self._sums, self._may_stop = self._sums[at], self._may_stop[at]
            self._pool.select(at)
            self._prompts = [self._prompts[place] for place in left]
        if self._coverage is not None:
            self._coverage.select(rows.flatten())
        if self._texts is not None:
            self._texts.select(left if leaving else range(len(self._prompts)), kept)
        self._rows.advance(rows.flatten(), tokens.flatten(), within_prompts=not leaving)


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
