"""Contamination: references that show test images are found by hash and by embedding, and dropped."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw

from helpers.clips import solid
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, EncoderTraits, ImageEmbeddings, ImageInput, l2_normalise
from impart.evaluate.contamination import ImagesUnderTest, find_contamination, without_contamination
from impart.evaluate.models import EvaluatedModel, describe
from impart.images import load_image
from impart.refset.refset import ReferenceSet
from impart.retrieval.near_duplicates import CopyBounds, perceptual_hash

TUNED = VanillaSettings(k=2, w_img=0.3, w_txt=0.7, tau=0.1)


def test_references_that_show_test_images_are_found(tiny: TinyEncoder) -> None:
    images = [solid("red"), solid("green"), solid("blue")]
    references = ReferenceSet.build(zip(images, ["red", "green", "blue"], strict=True), tiny)
    almost_green = solid("green").copy()
    almost_green[0, 0] = 9
    tests = tiny.encode_images([almost_green, solid("white")])
    red_hash = references.table["hash"].to_pylist()[0]
    shown = ImagesUnderTest(retrieval=tests.retrieval, hashes=[red_hash, "another"])
    found = find_contamination(references, shown, near=0.999)
    assert (found.same.tolist(), found.near.tolist(), found.rows.tolist()) == ([0], [1], [0, 1])
    only_files = find_contamination(references, shown, near=2)
    assert (only_files.same.tolist(), only_files.near.tolist()) == ([0], [])
    assert not len(find_contamination(references, ImagesUnderTest(retrieval=tests.retrieval[:0])).rows)


def test_blocks_find_the_rows_of_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    references = colour_set()
    tests = references.retrieval_embeddings[[2, 7]]
    shown = ImagesUnderTest(retrieval=tests)
    whole = find_contamination(references, shown, near=0.99).rows.tolist()
    monkeypatch.setattr("impart.evaluate.contamination._BLOCK", 1)
    assert find_contamination(references, shown, near=0.99).rows.tolist() == whole == [2, 7]


def test_dropping_keeps_the_blender_and_embeds_once_per_base(tiny: TinyEncoder) -> None:
    colours = colour_set()
    models = [
        EvaluatedModel(label="tiny", encoder=tiny),
        EvaluatedModel(label="tiny+tuned", encoder=AugmentedEncoder(tiny, colours, Vanilla(TUNED))),
        EvaluatedModel(label="tiny+paper", encoder=AugmentedEncoder(tiny, colours, Vanilla(VanillaSettings()))),
    ]
    asked: list[Encoder] = []

    def images(base: Encoder) -> ImagesUnderTest:
        asked.append(base)
        return ImagesUnderTest(retrieval=base.encode_images([solid("red")]).retrieval, hashes=[""])

    plain, vanilla, paper = without_contamination(models, images, near=0.999)
    assert len(asked) == 1
    assert plain is models[0]
    for before, after in zip(models[1:], (vanilla, paper), strict=True):
        assert (after.label, after.same, after.alike, after.near) == (before.label, 0, 0, 1)
        assert "red" not in after.references.texts
        assert len(after.references) == 9
        assert after.encoder.blender == before.encoder.blender
    assert vanilla.references is paper.references
    said = describe(vanilla)["references"]
    assert (said["pairs"], said["dropped_near_duplicate"], said["dropped_same_file"]) == (9, 1, 0)
    untouched = without_contamination(models, lambda base: ImagesUnderTest(retrieval=np.zeros((0, 8), np.float32)))
    assert untouched[1].encoder is models[1].encoder


def test_a_set_that_is_the_test_set_changes_no_embedding(tiny: TinyEncoder) -> None:
    whole = EvaluatedModel(label="x", encoder=AugmentedEncoder(tiny, colour_set(), Vanilla(VanillaSettings())))
    (left,) = without_contamination(
        [whole], lambda base: ImagesUnderTest(retrieval=colour_set().retrieval_embeddings), near=0.999
    )
    assert len(left.references) == 0
    image = [np.full((4, 4, 3), 77, np.uint8)]
    np.testing.assert_allclose(
        left.encoder.encode_images(image).embeddings, tiny.encode_images(image).embeddings, atol=1e-6
    )


class ThumbnailEncoder(TinyEncoder):
    """Encoder of 5 x 5 thumbnails; with an offset all its vectors are alike, as those of an untrained model."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__(seed=3)
        self._offset = np.float32(offset)

    @property
    def traits(self) -> EncoderTraits:
        return dataclasses.replace(super().traits, retrieval_dim=75)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        small = np.stack([np.asarray(image.resize((5, 5)), np.float32).ravel() for image in opened])
        small = l2_normalise(small - small.mean(axis=1, keepdims=True)) + self._offset
        return ImageEmbeddings(super().encode_images(images).embeddings, l2_normalise(small))


