"""`minitx.save`: a model back to Hugging Face's layout, as it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.mapping import ResolvedEntry
from minitx.checkpoint.files import BIN, BIN_INDEX, GENERATION, INDEX, SINGLE
from minitx.checkpoint.load import empty_model, read_config
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import bindings_of, is_tied
from minitx.io import Staging, read_json, write_json
from minitx.models import Model

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer


def save(
    model: Model,
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    max_shard_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes config.json and safetensors so that transformers loads them.

    It does so without a warning if the source loads there without one. (A pooler that the source did not
    have, as when a masked-lm checkpoint is loaded with head="none", is missing for it afterwards too.)

    Beside the weights and config.json it writes generation_config.json, if the source had one, and the
    tokenizer's files, if one is given.

    A loaded model goes back under the names, in the dtype and the shards that it came in. Each file is
    written beside its place and then moved there: a crash leaves the old file or the new one, no half.

    Args:
        model: from `minitx.load` or `minitx.from_config`.
        folder: made if need be.
        tokenizer: written too, if given.
        max_shard_size: bytes per file; None keeps the shards of the source, else writes one file.
        progress: called with the number of bytes after each file.

    Raises:
        FileExistsError: the folder holds a model of another architecture, or weights under other file names,
            which would contradict these.
        ValueError: a model that was not made by minitx.load or minitx.from_config.
    """
    checkpoint = getattr(model, "checkpoint", None)
    if checkpoint is None:
        raise ValueError(
            "the model has no record of its architecture; make it with minitx.load or from_config."
        )
    if max_shard_size is not None and (type(max_shard_size) is not int or max_shard_size < 1):
        raise ValueError(f"max_shard_size={max_shard_size!r} must be a positive number of whole bytes.")
    if tokenizer is not None and not hasattr(tokenizer, "save"):
        raise ValueError(f"tokenizer={tokenizer!r} must come from minitx.load_tokenizer.")
    check_fits(model, checkpoint)
    tensors = stored_tensors(model, checkpoint)
    files = assign_files(tensors, checkpoint, max_shard_size)
    config = stored_config(model, checkpoint)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_other_model(folder, config)
    refuse_other_weights(folder, {SINGLE} if len(files) == 1 else {INDEX, *files})
    metadata = checkpoint.metadata or {"format": "pt"}
    with Staging(folder, seal=INDEX if len(files) > 1 else None) as staging:
        for name, members in files.items():
            write_tensors(staging.path(name), {key: tensors[key] for key in members}, metadata)
            if progress is not None:
                progress(sum(nbytes(tensors[key]) for key in members))
        if len(files) > 1:
            size = sum(map(nbytes, tensors.values()))
            weight_map = {key: name for name, members in files.items() for key in members}
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(staging.path("config.json"), config)
        if checkpoint.generation_file is not None:
            staging.path(GENERATION).write_bytes(checkpoint.generation_file)
        if len(files) > 1:
            write_json(staging.path(INDEX), index)
    if tokenizer is not None:
        tokenizer.save(folder)


def check_fits(model: Model, checkpoint: Checkpoint) -> None:
    """A checkpoint is weights and a config; one that contradicts the other could never be loaded again.

    Raises:
        ValueError: a part of the model is not what config.json would build.
    """
    architecture = checkpoint.architecture
    numbers, heads = read_config(architecture, checkpoint.config, strict=False, quiet=True)
    task, pooled = task_of(model, checkpoint), model.pooler is not None
    expected = described(empty_model(architecture, numbers, heads, task, pooled=pooled))
    found = described(model)
    for path in sorted(set(expected) | set(found)):
        if expected.get(path) != found.get(path):
            raise ValueError(
                f"the model's {path} is {found.get(path, 'missing')}, but its config makes it "
                f"{expected.get(path, 'nothing')}. Make such a model from a config that says so "
                "(minitx.from_config(model.checkpoint.config | {...})), or correct model.checkpoint.config."
            )


def task_of(model: Model, checkpoint: Checkpoint) -> str:
    """The model's task, or what stands for having none."""
    if model.task is None and model.families == ("encoder",):
        return checkpoint.architecture.headless[-1]
    return model.task or "none"


def described(model: Model) -> dict[str, str]:
    """Path -> what stands there, of every part that computes; dropout is a matter of training."""
    parts = {
        path: repr(module)
        for path, module in model.named_modules()
        if not any(True for _ in module.children())
    }
    return {path: text for path, text in parts.items() if not text.startswith(("Dropout", "Identity"))}


# --- what is written -------------------------------------------------------------------------------


