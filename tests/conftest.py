"""Shared by all tests: nothing reaches a network, and runs repeat exactly."""

from __future__ import annotations

import os

# Set before anything imports huggingface_hub: a test that forgot to stay local fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
import torch
from hypothesis import settings

settings.register_profile("minitx", deadline=None, derandomize=True)
settings.load_profile("minitx")


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(0)
