"""`minitx verify`: is it what transformers computes?"""

from __future__ import annotations

from argparse import Namespace

from minitx.cli.common import calm_hub, device_of, print_json
from minitx.inspect.compare.report import render_report
from minitx.inspect.compare.verify import verify


def run(args: Namespace) -> int:
    calm_hub(args)
    report = verify(
        args.model,
        head=args.head,
        model_type=args.model_type,
        revision=args.revision,
        token=args.token,
        offline=args.offline,
        device=device_of(args),
    )
    if args.json:
        print_json(report.to_json())
    else:
        print(render_report(report))
    return 0 if report.ok else 1
