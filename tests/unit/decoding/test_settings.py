"""generation_config.json: what it states is taken, what minitx does not have is refused, nothing is added."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

import minitx
from minitx import Beam, BeamSample, ContrastiveSearch, Greedy, Sample, Stop, generation_settings
from minitx.decoding import ClassifierFree, DoLa
from minitx.decoding.generation_config import read_settings
from minitx.decoding.special_tokens import begin_token, end_tokens
from minitx.models import DecoderModel
from minitx.pipelines import generate_batches
from tests.unit.decoding.vocabularies import byte_level


def test_what_the_file_states_is_taken() -> None:
    """As Llama 3's, with more."""
    settings = read_settings(
        {
            "bos_token_id": 128000,
            "do_sample": True,
            "eos_token_id": [128001, 128009],
            "temperature": 0.6,
            "max_length": 4096,
            "top_p": 0.9,
            "max_new_tokens": 30,
            "min_new_tokens": 2,
            "stop_strings": ["\n\n"],
            "sequence_bias": [[[5, 6], -2.0]],
            "exponential_decay_length_penalty": [4, 1.1],
            "suppress_tokens": [],
            "repetition_penalty": None,
            "transformers_version": "4.40.0",
        }
    )
    assert settings.strategy == Sample(
        temperature=0.6,
        top_p=0.9,
        sequence_bias={(5, 6): -2.0},
        exponential_decay_length_penalty=(4, 1.1),
    )
    assert settings.stop == Stop(eos=(128001, 128009), strings=("\n\n",))
    assert (settings.max_new_tokens, settings.min_new_tokens) == (30, 2)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"max_new_tokens": "5"}, "max_new_tokens='5' must be an integer"),
        ({"min_new_tokens": -3}, "min_new_tokens=-3 must be at least 0"),
        ({"do_sample": 1}, "do_sample=1 must be true or false"),
        ({"do_sample": "true"}, "do_sample='true' must be true or false"),
        ({"sequence_bias": [[1, 2]]}, "must be pairs of ids and a bias"),
    ],
)
def test_what_is_no_setting_is_refused_by_the_name_of_the_file(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(
        ValueError, match=f"generation_config.json: {message}|generation_config.json.*{message}"
    ):
        read_settings(stated)


def test_what_another_strategy_is_for_is_named() -> None:
    with pytest.raises(ValueError, match=r"asks for num_beam_groups=2: use strategy=DiverseBeam"):
        read_settings({"num_beams": 4, "num_beam_groups": 2})
    with pytest.raises(ValueError, match=r"asks for force_words_ids=\[\[5\]\]: use strategy=LexicalBeam"):
        read_settings({"force_words_ids": [[5]]})
    assert read_settings({"forced_bos_token_id": [7]}).strategy == Greedy(forced_bos_token_id=7)


def test_max_length_is_the_length_of_what_an_encoder_decoder_writes(tmp_path: Path) -> None:
    """With the token that it starts from, as in transformers."""
    t5 = {
        "model_type": "t5",
        "vocab_size": 40,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 20,
        "num_layers": 1,
        "num_heads": 2,
    }
    model: Any = minitx.from_config(t5, head="seq2seq-lm", seed=0).eval()
    model.checkpoint.generation_file = json.dumps({"max_length": 6, "eos_token_id": [39]}).encode()
    sequences = minitx.generate(model, [[5, 6]], "checkpoint", stop=Stop(eos=())).sequences
    assert len(sequences[0]) == 5
    begun = minitx.generate(model, [[5, 6]], "checkpoint", stop=Stop(eos=()), decoder_prompts=[[0, 7, 8]])
    assert len(begun.sequences[0]) == 3
    assert (
        len(minitx.generate(model, [[5]], "checkpoint", stop=Stop(eos=()), max_new_tokens=2).sequences[0])
        == 2
    )


def test_several_beams_are_a_search() -> None:
    """As BART's."""
    stated = {
        "num_beams": 4,
        "early_stopping": True,
        "length_penalty": 2.0,
        "no_repeat_ngram_size": 3,
        "forced_eos_token_id": 2,
        "temperature": 0.5,
    }
    found = Beam(
        num_beams=4, early_stopping=True, length_penalty=2.0, no_repeat_ngram_size=3, forced_eos_token_id=2
    )
    assert read_settings(stated).strategy == found
    drawn = BeamSample(num_beams=3, temperature=0.5, early_stopping="never")
    stated = {"num_beams": 3, "do_sample": True, "temperature": 0.5, "early_stopping": "never"}
    assert read_settings(stated).strategy == drawn
    alone = {"num_beams": 1, "length_penalty": 2.0, "early_stopping": True}
    assert read_settings(alone).strategy == Greedy()


def test_nothing_is_added() -> None:
    """transformers would sample with top_k=50."""
    assert read_settings({"do_sample": True}).strategy == Sample()
    empty = read_settings({})
    assert (empty.strategy, empty.stop) == (Greedy(), Stop())
    assert (empty.max_new_tokens, empty.min_new_tokens) == (None, 0)


def test_greedy_decoding_has_no_use_for_what_sampling_says() -> None:
    stated = {"do_sample": False, "temperature": 0.6, "top_k": 50, "repetition_penalty": 1.2}
    assert read_settings(stated).strategy == Greedy(repetition_penalty=1.2)


@pytest.mark.parametrize("sample", [True, False])
def test_every_setting_of_transformers_is_known(sample: bool) -> None:
    """Those that a new GenerationConfig has do nothing, or are taken; none is unknown."""
    names = vars(GenerationConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_settings({"do_sample": sample} | dict.fromkeys(names))
        read_settings(
            {"do_sample": sample} | {name: value for name, value in names.items() if value is not None}
        )


def test_every_field_is_taken_by_its_name() -> None:
    values: dict[str, Any] = {
        "repetition_penalty": 1.2,
        "encoder_repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 2,
        "bad_words_ids": [[5]],
        "suppress_tokens": [5],
        "begin_suppress_tokens": [5],
        "forced_bos_token_id": 5,
        "forced_eos_token_id": 5,
        "remove_invalid_values": True,
        "renormalize_logits": True,
        "min_length": 3,
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.5,
        "typical_p": 0.5,
        "epsilon_cutoff": 0.01,
        "eta_cutoff": 0.01,
        "top_h": 0.5,
    }
    theirs = set(vars(GenerationConfig()))
    ours = {field.name for field in fields(Sample)}
    assert (
        theirs & ours
        == {*values, "sequence_bias", "exponential_decay_length_penalty", "prefix_allowed_tokens_fn"} & theirs
    )
    for name, value in values.items():
        assert read_settings({"do_sample": True, name: value}).strategy == Sample(**{name: value})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"num_beam_groups": 4}, "asks for num_beam_groups=4: use strategy=DiverseBeam"),
        ({"num_beams": 0}, "generation_config.json: num_beams=0 must be from 1"),
        ({"penalty_alpha": 0.6, "do_sample": True}, "penalty_alpha=0.6 has no effect beside do_sample"),
        ({"penalty_alpha": 1.6}, r"generation_config.json: penalty_alpha=1.6 must be in \[0, 1\]"),
        ({"guidance_scale": "2"}, "generation_config.json: guidance_scale='2' must be a number"),
        ({"dola_layers": "middle"}, 'generation_config.json: dola_layers=\'middle\' must be "low", "high"'),
        ({"dola_layers": "low", "guidance_scale": 2}, "guidance_scale and dola_layers cannot be combined"),
        ({"forced_decoder_ids": [[1, 50]]}, "asks for forced_decoder_ids"),
        ({"do_sample": True, "top_p": 1.5}, r"generation_config.json: top_p=1.5 must be in \(0, 1\]"),
        ({"eos_token_id": "end"}, "generation_config.json: eos_token_id='end' .* a token id or a list"),
        ({"sequence_bias": [5]}, "generation_config.json: "),
        ({"stop_strings": [3]}, r"generation_config.json: Stop\(strings="),
        ({"bad_words_ids": 3}, "generation_config.json: bad_words_ids"),
    ],
)
def test_what_minitx_does_not_have(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(stated)


def test_what_does_nothing_is_passed_over() -> None:
    neutral = {"num_beams": 1, "guidance_scale": 1.0, "constraints": [], "penalty_alpha": 0.0}
    assert read_settings(neutral).strategy == Greedy()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not know: also_new, new_thing; remove .* pass a strategy"):
        read_settings({"new_thing": 3, "also_new": True, "top_k": 3})


def test_settings_at_other_values_are_applied_or_refused_by_name() -> None:
    """Null does nothing; other values are applied, refused by name, or without effect on the tokens."""
    names = [*GenerationConfig().to_dict()]
    assert read_settings(dict.fromkeys(names)) == read_settings({})
    for name in names:
        for value in (True, 3, 0.5, [[3]], "text"):
            try:
                read_settings({name: value})
            except ValueError as error:
                named = "Stop(strings=...)" if name == "stop_strings" else name
                assert named in str(error)  # noqa: PT017 - applied or refused
                assert "does not know" not in str(error)  # noqa: PT017


def test_guidance_and_contrastive_search() -> None:
    """As transformers 4 obeyed them; where top_k is not stated it is 50 there."""
    assert read_settings({"guidance_scale": 1.5}).guidance == ClassifierFree(1.5)
    assert read_settings({"guidance_scale": 1.5, "num_beams": 2}).strategy == Beam(num_beams=2)
    assert read_settings({"dola_layers": "high"}).guidance == DoLa("high")
    assert read_settings({"dola_layers": [0, 2], "do_sample": True}).guidance == DoLa([0, 2])
    assert read_settings({"guidance_scale": 1, "dola_layers": []}).guidance is None
    assert read_settings({"penalty_alpha": 0.6}).strategy == ContrastiveSearch(penalty_alpha=0.6, top_k=50)
    stated = {"penalty_alpha": 0.4, "top_k": 5, "repetition_penalty": 1.2, "guidance_scale": 2.0}
    settings = read_settings(stated)
    assert settings.strategy == ContrastiveSearch(penalty_alpha=0.4, top_k=5, repetition_penalty=1.2)
    assert settings.guidance == ClassifierFree(2.0)


def test_the_number_of_sequences() -> None:
    assert read_settings({"num_return_sequences": 2, "do_sample": True}).num_samples == 2
    assert read_settings({}).num_samples == 1
    for value in (0, True, "2"):
        with pytest.raises(ValueError, match="num_return_sequences"):
            read_settings({"num_return_sequences": value})


def test_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no generation_config.json; choose a strategy: sampling"
    ):
        generation_settings(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "top_k": 7}))
    assert minitx.generation_settings(tmp_path).strategy == Sample(top_k=7)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"generation_config.json: not valid JSON"):
        generation_settings(str(tmp_path))


