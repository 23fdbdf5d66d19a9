"""Reading a recipe: keys, overrides, paths, data, labels; and a run that continues from its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.training import Interrupted, read_recipe, run_recipe
from minitx.training.recipe.prepare import Prepared, prepare
from minitx.training.recipe.tables import DataTable
from minitx.training.toml import dump_toml

TEXT = "\n\n".join(f"the cat {number} sat on mat number {number}." for number in range(12))
GPT = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


def write(folder: Path, **tables: Any) -> Path:
    """A recipe of a tiny GPT on a text, with other tables."""
    (folder / "text.txt").write_text(TEXT)
    values = {
        "model": {"config": GPT},
        "tokenizer": {"style": "gpt2", "vocab_size": 280},
        "data": {"files": "text.txt"},
        "objective": {"name": "causal-lm"},
        "train": {"steps": 4, "batch_size": 4, "log_every": 1},
    }
    (folder / "tiny.toml").write_text(dump_toml(values | tables))
    return folder / "tiny.toml"


def labelled(folder: Path, content: str, *, objective: dict[str, Any], **data: Any) -> Path:
    """A recipe of a tiny BERT on a table."""
    (folder / "rows.csv").write_text(content)
    tables: dict[str, Any] = {"model": {"config": BERT}, "tokenizer": {"style": "bert", "vocab_size": 120}}
    return write(folder, **tables, data={"files": "rows.csv"} | data, objective=objective)


def prepared(path: Path, *overrides: str) -> Prepared:
    return prepare(read_recipe(path, list(overrides)), progress=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=1", "train.stepz is no key of a recipe; did you mean steps?"),
        ("modle.name=gpt2", "tiny.modle is no key of a recipe; did you mean model?"),
        ("model.nam=gpt2", "model.nam is no key of a recipe; did you mean name?"),
        ("objective.lenght=8", "objective.lenght is no key of a recipe; did you mean length?"),
        ("objective.tokenizer=8", "objective.tokenizer is no key"),
        ("objective.name=causal", "objective.name='causal' must be one of 'masked-lm', 'causal-lm'"),
        ("model.name=gpt2", "either name or config"),
        ("model.seed=true", "model.seed=True must be an integer"),
        ("data.held_out=1.5", r"data.held_out=1.5 must be in \[0, 1\)"),
        ("data.files=3", "data.files=3 must be a string or a list"),
        ("data.files=none*.txt", "no file matches .*none"),
        ("data.labels=['a']", "data.labels=.* must be left out with text files"),
        ("data.block_length=64", "data.block_length=64 must be .* to 32; longer blocks"),
        ("data.min_characters=1000", "at least one document to use"),
        ("tokenizer.vocab_size=3", "vocab_size=3 must be"),
        ("tokenizer.mask_token=[M]", "tokenizer.mask_token='.M.' must be a token of the tokenizer"),
        ("tokenizer={}", "tokenizer=None must be a table"),
        ("objective.name=instruct", "files with objective 'instruct'"),
        ("train.epochs=2", "train.steps=4 must be stated, or epochs instead"),
        ("train.evaluate_every=2", "0 without evaluation data; set data.held_out"),
        ("model.config.vocab_size=100", "at most the model's 100 tokens"),
        ("model.lora.rnk=2", "model.lora.rnk is no key of a recipe; did you mean rank?"),
        ("train.steps", "set='train.steps' must be key=value"),
        ("train.steps.a=2", "steps is a value and not a table"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        prepared(write(tmp_path), override)


def test_the_file_itself(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no.toml does not exist"):
        read_recipe(tmp_path / "no.toml")
    with pytest.raises(FileNotFoundError, match=r"has no recipe.toml"):
        read_recipe(tmp_path)
    (tmp_path / "bad.toml").write_text("[model\n")
    with pytest.raises(ValueError, match=r"bad.toml is not TOML"):
        read_recipe(tmp_path / "bad.toml")


def test_overrides_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file are relative to it, those of overrides to the working directory."""
    (tmp_path / "place").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "place")
    recipe = read_recipe(path)
    assert recipe.data.files == str(tmp_path / "place/text.txt")
    assert recipe.folder == tmp_path / "place/tiny"
    sets = ["data.files=['a.txt', '/b.txt']", "train.betas=[0.5, 0.9]", "train.learning_rate=1e-3"]
    recipe = read_recipe(path, [*sets, "objective.note.x = a b"], folder="there")
    assert recipe.data.files == [str(tmp_path / "a.txt"), "/b.txt"]
    assert recipe.train["betas"] == [0.5, 0.9]
    assert recipe.train["learning_rate"] == 1e-3
    assert recipe.objective["note"] == {"x": "a b"}
    assert recipe.folder == Path("there")
    recipe = read_recipe(path, ["model={name='model'}"])
    assert (recipe.model.name, recipe.model.config) == (str(tmp_path / "model"), None)


