"""Files of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from minitx.extras import missing_extra
from minitx.io import write_atomically, write_json

FORMATS = (".npy", ".safetensors", ".json")


def check_finite(vectors: Tensor) -> None:
    """Raises ValueError for NaN or infinity in (N, E) vectors; names the first such text."""
    bad = (~vectors.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(
            f"text {int(bad[0])} (from 0) has no finite vector; the weights may hold NaN: "
            "see minitx inspect and minitx verify."
        )


def write_vectors(path: Path, vectors: Tensor, document: dict[str, Any]) -> None:
    """Writes (N, E) vectors, all or nothing.

    Args:
        path: its suffix, one of `FORMATS`, chooses the format.
        vectors: on the CPU.
        document: further entries of a JSON file.

    Raises:
        ImportError: numpy is not installed, which the formats other than JSON need.
    """

    def write(temporary: Path) -> None:
        if path.suffix.lower() == ".json":
            write_json(temporary, document | {"embeddings": vectors.tolist()})
        elif path.suffix.lower() == ".safetensors":
            from safetensors.torch import save_file

            save_file({"embeddings": vectors}, temporary)
        else:
            with temporary.open("wb") as file:  # a name without .npy would get it appended
                import_numpy().save(file, vectors.numpy())

    write_atomically(path, write)


def import_numpy() -> Any:
    """Imports numpy; raises ImportError with the command that installs it."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            f".npy and .safetensors files need numpy ({error}); write .json, or install numpy with: "
            f"{missing_extra('numpy')}"
        ) from None
    return numpy
