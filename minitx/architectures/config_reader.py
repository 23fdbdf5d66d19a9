"""Reading `config.json` completely: every key is taken, or reported."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from minitx.config.head import ProblemType
from minitx.layers.activation import ACTIVATIONS, CUSTOM
from minitx.validation import ArgumentError, ArgumentValueError, check_choice

# Far above any real checkpoint; a larger size is an error in the file, and building it would exhaust the RAM.
LARGEST_SIZE = 10_000_000
LARGEST_NUMBER = 1e30
MOST_LAYERS = 1_000
COUNTS_OF_LAYERS = frozenset(
    """
    num_hidden_layers n_layers n_layer num_layers num_hidden_groups inner_group_num
    encoder_layers decoder_layers num_decoder_layers
    """.split()  # noqa: SIM905 - words
)
MOST_EXPERTS = 10_000  # each has names of its own in the file
COUNTS_OF_EXPERTS = frozenset(("num_experts", "num_local_experts"))

_required = object()

T = TypeVar("T")


class ConfigReader:
    """Reads values of a `config.json` and records which keys were taken.

    Every method raises ArgumentValueError, naming the key, if the value is missing or of another kind.

    Args:
        config: the content of the file, or of an object in it.
        where: its name in error messages.
    """

    def __init__(self, config: Mapping[str, Any], where: str = "config.json") -> None:
        self.config = config
        self.where = where
        self.taken: set[str] = set()
        self.inner: dict[str, ConfigReader] = {}

    def error(self, key: str, value: Any, expected: str, hint: str = "") -> ArgumentValueError:
        """Returns the error of a value of the file: "config.json: key=value must be expected; hint."."""
        return ArgumentValueError(f"{self.where}: {key}" if key else self.where, value, expected, hint)

    def build(self, kind: type[T], **values: Any) -> T:
        """Returns a config of these fields; errors name them as keys of the file.

        Args:
            kind: class of the config.
            values: its fields, which have the names of the file's keys.
        """
        try:
            return kind(**values)
        except ArgumentError as error:
            key = error.parameter.removeprefix(f"{kind.__name__}.")
            raise self.error(key, error.value, error.expected, error.hint) from None

    def get(self, key: str, default: Any = _required) -> Any:
        """Returns the raw value; `default` if the key is absent, without one an error."""
        self.taken.add(key)
        value = self.config.get(key, default)
        if value is _required:
            near = get_close_matches(key, set(self.config) - self.taken, n=1, cutoff=0.8)
            hint = f"is {near[0]!r} a misspelling of it?" if near else "the model cannot be built without it"
            raise self.error(key, None, "present", hint)
        return value

    def first_of(self, *keys: str) -> str:
        """Returns the first of several names of one key that the file has; the last if it has none."""
        self.taken.update(keys)
        return next((key for key in keys if key in self.config), keys[-1])

    def nested(self, key: str) -> ConfigReader:
        """Returns the reader of an object that is a config itself, such as that of one half of a model."""
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise self.error(key, value, "an object")
        return self.inner.setdefault(key, ConfigReader(value, f"{self.where}: {key}"))

    def with_values(self, **values: Any) -> ConfigReader:
        """Returns a reader of the same config with other values for some keys; both share the keys taken."""
        reader = ConfigReader({**self.config, **values}, self.where)
        reader.taken, reader.inner = self.taken, self.inner
        return reader

    def ignore(self, *keys: str) -> None:
        """Takes keys without effect on the outputs; a comment at the call gives the reason."""
        self.taken.update(keys)

    def size(self, key: str, default: Any = _required, *, least: int = 1) -> int:
        """Returns an integer of at least `least`, and not above the sizes of real models."""
        value = self.get(key, default)
        most = MOST_LAYERS if key in COUNTS_OF_LAYERS else LARGEST_SIZE
        most = MOST_EXPERTS if key in COUNTS_OF_EXPERTS else most
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, value, f"an integer from {least} to {most}")
        return value

    def size_or_none(self, key: str, default: int | None = None) -> int | None:
        """Returns an integer; None if it is null, 0 or -1, which all mean "none"; `default` if absent."""
        value = self.get(key, default)
        if value is None or (value in (0, -1) and value is not False):
            return None
        return self.size(key, default)

    def number_or_none(self, key: str, default: float | None = None) -> float | None:
        """Returns a finite, non-negative number; None if it is null."""
        return None if self.get(key, default) is None else self.number(key, default)

    def number(self, key: str, default: Any = _required) -> float:
        """Returns a finite, non-negative number."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_NUMBER:
            raise self.error(key, value, "a number that is not negative")
        return float(value)

    def positive(self, key: str, default: Any = _required) -> float:
        """Returns a finite number above zero whose inverse is finite too."""
        value = self.number(key, default)
        if value < 1 / LARGEST_NUMBER:
            raise self.error(key, value, "positive")
        return value

    def positive_or_none(self, key: str, default: float | None = None) -> float | None:
        """Returns a number above zero; None if it is null."""
        return None if self.get(key, default) is None else self.positive(key, default)

    def probability(self, key: str, default: Any = _required) -> float:
        """Returns a number from 0 to 1."""
        value = self.number(key, default)
        if value > 1:
            raise self.error(key, value, "a probability, from 0 to 1")
        return value

    def flag(self, key: str, default: Any = _required) -> bool:
        """Returns true or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def name(self, key: str, default: Any = _required) -> str:
        """Returns a string."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.error(key, value, "a string")
        return value

    def activation(self, key: str, default: Any = _required) -> str:
        """Returns the name of an activation function."""
        return str(check_choice(f"{self.where}: {key}", self.name(key, default), ACTIVATIONS, CUSTOM))

    def expect(self, key: str, *allowed: Any) -> Any:
        """Returns a value that minitx implements; the first of `allowed` if the key is absent or null."""
        value = self.get(key, allowed[0])
        if value is None:  # null is a missing key
            value = allowed[0]
        # 0 is not False here, nor 1 True: they are other values of a config.json
        if not any(type(value) is type(x) and value == x for x in allowed):
            known = " or ".join(repr(x) for x in allowed)
            raise self.error(key, value, known, "minitx implements no other value")
        return value

    def pad_token_id(self, vocab_size: int, default: int | None = None) -> int | None:
        """Returns the padding id, a row of the vocabulary; None if it is null or negative."""
        value = self.get("pad_token_id", default)
        if type(value) is int and value < 0:
            return None
        if value is not None and (type(value) is not int or not 0 <= value < vocab_size):
            hint = "" if "pad_token_id" in self.config else "it is the default of a missing key; add one"
            raise self.error("pad_token_id", value, f"a token id from 0 to {vocab_size - 1}", hint)
        return value

    def reject_decoder_flags(self) -> None:
        """Refuses configs that use an encoder as a decoder, or add cross-attention."""
        self.expect("is_decoder", False)
        self.expect("add_cross_attention", False)

    def token_id(self, key: str, default: int | None = None) -> int | None:
        """Returns a token id, the first of several; None if it is null or negative."""
        value = self.get(key, default)
        value = value[0] if isinstance(value, list) and value else value
        if type(value) is int and value < 0:
            return None
        if value is not None and type(value) is not int:
            raise self.error(key, value, "a token id")
        return value

    def head_dim(self, hidden_size: int, heads: int) -> int:
        """Returns hidden_size / heads."""
        if hidden_size % heads:
            raise self.error("hidden_size", hidden_size, f"a multiple of the {heads} attention heads")
        return hidden_size // heads

    def key_value_heads(self, heads: int, default: int | None = None) -> int:
        """Returns `num_key_value_heads`, which must divide `heads`; `heads` if null."""
        stored = self.get("num_key_value_heads", default)
        shared = heads if stored is None else self.size("num_key_value_heads", default)
        if heads % shared:
            raise self.error("num_key_value_heads", shared, f"a divisor of the {heads} attention heads")
        return shared

    def num_labels(self, default: int = 2) -> int:
        """Returns `num_labels`, or the size of `id2label`, or Hugging Face's default."""
        self.taken.update(("num_labels", "id2label"))
        named = self.config.get("num_labels")
        names = self.config.get("id2label")
        if named is None and isinstance(names, Mapping):
            return max(1, len(names))
        return default if named is None else self.size("num_labels")

    def problem_type(self) -> ProblemType:
        """Returns the loss of sequence classification; None: inferred from the labels."""
        *kinds, absent = get_args(ProblemType)
        kind: ProblemType = self.expect("problem_type", absent, *kinds)
        return kind

    def rename(self, names: Mapping[str, str]) -> None:
        """Reads keys under a second name, such as `hidden_size` for `n_embd`.

        Args:
            names: second name -> key.

        Raises:
            ArgumentValueError: both names with different values.
        """
        for second, key in names.items():
            if second not in self.config:
                continue
            value = self.config[second]
            if key in self.config and self.config[key] != value:
                raise self.error(second, value, f"{key}={self.config[key]!r}, of which it is a second name")
            self.config = {**self.config, key: value}
            self.taken.add(second)

    def unread(self) -> list[str]:
        """Returns the keys that were not taken."""
        return sorted(set(self.config) - self.taken)
