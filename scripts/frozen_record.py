#!/usr/bin/env python
"""Writes what minitx computes, as hashes, so that a refactoring can be held against it.

For every configuration of the parity suite and every head: hashes of the outputs in float32 and
float64 and of the saved files; for every architecture that generates: the ids, scores and log-probabilities
of every strategy with a seed; and for a list of wrong calls the type of the error and whether it names the
parameter.

    .venv/bin/python scripts/frozen_record.py before.json          # at the old commit
    .venv/bin/python scripts/frozen_record.py after.json
    .venv/bin/python scripts/frozen_record.py --compare before.json after.json

Hashes are comparable on one machine with one version of torch: kernels differ between processors.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import minitx  # noqa: E402 - found by the line above
from tests.parity.cases import CASES, Case  # noqa: E402
from tests.parity.formula import weight  # noqa: E402

OUTPUTS = (
    "last_hidden_state",
    "pooler_output",
    "logits",
    "start_logits",
    "end_logits",
    "encoder_last_hidden_state",
)
WIDE = Case(  # large enough for the products that are chosen for speed
    "gpt2-wide",
    "gpt2",
    {"vocab_size": 2048, "n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 64, "eos_token_id": 2},
)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def tensor_digest(tensor: Tensor) -> str:
    return digest(tensor.detach().contiguous().cpu().numpy().tobytes())


def checkpoint(case: Case, task: str, folder: Path) -> None:
    """Writes a checkpoint whose weights follow from their names in the file."""
    more = {"num_labels": 2} if task == "question-answering" else {}
    config = transformers.AutoConfig.for_model(case.model_type, **{**case.config, **more}).to_dict()
    minitx.save(minitx.from_config(config, head=task, seed=0), folder)
    file = folder / "model.safetensors"
    tensors = {name: weight(name, tensor.shape) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def inputs(case: Case, task: str, model: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (2, 3, 9) if task == "multiple-choice" else (2, 9)
    ids = torch.randint(4, 99, shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[0, ..., :3] = 0
    if type(model).__name__ == "EncoderDecoderModel":
        ids[..., -1] = 2
        if task == "sequence-classification":
            return {"input_ids": ids, "attention_mask": mask}
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "decoder_input_ids": torch.randint(4, 99, (2, 5), generator=generator),
        }
    return {"input_ids": ids, "attention_mask": mask}


def forward_record(case: Case, task: str, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        model = minitx.load(folder, head=task, dtype=dtype)
        with torch.no_grad():
            out = model(**inputs(case, task, model))
        for name in OUTPUTS:
            value = getattr(out, name, None)
            if value is not None:
                record[f"{dtype} {name}"] = tensor_digest(value)
    saved = folder / "saved"
    minitx.save(minitx.load(folder), saved)
    for file in sorted(saved.iterdir()):
        record[f"saved {file.name}"] = digest(file.read_bytes())
    return record


def strategies() -> dict[str, tuple[Any, dict[str, Any]]]:
    sample = {"seed": 5, "num_samples": 2}
    chosen: dict[str, tuple[Any, dict[str, Any]]] = {
        "greedy": (minitx.Greedy(repetition_penalty=1.2, no_repeat_ngram_size=3), {}),
        "sample": (minitx.Sample(), sample),
        "alternatives": (minitx.Alternatives(), {"num_samples": 3}),
        "arithmetic": (minitx.ArithmeticSample(temperature=0.9, top_p=0.95), sample),
        "beam": (minitx.Beam(num_beams=3), {"num_samples": 2}),
        "beam exact": (minitx.Beam(num_beams=3, early_stopping="exact", length_penalty=0.5), {}),
        "beam patience": (minitx.Beam(num_beams=2, patience=2.0, length_norm="gnmt"), {}),
        "beam sample": (minitx.BeamSample(num_beams=3, top_k=20, temperature=1.3), {"seed": 5}),
        "diverse": (minitx.DiverseBeam(num_beams=4, num_beam_groups=2), {"num_samples": 2}),
        "lexical": (minitx.LexicalBeam(num_beams=4, force_words_ids=[[7, 8]]), {}),
        "stochastic": (minitx.StochasticBeam(num_beams=4), sample),
        "generator": (minitx.Sample(top_k=30), {"generator": 3}),
    }
    for name, value in {
        "temperature": 0.7,
        "top_k": 11,
        "top_p": 0.8,
        "min_p": 0.05,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.01,
        "eta_cutoff": 0.01,
        "top_h": 0.5,
        "repetition_penalty": [1.5, 1.1, 1.3, 1.2],
        "presence_penalty": 1.0,
        "frequency_penalty": 0.8,
        "encoder_repetition_penalty": 1.3,
        "encoder_no_repeat_ngram_size": 2,
        "sequence_bias": {(5, 6): 3.0, (9,): -2.0},
        "bad_words_ids": [[11], [12, 13]],
        "logit_bias": {14: 5.0},
        "allowed_token_ids": list(range(3, 60)),
        "suppress_tokens": [21, 22],
        "begin_suppress_tokens": [23],
        "forced_eos_token_id": 2,
        "exponential_decay_length_penalty": (2, 1.4),
        "min_length": 6,
        "renormalize_logits": True,
    }.items():
        chosen[f"sample {name}"] = (minitx.Sample(**{name: value}), sample)
    chosen |= {
        f"order {order}": (
            minitx.Sample(
                order=order, temperature=1.5, top_p=0.8, top_k=40, min_p=0.02, repetition_penalty=1.1
            ),
            sample,
        )
        for order in ("transformers", "vllm", "llama.cpp")
    }
    return chosen


def generation_record(case: Case, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        model = minitx.load(folder, dtype=dtype)
        for name, (strategy, options) in strategies().items():
            options = {"max_new_tokens": 6, "logprobs": "raw", "stop": minitx.Stop(tokens=(3,)), **options}
            if "generator" in options:
                options["generator"] = torch.Generator().manual_seed(options["generator"])
            try:
                result = minitx.generate(model, [[5, 6, 7, 8, 9], [30, 31, 32]], strategy, **options)
            except ValueError as error:
                record[f"{dtype} {name}"] = type(error).__name__
                continue
            numbers = [tensor_digest(x) for x in result.logprobs or []]
            record[f"{dtype} {name}"] = {
                "ids": [sequence.tolist() for sequence in result.sequences],
                "reasons": list(result.finish_reasons),
                "logprobs": numbers,
                "scores": result.scores,
                "log_weights": result.log_weights,
            }
    scored = minitx.score(model, [[5, 6, 7, 8, 9]], **({"sources": [[4, 5]]} if is_seq2seq(model) else {}))
    record["score"] = [tensor_digest(x) for x in scored.logprobs]
    return record


def is_seq2seq(model: Any) -> bool:
    return bool(model.task == "seq2seq-lm")


def wrong_calls(folder: Path) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Name, the parameter that the error is to name, and the call."""
    for name, value in {
        "temperature": -1.0,
        "top_k": -3,
        "top_p": 1.2,
        "min_p": 2.0,
        "typical_p": 0.0,
        "epsilon_cutoff": 1.5,
        "eta_cutoff": -0.1,
        "top_h": 3.0,
        "repetition_penalty": 0.0,
        "presence_penalty": 9.0,
        "frequency_penalty": "x",
        "encoder_repetition_penalty": -1.0,
        "no_repeat_ngram_size": -1,
        "encoder_no_repeat_ngram_size": 1.5,
        "sequence_bias": 3,
        "bad_words_ids": ["text"],
        "logit_bias": {1: 1000.0},
        "allowed_token_ids": [],
        "suppress_tokens": [-1],
        "begin_suppress_tokens": "x",
        "forced_bos_token_id": -2,
        "forced_eos_token_id": -2,
        "exponential_decay_length_penalty": (1,),
        "prefix_allowed_tokens_fn": 3,
        "remove_invalid_values": 1,
        "renormalize_logits": "yes",
        "min_length": -1,
        "processors": 5,
        "chain": 5,
        "order": "alphabetical",
    }.items():
        yield f"Sample({name})", name, lambda name=name, value=value: minitx.Sample(**{name: value})
    for name, value in {
        "num_beams": 0,
        "length_penalty": 1e9,
        "early_stopping": "soon",
        "patience": 0.0,
        "coverage_penalty": -1.0,
        "length_norm": "x",
    }.items():
        yield f"Beam({name})", name, lambda name=name, value=value: minitx.Beam(**{name: value})
    yield "DiverseBeam", "num_beam_groups", lambda: minitx.DiverseBeam(num_beams=4, num_beam_groups=3)
    yield "Sample(temprature)", "temperature", lambda: minitx.Sample(temprature=1.0)  # type: ignore[call-arg]
    model = minitx.load(folder)
    for name, value in {
        "max_new_tokens": -1,
        "min_new_tokens": 100,
        "num_samples": 0,
        "tokenizer": 3,
        "stop": "x",
        "seed": "x",
        "generator": 4,
        "logprobs": "x",
        "top_logprobs": -1,
        "prefill_chunk": 0,
        "decoder_prompts": [[1]],
        "do_sample": True,
        "num_beams": 2,
    }.items():
        options = {"max_new_tokens": 2, name: value}
        yield f"generate({name})", name, lambda options=options: minitx.generate(model, [[5]], **options)
    for name, value in {
        "head": "x",
        "dtype": 3,
        "device": "nowhere",
        "attention": "x",
        "num_labels": 3,
    }.items():
        yield f"load({name})", name, lambda name=name, value=value: minitx.load(folder, **{name: value})
    yield "from_config(seed)", "seed", lambda: minitx.from_config({"model_type": "bert"}, seed=-1)
    ids = torch.tensor([[5, 6]])
    for name, value in {
        "attention_mask": torch.ones(1, 3),
        "position_ids": torch.tensor([[0, 99999]]),
        "labels": torch.tensor([[5.0, 6.0]]),
        "cache": 3,
        "logits_to_keep": -1,
    }.items():
        yield f"forward({name})", name, lambda name=name, value=value: model(ids, **{name: value})
    yield "forward(input_ids)", "input_ids", lambda: model(torch.tensor([[5, 10**6]]))


