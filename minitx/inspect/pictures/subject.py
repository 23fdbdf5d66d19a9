"""`Subject`: a model, a text and the forward on it, of which a picture shows a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

import minitx
from minitx.decoding.arguments import decoder_prompts_of
from minitx.inspect.taps import Record, record
from minitx.layers.heads import VOCABULARY_TASKS
from minitx.models import EncoderDecoderModel, Model
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer

Text = str | Sequence[int]
MOST_TOKENS = 256  # of a legible picture
ANSWER = 24  # tokens of a target that is generated


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
            return [[*start, *(id_ for id_ in target if id_ != model.config.eos_token_id)]] * len(self.texts)
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
        is_target = self.has_encoder_and_decoder and side == "decoder"
        return (self.targets if is_target else self.sources)[0]

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
        ids, mask = _padded(self.sources, self._padding_id("encoder"))
        device = self.model.device
        arguments = {"input_ids": ids.to(device)}
        if len(ids) > 1:
            arguments["attention_mask"] = mask.to(device)
        if self.has_encoder_and_decoder:
            ids, mask = _padded(self.targets, self._padding_id("decoder"))
            arguments["decoder_input_ids"] = ids.to(device)
            if len(ids) > 1:
                arguments["decoder_attention_mask"] = mask.to(device)
        return arguments

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
            if self.tokenizer is None:
                hint = "pass tokenizer=minitx.load_tokenizer(...)"
                raise ArgumentValueError("tokenizer", None, "the tokenizer of the model for a text", hint)
            ids = self.tokenizer.encode(text, as_target=as_target)
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


def token_names(ids: Sequence[int], tokenizer: Tokenizer | None) -> list[str]:
    """Returns tokens as they are read: "·" for a space before a word, "#" and the id where there is no text.

    Special tokens and the parts of WordPiece are spelled as in the vocabulary.
    """
    return [token_name(id_, tokenizer) for id_ in ids]


def token_name(token: int, tokenizer: Tokenizer | None) -> str:
    """Returns one token, as `token_names` does."""
    spelled = None if tokenizer is None else tokenizer.id_to_token(token)
    if tokenizer is None or not spelled:
        return f"#{token}"
    if token in tokenizer.special_ids or spelled.startswith("##"):
        return spelled
    text = tokenizer.decode([token], skip_special_tokens=False)
    if "\ufffd" in text:
        return spelled if spelled.startswith("<0x") else f"#{token}"
    marked = spelled[0] in "\u0120\u2581"  # of byte-level BPE and of SentencePiece
    return f"·{text.lstrip(' ')}" if marked else text or spelled
