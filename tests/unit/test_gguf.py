"""`minitx.load` of GGUF files that follow llama.cpp's conventions, written by its own package."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, RopeScalingType
from torch import Tensor

import minitx
from minitx.checkpoint.gguf.checkpoint import gguf_config
from minitx.checkpoint.gguf.rope import llama3_divisors
from minitx.cli.app import main
from minitx.config import RopeConfig
from minitx.layers.rotary import FREQUENCIES
from tests.gguf_files import CONFIGS, converted_tensors, write_gguf

IDS = torch.arange(40).view(2, 20) * 7 % 90


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint per architecture, with weights of norms and biases that are not 1 and 0."""
    made = {}
    for model_type, config in CONFIGS.items():
        model = minitx.from_config({"model_type": model_type, **config}, head="causal-lm", seed=0)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.data += torch.randn(parameter.shape, generator=generator) / 10
        made[model_type] = tmp_path_factory.mktemp(model_type)
        minitx.save(model, made[model_type])
    return made


@pytest.fixture
def write(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a GGUF file of an architecture."""

    def _write(model_type: str, config: dict[str, Any] | None = None, **options: Any) -> Path:
        path = tmp_path / f"{model_type}.gguf"
        write_gguf(path, model_type, config or CONFIGS[model_type], folders[model_type], **options)
        return path

    return _write


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_file_computes_what_the_checkpoint_did(
    model_type: str, folders: dict[str, Path], write: Callable[..., Path]
) -> None:
    expected = minitx.load(folders[model_type])
    model = minitx.load(write(model_type))
    assert model.checkpoint.model_type == model_type
    if model_type.startswith("gemma"):  # 1 was added to the weights of the norms, and subtracted again
        assert torch.allclose(logits(model), logits(expected), rtol=0, atol=1e-6)
    else:
        assert torch.equal(logits(model), logits(expected))


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2"])
def test_quantised_weights_are_the_ones_that_ggml_computes(
    model_type: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The same file with the dequantised values in float32 loads to the same model."""
    config, folder = CONFIGS[model_type], folders[model_type]
    paths = {kind: tmp_path / f"{kind.name}.gguf" for kind in (Kind.Q8_0, Kind.F32)}
    held = write_gguf(paths[Kind.Q8_0], model_type, config, folder, kind=Kind.Q8_0)
    plain = {name: torch.from_numpy(values.copy()) for name, values in held.items()}
    write_gguf(paths[Kind.F32], model_type, config, folder, tensors=plain)
    quantised, whole = (minitx.load(path).state_dict() for path in paths.values())
    assert all(torch.equal(quantised[name], tensor) for name, tensor in whole.items())
    assert not torch.equal(logits(minitx.load(paths[Kind.F32])), logits(minitx.load(folder)))


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16])
def test_narrow_weights_become_float32_or_what_is_asked_for(
    kind: Kind, folders: dict[str, Path], write: Callable[..., Path]
) -> None:
    path = write("qwen2", kind=kind)
    dtype = torch.float16 if kind == Kind.F16 else torch.bfloat16
    stored = minitx.load(folders["qwen2"], dtype=dtype).state_dict()
    wide, narrow = minitx.load(path), minitx.load(path, dtype=dtype)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert {p.dtype for p in narrow.parameters()} == {dtype}
    for name, tensor in stored.items():
        assert torch.equal(narrow.state_dict()[name], tensor)
        if tensor.dim() > 1:
            assert torch.equal(wide.state_dict()[name], tensor.float())


def test_values_in_float32_are_mapped_unless_they_are_read(write: Callable[..., Path]) -> None:
    path = write("llama")
    mapped, read = minitx.load(path), minitx.load(path, mmap=False)
    content = bytearray(path.read_bytes())
    assert torch.equal(logits(mapped), logits(read))
    mapped.get_parameter("decoder.layer_norm.weight").data.fill_(3.0)  # a private copy of the page
    assert path.read_bytes() == content


