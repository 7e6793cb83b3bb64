"""CLIP and SigLIP with the preprocessing and tokenizers of IMPART, against transformers' processors and models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="extra torch is not installed")
pytest.importorskip("transformers", reason="extra torch is not installed")

import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from helpers import tiny_hf
from impart.encoders import Encoder, load_encoder
from impart.errors import ConfigError, EncoderError, EncoderNotFoundError

RNG = np.random.default_rng(0)
IMAGES = [
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).resize((width * 3, height * 3))
    for height, width in ((20, 31), (48, 17), (32, 32))
]


def their_vectors(folder: Path, *, padding: str | bool, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Encode IMAGES and TEXTS with transformers alone: L2-normalised vectors."""
    config = transformers.AutoConfig.from_pretrained(folder)
    processor_class = CLIPImageProcessorPil if config.model_type == "clip" else SiglipImageProcessorPil
    model_class = transformers.CLIPModel if config.model_type == "clip" else transformers.SiglipModel
    processor = processor_class.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = model_class.from_pretrained(folder).eval()
    with torch.inference_mode():
        pixels = torch.tensor(np.stack(processor(IMAGES, return_tensors="np")["pixel_values"]))
        images = model.get_image_features(pixel_values=pixels)
        tokens = tokenizer(tiny_hf.TEXTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
        masks = {} if config.model_type == "siglip" else {"attention_mask": tokens["attention_mask"]}
        texts = model.get_text_features(input_ids=tokens["input_ids"], **masks)
    return tuple(  # type: ignore[return-value]
        torch.nn.functional.normalize(getattr(each, "pooler_output", each), dim=-1).numpy() for each in (images, texts)
    )


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_clip_agrees_with_transformers(tmp_path: Path, hidden_act: str) -> None:
    folder = tiny_hf.write_clip(tmp_path, hidden_act=hidden_act)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    assert isinstance(encoder, Encoder)
    assert (encoder.traits.dim, encoder.traits.image_size_px, encoder.traits.context_tokens) == (24, 32, 16)
    images, texts = their_vectors(folder, padding=True, length=16)
    np.testing.assert_allclose(encoder.encode_images(IMAGES).embeddings, images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), texts, atol=1e-5)


def test_activation_comes_from_the_config(tmp_path: Path) -> None:
    quick = load_encoder(f"hf:{tiny_hf.write_clip(tmp_path / 'quick', hidden_act='quick_gelu')}", device="cpu")
    exact = load_encoder(f"hf:{tiny_hf.write_clip(tmp_path / 'exact', hidden_act='gelu')}", device="cpu")
    for ours, theirs in (
        (quick.encode_images(IMAGES).embeddings, exact.encode_images(IMAGES).embeddings),
        (quick.encode_texts(tiny_hf.TEXTS), exact.encode_texts(tiny_hf.TEXTS)),
    ):
        # Equal weights with another activation are another model: the difference is 100 times the tolerance of parity.
        assert np.abs(ours - theirs).max() > 1e-3
    assert quick.fingerprint != exact.fingerprint


@pytest.mark.parametrize("side", ["right", "left"])
def test_siglip_agrees_with_transformers(tmp_path: Path, side: str) -> None:
    folder = tiny_hf.write_siglip(tmp_path)
    tiny_hf.set_json(folder / "tokenizer_config.json", padding_side=side)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    images, texts = their_vectors(folder, padding="max_length", length=12)
    np.testing.assert_allclose(encoder.encode_images(IMAGES).embeddings, images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), texts, atol=1e-5)


