"""Print the table of architectures and heads, or write it into README.md and docs/supported.md.

    .venv/bin/python scripts/supported.py           prints it
    .venv/bin/python scripts/supported.py --write   writes it between the markers of both files

The ticks come from the registry: a head is supported if its architecture has a weight table for it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from minitx.architectures import REGISTRY, architecture

ROOT = Path(__file__).parents[1]
FILES = {"README.md": "minitx/", "docs/supported.md": "https://github.com/minitx/minitx/blob/main/minitx/"}
MARKS = "<!-- supported: begin, written by scripts/supported.py -->", "<!-- supported: end -->"

# module -> the names that its checkpoints are known by
TITLES = {
    "encoders.bert": "BERT",
    "encoders.roberta": "RoBERTa, XLM-R, CamemBERT",
    "encoders.distilbert": "DistilBERT",
    "encoders.electra": "ELECTRA",
    "encoders.albert": "ALBERT",
    "encoders.mpnet": "MPNet",
    "encoders.modernbert": "ModernBERT",
    "encoders.deberta_v2": "DeBERTa-v2, v3",
    "encoders.tapas": "TAPAS",
    "decoders.gpt2": "GPT-2",
    "decoders.gpt_neo": "GPT-Neo",
    "decoders.gptj": "GPT-J",
    "decoders.gpt_neox": "GPT-NeoX, Pythia",
    "decoders.opt": "OPT",
    "decoders.bloom": "BLOOM",
    "decoders.phi": "Phi",
    "decoders.phi3": "Phi-3",
    "decoders.llama": "Llama 1 to 3",
    "decoders.granite": "Granite",
    "decoders.mistral": "Mistral",
    "decoders.mixtral": "Mixtral",
    "decoders.qwen2": "Qwen2, Qwen2.5",
    "decoders.qwen3": "Qwen3",
    "decoders.qwen3_moe": "Qwen3-MoE",
    "decoders.gemma": "Gemma",
    "decoders.gemma2": "Gemma 2",
    "decoders.gemma3": "Gemma 3 (text)",
    "decoders.smollm3": "SmolLM3",
    "decoders.olmo2": "OLMo 2",
    "decoders.gpt_oss": "gpt-oss (unquantised)",
    "encoder_decoders.t5": "T5, Flan-T5, mT5, ByT5, UMT5",
    "encoder_decoders.bart": "BART",
    "encoder_decoders.mbart": "mBART, mBART-50",
    "encoder_decoders.marian": "Marian (Opus-MT)",
    "encoder_decoders.pegasus": "Pegasus",
    "encoder_decoders.m2m_100": "M2M100, NLLB",
    "encoder_decoders.blenderbot": "Blenderbot",
    "encoder_decoders.encoder_decoder": "BERT or RoBERTa with BERT, RoBERTa or GPT-2",
}
FAMILIES = {"encoders": "Encoders", "decoders": "Decoders", "encoder_decoders": "Encoder-decoders"}
HEADS = {
    "causal-lm": "causal<br>LM",
    "seq2seq-lm": "seq2seq<br>LM",
    "masked-lm": "masked<br>LM",
    "sequence-classification": "sequence<br>class.",
    "token-classification": "token<br>class.",
    "question-answering": "question<br>answering",
    "multiple-choice": "multiple<br>choice",
    "next-sentence": "next<br>sentence",
    "replaced-token-detection": "replaced<br>token",
    "table-question-answering": "table<br>QA",
    "encoder": "encoder<br>alone",
}


def heads_of(module: str) -> set[str]:
    """The tasks that the architecture in a module has heads for, and "encoder" where that loads alone."""
    model_type = next(name for name, found in REGISTRY.items() if found == module)
    found = architecture(model_type)
    return {*found.head_weights, *(found.encoder_tasks & {"encoder"})}


def table(family: str, link: str) -> str:
    """The Markdown table of one family, with links that begin with `link`."""
    modules = {module: heads_of(module) for module in TITLES if module.startswith(f"{family}.")}
    columns = [head for head in HEADS if any(head in heads for heads in modules.values())]
    lines = [
        f"| {FAMILIES[family]} | `model_type` | {' | '.join(HEADS[head] for head in columns)} |",
        f"| --- | --- |{' :-: |' * len(columns)}",
    ]
    for module, heads in modules.items():
        types = ", ".join(f"`{name}`" for name, found in REGISTRY.items() if found == module)
        title = f"[{TITLES[module]}]({link}architectures/{module.replace('.', '/')}.py)"
        ticks = " | ".join("✓" if head in heads else "" for head in columns)
        lines.append(f"| {title} | {types} | {ticks} |")
    return "\n".join(lines)


def matrix(link: str) -> str:
    """The tables of all families."""
    return "\n\n".join(table(family, link) for family in FAMILIES)


def updated(text: str, link: str) -> str:
    """A file's text with the tables between the markers."""
    begin, end = MARKS
    replacement: Callable[[re.Match[str]], str] = lambda _: f"{begin}\n\n{matrix(link)}\n\n{end}"  # noqa: E731
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", replacement, text, flags=re.DOTALL)


def main(arguments: list[str]) -> None:
    """Print the tables, or write them."""
    if "--write" not in arguments:
        print(matrix(FILES["README.md"]))
        return
    for name, link in FILES.items():
        path = ROOT / name
        text = path.read_text()
        if (new := updated(text, link)) != text:
            path.write_text(new)


if __name__ == "__main__":
    main(sys.argv[1:])
