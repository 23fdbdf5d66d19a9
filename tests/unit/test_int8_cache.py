"""Keys and values in 8 bits: their distance, their memory, and everything that a cache does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx import Beam, Greedy, PrefixCache, Sample, Stop
from minitx.decoding import Jacobi, PromptLookup, Speculative
from minitx.layers.cache import Cache, Int8Cache
from minitx.layers.cache.int8 import quantize
from minitx.validation import ArgumentValueError
from tests.unit.test_cache import ids, model

NO_END = Stop(eos=())


def tokens(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw), 3 * torch.randn(*shape, generator=draw)


def test_a_number_is_off_by_half_a_scale_at_most() -> None:
    x, _ = tokens(2, 3, 4, 5)
    x[0, 1, 2] = 0
    numbers, scale = quantize(x)
    assert numbers.dtype == torch.int8
    assert scale.shape == (2, 3, 4, 1)
    assert bool(((numbers * scale - x).abs() <= scale / 2 + 1e-7).all())
    assert bool((numbers.abs().amax(dim=-1)[scale[..., 0] > 0] == 127).all())
    assert bool((numbers[0, 1, 2] == 0).all())
    again, same = quantize(numbers * scale)
    assert torch.equal(again, numbers)
    torch.testing.assert_close(same, scale)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 4), st.integers(-3, -1)), min_size=1, max_size=12),
    st.sampled_from([None, 60]),
)
def test_any_split_stores_the_same(actions: list[int], room: int | None) -> None:
    """Appends and crops, against the numbers of the whole sequence at once."""
    part, past = Int8Cache(room), 0
    key, value = tokens(2, 3, 60, 4)
    for action in actions:
        if action < 0:
            past = max(0, past + action)
            continue
        if past + action > 60:
            break
        new = slice(past, past + action)
        keys, values = part.append(key[:, :, new], value[:, :, new], past)
        past += action
        for got, whole in ((keys, key), (values, value)):
            numbers, scale = quantize(whole[:, :, :past])
            assert torch.equal(got, numbers * scale)
        assert part.key_length(past - action, action) == past


def test_memory_is_a_quarter_of_float32_and_the_scales() -> None:
    exact, small = model().float(), model(sliding_window=None).float()
    with torch.inference_mode():
        caches = []
        for kind in (None, torch.int8):
            cache = small.make_cache(32, dtype=kind)
            small(ids(2, 9), cache=cache)
            caches.append(cache)
    sizes = [
        sum(getattr(part, name).nbytes for part in cache.layers for name in part.tensors) for cache in caches
    ]
    heads = 2 * 2 * 2 * 2 * 32  # layers, keys and values, rows, heads, tokens
    assert sizes[1] == sizes[0] / 4 + 4 * heads
    assert repr(caches[1]) == "Cache(2 layers, Int8Cache, length=9)"
    assert all(isinstance(part, Int8Cache) for part in exact.make_cache(9, dtype=torch.int8).layers)


def test_the_logits_are_near() -> None:
    """Relative distance and order of the logits of the shipped decoder, over a text."""
    decoder = minitx.load("minitx/tiny-decoder", dtype="float32").eval()
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    text = torch.tensor(
        [tokenizer.encode("The old man looked out of the window, and saw the king of the land.")]
    )
    with torch.inference_mode():
        exact = decoder(text).logits.log_softmax(-1)
        cached = decoder(text, cache=decoder.make_cache(64, dtype=torch.int8)).logits.log_softmax(-1)
    divergence = (exact.exp() * (exact - cached)).sum(-1)
    assert 0 < float(divergence.mean()) < 1e-3
    assert float((exact.argmax(-1) == cached.argmax(-1)).float().mean()) > 0.9


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("room", [None, 40])
def test_crop_select_shift_and_keep(window: int | None, room: int | None) -> None:
    """Each gives the logits of the same tokens in a new cache."""
    decoder = model(sliding_window=window)
    sequence = ids(3, 9, seed=1)
    rows = torch.tensor([2, 0])
    removed = [2, 0, 1]
    kept = torch.ones(3, 9, dtype=torch.bool)
    kept[:, 5] = kept[1, 3] = False

    def _filled() -> Cache:
        cache = decoder.make_cache(room, dtype=torch.int8)
        decoder(sequence, cache=cache)
        return cache

    with torch.inference_mode():
        fresh = decoder.make_cache(room, dtype=torch.int8)
        decoder(sequence[:, :6], cache=fresh)
        step, expected = (decoder(ids(3, 1), cache=c).logits for c in (_filled().crop(6), fresh))
        torch.testing.assert_close(step, expected)
        chosen = decoder.make_cache(room, dtype=torch.int8)
        decoder(sequence[rows], cache=chosen)
        step, expected = (decoder(ids(2, 1), cache=c).logits for c in (_filled().select(rows), chosen))
        torch.testing.assert_close(step, expected)
        cache = _filled().crop_rows(removed)
        ends = 9 - torch.tensor(removed)
        step = decoder(ids(3, 1), position_ids=ends[:, None], cache=cache).logits
        for row, end in enumerate(ends.tolist()):
            alone = decoder.make_cache(room, dtype=torch.int8)
            decoder(sequence[row : row + 1, :end], cache=alone)
            torch.testing.assert_close(step[row], decoder(ids(3, 1)[row : row + 1], cache=alone).logits[0])
        repeated = _filled().repeat(2)
        assert [tuple(getattr(repeated.layers[0], n).shape[:2]) for n in repeated.layers[0].tensors] == [
            (6, 2)
        ] * 4
        if window is None:
            whole, part = _filled(), _filled().keep(kept).layers[0]
            for row in range(3):
                slots = kept[row].nonzero().flatten()
                for name in part.tensors:
                    before, after = getattr(whole.layers[0], name)[row], getattr(part, name)[row]
                    assert torch.equal(before[:, slots], after[:, 8 - len(slots) : 8])


@pytest.mark.parametrize(
    "strategy",
    [Greedy(), Sample(top_p=0.9), Beam(num_beams=3), Speculative(draft=PromptLookup()), Jacobi()],
    ids=lambda strategy: type(strategy).__name__,
)
def test_every_strategy_and_many_prompts(strategy: Any) -> None:
    """The rows of a batch are those of each prompt alone; drafts change nothing."""
    decoder, prompts = model(sliding_window=None), [[5, 6, 7, 8], [9], [10, 11, 12]]
    options: dict[str, Any] = {"max_new_tokens": 8, "stop": NO_END, "cache": "int8"}
    options |= {"seed": 3} if isinstance(strategy, Sample) else {}
    batch = minitx.generate(decoder, prompts, strategy, **options)
    for number, prompt in enumerate(prompts):
        alone = minitx.generate(decoder, [prompt], strategy, **options)
        assert alone.sequences[0].tolist() == batch.sequences[number].tolist()
    if isinstance(strategy, Speculative | Jacobi):
        plain = minitx.generate(decoder, prompts, Greedy(), **options)
        assert [x.tolist() for x in plain.sequences] == [x.tolist() for x in batch.sequences]
    if isinstance(strategy, Greedy | Sample):
        many = minitx.generate_many(decoder, prompts, strategy, rows=2, **options)
        assert [x.tolist() for x in many.sequences] == [x.tolist() for x in batch.sequences]


def test_an_encoder_decoder_and_a_cache_that_is_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "vocab_size": 60,
        "model_type": "t5",
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    translator = minitx.from_config(config, head="seq2seq-lm", seed=0).eval().double()
    appended: list[torch.dtype] = []
    append = Int8Cache.append

    def _append(self: Int8Cache, key: Tensor, value: Tensor, past: int) -> tuple[Tensor, Tensor]:
        found = append(self, key, value, past)
        assert self.key is not None
        appended.append(self.key.dtype)
        return found

    monkeypatch.setattr(Int8Cache, "append", _append)
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END}
    minitx.generate(translator, [[5, 6]], Greedy(), **options)
    assert not appended
    minitx.generate(translator, [[5, 6]], Beam(num_beams=2), cache="int8", **options)
    minitx.generate_many(translator, [[5, 6], [7]], Greedy(), cache="int8", **options)
    assert {*appended} == {torch.int8}


def test_what_it_refuses() -> None:
    decoder = model()
    with pytest.raises(ArgumentValueError, match="dtype"):
        decoder.make_cache(dtype=torch.float16)
    with pytest.raises(ArgumentValueError, match="cache"):
        minitx.generate(decoder, [[5]], Greedy(), max_new_tokens=2, cache="int4")
    with pytest.raises(ArgumentValueError, match="prefix"):
        minitx.generate(decoder, [[5]], Greedy(), max_new_tokens=2, cache="int8", prefix=PrefixCache(decoder))
    with pytest.raises(ValueError, match="no gradients"):
        decoder(ids(1, 4), cache=decoder.make_cache(dtype=torch.int8))
    part, (key, value) = Int8Cache(4), tokens(1, 2, 3, 4)
    part.append(key, value, 0)
    with pytest.raises(ValueError, match="room for 4 tokens"):
        part.append(key, value, 3)
    with pytest.raises(ValueError, match="a cache serves the model"):
        part.append(key[..., :2][:, :, :1], value[..., :2][:, :, :1], 3)
    more, _ = tokens(2, 2, 3, 4)
    assert part.append(more, more, 0)[0].shape == more.shape
