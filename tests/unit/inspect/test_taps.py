"""Values inside a model: each can be recorded and replaced, in every family, with a cache and without."""

from __future__ import annotations

import contextlib
import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx import Beam, Greedy, Sample, Stop
from minitx.inspect import ablate, freeze, patch, record, steer, tap
from minitx.models.taps import match_places, scope_of

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
SEQ2SEQ: dict[str, Any] = {"vocab_size": 60, "d_model": 32, "decoder_start_token_id": 2}
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
BART |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **SIZES},
    "albert": {"model_type": "albert", **SIZES, "num_hidden_layers": 3, "embedding_size": 16},
    "deberta": {
        "model_type": "deberta-v2",
        **SIZES,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
    },
    "llama": {"model_type": "llama", **GROUPED},
    "mistral": {"model_type": "mistral", **GROUPED, "sliding_window": 6},
    "mixtral": {"model_type": "mixtral", **GROUPED, "num_local_experts": 4},
    "gpt_oss": {"model_type": "gpt_oss", **GROUPED, "num_local_experts": 4, "head_dim": 8},
    "gpt_neox": {"model_type": "gpt_neox", **SIZES},
    "bloom": {"model_type": "bloom", "n_layer": 2, "n_head": 4, "hidden_size": 32, "vocab_size": 60},
    "t5": {"model_type": "t5", **SEQ2SEQ, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "bart": {
        "model_type": "bart",
        **SEQ2SEQ,
        **BART,
    },
}
ENCODERS, SEQ2SEQS = ("bert", "albert", "deberta"), ("t5", "bart")
DECODERS = [name for name in CONFIGS if name not in ENCODERS]
PROMPTS = [[5, 6, 7, 8, 9, 10, 12, 30], [11, 12, 13]]
NO_END = Stop(eos=())
IDS = torch.tensor([[5, 6, 7, 8, 9], [20, 21, 22, 23, 24]])
OTHER = torch.tensor([[30, 31, 32, 33, 34], [40, 41, 42, 43, 44]])
every = pytest.mark.parametrize("name", CONFIGS)
every_decoder = pytest.mark.parametrize("name", DECODERS)


@cache
def model_of(name: str) -> Any:
    head = "masked-lm" if name in ENCODERS else "seq2seq-lm" if name in SEQ2SEQS else "causal-lm"
    model: Any = minitx.from_config(CONFIGS[name], head=head, seed=0).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # so that every part changes the output
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def run(model: Any, ids: Tensor, **options: Any) -> Any:
    if isinstance(model, minitx.EncoderDecoderModel):
        options |= {"decoder_input_ids": ids[:, :4]}
    with torch.inference_mode():
        return model(ids, **options)


def ids_of(result: minitx.Result) -> list[list[int]]:
    return [row.tokens.tolist() for row in result]


@every
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_recording_everything_changes_nothing(name: str, attention: str) -> None:
    model = model_of(name).set_attention(attention)
    plain = run(model, IDS, output_hidden_states=True, output_attentions=True)
    with record(model, "**") as seen:
        output = run(model, IDS)
    assert torch.equal(output.logits, plain.logits)
    assert [*seen] == model.taps()
    stack, prefix = model.families[-1], "decoder_" if name in SEQ2SEQS else ""
    for layer, weights in enumerate(getattr(plain, f"{prefix}attentions")):
        path = f"{stack}.layers.{layer}"
        torch.testing.assert_close(seen[f"{path}.attention.self_attention.weights"], weights)
        assert torch.equal(seen[f"{path}.residual.before"], getattr(plain, f"{prefix}hidden_states")[layer])
        if name in SEQ2SEQS:
            cross = seen[f"{path}.cross_attention.cross_attention.weights"]
            torch.testing.assert_close(cross, plain.cross_attentions[layer])
    assert torch.equal(seen["logits"], plain.logits)
    assert scope_of(model) is None
    model.set_attention("sdpa")


@every
def test_a_value_in_its_own_place_is_the_identity(name: str) -> None:
    """Each alone and all together, bit for bit."""
    model = model_of(name)
    with record(model, "**") as seen:
        plain = run(model, IDS)
    for place in [*([place] for place in seen), [*seen]]:
        with patch(model, place, seen):
            assert torch.equal(run(model, IDS).logits, plain.logits), place


@every
def test_values_of_another_run(name: str) -> None:
    """The residual stream of another run leads to its outputs; a row that is not chosen keeps its own."""
    model = model_of(name)
    sides = model.families
    with record(model, *(f"{side}.layers.0.residual.after" for side in sides)) as seen:
        other = run(model, OTHER)
    plain = run(model, IDS)
    with patch(model, [*seen], seen):
        assert torch.equal(run(model, IDS).logits, other.logits)
    with patch(model, [*seen], seen, rows=[1]):
        logits = run(model, IDS).logits
    torch.testing.assert_close(logits, torch.stack((plain.logits[0], other.logits[1])))


