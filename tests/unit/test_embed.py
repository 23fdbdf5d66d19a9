"""Sentence embeddings: equal to transformers with pooling by hand, and the same in any batch."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import minitx
from minitx.models import EncoderModel
from minitx.pipelines import EmbeddingSettings, embed, embedding_settings
from minitx.pipelines.embedding.embed import finish
from minitx.tokenizer import Tokenizer
from tests.real import MINILM

TEXTS = [
    "A cat.",
    "The stock market fell sharply after the announcement, and kept falling all week.",
    "",
    "naïve café 日本語",
    "word " * 400,
    "Short again.",
]

TINY = {
    "vocab_size": 60,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}

WITHOUT_POOLER = {
    "model_type": "distilbert",
    "vocab_size": 60,
    "dim": 12,
    "n_layers": 1,
    "n_heads": 3,
    "hidden_dim": 8,
    "max_position_embeddings": 16,
}


class Letters:
    """A stand-in tokenizer: one id per letter, padded with `pad` on either side."""

    def __init__(self, pad: int = 0, side: str = "right") -> None:
        self.pad, self.side = pad, side

    def __call__(self, texts: list[str], *, max_length: int, **options: bool) -> dict[str, Any]:
        assert options == {"padding": True, "truncation": True}
        rows = [[ord(c) % 40 + 3 for c in text][:max_length] for text in texts]
        time = max(map(len, rows), default=0)
        ids, mask = [], []
        for row in rows:
            fill = [self.pad] * (time - len(row))
            real = [1] * len(row)
            ids.append(row + fill if self.side == "right" else fill + row)
            mask.append(real + [0] * len(fill) if self.side == "right" else [0] * len(fill) + real)
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.fixture(scope="module")
def real() -> tuple[EncoderModel, Tokenizer]:
    return minitx.load(MINILM), minitx.load_tokenizer(MINILM)


def tiny(kind: str = "bert", **more: Any) -> EncoderModel:
    return minitx.from_config({"model_type": kind, **TINY, **more}, seed=0).eval()


def by_hand(texts: list[str], tokenizer: Tokenizer, pooling: str) -> torch.Tensor:
    """transformers, one text at a time, pooled with sentence-transformers' formulas."""
    from transformers import AutoModel

    from minitx.inspect.compare.reference import quiet

    with quiet():
        model = AutoModel.from_pretrained(MINILM).eval()
    rows = []
    for text in texts:
        batch = tokenizer([text], truncation=True, max_length=256)
        with torch.no_grad():
            out = model(**batch)
        mask = batch["attention_mask"][..., None].float()
        pooled = {
            "mean": (out.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9),
            "first": out.last_hidden_state[:, 0],
            "pooler": out.pooler_output,
        }[pooling]
        rows.append(F.normalize(pooled, dim=-1))
    return torch.cat(rows)


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_equals_transformers(real: tuple[EncoderModel, Tokenizer], pooling: Any) -> None:
    model, tokenizer = real
    mine = embed(model, tokenizer, TEXTS, pooling=pooling, max_length=256, batch_size=4)
    torch.testing.assert_close(mine, by_hand(TEXTS, tokenizer, pooling), rtol=0, atol=1e-6)


