"""Texts, ids or the arguments of a forward, prepared for a model; `Subject`: the texts of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor

import minitx
from minitx.decoding.arguments import decoder_prompts_of
from minitx.inspect.taps.record import Record, check_tappable, record
from minitx.inspect.tokens import token_names
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.models import EncoderDecoderModel, Model, ModelOutput
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.tokenizer import Tokenizer
from minitx.validation import (
    ArgumentTypeError,
    ArgumentValueError,
    check_integer,
    check_strings,
    check_token_ids,
    check_type,
)

Inputs = str | Sequence[str] | Tensor | Mapping[str, Any]
Text = str | Sequence[int]
MOST_TOKENS = 256  # of a legible picture
ANSWER = 24  # tokens of a target that is generated
_INPUTS = "texts, a tensor of ids or the arguments of a forward"


def prepare(model: Model, inputs: Inputs, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Returns the arguments of a forward, on the device of the model.

    An encoder-decoder without decoder inputs gets its start token, so that its logits are those of the first
    token.

    Args:
        model: the model, in eval mode.
        inputs: a text or texts, with a tokenizer; ids (B, T); or the arguments by name.
        tokenizer: of the model.

    Raises:
        ArgumentTypeError: other inputs.
        ArgumentValueError: texts without a tokenizer, a model in training mode.
    """
    check_eval(model)
    check_type("tokenizer", tokenizer, Tokenizer | None, "a Tokenizer or None")
    arguments: dict[str, Any]
    if isinstance(inputs, Tensor):
        arguments = {"input_ids": check_token_ids("inputs", inputs)}
    elif isinstance(inputs, Mapping):
        arguments = {**inputs}
    elif isinstance(inputs, str) or (isinstance(inputs, Sequence) and not isinstance(inputs, bytes)):
        arguments = _tokenized(inputs, tokenizer)
    else:
        raise ArgumentTypeError("inputs", inputs, _INPUTS)
    start = getattr(model.config, "decoder_start_token_id", None)
    targets = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    if isinstance(model, EncoderDecoderModel) and start is not None and not arguments.keys() & {*targets}:
        rows = rows_of(arguments)
        arguments["decoder_input_ids"] = torch.full((rows, 1), start)
    return {k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in arguments.items()}


