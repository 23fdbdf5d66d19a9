"""The Gumbel watermark: the random numbers of a draw come from a key and the tokens before.

Aaronson 2022; exponential minimum sampling in Kuditipudi et al., arXiv:2307.15593. Token i has a uniform
number u_i, keyed by the context, and the race of `CounterGumbel` takes the token with the least
-ln(1 - u_i) / p_i. After each context that is an exact draw from p over random keys; but the same context
always has the same numbers. In a watermarked text the u of its tokens are small, in others uniform, so that
the sum of -ln u over T tokens has a gamma distribution of shape T.

B rows, V vocabulary, H context_width, N windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.parameters import check_size, set_frozen, to_plain
from minitx.decoding.samplers.base import Device, Sampler, SamplerArguments
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.watermark.base import TokenIds, Watermark, check_key, distinct, windows_of
from minitx.decoding.watermark.hashing import LARGEST, context_keys, hashes
from minitx.device import as_tensor
from minitx.validation import ArgumentValueError, Interval, check_flags, check_number

_SHARE = Interval(0, 1, open_low=True, open_high=True)


@dataclass(frozen=True, kw_only=True)
class GumbelDetection:
    """How small the random numbers of a text's tokens are. It prints as a sentence.

    Attributes:
        num_tokens: T, the scored tokens.
        score: the sum of -ln u over them; without a watermark T on average.
        p_value: the probability of such a score without a watermark.
        p_threshold: below which p_value means a watermark.
    """

    num_tokens: int
    score: float
    p_value: float
    p_threshold: float

    @property
    def watermarked(self) -> bool:
        """Whether p_value is below the threshold."""
        return self.p_value < self.p_threshold

    def __repr__(self) -> str:
        """The score per token, the p-value, and the answer."""
        each = self.score / self.num_tokens
        answer = "watermarked" if self.watermarked else "no watermark found"
        score = f"score {each:.2f} per token (by chance 1.00) of {self.num_tokens} tokens"
        return f"{score}: p = {self.p_value:.2g}, {answer}"


@dataclass(frozen=True, kw_only=True)
class GumbelWatermark(Watermark):
    """Draws with numbers that the key and the last tokens determine; for `Sample` alone.

    There is nothing else to draw: a prompt always gets the same text, and `seed`, `generator` and
    `num_samples` are refused. As a context repeats its numbers, a narrow one makes texts repeat themselves.

    Args:
        key: secret.
        context_width: H, the tokens that the numbers depend on. An edit changes those of the H tokens after.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value of another type, or out of range.
    """

    key: int = 15485863
    context_width: int = 4
    draws = True

    def __post_init__(self) -> None:
        width = check_size("context_width", self.context_width, 1, "tokens that the numbers depend on")
        set_frozen(self, key=check_key("key", self.key), context_width=width)

    def sampler(self, call: SamplerArguments) -> Sampler:
        """Returns the sampler of a call.

        Raises:
            ArgumentValueError: another source of randomness, or several samples, which would be equal.
        """
        for name, value in (("seed", call.seed), ("generator", call.generator)):
            if value is not None:
                hint = "the key and the text determine every token of a GumbelWatermark"
                raise ArgumentValueError(name, value, "left out", hint)
        if call.num_samples != 1:
            hint = "with a GumbelWatermark all samples of a prompt would be equal"
            raise ArgumentValueError("num_samples", call.num_samples, "1", hint)
        return KeyedRace(self, call.prompts, call.device)

    def detect(
        self,
        tokens: TokenIds,
        prompt_length: int = 0,
        *,
        ignore_repeated_ngrams: bool = True,
        p_threshold: float = 1e-3,
    ) -> GumbelDetection:
        """Adds up -ln u of a text's tokens.

        Args:
            tokens: ids of the text, with its prompt or a part of it if there is one.
            prompt_length: the first so many tokens are context alone.
            ignore_repeated_ngrams: score a token after the same context once; repeated numbers are no new
                evidence, and the p-value is right only then.
            p_threshold: the p-value below which a text is called watermarked, in (0, 1).

        Raises:
            ArgumentTypeError, ArgumentValueError: not ids, or too few of them.
        """
        check_flags(ignore_repeated_ngrams=ignore_repeated_ngrams)
        threshold = check_number("p_threshold", to_plain(p_threshold), _SHARE)
        windows = windows_of(tokens, self.context_width + 1, prompt_length)
        windows = distinct(windows) if ignore_repeated_ngrams else windows
        uniform = (hashes(context_keys(self.key, windows[:, :-1]), windows[:, -1]).double() + 0.5) / LARGEST
        score = -uniform.log().sum()
        shape = torch.tensor(float(len(windows)), dtype=torch.float64)
        return GumbelDetection(
            num_tokens=len(windows),
            score=float(score),
            p_value=float(torch.special.gammaincc(shape, score)),
            p_threshold=threshold,
        )


class KeyedRace:
    """Samples with numbers that depend on the last H tokens of each row, which it keeps.

    The tokens that it draws must be those that the rows continue with. A position may be drawn again, as
    after a rejected draft.

    Args:
        watermark: key and H.
        prompts: ids of each row; a token that is missing before a short prompt counts as -1.
        device: of the logits.
    """

    def __init__(
        self, watermark: GumbelWatermark, prompts: Sequence[Sequence[int]], device: Device = "cpu"
    ) -> None:
        self._key, self._width = watermark.key, watermark.context_width
        last = [[-1] * self._width + list(prompt) for prompt in prompts]
        self._tokens = torch.tensor([row[-self._width :] for row in last], device=device)  # (B, H + drawn)

    def __call__(self, logits: Tensor, position: int | Tensor) -> Tensor:
        """(B, V) -> (B,)."""
        last = int(position.max()) if isinstance(position, Tensor) else position
        start = as_tensor(position, logits.device).expand(len(logits))[:, None]
        missing = last + self._width + 1 - self._tokens.shape[1]
        if missing > 0:
            self._tokens = F.pad(self._tokens, (0, max(missing, 64)), value=-1)
        contexts = self._tokens.gather(1, start + torch.arange(self._width, device=start.device))
        token = CounterGumbel(context_keys(self._key, contexts))(logits, 0)
        self._tokens.scatter_(1, start + self._width, token[:, None])
        return token
