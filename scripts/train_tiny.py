"""Train the checkpoints that ship with minitx: corpora, training, figures, model cards.

`python scripts/train_tiny.py` makes all of them, in some hours on two cores; `--which decoder` makes one.
`--steps 50` shows in a minute or two that everything works, and leaves the shipped folders alone. Each has a
recipe in recipes/tiny, which `minitx train` runs too once the corpora are there.

A run that was interrupted continues. Weights are stored in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import tiny_cards
import tiny_measures as measures

import minitx
from minitx.training import TokenBlocks, TokenDocuments, read_metrics, read_texts, run_recipe, split

ROOT = Path(__file__).resolve().parent.parent
RECIPES, SHIPPED = ROOT / "recipes" / "tiny", ROOT / "minitx" / "shipped"
CORPORA = RECIPES / "corpora"
DEFINITIONS = 1500  # of the commonest words, for the chats


# --- data ------------------------------------------------------------------------------------------


def records(name: str) -> list[dict[str, Any]]:
    """Returns the records of a corpus."""
    return [json.loads(line) for line in (CORPORA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def write_records(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes records beside the corpora."""
    (CORPORA / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def fetch(names: Sequence[str]) -> None:
    """Fetches the corpora that are not there yet."""
    for name in names:
        if not any((CORPORA / f"{name}.{kind}").exists() for kind in ("txt", "jsonl")):
            path, checksum = corpora.build(name, CORPORA)
            expected = json.loads(corpora.CHECKSUMS.read_text())[name]
            if checksum != expected:
                raise ValueError(f"{path} has checksum {checksum} instead of {expected}: another package?")


def split_questions() -> None:
    """Holds out every tenth country, so that no answer of a held-out question was seen."""
    rows = records("questions")
    held_out = set(sorted({row["country"] for row in rows})[::10])
    write_records("questions-training", [row for row in rows if row["country"] not in held_out])
    write_records("questions-held-out", [row for row in rows if row["country"] in held_out])


def split_sentiment() -> None:
    """Holds out a tenth for the figures, and a tenth of the rest to choose the best step of the training."""
    rest, held_out = split(records("sentiment"), 0.1)
    training, evaluation = split(rest, 0.1)
    for name, rows in (("training", training), ("evaluation", evaluation), ("held-out", held_out)):
        write_records(f"sentiment-{name}", rows)
    text = "\n\n".join(row["text"] for row in training)
    (CORPORA / "sentiment-training.txt").write_text(text + "\n", "utf-8")


def split_chats() -> None:
    """Joins questions about countries with those about common words, and holds out a twentieth.

    Most held-out questions ask for a fact that the training asks for in other words.
    """
    paths = [CORPORA / f"{name}.txt" for name in tiny_cards.CARDS["instruct"].corpora]
    text = "\n".join(path.read_text("utf-8") for path in sorted(paths) if path.exists()).lower()
    counts = Counter(text.replace(",", " ").replace(".", " ").split())

    def frequency(row: dict[str, Any]) -> int:
        question = row["messages"][0]["content"].lower().rstrip("?.").split()
        rest = [w for w in question if w not in ("what", "does", "mean", "is", "a", "an", "the", "define")]
        return min((counts[word] for word in rest), default=0)

    common = sorted(records("definitions"), key=frequency, reverse=True)[:DEFINITIONS]
    training, held_out = split(records("instructions"), 0.05)
    write_records("chats-training", [*training, *common])
    write_records("chats-held-out", list(held_out))


# --- figures ---------------------------------------------------------------------------------------


def held_out_texts(names: Sequence[str], share: float) -> list[str]:
    """Returns the held-out documents of corpora, as a recipe with `held_out` chooses them."""
    return list(read_texts([CORPORA / f"{name}.txt" for name in names]).split(share, seed=0)[1])


def measure_encoder(run: Path, folder: Path) -> measures.Table:
    """Proposals for hidden words."""
    training, held_out = (TokenBlocks(path, 128) for path in token_folders(run))
    return measures.masked_words(folder, training, held_out)


def measure_decoder(run: Path, folder: Path) -> measures.Table:
    """Bits per byte, and those of 5-grams over the same tokens."""
    training, held_out = token_folders(run)
    size = sum(len(text.encode()) for text in held_out_texts(tiny_cards.CARDS["decoder"].corpora, 0.03))
    documents = TokenDocuments(held_out)
    ids = [documents[i]["input_ids"] for i in range(len(documents))]
    ours = measures.bits_per_byte(folder, ids, size)
    blocks = [
        np.concatenate([x["input_ids"].numpy() for x in TokenBlocks(path, 1)])
        for path in (training, held_out)
    ]
    rival = measures.ngram_bits(*blocks, 4096) / size
    return [
        ("bits per byte", f"{ours:.3f}"),
        ("5-gram model over the same tokens, bits per byte", f"{rival:.3f}"),
    ]


def token_folders(run: Path) -> tuple[Path, Path]:
    """Returns the folders of a run's token blocks: training and evaluation."""
    return Path(f"{run}-tokens"), Path(f"{run}-tokens-evaluation")


def measure_classifier(run: Path, folder: Path) -> measures.Table:
    """Accuracy."""
    training = [*records("sentiment-training"), *records("sentiment-evaluation")]
    return measures.sentiment(folder, training, records("sentiment-held-out"))


def measure_ner(run: Path, folder: Path) -> measures.Table:
    """F1 of entities."""
    return measures.entities(folder, split(records("entities"), 0.05)[1], 96)


def measure_qa(run: Path, folder: Path) -> measures.Table:
    """Exact answers about countries that were held out."""
    return measures.answers(folder, records("questions-held-out"))


def measure_instruct(run: Path, folder: Path) -> measures.Table:
    """Exact answers to held-out questions."""
    return measures.exact_answers(folder, records("chats-held-out"))


def measure_seq2seq(run: Path, folder: Path) -> measures.Table:
    """Error rates of held-out words."""
    return measures.pronounce(folder, split(records("pronunciations"), 0.05)[1])


MEASURES: dict[str, Callable[[Path, Path], measures.Table]] = {
    "encoder": measure_encoder,
    "classifier": measure_classifier,
    "ner": measure_ner,
    "qa": measure_qa,
    "decoder": measure_decoder,
    "instruct": measure_instruct,
    "seq2seq": measure_seq2seq,
}
POSITIONS = {"encoder": 128}  # tokens of the longest blocks: the position table is cut to them
# Recipes before the last one, which begins with their model
STAGES = {"encoder": ["encoder-start"], "classifier": ["classifier-start"]}
PREPARE = {"classifier": split_sentiment, "qa": split_questions, "instruct": split_chats}


# --- the command -----------------------------------------------------------------------------------


def make(name: str, work: Path, out: Path, steps: int | None) -> None:
    """Trains a checkpoint, measures it, and writes it with its card.

    Args:
        name: such as "decoder".
        work: folder of the runs.
        out: folder of the checkpoints.
        steps: None: those of the recipe.
    """
    card = tiny_cards.CARDS[name]
    fetch(card.corpora)
    PREPARE.get(name, lambda: None)()
    run, target = work / name, out / f"tiny-{name}"
    recipes = [RECIPES / f"{stage}.toml" for stage in (*STAGES.get(name, ()), name)]
    overrides: list[str] = []
    for recipe in recipes:
        place = work / recipe.stem
        overrides += [] if steps is None else shortened(recipe, steps)
        if not (place / "model").is_dir():
            run_recipe(recipe, overrides, folder=place, resume=place.is_dir())
        overrides = [f"model.name={json.dumps(str(place / 'model'))}"]
    model = minitx.load(run / "model", dtype="bfloat16")
    if name in POSITIONS:
        model = cut_positions(run / "model", model, POSITIONS[name])
    draft = work / "drafts" / target.name  # which replaces the target when it is complete
    shutil.rmtree(draft, ignore_errors=True)
    minitx.save(model, draft, tokenizer=minitx.load_tokenizer(run / "model"))
    figures = MEASURES[name](run, draft)
    lines = [line for recipe in recipes for line in read_metrics(work / recipe.stem / "metrics.jsonl")]
    texts = [recipe.read_text("utf-8") for recipe in recipes]
    (draft / "README.md").write_text(card.text(target.name, model, figures, lines, texts), "utf-8")
    replace(target, draft)
    print(f"tiny-{name}: {target}")
    for title, figure in figures:
        print(f"  {title}: {figure}")


def replace(target: Path, draft: Path) -> None:
    """Replaces a folder as a whole by a copy of another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy, earlier = (target.with_name(f".{target.name}-{kind}") for kind in ("new", "old"))
    for path in (copy, earlier):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(draft, copy, ignore=shutil.ignore_patterns(".*"))
    if target.exists():
        target.rename(earlier)
    copy.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)


def cut_positions(folder: Path, model: Any, length: int) -> Any:
    """Returns a BERT with a shorter table of positions, without those that no block had.

    Args:
        folder: of the model.
        model: loaded from it.
        length: number of positions.
    """
    config = json.loads((folder / "config.json").read_text("utf-8")) | {"max_position_embeddings": length}
    shorter = minitx.from_config(config, head="masked-lm", dtype="bfloat16").eval()
    table = "embedder.pos_emb.weight"
    state = model.state_dict()
    shorter.load_state_dict(state | {table: state[table][:length].clone()})
    return shorter


def shortened(recipe: Path, steps: int) -> list[str]:
    """Returns the overrides of a recipe for a run of a few steps."""
    settings = {"steps": steps, "warmup_steps": steps // 10, "log_every": min(10, steps)}
    settings |= {"evaluate_every": 0, "save_every": 0, "patience": 0}
    if "decay_steps" in recipe.read_text("utf-8"):
        settings["decay_steps"] = steps // 3
    return [f"train.{key}={value}" for key, value in settings.items()]


def main() -> int:
    """Makes the checkpoints that are named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--which", nargs="+", choices=list(MEASURES), default=list(MEASURES), metavar="NAME")
    parser.add_argument("--steps", type=int, help="a short trial: its checkpoints stay in the working folder")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder of the runs (default: runs)")
    options = parser.parse_args()
    work = options.work if options.steps is None else options.work / f"{options.steps}-steps"
    for name in options.which:
        make(name, work, SHIPPED if options.steps is None else work / "checkpoints", options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
