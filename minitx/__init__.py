"""minitx: transformers from scratch in pure PyTorch, with real checkpoints in and out.

Public names are imported at first use, so that `import minitx` takes a few milliseconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from minitx.version import __version__ as __version__

if TYPE_CHECKING:  # the table below, for type checkers
    from minitx.architectures import register as register
    from minitx.checkpoint.build import from_config as from_config
    from minitx.checkpoint.load import load as load
    from minitx.checkpoint.save import save as save
    from minitx.config import Alibi as Alibi
    from minitx.config import AttentionConfig as AttentionConfig
    from minitx.config import CellLoss as CellLoss
    from minitx.config import CellSelection as CellSelection
    from minitx.config import CustomInputs as CustomInputs
    from minitx.config import Disentangled as Disentangled
    from minitx.config import ExpertsConfig as ExpertsConfig
    from minitx.config import FeedForwardConfig as FeedForwardConfig
    from minitx.config import HeadConfig as HeadConfig
    from minitx.config import LayerConfig as LayerConfig
    from minitx.config import LearnedPositions as LearnedPositions
    from minitx.config import ModelConfig as ModelConfig
    from minitx.config import NormConfig as NormConfig
    from minitx.config import RelativeBias as RelativeBias
    from minitx.config import RopeConfig as RopeConfig
    from minitx.config import Rotary as Rotary
    from minitx.config import SinusoidalPositions as SinusoidalPositions
    from minitx.config import StackConfig as StackConfig
    from minitx.config import TextInputs as TextInputs
    from minitx.config import TransformConfig as TransformConfig
    from minitx.config import replace_in as replace_in
    from minitx.decoding.continuous.generate_many import generate_as_completed as generate_as_completed
    from minitx.decoding.continuous.generate_many import generate_many as generate_many
    from minitx.decoding.generate import generate as generate
    from minitx.decoding.generate import stream as stream
    from minitx.decoding.generation_config import GenerationSettings as GenerationSettings
    from minitx.decoding.generation_config import generation_settings as generation_settings
    from minitx.decoding.guidance.contrastive_search import ContrastiveSearch as ContrastiveSearch
    from minitx.decoding.output import Event as Event
    from minitx.decoding.output import Result as Result
    from minitx.decoding.prefix.prefix_cache import PrefixCache as PrefixCache
    from minitx.decoding.processors.chain import Chain as Chain
    from minitx.decoding.samplers.alternatives import Alternatives as Alternatives
    from minitx.decoding.samplers.arithmetic import ArithmeticSample as ArithmeticSample
    from minitx.decoding.samplers.greedy import Greedy as Greedy
    from minitx.decoding.samplers.sample import Sample as Sample
    from minitx.decoding.score import Scores as Scores
    from minitx.decoding.score import score as score
    from minitx.decoding.search.beam import Beam as Beam
    from minitx.decoding.search.beam_sample import BeamSample as BeamSample
    from minitx.decoding.search.constrained import LexicalBeam as LexicalBeam
    from minitx.decoding.search.diverse import DiverseBeam as DiverseBeam
    from minitx.decoding.search.stochastic import StochasticBeam as StochasticBeam
    from minitx.decoding.text.infill import Sentinels as Sentinels
    from minitx.decoding.text.infill import infill as infill
    from minitx.decoding.text.stopping import Stop as Stop
    from minitx.inspect.explain import Explanation as Explanation
    from minitx.inspect.explain import explain as explain
    from minitx.layers.activation import register_activation as register_activation
    from minitx.layers.attention import register_attention as register_attention
    from minitx.layers.cache import Cache as Cache
    from minitx.models import DecoderModel as DecoderModel
    from minitx.models import EncoderDecoderModel as EncoderDecoderModel
    from minitx.models import EncoderModel as EncoderModel
    from minitx.models import ModelOutput as ModelOutput
    from minitx.models import TableModel as TableModel
    from minitx.models.inputs import register_inputs as register_inputs
    from minitx.optimize.door import optimize as optimize
    from minitx.pipelines.embedding.embed import embed as embed
    from minitx.pipelines.embedding.settings import EmbeddingSettings as EmbeddingSettings
    from minitx.pipelines.embedding.settings import embedding_settings as embedding_settings
    from minitx.pipelines.pipeline import Pipeline as Pipeline
    from minitx.pipelines.pipeline import pipeline as pipeline
    from minitx.pipelines.register import register_task as register_task
    from minitx.tokenizer import TableTokenizer as TableTokenizer
    from minitx.tokenizer import Tokenizer as Tokenizer
    from minitx.tokenizer import load_tokenizer as load_tokenizer

_NAMES = {  # module -> its public names
    "architectures": "register",
    "checkpoint.build": "from_config",
    "checkpoint.load": "load",
    "checkpoint.save": "save",
    "config": "Alibi AttentionConfig CellLoss CellSelection CustomInputs Disentangled ExpertsConfig "
    "FeedForwardConfig HeadConfig LayerConfig LearnedPositions ModelConfig NormConfig RelativeBias "
    "RopeConfig Rotary SinusoidalPositions StackConfig TextInputs TransformConfig replace_in",
    "decoding.continuous.generate_many": "generate_as_completed generate_many",
    "decoding.generate": "generate stream",
    "decoding.generation_config": "GenerationSettings generation_settings",
    "decoding.guidance.contrastive_search": "ContrastiveSearch",
    "decoding.output": "Event Result",
    "decoding.prefix.prefix_cache": "PrefixCache",
    "decoding.processors.chain": "Chain",
    "decoding.samplers.alternatives": "Alternatives",
    "decoding.samplers.arithmetic": "ArithmeticSample",
    "decoding.samplers.greedy": "Greedy",
    "decoding.samplers.sample": "Sample",
    "decoding.score": "Scores score",
    "decoding.search.beam": "Beam",
    "decoding.search.beam_sample": "BeamSample",
    "decoding.search.constrained": "LexicalBeam",
    "decoding.search.diverse": "DiverseBeam",
    "decoding.search.stochastic": "StochasticBeam",
    "decoding.text.infill": "Sentinels infill",
    "decoding.text.stopping": "Stop",
    "inspect.explain": "Explanation explain",
    "layers.activation": "register_activation",
    "layers.attention": "register_attention",
    "layers.cache": "Cache",
    "models": "DecoderModel EncoderDecoderModel EncoderModel ModelOutput TableModel",
    "models.inputs": "register_inputs",
    "pipelines.embedding.embed": "embed",
    "pipelines.embedding.settings": "EmbeddingSettings embedding_settings",
    "pipelines.pipeline": "Pipeline pipeline",
    "pipelines.register": "register_task",
    "tokenizer": "TableTokenizer Tokenizer load_tokenizer",
}
# Subpackages that `minitx.NAME` imports.
_PACKAGES = {
    *("architectures", "checkpoint", "config", "decoding", "inspect"),
    *("layers", "models", "optimize", "pipelines", "tokenizer", "training"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"minitx.{name}")
    if name not in _MODULES:
        if name.startswith("__"):  # asked for by Python itself
            raise AttributeError(f"module 'minitx' has no attribute {name!r}")
        from minitx.habits import UnknownAttributeError

        error = UnknownAttributeError("minitx", "minitx", name, __all__)
        # `from minitx import NAME` would replace an AttributeError by a message without the hint.
        if sys._getframe(1).f_code.co_name == "_handle_fromlist" and error.hint:
            raise ImportError(str(error), name="minitx")
        raise error
    return getattr(import_module(f"minitx.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES, "__version__"])
