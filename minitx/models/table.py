"""Encoders of a question and a table: each token has a column and a row, and a head can select cells."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self, cast

import torch
from torch import Tensor

from minitx.layers.embedder import TableEmbedder
from minitx.layers.heads import TASKS
from minitx.layers.table_head import TableHead
from minitx.layers.table_losses import TableTargets
from minitx.models.encoder import EncoderModel
from minitx.models.inputs import Inputs, token_ids
from minitx.models.output import ModelOutput

TARGETS = TableTargets._fields[2:]  # labels of a table other than `labels`


class TableModel(EncoderModel):
    """A bidirectional encoder of tokens with several token types, such as those of a table."""

    embedder: TableEmbedder
    head: Any

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> ModelOutput:
        """Encodes a batch of questions and tables.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) or (B, T, T), 1 or True = attend.
            token_type_ids: (B, T, K), as a `TableTokenizer` returns them; None: all zero.
            position_ids: (B or 1, T); None: the architecture's own numbering.
            labels: (B,) or (B, T), targets of the head's loss; of table-question-answering 1 at the tokens of
                the answer.
            inputs_embeds: (B, T, W), output of `embedder.word_emb`, instead of `input_ids`.
            options: of `EncoderModel.forward`, and further targets of table-question-answering: the fields of
                `minitx.layers.table_losses.TableTargets`.

        Raises:
            ArgumentTypeError: not a tensor.
            ArgumentValueError: shapes that do not fit, ids outside their table.
            ValueError: a sequence longer than the table of positions.
        """
        inputs, targets = self.config.text_inputs, cast(Any, labels)
        if position_ids is None and token_type_ids is not None and inputs.numbering == "cell":
            ids = token_ids(self.embedder, Inputs(input_ids, inputs_embeds=inputs_embeds))
            self.embedder.check_types(token_type_ids, tuple(ids.shape))
            position_ids = self.embedder.cell_positions(token_type_ids)
        if isinstance(self.head, TableHead):
            others = {name: options.pop(name) for name in TARGETS if name in options}
            targets = TableTargets(token_type_ids, labels, **others)
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            targets,
            inputs_embeds=inputs_embeds,
            **options,
        )

    def apply_head(
        self, hidden: Tensor, pooled: Tensor | None, mask: Tensor | None, labels: Any, **options: Any
    ) -> ModelOutput:
        """Returns logits, and the loss if there are labels.

        Args:
            hidden: (B, T, E).
            pooled: (B, E), or None.
            mask: (B, T) bool, or None.
            labels: (B,) or (B, T), or None; of a head that selects cells, a `TableTargets`.
            options: of other heads.
        """
        if not isinstance(labels, TableTargets):
            return super().apply_head(hidden, pooled, mask, labels, **options)
        head, task = self.head, TASKS["table-question-answering"]
        logits = head(hidden, pooled, mask, labels.types)
        loss = None if labels.labels is None else task.loss(logits, labels, mask, head.config)
        return ModelOutput(hidden, pooled, loss=loss, **task.fields(logits))

    @torch.no_grad()
    def initialize(
        self, names: Collection[str] | None = None, generator: torch.Generator | None = None
    ) -> Self:
        """Draws fresh weights in place, as `Model.initialize`; those of a head for cells may be zero."""
        super().initialize(names, generator)
        if isinstance(self.head, TableHead) and self.head.selection.zero_weights:
            for name in ("cells", "columns"):
                if names is None or f"head.{name}.weight" in names:
                    getattr(self.head, name).weight.zero_()
        return self
