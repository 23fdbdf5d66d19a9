"""Token blocks: text that is tokenized once, and mapped into memory by every run.

`write_tokens` writes a folder of three files: tokens.bin, all ids in a row, as 2 or 4 bytes each;
documents.bin, the end of each document in it, as 8 bytes; tokens.json, their sizes and origin. The files
appear together when all are complete: a process that is killed before leaves none of them, and tokenizing
begins anew. A complete folder is used again if it is of the same text and tokenizer, and refused otherwise.

The system reads the parts that are used, so that the data can be larger than memory, and processes on one
machine share it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from minitx.io import read_json
from minitx.tokenizer import Tokenizer
from minitx.training.data.progress import with_progress
from minitx.transaction import read_consistently, transaction
from minitx.validation import ArgumentValueError, check_flags, check_integer, check_path, check_type

_TOKENS, _DOCUMENTS, _INFO = "tokens.bin", "documents.bin", "tokens.json"
_FORMAT = 1
_BATCH = 2**20  # characters that are tokenized together
_CODES = {torch.uint16: "H", torch.uint32: "I", torch.int64: "q"}  # of the module array
_DTYPES = {"uint16": torch.uint16, "uint32": torch.uint32}


# --- writing ---------------------------------------------------------------------------------------


def write_tokens(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    add_special_tokens: bool = True,
    source: str | None = None,
    progress: bool | None = None,
) -> TokenDocuments:
    """Tokenizes documents into a folder of token blocks.

    Args:
        texts: the documents, such as from `read_texts`; they are taken one after the other.
        tokenizer: a document has the special tokens that it adds, and its end token at the end.
        folder: folder to write to; it is created if it does not exist.
        add_special_tokens: False: text only, for objectives that add the special tokens.
        source: identifies the texts; None: their `fingerprint()`, if they have one.
        progress: show a progress bar; None: at a terminal, after a second.

    Returns:
        The documents. A folder of the same texts, tokenizer and options is used as it is.

    Raises:
        FileExistsError: the folder has tokens of another text or tokenizer, or of an unknown text.
        ValueError: no text, or text that cannot be tokenized.
    """
    check_type("tokenizer", tokenizer, Tokenizer, "a tokenizer of minitx.load_tokenizer")
    check_flags(add_special_tokens=add_special_tokens)
    path = check_path("folder", folder)
    if isinstance(texts, str):
        raise ArgumentValueError("texts", texts, "an iterable of documents", "pass [text] for a single one")
    if source is None and hasattr(texts, "fingerprint"):
        source = texts.fingerprint()
    origin = {
        "source": source,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "add_special_tokens": add_special_tokens,
    }
    if (path / _INFO).exists():
        _check_origin(path, origin)
        return TokenDocuments(path)
    dtype = torch.uint16 if len(tokenizer) <= 2**16 else torch.uint32
    info = {"format": _FORMAT, "vocab_size": len(tokenizer), "dtype": str(dtype).removeprefix("torch.")}
    rows = _tokenize(with_progress(texts, "tokenizing", "documents", progress), tokenizer, add_special_tokens)
    with transaction(path) as files:
        with files.path(_TOKENS).open("wb") as tokens, files.path(_DOCUMENTS).open("wb") as documents:
            sizes = _write(rows, dtype, tokens, documents)
        if sizes["tokens"] == 0:
            raise ArgumentValueError("texts", texts, "at least one document with text")
        files.write_all({_INFO: json.dumps(info | sizes | origin, indent=2) + "\n"})
    return TokenDocuments(path)


def _tokenize(texts: Iterable[str], tokenizer: Tokenizer, add_special_tokens: bool) -> Iterator[list[int]]:
    """Yields the ids of each document that has any."""
    end = tokenizer.eos_token_id if add_special_tokens else None
    for batch in _batches(texts):
        rows = tokenizer(batch, add_special_tokens=add_special_tokens, as_tensors=False).input_ids
        for text, row in zip(batch, rows, strict=True):
            ids = list(row)
            if text.strip() and ids:
                yield ids if end is None or ids[-1] == end else [*ids, end]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(
    rows: Iterable[list[int]], dtype: torch.dtype, tokens: BinaryIO, documents: BinaryIO
) -> dict[str, int]:
    """Writes the ids and the ends of documents; returns the numbers of tokens and documents."""
    end = count = 0
    for ids in rows:
        _put(tokens, dtype, ids)
        end, count = end + len(ids), count + 1
        _put(documents, torch.int64, [end])
    return {"tokens": end, "documents": count}


def _put(file: BinaryIO, dtype: torch.dtype, numbers: Sequence[int]) -> None:
    """Writes integers, little-endian."""
    values = array(_CODES[dtype], numbers)
    if sys.byteorder == "big":
        values.byteswap()
    file.write(values.tobytes())


def _check_origin(folder: Path, origin: dict[str, Any]) -> None:
    """Checks that a complete folder is of the same origin, else raises FileExistsError."""
    info = read_json(folder / _INFO)
    if origin["source"] is None:
        raise FileExistsError(f"{folder} has tokens, and these texts have no fingerprint; pass source=.")
    for key, value in origin.items():
        if info.get(key) != value:
            raise FileExistsError(f"{folder} has tokens of another {key}; choose another folder.")


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Returns a hash of the files of a tokenizer."""
    digest = hashlib.sha256()
    for name, content in sorted(tokenizer.contents().items()):
        digest.update(name.encode() + b"\0" + (content.encode() if isinstance(content, str) else content))
    return digest.hexdigest()


