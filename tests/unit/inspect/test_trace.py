"""The step-by-step trace: every step agrees with a few lines of float64, in every kind of architecture."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch

import minitx
import minitx.training
from minitx.inspect import Step, estimate, trace
from minitx.validation import ArgumentTypeError, ArgumentValueError

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 40,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
SEQ2SEQ: dict[str, Any] = {"vocab_size": 60, "d_model": 32, "decoder_start_token_id": 2}
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40}
T5 = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("masked-lm", SIZES),  # learned positions, types, post-norm
    "roberta": ("sequence-classification", SIZES | {"pad_token_id": 1}),  # numbered after the padding
    "albert": ("masked-lm", SIZES | {"num_hidden_layers": 3, "embedding_size": 16}),  # shared layers
    "mpnet": ("token-classification", SIZES),  # relative bias
    "modernbert": ("masked-lm", SIZES | {"local_attention": 4, "global_attn_every_n_layers": 2}),
    "deberta-v2": (  # disentangled, with a convolution
        "masked-lm",
        SIZES
        | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
        | {"conv_kernel_size": 3, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    ),
    "electra": ("replaced-token-detection", SIZES | {"embedding_size": 16}),
    "distilbert": (
        "question-answering",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 60}
        | {"max_position_embeddings": 40},
    ),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("causal-lm", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "vocab_size": 60}),
    "llama": ("causal-lm", GROUPED),  # rotary, grouped heads
    "mistral": ("causal-lm", GROUPED | {"sliding_window": 3}),
    "qwen3": ("causal-lm", GROUPED),  # norms of queries and keys
    "gemma2": (  # sandwich norms, softcaps, scaled embeddings, alternating windows
        "causal-lm",
        GROUPED | {"sliding_window": 3, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "olmo2": ("sequence-classification", GROUPED),  # norms after the branches
    "granite": ("causal-lm", GROUPED | {"residual_multiplier": 0.5, "logits_scaling": 4.0}),
    "mixtral": ("causal-lm", GROUPED | {"num_local_experts": 4}),  # experts
    "gpt_oss": ("causal-lm", GROUPED | {"num_local_experts": 4, "sliding_window": 4}),  # sinks, experts
    "gpt_neox": ("causal-lm", SIZES | {"rotary_pct": 0.5}),  # partial rotary, parallel layers
    "gptj": (  # interleaved pairs, parallel layers of one norm
        "causal-lm",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 40, "vocab_size": 60},
    ),
    "bloom": ("causal-lm", {"n_layer": 2, "n_head": 4, "hidden_size": 32, "vocab_size": 60}),  # ALiBi
    "opt": (  # positions with an offset, projected embeddings
        "causal-lm",
        {name: size for name, size in SIZES.items() if name != "intermediate_size"}
        | {"ffn_dim": 48, "word_embed_proj_dim": 16},
    ),
}
SEQ2SEQS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("seq2seq-lm", SEQ2SEQ | T5),  # relative bias, cross-attention
    "bart": ("seq2seq-lm", SEQ2SEQ | BART),
    "marian": ("seq2seq-lm", SEQ2SEQ | BART | {"pad_token_id": 0}),  # sinusoids
    "m2m_100": ("seq2seq-lm", SEQ2SEQ | BART),  # sinusoids with an offset
}
CONFIGS = ENCODERS | DECODERS | SEQ2SEQS
EXPECTED = {
    "albert": "encoder.layers.2.attention.self_attention.query",
    "bert": "embedder.tok_type_emb",
    "bloom": "decoder.layers.1.attention.self_attention.bias",
    "deberta-v2": "encoder.convolution",
    "gemma2": "decoder.layers.0.attention.self_attention.softcap",
    "gpt_neox": "decoder.layers.0.attention.self_attention.query_rotated",
    "gpt_oss": "decoder.layers.0.intermediate.expert_weights",
    "granite": "head.scale",
    "mixtral": "decoder.layers.0.intermediate.experts",
    "mpnet": "encoder.layers.0.attention.self_attention.bias",
    "olmo2": "decoder.layers.0.output.branch_norm",
    "opt": "embedder.projection",
    "qwen3": "decoder.layers.0.attention.self_attention.q_norm",
    "t5": "decoder.layers.1.cross_attention.cross_attention.weights",
}
ROWS = [[5, 6, 7, 8, 9, 10, 12], [11, 12, 13]]


@cache
def model_of(name: str, dtype: torch.dtype = torch.float64) -> Any:
    head, config = CONFIGS[name]
    model: Any = minitx.from_config({"model_type": name, **config}, head=head, seed=0).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that every part changes the output
            noise = torch.Generator().manual_seed(parameter.numel())
            parameter += torch.empty_like(parameter).normal_(0.0, 0.2, generator=noise)
    return model


def traced(name: str, rows: Any, **options: Any) -> Any:
    if name in SEQ2SEQS:
        options.setdefault("target", [2, 14, 15, 16])
    return trace(model_of(name), rows, **options)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_step_agrees_with_float64(name: str) -> None:
    for rows in (ROWS, [ROWS[0]], [[5]]):
        result = traced(name, rows, check=True)
        assert result.ok
        assert result.difference <= 1e-9
        assert not result.unchecked
        parts = [step for step in result.walk() if not step.steps]
        unchecked = {step.name.rpartition(".")[2] for step in parts if step.difference is None}
        assert unchecked <= {"tokens", "ids", "answer"}
    if name in EXPECTED:
        assert result[EXPECTED[name]].equation
    text = str(traced(name, ROWS, depth=9))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["llama", "bert", "t5", "mixtral", "gemma2", "deberta-v2"])
def test_a_wrong_step_is_found(name: str) -> None:
    """A change of one module's arithmetic is found, at that module."""
    model = model_of(name)
    stack = model.get_submodule(model.families[-1])
    module = stack.layers[-1].output
    norm = next(m for m in reversed([*module.modules(), *model.modules()]) if hasattr(m, "eps"))
    hook = norm.register_forward_hook(lambda module, inputs, output: output * 1.001)
    try:
        result = traced(name, ROWS, check=True)
    finally:
        hook.remove()
    wrong = [step.name for step in result.walk() if (step.relative or 0.0) > 1e-9 and not step.steps]
    assert not result.ok
    assert len(wrong) == 1
    assert wrong[0].endswith("norm")
    assert "DIFFERENT" in str(result)