@every
def test_scores_and_weights_by_hand(name: str) -> None:
    """The recorded steps fit together: softmax, the sum of the values, and the output projection."""
    model = model_of(name)
    with record(model, "**") as seen:
        run(model, IDS)
    for place in model.taps("**.weights"):
        path = place.removesuffix(".weights")
        module = next(x.module for x in match_places(model, place))
        scores, weights, value = (seen[f"{path}.{step}"] for step in ("scores", "weights", "value"))
        if getattr(module, "sinks", None) is None:
            torch.testing.assert_close(scores.softmax(dim=-1), weights)
        value = value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)
        torch.testing.assert_close(weights @ value, seen[f"{path}.mixed"])


@every
@pytest.mark.parametrize("step", ["scores", "weights"])
def test_replaced_weights_are_used(name: str, step: str) -> None:
    """A mask for one key, in one row only: every query of that row attends to the first key."""
    model = model_of(name)
    plain = run(model, IDS).logits
    stack = model.families[-1]
    path = f"{stack}.layers.0.attention.self_attention"

    def first_key(x: Tensor, call: Any) -> Tensor:
        chosen = torch.zeros_like(x) if step == "weights" else torch.full_like(x, -torch.inf)
        chosen[..., 0] = 1.0 if step == "weights" else 0.0
        return torch.where(torch.tensor([True, False])[:, None, None, None], chosen, x)

    names = (f"{path}.value", f"{path}.mixed")
    with tap(model, f"{path}.{step}", first_key), record(model, *names) as seen:
        logits = run(model, IDS).logits
    value, mixed = (seen[name] for name in names)
    value = value.repeat_interleave(mixed.shape[1] // value.shape[1], dim=1)
    if name != "gpt_oss" or step == "weights":  # a sink takes a part of the scores
        torch.testing.assert_close(mixed[0], value[0, :, :1].expand_as(mixed[0]))
    torch.testing.assert_close(logits[1], plain[1])
    assert not torch.allclose(logits[0], plain[0])


@every_decoder
@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_ablation_in_generation(name: str, mode: str) -> None:
    """With a cache, in a padded batch, each prompt continues as alone without a cache; also in one row."""
    model = model_of(name)
    options: dict[str, Any] = {"heads": {0: [1], 1: [0, 3]}, "mode": mode}
    if mode != "zero":
        with record(model, "**.mixed") as reference:
            run(model, OTHER)
        options["reference"] = reference
    more: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END}
    plain = ids_of(minitx.generate(model, PROMPTS, Greedy(), **more))
    with ablate(model, **options):
        together = ids_of(minitx.generate(model, PROMPTS, Greedy(), **more))
        chunked = ids_of(minitx.generate(model, PROMPTS, Greedy(), **more, prefill_chunk=3))
        alone = [uncached(model, prompt, row) for row, prompt in enumerate(PROMPTS)]
    assert together == chunked == alone
    assert together != plain
    with ablate(model, **options, rows=[1]):
        assert ids_of(minitx.generate(model, PROMPTS, Greedy(), **more)) == [plain[0], together[1]]


def uncached(model: Any, prompt: list[int], row: int) -> list[int]:
    """Six greedy tokens without a cache, the prompt as this row of a batch of equal ones."""
    source = torch.tensor([prompt] * (row + 1))
    ids = source if model.prefix == "" else source.new_full((row + 1, 1), model.config.decoder_start_token_id)
    start = ids.shape[1]
    for _ in range(6):
        with torch.inference_mode():
            output = model(ids) if model.prefix == "" else model(source, decoder_input_ids=ids)
        ids = torch.cat((ids, output.logits[:, -1:].argmax(dim=-1)), dim=1)
    return ids[row, start:].tolist()  # type: ignore[no-any-return]


@every_decoder
@pytest.mark.parametrize("strategy", [Beam(num_beams=3), Sample()], ids=lambda x: type(x).__name__)
def test_ablation_of_one_prompt_among_beams_and_samples(name: str, strategy: Any) -> None:
    model = model_of(name)
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END, "num_samples": 2}
    options |= {"seed": 3} if isinstance(strategy, Sample) else {}
    plain = ids_of(minitx.generate(model, PROMPTS, strategy, **options))
    heads = {0: [0, 1, 2], 1: [0, 3]}
    with ablate(model, heads=heads):
        everywhere = ids_of(minitx.generate(model, PROMPTS, strategy, **options))
    with ablate(model, heads=heads, rows=[1]):
        assert ids_of(minitx.generate(model, PROMPTS, strategy, **options)) == plain[:2] + everywhere[2:]
    assert everywhere[2:] != plain[2:]


