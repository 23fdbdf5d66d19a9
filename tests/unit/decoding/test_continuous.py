"""Many prompts through a few rows give the tokens of each prompt alone."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx import Beam, Greedy, Sample, Stop
from minitx.decoding import Choices, Context, PromptLookup, Speculative
from minitx.decoding.continuous import cache as rows_cache
from minitx.decoding.continuous.generate_many import PADDING, TOGETHER, in_groups
from minitx.decoding.continuous.running import Job
from minitx.models.taps import match_places, tapped
from minitx.optimize.graphs.model import static_steps
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.test_session import CONFIGS, LLAMA, model_of

NO_END = Stop(eos=())
ALIBI = {"vocab_size": 40, "model_type": "bloom", "hidden_size": 16, "n_head": 2, "n_layer": 2}
KINDS: dict[str, dict[str, Any]] = {
    **CONFIGS,
    "alibi": {**ALIBI, "initializer_range": 0.5},
    "dynamic": {
        **LLAMA,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        "max_position_embeddings": 12,
    },
    "experts": {
        **LLAMA,
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
}


@pytest.fixture(scope="module")
def models() -> Any:
    """Returns a model by its kind, in float64."""
    known: dict[str, Any] = {}

    def _model(kind: str) -> Any:
        if kind not in known:
            known[kind] = (
                model_of(kind)
                if kind in CONFIGS
                else minitx.from_config(KINDS[kind], head="causal-lm", seed=0).eval()
            ).double()
        return known[kind]

    return _model


@pytest.fixture(scope="module")
def text() -> tuple[Any, Any]:
    """The shipped decoder and its tokenizer."""
    name = "minitx/tiny-decoder"
    return minitx.load(name).double().eval(), minitx.load_tokenizer(name)


def work(
    count: int = 11, longest: int = 14, most: int = 12, seed: int = 0
) -> tuple[list[list[int]], list[int]]:
    draw = random.Random(seed)
    prompts = [[draw.randrange(1, 40) for _ in range(draw.randint(1, longest))] for _ in range(count)]
    return prompts, [draw.randint(0, most) for _ in prompts]


def alone(model: Any, prompts: Any, strategy: Any, limits: list[int], **options: Any) -> list[list[int]]:
    """The tokens of each prompt alone."""
    if "seed" in options:
        options["seed"] = [options["seed"]]
    calls = [
        minitx.generate(model, [prompt], strategy, max_new_tokens=most, **options)
        for prompt, most in zip(prompts, limits, strict=True)
    ]
    return [row.tokens.tolist() for result in calls for row in result]


def ids(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 4, 32])
def test_greedy_rows_are_those_of_each_prompt_alone(models: Any, kind: str, rows: int) -> None:
    model, (prompts, limits) = models(kind), work()
    many = minitx.generate_many(
        model, prompts, Greedy(), max_new_tokens=limits, rows=rows, stop=NO_END, progress=False
    )
    assert ids(many) == alone(model, prompts, Greedy(), limits, stop=NO_END)
    assert many.finish_reasons == ["length"] * len(prompts)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=9),
    rows=st.integers(1, 5),
    spare=st.integers(1, 4),
)
def test_any_order_of_admission(models: Any, sizes: list[tuple[int, int]], rows: int, spare: int) -> None:
    """The rows of a small buffer are moved back again and again."""
    model = models("llama")
    prompts = [
        [3 + (7 * place + number) % 37 for place in range(size)] for number, (size, _) in enumerate(sizes)
    ]
    limits = [most for _, most in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_cache, "SPARE", spare)
        many = minitx.generate_many(model, prompts, Greedy(), max_new_tokens=limits, rows=rows, stop=NO_END)
    assert ids(many) == alone(model, prompts, Greedy(), limits, stop=NO_END)


@pytest.mark.parametrize(
    "strategy",
    [
        Sample(temperature=0.9, top_p=0.9),
        Sample(mirostat=(3.0, 0.2), repetition_penalty=1.2),
        Sample(top_k=9, adaptive_p=(0.4, 0.8)),
        Sample(xtc=(0.5, 0.05), no_repeat_ngram_size=2),
        Sample(forced_eos_token_id=[5]),
        Sample(order="llama.cpp", temperature=0.7, min_p=0.05),
    ],
    ids=["top_p", "mirostat", "adaptive_p", "xtc", "forced_eos", "order"],
)
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_samples_depend_on_their_own_seed_and_prompt(models: Any, kind: str, strategy: Sample) -> None:
    model, (prompts, limits) = models(kind), work(seed=2)
    options: dict[str, Any] = {"seed": 3, "stop": Stop(eos=[5])}
    many = minitx.generate_many(model, prompts, strategy, max_new_tokens=limits, rows=3, **options)
    assert ids(many) == alone(model, prompts, strategy, limits, **options)


def test_seeds_and_limits_per_prompt_and_equal_prompts(models: Any) -> None:
    model = models("llama")
    options: dict[str, Any] = {"stop": NO_END, "max_new_tokens": 6, "seed": [1, 2, 1, 1]}
    prompts = [[4, 5], [4, 5], [6], [4, 5]]
    many = minitx.generate_many(model, prompts, Sample(), rows=2, **options)
    assert ids(many) == ids(minitx.generate(model, prompts, Sample(), **options))
    assert len({*map(tuple, ids(many))}) == 4


def test_several_samples_of_a_prompt_share_its_prefill(models: Any) -> None:
    model, (prompts, _) = models("gpt2"), work(4, seed=4)
    options: dict[str, Any] = {"stop": NO_END, "max_new_tokens": 5, "num_samples": 3, "seed": 9}
    many = minitx.generate_many(model, prompts, Sample(), rows=12, **options)
    assert ids(many) == ids(minitx.generate(model, prompts, Sample(), **options))


def test_parameters_per_row_follow_their_row(models: Any) -> None:
    model, (prompts, limits) = models("llama"), work(6, seed=5)
    asked: list[tuple[int, int]] = []

    def _allowed(row: int, tokens: Tensor) -> list[int]:
        asked.append((row, int(tokens[0])))
        return [*range(40)]

    strategy = Sample(temperature=[0.5, 1, 0, 2, 1, 0.7], prefix_allowed_tokens_fn=_allowed)
    least = [min(most, 3) for most in limits]
    options: dict[str, Any] = {"stop": Stop(eos=[7, 8, 9]), "seed": 1}
    many = minitx.generate_many(
        model, prompts, strategy, max_new_tokens=limits, min_new_tokens=least, rows=2, **options
    )
    assert {*asked} == {(row, prompts[row][0]) for row in range(6) if limits[row]}
    for row, (prompt, most) in enumerate(zip(prompts, limits, strict=True)):
        own = Sample(temperature=[strategy.temperature[row]])  # type: ignore[index]
        each = minitx.generate(
            model, [prompt], own, max_new_tokens=most, min_new_tokens=least[row], **options
        )
        assert ids(each)[0] == ids(many)[row]


def test_texts_stop_strings_and_grammars(text: tuple[Any, Any]) -> None:
    model, tokenizer = text
    prompts = ["The cat", "A boy was in the", "One day a girl", "Then", "The old man said that he"]
    limits = [20, 3, 12, 17, 8]
    for options in (
        {"stop": Stop(strings=["he", "."]), "logprobs": "raw", "top_logprobs": 2},
        {"grammar": Choices([" a long red house", " no", " two"])},
        {"stop": Stop(repetition=(2, 2), regex="[aeiou]{2}")},
    ):
        many = minitx.generate_many(
            model, prompts, Greedy(), max_new_tokens=limits, rows=2, tokenizer=tokenizer, **options
        )
        for number, (prompt, most) in enumerate(zip(prompts, limits, strict=True)):
            one = minitx.generate(
                model, prompt, Greedy(), max_new_tokens=most, tokenizer=tokenizer, **options
            )
            assert many[number].text == one[0].text
            assert many[number].finish_reason == one[0].finish_reason
            assert many[number].tokens.tolist() == one[0].tokens.tolist()
            if many.logprobs is not None and one.logprobs is not None:
                torch.testing.assert_close(many.logprobs[number], one.logprobs[0])


def test_functions_see_the_numbers_and_tokens_of_their_rows(models: Any) -> None:
    model, (prompts, _) = models("gpt2"), work(5, seed=6)
    seen: dict[int, int] = {}
    processed: set[tuple[int, ...]] = set()

    def _stops(row: int, tokens: list[int]) -> bool:
        seen[row] = len(tokens)
        return len(tokens) == row + 1

    def _custom(logits: Tensor, context: Context) -> Tensor:
        for tokens, size in zip(context.tokens, context.prompt_length, strict=True):
            processed.add(tuple(tokens[:size].tolist()))
        return logits

    many = minitx.generate_many(
        model,
        prompts,
        Greedy(processors=[_custom]),
        max_new_tokens=9,
        rows=2,
        stop=Stop(eos=(), function=_stops),
    )
    assert seen == {row: row + 1 for row in range(5)}
    assert [len(row) for row in ids(many)] == [1, 2, 3, 4, 5]
    assert many.finish_reasons == ["stop"] * 5
    assert processed == {*map(tuple, prompts)}


def test_functions_inside_the_model_see_the_padding_of_a_row_that_is_run_anew(models: Any) -> None:
    """LongRoPE runs a row anew at 8 tokens: alone, so without padding."""
    model, seen = models("longrope"), []

    def _tap(value: Tensor, call: Any) -> None:
        seen.append((value.shape[1], call.padding.tolist()))

    places = [(place, _tap) for place in match_places(model, "decoder.layers.0.output")]
    with tapped(model, places):
        minitx.generate_many(model, [[5, 6, 7], [8] * 5], Greedy(), max_new_tokens=6, stop=NO_END)
    again = [padding for time, padding in seen if time == 8]
    assert again == [[0], [0]]
    assert [padding for time, padding in seen if time == 1] == [[0, 2]] * 5  # the longer prompt comes first


def test_steps_of_fixed_shapes_leave_the_rows_where_they_are(models: Any) -> None:
    """Such steps move the keys and values of a cache into buffers of their own."""
    model, (prompts, limits) = models("llama"), work()
    static = static_steps(copy.deepcopy(model))
    many = minitx.generate_many(static, prompts, Greedy(), max_new_tokens=limits, rows=4, stop=NO_END)
    assert ids(many) == alone(model, prompts, Greedy(), limits, stop=NO_END)


def test_rows_come_when_they_end(models: Any) -> None:
    model, prompts = models("llama"), [[5], [6, 7], [8, 9, 10], [11]]
    options: dict[str, Any] = {"max_new_tokens": [9, 0, 2, 4], "rows": 2, "stop": NO_END}
    rows = minitx.generate_as_completed(model, prompts, Greedy(), **options)
    many = minitx.generate_many(model, prompts, Greedy(), **options)
    order = []
    for number, row in rows:
        order.append(number)
        assert row.tokens.tolist() == ids(many)[number]
    assert order == [1, 3, 2, 0]
    first = next(minitx.generate_as_completed(model, prompts, Greedy(), **options))
    assert first[0] == 1


@pytest.mark.parametrize("cache", [None, "int8"])
def test_room_grows_with_the_rows(models: Any, cache: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that no memory could hold is none if rows end before."""
    monkeypatch.setattr(rows_cache, "SPARE", 3)
    model, prompts = models("llama"), [[5, 6, 7], [8], [9, 10]]
    stop = Stop(eos=(), function=lambda row, tokens: len(tokens) == 30 + row)
    options: dict[str, Any] = {"stop": stop, "cache": cache}
    many = minitx.generate_many(model, prompts, Greedy(), max_new_tokens=10**12, rows=2, **options)
    assert [len(row) for row in ids(many)] == [30, 31, 32]
    if cache is None:
        expected = [
            minitx.generate(model, [p], Greedy(), max_new_tokens=30 + n, stop=NO_END)
            for n, p in enumerate(prompts)
        ]
        assert ids(many) == [ids(one)[0] for one in expected]


