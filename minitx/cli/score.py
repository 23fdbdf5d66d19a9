"""`minitx score`: how probable texts are to a model."""

from __future__ import annotations

from typing import Any

from minitx.cli import decoding, decoding_options, options, render
from minitx.cli.options import option
from minitx.cli.source import Source, read_texts


@options.as_command(
    *(options.MODEL, options.texts(), options.FILE),
    option("--source TEXT", "encoder input of each text, in their order", name="sources", multiple=True),
    option("--tokens", "also the probability of every token"),
    options.batch_size(8),
    *(*decoding_options.LANGUAGES, *decoding_options.WEIGHTS),
)
def command(
    source: Source, texts: tuple[str, ...], file: str | None, sources: tuple[str, ...], tokens: bool,
    batch_size: int, json: bool, **values: Any,
) -> None:  # fmt: skip
    """Shows how probable texts are to a model: the perplexity (per token, 1 is
    certain), the log-probability of the whole text in nats, and its number of
    tokens. The lower the perplexity, the more the model expects the text. Of an
    encoder-decoder, such as a translation model, each text needs a --source.

    examples:
      minitx score gpt2 "The cat sat on the mat." "Mat the on sat cat the."
      minitx score gpt2 "The capital of France is Paris" --tokens
      minitx score ./nllb "Meine Katze." --source "My cat." --tgt-lang deu_Latn
      minitx score gpt2 --file lines.txt --json
    """
    from minitx.decoding.score import score

    lines = read_texts(texts, file)
    source.check_device()
    folder = source.folder()
    tokenizer = source.tokenizer(folder)
    decoding.set_languages(tokenizer, values)
    head = decoding.head_of(source, folder)
    model = decoding.model_of(source, folder, head)
    scores = score(model, lines, sources=list(sources) or None, tokenizer=tokenizer, batch_size=batch_size)
    if not json:
        print("  perplexity   log-prob  tokens  text")
    for text, logprobs, total, perplexity in zip(
        lines, scores.logprobs, scores.totals.tolist(), scores.perplexities.tolist(), strict=True
    ):
        ids = tokenizer.encode(text, as_target=head == "seq2seq-lm")
        if json:
            plain: dict[str, Any] = {
                "text": text,
                "perplexity": render.finite(perplexity),
                "logprob": render.finite(total),
            }
            plain |= {"tokens": ids, "logprobs": list(map(render.finite, logprobs.tolist()))}
            render.print_json(plain, indent=None)
            continue
        print(f"{perplexity:>12.2f}{total:>11.2f}{len(ids):>8}  {render.shorten(text, 46)}")
        if tokens:
            names = [tokenizer.id_to_token(token) or "?" for token in ids]
            print(*render.columns(names, [f"{value:.3f}" for value in logprobs.exp().tolist()]), sep="\n")
