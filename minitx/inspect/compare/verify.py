"""Does minitx compute what transformers computes? Both run on the same inputs, and every module is compared.

The weight table says which module of the one is which of the other. Hooks take the inputs and outputs of
each pair, in the order in which they run, so that the first difference points at its cause: an output that
differs after an equal input is that module's own; an input that differs after equal outputs comes from
what runs in between. The same in float64 tells rounding, which shrinks by eight orders, from a bug, which
stays.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from minitx.architectures.operations import Op, Transposed
from minitx.checkpoint.resolve import bindings_of
from minitx.inspect.compare.inputs import Inputs, make_inputs
from minitx.inspect.compare.reference import Wide, import_transformers, in_dtype, load_reference
from minitx.inspect.compare.report import Gap, Report, Row
from minitx.layers.embedding import ScaledEmbedding
from minitx.models import Model, ModelOutput

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

# Modules that compute in the precision of their input: equal inputs must give equal outputs.
EXACT = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Conv1d)
# Fields of the output -> what ran last before them.
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
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    device: str | torch.device = "cpu",
) -> Report:
    """Loads a checkpoint in minitx and in transformers, runs both, compares them module by module.

    Runs in float32 and in float64, one text without padding and several with; padded positions do not
    count. Inputs are real text, or random ids where the checkpoint has no tokenizer.

    Args:
        name_or_folder: as for `minitx.load`.
        model: a model to compare instead of the checkpoint as minitx loads it, such as one that was
            edited; it is copied, not changed.
        head: as for `minitx.load`.
        model_type: the architecture, for a config.json that does not say.
        revision, token, offline: as for `minitx.load`.
        device: where both run.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError, ValueError: as `minitx.load`.
    """
    from minitx.checkpoint.hub import fetch
    from minitx.checkpoint.load import load

    transformers = import_transformers()
    folder = fetch(name_or_folder, revision=revision, token=token, offline=offline)
    ours = load(folder, head=head, model_type=model_type) if model is None else copy.deepcopy(model)
    ours = ours.to(device, torch.float32).eval()
    theirs = load_reference(folder, ours).to(device)
    tokenizer = find_tokenizer(name_or_folder, revision, token, offline, model_type)
    inputs = make_inputs(tokenizer, ours, ours.embedder.max_tokens)
    rows = compare(ours, theirs, inputs)
    assert ours.checkpoint is not None
    return Report(
        name=str(name_or_folder),
        model_type=ours.checkpoint.model_type,
        task=ours.task,
        transformers=str(transformers.__version__),
        attention=str(getattr(theirs.config, "_attn_implementation", "own")),
        inputs=inputs.words,
        rows=tuple(rows),
        unpaired=tuple(sorted(set(owners(ours)) - {row.module for row in rows})),
    )


def find_tokenizer(
    name_or_folder: str | Path, revision: str, token: str | None, offline: bool, model_type: str | None
) -> Tokenizer | None:
    """The checkpoint's tokenizer; None if it has none that minitx can read."""
    from minitx.tokenizer import load_tokenizer

    try:
        return load_tokenizer(
            name_or_folder, revision=revision, token=token, offline=offline, model_type=model_type
        )
    except (FileNotFoundError, ValueError):
        return None


def compare(ours: Model, theirs: nn.Module, inputs: Inputs) -> list[Row]:
    """Every pair of modules on all inputs, in both precisions.

    Leaves both models in float64.
    """
    pairs = pair(ours, theirs)
    found: dict[torch.dtype, dict[tuple[str, int], Row]] = {}
    for dtype in (torch.float32, torch.float64):
        ours.to(dtype)
        in_dtype(theirs, dtype)
        worst: dict[tuple[str, int], Row] = {}
        for batch in inputs.batches:
            for row in compare_batch(ours, theirs, pairs, batch):
                before = worst.get((row.module, row.call), row)
                worst[row.module, row.call] = replace(
                    row,
                    input=Gap.worse(before.input, row.input),
                    output=Gap.worse(before.output, row.output),
                    finite=before.finite and row.finite,
                )
        found[dtype] = worst
    second = found[torch.float64]
    return [
        replace(row, input64=second[key].input, output64=second[key].output)
        for key, row in found[torch.float32].items()
    ]