# What a loaded model says. Ids from 3 on are bytes; 2 is the tokenizer's end token.

TOKENIZER = byte_level()
BEGIN, END = 1, 2
A, B = (TOKENIZER.token_to_id(letter) or 0 for letter in "ab")


def saved(folder: Path, settings: dict[str, Any] | None, **config: Any) -> DecoderModel:
    """A model loaded from a folder with these settings."""
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 32}
    values = {"model_type": "gpt2", "vocab_size": len(TOKENIZER), **sizes, "eos_token_id": None, **config}
    minitx.save(minitx.from_config(values, head="causal-lm", seed=0), folder)
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    model = minitx.load(folder)
    assert isinstance(model, DecoderModel)
    return model


def test_a_checkpoint_is_guided_as_it_states(tmp_path: Path) -> None:
    """And keeps it where it is saved; guidance=None of the call is stronger."""
    stated = {"guidance_scale": 2.5, "penalty_alpha": 0.5, "top_k": 3, "max_new_tokens": 8}
    model = saved(tmp_path / "a", stated)
    minitx.save(model, tmp_path / "b")
    model = minitx.load(tmp_path / "b")
    search = ContrastiveSearch(penalty_alpha=0.5, top_k=3)
    prompts, options = [[5, 6, 7], [8]], {"max_new_tokens": 8}
    for guidance, call in ((ClassifierFree(2.5), {}), (None, {"guidance": None}), (ClassifierFree(1), {})):
        call = {"guidance": guidance} if guidance == ClassifierFree(1) else call
        ours = minitx.generate(model, prompts, "checkpoint", **call)
        batches = generate_batches(model, prompts, "checkpoint", batch_size=1, **call)
        parts = [row.tolist() for batch in batches for row in batch.sequences]
        assert parts == [row.tolist() for row in ours.sequences]
        theirs = minitx.generate(model, prompts, search, guidance=guidance, **options)
        assert [row.tolist() for row in ours.sequences] == [row.tolist() for row in theirs.sequences]


