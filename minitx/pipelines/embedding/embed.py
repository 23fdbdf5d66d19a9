"""Sentence embeddings: one vector per text.

`EmbeddingSettings` state how; a checkpoint of sentence-transformers has them in files beside the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.config import Alibi, RelativeBias
from minitx.habits import explain_arguments
from minitx.layers.token_pooling import Pooling, names_of, pool
from minitx.models import DecoderModel, EncoderModel, Model
from minitx.models.compiled import check_not_compiled
from minitx.optimize.unpadded import without_padding
from minitx.pipelines.checks import check_unicode
from minitx.pipelines.embedding.settings import EmbeddingSettings, model_settings
from minitx.pipelines.models import without_head
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_callable,
    check_integer,
    check_type,
)

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer
    from minitx.tokenizer.batch import Batch


@explain_arguments("embed")
def embed(
    model: Model,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    pooling: Pooling | Sequence[Pooling] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    settings: EmbeddingSettings | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Computes one vector per text.

    Texts of similar length are batched together to save padding; the vector of a text does not depend on its
    batch, up to rounding.

    Args:
        model: an encoder or decoder in eval mode, such as BERT, Qwen2, or T5 with head="encoder"; its head is
            not used.
        texts: N texts.
        tokenizer: tokenizer of the same checkpoint, from `minitx.load_tokenizer`.
        pooling: as in `EmbeddingSettings`, or a list to concatenate several; padding is ignored.
        normalize: scale each vector to length 1.
        max_length: maximum number of tokens, special tokens included, at most the rows of a position table;
            longer texts are truncated.
        prompt: prefix of each text, such as `embedding_settings(model).prompts["query"]`.
        settings: values of the four arguments that are None, and everything else; None uses those of the
            checkpoint (`embedding_settings(model)`, read once per model).
        batch_size: texts per forward.
        progress: called with the number of texts after each batch.

    Returns:
        (N, E), in the order of `texts`, on the model's device; float32, or float64 for a float64 model. E is
        the hidden size unless the checkpoint has further modules, several poolings or `truncate_dim`.

    Raises:
        TypeError: `model` is not a model, `tokenizer` is from another library, or `texts` is not a list of
            strings.
        ValueError: an encoder-decoder, a model in training mode, an unknown pooling, "pooler" without
            a pooler, a size below 1; or as `embedding_settings`.
    """
    check_not_compiled(model)
    check_type("model", model, Model, "a model", "call embed(model, texts, tokenizer=tokenizer)")
    if callable(texts):  # the order of earlier versions: embed(model, tokenizer, texts)
        swapped: Any = (tokenizer, texts)
        texts, tokenizer = swapped
    check_callable("tokenizer", tokenizer, "load it with minitx.load_tokenizer")
    check_integer("batch_size", batch_size, 1)
    if progress is not None:
        check_callable("progress", progress, "it is called with the number of texts after each batch")
    if settings is None:
        settings = model_settings(model)
    check_type("settings", settings, EmbeddingSettings, "an EmbeddingSettings or None")
    check_type("normalize", normalize, bool | None, "True, False or None")
    stated: dict[str, Any] = {"pooling": pooling, "max_length": max_length, "prompt": prompt}
    settings = replace(settings, **{name: value for name, value in stated.items() if value is not None})
    check_model(model, settings)
    texts = settings.prepare(check_texts(texts))
    settings = replace(settings, max_length=token_limit(model, tokenizer, settings.max_length))
    start = prompt_length(tokenizer, settings)
    batch_size = 1 if getattr(tokenizer, "pad_token", "") is None else batch_size  # nothing to pad with
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # longest first: memory peaks early
    vectors = [zeros(0, model, settings)]
    for first in range(0, len(order), batch_size):
        batch = [texts[i] for i in order[first : first + batch_size]]
        vectors.append(embed_batch(model, tokenizer, batch, settings, start))
        if progress is not None:
            progress(len(batch))
    sorted_vectors = finish(torch.cat(vectors).detach(), settings, normalize)
    result = torch.empty_like(sorted_vectors)
    result[torch.tensor(order, dtype=torch.long, device=result.device)] = sorted_vectors
    return result


def finish(vectors: Tensor, settings: EmbeddingSettings, normalize: bool | None) -> Tensor:
    """Applies the modules after the pooling, normalization and truncation.

    Args:
        vectors: (N, E).
        settings: of the checkpoint.
        normalize: None for that of the settings; True normalizes truncated vectors too.
    """
    with torch.no_grad():
        for module in settings.modules:
            vectors = _like(module, vectors)(vectors)
    if settings.normalize if normalize is None else normalize:
        vectors = F.normalize(vectors, dim=-1)
    cut = vectors[:, : settings.truncate_dim]
    return F.normalize(cut, dim=-1) if normalize and cut.shape != vectors.shape else cut


