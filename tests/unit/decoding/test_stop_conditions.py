"""A regex, a function, a repetition or the time ends rows; in samples, batches, streams and searches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.decoding import Jacobi, Lookahead, PromptLookup, Speculative
from minitx.decoding.generate import generate, stream
from minitx.decoding.output import Result
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.search.diverse import DiverseBeam
from minitx.decoding.search.stochastic import StochasticBeam
from minitx.decoding.text import stopping
from minitx.decoding.text.detokenize import Detokenizer
from minitx.decoding.text.row import REACH, RowText
from minitx.decoding.text.stopping import Stop, repeats
from tests.unit.decoding.searches import search, tiny
from tests.unit.decoding.searches import tokens as ids_of
from tests.unit.decoding.test_generate import MODEL, PROMPTS, TOKENIZER, model_of, scripted
from tests.unit.decoding.test_stop import first_stop, token

Run = tuple[list[str], int | None]


def run(tokens: list[int], regex: str, *strings: str, least: int = 0, include_stop: bool = False) -> Run:
    """The pieces given out, and how many tokens there were when a match ended the row (None: never)."""
    row = RowText(Detokenizer(TOKENIZER), strings, include_stop, re.compile(regex))
    pieces = []
    for count, each in enumerate(tokens, 1):
        piece, stopped = row.push(each, may_stop=count >= least)
        pieces.append(piece)
        if stopped:
            return pieces, count
    return [*pieces, row.finish()], None


def first_match(text: str, regex: str) -> tuple[int, int, int] | None:
    """The definition: of the growing text, where `re.search` finds the first match."""
    for end in range(1, len(text) + 1):
        match = re.compile(regex).search(text, max(0, end - REACH), end)
        if match is not None:
            return end, *match.span()
    return None


# A regex

parts = st.lists(
    st.sampled_from(["a", "b", "1", "22", "ab", "猫", "\n", "\n\n", ", ", "ing"]), min_size=1, max_size=14
)
regexes = st.sampled_from(
    [
        r"a+b",
        r"\d+",
        r"\d{3}",
        r"b|ab",
        r"(?<=a)b",
        r"a(?=b)",
        r"\n\S",
        r"^猫",
        r"(?m)^a",
        r"猫.",
        r"g$",
        r"\bb",
    ]
)


@given(parts, regexes, st.booleans(), st.booleans())
def test_the_text_ends_where_search_first_finds_a_match(
    parts: list[str], regex: str, include_stop: bool, by_bytes: bool
) -> None:
    """However the text falls into tokens."""
    characters = [bytes([byte]) for part in parts for byte in part.encode()]
    pieces = (
        characters if by_bytes else [c for p in parts for c in ([p.encode()] if p == "ing" else _bytes(p))]
    )
    tokens = [token(piece) for piece in pieces]
    text = "".join(parts)
    shown, ended = run(tokens, regex, include_stop=include_stop)
    match = first_match(text, regex)
    if match is None:
        assert "".join(shown) == text
        assert ended is None
        return
    complete, start, end = match
    assert "".join(shown) == text[: end if include_stop else start]
    lengths = [len(TOKENIZER.decode(tokens[:n]).rstrip("\ufffd")) for n in range(1, len(tokens) + 1)]
    assert ended == next(n for n, length in enumerate(lengths, 1) if length >= complete)


def _bytes(text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


def spelled(text: str) -> list[int]:
    return [token(byte) for byte in _bytes(text)]


def test_so_many_characters_wait_and_a_match_begins_in_them() -> None:
    pieces, _ = run(spelled("x" * 100), "yy")
    assert [len(piece) for piece in pieces] == [0] * REACH + [1] * (100 - REACH) + [REACH]
    assert run(spelled("a" + "x" * (REACH - 2) + "b"), "a.*b")[1] == REACH
    assert run(spelled("a" + "x" * (REACH - 1) + "b"), "a.*b")[1] is None
    # What begins nearer counts, and it may look behind at released text.
    assert run(spelled("a" + "x" * 80 + "aab"), "a[^b]*b")[1] == 84
    assert "".join(run(spelled("ax" + "y" * 80 + "z"), r"(?<!a)x|z")[0]) == "ax" + "y" * 80
    assert run(spelled("x" * 80 + "a"), "^a")[1] is None


def test_before_the_least_number_of_tokens_a_match_does_not_count() -> None:
    tokens = spelled("1a22b3")
    assert run(tokens, r"\d+", least=1) == ([""], 1)
    assert "".join(run(tokens, r"\d+", least=2)[0]) == "1a"
    assert "".join(run(tokens, r"\d\d", least=5)[0]) == "1a22b3"
    assert (
        "".join(run(spelled("aaaa"), "a+", least=3)[0]) == ""
    )  # the third counts, which continues the match
    assert "".join(run(spelled("abab"), "ab", least=3)[0]) == "ab"


@given(parts, st.sampled_from(["ab", "2\n", "1", "ing"]), st.sampled_from([r"b\n", "22", "猫", "gg"]))
def test_strings_and_regex_together(parts: list[str], string: str, regex: str) -> None:
    """The one that is complete first ends the row, as if both were strings."""
    text = "".join(parts)
    pieces, ended = run(spelled(text), regex, string)
    match = first_stop(text, (string, regex.replace(r"\n", "\n")))
    assert (ended is None) == (match is None)
    assert "".join(pieces) == (text if match is None else text[: match[0]])


def test_a_regex_ends_rows_of_every_strategy_alike() -> None:
    """A regex of one token's text, as the stop string."""
    for strategy in (Greedy(), Sample(), Beam(num_beams=3)):
        results = []
        for stop in (Stop(eos=(), regex="[ab]x|i"), Stop(eos=(), strings=["ax", "bx", "i"])):
            options: dict[str, Any] = {"seed": 3} if isinstance(strategy, Sample) else {}
            results.append(
                generate(
                    MODEL, PROMPTS, strategy, max_new_tokens=12, stop=stop, tokenizer=TOKENIZER, **options
                )
            )
        first, second = results
        assert ids_of(first) == ids_of(second)
        assert first.texts == second.texts
        assert first.finish_reasons == second.finish_reasons