@every_decoder
def test_positions_are_those_of_the_row(name: str) -> None:
    """In a cached, padded generation, position 4 of a row is its fifth token, prompt and new tokens alike."""
    model = model_of(name)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    more: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END}
    with steer(model, vector, 0, 3.0, positions=[2, 4, 5]):
        together = ids_of(minitx.generate(model, PROMPTS, Greedy(), **more))
        assert together == [uncached(model, prompt, row) for row, prompt in enumerate(PROMPTS)]


@every_decoder
def test_records_of_a_generation(name: str) -> None:
    """The calls of prefill and steps, joined, are the values of one forward over all tokens."""
    model = model_of(name)
    prompt = PROMPTS[:1]
    names = ["**.residual.after", "**.self_attention.query", "**.self_attention.value"]
    with record(model, *names, "logits") as seen:
        result = minitx.generate(model, prompt, Greedy(), max_new_tokens=5, stop=NO_END)
    new = result[0].tokens[:-1].tolist()
    with record(model, *names, "logits") as whole, torch.inference_mode():
        if name in SEQ2SEQS:
            start = model.config.decoder_start_token_id
            model(torch.tensor(prompt), decoder_input_ids=torch.tensor([[start, *new]]))
        else:
            model(torch.tensor([prompt[0] + new]))
    for place in whole:
        expected = whole[place][:, -seen[place].shape[1] :] if place == "logits" else whole[place]
        torch.testing.assert_close(seen[place], expected)


def test_edits_compose_in_the_order_in_which_they_begin() -> None:
    model = model_of("llama")
    place = "decoder.layers.0.residual.after"
    plain = run(model, IDS).logits
    with (
        record(model, place) as before,
        tap(model, place, lambda x, call: x + 1),
        tap(model, place, lambda x, call: x * 2),
        record(model, place) as after,
    ):
        run(model, IDS)
    torch.testing.assert_close(after[place], (before[place] + 1) * 2)
    assert torch.equal(run(model, IDS).logits, plain)


def test_an_error_inside_removes_the_edits() -> None:
    model = model_of("bert")
    plain = run(model, IDS).logits
    with pytest.raises(RuntimeError, match="stop"), ablate(model, heads={0: [0]}):
        raise RuntimeError("stop")
    assert torch.equal(run(model, IDS).logits, plain)
    assert scope_of(model) is None
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks or "attend" in vars(m)]
    assert not hooks


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gpt_oss", "deberta"])
def test_gradients(name: str) -> None:
    """Each gradient is the one that a small change of the value has, of scores and weights too."""
    model = model_of(name)
    patterns = ["**.weights", "**.scores", "**.mixed", "**.residual.after"]
    options = {"decoder_input_ids": IDS[:, :4]} if name == "t5" else {}

    def loss() -> Tensor:
        logits: Tensor = model(IDS, **options).logits
        return logits[:, -1, 7].sum()

    with record(model, *patterns, gradients=True) as seen:
        loss().backward()
    generator = torch.Generator().manual_seed(1)
    for place in seen:
        value, gradient = seen[place], seen[place].grad
        assert gradient is not None, place
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if place.endswith("scores"):
            direction = direction.masked_fill(value < -1e30, 0.0)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                with patch(model, place, value.detach() + sign * 1e-6 * direction):
                    ends.append(loss())
        expected = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-4, atol=1e-6)


def test_freeze_holds_the_first_or_recorded_values() -> None:
    model = model_of("bert")
    with record(model, "**.weights") as seen:
        run(model, OTHER)
    with freeze(model, "**.weights", seen), record(model, "**.weights") as frozen:
        run(model, IDS)
    with freeze(model, "**.weights"):
        run(model, OTHER)
        with record(model, "**.weights") as second:
            run(model, IDS)
    for place in seen:
        assert torch.equal(frozen[place], seen[place])
        assert torch.equal(second[place], seen[place])


def test_routing_can_be_chosen() -> None:
    """All tokens go to expert 2."""
    model = model_of("mixtral")
    with (
        patch(model, "**.expert_indices", torch.full((1, 1, 1), 2)),
        record(model, "**.expert_indices") as seen,
    ):
        logits = run(model, IDS).logits
    assert all(bool((value == 2).all()) for value in seen.values())
    assert not torch.allclose(logits, run(model, IDS).logits)


