"""The registry: `model_type` of a config.json -> its architecture, imported on first use."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from minitx.architectures.declaration import NATIVE, Architecture
from minitx.validation import ArgumentTypeError, ArgumentValueError

# model_type -> the file in this folder. One file can serve several types that differ in name only.
REGISTRY = {
    "albert": "encoders.albert",
    "bart": "encoder_decoders.bart",
    "bert": "encoders.bert",
    "blenderbot": "encoder_decoders.blenderbot",
    "bloom": "decoders.bloom",
    "camembert": "encoders.roberta",
    "deberta-v2": "encoders.deberta_v2",
    "distilbert": "encoders.distilbert",
    "electra": "encoders.electra",
    "encoder-decoder": "encoder_decoders.encoder_decoder",
    "gemma": "decoders.gemma",
    "gemma2": "decoders.gemma2",
    "gemma3_text": "decoders.gemma3",
    "gpt2": "decoders.gpt2",
    "gpt_neo": "decoders.gpt_neo",
    "gpt_neox": "decoders.gpt_neox",
    "gpt_oss": "decoders.gpt_oss",
    "gptj": "decoders.gptj",
    "granite": "decoders.granite",
    "llama": "decoders.llama",
    "m2m_100": "encoder_decoders.m2m_100",
    "marian": "encoder_decoders.marian",
    "mbart": "encoder_decoders.mbart",
    "mistral": "decoders.mistral",
    "mixtral": "decoders.mixtral",
    "modernbert": "encoders.modernbert",
    "mpnet": "encoders.mpnet",
    "mt5": "encoder_decoders.t5",
    "olmo2": "decoders.olmo2",
    "opt": "decoders.opt",
    "pegasus": "encoder_decoders.pegasus",
    "phi": "decoders.phi",
    "phi3": "decoders.phi3",
    "qwen2": "decoders.qwen2",
    "qwen3": "decoders.qwen3",
    "qwen3_moe": "decoders.qwen3_moe",
    "roberta": "encoders.roberta",
    "smollm3": "decoders.smollm3",
    "t5": "encoder_decoders.t5",
    "tapas": "encoders.tapas",
    "umt5": "encoder_decoders.t5",
    "xlm-roberta": "encoders.roberta",
}


_REGISTERED: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Makes a custom architecture known under its `model_types`, for loading, saving and `from_config`.

    Args:
        architecture: declares how config.json is read and what the tensors are called; the files of
            minitx/architectures/ are examples. Registering a model_type again replaces it.

    Raises:
        ArgumentTypeError: not an `Architecture`.
        ArgumentValueError: no model_type, or one that minitx itself has.

    Example:
        >>> from minitx.architectures.encoders import bert
        >>> mine = dataclasses.replace(bert.ARCHITECTURE, model_types={"mine": "Mine"})
        >>> minitx.register(mine)
        >>> model = minitx.from_config({"model_type": "mine", **sizes}, head="masked-lm")
    """
    if not isinstance(architecture, Architecture):
        raise ArgumentTypeError("architecture", architecture, "an Architecture")
    if not architecture.model_types:
        raise ArgumentValueError("model_types", architecture.model_types, 'names such as {"mine": "Mine"}')
    for model_type in architecture.model_types:
        if model_type in REGISTRY or model_type == NATIVE:
            raise ArgumentValueError("model_types", model_type, "new names", "minitx has this one itself")
    _REGISTERED.update(dict.fromkeys(architecture.model_types, architecture))


def architecture(model_type: str) -> Architecture:
    """Returns the architecture of a `model_type`.

    Raises:
        ValueError: an unknown type; the message suggests the nearest.
    """
    if model_type in _REGISTERED:
        return _REGISTERED[model_type]
    if model_type != NATIVE and model_type not in REGISTRY:
        near = get_close_matches(model_type, (*REGISTRY, *_REGISTERED), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"model_type {model_type!r} is not supported.{hint} minitx has: {', '.join(sorted(REGISTRY))}."
        )
    module = import_module(f"minitx.architectures.{REGISTRY.get(model_type, 'native')}")
    declaration: Architecture = module.ARCHITECTURE
    return declaration
