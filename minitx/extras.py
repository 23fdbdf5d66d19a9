"""The optional dependencies of minitx, and how a user installs them."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution


def missing_extra(name: str) -> str:
    """Returns the command that installs an extra.

    In a clone of the repository this is `pip install -e '.[name]'`, to be run in its root; where minitx was
    installed from an index, `pip install 'minitx[name]'`.
    """
    return f"pip install -e '.[{name}]'" if _from_folder() else f"pip install 'minitx[{name}]'"


def extra_error(need: str, error: ImportError, name: str) -> ImportError:
    """Returns the error of a package that is not installed.

    Args:
        need: the feature and its package, such as "pictures need matplotlib".
        error: of the import.
        name: of the extra that installs it.
    """
    return ImportError(f"{need} ({error}); install it with: {missing_extra(name)}")


def _from_folder() -> bool:
    """Whether minitx runs from a folder: installed from it (direct_url.json, PEP 610), or not at all."""
    try:
        text = distribution("minitx").read_text("direct_url.json")
    except PackageNotFoundError:
        return True
    return text is not None and str(json.loads(text).get("url", "")).startswith("file:")