def error_record(folder: Path) -> dict[str, Any]:
    record = {}
    for name, parameter, call in wrong_calls(folder):
        try:
            call()
        except (TypeError, ValueError) as error:
            kind = "TypeError" if isinstance(error, TypeError) else "ValueError"
            record[name] = [kind, parameter in str(error)]
        else:
            record[name] = ["no error", False]
    return record


def make_record() -> dict[str, Any]:
    record: dict[str, Any] = {"torch": torch.__version__, "errors": {}}
    with tempfile.TemporaryDirectory() as name:
        generated: set[str] = set()
        for case in [*CASES, WIDE]:
            for task in case.tasks:
                folder = Path(name) / f"{case.name}-{task}"
                checkpoint(case, task, folder)
                record[f"{case.name} {task}"] = forward_record(case, task, folder)
                writes = task in ("causal-lm", "seq2seq-lm")
                if writes and (case.model_type not in generated or case is WIDE):
                    generated.add(case.model_type)
                    record[f"{case.name} generate"] = generation_record(case, folder)
        record["errors"] = error_record(Path(name) / "gpt2-causal-lm")
    return record


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key), after.get(key), f"{path} / {key}" if path else key)
    elif before != after:
        yield f"{path}: {before!r:.100} -> {after!r:.100}"


def main() -> None:
    if sys.argv[1] == "--compare":
        before, after = (json.loads(Path(file).read_text(encoding="utf-8")) for file in sys.argv[2:4])
        found = list(differences(before, after))
        print(*found, sep="\n")
        print(f"{len(before)} entries before, {len(after)} after, {len(found)} differences")
        sys.exit(bool(found))
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    Path(sys.argv[1]).write_text(json.dumps(make_record(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
