"""What is said about arguments that are missing, misnamed or too large, before any work is done."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

from minitx.decoding import session
from minitx.decoding.generate import generate, stream
from minitx.decoding.processors.chain import Chain
from minitx.decoding.processors.context import Context
from minitx.decoding.processors.truncation import TopK, TopP
from minitx.decoding.request import GenerationOptions
from minitx.decoding.rows import history
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.constrained import LexicalBeam
from minitx.decoding.text.stopping import Stop
from minitx.habits import argument_hint
from minitx.models import DecoderModel
from tests.unit.decoding.test_generate import EOS, MODEL, NO_END, PROMPTS, model_of, tokens

LLAMA = model_of("llama")


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temperature", r"It belongs to the strategy: Sample\(temperature=...\)."),
        ("top_k", r"It belongs to the strategy: Sample\(top_k=...\)."),
        ("penalty_alpha", r"It belongs to the strategy: ContrastiveSearch\(penalty_alpha=...\)."),
        ("repetition_penalty", r"It belongs to the strategy: Sample\(repetition_penalty=...\)."),
        ("num_beams", r"It belongs to the strategy: Beam\(num_beams=...\)."),
        ("length_penalty", r"It belongs to the strategy: Beam\(length_penalty=...\)."),
        ("num_beam_groups", r"It belongs to the strategy: DiverseBeam\(num_beam_groups=...\)."),
        ("do_sample", r"Sample\(...\) draws tokens, Greedy\(\) takes the most probable ones."),
        ("max_length", "max_new_tokens=... limits the new tokens alone."),
        ("max_tokens", "It is called max_new_tokens here."),
        ("num_return_sequences", "It is called num_samples here."),
        ("eos_token_id", r"End tokens belong to stop=Stop\(eos=...\)."),
        ("stop_strings", r"Stop strings belong to stop=Stop\(strings=...\)."),
        ("seeds", "Did you mean 'seed'"),
        ("xyzzy", "$"),
    ],
)
def test_names_from_elsewhere_are_explained(call: Callable[..., Any], name: str, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^{call.__name__} has no argument '{name}'\..*{message}"):
        call(MODEL, [[5]], max_new_tokens=1, **{name: 1})


# Names of transformers that minitx has too, and those of its files.
SAME = {"max_new_tokens", "min_new_tokens"}
OF_FILES = {"_from_model_config", "transformers_version", "self", "kwargs"}


def test_every_name_of_transformers_has_a_hint() -> None:
    """No "Did you mean" either, which would suggest an argument for something else."""
    names = {*GenerationConfig().to_dict(), *inspect.signature(GenerationMixin.generate).parameters}
    for name in sorted(names - SAME - OF_FILES):
        hint = argument_hint("generate", name, GenerationOptions.__annotations__)
        assert hint, name
        assert not hint.startswith("Did you mean"), name
        if name not in (field.name for field in fields(Sample)):
            assert argument_hint("strategy", name).endswith("."), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dola_layers", r"Use guidance=minitx.decoding.DoLa\(layers\)."),
        ("assistant_model", "Use the strategy Speculative"),
        ("constraints", r"Required phrases belong to LexicalBeam\(force_words_ids=\[...\]\)."),
        ("max_time", r"Time limits belong to stop=Stop\(seconds=...\)."),
        ("output_attentions", r"generate returns none; call model\(input_ids, output_attentions=True\)."),
        ("cache_implementation", r"generate makes its own cache; pass cache=model.make_cache\(...\)"),
    ],
)
def test_what_generate_and_strategies_lack(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=rf"^generate has no argument '{name}'\. {message}"):
        generate(MODEL, [[5]], max_new_tokens=1, **{name: 1})
    with pytest.raises(TypeError, match=rf"^Sample has no field '{name}'\. {message}"):
        Sample(**{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [generate, stream])
def test_help_shows_the_arguments(call: Any) -> None:
    text = pydoc.render_doc(call, renderer=pydoc.plaintext)
    assert f"{call.__name__}(model: 'CausalModel', prompts: 'Prompts', strategy:" in text
    for name in GenerationOptions.__annotations__:
        assert f"    {name}: " in text


def test_a_strategy_explains_names_of_calls_too() -> None:
    for name, message in {
        "max_length": "max_new_tokens=... limits the new tokens alone.",
        "num_return_sequences": "It is called num_samples here.",
        "tempreature": r"Did you mean 'temperature'\?",
    }.items():
        with pytest.raises(TypeError, match=message):
            Sample(**{name: 1})  # type: ignore[arg-type]


def test_a_strategy_is_none_of_its_names_or_classes() -> None:
    for given in ("beam", Sample, None):
        with pytest.raises(
            (TypeError, ValueError), match=r"such as Sample\(...\), Greedy\(...\) or Beam\(...\)"
        ):
            generate(MODEL, [[5]], given, max_new_tokens=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["chat"],
            r"\[0\]='chat' must .*, not text; use tokenizer.encode\('chat', add_special_tokens=False\)\.",
        ),
        ([[5], ["chat", "chien"]], r"\[1\]=.*, not text; .*encode\('chat', "),
        ([102, 103], r"\[0\]=102 must be a list .*; write \[\[102, 103\]\]\.$"),
        ([[102], 103], r"\[1\]=103 must be a list of token ids\.$"),
    ],
)
def test_words_are_lists_of_ids(words: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^force_words_ids{message}"):
        LexicalBeam(force_words_ids=words)
    with pytest.raises(TypeError, match=f"^bad_words_ids{message}"):
        Greedy(bad_words_ids=words)


def no_forward(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the model was run")


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        (Sample(temperature=[1, 1, 1]), {}, "temperature=.* one for each of the 2 rows; it has 3 values"),
        (Sample(top_k=[1, 1, 1]), {}, "top_k=.* it has 3 values"),
        (Greedy(repetition_penalty=[2.0]), {}, "repetition_penalty=.* it has 1 values"),
        (Sample(chain=Chain(TopK(3), Chain(TopP([0.5])))), {}, "top_p=.* it has 1 values"),
        (Sample(processors=[TopP([0.5] * 3)]), {}, "top_p=.* it has 3 values"),
        (Greedy(), {"min_new_tokens": [0, 0, 0]}, "min_new_tokens=.* it has 3 values"),
        (
            Sample(temperature=[1, 1]),
            {"num_samples": 3},
            r"temperature=.* the 6 rows \(2 prompts x 3 rows\); it has 2",
        ),
        (Sample(), {"num_samples": 3, "min_new_tokens": [1, 1]}, r"6 rows \(2 prompts x 3 rows\)"),
    ],
)
def test_values_per_row_are_counted_before_any_work(
    strategy: Any, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecoderModel, "forward", no_forward)
    with pytest.raises(ValueError, match=message):
        stream(MODEL, [[5], [6]], strategy, max_new_tokens=2, **options)


# Many tokens


def ends_at(count: int) -> Callable[[Tensor, Context], Tensor]:
    """Every row ends with its token number `count`."""

    def processor(logits: Tensor, context: Context) -> Tensor:
        ends = context.generated == count - 1
        logits[:, EOS] = torch.where(ends, torch.inf, -torch.inf).nan_to_num(posinf=1e9, neginf=-torch.inf)
        return logits

    return processor


def test_so_many_tokens_that_they_mean_all() -> None:
    """No room is made for what mostly is not used."""
    strategy = Sample(processors=[ends_at(4)], repetition_penalty=1.2)
    usual = generate(LLAMA, PROMPTS, strategy, max_new_tokens=9, seed=1)
    assert usual.finish_reasons == ["eos"] * 4
    for many in (10**9, 2**63 - 1):
        assert tokens(generate(LLAMA, PROMPTS, strategy, max_new_tokens=many, seed=1)) == tokens(usual)
    with pytest.raises(ValueError, match=f"max_new_tokens={2**63} must be from 0 to {2**63 - 1}"):
        generate(LLAMA, PROMPTS, strategy, max_new_tokens=2**63)
    with pytest.raises(ValueError, match=r"max_new_tokens=1000000000 must be at most 58 .* the model has 64"):
        generate(MODEL, PROMPTS, strategy, max_new_tokens=10**9)
    with pytest.raises(
        TypeError, match=r"max_new_tokens=\[1, 2, 3, 4\] .*minitx.generate_many takes one number per"
    ):
        generate(MODEL, PROMPTS, strategy, max_new_tokens=[1, 2, 3, 4])  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", ["num_samples", "prefill_chunk"])
def test_integers_that_are_too_large(name: str) -> None:
    options: Any = {name: 10**20}
    with pytest.raises(ValueError, match=f"^{name}={10**20} must be from 1 to {2**63 - 1}"):
        generate(LLAMA, [[5]], Sample(), max_new_tokens=1, **options)


def test_room_that_is_made_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the cache, and for the histories that penalties look at."""
    strategy = Sample(presence_penalty=1.5, no_repeat_ngram_size=2)
    options: dict[str, Any] = {"max_new_tokens": 20, "seed": 1, "stop": NO_END}
    usual = generate(LLAMA, PROMPTS, strategy, **options)
    monkeypatch.setattr(session, "PREALLOCATED", 1)
    monkeypatch.setattr(history, "PREALLOCATED", 1)
    assert tokens(generate(LLAMA, PROMPTS, strategy, **options)) == tokens(usual)


