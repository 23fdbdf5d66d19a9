"""Adapters written by PEFT: merged at load, they give what PEFT gives; saved, they are plain models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from tests.parity.cases import BY_NAME
from tests.parity.reference import reference_model

peft = pytest.importorskip("peft")
pytestmark = [  # of PEFT and the libraries under it
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]

LLAMA, GPT2, T5 = ("llama", "causal-lm"), ("gpt2", "causal-lm"), ("t5", "seq2seq-lm")
BERT, TOKENS = ("bert", "sequence-classification"), ("bert", "token-classification")
KINDS = {
    "causal-lm": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
}
ATTENTION = {"target_modules": ["q_proj", "v_proj"]}
CASES: list[tuple[tuple[str, str], dict[str, Any]]] = [
    (LLAMA, ATTENTION),
    (LLAMA, {"target_modules": "all-linear", "lora_alpha": 16, "use_rslora": True}),
    (LLAMA, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    (LLAMA, {"target_modules": r".*layers\.1\..*_proj", "rank_pattern": {"q_proj": 2}}),
    (LLAMA, {**ATTENTION, "alpha_pattern": {"layers.0.self_attn.v_proj": 3}}),
    (LLAMA, {**ATTENTION, "layers_to_transform": [1], "layers_pattern": "layers"}),
    (LLAMA, {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    (LLAMA, {"target_modules": ["embed_tokens", "q_proj"]}),
    (LLAMA, {**ATTENTION, "modules_to_save": ["lm_head", "norm"]}),
    (GPT2, {"target_modules": ["c_attn", "c_proj"]}),
    (GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "use_dora": True}),
    (("gpt-neox", "causal-lm"), {"target_modules": ["query_key_value"]}),
    (("mixtral", "causal-lm"), {"target_modules": ["q_proj", "o_proj"]}),
    (("phi3", "causal-lm"), {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    (T5, {"target_modules": ["q", "v", "wo"]}),
    (("bart", "seq2seq-lm"), {"target_modules": ["q_proj", "v_proj", "fc1"]}),
    (BERT, {"target_modules": ["query", "value"]}),
    (BERT, {"target_modules": ["query", "value"], "bias": "all"}),
    (BERT, {"target_modules": ["query", "value"], "bias": "lora_only"}),
    (BERT, {"target_modules": ["query", "value"], "lora_bias": True}),
    (BERT, {"target_modules": ["word_embeddings", "key"]}),
    (TOKENS, {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"]}),
    (("roberta", "sequence-classification"), {"target_modules": ["query"]}),
    (("distilbert", "sequence-classification"), {"target_modules": ["q_lin"]}),
]


def loaded(kind: Any, folder: Path) -> Any:
    """A model of transformers; its fused experts refuse sizes as small as these."""
    model = kind.from_pretrained(folder).eval()
    model.config._experts_implementation = "eager"
    return model


@pytest.mark.parametrize(("case", "options"), CASES, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_of_peft(
    tmp_path: Path, case: tuple[str, str], options: dict[str, Any], alone: bool
) -> None:
    name, task = case
    reference = reference_model(BY_NAME[name], task, torch.float32)
    reference.save_pretrained(tmp_path / "base")
    reference = loaded(type(reference), tmp_path / "base")
    adapted = peft.get_peft_model(reference, peft.LoraConfig(r=4, task_type=KINDS[task], **options)).eval()
    generator = torch.Generator().manual_seed(0)
    for path, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.mul_(1 + 0.1 * noise) if "magnitude" in path else parameter.data.copy_(0.1 * noise)
    folder = tmp_path / ("adapter" if alone else "base")
    adapted.save_pretrained(folder)

    ids = torch.arange(12).reshape(2, 6) % 90 + 4
    inputs = {"decoder_input_ids": ids[:, :4]} if task == "seq2seq-lm" else {}
    with torch.no_grad():
        expected: Tensor = adapted(input_ids=ids, **inputs).logits
    model = minitx.load(folder)
    torch.testing.assert_close(model(ids, **inputs).logits, expected, atol=2e-5, rtol=1e-4)

    minitx.save(model, tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("adapter*"))
    again = minitx.load(tmp_path / "plain")(ids, **inputs).logits
    torch.testing.assert_close(again, expected, atol=2e-5, rtol=1e-4)
    plain = loaded(type(reference), tmp_path / "plain")
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids, **inputs).logits, expected, atol=2e-5, rtol=1e-4)
