"""Fresh processes: the memory of an engine, the time of an import, the time to the first token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitx.bench.engine import Engine, Setup
from minitx.bench.workloads import Workload

IMPORT = """import time, torch
start = time.perf_counter()
{imports}
print(time.perf_counter() - start)
"""


def place_of(engine: Engine) -> str:
    """Returns module and class of an engine, by which another process finds it."""
    return f"{type(engine).__module__}:{type(engine).__qualname__}"


def described(engine: Engine, setup: Setup) -> dict[str, Any]:
    """Returns an engine and its setup as plain data for another process."""
    return {"engine": place_of(engine), "setup": asdict(setup) | {"folder": str(setup.folder)}}


def setup_of(given: Mapping[str, Any]) -> Setup:
    """Returns the setup of `described`."""
    return Setup(**{**given, "folder": Path(given["folder"])})


def memory_of(engine: Engine, setup: Setup, workload: Workload, vocab_size: int) -> dict[str, int]:
    """Returns the peak bytes of a fresh process that loads an engine and runs a workload once.

    "loaded" is the peak after loading, "peak" that at the end; "device" that of a CUDA device, beside them.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    given = described(engine, setup) | {"workload": asdict(workload), "vocab_size": vocab_size}
    sizes: dict[str, int] = json.loads(_run(["-m", "minitx.bench.process"], setup, json.dumps(given)))
    return sizes


def import_seconds(engine: Engine, setup: Setup) -> float:
    """Returns the seconds that a fresh process takes to import the engine's library after torch."""
    return float(_run(["-c", IMPORT.format(imports=engine.imports)], setup))


def start_seconds(engine: Engine, setup: Setup, prompt: list[int]) -> tuple[float, int]:
    """Returns the seconds from the start of a fresh process to the first token, and the token."""
    program = engine.program(setup, prompt)
    start = time.perf_counter()
    line = _run(["-c", program], setup)
    return time.perf_counter() - start, int(line)


def _run(arguments: list[str], setup: Setup, given: str = "") -> str:
    """Returns the last line that a Python process prints."""
    threads = str(setup.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    lines = done.stdout.split("\n")[:-1]
    if done.returncode or not lines:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"a fresh process failed: {reason}")
    return lines[-1]
