"""The library behind the MCP tools: one index, opened once, with its videos by id and its folders by their texts."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from impart.errors import ImpartError, QueryError
from impart.serve.mcp.results import FolderEntry, LibraryContents, VideoEntry, VideoList
from impart.serve.schemas.text import path_text
from impart.video.index.index import VideoIndex
from impart.video.index.store import Kind, Store, VideoRecord

__all__ = ["Library"]

_MOST_FOLDERS = 100  # in one answer


class Library:
    """One index, for tools that run in several threads. The model is loaded once, by the first thread that needs it.

    Args:
        index: opened; it must exist.
        may_write: whether names may be taught.
        exports: folder in which timelines are saved; None = they are not saved.
    """

    def __init__(self, index: VideoIndex, *, may_write: bool = False, exports: Path | None = None) -> None:
        self.index = index
        self.may_write = may_write
        self.exports = exports
        self._loading = threading.Lock()
        self._loaded = False
        self._warm: threading.Thread | None = None
        self._listing = threading.Lock()
        self._store = Store(index.path)
        self._records: tuple[str, dict[str, VideoRecord]] = ("", {})

    def with_encoder(self) -> VideoIndex:
        """Return the index, after its model was loaded.

        Raises:
            ImpartError: the model cannot be loaded.
        """
        with self._loading:  # a second thread waits: it must not load the model once more
            if not self._loaded:
                self.index.encoder  # noqa: B018 - loads it
                self._loaded = True
        return self.index

    def warm_up(self) -> None:
        """Load the model and the index in a thread of its own, so that the first search need not wait for them."""
        if self._warm is None:
            self._warm = threading.Thread(target=self._warm_up, name="impart-warm-up", daemon=True)
            self._warm.start()

    def _warm_up(self) -> None:
        with contextlib.suppress(ImpartError, OSError):  # the first call meets the same error, and reports it
            self.with_encoder().search(text="a dog", top=1)

    def records(self) -> list[VideoRecord]:
        """List the indexed videos and photos, sorted by path."""
        return list(self._by_id().values())

    def record(self, video_id: str) -> VideoRecord:
        """Find a video by its id.

        Raises:
            QueryError: no video has it; names the remedy.
        """
        record = self._by_id().get(video_id)
        if record is None:
            raise QueryError(
                f"no video has the id {video_id!r}: take video_id from an answer of search_moments, similar or videos"
            )
        return record

    def ids(self) -> dict[Path, str]:
        """Map the path of each video to its id."""
        return {record.path: record.video_id for record in self.records()}

    def folder(self, text: str | None) -> Path | None:
        """Find a folder of the library by its display text, its name, or the end of its text.

        Raises:
            QueryError: there is none, or more than one; names those that there are.
        """
        if text is None:
            return None
        wanted = text.rstrip("/\\")
        shown = {path_text(folder): folder for folder in self._folders()}
        if wanted in shown:
            return shown[wanted]
        ends = [name for name in shown if name.endswith(f"{os.sep}{wanted}")]
        if len(ends) == 1:
            return shown[ends[0]]
        if ends:
            raise QueryError(f"{len(ends)} folders end with {text!r}: give the whole text of one: {_few(ends)}")
        raise QueryError(f"the library has no folder {text!r}: there are {_few(sorted(shown))}")

    def videos(
        self, *, name_contains: str | None, folder: str | None, kind: Kind | None, offset: int, limit: int
    ) -> VideoList:
        """List the videos whose path contains a text, in a folder, of a kind."""
        place, part = self.folder(folder), (name_contains or "").casefold()
        found = [
            record
            for record in self.records()
            if part in path_text(record.path).casefold()
            and (place is None or place in record.path.parents)
            and (kind is None or record.kind == kind)
        ]
        page = found[offset : offset + limit]
        following = offset + limit if offset + limit < len(found) else None
        return VideoList(videos=[VideoEntry.of(one) for one in page], total=len(found), next_offset=following)

    def contents(self) -> LibraryContents:
        """Count what the library contains."""
        records, folders = self.records(), self._folders()
        order = sorted(folders, key=lambda folder: (len(folder.parts), folder))
        videos = [record for record in records if record.kind == "video"]
        return LibraryContents(
            videos=len(videos),
            photos=len(records) - len(videos),
            video_s=round(sum(float(record.duration_s) for record in videos), 3),
            scenes=sum(len(record.scene_starts) for record in records),
            failures=sum(not failure.no_video for failure in self.index.failures()),
            encoder=self.index.manifest.encoder_id,
            names=[info.name for info in self.index.names.list()],
            folders=[
                FolderEntry(folder=path_text(folder), videos=folders[folder][0], photos=folders[folder][1])
                for folder in order[:_MOST_FOLDERS]
            ],
            folders_left_out=max(0, len(order) - _MOST_FOLDERS),
            may_write=self.may_write,
        )

    def _by_id(self) -> dict[str, VideoRecord]:
        """Return the videos by id, sorted by path; read again only after a commit."""
        with self._listing:
            state = self._store.state()
            if self._records[0] != state:
                self._records = state, {record.video_id: record for record in self.index.videos()}
            return self._records[1]

    def _folders(self) -> dict[Path, tuple[int, int]]:
        """Count the videos and photos below each folder, from the folder that contains all of them on."""
        counts: dict[str, Counter[Path]] = {"video": Counter(), "photo": Counter()}
        records = self.records()
        top = _common([record.path.parent for record in records])
        for record in records:
            for folder in record.path.parents:
                counts[record.kind][folder] += 1
                if folder == top:
                    break
        folders = counts["video"].keys() | counts["photo"].keys()
        return {folder: (counts["video"][folder], counts["photo"][folder]) for folder in folders}


def _common(folders: Sequence[Path]) -> Path | None:
    """Return the folder that contains all folders; None on several drives."""
    if not folders:
        return None
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        return None


def _few(names: Sequence[str], *, most: int = 20) -> str:
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "none"
