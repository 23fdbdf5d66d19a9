"""Sentence embeddings: one vector per text.

A sentence-transformers checkpoint is an encoder and a few small files with its pooling, normalization and
maximum length. `embedding_settings` reads those files; `embed` computes the vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.habits import explain_arguments
from minitx.io import read_json
from minitx.layers.pooling import pool_first_attended, pool_mean
from minitx.models import EncoderModel, Model
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_callable,
    check_choice,
    check_flags,
    check_integer,
    check_path,
    check_strings,
    check_type,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Pooling = Literal["mean", "first", "pooler"]

# Pooling in sentence-transformers (older files: `pooling_mode_..._token(s)`) -> pooling here.
POOLING_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "first"}


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """How a text becomes a vector.

    Attributes:
        pooling: "mean" over the tokens, hidden state of the "first" token, or output of the "pooler".
        normalize: scale vectors to length 1, so that a dot product is the cosine similarity.
        max_length: maximum number of tokens; longer texts are truncated. None for the model's maximum.
        prompt: prefix of each text.
        lowercase: lowercase texts before tokenization.
    """

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int | None = None
    prompt: str = ""
    lowercase: bool = False

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_flags(normalize=self.normalize, lowercase=self.lowercase)
        check_strings(prompt=self.prompt)
        if self.max_length is not None:
            check_integer("max_length", self.max_length, 1)

    def prepare(self, texts: Sequence[str]) -> list[str]:
        """Returns the texts with prompt and lowercasing applied."""
        texts = [self.prompt + text for text in texts]
        return [text.lower() for text in texts] if self.lowercase else texts


@explain_arguments("embed")
def embed(
    model: Model,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    settings: EmbeddingSettings | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Computes one vector per text.

    Texts of similar length are batched together to save padding; the vector of a text does not depend on its
    batch, up to rounding.

    Args:
        model: an encoder in eval mode, such as BERT or T5 with head="encoder"; its head is not used.
        texts: N texts.
        tokenizer: tokenizer of the same checkpoint, from `minitx.load_tokenizer`.
        pooling: "mean" over the tokens, hidden state of the "first" token, or output of the "pooler"; padding
            is ignored.
        normalize: scale each vector to length 1.
        max_length: maximum number of tokens, special tokens included, at most the model's; longer texts are
            truncated.
        settings: values of the three arguments that are None, and how texts are prepared; None uses those of
            the checkpoint (`embedding_settings`, read once per model).
        batch_size: texts per forward.
        progress: called with the number of texts after each batch.

    Returns:
        (N, E), in the order of `texts`, on the model's device; float32, or float64 for a float64 model.

    Raises:
        TypeError: `model` is not a model, `tokenizer` is from another library, or `texts` is not a list of
            strings.
        ValueError: a model that is no encoder or in training mode, an unknown pooling, "pooler" without
            a pooler, a size below 1.
    """
    check_type("model", model, nn.Module, "a model", "call embed(model, texts, tokenizer=tokenizer)")
    if callable(texts):  # the order of earlier versions: embed(model, tokenizer, texts)
        swapped: Any = (tokenizer, texts)
        texts, tokenizer = swapped
    check_callable("tokenizer", tokenizer, "load it with minitx.load_tokenizer")
    check_integer("batch_size", batch_size, 1)
    if progress is not None:
        check_callable("progress", progress, "it is called with the number of texts after each batch")
    if settings is None:
        settings = checkpoint_settings(model)
    check_type("settings", settings, EmbeddingSettings, "an EmbeddingSettings or None")
    stated: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "max_length": max_length}
    settings = replace(settings, **{name: value for name, value in stated.items() if value is not None})
    check_model(model, settings.pooling)
    texts = settings.prepare(check_texts(texts))
    limit = min(settings.max_length or model.embedder.max_tokens, model.embedder.max_tokens)
    batch_size = 1 if getattr(tokenizer, "pad_token", "") is None else batch_size  # nothing to pad with
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # longest first: memory peaks early
    vectors = [torch.empty(0, model.config.stack.hidden_size, dtype=wide(model.dtype), device=model.device)]
    for start in range(0, len(order), batch_size):
        batch = [texts[i] for i in order[start : start + batch_size]]
        vectors.append(embed_batch(model, tokenizer, batch, settings.pooling, limit))
        if progress is not None:
            progress(len(batch))
    sorted_vectors = torch.cat(vectors).detach()
    result = torch.empty_like(sorted_vectors)
    result[torch.tensor(order, dtype=torch.long, device=result.device)] = sorted_vectors
    return F.normalize(result, dim=-1) if settings.normalize else result


