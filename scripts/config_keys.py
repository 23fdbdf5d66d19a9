#!/usr/bin/env python
"""Changes every key of every config.json in turn, and holds the effect in minitx against transformers.

For each model_type: the keys of transformers' config class, those that its shared code reads from any
config, and those that files in the wild have. Each gets other values on a tiny random model, with every
head; the outputs of a batch with and without padding, the loss and decoding with a cache are compared.

    .venv/bin/python scripts/config_keys.py                    # counts and failures
    .venv/bin/python scripts/config_keys.py --write            # writes the table of known keys
    .venv/bin/python scripts/config_keys.py --types bert llama --quick

A key may be without effect on the numbers (then it is in minitx/architectures/known_keys.json, with the
reason that this file gives it), obeyed, or refused. Anything else is a failure, and the exit status is 1.
Counts are named by the effect in transformers and in minitx: "changes/equal 98".
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from minitx.architectures import REGISTRY  # noqa: E402 - found by the line above
from minitx.architectures.known_keys import EVERY, SECOND_NAMES  # noqa: E402
from tests.parity.cases import CASES  # noqa: E402
from tests.parity.keys import (  # noqa: E402
    Bench,
    Change,
    Verdict,
    changes,
    config_class,
    excepted,
    file_of,
    keys_read,
    own_keys,
    shared_keys,
)

TABLE = ROOT / "minitx" / "architectures" / "known_keys.json"
QUICK = ("masked-lm", "causal-lm", "seq2seq-lm", "sequence-classification")

# Why a key has no effect on the numbers of a model in eval mode. That it has none is measured.
# First the keys that a file of any architecture may have, then further ones of single architectures.
ANYWHERE = {
    "execution": """
        _attn_implementation _attn_implementation_autoset _attn_implementation_internal
        _flash_attn_2_enabled attn_implementation chunk_size_feed_forward device_map dtype
        experts_implementation gradient_checkpointing output_attentions output_hidden_states output_past
        pretraining_tp return_dict tf_legacy_loss torch_dtype torchscript use_bfloat16 use_cache
        use_flash_attn use_return_dict xla_device
    """,
    "generation": """
        assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens
        cache_implementation decoder_start_token_id diversity_penalty do_sample early_stopping
        encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
        exponential_decay_length_penalty force_bos_token_to_be_generated forced_bos_token_id
        forced_decoder_ids forced_eos_token_id length_penalty max_length max_new_tokens min_length
        no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams
        num_return_sequences output_scores prefix remove_invalid_values repetition_penalty
        return_dict_in_generate suppress_tokens target_lookbehind task_specific_params temperature top_k
        top_p typical_p
    """,
    "tokenizer": """
        bos_token_id cls_token_id eos_token_id eos_token_ids mask_token_id model_max_length padding_side
        sep_token_id tokenizer_class unk_token_id
    """,
    "training": "initializer_range neftune_noise_alpha",
    "record": """
        _commit_hash _name_or_path _num_labels adapters architectures auto_map custom_heads custom_pipelines
        finetuning_task is_encoder_decoder label2id language model_name model_type name name_or_path
        sbert_ce_default_activation_function sentence_transformers transformers.js_config
        transformers_version trust_remote_code unsloth_fixed unsloth_version
    """,
}
# The same, but only at these values: they belong to architectures with another structure.
AT_REST: dict[str, Any] = {
    "add_cross_attention": [False],
    "cross_attention_hidden_size": [None],
    "is_decoder": [False],
    "pruned_heads": [{}, None],
    "quantization_config": [None],
    "rope_interleaved": [False],
    "tie_encoder_decoder": [False],
}
# The values at which a key of single architectures has no effect, although its own code never reads it.
DEFAULTS: dict[str, dict[str, list[Any]]] = {
    "deberta-v2": {"is_causal": [None, False]},
    "gpt_neo": {"is_causal": [None, True]},
    "mpnet": {"is_causal": [None, False]},
}
SUMMARY = "summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj"
BART_FILES = {
    "generation": "force_bos_token_to_be_generated",
    "record": """
        add_bias_logits add_final_layer_norm classif_dropout do_blenderbot_90_layernorm extra_layer_norm
        extra_pos_embeddings layernorm_variant normalize_before normalize_embedding
        static_position_embeddings variant
    """,
    "training": "save_step",
}
IN_FILES: dict[str, dict[str, str]] = {
    "albert": {"record": "layers_to_keep"},
    "deberta-v2": {"record": "summary_type"},
    "bert": {
        "record": """
            directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
            pooler_size_per_head pooler_type vocab_size_or_config_json_file
        """
    },
    "bloom": {
        "execution": "attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion skip_bias_add "
        "skip_bias_add_qkv",
        "record": "offset_alibi",
    },
    "distilbert": {"record": "tie_weights_ vocab_size_or_config_json_file"},
    "gemma": {"record": "hidden_activation"},
    "gemma2": {"record": "sliding_window_size"},
    "gemma3_text": {"record": "_sliding_window_pattern"},
    "gpt2": {"record": "n_ctx n_special predict_special_tokens vocab_size_or_config_json_file"},
    "gpt_neo": {"record": SUMMARY},
    "gpt_neox": {"training": "attention_probs_dropout_prob hidden_dropout_prob"},
    "gpt_oss": {"record": "experts_per_token initial_context_length"},
    "gptj": {"record": "n_ctx rotary scale_attn_weights " + SUMMARY},
    "llama": {"record": "is_llama_config max_sequence_length"},
    "modernbert": {
        "execution": "reference_compile repad_logits_with_grad",
        "record": "layer_norm_eps position_embedding_type",
    },
    "qwen3_moe": {"record": "max_window_layers"},
    "smollm3": {"record": "max_window_layers"},
    "opt": {"training": "activation_dropout"},
    "t5": {"record": "n_positions"},
    **dict.fromkeys(("bart", "blenderbot", "m2m_100", "marian", "mbart", "pegasus"), BART_FILES),
}
IN_FILES |= dict.fromkeys(("camembert", "electra", "roberta", "xlm-roberta"), IN_FILES["bert"])
IN_FILES["tapas"] = {"record": IN_FILES["bert"]["record"] + " softmax_temperature"}
IN_FILES |= {"mt5": IN_FILES["t5"], "umt5": {"record": "n_positions scalable_attention"}}
# Keys of the config classes.
DECLARED = {
    "execution": """
        deterministic_flash_attn pretraining_tp reorder_and_upcast_attn slow_but_exact
        sparse_pred_ignore_index sparse_prediction
    """,
    "training": """
        activation_dropout decoder_layerdrop embd_pdrop encoder_layerdrop initializer_cutoff_factor
        router_aux_loss_coef router_jitter_noise sinusoidal_pos_embds
    """,
    "record": """
        _sliding_window_pattern aggregation_labels attn_logit_softcapping hidden_activation id2label
        is_decoder is_encoder_decoder max_window_layers no_aggregation_label_index problem_type
    """
    + SUMMARY,
}


# Values at which a key that has an effect may have none.
REST: list[Any] = [None, False, True, 0, [], {}]


def listed(counts: Counter[tuple[str, str]]) -> str:
    """The counts as words: effect in transformers, and in minitx."""
    return ", ".join(f"{theirs}/{ours} {number}" for (theirs, ours), number in sorted(counts.items()))


def words(reasons: dict[str, str]) -> dict[str, str]:
    """A key -> its reason."""
    return {key: reason for reason, keys in reasons.items() for key in keys.split()}


def benches(
    kind: str, root: Path, *, quick: bool, minitx: bool = True
) -> Iterator[tuple[Bench, tuple[str, ...]]]:
    """The configurations, forms and heads of an architecture, each with the further keys to change."""
    cases = [case for case in CASES if case.model_type == kind]
    anywhere = {} if quick else words(ANYWHERE) | AT_REST
    further = tuple({*shared_keys(), *anywhere, *words(IN_FILES.get(kind, {}))} - {"model_type"})
    for case in cases:
        first = case is cases[0]
        tasks = [task for task in case.tasks if task in QUICK or not quick] or case.tasks[-1:]
        for form in ("short", "full") if first and not quick else ("short",):
            for task in tasks if first else tasks[:1]:
                bench = Bench(case, form, task, root, minitx=minitx)
                if minitx and not bench.ours.equals(bench.before):
                    raise SystemExit(f"{case.name} ({task}): unchanged, and not equal: {bench.ours.error}")
                yield bench, further if first else ()


def verdicts(kind: str, *, quick: bool) -> list[Verdict]:
    """Every change of an architecture."""
    with tempfile.TemporaryDirectory() as root:
        return [
            bench.judge(change)
            for bench, further in benches(kind, Path(root), quick=quick)
            for change in changes(bench.case, bench.form, further)
        ]


def known(kind: str, *, quick: bool) -> dict[str, Any]:
    """The keys that minitx does not read, with the reason or with the values that have no effect."""
    effects: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    with tempfile.TemporaryDirectory() as root:
        for bench, further in benches(kind, Path(root), quick=quick, minitx=False):
            for change in changes(bench.case, bench.form, further):
                if change.key not in bench.read:
                    effects[change.key][json.dumps(change.value)].add(bench.effect(change).theirs)
            for key in [
                key for key, by_value in effects.items() if "changes" in set().union(*by_value.values())
            ]:
                for value in REST:
                    change = Change(bench.case.name, bench.form, key, value)
                    effects[key][json.dumps(value)].add(bench.effect(change).theirs)
    everywhere = words(ANYWHERE)
    reasons = everywhere | words(DECLARED) | words(IN_FILES.get(kind, {}))
    own = {*own_keys(kind), *words(IN_FILES.get(kind, {}))}
    table: dict[str, Any] = dict(DEFAULTS.get(kind, {}))
    for key, by_value in effects.items():
        if key in config_class(kind).attribute_map or "." in key:
            continue  # a second name; a key of an inner config, which has its own table
        if "changes" in set().union(*by_value.values()):
            rest = [value for value in REST if by_value[json.dumps(value)] == {"same"}]
            if rest or key in everywhere or key in AT_REST:
                table[key] = rest
        elif key in reasons:
            if key not in everywhere and key in own:
                table[key] = reasons[key]
        elif key in own:
            print(f"{kind}: {key} has no effect in transformers; it needs a reason here.")
    return table


def second_names() -> dict[str, dict[str, str]]:
    """Second names of the keys that minitx reads, as transformers' config classes have them."""
    result = {}
    for kind in REGISTRY:
        case = next(case for case in CASES if case.model_type == kind)
        read = keys_read(case, file_of(case, "short"))
        names = config_class(kind).attribute_map
        result[kind] = {second: key for second, key in sorted(names.items()) if key in read}
    return {kind: names for kind, names in result.items() if names}


