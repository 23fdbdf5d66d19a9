"""Everything that a recipe describes, built: the arguments of `train`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minitx.io import read_json
from minitx.tokenizer import Tokenizer, load_tokenizer
from minitx.training.config import TrainConfig
from minitx.training.data.labels import Labels
from minitx.training.data.randomness import batch_generator
from minitx.training.distributed.group import number_of_processes
from minitx.training.loop import Dataset
from minitx.training.objectives.base import Objective
from minitx.training.recipe.fields import check_columns, check_records
from minitx.training.recipe.file import Recipe, files_of
from minitx.training.recipe.objectives import (
    OF_TEXT,
    ObjectiveTable,
    build_objective,
    longest_input,
    read_objective,
)
from minitx.training.recipe.parts import adapt, build_model, build_tokenizer, name_labels
from minitx.training.recipe.records import (
    SUFFIXES,
    converted,
    encode_labels,
    read_rows,
    texts_of,
    with_answers,
    with_label_list,
    with_number,
    with_words,
)
from minitx.training.recipe.tables import check_keys
from minitx.training.recipe.text import Documents, read_documents, split_blocks, token_blocks
from minitx.training.recipe.turns import add_turn_end
from minitx.training.state import CHECKPOINTS, VALUES
from minitx.validation import ArgumentValueError, Interval, check_integer, check_number, warn

_Pair = tuple[Sequence[Any], Sequence[Any] | None]  # of records: training and evaluation
_CONVERSIONS: dict[str, Any] = {"token-labels": with_words, "answer-spans": with_answers}


@dataclass
class Prepared:
    """A run that is ready to begin.

    Attributes:
        recipe: that it was built from.
        stated: the table of the objective.
        model, dataset, evaluation, objective, config, tokenizer: the arguments of `train`.
        labels: names of the labels, or None.
    """

    recipe: Recipe
    stated: ObjectiveTable
    model: nn.Module
    dataset: Dataset
    evaluation: Dataset | None
    objective: Objective
    config: TrainConfig
    tokenizer: Tokenizer
    labels: Labels | None

    @property
    def epochs(self) -> float:
        """How often the run takes every example."""
        config = self.config
        return config.steps * config.batch_size * config.accumulation / len(self.dataset)


@dataclass
class _Source:
    """The data before it is tokenized; `documents` or `rows`, or neither with token blocks alone."""

    documents: tuple[Documents, Documents | None] | None = None
    rows: _Pair | None = None

    def texts(self) -> Iterable[str]:
        """Returns the texts of the training data, to train a tokenizer on."""
        if self.documents is not None:
            return self.documents[0]
        return [] if self.rows is None else list(texts_of(self.rows[0]))


def prepare(
    recipe: Recipe,
    *,
    resume: bool = False,
    tokenizer: Tokenizer | None = None,
    progress: bool | None = None,
) -> Prepared:
    """Builds what a recipe describes, and checks that its parts fit together.

    Args:
        recipe: from `read_recipe`.
        resume: take the tokenizer of the last checkpoint, instead of training it again.
        tokenizer: of the first process, which has written the token blocks too; None: this is the first.
        progress: show progress bars; None: at a terminal.

    Raises:
        ArgumentTypeError, ArgumentValueError: values that do not fit.
        OSError, ValueError: files that are missing or damaged.
    """
    stated = read_objective(recipe.objective)
    seed = check_integer("train.seed", recipe.train.get("seed", 0), 0, 2**63 - 1)
    check_keys(recipe.train, ["epochs", *TrainConfig.__dataclass_fields__], "train")
    source = read_source(recipe, stated, seed)
    labels, encode = None, None
    if source.rows is not None:
        source.rows, labels, encode = labelled(source.rows, stated, recipe.data.labels)
    is_written = tokenizer is not None
    if tokenizer is None and resume:
        tokenizer = earlier_tokenizer(recipe.folder)
    if tokenizer is None:
        tokenizer = build_tokenizer(recipe.tokenizer, recipe.model, source.texts(), progress)
    model = build_model(recipe.model, stated, tokenizer, labels, seed)
    if labels is not None and encode is not None:
        labels = name_labels(model, labels)
        source.rows = encode(labels)
    objective = build_objective(stated, model, tokenizer, None if labels is None else len(labels))
    limit = longest_input(model)
    dataset, evaluation = examples(recipe, stated, source, tokenizer, limit, is_written=is_written)
    done = place(recipe.folder) if resume and "epochs" in recipe.train else (0, 0)
    config = train_config(recipe.train, len(dataset), *done)
    check_evaluation(config, evaluation)
    objective([dataset[0]], batch_generator(seed, 0))  # fails early on examples that do not fit
    if stated.task.name in ("instruct", "dpo"):
        add_turn_end(model, getattr(objective, "objective", objective), tokenizer, dataset[0])
    adapt(model, recipe.model, seed)
    if recipe.model.dtype is None:
        warn_of_low_precision(model)
    return Prepared(recipe, stated, model, dataset, evaluation, objective, config, tokenizer, labels)


def warn_of_low_precision(model: nn.Module) -> None:
    """Warns if parameters are trained in bfloat16 or float16, as their checkpoint is stored."""
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad} & {torch.bfloat16, torch.float16}
    if dtypes:
        name = str(min(dtypes, key=str)).removeprefix("torch.")
        warn(
            f"the checkpoint is stored in {name}, in which training rounds small updates away: "
            f'set model.dtype = "float32", or "{name}" to keep it.'
        )


def read_source(recipe: Recipe, stated: ObjectiveTable, seed: int) -> _Source:
    """Reads the files of a recipe.

    Raises:
        ArgumentValueError: text and records together, or text for an objective of records.
        OSError, ValueError: files that are missing or damaged.
    """
    data = recipe.data
    if data.files is None:
        return _Source()
    files = files_of(data.files, "data.files")
    others = [] if data.evaluation is None else files_of(data.evaluation, "data.evaluation")
    for path in (*files, *others):
        check_file(path, recipe.file)
    are_records = {path.suffix.lower() in SUFFIXES for path in [*files, *others]}
    if len(are_records) > 1:
        expected = f"either text files, or {', '.join(SUFFIXES)} files"
        raise ArgumentValueError("data.files", [path.name for path in [*files, *others]], expected)
    if are_records.pop():
        check_columns(data.columns, stated.task.name)
        return _Source(rows=read_rows(data, files, others, seed))
    if stated.task.name not in OF_TEXT:
        expected = f"{', '.join(SUFFIXES)} files with objective {stated.task.name!r}"
        raise ArgumentValueError("data.files", files[0].name, expected, "it needs fields, not text alone")
    return _Source(documents=read_documents(data, files, others, seed))


def check_file(path: Path, recipe: Path) -> None:
    """Checks that a file is data: neither the recipe itself nor a list in JSON, else ArgumentValueError."""
    if path.resolve() == recipe.resolve():
        hint = 'a pattern such as "*.txt" leaves it out'
        raise ArgumentValueError("data.files", path.name, "files of data, not the recipe", hint)
    if path.suffix.lower() == ".json":
        hint = "a JSON file with one list must be rewritten with one record per line"
        raise ArgumentValueError("data.files", path.name, f"text or {', '.join(SUFFIXES)} files", hint)


def labelled(
    rows: _Pair, stated: ObjectiveTable, names: Sequence[str] | None
) -> tuple[_Pair, Labels | None, Any]:
    """Returns records as the objective takes them, the labels, and the function that encodes them.

    Raises:
        ValueError: records without a label, or with one that does not fit; the message names file and line.
    """
    task, kind = stated.task, "single"
    for part in rows:
        check_records(part or [], task.name)
    convert = _CONVERSIONS.get(task.name)
    if task.name == "sequence-labels":
        convert = with_number if stated.is_regression else None
        if task.options.get("multiple"):
            convert, kind = with_label_list, "multiple"
    if convert is not None:
        rows = converted(rows[0], convert), None if rows[1] is None else converted(rows[1], convert)
    has_labels = task.name == "token-labels" or (task.name == "sequence-labels" and not stated.is_regression)
    if not has_labels:
        if names is not None:
            raise ArgumentValueError("data.labels", names, f"left out with objective {task.name!r}")
        return rows, None, None
    kind = "tokens" if task.name == "token-labels" else kind
    labels, encode = encode_labels(*rows, names, kind)  # type: ignore[arg-type]
    if len(labels.names) < 2 and kind != "multiple":
        number = "num_labels = 1 of the objective predicts a number"
        hint = number if kind == "single" else "with one label there is nothing to learn"
        raise ArgumentValueError("data.labels", list(labels.names), "at least two labels", hint)
    return rows, labels, encode


def earlier_tokenizer(folder: Path) -> Tokenizer | None:
    """Returns the tokenizer of the last checkpoint in the folder of a run; None without a checkpoint."""
    places = sorted(folder.glob(f"{CHECKPOINTS}/step-*/**/tokenizer_config.json"))
    return load_tokenizer(places[-1].parent) if places else None


def examples(
    recipe: Recipe,
    stated: ObjectiveTable,
    source: _Source,
    tokenizer: Tokenizer,
    longest: int | None,
    *,
    is_written: bool,
) -> tuple[Dataset, Dataset | None]:
    """Returns the datasets of training and evaluation.

    Args:
        recipe, stated, source, tokenizer: parts of the run.
        longest: input of the model; None: any.
        is_written: whether the token blocks are written already.

    Raises:
        ArgumentValueError: blocks that are longer than the model's inputs.
        OSError, ValueError: token blocks that are missing, damaged or of another tokenizer.
    """
    data, seed = recipe.data, recipe.train.get("seed", 0)
    if source.rows is not None:
        return source.rows
    documents, others = source.documents or (None, None)
    if data.block_length is None:
        assert documents is not None, "checked by the table: tokens need block_length"
        other = None if others is None else [{"text": text} for text in others]
        return [{"text": text} for text in documents], other
    hint = "longer blocks do not fit into the model"
    check_integer("data.block_length", data.block_length, 2, longest, hint)
    folder = Path(data.tokens or f"{recipe.folder}-tokens")
    special = stated.task.name != "span-corruption"  # which has one end token per block
    length: int = data.block_length
    options: dict[str, Any] = {"special": special, "progress": None}
    blocks = token_blocks(None if is_written else documents, tokenizer, folder, length, **options)
    if documents is None:
        return split_blocks(blocks, data.held_out, seed)
    if others is None:
        return blocks, None
    place = folder.with_name(f"{folder.name}-evaluation")
    return blocks, token_blocks(None if is_written else others, tokenizer, place, length, **options)


def place(folder: Path) -> tuple[int, int]:
    """Returns the steps of the last checkpoint in the folder of a run, and the examples of all of them."""
    paths = folder.glob(f"{CHECKPOINTS}/step-*/{VALUES}")
    values = [read_json(path) for path in paths]
    if not values:
        return 0, 0
    last = max(values, key=lambda each: each["step"])
    sampler = last["sampler"]
    return last["step"], sampler["epoch"] * sampler["size"] + sampler["position"]


def train_config(values: Mapping[str, Any], size: int, finished: int = 0, taken: int = 0) -> TrainConfig:
    """Returns the settings; `epochs` in place of `steps` counts passes over all examples.

    Args:
        values: the table [train].
        size: number of examples.
        finished: steps of an earlier part of the run, perhaps with other batches.
        taken: examples of these steps.

    Raises:
        ArgumentTypeError, ArgumentValueError: unknown names, or values out of bounds.
    """
    stated = dict(values)
    epochs = stated.pop("epochs", None)
    if (epochs is None) == ("steps" not in stated):
        hint = "steps = 1000 counts updates, epochs = 3 passes over the data"
        raise ArgumentValueError("train.steps", stated.get("steps"), "stated, or epochs instead of it", hint)
    if epochs is not None:
        check_number("train.epochs", epochs, Interval(0, math.inf, open_low=True, open_high=True))
        one = TrainConfig.from_dict({"steps": 2**31} | stated)
        batch = one.batch_size * one.accumulation * number_of_processes()
        stated["steps"] = max(1, finished + math.ceil(max(0, epochs * size - taken) / batch))
    return TrainConfig.from_dict(stated)


def check_evaluation(config: TrainConfig, evaluation: Dataset | None) -> None:
    """Checks that there is data for the evaluations, else raises ArgumentValueError."""
    if evaluation is None and config.evaluate_every:
        hint = "set data.held_out = 0.1, or data.evaluation to a file"
        raise ArgumentValueError(
            "train.evaluate_every", config.evaluate_every, "0 without evaluation data", hint
        )
