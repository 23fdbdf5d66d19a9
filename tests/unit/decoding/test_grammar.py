"""Choices and regular expressions: texts, masks and rows by enumeration."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.decoding import Choices, Regex
from minitx.decoding.generate import generate, stream
from minitx.decoding.grammar.masks import ENDED
from minitx.decoding.grammar.nodes import EVERY, complement, intersection, union, utf8
from minitx.decoding.grammar.values import TextGrammar
from minitx.decoding.grammar.vocabulary import read_vocabulary
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel
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
from tests.unit.decoding.vocabularies import byte_level, metaspace, sentence_piece, word_piece

TOKENIZERS = {"bytes": byte_level(), "sentence pieces": sentence_piece(), "metaspace": metaspace()}


def model_of(tokenizer: Any, **more: Any) -> DecoderModel:
    config = {
        "model_type": "gpt2",
        "vocab_size": len(tokenizer),
        "n_embd": 16,
        "n_head": 2,
        "n_layer": 2,
        "n_positions": 64,
        "initializer_range": 0.4,
        "eos_token_id": EOS,
        "bos_token_id": 1,
        **more,
    }
    model = minitx.from_config(config, head="causal-lm", seed=0).eval()
    assert isinstance(model, DecoderModel)
    return model


# --- regular expressions against re ----------------------------------------------------------------

PATTERNS = [
    *("", "a", "ab", "a|b", "a|", "a*", "a+b?", "(a|b)*abb", "(?:ab){2}", "a{2,}", "a{,2}b", "a{1,3}"),
    *("a{0}", "[ab]c", "[^a]", ".", ".*a", "[a-b]*", "[^a-b]", "(a(b(c)?)?)?", "a??b*?", "(?P<name>a)b"),
    *("^ab$", r"\Aa\Z", "a{", "a{b", "{", "a{}", "a{1", "a{,}", "a{,}b", "[]a]", "[^]a]", "[a-]", "[-a]"),
    *(r"[\]a]", "(?#a)b", "^a|b$", "a|^b", "()", "(a|)*", "(a*)*b", "((a|b)(c|a))+", r"\x61", r"\141"),
    *(r"\u0061b", r"[\x61-\x62]", r"\n", r"\t|a", r"\0", r"[\0a]", r"a\.b", r"\{a", "[.]", "[{}]a"),
    *("(a?){3}", "(a{1,2}){1,2}", "(?:)a"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_texts_of_a_pattern_are_those_of_re(pattern: str) -> None:
    automaton = automaton_of(Regex(pattern))
    for text in [*texts("abc", 5), *texts("a{}.]-\n", 3), *texts("a\0\t", 2), "a{1", "a{,}b", "a{b"]:
        assert accepts(automaton, text) == bool(re.fullmatch(pattern, text)), text


@st.composite
def patterns(draw: Any) -> str:
    """Random expressions over a and b, nested up to three times."""
    part = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", "ab", ""])
    for _ in range(draw(st.integers(0, 3))):
        inner = part
        sign = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?"])
        part = st.one_of(
            st.builds(lambda a, b: f"{a}{b}", inner, inner),
            st.builds(lambda a, b: f"(?:{a}|{b})", inner, inner),
            st.builds(lambda a, s: f"(?:{a}){s}", inner, sign),
        )
    return draw(part)


@given(patterns())
def test_the_texts_of_random_patterns_are_those_of_re(pattern: str) -> None:
    automaton = automaton_of(Regex(pattern))
    for text in texts("ab", 6):
        assert accepts(automaton, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize("letter", "dwsDWS")
def test_the_classes_are_those_of_re(letter: str) -> None:
    automaton = automaton_of(Regex(rf"\{letter}"))
    pattern = re.compile(rf"\{letter}")
    for code in [*range(0x3000), *range(0x1D7C0, 0x1D800), *range(0xFE00, 0xFFFF, 7), 0x10FFFF]:
        if not 0xD800 <= code < 0xE000:
            assert accepts(automaton, chr(code)) == bool(pattern.fullmatch(chr(code))), hex(code)


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(a)\1", "(?P<n>a)(?P=n)", "(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", "a++", "a?+", "(?>a)"),
        *("(?i)a", "(?i:a)", r"\bA", r"\B", "a^b", "a$b", "(^a)", "(a)(?(1)b|c)", r"a\Ab", "a{99999}"),
        r"(a)(b)\2",
    ],
)
def test_what_no_automaton_recognises_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"Regex\(pattern\)=.*at position \d+ is not supported"):
        Regex(pattern)


def test_surrogates_are_no_characters() -> None:
    for pattern in (r"[\ud800-\udfff]", r"\ud800", r"[\ud800]", "[\ud800-\udfff]"):
        with pytest.raises(ValueError, match="matched by some text"):
            automaton_of(Regex(pattern))
    automaton = automaton_of(Regex(r"[\ud7ff-\ud900]|[^\ud800-\udfffa-z]|[\udfff-\ue001]"))
    for character in "\ud7ff\ue000\ue001A猫🙂":
        assert accepts(automaton, character)
    for character in ("a", "z", ""):
        assert not accepts(automaton, character)


def test_invalid_expressions_are_refused() -> None:
    with pytest.raises(ValueError, match="missing \\)"):
        Regex("(a")
    with pytest.raises(TypeError, match="a string"):
        Regex(5)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF)).map(sorted), max_size=4))
def test_ranges_have_the_spellings_of_their_characters(pairs: Any) -> None:
    ranges = union((low, high) for low, high in pairs)
    edges = {code + shift for pair in pairs for code in pair for shift in (-1, 0, 1)} | {0x7F, 0x80, 0xD7FF}
    for code in edges:
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
            inside = any(low <= code <= high for low, high in pairs)
            data = chr(code).encode()
            spelled = [
                len(spelling) == len(data)
                and all(low <= byte <= high for byte, (low, high) in zip(data, spelling, strict=True))
                for spelling in utf8(ranges)
            ]
            assert sum(spelled) == inside
            assert any(low <= code <= high for low, high in complement(ranges)) != inside
    assert intersection(ranges, complement(ranges)) == ()
    assert union([*ranges, *complement(ranges)]) == EVERY


# --- tokens ----------------------------------------------------------------------------------------

VOCABULARIES = {
    "all bytes": [bytes([byte]) for byte in range(256)] + [b"ab", b"ba", b"aab", b"\xc3\xa9a"],
    "letters": [b"a", b"b", b"ab", b"bba"],
    "no a": [b"b", b"ab", b"ba", b"aa"],
    "half characters": [b"a", b"\xc3", b"\xa9", "éa".encode()],
    "a half and a whole": [b"a", b"\xc3", "é".encode(), b"\xa9a"],
    "pairs": [b"ab", b"ba"],
}
GRAMMARS = [
    *(
        Regex(p)
        for p in ("a*", "(ab|ba)*", "a{3}", "a{2,3}|b", "b?a?b?a", "(aab)*(bba|é)?", "é*a", "[aé]{2}")
    ),
    *(Choices(c) for c in (["ab", "aba"], ["a", "ba", "éa"], ["aab", "bba", "abab"])),
]


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("grammar", GRAMMARS, ids=str)
def test_a_token_is_allowed_if_tokens_can_complete_the_text(grammar: TextGrammar, name: str) -> None:
    tokens = VOCABULARIES[name]
    spelled, automaton = speller(tokens), automaton_of(grammar)
    all_texts = [text.encode() for text in texts("abé", 8) if accepts(automaton, text)]
    if not any(map(spelled, all_texts)):
        with pytest.raises(ValueError, match="spell"):
            compiled(grammar, small_tokenizer(*tokens))
        return
    grammar_tokens = compiled(grammar, small_tokenizer(*tokens))
    waiting = [(grammar_tokens.start, b"")]
    for state, written in waiting:
        allowed = grammar_tokens.allowed(state).nonzero().flatten().tolist()
        assert set(allowed) == expected_tokens(tokens, written, all_texts, spelled), written
        for token in allowed:
            if token != EOS and len(written) < 2:
                waiting.append((grammar_tokens.advance(state, token), written + tokens[token - 3]))
            elif token == EOS:
                assert grammar_tokens.advance(state, token) == ENDED


@pytest.mark.parametrize("name", [*TOKENIZERS, "minitx/tiny-decoder", "minitx/tiny-seq2seq"])
def test_the_bytes_of_tokens_are_those_that_decoding_adds(name: str) -> None:
    tokenizer = TOKENIZERS.get(name) or minitx.load_tokenizer(name)
    vocabulary = read_vocabulary(tokenizer, len(tokenizer) + 3)
    assert vocabulary.pieces[-3:] == (None,) * 3
    texts_of = [token for token, piece in enumerate(vocabulary.pieces) if piece]
    before = next(token for token in texts_of if (tokenizer.id_to_token(token) or "").isalpha())
    source, checked = random.Random(0), 0
    for _ in range(300):
        ids = source.choices(texts_of, k=source.randrange(1, 6))
        if vocabulary.first_only & {ids[0]}:
            continue
        data = b"".join(vocabulary.pieces[token] or b"" for token in ids)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        dropped = text.removeprefix(" ") if vocabulary.strips else text
        assert tokenizer.decode(ids) == dropped
        checked += 1
        assert tokenizer.decode([before, *ids]).endswith(text)
    assert checked > 50


def test_a_grammar_compiles_once_per_tokenizer() -> None:
    one, other = small_tokenizer(b"a", b"b"), small_tokenizer(b"a", b"b", b"ab")
    assert compiled(Regex("a*"), one) is compiled(Regex("a*"), one)
    assert compiled(Regex("a*"), one) is not compiled(Regex("a+"), one)
    assert compiled(Regex("a*"), one) is not compiled(Regex("a*"), other)


def test_threads_may_share_a_grammar() -> None:
    grammar, tokenizer = Regex(r"(\w{1,9} ){1,4}\w+"), TOKENIZERS["bytes"]
    shared = compiled(grammar, tokenizer)

    def masks(seed: int) -> list[list[int]]:
        source, state, result = random.Random(seed), shared.start, []
        for _ in range(30):
            allowed = shared.allowed(state).nonzero().flatten().tolist()
            result.append(allowed)
            state = shared.advance(state, source.choice([token for token in allowed if token != EOS]))
        return result

    with ThreadPoolExecutor(8) as pool:
        together = [*pool.map(masks, range(24))]
    assert together == [masks(seed) for seed in range(24)]


# --- rows ------------------------------------------------------------------------------------------

STRATEGIES = [
    (minitx.Greedy(), {}),
    (minitx.Sample(), {"seed": 3, "num_samples": 4}),
    (minitx.Sample(top_p=0.8, temperature=2.0), {"seed": 4}),
    (minitx.ArithmeticSample(), {"seed": 1, "num_samples": 3}),
    (minitx.Beam(num_beams=3), {"num_samples": 2}),
    (minitx.DiverseBeam(num_beams=4, num_beam_groups=2, diversity_penalty=0.5), {}),
    (minitx.BeamSample(num_beams=3), {"seed": 5}),
    (minitx.StochasticBeam(num_beams=4), {"seed": 6, "num_samples": 2}),
    (minitx.Alternatives(), {"num_samples": 3}),
]
PATTERN = r" ?(the|cat) [a-d]{2,5}é?(!|\.)"


@pytest.mark.parametrize("kind", ["bytes", "sentence pieces"])
@pytest.mark.parametrize(("strategy", "more"), STRATEGIES, ids=lambda value: type(value).__name__)
def test_rows_match_and_a_batch_is_its_rows(strategy: Any, more: dict[str, Any], kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    model = model_of(tokenizer)
    prompts = [[10, 20, 30, 40], [7], [1], [50, 60, 70]]
    options: Any = {"max_new_tokens": 24, "tokenizer": tokenizer, "grammar": Regex(PATTERN), **more}
    batch = generate(model, prompts, strategy, **options)
    assert set(batch.finish_reasons) == {"eos"}
    assert all(re.fullmatch(PATTERN, text) for text in batch.texts), batch.texts
    rows = [generate(model, [prompt], strategy, **options) for prompt in prompts]
    if "seed" in more:  # equal prompts aside, rows do not depend on the batch
        assert [*rows[0].texts] == [*batch.texts[: len(rows[0].texts)]]
    assert [text for row in rows for text in row.texts] == [*batch.texts]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_at_the_start_may_lose_its_space(kind: str) -> None:
    """SentencePiece drops a space at the start of a text, so that the first token may have one."""
    tokenizer = TOKENIZERS[kind]
    model = model_of(tokenizer, vocab_size=len(tokenizer) + 5)
    seen = Counter(
        text
        for prompt in ([1], [1, 10])
        for text in generate(
            model,
            [prompt],
            minitx.Sample(),
            max_new_tokens=12,
            num_samples=30,
            seed=0,
            tokenizer=tokenizer,
            grammar=Choices(["cat", " the mat", "a cat"]),
        ).texts
    )
    assert set(seen) == {"cat", " the mat", "a cat"}


def test_streams_and_stop_strings() -> None:
    tokenizer = TOKENIZERS["bytes"]
    model = model_of(tokenizer)
    options: Any = {"max_new_tokens": 20, "tokenizer": tokenizer, "seed": 1, "grammar": Regex("[abc]{9}é")}
    events = [*stream(model, [[5, 6]], **options)]
    whole = generate(model, [[5, 6]], **options)
    assert "".join(event.text for event in events) == whole.texts[0]
    assert re.fullmatch("[abc]{9}é", whole.texts[0])
    cut = generate(model, [[5, 6]], **{**options, "stop": Stop(strings=whole.texts[0][3:5])})
    assert cut.finish_reasons == ("stop",) or [*cut.finish_reasons] == ["stop"]
    assert whole.texts[0].startswith(cut.texts[0])
    short = generate(model, [[5, 6]], **{**options, "max_new_tokens": 2})
    assert [*short.finish_reasons] == ["length"]
    assert whole.texts[0].startswith(short.texts[0])


def test_sampling_follows_the_conditional_of_each_token() -> None:
    """The probability of a text is the product of p(token) / p(allowed tokens), by enumeration."""
    tokens = [b"a", b"b", b"ab", b"ba", b"c"]
    tokenizer = small_tokenizer(*tokens)
    model = model_of(tokenizer)
    grammar = Regex("a(b|ba)|ba?")
    all_texts = [text.encode() for text in texts("ab", 3) if re.fullmatch("a(b|ba)|ba?", text)]
    expected: dict[tuple[int, ...], float] = {}

    def walk(ids: tuple[int, ...], probability: float) -> None:
        written = b"".join(tokens[i - 3] for i in ids)
        with torch.inference_mode():
            logits = model(torch.tensor([[4, *ids]])).logits[0, -1].double()
        allowed = sorted(expected_tokens(tokens, written, all_texts, speller(tokens)))
        for token, p in zip(allowed, torch.softmax(logits[allowed], 0).tolist(), strict=True):
            if token == EOS:
                expected[(*ids, token)] = probability * p
            else:
                walk((*ids, token), probability * p)

    walk((), 1.0)
    assert sum(expected.values()) == pytest.approx(1.0)
    count = 3_000
    options: Any = {"max_new_tokens": 4, "tokenizer": tokenizer, "seed": 0, "grammar": grammar}
    result = generate(model, [[4]], minitx.Sample(), num_samples=count, logprobs="processed", **options)
    seen = Counter(tuple(row[: row.index(EOS) + 1]) for row in (ids.tolist() for ids in result.sequences))
    assert set(seen) <= set(expected)
    assert result.logprobs is not None
    for ids, logprobs in zip(result.sequences, result.logprobs, strict=True):
        row = tuple(ids.tolist())
        row = row[: row.index(EOS) + 1]
        assert float(logprobs[: len(row)].sum()) == pytest.approx(math.log(expected[row]), abs=1e-4)
    cells = [(seen[key], count * p) for key, p in expected.items() if count * p >= 5]
    chi_square = sum((observed - mean) ** 2 / mean for observed, mean in cells)
    assert chi_square < len(cells) + 6 * (2 * len(cells)) ** 0.5


def test_explain_shows_how_many_tokens_the_grammar_left() -> None:
    tokenizer = TOKENIZERS["bytes"]
    explained = minitx.explain(
        model_of(tokenizer),
        [5, 6],
        minitx.Sample(top_k=2),
        max_new_tokens=3,
        tokenizer=tokenizer,
        grammar=Regex("[abc]x!"),
        seed=0,
    )
    steps = [[(step.name, step.kept) for step in position.steps] for position in explained.positions]
    size = len(tokenizer)
    assert steps[0] == [("model", size), ("Regex", 3), ("TopK 2", 2)]
    assert [step[1] for step in steps[1:]] == [("Regex", 1), ("Regex", 1)]


def test_encoder_decoders() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-seq2seq")
    model: Any = minitx.load("minitx/tiny-seq2seq", dtype="float32")
    spoken = Choices(["wˈɝld", "hˈɛloʊ", "hˈɛloʊz"])
    for strategy in (minitx.Greedy(), minitx.Beam(num_beams=3)):
        options: Any = {"max_new_tokens": 32, "tokenizer": tokenizer}
        result = generate(model, ["hello", "world", "cat"], strategy, **options, grammar=spoken)
        assert [*result.texts[:2]] == ["hˈɛloʊ", "wˈɝld"]
        assert result.texts[2] in spoken.texts


# --- values and refusals ---------------------------------------------------------------------------


def test_grammars_are_values() -> None:
    assert Regex("a") == Regex("a") != Regex("b")
    assert Choices(["a", "b"]) == Choices(("a", "b"))
    for grammar in (Regex(r"\d{4}"), Choices(["yes", "no"])):
        assert eval(repr(grammar), {"Regex": Regex, "Choices": Choices}) == grammar
        assert hash(grammar) == hash(eval(repr(grammar), {"Regex": Regex, "Choices": Choices}))


def test_choices_are_checked() -> None:
    for wrong in ("yes", 5, ["a", 5], {"a": 1}):
        with pytest.raises(TypeError, match=r"Choices\(texts\)"):
            Choices(wrong)  # type: ignore[arg-type]
    for empty in ([], [""], ["a", ""], ["\ud800"]):
        with pytest.raises(ValueError, match=r"Choices\(texts\)"):
            Choices(empty)


def test_calls_are_checked_before_the_first_token() -> None:
    tokenizer = TOKENIZERS["bytes"]
    model = model_of(tokenizer)
    options: Any = {"max_new_tokens": 4, "tokenizer": tokenizer, "grammar": Regex("a")}
    with pytest.raises(ValueError, match="tokenizer=None must be the model's tokenizer"):
        generate(model, [[5]], **{**options, "tokenizer": None})
    with pytest.raises(TypeError, match="grammar='a' must be a grammar"):
        generate(model, [[5]], **{**options, "grammar": "a"})
    with pytest.raises(ValueError, match="must be a Stop with end tokens"):
        generate(model, [[5]], **{**options, "stop": Stop(eos=())})
    with pytest.raises(ValueError, match=r"min_new_tokens=.*0 with Stop"):
        generate(model, [[5]], **{**options, "stop": Stop(tokens=[5]), "min_new_tokens": 2})
    with pytest.raises(ValueError, match="matched by some text"):
        generate(model, [[5]], **{**options, "grammar": Regex("[^\\s\\S]")})
    spelled = small_tokenizer(b"a", b"b")
    with pytest.raises(
        ValueError, match=r"grammar=Regex\('ac'\) must be matched by some text; none does, or the"
    ):
        generate(model_of(spelled), [[3]], **{**options, "tokenizer": spelled, "grammar": Regex("ac")})
    with pytest.raises(ValueError, match="by WordPiece"):
        generate(model, [[5]], **{**options, "tokenizer": word_piece(tidy=False)})
    tidied = sentence_piece(tidy=True)
    with pytest.raises(ValueError, match="tidies_spaces = False"):
        generate(model, [[5]], **{**options, "tokenizer": tidied})


def test_contradictions_name_the_processor() -> None:
    tokenizer = TOKENIZERS["bytes"]
    with pytest.raises(ValueError, match=r"MinNewTokens 3 left no token. Tokens after each step: .*Regex 1"):
        generate(
            model_of(tokenizer),
            [[5]],
            max_new_tokens=4,
            min_new_tokens=3,
            tokenizer=tokenizer,
            grammar=Regex("a"),
            seed=0,
        )


def test_stop_tokens_end_a_complete_text() -> None:
    tokenizer = TOKENIZERS["bytes"]
    newline = tokenizer.token_to_id("Ċ")
    options: Any = {"max_new_tokens": 9, "tokenizer": tokenizer, "seed": 0, "grammar": Regex("ab[cd]")}
    result = generate(
        model_of(tokenizer), [[5]], num_samples=20, stop=Stop(eos=(), tokens=[newline]), **options
    )
    assert set(result.texts) == {"abc", "abd"}
    assert set(result.finish_reasons) == {"stop"}
