"""`minitx explain`: how the next token is chosen."""

from __future__ import annotations

from typing import Any

from minitx.cli import decoding, decoding_options, options, render
from minitx.cli.options import grouped, option
from minitx.cli.source import Source
from minitx.inspect.explain import explain

# Options of `minitx generate` alone.
GENERATE_ONLY = (
    *("--num-samples", "--logprobs", "--top-logprobs", "--prefill-chunk", "--batch-size", "--show-tree"),
    *(name for option in decoding_options.strategy_options(searches=True) for name in option.opts),
)
ELSEWHERE = dict.fromkeys(GENERATE_ONLY, "minitx generate has it") | decoding_options.NOT_HERE


@options.as_command(
    *decoding_options.prompt_options("one text; none: the line of stdin"),
    *grouped(
        decoding_options.LENGTH,
        option("--top N", "tokens per step (default: 5)", options.positive, default=5),
    ),
    *decoding_options.length_options(options.positive, 1, "how many tokens (default: 1)"),
    *decoding_options.strategy_options(searches=False),
    elsewhere=ELSEWHERE,
    **decoding_options.TEXTS,
)
def command(source: Source, top: int, json: bool, **values: Any) -> None:
    """Shows how the next token is chosen: the model's distribution, and how every step
    changes it. A step is an option that was given, in the order in which they work.
    For each: how many tokens remain, how much probability they had, the remaining
    uncertainty (entropy, in nats) and the most probable tokens; then the last
    distribution as bars, with an arrow at the token that is drawn.

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
    request = decoding.request_of(source, values)
    if len(request.ids) > 1:
        raise ValueError(f"explain takes one prompt, and there are {len(request.ids)}.")
    explanation = explain(request.model, request.ids[0], request.strategy, top=top, **request.settings)
    if json:
        render.print_json(explanation.to_json())
    else:
        print(explanation)