@pytest.mark.parametrize(
    ("settings", "config", "tokenizer", "expected"),
    [
        ({"eos_token_id": [4, 5]}, {"eos_token_id": 6}, TOKENIZER, (4, 5)),
        ({"eos_token_id": 4}, {}, None, (4,)),
        ({"top_k": 3}, {"eos_token_id": 6}, TOKENIZER, (6,)),
        (None, {"eos_token_id": [6, 7]}, TOKENIZER, (6, 7)),
        ({"eos_token_id": None}, {"eos_token_id": None}, TOKENIZER, (END,)),
        ({"eos_token_id": -1}, {"eos_token_id": 6}, TOKENIZER, ()),  # it says that there is none
        (None, {}, None, ()),
    ],
)
def test_where_end_tokens_come_from(
    settings: dict[str, Any] | None, config: dict[str, Any], tokenizer: Any, expected: Any, tmp_path: Path
) -> None:
    model = saved(tmp_path, settings, **config)
    assert end_tokens(model, tokenizer) == expected


def test_end_tokens_that_an_architecture_has_by_default() -> None:
    """T5's config without the key means 1; null says that there is none."""
    sizes = {
        "vocab_size": len(TOKENIZER),
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 8,
        "num_layers": 1,
        "num_heads": 2,
    }
    model: Any = minitx.from_config({"model_type": "t5", **sizes}, head="seq2seq-lm", seed=0).eval()
    assert end_tokens(model, None) == end_tokens(model, TOKENIZER) == (1,)
    ends = Greedy(allowed_token_ids=[1])
    assert minitx.generate(model, [[5]], ends, max_new_tokens=3)[0].finish_reason == "eos"
    model = minitx.from_config({"model_type": "t5", "eos_token_id": None, **sizes}, head="seq2seq-lm", seed=0)
    assert (end_tokens(model, None), end_tokens(model, TOKENIZER)) == ((), (END,))


