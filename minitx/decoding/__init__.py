"""Decoding: logits -> chain of processors -> sampler -> loop of the strategy -> result.

`arguments.py` checks the arguments of `generate` and makes a `GenerationRequest`; a `DecodingSession` holds
the state of the running generation; the strategy drives the session and yields events, from which `output.py`
builds the result.

Each part is small and works alone. `processors` changes logits: `context.py` is the token history that a
processor gets, `chain.py` applies processors in order, the other files are the processors. `strategy.py`
declares them as parameters, one field each, with `parameters.py`. `samplers` chooses one token per row and
step; `search` compares whole hypotheses instead. `speculative` and `trees` check several drafted tokens in
one forward. Each strategy has a file in one of these four folders. `presets` has the orders and default
values of other libraries, `rows` the token histories of a session, `text` prompts, stop conditions and texts.

Further folders add to a call: `grammar` restricts the text, `guidance` combines the model's logits with those
of other prompts, models or layers before the chain, `watermark` marks the text and detects marks. `answers`
chooses among the rows of a result, `parallel` fills masked positions in any order with a masked language
model, and `catalogue` is the table of all strategies.
"""

from minitx.decoding.answers.cot import CoTDecoding as CoTDecoding
from minitx.decoding.answers.cot import cot_decoding as cot_decoding
from minitx.decoding.answers.exhaustive import Enumeration as Enumeration
from minitx.decoding.answers.exhaustive import exhaustive as exhaustive
from minitx.decoding.answers.mbr import Consensus as Consensus
from minitx.decoding.answers.mbr import mbr as mbr
from minitx.decoding.answers.ranking import Ranking as Ranking
from minitx.decoding.answers.ranking import best_of as best_of
from minitx.decoding.answers.ranking import rerank as rerank
from minitx.decoding.answers.utility import chrf as chrf
from minitx.decoding.answers.utility import token_f1 as token_f1
from minitx.decoding.answers.vote import Vote as Vote
from minitx.decoding.answers.vote import self_consistency as self_consistency
from minitx.decoding.grammar.forced import forced_text as forced_text
from minitx.decoding.grammar.forced import forced_tokens as forced_tokens
from minitx.decoding.grammar.values import Choices as Choices
from minitx.decoding.grammar.values import Grammar as Grammar
from minitx.decoding.grammar.values import JsonSchema as JsonSchema
from minitx.decoding.grammar.values import Lazy as Lazy
from minitx.decoding.grammar.values import Regex as Regex
from minitx.decoding.guidance.base import Guidance as Guidance
from minitx.decoding.guidance.contrast import ClassifierFree as ClassifierFree
from minitx.decoding.guidance.contrast import ContextAware as ContextAware
from minitx.decoding.guidance.contrast import ContrastiveDecoding as ContrastiveDecoding
from minitx.decoding.guidance.contrast import Experts as Experts
from minitx.decoding.guidance.contrastive_search import ContrastiveSearch as ContrastiveSearch
from minitx.decoding.guidance.dola import DoLa as DoLa
from minitx.decoding.guidance.ensemble import Ensemble as Ensemble
from minitx.decoding.guidance.fsd import FSD as FSD
from minitx.decoding.guidance.score_function import ScoreFunction as ScoreFunction
from minitx.decoding.guidance.session import open_session as open_session
from minitx.decoding.parallel.entropy_bound import EntropyBound as EntropyBound
from minitx.decoding.parallel.fill import fill as fill
from minitx.decoding.parallel.fill import mask_predict as mask_predict
from minitx.decoding.parallel.mask_predict import MaskPredict as MaskPredict
from minitx.decoding.parallel.remasking import Remasking as Remasking
from minitx.decoding.parallel.result import FillResult as FillResult
from minitx.decoding.parallel.schedule import FillStep as FillStep
from minitx.decoding.parallel.schedule import FillStrategy as FillStrategy
from minitx.decoding.parallel.schedule import FillUpdate as FillUpdate
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
from minitx.decoding.processors.forcing import PrefixBias as PrefixBias
from minitx.decoding.processors.forcing import ThinkingBudget as ThinkingBudget
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
from minitx.decoding.speculative.draft import Draft as Draft
from minitx.decoding.speculative.draft_model import DraftModel as DraftModel
from minitx.decoding.speculative.early_exit import EarlyExit as EarlyExit
from minitx.decoding.speculative.lengths import DynamicLength as DynamicLength
from minitx.decoding.speculative.lookup import PromptLookup as PromptLookup
from minitx.decoding.speculative.speculative import Speculative as Speculative
from minitx.decoding.speculative.suffix import SuffixDraft as SuffixDraft
from minitx.decoding.strategy import Strategy as Strategy
from minitx.decoding.text.infill_filter import Infill as Infill
from minitx.decoding.trees.eagle import EagleHead as EagleHead
from minitx.decoding.trees.eagle_draft import EagleDraft as EagleDraft
from minitx.decoding.trees.jacobi import Jacobi as Jacobi
from minitx.decoding.trees.lookahead import Lookahead as Lookahead
from minitx.decoding.trees.medusa import MedusaDraft as MedusaDraft
from minitx.decoding.trees.medusa import MedusaHeads as MedusaHeads
from minitx.decoding.trees.model_draft import TreeModel as TreeModel
from minitx.decoding.watermark.green import KGW as KGW
from minitx.decoding.watermark.green import GreenDetection as GreenDetection
from minitx.decoding.watermark.green import Unigram as Unigram
from minitx.decoding.watermark.gumbel import GumbelDetection as GumbelDetection
from minitx.decoding.watermark.gumbel import GumbelWatermark as GumbelWatermark
from minitx.decoding.watermark.synthid import SynthID as SynthID
from minitx.decoding.watermark.synthid import SynthIDDetection as SynthIDDetection

__all__ = sorted(name for name, value in globals().items() if callable(value) and name[0] != "_")
