"""Training objectives: loss and every gradient equal transformers' on the same batch, and so do ten steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.trainer_pt_utils import LabelSmoother

import minitx
from minitx.inspect.compare.reference import Wide
from minitx.tokenizer import Tokenizer
from minitx.training import (
    DPO,
    AnswerSpans,
    CausalLM,
    Denoising,
    Distillation,
    GeneratorAndDiscriminator,
    Instruct,
    MaskedLM,
    Objective,
    ReplacedTokens,
    SentencePairs,
    Seq2SeqLM,
    SequenceLabels,
    SpanCorruption,
    TokenLabels,
)
from tests.parity.reference import pair
from tests.parity.test_training import grad, gradients
from tests.unit.training.words import MARKED, PLAIN, TALK, WORDS, word_tokenizer

LIMIT = 1e-9
Batch = dict[str, Tensor]
TEXTS = [{"text": " ".join(WORDS[n : n + size])} for n, size in ((0, 30), (7, 20), (3, 12), (40, 9))]
PAIRS = [{"text": "w1 w2 w3 w4", "target": "w5 w6"}, {"text": "w7", "target": "w8 w9 w10"}]
ANSWER = {
    "question": "w1 w2",
    "context": " ".join(WORDS[5:30]),
    "answers": {"text": ["w9 w10"], "answer_start": [12]},
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def models(name: str, task: str, root: Path, **more: Any) -> tuple[Any, Any]:
    """Copies of the reference and of the minitx model, in float64; their weights may be changed."""
    if more:
        root = root / "-".join(map(str, more.values()))
        root.mkdir(exist_ok=True)
    return copy.deepcopy(pair(name, task, torch.float64, root, **more))


def equal_gradients(reference: Any, model: Any, task: str) -> None:
    expected, checked = gradients(reference, task), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # a buffer of the reference's
            continue
        size = 1e-3 + expected[name].abs().max().item()
        assert (expected[name] - grad(parameter)).abs().max() <= LIMIT * size, name
        checked += bool(expected[name].any())
    assert checked > 10


def equal_parameters(reference: Any, model: Any, folder: Path, task: str) -> None:
    """Compares the parameters of the reference, saved in a folder, with those of the model."""
    reference.save_pretrained(folder)
    expected = dict(minitx.load(folder, head=task).named_parameters())
    for key, parameter in model.named_parameters():
        assert (parameter - expected[key]).abs().max() <= 1e-6, key


def compare(
    reference: Any, model: Any, objective: Objective, batch: Batch, expected: Callable[[Any], Tensor]
) -> None:
    """Compares the mean loss and every gradient with those of a function of the reference."""
    with Wide():
        theirs = expected(reference)
        theirs.backward()
    loss = objective.loss(model, batch)
    mean = loss.total / loss.count
    mean.backward()
    assert abs(mean - theirs) <= LIMIT * (1 + abs(theirs))
    equal_gradients(reference, model, model.task or "none")


def own_loss(batch: Batch) -> Callable[[Any], Tensor]:
    """The loss that the reference's own forward gives."""
    return lambda reference: reference(**batch).loss


# --- pretraining ---------------------------------------------------------------------------------------


def test_masked_language_modelling(words: Tokenizer, root: Path) -> None:
    reference, model = models("bert", "masked-lm", root)
    objective = MaskedLM(words, 0.3)
    batch = objective(TEXTS, seeded())
    compare(reference, model, objective, batch, own_loss(batch))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_causal_language_modelling(words: Tokenizer, root: Path, name: str) -> None:
    reference, model = models(name, "causal-lm", root)
    objective = CausalLM(words)
    batch = objective(TEXTS, seeded())
    compare(reference, model, objective, batch, own_loss(batch))


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "mistral", "bloom"])
def test_packed_documents_are_those_run_one_by_one(words: Tokenizer, root: Path, name: str) -> None:
    """No attention across documents, positions from 0, and no first token predicted: the same loss."""
    reference, model = models(name, "causal-lm", root)
    objective = CausalLM(words, length=45)
    batch = objective(TEXTS, seeded())
    assert batch["attention_mask"].dim() == 3
    assert len(batch["input_ids"]) < len(TEXTS)
    documents = [torch.tensor([words.encode(example["text"])]) for example in TEXTS]

    def one_by_one(network: Any) -> Tensor:
        sums = [network(ids, labels=ids).loss * (ids.shape[1] - 1) for ids in documents]
        return sum(sums) / sum(ids.shape[1] - 1 for ids in documents)

    if name == "bloom":  # its slopes have eight digits
        alone = one_by_one(reference)
        loss = objective.loss(model, batch)
        assert abs(loss.total / loss.count - alone) < 1e-7
    else:
        compare(reference, model, objective, batch, one_by_one)


