"""Zero-shot ROI classification: crops of ground-truth boxes, classified by the prompts of the categories.

A box is cropped at several scales: 1 is the box itself, 1.5 the box enlarged about its centre by that factor, clipped
to the image. The (augmented) embeddings of the scales are averaged and normalised. Crops are embedded like any image
and cached per scale.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import ConfigError, DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.class_prompts import class_embeddings, templates_of
from impart.evaluate.datasets.types import BoxSet, Images
from impart.evaluate.embed import Embedded, Progress, embed_images
from impart.evaluate.result import Result
from impart.files import digest_of
from impart.metrics import bootstrap, classification, detection

__all__ = ["SCALES", "crop_box", "crops", "regions"]

SCALES = (1.0, 1.5)
_OPEN = 4  # images kept decoded: the number of reader threads
_WORK = 4_000_000_000  # highest boxes x categories x replicates of mAP: about 20 s
_MIN_REPEATS = 100


def regions(
    encoder: Encoder,
    dataset: BoxSet,
    *,
    scales: Sequence[float] = SCALES,
    prompts: str | Sequence[str] = "ensemble",
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Classify each labelled box among the categories of the set.

    Args:
        encoder: plain or augmented.
        dataset: images with boxes.
        scales: sizes of the crops relative to the box, see above.
        prompts: `ensemble`, `single`, or templates with `{}` for the category.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: crops per forward pass.
        on_progress: called with the crops done, over all scales.

    Returns:
        `top-1` and `top-5` (box accuracy), `mean per category`, `mAP`, and `mAP rare`, `mAP common`, `mAP frequent`
        if the set has the frequency of its categories; the arrays `confusion` and `AP` (C,), NaN without boxes.
        AP ranks boxes by the softmax over the categories, so that a box unlike any category ranks low everywhere.
        Boxes of one image are drawn together in the bootstrap.

    Raises:
        DataError: there is no box, or no image could be read.
        ConfigError: a scale is not positive, or `prompts` is unknown.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import impart
        >>> folder = Path(tempfile.mkdtemp())
        >>> image = Image.new("RGB", (128, 64), "red")
        >>> image.paste("blue", (64, 0, 128, 64))
        >>> image.save(folder / "both.png")
        >>> table = "file,label,x0,y0,x1,y1\\nboth.png,red,0,0,0.5,1\\nboth.png,blue,0.5,0,1,1\\n"
        >>> _ = (folder / "boxes.csv").write_text(table)
        >>> dataset = impart.evaluate.open_set(folder, kind="boxes")
        >>> impart.evaluate.regions(impart.load_encoder("mini"), dataset, scales=(1.0,)).figures["top-1"]
        1.0
    """
    if not scales or min(scales) <= 0:
        raise ConfigError(f"scales {tuple(scales)} of regions: give one or more, each above 0 (1 = the box itself)")
    if not len(dataset.boxes):
        raise DataError(f"data set {dataset.name!r} has no boxes")
    scale = encoder.traits.logit_scale
    templates = templates_of(prompts, name=dataset.name)
    categories = class_embeddings(encoder, dataset.categories, templates, cache=cache)  # (C, D)
    parts = [
        embed_images(
            encoder,
            crops(dataset, scale=one),
            cache=cache,
            batch=batch,
            on_progress=_shifted(on_progress, number, count=len(scales)),
        )
        for number, one in enumerate(scales)
    ]
    kept, vectors = _averaged(parts)
    owners, labels = dataset.owners[kept], dataset.labels[kept]
    probabilities = classification.probabilities(vectors @ categories.T, scale=scale)  # (b, C)
    right = {f"top-{k}": classification.top_k(probabilities, labels, k=k) for k in (1, 5)}
    ap = detection.category_ap(probabilities, labels)
    groups = _groups(dataset, ap)
    repeats, note = _repeats(len(labels), len(dataset.categories))
    drawn = bootstrap.draws(owners)
    names = _box_names(dataset)
    return Result(
        task="regions",
        dataset=dataset.name,
        encoder=label or encoder.traits.id,
        figures={
            **{name: float(values.mean()) for name, values in right.items()},
            "mean per category": classification.mean_per_class(right["top-1"], labels),
            **{name: detection.mean_ap(ap, within) for name, within in groups.items()},
        },
        items=tuple(names[number] for number in kept),
        per_item={name: values.astype(np.float64) for name, values in right.items()},
        clusters=owners,
        resampled={
            "mean per category": bootstrap.class_means(right["top-1"], labels, drawn),
            **(detection.mean_ap_replicates(probabilities, labels, drawn[:repeats], groups) if repeats else {}),
        },
        counts={
            "boxes": len(labels),
            "images": len(np.unique(owners)),
            "categories": len(dataset.categories),
            "unreadable": len(dataset.labels) - len(labels),
        },
        settings={
            "scales": [float(one) for one in scales],
            "prompts": prompts if isinstance(prompts, str) else "given",
            "templates": list(templates),
            "logit scale": scale,
            "AP": "each category's boxes among all boxes, ranked by softmax over the categories, not interpolated",
        },
        notes=(*dataset.notes, *_left_out(parts), *note),
        arrays={"confusion": classification.confusion(probabilities, labels), "AP": ap},
        labels=dataset.categories,
    )


