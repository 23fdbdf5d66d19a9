"""`minitx verify`: a checkpoint in minitx and in transformers."""

from __future__ import annotations

from minitx.cli import options
from minitx.cli.render import colored_verdicts, print_json
from minitx.cli.source import Source


@options.as_command(options.MODEL, *options.HUB, options.HEAD, options.DEVICE)
def command(source: Source, head: str | None, json: bool) -> int:
    """Loads a checkpoint in minitx and in transformers, runs the same texts through
    both, in float32 and float64, with and without padding, and compares the inputs
    and outputs of every module. The first module that differs is named.

    Needs transformers. Exit code 1: they differ.

    examples:
      minitx verify sentence-transformers/all-MiniLM-L6-v2
      minitx verify ./my-model --head none --json
    """
    from minitx.inspect.compare.report import render_report
    from minitx.inspect.compare.verify import verify

    source.calm_hub()
    source.check_device()
    report = verify(source.name, head=head, model_type=source.model_type, device=source.device, **source.hub)
    if json:
        print_json(report.to_json())
    else:
        print(colored_verdicts(render_report(report)))
    return 0 if report.ok else 1
