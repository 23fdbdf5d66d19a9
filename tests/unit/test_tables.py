"""Models of tables: positions, fresh weights, native checkpoints, and wrong inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.layers.tables import cell_positions

CONFIG: dict[str, Any] = {
    "model_type": "tapas",
    "vocab_size": 50,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 8,
    "type_vocab_sizes": [3, 5, 6, 2, 4, 4, 8],
    "num_aggregation_labels": 4,
    "pad_token_id": 0,
}
TASK = "table-question-answering"


def model(head: str = TASK, **more: Any) -> Any:
    return minitx.from_config({**CONFIG, **more}, head=head, seed=0).eval()


def types(time: int = 10) -> Tensor:
    """A question of three tokens, then cells of two tokens in two columns."""
    cell = (torch.arange(time) - 3).div(2, rounding_mode="floor")
    table = torch.stack([torch.ones_like(cell), 1 + cell % 2, 1 + cell.div(2, rounding_mode="floor")], dim=-1)
    table = torch.cat((table, torch.zeros(time, 4, dtype=torch.long)), dim=-1)
    return table.masked_fill((cell < 0)[:, None], 0)[None]


def test_positions_restart_in_each_cell() -> None:
    assert cell_positions(types(9), 5, 6).tolist() == [[0, 1, 2, 0, 1, 0, 1, 0, 1]]


def test_more_tokens_than_positions_share_the_last() -> None:
    tapas, ids = model("none"), torch.arange(1, 21)[None]
    assert tapas(ids, token_type_ids=types(20).clamp(max=1)).last_hidden_state.shape == (1, 20, 12)
    with pytest.raises(ValueError, match="positions for 8 tokens"):
        tapas(ids)  # without token types, all tokens are of the question
    with pytest.raises(ValueError, match="position"):
        model("none", reset_position_index_per_cell=False)(ids, token_type_ids=types(20).clamp(max=1))


def test_fresh_weights_of_the_selection_can_be_zero() -> None:
    zero = model(init_cell_selection_weights_to_zero=True)
    assert not zero.head.cells.weight.any()
    assert not zero.head.columns.weight.any()
    assert zero.head.aggregation.weight.any()
    assert model().head.cells.weight.any()


def test_a_native_checkpoint(tmp_path: Path) -> None:
    tapas = model()
    config = minitx.replace_in(tapas.config, "encoder", num_hidden_layers=1)
    changed = minitx.TableModel(config, tapas.head.config).eval()
    minitx.save(changed, tmp_path)
    again = minitx.load(tmp_path)
    assert isinstance(again, minitx.TableModel)
    assert again.config == config
    inputs = {"input_ids": torch.arange(1, 11)[None], "token_type_ids": types()}
    assert torch.equal(again(**inputs).logits, changed(**inputs).logits)


TARGETS = {
    "labels": torch.zeros(1, 10, dtype=torch.long),
    "aggregation_labels": torch.tensor([1]),
    "float_answer": torch.tensor([3.0]),
    "numeric_values": torch.ones(1, 10),
    "numeric_values_scale": torch.ones(1, 10),
}
ANSWERS = {"use_answer_as_supervision": True, "cell_selection_preference": 0.2, "huber_loss_delta": 0.1}
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"token_type_ids": torch.zeros(1, 10, dtype=torch.long)}, "token_type_ids=.* shape .1, 10, 7. like"),
    ({}, {"token_type_ids": torch.full((1, 10, 7), 2)}, r"token_type_ids\[..., 3\]=2 must be from 0 to 1"),
    ({}, {"token_type_ids": "text"}, "token_type_ids='text' must be a tensor"),
    ({}, {"labels": torch.zeros(1, 3)}, "labels=.* must be a tensor of shape .1, 10."),
    ({}, {"aggregation_labels": None}, "aggregation_labels=None must be a tensor"),
    ({}, {"aggregation_labels": torch.tensor([9])}, "must be from 0 to 3"),
    (ANSWERS, {"float_answer": None}, "float_answer=None must be a tensor"),
    (ANSWERS, {"numeric_values": torch.ones(1, 2)}, "numeric_values=.* must be a tensor of shape .1, 10."),
    ({**ANSWERS, "huber_loss_delta": None}, {}, "CellLoss.huber_loss_delta=None must be a number"),
    ({**ANSWERS, "cell_selection_preference": None}, {}, "cell_selection_preference=None must be a number"),
    ({**ANSWERS, "num_aggregation_labels": 3}, {}, "HeadConfig.num_labels=3 must be one of 4"),
    ({}, {"pixel_values": torch.zeros(1)}, "pixel_values"),
]


@pytest.mark.parametrize(("config", "inputs", "message"), WRONG)
def test_wrong_inputs(config: dict[str, Any], inputs: dict[str, Any], message: str) -> None:
    usual = {"input_ids": torch.arange(1, 11)[None], "token_type_ids": types(), **TARGETS}
    tapas = model(**config)
    if "float_answer" in config or "num_aggregation_labels" not in config:
        tapas(**usual) if None not in config.values() else None
    with pytest.raises((TypeError, ValueError), match=message):
        tapas(**{**usual, **inputs})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type_vocab_sizes", [3, 5, 6]),
        ("type_vocab_sizes", [3, 5, 6, 2, 4, 4, 0]),
        ("type_vocab_sizes", "text"),
        ("temperature", 0.0),
        ("average_approximation_function", "third_order"),
        ("num_aggregation_labels", -1),
        ("select_one_column", None),
    ],
)
def test_wrong_configs(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        model(**{key: value})


def test_positions_of_cells_need_their_kinds_of_types() -> None:
    inputs = model("none").config.inputs
    with pytest.raises(ValueError, match=r"type_vocab_size=.* must be a tuple of three or more"):
        minitx.replace_in(inputs, "", type_vocab_size=(3, 4))
    with pytest.raises(ValueError, match=r"type_vocab_size\[1\]=0 must be at least 1"):
        minitx.replace_in(inputs, "", type_vocab_size=(3, 0, 2))
