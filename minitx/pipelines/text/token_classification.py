"""Token classification: entities of a text, such as names, or a label of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minitx.pipelines.postprocess.entities import (
    STRATEGIES,
    Entity,
    Strategy,
    Token,
    drop_labels,
    find_entities,
    merge_overlapping,
    stitch,
    window_starts,
)
from minitx.pipelines.postprocess.scores import label_names
from minitx.pipelines.postprocess.tokens import join_words, tokens_of
from minitx.pipelines.result import Prediction, Predictions
from minitx.pipelines.task import Request
from minitx.pipelines.text_task import Overflow, TextInput, TextOptions, TextTask
from minitx.tokenizer.subwords import join_tokens
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_choice,
    check_flags,
    check_strings,
    check_type,
)


@dataclass(frozen=True, kw_only=True)
class TokenClassificationOptions(TextOptions):
    """Options of token classification.

    Attributes:
        overflow: what happens to a text with more tokens than the model takes: "window" divides it into
            overlapping windows, "truncate" cuts it off, "error" refuses it.
        stride: number of tokens by which windows overlap; entities are then found in each window, and the
            longest of those that overlap are kept. None: the scores of all windows are joined first.
        aggregation_strategy: "none" labels each token; "simple" groups tokens of the same tag; "first", "max"
            and "average" label each word by its first token, its best one or the mean of all, then group.
        ignore_labels: labels that are left out of the result, such as O, which is the default.
        is_split_into_words: texts are lists of words.
        delimiter: joins such words to the text that the result's start and end refer to.
    """

    overflow: Overflow = "window"
    aggregation_strategy: Strategy = "none"
    ignore_labels: Sequence[str] = ("O",)
    is_split_into_words: bool = False
    delimiter: str = " "

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("aggregation_strategy", self.aggregation_strategy, STRATEGIES)
        check_type("ignore_labels", self.ignore_labels, list | tuple, "a list of labels", "[] for all labels")
        for index, label in enumerate(self.ignore_labels):
            check_strings(**{f"ignore_labels[{index}]": label})
        check_flags(is_split_into_words=self.is_split_into_words)
        check_strings(delimiter=self.delimiter)
        if self.delimiter != " " and not self.is_split_into_words:
            expected = "left out without is_split_into_words=True"
            raise ArgumentValueError("delimiter", self.delimiter, expected, "it joins words of a list")


class TokenClassification(TextTask[TokenClassificationOptions]):
    """Entities of a text or of a list of words."""

    Options = TokenClassificationOptions

    def options(
        self, base: TokenClassificationOptions | None, values: Mapping[str, Any]
    ) -> TokenClassificationOptions:
        """As `TextTask.options`; a call with `is_split_into_words=False` does not inherit the delimiter."""
        if base is not None and values.get("is_split_into_words") is False:
            values = {"delimiter": " ", **values}
        return super().options(base, values)

    def prepare(self, inputs: Any, options: TokenClassificationOptions) -> Any:
        """With `is_split_into_words`, a list of words is one text, and a list of lists several."""
        if not options.is_split_into_words or not isinstance(inputs, list | tuple):
            return inputs
        if inputs and all(isinstance(word, str) for word in inputs):
            inputs = [inputs]
        return [{"text": words} if isinstance(words, list | tuple) else words for words in inputs]

    def check_field(self, field: str, value: Any, name: str) -> Any:
        """As `Task.check_field`; a list of words too."""
        if not isinstance(value, list | tuple):
            return super().check_field(field, value, name)
        for index, word in enumerate(value):
            check_type(f"{name}[{index}]", word, str, "a string, one of a list of words")
        return list(value)

    def preprocess(self, request: Request, options: TokenClassificationOptions) -> list[TextInput]:
        """Returns the text as one sequence, or as windows, labelled with their positions in the text."""
        text = request["text"]
        if isinstance(text, str) == options.is_split_into_words:
            kind = "a list of words" if options.is_split_into_words else "a string"
            hint = "is_split_into_words=True takes lists of words"
            raise ArgumentTypeError("text", text, kind, hint)
        items = self.encode(text, options=options)
        lengths = [len(item) - sum(_specials(item)) for item in items]
        if len(items) == 1:
            return items if lengths[0] else []
        stride = self.overlap(options, self.limit(options) or 0, pair=False)
        starts = window_starts(lengths, stride, from_end=self.tokenizer.truncation_side == "left")
        return [replace(item, label=start) for item, start in zip(items, starts, strict=True)]

    def postprocess(
        self,
        request: Request,
        inputs: Sequence[TextInput],
        outputs: Sequence[Any],
        options: TokenClassificationOptions,
    ) -> Any:
        """Returns the entities in the order of the text."""
        text, offsets = join_words(request["text"], options.delimiter)
        windows = [
            (item.label or 0, tokens_of(item, logits, text, offsets, self.tokenizer))
            for item, logits in zip(inputs, outputs, strict=True)
        ]
        entities: list[Entity] = []
        if len(windows) > 1 and options.stride is not None and options.aggregation_strategy != "none":
            for _, tokens in windows:
                entities += self.entities(tokens, options)
            entities = merge_overlapping(entities)
        elif windows:
            entities = self.entities(stitch(windows), options)
        return Predictions(map(Prediction, entities))

    def entities(self, tokens: Sequence[Token], options: TokenClassificationOptions) -> list[Entity]:
        """Returns the entities of a sequence of tokens, without ignored labels."""
        names: Mapping[int, str] = label_names(self.model)
        strategy = options.aggregation_strategy
        entities = find_entities(tokens, names, strategy, lambda words: join_tokens(self.tokenizer, words))
        return drop_labels(entities, options.ignore_labels)


def _specials(item: TextInput) -> list[int]:
    assert item.encoding is not None
    return item.encoding.special_tokens_mask
