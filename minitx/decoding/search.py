"""What the searches share: hypotheses that grow side by side, and the record from which they are read.

A search keeps several hypotheses per prompt, the beams, and compares whole texts. At each step every beam
offers its continuations, the search keeps the best of them as candidates, and chooses among those the beams
of the next step. `Rows` is the model's side of that: caches, histories and states, which change places with
the beams. `Trace` is the record: who came from whom.

P prompts, N beams, K candidates, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.at_least import AtLeast
from minitx.decoding.chain import Chain, Processor, StatefulProcessor, select_state
from minitx.decoding.checks import Integers, PerRow, integer, settle
from minitx.decoding.constraints import PrefixAllowed
from minitx.decoding.detokenize import Detokenizer
from minitx.decoding.loop import Call, History, RowState
from minitx.decoding.result import Event, Result, collected
from minitx.decoding.select import Race
from minitx.decoding.stepper import Stepper
from minitx.decoding.stop import RowText
from minitx.decoding.strategy import Strategy
from minitx.decoding.tree import BeamTree, Link, Trace

# Fields that may be given per prompt; each beam of a prompt then has its value.
PER_PROMPT = frozenset(
    """
    repetition_penalty presence_penalty frequency_penalty encoder_repetition_penalty min_length temperature
    top_k top_p min_p typical_p epsilon_cutoff eta_cutoff top_h
    """.split()  # noqa: SIM905 - shorter
)


# Each beam is a row of the model's batch, with a cache and a vocabulary of logits, for every prompt.
_MOST_BEAMS = 4096


@dataclass(frozen=True, kw_only=True, repr=False)
class Search(Strategy):
    """A strategy that keeps several hypotheses per prompt and returns the best of them.

    Numbers that other strategies take per row, these take per prompt; `prefix_allowed_tokens_fn` gets the
    prompt's number. Processors, those of a literal chain too, see a row per beam: N for the first prompt, ...
    """

    num_beams: int = 4

    @abstractmethod
    def search(self, call: Call) -> Result:
        """Runs the call.

        Raises:
            ValueError: fields that do not fit the call, before any work; a prompt that is left without a
                token to go on with.
        """

    @property
    def draws(self) -> bool:
        """Whether the search is random, so that a seed means something to it."""
        return False

    def shares_randomness(self, call: Call) -> bool:
        """Whether all prompts draw from one source, so that each must go on drawing until all are done."""
        return self.draws and isinstance(call.selector, Race)

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """The chain; `min_new_tokens`, one or per prompt."""
        if not isinstance(min_new_tokens, int):
            min_new_tokens = self._per_beam(integer("min_new_tokens", min_new_tokens, 0, "0 sets no minimum"))
        return super().build(min_new_tokens)

    def check_call(self, call: Call) -> None:
        """
        Raises:
            ValueError: more hypotheses asked for than beams, or values for another number of prompts.
        """
        if call.num_samples > self.num_beams:
            raise ValueError(
                f"num_samples={call.num_samples} is more than num_beams={self.num_beams}: a search returns "
                "at most the hypotheses that it keeps."
            )
        for name in sorted(PER_PROMPT):
            value = getattr(self, name, None)
            if isinstance(value, tuple) and len(value) != len(call.prompts):
                raise ValueError(
                    f"{name} has {len(value)} values, but there are {len(call.prompts)} prompts; give one "
                    "number or one per prompt."
                )
        call.chain.check_rows(len(call.prompts) * self.num_beams, self.num_beams)

    def _check(self) -> None:
        beams = integer("num_beams", self.num_beams, 1, "it is how many hypotheses are kept per prompt")
        if not isinstance(beams, int):
            raise TypeError(f"num_beams={self.num_beams!r} must be one whole number.")
        if beams > _MOST_BEAMS:
            raise ValueError(
                f"num_beams={beams} must be at most {_MOST_BEAMS}: each beam is a row that the model runs, "
                "with a cache of its own."
            )
        settle(self, num_beams=beams)
        super()._check()

    def _make(self, name: str, value: Any) -> Processor:
        if name in PER_PROMPT and isinstance(value, tuple):
            value = self._per_beam(value)
        if name == "prefix_allowed_tokens_fn" and callable(value):
            value = _OfPrompt(value, self.num_beams)
        return super()._make(name, value)

    def _per_beam(self, values: Any) -> Any:
        if not isinstance(values, tuple):
            return values
        return tuple(value for value in values for _ in range(self.num_beams))


@dataclass(frozen=True)
class _OfPrompt:
    """A function of (prompt, tokens) as one of (row, tokens), with `beams` rows per prompt."""

    function: Callable[[int, Tensor], Sequence[int] | Tensor]
    beams: int

    def __call__(self, row: int, tokens: Tensor) -> Sequence[int] | Tensor:
        return self.function(row // self.beams, tokens)


class Rows:
    """The rows that the model works on: N beams for each prompt, one after the other.

    Attributes:
        history: of the rows.
    """

    def __init__(self, call: Call, beams: int, *, watch: bool = False) -> None:
        """
        Args:
            call: of the search.
            beams: N.
            watch: asks for `looks`.
        """
        self._call = call
        device = call.model.decoder_embedder.word_emb.weight.device
        self._stepper = Stepper(call, beams, watch=watch)
        self.history = History([prompt for prompt in call.prompts for _ in range(beams)], call, device)
        self._states = call.chain.init(self.history.context)
        self._stateful = any(isinstance(each, StatefulProcessor) for each in call.chain.processors)

    def log_probabilities(self) -> Tensor:
        """(R, V): the model's, and what the chain makes of them; it does not normalise them again."""
        self._given = torch.log_softmax(self.logits, dim=-1)
        return self._call.chain(self._given, self.history.context, self._states)

    def advance(self, rows: Tensor, token: Tensor, *, within_prompts: bool = True) -> None:
        """Goes on with these rows, each with its next token.

        Args:
            rows: (R',) long, rows of now.
            token: (R',) long.
            within_prompts: each prompt keeps its N places.
        """
        context = self.history.context
        unmoved = len(rows) == len(self.logits) and rows.device.type == "cpu"
        if not (unmoved and bool((rows == torch.arange(len(rows))).all())):
            cache = self._stepper.cache
            (cache.reorder if within_prompts else cache.select)(rows)
            self.history.select(rows)
            self._states = select_state(self._states, rows)
            context = self.history.context
        if self._stateful:
            self._states = self._call.chain.update(self._states, context, token, self._given[rows])
        self.history.append(token)
        self._stepper.step(token, self.history)

    @property
    def logits(self) -> Tensor:
        """(R, V) float32, the model's, for the next token."""
        return self._stepper.logits

    @property
    def looks(self) -> Tensor | None:
        """(R, S) float32, how much the next token looks at each token that was read, if asked for."""
        return self._stepper.looks

    def blame(self, rows: Tensor) -> None:
        """Says why rows have no token to go on with. rows: (R,) bool, those that matter.

        Raises:
            ValueError: as `Chain.blame`.
        """
        self._call.chain.blame(self._given, self.history.context, self._states, rows)


