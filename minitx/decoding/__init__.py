"""Decoding: logits -> chain of processors -> sampler -> loop of the strategy -> result.

`arguments.py` checks the arguments of `generate` and makes a `GenerationRequest`; a `DecodingSession` holds
the state of the running generation; the strategy drives the session and yields events, from which `output.py`
builds the result.

Each part is small and works alone. `processors` changes logits: `context.py` is the token history that a
processor gets, `chain.py` applies processors in order, the other files are the processors. `strategy.py`
declares them as parameters, one field each, with `parameters.py`. `samplers` chooses one token per row and
step; `search` compares whole hypotheses instead. Each strategy has a file in one of the two folders.
"""

from minitx.decoding.processors.base import Processor, StatefulProcessor
from minitx.decoding.processors.bias import BadWords, ExponentialDecayLength, LogitBias, SequenceBias
from minitx.decoding.processors.chain import Chain, select_state
from minitx.decoding.processors.constraints import (
    AllowedTokens,
    BeginSuppressTokens,
    ForcedBos,
    ForcedEos,
    MinLength,
    MinNewTokens,
    PrefixAllowed,
    SuppressTokens,
)
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.penalties import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from minitx.decoding.processors.temperature import RemoveInvalid, Renormalize, Temperature
from minitx.decoding.processors.truncation import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.alternatives import Alternatives
from minitx.decoding.samplers.arithmetic import ArithmeticSample
from minitx.decoding.samplers.base import Argmax
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import MultinomialSampler, Sample
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.search.diverse import DiverseBeam
from minitx.decoding.search.stochastic import StochasticBeam
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy

# fmt: off
__all__ = [
    "AllowedTokens", "Alternatives", "Argmax", "ArithmeticSample", "BadWords", "Beam", "BeamSample",
    "BeginSuppressTokens", "Chain", "Context", "CounterGumbel", "DecodingSession", "DiverseBeam",
    "EncoderNoRepeatNGram", "EncoderRepetitionPenalty", "Epsilon", "Eta", "ExponentialDecayLength",
    "ForcedBos", "ForcedEos", "FrequencyPenalty", "GenerationRequest", "Greedy", "LexicalBeam", "LogitBias",
    "MinLength", "MinNewTokens", "MinP", "MultinomialSampler", "NoRepeatNGram", "PrefixAllowed",
    "PresencePenalty", "Processor", "RemoveInvalid", "Renormalize", "RepetitionPenalty", "Sample",
    "SequenceBias", "StatefulProcessor", "StochasticBeam", "Strategy", "SuppressTokens", "Temperature",
    "TopH", "TopK", "TopP", "Typical", "select_state",
]
# fmt: on
