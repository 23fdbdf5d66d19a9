"""How fast text is generated: minitx and transformers in turn, in one process, on the same weights.

    python benchmarks/decode.py [--repeats 7] [--threads 2] [--prompt 32] [--new 64] [--json]

GPT-2 of 124 million parameters, random weights, float32, neither compiled nor quantised. Every round runs
each side once, one after the other; printed are the medians over the rounds and the ratio of the medians.

    speed     tokens per second for batches of 1 and 8, greedy and with temperature, top-k and top-p; the
              greedy ids of both sides are compared
    chain     what the chain and the selector take of a step
    context   the time of one more token behind texts of 64 to 960
    memory    the peak of a process that loads the model and generates, batches of 1, 8 and 64
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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

import minitx
from minitx.decoding.context import Context
from minitx.decoding.select import Argmax, CounterNoise, row_keys

SAMPLING = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
CONTEXTS = (64, 128, 256, 512, 960)
SIDES = ("minitx", "transformers")
STEPS = 16  # per measurement of the context's cost


def models(folder: str) -> tuple[minitx.DecoderModel, Any]:
    """The same random GPT-2 on both sides."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="sdpa")).eval()
    theirs.generation_config.eos_token_id = None
    theirs.save_pretrained(folder)
    ours = minitx.load(folder)
    assert isinstance(ours, minitx.DecoderModel)
    return ours, theirs


def prompts(batch: int, length: int) -> torch.Tensor:
    return torch.randint(50257, (batch, length), generator=torch.Generator().manual_seed(length))


def run_ours(model: minitx.DecoderModel, ids: torch.Tensor, new: int, sampling: bool) -> torch.Tensor:
    strategy = minitx.Sample(**SAMPLING) if sampling else minitx.Greedy()
    result = minitx.generate(model, ids, strategy, max_new_tokens=new, stop=minitx.Stop(eos=()))
    return torch.stack(result.sequences)


def run_theirs(model: Any, ids: torch.Tensor, new: int, sampling: bool) -> torch.Tensor:
    options: dict[str, Any] = {"do_sample": True, **SAMPLING} if sampling else {"do_sample": False}
    with torch.inference_mode():
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, pad_token_id=50256, **options
        )
    found: torch.Tensor = made[:, ids.shape[1] :]
    return found


def in_turn(repeats: int, *runs: Callable[[], Any]) -> list[float]:
    """The median seconds of each, after one round that counts for nothing."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for found, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return [statistics.median(found[1:]) for found in times]


def speed(
    ours: minitx.DecoderModel, theirs: Any, prompt: int, new: int, repeats: int
) -> list[dict[str, Any]]:
    rows = []
    for batch in (1, 8):
        ids = prompts(batch, prompt)
        same = torch.equal(run_ours(ours, ids, new, False), run_theirs(theirs, ids, new, False))
        for sampling in (False, True):
            first, second = in_turn(
                repeats,
                partial(run_ours, ours, ids, new, sampling),
                partial(run_theirs, theirs, ids, new, sampling),
            )
            row = {"batch": batch, "sampling": sampling, "same": None if sampling else same}
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
def one_draw(selector: Any, logits: torch.Tensor) -> None:
    selector(logits, 64)


def chain_share(ours: minitx.DecoderModel, repeats: int) -> list[dict[str, Any]]:
    """What the chain and the selector take, beside the forward of a step."""
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
        noise = CounterNoise(row_keys(0, ids.tolist(), 1, ids.device))
        for name, strategy, selector in (
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
                partial(one_draw, selector, chained),
            )
            row = {"batch": batch, "strategy": name, "forward": forward}
            rows.append(row | {"chain": applied, "draw": drawn})
    return rows


def context_cost(ours: minitx.DecoderModel, theirs: Any, repeats: int) -> list[dict[str, Any]]:
    """Seconds for one more token: what STEPS + 1 tokens take more than one, divided by STEPS."""
    rows = []
    for length in CONTEXTS:
        ids = prompts(1, length)
        row: dict[str, Any] = {"length": length}
        one_ours, many_ours, one_theirs, many_theirs = in_turn(
            repeats,
            partial(run_ours, ours, ids, 1, False),
            partial(run_ours, ours, ids, STEPS + 1, False),
            partial(run_theirs, theirs, ids, 1, False),
            partial(run_theirs, theirs, ids, STEPS + 1, False),
        )
        row["minitx"] = (many_ours - one_ours) / STEPS
        row["transformers"] = (many_theirs - one_theirs) / STEPS
        rows.append(row)
    return rows


def peak() -> int:
    """The largest resident size of this program in bytes; `getrusage` would count the parent's as well."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def generate_alone(folder: str, side: str, batch: int, prompt: int, new: int, threads: int) -> None:
    """In a process of its own: the peak in bytes, of loading and of generating as well."""
    torch.set_num_threads(threads)
    run: Callable[..., Any] = run_ours
    model: Any = None
    if side == "minitx":
        model = minitx.load(folder)
    else:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        model, run = transformers.GPT2LMHeadModel.from_pretrained(folder).eval(), run_theirs
        model.generation_config.eos_token_id = None
    loaded = peak()
    run(model, prompts(batch, prompt), new, True)
    print(json.dumps({"loaded": loaded, "peak": peak()}))


def memory(folder: str, prompt: int, new: int, threads: int) -> list[dict[str, Any]]:
    rows = []
    for batch in (1, 8, 64):
        row: dict[str, Any] = {"batch": batch}
        for side in SIDES:
            sizes = (str(x) for x in (batch, prompt, new, threads))
            command = [sys.executable, __file__, "--alone", folder, side, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row[side] = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
    return rows


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    print("batch  decoding            minitx tok/s  transformers tok/s  ratio  same ids")
    for row in found["speed"]:
        decoding = "top-k, top-p" if row["sampling"] else "greedy"
        same = {True: "yes", False: "NO", None: ""}[row["same"]]
        print(
            f"{row['batch']:>5}  {decoding:<18}{row['minitx']:>14.1f}{row['transformers']:>20.1f}"
            f"{row['minitx'] / row['transformers']:>7.2f}  {same}"
        )
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
    print("\nbatch   minitx loaded MB    peak MB   transformers loaded MB    peak MB")
    for row in found["memory"]:
        ours, theirs = ([row[side][key] / 1e6 for key in ("loaded", "peak")] for side in SIDES)
        print(f"{row['batch']:>5}{ours[0]:>19.0f}{ours[1]:>11.0f}{theirs[0]:>25.0f}{theirs[1]:>11.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        folder, side, *sizes = arguments.alone
        generate_alone(folder, side, *map(int, sizes))
        return
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = models(folder)
        found = {
            "speed": speed(ours, theirs, arguments.prompt, arguments.new, arguments.repeats),
            "chain": chain_share(ours, arguments.repeats),
            "context": context_cost(ours, theirs, arguments.repeats),
            "memory": memory(folder, arguments.prompt, arguments.new, arguments.threads),
        }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"torch {version('torch')}, transformers {version('transformers')}, {arguments.threads} threads\n")
    show(found)


if __name__ == "__main__":
    main()
