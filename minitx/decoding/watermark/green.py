"""Green lists: a keyed part of the vocabulary is made more probable, and counted later.

Under the null hypothesis, text without the watermark, each token is green with probability gamma, so that of
T tokens g are green with z = (g - gamma T) / sqrt(T gamma (1 - gamma)) about standard normal.

B rows, V vocabulary, H context_width, N windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.decoding.watermark import hashing, randperm
from minitx.decoding.watermark.base import (
    FINITE,
    TokenIds,
    Watermark,
    check_key,
    distinct,
    normal_tail,
    windows_of,
)
from minitx.validation import (
    ArgumentValueError,
    Interval,
    check_choice,
    check_flags,
    check_integer,
    check_number,
)

_RATIO = Interval(0, 1, open_low=True, open_high=True)
_TRIED = 40  # candidates of selfhash, as in the authors' code
_EACH = hashing.LARGEST


@dataclass(frozen=True, kw_only=True)
class GreenDetection:
    """How many tokens of a text are green. It prints as a sentence.

    Attributes:
        num_tokens: T, the scored tokens.
        num_green: g, those that are green.
        expected: gamma, the part of tokens that are green without a watermark.
        z_score: the standard deviations that g is above its mean without a watermark.
        p_value: the probability of such a z_score without a watermark.
        z_threshold: above which z_score means a watermark.
    """

    num_tokens: int
    num_green: int
    expected: float
    z_score: float
    p_value: float
    z_threshold: float

    @property
    def green_fraction(self) -> float:
        """g / T."""
        return self.num_green / self.num_tokens

    @property
    def watermarked(self) -> bool:
        """Whether z_score is above the threshold."""
        return self.z_score > self.z_threshold

    def __repr__(self) -> str:
        """The counts, the z-score, its p-value, and the answer."""
        green = f"{self.num_green} of {self.num_tokens} tokens are green, {self.green_fraction:.1%}"
        means = f"z = {self.z_score:.2f}, p = {self.p_value:.2g}"
        answer = "watermarked" if self.watermarked else "no watermark found"
        return f"{green} (by chance {self.expected:.1%}): {means}, {answer}"


class _Green(Watermark, LogitsProcessor):
    """The parts that both watermarks share."""

    ratio: float
    bias: float
    key: int

    def __post_init__(self) -> None:
        set_frozen(
            self,
            ratio=check_number("ratio", to_plain(self.ratio), _RATIO, "the part of tokens that are green"),
            bias=check_number("bias", to_plain(self.bias), FINITE, "added to the logits of green tokens"),
            key=check_key("key", self.key),
        )

    @property
    def _limit(self) -> int:
        """Hashes below it are green."""
        return round(self.ratio * _EACH)

    def keeps_log_probs_nonpositive(self, below: bool) -> bool:
        """See `LogitsProcessor.keeps_log_probs_nonpositive`."""
        return below and self.bias <= 0

    def _detection(self, green: Tensor, z_threshold: Any) -> GreenDetection:
        """Returns the result for (N,) bool, whether each scored token is green."""
        number, count = len(green), int(green.sum())
        z = (count - self.ratio * number) / (number * self.ratio * (1 - self.ratio)) ** 0.5
        threshold = check_number("z_threshold", to_plain(z_threshold), FINITE)
        return GreenDetection(
            num_tokens=number,
            num_green=count,
            expected=self.ratio,
            z_score=z,
            p_value=normal_tail(z),
            z_threshold=threshold,
        )


@dataclass(frozen=True, kw_only=True)
class KGW(_Green):
    """Adds `bias` to the logits of green tokens, which depend on the tokens before (arXiv:2301.10226).

    A token is green if a hash of the key, the context and the token itself is among the lowest `ratio` of all
    hashes: each with probability `ratio`, independently. (The paper permutes the vocabulary and takes its
    first ratio * V tokens; with hashes a token is checked without the others, and a detector needs neither
    the model nor the size of its vocabulary.) Nothing changes until prompt and output have H tokens.

    Args:
        ratio: gamma, in (0, 1).
        bias: delta, added to the logits of green tokens; 0.5 to 4. More is easier to detect and worse text.
        key: secret; whoever knows it can detect, and imitate.
        context_width: H, the tokens that decide. A wider context hides the lists better, and edits of the
            text destroy more of the watermark.
        seeding: "lefthash": the H tokens before decide. "selfhash": the H - 1 before and the token itself,
            for the 40 most probable tokens of each step (arXiv:2306.04634).
        lists: "hash", or "transformers" for its lists on a CPU: exactly floor(ratio * V) tokens, by
            `torch.randperm`. Those differ between versions and devices, and "lefthash" uses the last token
            alone.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value of another type, or out of range.
    """

    ratio: float = 0.25
    bias: float = 2.0
    key: int = 15485863
    context_width: int = 1
    seeding: Literal["lefthash", "selfhash"] = "lefthash"
    lists: Literal["hash", "transformers"] = "hash"

    def __post_init__(self) -> None:
        super().__post_init__()
        set_frozen(self, context_width=check_size("context_width", self.context_width, 1))
        check_choice("seeding", self.seeding, ("lefthash", "selfhash"))
        check_choice("lists", self.lists, ("hash", "transformers"))

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        width, size = self.context_width, logits.shape[-1]
        if context.tokens.shape[1] < width:
            return logits
        last = context.last(width).clamp(min=0)
        green = torch.zeros_like(logits, dtype=torch.bool)
        if self.seeding == "selfhash":
            tried = logits.topk(min(_TRIED, size), dim=-1).indices  # (B, 40)
            before = last[:, None, 1:].expand(-1, tried.shape[1], -1)
            windows = torch.cat([before, tried[..., None]], dim=-1)
            green.scatter_(1, tried, self.is_green(windows.flatten(0, 1), size).view_as(tried))
        elif self.lists == "transformers":
            for row, seed in enumerate(randperm.left_seeds(self.key, last)):
                green[row, self._list(seed, size).to(green.device)] = True
        else:
            tokens = torch.arange(size, device=logits.device)[None]
            green = hashing.hashes(hashing.context_keys(self.key, last), tokens) < self._limit
        return torch.where(green & (context.length >= width)[:, None], logits + self.bias, logits)

    def detect(
        self,
        tokens: TokenIds,
        prompt_length: int = 0,
        *,
        ignore_repeated_ngrams: bool = True,
        z_threshold: float = 3.0,
        vocab_size: int | None = None,
    ) -> GreenDetection:
        """Counts the green tokens of a text.

        Args:
            tokens: ids of the text, with its prompt or a part of it if there is one.
            prompt_length: the first so many tokens are context alone. Leave out a beginning-of-text token.
            ignore_repeated_ngrams: count each random number once: a token after the same context, or with
                selfhash beside the same deciding token. Without it, text that repeats itself gets high
                z-scores by chance.
            z_threshold: the z-score above which a text is called watermarked.
            vocab_size: V, the number of logits of the model; only for lists="transformers".

        Raises:
            ArgumentTypeError, ArgumentValueError: not ids, or too few of them; a missing vocab_size.
        """
        check_flags(ignore_repeated_ngrams=ignore_repeated_ngrams)
        if (vocab_size is None) == (self.lists == "transformers"):
            wanted = "the number of logits of the model" if vocab_size is None else "None"
            raise ArgumentValueError("vocab_size", vocab_size, f"{wanted} for lists={self.lists!r}")
        size = 0 if vocab_size is None else check_integer("vocab_size", vocab_size, 1)
        windows = windows_of(tokens, self.context_width + (self.seeding == "lefthash"), prompt_length)
        if self.lists == "transformers":
            windows = distinct(windows) if ignore_repeated_ngrams else windows
            return self._detection(self.is_green(windows, size), z_threshold)
        numbers = self._hashes(windows)
        numbers = distinct(numbers) if ignore_repeated_ngrams else numbers
        return self._detection(numbers < self._limit, z_threshold)

    def is_green(self, windows: Tensor, vocab_size: int) -> Tensor:
        """Whether the last token of each window is green: (N, H + 1), of selfhash (N, H) -> (N,) bool."""
        if self.lists == "hash":
            return self._hashes(windows) < self._limit
        anchored = self.seeding == "selfhash"
        seeds = (
            randperm.self_seeds(self.key, windows)
            if anchored
            else randperm.left_seeds(self.key, windows[:, :-1])
        )
        lists = (self._list(seed, vocab_size) for seed in seeds)
        inside = [bool((ids == token).any()) for ids, token in zip(lists, windows[:, -1].cpu(), strict=True)]
        return torch.tensor(inside, dtype=torch.bool, device=windows.device)

    def _hashes(self, windows: Tensor) -> Tensor:
        """Returns the random number of each window's last token: (N, H + 1) or (N, H) -> (N,)."""
        if self.seeding == "selfhash":
            return hashing.anchored_hashes(self.key, windows)
        return hashing.hashes(hashing.context_keys(self.key, windows[:, :-1]), windows[:, -1])

    def _list(self, seed: int, vocab_size: int) -> Tensor:
        return randperm.green_list(seed, vocab_size, int(vocab_size * self.ratio))


