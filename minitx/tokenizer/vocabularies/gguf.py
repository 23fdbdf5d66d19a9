"""The tokenizer in a GGUF file: SentencePiece's BPE ("llama") or byte-level BPE ("gpt2").

llama.cpp names the regular expression that splits a text before byte-level merges; minitx knows those of
the architectures that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minitx.checkpoint.gguf.checkpoint import gguf_config
from minitx.checkpoint.gguf.header import open_gguf
from minitx.checkpoint.gguf.metadata import Metadata
from minitx.tokenizer._sentencepiece_proto import CONTROL, UNKNOWN, USER_DEFINED, Piece, SentencePieceModel
from minitx.tokenizer.backends import TokenizerBackends
from minitx.tokenizer.files import Settings, add_tokens
from minitx.tokenizer.vocabularies.bounds import check_ids
from minitx.tokenizer.vocabularies.byte_level import QWEN_WORDS
from minitx.tokenizer.vocabularies.declaration import MissingTokenizerError
from minitx.tokenizer.vocabularies.post_processors import optional_boundaries
from minitx.tokenizer.vocabularies.sentencepiece_builder import build_pieces

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend
    from tokenizers.pre_tokenizers import PreTokenizer

_NORMAL, _LARGEST_KIND = 1, 6
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",
    "mask_token": "mask_token_id",
}
# Without an effect on ids and text: marks for infilling and for chats, and a count
_OTHER_KEYS = (
    *("eot_token_id", "eom_token_id", "cls_token_id", "token_type_count", "hf_json"),
    *(f"fim_{name}_token_id" for name in ("pre", "suf", "mid", "pad", "rep", "sep")),
    *(f"{name}_token_id" for name in ("prefix", "suffix", "middle")),
)
_PASS = "use the original checkpoint's: minitx convert makes a folder, into which its files can be copied"


class Words(NamedTuple):
    """How a text is split before byte-level merges.

    Attributes:
        pattern: regular expression of the words; None for GPT-2's own.
        nfc: whether Unicode's composed form comes first.
        digits: whether each digit is a word, before anything else.
        bos: whether the first token is added unless the file states it.
        ignores_merges: whether a whole word of the vocabulary is one token, whatever the merges.
    """

    pattern: str | None = None
    nfc: bool = False
    digits: bool = False
    bos: bool = False
    ignores_merges: bool = False

    def splitter(self, *, prefix: bool = False) -> PreTokenizer:
        """Returns the pre-tokenizer; with `prefix` it adds a space before the text."""
        from tokenizers import Regex, pre_tokenizers

        parts: list[PreTokenizer] = [pre_tokenizers.Digits(individual_digits=True)] if self.digits else []
        if self.pattern is not None:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        own = self.pattern is None
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=own))
        return pre_tokenizers.Sequence(parts) if len(parts) > 1 else parts[0]


_CAPITALS, _SMALLS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"  # of English words


def _cased(endings: str, digits: str) -> str:
    """Returns the expression that also splits a word where a capital follows a small letter."""
    start = r"[^\r\n\p{L}\p{N}]?"
    words = [f"{start}{_CAPITALS}*{_SMALLS}+{endings}", f"{start}{_CAPITALS}+{_SMALLS}*{endings}"]
    return "|".join([*words, digits, r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


_THREE_DIGITS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")  # Llama 3's; Qwen has single digits
WORDS = {
    **dict.fromkeys(("gpt-2", "phi-2"), Words()),
    "olmo": Words(nfc=True),  # of GPT-NeoX too
    "smollm": Words(digits=True),
    "qwen2": Words(QWEN_WORDS, nfc=True),
    "deepseek-r1-qwen": Words(QWEN_WORDS),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"),
        Words(_THREE_DIGITS, bos=True, ignores_merges=True),
    ),
    "tekken": Words(_cased("", r"\p{N}"), bos=True, ignores_merges=True),
    **dict.fromkeys(("gpt-4o", "llama4"), Words(_cased(_ENDINGS, r"\p{N}{1,3}"))),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Words(_THREE_DIGITS)),
}
# The rule of older files, which name none
_USUAL = {"gpt2": "gpt-2", "phi2": "phi-2", "gptneox": "olmo", "qwen2": "qwen2", "llama": "llama-bpe"}
_SENTENCEPIECE = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}  # ids that no file need state


def read_gguf(path: Path) -> tuple[TokenizerBackends, Settings, dict[str, Any]]:
    """Returns the tokenizer of a GGUF file, its settings, and the config of the model.

    Raises:
        MissingTokenizerError: no tokenizer, or one of a kind that minitx does not build.
        ValueError: a damaged one.
    """
    file = open_gguf(path)
    config, keys = gguf_config(path), Metadata(file, "tokenizer.ggml")
    kind = keys.text("model", None)
    if kind is None:
        raise MissingTokenizerError(f"{path}: has no tokenizer; {_PASS}.")
    if kind not in ("llama", "gpt2"):
        reason = f"has a tokenizer of kind {kind!r}; minitx builds llama and gpt2"
        raise MissingTokenizerError(f"{path}: {reason}; {_PASS}.")
    texts = keys.values("tokens", str)
    kinds = keys.values("token_type", int, [_NORMAL] * len(texts))
    if len(kinds) != len(texts) or not all(1 <= kind <= _LARGEST_KIND for kind in kinds):
        raise keys.error("token_type", len(kinds), f"{len(texts)} numbers from 1 to {_LARGEST_KIND}")
    words = _words(keys) if kind == "gpt2" else Words(bos=True)
    settings = _settings(keys, texts, kinds, bos=words.bos, usual={} if kind == "gpt2" else _SENTENCEPIECE)
    backend = _pieces(keys, texts, kinds) if kind == "llama" else _byte_pairs(keys, texts, words)
    check_ids(backend, path)
    add_tokens(backend, settings)
    if wrong := [text for index, text in enumerate(texts) if backend.token_to_id(text) != index]:
        raise ValueError(f"{path}: the token {wrong[0]!r:.60} is in the vocabulary twice; it is damaged.")
    keys.ignore(_OTHER_KEYS)
    if unread := keys.unread():
        reason = f"has {', '.join(unread)}, unknown to minitx for a tokenizer"
        raise MissingTokenizerError(f"{path}: {reason}; {_PASS}.")
    backend.post_processor = optional_boundaries(bos=words.bos)(settings, backend)
    return TokenizerBackends.of(backend), settings, config


def _words(keys: Metadata) -> Words:
    """Returns the rule of a byte-level vocabulary."""
    name = keys.text("pre", "default")
    if name == "default":
        name = _USUAL.get(Metadata(keys.file, "general").text("architecture"), name)
    if name not in WORDS:
        raise MissingTokenizerError(
            f"{keys.file.path}: splits texts by the rule {name!r} (tokenizer.ggml.pre), which minitx does "
            f"not know; it knows {', '.join(WORDS)}; {_PASS}."
        )
    return WORDS[name]


def _settings(
    keys: Metadata, texts: Sequence[str], kinds: Sequence[int], *, bos: bool, usual: Mapping[str, int]
) -> Settings:
    """Returns special tokens and options in the form of tokenizer_config.json.

    Args:
        keys: of the tokenizer.
        texts, kinds: of the tokens.
        digits: whether each digit is a word, before anything else.
        bos: whether the first token is added unless the file states it.
        usual: ids of special tokens that the file need not state; empty for a byte-level vocabulary.
    """
    from tokenizers import AddedToken

    def _token(index: int, special: bool) -> AddedToken:
        return AddedToken(texts[index], special=special, normalized=False)

    roles: dict[str, AddedToken | None] = {}
    for role, key in _ROLES.items():
        index = keys.get(key, usual.get(key))
        if index is not None and (type(index) is not int or not 0 <= index < len(texts)):
            raise keys.error(key, index, f"an id below {len(texts)}")
        if index is not None:
            roles[role] = _token(index, special=True)
    config: dict[str, Any] = {
        "add_bos_token": keys.flag("add_bos_token", bos),
        "add_eos_token": keys.flag("add_eos_token", False),
    }
    keys.expect("add_sep_token", False)
    if (template := _chat_template(keys)) is not None:
        config["chat_template"] = template
    # a user-defined piece of SentencePiece is no added token: the text after it has no space of its own
    apart = (CONTROL,) if usual else (CONTROL, USER_DEFINED)
    listed = {index: kind for index, kind in enumerate(kinds) if kind in apart}
    added = {index: _token(index, special=kind == CONTROL) for index, kind in listed.items()}
    return Settings(config=config, special_tokens_map=roles, added=added, extra=())


def _chat_template(keys: Metadata) -> Any:
    """Returns the chat template, a list if there are several, or None."""
    general = Metadata(keys.file, "tokenizer")
    default, names = general.text("chat_template", None), general.values("chat_templates", str, [])
    named = [{"name": name, "template": general.text(f"chat_template.{name}")} for name in names]
    if not named:
        return default
    return named if default is None else [{"name": "default", "template": default}, *named]


def _pieces(keys: Metadata, texts: Sequence[str], kinds: Sequence[int]) -> Backend:
    """Builds SentencePiece's BPE from pieces and scores."""
    scores = keys.values("scores", float)
    if len(scores) != len(texts):
        raise keys.error("scores", len(scores), f"{len(texts)} numbers")
    keys.ignore(["pre"])
    if keys.get("precompiled_charsmap", None) is not None:
        raise keys.error("precompiled_charsmap", "a table of rules", "left out")
    unknown = [index for index, kind in enumerate(kinds) if kind == UNKNOWN]
    pieces = tuple(map(Piece, texts, scores, kinds))
    model = SentencePieceModel(
        pieces=pieces,
        unk_id=keys.get("unknown_token_id", unknown[0] if unknown else _SENTENCEPIECE["unknown_token_id"]),
        model_type="bpe",
        byte_fallback=any(piece.kind == _LARGEST_KIND for piece in pieces),
        charsmap=b"",
        add_dummy_prefix=keys.flag("add_space_prefix", True),
        remove_extra_whitespaces=keys.flag("remove_extra_whitespaces", False),
        escape_whitespaces=True,
        whitespace_as_suffix=False,
        has_denormalizer=False,
    )
    settings = Settings(config={}, special_tokens_map={}, added={}, extra=())
    return build_pieces(model, [(p.text, p.score) for p in pieces], model.unk_id, settings, first_only=True)


def _byte_pairs(keys: Metadata, texts: Sequence[str], words: Words) -> Backend:
    """Builds byte-level BPE from tokens and merges."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    keys.ignore(["scores", "remove_extra_whitespaces"])
    prefix = keys.flag("add_space_prefix", False)
    merges = []
    for line in keys.values("merges", str):
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise keys.error("merges", line, "two tokens and a space in each line")
        merges.append((left, right))
    vocabulary = {text: index for index, text in enumerate(texts)}
    try:
        backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=words.ignores_merges))
    except Exception as error:  # the library raises nothing narrower
        reason = f"its tokens and merges do not belong together: {error}"
        raise ValueError(f"{keys.file.path}: {reason}.") from error
    if words.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = words.splitter(prefix=prefix)
    backend.decoder = decoders.ByteLevel()
    return backend
