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
from minitx.inspect.compare.reference import in_dtype
from minitx.models import Model
from tests.parity.cases import BY_NAME, Case

CHOICES = 3  # of a multiple-choice question
END = 2  # the end token of the encoder-decoders' texts
CASES_AND_HEADS = [(case.name, task) for case in BY_NAME.values() for task in case.tasks]


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
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":  # a weight that no training changes
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator, dtype=torch.float64))


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
    return complete(in_dtype(model, dtype).eval(), task)


def complete(model: Any, task: str) -> Any:
    """Lets a reference that needs labels for its logits have them."""
    if task == "table-question-answering" and not model.config.select_one_column:
        model.register_forward_pre_hook(with_labels, with_kwargs=True)
    return model


def with_labels(model: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The reference computes logits of cells in several columns only together with a loss."""
    ids = inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"][..., 0]
    return args, table_targets(torch.zeros(ids.shape, dtype=torch.long)) | inputs


def table_targets(labels: Tensor, seed: int = 1) -> dict[str, Tensor]:
    """Random targets of table-question-answering beside the labels."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(labels.shape, generator=generator, dtype=torch.float64)
    answer = torch.randn(len(labels), generator=generator, dtype=torch.float64)
    return {
        "labels": labels.double(),
        "aggregation_labels": torch.randint(0, 4, (len(labels),), generator=generator),
        "float_answer": answer.masked_fill(torch.arange(len(labels)) == 1, torch.nan),
        "numeric_values": numbers.masked_fill(numbers < -0.8, torch.nan),
        "numeric_values_scale": torch.randint(1, 4, labels.shape, generator=generator).double(),
    }


def pair(name: str, task: str, dtype: torch.dtype, root: Path, **more: Any) -> tuple[Any, Model]:
    """The reference and the minitx model loaded from its saved folder, as strictly as can be.

    Made once for several tests; each gets them in eval mode and with the usual attention.
    """
    reference, model = made_once(name, task, dtype, root, **more)
    return reference.eval(), model.eval().set_attention("sdpa")


@lru_cache(maxsize=24)  # the heads of a case, in two dtypes
def made_once(name: str, task: str, dtype: torch.dtype, root: Path, **more: Any) -> tuple[Any, Model]:
    case = BY_NAME[name]
    reference = reference_model(case, task, dtype, **more)
    folder = root / f"{name}-{task}-{dtype}".replace(".", "-")
    reference.save_pretrained(folder)
    return reference, minitx.load(folder)


def text(case: Case, batch: int, length: int, task: str = "none", seed: int = 0) -> dict[str, Tensor]:
    """Random inputs for a task; ids stay clear of the padding ids 0 and 1, those of an encoder-decoder of 2
    and 3 too, which begin and end its texts.

    An encoder-decoder gets a text to read, and unless its decoder is to go over the same text, another of
    about half the length for the decoder.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    shape = (batch, CHOICES, length) if task == "multiple-choice" else (batch, length)
    inputs = {"input_ids": draw(4 if "seq2seq-lm" in case.heads else 2, 99, *shape)}
    if sizes := case.config.get("type_vocab_sizes"):
        inputs["token_type_ids"] = torch.stack([draw(0, size, *shape) for size in sizes], dim=-1)
    types = case.config.get("type_vocab_size", 0)
    if types > 1:
        inputs["token_type_ids"] = draw(0, types, *shape)
    if case.writes(task):
        inputs["decoder_input_ids"] = draw(4, 99, batch, length // 2 + 1)
    if case.ends(task):
        inputs["input_ids"][:, -1] = END
    return inputs


def padded(case: Case, inputs: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """Rows of different lengths, of each text; the last row stays whole."""
    found = dict(inputs)
    for ids_name, mask_name in (
        ("input_ids", "attention_mask"),
        ("decoder_input_ids", "decoder_attention_mask"),
    ):
        if ids_name not in inputs:
            continue
        ids = inputs[ids_name].clone()
        mask = torch.ones_like(ids)
        length = ids.shape[-1]
        for row in range(ids.shape[0] - 1):
            cut = min(length - 1, 1 + 2 * row)
            gone = slice(length - cut, length) if side == "right" else slice(0, cut)
            if side == "right" and bool((ids[row, ..., -1] == END).all()):
                ids[row, ..., length - cut - 1] = END
            mask[row, ..., gone] = 0
            ids[row, ..., gone] = case.pad
        found |= {ids_name: ids, mask_name: mask}
    return found


def real_tokens(inputs: dict[str, Tensor], kind: str = "") -> Tensor:
    """(..., T) bool: which tokens are no padding; `kind` "decoder_" asks for the decoder's.

    Where it goes over the text that was read, it is told of no padding: all of them count.
    """
    ids = inputs.get(f"{kind}input_ids", inputs["input_ids"])
    mask = inputs.get(f"{kind}attention_mask")
    return torch.ones_like(ids).bool() if mask is None else mask.bool()


States = list[tuple[str, Tensor]]  # hidden states (B, T, E), and whose text each is of, as in `real_tokens`


def states_of(output: Any) -> States:
    """Every hidden state that the reference gives."""
    if getattr(output, "decoder_hidden_states", None) is None:
        return [("", state) for state in output.hidden_states]
    return [
        *(("", state) for state in output.encoder_hidden_states),
        *(("decoder_", state) for state in output.decoder_hidden_states),
    ]


def hidden_states(model: Model, inputs: dict[str, Tensor]) -> tuple[States, Any]:
    """The output of each embedder and of every layer that ran, and the model's output."""
    states: dict[str, list[Tensor]] = {name: [] for name in model.families}
    hooks = []
    for name, into in states.items():
        embedder = model.embedder if name == model.families[0] else model.decoder_embedder
        for module in (embedder, *model.get_submodule(name).layers):
            hooks.append(module.register_forward_hook(lambda _m, _i, out, into=into: into.append(out)))
    convolution = getattr(model.stack, "convolution", None)
    if convolution is not None:  # it completes the first layer
        last = states[model.families[-1]]
        hooks.append(convolution.register_forward_hook(lambda _m, _i, out: last.__setitem__(-1, out)))
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    # the reference gives the last state of a stack after the final norm
    states[model.families[-1]][-1] = output.last_hidden_state
    if len(states) == 1:
        return [("", state) for state in states.popitem()[1]], output
    states["encoder"][-1] = output.encoder_last_hidden_state
    kinds = {"encoder": "", "decoder": "decoder_"}
    return [(kinds[name], state) for name, into in states.items() for state in into], output


def only_real(states: States, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The hidden states of what is no padding: (tokens, E)."""
    return [state[real_tokens(inputs, kind).flatten(0, -2)] for kind, state in states]


def logits_at_real(output: Any, states: States, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The logits, where they are per token those of what is no padding."""
    real = real_tokens(inputs, states[-1][0])
    return [x[real] if x.shape[: real.dim()] == real.shape else x for x in logits_of(output)]


def logits_of(output: Any) -> list[Tensor]:
    names = ("logits", "start_logits", "end_logits", "logits_aggregation")
    found = [getattr(output, name, None) for name in names]
    # cells that cannot be selected have -10000 added, at which the others would not matter
    return [x.clamp(min=-10) if bool((x < -1000).any()) else x for x in found if x is not None]
