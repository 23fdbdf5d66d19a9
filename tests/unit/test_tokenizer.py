"""What the tokenizer does with arguments, files and texts at their edges."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.tokenizer.batch import Batch
from tests.real import ALBERT, MINILM, SMILES


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(MINILM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """BERT's vocab.txt of ten tokens, and nothing that says what it is."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "Cat"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    return tmp_path


def _json(folder: Path, **files: Any) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


# Batches


def test_a_batch_is_what_a_model_is_called_with(tokenizer: Tokenizer) -> None:
    batch = tokenizer(
        ["a cat", "two cats sat"], padding=True, return_offsets=True, return_special_tokens_mask=True
    )

    def model(input_ids: Any, token_type_ids: Any, attention_mask: Any) -> list[torch.Tensor]:
        return [input_ids, token_type_ids, attention_mask]

    assert all(tensor.dtype == torch.long and tensor.shape == (2, 5) for tensor in model(**batch))
    assert list(batch) == ["input_ids", "token_type_ids", "attention_mask"]
    assert len(batch) == 3
    assert batch.input_ids is batch["input_ids"]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.special_tokens_mask.tolist() == [[1, 0, 0, 1, 1], [1, 0, 0, 0, 1]]
    assert batch.offsets[0] == [(0, 0), (0, 1), (2, 5), (0, 0), (0, 0)]
    assert batch.word_ids[1] == [None, 0, 1, 2, None]
    assert batch.sequence_ids[1] == [None, 0, 0, 0, None]
    assert "input_ids" in repr(batch)


def test_what_was_not_asked_for_is_an_error_that_says_how_to_ask(tokenizer: Tokenizer) -> None:
    batch = tokenizer("a")
    for name in ("offsets", "special_tokens_mask", "overflow_to_sample", "typo"):
        with pytest.raises(AttributeError, match=rf"no '{name}'; it has input_ids"):
            getattr(batch, name)
    with pytest.raises(KeyError):
        batch["offsets"]


def test_a_batch_moves_and_pickles(tokenizer: Tokenizer) -> None:
    batch = tokenizer("a cat", return_special_tokens_mask=True)
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in (*moved.values(), moved.special_tokens_mask)} == {"meta"}
    assert batch.input_ids.device.type == "cpu"
    assert moved.word_ids == batch.word_ids
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.input_ids, batch.input_ids)
    assert tokenizer("a", as_tensors=False).to("cpu").input_ids == [[101, 1037, 102]]


def test_one_text_is_a_batch_of_one_and_none_a_batch_of_none(tokenizer: Tokenizer) -> None:
    assert tokenizer("a cat").input_ids.shape == (1, 4)
    assert tokenizer(["a cat"], as_tensors=False).input_ids == [[101, 1037, 4937, 102]]
    for values in (tokenizer([]), tokenizer([], pairs=[], padding=True)):
        assert {tensor.shape for tensor in values.values()} == {torch.Size((0, 0))}
        assert {tensor.dtype for tensor in values.values()} == {torch.long}
    assert tokenizer([], as_tensors=False).input_ids == []
    assert tokenizer("").input_ids.tolist() == [[101, 102]]
    assert tokenizer(["", ""]).input_ids.tolist() == [[101, 102]] * 2
    assert tokenizer("", add_special_tokens=False).input_ids.shape == (1, 0)
    assert tokenizer("a", pairs="").input_ids.tolist() == [[101, 1037, 102, 102]]


def test_ragged_rows_say_what_to_do(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"from 3 to 5 tokens.*padding=True"):
        tokenizer(["a", "a b c"])
    assert [len(row) for row in tokenizer(["a", "a b c"], as_tensors=False).input_ids] == [3, 5]


