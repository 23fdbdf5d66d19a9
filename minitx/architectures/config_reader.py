"""Reading `config.json` so that nothing is overlooked: every key is taken, or reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys of a config.json that say nothing about the numbers of the network: training, decoding, records.
NOT_OF_THE_NETWORK = frozenset(
    """
    _name_or_path _attn_implementation attn_implementation transformers_version model_type
    architectures torch_dtype dtype use_cache torchscript use_bfloat16 gradient_checkpointing
    tokenizer_class chunk_size_feed_forward output_attentions output_hidden_states output_past
    return_dict prefix finetuning_task task_specific_params id2label label2id num_labels
    problem_type initializer_range bos_token_id eos_token_id eos_token_ids sep_token_id cls_token_id
    decoder_start_token_id unk_token_id mask_token_id max_length min_length do_sample early_stopping
    cache_implementation
    num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens is_encoder_decoder cross_attention_hidden_size tie_encoder_decoder
    sentence_transformers sbert_ce_default_activation_function language auto_map directionality
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    _commit_hash _num_labels name xla_device _attn_implementation_autoset
    _attn_implementation_internal use_return_dict tf_legacy_loss adapters
    """.split()  # noqa: SIM905 - a hundred lines less
)

# No real checkpoint comes near; beyond it a config is broken, and building it would eat the memory.
LARGEST_SIZE = 10_000_000
LARGEST_NUMBER = 1e30
MOST_LAYERS = 1_000
COUNTS_OF_LAYERS = frozenset(
    """
    num_hidden_layers n_layers n_layer num_layers num_hidden_groups inner_group_num
    encoder_layers decoder_layers num_decoder_layers
    """.split()  # noqa: SIM905 - as above
)

_required = object()


class ConfigReader:
    """Takes values out of a `config.json` and remembers which keys nobody took.

    Every method raises ValueError, naming the key, if the value is missing or not of its kind.

    Args:
        config: the content of the file, or of an object in it.
        where: what the errors call it.
    """

    def __init__(self, config: Mapping[str, Any], where: str = "config.json") -> None:
        self.config = config
        self.where = where
        self.taken: set[str] = set()
        self.inner: dict[str, ConfigReader] = {}

    def get(self, key: str, default: Any = _required) -> Any:
        """The raw value; `default` where the key is absent."""
        self.taken.add(key)
        value = self.config.get(key, default)
        if value is _required:
            raise ValueError(f"{self.where} has no {key!r}, and the model cannot be built without it.")
        return value

    def first_of(self, *keys: str) -> str:
        """The first of several names of one key that the file has, the last where it has none."""
        self.taken.update(keys)
        return next((key for key in keys if key in self.config), keys[-1])

    def nested(self, key: str, **instead: Any) -> ConfigReader:
        """The reader of an object that is a config itself, such as that of one half of a model.

        Args:
            key: where it stands.
            instead: what is to be read in the place of its own values.
        """
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.where}: {key}={value!r:.60} must be an object.")
        found = self.inner.setdefault(key, ConfigReader({}, f"{self.where}: {key}"))
        found.config = {**value, **instead}
        return found

    def with_values(self, **values: Any) -> ConfigReader:
        """Returns a reader of the same config with other values for some keys; both share the keys taken."""
        reader = ConfigReader({**self.config, **values}, self.where)
        reader.taken, reader.inner = self.taken, self.inner
        return reader

    def ignore(self, *keys: str) -> None:
        """Keys that change no number here; the caller says why."""
        self.taken.update(keys)

    def size(self, key: str, default: Any = _required, *, least: int = 1) -> int:
        """A whole number from `least` up to what a real model can have."""
        value = self.get(key, default)
        most = MOST_LAYERS if key in COUNTS_OF_LAYERS else LARGEST_SIZE
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{self.where}: {key}={value!r} must be a whole number from {least} to {most}.")
        return value

    def size_or_none(self, key: str, default: int | None = None) -> int | None:
        """A whole number; None where it is null, 0 or -1, which all say "none"; `default` where absent."""
        value = self.get(key, default)
        if value is None or (value in (0, -1) and value is not False):
            return None
        return self.size(key, default)

    def number_or_none(self, key: str, default: float | None = None) -> float | None:
        """A finite, non-negative number; None where the file says null."""
        return None if self.get(key, default) is None else self.number(key, default)

    def number(self, key: str, default: Any = _required) -> float:
        """A finite, non-negative number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_NUMBER:
            raise ValueError(f"{self.where}: {key}={value!r} must be a number that is not negative.")
        return float(value)

    def positive(self, key: str, default: Any = _required) -> float:
        """A finite number above zero, and not so near to it that one over it is infinite."""
        value = self.number(key, default)
        if value < 1 / LARGEST_NUMBER:
            raise ValueError(f"{self.where}: {key}={value!r} must be positive.")
        return value

    def positive_or_none(self, key: str, default: float | None = None) -> float | None:
        """A number above zero; None where the file says null."""
        return None if self.get(key, default) is None else self.positive(key, default)

    def probability(self, key: str, default: Any = _required) -> float:
        """A number from 0 to 1."""
        value = self.number(key, default)
        if value > 1:
            raise ValueError(f"{self.where}: {key}={value!r} must be a probability, from 0 to 1.")
        return value

    def flag(self, key: str, default: Any = _required) -> bool:
        """true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}: {key}={value!r} must be true or false.")
        return value

    def name(self, key: str, default: Any = _required) -> str:
        """A string."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{self.where}: {key}={value!r} must be a string.")
        return value

    def expect(self, key: str, *allowed: Any) -> Any:
        """A value that minitx implements; the first of `allowed` where the key is absent."""
        value = self.get(key, allowed[0])
        if value is None:  # null says what a missing key says
            value = allowed[0]
        # 0 is not False here, nor 1 True: they are other values of a config.json
        if not any(type(value) is type(x) and value == x for x in allowed):
            known = " or ".join(repr(x) for x in allowed)
            raise ValueError(f"{self.where}: {key}={value!r} is not implemented; minitx has {known}.")
        return value

    def pad_token_id(self, vocab_size: int, default: int | None = None) -> int | None:
        """The padding id, None where there is none; a row of the vocabulary."""
        value = self.get("pad_token_id", default)
        if value is not None and (type(value) is not int or not 0 <= value < vocab_size):
            raise ValueError(f"{self.where}: pad_token_id={value!r} is not in [0, {vocab_size}).")
        return value

    def reject_decoder_flags(self) -> None:
        """An encoder's config does not make it a decoder, and no decoder has an encoder before it."""
        self.expect("is_decoder", False)
        self.expect("add_cross_attention", False)

    def token_id(self, key: str, default: int | None = None) -> int | None:
        """An id, None where there is none; of several, the first."""
        value = self.get(key, default)
        value = value[0] if isinstance(value, list) and value else value
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{self.where}: {key}={value!r} must be a token id.")
        return value

    def head_dim(self, hidden_size: int, heads: int) -> int:
        """hidden_size / heads."""
        if hidden_size % heads:
            raise ValueError(
                f"{self.where}: hidden_size={hidden_size} is not a multiple of the {heads} attention heads."
            )
        return hidden_size // heads

    def key_value_heads(self, heads: int, default: int | None = None) -> int:
        """`num_key_value_heads`, each of which serves as many of the `heads`; as many as these if null."""
        written = self.get("num_key_value_heads", default)
        shared = heads if written is None else self.size("num_key_value_heads", default)
        if heads % shared:
            raise ValueError(
                f"{self.where}: {heads} attention heads cannot share num_key_value_heads={shared} evenly."
            )
        return shared

    def num_labels(self, default: int = 2) -> int:
        """From `num_labels`, else counted in `id2label`, else Hugging Face's default, mostly 2."""
        named = self.config.get("num_labels")
        names = self.config.get("id2label")
        if named is None and isinstance(names, Mapping):
            return max(1, len(names))
        return default if named is None else self.size("num_labels")

    def problem_type(self) -> str | None:
        """What the labels of a text are; None: the labels themselves show it."""
        kinds = ("regression", "single_label_classification", "multi_label_classification")
        kind: str | None = self.expect("problem_type", None, *kinds)
        return kind

    def unread(self) -> list[str]:
        """The keys that no reader took and that are not known to be unimportant."""
        own = set(self.config) - self.taken - NOT_OF_THE_NETWORK
        return sorted(own) + [f"{key}.{name}" for key, part in self.inner.items() for name in part.unread()]
