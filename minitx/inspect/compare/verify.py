"""`verify`: run minitx and transformers on the same inputs and compare every module.

The weight table pairs the modules. Hooks record inputs and outputs of each pair in the order of execution, so
that the first difference locates its cause: an output that differs after an equal input is caused by that
module; an input that differs after equal outputs, by the modules in between. A run in float64 tells rounding,
which shrinks by eight orders of magnitude, from a bug, which stays. A factor that
another module takes back is reported, but the models are equal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from minitx.architectures.operations import Op, Transposed
from minitx.checkpoint.lora.settings import ADAPTER_CONFIG
from minitx.checkpoint.resolve import table_entries
from minitx.inspect.compare.inputs import Inputs, make_inputs
from minitx.inspect.compare.reference import (
    Wide,
    find_tokenizer,
    import_transformers,
    in_dtype,
    load_reference,
)
from minitx.inspect.compare.report import CLOSE, ComparedCall, Gap, Report
from minitx.layers.embedding import ScaledEmbedding
from minitx.models import Model, ModelOutput
from minitx.models.compiled import check_not_compiled
from minitx.transaction import read_consistently
from minitx.validation import check_optional_strings, check_type

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

# Modules that compute in the precision of their input: equal inputs give equal outputs.
EXACT = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Conv1d)
# Field of the output -> the module that ran last before it.
OUTPUTS = {
    "encoder_last_hidden_state": "encoder",
    "last_hidden_state": "encoder",
    "pooler_output": "pooler.activation",
    "logits": "head",
    "start_logits": "head",
    "end_logits": "head",
}


def verify(
    name_or_folder: str | Path,
    *,
    model: Model | None = None,
    head: str | None = None,
    model_type: str | None = None,
    ignore_keys: Sequence[str] = (),
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    device: str | torch.device = "cpu",
) -> Report:
    """Loads a checkpoint in minitx and in transformers and compares them module by module.

    Runs in float32 and float64, on one sequence alone and a padded batch; padded positions are ignored.
    Inputs are real text, or random ids if the checkpoint has no tokenizer.

    Args:
        name_or_folder: as for `minitx.load`.
        model: a model to compare instead of the checkpoint as loaded, such as an edited one; not changed.
        head: as for `minitx.load`.
        model_type: the architecture, for a config.json without `model_type`.
        ignore_keys: as for `minitx.load`; transformers reads them.
        revision, token, offline: as for `minitx.load`.
        device: device of both models.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError, ValueError: as `minitx.load`.
    """
    from minitx.checkpoint.gguf.header import check_folder
    from minitx.checkpoint.hub import fetch
    from minitx.checkpoint.load import check_device, load

    check_optional_strings(head=head, model_type=model_type)
    if model is not None:
        check_not_compiled(model, parts=True)
        check_type("model", model, Model, "a model of minitx or None")
    device = check_device(device)
    transformers = import_transformers()
    folder = fetch(name_or_folder, revision=revision, token=token, offline=offline)
    check_folder(folder)
    options: dict[str, Any] = {"head": head, "model_type": model_type, "ignore_keys": ignore_keys}
    if (folder / ADAPTER_CONFIG).is_file():  # transformers does not merge it: no rounding in between
        options["dtype"] = torch.float64
    options, own = options | {"token": token, "offline": offline}, model

    def read() -> tuple[Model, nn.Module, Tokenizer | None]:
        """Loads the checkpoint here and in transformers, and its tokenizer, all of one save."""
        loaded = load(folder, **options) if own is None else copy.deepcopy(own)
        tokenizer = find_tokenizer(name_or_folder, revision, token, offline, model_type)
        return loaded, load_reference(folder, loaded), tokenizer

    model, reference, tokenizer = read_consistently(folder, read)
    model, reference = model.to(device).eval(), reference.to(device)
    inputs = make_inputs(tokenizer, model, model.embedder.max_tokens)
    entries = compare(model, reference, inputs)
    assert model.checkpoint is not None
    return Report(
        name=str(name_or_folder),
        model_type=model.checkpoint.model_type,
        task=model.task,
        transformers=str(transformers.__version__),
        attention=str(getattr(reference.config, "_attn_implementation", "own")),
        inputs=inputs.words,
        entries=tuple(entries),
        unpaired=tuple(sorted(set(owners(model)) - {entry.module for entry in entries})),
    )


def compare(model: Model, reference: nn.Module, inputs: Inputs) -> list[ComparedCall]:
    """Compares every pair of modules on all batches, in both dtypes; both models are left in float32."""
    pairs = pair(model, reference)
    compared: dict[torch.dtype, dict[tuple[str, int], ComparedCall]] = {}
    for dtype in (torch.float64, torch.float32):  # in this order: a merged adapter is in float64
        model.to(dtype)
        in_dtype(reference, dtype)
        worst: dict[tuple[str, int], ComparedCall] = {}
        for batch in inputs.batches:
            for entry in compare_batch(model, reference, pairs, batch):
                previous = worst.get((entry.module, entry.call), entry)
                worst[entry.module, entry.call] = replace(
                    entry,
                    input=Gap.worse(previous.input, entry.input),
                    output=Gap.worse(previous.output, entry.output),
                    finite=previous.finite and entry.finite,
                    proportional=previous.proportional and entry.proportional,
                )
        compared[dtype] = worst
    second = compared[torch.float64]
    return [
        replace(
            entry,
            input64=second[key].input,
            output64=second[key].output,
            proportional=second[key].proportional,
        )
        for key, entry in compared[torch.float32].items()
    ]


# --- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The partner of a module of minitx.

    Attributes:
        partner: path in transformers.
        op: how the partner's weight becomes minitx's.
        part: index of the module among those that the partner combines.
        sizes: output features of each of those.
    """

    partner: str
    op: Op
    part: int
    sizes: tuple[int, ...]

    def cut(self, output: Tensor) -> Tensor:
        """Returns the module's share of the partner's output (..., features), split as the weight is."""
        if len(self.sizes) == 1:
            return output
        op = self.op.op if isinstance(self.op, Transposed) else self.op  # outputs are never transposed
        return op.load([output.movedim(-1, 0)], self.sizes)[self.part].movedim(0, -1)


