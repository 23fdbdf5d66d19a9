"""LoRA as a pass: which parameters it trains, copies, dtypes and refusals; PEFT is in tests/parity."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minitx
from minitx.models import Model
from minitx.optimize.linear import FastLinear
from minitx.training.lora import LoraLinear, add_lora, load_adapter, merge_lora, remove_lora, save_adapter
from tests.unit.test_save_load import CONFIGS, EVERY_HEAD, ids, outputs, written


def fresh(name: str = "bert", head: str = "masked-lm", **options: Any) -> Model:
    return minitx.from_config(CONFIGS[name], head=head, seed=0, **options).eval()


def trained(model: Model, std: float = 0.1) -> Model:
    """Adapters that are no longer at their start."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.data.add_(noise.to(parameter.dtype))
    return model


def logits(model: Model) -> Tensor:
    with torch.no_grad():
        tensor: Tensor = model(ids()).logits
    return tensor


def adapted(model: nn.Module) -> set[str]:
    return {path for path, module in model.named_modules() if isinstance(module, LoraLinear)}


# --- what is trained ---------------------------------------------------------------------------------


def test_only_adapters_get_gradients() -> None:
    model = add_lora(fresh(), 4, seed=0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):  # at the first step B is 0, so that A has no gradient but zeros
        optimizer.zero_grad()
        model(ids(), labels=ids()).loss.backward()
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if ".lora_" in name}
    assert all((p.grad is not None) == (".lora_" in name) for name, p in model.named_parameters())
    assert adapted(model) == {
        f"encoder.layers.{i}.attention.self_attention.{part}"
        for i in range(len(model.encoder.layers))
        for part in "QV"
    }
    assert model.num_parameters(trainable=True) == sum(before[n].numel() for n in changed)


def test_the_outputs_begin_as_they_were() -> None:
    model = fresh()
    before = logits(model)
    assert torch.equal(logits(add_lora(copy.deepcopy(model), 4, targets="all-linear")), before)
    torch.testing.assert_close(logits(add_lora(model, 4, targets="all-linear", dora=True)), before)


def test_equal_seeds_are_equal_adapters() -> None:
    a, b, c = (add_lora(fresh(), 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_a_new_head_is_trained_whole(tmp_path: Path) -> None:
    model = add_lora(fresh("distilbert", "sequence-classification"), 2)
    assert {n for n, p in model.named_parameters() if p.requires_grad and ".lora_" not in n} == {
        f"head.{part}.{leaf}" for part in ("dense", "projection") for leaf in ("weight", "bias")
    }
    save_adapter(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [
        "classifier",
        "pre_classifier",
    ]
    none = add_lora(fresh("distilbert", "sequence-classification"), 2, modules_to_save=())
    assert not any(p.requires_grad for p in none.head.parameters())


def test_any_module_takes_adapters() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.randn(3, 4)
    before = model(x)
    add_lora(model, 2, targets=["0"], bias="all")
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "0.bias", "0.lora_A", "0.lora_B", "2.bias"
    ]  # fmt: skip
    assert torch.equal(model(x), before)
    assert torch.equal(remove_lora(model)(x), before)
    assert all(p.requires_grad for p in model.parameters())
    assert type(model[0]) is nn.Linear


# --- merged, removed, copied, converted --------------------------------------------------------------


KINDS: list[dict[str, bool]] = [{}, {"dora": True}, {"rslora": True}]
ONE_HEAD = {name: head for name, head in EVERY_HEAD if head != "none"}


@pytest.mark.parametrize(("name", "head"), [*ONE_HEAD.items()])
def test_every_architecture_merges_and_reloads(tmp_path: Path, name: str, head: str) -> None:
    options = KINDS[[*ONE_HEAD].index(name) % 3]
    model = fresh(name, head, dtype=torch.float64)
    minitx.save(model, tmp_path / "base")
    trained(add_lora(model, 3, 5, targets="all-linear", seed=0, **options)).eval()
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    expected = outputs(model)
    merged = merge_lora(copy.deepcopy(model))
    again = load_adapter(minitx.load(tmp_path / "base", head=head), tmp_path / "adapter")
    plain = minitx.load(tmp_path / "adapter", head=head)
    for other in (merged, again, plain):
        for a, b in zip(outputs(other), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, float(b.detach().abs().max())))
    minitx.save(merged, tmp_path / "merged")


def test_removing_restores_the_model() -> None:
    model = fresh("t5", "seq2seq-lm")
    classes = [type(module) for module in model.modules()]
    model.embedder.word_emb.weight.requires_grad_(False)
    trainable = [p.requires_grad for p in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    assert FastLinear in classes
    remove_lora(trained(add_lora(model, 2, targets="all-linear")))
    assert [type(module) for module in model.modules()] == classes
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert not hasattr(model, "lora")


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_adapters(clone: Any) -> None:
    model = trained(add_lora(fresh("gpt2", "causal-lm"), 2, targets=["c_attn"], seed=0))
    twin = clone(model)
    assert torch.equal(logits(twin), logits(model))
    next(p for n, p in twin.named_parameters() if "lora_B" in n).data.add_(1.0)
    assert not torch.equal(logits(twin), logits(model))
    part = twin.decoder.layers[0].attention.self_attention
    assert part.Q.lora_A is part.K.lora_A


def test_a_state_dict_holds_the_adapters() -> None:
    model, other = (add_lora(fresh(), 4, seed=seed) for seed in (0, 1))
    trained(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other), logits(model))


def test_half_precision_has_adapters_in_float32() -> None:
    """As in PEFT: small updates would be lost. A later conversion converts them too."""
    wide = trained(add_lora(fresh(), 4, targets="all-linear", seed=0))
    model = trained(add_lora(fresh().to(torch.bfloat16), 4, targets="all-linear", seed=0))
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" in n} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    torch.testing.assert_close(logits(model).float(), logits(wide), atol=0.05, rtol=0.05)
    model(ids(), labels=ids()).loss.backward()
    torch.testing.assert_close(logits(model.to(torch.bfloat16)).float(), logits(wide), atol=0.05, rtol=0.05)
    merged = merge_lora(model)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(merged).float(), logits(wide), atol=0.05, rtol=0.05)


