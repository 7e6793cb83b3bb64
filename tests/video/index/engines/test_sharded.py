"""Files of lost workers, files that a worker does not see, and later runs, with workers in this process."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip, write_frames
from helpers.index_rows import rows_of
from helpers.photos import write_photo
from helpers.tiny_encoder import TinyEncoder
from impart.config import EncoderSettings, Settings
from impart.encoders.cluster import connection, encoder_source, pool
from impart.encoders.cluster.pool import Lost, PoolAnswer, Ready, UnitDone
from impart.video.index import indexer
from impart.video.index.engines import job
from impart.video.index.engines.messages import Files, FramesEncoded, Photos, PhotosEncoded
from impart.video.index.engines.shards import TRIES, Shards
from impart.video.index.events import (
    Event,
    IndexDone,
    VideoDone,
    VideoFailed,
    VideoRemoved,
    VideoStarted,
    WorkerLost,
)
from impart.video.index.files.plan import IndexTask
from impart.video.index.files.scan import FoundFile
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, Store


class Workers:
    """Two workers in this process that take turns; a message about a file named in `deadly` ends one."""

    deadly: tuple[str, ...] = ()
    units: ClassVar[list[Any]] = []

    def __init__(self, _engine: Any, make: Callable[[int], Callable[[], Any]]) -> None:
        self.workers = 2
        self._make = make

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def dies(self, message: Any) -> bool:
        """Whether the worker dies in front of a message."""
        if isinstance(message, PhotosEncoded):
            return "photos" in self.deadly
        return message is not None and message.path.name in self.deadly

    def run(self, next_unit: Callable[[], Any]) -> Iterator[Any]:
        jobs = [self._make(1)() for _ in range(self.workers)]
        at_work: dict[int, tuple[Any, Iterator[Any]]] = {}
        for worker in (1, 2):
            yield Ready(worker=worker, host="here", pid=0)
        while True:
            for number, working in enumerate(jobs, 1):
                if number not in at_work and (unit := next_unit()) is not None:
                    self.units.append(unit)
                    at_work[number] = unit, working.run(unit)
            if not at_work:
                return
            for worker, (unit, messages) in list(at_work.items()):
                message = next(messages, None)
                if self.dies(message):
                    del at_work[worker]
                    yield Lost(worker=worker, host="here", unit=unit)
                elif message is None:
                    del at_work[worker]
                    yield UnitDone(worker=worker, unit=unit)
                else:
                    yield PoolAnswer(worker=worker, host="there", unit=unit, message=message)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> type[Workers]:
    class Fresh(Workers):
        units: ClassVar[list[Any]] = []

    stand_in = SimpleNamespace(cloudpickle=pickle)
    monkeypatch.setattr(pool, "Pool", Fresh)
    monkeypatch.setattr(connection, "import_ray", lambda: stand_in)
    monkeypatch.setattr(encoder_source, "import_ray", lambda: stand_in)
    return Fresh


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name, colours in (("a", ["red"]), ("b", ["blue", "green"]), ("c", ["white"]), ("d", ["cyan", "black"])):
        write_clip(folder / f"{name}.mp4", colours=colours, size=(64, 48))
    return folder


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def names(events: list[Any]) -> list[str]:
    return sorted(event.path.name for event in events)


def test_a_file_that_costs_workers_is_a_failure_and_the_others_are_indexed(
    films: Path, workers: type[Workers], tmp_path: Path
) -> None:
    workers.deadly = ("b.mp4",)
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    events = list(index.add([films], engine="ray"))
    (failed,) = of(VideoFailed, events)
    assert failed.path.name == "b.mp4"
    assert failed.reason.startswith(f"{TRIES} workers were lost while they read it, the last one on here")
    assert "the next run reads it again" in failed.reason
    assert len(of(WorkerLost, events)) == TRIES
    assert names(index.videos()) == ["a.mp4", "c.mp4", "d.mp4"]
    workers.deadly = ()
    events = list(index.add([films], engine="ray"))  # only what is missing is decoded
    assert names(of(VideoDone, events)) == ["b.mp4"]
    local = VideoIndex.open(tmp_path / "local", TinyEncoder())
    list(local.add([films]))
    assert rows_of(index.path) == rows_of(local.path)


def test_what_a_lost_worker_has_sent_is_not_stored_twice(
    films: Path, workers: type[Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    write_frames(films / "0.mp4", noise, times_s=[i / 4 for i in range(60)])
    monkeypatch.setattr(indexer, "CHUNK_ROWS", 16)  # rows are written before the video is committed
    local, index = (VideoIndex.open(tmp_path / name, TinyEncoder()) for name in ("local", "index"))
    list(local.add([films]))
    lost = []

    def dies(message: Any) -> bool:
        """Whether the worker dies: in front of the third batch of the long film, once."""
        if isinstance(message, FramesEncoded) and message.path.name == "0.mp4" and message.times[0][0] > 7 and not lost:
            lost.append(message)
        return bool(lost) and lost[-1] is message

    monkeypatch.setattr(workers, "dies", staticmethod(dies))
    events = list(index.add([films], engine="ray"))
    assert len(of(WorkerLost, events)) == 1
    assert rows_of(index.path) == rows_of(local.path)
    assert Store(index.path).read(SEGMENTS).num_rows == sum(video.segments for video in index.videos())
    assert names(of(VideoStarted, events)) == ["0.mp4", "a.mp4", "b.mp4", "c.mp4", "d.mp4"]  # each once


def test_photos_are_batched_as_in_a_local_run(workers: type[Workers], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(11):
        write_photo(folder / f"{number:02d}.png", Image.new("RGB", (64, 48), (number * 20, 90, 30)))
    (folder / "03.png").write_bytes((folder / "02.png").read_bytes()[:60])
    write_clip(folder / "05b.mp4", size=(64, 48))
    settings = Settings(encoder=EncoderSettings(batch=4))
    local, index = (VideoIndex.open(tmp_path / name, TinyEncoder(), settings=settings) for name in ("local", "index"))
    batches: list[list[int]] = []
    original = TinyEncoder.encode_images
    with pytest.MonkeyPatch.context() as patch:

        def recorded(self: TinyEncoder, images: Any) -> Any:
            batches.append([int(image[0, 0, 0]) for image in images])
            return original(self, images)

        patch.setattr(TinyEncoder, "encode_images", recorded)
        list(local.add([folder]))
    list(index.add([folder], engine="ray"))
    photos = [batch for batch in batches if len(batch) > 1]
    assert photos == [[0, 20, 40, 80], [100, 120, 140, 160], [180, 200]]
    units = [unit for unit in workers.units if isinstance(unit, Photos)]
    assert [[int(image[0, 0, 0]) for image in unit.images] for unit in units] == photos
    assert rows_of(index.path) == rows_of(local.path)


def test_photos_that_cost_workers_are_failures(workers: type[Workers], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photo(folder / "a.jpg")
    write_clip(folder / "b.mp4", size=(64, 48))
    workers.deadly = ("photos",)
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    events = list(index.add([folder], engine="ray"))
    assert names(of(VideoFailed, events)) == ["a.jpg"]
    assert names(index.videos()) == ["b.mp4"]


def test_a_file_that_a_worker_does_not_see_is_a_failure_with_the_remedy(
    films: Path, workers: type[Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stat(path: Path) -> Any:
        if path.name == "a.mp4":
            raise FileNotFoundError
        return SimpleNamespace(st_size=7) if path.name == "b.mp4" else os.stat(path)  # noqa: PTH116

    monkeypatch.setattr(job, "os", SimpleNamespace(stat=stat))
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    first, second = of(VideoFailed, list(index.add([films], engine="ray")))
    remedy = "mount its folder at the same path on every machine"
    assert first.reason.startswith(f"on the worker's machine there, there is no such file: {remedy}")
    assert second.reason.startswith("on the worker's machine there, the file has 7 bytes, not ")
    assert remedy in second.reason
    assert index.failures() == []  # not the files' fault: the next run reads them
    assert names(index.videos()) == ["c.mp4", "d.mp4"]


def test_later_runs_update_prune_and_retry(films: Path, workers: type[Workers], tmp_path: Path) -> None:
    (films / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    (done,) = of(IndexDone, list(index.add([films], engine="ray")))
    assert (done.added, done.failed) == (4, 1)
    write_clip(films / "a.mp4", colours=["orange", "red"], size=(64, 48))
    (films / "b.mp4").unlink()
    shutil.copy(films / "c.mp4", films / "e.mp4")
    (films / "d.mp4").rename(films / "f.mp4")
    events = list(index.add([films], engine="ray", prune=True))
    (done,) = of(IndexDone, events)
    assert (done.updated, done.copied, done.moved, done.removed, done.skipped, done.unchanged) == (1, 1, 1, 1, 1, 1)
    assert names(of(VideoRemoved, events)) == ["b.mp4"]
    assert [files.path.name for unit in workers.units[-1:] for files in unit.files] == ["a.mp4"]
    (failed,) = of(VideoFailed, list(index.add([films], engine="ray", retry_failed=True)))
    assert (failed.path.name, failed.attempts) == ("broken.mp4", 2)


def task(name: str, size_bytes: int) -> IndexTask:
    return IndexTask(file=FoundFile(path=Path(name), size_bytes=size_bytes, mtime_ns=0), action="add")


def test_small_files_go_together_and_a_large_one_alone() -> None:
    tasks = [task(f"{number:03d}", 100_000_000 if number == 20 else 1000) for number in range(100)]
    shards, units = Shards(tasks, workers=2), []
    while (unit := shards.next()) is not None:
        units.append([file.path.name for file in unit.files])
    assert [name for unit in units for name in unit] == [f"{number:03d}" for number in range(100)]
    assert ["020"] in units
    assert max(len(unit) for unit in units) == 16


def test_the_files_behind_the_one_that_was_lost_are_not_blamed() -> None:
    shards = Shards([task(name, 10) for name in "abcdefgh"], workers=1)
    unit = shards.next()
    assert isinstance(unit, Files)
    assert [file.path.name for file in unit.files] == ["a", "b", "c", "d"]
    shards.ended(Path("a"))
    left, failed = shards.lost(unit)
    assert ([one.file.path.name for one in left], failed) == (["b", "c", "d"], [])
    again = [shards.next(new=False) for _ in range(3)]
    assert [[file.path.name for file in unit.files] for unit in again if unit] == [["b"], ["c", "d"]]
