"""Sparse autoencoders (arXiv:2309.08600): features of activations, spliced into a running model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from minitx.inspect.analysis.tensors import read_tensors
from minitx.inspect.taps import tap
from minitx.models import Model
from minitx.models.taps import Call, match_places
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    Interval,
    check_flags,
    check_integer,
    check_number,
    check_strings,
    check_tensor,
    check_type,
)

_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


class SparseAutoencoder(nn.Module):
    """An overcomplete autoencoder with sparse features.

        features = activation((x - b_dec) W_enc + b_enc)
        reconstruction = features W_dec + b_dec

    The activation is ReLU; with `threshold` JumpReLU (arXiv:2407.14435), x where x > threshold, else 0; with
    `k` ReLU of the k largest (arXiv:2406.04093).

    Args:
        W_enc: (E, M)
        b_enc: (M,)
        W_dec: (M, E)
        b_dec: (E,)
        threshold: (M,), or None.
        k: number of features that a token may have; None: any.
        centred: subtract `b_dec` from the input.

    Raises:
        ArgumentTypeError, ArgumentValueError: shapes that do not fit together.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    threshold: Tensor | None

    def __init__(
        self,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        b_dec: Tensor,
        *,
        threshold: Tensor | None = None,
        k: int | None = None,
        centred: bool = True,
    ) -> None:
        super().__init__()
        check_flags(centred=centred)
        if check_tensor("W_enc", W_enc).dim() != 2:
            raise ArgumentValueError("W_enc", W_enc, "of shape (width, features)")
        size, features = W_enc.shape
        shapes = {"b_enc": (features,), "W_dec": (features, size), "b_dec": (size,)}
        for (name, shape), tensor in zip(shapes.items(), (b_enc, W_dec, b_dec), strict=True):
            if tuple(check_tensor(name, tensor).shape) != shape:
                raise ArgumentValueError(name, tensor, f"of shape {shape}, as W_enc has {tuple(W_enc.shape)}")
        if threshold is not None and tuple(check_tensor("threshold", threshold).shape) != (features,):
            raise ArgumentValueError("threshold", threshold, f"of shape ({features},)")
        for name, tensor in zip(_NAMES, (W_enc, b_enc, W_dec, b_dec), strict=True):
            setattr(self, name, nn.Parameter(tensor.detach(), requires_grad=False))
        self.register_buffer("threshold", threshold)
        self.k = None if k is None else check_integer("k", k, 1, features)
        self.centred = centred

    @classmethod
    def load(cls, path: str | Path, *, k: int | None = None, centred: bool = True) -> SparseAutoencoder:
        """Reads an autoencoder from a .safetensors file.

        Args:
            path: of a file with `W_enc`, `b_enc`, `W_dec`, `b_dec`, and for JumpReLU `threshold`.
            k: as for the class; the file does not have it.
            centred: likewise.

        Raises:
            ArgumentTypeError, ArgumentValueError: not such a file.
            FileNotFoundError: no such file.
        """
        tensors = read_tensors(path, _NAMES)
        named = [tensors[name] for name in _NAMES]
        return cls(*named, threshold=tensors.get("threshold"), k=k, centred=centred)

    def extra_repr(self) -> str:
        """Returns the sizes and the activation, for the printout."""
        kind = "JumpReLU" if self.threshold is not None else "ReLU" if self.k is None else f"top {self.k}"
        return f"{self.hidden_size}, {self.num_features} features, {kind}"

    @property
    def hidden_size(self) -> int:
        """E, the width of the activations."""
        return int(self.W_enc.shape[0])

    @property
    def num_features(self) -> int:
        """M, the number of features."""
        return int(self.W_enc.shape[1])

    def encode(self, x: Tensor) -> Tensor:
        """Returns the features: (..., E) -> (..., M)."""
        inputs = x.to(self.W_enc.dtype)
        inputs = inputs - self.b_dec if self.centred else inputs
        before = inputs @ self.W_enc + self.b_enc
        if self.threshold is not None:
            return torch.where(before > self.threshold, before, 0.0)
        features = before.relu()
        if self.k is None:
            return features
        best = features.topk(self.k, dim=-1)
        return torch.zeros_like(features).scatter(-1, best.indices, best.values)

    def decode(self, features: Tensor) -> Tensor:
        """Returns the reconstruction: (..., M) -> (..., E)."""
        reconstruction: Tensor = features @ self.W_dec + self.b_dec
        return reconstruction

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)"""
        return self.decode(self.encode(x))


class FeatureRecord:
    """The features of every forward inside a `splice`.

    Attributes:
        calls: (B, T, M) of each forward, before `ablate` and `clamp`.
    """

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    @property
    def features(self) -> Tensor:
        """The features of all tokens: (B, T, M); calls, as of cached generation, are joined along the tokens.

        Raises:
            ArgumentValueError: before the first forward, or after forwards with different rows.
        """
        if not self.calls or len({len(call) for call in self.calls}) > 1:
            expected = "forwards with the same rows, at least one"
            raise ArgumentValueError("calls", [tuple(c.shape) for c in self.calls], expected)
        return torch.cat(self.calls, dim=1)

    def __repr__(self) -> str:
        return f"FeatureRecord of {len(self.calls)} forwards"


@contextmanager
def splice(
    model: Model,
    autoencoder: SparseAutoencoder,
    place: str,
    *,
    error: bool = True,
    ablate: Collection[int] = (),
    clamp: Mapping[int, float] | None = None,
) -> Iterator[FeatureRecord]:
    """Records the features of a value while the model runs, and replaces it by its reconstruction.

    Args:
        model: the model.
        autoencoder: of the width of the value.
        place: name of a value (B, T, E), such as "decoder.layers.3.residual.after".
        error: add the error of the reconstruction, so that features that are not changed leave the value as
            it is, bit for bit; False: the model continues with the reconstruction.
        ablate: features to set to zero.
        clamp: features to set to a number.

    Yields:
        The features.

    Raises:
        ArgumentTypeError, ArgumentValueError: a name that matches nothing or several values, features that do
            not exist, a value of another width.

    Example:
        >>> sae = minitx.inspect.SparseAutoencoder.load("sae.safetensors")
        >>> with minitx.inspect.splice(model, sae, "decoder.layers.3.residual.after", ablate=[7]) as seen:
        ...     minitx.generate(model, "It was a", tokenizer=tokenizer)
        >>> seen.features.amax(dim=(0, 1))
    """
    check_type("autoencoder", autoencoder, SparseAutoencoder, "a SparseAutoencoder")
    check_flags(error=error)
    check_strings(place=place)
    if len(matched := match_places(model, place)) > 1:
        raise ArgumentValueError("place", place, "the name of one value", f"it matches {len(matched)}")
    changes = _changes(autoencoder, ablate, clamp)
    seen = FeatureRecord()

    def _spliced(x: Tensor, call: Call) -> Tensor | None:
        if x.shape[-1] != autoencoder.hidden_size or not x.is_floating_point():
            expected = f"a value of width {autoencoder.hidden_size}, which the autoencoder takes"
            raise ArgumentValueError("place", place, f"{expected}, not of shape {tuple(x.shape)}")
        features = autoencoder.encode(x)
        seen.calls.append(features.detach())
        changed = features
        if changes:
            changed = features.clone()
            changed[..., [*changes]] = torch.tensor([*changes.values()]).to(features)
        if not error:
            return autoencoder.decode(changed).to(x.dtype)
        if not changes:
            return None
        return x + ((changed - features) @ autoencoder.W_dec).to(x.dtype)

    with tap(model, matched[0].name, _spliced):
        yield seen


def _changes(
    autoencoder: SparseAutoencoder, ablate: Collection[int], clamp: Mapping[int, float] | None
) -> dict[int, float]:
    """Returns the value of each feature that is set."""
    if isinstance(ablate, str) or not isinstance(ablate, Collection):
        raise ArgumentTypeError("ablate", ablate, "a collection of features")
    check_type("clamp", clamp, Mapping | None, "a dict from features to numbers, or None")
    changes: dict[int, float] = {}
    last = autoencoder.num_features - 1
    for feature in ablate:
        changes[check_integer("ablate", feature, 0, last)] = 0.0
    for feature, value in (clamp or {}).items():
        number = check_number("clamp", value, Interval(-torch.inf, torch.inf))
        changes[check_integer("clamp", feature, 0, last)] = number
    return changes
