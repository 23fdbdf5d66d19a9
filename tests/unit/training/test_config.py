"""The settings of a run, and TOML."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from minitx.training import TrainConfig
from minitx.training.toml import dump_toml
from minitx.validation import ArgumentTypeError, ArgumentValueError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"steps": 1.5}, "steps=1.5 must be an integer"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"accumulation": True}, "accumulation=True must be an integer"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be in \\(0, inf\\)"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"betas": (0.9, 1.0)}, "betas=1.0 must be in \\[0, 1\\)"),
        ({"betas": 0.9}, "betas=0.9 must be two numbers"),
        ({"optimizer": "adam"}, "optimizer='adam' must be one of 'adamw', 'muon'"),
        ({"schedule": "sqrt"}, "schedule='sqrt' must be one of 'constant'"),
        ({"precision": "float16"}, "precision='float16' must be one of 'float32', 'bfloat16'"),
        ({"compile": 1}, "compile=1 must be True, False or the name of a backend"),
        ({"checkpoint_activations": 1}, "checkpoint_activations=1 must be True or False"),
        ({"schedule": "wsd"}, "decay_steps=0 must be at least 1 with"),
        ({"decay_steps": 3}, "decay_steps=3 must be 0 without"),
        ({"warmup_steps": 11}, "warmup_steps=11 must be at most 10"),
        ({"schedule": "wsd", "decay_steps": 6, "warmup_steps": 5}, "warmup_steps=5 must be at most 4"),
        ({"patience": 2}, "patience=2 must be 0 without evaluate_every"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio=1.5"),
        ({"keep": 0}, "keep=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ArgumentValueError, ArgumentTypeError), match=message):
        TrainConfig(**{"steps": 10} | options)


def test_to_toml_and_back() -> None:
    config = TrainConfig(
        steps=7, learning_rate=1e-5, betas=(0.9, 0.95), max_grad_norm=math.inf, compile="eager"
    )
    text = dump_toml({"training": config.to_dict()})
    assert TrainConfig.from_dict(tomllib.loads(text)["training"]) == config
    assert set(config.to_dict()) == {field.name for field in dataclasses.fields(config)}
    assert all(name in (TrainConfig.__doc__ or "") for name in config.to_dict())


def test_unknown_and_missing_names() -> None:
    with pytest.raises(ArgumentValueError, match="did you mean 'learning_rate'"):
        TrainConfig.from_dict({"steps": 1, "learnin_rate": 1})
    with pytest.raises(ArgumentValueError, match="one with steps"):
        TrainConfig.from_dict({"batch_size": 1})


def test_toml_of_any_value() -> None:
    values: dict[str, Any] = {
        "text": 'quotes " and \\ and ü, 😀, \x7f and\nlines',
        "odd key": -1,
        "numbers": [1, 2.5, 1e-30, -math.inf],
        "flag": True,
        "table": {"inner": {"x": 1, "nested": [[1], ["a"]]}, "y": False},
        "empty": {},
        "times": [date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), time(3, 4, 5, 600)],
        "tables": [{"x": 1, "odd key": [{}]}, {"y": "z"}],
    }
    text = dump_toml(values | {"nothing": None})
    assert tomllib.loads(text) == values
    assert not text.startswith("\n")
    with pytest.raises(TypeError, match=r"a.b.c: <object .* cannot be written"):
        dump_toml({"a": {"b": [{"c": object()}]}})