def test_words_that_are_split_already(tokenizer: Tokenizer) -> None:
    one = tokenizer(["new", "yorkers", "sat"], is_split_into_words=True)
    assert one.word_ids == [[None, 0, 1, 1, 2, None]]
    two = tokenizer([["a", "b"], ["c"]], pairs=[["d"], []], is_split_into_words=True, padding=True)
    assert two.input_ids.shape == (2, 6)
    assert tokenizer([], is_split_into_words=True).input_ids.tolist() == [[101, 102]]
    with pytest.raises(TypeError, match="texts must be a list of words"):
        tokenizer("a b", is_split_into_words=True)
    with pytest.raises(TypeError, match=r"a word of texts\[1\]=3 must be a string"):
        tokenizer([["a"], ["b", 3]], is_split_into_words=True)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        tokenizer([["a"], "b"], is_split_into_words=True)


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "max"}, "padding='max' must be one of False, True, 'longest', 'max_length'"),
        ({"padding": None}, "padding=None must be"),
        ({"truncation": "longest"}, "truncation='longest' must be one of False, True, 'longest_first'"),
        ({"truncation": "only_second"}, "truncation='only_second' must be .* without pairs; or pass pairs="),
        ({"max_length": 5}, "max_length=5 must be None without truncation; pass truncation=True"),
        ({"max_length": 5, "padding": True}, "max_length=5 must be None without truncation"),
        ({"stride": 2}, "stride=2 must be 0 without truncation; pass truncation=True too"),
        (
            {"pad_to_multiple_of": 8},
            "pad_to_multiple_of=8 must be None without padding; pass padding",
        ),
        ({"padding_side": "up", "padding": True}, "padding_side='up' must be one of 'left', 'right'"),
        ({"truncation": True, "max_length": 0}, "max_length=0 must be at least 1"),
        ({"truncation": True, "max_length": 5.0}, "max_length=5.0 must be an integer"),
        ({"truncation": True, "max_length": True}, "max_length=True must be an integer"),
        ({"truncation": True, "max_length": 1}, "max_length=1 must be at least 2; 2 tokens"),
        (
            {"truncation": True, "max_length": 5, "stride": 3},
            "max_length=5 must be at least 6; 2 tokens",
        ),
        ({"truncation": True, "max_length": 5, "stride": -1}, "stride=-1 must be at least 0"),
        ({"padding": True, "pad_to_multiple_of": 0}, "pad_to_multiple_of=0 must be at least 1"),
        (
            {"padding": True, "truncation": True, "max_length": 10, "pad_to_multiple_of": 8},
            "max_length=10 is not a multiple of pad_to_multiple_of=8",
        ),
    ],
)
def test_options_that_make_no_sense(tokenizer: Tokenizer, options: Any, message: str) -> None:
    kind = TypeError if "must be an integer" in message else ValueError
    with pytest.raises(kind, match=message):
        tokenizer("a cat", **options)


def test_misspelt_options_are_errors(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="trunctation"):
        tokenizer("a", trunctation=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="return_tensors"):
        tokenizer("a", return_tensors="pt")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="patern"):
        load_tokenizer(MINILM, patern="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("texts", [None, 3, b"bytes", ["a", None], [["a"]], [1, 2]])
def test_what_is_no_text(tokenizer: Tokenizer, texts: Any) -> None:
    with pytest.raises(TypeError, match=r"texts\[\d\]=.* must be a string"):
        tokenizer(texts)


def test_pairs_go_in_twos(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"^pairs=\['c'\] must be one per text, 2 and not 1\.$"):
        tokenizer(["a", "b"], pairs=["c"])
    for texts, pairs, form in (("a", ["b"], "one text"), (["a"], "b", "a list of texts")):
        with pytest.raises(TypeError, match=f"^pairs=.* must be {form} like texts"):
            tokenizer(texts, pairs=pairs)
    with pytest.raises(TypeError, match=r"pairs\[0\]=None must be a string"):
        tokenizer(["a"], pairs=[None])  # type: ignore[list-item]


def test_the_longest_text_and_the_limit(tokenizer: Tokenizer) -> None:
    text = "a cat sat " * 20_000
    assert tokenizer(text).input_ids.shape == (1, 60_002)
    assert tokenizer(text, truncation=True).input_ids.shape == (1, 512)
    assert tokenizer("a", padding="max_length").input_ids.shape == (1, 512)
    assert tokenizer(text, truncation=True, max_length=600).input_ids.shape == (1, 600)
    assert tokenizer("x" * 200_000).input_ids.tolist() == [[101, 100, 102]]  # one word, unknown


def test_without_a_limit_it_must_be_said(folder: Path) -> None:
    for config in ({}, {"model_max_length": 1e30}, {"model_max_length": None}):
        _json(folder, tokenizer_config=config)
        tokenizer = load_tokenizer(folder, model_type="bert")
        assert tokenizer.model_max_length is None
        with pytest.raises(ValueError, match=r"^max_length=None must be a number of tokens for truncation"):
            tokenizer("the cat", truncation=True)
        with pytest.raises(ValueError, match=r"^max_length=None must be a number of tokens for padding"):
            tokenizer("the cat", padding="max_length")


def test_text_that_is_no_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"texts\[1\] has a lone surrogate, '\\ud83d', at character 2"):
        tokenizer(["a", "ab\ud83d"], padding=True)
    with pytest.raises(ValueError, match=r"pairs\[0\] has a lone surrogate"):
        tokenizer.encode("a", "\udc80")
    assert tokenizer.tokens("a\0b", add_special_tokens=False) == ["ab"]
    assert tokenizer.encode("\0") == [101, 102]


