"""Orders of the chain: of transformers, vllm and llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from minitx.decoding.parameters import Parameter
from minitx.validation import check_choice

# That of the fields, but for the fields whose `Parameter.before` names the order.
Order = Literal["transformers", "vllm", "llama.cpp"]
ORDERS = get_args(Order)
# Values of `Parameter.before`: the end in every order; in vLLM's before the biases.
LAST, FRONT = dict.fromkeys(ORDERS, ""), {"vllm": "sequence_bias"}


def in_order(parameters: Mapping[str, Parameter], order: str) -> list[tuple[str, Parameter]]:
    """Returns names and declarations of parameters in one of the ORDERS."""
    check_choice("order", order, ORDERS)
    names = list(parameters)
    for name, declared in parameters.items():
        if order in declared.before:
            names.remove(name)
            following = declared.before[order]
            names.insert(names.index(following) if following else len(names), name)
    return [(name, parameters[name]) for name in names]
