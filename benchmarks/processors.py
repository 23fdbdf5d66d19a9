"""The share of processors and sampler in a decoding step of GPT-2.

    python benchmarks/processors.py [--rounds 28] [--threads 2] [--batches 1 8] [--json]

GPT-2 with 124 million parameters, random weights, float32, a context of 96 tokens. Every round runs a forward
of one token, the processors of a strategy on its logits, and the draw of a token, one after the other; the
output has the medians over the rounds, and the shares of their sum.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import minitx
from minitx.bench.engine import TEMPERATURE, TOP_K, TOP_P
from minitx.bench.models import CONFIGS
from minitx.decoding.processors.context import Context
from minitx.decoding.samplers.base import Argmax
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys

LENGTH, PROMPT = 96, 32  # tokens of the context, and those of them that are the prompt
STRATEGIES: dict[str, minitx.Strategy] = {
    "greedy": minitx.Greedy(),
    "top-k, top-p": minitx.Sample(temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P),
    "top-p alone": minitx.Sample(top_p=TOP_P),
    "penalties": minitx.Sample(repetition_penalty=1.1, frequency_penalty=0.2),
}


def steps(model: Any, batch: int, strategy: minitx.Strategy) -> dict[str, Callable[[], Any]]:
    """Returns the three parts of a decoding step."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 32000, (batch, LENGTH), generator=generator)
    cache = model.make_cache(LENGTH + 2)
    logits = model(ids, cache=cache, logits_to_keep=1).logits[:, -1]
    length = torch.full((batch,), LENGTH)
    context = Context(tokens=ids, length=length, prompt_length=torch.full_like(length, PROMPT), eos=())
    chain, sampler = strategy.build(), Argmax()
    if not isinstance(strategy, minitx.Greedy):
        sampler = CounterGumbel(row_keys(0, ids.tolist(), 1, ids.device))
    processed = chain(logits, context, chain.init(context))

    def forward() -> None:
        model(ids[:, -1:], cache=cache, logits_to_keep=1)
        cache.crop(LENGTH)

    return {
        "forward": forward,
        "processors": lambda: chain(logits, context, chain.init(context)),
        "draw": lambda: sampler(processed, LENGTH - PROMPT),
    }


@torch.inference_mode()
def measure(model: Any, batch: int, name: str, rounds: int) -> dict[str, Any]:
    """Returns the median seconds of each part, after one round that is not counted."""
    parts = steps(model, batch, STRATEGIES[name])
    times: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(rounds + 1):
        for part, run in parts.items():
            start = time.perf_counter()
            run()
            times[part].append(time.perf_counter() - start)
    medians = {part: statistics.median(seconds[1:]) for part, seconds in times.items()}
    return {"batch": batch, "strategy": name, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=28)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = minitx.from_config(CONFIGS["gpt2"], head="causal-lm", seed=0).eval()
    rows = [
        measure(model, batch, name, arguments.rounds) for batch in arguments.batches for name in STRATEGIES
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"torch {torch.__version__}, {arguments.threads} threads; milliseconds, and shares of a step")
    print(f"{'batch':<6}{'':<14}{'forward':>9}{'processors':>12}{'':>8}{'draw':>10}")
    for row in rows:
        whole = row["forward"] + row["processors"] + row["draw"]
        line = f"{row['batch']:<6}{row['strategy']:<14}{1e3 * row['forward']:>9.2f}"
        for part, width in (("processors", 12), ("draw", 10)):
            line += f"{1e3 * row[part]:>{width}.3f}{row[part] / whole:>8.1%}"
        print(line)


if __name__ == "__main__":
    main()
