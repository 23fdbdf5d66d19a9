"""The sections of `scripts/gpu`, each with a time budget: a section that fails does not stop the others."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds of each section, together less than four minutes.
BUDGETS = {"parity": 55, "decoding": 30, "training": 20, "speed": 50, "transformers": 75}
QUICK_TYPES = ("bert", "gpt2", "llama", "mixtral", "bloom", "t5")


@dataclass
class Section:
    """What a section is given, and what it found.

    Attributes:
        device: on which it runs.
        quick: tiny sizes.
        end: what the clock shows when its time is over.
        rows: what it found; "ok" is False for a failure.
        notes: what was left out, and why.
    """

    device: torch.device
    quick: bool
    end: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def within_budget(self, items: Any) -> Iterator[Any]:
        """Yields items until the time is over."""
        items = list(items)
        for number, item in enumerate(items):
            if time.monotonic() > self.end:
                self.notes.append(f"out of time: {len(items) - number} of {len(items)} were left out")
                return
            yield item

    def attempt(self, name: str, check: Callable[[], dict[str, Any]]) -> None:
        """Adds the row of a check, or its error."""
        try:
            row = {"name": name, "ok": True, **check()}
        except Exception as error:
            row = {"name": name, "ok": False, "error": f"{type(error).__name__}: {str(error)[:300]}"}
        self.rows.append(row)


def main(arguments: list[str]) -> int:
    """Runs the sections; returns 1 if any of them failed."""
    parser = argparse.ArgumentParser(prog="scripts/gpu", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(BUDGETS)}; all by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.sections if name not in BUDGETS]:
        parser.error(f"{', '.join(unknown)}: no section; there are {', '.join(BUDGETS)}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: PyTorch finds no CUDA device; --device cpu --quick runs the same code on a CPU.")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.empty(0, device=options.device).device
    results: dict[str, Any] = {"machine": machine(device), "quick": options.quick, "sections": {}}
    for name in options.sections or BUDGETS:
        results["sections"][name] = run(name, device, options.quick)
        print(markdown_of(name, results["sections"][name]), flush=True)
    write(results, options.out, device)
    failed = [name for name, section in results["sections"].items() if not section["ok"]]
    print(f"failed: {', '.join(failed)}" if failed else "all sections passed")
    return 1 if failed else 0


def run(name: str, device: torch.device, quick: bool) -> dict[str, Any]:
    """Runs one section."""
    start = time.monotonic()
    section, error = Section(device, quick, start + BUDGETS[name]), ""
    try:
        import_module(f"benchmarks.gpu.{name}").run(section)
    except Exception:
        error = traceback.format_exc(limit=-4)
    ok = not error and all(row["ok"] for row in section.rows)
    seconds = round(time.monotonic() - start, 1)
    return {"ok": ok, "seconds": seconds, "rows": section.rows, "notes": section.notes, "error": error}


def machine(device: torch.device) -> dict[str, Any]:
    """Returns device, driver, versions and commit."""
    described: dict[str, Any] = {"device": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described = {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    versions = {name: version_of(name) for name in ("minitx", "torch", "transformers", "triton")}
    commit = output_of("git", "-C", str(ROOT), "rev-parse", "HEAD")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {**described, "python": platform.python_version(), **versions, "commit": commit, "date": date}


def version_of(name: str) -> str | None:
    """Returns the version of a package, if it is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def output_of(*command: str) -> str | None:
    """Returns what a program prints, if it can be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def markdown_of(name: str, section: dict[str, Any]) -> str:
    """Returns a section as Markdown: a table, notes, and the error."""
    lines = [f"## {name}: {'passed' if section['ok'] else 'failed'} in {section['seconds']} s", ""]
    columns = list(dict.fromkeys(key for row in section["rows"] for key in row))
    if columns:
        lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for row in section["rows"]:
        lines.append(f"| {' | '.join(shown(row.get(key, '')) for key in columns)} |")
    lines += ["", *section["notes"], *(["```text", section["error"], "```"] if section["error"] else [])]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Returns a value as it stands in a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")


def write(results: dict[str, Any], folder: Path, device: torch.device) -> None:
    """Writes the results as JSON and Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    label = str(results["machine"]["device"]).lower().replace(" ", "-").replace("/", "-") or device.type
    path = folder / f"gpu-{label}-{results['machine']['date'][:10]}"
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    head = [f"- {name}: {value}" for name, value in results["machine"].items()]
    parts = [markdown_of(name, section) for name, section in results["sections"].items()]
    path.with_suffix(".md").write_text("\n".join(["# minitx on a device", "", *head, "", *parts]) + "\n")
    print(f"written: {path}.json and .md")
