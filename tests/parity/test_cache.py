"""Design, section 7, point 3: cached equals uncached, for every decoder and every kind of cache."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minitx.cache import Cache
from minitx.models import DecoderModel
from tests.parity.cases import BY_NAME, CASES
from tests.parity.reference import pair, text

DECODERS = [case.name for case in CASES if "causal-lm" in case.heads]
PIECES = {
    "steps": [9] + [1] * 12,
    "chunks": [5, 7, 4, 5],
    "mixed": [1, 3, 1, 1, 6, 1, 8],
}
LENGTH = 21


def decoder(name: str, root: Path) -> DecoderModel:
    _, model = pair(name, "causal-lm", torch.float64, root)
    assert isinstance(model, DecoderModel)
    return model


def batch(name: str, padded: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Ids (3, T), and for rows of different lengths their mask and positions."""
    case = BY_NAME[name]
    # rotary positions that depend on the length of the text agree with themselves within the training's
    length = min(LENGTH, 12) if case.depends_on_length else LENGTH
    ids = text(case, 3, length)["input_ids"]
    if not padded:
        return ids, None, None
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    mask[2, :1] = 0
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def run(
    model: DecoderModel, inputs: tuple[Tensor, ...], cache: Cache | None, start: int, stop: int
) -> Tensor:
    ids, mask, positions = (None if x is None else x[:, start:stop] for x in inputs)
    assert ids is not None
    with torch.inference_mode():
        logits = model(ids, mask, positions, cache=cache).logits
    assert logits is not None
    return logits


def apart(found: Tensor, expected: Tensor, mask: Tensor | None) -> float:
    real = torch.ones(found.shape[:2]).bool() if mask is None else mask.bool()
    return (found - expected)[real].abs().max().item() / max(1.0, expected[real].abs().max().item())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_pieces_equal_one_pass(name: str, padded: bool, kind: str, root: Path) -> None:
    model, inputs = decoder(name, root), batch(name, padded)
    length = inputs[0].shape[1]
    expected = run(model, inputs, None, 0, length)
    for pieces in PIECES.values():
        cache = model.make_cache(length if kind == "static" else None)
        ends = [min(end, length) for end in accumulate(pieces, initial=0)]
        found = [run(model, inputs, cache, a, b) for a, b in pairwise(ends) if b > a]
        assert cache.length == length
        assert apart(torch.cat(found, dim=1), expected, inputs[1]) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_crop_is_as_if_never_gone_further(name: str, padded: bool, kind: str, root: Path) -> None:
    model, inputs = decoder(name, root), batch(name, padded)
    length = inputs[0].shape[1]
    expected = run(model, inputs, None, 0, length)
    cache = model.make_cache(length if kind == "static" else None, spare=6)
    run(model, inputs, cache, 0, 6)
    elsewhere = (inputs[0].flip(1), *inputs[1:])
    for kept, further in ((6, 10), (7, 12)):
        for step in range(cache.length, kept):
            run(model, inputs, cache, step, step + 1)
        run(model, elsewhere, cache, kept, further - 2)
        run(model, elsewhere, cache, further - 2, further - 1)
        cache.crop(kept)
    found = torch.cat([run(model, inputs, cache, a, a + 1) for a in range(7, length)], dim=1)
    mask = None if inputs[1] is None else inputs[1][:, 7:]
    assert apart(found, expected[:, 7:], mask) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_reordered_and_repeated_rows(name: str, kind: str, root: Path) -> None:
    """What a search does with a cache is what running the reordered texts would have given."""
    model, inputs = decoder(name, root), batch(name, True)
    length = inputs[0].shape[1]
    for rows in ([2, 0, 1], [1, 1, 0], [2], [0, 0, 1, 1, 2, 2]):
        cache = model.make_cache(length if kind == "static" else None)
        run(model, inputs, cache, 0, 9)
        cache = cache.repeat(2) if rows == [0, 0, 1, 1, 2, 2] else cache.select(torch.tensor(rows))
        chosen = tuple(None if x is None else x[rows] for x in inputs)
        found = torch.cat([run(model, chosen, cache, a, a + 1) for a in range(9, length)], dim=1)
        expected = run(model, chosen, None, 0, length)[:, 9:]
        assert apart(found, expected, None) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
def test_only_the_last_logits(name: str, root: Path) -> None:
    model, inputs = decoder(name, root), batch(name, False)
    with torch.inference_mode():
        everything = model(inputs[0])
        last = model(inputs[0], logits_to_keep=1)
    assert last.logits.shape == (3, 1, everything.logits.shape[-1])
    assert torch.allclose(last.logits, everything.logits[:, -1:], rtol=0, atol=1e-12)
    assert torch.equal(last.last_hidden_state, everything.last_hidden_state)