def test_a_stream_gives_the_text_of_the_result() -> None:
    model = model_of(n_positions=128)
    script = scripted(spelled("one" + "." * 90 + "\nUser: 7"))
    options: dict[str, Any] = {"max_new_tokens": 101, "tokenizer": TOKENIZER}
    options["stop"] = Stop(regex=re.compile("^user:", re.I | re.M))
    result = generate(model, [[5]], Greedy(processors=[script]), **options)
    assert result.texts == ["one" + "." * 90 + "\n"]
    assert result.finish_reasons == ["stop"]
    events = [*stream(model, [[5]], Greedy(processors=[script]), **options)]
    assert "".join(event.text for event in events) == "one" + "." * 90 + "\n"
    assert events[-1].finish_reason == "stop"


# A function


def ends_with(*last: int) -> Callable[[int, list[int]], bool]:
    return lambda row, tokens: tokens[-1] in last


@pytest.mark.parametrize("strategy", [Greedy(), Sample(), Beam(num_beams=4)])
@pytest.mark.parametrize("least", [0, 3])
def test_a_function_ends_a_row_as_a_stop_token_does(strategy: Any, least: int) -> None:
    options: dict[str, Any] = {"num_samples": 3} if not isinstance(strategy, Greedy) else {}
    options |= {"seed": 1} if isinstance(strategy, Sample) else {}
    results: list[Result] = [
        generate(
            tiny(),
            [[3, 4], [2], [1, 2, 3]],
            strategy,
            max_new_tokens=6,
            min_new_tokens=least,
            stop=stop,
            **options,
        )
        for stop in (Stop(eos=(), tokens=2), Stop(eos=(), function=ends_with(2)))
    ]
    assert ids_of(results[0]) == ids_of(results[1])
    assert results[0].finish_reasons == results[1].finish_reasons
    assert results[0].scores == results[1].scores


def test_a_function_gets_the_row_and_its_tokens() -> None:
    calls = []

    def noted(row: int, tokens: list[int]) -> np.bool_:
        calls.append((row, tuple(tokens)))
        tokens.clear()  # a copy
        return np.bool_(row == 1 and len(calls) > 2)

    script = scripted([11, 12, 13], [21, 22, 23])
    strategy = Sample(processors=[script])
    stop = Stop(function=noted)
    result = generate(MODEL, [[5]], strategy, max_new_tokens=3, num_samples=2, seed=0, stop=stop)
    assert calls == [(0, (11,)), (1, (21,)), (0, (11, 12)), (1, (21, 22)), (0, (11, 12, 13))]
    assert result.finish_reasons == ["length", "stop"]


def test_a_function_of_a_search_gets_the_prompt() -> None:
    stop = Stop(eos=(), function=lambda row, tokens: row == 1 and len(tokens) == 2)
    result = search(Beam(num_beams=2), [(3, 4), (2,)], stop=stop, num_samples=2)
    assert [len(row) for row in result.sequences] == [3, 3, 2, 2]
    assert result.finish_reasons == ["length", "length", "stop", "stop"]


