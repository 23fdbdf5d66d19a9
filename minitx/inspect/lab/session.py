"""What a live page asks for: the data of a text, with heads switched off, and what is then generated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import minitx
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.strategy import Strategy
from minitx.inspect.page.attention import KINDS, attention_places
from minitx.inspect.page.data import MOST_BEAMS, page_data
from minitx.inspect.page.tokens import names_of
from minitx.inspect.pictures.subject import Subject
from minitx.inspect.taps import ablate
from minitx.models import Model
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type

MOST_NEW_TOKENS = 64
_FIELDS = ("text", "target", "off", "max_new_tokens", "num_beams", "sequence", "client")
_LARGEST = 40_000_000  # characters of an answer, which no network carries


@dataclass(frozen=True)
class LabSession:
    """A model and its tokenizer, and how a page of them is computed.

    Attributes:
        model: in eval mode.
        tokenizer: of the texts.
        strategy: `Sample(...)`, whose parameters the sliders begin with.
    """

    model: Model
    tokenizer: Tokenizer
    strategy: Strategy = Sample()  # noqa: RUF009 - frozen

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the page's data for a request of the page.

        Args:
            request: "text"; "target" of an encoder-decoder or None; "off", the heads that are switched off,
                pairs of layer and head by kind of attention, such as {"decoder.self": [[3, 1]]};
                "max_new_tokens" and "num_beams".

        Returns:
            The data of `page_data`, and "live": what the model generates (of a masked language model, what it
            fills in) without and with these heads.

        Raises:
            ArgumentTypeError, ArgumentValueError: a request with other fields or values out of range.
        """
        for name in request:
            if name not in _FIELDS:
                raise ArgumentValueError("request", name, f"a request with {', '.join(_FIELDS)}")
        text = check_type("text", request.get("text"), str, "a text")
        target = check_type("target", request.get("target"), str | None, "a text or null")
        length = check_integer("max_new_tokens", request.get("max_new_tokens", 12), 1, MOST_NEW_TOKENS)
        beams = check_integer("num_beams", request.get("num_beams", 4), 0, MOST_BEAMS)
        off = self.heads(request.get("off") or {})
        before = self.output(text, length)
        with self.switched_off(off):
            subject = Subject(self.model, self.tokenizer, (text,), target or None)
            data = page_data(subject, strategy=self.strategy, num_beams=beams, largest=_LARGEST)
            after = self.output(text, length) if off else before
        return data | {"output": {"before": before, "after": after}}

    def heads(self, off: Any) -> dict[str, dict[int, list[int]]]:
        """Returns the heads of a request by kind of attention and layer.

        Raises:
            ArgumentTypeError, ArgumentValueError: another form, or heads that do not exist.
        """
        check_type("off", off, dict, 'an object such as {"decoder.self": [[3, 1]]}')
        places = attention_places(Subject(self.model, self.tokenizer, ("",)))
        chosen: dict[str, dict[int, list[int]]] = {}
        for kind, pairs in off.items():
            if kind not in places:
                raise ArgumentValueError(
                    "off", kind, f"a kind of attention of the model: {', '.join(places)}"
                )
            for pair in check_type("off", pairs, list, "a list of pairs of layer and head"):
                if not isinstance(pair, list) or len(pair) != 2:
                    raise ArgumentValueError("off", pair, "a pair of layer and head")
                layer = check_integer("off", pair[0], 0, len(places[kind]) - 1)
                chosen.setdefault(kind, {}).setdefault(layer, []).append(check_integer("off", pair[1], 0))
        return chosen

    @contextmanager
    def switched_off(self, off: Mapping[str, Mapping[int, list[int]]]) -> Iterator[None]:
        """Switches heads off, by kind of attention and layer."""
        sides = {name: side for name, side, *_ in KINDS}
        with ExitStack() as stack:
            for kind, heads in off.items():
                cross = kind.endswith("cross")
                stack.enter_context(ablate(self.model, heads=heads, cross_attention=cross, stack=sides[kind]))
            yield

    def output(self, text: str, max_new_tokens: int) -> list[str]:
        """Returns the tokens that the model generates, or fills into the masks of a text."""
        model: Any = self.model
        if model.task in NEXT_TOKEN_TASKS:
            options: dict[str, Any] = {"tokenizer": self.tokenizer, "max_new_tokens": max_new_tokens}
            result = minitx.generate(model, text, minitx.Greedy(), **options)
            return names_of(result.sequences[0].tolist(), self.tokenizer)
        subject = Subject(self.model, self.tokenizer, (text,))
        mask = self.tokenizer.mask_token_id
        if model.task != "masked-lm" or mask is None:
            return []
        best = subject.logits().argmax(dim=-1).tolist()
        return names_of(
            [best[i] for i, id_ in enumerate(subject.ids("encoder")) if id_ == mask], self.tokenizer
        )
