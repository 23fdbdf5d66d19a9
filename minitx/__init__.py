"""minitx: transformers from scratch in pure PyTorch, with real checkpoints in and out.

Public names are imported when first used, so that `import minitx` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minitx.checkpoint.load import from_config, load
    from minitx.checkpoint.save import save
    from minitx.config import (
        EmbedderConfig,
        ExpertsConfig,
        HeadConfig,
        ModelConfig,
        RopeConfig,
        StackConfig,
    )
    from minitx.decoding.generate import generate, stream
    from minitx.decoding.generation_config import GenerationSettings, generation_settings
    from minitx.decoding.output import Event, Result
    from minitx.decoding.processors.chain import Chain
    from minitx.decoding.samplers.alternatives import Alternatives
    from minitx.decoding.samplers.arithmetic import ArithmeticSample
    from minitx.decoding.samplers.greedy import Greedy
    from minitx.decoding.samplers.sample import Sample
    from minitx.decoding.score import Scores, score
    from minitx.decoding.search.beam import Beam
    from minitx.decoding.search.beam_sample import BeamSample
    from minitx.decoding.search.constrained import LexicalBeam
    from minitx.decoding.search.diverse import DiverseBeam
    from minitx.decoding.search.stochastic import StochasticBeam
    from minitx.decoding.stopping import Stop
    from minitx.inspect.explain import Explanation, explain
    from minitx.layers.cache import Cache
    from minitx.models import DecoderModel, EncoderDecoderModel, EncoderModel, ModelOutput
    from minitx.pipelines.text.embed import EmbeddingSettings, embed, embedding_settings
    from minitx.tokenizer import Tokenizer, load_tokenizer

__version__ = "0.1.0"

_HOME = {
    "Alternatives": "minitx.decoding.samplers.alternatives",
    "ArithmeticSample": "minitx.decoding.samplers.arithmetic",
    "Beam": "minitx.decoding.search.beam",
    "BeamSample": "minitx.decoding.search.beam_sample",
    "Cache": "minitx.layers.cache",
    "Chain": "minitx.decoding.processors.chain",
    "DecoderModel": "minitx.models",
    "DiverseBeam": "minitx.decoding.search.diverse",
    "EmbedderConfig": "minitx.config",
    "EmbeddingSettings": "minitx.pipelines.text.embed",
    "EncoderDecoderModel": "minitx.models",
    "EncoderModel": "minitx.models",
    "Event": "minitx.decoding.output",
    "ExpertsConfig": "minitx.config",
    "Explanation": "minitx.inspect.explain",
    "GenerationSettings": "minitx.decoding.generation_config",
    "Greedy": "minitx.decoding.samplers.greedy",
    "HeadConfig": "minitx.config",
    "LexicalBeam": "minitx.decoding.search.constrained",
    "ModelConfig": "minitx.config",
    "ModelOutput": "minitx.models",
    "Result": "minitx.decoding.output",
    "RopeConfig": "minitx.config",
    "Sample": "minitx.decoding.samplers.sample",
    "Scores": "minitx.decoding.score",
    "StackConfig": "minitx.config",
    "StochasticBeam": "minitx.decoding.search.stochastic",
    "Stop": "minitx.decoding.stopping",
    "Tokenizer": "minitx.tokenizer",
    "embed": "minitx.pipelines.text.embed",
    "embedding_settings": "minitx.pipelines.text.embed",
    "explain": "minitx.inspect.explain",
    "from_config": "minitx.checkpoint.load",
    "generate": "minitx.decoding.generate",
    "generation_settings": "minitx.decoding.generation_config",
    "load": "minitx.checkpoint.load",
    "load_tokenizer": "minitx.tokenizer",
    "save": "minitx.checkpoint.save",
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
