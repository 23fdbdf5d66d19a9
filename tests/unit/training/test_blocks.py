"""Token blocks: written completely or not at all, read back, and refused if they are of something else."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import minitx
from minitx.training.data import blocks
from minitx.training.data.blocks import TokenBlocks, TokenDocuments, write_tokens
from minitx.training.data.files import read_texts
from minitx.training.data.split import split
from minitx.training.tokenizers import train_tokenizer

TEXTS = ["the cat sat on the mat", "a dog", "the dog and the cat sat", "cats and dogs and mats"]


@pytest.fixture(scope="module")
def tokenizer() -> minitx.Tokenizer:
    return train_tokenizer(TEXTS, "gpt2", vocab_size=280)


def expected(tokenizer: minitx.Tokenizer) -> list[list[int]]:
    return [[*tokenizer.encode(text), tokenizer.eos_token_id or 0] for text in TEXTS]


def test_documents_and_blocks(tmp_path: Path, tokenizer: minitx.Tokenizer) -> None:
    documents = write_tokens([*TEXTS[:2], " ", "", *TEXTS[2:]], tokenizer, tmp_path / "a")
    rows = expected(tokenizer)
    assert [row["input_ids"].tolist() for row in documents] == rows
    assert documents[-1]["input_ids"].tolist() == rows[-1]
    assert documents[0]["input_ids"].dtype == torch.int64
    stream = [index for row in rows for index in row]
    owners = [number for number, row in enumerate(rows) for _ in row]
    data = TokenBlocks(tmp_path / "a", 8)
    assert len(data) == len(stream) // 8
    for number, block in enumerate(data):
        part = slice(8 * number, 8 * number + 8)
        assert block["input_ids"].tolist() == stream[part]
        assert block["document_ids"].tolist() == [n - owners[part][0] for n in owners[part]]
    assert data[-1]["input_ids"].tolist() == data[len(data) - 1]["input_ids"].tolist()
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[index]
    assert sorted(os.listdir(tmp_path / "a")) == ["documents.bin", "tokens.bin", "tokens.json"]
    assert (tmp_path / "a" / "tokens.bin").stat().st_size == 2 * len(stream)
    training, validation = split(data, 0.5)
    assert len(training) + len(validation) == len(data)


def test_special_tokens_can_be_left_to_the_objective(tmp_path: Path) -> None:
    t5 = train_tokenizer(TEXTS, "t5", vocab_size=140)
    for special in (False, True):
        (row, *_) = write_tokens(TEXTS, t5, tmp_path / str(special), add_special_tokens=special)
        assert row["input_ids"].tolist() == t5.encode(TEXTS[0], add_special_tokens=special)


def test_a_large_vocabulary_has_four_bytes_per_token(
    tmp_path: Path, tokenizer: minitx.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minitx.Tokenizer, "__len__", lambda self: 70_000)
    documents = write_tokens(TEXTS, tokenizer, tmp_path / "a")
    assert documents.info["dtype"] == "uint32"
    assert [row["input_ids"].tolist() for row in documents] == expected(tokenizer)


def test_batches_do_not_change_the_tokens(
    tmp_path: Path, tokenizer: minitx.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_BATCH", 10)
    assert [row["input_ids"].tolist() for row in write_tokens(TEXTS, tokenizer, tmp_path)] == expected(
        tokenizer
    )


def test_loader_processes_map_the_files_themselves(tmp_path: Path, tokenizer: minitx.Tokenizer) -> None:
    write_tokens(TEXTS, tokenizer, tmp_path)
    data = TokenBlocks(tmp_path, 8)
    assert len(pickle.dumps(data)) < 2000
    copy = pickle.loads(pickle.dumps(data))
    assert copy[1]["input_ids"].tolist() == data[1]["input_ids"].tolist()
    loader = DataLoader(data, batch_size=2, num_workers=1)  # type: ignore[arg-type, var-annotated]
    assert next(iter(loader))["input_ids"].tolist() == [data[i]["input_ids"].tolist() for i in (0, 1)]


def test_a_complete_folder_is_used_again(
    tmp_path: Path, tokenizer: minitx.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(TEXTS))
    folder = tmp_path / "a"
    write_tokens(read_texts(path), tokenizer, folder)
    monkeypatch.setattr(blocks, "_tokenize", None)  # would raise
    assert len(write_tokens(read_texts(path), tokenizer, folder)) == 4
    other = train_tokenizer(TEXTS, "gpt2", vocab_size=270)
    with pytest.raises(FileExistsError, match="has tokens of another tokenizer; choose another folder"):
        write_tokens(read_texts(path), other, folder)
    with pytest.raises(FileExistsError, match="another source"):
        write_tokens(read_texts(path, "lines"), tokenizer, folder)
    with pytest.raises(FileExistsError, match="another add_special_tokens"):
        write_tokens(read_texts(path), tokenizer, folder, add_special_tokens=False)
    with pytest.raises(FileExistsError, match="no fingerprint; pass source="):
        write_tokens(TEXTS, tokenizer, folder)
    path.write_text("other")
    with pytest.raises(FileExistsError, match="another source"):
        write_tokens(read_texts(path), tokenizer, folder)
    data = TokenDocuments(folder)
    data.check_tokenizer(tokenizer)
    with pytest.raises(ValueError, match="tokenize the text again"):
        data.check_tokenizer(other)


def test_an_error_leaves_no_folder(tmp_path: Path, tokenizer: minitx.Tokenizer) -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS
        raise ValueError("the 5th is damaged")

    with pytest.raises(ValueError, match="5th"):
        write_tokens(texts(), tokenizer, tmp_path / "a" / "b")
    for empty in ([], [" "]):
        with pytest.raises(ValueError, match="at least one document with text"):
            write_tokens(empty, tokenizer, tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match=r"pass \[text\]"):
        write_tokens("text", tokenizer, tmp_path / "a")


def test_a_killed_process_leaves_nothing(tmp_path: Path, tokenizer: minitx.Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    code = f"""
        import minitx, itertools
        from minitx.training.data.blocks import write_tokens
        tokenizer = minitx.load_tokenizer({str(tmp_path / "tokenizer")!r})
        write_tokens(itertools.repeat("the cat sat " * 1000), tokenizer, {str(tmp_path / "a")!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    staged = tmp_path / "a" / ".minitx-save" / "files" / "tokens.bin"
    while not (staged.exists() and staged.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(FileNotFoundError, match=r"has no tokens\.json; write_tokens writes such a folder"):
        TokenBlocks(tmp_path / "a", 8)
    documents = write_tokens(TEXTS, tokenizer, tmp_path / "a")
    assert [row["input_ids"].tolist() for row in documents] == expected(tokenizer)
    assert not staged.exists()


def test_damaged_folders(tmp_path: Path, tokenizer: minitx.Tokenizer) -> None:
    write_tokens(TEXTS, tokenizer, tmp_path)
    count = TokenDocuments(tmp_path).info["tokens"]
    with pytest.raises(ValueError, match=f"length=1000 must be at most {count}, the number of tokens"):
        TokenBlocks(tmp_path, 1000)
    tokens = (tmp_path / "tokens.bin").read_bytes()
    (tmp_path / "tokens.bin").write_bytes(b"\xff\xff" + tokens[2:])
    with pytest.raises(ValueError, match="is damaged: it has an id of 65535"):
        TokenBlocks(tmp_path, 8)[0]
    (tmp_path / "tokens.bin").write_bytes(tokens[:-1])
    with pytest.raises(ValueError, match=r"instead of .* is it complete"):
        TokenBlocks(tmp_path, 8)
    (tmp_path / "tokens.bin").write_bytes(tokens)
    ends = (tmp_path / "documents.bin").read_bytes()
    (tmp_path / "documents.bin").write_bytes(ends[:-8] + b"\1" + bytes(7))
    with pytest.raises(ValueError, match="do not belong together"):
        TokenDocuments(tmp_path)
    info = json.loads((tmp_path / "tokens.json").read_text())
    for key in ("format", "tokens", "dtype"):
        (tmp_path / "tokens.json").write_text(json.dumps(info | {key: "7"}))
        with pytest.raises(ValueError, match="not of this version of write_tokens, or damaged"):
            TokenDocuments(tmp_path)