def test_a_name_that_is_no_folder_is_of_the_hub(tmp_path: Path) -> None:
    path = write(tmp_path, model={"name": "gpt2"}, tokenizer={"name": "./mine"})
    recipe = read_recipe(path)
    assert (recipe.model.name, recipe.tokenizer.name) == ("gpt2", str(tmp_path / "mine"))


def test_the_recipe_is_beside_every_checkpoint_and_continues_the_run(tmp_path: Path) -> None:
    sets = ["train.save_every=2", "train.steps=4"]
    whole = run_recipe(write(tmp_path), sets, folder=tmp_path / "whole", progress=False)
    run_recipe(tmp_path / "tiny.toml", [*sets, "train.schedule=constant"], folder=tmp_path / "part")
    for place in ("recipe.toml", "checkpoints/step-000002/recipe.toml", "model/recipe.toml"):
        text = (tmp_path / "whole" / place).read_text()
        assert "steps = 4" in text
        assert str(tmp_path / "text.txt") in text
    (tmp_path / "whole").rename(tmp_path / "moved")
    with pytest.raises(FileExistsError, match="holds a run; continue it with"):
        run_recipe(tmp_path / "moved")
    longer = run_recipe(tmp_path / "moved", ["train.steps=6"], resume=True, progress=False)
    assert (whole.steps, longer.steps, longer.folder) == (4, 6, tmp_path / "moved")
    assert "steps = 6" in (tmp_path / "moved/recipe.toml").read_text()


def test_an_interrupted_run_ends_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from minitx.training.loop import Run

    path = write(tmp_path)
    run_recipe(path, folder=tmp_path / "whole", progress=False)
    step = Run.step
    monkeypatch.setattr(Run, "step", lambda run: (os.kill(os.getpid(), signal.SIGINT), step(run))[1])
    with pytest.raises(Interrupted, match="after step 1 of 4"):
        run_recipe(path, folder=tmp_path / "part", progress=False)
    monkeypatch.setattr(Run, "step", step)
    run_recipe(tmp_path / "part", resume=True, progress=False)
    models = [minitx.load(tmp_path / name / "model") for name in ("whole", "part")]
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)


def test_the_tokenizer_of_a_resumed_run_is_that_of_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    run_recipe(path, progress=False)
    monkeypatch.setattr("minitx.training.recipe.prepare.build_tokenizer", None)
    assert run_recipe(path, ["train.steps=5"], resume=True, progress=False).steps == 5


def test_blocks_are_written_once_beside_the_run(tmp_path: Path) -> None:
    path = write(tmp_path, data={"files": "*.txt", "block_length": 16, "held_out": 0.2})
    first = prepared(path)
    assert (tmp_path / "tiny-tokens/tokens.bin").is_file()
    assert (tmp_path / "tiny-tokens-evaluation/tokens.bin").is_file()
    assert len(first.dataset[0]["input_ids"]) == 16
    assert len(prepared(path).dataset) == len(first.dataset)
    with pytest.raises(FileExistsError, match=r"another tokenizer; remove it, or set data.tokens"):
        prepared(path, "tokenizer.vocab_size=270")
    only = write(tmp_path, data={"tokens": "tiny-tokens", "block_length": 16}, tokenizer={"name": "t"})
    first.tokenizer.save(tmp_path / "t")  # type: ignore[attr-defined]
    assert len(prepared(only).dataset) == len(first.dataset)


def test_filters_of_text(tmp_path: Path) -> None:
    path = write(tmp_path, data={"files": "text.txt", "limit": 3, "max_characters": 32})
    texts = [example["text"] for example in prepared(path).dataset]  # type: ignore[attr-defined]
    assert texts == TEXT.split("\n\n")[:3]


def test_filters_of_records(tmp_path: Path) -> None:
    rows = "text,verdict,split\na,good,train\nb,bad,test\nc,bad,train\nd,good,train\n"
    columns = {"text": "text", "label": "verdict"}
    options: dict[str, Any] = {"objective": {"name": "sequence-labels"}, "columns": columns}
    path = labelled(tmp_path, rows, where={"split": "train"}, limit=2, **options)
    assert list(prepared(path).dataset) == [  # type: ignore[call-overload]
        {"text": "a", "labels": 1},
        {"text": "c", "labels": 0},
    ]
    with pytest.raises(ValueError, match=r"data.where=.* must be a filter that some record passes"):
        prepared(path, "data.where.split=other")


