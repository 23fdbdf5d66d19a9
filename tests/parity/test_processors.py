"""Every processor that transformers has, against it: the same -inf pattern and the same values.

transformers gets left-padded ids, minitx the left-aligned history of the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as reference

from minitx.decoding import (
    BadWords,
    BeginSuppressTokens,
    Chain,
    Context,
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    Epsilon,
    Eta,
    ExponentialDecayLength,
    ForcedBos,
    ForcedEos,
    MinLength,
    MinNewTokens,
    MinP,
    NoRepeatNGram,
    PrefixAllowed,
    RemoveInvalid,
    Renormalize,
    RepetitionPenalty,
    SequenceBias,
    SuppressTokens,
    Temperature,
    TopH,
    TopK,
    TopP,
    Typical,
)
from tests.unit.decoding.histories import KINDS, history, left_padded, logits_of

# Rows of histories: prompts of three tokens and two new ones. In a smaller vocabulary ids are taken
# modulo its size.
ROWS = [[1, 2, 3, 1, 2], [4, 4, 4, 4, 4], [0, 1, 0, 1, 0], [2, 0, 3, 4, 1]]
PROMPT = 3
SOURCE = [[1, 2, 4, 0], [4, 3, 0, 1], [1, 1, 1, 2], [3, 1, 0, 2]]
EOS = [0, 3]
STABLE = 16  # torch sorts so many without changing the order of equal ones
NEW = 3  # max_new_tokens: the rows stand one before it
BIASES = {(2,): 1.5, (1, 2): -2.0, (0, 1, 2): 0.75, (4, 4, 1): 3.0, (1, 2, 0): -1.0}
WORDS = [[1], [3], [4, 4, 2], [1, 2, 1], [1, 2, 3, 1, 2, 4, 4]]


@dataclass(frozen=True)
class Pair:
    """The same processor twice: ours, and transformers' for a prompt of a given length."""

    ours: Any
    theirs: Callable[[int], Any]


