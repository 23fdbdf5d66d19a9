"""Tiny random decoders with trained tokenizers and a chat template, for comparing text generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers as tk
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from minitx.inspect.compare.reference import quiet

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Once upon a time there was a king.",
    "Die Universität Zürich, 我住在北京, أين تقع القاهرة, I love pizza 🍕 and cafe\u0301.",
]
SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if documents %}{{ documents | tojson }}{% endif %}"
    "{% if short %}Briefly.{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STRIPPING = TEMPLATE.replace("m['content']", "m['content'].strip()")
_SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_LLAMA = {**_SIZES, "intermediate_size": 40, "max_position_embeddings": 4096}
_GPT2 = {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 200, "bos_token_id": 0, "eos_token_id": 0}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "llama": {**_LLAMA, "bos_token_id": 1, "eos_token_id": 2},
    "qwen2": {**_LLAMA, "bos_token_id": None, "eos_token_id": 4},
}


def _bytes() -> tk.Tokenizer:
    tokenizer = tk.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return tokenizer


def _pieces() -> tk.Tokenizer:
    """BPE with a mark for spaces and bytes for unknown characters, as Llama 2's."""
    tokenizer = tk.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    units = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>", *units]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    content = json.loads(tokenizer.to_str())
    content["model"] |= {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in units]
    tokenizer = tk.Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def build(folder: Path, kind: str, generation: dict[str, Any] | None = None, **config: Any) -> Path:
    """Writes a checkpoint: its scaled weights give texts that differ.

    Args:
        folder: to be written.
        kind: of KINDS.
        generation: content of generation_config.json; None for no such file.
        config: further values of config.json.
    """
    roles: dict[str, str] = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    if kind == "llama":
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "qwen2":
        roles = {"eos_token": "<|end|>", "pad_token": "<|endoftext|>"}
    backend = _pieces() if kind == "llama" else _bytes()
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()  # which transformers adds for this architecture
    length = {"model_max_length": 200} if kind == "gpt2" else {}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **length)
    tokenizer.chat_template = STRIPPING if kind == "llama" else TEMPLATE
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(
        kind, **{**KINDS[kind], **config, "vocab_size": len(tokenizer)}
    )
    model = transformers.AutoModelForCausalLM.from_config(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
