"""`minitx.load` and `minitx.save` undo each other: tensors, names, dtypes, files and config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.architectures import REGISTRY, architecture
from tests.parity.cases import CASES
from tests.unit.calls import run

CONFIGS = {case.name: {**case.config, "model_type": case.model_type} for case in CASES}
BERT: dict[str, Any] = CONFIGS["bert"]
WORD = "embeddings.word_embeddings.weight"
GLUED = "encoder-decoder"  # of which Hugging Face has a class with a head alone
HEADLESS = {True: (), False: ("none",)}
EVERY_HEAD = [
    (name, head)
    for name, config in CONFIGS.items()
    for head in [*architecture(config["model_type"]).head_weights, *HEADLESS[config["model_type"] == GLUED]]
]


def test_every_registered_architecture_is_here() -> None:
    assert {config["model_type"] for config in CONFIGS.values()} == set(REGISTRY)


def random(config: Mapping[str, Any], head: str, dtype: torch.dtype = torch.float32) -> minitx.EncoderModel:
    """A model whose every weight is random: zeros and ones would hide what is swapped or left out."""
    model = minitx.from_config(config, head=head, dtype=dtype, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
    return model


def written(folder: Path, head: str = "masked-lm", config: Mapping[str, Any] = BERT, **kwargs: Any) -> Path:
    minitx.save(random(config, head), folder, **kwargs)
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def rewrite(folder: Path, tensors: Mapping[str, Tensor], **changes: Any) -> Path:
    """Puts other tensors into a folder, and other values into its config.json; None drops a key."""
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bytes."""
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert tensor.shape == b[name].shape, name
        assert raw(tensor) == raw(b[name]), name


