"""Every architecture on a device other than the CPU: nothing is left on the CPU (tests/fake_cuda.py)."""

from __future__ import annotations

from tests.parity.cases import CASES

FIRST = {case.model_type: case for case in reversed(CASES)}
