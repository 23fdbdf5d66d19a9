"""Every sequence that `Sample` can draw, with its probability: the exact answer for tiny vocabularies.

R rows, V vocabulary, N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from minitx.decoding.arguments import check_names, resolve
from minitx.decoding.parameters import check_size
from minitx.decoding.request import GenerationOptions, GenerationRequest
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.decoding.text.detokenize import Detokenizer
from minitx.models import CausalModel
from minitx.validation import ArgumentValueError

_SHOWN = 10
_COUNTS = ("max_new_tokens", "min_new_tokens", "stop")
_OPTIONS = (*_COUNTS, "tokenizer", "grammar", "decoder_prompts", "prefill_chunk")


@dataclass(frozen=True, eq=False)
class Enumeration:
    """All sequences, most probable first. It prints the first ten.

    Attributes:
        sequences: N lists of new tokens, with the end token if there is one.
        log_probs: (N,) float64, of the strategy's distribution; their probabilities sum to 1.
        texts: of the sequences, without end tokens; None without a tokenizer.
    """

    sequences: list[list[int]]
    log_probs: Tensor
    texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    def __repr__(self) -> str:
        """The ten most probable sequences with their probabilities."""
        shown = self.sequences if self.texts is None else self.texts
        probabilities = self.log_probs[:_SHOWN].exp().tolist()
        lines = [f"{p:9.6f}  {text!r}" for p, text in zip(probabilities, shown, strict=False)]
        more = len(self) - len(lines)
        return "\n".join([*lines, f"and {more} more"] if more else lines)


def exhaustive(
    model: CausalModel,
    prompt: str | Sequence[int],
    strategy: Strategy = Sample(),  # noqa: B008 - frozen
    *,
    max_sequences: int = 100_000,
    **options: Unpack[GenerationOptions],
) -> Enumeration:
    """Returns every sequence that `Sample` can draw, with its probability.

    Its first sequence is the exact solution that searches approximate; the whole is the law that samples
    follow. Filters reduce the number of sequences: with top_k=3 there are at most 3^max_new_tokens.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompt: one prompt.
        strategy: a `Sample`, whose processors apply.
        max_sequences: the most sequences, finished ones and beginnings, that are enumerated.
        options: of `generate`: max_new_tokens, min_new_tokens, stop with tokens alone, tokenizer, grammar,
            decoder_prompts and prefill_chunk; the others have no effect here and are refused.

    Raises:
        TypeError, ValueError: as `generate`; another strategy than `Sample`, or one whose law changes with
            each call; other stop conditions; more sequences.
    """
    check_names(exhaustive, options, _OPTIONS)
    most = check_size("max_sequences", max_sequences, 1)
    one: Any = prompt if isinstance(prompt, str) else [prompt]
    strategy, request = resolve(model, one, strategy, options)
    drawn = getattr(strategy.watermark, "draws", False) or request.keys is not None
    if type(strategy) is not Sample or drawn or request.guidance is not None:
        expected = "a Sample(...) of processors alone, no coin, keyed draw or guidance"
        raise ArgumentValueError("strategy", strategy, expected, "Greedy() has one sequence, generate's")
    if len(request.prompts) != 1:
        raise ArgumentValueError("prompt", prompt, "one prompt")
    if request.stop.needs_rows or request.stop.deadline is not None:
        expected = "without strings, regex, function, repetition and seconds"
        raise ArgumentValueError("stop", options.get("stop"), expected, "use end or stop tokens")
    finished = sorted(_enumerate(DecodingSession(model, request), most), key=lambda pair: -pair[1])
    sequences = [row for row, _ in finished]
    log_probs = torch.tensor([score for _, score in finished], dtype=torch.float64)
    texts = None if request.tokenizer is None else [_text(request, row) for row in sequences]
    return Enumeration(sequences, log_probs, texts)


@torch.inference_mode()
def _enumerate(session: DecodingSession, most: int) -> list[tuple[list[int], float]]:
    """Returns all sequences with their log-probabilities."""
    request = session.request
    if request.max_new_tokens == 0:
        return [([], 0.0)]
    session.start()
    beginnings = torch.zeros(1, 0, dtype=torch.long, device=session.device)  # (R, tokens)
    log_probs = torch.zeros(1, dtype=torch.float64, device=session.device)
    finished: list[tuple[list[int], float]] = []
    for position in range(request.max_new_tokens):
        table = session.process(session.logits).double().log_softmax(dim=-1)
        session.raise_for_empty_rows(torch.ones(len(table), dtype=torch.bool, device=table.device))
        rows, tokens = (table > -torch.inf).nonzero(as_tuple=True)
        total = len(finished) + len(rows)
        if total > most:
            hint = f"there are {total} of {position + 1} tokens; use a filter, or fewer tokens"
            raise ArgumentValueError("max_sequences", most, "at least the number of sequences", hint)
        beginnings = torch.cat([beginnings[rows], tokens[:, None]], dim=1)
        log_probs = log_probs[rows] + table[rows, tokens]
        stops = request.stop.tokens if position + 1 >= request.min_new_tokens[0] else ()
        ends = torch.isin(tokens, tokens.new_tensor([*request.stop.eos, *stops]))
        ends |= position + 1 == request.max_new_tokens
        finished += zip(beginnings[ends].tolist(), log_probs[ends].tolist(), strict=True)
        if bool(ends.all()):
            break
        beginnings, log_probs = beginnings[~ends], log_probs[~ends]
        session.step(tokens[~ends], rows[~ends], within_prompts=False)
    return finished


def _text(request: GenerationRequest, row: list[int]) -> str:
    """Returns the text that a sequence adds to the prompt."""
    assert request.tokenizer is not None  # else no text is asked for
    detokenizer = Detokenizer(request.tokenizer, request.prompts[0])
    ends = {*request.stop.eos, *(() if request.stop.include_stop else request.stop.tokens)}
    return "".join(detokenizer.push(token) for token in row if token not in ends) + detokenizer.finish()