def test_labels_by_name(tmp_path: Path) -> None:
    rows = "text,label\na b,good\nb c,bad\nc d,good\n"
    path = labelled(tmp_path, rows, objective={"name": "sequence-labels"})
    run = prepared(path, 'data.labels=["good", "bad"]')
    assert run.labels is not None
    assert run.labels.names == ("good", "bad")
    assert [row["labels"] for row in run.dataset] == [0, 1, 0]  # type: ignore[attr-defined]
    model: Any = run.model
    assert model.checkpoint.id2label == {0: "good", 1: "bad"}
    with pytest.raises(ValueError, match=r"rows.csv:3: label='bad' must be one of 'good', 'fine'"):
        prepared(path, 'data.labels=["good", "fine"]')


def test_a_loaded_classifier_keeps_the_order_of_its_labels(tmp_path: Path) -> None:
    rows = "text,label\na b,good\nb c,bad\n"
    path = labelled(tmp_path, rows, objective={"name": "sequence-labels"})
    run_recipe(path, ['data.labels=["good", "bad"]'], progress=False)
    again = prepared(path, f"model={{name='{tmp_path}/tiny/model'}}", "tokenizer={}")
    assert again.labels is not None
    assert again.labels.names == ("good", "bad")
    assert [row["labels"] for row in again.dataset] == [0, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rows", "objective", "example"),
    [
        (
            "text,label\na,0.5\nb,1\n",
            {"name": "sequence-labels", "num_labels": 1},
            {"text": "a", "labels": 0.5},
        ),
        (
            'text,label\na,"x, y"\nb,y\n',
            {"name": "sequence-labels", "multiple": True},
            {"text": "a", "labels": [1.0, 1.0]},
        ),
        (
            "words,label\na b,O X\nc,X\n",
            {"name": "token-labels"},
            {"words": ["a", "b"], "labels": [0, 1]},
        ),
        (
            "question,context,answer\nwho,a cat sat,cat\n",
            {"name": "answer-spans", "stride": 4},
            {
                "question": "who",
                "context": "a cat sat",
                "answers": {"text": ["cat"], "answer_start": [2]},
            },
        ),
    ],
)
def test_cells_of_a_table(tmp_path: Path, rows: str, objective: dict[str, Any], example: Any) -> None:
    assert prepared(labelled(tmp_path, rows, objective=objective)).dataset[0] == example


@pytest.mark.parametrize(
    ("rows", "objective", "message"),
    [
        (
            "text,label\na,much\n",
            {"name": "sequence-labels", "num_labels": 1},
            "rows.csv:2: label='much' must be a",
        ),
        (
            "question,context,answer\nwho,a cat,dog\n",
            {"name": "answer-spans"},
            "rows.csv:2: answer='dog' must be a part",
        ),
        ("words,label\na b,O\n", {"name": "token-labels"}, "rows.csv:2: 1 labels for 2 words"),
        ("text,name\na,O\n", {"name": "sequence-labels"}, "rows.csv:2: no field 'label'"),
        ("text,label\na,b\n", {"name": "sentence-pairs"}, "an example with 'anchor'"),
    ],
)
def test_records_that_do_not_fit(tmp_path: Path, rows: str, objective: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        prepared(labelled(tmp_path, rows, objective=objective))


def test_text_and_records_do_not_mix(tmp_path: Path) -> None:
    path = labelled(tmp_path, "text\na\n", objective={"name": "causal-lm"})
    with pytest.raises(ValueError, match="must be either text files, or"):
        prepared(path, f"data.files=['{tmp_path}/rows.csv', '{tmp_path}/text.txt']")


def test_epochs_in_place_of_steps(tmp_path: Path) -> None:
    path = write(tmp_path, train={"epochs": 2.5, "batch_size": 4})
    run = prepared(path)
    assert (run.config.steps, run.epochs) == (8, pytest.approx(8 * 4 / 12))


def test_a_longest_input_is_the_model_s_unless_stated(tmp_path: Path) -> None:
    objective: Any = prepared(write(tmp_path)).objective
    assert objective.length == 32
    objective = prepared(tmp_path / "tiny.toml", "objective.length=16").objective
    assert objective.length == 16


def test_every_key_is_documented() -> None:
    fields: Sequence[str] = list(DataTable.__dataclass_fields__)
    for name in fields:
        assert name in (DataTable.__doc__ or "")
