"""An encoder with a reference set, and the rows of an index that two runs must agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import augment
from impart.video.index.store import Store


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of all tables, in an order that does not depend on that of commits, without times of writing."""
    store, found = Store(folder), {}
    for name in sorted(store.table_names()):
        rows = store.read(name).to_pylist()
        for row in rows:
            row.pop("indexed_at", None)
            row.pop("failed_at", None)
        found[name] = sorted(
            rows, key=lambda row: (row.get("video_id", ""), row.get("number", 0), row.get("path", b""))
        )
    return found


def encoder() -> Any:
    return augment(TinyEncoder(), colour_set(), k=3)
