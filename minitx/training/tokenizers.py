"""Tokenizers trained on text: WordPiece, byte-level BPE, BPE with bytes, and Unigram.

The `tokenizers` library does the work. Its trainers keep words in hash tables whose order differs from run to
run, with two effects on the result, which are removed here:

- WordPiece numbers the pieces inside of words, ##a, in the order in which it meets them, and breaks ties
  between merges by these numbers. Here it gets all of them beforehand, sorted.
- Unigram gives the characters that no longer have a probability the lowest scores, in any order, and adds up
  expected counts in any order. Here these scores follow the order of the characters, and all are rounded.

So the same text gives the same files.

Unigram's pieces of several characters are strings that at least two different words have in common.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from minitx.io import write_json
from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.training.data.progress import with_progress
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_flags,
    check_integer,
    check_optional_strings,
    check_strings,
    check_type,
)

_SPACE = "\u2581"  # stands for a space in pieces, as in sentencepiece
_ALPHABET = 1000  # most characters that get a token of their own
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SENTINELS = tuple(f"<extra_id_{index}>" for index in range(99, -1, -1))  # T5's order: 0 is the last
_UNUSED_STEP = 1e-4  # between the scores of characters without a probability
_DIGITS = 9  # of scores
CHATML = (  # OpenAI's; `generation` marks the tokens that an assistant is trained on
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
_MOST_TOKENS = 2**24  # the trainers reserve memory for all of them


@dataclass(frozen=True, kw_only=True)
class _Text:
    """The text to train on.

    Attributes:
        documents: the documents; each iteration begins anew.
        counts: character -> how often it occurs, after normalization.
        pairs: the characters that follow one another.
    """

    documents: Iterable[str]
    counts: Counter[str]
    pairs: set[tuple[str, str]]

    def alphabet(self) -> list[str]:
        """Returns the most frequent characters, sorted; no white space."""
        characters = [character for character in self.counts if not character.isspace()]
        return sorted(sorted(characters, key=lambda c: (-self.counts[c], c))[:_ALPHABET])


@dataclass(frozen=True, kw_only=True)
class _Style:
    """The conventions of a family of models.

    Attributes:
        roles: name ("cls_token") -> special token; their ids are in this order.
        template: the special tokens around a text and around a pair, in the library's syntax.
        input_names: arguments of the model.
        build: returns the untrained tokenizer; its argument is `lowercase`.
        train: trains it; returns the tokens that are there for the algorithm's sake, and are not special.
    """

    roles: Mapping[str, str]
    template: tuple[str, str] | None
    input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    build: Callable[[bool], Backend]
    train: Callable[[Backend, _Text, int, Sequence[str]], Backend]


def train_tokenizer(
    texts: Iterable[str],
    style: str = "gpt2",
    *,
    vocab_size: int = 8000,
    lowercase: bool = False,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
    progress: bool | None = None,
) -> Tokenizer:
    r"""Trains a tokenizer; `tokenizer.save(folder)` saves it in Hugging Face's layout.

    | style | algorithm | special tokens |
    | --- | --- | --- |
    | "bert" | WordPiece (arXiv:1609.08144) | [PAD] [UNK] [CLS] [SEP] [MASK] |
    | "gpt2" | BPE over bytes (Radford et al. 2019) | <\|endoftext\|> |
    | "llama" | BPE (arXiv:1508.07909); a rare character becomes its bytes | <unk> <s> </s> |
    | "t5" | Unigram (arXiv:1804.10959) | <pad> </s> <unk>, <extra_id_0> to <extra_id_99> |

    The same text and options give the same tokenizer.

    Args:
        texts: the documents; a generator is read into memory, since they are read twice.
        style: conventions of a family of models, from the table.
        vocab_size: number of tokens, special ones included; fewer if the text has no more.
        lowercase: convert text to lower case; "bert" removes accents too.
        special_tokens: further special tokens.
        chat_template: a template in Jinja, or "chatml", which adds its tokens <|im_start|> and <|im_end|>.
        progress: show a progress bar; None: at a terminal, after a second.

    Raises:
        TypeError: texts that are no strings.
        ValueError: no text, another style, a vocabulary smaller than alphabet and special tokens, a special
            token that is empty.
    """
    check_choice("style", style, _STYLES)
    check_flags(lowercase=lowercase)
    check_optional_strings(chat_template=chat_template)
    if isinstance(texts, str):
        raise ArgumentTypeError("texts", texts, "an iterable of documents", "pass [text] for a single one")
    check_type("texts", texts, Iterable, "an iterable of documents")
    if isinstance(special_tokens, str):
        raise ArgumentTypeError("special_tokens", special_tokens, "a list of strings", "pass [token] for one")
    check_integer("vocab_size", vocab_size, 1, _MOST_TOKENS)
    family = _STYLES[style]
    template = CHATML if chat_template == "chatml" else chat_template
    further = [*special_tokens, *(_CHATML_TOKENS if chat_template == "chatml" else ())]
    for token in further:
        check_strings(special_tokens=token)
        if not token.strip():
            raise ArgumentValueError("special_tokens", token, "a text that is not empty")
    documents = texts if iter(texts) is not texts else list(texts)
    backend = family.build(lowercase)
    text = _count(backend, documents, progress)
    special = list(dict.fromkeys([*family.roles.values(), *further]))
    backend = family.train(backend, text, vocab_size, special)
    if family.template is not None:
        ids = [(token, backend.token_to_id(token)) for token in special]
        single, pair = family.template
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return _as_tokenizer(backend, family, special, template)


def _count(backend: Backend, documents: Iterable[str], progress: bool | None) -> _Text:
    """Counts the characters of normalized documents."""
    counts: Counter[str] = Counter()
    pairs: set[tuple[str, str]] = set()
    for document in with_progress(documents, "counting characters", "documents", progress):
        if not isinstance(document, str):
            raise ArgumentTypeError("texts", document, "strings")
        try:
            document.encode()
        except UnicodeEncodeError:
            raise ArgumentValueError("texts", document, "without halves of surrogate pairs") from None
        text = document if backend.normalizer is None else backend.normalizer.normalize_str(document)
        counts.update(text)
        pairs.update(pairwise(text))
    if all(character.isspace() for character in counts):
        raise ArgumentValueError("texts", documents, "at least one document with text")
    shown = _Shown(documents, progress)
    return _Text(documents=shown, counts=counts, pairs=pairs)


@dataclass(frozen=True)
class _Shown:
    """Documents whose iteration shows a progress bar."""

    documents: Iterable[str]
    progress: bool | None

    def __iter__(self) -> Iterator[str]:
        return with_progress(self.documents, "training the tokenizer", "documents", self.progress)


def _as_tokenizer(
    backend: Backend, family: _Style, special: Sequence[str], template: str | None
) -> Tokenizer:
    """Returns a trained backend with its special tokens and chat template as the files would hold them."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": list(family.input_names),
        **family.roles,
        "extra_special_tokens": [token for token in special if token not in family.roles.values()],
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        backend.save(str(folder / "tokenizer.json"))
        write_json(folder / "tokenizer_config.json", config)
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        return load_tokenizer(folder)


