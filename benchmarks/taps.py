"""Cost of taps: forwards and cached decoding of models without taps, after them and under them, in turn.

    python benchmarks/taps.py [--repeats 20] [--threads 2] [--json]

Two models of random weights, of the sizes of GPT-2 and BERT-base. Each round runs every variant once, one
after the other, in a random order, in one process; medians, quartiles, and the ratio of medians to that of
the model that was never tapped. A second such model shows the noise of the measurement.

    never       a model that was never tapped
    control     a second one
    after       every value was recorded before, and the record has ended
    one layer   the attention weights of one layer are recorded
    everything  every value is recorded
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import minitx
from minitx.inspect import record

GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024}
BERT = {"model_type": "bert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
BERT |= {"intermediate_size": 3072, "max_position_embeddings": 512}
MODELS = {
    "gpt2": (GPT2 | {"vocab_size": 50257}, "causal-lm"),
    "bert": (BERT | {"vocab_size": 30522}, "masked-lm"),
}
NEW_TOKENS = 12


def work(model: Any, kind: str) -> Callable[[], Any]:
    """Returns a forward of 32 tokens, or the generation of some."""
    ids = torch.randint(5, 20000, (1, 32), generator=torch.Generator().manual_seed(0))
    if kind == "forward":
        return lambda: model(ids)
    stop = minitx.Stop(eos=())
    return lambda: minitx.generate(model, ids, minitx.Greedy(), max_new_tokens=NEW_TOKENS, stop=stop)


def measure(name: str, kind: str, repeats: int) -> dict[str, Any]:
    """Returns times in seconds of each variant, after a check that all give the same numbers."""
    config, head = MODELS[name]
    models = {
        variant: minitx.from_config(config, head=head, seed=0).eval()
        for variant in ("never", "control", "after")
    }
    everything = "**"
    with torch.inference_mode(), record(models["after"], everything):
        work(models["after"], kind)()
    layer = f"{models['never'].families[0]}.layers.6.attention.self_attention.weights"
    variants: dict[str, tuple[Any, str | None]] = {variant: (models[variant], None) for variant in models}
    variants |= {"one layer": (models["after"], layer), "everything": (models["after"], everything)}

    def run(variant: str) -> Any:
        model, names = variants[variant]
        with torch.inference_mode():
            if names is None:
                return work(model, kind)()
            with record(model, names):
                return work(model, kind)()

    results = [run(variant) for variant in variants]
    numbers = [r.logits if kind == "forward" else r.sequences[0] for r in results]
    assert all(torch.equal(numbers[0], other) for other in numbers), "recording changes no bit"
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    order = [*variants]
    for _ in range(repeats):
        random.shuffle(order)
        for variant in order:
            start = time.perf_counter()
            run(variant)
            times[variant].append(time.perf_counter() - start)
    return {"model": name, "kind": kind, "seconds": times}


def report(row: dict[str, Any]) -> list[str]:
    """Returns a line for each variant."""
    base = statistics.median(row["seconds"]["never"])
    lines = [f"{row['model']}, {row['kind']}"]
    for variant, seconds in row["seconds"].items():
        low, median, high = statistics.quantiles(seconds, n=4)
        times = f"{1000 * median:8.2f} ms  ({1000 * low:.2f} to {1000 * high:.2f})"
        lines.append(f"  {variant:<11}{times}  {median / base:.4f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    random.seed(0)
    kinds = [("gpt2", "forward"), ("gpt2", "generate"), ("bert", "forward")]
    rows = [measure(name, kind, arguments.repeats) for name, kind in kinds]
    print(json.dumps(rows) if arguments.json else "\n".join(line for row in rows for line in report(row)))


if __name__ == "__main__":
    main()
