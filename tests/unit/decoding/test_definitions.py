"""Processors and order presets against a few lines of numpy from their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.decoding import (
    AllowedTokens,
    AveragedXTC,
    BadWords,
    BeginSuppressTokens,
    Chain,
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
    LogitBias,
    MinLength,
    MinNewTokens,
    MinP,
    NoRepeatNGram,
    PLess,
    PresencePenalty,
    RelativeFrequencyPenalty,
    RepetitionPenalty,
    Sample,
    SequenceBias,
    Skew,
    Smoothing,
    SuppressTokens,
    TailFree,
    Temperature,
    TopA,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    Typical,
)
from minitx.decoding.presets.orders import ORDERS
from tests.unit.decoding import definitions as d
from tests.unit.decoding.histories import history, logits_of

SIZE = 12
ROWS = [[1, 2, 3, 1, 2, 2], [5, 5, 5, 5], [0, 1, 0, 1, 0, 1, 0], [7, 8]]
PROMPT = [3, 2, 1, 2]
LOGITS = logits_of("random", 4, SIZE).double()
CONTEXT = history(ROWS, PROMPT, eos=(3, 7), max_new_tokens=4)


def check(ours: Tensor, expected: list[d.Array]) -> None:
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours.numpy(), np.stack(expected), rtol=1e-12, atol=1e-12)


def check_rows(processor: Any, definition: Any) -> None:
    """`definition(z, tokens, output)` gives one row."""
    rows = zip(LOGITS.numpy(), ROWS, PROMPT, strict=True)
    check(processor(LOGITS, CONTEXT), [definition(z, row, row[n:]) for z, row, n in rows])


FILTERS = [
    (Temperature, d.temperature, (0.3, 2.0)),
    (TopK, d.top_k, (1, 3, 12, 40)),
    (TopP, d.top_p, (0.01, 0.3, 0.7, 0.99)),
    (MinP, d.min_p, (0.01, 0.3, 1.0)),
    (Typical, d.typical_p, (0.1, 0.5, 0.95)),
    (Epsilon, d.epsilon_cutoff, (3e-4, 0.05, 0.9)),
    (Eta, d.eta_cutoff, (3e-4, 0.05, 0.9)),
    (TopH, d.top_h, (0.1, 0.5, 0.9)),
    (TopNSigma, d.top_n_sigma, (0.1, 0.5, 1.0, 2.0)),
    (TopA, d.top_a, (0.1, 0.5, 1.0)),
    (TailFree, d.tail_free, (0.1, 0.5, 0.95)),
]


@pytest.mark.parametrize(
    ("made", "definition", "value"),
    [(made, definition, value) for made, definition, values in FILTERS for value in values],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_filters(made: Any, definition: Any, value: float) -> None:
    check_rows(made(value), lambda z, _, __: definition(z, value))


BANNED = LOGITS.masked_fill(
    torch.rand(LOGITS.shape, generator=torch.Generator().manual_seed(5)) < 0.3, -torch.inf
)


@pytest.mark.parametrize("logits", [LOGITS, BANNED, LOGITS * 0.05, LOGITS * 20], ids=str)
def test_shapes_and_thresholds(logits: Tensor) -> None:
    """As probabilities: a shift of all logits changes nothing."""

    def equal(processor: Any, definition: Any) -> None:
        ours = processor(logits, CONTEXT).softmax(-1).numpy()
        expected = np.stack([d.softmax(definition(z)) for z in logits.numpy()])
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)

    equal(PLess(1.0), d.p_less)
    for share, threshold in ((0.5, 0.1), (1.0, 0.05), (0.2, 0.3)):
        equal(AveragedXTC(share, threshold), lambda z, a=share, b=threshold: d.averaged_xtc(z, a, b))
    for low, high, exponent in ((0.5, 1.5, 1.0), (0.2, 0.9, 2.0), (1.0, 1.0, 1.0)):
        definition = lambda z, a=low, b=high, c=exponent: d.dynamic_temperature(z, a, b, c)  # noqa: E731
        equal(DynamicTemperature(low, high, exponent), definition)
    for t, theta in ((1.0, 0.5), (0.7, 0.0), (1.5, 0.01)):
        equal(EntropyTemperature(t, theta), lambda z, a=t, b=theta: d.entropy_temperature(z, a, b))
    for factor, curve in ((0.3, 1.0), (0.1, 2.0), (1.0, 3.0)):
        equal(Smoothing(factor, curve), lambda z, a=factor, b=curve: d.smoothing(z, a, b))
    for value in (-1.0, 0.3, 2.0):
        equal(Skew(value), lambda z, s=value: d.skew(z, s))
    equal(Entmax(2.0), d.sparsemax)
    equal(Entmax(1.5), d.entmax15)


def test_the_average_of_xtc_is_that_of_its_coin() -> None:
    """(1 - x) p + x p_cut; and the wrong mixture, of logits, is another."""
    z = LOGITS[:1] / 3
    p, cut = z.softmax(-1), AveragedXTC(1.0, 0.1)(z, CONTEXT).softmax(-1)
    assert int((cut == 0).sum()) >= 1
    mixed = AveragedXTC(0.3, 0.1)(z, CONTEXT).softmax(-1)
    torch.testing.assert_close(mixed, 0.7 * p + 0.3 * cut, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [4097, 20000])
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("value", [0.05, 0.5, 0.95])
def test_search_of_a_large_vocabulary(size: int, spread: float, value: float) -> None:
    """In float64 the searched sets are those of the definition, whether they have one token or nearly all."""
    logits = logits_of("random", 3, size).double() * spread / 3
    logits[1, ::3] = -torch.inf
    logits[2] -= 1e6
    empty = history([[0]] * 3)
    check(TopP(value)(logits, empty), [d.top_p(z, value) for z in logits.numpy()])
    check(Typical(value)(logits, empty), [d.typical_p(z, value) for z in logits.numpy()])


@pytest.mark.parametrize("kind", ["ties", "some ties"])
def test_search_is_sorting(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal logits the same are kept, whether all are sorted or only those in question."""
    logits, empty = logits_of(kind, 3, 5000), history([[0]] * 3)
    for processor in (TopP(0.4), TopP([0.1, 0.9, 1.0]), Typical(0.4), Typical([0.1, 1.0, 0.9])):
        searched = processor(logits, empty)
        with monkeypatch.context() as patch:
            patch.setattr("minitx.decoding.processors.truncation._SORTABLE", 10**6)
            assert torch.equal(searched, processor(logits, empty))


