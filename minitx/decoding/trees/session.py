"""A session that runs a tree of tokens after each row in one forward, and keeps one path of it.

The last token of each row is the root: it is certain, but the model has not run it yet. A forward runs root
and candidates together, with a mask by which each attends to its ancestors alone, at the position of its
depth. The cache then keeps the keys and values of the accepted path.

R rows, N nodes, D nodes of the longest path, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.processors.chain import concatenate_states, select_state
from minitx.decoding.prompts import positions_of
from minitx.decoding.request import GenerationRequest
from minitx.decoding.session import DecodingSession
from minitx.decoding.trees.token_tree import TokenTree
from minitx.layers.cache import DynamicCache, LayerCache, SlidingWindowCache
from minitx.models import CausalModel
from minitx.models.output import ModelOutput
from minitx.validation import ArgumentValueError


class TreeSession(DecodingSession):
    """A session whose rows grow along trees; each row by its own number of tokens.

    `logits`, `context` and `states` are those of the node at which each row stands. The history holds one
    token per row, the root of the next tree, that the cache does not hold.

    Attributes:
        node_logits: (R, N, V) float32, after each node of the last tree.
        outputs: of the forwards since they were last taken, for drafts that continue hidden states.
    """

    def __init__(
        self,
        model: CausalModel,
        request: GenerationRequest,
        *,
        nodes: int,
        keep_outputs: bool = False,
        hidden_states: bool = False,
    ) -> None:
        """
        Args:
            model, request: as for every session.
            nodes: most nodes of a tree; the cache gets room for them.
            keep_outputs: fill `outputs`.
            hidden_states: with those of all layers.

        Raises:
            ArgumentValueError: a guidance, or a model whose positions depend on the length of the sequence,
                which nodes of different depths do not share.
        """
        if request.guidance is not None:
            hint = "a guided model is run token by token"
            raise ArgumentValueError("guidance", request.guidance.guidance, "None with trees", hint)
        for kind, limit in model.original_contexts.items():
            if max(map(len, request.prompts)) + request.max_new_tokens + nodes > limit:
                hint = f"beyond {limit} tokens, RoPE of type {kind!r} rotates by the length of the sequence"
                raise ArgumentValueError("max_new_tokens", request.max_new_tokens, "less with trees", hint)
        super().__init__(model, request, lookahead=nodes)
        self._model_options |= {"output_hidden_states": True} if hidden_states else {}
        self.outputs: list[ModelOutput] = []
        if keep_outputs:
            self.observers.append(self.outputs.append)
        self.node_logits: Tensor = torch.empty(0)

    def start(self, rows_per_prompt: int = 1, *, cross_attention: bool = False) -> None:
        """Runs the model over the prompts; see `DecodingSession.start`."""
        super().start(rows_per_prompt, cross_attention=cross_attention)
        self.cache.layers = [whole(layer, self.cache.length) for layer in self.cache.layers]

    def run(self, tree: TokenTree, first: int = 0) -> None:
        """Runs a tree whose root is the last token of each row; fills `node_logits`.

        Args:
            tree: the tree.
            first: the first node to run; earlier ones were run by the last calls.
        """
        context, embedder = self.context, self.model.decoder_embedder
        tokens, places = tree.tokens[:, first:], context.length[:, None] - 1 + tree.depth[:, first:]
        # A node beyond the table of positions is never accepted, since no row may have that many tokens.
        places = places.clamp(max=embedder.max_tokens - 1) if embedder.has_position_table else places
        past = self.past(self.cache.length - first)[:, None].expand(-1, tokens.shape[1], -1)
        mask = torch.cat((past, tree.mask[:, first:]), dim=-1)
        positions = positions_of(self.model, tokens, places)
        output = self.model.decode(tokens, mask, positions, cache=self.cache, **self._model_options)
        for observer in self.observers:
            observer(output)
        assert output.logits is not None, "a language model has logits"
        logits = output.logits.float()
        self.node_logits = torch.cat((self.node_logits, logits), dim=1) if first else logits
        self.stand_at(torch.zeros_like(context.length))

    def stand_at(self, node: Tensor) -> None:
        """Makes the session continue each row after a node of the last tree, (R,)."""
        rows = torch.arange(len(node), device=node.device)
        self._logits = [self.node_logits[rows, node]]
        self._chain_input = self.logits

    def append(self, token: Tensor, rows: Tensor) -> None:
        """Appends a token (R,) to these rows, (R,) bool, without running it."""
        context = self.context
        self.history.append(token)
        if not bool(rows.all()):
            self.history.crop((~rows).long())
        if self._stateful:
            scores = self.logits if self._chain_input is None else self._chain_input
            after = self.request.chain.update(self.states, context, token, scores)
            size = len(token)
            index = torch.arange(size, device=token.device) + size * rows.long()
            self._states = [select_state(concatenate_states([self.states, after]), index)]

    def keep(self, path: Tensor, count: Tensor) -> None:
        """Drops all nodes of the last tree from the cache but the path of each row.

        Args:
            path: (R, D), numbers of nodes.
            count: (R,), how many of them belong to each row's path.
        """
        nodes = self.node_logits.shape[1]
        on_path = torch.arange(path.shape[1], device=path.device) < count[:, None]
        chosen = path.new_zeros(len(path), nodes + 1).scatter(1, path.masked_fill(~on_path, nodes), 1)[:, :-1]
        self.cache.keep(torch.cat((self.past(self.cache.length - nodes), chosen.bool()), dim=1))

    def past(self, length: int) -> Tensor:
        """Returns which of the first places of the cache hold a token of each row, (R, length) bool."""
        if self.cache.mask is None:
            return torch.ones(len(self.context.length), length, dtype=torch.bool, device=self.device)
        return self.cache.mask[:, :length]


def whole(layer: LayerCache, length: int) -> LayerCache:
    """Returns a layer's cache with a place for each of its tokens, in place of a ring buffer.

    Tokens that the ring has lost are 0; no query attends to them, since they lie before its window.
    """
    if not isinstance(layer, SlidingWindowCache) or layer.key is None or layer.value is None:
        return layer
    lost = max(0, length - layer.size)
    slots = layer.slots(lost, length, layer.key.device)
    cache = DynamicCache()
    cache.key, cache.value = (F.pad(x[:, :, slots], (0, 0, lost, 0)) for x in (layer.key, layer.value))
    return cache
