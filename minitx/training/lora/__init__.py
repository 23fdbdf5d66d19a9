"""LoRA (arXiv:2106.09685) as a pass over a model: small matrices beside the projections, trained alone.

    add_lora -> train -> save_adapter, merge_lora or remove_lora;    load_adapter -> train

DoRA and rsLoRA are options. The files are PEFT's; `minitx.load` merges them while it loads (see
`minitx.checkpoint.lora`), and `load_adapter` does not.
"""

from minitx.training.lora.adapt import add_lora as add_lora
from minitx.training.lora.adapt import merge_lora as merge_lora
from minitx.training.lora.adapt import remove_lora as remove_lora
from minitx.training.lora.files import load_adapter as load_adapter
from minitx.training.lora.files import save_adapter as save_adapter
from minitx.training.lora.linear import LoraLinear as LoraLinear
