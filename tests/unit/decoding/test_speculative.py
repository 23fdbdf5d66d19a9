"""`Speculative` generates what its target generates, whatever the draft and the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import minitx
from minitx.decoding import (
    Chain,
    Context,
    DraftModel,
    DynamicLength,
    EarlyExit,
    Greedy,
    PromptLookup,
    Sample,
    Speculative,
    SuffixDraft,
)
from minitx.decoding.speculative.draft_model import ModelDrafter
from minitx.decoding.speculative.early_exit import first_layers
from minitx.decoding.speculative.lengths import Lengths
from minitx.decoding.speculative.suffix import SuffixIndex
from minitx.decoding.speculative.verification import Match, Verdict
from tests.parity.generators import build
from tests.unit.decoding.chi_square import ALPHA, p_value
from tests.unit.decoding.test_session import CONFIGS as SESSIONS
from tests.unit.decoding.test_session import SMALL, Count

NO_END = minitx.Stop(eos=())
LAYERS = {"gpt2": "n_layer", "t5": "num_layers", "bloom": "n_layer"}
CONFIGS: dict[str, dict[str, Any]] = {
    **SESSIONS,
    "bloom": {**SMALL, "model_type": "bloom", "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "opt": {
        **SMALL,
        "model_type": "opt",
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 24,
        "max_position_embeddings": 64,
    },
}
PROMPTS = [[5, 6, 7, 5, 6], [8, 9, 10, 11, 12, 8, 9, 10], [13]]


@cache
def models(kind: str) -> tuple[Any, Any]:
    """A model in float64, and one of its first layer alone."""
    config, layers = CONFIGS[kind], LAYERS.get(kind, "num_hidden_layers")
    head = "seq2seq-lm" if kind == "t5" else "causal-lm"
    model: Any = minitx.from_config(config, head=head, seed=0).eval()
    small: Any = minitx.from_config({**config, layers: 1}, head=head, seed=0).eval()
    small.load_state_dict(model.state_dict(), strict=False)
    return model.double(), small.double()


def drafts(kind: str) -> dict[str, Any]:
    model, small = models(kind)
    return {
        "lookup": PromptLookup(),
        "small": DraftModel(small),
        "itself": DraftModel(model),
        "greedy": DraftModel(small, Greedy()),
        "first layer": EarlyExit(1),
        "suffix": SuffixDraft([[5, 6, 9, 1, 2], [13, 4, 4, 4]]),
    }


def tokens(result: Any) -> list[list[int]]:
    return [row.tolist() for row in result.sequences]


def generated(kind: str, strategy: Any, prompts: Sequence[Sequence[int]] = PROMPTS, **options: Any) -> Any:
    options = {"max_new_tokens": 24, "stop": NO_END, **options}
    return minitx.generate(models(kind)[0], prompts, strategy, **options)


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_tokens_are_those_of_greedy_decoding(kind: str) -> None:
    expected = tokens(generated(kind, Greedy()))
    for name, draft in drafts(kind).items():
        for count in (1, 2, 3, 5, 8) if name == "small" else (4,):
            strategy = Speculative(draft=draft, tokens=count)
            assert tokens(generated(kind, strategy)) == expected, (name, count)
    for rule in ("dynamic", DynamicLength(first=1, most=6, confidence=0.2)):
        strategy = Speculative(draft=drafts(kind)["small"], tokens=rule)  # type: ignore[arg-type]
        assert tokens(generated(kind, strategy)) == expected


@pytest.mark.parametrize("kind", ["llama", "sliding", "t5"])
def test_match_draws_the_tokens_of_plain_sampling(kind: str) -> None:
    target = Sample(temperature=0.8, top_p=0.9, repetition_penalty=1.2)
    expected = tokens(generated(kind, target, seed=3, num_samples=2))
    for name in ("lookup", "small", "first layer"):
        strategy = Speculative(draft=drafts(kind)[name], target=target, verify="match")
        assert tokens(generated(kind, strategy, seed=3, num_samples=2)) == expected


@pytest.mark.parametrize("kind", ["gpt2", "sliding", "t5"])
@pytest.mark.parametrize("verify", ["rejection", "block"])
def test_a_row_does_not_depend_on_the_batch(kind: str, verify: Any) -> None:
    for name in ("small", "lookup", "suffix") if verify == "rejection" else ("small",):
        draft = drafts(kind)[name]
        strategy = Speculative(draft=draft, target=Sample(temperature=0.7), verify=verify, tokens=4)
        whole = tokens(generated(kind, strategy, seed=5, num_samples=2))
        rows = [generated(kind, strategy, [prompt], seed=5, num_samples=2) for prompt in PROMPTS]
        assert [row for result in rows for row in tokens(result)] == whole
        backwards = tokens(generated(kind, strategy, PROMPTS[::-1], seed=5))[::-1]
        assert backwards == whole[::2]


@pytest.mark.parametrize("verify", ["rejection", "match", "block"])
def test_ends_of_rows_are_those_of_plain_decoding(verify: Any) -> None:
    """End tokens, stop tokens, minimal and maximal numbers of tokens; the rows end at different places."""
    draft = drafts("llama")["small"]
    for target, options in product(
        (Greedy(), Sample(temperature=0.7)),
        (
            {"stop": minitx.Stop(eos=range(8))},
            {"stop": minitx.Stop(eos=(), tokens=range(10))},
            {"stop": minitx.Stop(eos=range(8)), "min_new_tokens": [3, 9, 5]},
            {"stop": minitx.Stop(eos=range(8)), "max_new_tokens": 1},
            {"stop": minitx.Stop(eos=range(4)), "max_new_tokens": 2},
        ),
    ):
        if isinstance(target, Sample) and verify != "match":
            continue
        seeded: dict[str, Any] = {**options, "seed": 1} if isinstance(target, Sample) else {**options}
        expected = generated("llama", target, **seeded)
        found = generated("llama", Speculative(draft=draft, target=target, verify=verify), **seeded)
        assert tokens(found) == tokens(expected)
        assert found.finish_reasons == expected.finish_reasons
    assert tokens(generated("llama", Speculative(draft=draft), max_new_tokens=0)) == [[], [], []]


def test_stop_strings_and_texts() -> None:
    model, tokenizer = (
        minitx.load("minitx/tiny-decoder", dtype="float32"),
        minitx.load_tokenizer("minitx/tiny-decoder"),
    )
    prompts = ["The king of", "She opened the door and"]
    options: dict[str, Any] = {"max_new_tokens": 40, "tokenizer": tokenizer}
    plain = minitx.generate(model, prompts, Greedy(), **options)
    assert plain.texts is not None
    stop = minitx.Stop(strings=(plain.texts[0][9:12], plain.texts[1][20:23]))
    expected = minitx.generate(model, prompts, Greedy(), stop=stop, **options)
    for draft in (PromptLookup(), DraftModel(model)):
        found = minitx.generate(model, prompts, Speculative(draft=draft), stop=stop, **options)
        assert (found.texts, found.finish_reasons) == (expected.texts, expected.finish_reasons)
        assert tokens(found) == tokens(expected)
        assert "stop" in found.finish_reasons


@pytest.mark.parametrize("logprobs", ["raw", "processed"])
def test_logprobs_are_those_of_plain_decoding(logprobs: Any) -> None:
    target = Greedy(repetition_penalty=1.3)
    options: dict[str, Any] = {"logprobs": logprobs, "top_logprobs": 2}
    expected = generated("gpt2", target, **options)
    found = generated("gpt2", Speculative(draft=drafts("gpt2")["small"], target=target), **options)
    for row in range(3):
        assert torch.allclose(found.logprobs[row], expected.logprobs[row], atol=1e-5)
        assert torch.equal(found.top_logprobs[row].ids, expected.top_logprobs[row].ids)


def test_streams() -> None:
    strategy = Speculative(draft=PromptLookup())
    rows: list[list[int]] = [[], [], []]
    for event in minitx.stream(models("gpt2")[0], PROMPTS, strategy, max_new_tokens=24, stop=NO_END):
        rows[event.row].append(event.token)
    assert rows == tokens(generated("gpt2", Greedy()))


def test_states_of_processors_go_back_with_rejected_tokens() -> None:
    for target in (Greedy(processors=[Count()]), Greedy(processors=[Shifted()])):
        expected = tokens(generated("gpt2", target))
        for draft in drafts("gpt2").values():
            assert tokens(generated("gpt2", Speculative(draft=draft, target=target))) == expected


class Shifted(Count):
    """A bonus for tokens by the number and the sum of those before."""

    def update(self, state: Any, context: Context, token: Tensor, logits: Tensor) -> Any:
        return {"count": state["count"] + 1, "sum": (state["sum"] * 3 + token) % 7}

    def __call__(self, logits: Tensor, context: Context, state: Any) -> Tensor:
        bonus = 2.0 * torch.arange(logits.shape[1])[None].remainder(7).eq(state["sum"][:, None])
        return logits + bonus


def test_values_per_row_and_samples_keep_their_rows() -> None:
    """Finished rows then stay in the batch."""
    target = Sample(temperature=[0.0, 0.6, 0.9], repetition_penalty=[1.0, 1.5, 0.9])
    options: dict[str, Any] = {"seed": 2, "stop": minitx.Stop(eos=range(6)), "max_new_tokens": 30}
    expected = tokens(generated("llama", target, **options))
    assert len({len(row) for row in expected}) > 1
    for draft in drafts("llama").values():
        strategy = Speculative(draft=draft, target=target, verify="match")
        assert tokens(generated("llama", strategy, **options)) == expected


def test_positions_may_be_used_up() -> None:
    """The table has 64; drafted tokens beyond it are not kept."""
    prompts = [[5] * 44, [6, 7]]
    expected = tokens(generated("gpt2", Greedy(), prompts, max_new_tokens=21))
    for draft in drafts("gpt2").values():
        strategy = Speculative(draft=draft, tokens=8)
        assert tokens(generated("gpt2", strategy, prompts, max_new_tokens=21)) == expected


def test_a_generator_draws_too() -> None:
    strategy = Speculative(draft=drafts("gpt2")["small"], target=Sample(temperature=0.5))
    first, again = (
        tokens(generated("gpt2", strategy, generator=torch.Generator().manual_seed(4))) for _ in range(2)
    )
    assert first == again


def test_embeddings_as_prompts() -> None:
    model, small = models("llama")
    embeds = [model.embedder.word_emb(torch.tensor(prompt)).detach() for prompt in PROMPTS]
    strategy = Speculative(draft=PromptLookup())
    assert tokens(generated("llama", strategy, inputs_embeds=embeds)) == tokens(generated("llama", Greedy()))
    with pytest.raises(
        ValueError, match=r"inputs_embeds=.* must be None: a draft model has other embeddings"
    ):
        generated("llama", Speculative(draft=DraftModel(small)), inputs_embeds=embeds)


# --- distributions ---------------------------------------------------------------------------------

FEW, LONG = 4, 4
PROMPT = [1]
TARGET = Sample(temperature=0.8, top_k=3, repetition_penalty=1.4, presence_penalty=1.0)


@cache
def few(seed: int) -> Any:
    config = {**CONFIGS["gpt2"], "vocab_size": FEW, "n_embd": 8, "n_layer": 1, "initializer_range": 0.8}
    return minitx.from_config(config, head="causal-lm", seed=seed).eval()


@cache
def law() -> Tensor:
    """The probability of each sequence of `LONG` tokens, by forwards over whole prefixes: (4,) * 4."""
    joint = torch.ones((), dtype=torch.float64)
    for length in range(LONG):
        prefixes = list(product(range(FEW), repeat=length))
        rows = torch.tensor([[*PROMPT, *prefix] for prefix in prefixes])
        with torch.no_grad():
            logits = few(0)(rows).logits[:, -1]
        count = torch.full((len(rows),), rows.shape[1])
        processed = TARGET.build()(logits, Context(rows, count, torch.full_like(count, len(PROMPT))))
        joint = joint[..., None] * processed.double().softmax(dim=-1).view([FEW] * (length + 1))
    return joint


def fit(strategy: Any, number: int, seed: int = 0) -> float:
    result = minitx.generate(
        few(0), [PROMPT], strategy, max_new_tokens=LONG, num_samples=number, seed=seed, stop=NO_END
    )
    sequences = torch.stack(result.sequences)
    code = (sequences * FEW ** torch.arange(LONG - 1, -1, -1)).sum(dim=1)
    return p_value(torch.bincount(code, minlength=FEW**LONG), law().flatten() * number)


@pytest.mark.parametrize(
    ("draft", "verify", "number"),
    [
        (DraftModel(few(1)), "rejection", 40_000),
        (DraftModel(few(1), Sample(temperature=2.0)), "block", 20_000),
        (DraftModel(few(1), Greedy()), "rejection", 10_000),
        (PromptLookup(), "rejection", 10_000),
        (DraftModel(few(0)), "match", 10_000),
    ],
    ids=["model", "block", "greedy", "lookup", "match"],
)
def test_the_joint_distribution_across_blocks(draft: Any, verify: Any, number: int) -> None:
    """Every row accepts its own number of tokens; with a penalty and a filter."""
    assert fit(Speculative(draft=draft, tokens=2, target=TARGET, verify=verify), number) > ALPHA


@pytest.mark.parametrize("change", ["stale history", "temperature of the target", "lenient"])
def test_the_joint_distribution_finds_mistakes(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"verify": "lenient", "threshold": 0.1} if change == "lenient" else {}
    target = TARGET
    if change == "temperature of the target":
        target = replace(TARGET, temperature=0.9)
    if change == "stale history":
        from minitx.decoding.session import DecodingSession

        def _stale(self: Any, index: int) -> Tensor:
            logits, _, states = self._after(index)
            return self.request.chain(logits, self._after(0)[1], states)

        monkeypatch.setattr(DecodingSession, "process_step", _stale)
    draft = DraftModel(few(1), Sample(temperature=2.0))
    assert fit(Speculative(draft=draft, tokens=3, target=target, **options), 10_000) < ALPHA


def test_the_acceptance_rate_is_the_overlap_of_the_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum min(p, q); a test could also pass because no drafted token is ever accepted."""
    from minitx.decoding.speculative import verification as module

    accepted: list[Tensor] = []
    original = module.TokenByToken.__call__

    def _record(self: Any, block: Any) -> Verdict:
        verdict = original(self, block)
        if not block.proposal.tokens.shape[1]:
            return verdict
        p, q = block.scores(0).softmax(-1), block.q(0, block.scores(0))
        accepted.append(torch.stack([(verdict.accepted > 0).double(), torch.minimum(p, q).sum(-1).double()]))
        return verdict

    monkeypatch.setattr(module.TokenByToken, "__call__", _record)
    strategy = Speculative(draft=DraftModel(few(1)), tokens=1, target=TARGET)
    minitx.generate(few(0), [PROMPT], strategy, max_new_tokens=3, num_samples=20_000, seed=7, stop=NO_END)
    found, expected = accepted[0].mean(dim=1).tolist()
    error = (expected * (1 - expected) / 20_000) ** 0.5
    assert abs(found - expected) < 5 * error
    assert 0.2 < expected < 0.98


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draft": 3}, "draft=3 must be a draft; such as PromptLookup"),
        ({"tokens": 0}, "tokens=0 must be from 1 to 256"),
        ({"tokens": True}, "tokens=True must be"),
        ({"target": minitx.Beam()}, r"target=Beam\(\) must be Greedy\(...\) or Sample\(...\)"),
        ({"target": minitx.ArithmeticSample()}, r"target=.* must be Greedy\(...\) or Sample\(...\)"),
        ({"verify": "always"}, "verify='always' must be"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 must be left out; the model's parameters are"),
        ({"top_p": 0.9}, "Speculative has no field 'top_p'. Sample has it."),
        ({"weight": 0.5}, "weight=0.5 must be None for verify='rejection'"),
        ({"verify": "ensemble", "target": Sample()}, "weight=None must be"),
        ({"verify": "lenient", "threshold": 1.5}, "threshold=1.5 must be"),
        ({"verify": "ensemble", "weight": 0.5}, r"verify='ensemble' must be another one for Greedy"),
    ],
)
def test_wrong_fields(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Speculative(**{"draft": PromptLookup(), **options})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_ngram": 3, "max_ngram": 2}, "min_ngram=3 must be at most max_ngram=2"),
        ({"max_ngram": 0}, "max_ngram=0 must be at least 1"),
    ],
)
def test_wrong_lookups(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        PromptLookup(**values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyExit(0), "layers=0 must be at least 1"),
        (lambda: EarlyExit(1, minitx.Beam()), "strategy=.* must be Greedy"),
        (lambda: SuffixDraft("text"), "past='text' must be a list of strings"),
        (lambda: SuffixDraft(["text"]), r"tokenizer=None must be a Tokenizer; past\[0\] is a string"),
        (lambda: SuffixDraft([[1, -1]]), "past.*=-1 must be at least 0"),
        (lambda: SuffixDraft(max_match=0), "max_match=0 must be at least 1"),
        (lambda: SuffixDraft(min_frequency=2), "min_frequency=2 must be"),
        (lambda: DynamicLength(first=0), "first=0 must be at least 1"),
        (lambda: DynamicLength(confidence=1.5), "confidence=1.5 must be"),
        (lambda: DraftModel(few(1), tokenizer="gpt2"), "tokenizer='gpt2' must be a Tokenizer"),
    ],
)
def test_wrong_drafts(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        make()


def test_wrong_draft_models() -> None:
    small = models("gpt2")[1]
    with pytest.raises(ValueError, match=r"model=.* must be one that predicts the next token"):
        DraftModel(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"strategy=.* must be Greedy"):
        DraftModel(small, minitx.Beam())
    with pytest.raises(ValueError, match=r"strategy=.* must be one whose processors have no state"):
        DraftModel(small, Greedy(processors=[Count()]))
    with pytest.raises(ValueError, match=r"draft=.* must be with the 40 token ids of the model, not 4"):
        generated("gpt2", Speculative(draft=DraftModel(few(1))))
    with pytest.raises(ValueError, match=r"draft=.* must be of task 'causal-lm', not 'seq2seq-lm'"):
        generated("gpt2", Speculative(draft=DraftModel(models("t5")[1])))
    with pytest.raises(
        ValueError, match=r"draft=.* must be with more positions than 64 for max_new_tokens=70"
    ):
        generated("llama", Speculative(draft=DraftModel(small)), max_new_tokens=70)


def test_refused_calls() -> None:
    strategy = Speculative(draft=PromptLookup())
    with pytest.raises(ValueError, match=r"^Speculative\(...\) chooses several tokens at a time"):
        minitx.explain(models("gpt2")[0], PROMPTS[0], strategy)
    with pytest.raises(ValueError, match=r"seed=1 must be left out; Greedy\(\) draws nothing"):
        generated("gpt2", strategy, seed=1)
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config = {**CONFIGS["llama"], "max_position_embeddings": 32, "rope_parameters": rope}
    model = minitx.from_config(config, head="causal-lm", seed=0).eval()
    with pytest.raises(ValueError, match="max_new_tokens=30 must be at most 18 with Speculative"):
        minitx.generate(model, PROMPTS, strategy, max_new_tokens=30)
    assert minitx.generate(model, PROMPTS, strategy, max_new_tokens=18)


def test_a_row_without_a_token_is_an_error() -> None:
    def nothing(logits: Tensor, context: Context) -> Tensor:
        """Bans all tokens after five."""
        return logits.masked_fill((context.generated >= 5)[:, None], -torch.inf)

    for draft in drafts("gpt2").values():
        for verify in ("rejection", "match", "block"):
            strategy = Speculative(draft=draft, target=Sample(processors=[nothing]), verify=verify)
            with pytest.raises(ValueError, match=r"^Row \d, step 5: nothing left no token"):
                generated("gpt2", strategy, seed=0)
            assert tokens(generated("gpt2", strategy, seed=0, max_new_tokens=5))


# --- values ----------------------------------------------------------------------------------------


def test_strategies_are_values() -> None:
    first = Speculative(draft=PromptLookup(max_ngram=2), tokens=4, target=Sample(top_k=3))
    assert first == Speculative(draft=PromptLookup(max_ngram=2), tokens=4, target=Sample(top_k=3))
    shown = "draft=PromptLookup(max_ngram=2, min_ngram=1), tokens=4, target=Sample(top_k=3)"
    assert repr(first) == f"Speculative({shown})"
    assert first.exact
    lossy = Speculative(draft=PromptLookup(), verify="typical")
    assert not lossy.exact
    assert repr(lossy).endswith("verify='typical', threshold=0.09, exact=False)")
    assert first.build() == Sample(top_k=3).build() == Chain(*first.build().processors)


def test_the_first_longest_match_is_proposed() -> None:
    text = [1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]
    assert PromptLookup().continuation(text, 4) == [4, 9, 2, 3]
    assert PromptLookup(max_ngram=2).continuation([7, 2, 3, 8, 1, 2, 3], 9) == [8, 1, 2, 3]
    assert PromptLookup().continuation([1, 2, 3], 4) == []
    assert PromptLookup(min_ngram=2).continuation([3, 1, 3], 4) == []
    assert PromptLookup().continuation([3, 3], 4) == [3]


def test_the_most_frequent_continuation_is_followed() -> None:
    draft = SuffixDraft([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 5], [2, 9]], max_match=3)
    own = SuffixIndex(3)
    assert draft._follow([1, 2], own, 5) == [3, 5]
    assert draft._follow([7, 2], own, 1) == [3]
    assert draft._follow([7], own, 5) == []
    own.extend([], [1, 2, 3, 4, 4])
    own.extend([1, 2, 3, 4, 4], [6])
    assert own.counts[(4, 4)] == {6: 1}
    assert draft._follow([4, 4], own, 2) == [6]
    strict = SuffixDraft([[1, 2], [1, 3], [1, 2], [2, 4]], min_frequency=0.7)
    assert strict._follow([1], SuffixIndex(8), 4) == []
    assert strict._follow([2], SuffixIndex(8), 4) == [4]


