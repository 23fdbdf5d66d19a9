"""Files of an adapter's folder and of its base model: read, refused, or missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.checkpoint.convert import convert
from minitx.checkpoint.lora.patterns import is_fast
from minitx.cli.app import main
from minitx.inspect.summary import summarize
from tests.hub_server import files_of
from tests.unit.test_hub import hub  # noqa: F401 - a fixture
from tests.unit.test_lora import QUERY, adapter, by_formula, merged_query
from tests.unit.test_save_load import CONFIGS, ids, stored, written

LAYERS = CONFIGS["llama"]["num_hidden_layers"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return written(tmp_path / "base", "causal-lm", CONFIGS["llama"])


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return written(tmp_path / "bert", "none", CONFIGS["bert"])


def query_of_bert(folder: Path, base: Path, **changes: Any) -> Path:
    """Writes an adapter of BERT's first query."""
    module = "base_model.model.encoder.layer.0.attention.self.query"
    tensors = {f"{module}.lora_A.weight": torch.ones(2, 24), f"{module}.lora_B.weight": torch.ones(24, 2)}
    changes = {"task_type": "FEATURE_EXTRACTION", "target_modules": ["query"], **changes}
    return adapter(folder, base, tensors, **changes)


def pooling(folder: Path, mode: str) -> None:
    """Writes the files of sentence-transformers."""
    package = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    stated = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stated), encoding="utf-8")


