"""The distribution after every processor of the chain, for each generated token, as data and as a table.

`explain` runs the same strategy and the same chain as `generate`, and observes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Tensor

from minitx.decoding.arguments import check_names, resolve
from minitx.decoding.guidance.session import GuidedSession, open_session
from minitx.decoding.processors.base import label
from minitx.decoding.request import GenerationOptions
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.session import DecodingSession
from minitx.decoding.strategy import Strategy
from minitx.decoding.text.detokenize import text_of
from minitx.validation import ArgumentTypeError, ArgumentValueError, check_integer

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer

BAR, CELL, NAME, WIDTH = 24, 14, 24, 80  # columns of the table
RECENT = 12  # tokens of the history that are shown
EIGHTHS = " ▏▎▍▌▋▊▉█"
# Options of `generate` about several rows or about the result.
_OTHERS = ("num_samples", "attention_mask", "logprobs", "top_logprobs", "prefill_chunk")
_OPTIONS = tuple(name for name in GenerationOptions.__annotations__ if name not in _OTHERS)
LEGEND = """\
kept  number of tokens left             mass  their probability before the step
nats  entropy of the distribution       →     probability of the chosen token
was   probability by the model          bars  relative to the best token
#id   a token without printable text"""


@dataclass(frozen=True)
class Candidate:
    """A token and its probability.

    Attributes:
        token: its id.
        text: the text that it adds; None without a tokenizer, or where it has none, as half a character.
        probability: after the step that it belongs to.
        raw: its probability by the model.
    """

    token: int
    text: str | None
    probability: float
    raw: float


@dataclass(frozen=True)
class Step:
    """The distribution after one step of the chain.

    Attributes:
        name: "model" for the model's own, else the processor with its main parameter.
        kept: the number of tokens with a finite logit.
        mass: the probability of these tokens before this step.
        entropy: in nats; exp of it is the number of equally probable tokens with the same entropy.
        top: the most probable tokens, most probable first.
        chosen: probability of the token that was chosen in the end.
    """

    name: str
    kept: int
    mass: float
    entropy: float
    top: tuple[Candidate, ...]
    chosen: float = 0.0


@dataclass(frozen=True)
class Position:
    """One generated token, and the steps that led to it.

    Attributes:
        length: the number of tokens before it.
        steps: the model's distribution, and the one after each processor.
        drawn: the token that was chosen, with its probability after the last step.
        recent: the last tokens before it, as text or, without a tokenizer, as ids ("#5").
    """

    length: int
    steps: tuple[Step, ...]
    drawn: Candidate
    recent: str = ""