@cache
def pairs(size: int) -> dict[str, Pair]:
    """Every processor in several settings, for a vocabulary of that size."""

    def ids(tokens: Any) -> list[int]:
        return [token % size for token in tokens]

    def allowed(row: int, tokens: Tensor) -> list[int]:
        return ids([int(tokens[-1]), row, 0])

    # Behind two forced tokens top_p has to choose among equal logits, which a larger sort of torch shuffles.
    forced = ids([2, 4]) if size <= STABLE else [2]
    eos, source = ids(EOS), torch.tensor([ids(row) for row in SOURCE])
    biases = {tuple(ids(sequence)): bias for sequence, bias in BIASES.items()}
    words = [ids(word) for word in WORDS]
    t = reference
    return {
        **{
            f"temperature {x}": Pair(Temperature(x), lambda _, x=x: t.TemperatureLogitsWarper(x))
            for x in (0.7, 1.9)
        },
        **{f"top_k {k}": Pair(TopK(k), lambda _, k=k: t.TopKLogitsWarper(k)) for k in (1, 2, 3, 50)},
        **{
            f"top_p {p}": Pair(TopP(p), lambda _, p=p: t.TopPLogitsWarper(p))
            for p in (1e-9, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95)
        },
        **{f"min_p {p}": Pair(MinP(p), lambda _, p=p: t.MinPLogitsWarper(p)) for p in (0.05, 0.5, 1.0)},
        **{
            f"typical {p}": Pair(Typical(p), lambda _, p=p: t.TypicalLogitsWarper(p)) for p in (0.2, 0.5, 0.9)
        },
        **{
            f"epsilon {e}": Pair(Epsilon(e), lambda _, e=e: t.EpsilonLogitsWarper(e))
            for e in (3e-4, 0.2, 0.9)
        },
        **{f"eta {e}": Pair(Eta(e), lambda _, e=e: t.EtaLogitsWarper(e)) for e in (3e-4, 0.1, 0.8)},
        **{f"top_h {h}": Pair(TopH(h), lambda _, h=h: t.TopHLogitsWarper(h)) for h in (0.1, 0.4, 0.9, 1.0)},
        "renormalize": Pair(Renormalize(), lambda _: t.LogitNormalization()),
        "remove invalid": Pair(RemoveInvalid(), lambda _: t.InfNanRemoveLogitsProcessor()),
        **{
            f"repetition {r}": Pair(
                RepetitionPenalty(r), lambda _, r=r: t.RepetitionPenaltyLogitsProcessor(r)
            )
            for r in (0.6, 1.3)
        },
        "repetition in the output": Pair(
            RepetitionPenalty(1.3, scope="output"), lambda n: t.RepetitionPenaltyLogitsProcessor(1.3, n)
        ),
        **{
            f"encoder repetition {r}": Pair(
                EncoderRepetitionPenalty(r),
                lambda _, r=r: t.EncoderRepetitionPenaltyLogitsProcessor(r, source),
            )
            for r in (0.7, 1.4)
        },
        **{
            f"{n}-grams": Pair(NoRepeatNGram(n), lambda _, n=n: t.NoRepeatNGramLogitsProcessor(n))
            for n in (1, 2, 3, 6)
        },
        **{
            f"encoder {n}-grams": Pair(
                EncoderNoRepeatNGram(n), lambda _, n=n: t.EncoderNoRepeatNGramLogitsProcessor(n, source)
            )
            for n in (1, 2, 3)
        },
        "sequence bias": Pair(SequenceBias(biases), lambda _: t.SequenceBiasLogitsProcessor(biases)),
        "bad words": Pair(BadWords(words), lambda _: t.NoBadWordsLogitsProcessor(words, eos)),
        "suppress": Pair(SuppressTokens(ids([1, 3])), lambda _: t.SuppressTokensLogitsProcessor(ids([1, 3]))),
        "forced eos": Pair(ForcedEos(forced), lambda n: t.ForcedEOSTokenLogitsProcessor(n + NEW, forced)),
        **{
            f"min_length {n}": Pair(MinLength(n), lambda _, n=n: t.MinLengthLogitsProcessor(n, eos))
            for n in (5, 6)
        },
        **{
            f"min_new_tokens {m}": Pair(
                MinNewTokens(m), lambda n, m=m: t.MinNewTokensLengthLogitsProcessor(n, m, eos)
            )
            for m in (2, 3)
        },
        **{
            f"decay from {start}": Pair(
                ExponentialDecayLength(start, factor),
                lambda n, d=(start, factor): t.ExponentialDecayLengthPenalty(d, eos, n),
            )
            for start, factor in ((0, 1.3), (1, 0.8), (2, 1.5))
        },
        "prefix function": Pair(
            PrefixAllowed(allowed), lambda _: t.PrefixConstrainedLogitsProcessor(allowed, num_beams=1)
        ),
        # These two do something at one place only: the tests of that follow below.
        "begin suppress": Pair(
            BeginSuppressTokens(ids([1, 3])), lambda n: t.SuppressTokensAtBeginLogitsProcessor(ids([1, 3]), n)
        ),
        "forced bos": Pair(ForcedBos(2 % size), lambda _: t.ForcedBOSTokenLogitsProcessor(2 % size)),
    }


NAMES = list(pairs(5))