def _like(module: nn.Module, vectors: Tensor) -> nn.Module:
    """Returns the module with the dtype and device of the vectors; a copy only where they differ."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    same = all((t.dtype, t.device) == (vectors.dtype, vectors.device) for t in tensors)
    return module if same else deepcopy(module).to(vectors)


def token_limit(model: Model, tokenizer: Tokenizer, max_length: int | None) -> int | None:
    """Returns the maximum number of tokens of a text; None without any.

    Where none is stated it is the tokenizer's or that of the model's training, whichever is less. A position
    table bounds it in any case.
    """
    embedder = model.embedder
    limits = [max_length] if max_length is not None else [getattr(tokenizer, "model_max_length", None)]
    any_distance = isinstance(model.config.stack.positions, Alibi | RelativeBias)
    if embedder.has_position_table or (max_length is None and not any_distance):
        limits.append(embedder.max_tokens)
    return min((limit for limit in limits if limit is not None), default=None)


def prompt_length(tokenizer: Tokenizer, settings: EmbeddingSettings) -> int:
    """Returns the number of tokens at the start of each text that are not pooled: those of the prompt.

    A special token that follows every text, such as [SEP], does not follow the prompt.
    """
    if settings.include_prompt or not settings.prompt:
        return 0
    batch = tokenize(tokenizer, settings.prepare([""]), settings.max_length)
    ids = batch["input_ids"][0].tolist()
    return len(ids) - (bool(ids) and ids[-1] in tokenizer.special_ids)


def tokenize(tokenizer: Tokenizer, texts: list[str], max_length: int | None) -> Batch:
    """Tokenizes texts, truncated to `max_length` tokens.

    Raises:
        ArgumentTypeError: a tokenizer of another library.
    """
    padding = getattr(tokenizer, "pad_token", "") is not None
    batch = tokenizer(texts, padding=padding, truncation=max_length is not None, max_length=max_length)
    if not isinstance(batch["input_ids"], Tensor):
        raise ArgumentTypeError(
            "tokenizer",
            type(tokenizer),
            "a tokenizer of minitx",
            "load it with minitx.load_tokenizer; this one returns lists",
        )
    return batch


@torch.inference_mode()
def embed_batch(
    model: Model, tokenizer: Tokenizer, texts: list[str], settings: EmbeddingSettings, start: int
) -> Tensor:
    """Computes the pooled vectors of one batch, (N, E), without the first `start` tokens."""
    batch = tokenize(tokenizer, texts, settings.max_length)
    if batch["input_ids"].shape[1] == 0:  # empty texts without special tokens
        return zeros(len(texts), model, settings)
    inputs = {name: ids.to(model.device) for name, ids in batch.items()}
    return pooled_vectors(model, inputs, settings, start)


def pooled_vectors(
    model: Model, inputs: Mapping[str, Any], settings: EmbeddingSettings, start: int | Tensor
) -> Tensor:
    """Computes the pooled vectors of a batch, (B, E).

    Args:
        model: an encoder or decoder.
        inputs: its arguments, (B, T) each.
        settings: their pooling.
        start: number of tokens at the start of each text that are not pooled; or (B, 1), of each.
    """
    output = without_head(without_padding(model))(**inputs)
    hidden, pooled = output.last_hidden_state, output.pooler_output
    hidden = hidden.to(wide(hidden.dtype))
    pooled = None if pooled is None else pooled.to(hidden.dtype)
    return pool(settings.pooling, hidden, pooled, inputs["attention_mask"].bool(), start)


def zeros(rows: int, model: Model, settings: EmbeddingSettings) -> Tensor:
    """Returns pooled vectors of zeros, (rows, E)."""
    stack = model.config.stack
    size = (stack.output_size or stack.hidden_size) * len(names_of(settings.pooling))
    return torch.zeros(rows, size, dtype=wide(model.dtype), device=model.device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype for sums over many tokens, at least float32."""
    return torch.promote_types(dtype, torch.float32)


def check_texts(texts: Any) -> list[str]:
    """Returns the texts as a list if they are several strings, else raises ArgumentTypeError."""
    if isinstance(texts, str):
        raise ArgumentTypeError("texts", texts, "a list of strings", "wrap a single text in a list: [text]")
    texts = texts.tolist() if hasattr(texts, "tolist") else texts  # of NumPy; of no dimension a number
    check_type("texts", texts, Iterable, "a list of strings")
    checked = list(texts)
    for index, text in enumerate(checked):
        check_type(f"texts[{index}]", text, str, "a string")
        check_unicode(f"texts[{index}]", text)
    return checked


def check_model(model: Model, settings: EmbeddingSettings) -> None:
    """Checks that a model can embed texts.

    Raises:
        ArgumentValueError: an encoder-decoder, training mode, no pooler where the settings need one, or
            further modules for vectors of another size.
    """
    if not isinstance(model, EncoderModel | DecoderModel):
        raise ArgumentValueError(
            "model",
            type(model).__name__,
            "an encoder or a decoder",
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
    if "pooler" in names_of(settings.pooling) and model.pooler is None:
        raise ArgumentValueError("pooling", settings.pooling, "another one", "this model has no pooler")
    try:
        finish(zeros(0, model, settings), settings, None)
    except RuntimeError as error:
        hint = f"the first that does not fit: {str(error).splitlines()[0]}"
        raise ArgumentValueError(
            "pooling", settings.pooling, "of the size of the further modules", hint
        ) from None


def check_room(tokenizer: Tokenizer, max_length: int | None) -> None:
    """Checks that the special tokens leave room for text, else raises ArgumentValueError."""
    special = len(tokenizer.encode(""))
    if max_length is not None and max_length <= special:
        hint = f"the tokenizer adds {special} special tokens to each text"
        raise ArgumentValueError("max_length", max_length, f"at least {special + 1}", hint)
