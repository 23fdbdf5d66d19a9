"""The same checkpoint in transformers, without its noise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minitx.models import EncoderModel
from minitx.weights.files import some


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


def load_reference(folder: Path, model: EncoderModel) -> nn.Module:
    """The same checkpoint in transformers: the class of our model's task, float32, eval mode.

    Its attention is the fused one where the architecture has it, else "eager".

    Raises:
        ValueError: transformers lacks a tensor for that class, and would draw it at random.
    """
    transformers = import_transformers()
    assert model.checkpoint is not None
    name = model.checkpoint.architecture.class_name(model.checkpoint.model_type, model.task)
    with quiet():
        reference, report = getattr(transformers, name).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    drawn = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if drawn:
        raise ValueError(
            f"transformers does not find {some(drawn)} in this checkpoint and would draw it at random, so "
            'there is nothing to compare with; leave the head out with head="none" (--head none).'
        )
    model_in_eval_mode: nn.Module = reference.eval()
    return model_in_eval_mode


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
