"""The session of a guided call: it owns a session for each companion, which gets the same tokens.

R rows, K tokens of a step, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from minitx.decoding.guidance.base import ResolvedGuidance
from minitx.decoding.processors.chain import Chain
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.models.decoder import CausalModel
from minitx.models.output import ModelOutput


class GuidedSession(DecodingSession):
    """A `DecodingSession` whose logits are guided.

    The companions start, step, reorder and crop as this session does, so that any strategy can drive it. The
    logits of every position are combined before the chain of processors and its states see them.

    Attributes:
        model_logits: (R, V) float32, the model's before guidance, after `start` and `step`.
        companions: the sessions of the other prompts or models.
    """

    model_logits: Tensor

    def __init__(self, model: CausalModel, request: GenerationRequest, *, lookahead: int = 0) -> None:
        super().__init__(model, request, lookahead=lookahead)
        resolved: ResolvedGuidance | None = request.guidance
        assert resolved is not None, "open_session makes sessions without guidance"
        self.guidance = resolved.guidance
        plain = replace(request, chain=Chain(), guidance=None)
        self.companions = [
            DecodingSession(
                other.model, replace(plain, prompts=other.prompts, sources=other.sources), lookahead=lookahead
            )
            for other in resolved.companions
        ]
        self._early: list[Tensor] = []  # per layer of the guidance (R, K, V)
        self._refilled = False
        if self.guidance.early_layers:
            self._model_options["output_hidden_states"] = True
            self.observers.append(self._read_layers)

    def start(self, rows_per_prompt: int = 1, *, cross_attention: bool = False) -> None:
        """See `DecodingSession.start`."""
        super().start(rows_per_prompt, cross_attention=cross_attention)
        for companion in self.companions:
            companion.start(rows_per_prompt)
        self._early = [logits.repeat_interleave(rows_per_prompt, dim=0) for logits in self._early]
        self._guide(1)
        self._chain_input = self.logits

    def crop(self, length: int | Tensor) -> None:
        """See `DecodingSession.crop`."""
        self._refilled = False
        super().crop(length)
        for companion in self.companions:
            companion.crop(length)
        if self._refilled:
            self._guide(1)
            self._chain_input = self.logits

    def raise_for_empty_rows(self, rows: Tensor, index: int | None = None, arguments: Any = None) -> None:
        """See `DecodingSession.raise_for_empty_rows`."""
        try:
            super().raise_for_empty_rows(rows, index, arguments)
        except ValueError as error:
            name = type(self.guidance).__name__
            error.add_note(f"{name} changed the model's logits before, and may have left few tokens.")
            raise

    def _follow(self, tokens: Tensor) -> None:
        for companion in self.companions:
            companion.step(tokens.to(companion.device), drafted=True)
        self._guide(tokens.shape[1])

    def _guide(self, count: int) -> None:
        """Replaces the last `count` logits of each row by the guided ones."""
        others = [companion.step_logits for companion in self.companions] + self._early
        self.model_logits = self.logits
        for place in range(-count, 0):
            context = replace(self.context, length=self.context.length + place + 1)
            ours = self._logits[place]
            theirs = [logits[:, place].to(ours.device) for logits in others]
            self._logits[place] = self.guidance.combine(ours, theirs, context)

    def _reorder(self, rows: Tensor, within_prompts: bool) -> None:
        super()._reorder(rows, within_prompts)
        for companion in self.companions:
            companion.reorder(rows.to(companion.device), within_prompts=within_prompts)

    def _refill(self) -> None:
        super()._refill()
        self._refilled = True

    def _rerun(self) -> None:
        super()._rerun()
        self._guide(1)
        self._chain_input = self.logits

    def _read_layers(self, output: ModelOutput) -> None:
        """Applies the head to the hidden states of the guidance's layers."""
        assert output.logits is not None, "a language model has logits"
        assert output.hidden_states is not None, "the options ask for them"
        model: Any = self.model
        keep = output.logits.shape[1]
        states = (output.hidden_states[layer][:, -keep:] for layer in self.guidance.early_layers)
        self._early = [model.head(model.decoder.projection(state), None, None).float() for state in states]


def open_session(model: CausalModel, request: GenerationRequest, *, lookahead: int = 0) -> DecodingSession:
    """Returns the session of a request, guided if it asks for that; it has not started.

    Args:
        model: the model.
        request: the checked arguments.
        lookahead: as for `DecodingSession`.
    """
    kind = DecodingSession if request.guidance is None else GuidedSession
    return kind(model, request, lookahead=lookahead)
