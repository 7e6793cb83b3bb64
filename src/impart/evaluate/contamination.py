"""Contamination: references that show a test image. They are found and dropped before a model is evaluated.

A reference shows a test image where their content hashes are equal, or where the cosine of their retrieval embeddings
is at least `NEAR_DUPLICATE`. Such a reference contains the answer.

`NEAR_DUPLICATE` is 0.93, measured with `mini`. Share of copies found, for 200 images of Flickr8k (192 px):

    copy made by            found at 0.93   found at 0.98
    resizing to 75%                 97.5%             22%
    cropping by 5%                    93%             10%
    JPEG of quality 60                85%              5%
    mirroring                         80%              1%
    resizing to 50%                   13%

Different images that reach 0.93: none of 2,500 images of Flickr8k (highest: 0.925, two racing motorcycles), and none
of 1,000 test images of CIFAR-10 against 1,500 training images (highest: 0.87). In CIFAR-100 4 of 1,500 test images
reach it, three of them the same photograph. In Caltech-101 1% to 3% do: the same image, the next one of a series, or
two objects of a kind on white. Dropping too many references only lowers the figures of the augmented encoder.
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
from impart.retrieval.near_duplicates import NEAR_DUPLICATE

__all__ = ["Contamination", "find_contamination", "without_contamination"]

_BLOCK = 4096  # rows and columns of one matrix of cosines


@dataclass(frozen=True)
class Contamination:
    """Rows of a reference set that show test images.

    Attributes:
        same: rows with the content hash of a test image.
        near: further rows whose retrieval embedding is nearly that of a test image.
    """

    same: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Both, ascending."""
        return np.union1d(self.same, self.near)


def find_contamination(
    references: ReferenceSet, retrieval: Float32, hashes: Sequence[str] = (), *, near: float = NEAR_DUPLICATE
) -> Contamination:
    """Find the references that show one of n test images.

    Args:
        references: the set.
        retrieval: (n, R) retrieval embeddings of the test images, of the set's encoder.
        hashes: n content hashes; empty = only the embeddings are compared.
        near: cosine from which two images are near-duplicates; above 1 = only equal files count.
    """
    assert retrieval.shape[1] == references.manifest.retrieval_dim, retrieval.shape
    held = references.image_numbers(set(hashes))
    same = np.flatnonzero(np.isin(references.images, held[held >= 0])).astype(np.int64)
    best = np.full(len(references), -1.0, dtype=np.float32)
    if near <= 1:
        for first in range(0, len(references), _BLOCK):
            rows = references.retrieval_embeddings[first : first + _BLOCK]  # (b, R)
            for start in range(0, len(retrieval), _BLOCK):
                sims = (rows @ retrieval[start : start + _BLOCK].T).max(axis=1)
                best[first : first + _BLOCK] = np.maximum(best[first : first + _BLOCK], sims)
    alike = np.flatnonzero(best >= near).astype(np.int64)
    return Contamination(same, np.setdiff1d(alike, same))


def without_contamination(
    models: Sequence[EvaluatedModel],
    test_images: Callable[[Encoder], tuple[Float32, Sequence[str]]],
    *,
    near: float = NEAR_DUPLICATE,
) -> list[EvaluatedModel]:
    """Drop the references that show test images from every model.

    Args:
        models: plain ones are returned as they are.
        test_images: base encoder -> retrieval embeddings (n, R) and content hashes of the test images. Called once per
            base encoder, and only for augmented models.
        near: see `find_contamination`.
    """
    tests: dict[str, tuple[Float32, Sequence[str]]] = {}
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
            found = find_contamination(encoder.references, *tests[base], near=near)
            cleaned[key] = encoder.references.without(found.rows), found
        references, found = cleaned[key]
        kept = AugmentedEncoder(encoder.base, references, encoder.blender) if len(found.rows) else encoder
        result.append(dataclasses.replace(model, encoder=kept, same=len(found.same), near=len(found.near)))
    return result
