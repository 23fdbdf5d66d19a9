"""What the searches share: hypotheses that grow side by side, and the record from which they are read.

A search keeps several hypotheses per prompt, the beams, and compares whole texts. At each step every beam
offers its continuations, the search keeps the best of them as candidates, and chooses among those the beams
of the next step. `Rows` is the model's side of that: caches, histories and states, which change places with
the beams. `Trace` is the record: who came from whom.

P prompts, N beams, K candidates, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from minitx.decoding.loop import Call, RowState
from minitx.decoding.output import Event, Result, collected
from minitx.decoding.parameters import Integers, check_integers, parameters_of, set_frozen
from minitx.decoding.processors.base import Processor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.search.record import BeamTree, Link, Step, Trace
from minitx.decoding.search.rows import Rows
from minitx.decoding.strategy import Strategy
from minitx.validation import check_integer

# Each beam is a row of the model's batch, with a cache and a vocabulary of logits, for every prompt.
_MOST_BEAMS = 4096


@dataclass(frozen=True, kw_only=True, repr=False)
class Search(Strategy, example="Beam"):
    """A strategy that keeps several hypotheses per prompt and returns the best of them.

    Numbers that other strategies take per row, these take per prompt; `prefix_allowed_tokens_fn` gets the
    prompt's number. Processors, those of a literal chain too, see a row per beam: N for the first prompt, ...
    """

    num_beams: int = 4

    _drawing: ClassVar[str] = "BeamSample"
    _finds_strings: ClassVar[bool] = False

    @torch.inference_mode()
    def search(self, call: Call) -> Result:
        """Runs the call.

        Raises:
            ValueError: fields that do not fit the call, before any work; a prompt that is left without a
                token to go on with, or with fewer hypotheses than are to be returned.
        """
        self.check_call(call)
        if call.max_new_tokens == 0:
            return nothing(call)
        run = self.begin(call)
        while not run.done:
            run.step()
        return run.result()

    @abstractmethod
    def begin(self, call: Call) -> Run[Any]:
        """The search before its first step."""

    def short_of(self, found: int, wanted: int) -> str:
        """What an error says of too few hypotheses."""
        return (
            f"{found} of the num_samples={wanted} hypotheses were found: the model's vocabulary, "
            "max_new_tokens and the processors leave no other texts."
        )

    def build(self, min_new_tokens: Integers = 0) -> Chain:
        """The chain; `min_new_tokens`, one or per prompt."""
        if not isinstance(min_new_tokens, int):
            least = check_integers("min_new_tokens", min_new_tokens, 0, "0 sets no minimum")
            min_new_tokens = self._per_beam(least)
        return super().build(min_new_tokens)

    def check_call(self, call: Call) -> None:
        """
        Raises:
            ValueError: more hypotheses asked for than beams, values for another number of prompts, or stop
                strings where the search cannot look for them.
        """
        if call.stop.strings and not self._finds_strings:
            raise ValueError(
                f"{type(self).__name__}(...) cannot stop at strings, as Beam(...) can; give Stop(tokens=...)."
            )
        if call.num_samples > self.num_beams:
            raise ValueError(
                f"num_samples={call.num_samples} is more than num_beams={self.num_beams}: a search returns "
                "at most the hypotheses that it keeps."
            )
        for name, declared in parameters_of(self).items():
            value = getattr(self, name)
            if declared.per_row and isinstance(value, tuple) and len(value) != len(call.prompts):
                raise ValueError(
                    f"{name} has {len(value)} values, but there are {len(call.prompts)} prompts; give one "
                    "number or one per prompt."
                )
        call.chain.check_rows(len(call.prompts) * self.num_beams, self.num_beams)

    def _check(self) -> None:
        hint = "it is the number of hypotheses per prompt"
        beams = check_integer("num_beams", self.num_beams, 1, hint=hint)
        if beams > _MOST_BEAMS:
            raise ValueError(
                f"num_beams={beams} must be at most {_MOST_BEAMS}: each beam is a row that the model runs, "
                "with a cache of its own."
            )
        set_frozen(self, num_beams=beams)
        super()._check()

    def _make(self, name: str, value: Any) -> Processor:
        if parameters_of(self)[name].per_row and isinstance(value, tuple):
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


S = TypeVar("S", bound=Search)


class Run(ABC, Generic[S]):
    """A search on its way. A beam that does not exist has the sum -inf, and is none of those that count.

    Attributes:
        strategy, call: what is to be done.
        prompts: the numbers of the P prompts in the batch.
        rows: their beams, as the model sees them.
        trace: what was decided so far.
    """

    def __init__(self, strategy: S, call: Call, width: int, *, watch: bool = False) -> None:
        """
        Args:
            strategy, call: what is to be done.
            width: K, the candidates of a prompt at each step.
            watch: as for `Rows`.
        """
        self.strategy, self.call, self.trace = strategy, call, Trace(width)
        self.prompts = list(range(len(call.prompts)))
        self.rows = Rows(call, strategy.num_beams, watch=watch)
        self.device = self.rows.logits.device

    @property
    def done(self) -> bool:
        """Whether no prompt is searched any more."""
        return len(self.trace.done) == len(self.call.prompts)

    @abstractmethod
    def step(self) -> None:
        """Every beam gets a token, or ends."""

    @abstractmethod
    def hypotheses(self, prompt: int) -> list[tuple[float, int]]:
        """Score and last candidate's code of all that a prompt keeps, the best first."""

    def found(self) -> list[list[tuple[float, Link]]]:
        """Per prompt, score and last candidate of the `num_samples` hypotheses to return, the best first.

        Raises:
            ValueError: there are fewer.
        """
        wanted, found = self.call.num_samples, []
        for prompt in range(len(self.call.prompts)):
            best = self.hypotheses(prompt)[:wanted]
            if len(best) < wanted:
                raise ValueError(f"Prompt {prompt}: {self.strategy.short_of(len(best), wanted)}")
            found.append([(score, self.trace.link(code)) for score, code in best])
        return found

    def result(self) -> Result:
        """What was found."""
        return result_of(self.call, self.trace, self.found())

    @property
    def length(self) -> int:
        """How many tokens the candidates of this step have."""
        return len(self.trace.steps) + 1

    @property
    def codes(self) -> Tensor:
        """(K,) long: of the candidates of this step."""
        width = self.trace.width
        return torch.arange((self.length - 1) * width, self.length * width, device=self.device)

    def ends(self, tokens: Tensor) -> Tensor:
        """Which candidates end their texts by their ids: (P, K) -> (P, K) bool."""
        call, found = self.call, torch.zeros_like(tokens, dtype=torch.bool)
        for token in call.stop.eos:
            found |= tokens == token
        if call.stop.tokens:
            least = [call.min_new_tokens[prompt] for prompt in self.prompts]
            may_stop = self.length >= torch.tensor(least, device=self.device)[:, None]
            for token in call.stop.tokens:
                found |= (tokens == token) & may_stop
        return found

    def record(
        self,
        processed: Tensor,
        index: Tensor,
        sums: Tensor,
        scores: Tensor,
        ends: Tensor,
        beams: Tensor,
        kept: Tensor,
        finished: Tensor,
    ) -> None:
        """Writes down what a step decided.

        Args:
            processed: (R, V), what the chain left.
            index: (P, K) long, the candidates as places in N * V, beam after beam.
            beams: (P, N), by what the next beams compare; -inf for those that do not exist.
            sums, scores, ends, kept, finished: as in `Step`.
        """
        parents, tokens = index // processed.shape[-1], index % processed.shape[-1]
        exist = beams > -torch.inf
        # A beam that does not exist repeats one that does: its text, too, is one that processors can read.
        kept = torch.where(exist, kept, kept.gather(1, exist.int().argmax(dim=1, keepdim=True)))
        extras = self._logprobs(processed, index)
        self.trace.add(
            Step([*self.prompts], parents, tokens, sums, scores, ends, kept, exist, finished, extras)
        )

    def _logprobs(self, processed: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """`Step.logprobs`."""
        call = self.call
        if call.logprobs is None:
            return None
        table = torch.log_softmax(self.rows.logits if call.logprobs == "raw" else processed, dim=-1)
        top = table.topk(call.top_logprobs, dim=-1)
        return (
            table.view(len(index), -1).gather(1, index),
            top.indices.view(len(index), self.strategy.num_beams, -1),
            top.values.view(len(index), self.strategy.num_beams, -1),
        )

    def first_sums(self) -> Tensor:
        """(P, N): one beam to begin with, since equal ones would give equal texts."""
        shape = (len(self.call.prompts), self.strategy.num_beams)
        sums = torch.full(shape, -torch.inf, device=self.device)
        sums[:, 0] = 0.0
        return sums

    def check(self, before: Tensor, alive: Tensor) -> None:
        """Looks for prompts of the last step that were left without a token.

        A prompt whose beams have all ended, with nothing to return, is no such one: `found` says so.

        Args:
            before: (P, N) bool, which beams there were.
            alive: (P,) bool, which prompts have a beam now, or a hypothesis.

        Raises:
            ValueError: there is one, or one whose numbers are unusable; says why.
        """
        step = self.trace.steps[-1]
        bad = ~(step.sums.amax(dim=1) < torch.inf) | ~alive
        if bool(bad.any()):
            going_on = torch.tensor([p not in self.trace.done for p in step.prompts], device=self.device)
            bad &= going_on
        if bool(bad.any()):
            for rows in (bad[:, None] & before, bad[:, None].expand_as(before)):
                self.rows.raise_for_empty_rows(rows.flatten())

    def go_on(self, staying: Tensor | None = None) -> Tensor:
        """The model's next step, with the beams that the last step kept.

        Args:
            staying: (P',) long, which of its prompts stay in the batch; None: all.

        Returns:
            (R',) long, the rows that they continue.
        """
        step = self.trace.steps[-1]
        first = torch.arange(0, step.kept.numel(), step.kept.shape[1], device=self.device)[:, None]
        rows: Tensor = step.parents.gather(1, step.kept) + first
        tokens = step.tokens.gather(1, step.kept)
        if staying is not None:
            rows, tokens = rows[staying], tokens[staying]
        self.rows.advance(rows.flatten(), tokens.flatten(), within_prompts=staying is None)
        return rows.flatten()


def candidates_of(call: Call, beams: int) -> int:
    """So many candidates that as many as there are beams go on, however many end."""
    assert call.model.head is not None  # its task says so
    least = max(2, 1 + len({*call.stop.eos, *call.stop.tokens}))
    return min(least, call.model.head.config.num_labels) * beams


def result_of(call: Call, trace: Trace, found: Sequence[Sequence[tuple[float, Link]]]) -> Result:
    """The result of a search.

    Args:
        call: of the search.
        trace: its record.
        found: score and last candidate of the hypotheses to return, num_samples per prompt.
    """
    links = [[link for _, link in each] for each in found]
    result = collected(
        events(call, trace, links),
        len(call.prompts) * call.num_samples,
        has_text=call.tokenizer is not None,
        has_logprobs=call.logprobs is not None,
        top_logprobs=call.top_logprobs,
    )
    trees = [
        BeamTree(trace, prompt, chosen, call.prompts[prompt], call.tokenizer)
        for prompt, chosen in enumerate(links)
    ]
    scores = [score for each in found for score, _ in each]
    return replace(result, scores=scores, beams=trees)


def nothing(call: Call) -> Result:
    """The result where no token was asked for."""
    return replace(
        result_of(call, Trace(1), [[] for _ in call.prompts]),
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
