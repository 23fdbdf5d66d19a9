#!/usr/bin/env python
"""Write tests/parity/fixtures/: results of the group and constrained beam search of transformers 4.53.3.

Later versions of transformers no longer have them. Run it in a separate environment:

    python -m venv old && old/bin/pip install transformers==4.53.3 torch
    old/bin/python scripts/make_beam_fixtures.py

Models are tiny, with weights by a formula (tests/parity/formula.py); cases are drawn by seed.

diverse.json             group beam search
constrained.json         constrained beam search, with num_return_sequences=num_beams
constrained_fewer.json   the same with any number, and whether the result is complete: whether every sequence
                         has all forced words with num_return_sequences=num_beams too
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.generation import beam_constraints
from transformers.generation.beam_search import ConstrainedBeamSearchScorer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.parity.formula import weight  # noqa: E402 - found by the line above

VERSION = "4.53.3"
VOCAB, PAD, START, EOS = 40, 0, 1, (2, 3, 4)
# Prompts use the lower half of the other ids, forced words the upper half.
PROMPT_IDS, FORCED_IDS = range(5, 22), range(22, 40)
COMMON = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": START, "eos_token_id": EOS[0]}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 48},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 48,
    },
    "t5": {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "decoder_start_token_id": PAD,
    },
    "bart": {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 20,
        "max_position_embeddings": 48,
        "decoder_start_token_id": EOS[0],
        "forced_eos_token_id": None,
    },
}
CASES = 32  # per model and search


def made(model_type: str) -> tuple[Any, dict[str, list[int]]]:
    """Make a model in eval mode; return it and the shapes of its weights by their names in a checkpoint."""
    config = transformers.AutoConfig.for_model(model_type, **COMMON, **CONFIGS[model_type])
    encoder_decoder = config.is_encoder_decoder
    auto = transformers.AutoModelForSeq2SeqLM if encoder_decoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config).eval()
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(name, shapes[name]))
    model.generation_config = transformers.GenerationConfig(
        **{key: getattr(config, key, None) for key in ("decoder_start_token_id", "pad_token_id")}
    )
    return model, shapes


def common_arguments(draw: random.Random) -> dict[str, Any]:
    beams, bias = draw.choice([2, 3, 4, 6]), draw.choice([0.5, 1.5, 2.5])  # so that many texts end
    return {
        "num_beams": beams,
        "num_return_sequences": draw.randint(1, beams),
        "length_penalty": draw.choice([-1.0, 0.0, 0.6, 1.0, 2.0]),
        "early_stopping": draw.choice([True, False, "never"]),
        "eos_token_id": list(EOS[: draw.randint(1, 3)]),
        "max_new_tokens": draw.choice([1, 5, 8, 11]),
        "min_new_tokens": draw.choice([0, 0, 3]),
        "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
        "sequence_bias": [[[token], bias] for token in EOS],
        # Groups that are done append the padding id there, which bans it for the others.
        "suppress_tokens": [PAD],
    }


def diverse(draw: random.Random) -> dict[str, Any]:
    arguments = common_arguments(draw)
    groups = [size for size in range(2, arguments["num_beams"] + 1) if arguments["num_beams"] % size == 0]
    return {
        **arguments,
        "num_beam_groups": draw.choice(groups),
        "diversity_penalty": draw.choice([0.2, 0.7, 2.5]),
        "no_repeat_ngram_size": draw.choice([0, 0, 2]),
    }


def constrained_fewer(draw: random.Random) -> dict[str, Any]:
    """Draw phrases of 1 to 3 tokens, and choices among such phrases; no token twice."""
    tokens = draw.sample(FORCED_IDS, len(FORCED_IDS))

    def phrase() -> list[int]:
        return [tokens.pop() for _ in range(draw.randint(1, 3))]

    words: list[Any] = [phrase() for _ in range(draw.randint(0, 2))]
    if not words or draw.random() < 0.4:
        words.append([phrase() for _ in range(draw.randint(2, 3))])
    if draw.random() < 0.3:  # a choice whose phrases share their first tokens
        head = tokens.pop()
        words.append([[head, tokens.pop()], [head, tokens.pop(), tokens.pop()]])
    arguments = common_arguments(draw)
    return {**arguments, "max_new_tokens": draw.choice([8, 12]), "force_words_ids": words}


def constrained(draw: random.Random) -> dict[str, Any]:
    arguments = constrained_fewer(draw)
    return {**arguments, "num_return_sequences": arguments["num_beams"]}


SEARCHES = {"diverse": diverse, "constrained": constrained, "constrained_fewer": constrained_fewer}


class Watch:
    """Detect runs in which 4.53.3 has a bug, so that its result is not that of its algorithm.

    - Choices copied in the middle of a phrase share one list of matched tokens.
    - A token that breaks a phrase is not considered as the beginning of another phrase.
    - With `push_progress`, a sequence with all words continues after an end token.
    """

    def __init__(self) -> None:
        self.wrong = self.push_progress = False  # `generate` leaves push_progress at its default
        self.eos: list[int] = []
        state = beam_constraints.ConstraintListState
        add, advance, init_state = state.add, state.advance, state.init_state

        def watched_add(this: Any, token: int) -> Any:
            active = this.inprogress_constraint
            if active is not None and not active.does_advance(token):
                fresh = [*this.pending_constraints, active.copy(stateful=False)]
                self.wrong |= any(constraint.does_advance(token) for constraint in fresh)
            return add(this, token)

        def watched_advance(this: Any) -> Any:
            tokens = advance(this)
            self.wrong |= this.inprogress_constraint is not None and len(tokens or ()) > 1
            return tokens

        def whole_init_state(this: Any) -> None:
            """Reset `completed` too, the only repair; `push_progress` needs it."""
            init_state(this)
            this.completed = False

        state.add, state.advance, state.init_state = watched_add, watched_advance, whole_init_state
        scorer = ConstrainedBeamSearchScorer
        step = scorer.step_sentence_constraint

        def watched_step(this: Any, number: int, ids: Any, scores: Any, *others: Any) -> Any:
            if self.push_progress:
                here = slice(number * this.num_beams, (number + 1) * this.num_beams)
                for text, best in zip(ids[here].tolist(), scores[here].argmax(-1).tolist(), strict=True):
                    self.wrong |= best in self.eos and this.check_completes_constraints(text)
            return step(this, number, ids, scores, *others, push_progress=self.push_progress)

        scorer.step_sentence_constraint = watched_step


def run(model: Any, prompts: list[list[int]], arguments: dict[str, Any]) -> tuple[list[Any], list[float]]:
    """Return the new tokens of each prompt and hypothesis, up to the end token, and their scores.

    Both are empty if generate fails: it has no scores when it returns a sequence without a forced word.
    """
    longest = max(map(len, prompts))
    left = not model.config.is_encoder_decoder
    rows, masks = [], []
    for prompt in prompts:
        gap = [PAD] * (longest - len(prompt))
        mask = [0] * len(gap), [1] * len(prompt)
        rows.append(gap + prompt if left else prompt + gap)
        masks.append(mask[0] + mask[1] if left else mask[1] + mask[0])
    try:
        out = model.generate(
            torch.tensor(rows),
            attention_mask=torch.tensor(masks),
            pad_token_id=PAD,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **arguments,
        )
    except RuntimeError as error:
        if "NoneType" not in str(error):
            raise
        return [], []
    start = longest if left else 1
    sequences = []
    for row in out.sequences[:, start:].tolist():
        ends = [place for place, token in enumerate(row) if token in arguments["eos_token_id"]]
        sequences.append(row[: ends[0] + 1] if ends else row)
    return sequences, [round(score, 7) for score in out.sequences_scores.tolist()]


def complete(words: list[Any], sequences: list[list[int]]) -> bool:
    """Whether there are sequences, and each contains each forced phrase, or one of each choice."""

    def holds(tokens: list[int]) -> bool:
        def inside(phrase: list[int]) -> bool:
            return any(tokens[at : at + len(phrase)] == phrase for at in range(len(tokens)))

        return all(any(map(inside, word)) if isinstance(word[0], list) else inside(word) for word in words)

    return bool(sequences) and all(map(holds, sequences))


def main() -> None:
    assert transformers.__version__ == VERSION, f"run this with transformers {VERSION}"
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    watch = Watch()
    folder = ROOT / "tests/parity/fixtures"
    models: dict[str, Any] = {}
    cases: dict[str, list[dict[str, Any]]] = {search: [] for search in SEARCHES}
    left_out = dict.fromkeys(cases, 0)
    for model_type in CONFIGS:
        model, shapes = made(model_type)
        config = {"model_type": model_type, **COMMON, **CONFIGS[model_type]}
        models[model_type] = {"config": config, "shapes": shapes}
        for search, arguments_of in SEARCHES.items():
            kind = search.partition("_")[0]
            seed = -1
            while sum(case["model"] == model_type for case in cases[search]) < CASES:
                seed += 1
                draw = random.Random(f"{model_type} {kind} {seed}")
                arguments = arguments_of(draw)
                push = kind == "constrained" and draw.random() < 0.4
                # With push_progress the scorer confuses the prompts of a batch.
                lengths = [draw.randint(1, 7) for _ in range(1 if push else draw.choice([1, 2, 3]))]
                prompts = [[draw.choice(PROMPT_IDS) for _ in range(length)] for length in lengths]
                watch.wrong, watch.push_progress, watch.eos = False, push, arguments["eos_token_id"]
                words = arguments.get("force_words_ids", [])
                sequences, scores = run(model, prompts, arguments)
                if watch.wrong or not complete(words, sequences):
                    left_out[search] += 1
                    continue
                case = {"model": model_type, "prompts": prompts, "arguments": arguments}
                case |= {"push_progress": True} if push else {}
                if search == "constrained_fewer":
                    every = {**arguments, "num_return_sequences": arguments["num_beams"]}
                    case |= {"complete": complete(words, run(model, prompts, every)[0])}
                cases[search].append({**case, "sequences": sequences, "scores": scores})
    folder.mkdir(exist_ok=True)
    source = f"transformers {VERSION}, scripts/make_beam_fixtures.py"
    for search, found in cases.items():
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in found)
        head = json.dumps({"source": source, "models": models}, separators=(",", ":"))[:-1]
        (folder / f"{search}.json").write_text(f'{head},\n"cases":[\n{lines}\n]}}\n', encoding="utf-8")
        print(f"{search}: {len(found)} cases, and {left_out[search]} in which {VERSION} goes wrong")


if __name__ == "__main__":
    main()