# --- reading ---------------------------------------------------------------------------------------


class _Tokens(ABC):
    """The files of a folder from `write_tokens`, mapped into memory.

    Attributes:
        folder: the folder.
        info: content of tokens.json.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = check_path("folder", folder)
        self._open()

    def _open(self) -> None:
        self.info, self._ids, self._ends = read_consistently(self.folder, self._map)

    def _map(self) -> tuple[dict[str, Any], Tensor, Tensor]:
        if not (self.folder / _INFO).is_file():
            raise FileNotFoundError(f"{self.folder} has no {_INFO}; write_tokens writes such a folder.")
        info = read_json(self.folder / _INFO)
        sizes = [info.get(key) for key in ("tokens", "documents", "vocab_size")]
        is_valid = all(type(size) is int and size > 0 for size in sizes) and info.get("dtype") in _DTYPES
        if info.get("format") != _FORMAT or not is_valid:
            raise ValueError(f"{self.folder / _INFO} is not of this version of write_tokens, or damaged.")
        ids = _map_file(self.folder / _TOKENS, _DTYPES[info["dtype"]], info["tokens"])
        ends = _map_file(self.folder / _DOCUMENTS, torch.int64, info["documents"])
        if int(ends[-1]) != info["tokens"]:
            raise ValueError(f"{self.folder}: {_DOCUMENTS} and {_TOKENS} do not belong together.")
        return info, ids, ends

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state of a copy in another process, which maps the files itself."""
        return {key: value for key, value in vars(self).items() if key not in ("_ids", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy."""
        vars(self).update(state)
        self._open()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r}, {len(self)} of {self.info['tokens']:,} tokens)"

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def vocab_size(self) -> int:
        """The number of tokens of the tokenizer."""
        return int(self.info["vocab_size"])

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Checks that the ids are of this tokenizer.

        Raises:
            ValueError: they are of another.
        """
        if tokenizer_fingerprint(tokenizer) != self.info["tokenizer"]:
            hint = "tokenize the text again, into another folder"
            raise ArgumentValueError("tokenizer", tokenizer, f"the one that wrote {self.folder}", hint)

    def _read(self, start: int, stop: int) -> Tensor:
        """Returns the ids (stop - start,) at these positions."""
        ids = self._ids[start:stop].long()
        if int(ids.max()) >= self.vocab_size:
            raise ValueError(f"{self.folder / _TOKENS} is damaged: it has an id of {int(ids.max())}.")
        return ids

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} is not an index of {len(self)} examples")
        return index % len(self)


def _map_file(path: Path, dtype: torch.dtype, count: int) -> Tensor:
    size = path.stat().st_size
    if size != count * dtype.itemsize:
        raise ValueError(f"{path} has {size:,} bytes instead of {count * dtype.itemsize:,}; is it complete?")
    return torch.from_file(str(path), shared=False, size=count, dtype=dtype)


class TokenDocuments(_Tokens):
    """The documents of a folder from `write_tokens`, a dataset of {"input_ids": (T,)}.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: damaged files.
    """

    def __len__(self) -> int:
        return int(self.info["documents"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns the ids of a document."""
        index = self._index(index)
        start = int(self._ends[index - 1]) if index else 0
        return {"input_ids": self._read(start, int(self._ends[index]))}


class TokenBlocks(_Tokens):
    """Blocks of a folder from `write_tokens`, a dataset of {"input_ids": (T,), "document_ids": (T,)}.

    The documents follow one another, and are cut into blocks of T tokens; fewer tokens at the end are left
    out. `document_ids` count the documents of a block from 0, so that an objective can keep a token from
    attending to another document, and let positions begin anew.

    Args:
        folder: the folder.
        length: T.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: damaged files, or fewer tokens than a block has.
    """

    def __init__(self, folder: str | Path, length: int) -> None:
        self.length = check_integer("length", length, 1)
        super().__init__(folder)
        if len(self) == 0:
            tokens = self.info["tokens"]
            raise ArgumentValueError("length", length, f"at most {tokens}, the number of tokens in {folder}")

    def __len__(self) -> int:
        return int(self.info["tokens"]) // self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns a block."""
        start = self._index(index) * self.length
        positions = torch.arange(start, start + self.length)
        documents = torch.searchsorted(self._ends, positions, right=True)
        return {
            "input_ids": self._read(start, start + self.length),
            "document_ids": documents - documents[0],
        }
