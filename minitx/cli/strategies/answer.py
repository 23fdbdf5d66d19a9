"""`minitx answer` and `minitx infill`: one answer of many samples, and the text between two others."""

from __future__ import annotations

from typing import Any

from minitx.cli.decoding import DEFAULT_LENGTH, head_of, model_of, set_languages
from minitx.cli.options import MODEL, Argument, command, group
from minitx.cli.render import emit
from minitx.cli.source import Source


@command(
    *(MODEL, Argument("prompt", "PROMPT", "the question, or the input of an encoder")),
    *(*group("languages"), *group("the model")),
)
def answer(source: Source, prompt: str, by: str, json: bool, **values: Any) -> None:
    """Draws samples and prints the answer that they have in common, or the best of them."""
    from minitx.decoding import best_of, cot_decoding, mbr, self_consistency
    from minitx.decoding.generate import generate

    if by in ("probability", "agreement") and values["extract"] is not None:
        raise ValueError("--extract finds answers within texts, for --by vote and --by margin.")
    if by == "margin" and (values["seed"] is not None or values["strategy"] is not None):
        raise ValueError("--by margin takes the best first tokens; it has no --seed and no --strategy.")
    loaded, options = _load(source, values)
    count, extract = values["samples"], values["extract"]
    if by == "margin":
        result: Any = cot_decoding(loaded, prompt, extract, k=count, **options)
        emit(json, {"answers": result.answers, "margins": result.margins}, str(result))
        return
    options |= {"strategy": _strategy(values), "seed": values["seed"] or 0}
    if by == "probability":
        ranking = best_of(loaded, prompt, best_of=count, n=count, **options)
        rows = [{"text": each.text, "score": each.score} for each in ranking.candidates[0]]
        emit(json, {"answer": ranking.best[0].text, "samples": rows}, str(ranking))
        return
    samples = generate(loaded, prompt, num_samples=count, **options)
    if by == "vote":
        vote = self_consistency(samples, extract)
        shares = dict(zip(map(str, vote.answers), vote.weights, strict=True))
        emit(json, {"answer": vote.answer, "weights": shares, "texts": samples.texts}, str(vote))
        return
    consensus = mbr(samples)
    emit(json, {"answer": consensus.best, "texts": samples.texts}, str(consensus))


@command(
    *(MODEL, Argument("prefix", "PREFIX", "the text before"), Argument("suffix", "SUFFIX", "the text after")),
    *group("the model"),
)
def infill(source: Source, prefix: str, suffix: str, json: bool, **values: Any) -> None:
    """Prints the text between two others, by a model that was trained for it."""
    from minitx.decoding.text.infill import infill as between

    loaded, options = _load(source, values)
    strategy = _strategy(values)
    seed = {} if values["seed"] is None else {"seed": values["seed"]}
    result = between(loaded, prefix, suffix, strategy, order=values["order"], **seed, **options)
    row = result[0]
    emit(json, {"text": row.text, "finish_reason": row.finish_reason}, row.text or "")


def _load(source: Source, values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Returns the model, and the options of `generate`."""
    folder = source.folder()
    tokenizer = source.tokenizer(folder)
    if "src_lang" in values:
        set_languages(tokenizer, values)
    length = values["max_new_tokens"]
    options = {"tokenizer": tokenizer, "max_new_tokens": DEFAULT_LENGTH if length is None else length}
    return model_of(source, folder, head_of(source, folder)), options


def _strategy(values: dict[str, Any]) -> Any:
    """Returns the strategy of --strategy, else plain sampling."""
    from minitx.decoding import Sample
    from minitx.pipelines.generation.expressions import strategy_from_text

    return Sample() if values["strategy"] is None else strategy_from_text(values["strategy"])
