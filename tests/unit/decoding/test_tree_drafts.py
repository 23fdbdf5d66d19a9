"""Drafts that make trees leave the output of their target as it is, whatever they propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    Context,
    EagleDraft,
    EagleHead,
    Greedy,
    MedusaDraft,
    MedusaHeads,
    Speculative,
    TreeModel,
)
from minitx.decoding.arguments import resolve
from minitx.decoding.trees.draft import TreeDraft
from minitx.decoding.trees.loop import walk_trees
from minitx.decoding.trees.model_draft import ModelDrafter
from minitx.decoding.trees.rules import Offer
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.shape import TreeShape
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding import chi_square
from tests.unit.decoding.test_tree_forward import KINDS, PROMPTS, model_of

EAGLE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def medusa(model: Any, num_heads: int = 3, tree: Any = None) -> MedusaDraft:
    """Heads near the model's own output layer, so that some of their tokens are right."""
    generator = torch.Generator().manual_seed(0)
    heads = MedusaHeads(16, 40, num_heads)
    for head in heads:
        block, projection = head
        block.linear.weight.data.normal_(generator=generator)
        projection.weight.data.copy_(
            next(p for n, p in model.named_parameters() if n.endswith("word_emb.weight"))
        )
    return MedusaDraft(heads.double(), tree)


def eagle(model: Any, **sizes: int) -> EagleDraft:
    torch.manual_seed(1)
    return EagleDraft(EagleHead(EAGLE).double(), **{"depth": 3, "width": 3, "tokens": 9, **sizes})


def smaller(model: Any) -> TreeModel:
    """A draft model that is the model with some noise."""
    config = KINDS["t5" if model.task == "seq2seq-lm" else "llama"]
    draft = minitx.from_config(config, head=model.task, seed=0, dtype=torch.float64).eval()
    return TreeModel(draft, (3, 2, 1))


DRAFTS: dict[str, Callable[[Any], TreeDraft]] = {
    "medusa": medusa,
    "medusa chain": lambda model: medusa(model, 2, [(0,), (0, 0)]),
    "eagle": eagle,
    "eagle flat": lambda model: eagle(model, depth=1, width=4, tokens=2),
    "model": smaller,
}


