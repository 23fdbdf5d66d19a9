"""Sampling settings of generation_config.json, as a strategy and arguments of `generate`.

Checkpoints without that file have them in config.json, from the time before it. They are used only through
strategy="checkpoint" or `generation_settings`; `special_tokens.py` reads the token ids of the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from minitx.checkpoint.files import GENERATION
from minitx.checkpoint.generation import fetch_settings
from minitx.decoding.guidance.base import Guidance
from minitx.decoding.guidance.contrastive_search import ContrastiveSearch
from minitx.decoding.guidance.settings import SETTINGS, stated_guidance, stated_search
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.special_tokens import parse_end_tokens
from minitx.decoding.text.stopping import Stop
from minitx.decoding.watermark.config import read_watermark
from minitx.validation import check_integer

# Settings that are no field of a strategy here, with the value at which they do nothing, if there is one.
_UNSUPPORTED: Mapping[str, Any] = {
    **dict.fromkeys(("constraints", "force_words_ids", "forced_decoder_ids", "max_time")),
    "prompt_lookup_num_tokens": None,
    "num_beam_groups": 1,
    "token_healing": False,
}
_INSTEAD = {
    "num_beam_groups": "strategy=DiverseBeam(...)",
    "force_words_ids": "strategy=LexicalBeam(...)",
    "max_time": "stop=Stop(seconds=...)",
    "prompt_lookup_num_tokens": "strategy=Speculative(draft=PromptLookup(...))",
    "token_healing": "generate(..., heal=True)",
}
_SAMPLES = "num_return_sequences"
_RENAMED = {"watermarking_config": "watermark"}
_COUNTS = ("max_new_tokens", "min_new_tokens", "max_length")
# Keys without an effect on the tokens: ids that special_tokens.py reads, caches, outputs, and faster ways.
_IGNORED = frozenset(
    """
    bos_token_id eos_token_id pad_token_id decoder_start_token_id transformers_version _from_model_config
    _commit_hash _original_object_hash do_sample diversity_penalty low_memory use_cache
    cache_implementation cache_config
    max_cache_len return_legacy_cache prefill_chunk_size compile_config disable_compile output_attentions
    continuous_batching_config output_hidden_states output_scores output_logits return_dict_in_generate
    is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold
    assistant_early_exit assistant_ensemble_weight assistant_lookbehind target_lookbehind
    max_matching_ngram_size speculation_type use_mtp generation_kwargs stop_strings
    """.split()  # noqa: SIM905 - thirty lines less
)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """The settings of a generation_config.json or of an old config.json, as arguments of `generate`.

    Attributes:
        strategy: `Sample` or `Greedy` by its `do_sample`, with several `num_beams` `BeamSample` or `Beam`, or
            with a `penalty_alpha` `ContrastiveSearch`.
        stop: end tokens and stop strings.
        max_new_tokens: None if not stated.
        min_new_tokens: 0 if not stated.
        max_length: most tokens including the prompt of the decoder; None if not stated. Used where
            `max_new_tokens` is not stated.
        num_samples: rows per prompt (`num_return_sequences`).
        guidance: `ClassifierFree` or `DoLa` (`guidance_scale`, `dola_layers`); None if not stated.
    """

    strategy: Greedy | Sample | Beam | ContrastiveSearch
    stop: Stop
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    max_length: int | None = None
    num_samples: int = 1
    guidance: Guidance | None = None


def generation_settings(
    name_or_folder: str | Path, *, revision: str = "main", token: str | None = None, offline: bool = False
) -> GenerationSettings:
    """Reads generation_config.json of a folder or a Hub id, or without one the settings in config.json.

    Settings that the file does not state are off. (transformers samples with top_k=50 in that case.)

    Args:
        name_or_folder: as for `minitx.load`.
        revision, token, offline: as for `minitx.load`.

    Raises:
        FileNotFoundError: no such folder, or no file with settings in it.
        ValueError: a setting that minitx does not implement or know, or a value out of range.
    """
    return read_settings(*fetch_settings(name_or_folder, revision=revision, token=token, offline=offline))


def read_settings(config: Mapping[str, Any], file: str = GENERATION) -> GenerationSettings:
    """Returns the settings of a parsed generation_config.json.

    Args:
        config: its content.
        file: its name, for messages.

    Raises:
        ValueError: as `generation_settings`.
    """
    stated = {_RENAMED.get(name, name): value for name, value in config.items() if value is not None}
    for name, neutral in _UNSUPPORTED.items():
        if stated.get(name) not in (None, [], neutral):
            hint = ", which minitx does not implement"
            if name in _INSTEAD:
                hint = f": use {_INSTEAD[name]}"
            raise ValueError(f"{file} asks for {name}={stated[name]!r:.60}{hint}.")
    known = {field.name for field in fields(BeamSample)}.union(_COUNTS, _IGNORED, _UNSUPPORTED, SETTINGS)
    if unknown := sorted(set(stated) - known - {_SAMPLES}):
        raise ValueError(
            f"{file} has settings that minitx does not know: {', '.join(unknown)}; remove them, "
            'or pass a strategy such as minitx.Sample(...) instead of "checkpoint".'
        )
    if not isinstance(stated.get("do_sample", False), bool):
        raise ValueError(f"{file}: do_sample={stated['do_sample']!r} must be true or false.")
    kinds: Any = ((Greedy, Sample), (Beam, BeamSample))
    try:
        kind = kinds[stated.get("num_beams", 1) != 1][stated.get("do_sample", False)]
        base = stated_search(stated) or kind()
        names = {field.name for field in fields(base)}
        values = {name: _plain(name, value) for name, value in stated.items() if name in names}
        ends = parse_end_tokens(stated.get("eos_token_id"))
        stop = Stop(eos=ends, strings=stated.get("stop_strings", ()))
        counts: dict[str, Any] = {
            name: check_integer(name, stated[name]) for name in _COUNTS if name in stated
        }
        counts["num_samples"] = check_integer(_SAMPLES, stated.get(_SAMPLES, 1), 1)
        settings = GenerationSettings(strategy=replace(base, **values), stop=stop, **counts)
        return replace(settings, guidance=stated_guidance(stated))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def _plain(name: str, value: Any) -> Any:
    """Converts the JSON value of a strategy's field: an empty list means None."""
    if isinstance(value, list) and not value:
        return None
    if name == "watermark":
        return read_watermark(value)
    if name == "forced_bos_token_id" and isinstance(value, list) and len(value) == 1:
        return value[0]
    if name == "sequence_bias" and isinstance(value, list):
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list) for pair in value):
            raise ValueError(
                f"sequence_bias={value!r:.60} must be pairs of ids and a bias: [[[5, 6], -1.0]]."
            )
        return {tuple(ids): bias for ids, bias in value}
    pair = name == "exponential_decay_length_penalty" and isinstance(value, list)
    return tuple(value) if pair else value
