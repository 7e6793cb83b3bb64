"""The ONNX backend against NumPy, over the variations of published exports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart.encoders import Encoder, l2_normalise, load_encoder
from impart.encoders.onnx.encoder import MINI_FOLDER, load_mini, load_onnx
from impart.errors import ConfigError, EncoderError, EncoderNotFoundError

pytest.importorskip("onnx", reason="tiny models are written with the onnx package (extra torch)")
from helpers import tiny_onnx

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(5)]
TEXTS = ["a red square", "dog", "", "a photo of a green dog of a blue dog of a red dog"]


def colours(images: list[np.ndarray]) -> np.ndarray:
    """Compute mean colours after the normalisation of the tiny models: (B, 3)."""
    return np.stack([(image / 255.0 - 0.5) / 0.5 for image in images]).mean(axis=(1, 2)).astype(np.float32)


def text_vectors(texts: list[str], *, mask: bool) -> np.ndarray:
    """Encode texts with a plain loop: <bos> words <eos>, truncated to the context, padded unless masked."""
    rows = []
    for text in texts:
        words = [tiny_onnx.WORDS.index(word) for word in text.split()][: tiny_onnx.CONTEXT - 2]
        ids = [1, *words, 2]
        ids += [] if mask else [0] * (tiny_onnx.CONTEXT - len(ids))
        rows.append(tiny_onnx.word_vectors()[ids].sum(axis=0))
    return l2_normalise(np.stack(rows))


def test_layout_agrees_with_numpy(tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{tiny_onnx.write_layout(tmp_path)}")
    assert isinstance(encoder, Encoder)
    assert (encoder.traits.dim, encoder.traits.image_size_px, encoder.traits.context_tokens) == (4, 16, 8)
    assert not encoder.traits.own_retrieval
    result = encoder.encode_images(IMAGES)
    expected = l2_normalise(colours(IMAGES) @ tiny_onnx.image_weights()[0])
    np.testing.assert_allclose(result.embeddings, expected, atol=1e-5)
    np.testing.assert_array_equal(result.retrieval, result.embeddings)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), text_vectors(TEXTS, mask=False), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("wide", [False, True])
def test_fixed_batch_and_number_types(tmp_path: Path, batch: int, wide: bool) -> None:
    free = load_onnx(str(tiny_onnx.write_layout(tmp_path / "free")))
    folder = tiny_onnx.write_layout(tmp_path / "fixed", batch=batch, length=tiny_onnx.CONTEXT, wide=wide)
    tiny_onnx.write_image_model(folder / "visual" / "model.onnx", batch=batch)
    fixed = load_onnx(str(folder), threads=1)
    np.testing.assert_allclose(fixed.encode_images(IMAGES).embeddings, free.encode_images(IMAGES).embeddings, atol=1e-6)
    np.testing.assert_allclose(fixed.encode_texts(TEXTS), free.encode_texts(TEXTS), atol=1e-6)


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_run_in_pieces_keep_their_order(tmp_path: Path, batch: int | str, threads: int) -> None:
    encoder = load_onnx(str(tiny_onnx.write_layout(tmp_path, batch=batch)), threads=threads)
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (29, tiny_onnx.SIZE_PX, tiny_onnx.SIZE_PX, 3), dtype=np.uint8))
    one_by_one = np.concatenate([encoder.encode_images([image]).embeddings for image in images])
    for count in (1, 2, 7, 16, 29):
        together = encoder.encode_images(images[:count]).embeddings
        np.testing.assert_allclose(together, one_by_one[:count], atol=1e-6)


@pytest.mark.parametrize("length", [tiny_onnx.CONTEXT, "length"])
def test_attention_mask(tmp_path: Path, length: int | str) -> None:
    encoder = load_onnx(str(tiny_onnx.write_layout(tmp_path, mask=True, length=length, name="input_ids")))
    expected = text_vectors(TEXTS, mask=True)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-5)
    many = TEXTS * 40  # more than one batch
    np.testing.assert_allclose(encoder.encode_texts(many), np.concatenate([expected] * 40), atol=1e-5)


def test_half_precision_gives_float32(tmp_path: Path) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    full = load_onnx(str(folder)).encode_images(IMAGES).embeddings
    tiny_onnx.write_image_model(folder / "visual" / "model.onnx", half=True)
    half = load_onnx(str(folder)).encode_images(IMAGES).embeddings
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1.0, atol=1e-5)


def test_text_is_cleaned_as_the_config_says(tmp_path: Path) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    plain = load_onnx(str(folder))
    config = json.loads((folder / "config.json").read_text())
    config["text_cfg"]["tokenizer_kwargs"] = {"clean": "canonicalize"}
    (folder / "config.json").write_text(json.dumps(config))
    clean = load_onnx(str(folder))
    np.testing.assert_array_equal(clean.encode_texts(["A  Red, dog!"]), plain.encode_texts(["a red dog"]))
    assert np.abs(plain.encode_texts(["A Red dog!"]) - plain.encode_texts(["a red dog"])).max() > 0.1
    assert clean.fingerprint != plain.fingerprint


def test_mini_has_its_own_retrieval_embeddings(tmp_path: Path) -> None:
    encoder = load_mini(str(tiny_onnx.write_mini(tmp_path)))
    assert encoder.traits.own_retrieval
    assert encoder.traits.retrieval_dim == tiny_onnx.RETRIEVAL_DIM
    result = encoder.encode_images(IMAGES)
    expected = l2_normalise(colours(IMAGES) @ tiny_onnx.image_weights()[1])
    np.testing.assert_allclose(result.retrieval, expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), text_vectors(TEXTS, mask=True), atol=1e-5)


def test_small_images_are_encoded_with_their_own_weights(tmp_path: Path) -> None:
    encoder = load_mini(str(tiny_onnx.write_mini(tmp_path, small={"up_to_px": 10, "size": 8})))
    sides = [(16, 16), (10, 40), (11, 11), (3, 9), (40, 10), (12, 90)]
    grey = [RNG.integers(0, 256, dtype=np.uint8) for _ in sides]
    images = [np.full((*side, 3), level, np.uint8) for side, level in zip(sides, grey, strict=True)]
    images[4] = Image.fromarray(images[4])  # a PIL image among arrays
    seen = colours([np.full((2, 2, 3), level, np.uint8) for level in grey])
    seen[[1, 3, 4]] += 16 - 8  # the tiny model adds this for an 8 px input
    embedding, retrieval = (l2_normalise(seen @ weights) for weights in tiny_onnx.image_weights())
    found = encoder.encode_images(images)
    np.testing.assert_allclose(found.embeddings, embedding, atol=1e-5)
    np.testing.assert_allclose(found.retrieval, retrieval, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(images[3:5]).embeddings, embedding[3:5], atol=1e-5)
    other = load_mini(str(tiny_onnx.write_mini(tmp_path, small={"up_to_px": 9, "size": 8})))
    assert other.fingerprint != encoder.fingerprint


def test_no_images_and_no_texts(tmp_path: Path) -> None:
    encoder = load_mini(str(tiny_onnx.write_mini(tmp_path)))
    assert encoder.encode_images([]).embeddings.shape == (0, tiny_onnx.DIM)
    assert encoder.encode_images([]).retrieval.shape == (0, tiny_onnx.RETRIEVAL_DIM)
    assert encoder.encode_texts([]).shape == (0, tiny_onnx.DIM)


def test_a_tower_is_opened_when_it_is_first_used(tmp_path: Path) -> None:
    folder = tiny_onnx.write_mini(tmp_path)
    (folder / "image.onnx").write_bytes(b"not a model")
    encoder = load_mini(str(folder))
    assert encoder.encode_texts(["a dog"]).shape == (1, tiny_onnx.DIM)  # the broken image tower is never opened
    with pytest.raises(EncoderError, match=r"image\.onnx cannot be opened"):
        encoder.encode_images(IMAGES)


def test_fingerprint_covers_weights_tokenizer_and_preprocessing(tmp_path: Path) -> None:
    def fingerprint() -> str:
        return load_mini(str(tmp_path)).fingerprint

    tiny_onnx.write_mini(tmp_path)
    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    model = json.loads((tmp_path / "model.json").read_text())
    model["preprocess"]["interpolation"] = "bilinear"
    (tmp_path / "model.json").write_text(json.dumps(model))
    seen.append(fingerprint())
    for name in ("image.onnx", "text.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
        seen.append(fingerprint())
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("visual/model.onnx", None, r"visual/model\.onnx is missing"),
        ("textual/model.onnx", None, r"textual/model\.onnx is missing"),
        ("config.json", "{", r"config\.json is not JSON"),
        ("config.json", None, r"config\.json cannot be read"),
        ("config.json", "{}", r"no 'embed_dim'"),
        ("visual/preprocess_cfg.json", '{"size": 16}', r"no 'mean'"),
        ("textual/tokenizer.json", None, r"tokenizer\.json is missing"),
        ("textual/tokenizer.json", "{}", r"tokenizer\.json is not a tokenizer"),
        ("textual/tokenizer_config.json", None, "does not name a padding token"),
        ("textual/model.onnx", "scrambled", r"textual/model\.onnx cannot be opened"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(EncoderError, match=message):
        load_onnx(str(folder)).encode_texts(["a dog"])


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "embed_dim": 512}))
    with pytest.raises(EncoderError, match="width 512"):
        load_onnx(str(folder)).encode_texts(["a dog"])
    cfg = {**tiny_onnx.preprocess_cfg(), "size": 32}
    (folder / "visual" / "preprocess_cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(EncoderError, match="32 px"):
        load_onnx(str(folder)).encode_images(IMAGES)


def test_swapped_towers_and_unknown_options_are_named(tmp_path: Path) -> None:
    folder = tiny_onnx.write_layout(tmp_path)
    with pytest.raises(ConfigError, match="no option 'dtype'"):
        load_onnx(str(folder), dtype="float16")
    (folder / "textual" / "model.onnx").write_bytes((folder / "visual" / "model.onnx").read_bytes())
    with pytest.raises(EncoderError, match="the other tower"):
        load_onnx(str(folder)).encode_texts(["a dog"])


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(EncoderNotFoundError, match="no folder"):
        load_encoder("onnx:/no/such/folder")
    with pytest.raises(EncoderNotFoundError, match="needs a folder"):
        load_encoder("onnx")


def test_local_models_need_no_hub_library(tmp_path: Path) -> None:
    tiny_onnx.write_layout(tmp_path)
    code = (
        "import sys; from impart.encoders import load_encoder\n"
        f"load_encoder({f'onnx:{tmp_path}'!r}).encode_texts(['a dog'])\n"
        "assert not {'huggingface_hub', 'torch', 'transformers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not (MINI_FOLDER / "model.json").is_file(), reason="the bundled model is not built yet")
def test_bundled_model_separates_colours() -> None:
    encoder = load_encoder("mini")
    red, blue = (np.full((64, 64, 3), colour, dtype=np.uint8) for colour in ((220, 20, 20), (20, 20, 220)))
    result = encoder.encode_images([red, blue])
    assert result.embeddings.shape == (2, encoder.traits.dim)
    assert result.retrieval.shape == (2, encoder.traits.retrieval_dim)
    np.testing.assert_allclose(np.linalg.norm(result.retrieval, axis=1), 1.0, atol=1e-4)
    assert float(result.embeddings[0] @ result.embeddings[1]) < 0.999
    texts = encoder.encode_texts(["a dog", "a red square"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, atol=1e-4)
