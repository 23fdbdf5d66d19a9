"""`minitx explain`: how the next token is chosen."""

from __future__ import annotations

from argparse import Namespace

from minitx.cli.common import print_json
from minitx.cli.decoding import as_options, request_of
from minitx.inspect.explain import explain


def run(args: Namespace) -> int:
    request = request_of(args)
    if len(request.ids) > 1:
        raise ValueError(f"explain takes one prompt, and there are {len(request.ids)}.")
    with as_options():
        explanation = explain(
            request.model, request.ids[0], request.strategy, top=args.top, **request.settings
        )
    if args.json:
        print_json(explanation.to_json())
    else:
        print(explanation)
    return 0
