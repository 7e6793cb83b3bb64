"""Cosines from which two images, or two texts, count as the same: one constant per purpose.

Cosines of images are those of their retrieval embeddings.
"""

from __future__ import annotations

from impart.config import EvaluateSettings

__all__ = ["BACKGROUND_COPY", "NEAR_DUPLICATE", "SAME_IMAGE", "SAME_TEXT", "TRAINING_NEAR_DUPLICATE"]

NEAR_DUPLICATE = EvaluateSettings.near_duplicate
"""Two images are near-duplicates: contamination of a reference set by test images, and the selection `dedup`.

Measured with `mini` on copies of Flickr8k images (`impart.evaluate.models`): nearly all copies reach it that were
resized, cropped by 5% or saved as JPEG of quality 60; different images do not.
"""

TRAINING_NEAR_DUPLICATE = 0.97
"""A reference is masked for a training image. Default of `reference.near_duplicate` in a training config."""

SAME_IMAGE = 0.999
"""Two embeddings are of one image: masked in training whatever the setting for near-duplicates."""

BACKGROUND_COPY = 0.95
"""A background image shows the same as a reference: it does not count when the gate is tuned."""

SAME_TEXT = 0.97
"""Cosine of text embeddings from which two names mean the same."""
