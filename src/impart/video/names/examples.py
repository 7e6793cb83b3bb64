"""Examples: what a person gives to teach a name (files, folders, moments of videos), as images to encode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from impart.encoders.base import Float32, ImageInput, l2_normalise
from impart.errors import DataError, DecodeError, QueryError
from impart.files import sha256_hex
from impart.images import load_image
from impart.readers.folders import ImageFiles
from impart.readers.names import label_text
from impart.readers.sample import count_suffixes
from impart.retrieval.near_duplicates import HASH_BITS, hash_signs, perceptual_hash
from impart.video.decode.content import content_of
from impart.video.names.report import SAME_BITS
from impart.video.names.stills import still_at
from impart.video.names.store import TaughtNames, fold
from impart.video.search.hits import parse_moment
from impart.video.search.last_search import SavedHit
from impart.video.search.snapshot import Snapshot

__all__ = ["Given", "Loaded", "NewImages", "given_folder", "given_hits", "given_images", "load"]

_MEGAPIXELS = 100.0
_DRAFT_PX = 512
_ALIKE = 0.98  # cosine of the retrieval embeddings from which two frames of a hit teach nothing new
_PER_HIT = 3  # frames of a hit


@dataclass(frozen=True, kw_only=True)
class Given:
    """One image that was given for a name, not read yet.

    Attributes:
        name: the name.
        source: a file or moment, as it is shown to people.
        image: a file, or an image in memory; of a moment, the file of its video.
        at_s: seconds from the start of the video; None for an image.
    """

    name: str
    source: str
    image: Path | ImageInput
    at_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An image that was read.

    Attributes:
        hash: of its content.
        image: None where only the vectors of an index are known.
        vectors: embedding (D,) and retrieval embedding (R,) of the index; None for an image to encode.
    """

    given: Given
    hash: str
    image: Image.Image | None = None
    vectors: tuple[Float32, Float32] | None = None


def given_images(
    name: str, images: Sequence[str | os.PathLike[str] | ImageInput], *, sources: Sequence[str] | None = None
) -> Iterator[Given]:
    """List the images of one name.

    Args:
        images: image files, folders of them, moments of videos (`clip.mp4@12.5`), or images in memory.
        sources: a source to be shown for each image in memory; None = their numbers.

    Raises:
        DataError: a folder has no images.
        QueryError: a moment has no valid time.
    """
    for number, image in enumerate(images, 1):
        if not isinstance(image, str | os.PathLike):
            source = f"image {number}" if sources is None else sources[number - 1]
            yield Given(name=name, source=source, image=image)
            continue
        path = Path(image).expanduser()
        if path.is_dir():
            files = ImageFiles.below(path).files
            if not files:
                raise DataError(f"{path} has no images: put images of {name} into it")
            yield from (Given(name=name, source=str(file), image=file) for file in files)
        elif not path.exists() and "@" in path.name:
            file, at_s = parse_moment(str(path))
            yield Given(name=name, source=str(path), image=Path(file), at_s=at_s)
        else:
            yield Given(name=name, source=str(path), image=path)


