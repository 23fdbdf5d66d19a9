"""Beam search against exhaustive search, its ways to stop, and the tree that it hands out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.decoding import (
    Beam,
    BeamSample,
    Chain,
    Context,
    DiverseBeam,
    Greedy,
    LexicalBeam,
    Renormalize,
    RepetitionPenalty,
)
from minitx.decoding import strategy as strategy_module
from minitx.decoding.generate import generate, stream
from minitx.decoding.output import Result
from minitx.decoding.parameters import parameters_of
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.base import ScoredSearch
from minitx.decoding.search.state import BeamState
from minitx.decoding.search.tree import BeamNode, BeamTree, _drawing
from minitx.decoding.text.stopping import Stop
from minitx.models import DecoderModel
from tests.unit.decoding.test_generate import MODEL, PROMPTS, TOKENIZER, byte_ids, scripted

EOS = 0
PROMPT = [1, 1]


@cache
def tiny(vocab_size: int, seed: int, spread: float = 0.8) -> DecoderModel:
    config = {
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 1,
        "n_positions": 32,
        "initializer_range": spread,
        "eos_token_id": EOS,
    }
    made = minitx.from_config(config, head="causal-lm", seed=seed).eval()
    assert isinstance(made, DecoderModel)
    return made


def tokens(result: Result) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


@cache
@torch.no_grad()
def all_texts(vocab_size: int, seed: int, most: int) -> dict[tuple[int, ...], float]:
    """Every text that ends with EOS or has `most` tokens, and its log-probability."""
    model = tiny(vocab_size, seed)
    full = torch.tensor([[*PROMPT, *text] for text in product(range(vocab_size), repeat=most)])
    logits = model(full).logits
    assert logits is not None
    table = logits[:, len(PROMPT) - 1 : -1].log_softmax(-1)
    steps = table.gather(2, full[:, len(PROMPT) :, None]).squeeze(2).double()
    found = {}
    for text, values in zip(full[:, len(PROMPT) :].tolist(), steps, strict=True):
        length = text.index(EOS) + 1 if EOS in text else most
        found[tuple(text[:length])] = float(values[:length].sum())
    return found


def norm(kind: str, penalty: float, length: int) -> float:
    return float((length if kind == "power" else (5 + length) / 6) ** penalty)


PENALTIES = st.floats(-2, 3, allow_nan=False)
KINDS = st.sampled_from(("power", "gnmt"))


@settings(deadline=None, max_examples=60)
@given(
    vocab_size=st.integers(2, 4),
    seed=st.integers(0, 5),
    most=st.integers(1, 4),
    kind=KINDS,
    penalty=PENALTIES,
    samples=st.integers(1, 3),
)
def test_a_wide_beam_is_exhaustive(
    vocab_size: int, seed: int, most: int, kind: Any, penalty: float, samples: int
) -> None:
    texts = all_texts(vocab_size, seed, most)
    scores = {text: value / norm(kind, penalty, len(text)) for text, value in texts.items()}
    best = sorted(scores.values(), reverse=True)[:samples]
    samples = len(best)
    strategy = Beam(
        num_beams=max(samples, vocab_size ** (most - 1)),
        length_norm=kind,
        length_penalty=penalty,
        early_stopping="exact",
    )
    result = generate(tiny(vocab_size, seed), [PROMPT], strategy, max_new_tokens=most, num_samples=samples)
    assert result.scores == pytest.approx(best, abs=1e-5)
    assert [scores[tuple(row)] for row in tokens(result)] == pytest.approx(best, abs=1e-5)


class Endless(Beam):
    """Searches until no beam goes on, whatever has been found."""

    def is_done(self, state: BeamState, best: Tensor) -> Tensor:
        return torch.zeros_like(best, dtype=torch.bool)


BIASES: tuple[dict[str, Any], ...] = (
    {},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 2},
    {"logit_bias": {3: 2.5}},
    {"presence_penalty": -1.5},
    {"sequence_bias": {(4, 5): 6.0, (2,): -1.0}},
    {"exponential_decay_length_penalty": (2, 1.5)},
    {"processors": [lambda logits, context: logits + 0.8]},
    {"logit_bias": {3: 2.5}, "renormalize_logits": True},
)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 8),
    beams=st.integers(1, 4),
    most=st.integers(2, 12),
    kind=KINDS,
    penalty=PENALTIES,
    options=st.sampled_from(BIASES),
    data=st.data(),
)
def test_exact_never_stops_too_early(
    seed: int, beams: int, most: int, kind: Any, penalty: float, options: dict[str, Any], data: Any
) -> None:
    """With every processor, those that raise log-probabilities too."""
    fields = {"num_beams": beams, "length_norm": kind, "length_penalty": penalty, **options}
    call = {"max_new_tokens": most, "num_samples": data.draw(st.integers(1, beams))}
    model = tiny(12, seed)
    exact = generate(model, [PROMPT], Beam(early_stopping="exact", **fields), **call)
    whole = generate(model, [PROMPT], Endless(**fields), **call)
    assert exact.scores == whole.scores
    assert tokens(exact) == tokens(whole)


def steps_of(result: Result, prompt: int = 0) -> int:
    assert result.beams is not None
    return max(node.step for node in result.beams[prompt]) + 1


def test_exact_stops_as_soon_as_it_may() -> None:
    found = []
    for seed in range(9):
        for penalty in (0.0, 1.0, -1.0):
            strategy = Beam(num_beams=3, early_stopping="exact", length_penalty=penalty)
            found.append(steps_of(generate(tiny(12, seed), [PROMPT], strategy, max_new_tokens=20)))
    assert min(found) < 5
    assert max(found) > 8


def test_the_bound_must_not_be_used_where_sums_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test of `exact`: with the bound, it would fail."""
    monkeypatch.setattr(Chain, "keeps_log_probs_nonpositive", lambda chain: True)
    wrong = 0
    for seed in range(9):
        fields: dict[str, Any] = {"num_beams": 2, "length_penalty": 0.0, "logit_bias": {3: 2.5}}
        exact = generate(tiny(12, seed), [PROMPT], Beam(early_stopping="exact", **fields), max_new_tokens=12)
        wrong += (
            exact.scores != generate(tiny(12, seed), [PROMPT], Endless(**fields), max_new_tokens=12).scores
        )
    assert wrong > 0


