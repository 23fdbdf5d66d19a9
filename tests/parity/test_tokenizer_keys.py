"""Each key of tokenizer_config.json, changed in turn, has the effect that it has in transformers."""

import ast
import copy
import inspect
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import tokenization_utils_base, tokenization_utils_tokenizers
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from minitx.tokenizer import load_tokenizer
from minitx.tokenizer.keys import APPLIED, RECORDS, REFUSED
from minitx.tokenizer.vocabularies.registry import FAMILIES
from tests.parity.test_sentencepiece_rules import _train as train_pieces
from tests.parity.test_tokenizer import train_byte_pairs

TEXTS = ["The cat  sat.", " Café <e> , it 's A cat!", "x[SEP]y <pad> <new>", ""]
WORDS = "the The cat sat . , ' s ! A a it x y"
BASE = ("self", "args", "kwargs", "_spm_precompiled_charsmap", "_json_truncation", "_json_padding")
# Set by transformers itself, never by a file.
INTERNAL = {"tokenizer_object", "gguf_file", "post_processor", "tokenizer_padding", "tokenizer", "backend"}
INTERNAL |= {"tokenizer_truncation", "tokenizer_padding", "proxies", "subfolder", "_commit_hash"}


def _popped(source: str) -> set[str]:
    """The keys that a constructor takes from its `kwargs`."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("pop", "get", "setdefault")
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "kwargs"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_the_tables_hold_every_argument_of_the_classes() -> None:
    stated: set[str] = set()
    for family in FAMILIES:
        name = TOKENIZER_MAPPING_NAMES.get(family) or FAMILIES[family].tokenizer_class
        stated |= set(inspect.signature(tokenizer_class_from_name(name).__init__).parameters)
    for module in (
        tokenization_utils_base.PreTrainedTokenizerBase,
        tokenization_utils_tokenizers.TokenizersBackend,
    ):
        stated |= _popped(textwrap.dedent(inspect.getsource(module.__init__)))
    stated -= {*BASE, *INTERNAL}
    assert sorted(stated - APPLIED - set(RECORDS) - set(REFUSED)) == []
    assert not APPLIED & set(RECORDS)
    assert not (APPLIED | set(RECORDS)) & set(REFUSED)
    assert len(stated) > 50


def _words(folder: Path) -> None:
    """Write a tokenizer.json of words, some of them added tokens."""
    words = ["[UNK]", "[CLS]", "[SEP]", "<pad>", "<e>", *WORDS.split(), "Café"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "<pad>"])
    tokenizer.add_tokens([AddedToken("<e>", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def _bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), "cafe", "Café", "<e>", "[", "]"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


TOKEN = {"content": "<e>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False}
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
NO_TEXT = (
    "merges",
    "vocab",
    "unk_id",
    "init_inputs",
    "auto_map",
    "chat_control_tokens",
)  # fail in transformers
ANY: list[dict[str, Any]] = [
    {},
    *({role: "<e>"} for role in ("bos_token", "eos_token", "sep_token", "cls_token", "mask_token")),
    {"pad_token": "<pad>"},
    {"eos_token": {**TOKEN, "__type": "AddedToken"}},
    {"eos_token": "<new>"},
    {"image_token": "<e>"},
    {"additional_special_tokens": ["<e>", "<new>"]},
    {"extra_special_tokens": ["<e>", "<new>"]},
    {"extra_special_tokens": {"image_token": "<e>"}},
    {"model_specific_special_tokens": {"image_token": "<e>"}},
    {"clean_up_tokenization_spaces": True},
    {
        "clean_up_tokenization_spaces": True,
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
    },
    {"split_special_tokens": True},
    {"padding_side": "left"},
    {"truncation_side": "left"},
    {"model_max_length": 4},
    {"max_len": 4},
    {"model_input_names": ["input_ids"]},
    {"add_bos_token": True, "bos_token": "<e>"},
    {"add_eos_token": True, "eos_token": "<e>"},
    {"add_prefix_space": True},
    {"chat_template": TEMPLATE, "bos_token": "<e>", "eos_token": "<pad>"},
    {"chat_template": [{"name": "default", "template": TEMPLATE}], "bos_token": "<e>", "eos_token": "<e>"},
    {"chat_control_tokens": ["<e>"]},
    *({key: "true"} for key in RECORDS if key not in NO_TEXT),
]
FLAGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
BERT = [*ANY, *({key: value} for key in FLAGS for value in (True, False))]
KINDS = {"words": ANY, "bytes": ANY, "bert": BERT}
CASES = [(kind, config) for kind, configs in KINDS.items() for config in configs]
CLASSES = {"words": "PreTrainedTokenizerFast", "bytes": "GPT2Tokenizer", "bert": "BertTokenizer"}


def _folder(folder: Path, kind: str, config: dict[str, Any], **files: Any) -> None:
    {"words": _words, "bytes": train_byte_pairs, "bert": _bert}[kind](folder)
    # Files of the vocabulary must not be overwritten by a record that names them.
    model_type = {"words": "llama", "bytes": "gpt2", "bert": "bert"}[kind]
    files["config"] = {"model_type": model_type, "vocab_size": 2000}
    files["tokenizer_config"] = {"tokenizer_class": CLASSES[kind], **config}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _compare(ours: Any, theirs: Any) -> None:
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        if text:  # transformers ignores an empty pair
            assert ours.encode(text, text) == theirs(text, text)["input_ids"]
        for skip in (False, True):
            for row in (ids, [*ids, 1999]):
                assert ours.decode(row, skip_special_tokens=skip) == theirs.decode(
                    row, skip_special_tokens=skip
                )
    assert len(ours) == len(theirs)
    assert (ours.padding_side, ours.truncation_side) == (theirs.padding_side, theirs.truncation_side)
    limit = theirs.model_max_length
    assert ours.model_max_length == (limit if limit < 10**20 else None)
    assert set(ours.special_ids) == {i for i, t in theirs.added_tokens_decoder.items() if t.special}
    for role in ("bos", "eos", "sep", "cls", "pad", "mask", "unk"):
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token"), role
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id"), role
    if ours.pad_token:
        padded = ours(TEXTS, padding=True, truncation=True, max_length=6)
        wanted = theirs(TEXTS, padding=True, truncation=True, max_length=6)
        assert padded.input_ids.tolist() == wanted["input_ids"]
        assert set(padded) <= set(wanted)
    if theirs.chat_template:
        messages = [{"role": "user", "content": "cat"}]
        assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages, tokenize=False)


@pytest.mark.parametrize(("kind", "config"), CASES, ids=[f"{kind}-{list(c)}" for kind, c in CASES])
def test_each_key_in_turn(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    _folder(tmp_path, kind, config)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    _compare(ours, theirs)
    ours.save(tmp_path / "saved")
    shutil.copy(tmp_path / "config.json", tmp_path / "saved")
    _compare(
        load_tokenizer(tmp_path / "saved"), transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    )
    again = load_tokenizer(tmp_path / "saved")
    again.save(tmp_path / "again")
    for path in (tmp_path / "saved").iterdir():
        if path.name != "config.json":
            assert (tmp_path / "again" / path.name).read_text() == path.read_text(), path.name
    for text in TEXTS:
        assert again.encode(text) == ours.encode(text)


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_implemented_is_refused_by_name(tmp_path: Path, key: str) -> None:
    allowed, _ = REFUSED[key]
    _folder(tmp_path, "words", {key: copy.copy(allowed[1])})
    load_tokenizer(tmp_path)
    _folder(tmp_path, "words", {key: {"alpha": 0.1}})
    with pytest.raises(ValueError, match=f"tokenizer_config.json has {key}=.* it must be"):
        load_tokenizer(tmp_path)


MAPS = [
    {"eos_token": "<e>"},
    {"eos_token": TOKEN},
    {"additional_special_tokens": ["<e>", "<new>"]},
    {"extra_special_tokens": ["<e>", "<new>"]},
    {"extra_special_tokens": {"image_token": "<e>"}},
    {"image_token": "<e>"},
]


@pytest.mark.parametrize("content", MAPS, ids=[str(list(content.items())) for content in MAPS])
def test_each_key_of_special_tokens_map(tmp_path: Path, content: dict[str, Any]) -> None:
    _folder(tmp_path, "words", {}, special_tokens_map=content)
    _compare(load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("strip", [True, False])
def test_options_of_added_tokens_decoder(tmp_path: Path, special: bool, strip: bool) -> None:
    token = {**TOKEN, "special": special, "lstrip": strip}
    _folder(tmp_path, "words", {"added_tokens_decoder": {"4": token}})
    _compare(load_tokenizer(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path))


def test_padding_and_truncation_of_tokenizer_json(tmp_path: Path) -> None:
    _folder(tmp_path, "words", {})
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_padding(direction="left", pad_token="<pad>", pad_id=3)
    tokenizer.enable_truncation(5, direction="left")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert (ours.padding_side, ours.truncation_side, ours.pad_token) == ("left", "left", "<pad>")
    _compare(ours, transformers.AutoTokenizer.from_pretrained(tmp_path))


def _llama(folder: Path, **options: Any) -> Any:
    """Write tokenizer.model, and the tokenizer.json that transformers makes of it."""
    options = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False} | options
    (folder / "tokenizer.model").write_bytes(train_pieces("bpe", byte_fallback=True, **options))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    transformers.AutoTokenizer.from_pretrained(folder)._tokenizer.save(str(folder / "tokenizer.json"))


LLAMA: list[dict[str, Any]] = [
    {},
    {"add_prefix_space": False},
    {"add_prefix_space": True},
    {"add_bos_token": True},
    {"add_eos_token": True},
    {"add_bos_token": True, "add_eos_token": True},
    {"legacy": True},
    {"padding_side": "right"},
    {"use_default_system_prompt": True},
    {"clean_up_tokenization_spaces": True},
]
PROMPTS = ["the cat", "the  cat</s>the", "a", "the cat <s> sat"]


@pytest.mark.parametrize("config", LLAMA, ids=[str(list(config)) for config in LLAMA])
@pytest.mark.parametrize("files", ["tokenizer.json", "tokenizer.model"])
def test_keys_of_llama(tmp_path: Path, files: str, config: dict[str, Any]) -> None:
    _llama(tmp_path)
    bos = (
        {} if files == "tokenizer.json" else {"add_bos_token": False}
    )  # transformers 5 has no BOS by default
    stated = {"tokenizer_class": "LlamaTokenizer", **bos, **config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
    if files == "tokenizer.model":
        (tmp_path / "tokenizer.json").unlink()
    elif config == {"legacy": True}:
        return  # tokenizer.json defines where prefixes are; transformers changes the published files here
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.padding_side == theirs.padding_side
    # sentencepiece adds a prefix before a space too; transformers 5 does not.
    for text in PROMPTS[:-1] if config == {"legacy": True} else PROMPTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.encode(text, "the") == theirs(text, "the")["input_ids"]
        for skip in (False, True):
            decoded = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode(ids, skip_special_tokens=skip) == decoded


def test_decoders_have_their_first_token_unless_a_file_states_otherwise(tmp_path: Path) -> None:
    _llama(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).tokens("the", "the") == ["<s>", "▁the", "<s>", "▁the"]
    (tmp_path / "opt").mkdir()
    train_byte_pairs(tmp_path / "opt")
    (tmp_path / "opt" / "config.json").write_text(json.dumps({"model_type": "opt"}))
    opt = load_tokenizer(tmp_path / "opt")
    assert (opt.tokens("a")[0], opt.pad_token, opt.eos_token) == ("</s>", "<pad>", "</s>")
    for family in ("gpt_neo", "gptj", "phi"):
        (tmp_path / "opt" / "config.json").write_text(json.dumps({"model_type": family}))
        ours = load_tokenizer(tmp_path / "opt")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "opt")
        assert [ours.encode(text) for text in TEXTS] == [theirs(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("family", ["xlm-roberta", "llama"])
def test_no_prefix_space_beside_tokenizer_json(tmp_path: Path, family: str) -> None:
    _llama(tmp_path)
    if family == "xlm-roberta":
        (tmp_path / "sentencepiece.bpe.model").write_bytes(train_pieces("unigram"))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        stated = {"tokenizer_class": "XLMRobertaTokenizer"}
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        theirs._tokenizer.save(str(tmp_path / "tokenizer.json"))
    for config in ({"add_prefix_space": False}, {}):
        stated = json.loads((tmp_path / "tokenizer_config.json").read_text()) | config
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated))
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.tokens("the cat", add_special_tokens=False)[0][0] == "t"
        assert tokenizer.decode(tokenizer.encode("the cat sat"), skip_special_tokens=True) == "the cat sat"
        tokenizer.save(tmp_path / "saved")
        assert load_tokenizer(tmp_path / "saved", model_type=family).encode("a cat") == tokenizer.encode(
            "a cat"
        )


def test_ids_of_the_model_without_a_token_are_empty_text(tmp_path: Path) -> None:
    _folder(tmp_path, "words", {})
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 20
    assert tokenizer.decode([5, 1999, 7]) == tokenizer.decode([5, 7])
    assert tokenizer.decode([20]) == ""
    for index in (2000, -1):  # config.json: vocab_size
        with pytest.raises(ValueError, match=f"^ids={index} must be a token id"):
            tokenizer.decode([index])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert load_tokenizer(tmp_path).decode([2000]) == ""


def test_what_is_no_token_is_refused(tmp_path: Path) -> None:
    _folder(tmp_path, "words", {})
    tokenizer = load_tokenizer(tmp_path)
    for tokens, error, message in (
        (5, TypeError, "tokens=5 must be a list of strings"),
        (["a", 5], TypeError, r"tokens\[1\]=5 must be a string"),
        ([""], ValueError, r"tokens\[0\]='' must be a token with at least one character"),
        (["\ud800"], ValueError, r"tokens\[0\] has a lone surrogate"),
    ):
        with pytest.raises(error, match=message):
            tokenizer.add_tokens(tokens)
    assert len(tokenizer) == 20
    assert tokenizer.add_tokens([]) == 0
    assert tokenizer.decode([2000]) == ""  # a model that has been resized may have more
    assert tokenizer.add_tokens(["cat"], special=True) == 0  # a token of the vocabulary
    assert tokenizer.decode(tokenizer.encode("the cat"), skip_special_tokens=True) == "the"