def raw(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return content


def round_trip(folder: Path, target: Path, **kwargs: Any) -> minitx.EncoderModel:
    """Loads, saves and compares; the files are equal byte for byte, down to the config's keys."""
    model = minitx.load(folder, **kwargs)
    minitx.save(model, target)
    same(stored(folder), stored(target))
    assert files(folder) == files(target)
    assert config_of(folder) == config_of(target)
    return model


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def ids(config: Mapping[str, Any] = BERT) -> Tensor:
    return torch.arange(12).reshape(2, 6) % (config["vocab_size"] - 5) + 4


def outputs(model: minitx.EncoderModel) -> list[Tensor]:
    out = run(model, ids())
    found = [out.last_hidden_state, out.pooler_output, out.logits, out.start_logits, out.end_logits]
    return [tensor for tensor in found if tensor is not None]


def add(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors, and some constants among them."""
    return {**tensors, **{name: torch.arange(5)[None] for name in names}}


# --- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), EVERY_HEAD)
def test_round_trip(tmp_path: Path, name: str, head: str) -> None:
    model = random(CONFIGS[name], head)
    minitx.save(model, tmp_path / "one")
    again = round_trip(tmp_path / "one", tmp_path / "two")  # head=None: what config.json names
    assert again.task == (None if head == "none" else head)
    assert not again.training
    same(model.state_dict(), again.state_dict())
    for a, b in zip(outputs(model), outputs(again), strict=True):
        # where a tensor lies in memory decides how its sums are split, and so the last digits
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    first, second = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("one", "two"))
    assert first == second
    config = config_of(tmp_path / "one")
    kind = CONFIGS[name]["model_type"]
    assert config["architectures"] == [architecture(kind).class_name(kind, again.task or "none")]
    for key, value in CONFIGS[name].items():
        # Hugging Face counts labels by their names
        if key == "num_labels" and head == "question-answering":
            continue  # a span has two ends, however many labels the other heads have
        assert (len(config["id2label"]) if key == "num_labels" else config[key]) == value


@pytest.mark.parametrize("head", ["masked-lm", "sequence-classification", "none"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(tmp_path: Path, dtype: torch.dtype, head: str) -> None:
    minitx.save(random(BERT, head, dtype), tmp_path / "one")
    assert {tensor.dtype for tensor in stored(tmp_path / "one").values()} == {dtype}
    assert config_of(tmp_path / "one")["dtype"] == str(dtype).removeprefix("torch.")
    model = round_trip(tmp_path / "one", tmp_path / "two")
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_mixed_dtypes(tmp_path: Path) -> None:
    tensors = stored(written(tmp_path / "one"))
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
    mixed = {name: tensors[name].to(kinds[i % 4]) for i, name in enumerate(sorted(tensors))}
    model = round_trip(rewrite(tmp_path / "one", mixed), tmp_path / "two")
    assert len({p.dtype for p in model.parameters()}) == 4


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_config_says_the_dtype_under_its_own_key(tmp_path: Path, key: str) -> None:
    folder = written(tmp_path / "one")
    half = {name: tensor.half() for name, tensor in stored(folder).items()}
    rewrite(folder, half, **{key: "float16"})
    round_trip(folder, tmp_path / "two")
    minitx.save(minitx.load(folder, dtype=torch.bfloat16), tmp_path / "three")
    assert config_of(tmp_path / "three")[key] == "bfloat16"


def test_dtype_on_loading(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = add(stored(folder), ["bert.embeddings.position_ids"])
    rewrite(folder, tensors)
    model = minitx.load(folder, dtype=torch.float16)
    minitx.save(model, tmp_path / "two")
    expected = {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}
    same(stored(tmp_path / "two"), expected)


@pytest.mark.parametrize("size", [1, 3_000, 9_000, 40_000])
def test_shards(tmp_path: Path, size: int) -> None:
    folder = written(tmp_path / "one", max_shard_size=size)
    tensors = stored(folder)
    same(tensors, stored(written(tmp_path / "whole")))
    for path in folder.glob("*.safetensors"):
        held = load_file(path)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= size
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    assert set(index["weight_map"].values()) == {p.name for p in folder.glob("*.safetensors")}
    round_trip(folder, tmp_path / "two")
    assert config_of(folder) == config_of(tmp_path / "whole")
    for name in files(folder):
        assert (folder / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_shards_become_one_file_only_if_asked(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", max_shard_size=9_000)
    minitx.save(minitx.load(folder), tmp_path / "two", max_shard_size=10**9)
    assert files(tmp_path / "two") == ["config.json", "model.safetensors"]
    same(stored(folder), stored(tmp_path / "two"))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"max_shard_size={size} must be "):
            minitx.save(minitx.load(folder), tmp_path / "three", max_shard_size=size)
    assert not (tmp_path / "three").exists()


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    seen: list[int] = []
    folder = written(tmp_path / "one", max_shard_size=9_000, progress=seen.append)
    assert len(seen) == len(stored(folder))
    assert sum(seen) == sum(t.nbytes for t in stored(folder).values())


def test_metadata(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    notes = {"format": "pt", "trained by": "someone", "note": "é"}
    save_file(stored(folder), folder / "model.safetensors", notes)
    round_trip(folder, tmp_path / "two")
    for name in ("one", "two"):
        with safe_open(tmp_path / name / "model.safetensors", "pt") as file:
            assert file.metadata() == notes


def test_a_model_that_nobody_loaded_is_saved_with_its_own_config(tmp_path: Path) -> None:
    model = minitx.EncoderModel(random(BERT, "none").config)
    minitx.save(model, tmp_path)
    assert minitx.load(tmp_path).config == model.config


def test_the_mode_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    for path in written(tmp_path / "one").iterdir():
        assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["masked-lm", "sequence-classification", "none"])
def test_prefix_present_or_missing(tmp_path: Path, head: str) -> None:
    folder = written(tmp_path / "one", head)
    before = minitx.load(folder)
    tensors = stored(folder)
    if head == "none":
        assert not any(name.startswith("bert.") for name in tensors)
        changed = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    else:
        assert any(name.startswith("bert.") for name in tensors)
        changed = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    model = round_trip(rewrite(folder, changed), tmp_path / "two")
    same(before.state_dict(), model.state_dict())


def test_gamma_and_beta(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    before = minitx.load(folder)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in stored(folder).items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in old) == 2 * (2 * 3 + 2)
    model = round_trip(rewrite(folder, old), tmp_path / "two")
    same(before.state_dict(), model.state_dict())


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("head", ["masked-lm", "none"])
def test_stored_buffers_are_kept(tmp_path: Path, prefix: str, head: str) -> None:
    folder = written(tmp_path / "one", head)
    names = [f"{prefix}embeddings.position_ids", f"{prefix}embeddings.token_type_ids"]
    rewrite(folder, add(stored(folder), names))
    round_trip(folder, tmp_path / "two")


@pytest.mark.parametrize("bias", ["cls.predictions.bias", "cls.predictions.decoder.bias", "both"])
def test_the_bias_of_the_words_under_either_name(tmp_path: Path, bias: str) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    values = tensors.pop("cls.predictions.bias")
    names = ["cls.predictions.bias", "cls.predictions.decoder.bias"] if bias == "both" else [bias]
    model = round_trip(rewrite(folder, {**tensors, **{n: values.clone() for n in names}}), tmp_path / "two")
    assert torch.equal(model.head.projection.bias, values)


def test_two_names_with_different_values_both_stay(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"] + 1
    round_trip(rewrite(folder, tensors), tmp_path / "two")


# --- tied weights ----------------------------------------------------------------------------------

DECODER = "cls.predictions.decoder.weight"


def test_tied_and_absent(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    assert DECODER not in stored(folder)
    model = round_trip(folder, tmp_path / "two")
    assert model.head.projection.weight is model.embedder.word_emb.weight


def test_tied_and_present(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    rewrite(folder, {**tensors, DECODER: tensors[f"bert.{WORD}"].clone()})
    model = round_trip(folder, tmp_path / "two")
    assert model.head.projection.weight is model.embedder.word_emb.weight
    with torch.no_grad():
        model.embedder.word_emb.weight.add_(1)
    minitx.save(model, tmp_path / "three")
    again = stored(tmp_path / "three")
    assert torch.equal(again[DECODER], again[f"bert.{WORD}"])
    assert not torch.equal(again[DECODER], tensors[f"bert.{WORD}"])


def test_tied_but_different(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    rewrite(folder, {**tensors, DECODER: tensors[f"bert.{WORD}"] + 1})
    model = round_trip(folder, tmp_path / "two")
    assert model.head.projection.weight is not model.embedder.word_emb.weight
    assert torch.equal(model.head.projection.weight, model.embedder.word_emb.weight + 1)


def test_untied_by_the_config(tmp_path: Path) -> None:
    config = {**BERT, "tie_word_embeddings": False}
    folder = written(tmp_path / "one", config=config)
    assert not torch.equal(stored(folder)[DECODER], stored(folder)[f"bert.{WORD}"])
    round_trip(folder, tmp_path / "two")
    tensors = stored(folder)
    del tensors[DECODER]
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match=r"head='masked-lm' must .*: cls\.predictions\.decoder\.weight"):
        minitx.load(folder)


@pytest.mark.parametrize(
    ("name", "head", "written_as"),
    [("bert", "masked-lm", DECODER), ("llama", "causal-lm", "lm_head.weight")],
)
def test_tied_by_hand_against_the_config(tmp_path: Path, name: str, head: str, written_as: str) -> None:
    """Loaders ask for a tensor of its own where the config says untied."""
    model = random({**CONFIGS[name], "tie_word_embeddings": False}, head)
    model.head.projection.weight = model.embedder.word_emb.weight
    minitx.save(model, tmp_path / "one")
    assert torch.equal(stored(tmp_path / "one")[written_as], model.embedder.word_emb.weight)
    again = round_trip(tmp_path / "one", tmp_path / "two")
    same(model.state_dict(), again.state_dict())


def test_tied_in_another_dtype(tmp_path: Path) -> None:
    """Equal values in another dtype are other bytes: both stay."""
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    rewrite(folder, {**tensors, DECODER: tensors[f"bert.{WORD}"].double()})
    round_trip(folder, tmp_path / "two")


def test_nan_in_a_tied_weight(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    tensors[f"bert.{WORD}"][3, 3] = float("nan")
    tensors[f"bert.{WORD}"][4, 4] = -0.0
    rewrite(folder, {**tensors, DECODER: tensors[f"bert.{WORD}"].clone()})
    round_trip(folder, tmp_path / "two")


def test_minus_zero_is_not_zero(tmp_path: Path) -> None:
    """Equal as numbers, different as bytes; saving must not make one out of the other."""
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    tensors[f"bert.{WORD}"][4, 4] = 0.0
    other = tensors[f"bert.{WORD}"].clone()
    other[4, 4] = -0.0
    rewrite(folder, {**tensors, DECODER: other})
    round_trip(folder, tmp_path / "two")


# --- which head ------------------------------------------------------------------------------------


def both(folder: Path) -> Path:
    """A pre-training checkpoint: pooler, masked-lm and next-sentence."""
    words = stored(written(folder / "a", "masked-lm"))
    following = stored(written(folder / "b", "next-sentence"))
    written(folder / "both", "masked-lm")
    rewrite(folder / "both", {**following, **words}, architectures=["BertForPreTraining"])
    return folder / "both"


@pytest.mark.parametrize(
    ("head", "has", "lacks"),
    [
        (None, "cls.predictions.bias", ""),
        ("masked-lm", "cls.predictions.bias", "cls.seq_relationship.weight"),
        ("next-sentence", "cls.seq_relationship.weight", "cls.predictions.bias"),
        ("none", "pooler.dense.weight", "cls.predictions.bias"),
    ],
)
def test_other_heads_are_kept_unless_one_is_asked_for(
    tmp_path: Path, head: str | None, has: str, lacks: str
) -> None:
    folder = both(tmp_path)
    model = minitx.load(folder, head=head)
    assert model.task == (None if head == "none" else head or "masked-lm")
    minitx.save(model, tmp_path / "two")
    again = stored(tmp_path / "two")
    if head is None:
        same(again, stored(folder))
        assert config_of(tmp_path / "two")["architectures"] == ["BertForPreTraining"]
    assert any(name.endswith(has) for name in again)
    assert lacks not in again
    assert minitx.load(tmp_path / "two").task == model.task


@pytest.mark.parametrize(
    "head", ["masked-lm", "next-sentence", "question-answering", "replaced-token-detection", "none"]
)
@pytest.mark.parametrize("architectures", [None, [], ["SomethingElse"], "BertForMaskedLM", [3]])
def test_the_head_from_the_names_of_the_tensors(tmp_path: Path, head: str, architectures: Any) -> None:
    config = CONFIGS["electra" if head == "replaced-token-detection" else "bert"]
    folder = written(tmp_path / "one", head, config)
    rewrite(folder, stored(folder), architectures=architectures)
    assert minitx.load(folder).task == (None if head == "none" else head)


def test_names_that_fit_several_heads(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "sequence-classification")
    rewrite(folder, stored(folder), architectures=None)
    with pytest.raises(ValueError, match=r"fit several heads.*head= one of sequence-classification, token-"):
        minitx.load(folder)
    assert minitx.load(folder, head="sequence-classification").task == "sequence-classification"
    assert minitx.load(folder, head="none").task is None


def test_no_head(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "sequence-classification")
    model = minitx.load(folder, head="none")
    assert model.head is None
    assert model.pooler is not None
    out = model(ids())
    assert out.logits is None
    assert torch.equal(out.pooler_output, minitx.load(folder)(ids()).pooler_output)
    minitx.save(model, tmp_path / "two")
    assert "classifier.weight" not in stored(tmp_path / "two")
    assert config_of(tmp_path / "two")["architectures"] == ["BertModel"]
    assert minitx.load(written(tmp_path / "three", "masked-lm"), head="none").pooler is None


def test_a_head_that_is_missing(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "none")
    with pytest.raises(
        ValueError, match=r"^head='token-classification' must be one that the checkpoint has"
    ) as caught:
        minitx.load(folder, head="token-classification")
    message = str(caught.value)
    for part in (
        "missing: classifier.weight, classifier.bias",
        'head="none"',
        "init_head=True draws a new one",
    ):
        assert part in message


@pytest.mark.parametrize("head", ["token-classification", "sequence-classification", "masked-lm"])
def test_a_fresh_head(tmp_path: Path, head: str) -> None:
    folder = written(tmp_path / "one", "none")
    torch.manual_seed(3)
    model = minitx.load(folder, head=head, init_head=True)
    assert model.task == head
    before = minitx.load(folder, head="none").state_dict()
    for name, tensor in model.state_dict().items():
        if name in before:
            assert torch.equal(tensor, before[name]), name
        assert tensor.isfinite().all(), name
    assert model.head.projection.weight.std() > 0
    minitx.save(model, tmp_path / "two")
    same(model.state_dict(), minitx.load(tmp_path / "two").state_dict())


def test_a_fresh_head_takes_what_there_is(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "sequence-classification")
    model = minitx.load(folder, init_head=True)
    same(model.state_dict(), minitx.load(folder).state_dict())


@pytest.mark.parametrize("labels", [{}, {"num_labels": 4}])
def test_a_head_of_another_task_under_the_same_name(tmp_path: Path, labels: dict[str, Any]) -> None:
    """The score of Llama's token classifier has a bias, that of its sequence classifier has none."""
    folder = written(tmp_path / "one", "token-classification", CONFIGS["llama"])
    task = "sequence-classification"
    with pytest.raises(ValueError, match=rf"head='{task}' must be .*init_head=True .*score\.bias is of"):
        minitx.load(folder, head=task)
    model = minitx.load(folder, head=task, init_head=True, seed=0, **labels)
    assert not torch.equal(model.head.projection.weight, stored(folder)["score.weight"])
    minitx.save(model, tmp_path / "two")
    assert "score.bias" not in stored(tmp_path / "two")
    same(model.state_dict(), minitx.load(tmp_path / "two").state_dict())


@pytest.mark.parametrize("name", ["blenderbot", "m2m_100"])
def test_a_head_that_the_architecture_lacks(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    task = "sequence-classification"
    with pytest.raises(ValueError, match=rf"head='{task}' must be one of 'seq2seq-lm', 'none'"):
        minitx.load(tmp_path, head=task, init_head=True, num_labels=4)


def test_weights_in_the_subfolder_of_modules_json_are_replaced(tmp_path: Path) -> None:
    inner = written(tmp_path / "0_Transformer", "none")
    modules = [
        {"idx": 0, "name": "0", "path": inner.name, "type": "sentence_transformers.models.Transformer"}
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    model = minitx.load(tmp_path)
    with torch.no_grad():
        model.embedder.word_emb.weight.mul_(2)
    minitx.save(model, tmp_path)
    same(model.state_dict(), minitx.load(tmp_path).state_dict())
    assert [path.name for path in inner.iterdir()] == ["config.json"]


def test_init_head_does_not_hide_what_else_is_missing(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "none")
    tensors = stored(folder)
    del tensors["encoder.layer.1.output.dense.weight"]
    rewrite(folder, tensors)
    with pytest.raises(ValueError, match=r"lacks 1 tensors: .*encoder\.layer\.1\.output\.dense\.weight"):
        minitx.load(folder, head="token-classification", init_head=True)


def test_the_number_of_labels(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "none")
    with pytest.raises(ValueError, match="needs init_head=True"):
        minitx.load(folder, head="token-classification", num_labels=7)
    model = minitx.load(folder, head="token-classification", init_head=True, num_labels=7)
    assert model(ids()).logits.shape == (2, 6, 7)
    minitx.save(model, tmp_path / "two")
    config = config_of(tmp_path / "two")
    assert config["id2label"] == {str(i): f"LABEL_{i}" for i in range(7)}
    assert config["label2id"] == {f"LABEL_{i}": i for i in range(7)}
    again = minitx.load(tmp_path / "two")
    assert again.task == "token-classification"
    same(model.state_dict(), again.state_dict())


def test_labels_from_their_names(tmp_path: Path) -> None:
    names = {"0": "no", "1": "perhaps", "2": "yes"}
    config = {**BERT, "id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
    folder = written(tmp_path / "one", "sequence-classification", config)
    model = round_trip(folder, tmp_path / "two")
    assert model(ids()).logits.shape == (2, 3)
    assert config_of(tmp_path / "two")["id2label"] == names


def test_a_head_of_another_size_than_its_labels(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "sequence-classification")
    rewrite(folder, stored(folder), id2label={str(i): str(i) for i in range(4)})
    with pytest.raises(ValueError, match=r"classifier\.weight has shape \(2, 24\).*\(4, 24\)"):
        minitx.load(folder)


# --- config.json -----------------------------------------------------------------------------------


def test_the_config_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    extra = {"transformers_version": "4.0", "task_specific_params": {"a": [1, None]}, "_name_or_path": "é"}
    rewrite(folder, stored(folder), **extra)
    round_trip(folder, tmp_path / "two")
    assert list(config_of(folder)) == list(config_of(tmp_path / "two"))


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_config_without_model_type(tmp_path: Path, model_type: str) -> None:
    folder = written(tmp_path / "one", config=CONFIGS[model_type])
    before = minitx.load(folder).state_dict()
    rewrite(folder, stored(folder), model_type=None)
    with pytest.raises(ValueError, match=r'no "model_type".*one such as "bert"'):
        minitx.load(folder)
    model = minitx.load(folder, model_type=model_type)
    same(before, model.state_dict())
    minitx.save(model, tmp_path / "two")
    same(stored(folder), stored(tmp_path / "two"))
    assert config_of(tmp_path / "two") == config_of(folder) | {"model_type": model_type}


def test_unknown_keys(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    rewrite(folder, stored(folder), rope_thata=3, new_thing=0)
    with pytest.raises(ValueError, match=r"config.json has 'new_thing', 'rope_thata', unknown to minitx"):
        minitx.load(folder)
    with pytest.raises(ValueError, match=r"ignore_keys=\('rope_thata',\) loads without"):
        minitx.load(folder, ignore_keys=["new_thing"])
    with pytest.raises(ValueError, match="'rope_thata', unknown to minitx"):
        minitx.from_config({**BERT, "rope_thata": 3})
    model = minitx.load(folder, ignore_keys=["new_thing", "rope_thata"])
    assert model.checkpoint.ignored_keys == ("new_thing", "rope_thata")
    minitx.save(model, tmp_path / "two")
    assert config_of(tmp_path / "two") == config_of(folder)
    same(stored(folder), stored(tmp_path / "two"))
    built = minitx.from_config({**BERT, "rope_thata": 3}, ignore_keys=("rope_thata",))
    minitx.save(built, tmp_path / "three")
    assert config_of(tmp_path / "three")["rope_thata"] == 3


@pytest.mark.parametrize(
    ("ignored", "error", "message"),
    [
        ("hidden_act", TypeError, r"ignore_keys='hidden_act' must be a sequence of strings"),
        ([3], TypeError, r"ignore_keys=\[3\] must be a sequence of strings"),
        (["hiden_size"], ValueError, r"'hiden_size' must be a key of config.json; .* 'hidden_size'\?"),
        (["hidden_size"], ValueError, r"config.json: hidden_size=None must be present"),
    ],
)
def test_keys_that_cannot_be_ignored(ignored: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        minitx.from_config(BERT, ignore_keys=ignored)


def test_known_files_have_known_keys(tmp_path: Path) -> None:
    for name, config in CONFIGS.items():
        if name != "deberta-v2":
            head = "seq2seq-lm" if config["model_type"] == GLUED else "none"
            minitx.load(written(tmp_path / name, head, config))


def test_the_same_seed_gives_the_same_model() -> None:
    first, second, other = (minitx.from_config(BERT, head="masked-lm", seed=s) for s in (1, 1, 2))
    same(first.state_dict(), second.state_dict())
    assert not torch.equal(first.embedder.word_emb.weight, other.embedder.word_emb.weight)
    assert first.training


# --- .bin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta-v2-conv", "albert"])
def test_from_bin(tmp_path: Path, name: str, zipped: bool) -> None:
    folder = written(tmp_path / "one", config=CONFIGS[name])
    before = stored(folder)
    (folder / "model.safetensors").unlink()
    torch.save(before, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    model = minitx.load(folder)
    minitx.save(model, tmp_path / "two")
    assert files(tmp_path / "two") == ["config.json", "model.safetensors"]
    same(before, stored(tmp_path / "two"))
    with pytest.raises(FileExistsError, match=r"pytorch_model\.bin"):
        minitx.save(model, folder)


def test_from_bin_with_shared_storage(tmp_path: Path) -> None:
    """Tied tensors in a pickle are one storage; in safetensors each stands by itself."""
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    tensors[DECODER] = tensors[f"bert.{WORD}"]
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    minitx.save(minitx.load(folder), tmp_path / "two")
    same(tensors, stored(tmp_path / "two"))


def test_from_sharded_bin(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    tensors = stored(folder)
    (folder / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for i, names in enumerate((sorted(tensors)[:20], sorted(tensors)[20:]), 1):
        file = f"pytorch_model-{i:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(index, encoding="utf-8")
    minitx.save(minitx.load(folder), tmp_path / "two")
    same(tensors, stored(tmp_path / "two"))
    assert files(tmp_path / "two") == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    minitx.load(tmp_path / "two")


def test_safetensors_win_over_bin(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    torch.save({"nothing": torch.zeros(1)}, folder / "pytorch_model.bin")
    minitx.load(folder)


# --- how a model is loaded -------------------------------------------------------------------------


def test_the_attention_is_chosen_on_loading(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    eager, fused = (minitx.load(folder, attention=kind) for kind in ("eager", "sdpa"))
    for a, b in zip(outputs(eager), outputs(fused), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_folder_as_text_or_path(tmp_path: Path) -> None:
    folder = written(tmp_path / "one")
    same(minitx.load(str(folder)).state_dict(), minitx.load(folder).state_dict())


def test_parameters_can_be_trained(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", "token-classification")
    model = minitx.load(folder).train()
    model(ids(), labels=torch.ones(2, 6, dtype=torch.long)).loss.backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def test_a_model_of_another_architecture_is_not_overwritten(tmp_path: Path) -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 8}
    bert = minitx.from_config({"model_type": "bert", **sizes}, head="masked-lm")
    llama = minitx.from_config({"model_type": "llama", **sizes}, head="causal-lm")
    minitx.save(bert, tmp_path)
    minitx.save(bert, tmp_path)  # over itself
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"holds a model of type .bert., and this one is of"):
        minitx.save(llama, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "config.json").write_text("{")
    minitx.save(llama, tmp_path)
    assert minitx.load(tmp_path).config.stack.causal
