"""Every engine of the benchmark gives the answers of minitx, or the reason why it cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from minitx.bench import conversions
from minitx.bench import engine as engines
from minitx.bench.calls import inputs_of
from minitx.bench.conversions import converted
from minitx.bench.engine import ENGINES, Engine, Setup, installed, make_engine
from minitx.bench.engines.ctranslate2_files import END, add_end_token
from minitx.bench.engines.llama_cpp_engine import SLOTS, LlamaCpp, Row
from minitx.bench.engines.transformers_compiled import TransformersCompiled
from minitx.bench.models import model_folder
from minitx.bench.workloads import WORKLOADS, Workload
from minitx.optimize import auto
from minitx.optimize.graphs import compiled
from tests.unit.bench.tiny import VOCABULARY, WORDS, save_tiny

FAMILIES = {"bert": "encoder", "gpt2": "decoder", "llama": "decoder", "t5": "encoder-decoder"}
LENGTHS = (5, 3, 11, 3, 7, 8, 2, 4, 9)
COUNTS = [3, 9, 1, 12, 5, 5, 2, 8, 4]
NEAR = 0.1  # distance of int8's numbers, of the largest
Load = Callable[[str, str], Engine]


class Captured(TransformersCompiled):
    """Graphs are captured as for the compiler, and run uncompiled: inductor needs seconds for each."""

    backend: ClassVar[str] = "eager"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny(kind, tmp_path_factory.mktemp(kind)) for kind in FAMILIES}


@pytest.fixture(scope="module")
def load(folders: dict[str, Path]) -> Any:
    """Loads each engine once for each checkpoint."""
    table: dict[str, Any] = {**ENGINES, "transformers-compiled": Captured}
    loaded: dict[tuple[str, str], Engine] = {}

    def get(name: str, kind: str) -> Engine:
        if (name, kind) not in loaded:
            loaded[name, kind] = make_engine(name, table)
            loaded[name, kind].load(setup_of(folders, kind))
        return loaded[name, kind]

    yield get
    for engine in loaded.values():
        engine.close()


def setup_of(folders: dict[str, Path], kind: str) -> Setup:
    return Setup(folders[kind], FAMILIES[kind], threads=1)  # type: ignore[arg-type]


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def distance(answer: Tensor, reference: Tensor) -> float:
    assert answer.shape == reference.shape
    return float((answer - reference).abs().max() / reference.abs().max())


def runs(name: str, folders: dict[str, Path], kind: str, workload: str) -> bool:
    """Whether an engine's package is installed; without it the reason names the package."""
    engine = make_engine(name)
    reason = engine.reason(setup_of(folders, kind), WORKLOADS[workload])
    if not all(map(installed, engine.packages)):
        assert reason is not None
        assert "is not installed; install it with" in reason
        return False
    assert reason is None
    return True


TEXT_ENGINES = [
    ("transformers-compiled", "gpt2"),
    ("ctranslate2", "gpt2"),
    ("ctranslate2", "llama"),
    ("ctranslate2", "t5"),
    ("llama.cpp", "gpt2"),
    ("llama.cpp", "llama"),
]
INT8_ENGINES = [("ctranslate2-int8", kind) for kind in ("gpt2", "llama", "t5")]
INT8_ENGINES += [("llama.cpp-q8", kind) for kind in ("gpt2", "llama")]


@pytest.mark.parametrize(("name", "kind"), TEXT_ENGINES)
def test_greedy_tokens(name: str, kind: str, load: Load, folders: dict[str, Path]) -> None:
    if not runs(name, folders, kind, "decode-8"):
        return
    for rows in (rows_of(), rows_of((6,))):
        assert load(name, kind).generate(rows, 8) == load("minitx", kind).generate(rows, 8)