def test_a_batch_equals_its_rows(real: tuple[EncoderModel, Tokenizer]) -> None:
    model, tokenizer = real
    together = embed(model, tokenizer, TEXTS)
    alone = torch.cat([embed(model, tokenizer, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_order_and_progress() -> None:
    model, seen = tiny(), []
    texts = ["abc", "a", "abcdefgh", "", "xy"]
    result = embed(model, Letters(), texts, batch_size=2, progress=seen.append)  # type: ignore[arg-type]
    assert seen == [2, 2, 1]
    for row, text in zip(result, texts, strict=True):
        if text:
            torch.testing.assert_close(row[None], embed(model, Letters(), [text]))  # type: ignore[arg-type]
    assert not result[3].any()  # no token at all: no direction, and no NaN


def test_left_padding_is_no_token() -> None:
    model = tiny("roberta", pad_token_id=1)
    texts = ["abcdef", "xy"]
    for pooling in ("mean", "first"):
        right = embed(model, Letters(1), texts, pooling=pooling)  # type: ignore[arg-type]
        left = embed(model, Letters(1, "left"), texts, pooling=pooling)  # type: ignore[arg-type]
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(("kind", "more", "limit"), [("bert", {}, 16), ("roberta", {"pad_token_id": 1}, 14)])
def test_cut_at_the_models_positions(kind: str, more: dict[str, Any], limit: int) -> None:
    model = tiny(kind, **more)
    assert model.embedder.max_tokens == limit
    letters: Any = Letters(more.get("pad_token_id", 0))
    long = "abcdefghijklmnopqrstuvwxyz"
    cut = embed(model, letters, [long])
    torch.testing.assert_close(cut, embed(model, letters, [long[:limit]]))
    torch.testing.assert_close(cut, embed(model, letters, [long], max_length=999))
    shorter = embed(model, letters, [long], max_length=5)
    torch.testing.assert_close(shorter, embed(model, letters, [long[:5]]))


def test_what_comes_out() -> None:
    model = tiny()
    letters: Any = Letters()
    first, second = embed(model, letters, ["abc"]), embed(model, letters, ["abc"])
    assert torch.equal(first, second)
    assert float(first.norm()) == pytest.approx(1.0)
    assert float(embed(model, letters, ["abc"], normalize=False).norm()) != pytest.approx(1.0, abs=1e-3)
    assert embed(model, letters, []).shape == (0, 12)
    assert not first.is_inference()
    assert embed(model.to(torch.bfloat16), letters, ["abc"]).dtype == torch.float32
    assert embed(model.double(), letters, ["abc"]).dtype == torch.float64


def test_a_model_in_training_mode_is_refused() -> None:
    """Dropout would change the vectors. The mode is the caller's: it is neither changed nor restored."""
    model = tiny(hidden_dropout_prob=0.5)
    letters: Any = Letters()
    expected = embed(model, letters, ["abc", "xy"])
    for part in (model, model.encoder.layers[1].output.dropout):  # type: ignore[union-attr,index]
        part.train()
        modes = [module.training for module in model.modules()]
        with pytest.raises(ValueError, match=r"^model=.* must be in eval mode; .*call model\.eval\(\)"):
            embed(model, letters, ["abc", "xy"])
        assert [module.training for module in model.modules()] == modes
        model.eval()
    assert torch.equal(embed(model, letters, ["abc", "xy"]), expected)


def test_threads_share_a_model() -> None:
    """A call that runs within another one gives the same vectors, and changes no mode."""
    model = tiny(hidden_dropout_prob=0.5)
    letters: Any = Letters()
    expected = embed(model, letters, ["abc", "xy"], batch_size=1)
    inside, over = Event(), Event()

    def wait(_: int) -> None:
        inside.set()
        over.wait(10)

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(embed, model, letters, ["abc", "xy"], batch_size=1, progress=wait)
        assert inside.wait(10)
        # It starts while the first one runs, and ends after it.
        quick = embed(model, letters, ["abc", "xy"], batch_size=1, progress=lambda _: end(over, slow))
    assert torch.equal(slow.result(), expected)
    assert torch.equal(quick, expected)
    assert not any(module.training for module in model.modules())


def end(over: Event, other: Future[torch.Tensor]) -> None:
    over.set()
    other.result(10)


def test_a_tokenizer_of_another_library_is_named() -> None:
    def lists(texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[3]] * len(texts), "attention_mask": [[1]] * len(texts)}

    other: Any = lists
    with pytest.raises(TypeError, match=r"^tokenizer=.* must be a tokenizer of minitx; .*load_tokenizer"):
        embed(tiny(), other, ["abc"])


def test_the_settings_are_read_once_per_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = minitx.load(MINILM), minitx.load_tokenizer(MINILM)
    first = embed(model, tokenizer, ["one"])
    monkeypatch.setattr("minitx.pipelines.embedding.settings.read_settings", None)  # any more reading fails
    assert torch.equal(embed(model, tokenizer, ["one"]), first)


def test_mistakes_are_named() -> None:
    model, letters = tiny(), Letters()
    call: Any = embed
    with pytest.raises(TypeError, match=r"^texts=.* must be a list of strings; wrap"):
        call(model, letters, "text")
    for number in (torch.tensor(1), torch.tensor(1).numpy()):
        with pytest.raises(TypeError, match=r"^texts=1 must be a list of strings"):
            call(model, number, letters)
    with pytest.raises(TypeError, match=r"^texts\[1\]=None must be a string"):
        call(model, letters, ["text", None])
    with pytest.raises(TypeError, match=r"^model=.*Letters.* must be a model; call embed\(model, texts"):
        call(letters, model, ["text"])
    with pytest.raises(ValueError, match=r"pooling='median' must be one of 'mean', 'first', 'last', 'max'"):
        call(model, letters, ["text"], pooling="median")
    with pytest.raises(ValueError, match=r"pooling='median' must be one of 'mean'"):
        call(model, letters, ["text"], pooling=["mean", "median"])
    with pytest.raises(ValueError, match=r"pooling=\[\] must be a pooling"):
        call(model, letters, ["text"], pooling=[])
    with pytest.raises(TypeError, match=r"prompt=3 must be a string"):
        call(model, letters, ["text"], prompt=3)
    with pytest.raises(ValueError, match=r"truncate_dim=0 must be at least 1"):
        call(model, letters, ["text"], settings=EmbeddingSettings(truncate_dim=0))
    with pytest.raises(ValueError, match=r"has no pooler"):
        call(minitx.from_config(WITHOUT_POOLER).eval(), letters, ["text"], pooling="pooler")
    with pytest.raises(ValueError, match=r"batch_size=0"):
        call(model, letters, ["text"], batch_size=0)
    with pytest.raises(ValueError, match=r"max_length=0"):
        call(model, letters, ["text"], max_length=0)


# --- settings --------------------------------------------------------------------------------------


def folder_with(folder: Path, modules: Any = None, **files: Any) -> Path:
    if modules is not None:
        listed = [{"idx": i, "name": str(i), "path": p, "type": t} for i, (t, p) in enumerate(modules)]
        (folder / "modules.json").write_text(json.dumps(listed))
        files = {"pooling": {}} | files
    for name, content in files.items():
        path = folder / ("1_Pooling/config.json" if name == "pooling" else f"{name}.json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


PLAIN = [
    ("sentence_transformers.models.Transformer", ""),
    ("sentence_transformers.models.Pooling", "1_Pooling"),
]


def test_settings_of_the_real_checkpoint() -> None:
    assert embedding_settings(MINILM) == EmbeddingSettings(pooling="mean", normalize=True, max_length=256)


def test_settings_without_files(tmp_path: Path) -> None:
    assert embedding_settings(tmp_path) == EmbeddingSettings()


@pytest.mark.parametrize("place", ["", ".", "./"])
def test_every_spelling_of_the_folder_itself(tmp_path: Path, place: str) -> None:
    settings = embedding_settings(
        folder_with(tmp_path, [("sentence_transformers.models.Transformer", place), PLAIN[1]])
    )
    assert settings == EmbeddingSettings(normalize=False)


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({}, "mean"),
    ],
)
def test_pooling_in_both_dialects(tmp_path: Path, content: dict[str, Any], pooling: str) -> None:
    settings = embedding_settings(folder_with(tmp_path, PLAIN, pooling=content))
    assert settings == EmbeddingSettings(pooling=pooling, normalize=False)  # type: ignore[arg-type]


def test_prompt_and_lowercase(tmp_path: Path) -> None:
    folder_with(
        tmp_path,
        PLAIN,
        sentence_bert_config={"max_seq_length": None, "do_lower_case": True},
        config_sentence_transformers={"prompts": {"query": "Query: "}, "default_prompt_name": "query"},
    )
    settings = embedding_settings(tmp_path)
    assert settings.max_length is None
    assert settings.prepare(["What IS"]) == ["query: what is"]


@pytest.mark.parametrize(
    ("modules", "files", "message"),
    [
        ([*PLAIN, ("sentence_transformers.models.CNN", "2_CNN")], {}, r"module 2 is a CNN"),
        ([PLAIN[0], ("sentence_transformers.models.Dense", "1_Dense")], {}, r"module 1 is a Dense"),
        ([PLAIN[0], ("sentence_transformers.models.WordWeights", "1")], {}, r"module 1 is a WordWeights"),
        ([("sentence_transformers.models.WordEmbeddings", "0_W")], {}, r"module 0 is a WordEmbeddings"),
        ([*PLAIN, PLAIN[1]], {}, r"module 2 is a Pooling"),
        ([PLAIN[0], ("custom_st.Pooling", "1_Pooling")], {}, r"module 1 is custom_st.Pooling, custom code"),
        (PLAIN[:1], {}, r"has no Pooling"),
        ([("sentence_transformers.Transformer", "0_BERT")], {}, r"encoder's folder '0_BERT' has no config"),
        ([("sentence_transformers.Transformer", "../else")], {}, r"must be inside the folder"),
        (PLAIN, {"pooling": {"pooling_mode": "median"}}, r"pooling_mode=\['median'\] must be of cls, max"),
        (PLAIN, {"pooling": {"pooling_mode": {}}}, r"pooling_mode=\[\{\}\] must be of cls, max"),
        (PLAIN, {"pooling": {"pooling_mode": []}}, r"pooling_mode=\[\] must be of cls, max"),
        (PLAIN, {"pooling": {"pooling_mode_median_tokens": True}}, r"implement pooling_mode_median_tokens"),
        (
            PLAIN,
            {"pooling": {"pooling_mode_cls_token": 1}},
            r"pooling_mode_cls_token=1 must be true or false",
        ),
        (PLAIN, {"sentence_bert_config": {"query_lenght": 3}}, r"does not implement query_lenght"),
        (PLAIN, {"sentence_bert_config": {"transformer_task": "fill-mask"}}, r"transformer_task='fill-mask'"),
        (PLAIN, {"sentence_bert_config": {"tokenizer_name_or_path": "x"}}, r"tokenizer_name_or_path='x'"),
        (PLAIN, {"sentence_bert_config": {"modality_config": {"message": {}}}}, r"modality_config=.*message"),
        (PLAIN, {"sentence_bert_config": {"config_args": {"num_layers": 1}}}, r"implement num_layers"),
        (PLAIN, {"sentence_bert_config": {"tokenizer_args": {"padding_side": "left"}}}, r"padding_side"),
        (
            PLAIN,
            {"sentence_bert_config": {"processing_kwargs": {"text": {"add_special_tokens": False}}}},
            r"processing_kwargs: text: minitx does not implement add_special_tokens",
        ),
        (
            PLAIN,
            {"sentence_bert_config": {"processing_kwargs": {"text": {"truncation": False}}}},
            r"truncation=False must be True or 'longest_first'",
        ),
        (PLAIN, {"sentence_bert_config": {"model_args": 3}}, r"model_args=3 must be an object"),
        (
            PLAIN,
            {"config_sentence_transformers": {"default_prompt_name": []}},
            r"\[\] is not one",
        ),
        (PLAIN, {"config_sentence_transformers": {"truncate_dim": 0}}, r"truncate_dim=0 must be an integer"),
        (PLAIN, {"config_sentence_transformers": {"prompts": {"q": 3}}}, r"prompts=.* must be texts by name"),
        (PLAIN, {"config_sentence_transformers": {"query_prefix": "Q"}}, r"does not implement query_prefix"),
        (
            PLAIN,
            {"config_sentence_transformers": {"model_type": "CrossEncoder"}},
            r"model_type='CrossEncoder' must be 'SentenceTransformer'",
        ),
        (PLAIN, {"sentence_bert_config": {"max_seq_length": 0}}, r"max_seq_length=0"),
        (
            PLAIN,
            {"config_sentence_transformers": {"default_prompt_name": "q", "prompts": {}}},
            r"'q' is not one of its prompts",
        ),
    ],
)
def test_settings_that_minitx_lacks(tmp_path: Path, modules: Any, files: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embedding_settings(folder_with(tmp_path, modules, **files))


@pytest.mark.parametrize("key", ["in_features", "out_features"])
def test_a_dense_module_beyond_all_sizes(tmp_path: Path, key: str) -> None:
    dense = {"in_features": 12, "out_features": 12} | {key: 10**19}
    modules = [*PLAIN, ("sentence_transformers.models.Dense", "2_Dense")]
    folder = folder_with(tmp_path, modules, **{"2_Dense/config": dense})
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"2_Dense.config.json: {key}=1000.* must be an integer of at most"):
        embedding_settings(folder)


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'[{"idx": 0}]', b"[3]"])
def test_broken_modules_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "modules.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"modules\.json"):
        embedding_settings(tmp_path)


