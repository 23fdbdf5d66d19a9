"""Kills training runs, and checks that each continues to the parameters of a run that was not killed.

    python scripts/kill_runs.py [--kills 100] [--every 1] [--seed 0]

A tiny GPT with dropout trains and writes a checkpoint after every step, in a process that is killed:

- at random times, `--kills` times, a run again and again until it is complete
- before each of the operations (opening, moving, removing a file, ...) that it does in its folder, or before
  every n-th of them with `--every n`

After each kill all checkpoints in the folder must be those of the run that was not killed, byte for byte,
and a copy of the folder must resume to the same model, metrics and files. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import minitx
from minitx.training import Objective, TrainConfig, train

GPT = {"model_type": "gpt2", "vocab_size": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
EXAMPLES = [{"input_ids": [(3 * k + n) % 32 for k in range(5 + n % 4)]} for n in range(11)]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod")


class NextToken(Objective):
    """Replaces some inputs at random, so that a run depends on all its random numbers."""

    def __call__(self, examples: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Returns the ids of the examples, and those to predict."""
        rows = [torch.tensor(example["input_ids"]) for example in examples]
        labels = pad_sequence(rows, batch_first=True, padding_value=-100)
        noise = torch.randint(0, 32, labels.shape, generator=generator)
        hidden = torch.rand(labels.shape, generator=generator) < 0.1
        return {"input_ids": torch.where(hidden | (labels < 0), noise, labels), "labels": labels}


@dataclass(frozen=True)
class Training:
    """A run, to be killed.

    Attributes:
        steps: of the run.
    """

    steps: int

    def run(self, folder: Path, keep: int = 2) -> None:
        """Begins the run in a folder, or continues it."""
        options: dict[str, Any] = {"batch_size": 2, "accumulation": 2, "log_every": 1, "save_every": 1}
        options |= {"evaluate_every": 2, "patience": self.steps, "warmup_steps": 1, "learning_rate": 0.01}
        train(
            minitx.from_config(GPT, head="causal-lm", seed=0),
            EXAMPLES,
            NextToken(),
            TrainConfig(steps=self.steps, keep=keep, **options),
            folder=folder,
            evaluation=EXAMPLES[:3],
            resume=(folder / "config.toml").exists(),
            progress=False,
        )


@dataclass(frozen=True)
class Judge:
    """What a run that was not killed has written.

    Attributes:
        training: the run.
        folder: of the run; `folder-all` beside it has all its checkpoints.
        counts: of the kills, and of the errors.
    """

    training: Training
    folder: Path
    counts: Counter[str]

    def __post_init__(self) -> None:
        self.training.run(self.folder)
        self.training.run(self.all, keep=self.training.steps)

    @property
    def all(self) -> Path:
        """The folder with all checkpoints."""
        return self.folder.with_name(f"{self.folder.name}-all")

    def judge(self, folder: Path) -> None:
        """Checks the folder of a run that was killed."""
        for checkpoint in folder.glob("checkpoints/step-*"):
            self.counts["checkpoints read"] += 1
            twin = self.all / "checkpoints" / checkpoint.name
            self.counts["torn checkpoints"] += tensors(checkpoint) != tensors(twin)
        copy = folder.with_name("resumed")
        if folder.exists():
            shutil.copytree(folder, copy)
        if finish(process(lambda: self.training.run(copy))):
            self.counts["failed resumes"] += 1
        else:
            self.counts["other models"] += tensors(copy / "model") != tensors(self.folder / "model")
            self.counts["other metrics"] += records(copy) != records(self.folder)
            self.counts["other files"] += names(copy) != names(self.folder)
        shutil.rmtree(copy, ignore_errors=True)


def tensors(folder: Path) -> dict[str, bytes]:
    """Returns the content of the files with tensors in a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def records(folder: Path) -> list[dict[str, Any]]:
    """Returns the metrics of a run without times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [{name: x for name, x in line.items() if name != "tokens_per_second"} for line in lines]


def names(folder: Path) -> set[str]:
    """Returns the names of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def process(work: Callable[[], None]) -> int:
    """Starts a process."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def finish(child: int) -> int:
    """Waits for a process; returns its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_before(number: int, folder: Path) -> None:
    """Kills this process before its n-th operation in a folder."""
    done = 0

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event not in EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not int(arguments[2] or 0) & WRITES:
            return
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)


def kill_at_random(judge: Judge, kills: int, draw: random.Random, place: Path) -> None:
    """Kills runs at random times, each until it is complete."""
    started = time.monotonic()
    finish(process(lambda: judge.training.run(place / "timed")))
    longest = (time.monotonic() - started) / 2
    while judge.counts["runs killed"] < kills:
        child = process(lambda: judge.training.run(place / "run"))
        time.sleep(draw.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        code = finish(child)
        judge.counts["failed resumes"] += code > 0
        judge.counts["runs killed"] += code < 0
        judge.judge(place / "run")
        if (place / "run" / "model" / "model.safetensors").exists():
            shutil.rmtree(place / "run")


def kill_at_operations(judge: Judge, every: int, place: Path) -> None:
    """Kills a run before each of its operations, or every n-th."""
    folder = place / "run"

    def work(number: int) -> None:
        die_before(number, folder)
        judge.training.run(folder)

    for number in count(1, every):
        shutil.rmtree(folder, ignore_errors=True)
        if (code := finish(process(partial(work, number)))) == 0:
            return
        judge.counts["failed resumes"] += code > 0
        judge.counts["operations killed"] += 1
        judge.judge(folder)


def main() -> int:
    """Runs both kinds of kills and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="kills at random times")
    parser.add_argument("--every", type=int, default=1, help="kill before every n-th operation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        kill_at_random(
            Judge(Training(12), place / "long", counts), arguments.kills, random.Random(arguments.seed), place
        )
        kill_at_operations(Judge(Training(3), place / "short", counts), arguments.every, place)
    errors = ("torn checkpoints", "failed resumes", "other models", "other metrics", "other files")
    for name in ("runs killed", "operations killed", "checkpoints read", *errors):
        print(f"{counts[name]:8} {name}")
    return 1 if any(counts[name] for name in errors) else 0


if __name__ == "__main__":
    sys.exit(main())
