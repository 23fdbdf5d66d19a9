"""The JSON files of a tokenizer: tokenizer.json, and the small files beside it or a vocabulary.

tokenizer_config.json, special_tokens_map.json and added_tokens.json overlap; `read_settings` resolves which
of them applies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minitx import io as storage
from minitx.tokenizer.vocabularies.bounds import check_ids

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

CONFIG = "tokenizer_config.json"
INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
# In the order in which transformers appends those that the vocabulary lacks.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Flags for removing spaces in decoding; byte-level BPE needs both.
TIDYING = (
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
)
_MAP = "special_tokens_map.json"
_ADDED = "added_tokens.json"
# Names of code and paths, which have no meaning in another folder.
_NOT_SAVED = ("auto_map", "name_or_path", "tokenizer_file", "special_tokens_map_file", "init_inputs")
_MOST_TOKENS = 10_000  # that a number in the file can add to the vocabulary
_NO_LIMIT = 10**20  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The content of the small JSON files, completed by the defaults of the family.

    Attributes:
        config: tokenizer_config.json.
        special_tokens_map: name ("mask_token") -> token; None if a file sets it to null.
        added: id -> token, of tokens beyond the vocabulary.
        extra: further special tokens, without a name.
    """

    config: Mapping[str, Any]
    special_tokens_map: Mapping[str, AddedToken | None]
    added: Mapping[int, AddedToken]
    extra: tuple[AddedToken, ...]

    def flag(self, name: str, default: bool | None) -> Any:
        """Returns a flag of tokenizer_config.json."""
        value = self.config.get(name, default)
        if value is not None and not isinstance(value, bool):
            wrong(CONFIG, name, value, "true, false or null")
        return value

    def switch(self, name: str, default: bool) -> bool:
        """Returns a flag for which null is the default too."""
        value = self.flag(name, default)
        return default if value is None else bool(value)

    def count(self, name: str, default: int) -> int:
        """Returns a count of tokenizer_config.json; `default` if it is absent or null."""
        value = self.config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
            wrong(CONFIG, name, value, f"an integer from 0 to {_MOST_TOKENS}, or null")
        return value

    def limit(self) -> int | None:
        """Returns `model_max_length`; None if it is absent or a placeholder for no limit."""
        name = "model_max_length" if "model_max_length" in self.config else "max_len"
        value = self.config.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
            wrong(CONFIG, name, value, "a number of at least 1, or null")
        if value >= _NO_LIMIT:
            return None
        if value != int(value):
            wrong(CONFIG, name, value, "an integer, or null")
        return int(value)

    def input_names(self) -> tuple[str, ...] | None:
        """Returns `model_input_names`; None if it is absent."""
        name = "model_input_names"
        value = self.config.get(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or "input_ids" not in value
            or any(x not in INPUT_NAMES for x in value)
        ):
            wrong(CONFIG, name, value, f"a list of names out of {', '.join(INPUT_NAMES)}, with the first")
        return tuple(value)

    def words(self, name: str) -> tuple[str, ...]:
        """Returns a list of words of tokenizer_config.json; () if it is absent or null."""
        value = self.config.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            wrong(CONFIG, name, value, "a list of words, or null")
        return tuple(value)

    def text(self, name: str) -> str:
        """Returns the text of a special token that the tokenizer requires."""
        token = self.special_tokens_map.get(name)
        if token is None:
            raise ValueError(f"This tokenizer needs a {name}; set it in tokenizer_config.json.")
        return token.content


def wrong(file: str, key: str, value: Any, expected: str) -> NoReturn:
    """Refuses a value of a JSON file."""
    raise ValueError(f"{file} has {key}={value!r:.80}; it must be {expected}.")


def read_name(path: Path, key: str) -> str:
    """Returns a string of a JSON object; "" if the file or the key is absent or null.

    Raises:
        ValueError: a damaged file, or a value other than a string.
    """
    value = read_json(path).get(key)
    if value is not None and not isinstance(value, str):
        wrong(str(path), key, value, "a name, or null")
    return value or ""


def read_text(path: Path) -> str:
    """Reads a UTF-8 file; a ValueError names a file with other bytes."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); it may be damaged, fetch it again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; {} without the file; a ValueError names a damaged one."""
    if not path.is_file():
        return {}
    return storage.read_json(path)


