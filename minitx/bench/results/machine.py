"""The machine and the versions of a benchmark."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import minitx

# Flags of the processor that decide which products are fast.
FLAGS: tuple[str, ...] = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")
FLAGS += ("avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine(threads: int, device: str) -> dict[str, Any]:
    """Returns the facts on which a speed depends, and which a comparison of two results needs.

    Args:
        threads: of the CPU.
        device: "cpu", or such as "cuda".
    """
    cpu = _cpu()
    facts = {
        "processor": cpu.get("model name") or cpu.get("Hardware") or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in (cpu.get("flags") or cpu.get("Features") or "").split()],
        "governor": _text(_GOVERNOR),
        "load": load_average(),
        "threads": threads,
        "device": _device(device),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "minitx": minitx.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def load_average() -> float | None:
    """Returns how many processes ran or waited for a core in the last minute; None where it is not known."""
    try:
        return round(os.getloadavg()[0], 1)
    except (AttributeError, OSError):
        return None


def commit() -> str | None:
    """Returns the commit that minitx runs from, with "+" where files differ from it; None without git."""
    folder = Path(minitx.__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    try:
        head, state = (
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + "+" * bool(state)


def _device(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _cpu() -> dict[str, str]:
    """Returns the first processor's entries of /proc/cpuinfo; empty where the system has none."""
    text = _text(Path("/proc/cpuinfo")) or ""
    lines = re.findall(r"^([^\n:]+?)\s*:\s*(.*)$", text.split("\n\n")[0], re.MULTILINE)
    return dict(lines)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
