"""`minitx generate`: a text goes on."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any

from minitx.cli.common import WIDTH, note, print_json, shorten
from minitx.cli.decoding import Request, as_options, request_of
from minitx.decoding.detokenize import text_of
from minitx.decoding.generate import generate, stream
from minitx.decoding.output import Event, FinishReason, Row
from minitx.decoding.search.base import Search
from minitx.decoding.search.tree import BeamTree

# What to say of a text that shows nothing.
EMPTY: dict[FinishReason, str] = {
    "eos": "the model ended its text at once.",
    "stop": "what was to stop the text came at once.",
    "length": "the text has special tokens alone, which are not shown; --json has their ids.",
}


def run(args: Namespace) -> int:
    if args.logprobs and not args.json:
        raise ValueError("--logprobs is shown with --json only.")
    if args.top_logprobs is not None and not args.logprobs:
        raise ValueError("--top-logprobs needs --logprobs raw or --logprobs processed.")
    if args.show_tree and args.json:
        raise ValueError("--show-tree is drawn, and cannot be part of --json.")
    request = request_of(args)
    samples = args.num_samples or 1
    with as_options():
        if len(request.ids) * samples == 1 and not args.json and not isinstance(request.strategy, Search):
            show_as_it_comes(
                stream(
                    request.model,
                    request.ids,
                    request.strategy,
                    prefill_chunk=args.prefill_chunk,
                    **request.settings,
                ),
                has_text=request.tokenizer is not None,
            )
            return 0
        for number, (row, tree) in enumerate(rows(request, args, samples)):
            prompt, sample = divmod(number, samples)
            if args.json:
                print_json(as_json(request, row, prompt, sample), indent=None)
            else:
                show(request, row, prompt, sample, samples)
            if args.show_tree and sample == samples - 1:
                print(f"\n{tree}", flush=True)
    return 0


def show_as_it_comes(events: Iterator[Event], *, has_text: bool) -> None:
    """Prints what each token adds; the line ends even where the text is interrupted."""
    begun, reason = False, None
    try:
        for event in events:
            text = event.text if has_text else f"{event.token} "
            print(text, end="", flush=True)
            begun, reason = begun or text != "", event.finish_reason
    finally:
        if begun:
            print(flush=True)
    if reason is not None and not begun:
        note(EMPTY[reason])


def rows(request: Request, args: Namespace, samples: int) -> Iterator[tuple[Row, BeamTree | None]]:
    """The rows of all prompts, a batch of prompts at a time, each with its prompt's tree of a search."""
    seeds, begun = seeds_of(request), request.settings["decoder_prompts"]
    for start in range(0, len(request.ids), args.batch_size):
        batch = slice(start, start + args.batch_size)
        result = generate(
            request.model,
            request.ids[batch],
            request.strategy,
            num_samples=samples,
            logprobs=args.logprobs,
            top_logprobs=args.top_logprobs or 0,
            prefill_chunk=args.prefill_chunk,
            **request.settings
            | {
                "seed": None if seeds is None else seeds[batch],
                "decoder_prompts": None if begun is None else begun[batch],
            },
        )
        for number, row in enumerate(result):
            yield row, None if result.beams is None else result.beams[number // samples]


def seeds_of(request: Request) -> list[int] | None:
    """A seed for each prompt: another one where a prompt comes again, also if that is in a later batch."""
    seed, seen = request.settings["seed"], Counter[tuple[int, ...]]()
    if seed is None:
        return None
    found = []
    for ids in map(tuple, request.ids):
        found.append(seed + (seen[ids] << 64))  # beyond what anyone gives
        seen[ids] += 1
    return found


def show(request: Request, row: Row, prompt: int, sample: int, samples: int) -> None:
    """The text, and where there are several, before it a line that says what it continues."""
    given = request.prompts[prompt]
    which = f"[{prompt + 1}, sample {sample + 1}]" if samples > 1 else f"[{prompt + 1}]"
    words = given if isinstance(given, str) else " ".join(map(str, given))
    text = " ".join(map(str, row.tokens.tolist())) if row.text is None else row.text
    if len(request.ids) * samples > 1:
        if prompt or sample:
            print()
        print(f"{which} {shorten(words, WIDTH - len(which) - 1)}".rstrip())
        print(text, flush=True)
    elif text:
        print(text, flush=True)
    elif len(row.tokens):
        note(EMPTY[row.finish_reason])


def as_json(request: Request, row: Row, prompt: int, sample: int) -> dict[str, Any]:
    """One row as plain values; a log-probability of -inf is null."""
    found: dict[str, Any] = {
        "prompt": request.prompts[prompt],
        "sample": sample,
        "tokens": row.tokens.tolist(),
        "text": row.text,
        "finish_reason": row.finish_reason,
    }
    if row.score is not None:
        found["score"] = plain(row.score)
    if row.log_weight is not None:
        found["log_weight"] = plain(row.log_weight)
    if row.logprobs is not None:
        found["logprobs"] = [plain(value) for value in row.logprobs.tolist()]
    if row.top_logprobs is not None:
        pairs = zip(row.top_logprobs.ids.tolist(), row.top_logprobs.values.tolist(), strict=True)
        found["top_logprobs"] = [
            [
                {"token": token, "text": text_of(token, request.tokenizer), "logprob": plain(value)}
                for token, value in zip(ids, values, strict=True)
            ]
            for ids, values in pairs
        ]
    return found


def plain(value: float) -> float | None:
    return value if isfinite(value) else None
