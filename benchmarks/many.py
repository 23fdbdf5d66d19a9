"""Many prompts of different lengths: continuous batching against padded batches of transformers, in turn.

    python benchmarks/many.py [--prompts 64] [--batch 8] [--rows 32] [--rounds 3] [--threads 2] [--json]

GPT-2 with 124 million parameters, random weights, float32, greedy. Prompts have 8 to 512 tokens and ask for
16 to 256 new ones, both uniform. transformers runs them in the order in which they come, in padded batches,
each until its longest request is complete; tokens beyond a request are not counted. minitx runs
`generate_as_completed`. One process, the same weights; after each batch of transformers, minitx runs until as
many rows are complete, so that both sides see the same machine. A round is the whole list. The output has the
medians of the rounds with the lowest and the highest, and the ratio of the medians.

Before a speed is shown the tokens are compared. Where a row differs, two tokens had nearly the same logit:
the gap at the first different token is shown, and a gap above 0.001 is an error.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import transformers
from transformers.utils import logging

import minitx

VOCABULARY = 50257
TIE = 1e-3  # logits that differ by less may change places with the order of a sum


def make() -> tuple[Any, Any]:
    """The same random GPT-2 for both sides."""
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    theirs.generation_config.eos_token_id = None
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return minitx.load(folder).eval(), theirs


def workload(count: int, seed: int) -> tuple[list[list[int]], list[int]]:
    """Prompts, and the number of new tokens of each."""
    draw = random.Random(seed)
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(8, 512))] for _ in range(count)]
    return prompts, [draw.randint(16, 256) for _ in prompts]


@torch.inference_mode()
def padded(theirs: Any, prompts: list[list[int]], limits: list[int]) -> list[list[int]]:
    """The new tokens of one padded batch."""
    longest, count = max(map(len, prompts)), max(limits)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
    out = theirs.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return [row[longest : longest + most].tolist() for row, most in zip(out, limits, strict=True)]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def one_round(ours: Any, theirs: Any, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each side, and their tokens."""
    prompts, limits = workload(arguments.prompts, seed)
    found: dict[str, Any] = {"minitx": 0.0, "transformers": 0.0, "theirs": [], "ours": {}}
    found |= {"prompts": prompts, "tokens": sum(limits)}
    stop = minitx.Stop(eos=())
    rows = minitx.generate_as_completed(
        ours, prompts, minitx.Greedy(), max_new_tokens=limits, rows=arguments.rows, stop=stop
    )

    def _until(complete: int) -> None:
        while len(found["ours"]) < complete:
            number, row = next(rows)
            found["ours"][number] = row.tokens.tolist()

    for first in range(0, len(prompts), arguments.batch):
        batch = slice(first, first + arguments.batch)
        tokens, seconds = timed(lambda batch=batch: padded(theirs, prompts[batch], limits[batch]))
        found["theirs"] += tokens
        found["transformers"] += seconds
        done = min(first + arguments.batch, len(prompts))
        found["minitx"] += timed(lambda done=done: _until(done))[1]
    return found


@torch.inference_mode()
def gaps(ours: Any, found: dict[str, Any]) -> list[float]:
    """The gap between the logits of the two first different tokens, of each row that differs."""
    different = []
    for number, their_tokens in enumerate(found["theirs"]):
        our_tokens = found["ours"][number]
        if our_tokens == their_tokens:
            continue
        place = next(
            i for i, pair in enumerate(zip(our_tokens, their_tokens, strict=True)) if len({*pair}) > 1
        )
        ids = torch.tensor([found["prompts"][number] + our_tokens[:place]])
        logits = ours(ids, logits_to_keep=1).logits[0, -1]
        different.append(float((logits[our_tokens[place]] - logits[their_tokens[place]]).abs()))
    return different


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="of transformers")
    parser.add_argument("--rows", type=int, default=32, help="of minitx")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    ours, theirs = make()
    rounds = [one_round(ours, theirs, seed, arguments) for seed in range(arguments.rounds)]
    different = [gap for found in rounds for gap in gaps(ours, found)]
    if any(gap > TIE for gap in different):
        raise SystemExit(f"the tokens differ, and not by ties: gaps of the logits {different}")
    speeds = {
        side: [found["tokens"] / found[side] for found in rounds] for side in ("minitx", "transformers")
    }
    ratio = statistics.median(speeds["minitx"]) / statistics.median(speeds["transformers"])
    if arguments.json:
        print(json.dumps({"tokens_per_second": speeds, "ratio": ratio, "gaps": different}, indent=2))
        return
    print(f"torch {version('torch')}, transformers {version('transformers')}, {arguments.threads} threads")
    for side, values in speeds.items():
        low, high = min(values), max(values)
        print(f"{side:<14}{statistics.median(values):>8.1f} tok/s   {low:.1f} to {high:.1f}")
    rows = arguments.prompts * arguments.rounds
    print(
        f"ratio {ratio:.2f}; {rows - len(different)} of {rows} rows equal, the others from ties {different}"
    )


if __name__ == "__main__":
    main()
