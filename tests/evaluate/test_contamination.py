"""Contamination: references that show test images are found by hash and by embedding, and dropped."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.clips import solid
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder
from impart.evaluate.contamination import find_contamination, without_contamination
from impart.evaluate.models import EvaluatedModel, describe
from impart.refset.refset import ReferenceSet

TUNED = VanillaSettings(k=2, w_img=0.3, w_txt=0.7, tau=0.1)


def test_references_that_show_test_images_are_found(tiny: TinyEncoder) -> None:
    images = [solid("red"), solid("green"), solid("blue")]
    references = ReferenceSet.build(zip(images, ["red", "green", "blue"], strict=True), tiny)
    almost_green = solid("green").copy()
    almost_green[0, 0] = 9
    tests = tiny.encode_images([almost_green, solid("white")])
    red_hash = references.table["hash"].to_pylist()[0]
    found = find_contamination(references, tests.retrieval, [red_hash, "another"], near=0.999)
    assert (found.same.tolist(), found.near.tolist(), found.rows.tolist()) == ([0], [1], [0, 1])
    only_files = find_contamination(references, tests.retrieval, [red_hash, "another"], near=2)
    assert (only_files.same.tolist(), only_files.near.tolist()) == ([0], [])
    assert not len(find_contamination(references, tests.retrieval[:0], []).rows)


def test_blocks_find_the_rows_of_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    references = colour_set()
    tests = references.retrieval_embeddings[[2, 7]]
    whole = find_contamination(references, tests, near=0.99).rows.tolist()
    monkeypatch.setattr("impart.evaluate.contamination._BLOCK", 1)
    assert find_contamination(references, tests, near=0.99).rows.tolist() == whole == [2, 7]


def test_dropping_keeps_the_blender_and_embeds_once_per_base(tiny: TinyEncoder) -> None:
    colours = colour_set()
    models = [
        EvaluatedModel(label="tiny", encoder=tiny),
        EvaluatedModel(label="tiny+tuned", encoder=AugmentedEncoder(tiny, colours, Vanilla(TUNED))),
        EvaluatedModel(label="tiny+paper", encoder=AugmentedEncoder(tiny, colours, Vanilla(VanillaSettings()))),
    ]
    asked: list[Encoder] = []

    def images(base: Encoder) -> tuple[np.ndarray, list[str]]:
        asked.append(base)
        return base.encode_images([solid("red")]).retrieval, [""]

    plain, vanilla, paper = without_contamination(models, images, near=0.999)
    assert len(asked) == 1
    assert plain is models[0]
    for before, after in zip(models[1:], (vanilla, paper), strict=True):
        assert (after.label, after.same, after.near) == (before.label, 0, 1)
        assert "red" not in after.references.texts
        assert len(after.references) == 9
        assert after.encoder.blender == before.encoder.blender
    assert vanilla.references is paper.references
    said = describe(vanilla)["references"]
    assert (said["pairs"], said["dropped_near_duplicate"], said["dropped_same_file"]) == (9, 1, 0)
    untouched = without_contamination(models, lambda base: (np.zeros((0, 8), np.float32), []))
    assert untouched[1].encoder is models[1].encoder


def test_a_set_that_is_the_test_set_changes_no_embedding(tiny: TinyEncoder) -> None:
    whole = EvaluatedModel(label="x", encoder=AugmentedEncoder(tiny, colour_set(), Vanilla(VanillaSettings())))
    (left,) = without_contamination([whole], lambda base: (colour_set().retrieval_embeddings, []))
    assert len(left.references) == 0
    image = [np.full((4, 4, 3), 77, np.uint8)]
    np.testing.assert_allclose(
        left.encoder.encode_images(image).embeddings, tiny.encode_images(image).embeddings, atol=1e-6
    )
