"""Kills processes that save and convert models, and counts what they left.

    python scripts/kill_saves.py [--kills 1000] [--seed 0]

Three models that differ in every file (weights, shards, config, generation settings, tokenizer) are saved
over one another by processes that are killed at random times: one saver alone, a conversion, and two savers
beside a reader. After each kill the folder is loaded: all of it must be of one model. After the next save
nothing else may be there. Exits with 1 if a folder was a mixture, was lost, or had litter.
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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import minitx
from minitx.checkpoint.convert import convert
from minitx.transaction import read_consistently, recover

NUMBERS = (1, 2, 3)


def make(folder: Path, number: int) -> tuple[Any, Any]:
    """Saves the model and the tokenizer of a number, and loads them."""
    config = {"model_type": "gpt2", "vocab_size": 20 + number, "n_embd": 16, "n_head": 2, "n_layer": 4}
    model = minitx.from_config({**config, "n_positions": 20}, head="causal-lm", seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float(number))
    folder.mkdir()
    backend = Tokenizer(models.WordLevel({"<unk>": 0, f"word{number}": 1}, unk_token="<unk>"))
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "generation_config.json").write_text(json.dumps({"max_new_tokens": number}))
    minitx.save(model, folder.with_name(f"plain{number}"))
    for path in folder.with_name(f"plain{number}").iterdir():
        shutil.copy(path, folder / path.name)
    return minitx.load(folder), minitx.load_tokenizer(folder)


def numbers_in(folder: Path) -> set[int]:
    """Returns the numbers of the models whose files are in a folder."""
    model, tokenizer = minitx.load(folder), minitx.load_tokenizer(folder)
    numbers = {int(value) for parameter in model.parameters() for value in parameter.unique().tolist()}
    assert model.checkpoint is not None
    numbers |= {
        model.config.text_inputs.vocab_size - 20,
        json.loads(model.checkpoint.generation_file)["max_new_tokens"],
    }
    return numbers | {int(tokenizer.id_to_token(1).removeprefix("word"))}


def process(work: Callable[[], None]) -> int:
    """Starts a process."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def kill(child: int) -> bool:
    """Kills a process; returns whether it had not ended."""
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def names(folder: Path) -> set[str]:
    """Returns the names of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def main() -> int:
    """Runs the three kinds of kills and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(arguments.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        saved = {number: make(place / f"source{number}", number) for number in NUMBERS}

        def save(folder: Path, number: int) -> None:
            # The number of shards is the same: other shards would be refused.
            minitx.save(saved[number][0], folder, tokenizer=saved[number][1], max_shard_size=12_000)

        target = place / "target"
        save(target, 1)
        saved_names = names(target)
        started = time.monotonic()
        save(target, 2)
        longest = 1.5 * (time.monotonic() - started)
        for index in range(arguments.kills):
            number = NUMBERS[index % 3]
            child = process(lambda number=number: save(target, number))
            time.sleep(draw.uniform(0, longest))
            counts["savers killed"] += kill(child)
            if index % 4 == 1:
                reader = process(lambda: recover(target))
                time.sleep(draw.uniform(0, longest / 20))
                counts["readers killed"] += kill(reader)
            judge(target, counts)
            if index % 3 == 2:
                save(target, number)
                counts["litter"] += names(target) != saved_names
        new = place / "converted"
        for index in range(arguments.kills):
            child = process(lambda number=NUMBERS[index % 3]: convert(place / f"source{number}", new))
            time.sleep(draw.uniform(0, longest))
            counts["conversions killed"] += kill(child)
            if new.exists():
                recover(new)
            if (new / "config.json").exists():
                judge(new, counts)
                shutil.rmtree(new)
                continue
            convert(place / "source1", new)
            counts["litter"] += names(new) != names(place / "source1")
            judge(new, counts)
            shutil.rmtree(new)
        for _ in range(arguments.kills // 2):
            children = [
                process(lambda n=n: [save(target, n) for _ in range(9)]) for n in draw.sample(NUMBERS, 2)
            ]
            end = time.monotonic() + draw.uniform(0, 3 * longest)
            while time.monotonic() < end:
                judge(target, counts)
            counts["savers in pairs killed"] += sum(map(kill, children))
            judge(target, counts)
        save(target, 1)
        counts["litter"] += names(target) != saved_names
    for name in (
        "savers killed",
        "readers killed",
        "conversions killed",
        "savers in pairs killed",
        "folders read",
        "mixtures",
        "lost",
        "litter",
    ):
        print(f"{counts[name]:8} {name}")
    return 1 if counts["mixtures"] + counts["lost"] + counts["litter"] else 0


def judge(folder: Path, counts: Counter[str]) -> None:
    """Loads a folder and counts it as whole, a mixture, or lost."""
    counts["folders read"] += 1
    try:
        counts["mixtures"] += len(read_consistently(folder, lambda: numbers_in(folder))) != 1
    except (OSError, ValueError) as error:
        counts["lost"] += 1
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