@dataclass(frozen=True)
class Explanation:
    """The result of `explain`; `print` shows it as tables.

    Attributes:
        positions: one per generated token.
    """

    positions: tuple[Position, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the same data as plain lists and dicts."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join([*map(render, self.positions), LEGEND]) if self.positions else ""


def explain(
    model: CausalModel,
    prompt: str | Sequence[int] | Tensor,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    top: int = 5,
    **options: Unpack[GenerationOptions],
) -> Explanation:
    """Generates as `generate` does, and records the distribution after every step of the chain.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompt: one string, or the ids of one prompt: a list, or a tensor of one dimension.
        strategy: as for `generate`; not a search.
        top: the number of tokens to show at each step.
        **options: max_new_tokens (here 1 by default), min_new_tokens, tokenizer, stop, seed, generator,
            decoder_prompts, inputs_embeds, grammar, schema and guidance as for `generate`.

    Returns:
        The data; print it for tables.

    Raises:
        TypeError, ValueError: as `generate`; several prompts, or a search.
    """
    check_names(explain, options, ("top", *_OPTIONS))
    top = check_integer("top", top, 1)
    prompts = prompt if isinstance(prompt, str) else [_ids(prompt)]
    strategy, request = resolve(model, prompts, strategy, {"max_new_tokens": 1, **options})
    if strategy.searches:
        raise ValueError(
            "A search compares whole sequences, not tokens, so there is no choice of a token to explain; "
            "the beams of a generated result show the search."
        )
    positions: list[Position] = []

    def _observe(session: DecodingSession, tokens: Tensor) -> None:
        positions.append(position(session, int(tokens[0]), top))

    for _ in strategy.run(open_session(model, request, lookahead=strategy.lookahead), _observe):
        pass
    return Explanation(tuple(positions))


def position(session: DecodingSession, token: int, top: int) -> Position:
    """Returns the steps that led to a token of the session's only row."""
    context, tokenizer = session.context, session.request.tokenizer
    ids = context.tokens[0, : context.length[0]].tolist()
    model = [("model", session.logits)]
    if isinstance(session, GuidedSession):
        model = [("model", session.model_logits), (label(session.guidance), session.logits)]
    raw = torch.softmax(model[0][1][0].cpu().double(), dim=-1)
    before = torch.ones_like(raw)
    steps: list[Step] = []
    trace = session.request.chain.trace(session.logits, context, session.states)
    for name, logits in [*model, *trace]:
        scores = logits[0].cpu().double()
        probabilities = torch.softmax(scores, dim=-1)
        left = scores > -torch.inf
        kept = int(left.sum())
        surprise = -torch.log(probabilities.clamp(min=1e-300))
        best = scores.topk(min(top, kept)).indices.tolist()  # by scores: probabilities may be rounded to 0
        steps.append(
            Step(
                name=name,
                kept=kept,
                mass=float(before[left].sum()) if steps else 1.0,
                entropy=float((probabilities * surprise).sum()),
                top=tuple(_candidate(id_, probabilities, raw, tokenizer, ids) for id_ in best),
                chosen=float(probabilities[token]),
            )
        )
        before = probabilities
    drawn = _candidate(token, before, raw, tokenizer, ids)
    return Position(length=len(ids), steps=tuple(steps), drawn=drawn, recent=_recent(ids, tokenizer))


def render(position: Position) -> str:
    """Returns a table of at most 80 columns: the recent tokens, the steps, and bars of the last one."""
    drawn, shown = position.drawn, position.steps[-1].top
    title = f"token {position.length + 1}: {named(drawn, 40)}, probability {drawn.probability:.3f}"
    room = WIDTH - len("after …")
    recent = position.recent
    lines = [
        *([f"after {recent if len(recent) <= room else f'…{recent[-room:]}'}"] if recent else []),
        title,
        "",
        f"{'step':<{NAME}}{'kept':>8}{'mass':>7}{'nats':>7}{'→':>7}  most probable",
    ]
    for step in position.steps:
        line = f"{cut(step.name, NAME - 1):<{NAME}}{step.kept:>8}{step.mass:>7.3f}{step.entropy:>7.2f}"
        line += f"{step.chosen:>7.3f}"
        for candidate in step.top[:2]:
            entry = f"  {named(candidate, 8)} {candidate.probability:.3f}"
            line += entry if len(line + entry) <= WIDTH else ""
        lines.append(line)
    lines.append("")
    largest = max([candidate.probability for candidate in shown], default=0.0) or 1.0
    for candidate in shown if drawn in shown else (*shown, drawn):
        mark, probability = "→" if candidate.token == drawn.token else " ", candidate.probability
        name, bars = named(candidate, CELL), bar(min(1.0, probability / largest))
        lines.append(f"{mark} {name:<{CELL + 2}}{bars:<{BAR}} {probability:.3f}  was {candidate.raw:.3f}")
    return "\n".join(lines)


def bar(share: float) -> str:
    """Returns a bar in eighths of a column."""
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def named(candidate: Candidate, width: int) -> str:
    """Returns the text in quotes, with visible white space; "#" and the id where there is no text."""
    if not candidate.text:
        return f"#{candidate.token}"
    return f"'{cut(_visible(candidate.text), width)}'"


def cut(text: str, width: int) -> str:
    """Returns the text, cut to `width` columns."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _visible(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _recent(ids: Sequence[int], tokenizer: Tokenizer | None) -> str:
    """Returns the last tokens, in quotes where they are text."""
    last = ids[-RECENT:]
    if tokenizer is None:
        return " ".join(f"#{token}" for token in last)
    return f"'{_visible(tokenizer.decode(list(last), skip_special_tokens=False))}'"


def _candidate(
    token: int, probabilities: Tensor, raw: Tensor, tokenizer: Tokenizer | None, ids: Sequence[int]
) -> Candidate:
    return Candidate(token, text_of(token, tokenizer, ids), float(probabilities[token]), float(raw[token]))


def _ids(prompt: Any) -> list[Any]:
    """Returns the ids of the one prompt, not yet checked.

    Raises:
        ArgumentTypeError: neither a string nor a list.
        ArgumentValueError: a list of prompts.
    """
    plain = prompt.tolist() if hasattr(prompt, "tolist") else prompt  # of torch or NumPy
    if isinstance(plain, bytes) or not isinstance(plain, Sequence):
        raise ArgumentTypeError("prompt", prompt, "one string, or the ids of one prompt", "e.g. [5, 6]")
    if any(isinstance(item, str | Sequence | Tensor) for item in plain):
        hint = "leave out the outer brackets" if len(plain) == 1 else "explain one after the other"
        raise ArgumentValueError("prompt", plain, "a single prompt, not a list of them", hint)
    return list(plain)
