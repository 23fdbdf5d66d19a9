"""A run in memory: the step, its gradients, and the numbers of a run that continues."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import minitx
from minitx.optimize import recompute_layers, undo_recompute_layers
from minitx.training import Distillation, Loss, Objective, Run, TrainConfig
from minitx.training.data.checksums import batch_checksum, tensor_checksum
from minitx.training.objectives.base import Batch
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.training.tiny import NextToken, Texts, assert_equal, parameters, tiny_gpt

# With 11 examples and steps of 6, steps end in the middle of an epoch.
OPTIONS: dict[str, Any] = {"steps": 10, "batch_size": 3, "accumulation": 2, "warmup_steps": 2}
NOISY = NextToken(noise=0.1)


def make_run(model: torch.nn.Module | None = None, data: Any = None, **options: Any) -> Run:
    return Run(model or tiny_gpt(), data or Texts(), NOISY, TrainConfig(**OPTIONS | options))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_ten_steps_are_five_and_five(optimizer: str) -> None:
    """Bit for bit, with dropout, random inputs and a schedule, in the middle of an epoch."""
    whole = make_run(optimizer=optimizer)
    losses = [whole.step().loss for _ in range(10)]
    first = make_run(optimizer=optimizer)
    begun = [first.step().loss for _ in range(5)]
    assert first.sampler.position != 0
    state = first.state()
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    torch.manual_seed(99)  # the global generator is no part of a run
    second = make_run(tiny_gpt(seed=1), optimizer=optimizer)
    second.step()  # whatever it did before
    second.load_state(type(state)(state.step, tensors, state.values))
    assert losses == begun + [second.step().loss for _ in range(5)]
    assert_equal(parameters(whole.model), parameters(second.model))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_step_that_ends_early_can_be_repeated(error: type[BaseException]) -> None:
    """In the middle of an accumulation: the same bits as without."""
    whole = make_run()
    for _ in range(4):
        whole.step()
    calls = 0

    def fail_once(index: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 17:  # the second micro-batch of the third step
            raise error

    run = make_run(data=Texts(act=fail_once))
    before = torch.get_rng_state()
    run.step()
    run.step()
    with pytest.raises(error):
        run.step()
    assert torch.equal(before, torch.get_rng_state())
    assert run.finished == 2
    assert all(p.grad is None for p in run.model.parameters())
    run.step()
    run.step()
    assert_equal(parameters(whole.model), parameters(run.model))


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulation_is_one_batch(parts: int) -> None:
    """Rows have different numbers of targets; every target has the same weight."""
    results = []
    for count in (1, parts):
        model = tiny_gpt(dropout=0.0, dtype=torch.float64)
        run = Run(
            model, Texts(), NextToken(), TrainConfig(steps=4, batch_size=6 // count, accumulation=count)
        )
        sums = [run.step() for _ in range(4)]
        results.append((parameters(model), [(s.loss, s.targets, s.tokens) for s in sums]))
    (left, ours), (right, theirs) = results
    assert all(torch.allclose(left[name], right[name], rtol=0, atol=1e-12) for name in left)
    assert [s[1:] for s in ours] == [s[1:] for s in theirs]
    assert ours[0][0] == pytest.approx(theirs[0][0], rel=1e-12)


def test_a_step_is_adamw_on_the_mean_loss() -> None:
    """Against torch's own optimizer, clipping and mean."""
    model, twin = tiny_gpt(0.0, torch.float64), tiny_gpt(0.0, torch.float64).train()
    config = TrainConfig(
        steps=5, batch_size=4, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5, schedule="constant"
    )
    run = Run(model, Texts(), NextToken(), config)
    decayed = [p for p in twin.parameters() if p.dim() > 1]
    others = [p for p in twin.parameters() if p.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, fused=False)
    twin_run = Run(twin, Texts(), NextToken(), config)
    for _ in range(5):
        examples = [twin_run.dataset[i] for i in twin_run.sampler.take(4)]
        loss = twin(**NextToken()(examples, torch.Generator())).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        sums = run.step()
        assert sums.loss / sums.targets == pytest.approx(loss.item(), rel=1e-9)
        assert run.gradient_norm == pytest.approx(norm.item(), rel=1e-9)
    left, right = parameters(model), parameters(twin)
    assert all(torch.allclose(left[name], right[name], rtol=0, atol=1e-9) for name in left)