def stored_tensors(model: Model, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Name in the file -> tensor, on the CPU."""
    parameters = model.state_dict()
    stored: dict[str, Tensor] = {}
    for binding, names in stored_names(model, checkpoint).items():
        made = [tensor.cpu() for tensor in binding.op.save([parameters[name] for name in binding.parameters])]
        stored |= dict(zip(names, made if binding.op.many else made * len(names), strict=True))
    # What the model has no place for is not changed with it, but goes along with a change of dtype.
    dtype = model.dtype
    for name, tensor in checkpoint.kept.items():
        follows = tensor.dtype == checkpoint.dtype and dtype != checkpoint.dtype
        stored[name] = tensor.to(dtype) if follows else tensor
    return stored


def stored_names(model: Model, checkpoint: Checkpoint) -> dict[ResolvedEntry, tuple[str, ...]]:
    """The names that each row is written under; rows that are not written are left out."""
    found: dict[ResolvedEntry, tuple[str, ...]] = {}
    for binding in bindings_of(checkpoint.architecture, model):
        names = checkpoint.names.get(binding.parameters)
        if names is None and is_shared(binding, model):
            continue  # the word embedding is written once, under its own name
        if names == () and not bool(model.get_parameter(binding.parameters[0]).any()):
            continue  # zeros that the file said by leaving them out
        names = names or fresh_names(binding, model, checkpoint)
        if is_tied(binding, model):
            # The file may have had what was shared under this name; it makes room for this row's own tensor.
            for owner in [other for other, theirs in found.items() if set(theirs) & set(names)]:
                found[owner] = fresh_names(owner, model, checkpoint)
        found[binding] = names
    return found


def is_shared(binding: ResolvedEntry, model: Model) -> bool:
    """Whether another parameter serves as this one, and the config tells whoever loads it so."""
    if not is_tied(binding, model):
        return False
    name = binding.parameters[0]
    return model.get_parameter(name) is model.get_parameter(model.ties[name])


def fresh_names(binding: ResolvedEntry, model: Model, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names for what no file had: the base model's prefix is for models with a head."""
    names = binding.names
    if not binding.op.many:
        names = checkpoint.architecture.canonical_names(names, checkpoint.config)
    bare = model.task is None or model.task in checkpoint.architecture.tasks_without_prefix
    if bare or binding.parameters[0].startswith("head."):
        return names
    return tuple(checkpoint.architecture.prefix + name for name in names)


def stored_config(model: Model, checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json as it came, with the class, the dtype and the number of labels as they are now."""
    config = dict(checkpoint.config)
    found, task = checkpoint.architecture, task_of(model, checkpoint)
    config["model_type"] = checkpoint.model_type
    names = config.get("architectures")
    if not names or found.task_of(str(names[0])) != task:
        config["architectures"] = [found.class_name(checkpoint.model_type, task)]
    dtype = str(model.dtype).removeprefix("torch.")
    spelt = [key for key in ("dtype", "torch_dtype") if key in config]
    if spelt or dtype != "float32":
        for key in spelt or ["dtype"]:
            config[key] = dtype
    if task == "question-answering" and ConfigReader(config).num_labels() != 2:  # a span has two ends
        config = {key: v for key, v in config.items() if key not in ("num_labels", "id2label", "label2id")}
    if (labels := config.pop("num_labels", None)) is not None and "id2label" not in config and labels != 2:
        # Hugging Face counts labels by their names.
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        config["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    elif labels is not None:
        config["num_labels"] = labels
    return config


def assign_files(
    tensors: Mapping[str, Tensor], checkpoint: Checkpoint, max_shard_size: int | None
) -> dict[str, list[str]]:
    """File name -> the tensors in it."""
    if max_shard_size is None:
        known = {
            n: f.replace("pytorch_model", "model").replace(".bin", ".safetensors")
            for n, f in checkpoint.files.items()
        }
        if not known:
            return {SINGLE: list(tensors)}
        files: dict[str, list[str]] = {}
        last = sorted(set(known.values()))[-1]
        for name in tensors:
            files.setdefault(known.get(name, last), []).append(name)
        return numbered(list(files.values())) if len(files) < len(set(known.values())) else files
    shards: list[list[str]] = [[]]
    room = max_shard_size
    for name, tensor in tensors.items():
        if shards[-1] and nbytes(tensor) > room:
            shards.append([])
            room = max_shard_size
        shards[-1].append(name)
        room -= nbytes(tensor)
    return numbered(shards)


def numbered(shards: Sequence[list[str]]) -> dict[str, list[str]]:
    """Shards under the names that loaders look for."""
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": s for i, s in enumerate(shards, 1)}


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# --- how it is written -----------------------------------------------------------------------------


def refuse_other_model(folder: Path, config: Mapping[str, Any]) -> None:
    """A model is saved over itself again and again; over one of another architecture, by mistake."""
    path, ours = folder / "config.json", config.get("model_type")
    try:
        theirs = read_json(path).get("model_type") if path.is_file() else ours
    except ValueError:  # a damaged file is no model
        return
    if theirs != ours:
        raise FileExistsError(
            f"{folder} holds a model of the type {theirs!r}, and this is one of the type {ours!r}; save to "
            "another folder, or remove that model first."
        )


def refuse_other_weights(folder: Path, ours: set[str]) -> None:
    """Loaders look for one name before another; a file left from before would win, or lose, unseen."""
    shards = {path.name for path in folder.glob("model-*-of-*.safetensors")}
    present = shards | {name for name in (SINGLE, INDEX, BIN, BIN_INDEX) if (folder / name).exists()}
    if other := sorted(present - ours):
        raise FileExistsError(
            f"{folder} already holds {', '.join(other)}, which would stand beside the new weights; "
            "save to an empty folder, or remove them first."
        )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    from safetensors.torch import save_file

    whole: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        # The format holds each tensor by itself: views are made whole, shared ones written twice.
        storage = tensor.untyped_storage()
        alone = tensor.is_contiguous() and storage.nbytes() == nbytes(tensor)
        if alone and storage.data_ptr() not in seen:
            whole[name] = tensor
        else:
            whole[name] = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
    save_file(whole, path, dict(metadata))
