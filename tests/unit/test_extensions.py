"""Parts from outside the package: architectures, attention, activations, inputs, layers."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import minitx
from minitx.architectures.encoders import bert
from minitx.config import AttentionConfig, FeedForwardConfig, LayerConfig, NormConfig
from minitx.layers import attention
from minitx.layers.activation import Activation
from tests.parity.encoder_decoders import GPT2, T5
from tests.real import MINILM

SIZES = {
    "vocab_size": 99,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 48,
}
IDS = torch.tensor([[5, 6, 7, 8]])
pytestmark = pytest.mark.usefixtures("registrations_end")


def squared_relu(x: Tensor) -> Tensor:
    return torch.relu(x) ** 2


def uniform(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    return attention.eager(query * 0, key, value, mask, options)


# --- architectures -----------------------------------------------------------------------------------


def test_a_custom_architecture_is_saved_and_loaded(tmp_path: Path) -> None:
    minitx.register(dataclasses.replace(bert.ARCHITECTURE, model_types={"mine": "Mine"}))
    model = minitx.from_config({"model_type": "mine", **SIZES}, head="masked-lm", seed=0).eval()
    minitx.save(model, tmp_path)
    assert torch.equal(minitx.load(tmp_path)(IDS).logits, model(IDS).logits)
    with pytest.raises(ValueError, match=r"model_type 'mien' is not supported. Did you mean 'mine'"):
        minitx.from_config({"model_type": "mien", **SIZES})


def test_what_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match="model_types='bert' must be new names; minitx has this one itself"):
        minitx.register(bert.ARCHITECTURE)
    with pytest.raises(ValueError, match=r"model_types=\{\} must be names such as"):
        minitx.register(dataclasses.replace(bert.ARCHITECTURE, model_types={}))
    with pytest.raises(TypeError, match="architecture='bert' must be an Architecture"):
        minitx.register("bert")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name='sdpa' must be a new name; minitx has eager, sdpa"):
        minitx.register_attention("sdpa", uniform)
    with pytest.raises(TypeError, match="function=3 must be callable"):
        minitx.register_attention("three", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name='gelu' must be a new name"):
        minitx.register_activation("gelu", squared_relu)
    with pytest.raises(TypeError, match="name=None must be a non-empty string"):
        minitx.register_activation(None, squared_relu)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a subclass of minitx\.CustomInputs"):
        minitx.register_inputs(dict, PatchEmbedder)  # type: ignore[arg-type]


# --- attention and activations -----------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False])
def test_a_custom_attention(by_name: bool) -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES}, seed=0).eval()
    before = model(IDS).last_hidden_state
    if by_name:
        minitx.register_attention("uniform", uniform)
    model.set_attention("uniform" if by_name else uniform)
    different = model(IDS).last_hidden_state
    assert not torch.allclose(different, before)
    assert torch.equal(model.set_attention("sdpa")(IDS).last_hidden_state, before)
    with pytest.raises(TypeError, match="attention=3 must be a function or one of eager, sdpa"):
        model.set_attention(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attention='flash' must be one of 'eager', 'sdpa'"):
        model.set_attention("flash")


def test_a_custom_attention_in_load(tmp_path: Path) -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES}, seed=0).eval()
    minitx.save(model, tmp_path)
    minitx.register_attention("uniform", uniform)
    loaded = minitx.load(tmp_path, attention="uniform")
    assert torch.equal(loaded(IDS).last_hidden_state, model.set_attention(uniform)(IDS).last_hidden_state)


def test_a_custom_activation_is_saved_by_its_name(tmp_path: Path) -> None:
    minitx.register_activation("squared_relu", squared_relu)
    model = minitx.from_config({"model_type": "bert", "hidden_act": "squared_relu", **SIZES}, seed=0).eval()
    assert "Activation(squared_relu)" in str(model)
    minitx.save(model, tmp_path)
    assert '"squared_relu"' in (tmp_path / "config.json").read_text()
    assert torch.equal(minitx.load(tmp_path)(IDS).last_hidden_state, model(IDS).last_hidden_state)


def test_an_activation_of_a_function_or_a_module() -> None:
    x = torch.linspace(-1, 1, 5)
    assert torch.equal(Activation(squared_relu)(x), squared_relu(x))
    assert str(Activation(squared_relu)) == "Activation(squared_relu)"
    trained = Activation(nn.PReLU())
    assert [name for name, _ in trained.named_parameters()] == ["function.weight"]
    assert torch.equal(trained(x), F.prelu(x, torch.tensor([0.25])))
    with pytest.raises(TypeError, match="activation=3 must be a name or a function"):
        Activation(3)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"activation='gelu_42' must be one of 'gelu', .*register_activation"
    ):
        Activation("gelu_42")


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_type": "bert", **SIZES}, "hidden_act"),
        ({"model_type": "modernbert", **SIZES}, "hidden_activation"),
        (GPT2, "activation_function"),
        ({"model_type": "t5", **T5}, "feed_forward_proj"),
    ],
)
def test_an_unknown_activation_is_named_by_its_key(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"config.json: {key}='gelu_42' must be one of .*register_activ"):
        minitx.from_config({**config, key: "gelu_42"})


def test_layers_do_not_share_the_module_of_an_activation() -> None:
    module = nn.PReLU()
    first, second = Activation(module), Activation(module)
    assert first.function is not second.function
    minitx.register_activation("leaky", nn.LeakyReLU(0.5))
    model = minitx.from_config({"model_type": "bert", "hidden_act": "leaky", **SIZES}, seed=0)
    functions = [layer.intermediate.activation.function for layer in model.encoder.layers]
    assert functions[0] is not functions[1]
    for stateful in (nn.PReLU(), nn.BatchNorm1d(3, affine=False)):
        with pytest.raises(ValueError, match="must be a module without parameters and buffers; a name alone"):
            minitx.register_activation("trained", stateful)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda q, k, v, mask, options: q[:, :1],
            r"the output of <lambda>=.* must be a tensor of shape \(1",
        ),
        (
            lambda q, k, v, mask, options: q.double(),
            r"the output of <lambda>=.* of shape .* and torch",
        ),
        (lambda q, k, v, mask, options: (q, None), r"the output of <lambda>=.* must be a tensor"),
    ],
)
def test_the_output_of_a_custom_attention_is_checked(function: Any, message: str) -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES}).eval().set_attention(function)
    with pytest.raises((TypeError, ValueError), match=message):
        model(IDS)


def test_a_custom_attention_has_five_arguments() -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES})
    with pytest.raises(TypeError, match=r"attention=<built-in .* must be a function of \(query, key"):
        model.set_attention(math.sqrt)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"function=<function .* must be a function of \(query, key"):
        minitx.register_attention("three", lambda q, k, v: q)  # type: ignore[arg-type, misc]


# --- wrong parts -------------------------------------------------------------------------------------


def test_a_head_is_a_config() -> None:
    config = minitx.from_config({"model_type": "bert", **SIZES}).config
    with pytest.raises(
        TypeError, match=r"head='masked-lm' must be a HeadConfig or None; minitx\.from_config"
    ):
        minitx.EncoderModel(config, head="masked-lm")  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", ["bert", "llama", "deberta-v2"])
def test_a_layer_with_another_forward(model_type: str) -> None:
    more = {"model_type": model_type, "relative_attention": True} if "deberta" in model_type else {}
    model = minitx.from_config({"model_type": model_type, **SIZES, **more}).eval()
    model.stack.layers[1] = nn.Identity()
    with pytest.raises(
        TypeError, match=r"layers\[1\]=Identity\(\) must be a module with the forward of .*Layer; it"
    ):
        model(IDS)


def test_a_custom_layer() -> None:
    class Skip(nn.Module):
        def forward(self, hidden: Tensor, *context: Any) -> Tensor:
            return hidden

    model = minitx.from_config({"model_type": "bert", **SIZES}, seed=0).eval()
    embedded = model(IDS, output_hidden_states=True).hidden_states[0]
    model.encoder.layers[0] = model.encoder.layers[1] = Skip()
    assert torch.equal(model(IDS).last_hidden_state, embedded)


# --- inputs other than text --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PatchInputs(minitx.CustomInputs):
    """Squares of an image."""

    patch_size: int
    num_patches: int


class PatchEmbedder(nn.Module):
    """A class token, then one vector per square of an image; learned positions."""

    def __init__(self, config: PatchInputs) -> None:
        super().__init__()
        size = config.hidden_size
        self.patches = nn.Conv2d(3, size, config.patch_size, stride=config.patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, size))
        self.positions = nn.Parameter(torch.empty(1, config.num_patches + 1, size))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, T, E)"""
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return torch.cat((self.class_token.expand(len(patches), -1, -1), patches), dim=1) + self.positions


