"""Many samples, one answer: rankings, votes, consensus and CoT-decoding, from their definitions."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.decoding import (
    Alternatives,
    Beam,
    Sample,
    best_of,
    chrf,
    cot_decoding,
    mbr,
    rerank,
    self_consistency,
    token_f1,
)
from minitx.decoding.generate import generate
from minitx.decoding.output import Result
from minitx.decoding.text.stopping import Stop
from tests.unit.decoding.chi_square import ALPHA, p_value
from tests.unit.decoding.searches import EOS, PROMPT, tiny
from tests.unit.decoding.vocabularies import byte_level, sentence_piece, word_piece

OPTIONS: dict[str, Any] = {"max_new_tokens": 5, "stop": Stop(eos=EOS), "seed": 4}


def result_of(texts: list[str], logprobs: list[list[float]] | None = None) -> Result:
    return Result(
        sequences=[torch.tensor([index]) for index in range(len(texts))],
        texts=texts,
        finish_reasons=["length"] * len(texts),
        logprobs=None if logprobs is None else [torch.tensor(row) for row in logprobs],
    )


# --- rankings ---------------------------------------------------------------------------------------


def test_best_of_is_the_highest_mean() -> None:
    prompts = [list(PROMPT), [1], [2, 2, 4]]
    ranked = best_of(tiny(), prompts, Sample(temperature=1.3), best_of=8, n=3, **OPTIONS)
    drawn = generate(tiny(), prompts, Sample(temperature=1.3), num_samples=8, logprobs="raw", **OPTIONS)
    for prompt, candidates in enumerate(ranked.candidates):
        rows = range(prompt * 8, prompt * 8 + 8)
        means = {row: float(drawn.logprobs[row].double().mean()) for row in rows}
        assert [c.row for c in candidates] == sorted(rows, key=lambda row: -means[row])[:3]
        for candidate in candidates:
            assert candidate.score == pytest.approx(means[candidate.row])
            assert torch.equal(candidate.tokens, drawn.sequences[candidate.row])
        alone = best_of(tiny(), [prompts[prompt]], Sample(temperature=1.3), best_of=8, n=3, **OPTIONS)
        assert [c.tokens.tolist() for c in alone.candidates[0]] == [c.tokens.tolist() for c in candidates]
    assert [c.row for c in ranked.best] == [c[0].row for c in ranked.candidates]


def test_processed_log_probabilities_may_be_compared() -> None:
    options = {**OPTIONS, "logprobs": "processed"}
    strategy = Sample(suppress_tokens=[1], temperature=0.5)
    ranked = best_of(tiny(), [list(PROMPT)], strategy, best_of=6, **options)
    drawn = generate(tiny(), [list(PROMPT)], strategy, num_samples=6, **options)
    assert ranked.best[0].score == pytest.approx(max(float(row.mean()) for row in drawn.logprobs or []))


def test_a_scorer_sees_the_row() -> None:
    result = result_of(["aaa", "a", "aaaa", "aa"], [[-1.0], [-2.0], [-0.5], [-3.0]])
    for scorer in (lambda row: len(row.text), [3, 1, 4, 2], torch.tensor([3.0, 1.0, 4.0, 2.0])):
        ranked = rerank(result, scorer)
        assert [c.text for c in ranked.candidates[0]] == ["aaaa", "aaa", "aa", "a"]
    by_probability = rerank(result, lambda row: row.logprobs.sum(), n=1)
    assert [c.row for c in by_probability.candidates[0]] == [2]
    per_prompt = rerank(result, lambda row: -len(row.text), num_samples=2)
    assert [[c.row for c in ranked] for ranked in per_prompt.candidates] == [[1, 0], [3, 2]]
    ties = rerank(result, [1, 2, 2, 1])
    assert [c.row for c in ties.candidates[0]] == [1, 2, 0, 3]


def test_a_soft_ranking_draws_without_replacement() -> None:
    """The first by softmax(score / t), the second among the rest."""
    result, scores, t = result_of(["a", "b", "c"]), [0.0, 1.0, 1.5], 0.8
    weights = [math.exp(score / t) for score in scores]
    draws = 4000
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(draws):
        ranked = rerank(result, scores, temperature=t, seed=seed, n=2)
        counts[ranked.candidates[0][0].row, ranked.candidates[0][1].row] += 1
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    law = [weights[a] / sum(weights) * weights[b] / (sum(weights) - weights[a]) for a, b in pairs]
    observed = torch.tensor([counts[pair] for pair in pairs])
    assert p_value(observed, torch.tensor(law) * draws) > ALPHA
    again = [rerank(result, scores, temperature=t, seed=7).best[0].row for _ in range(3)]
    assert len(set(again)) == 1


def test_the_bound_of_the_best_of_n() -> None:
    """By enumeration: the law of the best of N draws of four outcomes with different scores."""
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    for number in (1, 2, 5, 20):
        below = torch.cat([torch.zeros(1).double(), p.cumsum(0)])
        law = (below**number).diff()
        divergence = float(torch.special.xlogy(law, law / p).sum())
        ranked = rerank(result_of(["a"] * number), [0.0] * number)
        assert divergence <= ranked.kl_bound + 1e-12
        assert ranked.kl_bound == pytest.approx(math.log(number) - (number - 1) / number)


def test_a_ranking_prints_a_line_per_candidate() -> None:
    ranked = rerank(result_of(["first", "x" * 100]), [0.25, 1.0])
    assert repr(ranked).splitlines()[1] == "   0   1      0.250  'first'"
    assert len(repr(ranked).splitlines()[0]) == 80


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: best_of(tiny(), [[1]], best_of=0, max_new_tokens=1), ValueError, "best_of=0 must be at"),
        (
            lambda: best_of(tiny(), [[1]], n=21, max_new_tokens=1),
            ValueError,
            "n=21 must be at most best",
        ),
        (lambda: best_of(tiny(), [[1]], num_samples=2, max_new_tokens=1), ValueError, "must be left out"),
        (
            lambda: best_of(tiny(), [[1]], logprobs=None, max_new_tokens=1),
            ValueError,
            "logprobs=None must be",
        ),
        (lambda: best_of(tiny(), [[1]], sed=2, max_new_tokens=1), TypeError, "sed"),
        (lambda: rerank(["a"], [1.0]), TypeError, "must be a Result"),
        (lambda: rerank(result_of(["a"]), [1.0, 2.0]), ValueError, "one number for each of the 1 rows"),
        (lambda: rerank(result_of(["a"]), ["1"]), TypeError, "score of row 0='1' must be a number"),
        (lambda: rerank(result_of(["a"]), [math.nan]), ValueError, "must be a number, not NaN"),
        (lambda: rerank(result_of(["a"]), 3), TypeError, "scorer=3 must be a function"),
        (lambda: rerank(result_of(["a"] * 3), [1] * 3, num_samples=2), ValueError, "a divisor of the 3 rows"),
        (lambda: rerank(result_of(["a"]), [1], temperature=0), ValueError, "temperature=0 must be in"),
        (lambda: rerank(result_of(["a"]), [1], seed=0), ValueError, "seed=0 must be left out"),
    ],
)
def test_rankings_refuse(run: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run()


# --- votes ------------------------------------------------------------------------------------------

SOLUTIONS = [
    "3 + 4 is 7. The answer is 7.",
    "Twice 4 is 8, so 8.00",
    "I do not know.",
    "It is 1,007 minus 1,000: 7",
    "-8 or 8?",
]


def test_the_last_number_is_the_answer() -> None:
    vote = self_consistency(SOLUTIONS)
    assert vote.answers == ["7", "8"]
    assert vote.rows == [[0, 3], [1, 4]]
    assert vote.unanswered == [2]
    assert (vote.answer, vote.share) == ("7", 0.5)  # of equal ones the earlier
    assert self_consistency(["about 1,250,000.50"]).answer == "1250000.5"
    assert self_consistency(["100"]).answer == "100"


def test_patterns_and_functions() -> None:
    texts = ["Answer: yes. Answer: no", "answer: NO", "Answer: maybe"]
    assert self_consistency(texts, r"Answer: (\w+)").answers == ["no", "maybe"]
    lower = self_consistency(texts, lambda text: text.lower().split()[-1])
    assert (lower.answer, lower.weights) == ("no", [2.0, 1.0])
    nothing = self_consistency(texts, lambda text: None)
    assert (nothing.answer, nothing.share, nothing.unanswered) == (None, 0.0, [0, 1, 2])
    pairs = self_consistency(texts, lambda text: (len(text) > 12, 1))
    assert pairs.answer == (True, 1)


def test_weights() -> None:
    logprobs = [[-1.0, -1.0], [-0.1, -0.5, -0.3], [-9.0], [-1.5], [-0.2]]
    result = result_of(SOLUTIONS, logprobs)
    mean = self_consistency(result, weights="mean")
    assert mean.answers == ["8", "7"]
    assert mean.weights == pytest.approx([math.exp(-0.3) + math.exp(-0.2), math.exp(-1) + math.exp(-1.5)])
    total = self_consistency(result, weights="total")
    assert total.weights == pytest.approx([math.exp(-0.9) + math.exp(-0.2), math.exp(-2) + math.exp(-1.5)])
    own = self_consistency(SOLUTIONS, weights=[0, 1, 5, 0.5, 0])
    assert (own.answers, own.weights) == (["8", "7"], [1.0, 0.5])
    assert own.share == pytest.approx(2 / 3)


def test_a_vote_prints_shares() -> None:
    lines = repr(self_consistency(SOLUTIONS)).splitlines()
    assert lines == [
        " 50.0%     2 samples  '7'",
        " 50.0%     2 samples  '8'",
        "           1 sample   without an answer",
    ]


def test_votes_on_generated_texts() -> None:
    tokenizer = byte_level()
    model = tiny(len(tokenizer), 3)
    result = generate(
        model, "the", Sample(), max_new_tokens=6, num_samples=9, tokenizer=tokenizer, seed=0, logprobs="raw"
    )
    vote = self_consistency(result, r"\w", weights="mean")
    texts = [row.text or "" for row in result]
    assert sum(map(len, vote.rows)) + len(vote.unanswered) == len(texts)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: self_consistency("7"), TypeError, "texts='7' must be a Result of generate, or a list"),
        (lambda: self_consistency([]), ValueError, "at least one text"),
        (lambda: self_consistency(["7", 7]), TypeError, r"texts\[1\]=7 must be a string"),
        (lambda: self_consistency(["7"], "("), ValueError, "must be a regular expression"),
        (lambda: self_consistency(["7"], 7), TypeError, "extract=7 must be a function"),
        (lambda: self_consistency(["7"], weights="mean"), ValueError, "weights='mean' must be \"equal\""),
        (lambda: self_consistency(["7"], weights="most"), ValueError, "weights='most' must be one of"),
        (lambda: self_consistency(["7"], weights=[1, 2]), ValueError, "a number for each of the 1 texts"),
        (lambda: self_consistency(["7"], weights=[-1]), ValueError, r"weights\[0\]=-1 must be in"),
    ],
)
def test_votes_refuse(run: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run()


def test_a_result_without_texts() -> None:
    result = generate(tiny(), [[1]], Sample(), max_new_tokens=2, seed=0)
    for function in (self_consistency, mbr):
        with pytest.raises(ValueError, match="must be a result with texts; pass tokenizer="):
            function(result)


# --- utilities --------------------------------------------------------------------------------------


def published_chrf(candidate: str, reference: str, order: int = 6, beta: float = 2.0) -> float:
    """Popović 2015, section 2, with lists in place of counts; orders that one text lacks are left out."""
    precision, recall = [], []
    for n in range(1, order + 1):
        grams = []
        for text in (candidate, reference):
            dense = [character for character in text if not character.isspace()]
            grams.append(["".join(dense[i : i + n]) for i in range(len(dense) - n + 1)])
        ours, theirs = grams
        if not ours or not theirs:
            continue
        rest = list(theirs)
        matches = 0
        for gram in ours:
            if gram in rest:
                rest.remove(gram)
                matches += 1
        precision.append(matches / len(ours))
        recall.append(matches / len(theirs))
    if not precision:
        return float(not candidate.split() and not reference.split())
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return (1 + beta**2) * p * r / (beta**2 * p + r) if p + r else 0.0


TEXTS = st.text(alphabet="ab c", max_size=14)


@settings(deadline=None, max_examples=150)
@given(first=TEXTS, second=TEXTS, order=st.integers(1, 7), beta=st.sampled_from((0.5, 1.0, 2.0, 3.0)))
def test_chrf_is_the_published_one(first: str, second: str, order: int, beta: float) -> None:
    value = chrf(first, second, order=order, beta=beta)
    assert value == pytest.approx(published_chrf(first, second, order, beta), abs=1e-12)
    assert 0 <= value <= 1
    assert chrf(first, first) == 1.0
    assert token_f1(first, second) == token_f1(second, first)


def test_utilities_by_hand() -> None:
    """Of "ab" in "abc": all of its n-grams, and two of three and one of two of the reference's."""
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf("ab", "abc") == pytest.approx(5 * recall / (4 + recall))
    assert chrf("a b", "ab") == 1.0
    assert chrf("abc", "xyz") == 0.0
    assert chrf("", "abc") == 0.0
    assert token_f1("the cat sat", "the the cat") == pytest.approx(2 / 3)
    assert token_f1("a", "b") == 0.0
    assert token_f1("", "") == 1.0
    with pytest.raises(TypeError, match="candidate=3 must be a string"):
        chrf(3, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order=0 must be at least 1"):
        chrf("a", "a", order=0)


# --- minimum Bayes risk -----------------------------------------------------------------------------

SAMPLES = [
    "the cat sat on the mat",
    "a cat sat on a mat",
    "the cat is on the mat",
    "dogs bark at night",
    "the cat sat on the mat",
    "cats sit on mats",
]


def jaccard(first: str, second: str) -> float:
    a, b = set(first.split()), set(second.split())
    return len(a & b) / len(a | b)


@pytest.mark.parametrize(("name", "utility"), [("chrf", chrf), ("token-f1", token_f1), (jaccard, jaccard)])
@pytest.mark.parametrize("references", [None, ["the cat sat", "night falls"]])
@pytest.mark.parametrize("weighted", [False, True])
def test_mbr_is_the_highest_mean_utility(name: Any, utility: Any, references: Any, weighted: bool) -> None:
    others = SAMPLES if references is None else references
    weights = [index + 1.0 for index in range(len(others))] if weighted else None
    shares = weights or [1.0] * len(others)
    found = mbr(SAMPLES, name, references=references, weights=weights)
    means = [
        sum(w * utility(y, r) for w, r in zip(shares, others, strict=True)) / sum(shares) for y in SAMPLES
    ]
    assert found.utilities == pytest.approx(means)
    assert found.order == sorted(range(len(SAMPLES)), key=lambda index: -round(means[index], 12))
    assert found.best == SAMPLES[found.order[0]]
    assert found.num_comparisons == len(SAMPLES) * len(others)


def test_aggregated_references() -> None:
    """Of one reference, or equal ones, it is exact; otherwise the mean counts by hand."""
    for name, utility in (("chrf", chrf), ("token-f1", token_f1)):
        one = mbr(SAMPLES, name, references=["the cat sat"] * 3, aggregate=True)
        assert one.utilities == pytest.approx([utility(text, "the cat sat") for text in SAMPLES])
        assert one.num_comparisons == len(SAMPLES)
    assert mbr(SAMPLES, aggregate=True).best == mbr(SAMPLES).best
    mixed = mbr(["a a", "a b"], "token-f1", references=["a a", "b b"], weights=[3, 1], aggregate=True)
    # The mean reference has 1.5 "a" and 0.5 "b".
    assert mixed.utilities == pytest.approx([1.5 / 2, (1 + 0.5) / 2])


def test_pruning_finds_the_same_with_fewer_comparisons() -> None:
    generator = torch.Generator().manual_seed(0)
    words = [f"w{index}" for index in range(30)]
    texts = []
    for _ in range(64):
        size = int(torch.randint(2, 12, (1,), generator=generator))
        weights = 1 / torch.arange(1, 31).double()
        chosen = torch.multinomial(weights, size, generator=generator).tolist()
        texts.append(" ".join(words[index] for index in chosen))
    whole, pruned = mbr(texts, "token-f1"), mbr(texts, "token-f1", prune=0.99)
    assert pruned.best == whole.best
    assert pruned.num_comparisons < 0.7 * whole.num_comparisons
    assert pruned.pruned
    assert set(pruned.order[-len(pruned.pruned) :]) == set(pruned.pruned)
    again = mbr(texts, "token-f1", prune=0.99)
    assert (again.order, again.utilities) == (pruned.order, pruned.utilities)
    assert mbr(["one"], prune=0.9).best == "one"
    assert mbr(["same"] * 9, prune=0.9).pruned == []


def test_consensus_prints_the_best() -> None:
    lines = repr(mbr(SAMPLES * 2)).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 2 more"
    assert lines[0].endswith("'the cat sat on the mat'")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"utility": "bleu"}, ValueError, "utility='bleu' must be one of 'chrf', 'token-f1'"),
        ({"utility": lambda a, b: "x"}, TypeError, "a function that returns numbers"),
        ({"weights": [1.0]}, ValueError, "a number for each of the 6 references"),
        ({"weights": [0.0] * 6}, ValueError, "of which one is above 0"),
        ({"prune": 0.5}, ValueError, r"prune=0\.5 must be in"),
        ({"prune": 0.9, "aggregate": True}, ValueError, "aggregate=True must be left out with prune="),
        ({"prune": 0.9, "weights": [1.0] * 6}, ValueError, "must be left out with prune="),
        ({"utility": jaccard, "aggregate": True}, ValueError, "aggregate=True must be False"),
        ({"aggregate": 1}, TypeError, "aggregate=1 must be True or False"),
        ({"references": []}, ValueError, "at least one text"),
    ],
)
def test_mbr_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mbr(SAMPLES, **options)


