"""`minitx chat`: a conversation with a chat model."""

from __future__ import annotations

import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from minitx.cli import decoding, decoding_options, options, render
from minitx.cli.explain import ELSEWHERE
from minitx.cli.generate import EMPTY
from minitx.cli.options import option
from minitx.cli.source import Source
from minitx.decoding.generate import stream
from minitx.tokenizer import Tokenizer

Message = dict[str, str]
LONGEST = 512  # tokens of an answer, where neither an option nor the checkpoint has the number
HELP = """\
/strategy          show how tokens are chosen
/strategy OPTIONS  choose anew, as in: /strategy --temperature 0.7 --top-p 0.9
/reset             forget the conversation
/help              this list
/quit              leave, as does Ctrl-D; Ctrl-C ends an answer"""


@options.as_command(
    options.MODEL,
    option("--system TEXT", "a system message before the conversation"),
    *decoding_options.length_options(options.integer, None, "most per answer (default: 512, or as stored)"),
    *decoding_options.strategy_options(searches=False),
    elsewhere=ELSEWHERE,
    **decoding_options.TEXTS,
)
def command(source: Source, system: str | None, json: bool, **values: Any) -> None:
    """Talks with a chat model: each line you type is a message, and the answer appears
    token by token. The model reads the whole conversation each time. Lines that
    begin with / are commands; /help lists them. Messages can also come from a pipe,
    one per line.

    examples:
      minitx chat ./my-chat-model
      minitx chat ./my-chat-model --checkpoint --system "Answer in one sentence."
      minitx chat ./my-chat-model --greedy --json < questions.txt
    """
    if values["max_new_tokens"] is None and not values["checkpoint"]:
        values["max_new_tokens"] = LONGEST
    source.check_device()
    folder = source.folder()
    first = [] if system is None else [{"role": "system", "content": system}]
    chat = Chat(folder, source.tokenizer(folder), first, json)
    chat.choose(values)
    chat.encode([*first, {"role": "user", "content": "Hello"}])  # is there a template?
    chat.model = decoding.model_of(source, folder, "causal-lm")
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and editing
    if sys.stdin.isatty() and not json:
        print("Type a message. /help lists the commands, Ctrl-D leaves.")
    with suppress(EOFError):
        while (line := input("> " if sys.stdin.isatty() and not json else "").strip()) != "/quit":
            try:
                chat.take(line)
            except click.UsageError as error:
                render.note(f"error: {options.usage_message(error)}")
            except (TypeError, ValueError) as error:
                render.note(f"error: {command.in_options(error)}")


class Chat:
    """A conversation.

    Attributes:
        messages: of the conversation so far; it begins with those of `first`.
        model: set after the cheap checks.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, first: list[Message], json: bool) -> None:
        self.folder, self.tokenizer, self.first, self.json = folder, tokenizer, first, json
        self.messages, self.encode = list(first), tokenizer.encode_chat
        self.model: Any = None

    def choose(self, values: decoding_options.Values) -> None:
        """Sets strategy and lengths from options."""
        self.strategy, self.settings, _ = decoding.settings_of(values, self.folder)

    def take(self, line: str) -> None:
        """Runs a command, or answers a message."""
        word, _, rest = line.partition(" ")
        if word == "/strategy":
            if rest:
                self.choose(self.parsed(rest))
            print(f"{self.strategy}, {self.settings['max_new_tokens']} tokens at most")
        elif word == "/reset":
            self.messages = list(self.first)
        elif word == "/help":
            print(HELP)
        elif word.startswith("/"):
            raise ValueError(f"there is no command {word}; /help lists the commands")
        elif line:
            self.answer([*self.messages, {"role": "user", "content": line}])

    def parsed(self, text: str) -> decoding_options.Values:
        """The values of options; the length stays unless it is among them."""
        length = ["--max-new-tokens", str(self.settings["max_new_tokens"])]
        arguments = ["model", *length, *shlex.split(text)]
        parent = click.get_current_context()
        return command.make_context("/strategy", arguments, parent=parent).params

    def answer(self, messages: list[Message]) -> None:
        """Prints the answer to the last message; Ctrl-C ends it early."""
        settings, text, reason = self.settings | {"tokenizer": self.tokenizer}, "", None
        try:
            for event in stream(self.model, [self.encode(messages)], self.strategy, **settings):
                text, reason = text + event.text, event.finish_reason
                if not self.json:
                    print(event.text, end="", flush=True)
        except KeyboardInterrupt as stop:
            if signal.SIGTERM in stop.args:
                raise
        answer = {"role": "assistant", "content": text}
        if self.json:
            render.print_json(answer, indent=None)
        elif text or reason is None:
            print(flush=True)
        else:
            render.note(EMPTY[reason])
        self.messages = [*messages, answer]
