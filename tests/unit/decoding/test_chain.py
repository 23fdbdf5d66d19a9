"""The chain: order, functions of one's own, states, traces, and who is to blame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from minitx.decoding import (
    AllowedTokens,
    Chain,
    Context,
    LogitBias,
    MinP,
    PrefixAllowed,
    RemoveInvalid,
    Renormalize,
    Sample,
    SuppressTokens,
    Temperature,
    TopK,
    TopP,
    select_state,
)
from minitx.decoding.processors.chain import unusable
from tests.unit.decoding.histories import history, logits_of

ROWS = [[1, 2, 3], [4, 5], [6]]
CONTEXT = history(ROWS, [2, 1, 1])


def test_no_processor_costs_nothing() -> None:
    logits = logits_of("random", 3, 8)
    assert Chain()(logits, CONTEXT) is logits


def test_processors_work_in_their_order() -> None:
    logits = logits_of("random", 3, 8)
    double = lambda z, _: z * 2  # noqa: E731
    plus_one = lambda z, _: z + 1  # noqa: E731
    assert torch.equal(Chain(double, plus_one)(logits, CONTEXT), logits * 2 + 1)
    assert torch.equal(Chain(plus_one, double)(logits, CONTEXT), (logits + 1) * 2)


def test_a_function_sees_the_whole_vocabulary_behind_top_k() -> None:
    seen = []

    def look(logits: Tensor, context: Context) -> Tensor:
        seen.append((logits, context))
        return logits

    logits = logits_of("random", 3, 100)
    left = Chain(TopK(3), look, MinP(0.1))(logits, CONTEXT)
    assert left.shape == (3, 100)
    assert torch.equal(seen[0][0], TopK(3)(logits, CONTEXT))
    assert seen[0][1] is CONTEXT


def test_what_is_token_blind_sees_the_survivors_of_top_k_alone() -> None:
    """In the vocabulary's order, so that where equal logits are cut the same ones stay."""

    @dataclass(frozen=True)
    class Spy:
        elementwise = True

        def __call__(self, logits: Tensor, context: Context) -> Tensor:
            seen.append(logits)
            return logits

    seen: list[Tensor] = []
    logits = logits_of("random", 3, 100)
    left = Chain(TopK(3), Spy())(logits, CONTEXT)
    assert torch.equal(left, TopK(3)(logits, CONTEXT))
    assert torch.equal(seen[0], torch.stack([row[row > -torch.inf] for row in left]))
    logits[1, :4] = 100.0  # four tokens tie, and all of them stay
    left = Chain(TopK(3), Spy())(logits, CONTEXT)
    assert torch.equal(seen[1], left)
    assert (left > -torch.inf).sum(dim=-1).tolist() == [3, 4, 3]


@pytest.mark.parametrize("seed", range(5))
def test_of_equal_survivors_the_same_are_cut(seed: int) -> None:
    equal = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:3]
    logits = logits_of("random", 3, 100).clamp(max=5).index_fill(1, equal, 9.0)
    left = Chain(TopK(3), TopP(0.5))(logits, CONTEXT)
    assert (left > -torch.inf)[0].nonzero().flatten().tolist() == equal.sort().values[1:].tolist()
    assert torch.equal(left, TopP(0.5)(TopK(3)(logits, CONTEXT), CONTEXT))


