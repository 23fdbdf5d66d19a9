"""Token classification: entities, windows, words, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.habits import UnknownArgumentError
from minitx.pipelines.postprocess.entities import (
    STRATEGIES,
    Token,
    continues_word,
    drop_labels,
    find_entities,
    merge_overlapping,
    split_label,
    stitch,
    window_starts,
)
from minitx.tokenizer.subwords import join_tokens, subword_prefix
from tests.parity.pipelines import LIMIT, LONG, TEXTS, close, folder
from tests.unit.pipelines.checks import check_order_and_batches

LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "LOC"}
NAMES = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}
TALE = " ".join(f"The cat {i} met Angela Merkel {i * 7} times in Berlin." for i in range(60))


@pytest.fixture(scope="module", params=["bert", "roberta"])
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = folder(tmp_path_factory.mktemp("ner"), request.param, "AutoModelForTokenClassification", **NAMES)
    return minitx.pipeline("ner", path, device="cpu")


@pytest.mark.parametrize("strategy", ["none", "average"])
def test_batches_order_and_threads(pipe: Any, strategy: str) -> None:
    check_order_and_batches(pipe, [*TEXTS, TALE], aggregation_strategy=strategy)


def test_windows_give_each_token_once(pipe: Any) -> None:
    tokens = pipe(TALE, ignore_labels=[])
    windows = tokens.details.inputs
    assert len(windows) > 4
    assert all(len(window) == LIMIT for window in windows[:-1])
    ids = pipe.tokenizer.encode(TALE)
    assert [token.index for token in tokens] == list(range(1, len(ids) - 1))
    whole = pipe.tokenizer([TALE], return_offsets=True)
    assert [(token.start, token.end) for token in tokens] == whole.offsets[0][1:-1]
    # from the end of the text it is the same tokens
    pipe.tokenizer.truncation_side = "left"
    try:
        reverse = pipe(TALE, ignore_labels=[])
    finally:
        pipe.tokenizer.truncation_side = "right"
    assert [token.index for token in reverse] == [token.index for token in tokens]
    assert [token.word for token in reverse] == [token.word for token in tokens]


def test_a_window_does_not_depend_on_its_neighbours(pipe: Any) -> None:
    options: dict[str, Any] = {"ignore_labels": [], "stride": 20}
    first = pipe(TALE, **options)
    second = pipe(TALE[: len(TALE) // 2] + LONG[:4000], **options)
    same = [token for token in first if token.index < LIMIT - 2 - 20]
    assert close([*same], second[: len(same)], 1e-5)
    with pytest.warns(UserWarning, match="too long"):
        alone = pipe(TALE, overflow="truncate", ignore_labels=[])
    assert close(alone[: LIMIT - 30], first[: LIMIT - 30], 1e-5)


def test_overflow(pipe: Any) -> None:
    with pytest.raises(ValueError, match="of at most 128 tokens"):
        pipe(TALE, overflow="error")
    with pytest.warns(UserWarning, match="too long"):
        cut = pipe([TALE, "a"], overflow="truncate", ignore_labels=[])
    assert len(cut[0]) == LIMIT - 2
    short = pipe("The cat sat on the mat.", max_length=5, stride=1, ignore_labels=[])
    assert len(short.details.inputs) > 1
    with pytest.raises(ValueError, match=f"stride={LIMIT} must be less than {LIMIT - 2}"):
        pipe("The cat sat on the mat.", stride=LIMIT)


def test_a_stride_near_the_limit_warns(pipe: Any) -> None:
    with pytest.warns(UserWarning, match="stride=100 is more than half of a window of 128") as notes:
        pipe([TALE, "a"], overflow="window", stride=100)
    assert len(notes) == 1
    pipe(TALE, overflow="window", stride=60)


def test_results_have_details(pipe: Any) -> None:
    result = pipe("The cat sat.", ignore_labels=[])
    assert result[0].word == result.details.inputs[0].tokens[1]
    assert result.details.outputs[0].shape == (len(result.details.inputs[0]), 4)
    assert all(type(token.score) is float for token in result)
    assert pipe("") == []
    assert pipe([]) == []
    assert pipe(["", "  "], ignore_labels=[])[0] == []


def test_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = folder(tmp_path_factory.mktemp("w"), "bert", "AutoModelForTokenClassification", **NAMES)
    pipe = minitx.pipeline("ner", path, is_split_into_words=True, ignore_labels=[], delimiter="_")
    words = ["Angela", "unaffable", "", "🍕"]
    (result,) = pipe(words)
    text = "_".join(words)
    assert result[0].start == 0
    assert result[-1].end == len(text)
    assert close(pipe({"text": words}), result)
    assert close(list(pipe(iter([words, tuple(words)]))), [result, result])
    assert close(pipe([words, ["a"]])[0], result, 1e-5)
    assert pipe([[]]) == [[]]
    assert len(pipe([words * 200])[0]) == len(result) * 200
    check_order_and_batches(pipe, [words, ["a"], words * 50])
    assert pipe(text, is_split_into_words=False)[-1].end == len(text)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (None, {}, "a string"),
        (b"a", {}, "an iterable"),
        ([["a"]], {}, "is_split_into_words=True"),
        ("a", {"is_split_into_words": True}, "a list of words"),
        ([["a", 1]], {"is_split_into_words": True}, "a list of words"),
        ("a", {"aggregation_strategy": "best"}, "aggregation_strategy='best'"),
        ("a", {"ignore_labels": "O"}, "a list of labels"),
        ("a", {"ignore_labels": [1]}, r"ignore_labels\[0\]=1"),
        ("a", {"stride": -1}, "stride=-1"),
        ("a", {"delimiter": None}, "delimiter=None"),
        ("a", {"delimiter": "_"}, "delimiter='_' must be left out without is_split_into_words=True"),
        ({"text": "a", "words": "b"}, {}, "left out"),
        (7, {}, "a list of requests"),
    ],
)
def test_bad_input(pipe: Any, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipe(inputs, **options)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("grouped_entities", "aggregation_strategy"),
        ("offset_mapping", "leave it out"),
        ("truncation", "overflow"),
    ],
)
def test_arguments_of_transformers(pipe: Any, name: str, hint: str) -> None:
    with pytest.raises(UnknownArgumentError, match=hint):
        pipe("a", **{name: True})


def test_a_model_with_another_head(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = folder(tmp_path_factory.mktemp("head"), "bert", "AutoModelForMaskedLM")
    with pytest.raises(ValueError, match="token-classification"):
        minitx.pipeline("ner", path)


def test_subwords(pipe: Any) -> None:
    prefix = subword_prefix(pipe.tokenizer)
    assert prefix == ("##" if pipe.tokenizer.cls_token == "[CLS]" else "")
    tokens = pipe.tokenizer.tokens("unaffable cat", add_special_tokens=False)
    assert join_tokens(pipe.tokenizer, tokens).strip() == "unaffable cat"
    assert continues_word("##ab", 2, 4, "unab", "##")
    assert not continues_word("un", 0, 2, "unab", "##")
    assert continues_word("ab", 2, 4, "unab", "")
    assert not continues_word("ab", 3, 5, "un ab", "")
    assert not continues_word("un", 0, 2, "unab", "")


# --- pure functions ------------------------------------------------------------------------------------


def token(text: str, label: int, index: int, continues: bool = False, score: float = 0.7) -> Token:
    scores = [(1 - score) / 3] * 4
    scores[label] = score
    return Token(text, scores, 10 * index, 10 * index + len(text), index, continues)


def test_strategies() -> None:
    tokens = [
        token("Ang", 1, 1, score=0.6),
        token("ela", 3, 2, True, score=0.9),
        token("Merkel", 2, 3),
        token("met", 0, 4),
    ]
    results = {s: find_entities(tokens, LABELS, s, "".join) for s in STRATEGIES}  # type: ignore[arg-type]
    assert [e["entity"] for e in results["none"]] == ["B-PER", "LOC", "I-PER", "O"]
    assert [e["entity_group"] for e in results["simple"]] == ["PER", "LOC", "PER", "O"]
    assert [(e["entity_group"], e["word"]) for e in results["first"]] == [
        ("PER", "AngelaMerkel"),
        ("O", "met"),
    ]
    assert [e["entity_group"] for e in results["max"]] == ["LOC", "PER", "O"]
    assert [e["entity_group"] for e in results["average"]] == ["LOC", "PER", "O"]
    assert results["first"][0]["score"] == pytest.approx((0.6 + 0.7) / 2)
    assert (results["first"][0]["start"], results["first"][0]["end"]) == (10, 36)
    assert drop_labels(results["first"], ["O"]) == results["first"][:1]
    assert drop_labels(results["none"], ["LOC", "O"]) == [results["none"][0], results["none"][2]]


def test_labels() -> None:
    assert split_label("B-PER") == (True, "PER")
    assert split_label("I-B-X") == (False, "B-X")
    assert split_label("PER") == (False, "PER")


def test_overlapping_entities() -> None:
    def entity(start: int, end: int, score: float) -> dict[str, Any]:
        return {"start": start, "end": end, "score": score}

    assert merge_overlapping([]) == []
    kept = entity(0, 5, 0.5)
    assert merge_overlapping([entity(2, 4, 0.9), kept, entity(5, 6, 0.1)]) == [kept, entity(5, 6, 0.1)]
    assert merge_overlapping([entity(0, 5, 0.4), kept]) == [kept]


@given(
    length=st.integers(1, 200),
    size=st.integers(1, 40),
    stride=st.integers(0, 39),
    from_end=st.booleans(),
)
def test_stitched_windows_are_the_text(length: int, size: int, stride: int, from_end: bool) -> None:
    stride %= size
    step, ranges = size - stride, []
    while not ranges or ranges[-1][1] < length:
        start = step * len(ranges)
        ranges.append((start, min(start + size, length)))
    if from_end:
        ranges = [(length - end, length - start) for start, end in ranges]
    starts = window_starts([end - start for start, end in ranges], stride, from_end=from_end)
    if len(ranges) > 1:
        assert starts == [start for start, _ in ranges]
    else:
        starts = [0]
    rows = [list(range(start, end)) for start, end in ranges]
    assert stitch(list(zip(starts, rows, strict=True))) == list(range(length))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30))
def test_every_token_is_in_one_entity(rows: list[tuple[int, bool]]) -> None:
    tokens = [token(f"{i}.", label, i, continues) for i, (label, continues) in enumerate(rows)]
    for strategy in STRATEGIES:
        entities = find_entities(tokens, LABELS, strategy, "".join)  # type: ignore[arg-type]
        assert "".join(entity["word"] for entity in entities) == "".join(token.word for token in tokens)
        assert all(0 <= entity["score"] <= 1 for entity in entities)
