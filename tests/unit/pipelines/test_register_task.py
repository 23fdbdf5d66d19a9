"""`minitx.register_task`: custom tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.cli.app import main
from minitx.pipelines.registry import TASKS, TaskSpec, find_task
from minitx.pipelines.result import Prediction
from minitx.pipelines.task import Request, Task
from minitx.pipelines.text_task import TextInput, TextOptions, TextTask
from tests.unit.pipelines.checks import check_order_and_batches
from tests.unit.pipelines.folders import BERT, VOCABULARY, bert_folder


class Last(TextTask[TextOptions]):
    """The most probable token after a text."""

    def preprocess(self, request: Request, options: TextOptions) -> list[TextInput]:
        return self.encode(request["text"], options=options)

    def postprocess(
        self, request: Request, inputs: Sequence[TextInput], outputs: Sequence[Any], options: TextOptions
    ) -> Any:
        return Prediction(text=self.tokenizer.id_to_token(int(outputs[-1][-1].argmax())))


SPEC = TaskSpec(
    name="last",
    summary="find the next token",
    path=Last,
    heads=("causal-lm",),
    checkpoint="openai-community/gpt2",
    aliases=("next",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A decoder whose tokenizer states token types, which the decoder does not have."""
    llama = {"model_type": "llama", "vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2}
    llama |= {"num_attention_heads": 2, "intermediate_size": 24, "initializer_range": 0.8}
    llama |= {"max_position_embeddings": 24}
    minitx.save(minitx.from_config(llama, head="causal-lm", seed=0), tmp_path / "llama")
    bert = bert_folder(tmp_path / "bert", "masked-lm")
    (tmp_path / "llama" / "vocab.txt").write_bytes((bert / "vocab.txt").read_bytes())
    settings = json.loads((bert / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (tmp_path / "llama" / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path / "llama"


@pytest.mark.usefixtures("registrations_end")
def test_a_custom_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minitx.register_task(SPEC)
    pipe = minitx.pipeline("next", folder)
    assert pipe.task.spec.name == "last"
    assert "token_type_ids" in pipe.tokenizer(["the"])
    result = pipe("the cat")
    assert result.text in VOCABULARY
    assert str(result) == result.text
    check_order_and_batches(pipe, ["the cat", "a dog ran to the park", "the mat ."])
    assert main(["run", "last", str(folder), "the cat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == dict(result)
    minitx.register_task(dataclasses.replace(SPEC, picture="bars"))
    assert TASKS["last"].picture == "bars"
    with pytest.raises(ValueError, match="must be a causal language model for last; it has no head"):
        minitx.pipeline("last", minitx.load(folder, head="none"))


@pytest.mark.usefixtures("registrations_end")
def test_one_entry_is_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"heads": ("next-sentence",), "default_of": "next-sentence", "phrase": "a judge of pairs"}
    spec = dataclasses.replace(SPEC, **entry, example='"Two texts."')
    minitx.register_task(spec)
    with pytest.raises(ValueError, match="must be a judge of pairs for last; it has no head"):
        minitx.pipeline("last", minitx.load(folder, head="none"))
    pairs = minitx.from_config(BERT, head="next-sentence", seed=0).eval()
    assert minitx.pipeline(None, pairs, minitx.load_tokenizer(folder)).task.spec is spec
    assert main(["run", "last", "--help"]) == 0
    assert '"Two texts."' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fill-mask"}, "name='fill-mask' must be a new name; minitx has this task itself"),
        ({"aliases": ("ner",)}, "aliases='ner' must be a new name"),
        ({"aliases": "xyz"}, "aliases='xyz' must be a tuple of strings"),
        ({"aliases": (1,)}, r"aliases\[0\]=1 must be a string"),
        ({"name": 3}, "name=3 must be a string"),
        ({"heads": "masked-lm"}, "heads='masked-lm' must be a tuple of strings"),
        ({"heads": ("maskedlm",)}, r"heads\[0\]='maskedlm' must be one of 'masked-lm'"),
        ({"heads": ()}, "at least one head"),
        ({"name": "translation_en_to_fr"}, "must be a new name"),
        ({"path": "mine:Last"}, "path='mine:Last' must be a subclass of Task"),
        ({"path": int}, "must be a subclass of Task"),
        ({"default_of": "causal-lm"}, "default_of='causal-lm' must be a head of another task"),
        ({"picture": "pie"}, "picture='pie' must be one of 'bars'"),
    ],
)
def test_what_cannot_be_registered(change: dict[str, Any], message: str) -> None:
    before = dict(TASKS)
    with pytest.raises((TypeError, ValueError), match=message):
        minitx.register_task(dataclasses.replace(SPEC, **change))
    with pytest.raises(TypeError, match="a TaskSpec"):
        minitx.register_task(Last)  # type: ignore[arg-type]
    assert before == TASKS


@pytest.mark.usefixtures("registrations_end")
def test_names_are_of_one_task() -> None:
    minitx.register_task(SPEC)
    for change in ({"name": "other", "aliases": ("last",)}, {"name": "next", "aliases": ()}):
        with pytest.raises(ValueError, match="must be a new name; 'last' has it"):
            minitx.register_task(dataclasses.replace(SPEC, **change))
    minitx.register_task(dataclasses.replace(SPEC, aliases=("final",)))
    assert find_task("final")[0].name == "last"
    with pytest.raises(ValueError, match="task='next' must be one of"):
        find_task("next")


@pytest.mark.usefixtures("registrations_end")
def test_a_missing_step_is_named() -> None:
    class Half(Task[Any, Any]):
        """A task without steps."""

    minitx.register_task(dataclasses.replace(SPEC, path=Half, aliases=()))
    config = {"model_type": "gpt2", "vocab_size": 9, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    pipe = minitx.pipeline("last", minitx.from_config(config, head="causal-lm", seed=0).eval())
    with pytest.raises(NotImplementedError, match=r"Half must define preprocess\(request, options\)"):
        pipe("a")
