"""Zero-shot classification: each image gets the class with the nearest text embedding (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.class_prompts import class_embeddings, templates_of
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.embed import Progress, embed_images
from impart.evaluate.result import Result
from impart.metrics import bootstrap, classification

__all__ = ["zeroshot"]


def zeroshot(
    encoder: Encoder,
    dataset: ClassSet,
    *,
    prompts: str | Sequence[str] = "ensemble",
    scale: float | None = None,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Classify each image of a set by the text embeddings of the class names.

    Args:
        encoder: plain or augmented.
        dataset: the images and classes.
        prompts: `ensemble`, `single`, `set` (those of the data set), or templates with `{}` for the class name. The
            embeddings of a class in its prompts are averaged.
        scale: factor from cosines to logits, for log-loss and calibration error. The accuracies do not depend on it.
            None = the encoder's own.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: images per forward pass.
        on_progress: called after each part of the images.

    Returns:
        `top-1`, `top-5`, `mean per class`, `calibration error` (15 bins) and `log-loss`; the arrays `confusion`
        (C, C) and `reliability` (15, 3: confidence, accuracy, images).

    Raises:
        DataError: no image could be read.
        ConfigError: `prompts` is unknown.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import impart
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("red", "blue"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (64, 64), name).save(folder / name / "0.png")
        >>> dataset = impart.evaluate.open_set(folder, kind="classes")
        >>> impart.evaluate.zeroshot(impart.load_encoder("mini"), dataset).figures["top-1"]
        1.0
    """
    scale = encoder.traits.logit_scale if scale is None else scale
    templates = templates_of(prompts, own=dataset.templates, name=dataset.name)
    classes = class_embeddings(encoder, dataset.classes, templates, cache=cache)  # (C, D)
    embedded = embed_images(encoder, dataset.images, cache=cache, batch=batch, on_progress=on_progress)
    labels = dataset.labels[embedded.kept]
    scores = embedded.embeddings @ classes.T  # (n, C)
    probabilities = classification.probabilities(scores, scale=scale)
    confidence = probabilities.max(axis=1)  # (n,)
    top1 = classification.top_k(scores, labels, k=1)
    per_item = {
        "top-1": top1.astype(np.float64),
        "top-5": classification.top_k(scores, labels, k=5).astype(np.float64),
        "log-loss": classification.log_losses(probabilities, labels),
    }
    figures = {name: float(values.mean()) for name, values in per_item.items()}
    drawn = bootstrap.draws(len(labels))
    return Result(
        task="zero-shot",
        dataset=dataset.name,
        encoder=label or encoder.traits.id,
        figures={
            "top-1": figures["top-1"],
            "top-5": figures["top-5"],
            "mean per class": classification.mean_per_class(top1, labels),
            "calibration error": classification.calibration_error(confidence, top1),
            "log-loss": figures["log-loss"],
        },
        items=tuple(dataset.images.keys[number] for number in embedded.kept),
        per_item=per_item,
        resampled={
            "mean per class": bootstrap.class_means(top1, labels, drawn),
            "calibration error": _calibration_replicates(confidence, top1, drawn),
        },
        lower_is_better=frozenset({"calibration error", "log-loss"}),
        counts={"images": len(labels), "classes": len(dataset.classes), "unreadable": len(embedded.unreadable)},
        settings={
            "prompts": prompts if isinstance(prompts, str) else "given",
            "templates": list(templates),
            "logit scale": scale,
        },
        notes=(*dataset.notes, *(f"left out: {reason}" for reason in embedded.unreadable)),
        arrays={
            "confusion": classification.confusion(scores, labels),
            "reliability": classification.reliability(confidence, top1),
        },
        labels=dataset.classes,
    )


def _calibration_replicates(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], drawn: npt.NDArray[np.uint16]
) -> npt.NDArray[np.float64]:
    """Calibration error of each replicate (R,), less its bias: resampling adds noise, and noise widens the gaps."""
    which = classification.bins_of(confidence)
    gap = right - confidence
    gaps = [np.abs(bootstrap.means(np.where(which == number, gap, 0.0), drawn)) for number in np.unique(which)]
    replicates = np.asarray(np.sum(gaps, axis=0))
    bias = replicates.mean() - classification.calibration_error(confidence, right)
    unbiased: npt.NDArray[np.float64] = np.maximum(replicates - bias, 0.0)
    return unbiased
