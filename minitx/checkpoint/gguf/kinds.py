"""The types of tensors in a GGUF file (ggml's): name, values per block, bytes per block."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Kind(NamedTuple):
    """One type of tensors.

    Attributes:
        name: ggml's name.
        block: number of values that are stored together.
        nbytes: size of a block in bytes.
        dtype: of the values as they are read: float32 for quantised types.
    """

    name: str
    block: int
    nbytes: int
    dtype: torch.dtype = torch.float32

    @property
    def is_plain(self) -> bool:
        """Whether the values are stored one by one."""
        return self.block == 1


KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2, torch.float16),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    20: Kind("IQ4_NL", 32, 18),
    23: Kind("IQ4_XS", 256, 136),
    24: Kind("I8", 1, 1, torch.int8),
    25: Kind("I16", 1, 2, torch.int16),
    26: Kind("I32", 1, 4, torch.int32),
    27: Kind("I64", 1, 8, torch.int64),
    28: Kind("F64", 1, 8, torch.float64),
    30: Kind("BF16", 1, 2, torch.bfloat16),
}

# Types that are refused, for the message about them
OTHERS = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