def test_texts_of_the_past() -> None:
    tokenizer = minitx.load_tokenizer("minitx/tiny-decoder")
    text = "It was a dark night."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert SuffixDraft([text], tokenizer) == SuffixDraft([ids])
    assert SuffixDraft([text], tokenizer)._follow(ids[:2], SuffixIndex(8), 2) == ids[2:4]


def test_the_first_layers_share_the_weights() -> None:
    model = models("llama")[0]
    first = first_layers(model, 1)
    assert len(model.decoder.layers) == 2
    assert {id(p) for p in first.parameters()} < {id(p) for p in model.parameters()}
    expected = models("llama")[1](torch.tensor([[5, 6]])).logits
    assert torch.equal(first(torch.tensor([[5, 6]])).logits, expected)


def test_lengths_follow_the_acceptance() -> None:
    """Two more after a block that was accepted as a whole, one fewer after another."""
    lengths = Lengths(first=3, most=6, adapts=True)
    lengths.update([0, 1, 2], [3, 3, 0], [3, 2, 0])
    assert lengths.of([2, 1, 0]).tolist() == [3, 2, 5]
    for _ in range(3):
        lengths.update([0, 1], [5, 1], [5, 0])
    assert lengths.of([0, 1]).tolist() == [6, 1]


def test_drafts_end_with_a_token_that_is_not_probable() -> None:
    """Counts of the proposals, by the draft's own probabilities."""
    strategy = Speculative(
        draft=drafts("gpt2")["small"], tokens=DynamicLength(first=6, most=6, confidence=0.06)
    )
    proposals: list[Any] = []
    original = ModelDrafter.propose

    def _record(self: Any, *arguments: Any) -> Any:
        proposals.append(original(self, *arguments))
        return proposals[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelDrafter, "propose", _record)
        generated("gpt2", replace(strategy, target=Sample()), seed=0, max_new_tokens=12)
    counts = set()
    for tokens_, count, logits in filter(lambda proposal: proposal.tokens.shape[1], proposals):
        for row, number in enumerate(count.tolist()):
            chosen = logits[row].softmax(-1).gather(1, tokens_[row][:, None])[:number, 0]
            assert bool((chosen[:-1] >= 0.06).all())
            counts.add(number)
    assert len(counts) > 2


