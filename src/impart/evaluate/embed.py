"""Embed images and texts for evaluation: once per base encoder, cached, with a list of the unreadable images.

An augmented encoder's v' is computed from the cached embeddings of its base. So ten reference sets on one data set
encode its images once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder, Float32, ImageEmbeddings, ImageInput
from impart.errors import DataError
from impart.evaluate.cache import KEY_DIGITS, Arrays, EmbeddingCache, Layout, key_of
from impart.evaluate.datasets.types import Images
from impart.files import read_ahead
from impart.retrieval.near_duplicates import perceptual_hash

__all__ = ["Batches", "Embedded", "Progress", "base_of", "blended", "embed_images", "embed_texts"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of items done, and of all items."""

_PART = 512  # images per file of the cache: what a killed run loses at most
_READERS = 4
_AHEAD = 64  # images read or being read
_TEXT_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of the n readable images of a set.

    Attributes:
        kept: (n,) their numbers in the set, ascending.
        embeddings: (n, D) L2-normalised; v' where the encoder is augmented.
        retrieval: (n, R) L2-normalised retrieval embeddings, always of the base encoder.
        hashes: n content hashes (sha256), as in reference sets.
        phashes: n pairs of perceptual hashes, of the image and of its mirrored copy.
        unreadable: key and reason of each image left out.
    """

    kept: npt.NDArray[np.int64]
    embeddings: Float32
    retrieval: Float32
    hashes: tuple[str, ...]
    phashes: tuple[tuple[str, str], ...] = ()
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def left_out(self) -> tuple[str, ...]:
        """A note per unreadable image, for a result."""
        return tuple(f"left out: {reason}" for reason in self.unreadable)


class Batches:
    """Encode images in batches, in their order.

    Args:
        encoder: a base encoder.
        size: images per forward pass.
    """

    def __init__(self, encoder: Encoder, size: int) -> None:
        self._encoder, self._size = encoder, size
        self._pending: list[ImageInput] = []
        self._parts: list[ImageEmbeddings] = []

    def add(self, image: ImageInput) -> None:
        """Add an image; encode the batch if it is full."""
        self._pending.append(image)
        if len(self._pending) == self._size:
            self._encode()

    def finish(self) -> ImageEmbeddings:
        """Encode the rest and return the embeddings (n, D) and (n, R) of all images."""
        self._encode()
        widths = self._encoder.traits.dim, self._encoder.traits.retrieval_dim
        embeddings = [np.zeros((0, widths[0]), np.float32), *(part.embeddings for part in self._parts)]
        retrieval = [np.zeros((0, widths[1]), np.float32), *(part.retrieval for part in self._parts)]
        return ImageEmbeddings(np.concatenate(embeddings), np.concatenate(retrieval))

    def _encode(self) -> None:
        if self._pending:
            self._parts.append(self._encoder.encode_images(self._pending))
            self._pending = []


def base_of(encoder: Encoder) -> Encoder:
    """Return the base of an augmented encoder, or the encoder itself."""
    return encoder.base if isinstance(encoder, AugmentedEncoder) else encoder


def blended(encoder: Encoder, plain: ImageEmbeddings) -> Float32:
    """Return v' (n, D) of the base encoder's embeddings if the encoder is augmented, else v."""
    if isinstance(encoder, AugmentedEncoder):
        return encoder.apply(plain.embeddings, encoder.blend(plain))
    return plain.embeddings


def embed_images(
    encoder: Encoder,
    images: Images,
    *,
    cache: EmbeddingCache | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Embedded:
    """Embed all images of a set.

    Args:
        encoder: plain or augmented; of an augmented one, the base encodes and the blend is added afterwards.
        images: the set's images.
        cache: of the base encoder's embeddings; None = no cache.
        batch: images per forward pass.
        on_progress: called with the images done after each part, cached or not.

    Raises:
        DataError: no image could be read.
    """
    base = base_of(encoder)
    identity = images.identity()[:KEY_DIGITS] if cache is not None else ""
    parts: list[Embedded] = []
    for number, first in enumerate(range(0, len(images), _PART)):
        rows = range(first, min(first + _PART, len(images)))
        key = (identity, f"{number:05d}")
        stored = cache.load(base, *key, layout=_layout(base)) if cache is not None else None
        part = _of_arrays(stored) if stored is not None and np.isin(stored["kept"], rows).all() else None
        if part is None or _readable_now(images, rows, part):
            part = _encode(base, images, rows, batch)
            if cache is not None:
                cache.store(base, *key, arrays=_as_arrays(part))
        parts.append(part)
        if on_progress is not None:
            on_progress(rows.stop, len(images))
    unreadable = tuple(reason for part in parts for reason in part.unreadable)
    if not any(map(len, parts)):
        raise DataError(
            f"none of {len(images)} images could be read; first: {unreadable[0] if unreadable else 'the set is empty'}"
        )
    plain = ImageEmbeddings(
        np.concatenate([part.embeddings for part in parts]), np.concatenate([part.retrieval for part in parts])
    )
    return Embedded(
        kept=np.concatenate([part.kept for part in parts]),
        embeddings=blended(encoder, plain),
        retrieval=plain.retrieval,
        hashes=tuple(one for part in parts for one in part.hashes),
        phashes=tuple(one for part in parts for one in part.phashes),
        unreadable=unreadable,
    )


def embed_texts(encoder: Encoder, texts: Sequence[str], *, cache: EmbeddingCache | None = None) -> Float32:
    """Embed texts with the base encoder: (T, D), from the cache where it has this list."""
    base = base_of(encoder)
    key = ("texts", key_of(texts))
    layout: Layout = {"texts": ("f", (len(texts), base.traits.dim))}
    stored = cache.load(base, *key, layout=layout) if cache is not None else None
    if stored is not None:
        return np.asarray(stored["texts"], dtype=np.float32)
    parts = [base.encode_texts(texts[first : first + _TEXT_BATCH]) for first in range(0, len(texts), _TEXT_BATCH)]
    embedded: Float32 = np.concatenate(parts) if parts else np.zeros((0, base.traits.dim), np.float32)
    if cache is not None:
        cache.store(base, *key, arrays={"texts": embedded})
    return embedded


def _encode(base: Encoder, images: Images, rows: range, batch: int) -> Embedded:
    kept: list[int] = []
    hashes: list[str] = []
    phashes: list[tuple[str, str]] = []
    unreadable: list[str] = []
    batches = Batches(base, batch)

    def read(number: int) -> tuple[int, Image.Image | None, str, tuple[str, str]]:
        """Read (number, image, content hash, perceptual hashes), or (number, None, reason, none).

        Runs in a reader thread.
        """
        try:
            image, content = images.read(number)
        except DataError as error:
            return number, None, str(error), ("", "")
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return number, image, content, (perceptual_hash(image), perceptual_hash(mirrored))

    with closing(read_ahead(rows, read, workers=_READERS, ahead=_AHEAD)) as loaded:
        for number, image, content_or_reason, both in loaded:
            if image is None:
                unreadable.append(f"{images.keys[number]}: {content_or_reason}")
                continue
            batches.add(image)
            kept.append(number)
            hashes.append(content_or_reason)
            phashes.append(both)
    encoded = batches.finish()
    return Embedded(
        kept=np.asarray(kept, dtype=np.int64),
        embeddings=encoded.embeddings,
        retrieval=encoded.retrieval,
        hashes=tuple(hashes),
        phashes=tuple(phashes),
        unreadable=tuple(unreadable),
    )


def _readable_now(images: Images, rows: range, part: Embedded) -> bool:
    """Whether an image that was unreadable when a part was stored can be read now: a permission or drive is back."""
    for number in sorted(set(rows) - set(part.kept.tolist())):
        try:
            images.read(number)
        except DataError:
            continue
        return True
    return False


def _layout(base: Encoder) -> Layout:
    """Arrays of one part of an image set."""
    return {
        "kept": ("i", ("n",)),
        "embeddings": ("f", ("n", base.traits.dim)),
        "retrieval": ("f", ("n", base.traits.retrieval_dim)),
        "hashes": ("U", ("n",)),
        "phashes": ("U", ("n", 2)),
        "unreadable": ("U", ("m",)),
    }


def _of_arrays(arrays: Arrays) -> Embedded:
    return Embedded(
        kept=arrays["kept"],
        embeddings=arrays["embeddings"],
        retrieval=arrays["retrieval"],
        hashes=tuple(arrays["hashes"].tolist()),
        phashes=tuple((own, mirrored) for own, mirrored in arrays["phashes"].tolist()),
        unreadable=tuple(arrays["unreadable"].tolist()),
    )


def _as_arrays(part: Embedded) -> Arrays:
    return {
        "kept": part.kept,
        "embeddings": part.embeddings,
        "retrieval": part.retrieval,
        "hashes": np.asarray(part.hashes, dtype=np.str_),
        "phashes": np.asarray(part.phashes, dtype=np.str_).reshape(-1, 2),
        "unreadable": np.asarray(part.unreadable, dtype=np.str_),
    }
