"""Indexing with workers on Ray: the same index as a local run, also where a worker is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import truncate, write_audio, write_clip, write_frames
from helpers.colour_references import colour_set
from helpers.photos import write_photo
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.encoders.cluster.connection import RayEngine
from impart.config import Settings, VanillaSettings
from impart.encoders.base import Encoder
from impart.video.index.events import (
    Event,
    IndexDone,
    ScanDone,
    VideoAbsent,
    VideoDone,
    VideoFailed,
    VideoRemoved,
    VideoStarted,
    WorkerDone,
    WorkerLost,
    WorkerReady,
)
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, VIDEOS, Store

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'impart-clip[ray]'")

TWO = RayEngine(workers=2)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start Ray once, as the product does."""
    from impart.encoders.cluster import connection

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    folder = connection._short_folder()
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=connection.STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(folder),
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, photos, files that fail, copies, and a film long enough that a worker is killed in the middle of it."""
    folder = tmp_path_factory.mktemp("library")
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(400)]
    write_frames(folder / "a long.mp4", noise, times_s=[i / 4 for i in range(len(noise))])
    for number, colours in enumerate((["red"], ["blue", "green"], ["white"], ["cyan", "red", "black"], ["orange"])):
        write_clip(folder / f"clip{number}.mp4", colours=colours, size=(64, 48), seconds_each=1 + number / 3)
    for number, colour in enumerate(("red", "green", "blue", "yellow", "grey")):
        write_photo(folder / f"photo{number}.jpg", colour)
    (folder / "photo2b.jpg").write_bytes((folder / "photo1.jpg").read_bytes()[:200])
    (folder / "no video.mp4").write_bytes(b"not a video at all")
    write_audio(folder / "sound.mp4")
    write_clip(folder / "part.mkv", colours=["red", "blue", "green"], size=(64, 48))
    truncate(folder / "part.mkv", 0.6)
    shutil.copy(folder / "clip1.mp4", folder / "z copy.mp4")
    return folder


def augmented() -> Encoder:
    return AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=2, w_img=0.5, w_txt=0.5)))


def open_index(folder: Path, encoder: Encoder | None = None) -> VideoIndex:
    settings = Settings.load() if encoder is None else None
    return VideoIndex.open(folder, encoder or augmented(), settings=settings)


def rows_of(index: VideoIndex) -> dict[str, list[dict[str, Any]]]:
    """Read all rows, in an order that does not depend on the order of commits."""
    store, found = Store(index.path), {}
    augmentation = index.manifest.augmentation
    for name in [VIDEOS, SEGMENTS, *([augmentation.table] if augmentation else [])]:
        rows = store.read(name).to_pylist()
        for row in rows:
            row.pop("indexed_at", None)
        found["neighbours" if name not in (VIDEOS, SEGMENTS) else name] = sorted(
            rows, key=lambda row: (row["video_id"], row.get("revision", ""), row.get("number", 0))
        )
    failures = [(record.path, record.reason, record.attempts) for record in index.failures()]
    return found | {"failures": [{"failure": failure} for failure in failures]}


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def local(library: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoIndex, list[Event]]:
    index = open_index(tmp_path_factory.mktemp("local") / "index")
    return index, list(index.add([library]))


def test_same_rows_as_a_local_run_although_a_worker_is_killed(
    library: Path, local: tuple[VideoIndex, list[Event]], tmp_path: Path
) -> None:
    index = open_index(tmp_path / "index")
    events: list[Event] = []
    pids, killed = {}, None
    for event in index.add([library], engine=TWO):
        events.append(event)
        if isinstance(event, WorkerReady):
            pids[event.worker] = event.pid
        begun = [one.path.name for one in of(VideoStarted, events)]
        if killed is None and "a long.mp4" in begun:
            killed = 1  # units are given out in order: the first worker has the first file
            os.kill(pids[killed], signal.SIGKILL)
    rows, expected = rows_of(index), rows_of(local[0])
    assert {name: len(found) for name, found in rows.items()} == {name: len(found) for name, found in expected.items()}
    for name, found in expected.items():
        assert rows[name] == found, name
    assert len(expected["neighbours"]) == len(expected[SEGMENTS]) > 400
    assert [lost.worker for lost in of(WorkerLost, events)] == [killed]
    assert of(WorkerLost, events)[0].files >= 1
    assert len(of(WorkerReady, events)) >= 2
    assert sum(done.files for done in of(WorkerDone, events)) >= 1
    (done,), (wanted,) = of(IndexDone, events), of(IndexDone, local[1])
    same = ("added", "copied", "failed", "no_video", "partial", "photos", "segments", "samples", "encoded")
    assert {name: getattr(done, name) for name in same} == {name: getattr(wanted, name) for name in same}
    numbers = [event.number for event in of(VideoStarted, events)]
    assert sorted(numbers) == numbers
    assert len(set(numbers)) == len(numbers)
