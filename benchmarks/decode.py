"""Generation speed of minitx and transformers, in turn, in one process, on the same weights.

    python benchmarks/decode.py [--models gpt2 t5-small] [--repeats 7] [--threads 2] [--prompt 32] [--new 64]
                                [--only speculation] [--json]

GPT-2 with 124 million parameters and T5-small, random weights, float32, neither compiled nor quantised. The
prompt is T5's encoder input. Every round runs each side once, one after the other; the output has the
medians over the rounds and the ratio of the medians.

    speed     tokens per second for batches of 1 and 8; without sampling, the ids of both sides are compared.
              For beams, only the returned tokens are counted
    memory    peak of a process that loads the model and generates with its most demanding decoding
    chain     share of the chain and the sampler in a decoding step (GPT-2)
    context   time of one more token after contexts of 64 to 960 tokens (GPT-2)
    speculation  tokens per second of `Speculative(...)` and of plain greedy decoding, batch 1 (GPT-2), both
              also with packed weights (`minitx.optimize.pack_weights`).
              "prompt lookup": a random model's greedy text soon repeats, so that most of it can be looked up.
              "draft of a quarter": a random draft would hardly ever agree, so agreement is made: a model of a
              quarter of the parameters really runs for each drafted token, which is then replaced by the
              token of the precomputed greedy text with probability 0.8, by another one otherwise
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers

import minitx
from minitx.decoding import Draft, DraftModel, PromptLookup, Speculative
from minitx.decoding.processors.context import Context
from minitx.decoding.samplers.base import Argmax
from minitx.decoding.samplers.counter_rng import CounterGumbel, row_keys
from minitx.decoding.speculative.draft import DraftCall, Drafter, Proposal
from minitx.optimize import pack_weights, unpack_weights

SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
STRATEGIES: dict[str, minitx.Strategy] = {
    "greedy": minitx.Greedy(),
    "top-k, top-p": minitx.Sample(**SAMPLING),
    "beams of 4": minitx.Beam(num_beams=4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "top-k, top-p": {"do_sample": True, **SAMPLING},
    "beams of 4": {"do_sample": False, "num_beams": 4},
}
CONTEXTS = (64, 128, 256, 512, 960)
SIDES = ("minitx", "transformers")
STEPS = 16  # per measurement of the context's cost


@dataclass(frozen=True)
class Subject:
    """A model and its measurements."""

    kind: Any
    config: Any
    decodings: tuple[str, ...]  # the last is the one whose memory is measured
    memory_batches: tuple[int, ...]


SUBJECTS = {
    "gpt2": Subject(
        transformers.GPT2LMHeadModel, transformers.GPT2Config, ("greedy", "top-k, top-p"), (1, 8, 64)
    ),
    "t5-small": Subject(
        transformers.T5ForConditionalGeneration,
        partial(transformers.T5Config, decoder_start_token_id=0),  # the other defaults are those of t5-small
        ("greedy", "beams of 4"),
        (1, 8, 32),
    ),
}


def make(name: str, folder: str) -> tuple[Any, Any]:
    """Make the same random model for both sides, without end tokens."""
    subject = SUBJECTS[name]
    torch.manual_seed(0)
    theirs = subject.kind(subject.config(attn_implementation="sdpa")).eval()
    theirs.save_pretrained(folder)
    return minitx.load(folder), endless(theirs)


def endless(model: Any) -> Any:
    model.generation_config.eos_token_id = None
    return model


def quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def prompts(batch: int, length: int) -> torch.Tensor:
    return torch.randint(2, 32000, (batch, length), generator=torch.Generator().manual_seed(length))


def run_ours(model: Any, ids: torch.Tensor, new: int, decoding: str) -> torch.Tensor:
    result = minitx.generate(model, ids, STRATEGIES[decoding], max_new_tokens=new, stop=minitx.Stop(eos=()))
    return torch.stack(result.sequences)


def run_theirs(model: Any, ids: torch.Tensor, new: int, decoding: str) -> torch.Tensor:
    with torch.inference_mode():
        made: torch.Tensor = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, pad_token_id=0, **OPTIONS[decoding]
        )
    return made[:, -new:]


def in_turn(repeats: int, *runs: Callable[[], Any]) -> list[float]:
    """Return the median seconds of each, after one warm-up round."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for found, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return [statistics.median(found[1:]) for found in times]


