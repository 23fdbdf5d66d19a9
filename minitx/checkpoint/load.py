"""`minitx.load`: from a folder or Hub id to a model, without changing a value or holding a byte twice."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import ResolvedEntry
from minitx.checkpoint.build import (
    check_keys_to_ignore,
    choose_architecture,
    empty_model,
    parameter_dtype,
    read_config,
    seeded_generator,
    set_parameter,
)
from minitx.checkpoint.files import GENERATION, Tensors
from minitx.checkpoint.formats.source import open_weights, stored_config
from minitx.checkpoint.lora.adapter import Adapter, read_adapter
from minitx.checkpoint.lora.merge import check_ties, merge
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import (
    CheckpointNames,
    has_head,
    has_pooler,
    infer_task,
    resolve_sources,
    table_entries,
)
from minitx.checkpoint.sentence import upper_folder
from minitx.checkpoint.ties import Sources, identical, share_tied, untied
from minitx.config import HeadConfig
from minitx.habits import explain_arguments
from minitx.io import check_inside, return_freed_memory
from minitx.layers.attention import backend_of
from minitx.models import Model
from minitx.optimize.linear import fast_linear
from minitx.optimize.mixed_dtypes import mixed_dtypes
from minitx.transaction import read_consistently
from minitx.validation import (
    ArgumentValueError,
    check_choice,
    check_dtype,
    check_flags,
    check_integer,
    check_optional_strings,
    warn,
)

_MOST_FREED = 2**22  # bytes of copied tensors


@explain_arguments("load")
def load(
    name_or_folder: str | Path,
    *,
    head: str | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device = "cpu",
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
    model_type: str | None = None,
    ignore_keys: Sequence[str] = (),
    init_head: bool = False,
    num_labels: int | None = None,
    seed: int | None = None,
    attention: str | None = None,
    mmap: bool = True,
) -> Model:
    """Loads a checkpoint in Hugging Face's layout, or a GGUF file of llama.cpp, in eval mode.

    Label names of a classifier are in `model.checkpoint.id2label`.

    A file may hold tensors of several dtypes, and each parameter keeps its own. Every module then converts
    its input to the dtype of its parameters and returns that dtype; a sum of two dtypes has the wider one. In
    a float16 T5, mT5 or UMT5 the second projection of the feed-forward network stays in float32, as in
    transformers; `save` writes it as the file had it.

    A LoRA adapter of PEFT, in the folder of its base model or alone, is merged into the weights.

    Quantised weights of a GGUF file become float32, or `dtype`; `save` writes them so.

    Args:
        name_or_folder: a folder with config.json and weights, or with a LoRA adapter, a Hub id such as
            "bert-base-uncased", a checkpoint of this package such as "minitx/tiny-encoder", or a file
            "model.gguf".
        head: None loads the checkpoint's own head, and `save` writes unused tensors back too; "none" loads
            no head; a task loads that head, and `save` leaves out those of other tasks.
        dtype: torch.bfloat16 or "bfloat16", for example; None keeps the dtype of each tensor.
        device: device of the parameters.
        revision: branch, tag or commit on the Hub.
        token: access token of the Hub, for gated or private models.
        offline: use only files in the Hub cache.
        model_type: the architecture, for a config.json without `model_type`.
        ignore_keys: keys of config.json to leave out, such as one that minitx does not know; `save` writes
            them back. "decoder.key" is a key of an inner config.
        init_head: initialize with random weights whatever the checkpoint lacks of the head.
        num_labels: number of labels of a new head, which replaces a head with another number; requires
            `init_head`.
        seed: seed of the random weights; None draws from PyTorch's global generator. Requires `init_head`.
        attention: "sdpa" (fused), "eager" (step by step) or a registered name; None: "sdpa", or that
            of a model that `save` wrote with `model_type="minitx"`.
        mmap: map the weights from the files, whose pages are read when they are used. A program that writes
            into a mapped file changes the model or ends the process (files that are replaced, as `save`
            does, are safe); False reads the weights into memory.

    Raises:
        FileNotFoundError: no such folder or Hub repository, or no weights in it.
        ValueError: anything in the files that does not fit; the message names file and key or tensor.
    """
    from minitx.checkpoint.hub import fetch
    from minitx.checkpoint.lora.base import base_folder

    check_flags(init_head=init_head, mmap=mmap)
    check_optional_strings(head=head, model_type=model_type)
    seeded_generator(seed)  # checks it
    if seed is not None and not init_head:
        raise ArgumentValueError("seed", seed, "None", "it draws a new head and needs init_head=True")
    backend_of("sdpa" if attention is None else attention)  # before anything is read
    dtype = None if dtype is None else check_dtype("dtype", dtype)
    device = check_device(device)
    ignored = check_keys_to_ignore(ignore_keys)
    folder = fetch(name_or_folder, revision=revision, token=token, offline=offline)
    base = base_folder(folder, token=token, offline=offline)

    def read() -> Model:
        """Reads the files, all of them of one save."""
        adapter = read_adapter(folder)
        config = checkpoint_config(base, num_labels, init_head, adapter)
        architecture, kind = choose_architecture(config, model_type)
        check_head(head, architecture)
        config = with_vocabulary(config, adapter, architecture)
        model_config, heads = read_config(architecture, kind, config, ignored)
        tensors = merge(open_weights(base, mapped=mmap), adapter, architecture, model_config, dtype)
        chosen = adapter.task if head is None and adapter and adapter.task in heads else head
        names = CheckpointNames(tensors.shapes, architecture.prefix)
        names.check_one_spelling()
        task = checkpoint_task(architecture, config, heads, names, chosen, init_head=init_head)
        pooler = has_pooler(architecture, names, task)
        model = empty_model(architecture, model_config, heads, task, pooler=pooler)
        new_head = {"init_head": init_head, "resize_head": num_labels is not None}
        resolution = resolve_sources(model, architecture, model_config, names, tensors, **new_head)
        check_ties(tensors, adapter, tied_names(model, architecture, names))
        model.checkpoint = source_record(architecture, kind, config, tensors, folder)
        model.checkpoint.ignored_keys = ignored
        model.checkpoint.names = load_parameters(model, resolution.sources, tensors, dtype, device)
        init_missing(model, resolution.missing, seeded_generator(seed))
        model.checkpoint.dtype = model.dtype
        one_class = architecture.class_name(kind, task) == architecture.class_name(kind, "none")
        if chosen is None or (task in heads and one_class):
            initialized = {name for entry in resolution.missing for name in names.lookup(entry)}
            model.checkpoint.unused_tensors = read_unused(model.checkpoint, tensors, initialized, dtype)
        return mixed_dtypes(fast_linear(model.set_attention(attention or model.checkpoint.attention)))

    with collection_paused():
        return read_consistently(base, read, *{folder, upper_folder(base)} - {base})


def check_head(head: str | None, architecture: Architecture) -> None:
    """Checks that an architecture has a head, else raises ArgumentValueError."""
    if head is not None:
        check_choice("head", head, (*architecture.head_weights, *architecture.headless))


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pauses the garbage collector: the many objects of a new model stay, and a collection finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_device(device: str | torch.device) -> torch.device:
    """Returns a device that this machine has.

    Raises:
        ArgumentValueError: any other.
    """
    try:
        checked = torch.device(device)
        torch.empty(0, device=checked)
        if checked.type == "meta":
            raise RuntimeError("tensors there have no values")
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentValueError("device", device, "a device that this machine has", reason) from None
    return checked


def source_record(
    architecture: Architecture, model_type: str, config: Mapping[str, Any], tensors: Tensors, folder: Path
) -> Checkpoint:
    """Returns the record of a model's files, without the parameters.

    Args:
        folder: folder of the checkpoint, or of the adapter, whose own files come before those of its base.
    """
    from minitx.checkpoint.lora.base import generation_folder, sentence_files

    return Checkpoint(
        architecture,
        model_type,
        config,
        tensors.folder,
        generation_file=read_optional(generation_folder(folder, tensors.folder) / GENERATION),
        files=tensors.files if len(set(tensors.files.values())) > 1 else {},
        metadata=tensors.metadata,
        sentence_files=sentence_files(folder, tensors.folder),
    )


def read_optional(path: Path) -> bytes | None:
    """Reads a file; None if it does not exist; ValueError if a link leads it out of its checkpoint."""
    return check_inside(path, upper_folder(path.parent)).read_bytes() if path.is_file() else None


def tied_names(model: Model, architecture: Architecture, names: CheckpointNames) -> Iterable[tuple[str, ...]]:
    """Yields the stored names of each pair of tied parameters."""
    table = {entry.parameters[0]: entry for entry in table_entries(architecture, model)}
    for name, owner in model.ties.items():
        yield names.lookup(table[name]) + names.lookup(table[owner])


def checkpoint_config(
    folder: Path, num_labels: int | None, init_head: bool, adapter: Adapter | None = None
) -> dict[str, Any]:
    """Reads config.json, with the number of labels of a new head or of an adapter's.

    Raises:
        FileNotFoundError, ValueError: as `stored_config`; `num_labels` without `init_head`.
    """
    config = stored_config(folder)
    if num_labels is None and adapter is not None and adapter.num_labels is not None:
        return with_labels(config, adapter.num_labels)
    if num_labels is None:
        return config
    check_integer("num_labels", num_labels, 1)
    if not init_head:
        raise ArgumentValueError(
            "num_labels", num_labels, "None", "it sizes a new head and needs init_head=True"
        )
    return with_labels(config, num_labels)


def with_labels(config: dict[str, Any], num_labels: int) -> dict[str, Any]:
    """Returns a config with a number of labels; names of another number are left out."""
    label_names = config.get("id2label")
    if isinstance(label_names, dict) and len(label_names) == num_labels:
        return config
    of_other_labels = ("id2label", "label2id", "problem_type")
    return {key: v for key, v in config.items() if key not in of_other_labels} | {"num_labels": num_labels}


def with_vocabulary(
    config: dict[str, Any], adapter: Adapter | None, architecture: Architecture
) -> dict[str, Any]:
    """Returns a config with the vocabulary size of an adapter that brings a resized word embedding."""
    entry = architecture.weights.get("embedder.word_emb", ())
    names = (entry,) if isinstance(entry, str) else getattr(entry, "names", ())
    for name in names:
        for spelling in (name, architecture.prefix + name):
            table = None if adapter is None else adapter.tensors.get(f"{spelling}.weight")
            if table is not None and "vocab_size" in config:
                return {**config, "vocab_size": len(table)}
    return config


def checkpoint_task(
    architecture: Architecture,
    config: Mapping[str, Any],
    heads: Mapping[str, HeadConfig],
    names: CheckpointNames,
    chosen: str | None,
    *,
    init_head: bool,
) -> str:
    """Returns the chosen task, or that of the checkpoint's own head.

    The latter is "none", with a warning, if the file lacks that head.

    Raises:
        ValueError: the task is unclear, or `init_head` without a head.
    """
    if chosen is not None:
        return chosen
    task = infer_task(architecture, config, heads, names)
    if task in heads and not has_head(architecture, task, heads[task], names):
        warn(f"config.json names the task {task!r}, but the file has no such head; loaded without a head.")
        task = "none"
    if init_head and task == "none":
        raise ArgumentValueError(
            "init_head", True, "False for a checkpoint without a head", "name the new head with head="
        )
    return task


# --- from tensors to parameters --------------------------------------------------------------------


def load_parameters(
    model: Model,
    sources: Sources,
    tensors: Tensors,
    dtype: torch.dtype | None,
    device: torch.device,
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Reads the tensor of each parameter into the model, then share tied ones.

    Returns:
        Parameters of an entry -> the stored names that `save` writes them under.
    """
    stored_names: dict[tuple[str, ...], tuple[str, ...]] = {}
    checkpoint: Checkpoint = model.checkpoint
    empty = dict(model.named_parameters(remove_duplicate=False))
    copied = 0
    for entry, names in sources.items():
        if not names and entry.or_zero:
            stored_names[entry.parameters] = ()
            for name in entry.parameters:
                zeros = torch.zeros_like(empty[name], dtype=dtype, device=device)
                set_parameter(model, name, zeros)
        if not names:
            continue  # zeros, tied, or initialized afterwards
        first = names if entry.op.many else names[:1]
        copies = {name: entry.op.copies or dtype not in (None, tensors.shapes[name].dtype) for name in first}
        stored = [tensors.read(name, mapped=not copies[name]) for name in first]
        copied += sum(tensors.shapes[name].nbytes for name in first if copies[name])
        if copied > _MOST_FREED:
            return_freed_memory()
            copied = 0
        if not entry.op.many:  # aliases with the same content are written back too
            names = (names[0], *(alias for alias in names[1:] if identical(tensors.read(alias), stored[0])))
        stored_names[entry.parameters] = names
        sizes = [empty[name].shape[0] for name in entry.parameters]
        for name, tensor in zip(entry.parameters, entry.op.load(stored, sizes), strict=True):
            wanted = parameter_dtype(checkpoint.architecture, name, dtype or tensor.dtype)
            set_parameter(model, name, tensor.to(device, wanted))
        loaded = model.get_parameter(entry.parameters[0]).dtype if dtype is None else dtype
        own = dict(zip(names, stored if entry.op.many else stored * len(names), strict=True))
        if dtype is None:
            checkpoint.dtypes |= {n: (t.dtype, loaded) for n, t in own.items() if t.dtype != loaded}
    share_tied(model)
    checkpoint.untied = untied(model)
    return stored_names


def read_unused(
    checkpoint: Checkpoint, tensors: Tensors, initialized: set[str], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Returns the tensors of the file that the model neither uses nor replaces, on the CPU."""
    used = initialized | {name for stored in checkpoint.names.values() for name in stored}
    return {
        name: cast(tensors.read(name), dtype, torch.device("cpu"))
        for name in tensors.shapes
        if name not in used
    }


def cast(tensor: Tensor, dtype: torch.dtype | None, device: torch.device) -> Tensor:
    """Moves a tensor to a device; floating-point tensors to a dtype too."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def init_missing(
    model: Model, missing: Iterable[ResolvedEntry], generator: torch.Generator | None = None
) -> None:
    """Initializes the parameters that the checkpoint lacks; with a generator, equally on every device."""
    names = {name for entry in missing for name in entry.parameters}
    if not names:
        return
    device, dtype = model.device, model.dtype
    drawn_on = device if generator is None else generator.device
    for name in names:
        set_parameter(model, name, torch.empty_like(model.get_parameter(name), device=drawn_on, dtype=dtype))
    model.initialize(names, generator)
    if drawn_on != device:
        for name in names:
            set_parameter(model, name, model.get_parameter(name).detach().to(device))
