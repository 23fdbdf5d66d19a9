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
    from minitx.decoding.alternatives import Alternatives
    from minitx.decoding.arithmetic import ArithmeticSample
    from minitx.decoding.beam import Beam
    from minitx.decoding.beam_sample import BeamSample
    from minitx.decoding.chain import Chain
    from minitx.decoding.diverse import DiverseBeam
    from minitx.decoding.explain import Explanation, explain
    from minitx.decoding.generate import generate, stream
    from minitx.decoding.lexical import LexicalBeam
    from minitx.decoding.result import Event, Result
    from minitx.decoding.score import Scores, score
    from minitx.decoding.settings import GenerationSettings, generation_settings
    from minitx.decoding.stochastic import StochasticBeam
    from minitx.decoding.stop import Stop
    from minitx.decoding.strategy import Greedy, Sample
    from minitx.models import DecoderModel, EncoderDecoderModel, EncoderModel, ModelOutput
    from minitx.pipelines.embed import EmbeddingSettings, embed, embedding_settings
    from minitx.tokenizer import Tokenizer, load_tokenizer
    from minitx.weights.load import from_config, load
    from minitx.weights.save import save

__version__ = "0.1.0"

_HOME = {
    "Alternatives": "minitx.decoding.alternatives",
    "ArithmeticSample": "minitx.decoding.arithmetic",
    "Beam": "minitx.decoding.beam",
    "BeamSample": "minitx.decoding.beam_sample",
    "Cache": "minitx.cache",
    "Chain": "minitx.decoding.chain",
    "DecoderModel": "minitx.models",
    "DiverseBeam": "minitx.decoding.diverse",
    "EmbedderConfig": "minitx.config",
    "EmbeddingSettings": "minitx.pipelines.embed",
    "EncoderDecoderModel": "minitx.models",
    "EncoderModel": "minitx.models",
    "Event": "minitx.decoding.result",
    "ExpertsConfig": "minitx.config",
    "Explanation": "minitx.decoding.explain",
    "GenerationSettings": "minitx.decoding.settings",
    "Greedy": "minitx.decoding.strategy",
    "HeadConfig": "minitx.config",
    "LexicalBeam": "minitx.decoding.lexical",
    "ModelConfig": "minitx.config",
    "ModelOutput": "minitx.models",
    "Result": "minitx.decoding.result",
    "RopeConfig": "minitx.config",
    "Sample": "minitx.decoding.strategy",
    "Scores": "minitx.decoding.score",
    "StackConfig": "minitx.config",
    "StochasticBeam": "minitx.decoding.stochastic",
    "Stop": "minitx.decoding.stop",
    "Tokenizer": "minitx.tokenizer",
    "embed": "minitx.pipelines.embed",
    "embedding_settings": "minitx.pipelines.embed",
    "explain": "minitx.decoding.explain",
    "from_config": "minitx.weights.load",
    "generate": "minitx.decoding.generate",
    "generation_settings": "minitx.decoding.settings",
    "load": "minitx.weights.load",
    "load_tokenizer": "minitx.tokenizer",
    "save": "minitx.weights.save",
    "score": "minitx.decoding.score",
    "stream": "minitx.decoding.generate",
}

__all__ = [
    "Alternatives",
    "ArithmeticSample",
    "Beam",
    "BeamSample",
    "Cache",
    "Chain",
    "DecoderModel",
    "DiverseBeam",
    "EmbedderConfig",
    "EmbeddingSettings",
    "EncoderDecoderModel",
    "EncoderModel",
    "Event",
    "ExpertsConfig",
    "Explanation",
    "GenerationSettings",
    "Greedy",
    "HeadConfig",
    "LexicalBeam",
    "ModelConfig",
    "ModelOutput",
    "Result",
    "RopeConfig",
    "Sample",
    "Scores",
    "StackConfig",
    "StochasticBeam",
    "Stop",
    "Tokenizer",
    "embed",
    "embedding_settings",
    "explain",
    "from_config",
    "generate",
    "generation_settings",
    "load",
    "load_tokenizer",
    "save",
    "score",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minitx' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