def rows_of(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding", "bloom", "t5"])
def test_greedy_tokens_are_those_of_greedy(kind: str, draft: str) -> None:
    model = model_of(kind)
    if kind == "t5" and draft.startswith("eagle"):
        with pytest.raises(ArgumentValueError, match="without an encoder"):
            minitx.generate(model, PROMPTS, Speculative(draft=eagle(model)), max_new_tokens=4)
        return
    target = Greedy(repetition_penalty=1.1)
    options: Any = {"max_new_tokens": 24, "stop": minitx.Stop(eos=(3, 4, 5)), "logprobs": "raw"}
    expected = minitx.generate(model, PROMPTS, target, **options)
    found = minitx.generate(model, PROMPTS, Speculative(draft=DRAFTS[draft](model), target=target), **options)
    assert rows_of(found) == rows_of(expected)
    assert found.finish_reasons == expected.finish_reasons
    for one, other in zip(found.logprobs or [], expected.logprobs or [], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("draft", DRAFTS)
def test_a_target_that_draws_gives_its_own_tokens_by_comparison(draft: str) -> None:
    model = model_of("llama")
    target = minitx.Sample(temperature=0.8, top_p=0.9, presence_penalty=0.5)
    options: Any = {"max_new_tokens": 16, "num_samples": 2, "seed": 3}
    strategy = Speculative(draft=DRAFTS[draft](model), target=target, verify="match")
    assert rows_of(minitx.generate(model, PROMPTS, strategy, **options)) == rows_of(
        minitx.generate(model, PROMPTS, target, **options)
    )


@pytest.mark.parametrize("verify", ["rejection", "match"])
@pytest.mark.parametrize("draft", ["medusa", "eagle", "model"])
def test_a_batch_is_its_rows(draft: str, verify: Any) -> None:
    model = model_of("llama")
    strategy = Speculative(draft=DRAFTS[draft](model), target=minitx.Sample(), verify=verify)
    options: Any = {"max_new_tokens": 14, "seed": 1, "stop": minitx.Stop(eos=(3, 9))}
    together = rows_of(minitx.generate(model, PROMPTS, strategy, **options))
    alone = [rows_of(minitx.generate(model, [prompt], strategy, **options))[0] for prompt in PROMPTS]
    assert together == alone


# --- statistics ------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    **EAGLE,
    "vocab_size": 4,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
}
ROWS = 30_000


def tiny(seed: int) -> Any:
    return minitx.from_config({**TINY, "initializer_range": 0.7}, head="causal-lm", seed=seed).eval()


@torch.no_grad()
def next_law(model: Any, target: minitx.Sample, tokens: list[int]) -> Tensor:
    logits = model(torch.tensor([tokens])).logits[:, -1].double()
    length = torch.tensor([len(tokens)])
    context = Context(torch.tensor([tokens]), length, torch.full_like(length, 2))
    return target.build()(logits, context).softmax(dim=-1)[0]


def joint_law(model: Any, target: minitx.Sample, prompt: list[int], length: int) -> Tensor:
    """The probabilities of all sequences of this length, as one vector."""
    law, histories = torch.ones(1, dtype=torch.float64), [prompt]
    for _ in range(length):
        steps = torch.stack([next_law(model, target, history) for history in histories])
        law = (law[:, None] * steps).flatten()
        histories = [[*history, token] for history in histories for token in range(4)]
    return law


def tiny_draft(kind: str) -> TreeDraft:
    torch.manual_seed(5)
    if kind == "medusa":
        heads = MedusaHeads(8, 4, 2)
        for parameter in heads.parameters():
            parameter.data.normal_()
        return MedusaDraft(heads, [(0,), (1,), (0, 0), (1, 0), (1, 2)])
    if kind == "eagle":
        return EagleDraft(EagleHead(TINY), depth=2, width=2, tokens=5)
    return TreeModel(tiny(7), (2, 2))


def drawn(strategy: minitx.Strategy, model: Any, length: int) -> Tensor:
    result = minitx.generate(
        model, [[1, 2]], strategy, max_new_tokens=length, num_samples=ROWS, seed=11, stop=minitx.Stop(eos=())
    )
    tokens = torch.stack(result.sequences)
    return (tokens * 4 ** torch.arange(length - 1, -1, -1)).sum(dim=1)


TARGET = minitx.Sample(temperature=1.3, top_p=0.95, presence_penalty=0.7)


@pytest.mark.parametrize("kind", ["medusa", "eagle", "model"])
def test_sequences_follow_the_target(kind: str) -> None:
    """Sequences of three tokens cross the border of a tree wherever a row has accepted fewer than two."""
    model = tiny(3)
    strategy = Speculative(draft=tiny_draft(kind), target=TARGET)
    codes = drawn(strategy, model, 3)
    assert chi_square.fit(codes, joint_law(model, TARGET, [1, 2], 3)) > chi_square.ALPHA


@pytest.mark.parametrize("wrong", ["other temperature", "typical", "no penalty"])
def test_wrong_laws_are_found(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(3)
    strategy = Speculative(draft=tiny_draft("model"), target=TARGET)
    if wrong == "no penalty":
        strategy = replace(strategy, target=replace(TARGET, presence_penalty=0.0))
    elif wrong == "typical":
        strategy = replace(strategy, verify="typical")
        assert not strategy.exact
    else:
        propose = ModelDrafter.propose

        def _propose(self: ModelDrafter, session: TreeSession) -> Any:
            tree = propose(self, session)
            assert self.laws is not None
            self.laws = self.laws * 0.4
            return tree

        monkeypatch.setattr(ModelDrafter, "propose", _propose)
    codes = drawn(strategy, model, 3)
    assert chi_square.fit(codes, joint_law(model, TARGET, [1, 2], 3)) < chi_square.ALPHA


def test_children_are_accepted_as_often_as_the_laws_say(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draft = tiny(3), tiny_draft("model")
    assert isinstance(draft, TreeModel)
    lengths: list[Tensor] = []
    observe = ModelDrafter.observe

    def _observe(self: ModelDrafter, session: TreeSession, path: Any) -> None:
        lengths.append(path.lengths)
        observe(self, session, path)

    monkeypatch.setattr(ModelDrafter, "observe", _observe)
    drawn(Speculative(draft=draft, target=TARGET), model, 5)
    expected = 0.0
    first = next_law(model, TARGET, [1, 2])
    for token in range(4):
        laws = [next_law(each, TARGET, [1, 2, token]) for each in (model, draft.model)]
        expected += float(first[token]) * four_token_rate(*laws)
    rate = float((lengths[0] > 1).double().mean())
    assert abs(rate - expected) < 5 * (expected * (1 - expected) / ROWS) ** 0.5


def four_token_rate(p: Tensor, q: Tensor) -> float:
    """The probability that one of two children, drawn without replacement, is accepted; by definition."""
    rate = 0.0
    for one in range(4):
        for other in range(4):
            if one == other or q[one] == 0 or q[other] == 0:
                continue
            order = float(q[one] * q[other] / (1 - q[one]))
            first = min(1.0, float(p[one] / q[one]))
            left = (p - q).clamp(min=0)
            left = left / left.sum() if float(left.sum()) > 0 else p
            rest = q.clone()
            rest[one] = 0
            rest = rest / rest.sum()
            rate += order * (first + (1 - first) * min(1.0, float(left[other] / rest[other])))
    return rate


def test_a_draft_that_is_the_model_is_always_accepted() -> None:
    model = tiny(3)
    _, request = resolve(model, [[1, 2]] * 3, minitx.Sample(), {"max_new_tokens": 9, "seed": 0})
    for branching, forwards in (((1, 1, 1), 2), ((2, 1), 3)):
        drafter = TreeModel(model, branching).drafter(request)
        session = TreeSession(model, request, nodes=drafter.nodes)
        runs: list[int] = []
        run = session.run
        session.run = lambda tree, run=run, runs=runs: (runs.append(1), run(tree))[1]  # type: ignore[assignment, misc, func-returns-value]
        events = [
            e for step in walk_trees(session, drafter, Offer(drafter._randomness, drafter)) for e in step
        ]
        assert len(events) == 27
        assert len(runs) == forwards


# --- refusals --------------------------------------------------------------------------------------


def test_what_trees_cannot_do_is_refused() -> None:
    model = model_of("llama")
    draft = medusa(model)
    for fields, name in (
        ({"verify": "block"}, "verify"),
        ({"verify": "lenient", "threshold": 0.5}, "verify"),
        ({"tokens": 3}, "tokens"),
    ):
        with pytest.raises(ArgumentValueError, match=name):
            minitx.generate(model, PROMPTS, Speculative(draft=draft, **fields), max_new_tokens=4)  # type: ignore[arg-type]
    other = minitx.from_config({**KINDS["llama"], "vocab_size": 41}, head="causal-lm", seed=0).eval()
    for each in (draft, eagle(model), smaller(model)):
        with pytest.raises(ArgumentValueError, match="draft"):
            minitx.generate(other, PROMPTS, Speculative(draft=each), max_new_tokens=4)
    wide = minitx.from_config({**KINDS["llama"], "hidden_size": 32}, head="causal-lm", seed=0).eval()
    for each in (draft, eagle(model)):
        with pytest.raises(ArgumentValueError, match="hidden_size"):
            minitx.generate(wide, PROMPTS, Speculative(draft=each), max_new_tokens=4)
    short = minitx.from_config({**KINDS["gpt2"], "n_positions": 8}, head="causal-lm", seed=0).eval()
    with pytest.raises(ArgumentValueError, match="positions"):
        minitx.generate(model_of("gpt2"), PROMPTS, Speculative(draft=TreeModel(short)), max_new_tokens=4)
    with pytest.raises(ArgumentValueError, match="task"):
        minitx.generate(model_of("t5"), PROMPTS, Speculative(draft=smaller(model)), max_new_tokens=4)


def test_shapes_of_trees_are_checked() -> None:
    heads = MedusaHeads(16, 40, 2)
    assert MedusaDraft(heads, [(0, 1), (1,), (0,)]).shape.paths == ((0,), (1,), (0, 1))
    assert TreeShape.usual(2, 1).paths == ((0,), (1,), (0, 0), (0, 1), (1, 0))
    wrong: list[Any] = [[], [(0, 0)], [(0,), (0,)], [(0,), (0, 0), (0, 0, 0)], [()], [(-1,)]]
    for tree in wrong:
        with pytest.raises(ArgumentValueError, match="tree"):
            MedusaDraft(heads, tree)
    for tree in (3, [0], [("a",)]):
        with pytest.raises(ArgumentTypeError, match="tree"):
            MedusaDraft(heads, tree)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="vocab_size"):
        minitx.generate(
            model_of("llama"), PROMPTS, Speculative(draft=MedusaDraft(heads, [(40,)])), max_new_tokens=2
        )
    with pytest.raises(ArgumentTypeError, match="heads"):
        MedusaDraft(3)  # type: ignore[arg-type]
    for branching in ([], [0], [40, 40]):
        with pytest.raises(ArgumentValueError, match="branching"):
            TreeModel(model_of("llama"), branching)
    with pytest.raises(ArgumentTypeError, match="branching"):
        TreeModel(model_of("llama"), 3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="head"):
        EagleDraft(3)  # type: ignore[arg-type]
    for name in ("depth", "width", "tokens"):
        with pytest.raises(ArgumentValueError, match=name):
            EagleDraft(EagleHead(EAGLE), **{name: 0})
    draft = EagleDraft(EagleHead(EAGLE), width=41)
    with pytest.raises(ArgumentValueError, match="width"):
        minitx.generate(model_of("llama"), PROMPTS, Speculative(draft=draft), max_new_tokens=2)
