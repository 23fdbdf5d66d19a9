"""XTC: its law over coins is that of its average, and its coin is a function of key and position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.counter import uniforms
from minitx.decoding import XTC, AveragedXTC, Beam, BeamSample, Chain, Context, Greedy, Sample, StochasticBeam
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.search.base import Search
from minitx.validation import ArgumentValueError
from tests.unit.decoding.chi_square import ALPHA, DRAWS, fit, independence
from tests.unit.decoding.histories import history
from tests.unit.decoding.test_session import model_of

LOGITS = torch.tensor([1.2, 0.9, -0.2, 0.6, -1.0, -3.0, 0.3])  # four tokens above 0.1
KEYS = row_keys(7, [[1, 2]], DRAWS)


def context_of(keys: Tensor, generated: int = 0) -> Context:
    rows, length = len(keys), 2 + generated
    lengths = torch.full((rows,), length)
    return Context(torch.zeros(rows, length).long(), lengths, torch.full((rows,), 2), keys=keys)


def coins(keys: Tensor, generated: int, probability: float = 0.5) -> Tensor:
    """Which rows lose their top choices."""
    left = XTC(probability)(LOGITS.expand(len(keys), -1), context_of(keys, generated))
    return left[:, 0] == -torch.inf


def test_either_nothing_or_all_top_choices_but_the_least() -> None:
    rows = LOGITS.expand(1000, -1)
    left = XTC(0.5)(rows, context_of(KEYS[:1000]))
    removed = left == -torch.inf
    high = (LOGITS.softmax(-1) >= 0.1).nonzero().flatten().tolist()
    assert high == [0, 1, 3, 6]
    expected = torch.zeros(7, dtype=torch.bool)
    expected[[0, 1, 3]] = True  # 6 is the least probable of them
    struck = removed.any(dim=-1)
    assert torch.equal(removed[struck], expected.expand(int(struck.sum()), -1))
    assert torch.equal(left[~removed], rows[~removed])
    assert 400 < int(struck.sum()) < 600


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_law_is_the_mixture(probability: float) -> None:
    """p' = (1 - x) p + x p_cut: drawn with coin and noise of the same keys; and it is AveragedXTC's."""
    rows = LOGITS.expand(DRAWS, -1)
    for generated in (0, 5):
        context = context_of(KEYS, generated)
        drawn = CounterGumbel(KEYS)(XTC(probability)(rows, context), generated)
        p, cut = LOGITS.double().softmax(-1), LOGITS.double()
        cut = cut.masked_fill(torch.tensor([True, True, False, True, False, False, False]), -torch.inf)
        mixture = (1 - probability) * p + probability * cut.softmax(-1)
        assert fit(drawn, mixture) > ALPHA
        averaged = AveragedXTC(probability)(LOGITS.double()[None], context)[0].softmax(-1)
        torch.testing.assert_close(averaged, mixture, rtol=0, atol=1e-12)
    wrong = 0.9 * mixture + 0.1 * p if probability == 1 else mixture.roll(1)
    assert fit(drawn, wrong) < ALPHA  # the test can fail


def test_coins_are_fair_and_independent() -> None:
    """Of rows, of positions, of the noise that draws the tokens, and of probability as declared."""
    for generated in (0, 1):
        flips = coins(KEYS, generated, 0.3).long()
        assert fit(flips, torch.tensor([0.7, 0.3])) > ALPHA
    first, second = coins(KEYS, 0).long(), coins(KEYS, 1).long()
    assert independence(first, second, 2) > ALPHA
    assert independence(first[:-1], first[1:], 2) > ALPHA
    tokens = CounterGumbel(KEYS)(LOGITS.expand(DRAWS, -1), 0)
    assert independence(first, (tokens < 2).long(), 2) > ALPHA
    numbers = uniforms(KEYS, 3, 1)
    assert fit((numbers * 10).long(), torch.full((10,), 0.1)) > ALPHA
    assert 0 <= float(numbers.min()) <= float(numbers.max()) < 1


def test_too_few_top_choices() -> None:
    keys = KEYS[:50]
    one = torch.tensor([5.0, 0.0, 0.0]).expand(50, -1)
    assert torch.equal(XTC(1.0, 0.1)(one, context_of(keys)), one)
    ties = torch.zeros(50, 4)  # all equally probable, so that none is less probable than another
    assert torch.equal(XTC(1.0, 0.1)(ties, context_of(keys)), ties)
    kept = XTC(1.0, 0.05, min_tokens_to_keep=3)(LOGITS.expand(50, -1), context_of(keys)) > -torch.inf
    assert kept[:, [0, 1, 3]].all()


def test_without_keys_it_is_refused() -> None:
    with pytest.raises(ArgumentValueError, match=r"Context.keys=None must be the random keys of the rows"):
        XTC(0.5)(LOGITS[None], history([[1]]))
    assert torch.equal(Chain(XTC(0.0))(LOGITS[None], context_of(KEYS[:1])), LOGITS[None])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"xtc": (1.5, 0.1)}, "xtc: probability=1.5 must be in [0, 1]"),
        ({"xtc": (0.5, 0.6)}, "xtc: threshold=0.6 must be in (0, 0.5]"),
        ({"xtc": (0.5, 0.1, 2)}, "must be a tuple of at most 2 numbers: probability, threshold"),
        ({"xtc": 0.5, "averaged_xtc": 0.5}, "averaged_xtc=0.5 must be left out beside xtc"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        Sample(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize("search", [BeamSample, StochasticBeam])
def test_searches_refuse_it(search: type[Search]) -> None:
    with pytest.raises(ValueError, match=r"xtc=0.5 must be left out of \w+; its coin .* averaged_xtc"):
        search(xtc=0.5)  # type: ignore[call-arg]


# --- in generate -----------------------------------------------------------------------------------

STRATEGY = Sample(xtc=(0.5, 0.02), temperature=0.8)
OPTIONS: Any = {"max_new_tokens": 8, "stop": minitx.Stop(eos=())}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13], [5, 6, 7]]


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


def rows(model: Any, prompts: list[list[int]], strategy: Any = STRATEGY, **options: Any) -> list[list[int]]:
    result = minitx.generate(model, prompts, strategy, **OPTIONS, **options)
    return [row.tolist() for row in result.sequences]


def test_a_row_does_not_depend_on_its_batch(model: Any) -> None:
    together = rows(model, PROMPTS, seed=3, num_samples=2)
    assert rows(model, PROMPTS[1:2], seed=3, num_samples=2) == together[2:4]
    assert rows(model, PROMPTS[2:0:-1], seed=3, num_samples=2) == [*together[4:6], *together[2:4]]
    assert together[0] != together[1]
    assert together != rows(model, PROMPTS, Sample(temperature=0.8), seed=3, num_samples=2)
    assert together != rows(model, PROMPTS, seed=4, num_samples=2)


def test_sources_of_randomness(model: Any) -> None:
    def drawn(**options: Any) -> list[list[int]]:
        return rows(model, PROMPTS, **options)

    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    assert drawn(generator=first) == drawn(generator=second)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        tokens = drawn()
        torch.manual_seed(2)
        assert drawn() == tokens
    arithmetic = minitx.ArithmeticSample(xtc=(0.5, 0.02))
    for source in ({"seed": 3}, {"generator": torch.Generator().manual_seed(1)}):
        assert len(rows(model, PROMPTS, arithmetic, num_samples=2, **source)) == 8


def test_a_generator_is_used_for_coins_only_if_there_are_some(model: Any) -> None:
    """So that a generator draws as transformers does."""
    plain, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    rows(model, PROMPTS, Sample(), generator=plain)
    rows(model, PROMPTS, Sample(averaged_xtc=0.5), generator=other)
    assert torch.equal(plain.get_state(), other.get_state())


def test_a_strategy_that_draws_nothing(model: Any) -> None:
    chain = Chain(XTC(0.5))
    for strategy in (Greedy(chain=chain), Beam(chain=chain)):
        with pytest.raises(ValueError, match=r"must be one that draws tokens; XTC 0.5 draws; Sample"):
            rows(model, PROMPTS, strategy)
    literal = Sample(chain=Chain(XTC(0.5, 0.02), minitx.decoding.Temperature(0.8)))
    strategy = Sample(xtc=(0.5, 0.02), temperature=0.8, order="llama.cpp")
    assert rows(model, PROMPTS, literal, seed=3) == rows(model, PROMPTS, strategy, seed=3)
    searched = BeamSample(chain=chain, num_beams=2)
    assert rows(model, PROMPTS[1:], searched, seed=3)[1] == rows(model, PROMPTS[2:3], searched, seed=3)[0]


def test_explain_and_stream_see_the_same_coins(model: Any) -> None:
    expected = rows(model, PROMPTS[:1], seed=3)[0]
    explained = minitx.explain(model, PROMPTS[0], STRATEGY, seed=3, **OPTIONS)
    assert [position.drawn.token for position in explained.positions] == expected
    assert {"XTC 0.5"} <= {step.name for step in explained.positions[0].steps}
    assert all(position.drawn.probability > 0 for position in explained.positions)
    events = list(minitx.stream(model, PROMPTS[:1], STRATEGY, seed=3, **OPTIONS))
    assert [event.token for event in events] == expected


def test_a_block_has_the_coins_of_its_tokens(model: Any) -> None:
    """A step over several tokens, and one after tokens were removed again, as in speculative decoding."""
    from tests.unit.decoding.test_session import session_of

    one, block = (session_of(model, STRATEGY, seed=3) for _ in range(2))
    tokens = torch.tensor([[20, 21, 22, 23], [24, 25, 26, 27], [28, 29, 30, 31]])
    for token in tokens[:, :2].unbind(dim=1):
        one.step(token)
    block.step(tokens)
    block.crop(2)
    left, expected = block.process(block.logits), one.process(one.logits)
    assert torch.equal(left == -torch.inf, expected == -torch.inf)
    torch.testing.assert_close(left, expected, rtol=1e-4, atol=1e-4)


def test_one_value_of_seed_per_prompt(model: Any) -> None:
    together = rows(model, PROMPTS[:2], seed=[3, 9])
    assert together[0] == rows(model, PROMPTS[:1], seed=3)[0]
    assert together[1] == rows(model, PROMPTS[1:2], seed=9)[0]
