"""Sentencepiece vocabularies of encoder-decoders: T5, mT5, UMT5, Pegasus, mBART, NLLB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import CONFIG, Settings, wrong
from minitx.tokenizer.languages import MBART, MBART50, NLLB
from minitx.tokenizer.vocabularies.declaration import ANGLES, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import eos_after_each, eos_at_end
from minitx.tokenizer.vocabularies.sentencepiece_builder import add_controls, build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _t5(extra_ids: int) -> VocabularyFiles:
    """Declares T5's spiece.model: ids unchanged, followed by the sentinels in descending order.

    Args:
        extra_ids: number of sentinels if tokenizer_config.json has none.
    """

    def _sentinels(settings: Settings) -> tuple[str, ...]:
        count = settings.count("extra_ids", extra_ids)
        return tuple(f"<extra_id_{number}>" for number in reversed(range(count)))

    def _build(folder: Path, settings: Settings) -> Backend:
        from tokenizers import Regex, normalizers

        model = read_pieces(folder / "spiece.model")
        pieces = [(piece.text, piece.score) for piece in model.pieces]
        known = {text for text, _ in pieces}
        pieces += [(text, 0.0) for text in _sentinels(settings) if text not in known]
        if settings.flag("legacy", True) is not False:
            return add_controls(model, build_pieces(model, pieces, model.unk_id, settings), settings)
        # Not "legacy": text after a sentinel begins a word only after a space. Checkpoints set the flag, but
        # transformers 5 ignores it.
        spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(left=False, right=True)]
        backend = build_pieces(model, pieces, model.unk_id, settings, after=spaces, split=(), first_only=True)
        return add_controls(model, backend, settings)

    return VocabularyFiles(
        files=("spiece.model",),
        build=_build,
        post_processor=eos_after_each,
        special_tokens_map={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        special=_sentinels,
    )


def _pegasus_front(settings: Settings) -> tuple[str, ...]:
    """Returns the tokens before the pieces: two of the file, then those of pre-training."""
    offset = settings.count("offset", 103)
    front = [settings.text("pad_token"), settings.text("eos_token")]
    if offset == 0:  # the file has all of them
        return tuple(front)
    sentence = settings.config.get("mask_token_sent", "<mask_1>")
    if sentence is not None and not isinstance(sentence, str):
        wrong(CONFIG, "mask_token_sent", sentence, "the token that stands for a sentence, or null")
    # transformers 5 swaps the two masks if the file names them.
    front += [] if sentence is None else [sentence]
    front += [] if settings.special_tokens_map.get("mask_token") is None else [settings.text("mask_token")]
    front += [f"<unk_{number}>" for number in range(2, offset)]
    if len(front) != offset + 2:
        wrong(CONFIG, "offset", offset, f"{len(front) - 2}, the number of tokens before the pieces")
    return tuple(front)


def _pegasus_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds Pegasus' tokenizer: all but the first two pieces follow the tokens of pre-training."""
    model = read_pieces(folder / "spiece.model")
    pieces = [(text, -100.0 if text.startswith("<unk_") else 0.0) for text in _pegasus_front(settings)]
    unk_id = len(pieces) + model.unk_id - 2
    pieces += [(piece.text, piece.score) for piece in model.pieces[2:]]
    return build_pieces(model, pieces, unk_id, settings)


def _fairseq_pieces(languages: tuple[str, ...]) -> VocabularyFiles:
    """Declares a sentencepiece.bpe.model with fairseq's four tokens before its pieces and languages after.

    transformers 5 leaves out the model's normalization rules for mBART, keeps a space at the end for mBART-50
    and NLLB, and places NLLB's mask before the languages; the published tokenizer.json files and
    sentencepiece do not.
    """

    def _build(folder: Path, settings: Settings) -> Backend:
        model = read_pieces(folder / "sentencepiece.bpe.model", reserved=3)
        front = ("bos_token", "pad_token", "eos_token", "unk_token")
        pieces = [(settings.text(name), 0.0) for name in front]
        pieces += [(piece.text, piece.score) for piece in model.pieces[3:]]
        pieces += [(token, 0.0) for token in (*languages, settings.text("mask_token"))]
        return build_pieces(model, pieces, 3, settings)

    return VocabularyFiles(
        files=("sentencepiece.bpe.model",),
        build=_build,
        post_processor=eos_at_end,  # until the language is known
        special_tokens_map=ANGLES,
        mask_takes_space=True,
        special=lambda settings: languages,
    )


T5 = _t5(extra_ids=100)
MT5 = _t5(extra_ids=0)  # its pieces leave no room for more in the embedding
UMT5 = _t5(extra_ids=300)
PEGASUS = VocabularyFiles(
    files=("spiece.model",),
    build=_pegasus_pieces,
    post_processor=eos_at_end,
    special_tokens_map={
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask_2>",
    },
    special=lambda settings: _pegasus_front(settings)[2:],
)
MBART_PIECES = _fairseq_pieces(MBART)
MBART50_PIECES = _fairseq_pieces(MBART50)
NLLB_PIECES = _fairseq_pieces(NLLB)