def test_a_function_may_write_into_what_it_is_given() -> None:
    """Neither the model's logits nor the steps before see it."""

    def ban_zero(logits: Tensor, context: Context) -> Tensor:
        logits[:, 0] = -torch.inf
        return logits

    class Adds:
        def init(self, context: Context) -> Tensor:
            return torch.zeros(len(context.length))

        def update(self, state: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
            return state + logits.zero_()[:, 0] + 1

        def __call__(self, logits: Tensor, context: Context, state: Tensor) -> Tensor:
            return logits.add_(state[:, None])

    for first in (Temperature(1.0), TopK(0), RemoveInvalid()):
        logits = logits_of("random", 3, 8)
        before = logits.clone()
        chain = Chain(first, ban_zero, Adds(), Chain(ban_zero), partial(ban_zero))
        left = chain(logits, CONTEXT)
        assert torch.equal(left, before.index_fill(1, torch.tensor([0]), -torch.inf))
        steps = [after for _, after in chain.trace(logits, CONTEXT)]
        assert torch.equal(steps[0], before)
        state = chain.update(chain.init(CONTEXT), CONTEXT, torch.tensor([1, 2, 3]), logits)[2]
        assert state.tolist() == [1.0, 1.0, 1.0]
        assert torch.equal(logits, before)


def test_processors_of_the_package_cost_no_copy() -> None:
    logits = logits_of("random", 3, 8)
    assert Chain(TopK(0), Chain(TopK(0)))(logits, CONTEXT) is logits


def test_chains_are_values() -> None:
    assert Chain(TopK(5), MinP(0.1)) == Chain(TopK(5), MinP(0.1)) != Chain(MinP(0.1), TopK(5))
    assert Chain(TopK(5)) != TopK(5)
    assert len({Chain(TopK(5)), Chain(TopK(5)), Chain()}) == 2
    assert Sample(chain=Chain(TopK(5))) == Sample(chain=Chain(TopK(5)))


def test_chains_in_chains() -> None:
    logits = logits_of("random", 3, 100)
    flat = Chain(Temperature(0.7), TopK(5), TopP(0.8))
    assert torch.equal(
        Chain(Temperature(0.7), Chain(TopK(5), TopP(0.8)))(logits, CONTEXT), flat(logits, CONTEXT)
    )


@pytest.mark.parametrize("size", [8, 200])
def test_trace_is_the_same_computation(size: int) -> None:
    def no_zero(logits: Tensor, context: Context) -> Tensor:
        return logits.index_fill(1, torch.tensor([0]), -torch.inf)

    logits = logits_of("random", 3, size)
    processors = (Temperature(0.7), TopK(5), TopP([0.8, 0.9, 1.0]), no_zero, MinP(0.1), Renormalize())
    chain = Chain(*processors)
    steps = chain.trace(logits, CONTEXT)
    assert [name for name, _ in steps] == [
        "Temperature 0.7",
        "TopK 5",
        "TopP",
        "no_zero",
        "MinP 0.1",
        "Renormalize",
    ]
    for count, (_, after) in enumerate(steps, 1):
        assert torch.equal(after, Chain(*processors[:count])(logits, CONTEXT))


def test_what_is_no_processor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be instances; make one: TopK\(\.\.\.\)"):
        Chain(TopK)
    with pytest.raises(TypeError, match=r"processors=0\.8 must be processors such as TopK\(50\)"):
        Chain(0.8)


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (None, "NoneType"),
        (torch.zeros(3), r"\(3,\) torch.float32"),
        (torch.zeros(3, 7), r"\(3, 7\) torch.float32"),
        (torch.zeros(3, 8).half(), r"\(3, 8\) torch.float16"),
        (torch.zeros(3, 8).long(), r"\(3, 8\) torch.int64"),
        (torch.zeros(3, 8).double(), r"\(3, 8\) torch.float64"),
    ],
)
def test_what_a_function_returns_is_checked(result: Any, got: str) -> None:
    def mine(logits: Tensor, context: Context) -> Any:
        return result

    with pytest.raises(ValueError, match=rf"mine returned {got}; expected logits, \(3, 8\) torch.float32"):
        Chain(mine)(logits_of("random", 3, 8), CONTEXT)


def test_an_error_says_which_processor_it_came_from() -> None:
    def mine(logits: Tensor) -> Tensor:
        return logits

    with pytest.raises(TypeError) as caught:
        Chain(TopK(3), mine)(logits_of("random", 3, 8), CONTEXT)
    assert caught.value.__notes__ == ["Raised by the processor mine(logits, context)."]


