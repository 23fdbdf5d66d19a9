"""Text that comes in pieces is the text that comes at once, and no piece has half a character."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minitx.decoding.text.detokenize import Detokenizer
from minitx.tokenizer import Tokenizer
from tests.unit.decoding.vocabularies import KINDS, SPECIAL, byte_characters, byte_level, sentence_piece

HALF = "\ufffd"


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    return KINDS[kind]()


def ids(tokenizer: Tokenizer, *tokens: str) -> list[int]:
    found = [tokenizer.token_to_id(token) for token in tokens]
    assert None not in found
    return found  # type: ignore[return-value]


def continuation(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> str:
    """What the tokens add to the prompt's text: the definition."""
    before = tokenizer.decode(prompt, skip_special_tokens=True).rstrip(HALF)
    after = tokenizer.decode([*prompt, *tokens], skip_special_tokens=True)
    assert after.startswith(before)
    return after[len(before) :]


def check_pieces(
    tokenizer: Tokenizer, prompt: list[int], tokens: list[int], *, in_between: bool = True
) -> None:
    """
    Args:
        tokenizer, prompt, tokens: what is decoded.
        in_between: whether it must also be right where the tokens end within a character.
    """
    detokenizer = Detokenizer(tokenizer, prompt)
    text = ""
    for count, token in enumerate(tokens, 1):
        text += detokenizer.push(token)
        so_far = [*prompt, *tokens[:count]]
        if in_between or not tokenizer.decode(so_far, skip_special_tokens=True).endswith(HALF):
            # Nothing is held back but what is no character yet.
            expected = continuation(tokenizer, prompt, tokens[:count])
            assert (text + detokenizer.rest).rstrip(HALF) == expected.rstrip(HALF)
    assert text + detokenizer.finish() == continuation(tokenizer, prompt, tokens)
    assert detokenizer.finish() == ""


rows = st.lists(st.integers(0, 10**6), max_size=60)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "tidied" not in kind and "sentence" not in kind])
@given(prompt=rows, tokens=rows)
def test_pieces_are_the_whole(kind: str, prompt: list[int], tokens: list[int]) -> None:
    """Any ids, so that byte-level text has all that UTF-8 does not allow."""
    tokenizer = tokenizer_of(kind)
    size = len(tokenizer)
    check_pieces(tokenizer, [i % size for i in prompt], [i % size for i in tokens])


def split(tokenizer: Tokenizer, characters: list[tuple[str, bool]]) -> list[int]:
    """Tokens of characters, some of them byte by byte."""
    tokens = []
    for character, as_bytes in characters:
        if as_bytes or tokenizer.token_to_id(character) is None:
            tokens += [f"<0x{byte:02X}>" for byte in character.encode()]
        else:
            tokens.append(character)
    return ids(tokenizer, *tokens)


BITS = st.sampled_from(["▁", "▁▁", "▁the", "cat", "é", "猫", "🙂", "x", "\n", *SPECIAL])


@given(st.lists(st.tuples(BITS, st.booleans()), max_size=50), st.integers(0, 12))
@example([("猫", True)] * 6, 0)  # the window is full within a character
@example([("猫", True)] * 6, 3)  # it would begin within one
def test_pieces_with_bytes_for_characters(characters: list[tuple[str, bool]], cut: int) -> None:
    """A run of such bytes is decoded as text only if all of it is, so only whole characters are compared."""
    tokenizer = tokenizer_of("sentence pieces")
    prompt, tokens = split(tokenizer, characters[:cut]), split(tokenizer, characters[cut:])
    check_pieces(tokenizer, prompt, tokens, in_between=False)


@pytest.mark.parametrize("kind", ["word pieces, tidied", "sentence pieces, tidied"])
@given(data=st.data())
def test_pieces_of_text_that_is_tidied(kind: str, data: st.DataObject) -> None:
    """Tidying changes text after the fact: "do n" was "do n't" in the end."""
    tokenizer = tokenizer_of(kind)
    words = [t for t in tokenizer.vocab if not t.startswith("<")]
    marks = [t for t in words if any(mark in t for mark in ".,!?'") or t.strip("▁#") in ("n", "t", "s", "")]
    tokens = ids(
        tokenizer,
        *data.draw(st.lists(st.one_of(st.sampled_from(marks), st.sampled_from(words)), max_size=40)),
    )
    cut = data.draw(st.integers(0, 5))
    detokenizer = Detokenizer(tokenizer)
    text = "".join(map(detokenizer.push, tokens[:cut]))
    text += "".join(map(detokenizer.push, tokens[cut:])) + detokenizer.finish()
    assert text == tokenizer.decode(tokens, skip_special_tokens=True)


def pieces(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    return [*map(detokenizer.push, tokens), detokenizer.finish()]


def test_half_a_character_waits() -> None:
    tokenizer = byte_level()
    smile, cat = tokenizer_bytes("🙂"), tokenizer_bytes("猫")
    assert pieces(tokenizer, [], ids(tokenizer, *smile, *cat)) == ["", "", "", "🙂", "", "", "猫", ""]
    broken = ids(tokenizer, *smile[:3], "a")
    assert pieces(tokenizer, [], broken) == ["", "", "", HALF + "a", ""]
    assert pieces(tokenizer, [], broken[:3]) == ["", "", "", HALF]


def test_bytes_that_are_no_character_do_not_wait_forever() -> None:
    tokenizer = byte_level()
    (lone,) = tokenizer_bytes(b"\xff")
    assert pieces(tokenizer, [], ids(tokenizer, *[lone] * 8)) == ["", "", "", HALF * 3, *[HALF] * 5]
    genuine = ids(tokenizer, *tokenizer_bytes(HALF) * 30)  # the character itself, as three tokens
    assert "".join(pieces(tokenizer, [], genuine)) == HALF * 30


def tokenizer_bytes(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [byte_characters()[byte] for byte in data]


def test_the_space_between_prompt_and_text_is_kept() -> None:
    """SentencePiece drops the space before what it decodes; behind a prompt it is part of the text."""
    tokenizer = sentence_piece()
    cat = ids(tokenizer, "▁cat")
    assert tokenizer.decode(cat) == "cat"
    assert pieces(tokenizer, ids(tokenizer, "▁the"), cat) == [" cat", ""]
    assert pieces(tokenizer, [], cat) == ["cat", ""]
    assert pieces(tokenizer, ids(tokenizer, "▁the", *SPECIAL * 9), cat) == [" cat", ""]
    tokenizer = tokenizer_of("word pieces")
    assert pieces(tokenizer, ids(tokenizer, "cat"), ids(tokenizer, "##s", "sat")) == ["s", " sat", ""]


def test_special_tokens_and_ids_without_a_token_are_no_text() -> None:
    tokenizer = byte_level()
    cat, pad = ids(tokenizer, "Ġcat", "<pad>")
    assert pieces(tokenizer, [pad, 10**6], [pad, cat, 10**6, cat, pad]) == ["", " cat", "", " cat", "", ""]


@pytest.mark.parametrize("kind", KINDS)
def test_the_window_stays_short(kind: str) -> None:
    """The cost of a token does not grow with the text before it."""
    tokenizer = tokenizer_of(kind)
    known = [i for i in range(len(tokenizer)) if tokenizer.id_to_token(i) not in SPECIAL]
    detokenizer = Detokenizer(tokenizer, known)
    for token in known * (1 + 400 // len(known)):
        detokenizer.push(token)
        assert len(detokenizer._window) < 40
