"""Zero-shot classification: every image takes the class whose text embedding is nearest (Radford et al. 2021)."""

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
    """Classify every image of a set by the text embeddings of the class names.

    Args:
        encoder: plain or augmented.
        dataset: the images and classes.
        prompts: `ensemble`, `single`, `set` (those written for the set), or templates with `{}` for the class name;
            the embeddings of a class's prompts are averaged.
        scale: cosines times this are the logits behind log-loss and calibration error; the accuracies do not depend
            on it. None = the encoder's own.
        cache: where embeddings are kept; None = nowhere.
        label: what the report calls the encoder; None = its id.
        batch: images in one forward pass.
        on_progress: told after each part of the images.

    Returns:
        `top-1`, `top-5`, `mean per class`, `calibration error` (15 bins) and `log-loss`; the arrays `confusion`
        (C, C) and `reliability` (15, 3: confidence, accuracy, images).

    Raises:
        DataError: no image could be read.
        ConfigError: `prompts` names none.
    """
    scale = encoder.traits.logit_scale if scale is None else scale
    templates = templates_of(prompts, own=dataset.templates, name=dataset.name)
    classes = class_embeddings(encoder, dataset.classes, templates, cache=cache)  # (C, D)
    embedded = embed_images(encoder, dataset.images, cache=cache, batch=batch, on_progress=on_progress)
    labels = dataset.labels[embedded.kept]
    scores = embedded.embeddings @ classes.T  # (n, C)
    sure = classification.probabilities(scores, scale=scale)
    confidence = sure.max(axis=1)  # (n,)
    top1 = classification.top_k(scores, labels, k=1)
    per_item = {
        "top-1": top1.astype(np.float64),
        "top-5": classification.top_k(scores, labels, k=5).astype(np.float64),
        "log-loss": classification.log_losses(sure, labels),
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
    """The calibration error of each replicate (R,) less its bias: drawing again adds noise, and noise adds gaps."""
    which = classification.bins_of(confidence)
    gap = right - confidence
    gaps = [np.abs(bootstrap.means(np.where(which == number, gap, 0.0), drawn)) for number in np.unique(which)]
    replicates = np.asarray(np.sum(gaps, axis=0))
    bias = replicates.mean() - classification.calibration_error(confidence, right)
    unbiased: npt.NDArray[np.float64] = np.maximum(replicates - bias, 0.0)
    return unbiased
