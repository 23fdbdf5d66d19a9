"""Compares `minitx.inspect.estimate` with measurement, each case in a fresh process on Linux.

The peak is that of the resident memory of the process, less that before the model, and after a run of a small
model of the same kind. Large tensors are mapped
by themselves (MALLOC_MMAP_THRESHOLD_), so that freed ones leave the process at once.

    .venv/bin/python benchmarks/estimate.py [CASE ...]
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 4}
SIZES |= {"intermediate_size": 2048, "vocab_size": 16000, "max_position_embeddings": 1024}
GPT2 = {"model_type": "gpt2", "n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 1024}
LLAMA = SIZES | {"num_key_value_heads": 2, "intermediate_size": 1408}
WINDOW = {"sliding_window": 64}
T5 = {"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 4, "num_heads": 8}
T5 |= {"vocab_size": 16000, "decoder_start_token_id": 0}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "intermediate_size": 512}
DEBERTA = SIZES | {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
DEBERTA |= {"position_buckets": 128, "share_att_key": True, "num_hidden_layers": 3}
PROMPT = {"batch": 2, "length": 256, "new_tokens": 8}
TEXTS = {"batch": 4, "length": 128, "new_tokens": 0}
BASE: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
BASE |= {"intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512}
GPT2_124M = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
T5_SMALL = T5 | {"num_layers": 6, "vocab_size": 32128}
BART_BASE: dict[str, Any] = {"model_type": "bart", "d_model": 768, "vocab_size": 50265}
BART_BASE |= {"max_position_embeddings": 1024, "decoder_start_token_id": 2}
BART_BASE |= {f"{side}_layers": 6 for side in ("encoder", "decoder")}
BART_BASE |= {f"{side}_attention_heads": 12 for side in ("encoder", "decoder")}
BART_BASE |= {f"{side}_ffn_dim": 3072 for side in ("encoder", "decoder")}
MIXTRAL_200M = MIXTRAL | {"num_hidden_layers": 8, "intermediate_size": 1536, "vocab_size": 32000}
CASES: dict[str, tuple[dict[str, Any], str, dict[str, int]]] = {
    "gpt2": (GPT2 | {"vocab_size": 16000}, "causal-lm", PROMPT),
    "bert": (SIZES | {"model_type": "bert"}, "masked-lm", TEXTS),
    "t5": (T5, "seq2seq-lm", PROMPT | {"new_tokens": 32}),
    "mistral": (LLAMA | WINDOW | {"model_type": "mistral"}, "causal-lm", PROMPT),
    "mixtral": (MIXTRAL, "causal-lm", PROMPT),
    "gemma2": (LLAMA | WINDOW | {"model_type": "gemma2", "head_dim": 64}, "causal-lm", PROMPT),
    "deberta-v2": (DEBERTA, "masked-lm", TEXTS),
    "llama": (LLAMA | {"model_type": "llama"}, "causal-lm", PROMPT),
    "gpt2-124m": (GPT2_124M | {"n_positions": 1024}, "causal-lm", PROMPT),
    "bert-base": (BASE | {"model_type": "bert"}, "masked-lm", TEXTS),
    "t5-small": (T5_SMALL, "seq2seq-lm", PROMPT | {"new_tokens": 32}),
    "bart-base": (BART_BASE, "seq2seq-lm", PROMPT | {"new_tokens": 32}),
    "mixtral-200m": (MIXTRAL_200M, "causal-lm", PROMPT),
}
# Sizes that are smaller in the run before the measured one.
WIDTHS = ("hidden_size", "intermediate_size", "n_embd", "d_model", "d_ff", "d_kv", "head_dim", "vocab_size")
WIDTHS += ("encoder_ffn_dim", "decoder_ffn_dim")
KINDS = ("inference", "training")


def memory(name: str) -> int:
    """Returns a number of /proc/self/status in bytes: VmRSS, or VmHWM, the highest since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(case: str, kind: str) -> dict[str, int]:
    """Runs a case in this process; returns what was measured, in bytes."""
    config, head, sizes = CASES[case]
    small = {name: value // 8 if name in WIDTHS else value for name, value in config.items()}
    run(small, head, sizes, kind)  # so that the code is in memory
    gc.collect()
    before = memory("VmRSS")
    measured = run(config, head, sizes, kind)
    return measured | {"peak": memory("VmHWM") - before}


def run(config: dict[str, Any], head: str, sizes: dict[str, int], kind: str) -> dict[str, int]:
    """Runs a forward, a generation or two training steps; returns the bytes of parameters and cache."""
    import torch

    import minitx

    model = minitx.from_config(config, head=head, seed=0)
    ids = torch.randint(5, 1000, (sizes["batch"], sizes["length"]))
    measured = {"parameters": sum(p.numel() * p.element_size() for p in model.parameters())}
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: drawing weights is not part of it
    if kind == "training":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        labels = {"labels": ids[:, : sizes["new_tokens"]] if head == "seq2seq-lm" else ids}
        for _ in range(2):
            model(ids, **labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    elif sizes["new_tokens"]:
        measured["cache"] = generate(model.eval(), ids, sizes["new_tokens"])
    else:
        with torch.inference_mode():
            model.eval()(ids)
    return measured


def generate(model: Any, ids: Any, new_tokens: int) -> int:
    """Generates greedily; returns the bytes of the cache."""
    import torch

    import minitx
    from minitx.decoding.session import DecodingSession

    caches: list[Any] = []
    start = DecodingSession.start

    def _start(session: Any, *args: Any, **options: Any) -> None:
        start(session, *args, **options)
        caches.append(session.cache)

    DecodingSession.start = _start  # type: ignore[method-assign]
    minitx.generate(model, ids, minitx.Greedy(), max_new_tokens=new_tokens, stop=minitx.Stop(eos=()))
    parts = [*caches[0].layers, *caches[0].cross_attention]
    tensors = [x for part in parts for x in vars(part).values() if isinstance(x, torch.Tensor)]
    return sum(x.untyped_storage().nbytes() for x in tensors)


def row(case: str, kind: str) -> str:
    """Returns a line of the table."""
    from minitx.inspect import estimate

    config, head, sizes = CASES[case]
    expected = estimate(config, head=head, **sizes)
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    code = [sys.executable, __file__, "--measure", case, kind]
    measured = json.loads(subprocess.run(code, env=environment, check=True, capture_output=True).stdout)
    peak = expected.training_bytes if kind == "training" else expected.inference_bytes
    cells = [(expected.parameter_bytes, measured["parameters"]), (peak, measured["peak"])]
    cells.insert(1, (expected.cache_bytes, measured.get("cache", 0)))
    shown = [
        f"{e / 1e6:,.1f} | {m / 1e6:,.1f} | {100 * (e / m - 1):+.1f} %" if m else " | | " for e, m in cells
    ]
    return f"| {case}, {kind} | {' | '.join(shown)} |"


def main() -> None:
    """Prints the table, in MB: estimate, measurement and difference of parameters, cache and peak."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:4])))
        return
    print("| | parameters | measured | | cache | measured | | peak | measured | |")
    print("| --- " * 10 + "|")
    for case in sys.argv[1:] or CASES:
        for kind in KINDS:
            print(row(case, kind), flush=True)


if __name__ == "__main__":
    main()
