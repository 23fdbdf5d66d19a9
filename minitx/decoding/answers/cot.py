"""CoT-decoding: the first-token alternative whose answer the model is most certain of.

Wang and Zhou 2024, "Chain-of-Thought Reasoning without Prompting", arXiv:2402.10200. The k most probable
first tokens are each continued greedily. Some of the k paths reason before they answer, and these have a
larger margin at the answer: the mean over the answer's tokens of p(best) - p(second best).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Unpack

from minitx.decoding.answers.extract import Extract, check_extract, find_answer
from minitx.decoding.generate import generate
from minitx.decoding.output import Row
from minitx.decoding.parameters import check_size
from minitx.decoding.prompts import read_prompts
from minitx.decoding.request import GenerationOptions
from minitx.decoding.samplers.alternatives import Alternatives
from minitx.decoding.special_tokens import begin_token
from minitx.decoding.text.detokenize import Detokenizer
from minitx.models import CausalModel
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_type


@dataclass(frozen=True, eq=False)
class Path:
    """The continuation of one first token.

    Attributes:
        text: of the path.
        answer: in the text; None without one.
        margin: the mean over the answer's tokens of p(best) - p(second best), from 0 to 1; 0 without answer.
    """

    text: str
    answer: Hashable
    margin: float


@dataclass(frozen=True, eq=False)
class CoTDecoding:
    """The paths from the most probable first tokens. It prints a line for each.

    Attributes:
        paths: in the order of their first tokens, most probable first.
        answers: the different answers, with the largest sum of margins first.
        margins: of each answer, the sum over its paths.
    """

    paths: list[Path]
    answers: list[Hashable]
    margins: list[float]

    @property
    def answer(self) -> Hashable:
        """The answer with the largest sum of margins over its paths; None if no path has one."""
        return self.answers[0] if self.answers else None

    @property
    def best(self) -> Path:
        """The path with the largest margin."""
        return max(self.paths, key=lambda path: path.margin)

    def __repr__(self) -> str:
        """A line per path: margin, answer, text."""
        lines = []
        for path in self.paths:
            start, shown = f"{path.margin:6.3f}  {path.answer!r:.20}  ", repr(path.text)
            lines.append(start + (shown if len(start + shown) <= 80 else f"{shown[: 79 - len(start)]}…"))
        return "\n".join([*lines, f"answer: {self.answer!r}"])


def cot_decoding(
    model: CausalModel,
    prompt: str,
    extract: Extract = None,
    *,
    k: int = 10,
    strategy: Alternatives = Alternatives(),  # noqa: B008 - frozen
    **options: Unpack[GenerationOptions],
) -> CoTDecoding:
    """Continues a prompt from its k most probable first tokens, and weighs each answer by its margin.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompt: one question, such as "Q: ... A:".
        extract: how to find the answer in a path, as for `self_consistency`; what a function returns must
            occur in the text.
        k: the number of paths; the paper uses 10.
        strategy: `Alternatives`, with other processors.
        options: of `generate`, among them `tokenizer`; those for samples and log-probabilities are set.

    Raises:
        TypeError, ValueError: as `generate`; options that are set here; an answer that its path's text does
            not contain.
    """
    check_type("prompt", prompt, str, "one prompt, a string")
    tokenizer = check_type("tokenizer", options.get("tokenizer"), Tokenizer, "a Tokenizer")
    check_type("strategy", strategy, Alternatives, "Alternatives(...)")
    extract, number = check_extract(extract), check_size("k", k, 1, "paths")
    for name in ("num_samples", "logprobs", "top_logprobs", "heal"):
        if name in options:
            raise ArgumentValueError(name, options.get(name), "left out", "cot_decoding sets it")
    settings: GenerationOptions = {**options, "num_samples": number, "logprobs": "raw", "top_logprobs": 2}
    result = generate(model, prompt, strategy, **settings)
    context = _prompt_ids(model, prompt, tokenizer)
    paths = [_path(row, tokenizer, context, extract) for row in result]
    sums: dict[Hashable, float] = {}
    for path in paths:
        if path.answer is not None:
            sums[path.answer] = sums.get(path.answer, 0.0) + path.margin
    answers = sorted(sums, key=lambda answer: -sums[answer])
    return CoTDecoding(paths, answers, [sums[answer] for answer in answers])


def _path(row: Row, tokenizer: Tokenizer, prompt: list[int], extract: Extract) -> Path:
    """Returns a path with the margin of its answer."""
    text, top = row.text or "", row.top_logprobs
    found = find_answer(text, extract)
    if found is None or top is None:
        return Path(text, None, 0.0)
    if found.start < 0:
        hint = f"{found.value!r:.40} is not in {text!r:.40}"
        raise ArgumentValueError("extract", extract, "a function that returns a part of the text", hint)
    ends, detokenizer, shown = [], Detokenizer(tokenizer, prompt), 0
    for token in row.tokens.tolist():
        shown += len(detokenizer.push(token))
        ends.append(shown + len(detokenizer.rest))
    spans = enumerate(zip([0, *ends[:-1]], ends, strict=True))
    inside = [index for index, (start, end) in spans if start < found.end and end > found.start]
    probabilities = top.values.double().exp()[inside]
    margin = float((probabilities[:, 0] - probabilities[:, 1]).mean()) if inside else 0.0
    return Path(text, found.value, margin)


def _prompt_ids(model: CausalModel, prompt: str, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that a path's text continues; none of an encoder-decoder."""
    if model.task == "seq2seq-lm":
        return []
    size = model.config.text_inputs.vocab_size
    return read_prompts(prompt, vocab_size=size, tokenizer=tokenizer, bos=begin_token(model, tokenizer))[0]