def test_repr_shows_the_processors() -> None:
    assert (
        repr(Chain(TopK(5), Temperature([0.5, 1])))
        == "Chain(TopK(top_k=5), Temperature(temperature=(0.5, 1.0)))"
    )
    assert len(Chain(TopK(5), Temperature(0.5))) == 2


# --- states --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thermostat:
    """A toy with a running state, as mirostat has one: the tokens drawn so far set each row's temperature."""

    def init(self, context: Context) -> dict[str, Any]:
        rows = len(context.length)
        return {"temperature": torch.ones(rows), "drawn": (torch.zeros(rows, dtype=torch.long),)}

    def update(
        self, state: dict[str, Any], context: Context, token: Tensor, logits: Tensor
    ) -> dict[str, Any]:
        hotter = state["temperature"] + 0.1 * token
        return {"temperature": hotter, "drawn": (state["drawn"][0] + 1,)}

    def __call__(self, logits: Tensor, context: Context, state: dict[str, Any]) -> Tensor:
        return logits / state["temperature"][:, None]


CHAIN = Chain(LogitBias({1: 0.5}), Thermostat(), TopK(3))


def run(chain: Chain, logits: Tensor, tokens: list[list[int]]) -> tuple[Any, list[Tensor]]:
    """The states and outputs while these tokens are drawn."""
    states, outputs = chain.init(CONTEXT), []
    for token in tokens:
        outputs.append(chain(logits, CONTEXT, states))
        states = chain.update(states, CONTEXT, torch.tensor(token), logits)
    return states, outputs


def test_states_are_carried_by_the_caller() -> None:
    logits = logits_of("random", 3, 8)
    states, outputs = run(CHAIN, logits, [[1, 2, 3], [4, 5, 6]])
    biased = logits + 0.5 * torch.nn.functional.one_hot(torch.tensor(1), 8)
    assert torch.equal(outputs[0], TopK(3)(biased, CONTEXT))
    assert torch.equal(outputs[1], TopK(3)(biased / (1 + 0.1 * torch.tensor([[1.0], [2], [3]])), CONTEXT))
    temperature = states[1]["temperature"]
    torch.testing.assert_close(temperature, torch.tensor([1.5, 1.7, 1.9]))
    assert states[1]["drawn"][0].tolist() == [2, 2, 2]


def test_no_states_are_fresh_states() -> None:
    logits = logits_of("random", 3, 8)
    assert torch.equal(CHAIN(logits, CONTEXT), CHAIN(logits, CONTEXT, CHAIN.init(CONTEXT)))


def test_states_go_back_by_keeping_an_old_one() -> None:
    """As speculation does that draws ahead and then takes tokens back."""
    logits = logits_of("random", 3, 8)
    kept, _ = run(CHAIN, logits, [[1, 2, 3]])
    before = CHAIN(logits, CONTEXT, kept)
    ahead = CHAIN.update(kept, CONTEXT, torch.tensor([7, 7, 7]), logits)
    assert not torch.equal(CHAIN(logits, CONTEXT, ahead), before)
    assert torch.equal(CHAIN(logits, CONTEXT, kept), before)


def test_states_follow_their_rows() -> None:
    """As beam search does that drops, repeats and reorders them."""
    logits, rows = logits_of("random", 3, 8), torch.tensor([2, 0, 2, 1])
    states, _ = run(CHAIN, logits, [[1, 2, 3]])
    expected = CHAIN(logits, CONTEXT, states)[rows]
    moved = CHAIN(logits[rows], CONTEXT.select(rows), select_state(states, rows))
    assert torch.equal(moved, expected)


