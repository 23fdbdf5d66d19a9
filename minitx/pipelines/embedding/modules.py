"""The modules of sentence-transformers between pooling and normalization: Dense and LayerNorm.

Their parameters are named as in the files, so that `load_state_dict` checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from minitx.checkpoint.files import SINGLE
from minitx.pipelines.embedding.options import FileOptions

_LARGEST = 2**30  # size of a layer: torch computes the bytes of a weight in 64 bits
_ACTIVATIONS = ("torch.nn.modules.activation", "torch.nn.modules.linear")  # modules of torch


class Dense(nn.Module):
    """A linear layer, an activation and, if asked for, a residual connection.

    Args:
        in_features, out_features, bias: of the linear layer.
        activation: applied to its output.
        use_residual: add the input, projected if its size differs.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, activation: nn.Module, use_residual: bool
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_function = activation
        self.use_residual = use_residual
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, E) -> (N, D)"""
        output: Tensor = self.activation_function(self.linear(vectors))
        if not self.use_residual:
            return output
        return output + (self.residual(vectors) if hasattr(self, "residual") else vectors)


class LayerNorm(nn.Module):
    """Layer normalization of the vectors."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, E) -> (N, E)"""
        output: Tensor = self.norm(vectors)
        return output


class Normalize(nn.Module):
    """Scales each vector to length 1, before a further module."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, E) -> (N, E)"""
        return nn.functional.normalize(vectors, dim=-1)


def read_dense(options: FileOptions, content: bytes | None, path: Path) -> nn.Module:
    """Reads a Dense module.

    Args:
        options: of its config.json.
        content: its weights, a safetensors file.
        path: of the weights, for messages.

    Raises:
        FileNotFoundError: no config.json, or no weights.
        ValueError: an activation that is not one of torch.nn or needs arguments; or as `load_weights`.
    """
    options.require()
    _of_vectors(options)
    with torch.device("meta"):
        module = Dense(
            _size(options, "in_features"),
            _size(options, "out_features"),
            options.flag("bias", True),
            read_activation(options),
            options.flag("use_residual", False),
        )
    return load_weights(module, content, path)


def read_activation(
    options: FileOptions,
    key: str = "activation_function",
    default: str = "torch.nn.modules.activation.Tanh",
) -> nn.Module:
    """Returns the activation that the options name as a class of torch.nn, or the default."""
    name = options.take(key, default)
    place, _, kind = str(name).rpartition(".")
    activation = getattr(nn, kind, None) if place in ("torch.nn", *_ACTIVATIONS) else None
    if isinstance(activation, type) and activation.__module__ in _ACTIVATIONS:
        try:
            built: nn.Module = activation()
        except TypeError:  # it needs arguments, which the file does not have
            pass
        else:
            return built
    raise options.error(key, name, "an activation of torch.nn without arguments")


def read_layer_norm(options: FileOptions, content: bytes | None, path: Path) -> nn.Module:
    """Reads a LayerNorm module; arguments and errors as for `read_dense`."""
    options.require()
    with torch.device("meta"):
        module = LayerNorm(_size(options, "dimension"))
    return load_weights(module, content, path)


def read_normalize(options: FileOptions, content: bytes | None, path: Path) -> nn.Module:
    """Reads a Normalize module, which has no weights."""
    _of_vectors(options)
    return Normalize()


def read_dropout(options: FileOptions, content: bytes | None, path: Path) -> nn.Module:
    """Reads a Dropout module, which has no effect outside of training."""
    options.ignore(["dropout"])
    return nn.Identity()


def _size(options: FileOptions, key: str) -> int:
    """Returns a size of a layer."""
    size: int = options.size(key)
    if size > _LARGEST:
        raise ValueError(f"{options.path}: {key}={size!r:.80} must be an integer of at most {_LARGEST}.")
    return size


def _of_vectors(options: FileOptions) -> None:
    """Checks that a module takes and returns the vectors of texts, not those of tokens."""
    for key in ("module_input_name", "module_output_name"):
        options.expect(key, "sentence_embedding", None)


READERS: Mapping[str, Callable[[FileOptions, bytes | None, Path], nn.Module]] = {
    "Dense": read_dense,
    "LayerNorm": read_layer_norm,
    "Normalize": read_normalize,
    "Dropout": read_dropout,
}


def load_weights(module: nn.Module, content: bytes | None, path: Path) -> nn.Module:
    """Loads the weights of a module, in float32 as sentence-transformers does.

    Args:
        module: on the meta device.
        content: a safetensors file.
        path: its path, for messages.

    Raises:
        FileNotFoundError: no content.
        ValueError: a damaged file, or other tensors than the module has.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if content is None:
        raise FileNotFoundError(f"{path} is missing; modules.json names its folder.")
    try:
        tensors: dict[str, Tensor] = load(content)
        module.load_state_dict(tensors, assign=True)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete {SINGLE} ({error}); fetch it again.") from None
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ValueError(f"{path}: does not fit the module's config.json: {reason}") from None
    return module.eval().float().requires_grad_(False)
