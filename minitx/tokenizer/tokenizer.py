"""Text to ids and back.

The work on text is done by the `tokenizers` package; this file gives it a small, strict surface:
what goes in is checked, what comes out is one `Batch` that a model can be called with, and nothing
that is asked for is silently left undone.
"""

from __future__ import annotations

import json
import operator
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from minitx.tokenizer.batch import (
    Batch,
    Padding,
    Side,
    Truncation,
    check_side,
    padding_options,
    tidied,
    to_rows,
    to_tensor,
    truncation_options,
)
from minitx.tokenizer.chat import ChatTemplates, named_templates
from minitx.tokenizer.early import starts, words_apart
from minitx.tokenizer.files import (
    CONFIG,
    ROLES,
    Settings,
    write_files,
)

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

# `tokenizers` keeps padding and truncation as state of its object, so that two threads that ask for
# different ones must take turns. One lock for all tokenizers lets each of them be pickled.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A fork copies the lock but not the thread that holds it, and the locks inside of `tokenizers`
    # alike: a child made while another thread tokenizes would wait forever. So a fork takes its turn.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
ANY_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
# What means nothing in another folder: names of code and of paths.
_NOT_SAVED = ("auto_map", "name_or_path", "tokenizer_file", "special_tokens_map_file", "init_inputs")


