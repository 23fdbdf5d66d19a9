"""Summary and verify: every architecture agrees, and what is altered is found and named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import minitx
from minitx.architectures import REGISTRY
from minitx.extras import missing_extra
from minitx.inspect.compare.inputs import make_inputs
from minitx.inspect.compare.report import ComparedCall, Gap, render_report
from minitx.inspect.compare.verify import gap, verify
from minitx.inspect.summary import human, render, summarize
from minitx.layers.activation import Activation
from minitx.models import EncoderModel
from tests.parity.cases import BY_NAME, CASES
from tests.parity.encoder_decoders import ENCODER_DECODERS
from tests.parity.layer_norm_decoders import LAYER_NORM_DECODERS
from tests.parity.reference import reference_model
from tests.parity.rms_norm_decoders import RMS_NORM_DECODERS
from tests.real import ALBERT, MINILM

# One case and one head for each architecture, plus the arrangements that pair differently.
CHOSEN = [
    ("bert", "none"),
    ("roberta", "masked-lm"),
    ("xlm-roberta", "sequence-classification"),
    ("camembert", "token-classification"),
    ("distilbert", "question-answering"),
    ("electra", "replaced-token-detection"),
    ("albert-groups", "none"),
    ("mpnet", "masked-lm"),
    ("modernbert", "masked-lm"),
    ("modernbert-biases", "multiple-choice"),
    ("deberta-v3", "masked-lm"),
    ("deberta-v2-conv", "multiple-choice"),
    ("tapas", "masked-lm"),
    *((case.name, "causal-lm") for case in (*LAYER_NORM_DECODERS, *RMS_NORM_DECODERS)),
    *((case.name, "seq2seq-lm") for case in ENCODER_DECODERS),
    ("t5", "encoder"),
    ("t5", "token-classification"),
    ("bart", "none"),
    ("bart", "sequence-classification"),
    ("mbart", "question-answering"),
]
# What does more in minitx than the module of the reference: it scales, or it adds a bias.
DOES_MORE = {"embedder.word_emb", "decoder_embedder.word_emb", "head.projection"}


def checkpoint(folder: Path, name: str, task: str) -> Path:
    reference_model(BY_NAME[name], task, torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("bert"), "bert", "sequence-classification")


@pytest.fixture(scope="module")
def modernbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("modernbert"), "modernbert", "masked-lm")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("t5"), "t5", "seq2seq-lm")


# --- verify ----------------------------------------------------------------------------------------


def test_every_architecture_is_chosen() -> None:
    kinds = {case.name: case.model_type for case in CASES}
    assert {kinds[name] for name, _ in CHOSEN} == set(REGISTRY)


@pytest.mark.parametrize(("name", "task"), CHOSEN)
def test_every_architecture_agrees(tmp_path: Path, name: str, task: str) -> None:
    report = verify(checkpoint(tmp_path, name, task))
    assert report.ok, render_report(report)
    assert report.culprit == ()
    # read as a table, never called; or several of the reference's in one, under other names in memory
    in_one = ("mixtral", "moe", "oss", "experts")
    unpaired = {path for path in report.unpaired if not any(part in name for part in in_one)}
    allowed = DOES_MORE if task == "seq2seq-lm" else set()
    assert unpaired <= {"encoder.relative_emb"} | allowed
    assert report.entries[-1].module in {"last_hidden_state", "pooler_output", "logits", "end_logits"}
    lines = render_report(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("EQUAL") or lines[-2].startswith("EQUAL")


@pytest.mark.parametrize("folder", [MINILM, ALBERT], ids=["minilm", "albert"])
def test_real_checkpoints_agree(folder: Path) -> None:
    report = verify(folder)
    assert report.ok, render_report(report)
    assert not report.unpaired
    assert ("real text" in report.inputs) == (folder == MINILM)


@pytest.mark.parametrize("head", [None, "none"])
def test_a_pooler_that_nothing_reads_may_be_missing(tmp_path: Path, head: str | None) -> None:
    """transformers' encoder-decoder has one in its BERT; ours has not, and writes none."""
    case = BY_NAME["bert-gpt2"]
    config = {"model_type": case.model_type, **case.config}
    minitx.save(minitx.from_config(config, head="seq2seq-lm", seed=0), tmp_path)
    report = verify(tmp_path, head=head)
    assert report.ok, render_report(report)
    assert "encoder_last_hidden_state" in {row.module for row in report.entries}