class Mirostat:
    """Mirostat 2 (arXiv:2007.14966): keeps the surprise of what is drawn near `tau` bits."""

    def __init__(self, tau: float, eta: float) -> None:
        self.tau, self.eta = tau, eta

    def init(self, context: Context) -> Tensor:
        return torch.full((len(context.length),), 2 * self.tau)

    def __call__(self, logits: Tensor, context: Context, limit: Tensor) -> Tensor:
        surprise = -torch.log_softmax(logits, dim=-1) / math.log(2)
        too_much = surprise > torch.maximum(limit[:, None], surprise.amin(dim=-1, keepdim=True))
        return logits.masked_fill(too_much, -torch.inf)

    def update(self, limit: Tensor, context: Context, token: Tensor, logits: Tensor) -> Tensor:
        kept = torch.log_softmax(self(logits, context, limit), dim=-1)
        surprise = -kept.gather(1, token[:, None])[:, 0] / math.log(2)
        return limit - self.eta * (surprise - self.tau)


def test_a_processor_that_learns_from_what_was_drawn() -> None:
    """It needs the logits that it was given, behind a temperature, and not those of the chain."""
    rows, tau = 64, 3.0
    context = Context(
        tokens=torch.zeros(rows, 1, dtype=torch.long),
        length=torch.ones(rows, dtype=torch.long),
        prompt_length=torch.ones(rows, dtype=torch.long),
        eos=(),
    )
    generator = torch.Generator().manual_seed(0)
    chain = Chain(Temperature(1.7), Mirostat(tau, eta=0.1))
    states, surprises = chain.init(context), []
    for step in range(300):
        logits = torch.randn(rows, 500, generator=generator) * 2
        final = torch.softmax(chain(logits, context, states), dim=-1)
        token = torch.multinomial(final, 1, generator=generator)[:, 0]
        if step >= 100:
            surprises.append(-final.gather(1, token[:, None]).log2().mean().item())
        states = chain.update(states, context, token, logits)
    assert abs(sum(surprises) / len(surprises) - tau) < 0.05


def test_states_of_chains_in_chains() -> None:
    logits = logits_of("random", 3, 8)
    flat, flat_outputs = run(CHAIN, logits, [[1, 2, 3], [4, 5, 6]])
    nested, nested_outputs = run(
        Chain(Chain(LogitBias({1: 0.5}), Thermostat()), TopK(3)), logits, [[1, 2, 3], [4, 5, 6]]
    )
    assert torch.equal(torch.stack(flat_outputs), torch.stack(nested_outputs))
    assert torch.equal(flat[1]["temperature"], nested[0][1]["temperature"])


def test_select_state_says_what_a_state_may_be() -> None:
    with pytest.raises(TypeError, match="A state contains a float; it must consist of tensors"):
        select_state(({"mu": 1.0},), torch.tensor([0]))
    assert select_state([(), {}], torch.tensor([0])) == [(), {}]


# --- rows without a token ------------------------------------------------------------------------------


def test_unusable_rows() -> None:
    rows = [[0.0, 1.0], [-torch.inf, 1.0], [-torch.inf] * 2, [torch.nan, 1.0], [torch.inf, 1.0]]
    assert unusable(torch.tensor(rows)).tolist() == [False, False, True, True, True]


def test_contradictory_bans_name_the_processor_the_row_and_the_step() -> None:
    chain = Chain(
        Temperature(0.5),
        AllowedTokens([1, 2]),
        PrefixAllowed(lambda row, tokens: [2] if row == 1 else [1, 2]),
        SuppressTokens([2, 3]),
    )
    logits = logits_of("random", 3, 5)
    context = history([[1, 2, 3], [4, 5, 1, 1], [6]], [2, 1, 1])
    assert unusable(chain(logits, context)).tolist() == [False, True, False]
    message = (
        r"Row 1, step 3: SuppressTokens left no token\. Tokens after each step: "
        r"the model 5, Temperature 0\.5 5, AllowedTokens 2, PrefixAllowed 1, SuppressTokens 0\."
    )
    with pytest.raises(ValueError, match=message):
        chain.raise_for_empty_rows(logits, context)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_models_own_nan_is_the_models(value: float) -> None:
    """No processor hides it, and it is not blamed on one."""
    logits = logits_of("random", 3, 100)
    logits[2, 4] = value
    chain = Chain(Temperature(0.5), TopK(5), TopP(0.5), MinP(0.1))
    assert unusable(chain(logits, CONTEXT)).tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"Row 2, step 0: the model's logits hold NaN or \+inf"):
        chain.raise_for_empty_rows(logits, CONTEXT)
    with pytest.raises(ValueError, match=r"Row 0, step 1: the model left no token"):
        chain.raise_for_empty_rows(torch.full((3, 4), -torch.inf), CONTEXT)


