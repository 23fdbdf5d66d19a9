"""Whether the sums of log-probabilities that a search compares can only fall.

The model's log-probabilities are at most 0. If the processors keep them there, a text that goes on can only
lose, and a search may stop as soon as no beam, lose it as little as it may, can still win.
"""

from __future__ import annotations

from typing import Any

from minitx.decoding.at_least import AtLeast
from minitx.decoding.chain import Chain
from minitx.decoding.constraints import (
    AllowedTokens,
    BadWords,
    BeginSuppressTokens,
    ExponentialDecayLength,
    ForcedBos,
    ForcedEos,
    LogitBias,
    MinLength,
    MinNewTokens,
    PrefixAllowed,
    SequenceBias,
    SuppressTokens,
)
from minitx.decoding.penalties import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    FrequencyPenalty,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from minitx.decoding.reshape import RemoveInvalid, Renormalize, Temperature
from minitx.decoding.truncate import Epsilon, Eta, MinP, TopH, TopK, TopP, Typical

# Bans, factors above 0, and a 0 for what is forced: what is at most 0 stays so.
_HARMLESS = frozenset(
    {
        AllowedTokens,
        BadWords,
        BeginSuppressTokens,
        EncoderNoRepeatNGram,
        EncoderRepetitionPenalty,
        Epsilon,
        Eta,
        ForcedBos,
        ForcedEos,
        MinLength,
        MinNewTokens,
        MinP,
        NoRepeatNGram,
        PrefixAllowed,
        RemoveInvalid,
        RepetitionPenalty,
        SuppressTokens,
        Temperature,
        TopH,
        TopK,
        TopP,
        Typical,
    }
)


def never_raises(chain: Chain, below: bool = True) -> bool:
    """Whether what the chain leaves is at most 0; False where that is not known.

    Args:
        chain: of processors.
        below: whether what it is given is at most 0.
    """
    for processor in chain.processors:
        if isinstance(processor, Chain):
            below = never_raises(processor, below)
        else:
            below = type(processor) is Renormalize or (below and _harmless(processor))
    return below


def _harmless(processor: Any) -> bool:
    if isinstance(processor, AtLeast):
        return _harmless(processor.filter)
    kind = type(processor)
    if kind in (PresencePenalty, FrequencyPenalty):
        return _least(processor.penalty) >= 0
    if kind is SequenceBias:
        return bool(max(processor.sequence_bias.values()) <= 0)
    if kind is LogitBias:
        return bool(max(processor.logit_bias.values()) <= 0)
    if kind is ExponentialDecayLength:
        return bool(processor.factor <= 1)
    return kind in _HARMLESS


def _least(values: Any) -> float:
    return float(min(values) if isinstance(values, tuple) else values)
