"""`Cache.crop_rows`: rows that lose different numbers of tokens continue as they would alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.layers.cache import Cache
from tests.unit.test_cache import ids, model

ROWS = 3


def run(decoder: Any, rows: list[list[int]], cache: Cache, past: list[int]) -> torch.Tensor:
    """The logits of further tokens of each row, all of the same number, at explicit positions."""
    positions = torch.tensor(
        [[start + i for i in range(len(row))] for start, row in zip(past, rows, strict=True)]
    )
    return decoder(torch.tensor(rows), None, positions, cache=cache).logits  # type: ignore[no-any-return]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([None, 5]),
    st.sampled_from([None, 40]),
    st.lists(
        st.tuples(
            st.integers(1, 5), st.lists(st.integers(0, 4), min_size=ROWS, max_size=ROWS), st.booleans()
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**16),
)
@torch.inference_mode()
def test_rows_continue_as_alone(window: Any, most: Any, blocks: list[Any], seed: int) -> None:
    """Blocks of tokens, of which each row loses some; at last all of them run on."""
    decoder = model(sliding_window=window)
    text = ids(ROWS, 64, seed=seed).tolist()
    cache = decoder.make_cache(most, spare=6)
    kept = [row[:3] for row in text]
    run(decoder, kept, cache, [0] * ROWS)
    for size, removed, trim in [*blocks, (2, [0] * ROWS, False)]:
        new = [row[40 + len(k) : 40 + len(k) + size] for row, k in zip(text, kept, strict=True)]
        found = run(decoder, new, cache, [*map(len, kept)])
        for row in range(ROWS):
            whole = torch.tensor([kept[row] + new[row]])
            expected = decoder(whole).logits[0, -size:]
            assert torch.allclose(found[row], expected, atol=1e-9)
        counts = [min(count, size) for count in removed]
        cache.crop_rows(counts, trim=trim)
        kept = [k + n[: size - c] for k, n, c in zip(kept, new, counts, strict=True)]
        if trim:
            assert cache.length == max(map(len, kept))


@torch.inference_mode()
def test_equal_numbers_move_nothing_and_a_mask_without_padding_is_dropped() -> None:
    decoder = model(sliding_window=None)
    cache = decoder.make_cache(20)
    decoder(ids(2, 6), cache=cache)
    stored = cache.layers[0].key
    cache.crop_rows([2, 2])
    assert cache.length == 4
    assert cache.mask is None
    assert cache.layers[0].key is stored
    cache.crop_rows([1, 3])
    assert cache.mask is not None
    assert cache.mask.tolist() == [[True] * 3, [False] * 2 + [True]]
    cache.crop_rows([2, 0], trim=True)
    assert cache.length == 1
    assert cache.mask is None


@torch.inference_mode()
def test_numbers_that_do_not_fit() -> None:
    decoder = model()
    cache = decoder.make_cache(spare=2)
    with pytest.raises(ValueError, match=r"removed=\[1\] must be numbers from 0 to 0, one for each"):
        cache.crop_rows([1])
    decoder(ids(2, 12), cache=cache)
    for removed in ([1], [1, 13], [-1, 0]):
        with pytest.raises(
            ValueError, match=r"removed=.* must be numbers from 0 to 12, one for each of the 2"
        ):
            cache.crop_rows(removed)
    with pytest.raises(ValueError, match=r"from 12 tokens to 7: .* spare=4 or more"):
        cache.crop_rows([0, 5])
    assert cache.length == 12
    assert cache.mask is None
