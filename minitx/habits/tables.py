"""Names that `transformers` and other libraries use and minitx does not, with what to use here.

Three tables, by the place where a name is used: arguments of a call, attributes of a model, a tokenizer or
the package, and options of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping

_LOADING = {
    "attn_implementation": 'Use attention="sdpa" or "eager".',
    "cache_dir": "Set the environment variable HF_HUB_CACHE.",
    "config": "The folder's config.json is used; minitx.from_config(config) gives fresh weights.",
    "device_map": 'Use device="cuda"; a model lies on one device.',
    "force_download": "Delete the model from the Hub cache to download it again.",
    "ignore_mismatched_sizes": "Use init_head=True with num_labels=... for a head of another size.",
    "load_in_4bit": 'minitx does not quantize while it loads; dtype="bfloat16" halves float32.',
    "load_in_8bit": 'minitx does not quantize while it loads; dtype="bfloat16" halves float32.',
    "local_files_only": "Use offline=True.",
    "low_cpu_mem_usage": "minitx always loads by memory mapping; leave it out.",
    "max_memory": "A model lies on one device; leave it out.",
    "pretrained_model_name_or_path": "The folder or Hub id is the first argument.",
    "quantization_config": 'minitx does not quantize while it loads; dtype="bfloat16" halves float32.',
    "strict": "A key that minitx does not know is always an error; ignore_keys=(...) leaves it out.",
    "torch_dtype": 'Use dtype="float16" or dtype=torch.float16.',
    "trust_remote_code": "minitx runs no code from a checkpoint; leave it out.",
    "use_auth_token": "Use token=...",
    "use_safetensors": "safetensors files are preferred where there are any; leave it out.",
}

_ABSENT = "It is not available in minitx."
_ASSISTED = "Use the strategy Speculative(draft=DraftModel(...)) or another draft."
_GUIDANCE = "Use guidance=minitx.decoding.ClassifierFree(scale, negative_prompts)."
_CACHE = "generate makes its own cache; pass cache=model.make_cache(...) in a loop of your own."
_COMPILE = "generate compiles nothing; leave it out."

_GENERATE = {
    **dict.fromkeys(
        ("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight"), _ASSISTED
    ),
    **dict.fromkeys(("assistant_lookbehind", "assistant_model", "assistant_tokenizer"), _ASSISTED),
    **dict.fromkeys(("is_assistant", "max_matching_ngram_size", "num_assistant_tokens"), _ASSISTED),
    **dict.fromkeys(("num_assistant_tokens_schedule", "prompt_lookup_num_tokens"), _ASSISTED),
    **dict.fromkeys(("speculation_type", "target_lookbehind", "use_mtp"), _ASSISTED),
    **dict.fromkeys(("guidance_scale", "negative_prompt_attention_mask", "negative_prompt_ids"), _GUIDANCE),
    **dict.fromkeys(("custom_generate", "synced_gpus"), _ABSENT),
    "token_healing": "It is called heal here.",
    **dict.fromkeys(("compile_config", "disable_compile"), _COMPILE),
    "bos_token_id": "The tokenizer and the checkpoint determine the start token; leave it out.",
    "cache_config": _CACHE,
    "cache_implementation": _CACHE,
    "constraints": "Required phrases belong to LexicalBeam(force_words_ids=[...]).",
    "continuous_batching_config": "minitx.pipelines.generate_batches divides the prompts into batches.",
    "decoder_attention_mask": "No padding is needed; decoder prompts may differ in length.",
    "decoder_input_ids": "Use decoder_prompts=[[...]].",
    "decoder_start_token_id": "Use decoder_prompts=[[id]].",
    "do_sample": "Sample(...) draws tokens, Greedy() takes the most probable ones.",
    "dola_layers": "Use guidance=minitx.decoding.DoLa(layers).",
    "eos_token_id": "End tokens belong to stop=Stop(eos=...).",
    "generation_config": 'strategy="checkpoint" uses generation_config.json.',
    **dict.fromkeys(("input_ids", "inputs"), "Prompts, texts or ids, are the second argument."),
    "logits_processor": "Processors belong to the strategy: Sample(processors=[...]).",
    "low_memory": "All beams are computed together; leave it out.",
    "max_cache_len": "The cache has the length that prompt and max_new_tokens need; leave it out.",
    "max_length": "max_new_tokens=... limits the new tokens alone.",
    "max_time": "Time limits belong to stop=Stop(seconds=...).",
    "max_tokens": "It is called max_new_tokens here.",
    **dict.fromkeys(("n", "num_return_sequences"), "It is called num_samples here."),
    "output_attentions": "generate returns none; call model(input_ids, output_attentions=True).",
    "output_hidden_states": "generate returns none; call model(input_ids, output_hidden_states=True).",
    "output_logits": 'logprobs="raw" returns log-probabilities; model(input_ids).logits has the logits.',
    "output_scores": 'logprobs="raw" or "processed" asks for log-probabilities.',
    "pad_token_id": "No padding is needed; prompts may differ in length.",
    "past_key_values": _CACHE,
    "prefill_chunk_size": "It is called prefill_chunk here.",
    "return_dict_in_generate": "generate always returns a Result; leave it out.",
    "stop_strings": "Stop strings belong to stop=Stop(strings=...).",
    "stop_token_ids": "Stop tokens belong to stop=Stop(tokens=...).",
    "stopping_criteria": "stop=Stop(function=...) ends a row; stream(...) can be left at any token.",
    "streamer": "minitx.stream(...) yields the tokens.",
    "watermarking_config": "A watermark belongs to the strategy: Sample(watermark=KGW(...)).",
    "use_cache": "generate always uses a key/value cache; leave it out.",
}

# Arguments of `generate` that users expect to be fields of a strategy.
_OF_THE_CALL = {
    name: f"It is an argument of the call: generate(..., {name}=...)."
    for name in (
        "generator",
        "guidance",
        "logprobs",
        "max_new_tokens",
        "min_new_tokens",
        "num_samples",
        "seed",
        "stop",
        "top_logprobs",
    )
}

_PIPELINE = {
    **{name: _LOADING[name] for name in ("cache_dir", "config", "device_map", "force_download")},
    **{name: _LOADING[name] for name in ("load_in_4bit", "load_in_8bit", "local_files_only")},
    **{name: _LOADING[name] for name in ("low_cpu_mem_usage", "quantization_config", "use_auth_token")},
    "X": "Inputs are the first argument, or fields by name: question=..., context=...",
    "activation_fn": 'Use function_to_apply="sigmoid" or "none".',
    "attn_implementation": 'Load the model with minitx.load(..., attention="eager") and pass it as model=.',
    "convert_to_numpy": "Call .numpy() on the result.",
    "convert_to_tensor": "pipe.encode returns a tensor; leave it out.",
    "data": "Inputs are the first argument, or fields by name: question=..., context=...",
    "force_words_ids": "Use strategy=LexicalBeam(force_words_ids=[...]).",
    "framework": "minitx is PyTorch; leave it out.",
    "generate_kwargs": "Pass the options of generation themselves, such as num_beams=4.",
    "generation_config": "Pass its settings as options, such as temperature=0.8.",
    "generator": "Use seed=..., with which a result does not depend on the other inputs.",
    "grouped_entities": 'Use aggregation_strategy="simple".',
    "ignore_subwords": 'Use aggregation_strategy="first".',
    "max_time": "Time limits belong to stop=Stop(seconds=...).",
    "max_tokens": "It is called max_new_tokens here.",
    "model_kwargs": "Load the model with minitx.load(...) and pass it as model=.",
    "n": "It is called num_return_sequences here.",
    "normalize_embeddings": "It is called normalize here.",
    "num_beam_groups": "Use strategy=DiverseBeam(num_beam_groups=...).",
    "num_workers": "Tokenization is fast enough in the calling thread; leave it out.",
    "offset_mapping": "Offsets are those of the tokenizer; leave it out.",
    "pad_token_id": "No padding token is needed; leave it out.",
    "padding": "Batches are padded as far as their rows need; leave it out.",
    "return_all_scores": "top_k=None returns all labels.",
    "return_type": "Use return_tensors=, return_full_text= or neither.",
    "sequences": "Texts are the first argument, or inputs=...",
    "show_progress_bar": "Give progress=True or False to pipeline().",
    "streamer": "pipe.stream(text) yields the pieces of a text.",
    "text_inputs": "The texts are the first argument, or inputs=...",
    "tokenize_kwargs": "max_length= and overflow= state how long texts are handled.",
    "tokenizer_encode_kwargs": "Variables of the chat template are template_variables={...}.",
    "tokenizer_kwargs": "max_length= and overflow= state how long texts are handled.",
    "topk": "It is called top_k.",
    "torch_dtype": 'Use dtype="float16" or dtype=torch.float16.',
    "truncation": 'Use overflow="truncate", with max_length=512 for that limit; "window" divides long texts.',
    "trust_remote_code": "minitx runs no code from a checkpoint; leave it out.",
    "use_cache": "Generation always uses a key/value cache; leave it out.",
    "use_fast": "There is one kind of tokenizer; leave it out.",
}

# place -> name of an argument elsewhere -> what to use here
ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "load": _LOADING,
    "pipeline": _PIPELINE,
    "embed": {
        "convert_to_numpy": "Call .cpu().numpy() on the result.",
        "convert_to_tensor": "The result is a tensor; leave it out.",
        "device": "Vectors are computed on the model's device; call model.to(device).",
        "normalize_embeddings": "It is called normalize here.",
        "prompt_name": "Use prompt=embedding_settings(model).prompts[name].",
        "sentences": "Texts are the second argument.",
        "show_progress_bar": "progress= takes a function, which gets the number of texts after each batch.",
        "truncate_dim": "Use settings=replace(embedding_settings(model), truncate_dim=...).",
    },
    "from_config": {
        "attn_implementation": 'Call model.set_attention("sdpa") or ("eager").',
        "device": "Call model.to(device) on the result.",
        "device_map": "Call model.to(device) on the result; a model lies on one device.",
        "num_labels": "It belongs to the config: from_config({**config, 'num_labels': ...}).",
        "torch_dtype": 'Use dtype="float16" or dtype=torch.float16.',
        "trust_remote_code": "minitx runs no code from a checkpoint; leave it out.",
    },
    "forward": {
        "encoder_outputs": "Use encoder_last_hidden_state=model.encode(...).",
        "head_mask": "Heads cannot be masked.",
        "num_logits_to_keep": "Use logits_to_keep.",
        "past_key_values": "Pass cache=model.make_cache(); it is updated in place and returned as out.cache.",
        "return_dict": "A forward always returns a ModelOutput; leave it out.",
        "use_cache": "Pass cache=model.make_cache() to use a key/value cache.",
    },
    "generate": _GENERATE,
    "strategy": _GENERATE | _OF_THE_CALL,
    "load_tokenizer": {
        "cache_dir": "Set the environment variable HF_HUB_CACHE.",
        "local_files_only": "Use offline=True.",
        "pretrained_model_name_or_path": "The folder or Hub id is the first argument.",
        "padding_side": "Pass it to the call: tokenizer(texts, padding=True, padding_side=...).",
        "trust_remote_code": "minitx runs no code from a checkpoint; leave it out.",
        "use_auth_token": "Use token=...",
        "use_fast": "There is one tokenizer for every checkpoint; leave it out.",
    },
    "save": {
        "is_main_process": "Call save in one process only.",
        "push_to_hub": "Use huggingface_hub's upload_folder after saving.",
        "safe_serialization": "safetensors files are always written; leave it out.",
        "save_directory": "The folder is the second argument.",
        "state_dict": "The model's own parameters are saved; change them in the model.",
    },
    "tokenizer": {
        "return_attention_mask": "The batch holds what the model takes; leave it out.",
        "return_length": "batch.attention_mask.sum(1) gives the lengths.",
        "return_offsets_mapping": "Use return_offsets=True.",
        "return_overflowing_tokens": "Use return_overflow=True.",
        "return_tensors": "Tensors are the default; as_tensors=False gives lists.",
        "return_token_type_ids": "The batch holds what the model takes; leave it out.",
        "text": "Texts are the first argument.",
        "text_pair": "Use pairs=...",
        "text_target": "Use a second call with as_target=True.",
    },
}

# place -> name of an attribute elsewhere -> what to use here
ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "model": {
        "base_model": "The stack's parts are model.embedder, model.encoder or model.decoder.",
        "from_pretrained": "Use minitx.load(folder_or_hub_id).",
        "generate": "Use minitx.generate(model, prompts, strategy, tokenizer=...).",
        "get_input_embeddings": "It is model.embedder.word_emb.",
        "get_output_embeddings": "It is model.head.projection.",
        "push_to_hub": "Use minitx.save(model, folder), then huggingface_hub's upload_folder.",
        "save_pretrained": "Use minitx.save(model, folder, tokenizer=tokenizer).",
    },
    "tokenizer": {
        "add_special_tokens": "Use tokenizer.add_tokens([...], special=True).",
        "batch_decode": "Use tokenizer.decode_batch(rows).",
        "batch_encode_plus": "Call tokenizer(texts).",
        "chat_template": 'It is tokenizer.chat.templates["default"].',
        "convert_ids_to_tokens": "Use tokenizer.id_to_token(id) for each.",
        "convert_tokens_to_ids": "Use tokenizer.token_to_id(token) for each.",
        "encode_plus": "Call tokenizer(text).",
        "from_pretrained": "Use minitx.load_tokenizer(folder_or_hub_id).",
        "get_vocab": "It is the property tokenizer.vocab.",
        "pad": "Call tokenizer(texts, padding=True).",
        "save_pretrained": "Use tokenizer.save(folder).",
        "split_special_tokens": "Set it in tokenizer_config.json, and load the tokenizer again.",
        "tokenize": "Use tokenizer.tokens(text).",
        "vocab_size": "Use len(tokenizer).",
    },
    "minitx": {
        "AutoConfig": "Use minitx.from_config(config), config the content of a config.json.",
        "AutoModel": 'Use minitx.load(folder_or_hub_id, head="none").',
        "AutoModelForCausalLM": 'Use minitx.load(folder_or_hub_id, head="causal-lm").',
        "AutoModelForMaskedLM": 'Use minitx.load(folder_or_hub_id, head="masked-lm").',
        "AutoModelForQuestionAnswering": 'Use minitx.load(folder_or_hub_id, head="question-answering").',
        "AutoModelForSeq2SeqLM": 'Use minitx.load(folder_or_hub_id, head="seq2seq-lm").',
        "AutoModelForSequenceClassification": (
            'Use minitx.load(folder_or_hub_id, head="sequence-classification").'
        ),
        "AutoModelForTokenClassification": 'Use minitx.load(folder_or_hub_id, head="token-classification").',
        "AutoTokenizer": "Use minitx.load_tokenizer(folder_or_hub_id).",
        "GenerationConfig": "Use a strategy such as minitx.Sample(temperature=0.8).",
        "from_pretrained": "Use minitx.load(folder_or_hub_id).",
        "summarize": "Use minitx.inspect.summarize(model).",
        "set_seed": "Use torch.manual_seed(seed), or generate(..., seed=...).",
        "verify": "Use minitx.inspect.verify(folder_or_hub_id), or the command `minitx verify`.",
    },
}

# Parameters without an option of `minitx generate`: why. Then options of other tools.
OPTIONS: dict[str, str] = {
    "--processors": "it takes Python functions: minitx.Sample(processors=[...])",
    "--prefix-allowed-tokens-fn": "it is a Python function: minitx.Sample(prefix_allowed_tokens_fn=...)",
    "--stop-function": "it is a Python function: minitx.Stop(function=...)",
    "--chain": "it is composed in Python: minitx.Sample(chain=minitx.Chain(...))",
    "--generator": "it is an object of PyTorch; --seed makes draws repeatable",
    "--inputs-embeds": "it is a tensor: minitx.generate(..., inputs_embeds=...)",
    "--prefix": "it is an object: minitx.PrefixCache(model); minitx chat keeps one",
    "--cache": "it is for contexts of many tokens: minitx.generate(..., cache='int8')",
    "--attention-mask": "prompts of different lengths are padded for you",
    "--tokenizer": "it is the one beside the model",
    "--do-sample": "sampling is the default, --greedy the alternative",
    "--num-return-sequences": "it is called --num-samples",
    "--max-length": "--max-new-tokens is the number of new tokens",
    "--stop-strings": "it is called --stop",
    "--eos-token-id": "it is called --eos",
    "--n": "it is called --num-samples",
    "--head": "it is always the one for the next token",
}
