"""The table of tasks: `pipeline()`, the command line, the documentation and the tests are made from it.

Nothing heavy is imported here: a task's class is imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task of `pipeline()`.

    Attributes:
        name: of the task.
        summary: what it computes, in one line.
        path: its implementation: "module:class" in `minitx.pipelines`, or a subclass of `Task`.
        heads: the heads of models that it runs; "none" is a model without a head.
        default_of: the head whose models run this task where no task is named; "" for none.
        phrase: about a model with this head, for messages.
        checkpoint: Hub id of the usual checkpoint.
        shipped: name of the checkpoint of `minitx.shipped` that takes its place without a network; "" for
            none.
        aliases: further names.
        picture: how a result is drawn: "bars", "marks", "answer", "matrix", "table" or "text".
        pipeline: its pipeline likewise, if it has methods of its own.
        languages: source and target language that the name states, such as translation_en_to_fr.
        example: its input on the command line.
    """

    name: str
    summary: str
    path: str | type[Any]
    heads: tuple[str, ...]
    checkpoint: str
    shipped: str = ""
    default_of: str = ""
    phrase: str = ""
    aliases: tuple[str, ...] = ()
    picture: str = "text"
    pipeline: str | type[Any] = "pipeline:Pipeline"
    languages: tuple[str, ...] = ()
    example: str = '"A text."'

    @property
    def full_name(self) -> str:
        """The name with the languages that it states, for `pipeline`."""
        return f"{self.name}_{'_to_'.join(self.languages)}" if self.languages else self.name

    def task_class(self) -> Any:
        """Imports the class of the task, a `Task`."""
        return _import(self.path)

    def pipeline_class(self) -> Any:
        """Imports the class of the pipeline."""
        return _import(self.pipeline)


def _import(path: str | type[Any]) -> Any:
    if isinstance(path, type):
        return path
    module, _, name = path.partition(":")
    return getattr(import_module(f"minitx.pipelines.{module}"), name)


