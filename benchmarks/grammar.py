"""What a grammar costs in a decoding step: GPT-2 with and without a JSON schema, in turn, in one process.

    python benchmarks/grammar.py [--repeats 7] [--threads 2] [--batch 1] [--new 64] [--json]

GPT-2 with 124 million parameters, random weights, float32, and a byte-level vocabulary of 50,257 tokens: all
bytes, and random words of 2 to 10 letters with and without a space before them. The schema is a list of
objects with strings, integers, numbers and choices, so long that no row ends within the measured tokens. The
output has the medians over the rounds:

    plain     milliseconds per token without a grammar
    first     with the schema, in the first call: the grammar is compiled, and every state is new
    schema    with the schema, in later calls
    mask      the processor of the grammar alone, along the same tokens
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import minitx
from minitx.decoding.arguments import resolve
from minitx.decoding.session import DecodingSession

SIZE = 50_257
GPT2 = {"model_type": "gpt2", "vocab_size": SIZE, "n_positions": 1024}
GPT2 |= {"n_embd": 768, "n_layer": 12, "n_head": 12}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "height": {"type": "number"},
        "role": {"enum": ["author", "editor", "reader"]},
    },
    "required": ["name", "age", "height", "role"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": PERSON, "minItems": 50}


def tokenizer(folder: Path) -> Any:
    """Write a tokenizer of the size and kind of GPT-2's, and load it."""
    draw, alphabet = random.Random(0), sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *string.punctuation])
    while len(tokens) < SIZE - 1:
        word = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 10)))
        tokens[draw.choice(["\u0120", ""]) + word] = None
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return minitx.load_tokenizer(folder)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def masks(model: Any, prompts: list[list[int]], options: dict[str, Any], rows: torch.Tensor) -> float:
    """Time the processor of the grammar along known tokens."""
    _, request = resolve(model, prompts, minitx.Greedy(), {**options, "schema": SCHEMA})
    session = DecodingSession(model, request)
    session.start()
    processor: Any = request.chain.processors[0]
    state, logits, total = processor.init(session.context), session.logits, 0.0
    for token in rows.unbind(dim=1):
        start = time.perf_counter()
        processor(logits, session.context, state)
        state = processor.update(state, session.context, token, logits)
        total += time.perf_counter() - start
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        words = tokenizer(Path(folder))
    model = minitx.from_config(GPT2, head="causal-lm", seed=0).eval()
    draw = torch.Generator().manual_seed(1)
    prompts = torch.randint(0, SIZE - 1, (arguments.batch, 32), generator=draw).tolist()
    options: dict[str, Any] = {
        "max_new_tokens": arguments.new,
        "tokenizer": words,
        "stop": minitx.Stop(eos=SIZE - 1),
    }
    banned = minitx.Greedy(suppress_tokens=[SIZE - 1])  # neither side ends
    plain = lambda: minitx.generate(model, prompts, banned, **options)  # noqa: E731
    schema = lambda: minitx.generate(model, prompts, minitx.Greedy(), schema=SCHEMA, **options)  # noqa: E731
    plain()
    first = timed(schema)
    rows = torch.stack(schema().sequences)
    rounds = [
        (timed(plain), timed(schema), masks(model, prompts, options, rows)) for _ in range(arguments.repeats)
    ]
    names = ("plain", "schema", "mask")
    medians = {
        name: statistics.median(times) for name, times in zip(names, zip(*rounds, strict=True), strict=True)
    }
    found = {name: 1000 * value / arguments.new for name, value in (medians | {"first": first}).items()}
    found["share"] = found["mask"] / found["plain"]
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"GPT-2 124M, batch {arguments.batch}, {arguments.threads} threads; milliseconds per token")
    for name in ("plain", "schema", "mask", "first"):
        print(f"  {name:<8}{found[name]:8.2f}")
    print(f"the mask takes {found['share']:.1%} of a plain step")


if __name__ == "__main__":
    main()
