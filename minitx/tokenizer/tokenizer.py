"""`Tokenizer`: text to ids and back.

The `tokenizers` package does the work; this class is its small and strict interface. Arguments are checked,
the result is a `Batch` for the model, and no option is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from minitx.checkpoint.write import write_tokenizer
from minitx.habits import ElsewhereMethod, explain_arguments
from minitx.tokenizer.backends import TextEncoder, TokenizerBackends
from minitx.tokenizer.batch import (
    Batch,
    Padding,
    Side,
    Truncation,
    as_id,
    check_side,
    check_tokens,
    clean_up_tokenization,
    collect,
    padding_options,
    to_rows,
    truncation_options,
)
from minitx.tokenizer.chat import ChatTemplates, named_templates
from minitx.tokenizer.files import CONFIG, SPECIAL_TOKENS, TIDYING, Settings, saved_config
from minitx.tokenizer.languages import Languages, Translation
from minitx.tokenizer.pretruncate import splits_at_spaces
from minitx.tokenizer.roles import KnownAttributes, Role, RoleId
from minitx.transaction import transaction
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_flags,
    check_integer,
    check_path,
    check_strings,
    check_type,
)

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import PostProcessor

ANY_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")


class Tokenizer(Translation, KnownAttributes):
    """Converts texts to ids and back; from `minitx.load_tokenizer`.

    Attributes:
        cls_token, sep_token, pad_token, unk_token, mask_token, bos_token, eos_token: text of a special token,
            or None. `cls_token_id` and so on are their ids. Assigning one changes the other, and the saved
            files; the tokens around a text stay.
        special_ids: ids of all special tokens, ascending.
        model_max_length: maximum number of tokens of the model, or None if the files have none.
        padding_side, truncation_side: "right" or "left".
        model_input_names: keys of a `Batch`.
        config: content of tokenizer_config.json.
        tidies_spaces: whether decoding removes spaces before English punctuation.
        chat: the chat templates of the checkpoint.
        num_added_tokens: number of tokens that `add_tokens` has added.
    """

    from_pretrained = ElsewhereMethod("tokenizer")
    cls_token, cls_token_id = Role(), RoleId()
    sep_token, sep_token_id = Role(), RoleId()
    pad_token, pad_token_id = Role(), RoleId()
    unk_token, unk_token_id = Role(), RoleId()
    mask_token, mask_token_id = Role(), RoleId()
    bos_token, bos_token_id = Role(), RoleId()
    eos_token, eos_token_id = Role(), RoleId()

    def __init__(
        self,
        backend: Backend | TokenizerBackends,
        settings: Settings,
        *,
        model_input_names: Sequence[str],
        chat_templates: Mapping[str, str],
        languages: Languages | None = None,
        saved_as: Mapping[str, str] | None = None,
        model_vocab_size: int | None = None,
    ) -> None:
        config = settings.config
        self._backends = backend if isinstance(backend, TokenizerBackends) else TokenizerBackends.of(backend)
        self._languages = languages
        self._saved_as = saved_as or {"tokenizer_class": ANY_CLASS[0]}
        self._model_vocab_size, self.num_added_tokens = model_vocab_size, 0
        self.config, self._chat_templates = dict(config), dict(chat_templates)
        roles = {name: token.content for name, token in settings.special_tokens_map.items() if token}
        self.chat = ChatTemplates(named_templates(chat_templates, config), roles)
        self._find_added_tokens()
        self.model_max_length = settings.limit()
        self.padding_side = check_side(f"{CONFIG}: padding_side", config.get("padding_side", "right"))
        self.truncation_side = check_side(
            f"{CONFIG}: truncation_side", config.get("truncation_side", "right")
        )
        self.model_input_names = tuple(model_input_names)
        # Spaces of byte-level BPE are part of the text; transformers ignores the first flag there too.
        self._tidying = TIDYING[: 2 if type(self._backends.vocabulary.model).__name__ == "BPE" else 1]
        self.tidies_spaces = all(settings.flag(name, False) is True for name in self._tidying)
        self._loaded = self._behaviour()

    def _behaviour(self) -> dict[str, Any]:
        """Returns attributes by the keys of tokenizer_config.json that are written if they change."""
        check_flags(tidies_spaces=self.tidies_spaces)
        if self.model_max_length is not None:
            check_integer("model_max_length", self.model_max_length, 1)
        return {"model_max_length": self.model_max_length} | dict.fromkeys(self._tidying, self.tidies_spaces)

    def _find_added_tokens(self) -> None:
        added = self._backends.vocabulary.get_added_tokens_decoder()
        self.special_ids = tuple(sorted(index for index, token in added.items() if token.special))
        self._splits_at_spaces = splits_at_spaces(self._backends.source.backend)

    def __len__(self) -> int:
        """Returns the number of tokens, added ones included."""
        return self._backends.vocabulary.get_vocab_size()

    def __repr__(self) -> str:
        kind = type(self._backends.source.backend.model).__name__
        return f"Tokenizer({kind}, {len(self)} tokens, model_max_length={self.model_max_length})"

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return self._backends.vocabulary.get_vocab()

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token; None if it is not in the vocabulary."""
        check_strings(token=token)
        if any("\ud800" <= character <= "\udfff" for character in token):
            return None  # half of a character, which no vocabulary has
        return self._backends.vocabulary.token_to_id(token)

    def id_to_token(self, index: int) -> str | None:
        """Returns the token of an id; None if it is not in the vocabulary.

        Raises:
            TypeError: not an integer.
        """
        index = as_id("index", index)
        return self._backends.decoder.id_to_token(index) if 0 <= index < 2**32 else None

    def add_tokens(self, tokens: str | Sequence[str], *, special: bool = False) -> int:
        """Adds tokens to the end of the vocabulary; a text is split at them before anything else.

        A model needs a row of its embedding for each: `model.resize_token_embeddings(len(tokenizer))`.

        Args:
            tokens: texts of the tokens. Tokens of the vocabulary keep their ids, but are no longer split.
            special: decoding can skip them.

        Returns:
            The number of tokens by which the vocabulary has grown.

        Raises:
            TypeError: something other than texts.
            ValueError: an empty text, invalid Unicode, or a vocabulary that cannot be extended.
        """
        check_flags(special=special)
        size = len(self)
        self._backends = self._backends.extended(check_tokens(tokens), special=special)
        self._find_added_tokens()
        self._model_vocab_size = None  # the model grows too, often to a round number
        self.num_added_tokens += len(self) - size
        return len(self) - size

    def encode(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, as_target: bool = False
    ) -> list[int]:
        """Returns the ids of one text or pair; options and errors as for a call."""
        encoder, encoding = self._encode_one(text, pair, add_special_tokens, as_target)
        return encoder.to_vocabulary(encoding.ids)

    def tokens(
        self, text: str, pair: str | None = None, *, add_special_tokens: bool = True, as_target: bool = False
    ) -> list[str]:
        """Returns the tokens of one text or pair as strings; options and errors as for a call."""
        return self._encode_one(text, pair, add_special_tokens, as_target)[1].tokens

    def _encode_one(
        self, text: str, pair: str | None, add_special_tokens: bool, as_target: bool
    ) -> tuple[TextEncoder, Encoding]:
        check_flags(add_special_tokens=add_special_tokens)
        rows = to_rows([text], None if pair is None else [pair], is_split_into_words=False)
        encoder, post_processor = self._encoder(as_target)
        (encoding,) = encoder.encode(
            rows, {}, {}, add_special_tokens=add_special_tokens, post_processor=post_processor
        )
        return encoder, encoding

    def _encoder(self, as_target: bool) -> tuple[TextEncoder, PostProcessor | None]:
        """Returns the encoder of source or target texts, and post-processor depending on the language."""
        check_flags(as_target=as_target)
        encoder = self._backends.target if as_target else self._backends.source
        if self._languages is None:
            return encoder, None
        return encoder, self._languages.post_processor(encoder.backend, as_target=as_target)

    @explain_arguments("tokenizer")
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
        """Tokenizes texts into a batch of ids.

        Args:
            texts: one text or a list of texts.
            pairs: the second text of each row, in the form of `texts`.
            padding: True or "longest" pads to the longest row, "max_length" to `max_length`.
            truncation: True or "longest_first" truncates the longer text of a pair first, "only_first" and
                "only_second" that text only.
            max_length: tokens per row, special tokens included; None for `model_max_length`. Without
                truncation a longer text keeps all its ids.
            stride: number of tokens by which the parts of a truncated text overlap.
            pad_to_multiple_of: pad to the next multiple.
            padding_side: "left" or "right"; None for the tokenizer's `padding_side`.
            add_special_tokens: add the special tokens that the model expects.
            is_split_into_words: each text is a list of words; byte-level tokenizers need leading spaces.
            as_target: the texts are decoder inputs or labels, in `tgt_lang` or with Marian's target.spm.
            return_offsets: keep `batch.offsets`.
            return_special_tokens_mask: keep `batch.special_tokens_mask`.
            return_overflow: return truncated parts as further rows, and `batch.overflow_to_sample`.
            as_tensors: return torch.long tensors (B, T), else lists; without texts, the shape is (0, 0).

        Raises:
            TypeError: something that is not text.
            ValueError: rows of different lengths as tensors, contradicting options, or invalid Unicode.
        """
        check_flags(add_special_tokens=add_special_tokens, return_overflow=return_overflow)
        rows = to_rows(texts, pairs, is_split_into_words=is_split_into_words)
        encoder, post_processor = self._encoder(as_target)
        special = (post_processor or encoder.backend).num_special_tokens_to_add(pairs is not None)
        truncated = truncation_options(
            truncation,
            max_length,
            stride,
            limit=self.model_max_length,
            side=self.truncation_side,
            pair=pairs is not None,
            special=special if add_special_tokens else 0,
        )
        padded = padding_options(
            padding,
            max_length,
            pad_to_multiple_of,
            limit=self.model_max_length,
            side=self.padding_side if padding_side is None else padding_side,
            truncation=truncated,
            token=(self.pad_token, self.pad_token_id),
        )
        # The part that is cut off can be far longer than the rest; it is not tokenized if nobody needs it.
        whole = pairs is not None or is_split_into_words or return_overflow or self.truncation_side == "left"
        return collect(
            encoder.encode(
                rows,
                truncated,
                padded,
                add_special_tokens=add_special_tokens,
                is_split_into_words=is_split_into_words,
                start=truncated["max_length"] if truncated and self._splits_at_spaces and not whole else None,
                post_processor=post_processor,
            ),
            self.model_input_names,
            encoder.to_vocabulary,
            overflow=return_overflow,
            offsets=return_offsets,
            special_tokens_mask=return_special_tokens_mask,
            as_tensors=as_tensors,
        )

    def decode(self, ids: Sequence[int] | Tensor, *, skip_special_tokens: bool = False) -> str:
        """Decodes one row of ids. Ids of the model without a token (padding of its vocabulary) add no text.

        Args:
            ids: a list, or a tensor of shape (T,).
            skip_special_tokens: leave out special tokens.

        Raises:
            TypeError: something other than integers.
            ValueError: an id outside the vocabulary of the model, or more than one row.
        """
        check_flags(skip_special_tokens=skip_special_tokens)
        if isinstance(ids, Tensor) and ids.dim() != 1:
            raise ArgumentValueError("ids", ids, "of shape (T,)", "decode_batch takes several rows")
        ids = ids.tolist() if isinstance(ids, Tensor) else ids
        if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
            raise ArgumentTypeError("ids", ids, "a list of integers or a tensor of shape (T,)")
        ids = [index if type(index) is int else as_id("ids", index) for index in ids]
        for index in dict.fromkeys(ids):  # each once: a text may have millions
            if self.id_to_token(index) is None and not self._is_row(index):
                raise ArgumentValueError("ids", index, f"a token id; the vocabulary has {len(self)} tokens")
        text = self._backends.decoder.decode(ids, skip_special_tokens=skip_special_tokens)
        return clean_up_tokenization(text) if self.tidies_spaces else text

    def _is_row(self, index: int) -> bool:
        """Whether the model can have an output of this id: it may have more than the tokenizer has tokens."""
        size = self._model_vocab_size
        return 0 <= index < (2**32 if size is None else max(size, len(self)))

    def decode_batch(
        self, ids: Sequence[Sequence[int]] | Tensor, *, skip_special_tokens: bool = False
    ) -> list[str]:
        """Decodes each row of a list or of a tensor (B, T); errors as for `decode`."""
        check_type("ids", ids, Iterable, "a list of rows of ids, or a tensor of shape (B, T)")
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
        """Renders messages as the prompt of a chat model, special tokens included.

        Args:
            messages: dicts, usually with "role" and "content".
            add_generation_prompt: end the prompt where the model's answer begins.
            tools: JSON schemas of functions that the model may call.
            template: name of a template, or a custom template in Jinja. None uses "tool_use" with tools if
                there is one, else "default".
            variables: further variables of the template (`enable_thinking=False`).

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
        """Returns the ids of `apply_chat_template`, without further special tokens."""
        return self.encode(self.apply_chat_template(messages, **options), add_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Saves tokenizer.json, tokenizer_config.json and chat templates.

        minitx and transformers' AutoTokenizer load them and give the same ids. The class is saved as
        PreTrainedTokenizerFast: transformers 5 uses tokenizer.json as it is under that name, and rebuilds it
        from the vocabulary under any other. Tokenizers that tokenizer.json cannot hold (Marian, M2M-100) are
        saved as their original files. All files replace the folder's together or not at all.
        """
        path, contents = check_path("folder", folder), self.contents()  # before the folder is created
        with transaction(path) as files:
            write_tokenizer(files, contents)

    def contents(self) -> dict[str, str | bytes]:
        """Returns the files that `save` writes: name -> content."""
        changes: dict[str, Any] = {
            **dict.fromkeys(SPECIAL_TOKENS) | self.chat.special_tokens,
            "model_input_names": list(self.model_input_names),
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            **self._saved_as,
        }
        changes |= {key: value for key, value in self._behaviour().items() if value != self._loaded[key]}
        if self._languages is not None:
            changes |= {"src_lang": self._languages.source, "tgt_lang": self._languages.target}
        templates, config = self.chat.saved(self._chat_templates, self.config)
        return {
            **self._backends.contents(self._encoder(as_target=False)[1] if self.src_lang else None),
            CONFIG: saved_config(config, changes, self._backends.vocabulary),
            **templates,
        }
