"""Sentencepiece files whose pieces are the vocabulary, in the encoder family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings
from minitx.tokenizer.vocabularies.family import ANGLES, BOUNDARIES, BRACKETS, Source
from minitx.tokenizer.vocabularies.post_processors import double_separator, typed_pair
from minitx.tokenizer.vocabularies.spm_builder import build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _albert_pieces(folder: Path, settings: Settings) -> Backend:
    """ALBERT's spiece.model: ids as they are, text stripped of accents and case first."""
    from tokenizers import normalizers

    model = read_pieces(folder / "spiece.model")
    # ALBERT cuts "9," in two wherever it comes out as one piece; a score that never wins does the
    # same, as in the published tokenizer.json files. transformers 5 leaves this out.
    pieces = [
        (text, score - 100.0 if len(text) > 1 and text[-1] == "," and text[-2].isdigit() else score)
        for text, score, _ in model.pieces
    ]
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not settings.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.flag("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return build_pieces(
        model,
        pieces,
        model.unk_id,
        before=steps,
        add_prefix_space=settings.flag("add_prefix_space", None),
    )


def _xlm_roberta_pieces(folder: Path, settings: Settings) -> Backend:
    """XLM-R's sentencepiece.bpe.model: four tokens of fairseq stand where three pieces stood."""
    model = read_pieces(folder / "sentencepiece.bpe.model", reserved=3)
    front = [(settings.text(role), 0.0) for role in ("bos_token", "pad_token", "eos_token", "unk_token")]
    pieces = [(piece.text, piece.score) for piece in model.pieces[3:]]
    pieces.append((settings.text("mask_token"), 0.0))
    return build_pieces(model, front + pieces, 3, add_prefix_space=settings.flag("add_prefix_space", None))


def _camembert_pieces(folder: Path, settings: Settings) -> Backend:
    """CamemBERT's sentencepiece.bpe.model: fairseq's tokens stand before all, some unused."""
    model = read_pieces(folder / "sentencepiece.bpe.model", reserved=1)
    front = [
        ("<s>NOTUSED", 0.0),
        (settings.text("pad_token"), 0.0),
        ("</s>NOTUSED", 0.0),
        (settings.text("unk_token"), 0.0),
        ("<unk>NOTUSED", -100.0),
    ]
    pieces = [(piece.text, piece.score) for piece in model.pieces[1:]]
    pieces.append((settings.text("mask_token"), 0.0))
    return build_pieces(model, front + pieces, 3, add_prefix_space=settings.flag("add_prefix_space", None))


def _deberta_pieces(folder: Path, settings: Settings) -> Backend:
    """DeBERTa v2 and v3's spm.model: ids as they are, and [MASK] behind the last."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    model = read_pieces(folder / "spm.model")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    before: list[normalizers.Normalizer] = (
        [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    )
    before.append(normalizers.Strip())
    # The published tokenizer.json files have all of this but the last step. Without it, a zero-width space
    # at the end, which the model's rules turn into a space, leaves a stray "▁"; sentencepiece, which the
    # models were trained with, leaves none. transformers 5 applies NFC instead of the rules.
    after = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    split = [pre_tokenizers.Punctuation("isolated")] if settings.flag("split_by_punct", False) else []
    return build_pieces(
        model,
        pieces,
        model.unk_id,
        before=before,
        after=after,
        split=split,
        add_prefix_space=settings.flag("add_prefix_space", None),
    )


XLM_ROBERTA = Source(
    files=("sentencepiece.bpe.model",),
    build=_xlm_roberta_pieces,
    frame=double_separator,
    roles=ANGLES,
    mask_takes_space=True,
)
CAMEMBERT = Source(
    files=("sentencepiece.bpe.model",),
    build=_camembert_pieces,
    frame=double_separator,
    roles=ANGLES,
    mask_takes_space=True,
)
ALBERT = Source(
    files=("spiece.model",),
    build=_albert_pieces,
    frame=typed_pair,
    roles=BRACKETS | BOUNDARIES | {"unk_token": "<unk>", "pad_token": "<pad>"},
    mask_takes_space=True,
)

DEBERTA = Source(files=("spm.model",), build=_deberta_pieces, frame=typed_pair, roles=BRACKETS | BOUNDARIES)
