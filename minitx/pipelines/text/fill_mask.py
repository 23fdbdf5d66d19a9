"""Fill-mask: the most probable tokens at each mask of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.pipelines.registry import TaskSpec
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request, own_storage, to_cpu
from minitx.pipelines.text_task import Overflow, TextInput, TextOptions, TextTask
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type, warn


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


class Masks(NamedTuple):
    """Masks of a text, as `TextInput.label`.

    Attributes:
        ids: token ids of the whole text.
        start: number of tokens of the text that a window leaves out before its first one.
        positions: of the window's masks, in the window.
    """

    ids: Sequence[int]
    start: int
    positions: list[int]


class Candidates(NamedTuple):
    """The best tokens of M masks, as `details.outputs`: ids, logits and probabilities, each (M, K)."""

    ids: Tensor
    logits: Tensor
    scores: Tensor


class FillMask(TextTask[FillMaskOptions]):
    """The best tokens at each mask of a text; a long text has a window around each mask."""

    Options = FillMaskOptions

    def __init__(self, spec: TaskSpec, model: Any, tokenizer: Tokenizer) -> None:
        super().__init__(spec, model, tokenizer)
        if tokenizer.mask_token_id is None:
            hint = "name the token: tokenizer.mask_token = '[MASK]'"
            raise ArgumentValueError("tokenizer", tokenizer, "one with a mask_token", hint)

    def options(self, base: FillMaskOptions | None, values: Mapping[str, Any]) -> FillMaskOptions:
        """As `Task.options`; warns about targets that are not tokens."""
        options = super().options(base, values)
        if values.get("targets") is not None:
            self.target_ids(options.targets, notes=True)
        return options

    def is_single(self, inputs: Any) -> bool:
        """As `Task.is_single`; in transformers, a list of one text has the result of this text."""
        return super().is_single(inputs) or (isinstance(inputs, list) and len(inputs) == 1)

    def read(self, value: Any, name: str) -> dict[str, Any]:
        """As `Task.read`, of a list of one text too."""
        if name == self.fields[0] and isinstance(value, list) and len(value) == 1:
            value = value[0]
        return super().read(value, name)

    def preprocess(self, request: Request, options: FillMaskOptions) -> list[TextInput]:
        """Returns the text, or a window around each mask.

        Raises:
            ArgumentValueError: a text without a mask.
        """
        text, limit = request["text"], self.limit(options)
        (whole,) = self.inputs_of(self.tokenizer([text], as_tensors=False))
        masks = self.masks(whole)
        if not masks:
            mask = self.tokenizer.mask_token
            hint = f"write {mask} in the place of a word"
            raise ArgumentValueError("text", text, f"one with the mask token {mask}", hint)
        if limit is None or len(whole) <= limit:
            return [replace(whole, label=Masks(whole.input_ids, 0, masks))]
        if options.overflow == "window":
            return windows(whole, masks, limit)
        (cut,) = self.encode(text, options=options)
        masks = self.masks(cut)
        if not masks:
            expected = f"one with a mask among its first {limit} tokens"
            raise ArgumentValueError("text", text, expected, 'or overflow="window"')
        return [replace(cut, label=Masks(cut.input_ids, 0, masks))]

    def masks(self, item: TextInput) -> list[int]:
        """Returns the positions of the mask token."""
        mask = self.tokenizer.mask_token_id
        return [position for position, index in enumerate(item.input_ids) if index == mask]

    @torch.inference_mode()
    def forward(self, inputs: Sequence[TextInput], options: FillMaskOptions) -> list[Any]:
        """Returns the best tokens at the masks of each sequence; all logits would take much memory."""
        counts = [len(item.label.positions) for item in inputs]
        rows = torch.arange(len(inputs)).repeat_interleave(torch.tensor(counts))
        positions = [position for item in inputs for position in item.label.positions]
        logits = self.model(**self.collate(inputs)).logits[rows, positions]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        scores = logits.softmax(dim=-1)  # of the whole vocabulary, also with targets
        targets = self.target_ids(options.targets)
        if targets is not None:
            scores = scores[:, targets]
        scores, ids = scores.topk(min(options.top_k or 5, scores.shape[1]))
        ids = ids if targets is None else torch.tensor(targets, device=ids.device)[ids]
        columns = (ids.cpu(), to_cpu(logits.gather(1, ids)), to_cpu(scores))
        return [
            own_storage(Candidates(*row)) for row in zip(*(c.split(counts) for c in columns), strict=True)
        ]

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

    def target_ids(self, targets: Sequence[str] | str | None, *, notes: bool = False) -> list[int] | None:
        """Returns the ids of the targets, ascending; None without any.

        Args:
            targets: tokens, or words that stand for their first token.
            notes: warn about words that are not tokens.

        Raises:
            ArgumentValueError: none of them has a token.
        """
        if targets is None:
            return None
        ids = set()
        for target in [targets] if isinstance(targets, str) else targets:
            index = self.tokenizer.token_to_id(target)
            if index is None:
                parts = self.tokenizer.encode(target, add_special_tokens=False)
                instead = f"its first token {self.tokenizer.id_to_token(parts[0])!r} is used" if parts else ""
                if notes:
                    warn(f"The target {target!r} is not a token of the model; {instead or 'it is left out'}.")
                if not parts:
                    continue
                index = parts[0]
            ids.add(index)
        if not ids:
            raise ArgumentValueError("targets", targets, "at least one token of the model")
        return sorted(ids)


def windows(whole: TextInput, masks: Sequence[int], limit: int) -> list[TextInput]:
    """Returns a window around each mask, with the special tokens around the text; equal ones once.

    Args:
        whole: the text, without truncation.
        masks: positions of its masks.
        limit: number of tokens of a window.

    Raises:
        ArgumentValueError: a limit that leaves no room for text.
    """
    assert whole.encoding is not None
    special = whole.encoding.special_tokens_mask
    first, last = special.index(0), len(special) - special[::-1].index(0)  # of the text
    room = limit - first - (len(whole) - last)
    if room < 1:
        hint = f"{limit - room} tokens of each text are special"
        raise ArgumentValueError("max_length", limit, f"at least {limit - room + 1}", hint)
    shared: dict[int, list[int]] = {}
    for mask in masks:
        start = min(max(mask - room // 2, first), last - room)
        shared.setdefault(start, []).append(mask - start + first)
    return [
        TextInput(
            arguments={
                name: [*ids[:first], *ids[start : start + room], *ids[last:]]
                for name, ids in whole.arguments.items()
            },
            label=Masks(whole.input_ids, start - first, positions),
        )
        for start, positions in shared.items()
    ]