def test_a_tiny_gpt_learns_a_text_that_repeats_itself() -> None:
    model = tiny_gpt()
    run = Run(model, Texts(), NextToken(), TrainConfig(steps=150, batch_size=4, learning_rate=5e-3))
    for _ in range(150):
        run.step()
    assert run.evaluate(Texts()) < 0.6  # the first tokens of a window cannot be known
    ids = Texts()[0]["input_ids"]
    with torch.no_grad():
        predicted = model.eval()(torch.tensor([ids])).logits.argmax(-1)[0].tolist()
    assert predicted[8:-1] == ids[9:]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "options", [{"precision": "bfloat16"}, {"compile": "eager"}, {"max_grad_norm": 0.0}], ids=str
)
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_the_loss_falls(optimizer: str, options: dict[str, Any]) -> None:
    run = make_run(optimizer=optimizer, learning_rate=3e-3, **options)
    losses = [(sums := run.step()).loss / sums.targets for _ in range(10)]
    assert losses[-1] < losses[0] - 0.3
    assert run.model.dtype == torch.float32


def test_recomputed_layers_have_the_same_gradients() -> None:
    """Of dropout too."""
    plain, recomputed = make_run(), make_run(recompute_layers(tiny_gpt()))
    names = str(recomputed.model)
    assert names == str(plain.model)
    for _ in range(3):
        assert plain.step().loss == recomputed.step().loss
    assert_equal(parameters(plain.model), parameters(recomputed.model))
    layer = recomputed.model.get_submodule("decoder.layers.0")
    assert type(layer) is not type(plain.model.get_submodule("decoder.layers.0"))
    undo_recompute_layers(recompute_layers(recomputed.model))
    assert type(layer) is type(plain.model.get_submodule("decoder.layers.0"))


