"""The family of encoder-decoders beyond its numbers: what it refuses, its caches, its files."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import minitx
from minitx.architectures.config_reader import ConfigReader
from minitx.architectures.known_keys import unknown_keys
from minitx.layers.cache import Cache, DynamicCache
from minitx.models import EncoderDecoderModel, EncoderModel
from tests.parity.encoder_decoders import BART, BERT, DECODES, GLUED, GPT2, MARIAN, T5

CONFIGS: dict[str, dict[str, Any]] = {
    "t5": T5,
    "bart": BART,
    "encoder-decoder": {"encoder": BERT, "decoder": {**BERT, **DECODES}, **GLUED},
}


def made(model_type: str = "t5", head: str = "seq2seq-lm", **more: Any) -> Any:
    config = {"model_type": model_type, **CONFIGS[model_type], **more}
    return minitx.from_config(config, head=head, seed=0).eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(4, 99, shape)


# --- what forward refuses ---------------------------------------------------------------------------

Call = Callable[[Any], Any]
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "nothing to read": (
        lambda model: model(decoder_input_ids=ids(2, 3)),
        ValueError,
        "pass exactly one source: input_ids",
    ),
    "two things to read": (
        lambda model: model(ids(2, 7), None, ids(2, 3), encoder_last_hidden_state=torch.zeros(2, 7, 24)),
        ValueError,
        "pass exactly one source: input_ids",
    ),
    "nothing to write": (
        lambda model: model(ids(2, 7)),
        ValueError,
        r"decoder_input_ids=None must be .* missing; pass at least \[\[0\]\]",
    ),
    "a list to read": (
        lambda model: model([[5]], None, ids(2, 3)),
        TypeError,
        r"^input_ids=\[\[5\]\] must be a tensor",
    ),
    "a list to write": (
        lambda model: model(ids(2, 7), None, [[5]]),
        TypeError,
        r"input_ids=\[\[5\]\] must be a tensor",
    ),
    "fewer texts to write": (
        lambda model: model(ids(2, 7), None, ids(1, 3)),
        ValueError,
        "must be of 1 rows like decoder_input_ids, not 2",
    ),
    "a memory of two dimensions": (
        lambda model: model(decoder_input_ids=ids(2, 3), encoder_last_hidden_state=torch.zeros(7, 24)),
        ValueError,
        r"must be of shape \(batch, time, 24\), not \(7, 24\); model.encode",
    ),
    "a memory of another width": (
        lambda model: model(decoder_input_ids=ids(2, 3), encoder_last_hidden_state=torch.zeros(2, 7, 12)),
        ValueError,
        r"must be of shape \(batch, time, 24\), not \(2, 7, 12\)",
    ),
    "a memory that is a list": (
        lambda model: model(decoder_input_ids=ids(1, 3), encoder_last_hidden_state=[[0.0]]),
        TypeError,
        r"encoder_last_hidden_state=\[\[0\.0\]\] must be a tensor",
    ),
    "a cache that is none": (
        lambda model: model(decoder_input_ids=ids(1, 3), cache="x"),
        TypeError,
        "cache='x' must be a Cache; make one with model.make_cache",
    ),
    "reading into no cache": (
        lambda model: model.encode_into("x", ids(1, 3)),
        TypeError,
        "cache='x' must be a Cache; make one with model.make_cache",
    ),
    "reading twice into one cache": (
        lambda model: model.encode_into(model.encode_into(model.make_cache(), ids(1, 3)), ids(1, 3)),
        ValueError,
        "must be empty; it holds another source already",
    ),
    "labels that are a list": (
        lambda model: model(ids(1, 7), labels=[[5]]),
        TypeError,
        r"labels=\[\[5\]\] must be a tensor",
    ),
    "a mask of a text that was read before": (
        lambda model: model(
            attention_mask=torch.ones(1, 3),
            decoder_input_ids=ids(1, 2),
            cache=model.encode_into(model.make_cache(), ids(1, 3)),
        ),
        ValueError,
        "attention_mask=.* must be None when the source is encoded already",
    ),
    "token types of a text that was read before": (
        lambda model: model(
            token_type_ids=torch.zeros(1, 3).long(),
            decoder_input_ids=ids(1, 2),
            encoder_last_hidden_state=torch.zeros(1, 3, 24),
        ),
        ValueError,
        "token_type_ids=.* must be None when the source is encoded already",
    ),
    "a cache for other layers": (
        lambda model: model.encode_into(Cache([DynamicCache()] * 5), ids(1, 3)),
        ValueError,
        r"for the \d layers that the model runs with cross-attention, not for 5",
    ),
    "a mask per token of the text to be read": (
        lambda model: model(ids(1, 3), torch.ones(1, 3, 3), ids(1, 2)),
        ValueError,
        r"attention_mask=.* must be of shape \(batch, time\), not \(1, 3, 3\)",
    ),
    "an id that the encoder does not know": (
        lambda model: model(ids(2, 7) + 99, None, ids(2, 3)),
        ValueError,
        "^input_ids=.* must be from 0 to 98",
    ),
    "an id that the decoder does not know": (
        lambda model: model(ids(2, 7), None, ids(2, 3) + 99),
        ValueError,
        "decoder_input_ids=.* must be from 0 to 98",
    ),
    "a mask of another length": (
        lambda model: model(ids(2, 7), torch.ones(2, 3), ids(2, 3)),
        ValueError,
        r"^attention_mask=.* must be of shape .* \(2, 7\) .* not \(2, 3\)",
    ),
    "the mask of the other text": (
        lambda model: model(ids(2, 7), None, ids(2, 3), torch.ones(2, 7)),
        ValueError,
        r"^decoder_attention_mask=.* must be of shape .* \(2, 3\) .* not \(2, 7\)",
    ),
    "positions of the other text": (
        lambda model: model(ids(2, 7), None, ids(2, 3), decoder_position_ids=torch.zeros(2, 7).long()),
        ValueError,
        r"^decoder_position_ids=.* of shape \(2, 3\) like .*, not \(2, 7\)",
    ),
    "labels without all logits": (
        lambda model: model(ids(2, 7), labels=ids(2, 3), logits_to_keep=1),
        ValueError,
        "logits_to_keep=1 must be 0 with labels",
    ),
    "labels of the other text": (
        lambda model: model(ids(2, 7), None, ids(2, 3), labels=ids(2, 7)),
        ValueError,
        r"labels=.* must be integers of shape \(2, 3\), not \(2, 7\)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("model_type", CONFIGS)
def test_forward_refuses(model_type: str, what: str) -> None:
    call, error, message = REFUSED[what]
    model = made(model_type)
    if what == "nothing to write":
        message = message.replace("0", str(model.config.decoder_start_token_id))
    with pytest.raises(error, match=message):
        call(model)


@pytest.mark.parametrize("model_type", ["bart", "encoder-decoder"])
def test_texts_longer_than_either_table_of_positions(model_type: str) -> None:
    model = made(model_type)
    model(ids(1, 48), None, ids(1, 48))
    for read, written in ((49, 3), (3, 49)):
        with pytest.raises(ValueError, match="positions for 48 tokens, but the text has 49"):
            model(ids(1, read), None, ids(1, written))


def test_labels_of_a_model_without_a_head() -> None:
    with pytest.raises(ValueError, match="must be None for a model without a head"):
        made(head="none")(ids(2, 7), labels=ids(2, 7))


@pytest.mark.parametrize(("labels", "given"), [([[5, 6, 2]], [[0, 5, 6]]), ([[5, -100, 2]], [[0, 5, 0]])])
def test_labels_are_shifted(labels: list[list[int]], given: list[list[int]]) -> None:
    """Behind the start token, and what does not count is padding."""
    model, read = made(), ids(1, 7)
    learned = model(read, labels=torch.tensor(labels))
    assert torch.equal(learned.logits, model(read, None, torch.tensor(given)).logits)


def test_the_last_token_of_a_label_says_the_language_where_there_is_no_start_token() -> None:
    """mBART's: text, end, language, in rows of different lengths."""
    model = minitx.from_config({"model_type": "mbart", **BART}, head="seq2seq-lm", seed=0).eval()
    labels = torch.tensor([[5, 6, 2, 90], [7, 2, 91, -100]])
    assert model.shifted("labels", labels).tolist() == [[90, 5, 6, 2], [91, 7, 2, 91]]


