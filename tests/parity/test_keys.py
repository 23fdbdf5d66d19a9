"""Every key of every config.json changes minitx as it changes transformers, or is refused, or has no effect.

`tests/parity/keys.py` has the changes and how they are compared; `scripts/config_keys.py` runs all of them,
with every head and further configurations, and writes the table of known keys.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.architectures import REGISTRY
from minitx.architectures.known_keys import EVERY, SECOND_NAMES, _table, known_keys, second_names
from minitx.checkpoint.build import choose_architecture, read_config
from minitx.decoding.special_tokens import begin_token
from tests.parity.cases import BY_NAME, CASES, Case
from tests.parity.keys import (
    Bench,
    Change,
    changes,
    config_class,
    excepted,
    file_of,
    keys_read,
    other_values,
    own_keys,
    plain,
    run_minitx,
    run_reference,
    with_value,
)

FIRST = {case.model_type: case for case in reversed(CASES)}
REASONS = {"execution", "generation", "record", "tokenizer", "training"}
DECODERS = [case.name for case in CASES if "causal-lm" in case.heads and case.model_type != "gpt_neo"]
CACHED_WINDOW = "gemma2-uncapped"  # transformers' cache drops the last key of a window that goes both ways
BOTH_WAYS = [
    (name, task)
    for name in DECODERS
    for task in ("causal-lm", "sequence-classification", "token-classification")
    if task in BY_NAME[name].heads and (name, task) != (CACHED_WINDOW, "causal-lm")
]
# Keys with which transformers itself fails at any other value, with one head or another.
NOT_FOR_TRANSFORMERS = {"is_encoder_decoder", "return_dict", "use_return_dict"}


def task_of(case: Case) -> str:
    """The language-modelling head; else the last."""
    return next((task for task in case.heads if task.endswith("-lm")), case.heads[-1])


def config_of(case: Case, **values: Any) -> dict[str, Any]:
    return {**file_of(case, "short"), **values}


def read(config: dict[str, Any]) -> Any:
    return read_config(*choose_architecture(config, None), config)


@pytest.mark.parametrize("model_type", REGISTRY)
def test_every_key_is_obeyed_refused_or_known(model_type: str, tmp_path: Path) -> None:
    """One other value for each key; the script has several, all heads, and more configurations."""
    case = FIRST[model_type]
    bench, known = Bench(case, "short", task_of(case), tmp_path, brief=True), known_keys(model_type)
    first = {change.key: change for change in reversed([*changes(case, "short", ())])}
    keys = [key for key in first if key in bench.read or not isinstance(known.get(key), str)]
    verdicts = [bench.judge(first[key]) for key in keys]  # the next test has the others
    wrong = [verdict for verdict in verdicts if verdict.wrong and not excepted(verdict, model_type)]
    assert not wrong, "\n".join(f"{v.change}: {v.theirs}, {v.ours} {v.message}" for v in wrong)
    assert {verdict.theirs for verdict in verdicts} >= {"same", "changes"}


@pytest.mark.parametrize("model_type", REGISTRY)
def test_known_keys_are_without_effect(model_type: str, tmp_path: Path) -> None:
    """All of them at once, each with another value or with one that the table lists."""
    case = FIRST[model_type]
    bench = Bench(case, "short", task_of(case), tmp_path)
    annotations, values = own_keys(model_type), {}
    defaults = plain(config_class(model_type)().to_dict())
    for key, entry in known_keys(model_type).items():
        if key in bench.read or key in NOT_FOR_TRANSFORMERS or key == "model_type":
            continue
        values[key] = (
            entry[0]
            if isinstance(entry, list)
            else other_values(key, defaults.get(key), annotations.get(key, ""))[0]
        )
    config = {**bench.config, **values, "architectures": bench.config["architectures"]}
    after, _ = run_reference(case, config, bench.task)
    assert after.error is None, after.error
    assert after.equals(bench.before)
    (bench.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = run_minitx(case, bench.folder, bench.task)
    assert ours.error is None, ours.error
    assert ours.equals(bench.before)


@pytest.mark.parametrize("model_type", REGISTRY)
def test_every_key_of_a_config_class_is_read_or_known(model_type: str) -> None:
    case = FIRST[model_type]
    known = {*keys_read(case, file_of(case, "short")), *known_keys(model_type), *second_names(model_type)}
    names = config_class(model_type).attribute_map
    missing = {*own_keys(model_type)} - known - {"model_type"}
    assert not {key for key in missing if names.get(key) not in known}


def test_the_table_gives_reasons() -> None:
    table = _table()
    assert set(table) == {EVERY, SECOND_NAMES, *REGISTRY}
    for kind, entries in table.items():
        for key, entry in entries.items():
            assert kind == SECOND_NAMES or isinstance(entry, list) or entry in REASONS, (kind, key)


@pytest.mark.parametrize("model_type", REGISTRY)
def test_known_keys_with_an_effect_are_refused_at_other_values(model_type: str) -> None:
    case = FIRST[model_type]
    config = config_of(case)
    taken = keys_read(case, config)
    for key, entry in known_keys(model_type).items():
        if isinstance(entry, list) and key not in {*taken, "quantization_config"}:
            for value in entry:
                read({**config, key: value})
            with pytest.raises(
                ValueError, match=rf"{key}=77 must be .*; ignore_keys=\('{key}',\) loads without"
            ):
                read({**config, key: 77})


@pytest.mark.parametrize(("name", "task"), BOTH_WAYS)
def test_decoders_attend_both_ways(name: str, task: str, tmp_path: Path) -> None:
    """With and without padding, with windows, and with a cache: what was cached has not seen later tokens."""
    case = BY_NAME[name]
    verdict = Bench(case, "short", task, tmp_path).judge(Change(name, "short", "is_causal", False))
    assert (verdict.theirs, verdict.ours) == ("changes", "equal")


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "modernbert", "distilbert", "electra", "albert", "t5", "bart"]
)
def test_other_architectures_refuse_is_causal(model_type: str) -> None:
    config = config_of(FIRST[model_type], is_causal=model_type not in ("t5", "bart"))
    with pytest.raises(ValueError, match="is_causal"):
        read(config)


@pytest.mark.parametrize(
    "name", [case.name for case in FIRST.values() if case.model_type not in ("encoder-decoder", "m2m_100")]
)
def test_a_negative_padding_id_means_none(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    for task in case.heads:
        verdict = Bench(case, "short", task, tmp_path).judge(Change(name, "short", "pad_token_id", -1))
        # mBART's decoder input is made with the padding id.
        assert verdict.ours == ("refuses" if name == "mbart" else "equal"), verdict


@pytest.mark.parametrize("value", [-1, None])
def test_positions_that_are_counted_from_padding_need_its_id(value: int | None) -> None:
    message = rf"^config\.json: pad_token_id={value} must be a token id; positions are counted from it"
    for model_type in ["m2m_100"] if value == -1 else ["m2m_100", "roberta"]:
        with pytest.raises(ValueError, match=message):
            read(config_of(FIRST[model_type], pad_token_id=value))


@pytest.mark.parametrize("name", ["llama", "phi", "gpt-neox", "qwen3", "gemma2"])
def test_rope_of_the_default_type_has_no_factor(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    rope = {"rope_type": "default", "rope_theta": 500.0}
    rope |= {"partial_rotary_factor": 0.5} if name in ("phi", "gpt-neox") else {}
    more = {"factor": 3.0, "low_freq_factor": 1.0, "attention_factor": 2.0}
    for other in (rope, {**rope, **more}):
        verdict = Bench(case, "short", "causal-lm", tmp_path).judge(
            Change(name, "short", "rope_parameters", other)
        )
        assert verdict.ours == "equal", verdict


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gpt-neox", "head_dim", 10),
        ("gpt-neox", "rope_theta", 77.0),
        ("gpt-neox", "partial_rotary_factor", 1.0),
        ("gemma3", "rope_parameters", {"full_attention": {"partial_rotary_factor": 0.5}}),
        ("mixtral", "output_router_logits", True),
        ("qwen3-moe", "output_router_logits", True),
        ("gpt-oss", "output_router_logits", True),
        ("t5", "dense_act_fn", "silu"),
        ("t5", "relative_attention_max_distance", 4),
        ("modernbert", "sliding_window", 3),
        ("gpt2", "hidden_size", 12),
        ("bart", "num_attention_heads", 3),
        ("llama", "per_layer_config", {"1": {"hidden_act": "relu"}}),
        ("llama", "sliding_window", 3),
        ("gpt2", "attention_chunk_size", 3),
        ("llama", "token_classification_bias", False),
        ("bert-gpt2", "decoder.is_causal", False),
        ("bert-gpt2", "decoder.n_layers", 3),
    ],
)
def test_contradictions_and_other_structures_are_refused(name: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key.rpartition(".")[2]):
        read(with_value(config_of(BY_NAME[name]), key, value))


@pytest.mark.parametrize(
    ("name", "second", "key"),
    [
        ("gpt2", "num_hidden_layers", "n_layer"),
        ("t5", "hidden_size", "d_model"),
        ("distilbert", "num_attention_heads", "n_heads"),
        ("gpt-neo", "num_hidden_layers", "num_layers"),
    ],
)
def test_second_names_of_keys(name: str, second: str, key: str) -> None:
    config = config_of(BY_NAME[name])
    renamed = {second if k == key else k: v for k, v in config.items()}
    assert read(renamed) == read(config) == read({**config, second: config[key]})
    with pytest.raises(ValueError, match=rf"{second}=7 must be {key}="):
        read({**config, second: 7})


def test_a_nested_key_is_ignored_on_request(tmp_path: Path) -> None:
    config = with_value(config_of(BY_NAME["bert-gpt2"]), "decoder.novelty", 3)
    with pytest.raises(
        ValueError, match=r"'decoder.novelty', unknown .*; ignore_keys=\('decoder.novelty',\) loads"
    ):
        minitx.from_config(config, head="seq2seq-lm")
    model = minitx.from_config(config, head="seq2seq-lm", ignore_keys=("decoder.novelty",), seed=0)
    minitx.save(model, tmp_path / "saved")
    again = minitx.load(tmp_path / "saved", ignore_keys=("decoder.novelty",))
    assert again.checkpoint.config["decoder"]["novelty"] == 3
    assert torch.equal(again.head.projection.weight, model.head.projection.weight)


def test_a_negative_token_begins_nothing() -> None:
    model = minitx.from_config(config_of(BY_NAME["llama"], bos_token_id=-1, pad_token_id=-1, eos_token_id=-1))
    assert begin_token(model, None) is None
    assert model.config.inputs.pad_token_id is None
