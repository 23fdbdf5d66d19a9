"""Adapters that are trained: outputs and gradients of PEFT from the same files, both ways, in float64."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect.compare.reference import Wide
from minitx.models import Model
from minitx.training.lora import LoraLinear, add_lora, load_adapter, merge_lora, save_adapter
from tests.parity.cases import BY_NAME
from tests.parity.reference import reference_model
from tests.parity.test_lora import BERT, GPT2, KINDS, LLAMA, T5, TOKENS, scores

pytestmark = [  # of PEFT and the libraries under it
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]

KIND = [{}, {"use_dora": True}, {"use_rslora": True}, {"use_dora": True, "use_rslora": True}]
MASKED, NEOX, PHI3 = ("bert", "masked-lm"), ("gpt-neox", "causal-lm"), ("phi3", "causal-lm")
BLOOM, MODERNBERT = ("bloom", "causal-lm"), ("modernbert", "masked-lm")
ROBERTA, DISTILBERT = ("roberta", "sequence-classification"), ("distilbert", "sequence-classification")
# Targets by PEFT's names, and by minitx's of the same projections.
TARGETS: dict[tuple[str, str], tuple[list[str], Any]] = {
    BERT: (["query", "value"], ("Q", "V")),
    MASKED: (["query", "key", "value", "attention.output.dense", "intermediate.dense"], "all-linear"),
    GPT2: (["c_attn", "c_proj", "c_fc"], "all-linear"),
    LLAMA: (["q_proj", "v_proj", "down_proj"], ("Q", "V", "output.dense")),
    T5: (["q", "v", "wo"], ("Q", "V", "output.dense")),
}


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, float(b.detach().abs().max())))


def base_model(folder: Path, case: tuple[str, str]) -> tuple[Any, Model]:
    """A random model of transformers in float64, saved, and minitx's of the same files."""
    name, task = case
    reference = reference_model(BY_NAME[name], task)
    reference.save_pretrained(folder)
    # `from_pretrained` rather than the model itself: PEFT reads the place of the files from it
    reference = type(reference).from_pretrained(folder, dtype=torch.float64).eval()
    reference.config._experts_implementation = "eager"
    return reference, minitx.load(folder, head=task)


def noisy(model: Any, std: float = 0.1) -> Any:
    """Adapters that have been trained: no B is 0, no magnitude that of its weights."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.add_(std * noise)
    return model


def outputs(model: Any, task: str, wide: bool = False) -> Tensor:
    ids = torch.arange(12).reshape(2, 6) % 90 + 4
    inputs = {"decoder_input_ids": ids[:, :4]} if task == "seq2seq-lm" else {}
    context: AbstractContextManager[Any] = Wide() if wide else nullcontext()
    with context:
        return scores(model(input_ids=ids, **inputs))


def backward(logits: Tensor) -> None:
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (logits * weights).sum().backward()


def stored_gradients(model: Model, folder: Path) -> dict[str, Tensor]:
    """The gradients under PEFT's names: a copy of the model with gradients for adapters is saved."""
    twin = copy.deepcopy(model)
    own = dict(model.named_parameters())
    for name, parameter in twin.named_parameters():
        if parameter.requires_grad and "lora_" in name:
            gradient = own[name].grad
            assert gradient is not None, name
            parameter.data.copy_(gradient)
    save_adapter(twin, folder)
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("options", KIND, ids=str)
@pytest.mark.parametrize("case", TARGETS, ids=str)
def test_an_adapter_of_peft_trains_as_there(
    tmp_path: Path, case: tuple[str, str], options: dict[str, Any]
) -> None:
    reference, model = base_model(tmp_path / "base", case)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=TARGETS[case][0], task_type=KINDS.get(case[1]), **options
    )
    adapted = noisy(peft.get_peft_model(reference, config)).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    load_adapter(model, tmp_path / "adapter").eval()

    expected = outputs(adapted, case[1], wide=True)
    logits = outputs(model, case[1])
    close(logits, expected)
    with Wide():
        backward(expected)
    backward(logits)
    gradients = stored_gradients(model, tmp_path / "gradients")
    trained = {n.replace(".default", ""): p.grad for n, p in adapted.named_parameters() if "lora_" in n}
    trained = {
        name.removesuffix("_vector.weight") + "_vector" if "magnitude" in name else name: gradient
        for name, gradient in trained.items()
    }
    assert trained.keys() <= gradients.keys()
    for name, gradient in trained.items():
        close(gradients[name].view(gradient.shape), gradient)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    heads = {n for n, _ in model.named_parameters() if n.startswith("head.")} if case == BERT else set()
    assert {n for n, _ in model.named_parameters() if "lora_" not in n} - heads == frozen
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


