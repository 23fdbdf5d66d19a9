"""`EmbeddingSettings`, and how they are read from the files of sentence-transformers.

A key of these files is implemented or refused by name. Without modules.json, the settings are the defaults of
minitx: the mean of the tokens, or the last token of a causal language model, and length 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args
from weakref import WeakKeyDictionary

from torch import nn

from minitx.checkpoint.build import class_names
from minitx.checkpoint.files import SINGLE
from minitx.checkpoint.hub import fetch, fetch_tokenizer
from minitx.checkpoint.lora.base import base_folder, sentence_files, tokenizer_folder
from minitx.checkpoint.sentence import ENCODER_OPTIONS, MODULES, SETTINGS, list_modules, upper_folder
from minitx.io import read_json
from minitx.layers.token_pooling import Pooling, check_pooling
from minitx.models import Model
from minitx.pipelines.embedding.modules import READERS, Normalize
from minitx.pipelines.embedding.options import FileOptions
from minitx.pipelines.embedding.similarity import Similarity
from minitx.transaction import read_consistently
from minitx.validation import check_choice, check_flags, check_integer, check_strings, check_type

# Pooling in sentence-transformers -> pooling here, in the order in which older files concatenate them.
POOLING_NAMES: dict[str, Pooling] = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
# Older files have a flag for each pooling, such as pooling_mode_cls_token.
POOLING_FLAGS = {
    f"pooling_mode_{name}{suffix}": name
    for name, suffix in zip(POOLING_NAMES, ("_token", "_tokens", "_tokens", "", "_tokens", ""), strict=True)
}
# Options for loading the encoder: how it is computed, where files come from, and a part that is not used.
# Its precision is the choice of `minitx.load(dtype=...)`, as that of every model.
EXECUTION = (
    "add_pooling_layer",
    "attn_implementation",
    "cache_dir",
    "code_revision",
    "device_map",
    "dtype",
    "local_files_only",
    "low_cpu_mem_usage",
    "revision",
    "subfolder",
    "token",
    "torch_dtype",
    "trust_remote_code",
    "use_cache",
    "use_fast",
    "use_safetensors",
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """How a text becomes a vector.

    Attributes:
        pooling: "mean", "max", "mean_sqrt_len" (the sum divided by the root of the number of tokens) or
            "weighted_mean" (weights 1, 2, 3, ...) of the hidden states of all tokens; that of the "first" or
            the "last" token; the output of the "pooler". A tuple concatenates several.
        normalize: scale vectors to length 1, so that a dot product is the cosine similarity.
        max_length: maximum number of tokens; longer texts are truncated. None for the tokenizer's
            `model_max_length` or the model's maximum, whichever is less.
        prompt: prefix of each text.
        lowercase: lowercase texts before tokenization.
        include_prompt: whether the tokens of the prompt are pooled too.
        modules: further modules between pooling and normalization, (N, E) -> (N, D).
        truncate_dim: number of features that are kept after normalization; None for all.
        prompts: the checkpoint's prompts by name, for `embed(prompt=...)`.
        similarity: how vectors are compared: "cosine", "dot", "euclidean" or "manhattan".
    """

    pooling: Pooling | tuple[Pooling, ...] = "mean"
    normalize: bool = True
    max_length: int | None = None
    prompt: str = ""
    lowercase: bool = False
    include_prompt: bool = True
    modules: tuple[nn.Module, ...] = ()
    truncate_dim: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    similarity: Similarity = "cosine"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_choice("similarity", self.similarity, get_args(Similarity))
        flags = {name: getattr(self, name) for name in ("normalize", "lowercase", "include_prompt")}
        check_flags(**flags)
        check_strings(prompt=self.prompt)
        for name in ("max_length", "truncate_dim"):
            if (value := getattr(self, name)) is not None:
                check_integer(name, value, 1)
        check_type("modules", self.modules, tuple | list, "a tuple of torch.nn.Module")
        for index, module in enumerate(self.modules):
            check_type(f"modules[{index}]", module, nn.Module, "a torch.nn.Module")

    def prepare(self, texts: Sequence[str]) -> list[str]:
        """Returns the texts with prompt and lowercasing applied."""
        texts = [self.prompt + text for text in texts]
        # letter by letter, as tokenizers do: str.lower treats a final sigma differently
        return ["".join(map(str.lower, text)) for text in texts] if self.lowercase else texts

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings as values of JSON; modules as text."""
        modules = [" ".join(str(module).split()) for module in self.modules]
        return asdict(replace(self, modules=())) | {"modules": modules}


