"""Layout of the cache: which shards it has, and which of their videos are in force. One small file, replaced last.

    layout.json
    {"format": 2, "state": digest of a commit, "encoder": fingerprint, "shards": [{"name": ..., "dead": [numbers of
     videos that are gone], "changed": {number: [path, time of the last change]}}]}

The files of shards never change, so a commit writes what is new, and this file. A reader that finds a layout of an
earlier commit reads only the videos that have changed since.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from impart.files import write_json_atomic

__all__ = ["FILE", "Layout", "PlacedShard"]

FORMAT = 2
"""Of the cache; version 1 was one folder with all arrays of an index."""
FILE = "layout.json"


@dataclass(frozen=True)
class PlacedShard:
    """A shard of a layout.

    Attributes:
        name: of its files.
        dead: numbers of the videos that are not in force.
        changed: path and time of the last change (Unix time, NaN = unknown) of files that moved or were touched.
    """

    name: str
    dead: tuple[int, ...] = ()
    changed: dict[int, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Content of the cache.

    Attributes:
        state: `Store.state` of the commit that it belongs to.
        encoder: fingerprint of the base encoder.
    """

    state: str
    encoder: str
    shards: tuple[PlacedShard, ...]

    def write(self, cache: Path) -> None:
        """Write it to the folder of the cache.

        Raises:
            OSError: it cannot be written.
        """
        shards = [
            {"name": shard.name, "dead": shard.dead, "changed": {str(key): of for key, of in shard.changed.items()}}
            for shard in self.shards
        ]
        content = {"format": FORMAT, "state": self.state, "encoder": self.encoder, "shards": shards}
        write_json_atomic(cache / FILE, content, indent=None, ascii_only=True)

    @classmethod
    def read(cls, cache: Path) -> Layout | None:
        """Read it; None where there is none, or it is damaged or of another format."""
        try:
            content: Any = json.loads((cache / FILE).read_text(encoding="ascii"))
            if content["format"] != FORMAT:
                return None
            if not all(str(one["name"]).isalnum() for one in content["shards"]):
                return None
            return cls(
                str(content["state"]),
                str(content["encoder"]),
                tuple(
                    PlacedShard(
                        str(one["name"]),
                        tuple(int(number) for number in one["dead"]),
                        {int(key): (str(path), float(time)) for key, (path, time) in one["changed"].items()},
                    )
                    for one in content["shards"]
                ),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
