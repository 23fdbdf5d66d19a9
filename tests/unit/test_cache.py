"""Caches by themselves: whatever is appended, cropped and selected, each query finds the keys it may see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.layers.cache import Cache, DynamicCache, LayerCache, SlidingWindowCache, StaticCache

CONFIG = {
    "model_type": "mistral",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "sliding_window": 5,
}


def model(**more: Any) -> minitx.DecoderModel:
    made = minitx.from_config({**CONFIG, **more}, head="causal-lm", seed=0, dtype=torch.float64).eval()
    assert isinstance(made, minitx.DecoderModel)
    return made


def ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(60, shape, generator=torch.Generator().manual_seed(seed))


# What happens to a cache: so many tokens come, or so many go again.
ACTIONS = st.lists(st.one_of(st.integers(1, 9), st.integers(-4, -1)), min_size=1, max_size=25)


@settings(max_examples=300)
@given(window=st.integers(1, 7), spare=st.integers(0, 5), actions=ACTIONS)
def test_a_ring_gives_what_its_window_shows(window: int, spare: int, actions: list[int]) -> None:
    """Keys are the numbers of a running count, so it shows which of them a position holds."""
    part, past, seen, count = SlidingWindowCache(window, window + spare), 0, 0, 0
    truth: list[int] = []
    for action in actions:
        if action < 0:
            length = max(0, past + action)
            try:
                part.check_crop(length, seen)
            except ValueError:
                assert length < past
                assert past - length > spare or seen - past > 0  # never refuses what `spare` promised
                continue
            past, truth = length, truth[:length]
            continue
        new = list(range(count, count + action))
        count += action
        truth += new
        key = torch.tensor(new, dtype=torch.float64).view(1, 1, -1, 1)
        keys, values = part.append(key, -key, past)
        positions = part.key_positions(past, action, torch.device("cpu"))
        assert keys.shape[2] == values.shape[2] == len(positions) == part.key_length(past, action)
        assert torch.equal(keys, -values)
        held = dict(zip(positions.tolist(), keys.flatten().tolist(), strict=True))
        for query in range(past, past + action):
            for position in range(max(0, query - window + 1), query + 1):
                assert held[position] == truth[position]
        past += action
        seen = max(seen, past)


@given(actions=ACTIONS, room=st.integers(0, 30))
def test_a_static_cache_holds_what_a_dynamic_one_holds(actions: list[int], room: int) -> None:
    parts: list[LayerCache] = [DynamicCache(), StaticCache(25 * 9 + room)]
    past = 0
    for action in actions:
        if action < 0:
            past = max(0, past + action)
            continue
        key = torch.randn(2, 3, action, 4)
        (a, b), (c, d) = (part.append(key, key + 1, past) for part in parts)
        assert torch.equal(a, c)
        assert torch.equal(b, d)
        past += action
        assert a.shape[2] == past


@settings(max_examples=60)
@given(
    pieces=st.lists(st.integers(1, 8), min_size=1, max_size=8),
    window=st.integers(1, 12),
    padding=st.lists(st.integers(0, 4), min_size=2, max_size=2),
    static=st.booleans(),
)
def test_any_split_of_a_batch_equals_its_rows_in_one_pass(
    pieces: list[int], window: int, padding: list[int], static: bool
) -> None:
    decoder, length = model(sliding_window=window), sum(pieces)
    padding = [min(p, length - 1) for p in padding]
    text = ids(2, length)
    mask = torch.stack([torch.arange(length) >= p for p in padding])
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    cache, done, found = decoder.make_cache(length if static else None), 0, []
    with torch.inference_mode():
        for piece in pieces:
            part = slice(done, done + piece)
            found.append(decoder(text[:, part], mask[:, part], positions[:, part], cache=cache).logits)
            done += piece
        for row, gone in enumerate(padding):
            alone = decoder(text[row : row + 1, gone:]).logits[0]
            # the angles of rotary positions are float32's, and so is what they are apart
            assert torch.allclose(torch.cat(found, 1)[row, gone:], alone, rtol=0, atol=1e-9)


def test_what_a_model_makes() -> None:
    mixed = model(sliding_window=None)
    assert [type(x) for x in mixed.make_cache().layers] == [DynamicCache, DynamicCache]
    assert [type(x) for x in mixed.make_cache(9).layers] == [StaticCache, StaticCache]
    sliding = model()
    assert [type(x) for x in sliding.make_cache().layers] == [SlidingWindowCache, SlidingWindowCache]
    assert [type(x) for x in sliding.make_cache(4).layers] == [
        StaticCache,
        StaticCache,
    ]  # nothing would ever slide
    cache = sliding.make_cache(40, spare=3)
    with torch.inference_mode():
        out = sliding(ids(2, 11), cache=cache)
    assert out.cache is cache
    assert cache.length == 11
    assert cache.layers[0].key.shape == (2, 2, 8, 6)  # 5 of the window and 3 spare
    assert repr(cache) == "Cache(2 layers, SlidingWindowCache, length=11)"


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("max_length", [None, 9])
@pytest.mark.parametrize("trained", ["embedder", "self_attention.Q"])
def test_training_goes_through_every_cache(window: int | None, max_length: int | None, trained: str) -> None:
    """Also where queries alone are trained, and no key says that its values will be asked for again."""
    decoder, text = model(sliding_window=window).train(), ids(1, 8)
    weights = [p.requires_grad_(trained in name) for name, p in decoder.named_parameters() if trained in name]
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(trained in name)
    expected = torch.autograd.grad(decoder(text).logits.sum(), weights)
    cache = decoder.make_cache(max_length)
    pieces = [decoder(text[:, a:b], cache=cache).logits.sum() for a, b in ((0, 4), (4, 5), (5, 6), (6, 8))]
    found = torch.autograd.grad(sum(pieces), weights)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("max_length", [None, 9])
def test_a_backward_still_works_after_a_reordering(window: int | None, max_length: int | None) -> None:
    decoder, text, rows = model(sliding_window=window), ids(2, 6), torch.tensor([1, 0])
    weights = list(decoder.parameters())
    expected = torch.autograd.grad(decoder(text[:, :5]).logits.sum(), weights)
    cache = decoder.make_cache(max_length)
    total = decoder(text[:, :5], cache=cache).logits.sum()
    with torch.inference_mode():
        found = decoder(text[rows][:, 5:], cache=cache.reorder(rows)).logits
        assert torch.allclose(found, decoder(text[rows]).logits[:, 5:], atol=1e-9)
    gradients = torch.autograd.grad(total, weights)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("max_length", [None, 9])
def test_what_was_made_in_inference_mode_is_reordered_in_place(max_length: int | None) -> None:
    """No gradient can need it; other rows than before need other room, though."""
    decoder, text, rows = model(), ids(2, 5), torch.tensor([1, 0])
    cache = decoder.make_cache(max_length)
    with torch.inference_mode():
        expected = decoder(text[rows]).logits[:, 4:]
        decoder(text[:, :4], cache=cache)
        before = [part.key for part in cache.layers]
        cache.reorder(rows)
        assert all(part.key is key for part, key in zip(cache.layers, before, strict=True))
        cache.reorder(torch.tensor([0, 0, 1])).reorder(torch.tensor([1, 2]))
        assert not any(part.key is key for part, key in zip(cache.layers, before, strict=True))
        assert torch.allclose(decoder(text[rows][:, 4:], cache=cache).logits, expected, atol=1e-9)


def test_a_search_reorders_its_cache_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in inference mode, and so do the forwards that fill its caches."""
    right, seen = Cache.reorder, []

    def reorder(cache: Cache, rows: torch.Tensor) -> Cache:
        before = [part.key for part in cache.layers]
        same = len(rows) == cache.batch
        right(cache, rows)
        if same:
            seen.append(all(part.key is key for part, key in zip(cache.layers, before, strict=True)))
        return cache

    monkeypatch.setattr(Cache, "reorder", reorder)
    minitx.generate(model(), ids(2, 4), strategy=minitx.Beam(num_beams=3), max_new_tokens=6)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("max_length", [None, 9])
