"""What every step of the chain does to the distribution, as data and as a table.

It is `generate` that runs, with the same chain; this only looks on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from minitx.decoding.detokenize import text_of
from minitx.decoding.loop import steps
from minitx.decoding.names import names_explained
from minitx.decoding.parameters import Integers
from minitx.decoding.processors.base import State
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.context import Context
from minitx.decoding.prompts import Prompts
from minitx.decoding.request import prepare
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.stopping import Stop
from minitx.decoding.strategy import Seed, Strategy
from minitx.validation import check_integer

if TYPE_CHECKING:
    from minitx.models import CausalModel
    from minitx.tokenizer import Tokenizer

BAR, CELL, NAME = 24, 14, 26  # columns of the table
EIGHTHS = " ▏▎▍▌▋▊▉█"
LEGEND = """\
kept  tokens that are left              mass  their probability one step before
nats  uncertainty left (entropy)        was   the probability by the model
→     the token that was taken"""


@dataclass(frozen=True)
class Candidate:
    """A token and its probability.

    Attributes:
        token: its id.
        text: what it adds to the text; None without a tokenizer, and where that cannot be shown, as half a
            character.
        probability: by the step that it belongs to.
        raw: its probability by the model.
    """

    token: int
    text: str | None
    probability: float
    raw: float


@dataclass(frozen=True)
class Step:
    """The distribution behind one step of the chain.

    Attributes:
        name: "model" for the model's own, then each processor with its main value.
        kept: how many tokens are left.
        mass: how much of the probability before this step the kept tokens had.
        entropy: in nats; exp of it is how many equally probable tokens would be as uncertain.
        top: the most probable of those that are left, the most probable first.
    """

    name: str
    kept: int
    mass: float
    entropy: float
    top: tuple[Candidate, ...]


@dataclass(frozen=True)
class Position:
    """One token: the steps that led to it.

    Attributes:
        length: how many tokens came before it.
        steps: the model's distribution, and that behind each step of the chain.
        drawn: the token that was drawn (by `Greedy`: taken), with its probability behind the last step.
    """

    length: int
    steps: tuple[Step, ...]
    drawn: Candidate


@dataclass(frozen=True)
class Explanation:
    """What `explain` found, token by token; `print` shows it as tables.

    Attributes:
        positions: one per generated token.
    """

    positions: tuple[Position, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists and dicts."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n\n".join([*map(render, self.positions), LEGEND]) if self.positions else ""


@names_explained
def explain(
    model: CausalModel,
    prompt: str | Sequence[int] | Tensor,
    strategy: Strategy | Literal["checkpoint"] = Sample(),  # noqa: B008 - frozen
    *,
    max_new_tokens: int = 1,
    top: int = 5,
    tokenizer: Tokenizer | None = None,
    min_new_tokens: Integers | None = None,
    stop: Stop | None = None,
    seed: Seed | None = None,
    generator: torch.Generator | None = None,
    decoder_prompts: Prompts | None = None,
) -> Explanation:
    """Generates as `generate` does, and says what every step of the chain did on the way to each token.

    Args:
        model: a causal language model, or an encoder-decoder, in eval mode.
        prompt: one text, or the ids of one: a list, or a tensor of one dimension.
        strategy: as for `generate`.
        max_new_tokens: how many tokens to explain.
        top: how many tokens to show at each step.
        tokenizer: for a prompt as text, and for the texts of tokens.
        min_new_tokens, stop, seed, generator, decoder_prompts: as for `generate`.

    Returns:
        The data; print it to see the table.

    Raises:
        TypeError, ValueError: as `generate`; several prompts.
    """
    top = check_integer("top", top, 1)
    call = prepare(
        model,
        prompt if isinstance(prompt, str) else [_ids(prompt)],
        strategy,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        tokenizer=tokenizer,
        stop=stop,
        seed=seed,
        generator=generator,
        decoder_prompts=decoder_prompts,
    )
    if call.search is not None:
        raise ValueError(
            "A search compares whole texts, not tokens, so there is no choice of a token to explain; "
            "print(generate(...).beams[0]) shows what it kept."
        )
    positions: list[Position] = []

    def observe(logits: Tensor, context: Context, states: State, token: Tensor) -> None:
        positions.append(position(call.chain, logits, context, states, token, top, tokenizer))

    for _ in steps(replace(call, observe=observe)):
        pass
    return Explanation(tuple(positions))


def _ids(prompt: Any) -> list[int]:
    """The ids of the one prompt; what they are is for `prepare` to check.

    Raises:
        TypeError: no text, nor a list.
        ValueError: a list of prompts.
    """
    given = prompt.tolist() if hasattr(prompt, "tolist") else prompt  # of torch or numpy
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise TypeError(f"prompt is {given!r:.60}; expected one text, or the ids of one, such as [5, 6].")
    if any(isinstance(each, str | Sequence | Tensor) for each in given):
        hint = "leave out the outer brackets" if len(given) == 1 else "explain one after the other"
        raise ValueError(
            f"explain takes one prompt, but this is a list of {len(given)}: {given!r:.60}; {hint}."
        )
    return list(given)


def position(
    chain: Chain,
    logits: Tensor,
    context: Context,
    states: State,
    token: Tensor,
    top: int,
    tokenizer: Tokenizer | None,
) -> Position:
    """The steps of one row: logits (1, V), token (1,)."""
    found: list[Step] = []
    before = torch.ones(logits.shape[-1])
    probabilities = before
    raw = torch.softmax(logits[0].cpu().double(), dim=-1)
    read = context.tokens[0, : context.length[0]].tolist()

    def candidate(each: int) -> Candidate:
        return Candidate(each, text_of(each, tokenizer, read), float(probabilities[each]), float(raw[each]))

    for name, after in [("model", logits), *chain.trace(logits, context, states)]:
        scores = after[0].cpu().double()
        probabilities = torch.softmax(scores, dim=-1)
        left = scores > -torch.inf
        kept = int(left.sum())
        surprise = -torch.log(probabilities.clamp(min=1e-300))
        best = scores.topk(min(top, kept)).indices  # a probability may be rounded to 0, as one removed is
        found.append(
            Step(
                name=name,
                kept=kept,
                mass=1.0 if not found else float(before[left].sum()),
                entropy=float((probabilities * surprise).sum()),
                top=tuple(map(candidate, best.tolist())),
            )
        )
        before = probabilities
    return Position(length=int(context.length[0]), steps=tuple(found), drawn=candidate(int(token[0])))


# --- the table -------------------------------------------------------------------------------------


def render(position: Position) -> str:
    """A table of at most 80 columns: the steps, and the bars of the last one."""
    shown = position.steps[-1].top
    drawn = position.drawn
    lines = [
        f"token {position.length + 1}: {named(drawn, 40)}, probability {drawn.probability:.3f}",
        "",
        f"{'step':<{NAME}}{'kept':>8}{'mass':>8}{'nats':>7}  most probable",
    ]
    for step in position.steps:
        line = f"{cut(step.name, NAME - 1):<{NAME}}{step.kept:>8}{step.mass:>8.3f}{step.entropy:>7.2f}"
        for each in step.top[:2]:
            entry = f"  {named(each, 8)} {each.probability:.2f}"
            line += entry if len(line + entry) <= 80 else ""
        lines.append(line)
    lines.append("")
    for each in shown if drawn in shown else (*shown, drawn):
        mark = "→" if each.token == drawn.token else " "
        name, bars = named(each, CELL), bar(each.probability)
        lines.append(f"{mark} {name:<{CELL + 2}}{bars:<{BAR}} {each.probability:.3f}  was {each.raw:.3f}")
    return "\n".join(lines)


def bar(share: float) -> str:
    """A bar in eighths of a column."""
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def named(candidate: Candidate, width: int) -> str:
    """The text in quotes, with its spaces and line ends to be seen; # and the id where there is no text."""
    text = candidate.text
    if text is None:
        return f"#{candidate.token}"
    plain = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return f"'{cut(plain, width)}'"


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
