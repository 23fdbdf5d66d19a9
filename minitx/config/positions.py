"""Where the order of a sequence enters a model: one small dataclass per kind of positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NoReturn

from minitx.config.base import Count, Positive, Probability, Size, ValidatedConfig, bounds, check_bound
from minitx.validation import ArgumentValueError, check_choice

# Positions count all tokens, or tokens other than padding ids, or attended tokens, or those of a table's cell
Numbering = Literal["sequence", "padding", "mask", "cell"]
Sinusoids = Literal["tensor2tensor", "fairseq"]
RopeType = Literal["default", "linear", "dynamic", "yarn", "llama3", "longrope"]


@dataclass(frozen=True, kw_only=True)
class LearnedPositions(ValidatedConfig):
    """A trained table of position embeddings, added to the word embeddings.

    Attributes:
        numbering: which tokens are counted. "sequence": all, from 0. "padding": ids other than pad_token_id,
            from pad_token_id + 1. "mask": attended tokens, from 0. "cell": all tokens of one cell of a table
            (of one column and row, the second and third token type), from 0.
        offset: row of the table that holds position 0.
    """

    numbering: Numbering = "sequence"
    offset: Count = 0


@dataclass(frozen=True, kw_only=True)
class SinusoidalPositions(ValidatedConfig):
    """Fixed sinusoidal position encodings, added to the word embeddings (arXiv:1706.03762, section 3.5).

    Attributes:
        kind: "tensor2tensor" or "fairseq"; the two space their wavelengths differently.
        numbering: as for `LearnedPositions`; with "padding", padding gets a zero vector.
    """

    kind: Sinusoids
    numbering: Numbering = "sequence"


@dataclass(frozen=True, kw_only=True)
class RopeConfig(ValidatedConfig):
    """RoPE of one layer type; the equations are in layers/rotary.py.

    Attributes:
        rope_theta: base of the frequencies.
        rotary_dim: number of leading features of each head that are rotated.
        rope_type: how the frequencies are stretched for longer contexts.
        interleaved: pairs are neighbours (0, 1), (2, 3), ... instead of (d, d + rotary_dim / 2).
        factor: extension of the context.
        attention_factor: multiplies cos and sin.
        original_max_position_embeddings: context length of the pre-training.
        low_freq_factor: llama3.
        high_freq_factor: llama3.
        beta_fast: yarn.
        beta_slow: yarn.
        truncate: yarn: round the ends of the ramp to whole features.
        short_factor: longrope, one divisor per pair.
        long_factor: longrope, for sequences beyond the original context.
    """

    rope_theta: Positive
    rotary_dim: Annotated[int, 2]
    rope_type: RopeType = "default"
    interleaved: bool = False
    factor: Positive = 1.0
    attention_factor: Positive = 1.0
    original_max_position_embeddings: Count = 0
    low_freq_factor: Positive = 1.0
    high_freq_factor: Positive = 4.0
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Checks that the numbers of the RoPE type fit each other.

        Raises:
            ArgumentValueError: a combination that cannot be computed.
        """
        super().__post_init__()
        kind, size = self.rope_type, self.rotary_dim
        if kind not in ("default", "linear") and not self.original_max_position_embeddings:
            self._refuse("original_max_position_embeddings", f"at least 1 for rope_type={kind!r}")
        if kind == "dynamic" and size <= 2:
            self._refuse("rotary_dim", "more than 2 for rope_type='dynamic'")
        if kind == "llama3" and self.low_freq_factor >= self.high_freq_factor:
            self._refuse("low_freq_factor", f"below high_freq_factor={self.high_freq_factor}")
        if kind == "yarn" and self.beta_slow > self.beta_fast:
            self._refuse("beta_slow", f"at most beta_fast={self.beta_fast}")
        if kind == "yarn" and self.rope_theta == 1:
            self._refuse("rope_theta", "other than 1, where all pairs rotate equally")
        for name in ("short_factor", "long_factor") if kind == "longrope" else ():
            if len(getattr(self, name)) != size // 2:
                self._refuse(name, f"{size // 2} positive numbers, one per pair of features")
            for i, number in enumerate(getattr(self, name)):
                check_bound(f"RopeConfig.{name}[{i}]", number, bounds(RopeConfig)["factor"])

    def _refuse(self, name: str, expected: str) -> NoReturn:
        raise ArgumentValueError(f"RopeConfig.{name}", getattr(self, name), expected)


