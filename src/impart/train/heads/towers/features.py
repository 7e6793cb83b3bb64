"""Features of the frozen image tower, computed once per view and kept on disk.

A *view* is a way to look at an image: `clean` as the encoder will see it; `crop0, crop1, ...` random crops; `small0,
small1, ...` random crops shrunk to 32-64 px and enlarged again, so that the heads learn what tiny images do to the
features. Every random choice is seeded by (seed, view, file name): a rerun, or a run with more images, gives the
same views, and an image once seen is never computed again.
"""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Protocol

import filelock
import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import DataError
from impart.files import atomic_path, file_key, read_ahead, sha256_hex, write_atomic

__all__ = ["FeatureCache", "look", "open_look", "image_key", "try_look"]

_log = logging.getLogger(__name__)
_SMALL_PX = (32, 64)
_PART = 4096
"""Images whose features are written at once."""
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


class FeatureTower(Protocol):
    """What computes features: images (PIL) to (B, F)."""

    def __call__(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]: ...


def look(image: Image.Image, view: str, *, seed: int) -> Image.Image:
    """One view of an image, before the encoder's own preprocessing.

    Args:
        image: RGB.
        view: `clean`, or `crop` or `small` followed by a number.
        seed: of this image and view.
    """
    if view == "clean":
        return image
    rng = np.random.default_rng(seed)
    kind = view.rstrip("0123456789")
    if kind not in {"crop", "small"}:
        raise DataError(f"no view {view!r}: there are clean, crop0, crop1, ..., small0, small1, ...")
    image = _random_crop(image, rng, area=(0.35, 1.0) if kind == "crop" else (0.5, 1.0))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind == "small":
        low, high = _SMALL_PX
        side = round(low * (high / low) ** (rng.random() ** 2))  # more often near 32
        side = min(side, *image.size)
        image = image.resize((side, side), _FILTERS[rng.integers(len(_FILTERS))])
        if rng.random() < 0.3:
            image = _jpeg(image, quality=int(rng.integers(60, 96)))
    return image


def _random_crop(image: Image.Image, rng: np.random.Generator, *, area: tuple[float, float]) -> Image.Image:
    """A nearly square part with a share of the largest centre square's area."""
    width, height = image.size
    square = min(width, height)
    side = np.sqrt(rng.uniform(*area)) * square
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
    w, h = min(width, max(1, round(side * aspect))), min(height, max(1, round(side / aspect)))
    # Centre-weighted: the mean of two uniform draws, since that is where objects are.
    left = round((width - w) * (rng.random() + rng.random()) / 2)
    top = round((height - h) * (rng.random() + rng.random()) / 2)
    return image.crop((left, top, left + w, top + h))


def _jpeg(image: Image.Image, *, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


class FeatureCache:
    """Features on disk: float16 arrays of some thousand images, and beside each the keys of its rows.

    An image that cannot be read has a row of NaN: see `readable`.

    Args:
        folder: where the arrays are kept; made when missing.
        tower: computes features.
        tower_key: names weights and preprocessing; another key never shares features.
        seed: of the random views.
        batch: images in one pass.
    """

    def __init__(self, folder: Path, tower: FeatureTower, *, tower_key: str, seed: int = 0, batch: int = 16):
        self._folder = folder / sha256_hex(f"{tower_key}|{seed}")[:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tower = tower
        self._seed = seed
        self._batch = batch

    def features(self, paths: Sequence[Path], view: str) -> npt.NDArray[np.float32]:
        """Features (n, F) of n images in one view, computed where they are not on disk yet.

        Killed while it computes, it has lost at most the last few thousand images.

        Raises:
            DataError: an image cannot be read.
        """
        rows = self._rows(paths, view)
        broken = np.flatnonzero(np.isnan(rows[:, 0]))
        if len(broken):
            raise DataError(f"cannot read image {paths[broken[0]]}: replace it, or leave it out")
        return rows.astype(np.float32)

    def readable(self, paths: Sequence[Path]) -> list[bool]:
        """Which images can be read: n answers. Their features of view `clean` are computed on the way."""
        return [not broken for broken in np.isnan(self._rows(paths, "clean")[:, 0])]

    def _rows(self, paths: Sequence[Path], view: str) -> npt.NDArray[np.float16]:
        names = [file_key(path) for path in paths]
        parts = self._load(view)
        known = {name for own, _ in parts for name in own}
        missing = {name: path for path, name in zip(paths, names, strict=True) if name not in known}
        for first in range(0, len(missing), _PART):
            part = dict(islice(missing.items(), first, first + _PART))
            parts.append((list(part), self._compute(list(part.values()), view)))
            self._save(view, *parts[-1])
            _log.info("features of view %s: %d of %d images", view, first + len(part), len(missing))
        place = {name: row for row, name in enumerate(name for own, _ in parts for name in own)}
        return np.concatenate([rows for _, rows in parts])[[place[name] for name in names]]

    def _compute(self, paths: Sequence[Path], view: str) -> npt.NDArray[np.float16]:
        rows: list[npt.NDArray[np.float16]] = []
        jobs = ((path, view, self._seed) for path in paths)
        with closing(read_ahead(jobs, try_look, workers=2, ahead=4 * self._batch)) as opened:
            while batch := list(islice(opened, self._batch)):
                stand_in = Image.new("RGB", (64, 64))
                found = self._tower([image or stand_in for image in batch]).astype(np.float16)
                found[[image is None for image in batch]] = np.nan
                rows.append(found)
        return np.concatenate(rows)

    def _load(self, view: str) -> list[tuple[list[str], npt.NDArray[np.float16]]]:
        """Every part that was written whole: its names are written last."""
        return [
            (names.read_text(encoding="utf-8").splitlines(), np.load(names.with_suffix(".npy")))
            for names in sorted(self._folder.glob(f"{view}-*.txt"))
        ]

    def _save(self, view: str, names: Sequence[str], features: npt.NDArray[np.float16]) -> None:
        with filelock.FileLock(self._folder / "lock"):  # another run may use the same cache
            number = len(list(self._folder.glob(f"{view}-*.txt")))
            place = self._folder / f"{view}-{number:05d}"
            with atomic_path(place.with_suffix(".npy")) as part, part.open("wb") as file:
                np.save(file, features)
            write_atomic(place.with_suffix(".txt"), "\n".join(names))


def image_key(path: Path) -> str:
    """A name that does not depend on where the data lies: the last four parts of the path."""
    return "/".join(path.parts[-4:])


def open_look(job: tuple[Path, str, int]) -> Image.Image:
    """A view of an image file; the job is (file, view, seed)."""
    path, view, seed = job
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"cannot read image {path}: {error}") from error
    return look(rgb, view, seed=zlib.crc32(f"{seed}|{view}|{image_key(path)}".encode()))


def try_look(job: tuple[Path, str, int]) -> Image.Image | None:
    """As `open_look`; None, and a warning, where the image cannot be read."""
    try:
        return open_look(job)
    except DataError as error:
        _log.warning("%s", error)
        return None
