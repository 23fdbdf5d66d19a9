"""Inputs of an analysis: texts, ids or arguments of a forward, and the names of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from minitx.inspect.taps.record import check_tappable
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.models import EncoderDecoderModel, Model, ModelOutput
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
Token = int | str
TokenNames = tuple[tuple[str, ...], ...]
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
    if tokenizer is None:
        hint = "pass tokenizer=minitx.load_tokenizer(...)"
        raise ArgumentValueError("tokenizer", None, "the tokenizer of the model for texts", hint)
    several = not isinstance(texts, str)
    return dict(tokenizer(texts, padding=several and tokenizer.pad_token_id is not None))


def check_eval(model: Any) -> Model:
    """Returns a model of minitx in eval mode.

    Raises:
        ArgumentTypeError: not a model of minitx.
        ArgumentValueError: a model in training mode.
    """
    check_tappable(model)
    if model.training:
        expected = "in eval mode, not in training mode with dropout active"
        raise ArgumentValueError("model", model, expected, "call model.eval() first")
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


def token_names(ids: Tensor | None, tokenizer: Tokenizer | None, shape: tuple[int, int]) -> TokenNames:
    """Returns the names of tokens, row by row: of the vocabulary, or "#" and the id, or the position.

    Args:
        ids: (B, T), or None.
        tokenizer: None: no names.
        shape: (B, T).
    """
    if ids is None or tuple(ids.shape) != shape:
        return (tuple(map(str, range(shape[1]))),) * shape[0]
    return tuple(tuple(token_name(token, tokenizer) for token in row) for row in ids.tolist())


def token_name(token: int, tokenizer: Tokenizer | None) -> str:
    """Returns the name of a token."""
    name = None if tokenizer is None else tokenizer.id_to_token(token)
    return f"#{token}" if name is None else name


def token_id(parameter: str, token: Token, tokenizer: Tokenizer | None, size: int) -> int:
    """Returns the id of a token.

    Args:
        parameter: name in messages.
        token: its id, its spelling in the vocabulary, or a text that is one token.
        tokenizer: for spellings and texts.
        size: of the vocabulary.

    Raises:
        ArgumentTypeError, ArgumentValueError: an id outside the vocabulary, a text of several tokens, a text
            without a tokenizer.
    """
    if not isinstance(token, str):
        return check_integer(parameter, token, 0, size - 1)
    if tokenizer is None:
        raise ArgumentValueError(parameter, token, "an id without a tokenizer", "pass tokenizer= for texts")
    index = tokenizer.token_to_id(token)
    if index is not None:
        return index
    ids: list[int] = tokenizer(token, add_special_tokens=False, as_tensors=False)["input_ids"][0]
    if len(ids) != 1:
        pieces = [token_name(index, tokenizer) for index in ids]
        raise ArgumentValueError(parameter, token, "one token of the vocabulary", f"it is {pieces}")
    return int(ids[0])


def token_ids_of_rows(
    parameter: str, tokens: Token | Sequence[Token], tokenizer: Tokenizer | None, size: int, rows: int
) -> Tensor:
    """Returns the id of a token for each row: (B,); one for all, or a list with one for each."""
    if isinstance(tokens, Tensor):
        tokens = tokens.tolist()
    if isinstance(tokens, str | int):
        tokens = [tokens]
    check_type(parameter, tokens, Sequence, "a token, or a list with one for each row")
    if len(tokens) not in (1, rows):
        raise ArgumentValueError(parameter, tokens, f"one token, or one for each of the {rows} rows")
    ids = [token_id(parameter, token, tokenizer, size) for token in tokens]
    return torch.tensor(ids * (rows if len(ids) == 1 else 1))


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
