"""Design, section 7, point 1, of encoder-decoders: how much each token looks at each that was read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minitx.inspect.compare.reference import Wide
from tests.parity.cases import BY_NAME, CASES
from tests.parity.reference import padded, pair, real_tokens, text

NAMES = [case.name for case in CASES if "seq2seq-lm" in case.heads]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["", "left", "right"])
def test_the_weights_of_every_layer(name: str, side: str, root: Path) -> None:
    case = BY_NAME[name]
    reference, model = pair(name, "seq2seq-lm", torch.float64, root)
    inputs = text(case, 3, 9, "seq2seq-lm")
    inputs = padded(case, inputs, side) if side else inputs
    reference.set_attn_implementation("eager")
    try:
        with torch.no_grad(), Wide():
            expected = reference(**inputs, output_attentions=True).cross_attentions
    finally:
        reference.set_attn_implementation(case.reference)
    with torch.no_grad():
        found = model(**inputs, output_cross_attentions=True).cross_attentions
        assert model(**inputs).cross_attentions is None
    real = real_tokens(inputs, "decoder_")
    for theirs, ours in zip(expected, found, strict=True):
        assert ours.shape == theirs.shape
        difference = (ours - theirs).transpose(1, 2)[real].abs().max().item()
        assert difference <= case.float64


@pytest.mark.parametrize("name", NAMES[:3])
def test_rows_that_share_a_text_have_their_own(name: str, root: Path) -> None:
    case = BY_NAME[name]
    _, model = pair(name, "seq2seq-lm", torch.float64, root)
    inputs = padded(case, text(case, 2, 9, "seq2seq-lm"), "right")
    ids, mask, written = inputs["input_ids"], inputs["attention_mask"], text(case, 4, 9, "seq2seq-lm", 1)
    written = written["decoder_input_ids"]
    twice = [each.repeat_interleave(2, dim=0) for each in (ids, mask)]
    with torch.no_grad():
        expected = model(*twice, written, output_cross_attentions=True).cross_attentions
        cache = model.encode_into(model.make_cache(), ids, mask)
        found = model.decode(written, cache=cache, output_cross_attentions=True).cross_attentions
    assert cache.num_sources == 2
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