def embedding_settings(
    name_or_folder: str | Path | Model,
    *,
    revision: str = "main",
    token: str | None = None,
    offline: bool = False,
) -> EmbeddingSettings:
    """Returns the settings in the files of sentence-transformers; without such files, the defaults.

    Args:
        name_or_folder: a folder, a Hub id, or a loaded model, which carries the files of its folder.
        revision, token, offline: as for `minitx.load`.

    Raises:
        FileNotFoundError: no such folder or Hub repository, or a file that modules.json names is missing.
        ValueError: a module, a pooling or an option that minitx does not implement; broken JSON.
    """
    if isinstance(name_or_folder, Model):
        return model_settings(name_or_folder)
    from minitx.tokenizer.files import read_settings as read_tokenizer_files

    access: dict[str, Any] = {"token": token, "offline": offline}
    folder = fetch(name_or_folder, revision=revision, **access)
    base = base_folder(folder, **access)

    def read() -> EmbeddingSettings:
        """Reads the files, all of them of one save."""
        path = base / "config.json"
        config = read_json(path) if path.is_file() else {}
        settings = read_settings(sentence_files(folder, base), config, folder)
        if settings.max_length is not None:
            return settings
        place = tokenizer_folder(fetch_tokenizer(name_or_folder, revision=revision, **access), **access)
        return replace(settings, max_length=read_tokenizer_files(place).limit())

    return read_consistently(base, read, *{folder, upper_folder(base)} - {base})


_SETTINGS: WeakKeyDictionary[Model, EmbeddingSettings] = WeakKeyDictionary()  # read once per model


def model_settings(model: Model) -> EmbeddingSettings:
    """Returns the settings that a model was loaded with; the defaults without any."""
    checkpoint = model.checkpoint
    if checkpoint is None:
        return EmbeddingSettings()
    if model not in _SETTINGS:
        folder = checkpoint.folder or Path()
        _SETTINGS[model] = read_settings(checkpoint.sentence_files, checkpoint.config, folder)
    return _SETTINGS[model]


def read_settings(files: Mapping[str, bytes], config: Mapping[str, Any], folder: Path) -> EmbeddingSettings:
    """Reads the settings.

    Args:
        files: from `read_sentence_files`.
        config: the content of config.json.
        folder: for messages.

    Raises:
        ValueError: as `embedding_settings`.
    """
    stated = read_encoder_options(files, folder) | read_prompts(files, folder)
    if MODULES not in files:
        causal = any(name.endswith("ForCausalLM") for name in class_names(config)[:1])
        causal = causal and config.get("is_causal", True) is not False
        return EmbeddingSettings(**{"pooling": "last" if causal else "mean"} | stated)
    path = folder / MODULES
    modules: list[nn.Module] = []
    for position, (kind, place) in enumerate(list_modules(files[MODULES], path)):
        package, _, name = kind.rpartition(".")
        options = FileOptions(files.get(f"{place}/config.json"), folder / place / "config.json")
        pooled = "pooling" in stated
        if package.partition(".")[0] != "sentence_transformers":
            raise ValueError(f"{path}: module {position} is {kind}, custom code, which minitx does not run.")
        if position == 0 and name == "Transformer":
            if place != ".":
                raise ValueError(f"{path}: the encoder's folder {place!r} has no config.json.")
            continue
        if position == 1 and name == "Pooling" and not pooled:
            stated |= read_pooling(options)
        elif pooled and name in READERS:
            weights = f"{place}/{SINGLE}"
            modules.append(READERS[name](options, files.get(weights), folder / weights))
        else:
            raise ValueError(
                f"{path}: module {position} is a {name}, which minitx does not implement there; it has "
                f"Transformer, Pooling, and after them {', '.join(READERS)}."
            )
        options.finish()
    if "pooling" not in stated:
        raise ValueError(f"{path}: has no Pooling; embed(settings=EmbeddingSettings(...)) states one.")
    normalize = bool(modules) and isinstance(modules[-1], Normalize)
    modules = modules[:-1] if normalize else modules
    return EmbeddingSettings(modules=tuple(modules), normalize=normalize, **stated)


