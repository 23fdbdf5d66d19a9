"""`minitx convert`: a checkpoint as safetensors."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from minitx.cli import options, render
from minitx.cli.options import Argument, option
from minitx.cli.source import Source


@options.as_command(
    Argument("model", "SOURCE", "folder or Hub id"),
    Argument("destination", "DESTINATION", "a new or empty folder"),
    option("--max-shard-size SIZE", "largest file, such as 500MB or 5GB", options.byte_size),
    *(*options.HUB, options.HEAD, options.DTYPE),
)
def command(
    source: Source, destination: str, head: str | None, max_shard_size: int | None, json: bool
) -> None:
    """Writes SOURCE to DESTINATION as safetensors, under the same tensor names, so
    that transformers loads it too. Tokenizer, README and the like are copied.
    Without --dtype no value changes. If it fails, DESTINATION is as before.

    examples:
      minitx convert ./old ./new
      minitx convert bert-base-uncased ./bert --dtype bfloat16
      minitx convert ./big ./shards --max-shard-size 500MB
      minitx convert ./classifier ./encoder --head none
    """
    import torch

    from minitx.checkpoint.convert import convert
    from minitx.checkpoint.hub import fetch_tokenizer
    from minitx.inspect.summary import human
    from minitx.pipelines.text.embed import modules

    folder = source.folder()
    if not Path(source.name).is_dir():
        fetch_tokenizer(source.name, **source.hub)
    listing = folder / "modules.json"
    result = convert(
        folder,
        Path(destination),
        head=head,
        dtype=None if source.dtype is None else getattr(torch, source.dtype),
        model_type=source.model_type,
        max_shard_size=max_shard_size,
        folders=[place for _, place in modules(listing)] if listing.is_file() else [],
        progress=partial(render.progress_bar, title="writing", unit="B", quiet=json),
    )
    if json:
        render.print_json({"source": source.name, "destination": str(Path(destination)), **asdict(result)})
        return
    count = len(result.weights)
    files = result.weights[0] if count == 1 else f"{count} safetensors files"
    print(f"{Path(destination)}: {human(result.bytes)} of weights in {files}")
    for title, names in (("copied", result.copied), ("not copied", result.not_copied)):
        if names:
            print("\n".join([f"{title}:", *(f"  {name}" for name in names)]))
