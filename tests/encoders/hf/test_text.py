"""Tokenizers of transformers models: sentencepiece files, and defaults of classes that the files do not state."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="extra torch is not installed")
pytest.importorskip("transformers", reason="extra torch is not installed")

import torch
import transformers

from helpers import tiny_hf
from impart.encoders import load_encoder
from impart.encoders.hf.families import FAMILIES
from impart.encoders.hf.text import read_tokenizer
from impart.encoders.tokens import PADDING_SIDE
from impart.errors import EncoderError, MissingExtraError

SENTENCES = [
    "a photo of a dog",
    "a photo of two red squares",
    "the golden gate bridge at dawn",
    "rock and roll",
    "dont",
    "the man and the woman walk along the beach at sunset",
    "ein Hund",
    "caf\u00e9 \ufb01ne \uff21\uff22\uff23 \u00bd",
    "1234567890",
]
TEXTS = [
    "a photo of a Dog.",
    "Golden_Gate, at dawn!",
    "",
    "two   men\tand\nmore",
    "rock & roll; don't",
    "CAF\u00c9 \ufb01ne \uff21\uff22",
    "\u96ea unknown \U0001f600 pieces",
    "dawn " * 40,
    "\u00bd of 12,345.67",
    "x",
    "...",
]


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a SigLIP model with `spiece.model`, as transformers saves it; tests must not change it."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="extra torch is not installed")
    folder = tiny_hf.write_siglip(tmp_path_factory.mktemp("spiece"))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([sentence.lower() for sentence in SENTENCES] * 20),
        model_writer=written,
        vocab_size=110,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"), model_max_length=12)
    tokenizer.save_pretrained(folder)
    config = transformers.SiglipConfig.from_pretrained(folder)
    config.text_config.vocab_size = len(tokenizer) + 1
    torch.manual_seed(0)
    transformers.SiglipModel(config).save_pretrained(folder)
    return folder


def test_a_sentencepiece_model_of_siglip_agrees_with_transformers(spiece: Path) -> None:
    assert not (spiece / "tokenizer.json").exists()
    theirs = transformers.AutoTokenizer.from_pretrained(spiece)
    assert type(theirs).__name__ == "SiglipTokenizer"
    ours = read_tokenizer(spiece, family=FAMILIES["siglip"], context_tokens=12)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=12)["input_ids"]
    np.testing.assert_array_equal(ours.pad(ours.encode(TEXTS), length=12)[0], expected)
    encoder = load_encoder(f"hf:{spiece}", device="cpu")
    model = transformers.SiglipModel.from_pretrained(spiece).eval()
    with torch.inference_mode():
        output = model.get_text_features(input_ids=torch.tensor(expected))
    vectors = torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), vectors, atol=1e-5)


def test_sentencepiece_is_named_where_it_is_missing(spiece: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match="sentencepiece"):
        load_encoder(f"hf:{spiece}", device="cpu")


def test_a_damaged_sentencepiece_model_is_named(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="extra torch is not installed")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    (tmp_path / "spiece.model").write_bytes(b"\x07 not a model")
    with pytest.raises(EncoderError, match=r"spiece\.model is not a"):
        read_tokenizer(tmp_path, family=FAMILIES["siglip"], context_tokens=12)


@pytest.mark.parametrize("name", PADDING_SIDE)
def test_padding_sides_are_those_of_the_classes(name: str) -> None:
    pytest.importorskip("sentencepiece", reason="the class of SigLIP needs it")
    found: Any = getattr(transformers, name, None)  # the names of the two base classes depend on the version
    if found is not None:
        assert found.padding_side == PADDING_SIDE[name]


def test_padding_side_is_that_of_the_class_where_the_file_does_not_state_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_hf.write_siglip(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such class")

    def side(**config: object) -> bool:
        tiny_hf.set_json(folder / "tokenizer_config.json", **config)
        return read_tokenizer(folder, family=FAMILIES["siglip"], context_tokens=12).pad_left

    assert not side(padding_side=None)
    assert side(tokenizer_class="GemmaTokenizer")
    assert side(tokenizer_class="GemmaTokenizerFast")
    assert not side(padding_side="right")
    tiny_hf.set_json(folder / "tokenizer_config.json", padding_side=None)
    assert not side(tokenizer_class="NoSuchTokenizer")  # transformers decides
    with monkeypatch.context() as patched:
        patched.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
        with pytest.raises(EncoderError, match=r"does not state 'padding_side'.*\(no such class\); write"):
            side(tokenizer_class="NoSuchTokenizer")
    clip = tiny_hf.write_clip(tmp_path / "clip")  # begins at the first position whatever the class says
    tiny_hf.set_json(clip / "tokenizer_config.json", tokenizer_class="NoSuchTokenizer")
    assert not read_tokenizer(clip, family=FAMILIES["clip"], context_tokens=12).pad_left


def test_padding_token_is_that_of_the_class_where_the_files_do_not_name_it(tmp_path: Path) -> None:
    folder = tiny_hf.write_clip(tmp_path)
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_texts(tiny_hf.TEXTS)
    tiny_hf.set_json(folder / "tokenizer_config.json", pad_token=None)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), expected, atol=1e-6)


def test_case_is_kept_where_the_tokenizer_keeps_it(tmp_path: Path) -> None:
    folder = tiny_hf.write_siglip(tmp_path)
    tiny_hf.set_json(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer", do_lower_case=False)
    assert read_tokenizer(folder, family=FAMILIES["siglip"], context_tokens=12).clean == "no_punctuation"
