"""Names: teach the names of people, animals, places and things to an index by a few images, and find them.

Nothing is indexed again. A name is in force from the moment it is saved, also in processes that search meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.encoders.base import Encoder, Float32, ImageInput, l2_normalise
from impart.encoders.preprocess import squashed
from impart.errors import ConfigError, DataError, DecodeError, MissingExtraError, QueryError, VideoIndexError
from impart.retrieval.prompts import query_embeddings
from impart.video.faces.examples import faces_of_examples
from impart.video.faces.finding import FacesFound, find_in_videos
from impart.video.faces.store import FaceStore
from impart.video.index.durable.lock import write_lock
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import TableGoneError, VideoRecord
from impart.video.names.cluster_page import frames_of, load_clusters, save_clusters, write_page
from impart.video.names.discover import Discovered, discover
from impart.video.names.examples import Given, NewImages, given_folder, given_hits, given_images, load
from impart.video.names.find import Hits, NamesInForce, Prepared, hits_of
from impart.video.names.report import NameReport, report_on
from impart.video.names.store import Example, NameStore, TaughtNames, names_lock
from impart.video.search.last_search import SavedHit, load_last_search
from impart.video.search.snapshot import Snapshot

__all__ = ["Added", "Discovery", "NameInfo", "Names"]

_BATCH = 16
_TRIES = 5  # of reading the index, while a writer changes it
_LONGEST = 100  # letters of a name
_WAIT_S = 5.0  # for another process that writes to the index


@dataclass(frozen=True, kw_only=True)
class NameInfo:
    """One taught name.

    Attributes:
        images: number of images; in_force: how many of them count, all but those that are unlike the others.
        sources: the images, as they were given.
        hashes: of the content of the images; no name has two images of one hash.
        thumbnails: their small copies in the index; None where there is none.
        report: the check by leave-one-out; None where it was not asked for.
    """

    name: str
    images: int
    in_force: int
    sources: tuple[str, ...]
    hashes: tuple[str, ...]
    thumbnails: tuple[Path | None, ...]
    report: NameReport | None = None


@dataclass(frozen=True, kw_only=True)
class Added:
    """Result of `Names.add`.

    Attributes:
        added: number of new images per name.
        known: (name, source) of images that the name already had.
        failed: (source, reason) of images that could not be read.
        notes: what was left out, in words.
        reports: of the names that were changed.
    """

    added: dict[str, int]
    known: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    reports: tuple[NameReport, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Result of `Names.discover`.

    Attributes:
        found: the clusters.
        failed: (file, reason) of frames that are missing on the page.
    """

    found: Discovered
    failed: tuple[tuple[Path, str], ...]