# --- another tokenizer -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A small model with byte-level BPE."""
    folder = build(tmp_path_factory.mktemp("other"), "gpt2")
    return minitx.load(folder), minitx.load_tokenizer(folder)


@pytest.mark.parametrize("target", [Greedy(), Sample(temperature=0.7)], ids=str)
def test_a_draft_with_another_tokenizer(other: tuple[Any, Any], target: Any) -> None:
    model, tokenizer = (
        minitx.load("minitx/tiny-decoder", dtype="float32"),
        minitx.load_tokenizer("minitx/tiny-decoder"),
    )
    prompts = ["The king of", "She opened the door and", "Once"]
    options: dict[str, Any] = {"max_new_tokens": 20, "tokenizer": tokenizer}
    if isinstance(target, Sample):
        options["seed"] = 1
    expected = minitx.generate(model, prompts, target, **options)
    accepted: list[int] = []
    for draft in (DraftModel(other[0], tokenizer=other[1]), DraftModel(model, tokenizer=tokenizer)):
        strategy = Speculative(draft=draft, target=target, verify="match")
        with pytest.MonkeyPatch.context() as patch:
            original = Match.__call__

            def _record(self: Any, block: Any, original: Any = original) -> Any:
                verdict = original(self, block)
                accepted.append(int(verdict.accepted.sum()))
                return verdict

            patch.setattr(Match, "__call__", _record)
            found = minitx.generate(model, prompts, strategy, **options)
        assert tokens(found) == tokens(expected)
    if isinstance(target, Greedy):
        assert sum(accepted) > 20  # the model itself drafts the right text


def test_drafts_of_text_need_the_tokenizer_of_the_model(other: tuple[Any, Any]) -> None:
    draft = DraftModel(other[0], tokenizer=other[1])
    with pytest.raises(
        ValueError, match="tokenizer=None must be the model's tokenizer; a draft with another"
    ):
        generated("gpt2", Speculative(draft=draft))
    with pytest.raises(ValueError, match=r"strategy=.* must be None with tokenizer="):
        DraftModel(other[0], Greedy(), tokenizer=other[1])