def _check_size(vocab_size: int, tokens: Iterable[str]) -> None:
    """Checks that a vocabulary has room for the tokens that it must have."""
    smallest = len(set(tokens))
    hint = f"alphabet and special tokens have {smallest}"
    check_integer("vocab_size", vocab_size, smallest, hint=hint)


def _without_special(backend: Backend, tokens: Iterable[str]) -> Backend:
    """Returns a backend in which these tokens are part of the vocabulary, but no longer special."""
    content, ordinary = json.loads(backend.to_str()), set(tokens)
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in ordinary]
    return Backend.from_str(json.dumps(content))


def _lowercased(*parts: Any, lowercase: bool) -> Any:
    """Returns the normalizer of these parts; None without any."""
    parts = (*parts, normalizers.Lowercase()) if lowercase else parts
    return normalizers.Sequence(list(parts)) if parts else None


# --- WordPiece -------------------------------------------------------------------------------------


def _build_bert(lowercase: bool) -> Backend:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _train_bert(backend: Backend, text: _Text, vocab_size: int, special: Sequence[str]) -> Backend:
    alphabet = text.alphabet()
    split = backend.pre_tokenizer.pre_tokenize_str
    inner = {right for left, right in text.pairs if len(split(left + right)) == 1 and not left.isspace()}
    inner_pieces = [f"##{character}" for character in alphabet if character in inner]
    _check_size(vocab_size, [*special, *inner_pieces, *alphabet])
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*special, *inner_pieces],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(text.documents, trainer)
    return _without_special(backend, inner_pieces)