def photo(seed: int, size: int = 160) -> Image.Image:
    """Draw an image of many frequencies: smooth noise with shapes."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((size, size), 3)
    draw = ImageDraw.Draw(noise)
    for _ in range(6):
        x, y, side = rng.integers(0, size, 3)
        draw.ellipse((x, y, x + side // 2, y + side // 3), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return noise


def recoded(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return load_image(file.getvalue())[0]


COPIES = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "JPEG 40": lambda image: recoded(image, 40),
    "half, mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((80, 80)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def under_test(encoder: Encoder, images: list[Image.Image]) -> ImagesUnderTest:
    return ImagesUnderTest(
        retrieval=encoder.encode_images(images).retrieval,
        hashes=[load_image(image)[1] for image in images],
        phashes=[
            (perceptual_hash(one), perceptual_hash(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT))) for one in images
        ],
    )


@pytest.mark.parametrize("encoder", [ThumbnailEncoder(), ThumbnailEncoder(20.0)], ids=["wide", "narrow"])
@pytest.mark.parametrize("kind", COPIES)
def test_shrunk_and_recompressed_copies_are_found_and_unrelated_images_are_not(encoder: Encoder, kind: str) -> None:
    originals = [photo(seed) for seed in range(30)]
    pairs = [(image, f"name {number}") for number, image in enumerate(originals)]
    references = ReferenceSet.build(pairs, encoder)
    copies = [COPIES[kind](image) for image in originals[:10]]
    found = find_contamination(references, under_test(encoder, copies))
    others = find_contamination(references, under_test(encoder, [photo(seed) for seed in range(100, 130)]))
    assert found.alike.tolist() == list(range(10))
    assert (found.same.tolist(), found.near.tolist(), others.rows.tolist()) == ([], [], [])
    assert (found.unhashed, found.bound) == (0, references.copy_bounds.copy)


def test_a_set_without_hashes_says_so_and_uses_the_embedding() -> None:
    encoder = ThumbnailEncoder()
    originals = [photo(seed) for seed in range(30)]
    built = ReferenceSet.build([(image, str(number)) for number, image in enumerate(originals)], encoder)
    old = ReferenceSet(built.data.drop_columns(["phash"]).append_column("phash", [[""] * 30]), built.manifest)
    assert built.fingerprint == old.fingerprint
    found = find_contamination(old, under_test(encoder, [recoded(originals[4], 90)]))
    assert (found.alike.tolist(), found.near.tolist(), found.unhashed) == ([], [4], 30)


def test_bounds_stand_above_the_unrelated_images_of_any_encoder() -> None:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((400, 32)).astype(np.float32)
    texts, images = [str(row) for row in range(400)], np.arange(400, dtype=np.int32)
    for offset in (0.0, 1.0, 3.0):
        vectors = l2_normalise(plain + np.float32(offset))
        bounds = CopyBounds.of(vectors, texts, images)
        cosines = (vectors @ vectors.T)[np.triu_indices(400, 1)]
        assert cosines.max() < bounds.copy < 1
        assert np.mean(cosines >= bounds.rare) == pytest.approx(1e-4, abs=1e-4)
    assert CopyBounds.of(l2_normalise(plain + np.float32(100)), texts, images).copy > 1  # all cosines are nearly 1
    assert CopyBounds.of(plain[:1], texts[:1], images[:1]) == CopyBounds()
    few = CopyBounds.of(l2_normalise(plain[:3]), texts[:3], images[:3])
    assert few.rare > (l2_normalise(plain[:3]) @ l2_normalise(plain[:3]).T)[np.triu_indices(3, 1)].max()
