"""Design, section 7, points 1 and 2: every layer, pooled output and logits; every length; every padding."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect.compare.reference import Wide
from minitx.models import Model
from tests.parity.cases import BY_NAME
from tests.parity.reference import (
    CASES_AND_HEADS,
    hidden_states,
    logits_at_real,
    only_real,
    padded,
    pair,
    real_tokens,
    states_of,
    text,
)


def compare(reference: Any, model: Any, inputs: dict[str, Tensor]) -> float:
    """The largest difference of any hidden state, pooled output or logit, at real tokens."""
    return difference(output_of(reference, inputs), model, inputs)


def output_of(reference: Any, inputs: dict[str, Tensor]) -> Any:
    with torch.inference_mode(), Wide():
        return reference(**inputs, output_hidden_states=True)


def difference(expected: Any, model: Any, inputs: dict[str, Tensor]) -> float:
    """The largest difference from an output of the reference."""
    with torch.inference_mode():
        states, output = hidden_states(model, inputs)
    theirs = states_of(expected)
    pairs = [*zip(only_real(theirs, inputs), only_real(states, inputs), strict=True)]
    if getattr(expected, "pooler_output", None) is not None:
        pairs.append((expected.pooler_output, output.pooler_output))
    found = zip(logits_at_real(expected, theirs, inputs), logits_at_real(output, states, inputs), strict=True)
    for a, b in found:
        assert a.shape == b.shape
        pairs.append((a, b))
    assert all(torch.isfinite(b).all() for _, b in pairs)
    # float32 has seven digits: of numbers above 1 the limits count digits, not decimals
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1)).item() for a, b in pairs)


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_layer_and_output(name: str, task: str, dtype: torch.dtype, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, task, dtype, root)
    limit = case.float64 if dtype == torch.float64 else case.float32
    lengths = sorted({1, 2, 9, 33, *case.lengths})  # dynamic reference positions remember the longest
    for length in lengths:
        plain = text(case, 3, length, task, seed=length)
        if task == "multiple-choice" and case.config.get("classifier_pooling") == "mean":
            # without a mask the reference fails here (attention_mask.sum of None)
            plain["attention_mask"] = torch.ones_like(plain["input_ids"])
        variants = [plain]
        if length > 1:
            variants += [padded(case, plain, "right"), padded(case, plain, "left")]
        for inputs in variants:
            expected = output_of(reference, inputs)
            for backend in ("sdpa", "eager"):
                apart = difference(expected, model.set_attention(backend), inputs)
                assert apart <= limit, (length, backend, "attention_mask" in inputs, apart)


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_bfloat16_is_no_further_from_float32_than_the_reference(name: str, task: str, root: Path) -> None:
    case = BY_NAME[name]
    exact, _ = pair(name, task, torch.float32, root)
    inputs = padded(case, text(case, 4, 33, task), "right")
    expected = everything(exact, inputs)
    reference = copy.deepcopy(exact).bfloat16()
    reference.save_pretrained(root / "bfloat16")
    model = minitx.load(root / "bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    for backend in ("sdpa", "eager"):
        if case.reference == "sdpa":  # else it has the one only
            reference.set_attn_implementation(backend)
        theirs = rms(everything(reference, inputs), expected)
        ours = rms(everything(model.set_attention(backend), inputs), expected)
        # Equal roundings give 1; another order of the same sums moves the ratio either way by a few
        # per cent at these sizes, an operation left in bfloat16 that the reference does in float32 by more.
        assert ours <= case.bfloat16 * theirs, (backend, ours / theirs)


def everything(model: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
    """All hidden states and logits at real tokens, as float32."""
    with torch.inference_mode():
        if isinstance(model, Model):
            states, output = hidden_states(model, inputs)
        else:
            output = model(**inputs, output_hidden_states=True)
            states = states_of(output)
    return [x.float() for x in (*only_real(states, inputs), *logits_at_real(output, states, inputs))]


def rms(found: list[Tensor], expected: list[Tensor]) -> float:
    return (
        torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)])
        .square()
        .mean()
        .sqrt()
        .item()
    )


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_row_equals_the_row_alone(name: str, side: str, root: Path) -> None:
    case = BY_NAME[name]
    _, model = pair(name, case.tasks[0], torch.float64, root)
    inputs = padded(case, text(case, 4, 33, case.tasks[0]), side)
    # The reference counts plain positions from the padding too; told where the text begins, it does not.
    mask = inputs["attention_mask"]
    if model.config.inputs.numbering == "cell":
        inputs["position_ids"] = torch.zeros_like(mask)
        for row, real in enumerate(mask.bool()):
            inputs["position_ids"][row, real] = model.embedder.cell_positions(
                inputs["token_type_ids"][row, real][None]
            )[0]
    if model.config.inputs.numbering == "sequence":
        for kind in ("", "decoder_") if "decoder_input_ids" in inputs else ("",):
            inputs[f"{kind}position_ids"] = (inputs[f"{kind}attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        together = model(**inputs).last_hidden_state
        for row in range(len(mask)):
            real = {kind: real_tokens(inputs, kind)[row] for kind in ("", "decoder_")}
            alone = {
                key: value[row][real["decoder_" if key.startswith("decoder_") else ""]][None]
                for key, value in inputs.items()
                if "position_ids" not in key
            }
            states = together[row][real["decoder_" if "decoder_input_ids" in inputs else ""]]
            apart = (model(**alone).last_hidden_state[0] - states).abs().max().item()
            assert apart <= 1e-9, (row, apart)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_row_of_nothing_but_padding_is_finite_and_disturbs_no_other(name: str, root: Path) -> None:
    case = BY_NAME[name]
    _, model = pair(name, case.tasks[0], torch.float32, root)
    inputs = text(case, 3, 9, case.tasks[0])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][1] = 0
    for backend in ("sdpa", "eager"):
        with torch.inference_mode():
            output = model.set_attention(backend)(**inputs).last_hidden_state
            others = {key: value[[0, 2]] for key, value in inputs.items()}
            expected = model(**others).last_hidden_state
        assert torch.isfinite(output).all()
        assert torch.allclose(output[[0, 2]], expected, atol=1e-5)


@pytest.mark.parametrize("local", [77.0, None])
def test_both_dialects_of_one_config(local: float | None, root: Path, tmp_path: Path) -> None:
    """Older files give three numbers where newer ones list every layer and its rotary base."""
    case = BY_NAME["modernbert"]
    reference, _ = pair("modernbert", "none", torch.float64, root)
    reference.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_types"], config["rope_parameters"]
    config |= {"global_attn_every_n_layers": 2, "global_rope_theta": 555.0, "local_rope_theta": local}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if local is None:  # which the reference can no longer read; its meaning there was: as the global ones
        config["local_rope_theta"] = 555.0
    old = type(reference.config).from_dict(config)
    assert old.layer_types == ["full_attention", "sliding_attention"] * 2
    theirs = type(reference).from_pretrained(tmp_path, config=old, dtype=torch.float64).eval()
    ours = minitx.load(tmp_path)
    assert compare(theirs, ours, padded(case, text(case, 3, 33), "right")) <= case.float64
    assert compare(reference, ours, padded(case, text(case, 3, 33), "right")) > 1e-3
