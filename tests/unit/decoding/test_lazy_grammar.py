"""Grammars that wait for a trigger, and what a grammar forces."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import minitx
from minitx.decoding import Choices, Grammar, JsonSchema, Lazy, Regex, forced_text, forced_tokens
from minitx.decoding.generate import generate
from minitx.decoding.grammar.masks import ENDED, compile_grammar
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.grammars import EOS, accepts, automaton_of, compiled, small_tokenizer, speller, texts
from tests.unit.decoding.test_grammar import TOKENIZERS, model_of

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def follows(text: str, trigger: str, pattern: str) -> bool:
    """By definition: no trigger, or the pattern after the first one."""
    _, found, after = text.partition(trigger)
    return not found or bool(re.fullmatch(pattern, after))


@pytest.mark.parametrize("trigger", ["a", "ab", "aa", "aba", "abab", "aab", "bbabb"])
def test_the_grammar_begins_after_the_first_trigger(trigger: str) -> None:
    automaton = automaton_of(Lazy(Regex("a?b+"), trigger))
    for text in texts("abc", 8 if len(trigger) > 3 else 6):
        assert accepts(automaton, text) == follows(text, trigger, "a?b+"), text


@pytest.mark.parametrize(
    "tokens",
    [
        [bytes([byte]) for byte in range(256)] + [b"ab", b"ba", b"bab"],
        [b"a", b"b", b"c", b"ab", b"caba"],
        [b"a", b"b", b"c", b"xb", b"xyab"],
    ],
    ids=["all bytes", "letters", "odd"],
)
@pytest.mark.parametrize("grammar", [Regex("cb?"), Grammar('root ::= "c" root? "b"')])
def test_tokens_before_across_and_after_the_trigger(grammar: Any, tokens: list[bytes]) -> None:
    lazy = compiled(Lazy(grammar, "ab"), small_tokenizer(*tokens))
    automaton, spelled = automaton_of(Lazy(grammar, "ab")), speller(tokens)
    inside = [text.encode() for text in texts("cb", 6) if accepts(automaton_of(grammar), text)]

    def may_come(written: bytes) -> bool:
        _, found, after = written.partition(b"ab")
        return not found or any(t.startswith(after) and spelled(t[len(after) :]) for t in inside)

    waiting = [(lazy.start, b"")]
    for state, written in waiting:
        allowed = set(lazy.allowed(state).nonzero().flatten().tolist())
        expected = {n + 3 for n, token in enumerate(tokens) if may_come(written + token)}
        free = b"ab" not in written
        expected |= {0, 1} if free else set()  # special tokens
        expected |= {EOS} if accepts(automaton, written.decode(errors="replace")) else set()
        assert allowed == expected, written
        for token in allowed - {0, 1, EOS}:
            following = written + tokens[token - 3]
            if len(following) <= 3 and {*following} <= {*b"abcx"}:
                waiting.append((lazy.advance(state, token), following))


def test_special_tokens_trigger_and_interrupt() -> None:
    tokenizer = TOKENIZERS["bytes"]
    tool = Lazy(Regex("[ab]"), "<s>")
    tokens = compile_grammar(tool, tool.rules, tokenizer, len(tokenizer), (EOS,))
    letters = {tokenizer.token_to_id(letter) for letter in "ab"}
    by_token = tokens.advance(tokens.start, 1)
    assert {*tokens.allowed(by_token).nonzero().flatten().tolist()} == letters
    state = tokens.start
    for letter in "<s":
        state = tokens.advance(state, tokenizer.token_to_id(letter) or 0)
    by_text = tokens.advance(state, tokenizer.token_to_id(">") or 0)
    assert {*tokens.allowed(by_text).nonzero().flatten().tolist()} == letters
    interrupted = tokens.advance(tokens.advance(state, 0), tokenizer.token_to_id(">") or 0)
    assert len(tokens.allowed(interrupted).nonzero()) == len(tokenizer)
    assert tokens.advance(interrupted, EOS) == ENDED


@pytest.mark.parametrize("strategy", [minitx.Sample(logit_bias={80: 4.0}), minitx.Beam(num_beams=3)])
def test_rows_with_a_lazy_grammar(strategy: Any) -> None:
    tokenizer = TOKENIZERS["bytes"]
    model = model_of(tokenizer)
    letter = tokenizer.decode([80])
    options: Any = {"max_new_tokens": 30, "tokenizer": tokenizer, "grammar": Lazy(Regex("[a-c]{3}!"), letter)}
    options |= {"seed": 0, "num_samples": 20} if isinstance(strategy, minitx.Sample) else {}
    batch = generate(model, [[5, 6], [7]], strategy, **options)
    triggered = 0
    for text, reason in zip(batch.texts, batch.finish_reasons, strict=True):
        _, found, after = text.partition(letter)
        triggered += bool(found)
        if found and reason == "eos":
            assert re.fullmatch("[a-c]{3}!", after), text
    assert triggered > 10 or isinstance(strategy, minitx.Beam)
    rows = [generate(model, [prompt], strategy, **options) for prompt in ([5, 6], [7])]
    assert [text for row in rows for text in row.texts] == [*batch.texts]


def test_without_a_trigger_nothing_changes() -> None:
    tokenizer = TOKENIZERS["bytes"]
    options: Any = {
        "max_new_tokens": 20,
        "tokenizer": tokenizer,
        "seed": 1,
        "num_samples": 5,
        "logprobs": "raw",
    }
    model = model_of(tokenizer)
    plain = generate(model, [[5, 6]], **options)
    lazy = generate(model, [[5, 6]], **options, grammar=Lazy(Regex("a"), "~~~~~~"))
    for one, other in zip(plain.sequences, lazy.sequences, strict=True):
        assert torch.equal(one, other)


def test_lazy_grammars_are_values() -> None:
    lazy = Lazy(Regex("a"), trigger="<tool>")
    assert lazy == Lazy(Regex("a"), "<tool>") != Lazy(Regex("b"), "<tool>")
    assert eval(repr(lazy), {"Lazy": Lazy, "Regex": Regex}) == lazy
    with pytest.raises(ValueError, match=r"Lazy\(trigger\)=''"):
        Lazy(Regex("a"), "")
    with pytest.raises(TypeError, match=r"Lazy\(grammar\)='a'"):
        Lazy("a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a grammar that applies at once"):
        Lazy(lazy, "b")
    with pytest.raises(ValueError, match="must be a Stop with end tokens"):
        generate(
            model_of(TOKENIZERS["bytes"]),
            [[5]],
            max_new_tokens=3,
            tokenizer=TOKENIZERS["bytes"],
            grammar=lazy,
            stop=Stop(eos=()),
        )


# --- what is forced --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grammar", "text", "expected"),
    [
        (Regex("abc"), "", "abc"),
        (Regex("abc"), "a", "bc"),
        (Regex("abc?d?"), "", "ab"),
        (Regex("a[bc]d"), "", "a"),
        (Regex("a[bc]d"), "ab", "d"),
        (Regex("[éè]x"), "", ""),  # they share a byte, which is no text
        (Regex("猫x"), "", "猫x"),
        (Choices(["yes, of course", "yes, never"]), "", "yes, "),
        (
            JsonSchema({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}),
            "",
            '{"name":',
        ),
        (Grammar('root ::= "a" root "b" | "cc"'), "aac", "cbb"),
        (Regex("a*"), "aa", ""),
        (Lazy(Regex("abc"), "!"), "so!", "abc"),
    ],
)
def test_the_text_that_must_follow(grammar: Any, text: str, expected: str) -> None:
    assert forced_text(grammar, text) == expected


def test_the_tokens_that_must_follow() -> None:
    tokenizer = small_tokenizer(b"a", b"b", b"c", b"bc", b"d")
    assert forced_tokens(Regex("abc"), tokenizer) == [3]  # then b or bc
    assert forced_tokens(Regex("abc"), tokenizer, [3, 4]) == [5, EOS]
    assert forced_tokens(Regex("ad"), tokenizer) == [3, 7, EOS]
    assert forced_tokens(Regex("ad?"), tokenizer) == [3]
    assert forced_tokens(Regex("ad"), tokenizer, [3, 7, EOS]) == []
    with pytest.raises(ValueError, match=r"ids\[1\]=3 must be allowed by Regex\('ad'\)"):
        forced_tokens(Regex("ad"), tokenizer, [3, 3])
    with pytest.raises(ValueError, match="ids=99"):
        forced_tokens(Regex("ad"), tokenizer, [99])
    with pytest.raises(TypeError, match="grammar='ad'"):
        forced_tokens("ad", tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the beginning of a text of Regex"):
        forced_text(Regex("ad"), "x")
    with pytest.raises(ValueError, match=r"grammar=Regex\(.* must be matched by some text"):
        forced_text(Regex(r"[^\s\S]"))