def vision_config() -> minitx.ModelConfig:
    layer = LayerConfig(
        attention=AttentionConfig(num_attention_heads=4, head_dim=6),
        feed_forward=FeedForwardConfig(intermediate_size=37, hidden_act="gelu"),
        norm=NormConfig(eps=1e-6),
        norm_placement="pre",
    )
    return minitx.ModelConfig(
        inputs=PatchInputs(hidden_size=24, patch_size=4, num_patches=6),
        encoder=minitx.StackConfig(hidden_size=24, num_hidden_layers=2, layer=layer),
    )


def vision_model() -> minitx.EncoderModel:
    minitx.register_inputs(PatchInputs, PatchEmbedder)
    torch.manual_seed(0)
    head = minitx.HeadConfig(task="sequence-classification", num_labels=5, pooling="first")
    return minitx.EncoderModel(vision_config(), head).eval()


def test_an_encoder_of_patches() -> None:
    """Nothing in layers/ or models/ knows of images."""
    model, images = vision_model(), torch.randn(2, 3, 8, 12)
    output = model(
        pixel_values=images, labels=torch.tensor([0, 4]), output_hidden_states=True, output_attentions=True
    )
    assert output.last_hidden_state.shape == (2, 7, 24)
    assert output.logits.shape == (2, 5)
    assert [x.shape for x in output.attentions] == [(2, 4, 7, 7)] * 2
    assert torch.equal(output.hidden_states[0], model.embedder(images))
    output.loss.backward()
    assert model.embedder.class_token.grad is not None
    # all patches attend to each other: swapping two and their positions swaps two outputs
    hidden = model.embedder(images)[:, [0, 2, 1, 3, 4, 5, 6]]
    assert torch.allclose(
        model.run_stack(model.encoder, hidden, None, torch.arange(7)[None])[:, [0, 2, 1, 3, 4, 5, 6]],
        output.last_hidden_state,
        atol=1e-6,
    )
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    mask = torch.ones(2, 7)
    mask[:, 5:] = 0
    assert not torch.allclose(model(pixel_values=images, attention_mask=mask).logits, output.logits)