def vocabulary(folder: Path) -> None:
    """Writes the files of a BERT tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")


# --- files beside the adapter, and those of the base model -------------------------------------------


@pytest.mark.parametrize("of_base", ["mean_tokens", None])
def test_the_pooling_of_the_adapter(tmp_path: Path, bert: Path, of_base: str | None) -> None:
    folder = query_of_bert(tmp_path / "adapter", bert)
    if of_base is not None:
        pooling(bert, of_base)
    pooling(folder, "cls_token")
    model = minitx.load(folder)
    assert minitx.embedding_settings(model).pooling == "first"
    assert minitx.embedding_settings(folder).pooling == "first"
    minitx.save(model, tmp_path / "plain")
    assert minitx.embedding_settings(tmp_path / "plain").pooling == "first"


def test_the_pooling_of_the_base_model(tmp_path: Path, bert: Path) -> None:
    folder = query_of_bert(tmp_path / "adapter", bert)
    pooling(bert, "cls_token")
    assert minitx.embedding_settings(minitx.load(folder)).pooling == "first"
    assert minitx.embedding_settings(folder).pooling == "first"
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 7}', encoding="utf-8")
    assert minitx.embedding_settings(folder).pooling == "first"
    assert minitx.embedding_settings(folder).max_length == 7


@pytest.mark.parametrize("own", [True, False])
def test_settings_of_generation(tmp_path: Path, base: Path, own: bool) -> None:
    folder = adapter(tmp_path / "adapter", base)
    (base / "generation_config.json").write_text('{"max_new_tokens": 3}', encoding="utf-8")
    if own:
        (folder / "generation_config.json").write_text('{"max_new_tokens": 5}', encoding="utf-8")
    assert minitx.load(folder).checkpoint.generation == {"max_new_tokens": 5 if own else 3}
    assert minitx.generation_settings(folder).max_new_tokens == (5 if own else 3)


def test_the_tokenizer_of_the_base_model(tmp_path: Path, bert: Path) -> None:
    folder = query_of_bert(tmp_path / "adapter", bert)
    vocabulary(bert)
    assert minitx.load_tokenizer(folder).encode("the cat sat") == [2, 5, 6, 7, 3]
    convert(folder, tmp_path / "plain")
    assert minitx.load_tokenizer(tmp_path / "plain").encode("the cat sat") == [2, 5, 6, 7, 3]


def test_the_tokenizer_of_an_adapter(tmp_path: Path, bert: Path) -> None:
    folder = query_of_bert(tmp_path / "adapter", bert)
    vocabulary(bert)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"]))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    assert minitx.load_tokenizer(folder).encode("the cat") == [2, 1, 5, 3]


def test_from_the_hub(hub: Any, tmp_path: Path, bert: Path) -> None:  # noqa: F811
    folder = query_of_bert(tmp_path / "adapter", Path("someone/base"))
    vocabulary(bert)
    pooling(folder, "cls_token")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    hub.push("someone/base", {path.name: path.read_bytes() for path in bert.iterdir()})
    hub.push("someone/adapter", files_of(folder))
    assert minitx.embedding_settings(minitx.load("someone/adapter")).pooling == "first"
    assert minitx.embedding_settings("someone/adapter").pooling == "first"
    assert list((tmp_path / "cache").rglob("adapter_model.safetensors"))
    assert not list((tmp_path / "cache").rglob("adapter_model.bin"))  # one format is enough
    assert minitx.load_tokenizer("someone/adapter").encode("the cat sat") == [2, 5, 6, 7, 3]


def test_an_adapter_in_a_subfolder_on_the_hub(hub: Any, tmp_path: Path, bert: Path) -> None:  # noqa: F811
    vocabulary(bert)
    folder = query_of_bert(tmp_path / "adapter" / "0_Transformer", Path("someone/base"))
    pooling(folder.parent, "cls_token")
    modules = json.loads((folder.parent / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder.parent / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    hub.push("someone/base", files_of(bert))
    hub.push("someone/adapter", files_of(folder.parent))
    for name in ("someone/adapter", folder.parent, folder):
        model = minitx.load(name)
        assert minitx.embedding_settings(name).pooling == "first"
        assert minitx.embedding_settings(model).pooling == "first"
        assert minitx.load_tokenizer(name).encode("the cat sat") == [2, 5, 6, 7, 3]
        assert torch.equal(model(ids()).last_hidden_state, minitx.load(folder)(ids()).last_hidden_state)


def test_a_private_base_model(
    hub: Any,  # noqa: F811
    tmp_path: Path,
    base: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (base / "generation_config.json").write_text('{"max_new_tokens": 3}', encoding="utf-8")
    (base / "tokenizer_config.json").write_text('{"model_max_length": 9}', encoding="utf-8")
    hub.push("someone/base", files_of(base))
    hub.push("someone/adapter", files_of(adapter(tmp_path / "adapter", Path("someone/base"))))
    for repo in hub.repos.values():
        repo.private, repo.token = True, "hf_right"
    for name in ("someone/adapter", tmp_path / "adapter", "someone/base"):
        assert minitx.generation_settings(name, token="hf_right").max_new_tokens == 3
        assert minitx.embedding_settings(name, token="hf_right").max_length == 9
        with pytest.raises(FileNotFoundError, match="private"):
            minitx.generation_settings(name)
        with pytest.raises(FileNotFoundError, match="private"):
            minitx.embedding_settings(name)
    options = ["someone/adapter", "--token", "hf_right"]
    main(["inspect", *options])
    main(["convert", *options[:1], str(tmp_path / "plain"), *options[1:]])
    main(["generate", *options, "--ids", "1 2", "--checkpoint", "--json"])
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["tokens"]) == 3


def test_inspect(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path / "adapter", base)
    summary = summarize(minitx.load(folder), folder)
    assert not summary.ignored
    assert summary.parameters == summarize(minitx.load(base), base).parameters
    main(["inspect", str(folder)])
    assert "llama causal-lm" in capsys.readouterr().out


@pytest.mark.parametrize("with_weights", [True, False])
def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path, base: Path, with_weights: bool) -> None:
    inner = adapter(base if with_weights else tmp_path / "inner", base)
    outer = adapter(tmp_path / "outer", inner)
    with pytest.raises(
        ValueError, match=r"base_model_name_or_path=.* is an adapter itself, or a model beside one"
    ):
        minitx.load(outer)


# --- missing and foreign tensors ---------------------------------------------------------------------


def tensors_of(layers: int) -> dict[str, Tensor]:
    """The updates of the queries of the first layers."""
    names = [f"base_model.model.model.layers.{layer}.self_attn.q_proj" for layer in range(layers)]
    return {f"{name}.lora_A.weight": torch.ones(2, 24) for name in names} | {
        f"{name}.lora_B.weight": torch.ones(24, 2) for name in names
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_modules": ["q_proj", "v_proj"]},
            "target_modules=.* lacks: model.layers.0.self_attn.v_proj",
        ),
        ({"target_modules": r".*(q|up)_proj"}, "target_modules=.* lacks: model.layers.0.mlp.up_proj"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules=.* lacks: lm_head.weight"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.* lacks: lm_head.weight"),
        ({"modules_to_save": ["norm"]}, "modules_to_save=.* lacks: .*model.norm.weight"),
    ],
)
def test_an_incomplete_adapter_is_refused(
    tmp_path: Path, base: Path, changes: dict[str, Any], message: str
) -> None:
    changes = {"layers_to_transform": None, **changes}
    with pytest.raises(ValueError, match=message):
        minitx.load(adapter(tmp_path / "adapter", base, tensors_of(LAYERS), **changes))


def test_a_layer_without_its_update_is_refused(tmp_path: Path, base: Path) -> None:
    folder = adapter(tmp_path / "adapter", base, tensors_of(LAYERS - 1), layers_to_transform=None)
    with pytest.raises(ValueError, match=rf"lacks: model\.layers\.{LAYERS - 1}\.self_attn\.q_proj\.weight"):
        minitx.load(folder)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_missing_biases_are_refused(tmp_path: Path, bert: Path, bias: str) -> None:
    folder = query_of_bert(tmp_path / "adapter", bert, layers_to_transform=[0], bias=bias)
    with pytest.raises(ValueError, match=f"bias='{bias}' states tensors .*layer.0.attention.self.query.bias"):
        minitx.load(folder)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
)
def test_a_foreign_tensor_is_refused(tmp_path: Path, base: Path, name: str) -> None:
    tensors = tensors_of(1) | {f"base_model.model.{name}": torch.ones(2)}
    with pytest.raises(ValueError, match=f"holds {name}, which neither modules_to_save nor bias states"):
        minitx.load(adapter(tmp_path / "adapter", base, tensors))


def test_targets_that_the_base_model_does_not_have(tmp_path: Path, base: Path) -> None:
    """One list of names for many architectures is common, and PEFT ignores the others."""
    folder = adapter(tmp_path / "adapter", base, target_modules=["q_proj", "query", "c_attn"])
    torch.testing.assert_close(merged_query(minitx.load(folder)), by_formula(base, folder, 2.0))


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "2"},
        {"r": 2.0},
        {"r": True},
        {"r": 0},
        {"lora_alpha": "4"},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"alpha_pattern": {"q_proj": "z"}},
        {"alpha_pattern": {"(": 2}},
        {"rank_pattern": ["q_proj"]},
        {"rank_pattern": {"q_proj": 2.5}},
        {"target_modules": 3},
        {"target_modules": [3]},
        {"target_modules": "("},
        {"target_modules": {"q_proj": 1}},
        {"target_modules": "(.*.*)*!"},
        {"target_modules": "(a|a)*!"},
        {"target_modules": "(?x)(.*#)\n#(\n)*!"},
        {"target_modules": ".*" * 7 + "!"},
        {"exclude_modules": "(.|.)" * 40 + "!"},
        {"rank_pattern": {"(.*.*)*!": 3}},
        {"alpha_pattern": {"(a?)+!": 3}},
        {"layers_pattern": ["(.*)*!"]},
        {"lora_alpha": 10**400},
        {"exclude_modules": "["},
        {"exclude_modules": 5},
        {"modules_to_save": "lm_head"},
        {"layers_to_transform": "0"},
        {"layers_to_transform": "all"},
        {"layers_to_transform": [True]},
        {"layers_pattern": "("},
        {"use_rslora": "false"},
        {"use_rslora": "yes"},
        {"use_dora": 1},
        {"lora_bias": "true"},
        {"fan_in_fan_out": 5},
        {"bias": "nonsense"},
        {"bias": ["all"]},
        {"task_type": "FOO"},
        {"task_type": ["CAUSAL_LM"]},
        {"revision": 5},
        {"base_model_name_or_path": 5},
        {"peft_type": None},
    ],
    ids=str,
)
def test_a_setting_of_another_kind_is_refused(tmp_path: Path, base: Path, changes: dict[str, Any]) -> None:
    folder = adapter(tmp_path / "adapter", base, **changes)
    with pytest.raises(ValueError, match=rf"adapter_config\.json: {next(iter(changes))}=.* must be"):
        minitx.load(folder)


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        r".*\.(q|v)_proj",
        r"^(?!.*embed).*$",
        r"(.*\.)?layers\.([0-9]|1[0-9])\..*",
        r"(?:.*?(?:vision|image|visual|text).*?(?:self_attn|attention|attn|mlp|mixer).*?(?:q_proj|fc1|fc2).*?)"
        r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|k_proj))",
    ],
)
def test_usual_patterns_are_fast(pattern: str) -> None:
    assert is_fast(pattern)


def test_a_name_that_takes_long_to_match(tmp_path: Path, base: Path) -> None:
    name = f"base_model.model.{'a' * 1000}.lora_A.weight"
    with pytest.raises(ValueError, match=r"adapter_model.*: a name of 1\d+ characters.* is too long"):
        minitx.load(adapter(tmp_path / "adapter", base, {name: torch.ones(2, 24)}))


def test_settings_that_are_null(tmp_path: Path, base: Path) -> None:
    optional = "rank_pattern alpha_pattern modules_to_save exclude_modules layers_pattern revision task_type"
    folder = adapter(tmp_path / "adapter", base, **dict.fromkeys(optional.split()))
    torch.testing.assert_close(merged_query(minitx.load(folder)), by_formula(base, folder, 2.0))


# --- ties, biases and dtypes -------------------------------------------------------------------------


def test_a_tied_head_is_named(tmp_path: Path) -> None:
    base = written(tmp_path / "base", "causal-lm", CONFIGS["gpt2"])
    tensors = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(2, 24),
        "base_model.model.lm_head.lora_B.weight": torch.ones(CONFIGS["gpt2"]["vocab_size"], 2),
    }
    folder = adapter(
        tmp_path / "adapter", base, tensors, target_modules=["lm_head"], layers_to_transform=None
    )
    with pytest.raises(ValueError, match=r"lm_head, which has no weights of its own.*tie_word_embeddings"):
        minitx.load(folder)


def test_a_bias_without_a_place_is_named(tmp_path: Path, base: Path) -> None:
    tensors = tensors_of(1) | {f"base_model.model.{QUERY}.lora_B.bias": torch.ones(24)}
    with pytest.raises(ValueError, match=rf"lora_bias=True needs a bias .*{QUERY}"):
        minitx.load(adapter(tmp_path / "adapter", base, tensors, lora_bias=True))


def test_a_stated_bias_that_the_file_lacks(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ValueError, match=rf"lora_bias=True states a tensor .*{QUERY}.lora_B.bias .*lacks"):
        minitx.load(adapter(tmp_path / "adapter", base, lora_bias=True))


@pytest.mark.parametrize("stored_as", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, None])
def test_merged_in_the_wider_dtype(
    tmp_path: Path, base: Path, stored_as: torch.dtype, dtype: torch.dtype | None
) -> None:
    minitx.save(minitx.load(base, dtype=stored_as), tmp_path / "half")
    folder = adapter(tmp_path / "adapter", tmp_path / "half")
    own = {name: x.double() for name, x in load_file(folder / "adapter_model.safetensors").items()}
    a, b = (own[f"base_model.model.{QUERY}.lora_{part}.weight"] for part in "AB")
    exact = stored(tmp_path / "half")[f"{QUERY}.weight"].double() + 2 * b @ a
    merged = merged_query(minitx.load(folder, dtype=dtype))
    assert merged.dtype == (dtype or stored_as)
    epsilon = torch.finfo(merged.dtype).eps
    torch.testing.assert_close(merged.double(), exact, rtol=epsilon, atol=4 * epsilon)


def test_a_trained_bias_is_merged_in_the_wider_dtype(tmp_path: Path, bert: Path) -> None:
    minitx.save(minitx.load(bert, dtype="bfloat16"), tmp_path / "half")
    folder = query_of_bert(tmp_path / "adapter", tmp_path / "half", layers_to_transform=[0], lora_bias=True)
    tensors = load_file(folder / "adapter_model.safetensors")
    change = torch.linspace(0, 1, 24)
    tensors["base_model.model.encoder.layer.0.attention.self.query.lora_B.bias"] = change
    save_file(tensors, folder / "adapter_model.safetensors")
    bias = stored(tmp_path / "half")["encoder.layer.0.attention.self.query.bias"].float()
    model: Any = minitx.load(folder, dtype="float32")
    merged = model.encoder.layers[0].attention.self_attention.Q.bias
    torch.testing.assert_close(merged.detach(), bias + 2 * change)


def test_a_resized_vocabulary(tmp_path: Path, base: Path) -> None:
    rows = CONFIGS["llama"]["vocab_size"] + 6
    tensors = tensors_of(1) | {
        "base_model.model.model.embed_tokens.weight": torch.randn(rows, 24),
        "base_model.model.lm_head.weight": torch.randn(rows, 24),
    }
    model = minitx.load(adapter(tmp_path / "adapter", base, tensors))
    assert model(ids(CONFIGS["llama"])).logits.shape[-1] == rows
    minitx.save(model, tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["vocab_size"] == rows
    same = minitx.load(tmp_path / "plain")(ids(CONFIGS["llama"])).logits
    assert torch.equal(same, model(ids(CONFIGS["llama"])).logits)


def test_another_shape_names_the_adapter(tmp_path: Path, base: Path) -> None:
    tensors = tensors_of(1) | {"base_model.model.model.norm.weight": torch.ones(3)}
    folder = adapter(tmp_path / "adapter", base, tensors, modules_to_save=["model.norm"])
    with pytest.raises(
        ValueError, match=r"adapter_config\.json: the tensor model\.norm\.weight has shape \(3,\)"
    ):
        minitx.load(folder)
