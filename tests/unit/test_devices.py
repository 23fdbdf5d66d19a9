"""Every architecture on a device other than the CPU: nothing is left on the CPU (tests/fake_cuda.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import minitx
from minitx.validation import trusted_values
from tests.fake_cuda import fake_cuda, on_cuda
from tests.parity.cases import CASES
from tests.parity.reference import config_of

FIRST = {case.model_type: case for case in reversed(CASES)}