# --- CoT-decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [byte_level(), sentence_piece(), word_piece(tidy=True)])
def test_margins_are_those_of_the_answers_tokens(tokenizer: Any) -> None:
    """By a forward over the whole path; the answer's tokens are those whose text overlaps it."""
    model = tiny(len(tokenizer), 3)
    options: dict[str, Any] = {"max_new_tokens": 8, "tokenizer": tokenizer, "stop": Stop(eos=())}
    found = cot_decoding(model, "the cat", r"\w+", k=6, **options)
    result = generate(model, "the cat", Alternatives(), num_samples=6, **options)
    assert [path.text for path in found.paths] == result.texts
    prompt = tokenizer.encode("the cat")
    checked = 0
    for path, row in zip(found.paths, result.sequences, strict=True):
        if path.answer is None:
            assert path.margin == 0.0
            continue
        ids = [*prompt, *row.tolist()]
        with torch.no_grad():
            p = model(torch.tensor([ids])).logits[0].double().softmax(-1)
        best = p.topk(2).values
        margins = (best[:, 0] - best[:, 1])[len(prompt) - 1 : -1].tolist()
        lengths = [len(tokenizer.decode(ids[:end])) for end in range(len(prompt), len(ids) + 1)]
        whole = tokenizer.decode(ids)
        if any(not whole.startswith(tokenizer.decode(ids[:end])) for end in range(len(prompt), len(ids))):
            continue  # half a character, or a space that is taken back
        end = whole.rfind(str(path.answer)) + len(str(path.answer))
        start = end - len(str(path.answer))
        if start < lengths[0]:
            continue  # joined to the prompt's last word
        inside = [i for i in range(len(row)) if lengths[i] < end and lengths[i + 1] > start]
        assert path.margin == pytest.approx(sum(margins[i] for i in inside) / len(inside), abs=1e-5)
        checked += 1
    assert checked


