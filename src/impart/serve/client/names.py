"""The taught names of a served index."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from impart.encoders.base import ImageInput
from impart.errors import DataError, QueryError
from impart.serve.client.requests import image_file
from impart.serve.client.results import added_of, hit_of, name_of
from impart.serve.client.transport import Transport
from impart.video.names.find import Hits
from impart.video.names.store import fold
from impart.video.names.taught import Added, NameInfo
from impart.video.search.hits import parse_moment

__all__ = ["ClientNames"]

_PAGE = 100
_SHOWN = 20  # names in a message
_AT_ONCE = 20  # images that a server takes in one form


class ClientNames:
    """The taught names of a served index; `Client.names`. A name is in force at once.

    Args:
        transport: sends the requests.
        video_id_of: returns the id of a video.
    """

    def __init__(self, transport: Transport, video_id_of: Callable[[str], str]) -> None:
        self._transport = transport
        self._video_id_of = video_id_of

    def add(self, name: str, images: Sequence[str | os.PathLike[str] | ImageInput]) -> Added:
        """Teach a name, or add images to a known one; see `Names.add`.

        Args:
            images: image files of this machine and images in memory, which are uploaded; moments of videos of the index
                such as `clip.mp4@12.5`.

        Raises:
            ConfigError: the name is empty, too long, or contains control characters.
            DataError: none of the images can be read.
        """
        moments, files = [], []
        for image in images:
            if isinstance(image, str | os.PathLike) and not Path(image).exists() and "@" in Path(image).name:
                video, at_s = parse_moment(os.fspath(image))
                moments.append({"video_id": self._video_id_of(video), "at_s": at_s})
            else:
                files.append(("images", image_file(image)))
        if not moments and not files:
            raise DataError(f"no image of {name} was given")
        results = []
        for first in range(0, len(files), _AT_ONCE):
            some = files[first : first + _AT_ONCE]
            results.append(added_of(self._transport.json("POST", "/names", data={"name": name}, files=some)))
        if moments:
            results.append(added_of(self._transport.json("POST", "/names", json={"name": name, "moments": moments})))
        return _joined(results)

    def list(self, *, check: bool = False) -> tuple[NameInfo, ...]:
        """List the names in alphabetical order; see `Names.list`.

        Args:
            check: add the report of each name.
        """
        return tuple(name_of(one) for one in self._listed(check=check))

    def remove(self, name: str, sources: Iterable[str] = (), *, hashes: Iterable[str] = ()) -> int:
        """Remove a name, or some of its images; see `Names.remove`.

        Args:
            sources: images as `list` has them; a file name is enough. Without sources and hashes: the whole name.
            hashes: images by the hash of their content, as `list` has them.

        Returns:
            The number of images removed.

        Raises:
            QueryError: there is no such name or image.
        """
        found = self._known(name)
        wanted = [*sources, *hashes]
        place = f"/names/{found['name_id']}"
        if not wanted:
            return int(self._transport.json("DELETE", place)["removed"])
        chosen: dict[str, None] = {}
        for one in wanted:
            fitting = [
                image["image_id"]
                for image in found["images"]
                if one in (image["source"], Path(image["source"]).name, image["image_id"])
                or image["source"] == f"upload: {one}"
            ]
            if not fitting:
                raise QueryError(
                    f"{found['name']} has no image {one}: it has {', '.join(i['source'] for i in found['images'])}"
                )
            chosen |= dict.fromkeys(fitting)
        return sum(int(self._transport.json("DELETE", f"{place}/images/{one}")["removed"]) for one in chosen)

    def rename(self, old: str, new: str) -> str:
        """Give a name another spelling; return it.

        Raises:
            QueryError: there is no such name, or the new one is another name already.
            ConfigError: the new name is empty, too long, or contains control characters.
        """
        place = f"/names/{self._known(old)['name_id']}"
        return str(self._transport.json("PATCH", place, json={"name": new})["name"])

    def find(self, name: str, *, top: int | None = None, by_time: bool = False) -> Hits:
        """Find the spans in which a name is present; see `Names.find`.

        Args:
            top: most spans; None = all.
            by_time: in order of path and time, not the best first.

        Raises:
            QueryError: there is no such name.
        """
        place = f"/names/{self._known(name)['name_id']}/spans"
        hits: Hits = []
        cursor: str | None = None
        while top is None or len(hits) < top:
            limit = _PAGE if top is None else min(_PAGE, top - len(hits))
            asked: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
            answer = self._transport.json("GET", place, params=asked)
            hits += [hit_of(one) for one in answer["hits"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        if by_time:
            in_order = sorted(hits, key=lambda hit: (hit.path, hit.start_s))
            hits = [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(in_order, 1)]
        return hits

    def _listed(self, *, check: bool = False) -> Sequence[dict[str, Any]]:
        names: Sequence[dict[str, Any]] = self._transport.json("GET", "/names", params={"check": check})["names"]
        return names

    def _known(self, name: str) -> dict[str, Any]:
        """Return the name as it was taught, whatever the case.

        Raises:
            QueryError: it was not; names those that were.
        """
        names = self._listed()
        found = next((one for one in names if fold(one["name"]) == fold(name)), None)
        if found is None:
            there = ", ".join(one["name"] for one in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise QueryError(f"no name {name!r}: " + (f"there are: {there}" if there else "none was taught yet"))
        return found


def _joined(results: Sequence[Added]) -> Added:
    """Join what two requests did to one name; reports are those of the last one."""
    added: dict[str, int] = {}
    for result in results:
        for name, count in result.added.items():
            added[name] = added.get(name, 0) + count
    return Added(
        added=added,
        known=tuple(one for result in results for one in result.known),
        failed=tuple(one for result in results for one in result.failed),
        notes=tuple(one for result in results for one in result.notes),
        reports=results[-1].reports,
    )