def read_pooling(options: FileOptions) -> dict[str, Any]:
    """Reads the pooling and `include_prompt`; the mean without a pooling.

    Newer files have `"pooling_mode": "mean"` or a list, older ones a flag for each kind.
    """
    options.require()
    options.ignore(["word_embedding_dimension", "embedding_dimension", *POOLING_FLAGS])
    names = options.take("pooling_mode")
    if names is None:
        names = [name for key, name in POOLING_FLAGS.items() if options.flag(key, False)] or ["mean"]
    names = names if isinstance(names, list) else [names]
    if not names or any(name not in [*POOLING_NAMES] for name in names):
        raise options.error("pooling_mode", names, f"of {', '.join(POOLING_NAMES)}")
    pooling = tuple(POOLING_NAMES[name] for name in names)
    include_prompt = options.flag("include_prompt", True)
    return {"pooling": pooling if len(pooling) > 1 else pooling[0], "include_prompt": include_prompt}


def read_encoder_options(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """Reads sentence_bert_config.json: `max_length`, `lowercase`, and `pooling` of an encoder that pools."""
    name = next((name for name in ENCODER_OPTIONS if name in files), ENCODER_OPTIONS[0])
    options = FileOptions(files.get(name), folder / name)
    length = options.size("max_seq_length", None)
    tokenizer = options.nested("tokenizer_args", "processor_kwargs")
    length = tokenizer.size("model_max_length", length)
    for nested in (
        tokenizer,
        options.nested("model_args", "model_kwargs"),
        options.nested("config_args", "config_kwargs"),
    ):
        nested.ignore(EXECUTION)
        nested.finish()
    length = read_call(options.nested("processing_kwargs"), length)
    options.expect("transformer_task", "feature-extraction")
    options.expect("tokenizer_name_or_path", None)
    # Of queries and documents in a multi-vector model; and a way to compute.
    options.ignore(["query_length", "document_length", "query_expansion", "unpad_inputs"])
    stated = {"max_length": length, "lowercase": options.flag("do_lower_case", False)}
    modality, output = options.take("modality_config"), options.take("module_output_name")
    options.finish()
    if modality is None or (modality, output) == (text_output("last_hidden_state"), "token_embeddings"):
        return stated
    if (modality, output) == (text_output("pooler_output"), "sentence_embedding"):
        return stated | {"pooling": "pooler"}
    raise options.error("modality_config", modality, "text to last_hidden_state or pooler_output")


def text_output(name: str) -> dict[str, Any]:
    """Returns the `modality_config` of a text encoder of which one output is used."""
    return {"text": {"method": "forward", "method_output_name": name}}


def read_call(options: FileOptions, length: int | None) -> int | None:
    """Reads the arguments for the tokenizer and returns the maximum number of tokens, else `length`."""
    for key in ("common", "text"):
        nested = options.nested(key)
        length = nested.size("max_length", length)
        nested.expect("truncation", True, "longest_first", "only_first", None)
        nested.ignore(["padding", "pad_to_multiple_of", "return_tensors"])
        nested.finish()
    options.ignore(["audio", "image", "video"])  # not of texts
    options.finish()
    return length


def read_prompts(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """Reads config_sentence_transformers.json: `prompts`, the default one, `truncate_dim`, `similarity`."""
    options = FileOptions(files.get(SETTINGS), folder / SETTINGS)
    options.expect("model_type", "SentenceTransformer", None)
    options.ignore(["__version__", "requirements"])
    named = options.nested("prompts").values
    prompts = {name: "" if prompt is None else prompt for name, prompt in named.items()}
    if not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ValueError(f"{options.path}: prompts={prompts!r:.80} must be texts by name.")
    name = options.take("default_prompt_name")
    if name is not None and name not in [*prompts]:
        raise ValueError(f"{options.path}: default_prompt_name={name!r} is not one of its prompts.")
    prompt = "" if name is None else prompts[name]
    truncate_dim = options.size("truncate_dim", None)
    options.expect("similarity_fn_name", *get_args(Similarity), None)
    similarity = options.take("similarity_fn_name") or "cosine"
    options.finish()
    return {"prompts": prompts, "prompt": prompt, "truncate_dim": truncate_dim, "similarity": similarity}
