"""Checks that all tasks of the table share: bad input, heads, tokenizers and options without an effect."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pandas
import pytest
import torch

import minitx
from minitx.pipelines.registry import SPECS
from minitx.pipelines.registry import TASKS as TASK_SPECS
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.parity.pipelines import close
from tests.unit.pipelines.every_task import REQUESTS, folder_for
from tests.unit.pipelines.folders import bert_folder

TASKS = [spec.name for spec in SPECS]
PAIRS = ("question-answering", "sentence-similarity", "text-ranking", "table-question-answering")
GENERATION = ("summarization", "translation", "text2text-generation", "text-generation")
# Value -> part of its message, in every task.
BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "inputs=None must be a request, a list of requests, or an iterable; {task} takes"),
    "number": (3, "inputs=3 must be a request, a list of requests, or an iterable; {task} takes"),
    "object": (object(), "must be a request, a list of requests, or an iterable; {task} takes"),
    "bytes": (b"text", "a list of requests, or an iterable; text is a string: bytes"),
    "frame": (pandas.DataFrame({"text": ["a"]}), r"pass list\(df\['text'\]\); {task} takes"),
    "set": ({"a"}, "a set has no order; make a list of it"),
    "folder": (Path(__file__).parent, "must be the path of a file, not of a folder"),
    "key": ({"wrong": "a"}, r"inputs\['wrong'\]='a' must be left out; {task} takes"),
    "nothing": ({}, r"inputs\['\w+'\]=None must be stated; {task} takes"),
    "list of None": ([None, None], r"inputs\[0\]\['\w+'\]=None must be stated; {task} takes"),
    "list of lists": ([[], []], r"(text|inputs\[0\](\['\w+'\])?)=(\[\]|None) must be"),
    "nested": ([["a", ["b"]], "c"], r"inputs\[0\](\[1\]|\['\w+'\])?=(\['a', \['b'\]\]|\['b'\]|None) must be"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture(scope="module")
def pipe_for(root: Path) -> Callable[[str], Any]:
    pipes: dict[str, Any] = {}

    def get(task: str) -> Any:
        if task not in pipes:
            pipes[task] = minitx.pipeline(task, folder_for(task, root), device="cpu")
        return pipes[task]

    return get


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def without_classes(folder: Path, path: Path) -> Path:
    """Copies a checkpoint whose config.json then names no class."""
    copytree(folder, path)
    config = json.loads((path / "config.json").read_text())
    del config["architectures"]
    (path / "config.json").write_text(json.dumps(config))
    return path


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_an_error_that_helps(pipe_for: Callable[[str], Any], task: str, kind: str) -> None:
    value, message = BAD[kind]
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message.format(task=task)):
        pipe_for(task)(value)


def test_no_inputs_and_a_missing_file(pipe_for: Callable[[str], Any], task: str) -> None:
    assert pipe_for(task)([]) == []
    with pytest.raises(ArgumentTypeError, match=r"inputs=None must be (one argument|a table and a question)"):
        pipe_for(task)()
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        pipe_for(task)(Path("nowhere.txt"))


def test_an_empty_text_has_a_result_or_an_error_that_helps(pipe_for: Callable[[str], Any], task: str) -> None:
    pipe = pipe_for(task)
    if task in PAIRS:
        with pytest.raises(ArgumentTypeError, match=f"=None must be stated; {task} takes"):
            pipe("")
    elif task == "fill-mask":
        with pytest.raises(ArgumentValueError, match=r"text='' must be one with the mask token \[MASK\]"):
            pipe("")
    elif task in GENERATION[:3]:  # this tokenizer has no special tokens
        with pytest.raises(ArgumentValueError, match="text='' must be a text of at least one token"):
            pipe("")
    elif task == "zero-shot-classification":
        assert pipe("", ["good"])["labels"] == ["good"]
    else:
        pipe("")


def tensors_of(output: Any) -> Iterator[torch.Tensor]:
    """Yields the tensors of an output: one, a named tuple, or the rows of a generation."""
    if isinstance(output, torch.Tensor):
        yield output
    for part in output if isinstance(output, list | tuple) else [getattr(output, "tokens", ())]:
        yield from tensors_of(part)


def test_outputs_may_be_trained_on(pipe_for: Callable[[str], Any], task: str) -> None:
    tensors = [*tensors_of(list(pipe_for(task)(REQUESTS[task]).details.outputs))]
    assert tensors
    assert not any(tensor.is_inference() for tensor in tensors)


def test_vectors_may_be_trained_on(pipe_for: Callable[[str], Any]) -> None:
    similarity, features = pipe_for("sentence-similarity"), pipe_for("feature-extraction")
    layer = torch.nn.Linear(16, 2)
    for vectors in (
        features("the cat", return_tensors=True),
        similarity.encode("the cat"),
        similarity.encode(["the cat", "a dog"]),
        minitx.embed(similarity.model, ["the cat"], similarity.tokenizer),
    ):
        layer(vectors).sum().backward()


def test_labels_without_a_text(pipe_for: Callable[[str], Any]) -> None:
    pipe = pipe_for("zero-shot-classification")
    with pytest.raises(ArgumentTypeError, match=r"inputs=None must be one argument; a call has a string"):
        pipe(candidate_labels=["good"])
    with pytest.raises(ArgumentTypeError, match=r"inputs\['sequence'\]=None must be stated"):
        pipe({"candidate_labels": ["good"]})


def test_a_tuple_is_a_list_and_inputs_may_be_named(pipe_for: Callable[[str], Any], task: str) -> None:
    request, options = REQUESTS[task], {"do_sample": False} if task == "text-generation" else {}
    results = pipe_for(task)([request, request], **options)
    assert len(results) == 2
    assert close(pipe_for(task)((request, request), **options), results)
    assert close(pipe_for(task)(inputs=[request, request], **options), results)
    assert close(pipe_for(task)(inputs=[request, request], batch_size=1, **options), results, 1e-5)


@pytest.mark.parametrize(
    ("name", "request_", "options"),
    [
        ("token-classification", ["the", "c\ud800at"], {"is_split_into_words": True}),
        ("text-generation", "c\ud800at", {}),
        ("text-generation", [{"role": "user", "content": "c\ud800at"}], {}),
        ("summarization", "c\ud800at", {}),
        ("text-ranking", {"query": "a", "documents": ["the", "c\ud800at"]}, {}),
        ("sentence-similarity", {"source_sentence": "a", "sentences": ["c\ud800at"]}, {}),
        ("zero-shot-classification", {"sequence": "a", "candidate_labels": ["c\ud800at"]}, {}),
        ("table-question-answering", {"query": "c\ud800at", "table": {"a": ["1"]}}, {}),
    ],
    ids=str,
)
def test_half_a_surrogate_pair_is_an_error(
    pipe_for: Callable[[str], Any], name: str, request_: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ArgumentValueError, match="valid Unicode; it has a lone surrogate at character 1"):
        pipe_for(name)(request_, **options)


def test_vectors_of_half_a_surrogate_pair(pipe_for: Callable[[str], Any]) -> None:
    with pytest.raises(ArgumentValueError, match=r"texts\[1\]=.*lone surrogate at character 1"):
        pipe_for("sentence-similarity").encode(["a", "c\ud800at"])


# --- models and tokenizers -------------------------------------------------------------------------

HEADS = {
    "text-classification": "BertForSequenceClassification, a model for text-classification, text-ranking",
    "token-classification": r"BertForTokenClassification, a model for token-classification\.",
    "question-answering": r"BertForQuestionAnswering, a model for question-answering\.",
    "fill-mask": r"BertForMaskedLM, a model for fill-mask\.",
    "summarization": "T5ForConditionalGeneration, a model for summarization, translation",
    "text-generation": r"GPT2LMHeadModel, a model for text-generation\.",
    "table-question-answering": r"TapasForQuestionAnswering, a model for table-question-answering\.",
}


OTHERS = [
    (spec.name, other)
    for spec in SPECS
    for other in HEADS
    if not {"none", *TASK_SPECS[other].heads} & set(spec.heads)
]


@pytest.mark.parametrize(("task", "other"), OTHERS)
def test_a_checkpoint_of_another_head(root: Path, task: str, other: str) -> None:
    with pytest.raises(ArgumentValueError, match=rf"must be an? .* for {task}; .*{HEADS[other]}") as error:
        minitx.pipeline(task, folder_for(other, root))
    assert "init_head" not in str(error.value)


def test_a_config_without_classes(root: Path, tmp_path: Path) -> None:
    folder = without_classes(folder_for("text-classification", root), tmp_path / "model")
    minitx.pipeline("text-classification", folder)
    minitx.pipeline("token-classification", folder)  # the tensors have the same names
    expected = "must be a masked language model for fill-mask; its files lack cls.predictions"
    with pytest.raises(ArgumentValueError, match=expected) as error:
        minitx.pipeline("fill-mask", folder)
    assert "init_head" not in str(error.value)
    with pytest.raises(ArgumentValueError, match="a bert model can run text-classification, token-class"):
        minitx.pipeline("summarization", folder)


def test_a_model_with_another_head(root: Path) -> None:
    model = minitx.load(folder_for("token-classification", root))
    expected = "must be a sequence classifier for text-classification; it has the head 'token-classification'"
    with pytest.raises(ArgumentValueError, match=expected):
        minitx.pipeline("text-classification", model)
    bare = minitx.load(folder_for("token-classification", root), head="none")
    with pytest.raises(ArgumentValueError, match="it has no head, for feature-extraction"):
        minitx.pipeline("text-classification", bare)


def test_a_head_that_was_trained_here(root: Path) -> None:
    """config.json still names the class of the checkpoint that the model began with."""
    model = minitx.load(folder_for("fill-mask", root), head="sequence-classification", init_head=True)
    assert model.checkpoint.config["architectures"] == ["BertForMaskedLM"]
    minitx.pipeline("text-classification", model)("the cat")


def test_a_tokenizer_of_another_model(root: Path, tmp_path: Path, task: str) -> None:
    model = minitx.load(folder_for(task, root), head="none" if task == "feature-extraction" else None)
    large = minitx.load_tokenizer(folder_for("fill-mask", root))
    large.add_tokens([f"word{index}" for index in range(1500)])
    with pytest.raises(ArgumentValueError, match=r"the model has .* without tokenizer= it is that"):
        minitx.pipeline(task, model, large)


def test_a_tokenizer_without_most_of_the_tokens(root: Path, tmp_path: Path) -> None:
    model = minitx.load(bert_folder(tmp_path / "model", "masked-lm", vocab_size=2000))
    with pytest.raises(ArgumentValueError, match="the model has 2000 tokens, the tokenizer"):
        minitx.pipeline("fill-mask", model, folder_for("fill-mask", root))


def test_special_tokens_of_another_model(root: Path, tmp_path: Path) -> None:
    ids = {"pad_token_id": 39, "cls_token_id": 40, "sep_token_id": 41}
    model = minitx.load(bert_folder(tmp_path / "model", "masked-lm", **ids))
    message = "others: pad_token_id is 0, of the model 39, cls_token_id is 2, of the model 40, sep"
    with pytest.raises(ArgumentValueError, match=message):
        minitx.pipeline("fill-mask", model, folder_for("fill-mask", root))


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [task for task in TASKS if task not in GENERATION[:3]])  # T5 has no limit
def test_a_limit_above_the_model_is_an_error(pipe_for: Callable[[str], Any], task: str) -> None:
    with pytest.raises(ArgumentValueError, match=r"max_length=100000 must be at most \d+; the model takes"):
        pipe_for(task)(REQUESTS[task], max_length=100000)


def test_a_limit_that_leaves_no_text(pipe_for: Callable[[str], Any]) -> None:
    pipe = pipe_for("text-classification")
    with pytest.raises(ArgumentValueError, match="max_length=1 must be at least 2; 2 tokens"):
        pipe("the cat", max_length=1)
    with pytest.raises(
        ArgumentValueError, match="max_length=2 must be above 2; special tokens leave no room"
    ):
        pipe("the cat", max_length=2)
    pipe("", max_length=2)


def test_an_overlap_of_a_whole_window_is_an_error(pipe_for: Callable[[str], Any]) -> None:
    for name in ("stride", "doc_stride"):
        with pytest.raises(
            ArgumentValueError, match=f"{name}=24 must be less than the 24 tokens of a window"
        ):
            pipe_for("question-answering")(REQUESTS["question-answering"], **{name: 24})


def test_an_overlap_without_windows_is_an_error(pipe_for: Callable[[str], Any], task: str) -> None:
    pipe, request = pipe_for(task), REQUESTS[task]
    with pytest.raises(ArgumentValueError, match="stride=1 must be left out"):
        pipe(request, stride=1, overflow="truncate")
    with pytest.raises(ArgumentValueError, match="stride=1 must be left out"):
        pipe(request, stride=1, overflow="error")


def test_options_of_the_pipeline_for_windows_are_those_of_windows_only(root: Path) -> None:
    request = REQUESTS["question-answering"]
    folder = folder_for("question-answering", root)
    pipe = minitx.pipeline("question-answering", folder, doc_stride=4, device="cpu")
    assert pipe(request, overflow="truncate") == pipe(request)
    with pytest.raises(ArgumentValueError, match="doc_stride=4 must be left out with overflow='truncate'"):
        pipe(request, overflow="truncate", doc_stride=4)


def test_masks_have_windows_without_an_overlap(pipe_for: Callable[[str], Any]) -> None:
    with pytest.raises(ArgumentValueError, match="stride=1 must be left out; a window lies around each mask"):
        pipe_for("fill-mask")(REQUESTS["fill-mask"], stride=1)


def test_a_doc_stride_near_the_limit_warns(pipe_for: Callable[[str], Any]) -> None:
    request = {"question": "a cat?", "context": "the cat sat on the mat " * 9}
    with pytest.warns(UserWarning, match="doc_stride=13 is more than half of a window of 24 tokens: "):
        pipe_for("question-answering")(request, doc_stride=13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 5, "max_length": 2}, "min_length=5 must be at most max_length=2"),
        ({"min_new_tokens": 5, "max_length": 2}, "min_new_tokens=5 must be at most max_length=2"),
        ({"min_new_tokens": 5, "max_new_tokens": 2}, "min_new_tokens=5 must be at most max_new_tokens=2"),
        ({"min_length": 5, "max_new_tokens": 2}, "min_length=5 must be at most 3 with max_new_tokens=2"),
    ],
    ids=str,
)
def test_contradictory_lengths(pipe_for: Callable[[str], Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentValueError, match=message):
        pipe_for("summarization")("a b", **options)


@pytest.mark.parametrize("name", ["sentence-similarity", "text-ranking"])
def test_prompts_that_the_checkpoint_does_not_have(pipe_for: Callable[[str], Any], name: str) -> None:
    with pytest.raises(
        ArgumentValueError, match="prompt_name='query' must be left out; the checkpoint has no"
    ):
        pipe_for(name)(REQUESTS[name], prompt_name="query")


@pytest.mark.parametrize("name", ["summarization", "text-generation"])
def test_streams_refuse_searches_and_several_texts(pipe_for: Callable[[str], Any], name: str) -> None:
    pipe = pipe_for(name)
    options = {"do_sample": False, "max_new_tokens": 2}
    with pytest.raises(ArgumentValueError, match=r"num_beams=2 must be .*cannot be streamed"):
        pipe.stream("a b", num_beams=2, **options)
    with pytest.raises(ArgumentValueError, match=r"strategy=Beam\(\) must be .*cannot be streamed"):
        pipe.stream("a b", strategy=minitx.Beam(), max_new_tokens=2)
    with pytest.raises(ArgumentTypeError, match=r"must be one request; .* call the pipeline for several"):
        pipe.stream(["a", "b"])
    assert "".join(pipe.stream("a b", num_beams=1, **options))


@pytest.mark.parametrize(
    ("name", "option", "hint"),
    [
        ("text-classification", {"truncation": True}, 'Use overflow="truncate", with max_length=512'),
        ("text-classification", {"padding": True}, "leave it out"),
        ("text-classification", {"device_map": "auto"}, 'device="cuda"'),
        ("text-generation", {"text_inputs": "a"}, r"first argument, or inputs=\.\.\."),
        ("zero-shot-classification", {"sequences": "a"}, r"first argument, or inputs=\.\.\."),
        ("question-answering", {"contxt": "a"}, "Did you mean 'context'"),
    ],
    ids=str,
)
def test_names_of_transformers_have_hints(
    pipe_for: Callable[[str], Any], name: str, option: dict[str, Any], hint: str
) -> None:
    with pytest.raises(TypeError, match=hint):
        pipe_for(name)(**option)


@pytest.mark.parametrize("size", ["8", 0])
def test_a_batch_size_of_a_call_is_checked(pipe_for: Callable[[str], Any], size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"batch_size={size!r} must be an integer|batch_size=0"):
        pipe_for("text-classification")("a", batch_size=size)


def test_a_batch_size_of_a_call(pipe_for: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, sizes = pipe_for("sentence-similarity"), []
    forward = pipe.task.forward

    def counted(inputs: Any, options: Any) -> Any:
        sizes.append(len(inputs))
        return forward(inputs, options)

    monkeypatch.setattr(pipe.task, "forward", counted)
    pipe(REQUESTS["sentence-similarity"], batch_size=1)
    pipe.encode(["a", "b"], batch_size=1)
    pipe.encode(["a", "b"])
    assert sizes == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("several", [list, iter])
def test_the_note_has_the_index_among_all_inputs(pipe_for: Callable[[str], Any], several: Any) -> None:
    texts = ["the cat"] * 600 + ["the cat sat on the mat " * 9, "a"]
    with pytest.warns(UserWarning, match=r"1 of inputs 5\d\d to 6\d\d of .*, the first at index 600;"):
        list(pipe_for("text-classification")(several(texts)))


@pytest.mark.parametrize("several", [list, iter])
def test_one_note_for_all_chunks(pipe_for: Callable[[str], Any], several: Any) -> None:
    pipe = pipe_for("text-classification")
    with pytest.warns(UserWarning, match=r" of inputs 0 to \d+ of .* Later inputs have no note") as notes:
        list(pipe(several(["the cat sat on the mat " * 9] * 1100)))
    assert len(notes) == 1