def read_settings(
    folder: Path, *, defaults: Mapping[str, str] | None = None, mask_takes_space: bool = False
) -> Settings:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json; all may be absent.

    A tokenizer_config.json with `added_tokens_decoder` (transformers since 4.34) is complete, and the other
    two are ignored; otherwise special_tokens_map.json overrides its special tokens.

    Args:
        folder: folder of the files.
        defaults: special tokens if no file names them.
        mask_takes_space: a mask token without options includes the space before it.

    Raises:
        ValueError: a damaged file, a token that is neither a string nor an object with `content`, or a list
            with anything but tokens.
    """
    config = read_json(folder / CONFIG)
    decoder = config.get("added_tokens_decoder")
    if decoder is not None and not isinstance(decoder, dict):
        wrong(CONFIG, "added_tokens_decoder", decoder, "an object with a token for each id, or null")
    overrides = read_json(folder / _MAP) if decoder is None else {}
    named = {**(defaults or {}), **config, **overrides}
    sides = {key: value for key, value in named.items() if key.endswith("_side")}

    def _file_of(key: str) -> str:
        return _MAP if key in overrides else CONFIG

    special_tokens_map = {
        name: _token(_file_of(name), name, named[name], lstrip=mask_takes_space and name == "mask_token")
        if named[name] is not None
        else None
        for name in SPECIAL_TOKENS
        if name in named
    }
    specific = named.get("model_specific_special_tokens") or {}
    if not isinstance(specific, dict):
        wrong(CONFIG, "model_specific_special_tokens", specific, "an object with a token for each name")
    custom = specific | {
        name: value
        for name, value in named.items()
        if name.endswith("_token") and isinstance(value, str | dict) and name not in SPECIAL_TOKENS
    }
    key = "extra_special_tokens" if named.get("extra_special_tokens") else "additional_special_tokens"
    listed = named.get(key) or []
    if not isinstance(listed, list | dict):
        wrong(_file_of(key), key, listed, "a list of tokens, or an object with a token for each name")
    if isinstance(listed, dict):
        custom |= listed
        listed = []
    for name, value in custom.items():
        special_tokens_map[name] = _token(_file_of(name), name, value)
    extra = tuple(_token(_file_of(key), key, token) for token in listed)
    if decoder is None:
        special = {token.content for token in (*special_tokens_map.values(), *extra) if token is not None}
        added = {}
        for text, index in read_json(folder / _ADDED).items():
            if isinstance(index, bool) or not isinstance(index, int):
                wrong(_ADDED, text, index, "the id of this token, an integer")
            added[index] = _token(_ADDED, text, text, special=text in special)
    else:
        added = {}
        for index, token in decoder.items():
            if not re.fullmatch("[0-9]{1,10}", index):
                wrong(CONFIG, "added_tokens_decoder", index, "an object whose keys are ids, integers")
            added[int(index)] = _token(CONFIG, f"added_tokens_decoder[{index}]", token, special=False)
    return Settings(config=config | sides, special_tokens_map=special_tokens_map, added=added, extra=extra)


def _token(file: str, key: str, value: Any, *, special: bool = True, lstrip: bool = False) -> AddedToken:
    """Reads one token of a JSON file: its text, or an object with its text and options.

    Args:
        file, key: file and key, for errors.
        value: the text or the object.
        special: decoding may skip the token; an object can set this itself.
        lstrip: the token includes the spaces before it, if `value` is a text.
    """
    from tokenizers import AddedToken

    if isinstance(value, str):
        return AddedToken(value, special=special, lstrip=lstrip, normalized=not special)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError(
            f"{file} has {key}={value!r:.80} as a special token; expected its text, or an object with "
            "'content'."
        )
    flags = {
        name: bool(value[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in value
    }
    return AddedToken(value["content"], special=special or bool(value.get("special")), **flags)


def add_tokens(backend: Backend, settings: Settings, special: Iterable[str] = ()) -> None:
    """Adds the tokens that the files list beside a vocabulary, each with its id.

    Args:
        backend: the vocabulary.
        settings: content of the files.
        special: special tokens that the files may leave out.

    Raises:
        ValueError: an id cannot be kept, so that the token would get another row of the embedding.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    changed = []
    for _, token in sorted(settings.added.items()):
        earlier = known.get(token.content)
        if repr(earlier) != repr(token):
            changed.append(_with(token, special=token.special or bool(earlier and earlier.special)))
            known[token.content] = token
    add_all(backend, changed)
    for index, token in sorted(settings.added.items()):
        if backend.token_to_id(token.content) != index:
            raise ValueError(
                f"The token {token.content!r} is listed with id {index}, but has id "
                f"{backend.token_to_id(token.content)} in this vocabulary: the files do not belong together."
            )
    from tokenizers import AddedToken

    # A role makes its token special; a list adds those of its tokens that are missing.
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    roles = [token for token in settings.special_tokens_map.values() if token is not None]
    listed = [*settings.extra, *(AddedToken(text, special=True, normalized=False) for text in special)]
    add_missing(backend, [*roles, *(token for token in listed if token.content not in known)])


