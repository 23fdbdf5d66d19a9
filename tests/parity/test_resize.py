"""Another vocabulary size: what minitx saves after it, transformers loads with equal logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import minitx
from minitx.architectures import architecture
from tests.parity.cases import BY_NAME
from tests.parity.reference import CASES_AND_HEADS, logits_of, reference_model, text

FIRST = {case.model_type: case.name for case in reversed(BY_NAME.values())}
HEAD = "cls.predictions.decoder.weight"
HEADS = ("masked-lm", "causal-lm", "seq2seq-lm", "sequence-classification")
RESIZED = [(name, task) for name, task in CASES_AND_HEADS if name in FIRST.values() and task in HEADS]
RESIZED += [("bert-five-labels", "masked-lm")]


@pytest.mark.parametrize("init", ["mean", "normal"])
@pytest.mark.parametrize(("name", "task"), RESIZED)
def test_transformers_agrees_after_resizing(name: str, task: str, init: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    reference_model(case, task, torch.float32).save_pretrained(tmp_path / "source")
    model = minitx.load(tmp_path / "source")
    inputs = text(case, 2, 9, task)
    with torch.inference_mode():
        before = model(**inputs).logits
    last = model.config.decoder_inputs if len(model.families) > 1 else None
    old = (last or model.config.inputs).vocab_size
    size = old + 7
    side = None
    both = [model.config.inputs.vocab_size, getattr(model.config.decoder_inputs, "vocab_size", old)]
    if len(model.families) > 1 and not model.config.shared_embeddings and both[0] != both[1]:
        side = "decoder"
    ties = [name for name in model.ties if model.get_parameter(name) is model.get_parameter(model.ties[name])]
    model.resize_token_embeddings(size, init=init, side=side)
    assert all(model.get_parameter(name) is model.get_parameter(model.ties[name]) for name in ties)
    minitx.save(model, tmp_path / "saved")
    loaded = minitx.load(tmp_path / "saved")
    kind = getattr(transformers, architecture(case.model_type).class_name(case.model_type, task))
    reference, report = kind.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    reference.config._experts_implementation = "eager"
    if "input_ids" in inputs and side is None:
        inputs["input_ids"][0, 3] = size - 1
    elif "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"][0, 3] = size - 1
    with torch.inference_mode():
        ours, expected = model(**inputs), logits_of(reference.eval()(**inputs))[0]
        assert torch.equal(loaded(**inputs).logits, ours.logits)
    assert torch.allclose(ours.logits, expected, atol=1e-4)
    if task != "sequence-classification":
        assert ours.logits.shape[-1] == size == before.shape[-1] + 7


def tiny(name: str = "bert", task: str = "masked-lm", **changes: Any) -> Any:
    config = reference_model(BY_NAME[name], task).config.to_dict()
    return minitx.from_config({**config, **changes}, head=task, seed=0).eval()


def test_new_entries_are_the_mean_or_drawn() -> None:
    model = tiny()
    old = model.embedder.word_emb.weight.detach().clone()
    model.head.projection.bias.data.uniform_()
    bias = model.head.projection.bias.detach().clone()
    model.resize_token_embeddings(103)
    new = model.embedder.word_emb.weight
    assert torch.equal(new[:99], old)
    assert torch.allclose(new[99:], old.mean(0).expand(4, -1))
    assert torch.allclose(model.head.projection.bias[99:], bias.mean().expand(4))
    drawn, again, other = (
        tiny().resize_token_embeddings(2000, init="normal", seed=s).embedder.word_emb.weight[99:]
        for s in (1, 1, 2)
    )
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert abs(float(drawn.detach().std()) - model.config.initializer_range) < 0.002


def test_fewer_tokens_and_the_same_number() -> None:
    model = tiny()
    old = model.embedder.word_emb.weight.detach().clone()
    assert torch.equal(model.resize_token_embeddings(99).embedder.word_emb.weight, old)
    model.resize_token_embeddings(50)
    assert torch.equal(model.embedder.word_emb.weight, old[:50])
    with pytest.raises(ValueError, match=r"from 0 to 49|less than 50"):
        model(torch.tensor([[60]]))


def test_a_resized_model_trains(tmp_path: Path) -> None:
    model = tiny().train().resize_token_embeddings(110)
    ids = torch.tensor([[101, 105, 109]])
    output = model(ids, labels=ids)
    output.loss.backward()
    assert output.logits.shape == (1, 3, 110)
    assert model.embedder.word_emb.weight.grad.shape == (110, 24)


def test_the_head_that_is_not_loaded_is_not_saved_with_another_size(tmp_path: Path) -> None:
    config = reference_model(BY_NAME["bert-five-labels"], "masked-lm").config
    transformers.BertForPreTraining(config).save_pretrained(tmp_path / "source")
    model = minitx.load(tmp_path / "source").resize_token_embeddings(130)
    minitx.save(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["vocab_size"] == 130
    reference, report = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not report["mismatched_keys"]
    assert not report["missing_keys"]
    assert reference.get_input_embeddings().num_embeddings == 130


def test_wrong_arguments_of_resizing() -> None:
    model = tiny()
    for arguments, message in (
        ({"size": 0}, "size=0 must be"),
        ({"size": 2.5}, r"size=2\.5 must be an integer"),
        ({"size": 9, "init": "zero"}, "init='zero' must be"),
        ({"size": 9, "seed": 3}, "seed=3 must be None"),
        ({"size": 9, "seed": -3, "init": "normal"}, "seed=-3 must be"),
        ({"size": 9, "side": "encoder"}, "side='encoder' must be None"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.resize_token_embeddings(**arguments)
    with pytest.raises(ValueError, match=r"size=1 must be more than pad_token_id=1"):
        tiny("roberta").resize_token_embeddings(1)
    assert model.embedder.word_emb.num_embeddings == 99


def test_a_native_model_is_resized(tmp_path: Path) -> None:
    model = tiny()
    minitx.save(model, tmp_path / "one", model_type="minitx")
    model = minitx.load(tmp_path / "one").resize_token_embeddings(120)
    minitx.save(model, tmp_path / "two")
    ids = torch.tensor([[3, 119, 4]])
    assert torch.equal(minitx.load(tmp_path / "two")(ids).logits, model(ids).logits)


def test_a_tokenizer_and_a_model_grow_together(tmp_path: Path) -> None:
    from tests.parity.test_save_everything import add_tokenizer

    source, saved = tmp_path / "source", tmp_path / "saved"
    reference_model(BY_NAME["llama"], "causal-lm", torch.float32).save_pretrained(source)
    add_tokenizer(source)
    tokenizer = minitx.load_tokenizer(source)
    assert tokenizer.add_tokens(["<user>", "<bot>"], special=True) == 2
    model = minitx.load(source).resize_token_embeddings(120)
    minitx.save(model, saved, tokenizer=tokenizer)
    ids = torch.tensor([tokenizer.encode("<user> w3 <bot>")])
    theirs = transformers.AutoTokenizer.from_pretrained(saved)
    assert theirs("<user> w3 <bot>").input_ids == ids[0].tolist()
    reference = transformers.LlamaForCausalLM.from_pretrained(saved).eval()
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, reference(ids).logits, atol=1e-5)


def test_special_tokens_stay() -> None:
    for key in ("eos_token_id", "bos_token_id", "eos_token_id of several"):
        value = [3, 50] if "several" in key else 50
        model = tiny("llama", "causal-lm", bos_token_id=1, eos_token_id=2, pad_token_id=0)
        model.checkpoint.config |= {key.split()[0]: value}
        with pytest.raises(ValueError, match=rf"size=40 must be more than {key.split()[0]}=50"):
            model.resize_token_embeddings(40)
        assert model.embedder.word_emb.num_embeddings == 99
        assert model.resize_token_embeddings(51).embedder.word_emb.num_embeddings == 51
    t5 = tiny("t5", "seq2seq-lm", decoder_start_token_id=50)
    with pytest.raises(ValueError, match="size=40 must be more than decoder_start_token_id=50"):
        t5.resize_token_embeddings(40)


@pytest.mark.filterwarnings("ignore:the file has tensors that the model does not use")
def test_unused_tensors_that_are_no_tables_stay(tmp_path: Path) -> None:
    """A tensor whose first dimension happens to be the size of the vocabulary."""
    minitx.save(tiny(vocab_size=24, hidden_size=24, num_attention_heads=4), tmp_path / "one")
    path, config = tmp_path / "one" / "model.safetensors", tmp_path / "one" / "config.json"
    tensors = load_file(path) | {name: torch.ones(24, 24) for name in ("cls.species.weight", HEAD)}
    save_file(tensors, path, metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["BertModel"]}))
    model = minitx.load(tmp_path / "one").resize_token_embeddings(30)
    shapes = {name: x.shape[0] for name, x in model.checkpoint.unused_tensors.items()}
    assert {name for name, size in shapes.items() if size == 30} == {HEAD, "cls.predictions.bias"}
    assert {shapes["cls.species.weight"], shapes["cls.predictions.transform.dense.weight"]} == {24}