def _tokenized(texts: str | Sequence[str], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Returns the ids of texts, and their mask if there are several."""
    if any(not isinstance(text, str) for text in texts) or not texts:
        raise ArgumentTypeError("inputs", texts, _INPUTS, "ids are a tensor of shape (batch, time)")
    tokenizer, several = tokenizer_of_texts(tokenizer), not isinstance(texts, str)
    return dict(tokenizer(texts, padding=several and tokenizer.pad_token_id is not None))


def tokenizer_of_texts(tokenizer: Tokenizer | None) -> Tokenizer:
    """Returns the tokenizer, which texts need.

    Raises:
        ArgumentValueError: there is none.
    """
    if tokenizer is None:
        hint = "pass tokenizer=minitx.load_tokenizer(...)"
        raise ArgumentValueError("tokenizer", None, "the tokenizer of the model for texts", hint)
    return tokenizer


def check_eval(model: Any) -> Model:
    """Returns a model of minitx in eval mode.

    Raises:
        ArgumentTypeError: not a model of minitx.
        ArgumentValueError: a model in training mode.
    """
    check_tappable(model)
    if model.training:
        expected = "in eval mode, not in training mode with dropout active"
        raise ArgumentValueError("model", type(model).__name__, expected, "call model.eval() first")
    checked: Model = model
    return checked


def check_vocabulary_head(model: Model) -> None:
    """Checks that the logits of a model are those of the tokens of a vocabulary.

    Raises:
        ArgumentValueError: another head, or no head.
    """
    if model.task not in VOCABULARY_TASKS:
        expected = f"one with a head over the vocabulary, not of task {model.task!r}"
        raise ArgumentValueError("model", model, expected, f"load it with head= {VOCABULARY_TASKS}")


def prefix_of(model: Model, stack: str) -> str:
    """Returns the prefix of the arguments of a stack: "decoder_" for the decoder of an encoder-decoder."""
    return "decoder_" if stack == "decoder" and isinstance(model, EncoderDecoderModel) else ""


def rows_of(arguments: Mapping[str, Any]) -> int:
    """Returns the number of rows of the batch."""
    for name in ("input_ids", "inputs_embeds", "encoder_last_hidden_state"):
        if isinstance(arguments.get(name), Tensor):
            return len(arguments[name])
    raise ArgumentValueError("inputs", sorted(arguments), "arguments with input_ids")


def repeated(arguments: Mapping[str, Any], times: int) -> dict[str, Any]:
    """Returns the arguments with all rows repeated: row r of copy c is row c * B + r."""
    rows = rows_of(arguments)

    def _repeat(value: Any) -> Any:
        if not isinstance(value, Tensor) or len(value) != rows:
            return value  # such as position ids that all rows share
        return value.repeat(times, *[1] * (value.dim() - 1))

    return {name: _repeat(value) for name, value in arguments.items()}


def ids_of(model: Model, arguments: Mapping[str, Any], stack: str) -> Tensor | None:
    """Returns the ids of the tokens of a stack: (B, T); None: the inputs are embeddings."""
    ids = arguments.get(f"{prefix_of(model, stack)}input_ids")
    return ids if isinstance(ids, Tensor) else None


def mask_of(model: Model, arguments: Mapping[str, Any], stack: str) -> Tensor | None:
    """Returns which tokens of a stack are not padding: (B, T) bool; None: all."""
    mask = arguments.get(f"{prefix_of(model, stack)}attention_mask")
    if not isinstance(mask, Tensor):
        return None
    return mask.bool() if mask.dim() == 2 else mask.bool().any(dim=1)


def positions_of_rows(
    position: int | Sequence[int], rows: int, time: int, mask: Tensor | None = None
) -> Tensor:
    """Returns a position for each row: (B,).

    Args:
        position: one for all rows, or one for each; negative ones are counted from the end of a row, before
            padding on the right.
        rows: B.
        time: T.
        mask: (B, T) bool, or None.

    Raises:
        ArgumentTypeError, ArgumentValueError: a position outside of the sequence.
    """
    values = [position] if isinstance(position, int) else [*position]
    if len(values) not in (1, rows):
        raise ArgumentValueError("position", values, f"one position, or one for each of the {rows} rows")
    values *= rows if len(values) == 1 else 1
    ends = [time] * rows
    if mask is not None:
        ends = ((mask.long() * torch.arange(1, time + 1, device=mask.device)).amax(dim=1)).tolist()
    hint = "negative positions are counted from the end of the row"
    checked = [
        check_integer("position", value, -end, time - 1, hint)
        for value, end in zip(values, ends, strict=True)
    ]
    pairs = zip(checked, ends, strict=True)
    return torch.tensor([value + end if value < 0 else value for value, end in pairs])


def run(model: Model, arguments: Mapping[str, Any]) -> Tensor:
    """Runs a forward and returns its logits: (B, T, V) or (B, C).

    Raises:
        ArgumentValueError: a model whose output has no logits.
    """
    output: ModelOutput = model(**arguments)
    if output.logits is None:
        raise ArgumentValueError("model", model, "one with a head that has logits", "load it with head=")
    return output.logits


def batches_of(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yields lists of texts; each text is read when it is needed.

    Raises:
        ArgumentTypeError: not texts.
    """
    if isinstance(texts, str):
        raise ArgumentTypeError("texts", texts, "an iterable of texts", "put the text into a list")
    iterator = iter(check_type("texts", texts, Iterable, "an iterable of texts"))
    while batch := list(islice(iterator, size)):
        for text in batch:
            check_strings(texts=text)
        yield cast("list[str]", batch)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the texts that it runs on; no forward runs before it is needed.

    Attributes:
        model: in eval mode.
        tokenizer: of the texts; None: they are ids, and names of tokens are too.
        texts: texts, or their token ids; rows of a batch.
        target: the decoder input of an encoder-decoder, likewise; None: the answer that it generates, or the
            source, shifted to the right, if its head has another task.
    """

    model: Model
    tokenizer: Tokenizer | None
    texts: tuple[Text, ...]
    target: Text | None = None

    @property
    def has_encoder_and_decoder(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return isinstance(self.model, EncoderDecoderModel)

    @property
    def text(self) -> Text:
        """The first text."""
        return self.texts[0]

    @cached_property
    def sources(self) -> list[list[int]]:
        """The ids of each text, special tokens included."""
        return [self._encoded("text", text) for text in self.texts]

    @cached_property
    def targets(self) -> list[list[int]]:
        """The decoder input ids of an encoder-decoder for each text, with its start token."""
        model: Any = self.model
        start = decoder_prompts_of(model, None, 1, self.tokenizer)[0]
        if self.target is not None:
            target = self._encoded("target", self.target, as_target=True)
            outer = {model.config.eos_token_id, *start}  # one is a language, which mBART's targets end with
            return [[*start, *(id_ for id_ in target if id_ not in outer)]] * len(self.texts)
        if model.task not in NEXT_TOKEN_TASKS:
            sources = (torch.tensor([row], device=model.device) for row in self.sources)
            return [model.shifted("input_ids", ids)[0].tolist() for ids in sources]
        options: dict[str, Any] = {"tokenizer": self.tokenizer, "max_new_tokens": ANSWER}
        texts = self.texts if isinstance(self.text, str) else self.sources
        result = minitx.generate(model, [*texts], minitx.Greedy(), **options)
        ends = ([-1] if reason == "eos" else [] for reason in result.finish_reasons)
        rows = zip(result.sequences, ends, strict=True)
        return [[*start, *(row.tolist()[: end[0]] if end else row.tolist())] for row, end in rows]

    def ids(self, side: str) -> list[int]:
        """Returns the token ids of the first text on a side of the model: "encoder" or "decoder"."""
        return (self.targets if prefix_of(self.model, side) else self.sources)[0]

    def names(self, side: str) -> list[str]:
        """Returns the tokens of the first text on a side of the model."""
        return token_names(self.ids(side), self.tokenizer)

    def side(self, side: str | None) -> str:
        """Returns the name of a stack of the model; None: its first one.

        Raises:
            ArgumentValueError: a side that the model does not have.
        """
        families = self.model.families
        if side is not None and side not in families:
            raise ArgumentValueError("side", side, f"{' or '.join(families)}, as the model has")
        return side or families[0]

    def layer(self, layer: int | None, side: str) -> int | None:
        """Checks the number of a layer, which may be None; negative ones count from the last."""
        count = len(self.model.taps(f"{side}.layers.*.residual.after"))
        return None if layer is None else check_integer("layer", layer, -count, count - 1) % count

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a forward on the texts, padded on the right if there are several."""
        rows = {"encoder": self.sources}
        if self.has_encoder_and_decoder:
            rows["decoder"] = self.targets
        arguments: dict[str, Any] = {}
        for side, ids in rows.items():
            prefix = prefix_of(self.model, side)
            arguments[f"{prefix}input_ids"], mask = _padded(ids, self._padding_id(side))
            if len(ids) > 1:
                arguments[f"{prefix}attention_mask"] = mask
        return prepare(self.model, arguments, self.tokenizer)

    def run(self, *names: str, **arguments: Any) -> tuple[Any, Record]:
        """Runs the model; returns its output and the values at some places."""
        inputs = self.arguments | arguments  # before the record, which would have the target's generation too
        with torch.inference_mode(), record(self.model, *names) as seen:
            output = self.model(**inputs)
        return output, seen

    def logits(self) -> Tensor:
        """Returns the logits of the first text, float64: (T, V).

        Raises:
            ArgumentValueError: a model without a head over the vocabulary.
        """
        self.check_task(VOCABULARY_TASKS)
        with torch.inference_mode():
            logits: Tensor = self.model(**self.arguments).logits[0].cpu().double()
        return logits

    def check_task(self, tasks: Sequence[str]) -> None:
        """Checks that the head of the model is that of one of these tasks."""
        if self.model.task not in tasks:
            hint = f"load it with head={' or '.join(map(repr, tasks))}"
            expected = f"one with a head for {' or '.join(tasks)}, not {self.model.task or 'without a head'}"
            raise ArgumentValueError("model", type(self.model).__name__, expected, hint)

    def _padding_id(self, side: str) -> int:
        inputs: Any = self.model.config.decoder_inputs if side == "decoder" else None
        return getattr(inputs or self.model.config.text_inputs, "pad_token_id", None) or 0

    def _encoded(self, parameter: str, text: Text, *, as_target: bool = False) -> list[int]:
        """Returns the ids of a text.

        Raises:
            ArgumentValueError: a text without a tokenizer, without tokens, or with too many of them.
        """
        if isinstance(text, str):
            ids = tokenizer_of_texts(self.tokenizer).encode(text, as_target=as_target)
        else:
            ids = [check_integer(parameter, id_, 0) for id_ in plain_ids(parameter, text)]
        if not 0 < len(ids) <= MOST_TOKENS:
            expected = f"of 1 to {MOST_TOKENS} tokens for a picture, not {len(ids)}"
            raise ArgumentValueError(parameter, text, expected)
        return ids


def plain_ids(parameter: str, text: Any) -> list[Any]:
    """Returns the ids of one text: of a list, or of a tensor or array (T,) or (1, T).

    Raises:
        ArgumentTypeError: neither a text nor ids.
    """
    plain = text.tolist() if hasattr(text, "tolist") else text
    rows = isinstance(plain, Sequence) and len(plain) == 1 and isinstance(plain[0], list | tuple)
    plain = plain[0] if rows else plain
    if isinstance(plain, bytes) or not isinstance(plain, Sequence) or not all(map(_is_integer, plain)):
        raise ArgumentTypeError(parameter, text, "a text, or the token ids of one")
    return [*plain]


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _padded(rows: list[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Returns ids and mask of rows of different lengths: (B, T) twice."""
    most = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (most - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (most - len(row)) for row in rows])
    return ids, mask
