"""Guidance by other prompts and models against its definition, with every strategy and in sessions."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    Chain,
    ClassifierFree,
    Context,
    ContextAware,
    ContrastiveDecoding,
    Ensemble,
    Experts,
    Guidance,
    open_session,
)
from minitx.decoding.arguments import resolve
from minitx.pipelines import generate_batches
from minitx.validation import ArgumentTypeError, ArgumentValueError
from tests.unit.decoding.guided import (
    GPT2,
    LLAMA,
    NO_END,
    T5,
    Definition,
    check,
    logits_after,
    model_of,
)
from tests.unit.decoding.test_session import CONFIGS, TOKENS, stepped

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
OTHERS = [[21, 22], [23], [24, 25, 26, 27]]
MODEL, SECOND, THIRD = model_of(LLAMA), model_of(GPT2, 1), model_of(LLAMA, 2)


def after(model: Any, prompts: list[list[int]] = PROMPTS) -> Definition:
    """The model's log-probabilities after these prompts and the output."""
    return lambda number, output: logits_after(model, [*prompts[number], *output]).log_softmax(-1)


def contrast(wanted: Definition, other: Definition, scale: float) -> Definition:
    return lambda n, output: other(n, output) + scale * (wanted(n, output) - other(n, output))


def of_amateur(alpha: float, beta: float | None, temperature: float) -> Definition:
    def definition(number: int, output: list[int]) -> Tensor:
        ours, theirs = after(MODEL)(number, output), after(SECOND)(number, output)
        theirs = (theirs / temperature).log_softmax(-1)
        scores = ours - theirs if beta is None else (1 + beta) * ours - beta * theirs
        return torch.where(ours.exp() >= alpha * ours.exp().max(), scores, -torch.inf)

    return definition


def of_experts(expert: Any, anti_expert: Any, alpha: float) -> Definition:
    return lambda n, output: (
        after(MODEL)(n, output) + alpha * (after(expert)(n, output) - after(anti_expert)(n, output))
    )


def of_ensemble(weights: list[float], mean: str) -> Definition:
    def definition(number: int, output: list[int]) -> Tensor:
        tables = torch.stack([after(model)(number, output) for model in (MODEL, SECOND, THIRD)])
        shares = torch.tensor(weights, dtype=torch.float64)[:, None]
        shares = shares / shares.sum()
        return (shares * tables).sum(0) if mean == "log" else (shares * tables.exp()).sum(0).log()

    return definition


LAST = [prompt[-1:] for prompt in PROMPTS]
CASES: dict[str, tuple[Any, Definition]] = {
    "last token": (ClassifierFree(1.5), contrast(after(MODEL), after(MODEL, LAST), 1.5)),
    "negative": (ClassifierFree(2.0, OTHERS), contrast(after(MODEL), after(MODEL, OTHERS), 2.0)),
    "one negative": (ClassifierFree(0.5, [[3, 4]]), contrast(after(MODEL), after(MODEL, [[3, 4]] * 3), 0.5)),
    "negative scale": (ClassifierFree(-1, OTHERS), contrast(after(MODEL), after(MODEL, OTHERS), -1)),
    "off": (ClassifierFree(1.0), after(MODEL)),
    "context": (ContextAware(0.5, OTHERS), contrast(after(MODEL), after(MODEL, OTHERS), 1.5)),
    "amateur": (ContrastiveDecoding(SECOND), of_amateur(0.1, 0.5, 1.0)),
    "first amateur": (ContrastiveDecoding(SECOND, 0.02, None, 0.5), of_amateur(0.02, None, 0.5)),
    "experts": (Experts(SECOND, THIRD, 2.0), of_experts(SECOND, THIRD, 2.0)),
    "expert": (Experts(SECOND, None), of_experts(SECOND, MODEL, 1.0)),
    "anti-expert": (Experts(None, SECOND, 0.5), of_experts(MODEL, SECOND, 0.5)),
    "product": (Ensemble([SECOND, THIRD]), of_ensemble([1, 1, 1], "log")),
    "mixture": (Ensemble([SECOND, THIRD], [3, 1, 2], "probability"), of_ensemble([3, 1, 2], "probability")),
}


