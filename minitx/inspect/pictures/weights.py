"""Pictures of weights: the spectra of the matrices."""

from __future__ import annotations

import re

import torch

from minitx.inspect.inputs import Subject
from minitx.inspect.pictures.kinds import misfit, picture_kind
from minitx.pictures.maps import Scale
from minitx.pictures.picture import Picture, compose
from minitx.pictures.plots import Lines, Panel, Series, line_colors

LARGEST = 60_000_000  # entries of a matrix whose singular values take seconds


@picture_kind("spectra", "singular values of the weight matrices", takes_text=False)
def spectra(subject: Subject, *, side: str | None = None) -> Picture:
    """Draws the singular values of each matrix in the layers, relative to the largest one of the matrix.

    A curve that falls early is a matrix of low rank. Experts are left out.

    Args:
        subject: the model.
        side: "encoder" or "decoder" of an encoder-decoder; None: the encoder.
    """
    side = subject.side(side)
    panels: dict[str, list[Series]] = {}
    for name, weight in subject.model.get_submodule(side).named_parameters():
        match = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", name)
        if match is None or weight.dim() != 2 or weight.numel() > LARGEST:
            continue
        with torch.inference_mode():
            values = torch.linalg.svdvals(weight.detach().float()).cpu()
        shares = values / values[0].clamp(min=1e-30)
        ranks = [(i + 1.0) for i in range(len(shares))]
        panels.setdefault(match[2], []).append((float(match[1]), ranks, shares.tolist()))
    if not panels:
        raise misfit("spectra", "layers with weight matrices")
    last = max(number for series in panels.values() for number, _, _ in series)
    scale = Scale(0.0, max(last, 1.0), "layer", line_colors())
    drawn = [Panel(_short(name), series) for name, series in panels.items()]
    axes = ("number of the singular value", "its share of the largest one")
    block = Lines(panels=drawn, scale=scale, axes=axes, per_line=3)
    of = f" of the {side}" * subject.has_encoder_and_decoder
    return compose(f"Singular values of the weights{of}", [block])


def _short(name: str) -> str:
    """Returns the last two parts of a module's name, which differ between the matrices of a layer."""
    return ".".join(name.split(".")[-2:])
