"""The JSON files of a tokenizer's folder: tokenizer.json, and the small ones beside a vocabulary.

tokenizer_config.json, special_tokens_map.json and added_tokens.json say partly the same;
`read_settings` knows which of them has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from minitx import io as storage

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

CONFIG = "tokenizer_config.json"
INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
# In the order in which transformers appends those that the vocabulary lacks.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MAP = "special_tokens_map.json"
_ADDED = "added_tokens.json"
_NO_LIMIT = 10**20  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the small JSON files beside a vocabulary say, completed by the family's defaults.

    Attributes:
        config: tokenizer_config.json, as it is.
        roles: the token of each role ("mask_token": ...); None where a file says there is none.
        added: tokens beyond the vocabulary by their id.
        extra: further special tokens, without a role.
    """

    config: Mapping[str, Any]
    roles: Mapping[str, AddedToken | None]
    added: Mapping[int, AddedToken]
    extra: tuple[AddedToken, ...]

    def flag(self, name: str, default: bool | None) -> Any:
        """One yes/no option of tokenizer_config.json."""
        value = self.config.get(name, default)
        if value is not None and not isinstance(value, bool):
            wrong(CONFIG, name, value, "true, false or null")
        return value

    def count(self, name: str, default: int) -> int:
        """One number of tokenizer_config.json; `default` where there is none, or null."""
        value = self.config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            wrong(CONFIG, name, value, "a whole number of at least 0, or null")
        return value

    def limit(self) -> int | None:
        """Most tokens that the model takes; None where the file says none, or a number beyond all texts."""
        name = "model_max_length" if "model_max_length" in self.config else "max_len"
        value = self.config.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
            wrong(CONFIG, name, value, "a number of at least 1, or null")
        if value >= _NO_LIMIT:
            return None
        if value != int(value):
            wrong(CONFIG, name, value, "a whole number, or null")
        return int(value)

    def input_names(self) -> tuple[str, ...] | None:
        """The keys of a batch; None where the file names none."""
        name = "model_input_names"
        value = self.config.get(name)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or "input_ids" not in value
            or any(x not in INPUT_NAMES for x in value)
        ):
            wrong(
                CONFIG, name, value, f"a list of names out of {', '.join(INPUT_NAMES)}, the first among them"
            )
        return tuple(value)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words in tokenizer_config.json; it may be absent or null."""
        value = self.config.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            wrong(CONFIG, name, value, "a list of words, or null")
        return tuple(value)

    def text(self, role: str) -> str:
        """The text of a role that the tokenizer cannot do without."""
        token = self.roles.get(role)
        if token is None:
            raise ValueError(f"This tokenizer needs a {role}; name it in tokenizer_config.json.")
        return token.content


def wrong(file: str, key: str, value: Any, expected: str) -> NoReturn:
    """Raises the ValueError for a value of another kind than a file must have there."""
    raise ValueError(f"{file} has {key}={value!r:.80}; it must be {expected}.")


def read_name(path: Path, key: str) -> str:
    """One name in a JSON object; "" where there is no such file, no such key, or null.

    Raises:
        ValueError: a damaged file, or something else than text.
    """
    value = read_json(path).get(key)
    if value is not None and not isinstance(value, str):
        wrong(str(path), key, value, "a name, or null")
    return value or ""


def read_text(path: Path) -> str:
    """Reads a UTF-8 file; a ValueError names a file that is not one."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); it may be damaged, fetch it again.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; {} where there is no file, and a ValueError names a damaged one."""
    if not path.is_file():
        return {}
    return storage.read_json(path)


