"""Values that parameters may have, and what is said about those they may not."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from minitx import LexicalBeam, Stop
from minitx.decoding import (
    AllowedTokens,
    BadWords,
    BeginSuppressTokens,
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    Epsilon,
    Eta,
    ExponentialDecayLength,
    ForcedBos,
    ForcedEos,
    FrequencyPenalty,
    LogitBias,
    MinLength,
    MinNewTokens,
    MinP,
    NoRepeatNGram,
    PrefixAllowed,
    PrefixBias,
    PresencePenalty,
    RepetitionPenalty,
    Sample,
    SequenceBias,
    SuppressTokens,
    Temperature,
    ThinkingBudget,
    TopH,
    TopK,
    TopP,
    Typical,
)
from minitx.validation import ArgumentTypeError
from tests.unit.decoding.histories import history, logits_of

CONTEXT = history([[1, 2, 3], [2, 2]], 1, eos=(3,), max_new_tokens=3)
LOGITS = logits_of("random", 2, 6)


@pytest.mark.parametrize(
    ("make", "name", "low", "high"),
    [
        (Temperature, "temperature", "-0.1", "inf"),
        (TopP, "top_p", "0", "1.2"),
        (MinP, "min_p", "-0.1", "1.1"),
        (Typical, "typical_p", "0", "1.1"),
        (Epsilon, "epsilon_cutoff", "-0.1", "1"),
        (Eta, "eta_cutoff", "-0.1", "1"),
        (TopH, "top_h", "0", "1.1"),
        (RepetitionPenalty, "repetition_penalty", "0", "inf"),
        (EncoderRepetitionPenalty, "encoder_repetition_penalty", "0", "inf"),
        (PresencePenalty, "presence_penalty", "-2.1", "2.1"),
        (FrequencyPenalty, "frequency_penalty", "-2.1", "2.1"),
    ],
)
def test_numbers(make: Any, name: str, low: str, high: str) -> None:
    for wrong in (float(low), float(high), float("nan")):
        with pytest.raises(ValueError, match=re.escape(f"{name}={wrong} must be in ")):
            make(wrong)
        with pytest.raises(ValueError, match=re.escape(f"{name}[1]={wrong} must be in ")):
            make([0.5, wrong])
    for wrong in (True, "0.5", None, 0.5j, np.bool_(True)):
        with pytest.raises(TypeError, match=re.escape(f"{name}=") + ".* must be a number in"):
            make(wrong)
    with pytest.raises(TypeError, match=re.escape(f"{name}[0]=True must be a number")):
        make(torch.tensor([True, False]))
    for wrong in ([], [[0.5], [0.5]], torch.zeros(2, 2)):
        with pytest.raises(ValueError, match=f"{name}=.* must be one number, or a list of one per row"):
            make(wrong)
    # A whole number is a number, numpy's and torch's numbers are numbers, and lists of all these are lists.
    assert make(1 - 1e-9) == make(np.float64(1 - 1e-9))
    assert make(0.5) == make(np.float32(0.5)) == make(torch.tensor(0.5))
    assert (
        make([0.5, 0.25])
        == make((0.5, 0.25))
        == make(np.array([0.5, 0.25]))
        == make(torch.tensor([0.5, 0.25]))
    )
    with pytest.raises(ValueError, match=f"{name}=.* for each of the 2 rows; it has 3 values"):
        make([0.5] * 3)(LOGITS, CONTEXT)


def test_numbers_that_are_too_large() -> None:
    with pytest.raises(ValueError, match=r"temperature=1000.*\.\.\. must be in \[0, inf\)"):
        Temperature(10**400)
    with pytest.raises(ValueError, match=r"top_p=-1000.*\.\.\. must be in \(0, 1\]"):
        TopP(-(10**400))
    for make in (TopK, MinLength, MinNewTokens):
        assert make(2**63 - 1)
        with pytest.raises(ValueError, match="=9223372036854775808 must be from 0 to 9223372036854775807"):
            make(2**63)
    decay = partial(ExponentialDecayLength, factor=1.5)
    makers: list[Any] = [NoRepeatNGram, EncoderNoRepeatNGram, decay]
    for make in makers:
        assert make(2**63 - 1)(LOGITS, CONTEXT) is not None
        with pytest.raises(ValueError, match="=9223372036854775808 must be from 0 to 9223372036854775807"):
            make(2**63)


@pytest.mark.parametrize(
    "field",
    [
        {"allowed_token_ids": [10**20]},
        {"suppress_tokens": [1, 10**20]},
        {"begin_suppress_tokens": [10**20]},
        {"bad_words_ids": [[10**20]]},
        {"sequence_bias": {(1, 10**20): 1.0}},
        {"logit_bias": {10**20: 1.0}},
        {"forced_bos_token_id": 10**20},
        {"forced_eos_token_id": [10**20]},
    ],
    ids=str,
)
def test_token_ids_that_are_too_large(field: Any) -> None:
    message = f"{next(iter(field))}.*={10**20} must be from 0 to {2**63 - 1}; it is a token id"
    with pytest.raises(ValueError, match=message):
        Sample(**field)


def test_a_whole_number_is_a_number() -> None:
    assert Temperature(2) == Temperature(2.0)
    assert TopP(1) == TopP(1.0)
    assert Temperature(np.int64(2)) == Temperature(2.0)


def test_the_error_tells_what_to_choose() -> None:
    with pytest.raises(ValueError, match=r"^top_p=1\.2 must be in \(0, 1\]; 1\.0 keeps every token\.$"):
        TopP(1.2)
    with pytest.raises(
        TypeError, match=r"^top_k=None must be an integer of at least 0; 0 keeps every token\.$"
    ):
        TopK(None)


def test_temperature_0_is_greedy() -> None:
    for zero in (0, 0.0, torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"greedy decoding takes the most probable token"):
            Temperature(zero)
        with pytest.raises(ValueError, match=r"greedy decoding"):
            Sample(temperature=zero)
    assert Temperature([0, 1]) == Temperature((0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "name", "least"),
    [
        (TopK, "top_k", 0),
        (MinLength, "min_length", 0),
        (MinNewTokens, "min_new_tokens", 0),
        (NoRepeatNGram, "no_repeat_ngram_size", 0),
        (EncoderNoRepeatNGram, "encoder_no_repeat_ngram_size", 0),
    ],
)
def test_whole_numbers(make: Any, name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={least - 1} must be at least {least}"):
        make(least - 1)
    for wrong in (2.0, True, "2", None, float("nan")):
        with pytest.raises(TypeError, match=f"{name}=.* must be an integer of at least 0"):
            make(wrong)
    assert make(2) == make(np.int32(2)) == make(torch.tensor(2))


@pytest.mark.parametrize("make", [TopK, MinLength, MinNewTokens])
def test_whole_numbers_per_row(make: Any) -> None:
    assert make([1, 2]) == make(torch.tensor([1, 2])) == make(np.array([1, 2]))
    with pytest.raises(ValueError, match="for each of the 2 rows; it has 3 values"):
        make([1, 2, 3])(LOGITS, CONTEXT)
    with pytest.raises(TypeError, match=r"\[1\]=2.5 must be an integer"):
        make([1, 2.5])


@pytest.mark.parametrize("make", [NoRepeatNGram, EncoderNoRepeatNGram])
def test_the_size_of_ngrams_is_the_same_for_all_rows(make: Any) -> None:
    with pytest.raises(TypeError, match="one number for all rows"):
        make([1, 2])


TOKEN_LISTS = {
    "allowed_token_ids": AllowedTokens,
    "suppress_tokens": SuppressTokens,
    "begin_suppress_tokens": BeginSuppressTokens,
    "forced_eos_token_id": ForcedEos,
}


@pytest.mark.parametrize("name", TOKEN_LISTS)
def test_token_ids(name: str) -> None:
    make = TOKEN_LISTS[name]
    assert (
        make([1, 2])
        == make((1, 2))
        == make(torch.tensor([1, 2]))
        == make(np.array([1, 2]))
        == make(range(1, 3))
    )
    for wrong in ("12", 5, None):
        with pytest.raises(TypeError, match=f"{name}=.* must be a list of token ids"):
            make(wrong)
    for wrong in ([1, 2.0], [True], ["a"], [None], [[1]]):
        with pytest.raises(TypeError, match=name + r"\[\d\]=.* must be an integer of at least 0"):
            make(wrong)
    with pytest.raises(ValueError, match=name + r"\[1\]=-1 must be at least 0"):
        make([3, -1])
    with pytest.raises(ValueError, match=f"{name}=.* must be at least one token id"):
        make([])


OUTSIDE = {
    "allowed_token_ids": AllowedTokens([1, 6]),
    "suppress_tokens": SuppressTokens([6, 0]),
    "begin_suppress_tokens": BeginSuppressTokens([6]),
    "forced_bos_token_id": ForcedBos(6),
    "forced_eos_token_id": ForcedEos([6]),
    "logit_bias": LogitBias({6: 1.0}),
    "sequence_bias": SequenceBias({(6, 1): 1.0}),
    "prefix_allowed_tokens_fn": PrefixAllowed(lambda row, tokens: [6]),
    "bad_words_ids": BadWords([[1, 6]]),
    "prefix_bias": PrefixBias([1, 6], 0.5),
    r"ThinkingBudget\(end=...\)": ThinkingBudget(tokens=1, begin=1, end=[2, 6]),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_outside_the_vocabulary(name: str) -> None:
    message = "6 must be from 0 to 5; these are the ids of the model's vocabulary"
    with pytest.raises(ValueError, match=f"{name}={message}"):
        OUTSIDE[name](LOGITS, CONTEXT)


@pytest.mark.parametrize("processor", [MinLength(9), MinNewTokens(9), ExponentialDecayLength(0, 1.1)])
def test_end_tokens_outside_the_vocabulary(processor: Any) -> None:
    with pytest.raises(ValueError, match="eos=6 must be from 0 to 5"):
        processor(LOGITS, history([[1], [1]], eos=(6,)))


@pytest.mark.parametrize("processor", [MinLength(9), MinNewTokens(9), ExponentialDecayLength(0, 1.1)])
def test_without_end_tokens_there_is_nothing_to_do(processor: Any) -> None:
    assert torch.equal(processor(LOGITS, history([[1], [1]])), LOGITS)


def test_forced_eos_needs_a_limit() -> None:
    assert torch.equal(ForcedEos([3])(LOGITS, history([[1], [1]])), LOGITS)


def test_biases() -> None:
    with pytest.raises(ValueError, match=r"logit_bias\[5\]=101 must be in \[-100, 100\].*suppress_tokens"):
        LogitBias({5: 101})
    with pytest.raises(TypeError, match=r"logit_bias\[5\]=None must be a number"):
        LogitBias({5: None})
    with pytest.raises(ValueError, match=r"logit_bias=\{\} must be at least one bias"):
        LogitBias({})
    with pytest.raises(TypeError, match=r"logit_bias=\[1\] must be a dict such as \{464: -5\.0\}"):
        LogitBias([1])
    with pytest.raises(TypeError, match="a key of logit_bias='a' must be an integer"):
        LogitBias({"a": 1.0})
    assert LogitBias({np.int64(5): np.float32(0.5)}) == LogitBias({5: 0.5})

    with pytest.raises(ValueError, match=r"sequence_bias\[\(1, 2\)\]=inf must be in \[-inf, inf\)"):
        SequenceBias({(1, 2): float("inf")})
    with pytest.raises(ValueError, match="a key of sequence_bias=\\(\\) must be at least one token id"):
        SequenceBias({(): 1.0})
    with pytest.raises(TypeError, match=r"a key of sequence_bias=5 must be a list of token ids"):
        SequenceBias({5: 1.0})
    with pytest.raises(TypeError, match="sequence_bias=None must be a dict"):
        SequenceBias(None)
    assert SequenceBias({(1, 2): 1}) == SequenceBias({(1, 2): 1.0})


def test_bad_words() -> None:
    with pytest.raises(TypeError, match="bad_words_ids='damn' must be a list of lists"):
        BadWords("damn")
    with pytest.raises(TypeError, match=r"bad_words_ids\[0\]=5 must be a list of token ids"):
        BadWords([5])
    with pytest.raises(ValueError, match="bad_words_ids=\\[\\] must be at least one sequence"):
        BadWords([])
    with pytest.raises(ValueError, match=r"bad_words_ids\[0\]=\(\) must be at least one token id"):
        BadWords([[]])
    assert BadWords([[1, 2], [3]]) == BadWords(((1, 2), torch.tensor([3])))
    only_the_end = BadWords([[3]])
    assert torch.equal(only_the_end(LOGITS, CONTEXT), LOGITS)


@pytest.mark.parametrize("make", [RepetitionPenalty, PresencePenalty, FrequencyPenalty])
def test_scopes(make: Any) -> None:
    assert make(1.5, 4) == make(1.5, np.int64(4)) == make(1.5, torch.tensor(4))
    for wrong in ("prompt", 0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match=r'scope=.* must be "all" \(prompt and output\), "output", or'):
            make(1.5, wrong)


def test_exponential_decay() -> None:
    name = "exponential_decay_length_penalty"
    with pytest.raises(ValueError, match=rf"{name}\[0\]=-1 must be at least 0"):
        ExponentialDecayLength(-1, 1.1)
    with pytest.raises(ValueError, match=rf"{name}\[1\]=0 must be in \(0, inf\)"):
        ExponentialDecayLength(1, 0)
    with pytest.raises(TypeError, match=r"\[1\]=\[1.1, 1.2\] must be a number"):
        ExponentialDecayLength(1, [1.1, 1.2])


def test_prefix_function() -> None:
    with pytest.raises(TypeError, match=r"prefix_allowed_tokens_fn=\[1\] must be a function"):
        PrefixAllowed([1])
    nothing = PrefixAllowed(lambda row, tokens: [] if row else [1])(LOGITS, CONTEXT)
    assert (nothing > -torch.inf).sum(dim=-1).tolist() == [1, 0]
    with pytest.raises(TypeError, match="prefix_allowed_tokens_fn=None must be a list of token ids"):
        PrefixAllowed(lambda row, tokens: None)(LOGITS, CONTEXT)
    seen = []
    PrefixAllowed(lambda row, tokens: seen.append((row, tokens.tolist())) or torch.tensor([1]))(
        LOGITS, CONTEXT
    )
    assert seen == [(0, [1, 2, 3]), (1, [2, 2])]
    # What it allows comes, even if it was banned before: all the same, with the logit 0.
    banned = SuppressTokens([1, 2])(LOGITS, CONTEXT)
    left = PrefixAllowed(lambda row, tokens: [1, 2] if row else [2, 3])(banned, CONTEXT)
    assert left[1].tolist() == [-torch.inf, 0.0, 0.0, *[-torch.inf] * 3]
    assert left[0].tolist() == [*[-torch.inf] * 3, LOGITS[0, 3], *[-torch.inf] * 2]


@pytest.mark.parametrize("ids", [b"x", {1: float("nan")}])
@pytest.mark.parametrize(
    "make",
    [
        lambda ids: Sample(allowed_token_ids=ids),
        lambda ids: Sample(suppress_tokens=ids),
        lambda ids: Sample(forced_eos_token_id=ids),
        lambda ids: Sample(bad_words_ids=[ids]),
        lambda ids: LexicalBeam(force_words_ids=[ids]),
        lambda ids: Stop(eos=ids),
        lambda ids: Stop(tokens=ids),
    ],
)
def test_bytes_and_mappings_are_no_token_ids(make: Any, ids: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a list of token ids"):
        make(ids)