@pytest.mark.parametrize(("name", "kind"), TEXT_ENGINES[1:])
def test_rows_of_many_lengths_stop_at_their_own(
    name: str, kind: str, load: Load, folders: dict[str, Path]
) -> None:
    """Nine rows are more than a batch of CTranslate2."""
    if not runs(name, folders, kind, "decode-mixed"):
        return
    answer = load(name, kind).generate(rows_of(), COUNTS)
    assert list(map(len, answer)) == COUNTS
    assert answer == load("minitx", kind).generate(rows_of(), COUNTS)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_beams_of_ctranslate2(kind: str, load: Load) -> None:
    rows = rows_of((6, 6))
    assert load("ctranslate2", kind).generate(rows, 7, 3) == load("minitx", kind).generate(rows, 7, 3)
    alone = load("ctranslate2", kind).generate(rows, [7, 4], 3)
    assert alone == [load("minitx", kind).generate(rows[i : i + 1], n, 3)[0] for i, n in ((0, 7), (1, 4))]


@pytest.mark.parametrize(("name", "kind"), TEXT_ENGINES[1:] + INT8_ENGINES)
def test_logits(name: str, kind: str, load: Load, folders: dict[str, Path]) -> None:
    if not runs(name, folders, kind, "decode"):
        return
    rows, written = rows_of((6, 6)), [[7, 8], [9, 10]]
    table_of_gelu = (name, kind) == ("llama.cpp", "gpt2")
    near = NEAR if (name, kind) in INT8_ENGINES else 2e-3 if table_of_gelu else 1e-5
    for new in (None, written):
        answer = load(name, kind).prefill(rows, new)
        assert answer.shape == (2, VOCABULARY)
        assert distance(answer, load("minitx", kind).prefill(rows, new)) < near


@pytest.mark.parametrize(("name", "kind"), INT8_ENGINES)
def test_int8_tokens(name: str, kind: str, load: Load, folders: dict[str, Path]) -> None:
    """The first tokens of most rows are those of float32, and the numbers of tokens are those asked for."""
    if not runs(name, folders, kind, "decode-8"):
        return
    answer = load(name, kind).generate(rows_of(), COUNTS)
    exact = load("minitx", kind).generate(rows_of(), COUNTS)
    assert list(map(len, answer)) == COUNTS
    assert sum(a[0] == b[0] for a, b in zip(answer, exact, strict=True)) >= 7
    assert not make_engine(name).exact


@pytest.mark.parametrize("name", ["transformers-compiled", "ctranslate2", "ctranslate2-int8", "onnxruntime"])
def test_mean_hidden_states(name: str, load: Load, folders: dict[str, Path]) -> None:
    if not runs(name, folders, "bert", "encode-mixed"):
        return
    rows = rows_of(LENGTHS * 4)  # more than a padded batch
    for some in (rows, rows[:1]):
        answer = load(name, "bert").encode(some)
        near = NEAR if name == "ctranslate2-int8" else 1e-5
        assert distance(answer, load("minitx", "bert").encode(some)) < near


def test_scores_of_texts(folders: dict[str, Path]) -> None:
    """Rows are texts in their order, columns labels; every engine's pipeline gives the same."""
    workload = WORKLOADS["classify"].changed(batch=9, length=40)
    texts, answers = inputs_of(workload, VOCABULARY), []
    assert [len(text.split()) for text in texts] == workload.lengths()
    setup = Setup(model_folder("minitx/tiny-classifier"), "encoder", threads=1)
    for name in ("transformers", "minitx", "minitx-optimized"):
        engine = make_engine(name)
        assert engine.reason(setup, workload) is None
        assert engine.reason(setup_of(folders, "bert"), workload) == (
            "the checkpoint has no head that classifies texts"
        )
        engine.load(setup)
        answers.append(engine.classify(texts))
        engine.close()
    assert answers[0].shape == (9, 2)
    assert len({*answers[0][:, 0].tolist()}) > 1
    assert all(distance(answer, answers[0]) < 1e-5 for answer in answers)


