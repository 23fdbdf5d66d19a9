"""The options of `minitx generate` and `minitx explain`: every parameter of decoding, by its name.

An option has the name of a field of a strategy (`Sample`, `Beam`, ...) or of `Stop`, or of an argument of
`generate`; tests hold this list to theirs. Nothing heavy is imported here, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from minitx.cli.options import command, model_options, positive, source_options
from minitx.cli.values import (
    LISTS,
    biases,
    ids,
    number,
    phrases,
    sequence_biases,
    sequences,
    start_and_factor,
    stopping,
    switch,
    whole,
)

GENERATE = """\
Continues a text, or writes what an encoder-decoder makes of it, such as a
translation, and shows it as it comes. Several prompts, from the command
line, from --file or, one per line, from stdin, are each shown when complete.

Without options each token is drawn from the model's own distribution. --greedy
always takes the most probable one; every option below changes that choice, and
minitx explain shows how. --checkpoint does as the model's makers suggest."""

GENERATE_EXAMPLES = """\
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
lists, --stop and --force-text can be repeated. A value that begins with -
follows a =: --stop=--"""

EXPLAIN = """\
Shows how the next token is chosen: the model's distribution, and what every
step makes of it. A step is an option that was given, in the order in which they
work. For each: how many tokens are kept, how much probability they had, the
uncertainty that is left (entropy, in nats) and the most probable tokens; then
the last distribution as bars, with an arrow at the token that is drawn."""

EXPLAIN_EXAMPLES = """\
examples:
  minitx explain gpt2 "The capital of France is"
  minitx explain gpt2 "My cat" --temperature 1.5 --top-k 20 --top-p 0.9
  minitx explain gpt2 "My cat" --temperature 1.5 --top-p 0.9 --order llama.cpp
  minitx explain gpt2 "a b c a b" --no-repeat-ngram-size 2 --max-new-tokens 2

Numbers in lists are separated by commas or spaces. In --bad-words-ids and
--sequence-bias a space joins ids to one phrase, and a comma ends it: "1996
3103" is one phrase, "1996,3103" are two. Options that take lists, and --stop,
can be repeated. A value that begins with - follows a =: --stop=--"""


# What the groups of options have in common.
CHOICE = """\
These shape the distribution; try --temperature 0.8 --top-p 0.95. A value
holds for all prompts; in Python there can be one for each."""
SEARCHING = """\
Several texts grow side by side, and the most probable one wins. Try --beams 4
--length-penalty 0.6. --num-samples then shows as many of the best."""
SEVERAL = """\
Other ways to several texts of one prompt; give --num-samples 4 with them."""
READING = """\
Of models with an encoder, which reads the prompt. What they write begins with
a start token of their own; what you give comes behind it and is not shown."""
PENALTY = "Against repetition; try --repetition-penalty 1.1."
CONSTRAINT = """\
Tokens are named by their ids, which minitx generate --json shows. Try
--suppress-tokens 464,50."""
END = """\
It ends with an end token of the model, or has --max-new-tokens; or else:"""


DEFAULT_LENGTH = 64  # most new tokens, where neither an option nor the checkpoint says it


class Option(NamedTuple):
    """One option, by the name of the parameter: top_p is --top-p.

    Attributes:
        kind: what its text becomes; None for a flag.
        metavar: what --help calls its value.
        help: what it does, and where it does nothing.
    """

    kind: Callable[[str], Any] | None
    metavar: str
    help: str


