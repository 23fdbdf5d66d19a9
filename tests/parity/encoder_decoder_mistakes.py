"""Mistakes that are easy to make in an encoder-decoder; `test_controls.py` sees that each is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minitx.layers.attention import AttentionContext, CrossAttention
from minitx.layers.embedder import NUMBERINGS, ScalingEmbedder
from minitx.layers.embedding import ScaledEmbedding
from minitx.models import EncoderDecoderModel

Mistake = Callable[[Any, pytest.MonkeyPatch], None]


def swap_norms(first: Any, second: Any, name: str, other: str) -> None:
    a, b = getattr(first, name), getattr(second, other)
    setattr(first, name, b)
    setattr(second, other, a)


def positions_one_off(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Of the decoder alone: BART's table begins with two spare rows."""
    table = model.decoder_embedder.pos_emb.weight
    table.data = table.data.roll(-1, 0)


def positions_from_zero(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.decoder_embedder.number = NUMBERINGS["sequence"]


def other_waves(model: Any, patch: pytest.MonkeyPatch) -> None:
    for embedder in (model.embedder, model.decoder_embedder):
        waves = embedder.pos_emb
        waves.kind = {"tensor2tensor": "fairseq", "fairseq": "tensor2tensor"}[waves.kind]


def embedding_of_the_decoder_not_scaled(model: Any, patch: pytest.MonkeyPatch) -> None:
    embedder = model.decoder_embedder
    if isinstance(embedder, ScalingEmbedder):
        embedder.config = replace(embedder.config, embedding_scale=None)
        return
    scaled = embedder.word_emb
    assert isinstance(scaled, ScaledEmbedding)
    plain = nn.Embedding(*scaled.weight.shape)
    plain.weight = scaled.weight
    embedder.word_emb = plain


def embedding_of_the_encoder_in_the_decoder(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Right wherever both texts have one vocabulary."""
    missing = len(model.decoder_embedder.word_emb.weight) - len(model.embedder.word_emb.weight)
    words = torch.nn.functional.pad(model.embedder.word_emb.weight.detach(), (0, 0, 0, missing))
    model.decoder_embedder.word_emb.weight = nn.Parameter(words)


def bias_of_the_decoder_for_both_directions(model: Any, patch: pytest.MonkeyPatch) -> None:
    for bias in model.decoder.relative_bias:
        bias.causal = False


def bias_of_the_encoder_for_one_direction(model: Any, patch: pytest.MonkeyPatch) -> None:
    for bias in model.encoder.relative_bias:
        bias.causal = True


def one_bias_for_all_layers(model: Any, patch: pytest.MonkeyPatch) -> None:
    """UMT5 has one per layer."""
    model.decoder.layer_kinds = [kind._replace(bias_table=0) for kind in model.decoder.layer_kinds]


def bias_in_cross_attention_too(model: Any, patch: pytest.MonkeyPatch) -> None:
    right = EncoderDecoderModel.cross_context

    def biased(model: Any, memory: Tensor, *more: Any) -> AttentionContext:
        context = right(model, memory, *more)
        assert context.mask is not None
        places = torch.arange(memory.shape[1])
        bias = model.decoder.relative_bias[0].scores(places[-1:], places)
        return replace(context, mask=bias.masked_fill(~context.mask, torch.finfo(bias.dtype).min))

    patch.setattr(EncoderDecoderModel, "cross_context", biased)


def decoder_sees_what_follows(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.decoder.config = replace(model.decoder.config, causal=False)


def encoder_sees_nothing_of_what_follows(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.encoder.config = replace(model.encoder.config, causal=True)
    model.encoder.attends_to_all = False


def ignored_padding_of_the_memory(model: Any, patch: pytest.MonkeyPatch) -> None:
    right = EncoderDecoderModel.cross_context

    def unmasked(model: Any, memory: Tensor, mask: Tensor | None, *more: Any) -> AttentionContext:
        return right(model, memory, None, *more)

    patch.setattr(EncoderDecoderModel, "cross_context", unmasked)


def swapped_cross_attention_norms(model: Any, patch: pytest.MonkeyPatch) -> None:
    """Those in front of the second and the third branch, or those behind the first and the second."""
    layer = model.decoder.layers[0]
    if model.decoder.config.layer.norm_placement == "post":
        first, second = layer.attention.self_output, layer.cross_attention.cross_output
        swap_norms(first, second, "layer_norm", "layer_norm")
    else:
        swap_norms(layer, layer, "cross_attention_norm", "feed_forward_norm")


def attentions_in_another_order(model: Any, patch: pytest.MonkeyPatch) -> None:
    for layer in model.decoder.layers:
        layer.attention.self_output, layer.cross_attention.cross_output = (
            layer.cross_attention.cross_output,
            layer.attention.self_output,
        )


def swapped_key_and_value_of_the_memory(model: Any, patch: pytest.MonkeyPatch) -> None:
    attention = next(module for module in model.modules() if isinstance(module, CrossAttention))
    attention.K, attention.V = attention.V, attention.K


def no_norm_behind_the_encoder(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.encoder.layer_norm = nn.Identity()


def no_norm_behind_the_embedding(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.decoder_embedder.layer_norm = nn.Identity()


def memory_projected_without_bias(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.encoder_projection.bias = None


def scores_divided(model: Any, patch: pytest.MonkeyPatch) -> None:
    """By the root of the width of a head, as everywhere but in T5."""
    for layer in model.decoder.layers:
        attention = layer.cross_attention.cross_attention
        attention.scale = attention.head_dim**-0.5


def head_not_scaled(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.head.config = replace(model.head.config, scale=None)


def head_scaled(model: Any, patch: pytest.MonkeyPatch) -> None:
    """As where T5's is the word embedding."""
    model.head.config = replace(model.head.config, scale=model.config.decoder.hidden_size**-0.5)


def head_without_its_bias(model: Any, patch: pytest.MonkeyPatch) -> None:
    model.head.projection.bias = None


def labels_not_shifted(model: Any, patch: pytest.MonkeyPatch) -> None:
    """The decoder is shown what it is to say."""
    pad = model.decoder_embedder.config.pad_token_id
    patch.setattr(EncoderDecoderModel, "shifted", lambda self, name, ids: ids.masked_fill(ids == -100, pad))


def another_start_token(model: Any, patch: pytest.MonkeyPatch) -> None:
    """mBART's labels end in what its texts begin with."""
    model.config = replace(model.config, decoder_start_token_id=5)


EVERYWHERE = (
    decoder_sees_what_follows,
    encoder_sees_nothing_of_what_follows,
    ignored_padding_of_the_memory,
    swapped_key_and_value_of_the_memory,
    swapped_cross_attention_norms,
    attentions_in_another_order,
    labels_not_shifted,
    another_start_token,
)
OF_T5 = (
    *EVERYWHERE,
    bias_of_the_decoder_for_both_directions,
    bias_of_the_encoder_for_one_direction,
    bias_in_cross_attention_too,
    no_norm_behind_the_encoder,
    scores_divided,
)
OF_BART = (*EVERYWHERE, positions_one_off, head_without_its_bias)
OF_MARIAN = (*EVERYWHERE, other_waves, head_without_its_bias)
ENCODER_DECODER_MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "t5": (*OF_T5, head_not_scaled),
    "t5-gated": (*OF_T5, head_scaled),
    "mt5": (head_scaled,),
    "umt5": (*OF_T5, one_bias_for_all_layers, head_not_scaled),
    "bart": (*OF_BART, no_norm_behind_the_embedding),
    "bart-scaled": (embedding_of_the_decoder_not_scaled,),
    "mbart": (
        *OF_BART,
        no_norm_behind_the_encoder,
        no_norm_behind_the_embedding,
        embedding_of_the_decoder_not_scaled,
    ),
    "marian": OF_MARIAN,
    "marian-two-vocabularies": (
        embedding_of_the_decoder_not_scaled,
        embedding_of_the_encoder_in_the_decoder,
    ),
    "pegasus": (*OF_BART, no_norm_behind_the_encoder, embedding_of_the_decoder_not_scaled),
    "m2m_100": (*EVERYWHERE, positions_from_zero, other_waves, no_norm_behind_the_encoder),
    "blenderbot": (*OF_BART, no_norm_behind_the_encoder),
    "bert-bert": (*EVERYWHERE, positions_one_off, no_norm_behind_the_embedding),
    "bert-gpt2": (*EVERYWHERE, positions_one_off, memory_projected_without_bias),
    "roberta-roberta": (*EVERYWHERE, positions_from_zero),
}
