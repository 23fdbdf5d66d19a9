"""Infilling: the order of the parts, the sentinels of each family, the end; and the filter of llama.cpp."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

import minitx
from minitx.decoding import Chain, Greedy, Infill, Sample, TopK
from minitx.decoding.text.infill import SENTINELS, Sentinels, find_sentinels, infill, infill_prompts
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.files import Settings
from minitx.tokenizer.subwords import token_bytes
from tests.unit.decoding import definitions as d
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.vocabularies import byte_characters, made, numbered

BOS, EOS = 1, 2
PLAIN = Sentinels(prefix="<P>", suffix="<S>", middle="<M>", ends="<E>")


@cache
def tokenizer_of(family: int | None, bos: bool = True) -> Tokenizer:
    """Bytes; with the sentinels of a family, those of above for None."""
    backend = Backend(models.BPE(vocab=numbered([*byte_characters().values()]), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<pad>", "<s>", "</s>"])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    roles = Settings(config={}, special_tokens_map={}, added={}, extra=())
    tokenizer = Tokenizer(backend, roles, model_input_names=("input_ids",), chat_templates={})
    names = PLAIN if family is None else SENTINELS[family]
    tokenizer.add_tokens([*names.names, *names.ends], special=True)
    return tokenizer


@cache
def model_of(size: int) -> DecoderModel:
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 64, "initializer_range": 1.0}
    config = {"model_type": "gpt2", "vocab_size": size, "eos_token_id": EOS, "bos_token_id": BOS, **sizes}
    built = minitx.from_config(config, head="causal-lm", seed=1).eval()
    assert isinstance(built, DecoderModel)
    return built


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("family", [None, *range(len(SENTINELS))])
def test_the_order_of_the_parts(family: int | None) -> None:
    tokenizer = tokenizer_of(family)
    sentinels = PLAIN if family is None else None
    p, s, m = (tokenizer.token_to_id(name) for name in find_sentinels(tokenizer, sentinels).names)
    before, after = ids(tokenizer, "a b"), ids(tokenizer, " 猫")
    options: dict[str, Any] = {"tokenizer": tokenizer, "sentinels": sentinels}
    assert infill_prompts("a b", " 猫", **options) == [[BOS, p, *before, s, *after, m]]
    assert infill_prompts("a b", " 猫", order="spm", **options) == [[BOS, p, s, *after, m, *before]]
    assert infill_prompts(["", "a b"], ["", ""], **options) == [[BOS, p, s, m], [BOS, p, *before, s, m]]


def test_without_a_begin_token() -> None:
    tokenizer = tokenizer_of(1, bos=False)
    (prompt,) = infill_prompts("a", "b", tokenizer=tokenizer)
    assert tokenizer.decode(prompt) == "<fim_prefix>a<fim_suffix>b<fim_middle>"


def test_a_suffix_gets_no_space_of_its_own() -> None:
    """SentencePiece puts a space before a text; the suffix goes on after the gap."""
    marks = ["▁", "▁a", "b", "☺", "▁☺", "a", "<0x0A>"]
    model = models.Unigram([(token, -1.0) for token in numbered(["<unk>", *marks])], unk_id=3)
    tokenizer = made(model, decoders.Metaspace())
    tokenizer._backends.source.backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="always", split=False
    )
    tokenizer.add_tokens([*SENTINELS[0].names, *SENTINELS[0].ends], special=True)
    assert [tokenizer.id_to_token(token) for token in ids(tokenizer, "ab")] == ["▁a", "b"]
    (prompt,) = infill_prompts("ab", "ab", tokenizer=tokenizer)
    names = [tokenizer.id_to_token(token) for token in prompt]
    assert names == ["▁<PRE>", "▁a", "b", "▁<SUF>", "a", "b", "▁<MID>"]
    (prompt,) = infill_prompts("ab", " ab", tokenizer=tokenizer)
    assert [tokenizer.id_to_token(token) for token in prompt][4:6] == ["▁a", "b"]


def forced(*rows: list[int]) -> Any:
    def only(logits: Any, context: Any) -> Any:
        out = torch.full_like(logits, -torch.inf)
        for row, step in enumerate(context.generated.tolist()):
            out[row, rows[row][min(step, len(rows[row]) - 1)]] = 0.0
        return out

    return only


def test_the_middle_ends_at_a_sentinel_or_an_end_token() -> None:
    tokenizer = tokenizer_of(0)
    eot, p = (tokenizer.token_to_id(name) or 0 for name in ("▁<EOT>", "▁<PRE>"))
    x, y = ids(tokenizer, "xy")
    strategy = Greedy(processors=[forced([x, eot], [x, y, EOS], [y, p], [x])])
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_new_tokens": 4}
    result = minitx.infill(model_of(len(tokenizer)), ["a"] * 4, ["b"] * 4, strategy, **options)
    assert result.texts == ["x", "xy", "y", "xxxx"]
    assert result.finish_reasons == ["eos", "eos", "eos", "length"]
    kept = infill(model_of(len(tokenizer)), "a", "b", strategy, stop=Stop(eos=(), strings="xx"), **options)
    assert kept.texts == ["x"]
    result = infill(model_of(len(tokenizer)), "a", "b", strategy, stop=Stop(eos=7), order="spm", **options)
    assert result.finish_reasons == ["eos"]


def test_a_batch_gives_what_its_rows_give() -> None:
    tokenizer = tokenizer_of(4)
    prefixes, suffixes = ["a", "def f(", ""], ["b", "", ")\n"]
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_new_tokens": 6, "seed": 1, "num_samples": 2}
    model = model_of(len(tokenizer))
    whole = infill(model, prefixes, suffixes, Sample(), **options)
    for row, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        alone = infill(model, prefix, suffix, Sample(), **options)
        assert alone.texts == (whole.texts or [])[2 * row : 2 * row + 2]


def test_refusals() -> None:
    tokenizer, model = tokenizer_of(None), model_of(300)
    options: dict[str, Any] = {"tokenizer": tokenizer, "max_new_tokens": 2}
    for more, message in (
        ({}, "sentinels=None must be Sentinels.*; the tokenizer has none of those that are known"),
        ({"sentinels": Sentinels(prefix="<P>", suffix="<Q>", middle="<R>")}, "it does not have <Q>, <R>"),
        ({"sentinels": "x"}, "sentinels='x' must be Sentinels"),
        ({"order": "mps"}, "order='mps' must be"),
        ({"tokenizer": None}, "tokenizer=None must be a Tokenizer"),
        ({"decoder_prompts": [[1]]}, "infill has no argument 'decoder_prompts'"),
        ({"max_token": 3}, "infill has no argument 'max_token'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            infill(model, "a", "b", Greedy(), **(options | more))
    with pytest.raises(ValueError, match="must be 1 of them, one for each prefix"):
        infill(model, "a", ["b", "c"], Greedy(), sentinels=PLAIN, **options)
    with pytest.raises(TypeError, match="prefix=3 must be a string or a list of strings"):
        infill(model, 3, "b", Greedy(), sentinels=PLAIN, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="middle=3 must be a string"):
        Sentinels(prefix="a", suffix="b", middle=3)  # type: ignore[arg-type]


# The filter

TEXTS = ["a", "ab", "abc", "b", "ba", "c", "", "ca", "abd"]
LETTERS = made(models.BPE(vocab=numbered([text for text in TEXTS if text]), merges=[]), decoders.ByteLevel())
PIECES = token_bytes(LETTERS)
SIZE = len(PIECES)


def definition(z: d.Array, ends: tuple[int, ...]) -> d.Array:
    """Row 25 of the reference, step by step, over the possible tokens from the most probable on."""
    p = d.softmax(z)
    order = [i for i in d.descending(z) if z[i] > -np.inf]
    if not order:
        return z
    end, text = sum(p[i] for i in order if i in ends), sum(p[i] for i in order if i not in ends)
    if 3 * end * len(order) > text:
        return d.keep(z, [i for i in order if i in ends])
    alive = set(order)
    for first in order:
        for second in order:
            if first not in alive:
                break
            if first == second or second not in alive or not PIECES[first]:
                continue
            if PIECES[second].startswith(PIECES[first]):
                more, less = (second, first) if p[second] > p[first] else (first, second)
                p[more] += p[less]
                p[less] = 0.0
                alive.discard(less)
    left = [i for i in order if i in ends or p[i] >= 0.2]
    others = [i for i in left if i not in ends]
    if not others:
        return d.keep(z, left or order[:1])
    share = p / sum(p[i] for i in left)
    return d.keep(z, [i for i in left if i in ends or share[i] >= 1 / (len(others) + 1)])


@given(
    st.lists(st.sampled_from([-np.inf, -6.0, -4.0, -1.0, 0.0, 0.3, 1.0, 2.5]), min_size=SIZE, max_size=SIZE),
    st.sampled_from([(), (2,), (2, 0)]),
)
@settings(max_examples=400)
def test_the_filter_is_its_definition(logits: list[float], ends: tuple[int, ...]) -> None:
    z = np.array(logits)
    ours = Infill(LETTERS)(
        torch.tensor([logits, logits], dtype=torch.float64), history([[5], [5, 6]], eos=ends)
    )
    if np.isneginf(z).all():
        assert bool((ours == -torch.inf).all())
        return
    for row in ours.numpy():
        np.testing.assert_array_equal(row, definition(z, ends))


def test_what_the_filter_does() -> None:
    def kept(p: dict[str, float], eos: float = 0.0) -> set[bytes]:
        logits = torch.full((1, SIZE), -torch.inf)
        for text, value in p.items():
            logits[0, PIECES.index(text.encode())] = np.log(value)
        logits[0, EOS] = np.log(eos) if eos else -torch.inf
        left = Infill(LETTERS)(logits, history([[5]], eos=(EOS,)))
        return {PIECES[token] for token in (left[0] > -torch.inf).nonzero().flatten().tolist()}

    assert kept({"a": 0.5, "b": 0.4}, eos=0.12) == {b""}  # 3 * 0.12 * 3 > 0.9
    assert kept({"a": 0.3, "ab": 0.25, "abc": 0.2, "b": 0.25}) == {b"a"}  # 0.75 against 1/3
    assert kept({"a": 0.5, "b": 0.5}) == {b"a", b"b"}
    assert kept({"a": 0.6, "b": 0.25, "c": 0.15}) == {b"a"}  # 0.25 of 0.85 is less than 1/3
    assert kept({"ba": 0.19, "ca": 0.19, "abc": 0.19, "abd": 0.19}, eos=0.02) >= {b""}


def test_in_a_chain_and_in_batches() -> None:
    chain = Chain(TopK(6), Infill(LETTERS))
    logits = logits_of("random", 4, SIZE, 3)
    context = history([[5]] * 4, eos=(EOS,))
    together = chain(logits, context)
    for row in range(4):
        assert torch.equal(
            chain(logits[row : row + 1], context.select(torch.tensor([row])))[0], together[row]
        )
    assert Infill(LETTERS) == Infill(LETTERS)
    with pytest.raises(TypeError, match="tokenizer=3 must be a Tokenizer"):
        Infill(3)  # type: ignore[arg-type]


def test_a_large_vocabulary_is_joined_in_time() -> None:
    """Every text of three letters: the joining looks at each beginning once."""
    names = [a + b + c for a in "abcdefghij" for b in ["", *"abcdefghij"] for c in ["", *"abcdefghij"]]
    tokenizer = made(models.BPE(vocab=numbered(names), merges=[]), decoders.ByteLevel())
    logits = logits_of("random", 2, len(tokenizer), 1)
    left = Infill(tokenizer)(logits, history([[5]] * 2, eos=(EOS,)))
    assert (left > -torch.inf).any(dim=-1).all()
