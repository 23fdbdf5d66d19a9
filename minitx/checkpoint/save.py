"""`minitx.save`: a model back to Hugging Face's layout, under the names that it was loaded from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from torch import Tensor

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import NATIVE
from minitx.architectures.known_keys import known_keys
from minitx.architectures.mapping import ResolvedEntry
from minitx.architectures.native import IGNORED, native_config
from minitx.checkpoint.build import choose_architecture, class_names, task_of
from minitx.checkpoint.files import GENERATION, INDEX, SINGLE
from minitx.checkpoint.record import Checkpoint
from minitx.checkpoint.resolve import table_entries
from minitx.checkpoint.ties import is_shared, is_tied, untied
from minitx.checkpoint.unchanged import attention_name, check_unchanged, check_whole
from minitx.checkpoint.write import check_target, nbytes, replaced_weights, write_tensors, write_tokenizer
from minitx.habits import explain_arguments
from minitx.io import write_json
from minitx.models import EncoderDecoderModel, Model
from minitx.models.compiled import check_not_compiled
from minitx.transaction import StagedFiles, transaction
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_callable,
    check_choice,
    check_integer,
    check_path,
    check_type,
)


class HasFiles(Protocol):
    """A tokenizer: it has files to write beside a model's."""

    num_added_tokens: int

    def contents(self) -> Mapping[str, str | bytes]:
        """Returns name -> content of its files."""

    def __len__(self) -> int:
        """Returns the number of tokens."""


@explain_arguments("save")
def save(
    model: Model,
    folder: str | Path,
    *,
    tokenizer: HasFiles | None = None,
    max_shard_size: int | None = None,
    model_type: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Saves config.json and safetensors files that transformers loads.

    Also writes generation_config.json and the files of sentence-transformers if the source had them, and the
    files of `tokenizer`. transformers loads the folder without a warning if it loads the source without one.
    (A pooler that the source lacked, as when a masked-lm checkpoint is loaded with head="none", stays
    missing.)

    A loaded model keeps the names, dtypes and shards of its source. All files replace those of the folder
    together or not at all, whatever happens; another process that saves there waits for this one.

    Args:
        model: from `minitx.load`, `minitx.from_config`, or built from a `ModelConfig`.
        folder: created if it does not exist.
        tokenizer: a tokenizer to save with the model.
        model_type: "minitx" writes minitx's own config.json (a `ModelConfig`, and the name of a registered
            attention) and parameter names, which minitx alone loads. None keeps the architecture of the
            source; a model built from a `ModelConfig` has none, and is saved as "minitx".
        max_shard_size: bytes per file; None keeps the shards of the source, or writes one file.
        progress: called with the number of bytes after each tensor.

    Raises:
        FileExistsError: the folder holds a model of another architecture, or weights, settings of
            embeddings or chat templates under other file names, which would contradict these.
        TypeError: `tokenizer` is not from `minitx.load_tokenizer`.
        ValueError: a model that its config does not describe; a folder that ships with minitx.
    """
    check_not_compiled(model)
    check_type("model", model, Model, "a model of minitx")
    check_whole(model)
    folder = check_path("folder", folder)
    if model_type is not None:
        check_choice("model_type", model_type, (NATIVE,), "None keeps that of the source")
    native = model.checkpoint is None or model_type is not None or model.checkpoint.is_native
    checkpoint = native_checkpoint(model, model.checkpoint) if native else model.checkpoint
    if max_shard_size is not None:
        check_integer("max_shard_size", max_shard_size, 1, hint="it is a number of bytes")
    if tokenizer is not None:
        check_tokenizer(tokenizer, model)
    if progress is not None:
        check_callable("progress", progress, "it is called with the number of bytes after each file")
    check_unchanged(model, checkpoint)
    with transaction(folder) as files:
        replaced = replaced_weights(folder)
        write_checkpoint(files, model, checkpoint, max_shard_size, progress)
        if tokenizer is not None:
            write_tokenizer(files, tokenizer.contents())
    for path in replaced:
        path.unlink(missing_ok=True)


def check_tokenizer(tokenizer: HasFiles, model: Model) -> None:
    """Checks that a tokenizer is minitx's, and that the model has an embedding of each of its tokens.

    Raises:
        ArgumentTypeError: anything else than a tokenizer of minitx.
        ValueError: tokens were added for which the model has no embeddings.
    """
    if not callable(getattr(tokenizer, "contents", None)):
        raise ArgumentTypeError("tokenizer", type(tokenizer), "from minitx.load_tokenizer")
    rows, size = getattr(model.config.inputs, "vocab_size", None), len(tokenizer)
    if rows is not None and size > rows and tokenizer.num_added_tokens:  # some files have more tokens
        raise ValueError(
            f"tokenizer has {size} tokens, and the model {rows} embeddings; resize the model first: "
            "model.resize_token_embeddings(len(tokenizer))."
        )


def write_checkpoint(
    files: StagedFiles,
    model: Model,
    checkpoint: Checkpoint,
    max_shard_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Writes all files of a model but those of its tokenizer; returns the names of the weight files.

    Raises:
        FileExistsError: the folder has files that would contradict these.
    """
    shapes, groups = stored_tensors(model, checkpoint)
    shards = assign_shards(shapes, checkpoint, max_shard_size)
    config = stored_config(model, checkpoint)
    names = {*shards, *checkpoint.sentence_files} | ({INDEX} if len(shards) > 1 else set())
    if checkpoint.generation_file is not None:
        names.add(GENERATION)
    check_target(files.folder, config, names)
    metadata = checkpoint.metadata or {"format": "pt"}
    paths = {files.path(name): members for name, members in shards.items()}
    write_tensors(paths, shapes, groups, metadata, progress)
    write_json(files.path("config.json"), config)
    if len(shards) > 1:
        write_json(files.path(INDEX), shard_index(shards, shapes))
    if checkpoint.generation_file is not None:
        files.path(GENERATION).write_bytes(checkpoint.generation_file)
    files.write_all(checkpoint.sentence_files)
    return list(shards)


