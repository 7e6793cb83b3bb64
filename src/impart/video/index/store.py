"""A video index on disk: LanceDB tables beside a manifest.

    manifest.json            encoder, settings, and the reference set in force
    manifest.copy.json       the same, in case the first is lost
    videos.lance             one row per video; a video exists when its row does
    segments.lance           one row per segment: times, weight, base and retrieval vectors
    neighbours_<fp>.lance    one row per segment: its blend (reference pairs, weights, what a RAM adds)
    failures.lance           files that could not be indexed, with reasons
    references/<fp>/         a copy of the reference set in force
    rams/<digest>.onnx       a copy of the trained RAM in force, if there is one
    writing.json             while a writer is at work: what was synced before; see `durable/sync.py`
    checksums.txt            digests of all files; damaged/ has files that a repair moved away

Rows of `segments` and `neighbours_*` belong to a (video_id, revision) and count only while `videos` contains that pair.
A video's row is written last, in one atomic step. An interrupted run leaves orphan rows: readers ignore them, and the
next writer deletes them. Readers need no lock. This module reads; `writer.py` writes.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from impart.errors import VideoIndexError
from impart.files import blake2b_hex, make_folder, new_blake2b
from impart.video.decode.content import ICON
from impart.video.index.closed import MARK as CLOSED
from impart.video.index.doctor.checksums import CHECKSUMS
from impart.video.index.doctor.newest import NewestVersions
from impart.video.index.durable.lock import PROBE, check_hard_links
from impart.video.index.durable.roll_back import try_roll_back
from impart.video.index.durable.sync import MARK as WRITING
from impart.video.index.manifest import MANIFESTS, Augmentation, IndexManifest, manifest_bytes
from impart.video.index.pause import PAUSED
from impart.video.index.remote.bucket import storage_options
from impart.video.index.remote.claim import check_claim
from impart.video.index.remote.mirror import FRESH_S, mirror_of
from impart.video.index.remote.problems import problem_of
from impart.video.integrity import COPY_REMEDY, KEYS, bytes_below, damaged_file, place_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "BY_OTHERS",
    "CLUSTERS",
    "FailureRecord",
    "Kind",
    "Store",
    "TableGoneError",
    "VideoRecord",
    "is_current",
    "path_id",
    "revision_of",
    "schemas",
]

VIDEOS, SEGMENTS, FAILURES = "videos", "segments", "failures"
NEIGHBOURS_PREFIX = "neighbours_"
UNREAD = -(2**63)
LAST_SEARCH, CLUSTERS = "last-search.json", "names-clusters.json"
BY_OTHERS = (LAST_SEARCH, CLUSTERS, PAUSED)
"""Files that are written without the lock of a writer."""

_FOLDERS = ("references", "rams", "names", "faces", "crops", "cache", "damaged", ".doctor", "locks")
_OURS = (*_FOLDERS, *MANIFESTS, *BY_OTHERS, "folders.json", CLOSED, WRITING, ".lock", CHECKSUMS)
NO_VIDEO = frozenset({"has sound but no image", "has no video stream", ICON})
"""Reasons, as the decoder words them, of files that contain neither a video nor a photo."""

Kind: TypeAlias = Literal["video", "photo"]
_TRIES = 8
_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True)
class VideoRecord:
    """One row of `videos`.

    Attributes:
        video_id: id of the file; kept when the file changes or moves.
        revision: id of the content and the settings it was indexed with.
        path: absolute; stored as the bytes of the file system, since not every name is text.
        samples: frames sampled; segments: rows into which they were merged.
        scene_starts: number of the first segment of each scene.
        mtime_ns: modification time; `UNREAD` where a read error of the disk cut the video short: no file has this time,
            so the next run decodes it again.
        problem: why only a part could be read; None for a whole video.
        indexed_at: Unix time in seconds.
        kind: `video` or `photo`.
        recorded_at: when it was recorded, by the file itself, Unix time in seconds; None = it does not say.
        scene_start_s, scene_end_s: bounds of each scene in seconds. Empty in indexes of version 0.1.0: then those of
            its segments.
        scene_kinds: how each scene begins: `cut`, `dissolve` or `fade`; may be empty as well.
    """

    video_id: str
    revision: str
    path: Path
    size_bytes: int
    mtime_ns: int
    content_hash: str
    duration_s: float
    width: int
    height: int
    codec: str
    container: str
    fps: float
    samples: int
    segments: int
    scene_starts: tuple[int, ...]
    problem: str | None
    indexed_at: float
    kind: Kind = "video"
    recorded_at: float | None = None
    scene_start_s: tuple[float, ...] = ()
    scene_end_s: tuple[float, ...] = ()
    scene_kinds: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        return "ok" if self.problem is None else "partial"


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """One row of `failures`: a file that is tried again only when it changes, or on request."""

    path: Path
    size_bytes: int
    mtime_ns: int
    reason: str
    attempts: int
    failed_at: float

    @property
    def no_video(self) -> bool:
        """Whether the file is no video at all, such as a sound recording: that is no failure."""
        return self.reason in NO_VIDEO


def path_id(path: Path) -> str:
    """Compute the id of the file at a path: 16 hex digits."""
    return blake2b_hex(os.fsencode(path), size_bytes=8)


def revision_of(content_hash: str, manifest: IndexManifest, *, again: bool = False) -> str:
    """Compute the id of a content and of the settings that change its rows: 16 hex digits.

    Args:
        again: of the same content decoded once more, which a video with a problem is: while its new rows are written,
            the old ones must stay apart from them. A third time takes the first id again.
    """
    return _revision(content_hash, manifest, _numbers_of(manifest), again=again)


def is_current(record: VideoRecord, manifest: IndexManifest) -> bool:
    """Whether a video was indexed with the settings and the encoder of a manifest.

    In version 0.1.0 a whole number that was given without a point (`fps = 8`) was part of the id without it.
    """
    spelled = [(one, int(one)) if one.is_integer() else (one,) for one in _numbers_of(manifest)]
    return any(
        record.revision == _revision(record.content_hash, manifest, numbers, again=again)
        for numbers in itertools.product(*spelled)
        for again in (False, True)
    )


def _numbers_of(manifest: IndexManifest) -> tuple[float, ...]:
    return float(manifest.decode.fps), float(manifest.decode.reuse_threshold), float(manifest.index.cut_threshold)


def _revision(content_hash: str, manifest: IndexManifest, numbers: tuple[float, ...], *, again: bool) -> str:
    settings: tuple[object, ...] = numbers
    if manifest.decode.fit != "crop":  # left out, so that the ids in existing indexes stay valid
        settings += (manifest.decode.fit,)
    if manifest.decode.stream:
        settings += (f"stream {manifest.decode.stream}",)
    text = f"{content_hash} {settings!r} {manifest.encoder_fingerprint}" + (" again" if again else "")
    return blake2b_hex(text, size_bytes=8)


class TableGoneError(RuntimeError):
    """A table cannot be read: a writer replaced it or deleted old files, and reading again helps; or it is damaged."""


class Store:
    """Reads the tables of one index. Opening costs nothing: the database is imported at the first read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mirror = mirror_of(folder)  # None where all of the index is in the folder
        self._database: Any = None
        self._tables: dict[str, Any] = {}
        self._newest = NewestVersions(folder)

    @staticmethod
    def make_folder(folder: Path) -> None:
        """Make the folder of a new index.

        Raises:
            VideoIndexError: it contains other files, or cannot be made, or its file system has no hard links.
        """
        check_hard_links(folder)
        mirror = mirror_of(folder)
        try:
            make_folder(folder)
            names = [one.name for one in folder.iterdir()] if mirror is None else mirror.names()
            foreign = [name for name in names if not _is_ours(name)]
        except OSError as error:
            raise VideoIndexError(f"cannot make an index in {folder}: {error.strerror or error}") from error
        if foreign:
            raise VideoIndexError(
                f"{folder} is no index and contains other files ({foreign[0]}): choose an empty or new --index folder"
            )

    def create_tables(self, manifest: IndexManifest) -> None:
        """Create the empty tables. The caller saves the manifest last: without it there is no index."""
        with self.errors("make"):
            for name, schema in schemas(manifest).items():
                self._make(name, schema)

    def recent_state(self) -> str:
        """Compute `state`; on object storage, that of up to a quarter of a second ago, so that a search asks once."""
        return self.state(max_age_s=FRESH_S)

    def state(self, *, max_age_s: float = 0.0) -> str:
        """Compute a digest that changes with every commit, without the database, in about a millisecond.

        Args:
            max_age_s: of the answer of object storage; a commit of this object counts at once.
        """
        digest = new_blake2b()
        try:
            if self.mirror is not None:
                self.mirror.refresh(max_age_s=max_age_s)
            digest.update(manifest_bytes(self.folder))
            versions = self.folder / f"{VIDEOS}.lance" / "_versions"
            names = self.mirror.versions if self.mirror is not None else os.listdir(versions)  # noqa: PTH208  fast
        except OSError as error:
            raise VideoIndexError(f"the index {self.folder} cannot be read: {error}; {COPY_REMEDY}") from error
        digest.update("\n".join(sorted(names)).encode())
        return digest.hexdigest()

    def videos(self) -> list[VideoRecord]:
        """Read all committed videos, sorted by path."""
        rows = self.read(VIDEOS)
        try:
            return _records(rows)
        except (ValueError, TypeError, LookupError) as error:
            raise TableGoneError(f"table {VIDEOS} of {self.folder} has damaged rows: {error}") from error

    def failures(self) -> list[FailureRecord]:
        """Read all failures, sorted by path."""
        rows = self.read(FAILURES)
        try:
            found = rows.drop_columns(["path_id"]).to_pylist()
            records = [FailureRecord(**(row | {"path": Path(os.fsdecode(row["path"]))})) for row in found]
        except (ValueError, TypeError, LookupError) as error:
            raise TableGoneError(f"table {FAILURES} of {self.folder} has damaged rows: {error}") from error
        return sorted(records, key=lambda record: os.fsencode(record.path))

    def read(
        self, name: str, *, columns: Sequence[str] | None = None, where: str | None = None, last: int | None = None
    ) -> pa.Table:
        """Read rows of the newest version of a table.

        Args:
            where: filter of the rows; it reads the columns that it names of all rows.
            last: number of rows that are read from the end, where the newest ones are; None = all.

        Raises:
            TableGoneError: the table changed meanwhile; read again (`retry`).
        """
        try:
            table = self.table(name)
            query = table.search()
            query = query.where(where) if where else query
            query = query.offset(max(0, table.count_rows() - last)).limit(last) if last is not None else query
            query = query.select(list(columns)) if columns else query
            return query.to_arrow()
        except Exception as error:
            self._tables.pop(name, None)
            if not _of_database(error):
                raise
            if self.mirror is not None and (why := problem_of(error, self.mirror.location)) is not None:
                raise VideoIndexError(f"the index {self.folder} cannot be read: {why}") from error
            raise TableGoneError(f"table {name} of {self.folder}: {error}") from error

    def retry(self, read: Callable[[], _Read]) -> _Read:
        """Call `read`, again after a pause where a writer changed a table meanwhile.

        Raises:
            VideoIndexError: it failed each time.
        """
        for attempt in range(_TRIES):
            try:
                return read()
            except TableGoneError as error:
                last = error
                if attempt == 2 and try_roll_back(self.folder):
                    self._tables.clear()
                elif attempt > 1 and self._damage() is not None:
                    break
                time.sleep(0.02 * 2**attempt)
        raise VideoIndexError(f"the index {self.folder} cannot be read: {self._why(last)}") from last

    def incomplete(self, records: Sequence[VideoRecord]) -> list[VideoRecord]:
        """Find the videos that lack rows of `segments`, in the order given.

        Raises:
            TableGoneError: the table changed meanwhile; read again (`retry`).
        """
        whole = place_rows(self.read(SEGMENTS, columns=KEYS), records).whole
        return [record for record, complete in zip(records, whole, strict=True) if not complete]

    def table(self, name: str) -> Any:
        """Open a table at its newest version.

        Raises:
            TableGoneError: that version is damaged; the database would read some as an empty table.
        """
        wrong = self._newest.wrong(name, rows=name == VIDEOS) if self.mirror is None else ""
        if wrong:
            raise TableGoneError(wrong)
        if name in self._tables:
            self._tables[name].checkout_latest()
        else:
            self._tables[name] = self.database().open_table(name)
        return self._tables[name]

    def database(self) -> Any:
        if self._database is None:
            import lancedb

            if self.mirror is None:
                self._database = lancedb.connect(str(self.folder))
            else:
                place = self.mirror.location
                self._database = lancedb.connect(place.url, storage_options=storage_options(place))
        return self._database

    def make_neighbours(self, augmentation: Augmentation, manifest: IndexManifest) -> None:
        """Create an empty neighbours table, in place of one that an interrupted run left."""
        self._make(augmentation.table, _neighbours_schema(augmentation, manifest))

    def make_failures(self, manifest: IndexManifest) -> None:
        """Create an empty table of failures, in place of a lost or damaged one: its files are tried again."""
        self._make(FAILURES, schemas(manifest)[FAILURES])

    def add_columns(self, manifest: IndexManifest) -> None:
        """Add the columns of `videos` that an older version did not have; their values are null."""
        import pyarrow as pa

        table = self.table(VIDEOS)
        lacking = [field for field in schemas(manifest)[VIDEOS] if field.name not in table.schema.names]
        if lacking:
            table.add_columns(pa.schema(lacking))
            self._tables.pop(VIDEOS)

    def drop(self, name: str) -> None:
        """Delete a table, also a damaged one."""
        self._newest.forget(name)
        self._tables.pop(name, None)
        with suppress(ValueError):  # of a folder that is no table
            self.database().drop_table(name)
        if self.mirror is None:
            shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)
        else:
            self.mirror.bucket.delete_folder(f"{name}.lance")

    def _make(self, name: str, schema: pa.Schema) -> None:
        self._newest.forget(name)  # of a lost one
        if name in self.table_names():  # from an interrupted run
            self.drop(name)
        self.database().create_table(name, schema=schema)

    def table_names(self) -> list[str]:
        if self.mirror is not None:
            return self.mirror.tables()
        return [entry.stem for entry in self.folder.iterdir() if entry.suffix == ".lance"]

    def damaged(self, name: str) -> Path | None:
        """Find a file of a table that is missing or damaged, by its name and its last bytes; on object storage,
        whether the table is there."""
        if self.mirror is None:
            return damaged_file(self.folder / f"{name}.lance")
        return None if name in self.table_names() else self.folder / f"{name}.lance"

    def size_of(self, name: str) -> tuple[int, int]:
        """Return the bytes of a table with its replaced files, and the number of its versions."""
        table = self.folder / f"{name}.lance"
        if self.mirror is None:
            return bytes_below(table), len(list((table / "_versions").iterdir()))
        sizes = self.mirror.sizes(table.name)
        return sum(sizes.values()), sum("/_versions/" in file for file in sizes)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Convert errors of the database (a full disk, a lost mount) to `VideoIndexError`.

        Raises:
            VideoIndexError: there was one.
            IndexLockedError: on object storage, another machine has taken the lock of this writer.
        """
        check_claim(self.folder)
        try:
            yield
        except Exception as error:
            if not _of_database(error):
                raise
            raise VideoIndexError(
                f"cannot {doing} the index {self.folder}: {self._why(error)}; what was committed before is kept"
            ) from error
        finally:
            if self.mirror is not None:
                self.mirror.forget()

    def _why(self, error: Exception) -> str:
        """Name the damaged file behind an error of the database, with the remedy; the error itself where none is."""
        why = None if self.mirror is None else problem_of(error, self.mirror.location)
        if why is not None:
            return why
        file = self._damage()
        if file is not None:
            own = file.is_relative_to(self.folder / f"{FAILURES}.lance")
            remedy = "impart index PATH..., or impart doctor --repair, makes it again" if own else COPY_REMEDY
            return f"{file} is missing or damaged: {remedy}"
        if isinstance(error, TableGoneError):
            return f"{error}. A file of this table may be damaged: {COPY_REMEDY}"
        return str(error)

    def _damage(self) -> Path | None:
        if self.mirror is not None:
            return None
        tables = (VIDEOS, SEGMENTS, FAILURES)
        found = (damaged_file(self.folder / f"{name}.lance") for name in tables)
        return next((file for file in found if file is not None), None) or self._newest.changed(tables)


def _of_database(error: Exception) -> bool:
    """Whether an error is the database's: one that it states, or a panic, whose class cannot be imported."""
    return isinstance(error, OSError | RuntimeError | ValueError) or type(error).__name__ == "RustPanic"