# Fields of `Sample` alone.
SAMPLING = {
    "temperature": Option(number, "X", "below 1 less random, above 1 more; 1: off"),
    "top_k": Option(whole, "K", "keep the K most probable; 0: all"),
    "top_p": Option(number, "P", "keep the most probable, together P; 1: all"),
    "min_p": Option(number, "P", "drop what is below P times the most probable; 0: off"),
    "typical_p": Option(number, "P", "keep the most typical, together P; 1: all"),
    "epsilon_cutoff": Option(number, "P", "drop what is less probable than P; 0: off"),
    "eta_cutoff": Option(number, "P", "the same, less strict where uncertain; 0: off"),
    "top_h": Option(number, "X", "keep the most probable with X of the entropy, 0 to 1"),
}
# Fields of the searches alone.
SEARCH = {
    "num_beams": Option(whole, "N", "how many texts to keep"),
    "length_penalty": Option(number, "X", "above 0 favours long texts, below 0 short; default: 1"),
    "length_norm": Option(str, "NAME", "power (default) or gnmt: how lengths count"),
    "early_stopping": Option(stopping, "WHEN", "true, false (default), never or exact: when to stop"),
    "coverage_penalty": Option(number, "X", "above 0: all that was read must be looked at"),
    "patience": Option(number, "X", "keep X times N ended texts; default: 1"),
    "num_beam_groups": Option(whole, "G", "diverse: in G groups that keep apart"),
    "diversity_penalty": Option(number, "X", "how far they keep apart; default: 0.5"),
    "force_words_ids": Option(phrases, "IDS", 'texts must hold such phrases, here two: "464 3290,50"'),
    "push_progress": Option(switch, "YES", "false: held words may come last; default: true"),
}
SHORT = {"num_beams": "--beams", "num_beam_groups": "--beam-groups", "force_words_ids": "--force-words"}
# Flags that choose another strategy.
DRAWN = {
    "beam_sample": Option(None, "", "draw what the beams go on with"),
    "stochastic_beam": Option(None, "", "draw --num-samples different texts, fewer than N"),
}
SAMPLES = {
    "arithmetic": Option(None, "", "draw them as different from each other as can be"),
    "alternatives": Option(None, "", "one for each of the most probable first tokens"),
}
# Fields of `Greedy` and `Sample`.
PENALTIES = {
    "repetition_penalty": Option(number, "X", "of all tokens so far; above 1 fewer repeats, 1: off"),
    "presence_penalty": Option(number, "X", "of generated tokens, -2 to 2; 0: off"),
    "frequency_penalty": Option(number, "X", "the same, times how often they came; 0: off"),
    "no_repeat_ngram_size": Option(whole, "N", "no N tokens come twice; 0: off"),
    "encoder_repetition_penalty": Option(number, "X", "above 1 favours the prompt's tokens; 1: off"),
    "encoder_no_repeat_ngram_size": Option(whole, "N", "no N tokens come from the prompt; 0: off"),
}
CONSTRAINTS = {
    "logit_bias": Option(biases, "ID=BIAS", 'add to logits, -100 to 100: "464=-5, 50=2"'),
    "sequence_bias": Option(sequence_biases, "IDS=BIAS", 'the same for sequences: "464 3290=-5"'),
    "bad_words_ids": Option(sequences, "IDS", 'ban such phrases, here two: "464 3290,50"'),
    "allowed_token_ids": Option(ids, "IDS", "allow only these tokens"),
    "suppress_tokens": Option(ids, "IDS", "ban these tokens"),
    "begin_suppress_tokens": Option(ids, "IDS", "ban these as the first generated token"),
    "forced_bos_token_id": Option(whole, "ID", "this must follow a prompt of one token"),
    "forced_eos_token_id": Option(ids, "IDS", "one of these must be the last possible token"),
    "exponential_decay_length_penalty": Option(
        start_and_factor, "START,FACTOR", "20,1.05: an end ever more likely after 20 tokens"
    ),
    "min_length": Option(whole, "N", "no end before N tokens, prompt included; 0: off"),
    "remove_invalid_values": Option(None, "", "go on where the model computes NaN or infinity"),
    "renormalize_logits": Option(None, "", "logits become log-probabilities at the end"),
}
# Fields of `Stop`, by the names of their options.
STOP = {"eos": "eos", "tokens": "stop_tokens", "strings": "stop", "include_stop": "include_stop"}
STOPPING = {
    "stop_tokens": Option(ids, "IDS", "tokens that end the text too"),
    "include_stop": Option(None, "", "show the --stop or --stop-tokens that ended it"),
}
ORDERS = ("transformers", "vllm", "llama.cpp")

