"""Pictures of decoding: the next token's distribution through the chain, and the tree of a search."""

from __future__ import annotations

from typing import Any

import minitx
from minitx.decoding.search.tree import BeamTree
from minitx.decoding.strategy import Strategy
from minitx.inspect.explain import Candidate, Explanation, Position, explain
from minitx.inspect.inputs import Subject
from minitx.inspect.pictures.kinds import picture_kind
from minitx.inspect.tokens import token_name
from minitx.models.decoder import NEXT_TOKEN_TASKS
from minitx.pictures.picture import Picture, compose
from minitx.pictures.plots import Bar, Steps
from minitx.pictures.tree import Branch, Tree
from minitx.tokenizer import Tokenizer
from minitx.validation import ArgumentValueError, check_integer, check_type

CANDIDATES = 60  # of each step, among which the tokens of the picture are found
MOST_COLUMNS = 16  # tokens of a hypothesis that fit side by side
_SAMPLE, _BEAM = minitx.Sample(), minitx.Beam(num_beams=4)


@picture_kind("chain", "the next token's distribution after each step of the chain")
def chain(subject: Subject, *, strategy: Strategy = _SAMPLE, seed: int = 0, count: int = 10) -> Picture:
    """Draws how a strategy changes the distribution of the next token, step by step.

    Args:
        subject: the model, with a head for the next token, and its text.
        strategy: such as `Sample(temperature=0.8, top_k=50, top_p=0.9)`.
        seed: of the draw.
        count: number of tokens.
    """
    subject.check_task(NEXT_TOKEN_TASKS)
    count = check_integer("count", count, 1, CANDIDATES)
    model: Any = subject.model
    options: dict[str, Any] = {"tokenizer": subject.tokenizer, "seed": seed, "top": CANDIDATES}
    if subject.target is not None:
        options["decoder_prompts"] = subject.targets[:1]
    result = explain(model, subject.text, strategy, **options)
    return chain_picture(result, tokenizer=subject.tokenizer, count=count)


def chain_picture(
    explanation: Explanation, *, position: int = 0, tokenizer: Tokenizer | None = None, count: int = 10
) -> Picture:
    """Draws the distribution after each step of the chain for a generated token.

    Args:
        explanation: of `minitx.explain`.
        position: number of the generated token.
        tokenizer: for the names of tokens; None: the texts of the explanation.
        count: number of tokens: those that are most probable to the model, and after the last step.

    Raises:
        ArgumentTypeError, ArgumentValueError: not an explanation, or no such position.
    """
    check_type("explanation", explanation, Explanation, "the result of minitx.explain")
    last = len(explanation.positions) - 1
    chosen: Position = explanation.positions[check_integer("position", position, -last - 1, last)]
    tokens = _tokens(chosen, check_integer("count", count, 1))
    names = [_name(candidate, tokenizer) for candidate in tokens]
    steps = []
    for step in chosen.steps:
        facts = [f"{step.kept:,} tokens, {step.entropy:.2f} nats"]
        bars = [_bar(candidate.token, step) for candidate in tokens]
        steps.append((step.name, facts, bars))
    drawn = [candidate.token for candidate in tokens].index(chosen.drawn.token)
    note = f"after {chosen.recent}; orange: the token that was drawn" if chosen.recent else ""
    return compose("The next token, after each step of the chain", [Steps(names, steps, drawn)], note)


def _tokens(position: Position, count: int) -> list[Candidate]:
    """Returns the tokens to draw: the best before the first and after the last step, and the drawn one."""
    first, last = position.steps[0].top, position.steps[-1].top
    tokens: dict[int, Candidate] = {position.drawn.token: position.drawn}
    for pair in zip(last + (None,) * (len(first) - len(last)), first, strict=False):
        for candidate in pair:
            if candidate is not None and len(tokens) < count:
                tokens.setdefault(candidate.token, candidate)
    return sorted(tokens.values(), key=lambda candidate: -candidate.raw)


def _bar(token: int, step: Any) -> Bar:
    """Returns the bar of a token after a step; one that is not among the best has a bound for its share."""
    for candidate in step.top:
        if candidate.token == token:
            return Bar(candidate.probability, f"{candidate.probability:.3f}")
    if step.kept <= len(step.top):
        return Bar(None, "removed")
    return Bar(None, f"below {step.top[-1].probability:.3f}")


def _name(candidate: Candidate, tokenizer: Tokenizer | None) -> str:
    if tokenizer is not None or candidate.text is None:
        return token_name(candidate.token, tokenizer)
    return candidate.text.replace(" ", "·") or f"#{candidate.token}"


@picture_kind("beams", "the tree of the hypotheses of a beam search")
def beams(subject: Subject, *, strategy: Strategy = _BEAM, max_new_tokens: int = 8) -> Picture:
    """Draws all tokens that a beam search kept, as a tree.

    Args:
        subject: the model, with a head for the next token, and its text.
        strategy: a search, such as `Beam(num_beams=4)`.
        max_new_tokens: length of the hypotheses.
    """
    subject.check_task(NEXT_TOKEN_TASKS)
    if not strategy.searches:
        raise ArgumentValueError("strategy", strategy, "a search", "such as minitx.Beam(num_beams=4)")
    max_new_tokens = check_integer("max_new_tokens", max_new_tokens, 1, MOST_COLUMNS)
    model: Any = subject.model
    options: dict[str, Any] = {"tokenizer": subject.tokenizer, "max_new_tokens": max_new_tokens}
    if subject.target is not None:
        options["decoder_prompts"] = subject.targets[:1]
    options["num_samples"] = getattr(strategy, "num_beams", 1)
    prompt = [subject.text] if isinstance(subject.text, str) else [[*subject.text]]
    result = minitx.generate(model, prompt, strategy, **options)
    assert result.beams is not None, "of a search"
    return tree_picture(result.beams[0], tokenizer=subject.tokenizer)


def tree_picture(tree: BeamTree, *, tokenizer: Tokenizer | None = None) -> Picture:
    """Draws the tree of a search; the best hypothesis is orange, and tokens that led nowhere are grey.

    Args:
        tree: of `result.beams`.
        tokenizer: for the names of tokens; None: the texts of the tree.

    Raises:
        ArgumentTypeError, ArgumentValueError: not such a tree, or an empty one.
    """
    check_type("tree", tree, BeamTree, "a tree of result.beams")
    if not len(tree):
        raise ArgumentValueError("tree", tree, "one with tokens")
    leads, best = [False] * len(tree), [False] * len(tree)
    for place, node in reversed([*enumerate(tree)]):
        leads[place] |= node.rank is not None
        best[place] |= node.rank == 0
        if node.parent is not None:
            leads[node.parent] |= leads[place]
            best[node.parent] |= best[place]
    branches = []
    for place, node in enumerate(tree):
        if node.step >= MOST_COLUMNS:
            continue
        text = token_name(node.token, tokenizer) if tokenizer is not None else node.text
        note = "" if node.rank is None else f"#{node.rank + 1}: {node.score:.2f}"
        parts = (text or f"#{node.token}", note, best[place], not leads[place])
        branches.append(Branch(node.parent, node.step, *parts))
    cut = f"; the first {MOST_COLUMNS} tokens" * any(node.step >= MOST_COLUMNS for node in tree)
    note = f"orange: the best hypothesis; grey: dropped; at the ends: rank and score{cut}"
    return compose("The tree of the search", [Tree(branches)], note)
