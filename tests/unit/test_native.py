"""Models that no Hugging Face architecture describes: the JSON form of configs, and model_type "minitx"."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import minitx
from minitx.checkpoint.convert import convert
from minitx.config import (
    Alibi,
    AttentionConfig,
    CustomInputs,
    Disentangled,
    ExpertsConfig,
    FeedForwardConfig,
    HeadConfig,
    LayerConfig,
    LearnedPositions,
    ModelConfig,
    NormConfig,
    RelativeBias,
    RopeConfig,
    Rotary,
    SinusoidalPositions,
    StackConfig,
    TextInputs,
    TransformConfig,
    from_json,
    to_json,
)
from minitx.layers.activation import ACTIVATIONS
from minitx.layers.attention import BACKENDS, sdpa

IDS = torch.arange(1, 13).view(2, 6)

# --- the JSON form ---------------------------------------------------------------------------------

norms = st.builds(
    NormConfig,
    kind=st.sampled_from(["layer_norm", "rms_norm"]),
    eps=st.floats(0, 1),
    bias=st.booleans(),
    offset=st.floats(-1, 1),
)
forwards = st.builds(
    FeedForwardConfig,
    intermediate_size=st.integers(1, 64),
    hidden_act=st.sampled_from(["gelu", "relu", "of-mine"]),
    gated=st.booleans(),
    dropout=st.none() | st.floats(0, 1),
)
experts = st.builds(
    ExpertsConfig,
    num_experts=st.integers(2, 4),
    num_experts_per_tok=st.integers(1, 2),
    intermediate_size=st.integers(1, 64),
    swiglu_limit=st.none() | st.floats(0.1, 9),
    dense=forwards,
)
attentions = st.builds(
    AttentionConfig,
    num_attention_heads=st.sampled_from([2, 4]),
    num_key_value_heads=st.sampled_from([None, 1, 2]),
    head_dim=st.sampled_from([4, 8]),
    scale=st.none() | st.floats(-2, 2),
    softcap=st.none() | st.floats(0.1, 50),
    qk_norm=st.sampled_from(["none", "head", "width"]),
)
ropes = st.builds(RopeConfig, rope_theta=st.floats(1, 1e6), rotary_dim=st.sampled_from([2, 4])) | st.builds(
    RopeConfig,
    rope_theta=st.just(10_000.0),
    rotary_dim=st.just(4),
    rope_type=st.just("longrope"),
    original_max_position_embeddings=st.just(16),
    short_factor=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
    long_factor=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
)
rotary = st.builds(
    Rotary,
    ropes=st.fixed_dictionaries({"full_attention": ropes, "sliding_attention": ropes}),
    layers=st.none() | st.just((True, False)),
)
disentangled = st.builds(
    Disentangled,
    relative_attention=st.booleans(),
    max_relative_positions=st.integers(8, 16),
    position_buckets=st.sampled_from([0, 4]),
    pos_att_type=st.frozensets(st.sampled_from(["c2p", "p2c"])),
    share_att_key=st.booleans(),
    dropout=st.floats(0, 1),
    norm_rel_ebd=st.booleans(),
    conv_kernel_size=st.sampled_from([0, 3]),
    conv_groups=st.just(1),
    conv_act=st.just("tanh"),
)
embedded = st.builds(LearnedPositions, offset=st.integers(0, 2)) | st.builds(
    SinusoidalPositions, kind=st.sampled_from(["tensor2tensor", "fairseq"])
)


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    inputs = st.builds(
        TextInputs,
        vocab_size=st.integers(10, 90),
        embedding_size=st.just(16),
        hidden_size=st.just(16),
        pad_token_id=st.none() | st.integers(0, 9),
        max_position_embeddings=st.integers(20, 40),
        positions=st.none() | embedded,
        type_vocab_size=st.integers(0, 2),
        embedding_scale=st.none() | st.floats(-4, 4),
        norm=st.none() | norms,
    )

    def stack(causal: bool, cross_attention: bool) -> StackConfig:
        choices = [
            st.none(),
            rotary,
            st.builds(RelativeBias, num_buckets=st.integers(4, 8)),
            st.just(Alibi()),
        ]
        positions = draw(st.one_of(*choices, *([] if causal else [disentangled])))
        plain = isinstance(positions, Disentangled)
        layer = LayerConfig(
            attention=draw(attentions),
            feed_forward=draw(forwards if plain else forwards | experts),
            norm=draw(norms),
            cross_attention=cross_attention,
        )
        windows = isinstance(positions, Rotary | None) and draw(st.booleans())
        return StackConfig(
            hidden_size=16,
            num_hidden_layers=2,
            layer=layer,
            causal=causal,
            positions=positions,
            layer_types=("full_attention", "sliding_attention") if windows else None,
            sliding_window=4 if windows else None,
            expert_layers=(True, False) if isinstance(layer.feed_forward, ExpertsConfig) else None,
        )

    family = draw(st.sampled_from(["encoder", "decoder", "both"]))
    return ModelConfig(
        inputs=draw(inputs),
        encoder=None if family == "decoder" else stack(False, False),
        decoder_inputs=draw(inputs) if family == "both" else None,
        decoder=None if family == "encoder" else stack(True, family == "both"),
        shared_embeddings=draw(st.booleans()),
        decoder_start_token_id=draw(st.none() | st.integers(0, 9)),
        pooler=draw(st.booleans()),
        initializer_range=draw(st.floats(0, 1)),
    )


@settings(max_examples=150, deadline=None)
@given(models())
def test_every_config_has_a_json_form(config: ModelConfig) -> None:
    form = json.loads(json.dumps(to_json(config)))
    assert from_json(ModelConfig, form) == config


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        HeadConfig,
        task=st.just("masked-lm"),
        num_labels=st.integers(1, 9),
        transform=st.none() | st.builds(TransformConfig, size=st.integers(1, 9), hidden_act=st.just("gelu")),
        scale=st.none() | st.floats(-9, 9),
        problem_type=st.sampled_from(["regression", None]),
    )
)
def test_every_head_has_a_json_form(head: HeadConfig) -> None:
    assert from_json(HeadConfig, json.loads(json.dumps(to_json(head)))) == head


def bert(**changes: Any) -> Any:
    sizes = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 40}
    return minitx.from_config({"model_type": "bert", **sizes, **changes}, seed=1).eval()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiddensize": 3}, r"config\.encoder\.hiddensize=3 must be a field of StackConfig; .*'hidden_size'"),
        ({"class": "Stack"}, r"config\.encoder\.class='Stack' must be one of StackConfig"),
        ({"hidden_size": "3"}, r"StackConfig\.hidden_size='3' must be an integer"),
        ({"positions": {"class": "Rotary"}}, r"encoder\.positions\.ropes=None must be present in a Rotary"),
        ({"positions": {"class": "Alibi", "x": 1}}, r"encoder\.positions\.x=1 must be a field of Alibi"),
        ({"layer": 4}, r"StackConfig\.layer=4 must be LayerConfig"),
    ],
)
def test_wrong_forms_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    form = to_json(bert().config)
    form["encoder"] |= change
    with pytest.raises((ValueError, TypeError), match=message):
        from_json(ModelConfig, form)


# --- models ----------------------------------------------------------------------------------------


def rotary_bert() -> Any:
    config = bert().config
    inputs = replace(config.inputs, positions=None)
    rope = Rotary(ropes={"full_attention": RopeConfig(rope_theta=10_000.0, rotary_dim=6)})
    encoder = replace(config.encoder, positions=rope)
    head = HeadConfig(task="masked-lm", num_labels=60, tied=True)
    return minitx.EncoderModel(replace(config, inputs=inputs, encoder=encoder), head)


def other_norms() -> Any:
    config = minitx.replace_in(bert().config, "encoder.layer", norm=NormConfig(kind="rms_norm", eps=1e-5))
    head = HeadConfig(task="sequence-classification", num_labels=3, pooling="mean")
    return minitx.EncoderModel(config, head)


def decoder(tied: bool = True) -> Any:
    inputs = TextInputs(
        vocab_size=60, embedding_size=24, hidden_size=24, pad_token_id=0, max_position_embeddings=40
    )
    layer = LayerConfig(
        attention=AttentionConfig(num_attention_heads=4, num_key_value_heads=2, head_dim=6, qk_norm="head"),
        feed_forward=FeedForwardConfig(intermediate_size=32, hidden_act="relu", gated=True),
        norm=NormConfig(kind="rms_norm", eps=1e-5),
        norm_placement="sandwich",
    )
    stack = StackConfig(hidden_size=24, num_hidden_layers=2, layer=layer, causal=True, positions=Alibi())
    head = HeadConfig(task="causal-lm", num_labels=60, bias=False, tied=tied)
    return minitx.DecoderModel(ModelConfig(inputs=inputs, decoder=stack, eos_token_id=5), head)


def encoder_decoder() -> Any:
    config = decoder().config
    cross = replace(config.decoder, layer=replace(config.decoder.layer, cross_attention=True))
    both = replace(
        config,
        encoder=replace(config.decoder, causal=False),
        decoder_inputs=config.inputs,
        decoder=cross,
        decoder_start_token_id=3,
    )
    head = HeadConfig(task="seq2seq-lm", num_labels=60, bias=True, tied=True)
    return minitx.EncoderDecoderModel(both, head)


MODELS = [rotary_bert, other_norms, decoder, encoder_decoder]


def outputs(model: Any) -> Tensor:
    if isinstance(model, minitx.EncoderDecoderModel):
        return model(IDS, decoder_input_ids=IDS).logits
    return model(IDS).logits


@pytest.mark.parametrize("options", [{}, {"max_shard_size": 9000}], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", MODELS)
def test_a_model_of_any_config_is_saved_and_loaded(
    make: Any, dtype: torch.dtype, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make().to(dtype).eval()
    minitx.save(model, tmp_path, **options)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "minitx"
    loaded = minitx.load(tmp_path)
    assert (loaded.config, loaded.head.config) == (model.config, model.head.config)
    assert loaded.dtype == dtype
    assert torch.equal(outputs(loaded), outputs(model))
    for name in loaded.ties:
        assert loaded.get_parameter(name) is loaded.get_parameter(loaded.ties[name])
    if loaded.task in ("causal-lm", "seq2seq-lm"):
        prompts = [[7, 8, 9]]
        ours, theirs = (
            minitx.generate(m, prompts, strategy=minitx.Greedy(), max_new_tokens=5) for m in (model, loaded)
        )
        assert all(map(torch.equal, ours.sequences, theirs.sequences))
    again = tmp_path / "again"
    minitx.save(loaded, again)
    assert torch.equal(outputs(minitx.load(again)), outputs(model))
    convert(tmp_path, tmp_path / "converted")
    assert torch.equal(outputs(minitx.load(tmp_path / "converted")), outputs(model))
    assert minitx.load(tmp_path, head="none").head is None
    assert minitx.from_config(loaded.checkpoint.config).config == model.config


def test_labels_of_a_native_model_are_kept(tmp_path: Path) -> None:
    minitx.save(other_norms(), tmp_path)
    loaded = minitx.load(tmp_path)
    assert loaded.checkpoint.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    more = minitx.load(tmp_path, init_head=True, num_labels=5)
    assert more(IDS).logits.shape == (2, 5)


def test_verify_states_that_transformers_has_no_such_class(tmp_path: Path) -> None:
    minitx.save(rotary_bert(), tmp_path)
    with pytest.raises(ValueError, match="transformers has no MinitxForMaskedLM, so there is nothing"):
        minitx.inspect.verify(tmp_path)


def test_a_pooler_and_a_bare_model(tmp_path: Path) -> None:
    model = minitx.EncoderModel(replace(bert().config, pooler=True)).eval()
    minitx.save(model, tmp_path)
    loaded = minitx.load(tmp_path)
    assert torch.equal(loaded(IDS).pooler_output, model(IDS).pooler_output)


def uniform(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    return sdpa(query * 0, key, value, mask, options)


def test_a_registered_attention_is_kept_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "uniform", uniform)
    model = bert(architectures=["BertForMaskedLM"]).set_attention("uniform")
    with pytest.raises(ValueError, match=r'model_type="minitx"\) keeps the name of a registered attention'):
        minitx.save(model, tmp_path)
    minitx.save(model, tmp_path, model_type="minitx")
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, model(IDS).logits)
    plain = minitx.load(tmp_path, attention="sdpa")(IDS).logits
    assert not torch.equal(plain, model(IDS).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    built = minitx.from_config(config)
    assert built.encoder.layers[0].attention.self_attention.backend.args == (uniform,)
    monkeypatch.delitem(BACKENDS, "uniform")
    with pytest.raises(ValueError, match=r"attention='uniform' must be .*register_attention"):
        minitx.load(tmp_path)
    with pytest.raises(ValueError, match="must be one with one registered attention"):
        minitx.save(model, tmp_path / "other", model_type="minitx")


def test_a_loaded_native_model_follows_a_change_of_attention_and_labels(tmp_path: Path) -> None:
    names = {"0": "no", "1": "maybe", "2": "yes"}
    sizes = {"id2label": names, "eos_token_id": 7, "num_labels": 3}
    model = bert(architectures=["BertForSequenceClassification"], **sizes)
    model.checkpoint.generation_file = b'{"max_new_tokens": 4}'
    minitx.save(model, tmp_path / "one", model_type="minitx", max_shard_size=9000)
    loaded = minitx.load(tmp_path / "one")
    assert loaded.checkpoint.generation == {"max_new_tokens": 4}
    assert loaded.checkpoint.config["eos_token_id"] == 7
    minitx.save(loaded.set_attention("eager"), tmp_path / "two")
    again = minitx.load(tmp_path / "two")
    assert again.checkpoint.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert len(list((tmp_path / "two").glob("*.safetensors"))) > 1
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_an_activation_that_is_not_registered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "of this test", lambda x: torch.relu(x) ** 2)
    config = minitx.replace_in(bert().config, "encoder.layer.feed_forward", hidden_act="of this test")
    model = minitx.EncoderModel(config).eval()
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).last_hidden_state, model(IDS).last_hidden_state)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("of this test", "of another"))
    with pytest.raises(ValueError, match="'of another' must be"):
        minitx.load(tmp_path)


@dataclass(frozen=True, kw_only=True)
class PointInputs(CustomInputs):
    """Inputs of this test."""

    size: int


class PointEmbedder(nn.Module):
    def __init__(self, config: PointInputs) -> None:
        super().__init__()
        self.dense = nn.Linear(config.size, config.hidden_size)

    def forward(self, points: Tensor) -> Tensor:
        return self.dense(points)


def test_registered_inputs_are_kept_by_their_class(tmp_path: Path) -> None:
    minitx.register_inputs(PointInputs, PointEmbedder)
    config = replace(bert().config, inputs=PointInputs(hidden_size=24, size=3))
    model = minitx.EncoderModel(config).eval()
    minitx.save(model, tmp_path)
    points = torch.randn(2, 5, 3)
    loaded = minitx.load(tmp_path)
    assert torch.equal(loaded(points=points).last_hidden_state, model(points=points).last_hidden_state)
    form = json.loads((tmp_path / "config.json").read_text())
    assert minitx.from_config(form).config == config
    form["config"]["inputs"]["class"] = "OtherInputs"
    with pytest.raises(ValueError, match=r"inputs\.class='OtherInputs' must be one of .*must be defined"):
        minitx.from_config(form)


def test_a_model_of_another_class_or_stack_is_refused(tmp_path: Path) -> None:
    class Mine(minitx.EncoderModel):
        pass

    class MyStack(minitx.layers.stack.Stack):
        pass

    with pytest.raises(ValueError, match="the model's class is Mine"):
        minitx.save(Mine(bert().config), tmp_path)
    with pytest.raises(ValueError, match="the model's encoder is MyStack"):
        minitx.save(minitx.EncoderModel(bert().config, stack=MyStack), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version=2 must be 1"),
        ({"config": None}, r"config\.json: config=None must be an object"),
        ({"pad_token_id": 3}, "pad_token_id=3 must be"),
        ({"head": {"class": "HeadConfig"}}, r"config\.json: head\.task=None must be present"),
        ({"attention": 3}, "attention=3 must be a string"),
    ],
)
def test_wrong_native_configs_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    minitx.save(rotary_bert(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises((ValueError, TypeError), match=message):
        minitx.from_config(config | change)
