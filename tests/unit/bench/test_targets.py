"""benchmarks/targets.py: its rows name workloads, models and engines that exist, and ratios are right."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from minitx.bench.engine import ENGINES
from minitx.bench.models import CONFIGS
from minitx.bench.workloads import WORKLOADS
from tests.unit.bench.test_results import ROW

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("targets", ROOT / "benchmarks" / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["targets"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    del sys.modules["targets"]
    return module


def test_rows_name_what_exists(targets: ModuleType) -> None:
    for target in targets.TARGETS:
        assert target.workload in WORKLOADS
        assert target.ours in ENGINES
        assert target.against in (*ENGINES, targets.BOUND)
        assert target.model is None or target.model in CONFIGS


def test_a_ratio_is_that_of_the_two_engines(targets: ModuleType) -> None:
    target = targets.Target("row", "decode", "ctranslate2", 1.1)
    ours = replace(ROW, engine="minitx-optimized", ratio=3.0, share=0.7)
    other = replace(ROW, engine="ctranslate2", ratio=2.0)
    assert targets.reached(target, [ROW, ours, other]) == (1.5, "")
    assert targets.engines_of([target]) == ("ctranslate2", "minitx-optimized")
    assert next(targets.lines_of([target], [ours, other])).split()[-2:] == ["1.50", "reached"]
    bound = replace(target, against=targets.BOUND)
    assert targets.reached(bound, [ROW, ours]) == (0.7, "")
    absent = replace(other, figure=None, samples=(), skipped="it is not installed")
    assert targets.reached(target, [ours, absent]) == (None, "ctranslate2: it is not installed")
