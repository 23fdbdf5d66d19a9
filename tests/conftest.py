"""Shared by all tests: nothing reaches a network, and runs repeat exactly."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

# Set before anything imports huggingface_hub: a test that forgot to stay local fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

from minitx.architectures import registry
from minitx.inspect import pictures
from minitx.layers import activation, attention
from minitx.models import inputs
from minitx.pipelines import registry as tasks

# A shell ignores Ctrl-C for what it starts in the background; the tests of interruption need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("minitx", deadline=None, derandomize=True)
settings.load_profile("minitx")

# Without a GPU, `torch.manual_seed` still formats a traceback for each kind of device, before every test.
HAS_GPUS = torch.backends.cuda.is_built() or torch.backends.mps.is_built()
seed = torch.manual_seed if HAS_GPUS else torch.default_generator.manual_seed

gc.disable()  # until the tests are collected: their modules and items stay to the end


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector does not visit what lives as long as the run: 1.6 million objects."""
    collected = yield
    gc.freeze()
    gc.set_threshold(10_000)  # models and modules that the tests import are visited a tenth as often
    gc.enable()
    return collected


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    seed(0)


@pytest.fixture
def registrations_end() -> Iterator[None]:
    """Parts that a test registers are forgotten after it: other tests go through the tables."""
    tables: list[dict[Any, Any]] = [
        registry._REGISTERED,
        attention.BACKENDS,
        activation.ACTIVATIONS,
        inputs._EMBEDDERS,
        tasks.TASKS,
        tasks.NAMES,
        pictures.KINDS,
    ]
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
