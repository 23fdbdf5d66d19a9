"""Trained tokenizers: equal files for equal text, loaded equally by transformers, and their conventions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import minitx
from minitx.training.tokenizers import train_tokenizer

ROOT = Path(minitx.__file__).parents[1]
STYLES = ("bert", "gpt2", "llama", "t5")
TEXTS = [text for text in (ROOT / "CONTRIBUTING.md").read_text().split("\n\n") if text.strip()]
SAMPLES = (
    "Every file, and  the lock: don't wait.\nTwo lines é 日本 123",
    "<s> [MASK] </s> <|endoftext|> <extra_id_0><|im_start|>x",
)


def trained(style: str, **options: object) -> minitx.Tokenizer:
    return train_tokenizer(TEXTS, style, vocab_size=700, **options)  # type: ignore[arg-type]


def digest(tokenizer: minitx.Tokenizer) -> str:
    return hashlib.sha256(repr(sorted(tokenizer.contents().items())).encode()).hexdigest()


def test_equal_text_gives_equal_files() -> None:
    """Hash tables have another order in each process, and in each call."""
    code = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.unit.training.test_tokenizers import STYLES, digest, trained
        print(*(digest(trained(style)) for style in STYLES))
    """
    runs = {tuple(digest(trained(style)) for style in STYLES) for _ in range(3)}
    for parallel in ("true", "false"):
        environment = os.environ | {"TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        runs.add(tuple(done.stdout.split()))
    assert len(runs) == 1


def test_a_generator_is_read_once() -> None:
    assert digest(train_tokenizer(iter(TEXTS), "bert", vocab_size=700)) == digest(trained("bert"))


@pytest.mark.parametrize("style", STYLES)
def test_transformers_loads_it_equally(tmp_path: Path, style: str) -> None:
    tokenizer = trained(style, chat_template="chatml", special_tokens=["<extra>"])
    tokenizer.save(tmp_path)
    ours, theirs = minitx.load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in SAMPLES:
        ids = tokenizer.encode(text)
        assert ids == ours.encode(text) == theirs(text)["input_ids"]
        assert tokenizer.decode(ids) == ours.decode(ids) == theirs.decode(ids)
    pair = tokenizer(SAMPLES[0], pairs="b", as_tensors=False)
    assert {name: list(rows[0]) for name, rows in pair.items()} == dict(theirs(SAMPLES[0], "b"))
    for role in ("pad_token", "bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token"):
        assert getattr(ours, role) == getattr(tokenizer, role) == getattr(theirs, role)
    assert len(ours) == len(theirs) == len(tokenizer) <= 700
    assert "<extra>" in theirs.all_special_tokens
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert ours.apply_chat_template(chat, add_generation_prompt=False) == rendered
    assert theirs.apply_chat_template(chat, tokenize=False) == rendered
    assert len([token for token in ours.tokens(rendered) if token.startswith("<|im_")]) == 4


def test_conventions_of_bert() -> None:
    tokenizer = trained("bert", lowercase=True)
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.tokens("FILES")[0] == "[CLS]"
    assert tokenizer.encode("Files") == tokenizer.encode("files")
    assert list(tokenizer("a", pairs="a")) == ["input_ids", "token_type_ids", "attention_mask"]
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)  # not the pieces that fix the order
    inner = [token for token in tokenizer.vocab if token.startswith("##") and len(token) == 3]
    assert "##e" in inner
    assert "##," not in inner


def test_conventions_of_gpt2() -> None:
    tokenizer = trained("gpt2")
    assert len(tokenizer) == 700
    assert tokenizer.eos_token_id == 699
    for text in SAMPLES:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_conventions_of_llama() -> None:
    tokenizer = trained("llama")
    first = [tokenizer.id_to_token(i) for i in range(4)]
    assert first == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert tokenizer.special_ids == (0, 1, 2)
    assert train_tokenizer(["12 12"], "llama", vocab_size=270).tokens("12")[-2:] == ["1", "2"]
    assert tokenizer.tokens("a\n語")[2:] == ["<0x0A>", "<0xE8>", "<0xAA>", "<0x9E>"]
    assert tokenizer.decode(tokenizer.encode(SAMPLES[0]), skip_special_tokens=True) == SAMPLES[0]


def test_conventions_of_t5() -> None:
    tokenizer = trained("t5")
    assert [tokenizer.id_to_token(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert tokenizer.token_to_id("<extra_id_0>") == len(tokenizer) - 1
    assert tokenizer.token_to_id("<extra_id_99>") == len(tokenizer) - 100
    assert tokenizer.encode(" the  file ") == tokenizer.encode("the file")


@pytest.mark.parametrize("style", STYLES)
def test_texts_without_text(style: str) -> None:
    for empty in ([], ["", " \n"], iter(())):
        with pytest.raises(ValueError, match="at least one document with text"):
            train_tokenizer(empty, style)


@pytest.mark.parametrize(("style", "least"), [("bert", 8), ("gpt2", 257), ("llama", 262), ("t5", 106)])
def test_the_smallest_vocabulary(style: str, least: int) -> None:
    text = ["ab ab"]
    assert len(train_tokenizer(text, style, vocab_size=least)) == least
    with pytest.raises(ValueError, match=rf"vocab_size={least - 1} must be at least {least}; alphabet and"):
        train_tokenizer(text, style, vocab_size=least - 1)


def test_tokens_and_sizes_that_cannot_be_meant() -> None:
    """A string would be taken for its characters, and the trainer reserves memory for every token."""
    with pytest.raises(TypeError, match=r"special_tokens='<x>' must be a list of strings.*; pass \[token\]"):
        train_tokenizer(["a b"], special_tokens="<x>")
    with pytest.raises(ValueError, match="vocab_size=1000000000000 must be from 1 to 16777216"):
        train_tokenizer(["a b"], vocab_size=10**12)


def test_arguments_that_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="style='roberta' must be one of 'bert'"):
        train_tokenizer(TEXTS, "roberta")
    with pytest.raises(TypeError, match=r"pass \[text\]"):
        train_tokenizer("text")
    with pytest.raises(ValueError, match=r"texts='\\ud800 a' must be without halves of surrogate pairs"):
        train_tokenizer(["\ud800 a"])
    with pytest.raises(TypeError, match="texts=1 must be strings"):
        train_tokenizer([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="special_tokens=' ' must be a text that is not empty"):
        train_tokenizer(TEXTS, special_tokens=[" "])


def test_a_bar_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    trained("bert", progress=True)
    captured = capsys.readouterr()
    assert "counting characters" in captured.err
    assert "training the tokenizer" in captured.err
    assert captured.out == ""
    trained("bert", progress=False)
    assert capsys.readouterr().err == ""