def test_functions_and_repetition_in_speculative_strategies() -> None:
    """They get the rows and tokens of greedy decoding."""
    calls: list[tuple[int, int]] = []

    def third(row: int, tokens: list[int]) -> bool:
        calls.append((row, len(tokens)))
        return row == 2 and len(tokens) == 3

    prompts, results = [[5, 7, 5, 7], [6], [5, 5, 5], [9, 8, 9]], []
    for strategy in (Greedy(), Speculative(target=Greedy(), draft=PromptLookup()), Jacobi(), Lookahead()):
        calls.clear()
        stop = Stop(eos=(), function=third, repetition=(2, 3))
        result = generate(MODEL, prompts, strategy, max_new_tokens=8, stop=stop)
        results.append((ids_of(result), result.finish_reasons, sorted(calls)))
    assert all(result == results[0] for result in results)


def test_what_a_function_may_not_return() -> None:
    for value in (None, 1, "yes"):
        stop = Stop(function=lambda row, tokens, value=value: value)  # type: ignore[misc]
        with pytest.raises(
            TypeError, match=r"Stop\(function=...\)=.* must be a function that returns True or"
        ):
            generate(MODEL, [[5]], Greedy(), max_new_tokens=2, stop=stop)


# Repetition


@given(st.lists(st.integers(0, 2), max_size=14), st.integers(1, 5), st.integers(2, 4))
def test_a_tail_that_repeats(tokens: list[int], length: int, times: int) -> None:
    patterns = (tokens[len(tokens) - size :] for size in range(1, length + 1) if size * times <= len(tokens))
    assert repeats(tokens, length, times) == any(
        tokens[len(tokens) - len(p) * times :] == p * times for p in patterns
    )


def test_a_repetition_ends_a_row() -> None:
    script = scripted([11, 12, 13, 12, 13, 12, 13, 14], [11, 11, 11, 12], [1, 2, 3, 4, 5, 6, 7, 8])
    strategy = Sample(processors=[script])
    options: dict[str, Any] = {"num_samples": 3, "seed": 0, "max_new_tokens": 8}
    result = generate(MODEL, [[12, 13]], strategy, stop=Stop(eos=(), repetition=(2, 3)), **options)
    assert [len(row) for row in result.sequences] == [7, 3, 8]
    assert result.finish_reasons == ["stop", "stop", "length"]
    later = generate(
        MODEL, [[12, 13]], strategy, stop=Stop(eos=(), repetition=[2, 3]), min_new_tokens=[1, 4, 1], **options
    )
    assert [len(row) for row in later.sequences] == [7, 6, 8]


def test_a_search_ends_hypotheses_that_repeat() -> None:
    result = search(
        Beam(num_beams=5), [(3, 4)], stop=Stop(eos=(), repetition=(1, 2)), num_samples=5, max_new_tokens=5
    )
    for row, reason in zip(ids_of(result), result.finish_reasons, strict=True):
        ends = next((n for n in range(1, 6) if repeats(row[:n], 1, 2)), None)
        assert (len(row), reason) == ((5, "length") if ends is None else (ends, "stop"))
    assert "stop" in result.finish_reasons


