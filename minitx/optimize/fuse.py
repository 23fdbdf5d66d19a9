"""Projections of the same input as one product: queries, keys and values; gate and dense.

One product of three weights loads its input once and starts one kernel instead of three, which counts for few
rows and on a GPU. The parameters keep names and identity; they become views of one tensor, the weight of a
hidden `nn.Linear`. So what changes a parameter in place, such as an optimizer or `load_state_dict`, changes
that weight.

Each projection is computed by itself wherever the one product would miss something. A few comparisons per
layer decide:

- a projection has a hook (as `minitx.inspect` installs on `**.Q`), an adapter or a parametrisation, or was
  replaced;
- gradients of its parameters are recorded;
- a parameter is no view of the one tensor any more, as after `load_state_dict(assign=True)`. Conversions
  (`model.to`, `half`, `cuda`) and copies join the parameters again.
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor, nn

from minitx.layers.attention import AttentionContext, CrossAttention, SelfAttention
from minitx.layers.disentangled import DisentangledSelfAttention
from minitx.layers.feed_forward import GatedIntermediate
from minitx.layers.rotary import apply_rotary_pos_emb
from minitx.optimize.applied import note_undone
from minitx.optimize.bfloat16 import Bfloat16Linear
from minitx.optimize.classes import Module
from minitx.optimize.joined import Joined, are_joinable
from minitx.optimize.linear import FastLinear
from minitx.optimize.packed import PackedLinear
from minitx.validation import check_type

_JOINABLE = (nn.Linear, FastLinear, PackedLinear, Bfloat16Linear)


class FusedSelfAttention(Joined, SelfAttention):
    """SelfAttention with one product for queries, keys and values."""

    names = ("Q", "K", "V")

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, E) -> (B, H, T, D), (B, K, T, D) twice"""
        products = self.products(hidden)
        if products is None:
            return super().project(hidden, context)
        query, key = self.heads(products[0], self.q_norm), self.heads(products[1], self.k_norm)
        if context.rotary is not None:
            query, key = (apply_rotary_pos_emb(x, context.rotary) for x in (query, key))
        return query, key, self.heads(products[2])


class FusedCrossAttention(Joined, CrossAttention):
    """CrossAttention with one product for keys and values."""

    names = ("K", "V")

    def keys_and_values(self, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """(B', S, E) -> (B', K, S, D) twice"""
        products = self.products(encoder_hidden_states)
        if products is None:
            return super().keys_and_values(encoder_hidden_states)
        key, value = products
        return self.heads(key, self.k_norm), self.heads(value)


class FusedDisentangledSelfAttention(Joined, DisentangledSelfAttention):
    """DisentangledSelfAttention with one product for queries, keys and values."""

    names = ("Q", "K", "V")

    def project(self, hidden: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, E) -> (B, H, T, D) three times"""
        products = self.products(hidden)
        if products is None:
            return super().project(hidden, context)
        query, key, value = map(self.heads, products)
        return query, key, value


class FusedGatedIntermediate(Joined, GatedIntermediate):
    """GatedIntermediate with one product for gate and dense."""

    names = ("gate", "dense")

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, F)"""
        products = self.products(hidden)
        if products is None:
            return super().forward(hidden)
        gate, dense = products
        output: Tensor = self.dropout(self.activation(gate) * dense)
        return output


_CLASSES: dict[type[nn.Module], type[Joined]] = {
    SelfAttention: FusedSelfAttention,
    CrossAttention: FusedCrossAttention,
    DisentangledSelfAttention: FusedDisentangledSelfAttention,
    GatedIntermediate: FusedGatedIntermediate,
}


def fuse_projections(model: Module) -> Module:
    """Computes projections of the same input as one product: Q, K and V; K and V across; gate and dense.

    Changes the classes of attentions and gated feed-forward networks in place. Parameters keep their names,
    hooks stay, and `minitx.save` writes what it writes without the pass. Projections that are trained,
    hooked, adapted or replaced are computed by themselves, so the outputs are always those of the model as it
    is. A conversion of one projection alone, or a parameter assigned anew, ends the one product of its
    module; the pass, applied again, joins them again.

    Exactness: equal up to rounding, as the sums may have another order. Cost: the weights are copied once,
    module by module. Left as they are: experts, projections of several dtypes, parameters that several
    modules share or that were made in inference mode, and other modules than those of minitx.

    Args:
        model: any module.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: not a module.

    Example:
        >>> model = minitx.optimize.fuse_projections(minitx.load("minitx/tiny-decoder"))
    """
    check_type("model", model, nn.Module, "a module")
    shared = shared_parameters(model)
    for module in model.modules():
        kind: type[Joined] | None = type(module) if isinstance(module, Joined) else _CLASSES.get(type(module))
        if kind is None:
            continue
        parts = [vars(module)["_modules"][name] for name in kind.names]
        alike = type(parts[0]) in _JOINABLE and len(set(map(type, parts))) == 1
        own = {id(p) for part in parts for p in part.parameters()}
        if not alike or own & shared or not are_joinable(parts):
            continue
        if not isinstance(module, Joined):
            module.__class__ = kind  # type: ignore[assignment]
            vars(module).update(fused=None, views=())
        assert isinstance(module, Joined)
        if not (module.has_views() and module.is_intact() and type(module.fused) is type(parts[0])):
            module.join()
    return model


def undo_fuse_projections(model: Module) -> Module:
    """Undoes `fuse_projections`: each parameter has memory of its own again. Returns the model.

    Raises:
        ArgumentTypeError: not a module.
    """
    plain = {fused: kind for kind, fused in _CLASSES.items()}
    for module in check_type("model", model, nn.Module, "a module").modules():
        if isinstance(module, Joined):
            module.separate()
            module.__class__ = plain[type(module)]  # type: ignore[assignment]
    note_undone(model, "fuse_projections")
    return model


def shared_parameters(model: nn.Module) -> set[int]:
    """Returns the ids of the parameters that are in several places."""
    counts = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    return {key for key, count in counts.items() if count > 1}