def test_no_room_for_the_other_text_is_an_error_and_leaves_the_tokenizer_sound(tokenizer: Tokenizer) -> None:
    """The second is a panic in `tokenizers`, no exception."""
    options: dict[str, Any] = {"truncation": "only_second", "max_length": 8}
    with pytest.raises(ValueError, match=r"These texts cannot be tokenized with truncation .*too short"):
        tokenizer("a b c d e f g h i", pairs="cat", **options)
    with pytest.raises(ValueError, match=r"These texts cannot be tokenized with truncation .*stride"):
        tokenizer("a b c", pairs="one two three four five", stride=3, **options)
    assert tokenizer.encode("a") == [101, 1037, 102]


def test_overflow_belongs_to_its_text(tokenizer: Tokenizer) -> None:
    batch = tokenizer(
        ["a b c d e", "a"], truncation=True, max_length=4, stride=1, padding=True, return_overflow=True
    )
    assert batch.overflow_to_sample == [0, 0, 0, 0, 1]
    assert batch.input_ids.shape == (5, 4)
    assert len(batch.word_ids) == 5
    assert "overflow_to_sample" not in batch


def test_one_call_leaves_no_trace_in_the_next(tokenizer: Tokenizer) -> None:
    tokenizer(["a", "b c"], padding="max_length", truncation=True, max_length=16, pad_to_multiple_of=8)
    assert tokenizer.encode("a") == [101, 1037, 102]
    assert tokenizer("a").input_ids.shape == (1, 3)


def test_threads_do_not_disturb_each_other(tokenizer: Tokenizer) -> None:
    wrong: list[int] = []

    def work(length: int) -> None:
        for _ in range(100):
            shape = tokenizer(
                ["a", "b c"], padding="max_length", truncation=True, max_length=length
            ).input_ids.shape
            if shape != (2, length):
                wrong.append(length)

    threads = [threading.Thread(target=work, args=(length,)) for length in (4, 9, 17, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKS = """
import os, signal, sys, threading, warnings
from minitx.tokenizer import load_tokenizer

warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks, which is what this is about
tokenizer = load_tokenizer(sys.argv[1])
texts = ["a cat sat on two mats"] * 500
threading.Thread(target=lambda: [tokenizer(texts) for _ in iter(int, 1)], daemon=True).start()
for _ in range(8):
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if tokenizer(texts).input_ids.shape == (500, 8) else 1)
    if os.waitpid(child, 0)[1]:
        os._exit(1)
os._exit(0)
"""


def test_a_process_forks_while_another_thread_tokenizes() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FORKS, str(MINILM)], env=environment, timeout=120)
    assert done.returncode == 0


def test_what_is_cut_off_is_not_tokenized(tokenizer: Tokenizer) -> None:
    batch = tokenizer(["a cat sat " * 50_000, "a"], truncation=True, padding=True)
    assert batch.input_ids.shape == (2, 512)
    assert sum(len(encoding.overflowing) for encoding in batch._encodings) < 40
    parts = tokenizer("a cat sat " * 5_000, truncation=True, return_overflow=True, as_tensors=False)
    assert sum(len(row) - 2 for row in parts.input_ids) == 15_000


@pytest.mark.parametrize("padding", [False, True])
def test_cutting_early_changes_nothing(tokenizer: Tokenizer, padding: bool) -> None:
    whole = load_tokenizer(MINILM)
    whole._splits_at_spaces = False
    assert tokenizer._splits_at_spaces
    generator = random.Random(0)
    bits = [
        " ",
        " ",
        " ",
        "\n",
        "\u3000",
        "cat",
        "unbelievably",
        "é",
        "e\u0301",
        "\u0301",
        "中",
        "[MASK]",
        "[",
        "]",
    ]
    bits += ["[SEP]", ".", "\0", "\x1c", "Σ", "\U0001f600", "x" * 60, " " * 60, "\u200b", "don't"]
    for _ in range(150):
        summarize = generator.sample(bits, 6)
        texts = ["".join(generator.choices(summarize, k=generator.randrange(400))) for _ in range(6)]
        options: dict[str, Any] = {
            "padding": padding,
            "truncation": True,
            "max_length": generator.randrange(2, 12),
            "add_special_tokens": generator.random() < 0.5,
            "return_offsets": True,
            "as_tensors": False,
        }
        one, other = tokenizer(texts, **options), whole(texts, **options)
        assert dict(one) == dict(other)
        assert (one.offsets, one.word_ids) == (other.offsets, other.word_ids)
        assert one.sequence_ids == other.sequence_ids


