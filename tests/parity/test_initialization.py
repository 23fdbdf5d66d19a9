"""Fresh weights follow the rules of transformers: of every parameter the same distribution, exactly.

The random numbers differ, so each draw is replaced by its parameters: a tensor that is drawn with a standard
deviation holds that number everywhere, or in a second run the number where its distribution is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import minitx
from minitx.architectures import architecture
from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS

NOT_DRAWN = 77.0  # a weight that torch's own modules drew, and no rule of the architecture


@contextmanager
def draws(bounds: bool) -> Iterator[None]:
    """Lets every draw fill its tensor with its standard deviation, or with the bound of its distribution."""

    def normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_: Any) -> Tensor:
        assert mean == 0.0
        return tensor.fill_(0.0 if bounds else std)

    def truncated(
        tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, **_: Any
    ) -> Tensor:
        assert (mean, a) == (0.0, -b)
        with torch.no_grad():
            return tensor.fill_(b if bounds else std)

    def uniform(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        return tensor.fill_(NOT_DRAWN)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "normal_", normal)
        patch.setattr(torch.Tensor, "uniform_", uniform)
        patch.setattr(torch.nn.init, "trunc_normal_", truncated)
        patch.setitem(transformers.initialization.TORCH_INIT_FUNCTIONS, "trunc_normal_", truncated)
        yield


def with_range(config: Any, std: float = 0.03) -> Any:
    """Sets the standard deviation of a config, whatever its key, and that of its halves."""
    for key in ("initializer_range", "init_std", "initializer_factor"):
        if hasattr(config, key):
            setattr(config, key, std)
    for half in ("encoder", "decoder"):
        if hasattr(getattr(config, half, None), "model_type"):
            with_range(getattr(config, half), std)
    return config


def compare(folder: Path, name: str, task: str, bounds: bool, **options: Any) -> None:
    case = BY_NAME[name]
    if task == "question-answering":
        options["num_labels"] = 2
    config = with_range(transformers.AutoConfig.for_model(case.model_type, **{**case.config, **options}))
    config._experts_implementation = "eager"
    kind = getattr(transformers, architecture(case.model_type).class_name(case.model_type, task))
    with draws(bounds):
        kind(config).save_pretrained(folder)
        model = minitx.from_config(config.to_dict(), head=task, seed=0)
    expected = dict(minitx.load(folder, head=task).named_parameters())
    own = dict(model.named_parameters())
    assert own.keys() == expected.keys()
    for parameter, other in zip(own.values(), (expected[name] for name in own), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bounds", [False, True], ids=["deviations", "bounds"])
@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_every_parameter_has_the_distribution_of_transformers(
    tmp_path: Path, name: str, task: str, bounds: bool
) -> None:
    compare(tmp_path, name, task, bounds)


@pytest.mark.parametrize("bounds", [False, True], ids=["deviations", "bounds"])
@pytest.mark.parametrize(
    ("name", "task", "options"),
    [
        ("modernbert", "masked-lm", {"tie_word_embeddings": False}),
        ("modernbert", "sequence-classification", {"initializer_cutoff_factor": 2.5}),
        ("gpt2", "causal-lm", {"tie_word_embeddings": False}),
        ("llama", "causal-lm", {"tie_word_embeddings": True}),
        ("gemma", "causal-lm", {"tie_word_embeddings": False}),
        ("distilbert", "none", {"sinusoidal_pos_embds": True}),
        ("tapas", "table-question-answering", {"init_cell_selection_weights_to_zero": True}),
    ],
    ids=str,
)
def test_options(tmp_path: Path, name: str, task: str, options: dict[str, Any], bounds: bool) -> None:
    compare(tmp_path, name, task, bounds, **options)


@pytest.mark.parametrize("name", ["bert-bert", "bert-gpt2"])
def test_each_half_has_its_own_deviation(tmp_path: Path, name: str) -> None:
    case = BY_NAME[name]
    halves = {
        half: {**case.config[half], "initializer_range": std}
        for half, std in (("encoder", 0.05), ("decoder", 0.01))
    }
    config = transformers.AutoConfig.for_model(case.model_type, **{**case.config, **halves})
    with draws(bounds=False):
        transformers.EncoderDecoderModel(config).save_pretrained(tmp_path)
        model = minitx.from_config(config.to_dict(), head="seq2seq-lm", seed=0)
    assert {0.05, 0.01} <= {round(float(p.detach().max()), 6) for p in model.parameters()}
    for key, parameter in minitx.load(tmp_path).named_parameters():
        torch.testing.assert_close(model.get_parameter(key), parameter, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_numbers_follow_the_rules(dtype: torch.dtype) -> None:
    """Of ModernBERT in a size that tells them apart, in every dtype."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 8}
    config = {"model_type": "modernbert", "vocab_size": 4096, "pad_token_id": 0, **sizes}
    config["max_position_embeddings"] = 64
    model = minitx.from_config(config, head="token-classification", dtype=dtype, seed=0)
    layer = model.encoder.layers[5]
    stds = {
        layer.attention.self_attention.Q: 0.02,
        layer.intermediate.gate: 0.02,
        layer.attention.self_output.dense: 0.02 / 4,
        layer.output.dense: 0.02 / 4,
        model.embedder.word_emb: 0.02,
    }
    for module, std in stds.items():
        weight = module.weight.detach().float()
        assert weight.mean().abs() < 0.05 * std
        # a normal distribution that is cut off at twice its deviation has 0.88 of it
        assert float(weight.std()) == pytest.approx(0.8796 * std, rel=0.03)
        assert 1.9 * std < weight.abs().max() <= 2.01 * std


def test_a_new_head_follows_the_rules(tmp_path: Path) -> None:
    config = {"model_type": "t5", "vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4}
    minitx.save(minitx.from_config(config | {"num_layers": 1}, head="seq2seq-lm", seed=0), tmp_path)
    model = minitx.load(tmp_path, head="sequence-classification", init_head=True, num_labels=90, seed=0)
    for part in (model.head.dense, model.head.projection):
        assert float(part.weight.detach().std()) == pytest.approx(64**-0.5, rel=0.05)
        assert not part.bias.any()
