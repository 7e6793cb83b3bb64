"""Test images of `benchmarks/ra_clip_scratch.py` as arrays: decoded once, with their retrieval embeddings.

Per set: pixels at the image tower's size, retrieval embeddings of each retriever, and labels or captions. A set that
was computed once is read from the cache; a stopped call loses one set.

Letters: n rows of a set, S side of the image tower's input, R retrieval width, m items (images, boxes or clips).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from impart.config import DecodeSettings
from impart.encoders.base import Encoder, ImageInput
from impart.evaluate import open_set
from impart.evaluate.tasks.regions import SCALES, crops
from impart.video.decode.sampler import DecodedSegment, sample_video
from ra_clip import CLASS_SETS, decoded
from ra_clip_scratch_retriever import pixels_of

__all__ = ["PROBES", "TestSet", "build_set", "kept", "make_tests"]

Made = TypeVar("Made")
PROBES = {name: f"images/{name}/train" for name in ("cifar10", "cifar100", "caltech101")}
_AT_ONCE = 32


@dataclass(frozen=True)
class TestSet:
    """Images of one test.

    Attributes:
        pixels: (n, 3, S, S) uint8.
        retrieval: (n, R) float16 by retriever.
        item: (n,) item that a row shows: an image has one row, a box one per scale, a clip one per frame.
        weights: (n,) weight of the row in the mean of its item.
        labels: (m,) class numbers; empty where there are captions.
        clusters: (m,) items drawn together in the bootstrap: the boxes of one image.
        classes: class names.
        captions: texts.
        owners: (T,) item of each caption.
    """

    pixels: Tensor
    retrieval: Mapping[str, Tensor]
    item: Tensor
    weights: Tensor
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    clusters: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    classes: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    owners: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def items(self) -> int:
        """Number of items."""
        return int(self.item.max()) + 1


def kept(path: Path, make: Callable[[], Made]) -> Made:
    """Load the object of an earlier call, or make and save it."""
    if path.is_file():
        read: Made = torch.load(path, weights_only=False)  # a file of this benchmark
        return read
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(made, part)
    part.replace(path)
    return made


def build_set(data: Path, name: str) -> tuple[Iterator[ImageInput], dict[str, Any]]:
    """Open a test by name: its images in order, and the other fields of `TestSet`."""
    if name in CLASS_SETS or name.removesuffix("/train") in PROBES:
        chosen = PROBES[name.removesuffix("/train")] if name.endswith("/train") else CLASS_SETS[name]
        folder = open_set(data / chosen, kind="classes")
        rows = torch.arange(len(folder))
        return decoded(folder.images), {
            "item": rows,
            "weights": torch.ones(len(rows)),
            "labels": torch.from_numpy(folder.labels),
            "clusters": rows,
            "classes": folder.classes,
        }
    if name == "coco":
        boxes = open_set(data / "images" / "coco", kind="boxes")
        count = len(boxes.labels)
        shown = (image for scale in SCALES for image in decoded(crops(boxes, scale=scale)))
        return shown, {
            "item": torch.arange(count).repeat(len(SCALES)),
            "weights": torch.ones(count * len(SCALES)),
            "labels": torch.from_numpy(boxes.labels),
            "clusters": torch.from_numpy(boxes.owners),
            "classes": boxes.categories,
        }
    if name == "flickr8k":
        flickr = open_set(data / "images" / "flickr8k" / "captions.csv", split="val", kind="captions")
        rows = torch.arange(len(flickr.images))
        words = {"captions": flickr.captions, "owners": torch.from_numpy(flickr.owners)}
        return decoded(flickr.images), {"item": rows, "weights": torch.ones(len(rows)), **words}
    if name == "panda":
        return _clips(data / "videos" / "panda" / "captions.csv")
    raise ValueError(f"no test {name!r}")


def _clips(table: Path) -> tuple[Iterator[ImageInput], dict[str, Any]]:
    clips = open_set(table, kind="videos")
    frames = [
        (number, segment)
        for number, file in enumerate(clips.videos)
        for segment in sample_video(file, settings=DecodeSettings(fit="crop"), short_side_px=256)
        if isinstance(segment, DecodedSegment)
    ]
    return (Image.fromarray(segment.image) for _, segment in frames), {
        "item": torch.tensor([number for number, _ in frames]),
        "weights": torch.tensor([float(segment.weight) for _, segment in frames]),
        "captions": clips.captions,
        "owners": torch.from_numpy(clips.owners),
    }


def make_tests(
    data: Path,
    cache: Path,
    names: Sequence[str],
    retrievers: Mapping[str, Encoder],
    *,
    size_px: int,
    most: int = 0,
    note: Callable[[str], None] = print,
) -> dict[str, TestSet]:
    """Decode and embed the named tests, or read them from the cache.

    Args:
        data: the development data.
        cache: folder of earlier results.
        names: of the tests: those of `CLASS_SETS`, `<name>/train` of `PROBES`, `coco`, `flickr8k`, `panda`.
        retrievers: encoders whose retrieval embeddings are computed.
        size_px: S.
        most: rows of a set, for a trial; 0 = all.
        note: called with a line of progress per set that was computed.
    """
    return {name: _make(data, cache, name, retrievers, size_px, most, note) for name in names}


def _make(
    data: Path,
    cache: Path,
    name: str,
    retrievers: Mapping[str, Encoder],
    size_px: int,
    most: int,
    note: Callable[[str], None],
) -> TestSet:
    place = cache / "tests" / (name.replace("/", "-") + (f"-{most}" if most else ""))
    parts = {f"pixels-{size_px}": lambda images: pixels_of(images, size_px)}
    for label, encoder in retrievers.items():
        parts[f"{label}-{encoder.fingerprint[:12]}"] = _embedder(encoder)
    files = {part: place / f"{part}.pt" for part in parts}
    missing = [part for part, file in files.items() if not file.is_file()]
    if missing or not (place / "facts.pt").is_file():
        images, facts = build_set(data, name)
        rows: dict[str, list[Tensor]] = {part: [] for part in missing}
        shown = islice(images, most) if most else images
        while batch := list(islice(shown, _AT_ONCE)):
            for part in missing:
                rows[part].append(parts[part](batch))
        kept(place / "facts.pt", lambda: facts)
        for part in missing:
            kept(files[part], lambda part=part: torch.cat(rows[part]))  # type: ignore[misc]
        note(f"{name}: {', '.join(missing)}")
    read: dict[str, Tensor] = {part: torch.load(file) for part, file in files.items()}
    facts = torch.load(place / "facts.pt", weights_only=False)  # a file of this benchmark
    pixels, *retrieval = read.values()
    return TestSet(pixels, dict(zip(retrievers, retrieval, strict=True)), **cut(facts, len(pixels)))


def _embedder(encoder: Encoder) -> Callable[[Sequence[ImageInput]], Tensor]:
    return lambda images: torch.from_numpy(encoder.encode_images(images).retrieval).half()


def cut(facts: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Restrict the fields of a set to its first rows; what belongs to later items is dropped."""
    made = dict(facts)
    item: Tensor = facts["item"]
    if rows == len(item):
        return made
    made["item"], made["weights"] = item[:rows], facts["weights"][:rows]
    items = int(item[:rows].max()) + 1
    for name in ("labels", "clusters"):
        if name in made:
            made[name] = made[name][:items]
    if "owners" in made:
        owned = facts["owners"] < items
        made["owners"] = facts["owners"][owned]
        made["captions"] = tuple(text for text, own in zip(facts["captions"], owned.tolist(), strict=True) if own)
    return made