def test_an_added_token_with_a_space_forbids_an_early_cut(folder: Path) -> None:
    token = {"content": "the cat", "normalized": False}
    _json(folder, tokenizer_config={"added_tokens_decoder": {"10": token}})
    tokenizer = load_tokenizer(folder, model_type="bert")
    assert tokenizer("the cat " * 500, truncation=True, max_length=4).input_ids.tolist() == [[2, 10, 10, 3]]
    assert not tokenizer._splits_at_spaces


# Back to text


def test_decode(tokenizer: Tokenizer) -> None:
    batch = tokenizer(["A cat.", "Two cats sat!"], padding=True)
    assert tokenizer.decode(batch.input_ids[0]) == "[CLS] a cat. [SEP] [PAD]"
    assert tokenizer.decode_batch(batch.input_ids, skip_special_tokens=True) == ["a cat.", "two cats sat!"]
    assert tokenizer.decode_batch([[1037], []]) == ["a", ""]
    assert tokenizer.decode([]) == ""
    for ids in ([-100], [30522], torch.tensor([5, -1])):
        with pytest.raises(ValueError, match="must be a token id; the vocabulary has 30522 tokens"):
            tokenizer.decode(ids)
    with pytest.raises(ValueError, match=r"^ids=<tensor of shape .*> must be of shape \(T,\); decode_batch"):
        tokenizer.decode(batch.input_ids)


def test_ids_are_whole_numbers_that_fit(tokenizer: Tokenizer) -> None:
    for index in (2**32, 2**40, 10**30, -(2**70)):
        assert tokenizer.id_to_token(index) is None
        with pytest.raises(ValueError, match=f"^ids={index} must be a token id"):
            tokenizer.decode([index])
    wrong: tuple[Any, ...] = (
        [1.7],
        "12",
        b"12",
        12,
        None,
        ["12"],
        [[1]],
        torch.tensor([1.7]),
        [None],
        {1: 2},
    )
    for ids in wrong:
        with pytest.raises(TypeError, match=r"^ids?=.* must be an? (list of )?integer"):
            tokenizer.decode(ids)
    with pytest.raises(TypeError, match=r"^index=1\.7 must be an integer"):
        tokenizer.id_to_token(1.7)  # type: ignore[arg-type]
    right: tuple[Any, ...] = (
        np.array([1037, 4937]),
        [np.int64(1037), torch.tensor(4937)],
        (1037, 4937),
        torch.tensor([1037, 4937]),
        iter([1037, 4937]),
    )
    for ids in right:
        assert tokenizer.decode(ids) == "a cat"
    assert tokenizer.id_to_token(np.int32(4937)) == "cat"  # type: ignore[arg-type]


def test_spaces_are_tidied_where_the_checkpoint_says_so(folder: Path) -> None:
    with (folder / "vocab.txt").open("a") as file:
        file.write(".\n?\n'\nn't\n's\n're\n")
    text = "the cat 's sat . the cat n't ? the ' cat 're"
    for tidy, expected in ((True, "the cat's sat. the catn't? the'cat're"), (False, text)):
        _json(folder, tokenizer_config={"clean_up_tokenization_spaces": tidy})
        tokenizer = load_tokenizer(folder, model_type="bert", pattern=r"\S+")
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == expected


def test_names_and_ids(tokenizer: Tokenizer) -> None:
    assert len(tokenizer) == len(tokenizer.vocab) == 30522
    assert tokenizer.token_to_id("cat") == tokenizer.vocab["cat"] == 4937
    assert tokenizer.token_to_id("no such token") is None
    assert tokenizer.token_to_id("\ud800") is None  # half of a character
    assert tokenizer.id_to_token(4937) == "cat"
    assert tokenizer.id_to_token(30522) is tokenizer.id_to_token(-1) is None
    assert (tokenizer.cls_token, tokenizer.cls_token_id) == ("[CLS]", 101)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == (None, None)
    assert tokenizer.special_ids == (0, 100, 101, 102, 103)
    assert repr(tokenizer) == "Tokenizer(WordPiece, 30522 tokens, model_max_length=512)"
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("a cat") == tokenizer.encode("a cat")


