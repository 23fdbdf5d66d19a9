"""Speed of tasks in minitx and transformers, in turn, on the same folder and texts.

    python benchmarks/pipelines.py [--texts 256] [--repeats 3] [--threads 2] [--tasks ner zero-shot] [--json]

A BERT of base size with random weights (or the size of --layers and --hidden), and random texts of
log-uniform length from 8 to 256 tokens. transformers runs one by one, its default, and in batches; minitx
chooses its batches. Every round runs all of them, one after the other; the output has medians, the spread and
the ratio. The results are compared before anything is timed. Last, the time from a new process to its first
answer, with all imports.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import minitx
from minitx.pipelines import example_model

BERT = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512}
NLI = {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}
LABELS = ["politics", "sports", "science", "business", "health", "travel", "food", "music", "art", "weather"]
TASKS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "text-classification": ("text-classification", "sequence-classification", {"num_labels": 3}, {}),
    "ner": ("token-classification", "token-classification", {"num_labels": 9}, {}),
    "zero-shot": ("zero-shot-classification", "sequence-classification", NLI, {"candidate_labels": LABELS}),
}
FIRST = """
import time, sys
start = time.perf_counter()
import warnings
warnings.simplefilter("ignore")
{imports}
pipe = pipeline("text-classification", sys.argv[1], device="cpu")
pipe("A cat sleeps.")
print(time.perf_counter() - start)
"""
IMPORTS = {
    "minitx": "from minitx import pipeline",
    "transformers": "from transformers import pipeline, logging\nlogging.disable_progress_bar()",
}


def make_folder(path: Path, head: str, config: dict[str, Any], layers: int, hidden: int) -> Path:
    """Write a random BERT with MiniLM's tokenizer."""
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // 64}
    sizes |= {"intermediate_size": 4 * hidden}
    if "id2label" in config:
        config = config | {"label2id": {name: index for index, name in config["id2label"].items()}}
    minitx.save(minitx.from_config({**BERT, **sizes, **config}, head=head, seed=0), path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(example_model() / name, path)
    return path


def make_texts(count: int) -> list[str]:
    """Return random words of the vocabulary, a token each: from 8 to 256 tokens with [CLS] and [SEP]."""
    draw = random.Random(0)
    vocabulary = (example_model() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in vocabulary[1996:] if word.isalpha() and word.isascii()]
    lengths = [round(math.exp(draw.uniform(math.log(8), math.log(256)))) for _ in range(count)]
    return [" ".join(draw.choices(words, k=length - 2)) for length in lengths]


def runners(task: str, folder: Path, batch_sizes: list[int]) -> dict[str, Callable[[list[str]], Any]]:
    """Return what is timed, by name."""
    name, _, _, options = TASKS[task]
    ours = minitx.pipeline(name, folder, device="cpu")
    theirs = transformers.pipeline(name, str(folder), device="cpu")
    found = {"minitx": lambda texts: ours(texts, **options)}
    for size in batch_sizes:
        found[f"transformers, batch {size}"] = lambda texts, size=size: theirs(
            texts, batch_size=size, **options
        )
    return found


def check_equal(first: Any, second: Any) -> None:
    """Compare the labels and scores of two results."""
    if isinstance(first, dict):
        for key, value in second.items():
            check_equal(first[key], value)
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            check_equal(a, b)
    elif isinstance(first, float) or hasattr(first, "dtype"):
        assert abs(float(first) - float(second)) < 1e-5, (first, second)


def measure(task: str, arguments: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Return the seconds of each round by name."""
    _, head, config, _ = TASKS[task]
    folder = make_folder(root / task, head, config, arguments.layers, arguments.hidden)
    texts = make_texts(arguments.texts)
    found = runners(task, folder, arguments.batch_sizes)
    results = [run(texts[:8]) for run in found.values()]
    for other in results[1:]:
        check_equal(results[0], other)
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(arguments.repeats):
        for name, run in found.items():
            start = time.perf_counter()
            run(texts)
            times[name].append(time.perf_counter() - start)
    return times


def first_answers(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Return the seconds from a new process to its first answer."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    for _ in range(repeats):
        for name, imports in IMPORTS.items():
            command = [sys.executable, "-c", FIRST.format(imports=imports), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            times[name].append(float(done.stdout.splitlines()[-1]))
    return times


def show(title: str, times: dict[str, list[float]]) -> None:
    """Print medians, spreads and ratios."""
    ours = statistics.median(times["minitx"])
    print(f"\n{title:<36}seconds     min     max   minitx is")
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratio = "" if name == "minitx" else f"{middle / ours:.2f}x as fast"
        print(f"  {name:<32}{middle:>9.2f}{min(seconds):>8.2f}{max(seconds):>8.2f}   {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        found = {task: measure(task, arguments, Path(folder)) for task in arguments.tasks}
        first = make_folder(Path(folder) / "first", "sequence-classification", {"num_labels": 3}, 6, 384)
        found["import to first answer"] = first_answers(first, max(arguments.repeats, 5))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for title, times in found.items():
        show(title, times)


if __name__ == "__main__":
    main()