def test_siglip_text_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    encoder = load_encoder(f"hf:{tiny_hf.write_siglip(tmp_path)}", device="cpu")
    alone = np.concatenate([encoder.encode_texts([text]) for text in tiny_hf.TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "text", "same"),
    [
        ("SiglipTokenizer", "Two RED squares, next to a dog!", "two red squares next to a dog"),
        ("Siglip2Tokenizer", "Two RED squares", "two red squares"),
        ("GemmaTokenizerFast", "Two RED squares", "two red squares"),
    ],
)
def test_siglip_text_is_cleaned_as_its_tokenizer_class_does(tmp_path: Path, kind: str, text: str, same: str) -> None:
    folder = tiny_hf.write_siglip(tmp_path)
    as_is = load_encoder(f"hf:{folder}", device="cpu")
    assert np.abs(as_is.encode_texts([text]) - as_is.encode_texts([same])).max() > 1e-3
    tiny_hf.set_json(folder / "tokenizer_config.json", tokenizer_class=kind)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    np.testing.assert_allclose(encoder.encode_texts([text]), encoder.encode_texts([same]), atol=1e-6)
    assert encoder.fingerprint != as_is.fingerprint


def test_clip_without_tokenizer_json(tmp_path: Path) -> None:
    folder = tiny_hf.write_clip(tmp_path)
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_texts(tiny_hf.TEXTS)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]))
    (folder / "tokenizer.json").unlink()
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), expected, atol=1e-6)


def test_half_precision(tmp_path: Path) -> None:
    folder = tiny_hf.write_clip(tmp_path)
    full = load_encoder(f"hf:{folder}", device="cpu")
    half = load_encoder(f"hf:{folder}", device="cpu", dtype="bfloat16")
    ours, theirs = half.encode_images(IMAGES).embeddings, full.encode_images(IMAGES).embeddings
    assert ours.dtype == np.float32
    assert (ours * theirs).sum(axis=1).min() > 0.995
    assert half.fingerprint != full.fingerprint
    with pytest.raises(ConfigError, match="float8"):
        load_encoder(f"hf:{folder}", dtype="float8")
    with pytest.raises(ConfigError, match="quantum"):
        load_encoder(f"hf:{folder}", device="quantum")


def test_missing_preprocessing_is_refused(tmp_path: Path) -> None:
    folder = tiny_hf.write_clip(tmp_path)
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_images(IMAGES).embeddings
    path = folder / "preprocessor_config.json"
    tiny_hf.set_json(path, image_mean=None, image_std=None)  # those of the class
    found = load_encoder(f"hf:{folder}", device="cpu").encode_images(IMAGES).embeddings
    np.testing.assert_allclose(found, expected, atol=1e-6)
    tiny_hf.set_json(path, image_processor_type="NoSuchProcessor")
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json: .*image_mean"):
        load_encoder(f"hf:{folder}")
    path.unlink()
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json is missing"):
        load_encoder(f"hf:{folder}")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_hf.write_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"visual_projection\.weight"):
        load_encoder(f"hf:{folder}")


def test_weights_that_the_model_does_not_use_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_hf.write_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    buffers = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    save_file(weights | buffers, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(f"hf:{folder}", device="cpu").traits.dim == 24
    added = {"text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)}
    save_file(weights | added, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"1 weights do not belong .*lora_A.*merge an adapter"):
        load_encoder(f"hf:{folder}")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"vision_model\.encoder\.layers\.1"):
        load_encoder(f"hf:{folder}")


def test_a_clip_without_logit_scale_loads(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_hf.write_clip(tmp_path)
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_texts(tiny_hf.TEXTS)
    weights = load_file(folder / "model.safetensors")
    del weights["logit_scale"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    np.testing.assert_allclose(encoder.encode_texts(tiny_hf.TEXTS), expected, atol=1e-6)
    assert encoder.traits.logit_scale == 100.0


def test_other_models_are_refused(tmp_path: Path) -> None:
    folder = tiny_hf.write_clip(tmp_path)
    tiny_hf.set_json(folder / "config.json", model_type="bert")
    with pytest.raises(EncoderError, match=r"'bert' is unknown: use clip, siglip, .*open_clip:"):
        load_encoder(f"hf:{folder}")
    with pytest.raises(EncoderNotFoundError, match="no folder"):
        load_encoder("hf:/no/such/folder")
