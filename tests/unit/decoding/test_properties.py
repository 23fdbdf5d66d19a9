"""What holds for every processor, whatever the logits."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minitx.decoding as decoding
from minitx.decoding import (
    DRY,
    KGW,
    XTC,
    AdaptiveP,
    AllowedTokens,
    AveragedXTC,
    BadWords,
    BeginSuppressTokens,
    Chain,
    Context,
    DynamicTemperature,
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    Entmax,
    EntropyTemperature,
    Epsilon,
    Eta,
    ExponentialDecayLength,
    ForcedBos,
    ForcedEos,
    FrequencyPenalty,
    Infill,
    LogitBias,
    MinLength,
    MinNewTokens,
    MinP,
    Mirostat,
    MirostatV1,
    NoRepeatNGram,
    PLess,
    PrefixAllowed,
    PrefixBias,
    PresencePenalty,
    RelativeFrequencyPenalty,
    RemoveInvalid,
    Renormalize,
    RepetitionPenalty,
    SequenceBias,
    Skew,
    Smoothing,
    SuppressTokens,
    SynthID,
    TailFree,
    Temperature,
    ThinkingBudget,
    TopA,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    Typical,
    Unigram,
)
from minitx.decoding.processors.base import LogitsProcessor
from tests.unit.decoding.histories import KINDS, history, logits_of
from tests.unit.decoding.vocabularies import byte_level

SIZE = 9
ROWS = [[1, 2, 3, 1, 2], [4, 4], [0, 1, 0, 1], [5]]
PROMPT = [3, 1, 4, 1]
KEYS = [3, 10**12, -7, 2**62]
SOURCE = [[1, 2, 5], [4], [6, 0, 1], [2, 5]]


def context_of(rows: list[int]) -> Context:
    """The histories above, of these rows."""
    chosen = [[part[row] for row in rows] for part in (ROWS, PROMPT, SOURCE)]
    return history(*chosen, eos=(3, 7), max_new_tokens=3, keys=torch.tensor([KEYS[row] for row in rows]))


ALL_ROWS = context_of([0, 1, 2, 3])


@dataclass(frozen=True)
class Numeric:
    """A processor with a number that may differ per row."""

    make: Any
    values: list[float]  # from weak to strong, for filters
    off: float | None  # the value that changes nothing
    filter: bool = False
    idempotent: bool = False


NUMERIC = {
    "temperature": Numeric(Temperature, [0.2, 0.9, 1.0, 2.5], 1.0),
    "top_k": Numeric(TopK, [9, 5, 2, 1], 0, filter=True, idempotent=True),
    "top_p": Numeric(TopP, [0.99, 0.7, 0.4, 1e-6], 1.0, filter=True),
    "min_p": Numeric(MinP, [0.01, 0.1, 0.5, 1.0], 0.0, filter=True, idempotent=True),
    "typical_p": Numeric(Typical, [0.99, 0.7, 0.4, 1e-6], 1.0, filter=True),
    "epsilon_cutoff": Numeric(Epsilon, [1e-3, 0.1, 0.4, 0.9], 0.0, filter=True, idempotent=True),
    "eta_cutoff": Numeric(Eta, [1e-3, 0.1, 0.4, 0.9], 0.0, filter=True),
    "top_h": Numeric(TopH, [0.99, 0.6, 0.2, 1e-3], None, filter=True),
    "top_n_sigma": Numeric(TopNSigma, [3.0, 1.0, 0.5, 0.01], 0.0, filter=True),
    "top_a": Numeric(TopA, [0.01, 0.1, 0.5, 1.0], 0.0, filter=True),
    "tfs": Numeric(TailFree, [0.99, 0.7, 0.4, 1e-6], 1.0, filter=True),
    "p_less": Numeric(PLess, [0.1, 0.5, 0.9, 1.0], 0.0, filter=True),
    "skew": Numeric(Skew, [-1.0, 0.0, 0.5, 2.0], 0.0),
    "entmax_alpha": Numeric(Entmax, [1.0, 1.3, 1.5, 2.0], 1.0),
    "repetition_penalty": Numeric(RepetitionPenalty, [0.5, 1.0, 1.3, 2.0], 1.0),
    "presence_penalty": Numeric(PresencePenalty, [-2.0, 0.0, 0.5, 2.0], 0.0),
    "frequency_penalty": Numeric(FrequencyPenalty, [-2.0, 0.0, 0.5, 2.0], 0.0),
    "relative_frequency_penalty": Numeric(RelativeFrequencyPenalty, [-2.0, 0.0, 0.5, 20.0], 0.0),
    "encoder_repetition_penalty": Numeric(EncoderRepetitionPenalty, [0.5, 1.0, 1.3, 2.0], 1.0),
    "min_length": Numeric(MinLength, [0, 3, 5, 9], 0),
    "min_new_tokens": Numeric(MinNewTokens, [0, 1, 2, 9], 0),
}
FILTERS = {name: numeric for name, numeric in NUMERIC.items() if numeric.filter}
OTHERS = {
    "no_repeat_ngram": NoRepeatNGram(2),
    "encoder_no_repeat_ngram": EncoderNoRepeatNGram(1),
    "sequence_bias": SequenceBias({(1,): 1.0, (1, 2, 3): -2.0}),
    "bad_words": BadWords([[1], [4, 4]]),
    "logit_bias": LogitBias({1: 1.0}),
    "allowed": AllowedTokens([1, 2, 3]),
    "suppress": SuppressTokens([1, 2]),
    "begin_suppress": BeginSuppressTokens([1, 2]),
    "forced_bos": ForcedBos(2),
    "forced_eos": ForcedEos([3]),
    "decay": ExponentialDecayLength(1, 1.5),
    "prefix": PrefixAllowed(lambda row, tokens: [int(tokens[-1]), 2]),
    "remove_invalid": RemoveInvalid(),
    "averaged_xtc": AveragedXTC(0.5, 0.1),
    "dynamic_temperature": DynamicTemperature(0.5, 1.5),
    "entropy_temperature": EntropyTemperature(1.0, 0.3),
    "smoothing": Smoothing(0.3, 2.0),
    "kgw": KGW(),
    "unigram": Unigram(),
    "synthid": SynthID(keys=[3, 5]),
    "xtc": XTC(0.5, 0.05),
    "mirostat": Mirostat(1.0),
    "mirostat_v1": MirostatV1(1.0),
    "adaptive_p": AdaptiveP(0.4),
    "dry": DRY(0.8, 1.75, 1, breakers=[3]),
    "renormalize": Renormalize(),
    "infill": Infill(byte_level()),
    "prefix_bias": PrefixBias([4, 1, 2], 0.4),
    "thinking_budget": ThinkingBudget(tokens=2, begin=[0], end=[5, 6]),
}
EVERY = {name: numeric.make(numeric.values[2]) for name, numeric in NUMERIC.items()} | OTHERS

RAISING = {
    "presence_penalty",
    "frequency_penalty",
    "relative_frequency_penalty",
    "sequence_bias",
    "logit_bias",
    "decay",
    "adaptive_p",
    "prefix_bias",
    "kgw",
    "unigram",
}

LOGITS = st.builds(logits_of, st.sampled_from(KINDS), st.just(4), st.just(SIZE), st.integers(0, 10**6))
FEW = settings(max_examples=40)


def bits(logits: Tensor) -> Tensor:
    """Equal bits, and not only equal numbers: 0.0 is not -0.0."""
    return logits.view(torch.int32)


def test_the_tables_have_every_processor() -> None:
    """A processor is a class of this package with a call, made for logits and a context."""
    public = [getattr(decoding, name) for name in decoding.__all__]
    calls = {cls: cls.__call__ for cls in public if isinstance(cls, type) and hasattr(cls, "__call__")}  # noqa: B004
    processors = {
        cls for cls, call in calls.items() if list(signature(call).parameters)[1:3] == ["logits", "context"]
    }
    others = {decoding.Processor, decoding.StatefulProcessor, Chain}
    assert processors - others == {type(processor) for processor in EVERY.values()}


@pytest.mark.parametrize("name", EVERY)
@given(logits=LOGITS, which=st.integers(0, 3))
@FEW
def test_what_stays_below_zero_does(name: str, logits: Tensor, which: int) -> None:
    """Searches believe it; and all that only ban or scale must say it, or "exact" would lose its bound."""
    values = NUMERIC[name].values if name in NUMERIC else []
    processor = NUMERIC[name].make(values[which % len(values)]) if values else EVERY[name]
    assert isinstance(processor, LogitsProcessor)
    below, above = logits - logits.amax(dim=-1, keepdim=True), logits + logits.abs().amax()
    after = processor(below, ALL_ROWS)
    if processor.keeps_log_probs_nonpositive(True):
        assert not (after > 0).any()
    else:
        assert name in RAISING
    if processor.keeps_log_probs_nonpositive(False):
        assert not (processor(above, ALL_ROWS) > 0).any()


@pytest.mark.parametrize("name", FILTERS)
@given(logits=LOGITS, which=st.integers(0, 3))
@FEW
def test_filters_keep_a_token_and_change_none(name: str, logits: Tensor, which: int) -> None:
    left = FILTERS[name].make(FILTERS[name].values[which])(logits, ALL_ROWS)
    kept = left > -torch.inf
    assert kept.any(dim=-1).all()
    assert (logits[kept] > -torch.inf).all(), "a banned token came back"
    assert torch.equal(bits(left)[kept], bits(logits)[kept])


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "typical_p"])
@given(logits=LOGITS, which=st.integers(0, 3))
@FEW
def test_filters_keep_the_most_probable_token(name: str, logits: Tensor, which: int) -> None:
    left = FILTERS[name].make(FILTERS[name].values[which])(logits, ALL_ROWS)
    assert torch.equal(left.amax(dim=-1), logits.amax(dim=-1))


@pytest.mark.parametrize("name", FILTERS)
@given(logits=LOGITS)
@FEW
def test_filters_are_monotone(name: str, logits: Tensor) -> None:
    """A stronger value keeps a subset."""
    kept = [FILTERS[name].make(value)(logits, ALL_ROWS) > -torch.inf for value in FILTERS[name].values]
    for weaker, stronger in pairwise(kept):
        assert (weaker | ~stronger).all()


@pytest.mark.parametrize("name", [name for name in FILTERS if FILTERS[name].idempotent])
@given(logits=LOGITS, which=st.integers(0, 3))
@FEW
def test_filters_twice_are_once(name: str, logits: Tensor, which: int) -> None:
    processor = FILTERS[name].make(FILTERS[name].values[which])
    once = processor(logits, ALL_ROWS)
    assert torch.equal(processor(once, ALL_ROWS), once)


@pytest.mark.parametrize("name", [*FILTERS, "temperature"])
@given(logits=LOGITS, shift=st.integers(-64, 64), which=st.integers(0, 3))
@FEW
def test_filters_do_not_see_a_shift(name: str, logits: Tensor, shift: int, which: int) -> None:
    """Adding the same to all logits changes no probability. In sixteenths, a shift rounds nothing."""
    logits = (logits * 16).round() / 16
    processor = NUMERIC[name].make(NUMERIC[name].values[which])
    kept = processor(logits, ALL_ROWS) > -torch.inf
    assert torch.equal(processor(logits + shift, ALL_ROWS) > -torch.inf, kept)


@pytest.mark.parametrize("name", [name for name in EVERY if getattr(EVERY[name], "elementwise", False)])
@given(seed=st.integers(0, 10**6), order=st.permutations(range(SIZE)))
@FEW
def test_token_blind_ones_do_not_see_the_order(name: str, seed: int, order: list[int]) -> None:
    """Where no two logits are equal."""
    logits = logits_of("random", 4, SIZE, seed)
    moved = EVERY[name](logits[:, order], ALL_ROWS)
    torch.testing.assert_close(moved, EVERY[name](logits, ALL_ROWS)[:, order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NUMERIC if NUMERIC[name].off is not None])
@given(logits=LOGITS)
@FEW
def test_off_is_the_identity(name: str, logits: Tensor) -> None:
    off = NUMERIC[name].off
    assert torch.equal(bits(NUMERIC[name].make(off)(logits, ALL_ROWS)), bits(logits))
    assert torch.equal(bits(NUMERIC[name].make([off] * 4)(logits, ALL_ROWS)), bits(logits))


@pytest.mark.parametrize("name", NUMERIC)
@given(logits=LOGITS, values=st.lists(st.integers(0, 4), min_size=4, max_size=4))
@FEW
def test_a_value_per_row_is_that_rows_value(name: str, logits: Tensor, values: list[int]) -> None:
    numeric = NUMERIC[name]
    choices = [*numeric.values, numeric.values[0] if numeric.off is None else numeric.off]
    chosen = torch.tensor([choices[value] for value in values])
    together = numeric.make(chosen)(logits, ALL_ROWS)
    for row, value in enumerate(chosen.tolist()):
        alone = numeric.make(value)(logits[row : row + 1], context_of([row]))
        assert torch.equal(bits(together[row : row + 1]), bits(alone))


@pytest.mark.parametrize("name", EVERY)
@given(logits=LOGITS)
@FEW
def test_rows_are_independent(name: str, logits: Tensor) -> None:
    """A row gets the same alone, in a batch and in another place of it, whatever junk lies behind its end."""
    together = EVERY[name](logits, ALL_ROWS)
    turned = EVERY[name](logits.flip(0), ALL_ROWS.select(torch.tensor([3, 2, 1, 0])))
    assert torch.equal(bits(turned.flip(0)), bits(together))
    for row in range(4):
        alone = EVERY[name](logits[row : row + 1], context_of([row]))
        assert torch.equal(bits(together[row : row + 1]), bits(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EVERY)
def test_the_argument_is_left_alone(name: str, dtype: torch.dtype) -> None:
    logits = logits_of("holes", 4, SIZE).to(dtype)
    before, tokens = logits.clone(), ALL_ROWS.tokens.clone()
    left = EVERY[name](logits, ALL_ROWS)
    assert torch.equal(logits, before)
    assert torch.equal(ALL_ROWS.tokens, tokens)
    assert left.dtype == dtype
    assert left.shape == logits.shape


@pytest.mark.parametrize(
    "name", sorted(EVERY.keys() - {"remove_invalid", "forced_bos", "forced_eos", "prefix", "thinking_budget"})
)
@given(logits=LOGITS)
@FEW
def test_only_what_must_come_is_revived(name: str, logits: Tensor) -> None:
    left = EVERY[name](logits, ALL_ROWS)
    assert (left[logits == -torch.inf] == -torch.inf).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
@given(logits=LOGITS)
@FEW
def test_temperature_0_is_a_greedy_row(temperature: float, logits: Tensor) -> None:
    left = Temperature([0.0, temperature, 1.0, 0.0])(logits, ALL_ROWS)
    for row in (0, 3):
        assert (left[row] > -torch.inf).nonzero().flatten().tolist() == [int(logits[row].argmax())]
        assert left[row].max() == logits[row].max()
    assert torch.equal(left[2], logits[2])
    assert (left[1] > -torch.inf).sum() == (1 if temperature == 0 else (logits[1] > -torch.inf).sum())


BLIND = [
    Temperature(0.7),
    Temperature([0.5, 0.0, 1.0, 2.0]),
    TopP(0.8),
    TopP([0.3, 1.0, 0.9, 0.5]),
    MinP(0.1),
    Typical(0.8),
    Epsilon(0.05),
    Eta(0.1),
    TopK(2),
    TopH(0.8),
]


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    k=st.sampled_from([1, 3, 4, [1, 4, 2, 3], [0, 1, 2, 3], 20]),
    rest=st.lists(st.sampled_from(BLIND), max_size=3),
)
@settings(max_examples=300)
def test_survivors_of_top_k_are_enough(kind: str, seed: int, k: Any, rest: list[Any]) -> None:
    """The chain goes on with the few tokens that top-k left; one after the other on all gives the same."""
    logits = logits_of(kind, 4, 40, seed)
    dense = logits
    for processor in (TopK(k), *rest):
        dense = processor(dense, ALL_ROWS)
    assert torch.equal(bits(Chain(TopK(k), *rest)(logits, ALL_ROWS)), bits(dense))