def test_masks_are_checked_against_the_rules() -> None:
    model = model_of("llama")
    stack = model.decoder
    build = stack.build_mask
    stack.build_mask = lambda *args, **options: (None, False)  # attends to later tokens
    try:
        result = trace(model, ROWS, check=True)
    finally:
        del stack.build_mask
    assert build == stack.build_mask
    wrong = {
        step.name.rpartition(".")[2]
        for step in result.walk()
        if (step.relative or 0) > 1e-9 and not step.steps
    }
    assert wrong == {"mask"}


def test_sums_of_parameters_and_operations() -> None:
    model = model_of("bert")
    result = trace(model, [ROWS[0]])
    tied = model.head.projection.weight.numel()
    assert sum(step.parameters for step in result.steps) == model.num_parameters() + tied
    layer = result["encoder.layers.0"]
    width, inner, time = 32, 48, 7
    products = (4 * width * width + 2 * width * inner) * time + 2 * width * time * time
    assert layer.flops == 2 * products
    assert layer.parameters == sum(p.numel() for p in model.encoder.layers[0].parameters())


def test_axes_have_names_and_sizes() -> None:
    result = trace(model_of("llama"), ROWS)
    steps = {name: result[f"decoder.layers.0.attention.self_attention.{name}"] for name in ("key", "weights")}
    assert dict(steps["weights"].axes) == {"batch": 2, "heads": 4, "queries": 7, "keys": 7}
    assert dict(steps["key"].axes) == {"batch": 2, "heads": 2, "tokens": 7, "head dim": 8}
    assert "sqrt(8)" in result["decoder.layers.0.attention.self_attention.scores"].equation


