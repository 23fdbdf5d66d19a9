"""Random models of every architecture, at the tiny sizes of the parity tests."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

import minitx
from minitx.architectures import architecture
from tests.parity.cases import CASES

FIRST = {case.model_type: case for case in reversed(CASES)}
TASKS = ("causal-lm", "seq2seq-lm", "masked-lm", "token-classification")
END = 2


def model_of(model_type: str, dtype: torch.dtype = torch.float64) -> tuple[Any, str]:
    """Returns a model on the CPU in eval mode with its task; every weight is random."""
    config = transformers.AutoConfig.for_model(model_type, **FIRST[model_type].config).to_dict()
    heads = architecture(model_type).head_weights
    task = next(task for task in TASKS if task in heads)
    model = minitx.from_config(config, head=task, seed=0).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + noise if "norm" in name and name.endswith("weight") else noise)
    return model, task


def inputs_of(task: str, device: torch.device) -> dict[str, Tensor]:
    """Returns a padded batch of ids, with labels; of an encoder-decoder also the target."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (3, 17), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids % 2 if task == TASKS[-1] else ids}
    if task == "seq2seq-lm":
        inputs["decoder_input_ids"] = ids.flip(1)
    return {name: tensor.to(device) for name, tensor in inputs.items()}
