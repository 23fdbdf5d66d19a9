"""Stop strings end a row wherever tokens begin and end; ids do so by themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minitx.decoding.text.detokenize import Detokenizer
from minitx.decoding.text.row import RowText
from minitx.decoding.text.stopping import Stop
from minitx.tokenizer import Tokenizer
from tests.unit.decoding.vocabularies import byte_characters, byte_level, word_piece

TOKENIZER = byte_level("ab", "bc", "abc", "aa", "aab", "b猫", "\n", ", ")
CHARACTERS = byte_characters()


def token(text: str | bytes) -> int:
    data = text.encode() if isinstance(text, str) else text
    found = TOKENIZER.token_to_id("".join(CHARACTERS[byte] for byte in data))
    assert found is not None
    return found


def run(
    tokens: list[int],
    strings: tuple[str, ...],
    *,
    least: int = 0,
    include_stop: bool = False,
    tokenizer: Tokenizer = TOKENIZER,
    prompt: list[int] | None = None,
) -> tuple[list[str], int | None]:
    """The pieces given out, and how many tokens there were when a stop string ended the row (None: never)."""
    row = RowText(Detokenizer(tokenizer, prompt or []), strings, include_stop)
    pieces = []
    for count, each in enumerate(tokens, 1):
        piece, stopped = row.push(each, may_stop=count >= least)
        pieces.append(piece)
        if stopped:
            return pieces, count
    return [*pieces, row.finish()], None


def first_stop(text: str, strings: tuple[str, ...], after: int = 0) -> tuple[int, int] | None:
    """The definition: of the matches that end behind `after`, the one that ends first, then the longest."""
    ends = range(after + 1, len(text) + 1)
    found = [(end, end - len(s)) for end in ends for s in strings if text[:end].endswith(s)]
    return (min(found)[1], min(found)[0]) if found else None


# Strings


texts = st.lists(
    st.sampled_from(["a", "b", "c", "ab", "bc", "abc", "aa", "aab", "b猫", "猫", "\n", "\n\n", ", ", "ing"]),
    max_size=14,
)
stops = st.lists(
    st.sampled_from(["a", "ab", "ba", "abcab", "aa", "aab", "aaaa", "猫", "b猫b", "\n\n", "gi", "猫\n"]),
    max_size=3,
)


@given(texts, stops, st.integers(0, 6), st.booleans(), st.booleans())
@example(["aa", "a", "a"], ["aa", "aaaa"], 2, False, False)
def test_the_text_ends_where_a_stop_string_begins(
    parts: list[str], strings: list[str], least: int, include_stop: bool, by_bytes: bool
) -> None:
    """The text is the same however it falls into tokens; before `least` tokens a match does not count."""
    tokens = [token(part) for part in parts if not by_bytes and part != "猫"]
    if by_bytes:
        tokens = [token(bytes([byte])) for part in parts for byte in part.encode()]
    stop = tuple(dict.fromkeys(strings))
    text = TOKENIZER.decode(tokens)
    # a match counts if the token that completes it does
    ignored = len(TOKENIZER.decode(tokens[: max(0, least - 1)]).rstrip("\ufffd"))
    match = first_stop(text, stop, ignored)
    pieces, ended = run(tokens, stop, least=least, include_stop=include_stop)
    if match is None:
        assert "".join(pieces) == text
        assert ended is None
        return
    start, end = match
    assert "".join(pieces) == text[: end if include_stop else start]
    lengths = [len(TOKENIZER.decode(tokens[:n]).rstrip("\ufffd")) for n in range(1, len(tokens) + 1)]
    assert ended == next(n for n, length in enumerate(lengths, 1) if length >= end)


def test_a_stop_string_across_tokens_is_cut_and_never_shown() -> None:
    tokens = [token(t) for t in ("a", "b", "c", "ab", "c", "a")]
    assert run(tokens, ("cabc",)) == (["a", "b", "", "", ""], 5)
    assert run(tokens, ("cabc",), include_stop=True) == (["a", "b", "", "", "cabc"], 5)
    assert run(tokens, ("cabx", "q")) == (["a", "b", "", "", "cab", "", "ca"], None)
    assert run(tokens, ("caxx", "cabcab")) == (["a", "b", "", "", "", "", "cabca"], None)


def test_the_stop_string_that_is_complete_first_counts() -> None:
    for tokens in (["abc"], ["ab", "c"], ["a", "bc"], ["a", "b", "c"]):
        ids = [token(t) for t in tokens]
        assert "".join(run(ids, ("abc", "b"))[0]) == "a"
        assert "".join(run(ids, ("bc", "abc"))[0]) == ""
        assert "".join(run(ids, ("bc", "abc"), include_stop=True)[0]) == "abc"


def test_the_prompt_is_not_searched() -> None:
    prompt = [token(t) for t in ("a", "b")]
    assert run([token("a")], ("b", "ba", "ab"), prompt=prompt) == (["", "a"], None)
    assert run([token("ab")], ("ba", "ab"), prompt=prompt) == ([""], 1)


def test_half_a_character_is_no_match() -> None:
    smile = [token(bytes([byte])) for byte in "🙂".encode()]
    assert run([token("a"), *smile], ("🙂",)) == (["a", "", "", "", ""], 5)
    assert run([token("a"), *smile[:2]], ("\ufffd",)) == (["a", "", "", "\ufffd"], None)


def test_before_the_least_number_of_tokens_nothing_stops() -> None:
    tokens = [token(t) for t in ("a", "b", "a", "b")]
    assert run(tokens, ("ab",), least=2) == (["", ""], 2)
    assert run(tokens, ("ab",), least=3) == (["", "ab", "", ""], 4)
    assert run(tokens, ("ab",), least=5) == (["", "ab", "", "ab", ""], None)
    assert run([token("a")] * 4, ("aaa",), least=4) == (["", "", "a", ""], 4)


@given(st.lists(st.sampled_from(["do", "n", "'", "t", "s", "cat", "##s", "."]), max_size=12), st.booleans())
def test_a_stop_string_in_text_that_is_tidied(words: list[str], lone: bool) -> None:
    """Tidying may change the end of a text; a match in what stands there now counts."""
    tokenizer = word_piece(tidy=True)
    tokens = [tokenizer.token_to_id(word) or 0 for word in words]
    strings = ("n't", "cat.") if lone else ("cats",)
    pieces, ended = run(tokens, strings, tokenizer=tokenizer)
    seen = tokenizer.decode(tokens[:ended])
    match = first_stop(seen, strings)
    assert (match is not None) == (ended is not None)
    assert "".join(pieces) == (seen if match is None else seen[: match[0]])


# Ids


def resolved(stop: Stop, **given: Any) -> Any:
    return stop.resolved(**{"end_tokens": (2, 900), "vocab_size": 300, "tokenizer": TOKENIZER, **given})


def test_end_tokens_are_the_checkpoints_unless_given() -> None:
    assert resolved(Stop()).eos == (2,)  # 900 is no token of this model
    assert resolved(Stop(eos=())).eos == ()
    assert resolved(Stop(eos=7)).eos == (7,)
    assert resolved(Stop(eos=[7, 8]), end_tokens=()).eos == (7, 8)
    assert resolved(Stop(eos=torch.tensor([7, 8]))).eos == (7, 8)
    assert resolved(Stop(tokens=np.int64(5))).tokens == {5}


def test_an_end_token_is_no_stop_token() -> None:
    """The reason is then "eos", whatever else names it."""
    assert resolved(Stop(tokens=(2, 5))).tokens == {5}
    assert resolved(Stop(eos=(), tokens=(2, 5))).tokens == {2, 5}


def test_a_stop_string_that_is_a_special_token_stops_by_its_id() -> None:
    pad = TOKENIZER.token_to_id("<pad>")
    made = resolved(Stop(strings=["<pad>", "\n", "</s>"]))
    assert made.tokens == {pad}
    assert made.strings == ("<pad>", "\n", "</s>")
    assert resolved(Stop(strings="<pad>\n")).tokens == frozenset()


def test_one_string_is_not_a_list_of_characters() -> None:
    assert Stop(strings="\n\n").strings == ("\n\n",)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"eos": -1}, ValueError, r"Stop\(eos=...\)\[0\]=-1 must be at least 0"),
        ({"eos": True}, TypeError, r"Stop\(eos=...\)\[0\]=True must be an integer"),
        ({"eos": 1.5}, TypeError, r"Stop\(eos=...\)"),
        ({"tokens": "a"}, TypeError, r"Stop\(tokens=...\)='a' must be a list of token ids"),
        ({"tokens": [1, None]}, TypeError, r"Stop\(tokens=...\)\[1\]=None must be an integer"),
        ({"strings": 3}, TypeError, r"Stop\(strings=...\)=3 must be a string or a list of strings"),
        ({"strings": ["a", 3]}, TypeError, "must be a string or a list of strings"),
        ({"strings": ["a", ""]}, ValueError, "must be non-empty strings; every text ends with"),
        ({"strings": "a\ud800"}, ValueError, "must be text that UTF-8 can encode; a lone surrogate is half"),
        ({"tokens": 10**20}, ValueError, f"={10**20} must be from 0 to {2**63 - 1}; it is a token id"),
        ({"include_stop": 1}, TypeError, "include_stop=1 must be True or False"),
    ],
)
def test_what_is_no_stop(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Stop(**given)


def test_what_does_not_fit_the_model() -> None:
    with pytest.raises(ValueError, match=r"Stop\(eos=...\)=300 must be from 0 to 299"):
        resolved(Stop(eos=300))
    with pytest.raises(ValueError, match=r"Stop\(tokens=...\)=301 must be"):
        resolved(Stop(tokens=(1, 301)))
    with pytest.raises(ValueError, match="needs tokenizer=; or use Stop"):
        resolved(Stop(strings="a"), tokenizer=None)


def test_a_stop_is_a_value() -> None:
    assert Stop(eos=[2], strings="a") == Stop(eos=(2,), strings=["a"])
    assert len({Stop(tokens=[1]), Stop(tokens=(1,))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Stop().eos = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Stop(2)  # type: ignore[misc]
