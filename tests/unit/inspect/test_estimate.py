"""Estimates: numbers, bytes, cache and operations are exact; peak memory follows its formula.

benchmarks/estimate.py compares the peak with the memory of processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import minitx
import minitx.training
from minitx.inspect import estimate, summarize, trace
from minitx.inspect.estimate.memory import LiveBytes
from minitx.models.sizes import on_meta
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.inspect.test_trace import CONFIGS, DECODERS, SEQ2SEQS, SIZES, model_of

BATCH, LENGTH, NEW = 2, 9, 7


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name, **CONFIGS[name][1]}


def sizes_of(name: str) -> dict[str, Any]:
    return {"batch": BATCH, "length": LENGTH, "new_tokens": NEW, "head": CONFIGS[name][0]}


def counted(model: Any, **inputs: Any) -> int:
    """The operations of a forward by PyTorch's counter, with attention that it knows."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_bytes_and_operations_are_exact(name: str) -> None:
    model = model_of(name).set_attention("eager")
    try:
        inputs = {"input_ids": torch.full((BATCH, LENGTH), 5)}
        if name in SEQ2SEQS:
            inputs["decoder_input_ids"] = torch.full((BATCH, NEW), 5)
        flops = counted(model, **inputs)
    finally:
        model.set_attention("sdpa")
    result = estimate(config_of(name), **sizes_of(name))
    assert result.parameters == model.num_parameters() == sum(result.parts.values())
    assert result.parameter_bytes == 4 * model.num_parameters() == summarize(model.float()).bytes
    model.double()
    assert result.forward_flops == flops
    assert result.bytes["bfloat16"] == 2 * result.parameters


@pytest.mark.parametrize("name", [*DECODERS, *SEQ2SEQS])
def test_cache_and_generation_are_exact(name: str) -> None:
    if CONFIGS[name][0] == "sequence-classification":
        assert estimate(config_of(name), **sizes_of(name)).cache == {}
        return
    model = model_of(name).set_attention("eager")
    try:
        counter = FlopCounterMode(display=False)
        ids = torch.full((BATCH, LENGTH), 5)
        cache = model.make_cache((1 if name in SEQ2SEQS else LENGTH) + NEW - 1)
        with torch.no_grad(), counter:
            if name in SEQ2SEQS:
                model.encode_into(cache, ids)
                ids = ids[:, :1]
            model.decode(ids, cache=cache, logits_to_keep=1)
            prefill = counter.get_total_flops()
            for _ in range(NEW - 1):
                before = counter.get_total_flops()
                model.decode(ids[:, :1], cache=cache, logits_to_keep=1)
            total = counter.get_total_flops()
    finally:
        model.set_attention("sdpa")
    result = estimate(model, batch=BATCH, length=LENGTH, new_tokens=NEW)
    tensors = [(part.key, part.value) for part in (*cache.layers, *cache.cross_attention)]
    assert result.cache_bytes == sum(x.numel() * x.element_size() for pair in tensors for x in pair)
    assert result.prefill_flops == prefill
    assert result.token_flops == (total - before) // BATCH
    assert result.generation_flops == total


def test_the_cache_has_its_kinds() -> None:
    def cache(**sizes: int) -> Mapping[str, int]:
        return estimate(config_of("gemma2"), head="causal-lm", **sizes).cache

    per_token = 2 * 2 * 8 * 4  # keys and values, heads, features, bytes
    assert cache(length=LENGTH, new_tokens=NEW) == {"sliding window": 3 * per_token, "full": 15 * per_token}
    assert cache(length=1, new_tokens=2) == {"full": 2 * 2 * per_token}  # shorter than the window
    crossed = estimate(config_of("t5"), head="seq2seq-lm", length=LENGTH, new_tokens=NEW).cache
    assert crossed == {"full": 2 * 7 * 2 * 32 * 4, "cross-attention": 2 * LENGTH * 2 * 32 * 4}


