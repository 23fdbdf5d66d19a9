"""The tuned lens (arXiv:2303.08112): a translator per layer, trained to predict the final distribution.

Differs from the logit lens: layers may represent a token in another basis than the last one does, which the
translator undoes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitx.inspect.analysis.lens.logit import real_positions, residual_stream, unembed
from minitx.inspect.analysis.tensors import read_tensors, write_tensors
from minitx.inspect.inputs import Inputs, check_eval, prepare
from minitx.inspect.taps.edit import num_layers, stack_of
from minitx.models import Model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, Interval, check_integer, check_number, check_type

_POSITIVE = Interval(0, torch.inf, open_low=True, open_high=True)
_NAMES = {"weight", "bias"}


class TunedLens(nn.Module):
    """An affine translator per layer: h + W h + b, the identity at first.

    Args:
        layers: number of values of the residual stream before the last: those of the embedding and of all
            layers but the last, which needs no translator.
        hidden_size: E.
    """

    def __init__(self, layers: int, hidden_size: int) -> None:
        super().__init__()
        check_integer("layers", layers, 1)
        check_integer("hidden_size", hidden_size, 1)
        self.weight = nn.Parameter(torch.zeros(layers, hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(layers, hidden_size))

    def extra_repr(self) -> str:
        """Returns the sizes, for the printout."""
        return f"layers={self.weight.shape[0]}, hidden_size={self.weight.shape[1]}"

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        """Translates the residual stream: (..., E), number of the value from 0 for the embedding -> (..., E).

        Raises:
            ArgumentTypeError, ArgumentValueError: a layer without a translator, or another width.
        """
        layer = check_integer("layer", layer, 0, self.weight.shape[0] - 1)
        if hidden.shape[-1] != self.weight.shape[1]:
            expected = f"of width {self.weight.shape[1]}, the hidden_size of the lens"
            raise ArgumentValueError("hidden", hidden, expected)
        wide = hidden.to(self.weight.dtype)
        return (wide + nn.functional.linear(wide, self.weight[layer], self.bias[layer])).to(hidden.dtype)

    def save(self, path: str | Path) -> None:
        """Writes the translators to a .safetensors file: `weight` (N, E, E) and `bias` (N, E).

        Raises:
            ArgumentTypeError, ArgumentValueError, OSError: a path that cannot be written to.
        """
        write_tensors(path, {"weight": self.weight.detach(), "bias": self.bias.detach()})

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """Reads the translators from the file that `save` writes.

        Raises:
            ArgumentTypeError, ArgumentValueError: not a path, or not such a file.
            FileNotFoundError: no such file.
        """
        tensors = read_tensors(path, _NAMES)
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.dim() != 3 or weight.shape[1] != weight.shape[2] or bias.shape != weight.shape[:2]:
            raise ArgumentValueError("path", str(path), "a file of translators (N, E, E) with biases (N, E)")
        lens = cls(len(weight), weight.shape[1]).to(weight.dtype)
        lens.load_state_dict({"weight": weight, "bias": bias})
        return lens


def train_tuned_lens(
    model: Model,
    batches: Iterable[Inputs],
    *,
    tokenizer: Tokenizer | None = None,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    lens: TunedLens | None = None,
) -> TunedLens:
    """Trains a tuned lens by the KL divergence of the final distribution from that of each layer.

    One step of Adam per batch, without changing the model; padding is left out.

    Args:
        model: with a head over the vocabulary: masked-lm, causal-lm or seq2seq-lm.
        batches: inputs as for `logit_lens`; for several epochs a list, since it is iterated again.
        tokenizer: for texts.
        epochs: number of passes over the batches.
        learning_rate: of Adam.
        weight_decay: pulls the translators to the identity.
        lens: continues with this one; None: a fresh one.

    Returns:
        The lens, for `logit_lens(..., lens=lens)`.

    Raises:
        ArgumentTypeError, ArgumentValueError: a model without such a head, or in training mode; inputs that
            do not fit it; no batches; numbers outside of their range.

    Example:
        >>> lens = minitx.inspect.train_tuned_lens(model, batches, tokenizer=tokenizer)
        >>> print(minitx.inspect.logit_lens(model, text, tokenizer=tokenizer, lens=lens))
    """
    check_eval(model)
    check_integer("epochs", epochs, 1)
    check_type("batches", batches, Iterable, "an iterable of inputs")
    rate = check_number("learning_rate", learning_rate, _POSITIVE)
    decay = check_number("weight_decay", weight_decay, Interval(0, torch.inf, open_high=True))
    check_type("lens", lens, TunedLens | None, "a TunedLens or None")
    if lens is None:
        size = getattr(model.config, model.families[-1]).hidden_size
        wide = torch.promote_types(model.dtype, torch.float32)
        lens = TunedLens(num_layers(model, stack_of(model, None)), size).to(model.device, wide)
    optimizer = torch.optim.AdamW(lens.parameters(), lr=rate, weight_decay=decay)
    steps = 0
    for _ in range(epochs):
        for inputs in batches:
            optimizer.zero_grad()
            backward_divergence(model, lens, prepare(model, inputs, tokenizer))
            optimizer.step()
            steps += 1
    if not steps:
        raise ArgumentValueError("batches", batches, "at least one batch")
    return lens


def backward_divergence(model: Model, lens: TunedLens, arguments: dict[str, Any]) -> None:
    """Adds the gradients of the mean KL divergence of all layers; layer by layer, to save memory."""
    hidden = residual_stream(model, arguments)
    if len(hidden) - 1 != len(lens.weight):
        expected = f"for {len(hidden) - 1} values of the residual stream, not {len(lens.weight)}"
        raise ArgumentValueError("lens", lens, expected)
    real = real_positions(model, arguments, hidden[0])
    with torch.no_grad():
        final = unembed(model, hidden[-1])[real].to(lens.weight.dtype).log_softmax(dim=-1)  # (tokens, V)
    for layer, value in enumerate(hidden[:-1]):
        logits = unembed(model, lens(value, layer))[real].to(final.dtype)
        loss = nn.functional.kl_div(logits.log_softmax(dim=-1), final, reduction="batchmean", log_target=True)
        loss.backward(inputs=[lens.weight, lens.bias])  # type: ignore[no-untyped-call]
