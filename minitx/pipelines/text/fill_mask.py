"""Fill-mask: the most probable tokens at each mask of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.optimize.unpadded import without_padding
from minitx.pipelines.models import without_head
from minitx.pipelines.preprocess.masks import label_masks, target_ids, windows
from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request, own_storage, to_cpu
from minitx.pipelines.text_task import Overflow, TextInput, TextOptions, TextTask
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type


@dataclass(frozen=True, kw_only=True)
class FillMaskOptions(TextOptions):
    """Options of fill-mask.

    Attributes:
        overflow: what happens to a text with more tokens than the model takes: "window" uses the tokens
            around each mask, "truncate" cuts the text off, "error" refuses it.
        top_k: number of tokens for each mask.
        targets: tokens to choose from; None for the whole vocabulary. A word that is not a token stands for
            its first token.
    """

    overflow: Overflow = "window"
    top_k: int | None = 5
    targets: Sequence[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None:
            raise ArgumentValueError("stride", self.stride, "left out", "a window lies around each mask")
        if self.top_k is not None:
            check_integer("top_k", self.top_k, 1)
        if self.targets is not None and not isinstance(self.targets, str):
            check_type("targets", self.targets, list | tuple, "a string or a list of strings")
            for index, target in enumerate(self.targets):
                check_type(f"targets[{index}]", target, str, "a string")


class Candidates(NamedTuple):
    """The best tokens of M masks, as `details.outputs`: ids, logits and probabilities, each (M, K)."""

    ids: Tensor
    logits: Tensor
    scores: Tensor


class FillMask(TextTask[FillMaskOptions]):
    """The best tokens at each mask of a text; a long text has a window around each mask."""

    Options = FillMaskOptions
    single_lists = True

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model, tokenizer)
        if tokenizer.mask_token_id is None:
            hint = "name the token: tokenizer.mask_token = '[MASK]'"
            raise ArgumentValueError("tokenizer", tokenizer, "one with a mask_token", hint)

    def options(self, base: FillMaskOptions | None, values: Mapping[str, Any]) -> FillMaskOptions:
        """As `Task.options`; warns about targets that are not tokens."""
        options = super().options(base, values)
        if values.get("targets") is not None:
            target_ids(self.tokenizer, options.targets, notes=True)
        return options

    def preprocess(self, request: Request, options: FillMaskOptions) -> list[TextInput]:
        """Returns the text, or a window around each mask.

        Raises:
            ArgumentValueError: a text without a mask.
        """
        text, limit, mask = request["text"], self.limit(options), self.tokenizer.mask_token_id
        (whole,) = self.inputs_of(self.tokenizer([text], as_tensors=False))
        whole = label_masks(whole, mask)
        if not whole.label.positions:
            token = self.tokenizer.mask_token
            hint = f"write {token} in the place of a word"
            raise ArgumentValueError("text", text, f"one with the mask token {token}", hint)
        if limit is None or whole.size <= limit:
            return [whole]
        if options.overflow == "window":
            return windows(whole, whole.label.positions, limit)
        (cut,) = self.encode(text, options=options)
        cut = label_masks(cut, mask)
        if not cut.label.positions:
            expected = f"one with a mask among its first {limit} tokens"
            raise ArgumentValueError("text", text, expected, 'or overflow="window"')
        return [cut]

    @torch.inference_mode()
    def forward(self, inputs: Sequence[TextInput], options: FillMaskOptions) -> list[Any]:
        """Returns the best tokens at the masks of each sequence; other positions have no logits."""
        counts = [len(item.label.positions) for item in inputs]
        rows = torch.arange(len(inputs)).repeat_interleave(torch.tensor(counts))
        positions = [position for item in inputs for position in item.label.positions]
        model = without_head(without_padding(self.model))
        hidden = model(**self.collate(inputs)).last_hidden_state
        logits = self.model.apply_head(hidden[rows, positions][None], None, None, None).logits[0]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores = logits.softmax(dim=-1)  # of the whole vocabulary, also with targets
        targets = target_ids(self.tokenizer, options.targets)
        if targets is not None:
            scores = scores[:, targets]
        scores, ids = scores.topk(min(options.top_k or 5, scores.shape[1]))
        ids = ids if targets is None else torch.tensor(targets, device=ids.device)[ids]
        columns = (ids.cpu(), to_cpu(logits.gather(1, ids)), to_cpu(scores))
        rows_of = (column.split(counts) for column in columns)
        return [own_storage(Candidates(*row)) for row in zip(*rows_of, strict=True)]

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: FillMaskOptions,
    ) -> Any:
        """Returns the tokens of one mask, or a list of them for each of several masks."""
        answers: dict[int, Predictions] = {}
        count = sum(len(item.label.positions) for item in inputs)
        for item, best in zip(inputs, outputs, strict=True):
            ids, start, positions = item.label
            for position, tokens, scores in zip(positions, best.ids, best.scores, strict=True):
                place = start + position
                answers[place] = Predictions(
                    Prediction(
                        score=score,
                        token=token,
                        token_str=self.tokenizer.decode([token]),
                        sequence=self.filled(ids, place, token, is_only=count == 1),
                    )
                    for token, score in zip(tokens.tolist(), scores.tolist(), strict=True)
                )
        ordered = Predictions(answers[place] for place in sorted(answers))
        return ordered[0] if count == 1 else ordered

    def filled(self, ids: Sequence[int], place: int, token: int, *, is_only: bool) -> str:
        """Returns the text with a token in the place of a mask; other masks are shown."""
        pad = self.tokenizer.pad_token_id
        row = [index for index in (*ids[:place], token, *ids[place + 1 :]) if index != pad]
        return self.tokenizer.decode(row, skip_special_tokens=is_only)
