"""Replaced token detection: which tokens has a generator replaced? (ELECTRA, arXiv:2003.10555, section 2).

The generator, a masked language model, predicts hidden tokens; a token drawn from each of its predictions
replaces the hidden one, and the discriminator decides for every token whether it is the original. Both are
trained together, the generator with its own loss: no gradient passes through the draw. Afterwards the
discriminator alone is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from minitx.models import ModelOutput
from minitx.training.objectives.base import IGNORED, Batch, Example, Loss, Objective, count_targets
from minitx.training.objectives.masked import MaskedLM
from minitx.validation import ArgumentValueError, Interval, check_number, check_type

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

_TABLES = ("word_emb", "pos_emb", "tok_type_emb")
_TOTALS = ("total_hidden", "total_tokens")
_WEIGHT = Interval(0, float("inf"), open_high=True)


def draw_tokens(logits: Tensor, draws: Tensor) -> Tensor:
    """Draws a token from each distribution: (..., V), (...) -> (...) ids.

    Args:
        logits: (..., V).
        draws: (...) uniform random numbers in [0, 1), of which each chooses a token by the cumulative
            distribution. The same numbers give the same tokens on every device, up to rounding.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cumulative = wide.softmax(dim=-1).cumsum(dim=-1)
    tokens = (cumulative <= draws[..., None]).sum(dim=-1)
    return tokens.clamp(max=logits.shape[-1] - 1)


class DetectionOutput(NamedTuple):
    """Outputs of both models.

    Attributes:
        generator: with logits (B, T, V) and its loss.
        discriminator: with logits (B, T) and its loss.
        input_ids: (B, T) of the discriminator.
        replaced: (B, T), 1 where a token is not the original.
    """

    generator: ModelOutput
    discriminator: ModelOutput
    input_ids: Tensor
    replaced: Tensor


class GeneratorAndDiscriminator(nn.Module):
    """Both models of replaced token detection, with shared embeddings (section 3.2 of the paper).

    Args:
        generator: an encoder with head="masked-lm".
        discriminator: an encoder with head="replaced-token-detection".
        share_embeddings: make the tables of the generator's embedder the discriminator's.

    Raises:
        ArgumentValueError: heads of other tasks, or tables of different shapes.
    """

    def __init__(self, generator: Any, discriminator: Any, *, share_embeddings: bool = True) -> None:
        super().__init__()
        for name, model, task in (
            ("generator", generator, "masked-lm"),
            ("discriminator", discriminator, "replaced-token-detection"),
        ):
            check_type(name, model, nn.Module, "a model")
            if getattr(model, "task", None) != task:
                raise ArgumentValueError(name, model, f"a model with head={task!r}")
        self.generator, self.discriminator = generator, discriminator
        if share_embeddings:
            self.share_embeddings()

    def share_embeddings(self) -> None:
        """Makes the tables of the generator's embedder, and its tied output layer, the discriminator's."""
        ours, shared = self.generator.embedder, self.discriminator.embedder
        for name in _TABLES:
            table, other = getattr(ours, name), getattr(shared, name)
            if table is None and other is None:
                continue
            shapes = [None if x is None else tuple(x.weight.shape) for x in (table, other)]
            if shapes[0] != shapes[1]:
                expected = f"with a {name} of shape {shapes[1]} like the discriminator's, not {shapes[0]}"
                hint = "equal embedding_size and vocabulary, or share_embeddings=False"
                raise ArgumentValueError("generator", self.generator, expected, hint)
            table.weight = other.weight
        self.generator.tie_weights()

    def forward(self, labels: Tensor, draws: Tensor, **inputs: Tensor) -> DetectionOutput:
        """Runs the generator, draws tokens, and runs the discriminator.

        Args:
            labels: (B, T) of the generator, -100 where nothing is hidden.
            draws: (B, T) uniform random numbers.
            inputs: `input_ids` with hidden tokens (B, T), `attention_mask`, ...
        """
        generated = self.generator(**inputs, labels=labels)
        hidden = labels != IGNORED
        tokens = inputs["input_ids"].clone()
        tokens[hidden] = draw_tokens(generated.logits[hidden].detach(), draws[hidden])
        replaced = (hidden & (tokens != labels)).long()
        detected = self.discriminator(**inputs | {"input_ids": tokens}, labels=replaced)
        return DetectionOutput(generated, detected, tokens, replaced)


