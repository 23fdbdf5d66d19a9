"""load -> save -> load for every kind of folder: what the source does, the saved folder does, there too."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import minitx
from minitx.architectures import architecture
from tests.parity.cases import BY_NAME
from tests.parity.reference import logits_of, reference_model, text

GENERATES = ("causal-lm", "seq2seq-lm")


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Changes keys of a JSON file; None removes a key."""
    path = folder / name
    values = {**(json.loads(path.read_text()) if path.is_file() else {}), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def generation(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "generation_config.json").write_text(json.dumps(settings))

    return change


def old_config(**settings: Any) -> Callable[[Path], None]:
    """A folder from the time before generation_config.json."""

    def change(folder: Path) -> None:
        (folder / "generation_config.json").unlink(missing_ok=True)
        edit(folder, "config.json", **settings)

    return change


def old_decoder_config(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "generation_config.json").unlink(missing_ok=True)
        decoder = json.loads((folder / "config.json").read_text())["decoder"]
        edit(folder, "config.json", decoder=decoder | settings, num_beams=2)

    return change


def nothing(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)


def pickled(folder: Path) -> None:
    nothing(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def old_names(folder: Path) -> None:
    """TensorFlow's names of norms."""
    nothing(folder)
    stored = load_file(folder / "model.safetensors")
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in stored.items():
        new = next((name.replace(a, b) for a, b in names.items() if name.endswith(a)), name)
        renamed[new] = tensor
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


def labelled(folder: Path) -> None:
    nothing(folder)
    names = {"0": "no", "1": "yes"}
    edit(folder, "config.json", id2label=names, label2id={"no": 0, "yes": 1})
    edit(folder, "config.json", problem_type="multi_label_classification")


BEAMS = {"num_beams": 3, "max_length": 12, "length_penalty": 0.5, "no_repeat_ngram_size": 2}

# kind of folder -> case, task, dtype, size of a shard, change of the folder
KINDS: dict[str, tuple[str, str, torch.dtype, str, Callable[[Path], None]]] = {
    "greedy": ("llama", "causal-lm", torch.float32, "1GB", generation(max_new_tokens=6)),
    "max_length alone": ("llama", "causal-lm", torch.float32, "1GB", generation(max_length=14)),
    "beams": ("gpt2", "causal-lm", torch.float32, "1GB", generation(**BEAMS)),
    "penalty": (
        "gpt2",
        "causal-lm",
        torch.float32,
        "1GB",
        generation(repetition_penalty=1.3, max_new_tokens=6, min_new_tokens=4, suppress_tokens=[3, 4]),
    ),
    "old config": ("gpt2", "causal-lm", torch.float32, "1GB", old_config(max_length=15)),
    "old config with beams": ("llama", "causal-lm", torch.float32, "1GB", old_config(**BEAMS)),
    "old summariser": (
        "bart",
        "seq2seq-lm",
        torch.float32,
        "1GB",
        old_config(**BEAMS, early_stopping=True, forced_eos_token_id=2, forced_bos_token_id=5),
    ),
    "old pegasus": ("pegasus", "seq2seq-lm", torch.float32, "1GB", old_config(num_beams=2, max_length=9)),
    "old decoder": ("bert-bert", "seq2seq-lm", torch.float32, "1GB", old_decoder_config(max_length=9)),
    "translator": (
        "m2m_100",
        "seq2seq-lm",
        torch.float32,
        "1GB",
        generation(
            num_beams=2, max_length=9, forced_bos_token_id=7, decoder_start_token_id=2, eos_token_id=2
        ),
    ),
    "shards": ("qwen3", "causal-lm", torch.float32, "4KB", generation(max_new_tokens=5)),
    "bfloat16": ("llama", "causal-lm", torch.bfloat16, "1GB", generation(max_new_tokens=5)),
    "pickled": ("bert", "masked-lm", torch.float32, "1GB", pickled),
    "old names": ("bert", "masked-lm", torch.float32, "1GB", old_names),
    "labels": ("roberta", "sequence-classification", torch.float32, "1GB", labelled),
    "tokens": ("distilbert", "token-classification", torch.float32, "1GB", nothing),
    "answers": ("electra", "question-answering", torch.float32, "1GB", nothing),
    "choices": ("albert", "multiple-choice", torch.float32, "1GB", nothing),
    "no head": ("mpnet", "none", torch.float32, "1GB", nothing),
}


def add_tokenizer(folder: Path) -> None:
    """A list of words, which minitx loads with the settings of any tokenizer but that of translators."""
    words = {f"w{i}": i for i in range(2, 30)} | {"[UNK]": 0, "[PAD]": 1}
    backend = Backend(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens(["new one"])
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 20}
    settings |= {"pad_token": "[PAD]", "eos_token": "w2", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def in_transformers(folder: Path, name: str, task: str, dtype: torch.dtype) -> Any:
    kind = BY_NAME[name].model_type
    model = getattr(transformers, architecture(kind).class_name(kind, task))
    reference, report = model.from_pretrained(folder, output_loading_info=True, dtype=dtype)
    assert not any(report[key] for key in ("missing_keys", "mismatched_keys")), report
    return reference.eval()


def generated(model: Any, inputs: torch.Tensor) -> list[list[int]]:
    """New tokens of rows of one length, without what follows the end token in a batch."""
    return [row.tolist() for row in minitx.generate(model, inputs.tolist(), "checkpoint").sequences]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_behaves_as_its_source(kind: str, tmp_path: Path) -> None:
    name, task, dtype, size, change = KINDS[kind]
    source, saved = tmp_path / "source", tmp_path / "saved"
    reference_model(BY_NAME[name], task, dtype).save_pretrained(source, max_shard_size=size)
    change(source)
    add_tokenizer(source)
    model, tokenizer = minitx.load(source), minitx.load_tokenizer(source)
    minitx.save(model, saved, tokenizer=tokenizer)
    again, words = minitx.load(saved), minitx.load_tokenizer(saved)

    assert json.loads((saved / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    assert again.checkpoint.id2label == model.checkpoint.id2label
    assert words.encode("w3 new one w9") == tokenizer.encode("w3 new one w9")
    assert words.pad_token_id == tokenizer.pad_token_id
    assert words.model_max_length == tokenizer.model_max_length
    inputs = text(BY_NAME[name], 2, 6, task)
    reference, theirs = (in_transformers(folder, name, task, dtype) for folder in (source, saved))
    with torch.inference_mode():
        before, after = model(**inputs), again(**inputs)
        first, second = reference(**inputs), theirs(**inputs)
    if task != "none":
        for a, b, c, d in zip(*map(logits_of, (before, after, first, second)), strict=True):
            assert torch.equal(a, b)
            assert torch.allclose(c, d, atol=1e-6)
            assert dtype != torch.float32 or torch.allclose(a, c, atol=1e-4)
    if task not in GENERATES:
        return
    ids = torch.arange(10, 22).view(2, 6)
    ours = generated(model, ids)
    assert generated(again, ids) == ours
    for made in (reference, theirs) if dtype == torch.float32 else ():
        for row, tokens in zip(ids, ours, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = made.generate(row[None], attention_mask=torch.ones(1, 6, dtype=torch.long))[0]
            begun = 6 if task == "causal-lm" else 1
            assert found[begun:].tolist() == tokens


def test_a_changed_source_keeps_what_was_ignored(tmp_path: Path) -> None:
    source, saved = tmp_path / "source", tmp_path / "saved"
    reference_model(BY_NAME["bert"], "masked-lm", torch.float32).save_pretrained(source)
    edit(source, "config.json", of_mine={"a": 1})
    model = minitx.load(source, ignore_keys=("of_mine",))
    minitx.save(model, saved)
    assert json.loads((saved / "config.json").read_text())["of_mine"] == {"a": 1}
    again = minitx.load(saved, ignore_keys=("of_mine",))
    ids = torch.arange(1, 9)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_a_native_model_keeps_the_settings_of_its_source(tmp_path: Path) -> None:
    for kind in ("old summariser", "max_length alone"):
        name, task, dtype, size, change = KINDS[kind]
        source, saved = tmp_path / kind, tmp_path / f"{kind} saved"
        reference_model(BY_NAME[name], task, dtype).save_pretrained(source, max_shard_size=size)
        change(source)
        model = minitx.load(source)
        minitx.save(model, saved, model_type="minitx")
        ids = torch.arange(10, 22).view(2, 6)
        assert generated(minitx.load(saved), ids) == generated(model, ids)


def test_a_prompt_as_long_as_max_length_is_refused(tmp_path: Path) -> None:
    """transformers refuses it too."""
    source = tmp_path / "source"
    reference_model(BY_NAME["llama"], "causal-lm", torch.float32).save_pretrained(source)
    generation(max_length=6)(source)
    with pytest.raises(ValueError, match=r"checkpoint's max_length=6 leaves none after a prompt of 6 tokens"):
        minitx.generate(minitx.load(source), [[3, 4, 5, 6, 7, 8]], "checkpoint")
    with pytest.raises(ValueError, match="max_length"):
        in_transformers(source, "llama", "causal-lm", torch.float32).generate(torch.arange(3, 9)[None])


def test_settings_of_an_old_config_are_found_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    reference_model(BY_NAME["gpt2"], "causal-lm", torch.float32).save_pretrained(source)
    nothing(source)
    with pytest.raises(FileNotFoundError, match="choose a strategy"):
        minitx.generation_settings(source)
    edit(source, "config.json", num_beams=4, max_length=9, eos_token_id=6)
    settings = minitx.generation_settings(source)
    assert (settings.strategy, settings.max_length) == (minitx.Beam(num_beams=4), 9)
    assert settings.stop == minitx.Stop(eos=(6,))
    edit(source, "config.json", num_beams="4")
    with pytest.raises(ValueError, match=r"config\.json: .*num_beams='4'"):
        minitx.generation_settings(source)


@pytest.mark.parametrize("searches", [True, False])
def test_the_number_of_sequences_is_the_checkpoints(tmp_path: Path, searches: bool) -> None:
    source = tmp_path / "source"
    reference_model(BY_NAME["llama"], "causal-lm", torch.float32).save_pretrained(source)
    how = {"num_beams": 3} if searches else {"do_sample": True, "top_k": 1}
    generation(num_return_sequences=2, max_new_tokens=4, eos_token_id=1, **how)(source)
    result = minitx.generate(minitx.load(source), [[3, 4, 5]], "checkpoint")
    theirs = in_transformers(source, "llama", "causal-lm", torch.float32).generate(torch.tensor([[3, 4, 5]]))
    assert [[3, 4, 5, *row.tokens.tolist()] for row in result] == theirs.tolist()
    one = minitx.generate(minitx.load(source), [[3, 4, 5]], "checkpoint", num_samples=1)
    assert [row.tokens.tolist() for row in one] == [result[0].tokens.tolist()]