@pytest.mark.parametrize("stated", ["</s>", True, 2.0, [2, "</s>"], {"id": 2}])
def test_end_tokens_that_are_none(stated: Any, tmp_path: Path) -> None:
    model = saved(tmp_path, {"eos_token_id": stated})
    for strategy in ("checkpoint", Greedy()):
        with pytest.raises(ValueError, match=r"eos_token_id=.* must be a token id or a list of them"):
            minitx.generate(model, [[5]], strategy, max_new_tokens=2)  # type: ignore[arg-type]


def test_where_the_first_token_comes_from(tmp_path: Path) -> None:
    model = saved(tmp_path, None, bos_token_id=7)
    assert begin_token(model, TOKENIZER) == BEGIN
    assert begin_token(model, None) == 7
    assert begin_token(object(), None) is None


def test_what_the_call_says_comes_before_what_the_file_says(tmp_path: Path) -> None:
    file: dict[str, Any] = {
        "do_sample": True,
        "sequence_bias": [[[A], 60.0]],  # so that it ends as soon as it may
        "max_new_tokens": 9,
        "min_new_tokens": 3,
        "eos_token_id": [A, 10**6],  # some name ids that their model lacks
        "stop_strings": ["bb"],
    }
    model = saved(tmp_path, file)

    def says(settings: dict[str, Any]) -> None:
        assert model.checkpoint is not None
        model.checkpoint.generation_file = json.dumps(settings).encode()

    def drawn(**options: Any) -> tuple[int, str]:
        row = minitx.generate(model, [[5]], "checkpoint", **{"tokenizer": TOKENIZER, "seed": 1, **options})[0]
        return len(row.tokens), row.finish_reason

    assert drawn() == (4, "eos")
    assert drawn(min_new_tokens=0) == (1, "eos")
    assert drawn(min_new_tokens=5) == (6, "eos")
    assert drawn(max_new_tokens=3) == (3, "length")
    assert drawn(stop=Stop(eos=())) == (9, "length")
    assert drawn(stop=Stop()) == (4, "eos")  # in any case the checkpoint's end tokens
    with pytest.raises(ValueError, match=r"Stop\(strings=\('bb',\)\).* needs tokenizer="):
        drawn(tokenizer=None)
    says({**file, "sequence_bias": [[[B], 60.0]]})
    assert drawn() == (3, "stop")
    says({"max_new_tokens": 9, "suppress_tokens": [*range(1, len(TOKENIZER))]})
    assert drawn(seed=None) == (9, "length")
    with pytest.raises(ValueError, match=r"seed=.* must be left out"):  # without do_sample it is greedy
        drawn()
    says({"top_k": 3})
    with pytest.raises(TypeError, match=r"max_new_tokens=None .*generation_config.json does not state"):
        drawn(seed=None)
