"""Each family of models against transformers' own processor, tokenizer and model, on small random weights."""

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

from helpers import tiny_hf
from impart.encoders import load_encoder
from impart.encoders.hf.families import FAMILIES
from impart.errors import EncoderError

RNG = np.random.default_rng(0)
IMAGES = [
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).resize((width * 3, height * 3))
    for height, width in ((20, 31), (48, 17), (32, 32), (9, 60))
]
TEXTS = ["a photo of a dog", "Two RED  squares", "", "word " * 40, "the dog"]


def normalised(output: object) -> np.ndarray:
    features = getattr(output, "pooler_output", output)
    return torch.nn.functional.normalize(features, dim=-1).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", tiny_hf.TWO_TOWERS)
def test_two_towers_agree_with_transformers(tmp_path: Path, kind: str) -> None:
    folder = tiny_hf.write_two_towers(tmp_path, kind)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    assert (encoder.traits.dim, encoder.traits.context_tokens) == (tiny_hf.DIM, 16)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    whole = FAMILIES[kind].pad_to_context
    tokens = tokenizer(
        TEXTS, padding="max_length" if whole else True, truncation=True, max_length=16, return_tensors="pt"
    )
    masks = {} if whole else {"attention_mask": tokens["attention_mask"]}
    with torch.inference_mode():
        images = model.get_image_features(**processor(IMAGES, return_tensors="pt"))
        expected = model.get_text_features(input_ids=tokens["input_ids"], **masks)
    np.testing.assert_allclose(encoder.encode_images(IMAGES).embeddings, normalised(images), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), normalised(expected), atol=1e-5)
    assert np.ptp(encoder.encode_texts(TEXTS), axis=0).max() > 1e-2
    scale = 1 / model.temperature if kind == "align" else model.logit_scale.exp()
    assert encoder.traits.logit_scale == pytest.approx(scale.item())


@pytest.mark.parametrize("kind", tiny_hf.IMAGE_MODELS)
def test_image_models_agree_with_transformers(tmp_path: Path, kind: str) -> None:
    folder = tiny_hf.write_image_model(tmp_path, kind)
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if kind == "dinov3_vit":  # its processor needs torchvision; ours resizes with PIL
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        settings = json.loads((folder / "preprocessor_config.json").read_text())
        processor = ViTImageProcessorPil(**{key: settings[key] for key in ("size", "image_mean", "image_std")})
    else:
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        output = model(pixel_values=processor(IMAGES, return_tensors="pt")["pixel_values"])
    # ViT's pooler is not a part of self-supervised models: the class token is the embedding.
    expected = output.last_hidden_state[:, 0] if kind == "vit" else output.pooler_output
    found = encoder.encode_images(IMAGES)
    np.testing.assert_allclose(found.retrieval, normalised(expected), atol=1e-5)
    assert encoder.traits.retrieval_dim == tiny_hf.DIM
    with pytest.raises(EncoderError, match="no text tower"):
        encoder.encode_texts(["a dog"])


def test_heads_of_other_tasks_are_left_out(tmp_path: Path) -> None:
    plain = load_encoder(f"hf:{tiny_hf.write_image_model(tmp_path / 'plain', 'vit')}", device="cpu")
    backbone = transformers.ViTModel.from_pretrained(tmp_path / "plain", add_pooling_layer=False)
    classifier = transformers.ViTForImageClassification(backbone.config)
    classifier.vit.load_state_dict(backbone.state_dict())
    folder = tiny_hf.write_image_model(tmp_path / "classifier", "vit")
    classifier.save_pretrained(folder)  # with a head, without a pooler
    encoder = load_encoder(f"hf:{folder}", device="cpu")
    np.testing.assert_allclose(
        encoder.encode_images(IMAGES).embeddings, plain.encode_images(IMAGES).embeddings, atol=1e-6
    )


def test_clipseg_is_loaded_without_its_decoder(tmp_path: Path) -> None:
    folder = tiny_hf.write_two_towers(tmp_path, "clipseg")
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_texts(TEXTS)
    config = transformers.CLIPSegConfig.from_pretrained(folder)
    config.extract_layers, config.reduce_dim, config.decoder_num_attention_heads = [0, 1], 8, 2
    whole = transformers.CLIPSegForImageSegmentation(config)
    whole.clip.load_state_dict(transformers.CLIPSegModel.from_pretrained(folder).state_dict())
    whole.save_pretrained(folder)
    np.testing.assert_allclose(load_encoder(f"hf:{folder}", device="cpu").encode_texts(TEXTS), expected, atol=1e-6)


def test_a_pooler_that_no_embedding_uses_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_hf.write_two_towers(tmp_path, "chinese_clip")
    expected = load_encoder(f"hf:{folder}", device="cpu").encode_texts(TEXTS)
    weights = load_file(folder / "model.safetensors")
    weights["text_model.pooler.dense.weight"] = torch.ones(tiny_hf.DIM, tiny_hf.DIM)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    np.testing.assert_allclose(load_encoder(f"hf:{folder}", device="cpu").encode_texts(TEXTS), expected, atol=1e-6)
    assert "UNEXPECTED" not in capfd.readouterr().err


def test_a_text_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    encoder = load_encoder(f"hf:{tiny_hf.write_two_towers(tmp_path, 'altclip')}", device="cpu")
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), alone, atol=1e-5)
