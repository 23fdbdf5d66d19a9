"""minitx: transformers from scratch in pure PyTorch, with real checkpoints in and out.

Public names are imported when first used, so that `import minitx` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.cache import Cache
    from minitx.config import (
        EmbedderConfig,
        ExpertsConfig,
        HeadConfig,
        ModelConfig,
        RopeConfig,
        StackConfig,
    )
    from minitx.models import DecoderModel, EncoderModel, ModelOutput
    from minitx.pipelines.embed import EmbeddingSettings, embed, embedding_settings
    from minitx.tokenizer import Tokenizer, load_tokenizer
    from minitx.weights.load import from_config, load
    from minitx.weights.save import save

__version__ = "0.1.0"

_HOME = {
    "Cache": "minitx.cache",
    "DecoderModel": "minitx.models",
    "EmbedderConfig": "minitx.config",
    "EmbeddingSettings": "minitx.pipelines.embed",
    "EncoderModel": "minitx.models",
    "ExpertsConfig": "minitx.config",
    "HeadConfig": "minitx.config",
    "ModelConfig": "minitx.config",
    "ModelOutput": "minitx.models",
    "RopeConfig": "minitx.config",
    "StackConfig": "minitx.config",
    "Tokenizer": "minitx.tokenizer",
    "embed": "minitx.pipelines.embed",
    "embedding_settings": "minitx.pipelines.embed",
    "from_config": "minitx.weights.load",
    "load": "minitx.weights.load",
    "load_tokenizer": "minitx.tokenizer",
    "save": "minitx.weights.save",
}

__all__ = [
    "Cache",
    "DecoderModel",
    "EmbedderConfig",
    "EmbeddingSettings",
    "EncoderModel",
    "ExpertsConfig",
    "HeadConfig",
    "ModelConfig",
    "ModelOutput",
    "RopeConfig",
    "StackConfig",
    "Tokenizer",
    "embed",
    "embedding_settings",
    "from_config",
    "load",
    "load_tokenizer",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minitx' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
