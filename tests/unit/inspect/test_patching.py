"""Patching grids, their estimate by gradients, and path patching equal single runs by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect import (
    Selection,
    attribution_patching,
    logit_difference,
    patch,
    patching_grid,
    path_patching,
    record,
)
from minitx.inspect.analysis.table import number
from tests.unit.inspect.small_models import IDS, OTHER, arguments, model_of, stack_name

FAMILIES = pytest.mark.parametrize("name", ["bert", "llama", "mistral", "t5", "bart", "albert", "mixtral"])
METRIC = logit_difference([7, 8], 9)


def difference(logits: Tensor) -> float:
    logits = logits.detach()
    return float((logits[0, -1, 7] + logits[1, -1, 8] - logits[:, -1, 9].sum()) / 2)


def run(name: str, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model_of(name)(**arguments(name, ids)).logits
    return logits


@FAMILIES
@pytest.mark.parametrize("by", ["position", "head", "place"])
def test_each_cell_is_a_run_with_that_part_patched(name: str, by: str) -> None:
    model = model_of(name)
    clean, corrupted = arguments(name, IDS), arguments(name, OTHER)
    stack = stack_name(model)
    pattern = f"{stack}.**.mixed" if by == "head" else f"{stack}.layers.*.residual.between"
    grid = patching_grid(model, clean, corrupted, METRIC, pattern, by=by, batch_size=3)  # type: ignore[arg-type]
    with record(model, pattern) as seen:
        run(name, IDS)
    assert grid.places == tuple(seen)
    assert grid.clean == pytest.approx(difference(run(name, IDS)), abs=1e-9)
    assert grid.corrupted == pytest.approx(difference(run(name, OTHER)), abs=1e-9)
    for row, place in enumerate(seen):
        for column in range(grid.values.shape[1]):
            part: dict[str, Any] = {"position": {"positions": [column]}, "head": {"heads": [column]}}.get(
                by, {}
            )
            with patch(model, place, seen, **part):
                expected = difference(run(name, OTHER))
            assert float(grid.values[row, column]) == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(grid.recovered, (grid.values - grid.corrupted) / (grid.clean - grid.corrupted))
    row_name, column_name, value = grid.top(1)[0]
    assert value == float(grid.recovered.max())
    assert row_name in grid.rows
    assert column_name in grid.columns


def test_the_default_is_the_residual_stream_by_position() -> None:
    """All of it at once is the clean run; one token, and a single row."""
    model = model_of("gpt2")
    grid = patching_grid(model, IDS, OTHER, METRIC)
    assert grid.axes == ("decoder.layers.*.residual.before", "position")
    assert grid.rows == ("0", "1")
    assert grid.columns == tuple(f"#{token}" for token in IDS[0].tolist())
    one = patching_grid(model, IDS[:1, :1], OTHER[:1, :1], lambda logits: logits[0, 0, 5])
    assert one.recovered.flatten().tolist() == pytest.approx([1.0, 1.0])


def test_padding_and_several_rows() -> None:
    """Rows of a padded batch are averaged, and each is as alone."""
    model = model_of("llama")
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    both = [{"input_ids": ids, "attention_mask": mask} for ids in (IDS, OTHER)]
    metric = logit_difference(7, 9)
    grid = patching_grid(model, *both, metric, "**.mixed", by="head")
    first = patching_grid(model, IDS[:1], OTHER[:1], metric, "**.mixed", by="head")
    second = patching_grid(model, IDS[1:, 2:], OTHER[1:, 2:], metric, "**.mixed", by="head")
    torch.testing.assert_close(grid.values, (first.values + second.values) / 2)


@FAMILIES
@pytest.mark.parametrize("by", ["position", "head", "place"])
def test_attribution_patching_is_the_slope_of_patching(name: str, by: str) -> None:
    """Moving the part by a millionth of the way changes the metric by a millionth of the estimate."""
    model = model_of(name)
    stack = stack_name(model)
    pattern = f"{stack}.**.mixed" if by == "head" else f"{stack}.layers.*.residual.before"
    clean, corrupted = arguments(name, IDS), arguments(name, OTHER)
    grid = attribution_patching(model, clean, corrupted, METRIC, pattern, by=by)  # type: ignore[arg-type]
    with record(model, pattern) as at_clean:
        run(name, IDS)
    with record(model, pattern) as at_corrupted:
        before = difference(run(name, OTHER))
    for row, place in enumerate(grid.places):
        moved = at_corrupted[place] + 1e-6 * (at_clean[place] - at_corrupted[place])
        for column in range(grid.values.shape[1]):
            part: dict[str, Any] = {"position": {"positions": [column]}, "head": {"heads": [column]}}.get(
                by, {}
            )
            with patch(model, place, moved, **part):
                slope = (difference(run(name, OTHER)) - before) / 1e-6
            assert float(grid.values[row, column]) - before == pytest.approx(slope, rel=1e-3, abs=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attribution_patching_is_exact_for_a_linear_end() -> None:
    """The logits themselves, with a linear metric."""
    model = model_of("gpt2")
    exact = patching_grid(model, IDS, OTHER, METRIC, "logits")
    estimate = attribution_patching(model, IDS, OTHER, METRIC, "logits")
    torch.testing.assert_close(exact.values, estimate.values)


def heads_by_hand(model: Any, layer: int, head: int) -> tuple[Tensor, Tensor, Tensor]:
    """Residual stream at the end of the corrupted run, and the change by one clean head."""
    end = f"decoder.layers.{len(model.decoder.layers) - 1}.residual.after"
    place = f"decoder.layers.{layer}.attention.self_attention.mixed"
    with record(model, place) as clean:
        model(IDS)
    with record(model, place, end, "decoder.layers.1.residual.before") as corrupted:
        model(OTHER)
    change = (clean[place] - corrupted[place])[:, head]  # (B, T, D)
    weight = model.decoder.layers[layer].attention.self_output.dense.weight[:, 8 * head : 8 * head + 8]
    return corrupted[end], corrupted["decoder.layers.1.residual.before"], change @ weight.T


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_direct_path_of_a_head_to_the_logits(name: str) -> None:
    """The corrupted residual stream plus the head's change, through norm and head."""
    model = model_of(name)
    grid = path_patching(model, IDS, OTHER, METRIC, "**.mixed", batch_size=3)
    for layer in range(2):
        for head in range(4):
            end, _, change = heads_by_hand(model, layer, head)
            logits = model.head(model.decoder.layer_norm(end + change), None, None)
            expected = difference(logits)
            assert float(grid.values[layer, head]) == pytest.approx(expected, abs=1e-9)
    with_networks = path_patching(model, IDS, OTHER, METRIC, "**.mixed", through_networks=True)
    assert not torch.allclose(grid.values, with_networks.values)
    networks = patching_grid(model, IDS, OTHER, METRIC, "**.mixed", by="head")
    torch.testing.assert_close(with_networks.values[1], networks.values[1])  # the last layer has one path