def test_nothing_to_write_where_there_is_no_start_token() -> None:
    """There is no [[None]] that a text could begin with."""
    model = minitx.from_config({"model_type": "mbart", **BART}, head="seq2seq-lm", seed=0).eval()
    with pytest.raises(ValueError, match=r"at least the token of the target language, \[\[id\]\]"):
        model(ids(2, 7))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([[5]], TypeError, r"^{name}=\[\[5\]\] must be a tensor"),
        (torch.tensor([5, 6]), ValueError, r"^{name}=.* of shape \(batch, time\) .*, not \(2,\)"),
        (torch.tensor(5), ValueError, r"^{name}=.* of shape \(batch, time\) .*, not \(\)"),
        (torch.ones(2, 0).long(), ValueError, r"^{name}=.* of shape \(batch, time\) .*, not \(2, 0\)"),
        (torch.ones(2, 3), ValueError, r"^{name}=.* must be of dtype torch\.long"),
    ],
)
def test_what_cannot_be_shifted_is_named(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.format(name="labels")):
        made("bart")(ids(2, 7), labels=given)
    with pytest.raises(error, match=message.format(name="input_ids")):
        made("bart", "question-answering")(given)


def test_a_head_that_reads_the_end_of_a_text() -> None:
    model = made("bart", "sequence-classification")
    text = ids(2, 7)
    with pytest.raises(ValueError, match=r"must be rows that each have an end token \(2\)"):
        model(text)
    text[0, -1] = text[1, 4] = 2
    assert model(text).logits.shape == (2, 3)
    for written in (ids(2, 3), None):
        memory = None if written is not None else torch.zeros(2, 7, 24)
        with pytest.raises(ValueError, match="of the same shape or none"):
            model(
                text if memory is None else None,
                None,
                ids(2, 7) if written is None else written,
                encoder_last_hidden_state=memory,
            )


