"""Exports agree with their torch model; an export that does not is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="extra torch is not installed")
pytest.importorskip("transformers", reason="extra torch is not installed")
pytest.importorskip("onnxscript", reason="extra torch is not installed")

import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_hf
from impart.encoders import load_encoder
from impart.encoders.onnx import export
from impart.encoders.onnx.export import export_hf
from impart.errors import EncoderError

IMAGES = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(5)]


@pytest.mark.parametrize("kind", ["clip_quick_gelu", "clip_gelu", "siglip", "altclip"])
def test_export_agrees(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "model"
    if kind == "siglip":
        tiny_hf.write_siglip(model)
        tiny_hf.set_json(model / "tokenizer_config.json", tokenizer_class="SiglipTokenizer", padding_side="left")
    elif kind == "altclip":  # its text tower takes a mask
        tiny_hf.write_two_towers(model, kind)
    else:
        tiny_hf.write_clip(model, hidden_act=kind.removeprefix("clip_"))
    weights = load_file(model / "model.safetensors")
    weights["logit_scale"].fill_(3.25)
    if kind == "siglip":
        weights["logit_bias"].fill_(-12.5)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    lines: list[str] = []
    measured = export_hf(str(model), tmp_path / "out", report=lines.append)
    assert [result.folder for result in measured] == [tmp_path / "out", tmp_path / "out" / "int8"]
    assert lines
    original = load_encoder(f"hf:{model}", device="cpu")
    for folder, floor in ((tmp_path / "out", 0.9999), (tmp_path / "out" / "int8", 0.98)):
        exported = load_encoder(f"onnx:{folder}")
        assert exported.traits.context_tokens == original.traits.context_tokens
        assert exported.traits.logit_scale == original.traits.logit_scale == pytest.approx(np.exp(3.25))
        assert exported.traits.logit_bias == original.traits.logit_bias == (-12.5 if kind == "siglip" else 0.0)
        images = exported.encode_images(IMAGES).embeddings * original.encode_images(IMAGES).embeddings
        texts = exported.encode_texts(tiny_hf.TEXTS) * original.encode_texts(tiny_hf.TEXTS)
        assert images.sum(axis=1).min() > floor
        assert texts.sum(axis=1).min() > floor
    assert measured[0].logits < 1e-2
    for place in ("visual", "textual"):
        assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "out" / place / "model.onnx").read_bytes()
    size = (tmp_path / "out" / "textual" / "model.onnx").stat().st_size
    assert (tmp_path / "out" / "int8" / "textual" / "model.onnx").stat().st_size < size


@pytest.fixture(scope="module")
def exported_clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of a CLIP model and of its float32 export; tests must not change them."""
    folder = tmp_path_factory.mktemp("clip")
    tiny_hf.write_clip(folder / "model")
    export_hf(str(folder / "model"), folder / "out", int8=False)
    return folder / "model", folder / "out"


def test_quick_gelu_is_exported(exported_clip: tuple[Path, Path], tmp_path: Path) -> None:
    model, out = exported_clip
    quick = load_encoder(f"hf:{model}", device="cpu")
    exact = load_encoder(f"hf:{tiny_hf.write_clip(tmp_path, hidden_act='gelu')}", device="cpu")
    exported = load_encoder(f"onnx:{out}").encode_images(IMAGES).embeddings
    assert np.abs(exported - quick.encode_images(IMAGES).embeddings).max() < 1e-4
    assert np.abs(exported - exact.encode_images(IMAGES).embeddings).max() > 1e-3
    assert not (out / "int8").exists()


def test_an_export_that_does_not_agree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_hf.write_clip(tmp_path / "model")
    monkeypatch.setattr(export, "FP32", export.Bounds(cosine=1.5, logits=0.01))
    with pytest.raises(EncoderError, match="does not agree"):
        export_hf(str(tmp_path / "model"), tmp_path / "out")


def test_another_logit_scale_is_noticed(exported_clip: tuple[Path, Path], tmp_path: Path) -> None:
    model, out = exported_clip
    folder = Path(shutil.copytree(out, tmp_path / "old"))
    original = load_encoder(f"hf:{model}", device="cpu")
    tiny_hf.set_json(folder / "config.json", logit_scale=None)  # as exports of earlier versions
    old = load_encoder(f"onnx:{folder}")
    assert old.traits.logit_scale == 100.0
    measured = export.parity(original, old, folder=folder)
    assert min(measured.image_cosine, measured.text_cosine) > export.FP32.cosine
    assert measured.logits > export.FP32.logits * original.traits.logit_scale
    tiny_hf.set_json(folder / "config.json", logit_scale="high")
    with pytest.raises(EncoderError, match=r"config\.json: logit_scale is 'high'"):
        load_encoder(f"onnx:{folder}")


@pytest.mark.parametrize(("kind", "message"), [("vit", "is an image model"), ("siglip2", "is a NaFlex model")])
def test_other_kinds_are_not_exported(tmp_path: Path, kind: str, message: str) -> None:
    write = tiny_hf.write_image_model if kind == "vit" else tiny_hf.write_two_towers
    with pytest.raises(EncoderError, match=message):
        export_hf(str(write(tmp_path / "model", kind)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_large_weights_are_written_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from impart.encoders import torch_towers as backend

    tiny_hf.write_siglip(tmp_path / "model")
    monkeypatch.setattr(backend, "INLINE_BYTES", 0)
    measured = export_hf(str(tmp_path / "model"), tmp_path / "out")
    assert len(measured) == 2
    weights = tmp_path / "out" / "visual" / "model.onnx.data"
    before = load_encoder(f"onnx:{tmp_path / 'out'}").fingerprint
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert load_encoder(f"onnx:{tmp_path / 'out'}").fingerprint != before
