"""Logit lens, tuned lens and direct logit attribution equal a few lines of plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect import (
    TunedLens,
    ablate,
    direct_logit_attribution,
    logit_lens,
    record,
    steer,
    train_tuned_lens,
)
from tests.unit.inspect.small_models import IDS, MORE, arguments, model_of, stack_name

EVERY = pytest.mark.parametrize("name", MORE)
PRE_NORM = ("gpt2", "llama", "mistral", "mixtral", "gpt_oss", "gpt_neox", "bloom", "t5", "gemma2", "olmo2")
PRE_NORM += ("granite", "opt")


def layer_norm(x: Tensor, norm: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * (norm.weight + norm.offset)


def plain_head(name: str, model: Any, x: Tensor) -> Tensor:
    """Residual stream to logits, by hand."""
    weight = model.head.projection.weight
    if name == "gpt2":
        return layer_norm(x, model.decoder.layer_norm) @ weight.T
    if name == "llama":
        return rms_norm(x, model.decoder.layer_norm) @ weight.T
    if name == "gemma2":
        logits = rms_norm(x, model.decoder.layer_norm) @ weight.T
        return 30.0 * torch.tanh(logits / 30.0)
    if name == "t5":
        return rms_norm(x, model.decoder.layer_norm) * 32**-0.5 @ weight.T
    head = model.head  # bert
    hidden = torch.nn.functional.gelu(x @ head.dense.weight.T + head.dense.bias)
    return layer_norm(hidden, head.layer_norm) @ weight.T + head.projection.bias


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5", "bert"])
def test_the_lens_is_the_head_on_every_layer(name: str) -> None:
    model = model_of(name)
    inputs = arguments(name, IDS)
    lens = logit_lens(model, inputs)
    stack = stack_name(model)
    names = [f"{stack}.layers.{i}.residual.before" for i in range(2)] + [f"{stack}.layers.1.residual.after"]
    with record(model, *names) as seen, torch.no_grad():
        output = model(**inputs)
        expected = torch.stack([plain_head(name, model, seen[place]) for place in names])
    torch.testing.assert_close(lens.logits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(lens.logits[-1], output.logits, rtol=1e-12, atol=1e-12)
    assert lens.layers == ("embedding", "0", "1")


@EVERY
def test_the_last_layer_of_the_lens_is_the_model(name: str) -> None:
    """Of every architecture, padded on the left and with one token too."""
    model = model_of(name)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    for ids, more in ((IDS, {"attention_mask": mask}), (IDS[:, :1], {})):
        inputs = {**arguments(name, ids), **more}
        with torch.no_grad():
            expected = model(**inputs).logits
        lens = logit_lens(model, inputs)
        real = torch.ones(expected.shape[:2], dtype=torch.bool)
        if more and name not in ("t5", "bart"):
            real = mask.bool()
        torch.testing.assert_close(lens.logits[-1][real], expected[real], rtol=1e-10, atol=1e-10)
        part = logit_lens(model, inputs, positions=[-1])
        torch.testing.assert_close(part.logits[:, :, 0], lens.logits[:, :, -1])
        assert part.positions == (expected.shape[1] - 1,)


def test_quantities_of_the_lens() -> None:
    model = model_of("llama")
    lens = logit_lens(model, IDS)
    p = lens.logits.softmax(-1)
    torch.testing.assert_close(lens.probabilities, p)
    torch.testing.assert_close(lens.entropy, -(p * p.log()).sum(-1))
    torch.testing.assert_close(lens.divergence, (p[-1] * (p[-1].log() - p.log())).sum(-1))
    assert lens.divergence[-1].abs().max() < 1e-12
    assert torch.equal(lens.probability(7), p[..., 7])
    best = lens.top()[..., 0]
    assert torch.equal(best, lens.logits.argmax(-1))
    assert all(int(lens.rank(int(best[layer, 0, 0]))[layer, 0, 0]) == 0 for layer in range(3))
    assert int(lens.rank(7)[1, 0, 2]) == int((lens.logits[1, 0, 2] > lens.logits[1, 0, 2, 7]).sum())


def test_a_lens_inside_an_edit_sees_the_edited_run() -> None:
    model = model_of("llama")
    plain = logit_lens(model, IDS)
    with ablate(model, heads={1: [0]}):
        edited = logit_lens(model, IDS)
        expected = model(IDS).logits
    torch.testing.assert_close(edited.logits[-1], expected)
    assert torch.equal(edited.logits[1], plain.logits[1])
    assert not torch.allclose(edited.logits[2], plain.logits[2])


def test_a_lens_prints_tokens() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    lens = logit_lens(model, "It was a dark", tokenizer=tokenizer)
    text = str(lens)
    assert max(map(len, text.splitlines())) <= 80
    assert "▁dark" in text
    assert "embedding" in text
    best = tokenizer.id_to_token(int(lens.top()[-1, 0, -1, 0]))
    assert best is not None
    assert best[:4] in text.splitlines()[3]


# --- tuned lens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_tuned_lens_starts_as_the_logit_lens_and_comes_closer(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    generator = torch.Generator().manual_seed(0)
    batches: list[Any] = [
        arguments(name, torch.randint(3, 60, (8, 6), generator=generator)) for _ in range(4)
    ]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fresh = TunedLens(2, 32).double()
    plain = logit_lens(model, batches[0])
    torch.testing.assert_close(logit_lens(model, batches[0], lens=fresh).logits, plain.logits)
    lens = train_tuned_lens(model, batches, epochs=15, learning_rate=1e-2)
    tuned = logit_lens(model, batches[0], lens=lens)
    assert (tuned.divergence[:-1].mean((1, 2)) < 0.8 * plain.divergence[:-1].mean((1, 2))).all()
    assert torch.equal(tuned.logits[-1], plain.logits[-1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    lens.save(tmp_path / "new" / "lens.safetensors")
    again = TunedLens.load(tmp_path / "new" / "lens.safetensors")
    assert torch.equal(logit_lens(model, batches[0], lens=again).logits, tuned.logits)


def test_the_first_step_of_a_tuned_lens_by_hand() -> None:
    """Adam's first step is the sign of the gradient of the KL divergence of real tokens."""
    model = model_of("llama")
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    inputs = {"input_ids": IDS, "attention_mask": mask}
    lens = train_tuned_lens(model, [inputs], learning_rate=1e-3)
    weight = torch.zeros(2, 32, 32, dtype=torch.float64, requires_grad=True)
    with record(model, "**.residual.before") as seen:
        final = model(**inputs).logits.detach()[mask.bool()].log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for layer in range(2):
        h = seen[f"decoder.layers.{layer}.residual.before"]
        logits = plain_head("llama", model, h + h @ weight[layer].T)[mask.bool()].log_softmax(-1)
        total = total + (final.exp() * (final - logits)).sum(-1).mean()
    (gradient,) = torch.autograd.grad(total, weight)
    torch.testing.assert_close(lens.weight.detach(), -1e-3 * gradient / (gradient.abs() + 1e-8))