class Pool:
    """The finished hypotheses of each prompt, the best M.

    Attributes:
        scores: (P, M), the best first; -inf for none.
        codes: (P, M) long, which candidate each ended with; -1 for none.
    """

    def __init__(self, prompts: int, places: int, device: torch.device) -> None:
        self.scores = torch.full((prompts, places), -torch.inf, device=device)
        self.codes = torch.full((prompts, places), -1, device=device)

    def add(self, scores: Tensor, codes: Tensor) -> None:
        """Offers candidates: their scores (P, K), -inf for those that are none, and codes (K,)."""
        codes = torch.where(scores > -torch.inf, codes, -1)
        self.scores, places = torch.cat((self.scores, scores), dim=1).topk(self.scores.shape[1])
        self.codes = torch.cat((self.codes, codes), dim=1).gather(1, places)

    def select(self, prompts: Tensor) -> None:
        """Keeps these prompts. prompts: (P',) long."""
        self.scores, self.codes = self.scores[prompts], self.codes[prompts]

    def of(self, prompt: int) -> list[tuple[float, int]]:
        """Scores and codes of one prompt's hypotheses, the best first."""
        pairs = zip(self.scores[prompt].tolist(), self.codes[prompt].tolist(), strict=True)
        return [(score, code) for score, code in pairs if code >= 0]


