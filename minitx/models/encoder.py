"""The family of encoders."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.layers.checks import batch_and_time, leading_shape, one_row_per_choice
from minitx.layers.mask import as_bool
from minitx.models.model import Model, ModelOutput


class EncoderModel(Model):
    """A bidirectional encoder: embedder, encoder, and where present pooler and head."""

    families = ("encoder",)
    encoder: nn.Module

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput:
        """Runs the model.

        Args:
            input_ids: (B, T); for multiple-choice (B, choices, T), and the others alike.
            attention_mask: (B, T), 1 or True = attend; or (B, T, T), which query sees which key.
            token_type_ids: (B, T); all zero if not given.
            position_ids: (B or 1, T); the architecture's own numbering if not given.
            labels: what the head should have said; the losses in `layers/head.py` give the shapes.

        Raises:
            TypeError: a list or anything else where a tensor is expected.
            ValueError: shapes that do not fit, ids outside their table, a text longer than the
                model's positions.
        """
        batch = leading_shape(input_ids)
        if input_ids.dim() == 3 and self.task == "multiple-choice":
            attention_mask = one_row_per_choice("attention_mask", attention_mask, input_ids)
            token_type_ids = one_row_per_choice("token_type_ids", token_type_ids, input_ids)
            position_ids = one_row_per_choice("position_ids", position_ids, input_ids)
            input_ids = input_ids.flatten(0, 1)
        position_ids = self.embedder.check(input_ids, token_type_ids, position_ids)
        mask = None if attention_mask is None else as_bool(attention_mask, *batch_and_time(input_ids))
        hidden = self.embedder(input_ids, token_type_ids, position_ids)
        hidden = self.encoder(hidden, mask, position_ids)
        return self.result(hidden, mask, labels, batch=batch)
