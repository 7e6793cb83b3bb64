"""Zero-shot classification: every picture takes the class whose text embedding is nearest (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32
from impart.evaluate.datasets import ClassFolder, embed_files
from impart.evaluate.prompts import ENSEMBLE, class_embeddings

__all__ = ["ZeroShotReport", "classification_metrics", "zeroshot"]


@dataclass(frozen=True, kw_only=True)
class ZeroShotReport:
    """What `zeroshot` measured; accuracies are fractions of 1.

    Attributes:
        dataset: name of the data set.
        encoder: id of the encoder.
        images: pictures counted.
        classes: C.
        top1: fraction of pictures whose class scores highest (ties count as wrong).
        top5: fraction whose class is among the five highest.
        mean_per_class: mean over classes of the top-1 fraction within the class.
        unreadable: reasons, one for each picture that was left out.
        templates: the prompts.
    """

    dataset: str
    encoder: str
    images: int
    classes: int
    top1: float
    top5: float
    mean_per_class: float
    unreadable: tuple[str, ...]
    templates: tuple[str, ...]


def classification_metrics(scores: Float32, labels: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Top-1, top-5 and mean per class from scores (n, C) and labels (n,). Ties are broken against the right class.

    >>> classification_metrics(np.array([[0.9, 0.1], [0.2, 0.2]], dtype=np.float32), np.array([0, 1]))
    (0.5, 1.0, 0.5)
    """
    assert scores.ndim == 2, scores.shape
    assert labels.shape == scores.shape[:1], (labels.shape, scores.shape)
    own = scores[np.arange(len(labels)), labels]  # (n,)
    beaten_by = (scores >= own[:, None]).sum(axis=1) - 1  # (n,) classes that score at least as high
    right = beaten_by == 0
    per_class = [right[labels == number].mean() for number in np.unique(labels)]
    return float(right.mean()), float((beaten_by < 5).mean()), float(np.mean(per_class))


def zeroshot(
    encoder: Encoder, dataset: ClassFolder, *, templates: Sequence[str] = ENSEMBLE, batch: int = 32
) -> ZeroShotReport:
    """Classify every picture of a class folder by the text embeddings of the class names.

    Args:
        encoder: plain or augmented.
        dataset: the pictures and classes.
        templates: prompts with one `{}` for the class name; their embeddings are averaged.
        batch: pictures in one forward pass.

    Raises:
        DataError: no picture could be read.
    """
    classifier = class_embeddings(encoder, dataset.classes, templates)  # (C, D)
    embedded = embed_files(encoder, dataset.files, batch=batch)
    images = np.concatenate([part.embeddings for part in embedded.batches])  # (n, D)
    labels = np.asarray(dataset.labels, dtype=np.int64)[embedded.kept]
    top1, top5, mean_per_class = classification_metrics(images @ classifier.T, labels)
    return ZeroShotReport(
        dataset=dataset.name,
        encoder=encoder.traits.id,
        images=len(labels),
        classes=len(dataset.classes),
        top1=top1,
        top5=top5,
        mean_per_class=mean_per_class,
        unreadable=tuple(embedded.unreadable),
        templates=tuple(templates),
    )
