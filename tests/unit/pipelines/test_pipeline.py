"""The part of `pipeline()` that all tasks share, on text classification."""

from __future__ import annotations

import inspect
import json
import random
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minitx
from minitx.pipelines import checks
from minitx.pipelines.batching import BatchLimits, make_batches
from minitx.pipelines.registry import NAMES, SPECS, find_task
from minitx.pipelines.task import Task
from tests.unit.pipelines.folders import bert_folder

PIPELINES = Path(minitx.__file__).parent / "pipelines"
TEXTS = ["the cat sat", "", "a dog ran to the park and sat on the red mat.", "bad", "the blue cats"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    return bert_folder(tmp_path_factory.mktemp("classifier"), "sequence-classification", **names)


@pytest.fixture(scope="module")
def pipe(classifier: Path) -> minitx.Pipeline:
    return minitx.pipeline("sentiment-analysis", classifier)


def scores(results: Any) -> list[float]:
    return [result["score"] for result in results]


# --- construction ----------------------------------------------------------------------------------


def test_the_task_comes_from_the_checkpoint(classifier: Path) -> None:
    assert minitx.pipeline(model=classifier).task.spec.name == "text-classification"


def test_objects_may_be_passed(classifier: Path, pipe: minitx.Pipeline) -> None:
    model = minitx.load(classifier)
    with_model = minitx.pipeline("text-classification", model)
    assert with_model.model is model
    assert with_model(TEXTS) == pipe(TEXTS)
    with_both = minitx.pipeline(model=model, tokenizer=minitx.load_tokenizer(classifier))
    assert with_both(TEXTS) == pipe(TEXTS)


def test_a_flag_is_no_device(classifier: Path) -> None:
    with pytest.raises((TypeError, ValueError), match="device=True must be"):
        minitx.pipeline(model=classifier, device=True)


def test_training_after_the_pipeline_was_made(classifier: Path) -> None:
    pipe = minitx.pipeline(model=classifier)
    pipe.model.train()
    with pytest.raises(ValueError, match=r"must be in eval mode; call model.eval\(\)"):
        pipe("the cat")
    pipe.model.eval()
    assert pipe("the cat") == minitx.pipeline(model=classifier)("the cat")


def test_a_tokenizer_of_another_model_is_an_error(classifier: Path, tmp_path: Path) -> None:
    ids = {"cls_token_id": 40, "sep_token_id": 41, "pad_token_id": 42}
    other = bert_folder(tmp_path / "ids", "sequence-classification", **ids)
    small = bert_folder(tmp_path / "small", "sequence-classification", vocab_size=20)
    for folder in (other, small):
        with pytest.raises(ValueError, match="must be that of the model"):
            minitx.pipeline(model=folder, tokenizer=classifier)
    agrees = bert_folder(tmp_path / "agrees", "sequence-classification", **{**ids, "pad_token_id": 0})
    minitx.pipeline(model=agrees, tokenizer=classifier)


def test_the_usual_checkpoint_is_named(monkeypatch: pytest.MonkeyPatch, classifier: Path) -> None:
    asked = []

    def fetch(name: Any, **hub: Any) -> Path:
        asked.append(name)
        return classifier

    monkeypatch.setattr("minitx.checkpoint.hub.fetch", fetch)
    monkeypatch.setattr("minitx.checkpoint.hub.find", lambda *names, **hub: classifier)
    with pytest.warns(UserWarning, match="No model was named for text-classification; using distilbert/"):
        minitx.pipeline("sentiment-analysis")
    assert asked[0] == find_task("sentiment-analysis")[0].checkpoint


def test_a_missing_head_is_an_error(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bare", "masked-lm")
    with pytest.raises(ValueError, match=r"config\.json names BertForMaskedLM, a model for fill-mask"):
        minitx.pipeline("text-classification", folder)
    with pytest.raises(ValueError, match=r"head='sequence-classification'|head 'sequence-classification'"):
        minitx.pipeline("text-classification", minitx.load(folder), minitx.load_tokenizer(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "sentiment-analysi"}, "did you mean 'sentiment-analysis'"),
        ({"task": 3}, "task=3 must be a string"),
        ({}, "task=None must be the name of a task"),
        ({"task": "text-classification", "model": 3}, "model=3 must be a model of minitx"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"progress": "yes"}, "progress='yes'"),
        ({"device": "quantum"}, "device='quantum'"),
        ({"topk": 3}, "top_k"),
        ({"top_k": 0}, "top_k=0"),
        ({"tokenizer": 3}, "tokenizer=3 must be a tokenizer of minitx"),
        ({"overflow": "hope"}, "overflow='hope'"),
    ],
    ids=str,
)
def test_wrong_arguments(classifier: Path, arguments: dict[str, Any], message: str) -> None:
    if arguments and not {"task", "model"} & arguments.keys():
        arguments = {"task": "text-classification", "model": classifier, **arguments}
    with pytest.raises((TypeError, ValueError), match=message):
        minitx.pipeline(**arguments)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "small", "sequence-classification", vocab_size=40)
    pipe = minitx.pipeline(model=folder)
    with pytest.raises(ValueError, match="the model has 40 tokens, the tokenizer"):
        pipe("the cat")


