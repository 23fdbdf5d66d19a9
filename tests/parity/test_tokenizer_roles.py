"""Special tokens by role, those that the files name and no others; assigned attributes are saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import pre_tokenizers

import minitx
from minitx.architectures import REGISTRY
from minitx.tokenizer.files import TIDYING

FOLDER_WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"]


def general(folder: Path, model_type: str, **config: Any) -> Path:
    """A folder of a general class, whose vocabulary has the usual special tokens as ordinary ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*FOLDER_WORDS, "<bos>", "<eos>", "<|endoftext|>", "a", "b"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(parents=True)
    backend.save(str(folder / "tokenizer.json"))
    written = {"model_type": model_type, "vocab_size": len(words)}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


ADDED = {"13": {"content": "a", "special": True, "normalized": False}}


@pytest.mark.parametrize(
    "stated", [{}, {"eos_token": "</s>"}, {"image_token": "a"}, {"added_tokens_decoder": ADDED}]
)
@pytest.mark.parametrize("model_type", sorted(set(REGISTRY) - {"qwen2"}))  # it has one class in any case
def test_a_general_class_has_no_other_roles_than_its_files_name(
    tmp_path: Path, model_type: str, stated: dict[str, Any]
) -> None:
    folder = general(tmp_path / "one", model_type, **stated)
    minitx.load_tokenizer(folder).save(tmp_path / "two")
    (tmp_path / "two" / "config.json").write_bytes((folder / "config.json").read_bytes())
    for place in (folder, tmp_path / "two"):
        tokenizer = minitx.load_tokenizer(place)
        reference = transformers.AutoTokenizer.from_pretrained(place)
        special = {*reference.all_special_ids, *([13] if "added_tokens_decoder" in stated else [])}
        assert set(tokenizer.special_ids) == special
        for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            assert getattr(tokenizer, f"{role}_token") == getattr(reference, f"{role}_token"), role
        ids = tokenizer.encode("a </s> b")
        assert ids == reference("a </s> b")["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == reference.decode(
            ids, skip_special_tokens=True
        )


ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@pytest.mark.parametrize("role", ROLES)
def test_assigned_special_tokens_are_saved(tmp_path: Path, role: str) -> None:
    folder = general(tmp_path / "one", "bert", pad_token="<pad>", eos_token="</s>")
    tokenizer = minitx.load_tokenizer(folder)
    setattr(tokenizer, f"{role}_token", "b")
    assert getattr(tokenizer, f"{role}_token_id") == 14
    assert tokenizer.chat.special_tokens[f"{role}_token"] == "b"
    assert tokenizer.decode([13, 14], skip_special_tokens=True) == "a"
    tokenizer.save(tmp_path / "two")
    again = minitx.load_tokenizer(tmp_path / "two", model_type="bert")
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "two")
    for each in ROLES:
        expected = getattr(tokenizer, f"{each}_token"), getattr(tokenizer, f"{each}_token_id")
        assert (getattr(again, f"{each}_token"), getattr(again, f"{each}_token_id")) == expected
        assert (getattr(reference, f"{each}_token"), getattr(reference, f"{each}_token_id")) == expected
    assert tokenizer.special_ids == again.special_ids  # a former role stays special in tokenizer.json
    assert {*tokenizer.special_ids} >= {*reference.all_special_ids}


def test_padding_with_the_end_token(tmp_path: Path) -> None:
    tokenizer = minitx.load_tokenizer(general(tmp_path / "one", "llama", eos_token="</s>"))
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["a b", "a"], padding=True).input_ids.tolist() == [[13, 14], [13, 2]]
    tokenizer.save(tmp_path / "two")
    again = minitx.load_tokenizer(tmp_path / "two", model_type="llama")
    assert (again.pad_token, again.pad_token_id) == ("</s>", 2)
    again.pad_token_id = 1
    assert again.pad_token == "<pad>"
    again.pad_token = None
    again.save(tmp_path / "three")
    assert minitx.load_tokenizer(tmp_path / "three", model_type="llama").pad_token_id is None
    for value, expected in (("cat", "a token of the vocabulary"), (3, "string")):
        with pytest.raises((TypeError, ValueError), match=rf"pad_token={value!r} must be .*{expected}"):
            again.pad_token = value
    with pytest.raises(ValueError, match="pad_token_id=99 must be the id of a token"):
        again.pad_token_id = 99


