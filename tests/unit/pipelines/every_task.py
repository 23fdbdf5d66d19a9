"""A tiny checkpoint for every task of the table."""

from __future__ import annotations

from pathlib import Path

from tests.parity.generators import build
from tests.parity.pipeline_fixtures import FOLDER
from tests.unit.pipelines.folders import bert_folder
from tests.unit.test_cli_seq2seq import T5, make

TABLE = {"name": ["Ann", "Bob"], "age": ["34", "27"]}
# Task -> a request that has an answer.
REQUESTS = {
    "text-classification": "the cat",
    "token-classification": "the cat",
    "question-answering": {"question": "a cat?", "context": "the cat sat"},
    "fill-mask": "the [MASK] sat",
    "feature-extraction": "the cat",
    "sentence-similarity": {"source_sentence": "the cat", "sentences": ["a dog", "a cat"]},
    "text-ranking": {"query": "a cat", "documents": ["the cat sat", "a dog"]},
    "zero-shot-classification": {"sequence": "the cat", "candidate_labels": ["good", "bad"]},
    "summarization": "a b",
    "translation": "a b",
    "text2text-generation": "a b",
    "text-generation": "a b",
    "table-question-answering": {"table": TABLE, "query": "How old is Ann?"},
}
_BERT = {
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "fill-mask": "masked-lm",
    "feature-extraction": "none",
    "sentence-similarity": "none",
    "text-ranking": "sequence-classification",
    "zero-shot-classification": "sequence-classification",
}


def folder_for(task: str, root: Path) -> Path:
    """Returns the folder of a checkpoint with the head of a task, made once.

    Args:
        task: of the table.
        root: of the folders.
    """
    path = root / task
    if task == "table-question-answering":
        return FOLDER / "tapas-wtq"
    if path.is_dir():
        return path
    if task == "text-generation":
        path.mkdir()
        return build(path, "gpt2")
    if task not in _BERT:
        kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.mkdir()
        return make(path, T5, ["<pad>", "</s>"], eos_token="</s>", **kind)
    labels = 1 if task == "text-ranking" else 2
    names = {str(index): f"entailment{index}" for index in range(labels)}
    return bert_folder(
        path, _BERT[task], id2label=names, label2id={name: int(i) for i, name in names.items()}
    )