class Tokenizer:
    """Turns texts into ids and ids into texts. Made by `load_tokenizer`.

    Attributes:
        cls_token, sep_token, pad_token, unk_token, mask_token, bos_token, eos_token: the text of
            a special token; None if this tokenizer has none. With `_id` behind it, its id.
        special_ids: ids of all special tokens, in rising order.
        model_max_length: most tokens that the checkpoint says its model takes; None if it says none.
        padding_side, truncation_side: "right" or "left".
        model_input_names: keys of a `Batch`.
        tidies_spaces: whether decoding takes out the spaces before English punctuation.
        chat: the chat templates of the checkpoint.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        *,
        model_input_names: Sequence[str],
        chat_templates: Mapping[str, str],
    ) -> None:
        config = settings.config
        self._backend = backend
        self._config = dict(config)
        self._chat_templates = dict(chat_templates)

        roles = {role: token.content for role, token in settings.roles.items() if token is not None}
        self.chat = ChatTemplates(named_templates(chat_templates, config), roles)
        self.cls_token, self.cls_token_id = self._role(roles, "cls_token")
        self.sep_token, self.sep_token_id = self._role(roles, "sep_token")
        self.pad_token, self.pad_token_id = self._role(roles, "pad_token")
        self.unk_token, self.unk_token_id = self._role(roles, "unk_token")
        self.mask_token, self.mask_token_id = self._role(roles, "mask_token")
        self.bos_token, self.bos_token_id = self._role(roles, "bos_token")
        self.eos_token, self.eos_token_id = self._role(roles, "eos_token")
        added = backend.get_added_tokens_decoder()
        self.special_ids = tuple(sorted(index for index, token in added.items() if token.special))

        self.model_max_length = settings.limit()
        self.padding_side = check_side(f"{CONFIG}: padding_side", config.get("padding_side", "right"))
        self.truncation_side = check_side(
            f"{CONFIG}: truncation_side", config.get("truncation_side", "right")
        )
        self.model_input_names = tuple(model_input_names)
        # For byte-level BPE the spaces are part of the text, so that transformers ignores this too.
        self.tidies_spaces = (
            settings.flag("clean_up_tokenization_spaces", False) is True
            and type(backend.model).__name__ != "BPE"
        )
        self._words_apart = words_apart(backend)

    def _role(self, roles: Mapping[str, str], role: str) -> tuple[str | None, int | None]:
        text = roles.get(role)
        return text, None if text is None else self._backend.token_to_id(text)

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        return self._backend.get_vocab_size()

    def __repr__(self) -> str:
        kind = type(self._backend.model).__name__
        return f"Tokenizer({kind}, {len(self)} tokens, model_max_length={self.model_max_length})"

    @property
    def vocab(self) -> dict[str, int]:
        """Every token and its id, added ones included."""
        return self._backend.get_vocab()

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        return self._backend.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """The token of an id, None if there is no such id.

        Raises:
            TypeError: no whole number.
        """
        index = _whole(index)
        return self._backend.id_to_token(index) if 0 <= index < 2**32 else None

    def encode(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of one text, or of a pair.

        Raises:
            TypeError, ValueError: as for a call.
        """
        return self._encode_one(text, pair, add_special_tokens).ids

    def tokens(self, text: str, pair: str | None = None, *, add_special_tokens: bool = True) -> list[str]:
        """The tokens of one text, or of a pair: `encode`, to be read.

        Raises:
            TypeError, ValueError: as for a call.
        """
        return self._encode_one(text, pair, add_special_tokens).tokens

    def _encode_one(self, text: str, pair: str | None, add_special_tokens: bool) -> Encoding:
        pairs = None if pair is None else [pair]
        rows = to_rows([text], pairs, is_split_into_words=False)
        return self._run(rows, {}, {}, add_special_tokens=add_special_tokens)[0]

    def __call__(
        self,
        texts: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        pairs: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        padding: Padding = False,
        truncation: Truncation = False,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        add_special_tokens: bool = True,
        is_split_into_words: bool = False,
        return_offsets: bool = False,
        return_special_tokens_mask: bool = False,
        return_overflow: bool = False,
        as_tensors: bool = True,
    ) -> Batch:
        """Turns texts into a batch of ids.

        Args:
            texts: one text or a list of them.
            pairs: the second text of each row, in the form of `texts`.
            padding: True or "longest" fills up to the longest row, "max_length" to `max_length`.
            truncation: True or "longest_first" cuts the longer text of a pair first, "only_first"
                and "only_second" cut just that one.
            max_length: tokens per row, special ones included; None for `model_max_length`. A text
                that is longer without truncation keeps all its ids; the model judges them.
            stride: tokens by which the parts of a text that was cut overlap.
            pad_to_multiple_of: fills up to the next multiple.
            padding_side: "left" or "right"; None for the tokenizer's own.
            add_special_tokens: whether the text is framed as the model expects it.
            is_split_into_words: whether each text is a list of words. (A byte-level tokenizer
                takes words as they are: those after the first need their space.)
            return_offsets: keeps `batch.offsets`.
            return_special_tokens_mask: keeps `batch.special_tokens_mask`.
            return_overflow: gives what was cut off as further rows, and `batch.overflow_to_sample`.
            as_tensors: torch.long tensors of shape (batch, time), else lists of lists. A single
                text is a batch of one; no text at all is a batch of shape (0, 0).

        Raises:
            TypeError: something that is not text.
            ValueError: rows of different lengths as tensors, options that contradict each other
                or would have no effect, or text that is not valid Unicode.
        """
        rows = to_rows(texts, pairs, is_split_into_words=is_split_into_words)
        special = self._backend.num_special_tokens_to_add(pairs is not None)
        cut = truncation_options(
            truncation,
            max_length,
            stride,
            limit=self.model_max_length,
            side=self.truncation_side,
            pair=pairs is not None,
            special=special if add_special_tokens else 0,
        )
        fill = padding_options(
            padding,
            max_length,
            pad_to_multiple_of,
            limit=self.model_max_length,
            side=check_side("padding_side", padding_side or self.padding_side),
            cut=cut,
            token=(self.pad_token, self.pad_token_id),
        )
        # Of what is cut off and not asked for, little is tokenized: it can be far more than the rest.
        brief = self._words_apart and pairs is None and not is_split_into_words and not return_overflow
        start = cut["max_length"] if cut and brief and self.truncation_side == "right" else None
        encodings = self._run(rows, cut, fill, add_special_tokens, is_split_into_words, start)

        samples = list(range(len(encodings)))
        if return_overflow:
            parts = [[encoding, *encoding.overflowing] for encoding in encodings]
            samples = [index for index, part in enumerate(parts) for _ in part]
            encodings = [encoding for part in parts for encoding in part]
        columns = {"input_ids": "ids", "token_type_ids": "type_ids"}
        table = {
            name: [getattr(encoding, columns.get(name, name)) for encoding in encodings]
            for name in self.model_input_names
        }
        extras: dict[str, Any] = {"overflow_to_sample": samples} if return_overflow else {}
        if return_offsets:
            extras["offsets"] = [encoding.offsets for encoding in encodings]
        if return_special_tokens_mask:
            mask = [encoding.special_tokens_mask for encoding in encodings]
            extras["special_tokens_mask"] = to_tensor(mask) if as_tensors else mask
        inputs = {name: to_tensor(values) for name, values in table.items()} if as_tensors else table
        return Batch(inputs, encodings, extras)

    def _run(
        self,
        rows: list[Any],
        cut: dict[str, Any],
        fill: dict[str, Any],
        add_special_tokens: bool,
        is_split_into_words: bool = False,
        start: int | None = None,
    ) -> list[Encoding]:
        """Tokenizes rows; with `start`, of single texts it is enough to give that many tokens."""
        with _LOCK:
            try:
                if start is not None:
                    rows = starts(self._backend, rows, start)
                if cut:
                    self._backend.enable_truncation(**cut)
                else:
                    self._backend.no_truncation()
                if fill:
                    self._backend.enable_padding(**fill)
                else:
                    self._backend.no_padding()
                return self._backend.encode_batch(
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

    def decode(self, ids: Sequence[int] | Tensor, *, skip_special_tokens: bool = False) -> str:
        """The text of one row of ids.

        Args:
            ids: a list, or a tensor of shape (time,).
            skip_special_tokens: whether special tokens are left out.

        Raises:
            TypeError: something else than whole numbers.
            ValueError: an id that is no token's, or more than one row.
        """
        if isinstance(ids, Tensor):
            if ids.dim() != 1:
                raise ValueError(
                    f"decode takes one row of ids, not {tuple(ids.shape)}; decode_batch takes more."
                )
            ids = ids.tolist()
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise TypeError(f"decode takes a row of ids, whole numbers, not {ids!r:.60}.")
        ids = [_whole(index) for index in ids]
        for index in ids:
            if self.id_to_token(index) is None:
                raise ValueError(f"{index} is the id of no token; there are {len(self)} of them, from 0 on.")
        text = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return tidied(text) if self.tidies_spaces else text

    def decode_batch(
        self, ids: Sequence[Sequence[int]] | Tensor, *, skip_special_tokens: bool = False
    ) -> list[str]:
        """The text of each row; `ids` is a list of rows, or a tensor of shape (batch, time)."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The text that a chat model continues, with the special tokens that its template writes.

        Args:
            messages: dicts, most with "role" and "content".
            add_generation_prompt: whether the text ends where the model's answer begins.
            tools: JSON schemas of functions that the model may call.
            template: the name of one of several templates, or one's own in Jinja. None takes "tool_use"
                for tools, where there is one, else "default".
            variables: what this template also reads (`enable_thinking=False`).

        Raises:
            ImportError, TypeError, ValueError: as `ChatTemplates.render`.
        """
        return self.chat.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            template=template,
            variables=variables,
        )

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The ids of `apply_chat_template`: the template has framed the text, nothing is added to it."""
        return self.encode(self.apply_chat_template(messages, **options), add_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json (and chat templates, if there are any).

        Both minitx and transformers' AutoTokenizer read them and give the same ids. The class is
        written as PreTrainedTokenizerFast, whatever it was: transformers 5 takes tokenizer.json as
        it is under that name, and builds it anew from the vocabulary under any other. Nothing is
        replaced before all of it is written.
        """
        with _LOCK:
            self._backend.no_truncation()
            self._backend.no_padding()
            content = self._backend.to_str(pretty=True)
        added = self._backend.get_added_tokens_decoder()
        config = {key: value for key, value in self._config.items() if key not in _NOT_SAVED}
        config |= {
            **{role: getattr(self, role) for role in ROLES},
            "added_tokens_decoder": {
                str(index): token.__getstate__() for index, token in sorted(added.items())
            },
            "model_input_names": list(self.model_input_names),
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "tokenizer_class": ANY_CLASS[0],
        }
        files = {
            "tokenizer.json": content,
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
            **self._chat_templates,
        }
        write_files(Path(folder), files)


def _whole(index: Any) -> int:
    """An id as an int, if it is a whole number: of Python, of numpy, or a tensor without dimensions."""
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(f"{index!r:.60} ({type(index).__name__}) is no id; ids are whole numbers.") from None
