"""A tokenizer of words for the tests of objectives: one id per word, and every kind of special token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors

import minitx
from minitx.tokenizer import Tokenizer

SPECIAL = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
SENTINELS = [f"<extra_id_{index}>" for index in range(20)]
ROLES = ["user", "assistant", "system", ":", "."]
WORDS = [f"w{index}" for index in range(60)]
FIRST = len(SPECIAL) + len(SENTINELS)  # the first id of a word

# Both render the same text; the first marks the responses.
MARKED = (
    "{{ bos_token }}{% for message in messages %} {{ message.role }} : "
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }} {{ eos_token }}"
    "{% endgeneration %}{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} assistant : {% endif %}"
)
PLAIN = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
TALK = [
    {"role": "system", "content": "w1"},
    {"role": "user", "content": "w2 w3"},
    {"role": "assistant", "content": "w4 w5"},
    {"role": "user", "content": "w6"},
    {"role": "assistant", "content": "w7"},
]


def word_tokenizer(folder: Path, *, template: bool = True, chat: str = PLAIN, **config: Any) -> Tokenizer:
    """A tokenizer of `WORDS`, which puts <s> and </s> around a text unless `template` is False."""
    tokens = [*SPECIAL.values(), *SENTINELS, *ROLES, *WORDS]
    backend = Backend(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([*SPECIAL.values(), *SENTINELS])
    if template:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    backend.save(str(folder / "tokenizer.json"))
    names = {f"{role}_token": token for role, token in SPECIAL.items()}
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chat, **names, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return minitx.load_tokenizer(folder)