# --- caches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", CONFIGS)
def test_decode_needs_a_cache_that_has_read(model_type: str) -> None:
    model = made(model_type)
    with pytest.raises(ValueError, match=r"a cache that was filled by model.encode_into"):
        model.decode(ids(2, 3), cache=model.make_cache())
    cache = model.encode_into(model.make_cache(), ids(2, 7))
    with pytest.raises(ValueError, match="pass exactly one source: input_ids"):
        model(ids(2, 7), None, ids(2, 3), cache=cache)
    assert (cache.num_sources, cache.length) == (2, 0)
    assert model.decode(ids(4, 3), cache=cache).logits.shape == (4, 3, 99)


def test_rows_of_a_cache_are_as_many_for_each_text() -> None:
    model = made()
    cache = model.encode_into(model.make_cache(), ids(2, 7))
    with pytest.raises(ValueError, match="divides the 3 rows of decoder_input_ids; it holds 2"):
        model.decode(ids(3, 1), cache=cache)
    model.decode(ids(4, 1), cache=cache)
    with pytest.raises(ValueError, match="of a batch of 2 like decoder_input_ids, not of 4"):
        model.decode(ids(2, 1), cache=cache)


def test_a_cache_for_another_number_of_layers() -> None:
    model, other = made(), made(num_decoder_layers=2)
    cache = model.encode_into(model.make_cache(), ids(2, 7))
    with pytest.raises(ValueError, match="for the 2 layers that the model runs, not for 3; make one"):
        other.decode(ids(2, 1), cache=cache)


def test_a_memory_of_another_model() -> None:
    cache = made().encode_into(made().make_cache(), ids(2, 7))
    with pytest.raises(ValueError, match="of 5 heads of 7 features, not 4 of 7"):
        made(num_heads=5).decode(ids(2, 1), cache=cache)


def test_what_read_refuses() -> None:
    model = made()
    for given, mask, error, message in (
        ([[5]], None, TypeError, "must be a tensor"),
        (ids(2, 7), torch.ones(2, 3), ValueError, r"must be of shape .* not \(2, 3\)"),
        (ids(2, 7) + 99, None, ValueError, "must be from 0 to 98"),
    ):
        cache = model.make_cache()
        with pytest.raises(error, match=message):
            model.encode_into(cache, given, mask)
        assert cache.num_sources == 0


def test_a_memory_that_remembers_nothing() -> None:
    cache = made().make_cache()
    with pytest.raises(ValueError, match=r"holds no source; call model\.encode_into"):
        cache.cross_attention[0].recall()


def test_a_memory_follows_the_rows_that_are_selected() -> None:
    """The texts that no row looks at any more are forgotten, with their masks."""
    model = made()
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    cache = model.encode_into(model.make_cache(), ids(2, 7), mask)
    model.decode(ids(4, 1), cache=cache)
    cache.select(torch.tensor([3, 2]))
    assert (cache.num_sources, cache.batch) == (1, 2)
    assert cache.encoder_mask is not None
    assert cache.encoder_mask.flatten().tolist() == [True] * 4 + [False] * 3