def test_margins_of_equal_answers_are_added() -> None:
    tokenizer = byte_level()
    found = cot_decoding(
        tiny(len(tokenizer), 3), "the", lambda text: text[-1:], k=9, max_new_tokens=3, tokenizer=tokenizer
    )
    sums: dict[Any, float] = {}
    for path in found.paths:
        sums[path.answer] = sums.get(path.answer, 0.0) + path.margin
    assert dict(zip(found.answers, found.margins, strict=True)) == pytest.approx(sums)
    assert found.margins == sorted(found.margins, reverse=True)
    assert found.answer == max(sums, key=lambda answer: sums[answer])
    assert found.best.margin == max(path.margin for path in found.paths)
    assert repr(found).splitlines()[-1] == f"answer: {found.answer!r}"


def test_an_encoder_decoder_has_paths_too() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-seq2seq")
    model: Any = minitx.load("minitx/tiny-seq2seq", dtype="float32")
    found = cot_decoding(model, "hello", r"\w+$", k=3, max_new_tokens=8, tokenizer=tokenizer)
    assert len(found.paths) == 3
    assert all(0 <= path.margin <= 1 for path in found.paths)


def test_cot_decoding_refuses() -> None:
    tokenizer = byte_level()
    model, options = tiny(len(tokenizer), 3), {"tokenizer": tokenizer, "max_new_tokens": 2}
    for run, message in (
        (lambda: cot_decoding(model, "the", max_new_tokens=2), "tokenizer=None must be a Tokenizer"),
        (lambda: cot_decoding(model, ["the"], **options), "must be one prompt, a string"),
        (lambda: cot_decoding(model, "the", strategy=Beam(num_beams=2), **options), "must be Alternatives"),
        (lambda: cot_decoding(model, "the", k=0, **options), "k=0 must be at least 1"),
        (lambda: cot_decoding(model, "the", num_samples=2, **options), "num_samples=2 must be left out"),
        (lambda: cot_decoding(model, "the", lambda text: "missing", **options), "returns a part of the text"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            run()
