"""The children of a node, offered one after the other, leave the target's distribution unchanged."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from minitx.decoding.speculative.acceptance import accept_probability as acceptance
from minitx.decoding.speculative.acceptance import residual
from minitx.decoding.trees.acceptance import match, offer, typical, without
from minitx.decoding.trees.token_tree import TokenTree
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding import chi_square

V = 3
Law = dict[tuple[int, ...], float]


def laws(seed: int, rows: int = V, zero: float = 0.0) -> Tensor:
    """Random distributions (rows, V), float64; some entries are 0."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, V, generator=generator, dtype=torch.float64) + 0.01
    values[torch.rand(rows, V, generator=generator) < zero] = 0.0
    values[values.sum(1) == 0] = 1.0
    return values / values.sum(1, keepdim=True)


def top_p(p: Tensor, mass: float) -> Tensor:
    order = p.argsort(dim=1, descending=True)
    ranked = p.gather(1, order)
    kept = torch.where(ranked.cumsum(1) - ranked < mass, ranked, 0.0)
    cut = torch.zeros_like(p).scatter_(1, order, kept)
    return cut / cut.sum(1, keepdim=True)


ONE_HOT = torch.eye(V, dtype=torch.float64)
CASES: dict[str, tuple[Tensor, Tensor]] = {
    "random": (laws(0), laws(1)),
    "equal": (laws(2), laws(2)),
    "uniform draft": (laws(3), torch.full((V, V), 1 / V, dtype=torch.float64)),
    "certain target": (ONE_HOT[[1, 2, 0]], laws(4)),
    "certain draft": (laws(5), ONE_HOT),
    "disjoint": (
        torch.tensor([[1.0, 0, 0], [0.3, 0.7, 0], [0, 0, 1]], dtype=torch.float64),
        torch.tensor([[0, 0.4, 0.6], [0, 0, 1], [0.5, 0.5, 0]], dtype=torch.float64),
    ),
    "top-p target": (top_p(laws(6), 0.6), laws(7)),
    "zeros": (laws(8, zero=0.4), laws(9, zero=0.4)),
}


def draws_of(q: Tensor, count: int) -> list[tuple[tuple[int, ...], float]]:
    """All ordered draws of children without replacement, with their probabilities."""
    draws = []
    for tokens in permutations(range(V), count):
        left, chance = q.clone(), 1.0
        for token in tokens:
            total = float(left.sum())
            chance *= float(left[token]) / total if total > 0 else 0.0
            left[token] = 0.0
        if chance > 0:
            draws.append((tokens, chance))
    if not draws:  # fewer tokens than children
        return draws_of(q, count - 1)
    return draws


def node_law(
    p: Tensor, q: Tensor, count: int, *, chosen: tuple[int, ...] = ()
) -> list[tuple[int, bool, float]]:
    """Every (token, whether it is a child, probability) after a node; `offer` decides at each branch."""
    outcomes = []
    for tokens, drawn in [(chosen, 1.0)] if chosen else draws_of(q, count):
        children = torch.tensor([tokens])
        for number in range(len(tokens) + 1):
            uniforms = torch.ones(1, len(tokens), dtype=torch.float64)
            uniforms[0, number:] = 0.0  # rejects the first ones, accepts as soon as it can
            which, left = offer(p[None], None if chosen else q[None], children, uniforms)
            chance, law, draft = drawn, p.clone(), q.clone()
            for earlier in tokens[:number]:
                draft = ONE_HOT[earlier] if chosen else draft
                chance *= 1 - min(1.0, float(law[earlier] / draft[earlier]))
                rest = (law - draft).clamp(min=0)
                law = rest / rest.sum() if float(rest.sum()) > 0 else law
                draft = draft.clone()
                draft[earlier] = 0.0
                draft = draft / draft.sum() if float(draft.sum()) > 0 else draft
            if number == len(tokens):
                assert int(which) == -1
                assert torch.allclose(left[0], law, atol=1e-14)
                outcomes += [(token, False, chance * float(left[0, token])) for token in range(V)]
            else:
                draft = ONE_HOT[tokens[number]] if chosen else draft
                accepted = min(1.0, float(law[tokens[number]] / draft[tokens[number]]))
                assert accepted == 0.0 or int(which) == number
                outcomes.append((tokens[number], True, chance * accepted))
    return outcomes