# Parameters without an option: why.
NOT_HERE = {
    "processors": "it takes Python functions: minitx.Sample(processors=[...])",
    "prefix_allowed_tokens_fn": "it is a Python function: minitx.Sample(prefix_allowed_tokens_fn=...)",
    "chain": "it is made in Python: minitx.Sample(chain=minitx.Chain(...))",
    "generator": "it is an object of PyTorch; --seed makes draws repeatable",
    "attention_mask": "prompts of different lengths are padded for you",
    "tokenizer": "it is the one beside the model",
}
# What users of other tools look for.
_ELSEWHERE = {
    "--do-sample": "sampling is the default, --greedy the other way",
    "--num-return-sequences": "it is called --num-samples",
    "--max-length": "--max-new-tokens counts the new tokens alone",
    "--stop-strings": "it is called --stop",
    "--eos-token-id": "it is called --eos",
    "--n": "it is called --num-samples",
    "--strategy": "it is --greedy, or --checkpoint; sampling is the default",
    "--head": "it is always the one for the next token",
}
_GENERATE_ONLY = (
    *("num_samples", "logprobs", "top_logprobs", "prefill_chunk", "batch_size"),
    *("beams", "beam_groups", "force_words", "force_text", "show_tree", *SEARCH, *DRAWN, *SAMPLES),
)


def dashed(name: str) -> str:
    """The option of a parameter."""
    return "--" + name.replace("_", "-")


def generate_parser(commands: Any) -> None:
    made = command(commands, "generate", "a text goes on", GENERATE, GENERATE_EXAMPLES)
    made.usage = "minitx generate MODEL [PROMPT ...] [options]"
    _prompt_options(made, "texts; none: lines of stdin")
    output = made.add_argument_group("how much, and how it is shown")
    _length_options(output, whole, None, f"most per text (default: {DEFAULT_LENGTH}, or the checkpoint's)")
    output.add_argument("--num-samples", type=positive, metavar="N", help="texts per prompt (default: 1)")
    output.add_argument(
        "--logprobs",
        choices=("raw", "processed"),
        help="with --json: before or after all steps",
    )
    output.add_argument("--top-logprobs", type=whole, metavar="N", help="also of the N best tokens")
    output.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="prompts at a time (default: %(default)s)"
    )
    output.add_argument(
        "--prefill-chunk", type=positive, metavar="N", help="read long prompts N tokens at a time"
    )
    _add(output, {"show_tree": Option(None, "", "also all that --beams kept")})
    _choice_options(made)
    search = made.add_argument_group("searching", SEARCHING)
    _add(search, SEARCH)
    search.add_argument(
        "--force-text", action="append", metavar="TEXT", help='texts must hold this, space and all: " cat"'
    )
    _add(search, DRAWN)
    _add(made.add_argument_group("several samples", SEVERAL), SAMPLES)
    _model_options(made)
    made.set_defaults(elsewhere=_reasons(NOT_HERE | {"top": "minitx explain has it"}))


def explain_parser(commands: Any) -> None:
    made = command(commands, "explain", "how the next token is chosen", EXPLAIN, EXPLAIN_EXAMPLES)
    made.usage = "minitx explain MODEL PROMPT [options]"
    _prompt_options(made, "one text; none: the line of stdin")
    output = made.add_argument_group("how much is shown")
    output.add_argument(
        "--top", type=positive, default=5, metavar="N", help="tokens per step (default: %(default)s)"
    )
    _length_options(output, positive, 1, "how many tokens (default: 1)")
    _choice_options(made)
    _model_options(made)
    other = dict.fromkeys(_GENERATE_ONLY, "minitx generate has it")
    made.set_defaults(elsewhere=_reasons(NOT_HERE | other))


def _reasons(names: Mapping[str, str]) -> dict[str, str]:
    return {dashed(name): why for name, why in names.items()} | _ELSEWHERE


