"""The reference: the same checkpoint in transformers, without its log output."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import entries
from minitx.checkpoint.build import task_of
from minitx.checkpoint.files import summarize
from minitx.checkpoint.lora.adapter import read_adapter
from minitx.checkpoint.resolve import CheckpointNames
from minitx.extras import extra_error
from minitx.models import Model

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


def import_transformers() -> Any:
    """Imports transformers.

    Raises:
        ImportError: not installed; the message names the extra.
    """
    try:
        import transformers
    except ImportError as error:
        raise extra_error("comparing needs transformers", error, "verify") from None
    return transformers


def load_reference(folder: Path, model: Model) -> nn.Module:
    """Loads the checkpoint in transformers: the class of the model's task, in float32 and eval mode.

    Attention is fused if the architecture supports it, else "eager"; also with capped scores or sinks, which
    the fused implementation leaves out.

    Raises:
        ValueError: the checkpoint lacks a tensor of that class, which transformers would initialize randomly,
            or transformers has no such class.
    """
    transformers = import_transformers()
    assert model.checkpoint is not None
    architecture = model.checkpoint.architecture
    name = architecture.class_name(model.checkpoint.model_type, task_of(model, architecture))
    if not hasattr(transformers, name):
        raise ValueError(f"transformers has no {name}, so there is nothing to compare with.")
    options = model.config.stack.layer.attention
    eager = options.softcap is not None or options.sinks
    attention = {"attn_implementation": "eager"} if eager else {}
    with quiet():
        reference, report = getattr(transformers, name).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **attention
        )
    # experts one by one: the fused product supports neither every width nor float64
    reference.config._experts_implementation = "eager"
    random = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    random -= load_magnitudes(reference, folder, random)
    if random := random - left_out(random, architecture, model):
        advice = "" if model.task is None else '; the head "none" leaves it out'
        raise ValueError(
            f"transformers does not find {summarize(sorted(random))} in this checkpoint and would initialize "
            f"it randomly, so there is nothing to compare with{advice}."
        )
    model_in_eval_mode: nn.Module = reference.eval()
    return model_in_eval_mode


def load_magnitudes(reference: nn.Module, folder: Path, names: set[str]) -> set[str]:
    """Loads the magnitudes of a DoRA adapter, which transformers does not find; returns their names."""
    adapter = read_adapter(folder)
    loaded = set()
    for name in names:
        module, part, _ = name.partition(".lora_magnitude_vector")
        for stored in (module + part, f"{module}{part}.weight"):
            if part and adapter is not None and stored in adapter.tensors:
                parameter = reference.get_parameter(name)
                parameter.data.copy_(adapter.tensors[stored].view_as(parameter))
                loaded.add(name)
    return loaded


def left_out(names: set[str], architecture: Architecture, model: Model) -> set[str]:
    """Returns the tensors of parts that minitx's model leaves out, such as an unused pooler.

    The reference may have such a part, but it is compared with nothing.
    """
    checkpoint_names = CheckpointNames(names, architecture.prefix)
    return {
        tensor
        for left, stored in entries(architecture.weights, architecture.layers(model.config))
        if getattr(model, left[0].partition(".")[0], None) is None
        for name in stored.names
        for tensor in checkpoint_names.module(name)
    }


def in_dtype(reference: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Converts the reference to another dtype; rotary angles stay float32, as in every dtype."""
    reference.to(dtype)
    for module in reference.modules():
        for name in [name for name in module._buffers if name.endswith("inv_freq")]:
            buffer = module._buffers[name]
            module._buffers[name] = None if buffer is None else buffer.float()
    return reference


class Wide(TorchFunctionMode):
    """Keeps float64 tensors in float64 where the code casts to float32.

    Several reference models compute norms, softmaxes and rotations in float32 whatever their dtype. Without
    those casts, a difference above float64's rounding is a difference of the equations.
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
            if func is F.binary_cross_entropy_with_logits:  # computes in the dtype of its target
                args = (args[0], args[1].double(), *args[2:])
        if func is Tensor.scatter_reduce and kwargs["src"].dtype == torch.float64:
            args = (args[0].double(), *args[1:])
        return func(*args, **kwargs)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the progress bars, log lines and warnings of transformers."""
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


def find_tokenizer(
    name_or_folder: str | Path, revision: str, token: str | None, offline: bool, model_type: str | None
) -> Tokenizer | None:
    """Loads the tokenizer of the checkpoint; None if minitx cannot load it."""
    from minitx.tokenizer import load_tokenizer

    try:
        return load_tokenizer(
            name_or_folder, revision=revision, token=token, offline=offline, model_type=model_type
        )
    except (FileNotFoundError, ValueError):
        return None
