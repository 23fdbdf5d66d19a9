"""Prompts in every form become rows of ids, and rows a batch that is padded on the left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from minitx.decoding.prompts import pad_left, read_prompts
from tests.unit.decoding.vocabularies import byte_level

TOKENIZER = byte_level()
SIZE = len(TOKENIZER)
CPU = torch.device("cpu")

rows_of_ids = st.lists(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=6), min_size=1, max_size=5)


def read(prompts: Any, **options: Any) -> list[list[int]]:
    return read_prompts(prompts, vocab_size=SIZE, **options)


@given(rows_of_ids, st.data())
def test_padding_anywhere_is_taken_out(rows: list[list[int]], data: st.DataObject) -> None:
    """On the left, on the right, or both; the id that pads may be one that the texts have."""
    width = max(map(len, rows)) + data.draw(st.integers(0, 2))
    ids = torch.full((len(rows), width), data.draw(st.integers(-1, SIZE)))
    mask = torch.zeros(
        len(rows), width, dtype=data.draw(st.sampled_from([torch.long, torch.bool, torch.float]))
    )
    for number, row in enumerate(rows):
        start = data.draw(st.integers(0, width - len(row)))
        ids[number, start : start + len(row)] = torch.tensor(row)
        mask[number, start : start + len(row)] = 1
    assert read(ids, attention_mask=mask) == rows


@given(rows_of_ids, st.integers(0, SIZE - 1))
def test_a_batch_and_its_mask_are_the_rows_again(rows: list[list[int]], pad: int) -> None:
    ids, mask, positions = pad_left(rows, pad, CPU)
    assert ids.dtype == torch.long
    assert ids.shape == (len(rows), max(map(len, rows)))
    if mask is None:
        assert len({*map(len, rows)}) == 1
        assert positions is None
        assert ids.tolist() == rows
        return
    assert positions is not None
    assert read(ids, attention_mask=mask) == rows
    for row, each, place in zip(ids, mask, positions, strict=True):
        length = int(each.sum())
        assert each.tolist() == [False] * (len(each) - length) + [True] * length  # on the left
        assert row[~each].tolist() == [pad] * (len(each) - length)
        assert place[each].tolist() == [*range(length)]


@pytest.mark.parametrize(
    "prompts",
    [
        [[5, 6, 7], [8]],
        ((5, 6, 7), (8,)),
        [range(5, 8), [8]],
        [np.array([5, 6, 7]), np.array([8], dtype=np.uint8)],
        [[np.int64(5), 6, 7], [np.int32(8)]],
        [torch.tensor([5, 6, 7]), torch.tensor([8], dtype=torch.int32)],
        np.array([[5, 6, 7], [8]], dtype=object),
    ],
)
def test_ids_of_any_kind(prompts: Any) -> None:
    rows = read(prompts)
    assert rows == [[5, 6, 7], [8]]
    assert {type(row) for row in rows} == {list}
    assert {type(token) for row in rows for token in row} == {int}


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.uint8])
def test_a_tensor_without_a_mask_has_no_padding(dtype: torch.dtype) -> None:
    assert read(torch.tensor([[0, 0, 5], [7, 8, 0]], dtype=dtype)) == [[0, 0, 5], [7, 8, 0]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16])
def test_an_array_is_as_good_as_a_tensor(dtype: Any) -> None:
    assert read(np.array([[0, 0, 5], [7, 8, 0]], dtype=dtype)) == [[0, 0, 5], [7, 8, 0]]
    texts = read(["a cat", "the"], tokenizer=TOKENIZER)
    assert read(np.array(["a cat", "the"]), tokenizer=TOKENIZER) == texts
    assert read(np.array("a cat"), tokenizer=TOKENIZER) == read(np.str_("a cat"), tokenizer=TOKENIZER)


def test_texts_are_framed_as_the_tokenizer_frames_them() -> None:
    assert read("a cat", tokenizer=TOKENIZER) == [TOKENIZER.encode("a cat")]
    assert read(("a", "the"), tokenizer=TOKENIZER) == [TOKENIZER.encode("a"), TOKENIZER.encode("the")]
    assert read([[5], [6]], tokenizer=TOKENIZER) == [[5], [6]]


def test_what_is_read_is_the_callers_no_more() -> None:
    mine = [[5, 6]]
    read(mine)[0].append(7)
    assert mine == [[5, 6]]


MASK = torch.ones(1, 2)
IDS = torch.tensor([[5, 6]])


@pytest.mark.parametrize(
    ("prompts", "mask", "error", "message"),
    [
        (IDS, [[1, 1]], TypeError, r"attention_mask=\[\[1, 1\]\] must be a tensor of shape \(1, 2\)"),
        (IDS, torch.ones(2), ValueError, r"attention_mask=\[1.0, 1.0\] must be a tensor of shape \(1, 2\)"),
        (IDS, MASK * 2, ValueError, "1 at tokens and 0 at padding"),
        (IDS, MASK * torch.nan, ValueError, "1 at tokens and 0 at padding"),
        (
            IDS,
            torch.tensor([[0.0, -torch.inf]]),
            ValueError,
            "1 at tokens and 0 at padding",
        ),  # one to be added to scores
        ([[5, 6]], MASK, ValueError, r"must be None unless prompts is a \(batch, time\) tensor"),
        ("text", MASK, ValueError, "attention_mask=.* must be None unless prompts is a"),
        (IDS[None], None, ValueError, r"shape \(1, 1, 2\), torch.int64> must be integers"),
        (IDS.bool(), None, ValueError, r"torch.bool> must be integers"),
        ([IDS], None, TypeError, r"prompts\[0\]=<tensor.* must be a list of token ids"),
        (
            [torch.tensor(5)],
            None,
            TypeError,
            r"prompts\[0\]=5 .* prompt are prompts=\[\[5, 6\]\]",
        ),
        ([[5, None]], None, TypeError, r"prompts\[0\]=\[5, None\] must be a list of token ids"),
        ([b"a"], None, TypeError, r"prompts\[0\]=b'a' must be a list"),
        (
            {"input_ids": IDS},
            None,
            TypeError,
            "prompts={.* must be a string, a list of strings,",
        ),
        (np.array([5, 6]), None, TypeError, r"prompts\[0\]=5 .* prompt are prompts=\[\[5, 6\]\]"),
        (np.array([[5.0]]), None, TypeError, r"prompts\[0\]=\[.* must be a list of token ids"),
        (np.int64(5), None, TypeError, "prompts=5 must be a string"),
        (iter([[5]]), None, TypeError, "prompts=<list_iterator .* must be a string"),
        (
            TOKENIZER(["cat"]),
            None,
            TypeError,
            r"prompts=Batch.* pass the strings themselves, or batch\['input_ids'\] with attention_mask",
        ),
        (5, None, TypeError, "prompts=5 must be a string"),
        ([["text"]], None, TypeError, r"prompts\[0\]=\[.* must be a list of token ids"),
        (IDS - 6, None, ValueError, r"prompts\[0\]=-1 must be token ids from 0 to 270"),
        ([[5], [SIZE]], None, ValueError, r"prompts\[1\]=271 .* that the tokenizer belongs to this model"),
    ],
)
def test_what_are_no_prompts(prompts: Any, mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(prompts, attention_mask=mask, tokenizer=TOKENIZER)


def test_an_id_under_padding_is_not_judged() -> None:
    """Some pad with -100 or with an id of the tokenizer that the model lacks."""
    mask: Tensor = torch.tensor([[0, 1], [1, 1]])
    assert read(torch.tensor([[-100, 5], [6, 7]]), attention_mask=mask) == [[5], [6, 7]]


@pytest.mark.parametrize(("bos", "hint"), [(1, r"; .* begin with token 1: pass \[\[1\]\]"), (None, ".$")])
def test_an_empty_prompt_is_told_what_to_begin_with(bos: int | None, hint: str) -> None:
    with pytest.raises(ValueError, match=rf"prompts\[1\]=\[\] must be at least one token{hint}"):
        read([[5], []], bos=bos)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (5, "^decoder_prompts=5 must be"),
        (TOKENIZER(["cat"]), r"or batch\['input_ids'\]\.$"),  # which have no mask
        ([[1.5]], r"^decoder_prompts\[0\]=\[1.5\] must be a list of token ids"),
        ([0, 118], r"^decoder_prompts\[0\]=0 .* single prompt are decoder_prompts=\[\[5, 6\]\]"),
        (IDS.float(), "^decoder_prompts=<tensor"),
        (["a"], r"^decoder_prompts=\['a'\] must be token ids, or come with tokenizer="),
        ([], r"^decoder_prompts=\[\] must be at least one"),
        ([[]], r"^decoder_prompts\[0\]=\[\] must be at least one token"),
    ],
)
def test_errors_name_the_argument(prompts: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        read(prompts, parameter="decoder_prompts")
