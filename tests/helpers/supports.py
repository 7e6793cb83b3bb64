"""Labelled references of a small few-shot problem."""

from __future__ import annotations

import numpy as np

from impart.blending.few_shot.support import Support
from impart.encoders.base import l2_normalise

__all__ = ["CLASSES", "PER_CLASS", "PROMPTS", "RETRIEVAL", "WIDTH", "make"]

CLASSES, PER_CLASS, WIDTH, RETRIEVAL, PROMPTS = 5, 3, 24, 12, 4


def make(seed: int = 0, *, one_space: bool = False, spare: bool = False) -> Support:
    """References around a centre per class; the classes have 3 references, with `spare` the first has 2."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)[spare:]
    centres = rng.standard_normal((CLASSES, RETRIEVAL))
    retrieval = l2_normalise(centres[labels] + rng.standard_normal((len(labels), RETRIEVAL)))
    prompts = l2_normalise(
        rng.standard_normal((CLASSES, 1, WIDTH)) + 0.7 * rng.standard_normal((CLASSES, PROMPTS, WIDTH))
    )
    texts = l2_normalise(prompts.mean(axis=1))
    embeddings = l2_normalise(texts[labels] + rng.standard_normal((len(labels), WIDTH)))
    return Support(embeddings, embeddings if one_space else retrieval, labels, texts, prompts)
