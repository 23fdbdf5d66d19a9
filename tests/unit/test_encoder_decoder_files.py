"""Files of encoder-decoders: under which names a shared tensor lies, what comes back, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import minitx
from minitx.architectures import architecture
from tests.parity.encoder_decoders import BART, BERT, DECODES, GLUED, MARIAN, NO_CLASSES, T5

GLUED_BERTS = {"encoder": BERT, "decoder": {**BERT, **DECODES}, **GLUED}
CONFIGS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "mt5": T5,
    "umt5": T5,
    "bart": BART,
    "mbart": BART,
    "pegasus": NO_CLASSES,
    "m2m_100": NO_CLASSES,
    "marian": MARIAN,
    "blenderbot": NO_CLASSES,
}


def config(model_type: str, **more: Any) -> dict[str, Any]:
    return {"model_type": model_type, **CONFIGS[model_type], **more}


def reference(model_type: str, folder: Path) -> tuple[Any, dict[str, set[str]]]:
    """What transformers makes of a folder, and the names that it found missing or had no place for."""
    cls = getattr(transformers, architecture(model_type).class_name(model_type, "seq2seq-lm"))
    model, report = cls.from_pretrained(folder, output_loading_info=True)
    return model.eval(), {key: set(report[key]) for key in ("missing_keys", "unexpected_keys")}


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


SINUSOIDS = {f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")}  # computed
TEXT, WRITTEN = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[9, 8, 7]])


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        found = model(input_ids=TEXT, attention_mask=torch.ones_like(TEXT), decoder_input_ids=WRITTEN).logits
    assert isinstance(found, Tensor)
    return found


# --- a shared word embedding -------------------------------------------------------------------------


def stored_as(model_type: str, kept: str, folder: Path) -> Path:
    """A checkpoint whose word embedding has no name but the one that ends with `kept`."""
    minitx.save(minitx.from_config(config(model_type), head="seq2seq-lm", seed=0), folder)
    found = tensors(folder)
    (shared,) = [name for name in found if name.endswith("shared.weight")]
    prefix = "" if kept.startswith("lm_head") else shared.removesuffix("shared.weight")
    found[prefix + kept] = found.pop(shared)
    save_file(found, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "kept", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]
)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_shared_tensor_under_any_of_its_names(model_type: str, kept: str, tmp_path: Path) -> None:
    folder = stored_as(model_type, kept, tmp_path / "one")
    model = minitx.load(folder)
    word = model.embedder.word_emb.weight
    assert model.decoder_embedder.word_emb.weight is word
    assert model.head.projection.weight is word
    expected, report = reference(model_type, folder)
    assert report["missing_keys"] <= SINUSOIDS
    assert torch.allclose(logits(model), logits(expected), atol=1e-5)
    minitx.save(model, tmp_path / "two")
    assert same(tensors(tmp_path / "two"), tensors(folder))


def test_a_tensor_untied_after_it_came_under_the_others_name(tmp_path: Path) -> None:
    """Neither may be written over the other."""
    model = minitx.load(stored_as("bart", "lm_head.weight", tmp_path / "one"))
    word = model.embedder.word_emb.weight.detach().clone()
    model.head.projection.weight = nn.Parameter(word + 1)
    minitx.save(model, tmp_path / "two")
    again = minitx.load(tmp_path / "two")
    assert torch.equal(again.embedder.word_emb.weight, word)
    assert torch.equal(again.decoder_embedder.word_emb.weight, word)
    assert torch.equal(again.head.projection.weight, word + 1)


UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
TWO_VOCABULARIES: dict[str, Any] = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 105}
FRESH = [
    *((model_type, {}) for model_type in CONFIGS),
    *((model_type, UNTIED) for model_type in CONFIGS if model_type != "umt5"),  # which has a test of its own
    ("marian", TWO_VOCABULARIES),
    ("marian", {**TWO_VOCABULARIES, **UNTIED}),
]


@pytest.mark.parametrize(("model_type", "more"), FRESH)
def test_a_fresh_model_lacks_nothing_in_transformers(
    model_type: str, more: dict[str, Any], tmp_path: Path
) -> None:
    model = minitx.from_config(config(model_type, **more), head="seq2seq-lm", seed=0).eval()
    minitx.save(model, tmp_path)
    expected, report = reference(model_type, tmp_path)
    assert report["missing_keys"] <= SINUSOIDS
    assert report["unexpected_keys"] == set()
    assert torch.allclose(logits(model), logits(expected), atol=1e-5)


# --- what the model has no place for -----------------------------------------------------------------


def test_the_checkpoints_own_head_keeps_what_the_model_has_no_place_for(tmp_path: Path) -> None:
    """Transformers gives an encoder its pooler, which no decoder looks at."""
    glued = transformers.EncoderDecoderConfig.from_dict(GLUED_BERTS)
    transformers.EncoderDecoderModel(config=glued).save_pretrained(tmp_path / "one")
    before = tensors(tmp_path / "one")
    assert any("pooler" in name for name in before)
    for head in (None, "seq2seq-lm"):
        minitx.save(minitx.load(tmp_path / "one", head=head), tmp_path / "two")
        assert same(tensors(tmp_path / "two"), before)


@pytest.mark.parametrize("head", [None, "sequence-classification"])
def test_a_head_drawn_in_the_place_of_another_is_the_one_that_is_saved(
    head: str | None, tmp_path: Path
) -> None:
    model = minitx.from_config({**BERT, "num_labels": 3}, head="sequence-classification", seed=0)
    minitx.save(model, tmp_path / "one")
    model = minitx.load(tmp_path / "one", head=head, init_head=True, num_labels=7)
    minitx.save(model, tmp_path / "two")
    again = minitx.load(tmp_path / "two")
    assert torch.equal(again.head.projection.weight, model.head.projection.weight)


# --- what is refused, and in which words -------------------------------------------------------------


def test_a_tensor_that_is_missing_is_named_as_such_files_name_it(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(config("t5"), head="seq2seq-lm", seed=0), tmp_path)
    found = tensors(tmp_path)
    del found["shared.weight"]
    save_file(found, tmp_path / "model.safetensors", {"format": "pt"})
    words = r"lacks 1 tensors: encoder\.embed_tokens\.weight or shared\.weight\.$"
    with pytest.raises(ValueError, match=words):
        minitx.load(tmp_path)


def test_an_encoder_alone_says_how_it_is_loaded(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(config("t5"), head="encoder", seed=0), tmp_path)
    for head in ("none", "seq2seq-lm"):
        with pytest.raises(ValueError, match=r"lacks .* tensors: decoder\.block.*the head \"encoder\" loads"):
            minitx.load(tmp_path, head=head)
    assert minitx.load(tmp_path, head="encoder").task is None


def test_a_decoder_that_is_damaged_is_not_taken_for_an_encoder_alone(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(config("t5"), head="none", seed=0), tmp_path)
    found = tensors(tmp_path)
    del found["decoder.final_layer_norm.weight"]
    save_file(found, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors: decoder\.final_layer_norm\.weight\.$"):
        minitx.load(tmp_path)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_an_encoder_with_a_decoder_of_its_own(model_type: str) -> None:
    glued = {"model_type": "encoder-decoder", **GLUED_BERTS, "encoder": config(model_type)}
    words = f"encoder: model_type='{model_type}' must be an encoder without a decoder"
    with pytest.raises(ValueError, match=words):
        minitx.from_config(glued, head="seq2seq-lm")


@pytest.mark.parametrize("layers", [0, -1])
def test_no_layers_is_not_as_many_as_the_encoder_has(layers: int) -> None:
    with pytest.raises(ValueError, match="num_decoder_layers"):
        minitx.from_config(config("t5", num_decoder_layers=layers))
    for more in ({"num_decoder_layers": None}, {}):
        left = {key: value for key, value in config("t5").items() if key != "num_decoder_layers"}
        assert len(minitx.from_config({**left, **more}).decoder.layers) == T5["num_layers"]


@pytest.mark.parametrize(
    ("model_type", "key"),
    [("t5", "num_decoder_layers"), ("bart", "encoder_layers"), ("bart", "decoder_layers")],
)
def test_more_layers_than_any_model_has(model_type: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}=1001 must be an integer from 1 to 1000"):
        minitx.from_config(config(model_type, **{key: 1001}))


# --- where transformers computes something else ------------------------------------------------------


def test_umt5_that_says_it_is_not_tied_is_not_scaled(tmp_path: Path) -> None:
    """As it was trained; transformers takes every UMT5 for tied, and its logits differ by the factor."""
    model = minitx.from_config(config("umt5", **UNTIED), head="seq2seq-lm", seed=0).eval()
    minitx.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    expected, _ = reference("umt5", tmp_path)
    assert torch.allclose(logits(model) * T5["d_model"] ** -0.5, logits(expected), atol=1e-5)
    assert not torch.allclose(logits(model), logits(expected), atol=1e-2)
