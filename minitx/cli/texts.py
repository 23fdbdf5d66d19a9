"""`minitx embed`, `minitx score` and `minitx tokenize`: texts in numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from minitx.cli.options import HUB, MODEL, TEXTS, Weights, command
from minitx.cli.render import colored, emit, finite, paragraph, progress_bar
from minitx.cli.source import Source, read_texts


@command(MODEL, TEXTS, *Weights.options(*HUB, "dtype", "device"))
def embed(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Converts each text to one vector, with the pooling and normalization of the
    checkpoint's sentence-transformers files (without them: mean of the tokens,
    length 1). Texts come from the command line, from --file, or, one per line, from
    stdin.

    A few texts are shown as a table of their cosine similarities; for more of them
    choose --output or --json.

    --file PATH  a text file, one text per line
    --output PATH  .npy, .safetensors or .json file for the vectors
    --pooling mean|first|last|max|mean_sqrt_len|weighted_mean|pooler  how (default: the checkpoint's)
    --normalize/--no-normalize  length 1 or not (default: the checkpoint's)
    --max-length COUNT  tokens per text; the rest is cut
    --batch-size COUNT  texts per batch (default: 32)

    examples:
      minitx embed ./my-model "A cat sleeps." "A kitten naps." "Rates rose."
      minitx embed ./my-model --file lines.txt --output vectors.npy
      cat lines.txt | minitx embed ./my-model --json
    """
    from minitx.inspect.similarity import MOST_COLUMNS
    from minitx.pipelines import embedding_settings
    from minitx.pipelines.text import embed as pipeline
    from minitx.pipelines.text.vectors import check_finite, check_path, write_vectors

    output, batch_size = values.pop("output"), values.pop("batch_size")
    path = None if output is None else check_path(Path(output))
    lines = read_texts(texts, file)
    if len(lines) > MOST_COLUMNS and path is None and not json:
        raise ValueError(f"{len(lines)} texts do not fit into a table; choose --output FILE or --json.")
    folder = source.folder()
    stated = {name: value for name, value in values.items() if value is not None}
    settings = replace(embedding_settings(folder), **stated)
    tokenizer, architecture = source.tokenizer(folder), source.architecture(folder)
    pipeline.check_room(tokenizer, settings.max_length)
    model = source.model(folder, "none" if architecture is None else architecture.headless[-1])
    with progress_bar(len(lines), "embedding", "text", quiet=source.quiet) as progress:
        options = stated | {"settings": settings, "batch_size": batch_size, "progress": progress}
        vectors = pipeline.embed(model, tokenizer, lines, **options).cpu()
    check_finite(vectors)
    result = {"model": source.name, **settings.as_dict(), "texts": lines}
    size = f"{len(lines)} vector{'s' * (len(lines) > 1)} of {vectors.shape[1]} numbers"
    if path is None:
        shown = "" if json else f"{size} {table(lines, vectors, settings)}"
        emit(json, result | {"embeddings": vectors.tolist()}, shown)
        return
    write_vectors(path, vectors, result)
    emit(json, result | {"output": output, "shape": list(vectors.shape)}, f"{size} in {path}")


@command(MODEL, TEXTS, *Weights.options(*HUB, "dtype", "device"))
def score(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Shows how probable texts are to a model: the perplexity (per token, 1 is
    certain), the log-probability of the whole text in nats, and its number of
    tokens. The lower the perplexity, the more the model expects the text. Of an
    encoder-decoder, such as a translation model, each text needs a --source.

    --file PATH  a text file, one text per line
    --source,--sources TEXT...  encoder input of each text, in their order
    --src-lang CODE  language of the --source
    --tgt-lang CODE  language of the text
    --tokens  also the probability of every token
    --batch-size COUNT  texts per batch (default: 8)

    examples:
      minitx score gpt2 "The cat sat on the mat." "Mat the on sat cat the."
      minitx score gpt2 "The capital of France is Paris" --tokens
      minitx score ./nllb "Meine Katze." --source "My cat." --tgt-lang deu_Latn
      minitx score gpt2 --file lines.txt --json
    """
    from minitx.cli.decoding import head_of, model_of, set_languages
    from minitx.decoding.score import score as scores_of
    from minitx.inspect.text import columns, shorten_line

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
            names = [tokenizer.id_to_token(token) or "?" for token in ids]
            shown += "\n" + "\n".join(columns(names, [f"{p:.3f}" for p in logprobs.exp().tolist()]))
        emit(json, plain, header * (row == 0) + shown, indent=None)


@command(MODEL, TEXTS, *Weights.options(*HUB))
def tokenize(source: Source, texts: tuple[str, ...], file: str | None, json: bool, **values: Any) -> None:
    """Shows the tokens of texts with their ids below them, special tokens included;
    with --ids the text of ids. Needs the tokenizer alone, no weights.

    The ids of a word within a text often have a space in front of it: compare
    minitx tokenize gpt2 "cat" " cat".

    --file PATH  a text file, one text per line
    --ids IDS...  decode ids instead: "464 3290"
    --special/--no-special  with or without special tokens (default: with)
    --as-target  as the output of an encoder-decoder

    examples:
      minitx tokenize bert-base-uncased "A cat sleeps."
      minitx tokenize gpt2 " cat" --no-special
      minitx tokenize gpt2 --ids "464 3797"
      minitx tokenize gpt2 --file lines.txt --json
    """
    from minitx.inspect.text import columns

    special, ids = values["special"] is not False, values["ids"]
    if ids and (texts or file):
        raise ValueError("--ids takes the place of texts; leave one of them out.")
    source.calm_hub()
    tokenizer, target = source.tokenizer(), bool(values["as_target"])
    for number, given in enumerate(ids or read_texts(texts, file)):
        row = given if ids else tokenizer.encode(given, add_special_tokens=special, as_target=target)
        names = [tokenizer.id_to_token(token) or "?" for token in row]
        text = tokenizer.decode(row, skip_special_tokens=not special) if ids else given
        table = "\n" * bool(number) + "\n".join(columns(names, list(map(str, row))))
        emit(json, {"text": text, "ids": row, "tokens": names}, text if ids else table, indent=None)


def table(texts: list[str], vectors: Any, settings: Any) -> str:
    """The similarities of several texts, or the first numbers of a single vector."""
    from torch.nn import functional as F

    from minitx.inspect.similarity import similarity_table
    from minitx.pipelines.text.pooling import names_of

    kind = f"({' + '.join(names_of(settings.pooling))} pooling{', length 1' * settings.normalize})"
    if len(texts) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in vectors[0, :6].tolist())
        return f"{kind}\n" + paragraph(f"begins {numbers}, ...; --json or --output gives all of it")
    units = F.normalize(vectors, dim=-1)
    return f"{kind}\n\nCosine similarity\n{similarity_table(texts, units @ units.T, colored)}"