# Files


def test_vocabulary_of_a_bert_by_hand(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, model_type="bert")
    assert tokenizer.tokens("The CATS sat on [MASK]") == [
        "[CLS]",
        "the",
        "cat",
        "##s",
        "sat",
        "[UNK]",
        "[MASK]",
        "[SEP]",
    ]
    assert tokenizer("the", pairs="cat").token_type_ids.tolist() == [[0, 0, 0, 1, 1]]
    _json(folder, tokenizer_config={"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    assert load_tokenizer(folder).tokens("Cat cat", add_special_tokens=False) == ["Cat", "cat"]
    _json(folder, tokenizer_config={"do_basic_tokenize": False, "tokenizer_class": "BertTokenizer"})
    assert load_tokenizer(folder).tokens("Cat cat", add_special_tokens=False) == ["Cat", "cat"]
    _json(folder, tokenizer_config={"never_split": ["Cat", "Dog"], "tokenizer_class": "BertTokenizer"})
    assert load_tokenizer(folder).tokens("Cat CAT Cats", add_special_tokens=False) == [
        "Cat",
        "cat",
        "cat",
        "##s",
    ]


def test_lines_end_as_they_may(folder: Path) -> None:
    content = (folder / "vocab.txt").read_bytes()
    expected = load_tokenizer(folder, model_type="bert").vocab
    for variant in (content.replace(b"\n", b"\r\n"), content.rstrip(b"\n")):
        (folder / "vocab.txt").write_bytes(variant)
        assert load_tokenizer(folder, model_type="bert").vocab == expected
    (folder / "vocab.txt").write_bytes(content + "a\u2028b\u0085\n".encode())
    assert load_tokenizer(folder, model_type="bert").vocab["a\u2028b\u0085"] == 10


def test_architecture_is_asked_for_by_name(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"does not say which architecture.*the model type, one of bert,"):
        load_tokenizer(folder)
    _json(folder, config={"model_type": "bert"})
    assert load_tokenizer(folder).model_input_names == ("input_ids", "token_type_ids", "attention_mask")
    assert load_tokenizer(str(folder), model_type="bert").tokens("cat") == ["[CLS]", "cat", "[SEP]"]
    with pytest.raises(ValueError, match="model_type='roberta' must be 'bert', as in"):
        load_tokenizer(folder, model_type="roberta")
    _json(folder, config={"model_type": "bloom"})
    with pytest.raises(
        ValueError, match=r"older vocabulary files are read for bert,.*not for 'bloom'.*vocab\.txt"
    ):
        load_tokenizer(folder)
    _json(folder, tokenizer_config={"tokenizer_class": "BertJapaneseTokenizer"})
    with pytest.raises(ValueError, match="not for 'BertJapaneseTokenizer'"):
        load_tokenizer(folder)


def test_a_model_with_the_tokenizer_of_another(folder: Path) -> None:
    _json(folder, config={"model_type": "roberta"}, tokenizer_config={"tokenizer_class": "BertTokenizerFast"})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokens("the cats") == ["[CLS]", "the", "cat", "##s", "[SEP]"]
    assert list(tokenizer("cat")) == ["input_ids", "attention_mask"]
    _json(folder, tokenizer_config={"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids"]})
    assert list(load_tokenizer(folder)("cat")) == ["input_ids"]


def test_the_config_of_the_model_may_name_the_tokenizer(tmp_path: Path) -> None:
    """Where tokenizer_config.json does not; but for mT5, whose config names T5's and means its own."""
    _json(tmp_path, config={"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"})
    assert load_tokenizer(tmp_path).encode("ab") == [100, 101, 1]
    _json(tmp_path, config={"model_type": "mt5", "tokenizer_class": "T5Tokenizer"})
    with pytest.raises(ValueError, match="no vocabulary file of a 'mt5' tokenizer"):
        load_tokenizer(tmp_path)
    _json(tmp_path, tokenizer_config={"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(ValueError, match="no vocabulary file of a 't5' tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"add_bos_token": True}])
