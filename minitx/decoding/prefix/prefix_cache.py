"""`PrefixCache`: keys and values of earlier prompts, shared between calls.

B rows, T tokens of the longest row, K heads, D features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size
from minitx.decoding.prefix.tree import PrefixTree
from minitx.decoding.prompts import PaddedBatch
from minitx.layers.cache import Cache, DynamicCache, StaticCache
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.models.taps import scope_of
from minitx.optimize.classes import ModelState, is_watched
from minitx.validation import ArgumentValueError, check_type


class PrefixCache:
    """Keys and values of tokens that a model has run, for prompts that begin with the same tokens.

    `generate(..., prefix=PrefixCache(model))` runs only the tokens of a prompt after the longest beginning
    that the cache holds, at least the last one; so do `stream`, `generate_many` and `generate_as_completed`.
    The tokens of a call are stored for later ones, those that it generates too. Results are the same as
    without, up to the last bits of the logits. Several threads may share a cache.

    A change of the parameters or buffers empties the cache: other tensors, or a write that PyTorch counts,
    as of an optimizer or `load_state_dict`; so do other classes of modules, as a pass of `minitx.optimize`
    gives them, another attention backend, and autocast that begins or ends. A write to `parameter.data` is
    not seen; call `clear` after it. While a module of the model has forward hooks, as of `minitx.inspect`,
    nothing is read or stored. A copy of a cache, deep or pickled, is empty.

    Args:
        model: a decoder in eval mode, whose rotary positions do not depend on the whole length, as those of
            type "dynamic" and "longrope" do.
        max_bytes: of keys and values, by default 1 GiB. What was not used for the longest time is dropped
            first; of tokens that do not fit the first ones are stored.

    Attributes:
        model: whose keys and values they are.
        reused: the number of tokens that did not have to be run.

    Raises:
        ArgumentTypeError, ArgumentValueError: another model, or fewer bytes than a token takes.
    """

    def __init__(self, model: CausalModel, *, max_bytes: int = 2**30) -> None:
        check_causal_model(model)
        if not self.supports(model):
            hint = "keys of an encoder-decoder depend on its source, of dynamic and longrope on the length"
            raise ArgumentValueError("model", model, "a decoder whose keys depend on the tokens alone", hint)
        max_bytes = check_size("max_bytes", max_bytes, _bytes_per_token(model), "a token takes as many")
        self.model, self.reused = model, 0
        self._tree, self._lock, self._state = PrefixTree(max_bytes), RLock(), ModelState(model)

    @staticmethod
    def supports(model: CausalModel) -> bool:
        """Whether the keys and values of a model depend on the tokens before alone."""
        return model.task != "seq2seq-lm" and not model.original_contexts

    def __repr__(self) -> str:
        return f"PrefixCache({len(self)} tokens, {self.num_bytes} of {self._tree.max_bytes} bytes)"

    def __len__(self) -> int:
        """The number of stored tokens; those of a common beginning count once."""
        return self._tree.tokens

    def __bool__(self) -> bool:
        """True, also of an empty cache: `if prefix` tells a cache from None."""
        return True

    def __reduce__(self) -> tuple[Any, tuple[CausalModel]]:
        return partial(type(self), max_bytes=self._tree.max_bytes), (self.model,)

    @property
    def num_bytes(self) -> int:
        """The bytes of the stored keys and values."""
        return self._tree.size

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._tree = PrefixTree(self._tree.max_bytes)

    def matching(self, tokens: Sequence[int]) -> int:
        """Returns how many of the first tokens are stored."""
        with self._lock:
            self._check_weights()
            return self._tree.find(tokens)[0]

    def add(self, tokens: Sequence[int], cache: Cache, row: int) -> None:
        """Stores the last tokens of a row of a cache.

        Args:
            tokens: of the row, all that the cache holds.
            cache: whose layers keep all tokens.
            row: its number.
        """
        end = cache.length
        layers = []
        for layer in cache.layers:
            assert layer.key is not None
            assert layer.value is not None
            key, value = (x[row, :, end - len(tokens) : end] for x in (layer.key, layer.value))
            layers.append((key, value))
        with self._lock, torch.inference_mode():
            if self._check_weights():
                self._tree.add(tokens, layers)

    def fill(self, cache: Cache, rows: Sequence[Sequence[int]]) -> int:
        """Fills an empty cache with the stored beginnings of rows; returns the number of slots filled.

        The rows are padded on the left. They have the same number of tokens left to run, at least one.
        """
        with self._lock:
            self._check_weights()
            longest = max(map(len, rows))
            left = max(len(row) - min(self._tree.find(row)[0], len(row) - 1) for row in rows)
            if left >= longest:
                return 0
            known = [row[: max(0, len(row) - left)] for row in rows]
            for number, layer in enumerate(cache.layers):
                pairs = [self._tree.read(tokens, number) if tokens else None for tokens in known]
                layer.append(*_padded(pairs, longest - left), 0)
            self.reused += sum(map(len, known))
        cache.length = cache.high_water_mark = longest - left
        return cache.length

    def _check_weights(self) -> bool:
        """Returns whether the model is in the state of the stored tokens; drops all of these if not."""
        state = ModelState(self.model)
        if same := state.is_that_of(self._state):
            return same
        self.clear()
        self._state = state
        return same


@contextmanager
def prefilled(
    prefix: PrefixCache | None, model: CausalModel, cache: Cache, batch: PaddedBatch
) -> Iterator[tuple[Cache, int]]:
    """Lets a prefill begin after the tokens that a prefix cache holds, and stores those that it runs.

    Args:
        prefix: None, and one of another model, change nothing.
        model: that runs the batch.
        cache: empty; it holds the whole batch afterwards.
        batch: (B, T), the whole rows.

    Returns:
        The cache to run on, and the number of columns of the batch that it holds.
    """
    if prefix is None or prefix.model is not model or model_is_watched(model):
        yield cache, 0
        return
    mask = batch.attention_mask
    rows = [ids if mask is None else ids[mask[i]] for i, ids in enumerate(batch.input_ids)]
    tokens = [row.tolist() for row in rows]
    grown = Cache([DynamicCache() for _ in cache.layers])
    known = prefix.fill(grown, tokens)
    if known and mask is not None and not bool(mask[:, :known].all()):
        grown.mask = mask[:, :known]
    yield grown, known
    for number, row in enumerate(tokens):
        prefix.add(row, grown, number)
    for layer, full in zip(cache.layers, grown.layers, strict=True):
        assert full.key is not None
        assert full.value is not None
        layer.append(full.key, full.value, 0)
    cache.length, cache.mask = grown.length, grown.mask
    cache.high_water_mark = grown.length


def remember(prefix: PrefixCache | None, session: Any) -> None:
    """Stores what the rows of a session have generated, if its layers keep all tokens as they are.

    Args:
        prefix: None stores nothing.
        session: a `DecodingSession`; one that has not started stores nothing.
    """
    cache = vars(session).get("cache")
    if prefix is None or cache is None or model_is_watched(session.model) or not cache.length:
        return
    if any(type(layer) not in (DynamicCache, StaticCache) for layer in cache.layers):
        return
    sizes = session.context.prompt_length.tolist()
    for number, (tokens, size) in enumerate(zip(session.history.rows(), sizes, strict=True)):
        count = cache.length if cache.mask is None else int(cache.mask[number].sum())
        if prefix.matching(tokens[:size]) == size:  # else the weights have changed since
            prefix.add(tokens[:count], cache, number)


def check_prefix(prefix: Any, model: CausalModel, options: Mapping[str, Any]) -> PrefixCache | None:
    """Checks the argument of a call.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a cache, of another model, or with options that
            exclude it.
    """
    check_type("prefix", prefix, PrefixCache | None, "a PrefixCache", "minitx.PrefixCache(model) makes one")
    if prefix is None:
        return None
    if prefix.model is not model:
        raise ArgumentValueError("prefix", prefix, "of the model of the call", "a cache serves one model")
    for name, hint in (("inputs_embeds", "it knows prompts by their ids"), ("cache", "its keys are exact")):
        if options.get(name) is not None:
            raise ArgumentValueError("prefix", prefix, f"None with {name}", hint)
    cached: PrefixCache = prefix
    return cached


def _padded(pairs: Sequence[tuple[Tensor, Tensor] | None], time: int) -> tuple[Tensor, Tensor]:
    """Pads keys and values (K, T', D) of each row on the left with zeros: twice (B, K, T, D)."""
    some = next(pair for pair in pairs if pair is not None)
    padded = []
    for which, like in enumerate(some):
        stacked = like.new_zeros((len(pairs), like.shape[0], time, like.shape[2]))
        for row, pair in zip(stacked, pairs, strict=True):
            if pair is not None:
                row[:, time - pair[which].shape[1] :] = pair[which]
        padded.append(stacked)
    return padded[0], padded[1]


def _bytes_per_token(model: CausalModel) -> int:
    """Returns the bytes of the keys and values of a token in the dtype of the model."""
    stack = model.config.stack
    attention, size = stack.layer.attention, next(model.parameters()).element_size()
    return 2 * stack.num_hidden_layers * attention.key_value_heads * attention.head_dim * size


def model_is_watched(model: CausalModel) -> bool:
    """Whether functions inside a model may read or change its values."""
    return scope_of(model) is not None or any(map(is_watched, model.modules()))
