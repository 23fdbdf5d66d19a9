"""Fill-mask: the tokens, texts, order and scores of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import minitx
from minitx.pipelines.models import without_head
from tests.parity.cases import BY_NAME
from tests.parity.pipelines import LONG, close, folder, theirs
from tests.parity.reference import CASES_AND_HEADS, pair, text
from tests.real import ALBERT, SMILES

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("bert", "roberta", "albert", "distilbert")


def masked(mask: str) -> list[str]:
    return [
        f"The {mask} sleeps on the sofa.",
        f"{mask}",
        f"The {mask} and the{mask}{mask} in Berlin.",
        f"東京は大きな{mask}です。",
        f"שלום {mask} مرحبا",
        f"  e\u0301te\u0301 🍕 {mask} , isn't it ?",
        f"<s> [SEP] {mask} [PAD] <pad>",
        f"The bank raised its {mask} rates. " * 2,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_transformers(kind: str, root: Path) -> None:
    path = folder(root, kind, "AutoModelForMaskedLM")
    reference = theirs("fill-mask", path)
    pipe = minitx.pipeline("fill-mask", path, device="cpu")
    texts = masked(pipe.tokenizer.mask_token or "")
    targets = ["cat", "the", "s", "qqq", "cat", "expensive interest"]
    calls: list[dict[str, Any]] = [
        {},
        {"top_k": 1},
        {"top_k": 17},
        {"targets": targets},
        {"targets": targets, "top_k": 2},
        {"targets": "the"},
    ]
    for options in calls:
        expected = reference(texts, **options)
        for size in (1, 8, None):
            sized = minitx.pipeline("fill-mask", pipe.model, pipe.tokenizer, batch_size=size, **options)
            assert close(sized(texts), expected)
        assert close(pipe(texts[0], **options), reference(texts[0], **options))
        assert close(pipe(texts[2], **options), reference(texts[2], **options))
        assert close(pipe([texts[0]], **options), reference([texts[0]], **options))
    long = f"{texts[2]} {LONG}"
    kwargs = {"truncation": True, "max_length": 128}
    assert close(pipe(long, overflow="truncate"), reference(long, tokenizer_kwargs=kwargs))


@pytest.mark.parametrize("name", [name for name, task in CASES_AND_HEADS if task == "masked-lm"])
def test_logits_of_single_positions_are_those_of_the_whole_forward(name: str, root: Path) -> None:
    model = pair(name, "masked-lm", torch.float64, root)[1]
    inputs = text(BY_NAME[name], 3, 9)
    rows, positions = torch.tensor([0, 0, 2]), torch.tensor([1, 8, 5])
    with torch.inference_mode():
        expected = model(**inputs)
        hidden = without_head(model)(**inputs).last_hidden_state
        logits = model.apply_head(hidden[rows, positions][None], None, None, None).logits[0]
    assert torch.equal(hidden, expected.last_hidden_state)
    torch.testing.assert_close(logits, expected.logits[rows, positions], rtol=0, atol=1e-13)
    assert model.head is not None


def test_the_albert_of_rxnmapper(tmp_path: Path) -> None:
    """Reactions, with the tokenizer that minitx writes for transformers; one far too long, in windows."""
    tokenizer = minitx.load_tokenizer(ALBERT, pattern=SMILES)
    tokenizer.save(tmp_path)
    pipe = minitx.pipeline("fill-mask", ALBERT, tokenizer, device="cpu", dtype=torch.float64)
    model = AutoModelForMaskedLM.from_pretrained(ALBERT).double()
    reference = theirs("fill-mask", model, tokenizer=AutoTokenizer.from_pretrained(tmp_path))
    reactions = [
        "CC(=O)[MASK].OCC>>CC(=O)OCC",
        "CC(=O)Cl.[MASK]CC>>CC(=O)OCC",
        "[MASK]CC[MASK]>>CC",
        "BrCCc1ccccc1.N>>NCCc1cccc[MASK]1",
    ]
    assert close(pipe(reactions), reference(reactions), 1e-12)
    targets = {"targets": ["Br", "Cl", "O", "N"]}
    assert close(pipe(reactions, **targets), reference(reactions, **targets), 1e-12)
    long = pipe("C" * 1000 + "(=O)[MASK].OCC>>CC(=O)OCC" + "C" * 1000)
    assert "".join(long[0]["sequence"].split()).startswith("C" * 1000)