def test_what_would_be_drawn_at_random_is_not_compared(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "bert", "masked-lm")
    assert verify(folder, head="none").ok  # the reference has a pooler then, which the file lacks
    fresh = minitx.load(folder, head="sequence-classification", init_head=True)
    with pytest.raises(ValueError, match=r"pooler\.dense\.bias.*classifier\.bias.*head .none. leaves it out"):
        verify(folder, model=fresh)


def layer(model: EncoderModel, index: int) -> Any:
    return model.encoder.get_submodule(f"layers.{index}")


def bump(parameter: nn.Parameter) -> None:
    with torch.no_grad():
        parameter[..., 0] += 1e-4


def swap_activation(model: EncoderModel) -> None:
    layer(model, 1).intermediate.activation = Activation("gelu_new")


def scale_scores(model: EncoderModel) -> None:
    layer(model, 2).attention.self_attention.scale *= 1.001


def change_eps(model: EncoderModel) -> None:
    layer(model, 0).output.layer_norm.eps *= 1.01


def skip_pooler_tanh(model: EncoderModel) -> None:
    assert model.pooler is not None
    model.pooler.activation = Activation("relu")


ALTERATIONS: list[tuple[str, Callable[[EncoderModel], None]]] = [
    ("embedder.word_emb", lambda m: bump(m.embedder.word_emb.weight)),
    ("embedder.pos_emb", lambda m: bump(m.embedder.get_parameter("pos_emb.weight"))),
    (
        "encoder.layers.1.attention.self_attention.K",
        lambda m: bump(layer(m, 1).attention.self_attention.K.bias),
    ),
    (
        "encoder.layers.2.attention.self_output.dense",
        lambda m: bump(layer(m, 2).attention.self_output.dense.weight),
    ),
    ("encoder.layers.0.output.layer_norm", change_eps),
    ("encoder.layers.1.intermediate.activation", swap_activation),
    ("encoder.layers.2.attention.self_attention", scale_scores),
    ("pooler.dense", lambda m: bump(m.get_parameter("pooler.dense.bias"))),
    ("pooler.activation", skip_pooler_tanh),
    ("head.projection", lambda m: bump(m.get_parameter("head.projection.weight"))),
]


@pytest.mark.parametrize(("module", "alter"), ALTERATIONS, ids=[name for name, _ in ALTERATIONS])
def test_what_was_altered_is_named(bert: Path, module: str, alter: Callable[[EncoderModel], None]) -> None:
    model = minitx.load(bert)
    alter(model)
    report = verify(bert, model=model)
    assert not report.ok
    assert report.culprit == (module,)
    text = render_report(report)
    assert f"DIFFERENT, first in {module}:" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["culprit"] == [module]
    assert model.embedder.word_emb.weight.dtype == torch.float32  # what was passed in is not changed


def test_a_difference_that_vanishes_downstream_is_no_difference(bert: Path) -> None:
    """Values scaled in V and unscaled in the projection after it: the model computes the same."""
    model = minitx.load(bert)
    attention = layer(model, 1).attention
    with torch.no_grad():
        attention.self_attention.V.weight.mul_(4.0)
        attention.self_attention.V.bias.mul_(4.0)
        attention.self_output.dense.weight.mul_(0.25)
    report = verify(bert, model=model)
    assert report.ok, render_report(report)
    assert report.first is None
    assert report.culprit == ()
    scaled = "encoder.layers.1.attention.self_attention.V"
    assert [row.module for row in report.cancelled] == [
        scaled,
        scaled.replace("self_attention.V", "self_output.dense"),
    ]
    text = render_report(report)
    assert "VANISHES" in text
    assert "DIFF" not in text.replace("max difference", "")
    assert f"vanish: {scaled}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert report.to_json()["ok"] is True
    assert report.to_json()["vanishing"][0] == scaled
    with torch.no_grad():
        attention.self_output.dense.weight.mul_(1.5)  # not unscaled by the same factor
    report = verify(bert, model=model)
    assert not report.ok
    assert report.culprit == (scaled,)
    assert report.to_json()["vanishing"] == []


