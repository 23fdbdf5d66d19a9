"""Sentencepiece files of the encoder-decoder family whose pieces are the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer._spm_proto import CONTROL, SentencePieceModel
from minitx.tokenizer.files import CONFIG, Settings, wrong
from minitx.tokenizer.languages import MBART, MBART50, NLLB
from minitx.tokenizer.vocabularies.family import ANGLES, Source
from minitx.tokenizer.vocabularies.post_processors import each_ended, ended
from minitx.tokenizer.vocabularies.spm_builder import build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _t5(extra_ids: int) -> Source:
    """T5's spiece.model: ids as they are, and the sentinels behind them, the last one first.

    Args:
        extra_ids: how many sentinels, where tokenizer_config.json does not say it.
    """

    def sentinels(settings: Settings) -> tuple[str, ...]:
        count = settings.count("extra_ids", extra_ids)
        return tuple(f"<extra_id_{number}>" for number in reversed(range(count)))

    def build(folder: Path, settings: Settings) -> Backend:
        from tokenizers import Regex, normalizers

        model = read_pieces(folder / "spiece.model")
        pieces = [(piece.text, piece.score) for piece in model.pieces]
        known = {text for text, _ in pieces}
        pieces += [(text, 0.0) for text in sentinels(settings) if text not in known]
        if settings.flag("legacy", True) is not False:
            return _with_controls(model, build_pieces(model, pieces, model.unk_id), settings)
        # Not "legacy": what stands behind a sentinel begins a word only if there is a space. Checkpoints
        # say so with the flag; transformers 5 does not look at it.
        spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(left=False, right=True)]
        backend = build_pieces(model, pieces, model.unk_id, after=spaces, split=(), scheme="first")
        return _with_controls(model, backend, settings)

    return Source(
        files=("spiece.model",),
        build=build,
        frame=each_ended,
        roles={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        special=sentinels,
    )


def _with_controls(model: SentencePieceModel, backend: Backend, settings: Settings) -> Backend:
    """Makes special tokens of pieces that stand for no text and have no role (UMT5 has <s>)."""
    from tokenizers import AddedToken

    stated = [*settings.roles.values(), *settings.extra, *settings.added.values()]
    known = {token.content for token in stated if token is not None}
    controls = [piece.text for piece in model.pieces if piece.kind == CONTROL and piece.text not in known]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return backend


def _pegasus_front(settings: Settings) -> tuple[str, ...]:
    """The tokens that stand before the pieces: two of the file's own, then those of pre-training."""
    offset = settings.count("offset", 103)
    front = [settings.text("pad_token"), settings.text("eos_token")]
    if offset == 0:  # the file has all of them itself
        return tuple(front)
    sentence = settings.config.get("mask_token_sent", "<mask_1>")
    if sentence is not None and not isinstance(sentence, str):
        wrong(CONFIG, "mask_token_sent", sentence, "the token that stands for a sentence, or null")
    # transformers 5 has the two masks the other way round where the file names them.
    front += [] if sentence is None else [sentence]
    front += [] if settings.roles.get("mask_token") is None else [settings.text("mask_token")]
    front += [f"<unk_{number}>" for number in range(2, offset)]
    if len(front) != offset + 2:
        wrong(CONFIG, "offset", offset, f"{len(front) - 2}, as many as there are tokens before the pieces")
    return tuple(front)


def _pegasus_pieces(folder: Path, settings: Settings) -> Backend:
    """Pegasus' spiece.model: all but its first two pieces stand behind the tokens of pre-training."""
    model = read_pieces(folder / "spiece.model")
    pieces = [(text, -100.0 if text.startswith("<unk_") else 0.0) for text in _pegasus_front(settings)]
    unk_id = len(pieces) + model.unk_id - 2
    pieces += [(piece.text, piece.score) for piece in model.pieces[2:]]
    return build_pieces(model, pieces, unk_id)


def _fairseq_pieces(languages: tuple[str, ...]) -> Source:
    """A sentencepiece.bpe.model with fairseq's four tokens before its pieces, and languages behind.

    transformers 5 forgets the model's rules of normalisation for mBART, keeps a space at the end for
    mBART-50 and NLLB, and puts NLLB's mask before the languages; the published tokenizer.json files, and
    sentencepiece, do not.
    """

    def build(folder: Path, settings: Settings) -> Backend:
        model = read_pieces(folder / "sentencepiece.bpe.model", reserved=3)
        roles = ("bos_token", "pad_token", "eos_token", "unk_token")
        pieces = [(settings.text(role), 0.0) for role in roles]
        pieces += [(piece.text, piece.score) for piece in model.pieces[3:]]
        pieces += [(token, 0.0) for token in (*languages, settings.text("mask_token"))]
        return build_pieces(model, pieces, 3)

    return Source(
        files=("sentencepiece.bpe.model",),
        build=build,
        frame=ended,  # until the language is known
        roles=ANGLES,
        mask_takes_space=True,
        special=lambda settings: languages,
    )


T5 = _t5(extra_ids=100)
MT5 = _t5(extra_ids=0)  # its pieces leave no room for more in the embedding
UMT5 = _t5(extra_ids=300)
PEGASUS = Source(
    files=("spiece.model",),
    build=_pegasus_pieces,
    frame=ended,
    roles={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask_2>"},
    special=lambda settings: _pegasus_front(settings)[2:],
)
MBART_PIECES = _fairseq_pieces(MBART)
MBART50_PIECES = _fairseq_pieces(MBART50)
NLLB_PIECES = _fairseq_pieces(NLLB)
