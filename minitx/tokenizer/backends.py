"""The `tokenizers` objects behind a `Tokenizer`, and the lock under which they work.

For most checkpoints one such object does everything. A translation model may cut source and target texts
by two sentencepiece models, and look their pieces up in a vocabulary of its own (Marian, M2M-100).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minitx.tokenizer.pretruncate import starts

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

# `tokenizers` keeps padding and truncation as state of its object, so that two threads that ask for
# different ones must take turns. One lock for all tokenizers lets each of them be pickled.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A fork copies the lock but not the thread that holds it, and the locks inside of `tokenizers`
    # alike: a child made while another thread tokenizes would wait forever. So a fork takes its turn.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Cuts texts and frames them.

    Attributes:
        backend: does the work.
        ids: the id in the vocabulary of each id of `backend`; None where they are the same.
    """

    backend: Backend
    ids: tuple[int, ...] | None = None

    def look_up(self, ids: list[int]) -> list[int]:
        """Ids of `backend` as ids of the vocabulary."""
        return ids if self.ids is None else [self.ids[index] for index in ids]

    def run(
        self,
        rows: list[Any],
        cut: dict[str, Any],
        fill: dict[str, Any],
        *,
        add_special_tokens: bool,
        is_split_into_words: bool = False,
        start: int | None = None,
        frame: PostProcessor | None = None,
    ) -> list[Encoding]:
        """Tokenizes rows.

        Args:
            rows: what `to_rows` returned.
            cut, fill: what `truncation_options` and `padding_options` returned.
            add_special_tokens: whether texts are framed.
            is_split_into_words: whether texts are lists of words.
            start: of single texts it is enough to give that many tokens; None for all of them.
            frame: what frames the texts from now on; None for what did before.
        """
        if fill and self.ids is not None:
            fill = fill | {"pad_id": self.backend.token_to_id(fill["pad_token"])}
        with _LOCK:
            try:
                if frame is not None:
                    self.backend.post_processor = frame
                if start is not None:
                    rows = starts(self.backend, rows, start)
                if cut:
                    self.backend.enable_truncation(**cut)
                else:
                    self.backend.no_truncation()
                if fill:
                    self.backend.enable_padding(**fill)
                else:
                    self.backend.no_padding()
                return self.backend.encode_batch(
                    rows,
                    is_pretokenized=is_split_into_words,
                    add_special_tokens=add_special_tokens,
                )
            except BaseException as error:
                # A stride that one pair of this batch leaves no room for is a panic in Rust, which
                # is no Exception in Python.
                if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                    asked = f" cut to {cut}" if cut else ""
                    raise ValueError(f"These texts cannot be tokenized{asked}: {error}") from error
                raise


@dataclass(frozen=True, kw_only=True)
class Engine:
    """All parts of one tokenizer.

    Attributes:
        vocabulary: knows the tokens and their ids.
        decoder: knows the tokens of ids that a model gives, and joins them to text.
        source: cuts texts that a model reads.
        target: cuts texts that a model is to write.
        files: the vocabulary files, by name, where no tokenizer.json can hold all of these parts.
    """

    vocabulary: Backend
    decoder: Backend
    source: Encoder
    target: Encoder
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, backend: Backend) -> Engine:
        """One `tokenizers.Tokenizer` as all parts."""
        encoder = Encoder(backend=backend)
        return cls(vocabulary=backend, decoder=backend, source=encoder, target=encoder, files={})

    def contents(self, frame: PostProcessor | None) -> Mapping[str, str | bytes]:
        """The files that hold the tokenizer, by name; `frame` as in `Encoder.run`."""
        if self.files:
            return self.files
        with _LOCK:
            if frame is not None:
                self.vocabulary.post_processor = frame
            self.vocabulary.no_truncation()
            self.vocabulary.no_padding()
            return {"tokenizer.json": self.vocabulary.to_str(pretty=True)}
