"""Folders of sentence-transformers: `embed` and `SentenceTransformer.encode` give the same vectors.

The library itself writes the folders, from tiny random models, in every layout that it has and those of its
older versions; each is also saved by minitx, without its source, and compared again in both.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers as ST
import torch
from sentence_transformers.sentence_transformer import modules as st
from torch import nn
from torch.nn import functional as F

import minitx
from minitx.inspect.compare.reference import quiet
from minitx.pipelines import EmbeddingSettings
from tests.real import MINILM

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["a cat", "the bank raised its rates again", "", "Short A", "word " * 60, "query: the kitten"]
WIDTH = 12
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "hidden_size": WIDTH},
    "t5": {"d_model": WIDTH, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3},
    "qwen2": {
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "intermediate_size": 20,
        "hidden_size": WIDTH,
        "max_position_embeddings": 40,
    },
    "gpt_neo": {
        "hidden_size": WIDTH,
        "num_layers": 2,
        "num_heads": 3,
        "attention_types": [[["global"], 2]],
        "max_position_embeddings": 40,
    },
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        yield


def tokenizer(**options: Any) -> Any:
    """WordPiece of letters, cased, so that lowercasing shows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*LETTERS, *LETTERS[:6].upper(), ":", *(f"##{letter}" for letter in LETTERS)]
    vocab = {token: index for index, token in enumerate(special + letters)}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **names, model_input_names=["input_ids", "attention_mask"], **options
    )


