"""Building the reference: transformers models with every weight random, saved as checkpoints."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import minitx
from minitx.architectures import architecture
from minitx.inspect.reference import in_dtype
from minitx.models import Model
from tests.parity.cases import BY_NAME, Case

CASES_AND_HEADS = [
    (case.name, task)
    for case in BY_NAME.values()
    for task in ("none", *architecture(case.model_type).head_weights)
]


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Every weight random, norms and biases too: at their 1 and 0 a swapped or missing one is unseen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            base = (
                1.0
                if name.lower().endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
                else 0.0
            )
            if "gemma" in type(model).__name__.lower():  # stores its norms' weights as their distance from 1
                base = 0.0
            if "Marian" in type(model).__name__ and "embed_positions" in name:
                continue  # sinusoids, which are computed and not saved
            parameter.copy_(base + 0.2 * noise)


def reference_model(case: Case, task: str, dtype: torch.dtype = torch.float64, **more: Any) -> Any:
    if task == "question-answering":
        more["num_labels"] = 2  # a span has two ends, however many labels the other heads have
    config = transformers.AutoConfig.for_model(case.model_type, **{**case.config, **more})
    found = architecture(case.model_type)
    name = found.class_name(case.model_type, task)
    config._attn_implementation = case.reference
    config._experts_implementation = "eager"
    model = getattr(transformers, name)(config)
    randomise(model)
    model.tie_weights()
    return in_dtype(model, dtype).eval()


def pair(name: str, task: str, dtype: torch.dtype, root: Path, **more: Any) -> tuple[Any, Model]:
    """The reference and the minitx model loaded from its saved folder, as strictly as can be.

    Made once for several tests; each gets them in eval mode and with the usual attention.
    """
    reference, model = made_once(name, task, dtype, root, **more)
    return reference.eval(), model.eval().set_attention("sdpa")


@lru_cache(maxsize=8)
def made_once(name: str, task: str, dtype: torch.dtype, root: Path, **more: Any) -> tuple[Any, Model]:
    case = BY_NAME[name]
    reference = reference_model(case, task, dtype, **more)
    folder = root / f"{name}-{task}-{dtype}".replace(".", "-")
    reference.save_pretrained(folder)
    return reference, minitx.load(folder, strict=True)


def text(case: Case, batch: int, length: int, choices: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs; ids stay clear of the padding ids 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, choices, length) if choices else (batch, length)
    inputs = {"input_ids": torch.randint(2, 99, shape, generator=generator)}
    types = case.config.get("type_vocab_size", 0)
    if types > 1:
        inputs["token_type_ids"] = torch.randint(0, types, shape, generator=generator)
    return inputs


def padded(case: Case, inputs: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """Rows of different lengths; the last row stays whole."""
    ids = inputs["input_ids"].clone()
    mask = torch.ones_like(ids)
    length, pad = ids.shape[-1], case.config.get("pad_token_id", 1 if "mpnet" in case.name else 0)
    for row in range(ids.shape[0] - 1):
        cut = min(length - 1, 1 + 2 * row)
        gone = slice(length - cut, length) if side == "right" else slice(0, cut)
        mask[row, ..., gone] = 0
        ids[row, ..., gone] = pad
    return {**inputs, "input_ids": ids, "attention_mask": mask}


def hidden_states(model: Model, inputs: dict[str, Tensor]) -> tuple[list[Tensor], Any]:
    """The output of the embedder and of every layer that ran, and the model's output."""
    states: list[Tensor] = []
    hooks = [model.embedder.register_forward_hook(lambda _m, _i, out: states.append(out))]
    for layer in model.stack.layers:
        hooks.append(layer.register_forward_hook(lambda _m, _i, out: states.append(out)))
    convolution = getattr(model.stack, "convolution", None)
    if convolution is not None:  # it completes the first layer
        hooks.append(convolution.register_forward_hook(lambda _m, _i, out: states.__setitem__(-1, out)))
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    states[-1] = output.last_hidden_state  # the reference gives the last state after the final norm
    return states, output


def logits_of(output: Any) -> list[Tensor]:
    found = [getattr(output, name, None) for name in ("logits", "start_logits", "end_logits")]
    return [x for x in found if x is not None]