def sequence_law(p: Tensor, q: Tensor, count: int, depth: int, length: int, last: int = 0) -> Law:
    """The law of sequences after a tree step of a Markov target, continued plainly."""
    if length == 0:
        return {(): 1.0}
    law: Law = {}
    if depth == 0:
        outcomes = [(token, False, float(p[last, token])) for token in range(V)]
    else:
        outcomes = node_law(p[last], q[last], count)
    for token, is_child, chance in outcomes:
        if chance > 0:
            deeper = depth - 1 if is_child else 0
            for rest, weight in sequence_law(p, q, count, deeper, length - 1, token).items():
                law[(token, *rest)] = law.get((token, *rest), 0.0) + chance * weight
    return law


def plain_law(p: Tensor, length: int) -> Law:
    law: Law = {}
    for sequence in product(range(V), repeat=length):
        chance, last = 1.0, 0
        for token in sequence:
            chance, last = chance * float(p[last, token]), token
        law[sequence] = chance
    return law


def distance(one: Law, other: Law) -> float:
    return max(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in {*one, *other})


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_branch_of_a_tree_step_adds_up_to_the_target(case: str, count: int) -> None:
    p, q = CASES[case]
    law = sequence_law(p, q, count, depth=2, length=3)
    assert distance(law, plain_law(p, 3)) < 1e-12


@pytest.mark.parametrize("chosen", [(0,), (2, 1), (1, 0, 2)])
@pytest.mark.parametrize("case", CASES)
def test_children_that_were_chosen_add_up_to_the_target(case: str, chosen: tuple[int, ...]) -> None:
    for p in CASES[case][0]:
        law = torch.zeros(V, dtype=torch.float64)
        accepted = 0.0
        for token, is_child, chance in node_law(p, p, 0, chosen=chosen):
            law[token] += chance
            accepted += chance * is_child
        assert torch.allclose(law, p, atol=1e-12, rtol=0)
        assert abs(accepted - float(p[list(chosen)].sum())) < 1e-12


def test_more_children_are_accepted_more_often() -> None:
    p, q = CASES["random"]
    rates = [sum(chance for _, is_child, chance in node_law(p[0], q[0], n) if is_child) for n in (1, 2, 3)]
    assert rates[0] < rates[1] < rates[2] + 1e-12
    assert abs(rates[0] - float(torch.minimum(p[0], q[0]).sum())) < 1e-12


