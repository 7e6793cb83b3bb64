"""Class names to text embeddings: prompt templates and their ensemble (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impart.encoders.base import Encoder, Float32, l2_normalise

__all__ = ["ENSEMBLE", "SINGLE", "class_embeddings", "tidy_class_name"]

SINGLE: tuple[str, ...] = ("a photo of a {}.",)
"""The single prompt of the CLIP paper."""

ENSEMBLE: tuple[str, ...] = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a close-up photo of a {}.",
    "a picture of the {}.",
    "a small photo of a {}.",
    "a bright photo of one {}.",
    "{}",
)
"""Seven prompts, averaged: sizes, distances and the bare name."""


def tidy_class_name(folder: str) -> str:
    """Folder name to words.

    >>> tidy_class_name("ceiling_fan")
    'ceiling fan'
    """
    return " ".join(folder.replace("_", " ").split())


def class_embeddings(encoder: Encoder, names: Sequence[str], templates: Sequence[str] = ENSEMBLE) -> Float32:
    """One classifier row a class: the mean of the normalised prompt embeddings, normalised again.

    Returns:
        (C, D) float32, L2-normalised rows.
    """
    assert templates, "at least one template"
    texts = [template.format(name) for name in names for template in templates]
    embedded = encoder.encode_texts(texts)  # (C * P, D)
    grouped = embedded.reshape(len(names), len(templates), -1)  # (C, P, D)
    return l2_normalise(np.mean(grouped, axis=1))
