"""Batches of pairs that workers read and encode, in the order of the source, for a build in this process.

The build takes a batch as it takes one that it read itself: an image is replaced by its row in the embeddings that came
back. Batches have the same images and texts as in a local build, so the set is the same, byte for byte. Where the build
leaves out images of a batch that earlier ones had, or asks for other texts than were foreseen, they are encoded again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings
from impart.encoders.cluster.connection import RayEngine
from impart.encoders.cluster.encoder_source import EncoderSource
from impart.encoders.cluster.pool import Lost, Pool, PoolAnswer, PoolEvent, Ready
from impart.errors import ReferenceSetError
from impart.refset.engines.job import EncodedPairs, PairBatch, RefsetJob, make_refset_job
from impart.refset.engines.reading import KEPT_TEXTS, load_pair
from impart.refset.pairs import Pair
from impart.retrieval.prompts import fill_prompt

__all__ = ["ShardedPairs", "open_sharded"]

TRIES = 3  # workers that a batch may cost
AHEAD = 3  # batches per worker that are in work or wait to be written
REMEDY = "mount its folder at the same path on every machine (docs/many-machines.md)"


@dataclass(frozen=True)
class EncodedImage:
    """An image that a worker has encoded: its batch, its row there, and the pair to read it again."""

    batch: EncodedPairs
    row: int
    pair: Pair


@contextmanager
def open_sharded(
    encoder: Encoder,
    *,
    engine: RayEngine,
    batch: int,
    prompts: Sequence[str],
    max_megapixels: float,
    on_worker: Callable[[Ready | Lost], None] | None = None,
) -> Iterator[ShardedPairs]:
    """Start workers for a build.

    Args:
        encoder, batch, prompts, max_megapixels: see `impart.refset.build.build`.
        on_worker: called for each worker that is ready, or lost.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster cannot be reached, or no worker starts.
    """
    source = EncoderSource.of(encoder)

    def make(threads: int) -> Callable[[], RefsetJob]:
        return partial(make_refset_job, source, max_megapixels=max_megapixels, threads=threads)

    with Pool(engine, make) as pool:
        yield ShardedPairs(encoder, pool, batch=batch, prompts=prompts, on_worker=on_worker)


class ShardedPairs:
    """Source of encoded batches; for the build also the encoder, which returns what workers have computed.

    Args:
        encoder: that of this process, for texts that were not foreseen.
        pool: the workers.
        batch: images per forward pass.
        prompts: of the build.
        on_worker: see `open_sharded`.
    """

    def __init__(
        self,
        encoder: Encoder,
        pool: Pool,
        *,
        batch: int,
        prompts: Sequence[str],
        on_worker: Callable[[Ready | Lost], None] | None = None,
    ) -> None:
        self._encoder = encoder
        self._pool = pool
        self._batch = batch
        self._prompts = tuple(prompts) or ("{}",)
        self._on_worker = on_worker
        self._source: Iterator[Pair] = iter(())
        self._exhausted = False
        self._given = self._taken = self._urgent_given = 0
        self._given_pairs: dict[int, list[Pair]] = {}
        self._urgent: deque[PairBatch] = deque()
        self._results: dict[int, tuple[EncodedPairs, str]] = {}
        self._texts: dict[int, tuple[str, ...]] = {}
        self._foreseen: dict[str, None] = {}  # texts that the build will have encoded by then
        self._losses: Counter[int] = Counter()
        self._events: Iterator[PoolEvent] = iter(())
        self._now: EncodedPairs | None = None

    @property
    def traits(self) -> EncoderTraits:
        return self._encoder.traits

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def batches(self, pairs: Iterable[Pair]) -> Iterator[list[tuple[Pair, Any, str, str]]]:
        """Yield the pairs in batches, as `build` has them from its own readers.

        Raises:
            ReferenceSetError: a batch cost several workers.
            ClusterError: workers do not stay alive.
        """
        self._source = iter(pairs)
        while True:
            number = self._taken + 1
            self._pump()  # workers get work also while results wait here
            while number not in self._results:
                if not self._pump() and self._exhausted and number > self._given:
                    return
            result, host = self._results.pop(number)
            self._taken, self._now = number, result
            yield list(self._items(self._given_pairs.pop(number), result, host=host))
            self._texts.pop(number, None)

    def encode_images(self, images: Sequence[Any]) -> ImageEmbeddings:
        """Return the embeddings of the images of the batch; encode again where it is not all of them."""
        batch = images[0].batch
        assert all(isinstance(image, EncodedImage) and image.batch is batch for image in images)
        if [image.row for image in images] == list(range(len(batch.made))):
            return batch.made  # type: ignore[no-any-return]
        self._urgent_given -= 1
        number = self._urgent_given
        self._urgent.append(PairBatch(number, tuple(_portable(image.pair) for image in images), ()))
        while number not in self._results:
            self._pump()
        again, _ = self._results.pop(number)
        if again.made is None or len(again.made) != len(images):
            names = ", ".join(image.pair.path or image.pair.image_key for image in images[:3])
            raise ReferenceSetError(f"images were changed during the build, among {names}: build the set again")
        return again.made

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Return the embeddings of texts; encode here those that were not foreseen."""
        batch = self._now
        if batch is not None and batch.texts is not None and tuple(texts) == self._texts.get(batch.number):
            return batch.texts
        return self._encoder.encode_texts(texts)

    def _items(
        self, pairs: Sequence[Pair], result: EncodedPairs, *, host: str
    ) -> Iterator[tuple[Pair, EncodedImage | None, str, str]]:
        for pair, found in zip(pairs, result.pairs, strict=True):
            if found.row is not None:
                yield pair, EncodedImage(result, found.row, pair), found.content, found.phash
                continue
            seen_here = found.unseen and isinstance(pair.image, Path) and pair.image.exists()
            remedy = f"; the worker's machine {host} has no such file: {REMEDY}" if seen_here else ""
            yield pair, None, f"{found.content}{remedy}", ""

    def _pump(self) -> bool:
        """Take one event of the workers; False where there is none, since all wait."""
        event = next(self._events, None)
        match event:
            case None:
                self._events = self._pool.run(self._next_unit)
                return False
            case PoolAnswer():
                self._results[event.message.number] = event.message, event.host
            case Ready() | Lost():
                if isinstance(event, Lost) and event.unit is not None:
                    self._give_again(event)
                if self._on_worker is not None:
                    self._on_worker(event)
        return True

    def _next_unit(self) -> PairBatch | None:
        """Make the next batch, unless enough are in work."""
        if self._urgent:
            return self._urgent.popleft()
        if self._exhausted or self._given - self._taken >= AHEAD * self._pool.workers:
            return None
        pairs = list(itertools.islice(self._source, self._batch))
        if not pairs:
            self._exhausted = True
            return None
        self._given += 1
        self._given_pairs[self._given] = pairs
        texts = self._texts[self._given] = self._new_texts(pairs)
        return PairBatch(self._given, tuple(_portable(pair) for pair in pairs), texts)

    def _new_texts(self, pairs: Sequence[Pair]) -> tuple[str, ...]:
        """Foresee which texts the build will ask for: those that it does not keep, if all pairs can be used."""
        texts = list(dict.fromkeys(pair.text for pair in pairs if not pair.problem and pair.text.strip()))
        missing = [text for text in texts if text not in self._foreseen]
        if len(self._foreseen) + len(missing) > KEPT_TEXTS:
            self._foreseen.clear()
            missing = texts
        self._foreseen.update(dict.fromkeys(missing))
        return tuple(fill_prompt(prompt, text) for text in missing for prompt in self._prompts)

    def _give_again(self, lost: Lost) -> None:
        unit: PairBatch = lost.unit
        self._losses[unit.number] += 1
        if self._losses[unit.number] >= TRIES:
            first, last = (pair.path or pair.image_key for pair in (unit.pairs[0], unit.pairs[-1]))
            raise ReferenceSetError(
                f"{TRIES} workers were lost while they encoded the pairs from {first} to {last}, the last one on "
                f"{lost.host}: is there enough memory?"
            )
        self._urgent.append(unit)


def _portable(pair: Pair) -> Pair:
    """Replace a function that reads an image, which does not travel, by the bytes."""
    if not callable(pair.image):
        return pair
    try:
        return dataclasses.replace(pair, image=pair.image())
    except Exception:  # noqa: BLE001 - reading it again gives the reason as a local build states it
        _, image, reason, _ = load_pair(pair, side_px=1, max_megapixels=math.inf)
        problem = reason if image is None else "cannot be read: it was changed during the build"
        return dataclasses.replace(pair, image=b"", problem=pair.problem or problem)
