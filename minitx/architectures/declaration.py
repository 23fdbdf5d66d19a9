"""What an architecture file declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.mapping import Table, places
from minitx.config import HeadConfig, ModelConfig

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
    "encoder": "EncoderModel",
}


def every_layer(config: ModelConfig) -> list[dict[str, int]]:
    """The values of a template's placeholders, one dict per layer: {i} is the layer, {j} one of a decoder
    that has an encoder before it.

    With them go the numbers that the operations of a row may need.
    """
    stacks = [stack for stack in (config.encoder, config.decoder) if stack is not None]
    found = []
    for name, stack in zip("ij", stacks, strict=False):
        experts = getattr(stack.layer.feed_forward, "num_experts", 0)
        sizes = {"heads": stack.layer.attention.num_attention_heads, "experts": experts}
        found += [{name: i, **sizes} for i in range(stack.num_hidden_layers)]
    return found


def usual_names(names: tuple[str, ...], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The last name of a row; all of them for a model that is not tied, where each is a tensor of its own."""
    return names if config.get("tie_word_embeddings") is False else names[-1:]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One family of checkpoints: how its config is read and what its tensors are called.

    Attributes:
        model_types: `model_type` of config.json -> first part of Hugging Face's class names.
        read: config.json -> the numbers of the network.
        heads: config.json -> the head of each task that the architecture has.
        prefix: put before the names of `weights` in a checkpoint with a head.
        tasks_without_prefix: the tasks whose checkpoints do without the prefix.
        cross_weights: minitx name -> checkpoint name, of what its layers have more as a decoder behind an
            encoder; architectures without any cannot be one.
        composed: config.json -> the architecture, where that depends on what the model is composed of.
        encoder_tasks: the tasks for which the encoder is all there is; "encoder" for itself.
        weights: minitx name -> checkpoint name, of everything but the heads.
        head_weights: the same for each task.
        tasks_with_pooler: tasks whose head reads the pooler, and "none" if headless checkpoints have one.
        unused_tensors: checkpoint names that no part here uses (constants, heads of the pre-training);
            kept for `save`, not loaded. {i} stands for every layer.
        frozen: parameters that no training changes.
        layers: the placeholders of the templates, one dict per layer.
        canonical_names: which of a row's names a model that came from no file is written under.
        pretraining: the task that Hugging Face's `...ForPreTraining` includes.
        classes: Hugging Face's classes of some tasks here, where they are not named as elsewhere.
    """

    model_types: Mapping[str, str]
    read: Callable[[ConfigReader], ModelConfig]
    heads: Callable[[ConfigReader], dict[str, HeadConfig]]
    prefix: str
    weights: Table
    head_weights: Mapping[str, Table]
    tasks_with_pooler: frozenset[str] = frozenset()
    tasks_without_prefix: frozenset[str] = frozenset()
    cross_weights: Table = field(default_factory=dict)
    composed: Callable[[Mapping[str, Any]], Architecture] | None = None
    encoder_tasks: frozenset[str] = frozenset()
    unused_tensors: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    layers: Callable[[ModelConfig], list[dict[str, int]]] = every_layer
    pretraining: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    canonical_names: Callable[[tuple[str, ...], Mapping[str, Any]], tuple[str, ...]] = usual_names

    def class_name(self, model_type: str, task: str) -> str:
        """Hugging Face's class for a task, e.g. "BertForMaskedLM"; "BertModel" for "none"."""
        if task == "none":
            return self.model_types[model_type] + "Model"
        return self.classes.get(task, self.model_types[model_type] + TASK_SUFFIX[task])

    @property
    def headless(self) -> tuple[str, ...]:
        """What takes the place of a task where no head is wanted."""
        return ("none", "encoder") if "encoder" in self.encoder_tasks else ("none",)

    def constants(self, config: ModelConfig) -> list[str]:
        """`stored`, written out."""
        layers = self.layers(config)
        return [name.format(**values) for name in self.unused_tensors for values in places(name, layers)]

    def task_of(self, class_name: str) -> str | None:
        """The task of one of Hugging Face's classes, "none" for a bare model, None if unknown."""
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
