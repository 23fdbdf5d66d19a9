"""Text as the data of a recipe: documents, filtered, or blocks of their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from minitx.tokenizer import Tokenizer
from minitx.training.data.blocks import TokenBlocks, write_tokens
from minitx.training.data.files import Documents as Separation
from minitx.training.data.files import Texts, read_texts
from minitx.training.data.split import split
from minitx.training.recipe.tables import DataTable
from minitx.validation import ArgumentValueError


@dataclass(frozen=True)
class Documents:
    """Documents of a length within bounds; each iteration reads the files anew.

    Attributes:
        texts: all documents.
        shortest, longest: number of characters; None: no bound.
        limit: most documents to keep, the first ones; None: all.
    """

    texts: Texts
    shortest: int = 0
    longest: int | None = None
    limit: int | None = None

    def __iter__(self) -> Iterator[str]:
        """Yields the documents."""
        longest = float("inf") if self.longest is None else self.longest
        kept = (text for text in self.texts if self.shortest <= len(text) <= longest)
        return islice(kept, self.limit)

    def fingerprint(self) -> str:
        """Returns a hash of the files' content and of the bounds, for `write_tokens`."""
        bounds = repr((self.texts.fingerprint(), self.shortest, self.longest, self.limit))
        return hashlib.sha256(bounds.encode()).hexdigest()


def read_documents(
    data: DataTable, files: Sequence[Path], evaluation: Sequence[Path], seed: int
) -> tuple[Documents, Documents | None]:
    """Returns the documents of training and evaluation.

    Args:
        data: how they are read.
        files: of the training, and of the evaluation with a share held out.
        evaluation: files of the evaluation alone.
        seed: of the documents that are held out.

    Raises:
        ArgumentValueError: options of records, or no documents.
    """
    for name in ("columns", "where", "labels"):
        if getattr(data, name):
            hint = f"{files[0]} is read as text"
            raise ArgumentValueError(f"data.{name}", getattr(data, name), "left out with text files", hint)
    bounds = (data.min_characters, data.max_characters, data.limit)
    documents: Separation = data.documents  # type: ignore[assignment]  # checked by the table
    training, other = read_texts(files, documents), None
    if data.held_out:
        training, other = training.split(data.held_out, seed)
    elif evaluation:
        other = read_texts(evaluation, documents)
    kept = check_documents(Documents(training, *bounds), "data.files")
    if other is None:
        return kept, None
    return kept, check_documents(Documents(other, *bounds), "data.evaluation")


def check_documents(documents: Documents, key: str) -> Documents:
    """Returns the documents, if there is one.

    Args:
        documents: to check.
        key: of the recipe, for messages.

    Raises:
        ArgumentValueError: no documents.
    """
    if next(iter(documents), None) is None:
        files = [str(path) for path in documents.texts.paths]
        hint = "do the filters and held_out leave any?"
        raise ArgumentValueError(key, files, "files with at least one document to use", hint)
    return documents


def token_blocks(
    documents: Documents | None,
    tokenizer: Tokenizer,
    folder: Path,
    length: int,
    *,
    special: bool,
    progress: bool | None,
) -> TokenBlocks:
    """Returns blocks of the documents' tokens, which are written unless the folder has them.

    Args:
        documents: None: the folder has the tokens.
        tokenizer: of the documents.
        folder: of the tokens.
        length: tokens per block.
        special: whether documents have the tokenizer's special tokens.
        progress: show a progress bar; None: at a terminal.

    Raises:
        FileExistsError: the folder has tokens of other documents, or of another tokenizer.
        ValueError: tokens of another tokenizer, or fewer than a block has.
    """
    if documents is not None:
        options: dict[str, Any] = {"add_special_tokens": special, "progress": progress}
        try:
            write_tokens(documents, tokenizer, folder, **options)
        except FileExistsError as error:
            reason = str(error).partition(";")[0]
            raise FileExistsError(f"{reason}; remove it, or set data.tokens to another folder.") from None
    blocks = TokenBlocks(folder, length)
    blocks.check_tokenizer(tokenizer)
    return blocks


def split_blocks(blocks: TokenBlocks, share: float, seed: int) -> tuple[Any, Any]:
    """Returns the blocks of training and evaluation; without a share all are of the training."""
    everything: Any = blocks
    return split(everything, share, seed) if share else (everything, None)
