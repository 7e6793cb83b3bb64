"""A pair of encoders: the vectors of each, and a retrieval encoder that has changed."""

from __future__ import annotations

import numpy as np
import pytest

import impart.encoders.paired as paired
from helpers.tiny_encoder import RETRIEVAL_DIM, TinyEncoder
from impart.encoders.base import l2_normalise, load_encoder
from impart.encoders.paired import PairedEncoder, load_paired, write_paired
from impart.errors import EncoderError, EncoderMismatchError


def _images():
    return [np.full((8, 8, 3), value, dtype=np.uint8) for value in (10, 90, 200)]


def test_embeddings_are_from_the_first_and_retrieval_embeddings_from_the_second():
    base, other = TinyEncoder(1), TinyEncoder(2)
    encoder = PairedEncoder(base, other, encoder_id="paired:x")
    made = encoder.encode_images(_images())
    assert np.array_equal(made.embeddings, base.encode_images(_images()).embeddings)
    assert np.array_equal(made.retrieval, other.encode_images(_images()).retrieval)
    assert np.array_equal(encoder.encode_texts(["red"]), base.encode_texts(["red"]))
    assert encoder.traits.retrieval_dim == RETRIEVAL_DIM
    assert encoder.traits.own_retrieval
    assert np.allclose(l2_normalise(made.retrieval), made.retrieval, atol=1e-6)
    assert len({encoder.fingerprint, base.fingerprint, other.fingerprint}) == 3


def test_a_changed_retrieval_encoder_is_refused(tmp_path, monkeypatch):
    found = {"hf": TinyEncoder(1), "tiny": TinyEncoder(2)}
    monkeypatch.setattr(paired, "load_encoder", lambda model_id, **_: found[model_id.partition(":")[0]])
    encoder_id = write_paired(tmp_path, found["tiny"])
    encoder = load_paired(encoder_id.removeprefix("paired:"))
    assert encoder.traits.id == encoder_id
    monkeypatch.chdir(tmp_path.parent)
    assert load_paired(tmp_path.name).traits.id == encoder_id  # the id holds in every working folder
    found["tiny"] = TinyEncoder(3)
    with pytest.raises(EncoderMismatchError, match="tiny:2"):
        load_paired(str(tmp_path))
    (tmp_path / "retrieval.json").write_text("{}")
    with pytest.raises(EncoderError, match="does not name a retrieval encoder"):
        load_paired(str(tmp_path))


def test_a_pair_of_any_two_encoders(tmp_path, monkeypatch):
    found = {"tiny": TinyEncoder(0), "tiny:2": TinyEncoder(2)}
    monkeypatch.setattr(paired, "load_encoder", lambda model_id, **_: found[model_id])
    folder = tmp_path / "pair"
    folder.mkdir()
    encoder = load_paired(write_paired(folder, found["tiny:2"], base=found["tiny"]).removeprefix("paired:"))
    made = encoder.encode_images(_images())
    assert np.array_equal(made.embeddings, found["tiny"].encode_images(_images()).embeddings)
    assert np.array_equal(made.retrieval, found["tiny:2"].encode_images(_images()).retrieval)
    found["tiny"] = TinyEncoder(3)
    with pytest.raises(EncoderMismatchError, match="made with encoder 'tiny'"):
        load_paired(str(folder))


def test_an_image_model_finds_the_neighbours_of_a_clip(tmp_path):
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="extra torch is not installed")
    from typer.testing import CliRunner

    from helpers import tiny_hf
    from impart.cli.models import app

    clip, dino = (
        f"hf:{tiny_hf.write_clip(tmp_path / 'clip')}",
        f"hf:{tiny_hf.write_image_model(tmp_path / 'd', 'dinov2')}",
    )
    result = CliRunner().invoke(app, ["pair", clip, dino, str(tmp_path / "pair")])
    assert result.exit_code == 0, result.output
    encoder = load_encoder(result.stdout.strip(), threads=1)
    made = encoder.encode_images(_images())
    assert np.array_equal(made.embeddings, load_encoder(clip).encode_images(_images()).embeddings)
    assert np.array_equal(made.retrieval, load_encoder(dino).encode_images(_images()).embeddings)
    assert encoder.encode_texts(["a dog"]).shape == (1, tiny_hf.DIM)
    assert (encoder.traits.own_retrieval, encoder.traits.retrieval_dim) == (True, tiny_hf.DIM)
    swapped = CliRunner().invoke(app, ["pair", dino, clip, str(tmp_path / "swapped")])
    assert isinstance(swapped.exception, EncoderError)
    assert not (tmp_path / "swapped").exists()
