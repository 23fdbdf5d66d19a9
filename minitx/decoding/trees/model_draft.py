"""Trees of a smaller model, whose children are drawn without replacement (SpecInfer, arXiv:2305.09781).

R rows, N nodes, n nodes of a level, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.parameters import check_size, set_frozen, to_plain
from minitx.decoding.processors.base import StatefulProcessor
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.context import Context
from minitx.decoding.request import GenerationRequest
from minitx.decoding.samplers.counter_rng import CounterGumbel
from minitx.decoding.speculative.randomness import Randomness
from minitx.decoding.trees.draft import TreeDraft
from minitx.decoding.trees.loop import Path
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.token_tree import TokenTree
from minitx.models import CausalModel
from minitx.models.decoder import check_causal_model
from minitx.validation import ArgumentTypeError, ArgumentValueError

_MOST_NODES = 1024


@dataclass(frozen=True, eq=False)
class TreeModel(TreeDraft):
    """Drafts a tree by a smaller model with the same vocabulary.

    Args:
        model: in eval mode; its logits are of the same token ids.
        branching: children of the root, of each of these, and so on. With a target that draws, children are
            drawn without replacement from the model's distribution after the target's processors, but for
            those with a state; with a greedy one they are the most probable tokens.

    Raises:
        ArgumentTypeError, ArgumentValueError: not a language model, or numbers that make no tree.
    """

    model: CausalModel
    branching: Sequence[int] = (3, 2, 1)

    def __post_init__(self) -> None:
        set_frozen(self, model=check_causal_model(self.model))
        plain = to_plain(self.branching)
        if not isinstance(plain, list | tuple):
            raise ArgumentTypeError("branching", self.branching, "a list of numbers of children")
        sizes = tuple(check_size(f"branching[{i}]", size, 1) for i, size in enumerate(plain))
        set_frozen(self, branching=sizes)
        if not sizes or len(self.parents) > _MOST_NODES:
            expected = f"numbers of children that make a tree of 2 to {_MOST_NODES} nodes"
            raise ArgumentValueError("branching", self.branching, expected)

    @property
    def parents(self) -> list[int]:
        """The number of each node's parent, level by level; -1 for the root."""
        parents, level = [-1], [0]
        for size in self.branching:
            if len(parents) > _MOST_NODES:
                break
            new = [parent for parent in level for _ in range(size)]
            level = list(range(len(parents), len(parents) + len(new)))
            parents += new
        return parents

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks kind, vocabulary and positions of the two models."""
        draft: Any = self.model
        size, embedder = draft.head.config.num_labels, draft.decoder_embedder
        if draft.task != model.task:
            raise ArgumentValueError("draft", draft, f"of task {model.task!r}, not {draft.task!r}")
        if size != request.vocab_size:
            expected = f"with the {request.vocab_size} token ids of the model, not {size}"
            raise ArgumentValueError("draft", draft, expected)
        if request.inputs_embeds is not None:
            expected = "None: a draft model has other embeddings"
            raise ArgumentValueError("inputs_embeds", request.inputs_embeds, expected)
        longest = max(map(len, request.prompts)) + request.max_new_tokens - 1
        if embedder.has_position_table and longest > embedder.max_tokens:
            raise ArgumentValueError("draft", draft, f"with {longest} positions, not {embedder.max_tokens}")

    def drafter(self, request: GenerationRequest) -> ModelDrafter:
        """Returns the drafter of one generation."""
        return ModelDrafter(self, request)


class ModelDrafter:
    """Runs the draft model level by level; its cache holds the same tokens as the verifying model's.

    Attributes:
        laws: (R, N, V), logits after the processors that the children of each node were drawn from; None
            where they were not drawn.
    """

    keep_outputs = hidden_states = False

    def __init__(self, draft: TreeModel, request: GenerationRequest) -> None:
        self._branching, self._parents = tuple(draft.branching), draft.parents
        self.nodes = len(self._parents)
        self._randomness = Randomness.of(request.sampler)
        self._chain = Chain(*(p for p in request.chain.processors if not isinstance(p, StatefulProcessor)))
        plain = replace(request, chain=Chain(), logprobs=None)
        self._session = TreeSession(draft.model, plain, nodes=self.nodes)
        self._started = False
        self.laws: Tensor | None = None

    def _processed(self, logits: Tensor, context: Context) -> Tensor:
        """Applies the chain to the logits of each node, (R, N, V) -> (R N, V), in calls of R rows.

        `context` has the history of each node, (R N) rows: processors know rows by their places.
        """
        rows, size = logits.shape[:2]
        places = torch.arange(rows * size, device=logits.device).view(rows, size)
        parts = [self._chain(logits[:, n], context.select(places[:, n])) for n in range(size)]
        return torch.stack(parts, dim=1).flatten(0, 1)

    def propose(self, session: TreeSession) -> TokenTree:
        """Draws the children of each level, and runs them."""
        if not self._started:
            self._session.start(session.request.num_samples)
            self._session.history, self._started = session.history, True
        context, rows = session.context, len(session.logits)
        parents = torch.tensor(self._parents, device=session.device).repeat(rows, 1)
        tokens = torch.zeros_like(parents)
        tokens[:, 0] = context.last(1).squeeze(1)
        counter = context.generated * self.nodes
        first, size, laws = 0, 1, []
        for branch in self._branching:
            end = first + size
            self._session.run(TokenTree(tokens[:, :end], parents[:, :end]), first)
            processed = self._processed(self._session.node_logits[:, first:], context)
            numbers = torch.arange(first, end, device=counter.device)
            children, there = self._children(processed, counter[:, None] + numbers, branch)
            new = slice(end, end + size * branch)
            tokens[:, new] = children.view(rows, -1)
            parents[:, new] = parents[:, new].masked_fill(~there.view(rows, -1), -1)
            laws.append(processed.view(rows, size, -1))
            index = torch.arange(len(processed), device=counter.device).repeat_interleave(branch)
            context = extended(context.select(index), children.flatten())
            first, size = end, size * branch
        tree = TokenTree(tokens, parents)
        self._session.run(tree, first)
        if self._randomness.draws:
            laws.append(torch.zeros_like(self._session.node_logits[:, first:]))
            self.laws = torch.cat(laws, dim=1)
        return tree

    def observe(self, session: TreeSession, path: Path) -> None:
        """Keeps the accepted path in the draft model's cache too."""
        self._session.keep(path.nodes, path.lengths)

    def _children(self, processed: Tensor, counter: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Returns the children of nodes, and whether there are so many.

        Args:
            processed: (R * n, V).
            counter: (R, n), of the random numbers of each node.
            count: children per node.

        Returns:
            Twice (R * n, count).
        """
        noisy = processed
        if self._randomness.draws:
            index = torch.arange(counter.shape[0], device=counter.device).repeat_interleave(counter.shape[1])
            noisy = processed + gumbel(self._randomness.select(index), processed, counter.flatten())
        most = min(count, processed.shape[1])
        values, children = noisy.topk(most, dim=1)
        values, children = (
            F.pad(values, (0, count - most), value=-torch.inf),
            F.pad(children, (0, count - most)),
        )
        return children, values > -torch.inf


def gumbel(randomness: Randomness, logits: Tensor, counter: Tensor) -> Tensor:
    """Returns noise (B, V) for logits: the k largest sums are k draws without replacement, in order."""
    sampler = randomness.sampler("draft")
    if isinstance(sampler, CounterGumbel):
        return sampler.noise(logits.shape[1], counter)
    return -torch.empty_like(logits).exponential_(1, generator=randomness.generator).log()


def extended(context: Context, token: Tensor) -> Context:
    """Returns the context after one more token, (B,)."""
    tokens = context.tokens
    if int(context.length.max()) == tokens.shape[1]:
        tokens = F.pad(tokens, (0, 1))
    tokens = tokens.scatter(1, context.length[:, None], token[:, None])
    return replace(context, tokens=tokens, length=context.length + 1)