def test_openai_penalties_count_the_output() -> None:
    chain = Chain(FrequencyPenalty(0.7), PresencePenalty(-0.4))
    check_rows(chain, lambda z, _, output: d.openai_penalties(z, 0.7, -0.4, output))


@pytest.mark.parametrize("scope", ["all", "output", 1, 3, 100])
def test_scopes(scope: Any) -> None:
    def counted(row: list[int], output: list[int]) -> list[int]:
        return {"all": row, "output": output}.get(scope) if isinstance(scope, str) else row[-scope:]

    check_rows(
        RepetitionPenalty(1.4, scope), lambda z, row, out: d.repetition_penalty(z, 1.4, counted(row, out))
    )
    check_rows(
        FrequencyPenalty(0.5, scope), lambda z, row, out: d.openai_penalties(z, 0.5, 0, counted(row, out))
    )
    check_rows(
        PresencePenalty(0.5, scope), lambda z, row, out: d.openai_penalties(z, 0, 0.5, counted(row, out))
    )
    check_rows(
        RelativeFrequencyPenalty(3.0, scope),
        lambda z, row, out: d.relative_frequency_penalty(z, 3.0, counted(row, out)),
    )


@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_penalty_window(window: int) -> None:
    """All four penalties, in the order of the fields, on the last tokens of prompt and output."""
    fields = {"repetition_penalty": 1.4, "frequency_penalty": 0.5, "presence_penalty": 0.3}
    strategy = Sample(**fields, relative_frequency_penalty=2.0, penalty_window=window)

    def definition(z: d.Array, row: list[int], _: list[int]) -> d.Array:
        seen = row[-window:]
        z = d.openai_penalties(d.repetition_penalty(z, 1.4, seen), 0.5, 0.3, seen)
        return d.relative_frequency_penalty(z, 2.0, seen)

    check_rows(strategy.build(), definition)
    assert Sample(penalty_window=window).build() == Chain()
    names = [RepetitionPenalty(1.4, window), FrequencyPenalty(0.5, window), PresencePenalty(0.3, window)]
    assert strategy.build() == Chain(*names, RelativeFrequencyPenalty(2.0, window))


