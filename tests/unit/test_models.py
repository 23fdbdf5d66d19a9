"""What a model does beyond its numbers: masks, dtypes, files, compilation, errors."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import minitx
from minitx.architectures import REGISTRY
from minitx.config import NormConfig, replace_in
from minitx.layers.activation import Activation
from minitx.layers.attention import BACKENDS
from minitx.layers.layer import Layer, PostNormLayer
from minitx.layers.norm import RMSNorm, identity
from minitx.layers.stack import Stack
from tests.parity.cases import CASES
from tests.parity.reference import reference_model
from tests.real import MINILM

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 20,
}


def tiny(**more: Any) -> minitx.EncoderModel:
    head = more.pop("head", None)
    return minitx.from_config({**CONFIG, **more}, head=head, seed=0).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(2, 60, shape)


def test_texts_packed_into_one_row_do_not_see_each_other() -> None:
    model, first, second = tiny(), ids(1, 5), ids(1, 7)
    mask = torch.block_diag(torch.ones(5, 5), torch.ones(7, 7))[None].bool()
    positions = torch.cat((torch.arange(5), torch.arange(7)))[None]
    packed = model(torch.cat((first, second), 1), mask, position_ids=positions).last_hidden_state
    assert torch.allclose(packed[:, :5], model(first).last_hidden_state, atol=1e-6)
    assert torch.allclose(packed[:, 5:], model(second).last_hidden_state, atol=1e-6)


@pytest.mark.parametrize("model_type", ["bloom", "llama"])
def test_texts_packed_into_one_row_of_a_decoder(model_type: str) -> None:
    """Also where the distance of a key is counted by what its query sees (ALiBi)."""
    model = decoder(model_type)
    texts = [[ids(1, 5), ids(1, 7)], [ids(1, 8), ids(1, 4)]]
    mask = torch.stack(
        [torch.block_diag(*(torch.ones(x.shape[1], x.shape[1]) for x in row)) for row in texts]
    )
    positions = torch.stack([torch.cat([torch.arange(x.shape[1]) for x in row]) for row in texts])
    packed = model(torch.cat([torch.cat(row, 1) for row in texts]), mask, positions).last_hidden_state
    for row, together in zip(texts, packed, strict=True):
        alone = torch.cat([model(each).last_hidden_state[0] for each in row])
        assert torch.allclose(together, alone, atol=1e-9)


def decoder(model_type: str, **more: Any) -> minitx.DecoderModel:
    config = {**CONFIG, "num_key_value_heads": 2, "model_type": model_type, "initializer_range": 0.3}
    if model_type == "bloom":
        config = {"model_type": "bloom", "vocab_size": 60, "hidden_size": 24, "n_head": 4, "n_layer": 2}
        config |= {"initializer_range": 0.3}
    return minitx.from_config(config, seed=0, dtype=torch.float64, **more).eval()


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.int32, torch.float32])
def test_a_mask_may_have_any_type(dtype: torch.dtype) -> None:
    model, text = tiny(), ids(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    expected = model(text, mask).last_hidden_state
    assert torch.equal(model(text, mask.to(dtype)).last_hidden_state, expected)


def test_attention_backends_agree_and_an_unknown_one_is_named() -> None:
    model, text = tiny().double(), ids(2, 9)
    found = [model.set_attention(name)(text).last_hidden_state for name in BACKENDS]
    assert torch.allclose(found[0], found[1], atol=1e-12)
    with pytest.raises(ValueError, match=r"flash.*'eager', 'sdpa'"):
        model.set_attention("flash")


def test_training_a_loaded_model_leaves_its_file_alone() -> None:
    """The weights are mapped from the file; what is written to them must not go back there."""
    path = MINILM / "model.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = minitx.load(MINILM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_loaded_model_survives_the_removal_of_its_file(tmp_path: Path) -> None:
    minitx.save(tiny(), tmp_path)
    model, text = minitx.load(tmp_path), ids(1, 5)
    expected = model(text).last_hidden_state
    (tmp_path / "model.safetensors").unlink()
    assert torch.equal(model(text).last_hidden_state, expected)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert", "deberta-v2"])
def test_the_forward_is_one_graph(model_type: str) -> None:
    """Nothing in it breaks torch.compile, padding included."""
    model = tiny(model_type=model_type, pad_token_id=1)
    text, mask = ids(2, 8), torch.ones(2, 8, dtype=torch.long)
    mask[0, 5:] = 0
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        found, expected = compiled(text, mask), model(text, mask)
    real = mask.bool()
    assert torch.allclose(found.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-5)


def test_models_can_be_copied_and_pickled(tmp_path: Path) -> None:
    model, text = tiny(head="masked-lm"), ids(1, 5)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(text).logits, model(text).logits)
        assert other.head.projection.weight is other.embedder.word_emb.weight
    minitx.save(copy.deepcopy(model), tmp_path)
    assert torch.equal(minitx.load(tmp_path)(text).logits, model(text).logits)


@pytest.mark.parametrize("model_type", REGISTRY)
def test_fresh_weights_follow_the_config(model_type: str) -> None:
    case = next(case for case in CASES if case.model_type == model_type)
    config = reference_model(case, case.tasks[0]).config.to_dict()
    spread = {"init_std": 0.5} if "init_std" in config else {"initializer_range": 0.5}
    if "initializer_factor" in config:  # of a range that is fixed
        spread = {"initializer_factor": 10.0}
    if "decoder" in config:  # whose half says it for both
        config["decoder"] |= spread
        config["encoder"]["pad_token_id"] = 1
    config |= {**spread, "pad_token_id": 1}
    model, other = (minitx.from_config(config, head="none", seed=0).eval() for _ in range(2))
    rules = model.checkpoint.architecture.initialization(model)  # those of transformers: tests/parity
    for name, module in model.named_modules():
        draw = next((rules[p] for p in rules if fnmatchcase(f"{name}.weight", p)), None)
        if isinstance(module, nn.LayerNorm | RMSNorm):
            value = 1 - getattr(module, "offset", 0) if draw is None else draw.value
            assert bool((module.weight == value).all()), name
        elif isinstance(module, nn.Linear | nn.Embedding) and (draw is None or draw.value is None):
            std = 0.5 if draw is None else draw.std * (0.88 if draw.bound else 1.0)
            off = 0.2 if module.weight.numel() > 100 else 0.5
            assert abs(module.weight.std().item() - std) < off * std, name
        if getattr(module, "bias", None) is not None and f"*{name[-7:]}.bias" not in rules:
            assert not module.bias.any(), name
    drawn = model.config.inputs.padding_is_trained or any(draw.padding for draw in rules.values())
    assert bool(model.embedder.word_emb.weight[1].any()) == drawn
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_model_made_from_parts_starts_with_weights_and_is_saved_with_its_config(tmp_path: Path) -> None:
    numbers = tiny().config
    model = minitx.EncoderModel(numbers)
    assert 0.01 < model.embedder.word_emb.weight.std().item() < 0.03
    minitx.save(model, tmp_path)
    assert minitx.load(tmp_path).config == numbers


def test_a_family_needs_its_own_stack() -> None:
    with pytest.raises(ValueError, match=r"config.decoder=None must be a StackConfig in .* DecoderModel"):
        minitx.DecoderModel(tiny().config)
    with pytest.raises(TypeError, match="config=None must be a ModelConfig"):
        minitx.DecoderModel(None)  # type: ignore[arg-type]


def test_a_decoder_may_attend_both_ways() -> None:
    sizes = {"vocab_size": 60, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 20}
    config = minitx.from_config({"model_type": "gpt2", **sizes}).config
    model = minitx.DecoderModel(replace_in(config, "decoder", causal=False)).eval()
    text = ids(1, 5)
    changed = text.clone()
    changed[0, -1] += 1
    first, second = (model(x).last_hidden_state[0, 0] for x in (text, changed))
    assert not torch.equal(first, second)


def test_embeddings_are_floating_point_and_hidden_states_are_on_or_off() -> None:
    with pytest.raises(
        TypeError, match=r"inputs_embeds=.* must be a tensor of floating point; pass token ids"
    ):
        tiny()(inputs_embeds=torch.ones(1, 3, 24, dtype=torch.long))
    with pytest.raises(TypeError, match=r"output_hidden_states='yes' must be a bool"):
        tiny()(ids(1, 3), output_hidden_states="yes")


def test_an_empty_slot_is_no_module() -> None:
    model = tiny(model_type="modernbert")
    assert model.encoder.layers[0].attention_norm is identity
    assert isinstance(model.encoder.layers[1].attention_norm, nn.LayerNorm)
    assert "attention_norm" not in dict(model.encoder.layers[0].named_children())


def test_a_language_model_head_shares_the_word_embedding() -> None:
    model = tiny(head="masked-lm")
    assert model.head.projection.weight is model.embedder.word_emb.weight
    untied = tiny(head="masked-lm", tie_word_embeddings=False)
    assert untied.head.projection.weight is not untied.embedder.word_emb.weight


def test_an_unknown_kind_of_labels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nonsense.*regression"):
        tiny(head="sequence-classification", problem_type="nonsense")


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_labels_fit_the_logits(problem: str) -> None:
    model = tiny(head="sequence-classification", problem_type=problem, num_labels=2)
    with pytest.raises(ValueError, match=r"labels=.* must be one number for each of the logits.*\(3, 2\)"):
        model(ids(3, 5), labels=torch.ones(3))


def test_rotary_positions_need_pairs() -> None:
    with pytest.raises(ValueError, match="RoPE rotates pairs"):
        tiny(model_type="modernbert", hidden_size=15, num_attention_heads=3)


def test_a_head_for_other_labels_is_drawn_afresh(tmp_path: Path) -> None:
    minitx.save(tiny(head="sequence-classification"), tmp_path)
    model = minitx.load(tmp_path, init_head=True, num_labels=5)
    assert model(ids(2, 4)).logits.shape == (2, 5)
    assert 0.005 < model.head.projection.weight.std().item() < 0.05
    with pytest.raises(ValueError, match=r"init_head=True"):
        minitx.load(tmp_path, num_labels=5)


def test_labels_without_a_head_are_refused() -> None:
    with pytest.raises(ValueError, match=r"without a head; load it with head="):
        tiny()(ids(1, 4), labels=torch.tensor([1]))


def test_labels_that_do_not_fit_are_named() -> None:
    model = tiny(head="sequence-classification", num_labels=3)
    with pytest.raises(ValueError, match=r"labels=7 must be from 0 to 2"):
        model(ids(2, 4), labels=torch.tensor([0, 7]))
    with pytest.raises(ValueError, match=r"labels=.* of shape \(2,\), not \(1,\)"):
        model(ids(2, 4), labels=torch.tensor([0]))
    choice = tiny(head="multiple-choice")
    with pytest.raises(ValueError, match=r"labels=.* of shape \(3,\), not \(1,\)"):
        choice(ids(3, 2, 4), labels=torch.tensor([1]))


@pytest.mark.parametrize("negative", [False, True])
def test_soft_labels(negative: bool) -> None:
    """Probabilities of classes, and rows that do not count: the loss from its definition."""
    more = {"model_type": "deberta-v2", "num_labels": 3, "relative_attention": True, "pos_att_type": "p2c"}
    model, text = tiny(head="sequence-classification", **more), ids(3, 5)
    logs = model(text).logits.log_softmax(-1)
    if negative:
        assert torch.allclose(
            model(text, labels=torch.tensor([1, -1, 2])).loss, -(logs[0, 1] + logs[2, 2]) / 2
        )
    else:
        share = torch.rand(3, 3)
        assert torch.allclose(model(text, labels=share).loss, -(share * logs).sum(-1).mean())


def test_a_model_that_no_longer_fits_its_config_is_not_saved(tmp_path: Path) -> None:
    """It could never be loaded again; a training run would be lost."""

    def shorter(model: minitx.EncoderModel) -> None:
        del model.encoder.layers[-1]

    def longer(model: minitx.EncoderModel) -> None:
        model.encoder.layers.append(copy.deepcopy(model.encoder.layers[0]))

    def wider(model: minitx.EncoderModel) -> None:
        model.embedder.word_emb = nn.Embedding(70, 24, padding_idx=0)

    def otherwise(model: minitx.EncoderModel) -> None:
        model.encoder.layers[0].intermediate.activation = Activation("relu")

    for change, said in (
        (shorter, r"encoder.layers.1.* is missing"),
        (longer, r"encoder.layers.2.* by its config not a module"),
        (wider, r"Embedding\(70, 24.*Embedding\(60, 24"),
        (otherwise, r"Activation\(relu\).*Activation\(gelu\)"),
    ):
        model = tiny()
        change(model)
        with pytest.raises(ValueError, match=said):
            minitx.save(model, tmp_path)
        assert not list(tmp_path.iterdir())
    model = tiny()
    model.encoder.layers[0].output.dropout = nn.Identity()  # dropout is a matter of training
    minitx.save(model, tmp_path)


def test_a_stack_of_another_depth_says_so() -> None:
    model = tiny()
    model.encoder.layers.append(copy.deepcopy(model.encoder.layers[0]))
    with pytest.raises(ValueError, match="layers=3 must be 2, as in the config"):
        model(ids(1, 4))


def test_a_vocabulary_can_grow_with_its_config(tmp_path: Path) -> None:
    model = tiny(head="masked-lm")
    grown = minitx.from_config({**model.checkpoint.config, "vocab_size": 70}, head="masked-lm")
    kept = {k: v for k, v in model.state_dict().items() if v.shape == grown.state_dict()[k].shape}
    grown.load_state_dict(kept, strict=False)
    minitx.save(grown, tmp_path)
    assert minitx.load(tmp_path).embedder.word_emb.num_embeddings == 70


def test_dropout_can_be_replaced_and_trained_alone() -> None:
    model, text = tiny(attention_probs_dropout_prob=0.5), ids(2, 9)
    quiet = model(text).last_hidden_state
    model.encoder.layers[0].attention.self_attention.dropout.train()  # Monte Carlo dropout
    assert not torch.allclose(model(text).last_hidden_state, quiet, atol=1e-4)
    model.encoder.layers[0].attention.self_attention.dropout = nn.Identity()
    assert torch.equal(model(text).last_hidden_state, quiet)


def test_tensors_kept_for_saving_follow_a_change_of_dtype(tmp_path: Path) -> None:
    minitx.save(tiny(head="masked-lm"), tmp_path / "one")
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    extra = {"cls.seq_relationship.weight": torch.ones(2, 24), "cls.seq_relationship.bias": torch.ones(2)}
    save_file(stored | extra, tmp_path / "one" / "model.safetensors", {"format": "pt"})
    minitx.save(minitx.load(tmp_path / "one").bfloat16(), tmp_path / "two")
    with safe_open(tmp_path / "two" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_a_traced_model_takes_other_masks() -> None:
    model, text = tiny().requires_grad_(False), ids(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of each shape it fixes
        traced = torch.jit.trace(lambda i, m: model(i, m).last_hidden_state, (text, torch.ones_like(mask)))
    assert torch.allclose(traced(text, mask), model(text, mask).last_hidden_state, atol=1e-6)


def test_a_compiled_model_refuses_masks_whose_values_it_cannot_check() -> None:
    compiled = torch.compile(tiny(), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="of the values 0 and 1"):
        compiled(ids(1, 4), torch.tensor([[0.0, 0.0, -10000.0, -10000.0]]))


def test_the_meta_device_gives_shapes() -> None:
    with torch.device("meta"):
        model = minitx.EncoderModel(tiny().config)
        out = model(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))
    assert out.last_hidden_state.shape == (2, 5, 24)


@pytest.mark.parametrize("model_type", ["bloom", "llama", "mistral", "mixtral"])
def test_the_meta_device_gives_shapes_of_a_decoder(model_type: str) -> None:
    with torch.device("meta"):
        model = minitx.DecoderModel(decoder(model_type).config)
        text, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
        cache = model.make_cache(9)
        assert model(text, mask, torch.arange(5)[None], cache=cache).last_hidden_state.shape == (2, 5, 24)
        cache.select(torch.ones(3, dtype=torch.long)).crop(4)
        assert model(text[:1, :1].repeat(3, 1), cache=cache).last_hidden_state.shape == (3, 1, 24)


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        *(
            (kind, name)
            for kind in ("bert", "llama")
            for name in ("input_ids", "attention_mask", "position_ids")
        ),
        ("bert", "token_type_ids"),
        ("bert", "labels"),
        ("llama", "labels"),
    ],
)
def test_lists_are_no_tensors(model_type: str, name: str) -> None:
    model = decoder("llama", head="causal-lm") if model_type == "llama" else tiny(head="masked-lm")
    with pytest.raises(TypeError, match=rf"{name}=\[\[1, 1, 1\]\] must be a tensor"):
        model(**{"input_ids": ids(1, 3), name: [[1, 1, 1]]})


@pytest.mark.parametrize("model_type", ["bert", "llama", "bloom"])
@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            torch.arange(4)[None],
            r"position_ids=.* of shape \(2, 3\) like input_ids, not \(1, 4\)",
        ),
        (torch.arange(3), r"position_ids=.* like input_ids, not \(3,\)"),
        (torch.tensor(0), r"position_ids=.* like input_ids, not \(\)"),
        (torch.zeros(2, 3), "position_ids=.* must be of dtype torch.long"),
    ],
)
def test_positions_that_are_none(model_type: str, positions: torch.Tensor, message: str) -> None:
    """With and without a table of them."""
    model = tiny() if model_type == "bert" else decoder(model_type)
    with pytest.raises(ValueError, match=message):
        model(ids(2, 3), position_ids=positions)


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_text_without_a_batch_is_named_whatever_else_is_given(model_type: str) -> None:
    model = tiny() if model_type == "bert" else decoder(model_type)
    with pytest.raises(ValueError, match=r"input_ids=.* of shape \(batch, time\) .*, not \(3,\)"):
        model(ids(3), torch.ones(3))


def test_labels_need_every_logit() -> None:
    model, text = decoder("llama", head="causal-lm"), ids(1, 4)
    with pytest.raises(ValueError, match="logits_to_keep=1 must be 0 with labels"):
        model(text, labels=text, logits_to_keep=1)
    assert model(text, labels=text).logits.shape == (1, 4, 60)


@pytest.mark.parametrize("bad", ["float8", "int8", torch.int8, torch.complex64])
def test_a_dtype_that_no_model_has(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"dtype=.* must be one of torch.float32"):
        minitx.load(MINILM, dtype=bad)


@pytest.mark.parametrize("name", ["bfloat16", "torch.bfloat16"])
def test_a_dtype_by_name(name: str) -> None:
    assert minitx.load(MINILM, dtype=name).embedder.word_emb.weight.dtype == torch.bfloat16
    config = {**tiny().checkpoint.config}
    assert minitx.from_config(config, dtype=name).embedder.word_emb.weight.dtype == torch.bfloat16


def test_label_names_are_in_the_record(tmp_path: Path) -> None:
    names = {"0": "no", "1": "maybe", "2": "yes"}
    model = tiny(head="sequence-classification", id2label=names)
    minitx.save(model, tmp_path)
    assert minitx.load(tmp_path).checkpoint.id2label == {0: "no", 1: "maybe", 2: "yes"}
    fresh = tiny(head="sequence-classification", num_labels=2)
    assert fresh.checkpoint.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_a_config_changed_after_loading_is_not_saved(tmp_path: Path) -> None:
    model = tiny()
    model.checkpoint.config["num_attention_heads"] = 3
    with pytest.raises(ValueError, match=r"checkpoint\.config describes another model"):
        minitx.save(model, tmp_path)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device='nonsense' must be a device that this machine has"):
        minitx.load(MINILM, device="nonsense")


def test_the_config_and_the_argument_may_not_contradict_each_other() -> None:
    with pytest.raises(ValueError, match=r"model_type='roberta' must be 'bert' as in config.json"):
        minitx.load(MINILM, model_type="roberta")


def test_a_fresh_head_must_be_named() -> None:
    with pytest.raises(ValueError, match=r"init_head=True .*name the new head with head="):
        minitx.load(MINILM, init_head=True, num_labels=3)


def test_a_tensor_under_two_spellings_is_refused(tmp_path: Path) -> None:
    minitx.save(tiny(head="masked-lm"), tmp_path)
    path = tmp_path / "model.safetensors"
    with safe_open(path, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stored["embeddings.LayerNorm.bias"] = torch.ones(24)
    save_file(stored, path, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"twice, with and without the prefix 'bert.': embeddings.LayerNorm.bias"
    ):
        minitx.load(tmp_path)


def test_a_head_that_only_the_config_names(tmp_path: Path) -> None:
    """Sentence encoders are published so: the config still says masked-lm, the file has no such head."""
    minitx.save(tiny(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="the file has no such head"):
        assert minitx.load(tmp_path).task is None
    with pytest.raises(ValueError, match="head='masked-lm' must be one that the checkpoint has"):
        minitx.load(tmp_path, head="masked-lm")


def test_half_of_a_sharded_checkpoint_is_saved_so_that_it_loads(tmp_path: Path) -> None:
    model = tiny(head="masked-lm")
    minitx.save(model, tmp_path / "one")
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    head = {name: tensor for name, tensor in stored.items() if name.startswith("cls.")}
    parts = {"model-00001-of-00002.safetensors": {k: v for k, v in stored.items() if k not in head}}
    parts["model-00002-of-00002.safetensors"] = head
    (tmp_path / "one" / "model.safetensors").unlink()
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / "one" / name, {"format": "pt"})
    index = {"weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
    (tmp_path / "one" / "model.safetensors.index.json").write_text(json.dumps(index))
    minitx.save(minitx.load(tmp_path / "one", head="none"), tmp_path / "two")
    text = ids(1, 5)
    again = minitx.load(tmp_path / "two")
    assert torch.equal(again(text).last_hidden_state, model(text).last_hidden_state)


def test_an_unknown_task_is_refused_when_the_model_is_made() -> None:
    with pytest.raises(ValueError, match=r"HeadConfig.task='foo' must be one of 'masked-lm'"):
        minitx.EncoderModel(tiny().config, minitx.HeadConfig(task="foo", num_labels=2))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert", "deberta-v2"])
def test_a_model_can_be_exported_for_any_batch_and_length(model_type: str) -> None:
    model, text = tiny(model_type=model_type, pad_token_id=1), ids(2, 8)
    batch, time = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("time", min=2, max=18)
    sizes = {0: batch, 1: time}
    with torch.no_grad():
        exported = torch.export.export(
            model,
            (text, torch.ones_like(text)),
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
            strict=False,
        ).module()
        text, mask = ids(3, 11), torch.ones(3, 11, dtype=torch.long)
        mask[0, 7:] = 0
        found, expected = exported(text, mask), model(text, mask)
    real = mask.bool()
    assert torch.allclose(found.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("layer.norm_placement", "prenorm", "'post', 'pre', 'sandwich', 'branch'"),
        ("layer.norm.kind", "rms", "'layer_norm', 'rms_norm'"),
        ("layer.attention.qk_norm", "yes", "'none', 'head', 'width'"),
        ("layer.parallel", "yes", "'none', 'one_norm', 'two_norms'"),
        ("layer.feed_forward.gated", 1, "True, False"),
    ],
)
def test_a_misspelt_word_builds_no_other_model(field: str, value: Any, known: str) -> None:
    config = tiny().config
    path, _, name = field.rpartition(".")
    with pytest.raises(ValueError, match=rf"Config\.{name}={value!r} must be one of {known}"):
        replace_in(config.encoder, path, **{name: value})
    other = replace_in(
        config, "encoder.layer", norm_placement="pre", norm=NormConfig(kind="rms_norm", eps=1e-6)
    )
    assert isinstance(minitx.EncoderModel(other).encoder.layer_norm, RMSNorm)


def test_the_printout_begins_with_the_number_of_parameters() -> None:
    model = tiny()
    first = f"{model.num_parameters():,} parameters, {str(model.dtype)[6:]}"
    assert str(model).startswith(f"EncoderModel(\n  {first}\n  (embedder)")


def test_the_printout_has_sizes_heads_and_experts() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
    sizes |= {"vocab_size": 60, "max_position_embeddings": 40}
    config = {"model_type": "gpt_oss", **sizes, "num_key_value_heads": 2, "head_dim": 8}
    config |= {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6}
    text = str(minitx.from_config(config, head="causal-lm", seed=0))
    model = minitx.from_config(config, head="causal-lm", seed=0)
    assert f"{model.num_parameters():,} parameters, float32, causal-lm" in text
    assert "4 layers of width 32, causal, Rotary, 2 with a window of 6" in text
    assert f"{sum(p.numel() for p in model.stack.layers[0].parameters()):,} parameters" in text  # type: ignore[index, operator, union-attr]
    assert "4 heads of 8 features, 2 for keys and values" in text
    assert "2 of 4 experts for each token" in text
    shared = {"model_type": "albert", **sizes, "embedding_size": 16}
    assert "4 layers of width 32, 1 different ones" in str(minitx.from_config(shared, head="none", seed=0))


def test_outputs_print_by_shapes() -> None:
    model, tokens = tiny(), ids(2, 7)
    out = model(tokens, output_hidden_states=True, output_attentions=[1])
    lines = [line.split() for line in str(out).splitlines()]
    assert lines[0] == ["ModelOutput"]
    assert " ".join(lines[1]).startswith("last_hidden_state (2, 7, ")
    assert [line[0] for line in lines[1:]] == [
        n for n, v in zip(out._fields, out, strict=True) if v is not None
    ]
    assert any(line[0] == "attentions" and line[1:3] == ["1", "x"] for line in lines)
    assert "tensor(" not in repr(out)
    assert repr(out._replace(loss=torch.tensor(2.5))).splitlines()[-1].startswith("  attentions")
    assert "loss               2.5" in repr(out._replace(loss=torch.tensor(2.5)))


@pytest.mark.parametrize("masked", [False, True])
def test_the_short_path_of_an_encoder_computes_the_same(masked: bool) -> None:
    """One context for all layers, or one per kind of layer; layers alone, or with a recorder."""
    model, tokens = tiny(), ids(2, 7)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3]) if masked else None
    short = model(tokens, mask).last_hidden_state
    assert torch.equal(model(tokens, mask, output_hidden_states=True).last_hidden_state, short)
    assert model.encoder.attends_to_all
    model.encoder.attends_to_all = False
    assert torch.equal(model(tokens, mask).last_hidden_state, short)


@pytest.mark.parametrize("model_type", ["bert", "olmo2"])
def test_a_layer_without_first_norms_has_a_class(model_type: str) -> None:
    """It computes the same as the general layer, whose slots for these norms are empty."""
    model = minitx.from_config({**CONFIG, "model_type": model_type}, seed=0).eval()
    tokens = ids(2, 7)
    before = model(tokens).last_hidden_state
    for layer in model.stack.layers:
        assert type(layer) is PostNormLayer
        layer.__class__ = Layer
    assert torch.equal(model(tokens).last_hidden_state, before)


def test_the_pooler_takes_the_first_token() -> None:
    model = minitx.from_config(CONFIG, head="next-sentence", seed=0).eval()
    output = model(ids(2, 7))
    assert model.pooler is not None
    first = output.last_hidden_state[:, 0]
    assert torch.equal(output.pooler_output, torch.tanh(model.pooler.dense(first)))


def test_a_bidirectional_stack_appends_to_a_cache() -> None:
    """Each step attends to the keys of earlier steps, also where one context serves all layers."""
    sizes = {"vocab_size": 60, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 20}
    config = minitx.from_config({"model_type": "gpt2", **sizes}).config
    model = minitx.DecoderModel(config)
    model.decoder = Stack(replace_in(config.stack, "", causal=False))
    model.initialize().eval()
    tokens, cache = ids(1, 7), model.make_cache()
    assert model.decoder.attends_to_all
    model(tokens[:, :4], cache=cache)
    step = model(tokens[:, 4:], cache=cache).last_hidden_state
    alone = model(tokens[:, 4:], position_ids=torch.arange(4, 7)[None]).last_hidden_state
    assert cache.layers[0].key.shape[2] == 7
    assert not torch.allclose(step, alone)