def drawn(p: Tensor, q: Tensor | None, children: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    which, left = offer(p, q, children, torch.rand(children.shape, generator=generator, dtype=p.dtype))
    other = torch.multinomial(left, 1, generator=generator).squeeze(1)
    own = children.gather(1, which.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(which >= 0, own, other), which


def test_draws_follow_the_target_and_the_accept_rate() -> None:
    p, q = CASES["random"]
    rows = 100_000
    generator = torch.Generator().manual_seed(0)
    children = torch.multinomial(q[0].expand(rows, -1), 2, generator=generator)
    tokens, which = drawn(p[0].expand(rows, -1), q[0].expand(rows, -1), children, 1)
    assert chi_square.fit(tokens, p[0]) > chi_square.ALPHA
    rate = sum(chance for _, is_child, chance in node_law(p[0], q[0], 2) if is_child)
    assert abs(float((which >= 0).double().mean()) - rate) < 5 * (rate * (1 - rate) / rows) ** 0.5


@pytest.mark.parametrize("wrong", ["wrong law", "no residual", "typical"])
def test_wrong_rules_do_not_follow_the_target(wrong: str) -> None:
    """Each of these is an error that the test above must find."""
    p, q = (law[0].expand(100_000, -1) for law in CASES["random"])
    generator = torch.Generator().manual_seed(0)
    children = torch.multinomial(q, 2, generator=generator)
    tokens, _ = drawn(p, p if wrong == "wrong law" else q, children, 1)
    if wrong == "no residual":
        which, _ = offer(p, q, children, torch.rand(children.shape, generator=generator))
        other = torch.multinomial(p, 1, generator=generator).squeeze(1)
        tokens = torch.where(which >= 0, children.gather(1, which.clamp(min=0)[:, None]).squeeze(1), other)
    if wrong == "typical":
        first = children[:, :1]
        taken = typical(p, 0.3, 0.09).gather(1, first)
        tokens = torch.where(taken, first, torch.multinomial(p, 1, generator=generator)).squeeze(1)
    assert chi_square.fit(tokens, p[0]) < chi_square.ALPHA


def test_absent_children_are_never_accepted() -> None:
    p = laws(0)
    which, left = offer(p, None, torch.full((V, 2), -1), torch.zeros(V, 2))
    assert which.tolist() == [-1] * V
    assert torch.equal(left, p)
    assert offer(p, None, torch.tensor([[-1, 1]] * V), torch.zeros(V, 2))[0].tolist() == [1] * V


def test_small_functions() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.2, 0.0, 0.8]], dtype=torch.float64)
    assert acceptance(p, q, torch.tensor([0])).tolist() == [1.0]
    assert acceptance(p, q, torch.tensor([2])).tolist() == [0.0]
    assert residual(p, q)[0].tolist() == pytest.approx([0.375, 0.625, 0.0])
    assert torch.equal(residual(p, p), p)
    assert without(q, torch.tensor([0]))[0].tolist() == [0.0, 0.0, 1.0]
    assert without(ONE_HOT[:1], torch.tensor([0]))[0].tolist() == [0.0, 0.0, 0.0]
    assert match(torch.tensor([4, 7]), torch.tensor([[3, 4, 4], [1, 2, -1]])).tolist() == [1, -1]
    flat, peaked = torch.full((1, 4), 0.25), torch.tensor([[0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    assert typical(flat, 0.3, 0.09).all()  # 0.09 * exp(-ln 4) = 0.0225
    assert typical(peaked, 0.03, 0.09).all()
    assert typical(peaked, 0.3, 0.09)[0].tolist() == [True, False, False, False]


def test_trees_know_ancestors_depths_and_children() -> None:
    #  row 0: 0 ── 1 ── 3      row 1: 0 ── 1, node 2 is absent, 3 a child of 0
    #           └─ 2
    tree = TokenTree(
        torch.tensor([[5, 6, 7, 8], [5, 6, 0, 8]]), torch.tensor([[-1, 0, 0, 1], [-1, 0, -1, 0]])
    )
    assert tree.depth.tolist() == [[0, 1, 1, 2], [0, 1, 0, 1]]
    assert tree.mask[0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    numbers, tokens = tree.children(torch.tensor([0, 0]))
    assert numbers.tolist() == [[1, 2], [1, 3]]
    assert tokens.tolist() == [[6, 7], [6, 8]]
    numbers, tokens = tree.children(torch.tensor([1, 3]))
    assert numbers.tolist() == [[3], [-1]]
    assert tokens.tolist() == [[8], [-1]]
    chain = TokenTree.chain(torch.tensor([[1, 2, 3]]))
    assert chain.parents.tolist() == [[-1, 0, 1]]
    assert chain.mask[0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_trees_refuse_what_is_none() -> None:
    with pytest.raises(ArgumentTypeError):
        TokenTree([[1]], torch.tensor([[-1]]))  # type: ignore[arg-type]
    for parents in ([[-1, 1]], [[-1, -2]], [[0, 0]], [[-1]], [-1, 0]):
        with pytest.raises(ArgumentValueError):
            TokenTree(torch.tensor([[1, 2]]), torch.tensor(parents))