def given_folder(folder: Path, *, on_note: Callable[[str], None]) -> list[Given]:
    """List the images of a folder with one sub-folder per name; underscores in a folder's name are spaces.

    Args:
        on_note: called with each note on what is left out.

    Raises:
        DataError: there are no sub-folders with images.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error
    found: list[Given] = []
    for place in (entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")):
        images = ImageFiles.below(place)
        if images.others:
            on_note(f"{place}: files that are no images are left out: {count_suffixes(images.others)}")
        if not images.files:
            on_note(f"{place} has no images: it is left out")
        name = label_text(place.name)
        found += [Given(name=name, source=str(file), image=file) for file in images.files]
    beside = [entry for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    if not found:
        direct = f" (files directly in it belong to no name: {len(beside)})" if beside else ""
        raise DataError(
            f"{folder} has no sub-folders with images{direct}: make one sub-folder per name, or name what the images "
            f"show: impart names add NAME {folder}"
        )
    if beside:
        on_note(
            f"left out, as they belong to no name: {len(beside)} file{'' if len(beside) == 1 else 's'} directly in "
            f"{folder}, first {beside[0].name}"
        )
    return found


def given_hits(name: str, hits: Sequence[SavedHit], snapshot: Snapshot) -> list[Given]:
    """List frames of hits of a search: the best one of each, and up to two that show something else.

    Raises:
        QueryError: a video is no longer in the index.
    """
    numbers = {video_id: number for number, video_id in enumerate(snapshot.video_ids)}
    found = []
    for hit in hits:
        if hit.kind == "photo":
            found.append(Given(name=name, source=str(hit.path), image=hit.path))
            continue
        number = numbers.get(hit.video_id)
        if number is None:
            raise QueryError(f"hit {hit.number}, {hit.path}, is no longer in the index: search again")
        first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
        starts = snapshot.start_s[first:stop]
        length_s = hit.end_s - hit.start_s
        chosen: list[int] = []
        for at_s in (hit.best_s, hit.start_s + 0.25 * length_s, hit.start_s + 0.75 * length_s):
            row = first + max(0, int(np.searchsorted(starts, at_s + 1e-6, side="right")) - 1)
            rows = l2_normalise(np.asarray(snapshot.retrieval[[*chosen, row]], np.float32))
            if len(chosen) < _PER_HIT and not (rows[:-1] @ rows[-1] > _ALIKE).any():
                chosen.append(row)
        times = [float(snapshot.start_s[row]) for row in chosen]
        found += [Given(name=name, source=f"{hit.path}@{at_s:g}", image=hit.path, at_s=at_s) for at_s in times]
    return found


def load(given: Given, snapshot: Snapshot | None, *, short_side_px: int, stream: int) -> Loaded:
    """Read one image, or decode the frame of a moment.

    A moment of an indexed video whose file is gone takes the vectors of the index.

    Args:
        snapshot: of the index; None = an empty one.
        short_side_px: of decoded frames.
        stream: number of the video stream that the index takes.

    Raises:
        DataError, DecodeError: the file cannot be read.
        QueryError: the video is shorter.
    """
    if given.at_s is None:
        try:
            image, digest = load_image(given.image, max_megapixels=_MEGAPIXELS, draft_px=_DRAFT_PX)
        except DataError as error:
            if isinstance(given.image, Path) and given.image.is_file() and content_of(given.image) == "video":
                raise DataError(f"a video: name a moment of it, such as {given.source}@12.5") from error
            raise
        return Loaded(given=given, hash=digest, image=image)
    assert isinstance(given.image, Path)
    number = None if snapshot is None else _indexed(snapshot, given.image)
    path, at_s = given.image, given.at_s
    if snapshot is not None and number is not None:
        path = snapshot.paths[number]
        given = replace(given, image=path)  # a bare name was enough: the source is the whole path
    try:
        frame = Image.fromarray(still_at(path, at_s, short_side_px=short_side_px, stream=stream))
    except DecodeError:
        if snapshot is None or number is None:
            raise
        return _from_index(given, snapshot, number)
    return Loaded(given=given, hash=sha256_hex(repr(frame.size), frame.tobytes()), image=frame)


def _from_index(given: Given, snapshot: Snapshot, number: int) -> Loaded:
    first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
    at_s = given.at_s or 0.0
    if at_s > snapshot.end_s[stop - 1]:
        end_s = float(snapshot.end_s[stop - 1])
        raise QueryError(f"{at_s:g} s is outside {snapshot.paths[number]}: it ends at {end_s:g} s")
    row = first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s + 1e-6, side="right")) - 1)
    vectors = (
        l2_normalise(np.asarray(snapshot.vectors[row : row + 1], np.float32))[0],
        l2_normalise(np.asarray(snapshot.retrieval[row : row + 1], np.float32))[0],
    )
    return Loaded(given=given, hash=sha256_hex(vectors[0].tobytes()), vectors=vectors)


def _indexed(snapshot: Snapshot, path: Path) -> int | None:
    """Find the number of an indexed video; a bare name of no existing file is enough where one video has it."""
    given = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - as the index names its files: links stay
    number = next((i for i, known in enumerate(snapshot.paths) if known == given), None)
    if number is None and path.name == str(path) and not given.exists():
        namesakes = [i for i, known in enumerate(snapshot.paths) if known.name == path.name]
        if len(namesakes) > 1:
            raise QueryError(f"{len(namesakes)} indexed videos are called {path}: give the path of one of them")
        number = namesakes[0] if namesakes else None
    return number


class NewImages:
    """Images that are to be added: (name as it is taught, image, perceptual hash), without those that are known.

    Attributes:
        known: (name, source) of images that the name already has, or that were given twice.
    """

    def __init__(self, taught: TaughtNames) -> None:
        self.images: list[tuple[str, Loaded, str]] = []
        self.known: list[tuple[str, str]] = []
        self._taught = taught
        self._spelled: dict[str, str] = {}
        self._hashes: dict[str, tuple[list[str], list[str]]] = {}

    def take(self, loaded: Loaded) -> None:
        """Add an image, or record that it is known."""
        given = loaded.given
        name = self._taught.known(given.name) or self._spelled.setdefault(fold(given.name), given.name)
        phash = perceptual_hash(loaded.image) if loaded.image is not None else ""
        if name not in self._hashes:
            there = name in self._taught.rows
            columns = [self._taught.column(name, column) if there else [] for column in ("hash", "phash")]
            self._hashes[name] = (columns[0], columns[1])
        hashes, phashes = self._hashes[name]
        if loaded.hash in hashes or _is_same(phash, phashes):
            self.known.append((name, given.source))
            return
        hashes.append(loaded.hash)
        phashes.append(phash)
        self.images.append((name, loaded, phash))


def _is_same(phash: str, others: Sequence[str]) -> bool:
    """Whether an image with one of the other perceptual hashes is this one, resized or saved again."""
    if not phash or not others:
        return False
    differ = (HASH_BITS - hash_signs([phash]) @ hash_signs(others).T) / 2
    return bool((differ <= SAME_BITS).any())
