"""Weight-decay groups, Muon's matrices, and gradients of a sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Muon

import minitx
from minitx.training import TrainConfig, make_optimizers
from minitx.training.optimizer import hidden_matrices, scale_gradients, trainable_parameters
from tests.unit.training.tiny import tiny_gpt

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
T5 = {
    "model_type": "t5",
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


def build(name: str) -> nn.Module:
    if name == "gpt2":
        return tiny_gpt()
    config, head = {"llama": (LLAMA, "causal-lm"), "t5": (T5, "seq2seq-lm")}[name]
    return minitx.from_config(config, head=head, seed=0)


def groups_of(model: nn.Module, **options: Any) -> dict[float, set[str]]:
    """The names of the parameters by their weight decay."""
    (optimizer,) = make_optimizers(model, TrainConfig(steps=1, weight_decay=0.1, **options))
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in optimizer.param_groups
    }


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    model = build(name)
    groups = groups_of(model)
    kept = {n for n in trainable_parameters(model) if n.endswith("bias") or "norm" in n}
    assert groups[0.0] == kept
    assert groups[0.1] == trainable_parameters(model).keys() - kept
    without = groups_of(model, decay_embeddings=False)
    embeddings = without[0.0] - kept
    assert "embedder.word_emb.weight" in embeddings
    assert all("emb" in n or "relative_bias" in n for n in embeddings)
    assert ("head.projection.weight" in without[0.1]) == (name == "llama")  # elsewhere tied
    assert without[0.1] == groups[0.1] - embeddings


def test_they_are_those_of_the_reference() -> None:
    """transformers' Trainer: all but norms and biases."""
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.trainer_pt_utils import get_parameter_names

    reference = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA))
    theirs = get_parameter_names(reference, [nn.LayerNorm], [r"bias", r"layernorm", r"rmsnorm", r"norm\."])
    sizes = {p.numel() for n, p in reference.named_parameters() if n in theirs}
    groups = groups_of(build("llama"))
    ours = {p.numel() for n, p in build("llama").named_parameters() if n in groups[0.1]}
    assert (len(groups[0.1]), ours) == (len(theirs), sizes)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_muon_takes_the_matrices_of_the_layers(name: str) -> None:
    model = build(name)
    muon, adamw = make_optimizers(model, TrainConfig(steps=1, optimizer="muon"))
    assert isinstance(muon, Muon)
    assert isinstance(adamw, AdamW)
    matrices = hidden_matrices(model)
    assert all(".layers." in n and p.dim() == 2 for n, p in matrices.items())
    assert len(matrices) >= 12
    counts = [sum(len(group["params"]) for group in o.param_groups) for o in (muon, adamw)]
    assert counts == [len(matrices), len(trainable_parameters(model)) - len(matrices)]


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_gpt()
    model.get_submodule("embedder").requires_grad_(False)
    groups = groups_of(model)
    assert not any(name.startswith("embedder") for names in groups.values() for name in names)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e9, float("inf")])
def test_gradients_of_a_sum(max_norm: float) -> None:
    """As of the mean, clipped by torch."""
    ours = {str(i): nn.Parameter(torch.randn(3, i + 1, dtype=torch.float64)) for i in range(3)}
    theirs = {name: nn.Parameter(p.detach().clone()) for name, p in ours.items()}
    unused = {"unused": nn.Parameter(torch.ones(2))}
    for name, p in ours.items():
        p.grad = torch.randn_like(p)
        theirs[name].grad = p.grad / 7
    norm = scale_gradients(ours | unused, 7, max_norm)
    expected = nn.utils.clip_grad_norm_(theirs.values(), max_norm or float("inf"))
    assert norm == pytest.approx(expected.item(), rel=1e-12)
    for name, p in ours.items():
        assert torch.allclose(p.grad, theirs[name].grad, rtol=1e-12, atol=0)
