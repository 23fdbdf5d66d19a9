"""Drafts that propose trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from minitx.decoding.output import Event
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.decoding.speculative.draft import Draft
from minitx.decoding.speculative.randomness import Randomness
from minitx.decoding.trees.loop import Drafter, walk_trees
from minitx.decoding.trees.rules import Compare, Offer, Plausible, Rule
from minitx.decoding.trees.session import TreeSession
from minitx.validation import ArgumentValueError, check_choice


class TreeDraft(Draft):
    """Base class of drafts whose candidates form a tree, for `Speculative(draft=...)`.

    Verified by "rejection", "match" or "typical"; the draft itself has the sizes of the tree.
    """

    def drafter(self, request: GenerationRequest) -> Drafter:
        """Returns the drafter of one generation."""
        raise NotImplementedError

    def generate(self, session: DecodingSession, strategy: Any) -> Iterator[list[Event]]:
        """Generates by walks along trees.

        Raises:
            ArgumentValueError: a way to verify that trees do not have, or a number of tokens, which the draft
                decides.
        """
        check_choice("verify", strategy.verify, ("rejection", "match", "typical"), "the draft makes trees")
        if strategy.tokens != (default := type(strategy).tokens):
            hint = f"{type(self).__name__} has the sizes of its trees"
            raise ArgumentValueError("tokens", strategy.tokens, f"left out, at {default}", hint)
        request, drafter = session.request, self.drafter(session.request)
        randomness = Randomness.of(request.sampler)
        rule: Rule = Compare(request.sampler)
        if strategy.verify == "typical":
            rule = Plausible(request.sampler, strategy.threshold)
        elif strategy.verify == "rejection" and randomness.draws:
            rule = Offer(randomness, drafter)
        trees = TreeSession(
            session.model,
            request,
            nodes=drafter.nodes,
            keep_outputs=drafter.keep_outputs,
            hidden_states=drafter.hidden_states,
        )
        return walk_trees(trees, drafter, rule)


def check_sizes(
    heads: nn.Module, model: Any, request: GenerationRequest, hidden_size: int, vocab_size: int
) -> None:
    """Checks that draft heads were made for a model with these sizes, and are on its device.

    Raises:
        ArgumentValueError: they were not, or are not.
    """
    device = next(heads.parameters()).device
    if device != model.device:
        raise ArgumentValueError("draft", heads, f"on the model's device, {model.device}, not {device}")
    stack = model.decoder.config
    width = stack.output_size or stack.hidden_size
    for name, own, other in (
        ("hidden_size", hidden_size, width),
        ("vocab_size", vocab_size, request.vocab_size),
    ):
        if own != other:
            raise ArgumentValueError("draft", heads, f"made for {name}={other}, as of the model, not {own}")