@pytest.mark.parametrize("logprobs", ["raw", "processed"])
def test_processors_that_write_in_place_falsify_nothing(logprobs: Any) -> None:
    def in_place(logits: Tensor, context: Context) -> Tensor:
        logits[:, 20:] = -torch.inf
        return logits.mul_(2)

    def elsewhere(logits: Tensor, context: Context) -> Tensor:
        ban = torch.arange(logits.shape[1]) >= 20
        return logits.masked_fill(ban, -torch.inf) * 2

    found, expected = (
        generate(
            MODEL,
            PROMPTS,
            Greedy(processors=[each]),
            max_new_tokens=4,
            logprobs=logprobs,
            top_logprobs=3,
            stop=Stop(eos=()),
        )
        for each in (in_place, elsewhere)
    )
    assert tokens(found) == tokens(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.logprobs, other.logprobs)  # type: ignore[arg-type]
        assert torch.equal(one.top_logprobs.ids, other.top_logprobs.ids)  # type: ignore[union-attr]


def test_the_prefix_function_may_write_into_its_history() -> None:
    def allowed(row: int, history: Tensor) -> list[int]:
        history[0] += 1
        return [int(history[0])]

    result = generate(MODEL, [[20]], Greedy(prefix_allowed_tokens_fn=allowed), max_new_tokens=3)
    assert tokens(result) == [[21, 21, 21]]