def add_missing(backend: Backend, tokens: Iterable[AddedToken]) -> None:
    """Adds tokens after the last id; an added token keeps its options, but becomes special if its new one is.

    Raises:
        ValueError: the vocabulary has no free id after its last.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    fresh: dict[str, AddedToken] = {}
    for token in tokens:
        earlier = known.get(token.content)
        if earlier is None:
            fresh.setdefault(token.content, token)
        elif token.special and not earlier.special:
            fresh[token.content] = _with(earlier, special=True)
    add_all(backend, list(fresh.values()))


def _with(token: AddedToken, *, special: bool) -> AddedToken:
    """Returns a token with its options, special or not."""
    from tokenizers import AddedToken

    state = token.__getstate__()
    return AddedToken(**{**state, "special": special})


def add_all(backend: Backend, tokens: list[AddedToken]) -> None:
    """Adds tokens, or replaces the options of added tokens of the same text.

    Raises:
        ValueError: the vocabulary has no free id after its last.
    """
    missing = [token.content for token in tokens if backend.token_to_id(token.content) is None]
    if missing:
        size = backend.get_vocab_size()  # slow, so only if needed
        if backend.id_to_token(size) is not None:
            raise ValueError(
                f"The vocabulary lacks {missing[0]!r}, and the id after its {size} tokens is taken, since it "
                "has gaps or duplicates. Add the token to the vocabulary file."
            )
    backend.add_tokens(tokens)  # in one call: each takes time for all added tokens


def read_backend(folder: Path) -> Backend:
    """Reads tokenizer.json.

    Raises:
        ValueError: a damaged file.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    text = read_text(path)
    try:
        backend = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(
            f"{path} is not a readable tokenizer ({error}); it may be cut short, fetch it again."
        ) from error
    if re.search("[0-9]{8}", text):  # a vocabulary is slow to list
        check_ids(backend, path)
    return backend


def padding_defaults(backend: Backend) -> dict[str, str]:
    """Returns defaults from the padding and truncation of tokenizer.json, for keys that no other file has."""
    padding, truncation = backend.padding or {}, backend.truncation or {}
    stated = {
        "pad_token": padding.get("pad_token"),
        "padding_side": padding.get("direction"),
        "truncation_side": truncation.get("direction"),
    }
    return {key: value for key, value in stated.items() if value is not None}


def read_vocab_size(folder: Path) -> int | None:
    """Returns the size of the model's vocabulary by config.json, the largest of several; None without one."""
    names = ("vocab_size", "decoder_vocab_size")
    config = read_json(folder / "config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    sizes = [part[name] for part in parts for name in names if type(part.get(name)) is int]
    return max(sizes, default=None)


def read_templates(folder: Path) -> dict[str, str]:
    """Reads the chat template files, by their path in the folder; none may be a link out of it."""
    names = ("chat_template.jinja", "chat_template.json")
    paths = [*(folder / name for name in names), *folder.glob("additional_chat_templates/*.jinja")]
    present = [storage.check_inside(path, folder) for path in sorted(paths) if path.is_file()]
    return {path.relative_to(folder).as_posix(): read_text(path) for path in present}


def saved_config(config: Mapping[str, Any], changes: Mapping[str, Any], vocabulary: Backend) -> str:
    """Returns tokenizer_config.json: its content at loading, what has changed since, and all added tokens."""
    added = sorted(vocabulary.get_added_tokens_decoder().items())
    listed = {str(index): token.__getstate__() for index, token in added}
    kept = {key: value for key, value in config.items() if key not in _NOT_SAVED}
    return json.dumps({**kept, **changes, "added_tokens_decoder": listed}, indent=2) + "\n"
