"""`minitx inspect`: the modules of a model."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from minitx.checkpoint.load import load
from minitx.cli.common import print_json, source_of
from minitx.inspect.summary import render, summarize


def run(args: Namespace) -> int:
    folder = source_of(args)
    model = load(folder, head=args.head, model_type=args.model_type)
    summary = summarize(model, folder)
    if args.json:
        print_json({"model": args.model, **asdict(summary)})
    else:
        print(render(summary))
    return 0