def test_a_saved_folder_is_the_checkpoint(
    folders: dict[str, Path], write: Callable[..., Path], tmp_path: Path
) -> None:
    model = minitx.load(write("llama"))
    minitx.save(model, tmp_path / "saved")
    saved, source = minitx.load(tmp_path / "saved"), minitx.load(folders["llama"])
    assert torch.equal(logits(saved), logits(source))
    assert saved.checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert saved.checkpoint.config["rms_norm_eps"] == 1e-5  # not 9.999999747378752e-06
    headless = minitx.load(model.checkpoint.folder, head="none")
    assert headless.head is None


def test_an_adapter_is_merged_into_a_file(write: Callable[..., Path], tmp_path: Path) -> None:
    from minitx.training import add_lora, save_adapter

    path = write("qwen2", kind=Kind.Q8_0)
    model = minitx.load(path)
    add_lora(model, rank=2, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name.endswith("lora_up"):
            parameter.data.normal_(generator=torch.Generator().manual_seed(2))
    save_adapter(model, tmp_path / "adapter")
    merged = minitx.load(tmp_path / "adapter")
    assert torch.allclose(logits(merged), logits(model.eval()), rtol=0, atol=1e-4)
    assert not torch.allclose(logits(merged), logits(minitx.load(path)), rtol=0, atol=1e-2)


def test_experts_of_older_files_are_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    config, folder = CONFIGS["mixtral"], folders["mixtral"]
    tensors = {}
    for name, tensor in converted_tensors("mixtral", config, folder).items():
        if "_exps." in name:
            for index, expert in enumerate(tensor):
                tensors[name.replace("_exps.", f".{index}.")] = expert
        else:
            tensors[name] = tensor
    path = tmp_path / "old.gguf"
    write_gguf(path, "mixtral", config, folder, tensors=tensors)
    assert torch.equal(logits(minitx.load(path)), logits(minitx.load(folder)))


def test_two_ends_of_a_text_are_both_stated(write: Callable[..., Path]) -> None:
    path = write("llama", more=lambda writer: writer.add_eot_token_id(7))
    assert gguf_config(path)["eos_token_id"] == [2, 7]


def test_a_window_of_zero_is_none(write: Callable[..., Path]) -> None:
    path = write("phi3", {**CONFIGS["phi3"], "sliding_window": 0})
    assert "sliding_window" not in gguf_config(path)
    assert gguf_config(write("phi3"))["sliding_window"] == 5


# --- RoPE --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaled_rope_is_that_of_the_config(
    kind: str, folders: dict[str, Path], write: Callable[..., Path], tmp_path: Path
) -> None:
    def scaled(writer: GGUFWriter) -> None:
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)

    path = write("qwen2", more=scaled)
    scaling = {"rope_type": kind, "factor": 4.0}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = 32
    assert gguf_config(path)["rope_scaling"] == scaling
    plain = minitx.load(folders["qwen2"])
    config = plain.checkpoint.config | {"rope_scaling": scaling}
    expected = minitx.from_config(config, head="causal-lm").eval()
    expected.load_state_dict(plain.state_dict())
    assert torch.equal(logits(minitx.load(path)), logits(expected))
    assert not torch.equal(logits(plain), logits(expected))


def test_divisors_of_llama_3_are_recognised_and_others_kept(write: Callable[..., Path]) -> None:
    width = CONFIGS["mistral"]["head_dim"]
    usual = llama3_divisors(10_000.0, width, 8.0)
    config = gguf_config(write("mistral", more=_divisors(usual)))
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    other = usual.clone()
    other[3] = 2.5
    path = write("mistral", more=_divisors(other))
    assert gguf_config(path)["rope_scaling"]["long_factor"] == other.tolist()
    rope = minitx.load(path).config.stack.positions.ropes["sliding_attention"]
    assert (rope.long_factor, rope.attention_factor) == (tuple(other.tolist()), 1.0)