def test_the_guess_of_transformers_is_one() -> None:
    """early_stopping=False misses texts that "exact" finds, with a length penalty above 0."""
    missed = 0
    for seed in range(12):
        ways: tuple[Any, ...] = (False, "exact")
        guess, exact = (
            generate(
                tiny(12, seed, 0.3),
                [PROMPT],
                Beam(num_beams=3, length_penalty=2.0, early_stopping=early),
                max_new_tokens=16,
            ).scores
            for early in ways
        )
        assert guess is not None
        assert exact is not None
        assert exact[0] >= guess[0] - 1e-6
        missed += exact[0] > guess[0] + 1e-6
    assert missed > 0


def test_which_chains_stay_below_zero() -> None:
    falls = {"repetition_penalty": 0.5, "logit_bias": {3: -1.0}, "frequency_penalty": [0.5, 0.0]}
    assert Beam(**falls).build().keeps_log_probs_nonpositive()
    assert BeamSample(temperature=3.0, top_k=4, typical_p=0.4).build(3).keeps_log_probs_nonpositive()
    for options in BIASES[3:-1]:
        assert not Beam(**options).build().keeps_log_probs_nonpositive()
    assert Beam(**BIASES[-1]).build().keeps_log_probs_nonpositive()
    own = lambda logits, context: logits + 1.0  # noqa: E731
    assert Chain(own, Chain(Renormalize())).keeps_log_probs_nonpositive()
    assert not Chain(Renormalize(), Chain(own)).keeps_log_probs_nonpositive()


@pytest.mark.parametrize("patience", [0.25, 0.5, 1.0, 1.5, 3.0])
def test_patience_waits_for_so_many(patience: float) -> None:
    wanted = round(4 * patience)
    for seed in range(6):
        strategy = Beam(num_beams=4, early_stopping=True, patience=patience)
        result = generate(tiny(8, seed), [PROMPT], strategy, max_new_tokens=14)
        assert result.beams is not None
        ended = [node.step for node in result.beams[0] if node.finished]
        last = steps_of(result) - 1
        assert len([step for step in ended if step < last]) < wanted
        assert len(ended) >= wanted or last == 13


