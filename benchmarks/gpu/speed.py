"""Decoding speed of a decoder of Llama-1B's shape in bfloat16, beside the measured memory bandwidth.

A step must read every weight once (the word embedding as the head), and the keys and values so far. The share
is what these bytes per second are of the bandwidth of a product of a matrix and a vector, measured here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import minitx
from benchmarks.gpu.run import Section
from minitx import Greedy, Stop
from minitx.optimize import cuda_graphs

LLAMA_1B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
TINY = LLAMA_1B | {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
PROMPT, NEW, REPEATS = 128, 128, 3


def run(section: Section) -> None:
    """Measures bandwidth and decoding at batch 1 and 32."""
    device, peak = section.device, bandwidth(section.device, section.quick)
    section.rows.append({"name": "memory bandwidth", "ok": True, "GB/s": peak / 1e9})
    config = TINY if section.quick else LLAMA_1B
    model: Any = minitx.from_config(config, head="causal-lm", seed=0, dtype=torch.bfloat16).to(device).eval()
    passes: dict[str, Callable[[Any], Any]] = {"minitx": lambda model: model}
    if device.type == "cuda":
        passes["minitx, CUDA graphs"] = cuda_graphs
    for name in section.within_budget(passes):
        faster = passes[name](model)
        for batch in (1, 2 if section.quick else 32):
            section.attempt(f"{name}, batch {batch}", partial(decode, faster, batch, peak, section.quick))


def bandwidth(device: torch.device, quick: bool) -> float:
    """Returns the bytes per second of a product of a matrix and a vector, at best."""
    rows = 512 if quick else 2**18
    matrix = torch.ones(rows, 4096, dtype=torch.bfloat16, device=device)
    vector = torch.ones(4096, 1, dtype=torch.bfloat16, device=device)
    seconds = [timed(lambda: matrix @ vector, device) for _ in range(10)]
    return matrix.numel() * matrix.element_size() / min(seconds)


def timed(function: Callable[[], Any], device: torch.device) -> float:
    """Returns the seconds that a function takes, until the device has finished."""
    finish(device)
    start = time.perf_counter()
    function()
    finish(device)
    return time.perf_counter() - start


def finish(device: torch.device) -> None:
    """Waits until a device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def decode(model: Any, batch: int, peak: float, quick: bool) -> dict[str, Any]:
    """Returns the speed of greedy decoding, less that of the prompt and the first token."""
    prompt, new = (8, 9) if quick else (PROMPT, NEW)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 290, (batch, prompt), generator=generator).tolist()

    def _generate(tokens: int) -> float:
        options: Any = {"max_new_tokens": tokens, "stop": Stop(eos=())}
        return timed(lambda: minitx.generate(model, prompts, Greedy(), **options), model.device)

    _generate(new)
    steps = [(_generate(new) - _generate(1)) / (new - 1) for _ in range(REPEATS)]
    return report(model, batch, statistics.median(steps), peak, prompt + new / 2) | {
        "raw ms": [round(step * 1e3, 4) for step in steps]
    }


def report(model: Any, batch: int, seconds: float, peak: float, length: float) -> dict[str, Any]:
    """Returns speed and share of the bandwidth of a step over `batch` rows of a mean length."""
    attention = model.config.decoder.layer.attention
    heads = attention.num_key_value_heads or attention.num_attention_heads
    cached = 2 * heads * attention.head_dim * length * batch * len(model.decoder.layers)
    share = 2 * (model.num_parameters() + cached) / seconds / peak
    return {"tokens/s": batch / seconds, "ms/step": seconds * 1e3, "share of bandwidth": share}