def test_the_table_of_tasks_is_consistent() -> None:
    assert len(NAMES) == sum(1 + len(spec.aliases) for spec in SPECS)
    for spec in SPECS:
        assert isinstance(spec.path, str)
        assert (PIPELINES / f"{spec.path.partition(':')[0].replace('.', '/')}.py").is_file()
        assert spec.summary[0].islower()
        assert "/" in spec.checkpoint
        assert len(f"  {spec.name:<26}{spec.summary}") <= 80


# --- calls -----------------------------------------------------------------------------------------


def test_nesting(pipe: minitx.Pipeline) -> None:
    assert isinstance(pipe("the cat"), list)
    assert isinstance(pipe({"text": "the cat"}), dict)
    assert [type(result).__name__ for result in pipe(TEXTS)] == ["Prediction"] * len(TEXTS)
    assert [label["label"] for label in pipe("the cat", top_k=None)] == sorted(
        ("bad", "good"), key=lambda name: -next(x.score for x in pipe("the cat", top_k=2) if x.label == name)
    )


def test_results_are_plain_dicts_with_details(pipe: minitx.Pipeline) -> None:
    (result,) = pipe(["the cat"])
    assert json.loads(json.dumps(result)) == {"label": result.label, "score": result.score}
    details = result.details
    assert details.request == {"text": "the cat", "text_pair": None}
    assert details.inputs[0].tokens == ["[CLS]", "the", "cat", "[SEP]"]
    assert details.inputs[0].offsets[2] == (4, 7)
    assert details.outputs[0].shape == (2,)
    with pytest.raises(AttributeError, match="This result has no 'labels'; it has label, score and details"):
        _ = result.labels


def test_steps_that_a_task_lacks(pipe: minitx.Pipeline) -> None:
    with pytest.raises(NotImplementedError, match=r"Task must define preprocess\("):
        Task.preprocess(Task.__new__(Task), {}, None)
    with pytest.raises(NotImplementedError, match=r"Task must define postprocess\("):
        Task.postprocess(Task.__new__(Task), {}, [], [], None)


def test_named_fields(pipe: minitx.Pipeline) -> None:
    pairs = [{"text": text, "text_pair": "a dog"} for text in TEXTS]
    assert pipe(text=TEXTS, text_pair="a dog") == pipe(pairs)
    assert pipe(text="the cat", text_pair="a dog") == pipe({"text": "the cat", "text_pair": "a dog"})
    with pytest.raises(ValueError, match="as many values of each field"):
        pipe(text=["a", "b"], text_pair=["a"])
    assert pipe("the cat", text_pair="a dog") == pipe({"text": "the cat", "text_pair": "a dog"})
    for call in (partial(pipe, "the cat"), partial(pipe, inputs="the cat")):
        with pytest.raises(ValueError, match="text='a dog' must be left out beside inputs='the cat'"):
            call(text="a dog")