@pytest.mark.parametrize("part", ["Q", "K", "V"])
def test_parts_of_a_fused_projection_are_told_apart(modernbert: Path, part: str) -> None:
    model = minitx.load(modernbert)
    bump(layer(model, 1).attention.self_attention.get_parameter(f"{part}.weight"))
    assert verify(modernbert, model=model).culprit == (f"encoder.layers.1.attention.self_attention.{part}",)


OF_T5 = [
    "encoder.layers.1.attention.self_output.dense",
    "encoder.relative_bias.0",
    "encoder.layer_norm",
    "decoder_embedder.word_emb",
    "decoder.layers.0.cross_attention_norm",
    "decoder.layers.1.cross_attention.cross_attention.K",
    "decoder.layers.2.intermediate.dense",
]


@pytest.mark.parametrize("module", OF_T5)
def test_what_was_altered_in_either_stack_is_named(t5: Path, module: str) -> None:
    model = minitx.load(t5)
    for name in ("decoder_embedder.word_emb", "head.projection"):  # else a bump of one is one of all
        own = nn.Parameter(model.get_parameter(f"{name}.weight").detach().clone())
        model.get_submodule(name).register_parameter("weight", own)
    bump(model.get_parameter(f"{module}.weight"))
    report = verify(t5, model=model)
    assert report.culprit == (module,), render_report(report)
    assert max(map(len, render_report(report).splitlines())) <= 80


def test_what_differs_behind_what_does_more_is_still_found(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "pegasus", "seq2seq-lm")
    for name, culprit in (("embedder.word_emb", "embedder"), ("head.projection", "head")):
        model = minitx.load(folder)
        own = nn.Parameter(model.get_parameter(f"{name}.weight").detach() * 1.1)
        model.get_submodule(name).register_parameter("weight", own)
        assert verify(folder, model=model).culprit == (culprit,)


def test_small_changes_are_found_where_float32_is_inside(modernbert: Path) -> None:
    """Far below what rotary tables in float32 leave behind, but in the first projection."""
    model = minitx.load(modernbert)
    with torch.no_grad():
        model.embedder.word_emb.weight += 1e-7
    assert verify(modernbert, model=model).culprit == ("embedder.word_emb",)


@pytest.mark.parametrize(
    ("name", "task"), [("mistral", "causal-lm"), ("gpt-neo", "causal-lm"), ("modernbert", "masked-lm")]
)
@pytest.mark.parametrize("more", [-1, 1])
def test_a_window_off_by_one_is_found(tmp_path: Path, name: str, task: str, more: int) -> None:
    """The longest text goes beyond the window's edge, and is not much longer than it must be."""
    folder = checkpoint(tmp_path, name, task)
    model = minitx.load(folder)
    stack = model.config.stack
    assert stack.sliding_window is not None
    longest = max(x["input_ids"].shape[-1] for x in make_inputs(None, model, 10**6).batches)
    assert longest == stack.sliding_window * (1 if stack.causal else 2) + 22
    model.stack.config = replace(stack, sliding_window=stack.sliding_window + more)
    report = verify(folder, model=model)
    assert report.culprit[0].endswith("attention.self_attention"), render_report(report)


def test_not_a_number_differs(bert: Path) -> None:
    model = minitx.load(bert)
    layer(model, 1).intermediate.activation = Activation("gelu")
    with torch.no_grad():
        layer(model, 1).intermediate.dense.bias.fill_(float("nan"))
    report = verify(bert, model=model)
    assert report.culprit == ("encoder.layers.1.intermediate.dense",)
    json.dumps(report.to_json(), allow_nan=False)


def test_gap() -> None:
    one, nan = torch.ones(2, 3), torch.full((2, 3), float("nan"))
    assert gap(one, one * 3) == Gap(2.0, 3.0)
    assert gap(nan, nan).absolute == 0
    assert gap(one, nan).absolute == float("inf")
    assert gap(one, torch.ones(3)).absolute == float("inf")
    assert gap(torch.tensor([float("inf")]), torch.tensor([float("inf")])).absolute == 0


@pytest.mark.parametrize(
    ("single", "double", "status"),
    [(1e-7, 1e-16, "ok"), (1e-3, 1e-12, "rounding"), (1e-6, 1e-7, "float32 inside"), (1e-3, 1e-3, "differs")],
)
def test_status(single: float, double: float, status: str) -> None:
    row = ComparedCall(
        module="m", partner="p", call=0, input=Gap(), output=Gap(single, 1.0), output64=Gap(double, 1.0)
    )
    assert row.status == status


