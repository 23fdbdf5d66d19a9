"""Objectives of unlabelled text: shares of hidden tokens, and nothing is lost that a model is to restore."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.tokenizer import Tokenizer
from minitx.training import CausalLM, Denoising, MaskedLM, SpanCorruption
from minitx.training.objectives.causal import Document, causal_batch, pack, split_documents
from minitx.training.objectives.denoising import (
    delete_tokens,
    infill,
    mask_some,
    permute_sentences,
    poisson_lengths,
    rotate_document,
)
from minitx.training.objectives.masked import mask_tokens, word_beginnings, word_numbers
from minitx.training.objectives.spans import (
    corrupt_spans,
    corrupted_lengths,
    span_counts,
    uncorrupted_length,
)
from tests.real import MINILM
from tests.unit.training.words import FIRST, SENTINELS, SPECIAL, WORDS, word_tokenizer

MASK = 4
SENTINEL_IDS = list(range(len(SPECIAL), FIRST))
seeds = st.integers(0, 2**32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return minitx.load_tokenizer(MINILM)


# --- masked --------------------------------------------------------------------------------------------


@given(seeds, st.floats(0.05, 0.9), st.floats(0, 1), st.floats(0, 1))
def test_shares_of_masked_tokens(seed: int, probability: float, mask: float, random: float) -> None:
    random = min(random, 1 - mask)
    ids = torch.randint(10, 1000, (40, 500), generator=seeded(1))
    inputs, labels = mask_tokens(
        ids,
        torch.ones_like(ids).bool(),
        MASK,
        torch.arange(2000, 3000),
        seeded(seed),
        probability=probability,
        shares=(mask, random),
    )
    chosen = labels != -100
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    shares = {"mask": inputs == MASK, "random": inputs >= 2000, "same": chosen & (inputs == ids)}
    assert abs(chosen.double().mean() - probability) < 0.02
    total = chosen.sum()
    for name, share in (("mask", mask), ("random", random), ("same", 1 - mask - random)):
        assert abs(shares[name].sum() / total - share) < 0.08, name


@given(seeds, st.lists(st.lists(st.integers(0, FIRST + 20), min_size=1, max_size=30), min_size=1, max_size=5))
def test_special_tokens_and_padding_are_never_masked(
    words: Tokenizer, seed: int, rows: list[list[int]]
) -> None:
    batch = MaskedLM(words, 1.0)([{"input_ids": row} for row in rows], seeded(seed))
    columns = (batch[name] for name in ("input_ids", "labels", "attention_mask"))
    for row, ids, labels, mask in zip(rows, *columns, strict=True):
        real = torch.tensor(row)
        special = torch.isin(real, torch.tensor(words.special_ids))
        assert mask.tolist() == [1] * len(row) + [0] * (len(ids) - len(row))
        assert torch.equal(labels[: len(row)], real.masked_fill(special, -100))
        assert (labels[len(row) :] == -100).all()
        assert torch.equal(ids[: len(row)][special], real[special])
        replaced = ids[: len(row)][~special]
        assert not torch.isin(replaced[replaced != MASK], torch.tensor(words.special_ids)).any()


def test_a_text_is_masked_as_its_ids(words: Tokenizer) -> None:
    objective, text = MaskedLM(words), " ".join(WORDS)
    ids = words.encode(text)
    first, second = (objective([x], seeded(3)) for x in ({"text": text}, {"input_ids": torch.tensor(ids)}))
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert (first["labels"] != -100).any()
    shortened = MaskedLM(words, max_length=7)([{"text": text}], seeded(3))
    assert shortened["input_ids"].shape == (1, 7)


@given(seeds)
def test_all_tokens_of_a_word_are_chosen_together(minilm: Tokenizer, seed: int) -> None:
    text = "unbelievably antidisestablishmentarian tokenizers subdivide, hyperparameters internationalize."
    batch = MaskedLM(minilm, 0.5, whole_words=True)([{"text": text}] * 3, seeded(seed))
    for row in batch["labels"]:
        word_ids = minilm([text]).word_ids[0]
        chosen = {word: set() for word in word_ids}
        for word, label in zip(word_ids, row.tolist(), strict=True):
            chosen[word].add(label != -100)
        assert all(len(values) == 1 for values in chosen.values())
        assert chosen[None] == {False}


def test_beginnings_of_words(minilm: Tokenizer, words: Tokenizer) -> None:
    begins = word_beginnings(minilm)
    assert begins[minilm.token_to_id("the")]
    assert not begins[minilm.token_to_id("##ing")]
    starts = torch.tensor([[True, False, True, True], [False, True, False, True]])
    assert word_numbers(starts).tolist() == [[0, 0, 1, 2], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="whole_words=True must be False for a tokenizer whose tokens"):
        MaskedLM(words, whole_words=True)


@pytest.mark.parametrize(
    "wrong", [{"probability": 0}, {"probability": 1.5}, {"random_share": 0.3}, {"max_length": 0}]
)
def test_options_of_masking(words: Tokenizer, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}="):
        MaskedLM(words, **wrong)


@pytest.mark.parametrize(
    ("examples", "error"),
    [
        ([], "at least one example"),
        ([{"words": []}], r"examples\[0\].* must be an example with 'text'; or with 'input_ids'"),
        ([{"input_ids": [1, 2]}, {"input_ids": []}], r"examples\[1\]\['input_ids'\].*at least one id"),
        ([{"input_ids": [1.5]}], "a list of ids"),
        ([{"input_ids": [10**6]}], "is it another tokenizer's id"),
        (["text"], "a mapping"),
        ([{"input_ids": [1]}, {"input_ids": [1], "token_type_ids": [0]}], "like the first"),
    ],
)
def test_examples_that_do_not_fit(words: Tokenizer, examples: list[object], error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        MaskedLM(words)(examples, seeded(0))


# --- causal --------------------------------------------------------------------------------------------

documents_of = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(
    lambda sizes: [[100 * n + place for place in range(size)] for n, size in enumerate(sizes, 1)]
)


@given(documents_of, st.integers(2, 30))
def test_packing_covers_all_tokens_once(documents: list[list[int]], length: int) -> None:
    rows = pack([Document(x, x) for x in documents], length)
    assert all(sum(len(part.ids) for part in row) <= length for row in rows)
    packed = sorted(index for row in rows for part in row for index in part.ids)
    assert packed == sorted(index for document in documents for index in document)
    for part in (part for row in rows for part in row):  # no part has tokens of two documents
        assert part.ids == list(range(part.ids[0], part.ids[0] + len(part.ids)))
    sizes = [sum(len(part.ids) for part in row) for row in rows]
    assert len(rows) <= 11 / 9 * -(-sum(sizes) // length) + len(documents)


@given(documents_of, st.integers(2, 60))
def test_packed_rows_keep_documents_apart(documents: list[list[int]], length: int) -> None:
    rows = pack([Document(x, x) for x in documents], length)
    batch = causal_batch(rows, 0)
    mask = batch["attention_mask"]
    for number, row in enumerate(rows):
        start = 0
        for part in row:
            end = start + len(part.ids)
            assert batch["input_ids"][number, start:end].tolist() == part.ids
            assert batch["labels"][number, start:end].tolist() == [-100, *part.ids[1:]]
            if mask.dim() == 3:
                assert batch["position_ids"][number, start:end].tolist() == list(range(len(part.ids)))
                assert mask[number, start:end, start:end].all()
                assert mask[number, start:end].sum() == len(part.ids) ** 2
            start = end
        assert (batch["labels"][number, start:] == -100).all()
        if mask.dim() == 3:
            assert not mask[number, start:, :start].any()
    assert ("position_ids" in batch) == any(len(row) > 1 for row in rows)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=20))
def test_documents_of_a_block(pairs: list[tuple[int, int]]) -> None:
    ids, numbers = [x for x, _ in pairs], [n for _, n in pairs]
    documents = split_documents(ids, numbers)
    assert [index for document in documents for index in document] == ids
    assert len(documents) == sum(a != b for a, b in zip([None, *numbers], numbers, strict=False))


def test_blocks_and_texts(words: Tokenizer) -> None:
    block = {"input_ids": torch.tensor([5, 6, 2, 7, 2, 8]), "document_ids": torch.tensor([0, 0, 0, 1, 1, 2])}
    batch = CausalLM()([block], seeded(0))
    assert batch["labels"].tolist() == [[-100, 6, 2, -100, 2, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0]]
    with pytest.raises(ValueError, match="one for each of input_ids, 6 and not 2"):
        CausalLM()([block | {"document_ids": [0, 1]}], seeded(0))
    text = CausalLM(words)([{"text": "w0"}, {"text": "w1 w2"}], seeded(0))
    w0 = words.token_to_id("w0")
    assert text["input_ids"].tolist() == [[1, w0, 2, 0], [1, w0 + 1, w0 + 2, 2]]
    assert text["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert text["labels"].tolist() == [[-100, w0, 2, -100], [-100, w0 + 1, w0 + 2, 2]]


def test_the_end_token_is_added_to_a_text(tmp_path: Path) -> None:
    bare = word_tokenizer(tmp_path, template=False)
    ids = CausalLM(bare)([{"text": "w0"}], seeded(0))["input_ids"]
    assert ids.tolist() == [[bare.token_to_id("w0"), 2]]


# --- spans ---------------------------------------------------------------------------------------------


def restored(inputs: list[int], targets: list[int], sentinels: list[int]) -> list[int]:
    """The sequence before the corruption: each sentinel replaced by its span."""
    spans: dict[int, list[int]] = {}
    for index in targets:
        if index in sentinels:
            spans[index] = span = []
        else:
            span.append(index)
    return [token for index in inputs for token in spans.get(index, [index])]


@given(seeds, st.integers(2, 120), st.floats(0.01, 0.99), st.floats(1, 10))
def test_every_span_is_restored(seed: int, length: int, density: float, mean: float) -> None:
    ids = torch.randint(1000, 2000, (length,), generator=seeded(seed))
    sentinels = list(range(100, 0, -1))
    inputs, targets = corrupt_spans(ids, sentinels, seeded(seed), density=density, mean_span=mean)
    assert restored(inputs.tolist(), targets.tolist(), sentinels) == ids.tolist()
    tokens, spans = span_counts(length, density, mean)
    assert (len(inputs) + 1, len(targets) + 1) == corrupted_lengths(length, density, mean)
    used = [index for index in targets.tolist() if index in sentinels]
    assert used == sentinels[:spans] == [index for index in inputs.tolist() if index in sentinels]
    assert len(targets) - spans == tokens
    assert inputs[0] not in sentinels  # a sequence begins with a token that stays, and ends with a span
    assert inputs[-1] == sentinels[spans - 1]


def test_the_lengths_of_the_paper() -> None:
    assert uncorrupted_length(512) == 568
    assert corrupted_lengths(568) == (512, 114)


def test_lengths_of_spans_are_random() -> None:
    ids, generator = torch.arange(1000, 1568), seeded(0)
    starts = torch.zeros(568)
    for _ in range(400):
        _, targets = corrupt_spans(ids, range(100, 0, -1), generator)
        starts[targets[targets >= 1000] - 1000] += 1
    assert abs(starts.mean() / 400 - 0.15) < 0.002
    assert starts[20:-20].std() < 25  # about as often everywhere


def test_span_corruption_of_texts(words: Tokenizer) -> None:
    objective = SpanCorruption(words)
    text = " ".join(WORDS[:40])
    batch = objective([{"text": text}, {"input_ids": list(range(FIRST, FIRST + 10))}], seeded(1))
    for row, original in ((0, words.encode(text)[:-1]), (1, list(range(FIRST, FIRST + 10)))):
        inputs = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        targets = batch["labels"][row][batch["labels"][row] != -100].tolist()
        assert inputs.pop() == targets.pop() == words.eos_token_id
        assert restored(inputs, targets, SENTINEL_IDS) == original


def test_too_many_spans_and_too_few_tokens(words: Tokenizer, minilm: Tokenizer) -> None:
    ids = {"input_ids": [FIRST] * 500}
    with pytest.raises(ValueError, match=f"sentinels={len(SENTINELS)} must be at least 25; 25 spans"):
        SpanCorruption(words)([ids], seeded(0))
    with pytest.raises(ValueError, match="at least 2 ids"):
        SpanCorruption(words)([{"input_ids": [FIRST]}], seeded(0))
    with pytest.raises(ValueError, match="one with the sentinels <extra_id_0>"):
        SpanCorruption(minilm)
    with pytest.raises(ValueError, match="density=1"):
        SpanCorruption(words, density=1.0)


# --- denoising -----------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 80), st.floats(0, 1), st.floats(1, 6))
def test_infilling_hides_its_share_and_no_more(seed: int, length: int, rate: float, mean: float) -> None:
    ids = torch.arange(1000, 1000 + length)
    noisy = infill(ids, MASK, seeded(seed), rate=rate, mean_span=mean).tolist()
    visible = [index for index in noisy if index != MASK]
    assert len(visible) == length - round(length * rate)
    assert visible == sorted(visible)
    assert [MASK, MASK] not in [noisy[i : i + 2] for i in range(len(noisy))]
    # Every gap in the numbers is at a mask: the sequence is restored by filling masks alone.
    pattern = "".join("(.*)" if index == MASK else f"<{index}>" for index in noisy)
    assert re.fullmatch(pattern, "".join(f"<{index}>" for index in ids.tolist()))


def test_lengths_have_a_poisson_distribution() -> None:
    lengths = torch.tensor(poisson_lengths(60_000, 3.0, seeded(0))).double()
    assert abs(lengths.mean() - 3) < 0.1
    assert abs(lengths.var() - 3) < 0.2
    assert (lengths == 0).any()
    assert lengths.sum() == 60_000
    assert poisson_lengths(0, 3.0, seeded(0)) == []


@given(seeds, st.lists(st.lists(st.integers(10, 20), max_size=4), min_size=1, max_size=6))
def test_permuted_sentences(seed: int, sentences: list[list[int]]) -> None:
    ids = torch.tensor([index for sentence in sentences for index in (*sentence, 1)])
    permuted = permute_sentences(ids, ids == 1, seeded(seed))
    letters = "".join("." if index == 1 else chr(87 + index) for index in permuted.tolist())
    expected = ["".join(chr(87 + index) for index in sentence) for sentence in sentences]
    assert sorted(letters.split(".")) == sorted([*expected, ""])


@given(seeds, st.integers(1, 30), st.floats(0, 1))
def test_rotation_deletion_and_masking(seed: int, length: int, rate: float) -> None:
    ids = torch.arange(length) + 100
    rotated = rotate_document(ids, seeded(seed)).tolist()
    first = rotated.index(100)
    assert rotated[first:] + rotated[:first] == ids.tolist()
    deleted = delete_tokens(ids, seeded(seed), rate=rate).tolist()
    assert deleted == sorted(deleted)
    assert 0 < len(deleted) <= length
    masked = mask_some(ids, MASK, seeded(seed), rate=rate)
    assert ((masked == ids) | (masked == MASK)).all()
    many = torch.arange(20_000)
    assert abs(len(delete_tokens(many, seeded(seed), rate=rate)) / 20_000 - (1 - rate)) < 0.02
    assert abs((mask_some(many, -1, seeded(seed), rate=rate) == -1).double().mean() - rate) < 0.02


def test_denoising_of_texts(words: Tokenizer) -> None:
    text = " ".join([*WORDS[:8], ".", *WORDS[8:20], ".", *WORDS[20:26]])
    ids = words.encode(text)
    permuted: Tensor = Denoising(words, infill_rate=0)([{"text": text}], seeded(0))["input_ids"][0]
    assert sorted(permuted.tolist()) == sorted(ids)
    assert permuted.tolist() != ids
    everything = Denoising(words, rotate=True, delete_rate=0.1, mask_rate=0.1)
    batch = everything([{"text": text}, {"text": "w1"}], seeded(0))
    for row, source in enumerate((ids, words.encode("w1"))):
        labels = batch["labels"][row]
        assert labels[labels != -100].tolist() == source
        noisy = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        assert (noisy[0], noisy[-1]) == (1, 2)
        assert {*noisy} <= {*source, MASK}
    with pytest.raises(ValueError, match="an example with a token that is not special"):
        everything([{"input_ids": [1, 2]}], seeded(0))


@pytest.mark.parametrize("kind", [MaskedLM, SpanCorruption, Denoising])
def test_the_generator_is_the_only_source_of_randomness(words: Tokenizer, kind: type) -> None:
    objective, examples = kind(words), [{"text": " ".join(WORDS[:40])}] * 3
    torch.manual_seed(0)
    first = objective(examples, seeded(5))
    torch.manual_seed(1)
    second, other = objective(examples, seeded(5)), objective(examples, seeded(6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(first[n].shape != other[n].shape or not torch.equal(first[n], other[n]) for n in first)
