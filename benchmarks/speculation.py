"""Speculative decoding beside plain greedy decoding, in turn, in one process.

    python benchmarks/speculation.py [--rounds 7] [--threads 2] [--prompt 32] [--new 64] [--json]

GPT-2 with 124 million parameters, random weights, float32, batch 1, also with packed weights
(`minitx.optimize.pack_weights`). Every round runs both once; the output has the medians over the rounds, in
tokens per second, and their ratio. The texts of both are compared.

    prompt lookup       a random model's greedy text soon repeats, so that most of it can be looked up
    draft of a quarter  a random draft would hardly ever agree, so agreement is made: a model of a quarter of
                        the parameters really runs for each drafted token, which is then replaced by the token
                        of the precomputed greedy text with probability 0.8, by another one otherwise
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import minitx
from minitx.bench.models import CONFIGS
from minitx.bench.runner import in_turn
from minitx.decoding import Draft, DraftModel, PromptLookup, Speculative
from minitx.decoding.processors.context import Context
from minitx.decoding.speculative.draft import DraftCall, Drafter, Proposal
from minitx.optimize import pack_weights

GPT2 = {**CONFIGS["gpt2"], "initializer_range": 0.02}  # whose text repeats
QUARTER = {"n_embd": 384, "n_head": 6, "n_layer": 6}
AGREEMENT = 0.8


@dataclass(frozen=True)
class Agreeing(Draft):
    """Runs a draft model, and replaces its tokens by those of a known text with a probability."""

    inner: DraftModel
    text: tuple[int, ...]
    agreement: float = AGREEMENT

    def start(self, call: DraftCall) -> Drafter:
        return AgreeingDrafter(self, self.inner.start(call))


class AgreeingDrafter:
    """The drafter of `Agreeing`, for one row."""

    def __init__(self, draft: Agreeing, inner: Drafter) -> None:
        self.draft, self.inner = draft, inner
        self.generator = torch.Generator().manual_seed(0)

    def propose(self, context: Context, most: torch.Tensor, counter: torch.Tensor) -> Proposal:
        tokens, counts, _ = self.inner.propose(context, most, counter)
        start = int(context.generated[0])
        right = torch.tensor([[*self.draft.text[start : start + tokens.shape[1]]]], dtype=torch.long)
        agrees = torch.rand(right.shape, generator=self.generator) < self.draft.agreement
        return Proposal(torch.where(agrees, right, (right + 1) % GPT2["vocab_size"]), counts)

    def select(self, rows: torch.Tensor) -> None:
        self.inner.select(rows)


def medians(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Returns the median seconds of each, after one round that is not counted."""
    times: list[list[float]] = [[] for _ in runs]
    for number in in_turn(range(len(runs)), rounds + 1):
        if number is not None:
            start = time.perf_counter()
            runs[number]()
            times[number].append(time.perf_counter() - start)
    return [statistics.median(seconds[1:]) for seconds in times]


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Times each draft, without and with packed weights."""
    model, quarter = (
        minitx.from_config(config, head="causal-lm", seed=seed).eval()
        for seed, config in enumerate((GPT2, GPT2 | QUARTER))
    )
    ids = torch.randint(2, 32000, (1, arguments.prompt), generator=torch.Generator().manual_seed(0))

    def run(strategy: minitx.Strategy) -> list[int]:
        stop = minitx.Stop(eos=())
        result = minitx.generate(model, ids, strategy, max_new_tokens=arguments.new, stop=stop)
        return result.sequences[0].tolist()

    text, share = run(minitx.Greedy()), quarter.num_parameters() / model.num_parameters()
    agreeing = Agreeing(DraftModel(quarter, minitx.Greedy()), tuple(text))
    drafts = {
        "prompt lookup": Speculative(draft=PromptLookup(), tokens=8),
        f"draft of {share:.0%}, {AGREEMENT:.0%} agreement": Speculative(draft=agreeing, tokens=3),
    }
    rows = []
    for packed in (False, True):
        for each in (model, quarter) if packed else ():
            pack_weights(each)
        for name, strategy in drafts.items():
            same = run(strategy) == text
            plain, fast = medians([lambda: run(minitx.Greedy()), lambda s=strategy: run(s)], arguments.rounds)
            row = {"decoding": f"{name}, packed" if packed else name, "same": same}
            rows.append(row | {"plain": arguments.new / plain, "speculative": arguments.new / fast})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"torch {torch.__version__}, {arguments.threads} threads; tokens per second")
    print(f"{'':<38}{'plain':>9}{'speculative':>13}{'ratio':>7}  same ids")
    for row in rows:
        ratio, same = row["speculative"] / row["plain"], "yes" if row["same"] else "NO"
        print(f"{row['decoding']:<38}{row['plain']:>9.1f}{row['speculative']:>13.1f}{ratio:>7.2f}  {same}")


if __name__ == "__main__":
    main()
