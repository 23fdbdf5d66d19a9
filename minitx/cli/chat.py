"""`minitx chat`: a conversation with a chat model."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from minitx.cli.decoding import model_of, settings_of
from minitx.cli.decoding_options import RENAMED, Values, strategy_options
from minitx.cli.generate import explain, show_as_it_comes
from minitx.cli.options import MODEL, command, section, usage_message
from minitx.cli.render import emit, note, show
from minitx.cli.source import Source
from minitx.pipelines.generation.conversation import Conversation
from minitx.signals import handled

LONGEST = 512  # tokens of an answer, where neither an option nor the checkpoint has the number
HELP = section("commands of a conversation")[0]


@command(MODEL, *strategy_options(searches=False), elsewhere=explain.elsewhere, renamed=RENAMED)
def chat(source: Source, system: str | None, json: bool, **values: Any) -> None:
    """Holds a conversation on stdin and stdout."""
    if values["max_new_tokens"] is None and not values["checkpoint"]:
        values["max_new_tokens"] = LONGEST
    folder = source.folder()
    talk = Chat(folder, Conversation(None, source.tokenizer(folder), system), json, source.hub)
    talk.choose(values)
    talk.conversation.prompt("Hello")  # is there a template?
    talk.conversation.model = model_of(source, folder, "causal-lm")
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history and editing
    shown = sys.stdin.isatty() and not json
    if shown:
        show("Type a message. /help lists the commands, Ctrl-D leaves.")
    with suppress(EOFError):
        while (line := input("> " if shown else "").strip()) != "/quit":
            try:
                talk.take(line)
            except click.UsageError as error:
                note(f"error: {usage_message(error)}")
            except (TypeError, ValueError) as error:
                note(f"error: {chat.in_options(error)}")


class Chat:
    """A conversation on the command line; its model is set after the cheap checks."""

    def __init__(self, folder: Path, conversation: Any, json: bool, hub: dict[str, Any]) -> None:
        self.folder, self.conversation, self.json, self.hub = folder, conversation, json, hub

    def choose(self, values: Values) -> None:
        """Sets strategy and lengths from options."""
        self.strategy, self.settings, _ = settings_of(values, self.folder, **self.hub)

    def take(self, line: str) -> None:
        """Runs a command, or answers a message."""
        word, _, rest = line.partition(" ")
        if word == "/strategy":
            if rest:
                self.choose(self.parsed(rest))
            show(f"{self.strategy}, {self.settings['max_new_tokens']} tokens at most")
        elif word == "/reset":
            self.conversation.reset()
        elif word == "/help":
            show(HELP)
        elif word.startswith("/"):
            raise ValueError(f"there is no command {word}; /help lists the commands")
        elif line:
            self.answer(line)

    def parsed(self, text: str) -> Values:
        """The values of options, `--top-p 0.9` or `top_p=0.9`; the length stays unless it is among them."""
        words = [re.sub(r"^\w+=", lambda m: f"--{m[0].replace('_', '-')}", w) for w in shlex.split(text)]
        if words and words[0][:1] != "-":
            raise click.UsageError("options begin with --, as in /strategy --top-p 0.9")
        words[:0] = ["model", "--max-new-tokens", str(self.settings["max_new_tokens"])]
        return chat.make_context("/strategy", words, parent=click.get_current_context()).params

    def answer(self, text: str) -> None:
        """Prints the answer to a message; Ctrl-C ends it early."""
        try:
            with closing(self.conversation.stream(text, self.strategy, **self.settings)) as events:
                show_as_it_comes(events, [], quiet=self.json)
        except KeyboardInterrupt as stop:
            if any(number != signal.SIGINT for number in stop.args):
                raise
            handled()
        emit(self.json, self.conversation.messages[-1], "", indent=None)