def test_inputs_that_are_not_registered() -> None:
    with pytest.raises(TypeError, match=r"inputs=PatchInputs\(.* must be of a registered class"):
        minitx.EncoderModel(vision_config())
    with pytest.raises(ValueError, match=r"ModelConfig\.inputs=3 must be TextInputs or CustomInputs"):
        minitx.ModelConfig(inputs=3)  # type: ignore[arg-type]


def test_a_decoder_continues_after_a_prefix_of_embeddings() -> None:
    """An image, projected to the width of a decoder, then tokens: with a cache as in one pass."""
    encoder = vision_model()
    config = {"model_type": "llama", **SIZES, "num_key_value_heads": 2}
    decoder = minitx.from_config(config, head="causal-lm", seed=0).eval()
    assert isinstance(decoder, minitx.DecoderModel)
    with torch.inference_mode():
        prefix = encoder(pixel_values=torch.randn(2, 3, 8, 12)).last_hidden_state
        cache = decoder.make_cache(12)
        logits = decoder(inputs_embeds=prefix, cache=cache, logits_to_keep=1).logits
        tokens = []
        for _ in range(5):
            token = logits[:, -1].argmax(dim=-1, keepdim=True)
            tokens.append(token)
            logits = decoder(token, cache=cache).logits
        ids = torch.cat(tokens, dim=1)
        both = torch.cat((prefix, decoder.embedder.word_emb(ids)), dim=1)
        expected = decoder(inputs_embeds=both).logits[:, 6:]
    assert torch.equal(expected[:, :-1].argmax(dim=-1), ids)
    assert torch.allclose(expected[:, -1:], logits, atol=1e-5)


@dataclass(frozen=True, kw_only=True)
class BoxInputs(minitx.CustomInputs):
    """Words and their places on a page."""