def test_autocast() -> None:
    model = trained(add_lora(fresh(), 4, targets="all-linear", dora=True, seed=0))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(ids(), labels=ids())
    output.loss.backward()
    torch.testing.assert_close(output.logits.float(), logits(model), atol=0.05, rtol=0.05)
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad
    )


def test_t5_in_float16() -> None:
    """The projections that stay in float32 there keep adapters in float32, and the others convert to them."""
    model = trained(add_lora(fresh("t5", "seq2seq-lm"), 2, targets="all-linear", seed=0))
    tokens = ids(CONFIGS["t5"])
    with torch.no_grad():
        expected = model(tokens, decoder_input_ids=tokens).logits
        half = model.half()(tokens, decoder_input_ids=tokens).logits
    kinds = {p.dtype for n, p in model.named_parameters() if ".output.dense." in n}
    assert kinds == {torch.float32}
    torch.testing.assert_close(
        half.float(), expected, atol=0.02 * float(expected.detach().abs().max()), rtol=0.05
    )
    remove_lora(model)(tokens, decoder_input_ids=tokens)


def test_dropout_acts_on_the_input_of_the_update() -> None:
    model = trained(add_lora(fresh(), 4, dropout=0.5, seed=0))
    layer = next(module for module in model.modules() if isinstance(module, LoraLinear)).train()
    x = torch.randn(2000, layer.in_features)
    with torch.no_grad():
        layer.lora_B.zero_()
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
        layer.lora_B.normal_(std=0.1)
        mean = torch.stack([layer(x[:1].expand(4000, -1)).mean(0)])
        torch.testing.assert_close(mean, layer.eval()(x[:1]), atol=0.05, rtol=0.05)


# --- files -------------------------------------------------------------------------------------------


