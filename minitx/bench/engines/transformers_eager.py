"""transformers as a user calls it: `from_pretrained` and `generate` with their defaults, not compiled."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from minitx.bench.engine import PADDED_PROMPTS, PADDED_TEXTS, TEMPERATURE, TOP_K, TOP_P, Rows, Setup
from minitx.bench.engines.batches import in_batches, padded
from minitx.bench.torch_engine import TorchEngine
from minitx.bench.workloads import Call

CLASSES = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


class Transformers(TorchEngine):
    """transformers with its defaults, not compiled.

    That is sdpa attention and a dynamic cache. Rows of many lengths are padded: texts sorted by length in
    batches of 32, prompts as they come in batches of 8.
    """

    name: ClassVar[str] = "transformers"
    packages: ClassVar[tuple[str, ...]] = ("transformers",)
    calls: ClassVar[frozenset[Call]] = frozenset(
        ("encode", "classify", "prefill", "generate", "sample", "train_step", "load", "import", "start")
    )
    imports: ClassVar[str] = "import transformers"
    by_length: ClassVar[bool] = True

    def load(self, setup: Setup) -> None:
        """Loads the checkpoint, an encoder without its head."""
        import transformers

        quiet()
        self.setup = setup
        kind = getattr(transformers, CLASSES[setup.family])
        dtype = getattr(torch, setup.dtype)
        self.model = kind.from_pretrained(setup.folder, dtype=dtype).to(setup.device).eval()
        if setup.family != "encoder":
            self.model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def encode(self, rows: Rows) -> Tensor:
        """Returns the mean hidden states, (R, E)."""
        return in_batches(rows, self._encode, PADDED_TEXTS, by_length=self.by_length)

    def _encode(self, rows: Rows) -> Tensor:
        ids, mask = padded(rows, self.setup.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean: Tensor = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return mean.cpu()

    def make_pipeline(self) -> Any:
        """Returns the pipeline, which runs texts one by one."""
        import transformers

        options: dict[str, Any] = {"device": self.setup.device, "dtype": getattr(torch, self.setup.dtype)}
        return transformers.pipeline("text-classification", str(self.setup.folder), **options)

    @torch.inference_mode()
    def prefill(self, rows: Rows, written: Rows | None = None) -> Tensor:
        """Returns the logits of the next token, (R, V)."""
        ids = torch.tensor(rows, device=self.setup.device)
        if self.setup.family == "encoder-decoder":
            start = self.model.generation_config.decoder_start_token_id
            start = self.model.config.decoder_start_token_id if start is None else start
            target = [[start, *tokens] for tokens in written or [[] for _ in rows]]
            target_ids = torch.tensor(target, device=self.setup.device)
            logits: Tensor = self.model(input_ids=ids, decoder_input_ids=target_ids).logits
        else:
            if written is not None:
                ids = torch.cat((ids, torch.tensor(written, dtype=ids.dtype, device=ids.device)), dim=1)
            logits = self.model(input_ids=ids, logits_to_keep=1).logits
        return logits[:, -1].float().cpu()

    def generate(self, rows: Rows, new_tokens: int | list[int], num_beams: int = 1) -> Rows:
        """Returns the new tokens."""
        options = {"do_sample": False, "num_beams": num_beams}
        if isinstance(new_tokens, int):
            return self._batch(rows, new_tokens, options)
        made: Rows = []
        for first in range(0, len(rows), PADDED_PROMPTS):
            counts = new_tokens[first : first + PADDED_PROMPTS]
            batch = self._batch(rows[first : first + PADDED_PROMPTS], max(counts), options)
            made += [row[:count] for row, count in zip(batch, counts, strict=True)]
        return made

    def sample(self, rows: Rows, new_tokens: int) -> Rows:
        """Returns drawn tokens."""
        options = {"do_sample": True, "temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P}
        return self._batch(rows, new_tokens, options)

    @torch.inference_mode()
    def _batch(self, rows: Rows, new_tokens: int, options: dict[str, Any]) -> Rows:
        ids, mask = padded(rows, self.setup.device, left=self.setup.family == "decoder")
        made = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, pad_token_id=0, **options
        )
        new: Rows = made[:, -new_tokens:].tolist()
        return new

    def program(self, setup: Setup, prompt: list[int]) -> str:
        """Returns a program that prints the first new token."""
        return (
            "import torch, transformers\n"
            f"kind = transformers.{CLASSES[setup.family]}\n"
            f"model = kind.from_pretrained({str(setup.folder)!r}, dtype={setup.dtype!r})\n"
            f"model = model.to({setup.device!r}).eval()\n"
            f"ids = torch.tensor([{prompt}], device={setup.device!r})\n"
            "with torch.inference_mode():\n"
            "    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1,\n"
            "                          do_sample=False, pad_token_id=0)\n"
            "print(int(made[0, -1]))\n"
        )


class TransformersUnsorted(Transformers):
    """transformers with its defaults, and texts batched in their order instead of by length.

    That is how a loop over a list runs them.
    """

    name: ClassVar[str] = "transformers-unsorted"
    calls: ClassVar[frozenset[Call]] = frozenset(("encode",))
    by_length: ClassVar[bool] = False


def quiet() -> None:
    """Switches the progress bars and notes of transformers off."""
    from transformers import logging

    log: Any = logging
    log.set_verbosity_error()
    log.disable_progress_bar()
