"""SynthID: a tournament between tokens whose winner is drawn, layer by layer (Dathathri et al., Nature 2024).

In each of m layers every token has a keyed random bit g, and its probability becomes p (1 + g - E[g]), where
E[g] is the mean of g under p: two draws compete, and one with g = 1 wins. Over random bits the mean of the
result is p, so that a single token is drawn from the model's distribution. The bits depend on the n - 1
tokens before; a context that occurred already gives no bits anew, and its token is left as it is.

The hash, the table of bits and all choices are those of transformers, whose bits these are. B rows, V
vocabulary, n ngram_len, m keys, N windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size, set_frozen, to_plain
from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.context import Context
from minitx.decoding.watermark.base import (
    FINITE,
    TokenIds,
    Watermark,
    check_key,
    normal_tail,
    windows_of,
)
from minitx.validation import (
    ArgumentTypeError,
    Interval,
    check_flags,
    check_integer,
    check_number,
    check_shape,
)

_MULTIPLIER = 6364136223846793005  # of a linear congruential generator, as in newlib and musl
_LARGEST_TABLE = 2**24
_PRIOR = Interval(0, 1, open_low=True, open_high=True)


@dataclass(frozen=True, kw_only=True)
class SynthIDDetection:
    """The random bits of a text's tokens. It prints as a sentence.

    Attributes:
        num_tokens: T, the scored tokens: those after a complete context that did not occur before.
        mean: of all T m bits.
        weighted_mean: the same, with more weight on the first layers, which have more effect: from 10 to 1.
        expected: of both without a watermark; the mean of the table, about 0.5.
        z_score: the standard deviations that weighted_mean is above it.
        p_value: the probability of such a z_score without a watermark.
        z_threshold: above which z_score means a watermark.
    """

    num_tokens: int
    mean: float
    weighted_mean: float
    expected: float
    z_score: float
    p_value: float
    z_threshold: float

    @property
    def watermarked(self) -> bool:
        """Whether z_score is above the threshold."""
        return self.z_score > self.z_threshold

    def __repr__(self) -> str:
        """The means, the z-score, its p-value, and the answer."""
        means = f"mean {self.mean:.3f}, weighted {self.weighted_mean:.3f} (by chance {self.expected:.3f})"
        score = f"z = {self.z_score:.2f}, p = {self.p_value:.2g}"
        answer = "watermarked" if self.watermarked else "no watermark found"
        return f"{means} of {self.num_tokens} tokens: {score}, {answer}"


@dataclass(frozen=True, kw_only=True)
class SynthID(Watermark, LogitsProcessor):
    """Moves probability to tokens with keyed random bits, and leaves the distribution as it is on average.

    The result are log-probabilities, but for tokens after a repeated context, whose logits do not change. A
    context consists of generated tokens alone, with zeros before them, as in transformers. Other bits follow
    from other tables: the table is drawn on a CPU wherever the model runs.

    With `Sample` the text is drawn from the model's distribution, over random keys. With `Greedy` and
    searches it is not: they prefer tokens whose bits are 1.

    Args:
        keys: m secrets, one per layer; about 30.
        ngram_len: n, a token and the n - 1 before it, at least 2.
        context_history_size: the number of last contexts with which a repeated one is recognised.
        sampling_table_size: number of random bits, to which hashes are mapped; at most 2^24.
        sampling_table_seed: seed of these bits.
        skip_first_ngram_calls: leave the first n - 1 generated tokens as they are.

    Raises:
        ArgumentTypeError, ArgumentValueError: a value of another type, or out of range.
    """

    keys: Sequence[int]
    ngram_len: int = 5
    context_history_size: int = 1024
    sampling_table_size: int = 2**16
    sampling_table_seed: int = 0
    skip_first_ngram_calls: bool = False

    def __post_init__(self) -> None:
        keys = to_plain(self.keys)
        if not isinstance(keys, list | tuple) or not keys:
            raise ArgumentTypeError("keys", self.keys, "a list of at least one integer, one per layer")
        size = check_integer("sampling_table_size", self.sampling_table_size, 2, _LARGEST_TABLE)
        set_frozen(
            self,
            keys=tuple(check_key(f"keys[{index}]", key) for index, key in enumerate(keys)),
            ngram_len=check_size("ngram_len", self.ngram_len, 2, "a token and those before it"),
            context_history_size=check_size("context_history_size", self.context_history_size, 1),
            sampling_table_size=size,
            sampling_table_seed=check_key("sampling_table_seed", self.sampling_table_seed),
        )
        check_flags(skip_first_ngram_calls=self.skip_first_ngram_calls)

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V)."""
        width, place = self.ngram_len - 1, context.generated[:, None]
        contexts = lcg(torch.ones_like(place), _own_contexts(context, width))  # (B, steps)
        current = contexts.gather(1, place)
        steps = torch.arange(contexts.shape[1], device=contexts.device)
        first = width if self.skip_first_ngram_calls else 0
        earlier = (steps < place) & (steps >= place - self.context_history_size) & (steps >= first)
        unchanged = ((contexts == current) & earlier).any(dim=1, keepdim=True) | (place < first)
        tokens = torch.arange(logits.shape[-1], device=logits.device)
        ngrams = lcg(current, tokens[None, :, None])  # (B, V)
        layers = (self._bits(ngrams, key).to(logits.dtype) for key in self.keys)
        changed = tournament(logits.softmax(dim=-1), layers).log()
        # A probability that is 0 by rounding stays above that of a banned token.
        changed = changed.where(changed.isfinite(), torch.finfo(logits.dtype).min)
        return torch.where(unchanged | (logits == -torch.inf), logits, changed)

    def detect(
        self, tokens: TokenIds, prompt_length: int = 0, *, z_threshold: float = 3.0
    ) -> SynthIDDetection:
        """Averages the random bits of a text's tokens.

        Args:
            tokens: ids of the text, up to its end token.
            prompt_length: the first so many tokens are left out. The n - 1 tokens after them are context.
            z_threshold: the z-score above which a text is called watermarked.

        Raises:
            ArgumentTypeError, ArgumentValueError: not ids, or less than n after the prompt.
        """
        threshold = check_number("z_threshold", to_plain(z_threshold), FINITE)
        bits = self.g_values(tokens, prompt_length).double()
        number, depth = bits.shape
        weights = torch.linspace(10, 1, depth, dtype=torch.float64)
        weights /= weights.sum()
        expected = float(self._table(bits.device).double().mean())
        weighted = float((bits @ weights).mean())
        spread = (expected * (1 - expected) * float(weights.square().sum()) / number) ** 0.5
        z = (weighted - expected) / spread
        return SynthIDDetection(
            num_tokens=number,
            mean=float(bits.mean()),
            weighted_mean=weighted,
            expected=expected,
            z_score=z,
            p_value=normal_tail(z),
            z_threshold=threshold,
        )

    def posterior(
        self, tokens: TokenIds, prompt_length: int = 0, *, beta: Any, delta: Any, prior: float = 0.5
    ) -> float:
        """Returns the probability that a text is watermarked, by a trained model of its bits.

        In layer l of a watermarked text two different tokens compete with probability
        q = sigmoid(beta_l + sum of delta_lk g_k over earlier layers k < l), and then
        P(g_l) = ((g_l + 0.5) q + 1 - q) / 2 (supplement of the paper, Bayesian score). minitx trains no such
        model: beta and delta are the parameters of `BayesianDetectorModel` of transformers, fitted to
        watermarked and other texts of the language model in question.

        Args:
            tokens, prompt_length: as for `detect`.
            beta: (m,), or a list.
            delta: (m, m); only entries below the diagonal are used.
            prior: probability of a watermark before the text is seen, in (0, 1).

        Raises:
            ArgumentTypeError, ArgumentValueError: as `detect`, or parameters of another shape.
        """
        prior = check_number("prior", to_plain(prior), _PRIOR)
        depth = len(self.keys)
        beta, delta = (torch.as_tensor(value, dtype=torch.float64).cpu() for value in (beta, delta))
        check_shape("beta", beta, (depth,), like="keys")
        check_shape("delta", delta, (depth, depth), like="keys")
        bits = self.g_values(tokens, prompt_length).double()
        two = (bits @ delta.tril(-1).T + beta).sigmoid()
        odds = ((bits + 0.5) * two + 1 - two).log().sum()
        return float(torch.sigmoid(odds + torch.logit(torch.tensor(prior, dtype=torch.float64))))

    def g_values(self, tokens: TokenIds, prompt_length: int = 0) -> Tensor:
        """Returns the bits of the tokens after a complete context that is not repeated: (N, m) long.

        Args:
            tokens, prompt_length: as for `detect`.

        Raises:
            ArgumentTypeError, ArgumentValueError: as `detect`.
        """
        skipped = check_size("prompt_length", prompt_length, hint="tokens that are not scored")
        windows = windows_of(tokens, self.ngram_len, skipped + self.ngram_len - 1)
        ones = torch.ones(len(windows), dtype=torch.long)
        contexts = lcg(ones, windows[:, :-1])
        last: dict[int, int] = {}
        fresh = []
        for place, context in enumerate(contexts.tolist()):
            fresh.append(
                place - last.get(context, -self.context_history_size - 1) > self.context_history_size
            )
            last[context] = place
        ngrams = lcg(contexts, windows[:, -1:])[torch.tensor(fresh)]
        return torch.stack([self._bits(ngrams, key) for key in self.keys], dim=-1)

    def _table(self, device: torch.device) -> Tensor:
        return _random_bits(self.sampling_table_seed, self.sampling_table_size, device)

    def _bits(self, ngrams: Tensor, key: int) -> Tensor:
        """Returns the bits of hashed n-grams in the layer of a key, of the same shape."""
        places = ((ngrams + key) * _MULTIPLIER + 1) % self.sampling_table_size
        return self._table(ngrams.device)[places]


