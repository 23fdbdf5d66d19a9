"""Figures of the shipped checkpoints on held-out data, and those of simple rivals.

Each measure takes a folder with a checkpoint and held-out data, and returns rows of a table: name and figure.
The rivals are counts: a unigram model, an interpolated 5-gram model, and naive Bayes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpora_labelled import _CONSONANTS, _STRESS, _VOWELS, to_ipa
from torch import Tensor
from torch.nn import functional as F

import minitx
from minitx.training import MaskedLM, TokenBlocks

Table = list[tuple[str, str]]
Rows = Sequence[Mapping[str, Any]]


def batches(items: Sequence[Any], size: int) -> Iterator[Any]:
    """Yields slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def percent(part: float, whole: float) -> str:
    """Returns a share as text."""
    return f"{100 * part / whole:.1f} %"


# --- encoder ---------------------------------------------------------------------------------------


@torch.inference_mode()
def masked_words(folder: Path, training: TokenBlocks, held_out: TokenBlocks, blocks: int = 400) -> Table:
    """Shares of hidden tokens that are among the first proposals, and among the commonest tokens.

    Args:
        folder: of an encoder with head="masked-lm".
        training: tokens to count for the unigram model.
        held_out: tokens to hide; 15 % of them, 80 % replaced by the mask token, as BERT does.
        blocks: number of blocks to measure, evenly spread.
    """
    model: Any = minitx.load(folder, dtype="float32")
    objective = MaskedLM(minitx.load_tokenizer(folder))
    counts = np.bincount(np.concatenate([block["input_ids"].numpy() for block in training]))
    common = torch.from_numpy(counts.argsort()[::-1][:5].copy())
    hits = {"top-1": 0, "top-5": 0, "unigram model, top-5": 0}
    loss, total = 0.0, 0
    generator = torch.Generator().manual_seed(0)
    chosen = [held_out[i * len(held_out) // blocks] for i in range(min(blocks, len(held_out)))]
    for examples in batches(chosen, 32):
        batch = objective(examples, generator)
        labels = batch.pop("labels")
        targets = labels[labels != -100]
        logits = model(**batch).logits[labels != -100]
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        best = logits.topk(5).indices == targets[:, None]
        hits["top-1"] += int(best[:, 0].sum())
        hits["top-5"] += int(best.sum())
        hits["unigram model, top-5"] += int(torch.isin(targets, common).sum())
        total += len(targets)
    figures = [(f"hidden tokens, {name}", percent(value, total)) for name, value in hits.items()]
    return [*figures, ("loss of a hidden token", f"{loss / total:.3f} nats")]


def naive_bayes(training: Rows, held_out: Rows) -> float:
    """Returns the accuracy of naive Bayes over words and pairs of words, add-one smoothed.

    Args:
        training: records with text and label.
        held_out: likewise.
    """

    def features(text: str) -> set[str]:
        words = re.findall(r"[a-z']+", text.lower())
        return {*words, *(" ".join(pair) for pair in pairwise(words))}

    sizes = Counter(row["label"] for row in training)
    counts: dict[str, Counter[str]] = {label: Counter() for label in sizes}
    for row in training:
        counts[row["label"]].update(features(row["text"]))
    known = set().union(*counts.values())

    def score(text: str, label: str) -> float:
        among, size = counts[label], sizes[label]
        return math.log(size) + sum(math.log((among[x] + 1) / (size + 2)) for x in features(text) & known)

    correct = sum(max(sizes, key=lambda x: score(row["text"], x)) == row["label"] for row in held_out)
    return correct / len(held_out)


def sentiment(folder: Path, training: Rows, held_out: Rows) -> Table:
    """Accuracy of a classifier, and of naive Bayes.

    Args:
        folder: of the classifier.
        training: records with text and label.
        held_out: likewise.
    """
    classify = minitx.pipeline("text-classification", str(folder), dtype="float32")
    results = classify([row["text"] for row in held_out], batch_size=32)
    correct = sum(result.label == row["label"] for result, row in zip(results, held_out, strict=True))
    common = Counter(row["label"] for row in training).most_common(1)[0][0]
    return [
        ("accuracy", percent(correct, len(held_out))),
        ("naive Bayes over words and pairs", f"{100 * naive_bayes(training, held_out):.1f} %"),
        ("the commonest label", percent(sum(r["label"] == common for r in held_out), len(held_out))),
    ]


def spans(labels: Sequence[str]) -> set[tuple[int, int, str]]:
    """Returns the entities of labels in the BIO scheme: first word, word after the last one, kind."""
    found: set[tuple[int, int, str]] = set()
    start = 0
    for i, label in enumerate([*labels, "O"]):
        before = labels[i - 1] if i else "O"
        if before != "O" and (label[0] != "I" or label[2:] != before[2:]):
            found.add((start, i, before[2:]))
        if label[0] == "B" or (label[0] == "I" and (before == "O" or before[2:] != label[2:])):
            start = i
    return found


@torch.inference_mode()
def entities(folder: Path, held_out: Rows, max_length: int) -> Table:
    """F1 of exact entities.

    Args:
        folder: of a token classifier.
        held_out: records with words and their labels.
        max_length: tokens of a text; labels after them count as O.
    """
    from minitx.training import TokenLabels

    model: Any = minitx.load(folder, dtype="float32")
    names = model.checkpoint.id2label
    ids = {name: index for index, name in names.items()}
    objective = TokenLabels(minitx.load_tokenizer(folder), len(ids), max_length=max_length)
    hits = proposed = existing = 0
    for rows in batches(held_out, 32):
        examples = [{"words": row["words"], "labels": [ids[x] for x in row["label"]]} for row in rows]
        batch = objective(examples, torch.Generator())
        labels = batch.pop("labels")
        best = model(**batch).logits.argmax(-1)
        for row, target, guess in zip(rows, labels, best, strict=True):
            guessed = spans([names[int(x)] for x in guess[target != -100]])
            true = spans(row["label"])
            hits, proposed, existing = (
                hits + len(guessed & true),
                proposed + len(guessed),
                existing + len(true),
            )
    return [
        ("entities, F1", f"{100 * 2 * hits / (proposed + existing):.1f} %"),
        ("precision", percent(hits, proposed)),
        ("recall", percent(hits, existing)),
    ]


def answers(folder: Path, held_out: Rows) -> Table:
    """Shares of questions whose answer is found exactly, and the mean F1 of words.

    Args:
        folder: of a question answering model.
        held_out: records with question, context and answer.
    """
    answer = minitx.pipeline("question-answering", str(folder), dtype="float32")
    questions = [{"question": row["question"], "context": row["context"]} for row in held_out]
    results = answer(questions, batch_size=32)
    exact, overlap = 0, 0.0
    for result, row in zip(results, held_out, strict=True):
        ours, theirs = (re.findall(r"\w+", x.lower()) for x in (result.answer, row["answer"]))
        common = sum((Counter(ours) & Counter(theirs)).values())
        exact += ours == theirs
        overlap += 2 * common / (len(ours) + len(theirs)) if common else 0.0
    return [
        ("answers found exactly", percent(exact, len(held_out))),
        ("F1 of words", percent(overlap, len(held_out))),
    ]


# --- decoder ---------------------------------------------------------------------------------------


@torch.inference_mode()
def bits_per_byte(folder: Path, documents: Sequence[Tensor], num_bytes: int, window: int = 256) -> float:
    """Returns the bits per byte of a decoder.

    Every token of a document but its first is predicted from at least half a window before it, or from the
    beginning of the document.

    Args:
        folder: of a decoder with head="causal-lm".
        documents: token ids of each.
        num_bytes: of their text.
        window: tokens per forward.
    """
    model: Any = minitx.load(folder, dtype="float32")
    half, total = window // 2, 0.0
    pieces = [
        (ids[max(0, start - half) : start + half].long(), min(start, half))
        for ids in documents
        for start in range(0, len(ids), half)
    ]
    for group in batches(sorted(pieces, key=lambda piece: len(piece[0])), 16):
        rows = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in group], batch_first=True)
        logits = model(rows).logits
        for row, (ids, known) in zip(logits, group, strict=True):
            first = max(known, 1)
            if first < len(ids):
                total += F.cross_entropy(row[first - 1 : len(ids) - 1], ids[first:], reduction="sum").item()
    return total / math.log(2) / num_bytes