def crop_box(
    box: Sequence[float] | npt.NDArray[np.float64], size_px: tuple[int, int], *, scale: float
) -> tuple[int, int, int, int]:
    """Return the pixels (left, top, right, bottom) of a box enlarged about its centre and clipped to the image.

    Args:
        box: x0, y0, x1, y1 as fractions of width and height.
        size_px: width and height of the image.
        scale: factor of both sides.

    >>> crop_box((0.25, 0.25, 0.75, 0.75), (100, 80), scale=1.5)
    (12, 10, 88, 70)
    """
    edges = []
    for low, high, length in ((box[0], box[2], size_px[0]), (box[1], box[3], size_px[1])):
        middle, half = (low + high) / 2 * length, (high - low) / 2 * length * scale
        first = min(max(0, math.floor(middle - half + 1e-6)), length - 1)
        edges.append((first, max(first + 1, min(length, math.ceil(middle + half - 1e-6)))))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


def crops(dataset: BoxSet, *, scale: float) -> Images:
    """Return each box as an image; an image is decoded once for adjacent boxes."""
    opened: OrderedDict[int, tuple[Image.Image, str]] = OrderedDict()
    lock = Lock()

    def read(number: int) -> tuple[Image.Image, str]:
        owner = int(dataset.owners[number])
        with lock:
            if owner not in opened:
                opened[owner] = dataset.images.read(owner)
                if len(opened) > _OPEN:
                    opened.popitem(last=False)
            image, content = opened[owner]
        return image.crop(crop_box(dataset.boxes[number], image.size, scale=scale)), content

    def identity() -> str:
        boxes = np.ascontiguousarray(dataset.boxes).tobytes().hex()
        return digest_of([dataset.images.identity(), boxes, repr(dataset.owners.tolist()), f"{scale:.17g}"])

    keys = tuple(f"{name[:-1]} @{scale:g}]" for name in _box_names(dataset))
    return Images(keys=keys, read=read, identity=identity)


def _box_names(dataset: BoxSet) -> list[str]:
    """Name boxes `file[box 3]`, counted within the image from 0."""
    seen: dict[int, int] = {}
    names = []
    for owner in dataset.owners.tolist():
        names.append(f"{dataset.images.keys[owner]}[box {seen.setdefault(owner, 0)}]")
        seen[owner] += 1
    return names


def _averaged(parts: Sequence[Embedded]) -> tuple[npt.NDArray[np.int64], Float32]:
    """Return the boxes that could be read at every scale, and the normalised mean (b, D) of their embeddings."""
    kept = parts[0].kept
    for part in parts[1:]:
        kept = np.intersect1d(kept, part.kept, assume_unique=True)
    if not len(kept):
        raise DataError("no box could be read at every scale: run the command again")
    vectors = [part.embeddings[np.searchsorted(part.kept, kept)] for part in parts]
    return kept, l2_normalise(np.mean(vectors, axis=0))


def _groups(dataset: BoxSet, ap: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.bool_]]:
    """Map figures to the categories (C,) that they average; groups without boxes are left out."""
    groups = {"mAP": np.ones(len(dataset.categories), dtype=bool)}
    if dataset.frequency is not None:
        letters = np.array(dataset.frequency)
        groups |= {f"mAP {word}": letters == letter for letter, word in detection.FREQUENCIES.items()}
    return {name: within for name, within in groups.items() if not np.isnan(detection.mean_ap(ap, within))}


def _repeats(boxes: int, categories: int) -> tuple[int, tuple[str, ...]]:
    """Return the number of mAP replicates that fit the time limit, and a note if there are none."""
    repeats = min(bootstrap.REPEATS, _WORK // (boxes * categories))
    if repeats >= _MIN_REPEATS:
        return repeats, ()
    return 0, (f"no interval of mAP: {boxes} boxes x {categories} categories take too long to resample",)


def _left_out(parts: Sequence[Embedded]) -> list[str]:
    """Make one note per image, not per box."""
    lost: dict[str, int] = {}
    for reason in parts[0].unreadable:
        head, _, why = reason.partition("]: ")
        image = head.rpartition("[box ")[0]
        lost[f"{image}: {why}"] = lost.get(f"{image}: {why}", 0) + 1
    return [f"left out: {what} ({count} boxes)" for what, count in lost.items()]


def _shifted(on_progress: Progress | None, number: int, *, count: int) -> Progress | None:
    """Turn the progress of one of `count` passes into the progress of all."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(number * total + done, count * total)