def test_a_batch_gives_what_its_rows_give(pipe: minitx.Pipeline) -> None:
    alone = [pipe([text])[0] for text in TEXTS]
    assert scores(pipe(TEXTS)) == pytest.approx(scores(alone), abs=1e-5)
    mixed = random.Random(0).sample(range(len(TEXTS)), len(TEXTS))
    assert scores(pipe([TEXTS[i] for i in mixed])) == pytest.approx(
        [alone[i]["score"] for i in mixed], abs=1e-5
    )


def test_without_a_padding_token(classifier: Path, pipe: minitx.Pipeline) -> None:
    tokenizer = minitx.load_tokenizer(classifier)
    tokenizer.pad_token = None
    unpadded = minitx.pipeline("text-classification", classifier, tokenizer)
    assert scores(unpadded(TEXTS)) == pytest.approx(scores(pipe(TEXTS)), abs=1e-6)


def test_an_iterable_gives_its_first_results_early(pipe: minitx.Pipeline) -> None:
    read = []

    def endless() -> Iterator[str]:
        while True:
            read.append(TEXTS[len(read) % len(TEXTS)])
            yield read[-1]

    results = pipe(endless())
    first = [next(results) for _ in range(20)]
    assert scores(first[:5]) == pytest.approx(scores(pipe(TEXTS)), abs=1e-5)
    assert len(read) < 50
    assert first[0].details is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("texts.txt", "the cat\n\na dog\r\n"),
        ("texts.jsonl", '{"text": "the cat", "id": 3}\n\n"" \n{"text": "a dog"}\n'),
        ("texts.csv", "id,text\n1,the cat\n2,\n3,a dog\n"),
    ],
)
def test_files(pipe: minitx.Pipeline, tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert scores(pipe(path)) == pytest.approx(scores(pipe(["the cat", "", "a dog"])), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,words\n1,x\n", "has no 'text', but 'id', 'words'"),
        ("a.csv", "text\nthe cat\nHello, world\n", r"a\.csv:3: 2 cells, and the header has 1"),
        ("a.csv", 'text\n"the" cat\n', r"a\.csv:2: not readable as a table"),
        ("a.csv", 'text\nx\n"the cat\n', r"a\.csv:3: not readable as a table"),
        ("a.csv", "text,text\nx,y\n", r"a\.csv:1: the header has the column 'text' more than once"),
        ("a.csv", "id,text\n1,x\n2\n", r"a\.csv:3: 1 cell, and the header has 2"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', r"a\.jsonl:2: not valid JSON"),
        ("a.txt", "x\n\xff", r"a\.txt:2: byte 0xff in column 1 is not UTF-8"),
    ],
)
def test_damaged_files(pipe: minitx.Pipeline, tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises((ValueError, TypeError), match=message):
        list(pipe(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        pipe(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "inputs=None must be one argument"),
        ((None,), "inputs=None must be"),
        ((3,), "inputs=3 must be"),
        ((b"text",), "inputs=b'text' must be"),
        (([None],), r"inputs\[0\]"),
        (([["a", "b", "c"]],), r"inputs\[0\]"),
        (([["a"]],), r"inputs\[0\]"),
        (({"txt": "a"},), "text"),
        (({},), "text"),
        (({"text": b"a"},), "a string"),
        ((["a", "b", "c\ud800"],), r"inputs\[2\]=.*lone surrogate at character 1"),
        (([{"text": "a", "text_pair": "\ud800"}],), r"inputs\[0\]\['text_pair'\]=.*lone surrogate"),
    ],
    ids=str,
)
def test_wrong_inputs(pipe: minitx.Pipeline, inputs: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        pipe(*inputs)


def test_no_inputs_are_no_results(pipe: minitx.Pipeline) -> None:
    assert pipe([]) == []
    assert list(pipe(iter([]))) == []


# --- long texts ------------------------------------------------------------------------------------

LONG = "the cat sat on the mat " * 20


def test_one_note_on_truncated_texts(pipe: minitx.Pipeline) -> None:
    with pytest.warns(UserWarning, match="2 of 3 inputs of text-classification were too long") as notes:
        results = pipe([LONG, "a", LONG])
    assert len(notes) == 1
    assert scores(results)[0] == scores(results)[2]
    with pytest.warns(UserWarning, match="the first at index 1;"):
        pipe(["a", LONG])


def test_arguments_of_the_pipeline_have_a_hint(pipe: minitx.Pipeline) -> None:
    with pytest.raises(TypeError, match=r"Give it to pipeline\(\): pipeline\(\.\.\., progress=\.\.\.\)"):
        pipe("x", progress=True)


def test_windows_use_all_of_a_text(pipe: minitx.Pipeline) -> None:
    result = pipe({"text": LONG + "a dog ran"}, overflow="window", top_k=None)
    assert len(result.details.inputs) > 3
    logits = torch.stack(result.details.outputs).mean(dim=0).softmax(dim=-1)
    assert sorted(logits.tolist(), reverse=True) == pytest.approx(scores(result))
    pair = pipe({"text": "a dog", "text_pair": LONG}, overflow="window")
    assert len(pair.details.inputs) > 3


def test_a_long_text_can_be_refused(pipe: minitx.Pipeline) -> None:
    with pytest.raises(ValueError, match="of at most 24 tokens"):
        pipe(LONG, overflow="error")
    assert pipe("the cat", overflow="error") == pipe("the cat")


def test_a_text_of_ten_megabytes(pipe: minitx.Pipeline) -> None:
    with pytest.warns(UserWarning, match="truncated"):
        assert pipe("the cat sat " * 900_000)[0]["label"] in ("bad", "good")


# --- life ------------------------------------------------------------------------------------------


def test_threads_do_not_disturb_one_another(pipe: minitx.Pipeline) -> None:
    work = [[text] * (1 + i % 3) for i in range(6) for text in TEXTS]
    limits = [12 + i % 9 for i in range(len(work))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = [scores(pipe(texts, max_length=limit)) for texts, limit in zip(work, limits, strict=True)]
        with ThreadPoolExecutor(4) as pool:
            results = pool.map(lambda texts, limit: scores(pipe(texts, max_length=limit)), work, limits)
    assert list(results) == alone


def test_a_closed_pipeline_frees_its_model(classifier: Path) -> None:
    with minitx.pipeline(model=classifier) as pipe:
        pipe("the cat")
    assert repr(pipe) == "Pipeline(closed)"
    with pytest.raises(RuntimeError, match="closed"):
        pipe("the cat")


def test_repr_states_task_model_dtype_and_device(pipe: minitx.Pipeline, classifier: Path) -> None:
    assert repr(pipe) == f"Pipeline('text-classification', '{classifier}', float32, device='cpu')"


def test_a_progress_bar_on_request(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minitx.pipeline(model=classifier, progress=True)(TEXTS)
    assert "text-classification:   0%" in capsys.readouterr().err
    minitx.pipeline(model=classifier)(TEXTS)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(classifier: Path, pipe: minitx.Pipeline, dtype: torch.dtype) -> None:
    other = minitx.pipeline(model=classifier, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 0.05
    assert scores(other(TEXTS)) == pytest.approx(scores(pipe(TEXTS)), abs=tolerance)


# --- batches ---------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(0, 40), max_size=30),
    rows=st.none() | st.integers(1, 6),
    tokens=st.integers(1, 100),
    padding=st.booleans(),
)
def test_batches(lengths: list[int], rows: int | None, tokens: int, padding: bool) -> None:
    limits = BatchLimits(rows, tokens, overhead=10)
    batches = make_batches(lengths, limits, padding=padding)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        assert len(batch) <= (rows or len(lengths))
        assert len(batch) == 1 or len(batch) * max(sizes) <= tokens
        assert padding or len({max(size, 1) for size in sizes}) == 1


def test_batches_pad_less_than_sorted_batches_of_one_size() -> None:
    draw = random.Random(0)
    lengths = [int(8 * 32 ** draw.random()) for _ in range(256)]
    batches = make_batches(lengths, BatchLimits(None, 2048, 48))
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert len(batches) < 100


def test_the_hint_about_construction_knows_every_argument_of_pipeline() -> None:
    parameters = inspect.signature(minitx.pipeline).parameters
    assert {*checks._CONSTRUCTION} == parameters.keys() - {"task", "options"}
