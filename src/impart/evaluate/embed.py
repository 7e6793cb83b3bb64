"""Images and texts to embeddings: once for every encoder, kept in the cache, unreadable images counted and named.

What an augmentation adds is computed from the base's embeddings, which are what the cache keeps: comparing ten
reference sets on one data set encodes its images once.
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
from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.errors import DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import Images
from impart.files import digest_of, read_ahead

__all__ = ["Embedded", "Progress", "base_of", "embed_images", "embed_texts"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the images done and their number."""

_PART = 512  # images in one part of the cache: what a kill can cost
_READERS = 4
_AHEAD = 64  # images read or being read
_TEXT_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of the n images of a set that could be read.

    Attributes:
        kept: (n,) their numbers in the set, ascending.
        embeddings: (n, D) L2-normalised; v' where the encoder is augmented.
        retrieval: (n, R) L2-normalised retrieval embeddings, always the base's.
        hashes: n content hashes (sha256), as reference sets have them.
        unreadable: a reason for each image left out, with its key.
    """

    kept: npt.NDArray[np.int64]
    embeddings: Float32
    retrieval: Float32
    hashes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)


def base_of(encoder: Encoder) -> Encoder:
    """The encoder whose forward pass it is: the base of an augmented one, else itself."""
    return encoder.base if isinstance(encoder, AugmentedEncoder) else encoder


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
        encoder: plain or augmented; an augmented one's images are embedded by its base and blended afterwards.
        images: the set's images.
        cache: where embeddings are kept; None = nowhere.
        batch: images in one forward pass.
        on_progress: told after each part, from the cache or not.

    Raises:
        DataError: no image could be read.
    """
    base = base_of(encoder)
    identity = images.identity()[:24] if cache is not None else ""
    parts: list[Embedded] = []
    for number, first in enumerate(range(0, len(images), _PART)):
        rows = range(first, min(first + _PART, len(images)))
        key = (base.fingerprint[:16], identity, f"{number:05d}")
        part = _stored(cache, key) if cache is not None else None
        if part is None or _readable_now(images, rows, part):
            part = _encode(base, images, rows, batch)
            if cache is not None:
                _store(cache, key, part)
        parts.append(part)
        if on_progress is not None:
            on_progress(rows.stop, len(images))
    whole = _join(parts)
    if not len(whole):
        first_reason = whole.unreadable[0] if whole.unreadable else "the set is empty"
        raise DataError(f"none of {len(images)} images could be read; first: {first_reason}")
    if isinstance(encoder, AugmentedEncoder):
        plain = ImageEmbeddings(whole.embeddings, whole.retrieval)
        blended = encoder.apply(plain.embeddings, encoder.blend(plain))
        whole = Embedded(
            kept=whole.kept,
            embeddings=blended,
            retrieval=whole.retrieval,
            hashes=whole.hashes,
            unreadable=whole.unreadable,
        )
    return whole


def embed_texts(encoder: Encoder, texts: Sequence[str], *, cache: EmbeddingCache | None = None) -> Float32:
    """(T, D) embeddings of texts, from the cache where it has this list."""
    base = base_of(encoder)
    key = (base.fingerprint[:16], "texts", digest_of(texts)[:24])
    stored = cache.load(*key) if cache is not None else None
    if stored is not None and len(stored.get("texts", ())) == len(texts):
        return np.asarray(stored["texts"], dtype=np.float32)
    parts = [base.encode_texts(texts[first : first + _TEXT_BATCH]) for first in range(0, len(texts), _TEXT_BATCH)]
    embedded: Float32 = np.concatenate(parts) if parts else np.zeros((0, base.traits.dim), np.float32)
    if cache is not None:
        cache.store(*key, texts=embedded)
    return embedded


def _encode(base: Encoder, images: Images, rows: range, batch: int) -> Embedded:
    kept: list[int] = []
    hashes: list[str] = []
    unreadable: list[str] = []
    batches: list[ImageEmbeddings] = []
    pending: list[Image.Image] = []

    def flush() -> None:
        if pending:
            batches.append(base.encode_images(pending))
            pending.clear()

    def read(number: int) -> tuple[int, Image.Image | None, str, str]:
        """(number, image or None, content hash, reason); runs in a reader thread."""
        try:
            image, content = images.read(number)
        except DataError as error:
            return number, None, "", str(error)
        return number, image, content, ""

    with closing(read_ahead(rows, read, workers=_READERS, ahead=_AHEAD)) as loaded:
        for number, image, content, reason in loaded:
            if image is None:
                unreadable.append(f"{images.keys[number]}: {reason}")
                continue
            pending.append(image)
            kept.append(number)
            hashes.append(content)
            if len(pending) == batch:
                flush()
    flush()
    dims = base.traits
    empty = ImageEmbeddings(np.zeros((0, dims.dim), np.float32), np.zeros((0, dims.retrieval_dim), np.float32))
    return Embedded(
        kept=np.asarray(kept, dtype=np.int64),
        embeddings=np.concatenate([part.embeddings for part in batches] or [empty.embeddings]),
        retrieval=np.concatenate([part.retrieval for part in batches] or [empty.retrieval]),
        hashes=tuple(hashes),
        unreadable=tuple(unreadable),
    )


def _readable_now(images: Images, rows: range, part: Embedded) -> bool:
    """Whether an image that could not be read when a part was stored can be now: a right or a drive came back."""
    for number in sorted(set(rows) - set(part.kept.tolist())):
        try:
            images.read(number)
        except DataError:
            continue
        return True
    return False


def _stored(cache: EmbeddingCache, key: tuple[str, ...]) -> Embedded | None:
    found = cache.load(*key)
    if found is None:
        return None
    try:
        return Embedded(
            kept=found["kept"],
            embeddings=found["embeddings"],
            retrieval=found["retrieval"],
            hashes=tuple(found["hashes"].tolist()),
            unreadable=tuple(found["unreadable"].tolist()),
        )
    except KeyError:
        return None


def _store(cache: EmbeddingCache, key: tuple[str, ...], part: Embedded) -> None:
    cache.store(
        *key,
        kept=part.kept,
        embeddings=part.embeddings,
        retrieval=part.retrieval,
        hashes=np.asarray(part.hashes, dtype=np.str_),
        unreadable=np.asarray(part.unreadable, dtype=np.str_),
    )


def _join(parts: list[Embedded]) -> Embedded:
    return Embedded(
        kept=np.concatenate([part.kept for part in parts]),
        embeddings=np.concatenate([part.embeddings for part in parts]),
        retrieval=np.concatenate([part.retrieval for part in parts]),
        hashes=tuple(one for part in parts for one in part.hashes),
        unreadable=tuple(reason for part in parts for reason in part.unreadable),
    )
