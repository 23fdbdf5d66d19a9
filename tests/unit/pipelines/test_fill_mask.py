"""Fill-mask: targets, several masks, windows around masks, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.pipelines.preprocess.masks import windows
from minitx.pipelines.text_task import TextInput
from tests.parity.pipelines import LIMIT, LONG, close, folder
from tests.unit.pipelines.checks import check_order_and_batches


@pytest.fixture(scope="module", params=["bert", "roberta"])
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = folder(tmp_path_factory.mktemp("fill"), request.param, "AutoModelForMaskedLM")
    return minitx.pipeline("fill-mask", path, device="cpu")


def texts(pipe: Any) -> list[str]:
    mask = pipe.tokenizer.mask_token
    return [
        f"The {mask} sat.",
        f"{mask}",
        f"a {mask} and{mask} b",
        f"東京 {mask} 🍕",
        f"{LONG[:900]} {mask} {LONG}",
    ]


def test_batches_order_and_threads(pipe: Any) -> None:
    check_order_and_batches(pipe, texts(pipe))


def test_a_window_around_each_mask(pipe: Any) -> None:
    mask = pipe.tokenizer.mask_token
    text = f"{LONG} The {mask} sat. {LONG} A {mask} ran."
    result = pipe(text)
    assert len(result) == 2
    first, second = result.details.inputs
    assert len(first) == len(second) == LIMIT
    for item in (first, second):
        assert [item.input_ids[position] for position in item.label.positions] == [
            pipe.tokenizer.mask_token_id
        ]
        assert list(item.input_ids)[:1] == pipe.tokenizer.encode("")[:1]
        assert list(item.input_ids)[-1:] == pipe.tokenizer.encode("")[-1:]
    assert abs(first.label.positions[0] - LIMIT // 2) < 3
    assert all(answer.sequence.count(mask) == 1 for row in result for answer in row)
    # it does not depend on the text far away, nor on the mask there
    other = pipe(f"{LONG} The {mask} sat. {LONG} A cat ran.")
    assert [row.token for row in other] == [row.token for row in result[0]]
    assert close([row.score for row in other], [row.score for row in result[0]], 1e-5)


def test_masks_that_are_near_share_a_window(pipe: Any) -> None:
    mask = pipe.tokenizer.mask_token
    result = pipe(f"The {mask} sat on {mask}. {LONG}")
    assert len(result.details.inputs) == 1
    assert len(result) == 2


def test_overflow(pipe: Any) -> None:
    mask = pipe.tokenizer.mask_token
    with pytest.raises(ValueError, match="one with a mask among its first 128 tokens"):
        pipe(f"{LONG} {mask}", overflow="truncate")
    with pytest.warns(UserWarning, match="were too long and were truncated"):
        assert len(pipe(f"{mask} {LONG}", overflow="truncate")) == 5
    with pytest.raises(ValueError, match='overflow="truncate" cuts it off'):
        pipe(f"{mask} {LONG}", overflow="error")
    with pytest.raises(ValueError, match="max_length=2 must be at least 3"):
        pipe(f"{mask} {LONG}", max_length=2)


def test_details_have_the_best_tokens(pipe: Any) -> None:
    result = pipe(texts(pipe)[0], top_k=3)
    (best,) = result.details.outputs
    assert best.ids.tolist() == [[row["token"] for row in result]]
    assert best.scores.tolist() == [[row["score"] for row in result]]
    assert best.logits.shape == (1, 3)
    assert result.details.inputs[0].tokens[0] in ("[CLS]", "<s>")


def test_masked_positions_alone_have_logits(pipe: Any) -> None:
    shapes: list[Any] = []
    hook = pipe.model.head.register_forward_hook(lambda _, __, logits: shapes.append(logits.shape))
    try:
        pipe(texts(pipe)[:4])
    finally:
        hook.remove()
    assert sum(shape[:-1].numel() for shape in shapes) == 5  # masks


def test_targets(pipe: Any) -> None:
    tokens = [pipe.tokenizer.id_to_token(index) for index in (40, 41, 42)]
    result = pipe(texts(pipe)[0], targets=tokens)
    assert sorted(row.token for row in result) == [40, 41, 42]
    whole = {row.token: row.score for row in pipe(texts(pipe)[0], top_k=10**6)}
    assert all(row.score == pytest.approx(whole[row.token]) for row in result)
    with pytest.warns(UserWarning, match="is not a token of the model; its first token"):
        pipe(texts(pipe)[0], targets=["xyzzyplugh"])
    with (
        pytest.warns(UserWarning, match="it is left out"),
        pytest.raises(ValueError, match="at least one token"),
    ):
        pipe(texts(pipe)[0], targets=[""])
    with pytest.raises(ValueError, match="at least one token"):
        pipe(texts(pipe)[0], targets=[])


@pytest.mark.parametrize("options", [{"top_k": 0}, {"top_k": "best"}, {"targets": 3}, {"targets": [3]}])
def test_bad_options(pipe: Any, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        pipe(texts(pipe)[0], **options)


@pytest.mark.parametrize("value", ["no mask", "", None, 3, b"a", [["a"]], {"x": "a"}, ["no mask"]])
def test_bad_texts(pipe: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"text|inputs"):
        pipe(value)


def test_a_list_of_one_text_has_its_result(pipe: Any) -> None:
    text = texts(pipe)[0]
    assert close(pipe([text]), pipe(text))
    assert close(pipe([text, text]), [pipe(text)] * 2)
    assert close(pipe([{"text": text}]), pipe({"text": text}))


def test_a_tokenizer_without_a_mask(pipe: Any) -> None:
    other = minitx.load_tokenizer(pipe.model.checkpoint.folder)
    other.mask_token = None
    with pytest.raises(ValueError, match="one with a mask_token"):
        minitx.pipeline("fill-mask", pipe.model, other)


class Specials:
    """An encoding of one special token on either side."""

    def __init__(self, length: int) -> None:
        self.special_tokens_mask = [1, *[0] * (length - 2), 1]


@settings(max_examples=200, deadline=None)
@given(st.integers(3, 200), st.integers(3, 50), st.data())
def test_windows_hold_their_masks(length: int, limit: int, data: st.DataObject) -> None:
    masks = sorted(data.draw(st.sets(st.integers(1, length - 2), min_size=1, max_size=5)))
    limit = min(limit, length)
    whole = TextInput(arguments={"input_ids": list(range(length))}, encoding=Specials(length))  # type: ignore[arg-type]
    seen = []
    for window in windows(whole, masks, limit):
        ids = list(window.input_ids)
        assert len(ids) == limit
        assert (ids[0], ids[-1]) == (0, length - 1)
        assert ids[1:-1] == list(range(ids[1], ids[1] + limit - 2))
        for position in window.label.positions:
            assert ids[position] == window.label.start + position
            seen.append(ids[position])
    assert sorted(seen) == masks