# --- configs that are composed -----------------------------------------------------------------------


def composed(**more: Any) -> dict[str, Any]:
    return {"model_type": "encoder-decoder", **CONFIGS["encoder-decoder"], **more}


def decoder_of(**more: Any) -> dict[str, Any]:
    return {**BERT, **DECODES, **more}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (composed(decoder=decoder_of(model_type="nope")), "model_type 'nope' is not supported"),
        (
            composed(decoder=decoder_of(model_type="electra")),
            "decoder: model_type='electra' must be a decoder with cross-attention",
        ),
        (composed(decoder=decoder_of(is_decoder=False)), "decoder: is_decoder=False must be true"),
        (
            composed(decoder=decoder_of(add_cross_attention=False)),
            "decoder: add_cross_attention=False must be true",
        ),
        (
            composed(encoder={**BERT, "is_decoder": True}),
            "encoder: is_decoder=True must be False; minitx",
        ),
        (composed(decoder={**BERT, "add_cross_attention": True}), "decoder: is_decoder=False must be true"),
        (composed(encoder={**GPT2, "model_type": "gpt2"}), "encoder: model_type='gpt2' must be an encoder"),
        (composed(decoder=3), "decoder=3 must be an object"),
        ({k: v for k, v in composed().items() if k != "encoder"}, "encoder=None must be present"),
        (
            composed(decoder={k: v for k, v in decoder_of().items() if k != "model_type"}),
            "decoder: model_type=None must be present",
        ),
        (composed(decoder=decoder_of(hidden_size=25)), "decoder: hidden_size=25 must be a multiple of the 4"),
        (
            composed(decoder=decoder_of(cross_attention_hidden_size=12)),
            "decoder: cross_attention_hidden_size=12 must be None",
        ),
        (composed(tie_encoder_decoder=True), "tie_encoder_decoder=True must be False"),
        (composed(decoder=decoder_of(odd=3)), "has 'decoder.odd', unknown to minitx"),
        (composed(encoder={**BERT, "odd": 3}), "has 'encoder.odd', unknown to minitx"),
        (composed(pad_token_id=99), r"pad_token_id=99 must be a token id from 0 to 98"),
    ],
)
def test_a_composed_config_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minitx.from_config(config, head="seq2seq-lm")


def test_a_composed_model_is_copied_and_pickled() -> None:
    model = minitx.from_config(composed(), head="seq2seq-lm").eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.head.projection.weight, model.head.projection.weight)
        assert other.checkpoint.config == model.checkpoint.config


def test_a_config_inside_another_one() -> None:
    """Its errors and its unread keys name its place; a reader with other values takes the same keys."""
    hf = ConfigReader({"encoder": {"size": 3, "odd": 1, "flag": True}, "decoder": 7})
    inner = hf.nested("encoder")
    assert (inner.size("size"), inner.with_values(flag=False).flag("flag")) == (3, False)
    assert hf.nested("encoder") is inner
    assert inner.flag("flag") is True
    with pytest.raises(ValueError, match=r"config\.json: encoder: width=None must be present"):
        inner.size("width")
    with pytest.raises(ValueError, match=r"config\.json: decoder=7 must be an object"):
        hf.nested("decoder")
    assert unknown_keys(hf, "encoder-decoder") == ["encoder.odd"]


@pytest.mark.parametrize("decoder", ["bert", "gpt2", "roberta"])
def test_a_fresh_composed_model_is_saved_so_that_it_loads(decoder: str, tmp_path: Path) -> None:
    half = {**(GPT2 if decoder == "gpt2" else BERT), **DECODES, "model_type": decoder}
    model = minitx.from_config(composed(decoder=half), head="seq2seq-lm", seed=0).eval()
    minitx.save(model, tmp_path)
    again = minitx.load(tmp_path)
    read, written = ids(2, 7), ids(2, 3)
    assert torch.equal(again(read, None, written).logits, model(read, None, written).logits)
    assert config_of(tmp_path)["architectures"] == ["EncoderDecoderModel"]
    with pytest.raises(ValueError, match="seq2seq-lm"):
        minitx.load(tmp_path, head="causal-lm")