def test_the_largest_value_is_that_of_the_model() -> None:
    model = model_of("llama")
    result = trace(model, [ROWS[0]])
    with torch.inference_mode():
        logits = model(torch.tensor([ROWS[0]])).logits
    entry = result["head"].largest[0]
    assert entry.value == pytest.approx(float(logits.flatten()[logits.abs().argmax()]))
    _, token, word = torch.unravel_index(logits.abs().argmax(), logits.shape)
    assert entry.place == f"token {int(token)}, id {int(word)}"


def test_tracing_changes_nothing() -> None:
    model = model_of("llama")
    ids = torch.tensor([ROWS[0]])
    with torch.inference_mode():
        before = model(ids).logits
        trace(model, ids, check=True)
        assert torch.equal(model(ids).logits, before)
    assert not model.decoder.layers[0]._forward_pre_hooks
    assert all(step.difference is None for step in trace(model, ids).walk())


def test_parts_and_depth() -> None:
    result = trace(model_of("t5"), ROWS[0], target=[2, 14])
    part = result.at("decoder.layers.0.cross_attention")
    assert part.steps[0].name == "decoder.layers.0.cross_attention"
    assert "weights" in str(part)
    assert "weights" not in str(result)
    assert len(str(result.at("encoder", 1))) < len(str(result.at("encoder", 2)))
    assert all(step.name.startswith("encoder.") for step in result.at("encoder").steps)
    same = trace(model_of("t5"), ROWS[0], target=[2, 14], at="decoder.layers.0.cross_attention")
    assert str(same) == str(part)
    with pytest.raises(ArgumentValueError, match=r"at='decoder.layer.0'.*similar: decoder.layers.0"):
        result.at("decoder.layer.0")
    with pytest.raises(ArgumentTypeError, match="at=3"):
        result.at(3)
    with pytest.raises(ArgumentValueError, match="depth=0"):
        trace(model_of("bert"), ROWS[0], depth=0)


def test_json_holds_the_same_to_the_depth_shown() -> None:
    result = trace(model_of("gpt2"), [ROWS[0]], depth=2, check=True)
    plain = json.loads(json.dumps(result.to_json()))
    layer = next(step for step in plain["steps"] if step["name"] == "decoder.layers.0")
    assert [part["name"] for part in layer["steps"]] == [
        f"decoder.layers.0.{name}"
        for name in ("attention_norm", "attention", "feed_forward_norm", "intermediate", "output")
    ]
    assert all(part["steps"] == [] for part in layer["steps"])
    assert layer["axes"] == {"batch": 1, "tokens": 7, "width": 32}
    assert plain["ok"] is True


def test_lower_precision_is_held_to_its_own_rounding() -> None:
    for dtype, least in ((torch.float32, 1e-9), (torch.bfloat16, 1e-5)):
        result = trace(model_of("gemma2", dtype), ROWS, check=True)
        assert result.ok
        assert result.difference > least


def test_not_a_number_is_not_equal() -> None:
    model: Any = minitx.from_config({"model_type": "llama", **GROUPED}, head="causal-lm", seed=0).eval()
    with torch.no_grad():
        model.decoder.layers[1].intermediate.gate.weight[3, 5] = torch.nan
    result = trace(model, ROWS, check=True)
    assert not result.ok
    assert result["decoder.layers.0"].relative < 1e-4  # type: ignore[operator]
    assert result.difference == float("inf")
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (plain["ok"], plain["difference"]) == (False, None)


def test_an_unknown_module_is_named_and_not_taken_for_checked() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return 2 * x

    model = minitx.from_config({"model_type": "llama", **GROUPED}, head="causal-lm", seed=0).eval()
    model.decoder.layer_norm = Doubled()
    result = trace(model, ROWS[0], check=True)
    assert result.unchecked == ("decoder.layer_norm",)
    assert "not recomputed: decoder.layer_norm" in str(result).replace("\n", " ")


