"""Mixins of passes are put in front of the class of a module, and taken out again in any order."""

from __future__ import annotations

from itertools import permutations

import pytest
from torch import nn

from minitx.optimize.classes import InPlaceOf, has_hooks, mix_in, take_out
from minitx.optimize.unpadded import is_watched


class _One(InPlaceOf, nn.Module):
    pass


class _Two(InPlaceOf, nn.Module):
    pass


class _Three(InPlaceOf, nn.Module):
    pass


@pytest.mark.parametrize(
    "order",
    [*permutations((_One, _Two, _Three))],
    ids=lambda order: "".join(mixin.__name__ for mixin in order),
)
def test_mixins_are_taken_out_in_any_order(order: tuple[type[InPlaceOf], ...]) -> None:
    module = nn.Linear(2, 2)
    kinds = (_One, _Two, _Three)
    for mixin in (*kinds, _One):  # which is there
        mix_in(module, mixin)
    assert type(module).__name__ == "ThreeTwoOneLinear"
    assert repr(module) == repr(nn.Linear(2, 2))
    for number, mixin in enumerate(order, start=1):
        take_out(module, mixin)
        take_out(module, mixin)  # which is not there
        left, other = [kind for kind in kinds if kind not in order[:number]], nn.Linear(2, 2)
        assert [isinstance(module, kind) for kind in kinds] == [kind in left for kind in kinds]
        for kind in left:
            mix_in(other, kind)
        assert type(module) is type(other)
    assert type(module) is nn.Linear


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_of_every_kind_are_seen(register: str) -> None:
    module = nn.Linear(2, 2)
    stack = nn.Sequential(module)
    assert not has_hooks(module)
    assert not is_watched(stack)
    handle = getattr(module, register)(lambda *_: None)
    assert has_hooks(module)
    assert is_watched(stack)
    handle.remove()
    assert not has_hooks(module)
