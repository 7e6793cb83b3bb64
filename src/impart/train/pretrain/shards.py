"""Read shards in their order by WebDataset, for images on storage that is slow to seek.

Each reader (a worker process of a training process) has its own shards, in an order that changes with the epoch, and
mixes their samples in a buffer. What cannot be read is reported and left out: the damaged rest of a shard, a sample
with an unreadable image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from impart.errors import MissingExtraError, TrainingError

__all__ = ["ShardReader", "shards_of"]


@dataclass(frozen=True)
class ShardReader:
    """One of several readers of the same shards; its samples are a function of its attributes.

    Attributes:
        shards: all shards.
        rows: row of each wanted image, by its location, such as `/data/a.tar::001.jpg`.
        number: of this reader.
        readers: in all.
        shuffle: samples in the buffer.
        seed: of order and buffer.
        on_failure: called with (path, reason).
    """

    shards: Sequence[str]
    rows: Mapping[str, int]
    number: int
    readers: int
    shuffle: int
    seed: int
    on_failure: Callable[[str, str], None]

    def samples(self, epoch: int) -> Iterator[tuple[int, bytes]]:
        """Yield (row, bytes of the image) without end; when all shards are read, they follow in another order.

        Raises:
            TrainingError: the shards of this reader have no wanted sample.
        """
        for turn in range(2**31):
            found = False
            for item in self._once(f"{self.seed} {epoch} {turn}"):
                found = True
                yield item
            if not found:
                raise TrainingError(
                    f"reader {self.number + 1} of {self.readers} finds no sample in its shards, such as "
                    f"{self.shards[0]}: use fewer pretrain.workers, or set pretrain.stream to false"
                )

    def _once(self, name: str) -> Iterator[tuple[int, bytes]]:
        try:
            import webdataset as wds
            from webdataset.tariterators import tar_file_expander, url_opener
        except ImportError as error:
            raise MissingExtraError("webdataset", extra="train", purpose="pretrain.stream") from error
        order = list(self.shards)
        random.Random(name).shuffle(order)  # the same for all readers, so that their shares do not overlap
        apart = len(order) >= self.readers
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(order[self.number :: self.readers] if apart else order),
            partial(url_opener, handler=self._note),
            partial(tar_file_expander, handler=self._note),
            self._wanted(1 if apart else self.readers),
            wds.shuffle(self.shuffle, initial=self.shuffle, rng=random.Random(f"{name} {self.number}")),
        )
        yield from pipeline

    def _wanted(self, share: int) -> Callable[[Any], Iterator[tuple[int, bytes]]]:
        """Return a stage that keeps (row, bytes) of each `share`-th wanted image.

        Images are found by their member names. The samples of WebDataset are not used: it cuts a key at the first dot.
        """

        def stage(source: Any) -> Iterator[tuple[int, bytes]]:
            count = 0
            for member in source:
                row = self.rows.get(f"{member['__url__']}::{member['fname']}") if member else None
                if row is None:
                    continue
                if count % share == self.number % share:
                    yield row, member["data"]
                count += 1

        return stage

    def _note(self, error: Exception) -> bool:
        """Report a damaged shard; WebDataset continues with the next one."""
        shard = next((str(item) for item in reversed(error.args) if str(item).endswith(".tar")), "a shard")
        self.on_failure(shard, f"cannot be read to its end: {str(error.args[0]) if error.args else error!r}")
        return True


def shards_of(locations: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Return shards, and rows by location, from locations such as `/data/a.tar::001.jpg`.

    Raises:
        TrainingError: an image is in no shard.
    """
    shards: dict[str, None] = {}
    rows: dict[str, int] = {}
    for row, location in enumerate(locations):
        shard, colons, _ = location.partition("::")
        if not colons or not shard.endswith(".tar"):
            raise TrainingError(f"{location} is in no shard: pretrain.stream reads .tar shards alone, set it to false")
        shards[shard] = None
        rows[location] = row
    return list(shards), rows
