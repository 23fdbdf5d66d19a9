"""A run that trains adapters: its checkpoints hold them, and it resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import minitx
from minitx.models import Model
from minitx.training import TrainConfig, add_lora, load_adapter, train
from tests.unit.training.tiny import NextToken, Texts, tiny_gpt


def adapted(folder: Path, targets: list[str]) -> Model:
    if not folder.exists():
        minitx.save(tiny_gpt(), folder)
    return add_lora(minitx.load(folder), 4, targets=targets, dropout=0.1, seed=0)


@pytest.mark.parametrize("targets", [["Q", "V"], ["c_attn"]], ids=str)
def test_a_run_trains_adapters_alone_and_resumes(tmp_path: Path, targets: list[str]) -> None:
    config = TrainConfig(steps=6, batch_size=2, learning_rate=0.01, save_every=3, keep=2)
    model = adapted(tmp_path / "base", targets)
    train(model, Texts(), NextToken(), config, folder=tmp_path / "whole")
    base = minitx.load(tmp_path / "base").state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())

    again = adapted(tmp_path / "base", targets)
    stopped = tmp_path / "whole" / "checkpoints" / "step-000006"
    assert (stopped / "adapter_model.safetensors").exists()
    assert not (stopped / "model.safetensors").exists()
    for path in sorted(stopped.iterdir()):
        path.unlink()
    stopped.rmdir()  # the run ends after step 3, and continues
    train(again, Texts(), NextToken(), config, folder=tmp_path / "whole", resume=True)
    assert all(torch.equal(x, state[name]) for name, x in again.state_dict().items())

    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = model(ids).logits
        merged = minitx.load(tmp_path / "whole" / "model")(ids).logits
        loaded = load_adapter(minitx.load(tmp_path / "base"), tmp_path / "whole" / "model")(ids).logits
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loaded, expected, atol=1e-6, rtol=1e-5)
