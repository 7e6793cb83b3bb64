"""Contamination: references that show a test image. They are found and dropped before a model is evaluated.

A reference that shows a test image contains the answer. It is found, from certain to less certain,

- by the content hash: the same file;
- by the perceptual hash, of the test image or of its mirrored copy: a copy that was resized, saved again, made grey or
  cropped a little (`COPY_BITS`), whatever the encoder;
- by the retrieval embedding alone: the cosine reaches the bound of the set's own unrelated images (`CopyBounds.copy`),
  and the hashes, where both have one, do not speak against it (`UNLIKE_BITS`).

Reference sets of older versions have no perceptual hashes, and neither have frames of videos: then the embedding
decides alone. docs/evaluation.md has what was measured. Dropping too many references only lowers the figures of the
augmented encoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, Float32
from impart.evaluate.models import EvaluatedModel
from impart.refset.refset import ReferenceSet
from impart.retrieval.near_duplicates import COPY_BITS, HASH_BITS, UNLIKE_BITS, hash_signs

__all__ = ["Contamination", "ImagesUnderTest", "find_contamination", "without_contamination"]

_BLOCK = 4096  # rows and columns of one matrix of cosines


@dataclass(frozen=True, kw_only=True)
class ImagesUnderTest:
    """What is compared of n test images.

    Attributes:
        retrieval: (n, R) retrieval embeddings, of the encoder of the reference set.
        hashes: n content hashes; empty = not known.
        phashes: n perceptual hashes, each of the image and of its mirrored copy; empty = not known.
    """

    retrieval: Float32
    hashes: Sequence[str] = ()
    phashes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """Rows of a reference set that show test images.

    Attributes:
        same: rows with the content hash of a test image.
        alike: further rows with nearly the perceptual hash of a test image.
        near: further rows whose retrieval embedding is nearly that of a test image.
        bound: cosine from which embeddings count; above 1 = they do not count.
        unhashed: rows that could not be compared by perceptual hash.
    """

    same: npt.NDArray[np.int64]
    alike: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]
    bound: float
    unhashed: int

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """All of them, ascending."""
        return np.unique(np.concatenate([self.same, self.alike, self.near]))


def find_contamination(references: ReferenceSet, tests: ImagesUnderTest, *, near: float = 0.0) -> Contamination:
    """Find the references that show a test image.

    Args:
        references: the set.
        tests: what is compared of the test images.
        near: cosine from which two images are near-duplicates, whatever their hashes; 0 = the bound of the set's own
            unrelated images; above 1 = only equal files count.
    """
    assert tests.retrieval.shape[1] == references.manifest.retrieval_dim, tests.retrieval.shape
    held = references.image_numbers(set(tests.hashes))
    same = np.flatnonzero(np.isin(references.images, held[held >= 0])).astype(np.int64)
    bound = near or references.copy_bounds.copy
    phashes = references.table["phash"].to_pylist()
    alike, close = np.zeros((2, len(references)), dtype=np.bool_)
    if near <= 1:
        views = [hash_signs([pair[view] for pair in tests.phashes]) for view in (0, 1)] if tests.phashes else []
        for first in range(0, len(references), _BLOCK):
            rows = slice(first, first + _BLOCK)
            signs = hash_signs(phashes[rows])  # (b, 256)
            for start in range(0, len(tests.retrieval), _BLOCK):
                part = slice(start, start + _BLOCK)
                sims = references.retrieval_embeddings[rows] @ tests.retrieval[part].T  # (b, t)
                nearby = sims >= bound
                if views:
                    apart = np.fmin(*(_bits_apart(signs, view[part]) for view in views))
                    alike[rows] |= (apart <= COPY_BITS).any(axis=1)
                    if not near:
                        nearby &= ~(apart > UNLIKE_BITS)  # NaN: one of them has no hash
                close[rows] |= nearby.any(axis=1)
    by_hash = np.setdiff1d(np.flatnonzero(alike), same)
    by_embedding = np.setdiff1d(np.flatnonzero(close), np.union1d(same, by_hash))
    unhashed = phashes.count("") if tests.phashes else len(phashes)
    return Contamination(
        same=same, alike=by_hash, near=by_embedding, bound=bound if near <= 1 else 2.0, unhashed=unhashed
    )


def _bits_apart(one: Float32, other: Float32) -> Float32:
    """Count the bits that differ between hashes (b, 256) and (t, 256) of signs: (b, t), NaN where one is empty."""
    apart: Float32 = np.float32(HASH_BITS / 2) - one @ other.T / np.float32(2)
    apart[~one.any(axis=1)] = np.nan
    apart[:, ~other.any(axis=1)] = np.nan
    return apart


def without_contamination(
    models: Sequence[EvaluatedModel],
    test_images: Callable[[Encoder], ImagesUnderTest],
    *,
    near: float = 0.0,
) -> list[EvaluatedModel]:
    """Drop the references that show test images from every model.

    Args:
        models: plain ones are returned as they are.
        test_images: base encoder -> its test images. Called once per base encoder, and only for augmented models.
        near: see `find_contamination`.
    """
    tests: dict[str, ImagesUnderTest] = {}
    cleaned: dict[tuple[str, str], tuple[ReferenceSet, Contamination]] = {}
    result = []
    for model in models:
        encoder = model.encoder
        if not isinstance(encoder, AugmentedEncoder):
            result.append(model)
            continue
        base = encoder.base.fingerprint
        if base not in tests:
            tests[base] = test_images(encoder.base)
        key = (base, f"{encoder.references.fingerprint} {encoder.references.znorm.digest}")
        if key not in cleaned:
            found = find_contamination(encoder.references, tests[base], near=near)
            cleaned[key] = encoder.references.without(found.rows), found
        references, found = cleaned[key]
        kept = AugmentedEncoder(encoder.base, references, encoder.blender) if len(found.rows) else encoder
        result.append(
            dataclasses.replace(
                model,
                encoder=kept,
                same=len(found.same),
                alike=len(found.alike),
                near=len(found.near),
                bound=found.bound,
                unhashed=found.unhashed,
            )
        )
    return result