def test_recomputed_layers_keep_fewer_activations() -> None:
    sizes = []
    for model in (tiny_gpt(), recompute_layers(tiny_gpt())):
        saved: list[int] = []

        def note(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        ids = torch.tensor([Texts()[0]["input_ids"]])
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.train()(ids, labels=ids)
        sizes.append(sum(saved))
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number(value: float) -> None:
    class Spoiled(NextToken):
        def loss(self, model: torch.nn.Module, batch: Batch) -> Loss:
            loss = super().loss(model, batch)
            return Loss(loss.total * value, loss.count)

    model = tiny_gpt()
    before = parameters(model)
    run = Run(model, Texts(), Spoiled(), TrainConfig(steps=2))
    with pytest.raises(FloatingPointError, match=r"loss of step 1 is infinite or NaN; .* after step 0"):
        run.step()
    assert_equal(before, parameters(model))
    with pytest.raises(FloatingPointError, match="evaluation loss after step 0"):
        run.evaluate(Texts())


def test_a_step_with_an_infinite_gradient_can_be_repeated() -> None:
    """Random states, position of the sampler and last batch are those before it."""
    whole, run, factors = make_run(), make_run(), [1.0, math.inf, 1.0]
    parameter = run.model.get_parameter("decoder.layer_norm.bias")
    run.step()
    parameter.register_hook(lambda gradient: gradient * factors[run.finished])
    last = run.state().values["last_batch"]
    with pytest.raises(FloatingPointError, match="gradient of step 2"):
        run.step()
    assert run.state().values["last_batch"] == last
    factors[1] = 1.0
    run.step()
    whole.step(), whole.step()
    assert_equal(parameters(whole.model), parameters(run.model))


def test_a_gradient_that_is_no_number() -> None:
    model = tiny_gpt()
    before = parameters(model)
    model.get_parameter("decoder.layer_norm.bias").register_hook(lambda grad: grad * math.inf)
    with pytest.raises(FloatingPointError, match="gradient of step 1"):
        make_run(model).step()
    assert_equal(before, parameters(model))


def test_evaluation_disturbs_nothing() -> None:
    plain, evaluated = make_run(), make_run()
    found = []
    for _ in range(4):
        plain.step()
        evaluated.step()
        found.append(evaluated.evaluate(Texts(7)))
        assert evaluated.model.training
    assert_equal(parameters(plain.model), parameters(evaluated.model))
    assert found == sorted(found, reverse=True)
    assert found[-1] == evaluated.evaluate(Texts(7))  # the same noise
    assert evaluated.best == (4, found[-1])
    assert evaluated.worse == 1


class Unlabelled(NextToken):
    def __call__(self, examples: Any, generator: torch.Generator) -> Batch:
        batch = super().__call__(examples, generator)
        return batch | {"labels": torch.full_like(batch["labels"], -100)}


def test_errors() -> None:
    with pytest.raises(ArgumentValueError, match="the dataset has no examples"):
        Run(tiny_gpt(), Texts(0), NOISY, TrainConfig(steps=1))
    with pytest.raises(ArgumentTypeError, match="objective"):
        Run(tiny_gpt(), Texts(), lambda: None, TrainConfig(steps=1))  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="config"):
        Run(tiny_gpt(), Texts(), NOISY, {"steps": 1})  # type: ignore[arg-type]
    with pytest.raises(ArgumentValueError, match="require gradients"):
        make_run(tiny_gpt().requires_grad_(False))
    run = Run(tiny_gpt(), Texts(), Unlabelled(), TrainConfig(steps=1))
    with pytest.raises(ArgumentValueError, match="at least one target in step 1"):
        run.step()
    with pytest.raises(ArgumentValueError, match="all labels are -100"):
        run.evaluate(Texts())
    with pytest.raises(ArgumentValueError, match="head="):
        make_run(minitx.DecoderModel(tiny_gpt().config)).step()


def test_a_micro_batch_without_targets_adds_nothing() -> None:
    class First(NextToken):
        def __call__(self, examples: Any, generator: torch.Generator) -> Batch:
            batch = super().__call__(examples, generator)
            if examples[0]["input_ids"] == Texts()[0]["input_ids"]:
                batch["labels"].fill_(-100)
            return batch

    run = Run(tiny_gpt(), Texts(2), First(), TrainConfig(steps=1, batch_size=1, accumulation=2))
    sums = run.step()
    assert 0 < sums.targets < 20
    assert math.isfinite(sums.loss)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_errors_name_the_step_and_the_examples() -> None:
    class Wrong(NextToken):
        def __call__(self, examples: Any, generator: torch.Generator) -> Batch:
            batch = super().__call__(examples, generator)
            return batch | {"labels": batch["labels"] + 64}

    run = Run(tiny_gpt(), Texts(), Wrong(), TrainConfig(steps=1, batch_size=2))
    with pytest.raises(ArgumentValueError, match="must be from 0 to 63, or -100 to ignore") as caught:
        run.step()
    first = make_run().sampler.take(2)
    assert caught.value.__notes__ == [f"In step 1, with the examples {first} of the dataset."]


def test_gradients_of_before_do_not_count() -> None:
    model, twin = tiny_gpt(), tiny_gpt()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    make_run(model).step()
    make_run(twin).step()
    assert_equal(parameters(model), parameters(twin))


def test_parameters_that_are_not_trained_belong_to_the_run() -> None:
    def frozen(**options: Any) -> torch.nn.Module:
        model = tiny_gpt(**options)
        model.get_submodule("embedder").requires_grad_(False)
        return model

    state = make_run(frozen()).state()
    assert not any("embedder" in name for name in state.tensors)
    make_run(frozen()).load_state(state)
    with pytest.raises(ValueError, match="the frozen parameters differ"):
        make_run(frozen(seed=1)).load_state(state)


