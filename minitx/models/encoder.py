"""Encoders: every token attends to the whole sequence."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from minitx.layers.recorder import Layers, Recorder
from minitx.models.base import Model
from minitx.models.inputs import Inputs, embed
from minitx.models.output import ModelOutput


class EncoderModel(Model):
    """A bidirectional encoder: embedder, encoder, and where present pooler and head."""

    families = ("encoder",)
    encoder: nn.Module

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: Layers = False,
        **others: Any,
    ) -> ModelOutput:
        """Encodes a batch of sequences.

        Args:
            input_ids: (B, T) or (B, choices, T), the latter for multiple-choice, and all inputs likewise.
            attention_mask: (B, T) or (B, T, T) or (B, choices, T), 1 or True = attend; the second form lists
                the keys that each query attends to.
            token_type_ids: (B, T) or (B, choices, T) or (B, T, K) of several types; None: all zero.
            position_ids: (B or 1, T) or (B, choices, T); None: the architecture's own numbering.
            labels: (B,) or (B, T) or (B, C), targets of the head's loss; `layers/losses.py` gives the shapes.
            inputs_embeds: (B, T, W) or (B, choices, T, W), output of `embedder.word_emb`, instead of
                `input_ids`.
            output_hidden_states: return the hidden states of all layers.
            output_attentions: return the attention weights of all layers, or of the layers listed.
            others: inputs of an embedder for inputs other than text, such as `pixel_values`.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: shapes that do not fit, ids outside their table.
            ValueError: a sequence longer than the table of positions.
        """
        inputs = Inputs(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, others)
        batch = inputs.shape[:-1] if self.task == "multiple-choice" else ()
        if batch:  # (B, choices)
            inputs = inputs.flatten_choices()
        records = output_hidden_states or output_attentions
        record = Recorder(output_hidden_states, output_attentions) if records else None
        hidden, mask, positions = embed(self.embedder, inputs)
        hidden = self.run_stack(self.encoder, hidden, mask, positions, record=record)
        output = self.result(hidden, mask, labels, batch=batch)
        return output if record is None else output._replace(**record.fields())
