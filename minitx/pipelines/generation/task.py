"""`GenerationTask`: the shape of the tasks that generate text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self

import torch

from minitx.decoding.generate import generate, stream
from minitx.decoding.output import Row
from minitx.decoding.prompts import Rows
from minitx.decoding.samplers.counter_rng import RepeatedSeed
from minitx.decoding.search.base import Search
from minitx.pipelines.batching import BatchLimits, make_batches
from minitx.pipelines.checks import note_truncation
from minitx.pipelines.embedding.embed import token_limit
from minitx.pipelines.generation.options import REPLACED, GenerateOptions
from minitx.pipelines.generation.plan import Plan, make_plan
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import TextInput, TextOptionsT, TextTask
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentError, ArgumentValueError

# Tokens of a batch, those to be generated included; they are all in the key/value cache.
_TOKENS = 32768
# Argument of `minitx.generate` in messages -> options of a task that state it.
_ARGUMENTS = {
    "num_samples": ("num_return_sequences",),
    "Stop(eos=...)": ("eos_token_id",),
    "Stop(strings=...)": ("stop_strings", "stop_sequence"),
}


class OfCall(NamedTuple):
    """The place of a sequence in its call.

    Attributes:
        max_new_tokens: most tokens of its output.
        earlier: number of equal sequences before it, since equal ones draw different tokens.
    """

    max_new_tokens: int
    earlier: int


class GenerationTask(TextTask[TextOptionsT]):
    """A task that generates text with `minitx.generate`.

    Attributes:
        defaults: settings where neither the user nor the checkpoint states others.
    """

    Options = GenerateOptions
    divides = False
    remedy = 'divide them, or use overflow="error" to find them'
    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 256}

    def options(self, base: Any, values: Mapping[str, Any]) -> Any:
        """As `Task.options`; it also checks that the options fit together and to the checkpoint."""
        if base is not None:
            others = {other for name in values for other in REPLACED.get(name, ())} - values.keys()
            values = {**values, **dict.fromkeys(others)}
        options: Any = super().options(base, values)
        if base is not None:
            options.call.inherited = base.stated().keys() - values.keys()
        with _naming_options(options):
            self.plan(options)
        return options

    def plan(self, options: Any) -> Plan:
        """Returns how texts are generated, determined once per call."""
        if options.call.plan is None:
            names, ignored = self.task_names(options), self.ignored(options)
            checkpoint = self.model.checkpoint
            options.call.plan = make_plan(checkpoint, options, names, self.defaults, ignored)
        plan: Plan = options.call.plan
        return plan

    def task_names(self, options: Any) -> list[str]:
        """Returns the names of the task in a checkpoint's `task_specific_params`."""
        return [self.spec.name]

    def ignored(self, options: Any) -> tuple[str, ...]:
        """Returns the settings of the checkpoint that are not used."""
        return ()

    def tokenizer_of(self, options: Any) -> Tokenizer:
        """Returns the tokenizer of a call; a copy if the call has settings of its own."""
        clean = options.clean_up_tokenization_spaces
        if clean is None or clean == self.tokenizer.tidies_spaces:
            return self.tokenizer
        tokenizer = copy(self.tokenizer)
        tokenizer.tidies_spaces = clean
        return tokenizer

    def with_tokenizer(self, options: Any) -> Self:
        """Returns the task with the tokenizer of a call."""
        tokenizer = self.tokenizer_of(options)
        if tokenizer is self.tokenizer:
            return self
        task = copy(self)
        task.tokenizer = tokenizer
        return task

    def limit(self, options: Any) -> int | None:
        """Returns the most tokens of a sequence; `max_length` is that of outputs here."""
        return token_limit(self.model, self.tokenizer, None)

    def batches(self, inputs: Sequence[TextInput], limits: BatchLimits, options: Any) -> list[list[int]]:
        """As `Task.batches`; tokens to be generated belong to the size of a batch, and to its overhead."""
        plan, new = self.plan(options), [item.label.max_new_tokens for item in inputs]
        rows = max(plan.num_samples, getattr(plan.strategy, "num_beams", 1))
        lengths = [rows * (len(item) + more) for item, more in zip(inputs, new, strict=True)]
        overhead = limits.overhead * max(new, default=1)
        return make_batches(lengths, BatchLimits(limits.rows, _TOKENS, overhead))

    @torch.inference_mode()
    def forward(self, inputs: Sequence[TextInput], options: Any) -> list[Any]:
        """Generates the outputs of a batch; returns a list of rows of `minitx.generate` per sequence.

        Sequences that get different numbers of tokens are generated one group after another.
        """
        with _naming_options(options):
            return self._generate(inputs, options)

    def _generate(self, inputs: Sequence[TextInput], options: Any) -> list[Any]:
        groups: dict[int, list[int]] = {}
        for index, item in enumerate(inputs):
            groups.setdefault(item.label.max_new_tokens, []).append(index)
        outputs: list[list[Row]] = [[] for _ in inputs]
        for most, indices in groups.items():
            arguments = self.generation_arguments([inputs[index] for index in indices], most, options)
            for number, row in enumerate(generate(self.model, **arguments)):
                outputs[indices[number // self.plan(options).num_samples]].append(row)
        return outputs

    def generation_arguments(self, inputs: Sequence[TextInput], most: int, options: Any) -> dict[str, Any]:
        """Returns the arguments of `minitx.generate` for sequences that get at most `most` tokens."""
        plan = self.plan(options)
        seeds = None if options.seed is None else [RepeatedSeed(options.seed) for _ in inputs]
        for seed, item in zip(seeds or (), inputs, strict=False):
            seed.earlier = item.label.earlier
        least = plan.min_new_tokens if "min_new_tokens" in plan.stated else min(plan.min_new_tokens, most)
        prompts: Rows = [list(item.input_ids) for item in inputs]
        return {
            "prompts": prompts,
            "strategy": plan.strategy,
            "guidance": plan.guidance,
            "max_new_tokens": most,
            "min_new_tokens": least,
            "num_samples": plan.num_samples,
            "tokenizer": self.tokenizer_of(options),
            "stop": plan.stop,
            "seed": seeds,
        }

    def stream(self, request: Request, options: Any) -> Iterator[str]:
        """Returns an iterator of the pieces of the new text.

        Raises:
            ValueError: a search, or several outputs per text.
        """
        plan = self.plan(options)
        if plan.num_samples > 1:
            raise ArgumentValueError("num_return_sequences", plan.num_samples, "1 for a stream")
        if isinstance(plan.strategy, Search):
            name, value = ("num_beams", plan.strategy.num_beams)
            if options.strategy is not None:
                name, value = "strategy", options.strategy
            hint = "a search knows its first token only at the end and cannot be streamed; num_beams=1 can"
            raise ArgumentValueError(name, value, "no search for a stream", hint)
        (item,) = self.preprocess(request, options)
        note_truncation(self, [[item]])
        arguments = self.generation_arguments([item], item.label.max_new_tokens, options)
        events = stream(self.model, **arguments)
        return (event.text for event in events if event.text)

    def labelled(self, item: TextInput, most: int, options: Any) -> TextInput:
        """Returns a sequence that gets at most `most` tokens, numbered among the equal ones of the call."""
        return replace(item, label=OfCall(most, options.call.count(item.input_ids)))

    def text_of(self, row: Row, options: Any, prompt: Sequence[int] = ()) -> str:
        """Returns the text of an output.

        It is that of all its tokens, also of a rest of the token that completed a stop string, as in
        transformers; with a `Stop` of minitx it ends as that states.

        Args:
            row: the output.
            options: of the call.
            prompt: ids of the prompt that the text continues: some decoders drop the first space of a text.
        """
        skip = options.skip_special_tokens is not False
        if options.stop is not None and skip:
            return row.text or ""
        tokenizer, new = self.tokenizer_of(options), row.tokens.tolist()
        start = tokenizer.decode(prompt, skip_special_tokens=skip)
        whole = tokenizer.decode([*prompt, *new], skip_special_tokens=skip)
        if whole.startswith(start):
            return whole[len(start) :]
        return tokenizer.decode(new, skip_special_tokens=skip)  # the prompt ends within a character

    def describe(self, options: Any) -> str:
        """Returns the strategy and the numbers that are used where a call states no others."""
        return str(self.plan(options))


@contextmanager
def _naming_options(options: Any) -> Iterator[None]:
    """Makes errors about arguments of `minitx.generate` name the options that state them."""
    try:
        yield
    except ArgumentError as error:
        for argument, names in _ARGUMENTS.items():
            stated = [name for name in names if getattr(options, name) is not None]
            if stated and error.parameter.startswith(argument):
                error.parameter = stated[0] + error.parameter.removeprefix(argument)
        raise