def _divisors(table: Tensor) -> Callable[[GGUFWriter], None]:
    return lambda writer: writer.add_tensor("rope_freqs.weight", table.numpy())


def test_the_divisors_of_llama_3_give_its_frequencies() -> None:
    """1 / divisor of the usual frequencies is what the config's "llama3" computes."""
    config = RopeConfig(
        rope_theta=500_000.0,
        rotary_dim=64,
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    plain = RopeConfig(rope_theta=500_000.0, rotary_dim=64)
    usual, scaled = (FREQUENCIES[rope.rope_type](rope, torch.arange(1)) for rope in (plain, config))
    assert torch.allclose((usual / scaled).float(), llama3_divisors(500_000.0, 64, 8.0), rtol=1e-5)


def test_the_two_tables_of_phi_3_are_longrope(folders: dict[str, Path], write: Callable[..., Path]) -> None:
    short, long = torch.linspace(1, 1.5, 8), torch.linspace(1, 4, 8)

    def tables(writer: GGUFWriter) -> None:  # the converter states no type
        writer.add_rope_scaling_orig_ctx_len(16)
        writer.add_rope_scaling_attn_factors(1.25)
        writer.add_tensor("rope_factors_short.weight", short.numpy())
        writer.add_tensor("rope_factors_long.weight", long.numpy())

    path = write("phi3", more=tables)
    scaling = {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "attention_factor": 1.25,
    }
    plain = minitx.load(folders["phi3"])
    config = plain.checkpoint.config | {"rope_scaling": scaling, "original_max_position_embeddings": 16}
    expected = minitx.from_config(config, head="causal-lm").eval()
    expected.load_state_dict(plain.state_dict())
    assert torch.equal(logits(minitx.load(path)), logits(expected))
    assert not torch.equal(logits(plain), logits(expected))


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (lambda writer: writer.add_uint32("llama.new_key", 3), ["llama.new_key"]),
        (lambda writer: writer.add_logit_scale(2.0), ["llama.logit_scale"]),
        (lambda writer: writer.add_uint32("split.count", 3), ["one of 3 parts", "llama-gguf-split"]),
        (lambda writer: writer.add_string("general.type", "adapter"), ["general.type", "'adapter'"]),
        (lambda writer: writer.add_value_length(8), ["value_length"]),
        (lambda writer: writer.add_vocab_size(97), ["vocab_size", "96"]),
        (lambda writer: writer.add_eot_token_id(96), ["eot_token_id", "below 96"]),
        (lambda writer: writer.add_causal_attention(False), ["attention.causal"]),
        (
            lambda writer: writer.add_tensor("blk.0.extra.weight", np.ones(4, np.float32)),
            ["blk.0.extra.weight"],
        ),
        (lambda writer: writer.add_tensor("blk.2.attn_q.weight", np.ones(4, np.float32)), ["blk.2.attn_q"]),
        (lambda writer: writer.add_rope_scaling_type(RopeScalingType.LONGROPE), ["short_factor"]),
    ],
    ids=lambda value: value[0].replace(" ", "-") if isinstance(value, list) else "",
)
def test_what_would_be_ignored_is_refused(
    more: Callable[[GGUFWriter], None], words: list[str], write: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        minitx.load(write("llama", more=more))
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    with pytest.raises(ValueError, match=r"'mamba'.*") as caught:
        minitx.load(path)
    assert "qwen2" in str(caught.value)


# --- the command line --------------------------------------------------------------------------------


def test_inspect_and_estimate_read_a_file(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write("gpt2")
    assert main(["inspect", str(path)]) == 0
    assert "110,336 parameters" in capsys.readouterr().out
    assert main(["estimate", str(write("llama"))]) == 0
    assert main(["verify", str(path)]) == 2
    assert "convert" in capsys.readouterr().err
