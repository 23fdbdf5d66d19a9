"""What a checkpoint says about generation: its end tokens, and its generation_config.json.

Nothing of it is used unless it is asked for, but for the end tokens: a text ends where the model was
trained to end it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.checkpoint.files import GENERATION
from minitx.decoding.samplers.greedy import Greedy
from minitx.decoding.samplers.sample import Sample
from minitx.decoding.search.beam import Beam
from minitx.decoding.search.beam_sample import BeamSample
from minitx.decoding.stopping import Stop
from minitx.io import read_json

if TYPE_CHECKING:
    from minitx.tokenizer import Tokenizer

# Settings of searches and tricks that are not here, with the values at which they do nothing.
_NOT_HERE: Mapping[str, tuple[Any, ...]] = {
    "num_beam_groups": (1,),
    "penalty_alpha": (0, 0.0),
    "dola_layers": (),
    "constraints": (),
    "force_words_ids": (),
    "forced_decoder_ids": (),
    "guidance_scale": (1, 1.0),
    "watermarking_config": (),
    "prompt_lookup_num_tokens": (),
    "token_healing": (False,),
    "max_time": (),
}
# What of it is a strategy here.
_STRATEGIES = {
    "num_beam_groups": "DiverseBeam(...)",
    "force_words_ids": "LexicalBeam(...)",
}
# Ids that are no setting, what only searches read, how transformers runs and what it hands out. max_length
# counts the prompt too, and mostly is the length of the context.
_NO_SETTINGS = frozenset(
    """
    bos_token_id eos_token_id pad_token_id decoder_start_token_id transformers_version
    _from_model_config max_length do_sample diversity_penalty low_memory
    num_return_sequences use_cache cache_implementation cache_config max_cache_len return_legacy_cache
    prefill_chunk_size compile_config disable_compile continuous_batching_config output_attentions
    output_hidden_states output_scores output_logits return_dict_in_generate is_assistant
    num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold
    assistant_early_exit assistant_ensemble_weight assistant_lookbehind target_lookbehind
    max_matching_ngram_size speculation_type use_mtp generation_kwargs
    """.split()  # noqa: SIM905 - thirty lines less
)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What a generation_config.json says, as arguments of `generate`.

    Attributes:
        strategy: `Sample` or `Greedy`, as its `do_sample` says, or with several `num_beams` `BeamSample` or
            `Beam`, with what it states.
        stop: its end tokens and stop strings.
        max_new_tokens: None if it does not say.
        min_new_tokens: the same at the beginning; 0 if it does not say.
        max_length: most tokens with those that come before the new ones; None if it does not say. Only
            encoder-decoders mean something by it: elsewhere it mostly is the length of the context.
    """

    strategy: Greedy | Sample | Beam
    stop: Stop
    max_new_tokens: int | None
    min_new_tokens: int
    max_length: int | None = None


def generation_settings(name_or_folder: str | Path) -> GenerationSettings:
    """Reads generation_config.json of a folder, or of a Hub id.

    Only what the file states is taken. (transformers also samples with top_k=50 where the file has no
    top_k.)

    Raises:
        FileNotFoundError: no such folder, or no such file in it.
        ValueError: a setting that minitx does not have, or a value out of its range.
    """
    from minitx.checkpoint.hub import fetch

    path = fetch(name_or_folder) / GENERATION
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.parent} has no {GENERATION}; say what you want with Sample(...) or Greedy(...)."
        )
    return read_settings(read_json(path))


