"""text-generation: options, seeds, batches, conversations, streams, long and wrong inputs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minitx
from minitx.decoding import Beam, ClassifierFree, Greedy, Sample
from minitx.habits import UnknownArgumentError
from minitx.pipelines.generation.chats import continued_chat
from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.generation.plan import make_plan
from minitx.pipelines.pipeline import Pipeline, pipeline
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.parity.generators import build

TEXTS = ["Hello world", "The", "Hello world", "Once upon a time there", "我住在北京", "The"]
CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("decoder"), "gpt2")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return pipeline("text-generation", folder, device="cpu", max_new_tokens=8)


def test_defaults_are_those_of_transformers(folder: Path) -> None:
    plain = pipeline(model=folder, device="cpu")
    assert "Sample(temperature=0.7, top_k=50), max_new_tokens=256)" in repr(plain)
    other = pipeline(model=folder, device="cpu", num_beams=3, do_sample=False, max_length=20, prefix="a ")
    assert repr(other).endswith("Beam(num_beams=3), max_length=22, prefix='a ')")


def test_settings_of_the_checkpoint_and_of_the_user(tmp_path: Path) -> None:
    generation = {
        "do_sample": False,
        "num_beams": 2,
        "max_length": 30,
        "stop_strings": ["q"],
        "eos_token_id": 3,
    }
    folder = build(tmp_path / "stated", "gpt2", generation)
    pipe = pipeline("text-generation", folder, device="cpu")
    assert repr(pipe).endswith("Beam(num_beams=2), max_length=30)")
    plan = pipe.task.plan(pipe.task.options(pipe.options, {"max_new_tokens": 4, "num_beams": 1}))
    assert (plan.strategy, plan.max_new_tokens, plan.max_length) == (Greedy(), 4, None)
    assert plan.stop == minitx.Stop(strings=["q"], include_stop=True)
    plan = pipe.task.plan(pipe.task.options(pipe.options, {"strategy": Sample(top_p=0.5)}))
    assert (plan.strategy, plan.max_length) == (Sample(top_p=0.5), 30)
    assert pipe("The " * 40)[0]["generated_text"] != "The " * 40  # where max_length leaves nothing
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {"text-generation": {"do_sample": True, "temperature": 0.3}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "BeamSample(temperature=0.3, top_k=50, num_beams=2)" in repr(
        pipeline("text-generation", folder, device="cpu")
    )


def test_guidance_of_the_checkpoint(tmp_path: Path) -> None:
    """It is obeyed, unless the user has a strategy."""
    stated = {"do_sample": False, "guidance_scale": 3.0, "max_new_tokens": 8}
    pipe = pipeline("text-generation", build(tmp_path / "guided", "gpt2", stated), device="cpu")
    assert repr(pipe).endswith("guidance=ClassifierFree(scale=3.0, negative_prompts=None))")
    guidance: dict[str, Any] = {"tokenizer": pipe.tokenizer, "max_new_tokens": 8}
    result = minitx.generate(pipe.model, "The", Greedy(), guidance=ClassifierFree(3.0), **guidance)
    assert pipe("The", return_full_text=False)[0]["generated_text"] == result.texts[0]
    plan = pipe.task.plan(pipe.task.options(pipe.options, {"strategy": Greedy()}))
    assert plan.guidance is None


def test_options_of_a_call_replace_those_of_the_pipeline(pipe: Pipeline) -> None:
    own: dict[str, Any] = {"temperature": 0.5, "max_length": 9, "stop_sequence": "a", "num_samples": 2}
    other = pipeline("text-generation", pipe.model, pipe.tokenizer, **own)
    call = {"do_sample": False, "max_new_tokens": 4, "stop": minitx.Stop(), "num_return_sequences": 1}
    plan = other.task.plan(other.task.options(other.options, call))
    assert (plan.strategy, plan.max_length, plan.stop, plan.num_samples) == (Greedy(), None, minitx.Stop(), 1)
    plan = other.task.plan(other.task.options(other.options, {"strategy": Beam(), "max_length": None}))
    assert (plan.strategy, plan.max_new_tokens) == (Beam(), 256)


def test_a_text_with_a_seed_does_not_depend_on_the_others(pipe: Pipeline) -> None:
    together = pipe(TEXTS, seed=3)
    assert together == [*pipe(iter(TEXTS), seed=3)]
    assert together[:2] == [pipe(text, seed=3) for text in TEXTS[:2]]
    assert together[0] != together[2]  # equal texts draw different tokens
    order = [3, 0, 4, 1, 2, 5]  # equal texts stay in order
    assert pipe([TEXTS[i] for i in order], seed=3) == [together[i] for i in order]
    assert pipe("The", seed=3) != pipe("The", seed=4)
    one = pipeline("text-generation", pipe.model, pipe.tokenizer, max_new_tokens=8, batch_size=1)
    assert one(TEXTS, seed=3) == together
    several = pipe("The", seed=3, num_return_sequences=3)
    assert len({each["generated_text"] for each in several}) == 3


def test_lengths_of_rows_differ(pipe: Pipeline) -> None:
    for options in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        cut: dict[str, Any] = {"max_length": 30, "return_tensors": True, **options}
        rows = pipe(TEXTS, **cut)
        assert rows == [pipe(text, **cut) for text in TEXTS]
        assert {len(row[0]["generated_token_ids"]) for row in rows} == {30}


def test_threads_do_not_disturb_one_another(pipe: Pipeline) -> None:
    calls = [{"seed": seed, "clean_up_tokenization_spaces": bool(seed % 2)} for seed in range(6)]
    expected = [pipe(TEXTS, **call) for call in calls]
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(lambda call: pipe(TEXTS, **call), calls)] == expected


def test_streams(pipe: Pipeline) -> None:
    for request in ("Hello world", CHAT):
        pieces = [*pipe.stream(request, do_sample=False)]
        (result,) = pipe(request, do_sample=False, return_full_text=False)
        assert len(pieces) > 1
        assert "".join(pieces) == result["generated_text"]
    with pytest.raises(ArgumentTypeError, match="one request"):
        pipe.stream(["a", "b"])
    with pytest.raises(ValueError, match="cannot be streamed"):
        pipe.stream("a", num_beams=2)
    with pytest.raises(ArgumentValueError, match="num_return_sequences=2"):
        pipe.stream("a", num_return_sequences=2)
    classifier = pipeline("text-classification", *_classifier())
    with pytest.raises(ArgumentValueError, match="generates text, to be streamed"):
        classifier.stream("a")


def _classifier() -> Any:
    from minitx.pipelines import example_model

    name = example_model()
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    config = minitx.load(name).checkpoint.config | labels  # type: ignore[union-attr]
    config["architectures"] = ["BertForSequenceClassification"]
    return minitx.from_config(config).eval(), minitx.load_tokenizer(name)


def test_conversations(pipe: Pipeline) -> None:
    greedy: dict[str, Any] = {"do_sample": False}
    (result,) = pipe(CHAT, **greedy)
    assert [message["role"] for message in result.generated_text] == ["user", "assistant"]
    assert pipe([CHAT, "Hello"], **greedy)[0] == [result]
    assert pipe({"text": CHAT}, **greedy) == [result]
    assert pipe(text=CHAT, **greedy) == [result]
    begun = [*CHAT, {"role": "assistant", "content": "Once"}]
    (continued,) = pipe(begun, **greedy)
    assert continued.generated_text[-1]["content"].startswith("Once")
    assert len(continued.generated_text) == 2
    assert begun[-1]["content"] == "Once"  # unchanged
    assert pipe(begun, **greedy).details.request == {"text": begun}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_continued_message_ends_the_prompt(text: str) -> None:
    class Chat:
        def render(self, messages: Any, **_: Any) -> str:
            return "".join(f"<{each['role']}>{each['content']}</>" for each in messages)

    class Tokenizer:
        chat = Chat()

    messages = [*CHAT, {"role": "assistant", "content": text}]
    assert continued_chat(Tokenizer(), messages, None, {}) == f"<user>Hello</><assistant>{text}"  # type: ignore[arg-type]


def test_stops(pipe: Pipeline) -> None:
    options: dict[str, Any] = {"do_sample": False, "return_full_text": False, "max_new_tokens": 40}
    (whole,) = pipe("Hello world", **options)
    stop = next(letter for letter in whole["generated_text"] if ord(letter) < 128)
    (row,) = pipe("Hello world", **options, stop_strings=stop)
    assert stop in row["generated_text"]
    assert len(row["generated_text"]) < len(whole["generated_text"])
    ends = pipe("Hello world", **options, stop=minitx.Stop(strings=[stop]))
    assert ends[0]["generated_text"] == whole["generated_text"].partition(stop)[0]


def test_long_texts(pipe: Pipeline, folder: Path) -> None:
    """The prompt has at least half of the positions where the user states no number."""
    long = "The quick brown fox. " * 100
    plain = pipeline("text-generation", folder, device="cpu", do_sample=False, return_tensors=True)
    with pytest.warns(UserWarning, match="1 of 2 inputs of text-generation were too long"):
        first, second = plain([long, "The"])
    assert len(first[0]["generated_token_ids"]) <= 200
    assert len(first.details.inputs[0]) == 100
    assert second == plain("The")
    with pytest.warns(UserWarning, match="fewer max_new_tokens"):
        assert len(pipe(long, do_sample=False).details.inputs[0]) == 192
    with pytest.raises(ArgumentValueError, match="at most 192 tokens"):
        pipe(long, overflow="error")
    with pytest.raises(ArgumentValueError, match="max_new_tokens=200 must be below"):
        pipe(long, max_new_tokens=200)
    with pytest.raises(ArgumentValueError, match=r"max_length=20 must be above the \d+ tokens"):
        pipe(long, max_length=20)


def test_details(pipe: Pipeline) -> None:
    (first, _) = pipe(["Hello world", "The"], do_sample=False)
    details = first.details
    assert details.inputs[0].input_ids == pipe.tokenizer.encode("Hello world")
    assert details.outputs[0][0].finish_reason in ("length", "eos")
    assert first[0].generated_text.startswith("Hello world")


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"temperature": 0.5, "do_sample": False},
        "temperature=0.5 must be left out; it has no effect without do_sample",
    ),
    ({"length_penalty": 2.0}, "no effect without num_beams="),
    ({"num_return_sequences": 2, "do_sample": False}, "do_sample=True or num_beams="),
    ({"num_return_sequences": 2, "num_samples": 3}, "leave one of them out"),
    ({"strategy": Beam(), "num_beams": 2}, r"Beam\(num_beams=...\)"),
    ({"strategy": Sample(temperature=[0.5, 1.0])}, "one number for all texts"),
    ({"strategy": "beam"}, "a Strategy"),
    ({"temperature": -1.0}, "temperature=-1.0"),
    ({"max_new_tokens": 0}, "at least 1"),
    ({"seed": 3, "do_sample": False}, "seed"),
    ({"stop_sequence": "a", "stop": minitx.Stop()}, "leave one of them out"),
    ({"stop": "a"}, "a string is stop_sequence"),
    ({"return_text": False}, "return_tensors=True"),
    ({"return_full_text": False, "return_tensors": True}, "leave one of them out"),
    ({"handle_long_generation": "cut"}, "hole"),
    ({"handle_long_generation": "hole", "overflow": "error"}, "truncate"),
    ({"overflow": "window"}, "not divided into windows"),
    ({"stride": 3}, "stride"),
    ({"continue_final_message": True}, "left out for texts"),
    ({"tools": []}, "left out for texts"),
    ({"do_sample": 1}, "do_sample"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_every_option_is_obeyed_or_refused(pipe: Pipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=message):
        pipe("Hello", **options)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("truncation", "overflow="),
        ("pad_token_id", "leave it out"),
        ("generation_config", "as options"),
        ("tokenizer_encode_kwargs", "template_variables"),
        ("num_beam_groups", "DiverseBeam"),
        ("temperatur", "Did you mean 'temperature'"),
    ],
)
def test_other_names_have_hints(pipe: Pipeline, name: str, hint: str) -> None:
    with pytest.raises(UnknownArgumentError, match=hint):
        pipe("Hello", **{name: 1})


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        3,
        b"text",
        [None],
        [["a", "b"]],
        [3],
        {"prompt": "a"},
        {"role": "user", "content": "a"},
        [{"role": "user"}],
        [[{"role": "user", "content": "a"}, 3]],
        "",
    ],
)
def test_wrong_inputs(inputs: Any, pipe: Pipeline) -> None:
    if inputs == "":  # GPT-2 has a token that begins a sequence
        assert pipe("", do_sample=False)[0]["generated_text"]
        return
    with pytest.raises((ArgumentValueError, ArgumentTypeError)):
        pipe(inputs)


def test_prefix_and_conversations_exclude_one_another(pipe: Pipeline) -> None:
    with pytest.raises(ArgumentValueError, match="left out for conversations"):
        pipe(CHAT, prefix="a")
    with pytest.raises(ArgumentValueError, match="left out for conversations"):
        pipe(CHAT, add_special_tokens=False)


def test_a_plan_needs_no_checkpoint() -> None:
    plan = make_plan(None, GenerateOptions(), ["any"], {"max_new_tokens": 5, "num_beams": 4})
    assert str(plan) == "Beam(num_beams=4), max_new_tokens=5"
    assert plan.new_tokens(3, None) == 5
    assert plan.new_tokens(3, 6) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 9, "num_beams": 2}, "num_return_sequences=9 must be at most num_beams=2"),
        ({"num_samples": 9, "num_beams": 2}, "num_samples=9 must be at most num_beams=2"),
        ({"eos_token_id": [1, "a"]}, r"eos_token_id\[1\]='a' must be an integer"),
        ({"eos_token_id": 10**6}, "eos_token_id=1000000 must be from 0 to"),
        ({"stop_strings": 3}, "stop_strings=3 must be a string"),
        ({"stop_sequence": [3]}, r"stop_sequence=\[3\] must be a string"),
    ],
)
def test_messages_name_the_options(pipe: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        pipe("a b", **options)