@pytest.mark.parametrize("name", CASES)
def test_definition(name: str) -> None:
    check(MODEL, PROMPTS, *CASES[name])


@pytest.mark.parametrize("name", ["negative", "amateur", "mixture"])
def test_rows_alone_and_in_parts(name: str) -> None:
    """Sampled rows do not depend on the batch; several samples share the companions' prefill."""
    guidance = CASES[name][0]
    options: dict[str, Any] = {"max_new_tokens": 6, "stop": NO_END, "num_samples": 2, "prefill_chunk": 2}
    result = minitx.generate(MODEL, PROMPTS, minitx.Sample(), seed=3, guidance=guidance, **options)
    together = [row.tolist() for row in result.sequences]
    assert together[0] != together[1]
    alone = [
        row.tolist()
        for number, prompt in enumerate(PROMPTS)
        for row in minitx.generate(
            MODEL,
            [prompt],
            minitx.Sample(),
            seed=3,
            guidance=guidance.part(slice(number, number + 1)),
            **options,
        ).sequences
    ]
    assert alone == together
    batches = generate_batches(
        MODEL, PROMPTS, minitx.Sample(), seed=3, guidance=guidance, batch_size=2, **options
    )
    assert [row.tolist() for batch in batches for row in batch.sequences] == together
    events = minitx.stream(MODEL, PROMPTS, minitx.Sample(), seed=3, guidance=guidance, **options)
    streamed: list[list[int]] = [[] for _ in together]
    for event in events:
        streamed[event.row].append(event.token)
    assert streamed == together


@pytest.mark.parametrize("name", ["negative", "amateur", "mixture"])
def test_wide_beams_find_the_best_sequences(name: str) -> None:
    """All sequences of three tokens, of a model with few of them."""
    small = [model_of({**config, "vocab_size": 6}, seed) for seed, config in enumerate((LLAMA, GPT2))]
    prompts, others = [[1, 2, 3], [4]], [[5], [1, 1]]
    guidance: Any = {
        "negative": ClassifierFree(1.5, others),
        "amateur": ContrastiveDecoding(small[1], alpha=0.001),
        "mixture": Ensemble(small[1:], mean="probability"),
    }[name]

    @functools.cache
    def log_probs(number: int, output: tuple[int, ...]) -> Tensor:
        ours = logits_after(small[0], [*prompts[number], *output])[None].float()
        ids = others[number] if name == "negative" else prompts[number]
        theirs = logits_after(small[name != "negative"], [*ids, *output])[None].float()
        table: Tensor = guidance.combine(ours, [theirs], None)[0].log_softmax(-1)
        return table

    strategy = minitx.Beam(num_beams=36, length_penalty=0.0)
    result = minitx.generate(
        small[0], prompts, strategy, num_samples=3, max_new_tokens=3, stop=NO_END, guidance=guidance
    )
    for number in range(2):
        sums = {
            tokens: sum(float(log_probs(number, tokens[:i])[token]) for i, token in enumerate(tokens))
            for tokens in itertools.product(range(6), repeat=3)
        }
        best = sorted(sums, key=lambda tokens: -sums[tokens])[:3]
        found = [tuple(row.tolist()) for row in result.sequences[3 * number : 3 * number + 3]]
        assert found == best
        assert result.scores is not None
        scores = result.scores[3 * number : 3 * number + 3]
        assert scores == pytest.approx([sums[tokens] for tokens in best], abs=1e-4)


def test_prompts_that_are_done_leave_a_search() -> None:
    """Rows of companions leave with them."""
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12], [13], [14, 15]]
    others = [[21, 22], [23], [24, 25, 26, 27], [2]]
    options: dict[str, Any] = {"max_new_tokens": 12, "stop": minitx.Stop(eos=(*range(10, 20),))}
    guidance = ClassifierFree(1.5, others)
    strategy = minitx.Beam(num_beams=3)
    result = minitx.generate(MODEL, prompts, strategy, guidance=guidance, **options)
    assert len({len(row) for row in result.sequences}) > 1
    for number, row in enumerate(result.sequences):
        part = slice(number, number + 1)
        alone = minitx.generate(MODEL, prompts[part], strategy, guidance=guidance.part(part), **options)
        assert alone.sequences[0].tolist() == row.tolist()


