"""Healed prompts: what is removed, what may come instead, and texts that go on where the prompt ends."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

import minitx
from minitx.decoding import (
    Alternatives,
    Beam,
    Chain,
    DiverseBeam,
    Greedy,
    Jacobi,
    PromptLookup,
    Sample,
    Speculative,
    StochasticBeam,
)
from minitx.decoding.generate import generate, stream
from minitx.decoding.text.healing import Healing, Vocabulary
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel
from minitx.pipelines import generate_batches
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import token_bytes
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.vocabularies import KINDS, byte_characters, made, numbered, word_piece

PAD, BOS, EOS = range(3)
WORDS = ("ab", "abc", "ba", "bab", "c", "cab", "caba", " a", " ab", "猫a", "\n\n")
NO_END = Stop(eos=())


@cache
def tokenizer_of() -> Tokenizer:
    """Bytes of a few characters, and words of them; some texts can be spelled in many ways."""
    characters = byte_characters()
    single = [*(bytes([byte]) for byte in "abc \n猫".encode())]
    tokens = ["".join(characters[byte] for byte in text) for text in (*single, *(w.encode() for w in WORDS))]
    return made(models.BPE(vocab=numbered(tokens), merges=[]), decoders.ByteLevel())


TOKENIZER = tokenizer_of()
PIECES = token_bytes(TOKENIZER)
SIZE = len(TOKENIZER)
TEXT = [token for token in range(SIZE) if PIECES[token]]
VOCABULARY = Vocabulary(TOKENIZER, SIZE)


def ids(*texts: str) -> list[int]:
    return [PIECES.index(text.encode()) for text in texts]


@cache
def model_of(**more: Any) -> DecoderModel:
    config = {
        "model_type": "gpt2",
        "vocab_size": SIZE + 2,
        "initializer_range": 1.0,
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 1,
        "n_positions": 48,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
        **more,
    }
    built = minitx.from_config(config, head="causal-lm", seed=1).eval()
    assert isinstance(built, DecoderModel)
    return built


# The bytes of tokens


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "ed" not in kind])
@given(data=st.data())
@settings(max_examples=40)
def test_the_bytes_of_tokens_add_up_to_the_text(kind: str, data: st.DataObject) -> None:
    tokenizer = KINDS[kind]()
    pieces = token_bytes(tokenizer)
    assert len(pieces) == len(tokenizer)
    assert all(not pieces[token] for token in tokenizer.special_ids)
    named = [token for token in range(len(pieces)) if pieces[token] and token not in tokenizer.special_ids]
    first = next(token for token in named if tokenizer.id_to_token(token) == "cat" or kind == "byte level")
    tokens = [first, *data.draw(st.lists(st.sampled_from(named), max_size=8))]
    joined = b"".join(pieces[token] for token in tokens)
    try:
        text = joined.decode()
    except UnicodeDecodeError:
        return
    assert tokenizer.decode(tokens).strip(" ") == text.strip(" ")


def test_a_decoder_that_does_not_add_up() -> None:
    tokenizer = made(models.BPE(vocab=numbered(["a"]), merges=[]), decoders.CTC())
    with pytest.raises(ValueError, match="a tokenizer with the decoder CTC have no texts"):
        token_bytes(tokenizer)


# What is removed

prompts = st.lists(st.sampled_from([BOS, *TEXT]), min_size=1, max_size=7)


@given(prompts)
def test_as_much_is_removed_as_a_longer_token_begins_with(prompt: list[int]) -> None:
    """The definition, for each number of last tokens."""
    kept = len(prompt)
    for start in range(1, len(prompt)):
        pieces = [PIECES[token] for token in prompt[start:]]
        text = b"".join(pieces)
        if all(pieces) and any(len(p) > len(text) and p.startswith(text) for p in PIECES):
            kept = start
            break
    healed = VOCABULARY.heal(prompt)
    assert healed.ids == prompt[:kept]
    assert healed.removed == b"".join(PIECES[token] for token in prompt[kept:])


def test_examples_of_what_is_removed() -> None:
    assert VOCABULARY.heal(ids("ba", "b", "a", "b")).ids == ids("ba", "b")  # "ab" begins "abc"
    assert VOCABULARY.heal(ids("c", "c", "a", "b")).removed == b"cab"  # begins "caba"
    assert VOCABULARY.heal(ids("abc")).removed == b""  # the first token stays
    assert VOCABULARY.heal([BOS, *ids("a"), EOS]).removed == b""  # an end token ends no word
    assert VOCABULARY.heal([*ids("c"), BOS, *ids("a")]).removed == b"a"
    half = [TEXT[0], PIECES.index(b"\xe7"), PIECES.index(b"\x8c")]
    assert VOCABULARY.heal(half)[1:] == (b"\xe7\x8c", 0)  # of 猫, which is no character yet
    assert Vocabulary(TOKENIZER, 5).heal([SIZE, SIZE + 1]).removed == b""  # ids without an output


# What may come instead


def spellings(text: bytes) -> set[tuple[int, ...]]:
    """All sequences of tokens whose text begins with `text`, none longer than that needs."""
    whole, growing = set(), [()]
    while growing:
        longer = [(*tokens, token) for tokens in growing for token in TEXT]
        growing = []
        for tokens in longer:
            spelled = b"".join(PIECES[token] for token in tokens)
            if spelled.startswith(text):
                whole.add(tokens)
            elif text.startswith(spelled):
                growing.append(tokens)
    return whole


@pytest.mark.parametrize("text", [b"a", b"ab", b"ca", b"cab", b" ", b"\xe7", "猫".encode(), b"\n"])
def test_every_spelling_can_come_and_nothing_else(text: bytes) -> None:
    wanted = spellings(text)
    healing, found = Healing([text], VOCABULARY), set()
    growing: list[tuple[int, ...]] = [()]
    while growing:
        rows = [[BOS, *tokens] for tokens in growing]
        left = healing(torch.zeros(len(rows), SIZE), history(rows, 1))
        growing_now = growing
        growing = []
        for tokens, row in zip(growing_now, left, strict=True):
            for token in (row > -torch.inf).nonzero().flatten().tolist():
                longer = (*tokens, token)
                done = b"".join(PIECES[t] for t in longer).startswith(text)
                found.add(longer) if done else growing.append(longer)
    assert found == wanted


def test_no_token_leads_where_nothing_can_follow() -> None:
    """Of the tokens x, xyz and xyx, x cannot begin the text xy: there is no y."""
    tokenizer = made(models.BPE(vocab=numbered(["x", "xyz", "xyx"]), merges=[]), decoders.ByteLevel())
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    left = Healing([b"xy"], vocabulary)(torch.zeros(1, len(tokenizer)), history([[BOS]], 1))
    assert (left[0] > -torch.inf).nonzero().flatten().tolist() == [4, 5]


def test_kept_logits_are_the_same_and_other_rows_are_not_changed() -> None:
    logits = logits_of("random", 4, SIZE)
    rows = [[5, 6], [5], [5, *ids("ab")], [5, 6, *ids("a")]]
    left = Healing([b"ab", b""], VOCABULARY)(logits, history(rows, [2, 1, 1, 2]))
    assert not torch.equal(left[1], logits[1])  # the second row has the first prompt too
    assert torch.equal(left[2:], logits[2:])
    kept = left[0] > -torch.inf
    assert torch.equal(left[0][kept], logits[0][kept])
    assert Healing([b"ab"], VOCABULARY)(logits, history([[5, *ids("ab", "c")]] * 4, 1)) is logits


# Generation

PROMPTS = [
    [BOS, *ids("ba", "c")],
    [BOS, *ids("a", "b", "ab")],
    [BOS, *ids("\n\n")],
    ids("abc", "c", "a"),
    [BOS],
]
STRATEGIES = [
    (Greedy(), {}),
    (Sample(temperature=3.0), {"num_samples": 3, "seed": 5}),
    (Sample(temperature=3.0, top_k=2), {"num_samples": 2, "seed": 1}),
    (Alternatives(), {"num_samples": 2}),
    (Beam(num_beams=4), {"num_samples": 3}),
    (DiverseBeam(num_beams=4, num_beam_groups=2, diversity_penalty=1.0), {"num_samples": 2}),
    (StochasticBeam(num_beams=4), {"num_samples": 2, "seed": 3}),
    (Speculative(target=Greedy(), draft=PromptLookup()), {}),
    (Jacobi(), {}),
]


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES, ids=lambda x: type(x).__name__)
def test_texts_go_on_where_the_prompts_end(strategy: Any, options: dict[str, Any]) -> None:
    """And a batch of prompts, of which some are healed, gives what each gives alone."""
    call: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END, "tokenizer": TOKENIZER, "heal": True}
    call |= options
    result = generate(model_of(), PROMPTS, strategy, **call)
    assert result.texts is not None
    samples = call.get("num_samples", 1)
    for number, (row, text) in enumerate(zip(result.sequences, result.texts, strict=True)):
        prompt = PROMPTS[number // samples]
        healed = VOCABULARY.heal(prompt)
        whole = b"".join(PIECES[token] if token < SIZE else b"" for token in [*healed.ids, *row.tolist()])
        assert whole.startswith(b"".join(PIECES[token] for token in prompt))
        joined = TOKENIZER.decode([token for token in [*healed.ids, *row.tolist()] if token > EOS])
        assert joined == TOKENIZER.decode([token for token in prompt if token > EOS]) + text
    seeds = {} if "seed" not in call else {"seed": call["seed"]}
    for number, prompt in enumerate(PROMPTS):
        alone = generate(model_of(), [prompt], strategy, **(call | seeds))
        rows = range(number * samples, (number + 1) * samples)
        assert [row.tolist() for row in alone.sequences] == [result.sequences[row].tolist() for row in rows]
        assert alone.texts == [result.texts[row] for row in rows]


def test_the_law_is_that_of_the_model_among_the_spellings() -> None:
    """Token by token: each is drawn from the model's distribution over the tokens that may come."""
    prompt = [BOS, *ids("c", "a", "b")]
    result = minitx.explain(model_of(), prompt, Sample(), heal=True, tokenizer=TOKENIZER, seed=1, stop=NO_END)
    assert [step.name for step in result.positions[0].steps] == ["model", "Healing"]
    with torch.no_grad():
        p = model_of()(torch.tensor([[BOS]])).logits[0, -1].softmax(-1)
    allowed = [token for token in TEXT if PIECES[token].startswith(b"cab")] + ids("c", "cab"[:1])
    drawn = result.positions[0].drawn
    assert PIECES[drawn.token].startswith(b"c")
    total = float(p[sorted({*allowed})].sum())
    assert drawn.probability == pytest.approx(float(p[drawn.token]) / total, rel=1e-4)


