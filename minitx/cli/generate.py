"""`minitx generate` and `minitx explain`: continue texts, and show how a token is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import minitx
from minitx.cli.decoding import Request, request_of
from minitx.cli.decoding_options import RENAMED, Sources, Values, strategy_options
from minitx.cli.options import MODEL, Argument, Group, command
from minitx.cli.render import WIDTH, emit, finite, note
from minitx.cli.source import Source
from minitx.decoding.detokenize import text_of
from minitx.decoding.generate import stream
from minitx.decoding.output import Event, FinishReason, Row
from minitx.decoding.search.base import Search
from minitx.habits import OPTIONS
from minitx.inspect.text import shorten_line

# Why a text shows nothing.
EMPTY: dict[FinishReason, str] = {
    "eos": "the model ended its text at once.",
    "stop": "--stop or --stop-tokens ended the text at once.",
    "length": "the text has special tokens alone, which are not shown; --json has their ids.",
}


class Length(Group):
    """
    --max-new-tokens N  most per text (default: 64, or as stored)
    --min-new-tokens N  no end before N tokens; 0: off
    --num-samples COUNT  texts per prompt; without it one
    --logprobs raw|processed  with --json: before or after all steps
    --top-logprobs N  also of the N best tokens
    --batch-size COUNT  texts per batch (default: 8)
    --prefill-chunk COUNT  prompt tokens per forward, to save memory
    --show-tree  also the tree of hypotheses of --beams
    """

    title = "length and output"


@command(
    *(MODEL, Argument("texts", "[PROMPT ...]", "texts; none: lines of stdin")),
    *(*Sources.options(), *Length.options(), *strategy_options(searches=True)),
    renamed=RENAMED,
    elsewhere=OPTIONS | {"--top": "minitx explain has it"},
)
def generate(source: Source, json: bool, **values: Any) -> None:
    """Continues a text, or writes the output of an encoder-decoder, such as a
    translation, and shows it as it comes. Several prompts, from the command line,
    from --file or, one per line, from stdin, are each shown when complete.

    Without options each token is drawn from the model's own distribution. --greedy
    always takes the most probable one; every option below changes that choice, and
    minitx explain shows how. --checkpoint decodes as the model's authors suggest.

    --file PATH  a text file, one text per line
    --ids IDS...  token ids as a prompt: "464 3290"
    --chat  the prompt is a message to a chat model
    --system TEXT  a system message before it

    examples:
      minitx generate gpt2 "Once upon a time" --temperature 0.8 --top-p 0.95
      minitx generate gpt2 "2, 4, 6," --greedy --max-new-tokens 10
      minitx generate gpt2 "My cat" --num-samples 3 --seed 1 --stop "."
      minitx generate gpt2 "My cat" --beams 4 --show-tree --max-new-tokens 12
      minitx generate t5-small "translate English to German: My cat." --beams 4
      minitx generate ./nllb "My cat." --src-lang eng_Latn --tgt-lang deu_Latn
      minitx generate ./chat-model "Why is the sky blue?" --chat --checkpoint
      minitx generate gpt2 --file prompts.txt --json --logprobs raw

    Numbers in lists are separated by commas or spaces. In --force-words,
    --bad-words-ids and --sequence-bias a space joins ids to one phrase, and a comma
    ends it: "1996 3103" is one phrase, "1996,3103" are two. Options that take
    lists, --stop and --force-text can be repeated.
    """
    if values["logprobs"] and not json:
        raise ValueError("--logprobs is shown with --json only.")
    if values["top_logprobs"] is not None and not values["logprobs"]:
        raise ValueError("--top-logprobs needs --logprobs raw or --logprobs processed.")
    if values["show_tree"] and json:
        raise ValueError("--show-tree is a drawing, and cannot be part of --json.")
    request = request_of(source, values)
    samples, chunk = values["num_samples"] or 1, values["prefill_chunk"]
    if len(request.ids) * samples == 1 and not json and not isinstance(request.strategy, Search):
        events = stream(request.model, request.ids, request.strategy, prefill_chunk=chunk, **request.settings)
        show_as_it_comes(events, [], ids=request.settings["tokenizer"] is None)
        return
    for number, (row, tree) in enumerate(rows(request, values, samples)):
        prompt, sample = divmod(number, samples)
        shown = "" if json else as_text(request, row, prompt, sample, samples)
        emit(json, json and as_json(request, row, prompt, sample), shown, indent=None)
        if values["show_tree"] and sample == samples - 1:
            print(f"\n{tree}", flush=True)


@command(
    *(MODEL, Argument("texts", "[PROMPT ...]", "one text; none: the line of stdin")),
    *(*Sources.options(), *strategy_options(searches=False)),
    renamed=RENAMED,
    elsewhere={name: "minitx generate has it" for each in generate.params for name in each.opts} | OPTIONS,
)
def explain(source: Source, top: int, json: bool, **values: Any) -> None:
    """Shows how the next token is chosen: the model's distribution, and how every step
    changes it. A step is an option that was given, in the order in which they work.
    For each: how many tokens remain, how much probability they had, the remaining
    uncertainty (entropy, in nats) and the most probable tokens; then the last
    distribution as bars, with an arrow at the token that is drawn.

    --file PATH  a text file, one text per line
    --ids IDS...  token ids as a prompt: "464 3290"
    --chat  the prompt is a message to a chat model
    --system TEXT  a system message before it
    --top COUNT  tokens per step (default: 5)
    --max-new-tokens COUNT  how many tokens (default: 1)
    --min-new-tokens N  no end before N tokens; 0: off

    examples:
      minitx explain gpt2 "The capital of France is"
      minitx explain gpt2 "My cat" --temperature 1.5 --top-k 20 --top-p 0.9
      minitx explain gpt2 "My cat" --temperature 1.5 --top-p 0.9 --order llama.cpp
      minitx explain gpt2 "a b c a b" --no-repeat-ngram-size 2 --max-new-tokens 2

    Numbers in lists are separated by commas or spaces. In --bad-words-ids and
    --sequence-bias a space joins ids to one phrase, and a comma ends it: "1996
    3103" is one phrase, "1996,3103" are two. Options that take lists, and --stop,
    can be repeated.
    """
    request = request_of(source, values)
    if len(request.ids) > 1:
        raise ValueError(f"explain takes one prompt, and there are {len(request.ids)}.")
    result = minitx.explain(request.model, request.ids[0], request.strategy, top=top, **request.settings)
    emit(json, result.to_json(), str(result))


def show_as_it_comes(
    events: Iterator[Event], texts: list[str], *, ids: bool = False, quiet: bool = False
) -> None:
    """Prints the text, or the id, of each token; the line ends even where it is interrupted.

    Args:
        events: of one row.
        texts: gets what is printed, token by token.
        ids: instead of texts.
        quiet: prints nothing.
    """
    reason = None
    try:
        for event in events:
            texts.append(f"{event.token} " if ids else event.text)
            reason = event.finish_reason
            print("" if quiet else texts[-1], end="", flush=True)
    finally:
        if any(texts) and not quiet:
            print(flush=True)
    if reason is not None and not any(texts) and not quiet:
        note(EMPTY[reason])


def rows(request: Request, values: Values, samples: int) -> Iterator[tuple[Row, Any]]:
    """Yields the rows of all prompts, generated batch by batch, each with the tree of its prompt's search."""
    own = {"seed": seeds_of(request), "decoder_prompts": request.settings["decoder_prompts"]}
    more = {name: values[name] for name in ("logprobs", "prefill_chunk")} | {"num_samples": samples}
    more["top_logprobs"] = values["top_logprobs"] or 0
    for start in range(0, len(request.ids), values["batch_size"]):
        batch = slice(start, start + values["batch_size"])
        settings = request.settings | more | {name: each and each[batch] for name, each in own.items()}
        result = minitx.generate(request.model, request.ids[batch], request.strategy, **settings)
        for number, row in enumerate(result):
            yield row, None if result.beams is None else result.beams[number // samples]


def seeds_of(request: Request) -> list[int] | None:
    """A seed for each prompt; equal prompts get different ones, also in different batches."""
    seed, times = request.settings["seed"], Counter[tuple[int, ...]]()
    if seed is None:
        return None
    seeds = []
    for ids in map(tuple, request.ids):
        seeds.append(seed + (times[ids] << 64))  # beyond any seed that is typed
        times[ids] += 1
    return seeds


def as_text(request: Request, row: Row, prompt: int, sample: int, samples: int) -> str:
    """The text, after the number and the beginning of its prompt where there are several texts."""
    text = joined(row.tokens.tolist()) if row.text is None else row.text
    if len(request.ids) * samples > 1:
        number = f"[{prompt + 1}, sample {sample + 1}]" if samples > 1 else f"[{prompt + 1}]"
        begin = shorten_line(joined(request.prompts[prompt]), WIDTH - len(number) - 1)
        return "\n" * bool(prompt or sample) + f"{number} {begin}".rstrip() + f"\n{text}"
    if not text and len(row.tokens):
        note(EMPTY[row.finish_reason])
    return text


def joined(prompt: str | list[int]) -> str:
    """A text as it is, ids separated by spaces."""
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def as_json(request: Request, row: Row, prompt: int, sample: int) -> Values:
    """One row as plain values; a log-probability of -inf is null."""
    tokenizer = request.settings["tokenizer"]
    plain: Values = {"prompt": request.prompts[prompt], "sample": sample, "tokens": row.tokens.tolist()}
    plain |= {"text": row.text, "finish_reason": row.finish_reason}
    scores = {name: getattr(row, name) for name in ("score", "log_weight")}
    plain |= {name: finite(score) for name, score in scores.items() if score is not None}
    if row.logprobs is not None:
        plain["logprobs"] = [finite(value) for value in row.logprobs.tolist()]
    if row.top_logprobs is not None:
        plain["top_logprobs"] = []
        for step in zip(*map(list, row.top_logprobs), strict=True):
            best = zip(*(values.tolist() for values in step), strict=True)
            each = [{"token": t, "text": text_of(t, tokenizer), "logprob": finite(p)} for t, p in best]
            plain["top_logprobs"].append(each)
    return plain
