"""Every kind of picture: drawn, not empty, and no text covers another one or leaves the picture."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import minitx
from minitx.extras import missing_extra
from minitx.inspect import (
    Picture,
    Subject,
    attention_picture,
    chain_picture,
    grid_picture,
    picture,
    picture_kind,
    record,
    tree_picture,
)
from minitx.inspect.pictures import KINDS
from minitx.inspect.pictures.attention import mask_of
from minitx.inspect.pictures.lens import lens_probabilities
from minitx.inspect.pictures.vectors import nearest_tokens, principal_plane
from minitx.inspect.tokens import token_names
from minitx.pictures import figure
from minitx.pictures.picture import PALETTE, Sheet, label, printable
from minitx.pictures.scatter import darker
from tests.unit.inspect.test_taps import BART, CONFIGS, SEQ2SEQ

WORDS = ["<pad>", "</s>", "the", "king", "of", "日本語の長い言葉", "שלום", "مرحبا", "ไทย", "🤖", "a\tb"]
WORDS += ["Donaudampfschifffahrtsgesellschaftskapitän", "$x_1$", "%s", "\u0301", "–", "&<b>"]
WORDS += [f"w{i}" for i in range(60 - len(WORDS))]
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 80, "vocab_size": 60}
MODELS = CONFIGS | {
    "gpt2": {"model_type": "gpt2", **GPT2},
    "marian": {"model_type": "marian", **SEQ2SEQ, **BART, "pad_token_id": 0},
}
LONGEST = "max_position_embeddings"
MODELS = {name: config | {LONGEST: 80} if LONGEST in config else config for name, config in MODELS.items()}
ENCODERS, SEQ2SEQS = ("bert", "albert", "deberta"), ("t5", "bart", "marian")
SHORT, LONG = [3], [5 + i % 55 for i in range(64)]
TEXT = [2, 3, 4, 5, 6, 11, 12, 16, 10]


@cache
def model_of(name: str) -> Any:
    head = "masked-lm" if name in ENCODERS else "seq2seq-lm" if name in SEQ2SEQS else "causal-lm"
    return minitx.from_config(MODELS[name], head=head, seed=0).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> minitx.Tokenizer:
    """Words of many scripts, a long one, and ones with signs that matplotlib or HTML interpret."""
    folder = tmp_path_factory.mktemp("tokenizer")
    backend = Backend(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="the"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "mask_token": "of"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return minitx.load_tokenizer(folder)


@contextmanager
def drawn_texts() -> Iterator[list[Text]]:
    """The texts that a renderer draws, tick labels outside of the axes not included."""
    texts: list[Text] = []
    draw = Text.draw

    def note(self: Text, renderer: Any, *more: Any, **options: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        draw(self, renderer, *more, **options)

    Text.draw = note
    try:
        yield texts
    finally:
        Text.draw = draw


def check(drawn: Picture, *, least: int = 1) -> list[str]:
    """Draws a picture at 800 pixels without a warning; returns its texts."""
    figure = drawn.figure()
    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    with drawn_texts() as texts, warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    width, height = canvas.get_width_height()
    assert width == 800
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8).view(height, width, 4)
    some = pixels[::2, ::2, :3]
    colored = (some.amax(dim=-1) - some.amin(dim=-1) > 20).float().mean()
    assert colored > 0.001, "the picture is empty"
    renderer = canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    assert len(boxes) >= least
    for name, box in boxes:
        inside = (box.x0 >= 0, box.y0 >= 0, box.x1 <= width, box.y1 <= height)
        assert all(inside), f"{name!r} leaves the picture"
    for i, (name, box) in enumerate(boxes):
        for other, second in boxes[:i]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            down = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across <= 1 or down <= 1, f"{name!r} covers {other!r}"
    assert min(text.get_size() for text in texts) >= 6
    return [name for name, _ in boxes]


def kinds_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The kinds that fit a model, with options."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("attention", {}),
        ("attention", {"layer": 1}),
        ("attention", {"head": 2}),
        ("attention", {"layer": -1, "head": 3}),
        ("mask", {}),
        ("neighbors", {}),
        ("path", {}),
        ("lens", {}),
        ("spectra", {}),
        ("positions", {}),
        ("entropy", {}),
    ]
    if name in SEQ2SEQS:
        kinds += [(kind, {"side": "decoder"}) for kind in ("attention", "path", "positions", "spectra")]
        kinds += [("cross-attention", {}), ("cross-attention", {"layer": 0, "head": 1})]
    if name not in ENCODERS:
        kinds += [("chain", {"strategy": minitx.Sample(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01)})]
        kinds += [("beams", {"max_new_tokens": 5})]
    if name in ("mixtral", "gpt_oss"):
        kinds += [("experts", {}), ("experts", {"layer": 1})]
    return kinds


def draw_all(name: str, text: list[int], tokenizer: minitx.Tokenizer, kinds: list[Any]) -> None:
    for kind, options in kinds:
        if name in SEQ2SEQS and kind not in ("chain", "beams"):
            options = options | {"target": text[::-1]}
        check(picture(kind, model_of(name), text, tokenizer=tokenizer, **options))


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_every_family(name: str, tokenizer: minitx.Tokenizer) -> None:
    kinds = kinds_of(name)
    if name not in ("bert", "mixtral", "t5"):  # of other architectures, those that they may change
        kinds = [kind for kind in kinds if kind[0] in ("mask", "positions", "lens")]
    draw_all(name, TEXT, tokenizer, kinds)


@pytest.mark.parametrize("text", [SHORT, LONG], ids=["one token", "64 tokens"])
def test_one_token_and_64(text: list[int], tokenizer: minitx.Tokenizer) -> None:
    draw_all("mixtral", text, tokenizer, kinds_of("mixtral"))
    kinds = [kind for kind in kinds_of("t5") if kind[0] in ("cross-attention", "mask")]
    draw_all("t5", text, tokenizer, kinds)


def test_without_a_tokenizer() -> None:
    assert "#5" in check(picture("attention", model_of("llama"), torch.tensor([5, 6, 7]), layer=0))


def test_all_kinds_are_tested() -> None:
    tested = {kind for name in MODELS for kind, _ in kinds_of(name)}
    own = {name for name, kind in KINDS.items() if kind.draw.__module__.startswith("minitx.")}
    assert tested | {"patching"} == own


def test_the_check_finds_mistakes() -> None:
    def drawn(x: float, y: float) -> Picture:
        sheet = Sheet("A title", 1.0)
        sheet.axes(1.0, 0.5, 1.0, 0.4).set(facecolor="blue", xticks=[], yticks=[])
        sheet.note(x, y, "some text")
        return Picture(sheet.figure, "A title")

    check(drawn(3.0, 0.5))
    with pytest.raises(AssertionError, match="'some text' covers 'A title'"):
        check(drawn(0.5, -0.3))
    with pytest.raises(AssertionError, match="'some text' leaves the picture"):
        check(drawn(7.8, 0.5))
    with pytest.raises(AssertionError, match="the picture is empty"):
        check(Picture(Sheet("A title", 1.0).figure, "A title"))


# --- the numbers -----------------------------------------------------------------------------------


def values_of(drawn: Picture, place: int = 0) -> torch.Tensor:
    """The matrix in one of the axes."""
    return torch.tensor(drawn.figure().axes[place].images[0].get_array().filled(math.nan).tolist())


def test_attention_is_that_of_the_forward() -> None:
    model = model_of("llama")
    with torch.inference_mode():
        weights = model(torch.tensor([TEXT]), output_attentions=True).attentions
    head = picture("attention", model, TEXT, layer=1, head=2)
    torch.testing.assert_close(values_of(head), weights[1][0, 2])
    layer = picture("attention", model, TEXT, layer=1)
    for number in range(4):
        torch.testing.assert_close(values_of(layer, number), weights[1][0, number])
    every = values_of(picture("attention", model, TEXT))
    side = len(every) // 2  # a tile with its gap; a cell is two pixels of the image
    tile = every[side : side + 18, every.shape[1] // 4 : every.shape[1] // 4 + 18][::2, ::2]
    torch.testing.assert_close(tile, weights[1][0, 1])


def test_cross_attention_of_an_answer() -> None:
    model = model_of("bart")
    answer = minitx.generate(model, [TEXT], minitx.Greedy(), max_new_tokens=24).sequences[0].tolist()
    answer = answer[:-1] if answer[-1] == model.config.eos_token_id else answer
    ids = torch.tensor([[2, *answer]])
    with torch.inference_mode():
        out = model(torch.tensor([TEXT]), decoder_input_ids=ids, output_cross_attentions=True)
    drawn = picture("cross-attention", model, TEXT, layer=1, head=0)
    torch.testing.assert_close(values_of(drawn), out.cross_attentions[1][0, 0])


def test_masks() -> None:
    """Causal, with a window, of padding, and of a prefix."""
    ids = [*range(3, 12)]
    time = torch.arange(9)
    causal = time[None, :] <= time[:, None]
    assert torch.equal(values_of(picture("mask", model_of("llama"), ids)), causal.float())
    window = causal & (time[:, None] - time[None, :] < 6)
    assert torch.equal(values_of(picture("mask", model_of("mistral"), ids)), window.float())
    both = picture("mask", model_of("bert"), [ids, ids[:5]])
    assert torch.equal(values_of(both), torch.ones(9, 9))
    assert torch.equal(values_of(both, 1), (time < 5).float().expand(9, 9))
    prefix = (time[None, :] < 4) | causal
    assert torch.equal(values_of(picture("mask", model_of("bert"), ids, prefix=4)), prefix.float())
    with pytest.raises(ValueError, match="prefix=2 must be None for a model with a causal stack"):
        picture("mask", model_of("llama"), ids, prefix=2)


@pytest.mark.parametrize("name", ["bert", "deberta", "bloom", "t5", "gpt_oss"])
def test_masks_are_found_beside_position_biases(name: str) -> None:
    model, ids = model_of(name), torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    options = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if name == "t5" else {}
    with torch.inference_mode(), record(model, "**.self_attention.scores") as seen:
        model(ids, attention_mask=mask, **options)
    for place, scores in seen.items():
        causal = torch.ones(4, 4).tril().bool() if place.startswith("decoder") else torch.ones(4, 4).bool()
        assert torch.equal(mask_of(scores)[0], causal)
        assert torch.equal(mask_of(scores)[1, :2], causal[:2] & mask[1].bool())


def test_lens_ends_in_the_prediction() -> None:
    for name in ("bert", "deberta", "gpt2", "llama", "bart", "t5"):
        subject = Subject(model_of(name), None, (TEXT,), [5, 6] if name in SEQ2SEQS else None)
        lens = [*lens_probabilities(subject)]
        torch.testing.assert_close(lens[-1], subject.logits().softmax(dim=-1))
        assert len(lens) == 3


def test_patching_by_hand() -> None:
    """Against hooks that put the states of one run into the other one."""
    model, ids, other = model_of("llama"), [2, 3, 4, 5, 6], [2, 3, 9, 5, 6]
    drawn = picture("patching", model, ids, other=other)
    check(drawn)
    states: list[torch.Tensor] = []

    def logprobs(tokens: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)

    hooks = [layer.register_forward_hook(lambda *a: states.append(a[2])) for layer in model.decoder.layers]
    clean = logprobs(ids)
    for hook in hooks:
        hook.remove()
    best, base = clean.argmax(), logprobs(other)
    expected = torch.zeros(2, 5, dtype=torch.double)
    for layer, place in itertools.product(range(2), range(5)):

        def put(module: Any, inputs: Any, output: Any, layer: int = layer, place: int = place) -> Any:
            mixed = output.clone()
            mixed[:, place] = states[layer][:, place]
            return mixed

        hook = model.decoder.layers[layer].register_forward_hook(put)
        expected[layer, place] = (logprobs(other)[best] - base[best]) / (clean[best] - base[best])
        hook.remove()
    torch.testing.assert_close(values_of(drawn), expected, check_dtype=False, atol=1e-4, rtol=1e-4)
    assert expected[1, 4] == pytest.approx(1.0)
    check(picture("patching", model_of("bert"), LONG, other=[*LONG[:-2], 2, 3], position=3))
    with pytest.raises(ValueError, match="a text of 5 tokens, as many as text has, not 2"):
        picture("patching", model, [2, 3, 4, 5, 6], other=[2, 3])
    with pytest.raises(ValueError, match="other=None must be passed for kind='patching'"):
        picture("patching", model, [2, 3])


def test_entropy_is_that_of_the_logits() -> None:
    model = model_of("gpt2")
    logprobs = model(torch.tensor([TEXT])).logits[0].detach().double().log_softmax(-1)
    axes = picture("entropy", model, TEXT).figure().axes[0]
    heights = [patch.get_height() for patch in axes.patches]
    expected = -(logprobs.exp() * logprobs).sum(-1)
    torch.testing.assert_close(torch.tensor(heights[1:]), expected.detach(), check_dtype=False)
    dots = torch.tensor(axes.lines[0].get_ydata().tolist())
    expected = -logprobs[torch.arange(len(TEXT) - 1), torch.tensor(TEXT[1:])]
    torch.testing.assert_close(dots, expected.detach(), check_dtype=False)


def test_entropy_of_an_encoder_masks_each_token(tokenizer: minitx.Tokenizer) -> None:
    model, ids = model_of("bert"), [2, 3, 7]
    heights = picture("entropy", model, ids, tokenizer=tokenizer).figure().axes[0].patches
    for place in range(3):
        masked = torch.tensor([[*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]])
        logprobs = model(masked).logits[0, place].detach().double().log_softmax(-1)
        assert heights[place].get_height() == pytest.approx(
            float(-(logprobs.exp() * logprobs).sum()), abs=1e-5
        )
    with pytest.raises(ValueError, match="tokenizer=None must be one with a mask token"):
        picture("entropy", model, ids)


def test_nearest_tokens_by_hand() -> None:
    table = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert nearest_tokens(table, [0], 2)[0] == [[1, 2]]
    plane, share = principal_plane(torch.tensor([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]))
    torch.testing.assert_close(plane.abs(), torch.tensor([[3.0, 0], [3, 0], [0, 1], [0, 1]]))
    assert share == pytest.approx([0.9, 0.1])


def test_experts_of_a_router() -> None:
    model = model_of("mixtral")
    with torch.inference_mode(), record(model, "**.expert_weights", "**.expert_indices") as seen:
        model(torch.tensor([TEXT]))
    weights, indices = (seen[f"decoder.layers.1.intermediate.expert_{n}"][0] for n in ("weights", "indices"))
    drawn = values_of(picture("experts", model, TEXT, layer=1))  # (experts, T)
    torch.testing.assert_close(drawn.T.gather(1, indices), weights)
    assert torch.allclose(drawn.nansum(dim=0), torch.ones(len(TEXT)))


def test_chain_and_tree_are_those_of_the_results() -> None:
    model = model_of("gpt2")
    strategy = minitx.Sample(temperature=0.5, top_k=3)
    explained = minitx.explain(model, TEXT, strategy, top=60, seed=0)
    texts = check(chain_picture(explained))
    names = ["model", "Temperature 0.5", "TopK 3"]
    assert [text for text in texts if text in names] == names
    assert f"{explained.positions[0].drawn.probability:.3f}" in texts
    assert "removed" in texts
    result = minitx.generate(model, [TEXT], minitx.Beam(num_beams=3), max_new_tokens=4, num_samples=3)
    assert result.beams is not None
    texts = check(tree_picture(result.beams[0]))
    assert [f"#{i + 1}: {score:.2f}" in texts for i, score in enumerate(result.scores or ())] == [True] * 3
    assert sum(text.startswith("#") and ":" not in text for text in texts) == len(result.beams[0])
    with pytest.raises(ValueError, match="must be a search"):
        picture("beams", model, TEXT, strategy=minitx.Greedy())


# --- texts -----------------------------------------------------------------------------------------


def test_missing_glyphs_are_escapes() -> None:
    assert printable("日") == r"\u65e5"
    assert printable("a\tb\n\xa0") == r"a\tb\n "
    assert printable("é θ ж ␣") == "é θ ж ␣"
    assert label("", 1.0) == "·"


def test_names_of_tokens() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    ids = tokenizer.encode("It was dark, é 日")
    names = token_names(ids, tokenizer)
    assert names[:5] == ["<s>", "·It", "·was", "·dark", ","]
    assert names[5:8] == ["·", "<0xC3>", "<0xA9>"]
    assert token_names([5], None) == ["#5"]


def test_names_of_bytes(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = minitx.load_tokenizer(tmp_path)
    first, second, *rest = token_names(tokenizer.encode("é a"), tokenizer)
    assert (first[0], second[0]) == ("#", "#")  # halves of a letter
    assert rest == ["·", "a"]


# --- the object ------------------------------------------------------------------------------------


def test_a_picture_is_shown_and_saved(tmp_path: Path) -> None:
    drawn = grid_picture(torch.eye(2), ["a", "b"], ["c", "d"], title="A & B", quantity="share")
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert 'alt="A &amp; B" width="800"' in drawn._repr_html_()
    assert str(drawn).startswith("A & B (800 x ")
    for name in ("a.png", "b.svg", "c.html"):
        assert drawn.save(tmp_path / "new" / name).stat().st_size > 1000
    drawn.save(tmp_path / "small.png", width=800)
    size = (tmp_path / "small.png").read_bytes()[16:20]
    assert int.from_bytes(size, "big") == 800
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        drawn.save(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="width=1 must be at least 100"):
        drawn.save(tmp_path / "a.png", width=1)


def test_heads_of_a_layer_and_of_all() -> None:
    weights = torch.softmax(torch.randn(12, 12, 5, 7), dim=-1)
    queries, keys = [f"query {i}" for i in range(5)], [f"a long key {i}" for i in range(7)]
    assert "head 11" in check(attention_picture(weights, queries, keys, title="all"))
    assert "head 11" in check(attention_picture(weights[0], queries, keys, title="layer"))
    check(attention_picture(torch.softmax(torch.randn(40, 32, 64, 64), dim=-1), ["q"] * 64, ["k"] * 64))
    with pytest.raises(ValueError, match="must be a tensor of shape"):
        grid_picture(torch.eye(2), ["a"], ["b", "c"])


def test_a_new_kind_is_one_function() -> None:
    @picture_kind("norms", "norms of the hidden states")
    def norms(subject: Subject, *, side: str | None = None) -> Picture:
        _, seen = subject.run("**.residual.after")
        values = torch.cat([value.norm(dim=-1) for value in seen.values()])
        return grid_picture(values, [*seen], subject.names(subject.side(side)))

    try:
        check(picture("norms", model_of("llama"), TEXT))
    finally:
        del KINDS["norms"]


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("atention", "bert", {}, "kind='atention' must be one of 'attention'"),
        ("cross-attention", "bert", {}, "needs an encoder-decoder"),
        ("experts", "bert", {}, "needs layers with a mixture of experts"),
        ("chain", "bert", {}, "must be one with a head for causal-lm or seq2seq-lm, not masked-lm"),
        ("attention", "bert", {"layer": 2}, "layer=2 must be from -2 to 1"),
        ("attention", "bert", {"head": 4}, "head=4 must be from -4 to 3"),
        ("attention", "bert", {"side": "decoder"}, "side='decoder' must be encoder"),
        ("mask", "bert", {"layer": 1}, "layer=1 must be left out for kind='mask'; its options are prefix"),
        ("lens", "bert", {"text": [5] * 300}, "must be of 1 to 256 tokens for a picture, not 300"),
        ("lens", "bert", {"text": [[5], [6]]}, "must be one text for kind='lens', not 2"),
        ("lens", "bert", {"text": "a"}, "tokenizer=None must be the tokenizer"),
        ("lens", "bert", {"text": None}, "text=None must be a text for kind='lens'"),
        ("lens", "bert", {"text": 5}, "text=5 must be a text, several texts, or token ids"),
    ],
)
def test_mistakes_are_named(kind: str, name: str, options: dict[str, Any], message: str) -> None:
    options = {"text": TEXT} | options
    with pytest.raises((TypeError, ValueError), match=message.replace("(", r"\(")):
        picture(kind, model_of(name), **options)


def test_matplotlib_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    figure.families.cache_clear()
    figure.characters.cache_clear()
    for call in (
        lambda: picture("lens", model_of("bert"), TEXT),
        lambda: grid_picture(torch.eye(1), ["a"], ["b"]),
    ):
        with pytest.raises(ImportError, match=re.escape(missing_extra("pictures"))):
            call()


def test_an_encoder_decoder_with_another_head() -> None:
    config = MODELS["bart"] | {"num_labels": 3, "eos_token_id": 1}
    model: Any = minitx.from_config(config, head="sequence-classification", seed=0).eval()
    assert "#7" in check(picture("cross-attention", model, [5, 6, 7, 1], layer=0))
    assert "#7" in check(picture("attention", model, [5, 6, 7, 1], layer=0))


def test_no_head_and_training_mode() -> None:
    bare: Any = minitx.from_config(MODELS["bert"], head=None, seed=0)
    with pytest.raises(ValueError, match="model='EncoderModel' must be in eval mode"):
        picture("attention", bare.train(), TEXT)
    with pytest.raises(ValueError, match="not without a head; load it with head="):
        picture("lens", bare.eval(), TEXT)


def test_names_are_dark_enough() -> None:
    """WCAG 2's contrast with white."""
    for color in PALETTE:
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in darker(color)]
        light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (light + 0.05) >= 4.5, color
