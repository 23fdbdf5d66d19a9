#!/usr/bin/env python
"""Write tests/parity/fixtures/guidance.json: contrastive search and DoLa of transformers 4.53.3.

Later versions of transformers no longer have them. Run it in a separate environment:

    python -m venv old && old/bin/pip install transformers==4.53.3 torch
    old/bin/python scripts/make_guidance_fixtures.py

Models are tiny, with weights by a formula (tests/parity/formula.py); cases are drawn by seed. All batches
have one row, since DoLa of 4.53 chooses one layer for all rows.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.parity.formula import weight  # noqa: E402 - found by the line above

VERSION = "4.53.3"
VOCAB, PAD, START = 40, 0, 1
COMMON = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": 2}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 8, "n_positions": 48},
    "llama": {**LLAMA, "num_hidden_layers": 7, "tie_word_embeddings": False},
    "llama-tied": {**LLAMA, "num_hidden_layers": 6, "tie_word_embeddings": True},
    "bart": {
        "model_type": "bart",
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 20,
        "max_position_embeddings": 48,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    },
}
CASES, NEW = 12, 12  # per model and method; new tokens


def made(name: str) -> tuple[Any, dict[str, list[int]]]:
    """Make a model in eval mode; return it and the shapes of its weights by their names in a checkpoint."""
    config = transformers.AutoConfig.for_model(**COMMON, **CONFIGS[name])
    kind = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    model = getattr(transformers, kind).from_config(config).eval()
    tied = {id(parameter): key for key, parameter in model.named_parameters()}
    shapes = {}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(weight(tied[id(parameter)], parameter.shape))
            shapes[key] = list(parameter.shape)
    return model, shapes


def case(model: Any, name: str, options: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    prompt = [rng.randrange(3, VOCAB) for _ in range(rng.randint(1, 9))]
    penalty = rng.choice((1.0, 1.0, 1.2))
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW,
        do_sample=False,
        repetition_penalty=penalty,
        pad_token_id=PAD,
        eos_token_id=None,
        **options,
    )
    start = 1 if model.config.is_encoder_decoder else len(prompt)
    tokens = out[0, start:].tolist()
    return {"model": name, "prompt": prompt, "penalty": penalty, "options": options, "tokens": tokens}


def main() -> None:
    if transformers.__version__ != VERSION:
        raise SystemExit(f"This needs transformers {VERSION}, not {transformers.__version__}.")
    rng, models, contrastive, dola = random.Random(0), {}, [], []
    for name in CONFIGS:
        model, shapes = made(name)
        models[name] = {"config": {**COMMON, **CONFIGS[name]}, "shapes": shapes}
        for _ in range(CASES):
            options = {"penalty_alpha": rng.choice((0.2, 0.4, 0.6, 0.8)), "top_k": rng.choice((2, 4, 7))}
            contrastive.append(case(model, name, options, rng))
        if not model.config.is_encoder_decoder:
            for number in range(CASES):
                layers = ("low", "high", sorted(rng.sample(range(6), rng.randint(1, 4))))[number % 3]
                dola.append(case(model, name, {"dola_layers": layers}, rng))
    made_by = {"made_by": "scripts/make_guidance_fixtures.py", "transformers": VERSION}
    content = {**made_by, "models": models, "contrastive": contrastive, "dola": dola}
    file = ROOT / "tests" / "parity" / "fixtures" / "guidance.json"
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
