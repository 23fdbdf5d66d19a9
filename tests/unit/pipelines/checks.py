"""Checks that the tests of several tasks share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.parity.pipelines import close


def check_order_and_batches(pipe: Any, requests: Sequence[Any], **options: Any) -> None:
    """A batch gives what its rows give alone; shuffled inputs give shuffled results; threads do not mix."""
    alone = [pipe([request, request], **options)[0] for request in requests]
    assert close(pipe(list(requests), **options), alone, 1e-5)
    order = random.Random(0).sample(range(len(requests)), len(requests))
    shuffled = pipe([requests[index] for index in order], **options)
    assert close(shuffled, [alone[index] for index in order], 1e-5)
    assert close(list(pipe(iter(requests), **options)), alone, 1e-5)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda request: pipe([request, request], **options)[0], requests))
    assert close(results, alone, 1e-5)