def write(table: dict[str, dict[str, Any]]) -> None:
    """Writes the table, a line for each key."""
    lines = []
    for kind in sorted(table):
        rows = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(table[kind].items())]
        lines.append(
            f" {json.dumps(kind)}: {{\n" + ",\n".join(rows) + "\n }" if rows else f" {json.dumps(kind)}: {{}}"
        )
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table of known keys")
    parser.add_argument("--quick", action="store_true", help="fewer heads and forms")
    parser.add_argument("--types", nargs="+", default=list(REGISTRY), choices=list(REGISTRY))
    parser.add_argument("--log", type=Path, help="write every verdict to this file, one JSON object a line")
    options = parser.parse_args()
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    if options.write:
        table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}
        table |= {EVERY: words(ANYWHERE) | AT_REST, SECOND_NAMES: second_names()}
        write(table)
        for kind in options.types:
            table[kind] = known(kind, quick=options.quick)
            write(table)
        return 0
    found: dict[str, list[Verdict]] = {}
    wrong: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for kind in options.types:
        found[kind] = verdicts(kind, quick=options.quick)
        counts = Counter((verdict.theirs, verdict.ours) for verdict in found[kind])
        keys = len({verdict.change.key for verdict in found[kind]})
        print(f"{kind}: {keys} keys,", listed(counts), flush=True)
        for verdict in found[kind]:
            if verdict.wrong and not excepted(verdict, kind):
                change = verdict.change
                wrong[kind, change.key, json.dumps(change.value), verdict.ours].add(verdict.task)
    if options.log:
        lines = [json.dumps(verdict.record()) for some in found.values() for verdict in some]
        options.log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    total = Counter((verdict.theirs, verdict.ours) for some in found.values() for verdict in some)
    print("all:", listed(total))
    for (kind, key, value, ours), tasks in sorted(wrong.items()):
        print(f"{kind}: {key}={value}: minitx {ours} it ({', '.join(sorted(tasks))})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
