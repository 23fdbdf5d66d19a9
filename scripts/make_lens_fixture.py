#!/usr/bin/env python
"""Write tests/parity/fixtures/transformer_lens.json: results of TransformerLens on a small random GPT-2.

Run it in a separate environment:

    python -m venv lens && lens/bin/pip install transformer-lens==2.18.0
    lens/bin/python scripts/make_lens_fixture.py

Weights are by a formula (tests/parity/formula.py), everything is computed in float64.

logits              of the clean tokens
lens                logits of the accumulated residual stream at the last position
attribution         logit_attrs of embedding, heads and networks, at the last position
residual, heads     activation patching, of the residual stream by position and of the heads
networks            activation patching of the networks by position
scores              detect_head's measure "mul", of every head on repeated tokens
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig, head_detector, patching
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.parity.formula import weights  # noqa: E402 - found by the line above

VERSION = "2.18.0"
CONFIG = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 24, "vocab_size": 48}
CLEAN = [[5, 6, 7, 8, 9, 10], [20, 21, 22, 23, 24, 25]]
CORRUPTED = [[30, 31, 7, 33, 34, 35], [40, 21, 42, 43, 44, 45]]
TOKENS, AGAINST = [7, 8], [9, 10]
ONCE = [[11, 12, 13, 14, 15, 16, 17, 18], [31, 2, 46, 5, 22, 9, 40, 1]]


def made(shapes: dict[str, list[int]], *, fold_ln: bool) -> HookedTransformer:
    """A TransformerLens model with the weights of the formula."""
    source = GPT2LMHeadModel(GPT2Config(**CONFIG))
    source.load_state_dict(weights(shapes), strict=False)
    source.tie_weights()
    source = source.double().eval()
    config = HookedTransformerConfig(
        n_layers=CONFIG["n_layer"],
        d_model=CONFIG["n_embd"],
        n_ctx=CONFIG["n_positions"],
        d_head=CONFIG["n_embd"] // CONFIG["n_head"],
        n_heads=CONFIG["n_head"],
        d_mlp=4 * CONFIG["n_embd"],
        d_vocab=CONFIG["vocab_size"],
        act_fn="gelu_new",
        normalization_type="LNPre" if fold_ln else "LN",
        eps=1e-5,
        use_attn_result=True,
        dtype=torch.float64,
        device="cpu",
    )
    model = HookedTransformer(config)
    if fold_ln:
        config.normalization_type = "LN"  # of the weights before they are folded
    model.load_and_process_state_dict(
        convert_gpt2_weights(source, config),
        fold_ln=fold_ln,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model.eval()


def shapes_of() -> dict[str, list[int]]:
    """Shapes of the weights of GPT-2 by their names in a checkpoint."""
    parameters = GPT2LMHeadModel(GPT2Config(**CONFIG)).named_parameters()
    return {name: list(parameter.shape) for name, parameter in parameters}


def metric(logits: Tensor) -> Tensor:
    """The mean logit difference at the last position."""
    rows = torch.arange(len(logits))
    return (logits[rows, -1, TOKENS] - logits[rows, -1, AGAINST]).mean()


def lens(model: HookedTransformer) -> Tensor:
    """Logits of the residual stream before each layer and after the last: (layers + 1, B, V)."""
    _, cache = model.run_with_cache(torch.tensor(CLEAN))
    return model.unembed(cache.accumulated_resid(layer=-1, apply_ln=True)[:, :, -1])


def attribution(model: HookedTransformer) -> dict[str, Tensor]:
    """Contributions to the logit difference at the last position: (B,) each."""
    _, cache = model.run_with_cache(torch.tensor(CLEAN))
    heads, head_names = cache.stack_head_results(layer=-1, pos_slice=-1, return_labels=True)
    parts, names = cache.decompose_resid(layer=-1, mode="mlp", pos_slice=-1, return_labels=True)
    stack = torch.cat((heads, parts))
    values = cache.logit_attrs(
        stack, torch.tensor(TOKENS), torch.tensor(AGAINST), pos_slice=-1, has_batch_dim=True
    )
    return dict(zip([*head_names, *names], values, strict=True))


def scores(model: HookedTransformer) -> dict[str, list[list[float]]]:
    """The share of each head's attention at the places of three patterns: the mean of the rows."""
    kinds = {
        "induction": head_detector.get_induction_head_detection_pattern,
        "duplicate_token": head_detector.get_duplicate_token_head_detection_pattern,
        "previous_token": head_detector.get_previous_token_head_detection_pattern,
    }
    results = {}
    for name, pattern in kinds.items():
        rows = []
        for row in ONCE:
            tokens = torch.tensor([row + row])
            _, cache = model.run_with_cache(tokens, remove_batch_dim=True)
            rows.append(
                [
                    [
                        head_detector.compute_head_attention_similarity_score(
                            cache["pattern", layer, "attn"][head],
                            detection_pattern=pattern(tokens),
                            exclude_bos=False,
                            exclude_current_token=False,
                            error_measure="mul",
                        )
                        for head in range(CONFIG["n_head"])
                    ]
                    for layer in range(CONFIG["n_layer"])
                ]
            )
        results[name] = torch.tensor(rows).mean(dim=0).tolist()
    return results


def main() -> None:
    if version("transformer-lens") != VERSION:
        raise SystemExit(f"This needs transformer-lens {VERSION}.")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    shapes = shapes_of()
    plain, folded = made(shapes, fold_ln=False), made(shapes, fold_ln=True)
    clean, corrupted = torch.tensor(CLEAN), torch.tensor(CORRUPTED)
    logits, cache = plain.run_with_cache(clean)
    fixture: dict[str, Any] = {
        "transformer_lens": VERSION,
        "config": CONFIG,
        "shapes": shapes,
        "clean": CLEAN,
        "corrupted": CORRUPTED,
        "tokens": TOKENS,
        "against": AGAINST,
        "once": ONCE,
        "logits": logits.tolist(),
        "lens": lens(plain).tolist(),
        "attribution": {name: value.tolist() for name, value in attribution(folded).items()},
        "residual": patching.get_act_patch_resid_pre(plain, corrupted, cache, metric).tolist(),
        "heads": patching.get_act_patch_attn_head_out_all_pos(plain, corrupted, cache, metric).tolist(),
        "networks": patching.get_act_patch_mlp_out(plain, corrupted, cache, metric).tolist(),
        "scores": scores(plain),
    }
    path = ROOT / "tests" / "parity" / "fixtures" / "transformer_lens.json"
    path.write_text(json.dumps(fixture) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