def test_a_window_is_at_least_one_token() -> None:
    for fields in ({}, *({"repetition_penalty": 1.2, "order": order} for order in ORDERS)):
        with pytest.raises(ValueError, match=r"penalty_window=0 must be at least 1; the last N tokens"):
            Sample(penalty_window=0, **fields)
        with pytest.raises(TypeError, match=r"penalty_window='all' must be an integer"):
            Sample(penalty_window="all", **fields)


def test_default_scopes() -> None:
    """Repetition counts the prompt too (CTRL, transformers); OpenAI's two the output alone."""
    assert RelativeFrequencyPenalty(1.0) == RelativeFrequencyPenalty(1.0, scope="all")
    assert RepetitionPenalty(1.2) == RepetitionPenalty(1.2, scope="all")
    assert PresencePenalty(1.0) == PresencePenalty(1.0, scope="output")
    assert FrequencyPenalty(1.0) == FrequencyPenalty(1.0, scope="output")


def test_source_of_a_decoder_is_the_prompt() -> None:
    prompts = [row[:n] for row, n in zip(ROWS, PROMPT, strict=True)]
    rows = list(zip(LOGITS.numpy(), ROWS, prompts, strict=True))
    check(
        EncoderRepetitionPenalty(1.5)(LOGITS, CONTEXT),
        [d.repetition_penalty(z, 1 / 1.5, prompt) for z, _, prompt in rows],
    )
    check(
        EncoderNoRepeatNGram(2)(LOGITS, CONTEXT),
        [d.without(z, d.completing(d.ngrams(prompt, 2), row)) for z, row, prompt in rows],
    )


def test_source_of_an_encoder_has_its_own_lengths() -> None:
    source = [[9, 2], [5], [0, 4, 0, 6, 1], [8, 8, 8]]
    context = history(ROWS, PROMPT, encoder=source)
    rows = list(zip(LOGITS.numpy(), ROWS, source, strict=True))
    for n in (1, 2, 3):
        expected = [d.without(z, d.completing(d.ngrams(text, n), row)) for z, row, text in rows]
        check(EncoderNoRepeatNGram(n)(LOGITS, context), expected)
    expected = [d.repetition_penalty(z, 1 / 0.7, text) for z, _, text in rows]
    check(EncoderRepetitionPenalty(0.7)(LOGITS, context), expected)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 9])
def test_no_repeat_ngram(n: int) -> None:
    def definition(z: d.Array, row: list[int], _: list[int]) -> d.Array:
        return d.without(z, d.completing(d.ngrams(row, n), row) if n else [])

    check_rows(NoRepeatNGram(n), definition)


SEQUENCES = {(1,): 0.5, (1, 2, 2): 1.0, (2, 2, 4): -2.0, (2, 4): 3.0, (5, 5, 5, 5, 5): 1.5, (7, 8, 9): -0.5}


def test_sequence_bias_and_bad_words() -> None:
    def biased(z: d.Array, row: list[int], _: list[int]) -> d.Array:
        for sequence, bias in SEQUENCES.items():
            z = d.logit_bias(z, dict.fromkeys(d.completing([list(sequence)], row), bias))
        return z

    check_rows(SequenceBias(SEQUENCES), biased)
    words = [*(list(sequence) for sequence in SEQUENCES), [3], [1, 3]]  # 3 ends texts, so it stays
    check_rows(
        BadWords(words), lambda z, row, _: d.without(z, d.completing([w for w in words if w != [3]], row))
    )


def test_biases_and_bans_of_single_tokens() -> None:
    bias = {2: 1.5, 9: -100.0, 11: 100}
    check_rows(LogitBias(bias), lambda z, _, __: d.logit_bias(z, bias))
    check_rows(AllowedTokens([4, 0, 4]), lambda z, _, __: d.keep(z, [0, 4]))
    check_rows(SuppressTokens([4, 0]), lambda z, _, __: d.without(z, [0, 4]))


def test_minimum_lengths() -> None:
    check_rows(MinLength(5), lambda z, row, _: d.without(z, [3, 7]) if len(row) < 5 else z)
    check_rows(MinNewTokens(3), lambda z, _, output: d.without(z, [3, 7]) if len(output) < 3 else z)


