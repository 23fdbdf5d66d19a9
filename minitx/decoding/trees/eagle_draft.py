"""Trees of an EAGLE head, grown where the head is confident (EAGLE-2, arXiv:2406.16858, section 4).

Level by level, the head continues the W best nodes by their W best tokens each; the score of a node is the
product of the probabilities along its path, which is about the probability that it is accepted. Of all nodes,
those with the best scores are verified; a parent never has a lower score than its child.

R rows, T pairs, W nodes of a level, P nodes in all, E and F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.trees.draft import TreeDraft, check_sizes
from minitx.decoding.trees.eagle import EagleHead
from minitx.decoding.trees.loop import Path
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree
from minitx.validation import ArgumentValueError, check_integer, check_type

_LARGEST = 256


@dataclass(frozen=True, eq=False)
class EagleDraft(TreeDraft):
    """Drafts the tree of the most probable continuations by an EAGLE head.

    Args:
        head: of the model that verifies.
        depth: levels of the tree, at most as many tokens as a row gets beside the certain one.
        width: W, nodes that a level continues, and tokens that continue each.
        tokens: nodes that the model verifies.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a head, or sizes out of range.
    """

    head: EagleHead
    depth: int = 6
    width: int = 8
    tokens: int = 60

    def __post_init__(self) -> None:
        check_type("head", self.head, EagleHead, "an EagleHead", "EagleHead.load(folder) reads one")
        sizes = {name: check_integer(name, getattr(self, name), 1, _LARGEST) for name in ("depth", "width")}
        set_frozen(self, **sizes, tokens=check_size("tokens", self.tokens, 1, "nodes to verify"))

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks that the head has the model's sizes, and the model hidden states of the layers it takes."""
        head = self.head
        if request.sources is not None:
            raise ArgumentValueError("draft", self, "for a model without an encoder")
        check_sizes(head, model, request, head.target_size, head.vocab_size)
        if head.version == 3 and len(model.decoder.layer_order) < 6:
            raise ArgumentValueError("draft", self, "of version 1 for a model of fewer than 6 layers")
        words = model.decoder_embedder.config.embedding_size
        if head.embed_tokens is None and words != head.hidden_size:
            raise ArgumentValueError(
                "draft", self, f"for embeddings of width {words}, not {head.hidden_size}"
            )
        known = head.vocab_size if head.version == 1 else len(head.d2t)
        if self.width > known:
            raise ArgumentValueError("width", self.width, f"at most {known}, the tokens that the head knows")

    def drafter(self, request: GenerationRequest) -> EagleDrafter:
        """Returns the drafter of one generation."""
        return EagleDrafter(self)


class Level(NamedTuple):
    """The nodes of one level that are continued.

    Attributes:
        tokens: (R, W) ids.
        scores: (R, W), log-probabilities of their paths.
        hidden: (R, W, E), predicted hidden states before them.
        numbers: (R, W), their numbers among all nodes; the root is 0.
        mask: (R, W, n), which of the n nodes that the head has run are their ancestors.
    """

    tokens: Tensor
    scores: Tensor
    hidden: Tensor
    numbers: Tensor
    mask: Tensor