@dataclass(frozen=True, kw_only=True)
class Rotary(ValidatedConfig):
    """Rotary position embeddings of queries and keys (arXiv:2104.09864).

    Attributes:
        ropes: the RoPE of each layer type.
        layers: whether each layer uses RoPE; None: all do.
    """

    ropes: Mapping[str, RopeConfig]
    layers: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        """Checks that the ropes are a mapping of configs.

        Raises:
            ArgumentValueError: `ropes` is not a mapping of names to RopeConfig.
        """
        super().__post_init__()
        ropes = self.ropes
        if not isinstance(ropes, Mapping) or not all(isinstance(r, RopeConfig) for r in ropes.values()):
            expected = "a mapping of layer types to RopeConfig(...)"
            raise ArgumentValueError("Rotary.ropes", ropes, expected, "such as {'full_attention': ...}")


@dataclass(frozen=True, kw_only=True)
class RelativeBias(ValidatedConfig):
    """A learned attention bias per head and distance bucket (arXiv:1910.10683, section 2.1).

    Attributes:
        num_buckets: number of distance buckets.
        max_distance: distance from which all keys share the last bucket.
        per_layer: one table per layer instead of one for all layers.
    """

    num_buckets: Annotated[int, 4]
    max_distance: Size = 128
    per_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class Alibi(ValidatedConfig):
    """Attention biases that fall linearly with the distance (arXiv:2108.12409)."""


@dataclass(frozen=True, kw_only=True)
class Disentangled(ValidatedConfig):
    """Disentangled attention to content and relative positions (arXiv:2006.03654).

    Attributes:
        relative_attention: False: no position-dependent scores.
        max_relative_positions: largest embedded distance, or the one at which the buckets end.
        position_buckets: number of logarithmic buckets per direction; 0: one embedding per distance.
        pos_att_type: which scores are added: "c2p", "p2c" or both.
        share_att_key: project positions with the Q and K of the content.
        dropout: of the position embeddings and of the convolution.
        norm_rel_ebd: normalise the position embeddings.
        conv_kernel_size: kernel of the convolution beside the first layer; 0: no convolution.
        conv_groups: groups of the convolution.
        conv_act: activation of the convolution.
    """

    relative_attention: bool
    max_relative_positions: Size
    position_buckets: Count
    pos_att_type: frozenset[str]
    share_att_key: bool
    dropout: Probability
    norm_rel_ebd: bool
    conv_kernel_size: Count
    conv_groups: Size
    conv_act: str

    def __post_init__(self) -> None:
        """Checks the kinds of scores, the number of buckets, and that the convolution keeps lengths.

        Raises:
            ArgumentValueError: values that cannot be computed.
        """
        super().__post_init__()
        rows, buckets, kernel = self.max_relative_positions, self.position_buckets, self.conv_kernel_size
        for kind in self.pos_att_type:
            check_choice("Disentangled.pos_att_type", kind, ("c2p", "p2c"))
        if kernel and kernel % 2 == 0:
            raise ArgumentValueError("Disentangled.conv_kernel_size", kernel, "odd", "lengths do not change")
        if buckets == 1 or (buckets and buckets // 2 >= rows - 1):
            expected = f"0, or at least 2 and half of it less than max_relative_positions={rows} - 1"
            raise ArgumentValueError("Disentangled.position_buckets", buckets, expected)

    @property
    def span(self) -> int:
        """Embedded distances run from -span to span - 1."""
        return self.position_buckets or self.max_relative_positions


EmbeddedPositions = LearnedPositions | SinusoidalPositions  # added to the word embeddings
AttentionPositions = Rotary | RelativeBias | Alibi | Disentangled  # part of the attention scores
Positions = EmbeddedPositions | AttentionPositions
