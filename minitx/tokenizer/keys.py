"""The keys of tokenizer_config.json: those that are applied, those that are refused, and records.

The tables hold every argument of the tokenizer classes in transformers 5.23 for the architectures here. Any
other key has no effect in transformers either; it is kept, and saved again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minitx.tokenizer.files import CONFIG, SPECIAL_TOKENS, wrong

_APPLIED = """
    add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens chat_template
    clean_up_tokenization_spaces clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    cell_trim_length do_basic_tokenize do_lower_case empty_token extra_ids extra_special_tokens keep_accents
    language_codes legacy max_column_id max_question_length max_row_id min_question_length strip_column_names
    legacy_behaviour mask_token_sent max_len model_input_names model_max_length model_specific_special_tokens
    never_split offset padding_side separate_vocabs split_by_punct split_special_tokens src_lang strip_accents
    tgt_lang tokenize_chinese_chars tokenizer_class trim_offsets truncation_side
"""
APPLIED = frozenset(_APPLIED.split()) | set(SPECIAL_TOKENS)

_OTHER_FILES = "the vocabulary files define it"
_OPTION = "an option of a call, without effect in a file"
_LOADING = "a record of how the tokenizer was loaded"
RECORDS: Mapping[str, str] = {
    "auto_map": "code of the checkpoint, which is not run",
    "backend": _LOADING,
    "chat_control_tokens": "an option of transformers for text that is inserted into templates",
    "errors": "bytes that are no character are always decoded as U+FFFD",
    "files_loaded": _LOADING,
    "init_inputs": _LOADING,
    "is_local": _LOADING,
    "local_files_only": _LOADING,
    "max_length": _OPTION,
    "merges": _OTHER_FILES,
    "merges_file": _OTHER_FILES,
    "name_or_path": _LOADING,
    "num_madeup_words": "the number of rows of the embedding without a token",
    "pad_to_multiple_of": _OPTION,
    "pad_token_type_id": "padding is masked; its type has no effect",
    "processor_class": "the class of an image or audio processor",
    "remove_space": "the sentencepiece file defines it",
    "response_schema": "describes how an answer is parsed",
    "response_template": "describes how an answer is parsed",
    "source_lang": "the name of a language of Marian, which has one source vocabulary",
    "source_spm": _OTHER_FILES,
    "spaces_between_special_tokens": "an option of decoding in older versions of transformers",
    "special_tokens_map_file": _OTHER_FILES,
    "spm_file": _OTHER_FILES,
    "stride": _OPTION,
    "target_lang": "the name of a language of Marian, which has one target vocabulary",
    "target_spm": _OTHER_FILES,
    "target_vocab_file": _OTHER_FILES,
    "tokenizer_family": "the rule of languages of a folder that minitx saved",
    "tokenizer_file": _OTHER_FILES,
    "truncation_strategy": _OPTION,
    "unk_id": "the vocabulary file defines it",
    "use_default_system_prompt": "the chat template defines the system prompt",
    "use_fast": _LOADING,
    "verbose": "controls warnings",
    "vocab": _OTHER_FILES,
    "vocab_file": _OTHER_FILES,
    "vocab_type": "the vocabulary files define it",
    "wordpieces_prefix": "pieces inside a word begin with ## in each vocab.txt",
}
# key -> values without effect, and what must be stated instead of any other
REFUSED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "fix_mistral_regex": ((None, False), "false or null; correct the pattern in tokenizer.json instead"),
    "update_answer_coordinates": ((None, False), "false or null; answers are coordinates"),
    "sp_model_kwargs": ((None, {}), "{} or null; segmentations are not drawn at random here"),
}


def check_keys(config: Mapping[str, Any]) -> None:
    """Checks that tokenizer_config.json requires nothing that is not implemented.

    Raises:
        ValueError: a key with an effect that is not implemented; the message names it.
    """
    for key, (allowed, expected) in REFUSED.items():
        if config.get(key) not in allowed:
            wrong(CONFIG, key, config[key], expected)