def test_a_batch_is_its_prompts() -> None:
    """Prompts that are done leave the batch; the others do not notice."""
    for early in (True, False, "never", "exact"):
        strategy = Beam(num_beams=3, early_stopping=early, no_repeat_ngram_size=3)  # type: ignore[arg-type]
        batch = generate(MODEL, PROMPTS, strategy, max_new_tokens=12, num_samples=2, tokenizer=TOKENIZER)
        assert len({steps_of(batch, prompt) for prompt in range(4)}) > 1 or early != "exact"
        for number, prompt in enumerate(PROMPTS):
            alone = generate(MODEL, [prompt], strategy, max_new_tokens=12, num_samples=2, tokenizer=TOKENIZER)
            rows = slice(2 * number, 2 * number + 2)
            assert tokens(alone) == tokens(batch)[rows]
            assert alone.texts == (batch.texts or [])[rows]
            assert alone.scores == pytest.approx((batch.scores or [])[rows], abs=1e-5)


def ended_at_once(prompt: int, history: Tensor) -> list[int]:
    """The first prompt ends after a token; the second goes on with tokens of its own."""
    return [0, 1, 2] if prompt == 0 else [*range(20, 40)]


@pytest.mark.parametrize(
    "fields",
    [{"prefix_allowed_tokens_fn": ended_at_once}, {"min_length": [0, 14]}],
    ids=["function", "numbers"],
)
def test_prompts_stay_where_processors_know_their_places(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {} if "min_length" not in fields else {"logit_bias": {2: 50.0}}
    strategy = Beam(num_beams=2, early_stopping=True, **ends, **fields)
    options: dict[str, Any] = {"max_new_tokens": 8, "stop": Stop(eos=(0, 1, 2))}
    result = generate(MODEL, [[5], [6]], strategy, **options)
    assert [len(text) for text in tokens(result)] == [1, 8]
    # The control: if the first left the batch, the second would be taken for it, or have no number.
    monkeypatch.setattr(Chain, "batch_invariant", True)
    if "min_length" in fields:
        with pytest.raises(ValueError, match="2 rows"):
            generate(MODEL, [[5], [6]], strategy, **options)
    else:
        assert tokens(generate(MODEL, [[5], [6]], strategy, **options)) != tokens(result)


def test_beam_sampling_with_a_seed_belongs_to_its_prompt() -> None:
    def drawn(prompts: list[list[int]], **options: Any) -> list[list[int]]:
        strategy = BeamSample(num_beams=3, temperature=1.5, early_stopping=True)
        return tokens(generate(MODEL, prompts, strategy, max_new_tokens=9, num_samples=2, **options))

    batch = drawn(PROMPTS, seed=5)
    for number in range(3):
        assert drawn([PROMPTS[number]], seed=5) == batch[2 * number : 2 * number + 2]
    assert drawn(PROMPTS, seed=6) != batch
    assert batch[:2] != batch[6:]  # an equal prompt is another all the same
    torch.manual_seed(3)
    first, second = drawn(PROMPTS), drawn(PROMPTS)
    assert first != second


def test_beam_sampling_draws_by_the_sums() -> None:
    """One step, one beam of two candidates: the law of two draws without replacement (Plackett-Luce)."""
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05])

    def fixed(logits: Tensor, context: Context) -> Tensor:
        out = torch.full_like(logits, -torch.inf)
        out[:, 10:14] = weights.log()
        return out

    strategy = BeamSample(num_beams=1, processors=[fixed])
    result = generate(MODEL, [[9]] * 4000, strategy, max_new_tokens=1, seed=1, stop=Stop(eos=()))
    counts = torch.bincount(torch.cat(result.sequences) - 10, minlength=4) / 4000
    # The first of the two drawn is the one whose rank is below num_beams.
    assert torch.allclose(counts, weights, atol=0.03)


# What is told to a prompt


