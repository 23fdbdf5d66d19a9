"""Decoding: logits -> chain of processors -> selector -> loop of the strategy -> result.

Each of these is small and works alone: `context.py` says what a processor may know, `chain.py` applies
them in order, `truncate.py`, `reshape.py`, `penalties.py`, `bias.py` and `constraints.py` are the processors,
`strategy.py` names them as parameters, `select.py` takes the token, and `loop.py` goes on. Searches compare
whole texts instead: `search.py` is their loop, and each has a file of its own.
"""

from minitx.decoding.alternatives import Alternatives
from minitx.decoding.arithmetic import ArithmeticSample
from minitx.decoding.beam import Beam
from minitx.decoding.beam_sample import BeamSample
from minitx.decoding.bias import BadWords, ExponentialDecayLength, LogitBias, SequenceBias
from minitx.decoding.chain import Chain, select_state
from minitx.decoding.constraints import (
    AllowedTokens,
    BeginSuppressTokens,
    ForcedBos,
    ForcedEos,
    MinLength,
    MinNewTokens,
    PrefixAllowed,
    SuppressTokens,
)
from minitx.decoding.context import Context
from minitx.decoding.diverse import DiverseBeam
from minitx.decoding.lexical import LexicalBeam
from minitx.decoding.penalties import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from minitx.decoding.processor import Processor, StatefulProcessor
from minitx.decoding.reshape import RemoveInvalid, Renormalize, Temperature
from minitx.decoding.select import Argmax, CounterNoise, Race
from minitx.decoding.stochastic import StochasticBeam
from minitx.decoding.strategy import Greedy, Sample, Strategy
from minitx.decoding.truncate import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical

__all__ = [
    "AllowedTokens",
    "Alternatives",
    "Argmax",
    "ArithmeticSample",
    "BadWords",
    "Beam",
    "BeamSample",
    "BeginSuppressTokens",
    "Chain",
    "Context",
    "CounterNoise",
    "DiverseBeam",
    "EncoderNoRepeatNGram",
    "EncoderRepetitionPenalty",
    "Epsilon",
    "Eta",
    "ExponentialDecayLength",
    "ForcedBos",
    "ForcedEos",
    "FrequencyPenalty",
    "Greedy",
    "LexicalBeam",
    "LogitBias",
    "MinLength",
    "MinNewTokens",
    "MinP",
    "NoRepeatNGram",
    "PrefixAllowed",
    "PresencePenalty",
    "Processor",
    "Race",
    "RemoveInvalid",
    "Renormalize",
    "RepetitionPenalty",
    "Sample",
    "SequenceBias",
    "StatefulProcessor",
    "StochasticBeam",
    "Strategy",
    "SuppressTokens",
    "Temperature",
    "TopH",
    "TopK",
    "TopP",
    "Typical",
    "select_state",
]
