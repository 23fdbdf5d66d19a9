"""`minitx inspect`: the modules of a model."""

from __future__ import annotations

from dataclasses import asdict

from minitx.cli import options
from minitx.cli.render import print_json
from minitx.cli.source import Source


@options.as_command(options.MODEL, *options.HUB, options.HEAD)
def command(source: Source, head: str | None, json: bool) -> None:
    """Lists the modules of a model with shapes, parameters, bytes and dtype. Equal
    layers are folded into one, shared parameters count once, and tensors of the
    file that the model does not use are named.

    examples:
      minitx inspect bert-base-uncased
      minitx inspect ./my-model --head none
      minitx inspect ./my-model --json | jq .parameters
    """
    from minitx.inspect.summary import render, summarize

    folder = source.folder()
    summary = summarize(source.model(folder, head), folder)
    if json:
        print_json({"model": source.name, **asdict(summary)})
    else:
        print(render(summary))
