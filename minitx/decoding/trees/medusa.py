"""Medusa heads (arXiv:2401.10774): each predicts one further token from the same hidden state.

Head i (from 0) is applied to the hidden state after a token and predicts the token i + 2 places later; the
next token is the model's own. It is a stack of residual blocks, x + SiLU(W x + b), and a projection to the
vocabulary (section 2.1.1). The heads do not see each other's tokens, so all combinations of their best tokens
are candidates: a tree.

R rows, H heads, E features, N nodes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minitx.decoding.parameters import check_size, set_frozen
from minitx.decoding.request import GenerationRequest
from minitx.decoding.trees.draft import TreeDraft, check_sizes
from minitx.decoding.trees.folder import HeadFolder, dtype_of
from minitx.decoding.trees.loop import Path
from minitx.decoding.trees.session import TreeSession
from minitx.decoding.trees.shape import TreeShape
from minitx.decoding.trees.token_tree import TokenTree
from minitx.validation import ArgumentValueError, check_type

_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "model.safetensors", "pytorch_model.bin")
_HEADS, _LAYERS = "medusa_num_heads", "medusa_num_layers"
_KEYS = {
    _HEADS,
    _LAYERS,
    "base_model_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "version",
}


class ResidualBlock(nn.Module):
    """x + SiLU(W x + b)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., E)"""
        return x + F.silu(self.linear(x))


class MedusaHeads(nn.ModuleList):
    """The heads; the names of their tensors are those of published files, `0.0.linear.weight` and so on.

    Fresh heads predict what the model's own head does once it is copied into their projections: the blocks
    begin as the identity.

    Args:
        hidden_size: E, features of the model's last hidden state.
        vocab_size: V.
        num_heads: H.
        num_layers: residual blocks of each head.
    """

    def __init__(self, hidden_size: int, vocab_size: int, num_heads: int = 4, num_layers: int = 1) -> None:
        sizes = {"hidden_size": hidden_size, "vocab_size": vocab_size, "num_heads": num_heads}
        for name, size in sizes.items():
            check_size(name, size, 1)
        check_size("num_layers", num_layers)
        super().__init__(
            nn.Sequential(
                *(ResidualBlock(hidden_size) for _ in range(num_layers)),
                nn.Linear(hidden_size, vocab_size, bias=False),
            )
            for _ in range(num_heads)
        )
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.linear.weight)
                nn.init.zeros_(module.linear.bias)
        self.hidden_size, self.vocab_size, self.num_layers = hidden_size, vocab_size, num_layers
        self.used = num_heads
        self.folder: HeadFolder | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the logits of the heads that are used: (R, E) -> (R, H, V)."""
        return torch.stack([head(hidden) for head in [*self][: self.used]], dim=1)

    @classmethod
    def load(cls, folder: Any, *, dtype: torch.dtype | None = None) -> Self:
        """Loads heads from a folder as published: config.json and medusa_lm_head.safetensors or .pt.

        A file may hold more heads than `medusa_num_heads`; they are kept and not used.

        Args:
            folder: path of the folder.
            dtype: of the parameters; None: as stored.

        Raises:
            FileNotFoundError: no config or no weights.
            ValueError: keys of the config that minitx does not know, or tensors that do not fit it.
        """
        stored = HeadFolder.read(folder, _FILES)
        stored.check_keys(_KEYS)
        heads = check_size(_HEADS, stored.config.get(_HEADS), 1, f"of {stored.place}/config.json")
        layers = check_size(_LAYERS, stored.config.get(_LAYERS, 1), hint=f"of {stored.place}/config.json")
        numbers = {name.partition(".")[0] for name in stored.tensors}
        first = f"0.{layers}.weight"
        stored.check_names({first, *stored.tensors})
        if stored.tensors[first].dim() != 2:
            raise ValueError(f"{stored.place}: {first} is not a matrix.")
        vocab_size, hidden_size = stored.tensors[first].shape
        loaded = cls(hidden_size, vocab_size, max(heads, len(numbers)), layers)
        stored.check_shapes(loaded.state_dict())
        loaded.to(dtype_of(stored.tensors, dtype)).load_state_dict(stored.tensors)
        loaded.used, loaded.folder = heads, stored
        return loaded.eval()

    def save(self, folder: Any) -> None:
        """Saves the heads to a folder: config.json as it was read, and medusa_lm_head.safetensors.

        Raises:
            ArgumentValueError: parameters of another shape than those that were read.
        """
        stored = self.folder
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        if stored is None:
            stored = HeadFolder.fresh({_HEADS: self.used, _LAYERS: self.num_layers}, tensors, _FILES[0])
        stored.write(folder, tensors)


@dataclass(frozen=True, eq=False)
class MedusaDraft(TreeDraft):
    """Drafts a tree from the best tokens of each head.

    Args:
        heads: of the model that verifies.
        tree: paths of ranks, such as [(0,), (1,), (0, 0)]: the two best tokens of the first head, and the
            best of the second one after the best of the first. None: all whose ranks add up to at most 2.

    Raises:
        ArgumentTypeError, ArgumentValueError: not heads, or paths that are no tree.
    """

    heads: MedusaHeads
    tree: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        check_type("heads", self.heads, MedusaHeads, "MedusaHeads", "MedusaHeads.load(folder) reads them")
        depth = self.heads.used
        shape = TreeShape.usual(depth) if self.tree is None else TreeShape.of("tree", self.tree, depth)
        set_frozen(self, tree=shape.paths)

    @property
    def shape(self) -> TreeShape:
        """The tree."""
        return TreeShape(tuple(self.tree))  # type: ignore[arg-type]

    def check(self, model: Any, request: GenerationRequest) -> None:
        """Checks that the heads have the model's sizes, and the vocabulary enough tokens for the ranks."""
        check_sizes(self.heads, model, request, self.heads.hidden_size, self.heads.vocab_size)
        if self.shape.widest > self.heads.vocab_size:
            raise ArgumentValueError("tree", self.tree, f"of ranks below vocab_size={self.heads.vocab_size}")

    def drafter(self, request: GenerationRequest) -> MedusaDrafter:
        """Returns the drafter of one generation."""
        return MedusaDrafter(self.heads, self.shape)


class MedusaDrafter:
    """Applies the heads to the hidden state from which each row's last token was predicted."""

    keep_outputs, hidden_states = True, False
    laws: Tensor | None = None

    def __init__(self, heads: MedusaHeads, shape: TreeShape) -> None:
        self.nodes = len(shape.paths) + 1
        self._heads, self._shape = heads, shape
        self._hidden: Tensor | None = None  # (R, E)

    def propose(self, session: TreeSession) -> TokenTree:
        """Returns the tree of the heads' best tokens."""
        if self._hidden is None:
            prompts = session.outputs[-1].last_hidden_state[:, -1]
            self._hidden = prompts.repeat_interleave(len(session.logits) // len(prompts), dim=0)
        session.outputs.clear()
        dtype = next(self._heads.parameters()).dtype
        best = self._heads(self._hidden.to(dtype)).topk(self._shape.widest, dim=-1).indices
        return self._shape.tree(session.context.last(1).squeeze(1), best)

    def observe(self, session: TreeSession, path: Path) -> None:
        """Keeps the hidden state at the end of each row's path."""
        hidden = session.outputs[-1].last_hidden_state
        assert self._hidden is not None
        end = path.nodes.gather(1, (path.lengths - 1).clamp(min=0)[:, None]).squeeze(1)
        rows = torch.arange(len(end), device=end.device)
        self._hidden = torch.where((path.lengths > 0)[:, None], hidden[rows, end], self._hidden)