def test_the_files(tmp_path: Path) -> None:
    minitx.save(fresh("llama", "causal-lm"), tmp_path / "base")
    model = minitx.load(tmp_path / "base")
    add_lora(model, 4, 6, targets=["layers.1.attention.self_attention.Q", "output.dense"])
    save_adapter(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    assert config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"]) == (4, 6)
    layers = range(len(model.decoder.layers))
    assert sorted(config["target_modules"]) == sorted(
        [*(f"{i}.mlp.down_proj" for i in layers), "1.self_attn.q_proj"]
    )
    add_lora(remove_lora(model), targets=["Q", "V"])
    save_adapter(model, tmp_path / "adapter", base="org/name")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == "org/name"


def test_the_base_of_a_model_from_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--some--name" / "snapshots" / "0123abcd"
    minitx.save(fresh(), folder)
    save_adapter(add_lora(minitx.load(folder), 2), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/some/name", "0123abcd")


def test_a_model_of_ones_own_config(tmp_path: Path) -> None:
    """It has no names of Hugging Face's; the file has those of minitx."""
    model = minitx.EncoderModel(fresh().config).eval()
    minitx.save(model, tmp_path / "base")
    trained(add_lora(model, 2, seed=0))
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    for again in (
        minitx.load(tmp_path / "adapter"),
        load_adapter(minitx.load(tmp_path / "base"), tmp_path / "adapter"),
    ):
        torch.testing.assert_close(again(ids())[0], model(ids())[0])


def test_save_refuses_adapters(tmp_path: Path) -> None:
    model = add_lora(fresh(), 2)
    for options in ({}, {"model_type": "minitx"}):
        with pytest.raises(ValueError, match=r"without LoRA adapters; .*save_adapter .*merge_lora"):
            minitx.save(model, tmp_path / "saved", **options)
    assert not (tmp_path / "saved").exists()
    minitx.save(merge_lora(model), tmp_path / "saved")


# --- refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank": 0}, ValueError, "^rank=0 must be"),
        ({"rank": 2.0}, TypeError, "^rank=2.0 must be"),
        ({"alpha": 0}, ValueError, "^alpha=0"),
        ({"alpha": float("nan")}, ValueError, "^alpha=nan"),
        ({"dropout": 1.0}, ValueError, "^dropout=1.0"),
        ({"dora": 1}, TypeError, "^dora=1"),
        ({"bias": "some"}, ValueError, "^bias='some' must be one of 'none'"),
        (
            {"targets": ["W"]},
            ValueError,
            r"^targets=.* must be ends .*; the paths end with K, Q, V, decoder, dense, ",
        ),
        ({"targets": []}, ValueError, "^targets=.* must be ends of"),
        ({"targets": "Q("}, ValueError, "^targets='Q\\(' must be a valid regular expression"),
        ({"targets": 3}, TypeError, "^targets=3 must be a sequence of names"),
        ({"targets": ["projection"]}, ValueError, "^targets=.*head.projection.*embedder.word_emb.weight too"),
        ({"modules_to_save": ["head"]}, ValueError, "^modules_to_save='head' must be the end"),
        ({"modules_to_save": "cls"}, TypeError, "^modules_to_save='cls' must be a sequence"),
        ({"modules_to_save": ["word_embeddings"]}, ValueError, "^modules_to_save=.* too"),
        ({"seed": -1}, ValueError, "^seed=-1"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = fresh()
    with pytest.raises(error, match=message):
        add_lora(model, **options)
    assert all(p.requires_grad for p in model.parameters())
    assert not adapted(model)


def test_adapters_that_are_there_or_not(tmp_path: Path) -> None:
    model = fresh()
    for call in (merge_lora, remove_lora, lambda m: save_adapter(m, tmp_path)):
        with pytest.raises(ValueError, match="must be a model with adapters; add_lora adds them"):
            call(model)
    save_adapter(add_lora(model, 2), tmp_path)
    for call in (add_lora, lambda m: load_adapter(m, tmp_path)):
        with pytest.raises(ValueError, match="must be a model without adapters; merge_lora merges"):
            call(model)


def test_one_matrix_with_adapters_of_several_scales(tmp_path: Path) -> None:
    model = add_lora(fresh("gpt2", "causal-lm"), 2)
    part = model.decoder.layers[1].attention.self_attention.V
    part.lora_options = type(part.lora_options)(alpha=3.0)
    with pytest.raises(ValueError, match=r"\.V have adapters of several scales .*h\.1\.attn\.c_attn"):
        save_adapter(model, tmp_path)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        load_adapter(fresh(), tmp_path)
    save_adapter(add_lora(fresh("bert", "sequence-classification"), 2), tmp_path / "one")
    for head, message in (
        ("none", "has no place for classifier.*; load it with head='sequence-classification'"),
        ("masked-lm", "has no place for classifier"),
    ):
        model = fresh("bert", head)
        with pytest.raises(ValueError, match=message):
            load_adapter(model, tmp_path / "one")
        assert all(p.requires_grad for p in model.parameters())
        assert not adapted(model)
    labels = minitx.from_config(CONFIGS["bert"] | {"num_labels": 7}, head="sequence-classification")
    with pytest.raises(ValueError, match=r"classifier.*has shape .*load the model with num_labels="):
        load_adapter(labels, tmp_path / "one")
    with pytest.raises(ValueError, match="has no such weights"):
        load_adapter(fresh("llama", "causal-lm"), tmp_path / "one")


def test_an_adapter_of_an_embedding_is_merged_only(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    base = written(tmp_path / "base", "causal-lm", CONFIGS["llama"])
    size, vocab = CONFIGS["llama"]["hidden_size"], CONFIGS["llama"]["vocab_size"]
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file(
        {name + "A": torch.ones(2, vocab), name + "B": torch.ones(size, 2)},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["embed_tokens"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"minitx merges the adapter of model\.embed_tokens\.weight only"):
        load_adapter(minitx.load(base), folder)
