"""Names of other libraries get one clear error with minitx's way."""

from __future__ import annotations

import inspect
import re

import pytest

from minitx.habits import (
    ARGUMENTS,
    ATTRIBUTES,
    ElsewhereMethod,
    UnknownArgumentError,
    UnknownAttributeError,
    explain_arguments,
    hint_for,
)


@explain_arguments("load")
def loads(name: str, *, dtype: str = "x") -> str:
    """Docstring."""
    return name + dtype


def test_known_arguments_pass() -> None:
    assert loads("a") == "ax"
    assert loads("a", dtype="b") == "ab"
    assert (loads.__name__, loads.__doc__) == ("loads", "Docstring.")
    assert list(inspect.signature(loads).parameters) == ["name", "dtype"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torch_dtype", "loads has no argument 'torch_dtype'. Use dtype=\"float16\" or dtype=torch.float16."),
        ("dtyp", "loads has no argument 'dtyp'. Did you mean 'dtype'?"),
        ("xyz", "loads has no argument 'xyz'."),
    ],
)
def test_unknown_arguments(name: str, message: str) -> None:
    with pytest.raises(UnknownArgumentError, match=f"^{re.escape(message)}$") as caught:
        loads("a", **{name: 1})
    assert caught.value.parameter == name
    assert isinstance(caught.value, TypeError)


def test_every_hint_is_a_sentence() -> None:
    for table in (*ARGUMENTS.values(), *ATTRIBUTES.values()):
        for name, hint in table.items():
            assert hint.endswith("."), name
            assert hint_for(table, name) == hint


def test_attributes() -> None:
    with pytest.raises(AttributeError, match=r"^Tokenizer has no .* 'tokenize'\. Use tokenizer\.tokens"):
        raise UnknownAttributeError("tokenizer", "Tokenizer", "tokenize")
    with pytest.raises(AttributeError, match=r"no attribute 'decod'\. Did you mean 'decode'\?"):
        raise UnknownAttributeError("tokenizer", "Tokenizer", "decod", ["decode"])


def test_a_method_on_the_class() -> None:
    class Model:
        from_pretrained = ElsewhereMethod("model")

    for owner in (Model, Model()):
        assert not hasattr(owner, "from_pretrained")
        with pytest.raises(AttributeError, match=r"^Model has no .* 'from_pretrained'\. Use minitx"):
            owner.from_pretrained  # noqa: B018
