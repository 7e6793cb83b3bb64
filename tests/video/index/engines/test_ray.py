"""Indexing with workers on Ray: the same index as a local run, also where a worker is killed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import tiny_encoder
from helpers.clips import truncate, write_audio, write_clip, write_frames
from helpers.colour_references import colour_set
from helpers.index_rows import rows_of
from helpers.photos import write_photo
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder
from impart.encoders.cluster.connection import FOLDER, RayEngine, connected
from impart.encoders.cluster.pool import Lost, Ready
from impart.refset.refset import ReferenceSet
from impart.video.index.events import (
    Event,
    IndexDone,
    VideoProgress,
    VideoStarted,
    WorkerDone,
    WorkerLost,
    WorkerReady,
)
from impart.video.index.index import VideoIndex

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install 'impart-clip[ray]'", allow_module_level=True)

TWO = RayEngine(workers=2)


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """Start Ray once; runs use it, since this process has a connection."""
    with connected(RayEngine()) as ray:
        folders = list(Path(tempfile.gettempdir()).glob(f"{FOLDER}{os.getpid()}-*"))
        for module in (sys.modules[__name__], tiny_encoder):  # workers cannot import the tests
            ray.cloudpickle.register_pickle_by_value(module)
        yield ray
    assert not any(folder.exists() for folder in folders)


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


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def local(library: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoIndex, list[Event]]:
    index = VideoIndex.open(tmp_path_factory.mktemp("local") / "index", augmented())
    return index, list(index.add([library]))


def test_same_rows_as_a_local_run_although_a_worker_is_killed(
    library: Path, local: tuple[VideoIndex, list[Event]], tmp_path: Path
) -> None:
    index = VideoIndex.open(tmp_path / "index", augmented())
    events: list[Event] = []
    pids, killed = {}, None
    for event in index.add([library], engine=TWO):
        events.append(event)
        if isinstance(event, WorkerReady):
            pids[event.worker] = event.pid
        half_way = isinstance(event, VideoProgress) and event.path.name == "a long.mp4" and event.position_s > 40
        if half_way and killed is None:
            killed = event.worker
            os.kill(pids[killed], signal.SIGKILL)
    rows, expected = rows_of(index.path), rows_of(local[0].path)
    assert {name: len(found) for name, found in rows.items()} == {name: len(found) for name, found in expected.items()}
    for name, found in expected.items():
        assert rows[name] == found, name
    (neighbours,) = (name for name in expected if name.startswith("neighbours_"))
    assert len(expected[neighbours]) == len(expected["segments"]) > 400
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
    assert {event.worker for event in of(VideoProgress, events)} > {killed}


def write_pairs(folder: Path) -> Path:
    """Images with captions: several of one image, some of it twice, damaged and missing files, an empty text."""
    rng = np.random.default_rng(1)
    names = list(COLOURS)
    lines = ["file,caption"]
    for number in range(60):
        name = f"{number:02d}.png"
        colour = tuple(int(level) for level in rng.integers(0, 255, 3))
        write_photo(folder / name, Image.new("RGB", (20 + number, 30), colour))
        lines.append(f"{name},a {names[number % 10]} wall {number % 7}")
        if number % 5 == 0:
            lines.append(f"{name},seen twice {number}")
        if number in (31, 45):
            lines.append(f"{number - 25:02d}.png,a {names[(number - 25) % 10]} wall {(number - 25) % 7}")
    (folder / "33.png").write_bytes(b"no image")
    lines += ["missing.png,a wall", "50.png, "]
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "list.csv"


class SlowEncoder(TinyEncoder):
    """Takes its time, so that a worker is killed while it works."""

    def encode_images(self, images: Any) -> Any:
        time.sleep(0.05)
        return super().encode_images(images)


def test_same_reference_set_as_a_local_build_although_a_worker_is_killed(tmp_path: Path) -> None:
    source = write_pairs(tmp_path)
    failures: dict[str, list[Any]] = {"local": [], "ray": []}
    options = {"batch": 4, "prompts": ("a photo of {}", "{}")}
    local = ReferenceSet.build(
        source, SlowEncoder(), path=tmp_path / "local", on_failure=failures["local"].append, **options
    )
    told: list[Ready | Lost] = []
    pids: list[int] = []

    def on_worker(event: Ready | Lost) -> None:
        told.append(event)
        if isinstance(event, Ready):
            pids.append(event.pid)

    def on_progress(_: Any) -> None:
        if pids and not any(isinstance(event, Lost) for event in told):
            os.kill(pids[0], signal.SIGKILL)
            pids.clear()

    made = ReferenceSet.build(
        source,
        SlowEncoder(),
        path=tmp_path / "ray",
        engine=TWO,
        on_worker=on_worker,
        on_progress=on_progress,
        on_failure=failures["ray"].append,
        **options,
    )
    assert sum(isinstance(event, Lost) for event in told) == 1
    (rows,), (expected,) = ([*(tmp_path / way).glob("*.arrow")] for way in ("ray", "local"))
    assert rows.name == expected.name
    assert rows.read_bytes() == expected.read_bytes()
    assert failures["ray"] == failures["local"] != []
    assert made.manifest.duplicates == local.manifest.duplicates == 2
    assert len(made) > 60


def test_interrupt_ends_the_workers_and_the_next_run_continues(library: Path, ray: Any, tmp_path: Path) -> None:
    place = tmp_path / "index"
    command = [sys.executable, "-m", "impart", "index", str(library), "-i", str(place), "--engine", "ray"]
    command += ["--workers", "1", "--address", ray.get_runtime_context().gcs_address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr)
    assert re.search(r"worker 1 on \S+ is ready", next(lines))
    process.send_signal(signal.SIGINT)
    assert "the same command" in "".join(lines)
    assert process.wait(timeout=30) == 130
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != os.cpu_count() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == os.cpu_count()  # the worker is gone
    (done,) = of(IndexDone, list(VideoIndex.open(place).add([library / "clip0.mp4", library / "clip1.mp4"])))
    assert done.added + done.unchanged == 2