def test_compiled_models_run_uncompiled_while_they_are_tapped() -> None:
    model: Any = minitx.from_config(CONFIGS["llama"], head="causal-lm", seed=0).eval()
    plain = run(model, IDS).logits
    model.compile(backend="eager")
    with ablate(model, heads={0: [1]}):
        assert not torch.allclose(run(model, IDS).logits, plain)
    assert torch.equal(run(model, IDS).logits, plain)
    with pytest.raises(TypeError, match="_orig_mod"), record(torch.compile(model, backend="eager"), "**"):
        pass


WRONG: list[tuple[Any, str]] = [
    (lambda m: record(m, "decoder.layers.0.weight"), r"names='decoder.layers.0.weight'.*similar: "),
    (lambda m: record(m, "**.nothing"), r"names='\*\*.nothing' must be the name of a place"),
    (lambda m: record(m), r"names=\(\) must be at least one name"),
    (lambda m: record(m, 3), "names=3 must be the name of a place, or a pattern"),
    (lambda m: record("m", "**"), "model='m' must be a model of minitx"),
    (lambda m: ablate(m), r"names=\(\) must be names of places, or heads"),
    (lambda m: ablate(m, heads={2: [0]}), "heads=2 must be from -2 to 1; the decoder runs 2 layers"),
    (lambda m: ablate(m, heads={0: [4]}), r"heads=\[4\] must be from 0 to 3"),
    (lambda m: ablate(m, heads=[1]), "heads=.* must be a dict from layers to heads"),
    (lambda m: ablate(m, heads={0: [0]}, mode="mean"), "reference=None must be a Record for mode='mean'"),
    (lambda m: ablate(m, heads={0: [0]}, mode="all"), "mode='all' must be"),
    (lambda m: ablate(m, "**.mixed", features=[9]), r"features=\[9\] must be from 0 to 7"),
    (lambda m: steer(m, torch.zeros(3), 0), r"vector=.* must be of shape \(32,\)"),
    (lambda m: steer(m, torch.zeros(32), 5), "layer=5 must be from -2 to 1"),
    (lambda m: patch(m, "logits", torch.zeros(2, 3)), "the value for logits=.* must be of a shape"),
    (lambda m: patch(m, "logits", "x"), "value='x' must be a Record, a tensor or a number"),
    (lambda m: patch(m, "logits", 0.0, heads=[0]), r"heads=\[0\] must be None, since logits is not per head"),
    (lambda m: patch(m, "logits", 0.0, rows=3), "rows=3 must be a collection of integers"),
    (
        lambda m: tap(m, "logits", lambda x, call: x[:, :1]),
        "replacement of logits=.* must be a tensor of",
    ),
    (lambda m: tap(m, "logits", 3), "function=3 must be a function"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=range(len(WRONG)))
def test_mistakes(make: Any, message: str) -> None:
    model = model_of("llama")
    with pytest.raises((ValueError, TypeError), match=message), make(model):
        run(model, IDS)
    assert scope_of(model) is None


def test_an_edit_without_effect_is_an_error() -> None:
    """A layer whose attention never computes weights."""
    model: Any = minitx.from_config(CONFIGS["llama"], head="causal-lm", seed=0).eval()
    model.decoder.layers[0].attention.forward = lambda normed, hidden, *others: hidden
    message = "weights was not computed, though the model ran"
    with pytest.raises(ValueError, match=message), patch(model, "**.0.**.weights", 0.0):
        run(model, IDS)


@pytest.mark.parametrize("fails", [False, True])
@every
def test_nothing_of_a_tap_remains(name: str, fails: bool) -> None:
    """Neither hooks nor attributes: a model without taps runs the code of its classes."""

    def _state(model: Any) -> list[Any]:
        return [(id(module), {**vars(module)}, {**module._forward_hooks}) for module in model.modules()]

    model = model_of(name)
    before = _state(model)
    with contextlib.suppress(KeyError), record(model, "**"), ablate(model, heads={0: [1]}):
        run(model, IDS)
        if fails:
            raise KeyError
    assert _state(model) == before


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_a_model_without_taps_compiles_as_one_graph(name: str) -> None:
    model = copy.deepcopy(model_of(name))
    expected = run(model, IDS).logits
    with record(model, "**"):
        run(model, IDS)
    torch._dynamo.reset()
    whole = torch.compile(model, fullgraph=True, backend="eager")  # an error if the graph breaks
    with torch.no_grad():
        target = {"decoder_input_ids": IDS[:, :4]} if name in SEQ2SEQS else {}
        logits = whole(IDS, **target).logits
    assert torch.allclose(logits, expected, rtol=0, atol=1e-12)
