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
    """
    transformers = import_transformers()
    assert model.checkpoint is not None
    name = model.checkpoint.architecture.class_name(model.checkpoint.model_type, model.task)
    with quiet():
        reference: nn.Module = getattr(transformers, name).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    return reference.eval()


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
