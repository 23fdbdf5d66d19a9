"""A tiny GPT with dropout, a text that repeats itself, and the causal objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import minitx
from minitx.models import Model
from minitx.training import Objective
from minitx.training.objectives.base import Batch, Example

TEXT = "the cat sat on the mat. "
CONFIG = {
    "model_type": "gpt2",
    "vocab_size": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_gpt(
    dropout: float = 0.1, dtype: torch.dtype = torch.float32, seed: int = 0, **options: Any
) -> Model:
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return minitx.from_config(CONFIG | rates | options, head="causal-lm", seed=seed, dtype=dtype)


class Texts:
    """Windows of the text, of different lengths; `act` is called before each is returned."""

    def __init__(self, size: int = 11, act: Callable[[int], Any] = lambda index: None) -> None:
        self.size, self.act, self.ids = size, act, [ord(char) % 64 for char in TEXT * 4]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        self.act(index)
        return {"input_ids": self.ids[index : index + 16 + index % 3]}


@dataclass(frozen=True)
class NextToken(Objective):
    """Pads on the right; with `noise` some inputs are replaced at random."""

    noise: float = 0.0

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        rows = [torch.tensor(example["input_ids"]) for example in examples]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        labels = ids.masked_fill(mask == 0, -100)
        replaced = torch.rand(ids.shape, generator=generator) < self.noise
        ids = torch.where(replaced, torch.randint(0, 64, ids.shape, generator=generator), ids)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name
