"""Every architecture on another device than the CPU, without one (tests/fake_cuda.py).

Nothing may be left on the CPU, and decoding a token may not wait for the device.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
import transformers

import minitx
from minitx import Greedy
from minitx.architectures import architecture
from minitx.decoding.session import DecodingSession
from minitx.optimize import mixed_dtypes
from tests.fake_cuda import fake_cuda, on_cuda
from tests.parity.cases import CASES

FIRST = {case.model_type: case for case in reversed(CASES)}
PROMPTS = [[1, 5, 6, 7], [1, 4]]
DEPTHS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)


def small(model_type: str, task: str, **more: Any) -> Any:
    """A model of one layer, unless the layers are of several kinds, or `more` of the config tells."""
    config = transformers.AutoConfig.for_model(model_type, **FIRST[model_type].config).to_dict()
    if not {"layer_types", "attention_types", "encoder"} & config.keys():
        config |= {name: 1 for name in DEPTHS if name in config}
    config |= more
    return minitx.from_config(config, head=task, seed=0).eval()


def tasks(model_type: str) -> list[str]:
    heads = architecture(model_type).head_weights
    return [
        task for task in ("causal-lm", "seq2seq-lm", "masked-lm", "table-question-answering") if task in heads
    ]


@pytest.mark.parametrize("model_type", FIRST)
def test_forward_and_decoding(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks(model_type)[0]
    model, step = small(model_type, task), DecodingSession.step
    with fake_cuda() as waits, torch.no_grad():  # a backward needs a driver
        on_cuda(model)
        if task not in ("causal-lm", "seq2seq-lm"):
            ids = torch.full((2, 5), 7, dtype=torch.long, device="cuda")
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
            assert output.loss.device == output.logits.device == ids.device
            return

        def _step(self: Any, *args: Any, **options: Any) -> None:
            waits.on = True
            step(self, *args, **options)
            waits.on = False

        monkeypatch.setattr(DecodingSession, "step", _step)
        reading = import_module("minitx.decoding.loop")
        monkeypatch.setattr(reading, "read", lambda tensors: [[3] * len(tensor) for tensor in tensors])
        minitx.generate(model, PROMPTS, Greedy(), max_new_tokens=2)
    assert waits.places == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7], ids=["few", "many"])
@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_experts_at_once_are_those_one_by_one(model_type: str, tokens: int, dtype: torch.dtype) -> None:
    """What an accelerator computes for few tokens: by weights of each token, or by all experts."""
    model = small(model_type, "causal-lm").double()
    if dtype == torch.bfloat16:  # of several dtypes
        model.decoder.layers[0].intermediate.experts.bfloat16()
        mixed_dtypes(model)
    mixture = model.decoder.layers[0].intermediate
    hidden = torch.randn(1, tokens, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = mixture(hidden)
        mixed = mixture.mix_at_once(hidden.flatten(0, 1), *mixture.route(hidden)).view_as(hidden)
    assert mixed.dtype == expected.dtype
    share = 1e-12 if dtype == torch.float64 else 0.03
    assert (mixed - expected).abs().max() < share * expected.abs().max()