def encoder(folder: Path, kind: str = "bert", **options: Any) -> Path:
    """Write a random model and a tokenizer."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(kind, vocab_size=64, **{"pad_token_id": 0} | CONFIGS[kind])
    if kind == "bert":
        config.max_position_embeddings = 40
    torch.manual_seed(3)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    tokenizer(**options).save_pretrained(folder)
    return folder


def build(folder: Path, *further: Any, pooling: Any = "mean", kind: str = "bert", **options: Any) -> Path:
    """A folder that sentence-transformers saves: encoder, pooling, and further modules."""
    limit, include = options.pop("limit", None), options.pop("include_prompt", True)
    files = encoder(folder.with_name(f"{folder.name}-encoder"), kind)
    transformer = st.Transformer(str(files))
    width = transformer.get_embedding_dimension()
    modules = [transformer, st.Pooling(width, pooling, include_prompt=include), *further]
    model = ST.SentenceTransformer(modules=modules, device="cpu", **options)
    if limit is not None:
        model.max_seq_length = limit
    torch.manual_seed(4)
    for module in further:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    model.save(str(folder), create_model_card=False)
    return folder


def theirs(folder: Path, texts: list[str] = TEXTS, **options: Any) -> torch.Tensor:
    model = ST.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: torch.Tensor = model.encode(texts, convert_to_tensor=True, show_progress_bar=False, **options)
    return vectors.clone()


def ours(folder: Path, texts: list[str] = TEXTS, **options: Any) -> torch.Tensor:
    model = minitx.load(folder)
    return minitx.embed(model, texts, minitx.load_tokenizer(folder), **options)


def check(folder: Path, texts: list[str] = TEXTS, **options: Any) -> torch.Tensor:
    """Compare a folder, then what minitx saves of it after the folder is gone."""
    expected = theirs(folder, texts)
    model, tokens = minitx.load(folder), minitx.load_tokenizer(folder)
    torch.testing.assert_close(minitx.embed(model, texts, tokens), expected, rtol=1e-5, atol=1e-6)
    shutil.move(folder, folder.with_name("gone"))
    other = deepcopy(model)
    torch.testing.assert_close(minitx.embed(other, texts, tokens), expected, rtol=1e-5, atol=1e-6)
    minitx.save(other, folder, tokenizer=tokens)
    again = minitx.embed(minitx.load(folder), texts, minitx.load_tokenizer(folder))
    torch.testing.assert_close(again, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs(folder, texts), expected, rtol=1e-5, atol=1e-6)
    return expected


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# --- modules ---------------------------------------------------------------------------------------


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("pooling", [*MODES, ("mean", "cls"), ("lasttoken", "weightedmean", "max")])
def test_poolings(tmp_path: Path, pooling: Any) -> None:
    check(build(tmp_path / "x", pooling=pooling))


@pytest.mark.parametrize("kind", ["t5", "qwen2", "gpt_neo"])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "weightedmean"])
def test_other_encoders_and_decoders(tmp_path: Path, kind: str, pooling: str) -> None:
    check(build(tmp_path / "x", st.Normalize(), pooling=pooling, kind=kind))


def test_left_padding(tmp_path: Path) -> None:
    for number, pooling in enumerate([*MODES, ("cls", "weightedmean")]):
        folder = build(tmp_path / str(number), pooling=pooling, kind="qwen2", include_prompt=number % 2 == 0)
        edit(folder / "tokenizer_config.json", lambda config: config | {"padding_side": "left"})
        check(folder)


FURTHER: dict[str, Callable[[], list[Any]]] = {
    "dense": lambda: [st.Dense(WIDTH, 8)],
    "no-bias": lambda: [st.Dense(WIDTH, 8, bias=False, activation_function=None)],
    "relu": lambda: [st.Dense(WIDTH, 8, activation_function=nn.ReLU())],
    "gelu": lambda: [st.Dense(WIDTH, 20, activation_function=nn.GELU()), st.Normalize()],
    "prelu": lambda: [st.Dense(WIDTH, 20, activation_function=nn.PReLU()), st.Normalize()],
    "residual": lambda: [st.Dense(WIDTH, WIDTH, use_residual=True)],
    "projected": lambda: [st.Dense(WIDTH, 8, use_residual=True), st.Normalize()],
    "two": lambda: [st.Dense(WIDTH, 30), st.Dense(30, 7), st.Normalize()],
    "norm": lambda: [st.LayerNorm(WIDTH)],
    "norms": lambda: [
        st.Normalize(),
        st.LayerNorm(WIDTH),
        st.Dropout(0.5),
        st.Dense(WIDTH, 5),
        st.Normalize(),
    ],
    "early": lambda: [st.Normalize(), st.Dense(WIDTH, 5)],
}


@pytest.mark.parametrize("name", FURTHER)
def test_further_modules(tmp_path: Path, name: str) -> None:
    check(build(tmp_path / "x", *FURTHER[name]()))


def test_truncated_vectors(tmp_path: Path) -> None:
    """As there, after normalization; an explicit `normalize=True` normalizes what is left."""
    folder = build(tmp_path / "x", st.Normalize(), truncate_dim=5)
    vectors = ours(folder)
    assert vectors.shape == (len(TEXTS), 5)
    assert not torch.allclose(vectors.norm(dim=-1), torch.ones(len(TEXTS)))
    torch.testing.assert_close(ours(folder, normalize=True), theirs(folder, normalize_embeddings=True))
    raw = ours(folder, normalize=False)
    torch.testing.assert_close(F.normalize(raw, dim=-1), theirs(folder, normalize_embeddings=True))
    settings = replace(minitx.embedding_settings(folder), truncate_dim=3)
    torch.testing.assert_close(ours(folder, settings=settings), theirs(folder, truncate_dim=3))
    check(folder)


def test_the_encoder_pools(tmp_path: Path) -> None:
    """The output of the pooler, which version 6 can take without a Pooling module."""
    files = encoder(tmp_path / "encoder")
    modality: Any = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    transformer = st.Transformer(
        str(files), modality_config=modality, module_output_name="sentence_embedding"
    )
    model = ST.SentenceTransformer(modules=[transformer, st.Dense(WIDTH, 6)], device="cpu")
    model.save(str(tmp_path / "x"), create_model_card=False)
    assert minitx.embedding_settings(tmp_path / "x").pooling == "pooler"
    check(tmp_path / "x")


# --- texts: limits, prompts, case --------------------------------------------------------------------


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def stating(file: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, lambda config: config | values)


def old_options(**values: Any) -> Callable[[Path], None]:
    """Options as versions before 6 wrote them."""
    return lambda folder: (folder / "sentence_bert_config.json").write_text(json.dumps(values))


def renamed_options(folder: Path) -> None:
    (folder / "sentence_bert_config.json").unlink()
    (folder / "sentence_roberta_config.json").write_text('{"max_seq_length": 11}')


LIMITS: dict[str, list[Callable[[Path], None]]] = {
    "tokenizer_config.json": [],
    "null": [old_options(max_seq_length=None, do_lower_case=False)],
    "no options": [without("sentence_bert_config.json")],
    "no modules": [without("modules.json")],
    "no modules and options": [without("modules.json"), without("sentence_bert_config.json")],
    "stated": [old_options(max_seq_length=9, do_lower_case=False)],
    "stated, more than the tokenizer's": [old_options(max_seq_length=30)],
    "other name": [renamed_options],
    "max_len": [
        lambda folder: edit(
            folder / "tokenizer_config.json",
            lambda config: {k: v for k, v in config.items() if k != "model_max_length"} | {"max_len": 17},
        )
    ],
    "none at all": [stating("tokenizer_config.json", model_max_length=int(1e30))],
    "arguments": [old_options(max_seq_length=9, tokenizer_args={"model_max_length": 7})],
    "new arguments": [stating("sentence_bert_config.json", processor_kwargs={"model_max_length": 7})],
    "call": [stating("sentence_bert_config.json", processing_kwargs={"text": {"max_length": 8}})],
}


@pytest.mark.parametrize("kind", ["bert", "t5"])
@pytest.mark.parametrize("name", LIMITS)
def test_where_a_text_is_cut(tmp_path: Path, name: str, kind: str) -> None:
    folder = build(tmp_path / "x", limit=13, kind=kind)
    for change in LIMITS[name]:
        change(folder)
    if "modules.json" in {path.name for path in folder.iterdir()}:
        vectors = check(folder)
    else:  # where minitx normalizes
        vectors = theirs(folder)
        mine = ours(folder)
        torch.testing.assert_close(mine, F.normalize(vectors, dim=-1), rtol=1e-5, atol=1e-6)
    longer = build(tmp_path / "y", limit=39, kind=kind)
    assert name == "none at all" or not torch.allclose(vectors[4], theirs(longer)[4], atol=1e-3)


def test_a_stated_limit_beyond_the_training_of_rotary_positions(tmp_path: Path) -> None:
    for number, values in enumerate(({}, {"max_seq_length": 100})):
        folder = build(tmp_path / str(number), kind="qwen2")
        stating("tokenizer_config.json", model_max_length=int(1e30))(folder)
        old_options(**values)(folder)
        check(folder)


def test_a_language_model_without_files(tmp_path: Path) -> None:
    """Of a causal one, the last token."""
    from transformers import AutoModelForCausalLM

    folder = encoder(tmp_path / "x", "gpt_neo")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)
    assert minitx.embedding_settings(folder) == EmbeddingSettings(pooling="last")
    assert minitx.load(folder).task == "causal-lm"
    texts = [text for text in TEXTS if text]
    torch.testing.assert_close(ours(folder, texts), theirs(folder, texts, normalize_embeddings=True))


def test_the_limit_of_arguments_and_settings(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", limit=13)
    assert minitx.embedding_settings(folder).max_length == 13
    model, tokens = minitx.load(folder), minitx.load_tokenizer(folder)
    short = minitx.embed(model, TEXTS, tokens, max_length=6)
    tokens.model_max_length = 6
    torch.testing.assert_close(minitx.embed(model, TEXTS, tokens), short)


PROMPTS = {"query": "query: ", "document": "", "kitten": "The Kitten "}


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("default", ["query", "document", "kitten", None])
def test_prompts(tmp_path: Path, include: bool, default: str | None) -> None:
    folder = build(
        tmp_path / "x",
        st.Normalize(),
        pooling=("mean", "cls", "weightedmean", "lasttoken"),
        prompts=PROMPTS,
        default_prompt_name=default,
        include_prompt=include,
        limit=24,
    )
    settings = minitx.embedding_settings(folder)
    assert settings.prompts == PROMPTS
    for name, prompt in PROMPTS.items():
        torch.testing.assert_close(
            ours(folder, prompt=prompt), theirs(folder, prompt_name=name), rtol=1e-5, atol=1e-6
        )
    check(folder)


def test_a_prompt_that_fills_the_limit(tmp_path: Path) -> None:
    folder = build(
        tmp_path / "x",
        include_prompt=False,
        limit=9,
        prompts={"q": "a b c d e f g h i j"},
        default_prompt_name="q",
    )
    check(folder)


def test_lowercase(tmp_path: Path) -> None:
    texts = ["A CAT", "the Bank OF A", "ΟΔΟΣ ΑΣ b", "İ DCBA"]
    folder = build(tmp_path / "x", st.Normalize(), prompts={"q": "CAB "}, default_prompt_name="q")
    plain = theirs(folder, texts)
    old_options(max_seq_length=None, do_lower_case=True)(folder)
    assert not torch.allclose(check(folder, texts), plain, atol=1e-3)


# --- layouts ---------------------------------------------------------------------------------------


def in_subfolder(folder: Path, place: str = "0_Transformer") -> Path:
    """The layout of versions before 2: the encoder in a folder of its own, flags for the poolings."""
    target = folder / place
    target.mkdir(parents=True)
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(target / path.name)
    edit(folder / "modules.json", lambda modules: [modules[0] | {"path": place}, *modules[1:]])
    (folder / "config.json").write_text('{"__version__": "0.4.0"}')
    return folder


@pytest.mark.parametrize("place", ["0_Transformer", "0_BERT", "models/encoder"])
def test_an_encoder_in_a_subfolder(tmp_path: Path, place: str) -> None:
    folder = in_subfolder(build(tmp_path / "x", st.Dense(WIDTH, 6), pooling="cls", limit=13), place)
    expected = theirs(folder)
    inner = folder / place
    model, tokens = minitx.load(inner), minitx.load_tokenizer(inner)  # as the folder above states
    torch.testing.assert_close(minitx.embed(model, TEXTS, tokens), expected, rtol=1e-5, atol=1e-6)
    assert minitx.embedding_settings(inner).pooling == "first"
    check(folder)
    assert not (folder / place).exists()


def test_flags_of_older_versions(tmp_path: Path) -> None:
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "max_tokens", "mean_tokens")}
    flags |= {
        f"pooling_mode_{name}": False for name in ("mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    }
    for number, on in enumerate([[0], [1], [2], [3], [4], [5], [4, 0], [], [5, 3, 1]]):
        folder = build(tmp_path / str(number))
        config = {"word_embedding_dimension": WIDTH} | flags | dict.fromkeys([[*flags][i] for i in on], True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
        check(folder)
        assert json.loads((folder / "1_Pooling" / "config.json").read_text()) == config


def test_weights_of_modules_in_bin_files(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = build(tmp_path / "x", st.Dense(WIDTH, 6), st.LayerNorm(6))
    for place in ("2_Dense", "3_LayerNorm"):
        weights = folder / place / "model.safetensors"
        torch.save(load_file(weights), folder / place / "pytorch_model.bin")
        weights.unlink()
    check(folder)
    assert not list(folder.rglob("*.bin"))


def test_half_precision_and_double(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", st.Dense(WIDTH, 6), st.LayerNorm(6), st.Normalize())
    expected = theirs(folder)
    model = ST.SentenceTransformer(str(folder), device="cpu").double()
    double = model.encode(TEXTS, convert_to_tensor=True)
    mine = minitx.load(folder, dtype="float64")
    vectors = minitx.embed(mine, TEXTS, minitx.load_tokenizer(folder))
    torch.testing.assert_close(vectors, double.clone(), rtol=0, atol=1e-12)
    half = minitx.load(folder, dtype="bfloat16")
    vectors = minitx.embed(half, TEXTS, minitx.load_tokenizer(folder))
    assert vectors.dtype == torch.float32
    assert float(F.cosine_similarity(vectors, expected).min()) > 0.98


def test_minilm(tmp_path: Path) -> None:
    """Saved by version 6, which writes its limit to tokenizer_config.json alone, and by minitx."""
    texts = ["A cat sleeps.", "word " * 400]
    expected = theirs(MINILM, texts)
    ST.SentenceTransformer(str(MINILM), device="cpu").save(str(tmp_path / "six"))
    minitx.save(minitx.load(MINILM), tmp_path / "ours", tokenizer=minitx.load_tokenizer(MINILM))
    for folder in (MINILM, tmp_path / "six", tmp_path / "ours"):
        torch.testing.assert_close(ours(folder, texts), expected, rtol=0, atol=2e-6)
        torch.testing.assert_close(theirs(folder, texts), expected, rtol=0, atol=2e-6)


def test_embed_draws_no_random_numbers(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", st.Dense(WIDTH, 6), st.LayerNorm(6))
    model, tokens = minitx.load(folder), minitx.load_tokenizer(folder)
    state = torch.get_rng_state()
    minitx.embed(model, TEXTS, tokens)
    assert torch.equal(torch.get_rng_state(), state)


# --- save ------------------------------------------------------------------------------------------


def test_files_are_written_back_byte_for_byte(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", st.Dense(WIDTH, 6), st.Normalize(), prompts=PROMPTS, truncate_dim=3)
    (folder / "2_Dense" / "notes.txt").write_text("mine")
    minitx.save(minitx.load(folder, head="masked-lm", init_head=True), tmp_path / "y")
    kept = [path for path in folder.rglob("*") if "tokenizer" not in path.name and path.is_file()]
    changed = {"config.json", "model.safetensors"}
    for path in kept:
        name = path.relative_to(folder).as_posix()
        if name not in changed:
            assert path.read_bytes() == (tmp_path / "y" / name).read_bytes(), name
    assert len(kept) == 10


def test_unknown_modules_are_kept_and_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "x")
    edit(folder / "modules.json", lambda m: [*m, {"idx": 2, "name": "2", "path": "2_New", "type": "x.New"}])
    (folder / "2_New").mkdir()
    (folder / "2_New" / "new_config.json").write_text("{}")
    (folder / "2_New" / "model.safetensors").write_bytes(b"not read")
    model, tokens = minitx.load(folder), minitx.load_tokenizer(folder)
    with pytest.raises(ValueError, match=r"modules.json: module 2 is x.New, custom code"):
        minitx.embed(model, TEXTS, tokens)
    assert minitx.embed(model, TEXTS, tokens, settings=EmbeddingSettings()).shape == (len(TEXTS), WIDTH)
    minitx.save(model, tmp_path / "y")
    assert (tmp_path / "y" / "2_New" / "model.safetensors").read_bytes() == b"not read"


def test_files_of_nested_modules_are_kept(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", st.Router.for_query_document([st.Dense(WIDTH, 6)], [st.Dense(WIDTH, 6)]))
    minitx.save(minitx.load(folder), tmp_path / "y", tokenizer=minitx.load_tokenizer(folder))
    names = [path.relative_to(folder) for path in (folder / "2_Router").rglob("*") if path.is_file()]
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "y" / name).read_bytes() == (folder / name).read_bytes(), name
    for task in ("encode_query", "encode_document"):
        a, b = (
            getattr(ST.SentenceTransformer(str(tmp_path / name), device="cpu"), task)(
                TEXTS, convert_to_tensor=True
            )
            for name in "xy"
        )
        torch.testing.assert_close(a, b)


def test_a_model_without_encoder_is_refused_by_name(tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "0_W", "type": "sentence_transformers.models.WordEmbeddings"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"begins with a WordEmbeddings; minitx loads encoders only"):
        minitx.load(tmp_path)


def test_saved_into_the_folder_of_another_encoder(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", pooling="cls")
    minitx.save(minitx.load(folder), folder)  # its own
    plain = minitx.load(encoder(tmp_path / "plain"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"holds config_sentence_transformers.json, modules.json, sent"):
        minitx.save(plain, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"2_Dense/model.safetensors is missing"),
        (
            lambda path: path.with_name("config.json").unlink(),
            r"2_Dense/config.json is missing; modules.json",
        ),
        (
            lambda path: (path.parents[1] / "1_Pooling" / "config.json").unlink(),
            r"1_Pooling/config.json is miss",
        ),
        (lambda path: path.write_bytes(b"short"), r"2_Dense/model.safetensors: not a complete"),
        (
            lambda path: shutil.copy(path.parents[1] / "3_LayerNorm" / "model.safetensors", path),
            r'2_Dense/model.safetensors: does not fit .* "linear.weight"',
        ),
        (
            lambda path: edit(path.with_name("config.json"), lambda c: c | {"out_features": 7}),
            r"size mismatch",
        ),
        (
            lambda path: edit(path.with_name("config.json"), lambda c: c | {"activation_function": "x.Y"}),
            r"activation_function='x.Y' must be an activation of torch.nn",
        ),
        (
            lambda path: edit(
                path.with_name("config.json"), lambda c: c | {"activation_function": "torch.nn.Threshold"}
            ),
            r"must be an activation of torch.nn without arguments",
        ),
        (
            lambda path: edit(
                path.with_name("config.json"), lambda c: c | {"module_input_name": "token_embeddings"}
            ),
            r"module_input_name='token_embeddings' must be 'sentence_embedding'",
        ),
        (
            lambda path: edit(path.with_name("config.json"), lambda c: c | {"scale": 2}),
            r"not implement scale",
        ),
    ],
)
def test_damaged_modules(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = build(tmp_path / "x", st.Dense(WIDTH, 6), st.LayerNorm(6))
    damage(folder / "2_Dense" / "model.safetensors")
    model = minitx.load(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        minitx.embed(model, TEXTS, minitx.load_tokenizer(folder))


def test_modules_of_another_size(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", st.Dense(WIDTH, 6))
    with pytest.raises(ValueError, match=r"^pooling=\['mean', 'max'\] must be of the size of the further"):
        ours(folder, pooling=["mean", "max"])
    edit(folder / "modules.json", lambda modules: [*modules[:2], modules[2], modules[2] | {"idx": 3}])
    with pytest.raises(ValueError, match=r"^pooling='mean' must be of the size .*6.*12"):
        ours(folder)
    with pytest.raises(TypeError, match=r"modules\[0\]=.* must be a torch.nn.Module"):
        EmbeddingSettings(modules=(len,))  # type: ignore[arg-type]


@pytest.mark.parametrize("nested", [False, True])
def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], nested: bool) -> None:
    from minitx.cli.app import main

    folder, copy = (
        build(tmp_path / "x", st.Dense(2 * WIDTH, 6), pooling=("cls", "mean"), limit=13),
        tmp_path / "y",
    )
    expected = theirs(folder)
    if nested:
        in_subfolder(folder)
    (folder / "README.md").write_text("read me")
    picture = ["--picture", tmp_path / "x.svg"]
    for command in (
        ["convert", folder, copy],
        ["verify", folder],
        ["inspect", folder],
        ["demo", folder, *picture],
    ):
        assert main([*map(str, command)]) == 0
    assert "Against transformers" in capsys.readouterr().out
    assert main(["embed", str(folder), "a cat", "a", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["pooling"], shown["max_length"], shown["truncate_dim"]) == (["first", "mean"], 13, None)
    assert shown["modules"] == [
        "Dense( (linear): Linear(in_features=24, out_features=6, bias=True) (activation_function): Tanh() )"
    ]
    torch.testing.assert_close(torch.tensor(shown["embeddings"])[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(copy), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs(copy), expected, rtol=1e-5, atol=1e-6)
    assert (copy / "README.md").read_text() == "read me"