def test_the_checkpoint_says_how_unless_the_caller_does(tmp_path: Path) -> None:
    """A model that was trained to be read at its first token is not averaged unnoticed."""
    config = {
        "model_type": "bert",
        "vocab_size": 40,
        "hidden_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 9,
        "max_position_embeddings": 30,
    }
    minitx.save(minitx.from_config(config, seed=0), tmp_path)
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": place, "type": kind} for kind, place in PLAIN])
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    model, letters = minitx.load(tmp_path), Letters()
    first = embed(model, letters, ["abc"], pooling="first", normalize=False)  # type: ignore[arg-type]
    mean = embed(model, letters, ["abc"], pooling="mean", normalize=False)  # type: ignore[arg-type]
    assert not torch.allclose(first, mean)
    torch.testing.assert_close(embed(model, letters, ["abc"]), first)  # type: ignore[arg-type]


def test_only_encoders_embed(tmp_path: Path) -> None:
    """Of a decoder, and of an encoder-decoder that has no encoder for itself, there is a clear error."""
    config = {
        "model_type": "t5", "vocab_size": 30522, "d_model": 16, "d_kv": 8, "d_ff": 8, "num_layers": 1,
        "num_heads": 2,
    }  # fmt: skip
    tokenizer = minitx.load_tokenizer(MINILM)
    whole = minitx.from_config(config, head="seq2seq-lm", seed=0)
    with pytest.raises(
        ValueError, match=r"^model=.*EncoderDecoderModel.* an encoder or a decoder; .*head \"encoder\""
    ):
        minitx.embed(whole, tokenizer, ["one"])
    minitx.save(whole, tmp_path)
    encoder = minitx.load(tmp_path, head="encoder")
    assert minitx.embed(encoder, tokenizer, ["one", "two words"]).shape == (2, 16)


def test_a_head_is_not_applied() -> None:
    model = minitx.from_config({"model_type": "bert", **TINY}, head="masked-lm", seed=0).eval()
    assert model.head is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.head, "forward", None)
        embed(model, ["a cat"], Letters())  # type: ignore[arg-type]


def test_further_modules_are_copied_only_to_another_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = torch.nn.Linear(4, 3)
    settings = EmbeddingSettings(modules=(dense,), normalize=False)
    vectors = torch.randn(2, 4)
    wide = finish(vectors.double(), settings, None)
    assert wide.dtype == torch.float64
    assert dense.weight.dtype == torch.float32
    monkeypatch.setattr("minitx.pipelines.embedding.embed.deepcopy", None)
    assert torch.equal(finish(vectors, settings, None), dense(vectors).detach())
