"""The registry: `model_type` of a config.json -> its architecture, imported when first asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from minitx.architectures.architecture import Architecture

# model_type -> the file in this folder. One file can serve several types that differ in name only.
REGISTRY = {
    "albert": "albert",
    "bart": "bart",
    "bert": "bert",
    "blenderbot": "blenderbot",
    "bloom": "bloom",
    "camembert": "roberta",
    "deberta-v2": "deberta_v2",
    "distilbert": "distilbert",
    "electra": "electra",
    "encoder-decoder": "encoder_decoder",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "llama": "llama",
    "m2m_100": "m2m_100",
    "marian": "marian",
    "mbart": "mbart",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "mt5": "t5",
    "olmo2": "olmo2",
    "opt": "opt",
    "pegasus": "pegasus",
    "phi": "phi",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "roberta": "roberta",
    "smollm3": "smollm3",
    "t5": "t5",
    "umt5": "t5",
    "xlm-roberta": "roberta",
}


def architecture(model_type: str) -> Architecture:
    """The architecture of a `model_type`.

    Raises:
        ValueError: minitx does not have it; names the nearest that it has.
    """
    if model_type not in REGISTRY:
        near = get_close_matches(model_type, REGISTRY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"model_type {model_type!r} is not supported.{hint} minitx has: {', '.join(sorted(REGISTRY))}."
        )
    module = import_module(f"minitx.architectures.{REGISTRY[model_type]}")
    found: Architecture = module.ARCHITECTURE
    return found
