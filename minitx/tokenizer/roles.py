"""Attributes of a tokenizer that can be assigned: special tokens by their role, and no unknown ones.

The roles are `cls_token`, `pad_token`, ... and their ids.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from minitx.habits import UnknownAttributeError
from minitx.tokenizer.backends import TokenizerBackends
from minitx.tokenizer.batch import as_id, check_tokens
from minitx.tokenizer.chat import ChatTemplates
from minitx.validation import ArgumentValueError, check_optional_strings


class _HasRoles(Protocol):
    chat: ChatTemplates
    _backends: TokenizerBackends

    def _find_added_tokens(self) -> None: ...


class Role:
    """The text of a special token, or None. An assigned text becomes special, and is saved."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: _HasRoles | None, owner: type) -> str | None:
        return None if tokenizer is None else tokenizer.chat.special_tokens.get(self.name)

    def __set__(self, tokenizer: _HasRoles, text: str | None) -> None:
        check_optional_strings(**{self.name: text})
        if text is None:
            tokenizer.chat.special_tokens.pop(self.name, None)
            return
        vocabulary = tokenizer._backends.vocabulary
        index = vocabulary.token_to_id(text)
        if index is None:
            hint = "tokenizer.add_tokens(..., special=True) adds it"
            raise ArgumentValueError(self.name, text, "a token of the vocabulary", hint)
        added = vocabulary.get_added_tokens_decoder().get(index)
        if added is None or not added.special:
            tokenizer._backends = tokenizer._backends.extended(check_tokens([text]), special=True)
            tokenizer._find_added_tokens()
        tokenizer.chat.special_tokens[self.name] = text


class RoleId:
    """The id of a special token, or None; assigning an id assigns its token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.role = name, name.removesuffix("_id")

    def __get__(self, tokenizer: _HasRoles | None, owner: type) -> int | None:
        if tokenizer is None:
            return None
        text = tokenizer.chat.special_tokens.get(self.role)
        return None if text is None else tokenizer._backends.vocabulary.token_to_id(text)

    def __set__(self, tokenizer: _HasRoles, index: int | None) -> None:
        text = None
        if index is not None:
            index = as_id(self.name, index)
            text = tokenizer._backends.vocabulary.id_to_token(index) if 0 <= index < 2**32 else None
            if text is None:
                raise ArgumentValueError(self.name, index, "the id of a token of the vocabulary, or None")
        setattr(tokenizer, self.role, text)


class KnownAttributes:
    """Base class of a tokenizer, whose attributes are those of its class and of its construction."""

    def __getattr__(self, name: str) -> NoReturn:
        known = [other for other in (*dir(type(self)), *vars(self)) if other[0] != "_"]
        raise UnknownAttributeError("tokenizer", type(self).__name__, name, known)

    def __setattr__(self, name: str, value: Any) -> None:
        is_known = name[0] == "_" or name in vars(self) or hasattr(type(self), name)
        if not is_known and "_loaded" in vars(self):  # constructed
            getattr(self, name)  # raises the error with its hint
        super().__setattr__(name, value)
