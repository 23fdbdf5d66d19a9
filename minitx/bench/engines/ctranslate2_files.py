"""Conversion of a checkpoint folder to CTranslate2's format.

CTranslate2's converter takes the vocabulary and its end token from a tokenizer. Checkpoints with random
weights have none, and end tokens must end nothing here; so token i is named "<i>", and text models get one
more token, "<end>", whose logit is so small that it is never chosen. The other logits stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minitx.bench.engines.transformers_eager import quiet

END = "<end>"
NEVER = -1e9  # logit of the end token; a finite number, as beam searches add logits


class Names:
    """The vocabulary in place of a tokenizer.

    Args:
        size: number of tokens of the model.
        end: name of one more token, the last; "" adds none.
    """

    bos_token = pad_token = "<0>"
    unk_token = "<1>"

    def __init__(self, size: int, end: str) -> None:
        self.size, self.eos_token = size, end

    def get_vocab(self) -> dict[str, int]:
        """Returns the id of each token."""
        vocabulary = {name(i): i for i in range(self.size)}
        return {**vocabulary, self.eos_token: self.size} if self.eos_token else vocabulary

    def convert_ids_to_tokens(self, token: int) -> str:
        """Returns the name of a token."""
        return name(token)


def name(token: int) -> str:
    """Returns the name of a token, such as "<7>"."""
    return f"<{token}>"


def number(token: str) -> int:
    """Returns the id of a token by its name."""
    return int(token[1:-1])


def convert(folder: Path, target: Path, quantization: str) -> None:
    """Writes a checkpoint in CTranslate2's format.

    Args:
        folder: a checkpoint in Hugging Face's layout; tokenizer files are not read.
        target: a folder to write, which does not exist.
        quantization: of the weights, such as "float32" or "int8".
    """
    from ctranslate2.converters import TransformersConverter

    quiet()
    names: list[Names] = []

    def _load_model(kind: Any, path: str, **options: Any) -> Any:
        model = kind.from_pretrained(path, **options)
        size = model.get_input_embeddings().num_embeddings
        text = model.get_output_embeddings() is not None
        names.append(Names(size, END if text else ""))
        if text:
            add_end_token(model, size)
        else:
            # transformers 5 has no other positions and no such option; the converter asks for it.
            model.config.position_embedding_type = "absolute"
        return model

    converter: Any = TransformersConverter(str(folder))
    converter.load_model = _load_model
    converter.load_tokenizer = lambda *_, **__: names[0]
    converter.convert(str(target), quantization=quantization)


@torch.no_grad()
def add_end_token(model: Any, size: int) -> None:
    """Adds a token to a transformers model whose logit is always `NEVER`, in place.

    Args:
        model: with embeddings of `size` tokens and an output layer.
        size: number of tokens so far, which is the new token's id.
    """
    model.resize_token_embeddings(size + 1, mean_resizing=False)
    model.get_input_embeddings().weight[size] = 0
    head = model.get_output_embeddings()
    head.weight[size] = 0
    bias = torch.zeros(size + 1) if head.bias is None else head.bias.detach().clone()
    bias[size] = NEVER
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