def ngram_bits(training: np.ndarray, held_out: np.ndarray, size: int, order: int = 5) -> float:
    """Returns the bits of an interpolated Kneser-Ney model (Chen and Goodman 1999, section 3).

    Each order has one discount, n1 / (n1 + 2 n2) of its numbers of n-grams that occur once and twice.

    Args:
        training: token ids.
        held_out: token ids to predict; each from the `order - 1` tokens before it.
        size: of the vocabulary, at most 4096.
        order: n, at most 5.
    """
    bits = np.uint64(12)

    def grams(ids: np.ndarray, n: int) -> np.ndarray:
        keys = np.zeros(len(ids) - n + 1, np.uint64)
        for i in range(n):
            keys = (keys << bits) | ids[i : len(ids) - n + 1 + i].astype(np.uint64)
        return keys

    def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[places] == wanted, values[places], 0)

    probability = np.full(len(held_out) - order + 1, 1 / size)
    for n in range(1, order + 1):
        if n == order:
            keys, counts = np.unique(grams(training, n), return_counts=True)
        else:  # the number of tokens that an n-gram follows
            wider = np.unique(grams(training, n + 1)) & np.uint64((1 << (12 * n)) - 1)
            keys, counts = np.unique(wider, return_counts=True)
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice)
        histories, first = np.unique(keys >> bits, return_index=True)
        totals = np.add.reduceat(counts, first)
        kinds = np.diff(np.append(first, len(keys)))
        wanted = grams(held_out, n)[order - n :]
        count = look_up(keys, counts, wanted)
        total = look_up(histories, totals, wanted >> bits)
        kind = look_up(histories, kinds, wanted >> bits)
        with np.errstate(divide="ignore", invalid="ignore"):
            mixed = np.maximum(count - discount, 0) / total + discount * kind / total * probability
        probability = np.where(total > 0, mixed, probability)
    return float(-np.log2(probability).sum())


