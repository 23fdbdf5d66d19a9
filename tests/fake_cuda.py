"""A CUDA device without one: tensors with shapes, dtypes and devices, but no values.

Under `fake_cuda()` operations on tensors of different devices fail as they would on the device, and each wait
for it is noted: where a program reads a value, selects by a mask, or copies from or to the CPU.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minitx import device as minitx_device

READS = ("_local_scalar_dense", "is_nonzero", "item", "equal")
MOVES = ("to", "_to_copy", "copy_", "copy")
SHAPES = ("masked_select", "unique", "_unique2", "unique_consecutive", "bincount")


class Waits(TorchDispatchMode):
    """Notes where a program waits for the device while `on`; what it reads is False, 1 or 0.5.

    Attributes:
        places: "file:line: code" of each wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on, self.places = False, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in READS:
            self.note(not args[0].is_cpu)
            if name in ("is_nonzero", "equal") or args[0].dtype == torch.bool:
                return name == "equal"
            return 0.5 if args[0].is_floating_point() else 1
        if name == "nonzero":
            self.note(True)
            return args[0].new_empty((0, args[0].dim()), dtype=torch.long)
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        self.note(len({t.device.type for t in tensors if t.dim() > 0 or name in MOVES}) > 1)
        selects = name.startswith(("index.", "index_put", "_index_put")) or name == "index"
        of_mask = selects and any(getattr(t, "dtype", None) == torch.bool for t in tree_leaves(args[1]))
        self.note(name in SHAPES or (name == "repeat_interleave" and "Tensor" in func._overloadname))
        self.note(of_mask and not (name != "index" and args[2].numel() == 1))
        return out

    def note(self, waits: bool) -> None:
        if not (self.on and waits):
            return
        frames = [f for f in traceback.extract_stack() if "minitx" in Path(f.filename).parts]
        self.places += [f"{Path(f.filename).name}:{f.lineno}: {f.line}" for f in frames[-1:]]


class Driverless(TorchFunctionMode):
    """Does by operations what Python's own indexing asks a driver for."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name == "copy_":
            return torch.ops.aten.copy_(*args, **kwargs)
        if name == "__invert__":
            return torch.bitwise_not(*args)
        if name == "nonzero":
            return torch.ops.aten.nonzero(*args)
        if name == "to" and type(args[0]) is Tensor:  # one that was made before
            args = (self.mode.from_tensor(args[0]), *args[1:])
        if name == "to" and getattr(args[0], "constant", None) is not None:  # whose value would be moved
            args[0].constant = None
        if name not in ("__getitem__", "__setitem__") or args[0].is_cpu:
            return func(*args, **kwargs)
        view, indices = indexed(args[0], args[1])
        if name == "__getitem__":
            return torch.ops.aten.index(view, indices) if indices else view
        value = args[2]
        if not isinstance(value, Tensor):
            value = torch.full((), value, dtype=view.dtype, device=view.device)
        if indices:
            return torch.ops.aten.index_put_(view, indices, value)
        return torch.ops.aten.copy_(view, value)


def indexed(x: Tensor, index: Any) -> tuple[Tensor, list[Any]]:
    """The view by slices and integers, and the tensors that index it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    sizes = [
        p.dim() if getattr(p, "dtype", 0) == torch.bool else p is not None and p is not ... for p in parts
    ]
    dim, tensors = 0, dict[int, Tensor]()
    for number, part in enumerate(parts):
        if part is None:
            x = x.unsqueeze(dim)
        if part is ...:
            dim = x.dim() - sum(sizes[number + 1 :])
        elif isinstance(part, slice):
            x = torch.ops.aten.slice(x, dim, part.start, part.stop, part.step or 1)
        elif isinstance(part, list | Tensor):
            tensors[dim] = part if isinstance(part, Tensor) else torch.tensor(part)
        elif part is not None:
            x = x.select(dim, part)
            continue
        dim += 0 if part is ... else sizes[number] or 1
    return x, [tensors.get(place) for place in range(max(tensors) + 1)] if tensors else []


@contextmanager
def fake_cuda() -> Iterator[Waits]:
    """Everything inside runs without values; models come from `on_cuda`."""
    minitx_device._copied.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Waits() as waits, Driverless(mode):
        yield waits
    minitx_device._copied.cache_clear()


def on_cuda(model: Any) -> Any:
    """Replaces parameters and buffers by such on the device; to be called inside of `fake_cuda()`."""
    moved = dict[int, Tensor]()
    for module in model.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                continue
            if id(tensor) not in moved:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                is_weight = isinstance(tensor, nn.Parameter)
                moved[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
            (module._parameters if name in module._parameters else module._buffers)[name] = moved[id(tensor)]
    return model
