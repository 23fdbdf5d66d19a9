"""Context-free grammars: texts against derivation by brute force, masks by enumeration, both syntaxes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.decoding import Grammar
from minitx.decoding.generate import generate
from minitx.decoding.grammar.automaton import DEAD, START
from minitx.decoding.grammar.nodes import Call, Characters, Either, Node, Repeat, Rules, Series
from minitx.decoding.grammar.syntax.gbnf import parse_gbnf
from minitx.decoding.grammar.syntax.lark import COMMON
from tests.unit.decoding.grammars import (
    EOS,
    accepts,
    automaton_of,
    compiled,
    expected_tokens,
    small_tokenizer,
    speller,
    texts,
)
from tests.unit.decoding.test_grammar import TOKENIZERS, model_of


def derived(rules: Rules, alphabet: str, most: int) -> set[str]:
    """All texts of at most so many characters, by derivation until nothing is new."""
    known: dict[str, set[str]] = {name: set() for name in rules.rules}
    while True:
        new = {name: derive(node, known, alphabet, most) for name, node in rules.rules.items()}
        if new == known:
            return known[rules.start]
        known = new


def derive(node: Node, known: Mapping[str, set[str]], alphabet: str, most: int) -> set[str]:
    if isinstance(node, Characters):
        return {c for c in alphabet if any(low <= ord(c) <= high for low, high in node.ranges)}
    if isinstance(node, Call):
        return known[node.rule]
    if isinstance(node, Either):
        return set().union(*(derive(option, known, alphabet, most) for option in node.options))
    if isinstance(node, Series):
        joined = {""}
        for part in node.parts:
            joined = pairs(joined, derive(part, known, alphabet, most), most)
        return joined
    assert isinstance(node, Repeat)
    inner = derive(node.node, known, alphabet, most)
    result, current = set[str](), {""}
    for count in range((most + node.least if node.most is None else node.most) + 1):
        if count >= node.least:
            result |= current
        current = pairs(current, inner, most)
    return result


def pairs(first: set[str], second: set[str], most: int) -> set[str]:
    return {a + b for a in first for b in second if len(a + b) <= most}


GBNF = {
    "nested": 'root ::= "" | "a" root "b"',
    "palindromes": 'root ::= "a" root "a" | "b" root "b" | "a" | "b" | ""',
    "left recursion": 'root ::= root "a" | "b"',
    "right recursion": 'root ::= "a" root | "b"',
    "mutual": 'root ::= x "a" | "b"\nx ::= root "b" | y\ny ::= x | "a"',
    "ambiguous": 'root ::= root root | "a" | "b" "a"?',
    "hidden left recursion": 'root ::= e root "a" | "b"\ne ::= "" | "b"',
    "cycle": "root ::= root | x\nx ::= root | [ab]",
    "nullable": "root ::= x y x\nx ::= y*\ny ::= [a]? z\nz ::= [b]?",
    "repetition": 'root ::= ("a" [bc]){1,2} "c"* x+\nx ::= "a" | "b"{2}',
    "bounded": "root ::= x{2,} y{,3}\nx ::= [ab]\ny ::= [c]",
    "balanced": 'root ::= ("a" root "b" | "c")*',
    "sums": 'root ::= root "a" term | term\nterm ::= "b" | "c" root "c"',
    "unproductive": 'root ::= "a" | x "b"\nx ::= "a" x',
    "a tail that returns to several": 'root ::= "a" x | "b" x "c"\nx ::= "b" x | "a"',
    "many ends": 'root ::= x "a"? y?\nx ::= "a" y\ny ::= "b" | "b" x',
}


@pytest.mark.parametrize("name", [*GBNF])
def test_the_texts_are_those_that_can_be_derived(name: str) -> None:
    text = GBNF[name].replace("{,3}", "{0,3}")
    automaton, expected = automaton_of(Grammar(text)), derived(parse_gbnf(text), "abc", 6)
    assert {text for text in texts("abc", 6) if accepts(automaton, text)} == expected
    beginnings = {
        text[:size] for text in derived(parse_gbnf(text), "abc", 9) for size in range(len(text) + 1)
    }
    for text in texts("abc", 4):  # no dead end: what can be read can be completed
        if automaton.read(START, text.encode()) != DEAD:
            assert text in beginnings


@st.composite
def grammars(draw: Any) -> str:
    """Random grammars of three rules over a and b."""
    names = st.sampled_from(["root", "x", "y"])
    part = st.one_of(names, st.sampled_from(['"a"', '"b"', '"ab"', "[ab]", '""', '"a"?', '"b"*']))
    series = st.lists(part, min_size=1, max_size=3).map(" ".join)
    options = st.lists(series, min_size=1, max_size=3).map(" | ".join)
    return "\n".join(f"{name} ::= {draw(options)}" for name in ("root", "x", "y"))


@given(grammars())
def test_random_grammars_have_the_texts_that_can_be_derived(text: str) -> None:
    expected = derived(parse_gbnf(text), "ab", 5)
    try:
        automaton = automaton_of(Grammar(text))
    except ValueError:
        assert not expected
        return
    assert {text for text in texts("ab", 5) if accepts(automaton, text)} == expected


VOCABULARIES = {
    "all bytes": [bytes([byte]) for byte in range(256)] + [b"ab", b"ba", b"bc"],
    "letters": [b"a", b"b", b"c", b"ab", b"bb", b"cc"],
    "no b alone": [b"a", b"ab", b"bb", b"c"],
}


@pytest.mark.parametrize("vocabulary", ["all bytes", "letters"])
@pytest.mark.parametrize("name", [*GBNF])
def test_a_token_is_allowed_if_a_text_continues_so(name: str, vocabulary: str) -> None:
    tokens, text = VOCABULARIES[vocabulary], GBNF[name].replace("{,3}", "{0,3}")
    grammar, spelled = compiled(Grammar(text), small_tokenizer(*tokens)), speller(tokens)
    all_texts = [text.encode() for text in derived(parse_gbnf(text), "abc", 9)]
    waiting = [(grammar.start, b"")]
    for state, written in waiting:
        allowed = grammar.allowed(state).nonzero().flatten().tolist()
        assert set(allowed) == expected_tokens(tokens, written, all_texts, spelled), written
        ids = [t for t in allowed if t != EOS and len(written + tokens[t - 3]) <= 2]
        waiting += [(grammar.advance(state, token), written + tokens[token - 3]) for token in ids]


@pytest.mark.parametrize("name", [*GBNF])
def test_odd_vocabularies_lead_to_no_dead_end(name: str) -> None:
    """A grammar with endlessly many states uses the tokens whose characters are tokens themselves."""
    tokens, text = VOCABULARIES["no b alone"], GBNF[name].replace("{,3}", "{0,3}")
    spelled = speller(tokens)
    all_texts = [text.encode() for text in derived(parse_gbnf(text), "abc", 9)]
    try:
        grammar = compiled(Grammar(text), small_tokenizer(*tokens))
    except ValueError:
        return
    waiting = [(grammar.start, b"")]
    for state, written in waiting:
        allowed = set(grammar.allowed(state).nonzero().flatten().tolist())
        assert allowed, written
        assert allowed <= expected_tokens(tokens, written, all_texts, spelled)
        ids = [t for t in allowed if t != EOS and len(written + tokens[t - 3]) <= 2]
        waiting += [(grammar.advance(state, token), written + tokens[token - 3]) for token in ids]


def test_lists_at_one_depth_return_to_the_same_state() -> None:
    grammar = Grammar('root ::= value\nvalue ::= "[" (value ("," value)*)? "]" | [0-9]+', syntax="gbnf")
    automaton = automaton_of(grammar)
    assert automaton.read(START, b"[1,2,") == automaton.read(START, b"[17,3,4,")
    assert automaton.read(START, b"[[1],") == automaton.read(START, b"[5,[],7,")
    assert automaton.read(START, b"[[1,") != automaton.read(START, b"[1,")
    chain = automaton_of(Grammar('root ::= "a" root | "b"'))
    assert chain.read(START, b"a") == chain.read(START, b"aaaaa")


JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=  # a comment
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_the_grammar_of_json() -> None:
    automaton = automaton_of(Grammar(JSON_GBNF))
    for value in ({}, {"a": [1, -2.5e3, {"b": None}]}, {'é\n"猫': [True, [], [[{}]]], "x": "\\"}):
        assert accepts(automaton, json.dumps(value))
        assert accepts(automaton, json.dumps(value, ensure_ascii=False))
        assert accepts(automaton, json.dumps(value, indent=2))
    for wrong in ("", "[]", "{", '{"a"}', '{"a":1,}', "{'a':1}", '{"a":01}', '{"a":\t1}', '{"a":"\n"}'):
        assert not accepts(automaton, wrong)


@pytest.mark.parametrize("strategy", [minitx.Sample(), minitx.Greedy(), minitx.Beam(num_beams=3)])
def test_rows_are_texts_of_the_grammar(strategy: Any) -> None:
    tokenizer = TOKENIZERS["bytes"]
    grammar = Grammar('root ::= "(" (root | [a-c]){1,2} ")"')
    options: Any = {"max_new_tokens": 40, "tokenizer": tokenizer, "grammar": grammar}
    options |= {"seed": 0, "num_samples": 5} if isinstance(strategy, minitx.Sample) else {}
    prompts = [[10, 20], [7], [50, 60, 70]]
    batch = generate(model_of(tokenizer), prompts, strategy, **options)
    automaton = automaton_of(grammar)
    for text, reason in zip(batch.texts, batch.finish_reasons, strict=True):
        assert accepts(automaton, text) if reason == "eos" else automaton.read(START, text.encode()) != DEAD
    rows = [generate(model_of(tokenizer), [prompt], strategy, **options) for prompt in prompts]
    assert [text for row in rows for text in row.texts] == [*batch.texts]


# --- Lark ------------------------------------------------------------------------------------------

LARK = r"""
// arithmetic
?start: sum
?sum: product
    | sum "+" product   -> add   # left-recursive
    | sum "-" product   -> sub