def test_a_chunked_prefill_changes_nothing(models: Any) -> None:
    model, (prompts, limits) = models("sliding"), work(5, seed=8)
    many = minitx.generate_many(
        model, prompts, Greedy(), max_new_tokens=limits, rows=2, stop=NO_END, prefill_chunk=3
    )
    assert ids(many) == alone(model, prompts, Greedy(), limits, stop=NO_END)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30))
def test_prompts_are_prefilled_in_groups_of_similar_length(lengths: list[int]) -> None:
    jobs = [Job(number, number, [1] * length, None, 5) for number, length in enumerate(lengths)]
    groups = in_groups(jobs)
    assert sorted(job.row for group in groups for job in group) == [*range(len(jobs))]
    for group in groups:
        size = len(group) * max(job.cost for job in group)
        assert len(group) == 1 or size <= TOGETHER
        assert size - sum(job.cost for job in group) <= PADDING * size


@pytest.mark.parametrize(
    ("strategy", "options", "name"),
    [
        (Beam(num_beams=2), {}, "strategy"),
        (Speculative(draft=PromptLookup()), {}, "strategy"),
        (minitx.ArithmeticSample(), {"seed": 1}, "strategy"),
        (Greedy(), {"guidance": object()}, "guidance"),
        (Greedy(), {"heal": True}, "heal"),
        (Greedy(), {"inputs_embeds": [torch.zeros(1, 16)]}, "inputs_embeds"),
        (Sample(), {"generator": torch.Generator()}, "generator"),
        (Greedy(), {"max_new_tokens": [3]}, "max_new_tokens"),
        (Greedy(), {"max_new_tokens": [3, 64]}, "max_new_tokens\\[1\\]"),
        (Greedy(), {"max_new_tokens": [3, -1]}, "max_new_tokens\\[1\\]"),
        (Greedy(), {"max_new_tokens": [3, 9], "min_new_tokens": 4}, "min_new_tokens"),
        (Greedy(), {"rows": 0}, "rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_obeyed_is_refused(models: Any, strategy: Any, options: Any, name: str) -> None:
    options = {"max_new_tokens": 4, **options}
    for function in (minitx.generate_many, minitx.generate_as_completed):
        with pytest.raises((ArgumentValueError, ArgumentTypeError), match=name):
            function(models("gpt2"), [[5], [6, 7]], strategy, **options)


def test_a_limit_per_prompt_uses_all_positions(models: Any) -> None:
    """A short prompt may ask for more tokens than the longest one could."""
    model, prompts, limits = models("gpt2"), [[5] * 60, [6]], [5, 64]
    many = minitx.generate_many(model, prompts, Greedy(), max_new_tokens=limits, stop=NO_END)
    assert ids(many) == alone(model, prompts, Greedy(), limits, stop=NO_END)


def test_a_row_without_tokens_is_named(models: Any) -> None:
    strategy = Greedy(prefix_allowed_tokens_fn=lambda row, tokens: [] if row == 2 else [5])
    with pytest.raises(ValueError, match="left no token") as raised:
        minitx.generate_many(models("gpt2"), [[5], [6], [7, 8]], strategy, max_new_tokens=3, rows=3)
    assert "row 2, of prompt 2" in raised.value.__notes__[0]


def test_no_stale_values_of_a_model_that_returns_nothing_else(models: Any) -> None:
    """Slots that no row has filled are masked, and must be finite all the same."""
    many = minitx.generate_many(
        models("llama"), [[5, 6], [7]], Greedy(), max_new_tokens=[1, 6], rows=2, stop=NO_END
    )
    assert ids(many) == alone(models("llama"), [[5, 6], [7]], Greedy(), [1, 6], stop=NO_END)
