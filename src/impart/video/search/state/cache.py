"""Cache of an index: its arrays in shards that are written once, and a layout that names what is in force.

The arrays are memory-mapped, which makes a cold search fast: importing the database alone takes longer than the search.
A commit writes one small shard with the videos that are new, and the layout. Small shards are merged when they are
many: all that are at most twice as large as those below them together, so that a row is written again few times
(a log-structured merge). A shard of which a third is gone is written again without it.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.blending.base import Blend
from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder
from impart.retrieval.hubness import CaptionBank
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store, TableGoneError, VideoRecord
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.choice import VideoChoice, VideoColumns, compose
from impart.video.search.state.codes import LEAST, basis_file, fit_basis, read_basis, write_basis
from impart.video.search.state.derived import Derived
from impart.video.search.state.kept import kept_folder
from impart.video.search.state.layout import FILE, Layout, PlacedShard
from impart.video.search.state.shard import VideoShard, codes_name, hubness_name
from impart.video.search.state.shard_files import (
    base_file,
    codes_file,
    has_set_file,
    open_shard,
    set_file,
    write_base,
    write_codes,
    write_set,
)
from impart.video.search.state.tables import blends_of, from_tables, key_of, modified_at, where_of

__all__ = ["Cached", "cached_state", "from_cache", "save_cache"]

MOST_SEGMENTS = 131_072
"""Segments of a shard: reading it from the tables takes 0.5 GB, and merging it writes as much."""
_DEAD = 1 / 3  # of the segments of a shard, above which it is written again
_TRIES = 3  # of a reader, while a writer replaces files
_FEW = 500  # videos that are read one by one; of more, the whole table is read
_READ_AT_ONCE = 1_000_000  # segments whose blends are read; 0.3 GB


@dataclass(frozen=True)
class Cached:
    """The videos of a layout.

    Attributes:
        state: of the commit that it belongs to.
        choice: the places of the videos, sorted by path.
        columns: what describes them.
    """

    state: str
    choice: VideoChoice
    columns: VideoColumns

    def snapshot(self, manifest: IndexManifest) -> Snapshot:
        """Compose the snapshot of the layout."""
        return compose(self.choice, self.columns, state=self.state, manifest=manifest)


def from_cache(store: Store, manifest: IndexManifest, known: Sequence[VideoShard] = ()) -> Cached | None:
    """Map the shards of the newest layout; None where there is none for this manifest, or a file is damaged.

    Args:
        known: shards of an earlier snapshot, with what was derived from them.
    """
    cache = store.folder / "cache"
    by_name = {shard.name: shard for shard in known if shard.name}
    for _ in range(_TRIES):
        layout = Layout.read(cache)
        if layout is None or layout.encoder != manifest.encoder_fingerprint:
            return None
        shards = [by_name.get(one.name) or open_shard(cache, one.name, manifest) for one in layout.shards]
        found = [shard for shard in shards if shard is not None]
        if len(found) == len(shards):
            return _placed(layout, found)
    return None


def cached_state(store: Store) -> str:
    """Return the state of the commit that the cache belongs to; empty where there is no cache."""
    layout = Layout.read(store.folder / "cache")
    return "" if layout is None else layout.state


def _placed(layout: Layout, shards: Sequence[VideoShard]) -> Cached | None:
    """Place the videos of a layout that are in force, sorted by path."""
    shard_of, numbers, columns = [], [], []
    for place, (one, shard) in enumerate(zip(layout.shards, shards, strict=True)):
        count = len(shard.snapshot.video_ids)
        if any(not 0 <= number < count for number in (*one.dead, *one.changed)):
            return None
        alive = np.delete(np.arange(count), one.dead)
        shard_of.append(np.full(len(alive), place))
        numbers.append(alive)
        columns.append(_changed(VideoColumns.of(shard.snapshot), one).take(alive))
    if not shards:
        return Cached(layout.state, VideoChoice((), np.zeros(0, np.int64), np.zeros(0, np.int64)), _no_videos())
    joined = VideoColumns.joined(columns) if len(columns) > 1 else columns[0]
    choice = VideoChoice(tuple(shards), np.concatenate(shard_of), np.concatenate(numbers))
    order = joined.order()
    return Cached(
        layout.state,
        dataclasses.replace(choice, shard_of=choice.shard_of[order], number=choice.number[order]),
        joined.take(order),
    )


def _no_videos() -> VideoColumns:
    return VideoColumns(
        video_ids=(),
        paths=(),
        revisions=(),
        kinds=(),
        durations_s=np.zeros(0),
        recorded_at=np.zeros(0),
        modified_at=np.zeros(0),
    )


def _changed(columns: VideoColumns, shard: PlacedShard) -> VideoColumns:
    """Put the paths and times of files that moved or were touched in place."""
    if not shard.changed:
        return columns
    paths, times = list(columns.paths), columns.modified_at.copy()
    for number, (path, time) in shard.changed.items():
        paths[number], times[number] = Path(path), time
    return dataclasses.replace(columns, paths=tuple(paths), modified_at=times)


def save_cache(store: Store, records: Sequence[VideoRecord], *, encoder: Encoder, bank: CaptionBank | None) -> None:
    """Bring the cache up to date with the newest commit; the caller holds the write lock.

    The cache is optional: a disk that is too full for it is no error. There is none of an index that lacks rows.

    Args:
        records: all committed videos.
        encoder: of the index, augmented where a reference set is in force.
        bank: captions that come with the model.
    """
    manifest = IndexManifest.load(store.folder)
    augmented = encoder if isinstance(encoder, AugmentedEncoder) and manifest.augmentation is not None else None
    update = _Update(store, manifest, augmented, bank)
    try:
        update.cache.mkdir(exist_ok=True)
        update.save(sorted(records, key=lambda record: os.fsencode(record.path)))
    except (OSError, TableGoneError):
        return
    finally:
        update.clean()


class _Update:
    """Writes what the cache lacks.

    Args:
        encoder: the augmentation in force.
        bank: captions that come with the model.
    """

    def __init__(
        self, store: Store, manifest: IndexManifest, encoder: AugmentedEncoder | None, bank: CaptionBank | None
    ) -> None:
        self.cache = store.folder / "cache"
        self._store = store
        self._manifest = manifest
        self._encoder = encoder
        self._bank = bank
        self._opened: dict[str, VideoShard] = {}

    def save(self, records: Sequence[VideoRecord]) -> None:
        """Write shards and layout.

        Raises:
            OSError: a file cannot be written.
            TableGoneError: the tables cannot be read.
        """
        wanted = {record.video_id: record for record in records}
        kept: list[tuple[VideoShard, PlacedShard]] = []
        for shard, numbers in self._known(wanted):
            places = [_place(shard, number, wanted.pop(shard.snapshot.video_ids[number])) for number in numbers]
            dead = np.delete(np.arange(len(shard.keys)), numbers)
            changed = {number: of for number, of in places if of is not None}
            if numbers:
                kept.append((shard, PlacedShard(shard.name, tuple(dead.tolist()), changed)))
        for group in _in_groups([record for record in records if record.video_id in wanted]):
            fresh = self._read(group, whole=len(group) == len(records))
            if fresh is None:
                return
            kept.append((self._written(fresh), PlacedShard(fresh.name)))
        placed = self._merged(kept)
        self._write_codes(placed, count=sum(record.segments for record in records))
        layout = Layout(self._store.state(), self._manifest.encoder_fingerprint, tuple(placed))
        if layout != Layout.read(self.cache):
            layout.write(self.cache)

    def _known(self, wanted: dict[str, VideoRecord]) -> Iterator[tuple[VideoShard, list[int]]]:
        """Yield the shards on disk, with files for the set in force, and the numbers of their videos in force."""
        layout = Layout.read(self.cache)
        if layout is None or layout.encoder != self._manifest.encoder_fingerprint:
            return
        kept = [] if self._bank is None else [hubness_name("unit", self._bank)]
        lacking = [one for one in layout.shards if not has_set_file(self.cache, one.name, self._manifest, kept)]
        self._write_sets(lacking, wanted)
        for one in layout.shards:
            shard = self._open(one.name)
            if shard is None:
                continue
            lengths, numbers = np.diff(shard.snapshot.offsets).tolist(), []
            for number, row in enumerate(zip(shard.snapshot.video_ids, shard.keys, lengths, strict=True)):
                record = wanted.get(row[0])  # it is taken out once it has its place
                if record is not None and row[1:] == (key_of(record), record.segments):
                    numbers.append(number)
            yield shard, numbers

    def _write_sets(self, placed: Sequence[PlacedShard], wanted: Mapping[str, VideoRecord]) -> None:
        """Write the files of shards that have none for the set in force."""
        without = dataclasses.replace(self._manifest, augmentation=None)
        waiting: list[tuple[VideoShard, PlacedShard]] = []
        for one in placed:
            shard = open_shard(self.cache, one.name, without, with_set=False)
            if shard is not None:
                waiting.append((shard, one))
            if waiting and (one is placed[-1] or sum(len(of.snapshot) for of, _ in waiting) >= _READ_AT_ONCE):
                for (shard, _), blend in zip(waiting, self._blends(waiting, wanted), strict=True):
                    snapshot = dataclasses.replace(shard.snapshot, manifest=self._manifest, blend=blend)
                    made = VideoShard(snapshot, shard.keys, name=shard.name, parts=shard.parts)
                    self._write_set(made)
                waiting = []

    def _blends(
        self, shards: Sequence[tuple[VideoShard, PlacedShard]], wanted: Mapping[str, VideoRecord]
    ) -> list[Blend | None]:
        """Read the blends of the segments of some shards; those of videos that are gone add nothing.

        Raises:
            TableGoneError: a video that is in force lacks rows.
        """
        rows = [row for shard, placed in shards for row in _rows_of(shard, placed)]
        few = len(rows) <= _FEW
        blend, lacking = blends_of(self._store, self._manifest, rows, where_of(rows) if few else None)
        keys = {row.video_id: row.revision for row in rows}
        for path in lacking:
            record = wanted.get(path.name)
            if record is not None and record.revision == keys[path.name]:
                raise TableGoneError(f"{record.path} lacks rows of the neighbours table")
        ends = np.cumsum([0, *(len(shard.snapshot) for shard, _ in shards)]).tolist()
        return [None if blend is None else blend[slice(*ends[one : one + 2])] for one in range(len(shards))]

    def _read(self, records: list[VideoRecord], *, whole: bool) -> VideoShard | None:
        """Read videos from the tables; None where some lack rows."""
        state = self._store.state()
        snapshot = from_tables(self._store, state, self._manifest, only=None if whole else records)
        if snapshot.left_out or snapshot.unblended:
            return None
        keys = {record.video_id: key_of(record) for record in records}
        return VideoShard(snapshot, tuple(keys[one] for one in snapshot.video_ids), name=secrets.token_hex(8))

    def _written(self, shard: VideoShard) -> VideoShard:
        """Write a shard, and map its files."""
        write_base(base_file(self.cache, shard.name), shard)
        self._write_set(shard)
        written = self._open(shard.name)
        if written is None:
            raise OSError(f"the files of {self.cache / shard.name} cannot be read back")
        return written

    def _open(self, name: str) -> VideoShard | None:
        """Map the files of a shard once, when they are written; None where one is missing or damaged."""
        if name not in self._opened:
            shard = open_shard(self.cache, name, self._manifest)
            if shard is None:
                return None
            self._opened[name] = shard
        return self._opened[name]

    def _write_set(self, shard: VideoShard) -> None:
        """Write what depends on the reference set in force; here is the place for what else searches derive from it."""
        if self._bank is not None:
            shard.unit_hubness(self._bank, self._encoder)
        write_set(set_file(self.cache, shard.name, self._manifest), shard, self._encoder)

    def _write_codes(self, placed: Sequence[PlacedShard], *, count: int) -> None:
        """Write the coarse codes of the shards that have none, and the basis where it is new.

        Args:
            count: segments of the index; few of them have no codes.
        """
        shards = [self._open(one.name) for one in placed] if count >= LEAST else []
        found = [shard for shard in shards if shard is not None]
        if not found or len(found) < len(placed):
            return
        basis = read_basis(self.cache, self._manifest, count=count)
        if basis is None:
            cached = _placed(Layout("", "", tuple(placed)), found)
            if cached is None:
                return
            basis = fit_basis(cached.snapshot(self._manifest), self._encoder, self._bank)
            write_basis(self.cache, self._manifest, basis, count=count)
        names = {codes_name(kind, basis) for kind in ("unit", "frame")}
        for shard in found:
            if not names <= set(shard.kept()):
                shard.forget_codes()
                shard.codes(basis, self._encoder, "unit")
                shard.codes(basis, self._encoder, "frame")
                write_codes(codes_file(self.cache, shard.name, self._manifest), shard)

    def _merged(self, shards: Sequence[tuple[VideoShard, PlacedShard]]) -> list[PlacedShard]:
        """Merge small shards, and write those without much of what is gone."""
        sizes = [_alive(shard, placed) for shard, placed in shards]
        left = {number: placed for number, (_, placed) in enumerate(shards)}
        groups = [_to_merge(sizes)]
        for number, (shard, _) in enumerate(shards):
            if number not in groups[0] and sizes[number] < (1 - _DEAD) * len(shard.snapshot):
                groups.append([number])
        made = []
        for group in groups:
            if group:
                made.append(PlacedShard(self._merge([shards[number] for number in group]).name))
                left = {number: placed for number, placed in left.items() if number not in group}
        return [*left.values(), *made]

    def _merge(self, shards: Sequence[tuple[VideoShard, PlacedShard]]) -> VideoShard:
        layout = Layout("", "", tuple(placed for _, placed in shards))
        cached = _placed(layout, [shard for shard, _ in shards])
        assert cached is not None
        snapshot, choice = cached.snapshot(self._manifest), cached.choice
        derived = Derived(snapshot)
        places = zip(choice.shard_of.tolist(), choice.number.tolist(), strict=True)
        merged = VideoShard(
            snapshot,
            tuple(choice.shards[place].keys[number] for place, number in places),
            name=secrets.token_hex(8),
            parts=derived.parts,
            means=derived.means(self._encoder),
            kept=derived.kept(self._encoder),
        )
        return self._written(merged)

    def clean(self) -> None:
        """Delete the files that the layout does not name, and caches of older versions."""
        self._opened.clear()  # some systems delete no mapped file
        layout = Layout.read(self.cache)
        names = [] if layout is None else [one.name for one in layout.shards]
        files = {base_file(self.cache, name) for name in names}
        files |= {file(self.cache, name, self._manifest) for name in names for file in (set_file, codes_file)}
        basis = basis_file(self.cache, self._manifest)
        files |= set() if basis is None else {basis}
        files |= {self.cache / FILE, kept_folder(self.cache, self._store.state())}
        with suppress(OSError):
            for path in set(self.cache.iterdir()) - files:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Row:
    """The rows of a video of a shard; the path has its id alone."""

    video_id: str
    revision: str
    segments: int
    path: Path


def _rows_of(shard: VideoShard, placed: PlacedShard) -> list[_Row]:
    """List the videos of a shard; those that are gone have no id, since another shard may have their new content."""
    counts, dead = np.diff(shard.snapshot.offsets).tolist(), set(placed.dead)
    ids = ["" if number in dead else video_id for number, video_id in enumerate(shard.snapshot.video_ids)]
    rows = zip(ids, shard.keys, counts, strict=True)
    return [_Row(video_id, key.partition(" ")[0], count, Path(video_id)) for video_id, key, count in rows]


def _place(shard: VideoShard, number: int, record: VideoRecord) -> tuple[int, tuple[str, float] | None]:
    """Return the number of a video, with its path and time where they differ from those in the shard."""
    time, known = modified_at(record), float(shard.snapshot.modified_at[number])
    same = time == known or (np.isnan(time) and np.isnan(known))
    return number, None if same and shard.snapshot.paths[number] == record.path else (str(record.path), time)


def _in_groups(records: Sequence[VideoRecord]) -> Iterator[list[VideoRecord]]:
    """Yield the videos of each new shard."""
    group: list[VideoRecord] = []
    count = 0
    for record in records:
        if group and count + record.segments > MOST_SEGMENTS:
            yield group
            group, count = [], 0
        group.append(record)
        count += record.segments
    if group:
        yield group


def _alive(shard: VideoShard, placed: PlacedShard) -> int:
    """Count the segments of a shard that are in force."""
    lengths = np.diff(shard.snapshot.offsets)
    return int(lengths.sum() - lengths[list(placed.dead)].sum())


def _to_merge(sizes: Sequence[int]) -> list[int]:
    """Choose the shards that become one: those below the largest one that is at most twice as large as they together.

    >>> _to_merge([1000, 8, 1, 1000])  # 1000 is at most twice 1009
    [2, 1, 0, 3]
    >>> _to_merge([1000, 8, 1])
    []
    """
    order = sorted(range(len(sizes)), key=lambda number: sizes[number])
    below, chosen = 0, 0
    for rank, number in enumerate(order):
        if below + sizes[number] > MOST_SEGMENTS:
            break
        if rank and sizes[number] <= 2 * below:
            chosen = rank + 1
        below += sizes[number]
    return order[:chosen]