# --- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A module of ours and its partner; one of several if the partner is several of ours in one."""

    partner: str
    op: Op
    part: int
    rows: tuple[int, ...]  # output features of each of the several

    def cut(self, output: Tensor) -> Tensor:
        """Our share of the partner's output (..., features): its rows are cut as the weight's are."""
        if len(self.rows) == 1:
            return output
        op = self.op.op if isinstance(self.op, Transposed) else self.op  # outputs are never transposed
        return op.load([output.movedim(-1, 0)], self.rows)[self.part].movedim(0, -1)


def owners(model: nn.Module) -> list[str]:
    """Modules with parameters of their own."""
    return [path for path, module in model.named_modules() if any(True for _ in module.parameters(False))]


def pair(ours: Model, theirs: nn.Module) -> dict[str, Pair]:
    """Our modules -> theirs, through the weight table."""
    assert ours.checkpoint is not None
    architecture, modules = ours.checkpoint.architecture, dict(theirs.named_modules())
    pairs: dict[str, Pair] = {}
    for binding in bindings_of(architecture, ours):
        if not binding.parameters[0].endswith(".weight") or binding.op.many:
            continue  # a bias may lie elsewhere in the file than in the module that adds it
        for name in binding.names:
            path, _, leaf = name.rpartition(".")
            spelt = [path, architecture.prefix + path]
            partner = next((p for p in spelt if hasattr(modules.get(p), leaf)), None)
            if partner is None or leaf != "weight":  # a tensor of several modules in one is none's own
                continue
            rows = tuple(ours.get_parameter(parameter).shape[0] for parameter in binding.parameters)
            for part, parameter in enumerate(binding.parameters):
                module = parameter.rpartition(".")[0]
                if not does_more(ours.get_submodule(module), modules[partner]):
                    pairs.setdefault(module, Pair(partner, binding.op, part, rows))
    return pairs


def does_more(ours: nn.Module, theirs: nn.Module) -> bool:
    """Whether a module has inside what the reference does behind its own: adding a bias, scaling."""
    bias = getattr(ours, "bias", None) is not None and getattr(theirs, "bias", None) is None
    return bias or (isinstance(ours, ScaledEmbedding) and type(theirs) is nn.Embedding)


# --- one forward of each ---------------------------------------------------------------------------


@dataclass
class Calls:
    """Inputs and outputs of modules, in the order of their calls."""

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    fields: dict[str, Tensor] = field(default_factory=dict)