@dataclass(frozen=True)
class ReplacedTokens(Objective):
    """Replaced token detection of a `GeneratorAndDiscriminator`.

    Examples are those of `MaskedLM`; all chosen tokens become the mask token.

    Attributes:
        tokenizer: its special tokens are never masked.
        probability: that a token is hidden from the generator.
        generator_weight: of the generator's mean loss.
        discriminator_weight: of the discriminator's, 50 in the paper: its loss is much smaller.
        max_length: maximum number of tokens of a text; None: all of them.
    """

    tokenizer: Tokenizer
    probability: float = 0.15
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0
    max_length: int | None = None
    _masked: MaskedLM = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("generator_weight", self.generator_weight, _WEIGHT)
        check_number("discriminator_weight", self.discriminator_weight, _WEIGHT)
        masked = MaskedLM(
            self.tokenizer, self.probability, mask_share=1.0, random_share=0.0, max_length=self.max_length
        )
        object.__setattr__(self, "_masked", masked)

    def __call__(self, examples: Sequence[Example], generator: torch.Generator) -> Batch:
        """Returns the batch of `MaskedLM`, and `draws` (B, T): random numbers that choose the tokens.

        Args:
            examples: one per row.
            generator: source of randomness.

        Raises:
            ArgumentTypeError, ArgumentValueError: as `MaskedLM`.
        """
        batch = self._masked(examples, generator)
        return batch | {"draws": torch.rand(batch["labels"].shape, generator=generator)}

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Returns the weighted sum of both mean losses, times the number of tokens of the discriminator.

        The generator's mean is over the hidden tokens, the discriminator's over all tokens; of all
        micro-batches if the batch has their `totals`.

        Args:
            model: a `GeneratorAndDiscriminator`.
            batch: from `__call__`, on the device of the model.

        Raises:
            ArgumentValueError: a model without these parts.
        """
        if not hasattr(model, "discriminator"):
            expected = "a GeneratorAndDiscriminator"
            raise ArgumentValueError("model", model, expected, "it joins two models for this objective")
        inputs = {name: x for name, x in batch.items() if name not in _TOTALS}
        output: DetectionOutput = model(**inputs)
        generated, detected = output.generator.loss, output.discriminator.loss
        assert generated is not None, "there are labels"
        assert detected is not None, "there are labels"
        hidden, tokens = _counts(inputs)
        total_hidden, total_tokens = (
            batch.get(name, own) for name, own in zip(_TOTALS, (hidden, tokens), strict=True)
        )
        assert output.generator.logits is not None, "the generator has a head"
        total = self.discriminator_weight * detected * tokens
        # All processes must sum the gradients of both models, those without a hidden token included.
        total = total + 0.0 * output.generator.logits.sum()
        if hidden:  # without a hidden token the generator has no loss, its mean is NaN
            total = total + self.generator_weight * generated * hidden * total_tokens / total_hidden
        return Loss(total, tokens)

    def totals(self, batches: Iterable[Batch]) -> Batch:
        """Returns the numbers of hidden tokens and of all tokens; zeros without batches."""
        counts = torch.zeros(len(_TOTALS), dtype=torch.long)
        for batch in batches:
            counts = counts + torch.stack(_counts(batch))
        return dict(zip(_TOTALS, counts, strict=True))


def _counts(batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the numbers of targets of generator and discriminator, scalars."""
    hidden = (batch["labels"] != IGNORED).sum()
    return hidden, count_targets(batch, "replaced-token-detection")
