"""Translation, between the languages of a tokenizer, of T5's prefixes, or of Marian's tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minitx.pipelines.generation.options import GenerateOptions
from minitx.pipelines.task import Request
from minitx.pipelines.text.text2text import Text2TextGeneration
from minitx.pipelines.text_task import TextInput
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_optional_strings, warn

# Languages whose names T5's prefixes contain
_NAMES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
_PREFIXED = ("t5",)  # model types that were trained with "translate English to French: "
_MARK = r">>([\w-]+)<<"  # a target language of Marian, a token at the start of a text


@dataclass(frozen=True, kw_only=True)
class TranslationOptions(GenerateOptions):
    """Options of translation.

    Attributes:
        src_lang: language of the texts: a code of the tokenizer, such as "en_XX", or of T5's prefixes, "en".
        tgt_lang: language of the translation, likewise; Marian's codes are those of its tokens, ">>fra<<".
    """

    src_lang: str | None = None
    tgt_lang: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_optional_strings(src_lang=self.src_lang, tgt_lang=self.tgt_lang)


class Translation(Text2TextGeneration):
    """Translation, between the languages of the tokenizer, of T5's prefixes, or of Marian's tokens."""

    Options = TranslationOptions
    key = "translation"

    def options(self, base: Any, values: Mapping[str, Any]) -> Any:
        """As `GenerationTask.options`; it also checks the languages."""
        options = super().options(base, values)
        self.tokenizer_of(options)
        self.prefix_of("", options)
        name = self.task_names(options)[-1]
        if base is None and options.tgt_lang is None and name != self.spec.name:
            warn(f"No languages were stated; using the settings of {name}.")
        return options

    def task_names(self, options: Any) -> list[str]:
        """Returns the name of the task, and with its languages; without any, the first of the checkpoint."""
        names = super().task_names(options)
        if options.src_lang or options.tgt_lang:
            return [*names, f"translation_{options.src_lang}_to_{options.tgt_lang}"]
        return [*names, *[name for name in self._specific if name.startswith("translation_")][:1]]

    @property
    def _specific(self) -> Mapping[str, Any]:
        """The checkpoint's settings by name of the task."""
        config = {} if self.model.checkpoint is None else self.model.checkpoint.config
        return config.get("task_specific_params") or {}

    def ignored(self, options: Any) -> tuple[str, ...]:
        """Returns the language that a checkpoint forces, where the call states another."""
        return ("forced_bos_token_id",) if self.tokenizer.languages and options.tgt_lang else ()

    def tokenizer_of(self, options: Any) -> Tokenizer:
        """Returns a copy of the tokenizer with the languages of the call."""
        tokenizer = super().tokenizer_of(options)
        if tokenizer.languages and (options.src_lang or options.tgt_lang):
            names = {name: getattr(options, name) for name in ("src_lang", "tgt_lang")}
            codes = {name: self._code(code) for name, code in names.items() if code is not None}
            return tokenizer.with_languages(**codes)
        return tokenizer

    def _code(self, code: str) -> str:
        """Returns the tokenizer's code of a language: "en_XX" for "en", if that is the only one."""
        codes = [known for known in self.tokenizer.languages if known.startswith(f"{code}_")]
        return codes[0] if code not in self.tokenizer.languages and len(codes) == 1 else code

    def preprocess(self, request: Request, options: Any) -> list[TextInput]:
        """As in `Text2TextGeneration`; the target language must be known."""
        forced = getattr(self.plan(options).strategy, "forced_bos_token_id", None)
        if self.tokenizer.languages and self.tokenizer_of(options).tgt_lang is None and forced is None:
            codes = ", ".join(self.tokenizer.languages)
            raise ArgumentValueError("tgt_lang", None, f"a language of this tokenizer: {codes}")
        return super().preprocess(request, options)

    @cached_property
    def marks(self) -> dict[str, str]:
        """Language -> its token, of a Marian model for several languages."""
        tokens = (re.fullmatch(_MARK, token) for token in self.tokenizer.vocab)
        return {match[1]: match[0] for match in tokens if match}

    def prefix_of(self, text: str, options: Any) -> str:
        """Returns the prefix of a text, which may name its languages."""
        prefix = self.plan(options).prefix
        source, target = options.src_lang, options.tgt_lang
        if self.tokenizer.languages or (source is None and target is None):
            return prefix
        if self.marks:
            if target not in self.marks:
                known = f"a target language of this model: {', '.join(sorted(self.marks))}"
                raise ArgumentValueError("tgt_lang", target, known)
            return prefix if re.match(_MARK, text) else f"{self.marks[target]} {prefix}"
        if options.prefix is not None or self.task_names(options)[-1] in self._specific:
            return prefix
        if getattr(self.model.checkpoint, "model_type", "") not in _PREFIXED:
            self._check_pair(options)
            return prefix
        if prefix:
            return prefix
        for name, code in (("src_lang", source), ("tgt_lang", target)):
            if code not in _NAMES:
                hint = 'prefix= is another text before each input, "translate English to Polish: "'
                raise ArgumentValueError(name, code, f"one of {', '.join(_NAMES)}", hint)
        return f"translate {_NAMES[source]} to {_NAMES[target]}: "

    def _check_pair(self, options: Any) -> None:
        """Checks languages of a model without any to choose from: those of its files, or of the task's name.

        Raises:
            ArgumentValueError: others, which would have no effect.
        """
        named = dict(zip(("src_lang", "tgt_lang"), self.spec.languages, strict=False))
        for name, key in (("src_lang", "source_lang"), ("tgt_lang", "target_lang")):
            code, known = getattr(options, name), self.tokenizer.config.get(key)
            other = code != known and all(re.fullmatch("[a-z]{2}", str(text)) for text in (code, known))
            if other or code not in (None, known, named.get(name)):
                expected = repr(known) if known else "left out"
                hint = "the model has no other languages to choose from; it translates as it was trained"
                raise ArgumentValueError(name, code, expected, hint)
