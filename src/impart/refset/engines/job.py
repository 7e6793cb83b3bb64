"""Job of a worker of `impart refset build`: read and encode batches of pairs. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.encoders.cluster.encoder_source import EncoderSource
from impart.files import read_ahead
from impart.refset.engines.reading import READERS, load_pair
from impart.refset.pairs import Pair

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EncodedPairs", "PairBatch", "ReadPair", "RefsetJob", "make_refset_job"]


@dataclass(frozen=True)
class PairBatch:
    """Unit: a batch of pairs, and the texts that the driver will ask for, with prompts filled in."""

    number: int
    pairs: tuple[Pair, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ReadPair:
    """Result of reading a pair.

    Attributes:
        content: hash of its image, or the reason why it cannot be used.
        phash: perceptual hash; empty where it cannot be used.
        row: of its image in the embeddings of the batch; None where it cannot be used.
        unseen: whether this machine has no file at the path of the image.
    """

    content: str
    phash: str
    row: int | None
    unseen: bool = False


@dataclass(frozen=True)
class EncodedPairs:
    """Message: a batch, with the embeddings of its m images (captions of one image share a row) and of its texts."""

    number: int
    pairs: tuple[ReadPair, ...]
    made: ImageEmbeddings | None
    texts: Float32 | None


def make_refset_job(source: EncoderSource, *, max_megapixels: float, threads: int) -> RefsetJob:
    """Load the encoder and make the job; called on the worker.

    Raises:
        EncoderError: the encoder cannot be loaded, or is another one here.
    """
    return RefsetJob(source.load(threads=threads), max_megapixels=max_megapixels)


class RefsetJob:
    """Reads and encodes batches of pairs.

    Args:
        encoder: loaded once.
        max_megapixels: larger images are refused.
    """

    def __init__(self, encoder: Encoder, *, max_megapixels: float) -> None:
        self._encoder = encoder
        self._load = partial(load_pair, side_px=encoder.traits.image_size_px, max_megapixels=max_megapixels)

    def run(self, unit: PairBatch) -> Iterator[EncodedPairs]:
        """Encode a batch: its images in one pass, as a local build does."""
        unique: dict[str, Image.Image] = {}
        rows: dict[str, int] = {}
        found = []
        with closing(read_ahead(unit.pairs, self._load, workers=READERS, ahead=len(unit.pairs))) as loaded:
            for pair, image, content, phash in loaded:
                if image is None:
                    unseen = isinstance(pair.image, Path) and not pair.image.exists()
                    found.append(ReadPair(content, phash, None, unseen))
                    continue
                unique[content] = image
                found.append(ReadPair(content, phash, rows.setdefault(content, len(rows))))
        made = self._encoder.encode_images(list(unique.values())) if unique else None
        texts = self._encoder.encode_texts(unit.texts) if unit.texts else None
        yield EncodedPairs(unit.number, tuple(found), made, texts)