def guided_session(kind: str, **options: Any) -> Any:
    head = "seq2seq-lm" if kind == "t5" else "causal-lm"
    model, other = (minitx.from_config(CONFIGS[kind], head=head, seed=seed).eval() for seed in (0, 1))
    arguments: Any = {"max_new_tokens": 12, "stop": NO_END, "guidance": Experts(other, None, 0.7), **options}
    _, request = resolve(model, PROMPTS, minitx.Greedy(), arguments)
    session = open_session(model, request, lookahead=4)
    session.start()
    return session


@pytest.mark.parametrize("kind", CONFIGS)
def test_steps_over_several_tokens_and_crops(kind: str) -> None:
    """As speculation does: LongRoPE runs rows anew within a step, and a ring buffer goes back."""
    with torch.inference_mode():
        expected = stepped(guided_session(kind), TOKENS)
        session = guided_session(kind)
        session.step(TOKENS)
        for number, logits in enumerate(expected[1:]):
            assert torch.allclose(session.step_logits[:, number], logits, atol=1e-4)
        for left in (3, 2, 0):
            session.crop(left)
            assert torch.allclose(session.logits, expected[left], atol=1e-4)
        for before, logits in zip(expected, stepped(session, TOKENS), strict=True):
            assert torch.allclose(before, logits, atol=1e-4)
        session = guided_session(kind)
        session.step(TOKENS)
        keep = torch.tensor([1, 4, 2])
        session.crop(keep)
        for row, count in enumerate(keep.tolist()):
            assert torch.allclose(session.logits[row], expected[count][row], atol=1e-4)
        session = guided_session(kind)
        session.step(TOKENS[:, :2])
        rows = torch.tensor([2, 0, 1])
        session.step(TOKENS[rows, 2], rows, within_prompts=False)
        assert torch.allclose(session.logits, expected[3][rows], atol=1e-4)


class Seen:
    """A stateful processor that records the last four logits with which tokens were chosen."""

    def init(self, context: Context) -> Any:
        return torch.zeros(len(context.length), 4, 40)

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        return torch.cat((state[:, 1:], logits[:, None]), dim=1)

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        return logits


def test_states_see_guided_logits() -> None:
    model = model_of(LLAMA)
    arguments: Any = {"max_new_tokens": 12, "stop": NO_END, "guidance": ClassifierFree(1.5, OTHERS)}
    _, request = resolve(model, PROMPTS, minitx.Greedy(chain=Chain(Seen())), arguments)
    with torch.inference_mode():
        session = open_session(model, request, lookahead=4)
        session.start()
        expected = stepped(session, TOKENS)
        session.crop(4)
        assert torch.equal(session.states[0], torch.stack(expected[:4], dim=1))
        other = open_session(model, request, lookahead=4)
        other.start()
        other.step(TOKENS)
        assert torch.allclose(other.states[0], session.states[0], atol=1e-4)
        other.crop(2)
        assert torch.allclose(other.states[0][:, 2:], session.states[0][:, :2], atol=1e-4)


def test_encoder_decoders() -> None:
    """Negative prompts are encoder inputs; other models get the same source."""
    model, other = model_of(T5), model_of(T5, 1)
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END}

    def expected(definition: Definition) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in PROMPTS]
        for number, row in enumerate(rows):
            for _ in range(5):
                row.append(int(definition(number, row).argmax()))
        return rows

    def of(network: Any, sources: list[list[int]]) -> Definition:
        return lambda n, output: logits_after(network, [0, *output], sources[n]).log_softmax(-1)

    for guidance, definition in (
        (ClassifierFree(1.5, OTHERS), contrast(of(model, PROMPTS), of(model, OTHERS), 1.5)),
        (ContextAware(0.5, [[3, 4]]), contrast(of(model, PROMPTS), of(model, [[3, 4]] * 3), 1.5)),
        (Experts(other, None, 1.0), lambda n, output: of(other, PROMPTS)(n, output)),
    ):
        result = minitx.generate(model, PROMPTS, minitx.Greedy(), guidance=guidance, **options)
        assert [row.tolist() for row in result.sequences] == expected(definition)
        beams = minitx.generate(model, PROMPTS, minitx.Beam(num_beams=3), guidance=guidance, **options)
        for number, row in enumerate(beams.sequences):
            part = slice(number, number + 1)
            alone = minitx.generate(
                model, PROMPTS[part], minitx.Beam(num_beams=3), guidance=guidance.part(part), **options
            )
            assert alone.sequences[0].tolist() == row.tolist()
    with pytest.raises(ArgumentValueError, match=r"negative_prompts=None must be set .* encoder"):
        minitx.generate(model, PROMPTS, minitx.Greedy(), guidance=ClassifierFree(1.5), **options)


