"""A fresh process of `minitx.bench.alone`: reads a JSON object from stdin, and prints its memory as one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from minitx.bench.alone import setup_of
from minitx.bench.calls import first_answer, inputs_of, timed
from minitx.bench.engine import make_engine
from minitx.bench.workloads import Workload


def peak() -> int:
    """Returns the peak resident size of this process in bytes.

    Where Linux has it, from /proc: `getrusage` includes the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.split() for line in status.read_text().splitlines())
        return next(int(words[1]) * 1024 for words in lines if words[0] == "VmHWM:")
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def measure(given: dict[str, Any]) -> dict[str, int]:
    """Loads an engine, runs a workload once and returns the peaks in bytes.

    Args:
        given: place of the engine, setup, workload, and size of the vocabulary.
    """
    setup = setup_of(given["setup"])
    workload = Workload(**given["workload"])
    torch.set_num_threads(setup.threads)
    engine = make_engine("engine", {"engine": given["engine"]})
    engine.load(setup)
    loaded = peak()
    inputs = inputs_of(workload, given["vocab_size"])
    if workload.call == "load":
        first_answer(engine, setup, inputs)
    else:
        timed(engine, setup, workload, inputs)
    sizes = {"loaded": loaded, "peak": peak()}
    if setup.device.startswith("cuda"):
        sizes["device"] = torch.cuda.max_memory_allocated(setup.device)
    return sizes


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(measure(json.load(sys.stdin)))}\n")
