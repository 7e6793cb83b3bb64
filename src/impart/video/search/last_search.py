"""The last search of an index: its hits with the numbers under which they were printed.

`impart export` and `impart names add --from-hits` refer to these numbers. The file `last-search.json` is in the folder
of the index. It is optional: on a disk that cannot be written it is not kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from impart.errors import QueryError
from impart.files import atomic_path
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import LAST_SEARCH, Kind
from impart.video.search.hits import Hit

__all__ = ["LastSearch", "SavedHit", "load_last_search", "save_last_search"]


@dataclass(frozen=True, kw_only=True)
class SavedHit:
    """A hit of the last search.

    Attributes:
        number: as printed, from 1.
        start_s, end_s, best_s: of the moment, seconds.
        label: what was searched for, or the name that was found.
    """

    number: int
    path: Path
    start_s: float
    end_s: float
    best_s: float
    score: float
    video_id: str
    kind: Kind
    label: str


@dataclass(frozen=True, kw_only=True)
class LastSearch:
    """The query of the last search, and the hits that were printed.

    Attributes:
        query: in words.
        command: the command that made it, such as `search` or `names find`.
    """

    query: str
    command: str
    hits: tuple[SavedHit, ...]

    @classmethod
    def of(cls, hits: Sequence[Hit], *, query: str, command: str) -> LastSearch:
        """Make the record of hits that are printed with their ranks as numbers."""
        same = ("path", "start_s", "end_s", "best_s", "score", "video_id", "kind")
        saved = (SavedHit(number=hit.rank, label=query, **{name: getattr(hit, name) for name in same}) for hit in hits)
        return cls(query=query, command=command, hits=tuple(saved))

    def take(self, numbers: Sequence[int]) -> list[SavedHit]:
        """Return the hits with these numbers, in the order given; all, where none is given.

        Raises:
            QueryError: the last search had no hit with a number.
        """
        known = {hit.number: hit for hit in self.hits}
        absent = [number for number in numbers if number not in known]
        if absent:
            raise QueryError(
                f"the last search ({self.query!r}) has no hit {', '.join(map(str, absent))}: "
                + (f"its numbers are {min(known)} to {max(known)}" if known else "it found nothing")
            )
        return [known[number] for number in numbers] if numbers else list(self.hits)


def save_last_search(folder: Path, search: LastSearch) -> None:
    """Keep a search in the folder of an index; nothing happens where that cannot be written."""
    value = {
        "query": search.query,
        "command": search.command,
        "hits": [vars(hit) | {"path": os.fsencode(hit.path).hex()} for hit in search.hits],
    }
    with suppress(OSError), atomic_path(folder / LAST_SEARCH) as part:
        part.write_text(json.dumps(value), encoding="ascii")


def load_last_search(folder: Path) -> LastSearch:
    """Read the last search of an index.

    Raises:
        QueryError: there was none; names the remedy.
        VideoIndexError: there is no index.
    """
    IndexManifest.load(folder)
    try:
        value = json.loads((folder / LAST_SEARCH).read_text(encoding="ascii"))
        hits = tuple(
            SavedHit(**(hit | {"path": Path(os.fsdecode(bytes.fromhex(hit["path"])))})) for hit in value["hits"]
        )
        return LastSearch(query=value["query"], command=value["command"], hits=hits)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise QueryError(
            f"no search of the index {folder} is kept: search first, such as: "
            f"impart search 'a dog on a skateboard' --index {folder}"
        ) from error
