"""The declaration of an architecture: how its config is read, and the names of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.mapping import Table, places
from minitx.config import HeadConfig, ModelConfig
from minitx.models.initialization import Rules

NATIVE = "minitx"  # the model_type of a model that is described by minitx's own config

# How Hugging Face names the class of a task: "Bert" + "ForMaskedLM".
TASK_SUFFIX = {
    "masked-lm": "ForMaskedLM",
    "causal-lm": "ForCausalLM",
    "seq2seq-lm": "ForConditionalGeneration",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "multiple-choice": "ForMultipleChoice",
    "next-sentence": "ForNextSentencePrediction",
    "replaced-token-detection": "ForPreTraining",
    "table-question-answering": "ForTableQuestionAnswering",
    "encoder": "EncoderModel",
}


def every_layer(config: ModelConfig) -> list[dict[str, int]]:
    """Returns the values of the placeholders of names, one dict per layer, and the sizes for operations.

    {i} is a layer, {j} a layer of the decoder of an encoder-decoder.
    """
    stacks = [stack for stack in (config.encoder, config.decoder) if stack is not None]
    layers = []
    for name, stack in zip("ij", stacks, strict=False):
        experts = getattr(stack.layer.feed_forward, "num_experts", 0)
        sizes = {"heads": stack.layer.attention.num_attention_heads, "experts": experts}
        layers += [{name: i, **sizes} for i in range(stack.num_hidden_layers)]
    return layers


def usual_names(names: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the last name of an entry; all names if nothing is tied: each is then a separate tensor."""
    return names if config.get("tie_word_embeddings") is False else names[-1:]


def usual_initialization(model: Any) -> Rules:
    """Returns no rules: normal with `initializer_range`, biases 0, norms 1."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One family of checkpoints: how its config is read, and the names of its tensors.

    Attributes:
        model_types: `model_type` of config.json -> first part of Hugging Face's class names.
        read: config.json -> the model config.
        heads: config.json -> the head of each task that the architecture has.
        prefix: of the names of `weights` in a checkpoint with a head.
        tasks_without_prefix: tasks whose checkpoints have no prefix.
        cross_attention_weights: further entries if the architecture is the decoder of an encoder-decoder;
            empty if that is not supported.
        composed: config.json -> the architecture, for models composed of two architectures.
        encoder_tasks: tasks that use the encoder alone; "encoder" for the encoder itself.
        weights: minitx name -> checkpoint name, for everything but the heads.
        head_weights: the same for each task.
        tasks_with_pooler: tasks whose head uses the pooler, and "none" if headless checkpoints have one.
        unused_tensors: checkpoint names that no module uses (constants, heads of the pre-training); kept for
            `save`, not loaded. {i} stands for every layer.
        frozen: parameters that are not trained.
        float32_in_half: modules that stay in float32 in a float16 model, by a part of their names: their
            outputs exceed the largest number of float16.
        layers: the placeholders of the templates, one dict per layer.
        canonical_names: the names of an entry under which a model without a checkpoint is saved.
        key_table: the `model_type` whose known keys (known_keys.json) apply to files of a type that has none;
            the first of `model_types` by default, which a changed copy of an architecture keeps.
        pretraining: the task that Hugging Face's `...ForPreTraining` includes.
        initialization: a model -> the rules of its fresh weights where they are not the usual ones.
        classes: Hugging Face's classes of some tasks, where they do not follow `TASK_SUFFIX`.
    """

    model_types: Mapping[str, str]
    read: Callable[[ConfigReader], ModelConfig]
    heads: Callable[[ConfigReader], dict[str, HeadConfig]]
    prefix: str
    weights: Table
    head_weights: Mapping[str, Table]
    tasks_with_pooler: frozenset[str] = frozenset()
    tasks_without_prefix: frozenset[str] = frozenset()
    cross_attention_weights: Table = field(default_factory=dict)
    composed: Callable[[Mapping[str, Any]], Architecture] | None = None
    encoder_tasks: frozenset[str] = frozenset()
    unused_tensors: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    float32_in_half: tuple[str, ...] = ()
    layers: Callable[[ModelConfig], list[dict[str, int]]] = every_layer
    pretraining: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    canonical_names: Callable[[tuple[str, ...], Mapping[str, Any]], tuple[str, ...]] = usual_names
    key_table: str = ""
    initialization: Callable[[Any], Rules] = usual_initialization

    def __post_init__(self) -> None:
        """Sets the default of `key_table`."""
        if not self.key_table:
            object.__setattr__(self, "key_table", next(iter(self.model_types), ""))

    def class_name(self, model_type: str, task: str) -> str:
        """Returns Hugging Face's class for a task, e.g. "BertForMaskedLM"; "BertModel" for "none"."""
        if task == "none":
            return self.model_types[model_type] + "Model"
        return self.classes.get(task, self.model_types[model_type] + TASK_SUFFIX[task])

    @property
    def headless(self) -> tuple[str, ...]:
        """The values of `head=` for a model without a head."""
        return ("none", "encoder") if "encoder" in self.encoder_tasks else ("none",)

    def constants(self, config: ModelConfig) -> list[str]:
        """Returns `unused_tensors` with the placeholders filled in."""
        layers = self.layers(config)
        return [name.format(**values) for name in self.unused_tensors for values in places(name, layers)]

    def stays_in_float32(self, parameter: str) -> bool:
        """Whether a parameter of a float16 model is float32."""
        return any(part in parameter for part in self.float32_in_half)

    def task_of(self, class_name: str) -> str | None:
        """Returns the task of one of Hugging Face's classes, "none" for a bare model, None if unknown."""
        for task, name in self.classes.items():
            if class_name == name:
                return task
        if class_name.removesuffix("Model") in self.model_types.values():
            return "none"
        if class_name.endswith("ForPreTraining"):
            return self.pretraining
        for task in (*self.head_weights, *self.encoder_tasks):
            if class_name.endswith(TASK_SUFFIX[task]):
                return task
        return None