def test_first_and_last_tokens() -> None:
    def forced(z: d.Array, ids: list[int]) -> d.Array:
        return d.keep(np.zeros_like(z), ids)

    check_rows(BeginSuppressTokens([1]), lambda z, _, output: z if output else d.without(z, [1]))
    check_rows(ForcedEos([3, 4]), lambda z, _, output: forced(z, [3, 4]) if len(output) == 3 else z)
    context = history([[2], [2, 3], [2, 3]], [1, 1, 2])
    rows = LOGITS[:3].numpy()
    check(ForcedBos(5)(LOGITS[:3], context), [forced(rows[0], [5]), rows[1], rows[2]])
    # Behind a forced first token it is the second that begins the text.
    ours = BeginSuppressTokens([1], after_forced_bos=True)(LOGITS[:3], context)
    check(ours, [rows[0], d.without(rows[1], [1]), d.without(rows[2], [1])])


def test_exponential_decay() -> None:
    def definition(z: d.Array, _: list[int], output: list[int]) -> d.Array:
        over = max(0, len(output) - 2)
        return d.logit_bias(z, {i: abs(z[i]) * (1.3**over - 1) for i in (3, 7)})

    check_rows(ExponentialDecayLength(2, 1.3), definition)


def test_exponential_decay_stays_finite() -> None:
    context = history([[0] * 5000], 1, eos=(1,))
    ours = ExponentialDecayLength(0, 2.0)(torch.tensor([[3.0, -2.0]]), context)
    assert ours.isfinite().all()
    assert ours.argmax() == 1


# --- presets -------------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {
    "logit_bias": {2: 1.5, 4: -3.0},
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.3,
    "presence_penalty": 0.4,
    "bad_words_ids": [[6], [2, 5]],
    "allowed_token_ids": [0, 1, 2, 3, 4, 5, 6, 7, 9, 11],
    "temperature": 1.7,
    "top_k": 7,
    "top_p": 0.9,
    "min_p": 0.03,
}


def penalised(z: d.Array, row: list[int], output: list[int]) -> d.Array:
    z = d.repetition_penalty(z, FIELDS["repetition_penalty"], row)
    return d.openai_penalties(z, FIELDS["frequency_penalty"], FIELDS["presence_penalty"], output)


def banned(z: d.Array, row: list[int], output: list[int], min_new_tokens: int) -> d.Array:
    z = d.keep(z, [i for i in FIELDS["allowed_token_ids"] if z[i] > -np.inf])
    z = d.without(z, d.completing(FIELDS["bad_words_ids"], row))
    return d.without(z, [3, 7]) if len(output) < min_new_tokens else z


def test_vllm_order() -> None:
    def definition(z: d.Array, row: list[int], output: list[int]) -> d.Array:
        z = penalised(d.logit_bias(banned(z, row, output, 2), FIELDS["logit_bias"]), row, output)
        return d.top_p(d.top_k(d.min_p(d.temperature(z, 1.7), 0.03), 7), 0.9)

    check_rows(Sample(order="vllm", **FIELDS).build(min_new_tokens=2), definition)


def test_llama_cpp_order() -> None:
    def definition(z: d.Array, row: list[int], output: list[int]) -> d.Array:
        z = banned(penalised(d.logit_bias(z, FIELDS["logit_bias"]), row, output), row, output, 2)
        z = d.min_p(d.top_p(d.typical_p(d.top_k(z, 7), 0.95), 0.9), 0.03)
        return d.temperature(z, 1.7)

    check_rows(Sample(order="llama.cpp", typical_p=0.95, **FIELDS).build(min_new_tokens=2), definition)


def test_what_the_order_decides() -> None:
    """A high temperature first lets more tokens into the nucleus; last, it leaves the nucleus alone."""
    kept = {
        (order, t): int(
            (Sample(order=order, temperature=t, top_p=0.7).build()(LOGITS, CONTEXT)[0] > -torch.inf).sum()
        )
        for order in ("transformers", "vllm", "llama.cpp")
        for t in (1.0, 4.0)
    }
    assert kept["transformers", 4.0] == kept["vllm", 4.0] > kept["transformers", 1.0]
    assert kept["llama.cpp", 4.0] == kept["llama.cpp", 1.0] == kept["transformers", 1.0]


def test_min_p_stands_before_top_k_in_vllm_alone() -> None:
    names = {
        order: [
            type(p).__name__
            for p in Sample(order=order, top_k=3, min_p=0.1, temperature=0.5).build().processors
        ]
        for order in ("transformers", "vllm", "llama.cpp")
    }
    assert names == {
        "transformers": ["Temperature", "TopK", "MinP"],
        "vllm": ["Temperature", "MinP", "TopK"],
        "llama.cpp": ["TopK", "MinP", "Temperature"],
    }
