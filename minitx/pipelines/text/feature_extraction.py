"""Feature extraction: the hidden state of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.pipelines.result import Predictions
from minitx.pipelines.task import Request, own_storage
from minitx.pipelines.text_task import TextInput, TextOptions, TextTask
from minitx.validation import check_choice


@dataclass(frozen=True, kw_only=True)
class FeatureExtractionOptions(TextOptions):
    """Options of feature extraction.

    Attributes:
        return_tensors: return a tensor (1, T, E) for each text instead of nested lists.
    """

    return_tensors: bool | str | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("return_tensors", self.return_tensors, (True, False, None, "pt"))


class FeatureExtraction(TextTask[FeatureExtractionOptions]):
    """Hidden states of the last layer; of a text in several windows, each token's from one of them.

    Of an encoder-decoder they are those of the decoder, which repeats the source; of T5
    those of the encoder.
    """

    Options = FeatureExtractionOptions
    outputs = ("last_hidden_state",)

    def preprocess(self, request: Request, options: FeatureExtractionOptions) -> list[TextInput]:
        """Returns the text as one sequence, or as windows."""
        return self.encode(request["text"], options=options)

    @torch.inference_mode()
    def forward(self, inputs: Sequence[TextInput], options: FeatureExtractionOptions) -> list[Any]:
        """As `Task.forward`; texts without any tokens have no hidden states."""
        if not any(item.size for item in inputs):
            return [own_storage(torch.zeros(0, self.model.config.stack.hidden_size))] * len(inputs)
        return super().forward(inputs, options)

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: FeatureExtractionOptions,
    ) -> Any:
        """Returns the hidden states, (1, T, E), as nested lists or as a tensor."""
        hidden = outputs[0]
        if len(outputs) > 1:
            limit = self.limit(options)
            assert limit is not None, "there are several windows"
            order = -1 if self.tokenizer.truncation_side == "left" else 1  # which has the last one first
            overlap = self.overlap(options, limit, pair=False)
            hidden = join_windows(inputs[::order], outputs[::order], overlap)
        return hidden[None] if options.return_tensors else Predictions([hidden.tolist()])


def join_windows(inputs: Sequence[TextInput], outputs: Sequence[Tensor], overlap: int) -> Tensor:
    """Joins the hidden states of windows: of an overlap, each of the two windows has one half.

    Special tokens before the text come from the first window, those after it from the last one.

    Args:
        inputs: windows of one text, in its order.
        outputs: (T, E) of each.
        overlap: number of tokens that neighbours have in common.
    """
    parts = []
    for index, (item, hidden) in enumerate(zip(inputs, outputs, strict=True)):
        assert item.encoding is not None
        special = item.encoding.special_tokens_mask
        first, last = special.index(0), len(special) - special[::-1].index(0)  # of the text
        begin = first + overlap - overlap // 2 if index else 0
        end = last - overlap // 2 if index < len(inputs) - 1 else len(hidden)
        parts.append(hidden[begin:end])
    return torch.cat(parts)
