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
from minitx.decoding.settings import generation_settings, read_settings
from minitx.decoding.stop import Stop
from minitx.decoding.strategy import Greedy, Sample


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
        ({"num_beams": 4}, "generation_config.json asks for num_beams=4, which minitx does not have"),
        ({"penalty_alpha": 0.6}, "asks for penalty_alpha=0.6"),
        ({"forced_decoder_ids": [[1, 50]]}, "asks for forced_decoder_ids"),
        ({"do_sample": True, "top_p": 1.5}, r"generation_config.json: top_p=1.5 must be in \(0, 1\]"),
        ({"eos_token_id": "end"}, r"generation_config.json: Stop\(eos=...\)"),
        ({"bad_words_ids": 3}, "generation_config.json: bad_words_ids"),
    ],
)
def test_what_minitx_does_not_have(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_settings(stated)


def test_what_does_nothing_is_passed_over() -> None:
    neutral = {"num_beams": 1, "guidance_scale": 1.0, "constraints": [], "penalty_alpha": 0.0}
    assert read_settings(neutral).strategy == Greedy()


def test_unknown_settings_are_said() -> None:
    with pytest.warns(UserWarning, match=r"does not know: also_new, new_thing"):
        read_settings({"new_thing": 3, "also_new": True, "top_k": 3})


def test_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no generation_config.json; say what you want with Sample"
    ):
        generation_settings(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"do_sample": True, "top_k": 7}))
    assert minitx.generation_settings(tmp_path).strategy == Sample(top_k=7)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"generation_config.json: not valid JSON"):
        generation_settings(str(tmp_path))
