"""Peak memory, by running the model on the meta device and following the life of every tensor.

Nothing is computed or allocated: meta tensors have sizes alone. Attention is that of the fused kernel of a
CPU, which holds no weights; a token chooses experts as evenly as it can.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minitx.layers.attention import ScoreOptions, eager
from minitx.layers.cross_entropy import LARGE, widened
from minitx.layers.experts import MixtureOfExperts
from minitx.models import Model
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.models.sizes import num_bytes


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of the tensors that operations create.

    Args:
        model: whose parameters and buffers are not counted.

    Attributes:
        live: bytes of those that exist.
        peak: the most so far.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        fixed = [*model.parameters(), *model.buffers()]
        self._known: weakref.WeakSet[Any] = weakref.WeakSet(x.untyped_storage() for x in fixed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and counts its results where they are not views of others."""
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self._add(output.untyped_storage())
        return outputs

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, storage.nbytes())

    def _remove(self, size: int) -> None:
        self.live -= size


def inference_activations(model: Model, batch: int, length: int, new_tokens: int) -> tuple[int, int]:
    """Returns the peak of activations, and the bytes of the cache, in a forward or a generation.

    Args:
        model: on the meta device, in eval mode; prepared by `prepared`.
        batch: B.
        length: tokens of each text.
        new_tokens: that a decoder generates; 0: one forward.
    """
    live, cached = LiveBytes(model), 0
    with torch.no_grad(), live:
        ids = torch.zeros(batch, length, dtype=torch.long, device="meta")
        if not new_tokens or model.task not in NEXT_TOKEN_TASKS:
            output = model(**_inputs(model, ids, new_tokens))
            del output
            return live.peak, 0
        cached = _generate(model, live, ids, new_tokens)
    return live.peak - cached, cached


def _generate(model: Any, live: LiveBytes, ids: Tensor, new_tokens: int) -> int:
    """Runs a prefill and a step at the end of a generation; returns the bytes of the cache."""
    start = torch.zeros(len(ids), 1, dtype=torch.long, device="meta")
    crosses = len(model.families) > 1
    room = (1 if crosses else ids.shape[1]) + new_tokens - 1
    cache = model.make_cache(max(room, 1))
    if crosses:
        model.encode_into(cache, ids)
    output = model.decode(start if crosses else ids, cache=cache, logits_to_keep=1)
    if new_tokens > 1:
        logits = output.logits
        del output
        output = model.decode(start, cache=cache, logits_to_keep=1)
        del logits
    del output
    return live.live - num_bytes([ids, start])


def training_memory(model: Model, batch: int, length: int, target: int) -> tuple[int, int, int]:
    """Returns bytes of activations after the forward, of these with gradients at the peak, and of gradients.

    Args:
        model: on the meta device, in training mode; prepared by `prepared`.
        batch: B.
        length: tokens of each text.
        target: tokens of the decoder of an encoder-decoder.
    """
    live = LiveBytes(model)
    with live:
        ids = torch.zeros(batch, length, dtype=torch.long, device="meta")
        output = model(**_inputs(model, ids, target))
        loss = _loss(output)
        del output
        activations = live.live
        loss.backward()  # type: ignore[no-untyped-call]
        del loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return activations, live.peak, num_bytes(gradients)


def _inputs(model: Any, ids: Tensor, target: int) -> dict[str, Tensor]:
    """Returns the inputs of a forward."""
    inputs = {"input_ids": ids[:, None] if model.task == "multiple-choice" else ids}
    if len(model.families) > 1:
        inputs["decoder_input_ids"] = ids.new_zeros(len(ids), max(target, 1))
    return inputs


def _loss(output: Any) -> Tensor:
    """Returns a loss with the memory of that of training: of logits over many classes, in blocks."""
    logits = [x for x in (output.logits, output.start_logits, output.end_logits) if isinstance(x, Tensor)]
    if not logits:
        total: Tensor = output.last_hidden_state.float().sum()
        return total
    return torch.stack([_cross_entropy(x.reshape(-1, x.shape[-1])) for x in logits]).sum()


def _cross_entropy(logits: Tensor) -> Tensor:
    """(N, C) -> ()"""
    if logits.numel() >= LARGE:
        loss: Tensor = _Blockwise.apply(logits)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(widened(logits), logits.new_zeros(len(logits), dtype=torch.long))


class _Blockwise(torch.autograd.Function):
    """Has the memory of `BlockwiseCrossEntropy`: it keeps the logits, and makes one gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """(N, C) -> ()"""
        ctx.save_for_backward(logits)
        return logits.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """() -> (N, C)"""
        (logits,) = ctx.saved_tensors
        return torch.empty_like(logits)


# --- a model whose forward runs without values ------------------------------------------------------


def prepared(model: Model) -> Model:
    """Lets a model on the meta device run as it does elsewhere: fused attention, experts with tokens."""
    for module in model.modules():
        if getattr(getattr(module, "backend", None), "__name__", "") == "sdpa":
            module.backend = fused  # type: ignore[assignment]
        if isinstance(module, MixtureOfExperts):
            module.forward = partial(_even_experts, module)  # type: ignore[method-assign]
    return model


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: ScoreOptions) -> Tensor:
    """Has the memory of PyTorch's fused attention on a CPU; a `Backend`.

    (B, H, T, D), twice (B, K, S, D), mask (1 or B, 1 or H, 1 or T, S) -> (B, H, T, D)
    """
    if options.softcap is not None or options.sinks is not None or options.dropout:
        return eager(query, key, value, mask, options)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype)
    kernel: Callable[..., Any] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output: Tensor = kernel(query, key, value, 0.0, options.causal, attn_mask=mask, scale=options.scale)[0]
    return output


def _even_experts(module: MixtureOfExperts, hidden: Tensor) -> Tensor:
    """Runs the experts on equal shares of the tokens: (B, T, E) -> (B, T, E)"""
    weights, _ = module.route(hidden)
    tokens = hidden.flatten(0, -2)
    mixed = torch.zeros_like(tokens)
    choices, experts = weights.numel(), module.config.num_experts
    share = -(-choices // experts)
    for expert in range(-(-choices // share)):
        token = torch.zeros(min(share, len(tokens)), dtype=torch.long, device=tokens.device)
        weighted = module.experts(tokens[token], expert) * weights[token, 0, None]
        mixed = mixed.index_add(0, token, weighted.to(mixed.dtype))
    return mixed.view_as(hidden)