def test_explain_shows_the_guidance() -> None:
    guidance = ClassifierFree(2.0, [[21, 22]])
    found = minitx.explain(MODEL, [5, 6, 7], minitx.Greedy(repetition_penalty=1.2), guidance=guidance)
    steps = found.positions[0].steps
    assert [step.name for step in steps] == ["model", "ClassifierFree 2", "RepetitionPenalty 1.2"]
    plain = logits_after(MODEL, [5, 6, 7])
    other = logits_after(MODEL, [21, 22]).log_softmax(-1)
    for step, logits in zip(steps, (plain, other + 2 * (plain.log_softmax(-1) - other)), strict=False):
        assert step.top[0].token == int(logits.argmax())
        assert step.top[0].probability == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


def test_other_dtypes() -> None:
    """Logits are combined in float32, whatever the models' dtypes."""
    amateur = model_of(GPT2, 1).to(torch.bfloat16)
    wide = model_of(LLAMA).double()
    options: dict[str, Any] = {"max_new_tokens": 5, "stop": NO_END, "logprobs": "raw"}
    for model, guidance in ((MODEL, ContrastiveDecoding(amateur)), (wide, ContrastiveDecoding(SECOND))):
        result = minitx.generate(model, PROMPTS, minitx.Greedy(), guidance=guidance, **options)
        assert [len(row) for row in result.sequences] == [5, 5, 5]


def test_no_guidance_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = type(MODEL).decode
    monkeypatch.setattr(type(MODEL), "decode", lambda *a, **b: calls.append(1) or run(*a, **b))
    options: dict[str, Any] = {"max_new_tokens": 4, "stop": NO_END}
    for guidance, count in ((None, 4), (ClassifierFree(1.0), 4), (ClassifierFree(1.5), 8)):
        calls.clear()
        minitx.generate(MODEL, PROMPTS, minitx.Greedy(), guidance=guidance, **options)
        assert len(calls) == count


def test_values() -> None:
    assert ClassifierFree(1.5, [[1, 2]]) == ClassifierFree(1.5, negative_prompts=torch.tensor([[1, 2]]))
    assert hash(Ensemble([SECOND], [1, 2])) == hash(Ensemble((SECOND,), (1.0, 2.0)))
    assert repr(ContrastiveDecoding(SECOND)).startswith("ContrastiveDecoding(amateur_model=DecoderModel(...)")
    assert replace(ClassifierFree(1.5), scale=2).scale == 2


TRAINING = model_of(LLAMA, 3).train()
HEADLESS = minitx.from_config(LLAMA, head=None).eval()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(torch.inf), "scale=inf must be in"),
        (lambda: ClassifierFree("2"), "scale='2' must be a number"),
        (lambda: ClassifierFree(True), "scale=True must be a number"),
        (lambda: ContextAware(-0.5, [[5]]), r"alpha=-0.5 must be in \[0, inf\)"),
        (lambda: ContrastiveDecoding(SECOND, alpha=0.0), r"alpha=0.0 must be in \(0, 1\]"),
        (lambda: ContrastiveDecoding(SECOND, beta=-1), "beta=-1 must be in"),
        (lambda: ContrastiveDecoding(SECOND, temperature=0), "temperature=0 must be in"),
        (lambda: ContrastiveDecoding(HEADLESS), "amateur_model=.* must be one that predicts the next token"),
        (lambda: ContrastiveDecoding(TRAINING), "amateur_model=.* must be in eval mode"),
        (lambda: ContrastiveDecoding("gpt2"), "amateur_model='gpt2' must be one that predicts"),
        (lambda: Experts(None, None), "expert=None must be a model"),
        (lambda: Experts(SECOND, TRAINING), "anti_expert=.* must be in eval mode"),
        (lambda: Ensemble([]), r"models=\(\) must be at least one"),
        (lambda: Ensemble(SECOND), "models=.* must be a list of models"),
        (lambda: Ensemble([SECOND], [1.0]), r"weights=\(1.0,\) must be 2 numbers"),
        (lambda: Ensemble([SECOND], [1.0, 0.0]), r"weights\[1\]=0.0 must be in"),
        (lambda: Ensemble([SECOND], mean="median"), "mean='median' must be one of"),
    ],
)
def test_values_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        make()