def test_a_token_uses_some_experts() -> None:
    result = estimate(config_of("mixtral"), head="causal-lm")
    model = model_of("mixtral")
    idle = [p.numel() // 4 * 2 for name, p in model.named_parameters() if ".experts." in name]
    assert result.active_parameters == model.num_parameters() - sum(idle)
    assert result.parts["experts"] == sum(2 * x for x in idle) + 2 * 4 * 32
    assert "for each token" in str(result)
    dense = estimate(config_of("llama"), head="causal-lm")
    assert dense.active_parameters == dense.parameters


def test_trace_and_estimate_count_the_same_operations() -> None:
    for name in ("bert", "deberta-v2", "gpt_oss", "t5"):
        more = {"target": [2] * NEW} if name in SEQ2SEQS else {}
        steps = trace(model_of(name), [[5] * LENGTH] * BATCH, **more).steps
        total = sum(step.flops for step in steps)
        assert total == estimate(model_of(name), batch=BATCH, length=LENGTH, new_tokens=NEW).forward_flops


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_count(dora: bool) -> None:
    model: Any = minitx.from_config(config_of("llama"), head="causal-lm", seed=0)
    base = estimate(model, batch=BATCH, length=LENGTH)
    model = minitx.training.add_lora(model, rank=2, dora=dora).eval()
    result = estimate(model, batch=BATCH, length=LENGTH)
    flops = counted(model.set_attention("eager"), input_ids=torch.full((BATCH, LENGTH), 5))
    assert result.forward_flops == flops
    assert result.forward_flops > base.forward_flops
    added = result.parameters - base.parameters
    assert result.gradient_bytes == 4 * added  # the adapter alone is trained
    assert result.optimizer_bytes == 2 * result.gradient_bytes


def test_a_large_model_takes_no_memory() -> None:
    config = {"model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "vocab_size": 128256}
    config |= {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672}
    config |= {"max_position_embeddings": 8192}
    result = estimate(config, head="causal-lm", dtype="bfloat16", length=4096)
    assert result.parameters == 70_553_706_496  # as its authors count
    assert result.parameter_bytes == 2 * result.parameters
    assert result.cache_bytes == 80 * 2 * 8 * 128 * (4096 + 63) * 2


def test_live_bytes_follow_tensors() -> None:
    model = on_meta(model_of("llama"))
    live = LiveBytes(model)
    with torch.no_grad(), live:
        first = torch.empty(1000, device="meta")
        second = first * 2
        view = second[:10]
        del first
        assert (live.live, live.peak) == (4000, 8000)
        del second
        assert live.live == 4000  # the view holds it
        del view
        third = model.embedder.word_emb.weight.t()  # a view of a parameter
        assert live.live == 0
        del third


def test_peak_of_inference_follows_the_widest_step() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 4096, "num_hidden_layers": 2}
    config = {"model_type": "bert", **SIZES, **sizes}
    short = estimate(config, batch=1, length=8, new_tokens=0)
    long = estimate(config, batch=4, length=8, new_tokens=0)
    widest = 2 * 8 * 4096 * 4  # before and after the activation
    assert widest < short.inference_activations < 1.2 * widest
    assert 3.9 < long.inference_activations / short.inference_activations < 4.1
    assert short.inference_bytes == short.parameter_bytes + short.inference_activations


def test_peak_of_training_has_its_parts() -> None:
    result = estimate(config_of("llama"), head="causal-lm", batch=8, length=32)
    assert result.gradient_bytes == result.parameter_bytes
    assert result.optimizer_bytes == 2 * result.parameter_bytes
    assert result.training_activations > 4 * result.inference_activations
    assert result.training_bytes == 3 * result.parameter_bytes + result.backward_bytes
    assert result.backward_bytes > max(result.training_activations, result.gradient_bytes)


def test_a_model_stays_as_it_is() -> None:
    model: Any = minitx.from_config(config_of("gpt2"), head="causal-lm", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = estimate(model, length=8, new_tokens=8)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert result == estimate(config_of("gpt2"), head="causal-lm", length=8, new_tokens=8)
    assert (
        estimate(model, length=8, new_tokens=8, dtype="bfloat16").parameter_bytes * 2
        == result.parameter_bytes
    )
    assert model.head.projection.weight is model.embedder.word_emb.weight


def test_on_meta_keeps_ties() -> None:
    empty: Any = on_meta(model_of("gpt2"))
    assert empty.head.projection.weight is empty.embedder.word_emb.weight
    assert {p.device.type for p in empty.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["bert", "gemma2", "t5", "mixtral"])
def test_text_and_json(name: str) -> None:
    result = estimate(config_of(name), **sizes_of(name))
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80
    plain = json.loads(json.dumps(result.to_json()))
    assert plain["cache_bytes"] == result.cache_bytes
    assert f"{result.parameters:,}" in text


def test_wrong_arguments() -> None:
    with pytest.raises(ArgumentTypeError, match="model=3"):
        estimate(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="batch=0"):
        estimate(config_of("llama"), batch=0)
    with pytest.raises(ArgumentValueError, match="length=512 must be such that at most 40"):
        estimate(config_of("gpt2"), head="causal-lm", length=512)
    with pytest.raises(ArgumentValueError, match="head="):
        estimate(model_of("bert"), head="masked-lm", length=8)
    with pytest.raises(ValueError, match="model_type"):
        estimate({"hidden_size": 3})


def test_the_usual_length_fits_the_model() -> None:
    encoder, decoder = minitx.load("minitx/tiny-encoder"), minitx.load("minitx/tiny-decoder")
    assert estimate(encoder).length == 128  # of its table of positions
    assert estimate(decoder).length == 512
    with pytest.raises(ValueError, match="length=10000"):
        estimate(decoder, length=10**20)