@pytest.mark.parametrize(
    ("name", "kind", "examples"),
    [
        ("t5", SpanCorruption, TEXTS),
        ("bart", Denoising, TEXTS),
        ("t5", Seq2SeqLM, PAIRS),
        ("bart", Seq2SeqLM, PAIRS),
    ],
)
def test_sequence_to_sequence(
    words: Tokenizer, root: Path, name: str, kind: type, examples: Sequence[Any]
) -> None:
    reference, model = models(name, "seq2seq-lm", root)
    objective = kind(words)
    batch = objective(examples, seeded())
    assert (batch["labels"] == -100).any()
    compare(reference, model, objective, batch, own_loss(batch))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_smoothed_labels(words: Tokenizer, root: Path, name: str) -> None:
    reference, model = models(name, "seq2seq-lm", root)
    objective = Seq2SeqLM(words, label_smoothing=0.1)
    batch = objective(PAIRS, seeded())
    smoother = LabelSmoother(epsilon=0.1)
    compare(reference, model, objective, batch, lambda r: smoother(r(**batch), batch["labels"]))


def test_replaced_tokens(words: Tokenizer, root: Path, tmp_path: Path) -> None:
    """Both models of the pair, in ten steps; their embeddings are apart here, to have gradients of each."""
    tasks = ("masked-lm", "replaced-token-detection")
    (generator, ours), (discriminator, detector) = (models("electra", task, root) for task in tasks)
    objective = ReplacedTokens(words, 0.4)
    network = GeneratorAndDiscriminator(ours, detector, share_embeddings=False)
    before = [p.detach().clone() for p in network.parameters()]
    parameters = [*generator.parameters(), *discriminator.parameters()], network.parameters()
    optimizers = [torch.optim.AdamW(x, lr=1e-3) for x in parameters]
    for step in range(10):
        batch = objective(TEXTS, seeded(step))
        output = network(**batch)
        loss = objective.loss(network, batch)
        mean = loss.total / loss.count
        mean.backward()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        generated = generator(**inputs, labels=batch["labels"]).loss
        logits = discriminator(**inputs | {"input_ids": output.input_ids}).logits
        real = batch["attention_mask"].bool()  # ElectraForPreTraining computes this in float32
        detected = F.binary_cross_entropy_with_logits(logits[real], output.replaced[real].double())
        (generated + 50 * detected).backward()
        assert output.replaced.any()
        assert abs(mean - (generated + 50 * detected)) <= (1e-6 if step else LIMIT) * mean
        if not step:
            equal_gradients(generator, ours, tasks[0])
            equal_gradients(discriminator, detector, tasks[1])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert sum(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)) > 20
    for reference, model, task in ((generator, ours, tasks[0]), (discriminator, detector, tasks[1])):
        equal_parameters(reference, model, tmp_path / task, task)


# --- fine-tuning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classes", "multiple", "regression"])
def test_labels_of_sequences(words: Tokenizer, root: Path, kind: str) -> None:
    problem, classes, labels = {
        "classes": ("single_label_classification", 3, [2, 0, 1, 1]),
        "multiple": ("multi_label_classification", 3, [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0.5, 1, 0]]),
        "regression": ("regression", 1, [0.3, -2, 1.5, 4]),
    }[kind]
    more = {"num_labels": classes, "problem_type": problem}
    reference, model = models("bert", "sequence-classification", root, **more)
    objective = SequenceLabels(words, classes, multiple=kind == "multiple")
    examples = [example | {"labels": label} for example, label in zip(TEXTS, labels, strict=True)]
    batch = objective(examples, seeded())
    compare(reference, model, objective, batch, own_loss(batch))


def test_labels_of_tokens(words: Tokenizer, root: Path) -> None:
    reference, model = models("bert", "token-classification", root, num_labels=3)
    objective = TokenLabels(words, 3)
    examples = [{"words": WORDS[:n], "labels": [k % 3 for k in range(n)]} for n in (5, 9, 2)]
    batch = objective(examples, seeded())
    compare(reference, model, objective, batch, own_loss(batch))


def test_answers(words: Tokenizer, root: Path) -> None:
    reference, model = models("bert", "question-answering", root)
    objective = AnswerSpans(words, max_length=16, stride=4)
    batch = objective([ANSWER], seeded())
    assert len(batch["input_ids"]) > 2
    start, end = batch["labels"].T
    assert (start > 0).any()
    inputs = {name: x for name, x in batch.items() if name != "labels"}
    compare(
        reference,
        model,
        objective,
        batch,
        lambda r: r(**inputs, start_positions=start, end_positions=end).loss,
    )


@pytest.mark.parametrize("template", [MARKED, PLAIN])
def test_responses_are_those_of_transformers(
    words: Tokenizer, root: Path, tmp_path: Path, template: str
) -> None:
    """The tokens that transformers finds by {% generation %}, marked or not, and the loss on them."""
    from transformers import AutoTokenizer

    word_tokenizer(tmp_path, chat=MARKED)
    found = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        TALK, return_dict=True, return_assistant_tokens_mask=True
    )
    objective = Instruct(words, template=template)
    batch = objective([{"messages": TALK}], seeded())
    assert batch["input_ids"][0].tolist() == list(found["input_ids"])
    assert (batch["labels"][0] != -100).int().tolist() == list(found["assistant_masks"])
    reference, model = models("llama", "causal-lm", root)
    compare(reference, model, objective, batch, own_loss(batch))