def lcg(state: Tensor, tokens: Tensor) -> Tensor:
    """Returns the hash after one token after the other: state, tokens (..., n) -> (...), 64 bits."""
    for token in tokens.unbind(dim=-1):
        state = (state + token) * _MULTIPLIER + 1
    return state


def tournament(probabilities: Tensor, layers: Iterable[Tensor]) -> Tensor:
    """Returns the distribution of the winner: (B, V), with bits (B, V) of the same dtype per layer."""
    for bits in layers:
        mean = (bits * probabilities).sum(dim=-1, keepdim=True)
        probabilities = probabilities * (1 + bits - mean)
    return probabilities


def _own_contexts(context: Context, width: int) -> Tensor:
    """Returns the generated tokens before each step, with zeros before the first: (B, steps, width)."""
    generated, start = context.generated, context.prompt_length
    # An accelerator would be waited for to know the last step.
    last = int(generated.max()) if generated.is_cpu else context.tokens.shape[1]
    steps = torch.arange(-width, last, device=start.device)  # of the tokens
    places = (start[:, None] + steps).clamp(min=0)
    if context.tokens.shape[1] == 0:
        return torch.zeros_like(places).unfold(1, width, 1)
    tokens = context.tokens.gather(1, places.clamp(max=context.tokens.shape[1] - 1))
    return tokens.masked_fill(steps < 0, 0).unfold(1, width, 1)


@lru_cache(maxsize=8)
def _random_bits(seed: int, size: int, device: torch.device) -> Tensor:
    """Returns the table, (size,) long on a device; drawn on the CPU, so that it is the same everywhere."""
    return torch.randint(2, (size,), generator=torch.Generator().manual_seed(seed)).to(device)
