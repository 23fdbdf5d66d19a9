"""Training on several processes and machines, by PyTorch's own FSDP2, DCP and tensor parallelism.

Names are imported at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below, for type checkers
    from minitx.training.distributed.copies import gather as gather
    from minitx.training.distributed.group import join as join
    from minitx.training.distributed.plan import tensor_parallel as tensor_parallel
    from minitx.training.distributed.plan import tensor_parallel_plan as tensor_parallel_plan

_MODULES = {
    "gather": "copies",
    "join": "group",
    "tensor_parallel": "plan",
    "tensor_parallel_plan": "plan",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'minitx.training.distributed' has no attribute {name!r}")
    return getattr(import_module(f"minitx.training.distributed.{_MODULES[name]}"), name)