# --- BPE -------------------------------------------------------------------------------------------


def _build_gpt2(lowercase: bool) -> Backend:
    backend = Backend(models.BPE())
    backend.normalizer = _lowercased(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def _train_gpt2(backend: Backend, text: _Text, vocab_size: int, special: Sequence[str]) -> Backend:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(vocab_size, [*alphabet, *special])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special),
        min_frequency=2,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(text.documents, trainer)
    backend.add_special_tokens(list(special))  # GPT-2's has the last id
    return backend


def _build_llama(lowercase: bool) -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = _lowercased(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.Punctuation(),
        ]
    )
    replace, strip = decoders.Replace(_SPACE, " "), decoders.Strip(content=" ", left=1)
    backend.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    return backend


def _train_llama(backend: Backend, text: _Text, vocab_size: int, special: Sequence[str]) -> Backend:
    alphabet = [*text.alphabet(), _SPACE]
    _check_size(vocab_size, [*special, *_BYTES, *alphabet])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*special, *_BYTES],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(text.documents, trainer)
    return _without_special(backend, _BYTES)


# --- Unigram ---------------------------------------------------------------------------------------


def _build_t5(lowercase: bool) -> Backend:
    backend = Backend(models.Unigram())
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = _lowercased(normalizers.NFKC(), spaces, normalizers.Strip(), lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


def _train_t5(backend: Backend, text: _Text, vocab_size: int, special: Sequence[str]) -> Backend:
    characters = [*(character for character in text.counts if not character.isspace()), _SPACE]
    _check_size(vocab_size, [*special, *_SENTINELS, *characters])
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(_SENTINELS),
        special_tokens=list(special),
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(text.documents, trainer)
    content = json.loads(backend.to_str())
    content["model"]["vocab"] = _with_fixed_scores(content["model"]["vocab"], len(special))
    backend = Backend.from_str(json.dumps(content))
    backend.add_special_tokens(list(_SENTINELS))
    return backend


def _with_fixed_scores(vocabulary: list[tuple[str, float]], special: int) -> list[tuple[str, float]]:
    """Returns the entries of a Unigram model with scores and order that do not depend on a hash table.

    Args:
        vocabulary: pieces with their log-probabilities, special tokens first.
        special: number of special tokens.
    """
    scores = dict(vocabulary[special:])
    lowest = min(scores.values())
    steps = {piece: (score - lowest) / _UNUSED_STEP for piece, score in scores.items() if len(piece) == 1}
    unused = sorted(piece for piece, step in steps.items() if abs(step - round(step)) < 1e-6)
    scores |= dict(zip(unused, sorted(scores[piece] for piece in unused), strict=True))
    rounded = [(piece, round(score, _DIGITS)) for piece, score in scores.items()]
    return [*vocabulary[:special], *sorted(rounded, key=lambda entry: (-entry[1], entry[0]))]


_STYLES = {
    "bert": _Style(
        roles={
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
        template=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        input_names=("input_ids", "token_type_ids", "attention_mask"),
        build=_build_bert,
        train=_train_bert,
    ),
    "gpt2": _Style(
        roles=dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
        template=None,
        build=_build_gpt2,
        train=_train_gpt2,
    ),
    "llama": _Style(
        roles={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        template=("<s> $A", "<s> $A <s>:1 $B:1"),
        build=_build_llama,
        train=_train_llama,
    ),
    "t5": _Style(
        roles={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        template=("$A </s>", "$A </s> $B </s>"),
        build=_build_t5,
        train=_train_t5,
    ),
}
