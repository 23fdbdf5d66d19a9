"""transformers on the same model and work, with a static cache and torch.compile; in a process of its own.

Compilation takes long: past its time the process is ended, and the section tells so.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.gpu.run import ROOT, Section
from benchmarks.gpu.speed import LLAMA_1B, NEW, PROMPT, REPEATS, TINY, timed


def run(section: Section) -> None:
    """Measures each batch size in a process with a time limit."""
    for batch in section.within_budget((1, 2) if section.quick else (1, 32)):
        seconds = max(5.0, section.end - time.monotonic())
        command = [sys.executable, "-m", __name__, str(section.device), str(batch), str(int(section.quick))]
        try:
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            section.notes.append(f"batch {batch}: skipped, compilation took more than {seconds:.0f} s")
            continue
        if ended.returncode:
            row = {"name": f"batch {batch}", "ok": False, "error": ended.stderr.strip()[-300:]}
        else:
            row = {"name": f"batch {batch}", "ok": True, **json.loads(ended.stdout.splitlines()[-1])}
        section.rows.append(row)


@torch.inference_mode()
def measure(device: torch.device, batch: int, quick: bool) -> dict[str, Any]:
    """Returns the speed of greedy decoding, less that of the prompt and the first token."""
    import transformers

    config = transformers.AutoConfig.for_model(**(TINY if quick else LLAMA_1B))
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    prompt, new = (8, 9) if quick else (PROMPT, NEW)
    ids = torch.randint(5, 290, (batch, prompt), generator=torch.Generator().manual_seed(0)).to(device)
    static: dict[str, Any] = {} if quick else {"cache_implementation": "static"}

    def _generate(tokens: int) -> float:
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, **static}
        mask = torch.ones_like(ids)
        return timed(lambda: model.generate(ids, attention_mask=mask, pad_token_id=0, **options), device)

    start = time.perf_counter()
    _generate(new)
    compiling = time.perf_counter() - start
    _generate(1)
    steps = [(_generate(new) - _generate(1)) / (new - 1) for _ in range(REPEATS)]
    step = statistics.median(steps)
    return {"tokens/s": batch / step, "ms/step": step * 1e3, "first call s": compiling}


if __name__ == "__main__":
    measured = measure(torch.device(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")
    sys.stdout.write(json.dumps(measured) + "\n")
