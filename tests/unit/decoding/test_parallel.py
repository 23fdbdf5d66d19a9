"""`fill`: masks are filled as the definitions have it, whatever the batch, and what cannot be is refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import minitx
from minitx.decoding import (
    KGW,
    Alternatives,
    ArithmeticSample,
    Beam,
    EntropyBound,
    FillStep,
    FillStrategy,
    FillUpdate,
    Greedy,
    GumbelWatermark,
    MaskPredict,
    Remasking,
    Sample,
    Unigram,
    fill,
    mask_predict,
)
from minitx.decoding.processors.penalties import RepetitionPenalty
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding import parallel as definitions
from tests.unit.decoding.chi_square import ALPHA, fit
from tests.unit.decoding.parallel import MASK, VOCAB, table, tiny

M = MASK
GPT2 = {"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 9}
PROMPTS = [[1, M, 6, M, M, 7, 2], [1, M, M, M, M, M, M, M, 2], [M], [1, 8, 9, M, 10, 2], [M, M, M, 3, 3]]
DRAWS = Sample(temperature=0.8, top_k=6)
STRATEGIES = [
    MaskPredict(steps=3),
    MaskPredict(steps=4, draw=DRAWS, probabilities="processed"),
    Remasking(),
    Remasking(rule="entropy", steps=2, block_length=3, draw=DRAWS),
    Remasking(rule="margin", threshold=0.4, draw=DRAWS),
    Remasking(rule="random", steps=2),
    Remasking(rule="random", draw=DRAWS),
    EntropyBound(steps=5, bound=1.0),
    EntropyBound(steps=4, noise="random", draw=Greedy()),
    MaskPredict(steps=3, draw=Sample(repetition_penalty=1.5, frequency_penalty=0.5, suppress_tokens=[5])),
]


def filled(prompts: Any, strategy: FillStrategy, model: str = "bert", **options: Any) -> Any:
    if strategy.is_random or isinstance(strategy.draw, Sample):
        options = {"seed": 3} | options
    return fill(tiny(model), prompts, strategy, mask_token_id=M, **options)


def tokens(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("seed", range(3))
def test_mask_predict_is_that_of_the_paper(steps: int, seed: int) -> None:
    model = tiny(seed=seed)
    expected = [definitions.mask_predict(model, ids, steps) for ids in PROMPTS]
    assert tokens(fill(model, PROMPTS, MaskPredict(steps=steps), mask_token_id=M)) == expected
    assert tokens(mask_predict(model, PROMPTS, steps=steps, mask_token_id=M)) == expected


@pytest.mark.parametrize("rule", ["confidence", "margin", "entropy"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": 2},
        {"block_length": 2},
        {"steps": 2, "block_length": 3},
        {"steps": 50},
        {"threshold": 0.5},
    ],
)
def test_remasking_is_that_of_the_definition(rule: Any, options: dict[str, Any]) -> None:
    if "threshold" in options and rule == "entropy":
        rule, options = "confidence", {"threshold": 0.3, "block_length": 4}
    model = tiny()
    expected = [definitions.remasking(model, ids, rule, **options) for ids in PROMPTS]
    assert tokens(filled(PROMPTS, Remasking(rule=rule, **options))) == expected


@pytest.mark.parametrize(("bound", "confident"), [(0.1, 0.005), (1.0, 5.0), (0.0, 1.0), (100.0, 0.0)])
def test_entropy_bound_is_that_of_the_definition(bound: float, confident: float) -> None:
    strategy = EntropyBound(steps=6, bound=bound, confident_below=confident, draw=Greedy())
    result = filled(PROMPTS, strategy)
    for ids, row, steps in zip(PROMPTS, tokens(result), result.steps, strict=True):
        expected, count = definitions.entropy_bound(tiny(), ids, 6, bound, 0.8, 0.4, confident)
        assert row == expected
        assert len(steps) == count + 1


def test_one_step_takes_the_most_probable_token_everywhere() -> None:
    expected = []
    for ids in PROMPTS:
        best = table(tiny(), ids).argmax(-1).tolist()
        expected.append([b if token == M else token for b, token in zip(best, ids, strict=True)])
    for strategy in (MaskPredict(steps=1), Remasking(steps=1), Remasking(threshold=0.0)):
        result = filled(PROMPTS, strategy)
        assert tokens(result) == expected
        assert all(len(steps) == 2 for steps in result.steps)


def test_the_order_is_that_of_the_steps() -> None:
    result = filled(PROMPTS, Remasking())
    for ids, row, order, steps in zip(PROMPTS, result.sequences, result.order, result.steps, strict=True):
        given = [token != M for token in ids]
        assert [step == 0 for step in order.tolist()] == given
        assert sorted(order.tolist()) == [0] * sum(given) + list(range(1, ids.count(M) + 1))
        assert steps[0].tolist() == ids
        assert steps[-1].tolist() == row.tolist()
        for number in range(1, len(steps)):
            assert ((steps[number] == row) == (order <= number)).all()
    late = filled([PROMPTS[1]], MaskPredict(steps=4))
    assert int(late.order[0].max()) == 4


def test_blocks_are_filled_from_left_to_right() -> None:
    order = filled([PROMPTS[1]], Remasking(block_length=2)).order[0][1:-1].tolist()
    blocks = [order[start : start + 2] for start in range(0, 7, 2)]
    assert [sorted(block) for block in blocks] == [[1, 2], [3, 4], [5, 6], [7]]
    assert filled([PROMPTS[1]], Remasking(block_length=1)).order[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_a_batch_gives_what_its_rows_give_alone(strategy: FillStrategy) -> None:
    batch = filled(PROMPTS, strategy)
    for number, ids in enumerate(PROMPTS):
        alone = filled([ids], strategy)
        assert tokens(alone)[0] == tokens(batch)[number]
        assert alone.order[0].tolist() == batch.order[number].tolist()
        assert MASK not in tokens(alone)[0]
        assert all(a == b for a, b in zip(tokens(alone)[0], ids, strict=True) if b != M)
    assert tokens(filled(PROMPTS[::-1], strategy)) == tokens(batch)[::-1]


@pytest.mark.parametrize("model", ["roberta", "albert", "modernbert", "distilbert", "electra", "deberta-v2"])
def test_every_encoder_fills(model: str) -> None:
    for strategy in (Remasking(steps=2), EntropyBound(steps=3)):
        batch = filled(PROMPTS, strategy, model)
        assert tokens(batch) == [tokens(filled([ids], strategy, model))[0] for ids in PROMPTS]


def test_a_position_is_drawn_from_its_distribution() -> None:
    ids, count = [1, 6, M, 2], 10_000
    p = (table(tiny(), ids)[2].log() / 1.5).softmax(-1)
    result = filled([ids], Remasking(draw=Sample(temperature=1.5)), num_samples=count)
    draws = torch.stack(result.sequences)[:, 2]
    assert fit(draws, p) > ALPHA
    assert fit(draws, table(tiny(), ids)[2]) < ALPHA  # the test can fail


def test_a_random_order_draws_from_the_mixture_of_both_orders() -> None:
    ids, allowed, count = [1, M, M, 2], [5, 6, 7], 6_000

    def _law(position: int, other: int | None) -> torch.Tensor:
        row = list(ids)
        if other is not None:
            row[3 - position] = other
        p = table(tiny(), row)[position][allowed]
        return p / p.sum()

    expected = torch.zeros(3, 3, dtype=torch.double)
    for (i, a), (j, b) in itertools.product(enumerate(allowed), enumerate(allowed)):
        expected[i, j] = (_law(1, None)[i] * _law(2, a)[j] + _law(2, None)[j] * _law(1, b)[i]) / 2
    strategy = Remasking(rule="random", draw=Sample(allowed_token_ids=allowed))
    drawn = torch.stack(filled([ids], strategy, num_samples=count).sequences)[:, 1:3] - 5
    assert fit(drawn[:, 0] * 3 + drawn[:, 1], expected.flatten()) > ALPHA


def test_samples_and_equal_prompts_differ() -> None:
    rows = tokens(filled([PROMPTS[1]] * 3, Remasking(draw=Sample(temperature=20.0)), num_samples=2))
    assert len({*map(tuple, rows)}) == 6
    strategy = Remasking(draw=Sample(temperature=20.0))
    seeded = [tokens(filled([PROMPTS[1]], strategy, seed=seed)) for seed in (1, 2, 1)]
    assert seeded[0] == seeded[2] != seeded[1]


def test_confidence_of_the_model_or_of_the_processed_distribution() -> None:
    """Where all processed distributions are certain, the leftmost position is filled first."""
    certain = Greedy(allowed_token_ids=[7])
    order = filled([PROMPTS[1]], Remasking(draw=certain, probabilities="processed")).order[0]
    assert order.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    first = table(tiny(), PROMPTS[1])[1:-1, 7].argmax()
    order = filled([PROMPTS[1]], Remasking(draw=certain)).order[0]
    assert int(order[1 + first]) == 1


def test_penalties_count_given_and_filled_tokens() -> None:
    """A huge penalty makes all tokens of a row differ; of those given too, unless only the output counts."""
    rows = tokens(filled([[1, M, M, M, M, 6, 2]], Remasking(draw=Greedy(presence_penalty=2.0))))
    chain = minitx.Chain(RepetitionPenalty(1e9))
    unique = tokens(filled([[1, M, M, M, M, 6, 2]], Remasking(draw=Greedy(chain=chain))))[0]
    assert len({*unique}) == 7
    seen = []

    def _record(logits: torch.Tensor, context: Any) -> torch.Tensor:
        parts = zip(context.tokens, context.length, context.prompt_length, strict=True)
        seen.append([(row[:n].tolist(), int(start)) for row, n, start in parts])
        return logits

    row = tokens(filled([[1, M, 6, M]], Remasking(draw=Greedy(processors=[_record]), block_length=1)))[0]
    assert seen == [[([1, 6], 2)] * 2, [([1, 6, row[1]], 2)]]
    assert rows[0][0] == 1


def test_a_watermark_without_context_marks_the_filled_tokens() -> None:
    mark, prompts = Unigram(bias=6.0), [[1, *[M] * 30, 2]]
    counts = []
    for watermark in (mark, None):
        draw = Sample(watermark=watermark, temperature=5.0)
        row = filled(prompts, Remasking(draw=draw)).sequences[0][1:-1]
        counts.append(mark.detect(row, ignore_repeated_ngrams=False).num_green)
    assert counts[0] >= 28 > 24 > counts[1]


def test_custom_schedules() -> None:
    @dataclass(frozen=True, kw_only=True)
    class RightToLeft(FillStrategy):
        """One position per step, from the right."""

        def most_steps(self, size: int) -> int:
            return size

        def step(self, row: FillStep) -> FillUpdate:
            chosen = torch.zeros_like(row.masked)
            chosen[row.masked.nonzero()[-1]] = True
            return FillUpdate(row.filled(chosen))

    assert filled([PROMPTS[1]], RightToLeft()).order[0].tolist() == [0, 7, 6, 5, 4, 3, 2, 1, 0]

    @dataclass(frozen=True, kw_only=True)
    class Never(RightToLeft):
        def step(self, row: FillStep) -> FillUpdate:
            return FillUpdate(row.ids)

    with pytest.raises(ValueError, match="Never did not fill row 1 in the 1 steps"):
        filled([PROMPTS[1], [M, 5]], Never())


def test_max_new_tokens_adds_masks_before_the_end() -> None:
    result = filled([[1, 5], [1, M, 7]], Remasking(), max_new_tokens=2)
    assert [row[0].tolist() for row in result.steps] == [[1, 5, M, M], [1, M, 7, M, M]]
    model, tokenizer = shipped()
    result = mask_predict(model, ["The ship was", "It is"], steps=2, max_new_tokens=2, tokenizer=tokenizer)
    mask, sep = tokenizer.mask_token_id, tokenizer.sep_token_id
    assert [steps[0].tolist()[-3:] for steps in result.steps] == [[mask, mask, sep]] * 2


def shipped() -> tuple[Any, Any]:
    tokenizer = minitx.load_tokenizer("minitx/tiny-encoder")
    return minitx.load("minitx/tiny-encoder", head="masked-lm", dtype="float32").eval(), tokenizer


def test_the_shipped_encoder_fills_sensibly() -> None:
    model, tokenizer = shipped()
    text = "The king of [MASK] sent messengers [MASK] him."
    result = fill(model, text, Remasking(), tokenizer=tokenizer)
    assert result.texts == ["the king of israel sent messengers of him."]
    assert result.order[0][result.order[0] > 0].tolist() == [1, 2]
    lines = result.table().splitlines()
    assert lines[0].split() == ["step", "new", "masks", "text"]
    assert lines[1].endswith("the king of [MASK] sent messengers [MASK] him.")
    assert [line.split()[:3] for line in lines[1:]] == [["0", "0", "2"], ["1", "1", "1"], ["2", "1", "0"]]
    assert repr(result) == "   0    2 steps  'the king of israel sent messengers of him.'"
    plain = filled([[1, M, 5]], Remasking())
    assert plain.texts is None
    assert plain.table().splitlines()[1].endswith("1 _ 5")


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (MaskPredict, {"steps": 0}, "steps=0"),
        (MaskPredict, {"steps": 2.5}, "steps=2.5"),
        (MaskPredict, {"draw": "greedy"}, "draw='greedy'"),
        (MaskPredict, {"probabilities": "all"}, "probabilities='all'"),
        (Remasking, {"rule": "best"}, "rule='best'"),
        (Remasking, {"block_length": 0}, "block_length=0"),
        (Remasking, {"threshold": 1.5}, "threshold=1.5"),
        (Remasking, {"threshold": 0.5, "steps": 2}, "steps=2 must be None with threshold"),
        (Remasking, {"threshold": 0.5, "rule": "random"}, "threshold=0.5 must be None with rule='random'"),
        (EntropyBound, {"bound": -1}, "bound=-1"),
        (EntropyBound, {"t_min": 0.9}, "t_min=0.9 must be at most t_max=0.8"),
        (EntropyBound, {"t_min": 0}, "t_min=0"),
        (EntropyBound, {"stable_steps": True}, "stable_steps=True"),
        (EntropyBound, {"confident_below": float("nan")}, "confident_below=nan"),
        (EntropyBound, {"noise": "white"}, "noise='white'"),
    ],
)
def test_schedules_check_their_fields(kind: Any, options: dict[str, Any], name: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=name):
        kind(**options)


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        (Greedy(no_repeat_ngram_size=2), "draw.no_repeat_ngram_size"),
        (Greedy(bad_words_ids=[[5]]), "draw.bad_words_ids"),
        (Greedy(forced_eos_token_id=5), "draw.forced_eos_token_id"),
        (Greedy(prefix_allowed_tokens_fn=lambda row, ids: [5]), "draw.prefix_allowed_tokens_fn"),
        (Greedy(chain=minitx.Chain(RepetitionPenalty(1.2, scope=3))), "draw.RepetitionPenalty 1.2"),
        (Sample(temperature=[0.5, 1.0]), r"draw.temperature=\(0.5, 1.0\) must be one number"),
        (Sample(watermark=KGW()), "draw.watermark=KGW"),
        (Sample(watermark=GumbelWatermark()), "draw.watermark=GumbelWatermark"),
        (Beam(), "draw=Beam"),
        (Alternatives(), "draw=Alternatives"),
        (ArithmeticSample(), "draw=ArithmeticSample"),
    ],
)
def test_draws_from_left_to_right_are_refused_by_name(draw: Any, name: str) -> None:
    with pytest.raises(ArgumentValueError, match=name):
        fill(tiny(), PROMPTS, Remasking(draw=draw), mask_token_id=M)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"strategy": Greedy()}, "strategy=Greedy"),
        ({"prompts": [[1, 5]]}, r"prompts\[0\]=\[1, 5\] must be one with mask tokens"),
        ({"prompts": [[M] * 41]}, "at most 40 tokens"),
        ({"prompts": ["[MASK]"]}, "token ids, or come with tokenizer"),
        ({"mask_token_id": None}, "mask_token_id=None"),
        ({"mask_token_id": VOCAB}, "mask_token_id=12"),
        ({"seed": 3}, "seed=3 must be left out"),
        ({"num_samples": 2}, "num_samples=2 must be left out"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1"),
        ({"num_beams": 2}, "num_beams"),
        ({"strategy": Remasking(draw=Greedy(allowed_token_ids=[M]))}, "Row 0: AllowedTokens left a masked"),
    ],
)
def test_calls_check_their_arguments(options: dict[str, Any], name: str) -> None:
    arguments = {"prompts": PROMPTS, "strategy": Remasking(), "mask_token_id": M} | options
    with pytest.raises((TypeError, ValueError), match=name):
        fill(tiny(), **arguments)


def test_other_models_are_refused() -> None:
    decoder = minitx.from_config(GPT2, head="causal-lm", seed=0)
    for model, name in ((decoder.eval(), "predicts masked tokens"), (tiny(seed=9).train(), "in eval mode")):
        with pytest.raises(ArgumentValueError, match=name):
            fill(model, PROMPTS, Remasking(), mask_token_id=M)  # type: ignore[arg-type]
