"""When two images, or two texts, count as the same: a perceptual hash, and bounds of cosines, one per purpose.

Cosines of images are those of their retrieval embeddings. A cosine has no meaning without its encoder: unrelated images
reach 0.77 in one of 10,000 pairs with the retrieval embeddings of `mini`, 0.87 with its embeddings, and 0.99 with
encoders whose vectors fill a narrow cone. `CopyBounds` therefore come from unrelated images of the encoder itself.

The perceptual hash is the pHash of the library imagehash with 256 bits: signs of the lowest 16 x 16 cosine frequencies
against their median. Measured on 2,900 images of Flickr8k, OpenStax and ImageNet (measurements of copies on 400 of
them):

    copy made by                        bits that differ: median, 99 of 100
    resizing to 75%, 50% or 33%         0, 4
    JPEG of quality 60, 40 or 20        2 to 4, 12
    resizing to 50%, JPEG 40            4, 10
    grey, brighter, squeezed            0 to 4, 19
    cropping by 5%                      42, 63
    unrelated images                    128; the nearest of 1.5 million pairs 82
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.retrieval.rows import StoredRows

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "BACKGROUND_COPY",
    "COPY_BITS",
    "HASH_BITS",
    "SAME_IMAGE",
    "SAME_TEXT",
    "TRAINING_NEAR_DUPLICATE",
    "UNLIKE_BITS",
    "CopyBounds",
    "hash_signs",
    "perceptual_hash",
]

TRAINING_NEAR_DUPLICATE = 0.97
"""A reference is masked for a training image. Default of `reference.near_duplicate` in a training config."""

SAME_IMAGE = 0.999
"""Two embeddings are of one image: masked in training whatever the setting for near-duplicates."""

BACKGROUND_COPY = 0.95
"""A background image shows the same as a reference: it does not count when the gate is tuned."""

SAME_TEXT = 0.97
"""Cosine of text embeddings from which two names mean the same."""

HASH_BITS = 256
COPY_BITS = 64
"""Two images whose hashes differ in at most this many bits are copies (measured above)."""
UNLIKE_BITS = 108
"""Two images whose hashes differ in more bits are no copies, however near their embeddings: 99% of unrelated pairs."""

_SIDE = 16  # of the hash, in bits
_LARGE_PX = 256
_LOPSIDED = 8  # bits from half of them: a flat or striped image has too few frequencies for a hash
_MOST = 1500  # images that bounds are computed from
_RARE = 1e-4  # share of pairs of unrelated images above the upper quantile
_DECADE = 0.6  # a tenth as many pairs leave a distance 1 / 0.6 times as long: measured on the embeddings of `mini`
_OF_DISTANCE = 0.25
_SHARPEST = 0.999  # float16 vectors cannot tell cosines above this apart


@dataclass(frozen=True)
class CopyBounds:
    """Bounds of the cosine of copies, from the cosines of unrelated images of one encoder.

    Attributes:
        rare: cosine that one of 10,000 pairs of unrelated images reaches.
        copy: cosine from which two images count as copies; above 1 where embeddings cannot tell, and in
            a set of one image.
    """

    rare: float = 1.0
    copy: float = 2.0

    @classmethod
    def of(cls, retrieval: Float32 | StoredRows, texts: Sequence[str], images: npt.NDArray[np.int32]) -> CopyBounds:
        """Compute the bounds from pairs of different images with different texts.

        The distance 1 - cosine of a copy is at most a quarter of the distance that one of 10,000 pairs of unrelated
        images falls below. With `mini` this is a cosine of 0.91 to 0.94.

        Args:
            retrieval: (N, R) retrieval embeddings of N references, L2-normalised.
            texts: their N texts.
            images: (N,) numbers of their images.

        Example:
            >>> vectors = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
            >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            >>> bounds = CopyBounds.of(vectors, [str(row) for row in range(200)], np.arange(200, dtype=np.int32))
            >>> bounds.rare < bounds.copy < 1
            True
        """
        _, rows = np.unique(images, return_index=True)
        if len(rows) > _MOST:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST])
        _, names = np.unique(np.asarray([texts[row] for row in rows], dtype=np.str_), return_inverse=True)
        pairs = np.triu(names[:, None] != names[None], k=1)
        vectors = retrieval[rows]
        cosines = (vectors @ vectors.T)[pairs]
        if not len(cosines):
            return cls()
        rare = float(np.quantile(cosines, 1 - _RARE))
        missing = max(0.0, math.log10(1 / _RARE / len(cosines)))  # decades of pairs that would be needed
        rare = 1 - (1 - rare) * _DECADE**missing
        copy = 1 - _OF_DISTANCE * (1 - rare)
        return cls(rare, copy if copy <= _SHARPEST else 2.0)


def perceptual_hash(image: Image.Image) -> str:
    """Compute the perceptual hash of an RGB image as 64 hex digits; empty where the image has too few frequencies.

    >>> from PIL import Image
    >>> perceptual_hash(Image.new("RGB", (64, 64), "red"))
    ''
    >>> len(perceptual_hash(Image.radial_gradient("L")))
    64
    """
    import imagehash

    if (factor := min(image.size) // _LARGE_PX) > 1:
        image = image.reduce(factor)  # the filter of imagehash takes long over millions of pixels
    bits = imagehash.phash(image, hash_size=_SIDE).hash
    if abs(int(bits.sum()) - HASH_BITS // 2) > _LOPSIDED:
        return ""
    return np.packbits(bits).tobytes().hex()


def hash_signs(hashes: Sequence[str]) -> Float32:
    """Convert n hashes to rows (n, 256) of 1 and -1, zeros where a hash is empty.

    The product of two rows is 256 less twice the number of bits that differ.

    >>> hash_signs(["f" * 32 + "0" * 32, ""]).sum(axis=1).tolist()
    [0.0, 0.0]
    """
    signs = np.zeros((len(hashes), HASH_BITS), np.float32)
    known = [row for row, one in enumerate(hashes) if one]
    if known:
        packed = np.frombuffer(bytes.fromhex("".join(hashes[row] for row in known)), np.uint8)
        signs[known] = np.unpackbits(packed.reshape(len(known), -1), axis=1).astype(np.float32) * 2 - 1
    return signs