CASES = [*TARGETS, ("gpt2", "causal-lm", "QV"), NEOX, PHI3, BLOOM, MODERNBERT, TOKENS, ROBERTA, DISTILBERT]


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True}], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_adapter_of_minitx_in_peft(tmp_path: Path, case: Any, options: dict[str, Any]) -> None:
    """Q, K and V have matrices A of their own, also where PEFT's model has one module for all three."""
    targets = ("Q", "V") if len(case) > 2 else TARGETS.get(case, ((), "all-linear"))[1]
    case = case[:2]
    reference, model = base_model(tmp_path / "base", case)
    add_lora(model, 4, 6, targets=targets, seed=0, **options)
    before = outputs(minitx.load(tmp_path / "base", head=case[1]).eval(), case[1])
    close(outputs(model.eval(), case[1]), before)
    noisy(model)
    if model.head is not None:
        for parameter in model.head.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.1)
    save_adapter(model, tmp_path / "adapter")
    logits = outputs(model, case[1])
    assert not torch.allclose(logits, before)

    adapted = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()
    close(logits, outputs(adapted, case[1], wide=True))
    close(outputs(minitx.load(tmp_path / "adapter").eval(), case[1]), logits)
    again = load_adapter(minitx.load(tmp_path / "base", head=case[1]), tmp_path / "adapter").eval()
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert again.lora.trained == model.lora.trained
    close(outputs(merge_lora(copy.deepcopy(model)), case[1]), logits)

    adapted.save_pretrained(tmp_path / "back")  # through PEFT and back
    back = load_adapter(minitx.load(tmp_path / "base", head=case[1]), tmp_path / "back").eval()
    close(outputs(back, case[1]), logits)


@pytest.mark.parametrize("bias", ["lora_only", "all"])
@pytest.mark.parametrize("case", [BERT, GPT2], ids=str)
def test_trained_biases(tmp_path: Path, case: tuple[str, str], bias: str) -> None:
    reference, model = base_model(tmp_path / "base", case)
    noisy(add_lora(model, 2, targets=("Q", "V"), bias=bias, seed=0)).eval()
    biases = {n: p for n, p in model.named_parameters() if n.endswith("bias") and not n.startswith("head.")}
    for name, parameter in biases.items():
        adapted = any(f".{part}.bias" in name for part in "QKV")
        only = name.endswith((".Q.bias", ".V.bias")) if case == BERT else adapted  # c_attn's is one tensor
        assert parameter.requires_grad == (bias == "all" or only), name
        if parameter.requires_grad:
            parameter.data.add_(0.3)
    save_adapter(model, tmp_path / "adapter")
    expected = outputs(peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval(), case[1])
    close(outputs(model, case[1]), expected)
    close(outputs(minitx.load(tmp_path / "adapter"), case[1]), expected)
    again = load_adapter(minitx.load(tmp_path / "base", head=case[1]), tmp_path / "adapter").eval()
    close(outputs(again, case[1]), expected)
    assert again.lora.trained == model.lora.trained


def test_names_of_transformers_share_a(tmp_path: Path) -> None:
    """As in PEFT, whose c_attn has one A: the same number of trained parameters, and the same file."""
    reference, model = base_model(tmp_path / "base", GPT2)
    add_lora(model, 4, targets=["c_attn"], seed=0)
    adapted = peft.get_peft_model(reference, peft.LoraConfig(r=4, target_modules=["c_attn"]))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert model.num_parameters(trainable=True) == trained
    attention = model.decoder.layers[0].attention.self_attention
    assert attention.Q.lora_A is attention.K.lora_A is attention.V.lora_A
    moved = copy.deepcopy(model).to(torch.float32).decoder.layers[0].attention.self_attention
    assert isinstance(moved.Q, LoraLinear)
    assert moved.Q.lora_A is moved.V.lora_A


def test_ranks_by_pattern(tmp_path: Path) -> None:
    reference, model = base_model(tmp_path / "base", LLAMA)
    options = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.self_attn.v_proj": 3}}
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options)
    adapted = noisy(peft.get_peft_model(reference, config)).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    expected = outputs(adapted, "causal-lm", wide=True)
    load_adapter(model, tmp_path / "adapter").eval()
    close(outputs(model, "causal-lm"), expected)
    save_adapter(model, tmp_path / "again")
    close(outputs(minitx.load(tmp_path / "again"), "causal-lm"), expected)


@pytest.mark.parametrize("dora", [False, True])
def test_an_embedding_trained_whole(tmp_path: Path, dora: bool) -> None:
    """It takes no adapter; with `modules_to_save` its file is PEFT's, both ways."""
    reference, model = base_model(tmp_path / "base", LLAMA)
    with pytest.raises(
        ValueError, match=r"targets=\['embed_tokens'\] must be .*; embeddings, norms and experts"
    ):
        add_lora(model, targets=["embed_tokens"])
    noisy(add_lora(model, 4, modules_to_save=["embed_tokens"], dora=dora, seed=0)).eval()
    assert model.embedder.word_emb.weight.requires_grad
    model.embedder.word_emb.weight.data.mul_(1.5)
    save_adapter(model, tmp_path / "adapter")
    logits = outputs(model, LLAMA[1])
    adapted = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()
    close(logits, outputs(adapted, LLAMA[1], wide=True))
    adapted.save_pretrained(tmp_path / "back")
    for folder in ("adapter", "back"):
        close(outputs(minitx.load(tmp_path / folder).eval(), LLAMA[1]), logits)
        again = load_adapter(minitx.load(tmp_path / "base", head=LLAMA[1]), tmp_path / folder).eval()
        close(outputs(again, LLAMA[1]), logits)
        assert again.embedder.word_emb.weight.requires_grad


@pytest.mark.parametrize("experts", ["experts", "w1", "output"])
def test_experts_take_no_adapter(experts: str) -> None:
    config = {"model_type": "mixtral", "vocab_size": 32, "hidden_size": 8, "intermediate_size": 8}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config |= {"num_local_experts": 2, "max_position_embeddings": 16}
    with pytest.raises(ValueError, match="experts take no adapter; modules_to_save trains them whole"):
        add_lora(minitx.from_config(config, head="causal-lm", seed=0), targets=[experts])