@pytest.mark.parametrize("name", ["ctranslate2", "onnxruntime", "sentence-transformers"])
def test_vectors_of_texts(name: str, load: Load, folders: dict[str, Path]) -> None:
    if not runs(name, folders, "bert", "embed"):
        return
    texts = [" ".join(WORDS[:4]), "word7", "", " ".join(WORDS * 2)]  # the last is cut at 64 tokens
    answer = load(name, "bert").embed(texts)
    assert torch.allclose(answer.norm(dim=1), torch.ones(4))
    assert distance(answer, load("minitx", "bert").embed(texts)) < 1e-5


def test_graphs_are_captured_once_for_each_shape(load: Load) -> None:
    engine = load("transformers-compiled", "gpt2")
    engine.generate(rows_of((4,)), 5)
    before = engine.compile_seconds
    engine.generate(rows_of((4,)), 5)
    assert before == engine.compile_seconds > 0
    engine.generate(rows_of((4,)), 6)
    assert engine.compile_seconds > before


def uncompiled(function: Any) -> Any:
    """Runs the step that would be compiled: inductor needs half a minute for it."""
    return function


@pytest.mark.parametrize(("kind", "beams"), [("gpt2", 1), ("gpt2", 2), ("t5", 1)])
def test_steps_of_minitx_are_compiled_before_the_first_answer(
    kind: str, beams: int, folders: dict[str, Path], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial has the rows of the call, and its seconds are those of the compilation."""
    monkeypatch.setattr(compiled, "Compiled", uncompiled)
    monkeypatch.setattr(compiled, "check_compiler", lambda: None)
    engine = make_engine("minitx-compiled")
    assert engine.exact
    assert engine.reason(setup_of(folders, kind), WORKLOADS["decode"]) is None
    engine.load(setup_of(folders, kind))
    rows, batches = rows_of((6, 6)), list[int]()
    run = compiled.CompiledStep.run

    def counted(step: Any, model: Any, length: int) -> Any:
        batches.append(len(step.ids))
        return run(step, model, length)

    monkeypatch.setattr(compiled.CompiledStep, "run", counted)
    before = engine.compile_seconds
    expected = load("minitx", kind).generate(rows, 8, beams)
    assert engine.generate(rows, 8, beams) == expected
    after = engine.compile_seconds
    assert after > before > 0
    steps = len(batches)
    assert {*batches} == {2 * beams}
    assert engine.generate(rows, 8, beams) == expected
    assert engine.compile_seconds == after
    assert 0 < len(batches) - steps < steps  # there is no trial any more
    engine.generate(rows[:1], 8, beams)
    assert engine.compile_seconds > after
    if beams == 1:
        batches.clear()
        mixed = engine.generate(rows_of((6, 6, 6)), [2, 3, 9])
        assert list(map(len, mixed)) == [2, 3, 9]
        assert {*batches[: batches.index(3)]} == {2, 1}  # the trial compiles for several rows and for one
    engine.close()


def test_int8_of_minitx_is_compiled_too(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "Compiled", uncompiled)
    monkeypatch.setattr(compiled, "check_compiler", lambda: None)
    monkeypatch.setattr(auto, "int8_is_faster", lambda: True)
    engine = make_engine("minitx-compiled-int8")
    assert (engine.exact, engine.weight_bytes) == (False, 1)
    engine.load(setup_of(folders, "gpt2"))
    assert "int8_dynamic" in engine.version()
    assert "compiled_steps" in engine.version()
    assert [len(row) for row in engine.generate(rows_of((6,)), 8)] == [8]


@torch.no_grad()
def test_the_end_token_is_never_chosen(folders: dict[str, Path]) -> None:
    """Not even where all other logits are far below those of a row of zeros."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folders["llama"])
    model.lm_head.weight.zero_()
    model.lm_head.bias = torch.nn.Parameter(torch.full((VOCABULARY,), -1000.0))
    add_end_token(model, VOCABULARY)
    logits = model(torch.tensor([[5, 6]])).logits
    assert logits.shape[-1] == VOCABULARY + 1
    assert bool((logits[..., :-1] == -1000).all())
    assert int(logits[0, -1].argmin()) == VOCABULARY
    assert END not in {f"<{i}>" for i in range(VOCABULARY)}


# --- llama.cpp without its package -----------------------------------------------------------------


class OnMinitx(LlamaCpp):
    """The scheduling of llama.cpp's rows, each batch computed by minitx from all tokens so far."""

    def __init__(self, model: Engine) -> None:
        self.reference, self.slots = model, 0
        self.caches: dict[int, list[int]] = {}

    def _make_room(self, slots: int, length: int) -> None:
        self.slots, self.caches = slots, {}

    def _forget(self, slot: int) -> None:
        del self.caches[slot]

    def _decode(self, rows: list[Row]) -> Tensor:
        for row in rows:
            cache = self.caches.setdefault(row.slot, [])
            assert row.length == len(cache)
            assert row.slot < self.slots
            cache += row.feed
            row.length += len(row.feed)
        return torch.cat([self.reference.prefill([self.caches[row.slot]]) for row in rows])


def test_rows_of_llama_cpp_take_turns(load: Load) -> None:
    """More rows than slots: one that is finished makes room for the next."""
    reference = load("minitx", "gpt2")
    rows, counts = rows_of(LENGTHS * 3), COUNTS * 3
    assert len(rows) > SLOTS
    engine = OnMinitx(reference)
    assert engine.generate(rows, counts) == reference.generate(rows, counts)
    assert engine.slots == SLOTS
    assert not engine.caches
    assert engine.generate(rows[:2], 4) == reference.generate(rows[:2], 4)
    assert distance(engine.prefill(rows[:1]), reference.prefill(rows[:1])) < 1e-6


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_gguf_files_hold_the_weights(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """By the reader of the gguf package; int8 within half a step of its scale."""
    import gguf
    from safetensors.torch import load_file

    from minitx.bench.engines.gguf_file import interleaved, write_gguf

    weights = load_file(folders[kind] / "model.safetensors")
    write_gguf(folders[kind], tmp_path / "exact.gguf", int8=False)
    write_gguf(folders[kind], tmp_path / "int8.gguf", int8=True)
    exact, int8 = (
        {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors}
        for name in ("exact", "int8")
    )
    pairs = {
        "gpt2": [("blk.1.ffn_up.weight", "transformer.h.1.mlp.c_fc.weight", lambda w: w.T)],
        "llama": [
            ("blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight", lambda w: interleaved(w, 2)),
            ("output.weight", "lm_head.weight", lambda w: w),
        ],
    }[kind]
    for name, source, change in pairs:
        weight = change(weights[source if source in weights else source.removeprefix("transformer.")])
        assert torch.equal(torch.from_numpy(exact[name].data.copy()), weight)
        assert int8[name].tensor_type == gguf.GGMLQuantizationType.Q8_0
        restored = torch.from_numpy(gguf.quants.dequantize(int8[name].data, int8[name].tensor_type))
        assert float((restored - weight).abs().max()) <= float(weight.abs().max()) / 127
    assert exact["output_norm.weight"].tensor_type == int8["output_norm.weight"].tensor_type
    assert sum(t.n_elements for t in exact.values()) == sum(map(torch.Tensor.numel, weights.values()))


def test_a_checkpoint_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again when it changes; nothing is left where the conversion fails."""
    monkeypatch.setenv(conversions.VARIABLE, str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    written: list[Path] = []

    def write(path: Path) -> None:
        written.append(path)
        path.write_text("converted")

    def fail(path: Path) -> None:
        path.mkdir()
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        converted("kind", tmp_path / "model", fail)
    assert not list((tmp_path / "place").iterdir())
    first = converted("kind", tmp_path / "model", write)
    assert converted("kind", tmp_path / "model", write) == first
    assert first.read_text() == "converted"
    assert len(written) == 1
    (tmp_path / "model" / "config.json").write_text('{"vocab_size": 7}')
    assert converted("kind", tmp_path / "model", write) != first
    assert len(written) == 2


# --- reasons ---------------------------------------------------------------------------------------

RIVALS = [name for name in ENGINES if not name.startswith("minitx")]


@pytest.mark.parametrize("name", RIVALS)
def test_a_missing_package_is_named(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(engines, "version", missing)
    engine = make_engine(name)
    reason = engine.reason(setup_of(folders, "bert"), WORKLOADS["encode"]) or ""
    assert reason.startswith(f"the package {engine.packages[0]} is not installed; install it with: pip ")
    assert "[bench]" in reason


@pytest.mark.parametrize(
    ("name", "kind", "workload", "reason"),
    [
        ("transformers-compiled", "t5", "beams", "its beam search is not compiled"),
        ("transformers-compiled", "gpt2", "decode-mixed", "each shape of a padded batch"),
        ("ctranslate2", "gpt2", "train", "it does not run train_step"),
        ("onnxruntime", "gpt2", "prefill", "it does not run prefill"),
        ("onnxruntime", "gpt2", "encode", "it does not run models of the family decoder"),
        ("sentence-transformers", "bert", "encode", "it does not run encode"),
        ("minitx-compiled", "bert", "encode", "an encoder generates nothing"),
        ("minitx-compiled-int8", "gpt2", "train", "it does not run train_step"),
        ("minitx-compiled", "gpt2", "prefill", "only the steps of a generation are compiled"),
    ],
)
def test_what_an_engine_does_not_run(
    name: str, kind: str, workload: str, reason: str, folders: dict[str, Path]
) -> None:
    said = make_engine(name).reason(setup_of(folders, kind), WORKLOADS[workload])
    assert said is not None
    assert said.startswith(reason)


@pytest.mark.parametrize("name", ["transformers-compiled", "minitx-compiled"])
def test_a_cpu_needs_a_compiler(name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    engine = make_engine(name)
    reason = engine.reason(setup_of(folders, "gpt2"), WORKLOADS["decode"])
    assert reason == "torch.compile needs a C++ compiler, such as g++"


def reason_of(name: str, folder: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The reason on a machine that has all packages."""
    monkeypatch.setattr(engines, "installed", lambda _: True)
    family: Any = "encoder" if workload.call == "embed" else "decoder"
    return make_engine(name).reason(Setup(folder, family), workload)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "opt"}, "converts gpt2, llama, not opt"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "positions of type llama3"),
        ({"attention_bias": True}, "with biases"),
        ({}, None),
    ],
)
def test_what_is_not_written_as_gguf(
    changes: dict[str, Any],
    reason: str | None,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = json.loads((folders["llama"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    said = reason_of("llama.cpp", tmp_path, WORKLOADS["decode"], monkeypatch)
    assert said is reason is None or reason in (said or "")
    assert reason_of("llama.cpp", tmp_path, WORKLOADS["beams"], monkeypatch) == "it has no beam search"


def test_ctranslate2_names_the_architectures_that_it_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    said = reason_of("ctranslate2", tmp_path, WORKLOADS["decode"], monkeypatch)
    assert said == "its adapter converts bert, gpt2, llama, t5, not opt"


@pytest.mark.parametrize("name", ["ctranslate2", "onnxruntime", "sentence-transformers"])
def test_texts_need_a_tokenizer_and_a_mean(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    said = reason_of(name, tmp_path, WORKLOADS["embed"], monkeypatch)
    assert said == "the checkpoint has no tokenizer.json"
    (tmp_path / "tokenizer.json").write_text("{}")
    assert reason_of(name, tmp_path, WORKLOADS["embed"], monkeypatch) is None
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert "pools otherwise" in (reason_of(name, tmp_path, WORKLOADS["embed"], monkeypatch) or "")