def speed(name: str, ours: Any, theirs: Any, prompt: int, new: int, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for batch in (1, 8):
        ids = prompts(batch, prompt)
        for decoding in SUBJECTS[name].decodings:
            same = None
            if not OPTIONS[decoding]["do_sample"]:
                found = run_ours(ours, ids, new, decoding), run_theirs(theirs, ids, new, decoding)
                same = torch.equal(*found)
            first, second = in_turn(
                repeats,
                partial(run_ours, ours, ids, new, decoding),
                partial(run_theirs, theirs, ids, new, decoding),
            )
            row = {"model": name, "batch": batch, "decoding": decoding, "same": same}
            rows.append(row | {"minitx": batch * new / first, "transformers": batch * new / second})
    return rows


@torch.inference_mode()
def one_step(model: minitx.DecoderModel, ids: torch.Tensor, cache: minitx.Cache) -> None:
    model(ids, cache=cache, logits_to_keep=1)
    cache.crop(cache.length - 1)


@torch.inference_mode()
def one_chain(chain: minitx.Chain, logits: torch.Tensor, context: Context) -> torch.Tensor:
    return chain(logits, context, chain.init(context))


@torch.inference_mode()
def one_draw(sampler: Any, logits: torch.Tensor) -> None:
    sampler(logits, 64)


def chain_share(ours: minitx.DecoderModel, repeats: int) -> list[dict[str, Any]]:
    """Time the chain and the sampler, and the forward of a step."""
    rows = []
    for batch in (1, 8):
        ids = prompts(batch, 96)
        cache = ours.make_cache(200)
        with torch.inference_mode():
            logits = ours(ids, cache=cache, logits_to_keep=1).logits
            assert logits is not None
            logits = logits[:, -1]
        length = torch.full((batch,), ids.shape[1])
        context = Context(tokens=ids, length=length, prompt_length=length - 64, eos=())
        noise = CounterGumbel(row_keys(0, ids.tolist(), 1, ids.device))
        for name, strategy, sampler in (
            ("greedy", minitx.Greedy(), Argmax()),
            ("top-k, top-p", minitx.Sample(**SAMPLING), noise),
            ("top-p alone", minitx.Sample(top_p=0.95), noise),
            ("penalties", minitx.Sample(repetition_penalty=1.1, frequency_penalty=0.2), noise),
        ):
            chain = strategy.build()
            step = partial(one_step, ours, ids[:, -1:], cache)
            chained = one_chain(chain, logits, context)
            forward, applied, drawn = in_turn(
                4 * repeats,
                step,
                partial(one_chain, chain, logits, context),
                partial(one_draw, sampler, chained),
            )
            row = {"batch": batch, "strategy": name, "forward": forward}
            rows.append(row | {"chain": applied, "draw": drawn})
    return rows


class Clock:
    """A processor for either side that changes nothing and records when it is called."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def ours(self, logits: torch.Tensor, context: Context) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return logits

    def theirs(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores

    def median(self) -> float:
        """Seconds between calls, one per token; the first call follows the prompt."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.times))


def context_cost(ours: minitx.DecoderModel, theirs: Any, repeats: int) -> list[dict[str, Any]]:
    """Time one more token after contexts of several lengths.

    Every round measures all lengths, so that a machine that slows down affects all of them alike.
    """
    found: dict[int, dict[str, list[float]]] = {length: {side: [] for side in SIDES} for length in CONTEXTS}
    for _ in range(repeats + 1):
        for length, sides in found.items():
            ids, new = prompts(1, length), STEPS + 1
            clock = Clock()
            strategy = minitx.Greedy(processors=[clock.ours])
            minitx.generate(ours, ids, strategy, max_new_tokens=new, stop=minitx.Stop(eos=()))
            sides["minitx"].append(clock.median())
            clock = Clock()
            with torch.inference_mode():
                theirs.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=new,
                    do_sample=False,
                    pad_token_id=0,
                    logits_processor=transformers.LogitsProcessorList([clock.theirs]),
                )
            sides["transformers"].append(clock.median())
    return [
        {"length": length} | {side: statistics.median(times[1:]) for side, times in sides.items()}
        for length, sides in found.items()
    ]


@dataclass(frozen=True)
class Agreeing(Draft):
    """Runs a draft model, and replaces its tokens by those of a known text with a probability."""

    inner: DraftModel
    text: tuple[int, ...]
    agreement: float

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
        right = torch.tensor([[*self.draft.text[start : start + tokens.shape[1]]]])
        agrees = torch.rand(right.shape, generator=self.generator) < self.draft.agreement
        return Proposal(torch.where(agrees, right, (right + 1) % 50257), counts)

    def select(self, rows: torch.Tensor) -> None:
        self.inner.select(rows)


def speculation(ours: Any, prompt: int, new: int, repeats: int) -> list[dict[str, Any]]:
    """Time speculative and plain greedy decoding in turn."""
    ids = prompts(1, prompt)
    text = run_ours(ours, ids, new, "greedy")
    torch.manual_seed(1)
    config = transformers.GPT2Config(n_embd=384, n_head=6, n_layer=6)
    with tempfile.TemporaryDirectory() as folder:
        transformers.GPT2LMHeadModel(config).eval().save_pretrained(folder)
        quarter = minitx.load(folder)
    share = quarter.num_parameters() / ours.num_parameters()
    rows = []
    agreeing = Agreeing(DraftModel(quarter, minitx.Greedy()), tuple(text[0].tolist()), 0.8)
    drafts = (("prompt lookup", PromptLookup(), 8), (f"draft of {share:.0%}, 80 % agreement", agreeing, 3))
    for packed in (False, True):
        for model in (ours, quarter) if packed else ():
            pack_weights(model)
        for name, draft, tokens in drafts:
            name += ", packed" if packed else ""
            STRATEGIES[name] = Speculative(draft=draft, tokens=tokens)
            same = torch.equal(run_ours(ours, ids, new, name), text)
            runs = (partial(run_ours, ours, ids, new, decoding) for decoding in ("greedy", name))
            plain, fast = in_turn(repeats, *runs)
            rows.append({"decoding": name, "same": same, "plain": new / plain, "speculative": new / fast})
    unpack_weights(ours)
    return rows