def test_nothing_to_heal_is_as_without() -> None:
    prompts = [[BOS, *ids("bab")], [BOS]]
    options: dict[str, Any] = {"max_new_tokens": 5, "seed": 1, "tokenizer": TOKENIZER, "stop": NO_END}
    first, second = (generate(model_of(), prompts, Sample(), heal=heal, **options) for heal in (True, False))
    assert [row.tolist() for row in first.sequences] == [row.tolist() for row in second.sequences]
    assert first.texts == second.texts


def forced(*tokens: int) -> Any:
    def only(logits: Any, context: Any) -> Any:
        place = context.generated.clamp(max=len(tokens) - 1)
        return torch.full_like(logits, -torch.inf).scatter(1, torch.tensor(tokens)[place][:, None], 0.0)

    return only


def test_strings_are_searched_after_the_prompt() -> None:
    script = forced(*ids("a", "b", "c", "ab", "ba"))
    for stop in (Stop(strings="ab"), Stop(regex="a.")):
        options: dict[str, Any] = {"max_new_tokens": 5, "tokenizer": TOKENIZER, "heal": True, "stop": stop}
        strategy = Greedy(processors=[script])
        result = generate(model_of(), [[BOS, *ids("a", "b")]], strategy, **options)
        assert result.texts == ["c"]
        assert [row.tolist() for row in result.sequences] == [ids("a", "b", "c", "ab")]
        events = [*stream(model_of(), [[BOS, *ids("a", "b")]], strategy, **options)]
        assert "".join(event.text for event in events) == "c"


