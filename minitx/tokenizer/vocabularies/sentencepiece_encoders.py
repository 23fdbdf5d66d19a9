"""Sentencepiece vocabularies of encoders: ALBERT, XLM-RoBERTa, CamemBERT, DeBERTa."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minitx.tokenizer.files import Settings
from minitx.tokenizer.vocabularies.declaration import ANGLES, BOUNDARIES, BRACKETS, VocabularyFiles
from minitx.tokenizer.vocabularies.post_processors import double_separator, typed_pair
from minitx.tokenizer.vocabularies.sentencepiece_builder import build_pieces, read_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def _albert_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds ALBERT's tokenizer from spiece.model: ids unchanged, text without accents and case."""
    from tokenizers import normalizers

    model = read_pieces(folder / "spiece.model")
    # ALBERT splits a piece such as "9," in two; a very low score has the same effect, as in the published
    # tokenizer.json files. transformers 5 leaves this out.
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
    return build_pieces(model, pieces, model.unk_id, settings, before=steps)


def _xlm_roberta_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds XLM-R's tokenizer from sentencepiece.bpe.model: fairseq's four tokens replace three pieces."""
    model = read_pieces(folder / "sentencepiece.bpe.model", reserved=3)
    front = [(settings.text(name), 0.0) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
    pieces = [(piece.text, piece.score) for piece in model.pieces[3:]]
    pieces.append((settings.text("mask_token"), 0.0))
    return build_pieces(model, front + pieces, 3, settings)


def _camembert_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds CamemBERT's tokenizer from sentencepiece.bpe.model: fairseq's tokens first, some unused."""
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
    return build_pieces(model, front + pieces, 3, settings)


def _deberta_pieces(folder: Path, settings: Settings) -> Backend:
    """Builds DeBERTa v2 and v3's tokenizer from spm.model: ids unchanged, [MASK] after the last."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    model = read_pieces(folder / "spm.model")
    pieces = [(piece.text, piece.score) for piece in model.pieces]
    before: list[normalizers.Normalizer] = (
        [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    )
    if model.remove_extra_whitespaces:
        before.append(normalizers.Strip())
    # The published tokenizer.json files have all of this but the last step. Without it, a zero-width space
    # at the end, which the model's rules map to a space, leaves a stray "▁"; sentencepiece, which the models
    # were trained with, does not. transformers 5 applies NFC instead of the rules.
    after = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    split = [pre_tokenizers.Punctuation("isolated")] if settings.flag("split_by_punct", False) else []
    return build_pieces(model, pieces, model.unk_id, settings, before=before, after=after, split=split)


XLM_ROBERTA = VocabularyFiles(
    files=("sentencepiece.bpe.model",),
    build=_xlm_roberta_pieces,
    post_processor=double_separator,
    special_tokens_map=ANGLES,
    mask_takes_space=True,
)
CAMEMBERT = VocabularyFiles(
    files=("sentencepiece.bpe.model",),
    build=_camembert_pieces,
    post_processor=double_separator,
    special_tokens_map=ANGLES,
    mask_takes_space=True,
)
ALBERT = VocabularyFiles(
    files=("spiece.model",),
    build=_albert_pieces,
    post_processor=typed_pair,
    special_tokens_map=BRACKETS | BOUNDARIES | {"unk_token": "<unk>", "pad_token": "<pad>"},
    mask_takes_space=True,
)

DEBERTA = VocabularyFiles(
    files=("spm.model",),
    build=_deberta_pieces,
    post_processor=typed_pair,
    special_tokens_map=BRACKETS | BOUNDARIES,
)
