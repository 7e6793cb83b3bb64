"""Store the shards that `impart data` writes, the rows that were left out, and the state of the run.

    train/train-00000.tar, reference/reference-00000.tar    the pairs
    failures.csv                                            photoid, url, outcome, reason
    manifest.json                                           settings, counts, licences, shards
    .state/                                                 finished parts, and the part in progress

Rows are processed in parts of tens of thousands. The key of a part is a hash of its rows, so a part is found again in
a file that was moved or has grown. One rename commits a part. A run killed after this rename moves the shards to their
places at the next start; a run killed before it writes the shards of the part again.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from impart import __version__
from impart.data.shards import SPLITS
from impart.errors import DataError
from impart.files import make_folder, move_synced, now, sha256_int, sync, write_csv_atomic, write_json_atomic

__all__ = ["LeftOut", "PartSummary", "PairStore"]

SCHEMA = 1
_HEADER = ("photoid", "url", "outcome", "reason")  # `outcome` is `LeftOut.kind`: written so since schema 1
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row without a pair: one row of `failures.csv`.

    Attributes:
        kind: `failed` (the image could not be fetched or read) or `dropped` (the row is not wanted).
        reason: the same text for equal causes, since reasons are counted.
    """

    photoid: str
    url: str
    kind: str
    reason: str


@dataclass(kw_only=True)
class PartSummary:
    """Shards, hashes and counts of one part, as `PairStore.commit` records them.

    Attributes:
        shards: file name in the staging folder to its number of pairs.
        left_out: rows without a pair.
        photos: hashes of the photoids that are pairs or duplicates, and are skipped from now on.
        images: hashes of the image files of the pairs.
        licences: licence to its number of pairs.
    """

    shards: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    photos: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    licences: Counter[str] = field(default_factory=Counter)