def test_too_few_tokens_for_the_prompt() -> None:
    options: dict[str, Any] = {"tokenizer": TOKENIZER, "heal": True, "max_new_tokens": 1}
    result = generate(model_of(), [[BOS, *ids("a", "b")]], Greedy(processors=[forced(*ids("a"))]), **options)
    assert result.texts == [""]
    assert result.finish_reasons == ["length"]


def test_a_character_in_two_halves() -> None:
    first, second, third = (PIECES.index(bytes([byte])) for byte in "猫".encode())
    options: dict[str, Any] = {"tokenizer": TOKENIZER, "heal": True, "max_new_tokens": 3}
    script = forced(*ids("猫a", "b"))
    result = generate(model_of(), [[BOS, first, second]], Greedy(processors=[script]), **options)
    assert result.texts is not None
    assert result.texts[0] == "猫abb"
    result = generate(model_of(), [[BOS, first, second, third]], Greedy(processors=[script]), **options)
    assert result.texts == ["abb"]


def test_word_pieces_and_text_prompts() -> None:
    tokenizer = word_piece(tidy=False)
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    names = ["the", "ca", "##t"]
    assert [tokenizer.token_to_id(name) is None for name in names] == [False, True, False]
    prompt = [tokenizer.token_to_id("the") or 0, tokenizer.token_to_id("a") or 0]
    assert vocabulary.heal(prompt).removed == b""  # nothing begins with " a"
    prompt = [tokenizer.token_to_id("the") or 0, tokenizer.token_to_id("'") or 0]
    assert vocabulary.heal(prompt).removed == b" '"


