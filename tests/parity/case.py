"""One configuration of the parity suite, and numbers that many of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minitx.architectures import architecture

ODD = {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES = {**ODD, "intermediate_size": 37, "max_position_embeddings": 48, "initializer_range": 0.02}
OTHER = {"vocab_size": 131, "intermediate_size": 5}
DROPOUT = {"hidden_dropout_prob": 0.11, "attention_probs_dropout_prob": 0.23}
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        name: unique.
        model_type: of the registry.
        config: arguments of transformers' config class.
        lengths: text lengths beside 1, 2, 9 and 33, such as both sides of a window's edge.
        float64, float32: largest difference allowed, of numbers above 1 as a share of the largest.
        bfloat16: largest distance from float32 allowed, as a multiple of the reference's.
        because: why any of the three is not what it is elsewhere.
        depends_on_length: how long a text is changes its beginning too; what length that is, the longest text
            of a batch says in transformers, and each row in minitx.
        reference: how transformers computes attention here.
    """

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    float64: float = 1e-9
    float32: float = 1e-5
    bfloat16: float = 1.1
    because: str = ""
    depends_on_length: bool = False
    reference: str = "sdpa"

    @property
    def pad(self) -> int:
        """The padding id."""
        return int(self.config.get("pad_token_id", 1 if self.model_type == "mpnet" else 0) or 0)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the architecture can be loaded for: without a head, as far as it goes, and with each."""
        glued = self.model_type == "encoder-decoder"  # transformers has it with the head alone
        return (*(() if glued else architecture(self.model_type).headless), *self.heads)

    def writes(self, task: str) -> bool:
        """Whether a decoder is given another text than the one that an encoder reads."""
        found = architecture(self.model_type)
        if "seq2seq-lm" not in found.head_weights or task in found.encoder_tasks:
            return False
        return task in ("none", "seq2seq-lm")

    def ends(self, task: str) -> bool:
        """Whether a head reads the decoder at the end token of the text."""
        return "seq2seq-lm" in self.heads and task == "sequence-classification"

    @property
    def heads(self) -> tuple[str, ...]:
        """The tasks that the architecture has a head for."""
        return tuple(architecture(self.model_type).head_weights)