_SETTINGS: WeakKeyDictionary[Model, EmbeddingSettings] = WeakKeyDictionary()  # read once per model


def checkpoint_settings(model: Model) -> EmbeddingSettings:
    """Returns the settings of the folder that a model was loaded from; the defaults without one."""
    folder = None if model.checkpoint is None else model.checkpoint.folder
    if folder is None:
        return EmbeddingSettings()
    if model not in _SETTINGS:
        _SETTINGS[model] = embedding_settings(folder)
    return _SETTINGS[model]


@torch.inference_mode()
def embed_batch(
    model: Model, tokenizer: Tokenizer, texts: list[str], pooling: Pooling, max_length: int
) -> Tensor:
    """Computes the vectors of one batch, (N, E)."""
    padding = getattr(tokenizer, "pad_token", "") is not None
    batch = tokenizer(texts, padding=padding, truncation=True, max_length=max_length)
    if not isinstance(batch["input_ids"], Tensor):
        raise ArgumentTypeError(
            "tokenizer",
            type(tokenizer),
            "a tokenizer of minitx",
            "load it with minitx.load_tokenizer; this one returns lists",
        )
    if batch["input_ids"].shape[1] == 0:  # empty texts without special tokens
        return torch.zeros(
            len(texts), model.config.stack.hidden_size, dtype=wide(model.dtype), device=model.device
        )
    inputs: dict[str, Tensor] = {name: ids.to(model.device) for name, ids in batch.items()}
    output = model(**inputs)
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled.to(wide(pooled.dtype))
    hidden = output.last_hidden_state
    mask = inputs["attention_mask"].bool()
    hidden = hidden.to(wide(hidden.dtype))
    return pool_mean(hidden, None, mask) if pooling == "mean" else pool_first_attended(hidden, None, mask)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype for sums over many tokens, at least float32."""
    return torch.promote_types(dtype, torch.float32)


def check_texts(texts: Any) -> list[str]:
    """Returns the texts as a list if they are several strings, else raises ArgumentTypeError."""
    if isinstance(texts, str):
        raise ArgumentTypeError("texts", texts, "a list of strings", "wrap a single text in a list: [text]")
    check_type("texts", texts, Iterable, "a list of strings")
    checked = list(texts)
    for index, text in enumerate(checked):
        check_type(f"texts[{index}]", text, str, "a string")
    return checked


def check_model(model: Model, pooling: Pooling) -> None:
    """Checks that a model can embed texts.

    Raises:
        ArgumentValueError: not an encoder, in training mode, or without the pooler that `pooling` needs.
    """
    if not isinstance(model, EncoderModel):
        raise ArgumentValueError(
            "model",
            type(model).__name__,
            "an encoder",
            'of an encoder-decoder such as T5, load the head "encoder"',
        )
    _ = model.config.text_inputs  # an error for inputs other than text
    if any(module.training for module in model.modules()):
        raise ArgumentValueError(
            "model",
            type(model).__name__,
            "in eval mode",
            "dropout would change the vectors; call model.eval()",
        )
    if pooling == "pooler" and model.pooler is None:
        raise ArgumentValueError("pooling", pooling, "'mean' or 'first'", "this model has no pooler")


def check_room(tokenizer: Tokenizer, max_length: int | None) -> None:
    """Checks that the special tokens leave room for text, else raises ArgumentValueError."""
    special = len(tokenizer.encode(""))
    if max_length is not None and max_length <= special:
        hint = f"the tokenizer adds {special} special tokens to each text"
        raise ArgumentValueError("max_length", max_length, f"at least {special + 1}", hint)


# --- sentence-transformers' files ------------------------------------------------------------------


def embedding_settings(folder: str | Path) -> EmbeddingSettings:
    """Reads the files of sentence-transformers in a folder; without them, mean pooling and normalization.

    The files are modules.json, the pooling module's config.json, sentence_bert_config.json and
    config_sentence_transformers.json.

    Raises:
        ValueError: a module, a pooling or an option that minitx does not implement; broken JSON.
    """
    folder = check_path("folder", folder)
    path = folder / "modules.json"
    if not path.is_file():
        return EmbeddingSettings(**transformer_settings(folder), prompt=default_prompt(folder))
    pooling: Pooling = "mean"
    normalize = False
    for position, (kind, place) in enumerate(modules(path)):
        if kind == "Transformer" and position == 0 and Path(place) == Path():
            continue
        if kind == "Transformer" and position == 0:
            raise ValueError(f"{path}: the transformer is in {place!r}; pass that folder instead.")
        if kind == "Pooling":
            pooling = read_pooling(folder / place / "config.json", bool(default_prompt(folder)))
        elif kind == "Normalize":
            normalize = True
        else:
            raise ValueError(
                f"{path}: module {position} is a {kind}, which minitx does not implement; it has "
                "Transformer, Pooling and Normalize, in this order."
            )
    return EmbeddingSettings(
        pooling=pooling,
        normalize=normalize,
        prompt=default_prompt(folder),
        **transformer_settings(folder),
    )


def modules(path: Path) -> list[tuple[str, str]]:
    """Reads modules.json: (class, folder) of each module in order.

    Raises:
        ValueError: not a list of modules, or a folder outside this one.
    """
    listed = []
    try:
        entries = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; expected a list of modules.")
    for entry in entries:
        kind, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ValueError(f"{path}: every module needs a 'type' and a 'path', not {entry!r}.")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ValueError(f"{path}: names {place!r}; a module must be inside the folder.")
        listed.append((kind.rpartition(".")[2], place))
    return listed


def read_pooling(path: Path, prompted: bool) -> Pooling:
    """Reads the pooling of 1_Pooling/config.json; "mean" without the file.

    Newer files have `"pooling_mode": "mean"`, older ones a flag for each kind.
    """
    config = read_json(path) if path.is_file() else {}
    if prompted and config.get("include_prompt") is False:
        raise ValueError(f"{path}: include_prompt=false is not implemented.")
    named = config.get("pooling_mode")
    names = named if isinstance(named, list) else [named]
    if named is None:
        names = [
            old_name(key) for key, on in config.items() if key.startswith("pooling_mode_") and on is True
        ]
    if len(names) > 1 or any(name not in POOLING_NAMES for name in names):
        pooling = " + ".join(map(str, names))
        raise ValueError(f"{path}: pooling {pooling} is not implemented; minitx has mean and cls.")
    return POOLING_NAMES[str(names[0])] if names else "mean"


def old_name(key: str) -> str:
    """Returns the pooling of a flag in older files: pooling_mode_mean_tokens -> mean."""
    return key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")


def transformer_settings(folder: Path) -> dict[str, Any]:
    """Reads `max_length` and `lowercase` from sentence_bert_config.json."""
    path = folder / "sentence_bert_config.json"
    config: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    length, lowercase = config.get("max_seq_length"), config.get("do_lower_case", False)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(f"{path}: max_seq_length={length!r} must be an integer of at least 1.")
    return {"max_length": length, "lowercase": lowercase is True}


def default_prompt(folder: Path) -> str:
    """Reads the default prompt from config_sentence_transformers.json; most checkpoints have none."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise ValueError(f"{path}: default_prompt_name={name!r} is not one of its prompts.")
    prompt: str = prompts[name]
    return prompt
