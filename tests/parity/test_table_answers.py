"""Answers from logits equal those of transformers' tokenizer and pipeline, batched and in a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import transformers

import minitx
from minitx.pipelines.postprocess.tables import (
    aggregation_names,
    mark_previous,
    select_cells,
    table_answer,
)
from minitx.tokenizer import TableTokenizer
from tests.parity.test_table_tokenizer import SPECIAL

TABLE = {
    "model": ["text", "reading tokens", "la forme", "n/a"],
    "year": ["1990", "2 May 1991", "3", ""],
    "size": ["1,000", "-5", "12.5%", "7"],
}
QUERIES = ["which model reads 12.5 ?", "and before 1991", "text ?", "the sizes of tokens", "x"]
OPERATIONS = {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"}


def made(folder: Path, **more: Any) -> tuple[Any, Any, Any, TableTokenizer]:
    """A random model in both libraries, and both tokenizers."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *",.-%?/", "model", "text", "##ing", "before"]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "TapasTokenizer"}')
    config = transformers.TapasConfig(
        vocab_size=99,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        initializer_range=0.6,
        **more,
    )
    torch.manual_seed(3)
    theirs = transformers.TapasForQuestionAnswering(config).eval()
    with torch.no_grad():
        theirs.output_bias.fill_(1.5)
        theirs.tapas.embeddings.token_type_embeddings_3.weight[1] *= 30  # the previous answer has an effect
    theirs.save_pretrained(folder)
    tokenizer = minitx.load_tokenizer(folder)
    assert isinstance(tokenizer, TableTokenizer)
    slow = transformers.AutoTokenizer.from_pretrained(folder)
    return theirs, slow, minitx.load(folder), tokenizer


def answers(model: Any, tokenizer: TableTokenizer, *, sequential: bool) -> list[dict[str, Any]]:
    batch = tokenizer.encode_table(TABLE, QUERIES, truncation=True, padding=True)
    names, none = aggregation_names(model.checkpoint.config)
    result, cells = [], None
    with torch.inference_mode():
        for row in range(len(QUERIES)):
            inputs = {name: x[row : row + 1] for name, x in batch.items()}
            if sequential and cells is not None:
                inputs["token_type_ids"] = mark_previous(inputs["token_type_ids"][0], cells)[None]
            output = model(**inputs)
            cells = select_cells(output.logits[0], inputs["token_type_ids"][0], inputs["attention_mask"][0])
            operation = int(output.logits_aggregation[0].argmax()) if names else None
            name = "" if operation is None else names[operation]
            result.append(table_answer(batch.table, cells, name, computes=operation != none))
    return result


VARIANTS = [
    {},
    {"num_aggregation_labels": 4, "aggregation_labels": OPERATIONS, "no_aggregation_label_index": 0},
    {"num_aggregation_labels": 4, "aggregation_labels": OPERATIONS, "average_logits_per_cell": True},
    {"num_aggregation_labels": 4, "allow_empty_column_selection": True},
]


@pytest.mark.parametrize("more", VARIANTS)
@pytest.mark.parametrize("sequential", [False, True])
def test_answers_equal_the_pipeline(more: dict[str, Any], sequential: bool, tmp_path: Path) -> None:
    theirs, slow, model, tokenizer = made(tmp_path, **more)
    pipe = transformers.pipeline("table-question-answering", model=theirs, tokenizer=slow, device="cpu")
    expected = pipe(table=pandas.DataFrame(TABLE), query=list(QUERIES), sequential=sequential)
    found = answers(model, tokenizer, sequential=sequential)
    assert found == expected
    assert sum(len(answer["cells"]) for answer in found) > 3
    if sequential and more == VARIANTS[1]:
        assert found != answers(model, tokenizer, sequential=False)  # the previous answer has an effect


def test_cells_equal_the_tokenizer(tmp_path: Path) -> None:
    _, slow, _, tokenizer = made(tmp_path)
    batch = tokenizer.encode_table(TABLE, QUERIES, padding=True)
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1, 1000):
        logits = scale * torch.randn(batch.input_ids.shape, generator=generator)
        operations = torch.randn(len(QUERIES), 4, generator=generator)
        for threshold in (0.3, 0.5, 0.8):
            cells, chosen = slow.convert_logits_to_predictions(
                dict(batch.items()), logits.clone(), operations, threshold
            )
            rows = zip(logits, batch.token_type_ids, batch.attention_mask, strict=True)
            assert [select_cells(*row, threshold) for row in rows] == cells
            assert operations.argmax(dim=-1).tolist() == chosen
