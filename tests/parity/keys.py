"""Every key of a config.json changed in turn: the effect in transformers, and that in minitx.

A change is a config.json with another value for one key. Both libraries build the model of that file, with
weights by a formula of their names and shapes, and run the same texts in float64: padded on either side,
with labels, and with a cache.
"""

from __future__ import annotations

import copy
import json
import re
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import minitx
from minitx.architectures import architecture
from minitx.architectures.config_reader import ConfigReader
from minitx.checkpoint.build import choose_architecture, read_config
from minitx.inspect.compare.reference import Wide, in_dtype, quiet
from minitx.models import CausalModel, EncoderDecoderModel
from tests.parity.case import Case
from tests.parity.formula import weight
from tests.parity.reference import complete, padded, real_tokens, table_targets, text

ROWS, LENGTH, CUT = 3, 10, 6  # CUT: tokens of the first step with a cache
SMALLEST = 50  # ids below it are rows of every vocabulary here
LIMIT = 1e-7  # float64; a share of the largest number
LOSS_LIMIT = 1e-5  # transformers computes losses in float32

# Files of transformers that more than one architecture runs, whose keys a config class need not declare.
SHARED_FILES = (
    "cache_utils.py",
    "configuration_utils.py",
    "masking_utils.py",
    "modeling_layers.py",
    "modeling_rope_utils.py",
    "modeling_utils.py",
    "pytorch_utils.py",
    "integrations/heterogeneity/configuration_utils.py",
    "integrations/moe.py",
    "loss/loss_utils.py",
    "utils/generic.py",
    "utils/output_capturing.py",
)
# Keys that shared code reaches by other means than `config.key` or `getattr(config, "key")`.
SHARED_KEYS = """
    _attn_implementation attn_implementation decoder experts_implementation generator name_or_path num_labels
    output_attentions partial_rotary_factor per_layer_config rope_scaling rope_theta text_config text_encoder
    tie_last_hidden_states torch_dtype use_cache vision_aspect_ratio vision_feature_layer
    vision_feature_select_strategy
""".split()  # noqa: SIM905 - words
# Values of keys whose other values cannot be derived from the one that is there.
ACTIVATIONS = ["relu", "gelu_new", "silu", "gelu_python", "quick_gelu", "tanh"]
VALUES: dict[str, list[Any]] = {
    "activation": ACTIVATIONS,
    "activation_function": ACTIVATIONS,
    "architectures": [["Unknown"]],
    "cache_implementation": ["dynamic"],
    "attention_layers": [["global", "global", "local"]],
    "attention_types": [[[["local"], 3]]],
    "classifier_activation": ACTIVATIONS,
    "classifier_pooling": ["cls", "mean"],
    "conv_act": ACTIVATIONS,
    "dense_act_fn": ACTIVATIONS,
    "dtype": ["bfloat16"],
    "torch_dtype": ["bfloat16"],
    "experts_implementation": ["batched_mm"],
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "silu"],
    "hidden_act": ACTIVATIONS,
    "hidden_activation": ACTIVATIONS,
    "id2label": [{str(i): f"label {i}" for i in range(4)}],
    "label2id": [{"A": 0, "B": 1}],
    "norm_rel_ebd": ["none", "layer_norm"],
    "per_layer_config": [{"1": {"hidden_act": "relu"}}, {"1": {"num_attention_heads": 2}}],
    "pooler_hidden_act": ACTIVATIONS,
    "pos_att_type": [["c2p"], ["p2c"], ["c2p", "p2c"], "p2c|c2p", []],
    "position_embedding_type": ["relative_key", "relative_key_query", "rotary"],
    "problem_type": ["regression", "single_label_classification", "multi_label_classification"],
    "pruned_heads": [{"0": [1]}],
    "quantization_config": [{"quant_method": "gptq", "bits": 4}],
    "rope_scaling": [
        {"rope_type": "linear", "factor": 3.0},
        {"type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "default", "factor": 3.0},
        {"rope_type": "default", "rope_theta": 77.0},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
        {"rope_type": "default", "attention_factor": 2.0, "original_max_position_embeddings": 5},
        {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 12},
    ],
    "rope_theta": [77.0],
    "rotary_emb_base": [77],
    "rotary_pct": [0.5],
    "summary_activation": ["gelu", "tanh", None],
    "summary_type": ["last", "first", "mean", "cls_index"],
    "tokenizer_class": ["Unknown"],
    "aggregation_labels": [{"0": "NONE", "1": "SUM"}],
    "answer_loss_cutoff": [0.1, None],
    "average_approximation_function": ["ratio", "first_order", "second_order", "third_order"],
    "cell_selection_preference": [0.9, None],
    "huber_loss_delta": [0.5, None],
    "no_aggregation_label_index": [0, 1],
    "type_vocab_sizes": [
        [3, 9, 9, 2, 5, 6, 7],
        [3, 8, 9, 2, 5, 6],
        [3, 8, 9, 2, 5, 6, 7, 2],
        [3, 8, 9, 0, 5, 6, 7],
    ],
    "use_answer_as_supervision": [True, False, None],
    "attn_implementation": ["eager"],
    "_attn_implementation": ["eager"],
    "decoder": [{"hidden_size": 12}],
    "generator": [{"hidden_size": 12}],
    "text_config": [{"hidden_size": 12, "pad_token_id": 5, "vocab_size": 7}],
    "text_encoder": [{"hidden_size": 12}],
    "layer_types": [
        ["full_attention", "sliding_attention", "full_attention"],
        ["full_attention"] * 3,
        ["full_attention"] * 2,
    ],
    "vision_feature_select_strategy": ["full"],
}
# Differences on purpose: architecture or case, and key.
EXCEPTIONS = {
    ("umt5", "tie_word_embeddings"): "transformers scales the hidden states of every UMT5 before the head",
    ("gemma3_text", "rope_scaling"): "the older name of rope_type, which transformers leaves out here",
    ("encoder-decoder", "decoder_start_token_id"): "transformers masks a start token that is the padding id",
    ("gemma2-uncapped", "is_causal"): "its cache drops the last key of a window that goes both ways",
}
PROBABILITY = re.compile(r"drop|_prob$")


