"""Sentence embeddings: one vector per text, and what a checkpoint says about how it makes them.

Sentence-transformers models are an encoder and a few small files: which pooling, whether the result is
normalised, how many tokens. `embedding_settings` reads those; `embed` does the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.io import read_json
from minitx.layers.pooling import pool_first_attended, pool_mean
from minitx.models import EncoderModel, Model

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

Pooling = Literal["mean", "first", "pooler"]

# Sentence-transformers' words for a pooling (also with `pooling_mode_..._token(s)` around them) -> ours.
POOLING_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "first"}


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """How a checkpoint makes one vector of a text.

    Attributes:
        pooling: "mean" of the tokens, the "first" token, or the "pooler".
        normalize: whether vectors get length 1, so that a dot product is the cosine similarity.
        max_length: tokens after which a text is cut; None for as many as the model takes.
        prompt: put before each text.
        lowercase: whether texts are lowercased before the tokenizer sees them.
    """

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int | None = None
    prompt: str = ""
    lowercase: bool = False

    def prepare(self, texts: Sequence[str]) -> list[str]:
        """The texts as the tokenizer should see them."""
        texts = [self.prompt + text for text in texts]
        return [text.lower() for text in texts] if self.lowercase else texts


def embed(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    settings: EmbeddingSettings | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """One vector per text.

    Dropout is off while it runs. Texts of similar length are computed together, so that little of a
    batch is padding; a text gets the same vector whatever it is batched with, up to rounding.

    Args:
        model: any encoder, also that of T5 alone (head="encoder"); a head is left aside.
        tokenizer: of the same checkpoint.
        texts: N texts.
        pooling: "mean" of the real tokens, the "first" real token, or the model's "pooler".
        normalize: give each vector length 1.
        max_length: tokens per text, special ones included; longer texts are cut. More than the model
            has positions for means as many as it has.
        settings: what holds for those of the three that are None, and what is done to texts before; None
            takes the checkpoint's own (`embedding_settings` of the folder that the model was loaded from).
        batch_size: texts per forward.
        progress: called with the number of texts after each batch.

    Returns:
        (N, E), in the order of `texts`, on the model's device; float32, or float64 of a float64 model.

    Raises:
        TypeError: `model` is none; `texts` is one string, or holds something else than strings.
        ValueError: a model that is no encoder, an unknown pooling, a pooler that the model does not have, a
            size below 1.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise TypeError(f"model is a {kind}; expected a model, as in embed(model, tokenizer, texts).")
    settings = settings or own_settings(model)
    pooling = settings.pooling if pooling is None else pooling
    normalize = settings.normalize if normalize is None else normalize
    max_length = settings.max_length if max_length is None else max_length
    check(model, texts, pooling, max_length, batch_size)
    texts = settings.prepare(texts)
    limit = model.embedder.max_tokens
    cut = limit if max_length is None else min(max_length, limit)
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # longest first: memory peaks early
    size, dtype = model.config.stack.hidden_size, wide(model.dtype)
    vectors = [torch.empty(0, size, dtype=dtype, device=model.device)]
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            summarize = [texts[i] for i in order[start : start + batch_size]]
            vectors.append(embed_batch(model, tokenizer, summarize, pooling, cut))
            if progress is not None:
                progress(len(summarize))
    together = torch.cat(vectors).detach()
    result = torch.empty_like(together)
    result[torch.tensor(order, dtype=torch.long, device=result.device)] = together
    return F.normalize(result, dim=-1) if normalize else result


def own_settings(model: Model) -> EmbeddingSettings:
    folder = None if model.checkpoint is None else model.checkpoint.folder
    return EmbeddingSettings() if folder is None else embedding_settings(folder)


