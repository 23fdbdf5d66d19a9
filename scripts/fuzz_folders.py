"""The tiny checkpoints that `scripts/fuzz` damages: every architecture, and every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import torch
from safetensors.torch import save_file

import minitx
from tests.parity.cases import CASES, Case

WORDS = "the cat sat on the mat . a dog ran to the house , and it was big !"
GENERATION = {"max_new_tokens": 5, "num_beams": 2, "eos_token_id": 2, "do_sample": False, "top_k": 5}
PROMPTS = {"prompts": {"query": "query: "}, "similarity_fn_name": "cosine"}
HEADS = {"bert": "masked-lm", "llama": "causal-lm", "gpt2": "causal-lm", "t5": "seq2seq-lm"}
MODULES = "sentence_transformers.models."


def make_folders(folder: Path) -> list[Path]:
    """Returns the folders of the checkpoints, made below `folder`."""
    folders = [architecture(folder / case.name, case, number) for number, case in enumerate(CASES)]
    bert, llama = folder / "bert", folder / "llama"
    wordpiece(bert)
    fast_tokenizer(llama)
    (llama / "generation_config.json").write_text(json.dumps(GENERATION))
    folders += [
        shards(folder / "shards", llama),
        pickled(folder / "pickled", bert),
        adapter(folder / "adapter", llama),
        sentence_encoder(folder / "sentence", bert),
        byte_level(folder / "byte-level", folder / "gpt2"),
        sentence_pieces(folder / "pieces", folder / "t5"),
    ]
    native = folder / "native"
    minitx.save(minitx.load(folder / "modernbert"), native, model_type="minitx")
    return [*folders, native]


def architecture(folder: Path, case: Case, number: int) -> Path:
    """Saves a model with one of the heads of its architecture."""
    config: dict[str, Any] = {"model_type": case.model_type, **case.config}
    tasks = [task for task in case.tasks if task != "multiple-choice"]  # its inputs have another shape
    head = HEADS.get(case.name, tasks[number % len(tasks)])
    model = minitx.from_config(config, head=head, seed=number)
    minitx.save(model.eval(), folder)
    return folder


def copied(folder: Path, source: Path, *, weights: bool = True) -> Path:
    """Copies the files of a folder."""
    folder.mkdir()
    for path in source.iterdir():
        if path.is_file() and (weights or path.suffix != ".safetensors"):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def wordpiece(folder: Path) -> None:
    """Adds vocab.txt and the files beside it."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(WORDS.split())), "##s"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    added = {"6": {"content": tokens[6], "special": False, "lstrip": False, "rstrip": False}}
    config = {"do_lower_case": True, "model_max_length": 20, "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def fast_tokenizer(folder: Path) -> None:
    """Adds tokenizer.json and the files beside it."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=40, special_tokens=["<unk>", "<s>", "</s>"])
    backend.train_from_iterator([WORDS], trainer)
    backend.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))


def byte_level(folder: Path, source: Path) -> Path:
    """Returns a folder with vocab.json, merges.txt and added_tokens.json."""
    copied(folder, source)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|endoftext|>", *alphabet, "th", "the"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": len(pieces)}))
    return folder


def sentence_pieces(folder: Path, source: Path) -> Path:
    """Returns a folder with spiece.model."""
    copied(folder, source)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 10),
        model_prefix=str(folder / "spiece"),
        vocab_size=35,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 2})
    )
    return folder


def shards(folder: Path, source: Path) -> Path:
    """Returns a folder with an index and shards."""
    minitx.save(minitx.load(source), folder, max_shard_size=10_000, tokenizer=minitx.load_tokenizer(source))
    return folder


def pickled(folder: Path, source: Path) -> Path:
    """Returns a folder with pytorch_model.bin."""
    copied(folder, source, weights=False)
    torch.save(_tensors(source), folder / "pytorch_model.bin")
    return folder


def _tensors(source: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(source / "model.safetensors"))


def adapter(folder: Path, source: Path) -> Path:
    """Returns a folder with a LoRA adapter beside its base."""
    copied(folder, source)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    shape = _tensors(source)[
        next(n for n in _tensors(source) if n.endswith("layers.0.self_attn.q_proj.weight"))
    ].shape
    pair = {
        f"{name}.lora_A.weight": torch.ones(2, shape[1]),
        f"{name}.lora_B.weight": torch.ones(shape[0], 2),
    }
    save_file(pair, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "layers_to_transform": [0],
        "bias": "none",
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def sentence_encoder(folder: Path, source: Path) -> Path:
    """Returns a folder of sentence-transformers."""
    copied(folder, source)
    size = json.loads((source / "config.json").read_text())["hidden_size"]
    modules = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
    ]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": MODULES + kind}
        for i, (path, kind) in enumerate(modules)
    ]
    dense = {
        "in_features": size,
        "out_features": 6,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    contents = {
        "modules.json": listed,
        "config_sentence_transformers.json": PROMPTS,
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": dense,
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    save_file(
        {"linear.weight": torch.ones(6, size), "linear.bias": torch.ones(6)},
        folder / "2_Dense/model.safetensors",
    )
    return folder