# --- direct logit attribution ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRE_NORM)
def test_contributions_sum_up_to_the_logit(name: str) -> None:
    model = model_of(name)
    inputs = arguments(name, IDS)
    with torch.no_grad():
        logits = model(**inputs).logits
    cap = model.head.config.softcap
    logits = logits if cap is None else cap * torch.atanh(logits / cap)
    for position in (-1, 1):
        for tokens, against in ((7, None), ([7, 9], 11), ([3, 4], [5, 6])):
            result = direct_logit_attribution(model, inputs, tokens, against, position=position)
            at = logits[:, position]
            chosen = torch.tensor([tokens] * 2 if isinstance(tokens, int) else tokens)
            expected = at.gather(1, chosen[:, None])[:, 0]
            if against is not None:
                other = torch.tensor([against] * 2 if isinstance(against, int) else against)
                expected = expected - at.gather(1, other[:, None])[:, 0]
            torch.testing.assert_close(result.values.sum(0), expected, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(result.logit, expected, rtol=1e-9, atol=1e-9)
    layers, heads = len(model.decoder.layers), 4
    crosses = heads if name == "t5" else 0
    assert len(result.names) == layers * (heads + crosses + 1) + 2
    assert str(result)


def test_contributions_by_hand() -> None:
    """GPT-2: each head and network through the centred, frozen norm."""
    model = model_of("gpt2")
    with record(model, "**.mixed", "**.intermediate", "**.before", "**.residual.after") as seen:
        model(IDS)
    x = seen["decoder.layers.1.residual.after"][:, -1]
    norm = model.decoder.layer_norm
    spread = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    direction = model.head.projection.weight[7] - model.head.projection.weight[9]

    def through(part: Tensor) -> Tensor:
        return ((part - part.mean(-1, keepdim=True)) / spread * norm.weight) @ direction

    result = direct_logit_attribution(model, IDS, 7, 9)
    torch.testing.assert_close(
        result["embedding"], through(seen["decoder.layers.0.residual.before"][:, -1]), rtol=1e-9, atol=1e-9
    )
    bias = norm.bias @ direction
    for index, layer in enumerate(model.decoder.layers):
        dense = layer.attention.self_output.dense
        for head in range(4):
            z = seen[f"decoder.layers.{index}.attention.self_attention.mixed"][:, head, -1]
            part = z @ dense.weight[:, 8 * head : 8 * head + 8].T
            torch.testing.assert_close(result[f"{index}.head.{head}"], through(part), rtol=1e-9, atol=1e-9)
        network = layer.output.dense(seen[f"decoder.layers.{index}.intermediate"][:, -1])
        torch.testing.assert_close(result[f"{index}.feed_forward"], through(network), rtol=1e-9, atol=1e-9)
        bias = bias + through(dense.bias.expand_as(x))
    torch.testing.assert_close(result["bias"], bias, rtol=1e-9, atol=1e-9)
    name, value = result.top(1)[0]
    assert abs(value) == float(result.values[:, 0].abs().max())
    assert float(result[name][0]) == value


def test_negative_positions_skip_padding_on_the_right() -> None:
    model = model_of("gpt2")
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    padded = direct_logit_attribution(model, {"input_ids": IDS, "attention_mask": mask}, 7)
    alone = direct_logit_attribution(model, IDS[1:, :3], 7)
    torch.testing.assert_close(padded.values[:, 1:], alone.values)


def test_an_edited_stream_is_no_sum() -> None:
    """Ablated heads are parts like others; a steering vector is none of them."""
    model = model_of("llama")
    with ablate(model, heads={1: [2]}):
        result = direct_logit_attribution(model, IDS, 7)
        expected = model(IDS).logits[:, -1, 7].detach()
    assert not result["1.head.2"].any()
    torch.testing.assert_close(result.logit, expected)
    vector = torch.ones(32, dtype=torch.float64)
    with steer(model, vector, 0, 5.0), pytest.raises(ValueError, match="do not sum up to the residual"):
        direct_logit_attribution(model, IDS, 7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert", "must be pre-norm, with a residual stream that is the sum of its parts.*normalises"),
        ("bart", "must be pre-norm"),
        ("modernbert", "must be one whose head is a projection"),
    ],
)
def test_models_without_a_linear_end_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        direct_logit_attribution(model_of(name), arguments(name, IDS), 7)


