"""Disagreements with transformers that readers of the code found; each was wrong once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import minitx
from minitx.inspect import verify
from tests.parity.cases import BY_NAME
from tests.parity.reference import pair, reference_model, text

BERT = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 20,
}


def rewrite(folder: Path, *drop: str, **more: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in drop} | more
    (folder / "config.json").write_text(json.dumps(config))


def complete(report: dict[str, Any]) -> bool:
    return not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_head_that_the_reference_would_draw_at_random_is_not_compared(root: Path, tmp_path: Path) -> None:
    """DeBERTa-v3's own files name the head as the original code did, and do not say so in the config."""
    reference, _ = pair("deberta-v2-content-only", "masked-lm", torch.float32, root)
    reference.save_pretrained(tmp_path)
    rewrite(tmp_path, "legacy", "architectures")
    inputs = text(BY_NAME["deberta-v2-content-only"], 2, 9)
    model = minitx.load(tmp_path)
    assert model.task == "masked-lm"
    with torch.inference_mode():
        assert torch.allclose(model(**inputs).logits, reference(**inputs).logits, atol=1e-5)
    with pytest.raises(ValueError, match=r'transformers does not find cls\.predictions.*the head "none"'):
        verify(tmp_path)
    assert verify(tmp_path, head="none").ok


def test_the_original_head_of_deberta_is_tied_whatever_the_config_says(tmp_path: Path) -> None:
    case = BY_NAME["deberta-v2-content-only"]
    reference = reference_model(case, "masked-lm", torch.float32, tie_word_embeddings=False)
    reference.save_pretrained(tmp_path)
    inputs = text(case, 2, 9)
    with torch.inference_mode():
        found = minitx.load(tmp_path)(**inputs).logits
        assert torch.allclose(found, reference(**inputs).logits, atol=1e-5)


def test_files_of_the_pre_training_are_for_masked_words(tmp_path: Path) -> None:
    """They hold two heads, and old ones no `architectures`."""
    config = transformers.BertConfig(**{k: v for k, v in BERT.items() if k != "model_type"})
    transformers.BertForPreTraining(config).save_pretrained(tmp_path)
    rewrite(tmp_path, "architectures")
    assert minitx.load(tmp_path).task == "masked-lm"


def test_a_span_head_has_two_labels_whatever_the_config_says(tmp_path: Path) -> None:
    minitx.save(minitx.from_config({**BERT, "num_labels": 5}, head="question-answering", seed=0), tmp_path)
    _, report = transformers.BertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert complete(report)


def test_a_fresh_model_writes_down_its_padding_id(tmp_path: Path) -> None:
    """The reference's default for a missing one is an id far behind a small vocabulary."""
    minitx.save(minitx.from_config({**BERT, "model_type": "modernbert"}, seed=0), tmp_path)
    _, report = transformers.ModernBertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert complete(report)


def test_names_of_labels_stay_with_as_many_labels_and_go_with_others(tmp_path: Path) -> None:
    named = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    config = {**BERT, **named, "problem_type": "multi_label_classification"}
    minitx.save(minitx.from_config(config, head="sequence-classification", seed=0), tmp_path)
    same = minitx.load(tmp_path, init_head=True, num_labels=2)
    assert same.checkpoint.config["id2label"] == named["id2label"]
    other = minitx.load(tmp_path, init_head=True, num_labels=3)
    assert "id2label" not in other.checkpoint.config
    assert other.head.config.problem_type is None


def test_a_class_that_minitx_does_not_know_is_no_class_without_a_head() -> None:
    with pytest.raises(ValueError, match=r"BertForCausalLM, which minitx does not know; pass head="):
        minitx.from_config({**BERT, "architectures": ["BertForCausalLM"]})


def test_drawing_a_tied_model_leaves_the_padding_row_empty() -> None:
    model = minitx.from_config({**BERT, "pad_token_id": 0}, head="masked-lm", seed=0)
    assert not model.embedder.word_emb.weight[0].any()


def test_padding_is_the_same_in_both_attentions_without_position_scores() -> None:
    config = {**BERT, "model_type": "deberta-v2", "relative_attention": True, "pos_att_type": []}
    model, ids = minitx.from_config(config, seed=0).eval(), torch.randint(2, 60, (2, 8))
    mask = torch.ones(2, 8)
    mask[0, 5:] = 0
    fused, plain = (model.set_attention(name)(ids, mask).last_hidden_state for name in ("sdpa", "eager"))
    assert torch.allclose(fused, plain, atol=1e-5)


def test_a_save_that_dies_between_two_moves_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minitx.save(minitx.from_config(BERT, seed=0), tmp_path, max_shard_size=10_000)
    moved: list[str] = []

    def move(source: Path, place: Path) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(place.name)
        Path(source).rename(place)

    new = minitx.from_config(BERT, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("minitx.transaction.os.replace", move)
        with pytest.raises(KeyboardInterrupt):
            minitx.save(new, tmp_path, max_shard_size=10_000)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(moved) == 2
    assert names == {*moved, ".minitx-save"}
    assert torch.equal(minitx.load(tmp_path).embedder.word_emb.weight, new.embedder.word_emb.weight)
    assert ".minitx-save" not in {path.name for path in tmp_path.iterdir()}
