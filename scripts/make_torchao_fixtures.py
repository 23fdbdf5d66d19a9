#!/usr/bin/env python
"""Write tests/parity/fixtures/torchao: a tiny Llama that torchao quantised in several ways.

Run it in a separate environment:

    python -m venv ao && ao/bin/pip install torchao==0.18.0 transformers==5.23.0
    ao/bin/python scripts/make_torchao_fixtures.py

Each folder is written by transformers; dequantized.safetensors beside the weights has what torchao's own
`dequantize()` returns for each quantised weight.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
)
from torchao.quantization.granularity import PerGroup, PerTensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

FOLDER = Path(__file__).parents[1] / "tests" / "parity" / "fixtures" / "torchao"
CONFIG = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
WAYS = {
    "int8": (Int8WeightOnlyConfig(version=2), torch.bfloat16),
    "int8-tensor": (Int8WeightOnlyConfig(version=2, granularity=PerTensor()), torch.float32),
    "int8-dynamic": (Int8DynamicActivationInt8WeightConfig(), torch.float32),
    "int4": (IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(16)), torch.bfloat16),
    "int2": (
        IntxWeightOnlyConfig(torch.int2, granularity=PerGroup(16), mapping_type=MappingType.ASYMMETRIC),
        torch.float32,
    ),
    "float8": (Float8WeightOnlyConfig(), torch.bfloat16),
}


def main() -> None:
    """Write all folders."""
    torch.manual_seed(0)
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tempfile.TemporaryDirectory() as base:
        model = LlamaForCausalLM(LlamaConfig(**CONFIG))
        model.save_pretrained(base)
        for name, (way, dtype) in WAYS.items():
            quantized = AutoModelForCausalLM.from_pretrained(
                base, quantization_config=TorchAoConfig(way), dtype=dtype
            )
            quantized.save_pretrained(FOLDER / name)
            (FOLDER / name / "generation_config.json").unlink(missing_ok=True)
            if name == "float8":  # minitx refuses it
                continue
            weights = {
                key: parameter.dequantize().contiguous()
                for key, parameter in quantized.state_dict().items()
                if hasattr(parameter, "qdata")
            }
            save_file(weights, FOLDER / name / "dequantized.safetensors")


if __name__ == "__main__":
    main()