def test_wrong_arguments() -> None:
    model = model_of("bert")
    with pytest.raises(ArgumentTypeError, match="model=3"):
        trace(3, ROWS)  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="tokenizer="):
        trace(model, "a text")
    with pytest.raises(ArgumentValueError, match="target"):
        trace(model, ROWS, target=[3])
    with pytest.raises(ArgumentValueError, match="from 0 to 59"):
        trace(model, [99])
    model.train()
    try:
        with pytest.raises(ArgumentValueError, match="eval mode"):
            trace(model, ROWS)
    finally:
        model.eval()


@pytest.mark.parametrize("name", ["minitx/tiny-decoder", "minitx/tiny-seq2seq"])
def test_shipped_checkpoints(name: str) -> None:
    model = minitx.load(name, dtype="float64").eval()
    tokenizer = minitx.load_tokenizer(name)
    result = trace(model, "thought", tokenizer=tokenizer, check=True)
    assert result.ok
    assert result.difference <= 1e-9
    generated = minitx.generate(model, "thought", minitx.Greedy(), tokenizer=tokenizer, max_new_tokens=1)
    token = generated.sequences[0].tolist()[0]
    answer: Step = result["answer"]
    best = answer.note.partition(": ")[2].partition(" 0.")[0]
    assert best.strip("' ▁") == tokenizer.decode([token]).strip()


def test_adapters_are_part_of_the_equation() -> None:
    for dora in (False, True):
        model: Any = minitx.from_config({"model_type": "llama", **GROUPED}, head="causal-lm", seed=0)
        model = minitx.training.add_lora(model.double(), rank=2, dora=dora).eval()
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        result = trace(model, ROWS, check=True)
        assert result.difference <= 1e-9
        assert not result.unchecked
        assert "adapter" in result["decoder.layers.0.attention.self_attention.query"].equation


def test_an_encoder_of_another_width_is_projected() -> None:
    encoder = {"model_type": "bert", **SIZES}
    decoder = encoder | {"hidden_size": 16, "num_attention_heads": 2, "is_decoder": True}
    decoder |= {"add_cross_attention": True}
    config = {"model_type": "encoder-decoder", "encoder": encoder, "decoder": decoder}
    config |= {"decoder_start_token_id": 2, "pad_token_id": 0}
    model = minitx.from_config(config, head="seq2seq-lm", seed=0).double().eval()
    result = trace(model, ROWS, check=True)
    assert result.difference <= 1e-9
    assert dict(result["encoder_projection"].axes)["width"] == 16


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_heads_that_label_the_source_of_an_encoder_decoder(name: str) -> None:
    config = {"model_type": name, **CONFIGS[name][1], "eos_token_id": 13, "num_labels": 3}
    model = minitx.from_config(config, head="sequence-classification", seed=0).double().eval()
    result = trace(model, [[5, 6, 7, 13], [5, 6, 13]], check=True)
    assert result.difference <= 1e-9
    assert result["decoder.ids"].note == "2 5 6 7"
    assert dict(result["head"].axes) == {"batch": 2, "labels": 3}
    total = sum(step.flops for step in trace(model, [[5, 6, 7, 13]]).steps)
    assert total == estimate(model, length=4, new_tokens=9).forward_flops


def test_layers_of_another_class_are_refused() -> None:
    model: Any = minitx.from_config({"model_type": "llama", **GROUPED}, head="causal-lm", seed=0).eval()

    class Through(torch.nn.Module):
        def forward(self, hidden: Any, context: Any, *rest: Any) -> Any:
            return hidden

    model.decoder.layers[1] = Through()
    with pytest.raises(ArgumentValueError, match=r"model.decoder.layers\[1\]"):
        trace(model, ROWS)


def test_a_table_model_names_the_head_as_not_recomputed() -> None:
    config = {"model_type": "tapas", **SIZES, "type_vocab_sizes": [3, 8, 8, 2, 8, 8, 4]}
    model = minitx.from_config(config, head="table-question-answering", seed=0).double().eval()
    result = trace(model, ROWS[0], check=True)
    assert result.difference <= 1e-9
    assert result.unchecked == ("head",)