# Time


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is one second later each time; the list has the times that were read."""
    read: list[float] = []

    def clock() -> float:
        read.append(float(len(read)))
        return read[-1]

    monkeypatch.setattr(stopping, "clock", clock)
    return read


@pytest.mark.parametrize("seconds", [1, 2.5, 4])
def test_the_time_ends_every_row(ticks: list[float], seconds: float) -> None:
    script = scripted([11, 0, 0], [21, 22, 23, 24, 25], [31, 2, 2])
    strategy = Sample(processors=[script])
    options: dict[str, Any] = {"num_samples": 3, "seed": 0, "max_new_tokens": 5, "tokenizer": TOKENIZER}
    result = generate(MODEL, [[5]], strategy, stop=Stop(seconds=seconds, strings="zzzz"), **options)
    steps = int(np.ceil(seconds))
    assert [len(row) for row in result.sequences] == [steps, steps, min(steps, 2)]
    assert result.finish_reasons == ["time", "time", "eos" if steps > 1 else "time"]
    assert ticks == list(range(steps + 1))


def test_time_waits_for_min_new_tokens_and_text_is_whole(ticks: list[float]) -> None:
    script = scripted(spelled("one ab"), spelled("two ab"))
    strategy = Sample(processors=[script])
    stop = Stop(seconds=2, regex="q", strings="abc")
    result = generate(
        MODEL,
        [[5]],
        strategy,
        max_new_tokens=6,
        min_new_tokens=[1, 6],
        num_samples=2,
        seed=0,
        stop=stop,
        tokenizer=TOKENIZER,
    )
    assert result.texts == ["on", "two ab"]
    assert result.finish_reasons == ["time", "length"]


@pytest.mark.parametrize(
    "strategy", [Beam(num_beams=3), BeamSample(num_beams=3), StochasticBeam(num_beams=4)]
)
@pytest.mark.parametrize("seconds", [1, 3])
def test_a_search_ends_in_time(ticks: list[float], strategy: Any, seconds: int) -> None:
    """As with so many max_new_tokens."""
    prompts = [(3, 4), (1, 2, 3)]
    timed = search(strategy, prompts, max_new_tokens=6, stop=Stop(eos=0, seconds=seconds), num_samples=2)
    short = search(strategy, prompts, max_new_tokens=seconds, stop=Stop(eos=0), num_samples=2)
    assert ids_of(timed) == ids_of(short)
    assert timed.scores == short.scores
    reasons = ["time" if reason == "length" else reason for reason in short.finish_reasons]
    assert timed.finish_reasons == reasons
    assert "time" in reasons


def test_groups_end_in_time(ticks: list[float]) -> None:
    strategy = DiverseBeam(num_beams=4, num_beam_groups=2)
    timed = search(strategy, [(3, 4)], max_new_tokens=6, stop=Stop(eos=0, seconds=2), num_samples=4)
    assert max(map(len, ids_of(timed))) == 2
    assert "time" in timed.finish_reasons


def test_a_search_has_its_least_tokens_before_it_ends_in_time(ticks: list[float]) -> None:
    result = search(
        Beam(num_beams=3),
        [(3, 4), (2,)],
        max_new_tokens=6,
        min_new_tokens=[1, 4],
        stop=Stop(eos=(), seconds=1),
    )
    assert [len(row) for row in ids_of(result)] == [4, 4]


@pytest.mark.parametrize("strategy", [Speculative(target=Greedy(), draft=PromptLookup()), Jacobi()])
def test_blocks_of_tokens_end_in_time(ticks: list[float], strategy: Any) -> None:
    result = generate(MODEL, [[5, 7], [6]], strategy, max_new_tokens=40, stop=Stop(eos=(), seconds=9))
    assert result.finish_reasons == ["time", "time"]
    assert all(1 <= len(row) < 10 for row in result.sequences)


def test_without_a_limit_no_clock_is_read(ticks: list[float]) -> None:
    generate(MODEL, [[5]], Greedy(), max_new_tokens=3)
    assert ticks == []


# Refusals


def test_searches_that_see_no_rows_refuse() -> None:
    for stop, name in ((Stop(regex="a"), "regex"), (Stop(function=ends_with(2)), "function")):
        with pytest.raises(ValueError, match=rf"DiverseBeam\(...\) cannot stop at {name}, as Beam"):
            search(DiverseBeam(num_beams=2), [(3,)], stop=stop, tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="cannot stop at strings or repetition, as Beam"):
        search(
            StochasticBeam(num_beams=2),
            [(3,)],
            stop=Stop(strings="a", repetition=(1, 2)),
            tokenizer=TOKENIZER,
        )
    with pytest.raises(ValueError, match=r"LexicalBeam\(...\) cannot stop at seconds, .* phrases may be"):
        search(LexicalBeam(force_words_ids=[[2]]), [(3,)], stop=Stop(seconds=3))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"regex": 3}, TypeError, r"Stop\(regex=...\)=3 must be a string or a compiled pattern"),
        (
            {"regex": re.compile(b"a")},
            TypeError,
            "must be a string or a compiled pattern; several are one: a|b",
        ),
        ({"regex": "(a"}, ValueError, r"must be a regular expression of Python's re; missing \)"),
        (
            {"regex": "a*"},
            ValueError,
            r"Stop\(regex=...\)='a\*' must be a regular expression that does not match",
        ),
        ({"function": 3}, TypeError, r"Stop\(function=...\)=3 must be a function"),
        ({"repetition": 3}, TypeError, r"Stop\(repetition=...\)=3 must be two integers, \(length, times\)"),
        ({"repetition": (3,)}, TypeError, "must be two integers"),
        ({"repetition": (0, 2)}, ValueError, r"Stop\(repetition=...\)\[0\]=0 must be at least 1"),
        ({"repetition": (3, 1)}, ValueError, r"Stop\(repetition=...\)\[1\]=1 must be at least 2"),
        ({"repetition": (3.0, 2)}, TypeError, "must be an integer"),
        ({"seconds": 0}, ValueError, r"Stop\(seconds=...\)=0 must be"),
        ({"seconds": "1"}, TypeError, r"Stop\(seconds=...\)='1' must be"),
        ({"seconds": float("inf")}, ValueError, r"Stop\(seconds=...\)=inf must be"),
    ],
)
def test_what_is_no_condition(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Stop(**given)


def test_a_regex_needs_a_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"Stop\(regex='a'\) is searched in text, which needs tokenizer="):
        generate(MODEL, [[5]], Greedy(), max_new_tokens=3, stop=Stop(regex="a"))


def test_conditions_are_values() -> None:
    made = [
        Stop(regex="a+", repetition=[2, 3], seconds=1),
        Stop(regex=re.compile("a+"), repetition=(2, 3), seconds=1.0),
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 1
