"""EAGLE draft heads: a small decoder that continues the model's hidden states instead of its tokens.

The head gets pairs of a hidden state of the model and the embedding of the token that follows it, and
predicts the next hidden state; the model's own output layer makes logits of it (arXiv:2401.15077, section
4.1). Predicted hidden states stand in for the model's, level by level. The third version (arXiv:2503.01840,
section 3.1) takes hidden states of three layers, has an output layer of its own, and a smaller vocabulary.

    version 1, 2    fc(embedding, hidden) -> decoder layers, the first without attention norm -> hidden
    version 3       fc(three hidden)      -> one layer whose attention takes (embedding, hidden) -> hidden

R rows, T pairs, E features, F features of the model's hidden states, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from minitx.architectures import REGISTRY, architecture
from minitx.checkpoint.build import read_config
from minitx.config import ModelConfig, Rotary, StackConfig
from minitx.decoding.parameters import check_size
from minitx.decoding.trees.folder import HeadFolder, dtype_of
from minitx.layers.attention import AttentionContext, SelfAttention
from minitx.layers.cache import Cache, CrossAttentionCache, LayerCache
from minitx.layers.embedding import Embedding
from minitx.layers.layer import Layer
from minitx.layers.norm import norm
from minitx.layers.stack import Stack
from minitx.models.output import ModelOutput
from minitx.validation import ArgumentValueError, check_type

_FILES = ("model.safetensors", "pytorch_model.bin")
_BIAS, _VOCABULARY, _TARGET = "bias", "draft_vocab_size", "target_hidden_size"
_WORDS, _UNUSED = "embed_tokens.weight", "rotary_emb.inv_freq"


class EagleHead(nn.Module):
    """A draft head of version 1 and 2, whose files do not differ, or of version 3.

    Args:
        config: content of its config.json: that of its decoder layers. Version 1 may have `bias`, whether
            `fc` has one (True if absent); version 3 has `draft_vocab_size`, and may have
            `target_hidden_size`.

    Raises:
        ArgumentTypeError, ArgumentValueError, ValueError: a config that is no such head, or a key that minitx
            does not know.
    """

    d2t: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        check_type("config", config, Mapping, "a dict", "pass the content of a config.json")
        super().__init__()
        kind = config.get("model_type")
        if kind not in REGISTRY or "causal-lm" not in architecture(kind).head_weights:
            raise ArgumentValueError("model_type", kind, "that of a decoder, whose layers the head has")
        self.table = architecture(kind).weights
        own = {_BIAS, _VOCABULARY, _TARGET}
        plain = {key: value for key, value in config.items() if key not in own}
        read, _ = read_config(architecture(kind), kind, plain)
        self.version = 3 if config.get(_VOCABULARY) is not None else 1
        if unused := [key for key in config if key in ((_BIAS,) if self.version == 3 else (_TARGET,))]:
            raise ArgumentValueError(unused[0], config[unused[0]], f"left out in version {self.version}")
        stack = _stack_config(read, self.version, kind)
        size, inputs = stack.hidden_size, read.text_inputs
        self.hidden_size, self.vocab_size = size, inputs.vocab_size
        # Files of version 3 leave it out where it is that of the model.
        self.embed_tokens: Embedding | None = Embedding(inputs.vocab_size, size)
        self.decoder = Stack(stack)
        self.folder: HeadFolder | None = None
        self.config = dict(config)
        if self.version == 1:
            self.target_size = size
            self.fc = nn.Linear(
                2 * size, size, bias=check_type(_BIAS, config.get(_BIAS, True), bool, "a bool")
            )
            return
        self.decoder.layers[0] = FusedLayer(stack)
        self.target_size = check_size(_TARGET, config.get(_TARGET, size), 1)
        draft = check_size(_VOCABULARY, config[_VOCABULARY], 1)
        self.fc = nn.Linear(3 * self.target_size, size, bias=False)
        self.norm = norm(stack.layer.norm, size)
        self.lm_head = nn.Linear(size, draft, bias=False)
        self.register_buffer("d2t", torch.zeros(draft, dtype=torch.long))
        self.register_buffer("t2d", torch.zeros(inputs.vocab_size, dtype=torch.bool))

    # --- files -----------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: Any, *, dtype: torch.dtype | None = None) -> Self:
        """Loads a head from a folder as published: config.json and model.safetensors or pytorch_model.bin.

        Args:
            folder: path of the folder.
            dtype: of the parameters; None: as stored.

        Raises:
            FileNotFoundError: no config or no weights.
            ValueError: keys of the config that minitx does not know, or tensors that do not fit it.
        """
        stored = HeadFolder.read(folder, _FILES)
        head = cls(stored.config)
        if head.version == 3 and _WORDS not in stored.tensors:
            head.embed_tokens = None
        names = head.names()
        stored.check_shapes({names[own]: tensor for own, tensor in head.state_dict().items()}, _UNUSED)
        head.to(dtype_of(stored.tensors, dtype))
        head.load_state_dict({own: stored.tensors[name] for own, name in names.items()})
        head.folder = stored
        head.check_map()
        return head.eval()

    def save(self, folder: Any) -> None:
        """Saves the head to a folder: config.json as it was read, and model.safetensors.

        Raises:
            ArgumentValueError: parameters of another shape than those that were read.
        """
        state, names = self.state_dict(), self.names()
        tensors = {names[own]: tensor.detach() for own, tensor in state.items()}
        stored = self.folder or HeadFolder.fresh(self.config, tensors, _FILES[0])
        stored.write(folder, tensors)

    def names(self) -> dict[str, str]:
        """Returns the published name of each parameter and buffer."""
        source = "midlayer." if self.version == 3 else "layers.{i}."
        table = {
            left: right.replace("layers.{i}.", source)
            for left, right in self.table.items()
            if isinstance(left, str) and isinstance(right, str)
        }
        names = {}
        for own in self.state_dict():
            module, _, leaf = own.rpartition(".")
            number = own.split(".")[2] if own.startswith("decoder.layers.") else ""
            pattern = module.replace(f"layers.{number}.", "layers.{i}.") if number else module
            if pattern.endswith(".hidden_norm"):
                names[own] = f"{source}hidden_norm.{leaf}"
            elif pattern in table:
                names[own] = f"{table[pattern]}.{leaf}".replace("{i}", number)
            else:
                names[own] = own
        return names

    def check_map(self) -> None:
        """Checks that the tokens of a smaller vocabulary are tokens of the model.

        Raises:
            ArgumentValueError: they are not.
        """
        if self.version == 3:
            ids = self.token_ids(torch.arange(len(self.d2t), device=self.d2t.device))
            if bool(((ids < 0) | (ids >= self.vocab_size)).any()):
                raise ArgumentValueError(
                    "d2t", self.d2t, f"offsets to ids below vocab_size={self.vocab_size}"
                )

    # --- forward ---------------------------------------------------------------------------------------

    def features(self, output: ModelOutput) -> Tensor:
        """Returns what the head takes of a forward of the model: (R, T, F).

        Version 3 takes the inputs of its third, middle and third last layer.
        """
        if self.version == 1:
            return output.last_hidden_state
        states = output.hidden_states
        assert states is not None, "the session returns them"
        layers = len(states) - 1
        return torch.cat([states[number] for number in (2, layers // 2, layers - 3)], dim=-1)

    def words(self, tokens: Tensor, model: Any) -> Tensor:
        """Returns embeddings of tokens, by the head's own table or the model's: (R, T) -> (R, T, E)."""
        table = model.decoder_embedder.word_emb if self.embed_tokens is None else self.embed_tokens
        embedded: Tensor = table(tokens)
        return embedded.to(self.fc.weight.dtype)

    def forward(
        self, features: Tensor, words: Tensor, mask: Tensor | None, positions: Tensor, cache: Cache
    ) -> Tensor:
        """Predicts the next hidden state of each pair.

        Args:
            features: (R, T, F) of the model, or (R, T, E) predicted before.
            words: (R, T, E), embeddings of the tokens, each the one after its hidden state.
            mask: (R, S) or (R, T, S) bool of all pairs, S = cached + T; None: attend to all earlier ones.
            positions: (R, T).
            cache: of earlier pairs; these are added.

        Returns:
            (R, T, E)
        """
        features = features.to(words.dtype)
        if self.version == 1:
            hidden = self.fc(torch.cat((words, features), dim=-1))
        else:
            features = features if features.shape[-1] == self.hidden_size else self.fc(features)
            hidden = torch.cat((words, features), dim=-1)
        time = words.shape[1]
        cache.reserve(time)
        predicted: Tensor = self.decoder(hidden, mask, positions, cache)
        cache.advance(mask, time)
        return predicted

    def logits(self, predicted: Tensor, model: Any) -> Tensor:
        """Returns logits of predicted hidden states, by the model's output layer or the head's own.

        (R, T, E) -> (R, T, V or smaller)
        """
        if self.version == 3:
            logits: Tensor = self.lm_head(self.norm(predicted))
            return logits.float()
        output: ModelOutput = model.apply_head(predicted.to(model.dtype), None, None, None)
        assert output.logits is not None, "a language model has logits"
        return output.logits.float()

    def token_ids(self, ids: Tensor) -> Tensor:
        """Returns the model's ids of the head's ids: (...) -> (...)."""
        return ids if self.version == 1 else ids + self.d2t[ids]


class FusedLayer(Layer):
    """The layer of version 3: attention to embedding and hidden state side by side, each normalised."""

    def __init__(self, config: StackConfig) -> None:
        size, layer = config.hidden_size, config.layer
        attention = SelfAttention(layer.attention, 2 * size, layer.norm)
        super().__init__(layer, size, self_attention=attention)
        self.hidden_norm = norm(layer.norm, size)

    def forward(
        self,
        hidden: Tensor,
        context: AttentionContext,
        cache: LayerCache | None = None,
        cross_context: AttentionContext | None = None,
        cross_cache: CrossAttentionCache | None = None,
    ) -> Tensor:
        """(R, T, 2 E) -> (R, T, E)"""
        words, residual = hidden.chunk(2, dim=-1)
        normed = torch.cat((self.attention_norm(words), self.hidden_norm(residual)), dim=-1)
        hidden = self.attention(normed, residual, context, cache)
        output: Tensor = self.output(self.intermediate(self.feed_forward_norm(hidden)), hidden)
        return output


def _stack_config(config: ModelConfig, version: int, kind: str) -> StackConfig:
    """Returns the stack of a head: that of the decoder without its first and last norm, or one layer.

    Raises:
        ArgumentValueError: layers of another kind, or version 3 with several.
    """
    stack = config.decoder
    if stack is None or config.encoder is not None:
        raise ArgumentValueError("model_type", kind, "that of a decoder alone")
    needed = {
        "pre-norm layers": stack.layer.norm_placement == "pre",
        "rotary positions": isinstance(stack.positions, Rotary) and config.text_inputs.positions is None,
        "no sliding window": stack.sliding_window is None,
        "plain word embeddings": config.text_inputs.embedding_scale is None,
    }
    if lacking := [name for name, holds in needed.items() if not holds]:
        raise ArgumentValueError("model_type", kind, f"that of a decoder with {lacking[0]}")
    if version == 3 and stack.num_hidden_layers != 1:
        raise ArgumentValueError("num_hidden_layers", stack.num_hidden_layers, "1 in version 3")
    return replace(stack, first_attention_norm=version == 3, final_norm=False)