def test_the_files_of_gpt2_are_read_as_transformers_reads_them(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    import transformers

    merges = ["h e", "l l", "Ġ w", "he ll", "hell o", "Ġw o"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(merge.replace(" ", "") for merge in merges), "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    _json(tmp_path, config={"model_type": "gpt2"}, tokenizer_config=settings)
    tokenizer = load_tokenizer(tmp_path)
    reference = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == reference.eos_token_id == len(words) - 1
    for text in ("hello world", " hello  wörld\n", "", "a<|endoftext|> hello", "it's 12,5 \U0001f600"):
        ids = tokenizer.encode(text)
        assert ids == reference(text)["input_ids"]
        assert tokenizer.decode(ids) == reference.decode(ids)
    assert tokenizer.encode("hello", "wo") == reference("hello", "wo")["input_ids"]
    assert list(tokenizer("hello")) == ["input_ids", "attention_mask"]


def test_nothing_to_read_lists_what_there_is(tmp_path: Path) -> None:
    _json(tmp_path, config={"model_type": "roberta"})
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"looked for tokenizer.json or vocab.json with merges.txt. The folder holds config.json, vocab",
    ):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"looked for vocab\.txt\. The folder holds"):
        load_tokenizer(tmp_path, pattern=".")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_damaged_json_names_the_file(folder: Path, name: str, content: bytes) -> None:
    _json(folder, config={"model_type": "bert"})
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": "yes"}, "do_lower_case='yes'; it must be true, false or null"),
        ({"unk_token": "<oops>"}, r"vocab\.txt lacks the unknown token '<oops>'"),
        ({"cls_token": None}, "needs a cls_token"),
        ({"mask_token": 7}, "=7 as a special token"),
        ({"model_max_length": "512"}, "model_max_length='512'; it must be a number"),
        *(
            ({"model_max_length": value}, "tokenizer_config.json has model_max_length=.* must be a number")
            for value in (0, -1, float("nan"), True, [512])
        ),
        ({"max_len": 0}, "max_len=0; it must be a number of at least 1"),
        ({"model_max_length": 1.5}, "model_max_length=1.5; it must be an integer"),
        *(
            (
                {"model_input_names": names},
                r"tokenizer_config.json has model_input_names=.* input_ids, token_",
            )
            for names in ("input_ids", 5, [1], ["input_ids", "pixels"], [["input_ids"]], [], {"input_ids": 1})
        ),
        ({"tokenizer_class": 5}, r"tokenizer_config.json has tokenizer_class=5; it must be a name, or null"),
        ({"added_tokens_decoder": [1]}, r"_config.json has added_tokens_decoder=\[1\]; it must be an object"),
        ({"added_tokens_decoder": {"x": "a"}}, "_config.json has added_tokens_decoder='x'.* keys are ids"),
        ({"added_tokens_decoder": {"5": 7}}, r"_config.json has added_tokens_decoder\[5\]=7"),
        ({"additional_special_tokens": 5}, "_config.json has additional_special_tokens=5; .* list of tokens"),
        ({"additional_special_tokens": "ab"}, "additional_special_tokens='ab'"),
        ({"never_split": 5}, "_config.json has never_split=5; it must be a list of words"),
        ({"clean_up_tokenization_spaces": "no"}, "spaces='no'; it must be true, false or null"),
        ({"padding_side": "up"}, "tokenizer_config.json: padding_side='up' must be one of 'left', 'right'"),
        (
            {"added_tokens_decoder": {"99": {"content": "new"}}},
            "'new' is listed with id 99, but has id 10",
        ),
    ],
)
def test_settings_that_cannot_be_right(folder: Path, config: Any, message: str) -> None:
    _json(folder, tokenizer_config=config)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder, model_type="bert")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("added_tokens", {"new": "x"}, r"added_tokens.json has new='x'; it must be the id"),
        ("added_tokens", {"new": 10.5}, r"added_tokens.json has new=10.5"),
        ("special_tokens_map", {"mask_token": 5}, r"special_tokens_map.json has mask_token=5"),
        ("special_tokens_map", {"additional_special_tokens": 5}, r"special_tokens_map.json has additional"),
        ("config", {"model_type": ["bert"]}, r"config.json has model_type=\['bert'\]; it must be a name"),
    ],
)
def test_the_other_files_that_cannot_be_right(folder: Path, name: str, content: Any, message: str) -> None:
    _json(folder, **{name: content})
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder, model_type="bert")


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 300, Path("a" * 300)])
def test_a_name_that_is_too_long_for_a_folder(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a valid Hub id"):
        load_tokenizer(name)


@pytest.mark.parametrize("name", [None, b"x", 5])
def test_a_name_that_is_no_name(name: Any) -> None:
    with pytest.raises(TypeError, match=r"name_or_folder=.* must be a str or Path"):
        load_tokenizer(name)


def test_doubled_lines_with_a_token_missing(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a", "b"]
    (folder / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(ValueError, match=r"lacks '\[MASK\]', and the id after its 6 tokens is taken"):
        load_tokenizer(folder, model_type="bert")


def test_which_file_names_the_special_tokens(folder: Path) -> None:
    def mask() -> tuple[str | None, int | None]:
        tokenizer = load_tokenizer(folder, model_type="bert")
        return tokenizer.mask_token, tokenizer.mask_token_id

    assert mask() == ("[MASK]", 4)
    _json(folder, tokenizer_config={"mask_token": "sat"})
    assert mask() == ("sat", 8)
    _json(folder, special_tokens_map={"mask_token": {"content": "the", "lstrip": True}})
    assert mask() == ("the", 5)
    _json(folder, tokenizer_config={"mask_token": "sat", "added_tokens_decoder": {"10": {"content": "new"}}})
    assert mask() == ("sat", 8)
    assert load_tokenizer(folder, model_type="bert").token_to_id("new") == 10
    _json(folder, tokenizer_config={"mask_token": None}, special_tokens_map={})
    assert mask() == (None, None)


def test_stated_flags_prevail_over_tokenizer_json_and_unstated_ones_do_not(tmp_path: Path) -> None:
    content = json.loads((MINILM / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    _json(tmp_path, tokenizer=content, config={"model_type": "bert"}, tokenizer_config={})
    assert load_tokenizer(tmp_path).encode("Cat") != load_tokenizer(MINILM).encode("Cat")
    _json(tmp_path, tokenizer_config={"do_lower_case": True})
    assert load_tokenizer(tmp_path).encode("Cat") == load_tokenizer(MINILM).encode("Cat")


def test_padding_and_truncation_left_in_tokenizer_json_are_ignored() -> None:
    content = json.loads((MINILM / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["padding"]
    assert content["truncation"]["max_length"] == 128
    assert load_tokenizer(MINILM)("a " * 300).input_ids.shape == (1, 302)


def test_byte_pairs_that_do_not_fit(tmp_path: Path) -> None:
    _json(tmp_path, config={"model_type": "roberta"}, vocab={"a": 0, "b": 1, "ab": 2, "# #": 3})
    for merges, message in (
        ("#version: 0.2\na b c\n", r"merges\.txt line 2 is 'a b c'; expected two tokens"),
        ("a b\nx y\n", "do not belong together"),
    ):
        (tmp_path / "merges.txt").write_text(merges)
        with pytest.raises(ValueError, match=message):
            load_tokenizer(tmp_path)


def test_merges_of_the_number_sign_are_no_comments(tmp_path: Path) -> None:
    roles = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {token: index for index, token in enumerate([*roles, "#", "##"])}
    _json(tmp_path, config={"model_type": "roberta"}, vocab=vocab)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n# #\n")
    assert load_tokenizer(tmp_path).encode("##") == [0, 6, 2]


# Words by a pattern


def _by_hand(text: str) -> list[int]:
    """The longest match by rules written out, looked up in vocab.txt: what rxnmapper's tokenizer does."""
    lines = (ALBERT / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {token: index for index, token in enumerate(lines)}
    ids, position = [], 0
    while position < len(text):
        if text[position] == "[":
            end = text.index("]", position) + 1
        elif text[position] == "%":
            end = position + 3
        else:
            end = position + 1
            if text[position:][:2] in ("Br", "Cl", ">>"):
                end = position + 2
        ids.append(vocabulary.get(text[position:end], vocabulary["[UNK]"]))
        position = end
    return [vocabulary["[CLS]"], *ids, vocabulary["[SEP]"]]


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(C)S.O=C([O-])c1ccc(Br)nc1F>>CC(C)Sc1ncccc1F",
        "C1COCCN1.[Na+].[OH-]>>CN(C)C(=O)[C@@H](N)Cc1ccccc1",
        "ClC(Cl)Cl.BrBr.B%12I%12#N",
        "[13CH3][Zz]/C=C\\F",
    ],
)
def test_reaction_smiles(smiles: str) -> None:
    tokenizer = load_tokenizer(ALBERT, pattern=SMILES)
    assert tokenizer.encode(smiles) == _by_hand(smiles)
    assert len(tokenizer) == 591
    assert tokenizer.unk_token_id == 11
    assert tokenizer("CC", pairs="O").token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1]]


def test_reaction_smiles_survive_saving(tmp_path: Path) -> None:
    smiles = "CC(C)S.O=C(O)c1ccc(Br)nc1F>>[Zz]"
    tokenizer = load_tokenizer(ALBERT, pattern=SMILES)
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(smiles) == tokenizer.encode(smiles)
    shutil.copy(ALBERT / "config.json", tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(smiles) == tokenizer.encode(smiles)
    assert again.model_input_names == tokenizer.model_input_names
    assert 11 in again.encode(smiles)


def test_a_pattern_takes_text_as_it_is(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, model_type="bert", pattern=r"\w+")
    assert tokenizer.tokens("Cat, CAT cat cats!", add_special_tokens=False) == [
        "Cat",
        "[UNK]",
        "cat",
        "[UNK]",
    ]
    with pytest.raises(ValueError, match=r"pattern='\(\(' is not a regular expression"):
        load_tokenizer(folder, model_type="bert", pattern="((")
    assert load_tokenizer(folder, model_type="bert", pattern="x*").encode("cat") == [2, 3]


def test_a_list_of_words_asks_for_its_pattern() -> None:
    with pytest.raises(ValueError, match=r"vocab\.txt is a list of whole words.*Pass pattern="):
        load_tokenizer(ALBERT)


def test_an_albert_with_word_pieces(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, model_type="albert")
    assert tokenizer.tokens("The cats") == ["[CLS]", "the", "cat", "##s", "[SEP]"]


# Saving


def test_saving_keeps_what_the_files_said(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    shutil.copy(MINILM / "tokenizer.json", source)
    stated = {
        "model_max_length": 77,
        "padding_side": "left",
        "truncation_side": "left",
        "tokenizer_class": "BertTokenizer",
        "chat_template": "{{ messages }}",
        "auto_map": {"AutoTokenizer": ["code.Class", None]},
        "additional_special_tokens": ["[EXTRA]"],
        "custom": {"kept": True},
    }
    _json(source, tokenizer_config=stated, config={"model_type": "bert"})
    (source / "chat_template.jinja").write_text("{% for m in messages %}é{% endfor %}", encoding="utf-8")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("tools")
    load_tokenizer(source).save(target)

    written = json.loads((target / "tokenizer_config.json").read_text())
    for key in ("model_max_length", "padding_side", "truncation_side", "chat_template", "custom"):
        assert written[key] == stated[key]
    assert "auto_map" not in written  # names code that is not saved
    for name in ("chat_template.jinja", "additional_chat_templates/tools.jinja"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    content = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["padding"] is content["truncation"] is None

    tokenizer = load_tokenizer(target)
    assert tokenizer.encode("x [EXTRA]") == [101, 1060, 30522, 102]
    assert tokenizer.special_ids[-1] == 30522
    assert tokenizer("a cat", truncation=True, max_length=3).input_ids.tolist() == [[101, 4937, 102]]
    assert tokenizer(["a", "a b"], padding=True).input_ids[0].tolist() == [0, 101, 1037, 102]
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    tokenizer.save(target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_leftovers_of_another_tokenizer_do_not_count(tokenizer: Tokenizer, tmp_path: Path) -> None:
    _json(tmp_path, special_tokens_map={"mask_token": "cat"}, added_tokens={"strange": 5})
    (tmp_path / "vocab.txt").write_text("other\n")
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.vocab == tokenizer.vocab
    assert (again.mask_token, again.special_ids) == ("[MASK]", tokenizer.special_ids)


def test_a_failed_save_leaves_the_old_files_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(MINILM)
    tokenizer.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write, calls = Path.write_bytes, []

    def fail(self: Path, data: bytes) -> int:
        calls.append(self)
        if len(calls) == 2:
            write(self, data[:10])
            raise OSError("disk full")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        load_tokenizer(ALBERT, pattern=SMILES).save(tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_importing_does_not_import_the_tokenizers_package() -> None:
    code = "import sys, minitx.tokenizer; print('tokenizers' in sys.modules, 'transformers' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["False", "False"]