class Texts:
    """The texts of all beams, in which stop strings are looked for."""

    def __init__(self, call: Call, beams: int) -> None:
        assert call.tokenizer is not None  # checked, as there are strings
        self._least = call.min_new_tokens
        self._length = 0
        self._beams = [
            [RowText(Detokenizer(call.tokenizer, prompt), call.stop.strings)] * beams
            for prompt in call.prompts
        ]
        self._candidates: list[list[RowText]] = []

    def read(self, parents: Tensor, tokens: Tensor, ends: Tensor) -> Tensor:
        """Takes the candidates' tokens: (P, K) beams, tokens, and which end anyway -> (P, K) which end."""
        self._length += 1
        self._candidates, found = [], ends.tolist()
        for place, each in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True)):
            may_stop = self._length >= self._least[place]
            texts = [self._beams[place][parent].copy() for parent in each[0]]
            self._candidates.append(texts)
            for number, (text, token) in enumerate(zip(texts, each[1], strict=True)):
                if not found[place][number]:
                    found[place][number] = text.push(token, may_stop=may_stop)[1]
        return torch.tensor(found, device=ends.device)

    def select(self, places: Sequence[int], kept: Tensor) -> None:
        """Goes on with the prompts at these places, each with its (P', N) candidates."""
        chosen = zip(places, kept.tolist(), strict=True)
        self._beams = [[self._candidates[place][number] for number in numbers] for place, numbers in chosen]
        self._least = [self._least[place] for place in places]


def row_blind(chain: Chain) -> bool:
    """Whether a chain does the same to a row wherever it stands, so that rows before it may leave the batch.

    Not so with numbers per row and functions that are told the row, nor perhaps with processors of one's own.
    """
    for processor in chain.processors:
        if isinstance(processor, Chain):
            if not row_blind(processor):
                return False
            continue
        inner = processor.filter if isinstance(processor, AtLeast) else processor
        ours = type(inner).__module__.startswith("minitx.")
        if not ours or isinstance(inner, PrefixAllowed):
            return False
        if any(isinstance(value, PerRow) for value in vars(inner).values()):
            return False
    return True


def logprobs_of(
    call: Call, logits: Tensor, processed: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """`Step.logprobs`: logits and processed (R, V); index (P, K), candidates as places of N * V."""
    if call.logprobs is None:
        return None
    table = torch.log_softmax(logits if call.logprobs == "raw" else processed, dim=-1)
    top = table.topk(call.top_logprobs, dim=-1)
    beams = len(table) // len(index)
    return (
        table.view(len(index), -1).gather(1, index),
        top.indices.view(len(index), beams, -1),
        top.values.view(len(index), beams, -1),
    )


def result_of(
    call: Call, trace: Trace, found: Sequence[Sequence[tuple[float, Link]]], norm: Callable[[int], float]
) -> Result:
    """The result of a search.

    Args:
        call: of the search.
        trace: its record.
        found: score and last candidate of the hypotheses to return, num_samples per prompt.
        norm: what the sum of so many log-probabilities is divided by.
    """
    links = [[link for _, link in each] for each in found]
    result = collected(
        events(call, trace, links),
        len(call.prompts) * call.num_samples,
        has_text=call.tokenizer is not None,
        has_logprobs=call.logprobs is not None,
        top_logprobs=call.top_logprobs,
    )
    trees = [BeamTree(trace, prompt, chosen, norm, call.tokenizer) for prompt, chosen in enumerate(links)]
    scores = [score for each in found for score, _ in each]
    return replace(result, scores=scores, beams=trees)


def nothing(call: Call) -> Result:
    """The result where no token was asked for."""
    return replace(
        result_of(call, Trace(1), [[] for _ in call.prompts], float),
        scores=[0.0] * (len(call.prompts) * call.num_samples),
    )


def events(call: Call, trace: Trace, chosen: Sequence[Sequence[Link]]) -> Iterator[Event]:
    """What the chosen hypotheses (num_samples for each prompt) would have been as rows of `generate`."""
    for prompt, links in enumerate(chosen):
        for sample, last in enumerate(links):
            row = RowState(call, call.prompts[prompt], call.min_new_tokens[prompt])
            for link in trace.path(prompt, last):
                token = trace.token(prompt, link)
                number = prompt * call.num_samples + sample
                yield Event(number, token, *row.take(token), *trace.extras(prompt, link))
