"""Design, section 7, point 4: losses, gradients, and the places where dropout acts."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect.compare.reference import Wide
from minitx.models import Model
from tests.parity.cases import BY_NAME, CASES, Case
from tests.parity.reference import (
    CASES_AND_HEADS,
    hidden_states,
    logits_of,
    padded,
    pair,
    real_tokens,
    states_of,
    table_targets,
    text,
)

HEADED = [(name, task) for name, task in CASES_AND_HEADS if task not in ("none", "encoder")]
FIRST = {case.model_type: case.name for case in reversed(CASES)}
LENGTH = 9
WORDS = ("masked-lm", "causal-lm", "seq2seq-lm")
# ElectraForPreTraining makes its loss of labels in float32, out of reach of `Wide`.
FLOAT32_LOSSES = {("electra", "replaced-token-detection"): 1e-6}


def labels(case: Case, task: str, kind: str = "classes") -> tuple[dict[str, Tensor], Tensor]:
    """The labels of a batch of 4, as the reference takes them and as minitx does."""
    generator = torch.Generator().manual_seed(1)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    classes = case.config.get("num_labels", 2)
    if task == "table-question-answering":
        theirs = table_targets((draw(4, 4, LENGTH) == 0).long() * torch.tensor([[1], [1], [0], [1]]))
        return theirs, theirs["labels"]
    if task == "question-answering":
        ends = draw(LENGTH + 3, 4, 2)  # some lie behind the text, and do not count
        return {"start_positions": ends[:, 0], "end_positions": ends[:, 1]}, ends
    if task == "sequence-classification" and kind == "targets":
        ours = torch.rand(4, classes, generator=generator, dtype=torch.float64)
    elif task == "sequence-classification" and kind == "numbers":
        ours = torch.randn(4, generator=generator, dtype=torch.float64)
    elif task in (*WORDS, "token-classification", "replaced-token-detection"):
        high = 99 if task in WORDS else {"replaced-token-detection": 2}.get(task, classes)
        ours = draw(high, 4, LENGTH // 2 + 1 if task == "seq2seq-lm" else LENGTH)
        if task != "replaced-token-detection":
            ours[:, ::3] = -100
    else:
        ours = draw({"multiple-choice": 3, "next-sentence": 2}.get(task, classes), 4)
    return {"labels": ours}, ours


def compare_training(reference: Any, model: Model, case: Case, task: str, kind: str) -> None:
    inputs = text(case, 4, LENGTH, task)
    theirs, ours = labels(case, task, kind)
    if task != "question-answering":  # there, padding takes part in the softmax, and its states are nobody's
        inputs = padded(case, inputs, "right")
    if task in (*WORDS, "token-classification"):
        ours[~real_tokens(inputs, "decoder_" if task == "seq2seq-lm" else "")] = -100
    reference.zero_grad()
    model.zero_grad()
    torch.manual_seed(0)
    with Wide():
        expected = reference(**inputs, **theirs)
    more = {name: x for name, x in theirs.items() if name != "labels"} if "float_answer" in theirs else {}
    torch.manual_seed(0)  # some losses draw
    found = model(**inputs, labels=ours, **more)
    limit = FLOAT32_LOSSES.get((case.model_type, task), case.float64)
    assert found.loss is not None
    assert abs(expected.loss - found.loss).item() <= limit * (1 + expected.loss.abs().item())
    with Wide():
        expected.loss.backward()
    found.loss.backward()
    wanted, checked = gradients(reference, task), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # a buffer of the reference's
            assert parameter.grad is None
            continue
        size = 1e-3 + wanted[name].abs().max().item()
        assert (wanted[name] - grad(parameter)).abs().max().item() <= limit * size, name
        checked += wanted[name].abs().max().item() > 0
    assert checked > 10  # the comparison is not of zeros


def grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def gradients(reference: Any, task: str) -> dict[str, Tensor]:
    """The reference's gradients under our names: they take the way that its weights take."""
    twin = copy.deepcopy(reference)
    for ours, theirs in zip(twin.parameters(), reference.parameters(), strict=True):
        ours.data = grad(theirs)
    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        loaded = minitx.load(folder, head=task)
        return {name: p.detach().clone() for name, p in loaded.named_parameters(remove_duplicate=False)}


@pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces")  # of the reference, about its past
@pytest.mark.parametrize(("name", "task"), HEADED)
def test_loss_and_every_gradient(name: str, task: str, root: Path) -> None:
    reference, model = pair(name, task, torch.float64, root)
    compare_training(reference, model, BY_NAME[name], task, "classes")


@pytest.mark.parametrize("kind", ["classes", "targets", "numbers"])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", [n for n in FIRST.values() if "sequence-classification" in BY_NAME[n].heads])
def test_three_kinds_of_labels(name: str, kind: str, declared: bool, root: Path) -> None:
    """One class per text, a target per class, and regression; said by the config or by the labels."""
    problem = {
        "classes": "single_label_classification",
        "targets": "multi_label_classification",
        "numbers": "regression",
    }[kind]
    more = {"num_labels": 1} if kind == "numbers" else {}
    more |= {"problem_type": problem} if declared else {}
    folder = root / f"{kind}-{declared}"
    folder.mkdir(exist_ok=True)
    reference, model = pair(name, "sequence-classification", torch.float64, folder, **more)
    reference.config.problem_type = problem if declared else None  # the reference remembers its first guess
    compare_training(reference, model, BY_NAME[name], "sequence-classification", kind)


@pytest.mark.parametrize(("name", "task"), CASES_AND_HEADS)
def test_where_dropout_acts(name: str, task: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout becomes a fixed pattern that depends on its probability; then outputs must be equal.

    Every probability of a case is another, so a dropout that is missing, misplaced or given another's
    probability changes the outputs.
    """

    def pattern(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return x
        wave = torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape) * (1 + p)
        return x * (1 + 0.3 * torch.sin(wave))

    monkeypatch.setattr(torch.nn.functional, "dropout", pattern)
    case = BY_NAME[name]
    reference, model = pair(name, task, torch.float64, root)
    attention = reference.config._attn_implementation
    reference.set_attn_implementation("eager")
    reference.train()
    model.train().set_attention("eager")
    inputs = text(case, 4, LENGTH, task)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    try:
        with torch.no_grad():
            with Wide():
                expected = reference(**inputs, output_hidden_states=True)
            states, output = hidden_states(model, inputs)
            plain = model.eval()(**inputs)
    finally:
        reference.eval().set_attn_implementation(attention)
        model.eval().set_attention("sdpa")
    pairs = [(a, b) for (_, a), (_, b) in zip(states_of(expected), states, strict=True)]
    pairs += zip(logits_of(expected), logits_of(output), strict=True)
    # A probability that is off by 0.01 moves the pattern by far more than this.
    assert max((a - b).abs().max().item() for a, b in pairs) <= 10 * case.float64
    assert not torch.allclose(plain.last_hidden_state, output.last_hidden_state, atol=1e-3)
