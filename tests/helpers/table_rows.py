"""All rows of a video index, to compare two of them."""

from __future__ import annotations

from typing import Any

from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, VIDEOS, Store


def rows_of(index: VideoIndex) -> dict[str, list[dict[str, Any]]]:
    """Read all rows by table, in an order that does not depend on the order of commits, without `indexed_at`."""
    store, augmentation = Store(index.path), index.manifest.augmentation
    names = {"videos": VIDEOS, "segments": SEGMENTS, **({"neighbours": augmentation.table} if augmentation else {})}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, table in names.items():
        rows = [
            {key: value for key, value in row.items() if key != "indexed_at"} for row in store.read(table).to_pylist()
        ]
        found[name] = sorted(rows, key=lambda row: (row["video_id"], row["revision"], row.get("number", 0)))
    failures = index.failures()
    return found | {
        "failures": [{"path": one.path, "reason": one.reason, "attempts": one.attempts} for one in failures]
    }
