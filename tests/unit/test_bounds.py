"""Memory and time are bounded by the size of the files, not by the numbers in them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

import minitx
from minitx.tokenizer import files
from tests.unit.test_bad_files import frugal
from tests.unit.test_weight_files import MIXTRAL

BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
}


@pytest.mark.parametrize("key", ["num_local_experts", "num_experts"])
def test_numbers_of_experts(tmp_path: Path, key: str) -> None:
    minitx.save(minitx.from_config(MIXTRAL, seed=0), tmp_path)
    config = {**MIXTRAL, key: 9_999_999}
    if key == "num_experts":
        config.pop("num_local_experts", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with frugal(), pytest.raises(ValueError, match=f"{key}=9999999 must be"):
        minitx.load(tmp_path)


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 9_999_998}, {"vocab_size": 9_999_999, "hidden_size": 99_998}]
)
def test_configs_larger_than_the_memory(sizes: dict[str, int]) -> None:
    with frugal(), pytest.raises(MemoryError, match=r"GB in torch\.float32, and this machine has"):
        minitx.from_config(BERT | sizes)


@pytest.mark.parametrize(
    ("key", "model_type"), [("extra_ids", "t5"), ("extra_ids", "umt5"), ("offset", "pegasus")]
)
def test_counts_of_tokens(tmp_path: Path, key: str, model_type: str) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat"] * 9),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=20,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: 10**9}))
    with frugal(), pytest.raises(ValueError, match=f"{key}=1000000000.* from 0 to 10000"):
        minitx.load_tokenizer(tmp_path)


def test_long_pieces(tmp_path: Path) -> None:
    """Two pieces of a million characters; each place where one could be cut was tried."""
    model = sentencepiece_model_pb2.ModelProto()
    for text in ("<unk>", "<s>", "</s>"):
        model.pieces.add(piece=text, score=0, type=2 if text == "<unk>" else 3)
    for number, text in enumerate(["a", "b", "ab", "▁", "▁a", "a" * 1_000_000, "b" * 999_999]):
        model.pieces.add(piece=text, score=-number, type=1)
    model.trainer_spec.model_type = 2
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.escape_whitespaces = True
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with frugal():
        assert minitx.load_tokenizer(tmp_path).encode("ab a") == [1, 6, 5, 7]


class CountsCalls:
    """A vocabulary that counts how often tokens are added to it."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.calls = backend, 0

    def add_tokens(self, tokens: list[AddedToken]) -> int:
        self.calls += 1
        return self.backend.add_tokens(tokens)

    add_special_tokens = add_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def test_many_added_tokens_are_added_in_one_call(tmp_path: Path) -> None:
    """Each call takes time for all added tokens; Gemma 3 has 6,242."""
    backend = CountsCalls(Backend(models.WordLevel({"a": 0}, unk_token="a")))
    added = {
        str(1 + number): {"content": f"<unused{number}>", "special": number % 2 == 0, "normalized": False}
        for number in range(2_000)
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    files.add_tokens(backend, files.read_settings(tmp_path))  # type: ignore[arg-type]
    assert backend.calls <= 3
    decoder = backend.get_added_tokens_decoder()
    assert [decoder[number].special for number in (1, 2, 1_999, 2_000)] == [True, False, True, False]
    assert backend.token_to_id("<unused1999>") == 2_000


def damaged_tokenizer(folder: Path, **changes: Any) -> None:
    """Writes and loads a tokenizer.json whose vocabulary or other parts are changed."""
    content = json.loads(Backend(models.WordLevel({"a": 0}, unk_token="a")).to_str())
    content["model"]["vocab"] |= changes.pop("vocab", {})
    (folder / "tokenizer.json").write_text(json.dumps(content | changes))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    minitx.load_tokenizer(folder)


@pytest.mark.parametrize("index", [10**7, 10**9, 2**31, 2**32 - 1])
def test_the_largest_id(tmp_path: Path, index: int) -> None:
    damaged_tokenizer(tmp_path, vocab={"b": 10**7 - 1})
    with pytest.raises(
        ValueError, match=rf"tokenizer\.json: the token 'b' has id {index}; ids must be at most"
    ):
        damaged_tokenizer(tmp_path, vocab={"b": index})


def test_the_largest_id_of_older_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<|endoftext|>": 0, "a": 10**9}))
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(
        ValueError, match=r"vocab\.json: the token 'a' has id 1000000000; ids must be at most"
    ):
        minitx.load_tokenizer(tmp_path, model_type="gpt2")


@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": "a"}])
@pytest.mark.parametrize("name", ["normalizer", "decoder"])
def test_replacements_in_a_chain(tmp_path: Path, name: str, pattern: dict[str, str]) -> None:
    parts = [{"type": "Replace", "pattern": pattern, "content": "a" * 1000}]
    damaged_tokenizer(tmp_path, **{name: {"type": "Sequence", f"{name}s": parts}})
    with pytest.raises(ValueError, match=rf"tokenizer\.json: the replacements of its {name} can make a text"):
        damaged_tokenizer(tmp_path, **{name: {"type": "Sequence", f"{name}s": parts * 3}})


@pytest.mark.parametrize("kind", ["TemplateProcessing", "BertProcessing", "RobertaProcessing"])
def test_special_tokens_of_unknown_ids(tmp_path: Path, kind: str) -> None:
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "single": [sequence, {"SpecialToken": {"id": "a", "type_id": 0}}],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"a": {"id": "a", "ids": [99], "tokens": ["a"]}},
    }
    pair = {"sep": ["a", 99], "cls": ["a", 0], "trim_offsets": True, "add_prefix_space": True}
    parts = {"type": kind} | (template if kind == "TemplateProcessing" else pair)
    with pytest.raises(ValueError, match=r"tokenizer\.json: its post_processor adds 'a' as id 99, which no"):
        damaged_tokenizer(tmp_path, post_processor=parts)


@pytest.mark.parametrize("kind", ["compressed", "short", "swapped"])
def test_archives_that_torch_never_writes(tmp_path: Path, kind: str) -> None:
    """A mapped tensor is a range of bytes of the file, whatever its record is."""
    minitx.save(minitx.from_config(BERT, seed=0), tmp_path)
    state = {name: tensor.clone() for name, tensor in tensors_of(tmp_path).items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "whole.bin")
    with zipfile.ZipFile(tmp_path / "whole.bin") as whole:
        contents = {record.filename: whole.read(record) for record in whole.infolist()}
    first, second = [name for name in contents if name.endswith(("data/0", "data/1"))]
    if kind == "short":
        contents[first] = contents[first][:40]
    elif kind == "swapped":
        contents[first], contents[second] = contents[first][:8], contents[second] + contents[first][:8]
    method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    reason = "compressed" if kind == "compressed" else "storage 0 needs a record of 64 bytes"
    with pytest.raises(ValueError, match=rf"pytorch_model\.bin.*{reason}"):
        minitx.load(tmp_path)
    (tmp_path / "whole.bin").rename(tmp_path / "pytorch_model.bin")
    assert minitx.load(tmp_path).num_parameters()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def test_texts_that_are_no_unicode(tmp_path: Path) -> None:
    for content in ('{"a": "\\ud800"}', '{"\\udfff": 1}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json: holds half of a surrogate pair"):
            minitx.load(tmp_path)
