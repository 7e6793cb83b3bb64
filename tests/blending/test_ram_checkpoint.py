"""Checkpoints of a RAM: written, moved, opened, refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import solid
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_onnx import write_layout
from helpers.tiny_ram import SETTINGS, onnx_colours
from impart.blending.encoder import AugmentedEncoder
from impart.blending.ram_checkpoint import is_checkpoint, open_checkpoint, open_encoder, open_ram, write_checkpoint
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.errors import EncoderError, EncoderMismatchError, EncoderNotFoundError

IMAGES = [solid(name) for name in ("red", "orange", "cyan", "black")]


def test_a_checkpoint_is_an_encoder_wherever_it_is(trained_ram: Path, checkpoint: Path) -> None:
    here, there = open_checkpoint(trained_ram), open_checkpoint(checkpoint, threads=1)
    assert isinstance(here, Encoder)
    assert here.fingerprint == there.fingerprint
    assert there.base.traits.id == f"onnx:{checkpoint / 'encoder'}"  # a base encoder in the folder is moved with it
    one, two = here.encode_images(IMAGES), there.encode_images(IMAGES)
    np.testing.assert_array_equal(one.embeddings, two.embeddings)
    np.testing.assert_allclose(np.linalg.norm(one.embeddings, axis=1), 1, atol=1e-5)
    assert np.abs(one.embeddings - here.base.encode_images(IMAGES).embeddings).max() > 0.05
    assert isinstance(open_encoder(str(checkpoint)), AugmentedEncoder)
    assert here.blender.settings == SETTINGS
    assert [len(here.references), here.references.texts[0]] == [3, "red"]


def test_another_reference_set_may_be_given(checkpoint: Path) -> None:
    own = open_checkpoint(checkpoint)
    other = open_checkpoint(checkpoint, references=onnx_colours(own.base, ("green", "blue")))
    assert own.fingerprint != other.fingerprint
    blends = [encoder.blend(own.base.encode_images(IMAGES)) for encoder in (own, other)]
    assert np.abs(blends[0].added - blends[1].added).max() > 0.01


def test_another_encoder_is_refused_with_both_names(checkpoint: Path) -> None:
    with pytest.raises(EncoderMismatchError, match=r"trained with encoder 'onnx:.*not with 'tiny'.*use that encoder"):
        open_checkpoint(checkpoint, base=TinyEncoder())
    write_layout(checkpoint / "encoder", length=7)  # the model was replaced
    with pytest.raises(EncoderMismatchError, match=r"trained with encoder .* is another one now .*train the RAM again"):
        open_checkpoint(checkpoint)


def test_references_of_another_encoder_are_refused(checkpoint: Path) -> None:
    with pytest.raises(EncoderMismatchError, match="build the set again"):
        open_checkpoint(checkpoint, references=onnx_colours(TinyEncoder()))


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("{", EncoderError, "manifest.json is damaged"),
        ("[]", EncoderNotFoundError, "is not the folder of a trained RAM"),
        ('{"kind": "video-index"}', EncoderNotFoundError, "is not the folder of a trained RAM"),
        ('{"kind": "ram", "schema": 9}', EncoderError, "has schema 9, this impart reads 1: update impart"),
        ('{"kind": "ram", "schema": 1}', EncoderError, "manifest.json lacks encoder_id"),
        (None, EncoderNotFoundError, "has no trained RAM: 'impart train' writes one"),
    ],
)
def test_damaged_manifests(checkpoint: Path, content: str | None, kind: type[Exception], message: str) -> None:
    manifest = checkpoint / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    assert is_checkpoint(checkpoint)
    with pytest.raises(kind, match=message):
        open_checkpoint(checkpoint)


def test_settings_that_cannot_work_are_damage(checkpoint: Path) -> None:
    path = checkpoint / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"settings": values["settings"] | {"form": "new"}}))
    with pytest.raises(EncoderError, match=r"damaged .*ram\.form is 'new'"):
        open_ram(checkpoint)


def test_a_graph_with_another_digest_is_refused(checkpoint: Path) -> None:
    graph = checkpoint / "ram.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(EncoderError, match=r"ram\.onnx is not the file that .*manifest\.json names"):
        open_ram(checkpoint)
    graph.unlink()
    with pytest.raises(EncoderError, match=r"cannot read .*ram\.onnx"):
        open_ram(checkpoint)


def test_a_killed_write_leaves_no_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("impart.blending.ram")

    def export_ram(ram: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "export_ram", export_ram)
    encoder = load_encoder(f"onnx:{checkpoint / 'encoder'}")
    ram = module.build_ram(SETTINGS, dim=4, retrieval_dim=4)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(checkpoint, ram, settings=SETTINGS, base=encoder, references=onnx_colours(encoder))
    with pytest.raises(EncoderNotFoundError, match="has no trained RAM"):
        open_checkpoint(checkpoint)


def test_model_ids_are_not_checkpoints(tmp_path: Path) -> None:
    assert not is_checkpoint("mini")
    assert not is_checkpoint(tmp_path)


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "encoder/../../x"])
def test_a_manifest_names_no_encoder_outside_the_checkpoint(checkpoint: Path, place: str) -> None:
    path = checkpoint / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encoder_folder": place}))
    with pytest.raises(EncoderError, match=r"manifest\.json.*outside the checkpoint"):
        open_checkpoint(checkpoint)


def test_a_folder_is_not_the_id_of_a_model(checkpoint: Path) -> None:
    with pytest.raises(EncoderNotFoundError, match=r"in Python by .*\.open_checkpoint$"):
        load_encoder(str(checkpoint))
    assert open_checkpoint(checkpoint).traits.dim == 4
