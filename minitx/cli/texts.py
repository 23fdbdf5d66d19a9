"""`minitx embed`, `minitx score` and `minitx tokenize`: texts in numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minitx.cli.options import HUB, MODEL, TEXTS, command, group
from minitx.cli.render import colored, emit
from minitx.cli.source import Source, read_texts
from minitx.terminal import progress_bar


@command(MODEL, TEXTS, *group("the model", *HUB, "dtype", "device", "optimize"))
def embed(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Prints or writes the vectors of texts."""
    from minitx.layers.token_pooling import names_of
    from minitx.pictures.similarity import MOST_COLUMNS, vectors_table
    from minitx.pipelines import embedding_settings
    from minitx.pipelines.embedding import embed as pipeline
    from minitx.pipelines.embedding.vectors import check_finite, check_vector_file, write_vectors

    output, batch_size = values.pop("output"), values.pop("batch_size")
    path = None if output is None else check_vector_file("output", output)
    lines = read_texts(texts, file)
    if len(lines) > MOST_COLUMNS and path is None and not json:
        raise ValueError(f"{len(lines)} texts do not fit into a table; choose --output FILE or --json.")
    folder = source.folder()
    stated = {name: value for name, value in values.items() if value is not None}
    settings = replace(embedding_settings(folder, **source.hub), **stated)
    tokenizer, architecture = source.tokenizer(folder), source.architecture(folder)
    pipeline.check_room(tokenizer, settings.max_length)
    model = source.model(folder, "none" if architecture is None else architecture.headless[-1])
    with progress_bar(len(lines), "embedding", "text", quiet=source.quiet) as progress:
        options = stated | {"settings": settings, "batch_size": batch_size, "progress": progress}
        vectors = pipeline.embed(model, lines, tokenizer, **options).cpu()
    check_finite(vectors)
    result = {"model": source.name, **settings.as_dict(), "texts": lines}
    size = f"{len(lines)} vector{'s' * (len(lines) > 1)} of {vectors.shape[1]} numbers"
    if path is None:
        kind = f"({' + '.join(names_of(settings.pooling))} pooling{', length 1' * settings.normalize})"
        shown = "" if json else f"{size} {kind}\n{vectors_table(lines, vectors, colored)}"
        shown += "\n--json or --output gives all numbers" * (len(lines) == 1 and not json)
        emit(json, result | {"embeddings": vectors.tolist()}, shown)
        return
    write_vectors(path, vectors, result)
    emit(json, result | {"output": output, "shape": list(vectors.shape)}, f"{size} in {path}")


@command(MODEL, TEXTS, *group("the model", *HUB, "dtype", "device", "optimize"))
def score(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Prints perplexities and log-probabilities."""
    from minitx.cli.decoding import head_of, model_of, set_languages
    from minitx.decoding.score import score as scores_of
    from minitx.pictures.text import columns, names_of, shorten_line
    from minitx.pipelines.generation.records import finite

    lines = read_texts(texts, file)
    folder = source.folder()
    tokenizer = source.tokenizer(folder)
    set_languages(tokenizer, values)
    head = head_of(source, folder)
    model, sources = model_of(source, folder, head), list(values["sources"]) or None
    scores = scores_of(model, lines, sources=sources, tokenizer=tokenizer, batch_size=values["batch_size"])
    header = "  perplexity   log-prob  tokens  text\n"
    for row, text in enumerate(lines):
        ids, logprobs = tokenizer.encode(text, as_target=head == "seq2seq-lm"), scores.logprobs[row]
        total, perplexity = float(scores.totals[row]), float(scores.perplexities[row])
        plain: dict[str, Any] = {"text": text, "perplexity": finite(perplexity), "logprob": finite(total)}
        plain |= {"tokens": ids, "logprobs": [finite(value) for value in logprobs.tolist()]}
        shown = f"{perplexity:>12.2f}{total:>11.2f}{len(ids):>8}  {shorten_line(text, 46)}"
        if values["tokens"]:
            shown += "\n" + columns(names_of(tokenizer, ids), [f"{p:.3f}" for p in logprobs.exp().tolist()])
        emit(json, plain, header * (row == 0) + shown, indent=None)


@command(MODEL, TEXTS, *group("the model", *HUB[:-1]))
def tokenize(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Prints the tokens of texts, or the texts of tokens."""
    from minitx.pictures.text import columns, names_of

    special, ids = values["special"] is not False, values["ids"]
    if ids and (texts or file):
        raise ValueError("--ids takes the place of texts; leave one of them out.")
    source.calm_hub()
    tokenizer, target = source.tokenizer(), bool(values["as_target"])
    for number, given in enumerate(ids or read_texts(texts, file)):
        row = given if ids else tokenizer.encode(given, add_special_tokens=special, as_target=target)
        names = names_of(tokenizer, row)
        text = tokenizer.decode(row, skip_special_tokens=not special) if ids else given
        table = "\n" * bool(number) + columns(names, list(map(str, row)))
        emit(json, {"text": text, "ids": row, "tokens": names}, text if ids else table, indent=None)