def peak() -> int:
    """Return the peak resident size of this process in bytes; `getrusage` would include the parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def generate_alone(
    name: str, folder: str, side: str, batch: int, prompt: int, new: int, threads: int
) -> None:
    """Run in a new process: the peak in bytes of loading, and of loading and generating."""
    torch.set_num_threads(threads)
    subject = SUBJECTS[name]
    run: Callable[..., Any] = run_ours if side == "minitx" else run_theirs
    model = minitx.load(folder) if side == "minitx" else endless(subject.kind.from_pretrained(folder).eval())
    loaded = peak()
    run(model, prompts(batch, prompt), new, subject.decodings[-1])
    print(json.dumps({"loaded": loaded, "peak": peak()}))


def memory(name: str, folder: str, prompt: int, new: int, threads: int) -> list[dict[str, Any]]:
    rows = []
    for batch in SUBJECTS[name].memory_batches:
        row: dict[str, Any] = {"model": name, "batch": batch, "decoding": SUBJECTS[name].decodings[-1]}
        for side in SIDES:
            sizes = (str(x) for x in (batch, prompt, new, threads))
            command = [sys.executable, __file__, "--alone", name, folder, side, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row[side] = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
    return rows


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    print("model     batch  decoding            minitx tok/s  transformers tok/s  ratio  same ids")
    for row in found["speed"]:
        same = {True: "yes", False: "NO", None: ""}[row["same"]]
        print(
            f"{row['model']:<10}{row['batch']:>5}  {row['decoding']:<18}{row['minitx']:>14.1f}"
            f"{row['transformers']:>20.1f}{row['minitx'] / row['transformers']:>7.2f}  {same}"
        )
    print(
        "\nmodel     batch  decoding        minitx loaded MB    peak MB   transformers loaded MB    peak MB"
    )
    for row in found["memory"]:
        ours, theirs = ([row[side][key] / 1e6 for key in ("loaded", "peak")] for side in SIDES)
        print(
            f"{row['model']:<10}{row['batch']:>5}  {row['decoding']:<14}{ours[0]:>18.0f}{ours[1]:>11.0f}"
            f"{theirs[0]:>25.0f}{theirs[1]:>11.0f}"
        )
    if not found["chain"]:
        return
    print("\nbatch  chain               forward ms   chain ms  share   draw ms  share")
    for row in found["chain"]:
        whole = row["forward"] + row["chain"] + row["draw"]
        print(
            f"{row['batch']:>5}  {row['strategy']:<18}{row['forward'] * 1e3:>12.2f}"
            f"{row['chain'] * 1e3:>11.3f}{row['chain'] / whole:>7.1%}"
            f"{row['draw'] * 1e3:>10.3f}{row['draw'] / whole:>7.1%}"
        )
    print("\ncontext   minitx ms/token  grown by   transformers ms/token  grown by")
    first = found["context"][0]
    for row in found["context"]:
        grown = [(row[side] - first[side]) * 1e3 for side in SIDES]
        print(
            f"{row['length']:>7}{row['minitx'] * 1e3:>18.2f}{grown[0]:>10.2f}"
            f"{row['transformers'] * 1e3:>24.2f}{grown[1]:>10.2f}"
        )


def show_speculation(rows: list[dict[str, Any]]) -> None:
    print("speculation, batch 1                  plain tok/s  speculative tok/s  ratio  same ids")
    for row in rows:
        ratio = row["speculative"] / row["plain"]
        same = "yes" if row["same"] else "NO"
        print(f"{row['decoding']:<38}{row['plain']:>11.1f}{row['speculative']:>19.1f}{ratio:>7.2f}  {same}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--only", choices=["speculation"], help="this part alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", nargs=7, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet()
    if arguments.alone:
        name, folder, side, *sizes = arguments.alone
        generate_alone(name, folder, side, *map(int, sizes))
        return
    torch.set_num_threads(arguments.threads)
    parts = ("speed", "memory", "chain", "context", "speculation")
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    prompt, new, repeats = arguments.prompt, arguments.new, arguments.repeats
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = make(name, folder)
            if name == "gpt2":
                found["speculation"] = speculation(ours, prompt, new, repeats)
            if arguments.only:
                continue
            found["speed"] += speed(name, ours, theirs, prompt, new, repeats)
            found["memory"] += memory(name, folder, prompt, new, arguments.threads)
            if name == "gpt2":
                found["chain"] = chain_share(ours, repeats)
                found["context"] = context_cost(ours, theirs, repeats)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"torch {version('torch')}, transformers {version('transformers')}, {arguments.threads} threads\n")
    show_speculation(found["speculation"])
    if not arguments.only:
        show(found)


if __name__ == "__main__":
    main()
