"""Text to ids and back.

The work on text is done by the `tokenizers` package; this file gives it a small, strict surface:
what goes in is checked, what comes out is one `Batch` that a model can be called with, and nothing
that is asked for is silently left undone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from minitx.tokenizer.backends import Encoder, Engine
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
    whole,
)
from minitx.tokenizer.chat import ChatTemplates, named_templates
from minitx.tokenizer.files import (
    CONFIG,
    ROLES,
    Settings,
    write_files,
)
from minitx.tokenizer.languages import Languages
from minitx.tokenizer.pretruncate import words_apart

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

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
        backend: Backend | Engine,
        settings: Settings,
        *,
        model_input_names: Sequence[str],
        chat_templates: Mapping[str, str],
        languages: Languages | None = None,
        saved_as: Mapping[str, str] | None = None,
    ) -> None:
        config = settings.config
        self._engine = engine = backend if isinstance(backend, Engine) else Engine.of(backend)
        self._languages = languages
        self._saved_as = saved_as or {"tokenizer_class": ANY_CLASS[0]}
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
        added = engine.vocabulary.get_added_tokens_decoder()
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
            and type(engine.vocabulary.model).__name__ != "BPE"
        )
        self._words_apart = words_apart(engine.source.backend)

    def _role(self, roles: Mapping[str, str], role: str) -> tuple[str | None, int | None]:
        text = roles.get(role)
        return text, None if text is None else self._engine.vocabulary.token_to_id(text)

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        return self._engine.vocabulary.get_vocab_size()

    def __repr__(self) -> str:
        kind = type(self._engine.source.backend.model).__name__
        return f"Tokenizer({kind}, {len(self)} tokens, model_max_length={self.model_max_length})"

    @property
    def vocab(self) -> dict[str, int]:
        """Every token and its id, added ones included."""
        return self._engine.vocabulary.get_vocab()

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        return self._engine.vocabulary.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """The token of an id, None if there is no such id.

        Raises:
            TypeError: no whole number.
        """
        index = whole(index)
        return self._engine.decoder.id_to_token(index) if 0 <= index < 2**32 else None

    def encode(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, as_target: bool = False
    ) -> list[int]:
        """The ids of one text, or of a pair; options and errors are as for a call."""
        encoder, encoding = self._encode_one(text, pair, add_special_tokens, as_target)
        return encoder.look_up(encoding.ids)

    def tokens(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, as_target: bool = False
    ) -> list[str]:
        """The tokens of one text, or of a pair: `encode`, to be read."""
        return self._encode_one(text, pair, add_special_tokens, as_target)[1].tokens

    def _encode_one(
        self, text: str, pair: str | None, add_special_tokens: bool, as_target: bool
    ) -> tuple[Encoder, Encoding]:
        rows = to_rows([text], None if pair is None else [pair], is_split_into_words=False)
        encoder, frame = self._side(as_target)
        return encoder, encoder.run(rows, {}, {}, add_special_tokens=add_special_tokens, frame=frame)[0]

    def _side(self, as_target: bool) -> tuple[Encoder, PostProcessor | None]:
        """What cuts source or target texts, and what frames them, if that depends on a language."""
        encoder = self._engine.target if as_target else self._engine.source
        if self._languages is None:
            return encoder, None
        return encoder, self._languages.frame(encoder.backend, as_target=as_target)

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
        as_target: bool = False,
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
            as_target: whether the model is to write these texts (the labels of a translation): they are
                framed by `tgt_lang`, and cut by Marian's target.spm. Other checkpoints know no difference.
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
        encoder, frame = self._side(as_target)
        special = (frame or encoder.backend).num_special_tokens_to_add(pairs is not None)
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
        encodings = encoder.run(
            rows,
            cut,
            fill,
            add_special_tokens=add_special_tokens,
            is_split_into_words=is_split_into_words,
            start=start,
            frame=frame,
        )

        samples = list(range(len(encodings)))
        if return_overflow:
            parts = [[encoding, *encoding.overflowing] for encoding in encodings]
            samples = [index for index, part in enumerate(parts) for _ in part]
            encodings = [encoding for part in parts for encoding in part]
        read: dict[str, Callable[[Encoding], list[int]]] = {
            "input_ids": lambda encoding: encoder.look_up(encoding.ids),
            "token_type_ids": lambda encoding: encoding.type_ids,
            "attention_mask": lambda encoding: encoding.attention_mask,
        }
        table = {name: [read[name](encoding) for encoding in encodings] for name in self.model_input_names}
        extras: dict[str, Any] = {"overflow_to_sample": samples} if return_overflow else {}
        if return_offsets:
            extras["offsets"] = [encoding.offsets for encoding in encodings]
        if return_special_tokens_mask:
            mask = [encoding.special_tokens_mask for encoding in encodings]
            extras["special_tokens_mask"] = to_tensor(mask) if as_tensors else mask
        inputs = {name: to_tensor(values) for name, values in table.items()} if as_tensors else table
        return Batch(inputs, encodings, extras)

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
        ids = [whole(index) for index in ids]
        for index in ids:
            if self.id_to_token(index) is None:
                raise ValueError(f"{index} is the id of no token; there are {len(self)} of them, from 0 on.")
        text = self._engine.decoder.decode(ids, skip_special_tokens=skip_special_tokens)
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

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes of the languages between which the checkpoint translates; () if it has none."""
        return () if self._languages is None else tuple(self._languages.tokens)

    @property
    def src_lang(self) -> str | None:
        """The code of the language of the texts that the model reads ("en_XX"); may be set."""
        return None if self._languages is None else self._languages.source

    @src_lang.setter
    def src_lang(self, code: str) -> None:
        languages = self._translating()
        languages.source = languages.check("src_lang", code)

    @property
    def tgt_lang(self) -> str | None:
        """The code of the language of the texts that the model writes; may be set."""
        return None if self._languages is None else self._languages.target

    @tgt_lang.setter
    def tgt_lang(self, code: str | None) -> None:
        languages = self._translating()
        languages.target = None if code is None else languages.check("tgt_lang", code)

    def language_id(self, code: str) -> int:
        """The id of a language's token, with which a translation into it begins (`forced_bos_token_id`).

        Raises:
            ValueError: a language that this tokenizer lacks.
        """
        return self._translating().index(code)

    def _translating(self) -> Languages:
        if self._languages is None:
            raise ValueError(
                "This tokenizer has no languages to choose from (src_lang, tgt_lang, language_id). A Marian "
                'checkpoint for several reads the target at the start of each text: ">>deu<< Good morning."'
            )
        return self._languages

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """The ids of `apply_chat_template`: the template has framed the text, nothing is added to it."""
        return self.encode(self.apply_chat_template(messages, **options), add_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json (and chat templates, if there are any).

        Both minitx and transformers' AutoTokenizer read them and give the same ids. The class is written as
        PreTrainedTokenizerFast, whatever it was: transformers 5 takes tokenizer.json as it is under that
        name, and builds it anew from the vocabulary under any other. What no tokenizer.json can hold (Marian,
        M2M-100) is written as the files that it came from. Nothing is replaced before all of it is written.
        """
        added = self._engine.vocabulary.get_added_tokens_decoder()
        config = {key: value for key, value in self._config.items() if key not in _NOT_SAVED}
        config |= {
            **{role: getattr(self, role) for role in ROLES},
            "added_tokens_decoder": {
                str(index): token.__getstate__() for index, token in sorted(added.items())
            },
            "model_input_names": list(self.model_input_names),
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            **self._saved_as,
        }
        if self._languages is not None:
            config |= {"src_lang": self._languages.source, "tgt_lang": self._languages.target}
        files = {
            **self._engine.contents(self._side(as_target=False)[1] if self.src_lang else None),
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
            **self._chat_templates,
        }
        write_files(Path(folder), files)