def test_the_path_of_a_head_to_the_queries_of_another() -> None:
    """A head of layer 0 to the queries of head 2 in layer 1, then everything after it."""
    model = model_of("gpt2")
    receiver = "decoder.layers.1.attention.self_attention.query"
    sender = "decoder.layers.0.attention.self_attention.mixed"
    receivers = {receiver: Selection(heads=[2])}
    grid = path_patching(model, IDS, OTHER, METRIC, sender, receivers)
    layer = model.decoder.layers[1]
    for head in range(4):
        _, before, change = heads_by_hand(model, 0, head)
        query = layer.attention.self_attention.Q(layer.attention_norm(before + change))
        query = query.view(2, 5, 4, 8).transpose(1, 2)
        with patch(model, receiver, query, heads=[2]):
            expected = difference(run("gpt2", OTHER))
        assert float(grid.values[0, head]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["bert", "bart", "mixtral", "gpt_neox"])
def test_path_patching_of_every_family(name: str) -> None:
    """A sender that is its own receiver has all its paths: the patching grid."""
    model = model_of(name)
    stack = stack_name(model)
    clean, corrupted = arguments(name, IDS), arguments(name, OTHER)
    sender = f"{stack}.layers.0.attention.self_attention.mixed"
    paths = path_patching(model, clean, corrupted, METRIC, sender, sender)
    plain = patching_grid(model, clean, corrupted, METRIC, sender, by="head")
    torch.testing.assert_close(paths.values, plain.values)


