"""Configuration of a task head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minitx.config.base import Finite, NonNegative, Positive, Probability, Size, ValidatedConfig
from minitx.config.layer import NormConfig

Pooling = Literal["none", "first", "first_attended", "last", "mean", "pooler"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification", None]
AverageApproximation = Literal["ratio", "first_order", "second_order"]


@dataclass(frozen=True, kw_only=True)
class TransformConfig(ValidatedConfig):
    """The hidden layer of a task head: norm(act(dense(x))).

    Attributes:
        size: output width.
        hidden_act: name of the activation.
        bias: of the projection.
        norm: None: no norm.
    """

    size: Size
    hidden_act: str
    bias: bool = True
    norm: NormConfig | None = None


@dataclass(frozen=True, kw_only=True)
class CellLoss(ValidatedConfig):
    """Loss of a head that selects cells of a table (arXiv:2004.02349, section 4).

    Attributes:
        positive_label_weight: weight of the selected tokens, if cells of several columns can be selected.
        aggregation_loss_weight: weight of the loss of the operation.
        use_answer_as_supervision: the operation is learned from the number that answers the question.
        answer_loss_importance: weight of the loss of that number.
        use_normalized_answer_loss: divide prediction and answer by the larger of the two first.
        huber_loss_delta: where the loss of the number becomes linear; None: only with a normalized loss.
        aggregation_temperature: divides the logits of the operations in the predicted number.
        use_gumbel_for_cells: draw the cells of the predicted number, instead of their probabilities.
        use_gumbel_for_aggregation: draw the operation of the predicted number likewise.
        average_approximation_function: of the average of cells that are selected with some probability.
        cell_selection_preference: an answer that is a cell too is selected instead of computed, if the
            probability of all operations is at most this.
        answer_loss_cutoff: answers with a larger loss are ignored; None: no cutoff.
        disable_per_token_loss: leave out the loss of the selection.
    """

    positive_label_weight: NonNegative = 10.0
    aggregation_loss_weight: NonNegative = 1.0
    use_answer_as_supervision: bool = False
    answer_loss_importance: NonNegative = 1.0
    use_normalized_answer_loss: bool = False
    huber_loss_delta: Positive | None = None
    aggregation_temperature: Positive = 1.0
    use_gumbel_for_cells: bool = False
    use_gumbel_for_aggregation: bool = False
    average_approximation_function: AverageApproximation = "ratio"
    cell_selection_preference: NonNegative | None = None
    answer_loss_cutoff: NonNegative | None = None
    disable_per_token_loss: bool = False


@dataclass(frozen=True, kw_only=True)
class CellSelection(ValidatedConfig):
    """How a head selects the cells of a table.

    Attributes:
        temperature: divides the logits of the tokens.
        select_one_column: select cells of one column, that of the largest logit.
        allow_empty_column_selection: no column can be selected too.
        average_logits_per_cell: the tokens of a cell get their mean, also if `select_one_column` is False.
        max_num_rows: further rows count as the last of these.
        max_num_columns: further columns count as the last of these.
        zero_weights: fresh weights are zero, so that every probability is 0.5.
        loss: of the training.
    """

    temperature: Positive = 1.0
    select_one_column: bool = True
    allow_empty_column_selection: bool = False
    average_logits_per_cell: bool = False
    max_num_rows: Size = 64
    max_num_columns: Size = 32
    zero_weights: bool = False
    loss: CellLoss = CellLoss()


@dataclass(frozen=True, kw_only=True)
class HeadConfig(ValidatedConfig):
    """A task head: optional pooling and transform, then one projection.

    Attributes:
        task: "masked-lm", "sequence-classification", ....
        num_labels: output width: number of labels or V; 1 for multiple choice. None: V, for a head over the
            vocabulary only.
        pooling: input of the head: every token ("none"), or "first", "first_attended", "last", "mean",
            "pooler".
        input_dropout: before the transform; None: no dropout module.
        transform: None: no transform.
        classifier_dropout: before the projection; None: no dropout module.
        bias: of the projection.
        tied: share the projection's weight with the word embedding.
        scale: multiplies the hidden states before the projection; None: 1.
        softcap: caps logits by softcap * tanh(logits / softcap); None: no cap.
        soft_labels: labels per class are probabilities, and negative labels are ignored.
        problem_type: loss of sequence classification; None: inferred from the labels.
        cells: of a head that selects cells of a table; `num_labels` are then the operations on them, such as
            a sum. None: any other head.
    """

    task: str
    num_labels: Size | None = None
    pooling: Pooling = "none"
    input_dropout: Probability | None = None
    transform: TransformConfig | None = None
    classifier_dropout: Probability | None = None
    bias: bool = True
    tied: bool = False
    scale: Finite | None = None
    softcap: Positive | None = None
    soft_labels: bool = False
    problem_type: ProblemType = None
    cells: CellSelection | None = None
