"""A tree in one forward gives the logits of its paths, in every family; the cache keeps the accepted path."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import Greedy
from minitx.decoding.arguments import resolve
from minitx.decoding.output import collect
from minitx.decoding.trees.loop import Path, walk_trees
from minitx.decoding.trees.rules import Compare
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree
from minitx.layers.cache import SlidingWindowCache
from minitx.validation import ArgumentValueError
from tests.unit.decoding.test_session import CONFIGS, LLAMA, SMALL

KINDS: dict[str, dict[str, Any]] = {kind: CONFIGS[kind] for kind in ("gpt2", "llama", "sliding", "t5")} | {
    "bloom": {**SMALL, "model_type": "bloom", "hidden_size": 16, "n_head": 4, "n_layer": 2},
    "opt": {
        **SMALL,
        "model_type": "opt",
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 24,
        "max_position_embeddings": 64,
    },
    "m2m_100": {
        **SMALL,
        "model_type": "m2m_100",
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "decoder_start_token_id": 2,
    },
    "umt5": {**CONFIGS["t5"], "model_type": "umt5"},
    "gpt_neo": {
        **SMALL,
        "model_type": "gpt_neo",
        "hidden_size": 16,
        "num_heads": 2,
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "gemma2": {
        **LLAMA,
        "model_type": "gemma2",
        "head_dim": 4,
        "sliding_window": 4,
        "query_pre_attn_scalar": 4,
    },
}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 14, 15], [13]]
PARENTS = torch.tensor([[-1, 0, 0, 1, 1, 3, 2], [-1, 0, 1, 2, 3, 4, 5], [-1, 0, 0, 0, 3, -1, 4]])
TOKENS = torch.tensor(
    [[20, 21, 22, 23, 24, 25, 21], [20, 19, 22, 23, 24, 25, 26], [27, 28, 29, 30, 31, 0, 33]]
)


def model_of(kind: str) -> Any:
    head = "seq2seq-lm" if kind in ("t5", "umt5", "m2m_100") else "causal-lm"
    return minitx.from_config(KINDS[kind], head=head, seed=0, dtype=torch.float64).eval()


def session_of(model: Any, **options: Any) -> TreeSession:
    given: Any = {"max_new_tokens": 20, "stop": minitx.Stop(eos=()), **options}
    _, request = resolve(model, PROMPTS, Greedy(), given)
    session = TreeSession(model, request, nodes=7, keep_outputs=True)
    session.start()
    return session


def plain(session: TreeSession, row: int, tokens: list[int]) -> Tensor:
    """The logits after the tokens of a row, by one forward without a cache."""
    model: Any = session.model
    if session.request.sources is None:
        return model(torch.tensor([tokens])).logits[0, -1]
    source = torch.tensor([session.request.sources[row]])
    return model(source, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]


def check_nodes(session: TreeSession, tree: TokenTree) -> None:
    logits = session.outputs[-1].logits
    assert logits is not None
    for row, history in enumerate(session.history.rows()):
        for node in range(7):
            if node and tree.parents[row, node] < 0:
                continue
            path = tree.tokens[row][tree.mask[row, node]].tolist()
            expected = plain(session, row, history[:-1] + path)
            assert torch.allclose(logits[row, node], expected, rtol=0, atol=1e-10)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [20, 2**15])
def test_every_node_has_the_logits_of_its_path(kind: str, room: int) -> None:
    if room > 20 and kind in ("gpt2", "opt", "gpt_neo"):
        room = 40  # the table of positions ends
    session = session_of(model_of(kind), max_new_tokens=room)
    assert not any(isinstance(layer, SlidingWindowCache) for layer in session.cache.layers)
    everyone = torch.ones(3, dtype=torch.bool)
    session.append(TOKENS[:, 0], everyone)
    tree = TokenTree(TOKENS, PARENTS)
    session.run(tree)
    check_nodes(session, tree)
    # Each row accepts another number of nodes, and the last one none.
    paths = [[0, 1, 3, 5], [0, 1], []]
    for step in range(1, 4):
        tokens = torch.tensor(
            [TOKENS[row, path[step]] if step < len(path) else 0 for row, path in enumerate(paths)]
        )
        session.append(tokens, torch.tensor([step < len(path) for path in paths]))
    session.append(torch.tensor([34, 35, 0]), torch.tensor([True, True, False]))
    padded = torch.tensor([path + [0] * (4 - len(path)) for path in paths])
    session.keep(padded, torch.tensor([len(path) for path in paths]))
    tokens = torch.tensor([[34, *TOKENS[1, 1:]], [35, *TOKENS[0, 1:]], TOKENS[2].tolist()])
    tree = TokenTree(tokens, PARENTS[[1, 0, 2]])
    session.run(tree)
    check_nodes(session, tree)
    assert session.cache.length == max(map(len, session.history.rows())) - 1 + 7
    # Now all rows accept equally many, so that nothing but the last tokens moves.
    session.keep(torch.tensor([[0, 1, 2], [0, 2, 6], [0, 3, 4]]), torch.tensor([3, 3, 3]))
    for chosen in ([1, 2, 3], [2, 6, 4]):
        session.append(tokens.gather(1, torch.tensor(chosen)[:, None]).squeeze(1), everyone)
    session.append(torch.tensor([36, 37, 38]), everyone)
    tree = TokenTree(torch.cat((torch.tensor([[36], [37], [38]]), TOKENS[:, 1:]), dim=1), PARENTS)
    session.run(tree)
    check_nodes(session, tree)


def test_a_mask_of_queries_needs_positions_and_keeps_later_keys_masked() -> None:
    model = model_of("llama")
    cache = model.make_cache(20)
    ids = torch.tensor([[5, 6, 7, 8]])
    model(ids[:, :2], cache=cache)
    mask = torch.ones(1, 2, 4)
    with pytest.raises(ArgumentValueError, match="position_ids"):
        model(ids[:, 2:], mask, cache=cache)
    found = model(ids[:, 2:], mask, torch.tensor([[2, 3]]), cache=cache).logits
    assert torch.allclose(found, model(ids).logits[:, 2:], rtol=0, atol=1e-12)
    assert cache.mask is None
    with pytest.raises(ArgumentValueError, match="attention_mask"):
        model(ids[:, 2:], torch.ones(1, 2, 5), torch.tensor([[4, 5]]), cache=cache)


def test_what_a_cache_keeps_is_checked() -> None:
    model = model_of("sliding")
    cache = model.make_cache(20)
    model(torch.tensor([[5, 6, 7, 8, 9, 10]]), cache=cache)
    with pytest.raises(ValueError, match="ring buffer"):
        cache.keep(torch.ones(1, 6, dtype=torch.bool))
    model = model_of("llama")
    cache = model.make_cache(20)
    model(torch.tensor([[5, 6, 7]]), cache=cache)
    some = torch.tensor([[True, False, True]])
    for kept in (some.long(), some[:, :2], some[0], some.expand(2, -1), some & ~some):
        with pytest.raises(ArgumentValueError, match="kept"):
            cache.keep(kept)
    assert cache.length == 3


def test_positions_that_depend_on_the_length_are_refused() -> None:
    model = minitx.from_config(CONFIGS["longrope"], head="causal-lm", seed=0).eval()
    with pytest.raises(ArgumentValueError, match="longrope"):
        session_of(model)


class RandomTrees:
    """Proposes trees of any shape, of which some nodes are right and some rows have fewer nodes."""

    nodes, keep_outputs, hidden_states = 9, False, False
    laws: Tensor | None = None

    def __init__(self, rows: list[list[int]], seed: int) -> None:
        self.rows, self.random, self.lengths = rows, random.Random(seed), [0]

    def propose(self, session: TreeSession) -> TokenTree:
        tokens, parents = [], []
        for row, history in zip(self.rows, session.history.rows(), strict=True):
            done = int(session.context.generated[len(tokens)])
            own, above, depth = [history[-1]], [-1], [0]
            for node in range(1, self.nodes):
                parent = self.random.randrange(-1, node) if self.random.random() < 0.9 else -1
                place = done + (depth[parent] if parent >= 0 else 0)
                right = place < len(row) and self.random.random() < 0.6
                own.append(row[place] if right else self.random.randrange(40))
                above.append(parent)
                depth.append(depth[parent] + 1 if parent >= 0 else 0)
            tokens.append(own)
            parents.append(above)
        return TokenTree(torch.tensor(tokens), torch.tensor(parents))

    def observe(self, session: TreeSession, path: Path) -> None:
        self.lengths += path.lengths.tolist()


@pytest.mark.parametrize("kind", ["gpt2", "sliding", "t5", "bloom"])
def test_trees_of_any_shape_give_the_tokens_of_greedy(kind: str) -> None:
    model = model_of(kind)
    _, request = resolve(
        model, PROMPTS, Greedy(), {"max_new_tokens": 25, "stop": minitx.Stop(eos=(3, 4)), "num_samples": 1}
    )
    expected = minitx.generate(
        model, PROMPTS, Greedy(), max_new_tokens=25, stop=minitx.Stop(eos=(3, 4))
    ).sequences
    for seed in range(3):
        drafter = RandomTrees([row.tolist() for row in expected], seed)
        session = TreeSession(model, request, nodes=drafter.nodes)
        events = (event for step in walk_trees(session, drafter, Compare(request.sampler)) for event in step)
        found = collect(events, request).sequences
        assert [row.tolist() for row in found] == [row.tolist() for row in expected]
        assert max(drafter.lengths) > 2
