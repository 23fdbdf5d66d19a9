"""Draw docs/pictures/attention_map.png: an attention head that aligns atoms.

The checkpoint is the ALBERT of rxnmapper (Schwaller et al. 2021,
doi:10.1126/sciadv.abe4166), a masked language model of chemical reactions written as
SMILES. It was trained without atom labels; head 6 of layer 11 nevertheless attends from
each atom of the product to its origin in the reactants.

    .venv/bin/python docs/pictures/attention_map.py [PATH]
"""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import minitx

REACTION = "Brc1ccccc1.OB(O)c1ccc(C)cc1>>Cc1ccc(-c2ccccc2)cc1"  # a Suzuki coupling
# One token: bracket atoms, two-letter halogens, ring numbers above 9, the arrow.
SMILES = r"\[[^\]]+\]|Br|Cl|%[0-9]{2}|>>|[^\s]"
LAYER, HEAD = 10, 5  # counted from 0


def draw(weights: Tensor, sources: list[str], targets: list[str], path: Path) -> None:
    """Draw weights (targets, sources) as a heat map with the tokens on the axes."""
    figure = Figure(figsize=(7.6, 5.9), facecolor="white", layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights.tolist(), cmap="cividis", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(sources)), sources, family="monospace")
    axes.set_yticks(range(len(targets)), targets, family="monospace")
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("reactants: bromobenzene and p-tolylboronic acid (keys)", labelpad=8)
    axes.set_ylabel("product: 4-methylbiphenyl (queries)", labelpad=8)
    head = f"layer {LAYER + 1}, head {HEAD + 1}"
    axes.set_title(f"Attention of {head}: product atoms attend to their origin", pad=12)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="attention weight")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(path: Path) -> None:
    """Load the checkpoint, run one reaction, draw the head."""
    spec = find_spec("rxnmapper")
    if spec is None or spec.origin is None:
        raise SystemExit("rxnmapper is not installed; scripts/test installs it.")
    folder = (
        Path(spec.origin).parent
        / "models"
        / "transformers"
        / "albert_heads_8_uspto_all_1310k"
    )
    with warnings.catch_warnings():
        # it has a config key that minitx keeps without using it.
        warnings.simplefilter("ignore")
        model = minitx.load(folder, head="none")
    tokenizer = minitx.load_tokenizer(folder, pattern=SMILES)
    input_ids = tokenizer(REACTION)["input_ids"]
    tokens = tokenizer.tokens(REACTION)
    arrow = tokens.index(">>")
    with torch.inference_mode():
        out = model(input_ids, output_attentions=[LAYER])
    weights = out.attentions[LAYER][0, HEAD]  # (T, T)
    # without [CLS] and [SEP]
    sources, targets = slice(1, arrow), slice(arrow + 1, len(tokens) - 1)
    draw(weights[targets, sources], tokens[sources], tokens[targets], path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures/attention_map.png"))
