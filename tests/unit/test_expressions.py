"""Strategies from text: literals and calls of public names, nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx import decoding
from minitx.pipelines import strategy_from_text
from minitx.pipelines.generation.expressions import constructors, evaluate

literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers(), inner),
    max_leaves=8,
)


@given(literals)
def test_literals_are_those_of_python(value: object) -> None:
    assert evaluate(repr(value), {}) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("greedy", minitx.Greedy()),
        (" Sample( top_p = 0.9, temperature=.5 ) ", minitx.Sample(top_p=0.9, temperature=0.5)),
        ("Sample(sequence_bias={(1, 2): -inf})", minitx.Sample(sequence_bias={(1, 2): -math.inf})),
        ("Sample(chain=Chain(TopP(0.9), Temperature(1.5)))",
         minitx.Sample(chain=decoding.Chain(decoding.TopP(0.9), decoding.Temperature(1.5)))),
        ("Sample.like('llama.cpp', top_k=7)", minitx.Sample.like("llama.cpp", top_k=7)),
        ("LexicalBeam(force_words_ids=[[5]])", minitx.LexicalBeam(force_words_ids=[[5]])),
    ],
)  # fmt: skip
def test_a_strategy(text: str, expected: decoding.Strategy) -> None:
    assert strategy_from_text(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not of the form"),
        ("Sample(", "not of the form"),
        ("(" * 5000, "not of the form"),
        ("[" * 20_000, "characters|not of the form"),
        ("Sampl()", "did you mean Sample"),
        ("__import__('os')", "there is no '__import__'"),
        ("Sample.build", "is not a number"),
        ("Sample.build()", "there is no 'Sample.build'"),
        ("Sample().build()", r"there is no 'Sample\(\).build'"),
        ("Sample.like('nobody')", "must be one of"),
        ("[x for x in ()]", "is not a number"),
        ("Sample(**{'top_p': 0.9})", "is not a number"),
        ("{**{1: 2}}", "is not a number"),
        ("Sample(top_k=3, top_k=4)", "not of the form"),
        ("1 + 1", "is not a number"),
        ("-True", "is not a number"),
        ("b''", "is not a number"),
        ("lambda: 0", "is not a number"),
        ("TopK(5)", "is not a strategy"),
        ("5", "is not a strategy"),
        ("Sample(top_p=1.2)", "top_p=1.2 must be in"),
    ],
)
def test_everything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strategy_from_text(text)


def test_a_wrong_field_is_named() -> None:
    with pytest.raises(TypeError, match=r"Sample has no field 'topp'.*top_p"):
        strategy_from_text("Sample(topp=1)")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TypeError, match="Speculative needs its field 'draft'"):
        strategy_from_text("Speculative()")
    with pytest.raises(ValueError, match=r'minitx.load\("gpt2"\) loads it'):
        strategy_from_text("Speculative(draft=DraftModel('gpt2'))")


def test_what_can_be_called_is_public() -> None:
    assert {"Sample", "Beam", "Chain", "TopK", "load"} <= constructors().keys()
    assert constructors().keys() <= {*decoding.__all__, "Sample.like", "load", "load_tokenizer"}