class Names:
    """The taught names of one index; `VideoIndex.names`. May be shared by threads.

    Args:
        index: folder of the index.
        base_of: returns the base encoder of a manifest.
        snapshot: returns the index in memory, as it is now.
        stream: number of the video stream that is decoded.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from impart import VideoIndex
        >>> folder = tempfile.TemporaryDirectory()
        >>> index = VideoIndex.open(Path(folder.name) / "library.impart")
        >>> events = list(index.add([]))  # an empty index
        >>> index.names.add("our logo", [Image.radial_gradient("L")]).added
        {'our logo': 1}
        >>> [(info.name, info.images) for info in index.names.list()]
        [('our logo', 1)]
        >>> index.names.remove("our logo")
        1
        >>> folder.cleanup()
    """

    def __init__(
        self, index: Path, *, base_of: Callable[[IndexManifest], Encoder], snapshot: Callable[[], Snapshot]
    ) -> None:
        self._index = index
        self._base_of = base_of
        self._snapshot = snapshot
        self._store = NameStore(index)
        self.in_force = NamesInForce(self._store)

    def add(
        self,
        name: str,
        images: Sequence[str | os.PathLike[str] | ImageInput],
        *,
        sources: Sequence[str] | None = None,
    ) -> Added:
        """Teach a name, or add images to a known one.

        Args:
            name: as people write it; a known name is found whatever its case.
            images: image files, folders of them, moments of videos such as `clip.mp4@12.5`, or images in memory.
            sources: a source to be shown for each image in memory, such as the name of an uploaded file.

        Raises:
            ConfigError: the name is empty, too long, or contains control characters.
            DataError: none of the images can be read.
            IndexLockedError: another process is writing to the index.
        """
        return self._add(given_images(_checked(name), images, sources=sources))

    def add_folder(self, folder: str | os.PathLike[str]) -> Added:
        """Teach the names of a folder: one sub-folder per name.

        Raises:
            DataError: it has no sub-folders with images, or none of these can be read.
            IndexLockedError: another process is writing to the index.
        """
        notes: list[str] = []
        given = given_folder(Path(folder).expanduser(), on_note=notes.append)
        return self._add([dataclasses.replace(one, name=_checked(one.name)) for one in given], notes=notes)

    def add_hits(self, name: str, numbers: Sequence[int]) -> Added:
        """Teach a name by hits of the last search: the best frames of each.

        Args:
            numbers: of the hits, as printed; none = all.

        Raises:
            QueryError: there was no search, or it had no such hit.
        """
        hits = load_last_search(self._index).take(numbers)
        return self._add(given_hits(_checked(name), hits, self._snapshot()))

    def add_moments(self, name: str, moments: Sequence[SavedHit]) -> Added:
        """Teach a name by spans of indexed videos: the best frames of each.

        Args:
            moments: with equal `start_s` and `end_s`, `best_s` is the one frame.

        Raises:
            QueryError: a video is no longer in the index.
        """
        return self._add(given_hits(_checked(name), moments, self._snapshot()))

    def add_cluster(self, name: str, number: int) -> Added:
        """Teach a name by a cluster that `discover` found: its frames nearest to the mean.

        Raises:
            QueryError: there is no such cluster.
        """
        frames = load_clusters(self._index, number)
        return self._add([frame.given(_checked(name)) for frame in frames])

    def discover(self, page: str | os.PathLike[str], *, least: int = 2, top: int | None = None) -> Discovery:
        """Cluster what recurs in the index, and show it on a page with numbers for `add_cluster`.

        Args:
            page: HTML file to write.
            least: scenes of a cluster.
            top: most clusters, the biggest ones; None = all.

        Raises:
            VideoIndexError: the page cannot be written.
        """
        prepared = self.prepared()
        found = discover(prepared, least=least, top=top)
        save_clusters(
            self._index, [frame for cluster in found.clusters for frame in frames_of(cluster, prepared.snapshot)]
        )
        stream = prepared.snapshot.manifest.decode.stream
        failed = write_page(Path(page), found.clusters, prepared.snapshot, index=self._index, stream=stream)
        return Discovery(found=found, failed=tuple(failed))

    def list(self, *, check: bool = False) -> tuple[NameInfo, ...]:
        """List the names in alphabetical order.

        Args:
            check: add the report of each name.
        """
        prepared = self.prepared()
        taught = prepared.taught
        infos = []
        for name, rows in taught.rows.items():
            infos.append(
                NameInfo(
                    name=name,
                    images=len(rows),
                    in_force=int(prepared.detector(name).kept.sum()),
                    sources=tuple(taught.column(name, "path")),
                    hashes=tuple(taught.column(name, "hash")),
                    thumbnails=tuple(taught.thumbnail(one) for one in taught.column(name, "hash")),
                    report=report_on(name, prepared) if check else None,
                )
            )
        return tuple(infos)

    def taught(self) -> TaughtNames:
        """Read the names as they are now, without the videos of the index.

        Raises:
            VideoIndexError: the names are damaged, or there is no index.
            EncoderMismatchError: the names were taught with another encoder.
        """
        return self._store.read(IndexManifest.load(self._index))

    def remove(self, name: str, sources: Iterable[str] = (), *, hashes: Iterable[str] = ()) -> int:
        """Remove a name, or some of its images.

        Args:
            sources: images as `list` has them; a file name is enough. Without sources and hashes: the whole name.
            hashes: images by the hash of their content, as `list` has them.

        Returns:
            The number of images removed.

        Raises:
            QueryError: there is no such name or image.
        """
        manifest = IndexManifest.load(self._index)
        with names_lock(self._index):
            taught = self._store.read(manifest)
            known = self._known(taught, name)
            rows = taught.rows[known]
            wanted, by_hash = list(sources), list(hashes)
            if wanted or by_hash:
                given, own = taught.column(known, "path"), taught.column(known, "hash")
                chosen = []
                for one in (*wanted, *by_hash):
                    called = [(path, Path(path).name) for path in given] if one in wanted else [(one,) for one in own]
                    found = [row for row, names in zip(rows, called, strict=True) if one in names]
                    if not found:
                        raise QueryError(f"{known} has no image {one}: it has {', '.join(given)}")
                    chosen += found
                rows = np.unique(chosen)
            self._match_faces(self._store.remove(rows, manifest))
        return len(rows)

    def rename(self, old: str, new: str) -> str:
        """Give a name another spelling.

        Returns:
            The new name.

        Raises:
            QueryError: there is no such name, or the new one is another name already.
            ConfigError: the new name is empty, too long, or contains control characters.
        """
        new = _checked(new)
        manifest = IndexManifest.load(self._index)
        text = self._text_embedding([new], manifest)[new]
        with names_lock(self._index):
            taught = self._store.read(manifest)
            known = self._known(taught, old)
            other = taught.known(new)
            if other is not None and other != known:
                raise QueryError(f"{other} is a name already: remove it first, or add the images of {known} to it")
            self._store.rename(known, new, text, manifest)
        return new

    def find(self, name: str, *, top: int | None = None, path_glob: str | None = None, by_time: bool = False) -> Hits:
        """Find the spans in which a name is present, by its images alone.

        Args:
            top: most spans; None = all.
            path_glob: only in videos whose name matches, see `SearchOptions`.
            by_time: in order of path and time, not the best first.

        Returns:
            Hits whose score is the mean presence in the span, 0 to 1.

        Raises:
            QueryError: there is no such name.
        """
        prepared = self.prepared()
        known = self._known(prepared.taught, name)
        return hits_of(known, prepared, top=top, path_glob=path_glob, by_time=by_time)

    def prepared(self) -> Prepared:
        """Return the names with the index in memory, as they are now: presence of any name in any segment.

        Raises:
            VideoIndexError: the names or the index are damaged.
            EncoderMismatchError: the names were taught with another encoder.
        """
        for attempt in range(_TRIES):
            prepared = self.in_force.of(self._snapshot())
            try:
                prepared.snapshot.retrieval  # noqa: B018 - read now: a writer may replace the table before it is used
                break
            except TableGoneError as error:
                if attempt == _TRIES - 1:
                    raise VideoIndexError(f"{error}; try again") from error
        return prepared

    def find_faces(self, records: Sequence[VideoRecord]) -> Generator[FacesFound, None, int]:
        """Find the faces in the videos that were not searched yet, and in the images of the names.

        Faces of a name then raise its presence. `purge_faces` deletes all of this data. A run may be stopped at any
        moment; the next one continues.

        Args:
            records: videos of the index.

        Yields:
            An event per video. The work is done while they are consumed.

        Returns:
            The number of faces in the videos.

        Raises:
            MissingExtraError: the extra `faces` is not installed.
            IndexLockedError: another process was writing to the index.
        """
        manifest = IndexManifest.load(self._index)
        faces = yield from find_in_videos(self._index, records, manifest.decode)
        with names_lock(self._index):
            self._match_faces(self._store.read(manifest))
        return len(faces)

    def purge_faces(self) -> None:
        """Delete all data of faces; names and their images stay.

        Raises:
            IndexLockedError: another process is writing to the index.
        """
        IndexManifest.load(self._index)
        with write_lock(self._index, wait_s=_WAIT_S), names_lock(self._index):
            FaceStore(self._index).purge()

    def _match_faces(self, taught: TaughtNames) -> tuple[str, ...]:
        """Find the faces in the images of names, where faces are searched for; the caller holds the lock of the names.

        Returns:
            A note where the extra is missing. Faces of removed images are deleted all the same.
        """
        store = FaceStore(self._index)
        if not store.on:
            return ()
        known = store.examples()
        try:
            store.save_examples(faces_of_examples(taught, known))
        except MissingExtraError as error:
            hashes = {one for name in taught.names for one in taught.column(name, "hash")}
            store.save_examples({one: faces for one, faces in known.items() if one in hashes})
            return (f"faces in the new images are not found: {error}; then: impart names faces -i {self._index}",)
        return ()

    def _known(self, taught: TaughtNames, name: str) -> str:
        """Return the name as it was taught.

        Raises:
            QueryError: it was not; names those that were.
        """
        known = taught.known(name)
        if known is None:
            names = ", ".join(taught.names[:20]) + (", ..." if len(taught) > 20 else "")
            remedy = f"there are: {names}" if names else f"teach it with: impart names add {shlex.quote(name)} IMAGE..."
            raise QueryError(f"no name {name!r} in the index {self._index}: {remedy}")
        return known

    def _add(self, given: Iterable[Given], *, notes: Sequence[str] = ()) -> Added:
        """Read, encode and store images."""
        manifest = IndexManifest.load(self._index)
        encoder = self._base_of(manifest)
        snapshot, taught = self._snapshot(), self._store.read(manifest)
        new = NewImages(taught)
        failed: list[tuple[str, str]] = []
        for one in given:
            try:
                side_px, stream = encoder.traits.image_size_px, manifest.decode.stream
                new.take(load(one, snapshot, short_side_px=side_px, stream=stream))
            except (DataError, DecodeError, QueryError) as error:
                reason = error.reason if isinstance(error, DecodeError) else str(error)
                failed.append((one.source, reason))
        if not new.images:
            if not new.known:
                first = f": {failed[0][0]}: {failed[0][1]}" if failed else ""
                raise DataError(f"no image was given that can be read{first}")
        else:
            examples = self._encoded(new, encoder, manifest)
            with names_lock(self._index):
                notes = [*notes, *self._match_faces(self._store.add([*examples], manifest))]
        prepared = self.prepared()
        counts: dict[str, int] = {}
        for name, _, _ in new.images:
            counts[name] = counts.get(name, 0) + 1
        touched = dict.fromkeys([*counts, *(name for name, _ in new.known)])
        return Added(
            added=counts,
            known=tuple(new.known),
            failed=tuple(failed),
            notes=tuple(notes),
            reports=tuple(report_on(name, prepared) for name in touched if name in prepared.taught.rows),
        )

    def _encoded(self, new: NewImages, encoder: Encoder, manifest: IndexManifest) -> Sequence[Example]:
        texts = self._text_embedding([name for name, _, _ in new.images], manifest)
        fit, side_px = manifest.decode.fit, encoder.traits.image_size_px
        examples = []
        for first in range(0, len(new.images), _BATCH):
            part = new.images[first : first + _BATCH]
            pixels: Sequence[ImageInput] = [loaded.image for _, loaded, _ in part if loaded.image is not None]
            if fit == "squash":
                pixels = [squashed(image, side_px=side_px) for image in pixels]
            encoded = encoder.encode_images(pixels) if len(pixels) else None
            coming = iter(zip(encoded.embeddings, encoded.retrieval, strict=True)) if encoded else iter(())
            for name, loaded, phash in part:
                embedding, retrieval = loaded.vectors or next(coming)
                examples.append(
                    Example(
                        name=name,
                        source=_absolute(loaded.given),
                        hash=loaded.hash,
                        phash=phash,
                        embedding=embedding,
                        text_embedding=texts[name],
                        retrieval=retrieval,
                        thumbnail=loaded.image,
                    )
                )
        return examples

    def _text_embedding(self, names: Sequence[str], manifest: IndexManifest) -> dict[str, Float32]:
        """Embed names as the texts of a search."""
        unique = list(dict.fromkeys(names))
        rows = query_embeddings(unique, self._base_of(manifest).encode_texts)
        return dict(zip(unique, l2_normalise(rows), strict=True))


def _checked(name: str) -> str:
    """Return a name with single spaces, composed (NFC): folders of macOS have decomposed names.

    Raises:
        ConfigError: it is empty, too long, or contains control characters.
    """
    words = unicodedata.normalize("NFC", " ".join(name.split()))
    if not words or len(words) > _LONGEST or not words.isprintable():
        raise ConfigError(f"{name!r} is no name: give 1 to {_LONGEST} printable letters")
    return words


def _absolute(given: Given) -> str:
    """Write the source of an image so that it is found from any folder."""
    if not isinstance(given.image, Path):
        return given.source
    path = os.path.abspath(given.image)  # noqa: PTH100 - links stay
    return path if given.at_s is None else f"{path}@{given.at_s:g}"
