"""Token healing: the last tokens of a prompt are generated again, as a longer one may begin with their text.

A prompt that ends within a word, or in "http:", was divided into tokens that the model never saw before what
follows. So its last tokens are removed where a longer token begins with their text; the first new tokens must
have, together, a text that begins with the removed one. All divisions of it into tokens are allowed.

B rows, P prompts, V vocabulary.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from minitx.decoding.processors.base import LogitsProcessor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.context import Context
from minitx.decoding.request import GenerationRequest
from minitx.tokenizer import Tokenizer
from minitx.tokenizer.subwords import token_bytes
from minitx.validation import ArgumentValueError

_HALF = "\ufffd"


def heal(request: GenerationRequest) -> GenerationRequest:
    """Returns a request without the last tokens of its prompts, which generates their texts again.

    Raises:
        ArgumentValueError: no tokenizer, an encoder-decoder, or inputs_embeds.
    """
    expected = "left out"
    if request.sources is not None:
        raise ArgumentValueError("heal", True, expected, "the output of an encoder-decoder continues no text")
    if request.inputs_embeds is not None:
        raise ArgumentValueError("heal", True, expected, "inputs_embeds= has a vector per prompt token")
    if request.tokenizer is None:
        raise ArgumentValueError("heal", True, expected, "texts of tokens need tokenizer=")
    vocabulary = Vocabulary(request.tokenizer, request.vocab_size)
    healed = [vocabulary.heal(prompt) for prompt in request.prompts]
    if not any(prompt.removed for prompt in healed):
        return request
    healing = Healing([prompt.removed for prompt in healed], vocabulary)
    return replace(
        request,
        prompts=[prompt.ids for prompt in healed],
        chain=Chain(healing, *request.chain.processors),
        repeated=[prompt.characters for prompt in healed],
        whole_prompts=request.prompts,
    )


class HealedPrompt(NamedTuple):
    """A prompt without its last tokens.

    Attributes:
        ids: the tokens that are left.
        removed: the bytes of the others; empty if none was removed.
        characters: the number of characters of the removed text.
    """

    ids: list[int]
    removed: bytes
    characters: int


class Vocabulary:
    """The texts of a model's tokens, sorted.

    Args:
        tokenizer: of the model.
        size: V, the number of logits.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self.tokenizer = tokenizer
        self.pieces = [*token_bytes(tokenizer), *[b""] * size][:size]
        self._sorted = sorted((piece, index) for index, piece in enumerate(self.pieces) if piece)

    @cached_property
    def longest(self) -> int:
        """The number of bytes of the longest token."""
        return max(map(len, self.pieces), default=0)

    def beginning_with(self, text: bytes) -> list[int]:
        """Returns the tokens whose texts begin with these bytes, the text itself included."""
        first = bisect_left(self._sorted, (text, -1))
        found = takewhile(lambda entry: entry[0].startswith(text), self._sorted[first:])
        return [index for _, index in found]

    def extends(self, text: bytes) -> bool:
        """Whether a token's text begins with these bytes and is longer."""
        place = bisect_right(self._sorted, (text, len(self.pieces)))
        return place < len(self._sorted) and self._sorted[place][0].startswith(text)

    def equal_to(self, text: bytes) -> list[int]:
        """Returns the tokens with this text."""
        first = bisect_left(self._sorted, (text, -1))
        return [index for _, index in takewhile(lambda entry: entry[0] == text, self._sorted[first:])]

    def heal(self, prompt: Sequence[int]) -> HealedPrompt:
        """Removes as many of the last tokens as a longer token could replace.

        The first token stays, as do special tokens and those before them.
        """
        best, text = len(prompt), b""
        for start in range(len(prompt) - 1, 0, -1):
            # Some models embed more ids than they can predict.
            piece = self.pieces[prompt[start]] if prompt[start] < len(self.pieces) else b""
            text = piece + text
            if not piece or len(text) >= self.longest:
                break
            best = start if self.extends(text) else best
        kept, removed = list(prompt[:best]), b"".join(self.pieces[token] for token in prompt[best:])
        return HealedPrompt(kept, removed, self._characters(prompt) - self._characters(kept))

    def _characters(self, ids: Sequence[int]) -> int:
        """Returns the number of characters of the text, without half a character at its end."""
        named = [token for token in ids if self.tokenizer.id_to_token(token) is not None]
        return len(self.tokenizer.decode(named, skip_special_tokens=True).rstrip(_HALF))


class Healing(LogitsProcessor):
    """Bans the tokens that do not continue a spelling of the removed text, until a row's output contains it.

    Args:
        removed: the removed text of each prompt.
        vocabulary: of the model.
    """

    def __init__(self, removed: Sequence[bytes], vocabulary: Vocabulary) -> None:
        self._removed, self._pieces = removed, vocabulary.pieces
        self._longest = max(map(len, removed), default=0)
        self._allowed = {text: _allowed(text, vocabulary) for text in removed}

    def __repr__(self) -> str:
        return "Healing()"

    @property
    def batch_invariant(self) -> bool:
        """False: a row's removed text is known by its place."""
        return False

    def __call__(self, logits: Tensor, context: Context) -> Tensor:
        """(B, V) -> (B, V); B is a multiple of P, and the rows of a prompt are adjacent."""
        generated = context.generated.tolist()
        if min(generated) >= self._longest:  # every token of the spelling adds a byte
            return logits
        mask, copies = torch.zeros_like(logits), len(logits) // len(self._removed)
        output = zip(context.tokens.tolist(), context.prompt_length.tolist(), generated, strict=True)
        for row, (tokens, start, count) in enumerate(output):
            text = self._removed[row // copies]
            spelled = sum(len(self._pieces[token]) for token in tokens[start : start + min(count, len(text))])
            if spelled < len(text):
                mask[row] = -torch.inf
                mask[row, self._allowed[text][spelled]] = 0.0
        return logits + mask


def _allowed(text: bytes, vocabulary: Vocabulary) -> list[list[int]]:
    """Returns the tokens that may come after each number of bytes of the text.

    A token that spells a part of the rest is allowed if tokens can spell what is left.
    """
    allowed: list[list[int]] = [[] for _ in text]
    for place in range(len(text) - 1, -1, -1):
        rest = text[place:]
        allowed[place] = vocabulary.beginning_with(rest)
        for size in range(1, len(rest)):
            if allowed[place + size]:
                allowed[place] += vocabulary.equal_to(rest[:size])
    return allowed