def read_settings(
    folder: Path, *, defaults: Mapping[str, str] | None = None, mask_takes_space: bool = False
) -> Settings:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json; all may be absent.

    A tokenizer_config.json with `added_tokens_decoder` (transformers since 4.34) is complete and
    the other two are leftovers; otherwise special_tokens_map.json has the last word on roles.

    Args:
        folder: holds the files.
        defaults: the roles that no file needs to name.
        mask_takes_space: whether a mask token given as mere text swallows the space before it.

    Raises:
        ValueError: a damaged file, a token that is neither a text nor an object with `content`, or
            another list than one of tokens.
    """
    config = read_json(folder / CONFIG)
    decoder = config.get("added_tokens_decoder")
    if decoder is not None and not isinstance(decoder, dict):
        wrong(CONFIG, "added_tokens_decoder", decoder, "an object with a token for each id, or null")
    last_word = read_json(folder / _MAP) if decoder is None else {}
    named = {**(defaults or {}), **config, **last_word}

    def file_of(key: str) -> str:
        return _MAP if key in last_word else CONFIG

    roles = {
        role: _token(file_of(role), role, named[role], lstrip=mask_takes_space and role == "mask_token")
        if named[role] is not None
        else None
        for role in ROLES
        if role in named
    }
    key = "extra_special_tokens" if named.get("extra_special_tokens") else "additional_special_tokens"
    listed = named.get(key) or []
    if not isinstance(listed, list | dict):
        wrong(file_of(key), key, listed, "a list of tokens, or an object with a token for each name")
    extra = tuple(
        _token(file_of(key), key, token)
        for token in (listed.values() if isinstance(listed, dict) else listed)
    )
    if decoder is None:
        special = {token.content for token in (*roles.values(), *extra) if token is not None}
        added = {}
        for text, index in read_json(folder / _ADDED).items():
            if isinstance(index, bool) or not isinstance(index, int):
                wrong(_ADDED, text, index, "the id of this token, a whole number")
            added[index] = _token(_ADDED, text, text, special=text in special)
    else:
        added = {}
        for index, token in decoder.items():
            if not re.fullmatch("[0-9]{1,10}", index):
                wrong(CONFIG, "added_tokens_decoder", index, "an object whose keys are ids, whole numbers")
            added[int(index)] = _token(CONFIG, f"added_tokens_decoder[{index}]", token, special=False)
    return Settings(config=config, roles=roles, added=added, extra=extra)


def _token(file: str, key: str, value: Any, *, special: bool = True, lstrip: bool = False) -> AddedToken:
    """One token of a JSON file: its text, or an object with its text and how it is to be matched.

    Args:
        file, key: where it stands.
        value: the text or the object.
        special: whether decoding may leave it out; an object can also say so itself.
        lstrip: whether it swallows the spaces before it, where `value` is only a text.
    """
    from tokenizers import AddedToken

    if isinstance(value, str):
        return AddedToken(value, special=special, lstrip=lstrip, normalized=not special)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError(
            f"{file}: a special token is given as {value!r:.80} ({key}); expected its text, or an "
            "object with 'content'."
        )
    flags = {
        name: bool(value[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in value
    }
    return AddedToken(value["content"], special=special or bool(value.get("special")), **flags)


def add_tokens(backend: Backend, settings: Settings, special: Iterable[str] = ()) -> None:
    """Adds to a vocabulary the tokens that the files list beside it, each at its stated id.

    Args:
        backend: the vocabulary.
        settings: what the files say.
        special: special tokens that no file needs to list.

    Raises:
        ValueError: a stated id cannot be kept; the token would get another row of the embedding.
    """
    for index, token in sorted(settings.added.items()):
        _add_token(backend, token)
        if backend.token_to_id(token.content) != index:
            raise ValueError(
                f"The token {token.content!r} is listed with id {index}, but this vocabulary gives "
                f"it {backend.token_to_id(token.content)}: the files do not belong together."
            )
    from tokenizers import AddedToken

    roles = (settings.roles.get(role) for role in ROLES)
    unlisted = (AddedToken(text, special=True, normalized=False) for text in special)
    for named in (*roles, *settings.extra, *unlisted):
        if named is not None:
            _add_token(backend, named)


def _add_token(backend: Backend, token: AddedToken) -> None:
    if token.content in {known.content for known in backend.get_added_tokens_decoder().values()}:
        return
    if backend.token_to_id(token.content) is None:
        size = backend.get_vocab_size()  # takes its time, so only where it is needed
        if backend.id_to_token(size) is not None:
            raise ValueError(
                f"The vocabulary lacks {token.content!r}, and the id behind its {size} tokens is taken, "
                "since it has gaps or doubles. Add the token to the vocabulary file."
            )
    if token.special:
        backend.add_special_tokens([token])
    else:
        backend.add_tokens([token])


def read_backend(folder: Path) -> Backend:
    """Reads tokenizer.json.

    Raises:
        ValueError: a damaged file.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_str(read_text(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(
            f"{path} is not a readable tokenizer ({error}); it may be cut short, fetch it again."
        ) from error


def apply_flags(backend: Backend, settings: Settings) -> None:
    """Lets tokenizer_config.json prevail over tokenizer.json, as transformers does.

    Only what it states counts. (transformers also lets the default of a flag prevail that it does
    not state, and so lower-cases a cased tokenizer.json.)
    """
    from tokenizers import normalizers, pre_tokenizers, processors

    # The parts are copies: each is changed and put back.
    normalizer, pre_tokenizer, frame = (
        backend.normalizer,
        backend.pre_tokenizer,
        backend.post_processor,
    )
    if isinstance(normalizer, normalizers.BertNormalizer):
        normalizer.lowercase = settings.flag("do_lower_case", normalizer.lowercase)
        normalizer.strip_accents = settings.flag("strip_accents", normalizer.strip_accents)
        normalizer.handle_chinese_chars = settings.flag(
            "tokenize_chinese_chars", normalizer.handle_chinese_chars
        )
        backend.normalizer = normalizer
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel):
        prefix = settings.flag("add_prefix_space", pre_tokenizer.add_prefix_space)
        pre_tokenizer.add_prefix_space = prefix
        backend.pre_tokenizer = pre_tokenizer
        if isinstance(frame, processors.RobertaProcessing):
            frame.add_prefix_space = prefix
            backend.post_processor = frame


def read_templates(folder: Path) -> dict[str, str]:
    """The files that hold chat templates, by their path in the folder."""
    names = ("chat_template.jinja", "chat_template.json")
    paths = [*(folder / name for name in names), *folder.glob("additional_chat_templates/*.jinja")]
    return {path.relative_to(folder).as_posix(): read_text(path) for path in sorted(paths) if path.is_file()}


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Writes texts, or bytes, into files, none of which is replaced before all of them are written.

    Args:
        folder: made if it is not there.
        contents: what each file holds, by its path in the folder.
    """
    with storage.Staging(folder) as staging:
        for name, content in contents.items():
            staging.path(name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