class BoxEmbedder(nn.Module):
    """Token ids, as for text, and a box for each."""

    def __init__(self, config: BoxInputs) -> None:
        super().__init__()
        self.words = nn.Embedding(99, config.hidden_size)
        self.boxes = nn.Linear(4, config.hidden_size)

    def forward(self, input_ids: Tensor, boxes: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, T), (B, T, 4) -> (B, T, E)"""
        types = 0 if token_type_ids is None else token_type_ids[..., None]
        return self.words(input_ids) + self.boxes(boxes) + types


def encoder_of(inputs: minitx.CustomInputs, embedder: Any, **head: Any) -> minitx.EncoderModel:
    minitx.register_inputs(type(inputs), embedder)
    config = dataclasses.replace(vision_config(), inputs=inputs)
    return minitx.EncoderModel(
        config, minitx.HeadConfig(**{"num_labels": 2, **head}) if head else None
    ).eval()


def test_a_custom_embedder_gets_the_inputs_of_text_that_it_takes() -> None:
    torch.manual_seed(0)
    model, boxes = encoder_of(BoxInputs(hidden_size=24), BoxEmbedder), torch.rand(1, 4, 4)
    output = model(IDS, boxes=boxes).last_hidden_state
    assert output.shape == (1, 4, 24)
    assert not torch.allclose(model(IDS, boxes=boxes, token_type_ids=IDS % 2).last_hidden_state, output)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(IDS, boxes=boxes).last_hidden_state, output)


def test_inputs_that_a_custom_embedder_does_not_have() -> None:
    model, images = vision_model(), torch.randn(2, 3, 8, 12)
    for name in ("position_ids", "token_type_ids", "input_ids", "inputs_embeds", "bbox"):
        with pytest.raises(TypeError, match=rf"forward has no argument '{name}'\. PatchEmbedder takes pixel"):
            model(pixel_values=images, **{name: IDS})
    with pytest.raises(TypeError, match=r"pixel_values=None must be a tensor; PatchEmbedder needs it"):
        model()
    with pytest.raises(TypeError, match=r"boxes=None must be a tensor; BoxEmbedder needs it"):
        encoder_of(BoxInputs(hidden_size=24), BoxEmbedder)(IDS)


def test_embedders_that_cannot_be() -> None:
    inputs = BoxInputs(hidden_size=24)
    with pytest.raises(TypeError, match=r"embedder=3 must be a module; minitx\.register_inputs takes"):
        encoder_of(inputs, lambda config: 3)
    for embedder, message in (
        (nn.Identity, r"the output of Identity=.* must be of shape \(batch, time, 24\), not \(1, 4\)"),
        (lambda _: nn.Embedding(99, 23), r"the output of Embedding=.* must be of shape .*, not \(1, 4, 23\)"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder_of(inputs, embedder)(input=IDS)
    with pytest.raises(ValueError, match=r"HeadConfig\.tied=True must be False; inputs other than text"):
        encoder_of(inputs, BoxEmbedder, task="masked-lm", tied=True)
    with pytest.raises(ValueError, match=r"HeadConfig\.task='multiple-choice' must be another; inputs other"):
        encoder_of(inputs, BoxEmbedder, task="multiple-choice")


def test_vectors_of_texts_need_a_model_of_text() -> None:
    tokenizer = minitx.load_tokenizer(MINILM)
    with pytest.raises(ValueError, match=r"ModelConfig\.inputs=PatchInputs.* must be a TextInputs; this"):
        minitx.embed(vision_model(), tokenizer, ["A cat."])


def test_a_tied_head_has_the_shape_of_the_word_embedding() -> None:
    config = minitx.from_config({"model_type": "bert", **SIZES}).config
    with pytest.raises(ValueError, match=r"HeadConfig\.tied=True must be False .*\(5, 24\); .*\(99, 24\)"):
        minitx.EncoderModel(config, minitx.HeadConfig(task="masked-lm", num_labels=5, tied=True))


def test_heads_over_the_vocabulary_need_no_number() -> None:
    config = minitx.from_config({"model_type": "bert", **SIZES}).config
    size = config.text_inputs.vocab_size
    tied = minitx.EncoderModel(config, minitx.HeadConfig(task="masked-lm", tied=True))
    assert tied.head is not None
    assert tied.head.config.num_labels == size == tied(IDS).logits.shape[-1]
    message = (
        r"HeadConfig\.num_labels=None must be the number of labels for task='token-classification'; e\.g\."
    )
    with pytest.raises(ValueError, match=message):
        minitx.EncoderModel(config, minitx.HeadConfig(task="token-classification"))
    with pytest.raises(ValueError, match=r"HeadConfig\.num_labels=None must be the number"):
        encoder_of(BoxInputs(hidden_size=24), BoxEmbedder, task="masked-lm", num_labels=None)


def test_a_decoder_has_inputs_of_text() -> None:
    config = vision_config()
    assert config.encoder is not None
    stack = dataclasses.replace(config.encoder, causal=True)
    text = minitx.from_config({"model_type": "bert", **SIZES}).config.inputs
    with pytest.raises(ValueError, match=r"ModelConfig\.inputs=PatchInputs.* must be a TextInputs for a"):
        dataclasses.replace(config, encoder=None, decoder=stack)
    with pytest.raises(ValueError, match=r"ModelConfig\.shared_embeddings=True must be False"):
        dataclasses.replace(config, decoder=stack, decoder_inputs=text)


def test_images_to_text() -> None:
    """An encoder-decoder whose source is an image: the encoder output is cached, ids are decoded."""
    minitx.register_inputs(PatchInputs, PatchEmbedder)
    torch.manual_seed(0)
    config = vision_config()
    assert config.encoder is not None
    decoder = minitx.replace_in(config.encoder, "layer", cross_attention=True)
    decoder = dataclasses.replace(decoder, causal=True)
    config = dataclasses.replace(
        config,
        decoder=decoder,
        decoder_inputs=minitx.from_config({"model_type": "bert", **SIZES}).config.inputs,
        shared_embeddings=False,
    )
    head = minitx.HeadConfig(task="seq2seq-lm", num_labels=99, tied=True, bias=False)
    model, images = minitx.EncoderDecoderModel(config, head).eval(), torch.randn(1, 3, 8, 12)
    assert model.head is not None
    assert model.head.projection.weight is model.decoder_embedder.word_emb.weight
    logits = model(pixel_values=images, decoder_input_ids=IDS).logits
    cache = model.encode_into(model.make_cache(), pixel_values=images)
    assert torch.allclose(model.decode(IDS, cache=cache).logits, logits, atol=1e-5)
    with pytest.raises(ValueError, match=r"ModelConfig\.inputs=PatchInputs.* must be a TextInputs; this"):
        minitx.generate(model, [[5, 6]], minitx.Greedy(), max_new_tokens=2)


# --- names of other libraries ------------------------------------------------------------------------


def test_names_of_transformers_on_a_model() -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES})
    for owner, name, hint in (
        (model, "generate", r"Use minitx\.generate\(model"),
        (model, "save_pretrained", r"Use minitx\.save\("),
        (minitx.EncoderModel, "from_pretrained", r"Use minitx\.load\("),
        (model, "from_pretrained", r"Use minitx\.load\("),
        (model, "get_input_embeddings", r"It is model\.embedder\.word_emb"),
        (model, "encodr", r"Did you mean 'encoder'\?"),
    ):
        with pytest.raises(AttributeError, match=rf"EncoderModel has no attribute '{name}'\. {hint}"):
            getattr(owner, name)
        assert not hasattr(owner, name)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "t5"])
def test_names_of_transformers_in_a_forward(model_type: str) -> None:
    config = {"bert": SIZES, "gpt2": GPT2, "t5": T5}[model_type]
    model = minitx.from_config({"model_type": model_type, **config}).eval()
    more = {"decoder_input_ids": IDS} if model_type == "t5" else {}
    for name, hint in (
        ("use_cache", r"Pass cache=model\.make_cache\(\)"),
        ("past_key_values", r"Pass cache=model\.make_cache\(\)"),
        ("return_dict", "A forward always returns a ModelOutput"),
        ("attention_maks", r"Did you mean 'attention_mask'\?"),
    ):
        with pytest.raises(TypeError, match=rf"forward has no argument '{name}'\. {hint}"):
            model(IDS, **more, **{name: None})
        if model_type == "t5":
            cache = model.encode_into(model.make_cache(), IDS)
            with pytest.raises(TypeError, match=rf"forward has no argument '{name}'\. {hint}"):
                model.decode(IDS, cache=cache, **{name: None})


# --- outputs -----------------------------------------------------------------------------------------


def test_fields_of_an_output_by_name_and_number() -> None:
    output = minitx.from_config({"model_type": "bert", **SIZES}, head="masked-lm").eval()(IDS)
    assert output["logits"] is output.logits is output[2]
    hidden, pooled, logits, *_ = output
    assert hidden is output.last_hidden_state
    assert pooled is None
    assert logits is output.logits
    assert output[:2] == (hidden, pooled)
    with pytest.raises(KeyError, match=r"ModelOutput has no field 'logit'; it has last_hidden_state, "):
        output["logit"]


def test_one_of_ids_and_embeddings() -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES}).eval()
    embeds = model.embedder.word_emb(IDS)
    assert torch.equal(model(inputs_embeds=embeds).last_hidden_state, model(IDS).last_hidden_state)
    with pytest.raises(ValueError, match=r"inputs_embeds=.* must be None beside input_ids; pass one of them"):
        model(IDS, inputs_embeds=embeds)
    with pytest.raises(TypeError, match="input_ids=None must be a tensor"):
        model()
    with pytest.raises(
        ValueError, match=r"inputs_embeds=.* of shape \(batch, time, 24\) .*, not \(1, 4, 23\)"
    ):
        model(inputs_embeds=embeds[..., :-1])


def test_device_dtype_and_number_of_parameters() -> None:
    model = minitx.from_config({"model_type": "bert", **SIZES}, head="masked-lm", dtype=torch.float64)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float64)
    every = model.num_parameters()
    assert every == sum({id(p): p.numel() for p in model.parameters()}.values())
    model.embedder.requires_grad_(False)
    assert model.num_parameters(trainable=True) < every
    assert model.to("meta").device.type == "meta"