# --- names and tensors -----------------------------------------------------------------------------


def stored_tensors(
    model: Model, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], list[Callable[[], dict[str, Tensor]]]]:
    """Returns the tensors to write: meta tensors by name, and functions that compute those of one entry."""
    parameters = model.state_dict()
    meta = {name: tensor.to("meta") for name, tensor in parameters.items()}
    shapes: dict[str, Tensor] = {}
    groups: list[Callable[[], dict[str, Tensor]]] = []
    converted = model.dtype != checkpoint.dtype
    dtypes = {} if converted else checkpoint.dtypes
    for entry, names in stored_names(model, checkpoint).items():
        shapes |= entry_tensors(entry, names, dtypes, meta)
        groups.append(partial(entry_tensors, entry, names, dtypes, parameters))
    # Unused tensors are written back unchanged, but follow a change of the model's dtype.
    for name, tensor in checkpoint.unused_tensors.items():
        dtype = model.dtype if converted and tensor.dtype == checkpoint.dtype else tensor.dtype
        shapes[name] = tensor.to("meta", dtype)
        groups.append(partial(unused_tensor, name, tensor, dtype))
    return shapes, groups


def entry_tensors(
    entry: ResolvedEntry,
    names: Sequence[str],
    dtypes: Mapping[str, tuple[torch.dtype, torch.dtype]],
    parameters: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Returns the tensors of an entry by the names to store them under.

    Args:
        entry: an entry of the weight table.
        names: the names to store its tensors under.
        dtypes: name -> dtype to store, and that of a parameter that was not converted since it was loaded.
        parameters: of the model, by name.
    """
    tensors = entry.op.save([parameters[name] for name in entry.parameters])
    stored = dict(zip(names, tensors if entry.op.many else tensors * len(names), strict=True))
    for name, tensor in stored.items():
        own, loaded = dtypes.get(name, (tensor.dtype, tensor.dtype))
        stored[name] = tensor.to(own) if tensor.dtype == loaded else tensor
    return stored


def unused_tensor(name: str, tensor: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns a tensor that the model does not use, by its name."""
    return {name: tensor.to(dtype)}


def stored_names(model: Model, checkpoint: Checkpoint) -> dict[ResolvedEntry, tuple[str, ...]]:
    """Returns the names under which each entry is written; entries that are not written are left out."""
    stored: dict[ResolvedEntry, tuple[str, ...]] = {}
    for entry in table_entries(checkpoint.architecture, model):
        names = checkpoint.names.get(entry.parameters)
        if names is None and is_shared(entry, model):
            continue  # written once, under the name of its owner
        if names == () and not bool(model.get_parameter(entry.parameters[0]).any()):
            continue  # zeros, which the file left out
        names = names or canonical_names(entry, model, checkpoint)
        if is_tied(entry, model):
            # The file may have had the shared tensor under this name; it now belongs to this entry alone.
            for owner in [other for other, taken in stored.items() if set(taken) & set(names)]:
                stored[owner] = canonical_names(owner, model, checkpoint)
        stored[entry] = names
    return stored


def canonical_names(entry: ResolvedEntry, model: Model, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Returns the names of an entry that no file named; models with a head have the base model's prefix."""
    names = entry.names
    if not entry.op.many:
        names = checkpoint.architecture.canonical_names(names, checkpoint.config)
    bare = model.task is None or model.task in checkpoint.architecture.tasks_without_prefix
    if bare or entry.parameters[0].startswith("head."):
        return names
    return tuple(checkpoint.architecture.prefix + name for name in names)


def native_checkpoint(model: Model, source: Checkpoint | None) -> Checkpoint:
    """Returns a record under which a model is saved with minitx's own config and parameter names.

    What the source states beside the network is kept: token ids, labels, generation_config.json, ...

    Args:
        model: its config, head and attention are described as they are now.
        source: its record; None: it has none.

    Raises:
        ArgumentValueError: an attention without a name, or several in one model.
    """
    attention = attention_name(model)
    if attention is None:
        hint = "minitx.register_attention gives a function a name, which the loader registers too"
        raise ArgumentValueError("model", type(model), "one with one registered attention", hint)
    config = native_config(model.config, None if model.head is None else model.head.config)
    if attention != "sdpa":
        config["attention"] = attention
    without_effect = {key for key, reason in known_keys(NATIVE).items() if isinstance(reason, str)}
    kept = without_effect | {"id2label", "label2id"}
    stated = {} if source is None else source.config
    config = {key: value for key, value in stated.items() if key in kept} | config
    if source is not None and (ignored := ignored_values(source)):
        config[IGNORED] = ignored
    if "id2label" in config:
        config.pop("num_labels", None)
    architecture, model_type = choose_architecture(config, None)
    if source is None:
        return Checkpoint(architecture, model_type, config)
    files = source.files if source.is_native else {}
    as_new = replace(source, files=files, names={}, ignored_keys=())
    return replace(as_new, architecture=architecture, model_type=model_type, config=config)


def ignored_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the keys that were ignored when a config was read, with their values."""
    values = dict(checkpoint.config.get(IGNORED, {})) if checkpoint.is_native else {}
    for key in checkpoint.ignored_keys:
        outer, _, inner = key.partition(".")
        part = checkpoint.config
        values[key] = part[key] if key in part else part[outer][inner]
    return values


def stored_config(model: Model, checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns config.json as it was read, with the class, dtype and labels of the model."""
    config = dict(checkpoint.config)
    architecture = checkpoint.architecture
    task = task_of(model, architecture)
    config["model_type"] = checkpoint.model_type
    names = class_names(config)
    if not names or architecture.task_of(names[0]) != task:
        config["architectures"] = [architecture.class_name(checkpoint.model_type, task)]
    if untied_head(model, checkpoint):
        config["tie_word_embeddings"] = False
    dtype = str(main_dtype(model, checkpoint)).removeprefix("torch.")
    keys = [key for key in ("dtype", "torch_dtype") if key in config]
    if keys or dtype != "float32":
        for key in keys or ["dtype"]:
            config[key] = dtype
    if task == "question-answering" and ConfigReader(config).num_labels() != 2:  # a span has two ends
        config = {key: v for key, v in config.items() if key not in ("num_labels", "id2label", "label2id")}
    if (labels := config.pop("num_labels", None)) is not None and "id2label" not in config and labels != 2:
        # transformers derives the number of labels from their names.
        config["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        config["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    elif labels is not None:
        config["num_labels"] = labels
    return config


def untied_head(model: Model, checkpoint: Checkpoint) -> bool:
    """Whether a head that its file tied to the word embedding has a weight of its own by now."""
    if model.head is None or not model.head.config.tied or model.head.config.scale is not None:
        return False  # the scale of T5 goes with its tie
    if isinstance(model, EncoderDecoderModel):
        return False  # the key is about both word embeddings too
    ties = [name for name in model.ties if name.startswith("head.") and name not in checkpoint.untied]
    return any(name in untied(model) for name in ties)


def main_dtype(model: Model, checkpoint: Checkpoint) -> torch.dtype:
    """Returns the dtype to state in config.json: as read if any parameter has it, else the first one's.

    Parameters that are float32 in a float16 model do not count.
    """
    names = checkpoint.architecture.stays_in_float32
    stated = {str(checkpoint.config.get(key)).removeprefix("torch.") for key in ("dtype", "torch_dtype")}
    dtypes = {p.dtype for name, p in model.named_parameters() if not names(name)}
    return next((d for d in dtypes if str(d).removeprefix("torch.") in stated), model.dtype)


# --- shards ----------------------------------------------------------------------------------------


def assign_shards(
    tensors: Mapping[str, Tensor], checkpoint: Checkpoint, max_shard_size: int | None
) -> dict[str, list[str]]:
    """Returns file name -> names of its tensors: the source's shards, or shards of a size."""
    if max_shard_size is not None:
        return sized_shards(tensors, max_shard_size)
    source = {
        name: file if file.endswith(".safetensors") else safetensors_name(file)
        for name, file in checkpoint.files.items()
    }
    if not source:
        return {SINGLE: list(tensors)}
    shards: dict[str, list[str]] = {}
    last = max(source.values())
    for name in tensors:
        shards.setdefault(source.get(name, last), []).append(name)
    return numbered(list(shards.values())) if len(shards) < len(set(source.values())) else shards


def safetensors_name(file: str) -> str:
    """Returns the name of a `.bin` file's counterpart: pytorch_model-... is model-..."""
    path = PurePosixPath(file)
    return path.with_name(path.stem.replace("pytorch_model", "model") + ".safetensors").as_posix()


def sized_shards(tensors: Mapping[str, Tensor], size: int) -> dict[str, list[str]]:
    """Fills shards of at most `size` bytes in order; a larger tensor gets a separate shard."""
    shards: list[list[str]] = [[]]
    free = size
    for name, tensor in tensors.items():
        if shards[-1] and nbytes(tensor) > free:
            shards.append([])
            free = size
        shards[-1].append(name)
        free -= nbytes(tensor)
    return numbered(shards)


def numbered(shards: Sequence[list[str]]) -> dict[str, list[str]]:
    """Names shards as loaders expect; a single one is model.safetensors."""
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": s for i, s in enumerate(shards, 1)}


def shard_index(shards: Mapping[str, list[str]], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the content of model.safetensors.index.json."""
    weight_map = {key: name for name, members in shards.items() for key in members}
    size = sum(map(nbytes, tensors.values()))
    return {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
