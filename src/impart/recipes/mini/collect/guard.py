"""Which fetched images may be trained on: cleaned, not clip art, and not a copy of an image kept for evaluation.

A copy is found in two ways, because copies are re-encoded, scaled and squared in different manners: 256 difference
bits of a 17 x 16 thumbnail (dHash), and the correlation of 16 x 16 grey thumbnails. Both are taken of the whole image
squeezed to a square and of its centre square, on both sides.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from impart.errors import DataError
from impart.files import atomic_path, file_state, read_ahead, sha256_hex, sha256_of_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Guard", "Prints", "clean", "copies_among", "evaluation_images", "looks_drawn", "prints_of"]

_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_CLIPS = frozenset({".mp4", ".avi", ".gif", ".webm", ".mkv"})
_ONES = np.array([byte.bit_count() for byte in range(256)], np.uint16)
"""How many bits of a byte are set."""


@dataclass(frozen=True, kw_only=True)
class Prints:
    """What near-duplicates are found by, for N images.

    Attributes:
        bits: (N, 2, 32) uint8, the packed 256 difference bits of the squeezed image and of its centre square.
        thumbs: (N, 2, 256) float32, L2-normalised centred grey thumbnails; zeros where an image is flat.
    """

    bits: NDArray[np.uint8]
    thumbs: NDArray[np.float32]

    @staticmethod
    def join(parts: Sequence[Prints]) -> Prints:
        """All parts as one, in order."""
        if not parts:
            return Prints(bits=np.zeros((0, 2, 32), np.uint8), thumbs=np.zeros((0, 2, 256), np.float32))
        return Prints(
            bits=np.concatenate([part.bits for part in parts]), thumbs=np.concatenate([part.thumbs for part in parts])
        )


def prints_of(image: Image.Image) -> Prints:
    """The prints of one image, N = 1."""
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
    """Says which images are copies of evaluation images.

    Args:
        prints: of the evaluation images.
        digests: SHA-256 of their files.
        max_bits: at most so many of 256 difference bits differ in a copy.
        min_correlation: thumbnails of a copy agree at least so well.
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
        """A guard for images and clips (first, middle and last frame).

        Args:
            paths: of the files.
            cache: a folder that keeps prints between runs; files are told apart by path, size and time of change.

        Raises:
            DataError: a file cannot be read: an evaluation image that is not looked at cannot be kept out.
        """
        stored = None
        if cache is not None:
            stats = "\n".join(f"{path} {file_state(path)}" for path in paths)
            stored = cache / f"{sha256_hex(stats)[:16]}.npz"
            if stored.is_file():
                with np.load(stored) as known:
                    return cls(Prints(bits=known["bits"], thumbs=known["thumbs"]), known["digests"].tolist())
        parts, digests = [], []
        for path in paths:
            digests.append(sha256_of_file(path))
            try:
                parts += [prints_of(image) for image in _frames(path)]
            except (OSError, ValueError) as error:
                raise DataError(f"cannot read evaluation image {path}: {error}") from error
        prints = Prints.join(parts)
        if stored is not None:
            stored.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(stored) as part, part.open("wb") as file:
                np.savez(file, bits=prints.bits, thumbs=prints.thumbs, digests=np.array(digests))
        return cls(prints, digests)

    def is_known_file(self, content: bytes) -> bool:
        """Whether the file is one of the evaluation files, byte for byte."""
        return sha256_hex(content) in self._digests

    def copies(self, prints: Prints) -> NDArray[np.bool_]:
        """Which of N images are near-duplicates of an evaluation image, (N,)."""
        found = np.zeros(len(prints.bits), np.bool_)
        if not len(self._bits):
            return found
        for view in range(2):
            for at in range(0, len(found), 256):
                alike = prints.thumbs[at : at + 256, view] @ self._thumbs.T  # (n, 2M)
                # Flat images have no sure bits: the difference bits count only where thumbnails agree as well.
                row, column = np.nonzero(alike > 0.8)
                apart = _ONES[prints.bits[at + row, view] ^ self._bits[column]].sum(axis=1)  # (pairs,)
                near = (apart <= self._max_bits) | (alike[row, column] >= self._min_correlation)
                found[at + row[near]] = True
        return found


