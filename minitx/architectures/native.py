"""minitx's own checkpoints: config.json holds a `ModelConfig`, and tensors have the names of parameters.

Unlike the files of the other architectures this one reads no sizes itself, so every `ModelConfig` has a
checkpoint: also those that no Hugging Face architecture describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from minitx.architectures.config_reader import LARGEST_SIZE, MOST_EXPERTS, MOST_LAYERS, ConfigReader
from minitx.architectures.declaration import NATIVE, TASK_SUFFIX, Architecture
from minitx.architectures.mapping import Table
from minitx.config import HeadConfig, ModelConfig, TextInputs
from minitx.config.json_form import from_json, to_json
from minitx.layers.attention import BACKENDS
from minitx.models import DecoderModel, EncoderDecoderModel, EncoderModel, Model, TableModel
from minitx.validation import ArgumentValueError, check_choice

VERSION = 1  # of the form; a form that older code would misread has another
IGNORED = "ignored_keys"  # those of the source's config.json that were ignored, with their values
LABELLED = ("sequence-classification", "token-classification")  # tasks with as many outputs as labels


def model_class(config: ModelConfig) -> type[Model]:
    """Returns the family of a config's model."""
    if config.encoder is None:
        return DecoderModel
    if config.decoder is not None:
        return EncoderDecoderModel
    several = isinstance(config.inputs, TextInputs) and isinstance(config.inputs.type_vocab_size, tuple)
    return TableModel if several else EncoderModel


def native_config(config: ModelConfig, head: HeadConfig | None = None) -> dict[str, Any]:
    """Returns the content of config.json for a model, which `from_config` and `load` take.

    Args:
        config: of the model.
        head: of its head; None: no head.
    """
    content = {
        "model_type": NATIVE,
        "version": VERSION,
        "config": to_json(config),
        "head": None if head is None else to_json(head),
    }
    if head is not None:
        content["architectures"] = ["Minitx" + TASK_SUFFIX[head.task]]
        if head.task in LABELLED:
            content["num_labels"] = head.num_labels
    return content


def read(reader: ConfigReader) -> ModelConfig:
    """Reads the config of the network."""
    reader.expect("version", VERSION)
    reader.ignore(IGNORED)  # a record, which save keeps
    config = from_json(ModelConfig, reader.get("config"), "config.json: config")
    check_sizes(config)
    if isinstance(config.inputs, TextInputs):
        reader.expect("pad_token_id", config.inputs.pad_token_id)
    check_choice(
        "config.json: attention",
        reader.name("attention", "sdpa"),
        BACKENDS,
        "minitx.register_attention adds a custom one, before the model is loaded",
    )
    return config


def check_sizes(config: Any, place: str = "config") -> None:
    """Checks the sizes of a config and those in it against the bounds of every config.json.

    Raises:
        ArgumentValueError: one is too large for any real model.
    """
    for field in fields(config):
        value, name = getattr(config, field.name), f"{place}.{field.name}"
        for index, inner in enumerate(value if isinstance(value, tuple) else (value,)):
            most = {"num_hidden_layers": MOST_LAYERS, "num_experts": MOST_EXPERTS}.get(
                field.name, LARGEST_SIZE
            )
            if is_dataclass(inner):
                check_sizes(inner, f"{name}[{index}]" if isinstance(value, tuple) else name)
            elif isinstance(inner, int) and inner > most:
                raise ArgumentValueError(f"config.json: {name}", inner, f"at most {most}")


def heads(reader: ConfigReader) -> dict[str, HeadConfig]:
    """Reads the config of the head; labels that are stated beside it decide its width."""
    reader.ignore("id2label", "num_labels")  # only the heads below take them
    if reader.get("head", None) is None:
        return {}
    head = from_json(HeadConfig, reader.get("head"), "config.json: head")
    if head.task in LABELLED:
        head = replace(head, num_labels=reader.num_labels(head.num_labels or 2))
    else:
        reader.expect("num_labels", head.num_labels)
    return {head.task: head}


def composed(config: Mapping[str, Any]) -> Architecture:
    """Returns the architecture of one config: its weight table maps each parameter to its own name."""
    reader = ConfigReader(config)
    model_config, known = read(reader), heads(reader)
    head = next(iter(known.values()), None)
    with torch.device("meta"):
        names = list(model_class(model_config)(model_config, head).state_dict())
    table: Table = {name: name for name in names if not name.startswith("head.")}
    return replace(
        ARCHITECTURE,
        weights=table,
        head_weights={task: {name: name for name in names if name not in table} for task in known},
        tasks_with_pooler=frozenset({*known, "none"} if model_config.pooler else ()),
    )


ARCHITECTURE = Architecture(
    model_types={NATIVE: "Minitx"},
    read=read,
    heads=heads,
    prefix="",
    weights={},
    head_weights={},
    composed=composed,
)
