"""The mesh of the processes: the data-parallel group, and those that share the matrices."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from minitx.validation import ArgumentValueError

DATA, TENSOR = "data", "tensor"
_MESHES: WeakKeyDictionary[nn.Module, DeviceMesh] = WeakKeyDictionary()  # of models after tensor_parallel


def remember_mesh(model: nn.Module, mesh: DeviceMesh) -> None:
    """Notes the mesh that a model's matrices are distributed over."""
    _MESHES[model] = mesh


def mesh_of(model: nn.Module) -> DeviceMesh | None:
    """Returns the mesh that the matrices of a model, or of a part of it, are distributed over."""
    return next((_MESHES[module] for module in model.modules() if module in _MESHES), None)


def data_mesh(model: nn.Module, device_type: str) -> DeviceMesh | None:
    """Returns the data-parallel group; None: all processes share the matrices, and have all data.

    Raises:
        ArgumentValueError: a mesh that does not have all processes.
    """
    mesh = mesh_of(model)
    if mesh is None:
        return init_device_mesh(device_type, (distributed.get_world_size(),), mesh_dim_names=(DATA,))
    if mesh.size() != distributed.get_world_size():
        expected = (
            f"of all {distributed.get_world_size()} processes, with the dimensions {DATA!r}, {TENSOR!r}"
        )
        raise ArgumentValueError("mesh", mesh, expected, "make it with init_device_mesh")
    return mesh[DATA] if DATA in (mesh.mesh_dim_names or ()) else None
