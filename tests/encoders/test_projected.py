"""Projected embeddings, unchanged retrieval embeddings, and an encoder that has changed."""

from __future__ import annotations

import numpy as np
import pytest

import impart.encoders.projected as projected
from helpers.tiny_encoder import DIM, TinyEncoder
from impart.encoders.base import l2_normalise
from impart.encoders.projected import load_projected, write_projected
from impart.errors import EncoderError, EncoderMismatchError


def _images():
    return [np.full((8, 8, 3), value, dtype=np.uint8) for value in (10, 90, 200)]


@pytest.fixture
def matrices():
    rng = np.random.default_rng(0)
    return [np.eye(DIM, dtype=np.float32) + 0.3 * rng.standard_normal((DIM, DIM)).astype(np.float32) for _ in range(2)]


def test_embeddings_are_projected_and_retrieval_embeddings_unchanged(tmp_path, matrices):
    base = TinyEncoder(1)
    encoder = write_projected(tmp_path, base, *matrices)
    plain, made = base.encode_images(_images()), encoder.encode_images(_images())
    image, text = matrices
    np.testing.assert_allclose(made.embeddings, l2_normalise(plain.embeddings @ image.T), atol=1e-6)
    np.testing.assert_array_equal(made.retrieval, plain.retrieval)
    np.testing.assert_allclose(
        encoder.encode_texts(["red"]), l2_normalise(base.encode_texts(["red"]) @ text.T), atol=1e-6
    )
    assert encoder.traits.own_retrieval
    assert encoder.fingerprint not in (base.fingerprint, write_projected(tmp_path, base, text, image).fingerprint)


def test_the_folder_loads_again_and_a_changed_encoder_is_refused(tmp_path, monkeypatch, matrices):
    found = {"tiny": TinyEncoder(1)}
    monkeypatch.setattr(projected, "load_encoder", lambda model_id, **_: found[model_id.partition(":")[0]])
    written = write_projected(tmp_path, found["tiny"], *matrices)
    loaded = load_projected(str(tmp_path))
    assert (loaded.traits.id, loaded.fingerprint) == (written.traits.id, written.fingerprint)
    found["tiny"] = TinyEncoder(3)
    with pytest.raises(EncoderMismatchError, match="tiny:1"):
        load_projected(str(tmp_path))


@pytest.mark.parametrize("harm", ["named", "cut", "shape"])
def test_a_damaged_folder_is_named(tmp_path, monkeypatch, matrices, harm):
    monkeypatch.setattr(projected, "load_encoder", lambda *_, **__: TinyEncoder(1))
    write_projected(tmp_path, TinyEncoder(1), *matrices)
    if harm == "named":
        (tmp_path / "projection.json").write_text("{}")
    elif harm == "cut":
        (tmp_path / "projection.npz").write_bytes(b"PK")
    else:
        np.savez(tmp_path / "projection.npz", image=np.eye(3), text=np.eye(3))
    with pytest.raises(EncoderError, match=str(tmp_path.name)):
        load_projected(str(tmp_path))
