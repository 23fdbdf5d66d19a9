"""Adapters written by PEFT: merged at load, they give what PEFT gives; saved, they are plain models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

import minitx
from minitx.inspect.compare.verify import verify
from tests.parity.cases import BY_NAME
from tests.parity.reference import reference_model

pytestmark = [  # of PEFT and the libraries under it
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]

LLAMA, GPT2, T5 = ("llama", "causal-lm"), ("gpt2", "causal-lm"), ("t5", "seq2seq-lm")
BERT, TOKENS = ("bert", "sequence-classification"), ("bert", "token-classification")
KINDS = {
    "causal-lm": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
}
ATTENTION = {"target_modules": ["q_proj", "v_proj"]}
CASES: list[tuple[tuple[str, str], dict[str, Any]]] = [
    (LLAMA, ATTENTION),
    (LLAMA, {"target_modules": "all-linear", "lora_alpha": 16, "use_rslora": True}),
    (LLAMA, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    (LLAMA, {"target_modules": r".*layers\.1\..*_proj", "rank_pattern": {"q_proj": 2}}),
    (LLAMA, {**ATTENTION, "alpha_pattern": {"layers.0.self_attn.v_proj": 3}}),
    (LLAMA, {**ATTENTION, "layers_to_transform": [1], "layers_pattern": "layers"}),
    (LLAMA, {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    (LLAMA, {"target_modules": ["embed_tokens", "q_proj"]}),
    (LLAMA, {**ATTENTION, "modules_to_save": ["lm_head", "norm"]}),
    (GPT2, {"target_modules": ["c_attn", "c_proj"]}),
    (GPT2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "use_dora": True}),
    (("gpt-neox", "causal-lm"), {"target_modules": ["query_key_value"]}),
    (("mixtral", "causal-lm"), {"target_modules": ["q_proj", "o_proj"]}),
    (("phi3", "causal-lm"), {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    (T5, {"target_modules": ["q", "v", "wo"]}),
    (("bart", "seq2seq-lm"), {"target_modules": ["q_proj", "v_proj", "fc1"]}),
    (BERT, {"target_modules": ["query", "value"]}),
    (BERT, {"target_modules": ["query", "value"], "bias": "all"}),
    (BERT, {"target_modules": ["query", "value"], "bias": "lora_only"}),
    (BERT, {"target_modules": ["query", "value"], "lora_bias": True}),
    (BERT, {"target_modules": ["word_embeddings", "key"]}),
    (TOKENS, {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"]}),
    (("roberta", "sequence-classification"), {"target_modules": ["query"]}),
    (("distilbert", "sequence-classification"), {"target_modules": ["q_lin"]}),
    (("bert", "question-answering"), {"target_modules": ["query", "value"]}),
    (("roberta", "question-answering"), {"target_modules": ["query", "dense"]}),
]


def loaded(kind: Any, folder: Path) -> Any:
    """A model of transformers; its fused experts refuse sizes as small as these."""
    model = kind.from_pretrained(folder).eval()
    model.config._experts_implementation = "eager"
    return model


def adapted_model(base: Path, case: tuple[str, str], options: dict[str, Any], rows: int = 0) -> Any:
    """A random model with a random adapter, and that number of new rows in its vocabulary."""
    name, task = case
    reference = reference_model(BY_NAME[name], task, torch.float32)
    reference.save_pretrained(base)
    reference = loaded(type(reference), base)
    if rows:
        reference.resize_token_embeddings(reference.config.vocab_size + rows)
    adapted = peft.get_peft_model(reference, peft.LoraConfig(r=4, task_type=KINDS[task], **options)).eval()
    generator = torch.Generator().manual_seed(0)
    for path, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.mul_(1 + 0.1 * noise) if "magnitude" in path else parameter.data.copy_(0.1 * noise)
    return adapted


def scores(output: Any) -> Tensor:
    """The logits; those of the start and the end of an answer side by side."""
    if getattr(output, "start_logits", None) is None:
        logits: Tensor = output.logits
        return logits
    return torch.stack([output.start_logits, output.end_logits], dim=-1)


@pytest.mark.parametrize(("case", "options"), CASES, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_of_peft(
    tmp_path: Path, case: tuple[str, str], options: dict[str, Any], alone: bool
) -> None:
    task = case[1]
    adapted = adapted_model(tmp_path / "base", case, options)
    folder = tmp_path / ("adapter" if alone else "base")
    adapted.save_pretrained(folder)

    ids = torch.arange(12).reshape(2, 6) % 90 + 4
    inputs = {"decoder_input_ids": ids[:, :4]} if task == "seq2seq-lm" else {}
    with torch.no_grad():
        expected = scores(adapted(input_ids=ids, **inputs))
    model = minitx.load(folder)
    torch.testing.assert_close(scores(model(ids, **inputs)), expected, atol=2e-5, rtol=1e-4)

    minitx.save(model, tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("adapter*"))
    again = scores(minitx.load(tmp_path / "plain")(ids, **inputs))
    torch.testing.assert_close(again, expected, atol=2e-5, rtol=1e-4)
    plain = loaded(type(adapted.get_base_model()), tmp_path / "plain")
    with torch.no_grad():
        result = scores(plain(input_ids=ids, **inputs))
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [LLAMA, GPT2, T5, BERT], ids=str)
def test_a_resized_vocabulary(tmp_path: Path, case: tuple[str, str]) -> None:
    """PEFT saves the new embedding beside the adapter."""
    targets = {"llama": "q_proj", "gpt2": "c_attn", "t5": "q", "bert": "query"}
    adapted = adapted_model(tmp_path / "base", case, {"target_modules": [targets[case[0]]]}, rows=6)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(12).reshape(2, 6) + adapted.get_base_model().config.vocab_size - 12
    inputs = {"decoder_input_ids": ids[:, :4]} if case == T5 else {}
    with torch.no_grad():
        expected: Tensor = adapted(input_ids=ids, **inputs).logits
    model = minitx.load(tmp_path / "adapter")
    torch.testing.assert_close(model(ids, **inputs).logits, expected, atol=2e-5, rtol=1e-4)
    minitx.save(model, tmp_path / "plain")
    plain = loaded(type(adapted.get_base_model()), tmp_path / "plain")
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids, **inputs).logits, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("case", "options"),
    [
        (LLAMA, {"target_modules": ["embed_tokens", "q_proj"], "modules_to_save": ["lm_head"]}),
        (T5, {"target_modules": ["q", "wo"]}),
        (BERT, {"target_modules": ["query"], "bias": "all"}),
        (LLAMA, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
        (GPT2, {"target_modules": ["c_attn", "c_fc"], "use_dora": True}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_verify_compares_with_the_unmerged_adapter(
    tmp_path: Path, case: tuple[str, str], options: dict[str, Any]
) -> None:
    adapted_model(tmp_path / "base", case, options).save_pretrained(tmp_path / "adapter")
    report = verify(tmp_path / "adapter")
    assert report.ok
    assert max(entry.output64.absolute for entry in report.entries if entry.output64) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_model_of_half_precision_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    reference = reference_model(BY_NAME["llama"], "causal-lm", dtype)
    kind = type(reference)
    reference.save_pretrained(tmp_path / "base")
    reference = kind.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    adapted = peft.get_peft_model(reference, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **ATTENTION)).eval()
    for path, parameter in adapted.named_parameters():
        if "lora_" in path:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(path)))
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(12).reshape(2, 6) % 90 + 4
    with torch.no_grad():
        expected: Tensor = adapted(input_ids=ids).logits
    logits = minitx.load(tmp_path / "adapter", dtype="float32")(ids).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-4)


def _move_encoder(folder: Path, place: str) -> None:
    """Moves the encoder of sentence-transformers to a subfolder, as older versions saved it."""
    (folder / place).mkdir()
    for path in [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]:
        if path.name != "config_sentence_transformers.json":
            path.rename(folder / place / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = place
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_an_adapter_of_sentence_transformers(tmp_path: Path, place: str) -> None:
    """Its pooling, limits and tokenizer lie beside the adapter, which may lie in a folder of its own."""
    import sentence_transformers as library
    from sentence_transformers.sentence_transformer import modules as models

    reference_model(BY_NAME["bert"], "none", torch.float32).save_pretrained(tmp_path / "base")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    (tmp_path / "base" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    encoder = models.Transformer(str(tmp_path / "base"))
    width = encoder.get_embedding_dimension()
    pooling = models.Pooling(width, pooling_mode="cls")
    reference = library.SentenceTransformer(modules=[encoder, pooling], device="cpu")
    targets = ["query", "dense"]
    reference.add_adapter(peft.LoraConfig(r=4, target_modules=targets, task_type="FEATURE_EXTRACTION"))
    for name, parameter in reference.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    reference.save_pretrained(str(tmp_path / "adapter"))
    if place:
        _move_encoder(tmp_path / "adapter", place)
    texts = ["the cat sat", "cat"]
    expected = torch.tensor(reference.encode(texts))
    for folder in (tmp_path / "adapter", tmp_path / "plain"):
        model, tokenizer = minitx.load(folder), minitx.load_tokenizer(folder)
        torch.testing.assert_close(minitx.embed(model, texts, tokenizer), expected, atol=2e-5, rtol=1e-4)
        if folder.name == "adapter":
            minitx.save(model, tmp_path / "plain", tokenizer=tokenizer)
    again = torch.tensor(library.SentenceTransformer(str(tmp_path / "plain"), device="cpu").encode(texts))
    torch.testing.assert_close(again, expected, atol=2e-5, rtol=1e-4)