class EagleDrafter:
    """Runs the head in one generation; its cache holds the pairs of all tokens but those of trees."""

    keep_outputs = True
    laws: Tensor | None = None

    def __init__(self, draft: EagleDraft) -> None:
        self._head, self._depth, self._width = draft.head, draft.depth, draft.width
        every = draft.width + (draft.depth - 1) * draft.width**2
        self.nodes = 1 + min(draft.tokens, every)
        self.hidden_states = draft.head.version == 3  # the inputs of its layers
        self._cache = draft.head.decoder.make_cache()
        self._features: Tensor | None = None  # (R, T, F), right-aligned, of pairs that the head has not run
        self._counts = torch.zeros(0)  # (R,), how many of them are of each row

    def propose(self, session: TreeSession) -> TokenTree:
        """Returns the tree of the paths with the best scores."""
        rows = len(session.logits)
        if self._features is None:
            features = torch.cat([self._head.features(output) for output in session.outputs], dim=1)
            self._features = features.repeat_interleave(rows // len(features), dim=0)
            self._counts = session.context.prompt_length
        session.outputs.clear()
        hidden = self._run_pairs(session, self._features, self._counts)
        length, model = self._cache.length, session.model
        real = (
            session.context.length.new_ones(rows, length).bool()
            if self._cache.mask is None
            else self._cache.mask
        )
        scores, tokens = self._best(hidden[:, None], model)
        every = [(tokens[:, 0], scores[:, 0], torch.zeros_like(tokens[:, 0]))]
        numbers = torch.arange(1, self._width + 1, device=hidden.device).expand(rows, -1)
        repeated = hidden[:, None].expand(-1, self._width, -1)
        level = Level(tokens[:, 0], scores[:, 0], repeated, numbers, real.new_zeros(rows, self._width, 0))
        for depth in range(self._depth - 1):
            level, nodes = self._continue(
                session, level, real, depth, 1 + sum(part[0].shape[1] for part in every)
            )
            every.append(nodes)
        self._cache.crop(length)
        if self._cache.mask is not None:
            self._cache.keep(real)
        tokens, scores, parents = (torch.cat(parts, dim=1) for parts in zip(*every, strict=True))
        return best_tree(session.context.last(1), tokens, scores, parents, self.nodes - 1)

    def observe(self, session: TreeSession, path: Path) -> None:
        """Keeps the hidden states of each row's path, right-aligned."""
        features = self._head.features(session.outputs[-1])
        most = path.nodes.shape[1]
        places = torch.arange(most, device=features.device) - (most - path.lengths)[:, None]
        nodes = path.nodes.gather(1, places.clamp(min=0))
        self._features = features.gather(1, nodes[:, :, None].expand(-1, -1, features.shape[2]))
        self._counts = path.lengths

    def _run_pairs(self, session: TreeSession, features: Tensor, counts: Tensor) -> Tensor:
        """Runs new pairs of the model's hidden states and tokens; returns the last prediction, (R, E)."""
        time, past = features.shape[1], self._cache.length
        steps = torch.arange(time, device=features.device)
        real = steps >= (time - counts)[:, None]
        if past:
            earlier = self._cache.mask
            earlier = real.new_ones(len(real), past) if earlier is None else earlier
            real = torch.cat((earlier, real), dim=1)
        positions = (session.context.length[:, None] - 1 - time + steps).clamp(min=0)
        words = self._head.words(session.context.last(time).clamp(min=0), session.model)
        mask = None if bool(real.all()) else real
        predicted: Tensor = self._head(features, words, mask, positions, self._cache)
        return predicted[:, -1]

    def _continue(
        self, session: TreeSession, level: Level, real: Tensor, depth: int, first: int
    ) -> tuple[Level, tuple[Tensor, Tensor, Tensor]]:
        """Runs the nodes of a level; returns the next level, and tokens, scores and parents of all its nodes.

        Args:
            session: of the model.
            level: the nodes.
            real: (R, S) bool, the cached pairs of each row.
            depth: of the level, from 0.
            first: number of the first new node.
        """
        width, (rows, _) = self._width, real.shape
        itself = torch.eye(width, dtype=torch.bool, device=real.device).expand(rows, -1, -1)
        tree = torch.cat((level.mask, itself), dim=2)
        mask = torch.cat((real[:, None].expand(-1, width, -1), tree), dim=2)
        positions = (session.context.length - 1 + depth)[:, None].expand(-1, width)
        words = self._head.words(level.tokens, session.model)
        hidden = self._head(level.hidden, words, mask, positions, self._cache)
        scores, tokens = self._best(hidden, session.model)  # (R, W, W)
        scores = (level.scores[:, :, None] + scores).flatten(1)
        parents = level.numbers.repeat_interleave(width, dim=1)
        best, index = scores.topk(width, dim=1)
        above = index // width  # (R, W)

        def _of_parents(values: Tensor) -> Tensor:
            return values.gather(1, above[:, :, None].expand(-1, -1, values.shape[2]))

        chosen = tokens.flatten(1).gather(1, index)
        following = Level(chosen, best, _of_parents(hidden), first + index, _of_parents(tree))
        return following, (tokens.flatten(1), scores, parents)

    def _best(self, hidden: Tensor, model: Any) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities and ids of the best tokens: (R, T, E) -> twice (R, T, W)."""
        scores, ids = self._head.logits(hidden, model).log_softmax(dim=-1).topk(self._width, dim=-1)
        return scores, self._head.token_ids(ids)


def best_tree(root: Tensor, tokens: Tensor, scores: Tensor, parents: Tensor, count: int) -> TokenTree:
    """Returns the tree of the nodes with the best scores.

    Args:
        root: (R, 1) ids.
        tokens: (R, P) ids of nodes 1 to P.
        scores: (R, P), none above that of the parent.
        parents: (R, P), numbers of their parents, 0 for the root; all before their children.
        count: how many nodes the tree has beside the root.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]  # of equal ones the parent first
    chosen = order.sort(dim=1).values
    place = torch.arange(1, count + 1, device=root.device).expand(len(root), -1)
    places = torch.zeros(len(root), tokens.shape[1] + 1, dtype=torch.long, device=root.device)
    places.scatter_(1, chosen + 1, place)
    above = places.gather(1, parents.gather(1, chosen))
    first = torch.full_like(root, -1)
    return TokenTree(torch.cat((root, tokens.gather(1, chosen)), dim=1), torch.cat((first, above), dim=1))