def test_mistakes(tmp_path: Path) -> None:
    model: Any = model_of("llama")
    bare = minitx.from_config(MORE["llama"], seed=0).eval()
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    wrong: list[tuple[Any, str]] = [
        (
            lambda: logit_lens(bare, IDS),
            "model=.* must be one with a head over the vocabulary, not of task None",
        ),
        (lambda: logit_lens(model, "text"), "tokenizer=None must be the tokenizer of the model for texts"),
        (lambda: logit_lens(model, 3), "inputs=3 must be texts, a tensor of ids or the arguments"),
        (lambda: logit_lens(model, [3, 4]), r"inputs=\[3, 4\] must be texts"),
        (lambda: logit_lens(model, IDS, positions=[9]), "positions=9 must be from -5 to 4"),
        (lambda: logit_lens(model, IDS, positions=[]), r"positions=\[\] must be at least one position"),
        (lambda: logit_lens(model, IDS, lens=TunedLens(2, 8)), "hidden=.* must be of width 8"),
        (lambda: logit_lens(model, IDS).probability("x"), "token='x' must be an id without a tokenizer"),
        (lambda: direct_logit_attribution(model, IDS, 60), "tokens=60 must be from 0 to 59"),
        (lambda: direct_logit_attribution(model, IDS, [1, 2, 3]), "one for each of the 2 rows"),
        (lambda: direct_logit_attribution(model, IDS, 1, position=5), "position=5 must be from -5 to 4"),
        (lambda: direct_logit_attribution(model, IDS, 1)["0.head.9"], "name='0.head.9' must be the name"),
        (lambda: direct_logit_attribution(model, IDS, "dark Mary", tokenizer=tokenizer), "must be one token"),
        (lambda: train_tuned_lens(model, []), r"batches=\[\] must be at least one batch"),
        (lambda: train_tuned_lens(model, [IDS], learning_rate=0), "learning_rate=0 must be in"),
        (
            lambda: train_tuned_lens(model, [IDS], lens=TunedLens(3, 32)),
            "for 2 values of the residual stream",
        ),
        (lambda: TunedLens.load(tmp_path / "no.safetensors"), "no such file"),
        (lambda: TunedLens(1, 4).save(tmp_path / "lens.bin"), "must be the name of a .safetensors file"),
    ]
    for call, message in wrong:
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
            call()
    with pytest.raises(ValueError, match=r"in eval mode.*call model.eval\(\) first"):
        logit_lens(minitx.from_config(MORE["llama"], head="causal-lm", seed=0).train(), IDS)
