"""Models of open_clip with the preprocessing of IMPART, against open_clip; skipped where it is not installed."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart.encoders import load_encoder
from impart.errors import EncoderError, EncoderNotFoundError, MissingExtraError

pytest.importorskip("torch", reason="extra torch is not installed")
import torch

try:
    import open_clip
except (ImportError, RuntimeError) as error:
    open_clip = None
    REASON = f"open_clip cannot be imported: {error}"
else:
    REASON = ""
needs_open_clip = pytest.mark.skipif(open_clip is None, reason=REASON)

TEXTS = ["a photo of a dog", "Two RED squares!", "", "word " * 100]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights of a small random model with the name `tiny-vit`."""
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (tmp_path / "tiny-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-vit.json")
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("tiny-vit").state_dict(), path)
    return path


@needs_open_clip
def test_agrees_with_open_clip(checkpoint: Path) -> None:
    encoder = load_encoder(f"open_clip:tiny-vit/{checkpoint}", device="cpu")
    assert (encoder.traits.dim, encoder.traits.image_size_px, encoder.traits.context_tokens) == (16, 32, 77)
    model, _, transform = open_clip.create_model_and_transforms("tiny-vit", pretrained=str(checkpoint))
    model.eval()
    rng = np.random.default_rng(0)
    sizes = ((20, 31), (48, 17), (32, 35))
    samples = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    with torch.inference_mode():
        images = model.encode_image(torch.stack([transform(sample) for sample in samples]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer("tiny-vit")(TEXTS), normalize=True)
    np.testing.assert_allclose(encoder.encode_images(samples).embeddings, images.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts.numpy(), atol=1e-5)
    other = load_encoder(f"open_clip:tiny-vit/{checkpoint}", device="cpu", dtype="bfloat16")
    assert encoder.fingerprint != other.fingerprint


@needs_open_clip
def test_activation_that_does_not_match_the_weights(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = open_clip.create_model

    def mismatched(*args: object, **options: object) -> object:
        warnings.warn("QuickGELU mismatch between final model config and tag.", UserWarning, stacklevel=1)
        return create(*args, **options)

    monkeypatch.setattr(open_clip, "create_model", mismatched)
    with pytest.raises(EncoderError, match="silently wrong"):
        load_encoder(f"open_clip:tiny-vit/{checkpoint}")


@needs_open_clip
def test_unknown_models_are_named() -> None:
    with pytest.raises(EncoderError, match="no-such-model"):
        load_encoder("open_clip:no-such-model/openai")
    with pytest.raises(EncoderNotFoundError, match="does not name weights"):
        load_encoder("open_clip:ViT-B-32")


def test_without_open_clip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"impart-clip\[open-clip\]"):
        load_encoder("open_clip:ViT-B-32/openai")
