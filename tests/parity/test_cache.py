"""Design, section 7, point 3: cached equals uncached, for every decoder and every kind of cache."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, Self

import pytest
import torch
from torch import Tensor

from minitx.layers.cache import Cache
from minitx.models import CausalModel, EncoderDecoderModel
from tests.parity.cases import BY_NAME, CASES
from tests.parity.reference import pair, text

ENCODER_DECODERS = [case.name for case in CASES if "seq2seq-lm" in case.heads]
DECODERS = [*(case.name for case in CASES if "causal-lm" in case.heads), *ENCODER_DECODERS]
PIECES = {
    "steps": [9] + [1] * 12,
    "chunks": [5, 7, 4, 5],
    "mixed": [1, 3, 1, 1, 6, 1, 8],
}
LENGTH = 21


class Texts(NamedTuple):
    """What a decoder goes on with, and what an encoder has read before; None where there is no such thing.

    For rows of different lengths there are masks: of padding in front, in the middle, where a row that was
    padded behind goes on, and for the encoder behind as well.
    """

    ids: Tensor  # (B, T)
    mask: Tensor | None = None
    positions: Tensor | None = None
    source: Tensor | None = None  # (B, S)
    source_mask: Tensor | None = None

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def rows(self, rows: list[int]) -> Self:
        return self._make(None if x is None else x[rows] for x in self)


def decoder(name: str, root: Path) -> CausalModel:
    task = "seq2seq-lm" if name in ENCODER_DECODERS else "causal-lm"
    _, model = pair(name, task, torch.float64, root)
    assert isinstance(model, CausalModel)
    return model


def batch(name: str, padded: bool) -> Texts:
    """Three rows."""
    case = BY_NAME[name]
    # rotary positions that depend on the length of the text agree with themselves within the training's
    length = min(LENGTH, 12) if case.depends_on_length else LENGTH
    found = Texts(text(case, 3, length)["input_ids"])
    if name in ENCODER_DECODERS:
        found = found._replace(source=text(case, 3, 11, seed=1)["input_ids"])
    if not padded:
        return found
    mask = torch.ones_like(found.ids)
    mask[0, :4] = 0
    mask[2, :1] = 0
    mask[2, 5:7] = 0
    found = found._replace(mask=mask, positions=(mask.cumsum(1) - 1).clamp(min=0))
    if found.source is None:
        return found
    source_mask = torch.ones_like(found.source)
    source_mask[0, 8:] = 0
    source_mask[1, :2] = 0
    return found._replace(source_mask=source_mask)


def empty(model: CausalModel, texts: Texts, kind: str, spare: int = 0) -> Cache:
    """A cache that has seen nothing but what an encoder has read."""
    cache = model.make_cache(texts.length if kind == "static" else None, spare=spare)
    if isinstance(model, EncoderDecoderModel):
        assert texts.source is not None
        with torch.inference_mode():
            model.encode_into(cache, texts.source, texts.source_mask)
    return cache


def run(model: CausalModel, texts: Texts, cache: Cache, start: int, stop: int) -> Tensor:
    """The logits of some of the tokens."""
    ids, mask, positions = (None if x is None else x[:, start:stop] for x in texts[:3])
    assert ids is not None
    with torch.inference_mode():
        logits = model.decode(ids, mask, positions, cache=cache).logits
    assert logits is not None
    return logits


def one_pass(model: CausalModel, texts: Texts) -> Tensor:
    """The logits of all tokens, without a cache."""
    with torch.inference_mode():
        if isinstance(model, EncoderDecoderModel):
            ids, mask, positions, source, source_mask = texts
            logits = model(source, source_mask, ids, mask, decoder_position_ids=positions).logits
        else:
            logits = model(*texts[:3]).logits
    assert isinstance(logits, Tensor)
    return logits


def apart(found: Tensor, expected: Tensor, mask: Tensor | None) -> float:
    real = torch.ones(found.shape[:2]).bool() if mask is None else mask.bool()
    return (found - expected)[real].abs().max().item() / max(1.0, expected[real].abs().max().item())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_pieces_equal_one_pass(name: str, padded: bool, kind: str, root: Path) -> None:
    model, texts = decoder(name, root), batch(name, padded)
    length, expected = texts.length, one_pass(model, texts)
    for pieces in PIECES.values():
        cache = empty(model, texts, kind)
        ends = [min(end, length) for end in accumulate(pieces, initial=0)]
        found = [run(model, texts, cache, a, b) for a, b in pairwise(ends) if b > a]
        assert cache.length == length
        assert apart(torch.cat(found, dim=1), expected, texts.mask) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_crop_is_as_if_never_gone_further(name: str, padded: bool, kind: str, root: Path) -> None:
    model, texts = decoder(name, root), batch(name, padded)
    length, expected = texts.length, one_pass(model, texts)
    cache = empty(model, texts, kind, spare=6)
    run(model, texts, cache, 0, 6)
    elsewhere = texts._replace(ids=texts.ids.flip(1))
    for kept, further in ((6, 10), (7, 12)):
        for step in range(cache.length, kept):
            run(model, texts, cache, step, step + 1)
        run(model, elsewhere, cache, kept, further - 2)
        run(model, elsewhere, cache, further - 2, further - 1)
        cache.crop(kept)
    found = torch.cat([run(model, texts, cache, a, a + 1) for a in range(7, length)], dim=1)
    mask = None if texts.mask is None else texts.mask[:, 7:]
    assert apart(found, expected[:, 7:], mask) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_reordered_and_repeated_rows(name: str, kind: str, root: Path) -> None:
    """What a search does with a cache is what running the reordered texts would have given."""
    model, texts = decoder(name, root), batch(name, True)
    for rows in ([2, 0, 1], [1, 1, 0], [2], [0, 0, 1, 1, 2, 2]):
        cache = empty(model, texts, kind)
        run(model, texts, cache, 0, 9)
        cache = cache.repeat(2) if rows == [0, 0, 1, 1, 2, 2] else cache.select(torch.tensor(rows))
        goes_on_like_one_pass(model, texts.rows(rows), cache, 9)


def goes_on_like_one_pass(model: CausalModel, texts: Texts, cache: Cache, start: int) -> None:
    found = [run(model, texts, cache, a, a + 1) for a in range(start, texts.length)]
    assert apart(torch.cat(found, dim=1), one_pass(model, texts)[:, start:], None) <= 1e-9


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_several_rows_share_one_memory(name: str, kind: str, root: Path) -> None:
    """Rows 0 and 1 go on from what the first text says, rows 2 and 3 from the second, and so on."""
    model, texts = decoder(name, root), batch(name, True)
    both = texts.rows([0, 0, 1, 1, 2, 2])
    both = both._replace(ids=text(BY_NAME[name], 6, texts.length, seed=2)["input_ids"])
    for rows, remembered in (
        ([1, 0, 2, 2, 5, 4], 3),  # each stays with its text
        ([4, 5, 1, 0], 2),  # whole texts leave and change places
        ([2, 3, 3, 2], 2),  # a text twice
        ([0, 3, 4], 3),  # one of each
        ([5, 0, 0], 3),
    ):
        cache = empty(model, texts, kind)
        run(model, both, cache, 0, 9)
        assert (cache.num_sources, cache.batch) == (3, 6)
        cache.select(torch.tensor(rows))
        assert (cache.num_sources, cache.batch) == (remembered, len(rows))
        goes_on_like_one_pass(model, both.rows(rows), cache, 9)
    cache = empty(model, texts, kind)
    run(model, both, cache, 0, 9)
    memory = [part.key for part in cache.cross_attention]
    cache.reorder(torch.tensor([1, 1, 3, 2, 4, 4]))
    assert all(part.key is key for part, key in zip(cache.cross_attention, memory, strict=True))
    goes_on_like_one_pass(model, both.rows([1, 1, 3, 2, 4, 4]), cache, 9)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_what_was_read_stays_when_all_tokens_are_cropped(name: str, root: Path) -> None:
    model, texts = decoder(name, root), batch(name, True)
    cache = empty(model, texts, "static")
    run(model, texts._replace(ids=texts.ids.flip(1)), cache, 0, 9)
    cache.crop(0)
    assert cache.num_sources == 3
    assert apart(run(model, texts, cache, 0, texts.length), one_pass(model, texts), texts.mask) <= 1e-9


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_reading_writing_and_both_in_one_call_are_the_same(name: str, root: Path) -> None:
    """To a cache the forward of both texts is `read` and `decode`; `encode` gives what may be read again."""
    _, model = pair(name, "seq2seq-lm", torch.float64, root)
    assert isinstance(model, EncoderDecoderModel)
    texts = batch(name, True)
    ids, mask, positions, source, source_mask = texts
    expected = one_pass(model, texts)
    assert source is not None
    with torch.inference_mode():
        memory = model.encode(source, source_mask)
        for read in ({"input_ids": source}, {"encoder_last_hidden_state": memory}):
            cache = model.make_cache()
            first = model(
                **read,
                attention_mask=source_mask,
                decoder_input_ids=ids[:, :9],
                decoder_attention_mask=None if mask is None else mask[:, :9],
                decoder_position_ids=None if positions is None else positions[:, :9],
                cache=cache,
            )
            assert torch.equal(first.encoder_last_hidden_state, memory)
            found = torch.cat((first.logits, run(model, texts, cache, 9, texts.length)), dim=1)
            assert apart(found, expected, mask) <= 1e-9


@pytest.mark.parametrize("name", DECODERS)
def test_only_the_last_logits(name: str, root: Path) -> None:
    model, texts = decoder(name, root), batch(name, False)
    with torch.inference_mode():
        everything, last = (
            model.decode(texts.ids, cache=empty(model, texts, "dynamic"), logits_to_keep=keep)
            for keep in (0, 1)
        )
    assert everything.logits is not None
    assert last.logits is not None
    assert last.logits.shape == (3, 1, everything.logits.shape[-1])
    assert torch.allclose(last.logits, everything.logits[:, -1:], rtol=0, atol=1e-12)
    assert torch.equal(last.last_hidden_state, everything.last_hidden_state)
