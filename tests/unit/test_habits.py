"""Names of other libraries get one clear error with minitx's way."""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys

import pytest

import minitx
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


# --- where the hints appear ------------------------------------------------------------------------

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> minitx.Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return minitx.load_tokenizer(folder)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        *(("load", name) for name in ARGUMENTS["load"]),
        *(("from_config", name) for name in ARGUMENTS["from_config"]),
        *(("save", name) for name in ARGUMENTS["save"]),
        *(("embed", name) for name in ARGUMENTS["embed"]),
        *(("load_tokenizer", name) for name in ARGUMENTS["load_tokenizer"]),
    ],
)
def test_arguments_of_functions(function: str, name: str) -> None:
    message = f"{function} has no argument {name!r}. {ARGUMENTS[function][name]}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        getattr(minitx, function)("model", **{name: None})
    assert name not in inspect.signature(getattr(minitx, function)).parameters


@pytest.mark.parametrize("name", ARGUMENTS["tokenizer"])
def test_arguments_of_a_tokenizer(tokenizer: minitx.Tokenizer, name: str) -> None:
    message = f"tokenizer has no argument {name!r}. {ARGUMENTS['tokenizer'][name]}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        tokenizer("a", **{name: None})


@pytest.mark.parametrize("name", ATTRIBUTES["tokenizer"])
def test_attributes_of_a_tokenizer(tokenizer: minitx.Tokenizer, name: str) -> None:
    assert not hasattr(tokenizer, name)
    message = f"Tokenizer has no attribute {name!r}. {ATTRIBUTES['tokenizer'][name]}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        getattr(tokenizer, name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("split_special_tokens", "Set it in tokenizer_config.json, and load the tokenizer again."),
        ("chat_template", 'It is tokenizer.chat.templates["default"].'),
        ("pading_side", "Did you mean 'padding_side'?"),
    ],
)
def test_an_unknown_attribute_of_a_tokenizer_is_not_assigned(
    tokenizer: minitx.Tokenizer, name: str, hint: str
) -> None:
    with pytest.raises(AttributeError, match=rf"^Tokenizer has no attribute '{name}'\. {re.escape(hint)}$"):
        setattr(tokenizer, name, True)
    assert name not in vars(tokenizer)
    tokenizer.padding_side = tokenizer.padding_side


def test_a_tokenizer_suggests_its_own_names(tokenizer: minitx.Tokenizer) -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'encod'\. Did you mean 'encode'\?$"):
        tokenizer.encod  # noqa: B018
    with pytest.raises(AttributeError, match="load_tokenizer"):
        minitx.Tokenizer.from_pretrained  # noqa: B018
    assert copy.copy(tokenizer).encode("a") == tokenizer.encode("a")


@pytest.mark.parametrize("name", ATTRIBUTES["minitx"])
def test_names_of_the_package(name: str) -> None:
    assert not hasattr(minitx, name)
    message = f"minitx has no attribute {name!r}. {ATTRIBUTES['minitx'][name]}"
    with pytest.raises(AttributeError, match=f"^{re.escape(message)}$"):
        getattr(minitx, name)
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        exec(f"from minitx import {name}")


def test_other_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match=r"Did you mean 'generate'\?"):
        minitx.generat  # noqa: B018
    from minitx import checkpoint  # a submodule

    assert checkpoint.__name__ == "minitx.checkpoint"
    with pytest.raises(AttributeError, match=r"^module 'minitx' has no attribute '__wrapped__'$"):
        minitx.__wrapped__  # noqa: B018


def test_dir_lists_public_names_only() -> None:
    names = {name for name in dir(minitx) if not name.startswith("__")}
    assert not names & {"Any", "TYPE_CHECKING", "annotations", "import_module", "sys"}
    assert {"generate", "load", "inspect", "layers"} <= names
    assert all(hasattr(minitx, name) for name in dir(minitx))


def test_the_version_needs_no_torch() -> None:
    code = "import minitx.version as v, minitx, sys; assert 'torch' not in sys.modules; print(v.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{minitx.__version__}\n"
