"""Objectives of all three families of models: gradients, and ten steps of AdamW, equal transformers'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.trainer_pt_utils import LabelSmoother

from minitx.inspect.compare.reference import Wide
from minitx.tokenizer import Tokenizer
from minitx.training import (
    DPO,
    AnswerSpans,
    CausalLM,
    Distillation,
    Instruct,
    MaskedLM,
    Objective,
    SentencePairs,
    Seq2SeqLM,
    SequenceLabels,
    TokenLabels,
)
from tests.parity.test_objectives import ANSWER, PAIRS, TEXTS, compare, equal_parameters, models, seeded
from tests.unit.training.words import TALK, WORDS, word_tokenizer

Batch = dict[str, Tensor]
CHOICES = [
    {"prompt": "w1 w2", "chosen": "w3 w4 w5", "rejected": "w6"},
    {"prompt": "w3", "chosen": "w8", "rejected": "w1 w9"},
]
CLASSES = [example | {"labels": label} for example, label in zip(TEXTS, (2, 0, 1, 1), strict=True)]
NUMBERS = [example | {"labels": x} for example, x in zip(TEXTS, (0.3, -2, 1.5, 4), strict=True)]
SETS = [
    example | {"labels": label}
    for example, label in zip(TEXTS, ([0, 1, 1], [0, 0, 0], [1, 0, 0], [0.5, 1, 0]), strict=True)
]
TAGS = [{"words": WORDS[:n], "labels": [k % 3 for k in range(n)]} for n in (5, 9, 2)]
NEAR = [{"anchor": f"w{n} w{n + 1}", "positive": f"w{2 * n} w7 w{n}"} for n in range(4)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("words"))


# --- the losses of transformers' models ------------------------------------------------------------


def own(network: Any, batch: Batch, objective: Any) -> Tensor:
    """The loss that the reference's own forward gives."""
    loss: Tensor = network(**batch).loss
    return loss


def answers(network: Any, batch: Batch, objective: Any) -> Tensor:
    start, end = batch["labels"].T
    inputs = {name: x for name, x in batch.items() if name != "labels"}
    loss: Tensor = network(**inputs, start_positions=start, end_positions=end).loss
    return loss


def smoothed(network: Any, batch: Batch, objective: Any) -> Tensor:
    loss: Tensor = LabelSmoother(epsilon=objective.label_smoothing)(network(**batch), batch["labels"])
    return loss


def preferences(network: Any, batch: Batch, objective: Any) -> Tensor:
    labels = batch["labels"][:, 1:]

    def responses(network: Any) -> Tensor:
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        each = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return (each * (labels != -100)).sum(1)

    margins = responses(network) - responses(objective.reference).detach()
    chosen, rejected = margins.chunk(2)
    return -F.logsigmoid(objective.beta * (chosen - rejected)).mean()


def distilled(network: Any, batch: Batch, objective: Any) -> Tensor:
    output, teacher, labels = network(**batch), objective.teacher(**batch).logits.detach(), batch["labels"]
    logits = output.logits
    if isinstance(objective.objective, CausalLM):
        logits, teacher, labels = logits[:, :-1], teacher[:, :-1], labels[:, 1:]
    targets, t = labels != -100, objective.temperature
    ours, theirs = ((x[targets] / t).log_softmax(-1) for x in (logits, teacher))
    soft = t**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return (1 - objective.hard_weight) * soft + objective.hard_weight * output.loss


def contrasted(network: Any, batch: Batch, objective: Any) -> Tensor:
    inputs = {name: x for name, x in batch.items() if name != "num_pairs"}
    hidden, mask = network(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    anchors, positives = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).chunk(2)
    return F.cross_entropy(objective.scale * anchors @ positives.T, torch.arange(len(anchors)))


# --- the cases -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objectives:
    """An objective with a model.

    Attributes:
        name: of the model's configuration.
        task: of its head.
        make: the objective, from a tokenizer and a frozen copy of the model with other weights.
        examples: of a batch.
        loss: of the reference, from a batch and the objective.
        options: of the configuration.
    """

    name: str
    task: str
    make: Callable[[Tokenizer, Any], Objective]
    examples: list[dict[str, Any]]
    loss: Callable[[Any, Batch, Any], Tensor] = own
    options: dict[str, Any] = field(default_factory=dict)


