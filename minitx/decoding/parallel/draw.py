"""The proposed token of each open position: logits -> processors -> a token, for each position by itself.

N positions of all rows, R rows, L longest row, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minitx.decoding.parallel.schedule import FillStrategy
from minitx.decoding.parameters import parameters_of
from minitx.decoding.processors import bias, constraints, penalties
from minitx.decoding.processors.base import LogitsProcessor, StatefulProcessor, label
from minitx.decoding.processors.chain import Chain, unusable
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.temperature import RemoveInvalid
from minitx.decoding.processors.truncation import Filter
from minitx.decoding.samplers.base import Argmax, Device, Seed
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.decoding.watermark.green import Unigram
from minitx.validation import ArgumentValueError

# Besides elementwise ones: processors for which it does not matter in which order a row's tokens came.
_UNORDERED = (
    *(bias.LogitBias, constraints.AllowedTokens, constraints.SuppressTokens, RemoveInvalid, Filter),
    *(penalties.RepetitionPenalty, penalties.FrequencyPenalty, penalties.PresencePenalty),
    *(penalties.RelativeFrequencyPenalty, Unigram),
)
_ORDERED = "it depends on the tokens before a position, which may still be masked"


class Proposer:
    """Chooses a token for each of N positions, whatever rows are in the batch.

    Args:
        schedule: its `draw` chooses.
        prompts: ids of each prompt, with its masks.
        num_samples: rows per prompt.
        seed: as for `generate`.
        device: of the logits.

    Raises:
        ArgumentValueError: processors or a strategy that need an order from left to right; a seed without
            effect, or several samples that would all be equal.
    """

    def __init__(
        self,
        schedule: FillStrategy,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        seed: Seed | None,
        device: Device,
    ) -> None:
        draw = schedule.draw
        self.chain = draw.build()
        _check_processors(draw, self.chain)
        self._draws = isinstance(draw, Sample)
        self._processed = schedule.probabilities == "processed"
        if not self._draws and not schedule.is_random:
            draw.sampler(prompts, num_samples, seed=seed)  # raises the error for a seed without effect
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        options: dict[str, Any] = {"seed": seed} if self._draws else {}
        sampler = draw.sampler(prompts, 1, **options)
        if draw.searches or type(sampler) not in (Argmax, CounterGumbel):
            raise ArgumentValueError("draw", draw, "Greedy(...) or Sample(...), one token per position")
        self.keys = row_keys(seed, prompts, num_samples, device)  # (R,)

    def __call__(
        self, logits: Tensor, context: Context | None, rows: Tensor, counters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns a token for each position, (N,), and the log-probabilities for its confidence, (N, V).

        Args:
            logits: (N, V).
            context: of each position, from `contexts`; None without processors.
            rows: (N,) long, the number of each position's row.
            counters: (N,) long, different for each position and step of a row.

        Raises:
            ValueError: the processors leave a position without a token, or the logits are NaN.
        """
        processed = logits if context is None else self.chain(logits, context)
        broken = unusable(processed).nonzero()
        if len(broken):
            steps = [("the model", logits)]
            steps += [] if context is None else self.chain.trace(logits, context)
            name = next(name for name, after in steps if bool(unusable(after)[broken[0]]))
            row = int(rows[broken[0]])
            raise ValueError(f"Row {row}: {name} left a masked position no token to choose, or returned NaN.")
        sampler = CounterGumbel(self.keys[rows]) if self._draws else Argmax()
        measured = processed if self._processed else logits
        return sampler(processed, counters), measured.log_softmax(dim=-1)

    def random(self, row: int, name: str, counters: Tensor) -> Tensor:
        """Returns uniform numbers (M,) float64 for a purpose other than tokens, for the counters (M,)."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        key = self.keys[row] ^ int.from_bytes(digest, "little", signed=True)
        noise = CounterGumbel(key.expand(len(counters))).noise(1, counters).squeeze(1)
        return torch.exp(-torch.exp(-noise.double()))  # the distribution function of a Gumbel


def contexts(rows: Sequence[Tensor], is_open: Sequence[Tensor], mask_token_id: int) -> Context:
    """Returns the context of R rows for processors: the given tokens, then those filled so far, no masks.

    Args:
        rows: (T,) long each.
        is_open: (T,) bool each, the positions that were masked at the start.
        mask_token_id: of the mask token.
    """
    given = [ids[~places] for ids, places in zip(rows, is_open, strict=True)]
    filled = [ids[places & (ids != mask_token_id)] for ids, places in zip(rows, is_open, strict=True)]
    tokens = [torch.cat(parts) for parts in zip(given, filled, strict=True)]
    lengths = torch.tensor([[len(row), len(first)] for row, first in zip(tokens, given, strict=True)])
    length, start = lengths.to(rows[0].device).unbind(dim=1)
    return Context(tokens=pad_sequence(tokens, batch_first=True), length=length, prompt_length=start)


def _check_processors(draw: Strategy, chain: Chain) -> None:
    """Checks that each processor is defined for a position that is not the end of its row."""
    if draw.watermark is not None and not isinstance(draw.watermark, Unigram):
        raise ArgumentValueError("draw.watermark", draw.watermark, "left out", _ORDERED)
    for processor in chain.processors:
        name = _field_of(draw, processor)
        ordered = isinstance(processor, LogitsProcessor | StatefulProcessor) and not (
            getattr(processor, "elementwise", False) or isinstance(processor, _UNORDERED)
        )
        if ordered or isinstance(getattr(processor, "scope", "all"), int):
            raise ArgumentValueError(f"draw.{name}", processor, "left out", _ORDERED)
        if isinstance(processor, LogitsProcessor) and not processor.batch_invariant:
            hint = "positions of all rows are processed together"
            raise ArgumentValueError(f"draw.{name}", getattr(draw, name, processor), "one number", hint)


def _field_of(draw: Strategy, processor: Any) -> str:
    """Returns the field of a strategy that a processor comes from, or the processor's name."""
    for name, declared in parameters_of(draw).items():
        factory = getattr(declared.processor, "__self__", declared.processor)
        if factory is type(processor) and draw.chain is None:
            return name
    return label(processor)
