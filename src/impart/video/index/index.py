"""`VideoIndex`: index a pile of video, find the moment.

    index = VideoIndex.open("library.impart")
    for event in index.add(["films/"]):
        ...
    hits = index.search(text="a dog on a skateboard")

One process writes at a time; any number search meanwhile. An object may be shared by threads for searching.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from impart.blending.encoder import AugmentedEncoder, settings_of
from impart.blending.ram_onnx import LearnedRam
from impart.blending.vanilla import Vanilla
from impart.config import RamSettings, Settings, VanillaSettings
from impart.encoders.base import Encoder, ImageInput
from impart.errors import VideoIndexError
from impart.files import library_versions, now
from impart.refset.refset import ReferenceSet
from impart.video.index.encoder_in_use import Session
from impart.video.index.manifest import IndexManifest
from impart.video.index.refset_switch import install, switch
from impart.video.index.store import FailureRecord, Store, TableGoneError, VideoRecord
from impart.video.index.writer import Writer, write_lock
from impart.video.search.ranking import By, Group, Hit, Query, Reason
from impart.video.search.searcher import Searcher, SearchOptions
from impart.video.search.snapshot import has_cache, save_cache

if TYPE_CHECKING:
    from impart.video.index.events import Event
    from impart.video.index.plan import IndexPlan

__all__ = ["Hit", "IndexStats", "Query", "Reason", "VideoIndex"]
_Row = TypeVar("_Row")


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexStats:
    """An index in numbers.

    Attributes:
        videos, partial, segments, samples, scenes, failures: counts.
        video_s: seconds of video.
        size_bytes: on disk.
        encoder_id, encoder_fingerprint: of the base encoder.
        references: name of the reference set in force, or None; blending: how it is blended in.
    """

    videos: int
    partial: int
    segments: int
    samples: int
    scenes: int
    failures: int
    video_s: float
    size_bytes: int
    encoder_id: str
    encoder_fingerprint: str
    references: str | None
    blending: VanillaSettings | RamSettings | None


class VideoIndex:
    """A folder of indexed videos. Use `VideoIndex.open`."""

    def __init__(self, store: Store, *, encoder: Encoder | None, settings: Settings | None) -> None:
        self._store = store
        self.settings = settings or Settings()
        self._session = Session(store.folder, encoder, self.settings.encoder)
        self._asked = settings
        self._reading = Store(store.folder)  # its own handles: a thread may search while another adds
        self._finder = Searcher(self._reading, encoder_of=self._session.of, settings=self.settings.search)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        create: bool = True,
        settings: Settings | None = None,
    ) -> VideoIndex:
        """Open an index, or name a new one; it is made by the first `add`.

        Args:
            path: the index's folder.
            encoder: must be the one the index was made with, with or without its reference set. None: that one, or for
                a new index `settings.encoder.model` with its bundled reference set. It is loaded when first needed.
            create: whether the index may be new.
            settings: None takes the index's own. Others (another `decode.fps`) hold from the next `add` on, which
                indexes again what it finds to have been indexed otherwise.

        Raises:
            VideoIndexError: there is no index and `create` is False, or it is damaged or of another version.
            EncoderMismatchError: the encoder or its reference set is not the index's; says what to do.
        """
        store = Store(Path(os.path.abspath(os.path.expanduser(path))))  # noqa: PTH100, PTH111
        index = cls(store, encoder=encoder, settings=settings)
        if IndexManifest.exists(store.folder):
            index._session.check_given(IndexManifest.load(store.folder), is_empty=lambda: not index.videos())
        elif not create or (store.folder.exists() and not store.folder.is_dir()):
            IndexManifest.load(store.folder)  # says what is missing
        return index

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def exists(self) -> bool:
        """Whether the index has been made yet."""
        return IndexManifest.exists(self.path)

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as it is now.

        Raises:
            VideoIndexError: there is none yet.
        """
        return IndexManifest.load(self.path)

    @property
    def encoder(self) -> Encoder:
        """What the index encodes with: the base encoder, with the reference set in force where there is one."""
        if self.exists:
            return self._session.of(self.manifest)
        return self._session.of_new()

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        prune: bool = False,
        retry_failed: bool = False,
        dry_run: bool = False,
    ) -> Iterator[Event]:
        """Index new and changed files. Safe to stop at any moment; the next run goes on.

        Args:
            paths: files, and folders to walk.
            prune: take videos out whose files are gone, below the given paths.
            retry_failed: try files again that failed before.
            dry_run: only tell what would be done; nothing is written.

        Yields:
            Events, see `impart.video.index.events`. Nothing happens until they are asked for.

        Raises:
            IndexLockedError: another process is writing to the index.
            VideoIndexError: the index cannot be written; what was committed stays.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        if dry_run:
            yield from self._dry_run(given, prune=prune, retry_failed=retry_failed)
            return
        if not self.exists:
            self._create()
        with Writer(self._store) as writer:
            self._adopt(writer)
            yield from self._add(writer, given, prune=prune, retry_failed=retry_failed)

    def search(
        self,
        *,
        text: str | None = None,
        image: str | os.PathLike[str] | ImageInput | None = None,
        not_text: Sequence[str] = (),
        top: int | None = None,
        group: Group | None = None,
        by: By | None = None,
        augment: bool = True,
        path_glob: str | None = None,
        why: bool = False,
    ) -> list[Hit]:
        """Find moments by a sentence, an image, or both.

        Args:
            text, image, not_text: see `Query`.
            top, group, by: see `SearchSettings`; None = the setting.
            augment: whether frames are seen through the reference set.
            path_glob: only videos whose name (or path, where the pattern has a slash) matches.
            why: name the reference pairs blended into each hit's best segment.

        Returns:
            Hits, best first; none in an empty index.

        Raises:
            QueryError: the query makes no sense.
            DataError: the image cannot be read.
        """
        query = Query(text=text, image=image, not_text=not_text)
        return self.search_many([query], top=top, group=group, by=by, augment=augment, path_glob=path_glob, why=why)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        *,
        top: int | None = None,
        group: Group | None = None,
        by: By | None = None,
        augment: bool = True,
        path_glob: str | None = None,
        why: bool = False,
        together: bool = False,
    ) -> list[list[Hit]]:
        """Answer many queries at once; the same hits as `search` for each, in much less time.

        Args:
            together: the queries correct each other: what a video gets from many of them counts less for each. For
                lists whose queries have videos of their own, such as the lines of a script.
        """
        options = self._options(top=top, group=group, by=by, augment=augment, path_glob=path_glob, why=why)
        options = dataclasses.replace(options, together=together)
        return self._finder.search(queries, options) if queries and self.exists else [[] for _ in queries]

    def similar(
        self,
        path: str | os.PathLike[str],
        at_s: float,
        *,
        top: int | None = None,
        group: Group | None = None,
        by: By | None = None,
        augment: bool = True,
        path_glob: str | None = None,
        why: bool = False,
    ) -> list[Hit]:
        """Moments that look like a moment of an indexed video; its file is not needed.

        The video, scene or frame (by `group`) that holds the moment is itself left out.

        Args:
            path: of the video, as given to `add` or relative to the working folder.
            at_s: seconds into it.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """
        options = self._options(top=top, group=group, by=by, augment=augment, path_glob=path_glob, why=why)
        self.manifest  # noqa: B018 - an index that does not exist has no moments
        return self._finder.similar(path, at_s, options)

    def use_references(
        self,
        references: ReferenceSet | None,
        settings: VanillaSettings | None = None,
        *,
        ram: LearnedRam | None = None,
    ) -> None:
        """Look through another reference set, or none. No video is touched; searches switch over at once.

        Args:
            references: copied into the index. None switches augmentation off.
            settings: of the blend; None = those stored with the set (`refset tune`), or the paper's.
            ram: a trained RAM (`impart.blending.ram_checkpoint.open_ram`) that blends the set in, in place of settings;
                copied into the index.

        Raises:
            EncoderMismatchError: the set was made, or the RAM trained, with another encoder than the index.
            IndexLockedError: another process is writing to the index.
        """
        base = encoder = self._session.base(self.manifest)
        if references is not None:
            blending = ram or Vanilla(settings or settings_of(references) or VanillaSettings())
            encoder = AugmentedEncoder(base, references, blending)
        with Writer(self._store) as writer:
            switch(writer, encoder)
            self._session.given = base  # from now on the index says which set is in force
            self._save_cache()

    def videos(self) -> list[VideoRecord]:
        """All indexed videos, by path."""
        return self._read(self._reading.videos)

    def failures(self) -> list[FailureRecord]:
        """Files that could not be indexed, and why, by path."""
        return self._read(self._reading.failures)

    def stats(self) -> IndexStats:
        """The index in numbers.

        Raises:
            VideoIndexError: there is no index yet.
        """
        manifest, videos = self.manifest, self.videos()
        augmentation = manifest.augmentation
        return IndexStats(
            videos=len(videos),
            partial=sum(video.problem is not None for video in videos),
            segments=sum(video.segments for video in videos),
            samples=sum(video.samples for video in videos),
            scenes=sum(len(video.scene_starts) for video in videos),
            failures=len(self.failures()),
            video_s=sum(video.duration_s for video in videos),
            size_bytes=_bytes_below(self.path),
            encoder_id=manifest.encoder_id,
            encoder_fingerprint=manifest.encoder_fingerprint,
            references=augmentation.references_name if augmentation else None,
            blending=augmentation.settings if augmentation else None,
        )

    def _add(self, writer: Writer, paths: list[Any], *, prune: bool, retry_failed: bool) -> Iterator[Event]:
        from impart.video.decode.process import Decoder
        from impart.video.index.events import IndexDone, PathFailed
        from impart.video.index.indexer import Indexer
        from impart.video.index.plan import make_plan
        from impart.video.index.scan import scan

        began = time.monotonic()
        found = scan(paths)
        plan = make_plan(
            found,
            videos=writer.videos.values(),
            failures=writer.failures,
            manifest=writer.manifest,
            retry_failed=retry_failed,
            prune=prune,
        )
        problems = [*found.problems, *plan.refused]
        for path, reason in problems:
            yield PathFailed(path=path, reason=reason)
        yield plan.summary()
        encoder = self._session.of(writer.manifest)
        decoder = Decoder(writer.manifest.decode, short_side_px=encoder.traits.image_size_px)
        with decoder:
            indexer = Indexer(writer, encoder, decoder=decoder, batch=self.settings.encoder.batch)
            yield from indexer.run(plan)
        if not plan.empty:
            writer.compact()
        self._save_cache()
        totals = indexer.totals
        counts = {item.name: getattr(totals, item.name, None) for item in dataclasses.fields(IndexDone)}
        known = {name: value for name, value in counts.items() if value is not None}
        yield IndexDone(
            **known,
            path_failures=len(problems),
            unchanged=plan.summary().unchanged,
            elapsed_s=time.monotonic() - began,
        )

    def _dry_run(self, paths: list[Any], *, prune: bool, retry_failed: bool) -> Iterator[Event]:
        from impart.video.index.events import PathFailed
        from impart.video.index.plan import make_plan
        from impart.video.index.scan import scan

        found = scan(paths)
        videos = self.videos() if self.exists else []
        failures = {record.path: record for record in self.failures()} if self.exists else {}
        manifest = self._with_settings(self.manifest) if self.exists else self._new_manifest(self.encoder)
        plan: IndexPlan = make_plan(
            found, videos=videos, failures=failures, manifest=manifest, retry_failed=retry_failed, prune=prune
        )
        for path, reason in [*found.problems, *plan.refused]:
            yield PathFailed(path=path, reason=reason)
        yield plan.summary()
        yield from plan.planned()

    def _save_cache(self) -> None:
        """Prepare the next cold search; the caller holds the write lock."""
        if not has_cache(self._store):  # also after a run that was interrupted
            save_cache(self._store, self._finder.current(), video_means=self._finder.video_means())

    def _create(self) -> None:
        """Make the index, with the encoder's reference set in force."""
        encoder = self._session.of_new()
        manifest = self._new_manifest(encoder)
        Store.make_folder(self.path)
        with write_lock(self.path):
            if self.exists:  # somebody was quicker
                return
            self._store.create_tables(manifest)
            if isinstance(encoder, AugmentedEncoder):
                manifest = dataclasses.replace(manifest, augmentation=install(self._store, encoder, manifest))
            manifest.save(self.path)

    def _adopt(self, writer: Writer) -> None:
        """Bring the manifest in line with what was asked for at opening."""
        manifest = self._with_settings(writer.manifest)
        if manifest != writer.manifest:
            writer.save_manifest(manifest)
        given = self._session.given
        if isinstance(given, AugmentedEncoder) and not writer.videos:
            switch(writer, given)

    def _with_settings(self, manifest: IndexManifest) -> IndexManifest:
        if self._asked is None:
            return manifest
        index = dataclasses.replace(self._asked.index, precision=manifest.index.precision)
        return dataclasses.replace(manifest, decode=self._asked.decode, index=index)

    def _new_manifest(self, encoder: Encoder) -> IndexManifest:
        base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        return IndexManifest(
            encoder_id=base.traits.id,
            encoder_fingerprint=base.fingerprint,
            dim=base.traits.dim,
            retrieval_dim=base.traits.retrieval_dim,
            decode=self.settings.decode,
            index=self.settings.index,
            augmentation=None,
            versions=library_versions(("impart", "lancedb", "av", "onnxruntime", "numpy")),
            created_at=now(),
        )

    def _options(
        self, *, top: int | None, group: Group | None, by: By | None, augment: bool, path_glob: str | None, why: bool
    ) -> SearchOptions:
        default = self.settings.search
        return SearchOptions(
            top=default.top if top is None else top,
            group=group or default.group,
            by=by or default.by,
            augment=augment,
            path_glob=path_glob,
            why=why,
        )

    def _read(self, read: Callable[[], list[_Row]]) -> list[_Row]:
        """Read a table that a writer may be changing."""
        if not self.exists:
            return []
        for _ in range(5):
            try:
                return read()
            except TableGoneError as error:
                last = error
                time.sleep(0.05)
        raise VideoIndexError(f"the index {self.path} cannot be read: {last}") from last


def _bytes_below(folder: Path) -> int:
    """Size of all files of a folder that a writer may be changing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
