"""The shape of a task: a task without text, and the parts of a pipeline that no task repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import minitx
from minitx.pipelines import pipeline as pipeline_module
from minitx.pipelines import task as task_module
from minitx.pipelines import text_task
from minitx.pipelines.batching import BatchLimits
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import ModelInput, Options, Request, Task
from minitx.validation import ArgumentTypeError, check_integer
from tests.parity.pipelines import close
from tests.unit.pipelines.checks import check_order_and_batches
from tests.unit.pipelines.folders import BERT, bert_folder


@dataclass(frozen=True, kw_only=True)
class MotionOptions(Options):
    """Options of this task.

    Attributes:
        top_k: number of classes.
    """

    top_k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("top_k", self.top_k, 1)


class Motion(Task[MotionOptions, ModelInput]):
    """The class of a series of vectors (T, E), such as the frames of a motion."""

    Options = MotionOptions
    fields = ("frames",)
    kind = "a tensor (T, E)"

    def is_single(self, inputs: Any) -> bool:
        return isinstance(inputs, Tensor | Mapping)

    def check_field(self, field: str, value: Any, name: str) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 2:
            raise ArgumentTypeError(self.name_of(field, name), value, "a tensor (T, E)")
        return value

    def preprocess(self, request: Request, options: MotionOptions) -> list[ModelInput]:
        frames = request["frames"]
        return [ModelInput(arguments={"inputs_embeds": frames}, size=len(frames), truncated=len(frames) > 9)]

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[ModelInput],
        outputs: Sequence[Tensor],
        options: MotionOptions,
    ) -> Any:
        scores, classes = outputs[0].softmax(dim=-1).topk(options.top_k)
        pairs = zip(scores.tolist(), classes.tolist(), strict=True)
        return Predictions(Prediction(label=index, score=score) for score, index in pairs)


class PaddedMotion(Motion):
    """As `Motion`; series of different lengths share batches."""

    pads = True

    def collate(self, inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        frames = [item.arguments["inputs_embeds"] for item in inputs]
        mask = [torch.ones(item.size, dtype=torch.long) for item in inputs]
        return {
            "inputs_embeds": pad_sequence(frames, batch_first=True),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }


HEAD = "sequence-classification"
CONFIG = {**BERT, "id2label": {str(index): str(index) for index in range(5)}}


@pytest.fixture(params=[Motion, PaddedMotion])
def pipe(request: pytest.FixtureRequest, registrations_end: None) -> minitx.Pipeline:
    """A pipeline of each of the two tasks, over BERT's layers."""
    summary = "classify motions"
    minitx.register_task(
        TaskSpec(name="motion", summary=summary, path=request.param, heads=(HEAD,), checkpoint="none")
    )
    return minitx.pipeline("motion", minitx.from_config(CONFIG, head=HEAD, seed=0).eval())


def series(*lengths: int) -> list[Tensor]:
    """Returns random series of these lengths."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(length, BERT["hidden_size"], generator=draw) for length in lengths]  # type: ignore[call-overload]


def test_a_task_without_text(pipe: minitx.Pipeline) -> None:
    texts = {name for name in dir(text_task.TextTask) if name not in dir(Task)}
    assert {"encode", "limit", "overlap", "num_special_tokens"} <= texts
    assert not texts & set(dir(pipe.task))
    inputs = series(3, 7, 3, 5, 7, 3)
    check_order_and_batches(pipe, inputs)
    result = pipe(inputs[1], top_k=3)
    assert len(result) == 3
    logits = pipe.model(inputs_embeds=inputs[1][None]).logits[0]
    assert torch.allclose(result.details.outputs[0], logits, atol=1e-5)
    assert result.details.inputs[0].size == 7
    assert pipe({"frames": inputs[1]}) == pipe(frames=inputs[1]) == result[:1]
    assert close(list(pipe(iter(inputs))), pipe(inputs), 1e-5)
    with pytest.warns(UserWarning, match="1 of 2 inputs of motion were too long"):
        pipe(series(3, 10))


def test_its_batches(pipe: minitx.Pipeline) -> None:
    sizes = []
    hook = pipe.model.register_forward_pre_hook(
        lambda _, args, named: sizes.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    pipe(series(3, 7, 3, 5, 7, 3))
    assert sizes == ([6] if pipe.task.pads else [2, 1, 3])
    hook.remove()


def test_its_errors(pipe: minitx.Pipeline) -> None:
    (frames,) = series(3)
    with pytest.raises(TypeError, match=r"inputs\[1\]='a' must be a tensor \(T, E\)"):
        pipe([frames, "a"])
    with pytest.raises(TypeError, match=r"motion takes a tensor \(T, E\), or a dict with 'frames'"):
        pipe([frames, None])
    with pytest.raises(TypeError, match="max_length"):
        pipe(frames, max_length=3)
    with pytest.raises(ValueError, match="top_k=0"):
        pipe(frames, top_k=0)
    with pytest.raises(ValueError, match="task='motion' must be one that generates text"):
        pipe.stream(frames)
    with pytest.raises(ValueError, match="tokenizer='folder' must be None; motion has no text"):
        minitx.pipeline("motion", pipe.model, "folder")
    with pytest.raises(AttributeError, match="tokenizer"):
        _ = pipe.tokenizer


@pytest.fixture
def tags(tmp_path: Path) -> minitx.Pipeline:
    """A pipeline whose outputs are a row of logits per token."""
    return minitx.pipeline(
        "token-classification", bert_folder(tmp_path / "bert", "token-classification"), device="cpu"
    )


def test_outputs_do_not_keep_their_batch(tags: minitx.Pipeline) -> None:
    for result in tags(["the cat", "a dog ran to the park", "the mat ."], ignore_labels=[]):
        (output,) = result.details.outputs
        assert output.untyped_storage().nbytes() == output.numel() * output.element_size()


def test_a_batch_is_copied_to_the_cpu_once(tags: minitx.Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    to_cpu = task_module.to_cpu
    monkeypatch.setattr(task_module, "to_cpu", lambda x: (shapes.append(tuple(x.shape)), to_cpu(x))[1])
    tags(["the cat", "a dog ran", "the mat ."])
    assert shapes == [(3, 5, 2)]


def test_batches_are_those_of_the_device_at_the_call(
    tags: minitx.Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    limits_for = pipeline_module.limits_for

    def limits(device: torch.device, rows: int | None) -> BatchLimits:
        devices.append(device.type)
        return limits_for(device, rows)

    monkeypatch.setattr(pipeline_module, "limits_for", limits)
    tags("the cat")
    tags.model.to("meta")
    monkeypatch.setattr(
        tags.task, "forward", lambda inputs, options: [torch.zeros(len(x), 2) for x in inputs]
    )
    tags("the cat")
    assert devices == ["cpu", "meta"]


def test_token_types_are_those_that_the_model_has(tmp_path: Path) -> None:
    for types in (2, 0):
        folder = bert_folder(tmp_path / str(types), "token-classification", type_vocab_size=types)
        (item,) = minitx.pipeline("ner", folder, device="cpu").task.encode(
            "a", options=text_task.TextOptions()
        )
        assert set(item.ids) == {"input_ids"} | ({"token_type_ids"} if types else set())
