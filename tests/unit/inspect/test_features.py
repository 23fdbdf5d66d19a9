"""Probes, sparse autoencoders and the search for activating texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import minitx
from minitx import Greedy, Stop
from minitx.inspect import (
    SparseAutoencoder,
    collect_activations,
    neuron_search,
    patch,
    record,
    splice,
    train_probe,
)
from minitx.inspect.analysis.features.probe import fit_logistic
from tests.unit.inspect.small_models import IDS, arguments, model_of

PLACE = "decoder.layers.0.residual.after"
TEXTS = ["The king was dead.", "A ship at sea.", "It was a dark night, and Mary went to the house.", "He"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- probes ------------------------------------------------------------------------------------------------


def test_a_probe_finds_a_linear_property() -> None:
    x = random(200, 8)
    labels = ["up" if value > 0 else "down" for value in (x[:, 2] - x[:, 5]).tolist()]
    probe = train_probe(x, labels, l2=1e-3, control=list(range(200)))
    assert probe.classes == ("down", "up")
    assert probe.accuracy > 0.9
    assert probe.train_accuracy > 0.95
    assert 0.3 < probe.majority < 0.7
    assert probe.control_accuracy is not None
    assert probe.control_accuracy < 0.75
    assert probe.selectivity == pytest.approx(probe.accuracy - probe.control_accuracy)
    truth = torch.zeros(8, dtype=torch.float64)
    truth[2], truth[5] = 0.5**0.5, -(0.5**0.5)
    assert float(probe.direction("up", "down") @ truth) > 0.97
    assert probe.predict(x[:3]) == [probe.classes[i] for i in probe.logits(x[:3]).argmax(-1).tolist()]
    assert "accuracy" in str(probe)
    assert "control task" in str(probe)


def test_the_weights_are_a_minimum_of_the_penalised_loss() -> None:
    """The gradient of the loss with respect to the weights of standardised inputs vanishes."""
    x = random(60, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + 4
    y = torch.arange(60) % 3
    weight, bias = fit_logistic(x, y, 3, 0.05)
    mean, spread = x.mean(0), x.std(0, unbiased=False)
    scaled = (weight * spread).requires_grad_()
    offset = (bias + weight @ mean).requires_grad_()
    loss = torch.nn.functional.cross_entropy((x - mean) / spread @ scaled.T + offset, y)
    loss = loss + 0.05 * scaled.square().sum() / 2
    for gradient in torch.autograd.grad(loss, (scaled, offset)):
        assert gradient.abs().max() < 1e-4


def test_groups_of_the_control_task_get_one_label_each() -> None:
    """A property of the groups alone: the probe memorises the groups, and the control task shows it."""
    groups = torch.arange(300) % 6
    x = torch.nn.functional.one_hot(groups, 6).double()
    probe = train_probe(x, (groups < 3).tolist(), control=groups)
    assert probe.accuracy == 1.0
    assert probe.control_accuracy == 1.0
    assert probe.selectivity == 0.0


def test_held_out_examples_are_not_trained_on() -> None:
    """Noise: perfect in training, chance on the rest; the same split for the same seed."""
    x = random(80, 100)
    labels = (random(80, seed=3) > 0).tolist()
    first, second = (train_probe(x, labels, l2=0.0, seed=5, held_out=0.5) for _ in range(2))
    assert first.train_accuracy == 1.0
    assert first.accuracy < 0.8
    assert torch.equal(first.weight, second.weight)
    assert first.control_accuracy is None
    assert first.selectivity is None


def small() -> tuple[Any, Any]:
    """A tiny model over the vocabulary of a shipped tokenizer, which has no padding token."""
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 4096,
        "max_position_embeddings": 64,
    }
    model = minitx.from_config(config, head="causal-lm", seed=0).double().eval()
    return model, minitx.load_tokenizer("minitx/tiny-decoder")


@pytest.mark.parametrize("pool", ["last", "mean", "all"])
def test_collected_activations_are_those_of_each_text_alone(pool: str) -> None:
    model, tokenizer = small()
    values = []
    for text in TEXTS:
        with record(model, PLACE) as seen:
            model(**tokenizer(text))
        alone = seen[PLACE][0]
        values.append({"last": alone[-1:], "mean": alone.mean(0, keepdim=True), "all": alone}[pool])
    collected = collect_activations(model, iter(TEXTS), PLACE, tokenizer=tokenizer, pool=pool, batch_size=3)
    torch.testing.assert_close(collected, torch.cat(values))


def test_padding_is_left_out() -> None:
    """With a tokenizer that pads: several texts in one forward."""
    model = minitx.load("minitx/tiny-seq2seq", dtype="float64")
    tokenizer = minitx.load_tokenizer("minitx/tiny-seq2seq")
    place = "encoder.layers.1.residual.after"
    texts = ["hello", "a", "thoughtful"]
    together = collect_activations(model, texts, place, tokenizer=tokenizer, pool="all")
    alone = [
        collect_activations(model, [text], place, tokenizer=tokenizer, pool="all", batch_size=1)
        for text in texts
    ]
    torch.testing.assert_close(together, torch.cat(alone))


# --- sparse autoencoders -----------------------------------------------------------------------------------


def weights(size: int = 32, features: int = 50) -> dict[str, Tensor]:
    return {
        "W_enc": random(size, features, seed=1) * 0.3,
        "b_enc": random(features, seed=2) * 0.3,
        "W_dec": random(features, size, seed=3) * 0.3,
        "b_dec": random(size, seed=4) * 0.3,
    }


def test_features_and_reconstruction_by_hand(tmp_path: Path) -> None:
    w, x = weights(), random(3, 32)
    path = tmp_path / "sae.safetensors"
    save_file(w, path)
    before = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    features = before.clamp(min=0)
    sae = SparseAutoencoder.load(path)
    torch.testing.assert_close(sae.encode(x), features)
    torch.testing.assert_close(sae(x), features @ w["W_dec"] + w["b_dec"])
    plain = SparseAutoencoder.load(path, centred=False)
    torch.testing.assert_close(plain.encode(x), (x @ w["W_enc"] + w["b_enc"]).clamp(min=0))
    top = SparseAutoencoder.load(path, k=4)
    assert ((top.encode(x) != 0).sum(-1) == 4).all()
    cut = features.topk(4).values[:, -1:]
    torch.testing.assert_close(top.encode(x), torch.where(features >= cut, features, 0.0))
    threshold = random(50, seed=9).abs()
    save_file({**w, "threshold": threshold}, path)
    jump = SparseAutoencoder.load(path)
    torch.testing.assert_close(jump.encode(x), torch.where(before > threshold, before, 0.0))
    assert "32, 50 features, JumpReLU" in str(jump)
    assert (sae.hidden_size, sae.num_features) == (32, 50)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_splice_with_the_error_term_changes_nothing(name: str) -> None:
    model = model_of(name)
    place = f"{model.families[-1]}.layers.0.residual.after"
    sae = SparseAutoencoder(**weights())
    with torch.no_grad():
        plain = model(**arguments(name, IDS)).logits
        with record(model, place) as seen, splice(model, sae, place) as features:
            logits = model(**arguments(name, IDS)).logits
        assert torch.equal(logits, plain)
        torch.testing.assert_close(features.features, sae.encode(seen[place]))
        with splice(model, sae, place, error=False):
            logits = model(**arguments(name, IDS)).logits
        with patch(model, place, sae(seen[place])):
            expected = model(**arguments(name, IDS)).logits
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(logits, plain)


def test_ablated_and_clamped_features() -> None:
    """x - f_3 d_3 - f_8 d_8 + (2 - f_5) d_5, with the error; the decoder of the changed features without."""
    model = model_of("llama")
    sae = SparseAutoencoder(**weights())
    with record(model, PLACE) as seen:
        model(IDS)
    x = seen[PLACE]
    f, d = sae.encode(x), sae.W_dec
    assert (f[..., 3] > 0).any()
    changed = x - f[..., 3, None] * d[3] - f[..., 8, None] * d[8] + (2 - f[..., 5, None]) * d[5]
    clamped = f.clone()
    clamped[..., 3] = clamped[..., 8] = 0
    clamped[..., 5] = 2
    for error, expected in ((True, changed), (False, clamped @ d + sae.b_dec)):
        with (
            splice(model, sae, PLACE, error=error, ablate=[3, 8], clamp={5: 2.0}) as features,
            record(model, PLACE) as after,
        ):
            model(IDS)
        torch.testing.assert_close(after[PLACE], expected)
        torch.testing.assert_close(features.features, f)


def test_a_splice_in_cached_generation() -> None:
    model = model_of("llama")
    sae = SparseAutoencoder(**weights())
    prompt = [[5, 6, 7, 8]]
    with splice(model, sae, PLACE, clamp={4: 6.0}) as cached:
        tokens = minitx.generate(model, prompt, Greedy(), max_new_tokens=5, stop=Stop(eos=()))[
            0
        ].tokens.tolist()
    ids = torch.tensor(prompt)
    for _ in range(5):
        with splice(model, sae, PLACE, clamp={4: 6.0}) as whole, torch.no_grad():
            ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), dim=1)
    assert ids[0, 4:].tolist() == tokens
    assert len(cached.calls) == 5
    torch.testing.assert_close(cached.features, whole.features)


# --- neuron search -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_features", [False, True])
def test_the_search_finds_the_same_texts_as_a_loop(with_features: bool) -> None:
    model, tokenizer = small()
    sae = SparseAutoencoder(**weights(16)) if with_features else None
    peaks = []
    for text in TEXTS:
        with record(model, PLACE) as seen:
            model(**tokenizer(text))
        values = seen[PLACE] if sae is None else sae.encode(seen[PLACE])
        peaks.append(values[0, :, 7])
    order = sorted(range(len(TEXTS)), key=lambda i: -float(peaks[i].max()))[:3]
    result = neuron_search(
        model, iter(TEXTS), PLACE, 7, tokenizer=tokenizer, k=3, autoencoder=sae, batch_size=2
    )
    assert [entry.text for entry in result.texts] == [TEXTS[index] for index in order]
    assert result.searched == len(TEXTS)
    for entry, index in zip(result.texts, order, strict=True):
        torch.testing.assert_close(entry.values, peaks[index])
        assert entry.tokens == tuple(tokenizer.tokens(TEXTS[index]))
        assert entry.value == float(peaks[index].max())
        assert entry.position == int(peaks[index].argmax())
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80
    assert f"[{result.texts[0].tokens[result.texts[0].position]} " in text


def test_mistakes(tmp_path: Path) -> None:
    model, tokenizer = small()
    x = random(20, 4)
    sae = SparseAutoencoder(**weights(16))
    save_file({"W_enc": x}, tmp_path / "part.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"no")
    wrong: list[tuple[Any, str]] = [
        (lambda: train_probe(x[0], [1]), "activations=.* must be of shape"),
        (lambda: train_probe(x, [1] * 20), "labels=.* must be of at least two kinds"),
        (lambda: train_probe(x, [1, 2]), "labels=.* must be of length 20, like the activations, not 2"),
        (lambda: train_probe(x, [1, 2] * 10, held_out=0.01), "held_out=0.01 must be a share"),
        (lambda: train_probe(x, [1, 2] * 10, held_out=1), "held_out=1 must be in"),
        (lambda: train_probe(x, [1, 2] * 10).direction(1, 3), "against=3 must be one of 1, 2"),
        (lambda: collect_activations(model, "text", PLACE, tokenizer=tokenizer), "put the text into a list"),
        (lambda: collect_activations(model, [3], PLACE, tokenizer=tokenizer), "texts=3 must be a string"),
        (lambda: collect_activations(model, [], PLACE, tokenizer=tokenizer), r"must be at least one text"),
        (lambda: collect_activations(model, TEXTS, "**.mixed", tokenizer=tokenizer), "the name of one value"),
        (lambda: SparseAutoencoder(**{**weights(), "b_dec": x}), r"b_dec=.* must be of shape \(32,\)"),
        (lambda: SparseAutoencoder(**weights(), k=51), "k=51 must be from 1 to 50"),
        (
            lambda: SparseAutoencoder.load(tmp_path / "part.safetensors"),
            "a file with the tensor W_dec; it has",
        ),
        (lambda: SparseAutoencoder.load(tmp_path / "no.safetensors"), "a complete .safetensors file"),
        (lambda: SparseAutoencoder.load(tmp_path / "other"), "no such file"),
        (lambda: splice(model, sae, PLACE, ablate=[50]).__enter__(), "ablate=50 must be from 0 to 49"),
        (lambda: splice(model, sae, "**.mixed").__enter__(), "the name of one value; it matches 2"),
        (
            lambda: neuron_search(model, TEXTS, PLACE, 16, tokenizer=tokenizer),
            "neuron=16 must be from 0 to 15",
        ),
        (lambda: neuron_search(model, [], PLACE, 1, tokenizer=tokenizer), "must be at least one text"),
    ]
    for call, message in wrong:
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
            call()
    other = SparseAutoencoder(**weights(32))
    with splice(model, other, PLACE), pytest.raises(ValueError, match="a value of width 32"):
        model(IDS)
    with splice(model, sae, PLACE) as features, pytest.raises(ValueError, match="at least one"):
        features.features  # noqa: B018