def owners(model: nn.Module) -> list[str]:
    """Returns the modules that have parameters directly."""
    return [path for path, module in model.named_modules() if any(True for _ in module.parameters(False))]


def pair(model: Model, reference: nn.Module) -> dict[str, Pair]:
    """Pairs modules of minitx with those of transformers through the weight table."""
    assert model.checkpoint is not None
    architecture, modules = model.checkpoint.architecture, dict(reference.named_modules())
    pairs: dict[str, Pair] = {}
    for entry in table_entries(architecture, model):
        if not entry.parameters[0].endswith(".weight") or entry.op.many:
            continue  # the file may have a bias in another module than the one that adds it
        for name in entry.names:
            path, _, leaf = name.rpartition(".")
            spellings = [path, architecture.prefix + path]
            partner = next((p for p in spellings if hasattr(modules.get(p), leaf)), None)
            if partner is None or leaf != "weight":
                continue
            sizes = tuple(model.get_parameter(parameter).shape[0] for parameter in entry.parameters)
            for part, parameter in enumerate(entry.parameters):
                module = parameter.rpartition(".")[0]
                if not does_more(model.get_submodule(module), modules[partner]):
                    pairs.setdefault(module, Pair(partner, entry.op, part, sizes))
    return pairs


def does_more(model: nn.Module, reference: nn.Module) -> bool:
    """Whether minitx's module includes a step that the reference does after it: adding a bias, scaling."""
    bias = getattr(model, "bias", None) is not None and getattr(reference, "bias", None) is None
    return bias or (isinstance(model, ScaledEmbedding) and type(reference) is nn.Embedding)


# --- one forward of each ---------------------------------------------------------------------------


@dataclass
class Calls:
    """Inputs and outputs of modules by path, in the order of their calls; fields of the output by name."""

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    fields: dict[str, Tensor] = field(default_factory=dict)