def test_a_processor_that_makes_nan_is_named() -> None:
    def broken(logits: Tensor, context: Context) -> Tensor:
        return logits * torch.nan

    with pytest.raises(ValueError, match=r"Row 0, step 1: broken returned NaN or \+inf"):
        Chain(Temperature(0.5), broken).raise_for_empty_rows(logits_of("random", 3, 8), CONTEXT)


def test_remove_invalid_makes_nan_usable() -> None:
    logits = torch.tensor([[torch.nan, 1.0, -torch.inf], [torch.inf, 0.0, 1.0], [0.0, 0.0, 0.0]])
    repaired = Chain(RemoveInvalid())(logits, CONTEXT)
    assert not unusable(repaired).any()
    big = torch.finfo(torch.float32).max
    assert repaired.tolist() == [[0.0, 1.0, -big], [big, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_a_row_that_was_repaired_is_not_blamed() -> None:
    def repair(logits: Tensor, context: Context) -> Tensor:
        return logits.nan_to_num(nan=0.0, neginf=-torch.inf)

    logits = logits_of("random", 3, 5)
    logits[0, 0] = torch.nan
    logits[2] = torch.tensor([1.0, *[-torch.inf] * 4])
    with pytest.raises(ValueError, match=r"Row 2, step 0: SuppressTokens left no token"):
        Chain(repair, SuppressTokens([0])).raise_for_empty_rows(logits, CONTEXT)


def test_nothing_to_blame() -> None:
    Chain(TopK(1)).raise_for_empty_rows(logits_of("random", 3, 8), CONTEXT)


# --- context -------------------------------------------------------------------------------------------


def test_context_counts() -> None:
    context = history([[1, 2, 1, 1], [3, 3], []], [2, 0, 0])
    assert context.generated.tolist() == [2, 2, 0]
    assert context.counts(4).tolist() == [[0, 3, 1, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert context.counts(4, "output").tolist() == [[0, 2, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert context.counts(4, 3).tolist() == [[0, 2, 1, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    # Some models embed more ids than they can predict: those do not count.
    assert context.counts(2).tolist() == [[0, 3], [0, 0], [0, 0]]


def test_context_last_tokens() -> None:
    context = history([[1, 2, 3], [4], []])
    assert context.last(2).tolist() == [[2, 3], [-1, 4], [-1, -1]]
    assert context.last(0).shape == (3, 0)
    empty = Context(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2).long(), torch.zeros(2).long())
    assert empty.last(1).tolist() == [[-1], [-1]]
    assert empty.counts(2).tolist() == [[0, 0], [0, 0]]


def test_context_source() -> None:
    prompt, length = history([[1, 2, 3]], 2).source
    assert prompt[0, : length[0]].tolist() == [1, 2]
    context = history([[1, 2], [3, 4]], 1, encoder=[[5], [6, 7]])
    ids, length = context.select(torch.tensor([1, 1])).source
    assert ids[:, :2].tolist() == [[6, 7], [6, 7]]
    assert length.tolist() == [2, 2]
    incomplete = Context(prompt, length[:1], length[:1], encoder_tokens=prompt)
    with pytest.raises(ValueError, match=r"encoder_length=None must be the .* lengths of encoder_tokens"):
        incomplete.source  # noqa: B018
