"""Every argument of the public functions on files and texts is checked: no raw error, and the right name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import minitx
from minitx.inspect import (
    attention_picture,
    grid_picture,
    picture,
    render,
    render_report,
    similarity_picture,
    summarize,
    verify,
)
from minitx.validation import ArgumentTypeError, ArgumentValueError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
WRONG: list[Any] = [
    object(),
    3,
    3.5,
    -1,
    "a",
    "",
    "\0",
    b"a",
    [],
    [3],
    {},
    {3: 3},
    [[]],
    True,
    torch.ones(2),
]
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    minitx.save(minitx.from_config(CONFIG, seed=0), folder)
    return folder


def calls(folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Each function with arguments that work."""
    model, tokenizer = minitx.load(folder), minitx.load_tokenizer(folder)
    messages = [{"role": "user", "content": "a"}]
    return {
        "load": (minitx.load, {"name_or_folder": folder}),
        "load_tokenizer": (minitx.load_tokenizer, {"name_or_folder": folder}),
        "from_config": (minitx.from_config, {"config": CONFIG}),
        "save": (minitx.save, {"model": model, "folder": folder}),
        "embed": (minitx.embed, {"model": model, "tokenizer": tokenizer, "texts": ["a"]}),
        "embedding_settings": (minitx.embedding_settings, {"name_or_folder": folder}),
        "EmbeddingSettings": (minitx.EmbeddingSettings, {}),
        "tokenizer": (tokenizer, {"texts": ["a"]}),
        "tokenizer.encode": (tokenizer.encode, {"text": "a"}),
        "tokenizer.tokens": (tokenizer.tokens, {"text": "a"}),
        "tokenizer.decode": (tokenizer.decode, {"ids": [5]}),
        "tokenizer.decode_batch": (tokenizer.decode_batch, {"ids": [[5]]}),
        "tokenizer.token_to_id": (tokenizer.token_to_id, {"token": "a"}),
        "tokenizer.id_to_token": (tokenizer.id_to_token, {"index": 5}),
        "tokenizer.save": (tokenizer.save, {"folder": folder}),
        "tokenizer.apply_chat_template": (
            tokenizer.apply_chat_template,
            {"messages": messages, "template": TEMPLATE},
        ),
        "verify": (verify, {"name_or_folder": folder}),
        "summarize": (summarize, {"model": model, "folder": folder}),
        "render": (render, {"summary": summarize(model)}),
        "render_report": (render_report, {"report": verify(folder)}),
        "attention_picture": (
            attention_picture,
            {"weights": torch.eye(1), "queries": ["a"], "keys": ["a"], "path": folder / "b.svg"},
        ),
        "grid_picture": (
            grid_picture,
            {"values": torch.eye(1), "rows": ["a"], "columns": ["a"], "path": folder / "c.svg"},
        ),
        "picture": (picture, {"kind": "spectra", "model": model}),
        "similarity_picture": (
            similarity_picture,
            {"similarity": torch.eye(1), "labels": ["a"], "path": folder / "a.svg"},
        ),
    }


def parameters(function: Callable[..., Any]) -> list[str]:
    signature = inspect.signature(function)
    return [name for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD]


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_argument_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some strings are valid paths
    raw = []
    for place, (function, arguments) in calls(folder).items():
        function(**arguments)
        for name in parameters(function):
            for value in WRONG:
                try:
                    function(**{**arguments, name: value})
                except (ArgumentTypeError, ArgumentValueError, ValueError) as error:
                    if name not in str(error):
                        raw.append(f"{place}({name}={value!r}) does not name it: {error}")
                except (FileNotFoundError, FileExistsError):  # "a" is a path that may exist or not
                    continue
                except Exception as error:
                    raw.append(f"{place}({name}={value!r}): {type(error).__name__}: {error}")
    assert not raw, "\n".join(raw)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_new_head_is_drawn_from_the_seed(folder: Path, dtype: Any) -> None:
    def head(seed: int | None) -> torch.Tensor:
        options: Any = {"head": "token-classification", "init_head": True, "num_labels": 3, "dtype": dtype}
        return minitx.load(folder, seed=seed, **options).head.projection.weight

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    assert not torch.equal(head(None), head(None))
    with pytest.raises(ArgumentValueError, match=r"^seed=1 must be None; .* needs init_head=True"):
        minitx.load(folder, seed=1)


def test_embed_takes_the_tokenizer_before_or_after_the_texts(folder: Path) -> None:
    model, tokenizer, texts = minitx.load(folder), minitx.load_tokenizer(folder), ["a b", "c"]
    vectors = minitx.embed(model, texts, tokenizer=tokenizer)
    earlier: Any = (model, tokenizer, texts)
    assert torch.equal(vectors, minitx.embed(*earlier))
    assert torch.equal(vectors, minitx.embed(model=model, tokenizer=tokenizer, texts=iter(texts)))  # type: ignore[arg-type]


def test_inspection_is_found_from_the_package() -> None:
    assert minitx.inspect.verify is verify
    with pytest.raises(AttributeError, match=r"Use minitx\.inspect\.verify\(folder_or_hub_id\)"):
        minitx.verify  # noqa: B018


def test_the_dtype_of_the_checkpoint_is_the_default(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype='auto' must be one of .*; leave it out"):
        minitx.load(folder, dtype="auto")