def test_a_network_as_sender_and_positions() -> None:
    model = model_of("gpt2")
    grid = path_patching(model, IDS, OTHER, METRIC, "decoder.layers.1.intermediate", by="position")
    plain = patching_grid(model, IDS, OTHER, METRIC, "decoder.layers.1.intermediate", by="position")
    torch.testing.assert_close(grid.values, plain.values)


def test_grids_print_in_80_columns() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    model = minitx.load("minitx/tiny-decoder", dtype="float32")
    metric = logit_difference("▁Mary", "▁John", tokenizer=tokenizer)
    sentences = [f"{name} went to the house. I spoke to" for name in ("Mary", "John")]
    grid = patching_grid(model, *sentences, metric, tokenizer=tokenizer)
    text = str(grid)
    assert max(map(len, text.splitlines())) <= 80
    assert "▁Mary" in text
    assert text.startswith("metric ")
    heads = patching_grid(model, *sentences, metric, "**.mixed", by="head", tokenizer=tokenizer)
    assert {(layer, head) for layer, head, _ in heads.top(2)} == {("4", "1"), ("5", "0")}


def test_mistakes() -> None:
    model = model_of("llama")
    seq2seq = model_of("t5")
    wrong: list[tuple[Any, str]] = [
        (
            lambda: patching_grid(model, IDS, OTHER[:, :3], METRIC),
            r"corrupted=.* must be inputs with input_ids of shape \(2, 5\)",
        ),
        (lambda: patching_grid(model, IDS, OTHER, 3), "metric=3 must be a function"),  # type: ignore[arg-type]
        (lambda: patching_grid(model, IDS, OTHER, lambda x: 3), "value of the metric=3 must be a tensor"),  # type: ignore[arg-type,return-value]
        (
            lambda: patching_grid(model, IDS, OTHER, lambda x: x),
            r"of the metric=.* must be floating-point, of",
        ),
        (lambda: patching_grid(model, IDS, OTHER, METRIC, "**.nothing"), "must be the name of a place"),
        (lambda: patching_grid(model, IDS, OTHER, METRIC, []), r"names=\(\) must be at least one name"),
        (lambda: patching_grid(model, IDS, OTHER, METRIC, by="row"), "by='row' must be one of"),  # type: ignore[arg-type]
        (
            lambda: patching_grid(model, IDS, OTHER, METRIC, by="head"),
            "must be places with a dimension of the",
        ),
        (lambda: patching_grid(model, IDS, OTHER, METRIC, batch_size=0), "batch_size=0 must be at least 1"),
        (
            lambda: patching_grid(
                seq2seq, arguments("t5", IDS), arguments("t5", OTHER), METRIC, "**.residual.before"
            ),
            "must be places with the same number of positions",
        ),
        (lambda: path_patching(model, IDS, OTHER, METRIC, "**.mixed", {"logits": [1]}), "Selection"),  # type: ignore[dict-item]
        (
            lambda: path_patching(model, IDS, OTHER, METRIC, "**.mixed", {"logits": Selection(rows=[0])}),
            "must be selections of all rows",
        ),
        (lambda: logit_difference(7)(torch.zeros(2, 3)), r"logits=.* must be of shape \(batch, time"),
    ]
    for call, message in wrong:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.254, "0.25"), (-0.001, "0.00"), (-12.345, "-12.35"), (123.45, "123.5"), (-54321.0, "-5.4e+04")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
