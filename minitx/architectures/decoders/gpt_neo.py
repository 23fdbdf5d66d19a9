"""GPT-Neo (Black et al. 2021, doi:10.5281/zenodo.5297715): GPT-2 with a window in every other layer.

Differs from GPT-2: local layers attend to the last tokens only; scores are not scaled; Q, K and V are stored
separately, without biases, and matrices as (outputs, inputs).
"""

from __future__ import annotations

from minitx.architectures._decoder import DECODER_HEADS, decoder_heads, pre_norm_decoder, with_windows
from minitx.architectures._text import attention, feed_forward, text_inputs
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.declaration import Architecture
from minitx.architectures.mapping import attention_entries
from minitx.config import HeadConfig, LearnedPositions, ModelConfig, NormConfig
from minitx.config.model import FULL, SLIDING

KINDS = {"global": FULL, "local": SLIDING}


def attention_layers(hf: ConfigReader, layers: int) -> tuple[str, ...]:
    """Returns the type of each layer, from a list or from runs: [[["global", "local"], 12]] repeats the two.

    Raises:
        ValueError: the wrong number of types, or an unknown one.
    """
    stored, runs = hf.get("attention_layers", None), hf.get("attention_types", None)
    names = stored
    try:
        if names is None:
            runs = [[["global", "local"], 12]] if runs is None else runs
            names = [name for kinds, times in runs for name in list(kinds) * min(times, layers + 1)]
        types = tuple(KINDS[name] for name in names)
    except (TypeError, ValueError, KeyError):
        types = ()
    if len(types) != layers:
        expected = f"'global' or 'local' for each of num_layers={layers}"
        key = "attention_types" if stored is None else "attention_layers"
        raise hf.error(key, hf.get(key, None), expected)
    return types


def read(hf: ConfigReader) -> ModelConfig:
    """Returns the model config of a config.json."""
    size, heads, layers = hf.size("hidden_size"), hf.size("num_heads"), hf.size("num_layers")
    inner, dropout = hf.size_or_none("intermediate_size") or 4 * size, hf.probability("resid_dropout", 0.0)
    weights, embedded = hf.probability("attention_dropout", 0.0), hf.probability("embed_dropout", 0.0)
    stack = pre_norm_decoder(
        size,
        layers,
        attention(hf, size, heads, bias=False, scale=1.0, dropout=weights, output_dropout=dropout),
        feed_forward(inner, hf.activation("activation_function", "gelu_new"), dropout),
        NormConfig(eps=hf.number("layer_norm_epsilon", 1e-5)),
    )
    return ModelConfig(
        initializer_range=hf.number("initializer_range", 0.02),
        inputs=text_inputs(hf, size, positions=LearnedPositions(), padding_is_trained=True, dropout=embedded),
        decoder=with_windows(stack, attention_layers(hf, layers), hf.size("window_size", 256)),
    )


def heads(hf: ConfigReader) -> dict[str, HeadConfig]:
    """Returns the head of each task."""
    return decoder_heads(hf, tied=True, dropout=hf.probability("classifier_dropout", 0.1))


LAYER_PREFIX, SOURCE_LAYER = "decoder.layers.{i}", "h.{i}"

ARCHITECTURE = Architecture(
    model_types={"gpt_neo": "GPTNeo"},
    read=read,
    heads=heads,
    prefix="transformer.",
    weights={
        "embedder.word_emb": "wte",
        "embedder.pos_emb": "wpe",
        f"{LAYER_PREFIX}.attention_norm": f"{SOURCE_LAYER}.ln_1",
        **attention_entries(
            f"{LAYER_PREFIX}.attention", f"{SOURCE_LAYER}.attn.attention", "q_proj k_proj v_proj out_proj"
        ),
        f"{LAYER_PREFIX}.feed_forward_norm": f"{SOURCE_LAYER}.ln_2",
        f"{LAYER_PREFIX}.intermediate.dense": f"{SOURCE_LAYER}.mlp.c_fc",
        f"{LAYER_PREFIX}.output.dense": f"{SOURCE_LAYER}.mlp.c_proj",
        "decoder.layer_norm": "ln_f",
    },
    head_weights=DECODER_HEADS | {"token-classification": {"head.projection": "classifier"}},
    unused_tensors=(f"{SOURCE_LAYER}.attn.attention.bias", f"{SOURCE_LAYER}.attn.attention.masked_bias"),
)