def exact_answers(folder: Path, held_out: Rows) -> Table:
    """Shares of questions that a chat model answers exactly as its data does, greedily.

    Args:
        folder: of a decoder with a chat template.
        held_out: records with messages: a question and its answer.
    """
    model, tokenizer = minitx.load(folder, dtype="float32"), minitx.load_tokenizer(folder)
    correct = 0
    for rows in batches(held_out, 16):
        questions = [row["messages"][:1] for row in rows]
        prompts = [tokenizer.encode_chat(x, add_generation_prompt=True) for x in questions]
        results = minitx.generate(model, prompts, minitx.Greedy(), max_new_tokens=64, tokenizer=tokenizer)
        answers = [row["messages"][1]["content"] for row in rows]
        correct += sum(text.strip() == answer for text, answer in zip(results.texts, answers, strict=True))
    return [("answers as in the data, word for word", percent(correct, len(held_out)))]


# --- encoder-decoder -------------------------------------------------------------------------------

_SYMBOLS = sorted(["ə", *_VOWELS.values(), *_CONSONANTS.values(), *filter(None, _STRESS.values())], key=len)
_PHONE = re.compile("[ˈˌ]?(?:" + "|".join(reversed([x for x in _SYMBOLS if x not in "ˈˌ"])) + ")|.")


def phones(text: str, stress: bool) -> list[str]:
    """Returns the phones of a pronunciation in the IPA, with or without their marks of stress."""
    found = _PHONE.findall(text)
    return found if stress else [phone.strip("ˈˌ").replace("ʌ", "ə") for phone in found]


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns the fewest insertions, deletions and substitutions from one sequence to another."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def pronunciation(texts: Sequence[str], held_out: Rows, stress: bool) -> tuple[float, float]:
    """Returns phoneme error rate and word error rate, each against the nearest pronunciation.

    Args:
        texts: pronunciations in the IPA.
        held_out: records with all `phones` of a word in ARPAbet.
        stress: whether marks of stress must agree.
    """
    errors = length = wrong = 0
    for text, row in zip(texts, held_out, strict=True):
        guess = phones(text, stress)
        known = [phones(to_ipa(variant), stress) for variant in row["phones"]]
        distance, size = min((edit_distance(guess, other), len(other)) for other in known)
        errors, length, wrong = errors + distance, length + size, wrong + (distance > 0)
    return errors / length, wrong / len(held_out)


def pronounce(folder: Path, held_out: Rows) -> Table:
    """Error rates of greedy search and of five beams.

    Args:
        folder: of an encoder-decoder.
        held_out: records with source and phones.
    """
    model, tokenizer = minitx.load(folder, dtype="float32"), minitx.load_tokenizer(folder)
    table = []
    strategies: list[tuple[str, Callable[[], Any]]] = [
        ("greedy", minitx.Greedy),
        ("five beams", lambda: minitx.Beam(num_beams=5)),
    ]
    for name, strategy in strategies:
        texts: list[str] = []
        for rows in batches(held_out, 256):
            words = [row["source"] for row in rows]
            texts += minitx.generate(model, words, strategy(), tokenizer=tokenizer, max_new_tokens=48).texts
        for kind, stress in (("with stress", True), ("without stress", False)):
            phone, word = pronunciation(texts, held_out, stress)
            table.append((f"phoneme error rate, {name}, {kind}", f"{100 * phone:.2f} %"))
            table.append((f"word error rate, {name}, {kind}", f"{100 * word:.1f} %"))
    return table
