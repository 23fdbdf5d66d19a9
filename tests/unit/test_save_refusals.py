"""`save` refuses, before anything is written, files that would contradict each other or the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import minitx
from minitx.checkpoint.load import load

BERT = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 60, "n_embd": 24, "n_layer": 1, "n_head": 4, "n_positions": 40}
IDS = torch.arange(1, 13).view(2, 6)


class Tokens:
    """A tokenizer of a number of tokens, as `save` sees it."""

    def __init__(self, size: int, num_added_tokens: int = 0) -> None:
        self.size, self.num_added_tokens = size, num_added_tokens

    def __len__(self) -> int:
        return self.size

    def contents(self) -> dict[str, str]:
        return {"vocab.txt": "a"}


def tiny(**changes: Any) -> Any:
    return minitx.from_config(BERT | changes, seed=1).eval()


def test_a_compiled_model_is_refused_with_a_hint(tmp_path: Path) -> None:
    compiled = torch.compile(tiny(), backend="eager")
    with pytest.raises(TypeError, match=r"pass model\._orig_mod") as error:
        minitx.save(compiled, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_another_library_is_refused(tmp_path: Path) -> None:
    for tokenizer in (SimpleNamespace(contents="text"), object()):
        with pytest.raises(TypeError, match=r"from minitx\.load_tokenizer"):
            minitx.save(tiny(), tmp_path / "out", tokenizer=tokenizer)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"61 tokens.* 60 embeddings.*resize_token_embeddings"):
        minitx.save(tiny(), tmp_path / "out", tokenizer=Tokens(61, 1))
    assert not (tmp_path / "out").exists()
    minitx.save(tiny(), tmp_path / "out", tokenizer=Tokens(59, 1))
    minitx.save(tiny(), tmp_path / "out", tokenizer=Tokens(61))  # so are some published files
    assert (tmp_path / "out" / "vocab.txt").read_text() == "a"


def test_a_stale_pooling_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny()
    minitx.save(model, tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    minitx.save(model, tmp_path)  # without modules.json nothing reads it
    model.checkpoint.sentence_files = {"modules.json": b"[]"}
    with pytest.raises(FileExistsError, match=r"1_Pooling/config\.json"):
        minitx.save(model, tmp_path)


def test_stale_shards_in_subfolders_are_refused_by_name(tmp_path: Path) -> None:
    model = tiny()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.safetensors").write_bytes(b"")
    index = {"weight_map": {"x": "parts/a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileExistsError, match=r"parts/a\.safetensors"):
        minitx.save(model, tmp_path)


def test_a_layer_used_twice_is_named_as_such(tmp_path: Path) -> None:
    model = tiny()
    model.encoder.layers[1] = model.encoder.layers[0]
    with pytest.raises(ValueError, match=r"layers\.1 is the same module as encoder\.layers\.0"):
        minitx.save(model, tmp_path)


def test_a_plain_tensor_in_the_place_of_a_parameter_is_named_without_its_values(tmp_path: Path) -> None:
    model = tiny()
    norm = model.encoder.layers[0].output.layer_norm
    values = norm.weight.detach()
    del norm.weight
    norm.weight = values
    with pytest.raises(ValueError, match=r"layer_norm\.weight is a plain tensor, but .* a parameter"):
        minitx.save(model, tmp_path)


def test_a_dropout_of_another_class_is_not_saved_as_if_it_were_dropout(tmp_path: Path) -> None:
    class Double(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    model = tiny()
    model.embedder.dropout = Double()
    with pytest.raises(ValueError, match=r"embedder\.dropout is Double"):
        minitx.save(model, tmp_path)


@pytest.mark.parametrize(("config", "head"), [(GPT2, "causal-lm"), (BERT, "masked-lm")])
def test_an_untied_head_is_stated_in_the_config(tmp_path: Path, config: Any, head: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    model = minitx.from_config(config, head=head, seed=1).eval()
    projection = model.head.projection
    projection.weight = nn.Parameter(torch.randn_like(projection.weight))
    minitx.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    expected = model(IDS).logits
    assert torch.equal(load(tmp_path)(IDS).logits, expected)
    oracle = (AutoModelForCausalLM if head == "causal-lm" else AutoModelForMaskedLM).from_pretrained(tmp_path)
    torch.testing.assert_close(oracle.eval()(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_untied_head_whose_file_stored_both_names(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(GPT2, head="causal-lm", seed=1), tmp_path / "one")
    tensors = load_file(tmp_path / "one" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, tmp_path / "one" / "model.safetensors", {"format": "pt"})
    model = load(tmp_path / "one")
    minitx.save(model, tmp_path / "tied")
    assert "tie_word_embeddings" not in json.loads((tmp_path / "tied" / "config.json").read_text())
    model.head.projection.weight = nn.Parameter(torch.randn_like(model.head.projection.weight))
    minitx.save(model, tmp_path / "untied")
    assert json.loads((tmp_path / "untied" / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(load(tmp_path / "untied")(IDS).logits, model(IDS).logits)


def test_a_tied_head_leaves_the_config_as_it_was(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(GPT2, head="causal-lm", seed=1), tmp_path)
    assert "tie_word_embeddings" not in json.loads((tmp_path / "config.json").read_text())


def test_a_native_config_keeps_the_keys_that_were_ignored(tmp_path: Path) -> None:
    model = minitx.from_config(BERT | {"of_mine": 3}, seed=1, ignore_keys=("of_mine",))
    for folder in ("a", "b"):
        minitx.save(model, tmp_path / folder, model_type="minitx")
        config = json.loads((tmp_path / folder / "config.json").read_text())
        assert config["ignored_keys"] == {"of_mine": 3}
        model = load(tmp_path / folder)


def test_num_labels_that_contradict_a_native_language_model_are_refused(tmp_path: Path) -> None:
    minitx.save(minitx.from_config(BERT, head="masked-lm", seed=1), tmp_path, model_type="minitx")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_labels": 7}))
    with pytest.raises(ValueError, match=r"num_labels=7 must be 60"):
        load(tmp_path)
