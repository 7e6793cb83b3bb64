"""Coarse codes in the cache of an index: the basis that they share, and how it is fitted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from impart.blending.encoder import AugmentedEncoder
from impart.retrieval.coarse import Basis
from impart.retrieval.hubness import CaptionBank
from impart.video.index.manifest import IndexManifest
from impart.video.search.scoring import frame_vectors
from impart.video.search.snapshot import Snapshot

__all__ = ["LEAST", "basis_file", "fit_basis", "read_basis", "write_basis"]

LEAST = 20_000
"""Units or frames from which on they have coarse codes; all of fewer are compared."""
_FITTED = 20_000  # frames that the basis is fitted on
_GROWN = 8  # times the segments that it was fitted for, from which on it is fitted anew


def fit_basis(snapshot: Snapshot, encoder: AugmentedEncoder | None, bank: CaptionBank | None) -> Basis:
    """Fit the basis of the codes on evenly spaced frames.

    Args:
        encoder: the augmentation in force.
        bank: captions that come with the model, as examples of texts.
    """
    rows = np.linspace(0, len(snapshot) - 1, min(len(snapshot), _FITTED)).astype(np.int64)
    return Basis.fit(frame_vectors(snapshot, encoder, rows), None if bank is None else bank.captions)


def basis_file(cache: Path, manifest: IndexManifest) -> Path | None:
    """Find the file of the basis for the reference set in force; None where there is none."""
    return max(cache.glob(f"{_name(manifest)}-*.basis"), key=_fitted_for, default=None)


def read_basis(cache: Path, manifest: IndexManifest, *, count: int) -> Basis | None:
    """Read the basis for the reference set in force.

    Args:
        count: segments of the index.

    Returns:
        None where there is none, it is damaged, or the index has grown much since it was fitted.
    """
    file = basis_file(cache, manifest)
    if file is None or count > _GROWN * _fitted_for(file):
        return None
    with suppress(OSError, ValueError):
        basis = Basis.load(file)
        if basis.mean.shape == (manifest.dim,):
            return basis
    return None


def write_basis(cache: Path, manifest: IndexManifest, basis: Basis, *, count: int) -> None:
    """Write the basis, in place of an older one.

    Args:
        count: segments of the index that it was fitted for.
    """
    old = basis_file(cache, manifest)
    file = cache / f"{_name(manifest)}-{count}.basis"
    basis.save(file)
    if old is not None and old != file:
        old.unlink(missing_ok=True)


def _name(manifest: IndexManifest) -> str:
    augmentation = manifest.augmentation
    return "plain" if augmentation is None else augmentation.fingerprint[:16]


def _fitted_for(file: Path) -> int:
    number = file.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
