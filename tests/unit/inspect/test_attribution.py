"""Attention rollout, gradient attributions and head scores equal a few lines of plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect import (
    attention_rollout,
    head_scores,
    input_x_gradient,
    integrated_gradients,
    logit_difference,
    patch,
    saliency,
)
from minitx.inspect.analysis.gradients import gauss_legendre
from tests.unit.inspect.small_models import IDS, MORE, arguments, model_of

METRIC = logit_difference([7, 8], 9)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


# --- rollout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "llama", "mistral", "albert", "deberta"])
@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rollout_is_the_product_of_the_mixed_weights(name: str, heads: str) -> None:
    model = model_of(name)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    expected = torch.eye(5, dtype=torch.float64)
    for weights in attentions:
        merged = {"mean": weights.mean(1), "max": weights.amax(1), "min": weights.amin(1)}[heads]
        merged = merged / merged.sum(-1, keepdim=True)
        expected = (0.7 * merged + 0.3 * torch.eye(5)) @ expected
    rollout = attention_rollout(model, inputs, heads=heads, residual=0.3)
    torch.testing.assert_close(rollout.values, expected)
    torch.testing.assert_close(rollout.values.sum(-1), torch.ones(2, 5, dtype=torch.float64))
    assert not rollout.values[1, :3, 3:].any()  # padding
    if model.families[-1] == "decoder":
        assert not rollout.values.triu(1).any()


def test_rollout_of_sinks_sums_up_to_one() -> None:
    rollout = attention_rollout(model_of("gpt_oss"), IDS)
    torch.testing.assert_close(rollout.values.sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_rollout_through_cross_attention() -> None:
    """Of T5's decoder: the encoder's rollout and its own, in one matrix over source and target."""
    model = model_of("t5")
    inputs = arguments("t5", IDS)
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)

    def step(weights: Tensor) -> Tensor:
        return weights.mean(1)

    source = torch.eye(5, dtype=torch.float64).expand(2, 5, 5)
    for weights in output.encoder_attentions:
        source = 0.5 * step(weights) @ source + 0.5 * source
    to_source = torch.zeros(2, 4, 5, dtype=torch.float64)
    to_target = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    for weights, cross in zip(output.decoder_attentions, output.cross_attentions, strict=True):
        to_source = 0.5 * step(weights) @ to_source + 0.5 * to_source
        to_target = 0.5 * step(weights) @ to_target + 0.5 * to_target
        to_source = 0.5 * step(cross) @ source + 0.5 * to_source
        to_target = 0.5 * to_target
    rollout = attention_rollout(model, inputs)
    torch.testing.assert_close(rollout.values, torch.cat((to_source, to_target), dim=-1))
    assert len(rollout.keys[0]) == 9
    torch.testing.assert_close(attention_rollout(model, inputs, stack="encoder").values, source)
    assert str(rollout)


# --- gradients ---------------------------------------------------------------------------------------------


def by_hand(name: str, embeds: Tensor, side: str) -> Tensor:
    """The metric as a function of the embeddings: (2,)."""
    inputs: dict[str, Any] = arguments(name, IDS)
    inputs[f"{side}inputs_embeds"] = embeds
    del inputs[f"{side}input_ids"]
    logits = model_of(name)(**inputs).logits
    return torch.stack((logits[0, -1, 7] - logits[0, -1, 9], logits[1, -1, 8] - logits[1, -1, 9]))


CASES = [("bert", "encoder", ""), ("llama", "decoder", ""), ("gemma2", "decoder", "")]
CASES += [("t5", "encoder", ""), ("t5", "decoder", "decoder_"), ("bart", "encoder", "")]


@pytest.mark.parametrize(("name", "stack", "side"), CASES)
def test_saliency_and_input_x_gradient(name: str, stack: str, side: str) -> None:
    model = model_of(name)
    inputs = arguments(name, IDS)
    module = model.get_submodule(f"{side}embedder.word_emb")
    embeds = module(inputs[f"{side}input_ids"]).detach().requires_grad_()
    outcome = by_hand(name, embeds, side)
    (gradient,) = torch.autograd.grad(outcome.sum(), embeds)
    result = saliency(model, inputs, METRIC, stack=stack)
    torch.testing.assert_close(result.values, gradient.norm(dim=-1))
    torch.testing.assert_close(result.metric, outcome.detach())
    product = input_x_gradient(model, inputs, METRIC, stack=stack)
    torch.testing.assert_close(product.values, (gradient * embeds.detach()).sum(-1))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("name", "stack", "side"), CASES)
def test_integrated_gradients_are_complete_and_equal_a_fine_sum(name: str, stack: str, side: str) -> None:
    model = model_of(name)
    inputs = arguments(name, IDS)
    result = integrated_gradients(
        model, inputs, METRIC, stack=stack, steps=256 if name == "t5" else 64, tolerance=2e-2
    )
    assert result.baseline is not None
    torch.testing.assert_close(result.values.sum(1), result.metric - result.baseline, rtol=2e-2, atol=2e-2)
    module = model.get_submodule(f"{side}embedder.word_emb")
    embeds = module(inputs[f"{side}input_ids"]).detach()
    start = module(torch.arange(60)[None]).detach().mean(dim=1, keepdim=True).expand_as(embeds)
    torch.testing.assert_close(result.baseline, by_hand(name, start, side).detach())
    total = torch.zeros_like(embeds)
    for step in range(parts := 320 if name == "t5" else 160):
        point = (start + (step + 0.5) / parts * (embeds - start)).requires_grad_()
        total += torch.autograd.grad(by_hand(name, point, side).sum(), point)[0] / parts
    torch.testing.assert_close(result.values, ((embeds - start) * total).sum(-1), rtol=2e-2, atol=1e-2)


def test_baselines_and_the_check_of_completeness() -> None:
    model = model_of("bert")
    by_token = integrated_gradients(model, IDS, METRIC, baseline=3)
    vector = model.embedder.word_emb.weight[3].detach()
    torch.testing.assert_close(
        integrated_gradients(model, IDS, METRIC, baseline=vector).values, by_token.values
    )
    assert by_token.completeness_error is not None
    same = integrated_gradients(model, torch.full((1, 4), 3), lambda x: x[:, 0, 5], baseline=3)
    assert not same.values.any()
    with pytest.raises(ValueError, match=r"steps=1 must be large enough for values that sum up to the diff"):
        integrated_gradients(model, IDS, METRIC, steps=1, tolerance=1e-6)
    coarse = integrated_gradients(model, IDS, METRIC, steps=1, tolerance=None)
    assert coarse.completeness_error is not None
    assert coarse.completeness_error.abs().max() > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_the_quadrature_is_that_of_numpy(steps: int) -> None:
    points, weights = gauss_legendre(steps)
    x, w = np.polynomial.legendre.leggauss(steps)
    np.testing.assert_allclose(points.numpy(), (x + 1) / 2, atol=1e-13)
    np.testing.assert_allclose(weights.numpy(), w / 2, atol=1e-13)


def test_attributions_of_a_shipped_model_print() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    metric = logit_difference("▁Mary", "▁John", tokenizer=tokenizer)
    text = "Mary went to the house. I spoke to"
    result = integrated_gradients(model, text, metric, tokenizer=tokenizer)
    names = result.tokens[0]
    assert "▁Mary" in {names[index] for index in result.values[0].topk(2).indices.tolist()}
    lines = str(result).splitlines()
    assert len(lines) == len(names)
    assert max(map(len, lines)) <= 80


# --- head scores -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "deberta", "gpt_oss"])
def test_scores_are_means_of_three_diagonals(name: str) -> None:
    model = model_of(name)
    scores = head_scores(model, length=6, rows=3, first_token=2)
    ids = scores.tokens
    assert torch.equal(ids[:, 1:7], ids[:, 7:])
    assert (ids[:, 0] == 2).all()
    assert all(len({*row}) == 6 for row in ids[:, 1:7].tolist())
    more = {"decoder_input_ids": ids} if name == "t5" else {}
    with torch.no_grad():
        output = model(ids, output_attentions=True, **more)
    attentions = output.decoder_attentions if name == "t5" else output.attentions
    weights = torch.stack(attentions)[..., 1:, 1:]  # (layers, rows, H, 12, 12)

    def diagonal(distance: int, first: int) -> Tensor:
        values = weights.diagonal(-distance, -2, -1)[..., first - distance :]
        return values.mean(dim=(1, 3))

    torch.testing.assert_close(scores.induction, diagonal(5, 6))
    torch.testing.assert_close(scores.duplicate_token, diagonal(6, 6))
    torch.testing.assert_close(scores.previous_token, diagonal(1, 1))


def test_a_head_made_for_it_has_the_score_1() -> None:
    model = model_of("llama")
    length = 6
    once = torch.arange(10, 16)[None]
    place = "decoder.layers.1.attention.self_attention.weights"

    def attending(distance: int) -> Tensor:
        index = (torch.arange(2 * length) - distance).clamp(min=0)
        return torch.nn.functional.one_hot(index, 2 * length).double()[None, None]

    for distance, name in ((length - 1, "induction"), (length, "duplicate_token"), (1, "previous_token")):
        with patch(model, place, attending(distance), heads=[2]):
            scores = head_scores(model, tokens=once)
        assert float(getattr(scores, name)[1, 2]) == 1.0
        assert scores.grid(name).top(1) == [("1", "2", 1.0)]
        assert name.replace("_", " ") in str(scores)


def test_an_encoder_of_two_stacks() -> None:
    model = model_of("t5")
    assert not torch.allclose(head_scores(model, stack="encoder").induction, head_scores(model).induction)


def test_mistakes() -> None:
    model: Any = model_of("llama")
    bare: Any = minitx.from_config(MORE["llama"], seed=0).eval()
    wrong: list[tuple[Any, str]] = [
        (
            lambda: attention_rollout(model, IDS, heads="sum"),
            "heads='sum' must be one of 'mean', 'max', 'min'",
        ),
        (lambda: attention_rollout(model, IDS, stack="encoder"), "stack='encoder' must be one of 'decoder'"),
        (lambda: attention_rollout(model, IDS, residual=2), "residual=2 must be in"),
        (lambda: saliency(bare, IDS, METRIC), "must be one with a head that has logits"),
        (lambda: saliency(model, IDS, lambda x: x[0, 0]), r"of the metric=.* must be of shape \(2,\)"),
        (lambda: saliency(model, IDS, lambda x: 3), "value of the metric=3 must be a tensor"),
        (lambda: integrated_gradients(model, IDS, METRIC, steps=0), "steps=0 must be at least 1"),
        (lambda: integrated_gradients(model, IDS, METRIC, baseline=60), "baseline=60 must be from 0 to 59"),
        (
            lambda: integrated_gradients(model, IDS, METRIC, baseline=torch.zeros(7)),
            "baseline=.* must be of a shape that broadcasts",
        ),
        (lambda: head_scores(model, length=100), "length=100 must be at most"),
        (lambda: head_scores(model, length=1), "length=1 must be at least 2"),
        (lambda: head_scores(model, tokens=torch.tensor([[4, 4]])), "each once in a row"),
        (lambda: head_scores(model, length=4).grid("x"), "name='x' must be one of"),
    ]
    for call, message in wrong:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
