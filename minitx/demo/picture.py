"""The picture of the demonstration: which letters a head attends to while sounds are generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import minitx
from minitx.demo.part import Part, paragraph
from minitx.pictures.heatmap import attention_picture, similarity_picture

NAME, WORD = "minitx/tiny-seq2seq", "thoughtful"


def alignment(path: str) -> Part:
    """Draws cross-attention weights: rows are sounds, columns are the letters of a word."""
    model: Any = minitx.load(NAME, dtype="float32")
    tokenizer = minitx.load_tokenizer(NAME)
    result = minitx.generate(model, WORD, minitx.Beam(num_beams=4), max_new_tokens=24, tokenizer=tokenizer)
    source, ids = tokenizer(WORD)["input_ids"], result.sequences[0].tolist()
    start = model.config.decoder_start_token_id
    with torch.inference_mode():
        out = model(source, decoder_input_ids=torch.tensor([[start, *ids[:-1]]]), output_attentions=True)
    weights = torch.cat(list(out.cross_attentions), dim=1)[0]  # (layers * H, T, S)
    head = sharpest(weights)
    layer, number = divmod(head, weights.shape[0] // len(out.cross_attentions))
    rows = [str(tokenizer.id_to_token(token)) for token in ids]
    columns = tokenizer.tokens(WORD)
    title = f"Sounds attend to letters: {WORD}\ncross-attention, layer {layer + 1}, head {number + 1}"
    return drawn(path, attention_picture, weights[head], rows, columns, title=title)


def sharpest(weights: Tensor) -> int:
    """Returns the head of (H, T, S) weights whose keys depend most on the queries.

    It has the largest mutual information of a query, all being equally probable, and its key:
    H(mean of the rows) - mean of H(row).
    """
    mean = torch.special.entr(weights.mean(-2)).sum(-1)
    return int((mean - torch.special.entr(weights).sum(-1).mean(-1)).argmax())


def similarity_map(path: str, record: dict[str, Any]) -> Part:
    """Draws the similarities of sentences.

    Args:
        path: of the picture.
        record: of the sentences.
    """
    title = f"Cosine similarity, {record['model']}"
    similarity = torch.tensor(record["similarity"])
    return drawn(path, similarity_picture, similarity, record["sentences"], title=title)


def drawn(path: str, draw: Any, *content: Any, title: str) -> Part:
    """Returns the path of a picture, or a message if matplotlib is not installed."""
    try:
        written = str(draw(*content, title=title).save(path))
    except ImportError as error:
        return Part(paragraph(f"No picture: {error}"), {"picture": None, "picture_problem": str(error)})
    return Part(paragraph(f"Picture: {Path(written)}"), {"picture": written, "picture_problem": None})
