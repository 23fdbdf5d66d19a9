"""The same checkpoint in transformers, without its noise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import rows
from minitx.checkpoint.files import summarize
from minitx.checkpoint.resolve import Names
from minitx.checkpoint.save import task_of
from minitx.models import Model


def import_transformers() -> Any:
    """
    Raises:
        ImportError: not installed; names the extra.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"comparing needs transformers ({error}); install it with: pip install 'minitx[verify]'"
        ) from None
    return transformers


def load_reference(folder: Path, model: Model) -> nn.Module:
    """The same checkpoint in transformers: the class of our model's task, float32, eval mode.

    Its attention is the fused one where the architecture has it, else "eager"; and where scores are capped
    or have sinks, which its fused one leaves out.

    Raises:
        ValueError: transformers lacks a tensor for that class, and would draw it at random.
    """
    transformers = import_transformers()
    assert model.checkpoint is not None
    architecture, task = model.checkpoint.architecture, task_of(model, model.checkpoint)
    name = architecture.class_name(model.checkpoint.model_type, task)
    options = model.config.stack.layer.attention
    by_hand = options.softcap is not None or options.sinks
    attention = {"attn_implementation": "eager"} if by_hand else {}
    with quiet():
        reference, report = getattr(transformers, name).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **attention
        )
    # experts one by one: their fused product takes neither every width nor float64
    reference.config._experts_implementation = "eager"
    drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if drawn := drawn - left_out(drawn, architecture, model):
        advice = "" if model.task is None else '; leave the head out with head="none" (--head none)'
        raise ValueError(
            f"transformers does not find {summarize(sorted(drawn))} in this checkpoint and would draw it at "
            f"random, so there is nothing to compare with{advice}."
        )
    model_in_eval_mode: nn.Module = reference.eval()
    return model_in_eval_mode


def left_out(names: set[str], architecture: Architecture, model: Model) -> set[str]:
    """Those tensors that the weight table gives to a part which our model was made without.

    Such as a pooler, where nothing reads it: the reference may have one in all its models of that kind, but
    with nothing of ours is it compared.
    """
    found = Names(names, architecture.prefix)
    return {
        tensor
        for left, stored in rows(architecture.weights, architecture.layers(model.config))
        if getattr(model, left[0].partition(".")[0], None) is None
        for name in stored.names
        for tensor in found.module(name)
    }


def in_dtype(reference: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The reference in another precision, its rotary angles in float32 as they are in any."""
    reference.to(dtype)
    for module in reference.modules():
        for name in [name for name in module._buffers if name.endswith("inv_freq")]:
            buffer = module._buffers[name]
            module._buffers[name] = None if buffer is None else buffer.float()
    return reference


class Wide(TorchFunctionMode):
    """In here what is float64 stays so where the code asks for float32.

    Several reference models compute norms, softmaxes and rotations in float32 whatever their dtype. This
    takes those casts out, so that a difference above float64's rounding is a difference of the equations.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if x is torch.float32 else x for x in args)
            kwargs = {key: torch.float64 if x is torch.float32 else x for key, x in kwargs.items()}
        return func(*args, **kwargs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars, log lines and warnings away from our output."""
    logging: Any = import_transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
