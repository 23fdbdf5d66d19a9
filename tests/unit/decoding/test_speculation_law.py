"""Speculative decoding leaves the model's distribution as it is: exactly, by enumeration in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.decoding.speculative.acceptance import (
    accept_probability,
    block_accept_probabilities,
    block_weights,
    residual,
    weighted_residual,
)
from minitx.decoding.speculative.verification import (
    Block,
    Ensemble,
    Lenient,
    Match,
    TokenByToken,
    Typical,
    Verdict,
    WholeBlock,
    rejection,
)
from tests.unit.decoding.speculation import (
    BELOW_ONE,
    SIZE,
    Draft,
    Model,
    Sequence,
    block_law,
    distance,
    plain_law,
    speculative_law,
    table_model,
)

EXACT: dict[str, Any] = {"rejection": TokenByToken(rejection), "match": Match(), "block": WholeBlock()}


def random_table(seed: int, scale: float = 1.5) -> Tensor:
    noise = torch.randn(SIZE + 1, SIZE + 1, SIZE, generator=torch.Generator().manual_seed(seed))
    return (scale * noise.double()).softmax(dim=-1)


def only(tokens: list[int], table: Tensor) -> Tensor:
    """The table without all other tokens."""
    kept = torch.zeros(SIZE, dtype=torch.float64)
    kept[tokens] = 1.0
    return table * kept / (table * kept).sum(dim=-1, keepdim=True)


def nucleus(table: Tensor, mass: float) -> Tensor:
    """The fewest most probable tokens of this mass."""
    values, order = table.sort(dim=-1, descending=True)
    kept = torch.zeros_like(table).scatter(-1, order, (values.cumsum(-1) - values < mass).double())
    return table * kept / (table * kept).sum(dim=-1, keepdim=True)


P, Q = random_table(0), random_table(1)
UNIFORM = torch.full_like(P, 1 / SIZE)
ONE_HOT = only([1], P)
# model, draft
TABLES: dict[str, tuple[Tensor, Tensor]] = {
    "random": (P, Q),
    "equal": (P, P),
    "uniform draft": (P, UNIFORM),
    "one-hot model": (ONE_HOT, Q),
    "disjoint supports": (only([0], P), only([1, 2], Q)),
    "top-p model, draft outside": (nucleus(P, 0.6), Q),
    "top-p model and draft": (nucleus(P, 0.6), nucleus(Q, 0.6)),
    "nearly equal": (P, (P + 1e-9) / (1 + SIZE * 1e-9)),
}


def lookup(tokens: Sequence) -> Tensor:
    """A draft that draws nothing: the token after the last one."""
    return torch.eye(SIZE, dtype=torch.float64)[(sum(tokens[-2:]) + 1) % SIZE]


@pytest.mark.parametrize("verify", EXACT)
@pytest.mark.parametrize("case", TABLES)
def test_the_law_is_the_models(verify: str, case: str) -> None:
    model, draft = map(table_model, TABLES[case])
    found = speculative_law(model, Draft(draft), EXACT[verify])
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert distance(found, plain_law(model)) < 1e-12


@pytest.mark.parametrize("verify", EXACT)
@pytest.mark.parametrize("case", ["random", "one-hot model", "top-p model, draft outside"])
def test_drafts_that_draw_nothing(verify: str, case: str) -> None:
    model = table_model(TABLES[case][0])
    found = speculative_law(model, Draft(lookup, one_hot=True), EXACT[verify])
    assert distance(found, plain_law(model)) < 1e-12


@pytest.mark.parametrize("verify", EXACT)
def test_the_number_of_drafted_tokens_may_depend_on_the_history(verify: str) -> None:
    """0, 1 or 2, as with rows of a batch, short look-ups and confident drafts."""
    model, draft = table_model(P), table_model(Q)
    changing = Draft(draft, count=lambda tokens: sum(tokens[-2:]) % 3)
    assert distance(speculative_law(model, changing, EXACT[verify]), plain_law(model)) < 1e-12


def test_block_verification_accepts_more() -> None:
    """Its expected number of tokens is at least that of the token-wise test, in theory and here."""
    expected = []
    for verification in (EXACT["rejection"], EXACT["block"]):
        law = block_law((), table_model(P), Draft(table_model(Q)), verification)
        expected.append(sum(len(tokens) * mass for tokens, mass in law.items()))
    assert expected[1] > expected[0] + 1e-3


# --- the mistakes that these tests are there to find -----------------------------------------------


def sharpened(model: Model, temperature: float) -> Model:
    return lambda tokens: (model(tokens).log() / temperature).softmax(dim=-1)


def unclamped(p: Tensor, q: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    difference = (p - q).abs()
    return accept_probability(p, q, token), difference / difference.sum(dim=-1, keepdim=True)


class BonusFromDraft(TokenByToken):
    """Takes the token after a block that was kept as a whole from the draft."""

    def __call__(self, block: Block) -> Verdict:
        size = block.proposal.tokens.shape[1]
        scores = block.scores
        wrong = block._replace(scores=lambda i: block.proposal.logits[:, 0] if i == size else scores(i))  # type: ignore[index]
        return super().__call__(wrong)


def penalised(tokens: Sequence, history: Sequence) -> Tensor:
    p = table_model(P)(tokens) * torch.tensor([0.3 if token in history else 1.0 for token in range(SIZE)])
    return p / p.sum()


class StaleHistory(TokenByToken):
    """Penalises the tokens that were there before the block, for all of its positions."""

    def __call__(self, block: Block) -> Verdict:
        def _scores(index: int) -> Tensor:
            # undo the penalty of the drafted tokens
            row = block.scores(index)[0].exp().clone()
            for token in {*block.proposal.tokens[0, :index].tolist()}:
                row[token] /= 0.3
            return (row / row.sum()).log()[None]

        return super().__call__(block._replace(scores=_scores))


MODEL, DRAFT = table_model(P), table_model(Q)
SOFT = table_model(nucleus(Q, 0.01))  # the most probable token alone


@pytest.mark.parametrize(
    ("model", "draft", "verification"),
    [
        (MODEL, Draft(sharpened(DRAFT, 0.7), states=DRAFT), EXACT["rejection"]),
        (MODEL, Draft(SOFT, states=DRAFT), EXACT["rejection"]),
        (MODEL, Draft(DRAFT), TokenByToken(unclamped)),
        (MODEL, Draft(DRAFT), BonusFromDraft(rejection)),
        (MODEL, Draft(DRAFT), TokenByToken(Typical(0.09))),
        (lambda tokens: penalised(tokens, tokens), Draft(DRAFT, memory=9), StaleHistory(rejection)),
    ],
    ids=["raw q", "softmax of a greedy draft", "unclamped", "bonus from q", "typical", "stale history"],
)
def test_mistakes_change_the_law(model: Model, draft: Draft, verification: Any) -> None:
    assert distance(speculative_law(model, draft, verification), plain_law(model)) > 1e-3


def test_the_penalised_model_itself_is_kept() -> None:
    """The last control fails by its history alone."""
    model: Model = lambda tokens: penalised(tokens, tokens)  # noqa: E731
    assert (
        distance(speculative_law(model, Draft(DRAFT, memory=9), EXACT["rejection"]), plain_law(model)) < 1e-12
    )


@pytest.mark.parametrize("rule", [Ensemble(0.5), Typical(0.09), Lenient(0.2)], ids=str)
def test_rules_that_are_not_exact_change_the_law(rule: Any) -> None:
    law = speculative_law(MODEL, Draft(DRAFT), TokenByToken(rule))
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    assert distance(law, plain_law(MODEL)) > 1e-3


def test_an_ensemble_has_the_law_of_the_mixture_up_to_the_last_token_of_a_block() -> None:
    """With weight 1 it is exact; the first token of a block has the mixture w p + (1 - w) q."""
    assert (
        distance(speculative_law(MODEL, Draft(DRAFT), TokenByToken(Ensemble(1.0))), plain_law(MODEL)) < 1e-12
    )
    first: dict[Sequence, float] = {}
    for tokens, mass in speculative_law(MODEL, Draft(DRAFT), TokenByToken(Ensemble(0.3))).items():
        first[tokens[:1]] = first.get(tokens[:1], 0.0) + mass
    mixture = 0.3 * MODEL(()) + 0.7 * DRAFT(())
    assert [first[(token,)] for token in range(SIZE)] == pytest.approx(mixture.tolist(), abs=1e-12)


# --- the functions ---------------------------------------------------------------------------------


def test_acceptance_and_residual_of_one_token() -> None:
    """min(p, q) + (1 - sum min(p, q)) residual = p (section 6.2)."""
    p, q = P.flatten(0, 1), Q.flatten(0, 1)
    tokens = torch.arange(SIZE).expand(len(p), SIZE)
    accept = torch.stack([accept_probability(p, q, tokens[:, i]) for i in range(SIZE)], dim=1)
    kept = q * accept
    assert torch.allclose(kept, torch.minimum(p, q), atol=1e-15)
    rest = 1 - kept.sum(dim=1, keepdim=True)
    assert torch.allclose(kept + rest * residual(p, q), p, atol=1e-15)


def test_borders_of_the_acceptance() -> None:
    p, q = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    assert [float(accept_probability(p, q, torch.tensor([i]))) for i in range(3)] == [0.0, 1.0, 0.0]
    assert torch.equal(residual(p, p), p)
    assert torch.equal(residual(p, q), p)
    ones = torch.ones(1)
    assert torch.equal(weighted_residual(p, p, ones), p)


def test_a_block_of_one_token_is_the_token_wise_test() -> None:
    p, q = P[0][:, None], Q[0][:, None]  # (4, 1, V)
    for token in range(SIZE):
        tokens = torch.full((SIZE + 1, 1), token)
        weights = block_weights(p, q, tokens)
        passing = block_accept_probabilities(p, q, weights, torch.ones(SIZE + 1, dtype=torch.long))
        assert torch.allclose(passing[:, 0], accept_probability(p[:, 0], q[:, 0], tokens[:, 0]))
    assert torch.equal(weighted_residual(p[:, 0], q[:, 0], weights[:, 0]), residual(p[:, 0], q[:, 0]))


def test_a_probability_of_0_is_never_accepted_and_one_of_1_always() -> None:
    """The uniform number is from 0 to just below 1; the comparison is strict."""
    model, draft = table_model(only([0], P)), table_model(only([1, 2], Q))
    law = speculative_law(model, Draft(draft), EXACT["rejection"])
    assert {tokens for tokens, mass in law.items() if mass} == {(0, 0, 0, 0)}
    assert BELOW_ONE < 1