?product: atom
    | product "*" atom

?atom: NUMBER           -> number
     | "-" atom
     | "(" sum ")"
     | FUNCTION ["!"] "(" sum ("," sum)~0..1 ")"
FUNCTION.2: "sin"i | "m" ("a".."b")
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
"""


def test_lark_grammars() -> None:
    automaton = automaton_of(Grammar(LARK, syntax="lark"))
    good = ("1", "1+2", " 1 + 2*3", "-(1 - 2.5e3)", "sin(1)", "SiN ! (2, 3)", "ma(1)", "mb(.5)*2  ", "((1))")
    for text in good:
        assert accepts(automaton, text), text
    for text in ("", "1+", "(1", "mc(1)", "sin()", "sin(1,2,3)", "s in(1)", "1\n", "s", "2e", "1 2"):
        assert not accepts(automaton, text), text


LARK_SMALL = {
    'start: "a" start "b" |': 'root ::= "a" root "b" |',
    "start: A* b\nA: /a|bb/\nb: [A] A": "root ::= a* b\na ::= [a] | [b][b]\nb ::= a? a",
    'start: ("a" | "b")~2 "c"~1..2': 'root ::= ("a" | "b"){2} "c"{1,2}',
    'start: "a"..  "b" X+\nX: "c"': 'root ::= [ab] x+\nx ::= "c"',
    'start: A\n  | "b" A\n\n  // more\n  | A "c"\nA: "a"': 'root ::= "a" | "ba" | "ac"',
    'start: A+\nA: "a"\n%ignore "b"': 'root ::= b ("a" b)+\nb ::= "b"*',
}


@pytest.mark.parametrize("text", [*LARK_SMALL])
def test_lark_and_gbnf_agree(text: str) -> None:
    one, other = automaton_of(Grammar(text, syntax="lark")), automaton_of(Grammar(LARK_SMALL[text]))
    for example in texts("abc", 6):
        assert accepts(one, example) == accepts(other, example), example


def test_the_common_terminals_are_those_of_lark() -> None:
    examples = {
        "INT": ("0", "017"),
        "SIGNED_INT": ("-5", "+5", "5"),
        "FLOAT": ("1.5", ".5", "1.", "1e5", "1.5E-3"),
        "NUMBER": ("1", "1.5", "1e5"),
        "SIGNED_NUMBER": ("-1", "+1.5e3"),
        "ESCAPED_STRING": ('""', '"a\\"b"', '"\\\\"'),
        "CNAME": ("_a1", "B"),
        "WS": (" \n\t",),
        "NEWLINE": ("\r\n\n",),
    }
    wrong = {
        "FLOAT": ("1", "."),
        "INT": ("-1", ""),
        "ESCAPED_STRING": ('"\\"', '"a'),
        "CNAME": ("1a",),
        "NEWLINE": ("\r",),
    }
    for name in COMMON:
        grammar = Grammar(f"start: {name}\n%import common.{name}", syntax="lark")
        for text in examples.get(name, ()):
            assert accepts(automaton_of(grammar), text)
        for text in wrong.get(name, ()):
            assert not accepts(automaton_of(grammar), text)


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('x ::= "a"', "no rule 'root'"),
        ("root ::= x", "calls 'x', which there is not"),
        ('root ::= "a"\nroot ::= "b"', "line 2 defines 'root' again"),
        ('root ::= ("a"', "an end too early"),
        ('root ::= "a" )', "line 1 has '\\)', which is not expected"),
        ("root ::= <[5]>", "matching of tokens, which is not supported"),
        ("root ::= <think>", "matching of tokens"),
        ('root ::= "\\q"', "the escape"),
        ("root ::= [b-a]", "a range from a later character"),
        ('root ::= "a"{3,2}', r"'\{3,2\}', which is not expected"),
        ('root ::= "a"{99999}', "a repetition of more than"),
        ("root ::= 'a'", "line 1 has .*which is no GBNF"),
        ("", "no rule 'root'"),
    ],
)
def test_gbnf_that_cannot_be_read_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('begin: "a"', "no rule 'start'"),
        ("start: x", "calls 'x'"),
        ("start: x{a}\nx: A", "a template, which is not supported"),
        ("x{a}: a", "a template"),
        ("start: A\n%declare A", "%declare, which is not supported"),
        ("%import other.A\nstart: A", "%import of another file"),
        ("%import common.SQL\nstart: SQL", "common.SQL, which is not supported"),
        ("start: /a/i", "the flags 'i' of an expression"),
        ("start: /(?=a)/", "lookahead"),
        ('start: "a"~3..2', "is not expected"),
        ('start: "b".."a"', "is not expected"),
        ('start: ("a"', "an end too early"),
        ('start: "a" ]', "which is not expected"),
    ],
)
def test_lark_that_cannot_be_read_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar(text, syntax="lark")


def test_grammars_are_values() -> None:
    grammar = Grammar('root ::= "a"')
    assert grammar == Grammar('root ::= "a"') != Grammar('root ::= "b"')
    assert eval(repr(grammar), {"Grammar": Grammar}) == grammar
    assert re.fullmatch(r"Grammar\('root ::= \"a\"', syntax='gbnf'\)", repr(grammar))
    with pytest.raises(ValueError, match=r"Grammar\(syntax\)='bnf' must be"):
        Grammar("", syntax="bnf")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Grammar\(text\)"):
        Grammar(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="matched by some text"):
        automaton_of(Grammar('root ::= "a" root'))