# --- files -------------------------------------------------------------------------------------------


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def test_the_encoder_of_t5_alone(tmp_path: Path) -> None:
    """Out of a checkpoint of both stacks; what is saved is one of its own, which transformers loads."""
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)).save_pretrained(tmp_path / "both")
    both = minitx.load(tmp_path / "both")
    encoder = minitx.load(tmp_path / "both", head="encoder")
    assert isinstance(both, EncoderDecoderModel)
    assert isinstance(encoder, EncoderModel)
    text, mask = ids(2, 7), torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    assert torch.equal(encoder(text, mask).last_hidden_state, both.encode(text, mask))
    minitx.save(encoder, tmp_path / "encoder")
    stored = load_file(tmp_path / "encoder" / "model.safetensors")
    assert not [name for name in stored if name.startswith(("decoder", "lm_head"))]
    assert config_of(tmp_path / "encoder")["architectures"] == ["T5EncoderModel"]
    for folder, head in (("encoder", None), ("encoder", "encoder"), ("both", "encoder")):
        again = minitx.load(tmp_path / folder, head=head)
        assert torch.equal(again(text, mask).last_hidden_state, encoder(text, mask).last_hidden_state)
    theirs, report = transformers.T5EncoderModel.from_pretrained(
        tmp_path / "encoder", output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        expected = theirs.eval()(text, attention_mask=mask).last_hidden_state
        found = encoder(text, mask).last_hidden_state
    assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-5)
    with pytest.raises(ValueError, match="decoder"):
        minitx.load(tmp_path / "encoder", head="seq2seq-lm")


def test_an_encoder_alone_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="encoder"):
        made("bart", "encoder")


@pytest.mark.parametrize(("name", "config"), [("Bart", BART), ("MarianMT", MARIAN)])
def test_a_bias_of_the_logits_that_a_file_has_or_lacks(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    """It is no parameter of the training; files that lack it mean zeros, and are saved without it."""
    kind = "Marian" if name == "MarianMT" else name
    suffix = "Model" if name == "MarianMT" else "ForConditionalGeneration"
    torch.manual_seed(0)
    reference = getattr(transformers, name + suffix)(getattr(transformers, f"{kind}Config")(**config)).eval()
    reference.final_logits_bias.normal_()
    reference.save_pretrained(tmp_path / "with")
    path = tmp_path / "with" / "model.safetensors"
    tensors = load_file(path)
    bias = tensors["final_logits_bias"]
    text, written = ids(2, 7), ids(2, 3)

    present = minitx.load(tmp_path / "with")
    assert torch.equal(present.head.projection.bias, bias[0])
    assert not present.head.projection.bias.requires_grad
    with torch.no_grad():
        expected = reference(text, decoder_input_ids=written).logits
        assert torch.allclose(present(text, None, written).logits, expected, atol=1e-5)
    minitx.save(present, tmp_path / "with-again")
    assert torch.equal(load_file(tmp_path / "with-again" / "model.safetensors")["final_logits_bias"], bias)

    del tensors["final_logits_bias"]
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "config.json").write_text(json.dumps(config_of(tmp_path / "with")))
    save_file(tensors, tmp_path / "without" / "model.safetensors", metadata={"format": "pt"})
    for head in ("seq2seq-lm", None):  # all that the head needs is the word embedding
        absent = minitx.load(tmp_path / "without", head=head)
        assert not absent.head.projection.bias.any()
        with torch.no_grad():
            assert torch.allclose(absent(text, None, written).logits, expected - bias, atol=1e-5)
    minitx.save(absent, tmp_path / "without-again")
    assert set(load_file(tmp_path / "without-again" / "model.safetensors")) == set(tensors)


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_one_word_embedding_serves_both_texts(model_type: str, tmp_path: Path) -> None:
    model = made(model_type)
    assert model.decoder_embedder.word_emb.weight is model.embedder.word_emb.weight
    assert model.head.projection.weight is model.embedder.word_emb.weight
    minitx.save(model, tmp_path)
    assert "shared.weight" in "".join(load_file(tmp_path / "model.safetensors"))
    again = minitx.load(tmp_path)
    assert again.decoder_embedder.word_emb.weight is again.embedder.word_emb.weight


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    minitx.save(made(), tmp_path)
    path, name = tmp_path / "model.safetensors", "decoder.block.1.layer.1.EncDecAttention.k.weight"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=re.escape(name)):
        minitx.load(tmp_path)


def failing(model: Any, where: str, error: BaseException) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return model.get_submodule(where).register_forward_pre_hook(fail)


# Where a forward fails: as keys of the memory are made (those of the first layer are there already), as the
# decoder runs, and as the head does.
HALF_WAY = ["decoder.layers.1.cross_attention.cross_attention.K", "decoder.layers.1", "head"]


