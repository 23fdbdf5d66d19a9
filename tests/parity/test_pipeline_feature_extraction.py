"""Feature extraction: the hidden states of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer, T5EncoderModel

import minitx
from tests.parity.pipelines import LONG, TEXTS, close, folder, theirs
from tests.real import MINILM

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("bert", "roberta", "distilbert", "albert", "bart", "gpt2")


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_transformers(kind: str, root: Path) -> None:
    path = folder(root, kind, "AutoModel")
    reference = theirs("feature-extraction", path)
    pipe = minitx.pipeline("feature-extraction", path, device="cpu")
    texts = [text for text in TEXTS if kind != "gpt2" or text]
    expected = reference(texts)
    for size in (1, 8, None):
        sized = minitx.pipeline("feature-extraction", pipe.model, pipe.tokenizer, batch_size=size)
        assert close(sized(texts), expected, 3e-6)
    assert close(pipe(texts[0]), reference(texts[0]), 3e-6)
    assert close(pipe([texts[0]]), reference([texts[0]]), 3e-6)
    assert close(pipe(LONG), reference(LONG, truncation=True), 3e-6)
    tensor = pipe(texts[1], return_tensors=True)
    torch.testing.assert_close(tensor, reference(texts[1], return_tensors=True), rtol=1e-5, atol=3e-6)


def test_t5_is_its_encoder(root: Path, tmp_path: Path) -> None:
    """Without decoder inputs transformers refuses the whole model; a file of the encoder alone works too."""
    whole = folder(root, "t5", "AutoModel")
    encoder = T5EncoderModel.from_pretrained(whole).eval()
    tokenizer = AutoTokenizer.from_pretrained(whole)
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for place in (whole, tmp_path):
        pipe = minitx.pipeline("feature-extraction", place, device="cpu", return_tensors=True)
        for text, hidden in zip(TEXTS, pipe(list(TEXTS)), strict=True):
            expected = encoder(**tokenizer(text, return_tensors="pt"))[0]
            torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=3e-6)


def test_all_minilm() -> None:
    reference = theirs("feature-extraction", MINILM)
    pipe = minitx.pipeline("feature-extraction", MINILM, device="cpu")
    assert close(pipe(list(TEXTS)), reference(list(TEXTS)), 1e-5)
    model, tokenizer = AutoModel.from_pretrained(MINILM), AutoTokenizer.from_pretrained(MINILM)
    batch = tokenizer(LONG, return_tensors="pt", truncation=True, max_length=512)
    expected = model.eval()(**batch)[0]
    found = pipe(LONG, return_tensors=True, max_length=512)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
