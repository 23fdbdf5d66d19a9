"""Tiny random checkpoints with trained tokenizers, for comparing pipelines with those of transformers.

folder = build(tmp_path, "roberta", "ForSequenceClassification", labels=["no", "yes"])
expected = theirs("text-classification", folder)(TEXTS)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers as tk
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from minitx.inspect.compare.reference import quiet
from tests.parity.reference import randomise

LONG = " ".join(f"word{number % 97} and the cat, number {number}" for number in range(500))  # 3,000 tokens
CORPUS = [
    "The quick brown fox jumps over the lazy dog. A cat sleeps on the sofa; the kitten takes a nap.",
    "Angela Merkel met Emmanuel Macron in Berlin on Friday, and John Smith flew to New York.",
    "The bank raised its interest rates. Credit just got expensive! What does the capital of France cost?",
    "I love this movie, but the ending was terrible: 3.14159 stars.",
    "Größere Übungen für Ärzte. L'élève était déjà là. São Paulo e Brasília.",
    "日本語の文章です。東京は大きな都市です。 中文句子没有空格。",
    "שלום עולם, זה טקסט בעברית. مرحبا بالعالم، هذا نص عربي.",
    "Привет, мир! Это предложение на русском языке.",
    LONG[:600],
]
TEXTS = [
    "The cat sleeps.",
    "Angela Merkel met Emmanuel Macron in Berlin, and John Smith flew to New York.",
    "",
    " ",
    "I ❤️ 🍕 and 👩‍👩‍👧‍👦!",
    "e\u0301te\u0301 nai\u0308ve cafe\u0301",  # combining marks
    "東京は大きな都市です。",
    "שלום עולם مرحبا",
    "one\ttab and\none line break,  two  spaces ",
    "<s> [SEP] and xyzzy-42",
    "The bank raised its interest rates. " * 3,
]
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ANGLE = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}


def wordpiece() -> tk.Tokenizer:
    """WordPiece of lower-case letters, as BERT's."""
    tokenizer = tk.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [*SPECIAL.values()]
    trainer = trainers.WordPieceTrainer(vocab_size=320, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_bpe() -> tk.Tokenizer:
    """Byte-level BPE, as RoBERTa's."""
    tokenizer = tk.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*ANGLE.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def unigram() -> tk.Tokenizer:
    """Unigram of pieces, as ALBERT's and T5's."""
    tokenizer = tk.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=320, special_tokens=[*ANGLE.values()], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 24, "intermediate_size": 20}
_SEQ2SEQ = {
    **{f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    "d_model": 24,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "decoder_start_token_id": 2,
}
_T5 = {"d_model": 24, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 3, "decoder_start_token_id": 1}
_DISTILBERT = {"n_layers": 2, "n_heads": 3, "dim": 24, "hidden_dim": 20}
_GPT2 = {"n_layer": 2, "n_head": 3, "n_embd": 24}
Trained = Callable[[], tk.Tokenizer]
# model_type -> config, tokenizer, extra positions of the table
KINDS: dict[str, tuple[dict[str, Any], Trained, int]] = {
    "bert": (_LAYERS, wordpiece, 0),
    "roberta": (_LAYERS, byte_bpe, 2),
    "distilbert": (_DISTILBERT, wordpiece, 0),
    "albert": ({**_LAYERS, "embedding_size": 12}, unigram, 0),
    "bart": (_SEQ2SEQ, byte_bpe, 0),
    "t5": (_T5, unigram, 0),
    "gpt2": (_GPT2, byte_bpe, 0),
}


@lru_cache
def _trained(trained: Trained) -> str:
    text: str = trained().to_str()
    return text


def tokenizer_of(kind: str, **options: Any) -> Any:
    """The tokenizer of a model_type, of transformers; only BERT-like models have token types."""
    trained = KINDS[kind][1]
    angle = trained is not wordpiece
    names: dict[str, Any] = {f"{name}_token": token for name, token in (ANGLE if angle else SPECIAL).items()}
    if angle:
        names |= {"cls_token": "<s>", "sep_token": "</s>"}
        names["mask_token"] = tk.AddedToken("<mask>", lstrip=True, special=True)  # it swallows a space
    types = ["token_type_ids"] if kind in ("bert", "albert") else []
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tk.Tokenizer.from_str(_trained(trained)),
        model_input_names=["input_ids", *types, "attention_mask"],
        **{**names, **options},
    )


def build(
    root: Path,
    kind: str,
    class_suffix: str = "Model",
    *,
    labels: Sequence[str] = (),
    positions: int = 128,
    model_max_length: int | None = 128,
    name: str = "",
    **config: Any,
) -> Path:
    """Saves a random model and its tokenizer; returns the folder.

    Args:
        root: the folder's parent.
        kind: model_type, of `KINDS`.
        class_suffix: of the model's class: "ForMaskedLM" for BertForMaskedLM, "Model" for BertModel.
        labels: names of labels.
        positions: most tokens of the model.
        model_max_length: of the tokenizer.
        name: of the folder, if one kind and class are built several times.
        config: arguments of transformers' config class.
    """
    options, _, more = KINDS[kind]
    limit = {} if model_max_length is None else {"model_max_length": model_max_length}
    tokenizer = tokenizer_of(kind, **limit)
    table = "n_positions" if kind in ("gpt2", "t5") else "max_position_embeddings"
    values: dict[str, Any] = {**options, "vocab_size": len(tokenizer), table: positions + more}
    values |= {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    values["eos_token_id"] = values["eos_token_id"] or tokenizer.sep_token_id
    if labels:
        values |= {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    made = transformers.AutoConfig.for_model(kind, **{**values, **config})
    prefix = type(made).__name__.removesuffix("Config")
    model = getattr(transformers, f"{prefix}{class_suffix}")(made)
    randomise(model)
    model.tie_weights()
    folder = root / f"{kind}-{class_suffix}{name}"
    with quiet():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def theirs(task: str, model: Any, **options: Any) -> Any:
    """The pipeline of transformers for a folder or a model, on the CPU in float32."""
    model = str(model) if isinstance(model, Path) else model
    with quiet():
        return transformers.pipeline(task, model=model, device="cpu", dtype=torch.float32, **options)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-6) -> int:
    """Compares results: the same nesting, keys and order; fractions to a tolerance; returns their number."""
    if isinstance(expected, float):
        assert isinstance(found, float)
        assert abs(found - expected) <= tolerance, (found, expected)
        return 1
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        return sum(assert_close(found[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        return sum(assert_close(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    assert found == expected
    return 1
