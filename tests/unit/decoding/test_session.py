"""Sessions step over several tokens, go back, reorder and start from embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import Context, Greedy
from minitx.decoding.arguments import resolve
from minitx.decoding.output import Event
from minitx.decoding.request import GenerationOptions
from minitx.decoding.session import DecodingSession
from minitx.validation import ArgumentTypeError, ArgumentValueError

SMALL = {"vocab_size": 40, "initializer_range": 0.5}
LLAMA = {
    **SMALL,
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {**SMALL, "model_type": "gpt2", "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64},
    "llama": LLAMA,
    "sliding": {**LLAMA, "model_type": "mistral", "sliding_window": 4},
    "longrope": {
        **LLAMA,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1],
            "long_factor": [2.0, 3.0],
            "original_max_position_embeddings": 7,
        },
    },
    "t5": {
        "vocab_size": 40,
        "model_type": "t5",
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "initializer_factor": 1.0,
    },
}
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
TOKENS = torch.tensor([[20, 21, 22, 23], [24, 25, 26, 27], [28, 29, 30, 31]])


def model_of(kind: str) -> Any:
    head = "seq2seq-lm" if kind == "t5" else "causal-lm"
    return minitx.from_config(CONFIGS[kind], head=head, seed=0).eval()


def session_of(model: Any, strategy: Any = None, **options: Any) -> DecodingSession:
    arguments: GenerationOptions = {"max_new_tokens": 12, "stop": minitx.Stop(eos=()), **options}  # type: ignore[typeddict-item]
    _, request = resolve(model, PROMPTS, Greedy() if strategy is None else strategy, arguments)
    session = DecodingSession(model, request, lookahead=4)
    session.start()
    return session


def stepped(session: DecodingSession, tokens: Tensor) -> list[Tensor]:
    """Steps over tokens (R, K) one by one; the logits before and after each."""
    found = [session.logits]
    for token in tokens.unbind(dim=1):
        session.step(token)
        found.append(session.logits)
    return found


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("kind", CONFIGS)
def test_several_tokens_and_crop_equal_single_steps(kind: str) -> None:
    model = model_of(kind)
    single, several = session_of(model), session_of(model)
    expected = stepped(single, TOKENS)
    several.step(TOKENS)
    assert several.step_logits.shape == (3, 4, 40)
    for number, logits in enumerate(expected[1:]):
        assert torch.allclose(several.step_logits[:, number], logits, atol=1e-5)
    assert several.history.rows() == single.history.rows()
    for left in (3, 2, 0):
        several.crop(left)
        assert torch.allclose(several.logits, expected[left], atol=1e-5)
        assert [len(row) for row in several.history.rows()] == [
            len(prompt) + left for prompt in ([[0]] * 3 if kind == "t5" else PROMPTS)
        ]
    for before, after in zip(expected, stepped(several, TOKENS), strict=True):
        assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_keep_different_numbers_of_tokens(kind: str) -> None:
    """As in speculative decoding, where each row accepts another number of drafted tokens."""
    model = model_of(kind)
    session = session_of(model)
    session.step(TOKENS)
    keep = torch.tensor([1, 4, 2])
    session.crop(keep)
    single = session_of(model)
    expected = stepped(single, TOKENS)
    for row, count in enumerate(keep.tolist()):
        assert torch.allclose(session.logits[row], expected[count][row], atol=1e-5)
    assert session.context.generated.tolist() == [1, 4, 2]
    session.step(torch.tensor([[33], [34], [35]]))
    for row, count in enumerate(keep.tolist()):
        alone = session_of(model)
        rows = [*TOKENS[row, :count].tolist(), 33 + row]
        logits = stepped(alone, torch.tensor([rows] * 3))[-1]
        assert torch.allclose(session.logits[row], logits[row], atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_crop_to_before_the_last_step(kind: str) -> None:
    session = session_of(model_of(kind), max_new_tokens=12)
    expected = stepped(session, TOKENS)
    session.crop(1)
    assert torch.allclose(session.logits, expected[1], atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_reorder_moves_everything(kind: str) -> None:
    model = model_of(kind)
    session, plain = session_of(model), session_of(model)
    session.step(TOKENS[:, :2])
    rows = torch.tensor([2, 0, 1])
    session.reorder(rows, within_prompts=False)
    expected = stepped(plain, TOKENS)
    assert torch.allclose(session.logits, expected[2][rows], atol=1e-5)
    session.step(TOKENS[rows, 2])
    assert torch.allclose(session.logits, expected[3][rows], atol=1e-5)
    assert session.history.rows() == [plain.history.rows()[row][:-1] for row in rows]


class Count:
    """A processor with a state: the number of tokens, and the sum of the logits that it was called with."""

    def init(self, context: Context) -> Any:
        return {"count": torch.zeros(len(context.length)), "sum": torch.zeros(len(context.length))}

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        assert bool((context.generated == state["count"]).all())
        return {"count": state["count"] + 1, "sum": state["sum"] + logits.sum(dim=1) + token}

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        return logits + state["count"][:, None]


@pytest.mark.parametrize("keep", [0, 1, 3, torch.tensor([3, 0, 2])])
def test_states_step_and_go_back_with_the_tokens(keep: Any) -> None:
    model = model_of("gpt2")
    session, single = (session_of(model, Greedy(processors=[Count()])) for _ in range(2))
    states = [single.states]
    for token in TOKENS.unbind(dim=1):
        single.process(single.logits)
        single.step(token)
        states.append(single.states)
    session.process(session.logits)
    session.step(TOKENS)
    assert torch.allclose(session.states[0]["sum"], states[-1][0]["sum"], atol=1e-3)
    session.crop(keep)
    for row, count in enumerate(torch.as_tensor(keep).expand(3).tolist()):
        assert session.states[0]["count"][row] == count
        assert torch.allclose(session.states[0]["sum"][row], states[count][0]["sum"][row], atol=1e-3)


def test_states_from_before_the_last_step_are_gone() -> None:
    session = session_of(model_of("gpt2"), Greedy(processors=[Count()]))
    stepped(session, TOKENS)
    with pytest.raises(ValueError, match="length=1 must be reached within the last step; the chain has"):
        session.crop(1)


def test_step_over_several_tokens_of_other_rows() -> None:
    """The states see the logits of the rows that continue, also where tokens are stepped over singly."""
    model, rows = model_of("longrope"), torch.tensor([1, 1, 0])
    direct, moved = (session_of(model, Greedy(processors=[Count()])) for _ in range(2))
    moved.reorder(rows, within_prompts=False)
    moved.step(TOKENS)
    direct.step(TOKENS, rows, within_prompts=False)
    assert torch.equal(direct.states[0]["sum"], moved.states[0]["sum"])
    assert torch.equal(direct.logits, moved.logits)


def test_rows_that_are_left_out_cause_no_prefill() -> None:
    session = session_of(model_of("longrope"))
    assert session.history.crosses(7, 3)
    assert not session.history.crosses(7, 3, torch.tensor([0, 2]))
    session.reorder(torch.tensor([0, 2]), within_prompts=False)
    assert not session.history.crosses(7, 3)


def test_rows_of_a_sliding_window_keep_different_numbers_of_tokens() -> None:
    """The ring buffers have lost tokens, but the new prefill does not need them."""
    session, single = (session_of(model_of("sliding")) for _ in range(2))
    expected = stepped(single, torch.cat((TOKENS, TOKENS), dim=1))
    stepped(session, torch.cat((TOKENS, TOKENS), dim=1))
    keep = [1, 2, 0]
    session.crop(torch.tensor(keep))
    for row, count in enumerate(keep):
        assert torch.allclose(session.logits[row], expected[count][row], atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "longrope"])
def test_a_refused_change_leaves_the_session_as_it_was(kind: str) -> None:
    """Embeddings cannot be run again."""
    model = model_of(kind)
    embeds = [model.embedder.word_emb(torch.tensor(prompt)) for prompt in PROMPTS]
    session, plain = session_of(model, inputs_embeds=embeds, max_new_tokens=3), session_of(model)
    for token in TOKENS[:, :2].unbind(dim=1):
        session.step(token)
        plain.step(token)
    with pytest.raises(ValueError, match="inputs_embeds cannot be run again"):
        session.crop(torch.tensor([1, 2, 0]))
    if kind == "longrope":
        with pytest.raises(ValueError, match="inputs_embeds cannot be run again"):
            session.step(TOKENS[:, 2], torch.tensor([1, 1, 1]), within_prompts=False)
    assert session.history.rows() == plain.history.rows()
    assert session.cache.length == plain.cache.length
    session.crop(1)
    plain.crop(1)
    assert torch.allclose(session.logits, plain.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(5, "at most the number of generated tokens"), (-1, "at least 0"), (torch.tensor(-1), "at most")],
)
def test_lengths_that_cannot_be_reached(length: Any, expected: str) -> None:
    session = session_of(model_of("gpt2"))
    session.step(TOKENS)
    with pytest.raises(ValueError, match=f"length={int(length)} must be {expected}"):
        session.crop(length)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda session: session.step(torch.tensor([1, 2, 40])), "tokens=40 must be from 0 to 39"),
        (lambda session: session.step(torch.tensor([1, -2, 3])), "tokens=-2 must be from 0 to 39"),
        (lambda session: session.step([1, 2, 3]), r"tokens=\[1, 2, 3\] must be a tensor"),
        (lambda session: session.step(TOKENS.float()), "tokens=.* must be of dtype torch.long"),
        (lambda session: session.step(TOKENS[:2]), r"tokens=.* must be of shape \(3,\), or \(3, K\)"),
        (lambda session: session.step(TOKENS[:, :0]), r"tokens=.* must be of shape \(3,\), or \(3, K\)"),
        (lambda session: session.step(TOKENS[:, 0] + 20, torch.tensor([2, 1, 0])), "tokens=40 must be from"),
        (
            lambda session: session.step(TOKENS, torch.tensor([2, 1, 3])),
            "rows=3 must be from 0 to 2; the",
        ),
        (lambda session: session.reorder(torch.tensor([0, -1, 2])), "rows=-1 must be from 0 to 2"),
        (lambda session: session.reorder([0, 1, 2]), r"rows=\[0, 1, 2\] must be a tensor"),
        (lambda session: session.reorder(torch.tensor([0, 1])), r"rows=\[0, 1\] must be of shape \(3,\)"),
        (
            lambda session: session.step(torch.full((3, 20), 1)),
            r"tokens=.* must be at most 13 per row; max_new_tokens and lookahead limit",
        ),
        (lambda session: session.process(torch.zeros(40)), r"scores=.* must be a tensor of shape \(3, 40\)"),
        (
            lambda session: session.process(torch.zeros(1, 40)),
            r"scores=.* must be a tensor of shape \(3, 40\)",
        ),
        (lambda session: session.process(None), "scores=None must be a tensor"),
        (lambda session: session.crop("1"), "length='1' must be an integer"),
        (lambda session: session.crop(1.0), "length=1.0 must be an integer"),
        (lambda session: session.crop(torch.ones(3)), "length=.* must be of dtype torch.long"),
        (lambda session: session.crop(torch.tensor([1, 1])), r"length=\[1, 1\] must be an integer, or 3 of"),
    ],
)
def test_wrong_arguments_change_nothing(change: Any, message: str) -> None:
    session = session_of(model_of("llama"))
    session.step(TOKENS[:, :2])
    rows, logits, length = session.history.rows(), session.logits, session.cache.length
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=f"^{message}"):
        change(session)
    assert session.history.rows() == rows
    assert session.logits is logits
    assert session.cache.length == length


def test_sessions_start_before_anything_else() -> None:
    model = model_of("llama")
    _, request = resolve(model, PROMPTS, Greedy(), {"max_new_tokens": 2})
    session = DecodingSession(model, request)
    changes: Any = (lambda: session.step(TOKENS), lambda: session.crop(0), lambda: session.reorder(TOKENS))
    for change in changes:
        with pytest.raises(ValueError, match="The session has not started; call start"):
            change()
    names = ("logits", "step_logits", "log_probs", "states", "context", "device", "history", "cache")
    for name in names:
        with pytest.raises(ValueError, match="The session has not started; call start"):
            getattr(session, name)
    with pytest.raises(ValueError, match="The session has not started; call start"):
        session.process(torch.zeros(3, 40))
    with pytest.raises(ValueError, match="The session has not started; call start"):
        session.raise_for_empty_rows(torch.tensor([True] * 3))
    with pytest.raises(AttributeError, match="'DecodingSession' object has no attribute 'logit'"):
        session.logit  # noqa: B018
    with pytest.raises(TypeError, match=r"cross_attention=\[1.0, 1.0\] must be True or False"):
        session.start(cross_attention=torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows_per_prompt=0 must be at least 1"):
        session.start(0)
    with pytest.raises(ValueError, match="cross_attention=True must be False for models without an encoder"):
        session.start(cross_attention=True)
    with pytest.raises(TypeError, match="lookahead='2' must be an integer"):
        DecodingSession(model, request, lookahead="2")  # type: ignore[arg-type]


def test_sessions_are_of_a_model_and_a_request() -> None:
    model: Any = model_of("llama")
    _, request = resolve(model, PROMPTS, Greedy(), {"max_new_tokens": 2})
    with pytest.raises(TypeError, match="request=None must be a GenerationRequest"):
        DecodingSession(model, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model=None must be one that predicts the next token"):
        DecodingSession(None, request)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be in eval mode"):
        DecodingSession(model.train(), request)


def test_positions_limit_a_step_before_it_changes_anything() -> None:
    """The lookahead goes beyond the position table."""
    model = model_of("gpt2")
    arguments: GenerationOptions = {"max_new_tokens": 60, "stop": minitx.Stop(eos=())}
    _, request = resolve(model, [[5] * 5], Greedy(), arguments)
    session = DecodingSession(model, request, lookahead=4)
    session.start()
    with pytest.raises(ArgumentValueError, match="must be at most 59 per row"):
        session.step(torch.full((1, 60), 7))
    assert session.history.rows() == [[5] * 5]
    session.step(torch.full((1, 59), 7))
    assert session.cache.length == 64


def test_rows_within_prompts_keep_their_sources() -> None:
    """The cross-attention cache is not moved within prompts."""
    model = model_of("t5")
    _, request = resolve(model, PROMPTS[:2], Greedy(), {"max_new_tokens": 3})
    session = DecodingSession(model, request)
    session.start(2)
    logits = session.logits
    for change in (session.reorder, lambda rows: session.step(torch.ones(4).long(), rows)):
        with pytest.raises(ArgumentValueError, match=r"rows=\[1, 2, 2, 3\] must be for each row one of"):
            change(torch.tensor([1, 2, 2, 3]))
        with pytest.raises(ArgumentValueError, match="rows=4 must be from 0 to 3"):
            change(torch.tensor([0, 1, 2, 4]))
    assert session.logits is logits
    session.reorder(torch.tensor([1, 1, 3, 2]))
    session.reorder(torch.tensor([2, 3, 0, 1]), within_prompts=False)
    assert torch.equal(session.logits, logits[[3, 2, 1, 1]])


def test_logits_before_the_last_step_need_no_lookahead() -> None:
    model = model_of("llama")
    _, request = resolve(model, PROMPTS, Greedy(), {"max_new_tokens": 6})
    session = DecodingSession(model, request)
    session.start()
    before = session.logits
    session.step(TOKENS)
    session.crop(0)
    assert session.logits is before


# --- embeddings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "sliding"])
@pytest.mark.parametrize("strategy", [Greedy(), minitx.Beam(num_beams=3), minitx.Sample(top_k=8)], ids=str)
@pytest.mark.parametrize("chunk", [None, 2])
def test_embeddings_of_ids_continue_as_the_ids_do(kind: str, strategy: Any, chunk: int | None) -> None:
    model = model_of(kind)
    options: dict[str, Any] = {"max_new_tokens": 8, "prefill_chunk": chunk}
    if isinstance(strategy, minitx.Sample):
        options["seed"] = 3
    expected = minitx.generate(model, PROMPTS, strategy, **options)
    embeds = [model.embedder.word_emb(torch.tensor(prompt)) for prompt in PROMPTS]
    found = minitx.generate(model, PROMPTS, strategy, inputs_embeds=embeds, **options)
    assert [row.tolist() for row in found.sequences] == [row.tolist() for row in expected.sequences]


@pytest.mark.parametrize("strategy", [Greedy(), minitx.Beam(num_beams=2)], ids=str)
def test_embeddings_stay_within_the_original_context_of_longrope(strategy: Any) -> None:
    """Beyond it a row is run anew, by ids that do not exist for embeddings; known before any work."""
    model = model_of("longrope")
    embeds = [model.embedder.word_emb(torch.tensor(prompt)) for prompt in PROMPTS]
    with pytest.raises(ArgumentValueError, match="max_new_tokens=4 must be at most 3 with inputs_embeds; Lo"):
        minitx.generate(model, PROMPTS, strategy, max_new_tokens=4, inputs_embeds=embeds)
    found = minitx.generate(model, PROMPTS, strategy, max_new_tokens=3, inputs_embeds=embeds)
    expected = minitx.generate(model, PROMPTS, strategy, max_new_tokens=3)
    assert [row.tolist() for row in found.sequences] == [row.tolist() for row in expected.sequences]
    prompt = list(range(8))  # is beyond it already, and stays there
    whole = [model.embedder.word_emb(torch.tensor(prompt))]
    long = minitx.generate(model, [prompt], strategy, max_new_tokens=4, inputs_embeds=whole)
    expected = minitx.generate(model, [prompt], strategy, max_new_tokens=4)
    assert long.sequences[0].tolist() == expected.sequences[0].tolist()


def test_a_prefix_of_embeddings_changes_what_follows() -> None:
    """The ids at their places are placeholders, which only processors see."""
    model = model_of("llama")
    embeds = [torch.cat((torch.randn(3, 16), model.embedder.word_emb(torch.tensor([7, 8]))))]
    options: dict[str, Any] = {"max_new_tokens": 8, "inputs_embeds": embeds}
    found = [minitx.generate(model, [[pad] * 3 + [7, 8]], Greedy(), **options).sequences for pad in (0, 1)]
    plain = minitx.generate(model, [[0, 0, 0, 7, 8]], Greedy(), max_new_tokens=8).sequences
    assert found[0][0].tolist() == found[1][0].tolist() != plain[0].tolist()


@pytest.mark.parametrize(
    ("kind", "embeds", "message"),
    [
        ("gpt2", [torch.zeros(2, 16)], r"must be a tensor per prompt, of shapes \[\(3, 16\), "),
        ("t5", [torch.zeros(1, 16)] * 3, "must be None for models with an encoder"),
    ],
)
def test_embeddings_that_do_not_fit(kind: str, embeds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^inputs_embeds=.* {message}"):
        minitx.generate(model_of(kind), PROMPTS, Greedy(), max_new_tokens=2, inputs_embeds=embeds)


# --- what sessions are ready for -------------------------------------------------------------------


@pytest.mark.parametrize(
    "embeds",
    [
        3,
        "abc",
        [None] * 3,
        [[[0.0] * 16] * len(prompt) for prompt in PROMPTS],
        [torch.zeros(len(prompt), 16).numpy() for prompt in PROMPTS],
        [torch.zeros(len(prompt), 16, dtype=torch.long) for prompt in PROMPTS],
        torch.zeros(3, 5, 16, dtype=torch.bool),
    ],
    ids=["number", "text", "none", "lists", "arrays", "integers", "bools"],
)
def test_embeddings_are_floating_point_tensors(embeds: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^inputs_embeds=.* must be a floating-point tensor"):
        minitx.generate(model_of("gpt2"), PROMPTS, Greedy(), max_new_tokens=2, inputs_embeds=embeds)


@pytest.mark.parametrize("kind", CONFIGS)
def test_speculative_decoding_is_a_loop_over_two_sessions(kind: str) -> None:
    """A draft model proposes tokens, the model verifies them in one step; each row keeps its own number."""
    model = model_of(kind)
    layers = {"gpt2": "n_layer", "t5": "num_layers"}.get(kind, "num_hidden_layers")
    config = {**CONFIGS[kind], layers: 1}
    draft_model: Any = minitx.from_config(config, head=model.task, seed=0).eval()
    draft_model.load_state_dict(model.state_dict(), strict=False)  # the first layer alone
    target, draft = (session_of(each, max_new_tokens=36) for each in (model, draft_model))
    expected = minitx.generate(model, PROMPTS, Greedy(), max_new_tokens=9, stop=minitx.Stop(eos=()))
    accepted_lengths = set()
    while int(target.context.generated.min()) < 9:
        tokens = []
        for _ in range(3):
            tokens.append(draft.logits.argmax(dim=-1))
            draft.step(tokens[-1])
        proposed, before = torch.stack(tokens, dim=1), target.context.generated
        first = target.logits
        target.step(proposed)
        predicted = torch.cat((first[:, None], target.step_logits), dim=1).argmax(dim=-1)  # (R, 4)
        accepted = (proposed == predicted[:, :3]).long().cumprod(dim=1).sum(dim=1)
        accepted_lengths |= set(accepted.tolist())
        for session in (target, draft):
            session.crop(before + accepted)
            session.step(predicted.gather(1, accepted[:, None]))
    prompts = target.context.prompt_length.tolist()
    rows = [row[start : start + 9] for start, row in zip(prompts, target.history.rows(), strict=True)]
    assert rows == [row.tolist() for row in expected.sequences]
    assert len(accepted_lengths) > 1


class Guided(Greedy):
    """Classifier-free guidance: a second session continues the prompts without their first token."""

    def run(self, session: DecodingSession, observe: Any = None) -> Any:
        request = session.request
        plain = replace(request, prompts=[prompt[1:] for prompt in request.prompts])
        other = DecodingSession(session.model, plain)
        session.start()
        other.start()
        for position in range(request.max_new_tokens):
            token = (2 * session.log_probs - other.log_probs).argmax(dim=-1)
            yield [Event(row, each, "") for row, each in enumerate(token.tolist())]
            if position + 1 < request.max_new_tokens:
                session.step(token)
                other.step(token)


def test_guidance_is_a_second_session() -> None:
    model = model_of("llama")
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    found = minitx.generate(model, prompts, Guided(), max_new_tokens=5, stop=minitx.Stop(eos=()))
    for prompt, tokens in zip(prompts, found.sequences, strict=True):
        ids = list(prompt)
        for token in tokens.tolist():
            whole, part = (model(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in (ids, ids[1:]))
            assert int((2 * whole - part).argmax()) == token
            ids.append(token)