def test_numbers_are_per_prompt() -> None:
    strategy = Beam(num_beams=3, repetition_penalty=[1.0, 3.0])
    both = generate(MODEL, [PROMPTS[0]] * 2, strategy, max_new_tokens=9, min_new_tokens=[0, 9])
    for row, penalty, least in ((0, 1.0, 0), (1, 3.0, 9)):
        alone = generate(
            MODEL,
            [PROMPTS[0]],
            Beam(num_beams=3, repetition_penalty=penalty),
            max_new_tokens=9,
            min_new_tokens=least,
        )
        assert tokens(alone)[0] == tokens(both)[row]
    assert tokens(both)[0] != tokens(both)[1]
    with pytest.raises(ValueError, match=r"repetition_penalty=.* must be one number or 3, one per prompt"):
        generate(MODEL, PROMPTS[:3], strategy, max_new_tokens=9)
    with pytest.raises(ValueError, match=r"min_new_tokens=.* one for each of the 3 rows"):
        generate(MODEL, PROMPTS[:3], Beam(), max_new_tokens=9, min_new_tokens=[1, 2])


def test_the_fields_that_may_be_per_prompt() -> None:
    declared = {**strategy_module.Strategy.__annotations__, **Sample.__annotations__}
    numeric = {name for name, kind in declared.items() if kind.startswith(("Numbers", "Integers"))}
    per_row = {name for name, each in parameters_of(BeamSample).items() if each.per_row}
    assert numeric == per_row


