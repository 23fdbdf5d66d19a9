"""A table of vectors."""

from __future__ import annotations

from torch import nn


class Embedding(nn.Embedding):
    """torch's Embedding, whose values come from a checkpoint or from the model's `initialize`.

    torch would draw them here as well, for nothing; and on the meta device, where models are built
    before their weights are read, its normal_ imports the compiler: 1.5 seconds for no numbers.
    """

    def reset_parameters(self) -> None:
        """Leaves the values as they are."""
