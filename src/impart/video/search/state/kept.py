"""Kept arrays: what takes seconds to compute from all segments, such as the presence of a name, in the cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.files import atomic_path
from impart.video.search.snapshot import Snapshot

__all__ = ["kept_array", "kept_folder"]


def kept_folder(cache: Path, state: str) -> Path:
    """Return the folder of the arrays of one commit."""
    return cache / f"kept-{state}"


def kept_array(
    index: Path, snapshot: Snapshot, name: str, shape: tuple[int, ...], make: Callable[[], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Read an array from the cache of the index, or make it and keep it there. The next commit deletes it.

    Args:
        index: folder of the index.
        name: of the file, without suffix; unique for what the array depends on besides the snapshot.
    """
    folder = kept_folder(index / "cache", snapshot.state)
    file = folder / f"{name}.npy"
    try:
        known: npt.NDArray[np.float32] = np.load(file)
        if known.shape == shape and known.dtype == np.float32:
            return known
    except Exception:  # noqa: BLE001 - NumPy raises errors of Python's tokenizer for a damaged header
        pass
    made = make()
    if snapshot.state and "/" not in snapshot.state:  # that of a part
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            with atomic_path(file) as part, part.open("wb") as open_file:
                np.save(open_file, made)
    return made
