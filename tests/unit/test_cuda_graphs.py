"""The steps of fixed shapes that CUDA graphs record give what plain steps give; run here without graphs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib import import_module
from threading import Barrier
from time import sleep
from typing import Any
from unittest.mock import Mock

import pytest
import torch

import minitx
from minitx import Beam, Greedy, Sample, Stop
from minitx.optimize import cuda_graphs, undo_cuda_graphs, undo_unpadded, unpadded
from minitx.optimize.graphs.model import static_steps, undo_static_steps
from minitx.optimize.graphs.step import GraphStep, StaticStep
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.fake_cuda import fake_cuda, on_cuda
from tests.unit.test_devices import FIRST, small, tasks

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 15, 16, 17]]
DECODERS = [name for name in FIRST if "causal-lm" in tasks(name)]


class Counted(StaticStep):
    """Counts its steps."""

    runs = 0

    def run(self, model: Any, length: int) -> Any:
        Counted.runs += 1
        return super().run(model, length)


def decoder(model_type: str, **more: Any) -> Any:
    model = small(model_type, "causal-lm", **more).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def both(
    model: Any,
    strategy: Any = Greedy(),  # noqa: B008
    prompts: Any = PROMPTS,
    **options: Any,
) -> tuple[Any, Any, int]:
    """The results of the plain model and of its fixed steps, and the number of these."""
    options = {"max_new_tokens": 20, "stop": Stop(eos=()), **options}
    plain = minitx.generate(model, prompts, strategy, **options)
    static_steps(model, Counted)
    Counted.runs = 0
    fixed = minitx.generate(model, prompts, strategy, **options)
    return plain, fixed, Counted.runs


@pytest.mark.parametrize("model_type", DECODERS)
def test_steps_are_those_of_the_plain_model(model_type: str) -> None:
    """Rows are padded, windows are left, and rings are filled several times."""
    model = decoder(model_type)
    if model_type == "mistral":  # with a window in all layers, padded rows take the plain path
        assert both(decoder(model_type))[2] == 0
    prompts = PROMPTS[:1] * 2 if model_type == "mistral" else PROMPTS
    plain, fixed, runs = both(model, prompts=prompts, logprobs="raw", top_logprobs=1)
    assert runs == 19
    for a, b in zip(plain, fixed, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        torch.testing.assert_close(a.logprobs, b.logprobs, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        (Sample(top_k=20, repetition_penalty=1.2, mirostat=(5.0, 0.1)), {"seed": 1, "num_samples": 2}),
        (Beam(num_beams=3), {"num_samples": 2}),
        (Beam(num_beams=2, early_stopping=True), {"stop": Stop(eos=[*range(20, 60)])}),
    ],
    ids=["sample", "beam", "leaving"],
)
def test_strategies_are_those_of_the_plain_model(strategy: Any, more: dict[str, Any]) -> None:
    plain, fixed, runs = both(decoder("llama"), strategy, **more)
    assert runs > 0
    for a, b in zip(plain, fixed, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt_oss", "bloom", "mixtral"])
def test_a_step_can_be_recorded(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a graph is recorded, nothing may be read or copied from the CPU."""
    model = static_steps(small(model_type, "causal-lm"), StaticStep)
    built = Mock(is_current=lambda: True, is_watched=lambda: False, has_experts=False)
    monkeypatch.setattr("minitx.optimize.graphs.model.Built", lambda model: built)  # it reads addresses
    reading, compute, computed = import_module("minitx.decoding.loop"), StaticStep.compute, []
    monkeypatch.setattr(reading, "read", lambda tensors: [[3] * len(tensor) for tensor in tensors])
    with fake_cuda() as waits:

        def _compute(self: Any, model: Any) -> Any:
            waits.on = bool(computed)  # the first run is not recorded
            computed.append(compute(self, model))
            waits.on = False
            return computed[-1]

        monkeypatch.setattr(StaticStep, "compute", _compute)
        minitx.generate(on_cuda(model), PROMPTS, Greedy(), max_new_tokens=3)
    assert waits.places == []
    assert len(computed) == 2


def test_two_generations_share_a_step_without_mixing() -> None:
    model = decoder("mistral")
    options: dict[str, Any] = {"max_new_tokens": 12, "stop": Stop(eos=())}
    expected = [minitx.generate(model, [row], Greedy(), **options)[0].tokens.tolist() for row in PROMPTS[:2]]
    static_steps(model, Counted)
    streams = [minitx.stream(model, [row], Greedy(), **options) for row in PROMPTS[:2]]
    written: list[list[int]] = [[], []]
    for _ in range(12):
        for number, stream in enumerate(streams):
            written[number].append(next(stream).token)
    assert written == expected
    assert len(model.graph_steps.steps) == 1


