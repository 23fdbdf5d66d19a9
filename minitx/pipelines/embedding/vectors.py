"""Files of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from minitx.extras import missing_extra
from minitx.io import write_atomically, write_json
from minitx.validation import check_output

FORMATS = (".npy", ".safetensors", ".json")


def check_finite(vectors: Tensor) -> None:
    """Checks that (N, E) vectors are finite; the ValueError names the first text whose vector is not."""
    bad = (~vectors.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(
            f"text {int(bad[0])} (from 0) has no finite vector; the weights may hold NaN: "
            "see minitx inspect and minitx verify."
        )


def check_vector_file(parameter: str, value: Any) -> Path:
    """Returns the path of a file of vectors; to be called before any work.

    Raises:
        TypeError, ValueError, OSError: as `check_output`.
        ImportError: numpy is not installed, which the formats other than JSON need.
    """
    path = check_output(parameter, value, FORMATS)
    if path.suffix.lower() != ".json":
        import_numpy()
    return path


def write_vectors(path: Path, vectors: Tensor, document: dict[str, Any]) -> None:
    """Writes (N, E) vectors, all or nothing; the folder is created if it does not exist.

    Args:
        path: its suffix, one of `FORMATS`, chooses the format.
        vectors: on the CPU.
        document: further entries of a JSON file.

    Raises:
        ImportError: numpy is not installed, which the formats other than JSON need.
    """

    def _write(temporary: Path) -> None:
        if path.suffix.lower() == ".json":
            write_json(temporary, document | {"embeddings": vectors.tolist()})
        elif path.suffix.lower() == ".safetensors":
            from safetensors.torch import save_file

            save_file({"embeddings": vectors}, temporary)
        else:
            with temporary.open("wb") as file:  # a name without .npy would get it appended
                import_numpy().save(file, vectors.numpy())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _write)


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
