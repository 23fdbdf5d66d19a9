"""Training speed of minitx, transformers' Trainer and a plain loop, in turn, on the same weights and data.

    python benchmarks/train.py [--model llama gpt2] [--dtype float32 bfloat16] [--rounds 7] [--steps 12]
                               [--threads 2] [--json]

A small decoder (6 layers of 128 features, 4,096 tokens) learns from 16 blocks of 256 tokens per step, with
AdamW, a cosine schedule and clipping. "bfloat16" is autocast of float32 parameters. Every round runs each
side once, one after the other:

    minitx      minitx.training.train
    Trainer     transformers.Trainer, which needs accelerate
    loop        forward, backward, clipping and fused AdamW on transformers' model, and nothing else

The dataset records when a batch is fetched, so that a step is measured alike on all sides; the first ones are
left out. Before anything is reported, the mean losses over the steps are compared. The peak memory is that of
a new process per side.
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
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

import minitx
from minitx.training import CausalLM, TrainConfig, train

VOCABULARY, LENGTH, BATCH = 4096, 256, 16
WARM_UP = 2  # intervals between batches; the Trainer fetches one batch ahead
RATE, DECAY = 1e-3, 0.1
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-3}  # of the mean loss, relative
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "attn_implementation": "sdpa"}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=352,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            **SIZES,
        )
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=128,
            n_layer=6,
            n_head=4,
            n_positions=LENGTH,
            attn_pdrop=0,
            embd_pdrop=0,
            resid_pdrop=0,
            **SIZES,
        )
    ),
}


class Blocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of tokens in a fixed order, in which frequent tokens are to be learned; and a clock.

    Attributes:
        times: seconds of this process and of the clock, when the first block of each batch was fetched.
    """

    def __init__(self, steps: int) -> None:
        frequencies = 1.0 / torch.arange(1, VOCABULARY + 1)
        source = torch.Generator().manual_seed(0)
        ids = torch.multinomial(frequencies, steps * BATCH * LENGTH, replacement=True, generator=source)
        self.ids = ids.view(-1, LENGTH)
        self.fetched, self.times = 0, []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.fetched % BATCH == 0:
            self.times.append((time.process_time(), time.perf_counter()))
        self.fetched += 1
        return {"input_ids": self.ids[self.fetched - 1]}  # the order is that of the fetches

    def seconds(self) -> tuple[float, float]:
        """Returns the seconds of a step: of this process, and of the clock."""
        first, *_, last = self.times[WARM_UP:]
        steps = len(self.times) - 1 - WARM_UP
        return (last[0] - first[0]) / steps, (last[1] - first[1]) / steps


# --- sides: folder of the weights, blocks, steps, dtype -> mean loss over the steps ----------------


def run_minitx(folder: str, blocks: Blocks, steps: int, dtype: str) -> float:
    config = TrainConfig(
        steps=steps,
        batch_size=BATCH,
        learning_rate=RATE,
        weight_decay=DECAY,
        precision=dtype,
        log_every=steps,
    )
    return train(minitx.load(folder), blocks, CausalLM(), config, progress=False).loss


def collate(examples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    ids = torch.stack([example["input_ids"] for example in examples])
    labels = ids.clone()
    labels[:, 0] = -100  # else the Trainer divides by targets that nothing predicts
    return {"input_ids": ids, "labels": labels}


def run_trainer(folder: str, blocks: Blocks, steps: int, dtype: str) -> float:
    with tempfile.TemporaryDirectory() as output:
        arguments = transformers.TrainingArguments(
            output_dir=output,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            weight_decay=DECAY,
            lr_scheduler_type="cosine",
            train_sampling_strategy="sequential",
            bf16=dtype == "bfloat16",
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_steps=steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
        trainer = transformers.Trainer(model, arguments, data_collator=collate, train_dataset=blocks)
        trainer.remove_callback(transformers.PrinterCallback)
        return float(trainer.train().training_loss)


def run_loop(folder: str, blocks: Blocks, steps: int, dtype: str) -> float:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 0, steps)
    total = 0.0
    for _ in range(steps):
        batch = collate([blocks[index] for index in range(BATCH)])
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
    return total / steps


SIDES = {"minitx": run_minitx, "Trainer": run_trainer, "loop": run_loop}


def sides() -> list[str]:
    if find_spec("accelerate"):
        return list(SIDES)
    print("transformers' Trainer is left out: it needs accelerate, which is not installed.", file=sys.stderr)
    return [side for side in SIDES if side != "Trainer"]


# --- measurements ----------------------------------------------------------------------------------


def speed(model: str, folder: str, dtype: str, rounds: int, steps: int) -> dict[str, Any]:
    """Runs all sides in turn; returns seconds per step, of the process and of the clock, and mean losses."""
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides()}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for side, found in seconds.items():
            blocks = Blocks(steps)
            losses[side] = SIDES[side](folder, blocks, steps, dtype)
            found.append(blocks.seconds())
    for side, loss in losses.items():
        if abs(loss - losses["minitx"]) > TOLERANCE[dtype] * losses["minitx"]:
            raise SystemExit(f"{model}, {dtype}: {side} has another mean loss: {losses}")
    row: dict[str, Any] = {"model": model, "dtype": dtype, "losses": losses}
    for kind, name in enumerate(("process", "clock")):
        row[name] = {side: sorted(pair[kind] for pair in found) for side, found in seconds.items()}
    return row


def peak() -> int:
    """Returns the peak resident size of this process in bytes; `getrusage` would include the parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def memory(folder: str, dtype: str, threads: int) -> dict[str, int]:
    """Returns the peak in bytes of a new process per side that trains for a few steps."""
    found = {}
    for side in sides():
        command = [sys.executable, __file__, "--alone", folder, dtype, side, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[side] = int(done.stdout.splitlines()[-1])
    return found


def show(rows: list[dict[str, Any]]) -> None:
    print(
        "model   dtype     side      tokens/s (lowest - highest)   ratio  CPU ms/step   peak MB   mean loss"
    )
    for row in rows:
        ours = statistics.median(row["clock"]["minitx"])
        for side, seconds in row["clock"].items():
            middle, process = statistics.median(seconds), statistics.median(row["process"][side])
            rate, low, high = (BATCH * LENGTH / x for x in (middle, seconds[-1], seconds[0]))
            print(
                f"{row['model']:<8}{row['dtype']:<10}{side:<9}{rate:>9.0f} ({low:>6.0f} - {high:>6.0f})"
                f"{middle / ours:>13.2f}{process * 1e3:>13.0f}{row['memory'][side] / 1e6:>10.0f}"
                f"{row['losses'][side]:>12.5f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["llama"])
    parser.add_argument("--dtype", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12, help="per round; the first are not measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        folder, dtype, side = arguments.alone
        SIDES[side](folder, Blocks(4), 4, dtype)
        print(peak())
        return
    if arguments.steps < WARM_UP + 3:
        parser.error(f"--steps must be at least {WARM_UP + 3}")
    rows = []
    for model in arguments.model:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            MODELS[model]().save_pretrained(folder)
            for dtype in arguments.dtype:
                row = speed(model, folder, dtype, arguments.rounds, arguments.steps)
                rows.append(row | {"memory": memory(folder, dtype, arguments.threads)})
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"torch {version('torch')}, transformers {version('transformers')}, {arguments.threads} threads\n")
    show(rows)


if __name__ == "__main__":
    main()
