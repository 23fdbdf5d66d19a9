"""DRY against its definition by brute force, on random histories, with breakers and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.decoding import DRY, Chain, Greedy, Sample
from tests.unit.decoding import definitions as d
from tests.unit.decoding.histories import history, logits_of

SIZE = 6
TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=3)


def newest(text: list[int]) -> torch.Tensor:
    return torch.tensor([text[::-1]])


def test_the_example_of_llama_cpp() -> None:
    """a b c c b c y a b c: the comment in its source has these counts."""
    a, b, c, y = 0, 1, 2, 3
    text = [a, b, c, c, b, c, y, a, b, c]
    assert d.repeat_counts(text) == [0, 0, 3, 1, 0, 2, 0, 0, 0, 0]
    assert DRY(0.8, 1.75, 2).repetitions(newest(text)).tolist() == [[0, 0, 0, 2, 0, 1, 3, 0, 0]]
    z = torch.zeros(1, 5, dtype=torch.float64)
    ours = DRY(0.8, 1.75, 2)(z, history([text]))
    # c would continue "a b c", y would continue "b c"; b, after the single c, would continue too little.
    torch.testing.assert_close(ours, torch.tensor([[0, 0, -0.8 * 1.75, -0.8, 0]], dtype=torch.float64))


@given(
    texts=TEXTS,
    allowed=st.integers(1, 4),
    base=st.sampled_from([1.0, 1.01, 1.75, 3.0]),
    window=st.sampled_from([None, 1, 2, 5, 40]),
    breakers=st.sampled_from([(), (2,), (0, 3), (5,), (99,)]),
)
@settings(max_examples=300)
def test_the_definition(
    texts: list[list[int]], allowed: int, base: float, window: int | None, breakers: tuple[int, ...]
) -> None:
    logits = logits_of("random", len(texts), SIZE).double()
    ours = DRY(0.8, base, allowed, window, breakers)(logits, history(texts))
    for z, row, text in zip(logits.numpy(), ours.numpy(), texts, strict=True):
        expected = d.dry(z, text[-(window or 100) :], 0.8, base, allowed, breakers)
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)


def test_a_repetition_without_end_stays_finite() -> None:
    """The same token again and again: the penalty grows to 1e30 times the multiplier, and no further."""
    context = history([[1] * 400, [1, 2] * 200])
    ours = DRY(0.5, 1.75, 2)(torch.zeros(2, 4), context)
    assert ours.isfinite().all()
    assert ours[0].tolist() == pytest.approx([0, -5e29, 0, 0], rel=1e-6)
    assert ours[1].tolist() == pytest.approx([0, -5e29, 0, 0], rel=1e-6)
    assert ours.softmax(-1)[0].tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    flat = DRY(0.5, 1.0, 2)(torch.zeros(2, 4), context)  # with base 1 the penalty never grows
    assert flat[0].tolist() == [0, -0.5, 0, 0]


def test_breakers() -> None:
    text = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    z = torch.zeros(1, SIZE)
    assert (DRY(1.0, 1.0, 2)(z, history([text])) < 0)[0].tolist() == [False, False, True, False, False, False]
    assert torch.equal(DRY(1.0, 1.0, 2, breakers=[2])(z, history([text])), z)  # never penalised
    assert torch.equal(DRY(1.0, 1.0, 2, breakers=[1])(z, history([text])), z)  # the repetition ends there
    assert torch.equal(DRY(1.0, 1.0, 3, breakers=[3])(z, history([text])), z)  # "0 1" is too short alone
    assert torch.equal(
        DRY(1.0, 1.0, 2, breakers=[3])(z, history([text])), DRY(1.0, 1.0, 2)(z, history([text]))
    )


def test_off_and_short_histories() -> None:
    z = logits_of("random", 2, SIZE)
    assert DRY(0.0)(z, history([[1, 1, 1], [2, 2, 2]])) is z
    for texts in ([[], []], [[1], []], [[1], [2]]):
        assert torch.equal(DRY(1.0, allowed_length=1)(z, history(texts)), z)


def test_the_field() -> None:
    assert Sample(dry=(0.8, 1.75, 3, 64), dry_breakers=[4]).build() == Chain(DRY(0.8, 1.75, 3, 64, (4,)))
    assert Greedy(dry=0.8).build() == Chain(DRY(0.8, 1.75, 2))
    order = Sample(dry=0.8, repetition_penalty=1.2, no_repeat_ngram_size=2).build().processors
    assert [type(each).__name__ for each in order] == ["RepetitionPenalty", "DRY", "NoRepeatNGram"]
    first = Sample(dry=0.8, repetition_penalty=1.2, order="aphrodite").build().processors
    assert [type(each).__name__ for each in first] == ["DRY", "RepetitionPenalty"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dry": (-1,)}, "dry: multiplier=-1 must be in [0, inf)"),
        ({"dry": (0.8, 0.5)}, "dry: base=0.5 must be in [1, inf)"),
        ({"dry": (0.8, 1.75, 0)}, "dry: allowed_length=0 must be at least 1"),
        ({"dry": (0.8, 1.75, 2, 0)}, "dry: window=0 must be at least 1; the last N tokens"),
        ({"dry": (0.8, 1.75, 2.5)}, "dry: allowed_length=2.5 must be an integer"),
        ({"dry": (1, 2, 3, 4, 5)}, "must be a tuple of at most 4 numbers"),
        ({"dry": ()}, "must be a tuple of at most 4 numbers"),
        ({"dry": 0.8, "dry_breakers": [-1]}, "dry_breakers[0]=-1 must be at least 0"),
        ({"dry_breakers": "\n"}, "must be a list of token ids"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        Sample(**fields)
    assert message in str(error.value)


def test_it_stops_a_loop() -> None:
    """Greedy decoding of a small random model runs into a loop; DRY leaves it, in a batch as alone."""
    config = {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    model = minitx.from_config(config, head="causal-lm", seed=0).eval()
    options: Any = {"max_new_tokens": 40, "stop": minitx.Stop(eos=())}
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]

    def longest(tokens: list[int]) -> int:
        return max(max(d.repeat_counts(tokens[:n])) for n in range(1, len(tokens) + 1))

    plain = minitx.generate(model, prompts, Greedy(), **options).sequences
    strategy = Greedy(dry=(8.0, 1.75, 2))
    together = minitx.generate(model, prompts, strategy, **options).sequences
    assert max(longest(row.tolist()) for row in plain) > 10
    assert max(longest(row.tolist()) for row in together) <= 5
    for prompt, row in zip(prompts, together, strict=True):
        alone = minitx.generate(model, [prompt], strategy, **options).sequences[0]
        assert alone.tolist() == row.tolist()
    beams = minitx.Beam(num_beams=3, dry=(8.0, 1.75, 2))
    first = minitx.generate(model, prompts, beams, **options).sequences
    second = minitx.generate(model, prompts[:1], beams, **options).sequences
    assert first[0].tolist() == second[0].tolist()