def read_settings(config: Mapping[str, Any]) -> GenerationSettings:
    """The settings of a generation_config.json that has been read.

    Raises:
        ValueError: as `generation_settings`.
    """
    stated = {name: value for name, value in config.items() if value is not None}
    for name, neutral in _NOT_HERE.items():
        if stated.get(name) not in (None, [], *neutral):
            said = f"{GENERATION} asks for {name}={stated[name]!r:.60}"
            if name in _STRATEGIES:
                raise ValueError(f"{said}: give strategy={_STRATEGIES[name]} for it.")
            raise ValueError(f"{said}, which minitx does not have.")
    known = {field.name for field in fields(BeamSample)}
    other = {"max_new_tokens", "min_new_tokens", "stop_strings"}
    unknown = sorted(set(stated) - known - other - _NO_SETTINGS - set(_NOT_HERE))
    if unknown:
        names = ", ".join(unknown)
        warnings.warn(f"{GENERATION} has settings that minitx does not know: {names}.", stacklevel=3)
    if not isinstance(stated.get("do_sample", False), bool):
        raise ValueError(f"{GENERATION}: do_sample={stated['do_sample']!r} must be true or false.")
    for name in ("max_new_tokens", "min_new_tokens", "max_length"):
        value = stated.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{GENERATION}: {name}={value!r} must be a whole number from 0 on.")
    kind = _kind(stated)
    mine = {field.name for field in fields(kind)}
    try:
        given = {name: _plain(name, value) for name, value in stated.items() if name in mine}
        return GenerationSettings(
            strategy=kind(**given),
            stop=Stop(eos=_end_ids(stated.get("eos_token_id")), strings=stated.get("stop_strings", ())),
            max_new_tokens=stated.get("max_new_tokens"),
            min_new_tokens=stated.get("min_new_tokens", 0),
            max_length=stated.get("max_length"),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{GENERATION}: {error}") from None


def _kind(stated: Mapping[str, Any]) -> type[Greedy | Sample | Beam]:
    """The strategy that a config means."""
    draws = stated.get("do_sample", False)
    if stated.get("num_beams", 1) == 1:
        return Sample if draws else Greedy
    return BeamSample if draws else Beam


def _plain(name: str, value: Any) -> Any:
    """A field of a strategy from what JSON has in its place: lists, empty ones for none."""
    if isinstance(value, list) and not value:
        return None
    if name == "forced_bos_token_id" and isinstance(value, list) and len(value) == 1:
        return value[0]
    if name == "sequence_bias" and isinstance(value, list):
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], list) for pair in value):
            raise ValueError(
                f"sequence_bias={value!r:.60} must be pairs of ids and a bias: [[[5, 6], -1.0]]."
            )
        return {tuple(ids): bias for ids, bias in value}
    return tuple(value) if name == "exponential_decay_length_penalty" else value


def end_tokens(model: Any, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """The ids that end a text: of generation_config.json, else of config.json, else of the tokenizer.

    Where config.json does not say, but its architecture has a default, that counts as said.

    Raises:
        ValueError: a file has something else there.
    """
    checkpoint = getattr(model, "checkpoint", None)
    if checkpoint is not None:
        for config in (checkpoint.generation or {}, checkpoint.config):
            found = config.get("eos_token_id")
            if found is not None:
                return _end_ids(found) or ()
    default: int | None = model.config.eos_token_id
    if default is not None:
        return (default,)
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        return (tokenizer.eos_token_id,)
    return ()


def _end_ids(stated: Any) -> tuple[int, ...] | None:
    """The end tokens that a config states as one id or a list; -1 is how some say that there is none."""
    if stated is None:
        return None
    ids = stated if isinstance(stated, list) else [stated]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ValueError(f"eos_token_id={stated!r} of the checkpoint must be a token id or a list of them.")
    return tuple(token for token in ids if token >= 0)


def start_token(model: Any, tokenizer: Tokenizer | None) -> int | None:
    """The id that an encoder-decoder's texts begin with: as the checkpoint says, or that of their language.

    None if neither is known. What other texts begin with is no help then: where the language is to be the
    start, a tokenizer's <s> begins no text that the model has learnt to write.
    """
    stated = _stated_start(model)
    if tokenizer is None or tokenizer.tgt_lang is None or not _language_starts(stated, tokenizer):
        return stated
    return tokenizer.language_id(tokenizer.tgt_lang)


def language_behind_start(model: Any, tokenizer: Tokenizer | None) -> int | None:
    """The id of the language to write in, of models whose texts have it behind the start token."""
    if tokenizer is None or tokenizer.tgt_lang is None or _language_starts(_stated_start(model), tokenizer):
        return None
    return tokenizer.language_id(tokenizer.tgt_lang)


def _stated_start(model: Any) -> int | None:
    checkpoint = getattr(model, "checkpoint", None)
    for config in () if checkpoint is None else (checkpoint.generation or {}, checkpoint.config):
        for name in ("decoder_start_token_id", "decoder_bos_token_id"):
            if isinstance(config.get(name), int):
                return int(config[name])
    default: int | None = model.config.decoder_start_token_id
    return default


def _language_starts(stated: int | None, tokenizer: Tokenizer) -> bool:
    """Whether texts begin with their language, in place of a start token."""
    return stated is None or stated in map(tokenizer.language_id, tokenizer.languages)


def begin_token(model: Any, tokenizer: Tokenizer | None) -> int | None:
    """The id that texts begin with: of the tokenizer, else of config.json."""
    if tokenizer is not None and tokenizer.bos_token_id is not None:
        return tokenizer.bos_token_id
    checkpoint = getattr(model, "checkpoint", None)
    found = None if checkpoint is None else checkpoint.config.get("bos_token_id")
    return found if isinstance(found, int) else None