def test_a_prefix_function_gets_the_prompt() -> None:
    asked = set()

    def allowed(prompt: int, history: Tensor) -> list[int]:
        asked.add((prompt, history[0].item()))
        return [20 + prompt, 30 + prompt, 40 + prompt]

    strategy = Beam(num_beams=3, prefix_allowed_tokens_fn=allowed)
    result = generate(MODEL, [[5], [6]], strategy, max_new_tokens=3, num_samples=3)
    assert asked == {(0, 5), (1, 6)}
    assert all((token - row // 3) % 10 == 0 for row, text in enumerate(tokens(result)) for token in text)


class Counting:
    """Bans the tokens that its state has counted: right only if states change places with their beams."""

    def init(self, context: Context) -> Any:
        return {"seen": torch.zeros(len(context.tokens), len(TOKENIZER), dtype=torch.bool)}

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        assert len(token) == len(context.length) == len(logits)
        return {"seen": state["seen"].scatter(1, token[:, None], True)}

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        return logits.masked_fill(state["seen"], -torch.inf)


def stateless(logits: Tensor, context: Context) -> Tensor:
    seen = context.counts(logits.shape[-1], "output") > 0
    return logits.masked_fill(seen, -torch.inf)


def test_states_change_places_with_the_beams() -> None:
    def found(processor: Any) -> Result:
        strategy = Beam(num_beams=4, processors=[processor], early_stopping=True)
        return generate(MODEL, PROMPTS, strategy, max_new_tokens=12, num_samples=4)

    assert tokens(found(Counting())) == tokens(found(stateless))
    assert found(Counting()).scores == found(stateless).scores
    free = generate(MODEL, PROMPTS, Beam(early_stopping=True), max_new_tokens=12, num_samples=4)
    assert tokens(free) != tokens(found(Counting()))


def test_one_beam_is_greedy() -> None:
    greedy = generate(MODEL, PROMPTS, Greedy(), max_new_tokens=9, tokenizer=TOKENIZER)
    beam = generate(
        MODEL, PROMPTS, Beam(num_beams=1, early_stopping=True), max_new_tokens=9, tokenizer=TOKENIZER
    )
    assert tokens(beam) == tokens(greedy)
    assert beam.texts == greedy.texts
    assert beam.finish_reasons == greedy.finish_reasons


# Ends


def favoured(*texts: str) -> Callable[[Tensor, Context], Tensor]:
    """Makes texts (behind a prompt of one token) probable, the first the most; else nothing is."""
    ids = [byte_ids(text) for text in texts]

    def favour(logits: Tensor, context: Context) -> Tensor:
        out = torch.full_like(logits, -20.0)
        for row, length in enumerate(context.length.tolist()):
            history = context.tokens[row, 1:length].tolist()
            for number, text in enumerate(ids):
                if text[: len(history)] == history and len(text) > len(history):
                    token = text[len(history)]
                    out[row, token] = max(float(out[row, token]), -0.1 - 0.01 * number)
        return out

    return favour


def test_stop_strings_end_a_beam() -> None:
    strategy = Beam(num_beams=2, processors=[favoured("abXYcd", "azXYcd")], early_stopping=True)
    options: dict[str, Any] = {"max_new_tokens": 6, "num_samples": 2, "tokenizer": TOKENIZER}
    stop = Stop(eos=(), strings="XY")
    result = generate(MODEL, [[9]], strategy, stop=stop, **options)
    assert result.texts == ["ab", "az"]
    assert result.finish_reasons == ["stop", "stop"]
    assert tokens(result) == [byte_ids("abXY"), byte_ids("azXY")]
    late = generate(MODEL, [[9]], strategy, stop=stop, min_new_tokens=5, **options)
    assert late.texts is not None
    assert late.texts[0].startswith("abXYcd")


def test_stop_tokens_end_a_beam() -> None:
    a, b = byte_ids("ab")
    strategy = Beam(num_beams=2, processors=[favoured("cab", "dab")], early_stopping=True)
    result = generate(
        MODEL,
        [[9]],
        strategy,
        max_new_tokens=6,
        num_samples=2,
        tokenizer=TOKENIZER,
        stop=Stop(eos=(), tokens=a),
    )
    assert result.finish_reasons == ["stop", "stop"]
    assert result.texts == ["c", "d"]
    later = generate(
        MODEL, [[9]], strategy, max_new_tokens=3, min_new_tokens=3, stop=Stop(eos=(), tokens=(a, b))
    )
    assert tokens(later) == [byte_ids("cab")]


def test_no_tokens() -> None:
    result = generate(MODEL, PROMPTS, Beam(), max_new_tokens=0, num_samples=2, tokenizer=TOKENIZER)
    assert tokens(result) == [[]] * 8
    assert result.scores == [0.0] * 8
    assert [len(tree) for tree in result.beams or []] == [0] * 4


# Log-probabilities and the tree


@pytest.mark.parametrize("kind", ["raw", "processed"])
def test_log_probabilities_are_those_of_the_text(kind: Any) -> None:
    strategy = Beam(num_beams=3, logit_bias={12: 1.5}, renormalize_logits=True, length_penalty=0.0)
    result = generate(
        MODEL, PROMPTS, strategy, max_new_tokens=6, num_samples=2, logprobs=kind, top_logprobs=4
    )
    assert result.logprobs is not None
    assert result.scores is not None
    if kind == "processed":
        assert [float(row.sum()) for row in result.logprobs] == pytest.approx(result.scores, abs=1e-4)
    else:
        given = minitx.score(MODEL, [PROMPTS[row // 2] + text for row, text in enumerate(tokens(result))])
        for row, values in enumerate(result.logprobs):
            assert values.tolist() == pytest.approx(given.logprobs[row][-len(values) :].tolist(), abs=1e-4)
    for row in result:
        assert row.top_logprobs is not None
        assert row.logprobs is not None
        for token, value, ids, values in zip(row.tokens, row.logprobs, *row.top_logprobs, strict=True):
            if token in ids:
                assert float(values[ids == token]) == pytest.approx(float(value))


def paths(tree: BeamTree) -> dict[int, list[int]]:
    """The tokens of each returned hypothesis."""
    found = {}
    for node in tree:
        if node.rank is not None:
            text, at = [node.token], node
            while at.parent is not None:
                at = tree[at.parent]
                text.append(at.token)
            found[node.rank] = text[::-1]
    return found


def test_the_tree_holds_the_hypotheses() -> None:
    result = generate(MODEL, PROMPTS, Beam(num_beams=3), max_new_tokens=7, num_samples=2, tokenizer=TOKENIZER)
    assert result.beams is not None
    for prompt, tree in enumerate(result.beams):
        rows = tokens(result)[2 * prompt : 2 * prompt + 2]
        assert paths(tree) == dict(enumerate(rows))
        for place, node in enumerate(tree):
            above = None if node.parent is None else tree[node.parent]
            assert node.step == (0 if above is None else above.step + 1)
            assert node.parent is None or node.parent < place
            before = 0.0 if above is None else above.score * (above.step + 1)
            assert node.logprob == pytest.approx(node.score * (node.step + 1) - before, abs=1e-4)
            if node.rank is not None:
                assert node.finished
                assert node.score == (result.scores or [])[2 * prompt + node.rank]


DRAWING = [
    "   score",
    "  -0.120  ├ qr  [dropped]",
    "  -0.100  └ ab",
    "  -0.105    ├ xy  [returned #2]",
    "  -0.100    └ cd  [returned #1]",
]


def test_the_drawing() -> None:
    strategy = Beam(num_beams=2, processors=[favoured("abcd", "abxy", "qrst\n")], early_stopping=True)
    result = generate(
        MODEL, [[9]], strategy, max_new_tokens=4, num_samples=2, tokenizer=TOKENIZER, stop=Stop(eos=())
    )
    assert result.beams is not None
    assert str(result.beams[0]).splitlines() == DRAWING
    plain = generate(MODEL, [[9]], strategy, max_new_tokens=4, stop=Stop(eos=()))
    assert plain.beams is not None
    assert f"└ #{byte_ids('a')[0]} #{byte_ids('b')[0]}\n" in str(plain.beams[0])


def drawn(tree: BeamTree) -> list[str]:
    """The texts of the leaves, with score and end, as read from a drawing."""
    path, leaves = [""], []
    for line in str(tree).splitlines()[1:]:
        text, depth = line[10:], 0
        while text[:2] in ("│ ", "  ", "├ ", "└ "):
            depth, text = depth + 1, text[2:]
        text, _, end = text.partition("  [")
        path[depth:] = ["".join(path[depth - 1 : depth]) + text]
        if end:
            leaves.append(f"{float(line[:8]):.3f} {path[depth]} {end}")
    return leaves


@pytest.mark.parametrize("seed", range(5))
def test_a_drawing_can_be_read(seed: int) -> None:
    """Whatever branches off where, each text can be put together from its lines."""
    letters = [*b"abcdefgh"]
    result = generate(
        MODEL,
        [byte_ids("x") * 2],
        BeamSample(num_beams=5, allowed_token_ids=[*letters, EOS], temperature=3.0),
        max_new_tokens=7,
        num_samples=2,
        seed=seed,
        tokenizer=TOKENIZER,
        stop=Stop(eos=EOS),
    )
    (tree,) = result.beams or []
    parents, expected = {node.parent for node in tree}, []
    for place, node in enumerate(tree):
        if place in parents:
            continue
        end = "dropped]" if node.rank is None else f"returned #{node.rank + 1}]"
        end = "finished]" if node.rank is None and node.finished else end
        text, at = node.text or "", node
        while at.parent is not None:
            at = tree[at.parent]
            text = (at.text or "") + text
        expected.append(f"{node.score:.3f} {text} {end}")
    assert len(expected) > 3
    assert sorted(drawn(tree)) == sorted(expected)


def test_results_are_printed_in_a_line_per_row() -> None:
    options: dict[str, Any] = {"max_new_tokens": 30, "num_samples": 2}
    found = generate(MODEL, PROMPTS, Beam(num_beams=2), tokenizer=TOKENIZER, **options)
    lines = str(found).splitlines()
    assert len(lines) == 2 * len(PROMPTS)
    assert max(map(len, lines)) <= 80
    for number, (line, row) in enumerate(zip(lines, found, strict=True)):
        assert line.startswith(f"{number:>4}  {row.finish_reason:<6}  {row.score:9.3f}  {row.text!r:.10}")
    (tree, *_) = found.beams or []
    assert repr(tree) == f"<BeamTree of {len(tree)} tokens; print(...) draws it>"
    short = generate(MODEL, PROMPTS[:1], Greedy(), max_new_tokens=2, stop=Stop(eos=()))
    assert str(short) == f"   0  length  {short.sequences[0].tolist()}"


def test_drawings_are_80_columns_wide() -> None:
    for prompt in PROMPTS:
        result = generate(MODEL, [prompt], Beam(num_beams=6), max_new_tokens=30, tokenizer=TOKENIZER)
        lines = str((result.beams or [])[0]).splitlines()
        assert max(map(len, lines)) <= 80
        assert sum(line.endswith("[returned #1]") for line in lines) == 1


def test_a_deep_tree_is_drawn() -> None:
    """However deep it branches: no recursion, and no line of more than 80 columns."""
    nodes = []
    for step in range(1500):
        above = 2 * step - 2 if step else None
        for rank in (0 if step == 1499 else None, None):
            nodes.append(BeamNode(step, above, 5, "a", -1.0, -1.0, rank == 0, rank))
    lines = list(_drawing(nodes))
    assert len(lines) == 3000
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("├ a  [dropped]")
    assert lines[1].endswith("└ a")
    assert lines[-1].endswith("└ a  [returned #1]")


# What cannot be


@pytest.mark.parametrize("kind", [Beam, DiverseBeam, LexicalBeam])
@pytest.mark.parametrize("penalty", [30.0, -30.0])
def test_scores_beyond_float32(kind: type[ScoredSearch], penalty: float) -> None:
    words = {"force_words_ids": [[5]]} if kind is LexicalBeam else {}
    strategy = kind(length_penalty=penalty, **words)
    with pytest.raises(ValueError, match=r"length_penalty=-?30.0 must be nearer to 0 for max_new_tokens=40"):
        generate(MODEL, PROMPTS, strategy, max_new_tokens=40)
    assert len(generate(MODEL, PROMPTS, strategy, max_new_tokens=4)) == len(PROMPTS)


def test_numbers_of_a_beam_that_does_not_exist() -> None:
    def last_is_broken(logits: Tensor, context: Context) -> Tensor:
        last = torch.arange(len(logits)) == len(logits) - 1
        return torch.where(last[:, None], torch.nan, logits)

    strategy = Beam(num_beams=3, processors=[last_is_broken])
    with pytest.raises(ValueError, match="Row 2, step 0: last_is_broken returned NaN or"):
        generate(MODEL, PROMPTS[:1], strategy, max_new_tokens=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_beams": 0}, "num_beams=0 must be from 1 to 4096"),
        ({"num_beams": [2, 3]}, "must be an integer from 1"),
        ({"num_beams": 2.0}, "num_beams=2.0"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"length_penalty": 1e9}, "length_penalty"),
        ({"length_penalty": [1.0, 2.0]}, "must be a number in"),
        ({"patience": 0}, "patience=0 must be in"),
        ({"length_norm": "sum"}, "length_norm='sum' must be one of 'power', 'gnmt'"),
        ({"early_stopping": "always"}, "must be one of True, False, 'never', 'exact'"),
        ({"early_stopping": None}, "must be one of True, False, 'never', 'exact'"),
        ({"num_beam": 4}, "Did you mean 'num_beams'"),
        ({"temperature": 0.5}, "Sample has it"),
    ],
    ids=str,
)
def test_fields_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Beam(**fields)


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (Beam(num_beams=2), {"num_samples": 3}, "num_samples=3 must be at most num_beams=2"),
        (
            Beam(num_beams=4, patience=0.5),
            {"num_samples": 3},
            "must be at most 2 .*; raise patience",
        ),
        (Beam(), {"seed": 1}, r"seed=1 must be left out; Beam\(\) draws nothing"),
        (
            Beam(),
            {"generator": torch.Generator()},
            r"generator=.* must be left out; Beam\(\)",
        ),
        (Beam(chain=Chain(RepetitionPenalty([1.0, 2.0]))), {}, "2 values"),
    ],
)
def test_calls_are_checked(strategy: Beam, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(MODEL, PROMPTS, strategy, max_new_tokens=3, **options)


def test_a_search_is_no_stream() -> None:
    with pytest.raises(ValueError, match="cannot be streamed"):
        stream(MODEL, PROMPTS, Beam(), max_new_tokens=3)
    with pytest.raises(ValueError, match="no choice of a token to explain"):
        minitx.explain(MODEL, PROMPTS[0], Beam())


def no_way(logits: Tensor, context: Context) -> Tensor:
    return torch.full_like(logits, -torch.inf)


def nan(logits: Tensor, context: Context) -> Tensor:
    return torch.where(context.generated[:, None] == 1, torch.nan, logits)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (no_way, "no_way left no token"),
        (nan, "nan returned NaN"),
        (scripted(*[[5]] * 8), "Prompt 0: 1 of the num_samples=2 hypotheses were found"),
    ],
)
def test_a_prompt_without_a_way_on(processor: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(MODEL, [[3], [4]], Beam(processors=[processor]), max_new_tokens=3, num_samples=2)
