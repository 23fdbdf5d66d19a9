"""Decoding: logits -> chain of processors -> sampler -> loop of the strategy -> result.

`arguments.py` checks the arguments of `generate` and makes a `GenerationRequest`; a `DecodingSession` holds
the state of the running generation; the strategy drives the session and yields events, from which `output.py`
builds the result.

Each part is small and works alone. `processors` changes logits: `context.py` is the token history that a
processor gets, `chain.py` applies processors in order, the other files are the processors. `strategy.py`
declares them as parameters, one field each, with `parameters.py`. `samplers` chooses one token per row and
step; `search` compares whole hypotheses instead. Each strategy has a file in one of the two folders.
"""

from minitx.decoding.processors.base import Processor as Processor
from minitx.decoding.processors.base import StatefulProcessor as StatefulProcessor
from minitx.decoding.processors.bias import BadWords as BadWords
from minitx.decoding.processors.bias import ExponentialDecayLength as ExponentialDecayLength
from minitx.decoding.processors.bias import LogitBias as LogitBias
from minitx.decoding.processors.bias import SequenceBias as SequenceBias
from minitx.decoding.processors.chain import Chain as Chain
from minitx.decoding.processors.chain import select_state as select_state
from minitx.decoding.processors.constraints import AllowedTokens as AllowedTokens
from minitx.decoding.processors.constraints import BeginSuppressTokens as BeginSuppressTokens
from minitx.decoding.processors.constraints import ForcedBos as ForcedBos
from minitx.decoding.processors.constraints import ForcedEos as ForcedEos
from minitx.decoding.processors.constraints import MinLength as MinLength
from minitx.decoding.processors.constraints import MinNewTokens as MinNewTokens
from minitx.decoding.processors.constraints import PrefixAllowed as PrefixAllowed
from minitx.decoding.processors.constraints import SuppressTokens as SuppressTokens
from minitx.decoding.processors.context import Context as Context
from minitx.decoding.processors.dry import DRY as DRY
from minitx.decoding.processors.feedback import AdaptiveP as AdaptiveP
from minitx.decoding.processors.feedback import Mirostat as Mirostat
from minitx.decoding.processors.feedback import MirostatV1 as MirostatV1
from minitx.decoding.processors.penalties import EncoderNoRepeatNGram as EncoderNoRepeatNGram
from minitx.decoding.processors.penalties import EncoderRepetitionPenalty as EncoderRepetitionPenalty
from minitx.decoding.processors.penalties import FrequencyPenalty as FrequencyPenalty
from minitx.decoding.processors.penalties import NoRepeatNGram as NoRepeatNGram
from minitx.decoding.processors.penalties import PresencePenalty as PresencePenalty
from minitx.decoding.processors.penalties import RelativeFrequencyPenalty as RelativeFrequencyPenalty
from minitx.decoding.processors.penalties import RepetitionPenalty as RepetitionPenalty
from minitx.decoding.processors.reshape import AveragedXTC as AveragedXTC
from minitx.decoding.processors.reshape import DynamicTemperature as DynamicTemperature
from minitx.decoding.processors.reshape import Entmax as Entmax
from minitx.decoding.processors.reshape import EntropyTemperature as EntropyTemperature
from minitx.decoding.processors.reshape import Skew as Skew
from minitx.decoding.processors.reshape import Smoothing as Smoothing
from minitx.decoding.processors.temperature import RemoveInvalid as RemoveInvalid
from minitx.decoding.processors.temperature import Renormalize as Renormalize
from minitx.decoding.processors.temperature import Temperature as Temperature
from minitx.decoding.processors.thresholds import PLess as PLess
from minitx.decoding.processors.thresholds import TailFree as TailFree
from minitx.decoding.processors.thresholds import TopA as TopA
from minitx.decoding.processors.thresholds import TopNSigma as TopNSigma
from minitx.decoding.processors.truncation import Epsilon as Epsilon
from minitx.decoding.processors.truncation import Eta as Eta
from minitx.decoding.processors.truncation import MinP as MinP
from minitx.decoding.processors.truncation import TopH as TopH
from minitx.decoding.processors.truncation import TopK as TopK
from minitx.decoding.processors.truncation import TopP as TopP
from minitx.decoding.processors.truncation import Typical as Typical
from minitx.decoding.processors.xtc import XTC as XTC
from minitx.decoding.request import GenerationRequest as GenerationRequest
from minitx.decoding.samplers.alternatives import Alternatives as Alternatives
from minitx.decoding.samplers.arithmetic import ArithmeticSample as ArithmeticSample
from minitx.decoding.samplers.base import Argmax as Argmax
from minitx.decoding.samplers.counter_rng import CounterGumbel as CounterGumbel
from minitx.decoding.samplers.greedy import Greedy as Greedy
from minitx.decoding.samplers.sample import MultinomialSampler as MultinomialSampler
from minitx.decoding.samplers.sample import Sample as Sample
from minitx.decoding.search.beam import Beam as Beam
from minitx.decoding.search.beam_sample import BeamSample as BeamSample
from minitx.decoding.search.constrained import LexicalBeam as LexicalBeam
from minitx.decoding.search.diverse import DiverseBeam as DiverseBeam
from minitx.decoding.search.stochastic import StochasticBeam as StochasticBeam
from minitx.decoding.session import DecodingSession as DecodingSession
from minitx.decoding.strategy import Strategy as Strategy

__all__ = sorted(name for name, value in globals().items() if callable(value) and name[0] != "_")