@pytest.mark.parametrize("value", [5, None])
@pytest.mark.parametrize("stated", [{"model_max_length": 10}, {"max_len": 10}, {}])
def test_an_assigned_limit_is_saved(tmp_path: Path, value: int | None, stated: dict[str, Any]) -> None:
    tokenizer = minitx.load_tokenizer(general(tmp_path / "one", "bert", **stated))
    tokenizer.model_max_length = value
    tokenizer.save(tmp_path / "two")
    assert minitx.load_tokenizer(tmp_path / "two", model_type="bert").model_max_length == value
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "two")
    assert reference.model_max_length == (5 if value else pytest.approx(1e30))
    tokenizer.model_max_length = 0
    with pytest.raises(ValueError, match="model_max_length=0 must be"):
        tokenizer.save(tmp_path / "three")


@pytest.mark.parametrize("kind", ["WordLevel", "BPE"])
@pytest.mark.parametrize("value", [True, False])
def test_assigned_tidying_is_saved(tmp_path: Path, kind: str, value: bool) -> None:
    from tokenizers import Tokenizer, models

    folder = general(tmp_path / "one", "bert", **dict.fromkeys(TIDYING, not value), unk_token="<unk>")
    if kind == "BPE":
        backend = Tokenizer(models.BPE({"<unk>": 0, " ": 1, ".": 2, "a": 3}, [], unk_token="<unk>"))
        backend.save(str(folder / "tokenizer.json"))
    tokenizer = minitx.load_tokenizer(folder)
    assert tokenizer.tidies_spaces is not value
    tokenizer.tidies_spaces = value
    tokenizer.save(tmp_path / "two")
    again = minitx.load_tokenizer(tmp_path / "two", model_type="bert")
    assert again.tidies_spaces is value
    ids = tokenizer.encode("a .") if kind == "BPE" else [13, 14]
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "two")
    assert again.decode(ids) == reference.decode(ids)


# --- vocab.json and merges.txt ---------------------------------------------------------------------

TEXTS = [
    "hello world",
    " hello  w\u00f6rld\n",
    "",
    "a<|endoftext|> hello",
    "it's 12,5 \U0001f600",
    "e\u0301 I'LL 2024\n\n  x",
]
TYPES = {
    "gpt_neox": "GPTNeoXTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
}


@pytest.mark.parametrize(
    "settings", [{}, {"add_prefix_space": True}, {"add_bos_token": True, "bos_token": "a"}]
)
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("model_type", TYPES)
def test_byte_pairs_of_qwen_and_gpt_neox(
    tmp_path: Path, model_type: str, stated: bool, settings: dict[str, Any]
) -> None:
    merges = ["h e", "l l", "\u0120 w", "he ll", "hell o", "\u0120w o", "1 2", "\u0120 \u0120"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    config = settings | ({"tokenizer_class": TYPES[model_type]} if stated else {})
    files = {
        "vocab.json": vocabulary,
        "tokenizer_config.json": config,
        "config.json": {"model_type": model_type},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    minitx.load_tokenizer(tmp_path).save(tmp_path / "two")
    (tmp_path / "two" / "config.json").write_bytes((tmp_path / "config.json").read_bytes())
    for place in (tmp_path, tmp_path / "two"):
        tokenizer = minitx.load_tokenizer(place)
        reference = transformers.AutoTokenizer.from_pretrained(place)
        assert tokenizer.chat.special_tokens == reference.special_tokens_map
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert ids == reference(text)["input_ids"]
            assert tokenizer.decode(ids) == reference.decode(ids)
