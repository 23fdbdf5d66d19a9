"""The model of a pipeline: loaded with the head of its task, or refused with the tasks that it does run."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minitx.pipelines.registry import TASKS, TaskSpec, default_task
from minitx.validation import ArgumentValueError, warn

if TYPE_CHECKING:
    from minitx.models import Model


def usual_model(spec: TaskSpec, hub: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the usual checkpoint of a task, about which a warning informs, and the settings of the Hub.

    Where it is neither in the Hub's cache nor the Hub can be reached, returns the shipped checkpoint of the
    task, with a second warning. Where it is in the cache and the Hub cannot be reached, the settings are
    offline, so that the next readers do not wait for the Hub again.

    Args:
        spec: of the task.
        hub: revision, token and offline of the Hub.

    Raises:
        FileNotFoundError, ConnectionError: as `fetch`, of a task without a shipped checkpoint, or with a
            revision.
    """
    from minitx.checkpoint.hub import CONFIG, Snapshot, fetch, find

    warn(f"No model was named for {spec.name}; using {spec.checkpoint}.")
    settings = dict(hub)
    try:
        place = find(spec.checkpoint, (CONFIG,), **hub)
        settings["offline"] |= isinstance(place, Snapshot) and place.api is None
        fetch(spec.checkpoint, **settings)
    except (FileNotFoundError, ConnectionError) as error:
        if not spec.shipped or hub["revision"] != "main":
            raise
        chats = " For chats, name minitx/tiny-instruct." if spec.name == "text-generation" else ""
        warn(f"{error} Using {spec.shipped} instead, a tiny model that ships with minitx.{chats}")
        return spec.shipped, settings
    return spec.checkpoint, settings


def load_model(
    spec: TaskSpec | None,
    model: str | Path,
    dtype: torch.dtype | str | None,
    device: torch.device,
    hub: Mapping[str, Any],
) -> Model:
    """Loads a model with the head of the task; without a task, with the head of the checkpoint.

    Args:
        spec: of the task; None without a named one.
        model: folder or Hub id.
        dtype: as for `minitx.load`.
        device: of the model.
        hub: revision, token and offline of the Hub.

    Raises:
        ArgumentValueError: a checkpoint of another head, by config.json or by its tensors.
    """
    from minitx.checkpoint.hub import fetch_tokenizer
    from minitx.checkpoint.load import load
    from minitx.checkpoint.resolve import MissingHeadError

    head = None if spec is None else _head(spec, model, hub)
    try:
        loaded = load(model, head=head, dtype=dtype, device=device, **hub)
    except MissingHeadError as error:
        if spec is None:
            raise
        missing = error.expected.partition("missing: ")[2]
        hint = f"its files lack {missing}" if missing else "its files have another head"
        raise ArgumentValueError("model", str(model), _expected(spec), hint) from None
    fetch_tokenizer(model, **hub)  # into the folder of the model, where the task looks for it
    return loaded


def _head(spec: TaskSpec, model: str | Path, hub: Mapping[str, Any]) -> str | None:
    """Returns the head to load; None for that of the checkpoint.

    For a task without a head it is "encoder" of an encoder-decoder whose encoder can be used alone, such as
    T5, else "none".

    Raises:
        ArgumentValueError: config.json names another head.
    """
    from minitx.checkpoint.build import choose_architecture, class_names
    from minitx.checkpoint.formats.source import has_config, stored_config
    from minitx.checkpoint.hub import fetch
    from minitx.checkpoint.lora.base import base_folder
    from minitx.checkpoint.lora.settings import ADAPTER_CONFIG

    folder = fetch(model, **hub)
    place = base_folder(folder, token=hub["token"], offline=hub["offline"])
    head = spec.heads[0] if len(spec.heads) == 1 else None
    if not has_config(place):  # load() has the error
        return head
    config = stored_config(place)
    architecture = choose_architecture(config, None)[0]
    if head == "none":
        return architecture.headless[-1]
    if (folder / ADAPTER_CONFIG).is_file():  # an adapter may have a head of its own
        return head
    heads = {name: architecture.task_of(name) for name in class_names(config)}
    named = {name: task for name, task in heads.items() if task not in (None, "none")}
    if named and not set(named.values()) & set(spec.heads):
        name, task = next(iter(named.items()))
        hint = f"config.json names {name}, a model for {_tasks(task)}"
        raise ArgumentValueError("model", str(model), _expected(spec), hint)
    if not set(architecture.head_weights) & set(spec.heads):
        names = [other.name for other in TASKS.values() if set(other.heads) & set(architecture.head_weights)]
        hint = f"a {config['model_type']} model can run {', '.join(names)}"
        raise ArgumentValueError("model", str(model), _expected(spec), hint)
    return head


def check_head(spec: TaskSpec, model: Any) -> None:
    """Checks that a loaded model has a head of the task.

    Raises:
        ArgumentValueError: another head, or training mode.
    """
    if "none" not in spec.heads and model.task not in spec.heads:
        head = f"the head {model.task!r}" if model.task else "no head"
        hint = (
            f"it has {head}, for {_tasks(model.task)}; minitx.load(..., head={spec.heads[0]!r}) loads another"
        )
        raise ArgumentValueError("model", model, _expected(spec), hint)
    check_eval(model)


def check_eval(model: Any) -> None:
    """Checks that a model is in eval mode, else raises ArgumentValueError."""
    if model.training:
        raise ArgumentValueError("model", type(model).__name__, "in eval mode", "call model.eval()")


def without_head(model: Model) -> Model:
    """Returns the model without its head, for hidden states alone; all other modules are shared."""
    headless = copy(model)
    headless._modules = model._modules | {"head": None}
    return headless


def _expected(spec: TaskSpec) -> str:
    return f"{' or '.join(map(_phrase, spec.heads))} for {spec.name}"


def _phrase(head: str) -> str:
    task = default_task(head)
    return task.phrase if task and task.phrase else f"a model with {head!r}"


def _tasks(head: str | None) -> str:
    """Returns the names of the tasks that a head runs; without one, of those of the hidden states."""
    names = [spec.name for spec in TASKS.values() if head in spec.heads]
    return ", ".join(names or [spec.name for spec in TASKS.values() if "none" in spec.heads])
