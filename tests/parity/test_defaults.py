"""A key that a config.json leaves out means what transformers' config class means by leaving it out."""

from __future__ import annotations

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.config import HeadConfig, ModelConfig
from tests.parity.cases import BY_NAME, CASES

FIRST = {case.model_type: case.name for case in reversed(CASES)}


def read(model_type: str, config: dict[str, object]) -> tuple[ModelConfig, dict[str, HeadConfig]]:
    found, reader = architecture(model_type), ConfigReader(config)
    return found.read(reader), found.heads(reader)


@pytest.mark.parametrize("model_type", FIRST)
def test_every_key_left_out_in_turn(model_type: str) -> None:
    given = BY_NAME[FIRST[model_type]].config
    whole = transformers.AutoConfig.for_model(model_type, **given).to_dict()
    equal, refused = [], []
    for key in sorted(whole):
        if key in ("model_type", "id2label", "label2id"):
            continue
        # T5's files repeat the parts of this key, and a file that contradicts itself is refused.
        repeated = ("dense_act_fn", "is_gated_act") if key == "feed_forward_proj" else ()
        without = {k: v for k, v in whole.items() if k != key and k not in repeated}
        # what the reference makes of the file without that key
        arguments = {k: v for k, v in without.items() if k != "model_type"}
        try:
            ours = read(model_type, without)
        except ValueError:
            refused.append(key)
            continue
        try:
            expected = read(model_type, transformers.AutoConfig.for_model(model_type, **arguments).to_dict())
        except (ValueError, StrictDataclassError):
            continue  # the reference's default for this key does not fit the other numbers of the case
        assert ours == expected, key
        equal.append(key)
    # Sizes have no honest default; everything else has the reference's.
    assert len(equal) > 10
    assert all("size" in key or "num_" in key or key in SIZES_OF_OTHER_NAMES for key in refused), refused


SIZES_OF_OTHER_NAMES = {
    *("dim", "hidden_dim", "n_heads", "n_layers", "max_position_embeddings", "layer_types"),
    "pad_token_id",  # of some the usual one lies outside of a small vocabulary
    *("d_model", "d_kv", "d_ff", "encoder_layers", "decoder_layers", "encoder", "decoder"),
    *("encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim"),
    *("n_embd", "n_head", "n_layer", "n_positions", "ffn_dim", "rotary_dim"),
}
