"""GGUF files here and in transformers, which reads them by its own tables.

Only architectures whose files transformers reads whole: of others it leaves out keys, such as the caps of the
scores of Gemma 2 and the window of Phi-3.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM

import minitx
from tests.gguf_files import CONFIGS, write_gguf


def _tokens(writer: GGUFWriter) -> None:
    """Adds what transformers needs: a name, and tokens for the size of the vocabulary."""
    writer.add_name("tiny")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{index}" for index in range(96)])
    writer.add_token_scores([0.0] * 96)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "bloom"])
def test_logits_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    config = dict(CONFIGS[model_type])
    if model_type == "llama":  # transformers does not look for biases
        config |= {"attention_bias": False, "mlp_bias": False}
    model = minitx.from_config({"model_type": model_type, **config}, head="causal-lm", seed=0)
    minitx.save(model, tmp_path)
    path = tmp_path / "model.gguf"
    write_gguf(path, model_type, config, tmp_path, kind=Kind.Q8_0, more=_tokens)
    ids = torch.arange(40).view(2, 20) * 7 % 90
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf").eval()
    with torch.no_grad():
        expected, logits = reference(ids).logits, minitx.load(path)(ids).logits
    assert torch.allclose(logits, expected, rtol=0, atol=1e-5)
