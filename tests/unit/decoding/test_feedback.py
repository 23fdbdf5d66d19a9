"""Mirostat and adaptive-p: step by step against their definitions, and whether they reach their targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    AdaptiveP,
    BeamSample,
    Chain,
    Mirostat,
    MirostatV1,
    Sample,
    Speculative,
    StochasticBeam,
    Temperature,
    TopK,
)
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.search.base import Search
from minitx.decoding.speculative.draft import Draft
from minitx.decoding.speculative.early_exit import EarlyExit
from minitx.decoding.speculative.lookup import PromptLookup
from tests.unit.decoding import feedback as definitions
from tests.unit.decoding.histories import history, logits_of
from tests.unit.decoding.test_session import model_of, session_of

STEPS, ROWS, SIZE = 200, 3, 60

PAIRS = {
    "mirostat": (Mirostat(2.5, 0.2), lambda: definitions.Mirostat2(2.5, 0.2)),
    "mirostat slow": (Mirostat(4.0, 0.05), lambda: definitions.Mirostat2(4.0, 0.05)),
    "mirostat_v1": (MirostatV1(2.5, 0.2), lambda: definitions.Mirostat1(2.5, 0.2, 100)),
    "mirostat_v1, few": (MirostatV1(2.0, 0.1, 20), lambda: definitions.Mirostat1(2.0, 0.1, 20)),
    "adaptive_p": (AdaptiveP(0.4, 0.9), lambda: definitions.AdaptiveP(0.4, 0.9)),
    "adaptive_p, short": (AdaptiveP(0.9, 0.0), lambda: definitions.AdaptiveP(0.9, 0.0)),
}


def steps(rows: int, size: int, count: int, spread: float = 1.0) -> list[Tensor]:
    """Logits of `count` steps, a quarter of them with banned tokens."""
    kinds = ["random", "random", "holes", "random"]
    made = (logits_of(kinds[step % 4], rows, size, seed=step).double() for step in range(count))
    return [logits * spread for logits in made]


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("name", PAIRS)
def test_the_definition_over_200_steps(name: str) -> None:
    processor, definition = PAIRS[name]
    assert isinstance(processor, StatefulProcessor)
    context, references = history([[1]] * ROWS), [definition() for _ in range(ROWS)]
    state, generator = processor.init(context), torch.Generator().manual_seed(3)
    for logits in steps(ROWS, SIZE, STEPS):
        ours = processor(logits, context, state)
        expected = np.stack([each.process(z) for each, z in zip(references, logits.numpy(), strict=True)])
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, atol=1e-9)
        token = drawn(ours, generator)
        state = processor.update(state, context, token, logits)
        for each, chosen in zip(references, token.tolist(), strict=True):
            each.accept(chosen)
    numbers = state if isinstance(state, Tensor) else state[0] / state[1]
    wanted = [getattr(each, "mu", None) or each.total / each.weight for each in references]
    np.testing.assert_allclose(numbers.numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", [Mirostat, MirostatV1])
@pytest.mark.parametrize("tau", [2.0, 3.5])
def test_the_mean_surprise_is_tau(kind: Any, tau: float) -> None:
    """mu is bounded, so that the sum of s - tau is: over n tokens the mean differs by its range / (eta n)."""
    rows, count, eta = 32, 250, 0.1
    processor, context = kind(tau, eta), history([[1]] * rows)
    state, generator, surprises, limits = processor.init(context), torch.Generator().manual_seed(0), [], []
    for logits in steps(rows, 200, count, spread=0.8):
        left = processor(logits, context, state)
        token = drawn(left, generator)
        surprises.append(-left.log_softmax(-1).gather(1, token[:, None])[:, 0] / math.log(2))
        state = processor.update(state, context, token, logits)
        limits.append(state)
    mean = torch.stack(surprises[100:]).mean(dim=0)  # of each row, after the beginning
    exact = tau + (limits[99] - limits[-1]) / (eta * (count - 100))
    torch.testing.assert_close(mean, exact, rtol=1e-9, atol=1e-9)
    error = float(mean.std()) / math.sqrt(rows)
    assert abs(float(mean.mean()) - tau) < 5 * error + 0.05
    without = torch.stack([logits.softmax(-1) for logits in steps(rows, 200, 20, spread=0.8)])
    plain = -(without * without.clamp(min=1e-300).log2()).sum(-1).mean()
    assert abs(float(plain) - tau) > 0.5  # there is something to control


@pytest.mark.parametrize("target", [0.4, 0.5, 0.6])
def test_the_mean_probability_is_the_target(target: float) -> None:
    """Up to some hundredths: the control is proportional, and the tokens have the probabilities they have."""
    rows, count = 64, 300
    processor, context = AdaptiveP(target, 0.9), history([[1]] * rows)
    state, generator, chosen, plain = processor.init(context), torch.Generator().manual_seed(0), [], []
    for logits in steps(rows, 4, count, spread=0.5):
        p = logits.softmax(-1)
        token = drawn(processor(logits, context, state), generator)
        chosen.append(p.gather(1, token[:, None])[:, 0])
        plain.append(p.square().sum(-1))
        state = processor.update(state, context, token, logits)
    mean = torch.stack(chosen[50:]).mean(dim=0)
    assert abs(float(mean.mean()) - target) < 0.05
    assert float(mean.std()) < 0.03  # of every row, and not only of all together
    assert abs(float(torch.stack(plain).mean()) - 0.52) < 0.02


def test_adaptive_p_by_hand() -> None:
    """With the past at the target, a token at the target gets 5; the further away, the less."""
    p = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64)
    left = AdaptiveP(0.5, 0.9)(p.log(), history([[1]]))
    far, further = 0.2 / 0.3, 0.3 / 0.3
    expected = [5.0, 5 - 10 * far**2 / (1 + far), 5 - 10 * further**2 / (1 + further), -torch.inf]
    assert left[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", [Mirostat, MirostatV1])
def test_edges_of_mirostat(kind: Any) -> None:
    context = history([[1]] * 4)
    for made in ("ties", "one-hot", "huge", "holes"):
        for mu in (-50.0, 0.0, 3.0, 1e4):
            logits = logits_of(made, 4, 9)
            state = torch.full((4,), mu, dtype=torch.float64)
            left = kind(3.0)(logits, context, state)
            kept = left > -torch.inf
            assert kept.any(dim=-1).all()
            assert torch.equal(left[kept], logits[kept])
            assert torch.equal(left.amax(-1), logits.amax(-1))
            after = kind(3.0).update(state, context, logits.argmin(-1), logits)
            assert after.isfinite().all()  # also for a token that had been removed
    low = torch.full((4,), -50.0, dtype=torch.float64)
    left = kind(3.0, min_tokens_to_keep=3)(logits_of("random", 4, 9), context, low)
    assert (left > -torch.inf).sum(-1).tolist() == [3] * 4
    single = torch.zeros(4, 1)
    assert torch.equal(kind(3.0)(single, context), single)


def test_places_in_the_orders() -> None:
    """After the filters and the temperature, in whatever order these are."""
    fields: dict[str, Any] = {"temperature": 0.7, "top_k": 20, "mirostat": (3.0, 0.1)}
    for order in ("transformers", "vllm", "sglang", "tgi"):
        assert Sample(**fields, order=order).build() == Chain(Temperature(0.7), TopK(20), Mirostat(3.0, 0.1))
    for order in ("llama.cpp", "ollama", "mlx"):
        assert Sample(**fields, order=order).build() == Chain(TopK(20), Temperature(0.7), Mirostat(3.0, 0.1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mirostat": (0, 0.1)}, "mirostat: tau=0 must be in (0, inf)"),
        ({"mirostat": (5, 2)}, "mirostat: eta=2 must be in (0, 1]"),
        ({"mirostat": (5, 0.1, 100)}, "must be a tuple of at most 2 numbers: tau, eta"),
        ({"mirostat_v1": (5, 0.1, 1)}, "mirostat_v1: m=1 must be at least 2"),
        ({"mirostat_v1": (5, 0.1, 10.5)}, "mirostat_v1: m=10.5 must be an integer"),
        ({"adaptive_p": (1.5,)}, "adaptive_p: target=1.5 must be in [0, 1]"),
        ({"adaptive_p": (0.5, 1)}, "adaptive_p: decay=1 must be in [0, 0.99]"),
        ({"mirostat": 5, "mirostat_v1": 5}, "mirostat_v1=5 must be left out beside mirostat"),
        ({"mirostat_v1": 5, "adaptive_p": 0.5}, "adaptive_p=0.5 must be left out beside mirostat_v1"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        Sample(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize("search", [BeamSample, StochasticBeam])
def test_searches_refuse_adaptive_p(search: type[Search]) -> None:
    with pytest.raises(
        ValueError, match=r"adaptive_p=0.5 must be left out of \w+; its logits are no log-prob"
    ):
        search(adaptive_p=0.5)  # type: ignore[call-arg]


# --- in generate -----------------------------------------------------------------------------------

STRATEGIES = [
    Sample(mirostat=(1.5, 0.5)),
    Sample(mirostat_v1=(1.5, 0.5, 20), temperature=1.2),
    Sample(min_p=0.01, adaptive_p=(0.3, 0.8)),
    Sample(top_k=4, mirostat=(1.0, 0.5), xtc=(0.5, 0.1), dry=0.8),
]
OPTIONS: Any = {"max_new_tokens": 10, "stop": minitx.Stop(eos=()), "seed": 5}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("llama")


def rows(model: Any, prompts: list[list[int]], strategy: Any, **options: Any) -> list[list[int]]:
    result = minitx.generate(model, prompts, strategy, **(OPTIONS | options))
    return [row.tolist() for row in result.sequences]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_batch_samples_stream_and_explain(model: Any, strategy: Sample) -> None:
    together = rows(model, PROMPTS, strategy, num_samples=2)
    for place, prompt in enumerate(PROMPTS):
        assert rows(model, [prompt], strategy, num_samples=2) == together[2 * place : 2 * place + 2]
    explained = minitx.explain(model, PROMPTS[1], strategy, **OPTIONS)
    single = rows(model, PROMPTS[1:2], strategy)[0]
    assert [position.drawn.token for position in explained.positions] == single
    assert all(position.drawn.probability > 0 for position in explained.positions)
    events = list(minitx.stream(model, PROMPTS[1:2], strategy, **OPTIONS))
    assert [event.token for event in events] == single


def test_the_state_changes_what_is_drawn(model: Any) -> None:
    """With a learning rate of almost 0 the limit stays."""
    slow, fast = (rows(model, PROMPTS, Sample(mirostat=(1.0, eta))) for eta in (1e-9, 1.0))
    assert slow != fast


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_tokens_that_are_removed_again_leave_no_trace(model: Any, strategy: Sample) -> None:
    """As rejected drafts: a block of tokens, cropped per row, against the same tokens one by one."""
    tokens = torch.tensor([[20, 21, 22, 23], [24, 25, 26, 27], [28, 29, 30, 31]])
    for length in (2, torch.tensor([1, 3, 4])):
        block = session_of(model, strategy, seed=5)
        block.process(block.logits)
        block.step(tokens)
        block.crop(length)
        kept = [length] * 3 if isinstance(length, int) else length.tolist()
        left = block.process(block.logits)
        for row, count in enumerate(kept):
            one = session_of(model, strategy, seed=5)
            one.process(one.logits)
            for token in tokens[:, :count].unbind(dim=1):
                one.step(token)
                one.process(one.logits)
            expected = one.process(one.logits)[row]
            assert torch.equal(left[row] == -torch.inf, expected == -torch.inf)
            torch.testing.assert_close(left[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("draft", [PromptLookup(), EarlyExit(1)], ids=str)
def test_speculation_draws_the_same_tokens(model: Any, strategy: Sample, draft: Draft) -> None:
    """Sample-and-match: coins and states are those of single steps, whatever the blocks."""
    prompts = [[5, 6, 7, 5, 6, 7], *PROMPTS[1:]]
    speculative = Speculative(target=strategy, draft=draft, verify="match")
    assert rows(model, prompts, speculative) == rows(model, prompts, strategy)


@pytest.mark.parametrize("search", [BeamSample, StochasticBeam])
@pytest.mark.parametrize("name", ["mirostat", "mirostat_v1"])
def test_states_follow_their_beams(model: Any, search: type[Search], name: str) -> None:
    """The limit of each beam is that of its own tokens, after all reorderings."""
    strategy: Any = search(num_beams=4, **{name: (1.5, 0.3)})
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(search):  # type: ignore[misc,valid-type]
        def propose(self, state: Any) -> Any:
            candidates, session = super().propose(state), state.session
            context = session.context
            seen.append((context.tokens[:, : int(context.length.max())].clone(), session.states[0].clone()))
            return candidates

    watched = Watched(num_beams=4, **{name: (1.5, 0.3)})
    prompts = PROMPTS[:1]
    tokens = rows(model, prompts, watched)
    assert tokens == rows(model, prompts, strategy)
    processor = strategy.build().processors[0]
    histories, limits = seen[-1]
    assert len({*map(tuple, histories.tolist())}) > 1
    for text, limit in zip(histories.tolist(), limits, strict=True):
        state = processor.init(history([[1]]))
        for end in range(len(prompts[0]), len(text)):
            logits = model(torch.tensor([text[:end]])).logits[:, -1].detach().log_softmax(-1)
            state = processor.update(state, history([text[:end]]), torch.tensor([text[end]]), logits)
        assert float(limit) == pytest.approx(float(state), abs=1e-3)
    batch = rows(model, PROMPTS, strategy)
    assert batch[0] == tokens[0]