@torch.inference_mode()
def embed_batch(
    model: Model, tokenizer: Tokenizer, texts: list[str], pooling: Pooling, max_length: int
) -> Tensor:
    """(N, E) of texts that fit into one forward."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length)
    if batch["input_ids"].shape[1] == 0:  # empty texts, and a tokenizer that puts nothing around them
        size, dtype = model.config.stack.hidden_size, wide(model.dtype)
        return torch.zeros(len(texts), size, dtype=dtype, device=model.device)
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
    """Sums over many tokens need float32 at least."""
    return torch.promote_types(dtype, torch.float32)


@dataclass
class Running:
    """How many calls a model is in, and its modules that were in training mode before."""

    count: int = 0
    training: list[nn.Module] = field(default_factory=list)


LOCK = Lock()
RUNNING: dict[Model, Running] = {}  # by identity; empty whenever nothing runs


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Eval mode inside, and every module's own mode back after the last of the threads that are inside."""
    with LOCK:
        running = RUNNING.setdefault(model, Running())
        running.count += 1
        running.training += [module for module in model.modules() if module.training]
        model.eval()
    try:
        yield
    finally:
        with LOCK:
            running.count -= 1
            if running.count == 0:
                del RUNNING[model]
                for module in running.training:
                    module.training = True


def check(model: Model, texts: Sequence[str], pooling: str, max_length: int | None, batch_size: int) -> None:
    if isinstance(texts, str):
        raise TypeError("texts is one string; expected a list of them: [text].")
    if other := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"texts holds a {type(other[0]).__name__}; expected strings.")
    if not isinstance(model, EncoderModel):
        raise ValueError(
            f"embed reads texts with an encoder, and this is none ({type(model).__name__}). Of an "
            'encoder-decoder that has an encoder for itself, such as T5, load it with head="encoder".'
        )
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling={pooling!r} must be one of {', '.join(get_args(Pooling))}.")
    if pooling == "pooler" and model.pooler is None:
        raise ValueError("pooling='pooler', but this model has no pooler; use 'mean' or 'first'.")
    for name, value in (("batch_size", batch_size), ("max_length", max_length)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


# --- sentence-transformers' files ------------------------------------------------------------------


def embedding_settings(folder: str | Path) -> EmbeddingSettings:
    """What sentence-transformers' files in a folder say; the defaults, mean and normalised, without.

    Reads modules.json, the pooling module's config.json, sentence_bert_config.json and
    config_sentence_transformers.json.

    Raises:
        ValueError: a module, a pooling or an option that minitx does not implement; broken JSON.
    """
    folder = Path(folder)
    path = folder / "modules.json"
    if not path.is_file():
        return EmbeddingSettings(**transformer_settings(folder), prompt=default_prompt(folder))
    pooling: Pooling = "mean"
    normalize = False
    for position, (kind, place) in enumerate(modules(path)):
        if kind == "Transformer" and position == 0 and Path(place) == Path():
            continue
        if kind == "Transformer" and position == 0:
            raise ValueError(f"{path}: the transformer lies in {place!r}; name that folder instead.")
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
    """modules.json -> (class, folder) in the order they run.

    Raises:
        ValueError: a form that is not sentence-transformers', a folder outside this one.
    """
    found = []
    try:
        entries = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: holds a {type(entries).__name__}; expected a list of modules.")
    for entry in entries:
        kind, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
        if not isinstance(kind, str) or not isinstance(place, str):
            raise ValueError(f"{path}: every module needs a 'type' and a 'path'; found {entry!r}.")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ValueError(f"{path}: names {place!r}; a module must lie in the folder itself.")
        found.append((kind.rpartition(".")[2], place))
    return found


def read_pooling(path: Path, prompted: bool) -> Pooling:
    """The pooling of 1_Pooling/config.json; "mean" if there is no such file.

    Newer files say `"pooling_mode": "mean"`, older ones have one flag for each kind.
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
        given = " + ".join(map(str, names))
        raise ValueError(f"{path}: pooling {given} is not implemented; minitx has mean and cls.")
    return POOLING_NAMES[str(names[0])] if names else "mean"


def old_name(key: str) -> str:
    """Without what old files put around it: pooling_mode_mean_tokens -> mean."""
    return key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")


def transformer_settings(folder: Path) -> dict[str, Any]:
    """`max_length` and `lowercase`, of sentence_bert_config.json."""
    path = folder / "sentence_bert_config.json"
    config: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    length, lowercase = config.get("max_seq_length"), config.get("do_lower_case", False)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(f"{path}: max_seq_length={length!r} must be a whole number from 1 on.")
    return {"max_length": length, "lowercase": lowercase is True}


def default_prompt(folder: Path) -> str:
    """The prompt that config_sentence_transformers.json puts before every text, mostly none."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise ValueError(f"{path}: default_prompt_name={name!r} is not one of its prompts.")
    prompt: str = prompts[name]
    return prompt
