"""How similar two texts are: chrF, and the F1 of their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minitx.decoding.parameters import POSITIVE
from minitx.validation import check_integer, check_number, check_strings

ORDER, BETA = 6, 2.0  # of chrF2, the usual one

# Counts of the units of a text, for each order of n-gram. Those of several texts may be averaged.
Profile = list[dict[str, float]]


def chrf(candidate: str, reference: str, *, order: int = ORDER, beta: float = BETA) -> float:
    """Returns the character n-gram F-score, from 0 to 1 (Popović 2015, "chrF").

    chrF = (1 + beta^2) P R / (beta^2 P + R), where P is the mean over n = 1 ... order of the part of the
    candidate's n-grams that are in the reference, and R that of the reference's. Spaces do not count. Orders
    of which one text has no n-gram are left out, as in sacrebleu, whose numbers are 100 times these.

    Args:
        candidate, reference: texts; two empty ones are equal, 1.0.
        order: the longest n-grams.
        beta: how much more recall counts than precision.

    Raises:
        ArgumentTypeError, ArgumentValueError: not texts, or numbers out of range.
    """
    check_strings(candidate=candidate, reference=reference)
    order = check_integer("order", order, 1)
    beta = check_number("beta", beta, POSITIVE)
    return f_score(characters(candidate, order), characters(reference, order), beta)


def token_f1(candidate: str, reference: str) -> float:
    """Returns the F1 of the words that two texts share, from 0 to 1; words are separated by spaces.

    Raises:
        ArgumentTypeError: not texts.
    """
    check_strings(candidate=candidate, reference=reference)
    return f_score(words(candidate), words(reference), 1.0)


def characters(text: str, order: int = ORDER) -> Profile:
    """Counts the n-grams of the characters of a text, without spaces."""
    dense = "".join(text.split())
    return [
        dict(Counter(dense[start : start + n] for start in range(len(dense) - n + 1)))
        for n in range(1, order + 1)
    ]


def words(text: str) -> Profile:
    """Counts the words of a text."""
    return [dict(Counter(text.split()))]


def average(profiles: Sequence[Profile], weights: Sequence[float]) -> Profile:
    """Returns the mean counts of several texts (reference aggregation, arXiv:2402.04251)."""
    total = sum(weights)
    means: Profile = [{} for _ in profiles[0]]
    for profile, weight in zip(profiles, weights, strict=True):
        for mean, counts in zip(means, profile, strict=True):
            for unit, count in counts.items():
                mean[unit] = mean.get(unit, 0.0) + count * weight / total
    return means


def f_score(candidate: Profile, reference: Profile, beta: float) -> float:
    """Returns the F-score of mean precision and recall over the orders that both texts have."""
    precisions, recalls = [], []
    for ours, theirs in zip(candidate, reference, strict=True):
        if ours and theirs:
            shared = sum(min(count, theirs[unit]) for unit, count in ours.items() if unit in theirs)
            precisions.append(shared / sum(ours.values()))
            recalls.append(shared / sum(theirs.values()))
    if not precisions:
        return float(not any(candidate) and not any(reference))
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