def test_state_of_another_run() -> None:
    state = make_run().state()
    with pytest.raises(ArgumentValueError, match="11 examples"):
        make_run(data=Texts(9)).load_state(state)
    with pytest.raises(ArgumentValueError, match="seed"):
        make_run(seed=1).load_state(state)
    for options, message in (
        ({"n_layer": 1}, "only the checkpoint has 'decoder.layers.1"),
        ({"n_layer": 3}, "only the model has 'decoder.layers.2"),
        ({"vocab_size": 65}, r"has shape \(64, 32\)"),
    ):
        run = make_run(tiny_gpt(**options))
        before = parameters(run.model)
        with pytest.raises(ValueError, match=message):
            run.load_state(state)
        assert_equal(before, parameters(run.model))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_state_of_the_optimizer_that_is_missing(optimizer: str) -> None:
    """A parameter that had no gradient yet has none; that of any other is needed."""

    def unused() -> Run:
        model = tiny_gpt()
        model.decoder.layers[0].register_parameter("unused", torch.nn.Parameter(torch.ones(2, 2)))
        return make_run(model, optimizer=optimizer)

    run = unused()
    run.step()
    state = run.state()
    assert state.values["stateless"] == ["decoder.layers.0.unused"]
    unused().load_state(state)
    name = "decoder.layers.1.output.dense.weight"
    tensors = {
        key: tensor
        for key, tensor in state.tensors.items()
        if not (key.startswith("optimizer.") and key.endswith(name))
    }
    with pytest.raises(ValueError, match=f"no state of the optimizer for '{name}'"):
        unused().load_state(type(state)(state.step, tensors, state.values))


def test_another_objective() -> None:
    """Its class, an option, or an option of the objective in it."""
    run = make_run()
    run.step()
    state = run.state()

    def load(objective: Objective) -> None:
        Run(tiny_gpt(), Texts(), objective, TrainConfig(**OPTIONS)).load_state(state)

    load(NextToken(noise=0.1))
    with pytest.raises(ArgumentValueError, match=r"objective\.noise=0\.2 must be 0\.1, as in the"):
        load(NextToken(noise=0.2))
    with pytest.raises(ArgumentValueError, match="objective='Unlabelled' must be 'NextToken', as in"):
        load(Unlabelled(noise=0.1))
    soft = Distillation(NextToken(), tiny_gpt().eval())
    options = {"temperature": 2.0, "hard_weight": 0.5, "objective.noise": 0.0}
    assert soft.options() == {"objective": "Distillation", "objective.objective": "NextToken", **options}


def test_other_data_of_the_same_size() -> None:
    run = make_run()
    state = run.state()
    make_run(data=[{"input_ids": [1, 2, 3]}] * 11).load_state(state)  # nothing depends on it yet
    run.step()
    state = run.state()
    other = make_run(data=[{"input_ids": [1, 2, 3]}] * 11)
    before = parameters(other.model)
    with pytest.raises(ValueError, match=r"of other data: the examples \[.*\] of the dataset give"):
        other.load_state(state)
    assert_equal(before, parameters(other.model))
    again = make_run(batch_size=2, accumulation=1)
    again.load_state(state)  # batches may have another size
    assert again.state().values["last_batch"] == state.values["last_batch"]


@given(st.integers(1, 4), st.integers(1, 40), st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_checksums_of_tensors(rows: int, columns: int, dtype: torch.dtype) -> None:
    """One value differs, also where all of a row are alike."""
    tensor = torch.zeros(rows, columns, dtype=dtype)
    other = tensor + 1
    assert tensor_checksum(tensor) != tensor_checksum(other)
    assert tensor_checksum(tensor) == tensor_checksum(tensor.T.contiguous().T)
    assert tensor_checksum(tensor) != tensor_checksum(tensor[None])
    changed = tensor.clone()
    changed[-1, -1] = 1
    assert tensor_checksum(tensor) != tensor_checksum(changed)
    assert batch_checksum({"a": tensor}) != batch_checksum({"a": changed})
    assert batch_checksum({"a": tensor}) != batch_checksum({"b": tensor})
