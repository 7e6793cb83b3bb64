"""Read the image of a pair, in this process or in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from impart.errors import DataError
from impart.images import DRAFT_SIDES, load_image
from impart.refset.pairs import Pair
from impart.retrieval.near_duplicates import perceptual_hash

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["KEPT_TEXTS", "READERS", "LoadedPair", "load_pair"]

READERS = 2
"""Threads that read images."""
KEPT_TEXTS = 4096
"""Embeddings of texts kept during a build."""

LoadedPair: TypeAlias = "tuple[Pair, Image.Image | None, str, str]"
"""(pair, image, hash, perceptual hash), or (pair, None, reason, "")."""


def load_pair(pair: Pair, *, side_px: int, max_megapixels: float) -> LoadedPair:
    """Read the image of a pair; a pair that cannot be used has a reason.

    Args:
        side_px: side of the encoder's input.
        max_megapixels: larger images are refused.
    """
    if pair.problem or not pair.text.strip():
        return pair, None, pair.problem or "the text is empty", ""
    try:
        image, digest = load_image(pair.image, max_megapixels=max_megapixels, draft_px=DRAFT_SIDES * side_px)
    except DataError as error:
        return pair, None, str(error), ""
    return pair, image, digest, perceptual_hash(image)
