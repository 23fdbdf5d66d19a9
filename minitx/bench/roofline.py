"""The roofline: what the machine could do, from peaks that are measured in the same run.

Each round of a benchmark also measures the machine: the bandwidth of a copy and of a product of a matrix and
a vector, whose matrix is larger than the caches, and the rate of a product of two matrices. A figure then
reads as a share of the bound: of a forward its operations at the rate of products; of a decoding step the
bytes of weights and cache at the bandwidth, or its operations, whichever takes longer. (Williams, Waterman
and Patterson, "Roofline", 2009.)
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.bench.workloads import Workload
from minitx.inspect.estimate.parts import cache_bytes
from minitx.inspect.flops import Tokens, attention_flops, forward_flops
from minitx.models import Model
from minitx.optimize.linear import linear
from minitx.optimize.packed import Packed, product

LARGE = 2**28  # bytes of the weight and of the copy, beyond the caches of usual processors
SIDE = 2048  # of the square matrices
TRAINING = 3  # operations of a training step, in forwards


@dataclass(frozen=True)
class Peaks:
    """What the machine reached beside the engines.

    Attributes:
        copy: bytes per second, read and written.
        vector: bytes per second of the weight of a matrix-vector product.
        product: operations per second of a product of matrices.
    """

    copy: float
    vector: float
    product: float

    @classmethod
    def median(cls, samples: Sequence[Peaks]) -> Peaks:
        """Returns the median of each peak."""
        return cls(*(statistics.median(getattr(s, name) for s in samples) for name in asdict(samples[0])))

    def to_json(self) -> dict[str, float]:
        """Returns the peaks by name."""
        return asdict(self)


class Meter:
    """Measures the peaks of a device in a dtype."""

    def __init__(self, dtype: str, device: str, large: int = LARGE, side: int = SIDE) -> None:
        self.device, kind = device, getattr(torch, dtype)
        width = 4096 if large >= 2**24 else 64
        self.weight = torch.ones(large // kind.itemsize // width, width, dtype=kind, device=device)
        self.vector = torch.ones(1, width, dtype=kind, device=device)
        self.target = torch.empty_like(self.weight)
        self.square = torch.ones(side, side, dtype=kind, device=device)
        self._vector = self._fastest(self.vector, self.weight)
        self._product = self._fastest(self.square, self.square)

    @torch.inference_mode()
    def sample(self) -> Peaks:
        """Measures the peaks once more, each by the product that was the fastest at first."""
        size, flops = self.weight.nbytes, 2 * len(self.square) ** 3
        copied = self._seconds(lambda: self.target.copy_(self.weight))
        return Peaks(
            2 * size / copied, size / self._seconds(self._vector), flops / self._seconds(self._product)
        )

    @torch.inference_mode()
    def _fastest(self, x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
        return min(self._products(x, weight), key=self._seconds)

    def _products(self, x: Tensor, weight: Tensor) -> Iterable[Callable[[], Tensor]]:
        """Yields products x W^T: PyTorch's own, minitx's choice, and that of a packed weight."""
        yield lambda: F.linear(x, weight)
        yield lambda: linear(x, weight, None)
        packed = Packed()
        if packed.of(weight) is not None:
            yield lambda: product(x, weight, None, packed)

    def _seconds(self, run: Callable[[], Any]) -> float:
        best = torch.inf
        for _ in range(2):
            start = time.perf_counter()
            run()
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)
            best = min(best, time.perf_counter() - start)
        return best


# --- bounds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """The work of a workload that any engine must do.

    Attributes:
        flops: operations that run at the rate of products.
        steps: of the decoding.
        weights: numbers of the weights that each step reads.
        cache: numbers of the keys and values that all steps read together.
        step_flops: operations of all steps together.
    """

    flops: int
    steps: int = 0
    weights: int = 0
    cache: int = 0
    step_flops: int = 0

    def seconds(self, peaks: Peaks, number_bytes: int, weight_bytes: float | None = None) -> float:
        """Returns the least time on a machine with these peaks.

        Args:
            peaks: of the machine.
            number_bytes: of each number in the cache.
            weight_bytes: of each weight, as the engine stores them; None: as many.
        """
        stored = number_bytes if weight_bytes is None else weight_bytes
        read = self.steps * self.weights * stored + self.cache * number_bytes
        return self.flops / peaks.product + max(read / peaks.vector, self.step_flops / peaks.product)


def work_of(workload: Workload, model: Model) -> Work | None:
    """Returns the work of a workload; None where there is no simple bound, such as for an import.

    Rows of many lengths are counted without padding, and as decoded together: the weights are read once for
    each step of the longest answer. Beams of a prompt share its cross-attention cache.

    Args:
        workload: the workload.
        model: on the meta device.
    """
    forwards = {"encode": 1, "prefill": 1, "train_step": TRAINING}
    if workload.call in forwards:
        kept = 1 if workload.call == "prefill" else None
        lengths = Counter(workload.lengths())
        flops = sum(n * forward_flops(model, Tokens(1, t, logits=kept)) for t, n in lengths.items())
        return Work(forwards[workload.call] * flops)
    return _decoding(model, workload) if workload.call in ("generate", "sample") else None


def _decoding(model: Any, workload: Workload) -> Work:
    new, lengths = workload.new_lengths(), workload.lengths()
    counts = [new] * len(lengths) if isinstance(new, int) else new
    crosses, beams = len(model.families) > 1, workload.num_beams
    flops = cache = step_flops = 0
    for (length, count), rows in Counter(zip(lengths, counts, strict=True)).items():
        first, source = (1, length) if crosses else (length, 0)
        flops += rows * forward_flops(model, Tokens(1, first, source=source, logits=1))
        if count == 1:
            continue
        mean = first + (count - 2) // 2  # both counts are linear in the tokens of the cache
        steps = rows * (count - 1)
        step_flops += steps * beams * forward_flops(model, Tokens(1, 1, mean, source, 1))
        kinds = cache_bytes(model, 1, mean + 1, source, 1)
        cache += steps * sum(n * (1 if kind == "cross-attention" else beams) for kind, n in kinds.items())
    return Work(flops, max(counts) - 1, _read_weights(model), cache, step_flops)


def _read_weights(model: Any) -> int:
    """Returns how many weights of matrices a decoding step of one row reads."""
    token = Tokens(1, 1, 1, 1 if len(model.families) > 1 else 0, 1)
    order = range(len(model.decoder.layer_order))
    pairs = sum(attention_flops(model.decoder, step, token, 1, 1) for step in order)
    return (forward_flops(model, token) - pairs) // 2