def _prompt_options(made: argparse.ArgumentParser, text: str) -> None:
    made.add_argument("model", metavar="MODEL", help="folder or Hub id")
    made.add_argument("texts", nargs="*", default=[], metavar="PROMPT", help=text)
    made.add_argument("--file", metavar="PATH", help="a text file, one prompt per line")
    made.add_argument(
        "--ids", type=ids, action="append", metavar="IDS", help='token ids as a prompt: "464 3290"'
    )
    made.add_argument("--chat", action="store_true", help="the prompt is a message to a chat model")
    made.add_argument("--system", metavar="TEXT", help="a system message before it")
    reading = made.add_argument_group("translating and the like", READING)
    reading.add_argument("--src-lang", metavar="CODE", help="language of the prompt, such as en_XX")
    reading.add_argument("--tgt-lang", metavar="CODE", help="language to write in")
    begin = reading.add_mutually_exclusive_group()
    begin.add_argument(
        "--decoder-prompt",
        dest="decoder_prompts",
        action="append",
        metavar="TEXT",
        help="what is written begins so; one, or one per prompt",
    )
    begin.add_argument(
        "--decoder-ids",
        type=ids,
        action="append",
        metavar="IDS",
        help="the same as ids, with the start token",
    )


def _model_options(made: argparse.ArgumentParser) -> None:
    model = made.add_argument_group("the model")
    source_options(model)
    model_options(model, head=False)
    model.add_argument("--device", default="cpu", help="such as cuda (default: %(default)s)")


def _length_options(group: Any, kind: Callable[[str], int], default: int | None, text: str) -> None:
    group.add_argument("--max-new-tokens", type=kind, default=default, metavar="N", help=text)
    group.add_argument("--min-new-tokens", type=whole, metavar="N", help="no end before N tokens; 0: off")


def _choice_options(made: argparse.ArgumentParser) -> None:
    """How a token is chosen, and when the text ends."""
    choice = made.add_argument_group("how a token is chosen", CHOICE)
    choice.add_argument("--greedy", action="store_true", help="the most probable one; nothing is drawn")
    choice.add_argument(
        "--checkpoint", action="store_true", help="as generation_config.json says; options change it"
    )
    choice.add_argument("--seed", type=whole, metavar="N", help="any whole number: the same text every time")
    _add(choice, SAMPLING)
    choice.add_argument("--order", choices=ORDERS, help="the order of the steps (default: transformers)")
    _add(made.add_argument_group("penalties", PENALTY), PENALTIES)
    _add(made.add_argument_group("biases, bans and forced tokens", CONSTRAINT), CONSTRAINTS)
    stop = made.add_argument_group("where the text ends", END)
    stop.add_argument(
        "--stop", action="append", metavar="TEXT", help="where this would come; it is not shown"
    )
    ends = stop.add_mutually_exclusive_group()
    ends.add_argument(
        "--eos", type=ids, action="extend", metavar="IDS", help="end tokens, instead of the model's own"
    )
    ends.add_argument("--ignore-eos", action="store_true", help="end tokens do not end it")
    _add(stop, STOPPING)


def _add(group: Any, options: Mapping[str, Option]) -> None:
    for name, option in options.items():
        spelt = [SHORT[name], dashed(name)] if name in SHORT else [dashed(name)]
        if option.kind is None:
            group.add_argument(*spelt, action="store_true", default=None, help=option.help)
        else:
            action = "extend" if option.kind in LISTS else "store"
            group.add_argument(
                *spelt,
                dest=name,
                type=option.kind,
                action=action,
                metavar=option.metavar,
                help=option.help,
            )


def names() -> Iterable[str]:
    """The parameters that have options, as the library's errors call them."""
    parts = (SAMPLING, SEARCH, PENALTIES, CONSTRAINTS, STOPPING)
    own = ("max_new_tokens", "min_new_tokens", "prefill_chunk", "seed", "order", *_GENERATE_ONLY)
    return (*own, *(name for part in parts for name in part))
