"""Configurations drawn at random find what chosen ones hide."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minitx
from minitx.architectures import REGISTRY, architecture
from tests.parity.cases import BY_NAME, Case
from tests.parity.reference import padded, reference_model, text
from tests.parity.test_forward import compare

CHEAP = settings(max_examples=20, suppress_health_check=list(HealthCheck))


@st.composite
def random_case(draw: st.DrawFn, model_type: str) -> tuple[Case, str]:
    base = next(case for case in BY_NAME.values() if case.model_type == model_type)
    heads = draw(st.sampled_from([1, 2, 3, 5, 7]))
    width = heads * draw(st.sampled_from([2, 4, 6, 10]))
    layers = draw(st.integers(1, 4))
    names = ("dim", "n_heads", "n_layers", "hidden_dim", "activation")
    if model_type != "distilbert":
        names = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "hidden_act")
    if model_type == "modernbert":
        names = (*names[:4], "hidden_activation")
    acts = [
        "gelu",
        "gelu_new",
        "relu",
        "silu",
        "quick_gelu",
        "tanh",
        "gelu_pytorch_tanh",
        "mish",
        "gelu_fast",
    ]
    values = (width, heads, layers, draw(st.integers(1, 50)), draw(st.sampled_from(acts)))
    more: dict[str, Any] = dict(zip(names, values, strict=True))
    more["tie_word_embeddings"] = draw(st.booleans())
    more["num_labels"] = draw(st.integers(1, 6))
    if model_type not in ("distilbert", "modernbert"):
        more["layer_norm_eps"] = draw(st.sampled_from([1e-12, 1e-7, 1e-3]))
    if model_type in ("electra", "albert"):
        more["embedding_size"] = draw(st.integers(1, 30))
    if model_type == "albert":
        more["num_hidden_groups"] = draw(st.integers(1, layers))
        more["inner_group_num"] = draw(st.integers(1, 3))
    if model_type == "modernbert":
        for bias in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"):
            more[bias] = draw(st.booleans())
        more["local_attention"] = draw(st.integers(1, 40))
        kinds = st.sampled_from(["full_attention", "sliding_attention"])
        more["layer_types"] = draw(st.lists(kinds, min_size=layers, max_size=layers))
        more["classifier_pooling"] = draw(st.sampled_from(["cls", "mean"]))
    if model_type == "deberta-v2":
        more["relative_attention"] = draw(st.booleans())
        more["share_att_key"] = draw(st.booleans())
        more["position_buckets"] = draw(st.sampled_from([-1, 4, 6, 16]))
        more["max_relative_positions"] = draw(st.sampled_from([-1, 20, 60]))
        more["pos_att_type"] = draw(st.sampled_from(["c2p", "p2c", "p2c|c2p", None, ["c2p", "p2c"]]))
        more["norm_rel_ebd"] = draw(st.sampled_from(["none", "layer_norm"]))
        more["conv_kernel_size"] = draw(st.sampled_from([0, 3, 5]))
        more["position_biased_input"] = draw(st.booleans())
        more["type_vocab_size"] = draw(st.sampled_from([0, 2]))
        more["legacy"] = draw(st.booleans())
        if draw(st.booleans()):
            more["embedding_size"] = draw(st.integers(1, 30))
            more["legacy"] = True  # the other head reads hidden_size from the embedding
    config = {**base.config, **more}
    task = draw(st.sampled_from(["none", *architecture(model_type).head_weights]))
    return Case("random", model_type, config, float64=base.float64, reference=base.reference), task


@pytest.mark.parametrize("model_type", REGISTRY)
def test_random_configurations(model_type: str) -> None:
    @CHEAP
    @given(random_case(model_type), st.integers(2, 40), st.sampled_from(["", "left", "right"]))
    def run(drawn: tuple[Case, str], length: int, side: str) -> None:
        case, task = drawn
        reference = reference_model(case, task)
        with tempfile.TemporaryDirectory() as folder:
            reference.save_pretrained(folder)
            model = minitx.load(Path(folder), strict=True)
            inputs = text(case, 3, length, 2 if task == "multiple-choice" else 0)
            if side:
                inputs = padded(case, inputs, side)
            else:
                inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            difference = compare(reference, model, inputs)
        # wider layers, and more of them, than in the chosen cases sum up more rounding
        assert difference <= 10 * case.float64, (task, case.config)

    run()
