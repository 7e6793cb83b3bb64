"""An index survives SIGKILL at any moment, and can be searched while it is written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from helpers.clips import truncate, write_clip
from helpers.colour_references import colour_set
from helpers.index_rows import rows_of
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.config import VanillaSettings
from impart.video.index import refset_switch as references
from impart.video.index.index import Hit, VideoIndex
from impart.video.index.store import Store
from impart.video.index.writer import Writer

FILMS = 22
KILLS = [
    ("ScanDone", 1),
    ("VideoStarted", 1),
    ("ScanDone", 0),
    ("VideoDone", 1),
    ("VideoProgress", 1),
    ("VideoDone", 2),
    ("ScanDone", 0),
    ("VideoStarted", 2),
    ("VideoProgress", 3),
    ("VideoDone", 2),
]
"""After which event of a run it is killed: within starting (0 times), opening, encoding, writing, committing."""

MOST_FILMS = 2
"""Films that a killed run can encode, however late the kill comes: all kills together leave the index incomplete."""

SCRIPT = """
import sys
from impart.video.index.index import Hit, VideoIndex
from helpers.colour_references import colour_set
from test_kill import PacedEncoder
import impart

folder, films, slow_s, most = sys.argv[1:]
encoder = impart.augment(PacedEncoder(float(slow_s), int(most)), colour_set(), k=3)
for event in VideoIndex.open(folder, encoder).add([films]):
    print(type(event).__name__, flush=True)
"""


class PacedEncoder(TinyEncoder):
    """Pauses before each batch, so that kills land anywhere in a run; hangs after `most` batches, one per film."""

    def __init__(self, pause_s: float, most: int) -> None:
        super().__init__()
        self.pause_s = pause_s
        self.left = most + 1  # a run begins with one blank image

    def encode_images(self, images: Any) -> Any:
        time.sleep(self.pause_s if self.left > 0 else 60)
        self.left -= 1
        return super().encode_images(images)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of one to six shots, one of them twice, a broken and an empty file."""
    folder = tmp_path_factory.mktemp("films")
    names = list(COLOURS)
    rng = random.Random(4)
    for i in range(FILMS - 1):
        shots = [rng.choice(names) for _ in range(1 + i % 6)]
        write_clip(folder / f"film {i:02d}.mp4", colours=shots, seconds_each=0.5)
    truncate(write_clip(folder / "film 06 broken.mp4", colours=["red"]), 0.5)
    (folder / "film 07 empty.mp4").touch()
    (folder / "film 99 again.mp4").write_bytes((folder / "film 03.mp4").read_bytes())
    return folder


def start(folder: Path, films: Path, *, slow_s: float = 0.0, most: int = 1000) -> subprocess.Popen[str]:
    """Start a run in a process of its own.

    Args:
        slow_s: pause before each batch.
        most: batches after which the encoder hangs.
    """
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    command = [sys.executable, "-c", SCRIPT, str(folder), str(films), str(slow_s), str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(lines: IO[str], event: str, *, times: int) -> None:
    """Read the names of events until one has come `times` times, or the run ends; at once for 0 times."""
    while times:
        times -= next(lines, event).strip() == event


@pytest.mark.slow
def test_ten_kills_leave_the_index_of_an_undisturbed_run(films: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, films).wait() == 0

    rng = random.Random(20)
    counts = []
    for event, times in KILLS:
        process = start(killed, films, slow_s=0.1, most=MOST_FILMS)
        assert process.stdout is not None
        wait_for(process.stdout, event, times=times)
        time.sleep(rng.uniform(0, 0.15))
        assert process.poll() is None, "the run is killed, it does not end by itself"
        process.kill()
        process.wait()
        counts.append(len(Store(killed).videos()) if (killed / "manifest.json").exists() else 0)
    assert counts == sorted(counts)
    assert len(set(counts)) > 3, f"the kills landed at too few different places: {counts}"
    assert counts[-1] < FILMS, f"the index was complete before the last kill: {counts}"
    assert start(killed, films).wait() == 0

    expected, got = rows_of(whole), rows_of(killed)
    assert expected.keys() == got.keys()
    for name in expected:
        assert got[name] == expected[name], name
    assert len(expected["videos"]) == FILMS
    assert len(expected["failures"]) == 2
    assert len(expected["segments"]) == sum(row["segments"] for row in expected["videos"])


def files_of(hits: list[Hit]) -> int:
    """Count the files that hits stand for, copies included."""
    return sum(1 + len(hit.also_at) + len(hit.near_copies) for hit in hits)


def test_a_reader_searches_while_the_index_is_written(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    process = start(folder, films, slow_s=0.02)
    errors: list[BaseException] = []
    counts: list[int] = []
    over = threading.Event()

    def read() -> None:
        try:
            while not over.is_set():
                if (folder / "manifest.json").exists():
                    # A new object each time, so that nothing is kept in memory.
                    index = VideoIndex.open(folder, TinyEncoder())
                    counts.append(files_of(index.search(text="red", top=100)))
                    index.videos()
                    index.failures()
        except BaseException as error:  # noqa: BLE001 - the test is that there is none
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    # Films come and go, and the reference set changes, under the reader.
    writer = VideoIndex.open(folder, TinyEncoder())
    for turn in range(3):
        writer.use_references(None if turn % 2 == 0 else colour_set())
        changed = films.parent / f"changed {turn}"
        changed.mkdir(exist_ok=True)
        write_clip(changed / "new.mp4", colours=["red", "blue", "green"][: turn + 1])
        list(writer.add([changed]))
        (changed / "new.mp4").unlink()
        (changed / "kept.txt").touch()
        list(writer.add([changed], prune=True))
    over.set()
    reader.join()
    assert code == 0
    assert not errors, errors
    assert len(set(counts)) > 2, "the reader got several states of the index"
    assert files_of(writer.search(text="red", top=100)) == FILMS


def test_a_change_of_references_killed_half_way_leaves_the_old_ones(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add([films]))
    index.use_references(colour_set())
    before, manifest = rows_of(index.path), index.manifest

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Killed

    other = colour_set().merge()
    for place in ("_neighbours", None):
        with monkeypatch.context() as patch:
            if place:
                patch.setattr(references, place, dies)
            else:
                patch.setattr(Writer, "save_manifest", dies)
            with pytest.raises(Killed):
                index.use_references(other, VanillaSettings(k=2))
        assert index.manifest == manifest
        hits = VideoIndex.open(index.path, TinyEncoder()).search(text="red", top=100, why=True)
        assert files_of(hits) == FILMS
        assert np.isfinite([hit.score for hit in hits]).all()
    list(index.add([films]))  # the next writer cleans up
    assert rows_of(index.path) == before