def check_same(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    assert torch.equal(ours, theirs)


def check_close(ours: Tensor, theirs: Tensor) -> None:
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def rows_of(size: int, length: int = 5) -> list[list[int]]:
    return [[token % size for token in row[:length]] for row in ROWS]


def context_of(size: int, length: int = 5) -> Context:
    source = [[token % size for token in row] for row in SOURCE]
    eos = tuple(token % size for token in EOS)
    return history(rows_of(size, length), PROMPT, source, eos=eos, max_new_tokens=NEW)


@pytest.mark.parametrize("size", [1, 2, 5, 11, 16])
@pytest.mark.parametrize("name", NAMES)
def test_same(name: str, size: int) -> None:
    pair = pairs(size)[name]
    for kind in KINDS:
        for seed in range(3):
            logits = logits_of(kind, 4, size, seed)
            before = logits.clone()
            theirs = pair.theirs(PROMPT)(torch.tensor(rows_of(size)), logits.clone())
            check_same(pair.ours(logits, context_of(size)), theirs)
            assert torch.equal(logits, before), "the argument was changed"


@pytest.mark.parametrize("length", [3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_same_at_other_lengths(name: str, length: int) -> None:
    """Some act at the first generated token only, some before or after a number of tokens."""
    logits = logits_of("random", 4, 11)
    theirs = pairs(11)[name].theirs(PROMPT)(torch.tensor(rows_of(11, length)), logits.clone())
    check_same(pairs(11)[name].ours(logits, context_of(11, length)), theirs)


@pytest.mark.parametrize("length", [1, 2])
def test_forced_bos_after_a_start_token(length: int) -> None:
    logits, rows = logits_of("holes", 4, 5), rows_of(5, length)
    theirs = reference.ForcedBOSTokenLogitsProcessor(2)(torch.tensor(rows), logits.clone())
    check_same(ForcedBos(2)(logits, history(rows, 1)), theirs)


PROBABILITIES = [
    [0.25] * 4,
    [0.5, 0.25, 0.125, 0.125],
    [0.2] * 5,
    [0.1] * 10,
    [0.4, 0.3, 0.2, 0.1],
    [0.125, 0.125, 0.25, 0.5, 0.0],
]


@pytest.mark.parametrize("probabilities", PROBABILITIES, ids=str)
def test_same_where_sums_are_met_exactly(probabilities: list[float]) -> None:
    logits = torch.tensor([probabilities]).log()
    places = [x / 40 for x in range(1, 40)]
    for x in [*places, *torch.tensor(places).tolist()]:
        check_same(TopP(x)(logits, history([[0]])), reference.TopPLogitsWarper(x)(None, logits))
        check_same(Typical(x)(logits, history([[0]])), reference.TypicalLogitsWarper(x)(None, logits))
        check_same(MinP(x)(logits, history([[0]])), reference.MinPLogitsWarper(x)(None, logits))
        check_same(Epsilon(x)(logits, history([[0]])), reference.EpsilonLogitsWarper(x)(None, logits))
        check_same(TopH(x)(logits, history([[0]])), reference.TopHLogitsWarper(x)(None, logits))


def test_a_half_of_four_equal_tokens_is_two() -> None:
    kept = TopP(0.5)(torch.zeros(1, 4), history([[0]]))
    assert (kept > -torch.inf).tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("first", NAMES)
def test_same_in_pairs(first: str) -> None:
    """Every processor behind every other; of 29 tokens top_k 2 and 3 go on with their survivors."""
    for size in (11, 29):
        for second in NAMES:
            logits = logits_of("random", 4, size, seed=len(second))
            ours = Chain(pairs(size)[first].ours, pairs(size)[second].ours)
            theirs = logits.clone()
            for name in (first, second):
                theirs = pairs(size)[name].theirs(PROMPT)(torch.tensor(rows_of(size)), theirs)
            check_close(ours(logits, context_of(size)), theirs)


@pytest.mark.parametrize("kind", ["ties", "some ties"])
def test_top_p_among_many_equal_tokens(kind: str) -> None:
    """As many are kept as by transformers; which ones, its sort leaves to chance, and here the rule says.

    The rule: of the logits that equal the least kept one, those with the highest ids.
    """
    for size in (17, 100, 5000):
        logits = logits_of(kind, 4, size)
        for top_p in (0.1, 0.5, 0.9):
            ours = TopP(top_p)(logits, history(rows_of(5)))
            theirs = reference.TopPLogitsWarper(top_p)(None, logits)
            assert torch.equal(ours.sort().values, theirs.sort().values)
            for kept, row in zip(ours > -torch.inf, logits, strict=True):
                cut = kept[row == row[kept].min()]
                assert torch.equal(cut, cut.sort().values)


# --- left-padded batches -------------------------------------------------------------------------------

RAGGED = [[1, 2, 3, 1, 2], [3, 3], [0, 1, 0, 1], [2]]
PAD = 4


@pytest.mark.parametrize(
    "name", [name for name in NAMES if getattr(pairs(11)[name].ours, "elementwise", False)]
)
def test_padding_does_not_reach_what_reads_no_history(name: str) -> None:
    logits = logits_of("holes", 4, 11)
    theirs = pairs(11)[name].theirs(5)(left_padded(RAGGED, PAD), logits)
    check_same(pairs(11)[name].ours(logits, history(RAGGED, [5, 2, 4, 1])), theirs)


def test_repetition_penalty_with_padding() -> None:
    """transformers ignores the padding too: it is told where the rows begin."""
    logits, padded = logits_of("random", 4, 11), left_padded(RAGGED, PAD)
    begins = torch.tensor([5 - len(row) for row in RAGGED])
    theirs = reference.RepetitionPenaltyLogitsProcessor(1.3, begins)(padded, logits)
    check_same(RepetitionPenalty(1.3)(logits, history(RAGGED)), theirs)


def test_biases_and_bad_words_with_padding() -> None:
    """No prefix has the padding token in it, so that nothing matches there."""
    logits, padded = logits_of("random", 4, 11), left_padded(RAGGED, PAD)
    biases = {(2,): 1.0, (1, 2): -2.0, (0, 1, 2): 0.5, (3, 3, 3): 4.0}
    theirs = reference.SequenceBiasLogitsProcessor(biases)(padded, logits)
    check_same(SequenceBias(biases)(logits, history(RAGGED)), theirs)
    words = [[1], [1, 2], [3, 3, 3], [2, 2]]
    theirs = reference.NoBadWordsLogitsProcessor(words, EOS)(padded, logits)
    check_same(BadWords(words)(logits, history(RAGGED, eos=tuple(EOS))), theirs)


@pytest.mark.parametrize("name", ["min_new_tokens 2", "min_new_tokens 3", "decay from 0", "decay from 1"])
def test_generated_tokens_with_padding(name: str) -> None:
    """All rows have generated two tokens; the prompts differ in length."""
    rows = [[1, 2, 3, 1, 2], [3, 3, 1], [0, 1, 0, 1], [2, 1, 2]]
    context = history(rows, [3, 1, 2, 1], eos=tuple(EOS), max_new_tokens=NEW)
    theirs = pairs(11)[name].theirs(3)(left_padded(rows, PAD), logits := logits_of("random", 4, 11))
    check_same(pairs(11)[name].ours(logits, context), theirs)


# What transformers takes for text and minitx does not: each row by itself, without padding, is the same.
READS_PADDING = {
    "2-grams": NoRepeatNGram(2),
    "1-grams": NoRepeatNGram(1),
    "encoder 1-grams": EncoderNoRepeatNGram(1),
    "encoder repetition": EncoderRepetitionPenalty(1.4),
    "min_length": MinLength(4),
    "prefix of padding": SequenceBias({(1, 2, 5): 1.0}),
    "forced bos": ForcedBos(2),
    "prefix function": PrefixAllowed(lambda row, tokens: [len(tokens)]),
}


def theirs_of(name: str, ids: Tensor) -> Any:
    return {
        "2-grams": lambda: reference.NoRepeatNGramLogitsProcessor(2),
        "1-grams": lambda: reference.NoRepeatNGramLogitsProcessor(1),
        "encoder 1-grams": lambda: reference.EncoderNoRepeatNGramLogitsProcessor(1, ids),
        "encoder repetition": lambda: reference.EncoderRepetitionPenaltyLogitsProcessor(1.4, ids),
        "min_length": lambda: reference.MinLengthLogitsProcessor(4, EOS),
        "prefix of padding": lambda: reference.SequenceBiasLogitsProcessor({(1, 2, 5): 1.0}),
        "forced bos": lambda: reference.ForcedBOSTokenLogitsProcessor(2),
        "prefix function": lambda: reference.PrefixConstrainedLogitsProcessor(lambda _, x: [len(x)], 1),
    }[name]()


@pytest.mark.parametrize("name", READS_PADDING)
def test_padding_is_no_text(name: str) -> None:
    """Intended difference: a row in a padded batch gets what it gets alone, in transformers it does not."""
    rows, logits = [*RAGGED, [0, 3, 2, 1, 1, 1]], logits_of("random", 5, 11)
    lengths = [len(row) for row in rows]
    ours = READS_PADDING[name](logits, history(rows, lengths, eos=tuple(EOS)))
    alone = [
        theirs_of(name, torch.tensor([row]))(torch.tensor([row]), logits[i : i + 1].clone())
        for i, row in enumerate(rows)
    ]
    check_same(ours, torch.cat(alone))
    padded = left_padded(rows, 1)  # a token that occurs in text too, as GPT-2's end token does
    assert not torch.equal(ours, theirs_of(name, padded)(padded, logits.clone()))


# --- a whole vocabulary --------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [3.0, 6.0, 12.0])
@pytest.mark.parametrize("size", [5000, 50257])
def test_same_in_a_large_vocabulary(size: int, spread: float) -> None:
    """There the nucleus is searched, not sorted. Sums are rounded otherwise, which moves no cut here."""
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(0)) * spread
    logits[1, torch.arange(0, size, 3)] = -torch.inf
    logits[2, torch.arange(1, size, 3)] = torch.finfo(torch.float32).min
    for x in (1e-4, 0.3, 0.8, 0.95):
        check_same(TopP(x)(logits, history(rows_of(5)[:3])), reference.TopPLogitsWarper(x)(None, logits))
        check_same(
            Typical(x)(logits, history(rows_of(5)[:3])), reference.TypicalLogitsWarper(x)(None, logits)
        )