SPECS = (
    TaskSpec(
        name="text-classification",
        summary="assign labels, such as a sentiment, to texts",
        path="text.text_classification:TextClassification",
        heads=("sequence-classification",),
        checkpoint="distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        shipped="minitx/tiny-classifier",
        default_of="sequence-classification",
        phrase="a sequence classifier",
        aliases=("sentiment-analysis",),
        picture="bars",
    ),
    TaskSpec(
        name="token-classification",
        summary="find entities, such as names, in texts",
        path="text.token_classification:TokenClassification",
        heads=("token-classification",),
        checkpoint="dbmdz/bert-large-cased-finetuned-conll03-english",
        shipped="minitx/tiny-ner",
        default_of="token-classification",
        phrase="a token classifier",
        aliases=("ner",),
        picture="marks",
        example='"Ann lives in Paris."',
    ),
    TaskSpec(
        name="question-answering",
        summary="find the answer to a question in a text",
        path="text.question_answering:QuestionAnswering",
        heads=("question-answering",),
        checkpoint="distilbert/distilbert-base-cased-distilled-squad",
        shipped="minitx/tiny-qa",
        default_of="question-answering",
        phrase="a model that finds answers",
        picture="answer",
        example='"Who?" --context "Ann did it."',
    ),
    TaskSpec(
        name="fill-mask",
        summary="fill in masked words",
        path="text.fill_mask:FillMask",
        heads=("masked-lm",),
        checkpoint="distilbert/distilroberta-base",
        shipped="minitx/tiny-encoder",
        default_of="masked-lm",
        phrase="a masked language model",
        picture="bars",
        example='"A [MASK] sleeps."',
    ),
    TaskSpec(
        name="feature-extraction",
        summary="compute the hidden states of every token",
        path="text.feature_extraction:FeatureExtraction",
        heads=("none",),
        checkpoint="distilbert/distilbert-base-cased",
        shipped="minitx/tiny-encoder",
        default_of="none",
    ),
    TaskSpec(
        name="sentence-similarity",
        summary="compare texts by meaning, and search the nearest",
        path="text.sentence_similarity:SentenceSimilarity",
        heads=("none",),
        checkpoint="sentence-transformers/all-MiniLM-L6-v2",
        picture="matrix",
        pipeline="text.similarity_pipeline:SimilarityPipeline",
        example='"A cat." \\ --sentences "A kitten." --sentences "Rates rose."',
    ),
    TaskSpec(
        name="text-ranking",
        summary="rank documents by their relevance to a query",
        path="text.text_ranking:TextRanking",
        heads=("sequence-classification",),
        checkpoint="cross-encoder/ms-marco-MiniLM-L6-v2",
        picture="bars",
        example='"cats" \\ --documents "A kitten naps." --documents "Rates rose."',
    ),
    TaskSpec(
        name="zero-shot-classification",
        summary="assign your own labels to texts, without training",
        path="text.zero_shot_classification:ZeroShotClassification",
        heads=("sequence-classification",),
        checkpoint="facebook/bart-large-mnli",
        picture="bars",
        example='"My cat sleeps." \\ --candidate-labels "animals, money"',
    ),
    TaskSpec(
        name="summarization",
        summary="shorten texts",
        path="text.text2text:Summarization",
        heads=("seq2seq-lm",),
        checkpoint="sshleifer/distilbart-cnn-12-6",
    ),
    TaskSpec(
        name="translation",
        summary="translate texts; translation_en_to_fr has languages",
        path="text.translation:Translation",
        heads=("seq2seq-lm",),
        checkpoint="google-t5/t5-base",
        example='"My cat."',
    ),
    TaskSpec(
        name="text2text-generation",
        summary="generate a text from a text, as trained",
        path="text.text2text:Text2TextGeneration",
        heads=("seq2seq-lm",),
        checkpoint="google-t5/t5-base",
        shipped="minitx/tiny-seq2seq",
        default_of="seq2seq-lm",
        phrase="an encoder-decoder",
    ),
    TaskSpec(
        name="text-generation",
        summary="continue texts and conversations",
        path="text.text_generation:TextGeneration",
        heads=("causal-lm",),
        checkpoint="HuggingFaceTB/SmolLM3-3B",
        shipped="minitx/tiny-decoder",
        default_of="causal-lm",
        phrase="a causal language model",
    ),
    TaskSpec(
        name="table-question-answering",
        summary="answer questions about a table",
        path="text.table_question_answering:TableQuestionAnswering",
        heads=("table-question-answering", "seq2seq-lm"),
        checkpoint="google/tapas-base-finetuned-wtq",
        default_of="table-question-answering",
        phrase="a model that selects cells",
        picture="table",
        example='"How old is Ann?" \\ --table people.csv',
    ),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in SPECS}
NAMES: dict[str, str] = {name: spec.name for spec in SPECS for name in (spec.name, *spec.aliases)}
TRANSLATION = r"translation_(\w+)_to_(\w+)"

# The task of architectures that have one purpose, by `model_type` of config.json.
BY_MODEL_TYPE: Mapping[str, str] = {
    "m2m_100": "translation",
    "marian": "translation",
    "mbart": "translation",
    "pegasus": "summarization",
}


def default_task(head: str) -> TaskSpec | None:
    """Returns the task of models with a head, where none is named; None without such a task."""
    return next((spec for spec in TASKS.values() if spec.default_of == head), None)


def find_task(name: str) -> tuple[TaskSpec, dict[str, str]]:
    """Returns a task by its name or alias, and the options that the name states: translation_en_to_fr.

    Raises:
        ArgumentTypeError: not a string.
        ArgumentValueError: no such task; the message names similar ones.
    """
    from minitx.validation import ArgumentValueError, check_strings  # which imports torch

    check_strings(task=name)
    if languages := re.fullmatch(TRANSLATION, name):
        spec = replace(TASKS["translation"], languages=languages.groups())
        return spec, {"src_lang": languages[1], "tgt_lang": languages[2]}
    if name in NAMES:
        return TASKS[NAMES[name]], {}
    similar = get_close_matches(name.lower().replace("_", "-"), NAMES, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else "a model without a task: pipeline(model=...)"
    raise ArgumentValueError("task", name, f"one of {', '.join(NAMES)}", hint)
