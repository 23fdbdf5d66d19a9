"""Orders and default values of other libraries, against their documentation and against numpy."""

from __future__ import annotations

from typing import Any

import pytest

import minitx
from minitx.decoding import ArithmeticSample, BeamSample, Chain, Sample
from minitx.decoding.parameters import parameters_of
from minitx.decoding.presets.orders import LIKE, ORDERS
from tests.unit.decoding import definitions as d
from tests.unit.decoding.test_definitions import check_rows

# Class names of the chain of a Sample with all these fields, as the sources of the libraries have them.
FIELDS: dict[str, Any] = {
    "logit_bias": {1: 1.0},
    "repetition_penalty": 1.3,
    "frequency_penalty": 0.4,
    "presence_penalty": 0.3,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[4]],
    "suppress_tokens": [6],
    "dry": (0.8, 1.75, 1),
    "temperature": 1.7,
    "top_k": 9,
    "top_p": 0.9,
    "min_p": 0.02,
    "typical_p": 0.95,
}
SUMMARY = {
    "transformers": "bias rep freq pres dry ngram bad suppress T k p min typical",
    "vllm": "bad bias rep freq pres dry ngram suppress T min k p typical",
    "llama.cpp": "bias rep freq pres dry ngram bad suppress k typical p min T",
    "ollama": "bias rep freq pres dry ngram bad suppress k typical p min T",
    "mlx": "bias rep freq pres dry ngram bad suppress p min k typical T",
    "exllamav2": "rep freq pres bias dry ngram bad suppress T k p min typical",
    "sglang": "T bias rep freq pres dry ngram bad suppress k p min typical",
    "aphrodite": "dry bias rep freq pres ngram bad suppress T k p min typical",
    "ctranslate2": "rep ngram suppress bad bias freq pres dry k T p min typical",
    "tgi": "bias rep freq pres dry ngram bad suppress T k p typical min",
    "text-generation-webui": "bias rep freq pres dry bad suppress T k p typical min ngram",
}
SHORT = {
    "LogitBias": "bias",
    "RepetitionPenalty": "rep",
    "FrequencyPenalty": "freq",
    "PresencePenalty": "pres",
    "DRY": "dry",
    "NoRepeatNGram": "ngram",
    "BadWords": "bad",
    "SuppressTokens": "suppress",
    "Temperature": "T",
    "TopK": "k",
    "TopP": "p",
    "MinP": "min",
    "Typical": "typical",
}


def test_every_order_is_here() -> None:
    assert list(SUMMARY) == list(ORDERS)


@pytest.mark.parametrize("order", SUMMARY)
def test_the_chain_of_an_order(order: str) -> None:
    chain = Sample(**FIELDS, order=order).build().processors
    assert " ".join(SHORT[type(each).__name__] for each in chain) == SUMMARY[order]
    assert Sample(**FIELDS, order=order, renormalize_logits=True).build().processors[:-1] == chain


@pytest.mark.parametrize("order", SUMMARY)
def test_an_order_against_numpy(order: str) -> None:
    steps: dict[str, Any] = {
        "bias": lambda z, row, out: d.logit_bias(z, {1: 1.0}),
        "rep": lambda z, row, out: d.repetition_penalty(z, 1.3, row),
        "freq": lambda z, row, out: d.openai_penalties(z, 0.4, 0.0, out),
        "pres": lambda z, row, out: d.openai_penalties(z, 0.0, 0.3, out),
        "dry": lambda z, row, out: d.dry(z, row, 0.8, 1.75, 1),
        "ngram": lambda z, row, out: d.without(z, d.completing(d.ngrams(row, 3), row)),
        "bad": lambda z, row, out: d.without(z, [4]),
        "suppress": lambda z, row, out: d.without(z, [6]),
        "T": lambda z, row, out: d.temperature(z, 1.7),
        "k": lambda z, row, out: d.top_k(z, 9),
        "p": lambda z, row, out: d.top_p(z, 0.9),
        "min": lambda z, row, out: d.min_p(z, 0.02),
        "typical": lambda z, row, out: d.typical_p(z, 0.95),
    }

    def definition(z: d.Array, row: list[int], out: list[int]) -> d.Array:
        for name in SUMMARY[order].split():
            z = steps[name](z, row, out)
        return z

    check_rows(Sample(**FIELDS, order=order).build(), definition)


