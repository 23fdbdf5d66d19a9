"""Token healing against `heal_tokens` of transformers, where the two mean the same.

That is: a single token is removed, nothing shorter spells its text, the bonus of 10 makes one of its
extensions the best token, and the bonus of 1 for the removed token itself does not decide.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import minitx
from minitx.decoding import Greedy
from minitx.decoding.generate import generate
from minitx.decoding.text.healing import Vocabulary
from minitx.decoding.text.stopping import Stop

WORDS = ["a", "b", "c", "d", "e", "ab", "abc", "abd", "ca", "cab", "de", "dea", "eb", "ebb", "ed"]
SPECIAL = ["<pad>", "<s>", "</s>"]


def checkpoint(folder: Path) -> None:
    vocab = {token: index for index, token in enumerate([*SPECIAL, *WORDS])}
    merges = [("a", "b"), ("ab", "c"), ("ab", "d"), ("c", "a"), ("ca", "b"), ("d", "e"), ("de", "a")]
    merges += [("e", "b"), ("eb", "b"), ("e", "d")]
    backend = Backend(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    roles = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side="left", **roles
    ).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 32, "initializer_range": 0.9}
    config = transformers.GPT2Config(
        vocab_size=len(vocab), pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def test_the_token_that_replaces_the_last_one(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    reference = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model, tokenizer = minitx.load(tmp_path), minitx.load_tokenizer(tmp_path)
    vocabulary, compared, extended = Vocabulary(tokenizer, len(tokenizer)), 0, 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        draws = torch.randint(5, (6,), generator=generator).tolist()
        text = "".join("abcde"[draw] for draw in draws)
        prompt = tokenizer.encode(text)
        healed = vocabulary.heal(prompt)
        if len(prompt) - len(healed.ids) != 1 or len(healed.removed) > 1:
            continue
        with torch.no_grad():
            logits = reference(torch.tensor([healed.ids])).logits[0, -1]
        biased = logits.clone()
        biased[vocabulary.beginning_with(healed.removed)] += 10
        with_bonus = biased.index_add(0, torch.tensor([prompt[-1]]), torch.tensor([1.0]))
        if with_bonus.argmax() != biased.argmax() or int(biased.argmax()) not in vocabulary.beginning_with(
            healed.removed
        ):
            continue
        expected = reference.heal_tokens(torch.tensor([prompt]), theirs)[0].tolist()
        options = {"max_new_tokens": 1, "tokenizer": tokenizer, "heal": True, "stop": Stop(eos=())}
        result = generate(model, [prompt], Greedy(), **options)  # type: ignore[arg-type]
        assert [*healed.ids, *result.sequences[0].tolist()] == expected
        compared += 1
        extended += expected[-1] != prompt[-1]
    assert compared >= 20
    assert extended >= 5
