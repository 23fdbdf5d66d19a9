"""The interface of a guidance, and its place in a call. R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from minitx.decoding.parameters import freeze
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import Prompts, Rows, read_prompts
from minitx.models.decoder import CausalModel, check_causal_model
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_type, shorten


@dataclass(frozen=True)
class GuidedCall:
    """The call that is guided.

    Attributes:
        model: the one that generates.
        prompts: the ids that its decoder continues.
        sources: the ids of its encoder input; None without an encoder.
        new_tokens: most tokens of a row that the model may run, with those that a strategy tries.
        tokenizer: for prompts as text.
        has_embeds: whether inputs_embeds replace the embeddings of the prompts.
    """

    model: CausalModel
    prompts: Rows
    sources: Rows | None
    new_tokens: int
    tokenizer: Tokenizer | None
    has_embeds: bool

    def read(self, parameter: str, prompts: Prompts) -> Rows:
        """Returns the ids of other prompts, one for each prompt of the call.

        Raises:
            ArgumentTypeError, ArgumentValueError: as `read_prompts`; not one for all prompts or one for each.
        """
        size = self.model.config.text_inputs.vocab_size
        rows = read_prompts(prompts, vocab_size=size, tokenizer=self.tokenizer, parameter=parameter)
        if len(rows) not in (1, len(self.prompts)):
            expected = f"one for all prompts or {len(self.prompts)}, one per prompt"
            raise ArgumentValueError(parameter, prompts, expected)
        return rows if len(rows) == len(self.prompts) else rows * len(self.prompts)


class Companion(NamedTuple):
    """A model that gets the tokens of the generation after prompts of its own.

    Attributes:
        model: in eval mode.
        prompts: per prompt of the call, the ids that the decoder continues.
        sources: per prompt of the call, the ids of the encoder input; None without an encoder.
    """

    model: CausalModel
    prompts: Rows
    sources: Rows | None

    def check(self, parameter: str, call: GuidedCall) -> None:
        """Checks that the companion can follow the call.

        Raises:
            ArgumentValueError: another vocabulary or family, more tokens than the model has positions, or a
                call with inputs_embeds.
        """
        if call.has_embeds:
            hint = f"{parameter}= runs token ids beside them"
            raise ArgumentValueError("inputs_embeds", "...", "None with this guidance", hint)
        model, other = self.model, call.model
        if model.task != other.task:
            raise ArgumentValueError(parameter, model, f"of task {other.task!r}, not {model.task!r}")
        for does, theirs, ours in zip(("predicts", "embeds"), *map(_sizes, (model, other)), strict=True):
            if theirs != ours:
                hint = "guidance combines the logits of equal tokens, so that both need the same tokenizer"
                raise ArgumentValueError(
                    parameter, model, f"a model that {does} {ours} tokens, not {theirs}", hint
                )
        pairs = [(model.decoder_embedder, self.prompts, call.new_tokens - 1)]
        if self.sources is not None:
            pairs.append((model.embedder, self.sources, 0))
        for embedder, rows, output in pairs:
            length = max(map(len, rows)) + output
            if embedder.has_position_table and length > embedder.max_tokens:
                expected = (
                    f"a model with {length} positions for prompts and output, not {embedder.max_tokens}"
                )
                if model is other:
                    most = embedder.max_tokens - output
                    expected = f"of at most {most} tokens, which leave {output} positions to the output"
                raise ArgumentValueError(parameter, rows if model is other else model, expected)


@dataclass(frozen=True, repr=False)
class Guidance:
    """Changes the distribution of a model by other ones, before processors and strategy see it.

    An option of `generate`, `stream` and `explain`: generate(..., guidance=ClassifierFree(1.5)). Guidances
    are values that compare equal if their fields do.

    Attributes:
        greedy_only: the guided scores have an order, but are no logits to draw from.
    """

    greedy_only: ClassVar[bool] = False

    def __post_init__(self) -> None:
        freeze(self)
        self._check()

    def __repr__(self) -> str:
        """The fields, models by their classes."""
        fields = ", ".join(f"{name}={shorten(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"

    @property
    def early_layers(self) -> Sequence[int]:
        """The layers whose early logits `combine` gets, as numbers of the model's hidden states."""
        return ()

    def companions(self, call: GuidedCall) -> list[tuple[str, Companion]]:
        """Returns the companions of a call, each with the name of the parameter that asks for it.

        Raises:
            ArgumentTypeError, ArgumentValueError: values that do not fit the call.
        """
        return []

    def resolved(self, call: GuidedCall) -> Guidance:
        """Returns the guidance with the defaults that depend on the call.

        Raises:
            ArgumentValueError: a call that cannot be guided so.
        """
        return self

    def combine(self, logits: Tensor, others: Sequence[Tensor], context: Context) -> Tensor:
        """Returns the guided logits, (R, V) float32.

        Args:
            logits: (R, V) float32, of the model.
            others: (R, V) float32 each, of the companions or layers.
            context: the token histories.
        """
        raise NotImplementedError

    def part(self, prompts: slice) -> Self:
        """Returns the guidance of a part of a call's prompts."""
        return self

    def _check(self) -> None:
        """Checks and converts the fields."""


@dataclass(frozen=True)
class ResolvedGuidance:
    """A guidance in its call.

    Attributes:
        guidance: with all defaults resolved.
        companions: the models that run beside the one that generates.
    """

    guidance: Guidance
    companions: tuple[Companion, ...]


def resolve_guidance(guidance: Any, call: GuidedCall) -> ResolvedGuidance | None:
    """Checks the `guidance` of a call and resolves it.

    Raises:
        ArgumentTypeError, ArgumentValueError: no guidance, or one that does not fit the call.
    """
    expected = "a guidance such as ClassifierFree(1.5)"
    check_type("guidance", guidance, Guidance | None, expected)
    if guidance is None:
        return None
    named = guidance.companions(call)
    for parameter, companion in named:
        companion.check(parameter, call)
    return ResolvedGuidance(guidance.resolved(call), tuple(companion for _, companion in named))


def check_model(parameter: str, model: Any) -> CausalModel:
    """Returns the model if it predicts the next token and is in eval mode.

    Raises:
        ArgumentValueError: it does not, or is in training mode.
    """
    try:
        return check_causal_model(model)
    except ArgumentValueError as error:
        raise ArgumentValueError(parameter, model, error.expected, error.hint) from None


def same_prompts(model: CausalModel, call: GuidedCall) -> Companion:
    """Returns the companion that runs the prompts of the call."""
    return Companion(check_causal_model(model), call.prompts, call.sources)


def prompts_part(prompts: Any, part: slice) -> Any:
    """Returns the prompts of a part of a call; a prompt for the whole call as it is."""
    shared = prompts is None or isinstance(prompts, str) or len(prompts) == 1
    return prompts if shared else prompts[part]


def _sizes(model: Any) -> tuple[int, int]:
    """The numbers of tokens that a model predicts and embeds."""
    return model.head.config.num_labels, model.decoder_embedder.config.vocab_size
