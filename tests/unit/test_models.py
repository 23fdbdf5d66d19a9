"""What a model does beyond its numbers: masks, dtypes, files, compilation, errors."""

from __future__ import annotations

import copy
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import minitx
from minitx.architectures import REGISTRY
from minitx.layers.attention import BACKENDS
from minitx.layers.norm import identity
from tests.real import MINILM

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 20,
}


def tiny(**more: Any) -> minitx.EncoderModel:
    head = more.pop("head", None)
    return minitx.from_config({**CONFIG, **more}, head=head, seed=0).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(2, 60, shape)


def test_texts_packed_into_one_row_do_not_see_each_other() -> None:
    model, first, second = tiny(), ids(1, 5), ids(1, 7)
    mask = torch.block_diag(torch.ones(5, 5), torch.ones(7, 7))[None].bool()
    positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
    packed = model(torch.cat((first, second), 1), mask, position_ids=positions).last_hidden_state
    assert torch.allclose(packed[:, :5], model(first).last_hidden_state, atol=1e-6)
    assert torch.allclose(packed[:, 5:], model(second).last_hidden_state, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.int32, torch.float32])
def test_a_mask_may_have_any_type(dtype: torch.dtype) -> None:
    model, text = tiny(), ids(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    expected = model(text, mask).last_hidden_state
    assert torch.equal(model(text, mask.to(dtype)).last_hidden_state, expected)


def test_attention_backends_agree_and_an_unknown_one_is_named() -> None:
    model, text = tiny().double(), ids(2, 9)
    found = [model.set_attention(name)(text).last_hidden_state for name in BACKENDS]
    assert torch.allclose(found[0], found[1], atol=1e-12)
    with pytest.raises(ValueError, match=r"flash.*eager, sdpa"):
        model.set_attention("flash")


def test_training_a_loaded_model_leaves_its_file_alone() -> None:
    """The weights are mapped from the file; what is written to them must not go back there."""
    path = MINILM / "model.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = minitx.load(MINILM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_loaded_model_survives_the_removal_of_its_file(tmp_path: Path) -> None:
    minitx.save(tiny(), tmp_path)
    model, text = minitx.load(tmp_path), ids(1, 5)
    expected = model(text).last_hidden_state
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(model(text).last_hidden_state, expected)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert", "deberta-v2"])
def test_the_forward_is_one_graph(model_type: str) -> None:
    """Nothing in it breaks torch.compile, padding included."""
    model = tiny(model_type=model_type, pad_token_id=1)
    text, mask = ids(2, 8), torch.ones(2, 8, dtype=torch.long)
    mask[0, 5:] = 0
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        found, expected = compiled(text, mask), model(text, mask)
    real = mask.bool()
    assert torch.allclose(found.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-5)


def test_models_can_be_copied_and_pickled(tmp_path: Path) -> None:
    model, text = tiny(head="masked-lm"), ids(1, 5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(text).logits, model(text).logits)
        assert other.head.projection.weight is other.embedder.word_emb.weight
    minitx.save(copy.deepcopy(model), tmp_path)
    assert torch.equal(minitx.load(tmp_path)(text).logits, model(text).logits)


@pytest.mark.parametrize("model_type", REGISTRY)
def test_fresh_weights_follow_the_config(model_type: str) -> None:
    more: dict[str, Any] = {"model_type": model_type, "initializer_range": 0.5, "pad_token_id": 1}
    if model_type == "distilbert":
        more |= {"dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
    if model_type == "albert":
        more["embedding_size"] = 24
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the keys that distilbert calls otherwise
        model, other = tiny(**more), tiny(**more)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert bool((module.weight == 1).all()), name
        elif isinstance(module, nn.Linear | nn.Embedding):
            assert 0.4 < module.weight.std().item() < 0.6, name
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any(), name
    assert not model.embedder.word_emb.weight[1].any()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_model_made_from_parts_starts_with_weights_and_has_no_record_to_save() -> None:
    numbers = tiny().config
    model = minitx.EncoderModel(numbers)
    assert 0.01 < model.embedder.word_emb.weight.std().item() < 0.03
    with pytest.raises(ValueError, match="from_config"):
        minitx.save(model, "nowhere")


def test_an_empty_slot_is_no_module() -> None:
    model = tiny(model_type="modernbert")
    assert model.encoder.layers[0].attention_norm is identity
    assert isinstance(model.encoder.layers[1].attention_norm, nn.LayerNorm)
    assert "attention_norm" not in dict(model.encoder.layers[0].named_children())


def test_a_language_model_head_shares_the_word_embedding() -> None:
    model = tiny(head="masked-lm")
    assert model.head.projection.weight is model.embedder.word_emb.weight
    untied = tiny(head="masked-lm", tie_word_embeddings=False)
    assert untied.head.projection.weight is not untied.embedder.word_emb.weight


def test_an_unknown_kind_of_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nonsense.*regression"):
        tiny(head="sequence-classification", problem_type="nonsense")


def test_rotary_positions_need_pairs() -> None:
    with pytest.raises(ValueError, match="rotary turns pairs"):
        tiny(model_type="modernbert", hidden_size=15, num_attention_heads=3)


def test_a_head_for_other_labels_is_drawn_afresh(tmp_path: Path) -> None:
    minitx.save(tiny(head="sequence-classification"), tmp_path)
    model = minitx.load(tmp_path, init_head=True, num_labels=5)
    assert model(ids(2, 4)).logits.shape == (2, 5)
    assert 0.005 < model.head.projection.weight.std().item() < 0.05
    with pytest.raises(ValueError, match=r"init_head=True"):
        minitx.load(tmp_path, num_labels=5)
