"""The recipes in recipes/: each runs, with tiny settings, and the command that it shows uses its model."""

from __future__ import annotations

import json
import shlex
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

import minitx
from minitx.cli import app as cli
from minitx.training import TrainingEnd, plan_recipe, read_metrics, read_recipe, run_recipe, train_tokenizer
from minitx.training.recipe.prepare import prepare

RECIPES = Path(__file__).parents[3] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
SIZES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "bart": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2},
    "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2},
}
SIZES["electra"] = SIZES["bert"] | {"embedding_size": 16}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder and a decoder, in place of the pretrained ones."""
    folder = tmp_path_factory.mktemp("models")
    texts = [path.read_text() for path in sorted((RECIPES / "data").iterdir())]
    positions = {"max_position_embeddings": 128}
    for name, style, config in (
        ("tiny-encoder", "bert", SIZES["bert"] | positions | {"model_type": "bert"}),
        ("tiny-decoder", "llama", SIZES["bert"] | positions | {"model_type": "llama", "eos_token_id": 2}),
    ):
        chat = {"chat_template": "chatml"} if style == "llama" else {}
        tokenizer = train_tokenizer(texts, style, vocab_size=420, **chat)
        head = "masked-lm" if style == "bert" else "causal-lm"
        model = minitx.from_config(config | {"vocab_size": len(tokenizer)}, head=head, seed=0)
        minitx.save(model, folder / name, tokenizer=tokenizer)
    return folder


def tiny(name: str, models: Path) -> list[str]:
    """Overrides that make a recipe small."""
    values = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    length = "epochs=0.1" if "epochs" in values["train"] else "steps=2"
    sets = [f"train.{length}", "train.log_every=1"]
    sets += ["train.evaluate_every=1"] if "evaluate_every" in values["train"] else []
    sets += ["train.warmup_steps=0"] if "warmup_steps" in values["train"] else []
    config = values["model"].get("config", {})
    sets += [f"model.config.{key}={n}" for key, n in SIZES.get(config.get("model_type"), {}).items()]
    for table, key in (("model", "name"), ("tokenizer", "name"), ("objective", "teacher")):
        if "minitx/" in (stated := values.get(table, {}).get(key, "")):
            sets.append(f"{table}.{key}={models / stated.partition('/')[2]}")
    style = values.get("tokenizer", {}).get("style")
    return sets + ([f"tokenizer.vocab_size={300 if style == 'gpt2' else 420}"] if style else [])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_and_its_model_is_of_use(
    name: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml", tiny(name, models), folder=tmp_path / "run")
    result = run_recipe(recipe, progress=False)
    assert all(row["loss"] > 0 for row in read_metrics(tmp_path / "run/metrics.jsonl") if "loss" in row)
    end = TrainingEnd.of(recipe, result)
    program, *arguments = shlex.split(end.use)
    assert program == "minitx"
    if arguments[0] == "chat":  # needs someone to talk to
        arguments = ["generate", arguments[1], "Who?", "--chat", "--max-new-tokens", "2"]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert str(tmp_path / "run/model") in str(end)


def test_there_is_a_recipe_for_every_objective() -> None:
    from minitx.training.recipe.objectives import OBJECTIVES

    used = {tomllib.loads((RECIPES / f"{name}.toml").read_text())["objective"]["name"] for name in NAMES}
    assert used == OBJECTIVES.keys()


def test_recipes_are_short_and_explain_themselves() -> None:
    for name in NAMES:
        lines = (RECIPES / f"{name}.toml").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert f"minitx train recipes/{name}.toml" in lines[1]
        assert len(lines) <= 50
        assert max(map(len, lines)) <= 80


def test_recipes_of_shipped_checkpoints_train_in_float32() -> None:
    """The checkpoints are stored in bfloat16."""
    texts = {name: (RECIPES / f"{name}.toml").read_text() for name in NAMES}
    shipped = [name for name, text in texts.items() if '"minitx/' in text]
    assert len(shipped) >= 9
    assert {tomllib.loads(texts[name])["model"].get("dtype") for name in shipped} == {"float32"}


@pytest.mark.parametrize(("dtype", "is_warned"), [(None, True), ("bfloat16", False), ("float32", False)])
def test_training_in_low_precision_is_a_choice(dtype: str | None, is_warned: bool, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    lines = ["[model]", 'name = "minitx/tiny-encoder"', *([f'dtype = "{dtype}"'] if dtype else [])]
    lines += ["[data]", 'files = "data.jsonl"', "[objective]", 'name = "sequence-labels"']
    lines += ["[train]", "steps = 1", "batch_size = 2"]
    (tmp_path / "a.toml").write_text("\n".join(lines))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare(read_recipe(tmp_path / "a.toml"))
    stated = [str(w.message) for w in caught if "stored in bfloat16" in str(w.message)]
    assert len(stated) == is_warned
    assert all('set model.dtype = "float32"' in text for text in stated)


def test_the_labels_of_the_data_are_in_the_saved_config(models: Path, tmp_path: Path) -> None:
    run_recipe(
        RECIPES / "classifier.toml", tiny("classifier", models), folder=tmp_path / "run", progress=False
    )
    config: dict[str, Any] = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}


def test_a_plan_measures_without_a_run(models: Path, tmp_path: Path) -> None:
    plan = plan_recipe(RECIPES / "lora.toml", tiny("lora", models), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert 0 < plan.trainable < plan.parameters
    assert plan.parameter_bytes == 4 * plan.parameters
    assert plan.gradient_bytes == 4 * plan.trainable
    assert plan.optimizer_bytes >= 8 * plan.trainable
    assert plan.activation_bytes > 0
    assert plan.seconds > 0
    lines = [line for line in str(plan).splitlines() if "/" not in line]
    assert max(map(len, lines)) <= 80