def test_where_the_new_fields_stand() -> None:
    def names(order: str, **fields: Any) -> list[str]:
        return [type(each).__name__ for each in Sample(**fields, order=order).build().processors]

    fields: dict[str, Any] = {"temperature": 0.5, "top_k": 3, "xtc": 0.5, "mirostat": 5, "skew": 0.1}
    assert names("transformers", **fields) == ["Temperature", "TopK", "Skew", "XTC", "Mirostat"]
    assert names("llama.cpp", **fields) == ["TopK", "XTC", "Skew", "Temperature", "Mirostat"]
    assert names("exllamav2", **fields) == ["Temperature", "TopK", "Mirostat", "XTC", "Skew"]
    adaptive = {"adaptive_p": 0.5, "temperature": 0.5, "smoothing": 0.3, "renormalize_logits": True}
    for order in ORDERS:
        assert names(order, **adaptive)[-2:] == ["AdaptiveP", "Renormalize"], order


# --- default values --------------------------------------------------------------------------------

EXPECTED: dict[str, Sample] = {
    "transformers": Sample(top_k=50),
    "vllm": Sample(order="vllm"),
    "llama.cpp": Sample(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, penalty_window=64, order="llama.cpp"
    ),
    "ollama": Sample(
        temperature=0.8, top_k=40, top_p=0.9, repetition_penalty=1.1, penalty_window=64, order="ollama"
    ),
    "exllamav2": Sample(temperature=0.8, top_k=50, top_p=0.8, repetition_penalty=1.025, order="exllamav2"),
    "text-generation-webui": Sample(penalty_window=1024, order="text-generation-webui"),
}


@pytest.mark.parametrize("library", EXPECTED)
def test_like_a_library(library: str) -> None:
    assert Sample.like(library) == EXPECTED[library]
    assert LIKE[library].keys() <= parameters_of(Sample).keys()
    assert EXPECTED.keys() == LIKE.keys()


def test_other_values_and_strategies() -> None:
    changed = Sample.like("llama.cpp", temperature=0.5, repetition_penalty=1.1)
    assert (changed.temperature, changed.top_k, changed.order) == (0.5, 40, "llama.cpp")
    names = [type(each).__name__ for each in changed.build().processors]
    assert names == ["RepetitionPenalty", "TopK", "TopP", "MinP", "Temperature"]
    assert changed.build().processors[0] == minitx.decoding.RepetitionPenalty(1.1, scope=64)
    for kind in (ArithmeticSample, BeamSample):
        assert type(kind.like("ollama")) is kind
        assert kind.like("ollama").top_p == 0.9
    assert Sample.like("vllm").build() == Chain()


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"library='gpt4all' must be one of 'transformers', 'vllm'"):
        Sample.like("gpt4all")
    with pytest.raises(TypeError, match=r"Sample has no field 'temp'"):
        Sample.like("ollama", temp=0.5)
    with pytest.raises(ValueError, match=r"order='hf' must be one of 'trans.*'text-generation-webui'"):
        Sample(order="hf")


def test_llama_cpp_by_hand() -> None:
    """The default chain of llama.cpp on logits, in numpy."""

    def definition(z: d.Array, row: list[int], out: list[int]) -> d.Array:
        return d.temperature(d.min_p(d.top_p(d.top_k(z, 40), 0.95), 0.05), 0.8)

    check_rows(Sample.like("llama.cpp").build(), definition)
