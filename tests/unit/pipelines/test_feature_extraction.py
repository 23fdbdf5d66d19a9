"""Feature extraction: windows, batches and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.pipelines.text.feature_extraction import join_windows
from tests.parity.pipelines import LIMIT, LONG, TEXTS, folder
from tests.unit.pipelines.checks import check_order_and_batches


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def pipe(root: Path) -> Any:
    return minitx.pipeline("feature-extraction", folder(root, "roberta", "AutoModel"), device="cpu")


def test_batches_order_and_threads(pipe: Any) -> None:
    check_order_and_batches(pipe, TEXTS)
    check_order_and_batches(pipe, [*TEXTS[:3], LONG], overflow="window")


def test_nesting_and_details(pipe: Any) -> None:
    result = pipe("a cat")
    ids = pipe.tokenizer.encode("a cat")
    assert (len(result), len(result[0]), len(result[0][0])) == (1, len(ids), 24)
    assert list(result.details.inputs[0].input_ids) == ids
    tensor = pipe("a cat", return_tensors="pt")
    assert tensor.shape == (1, len(ids), 24)
    assert torch.equal(torch.tensor(result), tensor)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("stride", [None, 0, 7])
def test_windows_give_each_token_one_state(root: Path, side: str, stride: int | None) -> None:
    """The states of all tokens, in order: those of a window's middle are those of the window alone."""
    path = folder(root, "roberta", "AutoModel")
    tokenizer = minitx.load_tokenizer(path)
    tokenizer.truncation_side = side  # type: ignore[assignment]
    options: Any = {"overflow": "window", "stride": stride, "device": "cpu"}
    pipe = minitx.pipeline("feature-extraction", path, tokenizer, **options)
    hidden = pipe(LONG, return_tensors=True)[0]
    ids = tokenizer.encode(LONG)
    assert len(hidden) == len(ids)
    first = ids[: LIMIT - 1] + ids[-1:] if side == "right" else ids[:1] + ids[-LIMIT + 1 :]
    with torch.inference_mode():
        alone = pipe.model(torch.tensor([first])).last_hidden_state[0]
    own = slice(0, LIMIT // 2) if side == "right" else slice(-LIMIT // 2, None)
    torch.testing.assert_close(hidden[own], alone[own], rtol=1e-4, atol=1e-5)


def test_joined_windows_have_every_token_once(pipe: Any) -> None:
    """Each hidden state here is the id of its token."""
    items = pipe.task.encode(LONG, options=pipe.task.options(None, {"overflow": "window", "stride": 9}))
    states = [torch.tensor(item.input_ids)[:, None] for item in items]
    assert join_windows(items, states, 9).flatten().tolist() == pipe.tokenizer.encode(LONG)


def test_overflow(pipe: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 1 inputs of feature-extraction were too long"):
        assert len(pipe(LONG)[0]) == LIMIT
    with pytest.raises(ValueError, match='overflow="truncate" cuts it off'):
        pipe(LONG, overflow="error")


def test_texts_without_tokens(root: Path) -> None:
    pipe = minitx.pipeline("feature-extraction", folder(root, "gpt2", "AutoModel"), device="cpu")
    pipe.tokenizer._backends.source.backend.post_processor = None
    assert pipe("", return_tensors=True).shape[0] == 1


@pytest.mark.parametrize("value", [None, 3, b"a", ["a", None], [["a"]], {"x": "a"}, {}])
def test_bad_texts(pipe: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"text|inputs"):
        pipe(value)


def test_bad_options(pipe: Any) -> None:
    with pytest.raises(ValueError, match="return_tensors='np' must be one of"):
        pipe("a", return_tensors="np")
    with pytest.raises(TypeError, match='overflow="truncate"'):
        pipe("a", truncation=True)
    with pytest.raises(TypeError, match="max_length= and overflow="):
        pipe("a", tokenize_kwargs={"truncation": True})