class PairStore:
    """Folder of shards with its state; a context manager that locks the folder.

    Args:
        folder: created if it is missing.
        settings: the settings that change the pairs; they must stay the same for one folder.

    Raises:
        DataError: another run uses the folder, or it was written with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder.expanduser()
        self.settings = dict(settings)
        self._state = self.folder / ".state"
        self._parts = self._state / "parts"
        self._photos: Hashes = np.empty(0, np.uint64)
        self._images: Hashes = np.empty(0, np.uint64)
        self._records: dict[str, dict[str, Any]] = {}
        self._lock = filelock.FileLock(str(self._state / "lock"), timeout=0)

    def __enter__(self) -> PairStore:
        if self.folder.is_file() or (self.folder.is_dir() and not self._state.is_dir() and any(self.folder.iterdir())):
            raise DataError(
                f"{self.folder} contains files of another program: give --out a new folder, or one of `impart data`"
            )
        for path in (self._parts, self._state / "work", *(self.folder / split for split in SPLITS)):
            make_folder(path)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            raise DataError(f"another run is writing to {self.folder}: wait for it, or give another --out") from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._lock.release()

    def has_part(self, key: str) -> bool:
        """Whether a part is committed."""
        return key in self._records

    def retries(self, key: str) -> int:
        """Count the committed retries of the failures of a part."""
        return sum(other.startswith(f"{key}-r") for other in self._records)

    def has_photo(self, photoid: str) -> bool:
        """Whether this photo is a pair or a duplicate of one."""
        return _contains(self._photos, sha256_int(photoid))

    def has_image(self, image: int) -> bool:
        """Whether a file of this hash is the image of a pair."""
        return _contains(self._images, image)

    def counts(self) -> dict[str, int]:
        """Count the committed pairs of each split."""
        totals = dict.fromkeys(SPLITS, 0)
        for record in self._records.values():
            for name, shard in record["shards"].items():
                totals[name.split("-")[0]] += shard["pairs"]
        return totals

    def work(self, key: str) -> Path:
        """Return the working folder of a part; it is kept until the part is committed."""
        path = self._state / "work" / key
        make_folder(path)
        return path

    def staging(self, key: str) -> Path:
        """Return an empty folder for the shards of a part."""
        path = self.work(key) / "out"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def commit(self, key: str, summary: PartSummary) -> None:
        """Commit a part: move its shards from `staging(key)` to their places and record its rows."""
        work = self.work(key)
        moves, shards = {}, {}
        following = {split: self._following(split) for split in SPLITS}
        for name, pairs in summary.shards.items():
            split = name.split("-")[0]
            final = f"{split}-{following[split]:05d}.tar"
            following[split] += 1
            moves[name] = final
            shards[final] = {"pairs": pairs, "bytes": (work / "out" / name).stat().st_size}
        write_csv_atomic(work / "failures.csv", _HEADER, (dataclasses.astuple(item) for item in summary.left_out))
        photos, images = np.array(summary.photos, np.uint64), np.array(summary.images, np.uint64)
        np.savez(work / "ids.npz", photos=photos, images=images)
        record = {"key": key, "shards": shards, "licences": dict(summary.licences)}
        sync(work)  # the files must be on disk before the commit that names them
        write_json_atomic(work / "commit.json", {"record": record, "moves": moves})
        self._move_to_places(work)
        self._add_record(key, record)

    def failed(self, key: str) -> set[str]:
        """Return the photoids of a part that failed and are not pairs yet."""
        keys = [other for other in self._records if other == key or other.startswith(f"{key}-r")]
        rows = (row for other in keys for row in _read_csv(self._parts / f"{other}.csv"))
        return {row[0] for row in rows if row[2] == "failed" and not self.has_photo(row[0])}

    def finish(self, *, sources: Collection[Path], complete: bool) -> dict[str, Any]:
        """Write `failures.csv` and `manifest.json`, and return the manifest."""
        left_out: Counter[tuple[str, str]] = Counter()

        def rows() -> Iterator[tuple[str, ...]]:
            seen: set[int] = set()
            for key in self._records:
                retried = self.retries(key.partition("-r")[0]) > int(key.partition("-r")[2] or 0)
                for row in _read_csv(self._parts / f"{key}.csv"):
                    if row[2] == "failed":
                        photo = sha256_int(row[0])
                        if retried or photo in seen or _contains(self._photos, photo):
                            continue
                        seen.add(photo)
                    left_out[row[2], row[3]] += 1
                    yield row

        write_csv_atomic(self.folder / "failures.csv", _HEADER, rows())
        licences: Counter[str] = Counter()
        shards: dict[str, dict[str, int]] = {}
        for record in self._records.values():
            licences.update(record["licences"])
            shards.update(record["shards"])
        manifest = {
            "kind": "pairs",
            "schema": SCHEMA,
            "created": now(),
            "versions": {"impart": __version__},
            "complete": complete,
            "sources": [path.name for path in sources],
            "settings": self.settings,
            "counts": self.counts(),
            "failed": {reason: n for (kind, reason), n in left_out.most_common() if kind == "failed"},
            "dropped": {reason: n for (kind, reason), n in left_out.most_common() if kind == "dropped"},
            "licences": dict(licences.most_common()),
            "shards": {split: [{"name": n, **s} for n, s in shards.items() if n.startswith(split)] for split in SPLITS},
        }
        write_json_atomic(self.folder / "manifest.json", manifest)
        return manifest

    def _open(self) -> None:
        path = self._state / "settings.json"
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            wanted = json.loads(json.dumps(self.settings))
            changed = [
                f"{name} {before.get(name)} -> {value}" for name, value in wanted.items() if before.get(name) != value
            ]
            if changed:
                raise DataError(
                    f"{self.folder} was written with other settings ({', '.join(changed)}): "
                    "give the same settings, or another --out"
                )
        else:
            write_json_atomic(path, self.settings)
        for work in sorted((self._state / "work").iterdir()):
            if (work / "commit.json").is_file():
                self._move_to_places(work)
            elif (self._parts / f"{work.name}.json").is_file():
                shutil.rmtree(work)
        records = [json.loads(path.read_text(encoding="utf-8")) for path in self._parts.glob("*.json")]
        for record in sorted(records, key=lambda record: record["order"]):
            self._add_record(record["key"], record)

    def _move_to_places(self, work: Path) -> None:
        """Move the files of a committed part to their places; a second call after an interruption is safe."""
        commit = json.loads((work / "commit.json").read_text(encoding="utf-8"))
        record = commit["record"]
        moves = [
            (work / "out" / name, self.folder / final.split("-")[0] / final) for name, final in commit["moves"].items()
        ]
        moves += [(work / "failures.csv", self._parts / f"{record['key']}.csv")]
        moves += [(work / "ids.npz", self._parts / f"{record['key']}.npz")]
        for source, target in moves:
            if source.exists():
                move_synced(source, target)
        done = self._parts / f"{record['key']}.json"
        if not done.exists():
            write_json_atomic(done, {"order": sum(1 for _ in self._parts.glob("*.json")), **record})
        shutil.rmtree(work)

    def _add_record(self, key: str, record: dict[str, Any]) -> None:
        self._records[key] = record
        with np.load(self._parts / f"{key}.npz") as ids:
            self._photos = np.union1d(self._photos, ids["photos"])
            self._images = np.union1d(self._images, ids["images"])

    def _following(self, split: str) -> int:
        numbers = [
            int(name[:-4].split("-")[1]) for r in self._records.values() for name in r["shards"] if split in name
        ]
        return max(numbers, default=-1) + 1


def _contains(hashes: Hashes, wanted: int) -> bool:
    """Whether an ascending array contains a hash."""
    i = int(np.searchsorted(hashes, np.uint64(wanted)))
    return i < len(hashes) and int(hashes[i]) == wanted


def _read_csv(path: Path) -> Iterator[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from (tuple(row) for row in rows)