def test_without_transformers(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=re.escape(missing_extra("verify"))):
        verify(bert)


# --- summary ---------------------------------------------------------------------------------------


def test_summary_counts(bert: Path) -> None:
    model = minitx.load(bert)
    summary = summarize(model, bert)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.bytes == 4 * summary.parameters
    assert sum(row.parameters for row in summary.entries if row.depth == 0) == summary.parameters
    fold = next(row for row in summary.entries if row.repeat > 1)
    assert (fold.name, fold.repeat, fold.kind) == ("0-2", 3, "PostNormLayer")
    stack = next(row for row in summary.entries if row.path == "encoder.layers")
    assert stack.parameters == 3 * fold.parameters
    query = next(row for row in summary.entries if row.path.endswith("self_attention.Q"))
    assert query.shapes == {"weight": (24, 24), "bias": (24,)}
    assert (query.parameters, query.bytes, query.dtypes) == (600, 2400, ("float32",))


def test_summary_of_a_tied_head(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "bert", "masked-lm")
    summary = summarize(minitx.load(folder))
    row = next(row for row in summary.entries if row.path == "head.projection")
    assert row.tied == {"weight": "embedder.word_emb.weight"}
    assert row.parameters == 99
    assert "weight is embedder.word_emb.weight, counted there" in render(summary)


def test_summary_of_two_stacks(t5: Path) -> None:
    summary = summarize(minitx.load(t5), t5)
    layers = {row.path: (row.name, row.runs) for row in summary.entries if row.kind == "Layer"}
    assert layers == {"encoder.layers.0": ("0-1", 2), "decoder.layers.0": ("0-2", 3)}
    tied = {row.path: dict(row.tied) for row in summary.entries if row.tied}
    one = {"weight": "embedder.word_emb.weight"}
    assert tied == {"decoder_embedder.word_emb": one, "head.projection": one}
    assert sum(row.parameters for row in summary.entries if row.depth == 0) == summary.parameters
    assert render(summary).count("weight is embedder.word_emb.weight, counted there") == 2


def test_summary_of_layers_that_differ(bert: Path) -> None:
    model = minitx.load(bert)
    layer(model, 1).to(torch.bfloat16)
    summary = summarize(model)
    assert [row.name for row in summary.entries if row.kind == "PostNormLayer"] == ["0", "1", "2"]
    assert summary.dtypes == ("float32", "bfloat16")
    assert "mixed" in render(summary)


def test_summary_of_what_is_not_used(bert: Path) -> None:
    real = summarize(minitx.load(MINILM), MINILM)
    assert [tensor.name for tensor in real.kept] == ["embeddings.position_ids"]
    assert real.ignored == ()
    bare = summarize(minitx.load(bert, head="none"), bert)
    assert [tensor.name for tensor in bare.ignored] == ["classifier.bias", "classifier.weight"]
    assert "In the file, not used:" in render(bare)
    lines = render(real).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("0-5: 6 x" in line for line in lines)


def test_summary_of_a_fresh_model() -> None:
    config = {"model_type": "bert", **BY_NAME["bert"].config}
    model = minitx.from_config({k: v for k, v in config.items() if k != "classifier_dropout"}, seed=0)
    model.checkpoint = None
    assert render(summarize(model)).startswith("model: ")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_960, "1.0 MB"), (1.5e9, "1.5 GB")]
)
def test_human(size: float, text: str) -> None:
    assert human(int(size)) == text


def test_shared_layers_say_how_often_they_run() -> None:
    config = {
        "model_type": "albert",
        "vocab_size": 30,
        "embedding_size": 8,
        "hidden_size": 12,
        "num_hidden_layers": 7,
        "num_hidden_groups": 2,
        "num_attention_heads": 2,
        "intermediate_size": 9,
        "max_position_embeddings": 16,
    }
    assert "0-1: 2 x, run 7 x" in render(summarize(minitx.from_config(config, seed=0)))
    assert ", run" not in render(summarize(minitx.from_config({**config, "num_hidden_groups": 7}, seed=0)))
