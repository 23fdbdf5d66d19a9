"""A smaller model that drafts (arXiv:2211.17192, arXiv:2302.01318). R rows, K drafted tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from minitx.decoding.parameters import set_frozen
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.processors.chain import Chain, unusable
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import check_tokenizer
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.base import Argmax, Sampler
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.session import DecodingSession
from minitx.decoding.speculative.draft import Draft, DraftCall, Drafter, Proposal
from minitx.decoding.speculative.retokenized import RetokenizedDrafter
from minitx.decoding.strategy import Strategy
from minitx.models import CausalModel
from minitx.models.decoder import check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentTypeError, ArgumentValueError


@dataclass(frozen=True, eq=False)
class DraftModel(Draft):
    """A model with the same vocabulary that draws the drafted tokens one by one.

    The closer its distribution is to that of the verifying model, the more tokens are accepted. It keeps a
    key/value cache of its own.

    Args:
        model: in eval mode; its logits are of the same token ids.
        strategy: `Greedy(...)` or `Sample(...)`, how the draft chooses; None for the processors of the
            verifying model, but for those with a state.
        tokenizer: of a decoder with other token ids than the verifying model: then text is drafted, greedily
            and row by row, and `generate` needs its `tokenizer=`.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a language model, another strategy, or one whose processors
            have a state.
    """

    model: CausalModel
    strategy: Strategy | None = None
    tokenizer: Tokenizer | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        set_frozen(self, model=check_causal_model(self.model))
        self.check_strategy(self.strategy)
        check_tokenizer(self.tokenizer)
        if self.tokenizer is not None and self.strategy is not None:
            raise ArgumentValueError(
                "strategy", self.strategy, "None with tokenizer=", "text is drafted greedily"
            )

    @staticmethod
    def check_strategy(strategy: Strategy | None) -> None:
        """Checks that a strategy can draft."""
        if strategy is None:
            return
        if type(strategy) not in (Greedy, Sample):
            raise ArgumentTypeError("strategy", strategy, "Greedy(...), Sample(...) or None")
        chain = strategy.build()
        if len(_stateless(chain)) < len(chain):
            expected = "one whose processors have no state"
            raise ArgumentValueError("strategy", strategy, expected, "a draft cannot roll states back")
        drawing = any(getattr(p, "draws", False) for p in (strategy.watermark, *chain.processors))
        if drawing or not chain.batch_invariant:
            expected = "one without values per row, and whose processors draw nothing"
            raise ArgumentValueError("strategy", strategy, expected, "rows leave the batch when they end")

    def __repr__(self) -> str:
        """The kind of the model and the strategy."""
        strategy = "" if self.strategy is None else f", {self.strategy!r}"
        return f"DraftModel({type(self.model).__name__}{strategy})"

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks kind, vocabulary and positions of the two models."""
        kind, size = self.model.task, self.model.head.config.num_labels  # type: ignore[union-attr]
        if kind != model.task:
            raise ArgumentValueError("draft", self, f"of task {model.task!r}, not {kind!r}")
        if self.tokenizer is not None:
            if request.tokenizer is None:
                hint = "a draft with another tokenizer continues the text"
                raise ArgumentValueError("tokenizer", None, "the model's tokenizer", hint)
            if request.sources is not None:
                raise ArgumentValueError("draft", self, "without tokenizer= for models with an encoder")
            if self.model.original_contexts:
                hint = "its RoPE depends on the length of the text"
                raise ArgumentValueError("draft", self, "without tokenizer=", hint)
            return
        if size != request.vocab_size:
            expected = f"with the {request.vocab_size} token ids of the model, not {size}"
            raise ArgumentValueError("draft", self, expected)
        if request.inputs_embeds is not None:
            expected = "None: a draft model has other embeddings"
            raise ArgumentValueError("inputs_embeds", request.inputs_embeds, expected)
        embedder, longest = self.model.decoder_embedder, max(map(len, request.prompts))
        if embedder.has_position_table and longest + request.max_new_tokens - 1 > embedder.max_tokens:
            expected = (
                f"with more positions than {embedder.max_tokens} for max_new_tokens={request.max_new_tokens}"
            )
            raise ArgumentValueError("draft", self, expected, f"the longest prompt has {longest} tokens")

    def start(self, call: DraftCall) -> Drafter:
        """Runs the draft model over the prompts."""
        request = call.session.request
        if self.tokenizer is not None and request.tokenizer is not None:
            rows = len(call.session.logits)
            return RetokenizedDrafter(self.model, self.tokenizer, request.tokenizer, rows, call.confidence)
        chain = _stateless(request.chain) if self.strategy is None else self.strategy.build()
        greedy = isinstance(self.strategy, Greedy) or not call.randomness.draws
        session = DecodingSession(
            self.model, replace(request, chain=Chain(), logprobs=None), lookahead=call.lookahead + 2
        )
        session.start(request.num_samples)
        return ModelDrafter(session, chain, call, greedy=greedy)


class ModelDrafter:
    """Draws tokens from a session of the draft model.

    The session lags behind the history by the tokens that it has not proposed itself, and one proposed token
    that it has not run.

    Args:
        session: of the draft model, started.
        chain: its processors, without states.
        call: the randomness and confidence.
        greedy: take the most probable token.
    """

    def __init__(self, session: DecodingSession, chain: Chain, call: DraftCall, *, greedy: bool) -> None:
        self.session, self.chain, self._greedy = session, chain, greedy
        self._randomness, self._confidence = call.randomness, call.confidence

    def propose(self, context: Context, most: Tensor, counter: Tensor) -> Proposal:
        """Draws up to `most` tokens per row, all rows at the same time."""
        size, rows = int(most.max()), len(most)
        if size == 0:
            return Proposal.empty(rows, context.length.device)
        self._catch_up(context)
        sampler: Sampler = Argmax() if self._greedy else self._randomness.sampler("draft")
        tokens: list[Tensor] = []
        logits: list[Tensor] = []
        counts, open_rows = torch.zeros_like(most), most > 0
        for number in range(size):
            scores = self.chain(self.session.logits, self.session.context)
            open_rows = open_rows & (number < most) & ~unusable(scores)
            tokens.append(sampler(scores, counter + number))
            logits.append(scores)
            counts = counts + open_rows
            if self._confidence:
                chosen = scores.softmax(dim=-1).gather(1, tokens[-1][:, None]).squeeze(1)
                open_rows = open_rows & (chosen >= self._confidence)
            if number + 1 == size or not bool(open_rows.any()):
                break
            self.session.step(tokens[-1], drafted=True)
        drawn = None if self._greedy else torch.stack(logits, dim=1)
        return Proposal(torch.stack(tokens, dim=1), counts, drawn)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows."""
        self.session.reorder(rows, within_prompts=False)
        self._randomness = self._randomness.select(rows)

    def _catch_up(self, context: Context) -> None:
        """Removes rejected tokens, and runs those of the history that the session lacks.

        All rows run the same number of tokens: some of them again.
        """
        own = self.session.context.length
        missing = int((context.length - torch.minimum(own, context.length - 1)).max())
        # The rows that are too short for that have finished.
        kept = torch.maximum(context.length - missing, context.prompt_length)
        if not torch.equal(kept, own):
            self.session.crop(kept - context.prompt_length)
        self.session.step(context.last(missing).clamp(min=0), drafted=True)


def _stateless(chain: Chain) -> Chain:
    """Returns the processors of a chain that have no state."""
    return Chain(*(each for each in chain.processors if not isinstance(each, StatefulProcessor)))