WIDER = model_of({**GPT2, "vocab_size": 41})
SHORT = model_of({**GPT2, "n_positions": 8})


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (1.5, "guidance=1.5 must be a guidance such as ClassifierFree"),
        (ClassifierFree, "guidance=.* must be a guidance"),
        (ClassifierFree(1.5, "text"), "negative_prompts='text' must be token ids, or come with tokenizer"),
        (ClassifierFree(1.5, [[1], [2]]), "negative_prompts=.* must be one for all prompts or 3, one per"),
        (ClassifierFree(1.5, [[40]]), r"negative_prompts\[0\]=40 must be token ids from 0 to 39"),
        (ClassifierFree(1.5, [[]]), r"negative_prompts\[0\]=\[\] must be at least one token"),
        (ClassifierFree(1.5, [[1] * 70]), None),
        (ContextAware(0.5, [[1], [2]]), "prompts_without_context=.* must be one for all prompts"),
        (ContrastiveDecoding(WIDER), "amateur_model=.* must be a model that predicts 40 tokens, not 41"),
        (ContrastiveDecoding(model_of(T5)), "amateur_model=.* must be of task 'causal-lm', not 'seq2seq-lm'"),
        (Ensemble([SECOND, WIDER]), r"models\[1\]=.* a model that predicts 40 tokens"),
        (Experts(None, WIDER), "anti_expert=.* that predicts 40 tokens"),
        (ContrastiveDecoding(SHORT), "amateur_model=.* must be a model with 13 positions .* not 8"),
    ],
)
def test_calls_that_are_refused(guidance: Any, message: str | None) -> None:
    def call() -> Any:
        return minitx.generate(
            MODEL, PROMPTS, minitx.Greedy(), max_new_tokens=9, stop=NO_END, guidance=guidance
        )

    if message is None:  # rotary positions have no table
        call()
        return
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
        call()


def test_negative_prompts_that_are_too_long() -> None:
    """For a table of positions. Contrastive search runs one token more."""
    options: dict[str, Any] = {"max_new_tokens": 3, "stop": NO_END}
    for length, strategy in ((6, minitx.Greedy()), (5, minitx.ContrastiveSearch())):
        fits, longer = (ClassifierFree(2.0, [[1] * count]) for count in (length, length + 1))
        minitx.generate(SHORT, [[5]], strategy, guidance=fits, **options)
        with pytest.raises(ArgumentValueError, match=f"negative_prompts=.* must be of at most {length} tok"):
            minitx.generate(SHORT, [[5]], strategy, guidance=longer, **options)


def test_inputs_embeds_are_refused() -> None:
    embeds = [torch.zeros(3, 16)]
    with pytest.raises(ArgumentValueError, match=r"inputs_embeds=.* must be None with this guidance"):
        minitx.generate(
            MODEL, [[5, 6, 7]], max_new_tokens=2, inputs_embeds=embeds, guidance=ClassifierFree(2)
        )


def test_a_guidance_of_users() -> None:
    """Subclasses define `combine`; companions are optional."""

    class Flat(Guidance):
        def combine(self, logits: Tensor, others: Any, context: Context) -> Tensor:
            return torch.zeros_like(logits) + torch.arange(logits.shape[1])

    result = minitx.generate(MODEL, PROMPTS, minitx.Greedy(), max_new_tokens=2, stop=NO_END, guidance=Flat())
    assert [row.tolist() for row in result.sequences] == [[39, 39]] * 3
