"""Rows of the files without a checksum: each must be readable, and each vector finite and of unit length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from impart.video.index.doctor.salvage import only_fragments
from impart.video.index.doctor.tables import Fault, TableState
from impart.video.index.store import Store
from impart.video.search.rank.pairs import wrong_ids

__all__ = ["read_ids", "read_unrecorded"]

_AT_ONCE = 16_384
_UNIT = ("vector", "retrieval")
_TOLERANCE = 0.02  # float16 rounds a unit vector by less than 0.001


def read_unrecorded(state: TableState, into: Path) -> TableState:
    """Read all rows of the data files that have no checksum, and count the bad ones as damaged.

    Args:
        state: of a table.
        into: a folder for links.
    """
    if not state.unrecorded:
        return state
    bad = _read(state, state.unrecorded, into)
    if bad is None:  # which of them?
        each = {number: _read(state, [number], into) for number in state.unrecorded}
        bad = {number: "cannot be read" for number, found in each.items() if found is None}
        bad |= {number: wrong for found in each.values() if found for number, wrong in found.items()}
    faults = tuple(
        Fault(file=state.folder / "data" / name, wrong=bad[fragment.id], in_force=True, rows=fragment.rows)
        for fragment in state.fragments
        if fragment.id in bad
        for name, _ in fragment.files
    )
    return state.with_lost(faults, frozenset(bad))


def read_ids(state: TableState, pairs: int) -> TableState:
    """Read the reference ids of a whole neighbours table, and count it as damaged where the set lacks one.

    Args:
        state: of the table.
        pairs: of the reference set in force.
    """
    if not state.whole:
        return state
    wrong, rows = "", 0
    try:
        for batch in Store(state.folder.parent).table(state.folder.stem).search().select(["ids"]).to_batches(_AT_ONCE):
            found = wrong_ids(batch["ids"].flatten().to_numpy(zero_copy_only=False), pairs)
            wrong, rows = wrong or found, rows + (batch.num_rows if found else 0)
    except Exception:  # noqa: BLE001 - a panic of the database has a class of its own that cannot be imported
        wrong, rows = "has rows that cannot be read", 0
    return (
        state.with_lost((Fault(file=state.folder, wrong=wrong, in_force=True, rows=rows),), frozenset())
        if wrong
        else state
    )


def _read(state: TableState, ids: Collection[int], into: Path) -> dict[int, str] | None:
    """Read the rows of some fragments. Returns what is wrong, by fragment; None where they cannot be read."""
    counts: Counter[int] = Counter()
    try:
        table = only_fragments(state, ids, into)
        for batch in table.search().with_row_id(True).to_batches(_AT_ONCE):
            batch.validate(full=True)
            fragments = batch["_rowid"].to_numpy().astype(np.int64) >> 32
            bad = np.zeros(batch.num_rows, bool)
            for name in _UNIT:
                if name in batch.schema.names:
                    bad |= _not_unit(batch[name])
            counts.update(fragments[bad].tolist())
    except Exception:  # noqa: BLE001 - a panic of the database has a class of its own that cannot be imported
        return None
    return {number: f"has {count} rows whose vector is not of unit length" for number, count in counts.items()}


def _not_unit(column: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Find the rows of a column of n lists whose vector is not finite, or not of unit length."""
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(flat.reshape(len(column), -1), axis=1)
        bad: np.ndarray[Any, np.dtype[np.bool_]] = ~(np.abs(lengths - 1) < _TOLERANCE)
    return bad
