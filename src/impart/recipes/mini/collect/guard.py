"""Filter collected images: cleaned, no clip art, and no copy of an evaluation image.

A copy may be re-encoded, scaled, squeezed or cropped. It is found by 256 difference bits of a 17 x 16 thumbnail
(dHash), or by the correlation of 16 x 16 grey thumbnails. Both are computed of the whole image squeezed to a square and
of its centre square.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import DataError
from impart.files import file_key, read_ahead, sha256_hex, sha256_of_file
from impart.images import load_image, read_header
from impart.train.prepare.columns import Column, ColumnStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Guard", "Prints", "clean", "copies_among", "evaluation_images", "looks_drawn", "prints_of"]

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_CLIPS = frozenset({".mp4", ".avi", ".gif", ".webm", ".mkv"})
_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint16)
"""Set bits of a byte."""
_COLUMNS = {"bits": Column(np.uint8, (2, 32), ragged=True), "thumbs": Column(np.float32, (2, 256), ragged=True)}
_SHA256 = 64  # hex digits
_PART = 1024  # images whose prints are written at once


@dataclass(frozen=True, kw_only=True)
class Prints:
    """Perceptual hashes of N images, to find near-duplicates.

    Attributes:
        bits: (N, 2, 32) uint8, the packed 256 difference bits of the squeezed image and of its centre square.
        thumbs: (N, 2, 256) float32, L2-normalised centred grey thumbnails; zeros where an image is flat.
    """

    bits: NDArray[np.uint8]
    thumbs: NDArray[np.float32]

    @staticmethod
    def join(parts: Sequence[Prints]) -> Prints:
        """Concatenate parts."""
        if not parts:
            return Prints(bits=np.zeros((0, 2, 32), np.uint8), thumbs=np.zeros((0, 2, 256), np.float32))
        return Prints(
            bits=np.concatenate([part.bits for part in parts]), thumbs=np.concatenate([part.thumbs for part in parts])
        )


def prints_of(image: Image.Image) -> Prints:
    """Compute the prints of one image, N = 1."""
    grey = image.convert("L")
    side = min(grey.size)
    left, top = (grey.width - side) // 2, (grey.height - side) // 2
    bits, thumbs = [], []
    for view in (grey, grey.crop((left, top, left + side, top + side))):
        small = np.asarray(view.resize((17, 16), Image.Resampling.BOX), np.int16)  # (16, 17)
        bits.append(np.packbits(small[:, 1:] > small[:, :-1]))
        thumb = np.asarray(view.resize((16, 16), Image.Resampling.BOX), np.float32).ravel()
        thumb -= thumb.mean()
        norm = float(np.linalg.norm(thumb))
        thumbs.append(thumb / norm if norm > 16.0 else np.zeros_like(thumb))
    return Prints(bits=np.stack(bits)[None], thumbs=np.stack(thumbs)[None])


class Guard:
    """Finds copies of evaluation images.

    Args:
        prints: of the evaluation images.
        digests: SHA-256 of their files.
        max_bits: most difference bits, of 256, in which a copy differs.
        min_correlation: smallest correlation of the thumbnails of a copy.
    """

    def __init__(
        self, prints: Prints, digests: Iterable[str], *, max_bits: int = 26, min_correlation: float = 0.975
    ) -> None:
        self._bits = prints.bits.reshape(-1, 32)  # (2M, 32)
        self._thumbs = prints.thumbs.reshape(-1, 256)  # (2M, 256)
        self._digests = frozenset(digests)
        self._max_bits = max_bits
        self._min_correlation = min_correlation

    @classmethod
    def of_files(cls, paths: Sequence[Path], *, cache: Path | None = None) -> Guard:
        """Build a guard from images and clips (first, middle and last frame).

        Args:
            paths: of the files.
            cache: folder of the prints, shared by runs; None = compute all.

        Raises:
            DataError: a file cannot be read. Copies of an unreadable evaluation image would not be found.
        """
        if cache is None:
            files = [_evaluation_prints(path) for path in paths]
            return cls(Prints.join([prints for prints, _ in files]), [digest for _, digest in files])
        store = ColumnStore(cache, "evaluation", _COLUMNS, note=_SHA256)
        keys = [file_key(path) for path in paths]
        for number in store.missing(keys):
            prints, digest = _evaluation_prints(paths[number])
            _store(store, [keys[number]], [prints], [digest])
        rows = store.rows(keys)
        return cls(_stored(store, rows), store.notes(rows))

    def is_known_file(self, content: bytes) -> bool:
        """Whether the file is equal to an evaluation file, byte for byte."""
        return sha256_hex(content) in self._digests

    def copies(self, prints: Prints) -> NDArray[np.bool_]:
        """Return for each of N images whether it is a near-duplicate of an evaluation image, (N,)."""
        found = np.zeros(len(prints.bits), np.bool_)
        if not len(self._bits):
            return found
        for view in range(2):
            for at in range(0, len(found), 256):
                alike = prints.thumbs[at : at + 256, view] @ self._thumbs.T  # (n, 2M)
                # The bits of flat images are random: difference bits count only where thumbnails agree as well.
                row, column = np.nonzero(alike > 0.8)
                apart = _ONES[prints.bits[at + row, view] ^ self._bits[column]].sum(axis=1)  # (pairs,)
                near = (apart <= self._max_bits) | (alike[row, column] >= self._min_correlation)
                found[at + row[near]] = True
        return found


def copies_among(paths: Sequence[Path], guard: Guard, *, cache: Path) -> NDArray[np.bool_]:
    """Return for each of n image files whether it is a copy of an evaluation image, (n,); a broken file is none.

    Args:
        paths: of the files.
        guard: of the evaluation images.
        cache: folder of the prints, shared by runs.
    """
    store = ColumnStore(cache, "training", _COLUMNS)
    keys = [file_key(path) for path in paths]
    missing = store.missing(keys)
    workers = min(32, (os.cpu_count() or 1) + 4)
    jobs = (paths[number] for number in missing)
    with closing(read_ahead(jobs, _prints_of_file, workers=workers, ahead=4 * workers)) as computed:
        for first in range(0, len(missing), _PART):
            part = missing[first : first + _PART]
            _store(store, [keys[number] for number in part], list(islice(computed, len(part))))
    return guard.copies(_stored(store, store.rows(keys)))


def _store(store: ColumnStore, keys: Sequence[str], prints: Sequence[Prints], notes: Sequence[str] = ()) -> None:
    """Write one row of prints per file."""
    store.append(keys, {"bits": [own.bits for own in prints], "thumbs": [own.thumbs for own in prints]}, notes)


def _stored(store: ColumnStore, rows: NDArray[np.int64]) -> Prints:
    """Read the prints of some rows, in order; a row of a clip has several."""
    offsets = store.offsets("bits")
    items = [np.arange(offsets[row], offsets[row + 1]) for row in rows]
    chosen = np.concatenate([np.zeros(0, np.int64), *items])
    return Prints(bits=store.column("bits")[chosen], thumbs=store.column("thumbs")[chosen])


def _evaluation_prints(path: Path) -> tuple[Prints, str]:
    """Compute the prints of an evaluation file and its SHA-256."""
    try:
        return Prints.join([prints_of(image) for image in _frames(path)]), sha256_of_file(path)
    except (DataError, OSError, ValueError) as error:
        raise DataError(f"cannot read evaluation image {path}: {error}") from error


def _prints_of_file(path: Path) -> Prints:
    """Compute the prints of a training image; those of a broken file are zero."""
    try:
        return prints_of(load_image(path, draft_px=64)[0])
    except DataError:
        return Prints(bits=np.zeros((1, 2, 32), np.uint8), thumbs=np.zeros((1, 2, 256), np.float32))


def evaluation_images(data: Path, folders: Iterable[str]) -> list[Path]:
    """List every image and clip below the named folders of the development data, in a fixed order.

    Raises:
        DataError: a folder is missing or empty.
    """
    paths: list[Path] = []
    for name in folders:
        found = sorted(p for p in (data / name).rglob("*") if p.suffix.lower() in _IMAGES | _CLIPS)
        if not found:
            raise DataError(f"no evaluation images below {data / name}; --data names the folder that holds images/")
        paths += found
    return paths


def clean(content: bytes, *, min_side_px: int, short_side_px: int, trim: bool = False) -> Image.Image | None:
    """Decode an image as RGB with at most the given short side; None if it is broken, tiny or very long.

    Transparent parts become white; `trim` crops most of an even white border.
    """
    try:
        header = read_header(content)
        sides = header.width, header.height
        if min(sides) < min_side_px or max(sides) > 4 * min(sides):
            return None
        image, _ = load_image(content, draft_px=2 * short_side_px)  # decoding small is four times as fast
    except DataError:
        return None
    image = _trimmed(image) if trim else image
    scale = short_side_px / min(image.size)
    if scale < 1:
        image = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
        )
    return image


def _trimmed(image: Image.Image) -> Image.Image:
    """Crop most of an even white border.

    >>> page = Image.new("RGB", (200, 100), "white"); page.paste("red", (90, 40, 110, 60)); _trimmed(page).size
    (24, 24)
    """
    ink = image.convert("L").point([255 if level < 244 else 0 for level in range(256)])
    box = ink.getbbox()
    if box is None or box == (0, 0, *image.size):
        return image
    pad = max(2, round(0.08 * max(box[2] - box[0], box[3] - box[1])))
    return image.crop(
        (max(0, box[0] - pad), max(0, box[1] - pad), min(image.width, box[2] + pad), min(image.height, box[3] + pad))
    )


def looks_drawn(image: Image.Image) -> bool:
    """Whether an image is probably clip art, a diagram or text: few colours besides white, in even patches.

    >>> looks_drawn(Image.new("RGB", (64, 64), "red"))
    True
    """
    side = 96
    pixels = np.asarray(image.resize((side, side), Image.Resampling.NEAREST), np.int16)  # (96, 96, 3)
    coloured: npt.NDArray[np.bool_] = np.any(pixels < 244, axis=2)
    inside = pixels[coloured]  # (P, 3), all but white
    if len(inside) < 0.02 * side * side:
        return True
    codes = (inside[:, 0] >> 4) * 256 + (inside[:, 1] >> 4) * 16 + (inside[:, 2] >> 4)
    shares = np.sort(np.bincount(codes, minlength=4096) / len(codes))[::-1]
    full = np.asarray(image, np.int16)
    step = np.abs(np.diff(full, axis=1)).max(axis=2)  # (H, W-1)
    ink: npt.NDArray[np.bool_] = np.any(full < 244, axis=2)
    pairs = np.logical_and(ink[:, 1:], ink[:, :-1])
    even = float((step[pairs] <= 1).mean()) if pairs.any() else 1.0
    return bool(shares[:6].sum() > 0.85 or (even > 0.7 and shares[:16].sum() > 0.8))


def _frames(path: Path) -> list[Image.Image]:
    """Open an image, or the first, middle and last frame of a clip."""
    if path.suffix.lower() not in _CLIPS:
        return [load_image(path)[0]]
    import av

    with av.open(str(path)) as clip:
        frames = [frame.to_image() for frame in clip.decode(video=0)]
    return [frames[at] for at in sorted({0, len(frames) // 2, len(frames) - 1})]