def test_preferences(words: Tokenizer, root: Path) -> None:
    reference, model = models("llama", "causal-lm", root)
    frozen = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in frozen.parameters():
            parameter.mul_(0.9)
    objective = DPO(words, frozen, beta=0.4, label_smoothing=0.1)
    examples = [
        {"prompt": "w1 w2", "chosen": "w3 w4 w5", "rejected": "w6"},
        {"prompt": "w3", "chosen": "w8", "rejected": "w1 w9"},
    ]
    batch = objective(examples, seeded())
    labels = batch["labels"][:, 1:]

    def responses(network: Any) -> Tensor:
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        each = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return (each * (labels != -100)).sum(1)

    def loss(network: Any) -> Tensor:
        ours, base = responses(network), responses(frozen).detach()
        margin = 0.4 * ((ours[:2] - base[:2]) - (ours[2:] - base[2:]))
        return -(0.9 * F.logsigmoid(margin) + 0.1 * F.logsigmoid(-margin)).mean()

    compare(reference, model, objective, batch, loss)


def test_distillation(words: Tokenizer, root: Path) -> None:
    reference, model = models("gpt2", "causal-lm", root)
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(0.9)
    objective = Distillation(CausalLM(words), teacher, temperature=2.0, hard_weight=0.3)
    batch = objective(TEXTS, seeded())
    targets = batch["labels"][:, 1:] != -100

    def loss(network: Any) -> Tensor:
        output = network(**batch)
        ours = (output.logits[:, :-1][targets] / 2).log_softmax(-1)
        theirs = (teacher(**batch).logits[:, :-1][targets].detach() / 2).log_softmax(-1)
        soft = 4 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return 0.7 * soft + 0.3 * output.loss

    compare(reference, model, objective, batch, loss)


@pytest.mark.parametrize("symmetric", [False, True])
def test_pairs_of_sentences(words: Tokenizer, root: Path, symmetric: bool) -> None:
    reference, model = models("bert", "none", root)
    objective = SentencePairs(words, symmetric=symmetric)
    examples = [{"anchor": f"w{n} w{n + 1}", "positive": f"w{2 * n} w7 w{n}"} for n in range(4)]
    batch = objective(examples, seeded())
    inputs = {name: x for name, x in batch.items() if name != "num_pairs"}

    def loss(network: Any) -> Tensor:
        hidden, mask = network(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        anchors, positives = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).chunk(2)
        scores, own = 20 * anchors @ positives.T, torch.arange(4)
        one = F.cross_entropy(scores, own)
        return (one + F.cross_entropy(scores.T, own)) / 2 if symmetric else one

    compare(reference, model, objective, batch, loss)


# --- steps ---------------------------------------------------------------------------------------------

STEPS: list[tuple[str, str, Callable[[Tokenizer], Objective], Sequence[Any]]] = [
    ("bert", "masked-lm", lambda t: MaskedLM(t, 0.3), TEXTS),
    ("gpt2", "causal-lm", CausalLM, TEXTS),
    ("llama", "causal-lm", CausalLM, TEXTS),
    ("t5", "seq2seq-lm", SpanCorruption, TEXTS),
    ("bart", "seq2seq-lm", Denoising, TEXTS),
    (
        "bert",
        "token-classification",
        lambda t: TokenLabels(t, 2),
        [{"words": ["w1", "w2"], "labels": [1, 0]}],
    ),
    ("bert", "question-answering", lambda t: AnswerSpans(t, 16, 4), [ANSWER]),
]


@pytest.mark.parametrize(("name", "task", "make", "examples"), STEPS, ids=[f"{x[0]}-{x[1]}" for x in STEPS])
def test_ten_steps_stay_equal(
    words: Tokenizer, root: Path, tmp_path: Path, name: str, task: str, make: Any, examples: Sequence[Any]
) -> None:
    reference, model = models(name, task, root)
    objective, before = make(words), [p.detach().clone() for p in model.parameters()]
    optimizers = [torch.optim.AdamW(x.parameters(), lr=1e-3) for x in (reference, model)]
    for step in range(10):
        batch = objective(examples, seeded(step))
        loss = objective.loss(model, batch)
        labels = {"labels": batch["labels"]}
        if task == "question-answering":
            labels = dict(zip(("start_positions", "end_positions"), batch["labels"].T, strict=True))
        with Wide():
            theirs = reference(**{k: x for k, x in batch.items() if k != "labels"}, **labels).loss
            theirs.backward()
        (loss.total / loss.count).backward()
        assert abs(loss.total / loss.count - theirs) <= 1e-6 * (1 + abs(theirs))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    equal_parameters(reference, model, tmp_path, task)
    assert sum(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)) > 10
