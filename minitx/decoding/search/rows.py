"""What a search works on: the model's rows, the finished hypotheses, the texts of the beams.

P prompts, N beams, K candidates, M places in the pool, V vocabulary, R = P * N rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minitx.decoding.detokenize import Detokenizer
from minitx.decoding.loop import Call, TokenHistory
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.processors.chain import select_state
from minitx.decoding.session import Stepper
from minitx.decoding.stopping import RowText


class Rows:
    """The rows that the model works on: N beams for each prompt, one after the other.

    Attributes:
        history: of the rows.
    """

    def __init__(self, call: Call, beams: int, *, watch: bool = False) -> None:
        """
        Args:
            call: of the search.
            beams: N.
            watch: asks for `looks`.
        """
        self._call = call
        device = call.model.device
        self._stepper = Stepper(call, beams, watch=watch)
        self.history = TokenHistory([prompt for prompt in call.prompts for _ in range(beams)], call, device)
        self._states = call.chain.init(self.history.context)
        self._stateful = any(isinstance(each, StatefulProcessor) for each in call.chain.processors)

    def processed(self, given: Tensor) -> Tensor:
        """What the chain makes of the logits or log-probabilities of the next token: (R, V) -> (R, V)."""
        self._given = given
        return self._call.chain(given, self.history.context, self._states)

    def advance(self, rows: Tensor, token: Tensor, *, within_prompts: bool = True) -> None:
        """Goes on with these rows, each with its next token.

        Args:
            rows: (R',) long, rows of now.
            token: (R',) long.
            within_prompts: each prompt keeps its N places.
        """
        unmoved = len(rows) == len(self.logits) and rows.device.type == "cpu"
        if not (unmoved and bool((rows == torch.arange(len(rows))).all())):
            cache = self._stepper.cache
            (cache.reorder if within_prompts else cache.select)(rows)
            self.history.select(rows)
            self._states = select_state(self._states, rows)
        if self._stateful:
            context, given = self.history.context, self._given[rows]
            self._states = self._call.chain.update(self._states, context, token, given)
        self.history.append(token)
        self._stepper.step(token, self.history)

    @property
    def logits(self) -> Tensor:
        """(R, V) float32, the model's, for the next token."""
        return self._stepper.logits

    @property
    def log_probabilities(self) -> Tensor:
        """(R, V) float32, the model's."""
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def looks(self) -> Tensor | None:
        """(R, S) float32, how much the next token looks at each token that was read, if asked for."""
        return self._stepper.looks

    def raise_for_empty_rows(self, rows: Tensor) -> None:
        """Says why rows have no token to go on with, if any has none. rows: (R,) bool, those that matter.

        Raises:
            ValueError: as `Chain.raise_for_empty_rows`.
        """
        self._call.chain.raise_for_empty_rows(self._given, self.history.context, self._states, rows)


class BeamHypotheses:
    """The finished hypotheses of each prompt, the best M.

    Attributes:
        scores: (P, M), the best first; -inf for none.
        codes: (P, M) long, which candidate each ended with; -1 for none.
    """

    def __init__(self, prompts: int, places: int, like: Tensor) -> None:
        """An empty one, of P and M; its scores are numbers like those of another tensor."""
        self.scores = like.new_full((prompts, places), -torch.inf)
        self.codes = like.new_full((prompts, places), -1, dtype=torch.long)

    def add(self, scores: Tensor, codes: Tensor) -> None:
        """Offers candidates: their scores (P, K), -inf for those that are none, and codes (K,)."""
        codes = torch.where(scores > -torch.inf, codes, -1)
        self.scores, places = torch.cat((self.scores, scores), dim=1).topk(self.scores.shape[1])
        self.codes = torch.cat((self.codes, codes), dim=1).gather(1, places)

    def select(self, prompts: Tensor) -> None:
        """Keeps these prompts. prompts: (P',) long."""
        self.scores, self.codes = self.scores[prompts], self.codes[prompts]

    def of(self, prompt: int) -> list[tuple[float, int]]:
        """Scores and codes of one prompt's hypotheses, the best first."""
        pairs = zip(self.scores[prompt].tolist(), self.codes[prompt].tolist(), strict=True)
        return [(score, code) for score, code in pairs if code >= 0]


class BeamTexts:
    """The texts of all beams, in which stop strings are looked for."""

    def __init__(self, call: Call, beams: int) -> None:
        assert call.tokenizer is not None  # checked, as there are strings
        self._least = call.min_new_tokens
        self._length = 0
        self._beams = [
            [RowText(Detokenizer(call.tokenizer, prompt), call.stop.strings)] * beams
            for prompt in call.prompts
        ]
        self._candidates: list[list[RowText]] = []

    def read(self, parents: Tensor, tokens: Tensor, ends: Tensor) -> Tensor:
        """Takes the candidates' tokens: (P, K) beams, tokens, and which end anyway -> (P, K) which end."""
        self._length += 1
        self._candidates, found = [], ends.tolist()
        for place, each in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True)):
            may_stop = self._length >= self._least[place]
            texts = [self._beams[place][parent].copy() for parent in each[0]]
            self._candidates.append(texts)
            for number, (text, token) in enumerate(zip(texts, each[1], strict=True)):
                if not found[place][number]:
                    found[place][number] = text.push(token, may_stop=may_stop)[1]
        return torch.tensor(found, device=ends.device)

    def select(self, places: Sequence[int], kept: Tensor) -> None:
        """Goes on with the prompts at these places, each with its (P', N) candidates."""
        chosen = zip(places, kept.tolist(), strict=True)
        self._beams = [[self._candidates[place][number] for number in numbers] for place, numbers in chosen]
        self._least = [self._least[place] for place in places]
