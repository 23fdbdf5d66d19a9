"""Prompts that begin like earlier ones run only the rest, and get the same tokens."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx import Beam, Greedy, PrefixCache, Sample, Stop
from minitx.decoding import ClassifierFree, Jacobi, PromptLookup, Speculative
from minitx.decoding.prefix.tree import PrefixTree
from minitx.pipelines import Conversation
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.test_session import CONFIGS, model_of

NO_END = Stop(eos=())
START = [5, 6, 7, 8, 9, 10]
CALLS = [[START], [[*START, 11], [*START[:4], 12, 13], [14]], [[14, 15], [*START, 11, 16, 17, 18]], [START]]
ALIBI: dict[str, Any] = {
    "vocab_size": 40,
    "model_type": "bloom",
    "hidden_size": 16,
    "n_head": 2,
    "n_layer": 2,
    "initializer_range": 0.5,
}


@pytest.fixture(scope="module")
def models() -> Any:
    """Returns a model by its kind, in float64."""
    known: dict[str, Any] = {}

    def _model(kind: str) -> Any:
        if kind not in known:
            model = (
                model_of(kind)
                if kind in CONFIGS
                else minitx.from_config(ALIBI, head="causal-lm", seed=0).eval()
            )
            known[kind] = model.double()
        return known[kind]

    return _model


@contextmanager
def run_tokens(model: Any) -> Iterator[list[int]]:
    """The number of columns of every forward, without a hook, since there is no reuse with one."""
    sizes: list[int] = []
    embedding, forward = model.decoder_embedder.word_emb, torch.nn.Embedding.forward

    def _counted(module: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        if module is embedding:
            sizes.append(ids.shape[1])
        return forward(module, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Embedding, "forward", _counted)
        yield sizes


def ids(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding", "alibi"])
@pytest.mark.parametrize(
    "strategy",
    [
        Greedy(),
        Sample(top_p=0.9, mirostat=(3.0, 0.2)),
        Beam(num_beams=3),
        Speculative(draft=PromptLookup()),
        Jacobi(),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_results_are_the_same_with_and_without(models: Any, kind: str, strategy: Any) -> None:
    model = models(kind)
    prefix = PrefixCache(model)
    for prompts in CALLS:
        options: dict[str, Any] = {"max_new_tokens": 7, "stop": NO_END}
        options |= {"seed": 4} if isinstance(strategy, Sample) else {}
        expected = ids(minitx.generate(model, prompts, strategy, **options))
        assert ids(minitx.generate(model, prompts, strategy, prefix=prefix, **options)) == expected
    assert prefix.reused > len(START)


def test_only_new_tokens_run(models: Any) -> None:
    model = models("llama")
    prefix = PrefixCache(model)
    options: dict[str, Any] = {"max_new_tokens": 4, "stop": NO_END, "prefix": prefix}
    result = minitx.generate(model, [START], Greedy(), **options)
    assert len(prefix) == len(START) + 3  # the last token of a result is not run
    again = [*START, *ids(result)[0], 20, 21]
    with run_tokens(model) as sizes:
        minitx.generate(model, [again], Greedy(), **options)
    assert sizes == [3, 1, 1, 1]
    with run_tokens(model) as sizes:
        minitx.generate(model, [again], Greedy(), **options)
    assert sizes == [1, 1, 1, 1]
    with run_tokens(model) as sizes:
        next(iter(minitx.stream(model, [[*again, 22]], Greedy(), **options)))
    assert sizes == [1]


def test_guidance_and_many_prompts_share_it(models: Any) -> None:
    model = models("gpt2")
    prefix = PrefixCache(model)
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END}
    guided = {"guidance": ClassifierFree(scale=1.5, negative_prompts=[[*START, 3]]), **options}
    prompts = [[*START, 4, 5]]
    for _ in range(2):
        shared = minitx.generate(model, prompts, Greedy(), prefix=prefix, **guided)
        assert ids(shared) == ids(minitx.generate(model, prompts, Greedy(), **guided))
    prompts = [[*START, number, *[7] * number] for number in range(1, 7)]
    with run_tokens(model) as sizes:
        many = minitx.generate_many(model, prompts, Greedy(), rows=2, prefix=prefix, **options)
    assert max(sizes) <= 7
    assert ids(many) == ids(minitx.generate(model, prompts, Greedy(), **options))


def test_changed_weights_empty_it() -> None:
    model = model_of("gpt2").double()
    prefix = PrefixCache(model)
    options: dict[str, Any] = {"max_new_tokens": 4, "stop": NO_END}
    minitx.generate(model, [START], Greedy(), prefix=prefix, **options)
    assert prefix.matching([*START, 1]) >= len(START)
    stream = minitx.stream(model, [START], Greedy(), prefix=prefix, **options)
    next(stream)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(-1)
    assert prefix.matching(START) == 0
    del stream  # its keys are those of the old weights
    assert len(prefix) == 0
    shared = minitx.generate(model, [START], Greedy(), prefix=prefix, **options)
    assert ids(shared) == ids(minitx.generate(model, [START], Greedy(), **options))
    prefix.clear()
    assert prefix.num_bytes == 0


def test_a_pass_and_another_backend_empty_it() -> None:
    """Keys of int8 projections are others, though parameters and buffers may be the same objects."""
    model = model_of("gpt2").double()
    prefix, attention = PrefixCache(model), model.decoder.layers[0].attention.self_attention
    kind, backend = type(attention.K), attention.backend

    class Negative(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -super().forward(x)

    def _fill() -> None:
        minitx.generate(model, [START], Greedy(), max_new_tokens=2, stop=NO_END, prefix=prefix)
        assert prefix.matching(START) == len(START)

    _fill()
    attention.K.__class__ = Negative
    assert prefix.matching(START) == 0
    attention.K.__class__ = kind
    _fill()
    attention.backend = lambda *args: backend(*args)
    assert prefix.matching(START) == 0


@pytest.mark.parametrize("many", [False, True])
def test_hooks_neither_read_nor_store(many: bool) -> None:
    model = model_of("gpt2").double()
    prefix, key = PrefixCache(model), model.decoder.layers[0].attention.self_attention.K
    function = minitx.generate_many if many else minitx.generate
    options: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END}
    plain = ids(function(model, [START], Greedy(), prefix=prefix, **options))
    stored = len(prefix)
    for register in (
        lambda: key.register_forward_hook(lambda module, args, output: -3 * output),
        lambda: key.register_forward_pre_hook(lambda module, args: (-3 * args[0],)),
    ):
        hook = register()
        hooked = ids(function(model, [START], Greedy(), prefix=prefix, **options))
        assert hooked == ids(function(model, [START], Greedy(), **options))
        assert hooked != plain
        hook.remove()
        assert (prefix.reused, len(prefix)) == (0, stored)


def test_it_is_refused_where_keys_depend_on_more(models: Any) -> None:
    for kind in ("t5", "longrope"):
        with pytest.raises(ArgumentValueError, match="keys depend on the tokens alone"):
            PrefixCache(models(kind))
    prefix = PrefixCache(models("gpt2"))
    options: dict[str, Any] = {"max_new_tokens": 2, "prefix": prefix}
    with pytest.raises(ArgumentValueError, match="of the model of the call"):
        minitx.generate(models("llama"), [START], Greedy(), **options)
    with pytest.raises(ArgumentValueError, match="None with inputs_embeds"):
        minitx.generate(
            models("gpt2"), [[5]], Greedy(), inputs_embeds=[torch.zeros(1, 16).double()], **options
        )
    with pytest.raises(ArgumentTypeError, match="PrefixCache"):
        minitx.generate(models("gpt2"), [[5]], Greedy(), max_new_tokens=2, prefix=True)
    with pytest.raises(ArgumentValueError, match="max_bytes"):
        PrefixCache(models("gpt2"), max_bytes=0)
    with pytest.raises(ArgumentValueError, match="at least 512; a token takes as many"):
        PrefixCache(models("gpt2"), max_bytes=511)


def test_a_new_parameter_at_the_address_of_an_old_one_is_another() -> None:
    model = model_of("llama")
    prefix, attention = PrefixCache(model), model.decoder.layers[0].attention.self_attention
    for _ in range(20):
        minitx.generate(model, [START], Greedy(), max_new_tokens=2, stop=NO_END, prefix=prefix)
        values = attention.V.weight.detach().clone()
        attention.V.weight = None  # its memory is free for the next one
        attention.V.weight = torch.nn.Parameter(values + torch.randn(values.shape) * 0.1)
        assert prefix.matching(START) == 0


def test_a_cache_filled_under_autocast_is_not_read_outside() -> None:
    model = model_of("llama")
    prefix = PrefixCache(model)
    options: dict[str, Any] = {"max_new_tokens": 3, "stop": NO_END}
    expected = ids(minitx.generate(model, [START], Greedy(), **options))
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            minitx.generate_many(model, [START, START[:3]], Greedy(), prefix=prefix, **options)
            assert prefix.matching(START) == len(START)
        assert ids(minitx.generate(model, [START], Greedy(), prefix=prefix, **options)) == expected


def test_a_long_conversation_fills_the_cache() -> None:
    """Each turn is a node after the one before: more of them than calls that Python nests."""
    tree, layers = PrefixTree(16 * 1500), [(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))]
    for end in range(1, 1600):
        tokens = [*range(end)]
        tree.add(tokens, [(key.expand(1, end, 2), value.expand(1, end, 2)) for key, value in layers])
    assert tree.tokens == 1500
    assert len([*tree.root.walk()]) == 1501


def test_of_a_prompt_that_does_not_fit_the_beginning_is_stored(models: Any) -> None:
    model = models("gpt2")
    prefix = PrefixCache(model, max_bytes=4 * 512 + 100)
    minitx.generate(model, [START], Greedy(), max_new_tokens=2, stop=NO_END, prefix=prefix)
    assert (len(prefix), prefix.matching(START)) == (4, 4)


def test_an_empty_cache_is_true_and_a_copy_is_empty(models: Any) -> None:
    model = models("llama")
    prefix = PrefixCache(model, max_bytes=8000)
    assert not len(prefix)
    assert prefix
    minitx.generate(model, [START], Greedy(), max_new_tokens=2, stop=NO_END, prefix=prefix)
    both, pickled = copy.deepcopy((model, prefix)), pickle.loads(pickle.dumps(prefix))
    assert both[1].model is both[0]
    for each in (both[1], pickled):
        assert not len(each)
        options: dict[str, Any] = {"max_new_tokens": 2, "stop": NO_END, "prefix": each}
        minitx.generate(each.model, [START], Greedy(), **options)
        assert repr(each) == repr(prefix)


def test_threads_share_it(models: Any) -> None:
    model = models("llama")
    prefix = PrefixCache(model, max_bytes=8000)
    prompts = [[[*START[: 1 + number % 5], number, 3]] for number in range(12)]
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END}

    def _run(prompt: Any) -> list[list[int]]:
        return ids(minitx.generate(model, prompt, Greedy(), prefix=prefix, **options))

    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(_run, prompts))
    assert shared == [ids(minitx.generate(model, prompt, Greedy(), **options)) for prompt in prompts]
    assert prefix.num_bytes <= 8000


def test_a_conversation_runs_each_message_once() -> None:
    name = "minitx/tiny-instruct"
    model, tokenizer = minitx.load(name).eval(), minitx.load_tokenizer(name)
    talk = Conversation(model, tokenizer)
    answers = []
    for text in ("What is the capital of Peru?", "And of France?"):
        prompt = talk.prompt(text)
        with run_tokens(model) as sizes:
            answers.append("".join(event.text for event in talk.stream(text, Greedy(), max_new_tokens=8)))
        expected = minitx.generate(model, [prompt], Greedy(), max_new_tokens=8, tokenizer=tokenizer)
        assert answers[-1] == expected.texts[0]  # type: ignore[index]
    assert sizes[0] < len(prompt) / 2
    assert talk._prefix
    with run_tokens(model) as sizes:
        rounded = [event.text for event in talk.stream("And?", Greedy(), max_new_tokens=3, cache="int8")]
    assert 1 <= len(rounded) <= 3
    assert sizes[0] > len(prompt)
    prefix = PrefixCache(model)
    with pytest.raises(ArgumentValueError, match=r"prefix=.* must be None with cache"):
        next(talk.stream("And?", Greedy(), max_new_tokens=3, cache="int8", prefix=prefix))
    talk.reset()
    assert talk._prefix is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_the_tree_holds_what_was_used_last(sequences: list[list[int]], room: int) -> None:
    """The key of a token is made of all tokens up to it."""

    def _layers(tokens: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        codes = [float(int("1" + "".join(map(str, tokens[: end + 1])))) for end in range(len(tokens))]
        key = torch.tensor(codes)[None, :, None]
        return [(key, -key), (key + 0.5, key)]

    whole, tree = PrefixTree(10**9), PrefixTree(room * 16)
    beginnings = set()
    for tokens in sequences:
        for each in (whole, tree):
            each.add(tokens, _layers(tokens))
            nodes = [*each.root.walk()]
            assert each.size == sum(node.size for node in nodes) == 16 * each.tokens
            assert each.size <= each.max_bytes
            count, _ = each.find(tokens)
            for number, pair in enumerate(_layers(tokens)):
                if count:
                    for stored, expected in zip(each.read(tokens[:count], number), pair, strict=True):
                        assert torch.equal(stored, expected[:, :count])
        beginnings |= {tuple(tokens[: end + 1]) for end in range(len(tokens))}
        assert whole.tokens == len(beginnings)
        if tree.max_bytes >= 16 * len(beginnings):
            assert tree.find(tokens)[0] == len(tokens)
