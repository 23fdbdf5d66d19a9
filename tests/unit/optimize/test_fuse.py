"""Fused projections: the same outputs in every family, and whatever is done with a model."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import minitx
from minitx.optimize import (
    fast_linear,
    fuse_projections,
    mixed_dtypes,
    pack_weights,
    undo_fast_linear,
    undo_fuse_projections,
)
from minitx.optimize.classes import all_modules
from minitx.optimize.fuse import FusedGatedIntermediate
from minitx.training import add_lora, merge_lora, remove_lora
from minitx.validation import ArgumentTypeError
from tests.parity.cases import BY_NAME
from tests.unit.calls import run
from tests.unit.test_save_load import CONFIGS, files, outputs, random

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "attention_bias": True,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
IDS = torch.tensor([[5, 9, 4, 7, 3, 8]])
PROMPTS = [[5, 9, 4], [7, 3, 8, 6, 12]]
HEADS = {"llama": "causal-lm", "t5": "seq2seq-lm"}


def model_of(config: dict[str, Any] = LLAMA, dtype: torch.dtype = torch.float64) -> Any:
    return random(config, HEADS[config["model_type"]], dtype).eval()


def fused_of(model: Any) -> list[nn.Module]:
    return [module for module in all_modules(model) if module not in {*model.modules()}]


def count(model: Any, run_it: Callable[[], Any]) -> int:
    """How many of the hidden products run."""
    calls: list[nn.Module] = []
    handles = [m.register_forward_hook(lambda m, *_: calls.append(m)) for m in fused_of(model)]
    run_it()
    for handle in handles:
        handle.remove()
    return len(calls)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        output: Tensor = run(model, IDS).logits
    return output


def assert_same(model: Any, plain: Any, fused: int | None = None) -> None:
    """The logits are those of the plain model, and so many products of several projections ran."""
    results: list[Tensor] = []
    ran = count(model, lambda: results.append(logits(model)))
    torch.testing.assert_close(results[0], logits(plain), rtol=1e-10, atol=1e-10)
    if fused is not None:
        assert ran == fused


@pytest.mark.parametrize("name", BY_NAME)
def test_every_family(name: str) -> None:
    """Whatever a projection of Q, K, V or of a gate is, it is fused, and the outputs stay."""
    case = BY_NAME[name]
    head = case.heads[0] if case.heads else "none"
    plain = random(CONFIGS[name], head, torch.float64)
    model = fuse_projections(copy.deepcopy(plain))
    results: list[list[Tensor]] = []
    with torch.no_grad():
        assert count(model, lambda: results.append(outputs(model))) > 0
        for a, b in zip(results[0], outputs(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert str(model) == str(plain)


@pytest.mark.parametrize("config", [LLAMA, T5], ids=["llama", "t5"])
def test_there_and_back(config: dict[str, Any]) -> None:
    model = model_of(config)
    plain, owners = copy.deepcopy(model), dict(model.named_parameters())
    assert fuse_projections(model) is model
    number = {"llama": 4, "t5": 10}[config["model_type"]]
    assert len(fused_of(model)) == number
    assert all(owners[name] is p for name, p in model.named_parameters())
    assert_same(model, plain, number)
    assert fuse_projections(model) is model  # again: nothing happens
    assert_same(model, plain, number)
    assert undo_fuse_projections(model) is model
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert [set(vars(m)) for m in model.modules()] == [set(vars(m)) for m in plain.modules()]
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    assert len(weights) == len(list(model.parameters()))
    assert_same(model, plain, 0)


def test_in_float32_within_rounding_and_in_half_precision() -> None:
    for dtype, distance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        plain = model_of(dtype=dtype)
        model = fuse_projections(copy.deepcopy(plain))
        torch.testing.assert_close(logits(model), logits(plain), rtol=distance, atol=distance)


@pytest.mark.parametrize("config", [LLAMA, T5], ids=["llama", "t5"])
def test_generation_with_caches_and_beams(config: dict[str, Any]) -> None:
    plain = model_of(config)
    model = fuse_projections(copy.deepcopy(plain))
    for strategy in (minitx.Greedy(), minitx.Sample(), minitx.Beam(num_beams=3)):
        options: dict[str, Any] = {"max_new_tokens": 6, "strategy": strategy}
        if isinstance(strategy, minitx.Sample):
            options["seed"] = 0
        a, b = (minitx.generate(m, PROMPTS, **options) for m in (model, plain))
        assert [row.tolist() for row in a.sequences] == [row.tolist() for row in b.sequences]


# --- what is seen ----------------------------------------------------------------------------------


def attention(model: Any) -> Any:
    return model.decoder.layers[0].attention.self_attention


def test_changes_in_place_are_seen() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    with torch.no_grad():
        for each in (model, plain):
            attention(each).K.weight[3] += 1.0
            attention(each).V.bias.fill_(2.0)
            each.decoder.layers[1].intermediate.gate.weight.mul_(3.0)
    assert_same(model, plain, 4)
    state = {name: value * 0.5 for name, value in plain.state_dict().items()}
    for each in (model, plain):
        each.load_state_dict(state)
    assert_same(model, plain, 4)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_training_is_that_of_the_plain_model(optimizer: Any) -> None:
    plain = model_of().train()
    model = fuse_projections(copy.deepcopy(plain))
    for each in (model, plain):
        steps = optimizer(each.parameters(), lr=0.01)
        for _ in range(2):
            steps.zero_grad()
            each(IDS, labels=IDS).loss.backward()
            steps.step()
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)
    assert_same(model.eval(), plain.eval(), 4)


def test_gradients_of_other_parts_pass_through_the_one_product() -> None:
    plain = model_of().requires_grad_(False)
    model = fuse_projections(copy.deepcopy(plain))
    grads = []
    for each in (model, plain):
        each.embedder.word_emb.weight.requires_grad_(True)
        each(IDS, labels=IDS).loss.backward()
        grads.append(each.embedder.word_emb.weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)
    assert count(model, lambda: model(IDS)) == 4


def add_hook(part: Any) -> None:
    part.register_forward_hook(lambda module, args, output: output * 2)


def add_pre_hook(part: Any) -> None:
    part.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def set_forward(part: Any) -> None:
    part.forward = lambda x: nn.functional.linear(x, part.weight) * 2


def parametrise(part: Any) -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    nn.utils.parametrize.register_parametrization(part, "weight", Double())


def assign_a_parameter(part: Any) -> None:
    part.weight = nn.Parameter(part.weight.detach() * 2)


def assign_data(part: Any) -> None:
    part.weight.data = part.weight.detach() * 2


def remove_the_bias(part: Any) -> None:
    part.bias = None


def shrink(part: Any) -> None:
    """As when heads are cut off: the address of the first weight stays."""
    part.weight.data = part.weight.detach()[:1]


CHANGES = [add_hook, add_pre_hook, set_forward, parametrise, assign_a_parameter, assign_data]
CHANGES += [remove_the_bias]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["Q", "K", "V"])
def test_a_changed_projection_is_computed_by_itself(change: Any, name: str) -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    before = logits(plain)
    for each in (model, plain):
        change(getattr(attention(each), name))
    assert_same(model, plain, 3)
    assert not torch.allclose(before, logits(plain))


def test_parameters_cut_short_are_seen() -> None:
    model = fuse_projections(model_of())
    assert attention(model).is_intact()
    shrink(attention(model).Q)
    assert not attention(model).is_intact()


def test_a_replaced_projection_is_computed_by_itself() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    layer = nn.Linear(32, 16, dtype=torch.float64)
    for each in (model, plain):
        attention(each).V = layer
    assert_same(model, plain, 3)
    fuse_projections(model)  # other classes in one attention: it stays as it is
    assert_same(model, plain, 3)
    fast_linear(layer)
    fuse_projections(model)
    assert_same(model, plain, 4)


def test_taps_see_and_replace_every_value() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    for place in ("decoder.layers.0.attention.self_attention.query", "**.Q", "**.value", "**.gate"):
        values = []
        for each in (model, plain):
            with minitx.inspect.record(each, place) as recorded, torch.no_grad():
                each(IDS)
            values.append({name: recorded[name] for name in recorded})
            results = minitx.inspect.ablate(each, place)
            with results, torch.no_grad():
                values[-1]["ablated"] = each(IDS).logits
        for name, value in values[1].items():
            torch.testing.assert_close(values[0][name], value, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(values[0]["ablated"], logits(plain))
    assert_same(model, plain, 4)


def test_adapters() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    for each in (model, plain):
        add_lora(each, rank=2, targets=("Q", "gate"), seed=0)
        with torch.no_grad():
            for name, parameter in each.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
    assert_same(model, plain, 0)
    merged = merge_lora(copy.deepcopy(model))
    assert_same(merged, merge_lora(copy.deepcopy(plain)), 4)
    assert_same(remove_lora(model), remove_lora(plain), 4)


# --- copies, conversions, files --------------------------------------------------------------------


def test_copies_have_a_product_of_their_own() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    with torch.no_grad():
        attention(model).Q.weight.zero_()
    for each in copies:
        assert_same(each, plain, 4)
        with torch.no_grad():
            attention(each).K.weight.zero_()
        assert not torch.allclose(logits(each), logits(plain))


def test_conversions_join_the_parameters_again() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    for convert in (lambda m: m.float(), lambda m: m.to(torch.float64), lambda m: m.share_memory()):
        assert_same(convert(model), convert(plain), 4)
        assert attention(model).Q.weight.dtype == attention(model).fused.weight.dtype
    assert attention(model).Q.weight.is_shared()
    assert attention(model).fused.weight.is_shared()
    attention(model).Q.double()  # nothing to do
    assert_same(model, plain, 4)
    state = plain.state_dict()
    model.to("meta").to_empty(device="cpu").load_state_dict(state)
    assert_same(model, plain, 4)
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    assert_same(model, plain, 0)
    assert_same(fuse_projections(model), plain, 4)


def test_one_projection_converted_by_itself() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    for each in (model, plain):
        attention(each).Q.float()
        mixed_dtypes(each)
    assert not fused_of(model)
    torch.testing.assert_close(logits(model), logits(plain))


def test_t5_in_float16_keeps_its_float32_parts() -> None:
    plain = model_of(T5, torch.float32)
    model = fuse_projections(copy.deepcopy(plain)).half()
    assert {p.dtype for p in model.parameters()} == {torch.float16, torch.float32}
    torch.testing.assert_close(logits(model), logits(plain.half()))


def test_files_are_those_of_the_plain_model(tmp_path: Path) -> None:
    plain = model_of(dtype=torch.float32)
    model = fuse_projections(copy.deepcopy(plain))
    for name, each in (("fused", model), ("plain", plain)):
        minitx.save(each, tmp_path / name)
        save_file(each.state_dict(), tmp_path / name / "state.safetensors")
    for file in files(tmp_path / "plain"):
        assert (tmp_path / "fused" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    model.resize_token_embeddings(64, seed=0, init="normal")
    plain.resize_token_embeddings(64, seed=0, init="normal")
    torch.testing.assert_close(logits(model), logits(plain))


# --- with other passes -----------------------------------------------------------------------------


def test_passes_change_the_hidden_product_too() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    kinds = {type(module) for module in fused_of(model)}
    assert kinds == {type(attention(model).Q)}
    assert_same(undo_fast_linear(model), plain, 4)
    assert {type(module) for module in fused_of(model)} == {nn.Linear}
    assert_same(fast_linear(model), plain, 4)


def test_packed_weights_follow_changes_in_place() -> None:
    config = {**LLAMA, "hidden_size": 256, "intermediate_size": 256}
    plain = random(config, "causal-lm", torch.float32).eval()
    model = pack_weights(fuse_projections(copy.deepcopy(plain)))
    for _ in range(2):
        torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            for each in (model, plain):
                attention(each).V.weight.mul_(-4.0)
                each.decoder.layers[1].intermediate.gate.weight.neg_()


def test_compiled() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(IDS).logits, logits(plain))
        for each in (model, plain):
            attention(each).Q.weight.mul_(2.0)
        torch.testing.assert_close(compiled(IDS).logits, logits(plain))
        for each in (model, plain):
            each.float()
        torch.testing.assert_close(compiled(IDS).logits, logits(plain))
        for each in (model, plain):
            attention(each).V.weight = nn.Parameter(attention(each).V.weight.detach() * 2)
        torch.testing.assert_close(compiled(IDS).logits, logits(plain))


def test_functional_calls_take_their_own_parameters() -> None:
    plain = model_of()
    model = fuse_projections(copy.deepcopy(plain))
    others = {name: p.detach() * 1.5 for name, p in plain.named_parameters()}
    with torch.no_grad():
        a, b = (torch.func.functional_call(each, others, (IDS,)).logits for each in (model, plain))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a, logits(plain))


def test_shared_parameters_are_left_alone() -> None:
    plain = model_of()
    plain.decoder.layers[1].attention.self_attention.Q.weight = attention(plain).Q.weight
    model = fuse_projections(copy.deepcopy(plain))
    assert [type(m) for m in model.modules() if "Fused" in type(m).__name__] == [FusedGatedIntermediate] * 2
    assert_same(model, plain, 2)


def test_inference_mode_leaves_trainable_parameters() -> None:
    model = model_of()
    with torch.inference_mode():
        fuse_projections(model)
    model(IDS, labels=IDS).loss.backward()
    assert attention(model).Q.weight.grad is not None
    with torch.inference_mode():
        plain = model_of()
        assert_same(fuse_projections(copy.deepcopy(plain)), plain, 0)


def test_without_such_projections() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    assert fuse_projections(model) is model
    assert undo_fuse_projections(model) is model
    for function in (fuse_projections, undo_fuse_projections):
        with pytest.raises(ArgumentTypeError, match="model"):
            function([1])  # type: ignore[type-var]