def test_healed_batches_and_the_rows_of_a_function() -> None:
    """`generate_batches` heals once, draws the same, and its stop function gets the rows of the call."""
    rows: list[int] = []
    stop = Stop(eos=(), function=lambda row, tokens: bool(rows.append(row)))
    options: dict[str, Any] = {"max_new_tokens": 4, "tokenizer": TOKENIZER, "heal": True, "seed": 7}
    strategy, prompts = Sample(temperature=3.0), [*PROMPTS, PROMPTS[0]]
    whole = generate(model_of(), prompts, strategy, stop=NO_END, **options)
    parts = [*generate_batches(model_of(), prompts, strategy, batch_size=2, stop=stop, **options)]
    assert [row.tolist() for part in parts for row in part.sequences] == [r.tolist() for r in whole.sequences]
    assert [text for part in parts for text in part.texts or []] == whole.texts
    assert sorted({*rows}) == [*range(6)]


def test_a_real_model_completes_the_word() -> None:
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    prompts = ["It was a beauti", "The house stood upon the mount", "He said, "]
    options: dict[str, Any] = {"max_new_tokens": 8, "tokenizer": tokenizer}
    healed = generate(model, prompts, Greedy(), heal=True, **options)
    assert healed.texts is not None
    assert healed.texts[0].startswith("ful ")
    assert healed.texts[1].startswith("ain")


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heal": 1, "tokenizer": TOKENIZER}, "heal=1 must be True or False"),
        ({"heal": True}, "heal=True must be left out; texts of tokens need tokenizer="),
        (
            {"heal": True, "tokenizer": TOKENIZER, "inputs_embeds": [torch.zeros(2, 8)]},
            "heal=True must be left out; inputs_embeds= has a vector per prompt token",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        generate(model_of(), [[BOS, 5]], Greedy(), max_new_tokens=2, **options)


def test_more_refusals() -> None:
    options: dict[str, Any] = {"heal": True, "tokenizer": TOKENIZER, "max_new_tokens": 2}
    with pytest.raises(
        ValueError, match="heal=True must be left out; forced_bos_token_id= may force another"
    ):
        generate(model_of(), [[BOS, 5]], Greedy(forced_bos_token_id=5), **options)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    t5 = minitx.from_config(
        {"model_type": "t5", "vocab_size": SIZE, **sizes}, head="seq2seq-lm", seed=0
    ).eval()
    with pytest.raises(ValueError, match="the output of an encoder-decoder continues"):
        generate(t5, [[5, 6]], Greedy(), **options)  # type: ignore[arg-type]


def test_a_literal_chain_is_healed_too() -> None:
    options: dict[str, Any] = {"heal": True, "tokenizer": TOKENIZER, "max_new_tokens": 3, "stop": NO_END}
    prompts = [[BOS, *ids("c", "a")]]
    assert [
        row.tolist() for row in generate(model_of(), prompts, Greedy(chain=Chain()), **options).sequences
    ] == [row.tolist() for row in generate(model_of(), prompts, Greedy(), **options).sequences]