def _is_ours(name: str) -> bool:
    return name.endswith((".lance", ".part")) or name.startswith(PROBE) or name in _OURS


def _records(rows: pa.Table) -> list[VideoRecord]:
    """Convert the rows of `videos`, and sort them by path."""
    columns = rows.sort_by("path").to_pydict()
    columns["path"] = [Path(os.fsdecode(path)) for path in columns["path"]]
    names = [item.name for item in dataclasses.fields(VideoRecord) if item.name in columns]
    for name in names:
        if name.startswith("scene_"):
            columns[name] = [tuple(values or ()) for values in columns[name]]
    columns = {name: columns[name] for name in names}
    if "kind" in columns:
        columns["kind"] = [kind or "video" for kind in columns["kind"]]
    return [VideoRecord(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def schemas(manifest: IndexManifest) -> dict[str, pa.Schema]:
    """Make the schemas of the tables that every index has, by name."""
    import pyarrow as pa

    number = _number(manifest)
    videos = [
        pa.field("video_id", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("path", pa.binary()),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("content_hash", pa.string()),
        pa.field("duration_s", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("container", pa.string()),
        pa.field("fps", pa.float64()),
        pa.field("samples", pa.int32()),
        pa.field("segments", pa.int32()),
        pa.field("scene_starts", pa.list_(pa.int32())),
        pa.field("problem", pa.string()),
        pa.field("indexed_at", pa.float64()),
        # Indexes of version 0.1.0 lack these; `add_columns` adds them.
        pa.field("kind", pa.string()),
        pa.field("recorded_at", pa.float64()),
        pa.field("scene_start_s", pa.list_(pa.float64())),
        pa.field("scene_end_s", pa.list_(pa.float64())),
        pa.field("scene_kinds", pa.list_(pa.string())),
    ]
    segments = [
        pa.field("video_id", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("number", pa.int32()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("weight", pa.int32()),
        pa.field("vector", pa.list_(number, manifest.dim)),
        pa.field("retrieval", pa.list_(number, manifest.retrieval_dim)),
    ]
    failures = [
        pa.field("path_id", pa.string()),
        pa.field("path", pa.binary()),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("failed_at", pa.float64()),
    ]
    tables = {VIDEOS: videos, SEGMENTS: segments, FAILURES: failures}
    return {name: pa.schema(fields) for name, fields in tables.items()}


def _number(manifest: IndexManifest) -> pa.DataType:
    import pyarrow as pa

    return pa.float16() if manifest.index.precision == "float16" else pa.float32()


def _neighbours_schema(augmentation: Augmentation, manifest: IndexManifest) -> pa.Schema:
    import pyarrow as pa

    k = augmentation.settings.k
    fields = [
        pa.field("video_id", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("number", pa.int32()),
        pa.field("ids", pa.list_(pa.int32(), k)),
        pa.field("img", pa.list_(pa.float32(), k)),
        pa.field("txt", pa.list_(pa.float32(), k)),
        pa.field("norm", pa.float32()),
    ]
    if augmentation.dense:
        fields.append(pa.field("added", pa.list_(_number(manifest), manifest.dim)))
    return pa.schema(fields)