@dataclass(frozen=True, kw_only=True)
class Unigram(_Green):
    """Adds `bias` to the logits of the same green tokens everywhere (arXiv:2306.17439).

    A token is green if a hash of the key and the token is among the lowest `ratio` of all hashes. Edits of
    a text leave the watermark of the other tokens as it is, but whoever sees enough text can guess the list.

    Args:
        ratio: gamma, in (0, 1).
        bias: delta, added to the logits of green tokens.
        key: secret.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value of another type, or out of range.
    """

    ratio: float = 0.5
    bias: float = 2.0
    key: int = 15485863

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        green = self.is_green(torch.arange(logits.shape[-1], device=logits.device))
        return torch.where(green, logits + self.bias, logits)

    def detect(
        self,
        tokens: TokenIds,
        prompt_length: int = 0,
        *,
        ignore_repeated_ngrams: bool = True,
        z_threshold: float = 3.0,
    ) -> GreenDetection:
        """Counts the green tokens of a text.

        Args:
            tokens: ids of the text.
            prompt_length: the first so many tokens are not scored.
            ignore_repeated_ngrams: score each different token once. Without it a frequent token that happens
                to be green decides, so that the z-score of text without a watermark is not standard normal.
            z_threshold: the z-score above which a text is called watermarked.

        Raises:
            ArgumentTypeError, ArgumentValueError: not ids, or none.
        """
        check_flags(ignore_repeated_ngrams=ignore_repeated_ngrams)
        windows = windows_of(tokens, 1, prompt_length)
        windows = distinct(windows) if ignore_repeated_ngrams else windows
        return self._detection(self.is_green(windows[:, 0]), z_threshold)

    def is_green(self, tokens: Tensor) -> Tensor:
        """Whether each token is green: (N,) -> (N,) bool."""
        keys = hashing.context_keys(self.key, tokens.new_zeros(1, 0))
        return hashing.hashes(keys, tokens[None])[0] < self._limit
