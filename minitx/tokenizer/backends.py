"""The `tokenizers` objects of a `Tokenizer`, and the lock that serializes them.

Most checkpoints have one object for everything. Translation models may tokenize source and target texts with
two sentencepiece models, and have a vocabulary apart from their pieces (Marian, M2M-100).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from minitx.tokenizer.files import add_missing
from minitx.tokenizer.pretruncate import pretruncate

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

# Padding and truncation are state of a `tokenizers` object, so threads with different options take turns.
# One lock for all tokenizers keeps each of them picklable.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A fork copies this lock and those inside `tokenizers`, but not the thread that holds them: a child
    # forked while another thread tokenizes would wait forever. So a fork takes its turn too.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """Tokenizes texts and adds special tokens.

    Attributes:
        backend: the `tokenizers` object.
        ids: id of `backend` -> id in the vocabulary; None if they are the same.
    """

    backend: Backend
    ids: tuple[int, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state of a copy, with what the `tokenizers` object leaves out of its own."""
        return {**vars(self), "encode_special_tokens": self.backend.encode_special_tokens}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy."""
        backend = state["backend"]
        backend.encode_special_tokens = state["encode_special_tokens"]
        vars(self).update(backend=backend, ids=state["ids"])

    def to_vocabulary(self, ids: list[int]) -> list[int]:
        """Maps ids of `backend` to ids of the vocabulary."""
        return ids if self.ids is None else [self.ids[index] for index in ids]

    def extended(self, tokens: Sequence[AddedToken], vocabulary: Backend) -> TextEncoder:
        """Returns an encoder that knows new tokens of the vocabulary."""
        if self.ids is None:
            return self
        add_missing(self.backend, tokens)
        size, ids = len(self.ids), vocabulary.get_vocab()
        texts = (self.backend.id_to_token(index) for index in range(size, self.backend.get_vocab_size()))
        return replace(self, ids=(*self.ids, *(ids[text] for text in texts if text is not None)))

    def encode(
        self,
        rows: list[Any],
        truncation: dict[str, Any],
        padding: dict[str, Any],
        *,
        add_special_tokens: bool,
        is_split_into_words: bool = False,
        start: int | None = None,
        post_processor: PostProcessor | None = None,
    ) -> list[Encoding]:
        """Tokenizes a batch.

        Args:
            rows: from `to_rows`.
            truncation, padding: from `truncation_options` and `padding_options`.
            add_special_tokens: add the special tokens around each text.
            is_split_into_words: texts are lists of words.
            start: number of tokens of each text that are needed; None for all.
            post_processor: replaces the post-processor; None keeps it.
        """
        if padding and self.ids is not None:
            padding = padding | {"pad_id": self.backend.token_to_id(padding["pad_token"])}
        with _LOCK:
            try:
                if post_processor is not None:
                    self.backend.post_processor = post_processor
                if start is not None:
                    rows = pretruncate(self.backend, rows, start)
                if truncation:
                    self.backend.enable_truncation(**truncation)
                else:
                    self.backend.no_truncation()
                if padding:
                    self.backend.enable_padding(**padding)
                else:
                    self.backend.no_padding()
                return self.backend.encode_batch(
                    rows,
                    is_pretokenized=is_split_into_words,
                    add_special_tokens=add_special_tokens,
                )
            except BaseException as error:
                # A stride that is too large for one pair of the batch is a panic in Rust, which is not an
                # Exception in Python.
                if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                    options = f" with truncation {truncation}" if truncation else ""
                    raise ValueError(f"These texts cannot be tokenized{options}: {error}") from error
                raise


@dataclass(frozen=True, kw_only=True)
class TokenizerBackends:
    """The parts of one tokenizer.

    Attributes:
        vocabulary: tokens and their ids.
        decoder: tokens of the model's output ids, and their join to text.
        source: tokenizes source texts.
        target: tokenizes target texts.
        files: the vocabulary files by name, if tokenizer.json cannot hold all of these parts.
    """

    vocabulary: Backend
    decoder: Backend
    source: TextEncoder
    target: TextEncoder
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, backend: Backend) -> TokenizerBackends:
        """Uses one `tokenizers.Tokenizer` for all parts."""
        encoder = TextEncoder(backend=backend)
        return cls(vocabulary=backend, decoder=backend, source=encoder, target=encoder, files={})

    def extended(self, texts: Sequence[str], *, special: bool) -> TokenizerBackends:
        """Adds tokens to all parts, each with the next id of the vocabulary; returns the extended parts.

        Raises:
            ValueError: source and target have different ids, or the vocabulary has no free id at its end.
        """
        from tokenizers import AddedToken

        if self.decoder is not self.vocabulary:
            raise ValueError("This tokenizer has separate vocabularies, which take no further tokens.")
        tokens = [AddedToken(text, special=special, normalized=not special) for text in texts]
        with _LOCK:
            add_missing(self.vocabulary, tokens)
            encoders = {id(part): part for part in (self.source, self.target)}
            added = {key: part.extended(tokens, self.vocabulary) for key, part in encoders.items()}
        return replace(self, source=added[id(self.source)], target=added[id(self.target)])

    def contents(self, post_processor: PostProcessor | None) -> Mapping[str, str | bytes]:
        """Returns the tokenizer's files by name; `post_processor` as in `TextEncoder.encode`."""
        if self.files:
            return self.files
        with _LOCK:
            if post_processor is not None:
                self.vocabulary.post_processor = post_processor
            self.vocabulary.no_truncation()
            self.vocabulary.no_padding()
            return {"tokenizer.json": self.vocabulary.to_str(pretty=True)}