@torch.inference_mode()
def compare_batch(
    ours: Model, theirs: nn.Module, pairs: Mapping[str, Pair], batch: Mapping[str, Tensor]
) -> list[Row]:
    """The rows of one batch, in the precision that both models have; `input64`, `output64` stay empty."""
    device = ours.device
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    masks = masks_of(batch)
    calls = record(theirs, {p.partner for p in pairs.values()}, batch, masks)
    rows: list[Row] = []
    between: list[str] = []
    seen: dict[str, int] = {}

    def finished(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        partner = pairs.get(path)
        call = seen[path] = seen.get(path, -1) + 1
        if partner is None or call >= len(calls.outputs.get(partner.partner, ())):
            between.append(path)
            return
        is_table = isinstance(module, nn.Embedding)
        given, made = (real(x, masks) for x in (first_tensor(args, kwargs), output))
        rows.append(
            Row(
                module=path,
                partner=partner.partner,
                call=call,
                # what a table is asked for differs by convention; what it answers is what counts
                input=Gap() if is_table else gap(given, alike(calls.inputs[partner.partner][call], given)),
                output=gap(made, alike(partner.cut(calls.outputs[partner.partner][call]), made)),
                between=suspects(ours, between),
                exact=isinstance(module, EXACT),
                finite=bool(made.isfinite().all()),
            )
        )
        between.clear()

    def alike(theirs: Tensor, mine: Tensor) -> Tensor:
        """Some modules of the reference work on all tokens in one row, padding among them."""
        in_one_row = theirs.shape != mine.shape and len(theirs) == masks[-1].numel()
        return theirs[masks[-1].flatten()] if in_one_row else theirs

    with hooked(ours, {path for path, _ in ours.named_modules() if path}, finished):
        output: ModelOutput = ours(**batch)
    for name, last in OUTPUTS.items():
        last = ours.families[-1] if name == "last_hidden_state" else last
        value = getattr(output, name)
        if value is not None and name in calls.fields:
            mine = real(value, masks)
            apart, finite = gap(mine, calls.fields[name]), bool(mine.isfinite().all())
            row = Row(module=name, partner="", call=0, input=apart, output=apart, between=(last,))
            rows.append(replace(row, finite=finite))
    return rows


def masks_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """What of the text is real, (B, T) bool; and of the text to be written, where that is another one."""
    found = []
    for side in ("", "decoder_"):
        if f"{side}input_ids" in batch:
            ids = batch[f"{side}input_ids"]
            mask = batch.get(f"{side}attention_mask", torch.ones_like(ids))
            found.append(mask.flatten(0, -2).bool())
    return tuple(found)


def record(
    theirs: nn.Module, paths: set[str], batch: Mapping[str, Tensor], masks: tuple[Tensor, ...]
) -> Calls:
    """Runs the reference."""
    calls = Calls()

    def finished(path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.inputs.setdefault(path, []).append(real(first_tensor(args, kwargs), masks))
        made = first_tensor(output, {}) if isinstance(output, tuple) else output
        if isinstance(module, nn.Embedding) and made.dim() == 2:
            made = made[None]  # (T, E), the positions of all rows
        calls.outputs.setdefault(path, []).append(real(made, masks))

    def base_finished(module: nn.Module, args: Any, output: Any) -> None:
        keep(output)

    def keep(output: Any) -> None:
        for name in OUTPUTS:
            if isinstance(value := getattr(output, name, None), Tensor):
                calls.fields.setdefault(name, real(value, masks))

    base: Any = theirs.base_model
    handle = base.register_forward_hook(base_finished)
    try:
        with Wide(), hooked(theirs, paths, finished):
            # always with a mask: some of its classes fail without one
            keep(theirs(**{**batch, "attention_mask": masks[0].long().view_as(batch["input_ids"])}))
    finally:
        handle.remove()
    return calls


@contextmanager
def hooked(model: nn.Module, paths: set[str], finished: Any) -> Iterator[None]:
    """Calls `finished(path, module, args, kwargs, output)` after each of the modules has run."""

    def hook_of(path: str) -> Any:
        return lambda module, args, kwargs, output: finished(path, module, args, kwargs, output)

    handles = [
        module.register_forward_hook(hook_of(path), with_kwargs=True)
        for path, module in model.named_modules()
        if path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first there is; a table of positions that is asked by a mere shape gets none."""
    tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    return next(tensors, torch.empty(1, 1))


def real(tensor: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
    """A copy of what belongs to real tokens: (B, T, ...) or (1, T, ...) -> (tokens, ...).

    Its length says which text it belongs to. Tensors of any other shape (pooled texts, tables of distances)
    are taken whole, as (rows, features).
    """
    for mask in masks:
        batch, time = mask.shape
        if tensor.dim() == 4 and tensor.shape[1] != time == tensor.shape[2]:
            tensor = tensor.transpose(1, 2)  # (B, H, T, D): some norm the heads before, some behind that turn
        if tensor.dim() >= 2 and tensor.shape[1] == time and tensor.shape[0] in (1, batch):
            return tensor.expand(batch, *tensor.shape[1:])[mask]
    return tensor.reshape(-1, tensor.shape[-1]).clone()


def gap(ours: Tensor, theirs: Tensor) -> Gap:
    """How far apart; infinitely, if the shapes differ or one has a NaN where the other has none."""
    if ours.shape != theirs.shape:
        return Gap(float("inf"), 0.0)
    if ours.numel() == 0:
        return Gap()
    a, b = ours.double(), theirs.double()
    apart = (a - b).abs()
    equal = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(equal, 0.0, apart.nan_to_num(nan=float("inf")))
    return Gap(float(apart.max()), float(b.abs().nan_to_num(nan=0.0).max()))


def suspects(model: Model, finished: list[str]) -> tuple[str, ...]:
    """Of what ran in between: parts without parameters that change values, else what encloses them."""
    modules = dict(model.named_modules())
    leaves = [path for path in finished if not any(True for _ in modules[path].children())]
    changing = [path for path in leaves if not isinstance(modules[path], nn.Dropout)]
    return tuple(dict.fromkeys(changing or [path for path in finished if path not in leaves][:1]))
