"""Compare AntiBERTy, a BERT with heads of its own, with transformers; too large for the test suite.

    pip download --no-deps antiberty==0.1.3 && unzip antiberty-0.1.3-py3-none-any.whl -d FOLDER
    python scripts/check_antiberty.py FOLDER/antiberty/trained_models/AntiBERTy_md_smooth

Prints the largest difference of hidden states and logits, before and after `minitx.save`, and the tensors
that the model does not use.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

import minitx


def largest_difference(folder: Path, source: Path) -> tuple[float, float]:
    """Returns the largest difference of hidden states and of logits between transformers and minitx."""
    reference = transformers.BertForMaskedLM.from_pretrained(source).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = minitx.load(folder)
    ids = torch.randint(5, 25, (8, 120), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(120)[None] < torch.tensor([120, 110, 90, 60, 31, 7, 2, 1])[:, None]
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask.long(), output_hidden_states=True)
        output = model(ids, mask)
    hidden = (expected.hidden_states[-1] - output.last_hidden_state)[mask].abs().max()
    return float(hidden), float((expected.logits - output.logits)[mask].abs().max())


def main(source: Path) -> None:
    """Prints the figures."""
    with warnings.catch_warnings(record=True) as caught, tempfile.TemporaryDirectory() as temporary:
        warnings.simplefilter("always")
        model = minitx.load(source)
        print("warnings:", *(str(warning.message) for warning in caught), sep="\n  ")
        saved = Path(temporary) / "saved"
        minitx.save(model, saved)
        stored = torch.load(source / "pytorch_model.bin", weights_only=True, map_location="cpu")
        again = load_file(saved / "model.safetensors")
        equal = stored.keys() == again.keys() and all(torch.equal(stored[n], again[n]) for n in stored)
        print(f"{len(stored)} tensors, all written back unchanged: {equal}")
        for name, folder in (("loaded", source), ("saved and loaded", saved)):
            print(f"{name}: hidden states %.1e, logits %.1e" % largest_difference(folder, source))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