@pytest.mark.parametrize("error", [RuntimeError("no memory left"), KeyboardInterrupt(), ValueError("mine")])
@pytest.mark.parametrize("where", HALF_WAY)
def test_a_forward_that_fails_leaves_nothing_in_the_cache(where: str, error: BaseException) -> None:
    """So that the same call can be made again; and what fails is said as it was."""
    model, read, written = made(), ids(2, 7), ids(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        expected = model(read, None, written, mask).logits
        for cache in (model.make_cache(), model.make_cache(3)):
            hook = failing(model, where, error)
            with pytest.raises(type(error)) as caught:
                model(read, None, written, mask, cache=cache)
            hook.remove()
            assert caught.value is error
            assert (cache.num_sources, cache.length, cache.mask, cache.encoder_mask) == (0, 0, None, None)
            found = model(read, None, written, mask, cache=cache).logits
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("where", HALF_WAY[1:])
def test_a_step_that_fails_leaves_the_cache_as_it_was(where: str) -> None:
    model, read, written = made(), ids(2, 7), ids(2, 5)
    with torch.no_grad():
        expected = model(read, None, written).logits[:, 3:]
        for cache in (model.make_cache(), model.make_cache(5)):
            model(read, None, written[:, :3], cache=cache)
            hook = failing(model, where, RuntimeError("no memory left"))
            with pytest.raises(RuntimeError, match="no memory left"):
                model.decode(written[:, 3:], cache=cache)
            hook.remove()
            assert (cache.num_sources, cache.length, cache.mask) == (2, 3, None)
            assert torch.allclose(model.decode(written[:, 3:], cache=cache).logits, expected, atol=1e-5)


def test_a_reading_that_fails_leaves_nothing_in_the_cache() -> None:
    model, read = made(), ids(2, 7)
    cache = model.make_cache()
    hook = failing(model, HALF_WAY[0], RuntimeError("no memory left"))
    with pytest.raises(RuntimeError, match="no memory left"):
        model.encode_into(cache, read)
    hook.remove()
    assert model.encode_into(cache, read).num_sources == 2


def test_arguments_that_are_refused_leave_nothing_in_the_cache() -> None:
    """And an error says which text it is about, where the names of the arguments do not, and only there."""
    model, read, written = made(), ids(2, 7), ids(2, 3)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"decoder_input_ids": torch.full((2, 1), 99)}, "input_ids=99 must be from 0 to 98"),
        ({"decoder_input_ids": ids(3)}, r"input_ids=.* must be a tensor of shape \(batch, time\)"),
        ({"decoder_attention_mask": torch.ones(2, 7)}, r"^decoder_attention_mask=.* not \(2, 7\)"),
        (
            {"decoder_attention_mask": torch.full((2, 3), 2)},
            "^decoder_attention_mask=.* values 0 and 1",
        ),
        (
            {"decoder_position_ids": torch.ones(2, 7).long()},
            "^decoder_position_ids=.* must be a tensor of shape",
        ),
        ({"input_ids": torch.full((2, 1), 99)}, "^input_ids=99 must be"),
        ({"labels": ids(2, 7)}, r"^labels=.* must be integers of shape .* not \(2, 7\)"),
        ({"decoder_input_ids": ids(2, 4)}, "^the cache has room for 3 tokens, but this is token 4"),
    ]
    for wrong, message in refused:
        cache = model.make_cache(3)
        with pytest.raises(ValueError, match=message):
            model(**{"input_ids": read, "decoder_input_ids": written, **wrong}, cache=cache)
        assert (cache.num_sources, cache.length) == (0, 0)
        assert model(read, None, written, cache=cache).logits.shape == (2, 3, 99)


def test_texts_are_chosen_before_the_first_token() -> None:
    model = made()
    with torch.no_grad():
        read, written = ids(3, 7), ids(1, 3)
        cache = model.encode_into(model.make_cache(), read).select(torch.tensor([2]))
        assert cache.num_sources == 1
        expected = model(read[2:], None, written).logits
        assert torch.allclose(model.decode(written, cache=cache).logits, expected, atol=1e-5)
        model.decode(ids(1, 1), cache=cache.crop(0).select(torch.tensor([0])))


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_a_batch_of_no_sources(model_type: str) -> None:
    output = made(model_type)(ids(0, 5), None, ids(0, 3), output_attentions=True)
    assert output.logits.shape == (0, 3, 99)
    assert {(len(weights), *weights.shape[2:]) for weights in output.cross_attentions} == {(0, 3, 5)}
