"""Two real checkpoints: the sentence encoder all-MiniLM-L6-v2, and the ALBERT that reads chemistry."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import minitx
from minitx.optimize import undo_fast_linear
from tests.parity.reference import hidden_states
from tests.real import ALBERT, MINILM, SMILES

TEXTS = [
    "A cat sat on the mat.",
    "Ein Kätzchen schläft auf dem Sofa, während es regnet.",
    "The quick brown fox jumps over the lazy dog; 12 % of them, at 3.5 km/h!",
    "東京は日本の首都です。 🐈‍⬛ naïve café",
    "x",
]
# Fischer esterification, a Suzuki coupling, an amide coupling
REACTIONS = [
    "CC(=O)O.OCC>>CC(=O)OCC.O",
    "Brc1ccccc1.OB(O)c1ccc(C)cc1>>Cc1ccc(-c2ccccc2)cc1",
    "O=C(O)c1ccccc1.N[C@@H](C)C(=O)OC>>COC(=O)[C@H](C)NC(=O)c1ccccc1",
]
LIMITS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]


def quiet_load(folder: Path, **options: Any) -> minitx.EncoderModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minitx.load(folder, **options)


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
def test_minilm_hidden_states(dtype: torch.dtype, limit: float) -> None:
    model = minitx.load(MINILM, dtype=dtype)
    reference = transformers.BertModel.from_pretrained(MINILM, dtype=dtype).eval()
    batch = minitx.load_tokenizer(MINILM)(TEXTS, padding=True)
    with torch.inference_mode():
        states, output = hidden_states(model, dict(batch))
        expected = reference(**batch, output_hidden_states=True)
    real = batch["attention_mask"].bool()
    for (_, ours), theirs in zip(states, expected.hidden_states, strict=True):
        assert (ours[real] - theirs[real]).abs().max().item() <= limit
    assert (output.pooler_output - expected.pooler_output).abs().max().item() <= limit


def test_minilm_tokens() -> None:
    ours = minitx.load_tokenizer(MINILM)(TEXTS, padding=True)
    theirs = transformers.AutoTokenizer.from_pretrained(MINILM)(TEXTS, padding=True, return_tensors="pt")
    assert set(ours) == set(theirs)
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name


def test_the_products_of_a_loaded_model_round_as_well_as_pytorchs_own() -> None:
    """Both are as far from float64: the fastest product of the machine sums in another order."""
    tokenizer = minitx.load_tokenizer(ALBERT, pattern=SMILES)
    exact, model = quiet_load(ALBERT, dtype=torch.float64), quiet_load(ALBERT, dtype=torch.float32)
    plain = undo_fast_linear(quiet_load(ALBERT, dtype=torch.float32))
    for reaction in REACTIONS:
        ids = tokenizer(reaction)["input_ids"]
        with torch.inference_mode():
            true, fast, own = (m(ids).last_hidden_state.double() for m in (exact, model, plain))
        assert (fast - true).abs().mean() <= 2 * (own - true).abs().mean()


@pytest.mark.parametrize(("dtype", "limit"), LIMITS)
def test_albert_masked_lm_probabilities(dtype: torch.dtype, limit: float) -> None:
    """Every token of every reaction masked in turn, with PyTorch's own products as in transformers."""
    model = undo_fast_linear(quiet_load(ALBERT, dtype=dtype))
    reference = transformers.AlbertForMaskedLM.from_pretrained(ALBERT, dtype=dtype).eval()
    tokenizer = minitx.load_tokenizer(ALBERT, pattern=SMILES)
    for reaction in REACTIONS:
        ids = tokenizer(reaction)["input_ids"]
        masked = ids.repeat(ids.shape[1] - 2, 1)
        masked.diagonal(1).fill_(tokenizer.mask_token_id)
        with torch.inference_mode():
            states, output = hidden_states(model, {"input_ids": masked})
            expected = reference(masked, output_hidden_states=True)
        difference = (output.logits.softmax(-1) - expected.logits.softmax(-1)).abs().max().item()
        assert difference <= limit
        assert (output.last_hidden_state - expected.hidden_states[-1]).abs().max().item() <= limit
        assert len(states) == 13  # the embedder and one layer, twelve times
        # It is the trained model, not noise: it mostly knows the atom it cannot see.
        guessed = output.logits.diagonal(1, 0, 1).argmax(0)
        assert (guessed == ids[0, 1:-1]).double().mean() > 0.5


def test_albert_tokens() -> None:
    tokenizer = minitx.load_tokenizer(ALBERT, pattern=SMILES)
    words = (ALBERT / "vocab.txt").read_text().splitlines()
    for reaction in REACTIONS:
        expected = ["[CLS]", *re.findall(SMILES, reaction), "[SEP]"]
        assert "".join(expected[1:-1]) == reaction
        assert tokenizer(reaction)["input_ids"][0].tolist() == [words.index(token) for token in expected]


@pytest.mark.parametrize("folder", [MINILM, ALBERT], ids=["minilm", "albert"])
def test_round_trip_is_byte_equal(folder: Path, tmp_path: Path) -> None:
    minitx.save(quiet_load(folder), tmp_path)
    if (folder / "model.safetensors").is_file():
        with safe_open(folder / "model.safetensors", framework="pt") as handle:
            source = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            assert handle.metadata() == safe_open(tmp_path / "model.safetensors", framework="pt").metadata()
    else:
        source = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as handle:
        saved = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    assert set(saved) == set(source)
    for name, tensor in source.items():
        assert tensor.dtype == saved[name].dtype, name
        assert tensor.numpy().tobytes() == saved[name].numpy().tobytes(), name
    assert json.loads((folder / "config.json").read_text()) == json.loads(
        (tmp_path / "config.json").read_text()
    )


def test_transformers_finds_every_tensor_of_the_saved_minilm(tmp_path: Path) -> None:
    minitx.save(minitx.load(MINILM), tmp_path)
    _, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize(("head", "cls"), [("masked-lm", "AlbertForMaskedLM"), ("none", "AlbertModel")])
def test_transformers_finds_every_tensor_of_the_saved_albert(head: str, cls: str, tmp_path: Path) -> None:
    """Asked for by name, a head is saved without what belongs to the others: here the unused pooler."""
    minitx.save(quiet_load(ALBERT, head=head), tmp_path)
    _, report = getattr(transformers, cls).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
