"""`Client`: the methods of `VideoIndex` over HTTP, for programs on this machine or another one."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from impart.config import DEFAULT_HOST, DEFAULT_PORT, By, Group, SearchSettings
from impart.encoders.base import ImageInput
from impart.errors import IndexLockedError, QueryError, VideoIndexError
from impart.files import atomic_path
from impart.serve.client.names import ClientNames
from impart.serve.client.requests import image_file, search_request
from impart.serve.client.results import (
    ServedEvent,
    ServedFailure,
    ServedVideo,
    hit_of,
    reason_of,
    scene_of,
    stats_of,
    video_of,
)
from impart.serve.client.transport import Transport, error_of
from impart.video.index.stats import IndexStats
from impart.video.index.store import Kind
from impart.video.scenes.scene import Scene
from impart.video.search.dates import Date, Length
from impart.video.search.hits import Hit, Reason
from impart.video.search.query import Query, SearchKeywords

__all__ = ["Client"]

_PAGE = 100
_ID = re.compile("[0-9a-f]{16}")
_SILENCE_S = 60.0  # of a stream of events; the server sends something more often
_RECONNECT_S = 1.0
_TRIES = 5  # to come back to a stream of events

Form = Literal["clips", "reel", "sheet", "edl", "fcp7", "fcpxml", "otio", "csv", "resolve", "chapters"]


class Client:
    """A client of `impart serve`, with the methods and the result classes of `VideoIndex`. Threads may share it.

    Videos are named by their ids (`Hit.video_id`), by the paths that the server shows, or by a file name that one video
    has. Files are read and written on this machine; only indexing (`add`) takes folders of the server's.

    Args:
        address: of the server.
        token: of the server, where it asks for one.
        timeout_s: for each answer, and for all waiting where the server is busy.
        tries: of a request that the server refuses since it is busy.

    Raises:
        ConfigError: the address is none of HTTP.

    Example:
        >>> with Client("http://127.0.0.1:9") as client:  # where no server is
        ...     client.search(text="a dog on a skateboard", top=10)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        impart.errors.VideoIndexError: no server at http://127.0.0.1:9: start it with: impart serve (...)
    """

    def __init__(
        self,
        address: str = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}",
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        tries: int = 4,
    ) -> None:
        self._transport = Transport(address, token=token, timeout_s=timeout_s, tries=tries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def search(
        self,
        *,
        text: str | None = None,
        image: str | os.PathLike[str] | ImageInput | None = None,
        not_text: Sequence[str] = (),
        top: int | None = None,
        group: Group | None = None,
        by: By | None = None,
        folder: str | os.PathLike[str] | None = None,
        kind: Kind | None = None,
        since: Date | None = None,
        until: Date | None = None,
        min_length: Length | None = None,
        max_length: Length | None = None,
        why: bool = False,
    ) -> list[Hit]:
        """Find moments by a text, an image, or both; see `VideoIndex.search`.

        Pages are followed until there are `top` hits.

        Args:
            image: a file of this machine, or an image in memory; it is uploaded.
            folder: as the server shows it.

        Raises:
            QueryError: the query or an option is not valid.
            VideoIndexError: the server cannot be reached, or has no index.
        """
        return self.search_many(
            [Query(text=text, image=image, not_text=not_text)],
            top=top,
            group=group,
            by=by,
            folder=folder,
            kind=kind,
            since=since,
            until=until,
            min_length=min_length,
            max_length=max_length,
            why=why,
        )[0]

    def search_many(self, queries: Sequence[Query], **keywords: Unpack[SearchKeywords]) -> list[list[Hit]]:
        """Answer queries one after the other; see `VideoIndex.search_many`.

        Args:
            queries: each a text, an image or both, with `not_text`, and one text as `then`.
            keywords: see `SearchOptions`. A server does not take `augment`, `path_glob`, `exact` and `offset`.

        Raises:
            QueryError: a query or an option is not valid, or the server does not take it.
        """
        return [self._search(query, keywords) for query in queries]

    def similar(self, path: str | os.PathLike[str], at_s: float, **keywords: Unpack[SearchKeywords]) -> list[Hit]:
        """Find moments that look like a moment of an indexed video; see `VideoIndex.similar`.

        Args:
            path: of the video, or its id.
            at_s: seconds from the start of the video.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """
        request = search_request(None, keywords) | {"similar": {"video_id": self.video_id(path), "at_s": at_s}}
        return self._pages(request, keywords.get("top"))

    @cached_property
    def names(self) -> ClientNames:
        """The taught names of the index: add, list, remove, rename, find."""
        return ClientNames(self._transport, self.video_id)

    def find(self, name: str, *, top: int | None = None, by_time: bool = False) -> list[Hit]:
        """Find the spans in which a taught name is present; see `VideoIndex.find`.

        Raises:
            QueryError: there is no such name.
        """
        return self.names.find(name, top=top, by_time=by_time)

    def why(self, path: str | os.PathLike[str], at_s: float) -> tuple[Reason, ...]:
        """List the reference pairs that are blended into a moment of a video; see `VideoIndex.why`.

        Args:
            path: of the video, or its id.
        """
        answer = self._transport.json("GET", f"/videos/{self.video_id(path)}/why", params={"t": at_s})
        return tuple(reason_of(one) for one in answer["pairs"])

    def scenes(self, path: str | os.PathLike[str]) -> list[Scene]:
        """List the scenes of an indexed video; see `VideoIndex.scenes`. Their vectors are empty: no server tells them.

        Args:
            path: of the video, or its id.
        """
        answer = self._transport.json("GET", f"/videos/{self.video_id(path)}/scenes")
        return [scene_of(one) for one in answer["scenes"]]

    def videos(self) -> list[ServedVideo]:
        """List the indexed videos and photos, sorted by path."""
        return [video_of(one) for one in self._listed("/videos", "videos")]

    def failures(self) -> list[ServedFailure]:
        """List the files that could not be indexed, or not completely, with reasons."""
        return [
            ServedFailure(
                path=Path(one["path"]),
                kind=one["kind"],
                reason=one["reason"],
                attempts=one["attempts"],
                failed_at=one["failed_at"],
            )
            for one in self._listed("/failures", "failures")
        ]

    def stats(self) -> IndexStats:
        """Count what the index contains. The settings of the blend are None: no server tells them here.

        Raises:
            VideoIndexError: there is no index yet.
        """
        answer = self._transport.json("GET", "/index")
        if not answer["exists"]:
            raise VideoIndexError(f"there is no index at {self._transport.address} yet: index a folder, see Client.add")
        return stats_of(answer)

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
        *,
        prune: bool = False,
        retry_failed: bool = False,
    ) -> Iterator[ServedEvent]:
        """Start an indexing job on the server, and follow it to its end. It goes on when this is left early.

        Args:
            paths: folders of the server, inside those that it may index; None = all of these.
            prune, retry_failed: see `VideoIndex.add`.

        Yields:
            Events; the last one, `done`, has the whole job.

        Raises:
            IndexLockedError: another process is writing to the index.
            ImpartError: the job failed.
        """
        given: list[str] | None = None
        if paths is not None:
            listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
            given = [os.fspath(path) for path in listed]
        request = {"paths": given, "prune": prune, "retry_failed": retry_failed}
        job = self._transport.json("POST", "/jobs/index", json=request)
        yield from self._followed(job["id"])

    def export(
        self, hits: Iterable[Hit], path: str | os.PathLike[str], *, form: Form, handles: str = "0f", title: str = ""
    ) -> Path:
        """Write the spans of hits as a file of this machine: clips, a reel, a contact sheet, or a timeline.

        Args:
            hits: in the order of the export.
            path: the file to write; several files come as one ZIP archive.
            form: see `impart export --to`.
            handles: more on both sides of each span: `12f` are frames, `0.5s` seconds.

        Returns:
            The file.

        Raises:
            ImpartError: the export failed, or left out all spans.
        """
        target = Path(path).expanduser()
        spans = [
            {"video_id": hit.video_id, "start_s": hit.start_s, "end_s": hit.end_s, "label": ", ".join(hit.names)}
            for hit in hits
        ]
        if not spans:
            raise QueryError("there are no hits to export: search first")
        request = {"form": form, "spans": spans, "handles": handles, "title": title or target.stem}
        job = self._transport.json("POST", "/exports", json=request)
        for _ in self._followed(job["id"]):
            pass

        def write(pieces: Iterator[bytes]) -> None:
            with atomic_path(target) as part, part.open("wb") as file:
                file.writelines(pieces)

        try:
            self._transport.save(f"/exports/{job['id']}/file", write)
        except OSError as error:
            raise VideoIndexError(f"cannot write {target}: {error.strerror or error}") from error
        return target

    def video_id(self, path: str | os.PathLike[str]) -> str:
        """Return the id of a video.

        Args:
            path: its id, its path as the server shows it, or a file name that one video has.

        Raises:
            QueryError: the index has none, or several.
        """
        given = os.fspath(path)
        if _ID.fullmatch(given):
            return given
        name = Path(given).name
        found = [one for one in self._listed("/videos", "videos", {"q": name}) if one["name"] == name]
        same = [one for one in found if one["path"] in (given, os.path.abspath(given))]  # noqa: PTH100 - links stay
        if not same and name == given:
            same = found
        if len(same) > 1:
            raise QueryError(f"{len(same)} indexed videos are called {name}: give the path or the id of one of them")
        if not same:
            raise QueryError(f"{given} is not in the index of {self._transport.address}: see Client.videos")
        return str(same[0]["video_id"])

    def _search(self, query: Query, keywords: SearchKeywords) -> list[Hit]:
        request = search_request(query, keywords)
        image = None if query.image is None else image_file(query.image)
        return self._pages(request, keywords.get("top"), image=image)

    def _pages(self, request: dict[str, Any], top: int | None, *, image: tuple[str, bytes] | None = None) -> list[Hit]:
        """Ask for pages until there are `top` hits; the image is uploaded with the first one."""
        wanted = SearchSettings().top if top is None else top
        if wanted < 1:
            raise QueryError(f"top is {wanted}: ask for at least one hit")
        hits: list[Hit] = []
        while len(hits) < wanted:
            request = request | {"limit": min(_PAGE, wanted - len(hits))}
            if image is None:
                answer = self._transport.json("POST", "/search", json=request)
            else:
                form = {"request": json.dumps(request)}
                answer = self._transport.json("POST", "/search", data=form, files={"image": image})
                request, image = request | {"image_id": answer["image_id"]}, None
            hits += [hit_of(one) for one in answer["hits"]]
            if answer["next_cursor"] is None:
                break
            request = request | {"cursor": answer["next_cursor"]}
        return hits

    def _listed(self, path: str, key: str, params: dict[str, str] | None = None) -> Iterator[Any]:
        """Yield all entries of a list, page by page."""
        cursor: str | None = None
        while True:
            asked: dict[str, Any] = {"limit": _PAGE, **(params or {})} | ({"cursor": cursor} if cursor else {})
            answer = self._transport.json("GET", path, params=asked)
            yield from answer[key]
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    def _followed(self, job_id: str) -> Iterator[ServedEvent]:
        """Yield the events of a job to its end; a connection that breaks is opened again at the last event.

        Raises:
            ImpartError: the job failed.
        """
        last, left = 0, _TRIES
        while True:
            headers = {"Last-Event-ID": str(last)} if last else {}
            try:
                with self._transport.stream(f"/jobs/{job_id}/events", headers=headers, read_s=_SILENCE_S) as answer:
                    for event in _events(answer.iter_lines()):
                        last, left = event.number, _TRIES
                        yield event
                        if event.kind == "done":
                            self._check(event.data)
                            return
            except IndexLockedError:
                raise
            except VideoIndexError:
                left -= 1
                if not left:
                    raise
            time.sleep(_RECONNECT_S)

    def _check(self, job: Any) -> None:
        if job["status"] == "failed":
            raise error_of(500, job["error"], address=self._transport.address)


def _events(lines: Iterable[str]) -> Iterator[ServedEvent]:
    """Parse server-sent events; comments and events without a number are left out.

    >>> [(event.number, event.data) for event in _events(["id: 3", "event: status", 'data: {"a": 1}', "", ": still"])]
    [(3, {'a': 1})]
    """
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
            continue
        with suppress(KeyError, ValueError):
            number, data = int(fields["id"]), json.loads(fields["data"])
            yield ServedEvent(number=number, kind=fields.get("event", "message"), data=data)
        fields = {}