def config_class(model_type: str) -> Any:
    """The config class of transformers."""
    return transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]


@cache
def shared_keys() -> tuple[str, ...]:
    """Keys that transformers' shared code reads from any config."""
    root = Path(transformers.__file__).parent
    pattern = re.compile(
        r"""(?:get|has)attr\(\s*(?:self\.|model\.)?\w*config\w*, "(\w+)"|config\.([a-z]\w+)\b(?!\()"""
    )
    found = set(SHARED_KEYS)
    for name in SHARED_FILES:
        for groups in pattern.findall((root / name).read_text(encoding="utf-8")):
            found.update(group for group in groups if group)
    base = transformers.PreTrainedConfig
    fixed = {name for name in found if hasattr(base, name)} - {field.name for field in fields(base)}
    return tuple(sorted(found - fixed | set(SHARED_KEYS)))


def own_keys(model_type: str) -> dict[str, Any]:
    """The keys of a config class -> their annotations; old names of its `attribute_map` too."""
    cls = config_class(model_type)
    annotations: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        annotations |= {
            k: v for k, v in vars(parent).get("__annotations__", {}).items() if "ClassVar" not in str(v)
        }
    found = {field.name: annotations.get(field.name, field.type) for field in fields(cls)}
    source = Path(typing.cast(Any, __import__("inspect")).getfile(cls)).read_text(encoding="utf-8")
    popped = re.findall(r"""kwargs\.(?:pop|get)\(\s*"(\w+)"|kwargs\["(\w+)"\]""", source)
    names = {name for pair in popped for name in pair if name} | set(cls.attribute_map)
    return found | {name: "" for name in sorted(names) if name not in found}


