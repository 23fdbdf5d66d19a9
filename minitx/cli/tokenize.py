"""`minitx tokenize`: the tokens of texts, and the texts of tokens."""

from __future__ import annotations

from typing import Any

from minitx.cli import options, render
from minitx.cli.options import option
from minitx.cli.source import Source, read_texts


@options.as_command(
    *(options.MODEL, options.texts(), options.FILE),
    option("--ids IDS", 'decode ids instead: "464 3290"', options.ids, multiple=True),
    option("--special/--no-special", "with or without special tokens (default: with)", default=True),
    option("--as-target", "as the output of an encoder-decoder", default=False),
    *options.HUB,
)
def command(
    source: Source, texts: tuple[str, ...], file: str | None, ids: tuple[list[int], ...], special: bool,
    as_target: bool, json: bool,
) -> None:  # fmt: skip
    """Shows the tokens of texts with their ids below them, special tokens included;
    with --ids the text of ids. Needs the tokenizer alone, no weights.

    The ids of a word within a text often have a space in front of it: compare
    minitx tokenize gpt2 "cat" " cat".

    examples:
      minitx tokenize bert-base-uncased "A cat sleeps."
      minitx tokenize gpt2 " cat" --no-special
      minitx tokenize gpt2 --ids "464 3797"
      minitx tokenize gpt2 --file lines.txt --json
    """
    if ids and (texts or file):
        raise ValueError("--ids takes the place of texts; leave one of them out.")
    source.calm_hub()
    tokenizer = source.tokenizer()
    rows: list[list[int]] = list(ids)
    if not ids:
        lines = read_texts(texts, file)
        rows = [tokenizer.encode(line, add_special_tokens=special, as_target=as_target) for line in lines]
    for number, row in enumerate(rows):
        names = [tokenizer.id_to_token(token) or "?" for token in row]
        text: Any = tokenizer.decode(row, skip_special_tokens=not special) if ids else lines[number]
        if json:
            render.print_json({"text": text, "ids": row, "tokens": names}, indent=None)
        elif ids:
            print(text)
        else:
            print("\n" * bool(number) + "\n".join(render.columns(names, list(map(str, row)))))