@pytest.mark.parametrize("after", [torch.no_grad, torch.enable_grad])
def test_a_cache_filled_in_inference_mode_serves_outside(
    window: int | None, max_length: int | None, after: Callable[[], AbstractContextManager[None]]
) -> None:
    decoder, text = model(sliding_window=window), ids(1, 8)
    cache = decoder.make_cache(max_length)
    with torch.inference_mode():
        expected = decoder(text).logits
        decoder(text[:, :5], cache=cache)
    with after():
        found = torch.cat([decoder(text[:, a:b], cache=cache).logits for a, b in ((5, 6), (6, 8))], dim=1)
    assert torch.allclose(found.detach(), expected[:, 5:], atol=1e-9)


def test_a_forward_that_fails_half_way_leaves_the_cache_as_it_was() -> None:
    decoder, text = model(), ids(1, 20)
    cache = decoder.make_cache(20)
    with torch.inference_mode():
        decoder(text[:, :9], cache=cache)
        hook = decoder.decoder.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder(ids(1, 1, seed=1), cache=cache)
        hook.remove()
        assert cache.length == 9
        found = torch.cat([decoder(text[:, i : i + 1], cache=cache).logits for i in range(9, 20)], 1)
        assert torch.allclose(found, decoder(text).logits[:, 9:], rtol=0, atol=1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("max_length", [None, 12])
def test_tokens_whose_logits_or_loss_failed_do_not_count(window: int | None, max_length: int | None) -> None:
    decoder, text = model(sliding_window=window), ids(2, 9)
    mask = torch.ones(2, 9)
    mask[0, :3] = 0
    for past in (0, 4):
        cache = decoder.make_cache(max_length)
        expected = decoder(text, mask).logits[:, past:]
        if past:
            decoder(text[:, :past], mask[:, :past], cache=cache)
        with pytest.raises(ValueError, match=r"labels=.* not \(2, 3\)"):
            decoder(text[:, past : past + 1], mask[:, past : past + 1], labels=ids(2, 3), cache=cache)
        assert (cache.length, None if cache.mask is None else cache.mask.shape[1]) == (past, past or None)
        found = decoder(text[:, past:], mask[:, past:], cache=cache).logits
        assert torch.allclose(found, expected, atol=1e-9)


def test_a_ring_that_lost_what_is_needed_says_so() -> None:
    """Six tokens go into a ring of five, and the forward fails: the fifth before them is gone."""
    decoder, text = model(), ids(1, 20)
    cache = decoder.make_cache()
    with torch.inference_mode():
        decoder(text[:, :8], cache=cache)
        hook = decoder.decoder.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            decoder(text[:, 8:14], cache=cache)
        hook.remove()
        with pytest.raises(ValueError, match="cannot go back from 14 tokens to 8"):
            decoder(text[:, 8:9], cache=cache)


def test_refused_input_leaves_a_cache_as_it_was() -> None:
    decoder, text = model(), ids(1, 9)
    cache = decoder.make_cache()
    with torch.inference_mode():
        decoder(text[:, :8], cache=cache)
        with pytest.raises(ValueError, match="input_ids=99 must be from 0 to"):
            decoder(torch.tensor([[7, 99, 7, 7, 7, 7]]), cache=cache)
        found = decoder(text[:, 8:], cache=cache).logits
        assert torch.allclose(found, decoder(text).logits[:, 8:], rtol=0, atol=1e-9)


@torch.inference_mode()
def test_a_layer_that_does_not_exist_is_refused_before_a_ring_is_written_to() -> None:
    decoder, text = model(), ids(1, 20)
    cache = decoder.make_cache()
    decoder(text[:, :8], cache=cache)
    with pytest.raises(ValueError, match="output_attentions=99 must be from -2 to 1"):
        decoder(text[:, 8:14], cache=cache, output_attentions=[99])
    found = decoder(text[:, 8:14], cache=cache).logits
    assert torch.allclose(found, decoder(text[:, :14]).logits[:, 8:], rtol=0, atol=1e-9)


def test_sizes_of_a_cache_are_checked() -> None:
    for more, message in (({"max_length": 0}, "max_length=0"), ({"spare": -1}, "spare=-1")):
        with pytest.raises(ValueError, match=message):
            model().make_cache(**more)
    with pytest.raises(ValueError, match="logits_to_keep=-1"):
        model()(ids(1, 3), logits_to_keep=-1)


@torch.inference_mode()
def test_errors_say_what_to_do() -> None:
    decoder = model()
    cache = decoder.make_cache(16)
    decoder(ids(2, 12), cache=cache)
    with pytest.raises(ValueError, match="of a batch of 3 like input_ids, not of 2"):
        decoder(ids(3, 1), cache=cache)
    for new, shape in ((ids(2, 2), (2, 2, 2)), (ids(2, 1), (2, 13))):
        with pytest.raises(ValueError, match=r"shape .*; with a cache it covers the new tokens alone"):
            decoder(new, torch.ones(shape), cache=cache)
    with pytest.raises(ValueError, match="length=13 must be at most 12"):
        cache.crop(13)
    with pytest.raises(
        ValueError, match=r"from 12 tokens to 7: layers with a window of 5 .* spare=4 or more"
    ):
        cache.crop(7)
    assert cache.length == 12
    whole = model(sliding_window=None)
    cache = whole.make_cache(4)
    with pytest.raises(ValueError, match="room for 4 tokens, but this is token 5"):
        whole(ids(1, 5), cache=cache)


def test_crop_of_as_much_as_was_spared() -> None:
    """What the error advises is enough, and one less is not."""
    for spare, enough in ((4, True), (3, False)):
        decoder = model()
        cache = decoder.make_cache(spare=spare)
        with torch.inference_mode():
            decoder(ids(1, 12), cache=cache)
        if enough:
            assert cache.crop(7).length == 7
        else:
            with pytest.raises(ValueError, match="spare=4"):
                cache.crop(7)


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("max_length", [None, 16])
def test_a_step_is_one_graph(window: int | None, max_length: int | None) -> None:
    decoder, text = model(sliding_window=window), ids(1, 8)
    torch._dynamo.reset()
    compiled, cache = torch.compile(decoder, backend="eager", fullgraph=True), decoder.make_cache(max_length)
    found = [compiled(text[:, a:b], cache=cache).logits for a, b in ((0, 6), (6, 7), (7, 8))]
    assert torch.allclose(torch.cat(found, 1), decoder(text).logits, atol=1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("max_length", [None, 16])
def test_an_empty_cache_serves_another_batch(window: int | None, max_length: int | None) -> None:
    decoder = model(sliding_window=window)
    cache = decoder.make_cache(max_length)
    mask = torch.ones(2, 12)
    mask[0, :3] = 0
    decoder(ids(2, 12), mask, cache=cache)
    assert cache.crop(0).batch is None
    text = ids(3, 9, seed=1)
    found = torch.cat([decoder(text[:, a:b], cache=cache).logits for a, b in ((0, 7), (7, 9))], dim=1)
    assert torch.allclose(found, decoder(text).logits, atol=1e-9)
    cache.repeat(2)
    cache.crop(0).select(torch.tensor([4]))
    decoder.float()  # and other numbers
    assert decoder(text, cache=cache).logits.dtype == torch.float32


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("max_length", [None, 16])
def test_a_cache_of_another_model_is_refused(window: int | None, max_length: int | None) -> None:
    decoder = model(sliding_window=window)
    cache = decoder.make_cache(max_length)
    decoder(ids(1, 8), cache=cache)
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({"num_key_value_heads": 4}, "2 heads of 6 features .* this model has 4 heads of 6"),
        ({"head_dim": 8}, "2 heads of 6 features .* this model has 2 heads of 8"),
        ({"num_hidden_layers": 3}, "for the 3 layers that the model runs, not for 2"),
    )
    for more, message in others:
        with pytest.raises(ValueError, match=message):
            model(sliding_window=window, **more)(ids(1, 1), cache=cache)
    with pytest.raises(ValueError, match=r"torch.float64 on cpu, this model has .* torch.float32 on cpu"):
        model(sliding_window=window).float()(ids(1, 1), cache=cache)
    assert cache.length == 8
    assert torch.allclose(
        decoder(ids(1, 9)[:, 8:], cache=cache).logits, decoder(ids(1, 9)).logits[:, 8:], atol=1e-9
    )


@torch.inference_mode()
@pytest.mark.parametrize("wrong", [2.0, "2", True, None, torch.tensor(2)])
def test_numbers_that_are_none(wrong: Any) -> None:
    decoder = model()
    cache = decoder.make_cache()
    decoder(ids(1, 3), cache=cache)
    calls: list[Callable[[], Any]] = [
        lambda: cache.crop(wrong),
        lambda: cache.repeat(wrong),
        lambda: decoder.make_cache(spare=wrong),
        lambda: decoder(ids(1, 3), logits_to_keep=wrong),
    ]
    calls += [] if wrong is None else [lambda: decoder.make_cache(wrong)]
    for call in calls:
        with pytest.raises(TypeError, match="must be an integer of at least"):
            call()
    assert cache.length == 3
    assert cache.batch == 1


@torch.inference_mode()
def test_rows_that_are_none() -> None:
    decoder = model()
    cache = decoder.make_cache()
    decoder(ids(2, 3), cache=cache)
    for rows, message in (
        (torch.tensor([True, False]), "must be of dtype torch.long"),
        (torch.tensor([0.0]), "must be of dtype torch.long"),
        (torch.tensor([], dtype=torch.long), r"shape \(0,\)"),
        (torch.tensor(1), r"shape \(\)"),
        (torch.tensor([0, 2]), "rows=2 must be from 0 to 1"),
        (torch.tensor([-1]), "rows=-1 must be from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            cache.select(rows)
    with pytest.raises(TypeError, match=r"rows=\[0, 1\] must be a tensor"):
        cache.select([0, 1])
    with pytest.raises(ValueError, match="times=0 must be at least 1"):
        cache.repeat(0)
    assert cache.batch == 2


def test_something_else_for_a_cache() -> None:
    with pytest.raises(TypeError, match=r"cache=\{\} must be a Cache; make one"):
        model()(ids(1, 3), cache={})


def test_an_empty_cache_can_be_reordered() -> None:
    cache = Cache([DynamicCache()])
    assert cache.batch is None
    assert cache.repeat(3) is cache
    assert cache.select(torch.tensor([0])).length == 0
