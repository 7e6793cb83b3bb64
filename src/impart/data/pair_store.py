"""The folder that `impart data` fills: shards, what was left out, and how far the work has come.

    train/train-00000.tar, reference/reference-00000.tar    the pairs
    failures.csv                                            photoid, url, result, reason
    manifest.json                                           settings, counts, licences, shards
    .state/                                                 parts done, and the part at work

Work goes in parts of some ten thousand rows. A part is named by the hash of its rows, so that it is known again in a
file that was moved or has grown. It is committed by one rename; a run killed after that rename moves the shards to
their places when it starts again, one killed before it begins the part's shards anew.
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
from impart.files import move_synced, now, sha256_int, sync, write_csv_atomic, write_json_atomic

__all__ = ["LeftOut", "PartSummary", "PairStore"]

SCHEMA = 1
_LEFT_OUT = ("photoid", "url", "result", "reason")
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row that gave no pair.

    Attributes:
        result: `failed` (it could not be had) or `dropped` (it is not wanted).
        reason: in words that count well together.
    """

    photoid: str
    url: str
    result: str
    reason: str


@dataclass(kw_only=True)
class PartSummary:
    """What came of a part.

    Attributes:
        shards: names in the staging folder to numbers of pairs.
        left_out: rows that gave no pair.
        photos: hashes of the photoids that need not be looked at again.
        images: hashes of the files taken.
        licences: names to numbers of pairs.
    """

    shards: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    photos: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    licences: Counter[str] = field(default_factory=Counter)


class PairStore:
    """The folder and its state; a context manager that keeps other runs out.

    Args:
        folder: made where it is missing.
        settings: that decide what the pairs look like; must stay the same for one folder.

    Raises:
        DataError: another run is at work, or the folder was made with other settings.
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
            raise DataError(f"{self.folder} holds other things: give --out a new folder, or one this command made")
        for path in (self._parts, self._state / "work", *(self.folder / split for split in SPLITS)):
            path.mkdir(parents=True, exist_ok=True)
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

    def has(self, key: str) -> bool:
        """Whether a part is done."""
        return key in self._records

    def attempts(self, key: str) -> int:
        """How often a part's failures were tried again."""
        return sum(known.startswith(f"{key}-r") for known in self._records)

    def knows_photo(self, photoid: str) -> bool:
        """Whether this photo is among the pairs, or was found to be a duplicate."""
        return _holds(self._photos, sha256_int(photoid))

    def knows_image(self, image: int) -> bool:
        """Whether a file of this hash is among the pairs."""
        return _holds(self._images, image)

    def counts(self) -> dict[str, int]:
        """Pairs of each split."""
        totals = dict.fromkeys(SPLITS, 0)
        for record in self._records.values():
            for name, shard in record["shards"].items():
                totals[name.split("-")[0]] += shard["pairs"]
        return totals

    def work(self, key: str) -> Path:
        """Folder of a part at work; kept until it is committed."""
        path = self._state / "work" / key
        path.mkdir(parents=True, exist_ok=True)
        return path

    def staging(self, key: str) -> Path:
        """An empty folder for a part's shards."""
        path = self.work(key) / "out"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def commit(self, key: str, result: PartSummary) -> None:
        """Take over a part: its shards from `staging(key)`, and what was left out."""
        work = self.work(key)
        moves, shards = {}, {}
        following = {split: self._following(split) for split in SPLITS}
        for name, pairs in result.shards.items():
            split = name.split("-")[0]
            final = f"{split}-{following[split]:05d}.tar"
            following[split] += 1
            moves[name] = final
            shards[final] = {"pairs": pairs, "bytes": (work / "out" / name).stat().st_size}
        write_csv_atomic(work / "failures.csv", _LEFT_OUT, (dataclasses.astuple(item) for item in result.left_out))
        np.savez(work / "ids.npz", photos=np.array(result.photos, np.uint64), images=np.array(result.images, np.uint64))
        record = {"key": key, "shards": shards, "licences": dict(result.licences)}
        sync(work)  # before the commit, which vouches for it
        write_json_atomic(work / "commit.json", {"record": record, "moves": moves})
        self._take_over(work)
        self._learn(key, record)

    def failed(self, key: str) -> set[str]:
        """Photoids of a part that failed and are not among the pairs by now."""
        keys = [known for known in self._records if known == key or known.startswith(f"{key}-r")]
        rows = (row for known in keys for row in _read_csv(self._parts / f"{known}.csv"))
        return {row[0] for row in rows if row[2] == "failed" and not self.knows_photo(row[0])}

    def finish(self, *, sources: Collection[Path], complete: bool) -> dict[str, Any]:
        """Write failures.csv and manifest.json anew; returns the manifest."""
        left_out: Counter[tuple[str, str]] = Counter()

        def rows() -> Iterator[tuple[str, ...]]:
            seen: set[int] = set()
            for key in self._records:
                retried = self.attempts(key.partition("-r")[0]) > int(key.partition("-r")[2] or 0)
                for row in _read_csv(self._parts / f"{key}.csv"):
                    if row[2] == "failed":
                        photo = sha256_int(row[0])
                        if retried or photo in seen or _holds(self._photos, photo):
                            continue
                        seen.add(photo)
                    left_out[row[2], row[3]] += 1
                    yield row

        write_csv_atomic(self.folder / "failures.csv", _LEFT_OUT, rows())
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
            "failed": {reason: n for (result, reason), n in left_out.most_common() if result == "failed"},
            "dropped": {reason: n for (result, reason), n in left_out.most_common() if result == "dropped"},
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
                    f"{self.folder} was begun with other settings ({', '.join(changed)}): "
                    "give the same, or another --out"
                )
        else:
            write_json_atomic(path, self.settings)
        for work in sorted((self._state / "work").iterdir()):
            if (work / "commit.json").is_file():
                self._take_over(work)
            elif (self._parts / f"{work.name}.json").is_file():
                shutil.rmtree(work)
        records = [json.loads(path.read_text(encoding="utf-8")) for path in self._parts.glob("*.json")]
        for record in sorted(records, key=lambda record: record["order"]):
            self._learn(record["key"], record)

    def _take_over(self, work: Path) -> None:
        """Move what a committed part made to its places; may be done twice."""
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

    def _learn(self, key: str, record: dict[str, Any]) -> None:
        self._records[key] = record
        with np.load(self._parts / f"{key}.npz") as ids:
            self._photos = np.union1d(self._photos, ids["photos"])
            self._images = np.union1d(self._images, ids["images"])

    def _following(self, split: str) -> int:
        numbers = [
            int(name[:-4].split("-")[1]) for r in self._records.values() for name in r["shards"] if split in name
        ]
        return max(numbers, default=-1) + 1


def _holds(hashes: Hashes, one: int) -> bool:
    i = int(np.searchsorted(hashes, np.uint64(one)))
    return i < len(hashes) and int(hashes[i]) == one


def _read_csv(path: Path) -> Iterator[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from (tuple(row) for row in rows)
