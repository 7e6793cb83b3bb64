"""Features of the frozen image tower, computed once per view and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import DataError
from impart.files import file_key, read_ahead, sha256_hex
from impart.train.prepare.columns import Column, ColumnStore
from impart.train.prepare.views import try_open_view

__all__ = ["FeatureCache", "FeatureTower"]

_log = logging.getLogger(__name__)
_REPORT = 4096  # images between two lines of the log


class FeatureTower(Protocol):
    """A frozen image tower.

    Attributes:
        key: digest of weights and preprocessing; features are shared under equal keys only.
        width: F.
    """

    key: str
    width: int

    def __call__(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Compute features (B, F) of B images."""
        ...


class FeatureCache:
    """Features on disk as float16, one column store per view.

    The row of an image that cannot be read is NaN: see `readable`.

    Args:
        folder: of the cache; made when missing.
        tower: computes features.
        seed: of the random views.
        batch: images in one pass.
    """

    def __init__(self, folder: Path, tower: FeatureTower, *, seed: int = 0, batch: int = 16):
        self._folder = folder / sha256_hex(f"{tower.key}|{seed}")[:12]
        self._tower = tower
        self._seed = seed
        self._batch = batch

    def features(self, paths: Sequence[Path], view: str) -> npt.NDArray[np.float32]:
        """Return features (n, F) of n images in one view; those that are not on disk are computed.

        Raises:
            DataError: an image cannot be read.
        """
        rows = self._rows(paths, view)
        broken = np.flatnonzero(np.isnan(rows[:, 0]))
        if len(broken):
            raise DataError(f"cannot read image {paths[broken[0]]}: replace it, or leave it out")
        return rows.astype(np.float32)

    def readable(self, paths: Sequence[Path]) -> list[bool]:
        """Return for each of n images whether it can be read. Their features of view `clean` are computed."""
        return [not broken for broken in np.isnan(self._rows(paths, "clean")[:, 0])]

    def _rows(self, paths: Sequence[Path], view: str) -> npt.NDArray[np.float16]:
        store = ColumnStore(self._folder, view, {"features": Column(np.float16, (self._tower.width,))})
        keys = [file_key(path) for path in paths]
        missing = store.missing(keys)
        jobs = ((paths[number], view, self._seed) for number in missing)
        with closing(read_ahead(jobs, try_open_view, workers=2, ahead=4 * self._batch)) as opened:
            for first in range(0, len(missing), self._batch):
                part = missing[first : first + self._batch]
                features = self._compute(list(islice(opened, len(part))))
                store.append([keys[number] for number in part], {"features": features})
                done = first + len(part)
                if done // _REPORT > first // _REPORT or done == len(missing):
                    _log.info("features of view %s: %d of %d images", view, done, len(missing))
        rows: npt.NDArray[np.float16] = store.column("features")[store.rows(keys)]
        return rows

    def _compute(self, images: Sequence[Image.Image | None]) -> npt.NDArray[np.float16]:
        placeholder = Image.new("RGB", (64, 64))
        features = self._tower([image or placeholder for image in images]).astype(np.float16)
        features[[image is None for image in images]] = np.nan
        return features
