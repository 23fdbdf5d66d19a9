"""Shared by all tests: nothing reaches a network, and runs repeat exactly."""

from __future__ import annotations

import os
import signal

# Set before anything imports huggingface_hub: a test that forgot to stay local fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

# A shell ignores Ctrl-C for what it starts in the background; the tests of interruption need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("minitx", deadline=None, derandomize=True)
settings.load_profile("minitx")


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(0)