@torch.inference_mode()
def compare_batch(
    model: Model, reference: nn.Module, pairs: Mapping[str, Pair], batch: Mapping[str, Tensor]
) -> list[ComparedCall]:
    """Compares one batch in the dtype of both models; `input64` and `output64` stay empty."""
    device = model.device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    masks = masks_of(batch)
    calls = record(reference, {p.partner for p in pairs.values()}, batch, masks)
    entries: list[ComparedCall] = []
    between: list[str] = []
    seen: dict[str, int] = {}

    def _finished(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        partner = pairs.get(path)
        call = seen[path] = seen.get(path, -1) + 1
        if partner is None or call >= len(calls.outputs.get(partner.partner, ())):
            between.append(path)
            return
        is_table = isinstance(module, nn.Embedding)
        value, result = (real(x, masks) for x in (first_tensor(args, kwargs), output))
        their_input = alike(calls.inputs[partner.partner][call], value)
        their_output = alike(partner.cut(calls.outputs[partner.partner][call]), result)
        entries.append(
            ComparedCall(
                module=path,
                partner=partner.partner,
                call=call,
                # indices differ by convention; the embeddings are compared
                input=Gap() if is_table else gap(value, their_input),
                output=gap(result, their_output),
                between=suspects(model, between),
                proportional=(is_table or proportional(value, their_input))
                and proportional(result, their_output),
                exact=isinstance(module, EXACT),
                finite=bool(result.isfinite().all()),
            )
        )
        between.clear()

    def alike(reference: Tensor, values: Tensor) -> Tensor:
        """Selects the real tokens; some modules of the reference compute all tokens in one row."""
        in_one_row = reference.shape != values.shape and len(reference) == masks[-1].numel()
        return reference[masks[-1].flatten()] if in_one_row else reference

    with hooked(model, {path for path, _ in model.named_modules() if path}, _finished):
        output: ModelOutput = model(**batch)
    for name, last in OUTPUTS.items():
        last = model.families[-1] if name == "last_hidden_state" else last
        value = getattr(output, name)
        if value is not None and name in calls.fields:
            values = real(value, masks)
            distance, finite = gap(values, calls.fields[name]), bool(values.isfinite().all())
            entry = ComparedCall(
                module=name, partner="", call=0, input=distance, output=distance, between=(last,)
            )
            entries.append(replace(entry, finite=finite))
    return entries


def masks_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Returns the masks of real tokens, (B, T) bool: of the input ids and of decoder input ids."""
    masks = []
    for side in ("", "decoder_"):
        if f"{side}input_ids" in batch:
            ids = batch[f"{side}input_ids"]
            mask = batch.get(f"{side}attention_mask", torch.ones_like(ids))
            masks.append(mask.flatten(0, -2).bool())
    return tuple(masks)


def record(
    reference: nn.Module, paths: set[str], batch: Mapping[str, Tensor], masks: tuple[Tensor, ...]
) -> Calls:
    """Runs the reference; returns inputs and outputs of the modules at `paths`."""
    calls = Calls()

    def _finished(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.inputs.setdefault(path, []).append(real(first_tensor(args, kwargs), masks))
        result = first_tensor(output, {}) if isinstance(output, tuple) else output
        if isinstance(module, nn.Embedding) and result.dim() == 2:
            result = result[None]  # (T, E), the positions of all rows
        calls.outputs.setdefault(path, []).append(real(result, masks))

    def _base_finished(module: nn.Module, args: Any, output: Any) -> None:
        _keep(output)

    def _keep(output: Any) -> None:
        for name in OUTPUTS:
            if isinstance(value := getattr(output, name, None), Tensor):
                calls.fields.setdefault(name, real(value, masks))

    base: Any = reference.base_model
    handle = base.register_forward_hook(_base_finished)
    try:
        with Wide(), hooked(reference, paths, _finished):
            # with a mask: some classes fail without one
            _keep(reference(**{**batch, "attention_mask": masks[0].long().view_as(batch["input_ids"])}))
    finally:
        handle.remove()
    return calls


@contextmanager
def hooked(model: nn.Module, paths: set[str], finished: Any) -> Iterator[None]:
    """Calls `finished(path, module, args, kwargs, output)` after each call of the modules at `paths`."""

    def _hook_of(path: str) -> Any:
        return lambda module, args, kwargs, output: finished(path, module, args, kwargs, output)

    handles = [
        module.register_forward_hook(_hook_of(path), with_kwargs=True)
        for path, module in model.named_modules()
        if path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Returns the first tensor; an empty one for a position embedding that takes a shape."""
    tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    return next(tensors, torch.empty(1, 1))


def real(tensor: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
    """Copies the values of real tokens: (B, T, ...) or (1, T, ...) -> (tokens, ...).

    The length T tells encoder from decoder tokens. Tensors of any other shape (pooler outputs, tables of
    distances) are copied whole, as (rows, features).
    """
    for mask in masks:
        batch, time = mask.shape
        if tensor.dim() == 4 and tensor.shape[1] != time == tensor.shape[2]:
            tensor = tensor.transpose(1, 2)  # (B, H, T, D): some models norm heads after this transpose
        if tensor.dim() >= 2 and tensor.shape[1] == time and tensor.shape[0] in (1, batch):
            return tensor.expand(batch, *tensor.shape[1:])[mask]
    return tensor.reshape(-1, tensor.shape[-1]).clone()


def gap(values: Tensor, reference: Tensor) -> Gap:
    """Returns the gap of two tensors; infinite if shapes differ or only one has a NaN somewhere."""
    if values.shape != reference.shape:
        return Gap(float("inf"), 0.0)
    if values.numel() == 0:
        return Gap()
    a, b = values.double(), reference.double()
    distance = (a - b).abs()
    equal = (a == b) | (a.isnan() & b.isnan())
    distance = torch.where(equal, 0.0, distance.nan_to_num(nan=float("inf")))
    return Gap(float(distance.max()), float(b.abs().nan_to_num(nan=0.0).max()))


def proportional(values: Tensor, reference: Tensor) -> bool:
    """Whether one tensor is a multiple of the other, up to rounding."""
    if values.shape != reference.shape or not bool(values.isfinite().all() & reference.isfinite().all()):
        return False
    a, b = values.double(), reference.double()
    square = float((b * b).sum())
    factor = float((a * b).sum()) / square if square else 0.0
    return gap(a, b * factor).relative <= CLOSE[torch.float64]


def suspects(model: Model, finished: list[str]) -> tuple[str, ...]:
    """Returns the modules in between that can change values; if none, the module that contains them."""
    modules = dict(model.named_modules())
    leaves = [path for path in finished if not any(True for _ in modules[path].children())]
    changing = [path for path in leaves if not isinstance(modules[path], nn.Dropout)]
    return tuple(dict.fromkeys(changing or [path for path in finished if path not in leaves][:1]))
