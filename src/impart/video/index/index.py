"""`VideoIndex`: index videos, and find moments in them.

One process writes at a time; any number search meanwhile. Threads may share an object for searching.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack

from impart.blending.encoder import AugmentedEncoder, blender_of
from impart.blending.ram_onnx import LearnedRam
from impart.blending.tune import gated_if_single
from impart.config import By, Group, Settings, SolvedSettings, VanillaSettings
from impart.encoders.base import Encoder, ImageInput
from impart.errors import EncoderError, VideoIndexError
from impart.files import library_versions, now
from impart.refset.refset import ReferenceSet
from impart.video.faces.store import FaceStore
from impart.video.index.durable.lock import write_lock
from impart.video.index.durable.sync import sync_tables
from impart.video.index.encoder_in_use import EncoderInUse
from impart.video.index.manifest import IndexManifest
from impart.video.index.refset_switch import complete, install, switch
from impart.video.index.remote.claim import held_here
from impart.video.index.remote.location import place_of
from impart.video.index.stats import IndexStats
from impart.video.index.store import FailureRecord, Kind, Store, VideoRecord
from impart.video.index.writer import Writer
from impart.video.search.dates import Date, Length
from impart.video.search.groups import reasons_of
from impart.video.search.hits import Hit, Reason
from impart.video.search.query import Query, SearchKeywords, SearchOptions
from impart.video.search.searcher import Searcher
from impart.video.search.snapshot import Snapshot, locate_segment
from impart.video.search.state.cache import cached_state, save_cache

if TYPE_CHECKING:
    from impart.encoders.cluster.connection import EngineInput, RayEngine
    from impart.video.copies.library import CopyLibrary, DuplicatesKeywords, FindKeywords
    from impart.video.copies.spans import Copy, DuplicateGroup
    from impart.video.crops.encoding import CropsMade
    from impart.video.index.events import Event, IndexDone
    from impart.video.index.files.plan import Request
    from impart.video.index.files.scan import Scan
    from impart.video.names.taught import Names
    from impart.video.scenes.scene import Scene

__all__ = ["Hit", "IndexStats", "Query", "Reason", "SearchOptions", "VideoIndex"]
_Row = TypeVar("_Row")


class VideoIndex:
    """An index of videos: a folder with the vectors of their segments. Made by `VideoIndex.open`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> index = VideoIndex.open(Path(folder.name) / "library.impart")
        >>> for event in index.add([folder.name]):  # files, and folders to walk
        ...     print(type(event).__name__)
        ScanDone
        IndexDone
        >>> index.search(text="a dog on a skateboard", top=10)  # the folder contains no video
        []
        >>> index.exists  # it is created with its first video
        False
        >>> folder.cleanup()
    """

    def __init__(self, store: Store, *, encoder: Encoder | None, settings: Settings | None) -> None:
        self._store = store
        self.settings = settings or Settings()
        self._asked = settings
        self._in_use = EncoderInUse(store.folder, encoder, self.settings.encoder)
        self._reading = Store(store.folder)  # with its own handles: a thread may search while another adds
        self._cached = ""  # state whose cache this object wrote, or found
        self._searcher = Searcher(self._reading, encoder_of=self._in_use.of, settings=self.settings.search)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        create: bool = True,
        settings: Settings | None = None,
    ) -> VideoIndex:
        """Open an index. A new one is created by the first `add`.

        Args:
            path: folder of the index, or a URL such as `s3://bucket/library.impart` (docs/object-storage.md).
            encoder: must be the one that made the index, with or without its reference set. None takes that one, or for
                a new index `settings.encoder.model` with its bundled reference set. It is loaded when first needed.
            create: whether the index may be new.
            settings: None takes the index's own. Different ones (another `decode.fps`) apply from the next `add` on,
                which indexes files again that were indexed with others.

        Raises:
            VideoIndexError: there is no index and `create` is False, or it is damaged or of another version.
            EncoderMismatchError: the encoder or its reference set is not the index's; names the remedy.
        """
        store = Store(place_of(path))
        index = cls(store, encoder=encoder, settings=settings)
        if IndexManifest.exists(store.folder):
            index._in_use.check_given(IndexManifest.load(store.folder), is_empty=lambda: not index.videos())
        elif not create or (store.folder.exists() and not store.folder.is_dir()):
            IndexManifest.load(store.folder)  # raises, with the remedy
        else:
            IndexManifest.check_absent(store.folder)
        return index

    @property
    def path(self) -> Path:
        """Folder of the index; of one at a URL, its local folder, which an f-string shows as the URL."""
        return self._store.folder

    @property
    def exists(self) -> bool:
        """Whether the index was created."""
        return IndexManifest.exists(self.path)

    @property
    def manifest(self) -> IndexManifest:
        """The manifest, read now.

        Raises:
            VideoIndexError: the index was not created yet.
        """
        return IndexManifest.load(self.path)

    @property
    def encoder(self) -> Encoder:
        """The encoder of the index: the base encoder, augmented by the reference set in force where there is one."""
        return self._in_use.of(self.manifest) if self.exists else self._in_use.for_new_index()

    @property
    def searcher(self) -> Searcher:
        """The searcher of the index. A server keeps its state between commits, see `Searcher.state`."""
        return self._searcher

    def add(
        self,
        paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        prune: bool = False,
        force: bool = False,
        retry_failed: bool = False,
        dry_run: bool = False,
        exclude: Iterable[str] = (),
        photos: bool = True,
        within: Iterable[str | os.PathLike[str]] | None = None,
        name_ignored: bool = False,
        engine: EngineInput = "local",
    ) -> Iterator[Event]:
        """Index new and changed videos and photos. A run may be stopped at any moment; the next one continues.

        A new index is created only where a file is found, or where no path is given.

        Args:
            paths: files, and folders to walk.
            prune: remove videos whose files are gone, below the given paths. Those in a folder that may be an unmounted
                disk (missing, empty, or on another device than before) are kept and reported.
            force: with `prune`, remove these as well.
            retry_failed: try files again that failed, or were read in part, before.
            dry_run: only yield what would be done; nothing is written.
            exclude, photos, within: patterns of files and folders to leave out, whether photos of given folders are
                taken, and folders that are not left; see `impart.video.index.files.scan.scan`.
            name_ignored: also yield `PathIgnored` for each file and folder that is left out; they are always counted.
            engine: `local`, or `ray`: workers decode and encode, on this machine or on a cluster (`RayEngine`), and
                this process commits. The index is the same but for `indexed_at` and the order of rows.

        Yields:
            Events, see `impart.video.index.events`. The work is done while they are consumed.

        Raises:
            IndexLockedError: another process is writing to the index.
            VideoIndexError: the index cannot be written; committed videos stay.
            MissingExtraError, ClusterError: of `ray`.
        """
        from impart.encoders.cluster.connection import check_engine
        from impart.video.index.events import PathIgnored
        from impart.video.index.files.plan import Request
        from impart.video.index.files.scan import scan

        began = time.monotonic()
        ray = check_engine(engine)
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        request = Request(prune=prune, force=force, retry_failed=retry_failed)
        found = scan(given, exclude=exclude, photos=photos, within=within)
        if name_ignored:
            yield from (PathIgnored(path=Path(path), reason=reason) for path, reason in found.ignored)
        if dry_run:
            yield from self._dry_run(found, request)
        elif self.exists or found.files or not given:
            if not self.exists:
                self._create()
            with Writer(self._store) as writer:
                self._adopt(writer)
                done = yield from self._add(writer, found, request, ray)
            # After the writer: what it reports as done is synced and recorded, and the lock is free.
            yield dataclasses.replace(done, elapsed_s=time.monotonic() - began)
        else:
            yield from self._nothing(found, began=began)

    def add_crops(self) -> Iterator[CropsMade]:
        """Encode five parts of each frame, for the videos and photos that have none: taught names find smaller things.

        It takes three to four times as long as `add`. A run may be stopped at any moment; the next one continues.

        Yields:
            Events. The work is done while they are consumed.

        Raises:
            IndexLockedError: another process is writing to the index.
            VideoIndexError: there is no index yet, or it cannot be written.
        """
        from impart.video.crops.encoding import make_crops
        from impart.video.crops.store import CropStore

        manifest, batch = self.manifest, self.settings.encoder.batch
        with write_lock(self.path):
            encoder = self._in_use.base(manifest)
            yield from make_crops(CropStore(self.path), self.videos(), manifest.decode, encoder, batch=batch)

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
        folder: str | os.PathLike[str] | None = None,
        kind: Kind | None = None,
        since: Date | None = None,
        until: Date | None = None,
        min_length: Length | None = None,
        max_length: Length | None = None,
        why: bool = False,
        exact: bool = False,
    ) -> list[Hit]:
        """Find moments by a text, an image, or both.

        Args:
            text, image, not_text: see `Query`.
            top, group, by, augment, why, exact: see `SearchOptions`; None = the setting.
            path_glob, folder, kind, since, until, min_length, max_length: the files that are searched, see
                `SearchOptions`; None = all.

        Returns:
            Hits, best first; none in an empty index.

        Raises:
            QueryError: the query or an option is not valid.
            DataError: the image cannot be read.
        """
        query = Query(text=text, image=image, not_text=not_text)
        return self.search_many(
            [query],
            top=top,
            group=group,
            by=by,
            augment=augment,
            path_glob=path_glob,
            folder=folder,
            kind=kind,
            since=since,
            until=until,
            min_length=min_length,
            max_length=max_length,
            why=why,
            exact=exact,
        )[0]

    def search_many(
        self, queries: Sequence[Query], *, together: bool = False, **keywords: Unpack[SearchKeywords]
    ) -> list[list[Hit]]:
        """Answer many queries at once; the same hits as `search` for each, in much less time.

        Args:
            together, keywords: see `SearchOptions`; None = the setting.
        """
        options = SearchOptions.of(self.settings.search, together=together, **keywords)
        if not queries or not self.exists:
            return [[] for _ in queries]
        hits = self._searcher.search(queries, options)
        if self._store.mirror is not None:
            self._cache_here()
        return hits

    def similar(self, path: str | os.PathLike[str], at_s: float, **keywords: Unpack[SearchKeywords]) -> list[Hit]:
        """Find moments that look like a moment of an indexed video; its file is not needed.

        The video, scene or frame (by `group`; with `moment`, the scene) that contains the moment is itself left out.

        Args:
            path: of the video, as given to `add` or relative to the working folder.
            at_s: seconds from the start of the video.
            keywords: see `SearchOptions`; None = the setting.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """
        options = SearchOptions.of(self.settings.search, **keywords)
        self.manifest  # noqa: B018 - raises where there is no index
        return self._searcher.similar(path, at_s, options)

    def why(self, path: str | os.PathLike[str], at_s: float) -> tuple[Reason, ...]:
        """List the reference pairs that are blended into a moment of an indexed video, largest weight first.

        Args:
            path: of the video, as given to `add` or relative to the working folder.
            at_s: seconds from the start of the video.

        Returns:
            Empty without a reference set, and where its gate is closed.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """

        def find(snapshot: Snapshot) -> tuple[Reason, ...]:
            segment = locate_segment(snapshot, path, at_s, folder=self.path)
            encoder = self._in_use.of(snapshot.manifest)
            return reasons_of(segment, snapshot, encoder if isinstance(encoder, AugmentedEncoder) else None)

        return self._searcher.ask(find)

    @cached_property
    def names(self) -> Names:
        """The taught names of the index: add, list, remove, rename, find."""
        from impart.video.names.taught import Names

        return Names(self.path, base_of=self._in_use.base, snapshot=self._searcher.current)

    def find(
        self, name: str, *, top: int | None = None, path_glob: str | None = None, by_time: bool = False
    ) -> list[Hit]:
        """Find the spans in which a taught name is present; see `Names.find`.

        Args:
            name, top, path_glob, by_time: see `Names.find`.

        Raises:
            QueryError: there is no such name.
        """
        return self.names.find(name, top=top, path_glob=path_glob, by_time=by_time)

    def find_copies(self, path: str | os.PathLike[str], **keywords: Unpack[FindKeywords]) -> list[Copy]:
        """Find the indexed videos that contain a clip, or a part of it; see `impart.video.copies.library.CopyLibrary`.

        Args:
            path: of the clip, which is decoded; it need not be in the index.
        """
        return self._copies.find_copies(path, **keywords)

    def duplicates(self, **keywords: Unpack[DuplicatesKeywords]) -> list[DuplicateGroup]:
        """Find the indexed videos that share content. Nothing is decoded or deleted; see `CopyLibrary`."""
        return self._copies.duplicates(**keywords)

    @cached_property
    def _copies(self) -> CopyLibrary:
        from impart.video.copies.library import CopyLibrary

        return CopyLibrary(self._searcher, self._in_use, self.settings)

    def use_references(
        self,
        references: ReferenceSet | None,
        settings: VanillaSettings | SolvedSettings | None = None,
        *,
        ram: LearnedRam | None = None,
    ) -> None:
        """Put another reference set in force, or none. No video is decoded; searches use it at once.

        Args:
            references: copied into the index. None switches augmentation off.
            settings: of the blend; None = those stored with the set (`refset tune`), or the paper's. A set of one image
                that is not tuned gets the usual ones, which have a gate.
            ram: a trained RAM (`impart.blending.ram_checkpoint.open_ram`) as the blender, in place of settings; copied
                into the index.

        Raises:
            EncoderMismatchError: the set was made, or the RAM trained, with another encoder than the index's.
            IndexLockedError: another process is writing to the index.
        """
        base = encoder = self._in_use.base(self.manifest)
        if references is not None:
            if ram is None and settings is None:
                references = gated_if_single(references)
            blending = ram or blender_of(references, settings)
            encoder = AugmentedEncoder(base, references, blending)
        with Writer(self._store) as writer:
            switch(writer, encoder)
            self._in_use.given = base  # the set in force is now that of the manifest
            self._save_cache(writer.videos.values())

    def scenes(self, path: str | os.PathLike[str]) -> list[Scene]:
        """List the scenes of an indexed video; its file is not needed.

        Args:
            path: of the video, as given to `add` or relative to the working folder; a bare name is enough where only
                one video has it.

        Returns:
            In order of time, each with its bounds, its kind, its vector and the time of a representative frame.

        Raises:
            QueryError: the video is not in the index.
            VideoIndexError: there is no index, or the video lacks rows.

        Example:
            >>> import tempfile
            >>> from PIL import Image
            >>> folder = tempfile.TemporaryDirectory()
            >>> film = Path(folder.name) / "film.gif"
            >>> red, rings = Image.new("RGB", (256, 256), "red"), Image.radial_gradient("L").convert("RGB")
            >>> red.save(film, save_all=True, append_images=[red, rings, rings], duration=600)
            >>> index = VideoIndex.open(Path(folder.name) / "library.impart")
            >>> events = list(index.add([film]))
            >>> [(scene.number, scene.kind, round(scene.start_s, 2)) for scene in index.scenes(film)]
            [(1, 'cut', 0.0), (2, 'cut', 1.2)]
            >>> folder.cleanup()
        """
        from impart.video.scenes.stored import stored_scenes

        self.manifest  # noqa: B018 - raises where there is no index
        return self._reading.retry(lambda: stored_scenes(self._reading, path))

    def videos(self) -> list[VideoRecord]:
        """List the indexed videos, sorted by path."""
        return self._read(self._reading.videos)

    def incomplete(self) -> list[VideoRecord]:
        """List the indexed videos that lack rows, sorted by path: searches leave them out."""
        return self._read(lambda: self._reading.incomplete(self._reading.videos()))

    def failures(self) -> list[FailureRecord]:
        """List the files that could not be indexed, with reasons, sorted by path."""
        return self._read(self._reading.failures)

    def stats(self) -> IndexStats:
        """Count what the index contains.

        Raises:
            VideoIndexError: there is no index yet.
        """
        manifest, videos, failures = self.manifest, self.videos(), self.failures()
        return IndexStats.of(self.path, manifest, videos, failures, incomplete=len(self.incomplete()))

    def _add(
        self, writer: Writer, found: Scan, request: Request, ray: RayEngine | None
    ) -> Generator[Event, None, IndexDone]:
        """Carry out a run. Returns its last event, without its time."""
        from impart.video.crops.store import CropStore
        from impart.video.index.engines.choice import open_indexer
        from impart.video.index.events import IndexDone
        from impart.video.index.files.plan import planned
        from impart.video.index.files.prune import devices_after, read_devices, save_devices
        from impart.video.index.pause import obeying

        videos, failures, devices = list(writer.videos.values()), writer.failures, read_devices(self.path)
        plan = yield from planned(found, videos, failures, writer.manifest, request=request, devices=devices)
        encoder = self._in_use.of(writer.manifest)
        complete(writer, encoder)
        with open_indexer(writer, encoder, batch=self.settings.encoder.batch, ray=ray) as indexer:
            counts = yield from obeying(self.path, indexer.run(plan))
        if not plan.empty:
            writer.compact(last=True)
        known, left = {video.path: video for video in videos}, [video.path for video in writer.videos.values()]
        with self._store.errors("write to"):
            save_devices(self.path, devices_after(devices, found, known=known, left=left))
        with suppress(VideoIndexError):  # damaged: the commands that read faces say so
            FaceStore(self.path).keep(frozenset((video.video_id, video.revision) for video in writer.videos.values()))
        self._save_cache(writer.videos.values())
        CropStore(self.path).keep(writer.videos.values())
        return IndexDone(
            **dataclasses.asdict(counts),
            path_failures=len(plan.problems),
            unchanged=plan.summary().unchanged,
            elapsed_s=0.0,
        )

    def _dry_run(self, found: Scan, request: Request) -> Iterator[Event]:
        from impart.video.index.files.plan import planned
        from impart.video.index.files.prune import read_devices

        manifest = self._with_settings(self.manifest) if self.exists else self._new_manifest(self.encoder)
        failures, devices = {record.path: record for record in self.failures()}, read_devices(self.path)
        lacking = {record.video_id for record in self.incomplete()}
        videos = [record for record in self.videos() if record.video_id not in lacking]
        plan = yield from planned(found, videos, failures, manifest, request=request, devices=devices)
        yield from plan.planned()

    def _nothing(self, found: Scan, *, began: float) -> Iterator[Event]:
        """Report that no file was found for a new index, which is then not created."""
        from impart.video.index.events import IndexDone, PathFailed
        from impart.video.index.files.plan import IndexPlan

        yield from (PathFailed(path=path, reason=reason) for path, reason in found.problems)
        yield dataclasses.replace(IndexPlan().summary(), ignored=found.ignored_by_reason())
        yield IndexDone(path_failures=len(found.problems), unchanged=0, elapsed_s=time.monotonic() - began)

    def _save_cache(self, videos: Iterable[VideoRecord] | None = None) -> None:
        """Bring the cache of cold searches up to date; the caller holds the write lock.

        Args:
            videos: all that are committed; None reads them.
        """
        encoder = self._in_use.of(self.manifest)
        bank = None
        with suppress(EncoderError):  # damaged captions: searches say so
            bank = self._searcher.state.bank_of(encoder.base if isinstance(encoder, AugmentedEncoder) else encoder)
        records = self._store.videos() if videos is None else list(videos)
        save_cache(self._store, records, encoder=encoder, bank=bank)

    def _cache_here(self) -> None:
        """Write the cache of an index on object storage, which is this machine's own: another one may have the lock."""
        state = self._searcher.state.known_state
        if state not in (self._cached, cached_state(self._store)):
            with held_here(self.path) as held:
                if held:
                    self._save_cache()
            self._cached = state

    def _create(self) -> None:
        """Create the index, with the encoder's reference set in force."""
        encoder = self._in_use.for_new_index()
        manifest = self._new_manifest(encoder)
        Store.make_folder(self.path)
        with write_lock(self.path):
            if self.exists:  # another process created it meanwhile
                return
            IndexManifest.check_absent(self.path)
            self._store.create_tables(manifest)
            if isinstance(encoder, AugmentedEncoder):
                augmentation = install(self._store, encoder)
                self._store.make_neighbours(augmentation, manifest)
                manifest = dataclasses.replace(manifest, augmentation=augmentation)
            with self._store.errors("make"):
                sync_tables(self.path)
            manifest.save(self.path)

    def _adopt(self, writer: Writer) -> None:
        """Apply the settings and the reference set given to `open`."""
        manifest = self._with_settings(writer.manifest)
        if manifest != writer.manifest:
            writer.save_manifest(manifest)
        given = self._in_use.given
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

    def _read(self, read: Callable[[], list[_Row]]) -> list[_Row]:
        return self._reading.retry(read) if self.exists else []