def labelled(name: str, kind: str) -> Objectives:
    count = 1 if kind == "numbers" else 3
    examples, problem = {
        "classes": (CLASSES, "single_label_classification"),
        "sets": (SETS, "multi_label_classification"),
        "numbers": (NUMBERS, "regression"),
    }[kind]
    options = {"num_labels": count, "problem_type": problem}
    make = lambda t, _: SequenceLabels(t, count, multiple=kind == "sets")  # noqa: E731
    return Objectives(name, "sequence-classification", make, examples, options=options)


CASES = {
    **{
        f"{kind}-{name}": labelled(name, kind)
        for name in ("bert", "gpt2", "llama", "bart", "t5")
        for kind in ("classes", "sets", "numbers")
    },
    **{
        f"tokens-{name}": Objectives(
            name, "token-classification", lambda t, _: TokenLabels(t, 3), TAGS, options={"num_labels": 3}
        )
        for name in ("gpt2", "t5")
    },
    **{
        f"answers-{name}": Objectives(
            name, "question-answering", lambda t, _: AnswerSpans(t, 16, 4), [ANSWER], answers
        )
        for name in ("bart", "t5")
    },
    "smoothed-t5": Objectives("t5", "seq2seq-lm", lambda t, _: Seq2SeqLM(t, 0.1), PAIRS, smoothed),
    "instruct-llama": Objectives("llama", "causal-lm", lambda t, _: Instruct(t), [{"messages": TALK}]),
    **{
        f"preferences-{name}": Objectives(
            name, "causal-lm", lambda t, twin: DPO(t, twin, beta=0.4), CHOICES, preferences
        )
        for name in ("gpt2", "llama")
    },
    "distillation-bert": Objectives(
        "bert", "masked-lm", lambda t, twin: Distillation(MaskedLM(t, 0.3), twin), TEXTS, distilled
    ),
    "distillation-gpt2": Objectives(
        "gpt2", "causal-lm", lambda t, twin: Distillation(CausalLM(t), twin), TEXTS, distilled
    ),
    "distillation-bart": Objectives(
        "bart", "seq2seq-lm", lambda t, twin: Distillation(Seq2SeqLM(t), twin), PAIRS, distilled
    ),
    **{
        f"pairs-{name}": Objectives(name, "none", lambda t, _: SentencePairs(t), NEAR, contrasted)
        for name in ("bert", "llama")
    },
}


def prepared(case: Objectives, words: Tokenizer, root: Path) -> tuple[Any, Any, Objective]:
    reference, model = models(case.name, case.task, root, **case.options)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    return reference, model, case.make(words, twin)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_every_gradient(words: Tokenizer, root: Path, name: str) -> None:
    case = CASES[name]
    reference, model, objective = prepared(case, words, root)
    batch = objective(case.examples, seeded())
    compare(reference, model, objective, batch, lambda network: case.loss(network, batch, objective))


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_stay_equal(words: Tokenizer, root: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    reference, model, objective = prepared(case, words, root)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizers = [torch.optim.AdamW(x.parameters(), lr=1e-3) for x in (reference, model)]
    for step in range(10):
        batch = objective(case.examples, seeded(step))
        loss = objective.loss(model, batch)
        with Wide():
            theirs = case.loss(reference, batch, objective)
            theirs.backward()
        mean = loss.total / loss.count
        mean.backward()
        assert abs(mean - theirs) <= 1e-6 * (1 + abs(theirs))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    equal_parameters(reference, model, tmp_path, case.task)
    assert sum(not torch.equal(p, before[key]) for key, p in model.named_parameters()) > 10


@pytest.mark.parametrize("task", ["sequence-classification", "question-answering"])
@pytest.mark.parametrize("name", ["bart", "mbart"])
def test_the_bias_of_a_classifier_is_trained(root: Path, name: str, task: str) -> None:
    """That of the head over the vocabulary, of the same name, is a buffer to transformers."""
    assert all(parameter.requires_grad for parameter in models(name, task, root)[1].parameters())
    frozen = [key for key, p in models(name, "seq2seq-lm", root)[1].named_parameters() if not p.requires_grad]
    assert frozen == ["head.projection.bias"]
