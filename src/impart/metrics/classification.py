"""Classification metrics from scores (n, C) and labels (n,): accuracy, calibration, log-loss, confusion.

Ties are broken pessimistically: a wrong class with an equal score ranks before the right class. So does a class with a
score of NaN, from an encoder that overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BINS",
    "LOGIT_SCALE",
    "bins_of",
    "calibration_error",
    "confusion",
    "log_losses",
    "mean_per_class",
    "predicted",
    "probabilities",
    "reliability",
    "top_k",
]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

LOGIT_SCALE = 100.0
"""Factor from cosines to logits: the value at which CLIP's learned factor is clamped (Radford et al. 2021)."""

BINS = 15
"""Number of equal-width confidence bins of the calibration error (Guo et al. 2017)."""


def top_k(scores: Array, labels: Ints, *, k: int) -> npt.NDArray[np.bool_]:
    """Whether fewer than k wrong classes score at least as high as the right class: (n,) from (n, C) and (n,).

    >>> scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.2, 0.0]])
    >>> top_k(scores, np.array([0, 1]), k=1).tolist(), top_k(scores, np.array([0, 1]), k=2).tolist()
    ([True, False], [True, True])
    """
    _check(scores, labels)
    own = scores[np.arange(len(labels)), labels]  # (n,)
    beaten_by = (~(scores < own[:, None])).sum(axis=1) - 1
    return np.asarray(beaten_by < k)


def mean_per_class(right: Array, labels: Ints) -> float:
    """Average the accuracy (n,) within each class, then over the classes that occur.

    >>> mean_per_class(np.array([True, True, False]), np.array([0, 0, 1]))
    0.5
    """
    assert right.shape == labels.shape, (right.shape, labels.shape)
    counts = np.bincount(labels)
    hits = np.bincount(labels, weights=right.astype(np.float64))
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def predicted(scores: Array, labels: Ints) -> Ints:
    """Return the class with the highest score (n,); where the right class is tied, the first wrong class.

    >>> predicted(np.array([[1.0, 1.0, 0.0]]), np.array([0])).tolist()
    [1]
    """
    _check(scores, labels)
    rows = np.arange(len(labels))
    rivals = scores.astype(np.float64)
    rivals[rows, labels] = -np.inf
    rival = rivals.argmax(axis=1)
    return np.where(rivals[rows, rival] < scores[rows, labels], labels, rival)


def confusion(scores: Array, labels: Ints) -> Ints:
    """Count predictions: (C, C), row = right class, column = predicted class."""
    classes = scores.shape[1]
    return np.bincount(labels * classes + predicted(scores, labels), minlength=classes**2).reshape(classes, classes)


def probabilities(scores: Array, *, scale: float = LOGIT_SCALE) -> Float64:
    """Compute the softmax over the classes of scores (n, C) times `scale`.

    >>> probabilities(np.array([[0.01, 0.0]])).round(3).tolist()
    [[0.731, 0.269]]
    """
    logits = scores.astype(np.float64) * scale
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))


def log_losses(probability: Float64, labels: Ints) -> Float64:
    """Compute minus the log of the right class's probability: (n,). Zero is replaced by the smallest double."""
    _check(probability, labels)
    own = probability[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(own, np.finfo(np.float64).tiny)))


def bins_of(confidence: Float64, *, bins: int = BINS) -> Ints:
    """Assign confidences to equal-width bins (n,), open below and closed above; 0 belongs to the first bin.

    >>> bins_of(np.array([0.0, 0.5, 0.51, 1.0]), bins=2).tolist()
    [0, 0, 1, 1]
    """
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def calibration_error(confidence: Float64, right: Array, *, bins: int = BINS) -> float:
    """Compute the expected calibration error: |accuracy - mean confidence| per bin, weighted by its share of the items.

    >>> round(calibration_error(np.array([0.9, 0.9, 0.6]), np.array([True, False, True]), bins=2), 4)
    0.1333
    """
    gaps = np.bincount(bins_of(confidence, bins=bins), weights=right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(confidence: Float64, right: Array, *, bins: int = BINS) -> Float64:
    """Compute mean confidence, accuracy and number of items per bin: (bins, 3). Both means of an empty bin are NaN."""
    which = bins_of(confidence, bins=bins)
    count = np.bincount(which, minlength=bins).astype(np.float64)
    sums = [np.bincount(which, weights=values.astype(np.float64), minlength=bins) for values in (confidence, right)]
    table = np.full((bins, 3), np.nan)
    table[:, 2] = count
    for column, total in enumerate(sums):
        np.divide(total, count, out=table[:, column], where=count > 0)
    return table


def _check(scores: Array, labels: Ints) -> None:
    assert scores.ndim == 2, scores.shape
    assert labels.shape == scores.shape[:1], (labels.shape, scores.shape)