def test_slots_that_were_never_filled_are_not_read() -> None:
    """Memory that is not cleared may hold NaN, and the weight 0 times NaN is NaN."""
    model = decoder("mistral")
    ids = torch.tensor([[5, 6, 7]])
    written = []
    for each in (model, static_steps(copy.deepcopy(model), Counted)):
        Counted.runs = 0
        with torch.inference_mode():
            cache = each.make_cache(12)
            each(ids, cache=cache)
            for layer in cache.layers:
                assert layer.size > 3
                layer.key[:, :, 3:], layer.value[:, :, 3:] = torch.nan, torch.nan
            written.append([each(ids[:, :1], cache=cache).logits for _ in range(2)])
    assert Counted.runs == 2
    torch.testing.assert_close(written[1], written[0], atol=1e-9, rtol=0.0)


@pytest.mark.parametrize("strategy", [Greedy(), Beam(num_beams=2)], ids=["greedy", "beam"])
def test_threads_do_not_mix(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads meet before each step, and a step gives way to the other one in its midst."""
    model = decoder("llama")
    options: dict[str, Any] = {"max_new_tokens": 8, "stop": Stop(eos=())}
    prompts = [[[5, 6, 7]], [[12, 13, 14]]]
    expected = [minitx.generate(model, prompt, strategy, **options)[0].tokens.tolist() for prompt in prompts]
    static_steps(model, StaticStep)
    embed, forward = model.embedder.forward, model.forward
    meet = Barrier(2, timeout=20)

    def _forward(*inputs: Any, **more: Any) -> Any:
        meet.wait()
        return forward(*inputs, **more)

    def _embed(*inputs: Any, **more: Any) -> Any:
        sleep(0.005)
        return embed(*inputs, **more)

    monkeypatch.setattr(model, "forward", _forward)
    monkeypatch.setattr(model.embedder, "forward", _embed)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(minitx.generate, model, prompt, strategy, **options) for prompt in prompts]
    assert [run.result()[0].tokens.tolist() for run in runs] == expected


def test_a_step_serves_one_thread_while_its_cache_lives() -> None:
    """Between two steps of one thread, its cache may not move: a search reorders the rows of it."""
    model, ids = static_steps(decoder("llama"), StaticStep), torch.tensor([[5]])

    def start() -> Any:
        with torch.inference_mode():
            cache = model.make_cache(9)
            model(torch.tensor([[5, 6, 7]]), cache=cache)
            model(ids, cache=cache)
        return cache

    cache = start()
    key = cache.layers[0].key
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(start).result()
        assert len(model.graph_steps.steps) == 2
        assert cache.layers[0].key is key
        with torch.inference_mode():
            model(ids, cache=other)  # from another thread: it stays in its step
        assert len(model.graph_steps.steps) == 2
        del cache
        pool.submit(start).result()
        assert len(model.graph_steps.steps) == 2


def test_other_weights_are_another_step() -> None:
    model, options = decoder("gpt2"), {"max_new_tokens": 6, "stop": Stop(eos=())}
    static_steps(model, Counted)
    minitx.generate(model, PROMPTS, Greedy(), **options)  # type: ignore[arg-type]
    (first,) = model.graph_steps.steps.values()
    minitx.generate(model, PROMPTS, Greedy(), **options)  # type: ignore[arg-type]
    assert [*model.graph_steps.steps.values()] == [first]
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    minitx.generate(model, PROMPTS, Greedy(), **options)  # type: ignore[arg-type]
    (second,) = model.graph_steps.steps.values()
    assert second is not first
    for batch in range(1, 7):
        minitx.generate(model, PROMPTS[:1] * batch, Greedy(), **options)  # type: ignore[arg-type]
    assert len(model.graph_steps.steps) == 4


def test_what_takes_the_plain_path() -> None:
    model = static_steps(decoder("llama"), Counted)
    ids = torch.tensor([[5, 6, 7]])
    options: dict[str, Any] = {"max_new_tokens": 4, "stop": Stop(eos=())}

    def runs(**more: Any) -> int:
        Counted.runs = 0
        minitx.generate(model, PROMPTS, Greedy(), **{**options, **more})
        return Counted.runs

    assert runs() == 3
    hook = model.decoder.layers[0].register_forward_hook(lambda *_: None)
    assert runs() == 0
    hook.remove()
    assert runs(max_new_tokens=2**14 + 1, stop=Stop(eos=(), repetition=(40, 2), seconds=0.01)) == 0
    Counted.runs = 0
    cache = model.make_cache(9)
    for start in range(2):  # with gradients
        model(ids[:, start : start + 1], cache=cache)
    with torch.inference_mode():
        cache = model.make_cache(9)
        model(ids, cache=cache)
        model(ids[:, :1], cache=cache, output_hidden_states=True)
        model(ids, cache=cache)
        assert Counted.runs == 0
        model(ids[:, :1], cache=cache)
        assert Counted.runs == 1
        with pytest.raises(ArgumentValueError, match="input_ids=99 must be from 0 to 98"):
            model(torch.tensor([[99]]), cache=cache)
        model(ids[:, :1], cache=cache)
        with pytest.raises(ValueError, match="the cache has room for 9 tokens"):
            model(ids[:, :1], cache=cache)


def test_the_pass_and_its_inverse() -> None:
    model = decoder("llama")
    plain, printed, names = type(model), repr(model), [name for name, _ in model.named_parameters()]
    assert static_steps(static_steps(model, Counted)) is model
    assert repr(model) == printed
    assert [name for name, _ in model.named_parameters()] == names
    minitx.generate(model, PROMPTS, Greedy(), max_new_tokens=3, stop=Stop(eos=()))
    twin = copy.deepcopy(model)
    assert not twin.graph_steps.steps
    assert undo_static_steps(undo_cuda_graphs(model)) is model
    assert type(model) is plain
    assert not hasattr(model, "graph_steps")


def test_a_graph_is_recorded_on_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here on one that is called "cpu"; no other one may be the current device or have the stream."""
    model, devices, recorded = static_steps(decoder("llama"), GraphStep), ["current"], list[Any]()

    class Stream:
        def __init__(self, device: Any = None) -> None:
            self.device = str(device or devices[-1])

        def wait_stream(self, other: Any) -> None: ...

    @contextmanager
    def device(device: Any) -> Iterator[None]:
        devices.append(str(device))
        yield
        devices.pop()

    @contextmanager
    def graph(graph: Any, stream: Any = None) -> Iterator[None]:
        recorded.append((devices[-1], stream and stream.device))
        yield

    fakes = {"device": device, "graph": graph, "stream": nullcontext, "Stream": Stream}
    fakes |= {"current_stream": Stream, "CUDAGraph": Mock}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    with torch.inference_mode():
        cache = model.make_cache(9)
        model(torch.tensor([[5, 6, 7]]), cache=cache)
        model(torch.tensor([[5]]), cache=cache)
    assert recorded == [("cpu", "cpu")]


@pytest.mark.parametrize("unpadded_first", [True, False])
def test_passes_are_undone_in_any_order(unpadded_first: bool) -> None:
    passes = [(unpadded, undo_unpadded), (static_steps, undo_static_steps)]
    if not unpadded_first:
        passes.reverse()
    (first, undo_first), (second, undo_second) = passes
    alone: Any = type(second(decoder("llama")))
    for undone, rest, stays in ((undo_first, undo_second, alone), (undo_second, undo_first, None)):
        model = decoder("llama")
        plain, printed = type(model), repr(model)
        one = type(first(model))
        second(model)
        assert repr(model) == printed
        assert type(undone(model)) is (stays or one)
        assert hasattr(model, "graph_steps") is (undone is undo_unpadded)
        minitx.generate(model, PROMPTS, Greedy(), max_new_tokens=3, stop=Stop(eos=()))
        assert type(rest(model)) is plain


def test_what_is_refused() -> None:
    with pytest.raises(
        ArgumentValueError, match=r"model=DecoderModel\(...\) must be on a CUDA device, not on cpu"
    ):
        cuda_graphs(decoder("llama"))
    for other in (small("bert", "masked-lm"), small("t5", "seq2seq-lm"), torch.nn.Linear(2, 2)):
        with pytest.raises(ArgumentValueError, match="must be a decoder with a language model head"):
            static_steps(other, GraphStep)
    with pytest.raises(ArgumentTypeError, match="must be a module"):
        cuda_graphs("llama")  # type: ignore[type-var]