def copies_among(paths: Sequence[Path], guard: Guard, *, cache: Path) -> NDArray[np.bool_]:
    """Which of n image files are copies of evaluation images, (n,); a broken file is none.

    Args:
        cache: a folder that keeps the prints between runs; files are told apart by path and size.
    """
    told = "\n".join(f"{path} {path.stat().st_size}" for path in paths)
    stored = cache / f"prints-{sha256_hex(told)[:16]}.npz"
    if stored.is_file():
        with np.load(stored) as known:
            prints = Prints(bits=known["bits"], thumbs=known["thumbs"])
    else:
        workers = min(32, (os.cpu_count() or 1) + 4)
        prints = Prints.join(list(read_ahead(paths, _prints_of_file, workers=workers, ahead=4 * workers)))
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_path(stored) as part, part.open("wb") as file:
            np.savez(file, bits=prints.bits, thumbs=prints.thumbs)
    return guard.copies(prints)


def _prints_of_file(path: Path) -> Prints:
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (64, 64))  # JPEG: decode small
            return prints_of(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Prints(bits=np.zeros((1, 2, 32), np.uint8), thumbs=np.zeros((1, 2, 256), np.float32))


def evaluation_images(data: Path, folders: Iterable[str]) -> list[Path]:
    """Every image and clip below the named folders of the development data, in a fixed order.

    Raises:
        DataError: a folder is missing or empty, so that nothing would be guarded.
    """
    paths: list[Path] = []
    for name in folders:
        found = sorted(p for p in (data / name).rglob("*") if p.suffix.lower() in _IMAGES | _CLIPS)
        if not found:
            raise DataError(f"no evaluation images below {data / name}; --data names the folder that holds images/")
        paths += found
    return paths


def clean(content: bytes, *, min_side_px: int, short_side_px: int, trim: bool = False) -> Image.Image | None:
    """The image as RGB with at most the given short side, or None where it is broken, tiny or very long.

    Transparent parts become white; `trim` cuts most of an even white border off.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if min(opened.size) < min_side_px or max(opened.size) > 4 * min(opened.size):
                return None
            opened.draft("RGB", (2 * short_side_px, 2 * short_side_px))  # JPEG: decode small, four times as fast
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                layer = image.convert("RGBA")
                image = Image.new("RGB", layer.size, "white")
                image.paste(layer, mask=layer.getchannel("A"))
            image = image.convert("RGB")
            image = _trimmed(image) if trim else image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    scale = short_side_px / min(image.size)
    if scale < 1:
        image = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC
        )
    return image


def _trimmed(image: Image.Image) -> Image.Image:
    """The image without most of an even white border, so that a thing on white fills it.

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
    """Whether an image is probably clip art, a diagram or text: few colours beside white, in even patches.

    >>> looks_drawn(Image.new("RGB", (64, 64), "red"))
    True
    """
    side = 96
    pixels = np.asarray(image.resize((side, side), Image.Resampling.NEAREST), np.int16)  # (96, 96, 3)
    coloured: npt.NDArray[np.bool_] = np.any(pixels < 244, axis=2)
    inside = pixels[coloured]  # (P, 3), what is not white
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
    """The image, or first, middle and last frame of a clip."""
    if path.suffix.lower() not in _CLIPS:
        with Image.open(path) as opened:
            return [opened.convert("RGB")]
    import av

    with av.open(str(path)) as clip:
        frames = [frame.to_image() for frame in clip.decode(video=0)]
    return [frames[at] for at in sorted({0, len(frames) // 2, len(frames) - 1})]