def other_values(key: str, value: Any, annotation: Any = "") -> list[Any]:
    """Other values for a key, of the kinds that it takes."""
    if key in VALUES:
        return [x for x in VALUES[key] if x != value]
    kind = str(annotation)
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        usual = [value + 1, value * 2, max(value // 2, 0)]
        if key.endswith("_token_id"):
            usual += [-1, None]
        return [x for x in dict.fromkeys(usual) if x != value]
    if isinstance(value, float):
        return [x for x in (0.4, 0.0) if x != value] if PROBABILITY.search(key) else [value * 1.7 + 0.01]
    if isinstance(value, str):
        return ["something-else"]
    if isinstance(value, list):
        return [value[::-1], value[:-1]] if value else [[0], ["something"]]
    if isinstance(value, Mapping):
        return [{**value, name: x} for name, old in value.items() for x in other_values(name, old)]
    guesses = {
        "bool": [True, False],
        "int": [3],
        "float": [0.3],
        "str": ["something"],
        "list": [[1]],
        "dict": [{"a": 1}],
    }
    found = [x for name, some in guesses.items() if re.search(rf"\b{name}\b", kind) for x in some]
    return found or [True, False, 3]


@dataclass(frozen=True)
class Change:
    """A config.json with another value for one key.

    Attributes:
        case: the configuration of the parity suite.
        form: "short", with the keys of the case only, or "full", with every key that transformers saves.
        key: the key; "encoder.key" is a key of an inner config.
        value: the other value.
    """

    case: str
    form: str
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.case} ({self.form}): {self.key}={json.dumps(self.value)}"


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def file_of(case: Case, form: str) -> dict[str, Any]:
    """The config.json of a case."""
    own = {"model_type": case.model_type, **plain(case.config)}
    if form == "short":
        return own
    full = plain(config_class(case.model_type).from_dict(copy.deepcopy(own)).to_dict())
    return {**full, "model_type": case.model_type}


def with_value(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    outer, _, inner = key.partition(".")
    if not inner or outer not in config:
        return {**config, key: value}
    return {**config, outer: with_value(config[outer], inner, value)}


def changes(case: Case, form: str, keys: tuple[str, ...] | None = None) -> Iterator[Change]:
    """Every key with every other value; `keys` are further ones."""
    yield from _changes(
        case, form, file_of(case, form), case.model_type, "", shared_keys() if keys is None else keys
    )


def _changes(
    case: Case, form: str, config: Mapping[str, Any], model_type: str, prefix: str, more: tuple[str, ...]
) -> Iterator[Change]:
    annotations = own_keys(model_type)
    values = plain(config_class(model_type).from_dict(copy.deepcopy(dict(config))).to_dict())
    values |= {
        old: values[new] for old, new in config_class(model_type).attribute_map.items() if new in values
    }
    for key in sorted({*annotations, *config, *values, *more} - {"model_type"}):
        value = config.get(key, values.get(key))
        if isinstance(value, Mapping) and "model_type" in value:
            yield from _changes(case, form, value, value["model_type"], f"{prefix}{key}.", more)
            continue
        for other in other_values(key, value, annotations.get(key, "")):
            yield Change(case.name, form, f"{prefix}{key}", other)


# --- what the libraries compute -------------------------------------------------------------------


@dataclass
class Outcome:
    """The numbers of one model, or the error in place of them."""

    tensors: dict[str, Tensor] | None = None
    error: Exception | None = None

    def equals(self, other: Outcome) -> bool:
        a, b = self.tensors, other.tensors
        if a is None or b is None:
            return a is None and b is None
        return a.keys() == b.keys() and all(
            close(a[name], b[name], LOSS_LIMIT if "loss" in name else LIMIT) for name in a
        )


def close(a: Tensor, b: Tensor, limit: float) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    limit *= max(1.0, float(b.abs().nan_to_num().max()) if b.numel() else 1.0)
    return bool(torch.allclose(a, b, rtol=0, atol=limit, equal_nan=True))


def fill(model: nn.Module) -> None:
    """Weights by a formula."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "Marian" in type(model).__name__ and "embed_positions" in name:
                continue  # sinusoids, which are not saved
            parameter.copy_(weight(name, parameter.shape))
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.copy_(weight(name, buffer.shape))


def reference(case: Case, config: Mapping[str, Any], task: str) -> nn.Module:
    """The model of a config.json in transformers."""
    cls = getattr(transformers, architecture(case.model_type).class_name(case.model_type, task))
    read = config_class(case.model_type).from_dict(copy.deepcopy(dict(config)))
    read._attn_implementation = case.reference
    read._experts_implementation = "eager"
    for part in (read, *(vars(read)[name] for name in ("encoder", "decoder") if name in vars(read))):
        part.dtype = None  # of loading: the weights are float64 here
    model = cls(read)
    fill(model)
    model.tie_weights()
    return complete(in_dtype(model, torch.float64).eval(), task)


def padding_id(case: Case, config: Mapping[str, Any]) -> int:
    """The id that rows of a batch are padded with: that of the file, if it is a row of the vocabulary."""
    stored = config.get("pad_token_id", case.pad)
    return stored if type(stored) is int and 0 <= stored < SMALLEST else case.pad


def sides(config: Mapping[str, Any], task: str, brief: bool = False) -> tuple[str, ...]:
    """Where rows are padded.

    Without a padding id transformers takes padding on the right for the last token of a sequence.
    """
    if brief:
        return ("right",)
    stored = config.get("pad_token_id", 0)
    none = type(stored) is int and stored < 0
    return ("whole", "left") if none and task == "sequence-classification" else ("whole", "left", "right")


@cache
def batch(case_name: str, task: str, side: str, pad: int) -> dict[str, Tensor]:
    """Rows of different lengths, padded on the "left" or the "right"; or "whole", without a mask."""
    from tests.parity.cases import BY_NAME

    case = BY_NAME[case_name]
    case = replace(case, config={**case.config, "pad_token_id": pad})
    inputs = text(case, ROWS, LENGTH, task)
    return inputs if side == "whole" else padded(case, inputs, side)


def targets(case: Case, task: str) -> tuple[dict[str, Tensor], Tensor] | None:
    """Labels as transformers takes them and as minitx does; padding has none."""
    generator = torch.Generator().manual_seed(1)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=generator)

    if task in ("none", "encoder"):
        return None
    if task == "table-question-answering":
        theirs = table_targets(draw(2, ROWS, LENGTH))
        return theirs, theirs["labels"]
    if task == "question-answering":
        ends = draw(LENGTH, ROWS, 2)
        return {"start_positions": ends[:, 0], "end_positions": ends[:, 1]}, ends
    if task in ("masked-lm", "causal-lm", "seq2seq-lm"):
        ours = draw(90, ROWS, LENGTH // 2 + 1 if task == "seq2seq-lm" else LENGTH) + 4
        ours[:, -1 if task == "seq2seq-lm" else slice(None, None, 3)] = -100
        if task != "seq2seq-lm":
            ours[batch(case.name, task, "right", case.pad)["attention_mask"] == 0] = -100
    elif task in ("token-classification", "replaced-token-detection"):
        ours = draw(2, ROWS, LENGTH)
        if task == "token-classification":
            ours[batch(case.name, task, "right", case.pad)["attention_mask"] == 0] = -100
    else:
        ours = draw(2, ROWS)
    return {"labels": ours}, ours


def named(output: Any, inputs: Mapping[str, Tensor], task: str, where: str) -> dict[str, Tensor]:
    """The outputs, those per token where the token is no padding."""
    kind = "decoder_" if "decoder_input_ids" in inputs else ""
    real = real_tokens(dict(inputs), kind)
    found = {}
    names = ("logits", "start_logits", "end_logits", "logits_aggregation", "last_hidden_state")
    for name in names:
        tensor = getattr(output, name, None)
        if tensor is None or (name == "last_hidden_state" and task not in ("none", "encoder")):
            continue
        per_token = tensor.dim() >= real.dim() and tensor.shape[: real.dim()] == real.shape
        found[f"{where} {name}"] = tensor[real] if per_token else tensor
    return found


def run_reference(
    case: Case, config: Mapping[str, Any], task: str, brief: bool = False
) -> tuple[Outcome, nn.Module | None]:
    """What transformers computes."""
    try:
        model = reference(case, config, task)
        found: dict[str, Tensor] = {}
        pad = padding_id(case, config)
        with torch.inference_mode(), Wide(), quiet():
            for side in sides(config, task, brief):
                inputs = batch(case.name, task, side, pad)
                found |= named(model(**inputs, return_dict=True), inputs, task, side)
            if (labels := targets(case, task)) is not None:
                inputs = {k: v for k, v in inputs.items() if not k.startswith("decoder_")}
                torch.manual_seed(0)  # some losses draw
                found["loss"] = model(**inputs, **labels[0], return_dict=True).loss
            if task in ("causal-lm", "seq2seq-lm") and not brief:
                inputs = batch(case.name, task, "left", pad)
                prefix = "decoder_" if task == "seq2seq-lm" else ""
                ids, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"]
                cut = CUT if not prefix else 3
                shared = {k: v for k, v in inputs.items() if not k.startswith("decoder_")} if prefix else {}
                first = {f"{prefix}input_ids": ids[:, :cut], f"{prefix}attention_mask": mask[:, :cut]}
                second = {f"{prefix}input_ids": ids[:, cut:], f"{prefix}attention_mask": mask}
                state = model(**shared, **first, use_cache=True, return_dict=True)
                more = {"past_key_values": state.past_key_values, "return_dict": True, "use_cache": True}
                found["cached"] = model(**shared, **second, **more).logits
        return Outcome(found), model
    except Exception as error:
        return Outcome(error=error), None


def run_minitx(case: Case, folder: Path, task: str, brief: bool = False) -> Outcome:
    """What minitx computes from a folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = minitx.load(folder, head=task, dtype=torch.float64)
        found: dict[str, Tensor] = {}
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        pad = padding_id(case, config)
        with torch.inference_mode():
            for side in sides(config, task, brief):
                inputs = batch(case.name, task, side, pad)
                found |= named(model(**inputs), inputs, task, side)
            if (labels := targets(case, task)) is not None:
                inputs = {k: v for k, v in inputs.items() if not k.startswith("decoder_")}
                torch.manual_seed(0)
                more = labels[0] if task == "table-question-answering" else {"labels": labels[1]}
                found["loss"] = model(**inputs, **more).loss
            if task in ("causal-lm", "seq2seq-lm") and not brief:
                assert isinstance(model, CausalModel)
                inputs = batch(case.name, task, "left", pad)
                prefix = "decoder_" if task == "seq2seq-lm" else ""
                ids, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"]
                cut = CUT if not prefix else 3
                state = model.make_cache(None)
                if isinstance(model, EncoderDecoderModel):
                    model.encode_into(state, inputs["input_ids"], inputs["attention_mask"])
                model.decode(ids[:, :cut], mask[:, :cut], cache=state)
                found["cached"] = model.decode(ids[:, cut:], mask[:, cut:], cache=state).logits
        return Outcome(found)
    except Exception as error:
        return Outcome(error=error)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every stored tensor."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def save(model: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """The weights as transformers saves them, beside a config.json."""
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True)
class Verdict:
    """What a change did.

    Attributes:
        change: the change.
        task: the head.
        theirs: "same", "changes" or "raises", in transformers.
        ours: "equal" to transformers, "refuses", "ignores" (the numbers of the unchanged file), "differs" or
            "crashes" (any error that is not a ValueError).
        message: of an error.
        read: whether minitx reads the key; else its effect is known without a run.
    """

    change: Change
    task: str
    theirs: str
    ours: str
    message: str = ""
    read: bool = True

    def record(self) -> dict[str, Any]:
        """The fields, as JSON has them."""
        return {**asdict(self.change), **{k: v for k, v in vars(self).items() if k != "change"}}

    @property
    def wrong(self) -> bool:
        """Whether this breaks the rule."""
        if self.theirs == "raises":
            return self.ours == "crashes"
        return self.ours in ("ignores", "differs", "crashes")


@dataclass
class Effect:
    """What a change does in transformers: "same", "changes" or "raises", and the numbers after it."""

    theirs: str
    config: dict[str, Any]
    after: Outcome
    model: nn.Module | None
    message: str = ""


def keys_read(case: Case, config: Mapping[str, Any]) -> set[str]:
    """The keys that minitx reads, "encoder.key" for those of an inner config."""
    reader = ConfigReader(config)
    found = architecture(case.model_type)
    found = found if found.composed is None else found.composed(config)
    found.read(reader)
    found.heads(reader)
    inner = {f"{outer}.{key}" for outer, part in reader.inner.items() for key in part.taken}
    return reader.taken | inner


def refused(case: Case, config: Mapping[str, Any]) -> str:
    """The error of reading a config.json; "" if minitx reads it."""
    try:
        read_config(*choose_architecture(config, None), config)
    except ValueError as error:
        return str(error)
    return ""


def excepted(verdict: Verdict, model_type: str) -> str:
    """Why minitx differs from transformers on purpose; "" if it does not."""
    return EXCEPTIONS.get(
        (model_type, verdict.change.key), EXCEPTIONS.get((verdict.change.case, verdict.change.key), "")
    )


class Bench:
    """Holds the numbers of the unchanged file of one case and head.

    With `brief` there is one batch, padded on the right, and no cache.
    """

    def __init__(
        self, case: Case, form: str, task: str, root: Path, *, minitx: bool = True, brief: bool = False
    ) -> None:
        self.case, self.form, self.task, self.root, self.brief = case, form, task, root, brief
        self.config = self.for_task(file_of(case, form))
        self.before, model = run_reference(case, self.config, task, brief)
        if self.before.error is not None:
            raise self.before.error
        assert model is not None
        self.folder = root / f"{case.name}-{task}-{form}"
        save(model, self.config, self.folder)
        self.ours = run_minitx(case, self.folder, task, brief) if minitx else Outcome()
        self.read, self.shapes = keys_read(case, self.config), shapes(model)

    def for_task(self, config: dict[str, Any]) -> dict[str, Any]:
        config["architectures"] = [
            architecture(self.case.model_type).class_name(self.case.model_type, self.task)
        ]
        if self.task == "question-answering":
            config = {k: v for k, v in config.items() if k not in ("id2label", "label2id")} | {
                "num_labels": 2
            }
        return config

    def effect(self, change: Change) -> Effect:
        """What the change does in transformers."""
        config = with_value(self.config, change.key, change.value)
        after, model = run_reference(self.case, config, self.task, self.brief)
        if model is None:
            return Effect("raises", config, after, None, f"{type(after.error).__name__}: {after.error}")
        same = after.equals(self.before) and shapes(model) == self.shapes
        return Effect("same" if same else "changes", config, after, model)

    def judge(self, change: Change) -> Verdict:
        """What the change does in both libraries."""
        effect, read = self.effect(change), change.key in self.read
        if not read:
            ours = "equal" if effect.theirs == "same" else "ignores"
            if refusal := refused(self.case, effect.config):
                return Verdict(change, self.task, effect.theirs, "refuses", refusal, read)
            return Verdict(change, self.task, effect.theirs, ours, effect.message, read)
        folder = self.folder
        if effect.theirs == "changes":
            assert effect.model is not None
            folder = self.root / "changed"
            try:
                save(effect.model, effect.config, folder)
            except (RuntimeError, ValueError, KeyError) as error:  # the file cannot come to be
                return Verdict(change, self.task, "raises", "refuses", f"saving: {error}")
        else:
            (folder / "config.json").write_text(json.dumps(effect.config), encoding="utf-8")
        result, message = run_minitx(self.case, folder, self.task, self.brief), effect.message
        if result.error is not None:
            ours = "refuses" if isinstance(result.error, ValueError) else "crashes"
            message = f"{type(result.error).__name__}: {result.error}"
        elif result.equals(effect.after):
            ours = "equal"
        else:
            ours = "ignores" if result.equals(self.ours) else "differs"
        return Verdict(change, self.task, effect.theirs, ours, message, read)
